/* SPDX-License-Identifier: Apache-2.0
 *
 * The report for programs. Times are microseconds, rates GB/s (10^9 bytes). docs/bench.md says what each field is.
 */
#include "report_json.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

static json_t *number(uint64_t value)
{
	return json_integer((json_int_t)value);
}

static void put(json_t *object, const char *name, json_t *value)
{
	/* Want of memory shows as a missing value here, and as a failed dump below. */
	json_object_set_new(object, name, value);
}

static json_t *row_json(const struct ty_histogram *h)
{
	json_t *o = json_object();

	put(o, "count", number(h->count));
	put(o, "mean_us", json_real(ty_histogram_mean(h) * 1e-3));
	put(o, "p50_us", json_real((double)ty_histogram_quantile(h, 0.5) * 1e-3));
	put(o, "p90_us", json_real((double)ty_histogram_quantile(h, 0.9) * 1e-3));
	put(o, "p99_us", json_real((double)ty_histogram_quantile(h, 0.99) * 1e-3));
	put(o, "p999_us", json_real((double)ty_histogram_quantile(h, 0.999) * 1e-3));
	put(o, "max_us", json_real((double)h->max * 1e-3));
	return o;
}

static json_t *latencies(const struct bench_report *r)
{
	static const char *const keys[BENCH_ROWS] = {"lookup", "retrieve", "store", "end_session", "flush", "ping", "ping_intended",
		"sleep_late", "request", "request_intended"};
	json_t *o = json_object();

	for (unsigned i = 0; i < BENCH_ROWS; i++) {
		const struct ty_histogram *h = &r->stats->rows[i];

		if (r->pings && (i == BENCH_ROW_PING || i == BENCH_ROW_PING_INTENDED || i == BENCH_ROW_SLEEP))
			h = &r->pings->rows[i];
		if (h->count)
			put(o, keys[i], row_json(h));
	}
	return o;
}

static json_t *errors(const struct bench_stats *s)
{
	json_t *o = json_object();

	for (unsigned c = 1; c < TY_CODE_COUNT; c++) {
		uint64_t count = bench_sum_codes(s, (enum ty_code)c);

		if (count)
			put(o, ty_code_name((enum ty_code)c), number(count));
	}
	return o;
}

static json_t *replies(const struct bench_stats *s)
{
	json_t *o = json_object();

	put(o, "sent", number(s->sent));
	put(o, "completed", number(s->completed));
	put(o, "lost", number(s->lost));
	put(o, "doubled", number(s->doubled));
	put(o, "miscounted", number(s->miscounted));
	put(o, "unexpected_errors", number(s->unexpected));
	put(o, "tolerated_errors", number(s->tolerated));
	put(o, "busy_retries", number(s->busy_retries));
	put(o, "codes", errors(s));
	return o;
}

static json_t *texts(const struct bench_stats *s)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < s->error_texts; i++)
		json_array_append_new(array, json_string(s->errors[i]));
	for (unsigned i = 0; i < s->wrong_texts; i++)
		json_array_append_new(array, json_string(s->wrong[i]));
	if (s->exit_code)
		json_array_append_new(array, json_string(s->fatal));
	return array;
}

static void put_chunks(json_t *o, const struct bench_stats *s)
{
	put(o, "chunks_checked", number(s->checked_chunks));
	put(o, "blocks_checked", number(s->checked_blocks));
	put(o, "chunks_wrong", number(s->wrong_chunks));
	put(o, "words_wrong", number(s->wrong_words));
	put(o, "chunks_stored", number(s->stored));
	put(o, "chunks_present", number(s->present));
	put(o, "chunks_dropped", number(s->dropped));
	put(o, "stored_bytes", number(s->stored_bytes));
	put(o, "retrieved_bytes", number(s->retrieved_bytes));
}

