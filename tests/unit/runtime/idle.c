/* SPDX-License-Identifier: Apache-2.0
 *
 * Idle means idle, and who is woken: idle [seconds]
 *
 * An idle runtime's threads do not run: the kernel's own account of their time stands still. A send wakes at most one
 * thread, and none while its receiver runs. Both are counted, whatever else the machine does.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime_test.h"

#define WORKERS 16

enum { TICK = 1, HOLD };

static unsigned int seconds = 1;
static struct gate ticks, held, let_go;

static void on_tick(void *self, struct ty_msg *msg)
{
	(void)self;
	(void)msg;
	gate_open(&ticks);
}

static void on_hold(void *self, struct ty_msg *msg)
{
	(void)self;
	(void)msg;
	gate_open(&held);
	gate_wait(&let_go);
}

static const struct ty_handler handlers[] = {{"tick", on_tick}, {"hold", on_hold}};
static const struct ty_class cls = {.name = "sleeper", .first_type = TICK, .type_count = 2, .handlers = handlers};

/* The first number or word of a thread's file in /proc. */
static bool read_first(const char *thread, const char *name, char out[64])
{
	char path[300];
	FILE *file;
	bool found;

	snprintf(path, sizeof path, "/proc/self/task/%s/%s", thread, name);
	file = fopen(path, "r");
	found = file && fscanf(file, "%63s", out) == 1;
	if (file)
		fclose(file);
	return found;
}

/* Sum of the run times of the runtime's threads, ns, and how many they are; -1: the kernel does not say. */
static int64_t threads_ran(uint32_t *count)
{
	DIR *dir = opendir("/proc/self/task");
	int64_t sum = 0;

	*count = 0;
	if (!dir)
		return -1;
	for (const struct dirent *entry; sum >= 0 && (entry = readdir(dir));) {
		char name[64], ran[64];

		if (!read_first(entry->d_name, "comm", name) || (strncmp(name, "test-w", 6) != 0 && strcmp(name, cls.name) != 0))
			continue;
		if (read_first(entry->d_name, "schedstat", ran))
			sum += strtoll(ran, NULL, 10);
		else
			sum = -1;
		(*count)++;
	}
	closedir(dir);
	return sum;
}

/* All workers sleep: as many have parked as were not woken. There are no timers. */
static void wait_all_parked(struct ty_runtime *rt, uint32_t workers, struct ty_runtime_stats *stats)
{
	do {
		nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
		ty_runtime_stats(rt, stats);
	} while (stats->parks - stats->wakes != workers);
}

static void test_an_idle_runtime_does_not_run(void **unused)
{
	struct ty_runtime *rt = make_runtime(WORKERS);
	struct ty_actor *actor = spawn(rt, &cls, NULL, TY_POOL), *own = spawn(rt, &cls, NULL, TY_DEDICATED);
	struct ty_msg tick = TY_MSG_INIT, other = TY_MSG_INIT;
	int64_t before, after = -1;
	uint32_t count;

	(void)unused;
	atomic_store(&ticks.open, 0);
	assert_int_equal(ty_send(actor, &tick, TICK), TY_OK);
	assert_int_equal(ty_send(own, &other, TICK), TY_OK);
	gate_wait_for(&ticks, 2);
	do { /* until they all sleep */
		before = after;
		nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
		after = threads_ran(&count);
		if (after < 0)
			skip();
	} while (before != after);
	assert_int_equal(count, WORKERS + 1);
	nanosleep(&(struct timespec){.tv_sec = seconds}, NULL);
	after = threads_ran(&count);
	print_message("%u threads ran for %lld ns in %u s\n", count, (long long)(after - before), seconds);
	assert_int_equal(after, before);
	ty_actor_unref(actor);
	ty_actor_unref(own);
	ty_runtime_destroy(rt);
}

static void test_a_send_wakes_at_most_one(void **unused)
{
	enum { N = 200, BURST = 10 };
	struct ty_runtime *rt = make_runtime(4);
	struct ty_actor *actor = spawn(rt, &cls, NULL, TY_POOL);
	struct ty_msg msgs[BURST] = {TY_MSG_INIT};
	struct ty_runtime_stats before, after;

	(void)unused;
	atomic_store(&ticks.open, 0);
	for (uint32_t i = 0; i < N; i++) {
		wait_all_parked(rt, 4, &before);
		assert_int_equal(ty_send(actor, &msgs[0], TICK), TY_OK);
		gate_wait_for(&ticks, i + 1);
		wait_all_parked(rt, 4, &after);
		assert_int_equal(after.wakes - before.wakes, 1);
	}
	for (uint32_t i = 0; i < N; i++) {
		wait_all_parked(rt, 4, &before);
		for (uint32_t k = 0; k < BURST; k++)
			assert_int_equal(ty_send(actor, &msgs[k], TICK), TY_OK);
		gate_wait_for(&ticks, N + (i + 1) * BURST);
		wait_all_parked(rt, 4, &after);
		assert_in_range(after.wakes - before.wakes, 1, BURST);
	}
	ty_actor_unref(actor);
	ty_runtime_destroy(rt);
}

