/* SPDX-License-Identifier: Apache-2.0
 *
 * checksum: sums up what a store has copied, between the owner and the commit: the arena's bytes are read once more, by a
 * worker, while the owner goes on. As many of these as there are workers; an op is one's, a slice of it one message.
 */
#ifndef TY_ACTORS_CHECKSUM_H
#define TY_ACTORS_CHECKSUM_H

#include "messages.h"
#include "op.h"

#define TY_MAX_CHECKSUMS 8

/* What it costs. Added to by every checksum actor (relaxed), read by metrics. */
struct ty_checksum_stats {
	_Atomic uint64_t bytes, ns;
};

extern const struct ty_class ty_checksum_class; /* arg: struct ty_service */

#endif
