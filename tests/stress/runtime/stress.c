/* SPDX-License-Identifier: Apache-2.0
 *
 * Everything at once: actors on the pool, on threads of their own, and with their own way of waiting,
 * send to each other and are sent to by foreign threads; they start and cancel timers, spawn children,
 * and are stopped under way. What must hold:
 *
 *   - every message that ty_send took is handled or refused, once (sent = handled + refused, of each type);
 *   - messages from one sender to one receiver arrive in the order sent, those refused at the end too;
 *   - no two threads are in one actor;
 *   - a timer that was cancelled or replaced never arrives, and none arrives early;
 *   - wake is never called after stop;
 *   - nobody sleeps while there is work (the test would not end).
 *
 * stress [messages per thread]
 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "../../unit/runtime/runtime_test.h"

#define ACTORS 16
#define THREADS 3
#define SENDERS (ACTORS + THREADS)
#define HOPS 4
#define US INT64_C(1000)

enum { WORK = 1, TICK, CHILD_WORK, TYPE_END };

/* Of a type. */
struct account {
	_Atomic(uint64_t) sent, handled, refused;
};

struct work {
	struct ty_msg msg;
	uint32_t from, to, hops;
	uint64_t order; /* among what `from` sent to `to` with the same urgency */
	bool urgent;
};

struct world {
	struct ty_runtime *rt;
	struct ty_actor *actors[ACTORS];
	struct account work, child_work;
	_Atomic(uint64_t) closed, ticks, children, children_stopped, wakes;
	_Atomic(uint64_t) failures;
	uint64_t messages;
	struct gate ready;
};

/* What a sender knows; an actor's is in its state. */
struct sender {
	struct world *world;
	uint32_t index;
	uint64_t random;
	uint64_t order[ACTORS][2];
};

struct node {
	struct sender sender;
	_Atomic(uint32_t) inside;
	_Atomic(int) event; /* class with a wait of its own; -1: closed */
	uint64_t seen[SENDERS][2];
	struct ty_timer timer;
	bool armed;
	int64_t deadline;
};

static void check(struct world *world, bool ok, const char *what)
{
	if (!ok && atomic_fetch_add(&world->failures, 1) < 10)
		fprintf(stderr, "stress: %s\n", what);
}

static uint32_t draw(struct sender *s, uint32_t below)
{
	s->random ^= s->random << 13;
	s->random ^= s->random >> 7;
	s->random ^= s->random << 17;
	return (uint32_t)(s->random % below);
}

/* The message is gone afterwards, one way or the other. */
static void pass_on(struct sender *s, struct work *work)
{
	uint32_t to = draw(s, ACTORS);
	bool urgent = draw(s, 8) == 0;
	enum ty_code code;

	work->from = s->index;
	work->to = to;
	work->urgent = urgent;
	work->order = s->order[to][urgent]++;
	code = urgent ? ty_send_urgent(s->world->actors[to], &work->msg, WORK)
		      : ty_send(s->world->actors[to], &work->msg, WORK);
	if (code == TY_OK) {
		atomic_fetch_add_explicit(&s->world->work.sent, 1, memory_order_relaxed);
		return;
	}
	check(s->world, code == TY_CLOSED, "a send failed otherwise");
	s->order[to][urgent]--;
	atomic_fetch_add_explicit(&s->world->closed, 1, memory_order_relaxed);
	free(work);
}

/* ---- children: short lives ----------------------------------------------------------------- */

struct child {
	struct world *world;
};

static enum ty_code child_start(void *self, void *arg)
{
	((struct child *)self)->world = arg;
	return TY_OK;
}

static void child_done(void *self, struct ty_msg *msg)
{
	struct child *c = self;

	atomic_fetch_add_explicit(&c->world->child_work.handled, 1, memory_order_relaxed);
	free(ty_container_of(msg, struct work, msg));
}

/* When destroy finds the child before its first message is sent. */
static void child_refuse(void *self, struct ty_msg *msg)
{
	struct child *c = self;

	atomic_fetch_add_explicit(&c->world->child_work.refused, 1, memory_order_relaxed);
	free(ty_container_of(msg, struct work, msg));
}

static void child_stop(void *self)
{
	struct child *c = self;

	atomic_fetch_add_explicit(&c->world->children_stopped, 1, memory_order_relaxed);
}

static const struct ty_handler child_handlers[] = {{"child work", child_done}};
static const struct ty_class child_class = {
	.name = "child",
	.state_size = sizeof(struct child),
	.first_type = CHILD_WORK,
	.type_count = 1,
	.handlers = child_handlers,
	.start = child_start,
	.stop = child_stop,
	.refuse = child_refuse,
};

