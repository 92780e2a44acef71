/* SPDX-License-Identifier: Apache-2.0
 *
 * Operations as commands. A chunk is a hash: field h is its envelope (cache/envelope.h), fields 0, 1, ... its parts.
 *
 *   PUT     HSET key h ... 0 ... 1 ...    at once, so that a chunk is there whole or not at all
 *   GET     HMGET key h 0 ...             checked against the envelope before it counts
 *   EXISTS  HGET key h, for each key
 *   DELETE  DEL key
 *   LIST    SCAN (redis_list.c)
 *
 * What a command needs is copied by hiredis when it is given, and what comes is copied when it is there: an io may be answered
 * while its command is still out; but not while what came is being unpacked into its places.
 */
#include "redis.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cache/checksum.h"
#include "cache/envelope.h"

#define TICK_NS 250000000  /* how often deadlines are looked at */
#define REDIS_TICK TY_TIER_OWN

static uint64_t shape_of(const struct ty_envelope *e)
{
	uint64_t sum = ty_checksum(e->length, e->parts * sizeof e->length[0]) ^ e->parts;

	return sum ? sum : 1;
}

static void end_query(struct redis_actor *a, struct redis_query *q)
{
	struct ty_tier_io *io = q->io;

	if (io && q->failed) {
		ty_tier_complete(a->tier, io, TY_TIER_FAILED, "a server did not answer");
	} else if (io) {
		while (io->found < io->key_count && q->shape[io->found] && q->shape[io->found] == q->shape[0])
			io->found++;
		if (io->found) {
			ty_tier_tell_whose(io, &q->first.identity);
			io->takes = ty_envelope_total(&q->first);
			io->parts = q->first.parts;
			for (uint32_t i = 0; i < io->parts; i++)
				io->part[i].length = q->first.length[i];
		}
		ty_tier_complete(a->tier, io, TY_TIER_DONE, NULL);
	}
	free(q);
}

void redis_command_fail(struct redis_command *c, enum ty_tier_outcome outcome, const char *why)
{
	struct redis_query *q = c->query;

	if (c->listing) {
		redis_listing_fail(c, why);
		return;
	}
	if (q) {
		q->failed = true;
		if (--q->left == 0)
			end_query(c->a, q);
	} else if (c->io) {
		ty_tier_complete(c->a->tier, c->io, outcome, "%.100s", why);
	}
	redis_command_free(c);
}

static void keep_ticking(struct redis_actor *a)
{
	if (!a->ticking)
		ty_timer_start(&a->tick, REDIS_TICK, ty_now() + TICK_NS);
	a->ticking = true;
}

/* ---- replies -------------------------------------------------------------------------------------------------- */

static bool is_bytes(const redisReply *r, size_t length)
{
	return r && r->type == REDIS_REPLY_STRING && (size_t)r->len == length;
}

/* Wrong: it is out of the way for the next time; where somebody writes it anew, by that. */
static void drop(struct redis_command *c, const char *why)
{
	struct redis_actor *a = c->a;
	const struct ty_key *key = c->io->keys;
	struct redis_command *errand;
	char name[REDIS_NAME_MAX];

	redis_name_of(a, key, name);
	ty_log(TY_LOG_WARN, "tier", "redis: %s: %s", name, why);
	atomic_fetch_add_explicit(&a->tier->stats.quarantined, 1, memory_order_relaxed);
	ty_tier_gone(a->tier, key, TYER__V1__EVENT__KIND__WRONG);
	ty_tier_tell(a->tier);
	if (ty_turn_is_taken(&a->turns, key))
		return;
	errand = a->errands < REDIS_ERRANDS_MAX && !a->stopping ? redis_command_new(a, NULL) : NULL;
	if (!errand)
		return; /* the next one who reads it deletes it */
	errand->errand = true;
	a->errands++;
	keep_ticking(a);
	redis_command_in_turn(errand, key);
}

/* The parts into their places, or, packed, to where they are unpacked from. */
static bool copy_parts(struct redis_command *c, const redisReply *r)
{
	const struct ty_tier_unpack *u = c->unpack;
	struct ty_tier_io *io = c->io;
	size_t at = 1;

	for (uint32_t i = 0; i < io->parts; i++) {
		bool packed = u && u->stored.bytes[i];
		uint64_t length = packed ? u->stored.bytes[i] : io->part[i].length;

		if (!io->part[i].data)
			continue;
		if (at >= r->elements || !is_bytes(r->element[at], length))
			return false;
		memcpy(packed ? u->stored.data[i] : io->part[i].data, r->element[at++]->str, length);
	}
	return true;
}

