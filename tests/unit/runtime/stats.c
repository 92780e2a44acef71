/* SPDX-License-Identifier: Apache-2.0
 *
 * The counters of actors and threads: in deterministic mode every figure is known.
 */
#include "runtime_test.h"

enum { WORK = 1, BURST, UNKNOWN = 99 };


static struct gate begun, go;

static void on_work(void *self, struct ty_msg *msg)
{
	(void)self;
	(void)msg;
}

/* Blocks the actor until the test has filled its mailbox. */
static void on_burst(void *self, struct ty_msg *msg)
{
	(void)self;
	(void)msg;
	gate_open(&begun);
	gate_wait(&go);
}

static const struct ty_handler handlers[] = {{"work", on_work}, {"burst", on_burst}};
static const struct ty_class cls = {
	.name = "counted",
	.first_type = WORK,
	.type_count = 2,
	.handlers = handlers,
};

static void test_counts_what_it_did(void **unused)
{
	struct ty_runtime_options options = {.size = sizeof options, .seed = 5};
	struct ty_msg msgs[10] = {TY_MSG_INIT}, unknown = TY_MSG_INIT;
	struct ty_actor *actor, *other;
	struct ty_actor_stats stats;
	struct ty_thread_stats thread;
	struct ty_runtime *rt;

	(void)unused;
	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	actor = spawn(rt, &cls, NULL, TY_POOL);
	other = spawn(rt, &cls, NULL, TY_POOL);
	ty_actor_stats(actor, &stats);
	assert_int_equal(stats.messages, 0);
	assert_int_equal(stats.runs, 0);
	assert_int_equal(stats.queue_high, 0);
	for (int i = 0; i < 10; i++)
		assert_int_equal(ty_send(actor, &msgs[i], WORK), TY_OK);
	assert_int_equal(ty_send(actor, &unknown, UNKNOWN), TY_OK);
	while (ty_runtime_step(rt))
		;
	ty_actor_stats(actor, &stats);
	assert_int_equal(stats.messages, 10);
	assert_int_equal(stats.refused, 1);
	assert_int_equal(stats.queue_high, 11);
	assert_int_equal(stats.runs, 11);      /* one message a step; the unknown one is no work but a turn */
	assert_int_equal(stats.exhausted, 10); /* each but the last left some */
	assert_int_equal(stats.running_ns, 0); /* the logical clock stands still in a step */
	assert_true(ty_thread_stats(rt, 0, &thread)); /* the one that there is */
	assert_false(thread.worker);
	assert_int_equal(thread.messages, 10);
	assert_int_equal(thread.runs, 12); /* the other's start */
	assert_int_equal(thread.exhausted, 10);
	assert_false(ty_thread_stats(rt, 1, &thread));
	assert_int_equal(thread.messages, 0);
	assert_false(ty_thread_stats(rt, UINT32_MAX, &thread));
	ty_actor_stats(other, &stats);
	assert_int_equal(stats.messages, 0);
	assert_int_equal(stats.refused, 0);
	ty_actor_unref(actor);
	ty_actor_unref(other);
	ty_runtime_destroy(rt);
}

/* All that a blocked actor is sent is found at once; its time is that of its handlers and no other's. */
static void counts_time_and_queue(enum ty_executor executor)
{
	struct ty_runtime *rt = make_runtime(1);
	struct ty_actor *actor = spawn(rt, &cls, NULL, executor);
	struct ty_msg burst = TY_MSG_INIT, msgs[100] = {TY_MSG_INIT};
	struct ty_actor_stats stats;
	int64_t entered, left, around = ty_runtime_now(rt);
	uint64_t most;

	atomic_store(&begun.open, 0);
	atomic_store(&go.open, 0);
	assert_int_equal(ty_send(actor, &burst, BURST), TY_OK);
	gate_wait(&begun);
	entered = ty_runtime_now(rt);
	for (int i = 0; i < 100; i++)
		assert_int_equal(ty_send(actor, &msgs[i], WORK), TY_OK);
	while (ty_runtime_now(rt) < entered + 2000000)
		;
	left = ty_runtime_now(rt);
	gate_open(&go);
	do
		ty_actor_stats(actor, &stats);
	while (stats.messages < 101 || stats.running_ns == 0);
	most = (uint64_t)(ty_runtime_now(rt) - around);
	assert_int_equal(stats.queue_high, 100);
	assert_true(stats.running_ns + stats.running_ns / 100 >= (uint64_t)(left - entered));
	assert_true(stats.running_ns - stats.running_ns / 100 <= most);
	assert_true(stats.exhausted >= 1);
	assert_true(stats.runs >= 2);
	ty_actor_unref(actor);
	ty_runtime_destroy(rt);
}

