/* SPDX-License-Identifier: Apache-2.0
 *
 * The planner's rates, measured on this GPU. Slow lane, at open or for `tyer calibrate`: a pool and host memory of its own, chunks
 * through submit and poll by each way in turn, for a few milliseconds each. The machine may be others' too, whose bursts last for
 * longer than that; so all lengths are gone through several times, and each rate is the median.
 */
#include "cuda_private.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define MIB ((uint64_t)1 << 20)
#define POOL_MOST (512 * MIB)     /* of device memory, if there is so much: in smaller ones strided copies are slower than in an engine's */
#define POOL_LEAST (64 * MIB)
#define HOST (64 * MIB)
#define CHUNK_MOST (32 * MIB)
#define CHUNK_WANTED (8 * MIB)    /* where runs are short enough */
#define PLANES 64u                /* TY_PLAN_ROWS */
#define BLOCKS 16u                /* of a chunk, at most */
#define OUT 4u                    /* batches at once ... */
#define OUT_STAGED_BESIDE 8u      /* ... and where kernels wait for time slices: staging must be full */
#define OUT_BESIDE 2u
#define EACH_NS ((int64_t)3000000) /* of one measurement: no batch is submitted later */
#define EACH_BESIDE_NS ((int64_t)40000000) /* beside an engine: many of its steps */
#define PASSES 3u                 /* over all lengths; fewer if time is short ... */
#define PASSES_NS ((int64_t)8000000000) /* ... and no second or third one begins later than this: beside an engine one takes seconds */
#define LAUNCHES 24u
#define ENGINE_NS 200000u         /* a launch that takes longer waits for somebody */

struct bench {
	struct cuda_device *dev;
	uint8_t *host;
	cu_address pool;
	uint64_t pool_bytes;
	struct ty_layout *layout;
	struct cuda_mapping *m;
	uint32_t *ids;
	struct ty_copy *copies; /* one a chunk of the pool */
	bool beside;
	int64_t each, deadline;
};

_Static_assert(PLANES == TY_PLAN_ROWS, "the table tells of strided copies of so many rows");

/* A split pool of runs of `run` bytes over the whole of the memory. */
static enum ty_code make_layout(struct bench *b, uint32_t run, struct ty_error *err)
{
	struct ty_plane planes[PLANES];
	uint32_t count = PLANES;
	uint64_t blocks, per_chunk;
	struct ty_region region = {.length = b->pool_bytes, .allocation_bytes = b->pool_bytes};
	struct ty_group group;
	struct ty_pool pool;

	while (count > 1 && (uint64_t)count * run > CHUNK_MOST)
		count /= 2;
	blocks = b->pool_bytes / ((uint64_t)count * run);
	per_chunk = CHUNK_WANTED / ((uint64_t)count * run);
	per_chunk = per_chunk < 1 ? 1 : per_chunk > BLOCKS ? BLOCKS : per_chunk;
	for (uint32_t p = 0; p < count; p++)
		planes[p] = (struct ty_plane){.offset = p * blocks * run};
	group = (struct ty_group){.block_tokens = 1, .block_count = (uint32_t)blocks, .block_stride = run, .run_bytes = run,
		.plane_count = count, .planes = planes};
	pool = (struct ty_pool){.region_count = 1, .group_count = 1, .regions = &region, .groups = &group, .parts = 1};
	return ty_layout_create(&pool, (uint32_t)per_chunk, CHUNK_MOST, &b->layout, err);
}

static void drop(struct bench *b)
{
	struct ty_error err;

	if (b->m) {
		(void)!ty_cuda_end_probe(b->dev, &err); /* if it does not end the device is poisoned */
		if (b->m->table && !b->dev->base.poisoned)
			(void)CU(b->dev, cuMemFree, b->m->table);
		free(b->m->spans);
	}
	free(b->m);
	free(b->layout);
	free(b->ids);
	free(b->copies);
	b->m = NULL;
	b->layout = NULL;
	b->ids = NULL;
	b->copies = NULL;
}

static enum ty_code take_table(struct bench *b, struct ty_error *err)
{
	struct cuda_device *dev = b->dev;
	size_t bytes = b->layout->plane_count * sizeof b->m->planes[0];
	cu_result result = CU(dev, cuMemAlloc, &b->m->table, bytes);

