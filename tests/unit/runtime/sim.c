/* SPDX-License-Identifier: Apache-2.0
 *
 * Deterministic mode: a small system of actors, some of them dedicated, with timers, run under some
 * hundreds of seeds. The same seed gives the same trace, different seeds different ones, and nothing
 * is lost under any.
 */
#include "runtime_test.h"

#define NODES 6
#define TOKENS 8
#define HOPS 30
#define SEEDS 1000
#define SECOND INT64_C(1000000000)

enum { TOKEN = 1, TICK, TYPE_END };

struct token {
	struct ty_msg msg;
	uint32_t id, hops;
};

struct system {
	struct ty_actor *nodes[NODES];
	struct token tokens[TOKENS];
	uint64_t trace;
	uint32_t handled, finished, ticks, polls, stopped;
	int running; /* handlers at once */
};

struct node {
	struct system *system;
	uint32_t index;
	uint32_t polls;
	int64_t began;
	struct ty_timer timer;
};

struct node_arg {
	struct system *system;
	uint32_t index;
};

static void record(struct system *system, uint64_t a, uint64_t b)
{
	uint64_t h = system->trace;

	h = (h ^ a) * UINT64_C(0x100000001b3);
	h = (h ^ b) * UINT64_C(0x100000001b3);
	system->trace = (h ^ (uint64_t)ty_now()) * UINT64_C(0x100000001b3);
}

static enum ty_code on_start(void *self, void *arg)
{
	struct node *node = self;
	struct node_arg *a = arg;

	node->system = a->system;
	node->index = a->index;
	node->began = ty_now();
	record(node->system, 1, node->index);
	return TY_OK;
}

static void on_token(void *self, struct ty_msg *msg)
{
	struct node *node = self;
	struct system *system = node->system;
	struct token *token = ty_container_of(msg, struct token, msg);
	uint32_t to = (node->index * 3 + token->id + token->hops) % NODES;

	assert_int_equal(system->running++, 0);
	record(system, 2 + node->index, token->id << 16 | token->hops);
	system->handled++;
	if (token->hops % 5 == 0)
		ty_timer_start(&node->timer, TICK, ty_now() + token->id * 1000);
	else if (token->hops % 7 == 0)
		ty_timer_cancel(&node->timer);
	if (token->hops-- == 0)
		system->finished++;
	else if (token->hops % 3)
		assert_int_equal(ty_send(system->nodes[to], msg, TOKEN), TY_OK);
	else
		assert_int_equal(ty_send_urgent(system->nodes[to], msg, TOKEN), TY_OK);
	system->running--;
}

static void on_tick(void *self, struct ty_msg *msg)
{
	struct node *node = self;

	(void)msg;
	record(node->system, 100, node->index);
	node->system->ticks++;
}

static void on_stop(void *self)
{
	struct node *node = self;

	/* the youngest stops first */
	assert_int_equal(node->index, NODES - 1 - node->system->stopped);
	node->system->stopped++;
}

/* Wants a few calls at once, then one a second for three seconds, then none. */
static int64_t on_poll(void *self, int64_t now)
{
	struct node *node = self;
	uint32_t n = node->polls++;

	record(node->system, 200, n);
	node->system->polls++;
	assert_int_equal(now, ty_now());
	if (n < 5)
		return 0;
	return now < node->began + 3 * SECOND ? now + SECOND : TY_NEVER;
}

static const struct ty_handler handlers[] = {{"token", on_token}, {"tick", on_tick}};
static const struct ty_class pooled = {
	.name = "node", .state_size = sizeof(struct node), .first_type = TOKEN, .type_count = 2,
	.handlers = handlers, .start = on_start, .stop = on_stop};
static const struct ty_class polled = {
	.name = "polled", .state_size = sizeof(struct node), .first_type = TOKEN, .type_count = 2,
	.handlers = handlers, .start = on_start, .stop = on_stop, .poll = on_poll};

