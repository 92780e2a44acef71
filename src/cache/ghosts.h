/* SPDX-License-Identifier: Apache-2.0
 *
 * The ids of entries that were evicted, in up to two lists, oldest first: what a policy remembers. 24 bytes an id and 4 a
 * bucket, in two arrays that only grow, by doubling. An id that finds no memory is not remembered.
 */
#ifndef TY_CACHE_GHOSTS_H
#define TY_CACHE_GHOSTS_H

#include <stdbool.h>
#include <stdint.h>

#define TY_GHOSTS_MAX (1u << 24) /* of a policy */

struct ty_ghost; /* opaque */

struct ty_ghosts {
	struct ty_ghost *ghosts;
	uint32_t *buckets;
	uint32_t room, free;             /* of ghosts; the first free one */
	uint32_t count[2], oldest[2], youngest[2];
};

void ty_ghosts_open(struct ty_ghosts *ghosts);
void ty_ghosts_close(struct ty_ghosts *ghosts);
/* As the youngest of a list (0 or 1). One that is there already is moved. */
void ty_ghosts_add(struct ty_ghosts *ghosts, uint64_t id, unsigned list);
/* The list it was in, and it is forgotten; -1: in none. */
int ty_ghosts_take(struct ty_ghosts *ghosts, uint64_t id);
void ty_ghosts_drop_oldest(struct ty_ghosts *ghosts, unsigned list); /* the list is not empty */
uint64_t ty_ghosts_bytes(const struct ty_ghosts *ghosts);

#endif
