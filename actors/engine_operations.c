/* SPDX-License-Identifier: Apache-2.0
 *
 * RETRIEVE and STORE: everything a client said is checked here, before a descriptor is built; then an op sets out
 * (op.h says on which way), and what comes back is answered here.
 */
#include "engine_state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* What both verbs say, under one name each. */
struct demand {
	enum ty_op_kind kind;
	uint64_t session;
	uint32_t registration, first, count;
	Tyer__V1__BlockIds *const *blocks;
	size_t groups;
	const Tyer__V1__Mark *ready, *done;
	const Tyer__V1__Chain *append;
	const Tyer__V1__Hint *hint;
	const Tyer__V1__Mark *layers;
};

static enum ty_code check_mark(const Tyer__V1__Mark *mark, const char *field, struct ty_mark *out, struct ty_error *err)
{
	*out = (struct ty_mark){0};
	if (!mark || !mark->word)
		return TY_OK;
	if (mark->word >= TY_TIMELINE_WORDS)
		return ty_fail(err, TY_INVALID, "%s.word: %u; expected 1..%d, or 0 for none", field, mark->word,
			TY_TIMELINE_WORDS - 1);
	*out = (struct ty_mark){mark->word, mark->value};
	return TY_OK;
}

static enum ty_code check_layers(const struct demand *d, const struct ty_layout *layout, struct ty_op *op, struct ty_error *err)
{
	enum ty_code code = check_mark(d->layers, "layers", &op->layers, err);

	if (code != TY_OK || !op->layers.word)
		return code;
	if (!layout->step_count)
		return ty_fail(err, TY_INVALID, "layers: the registration declared no steps");
	if (op->layers.value > UINT64_MAX - TY_MAX_STEPS)
		return ty_fail(err, TY_INVALID, "layers.value: %llu; the last step's would not fit 64 bits",
			(unsigned long long)op->layers.value);
	return TY_OK;
}

static enum ty_code check_shape(const struct engine *e, const struct demand *d, const struct ty_layout *layout, struct ty_error *err)
{
	uint32_t limit = e->service->config->max_operation_chunks;

	if (!d->count || d->count > limit)
		return ty_fail(err, TY_INVALID, "count: %u chunks; expected 1..%u (max-operation-chunks)", d->count, limit);
	if (d->groups != layout->group_count)
		return ty_fail(err, TY_INVALID, "blocks: %zu groups; the registration has %u", d->groups, layout->group_count);
	for (uint32_t g = 0; g < layout->group_count; g++) {
		uint64_t expected = (uint64_t)d->count * layout->groups[g].blocks_per_chunk;

		if (d->blocks[g]->n_ids != expected)
			return ty_fail(err, TY_INVALID, "blocks[%u].ids: %zu ids; expected %llu (%u chunks of %u blocks)", g,
				d->blocks[g]->n_ids, (unsigned long long)expected, d->count, layout->groups[g].blocks_per_chunk);
	}
	return TY_OK;
}

/* The wire has the ids group by group; a copy wants them chunk by chunk. */
static void transpose_blocks(const struct demand *d, const struct ty_layout *layout, uint32_t *out)
{
	for (uint32_t c = 0; c < d->count; c++) {
		for (uint32_t g = 0; g < layout->group_count; g++) {
			uint32_t n = layout->groups[g].blocks_per_chunk;

			memcpy(out + layout->groups[g].first_block, d->blocks[g]->ids + (size_t)c * n, n * sizeof *out);
		}
		out += layout->blocks_per_chunk;
	}
}

/* The engine's own limits; those of all engines together come last (take_credit). */
static enum ty_code check_credit(const struct engine *e, uint64_t bytes, struct ty_error *err)
{
	const struct ty_config *config = e->service->config;

	if (e->flight_count >= config->max_operations)
		return ty_fail(err, TY_BUSY, "max-operations: %u in flight", e->flight_count);
	/* One that is larger than the limit itself may fly alone. */
	if (e->flight_count && (bytes > config->max_operation_bytes || e->flight_bytes > config->max_operation_bytes - bytes))
		return ty_fail(err, TY_BUSY, "max-operation-bytes: %llu in flight", (unsigned long long)e->flight_bytes);
	return TY_OK;
}

