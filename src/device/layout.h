/* SPDX-License-Identifier: Apache-2.0
 *
 * A validated KV layout: where the blocks of a client's pool lie, and where they go in a slot.
 *
 * In a slot the groups follow one another; inside a group (its tile) the order is
 *     [block of the chunk][plane][run]
 * so that all planes of a block lie together. Nothing of a pool's place (regions, strides, block count) shows in
 * the slot: two pools of one fingerprint exchange chunks.
 *
 * Immutable after ty_layout_create; any thread may read it.
 */
#ifndef TY_DEVICE_LAYOUT_H
#define TY_DEVICE_LAYOUT_H

#include <tyer/client.h>

#define TY_MAX_REGIONS 256 /* an allocation a layer, or one each for its K and V */
#define TY_MAX_GROUPS 8
#define TY_MAX_PLANES 1024 /* of one group */
#define TY_MAX_PARTS 64
#define TY_MAX_STEPS 256
#define TY_RUN_ALIGN 16    /* bytes: what the kernels move at once */

struct ty_layout_group {
	uint32_t block_tokens, block_count, run_bytes, plane_count;
	uint64_t block_stride;
	uint32_t first_plane;      /* index into ty_layout.planes */
	uint32_t blocks_per_chunk; /* chunk_tokens / block_tokens */
	uint32_t first_block;      /* of this group among a chunk's block ids */
	uint32_t page_group;       /* first group that lays its runs over the same pages; itself when none does */
	uint64_t tile_offset;      /* of this group in a slot */
	uint64_t tile_bytes;       /* blocks_per_chunk * plane_count * run_bytes */
};

struct ty_layout {
	uint32_t chunk_tokens, part, parts;
	uint32_t region_count, group_count, plane_count;
	uint32_t blocks_per_chunk; /* ids that name one chunk's blocks: the sum over the groups */
	uint64_t chunk_bytes;      /* of a slot: the sum of tile_bytes */
	uint64_t region_length[TY_MAX_REGIONS];
	struct ty_layout_group groups[TY_MAX_GROUPS];
	uint8_t fingerprint[TY_KEY_BYTES]; /* of all that decides a slot's bytes: shapes, order, parts, format */
	uint32_t step_count;
	const uint32_t *steps;     /* step_count * group_count: planes of each group that are there after each step */
	struct ty_plane planes[];  /* plane_count of them; then the steps */
};

/* Check every number of `pool` against every other (bounds, alignment, overlap of planes, that
 * the last block ends inside its region, products by checked arithmetic) and build the layout; TY_INVALID names the
 * field and what was expected. chunk_bytes is at most max_chunk_bytes, else TY_LIMIT. Free with free().
 *
 * No run of one (plane, block) overlaps another's. One exception, which hybrid models live by: groups that cut the same pages
 * differently, so that block b of one lies where block b of the other lies, and nowhere else. They share page_group. */
TY_MUST_USE enum ty_code ty_layout_create(const struct ty_pool *pool, uint32_t chunk_tokens,
	uint64_t max_chunk_bytes, struct ty_layout **out, struct ty_error *err);

/* Planes [first, first + count) of one group, to be moved by themselves, block by block: a layout with one group and one block a
 * chunk, whose chunk is what a slot holds of those planes of one block. Free with free(); null: no memory. */
struct ty_layout *ty_layout_part(const struct ty_layout *layout, uint32_t group, uint32_t first, uint32_t count);

/* Are these the block ids of `chunks` chunks, chunk by chunk, in each chunk group by group? Every id is below its
 * group's block_count; with allow_skip TY_BLOCK_SKIP is an id too; with unique no other id occurs twice in a group, or in
 * two groups of one page_group. */
TY_MUST_USE enum ty_code ty_layout_check_blocks(const struct ty_layout *layout, const uint32_t *blocks,
	uint32_t chunks, bool allow_skip, bool unique, struct ty_error *err);

/* Sorts `count` ids in a time that does not depend on what they are. Scratch: room for as many. */
void ty_layout_sort_ids(uint32_t *ids, uint32_t *scratch, size_t count);

#endif
