/* SPDX-License-Identifier: Apache-2.0
 *
 * The service is killed and started anew, twice, faster than any heartbeat would look (LMCache 4642, 4687: the workers stayed orphaned).
 * Requests in flight end at once, the client comes back by itself under its old numbers, and the engine may go on.
 */
#include "process.h"

#include <stdio.h>
#include <string.h>

static void round_trip(struct h_client *c, uint32_t base)
{
	if (h_lookup(c, base, base, 4) != TY_OK)
		fail_msg("%s", c->error);
	h_fill(c, base, 4, 0);
	assert_int_equal(h_store(c, base, 0, 4, 0), TY_OK);
	assert_int_equal(h_lookup(c, base, base, 4), TY_OK);
	assert_int_equal(c->last.lookup.hits, 4);
	h_wipe(c, 4, 64);
	assert_int_equal(h_retrieve(c, base, 0, 4, 64), TY_OK);
	assert_int_equal(h_wrong(c, base, 4, 64), 0);
	assert_int_equal(h_end(c, base), TY_OK);
}

static void test_twice(void **state)
{
	struct h_service s;
	struct h_client c[3];
	uint64_t boot;
	pid_t pid;

	(void)state;
	h_prepare(&s);
	pid = p_start(&s, NULL, NULL);
	for (uint32_t i = 0; i < 3; i++)
		h_open(&s, &c[i], NULL, "twice", 0, 1);
	round_trip(&c[0], 100);
	boot = ty_client_info(c[0].client)->boot;
	for (int round = 0; round < 3; round++) {
		const uint32_t ids[H_PER_CHUNK] = {0, 1, 2, 3}, *const lists[1] = {ids}, n = H_PER_CHUNK;
		struct ty_transfer t = {.session = 1, .registration = c[0].registration, .count = 1, .blocks = lists,
			.block_counts = &n, .group_count = 1, .ready = {5, 1u + (uint32_t)round}};

		/* one that is in flight, and would be for long */
		assert_int_equal(h_lookup(&c[0], 1, 5000, 1), TY_OK);
		c[0].last.code = TY_INTERNAL;
		assert_int_equal(ty_client_store(c[0].client, &t, h_done, &c[0], &c[0].refused), TY_OK);
		p_kill(pid);
		p_kill(p_start(&s, NULL, NULL));
		pid = p_start(&s, NULL, NULL);
		while (c[0].last.code == TY_INTERNAL)
			ty_client_poll(c[0].client, 0, 100000);
		assert_int_equal(c[0].last.code, TY_CLOSED);
		for (uint32_t i = 0; i < 3; i++) {
			while (ty_client_info(c[i].client)->boot == boot)
				ty_client_poll(c[i].client, 0, 100000);
			p_wait_up(&c[i]);
			round_trip(&c[i], 1000 + i * 100);
		}
		boot = ty_client_info(c[0].client)->boot;
	}
	for (uint32_t i = 0; i < 3; i++)
		h_close(&c[i]);
	assert_int_equal(p_stop(pid), 0);
	h_stop(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_twice)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
