/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "trace.h"

#define L1 "{\"timestamp\": 0, \"input_length\": 1100, \"output_length\": 5, \"hash_ids\": [0, 1, 2]}\n"
#define L2 "{\"timestamp\": 3000, \"input_length\": 1500, \"output_length\": 7, \"hash_ids\": [0, 1, 3], \"more\": {}}\n"
#define L3 "{\"timestamp\": 3000.5, \"input_length\": 2048, \"output_length\": 0, \"hash_ids\": [0, 1, 3, 4]}\n"

static enum ty_code read_text(const char *text, uint32_t limit, struct bench_trace *trace, struct ty_error *err)
{
	FILE *in = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
	enum ty_code code;

	assert_non_null(in);
	code = bench_trace_read(in, "T", limit, 512, trace, err);
	fclose(in);
	return code;
}

static void test_good_lines(void **state)
{
	struct bench_trace trace;
	struct ty_error err = {0};
	uint64_t hits;

	(void)state;
	assert_int_equal(read_text(L1 L2 L3, 0, &trace, &err), TY_OK);
	assert_int_equal(trace.request_count, 3);
	assert_int_equal(trace.id_count, 10);
	assert_int_equal(trace.largest, 4);
	assert_int_equal(trace.max_id, 4);
	assert_true(trace.requests[2].at_ms == 3000.5);
	assert_int_equal(trace.requests[1].input, 1500);
	assert_int_equal(trace.requests[1].output, 7);
	assert_int_equal(trace.requests[2].line, 3);
	assert_int_equal(trace.ids[trace.requests[2].first + 3], 4);
	assert_int_equal(bench_trace_ceiling(&trace, &hits, &err), TY_OK);
	assert_int_equal(hits, 0 + 2 + 3);
	bench_trace_free(&trace);

	/* Without a newline at the end, and only so many. */
	assert_int_equal(read_text(L1 "{\"timestamp\":1,\"input_length\":1,\"output_length\":1,\"hash_ids\":[9]}", 0, &trace, &err),
		TY_OK);
	assert_int_equal(trace.request_count, 2);
	bench_trace_free(&trace);
	assert_int_equal(read_text(L1 L2 "nonsense", 2, &trace, &err), TY_OK);
	assert_int_equal(trace.request_count, 2);
	bench_trace_free(&trace);
}

/* Only leading ids count: behind the first miss nothing is a hit. */
static void test_ceiling_is_of_prefixes(void **state)
{
	struct bench_trace trace;
	struct ty_error err = {0};
	uint64_t hits;

	(void)state;
	assert_int_equal(read_text(L1 "{\"timestamp\":0,\"input_length\":1536,\"output_length\":1,\"hash_ids\":[0,7,2]}\n" L1, 0, &trace,
				 &err),
		TY_OK);
	assert_int_equal(bench_trace_ceiling(&trace, &hits, &err), TY_OK);
	assert_int_equal(hits, 0 + 1 + 3);
	bench_trace_free(&trace);
}

