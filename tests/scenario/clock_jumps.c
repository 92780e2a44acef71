/* SPDX-License-Identifier: Apache-2.0
 *
 * The service's clocks jump (LMCache 4715, 4795: what a clock said was taken for a death, and the living were reaped): that on the wall
 * forwards and back, as when somebody sets it, which nothing may notice; and the monotonic one forwards, as after a machine's sleep,
 * after which what was open may be late, and nothing else.
 */
#include <unistd.h>

#include "process.h"

#include <stdatomic.h>
#include <stdlib.h>

#define HOUR_NS 3600000000000ll
#define ROUNDS 20

static struct h_service service;
static struct h_client client;
static struct p_clock p_clock;
static pid_t pid;

static int setup(void **state)
{
	(void)state;
	p_clock_open(&p_clock);
	h_prepare(&service);
	pid = p_start(&service, NULL, getenv("SHIFT_CLOCK"));
	h_open(&service, &client, NULL, "clocks", 0, 1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	h_close(&client);
	p_kill(pid);
	p_clock_close(&p_clock);
	h_stop(&service);
	return 0;
}

/* It was done, or, if that may be, its deadline came: with its device at work on something that seemed to take an hour, or not. */
static bool fair(enum ty_code code, bool may_be_late)
{
	return code == TY_OK || (may_be_late && (code == TY_TIMEOUT || code == TY_DEVICE_STALLED));
}

/* One store and one retrieve, both sent before the clock `which` jumps. */
static void round_trip(uint32_t round, int which, int64_t jump, bool may_be_late)
{
	uint32_t base = 1000 + round * 4;
	struct h_client store = client, retrieve = client;
	struct ty_transfer t;
	enum ty_code code;

	while ((code = h_lookup(&client, 1, base, 4)) == TY_TIMEOUT && may_be_late) /* an hour in a moment is more than a deadline */
		;
	assert_int_equal(code, TY_OK);
	h_fill(&client, base, 4, 0);
	h_wipe(&client, 4, 64);
	t = h_transfer(&client, 1, 0, 4, 0);
	h_send(&store, ty_client_store(client.client, &t, h_done, &store, &store.refused));
	t = h_transfer(&client, 9, 0, 4, 64);
	h_send(&retrieve, ty_client_retrieve(client.client, &t, h_done, &retrieve, &retrieve.refused));
	atomic_fetch_add(&p_clock.ahead[which], jump);
	assert_true(fair(h_answer(&store), may_be_late));
	code = h_answer(&retrieve);
	assert_true(fair(code, may_be_late));
	if (code == TY_OK)
		assert_int_equal(h_wrong(&client, 700, 4, 64), 0);
	while ((code = h_end(&client, 1)) == TY_TIMEOUT && may_be_late)
		;
	assert_true(code == TY_OK || (code == TY_UNKNOWN_SESSION && may_be_late)); /* it had ended, and the answer was late */
}

/* Session 9 leases four chunks through all of it. */
static void begin(void)
{
	assert_int_equal(h_lookup(&client, 9, 700, 4), TY_OK);
	h_fill(&client, 700, 4, 0);
	assert_int_equal(h_store(&client, 9, 0, 4, 0), TY_OK);
	assert_int_equal(h_lookup(&client, 9, 700, 4), TY_OK);
	assert_int_equal(client.last.lookup.hits, 4);
}

static void end(void)
{
	assert_int_equal(ty_client_state(client.client, NULL), TY_CLIENT_UP);
	h_wipe(&client, 4, 64);
	assert_int_equal(h_retrieve(&client, 9, 0, 4, 64), TY_OK);
	assert_int_equal(h_wrong(&client, 700, 4, 64), 0);
	assert_int_equal((int)p_counter(&client, "tyer_lookup_leases"), 4);
	while ((int)p_counter(&client, "tyer_operations") != 0) /* it says so when it has answered, a moment later */
		usleep(1000);
}

static void test_wall(void **state)
{
	(void)state;
	begin();
	for (uint32_t i = 0; i < ROUNDS; i++)
		round_trip(i, 1, i % 2 ? -48 * HOUR_NS : 24 * HOUR_NS, false);
	end();
}

static void test_monotonic(void **state)
{
	(void)state;
	begin();
	for (uint32_t i = 0; i < ROUNDS; i++)
		round_trip(i, 0, HOUR_NS, true);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_wall, setup, teardown),
		cmocka_unit_test_setup_teardown(test_monotonic, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
