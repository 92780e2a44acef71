/* SPDX-License-Identifier: Apache-2.0
 *
 * Typed messages, and what happens to those that do not fit; tickers.
 */
#include <stdlib.h>

#include "runtime_test.h"

enum { ADD = 10, TAKE, ASK, ANSWER, PLAIN, TICK, TYPE_END, NOT_A_TYPE };

struct number {
	struct ty_msg msg;
	uint64_t value;
};
struct larger {
	struct ty_msg msg;
	uint64_t value, more;
};
struct question {
	struct ty_request request;
	uint64_t answer;
};
TY_MESSAGE(add, ADD, struct number)
TY_MESSAGE(take, TAKE, struct number)
TY_REQUEST(ask, ASK, struct question)
/* as another version of the same program would have compiled them */
TY_MESSAGE(larger_add, ADD, struct larger)
TY_MESSAGE(wrong_number, PLAIN, struct number)
struct larger_question {
	struct ty_request request;
	uint64_t answer, more;
};
TY_REQUEST(larger_ask, ASK, struct larger_question)

struct world {
	int64_t sum;
	int refused, plain, answers;
	enum ty_code answered;
	struct ty_msg *last_refused;
	struct ty_misfit misfits[8];
	int misfit_count;
	struct ty_actor *sums, *over;
	struct question question;
	struct larger_question larger;
};

struct sums {
	struct world *world;
};

static enum ty_code on_start(void *self, void *arg)
{
	((struct sums *)self)->world = arg;
	return TY_OK;
}

static void on_add(struct sums *self, struct number *number)
{
	self->world->sum += (int64_t)number->value;
}
TY_HANDLER(add, on_add, struct sums)

static void on_take(struct sums *self, struct number *number)
{
	self->world->sum -= (int64_t)number->value;
}
TY_HANDLER(take, on_take, struct sums)

static void on_ask(struct sums *self, struct question *question)
{
	question->answer = (uint64_t)self->world->sum;
	ty_reply(&question->request, TY_OK);
}
TY_HANDLER(ask, on_ask, struct sums)

static void on_plain(void *self, struct ty_msg *msg)
{
	(void)msg;
	((struct sums *)self)->world->plain++;
}

static void on_refuse(void *self, struct ty_msg *msg)
{
	struct world *world = ((struct sums *)self)->world;

	assert_int_equal(msg->flags, 0);
	world->refused++;
	world->last_refused = msg;
}

static const struct ty_handler sums_handlers[] = {
	{"add", on_add_run}, {"take", on_take_run}, {"ask", on_ask_run}, {NULL, NULL}, {"plain", on_plain}};
static const struct ty_class sums_class = {
	.name = "sums", .state_size = sizeof(struct sums), .first_type = ADD, .type_count = 5,
	.handlers = sums_handlers, .start = on_start, .refuse = on_refuse};
/* the handler of TAKE in the place of ADD's */
static const struct ty_handler crossed_handlers[] = {{"add", on_take_run}};
static const struct ty_class crossed_class = {
	.name = "crossed", .state_size = sizeof(struct sums), .first_type = ADD, .type_count = 1,
	.handlers = crossed_handlers, .start = on_start};

static void on_misfit(void *user, const struct ty_misfit *misfit)
{
	struct world *world = user;

	assert_true(world->misfit_count < 8);
	world->misfits[world->misfit_count++] = *misfit;
}

static struct ty_runtime *make(struct world *world, bool reports)
{
	struct ty_runtime_options options = {.size = sizeof options, .seed = 5, .misfit = reports ? on_misfit : NULL,
		.misfit_user = world};
	struct ty_runtime *rt;

	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	return rt;
}

static void run(struct ty_runtime *rt)
{
	while (ty_runtime_step(rt))
		;
}

