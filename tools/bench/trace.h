/* SPDX-License-Identifier: Apache-2.0
 *
 * Traces: one JSON object a line, with `timestamp` (ms, never going back), `input_length`, `output_length` (tokens)
 * and `hash_ids` (one id for each block of the input; ids are chained: an id always means the same whole prefix).
 */
#ifndef TY_BENCH_TRACE_H
#define TY_BENCH_TRACE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <tyer/result.h>

/* Limits on what is read. */
#define BENCH_TRACE_LINE_MAX (1u << 20)     /* bytes of a line */
#define BENCH_TRACE_REQUESTS_MAX (4u << 20)
#define BENCH_TRACE_IDS_MAX (256u << 20)    /* of all requests together */
#define BENCH_TRACE_REQUEST_IDS_MAX 65536u  /* of one request */

struct bench_request {
	double at_ms;
	uint32_t input, output; /* tokens */
	uint32_t first, count;  /* its ids in bench_trace.ids */
	uint32_t line;          /* in the file, from 1 */
};

struct bench_trace {
	struct bench_request *requests;
	uint32_t *ids;
	uint32_t request_count, id_count, largest; /* largest: ids of the largest request */
	uint32_t max_id;
};

/* Reads at most `limit` requests (0 = all). Each id stands for `block_tokens` tokens. `name` is for messages: TY_INVALID
 * names the line, the field, what was found and what was expected. */
TY_MUST_USE enum ty_code bench_trace_read(FILE *in, const char *name, uint32_t limit, uint32_t block_tokens,
	struct bench_trace *out, struct ty_error *err);
void bench_trace_free(struct bench_trace *trace);

/* How many ids a cache that never forgets would find, serving the requests one after the other: leading ids that occur in
 * an earlier request. TY_NO_MEMORY. */
TY_MUST_USE enum ty_code bench_trace_ceiling(const struct bench_trace *trace, uint64_t *hits, struct ty_error *err);

/* A synthetic trace of the same form: chats of several turns over shared system prompts, arriving at random. */
struct bench_synth {
	uint64_t seed;
	uint32_t requests;
	double rate;            /* requests a second */
	uint32_t prompts;       /* system prompts; the first are the most popular */
	uint32_t prompt_tokens; /* mean length of one */
	double turns;           /* mean number of turns of a chat */
	uint32_t input_tokens;  /* mean of what a user says in a turn */
	uint32_t output_tokens; /* mean of an answer */
	double think_s;         /* mean time between a turn and the next */
	uint32_t max_tokens;    /* a chat that would grow longer ends */
	uint32_t block_tokens;
};
/* The same parameters write the same bytes. TY_IO when `out` fails. */
TY_MUST_USE enum ty_code bench_synth_write(const struct bench_synth *synth, FILE *out, struct ty_error *err);

#endif
