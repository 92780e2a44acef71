/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "pools.h"

#define CHUNKS_MAX 6

uint64_t test_random(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

void test_fill(void *memory, size_t bytes, uint64_t *state)
{
	uint8_t *to = memory;

	for (size_t i = 0; i < bytes; i += 8) {
		uint64_t word = test_random(state);

		memcpy(to + i, &word, bytes - i < 8 ? bytes - i : 8);
	}
}

/* ---- the pools ------------------------------------------------------------------------------ */

static struct ty_group *add_group(struct test_pool *t, uint32_t block_tokens, uint32_t blocks, uint64_t stride, uint32_t run)
{
	struct ty_group *g = &t->groups[t->pool.group_count++];

	*g = (struct ty_group){block_tokens, blocks, stride, run, 0, NULL};
	g->planes = &t->planes[(t->pool.group_count - 1) * 128];
	return g;
}

static void add_plane(struct test_pool *t, struct ty_group *g, uint32_t region, uint64_t offset)
{
	t->planes[(size_t)(g - t->groups) * 128 + g->plane_count++] = (struct ty_plane){region, offset};
}

static uint32_t add_region(struct test_pool *t, uint64_t offset, uint64_t length, uint64_t after)
{
	uint32_t i = t->pool.region_count++;

	t->regions[i].offset = offset;
	t->regions[i].length = length;
	t->regions[i].allocation_bytes = offset + length + after;
	return i;
}

enum { LAYERS = 3, BLOCKS = 64, RUN = 512 };

/* layers x [2, blocks, run] */
static void per_layer(struct test_pool *t)
{
	struct ty_group *g = add_group(t, 16, BLOCKS, RUN, RUN);

	for (uint32_t l = 0; l < LAYERS; l++) {
		uint32_t r = add_region(t, 0, 2ull * BLOCKS * RUN, 0);

		add_plane(t, g, r, 0);
		add_plane(t, g, r, (uint64_t)BLOCKS * RUN);
	}
	t->pool.format = "NHD";
}

static void per_layer_hnd(struct test_pool *t)
{
	per_layer(t);
	t->pool.format = "HND";
	t->pool.part = 1;
	t->pool.parts = 4;
}

/* K and V in allocations of their own */
static void split_kv(struct test_pool *t)
{
	struct ty_group *g = add_group(t, 16, BLOCKS, RUN, RUN);

	for (uint32_t l = 0; l < 2 * LAYERS; l++)
		add_plane(t, g, add_region(t, 0, (uint64_t)BLOCKS * RUN, 0), 0);
}

/* layers x [blocks, 2, run]: planes interleave */
static void blocks_first(struct test_pool *t)
{
	struct ty_group *g = add_group(t, 16, BLOCKS, 2 * RUN, RUN);

	for (uint32_t l = 0; l < LAYERS; l++) {
		uint32_t r = add_region(t, 4096, 2ull * BLOCKS * RUN, 64);

		add_plane(t, g, r, 0);
		add_plane(t, g, r, RUN);
	}
}

/* layers x [blocks, run of K and V] */
static void fused(struct test_pool *t)
{
	struct ty_group *g = add_group(t, 16, BLOCKS, 2 * RUN, 2 * RUN);

	for (uint32_t l = 0; l < LAYERS; l++)
		add_plane(t, g, add_region(t, 0, 2ull * BLOCKS * RUN, 0), 0);
}

/* [blocks, layers, 2, run] in one allocation */
static void cross_layer(struct test_pool *t)
{
	struct ty_group *g = add_group(t, 16, BLOCKS, 2ull * LAYERS * RUN, RUN);
	uint32_t r = add_region(t, 256, 2ull * LAYERS * BLOCKS * RUN, 0);

	for (uint32_t l = 0; l < 2 * LAYERS; l++)
		add_plane(t, g, r, (uint64_t)l * RUN);
}

/* the same with long blocks, which need no kernel */
static void cross_layer_long(struct test_pool *t)
{
	const uint32_t run = 8192, planes = 64;
	struct ty_group *g = add_group(t, 16, 10, (uint64_t)planes * run, run);
	uint32_t r = add_region(t, 0, (uint64_t)planes * run * 10, 0);

	for (uint32_t l = 0; l < planes; l++)
		add_plane(t, g, r, (uint64_t)l * run);
	t->chunk_tokens = 32;
}

/* layers x [blocks, run], one latent plane a layer, an odd run length */
static void mla(struct test_pool *t)
{
	struct ty_group *g = add_group(t, 64, BLOCKS, 1168, 1168);

	for (uint32_t l = 0; l < LAYERS; l++)
		add_plane(t, g, add_region(t, 0, 1168ull * BLOCKS, 0), 0);
}

static void hybrid(struct test_pool *t)
{
	struct ty_group *a = add_group(t, 16, BLOCKS, RUN, RUN), *b = add_group(t, 32, 40, 3 * RUN, 3 * RUN);

	for (uint32_t l = 0; l < 2 * LAYERS; l++)
		add_plane(t, a, add_region(t, 0, (uint64_t)BLOCKS * RUN, 0), 0);
	for (uint32_t l = 0; l < LAYERS; l++)
		add_plane(t, b, add_region(t, 0, 3ull * 40 * RUN, 0), 0);
}

/* groups that cut the same pages differently; an id belongs to one of them */
static void hybrid_shared(struct test_pool *t)
{
	struct ty_group *a = add_group(t, 16, BLOCKS, 2 * RUN, RUN), *b = add_group(t, 32, BLOCKS, 2 * RUN, 2 * RUN);

	for (uint32_t l = 0; l < LAYERS; l++) {
		uint32_t r = add_region(t, 0, 2ull * BLOCKS * RUN, 0);

		add_plane(t, a, r, 0);
		add_plane(t, a, r, RUN);
		add_plane(t, b, r, 0);
	}
}

/* groups of different strides, one behind the other in one region; rows are padded */
static void padded(struct test_pool *t)
{
	struct ty_group *a = add_group(t, 16, BLOCKS, RUN + 48, RUN), *b = add_group(t, 64, 32, 4096, 1024 + 16);
	uint32_t r = add_region(t, 48, 1 << 20, 128);

	for (uint32_t l = 0; l < LAYERS; l++)
		add_plane(t, a, r, (uint64_t)l * BLOCKS * (RUN + 48) + 32);
	add_plane(t, b, r, 512 * 1024);
	add_plane(t, b, r, 512 * 1024 + 2048);
}

/* single copies need no kernel */
static void long_runs(struct test_pool *t)
{
	struct ty_group *g = add_group(t, 16, 12, 256 << 10, 256 << 10);
	uint32_t r = add_region(t, 0, 2ull * 12 * (256 << 10), 0);

	add_plane(t, g, r, 0);
	add_plane(t, g, r, 12ull * (256 << 10));
	t->chunk_tokens = 32;
}

/* more ids in a chunk than a kernel takes */
static void many_blocks(struct test_pool *t)
{
	struct ty_group *g = add_group(t, 1, 6144, 16, 16);
	uint32_t r = add_region(t, 0, 2ull * 6144 * 16, 0);

	add_plane(t, g, r, 0);
	add_plane(t, g, r, 6144ull * 16);
	t->chunk_tokens = 1100;
}

/* a block larger than a tile of small staging */
static void wide_blocks(struct test_pool *t)
{
	struct ty_group *g = add_group(t, 16, 4, 65536 + 64, 65536);

	for (uint32_t l = 0; l < 60; l++)
		add_plane(t, g, add_region(t, 0, 4ull * (65536 + 64), 0), 0);
	t->chunk_tokens = 16;
}

/* long runs beside short ones */
static void mixed(struct test_pool *t)
{
	struct ty_group *a = add_group(t, 16, 12, 256 << 10, 256 << 10), *b = add_group(t, 16, BLOCKS, RUN, RUN);

	add_plane(t, a, add_region(t, 0, 12ull * (256 << 10), 0), 0);
	for (uint32_t l = 0; l < LAYERS; l++)
		add_plane(t, b, add_region(t, 0, (uint64_t)BLOCKS * RUN, 0), 0);
	t->chunk_tokens = 32;
}

static const struct {
	const char *name;
	void (*build)(struct test_pool *t);
} known[] = {
	{"per layer, [2, blocks]", per_layer},
	{"per layer, HND, one of four parts", per_layer_hnd},
	{"K and V apart", split_kv},
	{"blocks first", blocks_first},
	{"fused", fused},
	{"cross-layer", cross_layer},
	{"cross-layer, long blocks", cross_layer_long},
	{"MLA", mla},
	{"hybrid", hybrid},
	{"hybrid, shared pages", hybrid_shared},
	{"padded", padded},
	{"long runs", long_runs},
	{"many blocks", many_blocks},
	{"wide blocks", wide_blocks},
	{"long and short runs", mixed},
};
const unsigned test_pool_count = sizeof known / sizeof known[0];

void test_pool_build(unsigned index, struct test_pool *t)
{
	memset(t, 0, sizeof *t);
	t->name = known[index].name;
	t->chunk_tokens = 64;
	t->pool.parts = 1;
	t->pool.regions = t->regions;
	t->pool.groups = t->groups;
	for (unsigned i = 0; i < TY_MAX_REGIONS; i++)
		t->regions[i].fd = -1 - (int)i; /* no two of them one allocation */
	for (unsigned i = 0; i < TY_MAX_REGIONS; i++)
		t->regions[i].is_fd = true;
	known[index].build(t);
}

/* ---- the round trip ------------------------------------------------------------------------- */

void test_drive(struct ty_device *dev, uint32_t want, uint64_t polls)
{
	struct ty_batch *done[3];
	uint32_t got = 0;

	for (uint64_t i = 0; i < polls && got < want; i++) {
		uint32_t n = ty_device_poll(dev, done, 3);

		assert_true(n <= 3);
		for (uint32_t j = 0; j < n; j++)
			assert_true(done[j]->client_free);
		got += n;
	}
	assert_int_equal(got, want);
	assert_int_equal(ty_device_poll(dev, done, 3), 0);
}

/* Random ids for `chunks` chunks; no id twice among the groups of one page_group. */
static uint32_t *draw_ids(struct test_trip *t, uint32_t chunks, bool skip)
{
	const struct ty_layout *l = t->layout;
	uint32_t *ids = calloc((size_t)chunks * l->blocks_per_chunk, sizeof *ids);
	struct ty_error err;

	for (uint32_t pages = 0; pages < l->group_count; pages++) {
		uint32_t count = l->groups[pages].block_count, *deck, at = 0;

		if (l->groups[pages].page_group != pages)
			continue;
		deck = calloc(count, sizeof *deck);
		for (uint32_t i = 0; i < count; i++) {
			uint32_t j = (uint32_t)(test_random(&t->random) % (i + 1));

			deck[i] = deck[j];
			deck[j] = i;
		}
		for (uint32_t g = pages; g < l->group_count; g++) {
			if (l->groups[g].page_group != pages)
				continue;
			for (uint32_t c = 0; c < chunks; c++)
				for (uint32_t b = 0; b < l->groups[g].blocks_per_chunk; b++) {
					uint32_t *id = &ids[c * l->blocks_per_chunk + l->groups[g].first_block + b];

					assert_true(at < count);
					*id = deck[at++];
					if (skip && test_random(&t->random) % 4 == 0)
						*id = TY_BLOCK_SKIP;
				}
		}
		free(deck);
	}
	assert_int_equal(ty_layout_check_blocks(l, ids, chunks, skip, true, &err), TY_OK);
	return ids;
}

/* The formula: slot[...] and pool[...] of each run, by `move`. */
static void each_run(struct test_trip *t, uint8_t *const *view, uint8_t *slot, const uint32_t *ids, bool to_pool)
{
	const struct ty_layout *l = t->layout;

	for (uint32_t i = 0; i < l->group_count; i++) {
		const struct ty_layout_group *g = &l->groups[i];

		for (uint32_t b = 0; b < g->blocks_per_chunk; b++)
			for (uint32_t p = 0; p < g->plane_count; p++) {
				const struct ty_plane *plane = &l->planes[g->first_plane + p];
				uint32_t id = ids[g->first_block + b];
				uint8_t *in_slot = slot + g->tile_offset +
					((uint64_t)b * g->plane_count + p) * g->run_bytes;
				uint8_t *in_pool = view[plane->region] + plane->offset + id * g->block_stride;

				if (id == TY_BLOCK_SKIP)
					continue;
				if (to_pool)
					memcpy(in_pool, in_slot, g->run_bytes);
				else
					memcpy(in_slot, in_pool, g->run_bytes);
			}
	}
}

static void build(struct test_trip *t, struct ty_batch *batch, struct ty_copy *copies, enum ty_direction direction,
	uint8_t *slots, const uint32_t *ids, uint32_t chunks)
{
	memset(batch, 0xa5, sizeof *batch);
	batch->mapping = t->mapping;
	batch->direction = direction;
	batch->copies = copies;
	batch->count = chunks;
	for (uint32_t c = 0; c < chunks; c++) {
		copies[c].host = slots + c * t->layout->chunk_bytes;
		copies[c].blocks = ids + c * t->layout->blocks_per_chunk;
	}
}

static void check_pool(struct test_trip *t, uint8_t *const *expected, const char *when)
{
	for (uint32_t i = 0; i < t->layout->region_count; i++)
		if (memcmp(t->view[i], expected[i], t->layout->region_length[i]))
			fail_msg("%s: %s: region %u is not as it must be", t->pool->name, when, i);
}

static void check_slots(struct test_trip *t, const uint8_t *expected, size_t bytes, const char *when)
{
	for (size_t i = 0; i < bytes; i++)
		if (t->slots[i] != expected[i])
			fail_msg("%s: %s: byte %zu of the slots (chunk_bytes %llu) is not as it must be", t->pool->name,
				when, i, (unsigned long long)t->layout->chunk_bytes);
}

void test_round_trip(struct test_trip *t)
{
	const struct ty_layout *l = t->layout;
	uint32_t chunks = CHUNKS_MAX, limit = ty_device_batch_limit(t->dev, l), *ids, *other;
	uint8_t *model[TY_MAX_REGIONS], *slots;
	struct ty_copy copies[2][CHUNKS_MAX];
	struct ty_batch batch[2];
	size_t bytes;

	/* two sets of chunks side by side, in pool and slots */
	for (uint32_t i = 0; i < l->group_count; i++) {
		uint32_t sharers = 0, room;

		for (uint32_t g = 0; g < l->group_count; g++)
			if (l->groups[g].page_group == l->groups[i].page_group)
				sharers += l->groups[g].blocks_per_chunk;
		room = l->groups[i].block_count / sharers / 2;
		chunks = room < chunks ? room : chunks;
	}
	chunks = limit < chunks ? limit : chunks;
	assert_true(chunks >= 1);
	bytes = 2 * chunks * l->chunk_bytes;
	assert_true(bytes + 64 <= t->slot_bytes);
	slots = malloc(bytes + 64);
	for (uint32_t i = 0; i < l->region_count; i++) {
		model[i] = malloc(l->region_length[i]);
		test_fill(t->view[i], l->region_length[i], &t->random);
		memcpy(model[i], t->view[i], l->region_length[i]);
	}

	/* store */
	test_fill(t->slots, bytes + 64, &t->random);
	memcpy(slots, t->slots, bytes + 64);
	ids = draw_ids(t, chunks, false);
	for (uint32_t c = 0; c < chunks; c++)
		each_run(t, model, slots + c * l->chunk_bytes, ids + c * l->blocks_per_chunk, false);
	build(t, &batch[0], copies[0], TY_TO_HOST, t->slots, ids, chunks);
	assert_int_equal(ty_device_submit(t->dev, &batch[0]), TY_OK);
	assert_false(batch[0].client_free);
	test_drive(t->dev, 1, 1000000);
	assert_int_equal(batch[0].code, TY_OK);
	check_slots(t, slots, bytes + 64, "store");
	check_pool(t, model, "store");
	free(ids);

	/* retrieve elsewhere, with some skipped */
	ids = draw_ids(t, chunks, true);
	for (uint32_t c = 0; c < chunks; c++)
		each_run(t, model, slots + c * l->chunk_bytes, ids + c * l->blocks_per_chunk, true);
	build(t, &batch[0], copies[0], TY_TO_DEVICE, t->slots, ids, chunks);
	assert_int_equal(ty_device_submit(t->dev, &batch[0]), TY_OK);
	test_drive(t->dev, 1, 1000000);
	assert_int_equal(batch[0].code, TY_OK);
	check_slots(t, slots, bytes + 64, "retrieve");
	check_pool(t, model, "retrieve");
	free(ids);

	/* both at once: the first half of the slots goes to the first half of the ids, the second comes from the second */
	ids = draw_ids(t, 2 * chunks, false);
	other = ids + chunks * l->blocks_per_chunk;
	for (uint32_t c = 0; c < chunks; c++) {
		each_run(t, model, slots + (chunks + c) * l->chunk_bytes, other + c * l->blocks_per_chunk, false);
		each_run(t, model, slots + c * l->chunk_bytes, ids + c * l->blocks_per_chunk, true);
	}
	build(t, &batch[0], copies[0], TY_TO_DEVICE, t->slots, ids, chunks);
	build(t, &batch[1], copies[1], TY_TO_HOST, t->slots + chunks * l->chunk_bytes, other, chunks);
	assert_int_equal(ty_device_submit(t->dev, &batch[0]), TY_OK);
	assert_int_equal(ty_device_submit(t->dev, &batch[1]), TY_OK);
	test_drive(t->dev, 2, 1000000);
	assert_int_equal(batch[0].code, TY_OK);
	assert_int_equal(batch[1].code, TY_OK);
	check_slots(t, slots, bytes + 64, "both at once");
	check_pool(t, model, "both at once");
	free(ids);

	free(slots);
	for (uint32_t i = 0; i < l->region_count; i++)
		free(model[i]);
}
