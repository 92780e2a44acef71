/* SPDX-License-Identifier: Apache-2.0
 *
 * What engines and eviction ask of an owner in an engine's process, and its answers. Nothing that an owner says is believed but this: that
 * what it was granted is over, and how it ended.
 */
#include "embedded_state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "wire/pool.h"

static void send_home(struct ty_actor *to, struct ty_msg *msg, uint32_t type)
{
	enum ty_code sent = ty_send(to, msg, type);

	assert(sent == TY_OK); /* engines and eviction outlive what they sent out */
	(void)sent;
}

/* ---- pools ------------------------------------------------------------------------------------------------------------------ */

static struct owner *find_owner(struct embedded *e, const uint8_t id[TY_OWNER_BYTES])
{
	for (struct owner *o = e->owners; o; o = o->next)
		if (o->greeted && o->stream.fd >= 0 && memcmp(o->id, id, TY_OWNER_BYTES) == 0)
			return o;
	return NULL;
}

static struct lent_pool *find_pool(struct owner *o, uint64_t number)
{
	struct lent_pool *p = o->pools;

	while (p && p->number != number)
		p = p->next;
	return p;
}

static void free_pool(struct lent_pool *p)
{
	struct lent_pool **link = &p->owner->pools;

	while (*link != p)
		link = &(*link)->next;
	*link = p->next;
	free(p);
}

void embedded_map(struct embedded *e, struct ty_map *map)
{
	const struct ty_pool *pool = map->pool;
	struct owner *o = find_owner(e, pool->owner);
	struct ty_owner_frame frame = {.type = TY_OWNER_MAP};
	struct lent_pool *p;

	if (!o || o->pid != map->pid) {
		map->code = ty_fail(&map->error, TY_NO_DEVICE, "owner: %s", o ? "it is another process's, expected one of the client's own"
			: "none of this number is connected");
		send_home(map->home, &map->msg, map->home_type);
		return;
	}
	p = calloc(1, sizeof *p);
	if (!p) {
		map->code = ty_fail(&map->error, TY_NO_MEMORY, "no memory for a pool");
		send_home(map->home, &map->msg, map->home_type);
		return;
	}
	p->owner = o;
	p->number = ++e->last_number;
	p->map = map;
	p->next = o->pools;
	o->pools = p;
	frame.map.map = p->number;
	frame.map.memory = pool->memory;
	frame.map.chunk_bytes = map->layout->chunk_bytes;
	frame.map.chunk_tokens = map->layout->chunk_tokens;
	memcpy(frame.map.fingerprint, map->layout->fingerprint, TY_KEY_BYTES);
	embedded_send(e, o, &frame); /* if it is lost by that, the map has gone home */
}

bool embedded_mapped(struct embedded *e, struct owner *o, const struct ty_owner_frame *frame)
{
	struct lent_pool *p = find_pool(o, frame->end.number);
	struct ty_map *map = p ? p->map : NULL;

	(void)e;
	if (!map || map->mapping)
		return false;
	p->map = NULL;
	map->code = frame->end.code;
	if (map->code == TY_OK) {
		map->mapping = (struct ty_mapping *)(void *)p;
	} else {
		(void)ty_fail(&map->error, map->code, "%s", frame->end.text);
		free_pool(p);
	}
	send_home(map->home, &map->msg, map->home_type);
	return true;
}

static void unmapped(struct lent_pool *p, struct ty_map *map)
{
	map->mapping = NULL;
	free_pool(p);
	send_home(map->home, &map->msg, map->home_type);
}

void embedded_unmap(struct embedded *e, struct ty_map *map)
{
	struct lent_pool *p = (struct lent_pool *)(void *)map->mapping;
	struct ty_owner_frame frame = {.type = TY_OWNER_UNMAP, .end.number = p->number};

	if (p->owner->stream.fd < 0) { /* it is nowhere any more; no operation of it is out */
		unmapped(p, map);
		return;
	}
	p->map = map;
	embedded_send(e, p->owner, &frame);
}

bool embedded_unmapped(struct embedded *e, struct owner *o, const struct ty_owner_frame *frame)
{
	struct lent_pool *p = find_pool(o, frame->end.number);

	(void)e;
	if (!p || !p->map || !p->map->mapping)
		return false;
	unmapped(p, p->map);
	return true;
}

void embedded_drop_maps(struct embedded *e, struct owner *o)
{
	struct lent_pool *next;

	(void)e;
	for (struct lent_pool *p = o->pools; p; p = next) {
		struct ty_map *map = p->map;

		next = p->next;
		if (!map)
			continue;
		p->map = NULL;
		if (map->mapping) {
			unmapped(p, map);
			continue;
		}
		map->code = ty_fail(&map->error, TY_CLOSED, "owner: its connection ended");
		free_pool(p);
		send_home(map->home, &map->msg, map->home_type);
	}
}

/* ---- pieces ----------------------------------------------------------------------------------------------------------------- */

static void tell_piece(struct embedded *e, struct owner *o, uint32_t piece)
{
	struct ty_owner_frame frame = {.type = TY_OWNER_PIECE, .piece.index = piece};

	if (o->told[piece / 8] >> piece % 8 & 1)
		return;
	o->told[piece / 8] |= (uint8_t)(1u << piece % 8);
	embedded_send(e, o, &frame);
}

