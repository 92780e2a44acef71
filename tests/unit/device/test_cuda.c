/* SPDX-License-Identifier: Apache-2.0
 *
 * The owner's real code over the stand-in driver: every pool there and back by every way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpu.h"
#include "kernels/gather.h"

static void trips(const struct ty_device_options *options, const char *settings)
{
	g.driver.set(settings);
	g.layered = true;
	for (unsigned i = 0; i < test_pool_count; i++) {
		struct test_trip t;

		test_pool_build(i, &g.tp);
		if (g.in_pieces && g.tp.pool.region_count > 4) /* many pieces take the stand-in long */
			continue;
		gpu_set_up(&t, i, options);
		test_round_trip(&t);
		gpu_tear_down(&t);
	}
	g.layered = false;
	g.driver.set("ops=2");
}

static void round_trips(void **state)
{
	struct ty_device_options o = gpu_options();

	(void)state;
	trips(&o, "ops=2");
	/* one owner, one thread */
	assert_int_equal(g.driver.threads_seen(NULL), 1);
	assert_true(g.driver.count("cuLaunchKernel") > 0);
}

/* Staging so small that every pool takes many laps of the ring, at different paces of the driver. */
static void round_trips_small_staging(void **state)
{
	struct ty_device_options o = gpu_options();

	(void)state;
	o.staging_bytes = 4 * GPU_MIB;
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
	struct ty_device_options o = gpu_options();
	uint64_t launches = g.driver.count("cuLaunchKernel");

	(void)state;
	o.path = TY_PATH_STAGED;
	o.staging_bytes = 4 * GPU_MIB;
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
	assert_true(g.driver.count("cuLaunchKernel") > launches);
}

/* Without kernels everything goes run by run: slow, and right. */
static void round_trips_without_kernels(void **state)
{
	struct ty_device_options o = gpu_options();
	uint64_t launches = g.driver.count("cuLaunchKernel");

	(void)state;
	o.kernels_bytes = 0;
	trips(&o, "ops=40");
	assert_int_equal(g.driver.count("cuLaunchKernel"), launches);
}

/* Every way but staged, over one to four streams, at several paces of the driver. */
static void round_trips_by_path(void **state)
{
	struct ty_device_options o = gpu_options();
	uint64_t rows = g.driver.count("cuMemcpy2DAsync"), batches = g.driver.count("cuMemcpyBatchAsync_v2");
	uint64_t old = g.driver.count("cuMemcpyBatchAsync"), launches = g.driver.count("cuLaunchKernel");

	(void)state;
	o.kernels_bytes = 0;
	o.path = TY_PATH_DIRECT;
	o.copy_streams = 1;
	trips(&o, "ops=40");
	o.copy_streams = 4;
	trips(&o, "ops=7");
	assert_int_equal(g.driver.count("cuMemcpy2DAsync"), rows);
	o.path = TY_PATH_STRIDED;
	o.copy_streams = 2;
	trips(&o, "ops=3");
	assert_true(g.driver.count("cuMemcpy2DAsync") > rows);
	o.path = TY_PATH_BATCH;
	o.copy_streams = 3;
	trips(&o, "ops=30");
	assert_true(g.driver.count("cuMemcpyBatchAsync_v2") > batches);
	assert_int_equal(g.driver.count("cuMemcpyBatchAsync"), old);
	/* the entry point of CUDA 12.8, and a driver without one */
	batches = g.driver.count("cuMemcpyBatchAsync_v2");
	trips(&o, "ops=30,version=12080");
	assert_true(g.driver.count("cuMemcpyBatchAsync") > old);
	old = g.driver.count("cuMemcpyBatchAsync");
	trips(&o, "ops=30,version=12060");
	trips(&o, "ops=30,version=13000,missing=cuMemcpyBatchAsync");
	g.driver.set("missing=");
	assert_int_equal(g.driver.count("cuMemcpyBatchAsync"), old);
	assert_int_equal(g.driver.count("cuMemcpyBatchAsync_v2"), batches);
	assert_int_equal(g.driver.count("cuLaunchKernel"), launches);
}

static uint64_t units(const struct test_trip *t, enum ty_path path)
{
	return atomic_load(&ty_device_stats(t->dev)->units[path]);
}

