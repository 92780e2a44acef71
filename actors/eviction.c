/* SPDX-License-Identifier: Apache-2.0
 *
 * Four rooms, one below the other:
 *
 *   chunks   a chunk's parts come, its last part makes it visible, eviction takes it away
 *   space    a slot for a part: free, or made free at the cost of the oldest chunks
 *   growth   pieces on their way to the slot table, and ops that wait for them
 *   ops      reserve, commit or give back, release
 *
 * What holds between any two messages: a chunk is in the policy's order exactly when no part of it is being filled
 * (filling == 0); it is visible exactly when all its parts are committed; it is in the index exactly when it has a slot.
 */
#include "eviction.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cache/policy.h"
#include "service.h"

#define MAX_LOOKS 65536              /* chunks looked at in search of victims, for one op; past it there is no space */
#define MAX_RESCUES 1024             /* parked chunks looked at again, for one op */
#define TICK_NS INT64_C(20000000)    /* how often ops that wait are looked at: 20 ms */
#define STUCK_NS INT64_C(1000000000) /* no piece came for so long: nobody waits for the arena to grow any more */

/* A search for victims, for one op: what it has passed by it does not look at again. */
struct search {
	struct ty_chunk *passed;    /* the last one, in the policy's order: older ones are no use for this op; null: none */
	uint32_t looks, rescues;
	uint32_t stamp;             /* of this search, in `tried` */
};

struct eviction {
	struct ty_service *service;
	struct ty_policy *policy;
	uint64_t visible;           /* chunks */

	struct search search;
	uint32_t *tried;            /* a piece's stamp: of the last search that could not empty it */

	uint32_t next_piece;        /* the first one that was never asked for */
	uint32_t coming;            /* pieces on their way ... */
	uint32_t coming_at[TY_MAX_DEVICES]; /* ... by the device that registers them */
	uint32_t next_populate, next_gpu;
	int64_t grown;              /* when a piece came last, or was asked for with none on its way */

	struct ty_op *waiting, **waiting_tail;
	uint64_t waiting_count;
	struct ty_timer tick;
	bool ticking;
};

/* ---- statistics: one writer, this actor ---------------------------------------------------------- */

static void add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

static void publish(struct eviction *e)
{
	struct ty_eviction_stats *stats = &e->service->eviction_stats;

	atomic_store_explicit(&stats->used_bytes, ty_slots_used_bytes(e->service->slots), memory_order_relaxed);
	atomic_store_explicit(&stats->chunks, e->visible, memory_order_relaxed);
	atomic_store_explicit(&stats->waiting, e->waiting_count, memory_order_relaxed);
}

/* ---- chunks -------------------------------------------------------------------------------------- */

static void leave_order(struct eviction *e, struct ty_chunk *chunk)
{
	if (e->search.passed == chunk)
		e->search.passed = NULL;
	e->policy->cls->remove(e->policy, chunk);
}

static void park(struct eviction *e, struct ty_chunk *chunk)
{
	if (e->search.passed == chunk)
		e->search.passed = NULL;
	e->policy->cls->park(e->policy, chunk);
}

/* Somebody is busy with it. */
static void begin_filling(struct eviction *e, struct ty_chunk *chunk)
{
	if (chunk->filling++ == 0)
		leave_order(e, chunk);
}

static void end_filling(struct eviction *e, struct ty_chunk *chunk)
{
	assert(chunk->filling > 0);
	if (--chunk->filling == 0)
		e->policy->cls->insert(e->policy, chunk);
}

static void give_slots(struct eviction *e, struct ty_chunk *chunk)
{
	for (uint32_t part = 0; part < chunk->parts; part++)
		if (chunk->slots[part] != TY_NO_SLOT)
			ty_slots_give(e->service->slots, chunk->slots[part]);
}

static void commit_part(struct eviction *e, struct ty_chunk *chunk, uint32_t part)
{
	ty_slots_commit(e->service->slots, chunk->slots[part]);
	chunk->committed |= UINT64_C(1) << part;
	if (chunk->committed == ty_chunk_all_parts(chunk)) {
		ty_chunk_publish(chunk);
		e->visible++;
	}
	end_filling(e, chunk);
}

/* The part was not filled. The last one to go takes the chunk with it. */
static void abort_part(struct eviction *e, struct ty_chunk *chunk, uint32_t part)
{
	ty_slots_give(e->service->slots, chunk->slots[part]);
	chunk->slots[part] = TY_NO_SLOT;
	if (chunk->filling == 1 && !chunk->committed) {
		bool killed = ty_chunk_kill(chunk); /* it was never visible: nobody has it pinned */

		assert(killed);
		(void)killed;
		ty_index_remove(e->service->index, chunk);
	} else {
		end_filling(e, chunk);
	}
}

