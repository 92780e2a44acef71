/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests: every way in which one is answered, and who has it afterwards.
 */
#include <stdlib.h>

#include "requests_house.h"

/* ---- answered ---- */

static void test_answer(void **unused)
{
	struct fixture f;
	struct query q = make_query();
	struct script ask = {.run = do_ask, .query = &q, .deadline = 50 * MS};
	int64_t began;

	(void)unused;
	set_up(&f, 1);
	ask.to = f.b;
	assert_true(ty_request_home(&q.request));
	for (int i = 1; i <= 3; i++) { /* the same request again and again */
		began = ty_runtime_now(f.rt);
		run_in(f.a, &ask);
		settle(&f);
		assert_int_equal(ask.code, TY_OK);
		assert_int_equal(q.answers, i);
		assert_int_equal(q.code, TY_EXISTS);
		assert_true(ty_request_home(&q.request));
		assert_true(ty_runtime_now(f.rt) < began + 50 * MS); /* nothing waits for the deadline any more */
	}
	assert_int_equal(q.released, 0);
	run_in(f.a, &(struct script){.run = do_release, .query = &q});
	settle(&f);
	assert_int_equal(q.released, 1);
	tear_down(&f);
}

static void test_ask_oneself(void **unused)
{
	struct fixture f;
	struct query q = make_query();
	struct script ask = {.run = do_ask, .query = &q};

	(void)unused;
	set_up(&f, 2);
	ask.to = f.a;
	run_in(f.a, &ask);
	settle(&f);
	assert_int_equal(q.answers, 1);
	tear_down(&f);
}

static void test_forward(void **unused)
{
	struct fixture f;
	struct query q = make_query();
	struct script ask = {.run = do_ask, .query = &q, .deadline = MS};

	(void)unused;
	set_up(&f, 3);
	ask.to = f.b;
	q.forward_to = f.c;
	run_in(f.a, &ask);
	settle(&f);
	assert_int_equal(q.answers, 1);
	assert_int_equal(q.code, TY_EXISTS);
	ty_actor_stop(f.c); /* then b has to reply itself */
	settle(&f);
	q.forward_to = f.c;
	run_in(f.a, &ask);
	settle(&f);
	assert_int_equal(q.answers, 2);
	tear_down(&f);
}

/* ---- not answered ---- */

static void test_late_reply_then_release(void **unused)
{
	struct fixture f;
	struct query q;

	(void)unused;
	time_out(&f, &q, 4);
	run_in(f.b, &(struct script){.run = do_reply});
	settle(&f);
	assert_int_equal(q.answers, 1); /* the late one goes nowhere */
	assert_true(ty_request_home(&q.request));
	assert_int_equal(q.released, 0);
	run_in(f.a, &(struct script){.run = do_release, .query = &q});
	settle(&f);
	assert_int_equal(q.released, 1);
	tear_down(&f);
}

static void test_release_then_late_reply(void **unused)
{
	struct fixture f;
	struct query q;

	(void)unused;
	time_out(&f, &q, 5);
	run_in(f.a, &(struct script){.run = do_release, .query = &q});
	settle(&f);
	assert_int_equal(q.released, 0);
	run_in(f.b, &(struct script){.run = do_reply});
	settle(&f);
	assert_int_equal(q.released, 1);
	assert_int_equal(q.answers, 1);
	tear_down(&f);
}

static void test_asked_again_after_late_reply(void **unused)
{
	struct fixture f;
	struct query q;
	struct script ask = {.run = do_ask, .query = &q, .deadline = MS};

	(void)unused;
	time_out(&f, &q, 6);
	run_in(f.b, &(struct script){.run = do_reply});
	settle(&f);
	q.keep = false;
	ask.to = f.c;
	run_in(f.a, &ask);
	settle(&f);
	assert_int_equal(q.answers, 2);
	assert_int_equal(q.code, TY_EXISTS);
	tear_down(&f);
}

/* ---- whose it is between the reply and the answer's handler ---- */

static void do_look(struct agent *agent, struct script *script)
{
	(void)agent;
	script->code = ty_request_home(&script->query->request) ? TY_EXISTS : TY_CLOSED;
}

static void test_not_home_while_the_answer_is_in_the_mailbox(void **unused)
{
	struct fixture f;
	struct query q = make_query();
	struct script ask = {.run = do_ask, .query = &q}, before = {.run = do_look, .query = &q}, after = before;

	(void)unused;
	set_up(&f, 12);
	ask.to = f.b;
	q.keep = true;
	run_in(f.a, &ask);
	settle(&f);
	run_in(f.a, &before);
	ty_reply(&q.request, TY_OK); /* for b, which has it */
	run_in(f.a, &after);
	settle(&f);
	assert_int_equal(q.answers, 1);
	assert_int_equal(before.code, TY_CLOSED);
	assert_int_equal(after.code, TY_EXISTS);
	tear_down(&f);
}

