/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers with units: every form that is taken, and that everything else is refused by name.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/config.h"

struct good {
	const char *text;
	uint64_t value;
};

static void bytes_taken(void **state)
{
	static const struct good cases[] = {
		{ "0", 0 }, { "4096", 4096 }, { "64KiB", 65536 }, { "64 KiB", 65536 }, { "1MiB", 1048576 },
		{ "1.5GiB", 1610612736 }, { "0.5KiB", 512 }, { "0.3KiB", 307 }, { "1TiB", 1ull << 40 },
		{ "18446744073709551615", UINT64_MAX }, { "16777215TiB", 16777215ull << 40 }, { "007", 7 },
		{ "1.999999TiB", (1ull << 40) + 999999ull * (1ull << 40) / 1000000 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct ty_error err = { 0 };
		uint64_t value = 0;

		assert_int_equal(ty_parse_bytes(cases[i].text, &value, &err), TY_OK);
		assert_int_equal(value, cases[i].value);
	}
}

static void bytes_refused(void **state)
{
	static const char *const cases[] = {
		"", " ", "-1", "+1", " 1", "1 ", "4GB", "4G", "4gib", "4kib", "4KiBx", "1.5", "1.", ".5GiB", "1.0000001GiB",
		"1..5GiB", "0x10", "1e3", "18446744073709551616", "16777216TiB", "17179869184.5GiB", "1  KiB", "nan", "inf",
		"\xd9\xa1", "1\n", "1KiB\n", "99999999999999999999999999999999999999999",
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct ty_error err = { 0 };
		uint64_t value = 77;

		assert_int_equal(ty_parse_bytes(cases[i], &value, &err), TY_INVALID);
		assert_int_equal(value, 77);
		assert_non_null(strstr(err.text, "found \""));
		assert_non_null(strstr(err.text, "expected"));
		assert_null(strchr(err.text, '\n'));
	}
}

static void times_taken(void **state)
{
	static const struct good cases[] = {
		{ "0", 0 }, { "250", 250 }, { "250us", 250 }, { "250ms", 250000 }, { "1.5s", 1500000 }, { "30 s", 30000000 },
	};
	static const char *const refused[] = { "1m", "1h", "1min", "1.5us", "1.5", "1S", "s", "1sec" };
	struct ty_error err;
	uint64_t value;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_int_equal(ty_parse_time_us(cases[i].text, &value, &err), TY_OK);
		assert_int_equal(value, cases[i].value);
	}
	for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
		assert_int_equal(ty_parse_time_us(refused[i], &value, &err), TY_INVALID);
}

static void counts(void **state)
{
	struct ty_error err;
	uint64_t value;

	(void)state;
	assert_int_equal(ty_parse_count("64", 64, &value, &err), TY_OK);
	assert_int_equal(value, 64);
	assert_int_equal(ty_parse_count("65", 64, &value, &err), TY_INVALID);
	assert_non_null(strstr(err.text, "at most 64"));
	assert_int_equal(ty_parse_count("", 64, &value, &err), TY_INVALID);
	assert_int_equal(ty_parse_count("1.0", 64, &value, &err), TY_INVALID);
	assert_int_equal(ty_parse_count("-1", UINT64_MAX, &value, &err), TY_INVALID);
}

static void formatted_and_back(void **state)
{
	static const uint64_t cases[] = { 0, 1, 1023, 1024, 1025, 1536, 1ull << 20, 3ull << 29, 4ull << 30, 1ull << 40,
		250000, 1500000, 30000000, UINT64_MAX };
	char text[32];
	uint64_t value;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		ty_format_bytes(text, sizeof text, cases[i]);
		assert_int_equal(ty_parse_bytes(text, &value, NULL), TY_OK);
		assert_int_equal(value, cases[i]);
		ty_format_time_us(text, sizeof text, cases[i]);
		assert_int_equal(ty_parse_time_us(text, &value, NULL), TY_OK);
		assert_int_equal(value, cases[i]);
	}
	ty_format_bytes(text, sizeof text, 4ull << 30);
	assert_string_equal(text, "4GiB");
	ty_format_bytes(text, sizeof text, 3ull << 29);
	assert_string_equal(text, "1536MiB");
	ty_format_time_us(text, sizeof text, 250000);
	assert_string_equal(text, "250ms");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_taken),
		cmocka_unit_test(bytes_refused),
		cmocka_unit_test(times_taken),
		cmocka_unit_test(counts),
		cmocka_unit_test(formatted_and_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
