/* SPDX-License-Identifier: Apache-2.0
 *
 * What the service has the owner do. Everything is held against what is ours before the owner sees it: block ids against the layout of
 * the offered pool, slots against the pieces that are registered.
 */
#include "link.h"

#include <assert.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/tsan.h"

static void send_owner(struct link *l, struct ty_msg *msg, uint32_t type)
{
	enum ty_code sent = ty_send(l->gpu, msg, type);

	assert(sent == TY_OK); /* it ends when nothing is out */
	(void)sent;
}

void link_tell_end(struct link *l, enum ty_owner_type type, uint64_t number, enum ty_code code, const char *text)
{
	struct ty_owner_frame frame = {.type = type, .end = {.number = number, .code = code}};

	snprintf(frame.end.text, sizeof frame.end.text, "%.*s", TY_OWNER_TEXT_MAX, code == TY_OK ? "" : text);
	link_send(l, &frame);
}

/* ---- pieces --------------------------------------------------------------------------------------------------------------- */

enum ty_code link_on_piece(struct link *l, const struct ty_owner_frame *frame, struct ty_error *err)
{
	uint32_t index = frame->piece.index;
	struct ty_piece *piece;

	if (index >= l->service->arena.pieces || l->pieces[index] != PIECE_UNKNOWN)
		return ty_fail(err, TY_PROTOCOL, "the service says that piece %u is there, of %u; or says so twice", index,
			l->service->arena.pieces);
	piece = calloc(1, sizeof *piece);
	if (!piece)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a piece");
	piece->msg = (struct ty_msg)TY_MSG_INIT;
	piece->index = index;
	piece->home = ty_self();
	piece->home_type = TY_LINK_PIECE;
	l->pieces[index] = PIECE_COMING;
	l->pieces_out++;
	send_owner(l, &piece->msg, TY_GPU_PIECE);
	return TY_OK;
}

static void go_on(struct link *l, struct link_job *job);

void link_piece_back(struct link *l, struct ty_piece *piece)
{
	struct link_job *next;

	l->pieces[piece->index] = piece->code == TY_OK ? PIECE_READY : PIECE_FAILED;
	l->pieces_out--;
	if (piece->code == TY_OK)
		atomic_fetch_add_explicit(&l->embed->pieces, 1, memory_order_relaxed);
	else
		ty_log(TY_LOG_WARN, "embed", "64 MiB of the arena cannot be registered with the device here: %s", piece->error.text);
	free(piece);
	for (struct link_job *job = l->jobs; job; job = next) {
		next = job->next;
		if (job->parked)
			go_on(l, job);
	}
}

/* ---- pools ---------------------------------------------------------------------------------------------------------------- */

static struct link_pool *find_pool(struct link *l, uint64_t number)
{
	struct link_pool *p = l->pools;

	while (p && p->number != number)
		p = p->next;
	return p;
}

void link_free_memory(struct link_memory *m)
{
	ty_timeline_unref(m->timeline);
	free(m->pool);
	free(m);
}

static void drop_memory(struct link *l, struct link_memory *m)
{
	struct link_memory **link = &l->memories;

	if (m->uses || !m->withdrawn)
		return;
	while (*link != m)
		link = &(*link)->next;
	*link = m->next;
	link_free_memory(m);
}

static void free_pool(struct link *l, struct link_pool *p)
{
	struct link_pool **link = &l->pools;

	while (*link != p)
		link = &(*link)->next;
	*link = p->next;
	p->memory->uses--;
	drop_memory(l, p->memory);
	free(p->layout);
	free(p);
}

/* The layout of what was offered, as the service must see it too. */
static enum ty_code make_layout(const struct link_memory *m, const struct ty_owner_frame *frame, struct ty_layout **out,
	struct ty_error *err)
{
	enum ty_code code = ty_layout_create(m->pool, frame->map.chunk_tokens, TY_PIECE_BYTES, out, err);