static void none_while_it_runs(enum ty_executor executor)
{
	enum { N = 1000 };
	struct ty_runtime *rt = make_runtime(4);
	struct ty_actor *actor = spawn(rt, &cls, NULL, executor);
	uint32_t parked = executor == TY_POOL ? 3 : 4;
	static struct ty_msg msgs[N];
	struct ty_msg hold = TY_MSG_INIT;
	struct ty_runtime_stats before, after;

	memset(msgs, 0, sizeof msgs);
	atomic_store(&ticks.open, 0);
	atomic_store(&held.open, 0);
	atomic_store(&let_go.open, 0);
	assert_int_equal(ty_send(actor, &hold, HOLD), TY_OK);
	gate_wait(&held);
	wait_all_parked(rt, parked, &before);
	for (uint32_t i = 0; i < N; i++)
		assert_int_equal(ty_send(actor, &msgs[i], TICK), TY_OK);
	wait_all_parked(rt, parked, &after);
	assert_int_equal(after.wakes, before.wakes);
	assert_int_equal(after.parks, before.parks);
	gate_open(&let_go);
	gate_wait_for(&ticks, N);
	ty_actor_unref(actor);
	ty_runtime_destroy(rt);
}

static void test_a_send_to_what_runs_wakes_nobody(void **unused)
{
	(void)unused;
	none_while_it_runs(TY_POOL);
	none_while_it_runs(TY_DEDICATED);
}

/* ---- what a handler sends is run by who sleeps ---- */

struct boss {
	struct ty_runtime *rt;
	struct ty_actor *next, *other; /* the first to be sent to runs next on the boss's worker; the other can be stolen */
	struct ty_msg msgs[2];
};

static void on_order(void *self, struct ty_msg *msg)
{
	struct boss *boss = *(struct boss **)self;
	struct ty_runtime_stats stats;

	(void)msg;
	wait_all_parked(boss->rt, 1, &stats);
	assert_int_equal(ty_send(boss->next, &boss->msgs[0], TICK), TY_OK);
	assert_int_equal(ty_send(boss->other, &boss->msgs[1], TICK), TY_OK);
	gate_wait_for(&ticks, 1); /* in vain if the other worker is not woken: this one is here */
	gate_open(&held);
}

static enum ty_code on_boss_start(void *self, void *arg)
{
	*(void **)self = arg;
	return TY_OK;
}

static void test_what_can_be_stolen_wakes_another(void **unused)
{
	static const struct ty_handler orders[] = {{"order", on_order}};
	static const struct ty_class boss_class = {.name = "boss", .state_size = sizeof(void *), .first_type = TICK,
		.type_count = 1, .handlers = orders, .start = on_boss_start};
	struct ty_runtime *rt = make_runtime(2);
	struct boss boss = {.rt = rt, .next = spawn(rt, &cls, NULL, TY_POOL), .other = spawn(rt, &cls, NULL, TY_POOL)};
	struct ty_actor *actor = spawn(rt, &boss_class, &boss, TY_POOL);
	struct ty_msg order = TY_MSG_INIT;

	(void)unused;
	atomic_store(&ticks.open, 0);
	atomic_store(&held.open, 0);
	assert_int_equal(ty_send(actor, &order, TICK), TY_OK);
	gate_wait(&held);
	gate_wait_for(&ticks, 2);
	ty_actor_unref(actor);
	ty_actor_unref(boss.next);
	ty_actor_unref(boss.other);
	ty_runtime_destroy(rt);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_idle_runtime_does_not_run),
		cmocka_unit_test(test_a_send_wakes_at_most_one),
		cmocka_unit_test(test_a_send_to_what_runs_wakes_nobody),
		cmocka_unit_test(test_what_can_be_stolen_wakes_another),
	};

	if (argc > 1)
		seconds = (unsigned int)strtoul(argv[1], NULL, 10);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