/* What the planner makes of the pools: quiet never launches a kernel, fast does where runs are short. */
static void sharing(void **state)
{
	struct ty_device_options o = gpu_options();
	uint64_t launches;
	struct test_trip t;

	(void)state;
	o.sharing = TY_SHARING_FAST;
	gpu_set_up(&t, 0, &o);
	assert_int_equal(ty_device_path(t.dev, t.mapping, 0, TY_TO_HOST, 1), TY_PATH_STAGED);
	test_round_trip(&t);
	assert_int_equal(units(&t, TY_PATH_STAGED), 4);
	gpu_tear_down(&t);
	o.sharing = TY_SHARING_QUIET;
	gpu_set_up(&t, 0, &o);
	launches = g.driver.count("cuLaunchKernel");
	test_round_trip(&t);
	assert_int_equal(g.driver.count("cuLaunchKernel"), launches);
	assert_int_equal(units(&t, TY_PATH_STAGED), 0);
	assert_int_equal(atomic_load(&ty_device_stats(t.dev)->device_bytes), 0); /* no table, and nothing to stage in */
	gpu_tear_down(&t);
	trips(&o, "ops=9");
}

/* What it does not use it does not take; a batch is what it is with it. */
static void quiet_takes_no_memory(void **state)
{
	struct ty_device_options o = gpu_options();

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		uint32_t limit;
		struct test_trip t;

		o.in_process = i & 1;
		o.staging_bytes = i & 2 ? 8 * GPU_MIB : 0;
		o.sharing = TY_SHARING_FAST;
		gpu_set_up(&t, 0, &o);
		limit = ty_device_batch_limit(t.dev, t.layout);
		assert_true(atomic_load(&ty_device_stats(t.dev)->device_bytes) >= 8 * GPU_MIB);
		gpu_tear_down(&t);
		o.sharing = TY_SHARING_QUIET;
		gpu_set_up(&t, 0, &o);
		assert_int_equal(ty_device_batch_limit(t.dev, t.layout), limit);
		assert_int_equal(atomic_load(&ty_device_stats(t.dev)->device_bytes), 0);
		gpu_tear_down(&t);
	}
	o = gpu_options();
	o.sharing = TY_SHARING_QUIET;
	g.driver.set("memory=4000000"); /* too little for the least of staging: whoever stages is refused (test_cuda_refusals.c) */
	gpu_close(gpu_open(&o));
	g.driver.set("memory=4294967296");
	o.path = TY_PATH_STAGED; /* for measuring: it is asked for by name */
	trips(&o, "ops=9");
}

static void describes_itself(void **state)
{
	struct ty_device_options o = gpu_options();
	struct ty_device *dev;

	(void)state;
	o.name = "cuda:1";
	dev = gpu_open(&o);
	assert_string_equal(ty_device_info(dev)->name, "cuda:1");
	assert_string_equal(ty_device_info(dev)->model, "Stand-in GPU 1");
	assert_int_equal(ty_device_info(dev)->uuid[0], 0x5a);
	assert_int_equal(ty_device_info(dev)->uuid[15], 1);
	assert_string_equal(ty_device_note(dev), "");
	gpu_close(dev);
}

/* Pools of pieces that are mapped one by one: whether or not rows of a strided copy may go across. */
static void pieces(void **state)
{
	static const enum ty_path paths[] = {TY_PATH_PLANNED, TY_PATH_STRIDED};
	struct ty_device_options o = gpu_options();
	struct test_trip t;

	(void)state;
	g.in_pieces = true;
	for (unsigned i = 0; i < 2; i++) {
		o.path = paths[i];
		trips(&o, i ? "ops=5,rows=1" : "ops=5,rows=0");
	}
	o.path = TY_PATH_STRIDED;
	for (unsigned rows = 0; rows < 2; rows++) {
		g.driver.set(rows ? "rows=1" : "rows=0");
		gpu_set_up(&t, 0, &o);
		assert_int_equal(ty_device_path(t.dev, t.mapping, 0, TY_TO_HOST, 1), rows ? TY_PATH_STRIDED : TY_PATH_DIRECT);
		gpu_tear_down(&t);
	}
	g.driver.set("rows=0");
	g.in_pieces = false;
}

