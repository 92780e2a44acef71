/* SPDX-License-Identifier: Apache-2.0 */
#include "report.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "report_json.h"

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct bench_spread bench_spread_of(double *values, uint32_t count)
{
	struct bench_spread s = {0};

	if (count == 0)
		return s;
	qsort(values, count, sizeof *values, compare);
	s.min = values[0];
	s.max = values[count - 1];
	s.median = count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
	return s;
}

double bench_share(uint64_t part, uint64_t all)
{
	return all ? (double)part / (double)all : 0;
}

/* GB/s that one operation sees, on average: bytes over the sum of the operations' times. */
double bench_rate_in_operation(uint64_t bytes, const struct ty_histogram *row)
{
	return row->sum ? (double)bytes / (double)row->sum : 0; /* bytes a nanosecond */
}

double bench_rate(uint64_t bytes, double seconds)
{
	return seconds > 0 ? (double)bytes / seconds * 1e-9 : 0;
}

uint64_t bench_sum_codes(const struct bench_stats *stats, enum ty_code code)
{
	uint64_t sum = 0;

	for (unsigned v = 0; v < BENCH_VERBS; v++)
		sum += stats->codes[v][code];
	return sum;
}

/* 12345678 -> "12,345,678" */
static const char *commas(uint64_t number, char text[32])
{
	char digits[24];
	int count = snprintf(digits, sizeof digits, "%" PRIu64, number), out = 0;

	for (int i = 0; i < count; i++) {
		if (i && (count - i) % 3 == 0)
			text[out++] = ',';
		text[out++] = digits[i];
	}
	text[out] = 0;
	return text;
}

static void print_count(const char *name, uint64_t number, const char *note)
{
	char text[32];

	printf("  %-22s %16s%s%s\n", name, commas(number, text), note[0] ? "  " : "", note);
}

static void print_share(const char *name, uint64_t part, uint64_t all)
{
	char note[32];

	snprintf(note, sizeof note, "%6.2f %%", 100 * bench_share(part, all));
	print_count(name, part, note);
}

/* Nanoseconds with three digits that matter. */
static const char *duration(uint64_t ns, char text[16])
{
	double value = (double)ns;
	const char *unit = "ns";

	if (ns >= 1000000000) {
		value *= 1e-9;
		unit = "s ";
	} else if (ns >= 1000000) {
		value *= 1e-6;
		unit = "ms";
	} else if (ns >= 1000) {
		value *= 1e-3;
		unit = "us";
	}
	snprintf(text, 16, "%.*f %s", value >= 100 ? 0 : value >= 10 ? 1 : 2, value, unit);
	return text;
}

static void print_row(enum bench_row row, const struct ty_histogram *h)
{
	static const double quantiles[] = {0.5, 0.9, 0.99, 0.999, 1};
	char text[32], time[16];

	if (h->count == 0)
		return;
	printf("  %-20s %12s", bench_row_name(row), commas(h->count, text));
	for (unsigned i = 0; i < sizeof quantiles / sizeof quantiles[0]; i++)
		printf(" %9s", duration(ty_histogram_quantile(h, quantiles[i]), time));
	putchar('\n');
}

static void print_latencies(const struct bench_report *r)
{
	printf("\n  %-20s %12s %9s %9s %9s %9s %9s\n", "latency", "count", "p50   ", "p90   ", "p99   ", "p99.9   ",
		"max   ");
	for (unsigned row = 0; row < BENCH_ROWS; row++)
		print_row((enum bench_row)row, &r->stats->rows[row]);
	if (r->pings) {
		print_row(BENCH_ROW_PING, &r->pings->rows[BENCH_ROW_PING]);
		print_row(BENCH_ROW_PING_INTENDED, &r->pings->rows[BENCH_ROW_PING_INTENDED]);
		print_row(BENCH_ROW_SLEEP, &r->pings->rows[BENCH_ROW_SLEEP]);
	}
}

static void print_trouble(const struct bench_report *r, const struct bench_stats *s, const char *whose)
{
	char text[32];

	if (s->sent != s->completed || s->doubled || s->lost)
		printf("  %s: %" PRIu64 " requests sent, %" PRIu64 " replies, %" PRIu64 " lost, %" PRIu64 " doubled\n", whose,
			s->sent, s->completed, s->lost, s->doubled);
	for (unsigned v = 0; v < BENCH_VERBS; v++)
		for (unsigned c = 1; c < TY_CODE_COUNT; c++)
			if (s->codes[v][c])
				printf("  %-12s %-22s %12s%s\n", bench_row_name((enum bench_row)v), ty_code_name((enum ty_code)c),
					commas(s->codes[v][c], text),
					c == TY_BUSY                             ? "  sent again"
					: c == TY_NO_SPACE                       ? "  not stored"
					: r->options->tolerate & 1u << c         ? "  tolerated"
										 : "");
	for (unsigned i = 0; i < s->error_texts; i++)
		fprintf(stderr, "error: %s\n", s->errors[i]);
	for (unsigned i = 0; i < s->wrong_texts; i++)
		fprintf(stderr, "wrong: %s\n", s->wrong[i]);
	if (s->exit_code && s == r->stats) /* the PINGs' fate is part of the load's */
		fprintf(stderr, "tyer-bench: %s\n", s->fatal);
}

