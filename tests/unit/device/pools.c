/* SPDX-License-Identifier: Apache-2.0 */
#include "pools.h"

#include <tyer/presets.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
	g->planes = &t->planes[(t->pool.group_count - 1) * TEST_PLANES];
	return g;
}

static void add_plane(struct test_pool *t, struct ty_group *g, uint32_t region, uint64_t offset)
{
	t->planes[(size_t)(g - t->groups) * TEST_PLANES + g->plane_count++] = (struct ty_plane){region, offset};
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

/* A preset as one more group, in regions of its own. Head of 32 bytes: an NHD run of 16 tokens and 2 heads is 1 KiB. */
static void add_preset(struct test_pool *t, const char *name, const struct ty_preset_shape *shape)
{
	struct ty_group *g = &t->groups[t->pool.group_count];
	uint32_t regions;
	uint64_t bytes;
	struct ty_error err = {0};

	if (ty_preset_group(name, shape, t->pool.region_count, g, &t->planes[t->pool.group_count * TEST_PLANES], TEST_PLANES,
		    &regions, &bytes, &err) != TY_OK) {
		fprintf(stderr, "%s: %s\n", name, err.text);
		abort();
	}
	t->pool.group_count++;
	for (uint32_t i = 0; i < regions; i++)
		add_region(t, 0, bytes, 0);
	t->pool.format = ty_preset_format(name);
}

static void preset(struct test_pool *t, const char *name, uint32_t padding)
{
	bool one_head = !strcmp(name, "mla") || !strcmp(name, "pages");
	const struct ty_preset_shape shape = {.layers = LAYERS, .blocks = BLOCKS, .block_tokens = 16, .heads = one_head ? 1 : 2,
		.head_bytes = one_head ? 132 : 32, .padding = padding};

	add_preset(t, name, &shape);
}

/* more allocations than there are descriptors: 40 layers, K and V apart */
static void many_regions(struct test_pool *t)
{
	const struct ty_preset_shape shape = {40, 32, 16, 1, 32, 0};

	add_preset(t, "split-nhd", &shape);
}

/* three groups: full attention in padded pages, a window with longer blocks, states of another size */
static void hybrid_presets(struct test_pool *t)
{
	const struct ty_preset_shape full = {2, BLOCKS, 16, 2, 32, 64}, window = {2, 40, 32, 2, 32, 0}, states = {1, 32, 64, 1, 48, 16};

	add_preset(t, "pages", &states);
	add_preset(t, "blocks-first-nhd", &full);
	add_preset(t, "kv-first-hnd", &window);
}

static const struct {
	const char *name;
	void (*build)(struct test_pool *t); /* null: the preset of this name ... */
	uint32_t padding;                   /* ... with so much behind each block */
} known[] = {
	{"per layer, [2, blocks]", per_layer, 0},
	{"per layer, HND, one of four parts", per_layer_hnd, 0},
	{"K and V apart", split_kv, 0},
	{"blocks first", blocks_first, 0},
	{"fused", fused, 0},
	{"cross-layer", cross_layer, 0},
	{"cross-layer, long blocks", cross_layer_long, 0},
	{"MLA", mla, 0},
	{"hybrid", hybrid, 0},
	{"hybrid, shared pages", hybrid_shared, 0},
	{"padded", padded, 0},
	{"long runs", long_runs, 0},
	{"many blocks", many_blocks, 0},
	{"wide blocks", wide_blocks, 0},
	{"long and short runs", mixed, 0},
	{"80 allocations", many_regions, 0},
	{"hybrid of presets", hybrid_presets, 0},
	{"cross-layer-nhd", NULL, 0},
	{"cross-layer-hnd", NULL, 0},
	{"cross-layer-fused-nhd", NULL, 0},
	{"cross-layer-fused-hnd", NULL, 0},
	{"kv-first-nhd", NULL, 0},
	{"kv-first-hnd", NULL, 0},
	{"blocks-first-nhd", NULL, 0},
	{"blocks-first-hnd", NULL, 0},
	{"fused-nhd", NULL, 0},
	{"fused-hnd", NULL, 0},
	{"split-nhd", NULL, 0},
	{"split-hnd", NULL, 0},
	{"mla", NULL, 0},
	{"pages", NULL, 0},
	{"cross-layer-fused-nhd", NULL, 48},
	{"kv-first-hnd", NULL, 48},
	{"split-hnd", NULL, 16},
	{"mla", NULL, 1024},
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
	if (known[index].build)
		known[index].build(t);
	else
		preset(t, known[index].name, known[index].padding);
}

void test_pool_steps(struct test_pool *t)
{
	uint32_t groups = t->pool.group_count, count = 0;

	for (uint32_t s = 0; s < 3; s++) {
		uint32_t *now = t->steps + count * groups, *before = now - groups;
		bool more = false;

		for (uint32_t g = 0; g < groups; g++) {
			uint32_t planes = t->groups[g].plane_count;

			/* the first group from its first plane on, the others later */
			now[g] = s == 2 ? planes : s == 1 ? planes / 2 : g == 0 ? planes / 3 : 0;
			more = more || now[g] > (count ? before[g] : 0);
		}
		count += more;
	}
	t->pool.step_count = count;
	t->pool.steps = t->steps;
}

uint32_t test_chunks(const struct ty_layout *l)
{
	uint32_t chunks = UINT32_MAX;

	for (uint32_t i = 0; i < l->group_count; i++) {
		uint32_t sharers = 0, room;

		for (uint32_t g = 0; g < l->group_count; g++)
			if (l->groups[g].page_group == l->groups[i].page_group)
				sharers += l->groups[g].blocks_per_chunk;
		room = l->groups[i].block_count / sharers;
		chunks = room < chunks ? room : chunks;
	}
	return chunks;
}

uint32_t *test_draw_ids(const struct ty_layout *l, uint32_t chunks, bool skip, uint64_t *random)
{
	uint32_t *ids = calloc((size_t)chunks * l->blocks_per_chunk, sizeof *ids);

	for (uint32_t pages = 0; pages < l->group_count; pages++) {
		uint32_t count = l->groups[pages].block_count, *deck, at = 0;

		if (l->groups[pages].page_group != pages)
			continue;
		deck = calloc(count, sizeof *deck);
		for (uint32_t i = 0; i < count; i++) {
			uint32_t j = (uint32_t)(test_random(random) % (i + 1));

			deck[i] = deck[j];
			deck[j] = i;
		}
		for (uint32_t g = pages; g < l->group_count; g++) {
			if (l->groups[g].page_group != pages)
				continue;
			for (uint32_t c = 0; c < chunks; c++)
				for (uint32_t b = 0; b < l->groups[g].blocks_per_chunk; b++) {
					uint32_t *id = &ids[c * l->blocks_per_chunk + l->groups[g].first_block + b];

					*id = deck[at++];
					if (skip && test_random(random) % 4 == 0)
						*id = TY_BLOCK_SKIP;
				}
		}
		free(deck);
	}
	return ids;
}
