/* SPDX-License-Identifier: Apache-2.0
 *
 * Wake from idle: N times, a thread that is no worker sleeps a while and sends a message to an actor of a
 * runtime that has gone to sleep: time from before the send until the handler runs. In between, the same with
 * a bare futex. Whoever sleeps does so on one CPU, whoever sends is on another, if there are two: where the kernel
 * places a thread makes more of a difference than how it is woken.
 */
#include "bench.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { TICK = 1 };

#define GAP_NS 300000 /* between two wake-ups: longer than anybody spins */

/* Written by whoever was woken (release), read by the main thread (acquire) after it slept. */
static _Atomic(int64_t) woken_at;

static void on_tick(void *self, struct ty_msg *msg)
{
	(void)self;
	(void)msg;
	atomic_store_explicit(&woken_at, clock_ns(), memory_order_release);
}

static _Atomic(uint32_t) word; /* written by main, read by the sleeper; UINT32_MAX: end */

static void *sleeper(void *arg)
{
	uint32_t seen = 0;

	for (;;) {
		uint32_t now = atomic_load_explicit(&word, memory_order_acquire);

		if (now == UINT32_MAX)
			return arg;
		if (now != seen) {
			atomic_store_explicit(&woken_at, clock_ns(), memory_order_release);
			seen = now;
		} else {
			syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
		}
	}
}

static void bare_wake(uint32_t value)
{
	atomic_store_explicit(&word, value, memory_order_seq_cst);
	syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static struct latency latency_of(int64_t *times, uint64_t count)
{
	qsort(times, count, sizeof *times, compare);
	return (struct latency){times[count / 2], times[count * 99 / 100]};
}

static void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = GAP_NS}, NULL);
}

/* Sleeping, not spinning, until it is there: the one who was woken has the CPUs. */
static int64_t collect(int64_t began)
{
	int64_t at;

	do
		nap();
	while (!(at = atomic_exchange_explicit(&woken_at, 0, memory_order_acquire)));
	return at - began;
}

static size_t sender_cpu = CPU_SETSIZE; /* CPU_SETSIZE: nobody is placed */

/* This thread, and what it creates from now on. */
static void stay_on(size_t cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	sched_setaffinity(0, sizeof cpus, &cpus); /* it may not be allowed: then nothing is placed */
}

void place_sleepers(void)
{
	size_t first = CPU_SETSIZE, last = 0;
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	sched_getaffinity(0, sizeof cpus, &cpus);
	for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &cpus))
			continue;
		if (first == CPU_SETSIZE)
			first = cpu;
		last = cpu;
	}
	if (first == CPU_SETSIZE)
		return;
	sender_cpu = first;
	stay_on(last);
}

uint64_t run_wake(struct ty_runtime *rt, const uint64_t *params)
{
	static const struct ty_handler handlers[] = {{"tick", on_tick}};
	static const struct ty_class cls = {
		.name = "sleeper", .first_type = TICK, .type_count = 1, .handlers = handlers};
	struct ty_actor *actor = spawn(rt, &cls, NULL);
	uint64_t count = params[0];
	int64_t *ours = table_of(count, sizeof *ours), *bare = table_of(count, sizeof *bare), began;
	struct ty_msg tick = TY_MSG_INIT;
	struct ty_runtime_stats stats;
	pthread_t thread;

	if (pthread_create(&thread, NULL, sleeper, NULL))
		must(TY_LIMIT);
	if (sender_cpu != CPU_SETSIZE)
		stay_on(sender_cpu);
	nap();
	clock_start();
	for (uint64_t i = 0; i < count; i++) {
		began = clock_ns();
		send(actor, &tick, TICK);
		ours[i] = collect(began);
		began = clock_ns();
		bare_wake((uint32_t)i + 1);
		bare[i] = collect(began);
	}
	finished();
	wait_finished();
	bare_wake(UINT32_MAX);
	pthread_join(thread, NULL);
	wake_latency = latency_of(ours, count);
	futex_latency = latency_of(bare, count);
	ty_actor_unref(actor);
	ty_runtime_stats(rt, &stats);
	return stats.messages;
}
