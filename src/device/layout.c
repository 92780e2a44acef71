/* SPDX-License-Identifier: Apache-2.0 */
#include "layout.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "layout_overlap.h"

#define FORMAT_MAX 64
#define SMALL_IDS 256 /* ids that are sorted on the stack */

/* Its memory is an engine's whose own process moves it: known by address there, and not at all to the service. */
static bool is_own(const struct ty_pool *pool)
{
	static const uint8_t nobody[TY_OWNER_BYTES];

	return memcmp(pool->owner, nobody, sizeof nobody) != 0;
}

/* Addresses of this process: apart, so that what a region says is all that there is to know of its memory. */
static enum ty_code check_addresses(const struct ty_pool *pool, struct ty_error *err)
{
	for (uint32_t i = 0; i < pool->region_count; i++) {
		const struct ty_region *r = &pool->regions[i];

		if (!r->address)
			continue;
		if (r->address > UINT64_MAX - r->allocation_bytes)
			return ty_fail(err, TY_INVALID, "regions[%u].address: %#llx + allocation_bytes %llu does not fit 64 bits", i,
				(unsigned long long)r->address, (unsigned long long)r->allocation_bytes);
		for (uint32_t j = 0; j < i; j++) {
			const struct ty_region *o = &pool->regions[j];
			uint64_t at = r->address + r->offset, other = o->address + o->offset;

			if (o->address && at < other + o->length && other < at + r->length)
				return ty_fail(err, TY_INVALID, "regions[%u] and regions[%u]: both hold the memory at %#llx, expected one "
					"region for it", j, i, (unsigned long long)(at > other ? at : other));
		}
	}
	return TY_OK;
}

static enum ty_code check_regions(const struct ty_pool *pool, struct ty_error *err)
{
	if (pool->region_count < 1 || pool->region_count > TY_MAX_REGIONS)
		return ty_fail(err, TY_INVALID, "regions: %u of them, expected 1..%d", pool->region_count,
			TY_MAX_REGIONS);
	for (uint32_t i = 0; i < pool->region_count; i++) {
		const struct ty_region *r = &pool->regions[i];
		uint64_t end;

		if (r->length == 0)
			return ty_fail(err, TY_INVALID, "regions[%u].length: 0, expected at least one run", i);
		if (r->offset % TY_RUN_ALIGN)
			return ty_fail(err, TY_INVALID, "regions[%u].offset: %llu, expected a multiple of %d", i,
				(unsigned long long)r->offset, TY_RUN_ALIGN);
		if (__builtin_add_overflow(r->offset, r->length, &end) || end > r->allocation_bytes)
			return ty_fail(err, TY_INVALID,
				"regions[%u]: offset %llu + length %llu passes allocation_bytes %llu", i,
				(unsigned long long)r->offset, (unsigned long long)r->length,
				(unsigned long long)r->allocation_bytes);
	}
	return check_addresses(pool, err);
}

static enum ty_code check_planes(const struct ty_pool *pool, uint32_t index, struct ty_error *err)
{
	const struct ty_group *g = &pool->groups[index];
	uint64_t extent; /* from a plane's first byte to its last block's end */

	if (__builtin_mul_overflow((uint64_t)g->block_count - 1, g->block_stride, &extent) ||
		__builtin_add_overflow(extent, (uint64_t)g->run_bytes, &extent))
		return ty_fail(err, TY_INVALID, "groups[%u]: block_count %u x block_stride %llu does not fit 64 bits",
			index, g->block_count, (unsigned long long)g->block_stride);
	for (uint32_t i = 0; i < g->plane_count; i++) {
		const struct ty_plane *p = &g->planes[i];
		uint64_t end;

		if (p->region >= pool->region_count)
			return ty_fail(err, TY_INVALID, "groups[%u].planes[%u].region: %u, expected less than %u",
				index, i, p->region, pool->region_count);
		if (p->offset % TY_RUN_ALIGN)
			return ty_fail(err, TY_INVALID,
				"groups[%u].planes[%u].offset: %llu, expected a multiple of %d", index, i,
				(unsigned long long)p->offset, TY_RUN_ALIGN);
		if (__builtin_add_overflow(p->offset, extent, &end) || end > pool->regions[p->region].length)
			return ty_fail(err, TY_INVALID,
				"groups[%u].planes[%u]: offset %llu, its last block ends %llu bytes later and past the "
				"%llu of regions[%u]", index, i, (unsigned long long)p->offset,
				(unsigned long long)extent, (unsigned long long)pool->regions[p->region].length,
				p->region);
	}
	return TY_OK;
}

static enum ty_code check_group(const struct ty_pool *pool, uint32_t index, uint32_t chunk_tokens,
	struct ty_error *err)
{
	const struct ty_group *g = &pool->groups[index];

