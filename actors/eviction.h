/* SPDX-License-Identifier: Apache-2.0
 *
 * eviction: owns the arena's space. Reserves slots for stores, evicts on demand when space is short (tails before
 * heads), publishes committed chunks, lets the arena grow ahead of use. It alone writes the index and the slot table.
 */
#ifndef TY_ACTORS_EVICTION_H
#define TY_ACTORS_EVICTION_H

#include "messages.h"
#include "op.h"
#include "cache/slots.h"

struct ty_service;

/* Written by the actor (relaxed), read by metrics. */
struct ty_eviction_stats {
	_Atomic uint64_t ready_bytes, failed_bytes; /* of pieces */
	_Atomic uint64_t used_bytes;                /* lengths of the slots that hold or receive a part */
	_Atomic uint64_t chunks;                    /* visible */
	_Atomic uint64_t evictions;                 /* chunks */
	_Atomic uint64_t no_space, commits, aborts, present; /* parts: dropped, stored, given back, here already */
	_Atomic uint64_t reclaimed_pieces;          /* emptied for another size class */
	_Atomic uint64_t kept_bytes;                /* of slots that pins keep from eviction */
	_Atomic uint64_t not_kept;                  /* chunks of which an engine said PINNED, and that may go all the same: too much was kept */
	_Atomic uint64_t order_bytes;               /* memory of policies and bands beside the chunks */
	_Atomic uint64_t waiting;                   /* ops that wait for room */
	_Atomic uint64_t quotas;                    /* tenants that have one */
	_Atomic uint64_t limit_bytes, ahead_bytes, kept_limit_bytes; /* of the arena, as configured or changed since: what may be used, is kept
	                                                                ready, may be kept by pins */
	_Atomic uint64_t waits;                     /* those that had to wait for a tier's writes */
	/* After a restart: pieces that are still to come back; parts that did, that did not because their contents were damaged, or
	 * because their piece could not be used, or their chunk is here already. */
	_Atomic uint64_t returning, returned, return_damaged, return_lost;
};

/* Chunks that a session (or an op) gives back: pinned until here. Head of the prompt first; touched tail first, so that the
 * head is the younger. Comes back to `engine` as TY_ENGINE_RELEASED; freed by ty_lease_free, by eviction if the engine is
 * gone. */
struct ty_lease {
	struct ty_msg msg;
	struct ty_actor *engine;
	uint16_t space;             /* whose they are (cache/space.h) */
	struct ty_hint hint;        /* said of all of these */
	struct ty_key *keys;        /* of the whole prompt, if something is said of it; else null */
	uint32_t key_count;
	uint32_t again;             /* the request is not over: so many of the chunks it has in another lease, not touched yet */
	uint32_t count;
	struct ty_chunk *chunks[];
};
void ty_lease_free(struct ty_lease *lease);

/* A piece of the arena on its way to usefulness: eviction -> populate -> gpu -> eviction. Allocated by eviction; whoever
 * cannot send it on frees it with free(). */
struct ty_piece {
	struct ty_msg msg;
	uint32_t index;
	struct ty_actor *gpu; /* the owner that registers it ... */
	struct ty_actor *home; /* ... and who hears of it, as what message */
	uint32_t home_type;
	uint32_t tries;       /* eviction's: owners that were asked */
	const struct ty_found_piece *found; /* what a process before this one left in it; null: nothing */
	uint32_t damaged;     /* populate's: so many of its slots, the last ones, do not hold what was summed up */
	enum ty_code code;
	struct ty_error error;
};

extern const struct ty_class ty_eviction_class; /* arg: struct ty_service */

#endif
