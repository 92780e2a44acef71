/* SPDX-License-Identifier: Apache-2.0 */
#include "requests_house.h"

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
const struct ty_class agent_class = {.name = "agent", .state_size = sizeof(struct agent), .first_type = RUN,
	.type_count = 3, .handlers = handlers};
const struct ty_class refusing_class = {.name = "refusing", .state_size = sizeof(struct agent), .first_type = RUN,
	.type_count = 3, .handlers = handlers, .refuse = on_refuse};

void do_ask(struct agent *agent, struct script *script)
{
	(void)agent;
	script->code = ty_ask(script->to, &script->query->request, script->type ? script->type : QUESTION, ANSWER,
		script->deadline ? ty_now() + script->deadline : TY_NEVER);
}

void do_reply(struct agent *agent, struct script *script)
{
	(void)script;
	ty_reply(&agent->kept->request, TY_OK);
}

void do_release(struct agent *agent, struct script *script)
{
	(void)agent;
	ty_request_release(&script->query->request);
}

void set_up(struct fixture *f, uint64_t seed)
{
	set_up_of(f, seed, &agent_class);
}

void run_in(struct ty_actor *actor, struct script *script)
{
	assert_int_equal(ty_send(actor, &script->msg, RUN), TY_OK);
}

struct query make_query(void)
{
	return (struct query){.request = {.release = on_release}};
}

void time_out(struct fixture *f, struct query *q, uint64_t seed)
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
