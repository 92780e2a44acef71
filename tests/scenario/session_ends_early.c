/* SPDX-License-Identifier: Apache-2.0
 *
 * END_SESSION while the session's operations run (LMCache 5263: a load went on into a buffer that was given away meanwhile; 35931:
 * locks of an aborted request were never freed). The operations end as they would have, on what they hold themselves; the lease
 * goes at once, and nothing stays.
 */
#include "harness.h"
#include "actors/service.h"
#include "cache/policy.h"

static struct h_service service;

static int setup(void **state)
{
	(void)state;
	h_prepare_held(&service);
	service.config.l1_size = TY_PIECE_BYTES;
	while (ty_policies[service.config.policy] != ty_policy_find("lru")) /* what nobody holds and uses goes */
		service.config.policy++;
	h_start(&service);
	return 0;
}

static uint64_t leases(void)
{
	return atomic_load(&service.service->lookup_stats.leases);
}

/* More than the arena takes, so that whatever may be evicted is. */
static void crowd(struct h_client *c)
{
	for (uint32_t i = 0, most = (uint32_t)(2 * TY_PIECE_BYTES / H_CHUNK_BYTES) / 32; i < most; i++) {
		h_ok(c, h_lookup(c, 9, 50000 + i * 32, 32));
		h_fill(c, 50000 + i * 32, 32, 128);
		h_ok(c, h_store(c, 9, 0, 32, 128));
		h_ok(c, h_end(c, 9));
	}
}

static void test_end_under_way(void **state)
{
	struct h_client c, store, retrieve, other;
	struct ty_transfer t;

	(void)state;
	h_open(&service, &c, NULL, "a", 0, 1);
	h_open(&service, &other, NULL, "a", 0, 1);
	h_ok(&c, h_lookup(&c, 1, 100, 8));
	h_fill(&c, 100, 8, 0);
	h_ok(&c, h_store(&c, 1, 0, 8, 0));
	h_ok(&c, h_lookup(&c, 1, 100, 16));
	assert_int_equal(c.last.lookup.hits, 8);
	assert_int_equal(leases(), 8);

	/* a retrieve of what is there and a store of what is not, both of them held up, and the session ends */
	h_wipe(&c, 8, 64);
	h_fill(&c, 108, 8, 0);
	*service.hold = H_HOLD_ALL;
	store = retrieve = c;
	t = h_transfer(&c, 1, 0, 8, 64);
	h_send(&retrieve, ty_client_retrieve(c.client, &t, h_done, &retrieve, &retrieve.refused));
	t = h_transfer(&c, 1, 8, 8, 0);
	h_send(&store, ty_client_store(c.client, &t, h_done, &store, &store.refused));
	h_ok(&c, h_end(&c, 1));
	assert_int_equal(c.last.end_session.released, 8);
	while (leases())
		ty_client_poll(c.client, 0, 1000);
	assert_false(h_answered(&store) || h_answered(&retrieve));
	assert_int_equal(h_end(&c, 1), TY_UNKNOWN_SESSION);

	*service.hold = H_GO;
	h_ok(&retrieve, h_answer(&retrieve));
	assert_int_equal(h_wrong(&c, 100, 8, 64), 0);
	h_ok(&store, h_answer(&store));
	assert_int_equal(store.last.store.stored, 8);
	h_ok(&other, h_lookup(&other, 1, 100, 16));
	assert_int_equal(other.last.lookup.hits, 16);
	h_ok(&other, h_retrieve(&other, 1, 0, 16, 0));
	assert_int_equal(h_wrong(&other, 100, 16, 0), 0);
	h_ok(&other, h_end(&other, 1));

	/* nothing of it holds anything any more: all of the arena may be had */
	crowd(&other);
	h_idle(&service, true);
	h_ok(&other, h_lookup(&other, 1, 100, 16));
	assert_int_equal(other.last.lookup.hits, 0);
	h_close(&other);
	h_close(&c);
}

/* The same number is opened anew at once: the new session has nothing of the old one's, and the old one's retrieve is not of it. */
static void test_end_and_begin(void **state)
{
	struct h_client c, retrieve;
	struct ty_transfer t;

	(void)state;
	h_open(&service, &c, NULL, "a", 0, 1);
	h_ok(&c, h_lookup(&c, 1, 100, 8));
	h_fill(&c, 100, 8, 0);
	h_ok(&c, h_store(&c, 1, 0, 8, 0));
	for (uint32_t round = 0; round < 20; round++) {
		h_ok(&c, h_lookup(&c, 1, 100, 8));
		assert_int_equal(c.last.lookup.hits, 8);
		h_wipe(&c, 8, 64);
		*service.hold = H_HOLD_ALL;
		retrieve = c;
		t = h_transfer(&c, 1, 0, 8, 64);
		h_send(&retrieve, ty_client_retrieve(c.client, &t, h_done, &retrieve, &retrieve.refused));
		h_ok(&c, h_end(&c, 1));
		h_ok(&c, h_lookup(&c, 1, 7000, 8));
		assert_int_equal(c.last.lookup.hits, 0);
		assert_int_equal(h_retrieve(&c, 1, 0, 8, 128), TY_NOT_LEASED);
		*service.hold = H_GO;
		h_ok(&retrieve, h_answer(&retrieve));
		assert_int_equal(h_wrong(&c, 100, 8, 64), 0);
		h_ok(&c, h_end(&c, 1));
	}
	h_close(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		H_TEST_OF(test_end_under_way, setup, h_teardown),
		H_TEST_OF(test_end_and_begin, setup, h_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
