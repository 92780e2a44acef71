/* SPDX-License-Identifier: Apache-2.0
 *
 * The flight recorder and its export, parsed back by a JSON library that is not ours.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/record.h"
#include "runtime_test.h"

enum { PING = 1, TICK };

#define HOPS 10

struct player {
	struct ty_actor *peer;
	struct ty_timer timer;
};

struct ping {
	struct ty_msg msg;
	uint64_t left;
};

static struct gate done, started;

static enum ty_code on_start(void *self, void *arg)
{
	*(struct player **)arg = self;
	gate_open(&started);
	return TY_OK;
}

static void on_ping(void *self, struct ty_msg *msg)
{
	struct player *player = self;
	struct ping *ping = ty_container_of(msg, struct ping, msg);

	if (ping->left-- == 0) {
		ty_timer_start(&player->timer, TICK, ty_now() + 1000);
		gate_open(&done);
	} else {
		assert_int_equal(ty_send(player->peer, msg, PING), TY_OK);
	}
}

static void on_tick(void *self, struct ty_msg *msg)
{
	(void)self;
	(void)msg;
}

static const struct ty_handler handlers[] = {{"ping", on_ping}, {"tick \"tock\"\\\n", on_tick}};
static const struct ty_class cls = {
	.name = "player",
	.state_size = sizeof(struct player),
	.first_type = PING,
	.type_count = 2,
	.handlers = handlers,
	.start = on_start,
};

/* ---- the export, parsed ---- */

struct text {
	char *bytes;
	size_t length;
};

static bool collect(void *user, const char *piece, size_t length)
{
	struct text *text = user;

	text->bytes = realloc(text->bytes, text->length + length + 1);
	assert_non_null(text->bytes);
	memcpy(text->bytes + text->length, piece, length);
	text->length += length;
	text->bytes[text->length] = '\0';
	return true;
}

static json_t *trace_of(const struct ty_runtime *rt)
{
	struct text text = {0};
	json_error_t error;
	json_t *root, *events;

	assert_int_equal(ty_runtime_trace(rt, collect, &text), TY_OK);
	root = json_loads(text.bytes, JSON_REJECT_DUPLICATES, &error);
	if (!root)
		fail_msg("line %d: %s", error.line, error.text);
	free(text.bytes);
	events = json_incref(json_object_get(root, "traceEvents"));
	json_decref(root);
	assert_true(json_is_array(events));
	return events;
}

static const char *string(json_t *event, const char *key)
{
	const char *value = json_string_value(json_object_get(event, key));

	return value ? value : "";
}

static double number(json_t *event, const char *key)
{
	json_t *value = json_object_get(event, key);

	assert_true(json_is_number(value));
	return json_number_value(value);
}

static size_t count(json_t *events, const char *phase, const char *name)
{
	size_t i, n = 0;
	json_t *event;

	json_array_foreach(events, i, event)
		n += strcmp(string(event, "ph"), phase) == 0 && (!name || strcmp(string(event, "name"), name) == 0);
	return n;
}

/* The end of an arrow lies in a slice of its track, or at its edge. */
static bool in_a_slice(json_t *events, json_t *end)
{
	double ts = number(end, "ts");
	json_t *event;
	size_t i;

	json_array_foreach(events, i, event) {
		if (strcmp(string(event, "ph"), "X") == 0 && number(event, "pid") == number(end, "pid") &&
			number(event, "tid") == number(end, "tid") && number(event, "ts") <= ts + 0.0011 &&
			number(event, "ts") + number(event, "dur") + 0.0011 >= ts)
			return true;
	}
	return false;
}

/* Each arrow has two ends, on slices, and does not go back in time. Returns how many there are. */
static size_t check_arrows(json_t *events)
{
	size_t i, k, arrows = 0;
	json_t *from, *to;

	json_array_foreach(events, i, from) {
		size_t ends = 0;

		if (strcmp(string(from, "ph"), "s") != 0)
			continue;
		arrows++;
		assert_true(in_a_slice(events, from));
		json_array_foreach(events, k, to) {
			if (strcmp(string(to, "ph"), "f") != 0 || number(to, "id") != number(from, "id"))
				continue;
			ends++;
			assert_true(in_a_slice(events, to));
			assert_true(number(to, "ts") >= number(from, "ts"));
		}
		assert_int_equal(ends, 1);
	}
	assert_int_equal(count(events, "f", NULL), arrows);
	return arrows;
}

