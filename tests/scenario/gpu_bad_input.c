/* SPDX-License-Identifier: Apache-2.0
 *
 * What clients and machines get wrong about a GPU, in the whole service over the stand-in driver: each is refused by name, or done
 * without, nothing of it reaches the driver that should not, and nobody else notices.
 */
#include "gpu_house.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "actors/service.h"

static struct g_house house;

static enum ty_code try_register(struct h_client *c, const struct ty_pool *pool)
{
	return h_wait(c, ty_client_register(c->client, pool, h_done, c, &c->refused));
}

static enum ty_code retrieve(struct h_client *c, const struct ty_transfer *t)
{
	return h_wait(c, ty_client_retrieve(c->client, t, h_done, c, &c->refused));
}

static enum ty_code store(struct h_client *c, const struct ty_transfer *t)
{
	return h_wait(c, ty_client_store(c->client, t, h_done, c, &c->refused));
}

static enum ty_code flush(struct h_client *c, const struct ty_transfer *t)
{
	return h_wait(c, ty_client_flush(c->client, c->registration, t->blocks, t->block_counts, t->group_count, h_done, c, &c->refused));
}

/* Work that the driver was given. */
static uint64_t queued(void)
{
	static const char *const names[] = {"cuLaunchKernel", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuMemcpy2DAsync",
		"cuMemcpyBatchAsync", "cuMemcpyBatchAsync_v2"};
	uint64_t sum = 0;

	for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
		sum += house.driver.count(names[i]);
	return sum;
}

/* Chunks base, ... are stored, and come back into other blocks. */
static void round_trip(struct h_client *c, uint32_t base)
{
	struct ty_transfer t;

	g_store(c, base, 4);
	t = h_transfer(c, 1, 0, 4, 64);
	h_wipe(c, 4, 64);
	h_ok(c, retrieve(c, &t));
	assert_int_equal(h_wrong(c, base, 4, 64), 0);
}

static void open_and_register(struct h_client *c)
{
	g_open(&house, c, 0);
	h_ok(c, g_register(c));
}

/* ---- block ids ------------------------------------------------------------------------------------------------ */

static void test_ids_past_the_pool(void **state)
{
	static const uint32_t wrong[] = {H_BLOCKS, H_BLOCKS + 1, 0x80000000u, TY_BLOCK_SKIP - 1};
	struct ty_transfer t;
	struct h_client c;
	uint64_t before;

	(void)state;
	open_and_register(&c);
	g_store(&c, 100, 4);
	before = queued();
	for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		t = h_transfer(&c, 1, 0, 4, 0);
		g_ids(&t)[15] = wrong[i];
		h_expect(&c, retrieve(&c, &t), TY_INVALID, "at block 3 of chunk 3, expected less than 256 or the skip id");
		assert_false(c.last.blocks_in_use);
		h_expect(&c, store(&c, &t), TY_INVALID, "at block 3 of chunk 3, expected less than 256");
		assert_false(c.last.blocks_in_use);
		h_expect(&c, flush(&c, &t), TY_INVALID, "the pool has 256 blocks");
	}
	t = h_transfer(&c, 1, 0, 4, 0);
	g_ids(&t)[15] = TY_BLOCK_SKIP; /* there is nothing to store in it */
	h_expect(&c, store(&c, &t), TY_INVALID, "expected less than 256");
	assert_int_equal(queued(), before);
	round_trip(&c, 200);
	g_close(&c);
}

