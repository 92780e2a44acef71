/* SPDX-License-Identifier: Apache-2.0
 *
 * A stream of messages to one actor is handled in groups between which alone the runtime looks around: what happens within
 * a group, at each place of the stream.
 */
#include "runtime/runtime.h"
#include "runtime_test.h"

#define N 100 /* messages of a stream */

enum { ITEM = 1, OTHER, URGENT, TICK, TYPE_END };
enum act { URGE, START_TIMER, END, FAIL };

struct item {
	struct ty_msg msg;
	uint32_t value;
};

/* What the actor saw: the numbers of the items that it handled or was given back, and the others' places among them. */
struct seen {
	uint32_t handled, refused;
	uint32_t urgent_at, tick_at; /* how many items had been handled */
	uint32_t act_at;             /* the item whose handler acts */
	enum act act;
	struct ty_msg urgent;
	struct ty_timer timer;
};

struct state {
	struct seen *seen;
};

static enum ty_code on_start(void *self, void *arg)
{
	((struct state *)self)->seen = arg;
	return TY_OK;
}

static void on_item(void *self, struct ty_msg *msg)
{
	struct seen *seen = ((struct state *)self)->seen;
	uint32_t value = ty_container_of(msg, struct item, msg)->value;

	assert_int_equal(value, seen->handled + seen->refused); /* in order */
	assert_int_equal(msg->type, value % 3 ? ITEM : OTHER);
	seen->handled++;
	if (value != seen->act_at)
		return;
	switch (seen->act) {
	case URGE:
		assert_int_equal(ty_send_urgent(ty_self(), &seen->urgent, URGENT), TY_OK);
		break;
	case START_TIMER:
		ty_timer_start(&seen->timer, TICK, 0);
		break;
	case END:
		ty_actor_end();
		break;
	case FAIL:
		ty_actor_fail(TY_LIMIT);
		break;
	}
}

static void on_urgent(void *self, struct ty_msg *msg)
{
	struct seen *seen = ((struct state *)self)->seen;

	assert_ptr_equal(msg, &seen->urgent);
	assert_int_equal(seen->urgent_at, 0);
	seen->urgent_at = seen->handled;
}

static void on_tick(void *self, struct ty_msg *msg)
{
	struct seen *seen = ((struct state *)self)->seen;

	assert_ptr_equal(msg, &seen->timer.msg);
	assert_int_equal(seen->tick_at, 0);
	seen->tick_at = seen->handled;
}

static void on_refuse(void *self, struct ty_msg *msg)
{
	struct seen *seen = ((struct state *)self)->seen;

	assert_int_equal(ty_container_of(msg, struct item, msg)->value, seen->handled + seen->refused);
	seen->refused++;
}

static const struct ty_handler handlers[] = {
	{"item", on_item}, {"other", on_item}, {"urgent", on_urgent}, {"tick", on_tick}};
static const struct ty_class cls = {.name = "stream", .state_size = sizeof(struct state), .first_type = ITEM,
	.type_count = TYPE_END - ITEM, .handlers = handlers, .start = on_start, .refuse = on_refuse};

/* N items, number `odd` of a type that nobody handles (N: none), and then a stop. The counters agree with what was seen. */
static void stream(struct seen *seen, uint32_t odd, enum ty_executor executor)
{
	struct ty_runtime *rt = make_runtime(1);
	struct ty_actor *actor = spawn(rt, &cls, seen, executor);
	struct item items[N] = {0};
	struct ty_bundle bundle = {0};
	struct ty_actor_stats stats;

	for (uint32_t i = 0; i < N; i++) {
		items[i].value = i;
		ty_bundle_add(&bundle, &items[i].msg, i == odd ? TYPE_END : i % 3 ? ITEM : OTHER);
	}
	assert_int_equal(ty_send_bundle(actor, &bundle), TY_OK);
	assert_int_equal(ty_runtime_stop(rt, TY_NEVER, TY_NEVER, NULL), TY_OK);
	ty_actor_stats(actor, &stats);
	assert_int_equal(stats.messages, seen->handled + (seen->urgent_at != 0) + (seen->tick_at != 0));
	assert_int_equal(stats.refused, seen->refused);
	assert_in_range(stats.queue_high, N, N + 1); /* the stop */
	assert_int_equal(seen->handled + seen->refused, N);
	for (uint32_t i = 0; i < N; i++)
		assert_int_equal(items[i].msg.flags & TY_MSG_QUEUED, 0); /* each may be sent again */
	ty_actor_unref(actor);
	ty_runtime_destroy(rt);
}

static enum ty_executor executor_of(uint32_t round)
{
	return round % 4 ? TY_POOL : TY_DEDICATED;
}

/* What the header says of an urgent message's wait. */
static void test_urgent_ones_wait_for_fifteen(void **unused)
{
	(void)unused;
	for (uint32_t at = 0; at < N; at++) {
		struct seen seen = {.act_at = at, .act = URGE};

		stream(&seen, N, executor_of(at));
		assert_int_equal(seen.handled, N);
		assert_in_range(seen.urgent_at, at + 1, at + 16);
	}
}

static void test_a_due_timer_is_next(void **unused)
{
	(void)unused;
	for (uint32_t at = 0; at < N; at++) {
		struct seen seen = {.act_at = at, .act = START_TIMER};

		stream(&seen, N, executor_of(at));
		assert_int_equal(seen.handled, N);
		assert_int_equal(seen.tick_at, at + 1);
	}
}

static void test_nothing_is_handled_after_the_end(void **unused)
{
	(void)unused;
	for (uint32_t at = 0; at < N; at++) {
		struct seen seen = {.act_at = at, .act = at % 2 ? END : FAIL};

		stream(&seen, N, executor_of(at / 2));
		assert_int_equal(seen.handled, at + 1);
	}
}

static void test_a_misfit_in_between(void **unused)
{
	(void)unused;
	for (uint32_t odd = 0; odd < N; odd++) {
		struct seen seen = {.act_at = N};

		stream(&seen, odd, executor_of(odd));
		assert_int_equal(seen.refused, 1);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_urgent_ones_wait_for_fifteen),
		cmocka_unit_test(test_a_due_timer_is_next),
		cmocka_unit_test(test_nothing_is_handled_after_the_end),
		cmocka_unit_test(test_a_misfit_in_between),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
