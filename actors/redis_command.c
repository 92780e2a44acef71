/* SPDX-License-Identifier: Apache-2.0
 *
 * A command from its making to its end: its words, the node that it is sent to, other nodes that are named instead, and its turn among those
 * that change the same chunk.
 */
#include "redis.h"

#include <stdlib.h>
#include <string.h>

#include "cache/envelope.h"

#define OVERDUE_NS INT64_C(1000000000) /* so long at least a reply is waited for, whoever wants it: a server may stumble */
#define HOPS_MAX 5         /* nodes that may name another one, for a command */

void redis_name_of(const struct redis_actor *a, const struct ty_key *key, char out[REDIS_NAME_MAX])
{
	size_t n = strlen(a->redis->prefix);

	memcpy(out, a->redis->prefix, n);
	for (size_t i = 0; i < sizeof key->bytes; i++)
		n += (size_t)snprintf(out + n, REDIS_NAME_MAX - n, "%02x", key->bytes[i]);
}

/* ---- made and freed ---------------------------------------------------------------------------------------- */

static int64_t overdue_at(const struct redis_actor *a)
{
	int64_t timeout = a->tier->config.timeout;

	return ty_now() + (timeout > OVERDUE_NS / 2 ? 2 * timeout : OVERDUE_NS);
}

struct redis_command *redis_command_new(struct redis_actor *a, struct ty_tier_io *io)
{
	struct redis_command *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->a = a;
	c->io = io;
	c->overdue_at = overdue_at(a);
	c->next = a->commands;
	c->link = &a->commands;
	if (c->next)
		c->next->link = &c->next;
	a->commands = c;
	return c;
}

void redis_command_free(struct redis_command *c)
{
	struct redis_actor *a = c->a;
	struct ty_turn *next = ty_turn_leave(&a->turns, &c->turn);

	if (next) { /* not from in here: it may be over at once, and the next one, and so on */
		*a->due_end = ty_container_of(next, struct redis_command, turn);
		a->due_end = &(*a->due_end)->due;
	}
	a->errands -= c->errand;
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	ty_tier_unpack_free(c->unpack);
	free(c);
}

struct ty_tier_io **redis_command_io(struct redis_command *c)
{
	return c->listing ? redis_listing_io(c->listing) : c->query ? &c->query->io : &c->io;
}

/* Null: the command is of no key. */
static const struct ty_key *key_of(struct redis_command *c)
{
	if (c->errand)
		return &c->turn.key;
	return c->listing ? redis_listing_key(c->listing, c->key) : &(*redis_command_io(c))->keys[c->key];
}

/* ---- sent ---------------------------------------------------------------------------------------------------- */

/* The command's words, anew for each node that it is sent to. */
bool redis_command_send(struct redis_command *c, struct redis_node *node, bool asking)
{
	const struct ty_tier_io *io = *redis_command_io(c);
	enum ty_tier_verb verb = c->listing ? TY_TIER_EXISTS : c->errand ? TY_TIER_DELETE : io->verb; /* a listing wants headers */
	struct redis_bounds bounds = {.bytes = verb == TY_TIER_GET ? io->bytes : 0};
	const char *words[3 + 2 * TY_CHUNK_MAX_PARTS + 2];
	size_t lengths[3 + 2 * TY_CHUNK_MAX_PARTS + 2];
	char name[REDIS_NAME_MAX], numbers[TY_CHUNK_MAX_PARTS][12];
	uint8_t header[TY_ENVELOPE_BYTES];
	struct ty_envelope e = {.parts = 0};
	int count = 0;

	redis_name_of(c->a, key_of(c), name);
#define WORD(text, bytes) (words[count] = (const char *)(text), lengths[count++] = (bytes))
	WORD(verb == TY_TIER_PUT ? "HSET" : verb == TY_TIER_GET ? "HMGET" : verb == TY_TIER_EXISTS ? "HGET" : "DEL",
		verb == TY_TIER_GET ? 5 : verb == TY_TIER_DELETE ? 3 : 4);
	WORD(name, strlen(name));
	if (verb != TY_TIER_DELETE)
		WORD("h", 1);
	if (verb == TY_TIER_PUT) {
		ty_tier_describe(io, &e);
		ty_envelope_write(&e, header);
		WORD(header, sizeof header);
	}
	for (uint32_t i = 0; (verb == TY_TIER_PUT || verb == TY_TIER_GET) && i < io->parts; i++) {
		if (!io->part[i].data)
			continue; /* GET: not wanted */
		snprintf(numbers[i], sizeof numbers[i], "%u", i);
		WORD(numbers[i], strlen(numbers[i]));
		if (verb == TY_TIER_PUT)
			WORD(ty_tier_bytes(io, i), ty_envelope_stored(&e, i));
	}
#undef WORD
	if (asking && !redis_send(node->c, NULL, NULL, NULL, 1, &(const char *){"ASKING"}, &(size_t){6}))
		return false;
	c->node = node;
	return redis_send(node->c, redis_on_reply, c, &bounds, count, words, lengths);
}

void redis_command_issue(struct redis_command *c)
{
	char name[REDIS_NAME_MAX];
	struct redis_node *node;

	c->overdue_at = overdue_at(c->a);
	redis_name_of(c->a, key_of(c), name);
	node = redis_node_of(c->a, name);
	if (!node)
		redis_command_fail(c, TY_TIER_FAILED, "no server can be reached");
	else if (!redis_command_send(c, node, false))
		redis_command_fail(c, TY_TIER_FAILED, "the connection ends");
}

bool redis_command_follow(struct redis_command *c, const char *text)
{
	struct ty_redis_node there;
	struct redis_node *node;
	uint32_t slot;
	bool asking;

	if (!key_of(c) || !ty_redis_redirection(text, strlen(text), &there, &slot, &asking) || ++c->hops > HOPS_MAX)
		return false;
	node = redis_node_at(c->a, there.host[0] ? there.host : c->node->host, there.port);
	if (!node || !redis_node_connect(node))
		return false;
	if (!asking)
		redis_learn_slot(c->a, slot, node);
	return redis_command_send(c, node, asking);
}

/* ---- one after the other ---------------------------------------------------------------------------------------- */

/* A server that answers a later one may do so before another one has told of an earlier one that it is not the one to be asked: where a
 * command is sent to says nothing about where it ends, so the later one is not sent before the earlier one is over. */
void redis_command_in_turn(struct redis_command *c, const struct ty_key *key)
{
	if (ty_turn_take(&c->a->turns, &c->turn, key))
		redis_command_issue(c);
}

void redis_commands_go_on(struct redis_actor *a)
{
	for (struct redis_command *c; (c = a->due);) {
		a->due = c->due;
		if (!a->due)
			a->due_end = &a->due;
		if (c->io)
			redis_command_issue(c);
		else
			redis_command_free(c); /* answered since */
	}
}