static void test_overlapping_destinations(void **state)
{
	struct ty_plane planes[H_PLANES];
	struct ty_group group;
	struct ty_pool *pool;
	struct ty_transfer t;
	struct h_client c;
	uint64_t before, opened;

	(void)state;
	g_open(&house, &c, 0);
	pool = g_pool(&c);
	group = pool->groups[0];
	memcpy(planes, group.planes, sizeof planes);
	planes[2].offset = planes[1].offset + 16; /* planes that overlap: each block would be two blocks' */
	group.planes = planes;
	pool->groups = &group;
	opened = house.driver.count("cuIpcOpenMemHandle");
	h_expect(&c, try_register(&c, pool), TY_INVALID, "groups[0].planes[1] and groups[0].planes[2]: their runs overlap");
	assert_int_equal(house.driver.count("cuIpcOpenMemHandle"), opened);

	h_ok(&c, g_register(&c));
	g_store(&c, 300, 4);
	before = queued();
	t = h_transfer(&c, 1, 0, 4, 0);
	g_ids(&t)[13] = g_ids(&t)[2]; /* of another chunk */
	h_expect(&c, retrieve(&c, &t), TY_INVALID, "id 2 occurs twice");
	assert_false(c.last.blocks_in_use);
	assert_int_equal(queued(), before);
	h_ok(&c, store(&c, &t)); /* reading a block twice harms nobody */
	round_trip(&c, 400);
	g_close(&c);
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

/* Neither binds what was refused the engine to its layout, nor the device to anything. */
static void test_no_handle(void **state)
{
	struct ty_segment segment = {-1, 2u << 20};
	struct ty_region region;
	struct ty_group group;
	struct ty_pool *pool;
	struct h_client c;
	int other = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)state;
	g_open(&house, &c, 0);
	pool = g_pool(&c);
	region = pool->regions[0];
	group = pool->groups[0];
	group.run_bytes /= 2;
	pool->regions = &region;
	pool->groups = &group;
	for (unsigned unknown = 0; unknown < 2; unknown++) { /* whatever the driver says to it */
		house.driver.set(unknown ? "unknown=1" : "unknown=0");
		memset(region.ipc_handle, 0x33, sizeof region.ipc_handle);
		h_expect(&c, try_register(&c, pool), TY_INVALID, "regions[0].ipc_handle: the driver does not open it on cuda:0");
		memset(region.ipc_handle, 0, sizeof region.ipc_handle);
		h_expect(&c, try_register(&c, pool), TY_INVALID, "regions[0].ipc_handle: the driver does not open it on cuda:0");
		region.segments = &segment;
		region.segment_count = 1;
		segment.fd = other; /* a descriptor, and nothing that a driver exported */
		h_expect(&c, try_register(&c, pool), TY_INVALID, "regions[0].segments[0]: cuMemImportFromShareableHandle does not take it");
		region.segment_count = 0;
		region.is_fd = true;
		region.fd = other;
		h_expect(&c, try_register(&c, pool), TY_INVALID, "regions[0].segments[0]: cuMemImportFromShareableHandle does not take it");
		region.is_fd = false;
	}
	house.driver.set("unknown=0");
	close(other);
	assert_int_equal(atomic_load(&house.service.service->gpu_stats[0].state), TY_GPU_SERVING);
	assert_int_equal(atomic_load(&house.service.service->gpu_stats[0].mappings), 0);
	h_ok(&c, g_register(&c)); /* with another layout */
	round_trip(&c, 500);
	g_close(&c);
}

static void test_small_allocation(void **state)
{
	struct ty_region region, good;
	struct ty_pool *pool;
	struct h_client c;

	(void)state;
	g_open(&house, &c, 0);
	pool = g_pool(&c);
	good = region = pool->regions[0];
	pool->regions = &region;
	/* than it is said to be */
	region.allocation_bytes = region.length = 2 * good.allocation_bytes;
	h_expect(&c, try_register(&c, pool), TY_INVALID, "regions[0].allocation_bytes: 4194304, but the allocation has 2097152");
	/* than its layout needs */
	region = good;
	region.length = H_POOL_BYTES - 16;
	h_expect(&c, try_register(&c, pool), TY_INVALID, "groups[0].planes[3]");
	region = good;
	region.offset = good.allocation_bytes - H_POOL_BYTES + 16;
	h_expect(&c, try_register(&c, pool), TY_INVALID, "regions[0]: offset 1048592 + length 1048576 passes allocation_bytes 2097152");
	h_ok(&c, g_register(&c));
	round_trip(&c, 600);
	g_close(&c);
}

static void test_device_of_nobody(void **state)
{
	struct ty_pool *pool;
	struct h_client c;

	(void)state;
	g_open(&house, &c, 0);
	pool = g_pool(&c);
	pool->device[3] ^= 1;
	h_expect(&c, try_register(&c, pool), TY_NO_DEVICE, "cuda:0 GPU-5a5a5a5a");
	h_ok(&c, g_register(&c));
	g_close(&c);
}

/* ---- two layouts on one GPU -------------------------------------------------------------------------------------- */

