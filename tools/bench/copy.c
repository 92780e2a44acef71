/* SPDX-License-Identifier: Apache-2.0
 *
 * How fast chunks go in and out: fill, STORE all with `depth` operations in flight, wipe, LOOKUP, RETRIEVE all into other
 * blocks, check every byte; again with new contents. Beside it, in the same run, raw contiguous copies of as many bytes.
 */
#include "engine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "report.h"

#define RETRY_NS 1000000ll
#define GIVE_UP_NS 60000000000ll /* of LOOKUP and END_SESSION */

struct copy_run;

/* One STORE or RETRIEVE of the phase under way. */
struct copy_op {
	struct copy_run *run;
	uint32_t first, count;
	int64_t retry_at; /* 0 = no retry is due */
	bool busy;        /* in flight, or waiting for its retry */
};

struct copy_run {
	struct bench_engine *engine;
	const struct bench_options *options;
	struct bench_copy_report *report;
	struct bench_item *items; /* of all chunks */
	uint32_t *blocks;         /* (chunks + 1) chunks' blocks; the items' blocks lie in it */
	uint8_t *hashes;
	uint64_t session;
	uint32_t chunks, hits;
	enum bench_row verb; /* of the phase */
	uint32_t next, end;  /* chunks of the phase not yet sent */
	uint32_t in_flight;
	bool replied, busy, failed;
	struct copy_op ops[64];
	double *store, *retrieve, *raw_store, *raw_retrieve, *store_ratio, *retrieve_ratio; /* of the repeats */
};

static void copy_error(struct copy_run *run, enum bench_row verb, const struct ty_result *result)
{
	run->failed = true;
	bench_engine_error(run->engine, verb, result->code, result->error, "copy");
}

/* ---- LOOKUP and END_SESSION ---------------------------------------------------------------- */

static void on_session(void *user, enum bench_row verb, const struct ty_result *result)
{
	struct copy_run *run = user;

	run->replied = true;
	run->busy = result->code == TY_BUSY;
	if (run->busy)
		run->engine->stats->busy_retries++;
	else if (result->code != TY_OK)
		copy_error(run, verb, result);
	else if (verb == BENCH_ROW_LOOKUP)
		run->hits = result->lookup.hits;
}

static bool call_session_once(struct copy_run *run, enum bench_row verb)
{
	struct bench_engine *e = run->engine;
	struct ty_chain chain = {.hashes = run->hashes, .chunk_count = run->chunks};
	struct bench_call *call = bench_call_begin(e->calls, verb, 0, on_session, run);
	struct ty_error err = {0};
	enum ty_code code;

	run->replied = false;
	if (verb == BENCH_ROW_LOOKUP)
		code = ty_client_lookup(e->client, run->session, &chain, bench_call_done, call, &err);
	else
		code = ty_client_end_session(e->client, run->session, bench_call_done, call, &err);
	if (code != TY_OK) {
		struct ty_result refused = {.code = code, .error = err.text};

		bench_call_refused(call);
		on_session(run, verb, &refused);
	}
	return bench_engine_wait(e, &run->replied) && !run->failed;
}

static bool call_session(struct copy_run *run, enum bench_row verb)
{
	int64_t end = bench_now() + GIVE_UP_NS;

	while (call_session_once(run, verb)) {
		if (!run->busy)
			return true;
		if (bench_now() > end) {
			bench_fatal(run->engine->stats, 1, "%s: BUSY for too long", bench_row_name(verb));
			return false;
		}
		ty_client_poll(run->engine->client, 0, RETRY_NS / 1000);
	}
	return false;
}

/* ---- STORE and RETRIEVE -------------------------------------------------------------------- */