static void play(struct ty_runtime *rt, struct ty_actor *actors[2], enum ty_executor executor, struct player *players[2])
{
	for (int i = 0; i < 2; i++)
		actors[i] = spawn(rt, &cls, &players[i], executor);
}

static void test_a_known_game(void **unused)
{
	struct ty_runtime_options options = {.size = sizeof options, .seed = 3};
	struct ping ping = {.left = HOPS};
	struct ty_msg lost = TY_MSG_INIT;
	struct ty_actor *actors[2];
	struct player *players[2];
	struct ty_runtime *rt;
	json_t *events, *event;
	size_t i, a_to_b = 0;

	(void)unused;
	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	play(rt, actors, TY_POOL, players);
	while (ty_runtime_step(rt))
		;
	players[0]->peer = actors[1];
	players[1]->peer = actors[0];
	assert_int_equal(ty_send(actors[0], &ping.msg, PING), TY_OK); /* by nobody: no arrow */
	assert_int_equal(ty_send(actors[1], &lost, 77), TY_OK);
	while (ty_runtime_step(rt))
		;
	events = trace_of(rt);
	assert_int_equal(count(events, "X", "start"), 2);
	assert_int_equal(count(events, "X", "ping"), HOPS + 1);
	assert_int_equal(count(events, "X", "tick \"tock\"\\?"), 1);
	assert_int_equal(count(events, "i", "timer"), 1);
	assert_int_equal(count(events, "i", "drop"), 1);
	assert_int_equal(count(events, "M", "thread_name"), 3); /* two actors, one thread */
	assert_int_equal(check_arrows(events), HOPS);
	json_array_foreach(events, i, event) {
		if (strcmp(string(event, "ph"), "s") != 0)
			continue;
		assert_string_equal(string(event, "name"), "ping");
		a_to_b += number(event, "tid") == 0;
	}
	assert_int_equal(a_to_b, HOPS / 2);
	json_decref(events);
	for (i = 0; i < 2; i++)
		ty_actor_unref(actors[i]);
	ty_runtime_destroy(rt);
}

static void plays_in_real_time(enum ty_executor executor)
{
	struct ty_runtime *rt = make_runtime(2);
	struct ping ping = {.left = HOPS};
	struct ty_actor_stats stats;
	struct ty_actor *actors[2];
	struct player *players[2];
	json_t *events;

	atomic_store(&done.open, 0);
	atomic_store(&started.open, 0);
	play(rt, actors, executor, players);
	gate_wait_for(&started, 2);
	players[0]->peer = actors[1];
	players[1]->peer = actors[0];
	assert_int_equal(ty_send(actors[0], &ping.msg, PING), TY_OK);
	gate_wait(&done);
	do { /* the timer's message comes after */
		ty_actor_stats(actors[0], &stats);
	} while (stats.messages < HOPS / 2 + 2);
	events = trace_of(rt);
	assert_int_equal(count(events, "X", "ping"), HOPS + 1);
	assert_int_equal(count(events, "i", "timer"), 1);
	assert_true(check_arrows(events) <= HOPS);
	if (executor == TY_DEDICATED)
		assert_int_equal(check_arrows(events), HOPS); /* every send has a time of its own */
	json_decref(events);
	for (int i = 0; i < 2; i++)
		ty_actor_unref(actors[i]);
	ty_runtime_destroy(rt);
}

static void test_pooled_in_real_time(void **unused)
{
	(void)unused;
	plays_in_real_time(TY_POOL);
}

static void test_dedicated_in_real_time(void **unused)
{
	(void)unused;
	plays_in_real_time(TY_DEDICATED);
}

/* Rings that run over while they are read: every export is whole. */
static void test_read_while_running(void **unused)
{
	struct ty_runtime *rt = make_runtime(2);
	struct ping pings[4];
	struct ty_actor *actors[4];
	struct player *players[4];
	uint32_t exports = 0;

	(void)unused;
	atomic_store(&done.open, 0);
	atomic_store(&started.open, 0);
	play(rt, actors, TY_POOL, players);
	play(rt, actors + 2, TY_DEDICATED, players + 2);
	gate_wait_for(&started, 4);
	for (int i = 0; i < 4; i++)
		players[i]->peer = actors[(i + 1) % 4];
	for (int i = 0; i < 4; i++) {
		pings[i] = (struct ping){.left = 10000};
		assert_int_equal(ty_send(actors[i], &pings[i].msg, PING), TY_OK);
	}
	while (atomic_load_explicit(&done.open, memory_order_acquire) < 4 || exports < 3) {
		json_t *events = trace_of(rt);

		/* what is cut off at its beginning is left out, so what is there belongs together */
		assert_true(count(events, "s", NULL) == count(events, "f", NULL));
		exports++;
		json_decref(events);
	}
	for (int i = 0; i < 4; i++)
		ty_actor_unref(actors[i]);
	ty_runtime_destroy(rt);
}