static void test_what_fits_arrives(void **unused)
{
	struct world world = {0};
	struct ty_runtime *rt = make(&world, true);
	struct ty_actor *sums = spawn(rt, &sums_class, &world, TY_POOL);
	struct number a = {.value = 40}, b = {.value = 2}, c = {.value = 7}, plain = {0};

	(void)unused;
	assert_int_equal(add_send(sums, &a), TY_OK);
	assert_int_equal(take_send_urgent(sums, &c), TY_OK);
	assert_int_equal(add_send_urgent(sums, &b), TY_OK);
	assert_int_equal(ty_send(sums, &plain.msg, PLAIN), TY_OK); /* an untyped handler takes both */
	run(rt);
	assert_int_equal(world.sum, 35);
	assert_int_equal(world.plain, 1);
	assert_int_equal(wrong_number_send(sums, &plain), TY_OK);
	assert_int_equal(take_send(sums, &b), TY_OK); /* the same struct as another message */
	run(rt);
	assert_int_equal(world.sum, 33);
	assert_int_equal(world.plain, 2);
	assert_int_equal(world.misfit_count + world.refused, 0);
	ty_actor_stop(sums);
	run(rt);
	assert_int_equal(add_send(sums, &a), TY_CLOSED);
	ty_actor_unref(sums);
	ty_runtime_destroy(rt);
}

static void expect_misfit(const struct world *world, int index, const char *message, uint32_t type, size_t found,
	size_t expected)
{
	const struct ty_misfit *misfit = &world->misfits[index];

	assert_true(index < world->misfit_count);
	assert_string_equal(misfit->actor, "sums");
	if (message)
		assert_string_equal(misfit->message, message);
	else
		assert_null(misfit->message);
	assert_int_equal(misfit->type, type);
	assert_int_equal(misfit->found, found);
	assert_int_equal(misfit->expected, expected);
}

static void test_misfits_are_reported_and_come_back(void **unused)
{
	for (int reports = 0; reports < 2; reports++) {
		struct world world = {0};
		struct ty_runtime *rt = make(&world, reports);
		struct ty_actor *sums = spawn(rt, &sums_class, &world, TY_POOL);
		struct larger larger = {.value = 1};
		struct number number = {.value = 1};
		struct ty_runtime_stats stats;

		(void)unused;
		assert_int_equal(larger_add_send(sums, &larger), TY_OK);
		run(rt);
		assert_ptr_equal(world.last_refused, &larger.msg);
		assert_int_equal(ty_send(sums, &number.msg, ADD), TY_OK); /* untyped, to a typed handler */
		run(rt);
		assert_int_equal(ty_send(sums, &number.msg, NOT_A_TYPE), TY_OK);
		run(rt);
		assert_int_equal(add_send(sums, &number), TY_OK); /* what came back can be sent again */
		run(rt);
		assert_int_equal(ty_send(sums, &number.msg, ANSWER), TY_OK); /* in the range, but no handler */
		run(rt);
		assert_int_equal(world.sum, 1);
		assert_int_equal(world.refused, 4);
		ty_runtime_stats(rt, &stats);
		assert_int_equal(stats.misfits, 4);
		assert_int_equal(stats.refused, 4);
		assert_int_equal(stats.dropped, 0);
		assert_int_equal(world.misfit_count, reports ? 4 : 0);
		if (reports) {
			expect_misfit(&world, 0, "add", ADD, sizeof larger, sizeof number);
			expect_misfit(&world, 1, "add", ADD, 0, sizeof number);
			expect_misfit(&world, 2, NULL, NOT_A_TYPE, 0, 0);
			expect_misfit(&world, 3, NULL, ANSWER, 0, 0);
		}
		ty_actor_unref(sums);
		ty_runtime_destroy(rt);
	}
}

static void test_handler_in_the_wrong_place(void **unused)
{
	struct world world = {0};
	struct ty_runtime *rt = make(&world, true);
	struct ty_actor *crossed = spawn(rt, &crossed_class, &world, TY_POOL);
	struct number number = {.value = 1};
	struct ty_runtime_stats stats;

	(void)unused;
	assert_int_equal(add_send(crossed, &number), TY_OK);
	run(rt);
	assert_int_equal(world.sum, 0);
	assert_int_equal(world.misfit_count, 1);
	ty_runtime_stats(rt, &stats);
	assert_int_equal(stats.misfits, 1);
	assert_int_equal(stats.dropped, 1); /* its class has no refuse */
	ty_actor_unref(crossed);
	ty_runtime_destroy(rt);
}

