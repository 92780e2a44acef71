/* SPDX-License-Identifier: Apache-2.0
 *
 * A cache of blocks, simulated over a trace with the service's own code for what goes next (cache/order.h), one request
 * after the other in the service's steps: what is there of a prompt's head is leased, room is made for the rest at the
 * cost of others, what was computed comes in tail first, and what was leased is touched tail first.
 */
#ifndef TY_BENCH_POLICY_H
#define TY_BENCH_POLICY_H

#include <stdbool.h>

#include "cache/policy.h"
#include "options.h"

/* A trace as the simulation wants it: ids are dense, and everything is known about what comes later. */
struct bench_history {
	const struct bench_trace *trace;
	uint32_t *ids;           /* beside trace->ids: 0..blocks - 1 */
	uint32_t *next;          /* likewise: the next request that has this id, UINT32_MAX: none has */
	uint32_t blocks;
	uint32_t *counts;        /* of each request: ids that are stored (without a partial tail, or with it) */
	uint32_t *conversations; /* of each request, 1...: a request that goes on where an earlier one ended is of the same */
	bool *alive;             /* of each request: another turn of its conversation comes */
	uint64_t conversation_count, alive_count;
};

TY_MUST_USE enum ty_code bench_history_open(const struct bench_trace *trace, uint32_t block_tokens, bool partial_tails,
	struct bench_history *out, struct ty_error *err);
void bench_history_close(struct bench_history *history);

struct bench_simulation {
	uint64_t hits;   /* blocks */
	uint64_t bytes;  /* of the policy's memory at the end, beside the entries */
};

TY_MUST_USE enum ty_code bench_simulate(const struct bench_history *history, const struct ty_policy_class *cls, uint32_t size,
	enum bench_hints hints, struct bench_simulation *out, struct ty_error *err);
/* What no policy can beat: who knows the future evicts what is used last, and keeps out what is not used again. */
TY_MUST_USE enum ty_code bench_belady(const struct bench_history *history, uint32_t size, uint64_t *hits,
	struct ty_error *err);

/* The command; its exit status. */
int bench_policy(const struct bench_options *options);

#endif
