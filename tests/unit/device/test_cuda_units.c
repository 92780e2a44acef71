/* SPDX-License-Identifier: Apache-2.0
 *
 * What is queued, and when: how chunks become units, who waits for whose slots, and how much lies in the driver's streams.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "gpu.h"

static void work_is_joined(void **state)
{
	struct ty_device_options o = gpu_options();
	const struct ty_device_stats *stats;
	struct test_trip t;

	(void)state;
	/* small chunks share a launch: 8 of 64 tokens, in at most 3 batches of the round trip's 4 */
	gpu_set_up(&t, 0, &o);
	test_round_trip(&t);
	stats = ty_device_stats(t.dev);
	assert_int_equal(atomic_load(&stats->launches), 4);
	assert_int_equal(atomic_load(&stats->device_bytes), 160 * GPU_MIB + 6 * 8);
	gpu_tear_down(&t);

	/* planes that lie together are one run: two blocks a chunk, two chunks a batch */
	o.path = TY_PATH_DIRECT;
	gpu_set_up(&t, 6, &o);
	test_round_trip(&t);
	stats = ty_device_stats(t.dev);
	assert_int_equal(atomic_load(&stats->launches), 0);
	assert_true(atomic_load(&stats->copies) <= 16);
	assert_int_equal(atomic_load(&stats->device_bytes), 160 * GPU_MIB); /* and no table */
	gpu_tear_down(&t);
}

/* Waits that the driver was asked for, by units that are queued while nothing runs. */
static uint64_t waits(struct ty_device *dev, struct ty_batch *batches, unsigned count)
{
	uint64_t before = g.driver.count("cuStreamWaitEvent");

	for (unsigned i = 0; i < count; i++)
		assert_int_equal(ty_device_submit(dev, &batches[i]), TY_OK);
	return g.driver.count("cuStreamWaitEvent") - before;
}

/* Slots of staging: one direction alone has all four, and what comes then waits for the oldest of them; as long as both have work each
 * has two. Each unit waits once between its halves, and once more for its slot if that is in use. */
static void slots_are_shared(void **state)
{
	struct ty_device_options o = gpu_options();
	struct ty_batch batches[12], *done[12];
	struct ty_copy copies[12];
	uint32_t ids[64], finished = 0;
	struct test_trip t;

	(void)state;
	o.staging_bytes = 4 * GPU_MIB;
	o.tile_bytes = GPU_MIB;
	o.path = TY_PATH_STAGED;
	gpu_set_up(&t, 0, &o);
	g.driver.set("ops=0");
	for (uint32_t i = 0; i < 64; i++)
		ids[i] = i;
	for (unsigned i = 0; i < 12; i++) {
		copies[i] = (struct ty_copy){g.slots + i * t.layout->chunk_bytes, ids};
		batches[i] = (struct ty_batch){.mapping = t.mapping, .direction = i < 6 ? TY_TO_HOST : TY_TO_DEVICE, .copies = &copies[i],
			.count = 1};
	}
	assert_int_equal(waits(t.dev, batches, 4), 4);
	assert_int_equal(waits(t.dev, batches + 4, 2), 2 + 2);
	/* the other direction takes two that are in use, then goes round in them */
	assert_int_equal(waits(t.dev, batches + 6, 4), 4 + 4);
	g.driver.set("ops=100");
	while (finished < 10)
		finished += ty_device_poll(t.dev, done, 12);
	/* nothing is in use: two each without waiting, though the first direction could have four */
	g.driver.set("ops=0");
	assert_int_equal(waits(t.dev, batches, 1), 1);
	assert_int_equal(waits(t.dev, batches + 6, 2), 2);
	assert_int_equal(waits(t.dev, batches + 1, 1), 1);
	assert_int_equal(waits(t.dev, batches + 2, 1), 1 + 1);
	assert_int_equal(waits(t.dev, batches + 8, 1), 1 + 1);
	g.driver.set("ops=2");
	for (finished = 0; finished < 6;)
		finished += ty_device_poll(t.dev, done, 12);
	gpu_tear_down(&t);
}

/* A unit of four slots waits for each of the four units that lay there: their copies go over several streams, so that the last is not the
 * last to end. */