/* ---- requests ---- */

enum { GO = 1, GO_LARGER, REPLIED, REPLIED_LARGER };

static void on_go(void *self, struct ty_msg *msg)
{
	struct world *world = ((struct sums *)self)->world;

	(void)msg;
	assert_int_equal(ask_ask(world->sums, &world->question, REPLIED, TY_NEVER), TY_OK);
}

static void on_go_larger(void *self, struct ty_msg *msg)
{
	struct world *world = ((struct sums *)self)->world;

	(void)msg;
	assert_int_equal(larger_ask_ask(world->sums, &world->larger, REPLIED_LARGER, TY_NEVER), TY_OK);
}

static void on_replied(void *self, struct ty_msg *msg)
{
	struct world *world = ((struct sums *)self)->world;

	assert_ptr_equal(ask_of_reply(msg), &world->question);
	world->answered = world->question.request.code;
	world->answers++;
}

static void on_replied_larger(void *self, struct ty_msg *msg)
{
	struct world *world = ((struct sums *)self)->world;

	assert_ptr_equal(larger_ask_of_reply(msg), &world->larger);
	world->answered = world->larger.request.code;
	world->answers++;
}

static const struct ty_handler asker_handlers[] = {
	{"go", on_go}, {"go larger", on_go_larger}, {"replied", on_replied}, {"replied larger", on_replied_larger}};
static const struct ty_class asker_class = {
	.name = "asker", .state_size = sizeof(struct sums), .first_type = GO, .type_count = 4,
	.handlers = asker_handlers, .start = on_start};

/* Hands each request on to the sums, after one that is over did not take it. */
static void on_pass(struct sums *self, struct question *question)
{
	assert_int_equal(ty_forward(self->world->over, &question->request, ASK), TY_CLOSED);
	assert_int_equal(ty_forward(self->world->sums, &question->request, ASK), TY_OK);
}
TY_HANDLER(ask, on_pass, struct sums)
static const struct ty_handler passer_handlers[] = {{"ask", on_pass_run}};
static const struct ty_class passer_class = {
	.name = "passer", .state_size = sizeof(struct sums), .first_type = ASK, .type_count = 1,
	.handlers = passer_handlers, .start = on_start};

static void test_typed_requests(void **unused)
{
	struct world world = {.sum = 5};
	struct ty_runtime *rt = make(&world, true);
	struct ty_actor *sums = spawn(rt, &sums_class, &world, TY_POOL);
	struct ty_actor *asker = spawn(rt, &asker_class, &world, TY_POOL);
	struct ty_actor *passer = spawn(rt, &passer_class, &world, TY_POOL);
	struct ty_msg go = TY_MSG_INIT;

	(void)unused;
	world.sums = sums;
	assert_int_equal(ty_send(asker, &go, GO), TY_OK);
	run(rt);
	assert_int_equal(world.answers, 1);
	assert_int_equal(world.answered, TY_OK);
	assert_int_equal(world.question.answer, 5);
	/* one that does not fit is answered, not refused */
	assert_int_equal(ty_send(asker, &go, GO_LARGER), TY_OK);
	run(rt);
	assert_int_equal(world.answers, 2);
	assert_int_equal(world.answered, TY_UNSUPPORTED);
	assert_int_equal(world.refused, 0);
	expect_misfit(&world, 0, "ask", ASK, sizeof(struct larger_question), sizeof(struct question));
	/* forwarded, it is typed as before */
	world.over = spawn(rt, &passer_class, &world, TY_POOL);
	ty_actor_stop(world.over);
	run(rt);
	world.sums = passer;
	assert_int_equal(ty_send(asker, &go, GO), TY_OK);
	for (int i = 0; i < 100 && world.answers < 3; i++) {
		ty_runtime_step(rt);
		if (world.question.request.msg.type == ASK)
			world.sums = sums;
	}
	run(rt);
	assert_int_equal(world.answers, 3);
	assert_int_equal(world.answered, TY_OK);
	assert_int_equal(world.misfit_count, 1);
	ty_actor_unref(world.over);
	ty_actor_unref(passer);
	ty_actor_unref(asker);
	ty_actor_unref(sums);
	ty_runtime_destroy(rt);
}

