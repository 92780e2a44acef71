/* SPDX-License-Identifier: Apache-2.0
 *
 * A replay client's loop: hands requests of the trace to free sessions when their time has come, does their local work in
 * slices, and polls for replies.
 */
#include "engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST_WAIT_NS 100000000ll

struct client_run {
	struct bench_engine *engine;
	struct bench_control *control;
	struct bench_session *sessions;
	uint32_t session_count;
	uint32_t number;
	uint32_t next;   /* request, or request_count: none is left */
	bool have_next;  /* it has been taken and waits for its time or a session */
	bool ending;     /* take no more */
	int64_t stuck_since; /* since then every session is in quarantine; 0 = not so */
};

enum ty_code bench_replay_plan(struct bench_engine *e, const struct bench_shape *shape, uint32_t *chunks,
	struct ty_error *err)
{
	const struct bench_options *o = e->options;
	uint64_t most = o->pool_bytes ? o->pool_bytes : 512ull << 20;
	uint64_t window = (uint64_t)e->trace->largest * e->parts, room = most / shape->chunk_bytes / o->concurrency;

	if (room == 0)
		return ty_fail(err, TY_INVALID,
			"--pool-bytes %llu: expected room for a chunk of %llu bytes for each of --concurrency %llu requests",
			(unsigned long long)most, (unsigned long long)shape->chunk_bytes, (unsigned long long)o->concurrency);
	if (window > room)
		window = room;
	if (window > e->info->max_operation_chunks)
		window = e->info->max_operation_chunks;
	if (window * o->concurrency * shape->blocks_per_chunk > INT32_MAX)
		window = INT32_MAX / o->concurrency / shape->blocks_per_chunk;
	if (window == 0)
		return ty_fail(err, TY_INVALID, "the service allows %u chunks in an operation, expected at least 1",
			e->info->max_operation_chunks);
	e->window = (uint32_t)window;
	*chunks = (uint32_t)(window * o->concurrency);
	return TY_OK;
}

/* The pool's blocks in an order that no stride explains, as an engine's free list has them after a while. */
static uint32_t *shuffled_blocks(uint64_t seed, uint32_t count)
{
	uint32_t *ids = reallocarray(NULL, count, sizeof *ids);

	if (!ids)
		return NULL;
	for (uint32_t i = 0; i < count; i++)
		ids[i] = i;
	for (uint32_t i = count - 1; i > 0; i--) {
		uint32_t k = (uint32_t)(bench_mix(seed, i) % ((uint64_t)i + 1)), keep = ids[i];

		ids[i] = ids[k];
		ids[k] = keep;
	}
	return ids;
}

static bool make_sessions(struct client_run *run)
{
	struct bench_engine *e = run->engine;
	uint32_t count = (uint32_t)e->options->concurrency, per_session = e->window * e->pool->shape.blocks_per_chunk;
	uint32_t *ids = shuffled_blocks(e->options->seed + run->number, e->pool->block_count);

	run->sessions = calloc(count, sizeof *run->sessions);
	while (ids && run->sessions && run->session_count < count &&
		bench_session_init(&run->sessions[run->session_count], e, run->session_count,
			ids + (size_t)run->session_count * per_session))
		run->session_count++;
	free(ids);
	return run->session_count == count;
}

static int64_t time_of(const struct client_run *run, uint32_t request)
{
	const struct bench_trace *trace = run->engine->trace;
	double speed = run->engine->options->speed;

	if (speed <= 0)
		return run->control->start;
	return run->control->start + (int64_t)((trace->requests[request].at_ms - trace->requests[0].at_ms) / speed * 1e6);
}

/* The next request that is this client's; false: none is left. */
static bool take_next(struct client_run *run)
{
	uint32_t count = run->engine->trace->request_count;

	if (run->have_next)
		return true;
	if (run->ending || run->next >= count)
		return false;
	if (run->engine->options->deal == BENCH_DEAL_NEXT) {
		run->next = atomic_fetch_add_explicit(&run->control->next, 1, memory_order_relaxed);
		if (run->next >= count) {
			run->next = count;
			return false;
		}
	}
	run->have_next = true;
	return true;
}