/* Take away a chunk that is in the order. False: somebody has just pinned it, and it is parked. */
static bool evict(struct eviction *e, struct ty_chunk *chunk)
{
	bool visible = ty_chunk_state(chunk) == TY_CHUNK_READY;

	assert(chunk->filling == 0);
	if (!ty_chunk_kill(chunk)) {
		park(e, chunk);
		return false;
	}
	leave_order(e, chunk);
	give_slots(e, chunk);
	ty_index_remove(e->service->index, chunk);
	e->visible -= visible;
	add(&e->service->eviction_stats.evictions, 1);
	return true;
}

/* ---- space ----------------------------------------------------------------------------------------- */

static struct ty_chunk *chunk_of_slot(struct eviction *e, uint32_t slot)
{
	struct ty_chunk *chunk = ty_index_find(e->service->index, &ty_slots_record(e->service->slots, slot)->key);

	assert(chunk); /* a slot that is not free belongs to a chunk in the index */
	return chunk;
}

struct reclaim {
	struct eviction *e;
	bool blocked;
};

static bool look_for_blocker(void *user, uint32_t slot)
{
	struct reclaim *r = user;
	struct ty_chunk *chunk = chunk_of_slot(r->e, slot);

	r->blocked = chunk->filling || ty_chunk_pins(chunk);
	return !r->blocked;
}

static bool evict_slot(void *user, uint32_t slot)
{
	struct reclaim *r = user;

	r->blocked = !evict(r->e, chunk_of_slot(r->e, slot));
	return !r->blocked;
}

/* Empty a piece, so that it may be cut for another class. Looks before it evicts: a piece with one pinned chunk in it costs
 * nobody anything. A pin that comes between the looks stops it half way, which the next search makes up for. */
static bool reclaim(struct eviction *e, uint32_t piece)
{
	struct reclaim r = {.e = e};

	ty_slots_each_in_piece(e->service->slots, piece, look_for_blocker, &r);
	if (!r.blocked)
		ty_slots_each_in_piece(e->service->slots, piece, evict_slot, &r);
	if (!r.blocked)
		add(&e->service->eviction_stats.reclaimed_pieces, 1);
	return !r.blocked;
}

/* Empty a piece in which the chunk has a part, unless this search tried it before. */
static bool reclaim_piece_of(struct eviction *e, struct ty_chunk *chunk)
{
	uint32_t parts = chunk->parts, pieces[TY_CHUNK_MAX_PARTS], count = 0;

	for (uint32_t part = 0; part < parts; part++)
		if (chunk->slots[part] != TY_NO_SLOT)
			pieces[count++] = ty_slots_piece(chunk->slots[part]);
	for (uint32_t i = 0; i < count; i++) {
		if (e->tried[pieces[i]] == e->search.stamp)
			continue;
		if (reclaim(e, pieces[i]))
			return true;
		e->tried[pieces[i]] = e->search.stamp;
	}
	return false;
}

static bool has_class(struct eviction *e, const struct ty_chunk *chunk, uint64_t class)
{
	for (uint32_t part = 0; part < chunk->parts; part++)
		if (chunk->slots[part] != TY_NO_SLOT && ty_slots_class(e->service->slots, chunk->slots[part]) == class)
			return true;
	return false;
}

/* Among the parked ones, has somebody's pin gone without a word? A pin that ends by a lease's release is touched then; this
 * is for all others. Looked at in turn, a few for each op. */
static bool rescue(struct eviction *e)
{
	struct ty_chunk *chunk;

	while (e->search.rescues < MAX_RESCUES && (chunk = e->policy->cls->parked(e->policy))) {
		e->search.rescues++;
		e->policy->cls->touch(e->policy, chunk);
		if (!ty_chunk_pins(chunk))
			return true;
		park(e, chunk); /* behind the others */
	}
	return false;
}

/*
 * Make room for a slot of this class. The oldest chunk that nobody has pinned decides: if it has such a slot, it goes. If
 * not, the whole piece that it lies in goes, because only a free piece can change its class; if something in that piece is
 * in use, the next oldest decides. False: there is no such room.
 */
