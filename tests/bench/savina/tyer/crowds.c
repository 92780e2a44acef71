/* SPDX-License-Identifier: Apache-2.0
 *
 * Many to many and many to one: big and chameneos.
 */
#include "bench.h"

enum { PING = 1, PONG, JOINED, ENTER, MEET, BYE };

struct counter {
	uint64_t seen, expected;
};

static void on_joined(void *self, struct ty_msg *msg)
{
	struct counter *counter = own(self);

	(void)msg;
	if (++counter->seen == counter->expected)
		finished();
}

static const struct ty_handler sink_handlers[] = {{"joined", on_joined}};
static const struct ty_class sink_class = CLASS("sink", JOINED, sink_handlers);

/* ---- big: K actors, each sends N pings to others drawn at random, one at a time -------------- */

struct ping { /* on a line of its own: it is with another actor while its owner answers others */
	struct ty_msg msg;
	struct ty_actor *from;
} __attribute__((aligned(64)));

struct talker {
	struct ty_actor **all, *sink;
	uint64_t count, left, received;
	uint32_t random;
	struct ping ping;
} __attribute__((aligned(64)));

static void on_ping(void *self, struct ty_msg *msg)
{
	struct talker *talker = own(self);

	talker->received++;
	send(ty_container_of(msg, struct ping, msg)->from, msg, PONG);
}

static void on_pong(void *self, struct ty_msg *msg)
{
	struct talker *talker = own(self);

	if (talker->left) {
		talker->left--;
		send(talker->all[next_random(&talker->random) % talker->count], msg, PING);
	} else {
		send(talker->sink, msg, JOINED);
	}
}

uint64_t run_big(struct ty_runtime *rt, const uint64_t *params)
{
	static const struct ty_handler handlers[] = {{"ping", on_ping}, {"pong", on_pong}};
	static const struct ty_class cls = CLASS("talker", PING, handlers);
	uint64_t count = params[0], check = 0;
	struct counter counter = {.expected = count};
	struct ty_actor *sink = spawn(rt, &sink_class, &counter), **all = table_of(count, sizeof *all);
	struct talker *talkers = table_of(count, sizeof *talkers);

	for (uint64_t i = 0; i < count; i++)
		all[i] = spawn(rt, &cls, &talkers[i]);
	clock_start();
	for (uint64_t i = 0; i < count; i++)
		talkers[i] = (struct talker){.all = all,
			.sink = sink,
			.count = count,
			.left = params[1],
			.random = (uint32_t)i,
			.ping.from = all[i]};
	for (uint64_t i = 0; i < count; i++)
		send(all[i], &talkers[i].ping.msg, PONG);
	wait_finished();
	for (uint64_t i = 0; i < count; i++) {
		check += talkers[i].received;
		ty_actor_unref(all[i]);
	}
	ty_actor_unref(sink);
	return check;
}

/* ---- chameneos: K creatures, N meetings at one mall ------------------------------------------- */

struct visit {
	struct ty_msg msg;
	struct ty_actor *who;
	uint32_t color; /* to the mall: its own; back: the other's */
};

struct creature {
	struct ty_actor *mall, *sink;
	uint64_t meetings;
	uint32_t color;
	struct visit visit;
} __attribute__((aligned(64)));

struct mall {
	struct visit *waiting;
	uint64_t left;
};

static void on_enter(void *self, struct ty_msg *msg)
{
	struct mall *mall = own(self);
	struct visit *second = ty_container_of(msg, struct visit, msg), *first = mall->waiting;
	uint32_t color;

	if (!mall->left) {
		send(second->who, msg, BYE);
	} else if (!first) {
		mall->waiting = second;
	} else {
		mall->waiting = NULL;
		mall->left--;
		color = first->color;
		first->color = second->color;
		second->color = color;
		send(first->who, &first->msg, MEET);
		send(second->who, &second->msg, MEET);
	}
}

static void on_meet(void *self, struct ty_msg *msg)
{
	struct creature *me = own(self);
	struct visit *visit = ty_container_of(msg, struct visit, msg);

	me->meetings++;
	if (me->color != visit->color) /* the third of the colors 0, 1, 2 */
		me->color = 3 - me->color - visit->color;
	visit->color = me->color;
	send(me->mall, msg, ENTER);
}

static void on_bye(void *self, struct ty_msg *msg)
{
	send(((struct creature *)own(self))->sink, msg, JOINED);
}

uint64_t run_chameneos(struct ty_runtime *rt, const uint64_t *params)
{
	static const struct ty_handler creature_handlers[] = {{"meet", on_meet}, {"bye", on_bye}};
	static const struct ty_handler mall_handlers[] = {{"enter", on_enter}};
	static const struct ty_class creature_class = CLASS("creature", MEET, creature_handlers);
	static const struct ty_class mall_class = CLASS("mall", ENTER, mall_handlers);
	uint64_t count = params[0], check = 0;
	struct counter counter = {.expected = count};
	struct mall mall = {.left = params[1]};
	struct ty_actor *sink = spawn(rt, &sink_class, &counter), *place = spawn(rt, &mall_class, &mall);
	struct ty_actor **actors = table_of(count, sizeof *actors);
	struct creature *creatures = table_of(count, sizeof *creatures);

	for (uint64_t i = 0; i < count; i++) {
		actors[i] = spawn(rt, &creature_class, &creatures[i]);
		creatures[i] = (struct creature){.mall = place,
			.sink = sink,
			.color = (uint32_t)i % 3,
			.visit = {.who = actors[i], .color = (uint32_t)i % 3}};
	}
	clock_start();
	for (uint64_t i = 0; i < count; i++)
		send(place, &creatures[i].visit.msg, ENTER);
	wait_finished();
	for (uint64_t i = 0; i < count; i++) {
		check += creatures[i].meetings;
		ty_actor_unref(actors[i]);
	}
	ty_actor_unref(place);
	ty_actor_unref(sink);
	return check;
}