	if (code != TY_OK)
		return code;
	if ((*out)->chunk_bytes == frame->map.chunk_bytes &&
		memcmp((*out)->fingerprint, frame->map.fingerprint, TY_KEY_BYTES) == 0)
		return TY_OK;
	free(*out);
	*out = NULL;
	return ty_fail(err, TY_INVALID, "memory %llu was registered as another pool than it was offered as",
		(unsigned long long)m->number);
}

void link_take_offers(struct link *l)
{
	/* acquire: pairs with ty_embed_offer's release */
	struct link_memory *m = atomic_exchange_explicit(&l->embed->offered, NULL, memory_order_acquire), *next;

	for (; m; m = next) {
		next = m->next;
		m->next = l->memories;
		l->memories = m;
	}
}

enum ty_code link_on_map(struct link *l, const struct ty_owner_frame *frame, struct ty_error *err)
{
	struct link_memory *m;
	struct ty_layout *layout = NULL;
	struct link_pool *p;
	enum ty_code code;

	if (find_pool(l, frame->map.map))
		return ty_fail(err, TY_PROTOCOL, "the service maps pool %llu twice", (unsigned long long)frame->map.map);
	link_take_offers(l);
	for (m = l->memories; m && m->number != frame->map.memory;)
		m = m->next;
	if (!m || m->withdrawn) {
		link_tell_end(l, TY_OWNER_MAPPED, frame->map.map, TY_INVALID, "memory: this owner was offered none of this number");
		return TY_OK;
	}
	code = make_layout(m, frame, &layout, err);
	p = code == TY_OK ? calloc(1, sizeof *p) : NULL;
	if (!p) {
		link_tell_end(l, TY_OWNER_MAPPED, frame->map.map, code == TY_OK ? TY_NO_MEMORY : code, code == TY_OK ? "no memory" : err->text);
		free(layout);
		return TY_OK;
	}
	p->number = frame->map.map;
	p->memory = m;
	p->layout = layout;
	p->next = l->pools;
	l->pools = p;
	m->uses++;
	p->map.msg = (struct ty_msg)TY_MSG_INIT;
	p->map.home = ty_self();
	p->map.home_type = TY_LINK_MAPPED;
	p->map.layout = layout;
	p->map.pool = m->pool;
	p->map.regions = m->pool->regions;
	p->map.region_count = m->pool->region_count;
	p->away = true;
	send_owner(l, &p->map.msg, TY_GPU_MAP);
	return TY_OK;
}

/* Away with it, as soon as nothing of it is out. */
static void close_pool(struct link *l, struct link_pool *p)
{
	p->leaving = true;
	if (p->jobs || p->away)
		return;
	if (!p->map.mapping) {
		free_pool(l, p);
		return;
	}
	p->away = true;
	p->map.home_type = TY_LINK_UNMAPPED;
	send_owner(l, &p->map.msg, TY_GPU_UNMAP);
}

void link_mapped(struct link *l, struct ty_map *map)
{
	struct link_pool *p = ty_container_of(map, struct link_pool, map);

	p->away = false;
	link_tell_end(l, TY_OWNER_MAPPED, p->number, map->code, map->error.text);
	if (map->code != TY_OK)
		map->mapping = NULL;
	if (map->code != TY_OK || p->leaving)
		close_pool(l, p);
}

enum ty_code link_on_unmap(struct link *l, const struct ty_owner_frame *frame, struct ty_error *err)
{
	struct link_pool *p = find_pool(l, frame->end.number);

	if (!p || p->leaving || p->jobs || p->away)
		return ty_fail(err, TY_PROTOCOL, "the service unmaps pool %llu, which is not there, or in use",
			(unsigned long long)frame->end.number);
	p->told = true;
	close_pool(l, p);
	return TY_OK;
}

