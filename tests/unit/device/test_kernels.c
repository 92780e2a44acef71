/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernels' contract, in C: what the GPU's kernels are held against in turn (tests/gpu).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "kernels/gather.h"
#include "kernels/pattern.h"
#include "pools.h"

enum { PLANES = 3, UNITS = 5, STRIDE = 112, BLOCKS = 9, LISTED = 7 };

struct bench {
	uint8_t pool[PLANES][BLOCKS * STRIDE], before[PLANES][BLOCKS * STRIDE];
	uint8_t tile[LISTED * PLANES * UNITS * 16 + 32], tile_before[LISTED * PLANES * UNITS * 16 + 32];
	uint64_t planes[PLANES];
	struct ty_gather_job job;
};

static void set_up(struct bench *b, uint64_t seed)
{
	static const uint32_t ids[LISTED] = {4, 0, TY_GATHER_SKIP, 8, 9, 2, 1}; /* 9 is none of the pool's */

	memset(b, 0, sizeof *b);
	test_fill(b->pool, sizeof b->pool, &seed);
	test_fill(b->tile, sizeof b->tile, &seed);
	memcpy(b->before, b->pool, sizeof b->pool);
	memcpy(b->tile_before, b->tile, sizeof b->tile);
	for (int p = 0; p < PLANES; p++)
		b->planes[p] = (uint64_t)(uintptr_t)b->pool[p];
	b->job.planes = (uint64_t)(uintptr_t)b->planes;
	b->job.tile = (uint64_t)(uintptr_t)(b->tile + 16);
	b->job.block_stride = STRIDE;
	b->job.run_units = UNITS;
	b->job.plane_count = PLANES;
	b->job.block_limit = BLOCKS;
	b->job.block_count = LISTED;
	memcpy(b->job.blocks, ids, sizeof ids);
}

/* Every split of a job into two calls does the same as one. */
static void gather(void **state)
{
	static struct bench b;

	(void)state;
	for (uint64_t split = 0; split <= LISTED * PLANES * UNITS; split++) {
		set_up(&b, split);
		assert_int_equal(ty_gather_units(&b.job), LISTED * PLANES * UNITS);
		ty_gather_c(&b.job, 0, split);
		ty_gather_c(&b.job, split, LISTED * PLANES * UNITS - split);
		assert_memory_equal(b.pool, b.before, sizeof b.pool);
		for (size_t i = 0; i < LISTED * PLANES * UNITS * 16; i++) {
			size_t run = i / (UNITS * 16), block = b.job.blocks[run / PLANES];
			uint8_t want = block < BLOCKS ? b.pool[run % PLANES][block * STRIDE + i % (UNITS * 16)] : 0;

			assert_int_equal(b.tile[16 + i], want);
		}
		assert_memory_equal(b.tile, b.tile_before, 16);
		assert_memory_equal(b.tile + sizeof b.tile - 16, b.tile_before + sizeof b.tile - 16, 16);
	}
}

static void scatter(void **state)
{
	static struct bench b;

	(void)state;
	for (uint64_t split = 0; split <= LISTED * PLANES * UNITS; split++) {
		set_up(&b, split);
		ty_scatter_c(&b.job, 0, split);
		ty_scatter_c(&b.job, split, LISTED * PLANES * UNITS - split);
		assert_memory_equal(b.tile, b.tile_before, sizeof b.tile);
		for (uint32_t i = 0; i < LISTED; i++)
			for (uint32_t p = 0; p < PLANES && b.job.blocks[i] < BLOCKS; p++)
				memcpy(&b.before[p][b.job.blocks[i] * STRIDE],
					b.tile + 16 + (i * PLANES + p) * UNITS * 16, UNITS * 16);
		assert_memory_equal(b.pool, b.before, sizeof b.pool);
	}
}

static void pattern(void **state)
{
	static struct ty_pattern_job job;
	struct ty_pattern_verdict verdict;
	uint64_t words[4][32];

	(void)state;
	memset(words, 0, sizeof words);
	job.seed = 77;
	job.words = 30;
	job.run_count = 4;
	job.first_run = 100;
	job.verdict = (uint64_t)(uintptr_t)&verdict;
	for (uint32_t r = 0; r < 4; r++)
		job.runs[r] = (struct ty_pattern_place){(uint64_t)(uintptr_t)words[r], r / 2 + 5, r % 2 * 30};
	ty_pattern_fill_c(&job);
	for (uint32_t r = 0; r < 4; r++) {
		assert_int_equal(words[r][30], 0);
		for (uint32_t w = 0; w < 30; w++) {
			uint32_t tag, index;

			ty_pattern_origin(77, words[r][w], &tag, &index);
			assert_int_equal(tag, r / 2 + 5);
			assert_int_equal(index, r % 2 * 30 + w);
		}
	}
	verdict = (struct ty_pattern_verdict){0, UINT64_MAX};
	ty_pattern_check_c(&job);
	assert_int_equal(verdict.count, 0);
	assert_true(verdict.first == UINT64_MAX);
	words[3][2] ^= 1;
	words[2][29] ^= 1ull << 63;
	ty_pattern_check_c(&job);
	assert_int_equal(verdict.count, 2);
	assert_true(verdict.first == (102ull << 32 | 29));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gather),
		cmocka_unit_test(scatter),
		cmocka_unit_test(pattern),
	};

	return cmocka_run_group_tests_name("kernels", tests, NULL, NULL);
}
