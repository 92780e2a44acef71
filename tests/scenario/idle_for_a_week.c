/* SPDX-License-Identifier: Apache-2.0
 *
 * Idle for a week: a client that says nothing for so long is as it was (LMCache 4715, 4795: live workers were reaped, and their next
 * retrieve hung for ever).
 */
#include "process.h"

#include <stdatomic.h>
#include <stdlib.h>

#define HOUR_NS 3600000000000ll

static void check_all(struct h_client *c, uint64_t session)
{
	h_wipe(c, 4, 64);
	if (h_retrieve(c, session, 0, 4, 64) != TY_OK)
		fail_msg("%s", c->error);
	assert_int_equal(h_wrong(c, 700, 4, 64), 0);
}

static void test_week(void **state)
{
	struct p_clock clock;
	struct h_service s;
	struct h_client c;
	pid_t pid;

	(void)state;
	p_clock_open(&clock);
	h_prepare(&s);
	pid = p_start(&s, NULL, getenv("SHIFT_CLOCK"));
	h_open(&s, &c, NULL, "idle", 0, 1);
	assert_int_equal(h_lookup(&c, 1, 700, 4), TY_OK);
	h_fill(&c, 700, 4, 0);
	assert_int_equal(h_store(&c, 1, 0, 4, 0), TY_OK);
	assert_int_equal(h_lookup(&c, 1, 700, 4), TY_OK);
	assert_int_equal(c.last.lookup.hits, 4);
	for (int hour = 1; hour <= 7 * 24; hour++) {
		atomic_store(&clock.ahead[0], hour * HOUR_NS);
		atomic_store(&clock.ahead[1], hour * HOUR_NS);
		if (hour % 24 == 0) /* nothing of the client in between but that it is there */
			ty_client_poll(c.client, 0, 2000);
	}
	assert_true(p_counter(&c, "tyer_uptime_seconds") >= 7 * 24 * 3600);
	assert_int_equal(ty_client_state(c.client, NULL), TY_CLIENT_UP);
	check_all(&c, 1); /* the lease of a week ago */
	assert_int_equal((int)p_counter(&c, "tyer_lookup_leases"), 4);
	h_close(&c);
	p_kill(pid);
	p_clock_close(&clock);
	h_stop(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_week)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
