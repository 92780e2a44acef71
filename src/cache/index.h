/* SPDX-License-Identifier: Apache-2.0
 *
 * The index: key -> chunk, a liburcu hash table. Read by any thread that is registered with RCU (every thread of the
 * runtime is), without a message; written by the eviction actor alone.
 *
 *   who                     may call                          together with
 *   any runtime thread      ty_index_pin, ty_chunk_pin/unpin  everything
 *   the eviction actor      the rest                          the above, in any thread
 *
 * A chunk's state word holds its state and its pins. A reader pins by compare-and-swap, from READY only; eviction
 * takes it the same way, from READY with no pins to DEAD. Whoever holds a pin may use the chunk's slots.
 */
#ifndef TY_CACHE_INDEX_H
#define TY_CACHE_INDEX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <urcu/urcu-memb.h>
#include <urcu/rculfhash.h>

#include "key.h"
#include "policy.h"

/* WRONG: it was READY, and its bytes are not what they were. Nobody pins it anew; it waits for its pins to go. */
enum ty_chunk_state { TY_CHUNK_FILLING, TY_CHUNK_READY, TY_CHUNK_DEAD, TY_CHUNK_WRONG };

#define TY_CHUNK_MAX_PARTS 64

/* 108 bytes and 4 a part: there are hundreds of thousands of them. */
struct ty_chunk {
	struct cds_lfht_node node;  /* the table's */
	struct ty_key key;          /* immutable */
	_Atomic uint64_t word;      /* state in the low 8 bits, pins above; see index.c for orders */
	uint64_t committed;         /* eviction's: bit i = part i is here; all of them = READY */
	union {
		struct ty_entry entry; /* eviction's, until it is DEAD: where it is in the order (order.h) */
		struct rcu_head rcu;   /* from then on: the grace period's */
	};
	uint8_t parts;              /* immutable */
	uint8_t filling;            /* eviction's: parts that an operation is writing now. 0 = it may be evicted */
	uint16_t space;             /* whose it is (space.h); written by eviction */
	_Atomic uint16_t below;     /* tiers: bit i = tier i holds it, bit 8 + i = it is on its way there. A hint, changed by
	                               single bits (relaxed) by eviction and by holders of a pin */
	_Atomic uint8_t ours;       /* pins that are the service's own: they go by themselves. Never below what it is, but for a
	                               moment; changed by who pins (relaxed), read by eviction */
	uint32_t length;            /* bytes of each part; 0: it has had none yet. Written by eviction before READY, read by holders of a pin */
	uint32_t slots[];           /* one a part, TY_NO_SLOT = none; written by eviction before READY, read by holders of a pin */
};

struct ty_index; /* opaque */

TY_MUST_USE enum ty_code ty_index_create(struct ty_index **out, struct ty_error *err);
/* Nobody else uses it any more; frees what is in it. Waits for a grace period: any thread that is in no read-side section
 * and is not liburcu's own, registered or not. */
void ty_index_destroy(struct ty_index *index);

/* The chunk, pinned, if it is READY; null otherwise. */
struct ty_chunk *ty_index_pin(struct ty_index *index, const struct ty_key *key);
void ty_chunk_pin(struct ty_chunk *chunk);   /* once more; the caller holds a pin, or is eviction, and it is READY (or became WRONG since) */
void ty_chunk_unpin(struct ty_chunk *chunk);
/* Around such a pin that is the service's own (a sum, a write, the scrubber's): after it was taken, and before it goes. */
static inline void ty_chunk_hold(struct ty_chunk *chunk)
{
	atomic_fetch_add_explicit(&chunk->ours, 1, memory_order_relaxed);
}

static inline void ty_chunk_let_go(struct ty_chunk *chunk)
{
	atomic_fetch_sub_explicit(&chunk->ours, 1, memory_order_relaxed);
}

uint64_t ty_chunk_pins(const struct ty_chunk *chunk);

/* The eviction actor's. */
struct ty_chunk *ty_index_find(struct ty_index *index, const struct ty_key *key);
/* A new chunk in state FILLING, in the table; null: no memory. The key is not in the table. */
struct ty_chunk *ty_index_add(struct ty_index *index, const struct ty_key *key, uint32_t parts);
void ty_chunk_publish(struct ty_chunk *chunk);        /* FILLING -> READY */
void ty_chunk_condemn(struct ty_chunk *chunk);        /* READY -> WRONG, with its pins */
bool ty_chunk_kill(struct ty_chunk *chunk);           /* READY or WRONG without pins, or FILLING -> DEAD; false: pinned */
enum ty_chunk_state ty_chunk_state(const struct ty_chunk *chunk);
uint64_t ty_chunk_all_parts(const struct ty_chunk *chunk); /* what `committed` is when every part is here */
void ty_index_remove(struct ty_index *index, struct ty_chunk *chunk); /* DEAD; freed after a grace period */
uint64_t ty_index_count(const struct ty_index *index); /* chunks in the table; any thread */

#endif
