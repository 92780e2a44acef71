/* SPDX-License-Identifier: Apache-2.0
 *
 * Nobody starves: beside an actor that floods itself, one that others flood, and a flood of urgent messages, the rest gets
 * its turn, on one worker. What is counted is the flood's messages between two of the victim's; no time is measured.
 */
#include <pthread.h>
#include <stdlib.h>

#include "runtime_test.h"

enum { FLOOD = 1, PING, TICK };
enum { BUDGET = 16, PINGS = 200 };

struct world {
	struct ty_actor *victim;
	uint64_t flooded;       /* messages of the flood so far; handlers of one worker only */
	uint64_t at_last, most; /* when the victim's last turn was; most between two turns */
	uint32_t turns;
	struct gate done;
	_Atomic(bool) over;
	struct ty_msg flood[4], ping;
};

struct state {
	struct world *world;
	struct ty_ticker ticker;
};

static enum ty_code on_start(void *self, void *arg)
{
	((struct state *)self)->world = arg;
	return TY_OK;
}

/* Sends itself one for each that it gets: its mailbox is never empty. */
static void on_flood(void *self, struct ty_msg *msg)
{
	struct world *world = ((struct state *)self)->world;

	world->flooded++;
	if (!atomic_load(&world->over))
		assert_int_equal(ty_send(ty_self(), msg, FLOOD), TY_OK);
}

static void count_turn(struct world *world)
{
	uint64_t since = world->flooded - world->at_last;

	if (world->turns++ && since > world->most)
		world->most = since;
	world->at_last = world->flooded;
	if (world->turns == PINGS) {
		atomic_store(&world->over, true);
		gate_open(&world->done);
	}
}

/* The victim's turn comes from its own message, sent to itself: one at a time, so each waits for a whole round. */
static void on_ping(void *self, struct ty_msg *msg)
{
	struct world *world = ((struct state *)self)->world;

	count_turn(world);
	if (!atomic_load(&world->over))
		assert_int_equal(ty_send(ty_self(), msg, PING), TY_OK);
}

static const struct ty_handler handlers[] = {{"flood", on_flood}, {"ping", on_ping}};
static const struct ty_class cls = {.name = "crowd", .state_size = sizeof(struct state), .first_type = FLOOD,
	.type_count = 2, .handlers = handlers, .start = on_start};

static struct ty_runtime *make_one_worker(void)
{
	/* a budget of time so large that the budget of messages decides */
	struct ty_runtime_options options = {.size = sizeof options, .workers = 1, .budget_messages = BUDGET,
		.budget_us = 10000000};
	struct ty_runtime *rt;

	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	return rt;
}

static void test_beside_one_that_floods_itself(void **unused)
{
	(void)unused;
	for (int flooders = 1; flooders <= 3; flooders++) {
		struct ty_runtime *rt = make_one_worker();
		struct world world = {0};
		struct ty_actor *actors[4];

		for (int i = 0; i < flooders; i++) {
			actors[i] = spawn(rt, &cls, &world, TY_POOL);
			assert_int_equal(ty_send(actors[i], &world.flood[i], FLOOD), TY_OK);
		}
		actors[flooders] = spawn(rt, &cls, &world, TY_POOL);
		assert_int_equal(ty_send(actors[flooders], &world.ping, PING), TY_OK);
		gate_wait(&world.done);
		for (int i = 0; i <= flooders; i++)
			ty_actor_unref(actors[i]);
		ty_runtime_destroy(rt);
		/* a budget of each flooder between two turns */
		assert_true(world.most <= (uint64_t)BUDGET * (uint64_t)flooders);
	}
}

/* ---- one actor that a foreign thread floods ---- */

enum { FLOOD_MESSAGES = 64 };

struct hose {
	struct world *world;
	struct ty_actor *to;
	struct ty_msg msgs[FLOOD_MESSAGES];
	_Atomic(uint32_t) free[FLOOD_MESSAGES]; /* 1: the thread's to send; release by the handler, acquire by the thread */
};

