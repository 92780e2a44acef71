/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests: every way in which one is answered, and who has it afterwards; then some hundreds of seeds
 * in which everything happens at random.
 */
#include <stdio.h>
#include <stdlib.h>

#include "misuse.h"
#include "runtime_test.h"

#define MS INT64_C(1000000)

enum { RUN = 1, QUESTION, ANSWER, TICK, TYPE_END, UNKNOWN = 99 };

struct query {
	struct ty_request request;
	int received, answers, released;
	enum ty_code code;   /* of the last answer */
	int64_t answered_at;
	struct ty_actor *forward_to; /* the receiver forwards it once */
	bool keep;           /* the receiver keeps it */
	bool stop_first;     /* the receiver stops itself, then replies */
};

struct agent {
	struct query *kept;
};

/* A piece of a test, run in an actor. */
struct script {
	struct ty_msg msg;
	void (*run)(struct agent *agent, struct script *script);
	struct query *query;
	struct ty_actor *to;
	int64_t deadline;
	uint32_t type;
	enum ty_code code; /* what run's call answered */
};

static void on_run(void *self, struct ty_msg *msg)
{
	struct script *script = ty_container_of(msg, struct script, msg);

	script->run(self, script);
}

static void on_question(void *self, struct ty_msg *msg)
{
	struct agent *agent = self;
	struct query *query = ty_container_of(msg, struct query, request.msg);

	query->received++;
	if (query->keep) {
		agent->kept = query;
		return;
	}
	if (query->stop_first)
		ty_actor_stop(ty_self());
	if (query->forward_to) {
		struct ty_actor *to = query->forward_to;

		query->forward_to = NULL;
		if (ty_forward(to, &query->request, QUESTION) == TY_OK)
			return;
	}
	ty_reply(&query->request, TY_EXISTS);
}

static void take_answer(struct query *query)
{
	query->answers++;
	query->code = query->request.code;
	query->answered_at = ty_now();
}

static void on_answer(void *self, struct ty_msg *msg)
{
	(void)self;
	assert_int_equal(msg->type, ANSWER);
	take_answer(ty_container_of(ty_request_of_reply(msg), struct query, request));
}

static void on_refuse(void *self, struct ty_msg *msg)
{
	(void)self;
	assert_int_equal(msg->type, ANSWER); /* requests never come here */
	take_answer(ty_container_of(ty_request_of_reply(msg), struct query, request));
}

static void on_release(struct ty_request *request)
{
	ty_container_of(request, struct query, request)->released++;
}

static const struct ty_handler handlers[] = {{"run", on_run}, {"question", on_question}, {"answer", on_answer}};
static const struct ty_class agent_class = {.name = "agent", .state_size = sizeof(struct agent), .first_type = RUN,
	.type_count = 3, .handlers = handlers};
static const struct ty_class refusing_class = {.name = "refusing", .state_size = sizeof(struct agent), .first_type = RUN,
	.type_count = 3, .handlers = handlers, .refuse = on_refuse};

/* ---- the pieces ---- */

static void do_ask(struct agent *agent, struct script *script)
{
	(void)agent;
	script->code = ty_ask(script->to, &script->query->request, script->type ? script->type : QUESTION, ANSWER,
		script->deadline ? ty_now() + script->deadline : TY_NEVER);
}

static void do_reply(struct agent *agent, struct script *script)
{
	(void)script;
	ty_reply(&agent->kept->request, TY_OK);
}

static void do_release(struct agent *agent, struct script *script)
{
	(void)agent;
	ty_request_release(&script->query->request);
}

struct fixture {
	struct ty_runtime *rt;
	struct ty_actor *a, *b, *c;
};

