/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "pools.h"

#define MAX_CHUNK ((uint64_t)64 << 20)

static struct test_pool tp;

static struct ty_layout *create(uint32_t chunk_tokens)
{
	struct ty_layout *layout;
	struct ty_error err = {0};
	enum ty_code code = ty_layout_create(&tp.pool, chunk_tokens, MAX_CHUNK, &layout, &err);

	if (code != TY_OK)
		fail_msg("%s: %s", tp.name, err.text);
	return layout;
}

static void good_pools(void **state)
{
	(void)state;
	for (unsigned i = 0; i < test_pool_count; i++) {
		struct ty_layout *l;
		uint64_t bytes = 0;
		uint32_t blocks = 0;

		test_pool_build(i, &tp);
		l = create(tp.chunk_tokens);
		assert_int_equal(l->group_count, tp.pool.group_count);
		for (uint32_t g = 0; g < l->group_count; g++) {
			assert_int_equal(l->groups[g].tile_offset, bytes);
			assert_int_equal(l->groups[g].first_block, blocks);
			assert_int_equal(l->groups[g].blocks_per_chunk, tp.chunk_tokens / tp.groups[g].block_tokens);
			blocks += l->groups[g].blocks_per_chunk;
			bytes += (uint64_t)l->groups[g].blocks_per_chunk * tp.groups[g].plane_count *
				tp.groups[g].run_bytes;
			assert_int_equal(l->groups[g].page_group, strcmp(tp.name, "hybrid, shared pages") ? g : 0);
			assert_memory_equal(&l->planes[l->groups[g].first_plane], tp.groups[g].planes,
				tp.groups[g].plane_count * sizeof(struct ty_plane));
		}
		assert_int_equal(l->chunk_bytes, bytes);
		assert_int_equal(l->blocks_per_chunk, blocks);
		free(l);
	}
}

static void fingerprints(void **state)
{
	uint8_t base[TY_KEY_BYTES];
	struct ty_layout *l;

	(void)state;
	test_pool_build(0, &tp);
	l = create(64);
	memcpy(base, l->fingerprint, sizeof base);
	free(l);

	/* what shows: chunk_tokens, parts, format, block_tokens, run_bytes, planes */
	for (int i = 0; i < 6; i++) {
		test_pool_build(0, &tp);
		if (i == 1)
			tp.pool.parts = 2;
		if (i == 2)
			tp.pool.format = "HND";
		if (i == 3)
			tp.groups[0].block_tokens = 32;
		if (i == 4)
			tp.groups[0].run_bytes -= 16;
		if (i == 5)
			tp.groups[0].plane_count--;
		l = create(i == 0 ? 128 : 64);
		assert_memory_not_equal(base, l->fingerprint, sizeof base);
		free(l);
	}
	/* what does not: part, block count, place, stride */
	for (int i = 0; i < 4; i++) {
		test_pool_build(i == 3 ? 3 : 0, &tp);
		if (i == 0)
			tp.groups[0].block_count--;
		if (i == 1)
			tp.regions[0].offset += 16, tp.regions[0].allocation_bytes += 16;
		if (i == 3)
			tp.pool.format = "NHD"; /* blocks first: the same runs, elsewhere */
		l = create(64);
		assert_memory_equal(base, l->fingerprint, sizeof base);
		free(l);
	}
	/* of two parts of one chunk: the same */
	test_pool_build(0, &tp);
	tp.pool.parts = 2;
	l = create(64);
	memcpy(base, l->fingerprint, sizeof base);
	free(l);
	tp.pool.part = 1;
	l = create(64);
	assert_memory_equal(base, l->fingerprint, sizeof base);
	free(l);
}

static void refuse(enum ty_code want, const char *field)
{
	struct ty_layout *layout = (struct ty_layout *)(uintptr_t)1;
	struct ty_error err = {0};
	enum ty_code code = ty_layout_create(&tp.pool, tp.chunk_tokens, MAX_CHUNK, &layout, &err);

	if (code != want || layout || !strstr(err.text, field))
		fail_msg("expected %s naming %s, got %s: %s", ty_code_name(want), field, ty_code_name(code), err.text);
}