static void free_flight(struct flight *f)
{
	free(f->op.chunks);
	free(f->op.blocks);
	free(f->op.copies);
	ty_op_free_steps(&f->op);
	free(f);
}

/* An op with room for everything, its blocks filled in and checked; null: see err. */
static struct flight *build(const struct demand *d, struct registration *r, struct ty_exchange *x, struct ty_error *err)
{
	const struct ty_layout *layout = r->layout;
	struct flight *f = calloc(1, sizeof *f);
	enum ty_code code = TY_OK;

	if (!f) {
		(void)ty_fail(err, TY_NO_MEMORY, "no memory for an operation");
		return NULL;
	}
	f->op.chunks = calloc(d->count, sizeof *f->op.chunks);
	f->op.copies = calloc(d->count, sizeof *f->op.copies);
	f->op.blocks = malloc((size_t)d->count * layout->blocks_per_chunk * sizeof *f->op.blocks);
	if (!f->op.chunks || !f->op.copies || !f->op.blocks)
		code = ty_fail(err, TY_NO_MEMORY, "no memory for an operation of %u chunks", d->count);
	if (code == TY_OK)
		code = check_mark(d->ready, "ready", &f->op.ready, err);
	if (code == TY_OK)
		code = check_mark(d->done, "done", &f->op.done, err);
	if (code == TY_OK)
		code = check_layers(d, layout, &f->op, err);
	if (code == TY_OK) {
		transpose_blocks(d, layout, f->op.blocks);
		code = ty_layout_check_blocks(layout, f->op.blocks, d->count, d->kind == TY_OP_RETRIEVE,
			d->kind == TY_OP_RETRIEVE, err);
	}
	if (code != TY_OK) {
		free_flight(f);
		return NULL;
	}
	f->peer = r->peer;
	f->registration = r;
	f->exchange = x;
	f->bytes = d->count * layout->chunk_bytes;
	f->request = x->request->id;
	f->session = d->session;
	f->began = ty_now();
	f->op.kind = d->kind;
	f->op.home = ty_self();
	f->op.home_type = TY_ENGINE_OP_DONE;
	f->op.deadline = x->deadline;
	f->op.layout = layout;
	f->op.mapping = r->map.mapping;
	f->op.timeline = r->peer->member->timeline;
	f->op.count = d->count;
	if (f->op.layers.word && ty_op_make_steps(&f->op, err) != TY_OK) {
		free_flight(f);
		return NULL;
	}
	return f;
}

/* Among all engines. On TY_OK it has a row, which it gives back when it lands. */
static enum ty_code take_credit(struct engine *e, struct flight *f, struct ty_error *err)
{
	enum ty_code code = ty_op_table_take(&e->service->operations, f->bytes, e->flight_count, e->flight_bytes, &f->op.row, err);

	if (code == TY_OK)
		ty_op_row_write(f->op.row, &(struct ty_op_seen){
			.id = f->request, .client = f->peer->member->client, .session = f->session, .began = f->began,
			.retrieve = f->op.kind == TY_OP_RETRIEVE, .device = f->registration->device, .chunks = f->op.count,
			.state = f->op.kind == TY_OP_RETRIEVE ? TY_OP_QUEUED : TY_OP_RESERVING,
		});
	return code;
}

/* From here on the op is out: its slots, pins and blocks are its own until it lands. */
static void set_out(struct engine *e, struct flight *f, struct ty_actor *to, uint32_t type)
{
	f->op.id = ++e->last_op;
	f->op.mover = e->service->gpu[f->registration->device];
	f->op.mover_type = TY_GPU_TRANSFER;
	f->op.copied = f->op.kind == TY_OP_STORE ? e->service->eviction : f->op.home;
	f->op.copied_type = f->op.kind == TY_OP_STORE ? TY_EVICTION_COMMIT : f->op.home_type;
	f->op.client = f->peer->member->client;
	f->op.weight = f->peer->member->weight;
	f->next = e->flights;
	f->link = &e->flights;
	if (f->next)
		f->next->link = &f->next;
	e->flights = f;
	e->flight_count++;
	e->flight_bytes += f->bytes;
	f->registration->flights++;
	f->peer->uses++;
	engine_watch(e);
	enum ty_code sent = ty_send(to, &f->op.msg, type);
	assert(sent == TY_OK); /* owners and eviction outlive engines */
}

