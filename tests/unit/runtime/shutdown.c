/* SPDX-License-Identifier: Apache-2.0
 *
 * Stopping a runtime: within a bound, with an account of every message; stops that are put off; what is misuse of it.
 */
#include <pthread.h>
#include <stdlib.h>

#include "runtime/runtime.h"
#include "runtime_test.h"

#define SECOND INT64_C(1000000000)

enum { HOP = 1, FINISH, BLOCK, ASK, REPLY };

/* ---- a net of actors through which messages hop; each is accounted for ---- */

enum { ACTORS = 5, TOKENS = 12 };

struct token {
	struct ty_msg msg;
	uint32_t hops;
};

struct net {
	struct ty_runtime *rt;
	struct ty_actor *actors[ACTORS];
	struct token tokens[TOKENS];
	_Atomic(uint32_t) handled, refused, failed, sent, stopped, asked_to_stop;
	bool runtime_stops;
	bool puts_off; /* its actors never end by themselves */
	enum ty_code spawned_in_stop;
};

struct node {
	struct net *net;
	uint32_t index;
};
struct node_arg {
	struct net *net;
	uint32_t index;
};

static enum ty_code node_start(void *self, void *arg)
{
	const struct node_arg *a = arg;

	*(struct node *)self = (struct node){a->net, a->index};
	return TY_OK;
}

static void send_on(struct net *net, uint32_t from, struct token *token)
{
	uint32_t to = (from * 3 + token->hops++) % ACTORS;

	atomic_fetch_add(&net->sent, 1);
	if (ty_send(net->actors[to], &token->msg, HOP) != TY_OK)
		atomic_fetch_add(&net->failed, 1);
}

static void on_hop(void *self, struct ty_msg *msg)
{
	struct node *node = self;

	atomic_fetch_add(&node->net->handled, 1);
	send_on(node->net, node->index, ty_container_of(msg, struct token, msg));
}

static void on_refuse(void *self, struct ty_msg *msg)
{
	(void)msg;
	atomic_fetch_add(&((struct node *)self)->net->refused, 1);
}

static void on_stop(void *self)
{
	atomic_fetch_add(&((struct node *)self)->net->stopped, 1);
}

static const struct ty_class late_class = {.name = "late"};

static void on_stopping(void *self)
{
	struct net *net = ((struct node *)self)->net;
	struct ty_actor *child;

	atomic_fetch_add(&net->asked_to_stop, 1);
	if (net->runtime_stops)
		net->spawned_in_stop = ty_spawn(net->rt, &late_class, NULL, NULL, &child);
}

static const struct ty_handler handlers[] = {{"hop", on_hop}};
#define NODE .name = "node", .state_size = sizeof(struct node), .first_type = HOP, .type_count = 1, \
	.handlers = handlers, .start = node_start, .stop = on_stop, .refuse = on_refuse
static const struct ty_class node_class = {NODE}, lasting_class = {NODE, .stopping = on_stopping};

static void fill(struct net *net, struct ty_runtime *rt, struct node_arg *args, bool puts_off)
{
	net->rt = rt;
	net->puts_off = puts_off;
	for (uint32_t i = 0; i < ACTORS; i++) {
		args[i] = (struct node_arg){net, i};
		net->actors[i] = spawn(rt, puts_off && i % 2 ? &lasting_class : &node_class, &args[i],
			i % 3 == 1 ? TY_DEDICATED : TY_POOL);
	}
	for (uint32_t i = 0; i < TOKENS; i++)
		send_on(net, i, &net->tokens[i]);
}

static void empty(struct net *net)
{
	for (uint32_t i = 0; i < ACTORS; i++)
		ty_actor_unref(net->actors[i]);
	assert_int_equal(net->stopped, ACTORS);
	assert_int_equal(net->sent, net->handled + net->refused + net->failed);
	if (net->runtime_stops && net->asked_to_stop)
		assert_int_equal(net->spawned_in_stop, TY_STOPPING);
}

