/* SPDX-License-Identifier: Apache-2.0
 *
 * The protocols between actors, on all threads at once: requests that are answered, kept, forwarded, late, or
 * whose ends die; monitors of children that end, by every path, while they are watched, unwatched, or their
 * watcher dies. What must hold: every request that was asked is answered at most once; its memory comes back
 * exactly once, whoever of the two is last; every monitor ends in one DOWN or one release; a DOWN comes
 * after all that the child sent.
 *
 * protocols [ticks per actor]
 */
#include <stdio.h>
#include <stdlib.h>

#include "../../unit/runtime/runtime_test.h"

#define NODES 12
#define US INT64_C(1000)

enum { QUESTION = 1, ANSWER, TICK, LETTER, DOWN, UNKNOWN = 99 };

struct world {
	struct ty_actor *nodes[NODES];
	_Atomic(uint64_t) asked, closed, answered, timed_out, refused, back, failures;
	_Atomic(uint64_t) watched, downs, released;
	struct ty_runtime *rt;
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

/* ---- children, which are watched ----------------------------------------------------------- */

struct eye {
	struct ty_monitor monitor;
	struct world *world;
	struct ty_actor *parent;
	_Atomic(uint32_t) refs; /* the watcher's, the child's, one a letter */
	uint32_t sent;          /* the child's, read at the DOWN: plain, so that ThreadSanitizer sees the order */
	uint32_t seen;          /* the parent's */
	bool cancelled, link;   /* likewise */
	enum ty_code fails;     /* how the child is to end */
};

struct letter {
	struct ty_msg msg;
	struct eye *eye;
};

struct child {
	struct eye *eye;
};

static void eye_unref(struct eye *eye)
{
	if (atomic_fetch_sub_explicit(&eye->refs, 1, memory_order_acq_rel) == 1) {
		ty_actor_unref(eye->parent);
		free(eye);
	}
}

static void on_eye_release(struct ty_monitor *monitor)
{
	struct eye *eye = ty_container_of(monitor, struct eye, monitor);

	add(&eye->world->released);
	eye_unref(eye);
}

static void write_to_parent(struct child *child)
{
	struct eye *eye = child->eye;
	struct letter *letter = calloc(1, sizeof *letter);

	letter->eye = eye;
	atomic_fetch_add_explicit(&eye->refs, 1, memory_order_relaxed);
	if (ty_send(eye->parent, &letter->msg, LETTER) == TY_OK) {
		eye->sent++;
	} else {
		free(letter);
		eye_unref(eye);
	}
}

static enum ty_code child_start(void *self, void *arg)
{
	struct child *child = self;

