/* SPDX-License-Identifier: Apache-2.0
 *
 * writeback: takes chunks down to the tiers. Eviction decides what goes (by each tier's write policy and tenants) and pins it,
 * never more bytes than the tier's limit (`pins`); writeback queues by tier, submits, unpins. What does not fit is dropped
 * and counted; nobody waits for a tier.
 */
#ifndef TY_ACTORS_WRITEBACK_H
#define TY_ACTORS_WRITEBACK_H

#include "messages.h"
#include "tier.h"

struct ty_down_item {
	struct ty_chunk *chunk; /* pinned once for each tier of the mask */
	uint64_t bytes;         /* counted in the pinned_bytes of each */
	uint16_t tiers;         /* bit i: tier i */
};

/* Allocated by eviction, freed by writeback. */
struct ty_down {
	struct ty_msg msg;
	uint32_t count;
	struct ty_down_item item[];
};

/* The pin of one chunk that does not go to that tier, or has gone: bits, bytes and pin are given back. */
void ty_down_release(struct ty_tier *tier, struct ty_chunk *chunk, uint64_t bytes, bool there);

/* Written by the actor (relaxed), read by metrics. */
struct ty_writeback_stats {
	_Atomic uint64_t waiting;   /* chunks that wait for their tier's credit, now */
	_Atomic uint64_t abandoned; /* that were still waiting when the stop's time was over */
};

extern const struct ty_class ty_writeback_class; /* arg: struct ty_service */

#endif
