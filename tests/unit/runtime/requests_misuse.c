/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests: what nobody may do with one.
 */
#include "misuse.h"
#include "requests_house.h"

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

int main(void)
{
	static const struct CMUnitTest tests[] = {cmocka_unit_test(test_misuse)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