void link_unmapped(struct link *l, struct ty_map *map)
{
	struct link_pool *p = ty_container_of(map, struct link_pool, map);
	struct ty_owner_frame frame = {.type = TY_OWNER_UNMAPPED, .end.number = p->number};

	p->away = false;
	if (p->told)
		link_send(l, &frame);
	free_pool(l, p);
}

/* ---- operations ----------------------------------------------------------------------------------------------------------- */

/* On the owner's thread. The slots are granted as long as the service lives; its connection ends before another one has its
 * arena. */
static bool holds(const struct ty_op *op)
{
	const struct link_job *job = ty_container_of(op, struct link_job, op);
	struct pollfd p = {.fd = job->home->stream.fd, .events = POLLRDHUP}; /* open as long as a job is out */

	return poll(&p, 1, 0) == 0;
}

static void free_job(struct link_job *job)
{
	free(job->op.blocks);
	free(job->op.copies);
	ty_op_free_steps(&job->op);
	free(job->offsets);
	free(job);
}

/* What the engine did to its blocks comes before the request that it sends, and what is done here before its answer. Between them lie
 * sockets and the service, which ThreadSanitizer does not see through. */
static void tell_order(const struct link_pool *p, bool came)
{
	uintptr_t at = (uintptr_t)p->memory->pool->regions[0].address;

	if (came)
		ty_tsan_acquire(at);
	else
		ty_tsan_release(at);
}

static void end_job(struct link *l, struct link_job *job)
{
	struct link_pool *p = job->pool;

	tell_order(p, false);
	link_tell_end(l, TY_OWNER_DONE, job->number, job->op.code, job->op.error);
	*job->link = job->next;
	if (job->next)
		job->next->link = job->link;
	free_job(job);
	p->jobs--;
	if (p->leaving)
		close_pool(l, p);
}

void link_copied(struct link *l, struct ty_op *op)
{
	end_job(l, ty_container_of(op, struct link_job, op));
}

/* Its pieces have all been looked at by the owner? Then it is its turn. */
static void go_on(struct link *l, struct link_job *job)
{
	struct ty_op *op = &job->op;
	bool coming = false;

	for (uint32_t i = 0; i < op->count; i++) {
		uint8_t state = l->pieces[job->offsets[i] / TY_PIECE_BYTES];

		coming |= state == PIECE_COMING;
		if (state == PIECE_FAILED)
			ty_op_fail(op, TY_DEVICE_FAILED, "a slot lies in memory that could not be registered with the device");
	}
	if (ty_op_cancelled(op))
		ty_op_fail(op, TY_CANCELLED, "cancelled before its copy began");
	job->parked = coming && op->code == TY_OK;
	if (job->parked)
		return;
	if (op->code == TY_OK) {
		send_owner(l, &op->msg, TY_GPU_TRANSFER);
		return;
	}
	if (op->kind == TY_OP_STORE)
		ty_op_raise_done(op);
	end_job(l, job);
}

static enum ty_code check_slots(const struct link *l, const struct link_job *job, struct ty_error *err)
{
	uint64_t bytes = job->pool->layout->chunk_bytes;

	for (uint32_t i = 0; i < job->op.count; i++) {
		uint64_t at = job->offsets[i], piece = at / TY_PIECE_BYTES;

		if (at >= l->service->arena.bytes || at % TY_SLOT_ALIGN || bytes > TY_PIECE_BYTES - at % TY_PIECE_BYTES ||
			l->pieces[piece] == PIECE_UNKNOWN)
			return ty_fail(err, TY_PROTOCOL, "the service grants a slot at %llu, which is no place for %llu bytes in a piece that it "
				"told of", (unsigned long long)at, (unsigned long long)bytes);
	}
	return TY_OK;
}

static enum ty_code fill_job(struct link *l, struct link_job *job, const struct ty_owner_grant *g, struct ty_error *err)
{
	struct ty_op *op = &job->op;
	const struct ty_layout *layout = job->pool->layout;

