/* SPDX-License-Identifier: Apache-2.0
 *
 * The pause before who lost the service tries again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/reconnect.h"

#define MS 1000000LL

static int64_t middle_of(uint32_t attempt) /* from 1 */
{
	int64_t pause = attempt < 8 ? 10 * MS << (attempt - 1) : 1000 * MS;

	return pause < 1000 * MS ? pause : 1000 * MS;
}

static void expect_pause(int64_t pause, uint32_t attempt)
{
	int64_t middle = middle_of(attempt);

	assert_true(pause >= middle - middle / 4);
	assert_true(pause < middle + middle / 4);
}

/* Attempts that fail, and UPs that are brief: one as the other. */
static void test_grows(void **state)
{
	(void)state;
	for (int brief = 0; brief < 2; brief++) {
		struct ty_reconnect r = {.jitter = 7};
		int64_t now = 5;

		for (uint32_t attempt = 1; attempt < 70; attempt++) {
			int64_t pause;

			r.up_at = now;
			now += TY_RECONNECT_BRIEF_NS - 1;
			pause = ty_reconnect_pause(&r, brief, now);
			assert_int_equal(r.attempts, attempt);
			expect_pause(pause, attempt);
			now += pause;
		}
		r.attempts = UINT32_MAX - 1; /* for ever */
		expect_pause(ty_reconnect_pause(&r, false, now), 100);
	}
}

/* What had been there for a while is tried again at once, and the pauses begin anew. */
static void test_was_there(void **state)
{
	struct ty_reconnect r = {.jitter = 7};

	(void)state;
	for (int i = 0; i < 5; i++)
		(void)ty_reconnect_pause(&r, false, 0);
	r.up_at = 100;
	assert_int_equal(ty_reconnect_pause(&r, true, 100 + TY_RECONNECT_BRIEF_NS), 0);
	assert_int_equal(r.attempts, 0);
	expect_pause(ty_reconnect_pause(&r, false, 100 + 2 * TY_RECONNECT_BRIEF_NS), 1); /* no UP, however long ago that one was */
}

/* Over half of the pause, and not two alike. */
static void test_spread(void **state)
{
	int64_t low = INT64_MAX, high = 0;

	(void)state;
	for (uint64_t seed = 0; seed < 1000; seed++) {
		struct ty_reconnect r = {.attempts = 20, .jitter = seed * 0x9e3779b97f4a7c15u};
		int64_t pause = ty_reconnect_pause(&r, false, 0);

		low = pause < low ? pause : low;
		high = pause > high ? pause : high;
	}
	assert_true(low < 775 * MS && high > 1225 * MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grows),
		cmocka_unit_test(test_was_there),
		cmocka_unit_test(test_spread),
	};

	return cmocka_run_group_tests_name("base-reconnect", tests, NULL, NULL);
}