static void refusals(void **state)
{
	static char text[80];

	(void)state;
#define BAD(pool, change, code, field)                                                                                 \
	test_pool_build(pool, &tp);                                                                                    \
	change;                                                                                                        \
	refuse(code, field)

	BAD(0, tp.chunk_tokens = 0, TY_INVALID, "chunk_tokens");
	BAD(0, tp.pool.parts = 0, TY_INVALID, "parts");
	BAD(0, tp.pool.parts = TY_MAX_PARTS + 1, TY_INVALID, "parts");
	BAD(0, tp.pool.part = 1, TY_INVALID, "part: 1");
	memset(text, 'x', 65);
	BAD(0, tp.pool.format = text, TY_INVALID, "format");
	BAD(0, tp.pool.group_count = 0, TY_INVALID, "groups");
	BAD(0, tp.pool.group_count = TY_MAX_GROUPS + 1, TY_INVALID, "groups");
	BAD(0, tp.pool.region_count = 0, TY_INVALID, "regions");
	BAD(0, tp.pool.region_count = TY_MAX_REGIONS + 1, TY_INVALID, "regions");
	BAD(0, tp.regions[1].length = 0, TY_INVALID, "regions[1].length");
	BAD(0, tp.regions[1].offset = 8, TY_INVALID, "regions[1].offset");
	BAD(0, tp.regions[1].offset = 16, TY_INVALID, "allocation_bytes");
	BAD(0, tp.regions[1].offset = UINT64_MAX - 15, TY_INVALID, "allocation_bytes");
	BAD(0, tp.regions[1].length = UINT64_MAX; tp.regions[1].offset = 16, TY_INVALID, "allocation_bytes");
	BAD(0, tp.groups[0].block_tokens = 0, TY_INVALID, "block_tokens");
	BAD(0, tp.groups[0].block_tokens = 48, TY_INVALID, "block_tokens");
	BAD(0, tp.groups[0].block_tokens = 128, TY_INVALID, "block_tokens");
	BAD(0, tp.groups[0].block_count = 0, TY_INVALID, "block_count");
	BAD(0, tp.groups[0].block_count = UINT32_MAX, TY_INVALID, "block_count");
	BAD(0, tp.groups[0].block_count++, TY_INVALID, "planes[1]");
	BAD(0, tp.groups[0].run_bytes = 0, TY_INVALID, "run_bytes");
	BAD(0, tp.groups[0].run_bytes = 504, TY_INVALID, "run_bytes");
	BAD(0, tp.groups[0].run_bytes = 528, TY_INVALID, "block_stride");
	BAD(0, tp.groups[0].block_stride = 520, TY_INVALID, "block_stride");
	BAD(0, tp.groups[0].block_stride = 0, TY_INVALID, "block_stride");
	BAD(0, tp.groups[0].block_stride = UINT64_MAX - 15, TY_INVALID, "64 bits");
	BAD(0, tp.groups[0].plane_count = 0, TY_INVALID, "planes");
	BAD(0, tp.groups[0].plane_count = TY_MAX_PLANES + 1, TY_INVALID, "planes");
	BAD(0, tp.planes[3].region = 3, TY_INVALID, "planes[3].region");
	BAD(0, tp.planes[3].offset = 8, TY_INVALID, "planes[3].offset");
	BAD(0, tp.planes[3].offset += 16, TY_INVALID, "planes[3]");
	BAD(0, tp.planes[3].offset = UINT64_MAX - 15, TY_INVALID, "planes[3]");
	/* overlap: the same plane twice, by one unit, interleaved by too little, over the stride's end, between groups */
	BAD(0, tp.planes[1].offset = 0, TY_INVALID, "overlap");
	BAD(0, tp.planes[1].offset -= 16, TY_INVALID, "overlap");
	BAD(3, tp.planes[1].offset -= 16, TY_INVALID, "overlap");
	BAD(3, tp.groups[0].run_bytes += 16; tp.groups[0].block_count--, TY_INVALID, "overlap");
	BAD(9, tp.planes[TEST_PLANES].offset = 512; tp.groups[1].block_count--, TY_INVALID, "overlap");
	BAD(10, tp.groups[1].block_stride += 16; tp.planes[TEST_PLANES].offset = 64, TY_INVALID, "overlap");
	/* regions that are one allocation */
	BAD(2, tp.regions[1].fd = tp.regions[0].fd, TY_INVALID, "overlap");
	BAD(2, tp.regions[0].is_fd = tp.regions[1].is_fd = false, TY_INVALID, "overlap");
	/* a chunk that is too large */
	BAD(11, tp.chunk_tokens = 16 * 129, TY_LIMIT, "max_chunk_bytes");
	BAD(12, tp.chunk_tokens = UINT32_MAX, TY_LIMIT, "max_chunk_bytes");
#undef BAD
}

