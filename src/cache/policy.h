/* SPDX-License-Identifier: Apache-2.0
 *
 * Which chunk goes next. A policy keeps the chunks that could be evicted in order; it knows nothing of pins, slots or
 * bytes. Intrusive (the links are in the chunk) and owned by the eviction actor, who alone calls it.
 *
 * A candidate that turns out to be pinned is parked: out of the order until it is touched, so that a search does not walk
 * over the same pinned chunks again and again.
 */
#ifndef TY_CACHE_POLICY_H
#define TY_CACHE_POLICY_H

#include "index.h"

struct ty_policy;

struct ty_policy_class {
	const char *name;
	struct ty_policy *(*create)(void); /* null: no memory */
	void (*destroy)(struct ty_policy *policy); /* the chunks are not its own */
	/* The chunk becomes evictable. It is in no order now. */
	void (*insert)(struct ty_policy *policy, struct ty_chunk *chunk);
	/* The same, but as the next victim: it was used before all that is in the order. */
	void (*insert_oldest)(struct ty_policy *policy, struct ty_chunk *chunk);
	/* It was used. It is in the order, or parked; afterwards it is in the order. What is inserted counts as used now. */
	void (*touch)(struct ty_policy *policy, struct ty_chunk *chunk);
	/* It is pinned: not now. It is in the order, or parked; afterwards it is parked, behind the others. */
	void (*park)(struct ty_policy *policy, struct ty_chunk *chunk);
	/* Out, whether in the order or parked: evicted, or being written to. */
	void (*remove)(struct ty_policy *policy, struct ty_chunk *chunk);
	/* The best victim (after = null), or the next one after `after`, which is in the order; null: no more. */
	struct ty_chunk *(*victim)(struct ty_policy *policy, struct ty_chunk *after);
	/* The one parked longest, null: none. */
	struct ty_chunk *(*parked)(struct ty_policy *policy);
};

struct ty_policy {
	const struct ty_policy_class *cls;
};

extern const struct ty_policy_class ty_policy_lru;

#endif