/* All the checks that do not depend on the verb. On TY_OK *session and *registration are set. */
static enum ty_code admit(struct engine *e, struct peer *peer, const struct demand *d, struct session **session,
	struct registration **registration, struct ty_error *err)
{
	struct session *s = engine_find_session(e, d->session);
	struct registration *r = engine_find_registration(e, peer, d->registration);
	enum ty_code code;

	if (!s)
		return ty_fail(err, TY_UNKNOWN_SESSION, "session: %llu is not open; LOOKUP opens one",
			(unsigned long long)d->session);
	if (!r || r->state != REG_READY)
		return ty_fail(err, TY_UNKNOWN_REGISTRATION, "registration: this client has none with number %u",
			d->registration);
	code = check_shape(e, d, r->layout, err);
	if (code == TY_OK)
		code = check_credit(e, d->count * r->layout->chunk_bytes, err);
	*session = s;
	*registration = r;
	return code;
}

/* ---- RETRIEVE ------------------------------------------------------------------------------------------- */

static bool all_skipped(const uint32_t *blocks, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (blocks[i] != TY_BLOCK_SKIP)
			return false;
	return true;
}

/* Pin each chunk for the op (the lease may end before it) and say where it lies. */
static void aim(struct engine *e, struct flight *f, const struct session *s, uint32_t first)
{
	struct ty_op *op = &f->op;
	uint32_t per_chunk = op->layout->blocks_per_chunk;

	for (uint32_t i = 0; i < op->count; i++) {
		struct ty_chunk *chunk = s->lease->chunks[first + i];
		uint32_t slot;

		assert(chunk->parts == op->layout->parts && chunk->length == op->layout->chunk_bytes); /* else it had not been leased */
		slot = chunk->slots[op->layout->part];
		ty_chunk_pin(chunk);
		op->chunks[i] = (struct ty_op_chunk){.key = chunk->key, .chunk = chunk, .slot = slot, .fate = TY_FATE_MOVE};
		if (all_skipped(op->blocks + (size_t)i * per_chunk, per_chunk))
			continue;
		op->copies[op->copy_count++] = (struct ty_copy){
			.host = ty_slots_address(e->service->slots, slot),
			.blocks = op->blocks + (size_t)i * per_chunk,
		};
	}
}

/* A chunk may have been found wrong since it was leased. */
static enum ty_code check_chunks(const struct session *s, const struct demand *d, struct ty_error *err)
{
	for (uint32_t i = d->first; i < d->first + d->count; i++)
		if (ty_chunk_state(s->lease->chunks[i]) != TY_CHUNK_READY)
			return ty_fail(err, TY_NOT_LEASED, "first, count: chunk %u was damaged in memory: it is lost, LOOKUP again", i);
	return TY_OK;
}

void engine_retrieve(struct engine *e, struct peer *peer, struct ty_exchange *x)
{
	const Tyer__V1__Retrieve *q = x->request->retrieve;
	struct demand d = {TY_OP_RETRIEVE, q->session, q->registration, q->first, q->count, q->blocks, q->n_blocks, q->ready,
		q->done, NULL, NULL, q->layers};
	struct registration *r;
	struct session *s;
	struct flight *f = NULL;
	struct ty_error err = {.code = TY_OK};
	enum ty_code code = admit(e, peer, &d, &s, &r, &err);

	if (code == TY_OK) {
		uint32_t leased = s->lease ? s->lease->count : 0;

		if (d.first > leased || d.count > leased - d.first)
			code = ty_fail(&err, TY_NOT_LEASED, "first, count: chunks %u..%llu; the session's last LOOKUP found %u", d.first,
				(unsigned long long)d.first + d.count, leased);
	}
	if (code == TY_OK)
		code = check_chunks(s, &d, &err);
	if (code == TY_OK) {
		f = build(&d, r, x, &err);
		code = f ? take_credit(e, f, &err) : err.code;
	}
	if (code != TY_OK) {
		ty_exchange_refuse(x, code, "%s", err.text);
		if (f)
			free_flight(f);
		return;
	}
	aim(e, f, s, d.first);
	if (f->op.copy_count)
		set_out(e, f, e->service->gpu[r->device], TY_GPU_TRANSFER);
	else /* nothing to write: it lands at once, by the same way */
		set_out(e, f, ty_self(), TY_ENGINE_OP_DONE);
}

