/* SPDX-License-Identifier: Apache-2.0
 *
 * A pool in GPU memory: one allocation, exported by its IPC handle, filled and checked by kernels.
 */
#include "pool.h"

#include <stdlib.h>

#include "device/cuda_client.h"

#define RUNS_AT_ONCE 65536u /* of one fill or check: bounds the table of runs */

struct pool_cuda {
	struct bench_pool pool;
	struct ty_cuda_client *gpu;
	uint64_t base;
	struct ty_pattern_run *runs; /* RUNS_AT_ONCE */
	uint32_t count;
	void *other; /* page-locked; the raw copies' other end */
	uint64_t other_bytes;
};

static struct pool_cuda *cuda_of(struct bench_pool *pool)
{
	return (struct pool_cuda *)pool; /* its first member */
}

static void cuda_close(struct bench_pool *pool)
{
	struct pool_cuda *c = cuda_of(pool);

	if (c->gpu) {
		if (c->other)
			ty_cuda_client_host_free(c->gpu, c->other);
		if (c->base)
			ty_cuda_client_free(c->gpu, c->base);
		ty_cuda_client_close(c->gpu);
	}
	free(c->runs);
	free(c);
}

/* A run of an item, counted over all items: its place in the pool and what belongs there. */
static struct ty_pattern_run run_of(const struct pool_cuda *c, const struct bench_item *items, uint64_t number)
{
	const struct bench_shape *s = &c->pool.shape;
	uint32_t per_chunk = s->blocks_per_chunk * s->run_count;
	const struct bench_item *item = &items[number / per_chunk];
	uint32_t in_chunk = (uint32_t)(number % per_chunk);
	uint32_t block = item->blocks[in_chunk / s->run_count], run = in_chunk % s->run_count;

	return (struct ty_pattern_run){
		.address = c->base + run * c->pool.plane_stride + block * c->pool.block_stride,
		.tag = item->tag,
		.first_word = in_chunk * s->run_words,
	};
}

static uint32_t make_runs(struct pool_cuda *c, const struct bench_item *items, uint64_t first, uint64_t total)
{
	uint32_t count = total - first < RUNS_AT_ONCE ? (uint32_t)(total - first) : RUNS_AT_ONCE;

	for (uint32_t i = 0; i < count; i++)
		c->runs[i] = run_of(c, items, first + i);
	return count;
}

static enum ty_code cuda_fill(struct bench_pool *pool, uint64_t seed, const struct bench_item *items, uint32_t count,
	struct ty_error *err)
{
	struct pool_cuda *c = cuda_of(pool);
	uint64_t total = (uint64_t)count * pool->shape.blocks_per_chunk * pool->shape.run_count;
	enum ty_code code = TY_OK;

	for (uint64_t first = 0; first < total && code == TY_OK; first += RUNS_AT_ONCE) {
		uint32_t runs = make_runs(c, items, first, total);

		code = ty_cuda_client_fill(c->gpu, seed, c->runs, runs, pool->shape.run_words, err);
	}
	return code;
}

/* Which items are wrong, one by one: only called when something is. */
static enum ty_code count_wrong_chunks(struct pool_cuda *c, uint64_t seed, const struct bench_item *items, uint32_t count,
	struct bench_wrong *wrong, struct ty_error *err)
{
	uint32_t per_chunk = c->pool.shape.blocks_per_chunk * c->pool.shape.run_count;
	enum ty_code code = TY_OK;

	wrong->chunks = 0;
	for (uint32_t i = 0; i < count && code == TY_OK; i++) {
		bool bad = false;

		for (uint64_t first = 0; first < per_chunk && code == TY_OK; first += RUNS_AT_ONCE) {
			uint32_t runs = make_runs(c, items + i, first, per_chunk);
			struct ty_pattern_wrong found = {0};

			code = ty_cuda_client_check(c->gpu, seed, c->runs, runs, c->pool.shape.run_words, &found, err);
			bad |= found.count != 0;
		}
		wrong->chunks += bad;
	}
	if (wrong->chunks == 0)
		wrong->chunks = 1; /* right by now: written late, and wrong all the same */
	return code;
}

