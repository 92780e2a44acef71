/* SPDX-License-Identifier: Apache-2.0
 *
 * One request of the trace: LOOKUP its chunks, RETRIEVE the hits into poisoned blocks and check every byte, fill the
 * rest as if computed and STORE it, END_SESSION. A prompt larger than the session's share of the pool goes through it in
 * windows. When it has failed and its blocks are in use, they are FLUSHed before the next request has them. At most one request of
 * a session is in flight, and local work (poison, check, fill) is done in slices, so that
 * the other sessions' replies are noticed in time.
 */
#include "engine.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/order.h"

#define FIRST_BACKOFF_NS 1000000ll /* before a BUSY request is sent again; doubles */
#define LAST_BACKOFF_NS 50000000ll
#define ALIVE_S (TY_HEAD_START_S << (TY_BAND_ALIVE - TY_BAND_RAISED)) /* what ALIVE means where nothing else is said */

static void next_window(struct bench_session *s);
static void finish(struct bench_session *s);
static void on_reply(void *user, enum bench_row verb, const struct ty_result *result);

bool bench_session_init(struct bench_session *s, struct bench_engine *e, uint32_t number, const uint32_t *own)
{
	uint64_t blocks = (uint64_t)e->window * e->pool->shape.blocks_per_chunk;
	uint64_t chunks = (uint64_t)e->trace->largest * e->parts;

	*s = (struct bench_session){.engine = e, .number = number};
	s->hashes = reallocarray(NULL, chunks, TY_KEY_BYTES);
	s->own = reallocarray(NULL, blocks, sizeof *s->own);
	s->blocks = reallocarray(NULL, blocks, sizeof *s->blocks);
	s->items = reallocarray(NULL, e->window, sizeof *s->items);
	if (!s->hashes || !s->own || !s->blocks || !s->items) {
		bench_session_free(s);
		return false;
	}
	memcpy(s->own, own, blocks * sizeof *own);
	/* Words of the timeline: 1 and 2 are session 0's, and so on. */
	s->ready.word = 1 + 2 * number;
	s->done.word = 2 + 2 * number;
	assert(s->done.word < TY_TIMELINE_WORDS);
	return true;
}

void bench_session_free(struct bench_session *s)
{
	free(s->hashes);
	free(s->own);
	free(s->blocks);
	free(s->items);
	*s = (struct bench_session){0};
}

bool bench_session_ready(const struct bench_session *s)
{
	return s->step == BENCH_IDLE && !s->quarantined;
}

static uint32_t tag_of(const struct bench_session *s, uint32_t chunk)
{
	const struct bench_engine *e = s->engine;

	return e->trace->ids[s->request->first + chunk / e->parts] * e->parts + chunk % e->parts;
}

/* ---- sending ------------------------------------------------------------------------------- */

static enum bench_row verb_of(const struct bench_session *s)
{
	switch (s->step) {
	case BENCH_LOOKUP:
		return BENCH_ROW_LOOKUP;
	case BENCH_RETRIEVE:
		return BENCH_ROW_RETRIEVE;
	case BENCH_STORE:
		return BENCH_ROW_STORE;
	default:
		assert(s->step == BENCH_END);
		return BENCH_ROW_END;
	}
}

/* What becomes of the conversation, as far as the engine is to say. The head start that ALIVE gives is meant in the trace's
 * time, and said in the service's: as close to it as there is one; the least when nobody knows how fast time goes. */
static struct ty_hint_said hint_of(const struct bench_session *s)
{
	const struct bench_history *h = s->engine->history;
	const struct bench_options *o = s->engine->options;
	struct ty_hint_said said = {.kind = TY_HINT_NONE};

	if (h && h->alive[s->request_number]) {
		said.kind = TY_HINT_ALIVE;
		said.keep_s = o->speed > 0 && ALIVE_S / o->speed > 1 ? (uint32_t)(ALIVE_S / o->speed) : 1;
		if (said.keep_s > TY_KEEP_MAX_S)
			said.keep_s = TY_KEEP_MAX_S;
	} else if (h && o->hints == BENCH_HINTS_BOTH) {
		said.kind = TY_HINT_DONE;
	}
	return said;
}