/* ---- tickers ---- */

#define MS INT64_C(1000000)

struct ticking {
	struct ty_ticker ticker;
	int64_t began;
	int *ticks;
	int64_t *times;
	uint64_t *missed;
	int64_t first, busy_until;
};
struct ticking_arg {
	int ticks;
	int64_t times[16];
	uint64_t missed;
	int64_t first;
};

static enum ty_code ticking_start(void *self, void *arg)
{
	struct ticking *t = self;
	struct ticking_arg *a = arg;

	t->ticks = &a->ticks;
	t->times = a->times;
	t->missed = &a->missed;
	t->began = ty_now();
	ty_ticker_start(&t->ticker, TICK, a->first == -1 ? t->began - MS : t->began + 10 * MS, 10 * MS);
	return TY_OK;
}

static void on_tick(void *self, struct ty_msg *msg)
{
	struct ticking *t = self;

	assert_ptr_equal(msg, &t->ticker.timer.msg);
	t->times[*t->ticks] = ty_now() - t->began;
	*t->missed += t->ticker.missed;
	if (++*t->ticks == 8)
		ty_ticker_cancel(&t->ticker);
}

static void on_pause(void *self, struct ty_msg *msg)
{
	struct ticking *t = self;

	(void)msg;
	/* a long pause, by the one way that the logical clock knows: started late */
	ty_ticker_start(&t->ticker, TICK, t->began + 5 * MS - 45 * MS, 10 * MS);
}

static const struct ty_handler ticking_handlers[] = {{"tick", on_tick}, {"pause", on_pause}};
static const struct ty_class ticking_class = {
	.name = "ticking", .state_size = sizeof(struct ticking), .first_type = TICK, .type_count = 2,
	.handlers = ticking_handlers, .start = ticking_start};

static void test_ticker_does_not_drift(void **unused)
{
	struct world world = {0};

	(void)unused;
	for (int executor = 0; executor < 2; executor++) {
		struct ty_runtime *rt = make(&world, false);
		struct ticking_arg arg = {0};
		struct ty_actor *actor = spawn(rt, &ticking_class, &arg, executor ? TY_DEDICATED : TY_POOL);

		for (int i = 0; i < 1000 && arg.ticks < 8; i++)
			ty_runtime_step(rt);
		for (int i = 0; i < 8; i++) {
			assert_true(arg.times[i] >= (i + 1) * 10 * MS);
			assert_true(arg.times[i] < (i + 1) * 10 * MS + MS);
		}
		assert_false(ty_runtime_step(rt)); /* cancelled by its handler: no timer is armed */
		assert_int_equal(arg.ticks, 8);
		assert_int_equal(arg.missed, 0);
		ty_actor_unref(actor);
		ty_runtime_destroy(rt);
	}
}

static void test_missed_ticks_are_counted(void **unused)
{
	struct world world = {0};
	struct ty_runtime *rt = make(&world, false);
	struct ticking_arg arg = {.first = -1}; /* in the past: at once, and then in step with it */
	struct ty_actor *actor = spawn(rt, &ticking_class, &arg, TY_POOL);
	struct ty_msg pause = TY_MSG_INIT;

	(void)unused;
	while (arg.ticks < 1)
		ty_runtime_step(rt);
	assert_true(arg.times[0] < MS);
	assert_int_equal(arg.missed, 0);
	/* due at -40 ms, handled at about 0: -30, -20, -10 and perhaps 0 have passed */
	assert_int_equal(ty_send(actor, &pause, TICK + 1), TY_OK);
	while (arg.ticks < 2)
		ty_runtime_step(rt);
	assert_int_equal(arg.missed, 4);
	while (arg.ticks < 3)
		ty_runtime_step(rt);
	assert_true(arg.times[2] >= 10 * MS && arg.times[2] < 11 * MS);
	assert_int_equal(arg.missed, 4);
	ty_actor_unref(actor);
	ty_runtime_destroy(rt); /* while it ticks */
}

