/* SPDX-License-Identifier: Apache-2.0
 *
 * Many actors: million [actors [workers]]
 *
 * Spawns them all, and only then sends each a message; each checks it and stops. Every actor is counted when it starts, when
 * it has its message and when it has stopped, each exactly once. Prints what each phase took and the memory of an actor.
 * As many parents as workers do the work, so that all workers have some.
 */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <tyer/actor.h>

enum { SPAWN = 1, GREET, HELLO };

#define PIECE 1024 /* actors that a parent spawns or greets in one message */

/* Its own line: written by the child alone. */
struct child {
	struct ty_msg hello;
	struct ty_actor *address; /* the parent's */
	uint64_t number;
	uint32_t started, greeted, stopped;
};

struct parent {
	struct ty_runtime *rt;
	struct child *children;
	uint64_t count, spawned, greeted;
};

struct order {
	struct ty_msg msg;
	struct parent *parent;
};

static _Atomic(uint64_t) started, stopped; /* by children; main reads */

static void must(enum ty_code code)
{
	if (code != TY_OK) {
		fprintf(stderr, "million: %s\n", ty_code_name(code));
		exit(1);
	}
}

static enum ty_code child_start(void *self, void *arg)
{
	*(struct child **)self = arg;
	((struct child *)arg)->started++;
	atomic_fetch_add_explicit(&started, 1, memory_order_release);
	return TY_OK;
}

static void on_hello(void *self, struct ty_msg *msg)
{
	struct child *child = *(struct child **)self;

	if (msg == &child->hello && child->started == 1)
		child->greeted++;
	ty_actor_stop(ty_self());
}

static void child_stop(void *self)
{
	(*(struct child **)self)->stopped++;
	atomic_fetch_add_explicit(&stopped, 1, memory_order_release);
}

static const struct ty_handler child_handlers[] = {{"hello", on_hello}};
static const struct ty_class child_class = {
	.name = "child",
	.state_size = sizeof(struct child *),
	.first_type = HELLO,
	.type_count = 1,
	.handlers = child_handlers,
	.start = child_start,
	.stop = child_stop,
};

/* The order comes back to the parent until it is through. */
static void on_spawn(void *self, struct ty_msg *msg)
{
	struct parent *parent = ty_container_of(msg, struct order, msg)->parent;
	uint64_t end = parent->spawned + PIECE < parent->count ? parent->spawned + PIECE : parent->count;

	(void)self;
	for (; parent->spawned < end; parent->spawned++) {
		struct child *child = &parent->children[parent->spawned];

		must(ty_spawn(parent->rt, &child_class, child, NULL, &child->address));
	}
	if (end < parent->count)
		must(ty_send(ty_self(), msg, SPAWN));
}

static void on_greet(void *self, struct ty_msg *msg)
{
	struct parent *parent = ty_container_of(msg, struct order, msg)->parent;
	uint64_t end = parent->greeted + PIECE < parent->count ? parent->greeted + PIECE : parent->count;

	(void)self;
	for (; parent->greeted < end; parent->greeted++) {
		struct child *child = &parent->children[parent->greeted];

		must(ty_send(child->address, &child->hello, HELLO));
		ty_actor_unref(child->address);
	}
	if (end < parent->count)
		must(ty_send(ty_self(), msg, GREET));
}

static const struct ty_handler parent_handlers[] = {{"spawn", on_spawn}, {"greet", on_greet}};
static const struct ty_class parent_class = {
	.name = "parent", .first_type = SPAWN, .type_count = 2, .handlers = parent_handlers};

static int64_t clock_ns(clockid_t id)
{
	struct timespec now;

	clock_gettime(id, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Asleep, so that the workers have the CPUs. */
static void wait_for(const _Atomic(uint64_t) *counter, uint64_t count)
{
	while (atomic_load_explicit(counter, memory_order_acquire) < count)
		nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

static uint64_t resident(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (uint64_t)usage.ru_maxrss * 1024;
}

int main(int argc, char **argv)
{
	uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000, workers = argc > 2 ? strtoull(argv[2], NULL, 10) : 2;
	struct ty_runtime_options options = {.size = sizeof options, .workers = (uint32_t)workers};
	struct child *children = malloc(count * sizeof *children);
	struct parent *parents = calloc(workers, sizeof *parents);
	struct order *orders = calloc(workers, sizeof *orders);
	struct ty_actor **actors = calloc(workers, sizeof *actors);
	struct ty_runtime_stats stats;
	struct ty_runtime *rt;
	int64_t began, cpu, at_spawned, at_stopped, at_end;
	uint64_t before, wrong = 0;

	if (!count || !workers || workers > 64 || !children || !parents || !orders || !actors) {
		fprintf(stderr, "usage: million [actors [workers]]\n");
		return 2;
	}
	memset(children, 0, count * sizeof *children); /* the program's own memory is there before */
	before = resident();
	cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	began = clock_ns(CLOCK_MONOTONIC);
	must(ty_runtime_create(&options, &rt, NULL));
	for (uint64_t i = 0; i < workers; i++) {
		uint64_t first = count * i / workers;

		parents[i] = (struct parent){.rt = rt, .children = children + first, .count = count * (i + 1) / workers - first};
		orders[i].parent = &parents[i];
		must(ty_spawn(rt, &parent_class, NULL, NULL, &actors[i]));
		must(ty_send(actors[i], &orders[i].msg, SPAWN));
	}
	wait_for(&started, count);
	at_spawned = clock_ns(CLOCK_MONOTONIC);
	ty_runtime_stats(rt, &stats);
	for (uint64_t i = 0; i < workers; i++)
		must(ty_send(actors[i], &orders[i].msg, GREET));
	wait_for(&stopped, count);
	at_stopped = clock_ns(CLOCK_MONOTONIC);
	for (uint64_t i = 0; i < workers; i++)
		ty_actor_unref(actors[i]);
	ty_runtime_destroy(rt);
	at_end = clock_ns(CLOCK_MONOTONIC);
	cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	for (uint64_t i = 0; i < count; i++)
		wrong += children[i].started != 1 || children[i].greeted != 1 || children[i].stopped != 1;
	if (wrong || stats.actors != count + workers) {
		fprintf(stderr, "million: %" PRIu64 " actors were not started, greeted and stopped once; %" PRIu64
			" lived at once\n", wrong, stats.actors);
		return 1;
	}
	printf("%" PRIu64 " actors, %" PRIu64 " workers: spawned %.3f s, greeted and stopped %.3f s, end %.3f s; "
		"in all %.3f s, CPU %.3f s; %.0f bytes each\n",
		count, workers, (double)(at_spawned - began) / 1e9, (double)(at_stopped - at_spawned) / 1e9,
		(double)(at_end - at_stopped) / 1e9, (double)(at_end - began) / 1e9, (double)cpu / 1e9,
		(double)(resident() - before) / (double)count);
	free(children);
	free(parents);
	free(orders);
	free(actors);
	return 0;
}
