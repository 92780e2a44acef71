/* SPDX-License-Identifier: Apache-2.0
 *
 * tyer-bench's options: one table (options.c) from which the command line and --help both come.
 */
#ifndef TY_BENCH_OPTIONS_H
#define TY_BENCH_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "geometry.h"
#include "trace.h"

enum bench_command { BENCH_REPLAY, BENCH_TRACE, BENCH_COPY, BENCH_PING, BENCH_POLICY, BENCH_COMMANDS };
/* What the engine says when a request ends: nothing; that another turn comes, if one does; or also that none comes. */
enum bench_hints { BENCH_HINTS_NONE, BENCH_HINTS_ALIVE, BENCH_HINTS_BOTH, BENCH_HINTS };
enum bench_deal { BENCH_DEAL_ROUND_ROBIN, BENCH_DEAL_NEXT };

struct bench_options {
	enum bench_command command;
	bool help;

	/* where */
	char connect[256], attach[108];
	char tls_ca[256], tls_cert[256], tls_name[256]; /* "": none */
	char tenant[64], model[64];
	uint64_t timeout_us, grace_us; /* of each request */
	char json[512];      /* "" = none */
	bool no_progress;

	/* the pool */
	char device[32], driver[256];
	struct bench_geometry geometry;
	uint64_t pool_bytes; /* at most, of each client */
	uint64_t seed;

	/* replay */
	char trace[512];
	double speed; /* 0 = as fast as it goes */
	uint64_t concurrency, clients, limit, block_tokens;
	enum bench_deal deal;
	enum bench_hints hints;
	uint64_t ping_every_us; /* 0 = no PINGs beside the load */
	bool store_early, require_ceiling, numbers;
	uint32_t tolerate; /* bit 1 << code: an honest miss, not a failure */
	uint64_t give_up_us;

	/* trace */
	struct bench_synth synth;
	uint64_t prompts, prompt_tokens, input_tokens, output_tokens, max_tokens, requests;
	char output[512];

	/* copy */
	uint64_t chunks, op_chunks, depth, repeats, warmup, raw_bytes;
	bool hbm, raw_off;

	/* policy */
	char sizes[256];
	bool partial_tails;

	/* ping */
	double rate;
	uint64_t duration_us;
};

/* TY_INVALID names the option, what was found and what was expected. */
TY_MUST_USE enum ty_code bench_options_parse(struct bench_options *options, int argc, char **argv, struct ty_error *err);
void bench_options_help(FILE *out, const struct bench_options *options);
/* Without a command. */
void bench_usage(FILE *out);
const char *bench_command_name(enum bench_command command);

#endif
