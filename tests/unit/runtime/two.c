/* SPDX-License-Identifier: Apache-2.0
 *
 * Two runtimes in one process, side by side: they send to each other, each counts its own, and one goes on without the
 * other. A third, deterministic one is stepped by the test meanwhile.
 */
#include <stdlib.h>

#include "runtime_test.h"

enum { PING = 1 };

#define HOPS 1000

struct player {
	struct ty_actor *peer;
	struct ty_runtime *home;
	struct gate *lost;
};

struct ping {
	struct ty_msg msg;
	uint64_t left;
	struct gate *done;
};

static _Atomic(uint32_t) stopped;

static enum ty_code on_start(void *self, void *arg)
{
	*(struct player *)self = *(struct player *)arg;
	return TY_OK;
}

static void on_ping(void *self, struct ty_msg *msg)
{
	struct player *player = self;
	struct ping *ping = ty_container_of(msg, struct ping, msg);

	if (ping->left-- == 0)
		gate_open(ping->done);
	else if (ty_send(player->peer ? player->peer : ty_self(), msg, PING) != TY_OK)
		gate_open(player->lost);
}

static void on_stop(void *self)
{
	(void)self;
	atomic_fetch_add_explicit(&stopped, 1, memory_order_relaxed);
}

static const struct ty_handler handlers[] = {{"ping", on_ping}};
static const struct ty_class cls = {
	.name = "player",
	.state_size = sizeof(struct player),
	.first_type = PING,
	.type_count = 1,
	.handlers = handlers,
	.start = on_start,
	.stop = on_stop,
};

static void test_side_by_side(void **unused)
{
	struct ty_runtime_options options = {.size = sizeof options, .seed = 9};
	struct gate done = {0}, here = {0}, lost = {0}, synced = {0};
	struct ping ping = {.left = HOPS, .done = &done}, own = {.left = 10, .done = &here}, sync;
	struct player first = {.lost = &lost}, second = first, third = first;
	struct ty_runtime *a = make_runtime(1), *b = make_runtime(2), *c;
	struct ty_actor *in_a, *in_b, *in_c;
	struct ty_runtime_stats stats_a, stats_b;
	uint32_t before = atomic_load(&stopped);
	int64_t logical;

	(void)unused;
	assert_int_equal(ty_runtime_create(&options, &c, NULL), TY_OK);
	in_a = spawn(a, &cls, &first, TY_POOL);
	second.peer = in_a;
	in_b = spawn(b, &cls, &second, TY_DEDICATED);
	in_c = spawn(c, &cls, &third, TY_POOL);

	/* b's actor sends to a's, which sends to itself: every hop but the first is a's */
	assert_int_equal(ty_send(in_b, &ping.msg, PING), TY_OK);
	logical = ty_runtime_now(c);
	assert_int_equal(ty_send(in_c, &own.msg, PING), TY_OK);
	while (ty_runtime_step(c))
		;
	assert_true(gate_is_open(&here));
	assert_true(ty_runtime_now(c) > logical);
	gate_wait(&done);
	ty_runtime_stats(a, &stats_a);
	ty_runtime_stats(b, &stats_b);
	assert_int_equal(stats_a.messages, HOPS);
	assert_int_equal(stats_b.messages, 1);
	assert_int_equal(stats_a.actors, 1);

	/* b's actor is a foreign user of a: that its send has returned is known once it handles another message */
	sync = (struct ping){.done = &synced};
	assert_int_equal(ty_send(in_b, &sync.msg, PING), TY_OK);
	gate_wait(&synced);

	/* a ends; its actor's address stays, and refuses */
	ty_runtime_destroy(a);
	assert_int_equal(atomic_load(&stopped), before + 1);
	assert_false(gate_is_open(&lost));
	ping.left = 5;
	assert_int_equal(ty_send(in_b, &ping.msg, PING), TY_OK);
	gate_wait(&lost);
	ty_runtime_stats(b, &stats_b);
	assert_int_equal(stats_b.messages, 3);
	ty_actor_unref(in_a);
	ty_actor_unref(in_b);
	ty_actor_unref(in_c);
	ty_runtime_destroy(c);
	ty_runtime_destroy(b);
	assert_int_equal(atomic_load(&stopped), before + 3);
}

/* Created and destroyed while another works: nothing is shared that either would break. */
static void test_come_and_go(void **unused)
{
	struct gate done = {0}, lost = {0};
	struct ping ping = {.left = 200000, .done = &done};
	struct player alone = {.lost = &lost};
	struct ty_runtime *rt = make_runtime(1);
	struct ty_actor *actor = spawn(rt, &cls, &alone, TY_POOL);

	(void)unused;
	assert_int_equal(ty_send(actor, &ping.msg, PING), TY_OK);
	for (int i = 0; i < 20; i++) {
		struct gate ended = {0};
		struct ping short_one = {.left = 50, .done = &ended};
		struct ty_runtime *other = make_runtime(2);
		struct ty_actor *one = spawn(other, &cls, &alone, i % 2 ? TY_POOL : TY_DEDICATED);

		assert_int_equal(ty_send(one, &short_one.msg, PING), TY_OK);
		gate_wait(&ended);
		ty_runtime_destroy(other);
		ty_actor_unref(one);
	}
	gate_wait(&done);
	ty_actor_unref(actor);
	ty_runtime_destroy(rt);
	assert_false(gate_is_open(&lost));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_side_by_side),
		cmocka_unit_test(test_come_and_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