static void count_op(struct copy_run *run, const struct copy_op *op, const struct ty_result *result)
{
	struct bench_stats *stats = run->engine->stats;
	uint64_t bytes = run->report->chunk_bytes, sum;

	if (run->verb == BENCH_ROW_RETRIEVE) {
		stats->retrieved_bytes += op->count * bytes;
		stats->miscounted += result->retrieve.chunks != op->count;
		return;
	}
	if (result->code == TY_NO_SPACE) {
		stats->dropped += op->count;
		return;
	}
	sum = (uint64_t)result->store.stored + result->store.present + result->store.dropped;
	stats->stored += result->store.stored;
	stats->present += result->store.present;
	stats->dropped += result->store.dropped;
	stats->stored_bytes += result->store.stored * bytes;
	if (sum != op->count) {
		stats->miscounted++;
		bench_note_error(stats, "STORE: %" PRIu64 " chunks accounted for, expected %u", sum, op->count);
	}
}

static void on_op(void *user, enum bench_row verb, const struct ty_result *result)
{
	struct copy_op *op = user;
	struct copy_run *run = op->run;

	if (result->code == TY_BUSY) {
		run->engine->stats->busy_retries++;
		op->retry_at = bench_now() + RETRY_NS;
		return;
	}
	op->busy = false;
	run->in_flight--;
	if (result->code == TY_OK || (result->code == TY_NO_SPACE && verb == BENCH_ROW_STORE))
		count_op(run, op, result);
	else
		copy_error(run, verb, result);
}

static void send_op(struct copy_run *run, struct copy_op *op)
{
	struct bench_engine *e = run->engine;
	uint32_t per_chunk = e->pool->shape.blocks_per_chunk, count = op->count * per_chunk;
	const uint32_t *blocks = run->items[op->first].blocks; /* chunk after chunk */
	struct ty_transfer transfer = {
		.session = run->session,
		.registration = e->registration,
		.first = op->first,
		.count = op->count,
		.blocks = &blocks,
		.block_counts = &count,
		.group_count = 1,
	};
	struct bench_call *call = bench_call_begin(e->calls, run->verb, 0, on_op, op);
	struct ty_error err = {0};
	enum ty_code code;

	op->retry_at = 0;
	code = run->verb == BENCH_ROW_STORE ? ty_client_store(e->client, &transfer, bench_call_done, call, &err)
					    : ty_client_retrieve(e->client, &transfer, bench_call_done, call, &err);
	if (code != TY_OK) {
		struct ty_result refused = {.code = code, .error = err.text};

		bench_call_refused(call);
		on_op(op, run->verb, &refused);
	}
}

/* Send what there is room for, and what is due again. Returns the microseconds until the next retry. */
static uint32_t send_ops(struct copy_run *run)
{
	int64_t now = bench_now(), wait = 100000000;

	for (uint32_t i = 0; i < run->options->depth; i++) {
		struct copy_op *op = &run->ops[i];

		if (!op->busy && run->next < run->end && !run->failed) {
			uint32_t left = run->end - run->next, most = (uint32_t)run->options->op_chunks;

			*op = (struct copy_op){.run = run, .first = run->next, .count = left < most ? left : most, .busy = true};
			run->next += op->count;
			run->in_flight++;
			send_op(run, op);
		} else if (op->busy && op->retry_at && now >= op->retry_at) {
			send_op(run, op);
		}
		if (op->busy && op->retry_at && op->retry_at - now < wait)
			wait = op->retry_at - now;
	}
	return wait > 0 ? (uint32_t)(wait / 1000) + 1 : 0;
}

/* All operations of a phase; seconds from the first request to the last reply. */
static bool move_all(struct copy_run *run, enum bench_row verb, uint32_t end, double *seconds)
{
	int64_t start = bench_now(), age_checked = start;

	run->verb = verb;
	run->next = 0;
	run->end = end;
	while ((run->next < run->end && !run->failed) || run->in_flight) {
		uint32_t wait = send_ops(run);

		if (run->in_flight)
			ty_client_poll(run->engine->client, 0, wait);
		if (bench_now() - age_checked > 1000000000) {
			age_checked = bench_now();
			if (bench_engine_overdue(run->engine))
				return false;
		}
	}
	*seconds = (double)(bench_now() - start) * 1e-9;
	return !run->failed;
}

/* ---- a repeat ------------------------------------------------------------------------------ */