static bool make_room(struct eviction *e, uint64_t class)
{
	for (;;) {
		struct ty_chunk *chunk = e->policy->cls->victim(e->policy, e->search.passed);

		if (!chunk) {
			if (!rescue(e))
				return false;
			continue;
		}
		if (e->search.looks++ >= MAX_LOOKS)
			return false;
		if (ty_chunk_pins(chunk)) {
			park(e, chunk);
		} else if (has_class(e, chunk, class)) {
			if (evict(e, chunk))
				return true;
		} else if (reclaim_piece_of(e, chunk)) {
			return true;
		} else if (!ty_chunk_pins(chunk)) {
			e->search.passed = chunk;
		}
	}
}

static void begin_search(struct eviction *e)
{
	uint32_t stamp = e->search.stamp + 1;

	if (stamp == 0) { /* once in four thousand million ops */
		memset(e->tried, 0, e->service->arena.pieces * sizeof *e->tried);
		stamp = 1;
	}
	e->search = (struct search){.stamp = stamp};
}

/* ---- growth ---------------------------------------------------------------------------------------- */

static bool gpu_is_well(const struct eviction *e, uint32_t gpu)
{
	/* acquire: the owner's state is released with what it says; only the state itself is used here */
	int state = atomic_load_explicit(&e->service->gpu_stats[gpu].state, memory_order_acquire);

	return state == TY_GPU_STARTING || state == TY_GPU_SERVING;
}

static uint32_t gpu_index(const struct eviction *e, const struct ty_actor *gpu)
{
	for (uint32_t i = 0; i < e->service->gpu_count; i++)
		if (e->service->gpu[i] == gpu)
			return i;
	assert(false && "a piece is registered by an owner of the service");
	return 0;
}

/* The owners in turn, those that are well first. */
static uint32_t choose_gpu(struct eviction *e)
{
	uint32_t count = e->service->gpu_count;

	assert(count > 0);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t gpu = (e->next_gpu + i) % count;

		if (gpu_is_well(e, gpu)) {
			e->next_gpu = (gpu + 1) % count;
			return gpu;
		}
	}
	e->next_gpu = (e->next_gpu + 1) % count;
	return e->next_gpu;
}

/* Pieces that may be hoped for: those that lie with a stalled device may never come. */
static uint32_t hoped_for(const struct eviction *e)
{
	uint32_t count = 0;
	bool any = false;

	for (uint32_t i = 0; i < e->service->gpu_count; i++) {
		if (gpu_is_well(e, i)) {
			any = true;
			count += e->coming_at[i];
		}
	}
	return any ? count : e->coming;
}

static bool ask_for_piece(struct eviction *e)
{
	struct ty_service *service = e->service;
	uint32_t gpu = choose_gpu(e), populate = e->next_populate++ % service->populate_count;
	struct ty_piece *piece = calloc(1, sizeof *piece);

	if (!piece)
		return false; /* asked for again when something happens */
	piece->index = e->next_piece;
	piece->gpu = service->gpu[gpu];
	piece->tries = 1;
	if (ty_send(service->populate[populate], &piece->msg, TY_POPULATE_PIECE) != TY_OK) {
		free(piece); /* it stops, and so do we */
		return false;
	}
	if (e->coming++ == 0)
		e->grown = ty_now();
	e->coming_at[gpu]++;
	e->next_piece++;
	return true;
}

/* Keep l1_ahead bytes free or on their way: at least a piece. */
static void grow(struct eviction *e)
{
	struct ty_service *service = e->service;
	uint64_t ahead = (service->config->l1_ahead + TY_PIECE_BYTES - 1) / TY_PIECE_BYTES;

	if (ahead == 0)
		ahead = 1;
	/* acquire: pairs with main's release */
	while (e->next_piece < service->arena.pieces && ty_slots_free_pieces(service->slots) + hoped_for(e) < ahead &&
		!atomic_load_explicit(&service->stopping, memory_order_acquire))
		if (!ask_for_piece(e))
			break;
}

/* Is it worth waiting for a piece? */
static bool growing(const struct eviction *e)
{
	return e->coming > 0 && ty_now() - e->grown < STUCK_NS;
}

/* Not usable: another owner may do better. True: it is on its way to one. */
static bool retry_piece(struct eviction *e, struct ty_piece *piece, uint32_t failed)
{
	uint32_t gpu = choose_gpu(e);

	if (piece->code == TY_STOPPING || piece->tries >= e->service->gpu_count || gpu == failed || !gpu_is_well(e, gpu))
		return false;
	piece->tries++;
	piece->gpu = e->service->gpu[gpu];
	if (ty_send(piece->gpu, &piece->msg, TY_GPU_PIECE) != TY_OK)
		return false;
	e->coming_at[failed]--;
	e->coming_at[gpu]++;
	return true;
}

