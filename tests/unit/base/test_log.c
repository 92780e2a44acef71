/* SPDX-License-Identifier: Apache-2.0
 *
 * Log lines: their two forms, their escaping, their length, where they go. JSON is checked with jansson's strict parser.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>

#include "base/log.h"

static char last[TY_LOG_LINE_MAX + 1];
static unsigned lines;
static bool refuse;

static bool keep(const char *line, size_t length)
{
	if (refuse)
		return false;
	assert_true(length > 0 && length <= TY_LOG_LINE_MAX);
	assert_int_equal(line[length - 1], '\n');
	assert_ptr_equal(memchr(line, '\n', length), line + length - 1); /* one line */
	memcpy(last, line, length);
	last[length] = 0;
	lines++;
	return true;
}

static int set_up(void **state)
{
	(void)state;
	ty_log_setup(TY_LOG_INFO, false);
	ty_log_set_sink(keep);
	lines = 0;
	refuse = false;
	return 0;
}

/* The text of the last line, which must be strict JSON; the caller's until the next call. */
static const char *json_text(const char *level, const char *where)
{
	static json_t *root;
	json_error_t error;

	json_decref(root);
	root = json_loads(last, JSON_REJECT_DUPLICATES, &error);
	assert_non_null(root);
	assert_int_equal(json_object_size(root), 4);
	assert_string_equal(json_string_value(json_object_get(root, "level")), level);
	assert_string_equal(json_string_value(json_object_get(root, "where")), where);
	assert_int_equal(json_string_length(json_object_get(root, "time")), 24);
	return json_string_value(json_object_get(root, "text"));
}

static void times(void **state)
{
	static const struct {
		int64_t seconds;
		const char *text;
	} cases[] = {
		{ 0, "1970-01-01T00:00:00.007Z" },
		{ 951782399, "2000-02-28T23:59:59.007Z" },
		{ 951782400, "2000-02-29T00:00:00.007Z" },
		{ 951868800, "2000-03-01T00:00:00.007Z" },
		{ 1709164800, "2024-02-29T00:00:00.007Z" },
		{ 4107542400, "2100-03-01T00:00:00.007Z" },
		{ 1767225599, "2025-12-31T23:59:59.007Z" },
		{ -1, "1969-12-31T23:59:59.007Z" },
	};
	char text[TY_LOG_TIME_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		ty_log_format_time(text, cases[i].seconds, 7);
		assert_string_equal(text, cases[i].text);
	}
}

static void text_form(void **state)
{
	unsigned year, month, day, hour, minute, second, ms;
	int end = 0;

	(void)state;
	ty_log(TY_LOG_WARN, "gpu", "stalled for %d ms", 12);
	assert_int_equal(sscanf(last, "%4u-%2u-%2uT%2u:%2u:%2u.%3uZ %n", &year, &month, &day, &hour, &minute, &second,
				 &ms, &end), 7);
	assert_int_equal(end, 25);
	assert_string_equal(last + end, "warn  gpu: stalled for 12 ms\n");
	ty_log(TY_LOG_ERROR, "gpu", "%s", "two\nlines \x1b[31m \xff");
	assert_string_equal(last + end, "error gpu: two\\nlines \\x1b[31m \xef\xbf\xbd\n");
}

static void json_form(void **state)
{
	(void)state;
	ty_log_setup(TY_LOG_DEBUG, true);
	ty_log(TY_LOG_DEBUG, "clients", "name \"%s\"", "a\\b\n\x01\x7f\xc2\x9b\xed\xa0\x80 \xc3\xbc");
	assert_string_equal(json_text("debug", "clients"),
		"name \"a\\b\n\x01\x7f\xc2\x9b\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd \xc3\xbc\"");
	for (const char *at = last; at[1]; at++)
		assert_true((unsigned char)*at >= 0x20 && *at != 0x7f);
}

static void levels(void **state)
{
	(void)state;
	ty_log(TY_LOG_DEBUG, "x", "not shown");
	assert_int_equal(lines, 0);
	ty_log(TY_LOG_INFO, "x", "shown");
	assert_int_equal(lines, 1);
	ty_log_setup(TY_LOG_ERROR, false);
	ty_log(TY_LOG_WARN, "x", "not shown");
	assert_int_equal(lines, 1);
	ty_log(TY_LOG_ERROR, "x", "shown");
	assert_int_equal(lines, 2);
}

static void long_text_is_cut(void **state)
{
	static const char *const units[] = { "x", "\n", "\"", "\xe2\x82\xac", "\xff", "\x01" };
	char text[4000];

	(void)state;
	for (int json = 0; json < 2; json++) {
		ty_log_setup(TY_LOG_INFO, json);
		for (size_t u = 0; u < sizeof units / sizeof units[0]; u++)
			for (size_t length = 0; length < sizeof text - 4; length += length < 800 || length > 1100 ? 97 : 1) {
				size_t unit = strlen(units[u]), at = 0;

				for (; at < length; at += unit)
					memcpy(text + at, units[u], unit);
				text[at] = 0;
				ty_log(TY_LOG_INFO, "w", "%s", text);
				if (json)
					json_text("info", "w");
				if (length >= TY_LOG_LINE_MAX)
					assert_non_null(strstr(last, "...[cut]"));
				else if (length < 90)
					assert_null(strstr(last, "...[cut]"));
				if (units[u][0] == '\xe2') /* no half character at the cut */
					assert_null(strstr(last, "\xef\xbf\xbd"));
			}
	}
}

static void long_where(void **state)
{
	char where[500];

	(void)state;
	memset(where, '"', sizeof where - 1);
	where[sizeof where - 1] = 0;
	ty_log_setup(TY_LOG_INFO, true);
	ty_log(TY_LOG_INFO, where, "text");
	assert_string_equal(json_text("info", "\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\""), "text");
}

static void refused_lines_are_counted(void **state)
{
	uint64_t before = ty_log_dropped();

	(void)state;
	refuse = true;
	ty_log(TY_LOG_INFO, "x", "a");
	ty_log(TY_LOG_INFO, "x", "b");
	ty_log(TY_LOG_DEBUG, "x", "below the level: not even tried");
	assert_int_equal(ty_log_dropped() - before, 2);
}

static void without_sink_to_stderr(void **state)
{
	int ends[2], saved = dup(STDERR_FILENO);
	char read_back[TY_LOG_LINE_MAX + 1];
	ssize_t n;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
	ty_log_set_sink(NULL);
	errno = ENOSPC;
	ty_log(TY_LOG_INFO, "x", "to stderr: %m");
	assert_int_equal(errno, ENOSPC);
	assert_int_equal(dup2(saved, STDERR_FILENO), STDERR_FILENO);
	n = read(ends[0], read_back, sizeof read_back - 1);
	assert_true(n > 0);
	read_back[n] = 0;
	assert_non_null(strstr(read_back, "info  x: to stderr: No space left on device\n"));
	assert_int_equal(lines, 0);
	close(ends[0]);
	close(ends[1]);
	close(saved);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(times, set_up),
		cmocka_unit_test_setup(text_form, set_up),
		cmocka_unit_test_setup(json_form, set_up),
		cmocka_unit_test_setup(levels, set_up),
		cmocka_unit_test_setup(long_text_is_cut, set_up),
		cmocka_unit_test_setup(long_where, set_up),
		cmocka_unit_test_setup(refused_lines_are_counted, set_up),
		cmocka_unit_test_setup(without_sink_to_stderr, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