static void start_sessions(struct client_run *run)
{
	for (uint32_t i = 0; i < run->session_count; i++) {
		struct bench_session *s = &run->sessions[i];
		int64_t intended;

		if (!bench_session_ready(s))
			continue;
		if (!take_next(run))
			return;
		intended = time_of(run, run->next);
		if (bench_now() < intended)
			return;
		run->have_next = false;
		bench_session_start(s, run->next, intended);
		if (run->engine->options->deal == BENCH_DEAL_ROUND_ROBIN)
			run->next += (uint32_t)run->engine->options->clients;
	}
}

/* Nothing is under way, and no session may begin: all wait for operations that are not over. */
static bool stuck(struct client_run *run, int64_t now)
{
	for (uint32_t i = 0; i < run->session_count; i++) {
		if (run->sessions[i].step != BENCH_IDLE || bench_session_ready(&run->sessions[i])) {
			run->stuck_since = 0;
			return false;
		}
	}
	if (!run->stuck_since)
		run->stuck_since = now;
	if (now - run->stuck_since < (int64_t)run->engine->options->give_up_us * 1000)
		return false;
	bench_fatal(run->engine->stats, 1, "every session's blocks are held by operations that failed and are not over: the last FLUSH was answered %s",
		ty_code_name(run->sessions[0].flush_code));
	return true;
}

/* When something is due even though no reply comes. */
static int64_t next_due(struct client_run *run, int64_t now)
{
	int64_t due = now + LONGEST_WAIT_NS;
	bool any_free = false;

	for (uint32_t i = 0; i < run->session_count; i++) {
		struct bench_session *s = &run->sessions[i];

		if (s->retry_at && s->retry_at < due)
			due = s->retry_at;
		any_free |= bench_session_ready(s);
	}
	if (any_free && run->have_next && time_of(run, run->next) < due)
		due = time_of(run, run->next);
	return due;
}

static bool all_idle(const struct client_run *run)
{
	for (uint32_t i = 0; i < run->session_count; i++)
		if (run->sessions[i].step != BENCH_IDLE)
			return false;
	return true;
}

static void run_loop(struct client_run *run)
{
	struct bench_engine *e = run->engine;
	int64_t age_checked = 0;

	while (e->stats->exit_code == 0) {
		int64_t now = bench_now(), due;
		bool worked = false;

		if (atomic_load_explicit(&run->control->stop, memory_order_relaxed))
			run->ending = true, run->have_next = false;
		start_sessions(run);
		for (uint32_t i = 0; i < run->session_count; i++)
			worked |= bench_session_work(&run->sessions[i], now);
		if (all_idle(run) && !take_next(run))
			break;
		due = worked ? now : next_due(run, now);
		ty_client_poll(e->client, 0, due > now ? (uint32_t)((due - now) / 1000) + 1 : 0);
		if (now - age_checked > 100000000) {
			age_checked = now;
			if (bench_engine_overdue(e) || stuck(run, now))
				break;
		}
	}
}

void bench_replay_client(struct bench_engine *e, struct bench_control *control, unsigned number)
{
	struct client_run run = {.engine = e, .control = control, .number = number};
	struct bench_stats *stats = e->stats;
	uint32_t mine = 0;

	if (e->options->deal == BENCH_DEAL_ROUND_ROBIN) {
		run.next = number;
		if (number < e->trace->request_count)
			mine = (uint32_t)((e->trace->request_count - number - 1) / e->options->clients) + 1;
	}
	if (make_sessions(&run))
		run_loop(&run);
	else
		bench_fatal(stats, 1, "no memory for %llu sessions", (unsigned long long)e->options->concurrency);
	stats->finished = bench_now();
	/* With --deal next the parent counts what nobody took. */
	if (mine > stats->requests + stats->requests_failed)
		stats->requests_left = mine - stats->requests - stats->requests_failed;
	/* Replies that still come (the run was cut short) must not reach the sessions, which end here. */
	e->calls->closing = true;
	for (uint32_t i = 0; i < run.session_count; i++)
		bench_session_free(&run.sessions[i]);
	free(run.sessions);
}
