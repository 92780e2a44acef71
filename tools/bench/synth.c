/* SPDX-License-Identifier: Apache-2.0
 *
 * Synthetic traces. Chats begin at random (Poisson); a chat opens with one of the shared system prompts and then grows
 * by what the user says and what the model answers. Blocks that a later turn will see again unchanged keep their id; a
 * last block that is only partly full has one of its own, since the next turn changes it.
 */
#include "trace.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "contents.h"

#define NO_ID UINT32_MAX

/* Block ids of a growing text; NO_ID where a block has not been seen yet. */
struct ids {
	uint32_t *of;
	uint32_t count;
};

struct chat {
	double at; /* of its next turn: seconds */
	uint32_t prompt, tokens, turns_left;
	struct ids ids;
};

struct writer {
	const struct bench_synth *synth;
	FILE *out;
	uint64_t state; /* of the random numbers */
	uint32_t *prompt_tokens;
	struct ids *prompt_ids;
	struct chat *heap; /* chats by the time of their next turn */
	uint32_t heap_count, heap_room;
	uint32_t next_id;
};

/* Uniform in (0, 1). */
static double uniform(struct writer *w)
{
	w->state++;
	return ((double)(bench_mix(w->synth->seed, w->state) >> 11) + 0.5) * 0x1p-53;
}

static double exponential(struct writer *w, double mean)
{
	return -mean * log(uniform(w));
}

/* A length: exponential around the mean, at least 1. */
static uint32_t tokens_around(struct writer *w, uint32_t mean)
{
	double tokens = exponential(w, mean);

	return tokens < 1 ? 1 : tokens > 1e6 ? 1000000 : (uint32_t)tokens;
}

static bool ids_grow(struct ids *ids, uint32_t count)
{
	uint32_t *bigger;

	if (count <= ids->count)
		return true;
	bigger = reallocarray(ids->of, count, sizeof *bigger);
	if (!bigger)
		return false;
	for (uint32_t i = ids->count; i < count; i++)
		bigger[i] = NO_ID;
	ids->of = bigger;
	ids->count = count;
	return true;
}

static bool push(struct writer *w, struct chat chat)
{
	uint32_t at = w->heap_count;

	if (w->heap_count == w->heap_room) {
		uint32_t room = w->heap_room ? w->heap_room * 2 : 64;
		struct chat *bigger = reallocarray(w->heap, room, sizeof *bigger);

		if (!bigger)
			return false;
		w->heap = bigger;
		w->heap_room = room;
	}
	w->heap_count++;
	while (at > 0 && chat.at < w->heap[(at - 1) / 2].at) {
		w->heap[at] = w->heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	w->heap[at] = chat;
	return true;
}

static struct chat pop(struct writer *w)
{
	struct chat first = w->heap[0], last = w->heap[--w->heap_count];
	uint32_t at = 0, child;

	while ((child = 2 * at + 1) < w->heap_count) {
		if (child + 1 < w->heap_count && w->heap[child + 1].at < w->heap[child].at)
			child++;
		if (last.at <= w->heap[child].at)
			break;
		w->heap[at] = w->heap[child];
		at = child;
	}
	w->heap[at] = last;
	return first;
}

static struct chat new_chat(struct writer *w, double at)
{
	const struct bench_synth *s = w->synth;
	double skew = uniform(w), end = uniform(w);
	struct chat chat = {.at = at};

	chat.prompt = (uint32_t)(skew * skew * s->prompts); /* the first ones more often */
	chat.tokens = w->prompt_tokens[chat.prompt];
	/* Geometric: after each turn the chat goes on with probability 1 - 1 / turns. */
	chat.turns_left = s->turns <= 1 ? 1 : 1 + (uint32_t)(log(end) / log(1 - 1 / s->turns));
	return chat;
}

static enum ty_code no_memory(struct ty_error *err)
{
	return ty_fail(err, TY_NO_MEMORY, "no memory for the trace");
}

/* One line: the chat's text so far and `input` more tokens. */
static enum ty_code write_turn(struct writer *w, struct chat *chat, uint32_t output, struct ty_error *err)
{
	const struct bench_synth *s = w->synth;
	uint32_t block = s->block_tokens, count = (chat->tokens + block - 1) / block;
	struct ids *shared = &w->prompt_ids[chat->prompt];

	if (!ids_grow(&chat->ids, count) || !ids_grow(shared, w->prompt_tokens[chat->prompt] / block))
		return no_memory(err);
	fprintf(w->out, "{\"timestamp\": %" PRIu64 ", \"input_length\": %u, \"output_length\": %u, \"hash_ids\": [",
		(uint64_t)(chat->at * 1000), chat->tokens, output);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t partial = NO_ID;
		uint32_t *id = i < shared->count              ? &shared->of[i]
			       : (i + 1) * block <= chat->tokens ? &chat->ids.of[i]
								 : &partial;

		if (*id == NO_ID)
			*id = w->next_id++;
		fprintf(w->out, "%s%u", i ? ", " : "", *id);
	}
	fputs("]}\n", w->out);
	return TY_OK;
}

