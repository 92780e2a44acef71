/* SPDX-License-Identifier: Apache-2.0
 *
 * Budgets, counters, what runs longest, and every way in which create and spawn refuse.
 */
#include <pthread.h>

#include "runtime/runtime.h"
#include "runtime_test.h"

enum { PING = 1, BLOCK, SLOW, LAST, TYPE_END };

struct note {
	struct ty_msg msg;
	struct gate *gate;
};

struct shared {
	struct gate entered, done, stopped;
	int count;
	int *watched; /* another's count, read at the first message */
	int saw;
	struct ty_runtime *rt;
	enum ty_code spawn_in_stop;
};

struct state {
	struct shared *shared;
};

static const struct ty_class cls;

static enum ty_code on_start(void *self, void *arg)
{
	((struct state *)self)->shared = arg;
	return TY_OK;
}

static void on_ping(void *self, struct ty_msg *msg)
{
	struct shared *shared = ((struct state *)self)->shared;

	(void)msg;
	if (shared->count++ == 0 && shared->watched)
		shared->saw = *shared->watched;
}

static void on_block(void *self, struct ty_msg *msg)
{
	struct shared *shared = ((struct state *)self)->shared;

	gate_open(&shared->entered);
	gate_wait(ty_container_of(msg, struct note, msg)->gate);
}

/* Takes longer than its budget by the runtime's own clock. */
static void on_slow(void *self, struct ty_msg *msg)
{
	int64_t until = ty_now() + 20000;

	while (ty_now() < until)
		;
	on_ping(self, msg);
}

static void on_last(void *self, struct ty_msg *msg)
{
	on_ping(self, msg);
	gate_open(&((struct state *)self)->shared->done);
}

static void on_stop(void *self)
{
	struct shared *shared = ((struct state *)self)->shared;
	struct ty_actor *child;

	if (shared->rt)
		shared->spawn_in_stop = ty_spawn(shared->rt, &cls, shared, NULL, &child);
	gate_open(&shared->stopped);
}

static const struct ty_handler handlers[] = {{"ping", on_ping}, {"block", on_block}, {"slow", on_slow}, {"last", on_last}};
static const struct ty_class cls = {.name = "limits", .state_size = sizeof(struct state), .first_type = PING,
	.type_count = TYPE_END - PING, .handlers = handlers, .start = on_start, .stop = on_stop};

/* One worker; an actor with a hundred messages, then another with one: the second comes after one budget. */
static void test_budget_of_messages(void **unused)
{
	struct ty_runtime_options options = {
		.size = sizeof options, .workers = 1, .budget_messages = 10, .budget_us = 10000000};
	struct shared many = {0}, one = {.watched = &many.count};
	struct gate gate = {0};
	struct note block = {.gate = &gate}, notes[100] = {0}, single = {0};
	struct ty_runtime_stats stats;
	struct ty_runtime *rt;
	struct ty_actor *a, *b;

	(void)unused;
	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	a = spawn(rt, &cls, &many, TY_POOL);
	b = spawn(rt, &cls, &one, TY_POOL);
	assert_int_equal(ty_send(a, &block.msg, BLOCK), TY_OK);
	gate_wait(&many.entered);
	for (int i = 0; i < 100; i++)
		assert_int_equal(ty_send(a, &notes[i].msg, i < 99 ? PING : LAST), TY_OK);
	assert_int_equal(ty_send(b, &single.msg, LAST), TY_OK);
	gate_open(&gate);
	gate_wait(&many.done);
	gate_wait(&one.done);
	assert_int_equal(one.saw, 9); /* the block and nine more */
	ty_runtime_stats(rt, &stats);
	assert_int_equal(stats.exhausted, 10);
	assert_int_equal(stats.messages, 102);
	assert_int_equal(stats.actors, 2);
	assert_true(stats.runs >= 12);
	ty_actor_unref(a);
	ty_actor_unref(b);
	ty_runtime_destroy(rt);
}