static void set_up(struct fixture *f, uint64_t seed)
{
	struct ty_runtime_options options = {.size = sizeof options, .seed = seed};

	assert_int_equal(ty_runtime_create(&options, &f->rt, NULL), TY_OK);
	f->a = spawn(f->rt, &agent_class, NULL, TY_POOL);
	f->b = spawn(f->rt, &agent_class, NULL, TY_POOL);
	f->c = spawn(f->rt, &agent_class, NULL, TY_DEDICATED);
}

static void settle(struct fixture *f)
{
	while (ty_runtime_step(f->rt))
		;
}

static void tear_down(struct fixture *f)
{
	ty_actor_unref(f->a);
	ty_actor_unref(f->b);
	ty_actor_unref(f->c);
	ty_runtime_destroy(f->rt);
}

static void run_in(struct ty_actor *actor, struct script *script)
{
	assert_int_equal(ty_send(actor, &script->msg, RUN), TY_OK);
}

static struct query make_query(void)
{
	return (struct query){.request = {.release = on_release}};
}

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

static void time_out(struct fixture *f, struct query *q, uint64_t seed)
{
	struct script ask = {.run = do_ask, .query = q, .deadline = 5 * MS};
	int64_t began;

	set_up(f, seed);
	*q = make_query();
	q->keep = true;
	ask.to = f->b;
	began = ty_runtime_now(f->rt);
	run_in(f->a, &ask);
	settle(f);
	assert_int_equal(q->answers, 1);
	assert_int_equal(q->code, TY_TIMEOUT);
	assert_true(q->answered_at >= began + 5 * MS);
	assert_false(ty_request_home(&q->request)); /* b has it */
}

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

/* ---- misuse -------------------------------------------------------------------------------- */

static void reply_twice(void)
{
	struct fixture f;
	struct query q = make_query();
	struct script ask = {.run = do_ask, .query = &q};

	set_up(&f, 20);
	ask.to = f.b;
	run_in(f.a, &ask);
	settle(&f);
	ty_reply(&q.request, TY_OK);
}

static void reply_to_what_was_never_asked(void)
{
	struct query q = make_query();

	ty_reply(&q.request, TY_OK);
}

static void ask_while_out(void)
{
	struct fixture f;
	struct query q;
	struct script ask = {.run = do_ask, .query = &q};

	time_out(&f, &q, 21);
	ask.to = f.c;
	run_in(f.a, &ask);
	settle(&f);
}

static void ask_from_outside(void)
{
	struct fixture f;
	struct query q = make_query();

	set_up(&f, 22);
	(void)!ty_ask(f.b, &q.request, QUESTION, ANSWER, TY_NEVER);
}

static void release_while_asked(void)
{
	struct fixture f;
	struct query q = make_query();
	struct script ask = {.run = do_ask, .query = &q}, release = {.run = do_release, .query = &q};

	set_up(&f, 23);
	ask.to = f.b;
	q.keep = true;
	run_in(f.a, &ask);
	settle(&f);
	run_in(f.a, &release);
	settle(&f);
}

/* b has replied, and the answer is behind `next` in a's mailbox. */
static void before_the_answer(uint64_t seed, struct script *next)
{
	struct fixture f;
	struct query q = make_query();
	struct script ask = {.run = do_ask, .query = &q};

	set_up(&f, seed);
	next->query = &q;
	next->to = ask.to = f.b;
	q.keep = true;
	run_in(f.a, &ask);
	settle(&f);
	run_in(f.a, next);
	ty_reply(&q.request, TY_OK);
	settle(&f);
	tear_down(&f);
}

static void ask_before_the_answer(void)
{
	before_the_answer(25, &(struct script){.run = do_ask});
}

static void release_before_the_answer(void)
{
	before_the_answer(26, &(struct script){.run = do_release});
}

static void do_ask_for_unknown(struct agent *agent, struct script *script)
{
	(void)agent;
	(void)!ty_ask(script->to, &script->query->request, QUESTION, UNKNOWN, TY_NEVER);
}