static void bear_child(struct sender *s)
{
	struct ty_spawn_options options = {.size = sizeof options, .cpu = -1};
	struct work *work = calloc(1, sizeof *work);
	struct ty_actor *child;
	enum ty_code code;

	options.executor = draw(s, 16) == 0 ? TY_DEDICATED : TY_POOL;
	code = ty_spawn(s->world->rt, &child_class, s->world, &options, &child);
	if (code != TY_OK) {
		check(s->world, code == TY_STOPPING, "a spawn failed otherwise");
		free(work);
		return;
	}
	atomic_fetch_add_explicit(&s->world->children, 1, memory_order_relaxed);
	if (ty_send(child, &work->msg, CHILD_WORK) == TY_OK) {
		atomic_fetch_add_explicit(&s->world->child_work.sent, 1, memory_order_relaxed);
	} else { /* destroy was faster */
		atomic_fetch_add_explicit(&s->world->closed, 1, memory_order_relaxed);
		free(work);
	}
	ty_actor_stop(child);
	ty_actor_unref(child);
}

/* ---- nodes --------------------------------------------------------------------------------- */

static void enter(struct node *node)
{
	check(node->sender.world, atomic_fetch_add_explicit(&node->inside, 1, memory_order_relaxed) == 0,
		"two threads in one actor");
}

static void leave(struct node *node)
{
	atomic_fetch_sub_explicit(&node->inside, 1, memory_order_relaxed);
}

static enum ty_code node_start(void *self, void *arg)
{
	struct node *node = self;

	enter(node);
	node->sender = *(struct sender *)arg;
	gate_open(&node->sender.world->ready);
	leave(node);
	return TY_OK;
}

static enum ty_code event_start(void *self, void *arg)
{
	struct node *node = self;

	atomic_store_explicit(&node->event, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), memory_order_relaxed);
	return node_start(self, arg);
}

static void seen(struct node *node, struct work *work)
{
	check(node->sender.world, work->order == node->seen[work->from][work->urgent]++, "out of order");
	check(node->sender.world, work->to == node->sender.index, "at the wrong actor");
}

static void play_with_timer(struct node *node)
{
	if (draw(&node->sender, 2)) {
		node->deadline = ty_now() + draw(&node->sender, 300) * US;
		ty_timer_start(&node->timer, TICK, node->deadline);
		node->armed = true;
	} else {
		ty_timer_cancel(&node->timer);
		node->armed = false;
	}
}

static void on_work(void *self, struct ty_msg *msg)
{
	struct node *node = self;
	struct work *work = ty_container_of(msg, struct work, msg);

	enter(node);
	seen(node, work);
	atomic_fetch_add_explicit(&node->sender.world->work.handled, 1, memory_order_relaxed);
	if (draw(&node->sender, 4) == 0)
		play_with_timer(node);
	if (draw(&node->sender, 200) == 0)
		bear_child(&node->sender);
	if (work->hops--)
		pass_on(&node->sender, work);
	else
		free(work);
	leave(node);
}

static void on_tick(void *self, struct ty_msg *msg)
{
	struct node *node = self;

	enter(node);
	check(node->sender.world, msg == &node->timer.msg && node->armed, "a cancelled timer came");
	check(node->sender.world, ty_now() >= node->deadline, "a timer came early");
	node->armed = false;
	atomic_fetch_add_explicit(&node->sender.world->ticks, 1, memory_order_relaxed);
	leave(node);
}

static void node_refuse(void *self, struct ty_msg *msg)
{
	struct node *node = self;
	struct work *work = ty_container_of(msg, struct work, msg);

	enter(node);
	seen(node, work);
	atomic_fetch_add_explicit(&node->sender.world->work.refused, 1, memory_order_relaxed);
	free(work);
	leave(node);
}

static void event_stop(void *self)
{
	struct node *node = self;

	close(atomic_exchange_explicit(&node->event, -1, memory_order_relaxed));
}