	memcpy(dev->upload, b->m->planes, bytes);
	if (result == CU_SUCCESS)
		result = CU(dev, cuMemcpyHtoDAsync, b->m->table, dev->upload, bytes, dev->lanes[TY_TO_DEVICE].copy[0]);
	if (result != CU_SUCCESS)
		return ty_cuda_slow_failed(dev, err, "a plane table", result);
	return ty_cuda_finish(dev, dev->lanes[TY_TO_DEVICE].copy[0], "a plane table", err);
}

/* A mapping of memory of our own, as ty_cuda_map makes one of a client's. */
static enum ty_code make_mapping(struct bench *b, uint32_t run, struct ty_error *err)
{
	enum ty_code code = make_layout(b, run, err);
	uint32_t *allocation, planes, blocks, chunks;

	if (code != TY_OK)
		return code;
	planes = b->layout->plane_count;
	blocks = b->layout->groups[0].block_count;
	chunks = blocks / b->layout->blocks_per_chunk;
	b->m = calloc(1, sizeof *b->m + planes * sizeof b->m->planes[0]);
	allocation = calloc(planes, sizeof *allocation);
	b->ids = calloc(blocks, sizeof *b->ids);
	b->copies = calloc(chunks, sizeof *b->copies);
	if (b->m)
		b->m->spans = calloc((size_t)2 * planes, sizeof *b->m->spans);
	if (!b->m || !allocation || !b->ids || !b->copies || !b->m->spans) {
		free(allocation);
		return ty_fail(err, TY_NO_MEMORY, "no memory to calibrate with");
	}
	b->m->base.device = &b->dev->base;
	b->m->base.layout = b->layout;
	for (uint32_t p = 0; p < planes; p++)
		b->m->planes[p] = b->pool + b->layout->planes[p].offset;
	for (uint32_t i = 0; i < blocks; i++) /* all over the pool; the number of blocks is a power of two */
		b->ids[i] = (uint32_t)(i * (blocks * UINT64_C(5) / 8 | 1) % blocks);
	for (uint32_t i = 0; i < chunks; i++) /* host memory is gone over again and again: nobody looks at what is in it */
		b->copies[i] = (struct ty_copy){b->host + i % (HOST / b->layout->chunk_bytes) * b->layout->chunk_bytes, b->ids + (size_t)i * b->layout->blocks_per_chunk};
	ty_cuda_plan_groups(b->dev, b->m, allocation, true);
	free(allocation);
	return b->m->groups[0].allowed & TY_PLAN_BIT(TY_PATH_STAGED) ? take_table(b, err) : TY_OK;
}

/* What is counted of a measurement. `whole`: from the first submit to the end of the last batch, for copies over several streams end in bursts,
 * and no moment in between says how much has moved. Else from when all batches that were queued in advance have ended until the first end
 * past the time: beside an engine a kernel waits for its turn first. */
struct window {
	bool whole, over;
	uint32_t ahead; /* of those that were queued in advance */
	int64_t from, to;
	uint64_t batches;
};

/* So many batches have ended. May they go again? */
static bool look(struct window *w, uint32_t ended, int64_t now, int64_t each)
{
	bool over = w->from && now - w->from >= each;

	if (ended && w->from && (w->whole || !w->over)) {
		w->batches += ended;
		w->to = now;
		w->over = over;
	}
	w->ahead -= ended < w->ahead ? ended : w->ahead;
	if (!w->from && !w->ahead)
		w->from = now;
	return !over;
}

/* MB/s of one way; 0: the pool or the driver has none such. */
static enum ty_code measure(struct bench *b, enum ty_path path, enum ty_direction direction, uint32_t *rate, struct ty_error *err)
{
	struct cuda_device *dev = b->dev;
	const uint32_t chunks = b->layout->groups[0].block_count / b->layout->blocks_per_chunk;
	const uint32_t most = !b->beside ? OUT : path == TY_PATH_STAGED ? OUT_STAGED_BESIDE : OUT_BESIDE;
	/* beside an engine a batch fills a slot: what one launch moves decides */
	const uint32_t wanted = b->beside ? (uint32_t)(CHUNK_MOST / b->layout->chunk_bytes) : 1;
	const uint32_t limit = ty_cuda_batch_limit(&dev->base, b->layout), each = wanted < limit ? wanted : limit;
	struct ty_batch batches[OUT_STAGED_BESIDE], *done[OUT_STAGED_BESIDE];
	struct window window = {.whole = path != TY_PATH_STAGED};
	uint32_t out = 0;
	int64_t now;

