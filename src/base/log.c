/* SPDX-License-Identifier: Apache-2.0
 *
 * No function here takes a lock, of ours or of libc's: time is turned into a date by hand because gmtime_r takes libc's
 * time zone lock, and a line is one write() because stdio would lock its stream.
 */
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"

#define CUT_MARK "...[cut]"
#define WHERE_MAX 48 /* bytes of `where` that are shown */

/* Written by ty_log_setup and ty_log_set_sink, read by every ty_log; relaxed, but for the sink: release, so that what the
 * sink needs was made before anybody calls it (acquire in emit). */
static _Atomic int max_level = TY_LOG_INFO;
static _Atomic bool as_json;
static _Atomic(ty_log_sink) current_sink;
/* Lines that nobody took. Any thread adds, anyone reads; relaxed: it is a statistic. */
static _Atomic uint64_t dropped;

void ty_log_setup(enum ty_log_level level, bool json)
{
	assert(level >= TY_LOG_ERROR && level <= TY_LOG_DEBUG);
	atomic_store_explicit(&max_level, (int)level, memory_order_relaxed);
	atomic_store_explicit(&as_json, json, memory_order_relaxed);
}

void ty_log_set_sink(ty_log_sink sink)
{
	atomic_store_explicit(&current_sink, sink, memory_order_release);
}

uint64_t ty_log_dropped(void)
{
	return atomic_load_explicit(&dropped, memory_order_relaxed);
}

/* Days since 1970-01-01 to a Gregorian date. Years are counted from March, so that the leap day is a year's last. */
static void date_of(int64_t days, int64_t *year, unsigned *month, unsigned *day)
{
	int64_t shifted = days + 719468; /* since 0000-03-01 */
	int64_t era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
	unsigned in_era = (unsigned)(shifted - era * 146097);
	unsigned year_in_era = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
	unsigned in_year = in_era - (365 * year_in_era + year_in_era / 4 - year_in_era / 100);
	unsigned march_month = (5 * in_year + 2) / 153;

	*day = in_year - (153 * march_month + 2) / 5 + 1;
	*month = march_month < 10 ? march_month + 3 : march_month - 9;
	*year = era * 400 + year_in_era + (*month <= 2);
}

void ty_log_format_time(char out[TY_LOG_TIME_MAX], int64_t seconds, unsigned milliseconds)
{
	int64_t days = seconds / 86400, year;
	unsigned month, day, of_day;

	if (seconds % 86400 < 0)
		days--;
	of_day = (unsigned)(seconds - days * 86400);
	date_of(days, &year, &month, &day);
	snprintf(out, TY_LOG_TIME_MAX, "%04lld-%02u-%02uT%02u:%02u:%02u.%03uZ", (long long)year, month, day,
		of_day / 3600, of_day / 60 % 60, of_day % 60, milliseconds % 1000);
}

/* Text that was cut anyway may have lost half of its last character: that half is no error of the writer's. */
static size_t whole_characters(const char *text, size_t length)
{
	size_t at = 0;

	while (at < length) {
		uint32_t code;
		size_t took = ty_utf8_next(text + at, length - at, &code);

		if (code == 0xfffd && at + took == length && length - at < 4 && ((unsigned char)text[at] & 0xc0) == 0xc0)
			return at;
		at += took;
	}
	return length;
}

static size_t format_line(char line[TY_LOG_LINE_MAX], enum ty_log_level level, const char *where, const char *text,
	size_t length, bool cut)
{
	static const char *const levels[] = { "error", "warn", "info", "debug" };
	bool json = atomic_load_explicit(&as_json, memory_order_relaxed), more = false;
	enum ty_escape style = json ? TY_ESCAPE_JSON : TY_ESCAPE_TEXT;
	const char *end = json ? "\"}\n" : "\n";
	size_t tail = sizeof CUT_MARK - 1 + strlen(end), used;
	char stamp[TY_LOG_TIME_MAX], part[WHERE_MAX];
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	ty_log_format_time(stamp, now.tv_sec, (unsigned)(now.tv_nsec / 1000000));
	ty_escape(part, sizeof part, where, strlen(where), style, NULL);
	used = (size_t)snprintf(line, TY_LOG_LINE_MAX,
		json ? "{\"time\":\"%s\",\"level\":\"%s\",\"where\":\"%s\",\"text\":\"" : "%s %-5s %s: ", stamp,
		levels[level], part);
	assert(used < TY_LOG_LINE_MAX - tail);
	if (cut)
		length = whole_characters(text, length);
	used += ty_escape(line + used, TY_LOG_LINE_MAX - used - tail, text, length, style, &more);
	if (cut || more) {
		memcpy(line + used, CUT_MARK, sizeof CUT_MARK - 1);
		used += sizeof CUT_MARK - 1;
	}
	memcpy(line + used, end, strlen(end));
	return used + strlen(end);
}

/* False instead of waiting for whoever should read it: a pipe that polls writable takes a line whole. */
static bool write_stderr(const char *line, size_t length)
{
	struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
	ssize_t n;

	if (poll(&p, 1, 0) == 0)
		return false;
	do
		n = write(STDERR_FILENO, line, length);
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)length;
}

void ty_log(enum ty_log_level level, const char *where, const char *fmt, ...)
{
	char text[TY_LOG_LINE_MAX], line[TY_LOG_LINE_MAX];
	int saved = errno, wanted;
	ty_log_sink sink;
	va_list args;
	size_t length;

	if ((int)level > atomic_load_explicit(&max_level, memory_order_relaxed))
		return;
	va_start(args, fmt);
	errno = saved; /* for %m */
	wanted = vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	if (wanted < 0)
		wanted = snprintf(text, sizeof text, "(a message that could not be formatted: %.200s)", fmt);
	length = (size_t)wanted < sizeof text ? (size_t)wanted : sizeof text - 1;
	length = format_line(line, level, where, text, length, (size_t)wanted >= sizeof text);
	sink = atomic_load_explicit(&current_sink, memory_order_acquire); /* pairs with ty_log_set_sink */
	if (!(sink ? sink(line, length) : write_stderr(line, length)))
		atomic_fetch_add_explicit(&dropped, 1, memory_order_relaxed);
	errno = saved;
}
