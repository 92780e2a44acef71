/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/breaker.h"

#define MS INT64_C(1000000)

static struct ty_breaker new_breaker(void)
{
	return (struct ty_breaker){.limit = 3, .pause_min = 100 * MS, .pause_max = 1000 * MS};
}

/* It opens at the limit of failures in a row, and says so once. */
static void test_opens(void **state)
{
	struct ty_breaker b = new_breaker();

	(void)state;
	assert_false(ty_breaker_bad(&b, false, 0));
	assert_false(ty_breaker_bad(&b, false, 0));
	assert_false(ty_breaker_good(&b)); /* it was not down */
	assert_false(ty_breaker_bad(&b, false, 0));
	assert_false(ty_breaker_bad(&b, false, 0));
	assert_false(b.open);
	assert_true(ty_breaker_bad(&b, false, 0));
	assert_true(b.open);
	assert_false(ty_breaker_bad(&b, false, 0));
}

/* One probe at a time, ever more seldom; what fails late changes nothing; one answer closes it. */
static void test_probes(void **state)
{
	struct ty_breaker b = new_breaker();
	int64_t now = 0, pause = 100 * MS;

	(void)state;
	assert_false(ty_breaker_probe(&b, now));
	for (int i = 0; i < 3; i++)
		(void)ty_breaker_bad(&b, false, now);
	for (int round = 0; round < 8; round++) {
		assert_false(ty_breaker_probe(&b, now + pause - 1));
		assert_false(ty_breaker_bad(&b, false, now + pause - 1));
		now += pause;
		assert_true(ty_breaker_probe(&b, now));
		assert_false(ty_breaker_probe(&b, now));
		assert_false(ty_breaker_bad(&b, false, now)); /* not the probe */
		assert_false(ty_breaker_probe(&b, now + 10 * pause));
		assert_false(ty_breaker_bad(&b, true, now));
		pause = 2 * pause < 1000 * MS ? 2 * pause : 1000 * MS;
	}
	now += pause;
	assert_true(ty_breaker_probe(&b, now));
	assert_true(ty_breaker_good(&b));
	assert_false(b.open);
	for (int i = 0; i < 3; i++)
		(void)ty_breaker_bad(&b, false, now);
	assert_true(ty_breaker_probe(&b, now + 100 * MS)); /* from the shortest pause on again */
}

/* Within its bounds for every number, doubled with each try, and spread over all of them. */
static void test_backoff(void **state)
{
	uint64_t random = 1;

	(void)state;
	for (uint32_t tries = 1; tries < 80; tries++) {
		int64_t most = tries < 7 ? 50 * MS << (tries - 1) : 2000 * MS, low = INT64_MAX, high = 0;

		most = most < 2000 * MS ? most : 2000 * MS;
		assert_int_equal(ty_backoff(tries, 50 * MS, 2000 * MS, 0), 0);
		assert_int_equal(ty_backoff(tries, 50 * MS, 2000 * MS, (uint64_t)most), most);
		for (int i = 0; i < 1000; i++) {
			int64_t pause;

			random = random * 6364136223846793005u + 1442695040888963407u;
			pause = ty_backoff(tries, 50 * MS, 2000 * MS, random >> 8);
			assert_true(pause >= 0 && pause <= most);
			low = pause < low ? pause : low;
			high = pause > high ? pause : high;
		}
		assert_true(low < most / 20 && high > most - most / 20);
	}
	assert_int_equal(ty_backoff(1, 0, 0, 77), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_opens),
		cmocka_unit_test(test_probes),
		cmocka_unit_test(test_backoff),
	};

	return cmocka_run_group_tests_name("base-breaker", tests, NULL, NULL);
}