/* Under any schedule, and whatever the time that it has. */
static void test_every_message_is_accounted_for(void **unused)
{
	uint64_t cut = 0, drained = 0, returned = 0;

	(void)unused;
	for (uint64_t seed = 1; seed <= 2000; seed++) {
		struct ty_runtime_options options = {.size = sizeof options, .seed = seed};
		struct ty_runtime *rt;
		struct net net = {0};
		struct node_arg args[ACTORS];
		struct ty_stop_report report;
		uint32_t handled, refused;
		int64_t now;

		assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
		fill(&net, rt, args, seed % 3 == 0);
		for (uint64_t i = 0; i < seed * 7 % 60; i++)
			ty_runtime_step(rt);
		net.runtime_stops = true;
		handled = net.handled;
		refused = net.refused;
		now = ty_runtime_now(rt);
		assert_int_equal(ty_runtime_stop(rt, now + (int64_t)(seed * 37 % 40) * 1000, now + SECOND, &report), TY_OK);
		assert_int_equal(report.alive, 0);
		assert_int_equal(report.handled, net.handled - handled);
		assert_int_equal(report.returned, net.refused - refused);
		assert_int_equal(report.dropped, 0);
		assert_null(report.stuck.actor);
		if (seed % 3 == 0)
			assert_true(report.cut > 0); /* those that never end by themselves */
		cut += report.cut > 0;
		drained += report.cut == 0;
		returned += report.returned;
		assert_int_equal(ty_runtime_stop(rt, 0, 0, NULL), TY_OK); /* twice is once */
		empty(&net);
		ty_runtime_destroy(rt);
	}
	assert_true(cut > 100 && drained > 100 && returned > 100);
}

static void test_the_same_on_threads(void **unused)
{
	(void)unused;
	for (int round = 0; round < 60; round++) {
		struct ty_runtime *rt = make_runtime(2);
		struct net net = {0};
		struct node_arg args[ACTORS];
		struct ty_stop_report report;
		int64_t now;

		fill(&net, rt, args, round % 2);
		net.runtime_stops = true; /* read by handlers once they are asked to stop */
		while (atomic_load(&net.handled) < (uint32_t)round * 20)
			sched_yield();
		now = ty_runtime_now(rt);
		assert_int_equal(ty_runtime_stop(rt, round % 3 ? now : now + 1000000, TY_NEVER, &report), TY_OK);
		assert_int_equal(report.alive, 0);
		if (round % 2)
			assert_true(report.cut > 0);
		empty(&net);
		ty_runtime_destroy(rt);
	}
}

/* ---- a stop that is put off until an answer has come ---- */

struct patient {
	struct ty_request request;
	struct patient_arg *arg;
	bool stopping;
};
struct patient_arg {
	struct ty_actor *slow;
	int asked, answered, stopped, handled_after;
	struct ty_msg hop;
};

struct slow {
	struct ty_timer timer;
	struct ty_request *request;
};

static void slow_ask(void *self, struct ty_msg *msg)
{
	struct slow *slow = self;

	slow->request = ty_request_of(msg);
	ty_timer_start(&slow->timer, FINISH, ty_now() + 1000000);
}

static void slow_finish(void *self, struct ty_msg *msg)
{
	(void)msg;
	ty_reply(((struct slow *)self)->request, TY_OK);
}

static const struct ty_handler slow_handlers[] = {{"finish", slow_finish}, {"block", NULL}, {"ask", slow_ask}};
static const struct ty_class slow_class = {.name = "slow", .state_size = sizeof(struct slow), .first_type = FINISH,
	.type_count = 3, .handlers = slow_handlers};

static enum ty_code patient_start(void *self, void *arg)
{
	struct patient *p = self;

	p->arg = arg;
	return ty_ask(p->arg->slow, &p->request, ASK, REPLY, TY_NEVER);
}

static void patient_hop(void *self, struct ty_msg *msg)
{
	(void)msg;
	((struct patient *)self)->arg->handled_after += ((struct patient *)self)->stopping;
}

static void patient_reply(void *self, struct ty_msg *msg)
{
	struct patient *p = self;

	(void)msg;
	p->arg->answered++;
	if (p->stopping)
		ty_actor_end();
}

