/* SPDX-License-Identifier: Apache-2.0 */
#include "policy.h"

#include <stdlib.h>
#include <string.h>

static int compare_ids(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* ids[i] = the rank of trace->ids[i] among all ids. `sorted` has room for all. */
static void make_dense(struct bench_history *h, uint32_t *sorted)
{
	const struct bench_trace *t = h->trace;

	memcpy(sorted, t->ids, t->id_count * sizeof *sorted);
	qsort(sorted, t->id_count, sizeof *sorted, compare_ids);
	h->blocks = 0;
	for (uint32_t i = 0; i < t->id_count; i++)
		if (i == 0 || sorted[i] != sorted[i - 1])
			sorted[h->blocks++] = sorted[i];
	for (uint32_t i = 0; i < t->id_count; i++) {
		uint32_t *found = bsearch(&t->ids[i], sorted, h->blocks, sizeof *sorted, compare_ids);

		h->ids[i] = (uint32_t)(found - sorted);
	}
}

/* From the end to the front; `later` says of each block which request has it next. */
static void look_ahead(struct bench_history *h, uint32_t *later)
{
	const struct bench_trace *t = h->trace;

	memset(later, 0xff, h->blocks * sizeof *later);
	for (uint32_t r = t->request_count; r-- > 0;) {
		const struct bench_request *request = &t->requests[r];

		for (uint32_t k = request->first; k < request->first + h->counts[r]; k++) {
			h->next[k] = later[h->ids[k]];
			later[h->ids[k]] = r;
		}
	}
}

/* Ids of a request's full blocks. */
static uint32_t full_blocks(const struct bench_request *request, uint32_t block_tokens)
{
	uint32_t full = request->input / block_tokens;

	return request->count < full ? request->count : full;
}

/* A request goes on with the conversation whose last full block it has, the deepest if it has several. A block that was
 * here before the conversation came to its end with it is no end: it is a prompt that others share. `ends` says of each block
 * which conversation ended with it last; 0: none, and it was not seen yet; SHARED: none. */
#define SHARED UINT32_MAX

static void find_conversations(struct bench_history *h, uint32_t block_tokens, uint32_t *ends)
{
	const struct bench_trace *t = h->trace;

	memset(ends, 0, h->blocks * sizeof *ends);
	for (uint32_t r = 0; r < t->request_count; r++) {
		uint32_t first = t->requests[r].first, full = full_blocks(&t->requests[r], block_tokens), conversation = 0;
		const uint32_t *ids = h->ids + first;

		for (uint32_t k = full; k-- > 0 && !conversation;)
			conversation = ends[ids[k]] == SHARED ? 0 : ends[ids[k]];
		if (!conversation)
			conversation = (uint32_t)++h->conversation_count;
		h->conversations[r] = conversation;
		if (!full)
			continue;
		if (!ends[ids[full - 1]])
			ends[ids[full - 1]] = conversation;
		for (uint32_t k = 0; k < full - 1; k++)
			if (!ends[ids[k]])
				ends[ids[k]] = SHARED;
		h->alive[r] = ends[ids[full - 1]] != SHARED && h->next[first + full - 1] != UINT32_MAX;
		h->alive_count += h->alive[r];
	}
}

enum ty_code bench_history_open(const struct bench_trace *trace, uint32_t block_tokens, bool partial_tails,
	struct bench_history *out, struct ty_error *err)
{
	struct bench_history h = {.trace = trace};
	uint32_t *scratch = malloc(trace->id_count * sizeof *scratch);

	h.ids = malloc(trace->id_count * sizeof *h.ids);
	h.next = malloc(trace->id_count * sizeof *h.next);
	h.counts = malloc(trace->request_count * sizeof *h.counts);
	h.conversations = malloc(trace->request_count * sizeof *h.conversations);
	h.alive = calloc(trace->request_count, sizeof *h.alive);
	if (!scratch || !h.ids || !h.next || !h.counts || !h.conversations || !h.alive) {
		free(scratch);
		bench_history_close(&h);
		return ty_fail(err, TY_NO_MEMORY, "no memory for a trace of %u ids", trace->id_count);
	}
	for (uint32_t r = 0; r < trace->request_count; r++) {
		const struct bench_request *request = &trace->requests[r];

		h.counts[r] = partial_tails ? request->count : full_blocks(request, block_tokens);
	}
	make_dense(&h, scratch);
	look_ahead(&h, scratch);
	find_conversations(&h, block_tokens, scratch);
	free(scratch);
	*out = h;
	return TY_OK;
}

void bench_history_close(struct bench_history *h)
{
	free(h->ids);
	free(h->next);
	free(h->counts);
	free(h->conversations);
	free(h->alive);
	*h = (struct bench_history){0};
}
