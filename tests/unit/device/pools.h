/* SPDX-License-Identifier: Apache-2.0
 *
 * Pools as engines lay them out, small.
 */
#ifndef TY_TEST_POOLS_H
#define TY_TEST_POOLS_H

#include "device/layout.h"

#define TEST_PLANES 256 /* of one group */

struct test_pool {
	const char *name;
	uint32_t chunk_tokens;
	struct ty_pool pool;
	struct ty_region regions[TY_MAX_REGIONS];
	struct ty_group groups[TY_MAX_GROUPS];
	struct ty_plane planes[TY_MAX_GROUPS * TEST_PLANES];
	uint32_t steps[3 * TY_MAX_GROUPS];
};

extern const unsigned test_pool_count;
/* Regions are left without memory: the caller fills in descriptors or handles. */
void test_pool_build(unsigned index, struct test_pool *out);

/* Up to three steps for RETRIEVEs layer by layer, as uneven as they may be. */
void test_pool_steps(struct test_pool *pool);

uint64_t test_random(uint64_t *state);
void test_fill(void *memory, size_t bytes, uint64_t *state);

/* How many chunks the pool has room for. */
uint32_t test_chunks(const struct ty_layout *layout);
/* Random ids for `chunks` chunks, some of them skipped; no id twice among the groups of one page_group. Free with free(). */
uint32_t *test_draw_ids(const struct ty_layout *layout, uint32_t chunks, bool skip, uint64_t *random);

#endif