/* Two devices of one owner, and memory that one registered for both. */
static void two_devices(void **state)
{
	struct ty_device_options o = gpu_options(), second = gpu_options();
	struct ty_device *other;
	struct test_trip t;
	struct ty_error err;

	(void)state;
	second.name = "cuda:1";
	gpu_set_up(&t, 3, &o);
	assert_int_equal(ty_device_open(&second, &other, &err), TY_OK);
	test_round_trip(&t);
	ty_device_unmap(t.dev, t.mapping);
	ty_device_unregister_host(t.dev, g.slots);
	assert_int_equal(ty_device_register_host(other, g.slots, GPU_SLOT_BYTES, &err), TY_OK);
	assert_int_equal(ty_device_map(t.dev, t.layout, g.tp.regions, &t.mapping, &err), TY_OK);
	test_round_trip(&t);
	ty_device_unregister_host(other, g.slots);
	ty_device_close(other);
	assert_int_equal(ty_device_register_host(t.dev, g.slots, GPU_SLOT_BYTES, &err), TY_OK);
	gpu_tear_down(&t);
}

/* Memory of this process's own, as an owner in an engine's has it: each region an allocation, by its address. */
static void own_memory(void **state)
{
	static const enum ty_path ways[] = {TY_PATH_STAGED, TY_PATH_BATCH, TY_PATH_STRIDED};
	struct ty_device_options o = gpu_options();
	struct ty_error err = {0};
	struct ty_cuda_client *c;

	(void)state;
	assert_int_equal(ty_cuda_client_open(g.driver.path, 0, &c, &err), TY_OK);
	for (unsigned i = 0; i < test_pool_count; i++) {
		struct test_trip t = {.pool = &g.tp, .slots = g.slots, .slot_bytes = GPU_SLOT_BYTES, .random = i};
		struct ty_layout *layout;

		test_pool_build(i, &g.tp);
		g.tp.pool.owner[0] = 1;
		for (uint32_t r = 0; r < g.tp.pool.region_count; r++) {
			struct ty_region *region = &g.tp.regions[r], got;
			uint64_t address;

			assert_int_equal(ty_cuda_client_alloc(c, region->allocation_bytes, &address, &got, &err), TY_OK);
			region->is_fd = false;
			region->address = address;
			t.view[r] = (uint8_t *)(uintptr_t)address + region->offset;
		}
		assert_int_equal(ty_layout_create(&g.tp.pool, g.tp.chunk_tokens, 64 * GPU_MIB, &layout, &err), TY_OK);
		t.layout = layout;
		for (unsigned w = 0; w < sizeof ways / sizeof ways[0]; w++) {
			o.path = ways[w];
			o.in_process = w & 1;
			t.dev = gpu_open(&o);
			assert_int_equal(ty_device_map(t.dev, layout, g.tp.regions, &t.mapping, &err), TY_OK);
			test_round_trip(&t);
			ty_device_unmap(t.dev, t.mapping);
			ty_device_unregister_host(t.dev, g.slots);
			ty_device_close(t.dev);
		}
		for (uint32_t r = 0; r < g.tp.pool.region_count; r++)
			ty_cuda_client_free(c, g.tp.regions[r].address);
		free(layout);
	}
	ty_cuda_client_close(c);
	assert_int_equal(g.driver.live(), 0);
}

#define OWN_PIECES 30u

/* The same in many pieces, mapped one behind the other: they are looked at in turns, and no strided copy crosses from one to the next. */
static void own_memory_in_pieces(void **state)
{
	static const enum ty_path ways[] = {TY_PATH_STAGED, TY_PATH_BATCH, TY_PATH_STRIDED};
	struct ty_device_options o = gpu_options();
	const uint64_t bytes = OWN_PIECES * 2 * GPU_MIB, run = 64 << 10;
	struct ty_plane planes[2] = {{0, 0}, {0, bytes / 2}};
	struct ty_region region = {.allocation_bytes = bytes, .length = bytes};
	struct ty_group group = {.block_tokens = 16, .block_count = (uint32_t)(bytes / 2 / run), .block_stride = run, .run_bytes = (uint32_t)run,
		.plane_count = 2, .planes = planes};
	struct ty_pool pool = {.region_count = 1, .group_count = 1, .regions = &region, .groups = &group, .parts = 1, .owner = {1}};
	struct test_pool named = {.name = "own pieces"};
	struct ty_error err = {0};
	struct ty_cuda_client *c;
	struct ty_layout *layout;
	int fds[OWN_PIECES];

	(void)state;
	assert_int_equal(ty_cuda_client_open(g.driver.path, 0, &c, &err), TY_OK);
	assert_int_equal(ty_cuda_client_alloc_pieces(c, OWN_PIECES, 2 * GPU_MIB, &region.address, fds, &err), TY_OK);
	assert_int_equal(ty_layout_create(&pool, 32, 64 * GPU_MIB, &layout, &err), TY_OK);
	for (unsigned w = 0; w < sizeof ways / sizeof ways[0]; w++) {
		struct test_trip t = {.pool = &named, .layout = layout, .view = {(uint8_t *)(uintptr_t)region.address}, .slots = g.slots,
			.slot_bytes = GPU_SLOT_BYTES, .random = w};
		unsigned turns = 0;

		o.path = ways[w];
		t.dev = gpu_open(&o);
		while (ty_device_map_some(t.dev, layout, &region, &t.mapping, &err) == TY_BUSY)
			turns++;
		assert_non_null(t.mapping);
		assert_true(turns >= 2);
		test_round_trip(&t);
		ty_device_unmap(t.dev, t.mapping);
		/* one page more than there is */
		region.allocation_bytes += 4096;
		assert_int_equal(ty_device_map(t.dev, layout, &region, &t.mapping, &err), TY_INVALID);
		assert_non_null(strstr(err.text, "allocation_bytes"));
		region.allocation_bytes -= 4096;
		ty_device_unregister_host(t.dev, g.slots);
		ty_device_close(t.dev);
	}
	for (unsigned i = 0; i < OWN_PIECES; i++)
		close(fds[i]);
	ty_cuda_client_free_pieces(c, region.address, OWN_PIECES, 2 * GPU_MIB);
	ty_cuda_client_close(c);
	assert_int_equal(g.driver.live(), 0);
	free(layout);
}