	child->eye = arg;
	write_to_parent(child);
	if (child->eye->fails == TY_DENIED)
		return TY_DENIED;
	if (child->eye->fails != TY_OK)
		ty_actor_fail(child->eye->fails);
	return TY_OK;
}

static void child_stop(void *self)
{
	struct child *child = self;

	for (volatile int i = 0; i < 2000; i++) /* the mailbox is closed, the child not over: have the parent watch now */
		;
	write_to_parent(child);
	eye_unref(child->eye);
}

static const struct ty_class child_class = {.name = "child", .state_size = sizeof(struct child), .start = child_start,
	.stop = child_stop};

static void raise_child(struct node *node)
{
	static const enum ty_code ends[] = {TY_OK, TY_OK, TY_DENIED, TY_IO};
	struct ty_spawn_options options = {.size = sizeof options, .cpu = -1};
	struct eye *eye = calloc(1, sizeof *eye);
	struct ty_actor *child;
	uint32_t spins = draw(node, 3000);
	enum ty_code code;

	eye->world = node->world;
	eye->parent = ty_actor_ref(ty_self());
	eye->monitor.release = on_eye_release;
	eye->fails = ends[draw(node, 4)];
	eye->link = eye->fails == TY_OK && draw(node, 4) == 0; /* a link that is never pulled */
	atomic_init(&eye->refs, 2);
	options.executor = draw(node, 16) ? TY_POOL : TY_DEDICATED;
	code = ty_spawn(eye->world->rt, &child_class, eye, &options, &child);
	if (code != TY_OK) {
		check(eye->world, code == TY_STOPPING, "a spawn failed otherwise");
		eye_unref(eye);
		eye_unref(eye);
		return;
	}
	if (draw(node, 2))
		ty_actor_stop(child);
	for (volatile uint32_t i = 0; i < spins; i++)
		; /* let it come as far as it may */
	add(&eye->world->watched);
	if (eye->link)
		ty_link(child, &eye->monitor);
	else
		ty_monitor(child, &eye->monitor, DOWN);
	if (draw(node, 4) == 0) {
		eye->cancelled = true;
		ty_demonitor(&eye->monitor);
	}
	ty_actor_stop(child);
	ty_actor_unref(child);
}

static void take_letter(struct ty_msg *msg)
{
	struct letter *letter = ty_container_of(msg, struct letter, msg);

	letter->eye->seen++;
	eye_unref(letter->eye);
	free(letter);
}

static void on_letter(void *self, struct ty_msg *msg)
{
	(void)self;
	take_letter(msg);
}

static void on_down(void *self, struct ty_msg *msg)
{
	struct node *node = self;
	struct eye *eye = ty_container_of(msg, struct eye, monitor.msg);

	check(node->world, !eye->cancelled && !eye->link, "a DOWN that nobody wanted");
	check(node->world, eye->seen == eye->sent, "a DOWN overtook a message");
	check(node->world, eye->monitor.reason == eye->fails || eye->monitor.reason == TY_OK, "another reason");
	add(&node->world->downs);
	eye_unref(eye);
}

/* ---- nodes --------------------------------------------------------------------------------- */

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
	if (draw(node, 4) == 0)
		raise_child(node);
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

	if (msg->type == LETTER) {
		take_letter(msg);
		return;
	}
	check(node->world, msg->type == ANSWER, "something else was refused");
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

static const struct ty_handler handlers[] = {{"question", on_question}, {"answer", on_answer}, {"tick", on_tick},
	{"letter", on_letter}, {"down", on_down}};
static const struct ty_class node_class = {.name = "node", .state_size = sizeof(struct node), .first_type = QUESTION,
	.type_count = 5, .handlers = handlers, .start = on_start, .stop = on_stop, .refuse = on_refuse};

int main(int argc, char **argv)
{
	struct ty_runtime_options options = {.size = sizeof options, .workers = 4, .budget_messages = 8};
	static struct world world;

	world.ticks = argc > 1 ? strtoull(argv[1], NULL, 10) : 2000;
	if (ty_runtime_create(&options, &world.rt, NULL) != TY_OK)
		return 1;
	for (int i = 0; i < NODES; i++)
		world.nodes[i] = spawn(world.rt, &node_class, &world, i % 4 == 3 ? TY_DEDICATED : TY_POOL);
	gate_wait_for(&world.started, NODES);
	gate_open(&world.go);
	gate_wait_for(&world.finished, NODES);
	ty_runtime_destroy(world.rt);
	for (int i = 0; i < NODES; i++)
		ty_actor_unref(world.nodes[i]);
	check(&world, world.asked == world.back, "a request did not come back");
	check(&world, world.answered + world.refused <= world.asked, "more answers than questions");
	check(&world, world.watched == world.downs + world.released, "a monitor did not come back");
	check(&world, world.timed_out > 0 && world.answered > world.timed_out && world.closed > 0, "too little happened");
	printf("asked %llu = back %llu; answered %llu (%llu by the deadline), refused %llu; closed %llu\n",
		(unsigned long long)world.asked, (unsigned long long)world.back, (unsigned long long)world.answered,
		(unsigned long long)world.timed_out, (unsigned long long)world.refused, (unsigned long long)world.closed);
	printf("watched %llu = DOWN %llu + released %llu\n", (unsigned long long)world.watched,
		(unsigned long long)world.downs, (unsigned long long)world.released);
	return world.failures != 0;
}