	*rate = 0;
	if (!(b->m->groups[0].allowed & TY_PLAN_BIT(path)))
		return TY_OK;
	dev->forced = path;
	now = ty_device_clock();
	window.from = window.whole ? now : 0;
	for (uint32_t i = 0; i < most; i++) {
		/* some go over the same memory: nobody looks at what comes out */
		batches[i] = (struct ty_batch){.mapping = &b->m->base, .direction = direction,
			.copies = &b->copies[i * each % (chunks - each + 1)], .count = each};
		if (ty_cuda_submit(&dev->base, &batches[i]) != TY_OK)
			break;
		out++;
	}
	window.ahead = out;
	while (out) {
		uint32_t n = ty_cuda_poll(&dev->base, done, OUT_STAGED_BESIDE);
		bool again;

		now = ty_device_clock();
		out -= n;
		again = look(&window, n, now, b->each) && now < b->deadline;
		for (uint32_t i = 0; i < n; i++)
			if (again && done[i]->code == TY_OK && ty_cuda_submit(&dev->base, done[i]) == TY_OK)
				out++;
		if (!n && now - b->deadline > dev->patience_ns) { /* what is queued is never taken back */
			ty_cuda_poison(dev, "calibration", CU_NOT_READY);
			return ty_fail(err, TY_DEVICE_STALLED, "calibration: copies are not done after %lld ms",
				(long long)(dev->patience_ns / 1000000));
		}
		if (!n)
			sched_yield();
	}
	if (dev->base.poisoned)
		return ty_fail(err, TY_DEVICE_FAILED, "%.200s", dev->base.failure.text);
	if (now > b->deadline)
		return ty_fail(err, TY_TIMEOUT, "calibration: not done in time");
	if (window.to > window.from)
		*rate = (uint32_t)(window.batches * each * b->layout->chunk_bytes * 1000 / (uint64_t)(window.to - window.from));
	return TY_OK;
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* Nanoseconds from a launch of next to nothing to its end, the median. */
static enum ty_code time_launches(struct cuda_device *dev, uint32_t *median, struct ty_error *err)
{
	struct ty_gather_job job = {.run_units = 1, .plane_count = 1};
	void *parameters[] = {&job};
	uint32_t ns[LAUNCHES];

	for (unsigned i = 0; i < LAUNCHES; i++) {
		int64_t began = ty_device_clock();
		cu_result result = CU(dev, cuLaunchKernel, dev->gathers[1], 1, 1, 1, TY_KERNEL_THREADS, 1, 1, 0, dev->lanes[0].kernel,
			parameters, NULL);
		enum ty_code code;

		if (result != CU_SUCCESS)
			return ty_cuda_slow_failed(dev, err, "cuLaunchKernel", result);
		code = ty_cuda_finish(dev, dev->lanes[0].kernel, "a launch", err);
		if (code != TY_OK)
			return code;
		ns[i] = (uint32_t)(ty_device_clock() - began);
	}
	qsort(ns, LAUNCHES, sizeof ns[0], by_value);
	*median = ns[LAUNCHES / 2];
	return TY_OK;
}

typedef uint32_t rate_table[TY_PATHS][2][TY_PLAN_RUNS];

/* Every way once; but copies run by run, which are chosen only where there is no other, in the first pass alone. */
static enum ty_code measure_pass(struct bench *b, bool first, rate_table rates, struct ty_error *err)
{
	enum ty_code code = TY_OK;

