/* SPDX-License-Identifier: Apache-2.0
 *
 * PINGs at a fixed rate, whatever becomes of the ones before: a PING that could not be sent in time is measured from the
 * time when it should have been, too. Beside them a thread that only sleeps, as often, and counts how late it was woken: what
 * a busy machine adds to any PING, whoever answers it.
 */
#include "engine.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

#define IN_FLIGHT 32u

static void on_pong(void *user, enum bench_row verb, const struct ty_result *result)
{
	struct bench_engine *e = user;

	if (result->code == TY_BUSY)
		e->stats->busy_retries++; /* answered at once, which is what a PING asks for */
	else if (result->code != TY_OK)
		bench_engine_error(e, verb, result->code, result->error, "ping");
}

static void send_ping(struct bench_engine *e, int64_t intended)
{
	struct bench_call *call = bench_call_begin(e->calls, BENCH_ROW_PING, intended, on_pong, e);
	struct ty_error err = {0};
	enum ty_code code = ty_client_ping(e->client, bench_call_done, call, &err);

	if (code != TY_OK) {
		bench_call_refused(call);
		bench_engine_error(e, BENCH_ROW_PING, code, err.text, "ping");
	}
}

struct sleeper {
	pthread_t thread;
	bool began;
	int64_t period;
	struct ty_histogram *row;   /* the thread's own until it is joined */
	_Atomic bool stop;          /* relaxed: only that it comes */
};

static void *sleep_and_count(void *arg)
{
	struct sleeper *s = arg;
	int64_t due = bench_now();

	do {
		struct timespec at;
		int64_t now;

		due += s->period;
		at = (struct timespec){due / 1000000000, due % 1000000000};
		if (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) != 0)
			continue;
		now = bench_now();
		ty_histogram_add(s->row, (uint64_t)(now > due ? now - due : 0));
	} while (!atomic_load_explicit(&s->stop, memory_order_relaxed));
	return NULL;
}

static void begin_sleeper(struct sleeper *s, struct bench_engine *e, int64_t period)
{
	int error;

	s->period = period;
	s->row = &e->stats->rows[BENCH_ROW_SLEEP];
	error = pthread_create(&s->thread, NULL, sleep_and_count, s);
	s->began = error == 0;
	if (error)
		bench_fatal(e->stats, 1, "the thread that sleeps beside the PINGs: %s", strerror(error));
}

static void end_sleeper(struct sleeper *s)
{
	atomic_store_explicit(&s->stop, true, memory_order_relaxed);
	if (s->began)
		pthread_join(s->thread, NULL);
}

static bool is_over(struct bench_control *control, int64_t sent_for, int64_t duration)
{
	/* relaxed: only that it comes */
	return atomic_load_explicit(&control->stop, memory_order_relaxed) || (duration && sent_for >= duration);
}

void bench_ping_client(struct bench_engine *e, struct bench_control *control, int64_t period, int64_t duration)
{
	int64_t start = bench_now(), due = start, age_checked = start;
	struct sleeper sleeper = {0};

	begin_sleeper(&sleeper, e, period);
	while (e->stats->exit_code == 0) {
		int64_t now = bench_now(), wait;
		bool ending = is_over(control, due - start, duration);

		while (!ending && now >= due && e->calls->open < IN_FLIGHT) {
			send_ping(e, due);
			due += period;
			ending = is_over(control, due - start, duration);
		}
		if (ending && e->calls->open == 0)
			break;
		if (now - age_checked > 1000000000) {
			age_checked = now;
			if (bench_engine_overdue(e))
				break;
		}
		wait = due - bench_now();
		if (ending || wait > 100000000 || e->calls->open >= IN_FLIGHT)
			wait = 100000000;
		ty_client_poll(e->client, 0, wait > 0 ? (uint32_t)(wait / 1000) : 0);
	}
	e->stats->finished = bench_now();
	end_sleeper(&sleeper);
}

/* Set while PINGs go out: a signal ends them, and what was measured is told. */
static struct bench_control *interrupted;

static void on_signal(int signal)
{
	(void)signal;
	atomic_store_explicit(&interrupted->stop, true, memory_order_relaxed);
}

int bench_ping(const struct bench_options *o)
{
	struct sigaction action = {.sa_handler = on_signal}, old_int, old_term;
	struct bench_stats *stats = calloc(1, sizeof *stats);
	struct bench_control control = {0};
	struct bench_engine engine = {0};
	struct bench_report report = {.options = o, .stats = stats};
	int64_t start;
	int code;

	if (!stats) {
		fputs("tyer-bench: no memory\n", stderr);
		return 1;
	}
	if (bench_engine_open(&engine, o, stats, 0, false)) {
		start = bench_now();
		interrupted = &control;
		sigaction(SIGINT, &action, &old_int);
		sigaction(SIGTERM, &action, &old_term);
		bench_ping_client(&engine, &control, (int64_t)(1e9 / o->rate), (int64_t)o->duration_us * 1000);
		sigaction(SIGINT, &old_int, NULL);
		sigaction(SIGTERM, &old_term, NULL);
		report.wall_s = (double)(stats->finished - start) * 1e-9;
	}
	bench_engine_close(&engine);
	code = bench_report(&report);
	free(stats);
	return code;
}
