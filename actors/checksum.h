/* SPDX-License-Identifier: Apache-2.0
 *
 * checksum: sums up chunks that have become visible, on threads of its own that give way to whoever has work. Nobody waits
 * for it: a STORE is answered before, a chunk that is evicted or comes too fast is left without a sum.
 */
#ifndef TY_ACTORS_CHECKSUM_H
#define TY_ACTORS_CHECKSUM_H

#include <tyer/actor.h>

#include "messages.h"
#include "cache/index.h"

#define TY_MAX_CHECKSUMS 8

/* A chunk, pinned by eviction, which allocates and frees this. */
struct ty_sum {
	struct ty_msg msg;
	struct ty_chunk *chunk;
	uint64_t bytes;   /* of its parts */
	bool made;        /* parts[] are filled in; not if the service stops */
	uint64_t parts[]; /* chunk->parts */
};

struct ty_checksum_stats {
	_Atomic uint64_t bytes, ns; /* what it costs: added to by every checksum actor (relaxed), read by metrics */
	_Atomic uint64_t waiting;   /* bytes of chunks on their way; written by eviction (relaxed) */
	_Atomic uint64_t skipped;   /* chunks that came too fast; likewise */
};

extern const struct ty_class ty_checksum_class; /* arg: struct ty_service */

#endif
