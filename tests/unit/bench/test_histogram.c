/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/histogram.h"
#include "stats.h"

#define VALUES 20000

static uint64_t random_state = 42;

static uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void test_empty(void **state)
{
	struct ty_histogram h = {0};

	(void)state;
	assert_int_equal(ty_histogram_quantile(&h, 0.5), 0);
	assert_true(ty_histogram_mean(&h) == 0);
}

/* Every bucket's border, and beside it: the answer is within 0.5 % and never outside what was added. */
static void test_error_bound_of_single_values(void **state)
{
	static struct ty_histogram h;

	(void)state;
	for (unsigned bit = 0; bit < TY_HISTOGRAM_MAX_BITS; bit++) {
		for (int around = -1; around <= 1; around++) {
			uint64_t value = ((uint64_t)1 << bit) + (uint64_t)(int64_t)around, got;

			ty_histogram_reset(&h);
			ty_histogram_add(&h, value);
			ty_histogram_add(&h, value * 3 + 1000000); /* so that the quantile is not the known maximum */
			got = ty_histogram_quantile(&h, 0.5);
			assert_true(fabs((double)got - (double)value) <= 0.005 * (double)value);
			assert_true(value < 2 * TY_HISTOGRAM_SUB ? got == value : got >= h.min && got <= h.max);
		}
	}
}

static void test_quantiles_against_sorted_values(void **state)
{
	static const double quantiles[] = {0, 0.01, 0.5, 0.9, 0.99, 0.999, 0.9999, 1};
	static uint64_t values[VALUES];
	static struct ty_histogram h;
	double sum = 0;

	(void)state;
	ty_histogram_reset(&h);
	for (unsigned i = 0; i < VALUES; i++) {
		values[i] = next_random() >> (21 + next_random() % 43);
		ty_histogram_add(&h, values[i]);
		sum += (double)values[i];
	}
	qsort(values, VALUES, sizeof values[0], compare);
	for (unsigned i = 0; i < sizeof quantiles / sizeof quantiles[0]; i++) {
		uint64_t rank = (uint64_t)ceil(quantiles[i] * VALUES);
		double exact = (double)values[rank ? rank - 1 : 0];

		assert_true(fabs((double)ty_histogram_quantile(&h, quantiles[i]) - exact) <= 0.01 * exact);
	}
	assert_int_equal(h.count, VALUES);
	assert_int_equal(h.min, values[0]);
	assert_int_equal(h.max, values[VALUES - 1]);
	assert_true(fabs(ty_histogram_mean(&h) - sum / VALUES) <= 1e-6 * sum / VALUES);
}

static void test_merge_is_as_if_added(void **state)
{
	static struct ty_histogram one, two, both;

	(void)state;
	ty_histogram_reset(&one);
	ty_histogram_reset(&two);
	ty_histogram_reset(&both);
	for (unsigned i = 0; i < VALUES; i++) {
		uint64_t value = next_random() >> 30;

		ty_histogram_add(i % 3 ? &one : &two, value);
		ty_histogram_add(&both, value);
	}
	ty_histogram_merge(&one, &two);
	assert_memory_equal(&one, &both, sizeof one);

	ty_histogram_reset(&two); /* empty: its zero minimum must not count */
	ty_histogram_merge(&one, &two);
	assert_memory_equal(&one, &both, sizeof one);
	ty_histogram_merge(&two, &one);
	assert_memory_equal(&two, &both, sizeof two);
}

static void test_huge_values(void **state)
{
	static struct ty_histogram h;

	(void)state;
	ty_histogram_reset(&h);
	ty_histogram_add(&h, UINT64_MAX);
	ty_histogram_add(&h, UINT64_MAX);
	ty_histogram_add(&h, 1);
	assert_int_equal(h.max, UINT64_MAX);
	assert_int_equal(h.sum, UINT64_MAX);
	assert_int_equal(ty_histogram_quantile(&h, 1), UINT64_MAX);
	assert_int_equal(ty_histogram_quantile(&h, 0), 1);
	assert_true(ty_histogram_quantile(&h, 0.5) >= (uint64_t)1 << (TY_HISTOGRAM_MAX_BITS - 1));
}

/* What the service said goes to a terminal, and into JSON: escaped, and only once. */
static void test_texts(void **state)
{
	struct bench_stats *one = calloc(1, sizeof *one), *sum = calloc(1, sizeof *sum);

	(void)state;
	bench_note_error(one, "STORE: %s", "\x1b[2J\xff");
	bench_fatal(one, 2, "%s", "\x1b]0;");
	bench_stats_merge(sum, one);
	assert_null(strpbrk(sum->errors[0], "\x1b\xff"));
	assert_string_equal(sum->errors[0], one->errors[0]);
	assert_null(strchr(sum->fatal, 0x1b));
	assert_string_equal(sum->fatal, one->fatal);
	assert_int_equal(sum->exit_code, 2);
	free(one);
	free(sum);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_error_bound_of_single_values),
		cmocka_unit_test(test_quantiles_against_sorted_values),
		cmocka_unit_test(test_merge_is_as_if_added),
		cmocka_unit_test(test_huge_values),
		cmocka_unit_test(test_texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