/* The deadline has decided, its TIMEOUT has not been handled; then the receiver replies. */
static void do_reply_late(struct agent *agent, struct script *script)
{
	struct query *q = script->query;

	(void)agent;
	script->code = TY_OK;
	if (q->request.code != TY_TIMEOUT || q->answers || !q->received || !q->keep)
		return;
	q->keep = false;
	ty_reply(&q->request, TY_OK);
	script->code = ty_request_home(&q->request) ? TY_EXISTS : TY_CLOSED;
}

static void test_not_home_while_the_timeout_waits(void **unused)
{
	enum { SCRIPTS = 40 };
	int late = 0;

	(void)unused;
	for (uint64_t seed = 1; seed <= 100; seed++) {
		struct fixture f;
		struct query first = make_query(), q = make_query();
		struct script asks[2] = {{.run = do_ask, .query = &first, .deadline = 1}, {.run = do_ask, .query = &q, .deadline = 5000}};
		struct script replies[SCRIPTS];

		set_up(&f, seed);
		asks[0].to = asks[1].to = f.b;
		first.keep = q.keep = true;
		run_in(f.a, &asks[0]);
		settle(&f); /* its timer came first: next an ordinary message does */
		run_in(f.a, &asks[1]);
		for (int i = 0; i < SCRIPTS; i++) {
			replies[i] = (struct script){.run = do_reply_late, .query = &q};
			run_in(f.a, &replies[i]);
		}
		settle(&f);
		assert_int_equal(q.answers, 1);
		assert_int_equal(q.code, TY_TIMEOUT);
		for (int i = 0; i < SCRIPTS; i++) {
			assert_int_not_equal(replies[i].code, TY_EXISTS);
			late += replies[i].code == TY_CLOSED;
		}
		ty_reply(&first.request, TY_OK); /* for b, which keeps them */
		if (q.keep)
			ty_reply(&q.request, TY_OK);
		tear_down(&f);
	}
	assert_true(late > 0);
}

static void test_receiver_is_dead(void **unused)
{
	struct fixture f;
	struct query q = make_query();
	struct script ask = {.run = do_ask, .query = &q, .deadline = MS};

	(void)unused;
	set_up(&f, 7);
	ask.to = f.b;
	ty_actor_stop(f.b);
	settle(&f);
	run_in(f.a, &ask);
	settle(&f);
	assert_int_equal(ask.code, TY_CLOSED);
	assert_true(ty_request_home(&q.request));
	assert_int_equal(q.answers + q.released, 0); /* no deadline fires either */
	tear_down(&f);
}

static void do_ask_and_stop(struct agent *agent, struct script *script)
{
	ty_actor_stop(script->to);
	do_ask(agent, script);
}

static void test_receiver_stops_first(void **unused)
{
	struct fixture f;
	struct query q = make_query();
	struct script ask = {.run = do_ask_and_stop, .query = &q, .deadline = MS};

	(void)unused;
	set_up(&f, 8);
	ask.to = f.b;
	run_in(f.a, &ask);
	settle(&f);
	assert_int_equal(ask.code, TY_OK);
	assert_int_equal(q.answers, 1);
	assert_int_equal(q.code, TY_CLOSED);
	tear_down(&f);
}

static void test_receiver_does_not_know_the_type(void **unused)
{
	struct fixture f;
	struct query q = make_query();
	struct script ask = {.run = do_ask, .query = &q, .type = UNKNOWN};
	struct ty_runtime_stats stats;

	(void)unused;
	set_up(&f, 9);
	ask.to = f.b;
	run_in(f.a, &ask);
	settle(&f);
	assert_int_equal(q.answers, 1);
	assert_int_equal(q.code, TY_UNSUPPORTED);
	ty_runtime_stats(f.rt, &stats);
	assert_int_equal(stats.refused, 1);
	tear_down(&f);
}

/* ---- the requester dies ---- */

static void test_requester_dies_waiting(void **unused)
{
	struct fixture f;
	struct query q = make_query();
	struct script ask = {.run = do_ask, .query = &q, .deadline = 1000 * MS};

	(void)unused;
	set_up(&f, 10);
	ask.to = f.b;
	q.keep = true;
	run_in(f.a, &ask);
	while (!q.received)
		assert_true(ty_runtime_step(f.rt));
	ty_actor_stop(f.a);
	settle(&f);
	assert_int_equal(q.released, 0); /* b has it */
	run_in(f.b, &(struct script){.run = do_reply});
	settle(&f);
	assert_int_equal(q.released, 1);
	assert_int_equal(q.answers, 0);
	tear_down(&f);
}

/* It asks itself and replies when its stop is already in its mailbox, so that the answer comes behind. */
static void answer_to_the_dying(const struct ty_class *cls, int answers, int released)
{
	struct fixture f;
	struct query q = make_query();
	struct script ask = {.run = do_ask, .query = &q, .deadline = MS};
	struct ty_actor *dying;

	set_up(&f, 11);
	dying = spawn(f.rt, cls, NULL, TY_POOL);
	ask.to = dying;
	q.stop_first = true;
	run_in(dying, &ask);
	settle(&f);
	assert_int_equal(q.answers, answers);
	assert_int_equal(q.released, released);
	ty_actor_unref(dying);
	tear_down(&f);
}