/* The engine's side, in this process. */
static void client_side(void **state)
{
	struct ty_pattern_run runs[600];
	struct ty_pattern_wrong wrong;
	struct ty_cuda_client *c;
	struct ty_region region;
	uint64_t address, available, total, word;
	uint8_t uuid[TY_UUID_BYTES], *buffer = malloc(5 * GPU_MIB), *again = malloc(5 * GPU_MIB);
	struct ty_error err = {0};
	double seconds = 0;
	void *pinned;

	(void)state;
	assert_int_equal(ty_cuda_client_open(g.driver.path, 1, &c, &err), TY_OK);
	ty_cuda_client_uuid(c, uuid);
	assert_int_equal(uuid[15], 1);
	assert_int_equal(ty_cuda_client_alloc(c, 0, &address, &region, &err), TY_INVALID);
	assert_int_equal(ty_cuda_client_alloc(c, 5 * GPU_MIB, &address, &region, &err), TY_OK);
	assert_int_equal(region.allocation_bytes, 6 * GPU_MIB);
	assert_int_equal(region.length, 6 * GPU_MIB);
	assert_int_equal(ty_cuda_client_memory(c, &available, &total, &err), TY_OK);
	assert_int_equal(total - available, 6 * GPU_MIB + 16);
	word = 5;
	test_fill(buffer, 5 * GPU_MIB, &word);
	assert_int_equal(ty_cuda_client_write(c, address, buffer, 5 * GPU_MIB, &err), TY_OK);
	assert_int_equal(ty_cuda_client_read(c, again, address, 5 * GPU_MIB, &err), TY_OK);
	assert_memory_equal(buffer, again, 5 * GPU_MIB);
	assert_int_equal(ty_cuda_client_host_alloc(c, GPU_MIB, &pinned, &err), TY_OK);
	assert_int_equal(ty_cuda_client_time_copy(c, true, pinned, address + 4096, GPU_MIB, &seconds, &err), TY_OK);
	assert_true(seconds > 0);
	assert_memory_equal(buffer + 4096, pinned, GPU_MIB);
	memset(pinned, 7, GPU_MIB);
	assert_int_equal(ty_cuda_client_time_copy(c, false, pinned, address, GPU_MIB, &seconds, &err), TY_OK);
	assert_int_equal(ty_cuda_client_read(c, again, address, GPU_MIB, &err), TY_OK);
	assert_memory_equal(again, pinned, GPU_MIB);
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
	assert_int_equal(g.driver.live(), 0);
	free(buffer);
	free(again);
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
		cmocka_unit_test(quiet_takes_no_memory),
		cmocka_unit_test(describes_itself),
		cmocka_unit_test(pieces),
		cmocka_unit_test(two_devices),
		cmocka_unit_test(own_memory),
		cmocka_unit_test(own_memory_in_pieces),
		cmocka_unit_test(client_side),
	};

	return cmocka_run_group_tests_name("CUDA", tests, gpu_prepare, gpu_finish);
}
