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
	_Atomic uint64_t ready_bytes, failed_bytes, used_bytes, chunks, evictions, no_space, commits, aborts, present,
		reclaimed_pieces, waiting;
};

/* Chunks that a session (or an op) gives back: pinned until here. Head of the prompt first; touched tail first, so that the
 * head is the younger. Comes back to `engine` as TY_ENGINE_RELEASED, which frees it. */
struct ty_lease {
	struct ty_msg msg;
	struct ty_actor *engine;
	uint32_t count;
	struct ty_chunk *chunks[];
};

/* A piece of the arena on its way to usefulness: eviction -> populate -> gpu -> eviction. */
struct ty_piece {
	struct ty_msg msg;
	uint32_t index;
	struct ty_actor *gpu; /* the owner that registers it */
	enum ty_code code;
	struct ty_error error;
};

extern const struct ty_class ty_eviction_class; /* arg: struct ty_service */

#endif