	if (g->block_tokens == 0 || chunk_tokens % g->block_tokens)
		return ty_fail(err, TY_INVALID, "groups[%u].block_tokens: %u, expected a divisor of chunk_tokens %u",
			index, g->block_tokens, chunk_tokens);
	if (g->block_count == 0 || g->block_count == TY_BLOCK_SKIP)
		return ty_fail(err, TY_INVALID, "groups[%u].block_count: %u, expected 1..%u", index, g->block_count,
			TY_BLOCK_SKIP - 1);
	if (g->run_bytes == 0 || g->run_bytes % TY_RUN_ALIGN)
		return ty_fail(err, TY_INVALID, "groups[%u].run_bytes: %u, expected a multiple of %d", index,
			g->run_bytes, TY_RUN_ALIGN);
	if (g->block_stride % TY_RUN_ALIGN || g->block_stride < g->run_bytes)
		return ty_fail(err, TY_INVALID,
			"groups[%u].block_stride: %llu, expected a multiple of %d and at least run_bytes %u", index,
			(unsigned long long)g->block_stride, TY_RUN_ALIGN, g->run_bytes);
	if (g->plane_count < 1 || g->plane_count > TY_MAX_PLANES)
		return ty_fail(err, TY_INVALID, "groups[%u].planes: %u of them, expected 1..%d", index,
			g->plane_count, TY_MAX_PLANES);
	return check_planes(pool, index, err);
}

static enum ty_code check_steps(const struct ty_pool *pool, struct ty_error *err)
{
	const uint32_t *now = pool->steps, *before = NULL;

	if (pool->step_count > TY_MAX_STEPS)
		return ty_fail(err, TY_INVALID, "steps: %u of them, expected at most %d", pool->step_count, TY_MAX_STEPS);
	for (uint32_t s = 0; s < pool->step_count; s++, before = now, now += pool->group_count) {
		bool last = s == pool->step_count - 1, more = false;

		for (uint32_t g = 0; g < pool->group_count; g++) {
			uint32_t least = before ? before[g] : 0, most = pool->groups[g].plane_count;

			if (now[g] < least || now[g] > most || (last && now[g] != most))
				return ty_fail(err, TY_INVALID, "steps[%u].planes[%u]: %u, expected %u..%u", s, g, now[g],
					last ? most : least, most);
			more = more || now[g] > least;
		}
		if (!more)
			return ty_fail(err, TY_INVALID, "steps[%u].planes: as the step before, expected more in one group", s);
	}
	return TY_OK;
}

static enum ty_code check_pool(const struct ty_pool *pool, uint32_t chunk_tokens, struct ty_error *err)
{
	enum ty_code code;

	if (chunk_tokens == 0)
		return ty_fail(err, TY_INVALID, "chunk_tokens: 0, expected at least 1");
	if (pool->parts < 1 || pool->parts > TY_MAX_PARTS)
		return ty_fail(err, TY_INVALID, "parts: %u, expected 1..%d", pool->parts, TY_MAX_PARTS);
	if (pool->part >= pool->parts)
		return ty_fail(err, TY_INVALID, "part: %u, expected less than parts %u", pool->part, pool->parts);
	if (pool->format && strnlen(pool->format, FORMAT_MAX + 1) > FORMAT_MAX)
		return ty_fail(err, TY_INVALID, "format: longer than %d bytes", FORMAT_MAX);
	if (pool->group_count < 1 || pool->group_count > TY_MAX_GROUPS)
		return ty_fail(err, TY_INVALID, "groups: %u of them, expected 1..%d", pool->group_count,
			TY_MAX_GROUPS);
	code = check_regions(pool, err);
	for (uint32_t i = 0; i < pool->group_count && code == TY_OK; i++)
		code = check_group(pool, i, chunk_tokens, err);
	return code == TY_OK ? check_steps(pool, err) : code;
}

static void hash_number(crypto_generichash_state *hash, uint64_t number)
{
	uint8_t bytes[8];

	for (int i = 0; i < 8; i++)
		bytes[i] = (uint8_t)(number >> (8 * i));
	crypto_generichash_update(hash, bytes, sizeof bytes);
}

/* All that decides a slot's bytes, and nothing of where the pool lies. Every number has 64 bits and the only text
 * goes behind its length, so two layouts cannot hash the same bytes. */
static void fingerprint(struct ty_layout *layout, const char *format)
{
	static const char tag[] = "tyer layout 1";
	size_t format_bytes = strlen(format);
	crypto_generichash_state hash;

	crypto_generichash_init(&hash, NULL, 0, TY_KEY_BYTES);
	crypto_generichash_update(&hash, (const uint8_t *)tag, sizeof tag);
	hash_number(&hash, layout->chunk_tokens);
	hash_number(&hash, layout->parts);
	hash_number(&hash, format_bytes);
	crypto_generichash_update(&hash, (const uint8_t *)format, format_bytes);
	hash_number(&hash, layout->group_count);
	for (uint32_t i = 0; i < layout->group_count; i++) {
		hash_number(&hash, layout->groups[i].block_tokens);
		hash_number(&hash, layout->groups[i].run_bytes);
		hash_number(&hash, layout->groups[i].plane_count);
	}
	crypto_generichash_final(&hash, layout->fingerprint, TY_KEY_BYTES);
}

