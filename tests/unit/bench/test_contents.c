/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "contents.h"
#include "pool.h"

#define SEED 0x9abcdef012345678ull

/* Chunks of 512 tokens: 4 blocks x 8 planes x 2 KiB; a pool of 4 chunks whose blocks are spread. */
struct world {
	struct bench_pool *pool;
	struct bench_contents contents;
	uint32_t blocks[4][4];
	struct bench_item items[4];
	uint8_t *memory; /* a second mapping of the pool: what a service would write to */
};

static uint64_t *word_at(struct world *w, uint32_t item, uint32_t index)
{
	const struct bench_shape *s = &w->pool->shape;
	uint32_t run = index / s->run_words, in_run = index % s->run_words;
	uint32_t block = w->blocks[item][run / s->run_count];
	uint64_t offset = run % s->run_count * w->pool->plane_stride + block * w->pool->block_stride;

	return (uint64_t *)(void *)(w->memory + offset) + in_run;
}

static void open_world(struct world *w, const char *geometry)
{
	struct bench_geometry g;
	struct bench_shape shape;
	struct ty_error err = {0};

	*w = (struct world){.contents = {.seed = SEED, .parts = 2, .max_tag = 100}};
	assert_int_equal(bench_geometry_parse(geometry, &g, &err), TY_OK);
	assert_int_equal(bench_shape_make(&g, 512, &shape, &err), TY_OK);
	assert_int_equal(shape.chunk_bytes, 65536);
	assert_int_equal(bench_pool_open("host", NULL, &shape, 16, &w->pool, &err), TY_OK);
	w->memory = mmap(NULL, w->pool->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, w->pool->region.fd, 0);
	assert_true(w->memory != MAP_FAILED);
	for (uint32_t i = 0; i < 4; i++) {
		for (uint32_t b = 0; b < 4; b++)
			w->blocks[i][b] = (i + 4 * b + 7) % 16;
		w->items[i] = (struct bench_item){.tag = 10 + 3 * i, .blocks = w->blocks[i]};
	}
	assert_int_equal(bench_pool_fill(w->pool, SEED, w->items, 4, &err), TY_OK);
}

static void close_world(struct world *w)
{
	munmap(w->memory, w->pool->bytes);
	bench_pool_close(w->pool);
}

static struct bench_wrong check(struct world *w, char *text, size_t size)
{
	struct bench_wrong wrong;
	struct ty_error err = {0};

	assert_int_equal(bench_pool_check(w->pool, SEED, w->items, 4, &wrong, &err), TY_OK);
	text[0] = 0;
	if (wrong.words)
		bench_describe_wrong(&w->contents, &w->pool->shape, w->items, &wrong, text, size);
	return wrong;
}

static void test_right_in_every_layout(void **state)
{
	static const char *const geometries[] = {"tiny", "tiny,layout=interleaved", "tiny,layout=cross-layer"};
	char text[640];

	(void)state;
	for (unsigned g = 0; g < 3; g++) {
		struct world w;

		open_world(&w, geometries[g]);
		assert_int_equal(check(&w, text, sizeof text).words, 0);
		/* The last word of a chunk is checked as the first is. */
		*word_at(&w, 3, 8191) ^= 1;
		assert_int_equal(check(&w, text, sizeof text).words, 1);
		close_world(&w);
	}
}

static void test_the_layouts_lie_apart(void **state)
{
	struct world split, interleaved, cross;

	(void)state;
	open_world(&split, "tiny");
	open_world(&interleaved, "tiny,layout=interleaved");
	open_world(&cross, "tiny,layout=cross-layer");
	assert_int_equal(split.pool->block_stride, 2048);
	assert_int_equal(split.pool->plane_stride, 16 * 2048);
	assert_int_equal(interleaved.pool->block_stride, 16384);
	assert_int_equal(interleaved.pool->plane_stride, 2048);
	assert_int_equal(cross.pool->shape.run_count, 1);
	assert_int_equal(cross.pool->shape.run_bytes, 16384);
	/* One pitch or one long run: the same bytes at the same places. */
	assert_memory_equal(interleaved.memory, cross.memory, interleaved.pool->bytes);
	assert_memory_not_equal(split.memory, cross.memory, split.pool->bytes);
	close_world(&split);
	close_world(&interleaved);
	close_world(&cross);
}