static void test_counts_time_and_queue_of_a_pooled_actor(void **unused)
{
	(void)unused;
	counts_time_and_queue(TY_POOL);
}

static void test_counts_time_and_queue_of_a_dedicated_actor(void **unused)
{
	(void)unused;
	counts_time_and_queue(TY_DEDICATED);
}

/* ---- of threads ---- */

static uint32_t threads_of(const struct ty_runtime *rt, struct ty_thread_stats *out, uint32_t most)
{
	uint32_t count = 0;

	while (count < most && ty_thread_stats(rt, count, &out[count]))
		count++;
	return count;
}

static void test_counts_what_each_thread_did(void **unused)
{
	struct ty_runtime *rt = make_runtime(2);
	struct ty_actor *pooled = spawn(rt, &cls, NULL, TY_POOL), *own = spawn(rt, &cls, NULL, TY_DEDICATED);
	struct ty_msg msgs[20] = {TY_MSG_INIT}, burst = TY_MSG_INIT;
	struct ty_thread_stats threads[8];
	struct ty_runtime_stats stats;
	struct ty_actor_stats of_own, of_pooled;
	struct ty_thread_stats again;
	uint64_t workers;
	int64_t began, entered;
	uint32_t count;

	(void)unused;
	began = ty_runtime_now(rt) - 1000000000; /* both were here before this line */
	for (int i = 0; i < 20; i++)
		assert_int_equal(ty_send(i % 4 ? pooled : own, &msgs[i], WORK), TY_OK);
	do /* at rest: then all that was counted is in */
		ty_runtime_stats(rt, &stats);
	while (stats.messages < 20 || stats.parks - stats.wakes != 3);
	count = threads_of(rt, threads, 8);
	assert_int_equal(count, 3);
	assert_true(threads[0].worker && threads[1].worker && !threads[2].worker);
	assert_int_equal(threads[0].messages + threads[1].messages, 15);
	assert_int_equal(threads[2].messages, 5);
	assert_int_equal(threads[0].runs + threads[1].runs + threads[2].runs, stats.runs);
	assert_int_equal(threads[0].parks + threads[1].parks + threads[2].parks, stats.parks);
	assert_int_equal(threads[0].wakes + threads[1].wakes + threads[2].wakes, stats.wakes);
	ty_actor_stats(own, &of_own);
	ty_actor_stats(pooled, &of_pooled);
	assert_int_equal(threads[2].runs, of_own.runs);
	/* read one after the other, so by different lines through the two clocks: to a percent */
	assert_true(threads[2].running_ns + threads[2].running_ns / 100 >= of_own.running_ns);
	workers = threads[0].running_ns + threads[1].running_ns;
	assert_true(workers + workers / 100 >= of_pooled.running_ns);
	assert_true(threads[2].running_ns < (uint64_t)(ty_runtime_now(rt) - began));
	for (int i = 0; i < 3; i++)
		assert_null(threads[i].running.actor);
	/* one that is in a handler says so */
	atomic_store(&begun.open, 0);
	atomic_store(&go.open, 0);
	assert_int_equal(ty_send(own, &burst, BURST), TY_OK);
	gate_wait(&begun);
	assert_true(ty_thread_stats(rt, 2, &threads[2]));
	assert_string_equal(threads[2].running.actor, "counted");
	assert_string_equal(threads[2].running.message, "burst");
	assert_true(threads[2].running.since <= ty_runtime_now(rt));
	/* its time goes on; who sleeps has none */
	entered = ty_runtime_now(rt);
	while (ty_runtime_now(rt) < entered + 2000000)
		;
	assert_true(ty_thread_stats(rt, 2, &again));
	assert_true(again.running_ns + again.running_ns / 100 >= threads[2].running_ns + 2000000);
	for (uint32_t i = 0; i < 2; i++) {
		assert_true(ty_thread_stats(rt, i, &again));
		assert_true(again.running_ns <= threads[i].running_ns + threads[i].running_ns / 100);
	}
	gate_open(&go);
	ty_actor_unref(own);
	ty_actor_unref(pooled);
	ty_runtime_destroy(rt);
}

