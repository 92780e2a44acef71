/* SPDX-License-Identifier: Apache-2.0
 *
 * The slot table and the allocator over the arena's pieces.
 *
 * A slot's number says where it is: piece = slot / TY_SLOTS_PER_PIECE, and inside the piece (which is cut into
 * slots of one size) slot % TY_SLOTS_PER_PIECE. The table lies in a memfd of its own, sparse, and is the truth
 * about the arena: it says of each slot which part of which chunk it holds, and whose that is; the namespaces' identities
 * (space.h) lie before the slots' records.
 *
 * Owned by the eviction actor: only it calls the functions that change anything.
 */
#ifndef TY_CACHE_SLOTS_H
#define TY_CACHE_SLOTS_H

#include <stdatomic.h>
#include <stdbool.h>

#include "arena.h"
#include "space.h"

#define TY_NO_SLOT UINT32_MAX

enum ty_slot_state { TY_SLOT_FREE = 0, TY_SLOT_FILLING = 1, TY_SLOT_READY = 2 };

/* One slot, in memory that outlives the process: fixed layout, 64 bytes. A free slot's is all zero. It is written with `state` last, and
 * `check` covers everything else, so whoever finds the table after a crash knows a record that was being written. */
struct ty_slot_record {
	uint32_t state;
	uint32_t check;       /* of this record's other fields */
	uint8_t part, parts;
	uint16_t space;       /* the namespace's number, 0: not known */
	uint32_t length;      /* bytes of contents */
	struct ty_key key;
	uint64_t sequence;    /* of the commit: later is larger */
	_Atomic uint64_t checksum; /* of the contents (checksum.h), 0: none was made. Not under `check`: a wrong one shows by itself.
	                              Written by eviction, read by holders of a pin, relaxed: it says nothing of other memory */
};

struct ty_slots; /* opaque */

TY_MUST_USE enum ty_code ty_slots_open(const struct ty_arena *arena, struct ty_slots **out, struct ty_error *err);
void ty_slots_close(struct ty_slots *slots);
int ty_slots_fd(const struct ty_slots *slots); /* the table's memfd, for whoever keeps it for the next process */
/* The namespaces' records, for ty_spaces_open: `count` of them may say something. They stay as long as the table is open. */
struct ty_space_record *ty_slots_spaces(const struct ty_slots *slots, uint32_t *count);

/* What was found in a table that was taken over. Slots. */
struct ty_slots_found {
	uint32_t ready;      /* were committed: here again, as soon as their piece is */
	uint32_t unfinished; /* were being filled, or their record was being written: cleared */
	uint32_t aside;      /* pieces that are not used, for somebody else may still copy into them */
	uint32_t damaged;    /* their records contradict themselves or one another: cleared */
	uint32_t nameless;   /* namespaces of them whose identity is damaged: not known */
};
/* Take over the table of this arena from a process that is no more. It is refused as a whole if its header does not fit
 * (TY_INVALID, TY_UNSUPPORTED: the text says why). `fd` is the slots' on TY_OK, else still the caller's. */
TY_MUST_USE enum ty_code ty_slots_adopt(const struct ty_arena *arena, int fd, struct ty_slots **out,
	struct ty_slots_found *found, struct ty_error *err);

/* Processes that copy to slots by themselves (docs/embed.md), remembered in the table: whoever takes it over leaves alone the pieces with
 * slots that were being filled, while one of them lives. One thread calls these two. The place's number; TY_BORROWERS: none is
 * free, or there is no such process. */
#define TY_BORROWERS 64
uint32_t ty_slots_lend(struct ty_slots *slots, uint32_t pid);
/* Nothing of what this process lent it is under way any more; `ended`: the other has ended. What a process before this one lent it may be,
 * until then. */
