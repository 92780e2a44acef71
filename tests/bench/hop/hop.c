/* SPDX-License-Identifier: Apache-2.0
 *
 * What a message costs: hop [messages]
 *
 *   pingpong   two actors on one worker, one message to and fro: ns a hop
 *   ring       100 actors on one worker, one message round and round: ns a hop
 *   counting   the program's thread sends, one actor counts: ns a message
 *   threads    two dedicated actors, one message to and fro: ns a hop, wake-ups included
 *   timer      an actor starts and cancels a timer: ns for both
 *   request    one actor asks another on the same worker, which answers: ns a question, with a deadline that never comes
 *   name       an actor is found by its name: ns
 *   credit     taken and given back: ns for both
 *   block      taken and freed by one actor: ns for both
 *   monitor    an actor is spawned, watched, stopped, heard of: ns for all
 *   restart    a child fails as it starts, its supervisor hears of it and spawns another: ns for all
 *   event      the flight recorder writes an event that bears a stamp it has already, as a worker's send does: ns
 *   stamped    the same with a reading of the CPU's counter
 *
 * Every case checks its result. Prints the median and the best of five rounds, and the CPU time of the whole program
 * in the cheapest round, which other programs on the machine hardly change.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <tyer/actor.h>

#include "runtime/record.h"
#include "runtime/ticks.h"

#define ROUNDS 5
#define RING 100

enum { HOP = 1, COUNT, TIMER, ASK, ASKED, ANSWER, FIND, CREDIT, BLOCK, WATCH, DOWN, TYPE_END, EVENT, STAMPED, RESTART };

struct hop {
	struct ty_msg msg;
	uint64_t left;
};

struct link {
	struct ty_actor *next;
	uint64_t counted, expected;
	struct ty_timer timer;
	struct ty_request request;
	struct ty_monitor monitor;
	struct ty_actor *child;
};

static struct ty_runtime *rt;

static _Atomic(int) done;

static void must(enum ty_code code)
{
	if (code != TY_OK) {
		fprintf(stderr, "hop: %s\n", ty_code_name(code));
		exit(1);
	}
}

static enum ty_code on_start(void *self, void *arg)
{
	*(struct link **)arg = self; /* main sets next before it sends */
	atomic_fetch_add_explicit(&done, 1, memory_order_release);
	return TY_OK;
}

static void on_hop(void *self, struct ty_msg *msg)
{
	struct link *link = self;
	struct hop *hop = ty_container_of(msg, struct hop, msg);

	if (hop->left-- == 0)
		atomic_fetch_add_explicit(&done, 1, memory_order_release);
	else
		must(ty_send(link->next, msg, HOP));
}

static void on_count(void *self, struct ty_msg *msg)
{
	struct link *link = self;

	(void)msg;
	if (++link->counted == link->expected)
		atomic_fetch_add_explicit(&done, 1, memory_order_release);
}

static void on_timer(void *self, struct ty_msg *msg)
{
	struct link *link = self;
	struct hop *hop = ty_container_of(msg, struct hop, msg);
	int64_t later = ty_now() + INT64_C(3600000000000);

	for (; hop->left; hop->left--) {
		ty_timer_start(&link->timer, COUNT, later);
		ty_timer_cancel(&link->timer);
	}
	atomic_fetch_add_explicit(&done, 1, memory_order_release);
}

static void finished(void)
{
	atomic_fetch_add_explicit(&done, 1, memory_order_release);
}

static void ask(struct link *link)
{
	must(ty_ask(link->next, &link->request, ASKED, ANSWER, ty_now() + INT64_C(3600000000000)));
}

static void on_ask(void *self, struct ty_msg *msg)
{
	struct link *link = self;

	link->expected = ty_container_of(msg, struct hop, msg)->left;
	ask(link);
}

static void on_asked(void *self, struct ty_msg *msg)
{
	(void)self;
	ty_reply(ty_request_of(msg), TY_OK);
}

static void on_answer(void *self, struct ty_msg *msg)
{
	struct link *link = self;

	must(ty_request_of_reply(msg)->code);
	if (++link->counted < link->expected)
		ask(link);
	else
		finished();
}

static void on_find(void *self, struct ty_msg *msg)
{
	struct hop *hop = ty_container_of(msg, struct hop, msg);

	(void)self;
	must(ty_name(ty_self(), "found"));
	for (; hop->left; hop->left--) {
		struct ty_actor *found;

		must(ty_find(rt, "found", &found));
		ty_actor_unref(found);
	}
	must(ty_unname(rt, "found"));
	finished();
}