/* DONE with c->unpack: all is there, and to be unpacked. */
static enum ty_tier_outcome take_parts(struct redis_command *c, const redisReply *r, struct ty_error *err)
{
	struct ty_tier_io *io = c->io;
	const uint8_t *header;
	struct ty_envelope e;

	if (r->type != REDIS_REPLY_ARRAY || !r->elements) {
		(void)ty_fail(err, TY_PROTOCOL, "the reply is no list");
		return TY_TIER_FAILED;
	}
	if (r->element[0]->type == REDIS_REPLY_NIL)
		return TY_TIER_MISSING;
	(void)ty_fail(err, TY_INVALID, "it has parts of other lengths");
	if (!is_bytes(r->element[0], TY_ENVELOPE_BYTES))
		return TY_TIER_CORRUPT;
	header = (const uint8_t *)r->element[0]->str;
	if (ty_tier_is_packed(io, header, &e)) {
		c->unpack = ty_tier_unpack_new(c->a->tier, io, &e);
		if (!c->unpack) {
			(void)ty_fail(err, TY_NO_MEMORY, "no memory");
			return TY_TIER_FAILED;
		}
		memcpy(c->unpack->header, header, TY_ENVELOPE_BYTES);
		c->unpack->user = c;
	}
	if (!copy_parts(c, r))
		return TY_TIER_CORRUPT;
	return c->unpack ? TY_TIER_DONE : ty_tier_check(c->a->tier, io, header, NULL, NULL, err);
}

static void end_get(struct redis_command *c, enum ty_tier_outcome outcome, const struct ty_error *err)
{
	struct ty_tier *tier = c->a->tier;
	struct ty_tier_io *io = c->io;

	if (outcome == TY_TIER_CORRUPT)
		drop(c, err->text);
	redis_command_free(c); /* whoever has the io back finds nothing of it here */
	ty_tier_complete(tier, io, outcome, "%.100s", err->text);
}

/* Bytes of the values that came. */
static uint64_t bytes_of(const redisReply *r)
{
	uint64_t bytes = r->type == REDIS_REPLY_STRING ? (uint64_t)r->len : 0;

	for (size_t i = 0; r->type == REDIS_REPLY_ARRAY && i < r->elements; i++)
		bytes += r->element[i]->type == REDIS_REPLY_STRING ? (uint64_t)r->element[i]->len : 0;
	return bytes;
}

static void got(struct redis_command *c, const redisReply *r)
{
	struct ty_error err = {.text = ""};
	enum ty_tier_outcome outcome = take_parts(c, r, &err);

	c->io->read = bytes_of(r);
	if (c->unpack && outcome == TY_TIER_DONE)
		ty_tier_unpack(c->unpack);
	else
		end_get(c, outcome, &err);
}

static void on_unpacked(void *self, struct ty_msg *msg)
{
	struct ty_tier_unpack *u = ty_tier_unpacked(msg);
	struct ty_error err = u->err; /* it goes with the command */

	(void)self;
	end_get(u->user, u->outcome, &err);
}

bool redis_read_header(const redisReply *r, const struct ty_key *key, struct ty_envelope *out)
{
	struct ty_error err;

	return is_bytes(r, TY_ENVELOPE_BYTES) && ty_envelope_read((const uint8_t *)r->str, out, &err) == TY_OK &&
	       !memcmp(&out->key, key, sizeof *key);
}

static bool may_be_here(const struct ty_envelope *e)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < e->parts; i++)
		bytes += e->length[i];
	return bytes <= REDIS_CHUNK_MAX;
}

static void found(struct redis_command *c, const redisReply *r)
{
	struct redis_query *q = c->query;
	struct ty_envelope e;

	if (q->io)
		q->io->read += bytes_of(r);
	if (q->io && redis_read_header(r, &q->io->keys[c->key], &e) && may_be_here(&e)) {
		q->shape[c->key] = shape_of(&e);
		if (c->key == 0)
			q->first = e;
	}
	if (--q->left == 0)
		end_query(c->a, q);
}