static void ask_for_an_unknown_type(void)
{
	struct fixture f;
	struct query q = make_query();

	set_up(&f, 27);
	run_in(f.a, &(struct script){.run = do_ask_for_unknown, .query = &q, .to = f.b});
	settle(&f);
}

static void do_forward_and_reply(struct agent *agent, struct script *script)
{
	assert_int_equal(ty_forward(script->to, &agent->kept->request, QUESTION), TY_OK);
	ty_reply(&agent->kept->request, TY_OK);
}

static void reply_to_what_was_forwarded(void)
{
	struct fixture f;
	struct query q = make_query();
	struct script ask = {.run = do_ask, .query = &q};

	set_up(&f, 28);
	ask.to = f.b;
	q.keep = true;
	run_in(f.a, &ask);
	settle(&f);
	run_in(f.b, &(struct script){.run = do_forward_and_reply, .to = f.c});
	settle(&f);
}

static void forward_what_was_answered(void)
{
	struct fixture f;
	struct query q = make_query();
	struct script ask = {.run = do_ask, .query = &q};

	set_up(&f, 24);
	ask.to = f.b;
	run_in(f.a, &ask);
	settle(&f);
	(void)!ty_forward(f.c, &q.request, QUESTION);
}

static void test_misuse(void **unused)
{
	(void)unused;
	misuse(reply_twice, "answered_already");
	misuse(reply_to_what_was_never_asked, "answered_already");
	misuse(reply_to_what_was_forwarded, "TY_MSG_QUEUED");
	misuse(ask_while_out, "ty_request_home");
	misuse(ask_before_the_answer, "ty_request_home");
	misuse(ask_for_an_unknown_type, "type_count");
	misuse(ask_from_outside, "self");
	misuse(release_while_asked, "awaited");
	misuse(release_before_the_answer, "awaited");
	misuse(forward_what_was_answered, "WAITING");
}

/* ---- at random ----------------------------------------------------------------------------- */

#define NODES 5
#define ROUNDS 20
#define SEEDS 2000

/* Everything is allocated, so that ASan sees who frees what, when. */
struct city {
	struct ty_actor *nodes[NODES];
	uint64_t random;
	int asked, closed, answered, timed_out, refused, released, freed, kept;
};

struct question {
	struct ty_request request;
	struct city *city;
	struct question *next; /* in the receiver's list of kept ones */
	bool answered;
};

struct node {
	struct city *city;
	struct question *kept;
	struct ty_timer tick;
	int rounds;
};

static uint32_t draw(struct city *city, uint32_t below)
{
	city->random = city->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (uint32_t)(city->random >> 33) % below;
}

static void free_question(struct ty_request *request)
{
	struct question *q = ty_container_of(request, struct question, request);

	q->city->released++;
	free(q);
}

static void ask_somebody(struct city *city)
{
	struct question *q = calloc(1, sizeof *q);
	int64_t deadline = draw(city, 4) ? ty_now() + draw(city, 20000) : TY_NEVER;

	q->city = city;
	q->request.release = free_question;
	if (ty_ask(city->nodes[draw(city, NODES)], &q->request, draw(city, 20) ? QUESTION : UNKNOWN, ANSWER,
		    deadline) == TY_OK) {
		city->asked++;
	} else {
		city->closed++;
		free(q);
	}
}

static enum ty_code node_start(void *self, void *arg)
{
	struct node *node = self;

	node->city = arg;
	ty_timer_start(&node->tick, TICK, ty_now() + draw(node->city, 5000));
	return TY_OK;
}

static void node_tick(void *self, struct ty_msg *msg)
{
	struct node *node = self;
	struct city *city = node->city;

	(void)msg;
	for (uint32_t n = draw(city, 3); n; n--)
		ask_somebody(city);
	while (node->kept && draw(city, 3)) {
		struct question *q = node->kept;

		node->kept = q->next;
		ty_reply(&q->request, TY_OK);
	}
	if (draw(city, 60) == 0)
		ty_actor_stop(ty_self());
	else if (++node->rounds < ROUNDS)
		ty_timer_start(&node->tick, TICK, ty_now() + draw(city, 20000));
}