static uint64_t run_seed(uint64_t seed)
{
	struct ty_runtime_options options = {.size = sizeof options, .seed = seed};
	struct system system = {.trace = UINT64_C(0xcbf29ce484222325)};
	struct node_arg args[NODES];
	struct ty_runtime_stats stats;
	struct ty_runtime *rt;
	int64_t began;

	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	for (uint32_t i = 0; i < NODES; i++) {
		args[i] = (struct node_arg){&system, i};
		system.nodes[i] = spawn(rt, i % 3 ? &pooled : &polled, &args[i], i % 3 ? TY_POOL : TY_DEDICATED);
	}
	for (uint32_t i = 0; i < TOKENS; i++) {
		system.tokens[i] = (struct token){.id = i, .hops = HOPS};
		assert_int_equal(ty_send(system.nodes[i % NODES], &system.tokens[i].msg, TOKEN), TY_OK);
	}
	assert_int_equal(system.handled, 0); /* nothing runs by itself */
	began = ty_runtime_now(rt);
	while (ty_runtime_step(rt))
		;
	assert_false(ty_runtime_step(rt));
	assert_int_equal(system.handled, TOKENS * (HOPS + 1));
	assert_int_equal(system.finished, TOKENS);
	assert_true(system.polls >= 2 * (5 + 3));
	assert_true(ty_runtime_now(rt) >= began + 3 * SECOND); /* the clock went to the polls' times */
	ty_runtime_stats(rt, &stats);
	assert_int_equal(stats.messages, system.handled + system.ticks);
	assert_int_equal(stats.timers, system.ticks);
	assert_int_equal(stats.actors, NODES);
	for (uint32_t i = 0; i < NODES; i++)
		ty_actor_unref(system.nodes[i]);
	ty_runtime_destroy(rt);
	assert_int_equal(system.stopped, NODES);
	assert_null(ty_self());
	return system.trace;
}

static void test_same_seed_same_trace(void **unused)
{
	static uint64_t traces[SEEDS];
	uint32_t distinct = 0;

	(void)unused;
	for (uint32_t i = 0; i < SEEDS; i++) {
		bool seen = false;

		traces[i] = run_seed(i + 1);
		assert_int_equal(run_seed(i + 1), traces[i]);
		for (uint32_t j = 0; j < i; j++)
			seen |= traces[j] == traces[i];
		distinct += !seen;
	}
	assert_int_equal(distinct, SEEDS);
}

/* ---- the clock ---- */

struct alarm_clock {
	struct ty_timer timer, cancelled;
	int64_t *fired;
};

static enum ty_code clock_start(void *self, void *arg)
{
	struct alarm_clock *c = self;

	c->fired = arg;
	ty_timer_start(&c->cancelled, TOKEN, ty_now() + SECOND);
	ty_timer_start(&c->timer, TICK, ty_now() + 10 * SECOND);
	return TY_OK;
}

static void clock_token(void *self, struct ty_msg *msg)
{
	struct alarm_clock *c = self;

	(void)msg;
	ty_timer_cancel(&c->cancelled);
}

static void clock_tick(void *self, struct ty_msg *msg)
{
	struct alarm_clock *c = self;

	(void)msg;
	*c->fired = ty_now();
}

static void test_clock_goes_to_the_next_timer(void **unused)
{
	static const struct ty_handler hs[] = {{"token", clock_token}, {"tick", clock_tick}};
	static const struct ty_class c = {.name = "clock", .state_size = sizeof(struct alarm_clock),
		.first_type = TOKEN, .type_count = 2, .handlers = hs, .start = clock_start};
	struct ty_runtime_options options = {.size = sizeof options, .seed = 7};
	struct ty_runtime *rt;
	struct ty_actor *actor;
	struct token token = {.id = 0};
	int64_t fired = 0, began;
	int steps = 0;

	(void)unused;
	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	actor = spawn(rt, &c, &fired, TY_POOL);
	began = ty_runtime_now(rt);
	assert_true(ty_runtime_step(rt)); /* start */
	assert_int_equal(ty_send(actor, &token.msg, TOKEN), TY_OK);
	while (ty_runtime_step(rt))
		steps++;
	assert_true(steps <= 3); /* token, timer: the cancelled one takes no step and moves no clock */
	assert_true(fired >= began + 10 * SECOND);
	assert_true(fired <= began + 10 * SECOND + 100000);
	ty_actor_unref(actor);
	ty_runtime_destroy(rt);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_seed_same_trace),
		cmocka_unit_test(test_clock_goes_to_the_next_timer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