void embedded_tell_pieces(struct embedded *e, struct owner *o)
{
	for (uint32_t i = 0; i < e->service->arena.pieces && o->stream.fd >= 0; i++)
		if (ty_slots_usable(e->service->slots, i))
			tell_piece(e, o, i);
}

/* ---- operations ------------------------------------------------------------------------------------------------------------- */

static void finish(struct embedded *e, struct ty_op *op)
{
	if (op->code == TY_OK)
		embedded_count(op->kind == TY_OP_STORE ? &e->stats->stored_bytes : &e->stats->retrieved_bytes,
			op->copy_count * op->layout->chunk_bytes);
	ty_op_clear(op);
	if (op->kind == TY_OP_STORE && op->code != TY_OK) /* its owner may never have had it, and raised no word */
		ty_op_raise_done(op);
	ty_op_row_state(op->row, TY_OP_COMMITTING);
	send_home(op->copied, &op->msg, op->copied_type);
}

static uint32_t piece_of(const struct embedded *e, const uint8_t *slot)
{
	return (uint32_t)((uint64_t)(slot - e->service->arena.base) / TY_PIECE_BYTES);
}

static struct granted *make_granted(struct embedded *e, struct ty_op *op)
{
	struct granted *g = calloc(1, sizeof *g);

	if (g) {
		g->op = op;
		g->number = ++e->last_number;
	}
	return g;
}

static enum ty_code put_grant(struct embedded *e, struct owner *o, const struct granted *g, struct ty_error *err)
{
	const struct ty_op *op = g->op;
	const struct lent_pool *p = (const struct lent_pool *)(const void *)op->mapping;
	int64_t left = (op->deadline - ty_now()) / 1000;
	uint64_t *offsets = malloc(op->copy_count * sizeof *offsets);
	const uint32_t **blocks = malloc(op->copy_count * sizeof *blocks);
	struct ty_owner_frame frame = {.type = TY_OWNER_GRANT, .grant = {
		.op = g->number, .map = p->number, .client = op->client, .left_us = left > 0 ? (uint64_t)left : 0, .weight = op->weight,
		.store = op->kind == TY_OP_STORE, .ready = op->ready, .done = op->done, .layers = op->layers, .count = op->copy_count,
		.blocks_per_chunk = op->layout->blocks_per_chunk, .offsets = offsets, .blocks = blocks}};
	enum ty_code code = TY_OK;

	if (!offsets || !blocks)
		code = ty_fail(err, TY_NO_MEMORY, "no memory for a grant of %u chunks", op->copy_count);
	for (uint32_t i = 0; code == TY_OK && i < op->copy_count; i++) {
		offsets[i] = (uint64_t)(op->copies[i].host - e->service->arena.base);
		blocks[i] = op->copies[i].blocks;
	}
	if (code == TY_OK)
		code = ty_owner_put(&o->stream, &frame, err);
	free(offsets);
	free(blocks);
	return code;
}

void embedded_transfer(struct embedded *e, struct ty_op *op)
{
	struct owner *o = ((struct lent_pool *)(void *)op->mapping)->owner;
	struct granted *g = make_granted(e, op);
	struct ty_error err = {.text = ""};
	enum ty_code code = TY_OK;

	for (uint32_t i = 0; g && i < op->copy_count && o->stream.fd >= 0; i++)
		tell_piece(e, o, piece_of(e, op->copies[i].host));
	if (!g)
		code = ty_fail(&err, TY_NO_MEMORY, "no memory for a grant");
	else if (o->stream.fd < 0)
		code = ty_fail(&err, TY_CLOSED, "the owner in the engine's process is gone");
	else if (!ty_op_begin(op))
		code = ty_fail(&err, TY_CANCELLED, "cancelled before its copy began");
	else
		code = put_grant(e, o, g, &err);
	if (code != TY_OK) {
		free(g);
		ty_op_fail(op, code, "%.150s", err.text);
		finish(e, op);
		return;
	}
	ty_op_row_state(op->row, TY_OP_COPYING);
	g->next = o->granted;
	o->granted = g;
	embedded_count(&e->stats->out, 1);
	embedded_send(e, o, NULL);
}

static void end(struct embedded *e, struct granted **link)
{
	struct granted *g = *link;
	struct ty_op *op = g->op;

	*link = g->next;
	free(g);
	embedded_count(&e->stats->out, (uint64_t)-1);
	finish(e, op);
}

bool embedded_done(struct embedded *e, struct owner *o, const struct ty_owner_frame *frame)
{
	struct granted **link = &o->granted;

	while (*link && (*link)->number != frame->end.number)
		link = &(*link)->next;
	if (!*link)
		return false;
	if (frame->end.code != TY_OK)
		ty_op_fail((*link)->op, frame->end.code, "%s", frame->end.text[0] ? frame->end.text : ty_code_name(frame->end.code));
	end(e, link);
	return true;
}

void embedded_cancel(struct embedded *e, struct owner *o)
{
	for (struct granted *g = o->granted; g && o->stream.fd >= 0; g = g->next) {
		struct ty_owner_frame frame = {.type = TY_OWNER_CANCEL, .end.number = g->number};

		if (g->cancel_sent || !ty_op_cancelled(g->op))
			continue;
		g->cancel_sent = true;
		embedded_send(e, o, &frame);
	}
}

void embedded_drop_granted(struct embedded *e, struct owner *o)
{
	while (o->granted) {
		ty_op_fail(o->granted->op, TY_CANCELLED, "the engine's process, whose owner had it, has ended");
		end(e, &o->granted);
	}
}
