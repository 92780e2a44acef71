/* SPDX-License-Identifier: Apache-2.0
 *
 * Escaping: what comes out is valid UTF-8 without control characters for every input, and fits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/text.h"

static void expect(const char *in, size_t length, enum ty_escape style, const char *want)
{
	char out[256];
	bool cut;

	assert_int_equal(ty_escape(out, sizeof out, in, length, style, &cut), strlen(want));
	assert_string_equal(out, want);
	assert_false(cut);
}
#define BOTH(in, want)                                                                                                 \
	do {                                                                                                           \
		expect(in, sizeof(in) - 1, TY_ESCAPE_TEXT, want);                                                      \
		expect(in, sizeof(in) - 1, TY_ESCAPE_JSON, want);                                                      \
	} while (0)

static void valid_stays(void **state)
{
	(void)state;
	BOTH("plain", "plain");
	BOTH("", "");
	BOTH("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x9a\x82", "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x9a\x82");
	BOTH("\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf");
	expect("say \"a\\b\"", 9, TY_ESCAPE_TEXT, "say \"a\\b\"");
	expect("say \"a\\b\"", 9, TY_ESCAPE_JSON, "say \\\"a\\\\b\\\"");
}

static void malformed_is_replaced(void **state)
{
	(void)state;
#define R "\xef\xbf\xbd"
	BOTH("\x80", R);
	BOTH("\xff\xfe", R R);
	BOTH("\xc0\x80", R R);             /* overlong zero */
	BOTH("\xe0\x80\xaf", R R R);       /* overlong slash */
	BOTH("\xed\xa0\x80", R R R);       /* surrogate */
	BOTH("\xf4\x90\x80\x80", R R R R); /* beyond U+10FFFF */
	BOTH("\xe2\x82", R);               /* cut at the end */
	BOTH("\xe2\x82x", R "x");          /* cut by another character */
	BOTH("\xf0\x9f\x9a" "a", R "a");
#undef R
}

static void controls_are_escaped(void **state)
{
	(void)state;
	BOTH("a\nb\tc\rd", "a\\nb\\tc\\rd");
	expect("\x1b[2J", 4, TY_ESCAPE_TEXT, "\\x1b[2J");
	expect("\x1b[2J", 4, TY_ESCAPE_JSON, "\\u001b[2J");
	expect("a\0b", 3, TY_ESCAPE_TEXT, "a\\x00b");
	expect("a\0b", 3, TY_ESCAPE_JSON, "a\\u0000b");
	expect("\x7f", 1, TY_ESCAPE_JSON, "\\u007f");
	BOTH("\xc2\x9b" "31m", "\\u009b31m"); /* C1: a terminal's other escape */
	BOTH("\xe2\x80\xae", "\\u202e");
	BOTH("\xe2\x80\xa8", "\\u2028");
}

static void cut_between_characters(void **state)
{
	char out[8];
	bool cut;

	(void)state;
	assert_int_equal(ty_escape(out, 1, "abc", 3, TY_ESCAPE_TEXT, &cut), 0);
	assert_true(cut);
	assert_int_equal(ty_escape(out, 4, "abc", 3, TY_ESCAPE_TEXT, &cut), 3);
	assert_false(cut);
	assert_int_equal(ty_escape(out, 4, "ab\xe2\x82\xac", 5, TY_ESCAPE_TEXT, &cut), 2);
	assert_string_equal(out, "ab");
	assert_true(cut);
	assert_int_equal(ty_escape(out, 6, "a\x01", 2, TY_ESCAPE_JSON, &cut), 1);
	assert_true(cut);
	assert_int_equal(ty_escape(out, 8, "a\x01", 2, TY_ESCAPE_JSON, &cut), 7);
	assert_false(cut);
}

static void any_bytes_any_room(void **state)
{
	uint64_t x = 88172645463325252u;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		char in[24], *out;
		size_t length, room, used;
		bool cut;

		for (size_t i = 0; i < sizeof in; i++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			/* mostly bytes of multi-byte characters */
			in[i] = (char)((x & 3) ? 0x80 | (x >> 8 & 0x7f) : x >> 8 & 0xff);
		}
		length = x >> 20 & 15;
		room = 1 + (x >> 32 & 31);
		out = malloc(room); /* its own, so that a sanitizer sees one byte too many */
		assert_non_null(out);
		used = ty_escape(out, room, in, length, x >> 40 & 1 ? TY_ESCAPE_JSON : TY_ESCAPE_TEXT, &cut);
		assert_true(used < room);
		assert_int_equal(out[used], 0);
		for (size_t at = 0; at < used;) {
			uint32_t code;
			size_t took = ty_utf8_next(out + at, used - at, &code);

			assert_true(code >= 0x20 && (code < 0x7f || code > 0x9f));
			assert_true(code != 0xfffd || took == 3);
			at += took;
		}
		free(out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(valid_stays),
		cmocka_unit_test(malformed_is_replaced),
		cmocka_unit_test(controls_are_escaped),
		cmocka_unit_test(cut_between_characters),
		cmocka_unit_test(any_bytes_any_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