static bool pool_failed(struct copy_run *run, const struct ty_error *err)
{
	bench_fatal(run->engine->stats, 1, "the pool: %s: %s", ty_code_name(err->code), err->text);
	return false;
}

/* Chunk i has the blocks of place i + shift: shift 1 gives every chunk other blocks than shift 0. */
static void place_chunks(struct copy_run *run, uint32_t shift)
{
	uint32_t per_chunk = run->engine->pool->shape.blocks_per_chunk;

	for (uint32_t i = 0; i < run->chunks; i++)
		run->items[i] = (struct bench_item){.tag = i, .blocks = run->blocks + (size_t)(i + shift) * per_chunk};
}

static bool check_all(struct copy_run *run, uint32_t count)
{
	struct bench_engine *e = run->engine;
	struct bench_wrong wrong;
	struct ty_error err = {0};
	char text[640];

	if (bench_pool_check(e->pool, e->contents.seed, run->items, count, &wrong, &err) != TY_OK)
		return pool_failed(run, &err);
	e->stats->checked_chunks += count;
	e->stats->checked_blocks += (uint64_t)count * e->pool->shape.blocks_per_chunk;
	if (wrong.words) {
		e->stats->wrong_words += wrong.words;
		e->stats->wrong_chunks += wrong.chunks;
		bench_describe_wrong(&e->contents, &e->pool->shape, run->items, &wrong, text, sizeof text);
		bench_note_wrong(e->stats, text);
	}
	return true;
}

static bool raw_copies(struct copy_run *run, double *from_pool, double *to_pool)
{
	struct ty_error err = {0};
	double seconds;

	if (run->options->raw_off)
		return true;
	if (bench_pool_raw_copy(run->engine->pool, true, run->report->raw_bytes, &seconds, &err) != TY_OK)
		return pool_failed(run, &err);
	*from_pool = bench_rate(run->report->raw_bytes, seconds);
	if (bench_pool_raw_copy(run->engine->pool, false, run->report->raw_bytes, &seconds, &err) != TY_OK)
		return pool_failed(run, &err);
	*to_pool = bench_rate(run->report->raw_bytes, seconds);
	return true;
}

static bool store_phase(struct copy_run *run, double *rate)
{
	struct bench_engine *e = run->engine;
	uint64_t before = e->stats->stored_bytes;
	struct ty_error err = {0};
	double seconds;

	place_chunks(run, 0);
	if (bench_pool_fill(e->pool, e->contents.seed, run->items, run->chunks, &err) != TY_OK)
		return pool_failed(run, &err);
	run->session++;
	if (!call_session(run, BENCH_ROW_LOOKUP))
		return false;
	if (run->hits) {
		e->stats->miscounted++;
		bench_note_error(e->stats, "%u chunks of fresh contents were hits: give another --seed", run->hits);
	}
	if (!move_all(run, BENCH_ROW_STORE, run->chunks, &seconds) || !call_session(run, BENCH_ROW_END))
		return false;
	*rate = bench_rate(e->stats->stored_bytes - before, seconds);
	return true;
}

static bool retrieve_phase(struct copy_run *run, double *rate)
{
	struct bench_engine *e = run->engine;
	uint64_t before = e->stats->retrieved_bytes, poison = bench_poison_seed(e->contents.seed);
	struct ty_error err = {0};
	double seconds = 0;

	for (uint32_t shift = 0; shift < 2; shift++) {
		place_chunks(run, shift);
		if (bench_pool_fill(e->pool, poison, run->items, run->chunks, &err) != TY_OK)
			return pool_failed(run, &err);
	}
	run->session++;
	if (!call_session(run, BENCH_ROW_LOOKUP))
		return false;
	e->stats->chunks += run->chunks;
	e->stats->hits += run->hits;
	if (run->hits > run->chunks) {
		bench_fatal(e->stats, 1, "LOOKUP: %u hits of %u chunks", run->hits, run->chunks);
		return false;
	}
	if (run->hits < run->chunks) { /* hits end at the first chunk that is missing: an arena that is too small has lost the first ones */
		bench_fatal(e->stats, 1, "LOOKUP finds %u of the %u chunks just stored, expected all, to RETRIEVE and check: does the service's "
			"arena hold %" PRIu64 " bytes?", run->hits, run->chunks, run->chunks * run->report->chunk_bytes);
		return false;
	}
	if (!move_all(run, BENCH_ROW_RETRIEVE, run->chunks, &seconds) || !check_all(run, run->chunks))
		return false;
	*rate = bench_rate(e->stats->retrieved_bytes - before, seconds);
	return call_session(run, BENCH_ROW_END);
}