/* ---- STORE ---------------------------------------------------------------------------------------------- */

/* Are the chunks in the chain, as it will be? */
static enum ty_code check_range(const struct engine *e, const struct session *s, const struct demand *d, struct ty_error *err)
{
	size_t more;
	enum ty_code code = engine_chain_length(e, d->append, &more, err);

	if (code == TY_OK && (uint64_t)d->first + d->count > s->chunks + more)
		code = ty_fail(err, TY_INVALID, "first, count: chunks %u..%llu; the session's chain has %zu", d->first,
			(unsigned long long)d->first + d->count, s->chunks + more);
	return code;
}

void engine_store(struct engine *e, struct peer *peer, struct ty_exchange *x)
{
	const Tyer__V1__Store *q = x->request->store;
	struct demand d = {TY_OP_STORE, q->session, q->registration, q->first, q->count, q->blocks, q->n_blocks, q->ready,
		q->done, q->append, q->hint, NULL};
	struct registration *r;
	struct session *s;
	struct flight *f = NULL;
	struct ty_error err = {.code = TY_OK};
	enum ty_code code = admit(e, peer, &d, &s, &r, &err);

	if (code == TY_OK) {
		f = build(&d, r, x, &err);
		code = f ? TY_OK : err.code;
	}
	if (code == TY_OK)
		code = check_range(e, s, &d, &err);
	if (code == TY_OK)
		code = engine_hint(e, s, d.hint, &f->op.hint, &err);
	if (code == TY_OK)
		code = take_credit(e, f, &err);
	/* Last, for it changes the session: a request that is refused has changed nothing. */
	if (code == TY_OK)
		code = engine_append(e, s, d.append, &err);
	if (code != TY_OK) {
		ty_exchange_refuse(x, code, "%s", err.text);
		if (f && f->op.row)
			ty_op_table_give(&e->service->operations, f->op.row, f->bytes);
		if (f)
			free_flight(f);
		return;
	}
	for (uint32_t i = 0; i < d.count; i++)
		f->op.chunks[i].key = s->keys[d.first + i];
	f->op.space = e->space;
	set_out(e, f, e->service->eviction, TY_EVICTION_RESERVE);
}

/* ---- landing -------------------------------------------------------------------------------------------- */

void engine_give_up(struct flight *f, enum ty_code code, const char *why)
{
	bool clear = ty_op_cancel(&f->op);

	if (f->exchange) {
		f->answer = code;
		ty_op_row_answered(f->op.row);
		f->exchange->blocks_in_use = !clear;
		ty_exchange_refuse(f->exchange, code, "%s%s", why, clear ? "" : "; a copy may still touch its blocks");
	}
	f->exchange = NULL;
}

static void answer(struct flight *f)
{
	struct ty_exchange *x = f->exchange;
	const struct ty_op *op = &f->op;

	if (op->code != TY_OK) {
		ty_exchange_refuse(x, op->code, "%s", op->error);
		return;
	}
	if (op->kind == TY_OP_RETRIEVE) {
		x->reply.retrieve.chunks = op->count;
	} else {
		x->reply.store.stored = op->stored;
		x->reply.store.present = op->present;
		x->reply.store.dropped = op->dropped;
	}
	ty_exchange_answer(x);
}

void engine_landed(struct engine *e, struct flight *f)
{
	struct registration *r = f->registration;
	struct ty_op *op = &f->op;

	*f->link = f->next;
	if (f->next)
		f->next->link = f->link;
	e->flight_count--;
	e->flight_bytes -= f->bytes;
	if (op->kind == TY_OP_RETRIEVE) {
		if (op->code == TY_OK) { /* if no copy was needed */
			ty_op_raise_layers(op, op->layout->step_count);
			ty_op_raise_done(op);
		}
		for (uint32_t i = 0; i < op->count; i++)
			ty_chunk_unpin(op->chunks[i].chunk);
	}
	if (f->exchange) {
		f->answer = op->code;
		answer(f);
	}
	engine_remember(e, f);
	ty_op_table_give(&e->service->operations, op->row, f->bytes);
	engine_flush_landed(e, f);
	f->peer->uses--;
	r->flights--;
	if (r->state == REG_CLOSING)
		engine_close_registration(e, r);
	free_flight(f);
}