static void test_two_layouts(void **state)
{
	struct ty_group group;
	struct ty_pool *pool;
	struct ty_transfer t;
	struct h_client a, b;

	(void)state;
	open_and_register(&a);
	g_store(&a, 2000, 4);
	g_open(&house, &b, 0);
	pool = g_pool(&b);
	group = pool->groups[0];
	group.run_bytes /= 2;
	pool->groups = &group;
	h_ok(&b, try_register(&b, pool));
	assert_int_equal(b.last.registered.chunk_bytes, H_CHUNK_BYTES / 2);
	b.registration = b.last.registered.registration;
	h_ok(&b, h_lookup(&b, 1, 2000, 4));
	assert_int_equal(b.last.lookup.hits, 0); /* neither sees the other's chunks */
	h_ok(&b, h_store(&b, 1, 0, 4, 0));
	t = h_transfer(&a, 1, 0, 4, 64);
	h_wipe(&a, 4, 64);
	h_ok(&a, retrieve(&a, &t));
	assert_int_equal(h_wrong(&a, 2000, 4, 64), 0);
	g_close(&b);
	round_trip(&a, 2100);
	g_close(&a);
}

/* ---- what a driver, or the GPU, has not --------------------------------------------------------------------------- */

static void test_no_batch_copy(void **state)
{
	uint64_t batches = house.driver.count("cuMemcpyBatchAsync") + house.driver.count("cuMemcpyBatchAsync_v2");
	struct h_client c;

	(void)state;
	house.driver.set("missing=cuMemcpyBatchAsync");
	g_start(&house, 1);
	open_and_register(&c);
	round_trip(&c, 4000);
	g_close(&c);
	g_stop(&house);
	house.driver.set("missing=");
	assert_int_equal(house.driver.count("cuMemcpyBatchAsync") + house.driver.count("cuMemcpyBatchAsync_v2"), batches);
}

/* As much as there is, down to 4 MiB; then the device is refused, in words, and the others serve. */
static void test_scarce_staging(void **state)
{
	const struct ty_gpu_stats *stats;
	struct ty_pool *pool;
	struct h_client c;

	(void)state;
	house.driver.set("memory=40000000");
	g_start(&house, 1);
	stats = house.service.service->gpu_stats;
	open_and_register(&c);
	assert_non_null(strstr(stats[0].note, "staging has 20971520 bytes: 167772160 could not be had"));
	round_trip(&c, 4100);
	g_close(&c);
	g_stop(&house);

	house.driver.set("memory=4194304"); /* none but the least: and with a plane table beside it there is one less */
	g_start(&house, 1);
	stats = house.service.service->gpu_stats;
	g_open(&house, &c, 0);
	assert_non_null(strstr(stats[0].note, "staging has 4194304 bytes"));
	h_expect(&c, g_register(&c), TY_NO_MEMORY, "GPU memory for the plane table");
	g_close(&c);
	g_stop(&house);

	house.driver.set("memory=4194303");
	g_prepare_service(&house, 1);
	snprintf(house.service.config.device[1], sizeof house.service.config.device[1], "host");
	house.service.config.device_count = 2;
	h_start(&house.service);
	stats = house.service.service->gpu_stats;
	h_open(&house.service, &c, NULL, "a", 0, 1); /* on the host device, which has no UUID, as little as one that never opened */
	assert_int_equal(atomic_load(&stats[0].state), TY_GPU_FAILED);
	assert_non_null(strstr(stats[0].note, "staging: 167772160 bytes of GPU memory cannot be had, nor 4194304"));
	round_trip(&c, 4200);
	pool = h_pool(&c, 0, 1);
	memset(pool->device, 0x5a, sizeof pool->device);
	h_expect(&c, try_register(&c, pool), TY_NO_DEVICE, "cuda:0, which failed (staging: 167772160 bytes");
	h_close(&c);
	g_stop(&house);
	house.driver.set("memory=4294967296");
}

/* ---- a ready word that never comes -------------------------------------------------------------------------------- */