static void each_end_is_awaited(void **state)
{
	struct ty_device_options o = gpu_options();
	struct ty_plane planes[2] = {{0, 0}, {0, 2 * GPU_MIB}};
	struct ty_region region = {.length = 4 * GPU_MIB, .allocation_bytes = 4 * GPU_MIB};
	struct ty_group group = {.block_tokens = 16, .block_count = 8, .block_stride = 256 << 10, .run_bytes = 256 << 10,
		.plane_count = 2, .planes = planes};
	struct ty_pool pool = {.region_count = 1, .group_count = 1, .regions = &region, .groups = &group, .parts = 1};
	const uint32_t ids[4] = {1, 3, 4, 7};
	const struct ty_copy copy = {g.slots, ids};
	struct ty_batch batches[9], *done[9];
	struct ty_layout *layouts[2];
	struct ty_mapping *mappings[2];
	struct ty_device *dev;
	struct ty_error err = {0};

	(void)state;
	engine_alloc(&region);
	o.path = TY_PATH_STAGED;
	o.staging_bytes = 4 * GPU_MIB; /* eight slots */
	o.copy_streams = 2;
	dev = gpu_open(&o);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(ty_layout_create(&pool, i ? 64 : 16, 64 * GPU_MIB, &layouts[i], &err), TY_OK); /* chunks of one slot, of four */
		assert_int_equal(ty_device_map(dev, layouts[i], &region, &mappings[i], &err), TY_OK);
	}
	for (unsigned i = 0; i < 9; i++)
		batches[i] = (struct ty_batch){.mapping = mappings[i == 8], .direction = TY_TO_HOST, .copies = &copy, .count = 1};
	g.driver.set("ops=0");
	assert_int_equal(waits(dev, batches, 8), 8);
	assert_int_equal(waits(dev, batches + 8, 1), 1 + 4);
	g.driver.set("ops=100");
	for (uint32_t finished = 0; finished < 9;)
		finished += ty_device_poll(dev, done, 9);
	g.driver.set("ops=2");
	for (unsigned i = 0; i < 2; i++) {
		ty_device_unmap(dev, mappings[i]);
		free(layouts[i]);
	}
	gpu_close(dev);
	engine_free_all();
}

/* As many launches and copies as a batch needs, and no more: alone it is one unit, beside the other direction two. */
static void a_batch_is_few_units(void **state)
{
	struct ty_device_options o = gpu_options();
	struct ty_plane planes[16];
	struct ty_region region = {.length = 32 * GPU_MIB, .allocation_bytes = 32 * GPU_MIB};
	struct ty_group group = {.block_tokens = 16, .block_count = 8, .block_stride = 256 << 10, .run_bytes = 256 << 10,
		.plane_count = 16, .planes = planes};
	struct ty_pool pool = {.region_count = 1, .group_count = 1, .regions = &region, .groups = &group, .parts = 1};
	const uint32_t ids[4] = {1, 3, 4, 7};
	struct ty_copy copies[5];
	struct ty_batch batches[6], *done[6];
	const uint64_t launches[6] = {2, 1, 1, 3, 2, 2}; /* the first of a direction is cut once more, for its latency */
	struct ty_device *dev;
	struct ty_layout *layout;
	struct ty_mapping *mapping;
	struct ty_error err = {0};

	(void)state;
	engine_alloc(&region);
	for (uint32_t p = 0; p < 16; p++)
		planes[p] = (struct ty_plane){0, (uint64_t)p * (2 * GPU_MIB)};
	o.path = TY_PATH_STAGED;
	dev = gpu_open(&o);
	assert_int_equal(ty_layout_create(&pool, 64, 64 * GPU_MIB, &layout, &err), TY_OK); /* chunks of 16 MiB */
	assert_int_equal(ty_device_map(dev, layout, &region, &mapping, &err), TY_OK);
	assert_int_equal(ty_device_batch_limit(dev, layout), 5);
	for (uint32_t i = 0; i < 5; i++)
		copies[i] = (struct ty_copy){g.slots + i % 4 * (16 * GPU_MIB), ids};
	g.driver.set("ops=0");
	for (unsigned i = 0; i < 6; i++) {
		uint64_t before = g.driver.count("cuLaunchKernel");

		batches[i] = (struct ty_batch){.mapping = mapping, .direction = i < 3 || i == 5 ? TY_TO_HOST : TY_TO_DEVICE, .copies = copies,
			.count = 5};
		assert_int_equal(ty_device_submit(dev, &batches[i]), TY_OK);
		assert_int_equal(g.driver.count("cuLaunchKernel") - before, launches[i]);
	}
	g.driver.set("ops=100");
	for (uint32_t finished = 0; finished < 6;)
		finished += ty_device_poll(dev, done, 6);
	g.driver.set("ops=2");
	ty_device_unmap(dev, mapping);
	gpu_close(dev);
	engine_free_all();
	free(layout);
}