static void on_credit(void *self, struct ty_msg *msg)
{
	struct hop *hop = ty_container_of(msg, struct hop, msg);
	struct ty_credits credits;

	(void)self;
	must(ty_credits_init(&credits, 100, 1000));
	for (; hop->left; hop->left--) {
		must(ty_credits_take(&credits, 10));
		ty_credits_give(&credits, 10);
	}
	finished();
}

static void on_block(void *self, struct ty_msg *msg)
{
	struct hop *hop = ty_container_of(msg, struct hop, msg);

	(void)self;
	for (; hop->left; hop->left--) {
		void *block;

		must(ty_block_new(100, &block));
		ty_block_free(block);
	}
	finished();
}

static const struct ty_class mortal = {.name = "mortal"};

static void bear(struct link *link)
{
	must(ty_spawn(rt, &mortal, NULL, NULL, &link->child));
	ty_monitor(link->child, &link->monitor, DOWN);
	ty_actor_stop(link->child);
}

static void on_watch(void *self, struct ty_msg *msg)
{
	struct link *link = self;

	link->expected = ty_container_of(msg, struct hop, msg)->left;
	bear(link);
}

static void on_down(void *self, struct ty_msg *msg)
{
	struct link *link = self;

	(void)msg;
	ty_actor_unref(link->child);
	if (++link->counted < link->expected)
		bear(link);
	else
		finished();
}

static const struct ty_handler handlers[] = {{"hop", on_hop}, {"count", on_count}, {"timer", on_timer}, {"ask", on_ask},
	{"asked", on_asked}, {"answer", on_answer}, {"find", on_find}, {"credit", on_credit}, {"block", on_block},
	{"watch", on_watch}, {"down", on_down}};
static const struct ty_class cls = {
	.name = "link",
	.state_size = sizeof(struct link),
	.first_type = HOP,
	.type_count = TYPE_END - HOP,
	.handlers = handlers,
	.start = on_start,
};

static void wait_done(int count)
{
	/* asleep, so that what is measured has the CPU */
	while (atomic_load_explicit(&done, memory_order_acquire) < count)
		nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
	atomic_store_explicit(&done, 0, memory_order_relaxed);
}

