/* SPDX-License-Identifier: Apache-2.0
 *
 * An arena full of chunks of one size, none of them in use, when chunks of another size come (LMCache issue 5290: at 64 % use
 * a load found no room in one piece, and was dropped). Room is made; nothing is dropped while anything may be evicted.
 */
#include "harness.h"

#include <string.h>

#define FULL 60u

static struct h_service service;

/* An engine whose runs are so many times as long. */
static void open_engine(struct h_client *c, uint32_t times)
{
	struct ty_pool *pool;
	struct ty_group group;

	h_open(&service, c, NULL, "a", 0, 0);
	pool = h_pool(c, 0, 1);
	group = pool->groups[0];
	group.run_bytes = H_RUN * times;
	group.block_stride = group.run_bytes;
	group.block_count = H_BLOCKS / times; /* a plane takes as much room as before */
	pool->groups = &group;
	h_ok(c, h_wait(c, ty_client_register(c->client, pool, h_done, c, &c->refused)));
	assert_int_equal(c->last.registered.chunk_bytes, H_CHUNK_BYTES * times);
	c->registration = c->last.registered.registration;
}

/* Prompts of `count` chunks, until the arena was filled twice: each is there as soon as it is stored, all of it. */
static void fill_twice(struct h_client *c, uint32_t base, uint32_t count, uint32_t times)
{
	uint64_t prompts = 2 * service.config.l1_size / (H_CHUNK_BYTES * times * count);

	for (uint32_t i = 0; i < prompts; i++, base += count) {
		h_ok(c, h_lookup(c, 1, base, count));
		assert_int_equal(c->last.lookup.hits, 0);
		h_ok(c, h_store(c, 1, 0, count, 0));
		assert_int_equal(c->last.store.dropped, 0);
		assert_int_equal(c->last.store.stored, count);
		h_ok(c, h_lookup(c, 1, base, count));
		assert_int_equal(c->last.lookup.hits, count);
		h_ok(c, h_end(c, 1));
	}
}

static void test_another_size_finds_room(void **state)
{
	struct h_client c;

	(void)state;
	for (uint32_t times = 1; times <= 8; times *= 2) {
		open_engine(&c, times);
		fill_twice(&c, times * 1000000, FULL / times, times);
		h_close(&c);
	}
	open_engine(&c, 1); /* and back */
	fill_twice(&c, 500000, FULL, 1);
	h_close(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		H_TEST(test_another_size_finds_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
