/* SPDX-License-Identifier: Apache-2.0 */
#include "eviction_state.h"

#include <assert.h>
#include <string.h>

#define MAX_LOOKS 65536  /* chunks looked at in search of victims, for one op; past it there is no space */
#define MAX_RESCUES 1024 /* parked chunks looked at again, for one op */

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

void eviction_begin_filling(struct eviction *e, struct ty_chunk *chunk)
{
	if (chunk->filling++ == 0)
		leave_order(e, chunk);
}

void eviction_end_filling(struct eviction *e, struct ty_chunk *chunk)
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

void eviction_commit_part(struct eviction *e, struct ty_chunk *chunk, uint32_t part, uint64_t checksum, uint16_t below)
{
	ty_slots_commit(e->service->slots, chunk->slots[part], checksum);
	chunk->committed |= UINT64_C(1) << part;
	if (below)
		atomic_fetch_or_explicit(&chunk->below, below, memory_order_relaxed);
	if (chunk->committed == ty_chunk_all_parts(chunk)) {
		ty_chunk_publish(chunk);
		e->visible++;
	}
	eviction_end_filling(e, chunk);
	if (ty_chunk_state(chunk) == TY_CHUNK_READY)
		eviction_offer(e, chunk, TY_TIER_WRITE_COMMIT);
}

void eviction_abort_part(struct eviction *e, struct ty_chunk *chunk, uint32_t part)
{
	ty_slots_give(e->service->slots, chunk->slots[part]);
	chunk->slots[part] = TY_NO_SLOT;
	if (chunk->filling == 1 && !chunk->committed) {
		bool killed = ty_chunk_kill(chunk); /* it was never visible: nobody has it pinned */

		assert(killed);
		(void)killed;
		ty_index_remove(e->service->index, chunk);
	} else {
		eviction_end_filling(e, chunk);
	}
}

bool eviction_return_part(struct eviction *e, uint32_t slot)
{
	const struct ty_slot_record *record = ty_slots_record(e->service->slots, slot);
	struct ty_chunk *chunk = ty_index_find(e->service->index, &record->key);

	if (!chunk) {
		chunk = ty_index_add(e->service->index, &record->key, record->parts);
		if (chunk)
			e->policy->cls->insert_oldest(e->policy, chunk);
	}
	if (!chunk || chunk->parts != record->parts || chunk->slots[record->part] != TY_NO_SLOT) {
		ty_slots_give(e->service->slots, slot);
		return false;
	}
	chunk->slots[record->part] = slot;
	chunk->committed |= UINT64_C(1) << record->part;
	if (chunk->committed == ty_chunk_all_parts(chunk)) {
		ty_chunk_publish(chunk);
		e->visible++;
	}
	return true;
}

/* Take away a chunk that is in the order, or parked. False: somebody has just pinned it, and nothing is changed; so does
 * writeback, if a tier wants what the arena drops. */
static bool evict(struct eviction *e, struct ty_chunk *chunk)
{
	bool visible = ty_chunk_state(chunk) == TY_CHUNK_READY;

	assert(chunk->filling == 0);
	if (visible && eviction_offer(e, chunk, TY_TIER_WRITE_EVICT))
		return false;
	if (!ty_chunk_kill(chunk))
		return false;
	leave_order(e, chunk);
	give_slots(e, chunk);
	ty_index_remove(e->service->index, chunk);
	e->visible -= visible;
	eviction_count(&e->service->eviction_stats.evictions, 1);
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
	uint32_t evicted;
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
	r->evicted += !r->blocked;
	return !r->blocked;
}

/* Empty a piece, so that it may be cut for another class. Looks before it evicts: a piece with one pinned chunk in it costs
 * nobody anything. A pin that comes between the two stops it half way. False: nothing was evicted. */
static bool reclaim(struct eviction *e, uint32_t piece)
{
	struct reclaim r = {.e = e};

	ty_slots_each_in_piece(e->service->slots, piece, look_for_blocker, &r);
	if (!r.blocked)
		ty_slots_each_in_piece(e->service->slots, piece, evict_slot, &r);
	if (r.blocked)
		e->tried[piece] = e->search.stamp;
	else
		eviction_count(&e->service->eviction_stats.reclaimed_pieces, 1);
	return r.evicted > 0;
}

/* Empty a piece in which the chunk has a part, unless this search tried it before. False: nothing was evicted. */
static bool reclaim_piece_of(struct eviction *e, struct ty_chunk *chunk)
{
	for (uint32_t part = 0; part < chunk->parts; part++) {
		uint32_t piece;

		if (chunk->slots[part] == TY_NO_SLOT)
			continue;
		piece = ty_slots_piece(chunk->slots[part]);
		if (e->tried[piece] != e->search.stamp && reclaim(e, piece))
			return true; /* and the chunk may be gone */
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
 * The oldest chunk that nobody has pinned decides: if it has a slot of the class, it goes. If not, the whole piece that it
 * lies in goes, because only a free piece can change its class; if something in that piece is in use, the next oldest
 * decides.
 */
bool eviction_make_room(struct eviction *e, uint64_t class)
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
		} else if (!has_class(e, chunk, class)) {
			if (reclaim_piece_of(e, chunk))
				return true;
			e->search.passed = chunk;
		} else if (evict(e, chunk)) {
			return true;
		} /* else it was pinned this moment, and is parked the next */
	}
}

void eviction_begin_search(struct eviction *e)
{
	uint32_t stamp = e->search.stamp + 1;

	if (stamp == 0) { /* once in four thousand million ops */
		memset(e->tried, 0, e->service->arena.pieces * sizeof *e->tried);
		stamp = 1;
	}
	e->search = (struct eviction_search){.stamp = stamp};
}