static int64_t clock_ns(clockid_t id)
{
	struct timespec now;

	clock_gettime(id, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

struct bench {
	const char *name;
	uint32_t actors;
	enum ty_executor executor;
	uint32_t type;
	uint64_t share; /* messages: the argument divided by this */
};

static int64_t run_counting(struct ty_actor *actor, struct link *link, uint64_t messages)
{
	struct hop *hops = calloc(messages, sizeof *hops);
	int64_t began;

	if (!hops)
		exit(1);
	link->expected = messages;
	began = clock_ns(CLOCK_MONOTONIC);
	for (uint64_t i = 0; i < messages; i++)
		must(ty_send(actor, &hops[i].msg, COUNT));
	wait_done(1);
	began = clock_ns(CLOCK_MONOTONIC) - began;
	if (link->counted != messages)
		exit(1);
	free(hops);
	return began;
}

/* What the ring holds afterwards must be what was written last. */
static int64_t run_events(bool stamped, uint64_t events)
{
	struct ty_ring *ring = calloc(1, sizeof *ring);
	struct ty_event *out = calloc(TY_RING_EVENTS, sizeof *out);
	bool counter = ty_counter_steady();
	uint64_t stamp = 1;
	int64_t began;
	uint32_t n;

	if (!ring || !out)
		exit(1);
	began = clock_ns(CLOCK_MONOTONIC);
	for (uint64_t i = 0; i < events; i++) {
		if (stamped)
			stamp = counter ? ty_counter() : (uint64_t)clock_ns(CLOCK_MONOTONIC);
		ty_ring_write(ring, TY_EVENT_SEND, stamp, i, 0, NULL, i);
	}
	began = clock_ns(CLOCK_MONOTONIC) - began;
	n = ty_ring_read(ring, out);
	if (!n || out[n - 1].msg != events - 1 || out[n - 1].when != stamp)
		exit(1);
	free(ring);
	free(out);
	return began;
}

/* A child that fails to start as often as it is told. */
static enum ty_code failing_start(void *self, void *arg)
{
	uint64_t *left = arg;

	(void)self;
	if ((*left)--)
		return TY_IO;
	finished();
	return TY_OK;
}

static int64_t run_restarts(uint64_t restarts)
{
	static const struct ty_class failing = {.name = "failing", .start = failing_start};
	struct ty_runtime_options options = {.size = sizeof options, .workers = 1};
	struct ty_child child = {.cls = &failing, .arg = &restarts};
	struct ty_supervisor_options supervised = {.size = sizeof supervised, .children = &child, .child_count = 1,
		.max_restarts = 1}; /* in no time: as many as there are */
	struct ty_actor *supervisor;
	int64_t took;

	must(ty_runtime_create(&options, &supervised.rt, NULL));
	took = clock_ns(CLOCK_MONOTONIC);
	must(ty_spawn(supervised.rt, ty_supervisor(), &supervised, NULL, &supervisor));
	wait_done(1);
	took = clock_ns(CLOCK_MONOTONIC) - took;
	ty_actor_unref(supervisor);
	ty_runtime_destroy(supervised.rt);
	return took;
}

static int64_t run_round(const struct bench *bench, uint64_t messages)
{
	struct ty_runtime_options options = {.size = sizeof options, .workers = 1};
	struct ty_spawn_options spawn = {.size = sizeof spawn, .executor = bench->executor, .cpu = -1};
	struct ty_actor *actors[RING];
	struct link *links[RING];
	struct hop hop = {.left = messages};
	int64_t took;

	if (bench->type == RESTART)
		return run_restarts(messages);
	if (bench->type >= EVENT)
		return run_events(bench->type == STAMPED, messages);
	must(ty_runtime_create(&options, &rt, NULL));
	for (uint32_t i = 0; i < bench->actors; i++)
		must(ty_spawn(rt, &cls, &links[i], &spawn, &actors[i]));
	wait_done((int)bench->actors);
	for (uint32_t i = 0; i < bench->actors; i++)
		links[i]->next = actors[(i + 1) % bench->actors];
	if (bench->type == COUNT) {
		took = run_counting(actors[0], links[0], messages);
	} else {
		took = clock_ns(CLOCK_MONOTONIC);
		must(ty_send(actors[0], &hop.msg, bench->type));
		wait_done(1);
		took = clock_ns(CLOCK_MONOTONIC) - took;
	}
	for (uint32_t i = 0; i < bench->actors; i++)
		ty_actor_unref(actors[i]);
	ty_runtime_destroy(rt);
	return took;
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	static const struct bench benches[] = {
		{"pingpong", 2, TY_POOL, HOP, 1},
		{"ring", RING, TY_POOL, HOP, 1},
		{"counting", 1, TY_POOL, COUNT, 4},
		{"threads", 2, TY_DEDICATED, HOP, 40},
		{"timer", 1, TY_POOL, TIMER, 1},
		{"request", 2, TY_POOL, ASK, 2},
		{"name", 1, TY_POOL, FIND, 2},
		{"credit", 1, TY_POOL, CREDIT, 1},
		{"block", 1, TY_POOL, BLOCK, 1},
		{"monitor", 1, TY_POOL, WATCH, 8},
		{"restart", 0, TY_POOL, RESTART, 16},
		{"event", 0, TY_POOL, EVENT, 1},
		{"stamped", 0, TY_POOL, STAMPED, 1},
	};
	uint64_t messages = argc > 1 ? strtoull(argv[1], NULL, 10) : 4000000;

	for (size_t i = 0; i < sizeof benches / sizeof benches[0]; i++) {
		uint64_t n = messages / benches[i].share + 1;
		int64_t took[ROUNDS], cpu = INT64_MAX;

		for (int r = 0; r < ROUNDS; r++) {
			int64_t began = clock_ns(CLOCK_PROCESS_CPUTIME_ID);

			took[r] = run_round(&benches[i], n);
			began = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - began;
			cpu = began < cpu ? began : cpu;
		}
		qsort(took, ROUNDS, sizeof took[0], compare);
		printf("%-9s %8.1f ns median %8.1f ns best %8.1f ns CPU  (%" PRIu64 " messages)\n", benches[i].name,
			(double)took[ROUNDS / 2] / (double)n, (double)took[0] / (double)n, (double)cpu / (double)n, n);
	}
	return 0;
}