/* HSET and DEL say how many fields and keys. */
static void changed(struct redis_command *c, const redisReply *r)
{
	if (r->type != REDIS_REPLY_INTEGER)
		ty_tier_complete(c->a->tier, c->io, TY_TIER_FAILED, "the reply is no number");
	else if (c->io->verb == TY_TIER_DELETE && !r->integer)
		ty_tier_complete(c->a->tier, c->io, TY_TIER_MISSING, NULL);
	else
		ty_tier_complete(c->a->tier, c->io, TY_TIER_DONE, NULL);
}

static void refused(struct redis_command *c, const char *text)
{
	if (redis_command_follow(c, text))
		return;
	redis_command_fail(c, !strncmp(text, "OOM", 3) ? TY_TIER_FULL : TY_TIER_FAILED, text);
}

void redis_on_reply(void *user, const redisReply *r)
{
	struct redis_command *c = user;

	if (c->listing && (!r || !*redis_command_io(c))) {
		redis_listing_reply(c, NULL);
		return;
	}
	if (c->errand) {
		if (!r || r->type != REDIS_REPLY_ERROR || !redis_command_follow(c, r->str))
			redis_command_free(c);
		return;
	}
	if (!*redis_command_io(c)) { /* answered already: late, or stopped */
		if (c->query && --c->query->left == 0)
			end_query(c->a, c->query);
		redis_command_free(c);
		return;
	}
	if (!r) {
		redis_command_fail(c, TY_TIER_FAILED, "the connection is over");
		return;
	}
	if (r->type == REDIS_REPLY_ERROR) {
		refused(c, r->str);
		return;
	}
	if (c->listing) {
		redis_listing_reply(c, r);
		return;
	}
	if (!c->query && c->io->verb == TY_TIER_GET) {
		got(c, r);
		return;
	}
	if (c->query)
		found(c, r);
	else
		changed(c, r);
	redis_command_free(c);
}

/* ---- messages --------------------------------------------------------------------------------------------------- */

static void ask_for_all(struct redis_actor *a, struct ty_tier_io *io)
{
	struct redis_query *q = calloc(1, sizeof *q + io->key_count * sizeof q->shape[0]);

	if (!q) {
		ty_tier_complete(a->tier, io, TY_TIER_FAILED, "no memory");
		return;
	}
	q->io = io;
	q->left = io->key_count + 1; /* one for this loop, in which commands may fail at once */
	for (uint32_t i = 0; i < io->key_count; i++) {
		struct redis_command *c = redis_command_new(a, NULL);

		if (!c) {
			q->failed = true;
			q->left--;
			continue;
		}
		c->query = q;
		c->key = i;
		redis_command_issue(c);
	}
	if (--q->left == 0)
		end_query(a, q);
}

static void carry_out(struct redis_actor *a, struct ty_tier_io *io)
{
	struct redis_command *c;

	if (a->stopping) {
		ty_tier_complete(a->tier, io, TY_TIER_STOPPED, NULL);
		return;
	}
	keep_ticking(a);
	if (io->verb == TY_TIER_EXISTS || io->verb == TY_TIER_LIST) {
		(io->verb == TY_TIER_LIST ? redis_list : ask_for_all)(a, io);
		return;
	}
	if (io->verb == TY_TIER_PUT && io->bytes > REDIS_CHUNK_MAX) {
		ty_tier_complete(a->tier, io, TY_TIER_FULL, "it has %llu bytes, expected at most %llu", (unsigned long long)io->bytes,
			(unsigned long long)REDIS_CHUNK_MAX);
		return;
	}
	if (io->verb == TY_TIER_PUT && ty_tier_pack(a->tier, io))
		return;
	if (io->verb == TY_TIER_DELETE)
		ty_tier_pack_none(a->tier, io->keys);
	c = redis_command_new(a, io);
	if (c && io->verb == TY_TIER_GET)
		redis_command_issue(c);
	else if (c)
		redis_command_in_turn(c, io->keys);
	else
		ty_tier_complete(a->tier, io, TY_TIER_FAILED, "no memory");
}

static void on_io(void *self, struct ty_msg *msg)
{
	carry_out(self, ty_container_of(msg, struct ty_tier_io, msg));
}

static void on_packed(void *self, struct ty_msg *msg)
{
	struct redis_actor *a = self;
	struct ty_tier_io *io = ty_tier_packed(a->tier, msg);

	if (io)
		carry_out(a, io);
}

