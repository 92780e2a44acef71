/* SPDX-License-Identifier: Apache-2.0
 *
 * The owner's real code over the stand-in driver: what goes well, and what is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device/cuda_api.h"
#include "engine.h"
#include "kernels/gather.h"

#define SLOT_BYTES ((size_t)64 << 20)
#define MIB ((uint64_t)1 << 20)
#define NO_ENGINE_US 3600000000u /* however slow the machine, no kernel waits so long */

static const unsigned char image[64] = {0x50, 0xed, 0x55, 0xba}; /* the stand-in looks no further */

static struct standin driver;
static struct test_pool tp;
static uint8_t *slots;

static struct ty_device_options defaults(void)
{
	return (struct ty_device_options){.name = "cuda:0", .driver = driver.path, .kernels = image,
		.kernels_bytes = sizeof image, .waited_us = NO_ENGINE_US};
}

static struct ty_device *open_device(const struct ty_device_options *options)
{
	struct ty_device *dev;
	struct ty_error err = {0};

	if (ty_device_open(options, &dev, &err) != TY_OK)
		fail_msg("%s", err.text);
	assert_int_equal(ty_device_register_host(dev, slots, SLOT_BYTES, &err), TY_OK);
	return dev;
}

static void close_device(struct ty_device *dev)
{
	ty_device_unregister_host(dev, slots);
	ty_device_close(dev);
	assert_int_equal(driver.live(), 0);
}

static bool in_pieces;
static bool layered; /* pools have steps; some tests count what a round trip takes */

static struct ty_layout *build_pool(unsigned index)
{
	struct ty_layout *layout;
	struct ty_error err = {0};

	test_pool_build(index, &tp);
	if (layered)
		test_pool_steps(&tp);
	for (uint32_t i = 0; i < tp.pool.region_count; i++) {
		struct ty_region *r = &tp.regions[i];

		if (in_pieces) { /* with a seam in the middle, if it is large enough */
			r->offset = 2 * MIB - (r->length > 8192 ? r->length / 2 % (2 * MIB) / 4096 * 4096 : 0);
			engine_alloc_pieces(0, r);
		} else {
			engine_alloc(r);
		}
	}
	if (ty_layout_create(&tp.pool, tp.chunk_tokens, 64 * MIB, &layout, &err) != TY_OK)
		fail_msg("%s", err.text);
	return layout;
}

static void set_up(struct test_trip *t, unsigned index, const struct ty_device_options *options)
{
	struct ty_error err = {0};

	memset(t, 0, sizeof *t);
	t->layout = build_pool(index);
	for (uint32_t i = 0; i < tp.pool.region_count; i++)
		t->view[i] = engine_view(&tp.regions[i]);
	t->dev = open_device(options);
	if (ty_device_map(t->dev, t->layout, tp.regions, &t->mapping, &err) != TY_OK)
		fail_msg("%s: %s", tp.name, err.text);
	t->pool = &tp;
	t->slots = slots;
	t->slot_bytes = SLOT_BYTES;
	t->random = index + 100;
}

static void tear_down(struct test_trip *t)
{
	ty_device_unmap(t->dev, t->mapping);
	close_device(t->dev);
	for (uint32_t i = 0; i < tp.pool.region_count; i++)
		engine_unview(&tp.regions[i], t->view[i]);
	engine_free_all();
	free((void *)(uintptr_t)t->layout);
}

static void trips(const struct ty_device_options *options, const char *settings)
{
	driver.set(settings);
	layered = true;
	for (unsigned i = 0; i < test_pool_count; i++) {
		struct test_trip t;

		test_pool_build(i, &tp);
		if (in_pieces && tp.pool.region_count > 4) /* many pieces take the stand-in long */
			continue;
		set_up(&t, i, options);
		test_round_trip(&t);
		tear_down(&t);
	}
	layered = false;
	driver.set("ops=2");
}

static void round_trips(void **state)
{
	struct ty_device_options o = defaults();

	(void)state;
	trips(&o, "ops=2");
	/* one owner, one thread */
	assert_int_equal(driver.threads_seen(NULL), 1);
	assert_true(driver.count("cuLaunchKernel") > 0);
}

/* Staging so small that every pool takes many laps of the ring, at different paces of the driver. */
static void round_trips_small_staging(void **state)
{
	struct ty_device_options o = defaults();

	(void)state;
	o.staging_bytes = 4 * MIB;
	o.tile_bytes = 256 << 10;
	trips(&o, "ops=1");
	trips(&o, "ops=7");
	o.tile_bytes = 700 << 10;
	trips(&o, "ops=3");
}

/* Staging whose copies go over several streams, so that units end in any order: small tiles, units of several slots, and as it is in an
 * engine's process. */
static void round_trips_over_streams(void **state)
{
	struct ty_device_options o = defaults();
	uint64_t launches = driver.count("cuLaunchKernel");

	(void)state;
	o.path = TY_PATH_STAGED;
	o.staging_bytes = 4 * MIB;
	o.copy_streams = 3;
	trips(&o, "ops=1");
	trips(&o, "ops=5");
	o.tile_bytes = 256 << 10;
	o.copy_streams = 2;
	trips(&o, "ops=1");
	trips(&o, "ops=3");
	o.in_process = true;
	o.tile_bytes = o.copy_streams = 0;
	trips(&o, "ops=2");
	assert_true(driver.count("cuLaunchKernel") > launches);
}

