/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers with units, as people write them. By hand, not strtod: exact, independent of the locale, and every malformed
 * text is refused.
 */
#include "base/config.h"

#include <inttypes.h>
#include <string.h>

#include "base/text.h"

#define FRACTION_DIGITS 6 /* 10^6 * 2^40 still fits into 64 bits */

struct unit {
	const char *suffix;
	uint64_t factor;
};

static const struct unit byte_units[] = {
	{ "", 1 }, { "KiB", 1ull << 10 }, { "MiB", 1ull << 20 }, { "GiB", 1ull << 30 }, { "TiB", 1ull << 40 }, { NULL, 0 },
};
static const struct unit time_units[] = {
	{ "", 1 }, { "us", 1 }, { "ms", 1000 }, { "s", 1000000 }, { NULL, 0 },
};

static enum ty_code refuse(const char *text, const char *expected, struct ty_error *err)
{
	char shown[48];
	bool cut;

	ty_escape(shown, sizeof shown, text, strlen(text), TY_ESCAPE_TEXT, &cut);
	return ty_fail(err, TY_INVALID, "found \"%s\"%s, expected %s", shown, cut ? "..." : "", expected);
}

static bool take_digits(const char **at, uint64_t *value)
{
	*value = 0;
	for (; **at >= '0' && **at <= '9'; (*at)++)
		if (__builtin_mul_overflow(*value, 10u, value) ||
		    __builtin_add_overflow(*value, (uint64_t)(**at - '0'), value))
			return false;
	return true;
}

/* A number, perhaps with a fraction, perhaps a space, and one of the units; *out in the smallest unit, rounded down. */
static enum ty_code parse_scaled(const char *text, const struct unit *units, const char *expected, uint64_t *out,
	struct ty_error *err)
{
	uint64_t whole, fraction = 0, scale = 1, result;
	const char *at = text;

	if (*at < '0' || *at > '9')
		return refuse(text, expected, err);
	if (!take_digits(&at, &whole))
		return refuse(text, "a number below 2^64", err);
	if (*at == '.') {
		const char *first = ++at;

		if (!take_digits(&at, &fraction) || at == first || at - first > FRACTION_DIGITS)
			return refuse(text, "1 to 6 digits after the point", err);
		for (ptrdiff_t i = 0; i < at - first; i++)
			scale *= 10;
	}
	if (*at == ' ')
		at++;
	while (units->suffix && strcmp(units->suffix, at) != 0)
		units++;
	if (!units->suffix || (*at == 0 && at[-1] == ' '))
		return refuse(text, expected, err);
	if (units->factor == 1 && scale > 1)
		return refuse(text, "a whole number in the smallest unit", err);
	if (__builtin_mul_overflow(whole, units->factor, &result) ||
	    __builtin_add_overflow(result, fraction * units->factor / scale, &result))
		return refuse(text, "a number below 2^64", err);
	*out = result;
	return TY_OK;
}

enum ty_code ty_parse_bytes(const char *text, uint64_t *out, struct ty_error *err)
{
	return parse_scaled(text, byte_units, "bytes: a number, or one with KiB, MiB, GiB or TiB", out, err);
}

enum ty_code ty_parse_time_us(const char *text, uint64_t *out, struct ty_error *err)
{
	return parse_scaled(text, time_units, "a time: a number of microseconds, or one with us, ms or s", out, err);
}

enum ty_code ty_parse_count(const char *text, uint64_t max, uint64_t *out, struct ty_error *err)
{
	const char *at = text;
	uint64_t value;
	char expected[64];

	if (*text >= '0' && *text <= '9' && take_digits(&at, &value) && !*at && value <= max) {
		*out = value;
		return TY_OK;
	}
	snprintf(expected, sizeof expected, "a whole number, at most %" PRIu64, max);
	return refuse(text, expected, err);
}

static void format_scaled(char *out, size_t size, uint64_t value, const struct unit *units)
{
	const struct unit *best = units;

	for (const struct unit *u = units; u->suffix; u++)
		if (value && value % u->factor == 0)
			best = u;
	snprintf(out, size, "%" PRIu64 "%s", value / best->factor, best->suffix);
}

void ty_format_bytes(char *out, size_t size, uint64_t bytes)
{
	format_scaled(out, size, bytes, byte_units);
}

void ty_format_time_us(char *out, size_t size, uint64_t us)
{
	format_scaled(out, size, us, time_units);
}