static void test_swapped_words(void **state)
{
	struct world w;
	struct bench_wrong wrong;
	uint64_t keep;
	char text[640];

	(void)state;
	open_world(&w, "tiny");
	/* word 300 of chunk 16 (trace id 8, part 0) <-> word 4500 of chunk 19 (id 9, part 1) */
	keep = *word_at(&w, 2, 300);
	*word_at(&w, 2, 300) = *word_at(&w, 3, 4500);
	*word_at(&w, 3, 4500) = keep;
	wrong = check(&w, text, sizeof text);
	assert_int_equal(wrong.words, 2);
	assert_int_equal(wrong.chunks, 2);
	assert_int_equal(wrong.first_item, 2);
	assert_int_equal(wrong.first_index, 300);
	/* 256 words a run: word 300 is in plane 1 (V of layer 0), byte 352 of it: token 22 at 16 bytes a token */
	assert_non_null(strstr(text, "chunk 8.0 (trace id.part), word 300 (block 0, layer 0 V, token 22), block 9 of the pool"));
	/* word 4500 = block 2 (2048 words a block), run 1, word 148 of it: token 74 */
	assert_non_null(strstr(text, "which is word 4500 (block 2, layer 0 V, token 74) of chunk 9.1"));
	close_world(&w);
}

static void test_swapped_blocks(void **state)
{
	struct world w;
	struct bench_wrong wrong;
	char text[640];
	uint32_t keep;

	(void)state;
	open_world(&w, "tiny");
	keep = w.blocks[1][0];
	w.blocks[1][0] = w.blocks[1][3];
	w.blocks[1][3] = keep;
	wrong = check(&w, text, sizeof text);
	assert_int_equal(wrong.words, 2 * 2048);
	assert_int_equal(wrong.chunks, 1);
	assert_non_null(strstr(text, "chunk 6.1 (trace id.part), word 0 (block 0, layer 0 K, token 0)"));
	assert_non_null(strstr(text, "which is word 6144 (block 3, layer 0 K, token 0) of chunk 6.1"));
	close_world(&w);
}

static void test_poison_and_damage(void **state)
{
	struct world w;
	struct ty_error err = {0};
	char text[640];

	(void)state;
	open_world(&w, "tiny");
	assert_int_equal(bench_pool_fill(w.pool, bench_poison_seed(SEED), w.items, 1, &err), TY_OK);
	assert_int_equal(check(&w, text, sizeof text).words, 8192);
	assert_non_null(strstr(text, "which is the poison from before the retrieve: it was never written"));
	assert_int_equal(bench_pool_fill(w.pool, SEED, w.items, 1, &err), TY_OK);
	*word_at(&w, 0, 5) = 0;
	assert_int_equal(check(&w, text, sizeof text).words, 1);
	assert_non_null(strstr(text, "found 0000000000000000, which is no word of this run"));
	/* Another seed's contents are damage too, not some chunk of ours. */
	assert_int_equal(bench_pool_fill(w.pool, bench_mix(SEED, 1), w.items, 1, &err), TY_OK);
	assert_int_equal(check(&w, text, sizeof text).words, 8192);
	assert_non_null(strstr(text, "no word of this run"));
	close_world(&w);
}

static void test_hashes(void **state)
{
	uint8_t one[TY_KEY_BYTES], two[TY_KEY_BYTES];

	(void)state;
	bench_hash(1, 5, one);
	bench_hash(1, 5, two);
	assert_memory_equal(one, two, sizeof one);
	bench_hash(1, 6, two);
	assert_memory_not_equal(one, two, sizeof one);
	bench_hash(2, 5, two);
	assert_memory_not_equal(one, two, sizeof one);
}

/* Numbers: found wrong like any other words; their exponents say little, their other bits are as many as before. The last test: it stays so. */
static void test_numbers(void **state)
{
	uint32_t exponents[256] = {0};
	char text[640];
	struct world w;

	(void)state;
	bench_contents_are_numbers();
	open_world(&w, "tiny");
	assert_int_equal(check(&w, text, sizeof text).words, 0);
	for (uint32_t i = 0; i < 8192; i++)
		for (unsigned at = 0; at < 64; at += 16)
			exponents[*word_at(&w, 3, i) >> (at + 7) & 0xff]++;
	assert_in_range(exponents[127], 15000, 17800); /* half of 32768 */
	assert_in_range(exponents[126], 7500, 8900);
	assert_int_equal(exponents[128] + exponents[118], 0);
	*word_at(&w, 3, 17) ^= 1 << 9;
	assert_int_equal(check(&w, text, sizeof text).words, 1);
	assert_non_null(strstr(text, "does not say where it belongs"));
	close_world(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_right_in_every_layout),
		cmocka_unit_test(test_the_layouts_lie_apart),
		cmocka_unit_test(test_swapped_words),
		cmocka_unit_test(test_swapped_blocks),
		cmocka_unit_test(test_poison_and_damage),
		cmocka_unit_test(test_hashes),
		cmocka_unit_test(test_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