/* Without kernels everything goes run by run: slow, and right. */
static void round_trips_without_kernels(void **state)
{
	struct ty_device_options o = defaults();
	uint64_t launches = driver.count("cuLaunchKernel");

	(void)state;
	o.kernels_bytes = 0;
	trips(&o, "ops=40");
	assert_int_equal(driver.count("cuLaunchKernel"), launches);
}

/* Every way but staged, over one to four streams, at several paces of the driver. */
static void round_trips_by_path(void **state)
{
	struct ty_device_options o = defaults();
	uint64_t rows = driver.count("cuMemcpy2DAsync"), batches = driver.count("cuMemcpyBatchAsync_v2");
	uint64_t old = driver.count("cuMemcpyBatchAsync"), launches = driver.count("cuLaunchKernel");

	(void)state;
	o.kernels_bytes = 0;
	o.path = TY_PATH_DIRECT;
	o.copy_streams = 1;
	trips(&o, "ops=40");
	o.copy_streams = 4;
	trips(&o, "ops=7");
	assert_int_equal(driver.count("cuMemcpy2DAsync"), rows);
	o.path = TY_PATH_STRIDED;
	o.copy_streams = 2;
	trips(&o, "ops=3");
	assert_true(driver.count("cuMemcpy2DAsync") > rows);
	o.path = TY_PATH_BATCH;
	o.copy_streams = 3;
	trips(&o, "ops=30");
	assert_true(driver.count("cuMemcpyBatchAsync_v2") > batches);
	assert_int_equal(driver.count("cuMemcpyBatchAsync"), old);
	/* the entry point of CUDA 12.8, and a driver without one */
	batches = driver.count("cuMemcpyBatchAsync_v2");
	trips(&o, "ops=30,version=12080");
	assert_true(driver.count("cuMemcpyBatchAsync") > old);
	old = driver.count("cuMemcpyBatchAsync");
	trips(&o, "ops=30,version=12060");
	trips(&o, "ops=30,version=13000,missing=cuMemcpyBatchAsync");
	driver.set("missing=");
	assert_int_equal(driver.count("cuMemcpyBatchAsync"), old);
	assert_int_equal(driver.count("cuMemcpyBatchAsync_v2"), batches);
	assert_int_equal(driver.count("cuLaunchKernel"), launches);
}

static uint64_t units(const struct test_trip *t, enum ty_path path)
{
	return atomic_load(&ty_device_stats(t->dev)->units[path]);
}

/* What the planner makes of the pools: quiet never launches a kernel, fast does where runs are short. */
static void sharing(void **state)
{
	struct ty_device_options o = defaults();
	uint64_t launches;
	struct test_trip t;

	(void)state;
	o.sharing = TY_SHARING_FAST;
	set_up(&t, 0, &o);
	assert_int_equal(ty_device_path(t.dev, t.mapping, 0, TY_TO_HOST, 1), TY_PATH_STAGED);
	test_round_trip(&t);
	assert_int_equal(units(&t, TY_PATH_STAGED), 4);
	tear_down(&t);
	o.sharing = TY_SHARING_QUIET;
	set_up(&t, 0, &o);
	launches = driver.count("cuLaunchKernel");
	test_round_trip(&t);
	assert_int_equal(driver.count("cuLaunchKernel"), launches);
	assert_int_equal(units(&t, TY_PATH_STAGED), 0);
	assert_int_equal(atomic_load(&ty_device_stats(t.dev)->device_bytes), 160 * MIB); /* no table either */
	tear_down(&t);
	trips(&o, "ops=9");
}

static void work_is_joined(void **state)
{
	struct ty_device_options o = defaults();
	const struct ty_device_stats *stats;
	struct test_trip t;

	(void)state;
	/* small chunks share a launch: 8 of 64 tokens, in at most 3 batches of the round trip's 4 */
	set_up(&t, 0, &o);
	test_round_trip(&t);
	stats = ty_device_stats(t.dev);
	assert_int_equal(atomic_load(&stats->launches), 4);
	assert_int_equal(atomic_load(&stats->device_bytes), 160 * MIB + 6 * 8);
	tear_down(&t);

	/* planes that lie together are one run: two blocks a chunk, two chunks a batch */
	o.path = TY_PATH_DIRECT;
	set_up(&t, 6, &o);
	test_round_trip(&t);
	stats = ty_device_stats(t.dev);
	assert_int_equal(atomic_load(&stats->launches), 0);
	assert_true(atomic_load(&stats->copies) <= 16);
	assert_int_equal(atomic_load(&stats->device_bytes), 160 * MIB); /* and no table */
	tear_down(&t);
}

/* Waits that the driver was asked for, by units that are queued while nothing runs. */
static uint64_t waits(struct ty_device *dev, struct ty_batch *batches, unsigned count)
{
	uint64_t before = driver.count("cuStreamWaitEvent");

	for (unsigned i = 0; i < count; i++)
		assert_int_equal(ty_device_submit(dev, &batches[i]), TY_OK);
	return driver.count("cuStreamWaitEvent") - before;
}

