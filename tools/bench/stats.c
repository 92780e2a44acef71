/* SPDX-License-Identifier: Apache-2.0 */
#include "stats.h"

#include <stdio.h>
#include <string.h>

#include "base/text.h"

const char *bench_row_name(enum bench_row row)
{
	static const char *const names[BENCH_ROWS] = {"LOOKUP", "RETRIEVE", "STORE", "END_SESSION", "FLUSH", "PING",
		"PING (intended)", "sleep (lateness)", "request", "request (intended)"};

	return names[row];
}

/* Texts may be the service's, and go to a terminal and into JSON: they are made safe for both. */
static void keep(char *out, size_t room, const char *fmt, va_list args)
{
	char text[1024];

	vsnprintf(text, sizeof text, fmt, args);
	ty_escape(out, room, text, strlen(text), TY_ESCAPE_TEXT, NULL);
}

void bench_note_error(struct bench_stats *stats, const char *fmt, ...)
{
	va_list args;

	if (stats->error_texts == BENCH_TEXTS)
		return;
	va_start(args, fmt);
	keep(stats->errors[stats->error_texts++], sizeof stats->errors[0], fmt, args);
	va_end(args);
}

void bench_note_wrong(struct bench_stats *stats, const char *text)
{
	if (stats->wrong_texts < BENCH_TEXTS)
		snprintf(stats->wrong[stats->wrong_texts++], sizeof stats->wrong[0], "%s", text);
}

void bench_fatal(struct bench_stats *stats, int exit_code, const char *fmt, ...)
{
	va_list args;

	if (stats->exit_code)
		return;
	stats->exit_code = exit_code;
	va_start(args, fmt);
	keep(stats->fatal, sizeof stats->fatal, fmt, args);
	va_end(args);
}

void bench_stats_merge(struct bench_stats *into, const struct bench_stats *from)
{
	for (unsigned i = 0; i < BENCH_ROWS; i++)
		ty_histogram_merge(&into->rows[i], &from->rows[i]);
	for (unsigned v = 0; v < BENCH_VERBS; v++)
		for (unsigned c = 0; c < TY_CODE_COUNT; c++)
			into->codes[v][c] += from->codes[v][c];
#define ADD(field) (into->field += from->field)
	ADD(sent), ADD(completed), ADD(doubled), ADD(lost);
	ADD(busy_retries), ADD(tolerated), ADD(unexpected), ADD(miscounted);
	ADD(requests), ADD(requests_failed), ADD(requests_left);
	ADD(chunks), ADD(hits), ADD(checked_chunks), ADD(checked_blocks), ADD(wrong_chunks), ADD(wrong_words);
	ADD(stored), ADD(present), ADD(dropped), ADD(stored_bytes), ADD(retrieved_bytes);
#undef ADD
	if (from->parts)
		into->parts = from->parts;
	if (from->finished > into->finished)
		into->finished = from->finished;
	for (unsigned i = 0; i < from->error_texts && into->error_texts < BENCH_TEXTS; i++) /* as they are: escaped once */
		strcpy(into->errors[into->error_texts++], from->errors[i]);
	for (unsigned i = 0; i < from->wrong_texts; i++)
		bench_note_wrong(into, from->wrong[i]);
	if (from->exit_code && !into->exit_code) {
		into->exit_code = from->exit_code;
		strcpy(into->fatal, from->fatal);
	}
}

bool bench_stats_bad(const struct bench_stats *s)
{
	return s->exit_code || s->wrong_words || s->wrong_chunks || s->doubled || s->lost || s->unexpected ||
	       s->miscounted || s->requests_left || s->sent != s->completed;
}