static enum ty_code cuda_check(struct bench_pool *pool, uint64_t seed, const struct bench_item *items, uint32_t count,
	struct bench_wrong *wrong, struct ty_error *err)
{
	struct pool_cuda *c = cuda_of(pool);
	const struct bench_shape *s = &pool->shape;
	uint32_t per_chunk = s->blocks_per_chunk * s->run_count;
	uint64_t total = (uint64_t)count * per_chunk;
	enum ty_code code = TY_OK;

	for (uint64_t first = 0; first < total && code == TY_OK; first += RUNS_AT_ONCE) {
		uint32_t runs = make_runs(c, items, first, total);
		struct ty_pattern_wrong found = {0};

		code = ty_cuda_client_check(c->gpu, seed, c->runs, runs, s->run_words, &found, err);
		if (code == TY_OK && found.count && wrong->words == 0) {
			uint64_t number = first + found.run;

			wrong->first_item = (uint32_t)(number / per_chunk);
			wrong->first_index = (uint32_t)(number % per_chunk * s->run_words + found.word);
			wrong->first_found = found.found;
		}
		wrong->words += found.count;
	}
	if (code == TY_OK && wrong->words)
		code = count_wrong_chunks(c, seed, items, count, wrong, err);
	return code;
}

static enum ty_code cuda_raw_copy(struct bench_pool *pool, bool to_host, uint64_t bytes, double *seconds,
	struct ty_error *err)
{
	struct pool_cuda *c = cuda_of(pool);
	enum ty_code code;

	if (c->other_bytes < bytes) {
		if (c->other)
			ty_cuda_client_host_free(c->gpu, c->other);
		c->other = NULL;
		c->other_bytes = 0;
		code = ty_cuda_client_host_alloc(c->gpu, bytes, &c->other, err);
		if (code != TY_OK)
			return code;
		c->other_bytes = bytes;
	}
	return ty_cuda_client_time_copy(c->gpu, to_host, c->other, c->base, bytes, seconds, err);
}

static enum ty_code cuda_free_memory(struct bench_pool *pool, uint64_t *bytes, struct ty_error *err)
{
	uint64_t total;

	return ty_cuda_client_memory(cuda_of(pool)->gpu, bytes, &total, err);
}

static const struct bench_pool_ops cuda_ops = {cuda_close, cuda_fill, cuda_check, cuda_raw_copy, cuda_free_memory};

enum ty_code bench_pool_cuda_open(const struct bench_pool *plan, const char *driver, int ordinal,
	struct bench_pool **out, struct ty_error *err)
{
	struct pool_cuda *c = calloc(1, sizeof *c);
	enum ty_code code;

	if (!c)
		return ty_fail(err, TY_NO_MEMORY, "no memory for the pool");
	c->pool = *plan;
	c->pool.ops = &cuda_ops;
	c->pool.slice_bytes = UINT64_MAX; /* a kernel does an operation's blocks at once */
	c->runs = malloc(RUNS_AT_ONCE * sizeof *c->runs);
	code = c->runs ? ty_cuda_client_open(driver, ordinal, &c->gpu, err)
		       : ty_fail(err, TY_NO_MEMORY, "no memory for the pool's runs");
	if (code == TY_OK) {
		ty_cuda_client_uuid(c->gpu, c->pool.device);
		code = ty_cuda_client_alloc(c->gpu, plan->bytes, &c->base, &c->pool.region, err);
	}
	if (code != TY_OK) {
		cuda_close(&c->pool);
		return code;
	}
	/* An allocation may be rounded up; the pool is its beginning. */
	c->pool.region.length = plan->bytes;
	*out = &c->pool;
	return TY_OK;
}