static void test_budget_of_time(void **unused)
{
	struct ty_runtime_options options = {
		.size = sizeof options, .workers = 1, .budget_messages = 1000, .budget_us = 10};
	struct shared shared = {0};
	struct gate gate = {0};
	struct note block = {.gate = &gate}, notes[20] = {0};
	struct ty_runtime_stats stats;
	struct ty_runtime *rt;
	struct ty_actor *a;

	(void)unused;
	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	a = spawn(rt, &cls, &shared, TY_POOL);
	assert_int_equal(ty_send(a, &block.msg, BLOCK), TY_OK);
	gate_wait(&shared.entered);
	for (int i = 0; i < 20; i++)
		assert_int_equal(ty_send(a, &notes[i].msg, i < 19 ? SLOW : LAST), TY_OK);
	gate_open(&gate);
	gate_wait(&shared.done);
	ty_runtime_stats(rt, &stats);
	assert_true(stats.exhausted >= 19); /* each is longer than the budget */
	ty_actor_unref(a);
	ty_runtime_destroy(rt);
}

static void test_longest_names_what_runs(void **unused)
{
	(void)unused;
	for (int e = 0; e < 2; e++) {
		struct ty_runtime *rt = make_runtime(2);
		struct shared shared = {0};
		struct gate gate = {0};
		struct note block = {.gate = &gate};
		struct ty_actor *a = spawn(rt, &cls, &shared, e ? TY_DEDICATED : TY_POOL);
		int64_t before = ty_runtime_now(rt);
		struct ty_running running;

		assert_int_equal(ty_send(a, &block.msg, BLOCK), TY_OK);
		gate_wait(&shared.entered);
		running = ty_runtime_longest(rt);
		assert_string_equal(running.actor, "limits");
		assert_string_equal(running.message, "block");
		assert_true(running.since <= ty_runtime_now(rt));
		assert_true(running.since > 0 && before > 0);
		gate_open(&gate);
		ty_actor_stop(a);
		gate_wait(&shared.stopped);
		ty_actor_unref(a);
		do
			running = ty_runtime_longest(rt);
		while (running.actor);
		assert_null(running.message);
		ty_runtime_destroy(rt);
	}
}

/* Of two that run, the one that began first, whichever thread has it. */
static void test_longest_of_two(void **unused)
{
	static const struct ty_class older = {.name = "older", .state_size = sizeof(struct state), .first_type = PING,
		.type_count = TYPE_END - PING, .handlers = handlers, .start = on_start};

	(void)unused;
	for (int order = 0; order < 2; order++) {
		struct ty_runtime *rt = make_runtime(1);
		struct shared shared[2] = {0};
		struct gate gate = {0};
		struct note blocks[2] = {{.gate = &gate}, {.gate = &gate}};
		struct ty_actor *actors[2];
		int first = order;

		for (int i = 0; i < 2; i++)
			actors[i] = spawn(rt, i == first ? &older : &cls, &shared[i], TY_DEDICATED);
		for (int i = 0; i < 2; i++) {
			int which = i ? !first : first;

			assert_int_equal(ty_send(actors[which], &blocks[which].msg, BLOCK), TY_OK);
			gate_wait(&shared[which].entered);
		}
		assert_string_equal(ty_runtime_longest(rt).actor, "older");
		gate_open(&gate);
		ty_actor_unref(actors[0]);
		ty_actor_unref(actors[1]);
		ty_runtime_destroy(rt);
	}
}

static void test_create_refuses(void **unused)
{
	static const struct {
		struct ty_runtime_options options;
		const char *field;
	} bad[] = {
		{{.size = 1}, "options.size"},
		{{.size = sizeof bad[0].options, .name = "ninechars"}, "options.name"},
		{{.size = sizeof bad[0].options, .workers = 65}, "options.workers"},
		{{.size = sizeof bad[0].options, .budget_us = 10000001}, "options.budget_us"},
		{{.size = sizeof bad[0].options, .spin_us = 10000001}, "options.spin_us"},
	};

	(void)unused;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct ty_runtime *rt = NULL;
		struct ty_error err;

		assert_int_equal(ty_runtime_create(&bad[i].options, &rt, &err), TY_INVALID);
		assert_int_equal(ty_runtime_create(&bad[i].options, &rt, NULL), TY_INVALID);
		assert_int_equal(err.code, TY_INVALID);
		assert_non_null(strstr(err.text, bad[i].field));
		assert_null(rt);
	}
}