/* Slots of staging: one direction alone has all four, and what comes then waits for the oldest of them; as long as both have work each
 * has two. Each unit waits once between its halves, and once more for its slot if that is in use. */
static void slots_are_shared(void **state)
{
	struct ty_device_options o = defaults();
	struct ty_batch batches[12], *done[12];
	struct ty_copy copies[12];
	uint32_t ids[64], finished = 0;
	struct test_trip t;

	(void)state;
	o.staging_bytes = 4 * MIB;
	o.tile_bytes = MIB;
	o.path = TY_PATH_STAGED;
	set_up(&t, 0, &o);
	driver.set("ops=0");
	for (uint32_t i = 0; i < 64; i++)
		ids[i] = i;
	for (unsigned i = 0; i < 12; i++) {
		copies[i] = (struct ty_copy){slots + i * t.layout->chunk_bytes, ids};
		batches[i] = (struct ty_batch){.mapping = t.mapping, .direction = i < 6 ? TY_TO_HOST : TY_TO_DEVICE, .copies = &copies[i],
			.count = 1};
	}
	assert_int_equal(waits(t.dev, batches, 4), 4);
	assert_int_equal(waits(t.dev, batches + 4, 2), 2 + 2);
	/* the other direction takes two that are in use, then goes round in them */
	assert_int_equal(waits(t.dev, batches + 6, 4), 4 + 4);
	driver.set("ops=100");
	while (finished < 10)
		finished += ty_device_poll(t.dev, done, 12);
	/* nothing is in use: two each without waiting, though the first direction could have four */
	driver.set("ops=0");
	assert_int_equal(waits(t.dev, batches, 1), 1);
	assert_int_equal(waits(t.dev, batches + 6, 2), 2);
	assert_int_equal(waits(t.dev, batches + 1, 1), 1);
	assert_int_equal(waits(t.dev, batches + 2, 1), 1 + 1);
	assert_int_equal(waits(t.dev, batches + 8, 1), 1 + 1);
	driver.set("ops=2");
	for (finished = 0; finished < 6;)
		finished += ty_device_poll(t.dev, done, 12);
	tear_down(&t);
}

/* A unit of four slots waits for each of the four units that lay there: their copies go over several streams, so that the last is not the
 * last to end. */
static void each_end_is_awaited(void **state)
{
	struct ty_device_options o = defaults();
	struct ty_plane planes[2] = {{0, 0}, {0, 2 * MIB}};
	struct ty_region region = {.length = 4 * MIB, .allocation_bytes = 4 * MIB};
	struct ty_group group = {.block_tokens = 16, .block_count = 8, .block_stride = 256 << 10, .run_bytes = 256 << 10,
		.plane_count = 2, .planes = planes};
	struct ty_pool pool = {.region_count = 1, .group_count = 1, .regions = &region, .groups = &group, .parts = 1};
	const uint32_t ids[4] = {1, 3, 4, 7};
	const struct ty_copy copy = {slots, ids};
	struct ty_batch batches[9], *done[9];
	struct ty_layout *layouts[2];
	struct ty_mapping *mappings[2];
	struct ty_device *dev;
	struct ty_error err = {0};

	(void)state;
	engine_alloc(&region);
	o.path = TY_PATH_STAGED;
	o.staging_bytes = 4 * MIB; /* eight slots */
	o.copy_streams = 2;
	dev = open_device(&o);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(ty_layout_create(&pool, i ? 64 : 16, 64 * MIB, &layouts[i], &err), TY_OK); /* chunks of one slot, of four */
		assert_int_equal(ty_device_map(dev, layouts[i], &region, &mappings[i], &err), TY_OK);
	}
	for (unsigned i = 0; i < 9; i++)
		batches[i] = (struct ty_batch){.mapping = mappings[i == 8], .direction = TY_TO_HOST, .copies = &copy, .count = 1};
	driver.set("ops=0");
	assert_int_equal(waits(dev, batches, 8), 8);
	assert_int_equal(waits(dev, batches + 8, 1), 1 + 4);
	driver.set("ops=100");
	for (uint32_t finished = 0; finished < 9;)
		finished += ty_device_poll(dev, done, 9);
	driver.set("ops=2");
	for (unsigned i = 0; i < 2; i++) {
		ty_device_unmap(dev, mappings[i]);
		free(layouts[i]);
	}
	close_device(dev);
	engine_free_all();
}

/* One operation alone is cut so that little of it is gathered before its first copy, or scattered after its last; with more behind
 * it, and while one direction works, a unit is as large as it may be. */