static void test_ready_never_comes(void **state)
{
	struct ty_transfer t;
	struct h_client c;
	uint64_t before;

	(void)state;
	open_and_register(&c);
	g_store(&c, 5000, 4);
	h_ok(&c, h_lookup(&c, 2, 5050, 4));
	before = queued();
	assert_int_equal(ty_client_set_timeout(c.client, 500000, &c.refused), TY_OK);
	t = h_transfer(&c, 1, 0, 4, 64);
	t.ready = (struct ty_mark){9, 1};
	t.done = (struct ty_mark){10, 1};
	h_expect(&c, retrieve(&c, &t), TY_TIMEOUT, "its ready word has not come");
	assert_false(c.last.blocks_in_use); /* no copy began, and none will */
	t.session = 2;
	h_expect(&c, store(&c, &t), TY_TIMEOUT, "its ready word has not come");
	assert_false(c.last.blocks_in_use);
	t.session = 1;
	ty_client_raise(c.client, t.ready); /* too late */
	h_ok(&c, flush(&c, &t));
	h_idle(&house.service, false);
	assert_int_equal(queued(), before);

	/* it came, and the copies hang: then the blocks are not safe, until FLUSH says so */
	house.driver.set("ops=0");
	for (uint32_t timeout_us = 250000; !c.last.blocks_in_use; timeout_us *= 2) { /* until one began in time */
		assert_int_equal(ty_client_set_timeout(c.client, timeout_us, &c.refused), TY_OK);
		assert_int_not_equal(retrieve(&c, &t), TY_OK);
	}
	h_expect(&c, c.last.code, TY_TIMEOUT, "a copy may still touch its blocks");
	h_expect(&c, flush(&c, &t), TY_TIMEOUT, "1 operations may still touch the blocks");
	house.driver.set("ops=4");
	assert_int_equal(ty_client_set_timeout(c.client, 0, &c.refused), TY_OK);
	h_ok(&c, flush(&c, &t));
	assert_int_equal(h_wrong(&c, 5000, 4, 64), 0); /* it was over, whatever its answer was */
	round_trip(&c, 5100);
	g_close(&c);
}

/* ---- UNREGISTER ------------------------------------------------------------------------------------------------------ */

/* While one retrieve is under way, and another waits for its ready word: it waits for both, and then everything is closed. */
static void test_unregister_in_flight(void **state)
{
	struct h_client c, other, waits;
	struct ty_transfer t;

	(void)state;
	open_and_register(&c);
	g_store(&c, 3000, 2);
	house.driver.set("ops=0"); /* nothing that is queued runs */
	t = h_transfer(&c, 1, 0, 2, 64);
	h_send(&other, ty_client_retrieve(c.client, &t, h_done, &other, &c.refused));
	t = h_transfer(&c, 1, 0, 2, 128);
	t.ready = (struct ty_mark){3, 1};
	h_send(&waits, ty_client_retrieve(c.client, &t, h_done, &waits, &c.refused));
	h_send(&c, ty_client_unregister(c.client, c.registration, h_done, &c, &c.refused));
	for (int i = 0; i < 20; i++)
		ty_client_poll(c.client, 0, 1000);
	assert_false(h_answered(&c));
	assert_false(h_answered(&other));
	assert_int_equal(atomic_load(&house.service.service->gpu_stats[0].mappings), 1);
	house.driver.set("ops=4");
	other.client = waits.client = c.client;
	h_ok(&other, h_answer(&other));
	for (int i = 0; i < 20; i++)
		ty_client_poll(c.client, 0, 1000);
	assert_false(h_answered(&c) || h_answered(&waits));
	assert_int_equal(atomic_load(&house.service.service->gpu_stats[0].mappings), 1);
	ty_client_raise(c.client, t.ready);
	h_ok(&c, h_answer(&c));
	assert_true(h_answered(&waits)); /* first */
	h_ok(&waits, waits.last.code);
	assert_int_equal(atomic_load(&house.service.service->gpu_stats[0].mappings), 0);
	assert_int_equal(h_wrong(&c, 3000, 2, 64) + h_wrong(&c, 3000, 2, 128), 0);
	g_close(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		G_TEST(test_ids_past_the_pool),
		G_TEST(test_no_handle),
		G_TEST(test_small_allocation),
		G_TEST(test_device_of_nobody),
		G_TEST(test_overlapping_destinations),
		G_TEST(test_two_layouts),
		cmocka_unit_test(test_no_batch_copy),
		cmocka_unit_test(test_scarce_staging),
		G_TEST(test_ready_never_comes),
		G_TEST(test_unregister_in_flight),
	};
	int failed;

	g_prepare(&house);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	g_finish();
	return failed;
}
