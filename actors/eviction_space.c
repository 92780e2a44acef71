/* SPDX-License-Identifier: Apache-2.0 */
#include "eviction_state.h"

#include <assert.h>
#include <string.h>

#define MAX_LOOKS 65536  /* chunks looked at in search of victims, for one op; past it there is no space */
#define MAX_RESCUES 1024 /* parked chunks looked at again, for one op */
#define MAX_SAVED 64     /* chunks not taken because a tier would lose them, for one op: what goes next is written next */

static struct ty_chunk *chunk_of(struct ty_entry *entry)
{
	return entry ? ty_container_of(entry, struct ty_chunk, entry) : NULL;
}

/* ---- a piece for another class ---------------------------------------------------------------------- */

static struct ty_chunk *chunk_of_slot(struct eviction *e, uint32_t slot)
{
	struct ty_chunk *chunk = ty_index_find(e->service->index, &ty_slots_record(e->service->slots, slot)->key);

	assert(chunk); /* a slot that is not free belongs to a chunk in the index */
	return chunk;
}

/* Does a tier lose it if it goes now, and the op can wait? */
static bool is_saved(struct eviction *e, const struct ty_chunk *chunk)
{
	if (!e->search.saves || ty_chunk_state(chunk) != TY_CHUNK_READY || !eviction_would_lose(e, chunk))
		return false;
	e->search.saved++;
	return true;
}

/* It is pinned: but only by us, until a tier has it? */
static void note_ours(struct eviction *e, const struct ty_chunk *chunk)
{
	e->search.ours += e->search.saves && !eviction_leases(chunk);
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

	r->blocked = chunk->filling || ty_chunk_pins(chunk) || chunk->entry.band == TY_BAND_KEPT || is_saved(r->e, chunk);
	return !r->blocked;
}

static bool evict_slot(void *user, uint32_t slot)
{
	struct reclaim *r = user;

	r->blocked = !eviction_evict(r->e, chunk_of_slot(r->e, slot));
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
static bool rescue(struct eviction *e, uint32_t domain)
{
	struct ty_chunk *chunk;

	while (e->search.rescues < MAX_RESCUES && (chunk = chunk_of(ty_order_parked(e->order)))) {
		e->search.rescues++;
		if (!ty_chunk_pins(chunk)) {
			eviction_begin_filling(e, chunk);
			eviction_end_filling(e, chunk, TY_REENTER_YOUNG, &eviction_no_hint);
			return true;
		}
		if (domain == TY_ANY_DOMAIN || chunk->entry.domain == domain)
			note_ours(e, chunk);
		ty_order_park(e->order, &chunk->entry); /* behind the others */
	}
	return false;
}

/* The next to go of a domain, or of all: not pinned, as far as anybody can know. Null: there is none. */
static struct ty_chunk *next_victim(struct eviction *e, uint32_t domain)
{
	while (e->search.looks++ < MAX_LOOKS && e->search.saved < MAX_SAVED) {
		struct ty_chunk *chunk = chunk_of(ty_order_victim(e->order, domain));
		bool pinned = chunk && ty_chunk_pins(chunk);

		if (chunk && !pinned && !is_saved(e, chunk))
			return chunk;
		if (pinned) {
			note_ours(e, chunk);
			ty_order_park(e->order, &chunk->entry);
		} else if (chunk) {
			ty_order_set_aside(e->order, &chunk->entry);
		} else if (!rescue(e, domain)) {
			return NULL;
		}
	}
	return NULL;
}

/*
 * The chunk that the order says goes next decides: if it has a slot of the class, it goes. If not, the whole piece that it
 * lies in goes, because only a free piece can change its class; if something in that piece is in use, it is set aside and
 * the next one decides.
 */
bool eviction_make_room(struct eviction *e, uint64_t class)
{
	struct ty_chunk *chunk;

	while ((chunk = next_victim(e, TY_ANY_DOMAIN))) {
		if (has_class(e, chunk, class)) {
			if (eviction_evict(e, chunk))
				return true; /* else it was pinned this moment, and is parked the next */
		} else if (reclaim_piece_of(e, chunk)) {
			return true;
		} else {
			ty_order_set_aside(e->order, &chunk->entry);
		}
	}
	return false;
}

bool eviction_make_allowance(struct eviction *e, uint32_t domain, uint64_t bytes)
{
	for (;;) {
		bool hard = ty_order_exceeds(e->order, domain, bytes);
		struct ty_chunk *chunk;

		/* The arena's own size needs no check: what does not fit into it finds no slot. */
		if (!hard && (e->limit == e->service->arena.pieces * TY_PIECE_BYTES ||
				     ty_order_charged_all(e->order) + bytes <= e->limit))
			return true;
		chunk = next_victim(e, hard ? domain : TY_ANY_DOMAIN);
		if (!chunk)
			return false;
		(void)eviction_evict(e, chunk); /* pinned this moment: then it is parked the next */
	}
}

void eviction_end_search(struct eviction *e)
{
	ty_order_end_search(e->order);
}

void eviction_begin_search(struct eviction *e, bool saves)
{
	uint32_t stamp = e->search.stamp + 1;

	if (stamp == 0) { /* once in four thousand million ops */
		memset(e->tried, 0, e->service->arena.pieces * sizeof *e->tried);
		stamp = 1;
	}
	e->search = (struct eviction_search){.stamp = stamp, .saves = saves};
}
