/* SPDX-License-Identifier: Apache-2.0
 *
 * One actor's counters: in deterministic mode every figure is known.
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counts_what_it_did),
		cmocka_unit_test(test_counts_time_and_queue_of_a_pooled_actor),
		cmocka_unit_test(test_counts_time_and_queue_of_a_dedicated_actor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