static void send_step(struct bench_session *s)
{
	struct bench_engine *e = s->engine;
	uint32_t block_count = s->count * e->pool->shape.blocks_per_chunk;
	const uint32_t *blocks = s->blocks;
	struct ty_chain chain = {.hashes = s->hashes, .chunk_count = s->chunks};
	struct ty_lookup lookup = {.session = s->id, .chain = &chain,
		.conversation = e->history ? e->history->conversations[s->request_number] : 0};
	struct ty_hint_said hint = hint_of(s);
	struct ty_transfer transfer = {
		.session = s->id,
		.registration = e->registration,
		.first = s->first,
		.count = s->count,
		.blocks = &blocks,
		.block_counts = &block_count,
		.group_count = 1,
		.done = s->done,
	};
	struct ty_error err = {0};
	enum bench_row verb = verb_of(s);
	struct bench_call *call = bench_call_begin(e->calls, verb, 0, on_reply, s);
	enum ty_code code;

	s->waiting = true;
	s->retry_at = 0;
	if (verb == BENCH_ROW_LOOKUP) {
		code = ty_client_lookup_with(e->client, &lookup, bench_call_done, call, &err);
	} else if (verb == BENCH_ROW_RETRIEVE) {
		code = ty_client_retrieve(e->client, &transfer, bench_call_done, call, &err);
	} else if (verb == BENCH_ROW_STORE) {
		transfer.ready = s->ready;
		code = ty_client_store(e->client, &transfer, bench_call_done, call, &err);
	} else {
		code = ty_client_end_session_as(e->client, s->id, &hint, bench_call_done, call, &err);
	}
	if (code != TY_OK) {
		struct ty_result refused = {.code = code, .error = err.text};

		bench_call_refused(call);
		on_reply(s, verb, &refused);
	}
}

static void begin_step(struct bench_session *s, enum bench_step step)
{
	s->step = step;
	s->worked = 0;
	s->busy_since = 0;
	s->backoff = FIRST_BACKOFF_NS;
	if (step == BENCH_RETRIEVE || step == BENCH_STORE)
		s->done.value++;
	if (step == BENCH_LOOKUP || step == BENCH_RETRIEVE || step == BENCH_STORE || step == BENCH_END)
		send_step(s);
}

/* Chunks [first, first + count) into or out of the session's blocks, each into others than the last time. */
static void choose_blocks(struct bench_session *s, uint32_t first, uint32_t end)
{
	struct bench_engine *e = s->engine;
	uint32_t per_chunk = e->pool->shape.blocks_per_chunk;

	s->first = first;
	s->count = end - first < e->window ? end - first : e->window;
	s->turn++;
	for (uint32_t k = 0; k < s->count; k++) {
		uint32_t from = (uint32_t)(((uint64_t)k + s->turn) % e->window);

		memcpy(s->blocks + (size_t)k * per_chunk, s->own + (size_t)from * per_chunk, per_chunk * sizeof *s->own);
		s->items[k] = (struct bench_item){.tag = tag_of(s, first + k), .blocks = s->blocks + (size_t)k * per_chunk};
	}
}

static void next_window(struct bench_session *s)
{
	uint32_t next = s->first + s->count;

	if (s->failed || next == s->chunks) {
		begin_step(s, BENCH_END);
	} else if (next < s->hits) {
		choose_blocks(s, next, s->hits);
		begin_step(s, BENCH_POISON);
	} else {
		choose_blocks(s, next, s->chunks);
		s->ready.value++;
		if (!s->engine->options->store_early) {
			begin_step(s, BENCH_FILL);
		} else {
			s->filling = true;
			s->answered = false;
			begin_step(s, BENCH_STORE);
		}
	}
}

void bench_session_start(struct bench_session *s, uint32_t request, int64_t intended)
{
	struct bench_engine *e = s->engine;

	assert(bench_session_ready(s));
	s->failed = false;
	s->request = &e->trace->requests[request];
	s->request_number = request;
	s->id = (uint64_t)request + 1; /* an engine of its own: no other client's sessions are in the way */
	s->chunks = s->request->count * e->parts;
	s->hits = s->first = s->count = 0;
	for (uint32_t i = 0; i < s->chunks; i++)
		bench_hash(e->contents.seed, tag_of(s, i), s->hashes + (size_t)i * TY_KEY_BYTES);
	s->intended = intended;
	s->started = bench_now();
	begin_step(s, BENCH_LOOKUP);
}

static void finish(struct bench_session *s)
{
	struct bench_stats *stats = s->engine->stats;
	int64_t now = bench_now();

	s->step = BENCH_IDLE;
	s->backoff = FIRST_BACKOFF_NS; /* of FLUSH, if one is needed: at once */
	s->retry_at = s->quarantined ? now : 0;
	if (s->failed) {
		stats->requests_failed++;
	} else {
		stats->requests++;
		stats->chunks += s->chunks;
		ty_histogram_add(&stats->rows[BENCH_ROW_REQUEST], (uint64_t)(now - s->started));
		if (s->engine->options->speed > 0)
			ty_histogram_add(&stats->rows[BENCH_ROW_REQUEST_INTENDED], (uint64_t)(now - s->intended));
	}
	atomic_fetch_add_explicit(&stats->progress, 1, memory_order_relaxed);
}