static void node_question(void *self, struct ty_msg *msg)
{
	struct node *node = self;
	struct city *city = node->city;
	struct question *q = ty_container_of(ty_request_of(msg), struct question, request);

	switch (draw(city, 4)) {
	case 0:
		q->next = node->kept;
		node->kept = q;
		return;
	case 1:
		if (ty_forward(city->nodes[draw(city, NODES)], &q->request, QUESTION) == TY_OK)
			return;
		break;
	default:
		break;
	}
	ty_reply(&q->request, TY_OK);
}

static void got_answer(struct city *city, struct question *q)
{
	assert_false(q->answered);
	q->answered = true;
	city->timed_out += q->request.code == TY_TIMEOUT;
	if (ty_request_home(&q->request) && draw(city, 2)) {
		city->freed++;
		free(q);
	} else {
		ty_request_release(&q->request);
	}
}

static void node_answer(void *self, struct ty_msg *msg)
{
	struct node *node = self;

	node->city->answered++;
	got_answer(node->city, ty_container_of(ty_request_of_reply(msg), struct question, request));
}

static void node_refuse(void *self, struct ty_msg *msg)
{
	struct node *node = self;

	assert_int_equal(msg->type, ANSWER);
	node->city->refused++;
	got_answer(node->city, ty_container_of(ty_request_of_reply(msg), struct question, request));
}

/* What it kept is answered at the end, late or not: nothing leaks. */
static void node_stop(void *self)
{
	struct node *node = self;

	while (node->kept) {
		struct question *q = node->kept;

		node->kept = q->next;
		ty_reply(&q->request, TY_CANCELLED);
	}
	ask_somebody(node->city); /* nobody will be there to be answered */
}

static void random_city(uint64_t seed, struct city *total)
{
	static const struct ty_handler hs[] = {[QUESTION - RUN] = {"question", node_question},
		[ANSWER - RUN] = {"answer", node_answer}, [TICK - RUN] = {"tick", node_tick}};
	static const struct ty_class cls = {.name = "node", .state_size = sizeof(struct node), .first_type = RUN,
		.type_count = 4, .handlers = hs, .start = node_start, .stop = node_stop, .refuse = node_refuse};
	struct ty_runtime_options options = {.size = sizeof options, .seed = seed};
	struct city city = {.random = seed * 7919};
	struct ty_runtime *rt;

	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	for (int i = 0; i < NODES; i++)
		city.nodes[i] = spawn(rt, &cls, &city, i % 2 ? TY_DEDICATED : TY_POOL);
	while (ty_runtime_step(rt))
		;
	ty_runtime_destroy(rt);
	for (int i = 0; i < NODES; i++)
		ty_actor_unref(city.nodes[i]);
	/* each question's memory came back once, and each was answered at most once, never without */
	assert_int_equal(city.asked, city.released + city.freed);
	assert_true(city.answered + city.refused <= city.asked);
	total->asked += city.asked;
	total->closed += city.closed;
	total->answered += city.answered;
	total->timed_out += city.timed_out;
	total->refused += city.refused;
	total->released += city.released;
	total->kept += city.asked - city.answered - city.refused; /* their requesters were over */
}

static void test_at_random(void **unused)
{
	struct city total = {0};

	(void)unused;
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		random_city(seed, &total);
	/* all of it happened */
	assert_true(total.closed > SEEDS / 10);
	assert_true(total.timed_out > SEEDS);
	assert_true(total.refused > 0);
	assert_true(total.kept > 0);
	assert_true(total.answered - total.timed_out > SEEDS);
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
		cmocka_unit_test(test_misuse),
		cmocka_unit_test(test_at_random),
		cmocka_unit_test(test_home_after_release_on_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