static void take_piece(struct eviction *e, struct ty_piece *piece)
{
	struct ty_eviction_stats *stats = &e->service->eviction_stats;
	uint32_t gpu = gpu_index(e, piece->gpu);

	e->grown = ty_now();
	if (piece->code == TY_OK) {
		ty_slots_add_piece(e->service->slots, piece->index);
		add(&stats->ready_bytes, TY_PIECE_BYTES);
	} else if (retry_piece(e, piece, gpu)) {
		return;
	} else {
		add(&stats->failed_bytes, TY_PIECE_BYTES);
		if (piece->code != TY_STOPPING)
			ty_log(TY_LOG_WARN, "eviction", "64 MiB of the arena at %" PRIu64 " are not used: %s",
				piece->index * TY_PIECE_BYTES, piece->error.text);
	}
	e->coming--;
	e->coming_at[gpu]--;
	free(piece);
}

/* ---- ops --------------------------------------------------------------------------------------------- */

static void op_home(struct ty_op *op)
{
	enum ty_code sent = ty_send(op->engine, &op->msg, TY_ENGINE_OP_DONE);

	assert(sent == TY_OK); /* an engine outlives its ops */
	(void)sent;
}

/* Nothing of it is to be copied, or ever will be. */
static void end_op(struct ty_op *op)
{
	ty_op_raise_done(op);
	op_home(op);
}

static void give_back(struct eviction *e, struct ty_op *op)
{
	for (uint32_t i = 0; i < op->count; i++) {
		if (op->chunks[i].fate != TY_FATE_MOVE)
			continue;
		abort_part(e, op->chunks[i].chunk, op->layout->part);
		op->chunks[i].fate = TY_FATE_DROPPED;
		op->chunks[i].chunk = NULL;
		add(&e->service->eviction_stats.aborts, 1);
	}
	op->copy_count = 0;
}

/* How many of its chunks have been decided on, from the head. */
static uint32_t decided(const struct ty_op *op)
{
	return op->copy_count + op->present + op->dropped;
}

/* While an op is looked at, nothing of its prompt is evicted for the rest of it: the chunks that are here are held, which is
 * also what touches them, tail first, when they are let go. op->chunks[i].chunk says what is held. */
static void hold(struct eviction *e, struct ty_op *op, uint32_t from)
{
	for (uint32_t i = from; i < op->count; i++) {
		struct ty_chunk *chunk = ty_index_find(e->service->index, &op->chunks[i].key);

		if (chunk && chunk->filling) /* held already: by an op that fills it, or the key is here twice */
			chunk = NULL;
		if (chunk)
			begin_filling(e, chunk);
		op->chunks[i].chunk = chunk;
		op->chunks[i].fate = TY_FATE_DROPPED;
	}
}

static void let_go(struct eviction *e, struct ty_op *op, uint32_t from)
{
	for (uint32_t i = op->count; i-- > from;) {
		struct ty_op_chunk *c = &op->chunks[i];

		if (c->fate == TY_FATE_MOVE || !c->chunk)
			continue;
		end_filling(e, c->chunk);
		c->chunk = NULL;
	}
}

enum verdict { DECIDED, NO_ROOM, WAIT };

/* A slot for the op's part of a chunk; NO_ROOM or WAIT if there is none (now). */
static enum verdict find_slot(struct eviction *e, struct ty_op *op, const struct ty_key *key, uint32_t *slot)
{
	const struct ty_layout *layout = op->layout;
	uint64_t class = ty_slots_class_of(layout->chunk_bytes);

	for (;;) {
		*slot = ty_slots_take(e->service->slots, layout->chunk_bytes, key, layout->part, layout->parts);
		if (*slot != TY_NO_SLOT)
			return DECIDED;
		grow(e);
		if (growing(e))
			return WAIT;
		if (!make_room(e, class))
			return NO_ROOM;
	}
}

/* What becomes of the op's i-th chunk. */
static enum verdict decide(struct eviction *e, struct ty_op *op, uint32_t i)
{
	const struct ty_layout *layout = op->layout;
	struct ty_op_chunk *c = &op->chunks[i];
	bool held = c->chunk != NULL;
	struct ty_chunk *chunk = held ? c->chunk : ty_index_find(e->service->index, &c->key);
	enum verdict verdict;