static void one_alone_is_cut(void **state)
{
	struct ty_device_options o = defaults();
	struct ty_plane planes[16];
	struct ty_region region = {.length = 32 * MIB, .allocation_bytes = 32 * MIB};
	struct ty_group group = {.block_tokens = 16, .block_count = 8, .block_stride = 256 << 10, .run_bytes = 256 << 10,
		.plane_count = 16, .planes = planes};
	struct ty_pool pool = {.region_count = 1, .group_count = 1, .regions = &region, .groups = &group, .parts = 1};
	const uint32_t ids[4] = {1, 3, 4, 7};
	const struct ty_copy copy = {slots, ids};
	struct ty_batch batches[3], *done[3];
	struct ty_device *dev;
	struct ty_layout *layout;
	struct ty_mapping *mapping;
	struct ty_error err = {0};
	const uint64_t expected[2] = {2, 2};

	(void)state;
	engine_alloc(&region);
	for (uint32_t p = 0; p < 16; p++)
		planes[p] = (struct ty_plane){0, (uint64_t)p * (2 * MIB)};
	o.path = TY_PATH_STAGED;
	dev = open_device(&o);
	assert_int_equal(ty_layout_create(&pool, 64, 64 * MIB, &layout, &err), TY_OK); /* chunks of 16 MiB */
	assert_int_equal(ty_device_map(dev, layout, &region, &mapping, &err), TY_OK);
	for (unsigned d = 0; d < 2; d++) {
		uint64_t launches = driver.count("cuLaunchKernel");

		batches[0] = (struct ty_batch){.mapping = mapping, .direction = (enum ty_direction)d, .copies = &copy, .count = 1};
		assert_int_equal(ty_device_submit(dev, &batches[0]), TY_OK);
		while (!ty_device_poll(dev, done, 3))
			;
		assert_int_equal(driver.count("cuLaunchKernel") - launches, expected[d]);
	}
	driver.set("ops=0");
	for (unsigned i = 0; i < 3; i++) {
		uint64_t launches = driver.count("cuLaunchKernel");

		batches[i] = (struct ty_batch){.mapping = mapping, .direction = TY_TO_HOST, .copies = &copy, .count = 1};
		assert_int_equal(ty_device_submit(dev, &batches[i]), TY_OK);
		assert_int_equal(driver.count("cuLaunchKernel") - launches, i ? 1 : 2);
	}
	driver.set("ops=100");
	for (uint32_t finished = 0; finished < 3;)
		finished += ty_device_poll(dev, done, 3);
	driver.set("ops=2");
	ty_device_unmap(dev, mapping);
	close_device(dev);
	engine_free_all();
	free(layout);
}

/* However much is submitted while nothing runs: what lies in the driver's streams is bounded for every way, by units and by copies, for a
 * stream that is full would keep its owner. Later all of it goes. */
static void queues_are_bounded(void **state)
{
	static const struct {
		enum ty_path path;
		const char *call;
		uint64_t most; /* a unit a launch; copies; calls of 256 runs, the first of 32 */
	} ways[] = {
		{TY_PATH_STAGED, "cuLaunchKernel", 16},
		{TY_PATH_DIRECT, "cuMemcpyDtoHAsync", 256},
		{TY_PATH_BATCH, "cuMemcpyBatchAsync_v2", 4},
		{TY_PATH_STRIDED, "cuMemcpy2DAsync", 256},
	};
	static struct ty_batch batches[65], *done[64];
	static struct ty_copy copies[64];
	struct ty_device_options o = defaults();
	uint32_t ids[4] = {0, 1, 2, 3};
	struct test_trip t;

	(void)state;
	for (unsigned w = 0; w < sizeof ways / sizeof ways[0]; w++) {
		uint64_t before;
		uint32_t finished = 0;

		o.path = ways[w].path;
		set_up(&t, ways[w].path == TY_PATH_STRIDED ? 0 : 15, &o); /* six planes, two by two at a pitch; 80, apart from each other */
		driver.set("ops=0");
		before = driver.count(ways[w].call);
		for (unsigned i = 0; i < 65; i++) {
			copies[i % 64] = (struct ty_copy){slots + (i % 64) * t.layout->chunk_bytes, ids};
			batches[i] = (struct ty_batch){.mapping = t.mapping, .copies = &copies[i % 64], .count = 1};
			assert_int_equal(ty_device_submit(t.dev, &batches[i]), i < 64 ? TY_OK : TY_BUSY);
			assert_int_equal(ty_device_poll(t.dev, done, 64), 0);
		}
		assert_in_range(driver.count(ways[w].call) - before, 1, ways[w].most);
		driver.set("ops=1000");
		while (finished < 64) {
			uint32_t n = ty_device_poll(t.dev, done, 64);

			for (uint32_t i = 0; i < n; i++)
				assert_int_equal(done[i]->code, TY_OK);
			finished += n;
		}
		driver.set("ops=2");
		tear_down(&t);
	}
}

static void describes_itself(void **state)
{
	struct ty_device_options o = defaults();
	struct ty_device *dev;

	(void)state;
	o.name = "cuda:1";
	dev = open_device(&o);
	assert_string_equal(ty_device_info(dev)->name, "cuda:1");
	assert_string_equal(ty_device_info(dev)->model, "Stand-in GPU 1");
	assert_int_equal(ty_device_info(dev)->uuid[0], 0x5a);
	assert_int_equal(ty_device_info(dev)->uuid[15], 1);
	assert_string_equal(ty_device_note(dev), "");
	close_device(dev);
}