/* Chunks whose slots lie one behind the other go in one copy, as far as the piece of registered memory goes that they lie in. Where pieces are
 * not of one size nothing is known of where they end. */
static void slots_that_adjoin_are_one_copy(void **state)
{
	struct ty_device_options o = gpu_options();
	struct ty_plane planes[16];
	struct ty_region region = {.length = 32 * GPU_MIB, .allocation_bytes = 32 * GPU_MIB};
	struct ty_group group = {.block_tokens = 16, .block_count = 8, .block_stride = 256 << 10, .run_bytes = 256 << 10,
		.plane_count = 16, .planes = planes};
	struct ty_pool pool = {.region_count = 1, .group_count = 1, .regions = &region, .groups = &group, .parts = 1};
	const uint32_t ids[2] = {1, 6};
	struct ty_copy copies[8];
	struct ty_batch batches[4], *done[4];
	const uint64_t expected[4] = {0, 2, 0, 0}, lists[4] = {0, 0, 1, 1};
	struct ty_device *dev;
	struct ty_layout *layout;
	struct ty_mapping *mapping;
	struct ty_error err = {0};

	(void)state;
	engine_alloc(&region);
	for (uint32_t p = 0; p < 16; p++)
		planes[p] = (struct ty_plane){0, (uint64_t)p * (2 * GPU_MIB)};
	o.path = TY_PATH_STAGED;
	assert_int_equal(ty_device_open(&o, &dev, &err), TY_OK);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(ty_device_register_host(dev, g.slots + i * (32 * GPU_MIB), 32 * GPU_MIB, &err), TY_OK);
	assert_int_equal(ty_layout_create(&pool, 32, 64 * GPU_MIB, &layout, &err), TY_OK); /* chunks of 8 MiB */
	assert_int_equal(ty_device_map(dev, layout, &region, &mapping, &err), TY_OK);
	g.driver.set("ops=0");
	for (unsigned i = 0; i < 4; i++) {
		uint64_t single = g.driver.count("cuMemcpyDtoHAsync"), many = g.driver.count("cuMemcpyBatchAsync_v2");

		for (uint32_t c = 0; c < 8; c++) /* in order, but for the third's, which go down */
			copies[c] = (struct ty_copy){g.slots + (i == 2 ? 7 - c : c) * (8 * GPU_MIB), ids};
		batches[i] = (struct ty_batch){.mapping = mapping, .direction = TY_TO_HOST, .copies = copies, .count = 8};
		if (i == 3)
			assert_int_equal(ty_device_register_host(dev, g.slots + GPU_SLOT_BYTES, 4096, &err), TY_OK);
		assert_int_equal(ty_device_submit(dev, &batches[i]), TY_OK);
		if (i) { /* the first is cut, for its latency */
			assert_int_equal(g.driver.count("cuMemcpyDtoHAsync") - single, expected[i]);
			assert_int_equal(g.driver.count("cuMemcpyBatchAsync_v2") - many, lists[i]);
		}
	}
	g.driver.set("ops=100");
	for (uint32_t finished = 0; finished < 4;)
		finished += ty_device_poll(dev, done, 4);
	g.driver.set("ops=2");
	ty_device_unmap(dev, mapping);
	ty_device_unregister_host(dev, g.slots + GPU_SLOT_BYTES);
	ty_device_unregister_host(dev, g.slots + 32 * GPU_MIB);
	gpu_close(dev);
	engine_free_all();
	free(layout);
}

/* One operation alone is cut so that little of it is gathered before its first copy, or scattered after its last; with more behind
 * it, and while one direction works, a unit is as large as it may be. */