static void test_answer_to_the_dying(void **unused)
{
	(void)unused;
	answer_to_the_dying(&agent_class, 0, 1);    /* nobody there to refuse it */
	answer_to_the_dying(&refusing_class, 1, 0); /* refuse has it */
}

/* The deadline has passed, the TIMEOUT waits behind the stop: the requester never hears of it. */
static void do_ask_and_outlive(struct agent *agent, struct script *script)
{
	(void)agent;
	do_ask(agent, script);
	ty_actor_stop(ty_self());
}

static void test_timeout_of_the_dying(void **unused)
{
	(void)unused;
	for (uint64_t seed = 1; seed <= 50; seed++) { /* in some the deadline comes first */
		struct fixture f;
		struct query q = make_query();
		struct script ask = {.run = do_ask_and_outlive, .query = &q, .deadline = 1};

		set_up(&f, seed);
		ask.to = f.b;
		q.keep = true;
		run_in(f.a, &ask);
		settle(&f);
		assert_int_equal(q.released, 0);
		run_in(f.b, &(struct script){.run = do_reply});
		settle(&f);
		if (q.answers == 0) {
			assert_int_equal(q.released, 1);
		} else {
			assert_int_equal(q.code, TY_TIMEOUT);
			assert_int_equal(q.released, 0); /* the requester did not release it */
		}
		tear_down(&f);
	}
}

/* ---- on threads: released at the deadline, without a callback; home says when the receiver is through with it ---- */

#define ROUNDS_ON_THREADS 2000

struct lent {
	struct ty_request request;
	uint64_t written; /* by the receiver, while it has the request */
};

struct lender {
	struct lender_arg *arg;
	struct lent *lent;
	struct ty_msg look;
	uint64_t rounds, sum;
};
struct lender_arg {
	struct ty_actor *borrower;
	struct gate done;
	uint64_t sum;
};

static void lend(struct lender *l)
{
	l->lent = calloc(1, sizeof *l->lent);
	assert_int_equal(ty_ask(l->arg->borrower, &l->lent->request, QUESTION, ANSWER, ty_now()), TY_OK);
}

static enum ty_code lender_start(void *self, void *arg)
{
	((struct lender *)self)->arg = arg;
	lend(self);
	return TY_OK;
}

static void lender_answer(void *self, struct ty_msg *msg)
{
	struct lender *l = self;

	ty_request_release(ty_request_of_reply(msg));
	assert_int_equal(ty_send(ty_self(), &l->look, RUN), TY_OK);
}

static void lender_look(void *self, struct ty_msg *msg)
{
	struct lender *l = self;

	(void)msg;
	if (!ty_request_home(&l->lent->request)) {
		assert_int_equal(ty_send(ty_self(), &l->look, RUN), TY_OK);
		return;
	}
	l->sum += l->lent->written;
	free(l->lent);
	if (++l->rounds < ROUNDS_ON_THREADS) {
		lend(l);
		return;
	}
	l->arg->sum = l->sum;
	gate_open(&l->arg->done);
}

static void borrower_question(void *self, struct ty_msg *msg)
{
	(void)self;
	ty_container_of(ty_request_of(msg), struct lent, request)->written = 1;
	ty_reply(ty_request_of(msg), TY_OK);
}

static void test_home_after_release_on_threads(void **unused)
{
	static const struct ty_handler lender_handlers[] = {
		{"look", lender_look}, {NULL, NULL}, {"answer", lender_answer}}, borrower_handlers[] = {{"question", borrower_question}};
	static const struct ty_class lender = {.name = "lender", .state_size = sizeof(struct lender), .first_type = RUN,
		.type_count = 3, .handlers = lender_handlers, .start = lender_start},
		borrower = {.name = "borrower", .first_type = QUESTION, .type_count = 1, .handlers = borrower_handlers};
	struct ty_runtime *rt = make_runtime(2);
	struct lender_arg arg = {.borrower = spawn(rt, &borrower, NULL, TY_DEDICATED)};
	struct ty_actor *actor = spawn(rt, &lender, &arg, TY_POOL);

	(void)unused;
	gate_wait(&arg.done);
	assert_int_equal(arg.sum, ROUNDS_ON_THREADS);
	ty_actor_unref(actor);
	ty_actor_unref(arg.borrower);
	ty_runtime_destroy(rt);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answer),
		cmocka_unit_test(test_ask_oneself),
		cmocka_unit_test(test_forward),
		cmocka_unit_test(test_late_reply_then_release),
		cmocka_unit_test(test_release_then_late_reply),
		cmocka_unit_test(test_asked_again_after_late_reply),
		cmocka_unit_test(test_not_home_while_the_answer_is_in_the_mailbox),
		cmocka_unit_test(test_not_home_while_the_timeout_waits),
		cmocka_unit_test(test_receiver_is_dead),
		cmocka_unit_test(test_receiver_stops_first),
		cmocka_unit_test(test_receiver_does_not_know_the_type),
		cmocka_unit_test(test_requester_dies_waiting),
		cmocka_unit_test(test_answer_to_the_dying),
		cmocka_unit_test(test_timeout_of_the_dying),
		cmocka_unit_test(test_home_after_release_on_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