/* Less staging than asked for is a note; none is a refusal. No image, or a wrong one, is a note. */
static void degrades(void **state)
{
	static const unsigned char junk[64] = {1};
	struct ty_device_options o = defaults();
	struct ty_device *dev;
	struct ty_error err;

	(void)state;
	driver.set("memory=40000000");
	dev = open_device(&o);
	assert_non_null(strstr(ty_device_note(dev), "staging has 20971520 bytes"));
	close_device(dev);
	driver.set("memory=4000000");
	assert_int_equal(ty_device_open(&o, &dev, &err), TY_NO_MEMORY);
	assert_non_null(strstr(err.text, "staging"));
	assert_int_equal(driver.live(), 0);
	driver.set("memory=4294967296");

	o.kernels = junk;
	dev = open_device(&o);
	assert_non_null(strstr(ty_device_note(dev), "CUDA_ERROR_INVALID_IMAGE"));
	close_device(dev);
	o.kernels_bytes = 0;
	dev = open_device(&o);
	assert_non_null(strstr(ty_device_note(dev), "no kernels"));
	close_device(dev);
}

static void refuse_open(const struct ty_device_options *o, enum ty_code want, const char *words)
{
	struct ty_device *dev;
	struct ty_error err = {0};
	enum ty_code code = ty_device_open(o, &dev, &err);

	if (code != want || !strstr(err.text, words))
		fail_msg("expected %s with \"%s\", got %s: %s", ty_code_name(want), words, ty_code_name(code), err.text);
	assert_null(dev);
	assert_int_equal(driver.live(), 0);
}

static void open_refusals(void **state)
{
	static const char *const needed[] = {
#define NAME(name, suffix, parameters) #name,
		TY_CUDA_FUNCTIONS(NAME)
#undef NAME
	};
	static const char *const steps[] = {"cuInit", "cuDriverGetVersion", "cuDeviceGetCount", "cuDeviceGet",
		"cuDevicePrimaryCtxRetain", "cuCtxSetCurrent", "cuDeviceGetName", "cuDeviceGetUuid", "cuDeviceGetAttribute",
		"cuStreamCreate", "cuEventCreate", "cuMemHostAlloc", "cuLaunchKernel"};
	struct ty_device_options o = defaults();
	char setting[80];

	(void)state;
	o.driver = "/nonexistent/libcuda.so.1";
	refuse_open(&o, TY_UNSUPPORTED, "no CUDA driver");
	o.driver = driver.path;
	o.fault = "delay-us=1";
	refuse_open(&o, TY_INVALID, "host device only");
	o.fault = NULL;
	o.name = "cuda:2";
	refuse_open(&o, TY_INVALID, "2 devices");
	o.name = "cuda:0";
	o.staging_bytes = 4 * MIB - 1;
	refuse_open(&o, TY_INVALID, "staging");
	o.staging_bytes = 0;
	o.tile_bytes = 4096;
	refuse_open(&o, TY_INVALID, "tile");
	o.tile_bytes = 0;
	o.copy_streams = 5;
	refuse_open(&o, TY_INVALID, "copy streams");
	o.copy_streams = 0;
	o.path = TY_PATHS;
	refuse_open(&o, TY_INVALID, "path");
	o.path = TY_PATH_PLANNED;
	for (unsigned i = 0; i < sizeof needed / sizeof needed[0]; i++) {
		snprintf(setting, sizeof setting, "missing=%s", needed[i]);
		driver.set(setting);
		refuse_open(&o, TY_UNSUPPORTED, needed[i]);
	}
	driver.set("missing=");
	driver.set("version=11030");
	refuse_open(&o, TY_UNSUPPORTED, "cuInit"); /* such a driver does not know the interface that is asked for */
	driver.set("version=13000");
	for (unsigned i = 0; i < sizeof steps / sizeof steps[0]; i++) {
		driver.inject(steps[i], 1, CU_INVALID_VALUE);
		refuse_open(&o, TY_DEVICE_FAILED, steps[i]);
	}
	for (uint64_t nth = 2; nth <= 33; nth++) { /* halfway through the events */
		driver.inject("cuEventCreate", nth, CU_OUT_OF_MEMORY);
		refuse_open(&o, TY_NO_MEMORY, "cuEventCreate");
	}
	driver.inject("cuInit", 1, CU_NO_DEVICE);
	refuse_open(&o, TY_UNSUPPORTED, "CUDA_ERROR_NO_DEVICE");
}

static void refuse_map(struct ty_device *dev, const struct ty_layout *layout, enum ty_code want, const char *words)
{
	uint64_t live = driver.live();
	struct ty_mapping *mapping;
	struct ty_error err = {0};
	enum ty_code code = ty_device_map(dev, layout, tp.regions, &mapping, &err);

	if (code != want || !strstr(err.text, words))
		fail_msg("expected %s with \"%s\", got %s: %s", ty_code_name(want), words, ty_code_name(code), err.text);
	assert_null(mapping);
	assert_int_equal(driver.live(), live);
	assert_int_equal(ty_device_health(dev, &err), TY_OK);
}