static bool one_repeat(struct copy_run *run, uint32_t number, uint32_t counted)
{
	struct bench_engine *e = run->engine;
	double store = 0, retrieve = 0, from_pool = 0, to_pool = 0;

	e->contents.seed = bench_mix(run->report->seed, number);
	for (uint32_t i = 0; i < run->chunks; i++)
		bench_hash(e->contents.seed, i, run->hashes + (size_t)i * TY_KEY_BYTES);
	if (!raw_copies(run, &from_pool, &to_pool) || !store_phase(run, &store) || !retrieve_phase(run, &retrieve))
		return false;
	run->store[counted] = store;
	run->retrieve[counted] = retrieve;
	run->raw_store[counted] = from_pool;
	run->raw_retrieve[counted] = to_pool;
	run->store_ratio[counted] = from_pool > 0 ? store / from_pool : 0;
	run->retrieve_ratio[counted] = to_pool > 0 ? retrieve / to_pool : 0;
	return true;
}

static void forget_warmup(struct bench_stats *stats)
{
	for (unsigned i = 0; i < BENCH_ROWS; i++)
		ty_histogram_reset(&stats->rows[i]);
}

static void run_repeats(struct copy_run *run)
{
	const struct bench_options *o = run->options;
	struct bench_copy_report *report = run->report;

	for (uint32_t i = 0; i < o->warmup + o->repeats; i++) {
		uint32_t counted = i < o->warmup ? 0 : i - (uint32_t)o->warmup;

		if (i == o->warmup)
			forget_warmup(run->engine->stats);
		if (!one_repeat(run, i, counted))
			break;
		report->repeats = counted + (i >= o->warmup);
	}
	report->store = bench_spread_of(run->store, report->repeats);
	report->retrieve = bench_spread_of(run->retrieve, report->repeats);
	report->raw_store = bench_spread_of(run->raw_store, report->repeats);
	report->raw_retrieve = bench_spread_of(run->raw_retrieve, report->repeats);
	report->store_ratio = bench_spread_of(run->store_ratio, report->repeats);
	report->retrieve_ratio = bench_spread_of(run->retrieve_ratio, report->repeats);
}

/* ---- before and after ---------------------------------------------------------------------- */

static bool fits(struct copy_run *run, struct bench_shape *shape)
{
	struct bench_engine *e = run->engine;
	const struct bench_options *o = run->options;
	struct ty_error err = {0};
	uint64_t bytes;

	if (bench_shape_make(&o->geometry, e->info->chunk_tokens, shape, &err) != TY_OK) {
		bench_fatal(e->stats, 2, "%s", err.text);
		return false;
	}
	bytes = (o->chunks + 1) * shape->chunk_bytes; /* one more place: every chunk comes back to another */
	if (o->pool_bytes && bytes > o->pool_bytes) {
		bench_fatal(e->stats, 2, "--chunks %" PRIu64 ": a pool of %" PRIu64 " bytes, expected at most --pool-bytes %" PRIu64,
			o->chunks, bytes, o->pool_bytes);
		return false;
	}
	if (o->op_chunks > e->info->max_operation_chunks || o->depth > e->info->max_operations) {
		bench_fatal(e->stats, 2, "--op-chunks %" PRIu64 ", --depth %" PRIu64 ": the service allows %u and %u", o->op_chunks,
			o->depth, e->info->max_operation_chunks, e->info->max_operations);
		return false;
	}
	return true;
}