/* ---- replies ------------------------------------------------------------------------------- */

static void about(const struct bench_session *s, char *text, size_t size)
{
	snprintf(text, size, "request %u (line %u), chunks %u+%u of %u", s->request_number, s->request->line, s->first, s->count,
		s->chunks);
}

static void miscounted(struct bench_session *s, enum bench_row verb, const char *what)
{
	char where[96];

	about(s, where, sizeof where);
	s->engine->stats->miscounted++;
	bench_note_error(s->engine->stats, "%s: %s: %s", where, bench_row_name(verb), what);
}

static void on_lookup(struct bench_session *s, const struct ty_result *result)
{
	char text[120];

	if (result->lookup.chunks != s->chunks || result->lookup.hits > s->chunks) {
		snprintf(text, sizeof text, "%u hits of %u chunks, expected at most %u of %u", result->lookup.hits,
			result->lookup.chunks, s->chunks, s->chunks);
		miscounted(s, BENCH_ROW_LOOKUP, text);
		s->failed = true;
	} else {
		s->hits = result->lookup.hits;
		s->engine->stats->hits += s->hits;
	}
	next_window(s);
}

static void on_retrieved(struct bench_session *s, const struct ty_result *result)
{
	struct bench_engine *e = s->engine;
	char text[96];

	if (result->retrieve.chunks != s->count) {
		snprintf(text, sizeof text, "%u chunks, expected %u", result->retrieve.chunks, s->count);
		miscounted(s, BENCH_ROW_RETRIEVE, text);
	}
	/* The order of the contract: the mark says that the blocks are written, and makes them visible. */
	if (!ty_client_reached(e->client, s->done))
		miscounted(s, BENCH_ROW_RETRIEVE, "replied OK before the done mark was there");
	e->stats->retrieved_bytes += s->count * e->pool->shape.chunk_bytes;
	begin_step(s, BENCH_CHECK);
}

static void on_stored(struct bench_session *s, const struct ty_result *result)
{
	struct bench_engine *e = s->engine;
	uint64_t sum = (uint64_t)result->store.stored + result->store.present + result->store.dropped;
	char text[120];

	if (result->code == TY_NO_SPACE) {
		e->stats->dropped += s->count; /* an honest miss next time */
	} else {
		if (sum != s->count) {
			snprintf(text, sizeof text, "%u stored, %u present, %u dropped, expected %u together", result->store.stored,
				result->store.present, result->store.dropped, s->count);
			miscounted(s, BENCH_ROW_STORE, text);
		}
		if (!ty_client_reached(e->client, s->done))
			miscounted(s, BENCH_ROW_STORE, "replied OK before the done mark was there");
		if (s->filling && result->store.stored)
			miscounted(s, BENCH_ROW_STORE, "replied OK before the ready mark was there");
		e->stats->stored += result->store.stored;
		e->stats->present += result->store.present;
		e->stats->dropped += result->store.dropped;
		e->stats->stored_bytes += result->store.stored * e->pool->shape.chunk_bytes;
	}
	s->answered = true;
	if (!s->filling)
		next_window(s);
}

static void on_error(struct bench_session *s, enum bench_row verb, const struct ty_result *result)
{
	char where[96];
	bool gone = result->code == TY_UNKNOWN_CLIENT || result->code == TY_UNKNOWN_SESSION || result->code == TY_CLOSED ||
		    result->code == TY_STOPPING;

	about(s, where, sizeof where);
	bench_engine_error(s->engine, verb, result->code, result->error, where);
	s->failed = true;
	s->quarantined |= result->blocks_in_use;
	if (s->filling) {
		s->answered = true;
		if (!gone)
			return; /* the session goes on when its blocks are filled */
		s->filling = false;
	}
	if (verb == BENCH_ROW_END || gone)
		finish(s);
	else
		begin_step(s, BENCH_END);
}

static void retry_later(struct bench_session *s, int64_t now)
{
	s->retry_at = now + s->backoff;
	s->backoff = 2 * s->backoff < LAST_BACKOFF_NS ? 2 * s->backoff : LAST_BACKOFF_NS;
}

static void on_busy(struct bench_session *s, enum bench_row verb, const struct ty_result *result)
{
	int64_t now = bench_now();

	if (!s->busy_since)
		s->busy_since = now;
	if (now - s->busy_since > (int64_t)s->engine->options->give_up_us * 1000) {
		on_error(s, verb, result);
		return;
	}
	s->engine->stats->busy_retries++;
	retry_later(s, now);
}

/* Whatever the reason is that it cannot be said yet (a device that hangs, a service that is away), it is asked for again: who has no
 * session left that may begin is stuck, which the client's loop finds. */