static void event_wait(void *self, int64_t deadline)
{
	struct node *node = self;
	int event = atomic_load_explicit(&node->event, memory_order_relaxed);
	struct pollfd fd = {.fd = event, .events = POLLIN};
	struct timespec timeout;
	uint64_t count;

	if (deadline != TY_NEVER) {
		int64_t left = deadline - ty_now();

		left = left < 0 ? 0 : left;
		timeout = (struct timespec){.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
	}
	ppoll(&fd, 1, deadline == TY_NEVER ? NULL : &timeout, NULL);
	if (read(event, &count, sizeof count) < 0)
		count = 0;
}

static void event_wake(void *self)
{
	struct node *node = self;
	int event = atomic_load_explicit(&node->event, memory_order_relaxed);
	uint64_t one = 1;

	check(node->sender.world, event >= 0, "woken after its stop");
	check(node->sender.world, write(event, &one, sizeof one) == sizeof one, "eventfd");
	atomic_fetch_add_explicit(&node->sender.world->wakes, 1, memory_order_relaxed);
}

/* A little work of its own, now and then at once. */
static int64_t node_poll(void *self, int64_t now)
{
	struct node *node = self;
	uint32_t what;

	enter(node);
	what = draw(&node->sender, 10);
	leave(node);
	return what == 0 ? now : what < 5 ? now + 200 * US : TY_NEVER;
}

static const struct ty_handler node_handlers[] = {{"work", on_work}, {"tick", on_tick}};
#define NODE(NAME)                                                                                             \
	.name = NAME, .state_size = sizeof(struct node), .first_type = WORK, .type_count = 2,                  \
	.handlers = node_handlers, .refuse = node_refuse

static const struct ty_class classes[] = {
	{NODE("pooled"), .start = node_start},
	{NODE("own thread"), .start = node_start},
	{NODE("polling"), .start = node_start, .poll = node_poll},
	{NODE("own wait"), .start = event_start, .stop = event_stop, .wait = {event_wait, event_wake}},
};

/* Of 16: 11 pooled, 2 on threads, 1 polling, 2 with a wait of their own. */
static const uint8_t class_of[ACTORS] = {0, 0, 0, 1, 0, 0, 3, 0, 0, 2, 0, 0, 1, 0, 3, 0};

static void *foreign(void *arg)
{
	struct sender *s = arg;

	for (uint64_t i = 0; i < s->world->messages; i++) {
		struct work *work = calloc(1, sizeof *work);

		work->hops = draw(s, HOPS + 1);
		pass_on(s, work);
		if (draw(s, 500) == 0) /* let them go to sleep */
			nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
		if (i == s->world->messages / 2) /* one of each kind ends early */
			ty_actor_stop(s->world->actors[(s->index - ACTORS) * 3]);
	}
	return NULL;
}

static void settle(struct world *world, struct account *account, const char *what)
{
	check(world, account->sent == account->handled + account->refused, what);
	printf("%s: sent %llu = handled %llu + refused %llu\n", what, (unsigned long long)account->sent,
		(unsigned long long)account->handled, (unsigned long long)account->refused);
}

int main(int argc, char **argv)
{
	struct ty_runtime_options options = {.size = sizeof options, .workers = 4, .budget_messages = 8};
	static struct world world;
	static struct sender senders[SENDERS];
	struct ty_runtime_stats stats;
	pthread_t threads[THREADS];

	world.messages = argc > 1 ? strtoull(argv[1], NULL, 10) : 20000;
	if (ty_runtime_create(&options, &world.rt, NULL) != TY_OK)
		return 1;
	for (uint32_t i = 0; i < SENDERS; i++)
		senders[i] = (struct sender){.world = &world, .index = i, .random = 88172645463325252u + i * 7919u};
	for (uint32_t i = 0; i < ACTORS; i++) {
		struct ty_spawn_options spawn_options = {
			.size = sizeof spawn_options, .executor = class_of[i] ? TY_DEDICATED : TY_POOL, .cpu = -1};

		if (ty_spawn(world.rt, &classes[class_of[i]], &senders[i], &spawn_options, &world.actors[i]) != TY_OK)
			return 1;
	}
	gate_wait_for(&world.ready, ACTORS); /* each knows all the others */
	for (int i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, foreign, &senders[ACTORS + i]);
	for (int i = 0; i < 50; i++) { /* readers from outside */
		struct ty_running running = ty_runtime_longest(world.rt);

		check(&world, !running.actor || strlen(running.message) > 0, "nameless");
		ty_runtime_stats(world.rt, &stats);
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	ty_runtime_stats(world.rt, &stats);
	ty_runtime_destroy(world.rt);
	for (uint32_t i = 0; i < ACTORS; i++) /* addresses outlive even the runtime */
		ty_actor_unref(world.actors[i]);
	settle(&world, &world.work, "work");
	settle(&world, &world.child_work, "child work");
	check(&world, world.children == world.children_stopped, "a child did not stop");
	printf("closed %llu, ticks %llu, children %llu, own wakes %llu\n", (unsigned long long)world.closed,
		(unsigned long long)world.ticks, (unsigned long long)world.children, (unsigned long long)world.wakes);
	printf("before the end: runs %llu, exhausted %llu, steals %llu, parks %llu, wakes %llu, timers %llu\n",
		(unsigned long long)stats.runs, (unsigned long long)stats.exhausted, (unsigned long long)stats.steals,
		(unsigned long long)stats.parks, (unsigned long long)stats.wakes, (unsigned long long)stats.timers);
	return world.failures != 0;
}