/* Places in the slot. The counts fit: blocks_per_chunk <= chunk_tokens (32 bits), times 2^10 planes, times 2^32. */
static enum ty_code place_groups(struct ty_layout *layout, const struct ty_pool *pool, uint64_t max_chunk_bytes,
	struct ty_error *err)
{
	uint32_t plane = 0;

	for (uint32_t i = 0; i < pool->group_count; i++) {
		const struct ty_group *from = &pool->groups[i];
		struct ty_layout_group *g = &layout->groups[i];

		g->block_tokens = from->block_tokens;
		g->block_count = from->block_count;
		g->run_bytes = from->run_bytes;
		g->plane_count = from->plane_count;
		g->block_stride = from->block_stride;
		g->first_plane = plane;
		g->page_group = i;
		g->blocks_per_chunk = layout->chunk_tokens / from->block_tokens;
		g->first_block = layout->blocks_per_chunk;
		g->tile_offset = layout->chunk_bytes;
		if (__builtin_mul_overflow((uint64_t)g->blocks_per_chunk * g->plane_count, g->run_bytes,
			    &g->tile_bytes) ||
			__builtin_add_overflow(layout->chunk_bytes, g->tile_bytes, &layout->chunk_bytes) ||
			layout->chunk_bytes > max_chunk_bytes)
			return ty_fail(err, TY_LIMIT,
				"groups[%u]: a chunk of %u tokens passes max_chunk_bytes %llu (%u blocks x %u planes x "
				"%u bytes)", i, layout->chunk_tokens, (unsigned long long)max_chunk_bytes,
				g->blocks_per_chunk, g->plane_count, g->run_bytes);
		if (__builtin_add_overflow(layout->blocks_per_chunk, g->blocks_per_chunk,
			    &layout->blocks_per_chunk))
			return ty_fail(err, TY_LIMIT, "groups[%u]: a chunk's block ids pass 32 bits", i);
		memcpy(&layout->planes[plane], from->planes, from->plane_count * sizeof *from->planes);
		plane += from->plane_count;
	}
	return TY_OK;
}

enum ty_code ty_layout_create(const struct ty_pool *pool, uint32_t chunk_tokens, uint64_t max_chunk_bytes,
	struct ty_layout **out, struct ty_error *err)
{
	struct ty_layout *layout = NULL;
	uint32_t planes = 0, *steps;
	size_t step_numbers;
	enum ty_code code;

	*out = NULL;
	code = check_pool(pool, chunk_tokens, err);
	if (code != TY_OK)
		return code;
	for (uint32_t i = 0; i < pool->group_count; i++)
		planes += pool->groups[i].plane_count;
	step_numbers = (size_t)pool->step_count * pool->group_count;
	layout = calloc(1, sizeof *layout + planes * sizeof layout->planes[0] + step_numbers * sizeof *steps);
	if (!layout)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a layout of %u planes", planes);
	layout->chunk_tokens = chunk_tokens;
	layout->part = pool->part;
	layout->parts = pool->parts;
	layout->region_count = pool->region_count;
	layout->group_count = pool->group_count;
	layout->plane_count = planes;
	layout->step_count = pool->step_count;
	steps = (uint32_t *)(void *)(layout->planes + planes);
	if (step_numbers)
		memcpy(steps, pool->steps, step_numbers * sizeof *steps);
	layout->steps = steps;
	for (uint32_t i = 0; i < pool->region_count; i++)
		layout->region_length[i] = pool->regions[i].length;
	code = place_groups(layout, pool, max_chunk_bytes, err);
	if (code == TY_OK)
		code = ty_layout_check_overlap(layout, pool->regions, is_own(pool), err);
	if (code != TY_OK) {
		free(layout);
		return code;
	}
	fingerprint(layout, pool->format ? pool->format : "");
	*out = layout;
	return TY_OK;
}

struct ty_layout *ty_layout_part(const struct ty_layout *layout, uint32_t group, uint32_t first, uint32_t count)
{
	const struct ty_layout_group *g = &layout->groups[group];
	struct ty_layout *part = malloc(sizeof *part + count * sizeof part->planes[0]);