struct ancient {
	struct ty_ticker ticker;
	struct ancient_arg *arg;
};
struct ancient_arg {
	int64_t first, period;
	int ticks;
	uint64_t missed;
};

static enum ty_code ancient_start(void *self, void *arg)
{
	struct ancient *a = self;

	a->arg = arg;
	ty_ticker_start(&a->ticker, TICK, a->arg->first, a->arg->period);
	return TY_OK;
}

static void on_ancient(void *self, struct ty_msg *msg)
{
	struct ancient *a = self;

	(void)msg;
	a->arg->missed += a->ticker.missed;
	if (++a->arg->ticks == 3)
		ty_ticker_cancel(&a->ticker);
}

/* The first as long ago as can be said: at once, and with no more missed than the clock has seen. */
static void test_ticker_of_old(void **unused)
{
	static const int64_t firsts[] = {INT64_MIN, INT64_MIN + 1, INT64_MIN + 2, -1, 0}, periods[] = {1, 1000, MS, INT64_MAX};
	static const struct ty_handler hs[] = {{"tick", on_ancient}};
	static const struct ty_class cls = {.name = "ancient", .state_size = sizeof(struct ancient), .first_type = TICK,
		.type_count = 1, .handlers = hs, .start = ancient_start};

	(void)unused;
	for (int f = 0; f < 5; f++) {
		for (int p = 0; p < 4; p++) {
			struct ty_runtime_options options = {.size = sizeof options, .seed = 7};
			struct ancient_arg arg = {.first = firsts[f], .period = periods[p]};
			struct ty_runtime *rt;
			struct ty_actor *actor;

			assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
			actor = spawn(rt, &cls, &arg, TY_POOL);
			for (int i = 0; i < 10; i++)
				ty_runtime_step(rt);
			assert_int_equal(arg.ticks, p == 3 ? arg.ticks : 3);
			assert_true(arg.ticks >= 1);
			if (f == 2 && p == 3) { /* the one after it passed long ago, and the clock ends before a third */
				assert_int_equal(arg.ticks, 1);
				assert_int_equal(arg.missed, 1);
			}
			assert_true(arg.missed <= (uint64_t)(ty_runtime_now(rt) / arg.period) + 1);
			ty_actor_unref(actor);
			ty_runtime_destroy(rt);
		}
	}
}

static void test_ticker_on_threads(void **unused)
{
	(void)unused;
	for (int executor = 0; executor < 2; executor++) {
		struct ty_runtime *rt = make_runtime(1);
		struct ticking_arg arg = {0};
		struct ty_actor *actor = spawn(rt, &ticking_class, &arg, executor ? TY_DEDICATED : TY_POOL);
		struct ty_runtime_stats stats;

		do
			ty_runtime_stats(rt, &stats);
		while (stats.timers < 8);
		ty_runtime_destroy(rt);
		assert_int_equal(arg.ticks, 8);
		ty_actor_unref(actor);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_fits_arrives),
		cmocka_unit_test(test_misfits_are_reported_and_come_back),
		cmocka_unit_test(test_handler_in_the_wrong_place),
		cmocka_unit_test(test_typed_requests),
		cmocka_unit_test(test_ticker_does_not_drift),
		cmocka_unit_test(test_missed_ticks_are_counted),
		cmocka_unit_test(test_ticker_of_old),
		cmocka_unit_test(test_ticker_on_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