void ty_slots_lent_over(struct ty_slots *slots, uint32_t place, bool ended);
/* Is the piece left alone for that? Its slots are not there for this process. */
bool ty_slots_aside(const struct ty_slots *slots, uint32_t piece);
/* Any thread: are there slots in this piece? Once it is usable it stays so. */
bool ty_slots_usable(const struct ty_slots *slots, uint32_t piece);

/* The pieces in which something was found, that with the youngest slot first, and their slots, the youngest first: the order
 * in which they should become usable. Until ty_slots_add_piece or ty_slots_lose_piece a piece's list belongs to whoever
 * prepares the piece, any thread, who may change its order, and may call ty_slots_address and ty_slots_record. */
struct ty_found_piece {
	uint32_t piece, count;
	uint32_t *slots;
};
const struct ty_found_piece *ty_slots_found(const struct ty_slots *slots, uint32_t *count);
void ty_slots_forget_found(struct ty_slots *slots); /* nobody looks at the lists any more */

/* A piece became usable, with what was found in it. */
void ty_slots_add_piece(struct ty_slots *slots, uint32_t piece);
/* A piece will not become usable: what was found in it is lost. */
void ty_slots_lose_piece(struct ty_slots *slots, uint32_t piece);

/* The size class of `bytes` (1..TY_PIECE_BYTES): bytes of its slots. There is one class for each number of slots that a piece
 * may hold, and its slots are as large as that allows, so that nearly equal sizes share pieces. */
uint64_t ty_slots_class_of(uint64_t bytes);

/* A slot of `bytes` (1..TY_PIECE_BYTES), or TY_NO_SLOT: from a piece of that size class with room, else from a free
 * piece, which becomes one of that class. State FILLING. Constant time, but for a piece's first slot. */
uint32_t ty_slots_take(struct ty_slots *slots, uint64_t bytes, const struct ty_key *key, uint32_t part, uint32_t parts,
	uint16_t space);
void ty_slots_commit(struct ty_slots *slots, uint32_t slot, uint64_t checksum); /* 0: none yet */
void ty_slots_set_checksum(struct ty_slots *slots, uint32_t slot, uint64_t checksum); /* of a READY one */
/* Any thread, while it holds the slot. */
uint64_t ty_slots_checksum(const struct ty_slots *slots, uint32_t slot);
/* Back; a piece all of whose slots are free is free again, for any class. */
void ty_slots_give(struct ty_slots *slots, uint32_t slot);

uint8_t *ty_slots_address(const struct ty_slots *slots, uint32_t slot); /* any thread while it holds the slot */
const struct ty_slot_record *ty_slots_record(const struct ty_slots *slots, uint32_t slot);
/* The same for any thread, while it holds the slot by a pin of its chunk: nothing in the record but its checksum changes then. */
const struct ty_slot_record *ty_slots_held(const struct ty_slots *slots, uint32_t slot);
uint32_t ty_slots_piece(uint32_t slot);
uint64_t ty_slots_class(const struct ty_slots *slots, uint32_t slot); /* bytes of its piece's slots */
uint32_t ty_slots_free_pieces(const struct ty_slots *slots);
uint32_t ty_slots_used(const struct ty_slots *slots);      /* slots that are not free */
uint64_t ty_slots_used_bytes(const struct ty_slots *slots); /* their lengths together */

/* Is the record whole? False for one that is being written, or was torn. A free one is. */
bool ty_slots_record_whole(const struct ty_slot_record *record);

/* The first slot from `from` on that is not free, looking at no more than `budget` numbers; TY_NO_SLOT: none among those. Then
 * (or at the arena's end) *at is the number to go on from, TY_NO_SLOT at the end. */
uint32_t ty_slots_next(const struct ty_slots *slots, uint32_t from, uint32_t *budget, uint32_t *at);

/* Call `visit` for every slot of `piece` that is not free, in order, until it says false; it may give back any slot of the
 * piece. */
void ty_slots_each_in_piece(const struct ty_slots *slots, uint32_t piece, bool (*visit)(void *user, uint32_t slot),
	void *user);

#endif