static int64_t some_poll(void *self, int64_t now)
{
	(void)self;
	return now;
}

static void some_wait(void *self, int64_t deadline)
{
	(void)self;
	(void)deadline;
}

static void some_wake(void *self)
{
	(void)self;
}

static void test_spawn_refuses(void **unused)
{
	static const struct ty_class nameless = {.state_size = 8};
	static const struct ty_class huge = {.name = "huge", .state_size = SIZE_MAX};
	static const struct ty_class no_handlers = {.name = "none", .type_count = 1};
	static const struct ty_class half_wait = {.name = "half", .wait = {.wait = some_wait}};
	static const struct ty_class half_wake = {.name = "half", .wait = {.wake = some_wake}};
	static const struct ty_class polls = {.name = "polls", .poll = some_poll};
	static const struct ty_class waits = {.name = "waits", .wait = {some_wait, some_wake}};
	static const struct ty_class empty = {.name = "empty"};
	struct ty_spawn_options pool = {.size = sizeof pool, .executor = TY_POOL, .cpu = -1};
	struct ty_spawn_options dedicated = {.size = sizeof dedicated, .executor = TY_DEDICATED, .cpu = -1};
	struct ty_spawn_options bad;
	struct ty_runtime *rt = make_runtime(1);
	struct ty_runtime_stats stats;
	struct ty_actor *a = NULL;

	(void)unused;
	assert_int_equal(ty_spawn(rt, NULL, NULL, &pool, &a), TY_INVALID);
	assert_int_equal(ty_spawn(rt, &nameless, NULL, &pool, &a), TY_INVALID);
	assert_int_equal(ty_spawn(rt, &huge, NULL, &pool, &a), TY_INVALID);
	assert_int_equal(ty_spawn(rt, &no_handlers, NULL, &pool, &a), TY_INVALID);
	assert_int_equal(ty_spawn(rt, &half_wait, NULL, &dedicated, &a), TY_INVALID);
	assert_int_equal(ty_spawn(rt, &half_wake, NULL, &dedicated, &a), TY_INVALID);
	assert_int_equal(ty_spawn(rt, &polls, NULL, &pool, &a), TY_INVALID);
	assert_int_equal(ty_spawn(rt, &waits, NULL, &pool, &a), TY_INVALID);
	bad = pool;
	bad.size = 3;
	assert_int_equal(ty_spawn(rt, &empty, NULL, &bad, &a), TY_INVALID);
	bad = pool;
	bad.executor = (enum ty_executor)7;
	assert_int_equal(ty_spawn(rt, &empty, NULL, &bad, &a), TY_INVALID);
	bad = dedicated;
	bad.thread_name = "sixteen letters!";
	assert_int_equal(ty_spawn(rt, &empty, NULL, &bad, &a), TY_INVALID);
	bad = dedicated;
	bad.cpu = -2;
	assert_int_equal(ty_spawn(rt, &empty, NULL, &bad, &a), TY_INVALID);
	bad.cpu = CPU_SETSIZE; /* none such: the thread cannot be created, everything is undone */
	assert_int_equal(ty_spawn(rt, &empty, NULL, &bad, &a), TY_INVALID);
	assert_null(a);
	ty_runtime_stats(rt, &stats);
	assert_int_equal(stats.actors, 0);
	assert_int_equal(ty_spawn(rt, &empty, NULL, NULL, &a), TY_OK); /* no options: the pool */
	ty_actor_unref(a);
	ty_runtime_destroy(rt);
}

