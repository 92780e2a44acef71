/* SPDX-License-Identifier: Apache-2.0
 *
 * One message under way at a time: ping-pong and the thread ring.
 */
#include "bench.h"

enum { HOP = 1, PING, PONG };

/* ---- ping-pong: N round trips ---------------------------------------------------------------- */

struct player {
	struct ty_actor *peer;
	struct ty_msg msg;
	uint64_t left, counted;
} __attribute__((aligned(64)));

static void on_ping(void *self, struct ty_msg *msg)
{
	struct player *player = own(self);

	player->counted++;
	send(player->peer, msg, PONG);
}

static void on_pong(void *self, struct ty_msg *msg)
{
	struct player *player = own(self);

	player->counted++;
	if (--player->left)
		send(player->peer, msg, PING);
	else
		finished();
}

uint64_t run_pingpong(struct ty_runtime *rt, const uint64_t *params)
{
	static const struct ty_handler handlers[] = {{"ping", on_ping}, {"pong", on_pong}};
	static const struct ty_class cls = CLASS("player", PING, handlers);
	struct player *players = table_of(2, sizeof *players);
	struct ty_actor *actors[2];
	uint64_t check;

	for (int i = 0; i < 2; i++)
		actors[i] = spawn(rt, &cls, &players[i]);
	for (int i = 0; i < 2; i++)
		players[i].peer = actors[!i];
	players[0].left = params[0];
	clock_start();
	send(actors[1], &players[0].msg, PING);
	wait_finished();
	check = players[0].counted + players[1].counted;
	for (int i = 0; i < 2; i++)
		ty_actor_unref(actors[i]);
	return check;
}

/* ---- thread ring: K actors, N hops ------------------------------------------------------------ */

struct link {
	struct ty_actor *next;
	uint64_t counted;
} __attribute__((aligned(64)));

struct token {
	struct ty_msg msg;
	uint64_t left;
};

static void on_hop(void *self, struct ty_msg *msg)
{
	struct link *link = own(self);
	struct token *token = ty_container_of(msg, struct token, msg);

	link->counted++;
	if (--token->left)
		send(link->next, msg, HOP);
	else
		finished();
}

uint64_t run_threadring(struct ty_runtime *rt, const uint64_t *params)
{
	static const struct ty_handler handlers[] = {{"hop", on_hop}};
	static const struct ty_class cls = CLASS("link", HOP, handlers);
	uint64_t count = params[0], check = 0;
	struct link *links = table_of(count, sizeof *links);
	struct ty_actor **actors = table_of(count, sizeof *actors);
	struct token token = {.left = params[1]};

	for (uint64_t i = 0; i < count; i++)
		actors[i] = spawn(rt, &cls, &links[i]);
	for (uint64_t i = 0; i < count; i++)
		links[i].next = actors[(i + 1) % count];
	clock_start();
	send(actors[0], &token.msg, HOP);
	wait_finished();
	for (uint64_t i = 0; i < count; i++) {
		check += links[i].counted;
		ty_actor_unref(actors[i]);
	}
	return check;
}
