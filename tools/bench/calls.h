/* SPDX-License-Identifier: Apache-2.0
 *
 * Exactly once: every request that goes to the service has a record here until its reply comes. A second reply finds its
 * record closed (or handed on, which a ring of many records makes rare) and is counted; a reply that does not come leaves
 * its record open and is found by age.
 */
#ifndef TY_BENCH_CALLS_H
#define TY_BENCH_CALLS_H

#include <tyer/client.h>

#include "stats.h"

#define BENCH_CALLS 4096

typedef void (*bench_reply_fn)(void *user, enum bench_row verb, const struct ty_result *result);

struct bench_calls;
struct bench_call {
	struct bench_calls *calls;
	bench_reply_fn reply;
	void *user;
	enum bench_row verb;
	int64_t sent, intended;
	bool open;
};

struct bench_calls {
	struct bench_stats *stats;
	uint32_t next, open;
	bool closing; /* replies do not reach their users any more */
	struct bench_call ring[BENCH_CALLS];
};

struct bench_calls *bench_calls_new(struct bench_stats *stats);
/* A record, to be passed to the client library with bench_call_done. intended: 0 = now. At most 64 are open at a time. */
struct bench_call *bench_call_begin(struct bench_calls *calls, enum bench_row verb, int64_t intended,
	bench_reply_fn reply, void *user);
/* The library did not take the request: no reply will come, and none is expected. */
void bench_call_refused(struct bench_call *call);
/* A ty_done_fn; `call` is the record. Counts, measures, and tells the record's user. */
void bench_call_done(void *call, const struct ty_result *result);
/* How many requests have waited for longer than `age` ns. */
uint32_t bench_calls_overdue(struct bench_calls *calls, int64_t now, int64_t age);
/* After the client is closed: whatever is still open is lost. Frees. */
void bench_calls_free(struct bench_calls *calls);

#endif