static void patient_stopping(void *self)
{
	struct patient *p = self;

	p->arg->asked++;
	p->stopping = true;
	if (p->arg->answered)
		ty_actor_end();
	else
		assert_int_equal(ty_send(ty_self(), &p->arg->hop, HOP), TY_OK); /* it goes on meanwhile */
}

static void patient_stop(void *self)
{
	((struct patient *)self)->arg->stopped++;
}

static const struct ty_handler patient_handlers[] = {
	{"hop", patient_hop}, {NULL, NULL}, {NULL, NULL}, {NULL, NULL}, {"reply", patient_reply}};
static const struct ty_class patient_class = {.name = "patient", .state_size = sizeof(struct patient),
	.first_type = HOP, .type_count = 5, .handlers = patient_handlers, .start = patient_start,
	.stopping = patient_stopping, .stop = patient_stop};

static void test_put_off(void **unused)
{
	(void)unused;
	for (uint64_t seed = 0; seed <= 300; seed++) { /* 0: on threads */
		struct ty_runtime_options options = {.size = sizeof options, .seed = seed, .workers = 1};
		struct patient_arg arg = {0};
		struct ty_stop_report report;
		struct ty_runtime *rt;
		struct ty_actor *patient;

		assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
		arg.slow = spawn(rt, &slow_class, NULL, TY_POOL);
		patient = spawn(rt, &patient_class, &arg, seed % 2 ? TY_POOL : TY_DEDICATED);
		for (uint64_t i = 0; i < seed % 13; i++)
			ty_runtime_step(rt);
		ty_actor_stop(patient); /* twice, and by the runtime */
		ty_actor_stop(patient);
		assert_int_equal(ty_runtime_stop(rt, TY_NEVER, TY_NEVER, &report), TY_OK);
		assert_int_equal(arg.asked, 1);
		assert_int_equal(arg.answered, 1);
		assert_int_equal(arg.stopped, 1);
		assert_int_equal(report.cut, 0);
		assert_true(arg.handled_after <= 1);
		assert_int_equal(ty_send(patient, &arg.hop, HOP), TY_CLOSED);
		ty_actor_stop(patient); /* an actor that is over */
		ty_actor_unref(patient);
		ty_actor_unref(arg.slow);
		ty_runtime_destroy(rt);
	}
}

/* One that waits for what never comes: in deterministic mode it is known that nothing ever will. */
static void test_put_off_for_ever(void **unused)
{
	struct ty_runtime_options options = {.size = sizeof options, .seed = 4};
	struct node_arg args[ACTORS];
	struct net net = {0};
	struct ty_runtime *rt;

	(void)unused;
	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	fill(&net, rt, args, true);
	for (int i = 0; i < 50; i++)
		ty_runtime_step(rt);
	for (uint32_t i = 0; i < ACTORS; i++)
		ty_actor_stop(net.actors[i]);
	for (int i = 0; i < 300; i++)
		ty_runtime_step(rt);
	assert_int_equal(net.asked_to_stop, ACTORS / 2);
	ty_runtime_destroy(rt); /* returns */
	empty(&net);
}

/* The elders are over before they are waited for: none of them is cut short. */
static void test_cut_are_those_that_live(void **unused)
{
	struct ty_runtime_options options = {.size = sizeof options, .seed = 6};
	struct node_arg args[ACTORS + 1];
	struct net net = {0};
	struct ty_stop_report report;
	struct ty_actor *lasting;
	struct ty_runtime *rt;
	int64_t now;

	(void)unused;
	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	fill(&net, rt, args, false);
	args[ACTORS] = (struct node_arg){&net, 0};
	lasting = spawn(rt, &lasting_class, &args[ACTORS], TY_POOL);
	for (uint32_t i = 0; i < ACTORS; i++)
		ty_actor_stop(net.actors[i]);
	now = ty_runtime_now(rt);
	assert_int_equal(ty_runtime_stop(rt, now + SECOND / 100, TY_NEVER, &report), TY_OK);
	assert_int_equal(report.cut, 1);
	assert_int_equal(net.stopped--, ACTORS + 1);
	ty_actor_unref(lasting);
	empty(&net);
	ty_runtime_destroy(rt);
}

/* ---- cut while it is being asked to stop ---- */