/* Pools of pieces that are mapped one by one: whether or not rows of a strided copy may go across. */
static void pieces(void **state)
{
	static const enum ty_path paths[] = {TY_PATH_PLANNED, TY_PATH_STRIDED};
	struct ty_device_options o = defaults();
	struct test_trip t;

	(void)state;
	in_pieces = true;
	for (unsigned i = 0; i < 2; i++) {
		o.path = paths[i];
		trips(&o, i ? "ops=5,rows=1" : "ops=5,rows=0");
	}
	o.path = TY_PATH_STRIDED;
	for (unsigned rows = 0; rows < 2; rows++) {
		driver.set(rows ? "rows=1" : "rows=0");
		set_up(&t, 0, &o);
		assert_int_equal(ty_device_path(t.dev, t.mapping, 0, TY_TO_HOST, 1), rows ? TY_PATH_STRIDED : TY_PATH_DIRECT);
		tear_down(&t);
	}
	driver.set("rows=0");
	in_pieces = false;
}

/* Many pieces are mapped and unmapped in turns, a few calls each; what fails in between lets go of all of it. */
static void pieces_in_turns(void **state)
{
	static const char *const calls[] = {"cuMemAddressReserve", "cuMemImportFromShareableHandle", "cuMemMap", "cuMemSetAccess"};
	struct ty_device_options o = defaults();
	struct ty_layout *layout = NULL;
	struct ty_mapping *m = NULL;
	struct ty_segment wrong[20];
	unsigned turns = 1, closing = 1, count = 0;
	struct ty_device *dev;
	struct ty_error err = {0};
	enum ty_code code;
	uint64_t live;

	(void)state;
	test_pool_build(0, &tp);
	tp.regions[0].offset = 19 * 2 * MIB;
	for (uint32_t i = 0; i < tp.pool.region_count; i++) {
		engine_alloc_pieces(0, &tp.regions[i]);
		count += tp.regions[i].segment_count;
	}
	assert_int_equal(tp.regions[0].segment_count, 20);
	assert_int_equal(ty_layout_create(&tp.pool, tp.chunk_tokens, 64 * MIB, &layout, &err), TY_OK);
	dev = open_device(&o);
	live = driver.live();
	while ((code = ty_device_map_some(dev, layout, tp.regions, &m, &err)) == TY_BUSY)
		turns++;
	if (code != TY_OK)
		fail_msg("%s", err.text);
	assert_int_equal(turns, (count + 7) / 8);
	while (!ty_device_unmap_some(dev, m))
		closing++;
	assert_int_equal(closing, (count + tp.pool.region_count + 7) / 8);
	assert_int_equal(driver.live(), live);

	for (unsigned i = 0; i < sizeof calls / sizeof calls[0]; i++) {
		driver.inject(calls[i], i ? 18 : 1, CU_OUT_OF_MEMORY);
		refuse_map(dev, layout, TY_NO_MEMORY, i ? calls[i] : "addresses");
	}
	memcpy(wrong, tp.regions[0].segments, sizeof wrong);
	tp.regions[0].segments = wrong;
	wrong[3].bytes += 4096;
	refuse_map(dev, layout, TY_INVALID, "segments[3].bytes: 2101248, expected a multiple of 2097152");
	wrong[3].bytes = UINT64_MAX / MIB / 2 * 2 * MIB;
	refuse_map(dev, layout, TY_INVALID, "do");
	wrong[3].bytes = 4 * MIB; /* more than there is; the driver says so */
	refuse_map(dev, layout, TY_INVALID, "allocation_bytes: 41943040, but its segments have 44040192");
	wrong[2].fd = wrong[3].fd; /* a piece twice is what the client says it is */
	tp.regions[0].allocation_bytes += 2 * MIB;
	refuse_map(dev, layout, TY_INVALID, "segments[3]: cuMemMap does not take it as 4194304 bytes of cuda:0");
	tp.regions[0].allocation_bytes -= 2 * MIB;
	wrong[3] = (struct ty_segment){0, 2 * MIB}; /* no memory at all */
	refuse_map(dev, layout, TY_INVALID, "segments[3]: cuMemImportFromShareableHandle");
	wrong[3].fd = 100000;
	refuse_map(dev, layout, TY_INVALID, "segments[3]: cuMemImportFromShareableHandle");
	close_device(dev);
	free(layout);
	engine_free_all();
}