struct drain {
	struct hose *hose;
};

static enum ty_code drain_start(void *self, void *arg)
{
	((struct drain *)self)->hose = arg;
	return TY_OK;
}

static void on_drain(void *self, struct ty_msg *msg)
{
	struct hose *hose = ((struct drain *)self)->hose;

	hose->world->flooded++;
	atomic_store_explicit(&hose->free[msg - hose->msgs], 1, memory_order_release);
}

static const struct ty_handler drain_handlers[] = {{"drain", on_drain}};
static const struct ty_class drain_class = {.name = "drain", .state_size = sizeof(struct drain), .first_type = FLOOD,
	.type_count = 1, .handlers = drain_handlers, .start = drain_start};

static void *pour(void *arg)
{
	struct hose *hose = arg;

	for (uint32_t i = 0; !atomic_load(&hose->world->over); i = (i + 1) % FLOOD_MESSAGES) {
		uint32_t ours = 1;

		if (atomic_compare_exchange_strong_explicit(
			    &hose->free[i], &ours, 0, memory_order_acquire, memory_order_relaxed))
			assert_int_equal(ty_send_urgent(hose->to, &hose->msgs[i], FLOOD), TY_OK);
	}
	return NULL;
}

static void test_beside_one_that_others_flood(void **unused)
{
	struct ty_runtime *rt = make_one_worker();
	struct world world = {0};
	struct hose hose = {.world = &world};
	struct ty_actor *victim = spawn(rt, &cls, &world, TY_POOL);
	pthread_t thread;

	(void)unused;
	hose.to = spawn(rt, &drain_class, &hose, TY_POOL);
	for (int i = 0; i < FLOOD_MESSAGES; i++)
		atomic_init(&hose.free[i], 1);
	assert_int_equal(pthread_create(&thread, NULL, pour, &hose), 0);
	assert_int_equal(ty_send(victim, &world.ping, PING), TY_OK);
	gate_wait(&world.done);
	pthread_join(thread, NULL);
	ty_actor_unref(victim);
	ty_actor_unref(hose.to);
	ty_runtime_destroy(rt);
	assert_true(world.most <= BUDGET);
}

/* ---- timers of an actor whose mailbox is never empty, and its mailbox beside timers that are always due ---- */

static void on_tick(void *self, struct ty_msg *msg)
{
	(void)msg;
	count_turn(((struct state *)self)->world);
}

static void on_first_flood(void *self, struct ty_msg *msg)
{
	struct state *state = self;

	if (state->world->flooded == 0)
		ty_ticker_start(&state->ticker, TICK, ty_now(), 1); /* due whenever it is looked at */
	on_flood(self, msg);
}

static const struct ty_handler ticking_handlers[] = {
	{"flood", on_first_flood}, {"ping", NULL}, {"tick", on_tick}};
static const struct ty_class ticking_class = {.name = "ticking", .state_size = sizeof(struct state),
	.first_type = FLOOD, .type_count = 3, .handlers = ticking_handlers, .start = on_start};

static void test_timers_and_messages_of_one_actor(void **unused)
{
	struct ty_runtime *rt = make_one_worker();
	struct world world = {0};
	struct ty_actor *actor = spawn(rt, &ticking_class, &world, TY_POOL);

	(void)unused;
	for (int i = 0; i < 4; i++)
		assert_int_equal(ty_send(actor, &world.flood[i], FLOOD), TY_OK);
	gate_wait(&world.done);
	ty_actor_unref(actor);
	ty_runtime_destroy(rt);
	/* in turn; a tick is found due a turn later at the latest, what was sent when the mailbox is looked at: every 8 */
	assert_true(world.most <= 2);
	assert_true(world.flooded >= PINGS / 8);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_beside_one_that_floods_itself),
		cmocka_unit_test(test_beside_one_that_others_flood),
		cmocka_unit_test(test_timers_and_messages_of_one_actor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