static void one_alone_is_cut(void **state)
{
	struct ty_device_options o = gpu_options();
	struct ty_plane planes[16];
	struct ty_region region = {.length = 32 * GPU_MIB, .allocation_bytes = 32 * GPU_MIB};
	struct ty_group group = {.block_tokens = 16, .block_count = 8, .block_stride = 256 << 10, .run_bytes = 256 << 10,
		.plane_count = 16, .planes = planes};
	struct ty_pool pool = {.region_count = 1, .group_count = 1, .regions = &region, .groups = &group, .parts = 1};
	const uint32_t ids[4] = {1, 3, 4, 7};
	const struct ty_copy copy = {g.slots, ids};
	struct ty_batch batches[3], *done[3];
	struct ty_device *dev;
	struct ty_layout *layout;
	struct ty_mapping *mapping;
	struct ty_error err = {0};
	const uint64_t expected[2] = {2, 2};

	(void)state;
	engine_alloc(&region);
	for (uint32_t p = 0; p < 16; p++)
		planes[p] = (struct ty_plane){0, (uint64_t)p * (2 * GPU_MIB)};
	o.path = TY_PATH_STAGED;
	dev = gpu_open(&o);
	assert_int_equal(ty_layout_create(&pool, 64, 64 * GPU_MIB, &layout, &err), TY_OK); /* chunks of 16 MiB */
	assert_int_equal(ty_device_map(dev, layout, &region, &mapping, &err), TY_OK);
	for (unsigned d = 0; d < 2; d++) {
		uint64_t launches = g.driver.count("cuLaunchKernel");

		batches[0] = (struct ty_batch){.mapping = mapping, .direction = (enum ty_direction)d, .copies = &copy, .count = 1};
		assert_int_equal(ty_device_submit(dev, &batches[0]), TY_OK);
		while (!ty_device_poll(dev, done, 3))
			;
		assert_int_equal(g.driver.count("cuLaunchKernel") - launches, expected[d]);
	}
	g.driver.set("ops=0");
	for (unsigned i = 0; i < 3; i++) {
		uint64_t launches = g.driver.count("cuLaunchKernel");

		batches[i] = (struct ty_batch){.mapping = mapping, .direction = TY_TO_HOST, .copies = &copy, .count = 1};
		assert_int_equal(ty_device_submit(dev, &batches[i]), TY_OK);
		assert_int_equal(g.driver.count("cuLaunchKernel") - launches, i ? 1 : 2);
	}
	g.driver.set("ops=100");
	for (uint32_t finished = 0; finished < 3;)
		finished += ty_device_poll(dev, done, 3);
	g.driver.set("ops=2");
	ty_device_unmap(dev, mapping);
	gpu_close(dev);
	engine_free_all();
	free(layout);
}

#define ALLOCATIONS 64
#define RUN (64u << 10)

/* Two allocations of which one begins where the other ends: [0] is the upper one. */
static void allocate_neighbours(struct ty_cuda_client *c, uint64_t all[ALLOCATIONS], uint64_t out[2])
{
	struct ty_region region;
	struct ty_error err = {0};

	out[0] = out[1] = 0;
	for (unsigned i = 0; i < ALLOCATIONS; i++)
		assert_int_equal(ty_cuda_client_alloc(c, 2 * GPU_MIB, &all[i], &region, &err), TY_OK);
	for (unsigned i = 0; i < ALLOCATIONS; i++)
		for (unsigned j = 0; j < ALLOCATIONS; j++)
			if (all[i] == all[j] + 2 * GPU_MIB) {
				out[0] = all[i];
				out[1] = all[j];
			}
	assert_true(out[0]);
}

/* A block's last run and the next block's first one lie side by side in memory, but in two allocations: they are two copies, for the driver
 * takes none that crosses from one to the other. */