struct slow_stopper {
	struct gate asked, go_on;
};

static enum ty_code slow_stopper_start(void *self, void *arg)
{
	*(struct slow_stopper **)self = arg;
	return TY_OK;
}

static void slow_stopping(void *self)
{
	struct slow_stopper *slow = *(struct slow_stopper **)self;

	gate_open(&slow->asked);
	gate_wait(&slow->go_on); /* and puts it off, for ever */
}

static void *stop_at_once(void *arg)
{
	struct ty_runtime *rt = arg;

	assert_int_equal(ty_runtime_stop(rt, ty_runtime_now(rt), TY_NEVER, NULL), TY_OK);
	return NULL;
}

/* The cut finds it neither ended nor putting off its end: it has to see the cut itself. */
static void test_cut_while_it_is_asked(void **unused)
{
	static const struct ty_class stopper_class = {.name = "slow stopper", .state_size = sizeof(struct slow_stopper *),
		.start = slow_stopper_start, .stopping = slow_stopping};

	(void)unused;
	for (int executor = 0; executor < 2; executor++) {
		struct ty_runtime *rt = make_runtime(1);
		struct slow_stopper slow = {0};
		struct ty_actor *actor = spawn(rt, &stopper_class, &slow, executor ? TY_DEDICATED : TY_POOL);
		pthread_t thread;

		ty_actor_stop(actor);
		gate_wait(&slow.asked);
		assert_int_equal(pthread_create(&thread, NULL, stop_at_once, rt), 0);
		while (atomic_load(&rt->budget_messages)) /* until it cuts */
			sched_yield();
		gate_open(&slow.go_on);
		pthread_join(thread, NULL); /* it returns */
		ty_actor_unref(actor);
		ty_runtime_destroy(rt);
	}
}

/* ---- a handler that does not return ---- */

struct blocked {
	struct ty_msg msg;
	struct gate *entered, *gate;
};

static void on_block(void *self, struct ty_msg *msg)
{
	struct blocked *blocked = ty_container_of(msg, struct blocked, msg);

	(void)self;
	gate_open(blocked->entered);
	gate_wait(blocked->gate);
}

static const struct ty_handler blocking_handlers[] = {{"block", on_block}};
static const struct ty_class blocking_class = {.name = "blocking", .first_type = BLOCK, .type_count = 1,
	.handlers = blocking_handlers};

static void test_stuck(void **unused)
{
	(void)unused;
	for (int executor = 0; executor < 2; executor++) {
		struct ty_runtime *rt = make_runtime(2);
		struct gate entered = {0}, gate = {0};
		struct blocked blocked = {.entered = &entered, .gate = &gate}, waiting = blocked;
		struct net net = {0};
		struct node_arg args[ACTORS];
		struct ty_actor *stuck;
		struct ty_stop_report report;
		int64_t now;

		fill(&net, rt, args, false);
		stuck = spawn(rt, &blocking_class, NULL, executor ? TY_DEDICATED : TY_POOL);
		assert_int_equal(ty_send(stuck, &blocked.msg, BLOCK), TY_OK);
		gate_wait(&entered);
		assert_int_equal(ty_send(stuck, &waiting.msg, BLOCK), TY_OK);
		now = ty_runtime_now(rt);
		assert_int_equal(ty_runtime_stop(rt, now, now + 3000000, &report), TY_TIMEOUT);
		assert_true(report.alive >= 1); /* its elders may have ended meanwhile */
		assert_true(report.cut >= 1);
		assert_string_equal(report.stuck.actor, "blocking");
		assert_string_equal(report.stuck.message, "block");
		assert_int_equal(ty_runtime_stop(rt, now, now, NULL), TY_TIMEOUT);
		gate_open(&gate);
		assert_int_equal(ty_runtime_stop(rt, now, TY_NEVER, &report), TY_OK);
		assert_int_equal(report.alive, 0);
		assert_int_equal(ty_send(stuck, &blocked.msg, BLOCK), TY_CLOSED);
		ty_actor_unref(stuck);
		empty(&net);
		ty_runtime_destroy(rt);
	}
}