static void print_replay(const struct bench_report *r)
{
	const struct bench_options *o = r->options;
	const struct bench_stats *s = r->stats;
	char speed[32] = "max";

	if (o->speed > 0)
		snprintf(speed, sizeof speed, "%g", o->speed);
	printf("replay of %s: geometry %s, %s, device %s, %" PRIu64 " client%s x %" PRIu64 ", speed %s, seed %" PRIu64 "%s\n\n",
		r->trace, o->geometry.name, bench_layout_name(o->geometry.layout), o->device, o->clients,
		o->clients == 1 ? "" : "s", o->concurrency, speed, o->seed, r->interrupted ? ", INTERRUPTED" : "");
	printf("  %-22s %16.3f s\n", "wall time", r->wall_s);
	print_count("requests", s->requests, "");
	if (s->requests_failed)
		print_count("requests failed", s->requests_failed, "");
	if (s->requests_left)
		print_count("requests not begun", s->requests_left, "");
	print_count("chunks", s->chunks, "");
	print_share("hits", s->hits, s->chunks);
	print_share("ceiling of the trace", r->ceiling * r->parts, r->trace_blocks * r->parts);
	print_count("chunks checked", s->checked_chunks, "");
	print_count("blocks checked", s->checked_blocks, "");
	print_count("chunks wrong", s->wrong_chunks, "");
	print_count("words wrong", s->wrong_words, "");
	print_count("chunks stored", s->stored, "");
	print_count("chunks present", s->present, "not stored again");
	print_count("chunks dropped", s->dropped, "no space");
	print_count("busy", s->busy_retries, "sent again");
	printf("  %-22s %16.3f GB/s  %.3f GB/s in an operation\n", "retrieved", bench_rate(s->retrieved_bytes, r->wall_s),
		bench_rate_in_operation(s->retrieved_bytes, &s->rows[BENCH_ROW_RETRIEVE]));
	printf("  %-22s %16.3f GB/s  %.3f GB/s in an operation\n", "stored", bench_rate(s->stored_bytes, r->wall_s),
		bench_rate_in_operation(s->stored_bytes, &s->rows[BENCH_ROW_STORE]));
}

static void print_spread(const char *name, const struct bench_spread *s, const char *unit)
{
	printf("  %-22s %10.3f %10.3f %10.3f %s\n", name, s->median, s->min, s->max, unit);
}

static void print_copy(const struct bench_report *r)
{
	const struct bench_options *o = r->options;
	const struct bench_copy_report *c = r->copy;

	printf("copy: geometry %s, %s, device %s, %u repeats of %" PRIu64 " chunks of %" PRIu64 " bytes, %" PRIu64
	       " an operation, %" PRIu64 " in flight, seed %" PRIu64 "\n\n",
		o->geometry.name, bench_layout_name(o->geometry.layout), o->device, c->repeats, c->chunks, c->chunk_bytes,
		o->op_chunks, o->depth, c->seed);
	printf("  %-22s %10s %10s %10s\n", "", "median", "min", "max");
	print_spread("store", &c->store, "GB/s");
	print_spread("retrieve", &c->retrieve, "GB/s");
	if (c->raw_bytes) {
		print_spread("raw copy from pool", &c->raw_store, "GB/s");
		print_spread("raw copy to pool", &c->raw_retrieve, "GB/s");
		print_spread("store / raw", &c->store_ratio, "");
		print_spread("retrieve / raw", &c->retrieve_ratio, "");
	}
	if (c->has_hbm)
		printf("  %-22s %10.1f MiB\n", "GPU memory taken", (double)c->hbm_bytes / (1 << 20));
	putchar('\n');
	print_count("chunks stored", r->stats->stored, "");
	print_count("chunks present", r->stats->present, "not stored: not fresh");
	print_count("chunks dropped", r->stats->dropped, "no space");
	print_count("chunks checked", r->stats->checked_chunks, "");
	print_count("chunks wrong", r->stats->wrong_chunks, "");
	print_count("words wrong", r->stats->wrong_words, "");
	print_count("busy", r->stats->busy_retries, "sent again");
}

int bench_report(const struct bench_report *r)
{
	const struct bench_stats *s = r->stats;
	bool bad = bench_stats_bad(s) || (r->pings && bench_stats_bad(r->pings)) || r->interrupted || r->missed_ceiling;
	bool began = s->sent || r->copy;
	int code = s->exit_code ? s->exit_code : bad;

	if (began) {
		if (r->options->command == BENCH_REPLAY)
			print_replay(r);
		else if (r->copy)
			print_copy(r);
		print_latencies(r);
		putchar('\n');
	}
	fflush(stdout);
	print_trouble(r, s, "load");
	if (r->pings)
		print_trouble(r, r->pings, "PINGs");
	if (r->missed_ceiling)
		fprintf(stderr, "tyer-bench: %" PRIu64 " hits, expected the ceiling of %" PRIu64 " (--require-ceiling)\n", s->hits,
			r->ceiling * r->parts);
	if (r->options->json[0] && bench_report_json(r, code) != 0 && code == 0)
		code = 1;
	if (!began)
		return code;
	if (r->options->command == BENCH_PING)
		printf("ping: %" PRIu64 " sent, %" PRIu64 " answered\n", s->sent, s->completed);
	else
		printf("%s: %" PRIu64 " requests, %" PRIu64 " chunks checked, %" PRIu64 " wrong\n",
			bench_command_name(r->options->command), r->copy ? s->completed : s->requests, s->checked_chunks,
			s->wrong_chunks);
	if (fflush(stdout) != 0 && code == 0)
		code = 1;
	return code;
}
