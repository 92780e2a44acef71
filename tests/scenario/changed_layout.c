/* SPDX-License-Identifier: Apache-2.0
 *
 * An engine comes back with another layout under the same name, model and prompt: it must miss, and never get bytes that were laid out
 * otherwise (LMCache 4492, 4247: wrong text, HTTP 200, nothing logged). With the layout of before it finds what it had. One that stays, and
 * only changes its pools, has no session any more that leases what was laid out otherwise.
 * END_SESSION while operations of the session run: they end well, and what they held is given back.
 */
#include "harness.h"
#include "actors/service.h"

#include <poll.h>
#include <string.h>

static struct h_service service;

/* It has left, and its memory is its own: whoever comes next under its name may be another. */
static void leave(struct h_client *c)
{
	h_close(c);
	while (atomic_load(&service.service->gpu_stats[0].mappings) != 0)
		poll(NULL, 0, 1);
}

static void store_as(struct h_client *c, uint32_t hits)
{
	assert_int_equal(h_lookup(c, 1, 100, 4), TY_OK);
	assert_int_equal(c->last.lookup.hits, hits);
	h_fill(c, 100, 4, 0);
	assert_int_equal(h_store(c, 1, 0, 4, 0), TY_OK);
	assert_int_equal(h_end(c, 1), TY_OK);
}

/* Half the planes of twice the run. In `parts` such shares. */
static void register_folded(struct h_client *c, uint32_t parts)
{
	struct ty_pool *pool = h_pool(c, 0, parts);
	struct ty_group group = pool->groups[0];
	struct ty_plane planes[H_PLANES];

	group.run_bytes *= 2;
	group.block_stride *= 2;
	group.plane_count /= 2;
	for (uint32_t i = 0; i < group.plane_count; i++)
		planes[i] = (struct ty_plane){0, (uint64_t)i * H_BLOCKS * H_RUN * 2};
	group.planes = planes;
	pool->groups = &group;
	assert_int_equal(h_wait(c, ty_client_register(c->client, pool, h_done, c, &c->refused)), TY_OK);
	c->registration = c->last.registered.registration;
}

/* Pools are changed while a session leases chunks: the lease is none of the new pool's, whose chunks have other bytes and parts. */
static void test_changed_while_leased(void **state)
{
	struct h_client c;

	(void)state;
	h_open(&service, &c, NULL, "changed", 0, 1);
	store_as(&c, 0);
	assert_int_equal(h_lookup(&c, 1, 100, 4), TY_OK);
	assert_int_equal(c.last.lookup.hits, 4);
	assert_int_equal(h_wait(&c, ty_client_unregister(c.client, c.registration, h_done, &c, &c.refused)), TY_OK);
	assert_int_equal(h_lookup(&c, 2, 100, 4), TY_OK); /* it has no pool, and its layout is still that of before */
	assert_int_equal(c.last.lookup.hits, 4);
	register_folded(&c, 2);
	assert_int_equal(h_retrieve(&c, 1, 0, 4, 0), TY_UNKNOWN_SESSION);
	h_idle(&service, true);
	assert_int_equal(h_lookup(&c, 1, 100, 4), TY_OK);
	assert_int_equal(c.last.lookup.hits, 0);
	h_close(&c);
}

static void test_layout(void **state)
{
	static const uint8_t engine[16] = {9};
	struct ty_pool *pool;
	struct h_client c;

	(void)state;
	h_open(&service, &c, engine, "same", 0, 1);
	store_as(&c, 0);
	leave(&c);

	/* the same bytes, in half the planes of twice the run: the incumbent's key would have been the same */
	h_open(&service, &c, engine, "same", 0, 0);
	register_folded(&c, 1);
	assert_int_equal(c.last.registered.chunk_bytes, H_CHUNK_BYTES);
	assert_int_equal(h_lookup(&c, 1, 100, 4), TY_OK);
	assert_int_equal(c.last.lookup.hits, 0);
	leave(&c);

	/* another order inside of a run is another layout too */
	h_open(&service, &c, engine, "same", 0, 0);
	pool = h_pool(&c, 0, 1);
	pool->format = "other";
	assert_int_equal(h_wait(&c, ty_client_register(c.client, pool, h_done, &c, &c.refused)), TY_OK);
	assert_int_equal(h_lookup(&c, 1, 100, 4), TY_OK);
	assert_int_equal(c.last.lookup.hits, 0);
	leave(&c);

	h_open(&service, &c, engine, "same", 0, 1);
	store_as(&c, 4);
	h_close(&c);
}

static void test_end_session(void **state)
{
	static const uint32_t ids[4 * H_PER_CHUNK] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, *const lists[1] = {ids};
	static const uint32_t count = 4 * H_PER_CHUNK;
	struct ty_transfer t = {.session = 2, .count = 4, .blocks = lists, .block_counts = &count, .group_count = 1, .ready = {3, 0}};
	struct h_client c, retrieved = {0};

	(void)state;
	h_open(&service, &c, NULL, "ended", 0, 1);
	store_as(&c, 0);
	t.registration = c.registration;
	for (uint32_t round = 1; round <= 20; round++) {
		assert_int_equal(h_lookup(&c, 2, 100, 4), TY_OK);
		assert_int_equal(c.last.lookup.hits, 4);
		h_wipe(&c, 4, 0);
		t.ready.value = round; /* it waits, its pins are its own */
		retrieved.last.code = TY_INTERNAL;
		assert_int_equal(ty_client_retrieve(c.client, &t, h_done, &retrieved, &c.refused), TY_OK);
		assert_int_equal(h_end(&c, 2), TY_OK);
		assert_int_equal(c.last.end_session.released, 4);
		assert_int_equal(retrieved.last.code, TY_INTERNAL);
		ty_client_raise(c.client, t.ready);
		while (retrieved.last.code == TY_INTERNAL)
			ty_client_poll(c.client, 0, 100000);
		assert_int_equal(retrieved.last.code, TY_OK);
		assert_int_equal(h_wrong(&c, 100, 4, 0), 0);
	}
	h_idle(&service, true);
	h_close(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		H_TEST(test_layout),
		H_TEST(test_changed_while_leased),
		H_TEST(test_end_session),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