/* The pool's blocks in no order; and room for the figures. */
static bool make_room(struct copy_run *run)
{
	uint32_t count = run->engine->pool->block_count;
	size_t repeats = (size_t)run->options->repeats;
	double *figures = calloc(6 * repeats, sizeof *figures);

	run->store = figures;
	run->blocks = reallocarray(NULL, count, sizeof *run->blocks);
	run->items = reallocarray(NULL, run->chunks, sizeof *run->items);
	run->hashes = reallocarray(NULL, run->chunks, TY_KEY_BYTES);
	if (!figures || !run->blocks || !run->items || !run->hashes) {
		bench_fatal(run->engine->stats, 1, "no memory for %u chunks", run->chunks);
		return false;
	}
	run->retrieve = figures + repeats;
	run->raw_store = figures + 2 * repeats;
	run->raw_retrieve = figures + 3 * repeats;
	run->store_ratio = figures + 4 * repeats;
	run->retrieve_ratio = figures + 5 * repeats;
	for (uint32_t i = 0; i < count; i++)
		run->blocks[i] = i;
	for (uint32_t i = count - 1; i > 0; i--) {
		uint32_t k = (uint32_t)(bench_mix(run->report->seed, i) % ((uint64_t)i + 1)), keep = run->blocks[i];

		run->blocks[i] = run->blocks[k];
		run->blocks[k] = keep;
	}
	return true;
}

static void measure_memory(struct copy_run *run, uint64_t *bytes)
{
	struct ty_error err = {0};

	if (run->options->hbm && bench_pool_free_memory(run->engine->pool, bytes, &err) != TY_OK)
		bench_fatal(run->engine->stats, 2, "%s", err.text);
}

static bool prepare(struct copy_run *run, uint64_t *free_before)
{
	struct bench_engine *e = run->engine;
	struct bench_shape shape;

	if (!fits(run, &shape))
		return false;
	run->report->chunk_bytes = shape.chunk_bytes;
	run->report->chunks = run->chunks = (uint32_t)run->options->chunks;
	e->contents = (struct bench_contents){.parts = 1, .max_tag = run->chunks};
	if (!bench_engine_pool(e, &shape, run->chunks + 1))
		return false;
	measure_memory(run, free_before);
	if (e->stats->exit_code || !bench_engine_register(e))
		return false;
	run->report->raw_bytes = run->chunks * shape.chunk_bytes;
	if (run->report->raw_bytes > run->options->raw_bytes)
		run->report->raw_bytes = run->options->raw_bytes;
	if (run->options->raw_off)
		run->report->raw_bytes = 0;
	return make_room(run);
}

static void copy_all(struct copy_run *run)
{
	uint64_t free_before = 0, free_after = 0;

	if (prepare(run, &free_before)) {
		run_repeats(run);
		measure_memory(run, &free_after);
		run->report->has_hbm = run->options->hbm;
		run->report->hbm_bytes = (int64_t)(free_before - free_after);
	}
	free(run->blocks);
	free(run->items);
	free(run->hashes);
	free(run->store);
}

int bench_copy(const struct bench_options *o)
{
	struct bench_copy_report report = {.seed = o->seed};
	struct bench_stats *stats = calloc(1, sizeof *stats);
	struct copy_run *run = calloc(1, sizeof *run);
	struct bench_engine engine = {0};
	struct bench_report all = {.options = o, .stats = stats, .copy = &report};
	int64_t start = bench_now();
	int code = 1;

	while (report.seed == 0)
		if (getrandom(&report.seed, sizeof report.seed, 0) != (ssize_t)sizeof report.seed)
			report.seed = (uint64_t)start;
	report.seed &= INT64_MAX; /* so that JSON holds it too */
	if (!stats || !run) {
		fputs("tyer-bench: no memory\n", stderr);
		goto out;
	}
	*run = (struct copy_run){.engine = &engine, .options = o, .report = &report};
	if (bench_engine_open(&engine, o, stats, 0, true))
		copy_all(run);
	bench_engine_close(&engine);
	all.wall_s = (double)(bench_now() - start) * 1e-9;
	if (!report.repeats)
		all.copy = NULL;
	code = bench_report(&all);
out:
	free(stats);
	free(run);
	return code;
}