/* Is there a pair of runs that overlaps, other than of groups in one page? The slow way. `apart`: no two planes of different
 * strides have overlapping spans. */
static bool brute_force(bool *apart)
{
	bool bad = false;

	*apart = true;
	for (uint32_t g = 0; g < tp.pool.group_count; g++)
		for (uint32_t h = g; h < tp.pool.group_count; h++)
			for (uint32_t p = 0; p < tp.groups[g].plane_count; p++)
				for (uint32_t q = g == h ? p + 1 : 0; q < tp.groups[h].plane_count; q++) {
					const struct ty_group *a = &tp.groups[g], *b = &tp.groups[h];
					uint64_t x = a->planes[p].offset, y = b->planes[q].offset;

					if (a->block_stride != b->block_stride &&
						x < y + (b->block_count - 1) * b->block_stride + b->run_bytes &&
						y < x + (a->block_count - 1) * a->block_stride + a->run_bytes)
						*apart = false;
					for (uint32_t i = 0; i < a->block_count; i++)
						for (uint32_t j = 0; j < b->block_count; j++) {
							uint64_t s = x + i * a->block_stride, t = y + j * b->block_stride;

							if (s < t + b->run_bytes && t < s + a->run_bytes &&
								(g == h || i != j))
								bad = true;
						}
				}
	return bad;
}

static void overlap_agrees_with_brute_force(void **state)
{
	uint64_t random = 1;
	unsigned accepted = 0, refused = 0;

	(void)state;
	for (unsigned round = 0; round < 60000; round++) {
		struct ty_layout *layout;
		struct ty_error err;
		bool apart, overlaps;
		enum ty_code code;

		memset(&tp, 0, sizeof tp);
		tp.pool.regions = tp.regions;
		tp.pool.groups = tp.groups;
		tp.pool.parts = tp.pool.region_count = 1;
		tp.regions[0].length = tp.regions[0].allocation_bytes = 1 << 20;
		tp.pool.group_count = 1 + (uint32_t)(test_random(&random) % 2);
		for (uint32_t g = 0; g < tp.pool.group_count; g++) {
			struct ty_group *group = &tp.groups[g];

			group->block_tokens = 1;
			group->block_count = 1 + (uint32_t)(test_random(&random) % 4);
			group->run_bytes = 16 * (1 + (uint32_t)(test_random(&random) % 3));
			group->block_stride = group->run_bytes + 16 * (test_random(&random) % 8);
			if (g && test_random(&random) % 3 && tp.groups[0].block_stride >= group->run_bytes)
				group->block_stride = tp.groups[0].block_stride;
			group->plane_count = 1 + (uint32_t)(test_random(&random) % 4);
			group->planes = &tp.planes[g * TEST_PLANES];
			for (uint32_t p = 0; p < group->plane_count; p++)
				tp.planes[g * TEST_PLANES + p].offset = 16 * (test_random(&random) % 48);
		}
		overlaps = brute_force(&apart);
		code = ty_layout_create(&tp.pool, 1, MAX_CHUNK, &layout, &err);
		if (code == TY_OK) {
			accepted++;
			assert_false(overlaps);
			assert_true(apart);
			free(layout);
		} else {
			refused++;
			assert_int_equal(code, TY_INVALID);
			assert_non_null(strstr(err.text, "overlap"));
			if (!overlaps && apart)
				fail_msg("round %u: refused for nothing: %s", round, err.text);
		}
	}
	assert_true(accepted > 5000);
	assert_true(refused > 5000);
}

