/* SPDX-License-Identifier: Apache-2.0
 *
 * The sum of contents: one that others compute too, however the bytes are cut, and changed by every bit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cache/checksum.h"

static void test_known_sums(void **state)
{
	struct ty_checksum sum;
	uint8_t bytes[3000];

	(void)state;
	assert_int_equal(ty_checksum("", 0), 0x2d06800538d394c2); /* XXH3's own test vector: a table outlives its writer */
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)(i ^ i >> 5);
	for (size_t cut = 0; cut <= sizeof bytes; cut += 250) {
		ty_checksum_begin(&sum);
		ty_checksum_add(&sum, bytes, cut);
		ty_checksum_add(&sum, bytes + cut, sizeof bytes - cut);
		assert_int_equal(ty_checksum_end(&sum), ty_checksum(bytes, sizeof bytes));
	}
	for (size_t i = 0; i < sizeof bytes; i++) {
		uint64_t before = ty_checksum(bytes, sizeof bytes);

		bytes[i] ^= (uint8_t)(1u << i % 8);
		assert_int_not_equal(ty_checksum(bytes, sizeof bytes), before);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_sums),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