static void allocations_are_not_joined(void **state)
{
	static const enum ty_path ways[] = {TY_PATH_DIRECT, TY_PATH_BATCH, TY_PATH_STRIDED};
	struct ty_device_options o = gpu_options();
	struct ty_plane planes[2] = {{0, 0}, {1, 0}};
	struct ty_region regions[2];
	struct ty_group group = {.block_tokens = 16, .block_count = 2 * GPU_MIB / RUN, .block_stride = RUN, .run_bytes = RUN, .plane_count = 2,
		.planes = planes};
	struct ty_pool pool = {.region_count = 2, .group_count = 1, .regions = regions, .groups = &group, .parts = 1, .owner = {1}};
	const uint32_t ids[2] = {group.block_count - 1, 0};
	uint64_t all[ALLOCATIONS], base[2];
	struct ty_batch *done[1];
	struct ty_cuda_client *c;
	struct ty_layout *layout;
	struct ty_error err = {0};

	(void)state;
	assert_int_equal(ty_cuda_client_open(g.driver.path, 0, &c, &err), TY_OK);
	allocate_neighbours(c, all, base);
	for (unsigned i = 0; i < 2; i++)
		regions[i] = (struct ty_region){.address = base[i], .allocation_bytes = 2 * GPU_MIB, .length = 2 * GPU_MIB};
	assert_int_equal(ty_layout_create(&pool, 32, 64 * GPU_MIB, &layout, &err), TY_OK);
	for (unsigned w = 0; w < sizeof ways / sizeof ways[0]; w++) {
		struct ty_copy copy = {g.slots, ids};
		struct ty_batch batch = {.direction = TY_TO_HOST, .copies = &copy, .count = 1};
		struct ty_device *dev;

		o.path = ways[w];
		dev = gpu_open(&o);
		assert_int_equal(ty_device_map(dev, layout, regions, &batch.mapping, &err), TY_OK);
		for (unsigned b = 0; b < 2; b++)
			for (unsigned p = 0; p < 2; p++)
				memset((uint8_t *)(uintptr_t)base[p] + (uint64_t)ids[b] * RUN, (int)(1 + 2 * b + p), RUN);
		assert_int_equal(ty_device_submit(dev, &batch), TY_OK);
		while (!ty_device_poll(dev, done, 1))
			;
		assert_int_equal(batch.code, TY_OK);
		for (unsigned i = 0; i < 4; i++) {
			assert_int_equal(g.slots[i * RUN], 1 + i);
			assert_int_equal(g.slots[(i + 1) * RUN - 1], 1 + i);
		}
		ty_device_unmap(dev, batch.mapping);
		ty_device_unregister_host(dev, g.slots);
		ty_device_close(dev);
	}
	for (unsigned i = 0; i < ALLOCATIONS; i++)
		ty_cuda_client_free(c, all[i]);
	ty_cuda_client_close(c);
	free(layout);
}

#define STREAM_MOST 800 /* operations: with a few more a call was seen to wait until nearly all of them were through */

/* However much is submitted while nothing runs: what lies in a stream is bounded for every way. Later all of it goes. */
static void queues_are_bounded(void **state)
{
	static const enum ty_path ways[] = {TY_PATH_STAGED, TY_PATH_DIRECT, TY_PATH_BATCH, TY_PATH_STRIDED};
	static struct ty_batch batches[65], *done[64];
	static struct ty_copy copies[64];
	struct ty_device_options o = gpu_options();
	uint32_t ids[4] = {0, 1, 2, 3};
	struct test_trip t;

	(void)state;
	for (unsigned w = 0; w < sizeof ways / sizeof ways[0]; w++) {
		uint32_t finished = 0;

		o.path = ways[w];
		gpu_set_up(&t, o.path == TY_PATH_STRIDED ? 0 : 15, &o); /* six planes, two by two at a pitch; 80, apart from each other */
		g.driver.set("ops=0");
		for (unsigned i = 0; i < 65; i++) {
			copies[i % 64] = (struct ty_copy){g.slots + (i % 64) * t.layout->chunk_bytes, ids};
			batches[i] = (struct ty_batch){.mapping = t.mapping, .copies = &copies[i % 64], .count = 1};
			assert_int_equal(ty_device_submit(t.dev, &batches[i]), i < 64 ? TY_OK : TY_BUSY);
			assert_int_equal(ty_device_poll(t.dev, done, 64), 0);
		}
		assert_in_range(g.driver.queued(), 1, STREAM_MOST);
		g.driver.set("ops=1000");
		while (finished < 64) {
			uint32_t n = ty_device_poll(t.dev, done, 64);

			for (uint32_t i = 0; i < n; i++)
				assert_int_equal(done[i]->code, TY_OK);
			finished += n;
		}
		g.driver.set("ops=2");
		gpu_tear_down(&t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(work_is_joined),
		cmocka_unit_test(slots_are_shared),
		cmocka_unit_test(each_end_is_awaited),
		cmocka_unit_test(a_batch_is_few_units),
		cmocka_unit_test(slots_that_adjoin_are_one_copy),
		cmocka_unit_test(one_alone_is_cut),
		cmocka_unit_test(allocations_are_not_joined),
		cmocka_unit_test(queues_are_bounded),
	};

	return cmocka_run_group_tests_name("CUDA, units", tests, gpu_prepare, gpu_finish);
}