static void test_bad_lines(void **state)
{
	static const struct {
		const char *line, *words; /* of the error's text */
	} bad[] = {
		{"nonsense", "line 2: column"},
		{"", "line 2: column"},
		{"[1]", "found an array, expected a JSON object"},
		{"{\"timestamp\":1,\"input_length\":1,\"output_length\":1,\"hash_ids\":[9]} {}", "line 2: column"},
		{"{\"timestamp\":1,\"timestamp\":1,\"input_length\":1,\"output_length\":1,\"hash_ids\":[9]}", "duplicate"},
		{"{\"input_length\":1,\"output_length\":1,\"hash_ids\":[9]}", "timestamp: found nothing, expected a number of mill"},
		{"{\"timestamp\":\"1\",\"input_length\":1,\"output_length\":1,\"hash_ids\":[9]}", "timestamp: found a string"},
		{"{\"timestamp\":-1,\"input_length\":1,\"output_length\":1,\"hash_ids\":[9]}", "timestamp: found -1, expected 0 to"},
		{"{\"timestamp\":1,\"input_length\":1.5,\"output_length\":1,\"hash_ids\":[9]}", "input_length: found a real number"},
		{"{\"timestamp\":1,\"input_length\":1,\"output_length\":-4,\"hash_ids\":[9]}", "output_length: found -4"},
		{"{\"timestamp\":1,\"input_length\":1,\"output_length\":1}", "hash_ids: found nothing, expected an array"},
		{"{\"timestamp\":1,\"input_length\":1,\"output_length\":1,\"hash_ids\":[]}", "hash_ids: found 0 ids, expected 1 to"},
		{"{\"timestamp\":1,\"input_length\":513,\"output_length\":1,\"hash_ids\":[1,2,3]}", "found 3 ids, expected 2 (input_length 513"},
		{"{\"timestamp\":1,\"input_length\":1,\"output_length\":1,\"hash_ids\":[-1]}", "hash_ids[0]: found -1, expected 0 to"},
		{"{\"timestamp\":1,\"input_length\":1,\"output_length\":1,\"hash_ids\":[4294967295]}", "hash_ids[0]: found 4294967295"},
		{"{\"timestamp\":1,\"input_length\":1,\"output_length\":1,\"hash_ids\":[null]}", "hash_ids[0]: found null"},
		{"{\"timestamp\":1,\"input_length\":513,\"output_length\":1,\"hash_ids\":[5,5]}", "hash_ids[1]: 5 occurs twice"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct bench_trace trace;
		struct ty_error err = {0};
		char text[1024];

		snprintf(text, sizeof text, "%s%s\n", L1, bad[i].line);
		assert_int_equal(read_text(text, 0, &trace, &err), TY_INVALID);
		if (!strstr(err.text, bad[i].words) || !strstr(err.text, "T line 2: "))
			fail_msg("%s: got \"%s\"", bad[i].line, err.text);
	}
}

static void test_order_and_emptiness(void **state)
{
	struct bench_trace trace;
	struct ty_error err = {0};

	(void)state;
	assert_int_equal(read_text(L1 L2 L1, 0, &trace, &err), TY_INVALID);
	assert_non_null(strstr(err.text, "line 3: timestamp: found 0, expected at least the line before's 3000"));
	assert_int_equal(read_text("\n", 0, &trace, &err), TY_INVALID);
	assert_non_null(strstr(err.text, "line 1"));
}

static void test_line_limit(void **state)
{
	char *text = malloc(BENCH_TRACE_LINE_MAX + 2);
	struct bench_trace trace;
	struct ty_error err = {0};

	(void)state;
	assert_non_null(text);
	memset(text, ' ', BENCH_TRACE_LINE_MAX + 1);
	text[BENCH_TRACE_LINE_MAX + 1] = 0;
	assert_int_equal(read_text(text, 0, &trace, &err), TY_INVALID);
	assert_non_null(strstr(err.text, "line 1: longer than"));
	free(text);
}

/* The published trace, where it is at hand. */
static void test_published_ceiling(void **state)
{
	const char *path = getenv("TYER_TRACE");
	struct bench_trace trace;
	struct ty_error err = {0};
	uint64_t hits;
	FILE *in;

	(void)state;
	if (!path)
		skip();
	in = fopen(path, "re");
	assert_non_null(in);
	assert_int_equal(bench_trace_read(in, path, 0, 512, &trace, &err), TY_OK);
	fclose(in);
	assert_int_equal(trace.request_count, 12031);
	assert_int_equal(trace.id_count, 288500);
	assert_int_equal(bench_trace_ceiling(&trace, &hits, &err), TY_OK);
	assert_int_equal(hits, 105710);
	bench_trace_free(&trace);
}

static char *synthesize(uint64_t seed, size_t *length)
{
	struct bench_synth s = {.seed = seed, .requests = 300, .rate = 4, .prompts = 5, .prompt_tokens = 1500, .turns = 4,
		.input_tokens = 800, .output_tokens = 300, .think_s = 20, .max_tokens = 16384, .block_tokens = 512};
	struct ty_error err = {0};
	char *text = NULL;
	FILE *out = open_memstream(&text, length);

	assert_non_null(out);
	assert_int_equal(bench_synth_write(&s, out, &err), TY_OK);
	fclose(out);
	return text;
}

static void test_synthetic_traces(void **state)
{
	size_t length, again_length, other_length;
	char *text = synthesize(3, &length), *again = synthesize(3, &again_length), *other = synthesize(4, &other_length);
	struct bench_trace trace;
	struct ty_error err = {0};
	uint64_t hits;

	(void)state;
	assert_int_equal(length, again_length);
	assert_string_equal(text, again);
	assert_string_not_equal(text, other);
	/* The reader checks what a trace must be; and turns of one chat share their beginnings. */
	assert_int_equal(read_text(text, 0, &trace, &err), TY_OK);
	assert_int_equal(trace.request_count, 300);
	assert_true(trace.requests[299].at_ms > 20e3 && trace.requests[299].at_ms < 400e3); /* 4 a second */
	assert_int_equal(bench_trace_ceiling(&trace, &hits, &err), TY_OK);
	assert_true(hits > trace.id_count / 4 && hits < trace.id_count);
	for (uint32_t i = 0; i < trace.request_count; i++)
		assert_true(trace.requests[i].input <= 16384);
	/* An id always follows the same id: it names a whole prefix. */
	uint32_t *before = calloc(trace.max_id + 1, sizeof *before);
	assert_non_null(before);
	for (uint32_t i = 0; i < trace.request_count; i++) {
		const uint32_t *ids = trace.ids + trace.requests[i].first;

		for (uint32_t k = 0; k < trace.requests[i].count; k++) {
			uint32_t parent = k ? ids[k - 1] + 2 : 1;

			assert_true(before[ids[k]] == 0 || before[ids[k]] == parent);
			before[ids[k]] = parent;
		}
	}
	free(before);
	bench_trace_free(&trace);
	free(text);
	free(again);
	free(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_lines),
		cmocka_unit_test(test_ceiling_is_of_prefixes),
		cmocka_unit_test(test_bad_lines),
		cmocka_unit_test(test_order_and_emptiness),
		cmocka_unit_test(test_line_limit),
		cmocka_unit_test(test_published_ceiling),
		cmocka_unit_test(test_synthetic_traces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
