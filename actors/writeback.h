/* SPDX-License-Identifier: Apache-2.0
 *
 * writeback: takes chunks down to the tiers. Eviction decides what goes (by each tier's write policy and tenants); writeback
 * queues by tier and pins a chunk when its turn comes, so that the arena's pins are those of the writes in flight. Only a
 * victim is pinned before, never more bytes than the tier's `pins`. What does not fit is dropped and counted; nobody waits
 * for a tier.
 */
#ifndef TY_ACTORS_WRITEBACK_H
#define TY_ACTORS_WRITEBACK_H

#include "messages.h"
#include "tier.h"

struct ty_service;

struct ty_down_item {
	struct ty_key key;
	struct ty_chunk *chunk; /* a victim: pinned once for each tier of the mask, and ... */
	uint64_t bytes;         /* ... so many bytes counted in the pinned_bytes of each; null: not pinned */
	uint16_t tiers;         /* bit i: tier i, whose `queued` counts it */
};

/* Allocated by eviction, freed by writeback. */
struct ty_down {
	struct ty_msg msg;
	uint32_t count;
	struct ty_down_item item[];
};

/* It does not go to the tiers of its mask: what it holds is given back. */
void ty_down_drop(struct ty_service *service, const struct ty_down_item *item);

/* Written by the actor (relaxed), read by metrics. */
struct ty_writeback_stats {
	_Atomic uint64_t abandoned; /* chunks that were still waiting when the stop's time was over */
};

extern const struct ty_class ty_writeback_class; /* arg: struct ty_service */

#endif
