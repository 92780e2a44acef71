/* SPDX-License-Identifier: Apache-2.0
 *
 * The parent of a replay: reads the trace, starts the clients and the PINGs beside them, shows how far they are, and adds
 * up what they counted. It has no connection and no thread of its own.
 */
#include "engine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "processes.h"
#include "report.h"

struct replay {
	const struct bench_options *options;
	struct bench_trace trace;
	struct bench_history history; /* --hints */
	unsigned clients;
};

/* How many chunks a block of the trace makes, and whether every one of them has a tag. */
static bool fit_chunks(struct bench_engine *e)
{
	uint64_t block = e->options->block_tokens;
	uint32_t chunk = e->info->chunk_tokens;

	if (chunk == 0 || block % chunk) {
		bench_fatal(e->stats, 2,
			"a block of the trace, %" PRIu64 " tokens, is not a whole number of the service's chunks of %u tokens: start "
			"the service with --chunk-tokens %" PRIu64 " or a divisor of it",
			block, chunk, block);
		return false;
	}
	e->parts = e->stats->parts = (uint32_t)block / chunk;
	e->contents.seed = bench_mix(e->options->seed, 0x7479657262656e63ull);
	e->contents.parts = e->parts;
	e->contents.max_tag = ((uint64_t)e->trace->max_id + 1) * e->parts;
	if (e->contents.max_tag > UINT32_MAX) {
		bench_fatal(e->stats, 2, "the trace's largest id, %u, at %u chunks a block: expected tags below 2^32",
			e->trace->max_id, e->parts);
		return false;
	}
	return true;
}

static bool prepare(struct bench_engine *e)
{
	struct bench_shape shape;
	struct ty_error err = {0};
	uint32_t chunks = 0;

	if (!fit_chunks(e))
		return false;
	if (bench_shape_make(&e->options->geometry, e->info->chunk_tokens, &shape, &err) != TY_OK ||
		bench_replay_plan(e, &shape, &chunks, &err) != TY_OK) {
		bench_fatal(e->stats, 2, "%s", err.text);
		return false;
	}
	return bench_engine_pool(e, &shape, chunks) && bench_engine_register(e);
}

static void run_client(struct bench_child *child)
{
	const struct replay *replay = child->user;
	struct bench_engine engine;

	if (bench_engine_open(&engine, replay->options, child->stats, child->number, true)) {
		engine.trace = &replay->trace;
		engine.history = replay->options->hints ? &replay->history : NULL;
		if (prepare(&engine) && bench_child_start(child))
			bench_replay_client(&engine, child->control, child->number);
	}
	bench_engine_close(&engine);
}

static void run_pings(struct bench_child *child)
{
	const struct replay *replay = child->user;
	struct bench_engine engine;

	if (bench_engine_open(&engine, replay->options, child->stats, child->number, false) && bench_child_start(child))
		bench_ping_client(&engine, child->control, (int64_t)replay->options->ping_every_us * 1000, 0);
	bench_engine_close(&engine);
}

static void show_progress(struct bench_processes *processes, void *user)
{
	const struct replay *replay = user;
	uint64_t done = 0, all = replay->trace.request_count;
	char bar[31];
	size_t full;

	for (unsigned i = 0; i < replay->clients; i++)
		done += atomic_load_explicit(&bench_processes_stats(processes, i)->progress, memory_order_relaxed);
	full = (size_t)(done * (sizeof bar - 1) / all);
	memset(bar, '.', sizeof bar - 1);
	memset(bar, '#', full < sizeof bar ? full : sizeof bar - 1);
	bar[sizeof bar - 1] = 0;
	fprintf(stderr, "\r[%s] %" PRIu64 " of %" PRIu64 " requests", bar, done, all);
}