static void map_refusals(void **state)
{
	struct ty_device_options o = defaults();
	struct ty_layout *layout = build_pool(2);
	struct ty_device *dev = open_device(&o);
	struct standin_handle h;
	struct ty_region good;

	(void)state;
	good = tp.regions[3];
#define REFUSED(change, code, words)                                                                                   \
	change;                                                                                                        \
	refuse_map(dev, layout, code, words);                                                                          \
	tp.regions[3] = good
	REFUSED(tp.regions[3].is_fd = true, TY_INVALID, "regions[3].segments[0]: cuMemImportFromShareableHandle does not take it");
	REFUSED(memset(tp.regions[3].ipc_handle, 0, 64), TY_INVALID, "regions[3].ipc_handle");
	REFUSED(tp.regions[3].allocation_bytes++, TY_INVALID, "regions[3].allocation_bytes");
	REFUSED(tp.regions[3].offset = tp.regions[3].allocation_bytes, TY_INVALID, "regions[3]: offset");
	REFUSED(tp.regions[3].offset = UINT64_MAX - 15, TY_INVALID, "regions[3]: offset");
	REFUSED(tp.regions[3].length += 16, TY_INVALID, "regions[3].length");
	REFUSED(tp.regions[3].offset = 8, TY_INVALID, "regions[3]: its first byte");
	memcpy(&h, good.ipc_handle, sizeof h);
	h.device = 1;
	REFUSED(memcpy(tp.regions[3].ipc_handle, &h, 64), TY_INVALID, "regions[3].ipc_handle");
	REFUSED(driver.inject("cuIpcOpenMemHandle", 4, CU_OUT_OF_MEMORY), TY_NO_MEMORY, "regions[3].ipc_handle");
	REFUSED(driver.inject("cuMemGetAddressRange", 4, CU_INVALID_VALUE), TY_DEVICE_FAILED, "cuMemGetAddressRange");
	REFUSED(driver.inject("cuMemAlloc", 1, CU_OUT_OF_MEMORY), TY_NO_MEMORY, "plane table");
	REFUSED(driver.inject("cuMemcpyHtoDAsync", 1, CU_INVALID_VALUE), TY_DEVICE_FAILED, "plane table");
#undef REFUSED
	close_device(dev);
	engine_free_all();
	free(layout);
}

/* A driver that answers "unknown error", which is one that stays elsewhere, to what clients send: the client is refused, the device
 * goes on. */
static void unknown_handles(void **state)
{
	struct ty_device_options o = defaults();
	struct test_trip t;
	struct ty_segment wrong = {0, 2 * MIB};
	struct ty_region good;

	(void)state;
	set_up(&t, 0, &o);
	good = tp.regions[1];
	driver.set("unknown=1");
	memset(tp.regions[1].ipc_handle, 0, 64);
	refuse_map(t.dev, t.layout, TY_INVALID, "regions[1].ipc_handle: the driver does not open it on cuda:0: CUDA_ERROR_UNKNOWN (999)");
	tp.regions[1].segments = &wrong;
	tp.regions[1].segment_count = 1;
	tp.regions[1].allocation_bytes = 2 * MIB;
	refuse_map(t.dev, t.layout, TY_INVALID, "regions[1].segments[0]: cuMemImportFromShareableHandle does not take it");
	driver.set("unknown=0");
	tp.regions[1] = good;
	test_round_trip(&t);
	tear_down(&t);
}

/* One handle, opened once: two regions of one mapping, and two mappings. */
static void handles_are_shared(void **state)
{
	struct ty_device_options o = defaults();
	struct ty_layout *layout = build_pool(0);
	struct ty_device *dev = open_device(&o);
	uint64_t opened = driver.count("cuIpcOpenMemHandle"), closed = driver.count("cuIpcCloseMemHandle");
	struct ty_mapping *a, *b;
	struct ty_error err;

	(void)state;
	tp.regions[1] = tp.regions[0];
	tp.regions[2] = tp.regions[0];
	assert_int_equal(ty_device_map(dev, layout, tp.regions, &a, &err), TY_OK);
	assert_int_equal(ty_device_map(dev, layout, tp.regions, &b, &err), TY_OK);
	assert_int_equal(driver.count("cuIpcOpenMemHandle") - opened, 1);
	ty_device_unmap(dev, a);
	assert_int_equal(driver.count("cuIpcCloseMemHandle") - closed, 0);
	ty_device_unmap(dev, b);
	assert_int_equal(driver.count("cuIpcCloseMemHandle") - closed, 1);
	close_device(dev);
	engine_free_all();
	free(layout);
}

static void host_memory(void **state)
{
	struct ty_device_options o = defaults();
	struct ty_device *dev = open_device(&o);
	struct ty_error err;

	(void)state;
	assert_int_equal(ty_device_register_host(dev, slots + 4096, 4096, &err), TY_DEVICE_FAILED);
	assert_non_null(strstr(err.text, "ALREADY_REGISTERED"));
	driver.inject("cuMemHostRegister", 1, CU_OUT_OF_MEMORY);
	assert_int_equal(ty_device_register_host(dev, slots + SLOT_BYTES, 4096, &err), TY_NO_MEMORY);
	assert_int_equal(ty_device_health(dev, &err), TY_OK);
	close_device(dev);
}

/* Two devices of one owner, and memory that one registered for both. */
static void two_devices(void **state)
{
	struct ty_device_options o = defaults(), second = defaults();
	struct ty_device *other;
	struct test_trip t;
	struct ty_error err;

	(void)state;
	second.name = "cuda:1";
	set_up(&t, 3, &o);
	assert_int_equal(ty_device_open(&second, &other, &err), TY_OK);
	test_round_trip(&t);
	ty_device_unmap(t.dev, t.mapping);
	ty_device_unregister_host(t.dev, slots);
	assert_int_equal(ty_device_register_host(other, slots, SLOT_BYTES, &err), TY_OK);
	assert_int_equal(ty_device_map(t.dev, t.layout, tp.regions, &t.mapping, &err), TY_OK);
	test_round_trip(&t);
	ty_device_unregister_host(other, slots);
	ty_device_close(other);
	assert_int_equal(ty_device_register_host(t.dev, slots, SLOT_BYTES, &err), TY_OK);
	tear_down(&t);
}