/* ---- what a poll sends ---- */

struct polling {
	struct ty_actor *peer;
	struct ping ping;
	bool sent;
};

static enum ty_code polling_start(void *self, void *arg)
{
	((struct polling *)self)->peer = arg;
	return TY_OK;
}

static int64_t polling_poll(void *self, int64_t now)
{
	struct polling *p = self;

	(void)now;
	if (!p->sent)
		assert_int_equal(ty_send(p->peer, &p->ping.msg, PING), TY_OK);
	p->sent = true;
	return TY_NEVER;
}

static void test_what_a_poll_sends(void **unused)
{
	static const struct ty_class polling = {.name = "polling", .state_size = sizeof(struct polling),
		.start = polling_start, .poll = polling_poll};
	struct ty_runtime *rt = make_runtime(1);
	struct player *player;
	struct ty_actor *peer, *poller;
	json_t *events, *event;
	size_t i, from_poll = 0;

	(void)unused;
	atomic_store(&done.open, 0);
	atomic_store(&started.open, 0);
	peer = spawn(rt, &cls, &player, TY_POOL);
	gate_wait(&started);
	poller = spawn(rt, &polling, peer, TY_DEDICATED);
	gate_wait(&done); /* it was handled; the poll may not have ended yet */
	do {
		events = trace_of(rt);
		if (!count(events, "X", "poll"))
			json_decref(events);
		else
			break;
	} while (true);
	assert_int_equal(check_arrows(events), 1);
	json_array_foreach(events, i, event)
		from_poll += strcmp(string(event, "ph"), "s") == 0 && number(event, "tid") > 0; /* the peer is number 0 */
	assert_int_equal(from_poll, 1);
	json_decref(events);
	ty_actor_unref(poller);
	ty_actor_unref(peer);
	ty_runtime_destroy(rt);
}

static bool refuse_piece(void *user, const char *piece, size_t length)
{
	(void)piece;
	(void)length;
	return ++*(int *)user > 1;
}

static void test_the_callback_may_end_it(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	int calls = 0;

	(void)unused;
	assert_int_equal(ty_runtime_trace(rt, refuse_piece, &calls), TY_CANCELLED);
	assert_int_equal(calls, 1);
	ty_runtime_destroy(rt);
}

/* The ring by itself: the last events, oldest first, less the one that may be half overwritten. */
static void test_a_ring_keeps_the_last(void **unused)
{
	struct ty_ring *ring = calloc(1, sizeof *ring);
	struct ty_event *events = calloc(TY_RING_EVENTS, sizeof *events);
	uint32_t n;

	(void)unused;
	assert_int_equal(ty_ring_read(ring, events), 0);
	for (uint64_t i = 0; i < TY_RING_EVENTS + 100; i++) {
		ty_ring_write(ring, i % 2 ? TY_EVENT_BEGIN : TY_EVENT_SEND, i, i + (UINT64_C(1) << 33),
			TY_INDEX_START, ring, ~i);
		n = ty_ring_read(ring, events);
		assert_int_equal(n, i + 1 < TY_RING_EVENTS ? i + 1 : TY_RING_EVENTS - 1);
		assert_int_equal(events[n - 1].when, i);
		assert_int_equal(events[0].when, i + 1 - n);
	}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(events[i].number, events[i].when);
		assert_int_equal(events[i].index, TY_INDEX_START);
		assert_true(events[i].msg == ~events[i].when);
		assert_int_equal(events[i].kind, events[i].when % 2 ? TY_EVENT_BEGIN : TY_EVENT_SEND);
		assert_ptr_equal(events[i].cls, events[i].when % 2 ? ring : NULL); /* a send has no class */
	}
	free(events);
	free(ring);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_known_game),
		cmocka_unit_test(test_pooled_in_real_time),
		cmocka_unit_test(test_dedicated_in_real_time),
		cmocka_unit_test(test_read_while_running),
		cmocka_unit_test(test_what_a_poll_sends),
		cmocka_unit_test(test_the_callback_may_end_it),
		cmocka_unit_test(test_a_ring_keeps_the_last),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
