/* SPDX-License-Identifier: Apache-2.0
 *
 * A ring of links in order of age, with a sentinel that stands between youngest and oldest.
 */
#ifndef TY_CACHE_RING_H
#define TY_CACHE_RING_H

#include <stddef.h>

struct ty_link {
	struct ty_link *older, *newer;
};

static inline void ty_ring_init(struct ty_link *ring)
{
	ring->older = ring->newer = ring;
}

static inline void ty_ring_insert_after(struct ty_link *older, struct ty_link *link)
{
	link->older = older;
	link->newer = older->newer;
	older->newer->older = link;
	older->newer = link;
}

static inline void ty_ring_add_youngest(struct ty_link *ring, struct ty_link *link)
{
	ty_ring_insert_after(ring->older, link);
}

static inline void ty_ring_add_oldest(struct ty_link *ring, struct ty_link *link)
{
	ty_ring_insert_after(ring, link);
}

static inline void ty_ring_take_out(struct ty_link *link)
{
	link->newer->older = link->older;
	link->older->newer = link->newer;
}

static inline struct ty_link *ty_ring_oldest(const struct ty_link *ring) /* null: empty */
{
	return ring->newer == ring ? NULL : ring->newer;
}

static inline struct ty_link *ty_ring_youngest(const struct ty_link *ring) /* null: empty */
{
	return ring->older == ring ? NULL : ring->older;
}

#endif