/* Answered before its command is over; one that still waits for its turn is over with it. An unpacker writes to its places: it looks by
 * itself, and is soon done. */
static void give_up(struct redis_actor *a, struct redis_command *c, enum ty_tier_outcome outcome)
{
	struct ty_tier_io **io = redis_command_io(c);

	if (c->unpack)
		return;
	if (*io)
		ty_tier_complete(a->tier, *io, outcome, NULL);
	*io = NULL;
	if (c->turn.waits)
		redis_command_free(c);
}

static void on_tick(void *self, struct ty_msg *msg)
{
	struct redis_actor *a = self;
	int64_t now = ty_now();

	(void)msg;
	a->ticking = false;
	for (struct redis_command *c = a->commands, *next; c; c = next) {
		const struct ty_tier_io *io = *redis_command_io(c);

		next = c->next;
		if (io && now >= io->deadline)
			give_up(a, c, TY_TIER_LATE);
	}
	redis_nodes_check(a, now);
	if (a->commands)
		keep_ticking(a);
}

static void on_stop(void *self, struct ty_msg *msg)
{
	struct redis_actor *a = self;

	(void)msg;
	a->stopping = true;
	for (struct redis_command *c = a->commands, *next; c; c = next) {
		next = c->next;
		give_up(a, c, TY_TIER_STOPPED);
	}
}

static void on_start(void *self, struct ty_msg *msg)
{
	struct redis_actor *a = self;

	(void)msg;
	for (uint32_t i = 0; i < a->redis->seed_count; i++) {
		struct redis_node *node = redis_node_at(a, a->redis->seed[i].host, a->redis->seed[i].port);

		if (node)
			(void)redis_node_connect(node);
	}
	/* Whether a server is there is seen io by io: one that comes back serves at once.
	 * release: pairs with ty_tier_submit's acquire */
	atomic_store_explicit(&a->tier->stats.state, TY_TIER_SERVING, memory_order_release);
}

/* ---- the loop ------------------------------------------------------------------------------------------------------ */

static void wake(void *self)
{
	struct redis_actor *a = self;

	ty_waiter_wake(&a->redis->waiter);
}

static void wait_for_events(void *self, int64_t deadline)
{
	struct redis_actor *a = self;
	int64_t left = deadline == TY_NEVER ? -1 : deadline - ty_now();

	if (deadline == TY_NEVER || left > 0)
		ty_waiter_wait(&a->redis->waiter, left);
}

static int64_t poll_servers(void *self, int64_t now)
{
	return redis_poll(self) ? now : TY_NEVER;
}

static enum ty_code start(void *self, void *arg)
{
	struct redis_actor *a = self;

	a->tier = arg;
	a->redis = a->tier->state;
	a->due_end = &a->due;
	memset(a->slots, REDIS_NO_NODE, sizeof a->slots);
	return TY_OK;
}

static void stop(void *self)
{
	struct redis_actor *a = self;

	redis_nodes_close(a); /* its commands end ... */
	redis_commands_go_on(a); /* ... and what waited for them was answered before */
	assert(!a->commands);
}

static const struct ty_handler handlers[] = {
	[TY_TIER_START - TY_TIER_START] = {"start", on_start},
	[TY_TIER_IO - TY_TIER_START] = {"io", on_io},
	[TY_TIER_STOP - TY_TIER_START] = {"stop", on_stop},
	[TY_TIER_PACKED - TY_TIER_START] = {"packed", on_packed},
	[TY_TIER_UNPACKED - TY_TIER_START] = {"unpacked", on_unpacked},
	[REDIS_TICK - TY_TIER_START] = {"tick", on_tick},
};

static const struct ty_class redis_class = {
	.name = "redis",
	.state_size = sizeof(struct redis_actor),
	.first_type = TY_TIER_START,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.stop = stop,
	.poll = poll_servers,
	.wait = {wait_for_events, wake},
};

const struct ty_tier_class ty_redis_tier = {
	.kind = "redis",
	.open = redis_open,
	.close = redis_close,
	.actor = &redis_class,
	.executor = TY_DEDICATED,
};

const struct ty_tier_class ty_rediss_tier = {
	.kind = "rediss",
	.open = redis_open,
	.close = redis_close,
	.actor = &redis_class,
	.executor = TY_DEDICATED,
};
