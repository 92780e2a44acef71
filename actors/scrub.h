/* SPDX-License-Identifier: Apache-2.0
 *
 * scrub: reads what lies in the arena and in the tiers that can be listed, at a stated rate (--scrub-rate, each), and holds it
 * against its checksums, so that what went wrong at rest is found before it is wanted. docs/scrub.md.
 */
#ifndef TY_ACTORS_SCRUB_H
#define TY_ACTORS_SCRUB_H

#include <stdatomic.h>
#include <tyer/actor.h>

#include "messages.h"

/* One of them travels between scrub and eviction, for ever. */
struct ty_scrub_ask {
	struct ty_msg msg;
	struct ty_actor *home;  /* scrub */
	uint32_t at;            /* where in the slot table; TY_NO_SLOT: that was all */
	struct ty_chunk *chunk; /* to scrub: the next one, pinned, or null; to eviction: the one that is wrong, still pinned, or null */
};

/* Of the arena, or of a tier. Written by the actor (relaxed), read by metrics. */
struct ty_scrub_stats {
	_Atomic uint64_t bytes, chunks; /* read, and right */
	_Atomic uint64_t wrong;         /* chunks */
	_Atomic uint64_t gone, failed;  /* chunks that went before their turn came; that could not be read */
	_Atomic uint64_t position;      /* chunks looked at in this pass */
	_Atomic uint64_t passes;        /* that are over */
	_Atomic uint64_t last_pass;     /* when the last of them was over, seconds of the system's clock; 0: none was */
	_Atomic uint64_t last_pass_ns;  /* what it took */
};

extern const struct ty_class ty_scrub_class; /* arg: struct ty_service */

#endif