static enum ty_code write_all(struct writer *w, struct ty_error *err)
{
	const struct bench_synth *s = w->synth;
	double chats_apart = s->turns < 1 ? 1 / s->rate : s->turns / s->rate, next_chat = 0;

	for (uint32_t written = 0; written < s->requests;) {
		uint32_t input, output;
		struct chat chat;
		enum ty_code code;

		if (w->heap_count == 0 || next_chat <= w->heap[0].at) {
			if (!push(w, new_chat(w, next_chat)))
				return no_memory(err);
			next_chat += exponential(w, chats_apart);
			continue;
		}
		chat = pop(w);
		input = tokens_around(w, s->input_tokens);
		output = tokens_around(w, s->output_tokens);
		if ((uint64_t)chat.tokens + input > s->max_tokens && chat.tokens > w->prompt_tokens[chat.prompt]) {
			free(chat.ids.of);
			continue;
		}
		chat.tokens += input < s->max_tokens ? input : s->max_tokens;
		code = write_turn(w, &chat, output, err);
		written++;
		chat.tokens += output;
		chat.at += exponential(w, s->think_s);
		if (code != TY_OK || --chat.turns_left == 0 || chat.tokens >= s->max_tokens)
			free(chat.ids.of);
		else if (!push(w, chat)) {
			free(chat.ids.of);
			code = no_memory(err);
		}
		if (code != TY_OK)
			return code;
	}
	return TY_OK;
}

enum ty_code bench_synth_write(const struct bench_synth *s, FILE *out, struct ty_error *err)
{
	struct writer w = {.synth = s, .out = out};
	enum ty_code code;

	assert(s->prompts > 0 && s->rate > 0 && s->block_tokens > 0);
	w.prompt_tokens = calloc(s->prompts, sizeof *w.prompt_tokens);
	w.prompt_ids = calloc(s->prompts, sizeof *w.prompt_ids);
	if (!w.prompt_tokens || !w.prompt_ids) {
		code = no_memory(err);
		goto out;
	}
	for (uint32_t i = 0; i < s->prompts; i++) {
		w.prompt_tokens[i] = tokens_around(&w, s->prompt_tokens);
		if (w.prompt_tokens[i] > s->max_tokens / 2)
			w.prompt_tokens[i] = s->max_tokens / 2;
	}
	code = write_all(&w, err);
	if (code == TY_OK && (fflush(out) != 0 || ferror(out)))
		code = ty_fail(err, TY_IO, "writing the trace: %s", strerror(errno));
out:
	for (uint32_t i = 0; i < w.heap_count; i++)
		free(w.heap[i].ids.of);
	free(w.heap);
	for (uint32_t i = 0; w.prompt_ids && i < s->prompts; i++)
		free(w.prompt_ids[i].of);
	free(w.prompt_ids);
	free(w.prompt_tokens);
	return code;
}
