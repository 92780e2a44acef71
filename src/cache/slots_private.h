/* SPDX-License-Identifier: Apache-2.0
 *
 * What slots.c (pieces: what is free) and slots_table.c (the table: what is where) share.
 */
#ifndef TY_CACHE_SLOTS_PRIVATE_H
#define TY_CACHE_SLOTS_PRIVATE_H

#include "slots.h"

#define NO_PIECE UINT32_MAX
#define WORD_BITS 64u
#define SUMMARY_WORDS (TY_SLOTS_PER_PIECE / WORD_BITS / WORD_BITS)

enum piece_state { PIECE_ABSENT, PIECE_FREE, PIECE_CUT };

struct piece {
	uint64_t *bits;          /* 1 = free; null unless the piece is cut, or was found cut and is still absent */
	uint64_t summary[SUMMARY_WORDS]; /* bit i: bits[i] is not 0 */
	uint32_t class_bytes;    /* of its slots, at most 64 MiB */
	uint32_t capacity, used; /* slots */
	uint32_t previous, next; /* in its list: of the free pieces, or of its class, if it has room */
	uint8_t state;           /* enum piece_state */
	bool aside;              /* somebody else may still copy into it: not used by this process */
	_Atomic bool usable;     /* slots may be in it. Eviction: release; any: acquire */
};

/* A process that may copy to slots beside ours. In the table's first page, behind the header; pid 0: free. */
struct borrower {
	uint64_t start; /* of the process, in the kernel's ticks since boot: with the number it names one process */
	_Atomic uint32_t pid;
	uint32_t unused;
};

struct ty_slots {
	const struct ty_arena *arena;
	void *memory; /* the table's: a page with its header, the namespaces, then the slots' records */
	size_t memory_bytes;
	struct ty_space_record *spaces;
	uint32_t space_count; /* of them, that may say something */
	struct ty_slot_record *table;
	struct borrower *borrowers; /* TY_BORROWERS */
	bool inherited[TY_BORROWERS]; /* of them: the process before this one lent it slots, and it lives */
	bool lent; /* when the table was taken over, a process that another one had lent slots to was there still */
	int fd;
	uint32_t piece_count, free_count, free_head;
	uint32_t used;
	uint64_t used_bytes, sequence;
	/* What a table that was taken over holds: pieces with something in them, the youngest first, and their slots likewise. */
	struct ty_found_piece *found;
	uint32_t *found_slots, found_count;
	/* First piece with room, by slots a piece. Most of these pages are never touched. */
	uint32_t class_head[TY_SLOTS_PER_PIECE + 1];
	struct piece pieces[];
};

/* slots_table.c */
#define TY_SLOTS_HEADER_BYTES 4096u
#define TY_SLOTS_RECORDS_AT (TY_SLOTS_HEADER_BYTES + (size_t)TY_MAX_SPACES * TY_SPACE_BYTES) /* in the memfd */
void ty_slot_record_write(struct ty_slot_record *to, const struct ty_slot_record *from);
void ty_slot_record_clear(struct ty_slot_record *to);

/* slots.c */
uint32_t ty_slots_a_piece(uint64_t bytes); /* slots of so many bytes that a piece takes */
/* The piece's bits, for slots of this capacity, all free. False: no memory. */
bool ty_piece_set_bits(struct piece *p, uint32_t capacity);
void ty_piece_take_bit(struct piece *p, uint32_t number);

#endif