/* Options of programs that were compiled with another version's header. */
static void test_other_versions(void **unused)
{
	static const struct ty_class empty = {.name = "empty"};
	struct {
		struct ty_runtime_options known;
		uint64_t later;
	} newer = {.known = {.size = sizeof newer, .workers = 1}};
	struct {
		struct ty_spawn_options known;
		uint64_t later;
	} spawn = {.known = {.size = sizeof spawn, .executor = TY_DEDICATED, .cpu = -1}};
	struct ty_runtime_options older = {.size = offsetof(struct ty_runtime_options, seed), .workers = 1, .seed = 7, .stall_us = 1};
	struct ty_spawn_options older_spawn = {.size = offsetof(struct ty_spawn_options, cpu), .executor = TY_DEDICATED, .cpu = -2};
	struct ty_runtime *rt = NULL;
	struct ty_actor *a = NULL;
	struct ty_error err;

	(void)unused;
	newer.later = 1;
	assert_int_equal(ty_runtime_create(&newer.known, &rt, &err), TY_UNSUPPORTED);
	assert_non_null(strstr(err.text, "options.size"));
	assert_null(rt);
	newer.later = 0;
	assert_int_equal(ty_runtime_create(&newer.known, &rt, &err), TY_OK);
	ty_runtime_destroy(rt);
	assert_int_equal(ty_runtime_create(&older, &rt, &err), TY_OK); /* what lies behind it is not looked at */

	spawn.later = UINT64_C(1) << 63;
	assert_int_equal(ty_spawn(rt, &empty, NULL, &spawn.known, &a), TY_UNSUPPORTED);
	assert_null(a);
	spawn.later = 0;
	assert_int_equal(ty_spawn(rt, &empty, NULL, &spawn.known, &a), TY_OK);
	ty_actor_unref(a);
	assert_int_equal(ty_spawn(rt, &empty, NULL, &older_spawn, &a), TY_OK);
	ty_actor_unref(a);
	ty_runtime_destroy(rt);
}

/* All seats of threads taken. */
static void test_too_many_threads(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct ty_spawn_options dedicated = {.size = sizeof dedicated, .executor = TY_DEDICATED, .cpu = -1};
	struct shared shared = {0};
	struct ty_seat *seats[TY_MAX_WORKERS + TY_MAX_DEDICATED];
	size_t taken = 0;
	struct ty_actor *a;

	(void)unused;
	while (ty_seat_take(rt, &seats[taken]) == TY_OK)
		taken++;
	assert_int_equal(taken, TY_MAX_DEDICATED);
	assert_int_equal(ty_spawn(rt, &cls, &shared, &dedicated, &a), TY_LIMIT);
	ty_seat_leave(seats[0]);
	assert_int_equal(ty_spawn(rt, &cls, &shared, &dedicated, &a), TY_OK);
	ty_actor_unref(a);
	ty_runtime_destroy(rt);
}

static void test_no_spawn_while_stopping(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct shared shared = {.rt = rt, .spawn_in_stop = TY_OK};

	(void)unused;
	ty_actor_unref(spawn(rt, &cls, &shared, TY_POOL));
	ty_runtime_destroy(rt);
	assert_int_equal(shared.spawn_in_stop, TY_STOPPING);
}

static void test_two_runtimes(void **unused)
{
	struct ty_runtime *a = make_runtime(1), *b = make_runtime(1);
	struct shared sa = {0}, sb = {0};
	struct note na = {0}, nb = {0};
	struct ty_actor *x = spawn(a, &cls, &sa, TY_POOL), *y = spawn(b, &cls, &sb, TY_POOL);

	(void)unused;
	assert_null(ty_self());
	assert_int_equal(ty_send(x, &na.msg, LAST), TY_OK);
	assert_int_equal(ty_send(y, &nb.msg, LAST), TY_OK);
	gate_wait(&sa.done);
	gate_wait(&sb.done);
	ty_actor_unref(x);
	ty_runtime_destroy(a);
	ty_actor_unref(y);
	ty_runtime_destroy(b);
	ty_runtime_destroy(NULL);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_budget_of_messages),
		cmocka_unit_test(test_budget_of_time),
		cmocka_unit_test(test_longest_names_what_runs),
		cmocka_unit_test(test_longest_of_two),
		cmocka_unit_test(test_create_refuses),
		cmocka_unit_test(test_other_versions),
		cmocka_unit_test(test_spawn_refuses),
		cmocka_unit_test(test_too_many_threads),
		cmocka_unit_test(test_no_spawn_while_stopping),
		cmocka_unit_test(test_two_runtimes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