/* Requests that are left come back with TY_CLOSED, and reach a port after all is over. */
static void test_port_outlasts_the_actors(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct gate entered = {0}, gate = {0};
	struct blocked blocked = {.entered = &entered, .gate = &gate};
	struct ty_actor *actor = spawn(rt, &blocking_class, NULL, TY_POOL);
	struct ty_request request = {0};
	struct ty_stop_report report;
	struct ty_port *port;
	struct ty_msg *msg;
	int64_t now;

	(void)unused;
	assert_int_equal(ty_port_open(rt, NULL, &port), TY_OK);
	assert_int_equal(ty_send(actor, &blocked.msg, BLOCK), TY_OK);
	gate_wait(&entered);
	ty_port_enter(port);
	assert_int_equal(ty_ask(actor, &request, ASK, REPLY, TY_NEVER), TY_OK);
	ty_port_leave(port);
	now = ty_runtime_now(rt);
	assert_int_equal(ty_runtime_stop(rt, now, now, &report), TY_TIMEOUT);
	assert_null(ty_port_receive(port));
	gate_open(&gate);
	assert_int_equal(ty_runtime_stop(rt, now, TY_NEVER, &report), TY_OK);
	msg = ty_port_wait(port, TY_NEVER);
	assert_int_equal(msg->type, REPLY);
	assert_true(request.code == TY_CLOSED || request.code == TY_UNSUPPORTED); /* if its run went on to it */
	ty_port_enter(port);
	assert_int_equal(ty_ask(actor, &request, ASK, REPLY, TY_NEVER), TY_CLOSED);
	ty_port_leave(port);
	ty_port_close(port);
	ty_actor_unref(actor);
	ty_runtime_destroy(rt);
}

/* Supervised children, cut while their supervisor waits for one that does not end. */
static void child_stopping(void *self)
{
	(void)self; /* never */
}

static void test_supervisor_cut_short(void **unused)
{
	static const struct ty_class lasting = {.name = "lasting", .stopping = child_stopping}, plain = {.name = "plain"};
	const struct ty_child children[] = {{.cls = &plain}, {.cls = &lasting}, {.cls = &plain}};

	(void)unused;
	for (uint64_t seed = 0; seed <= 200; seed++) {
		struct ty_runtime_options options = {.size = sizeof options, .seed = seed, .workers = 1};
		struct ty_supervisor_options supervised = {.size = sizeof supervised, .children = children, .child_count = 3,
			.max_restarts = 1, .window = SECOND};
		struct ty_stop_report report;
		struct ty_actor *supervisor;
		int64_t now;

		assert_int_equal(ty_runtime_create(&options, &supervised.rt, NULL), TY_OK);
		supervisor = spawn(supervised.rt, ty_supervisor(), &supervised, TY_POOL);
		for (uint64_t i = 0; i < seed % 17; i++)
			ty_runtime_step(supervised.rt);
		ty_actor_stop(supervisor);
		now = ty_runtime_now(supervised.rt);
		now += 1000 * (int64_t)(seed % 20);
		assert_int_equal(ty_runtime_stop(supervised.rt, now, TY_NEVER, &report), TY_OK);
		assert_int_equal(report.alive, 0);
		ty_actor_unref(supervisor);
		ty_runtime_destroy(supervised.rt);
	}
}

/* ---- once the budget is 0, what wakes an actor is not handled any more ---- */

struct woken {
	uint32_t handled, refused;
};

static enum ty_code woken_start(void *self, void *arg)
{
	*(struct woken **)self = arg;
	return TY_OK;
}

static void on_woken(void *self, struct ty_msg *msg)
{
	(void)msg;
	(*(struct woken **)self)->handled++;
}

static void woken_refuse(void *self, struct ty_msg *msg)
{
	(void)msg;
	(*(struct woken **)self)->refused++;
}