static void on_flushed(void *user, enum bench_row verb, const struct ty_result *result)
{
	struct bench_session *s = user;

	(void)verb;
	s->waiting = false;
	s->flush_code = result->code;
	if (result->code == TY_OK)
		s->quarantined = false;
	else
		retry_later(s, bench_now());
}

static void flush_blocks(struct bench_session *s)
{
	struct bench_engine *e = s->engine;
	uint32_t count = e->window * e->pool->shape.blocks_per_chunk;
	const uint32_t *blocks = s->own;
	struct bench_call *call = bench_call_begin(e->calls, BENCH_ROW_FLUSH, 0, on_flushed, s);
	struct ty_error err = {0};
	enum ty_code code = ty_client_flush(e->client, e->registration, &blocks, &count, 1, bench_call_done, call, &err);

	s->waiting = true;
	s->retry_at = 0;
	if (code != TY_OK) {
		struct ty_result refused = {.code = code, .error = err.text};

		bench_call_refused(call);
		on_flushed(s, BENCH_ROW_FLUSH, &refused);
	}
}

static void on_reply(void *user, enum bench_row verb, const struct ty_result *result)
{
	struct bench_session *s = user;

	s->waiting = false;
	if (result->blocks_in_use)
		on_error(s, verb, result); /* whatever the code is: nothing goes on with these blocks */
	else if (result->code == TY_BUSY)
		on_busy(s, verb, result);
	else if (verb == BENCH_ROW_STORE && (result->code == TY_OK || result->code == TY_NO_SPACE))
		on_stored(s, result);
	else if (result->code != TY_OK)
		on_error(s, verb, result);
	else if (verb == BENCH_ROW_LOOKUP)
		on_lookup(s, result);
	else if (verb == BENCH_ROW_RETRIEVE)
		on_retrieved(s, result);
	else
		finish(s);
}

/* ---- local work ---------------------------------------------------------------------------- */

static enum ty_code check_slice(struct bench_session *s, const struct bench_item *items, uint32_t count,
	struct ty_error *err)
{
	struct bench_engine *e = s->engine;
	struct bench_wrong wrong;
	enum ty_code code = bench_pool_check(e->pool, e->contents.seed, items, count, &wrong, err);
	char text[640], where[96];
	int length;

	e->stats->checked_chunks += count;
	e->stats->checked_blocks += (uint64_t)count * e->pool->shape.blocks_per_chunk;
	if (code != TY_OK || wrong.words == 0)
		return code;
	e->stats->wrong_words += wrong.words;
	e->stats->wrong_chunks += wrong.chunks;
	about(s, where, sizeof where);
	length = snprintf(text, sizeof text, "%s: ", where);
	bench_describe_wrong(&e->contents, &e->pool->shape, items, &wrong, text + length, sizeof text - (size_t)length);
	bench_note_wrong(e->stats, text);
	return code;
}

/* One slice of the step's work; the items that it did are counted in `worked`. */
static void work_slice(struct bench_session *s)
{
	struct bench_engine *e = s->engine;
	uint64_t chunks = e->pool->slice_bytes / e->pool->shape.chunk_bytes;
	uint32_t left = s->count - s->worked, count = chunks == 0 ? 1 : chunks < left ? (uint32_t)chunks : left;
	const struct bench_item *items = s->items + s->worked;
	struct ty_error err = {0};
	enum ty_code code;

	if (s->step == BENCH_POISON)
		code = bench_pool_fill(e->pool, bench_poison_seed(e->contents.seed), items, count, &err);
	else if (s->step == BENCH_CHECK)
		code = check_slice(s, items, count, &err);
	else
		code = bench_pool_fill(e->pool, e->contents.seed, items, count, &err);
	if (code != TY_OK)
		bench_fatal(e->stats, 1, "the pool: %s: %s", ty_code_name(code), err.text);
	s->worked += count;
}

static void work_done(struct bench_session *s)
{
	if (s->step == BENCH_POISON) {
		begin_step(s, BENCH_RETRIEVE);
	} else if (s->step == BENCH_CHECK) {
		next_window(s);
	} else {
		ty_client_raise(s->engine->client, s->ready);
		if (!s->filling) {
			begin_step(s, BENCH_STORE);
			return;
		}
		s->filling = false;
		if (s->answered)
			next_window(s);
	}
}

bool bench_session_work(struct bench_session *s, int64_t now)
{
	if (s->filling || s->step == BENCH_POISON || s->step == BENCH_CHECK || s->step == BENCH_FILL) {
		work_slice(s);
		if (s->worked == s->count)
			work_done(s);
		return true;
	}
	if (s->retry_at && now >= s->retry_at) {
		if (s->step == BENCH_IDLE)
			flush_blocks(s);
		else
			send_step(s);
		return true;
	}
	return false;
}