static bool fork_all(const struct replay *replay, struct bench_processes *processes, struct ty_error *err)
{
	for (unsigned i = 0; i < replay->clients; i++)
		if (bench_processes_fork(processes, i, false, run_client, replay, err) != TY_OK)
			return false;
	return !replay->options->ping_every_us ||
	       bench_processes_fork(processes, replay->clients, true, run_pings, replay, err) == TY_OK;
}

static void collect(const struct replay *replay, struct bench_processes *processes, struct bench_report *report,
	struct bench_stats *sum)
{
	const struct bench_options *o = replay->options;
	struct bench_control *control = bench_processes_control(processes);

	for (unsigned i = 0; i < replay->clients; i++)
		bench_stats_merge(sum, bench_processes_stats(processes, i));
	if (o->ping_every_us)
		report->pings = bench_processes_stats(processes, replay->clients);
	if (control->start && sum->finished)
		report->wall_s = (double)(sum->finished - control->start) * 1e-9;
	if (control->start) /* what no client took, however it was dealt */
		sum->requests_left = replay->trace.request_count - sum->requests - sum->requests_failed;
	report->interrupted = sum->requests_left && !sum->exit_code;
	if (report->pings && report->pings->exit_code)
		bench_fatal(sum, report->pings->exit_code, "the PINGs: %s", report->pings->fatal);
}

static int replay_and_report(struct replay *replay, struct bench_report *report, struct bench_stats *sum)
{
	const struct bench_options *o = replay->options;
	struct bench_processes *processes = NULL;
	bool progress = isatty(STDERR_FILENO) && !o->no_progress;
	struct ty_error err = {0};
	int code;

	if (bench_processes_new(replay->clients + (o->ping_every_us != 0), &processes, &err) != TY_OK ||
		!fork_all(replay, processes, &err)) {
		fprintf(stderr, "tyer-bench: %s\n", err.text);
		bench_processes_free(processes);
		return 1;
	}
	bench_processes_run(processes, progress ? show_progress : NULL, replay);
	if (progress)
		fputs("\r\033[K", stderr);
	collect(replay, processes, report, sum);
	report->parts = sum->parts;
	report->missed_ceiling = o->require_ceiling && sum->hits != report->ceiling * sum->parts;
	code = bench_report(report);
	bench_processes_free(processes);
	return code;
}

static bool read_trace(struct replay *replay, struct bench_report *report)
{
	const struct bench_options *o = replay->options;
	bool standard_input = strcmp(o->trace, "-") == 0;
	FILE *in = standard_input ? stdin : fopen(o->trace, "re");
	struct ty_error err = {0};
	enum ty_code code;

	report->trace = standard_input ? "standard input" : o->trace;
	if (!in) {
		fprintf(stderr, "tyer-bench: %s: %s\n", o->trace, strerror(errno));
		return false;
	}
	code = bench_trace_read(in, report->trace, (uint32_t)o->limit, (uint32_t)o->block_tokens, &replay->trace, &err);
	if (!standard_input)
		fclose(in);
	if (code == TY_OK)
		code = bench_trace_ceiling(&replay->trace, &report->ceiling, &err);
	if (code == TY_OK && o->hints)
		code = bench_history_open(&replay->trace, (uint32_t)o->block_tokens, true, &replay->history, &err);
	report->trace_blocks = replay->trace.id_count;
	if (code != TY_OK)
		fprintf(stderr, "tyer-bench: %s\n", err.text);
	return code == TY_OK;
}

int bench_replay(const struct bench_options *o)
{
	struct replay replay = {.options = o, .clients = (unsigned)o->clients};
	struct bench_stats *sum = calloc(1, sizeof *sum);
	struct bench_report report = {.options = o, .stats = sum};
	int code = 2;

	if (o->numbers)
		bench_contents_are_numbers();
	if (!sum)
		fputs("tyer-bench: no memory\n", stderr);
	else if (read_trace(&replay, &report))
		code = replay_and_report(&replay, &report, sum);
	bench_history_close(&replay.history);
	bench_trace_free(&replay.trace);
	free(sum);
	return code;
}