	if (!part)
		return NULL;
	*part = *layout;
	part->chunk_tokens = g->block_tokens;
	part->group_count = part->blocks_per_chunk = 1;
	part->plane_count = count;
	part->chunk_bytes = (uint64_t)count * g->run_bytes;
	part->step_count = 0;
	part->steps = NULL;
	part->groups[0] = *g;
	part->groups[0].plane_count = count;
	part->groups[0].blocks_per_chunk = 1;
	part->groups[0].first_plane = part->groups[0].first_block = part->groups[0].page_group = 0;
	part->groups[0].tile_offset = 0;
	part->groups[0].tile_bytes = part->chunk_bytes;
	memcpy(part->planes, layout->planes + g->first_plane + first, count * sizeof part->planes[0]);
	return part;
}

/* By digits of 11 bits: the time does not depend on what a client sends. */
static void sort_ids(uint32_t *ids, uint32_t *scratch, size_t count)
{
	for (unsigned shift = 0; shift < 33; shift += 11) {
		size_t at[2048] = {0}, sum = 0;
		uint32_t *swap = scratch;

		for (size_t i = 0; i < count; i++)
			at[ids[i] >> shift & 2047]++;
		for (size_t d = 0; d < 2048; d++) {
			size_t n = at[d];

			at[d] = sum;
			sum += n;
		}
		for (size_t i = 0; i < count; i++)
			scratch[at[ids[i] >> shift & 2047]++] = ids[i];
		scratch = ids;
		ids = swap;
	}
	/* three passes: the result is in what came in as scratch */
}

void ty_layout_sort_ids(uint32_t *ids, uint32_t *scratch, size_t count)
{
	sort_ids(ids, scratch, count);
	if (count)
		memcpy(ids, scratch, count * sizeof *ids);
}

static void sort_few_ids(uint32_t *ids, size_t count)
{
	for (size_t i = 1; i < count; i++) {
		uint32_t id = ids[i];
		size_t j = i;

		for (; j > 0 && ids[j - 1] > id; j--)
			ids[j] = ids[j - 1];
		ids[j] = id;
	}
}

/* No id twice among the groups whose page_group is `pages`. */
static enum ty_code check_unique(const struct ty_layout *layout, const uint32_t *blocks, uint32_t chunks,
	uint32_t pages, uint32_t *ids, uint32_t *scratch, struct ty_error *err)
{
	size_t count = 0;

	for (uint32_t i = pages; i < layout->group_count; i++) {
		const struct ty_layout_group *g = &layout->groups[i];

		if (g->page_group != pages)
			continue;
		for (uint32_t c = 0; c < chunks; c++) {
			const uint32_t *from = blocks + (size_t)c * layout->blocks_per_chunk + g->first_block;

			for (uint32_t b = 0; b < g->blocks_per_chunk; b++)
				if (from[b] != TY_BLOCK_SKIP)
					ids[count++] = from[b];
		}
	}
	if (count > SMALL_IDS / 4) {
		sort_ids(ids, scratch, count);
		ids = scratch;
	} else {
		sort_few_ids(ids, count);
	}
	for (size_t i = 1; i < count; i++)
		if (ids[i] == ids[i - 1])
			return ty_fail(err, TY_INVALID, "blocks of group %u: id %u occurs twice", pages, ids[i]);
	return TY_OK;
}

enum ty_code ty_layout_check_blocks(const struct ty_layout *layout, const uint32_t *blocks, uint32_t chunks,
	bool allow_skip, bool unique, struct ty_error *err)
{
	size_t total = (size_t)chunks * layout->blocks_per_chunk;
	uint32_t small[2 * SMALL_IDS], *ids = small;
	enum ty_code code = TY_OK;

	for (uint32_t c = 0; c < chunks; c++) {
		const uint32_t *chunk = blocks + (size_t)c * layout->blocks_per_chunk;

		for (uint32_t i = 0; i < layout->group_count; i++) {
			const struct ty_layout_group *g = &layout->groups[i];

			for (uint32_t b = 0; b < g->blocks_per_chunk; b++) {
				uint32_t id = chunk[g->first_block + b];

				if (id >= g->block_count && !(id == TY_BLOCK_SKIP && allow_skip))
					return ty_fail(err, TY_INVALID,
						"blocks of group %u: id %u at block %u of chunk %u, expected less "
						"than %u%s", i, id, b, c, g->block_count,
						allow_skip ? " or the skip id" : "");
			}
		}
	}
	if (!unique)
		return TY_OK;
	if (total > SMALL_IDS) {
		ids = malloc(2 * total * sizeof *ids);
		if (!ids)
			return ty_fail(err, TY_NO_MEMORY, "no memory to check %zu block ids", total);
	}
	for (uint32_t i = 0; i < layout->group_count && code == TY_OK; i++)
		if (layout->groups[i].page_group == i)
			code = check_unique(layout, blocks, chunks, i, ids,
				ids + (total > SMALL_IDS ? total : SMALL_IDS), err);
	if (ids != small)
		free(ids);
	return code;
}
