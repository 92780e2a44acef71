/* SPDX-License-Identifier: Apache-2.0 */
#include "policy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"

#define SIZES_MAX 16

static enum ty_code parse_sizes(const char *text, uint32_t sizes[SIZES_MAX], unsigned *count, struct ty_error *err)
{
	char copy[sizeof((struct bench_options *)0)->sizes], *rest = copy, *part;

	*count = 0;
	strcpy(copy, text);
	while ((part = strsep(&rest, ","))) {
		struct ty_error why;
		uint64_t size;

		if (*count == SIZES_MAX)
			return ty_fail(err, TY_INVALID, "--sizes: more than %d", SIZES_MAX);
		if (ty_parse_count(part, UINT32_MAX, &size, &why) != TY_OK || size == 0)
			return ty_fail(err, TY_INVALID, "--sizes: found \"%.40s\", expected numbers of blocks, 1 to %u, and commas", part,
				UINT32_MAX);
		sizes[(*count)++] = (uint32_t)size;
	}
	return TY_OK;
}

static enum ty_code read_trace(const struct bench_options *o, struct bench_trace *trace, struct ty_error *err)
{
	bool standard = strcmp(o->trace, "-") == 0;
	FILE *in = standard ? stdin : fopen(o->trace, "re");
	enum ty_code code;

	if (!in)
		return ty_fail(err, TY_IO, "%s: %s", o->trace, strerror(errno));
	code = bench_trace_read(in, standard ? "standard input" : o->trace, (uint32_t)o->limit, (uint32_t)o->block_tokens, trace,
		err);
	if (!standard)
		fclose(in);
	return code;
}

static double rate(uint64_t hits, const struct bench_trace *trace)
{
	return trace->id_count ? (double)hits / trace->id_count : 0;
}

static void print_head(const struct bench_history *h, uint64_t ceiling)
{
	const struct bench_trace *t = h->trace;

	printf("%u requests, %u blocks, %u different ones; %" PRIu64 " conversations; another turn follows %" PRIu64
	       " requests\n",
		t->request_count, t->id_count, h->blocks, h->conversation_count, h->alive_count);
	printf("hits in blocks of all blocks; a cache that never forgets: %.4f\n", rate(ceiling, t));
	puts("+alive: the engine says so when another turn follows; +done: and when none does; closed: how much of the way "
	     "from the first policy to Belady's that is\n");
	printf("%8s", "blocks");
	for (size_t i = 0; ty_policies[i]; i++)
		printf(" | %7s %7s %7s", ty_policies[i]->name, "+alive", "+done");
	printf(" | %7s %7s\n", "belady", "closed");
}

static enum ty_code print_row(const struct bench_history *h, uint32_t size, struct ty_error *err)
{
	uint64_t best = 0, plain = 0, hinted = 0;
	enum ty_code code = bench_belady(h, size, &best, err);

	printf("%8u", size);
	for (size_t i = 0; ty_policies[i] && code == TY_OK; i++) {
		printf(" |");
		for (enum bench_hints hints = 0; hints < BENCH_HINTS && code == TY_OK; hints++) {
			struct bench_simulation sim;

			code = bench_simulate(h, ty_policies[i], size, hints, &sim, err);
			printf(" %7.4f", rate(sim.hits, h->trace));
			if (i == 0 && hints == BENCH_HINTS_NONE)
				plain = sim.hits;
			else if (i == 0)
				hinted = sim.hits;
		}
	}
	if (code != TY_OK)
		return code;
	printf(" | %7.4f", rate(best, h->trace));
	if (best > plain)
		printf(" %6.0f%%", 100 * ((double)hinted - (double)plain) / ((double)best - (double)plain));
	putchar('\n');
	return TY_OK;
}

int bench_policy(const struct bench_options *o)
{
	struct bench_trace trace = {0};
	struct bench_history history = {0};
	uint32_t sizes[SIZES_MAX];
	uint64_t ceiling = 0;
	unsigned count;
	struct ty_error err;
	enum ty_code code = parse_sizes(o->sizes, sizes, &count, &err);

	if (code == TY_OK)
		code = read_trace(o, &trace, &err);
	if (code == TY_OK)
		code = bench_history_open(&trace, (uint32_t)o->block_tokens, o->partial_tails, &history, &err);
	if (code == TY_OK)
		code = bench_trace_ceiling(&trace, &ceiling, &err);
	if (code == TY_OK)
		print_head(&history, ceiling);
	for (unsigned i = 0; i < count && code == TY_OK; i++)
		code = print_row(&history, sizes[i], &err);
	bench_history_close(&history);
	bench_trace_free(&trace);
	if (code != TY_OK)
		fprintf(stderr, "tyer-bench: %s\n", err.text);
	return code == TY_OK && !ferror(stdout) ? 0 : 2;
}
