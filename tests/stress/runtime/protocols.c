/* SPDX-License-Identifier: Apache-2.0
 *
 * The protocols between actors, on all threads at once: requests that are answered, kept, forwarded, late, or
 * whose ends die. What must hold: every request that was asked is answered at most once; its
 * memory comes back exactly once, whoever of the two is last.
 *
 * protocols [ticks per actor]
 */
#include <stdio.h>
#include <stdlib.h>

#include "../../unit/runtime/runtime_test.h"

#define NODES 12
#define US INT64_C(1000)

enum { QUESTION = 1, ANSWER, TICK, UNKNOWN = 99 };

struct world {
	struct ty_actor *nodes[NODES];
	_Atomic(uint64_t) asked, closed, answered, timed_out, refused, back, failures;
	uint64_t ticks;
	struct gate started, go, finished;
};

struct question {
	struct ty_request request;
	struct world *world;
	struct question *next;        /* the receiver's */
	bool answered;                /* the requester's */
	uint64_t written_by_receiver; /* plain, so that ThreadSanitizer sees the hand-over */
};

struct node {
	struct world *world;
	struct ty_timer tick;
	struct question *kept;
	uint64_t random, ticks;
};

static void add(_Atomic(uint64_t) *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static void check(struct world *world, bool ok, const char *what)
{
	if (!ok && atomic_fetch_add(&world->failures, 1) < 10)
		fprintf(stderr, "protocols: %s\n", what);
}

static uint32_t draw(struct node *node, uint32_t below)
{
	node->random = node->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (uint32_t)(node->random >> 33) % below;
}

static void on_release(struct ty_request *request)
{
	struct question *q = ty_container_of(request, struct question, request);

	add(&q->world->back);
	free(q);
}

static void ask(struct node *node)
{
	struct world *world = node->world;
	struct question *q = calloc(1, sizeof *q);
	int64_t deadline = draw(node, 4) ? ty_now() + draw(node, 200) * US : TY_NEVER;
	uint32_t type = draw(node, 50) ? QUESTION : UNKNOWN;

	q->world = world;
	q->request.release = on_release;
	if (ty_ask(world->nodes[draw(node, NODES)], &q->request, type, ANSWER, deadline) == TY_OK) {
		add(&world->asked);
	} else {
		add(&world->closed);
		free(q);
	}
}

static void reply(struct question *q)
{
	q->written_by_receiver++;
	ty_reply(&q->request, TY_OK);
}

static enum ty_code on_start(void *self, void *arg)
{
	struct node *node = self;

	node->world = arg;
	node->random = (uintptr_t)self;
	ty_timer_start(&node->tick, TICK, ty_now());
	gate_open(&node->world->started);
	return TY_OK;
}

static void on_tick(void *self, struct ty_msg *msg)
{
	struct node *node = self;

	(void)msg;
	if (!gate_is_open(&node->world->go)) { /* it does not know the others yet */
		ty_timer_start(&node->tick, TICK, ty_now() + 50 * US);
		return;
	}
	for (uint32_t n = draw(node, 8); n; n--)
		ask(node);
	while (node->kept && draw(node, 6)) {
		struct question *q = node->kept;

		node->kept = q->next;
		reply(q);
	}
	if (++node->ticks < node->world->ticks) {
		ty_timer_start(&node->tick, TICK, ty_now() + draw(node, 60) * US);
		return;
	}
	gate_open(&node->world->finished);
	if (draw(node, 2)) /* half of them while others still ask */
		ty_actor_stop(ty_self());
}

static void on_question(void *self, struct ty_msg *msg)
{
	struct node *node = self;
	struct question *q = ty_container_of(ty_request_of(msg), struct question, request);

	q->written_by_receiver++;
	switch (draw(node, 4)) {
	case 0:
		q->next = node->kept;
		node->kept = q;
		return;
	case 1:
		if (ty_forward(node->world->nodes[draw(node, NODES)], &q->request, QUESTION) == TY_OK)
			return;
		break;
	default:
		break;
	}
	reply(q);
}

static void take(struct node *node, struct question *q)
{
	check(node->world, !q->answered, "answered twice");
	q->answered = true;
	if (q->request.code == TY_TIMEOUT)
		add(&node->world->timed_out);
	if (ty_request_home(&q->request))
		q->written_by_receiver = 0; /* it is ours */
	ty_request_release(&q->request);
}

static void on_answer(void *self, struct ty_msg *msg)
{
	struct node *node = self;

	add(&node->world->answered);
	take(node, ty_container_of(ty_request_of_reply(msg), struct question, request));
}

static void on_refuse(void *self, struct ty_msg *msg)
{
	struct node *node = self;

	check(node->world, msg->type == ANSWER, "a request was refused");
	add(&node->world->refused);
	take(node, ty_container_of(ty_request_of_reply(msg), struct question, request));
}

static void on_stop(void *self)
{
	struct node *node = self;

	while (node->kept) {
		struct question *q = node->kept;

		node->kept = q->next;
		reply(q);
	}
	ask(node); /* nobody will be there to be answered */
}

static const struct ty_handler handlers[] = {{"question", on_question}, {"answer", on_answer}, {"tick", on_tick}};
static const struct ty_class node_class = {.name = "node", .state_size = sizeof(struct node), .first_type = QUESTION,
	.type_count = 3, .handlers = handlers, .start = on_start, .stop = on_stop, .refuse = on_refuse};

int main(int argc, char **argv)
{
	struct ty_runtime_options options = {.size = sizeof options, .workers = 4, .budget_messages = 8};
	static struct world world;
	struct ty_runtime *rt;

	world.ticks = argc > 1 ? strtoull(argv[1], NULL, 10) : 2000;
	if (ty_runtime_create(&options, &rt, NULL) != TY_OK)
		return 1;
	for (int i = 0; i < NODES; i++)
		world.nodes[i] = spawn(rt, &node_class, &world, i % 4 == 3 ? TY_DEDICATED : TY_POOL);
	gate_wait_for(&world.started, NODES);
	gate_open(&world.go);
	gate_wait_for(&world.finished, NODES);
	ty_runtime_destroy(rt);
	for (int i = 0; i < NODES; i++)
		ty_actor_unref(world.nodes[i]);
	check(&world, world.asked == world.back, "a request did not come back");
	check(&world, world.answered + world.refused <= world.asked, "more answers than questions");
	check(&world, world.timed_out > 0 && world.answered > world.timed_out && world.closed > 0, "too little happened");
	printf("asked %llu = back %llu; answered %llu (%llu by the deadline), refused %llu; closed %llu\n",
		(unsigned long long)world.asked, (unsigned long long)world.back, (unsigned long long)world.answered,
		(unsigned long long)world.timed_out, (unsigned long long)world.refused, (unsigned long long)world.closed);
	return world.failures != 0;
}
