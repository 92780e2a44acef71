/* SPDX-License-Identifier: Apache-2.0
 *
 * The slot table and the allocator over the arena's pieces.
 *
 * A slot's number says where it is: piece = slot / TY_SLOTS_PER_PIECE, and inside the piece (which is cut into
 * slots of one size) slot % TY_SLOTS_PER_PIECE. The table lies in a memfd of its own, sparse, and is the truth
 * about the arena: it says of each slot which part of which chunk it holds.
 *
 * Owned by the eviction actor: only it calls the functions that change anything.
 */
#ifndef TY_CACHE_SLOTS_H
#define TY_CACHE_SLOTS_H

#include "arena.h"
#include "key.h"

#define TY_NO_SLOT UINT32_MAX

enum ty_slot_state { TY_SLOT_FREE = 0, TY_SLOT_FILLING = 1, TY_SLOT_READY = 2 };

/* One slot, in shared memory: fixed layout, 64 bytes. */
struct ty_slot_record {
	uint32_t state;
	uint16_t part, parts;
	uint64_t length;      /* bytes of contents */
	struct ty_key key;
	uint64_t sequence;    /* of the commit: later is larger */
	uint64_t check;       /* of this record's other fields */
};

struct ty_slots; /* opaque */

TY_MUST_USE enum ty_code ty_slots_open(const struct ty_arena *arena, struct ty_slots **out, struct ty_error *err);
void ty_slots_close(struct ty_slots *slots);

/* A piece became usable. */
void ty_slots_add_piece(struct ty_slots *slots, uint32_t piece);

/* A slot of `bytes` (1..TY_PIECE_BYTES), or TY_NO_SLOT: from a piece of that size class with room, else from a free
 * piece, which becomes one of that class. State FILLING. */
uint32_t ty_slots_take(struct ty_slots *slots, uint64_t bytes, const struct ty_key *key, uint32_t part, uint32_t parts);
void ty_slots_commit(struct ty_slots *slots, uint32_t slot);
/* Back; a piece all of whose slots are free is free again, for any class. */
void ty_slots_give(struct ty_slots *slots, uint32_t slot);

uint8_t *ty_slots_address(const struct ty_slots *slots, uint32_t slot); /* any thread while it holds the slot */
const struct ty_slot_record *ty_slots_record(const struct ty_slots *slots, uint32_t slot);
uint32_t ty_slots_piece(uint32_t slot);
uint64_t ty_slots_class(const struct ty_slots *slots, uint32_t slot); /* bytes of its piece's slots */
uint32_t ty_slots_free_pieces(const struct ty_slots *slots);

/* Call `visit` for every slot of `piece` that is not free. */
void ty_slots_each_in_piece(const struct ty_slots *slots, uint32_t piece, void (*visit)(void *user, uint32_t slot),
	void *user);

#endif