static void test_what_wakes_one_that_is_cut(void **unused)
{
	static const struct ty_handler woken_handlers[] = {{"woken", on_woken}};
	static const struct ty_class woken_class = {.name = "woken", .state_size = sizeof(struct woken *), .first_type = HOP,
		.type_count = 1, .handlers = woken_handlers, .start = woken_start, .refuse = woken_refuse};
	struct ty_runtime_options options = {.size = sizeof options, .seed = 1};
	struct ty_msg msgs[2] = {TY_MSG_INIT, TY_MSG_INIT};
	struct woken woken = {0};
	struct ty_runtime *rt;
	struct ty_actor *actor;

	(void)unused;
	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	actor = spawn(rt, &woken_class, &woken, TY_POOL);
	assert_int_equal(ty_send(actor, &msgs[0], HOP), TY_OK);
	while (!woken.handled)
		assert_true(ty_runtime_step(rt));
	while (ty_runtime_step(rt)) /* it sleeps */
		;
	atomic_store(&rt->budget_messages, 0); /* as stop.c does when time is up */
	assert_int_equal(ty_send(actor, &msgs[1], HOP), TY_OK);
	while (ty_runtime_step(rt))
		;
	assert_int_equal(woken.handled, 1);
	assert_int_equal(woken.refused, 1);
	ty_actor_unref(actor);
	ty_runtime_destroy(rt);
}

/* ---- what its handler finds not to fit is handled, and refused, and yet one message ---- */

struct piece {
	struct ty_msg msg;
	uint64_t number;
};
TY_MESSAGE(piece, HOP, struct piece)

static void on_piece(struct woken **self, struct piece *piece)
{
	(void)piece;
	(*self)->handled++;
}
TY_HANDLER(piece, on_piece, struct woken *)

static void misfits_in_the_report(bool refuses)
{
	static const struct ty_handler piece_handlers[] = {{"piece", on_piece_run}};
	const struct ty_class piece_class = {.name = "piece", .state_size = sizeof(struct woken *), .first_type = HOP,
		.type_count = 1, .handlers = piece_handlers, .start = woken_start, .refuse = refuses ? woken_refuse : NULL};
	struct ty_runtime_options options = {.size = sizeof options, .seed = 1};
	struct piece pieces[6] = {0};
	struct woken woken = {0};
	struct ty_runtime_stats stats;
	struct ty_stop_report report;
	struct ty_runtime *rt;
	struct ty_actor *actor;

	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	actor = spawn(rt, &piece_class, &woken, TY_POOL);
	for (int i = 0; i < 2; i++)
		assert_int_equal(piece_send(actor, &pieces[i]), TY_OK);
	for (int i = 2; i < 5; i++)
		assert_int_equal(ty_send_typed(actor, &pieces[i].msg, HOP, 8), TY_OK);
	assert_int_equal(ty_send(actor, &pieces[5].msg, HOP + 1), TY_OK);
	assert_int_equal(ty_runtime_stop(rt, TY_NEVER, TY_NEVER, &report), TY_OK);
	assert_int_equal(woken.handled, 2);
	assert_int_equal(woken.refused, refuses ? 4 : 0);
	assert_int_equal(report.handled, 5);
	assert_int_equal(report.returned, refuses ? 1 : 0);
	assert_int_equal(report.dropped, refuses ? 0 : 1);
	ty_runtime_stats(rt, &stats);
	assert_int_equal(stats.messages, 5);
	assert_int_equal(stats.misfits, 4);
	assert_int_equal(stats.refused, 4);
	assert_int_equal(stats.dropped, refuses ? 0 : 4);
	ty_actor_unref(actor);
	ty_runtime_destroy(rt);
}

static void test_misfits_in_the_report(void **unused)
{
	(void)unused;
	misfits_in_the_report(true);
	misfits_in_the_report(false);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_message_is_accounted_for),
		cmocka_unit_test(test_the_same_on_threads),
		cmocka_unit_test(test_put_off),
		cmocka_unit_test(test_put_off_for_ever),
		cmocka_unit_test(test_cut_are_those_that_live),
		cmocka_unit_test(test_cut_while_it_is_asked),
		cmocka_unit_test(test_stuck),
		cmocka_unit_test(test_port_outlasts_the_actors),
		cmocka_unit_test(test_supervisor_cut_short),
		cmocka_unit_test(test_what_wakes_one_that_is_cut),
		cmocka_unit_test(test_misfits_in_the_report),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