	for (unsigned i = 0; i < TY_PLAN_RUNS && code == TY_OK; i++) {
		code = make_mapping(b, TY_PLAN_RUN_LEAST << i, err);
		for (unsigned p = 1; p < TY_PATHS && code == TY_OK; p++)
			for (unsigned d = 0; d < 2 && code == TY_OK && (first || p != TY_PATH_DIRECT); d++)
				code = measure(b, (enum ty_path)p, (enum ty_direction)d, &rates[p][d][i], err);
		drop(b);
	}
	return code;
}

/* Of passes [0, count); the lower one of two. */
static uint32_t median(rate_table *passes, uint32_t count, unsigned path, unsigned direction, unsigned run)
{
	uint32_t sorted[PASSES];

	for (uint32_t i = 0; i < count; i++)
		sorted[i] = passes[i][path][direction][run];
	qsort(sorted, count, sizeof sorted[0], by_value);
	return sorted[(count - 1) / 2];
}

static enum ty_code measure_all(struct bench *b, rate_table rates, struct ty_error *err)
{
	rate_table passes[PASSES] = {0};
	enum ty_code code = TY_OK;
	int64_t began = ty_device_clock();
	uint32_t count = 0;

	while (count < PASSES && code == TY_OK && (!count || ty_device_clock() - began < PASSES_NS)) {
		code = measure_pass(b, !count, passes[count], err);
		count += code == TY_OK;
	}
	if (code == TY_TIMEOUT && count) /* one that was cut off does not count */
		code = TY_OK;
	for (unsigned p = 1; p < TY_PATHS && code == TY_OK; p++)
		for (unsigned d = 0; d < 2; d++)
			for (unsigned i = 0; i < TY_PLAN_RUNS; i++)
				rates[p][d][i] = median(passes, p == TY_PATH_DIRECT ? 1 : count, p, d, i);
	return code;
}

/* Engines leave little. */
static cu_result take_pool(struct bench *b)
{
	cu_result result;

	b->pool_bytes = 2 * POOL_MOST;
	do {
		b->pool_bytes /= 2;
		result = CU(b->dev, cuMemAlloc, &b->pool, b->pool_bytes);
	} while (result == CU_OUT_OF_MEMORY && b->pool_bytes > POOL_LEAST);
	return result;
}

enum ty_code ty_cuda_calibrate(struct cuda_device *dev, bool beside, int64_t most_ns, struct ty_calibration *c, struct ty_error *err)
{
	struct bench b = {.dev = dev, .beside = beside, .each = beside ? EACH_BESIDE_NS : EACH_NS, .deadline = ty_device_clock() + most_ns};
	rate_table rates = {{{0}}};
	uint32_t launch = 0;
	enum ty_sharing sharing = dev->sharing;
	enum ty_path forced = dev->forced;
	const bool lent = dev->gathers[0] && !dev->staging; /* a device that is `quiet` has none; the measurement is for all of them */
	enum ty_code code = TY_OK;
	cu_result result;

	if (dev->gathers[0])
		code = time_launches(dev, &launch, err);
	if (code == TY_OK && !beside && launch > ENGINE_NS)
		return ty_fail(err, TY_BUSY, "calibration: an engine is at work on %s", dev->base.info.name);
	if (code == TY_OK && lent)
		code = ty_cuda_take_staging(dev, err);
	if (code != TY_OK)
		return code;
	result = take_pool(&b);
	if (result == CU_SUCCESS)
		result = CU(dev, cuMemHostAlloc, (void **)&b.host, HOST, CU_HOST_PORTABLE);
	if (result == CU_SUCCESS) {
		memset(b.host, 0, HOST);
		dev->sharing = TY_SHARING_FAST;
		code = measure_all(&b, rates, err);
		dev->sharing = sharing;
		dev->forced = forced;
		ty_cuda_forget_engine(dev); /* what was seen of one was this */
	} else {
		code = ty_cuda_slow_failed(dev, err, "memory to calibrate with", result);
	}
	if (!dev->base.poisoned) {
		if (b.host)
			(void)CU(dev, cuMemFreeHost, b.host);
		if (b.pool)
			(void)CU(dev, cuMemFree, b.pool);
		if (lent)
			ty_cuda_give_staging(dev);
	}
	if (code != TY_OK)
		return code;
	if (!beside && launch)
		c->launch_ns = launch;
	for (unsigned p = 1; p < TY_PATHS; p++)
		for (unsigned d = 0; d < 2; d++)
			ty_calibration_smooth(rates[p][d], (beside ? ty_plan_defaults.beside : ty_plan_defaults.alone)[p][d]);
	memcpy(beside ? c->rates.beside : c->rates.alone, rates, sizeof rates);
	c->beside = beside;
	if (!beside)
		ty_calibration_scale(c);
	return TY_OK;
}