enum { FAN = 300 };

struct fan {
	struct ty_actor *actors[FAN];
	struct ty_msg msgs[FAN];
	uint32_t count;
};

static enum ty_code fan_start(void *self, void *arg)
{
	*(struct fan **)self = arg;
	return TY_OK;
}

/* All of them can run now: the first next, the others wait for the one worker, which is here. */
static void on_fan(void *self, struct ty_msg *msg)
{
	struct fan *fan = *(struct fan **)self;

	for (uint32_t i = 0; i < fan->count; i++)
		assert_int_equal(ty_send(fan->actors[i], &fan->msgs[i], WORK), TY_OK);
	on_burst(self, msg);
}

static void test_counts_who_waits_for_a_worker(void **unused)
{
	static const struct ty_handler fan_handlers[] = {{"fan", on_fan}};
	static const struct ty_class fan_class = {.name = "fan", .state_size = sizeof(struct fan *), .first_type = WORK,
		.type_count = 1, .handlers = fan_handlers, .start = fan_start};
	static const uint32_t counts[] = {1, 10, FAN};
	static const uint64_t expected[] = {0, 9, 256};

	(void)unused;
	for (int i = 0; i < 3; i++) {
		struct ty_runtime *rt = make_runtime(1);
		struct fan fan = {.count = counts[i]};
		struct ty_actor *actor;
		struct ty_msg msg = TY_MSG_INIT;
		struct ty_thread_stats thread;
		struct ty_runtime_stats stats;

		for (uint32_t k = 0; k < fan.count; k++) {
			fan.actors[k] = spawn(rt, &cls, NULL, TY_POOL);
			do /* one after the other: nobody waits */
				ty_runtime_stats(rt, &stats);
			while (stats.parks - stats.wakes != 1 || stats.runs < k + 1);
		}
		actor = spawn(rt, &fan_class, &fan, TY_POOL);
		atomic_store(&begun.open, 0);
		atomic_store(&go.open, 0);
		assert_int_equal(ty_send(actor, &msg, WORK), TY_OK);
		gate_wait(&begun);
		assert_true(ty_thread_stats(rt, 0, &thread));
		assert_int_equal(thread.waiting, expected[i]);
		assert_int_equal(thread.queue_high, expected[i]);
		gate_open(&go);
		do
			assert_true(ty_thread_stats(rt, 0, &thread));
		while (thread.messages < fan.count + 1 || thread.waiting);
		assert_int_equal(thread.queue_high, expected[i]);
		for (uint32_t k = 0; k < fan.count; k++)
			ty_actor_unref(fan.actors[k]);
		ty_actor_unref(actor);
		ty_runtime_destroy(rt);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counts_what_it_did),
		cmocka_unit_test(test_counts_time_and_queue_of_a_pooled_actor),
		cmocka_unit_test(test_counts_time_and_queue_of_a_dedicated_actor),
		cmocka_unit_test(test_counts_what_each_thread_did),
		cmocka_unit_test(test_counts_who_waits_for_a_worker),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
