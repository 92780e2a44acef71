/* SPDX-License-Identifier: Apache-2.0
 *
 * Credits: limits, what is counted, and many who take and give at once.
 */
#include <pthread.h>

#include "runtime_test.h"

static void test_limits(void **unused)
{
	struct ty_credits credits;
	struct ty_credits_stats stats;

	(void)unused;
	assert_int_equal(ty_credits_init(&credits, 3, 100), TY_OK);
	assert_int_equal(ty_credits_take(&credits, 101), TY_LIMIT);
	assert_int_equal(ty_credits_take(&credits, 60), TY_OK);
	assert_int_equal(ty_credits_take(&credits, 41), TY_BUSY); /* bytes */
	assert_int_equal(ty_credits_take(&credits, 40), TY_OK);
	assert_int_equal(ty_credits_take(&credits, 0), TY_OK);
	assert_int_equal(ty_credits_take(&credits, 0), TY_BUSY); /* requests */
	ty_credits_stats(&credits, &stats);
	assert_int_equal(stats.requests, 3);
	assert_int_equal(stats.bytes, 100);
	assert_int_equal(stats.taken, 3);
	assert_int_equal(stats.busy, 2);
	ty_credits_give(&credits, 60);
	assert_int_equal(ty_credits_take(&credits, 61), TY_BUSY); /* nothing of it was taken */
	assert_int_equal(ty_credits_take(&credits, 1), TY_OK);
	ty_credits_give(&credits, 40);
	ty_credits_give(&credits, 1);
	ty_credits_give(&credits, 0);
	ty_credits_stats(&credits, &stats);
	assert_int_equal(stats.requests, 0);
	assert_int_equal(stats.bytes, 0);
	assert_int_equal(stats.requests_high, 3);
	assert_int_equal(stats.bytes_high, 100);
	assert_int_equal(stats.busy, 3);
}

static void test_extremes(void **unused)
{
	struct ty_credits credits;

	(void)unused;
	assert_int_equal(ty_credits_init(&credits, TY_CREDITS_REQUESTS_MAX + 1, 1), TY_INVALID);
	assert_int_equal(ty_credits_init(&credits, 1, TY_CREDITS_BYTES_MAX + 1), TY_INVALID);
	assert_int_equal(ty_credits_init(&credits, TY_CREDITS_REQUESTS_MAX, TY_CREDITS_BYTES_MAX), TY_OK);
	assert_int_equal(ty_credits_take(&credits, UINT64_MAX), TY_LIMIT);
	assert_int_equal(ty_credits_take(&credits, TY_CREDITS_BYTES_MAX), TY_OK);
	assert_int_equal(ty_credits_take(&credits, 1), TY_BUSY);
	assert_int_equal(ty_credits_take(&credits, 0), TY_OK);
	ty_credits_give(&credits, TY_CREDITS_BYTES_MAX);
	ty_credits_give(&credits, 0);
	assert_int_equal(ty_credits_init(&credits, 0, 10), TY_OK);
	assert_int_equal(ty_credits_take(&credits, 0), TY_LIMIT); /* nothing is ever admitted */
}

/* ---- at once ---- */

enum { THREADS = 3, ROUNDS = 20000, REQUESTS = 2, BYTES = 100 };

struct shared {
	struct ty_credits credits;
	_Atomic(uint64_t) requests, bytes, admitted, refused;
};

static void *take_and_give(void *arg)
{
	struct shared *shared = arg;

	for (uint64_t i = 0; i < ROUNDS; i++) {
		uint64_t bytes = i * 37 % 70;

		if (ty_credits_take(&shared->credits, bytes) != TY_OK) {
			atomic_fetch_add(&shared->refused, 1);
			continue;
		}
		assert_true(atomic_fetch_add(&shared->requests, 1) < REQUESTS);
		assert_true(atomic_fetch_add(&shared->bytes, bytes) + bytes <= BYTES);
		atomic_fetch_add(&shared->admitted, 1);
		atomic_fetch_sub(&shared->bytes, bytes);
		atomic_fetch_sub(&shared->requests, 1);
		ty_credits_give(&shared->credits, bytes);
	}
	return NULL;
}

static void test_never_more_than_there_is(void **unused)
{
	struct shared shared = {0};
	struct ty_credits_stats stats;
	pthread_t threads[THREADS];

	(void)unused;
	assert_int_equal(ty_credits_init(&shared.credits, REQUESTS, BYTES), TY_OK);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, take_and_give, &shared), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	ty_credits_stats(&shared.credits, &stats);
	assert_int_equal(stats.requests, 0);
	assert_int_equal(stats.bytes, 0);
	assert_int_equal(stats.taken, atomic_load(&shared.admitted));
	assert_int_equal(stats.busy, atomic_load(&shared.refused));
	assert_int_equal(stats.taken + stats.busy, THREADS * ROUNDS);
	assert_true(stats.requests_high <= REQUESTS && stats.bytes_high <= BYTES);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_extremes),
		cmocka_unit_test(test_never_more_than_there_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
