/* SPDX-License-Identifier: Apache-2.0 */
#include "trace.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Ids seen so far, and in which request last. Open addressing, at most half full. */
struct id_set {
	uint32_t *ids, *requests; /* requests: number + 1; 0 = free */
	uint32_t mask, used;
};

static void set_free(struct id_set *set)
{
	free(set->ids);
	free(set->requests);
}

static bool set_grow(struct id_set *set, uint32_t slots)
{
	struct id_set bigger = {.mask = slots - 1, .used = set->used};

	bigger.ids = calloc(slots, sizeof *bigger.ids);
	bigger.requests = calloc(slots, sizeof *bigger.requests);
	if (!bigger.ids || !bigger.requests) {
		set_free(&bigger);
		return false;
	}
	for (uint32_t i = 0; set->requests && i <= set->mask; i++) {
		uint32_t at = set->ids[i] * 0x9e3779b1u & bigger.mask;

		if (!set->requests[i])
			continue;
		while (bigger.requests[at])
			at = (at + 1) & bigger.mask;
		bigger.ids[at] = set->ids[i];
		bigger.requests[at] = set->requests[i];
	}
	set_free(set);
	*set = bigger;
	return true;
}

/* Note that `id` occurs in request number `request`; returns the number + 1 of the request where it was noted last, 0
 * for none, -1 for want of memory. */
static int64_t set_note(struct id_set *set, uint32_t id, uint32_t request)
{
	uint32_t at, before;

	if (!set->requests && !set_grow(set, 1024))
		return -1;
	if (set->used > set->mask / 2 && !set_grow(set, (set->mask + 1) * 2))
		return -1;
	at = id * 0x9e3779b1u & set->mask;
	while (set->requests[at] && set->ids[at] != id)
		at = (at + 1) & set->mask;
	before = set->requests[at];
	set->used += !before;
	set->ids[at] = id;
	set->requests[at] = request + 1;
	return before;
}

/* Reading state: the trace as it grows, and where in the file we are. */
struct reader {
	const char *name;
	uint32_t line, block_tokens;
	uint32_t request_room, id_room;
	struct id_set seen;
	struct bench_trace trace;
	struct ty_error *err;
};

#define WRONG(reader, fmt, ...) \
	ty_fail((reader)->err, TY_INVALID, "%s line %u: " fmt, (reader)->name, (reader)->line, __VA_ARGS__)

static const char *kind_of(const json_t *value)
{
	static const char *const names[] = {"an object", "an array", "a string", "an integer", "a real number", "true",
		"false", "null"};

	return value ? names[json_typeof(value)] : "nothing";
}

static enum ty_code read_tokens(struct reader *r, const json_t *object, const char *field, uint32_t *out)
{
	const json_t *value = json_object_get(object, field);
	json_int_t number;

	if (!json_is_integer(value))
		return WRONG(r, "%s: found %s, expected a number of tokens", field, kind_of(value));
	number = json_integer_value(value);
	if (number < 0 || number > INT32_MAX)
		return WRONG(r, "%s: found %lld, expected 0 to %d tokens", field, (long long)number, INT32_MAX);
	*out = (uint32_t)number;
	return TY_OK;
}

static enum ty_code read_time(struct reader *r, const json_t *object, double *out)
{
	const json_t *value = json_object_get(object, "timestamp");
	uint32_t count = r->trace.request_count;

	if (!json_is_number(value))
		return WRONG(r, "timestamp: found %s, expected a number of milliseconds", kind_of(value));
	*out = json_number_value(value);
	if (!(*out >= 0 && *out <= 1e15))
		return WRONG(r, "timestamp: found %g, expected 0 to 1e15 ms", *out);
	if (count && *out < r->trace.requests[count - 1].at_ms)
		return WRONG(r, "timestamp: found %g, expected at least the line before's %g ms", *out,
			r->trace.requests[count - 1].at_ms);
	return TY_OK;
}

static enum ty_code read_id(struct reader *r, const json_t *value, size_t index, uint32_t *out)
{
	json_int_t number;
	int64_t before;

	if (!json_is_integer(value))
		return WRONG(r, "hash_ids[%zu]: found %s, expected an integer", index, kind_of(value));
	number = json_integer_value(value);
	if (number < 0 || number >= UINT32_MAX)
		return WRONG(r, "hash_ids[%zu]: found %lld, expected 0 to %u", index, (long long)number, UINT32_MAX - 1);
	*out = (uint32_t)number;
	before = set_note(&r->seen, *out, r->trace.request_count);
	if (before < 0)
		return ty_fail(r->err, TY_NO_MEMORY, "no memory for the trace's ids");
	if (before == (int64_t)r->trace.request_count + 1)
		return WRONG(r, "hash_ids[%zu]: %u occurs twice, expected chained ids", index, *out);
	return TY_OK;
}

static bool make_room(void **array, uint32_t *room, uint64_t need, size_t size)
{
	uint64_t want = *room ? *room : 4096;
	void *bigger;

	if (need <= *room)
		return true;
	while (want < need)
		want *= 2;
	bigger = reallocarray(*array, want, size);
	if (!bigger)
		return false;
	*array = bigger;
	*room = (uint32_t)want;
	return true;
}

static enum ty_code read_ids(struct reader *r, const json_t *object, struct bench_request *request)
{
	const json_t *array = json_object_get(object, "hash_ids");
	struct bench_trace *t = &r->trace;
	uint32_t whole = request->input / r->block_tokens;
	uint32_t all = whole + (request->input % r->block_tokens != 0);
	size_t count = json_array_size(array);
	enum ty_code code = TY_OK;