/* As many planes as there may be, interleaved in one region; the last one wrong by a unit. */
static void overlap_of_very_many(void **state)
{
	static struct ty_plane planes[TY_MAX_GROUPS][TY_MAX_PLANES];
	uint32_t total = TY_MAX_GROUPS * TY_MAX_PLANES;
	struct ty_layout *layout;
	struct ty_error err;

	(void)state;
	memset(&tp, 0, sizeof tp);
	tp.pool.regions = tp.regions;
	tp.pool.groups = tp.groups;
	tp.pool.parts = tp.pool.region_count = 1;
	tp.pool.group_count = TY_MAX_GROUPS;
	for (uint32_t g = 0; g < TY_MAX_GROUPS; g++) {
		tp.groups[g] = (struct ty_group){1, 1u << 30, 32ull * total, 32, TY_MAX_PLANES, planes[g]};
		for (uint32_t p = 0; p < TY_MAX_PLANES; p++)
			planes[g][p].offset = 32ull * ((p * TY_MAX_GROUPS + g) * 5167 % total);
	}
	tp.regions[0].length = tp.regions[0].allocation_bytes = (32ull * total) << 30;
	assert_int_equal(ty_layout_create(&tp.pool, 1, MAX_CHUNK, &layout, &err), TY_OK);
	free(layout);
	planes[7][1023].offset = planes[7][0].offset + 16;
	tp.groups[7].block_count--;
	assert_int_equal(ty_layout_create(&tp.pool, 1, MAX_CHUNK, &layout, &err), TY_INVALID);
	assert_non_null(strstr(err.text, "overlap"));
}

static void block_ids(void **state)
{
	uint32_t ids[4 * 6], *many;
	struct ty_error err;
	struct ty_layout *l;

	(void)state;
	test_pool_build(9, &tp); /* shared pages: 4 + 2 ids a chunk */
	l = create(64);
	assert_int_equal(l->blocks_per_chunk, 6);
	for (uint32_t i = 0; i < 24; i++)
		ids[i] = 63 - i;
	assert_int_equal(ty_layout_check_blocks(l, ids, 4, false, true, &err), TY_OK);
	ids[7] = 64;
	assert_int_equal(ty_layout_check_blocks(l, ids, 4, true, false, &err), TY_INVALID);
	assert_non_null(strstr(err.text, "id 64 at block 1 of chunk 1"));
	ids[7] = TY_BLOCK_SKIP;
	ids[8] = TY_BLOCK_SKIP;
	assert_int_equal(ty_layout_check_blocks(l, ids, 4, false, false, &err), TY_INVALID);
	assert_int_equal(ty_layout_check_blocks(l, ids, 4, true, true, &err), TY_OK);
	ids[10] = ids[0]; /* the other group of the same pages */
	assert_int_equal(ty_layout_check_blocks(l, ids, 4, true, true, &err), TY_INVALID);
	assert_non_null(strstr(err.text, "occurs twice"));
	assert_int_equal(ty_layout_check_blocks(l, ids, 4, true, false, &err), TY_OK);
	free(l);

	test_pool_build(8, &tp); /* hybrid, pages apart: the same id in both is two blocks */
	l = create(64);
	for (uint32_t i = 0; i < 6; i++)
		ids[i] = i % 4;
	assert_int_equal(ty_layout_check_blocks(l, ids, 1, false, true, &err), TY_OK);
	ids[5] = ids[4];
	assert_int_equal(ty_layout_check_blocks(l, ids, 1, false, true, &err), TY_INVALID);
	free(l);

	test_pool_build(12, &tp); /* many: sorted by digits */
	l = create(1024);
	many = calloc(6144, sizeof *many);
	for (uint32_t i = 0; i < 6144; i++)
		many[i] = (uint32_t)((uint64_t)i * 2551 % 6144);
	assert_int_equal(ty_layout_check_blocks(l, many, 6, false, true, &err), TY_OK);
	many[6143] = many[17];
	assert_int_equal(ty_layout_check_blocks(l, many, 6, false, true, &err), TY_INVALID);
	many[6143] = 6144;
	assert_int_equal(ty_layout_check_blocks(l, many, 6, false, true, &err), TY_INVALID);
	free(many);
	free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_pools),
		cmocka_unit_test(fingerprints),
		cmocka_unit_test(refusals),
		cmocka_unit_test(overlap_agrees_with_brute_force),
		cmocka_unit_test(overlap_of_very_many),
		cmocka_unit_test(block_ids),
	};

	return cmocka_run_group_tests_name("layout", tests, NULL, NULL);
}