	if (chunk && chunk->parts != layout->parts)
		return NO_ROOM; /* the fingerprint is part of the key, so this takes a key of somebody else's making */
	if (chunk && chunk->slots[layout->part] != TY_NO_SLOT) {
		c->fate = TY_FATE_PRESENT;
		op->present++;
		return DECIDED;
	}
	verdict = find_slot(e, op, &c->key, &c->slot);
	if (verdict != DECIDED)
		return verdict;
	if (!chunk) {
		chunk = ty_index_add(e->service->index, &c->key, layout->parts);
		if (!chunk) {
			ty_slots_give(e->service->slots, c->slot);
			return NO_ROOM;
		}
	}
	if (!held) /* then somebody fills another part of it, or it is new: it is in no order */
		chunk->filling++;
	chunk->slots[layout->part] = c->slot;
	c->chunk = chunk;
	c->fate = TY_FATE_MOVE;
	op->copies[op->copy_count++] = (struct ty_copy){
		.host = ty_slots_address(e->service->slots, c->slot),
		.blocks = op->blocks + (size_t)i * layout->blocks_per_chunk,
	};
	return DECIDED;
}

/* Decide on what is not decided yet. False: it has to wait for the arena to grow. */
static bool reserve(struct eviction *e, struct ty_op *op)
{
	uint32_t from = decided(op);
	enum verdict verdict = DECIDED;

	begin_search(e);
	hold(e, op, from);
	for (uint32_t i = from; i < op->count && verdict == DECIDED; i++)
		verdict = decide(e, op, i);
	let_go(e, op, from);
	/* The head is worth more than the tail: where space ends, the op ends. */
	if (verdict == NO_ROOM)
		op->dropped = op->count - op->copy_count - op->present;
	return verdict != WAIT;
}

/* Everything is decided. */
static void send_on(struct eviction *e, struct ty_op *op)
{
	struct ty_eviction_stats *stats = &e->service->eviction_stats;

	add(&stats->present, op->present);
	add(&stats->no_space, op->dropped);
	if (op->copy_count) {
		if (ty_send(op->gpu, &op->msg, TY_GPU_TRANSFER) == TY_OK)
			return;
		ty_op_fail(op, TY_STOPPING, "the device's owner has stopped");
		give_back(e, op);
	} else if (!op->present) {
		ty_op_fail(op, TY_NO_SPACE, "no space for any of %u chunks: all that is here is in use", op->count);
	}
	end_op(op);
}

/* Nobody wants it any more? Then its code says why. */
static bool given_up(struct ty_op *op)
{
	/* acquire: pairs with the engine's release */
	if (atomic_load_explicit(&op->cancelled, memory_order_acquire))
		ty_op_fail(op, TY_CANCELLED, "cancelled before its copy began");
	else if (ty_now() >= op->deadline)
		ty_op_fail(op, TY_TIMEOUT, "deadline passed before there was space");
	return op->code != TY_OK;
}

static void wait_for_growth(struct eviction *e, struct ty_op *op)
{
	op->waiting_next = NULL;
	*e->waiting_tail = op;
	e->waiting_tail = &op->waiting_next;
	e->waiting_count++;
	if (!e->ticking)
		ty_timer_start(&e->tick, TY_EVICTION_TICK, ty_now() + TICK_NS);
	e->ticking = true;
}

static void unlink_waiting(struct eviction *e, struct ty_op **link)
{
	struct ty_op *op = *link;

	*link = op->waiting_next;
	if (!op->waiting_next)
		e->waiting_tail = link;
	op->waiting_next = NULL;
	e->waiting_count--;
}

/* Look at the ops that wait: those that were given up go home, the others go on in their order as far as there is space. */
static void serve_waiting(struct eviction *e)
{
	struct ty_op *op;

	for (struct ty_op **link = &e->waiting; (op = *link);) {
		if (!given_up(op)) {
			link = &op->waiting_next;
			continue;
		}
		unlink_waiting(e, link);
		give_back(e, op);
		end_op(op);
	}
	while ((op = e->waiting) && reserve(e, op)) {
		unlink_waiting(e, &e->waiting);
		send_on(e, op);
	}
}

/* ---- the actor ----------------------------------------------------------------------------------------- */

static void on_start(void *self, struct ty_msg *msg)
{
	(void)msg;
	grow(self);
}