	if (!json_is_array(array))
		return WRONG(r, "hash_ids: found %s, expected an array of ids", kind_of(array));
	if (count < 1 || count > BENCH_TRACE_REQUEST_IDS_MAX)
		return WRONG(r, "hash_ids: found %zu ids, expected 1 to %u", count, BENCH_TRACE_REQUEST_IDS_MAX);
	if (count != whole && count != all)
		return WRONG(r, "hash_ids: found %zu ids, expected %u (input_length %u in blocks of %u tokens)", count, all,
			request->input, r->block_tokens);
	if (t->id_count + count > BENCH_TRACE_IDS_MAX)
		return WRONG(r, "more than %u ids in all", BENCH_TRACE_IDS_MAX);
	if (!make_room((void **)&t->ids, &r->id_room, t->id_count + count, sizeof *t->ids))
		return ty_fail(r->err, TY_NO_MEMORY, "no memory for the trace's ids");
	request->first = t->id_count;
	request->count = (uint32_t)count;
	for (size_t i = 0; i < count && code == TY_OK; i++) {
		uint32_t *id = &t->ids[t->id_count];

		code = read_id(r, json_array_get(array, i), i, id);
		t->id_count += code == TY_OK;
		if (code == TY_OK && *id > t->max_id)
			t->max_id = *id;
	}
	if (request->count > t->largest)
		t->largest = request->count;
	return code;
}

static enum ty_code read_line(struct reader *r, const char *line, size_t length)
{
	struct bench_request request = {.line = r->line};
	json_error_t why;
	json_t *object = json_loadb(line, length, JSON_REJECT_DUPLICATES, &why);
	enum ty_code code;

	if (!object)
		return WRONG(r, "column %d: %s; expected one JSON object", why.column, why.text);
	if (!json_is_object(object)) {
		code = WRONG(r, "found %s, expected a JSON object", kind_of(object));
		goto out;
	}
	code = read_time(r, object, &request.at_ms);
	if (code == TY_OK)
		code = read_tokens(r, object, "input_length", &request.input);
	if (code == TY_OK)
		code = read_tokens(r, object, "output_length", &request.output);
	if (code == TY_OK)
		code = read_ids(r, object, &request);
	if (code != TY_OK)
		goto out;
	if (r->trace.request_count == BENCH_TRACE_REQUESTS_MAX) {
		code = WRONG(r, "more than %u requests", BENCH_TRACE_REQUESTS_MAX);
		goto out;
	}
	if (!make_room((void **)&r->trace.requests, &r->request_room, (uint64_t)r->trace.request_count + 1, sizeof request)) {
		code = ty_fail(r->err, TY_NO_MEMORY, "no memory for the trace's requests");
		goto out;
	}
	r->trace.requests[r->trace.request_count++] = request;
out:
	json_decref(object);
	return code;
}

/* One line into `buffer` (BENCH_TRACE_LINE_MAX + 1 bytes) without its newline. *more is false at the end of the file. */
static enum ty_code next_line(struct reader *r, FILE *in, char *buffer, size_t *length, bool *more)
{
	int c;

	*length = 0;
	*more = false;
	while ((c = getc_unlocked(in)) != EOF) {
		*more = true;
		if (c == '\n')
			return TY_OK;
		if (*length == BENCH_TRACE_LINE_MAX)
			return WRONG(r, "longer than %u bytes", BENCH_TRACE_LINE_MAX);
		buffer[(*length)++] = (char)c;
	}
	if (ferror(in))
		return ty_fail(r->err, TY_IO, "%s line %u: %s", r->name, r->line, strerror(errno));
	return TY_OK;
}

enum ty_code bench_trace_read(FILE *in, const char *name, uint32_t limit, uint32_t block_tokens, struct bench_trace *out,
	struct ty_error *err)
{
	struct reader r = {.name = name, .block_tokens = block_tokens, .err = err};
	char *buffer = malloc(BENCH_TRACE_LINE_MAX);
	enum ty_code code = TY_OK;
	size_t length;
	bool more = true;

	assert(block_tokens > 0);
	if (!buffer)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a line");
	while (code == TY_OK && (limit == 0 || r.trace.request_count < limit)) {
		r.line++;
		code = next_line(&r, in, buffer, &length, &more);
		if (code != TY_OK || !more)
			break;
		code = read_line(&r, buffer, length);
	}
	if (code == TY_OK && r.trace.request_count == 0)
		code = ty_fail(err, TY_INVALID, "%s: empty, expected at least one request", name);
	set_free(&r.seen);
	free(buffer);
	if (code != TY_OK)
		bench_trace_free(&r.trace);
	else
		*out = r.trace;
	return code;
}

void bench_trace_free(struct bench_trace *trace)
{
	free(trace->requests);
	free(trace->ids);
	*trace = (struct bench_trace){0};
}

enum ty_code bench_trace_ceiling(const struct bench_trace *trace, uint64_t *hits, struct ty_error *err)
{
	struct id_set seen = {0};
	enum ty_code code = TY_OK;

	*hits = 0;
	for (uint32_t i = 0; i < trace->request_count && code == TY_OK; i++) {
		const struct bench_request *request = &trace->requests[i];
		bool leading = true;

		for (uint32_t k = 0; k < request->count; k++) {
			int64_t before = set_note(&seen, trace->ids[request->first + k], i);

			if (before < 0) {
				code = ty_fail(err, TY_NO_MEMORY, "no memory for the trace's ids");
				break;
			}
			leading = leading && before != 0;
			*hits += leading;
		}
	}
	set_free(&seen);
	return code;
}