	op->copies = calloc(g->count, sizeof *op->copies);
	op->blocks = malloc((size_t)g->count * g->blocks_per_chunk * sizeof *op->blocks);
	job->offsets = malloc(g->count * sizeof *job->offsets);
	if (!op->copies || !op->blocks || !job->offsets)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a grant of %u chunks", g->count);
	ty_owner_grant_read(g, job->offsets, op->blocks);
	op->msg = (struct ty_msg)TY_MSG_INIT;
	op->kind = g->store ? TY_OP_STORE : TY_OP_RETRIEVE;
	op->id = g->op;
	op->copied = ty_self();
	op->copied_type = TY_LINK_COPIED;
	op->holds = holds;
	op->client = g->client;
	op->weight = g->weight;
	op->deadline = g->left_us < (uint64_t)INT64_MAX / 2000 ? ty_now() + (int64_t)g->left_us * 1000 : TY_NEVER;
	op->layout = layout;
	op->mapping = job->pool->map.mapping;
	op->timeline = job->pool->memory->timeline;
	op->ready = g->ready;
	op->done = g->done;
	op->layers = g->layers;
	op->count = op->copy_count = g->count;
	for (uint32_t i = 0; i < g->count; i++)
		op->copies[i] = (struct ty_copy){.host = l->service->arena.base + job->offsets[i],
			.blocks = op->blocks + (size_t)i * g->blocks_per_chunk};
	return op->layers.word ? ty_op_make_steps(op, err) : TY_OK;
}

enum ty_code link_on_grant(struct link *l, const struct ty_owner_frame *frame, struct ty_error *err)
{
	const struct ty_owner_grant *g = &frame->grant;
	struct link_pool *p = find_pool(l, g->map);
	struct link_job *job;
	enum ty_code code;

	if (!p || p->away || p->leaving || !p->map.mapping)
		return ty_fail(err, TY_PROTOCOL, "the service grants slots for pool %llu, which is not mapped", (unsigned long long)g->map);
	if (g->blocks_per_chunk != p->layout->blocks_per_chunk || (g->layers.word && (g->store || !p->layout->step_count)) ||
		(g->layers.word && g->layers.value > UINT64_MAX - TY_MAX_STEPS))
		return ty_fail(err, TY_PROTOCOL, "the service's grant does not fit its pool: %u blocks a chunk, layers %u", g->blocks_per_chunk,
			g->layers.word);
	job = calloc(1, sizeof *job);
	if (!job)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a grant");
	job->number = g->op;
	job->pool = p;
	job->home = l;
	code = fill_job(l, job, g, err);
	if (code == TY_OK)
		code = check_slots(l, job, err);
	if (code == TY_OK && ty_layout_check_blocks(p->layout, job->op.blocks, g->count, !g->store, !g->store, err) != TY_OK)
		code = TY_PROTOCOL;
	if (code != TY_OK) {
		free_job(job);
		return code;
	}
	job->next = l->jobs;
	job->link = &l->jobs;
	if (job->next)
		job->next->link = &job->next;
	l->jobs = job;
	p->jobs++;
	tell_order(p, true);
	go_on(l, job);
	return TY_OK;
}

void link_on_cancel(struct link *l, const struct ty_owner_frame *frame)
{
	for (struct link_job *job = l->jobs; job; job = job->next) {
		if (job->number != frame->end.number)
			continue;
		(void)ty_op_cancel(&job->op);
		if (job->parked)
			go_on(l, job);
		return;
	}
}

/* Those that the owner has come home soon; pools are unmapped behind them. */
void link_end_all(struct link *l)
{
	struct link_job *next;
	struct link_pool *after;

	for (struct link_job *job = l->jobs; job; job = next) {
		next = job->next;
		(void)ty_op_cancel(&job->op);
		if (job->parked)
			go_on(l, job);
	}
	for (struct link_pool *p = l->pools; p; p = after) {
		after = p->next;
		if (!p->leaving)
			close_pool(l, p);
	}
}