static void on_reserve(void *self, struct ty_msg *msg)
{
	struct eviction *e = self;
	struct ty_op *op = ty_container_of(msg, struct ty_op, msg);

	assert(op->kind == TY_OP_STORE && op->layout->part < op->layout->parts);
	op->copy_count = op->stored = op->present = op->dropped = 0;
	for (uint32_t i = 0; i < op->count; i++) {
		op->chunks[i].fate = TY_FATE_DROPPED;
		op->chunks[i].chunk = NULL;
	}
	if (given_up(op))
		end_op(op);
	else if (e->waiting || !reserve(e, op)) /* nobody overtakes */
		wait_for_growth(e, op);
	else
		send_on(e, op);
	grow(e);
	publish(e);
}

/* Tail first: the head becomes the youngest. */
static void commit(struct eviction *e, struct ty_op *op)
{
	for (uint32_t i = op->count; i-- > 0;) {
		struct ty_op_chunk *c = &op->chunks[i];

		if (c->fate != TY_FATE_MOVE)
			continue;
		commit_part(e, c->chunk, op->layout->part);
		op->stored++;
	}
	add(&e->service->eviction_stats.commits, op->stored);
}

static void on_commit(void *self, struct ty_msg *msg)
{
	struct eviction *e = self;
	struct ty_op *op = ty_container_of(msg, struct ty_op, msg);

	if (op->code == TY_OK)
		commit(e, op);
	else
		give_back(e, op);
	op_home(op);
	publish(e);
}

static void on_release(void *self, struct ty_msg *msg)
{
	struct eviction *e = self;
	struct ty_lease *lease = ty_container_of(msg, struct ty_lease, msg);

	for (uint32_t i = lease->count; i-- > 0;) {
		e->policy->cls->touch(e->policy, lease->chunks[i]); /* pinned: so it is visible, so it is in the order */
		ty_chunk_unpin(lease->chunks[i]);
	}
	if (ty_send(lease->engine, &lease->msg, TY_ENGINE_RELEASED) != TY_OK)
		free(lease);
}

static void on_piece(void *self, struct ty_msg *msg)
{
	struct eviction *e = self;

	take_piece(e, ty_container_of(msg, struct ty_piece, msg));
	serve_waiting(e);
	grow(e);
	publish(e);
}

static void on_tick(void *self, struct ty_msg *msg)
{
	struct eviction *e = self;

	(void)msg;
	e->ticking = false;
	serve_waiting(e);
	if (e->waiting) {
		ty_timer_start(&e->tick, TY_EVICTION_TICK, ty_now() + TICK_NS);
		e->ticking = true;
	}
	grow(e);
	publish(e);
}

static enum ty_code start(void *self, void *arg)
{
	struct eviction *e = self;

	e->service = arg;
	e->waiting_tail = &e->waiting;
	e->policy = ty_policy_lru.create();
	e->tried = calloc(e->service->arena.pieces, sizeof *e->tried);
	if (e->policy && e->tried)
		return TY_OK;
	ty_log(TY_LOG_ERROR, "eviction", "no memory to start with");
	return TY_NO_MEMORY;
}

/* The runtime stops. Chunks and slots stay as they are: whoever opened index and table closes them. */
static void stop(void *self)
{
	struct eviction *e = self;

	for (struct ty_op *op; (op = e->waiting);) {
		unlink_waiting(e, &e->waiting);
		ty_op_fail(op, TY_STOPPING, "the service stops");
		give_back(e, op);
		end_op(op);
	}
	if (e->policy)
		e->policy->cls->destroy(e->policy);
	free(e->tried);
}

/* Came after the stop. Nothing new begins, what is out comes in. */
static void refuse(void *self, struct ty_msg *msg)
{
	switch (msg->type) {
	case TY_EVICTION_RESERVE: {
		struct ty_op *op = ty_container_of(msg, struct ty_op, msg);

		ty_op_fail(op, TY_STOPPING, "the service stops");
		end_op(op);
		break;
	}
	case TY_EVICTION_COMMIT:
		on_commit(self, msg);
		break;
	case TY_EVICTION_RELEASE:
		on_release(self, msg);
		break;
	case TY_EVICTION_PIECE:
		free(ty_container_of(msg, struct ty_piece, msg));
		break;
	default: /* START and TICK live elsewhere */
		break;
	}
}

static const struct ty_handler handlers[] = {
	{"start", on_start},
	{"reserve", on_reserve},
	{"commit", on_commit},
	{"release", on_release},
	{"piece", on_piece},
	{"tick", on_tick},
};

const struct ty_class ty_eviction_class = {
	.name = "eviction",
	.state_size = sizeof(struct eviction),
	.first_type = TY_EVICTION_START,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.stop = stop,
	.refuse = refuse,
};