/* The engine's side, in this process. */
static void client_side(void **state)
{
	struct ty_pattern_run runs[600];
	struct ty_pattern_wrong wrong;
	struct ty_cuda_client *c;
	struct ty_region region;
	uint64_t address, available, total, word;
	uint8_t uuid[TY_UUID_BYTES], *buffer = malloc(5 * MIB), *again = malloc(5 * MIB);
	struct ty_error err = {0};
	double seconds = 0;
	void *pinned;

	(void)state;
	assert_int_equal(ty_cuda_client_open(driver.path, 1, &c, &err), TY_OK);
	ty_cuda_client_uuid(c, uuid);
	assert_int_equal(uuid[15], 1);
	assert_int_equal(ty_cuda_client_alloc(c, 0, &address, &region, &err), TY_INVALID);
	assert_int_equal(ty_cuda_client_alloc(c, 5 * MIB, &address, &region, &err), TY_OK);
	assert_int_equal(region.allocation_bytes, 6 * MIB);
	assert_int_equal(region.length, 6 * MIB);
	assert_int_equal(ty_cuda_client_memory(c, &available, &total, &err), TY_OK);
	assert_int_equal(total - available, 6 * MIB + 16);
	word = 5;
	test_fill(buffer, 5 * MIB, &word);
	assert_int_equal(ty_cuda_client_write(c, address, buffer, 5 * MIB, &err), TY_OK);
	assert_int_equal(ty_cuda_client_read(c, again, address, 5 * MIB, &err), TY_OK);
	assert_memory_equal(buffer, again, 5 * MIB);
	assert_int_equal(ty_cuda_client_host_alloc(c, MIB, &pinned, &err), TY_OK);
	assert_int_equal(ty_cuda_client_time_copy(c, true, pinned, address + 4096, MIB, &seconds, &err), TY_OK);
	assert_true(seconds > 0);
	assert_memory_equal(buffer + 4096, pinned, MIB);
	memset(pinned, 7, MIB);
	assert_int_equal(ty_cuda_client_time_copy(c, false, pinned, address, MIB, &seconds, &err), TY_OK);
	assert_int_equal(ty_cuda_client_read(c, again, address, MIB, &err), TY_OK);
	assert_memory_equal(again, pinned, MIB);
	for (uint32_t i = 0; i < 600; i++)
		runs[i] = (struct ty_pattern_run){address + i * 8192ull, i, i * 512};
	if (ty_kernels_image_bytes) {
		assert_int_equal(ty_cuda_client_fill(c, 3, runs, 600, 512, &err), TY_OK);
		assert_int_equal(ty_cuda_client_check(c, 3, runs, 600, 512, &wrong, &err), TY_OK);
		assert_int_equal(wrong.count, 0);
		word = 12345;
		assert_int_equal(ty_cuda_client_write(c, runs[501].address + 8 * 77, &word, 8, &err), TY_OK);
		assert_int_equal(ty_cuda_client_write(c, runs[599].address, &word, 8, &err), TY_OK);
		assert_int_equal(ty_cuda_client_check(c, 3, runs, 600, 512, &wrong, &err), TY_OK);
		assert_int_equal(wrong.count, 2);
		assert_int_equal(wrong.run, 501);
		assert_int_equal(wrong.word, 77);
		assert_int_equal(wrong.found, 12345);
	} else {
		assert_int_equal(ty_cuda_client_fill(c, 3, runs, 600, 512, &err), TY_UNSUPPORTED);
	}
	ty_cuda_client_host_free(c, pinned);
	ty_cuda_client_free(c, address);
	ty_cuda_client_close(c);
	ty_cuda_client_close(NULL);
	assert_int_equal(driver.live(), 0);
	free(buffer);
	free(again);
}

static int prepare(void **state)
{
	(void)state;
	standin_open(&driver);
	engine_start();
	slots = mmap(NULL, SLOT_BYTES + 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return slots == MAP_FAILED;
}

static int finish(void **state)
{
	(void)state;
	engine_stop();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trips),
		cmocka_unit_test(round_trips_small_staging),
		cmocka_unit_test(round_trips_over_streams),
		cmocka_unit_test(round_trips_without_kernels),
		cmocka_unit_test(round_trips_by_path),
		cmocka_unit_test(sharing),
		cmocka_unit_test(work_is_joined),
		cmocka_unit_test(slots_are_shared),
		cmocka_unit_test(each_end_is_awaited),
		cmocka_unit_test(one_alone_is_cut),
		cmocka_unit_test(queues_are_bounded),
		cmocka_unit_test(describes_itself),
		cmocka_unit_test(degrades),
		cmocka_unit_test(open_refusals),
		cmocka_unit_test(pieces),
		cmocka_unit_test(pieces_in_turns),
		cmocka_unit_test(map_refusals),
		cmocka_unit_test(unknown_handles),
		cmocka_unit_test(handles_are_shared),
		cmocka_unit_test(host_memory),
		cmocka_unit_test(two_devices),
		cmocka_unit_test(client_side),
	};

	return cmocka_run_group_tests_name("CUDA", tests, prepare, finish);
}