static void put_replay(json_t *o, const struct bench_report *r)
{
	const struct bench_stats *s = r->stats;

	put(o, "trace", json_string(r->trace));
	put(o, "clients", number(r->options->clients));
	put(o, "concurrency", number(r->options->concurrency));
	put(o, "speed", r->options->speed > 0 ? json_real(r->options->speed) : json_string("max"));
	put(o, "interrupted", json_boolean(r->interrupted));
	put(o, "requests", number(s->requests));
	put(o, "requests_failed", number(s->requests_failed));
	put(o, "requests_not_begun", number(s->requests_left));
	put(o, "chunks", number(s->chunks));
	put(o, "hits", number(s->hits));
	put(o, "hit_rate", json_real(bench_share(s->hits, s->chunks)));
	put(o, "ceiling", number(r->ceiling * r->parts));
	put(o, "ceiling_rate", json_real(bench_share(r->ceiling, r->trace_blocks)));
	put(o, "retrieve_gbps", json_real(bench_rate(s->retrieved_bytes, r->wall_s)));
	put(o, "store_gbps", json_real(bench_rate(s->stored_bytes, r->wall_s)));
	put(o, "retrieve_gbps_in_operation",
		json_real(bench_rate_in_operation(s->retrieved_bytes, &s->rows[BENCH_ROW_RETRIEVE])));
	put(o, "store_gbps_in_operation", json_real(bench_rate_in_operation(s->stored_bytes, &s->rows[BENCH_ROW_STORE])));
}

static json_t *spread(const struct bench_spread *s)
{
	return json_pack("{s:f,s:f,s:f}", "median", s->median, "min", s->min, "max", s->max);
}

static void put_copy(json_t *o, const struct bench_report *r)
{
	const struct bench_copy_report *c = r->copy;

	put(o, "repeats", number(c->repeats));
	put(o, "chunks", number(c->chunks));
	put(o, "chunk_bytes", number(c->chunk_bytes));
	put(o, "op_chunks", number(r->options->op_chunks));
	put(o, "depth", number(r->options->depth));
	put(o, "store_gbps", spread(&c->store));
	put(o, "retrieve_gbps", spread(&c->retrieve));
	if (c->raw_bytes) {
		put(o, "raw_bytes", number(c->raw_bytes));
		put(o, "raw_from_pool_gbps", spread(&c->raw_store));
		put(o, "raw_to_pool_gbps", spread(&c->raw_retrieve));
		put(o, "store_to_raw", spread(&c->store_ratio));
		put(o, "retrieve_to_raw", spread(&c->retrieve_ratio));
	}
	if (c->has_hbm)
		put(o, "hbm_bytes", json_integer(c->hbm_bytes));
}

int bench_report_json(const struct bench_report *r, int exit_code)
{
	const struct bench_options *o = r->options;
	json_t *root = json_object();
	FILE *out = strcmp(o->json, "-") == 0 ? stdout : fopen(o->json, "w");
	int status = -1;

	put(root, "command", json_string(bench_command_name(o->command)));
	put(root, "version", json_string(TY_VERSION));
	put(root, "exit_code", json_integer(exit_code));
	put(root, "wall_s", json_real(r->wall_s));
	if (o->command != BENCH_PING) {
		put(root, "geometry", json_string(o->geometry.name));
		put(root, "layout", json_string(bench_layout_name(o->geometry.layout)));
		put(root, "device", json_string(o->device));
		put(root, "seed", number(r->copy ? r->copy->seed : o->seed));
		put_chunks(root, r->stats);
	}
	if (o->command == BENCH_REPLAY)
		put_replay(root, r);
	if (r->copy)
		put_copy(root, r);
	put(root, "latency", latencies(r));
	put(root, "replies", replies(r->stats));
	if (r->pings)
		put(root, "ping_replies", replies(r->pings));
	put(root, "texts", texts(r->stats));
	if (!out)
		fprintf(stderr, "tyer-bench: --json %s: %s\n", o->json, strerror(errno));
	else if (json_dumpf(root, out, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) != 0 || fputc('\n', out) == EOF || fflush(out) != 0)
		fprintf(stderr, "tyer-bench: --json %s: cannot write: %s\n", o->json, strerror(errno));
	else
		status = 0;
	if (out && out != stdout && fclose(out) != 0)
		status = -1;
	json_decref(root);
	return status;
}
