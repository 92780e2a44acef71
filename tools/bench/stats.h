/* SPDX-License-Identifier: Apache-2.0
 *
 * What a process of the load generator counts. Plain memory of fixed size, so that it may lie in memory shared with the
 * parent: one process writes it, the parent reads it after that process has ended (only `progress` is read before).
 */
#ifndef TY_BENCH_STATS_H
#define TY_BENCH_STATS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include <tyer/result.h>

#include "base/histogram.h"

enum bench_row {
	BENCH_ROW_LOOKUP,
	BENCH_ROW_RETRIEVE,
	BENCH_ROW_STORE,
	BENCH_ROW_END,
	BENCH_ROW_FLUSH, /* of blocks that an operation which failed may still touch */
	BENCH_ROW_PING,
	BENCH_VERBS,
	BENCH_ROW_PING_INTENDED = BENCH_VERBS, /* from when it should have been sent */
	BENCH_ROW_SLEEP,                       /* how late a thread was that only sleeps, as often: what the machine adds */
	BENCH_ROW_REQUEST,                     /* of the trace, from its first LOOKUP to its END_SESSION's reply */
	BENCH_ROW_REQUEST_INTENDED,
	BENCH_ROWS
};
const char *bench_row_name(enum bench_row row);

#define BENCH_TEXTS 8 /* errors and wrong words kept in full; the others are counted */

struct bench_stats {
	struct ty_histogram rows[BENCH_ROWS]; /* ns, of requests answered OK or NO_SPACE */
	uint64_t codes[BENCH_VERBS][TY_CODE_COUNT]; /* every reply */

	uint64_t sent, completed, doubled, lost; /* requests to the service */
	uint64_t busy_retries, tolerated, unexpected;
	uint64_t miscounted; /* replies whose numbers do not add up, or marks that were not where they should be */

	uint64_t requests, requests_failed, requests_left; /* of the trace: finished, ended by an error, not begun */
	uint64_t chunks, hits, checked_chunks, checked_blocks, wrong_chunks, wrong_words;
	uint64_t stored, present, dropped; /* chunks */
	uint64_t stored_bytes, retrieved_bytes;
	uint32_t parts;   /* chunks of the service in a block of the trace; 0 = not known */
	int64_t finished; /* CLOCK_MONOTONIC ns */

	_Atomic uint64_t progress; /* requests done; written by the process, read by its parent (relaxed: only shown) */

	unsigned error_texts, wrong_texts; /* kept: at most BENCH_TEXTS */
	char errors[BENCH_TEXTS][320], wrong[BENCH_TEXTS][640];
	int exit_code;   /* 0, or why the process could not go on */
	char fatal[512]; /* in words */
};

/* Keep the text among the first BENCH_TEXTS. */
void bench_note_error(struct bench_stats *stats, const char *fmt, ...) TY_PRINTF(2, 3);
void bench_note_wrong(struct bench_stats *stats, const char *text);
/* The process cannot go on. The first call's text is kept. */
void bench_fatal(struct bench_stats *stats, int exit_code, const char *fmt, ...) TY_PRINTF(3, 4);
void bench_stats_merge(struct bench_stats *into, const struct bench_stats *from);
/* Anything that makes a run fail. */
bool bench_stats_bad(const struct bench_stats *stats);

static inline int64_t bench_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

#endif
