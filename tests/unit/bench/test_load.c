/* SPDX-License-Identifier: Apache-2.0
 *
 * Whole runs, processes and all, against the fake service: that a good one passes, and that each way of being wrong is
 * found, counted and named.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "engine.h"
#include "fake_client.h"

/* 5 requests, 17 blocks, 7 of them hits in order. */
static const char trace_text[] =
	"{\"timestamp\":0,\"input_length\":1536,\"output_length\":1,\"hash_ids\":[0,1,2]}\n"
	"{\"timestamp\":5,\"input_length\":2000,\"output_length\":1,\"hash_ids\":[0,1,3,4]}\n"
	"{\"timestamp\":9,\"input_length\":512,\"output_length\":1,\"hash_ids\":[5]}\n"
	"{\"timestamp\":9,\"input_length\":2560,\"output_length\":1,\"hash_ids\":[0,1,3,4,6]}\n"
	"{\"timestamp\":20,\"input_length\":2048,\"output_length\":1,\"hash_ids\":[5,7,8,9]}\n";

struct run {
	int code;
	json_t *report;
	char *out, *err; /* what it printed */
};

static char *read_back(FILE *file)
{
	static const size_t most = 1 << 16;
	char *text = calloc(1, most);

	assert_non_null(text);
	rewind(file);
	assert_true(fread(text, 1, most - 1, file) < most - 1);
	fclose(file);
	return text;
}

/* Run a command line ("replay TRACE --json JSON" and `more`, or `line` as it is), with what it prints caught. */
static struct run run_bench(const char *command, const char *more)
{
	char line[512], trace[] = "/tmp/tyer-bench-trace-XXXXXX", json[] = "/tmp/tyer-bench-json-XXXXXX";
	char *argv[40] = {(char *)(uintptr_t) "tyer-bench"}, *rest = line, *part;
	int trace_fd = mkstemp(trace), json_fd = mkstemp(json), old_out = dup(1), old_err = dup(2), argc = 1;
	FILE *out = tmpfile(), *err = tmpfile();
	struct bench_options options;
	struct ty_error why = {0};
	struct run run;

	assert_true(trace_fd >= 0 && json_fd >= 0 && out && err);
	assert_int_equal(write(trace_fd, trace_text, sizeof trace_text - 1), sizeof trace_text - 1);
	snprintf(line, sizeof line, "%s%s%s --json %s%s%s", command, strcmp(command, "replay") == 0 ? " " : "",
		strcmp(command, "replay") == 0 ? trace : "", json, more[0] ? " " : "", more);
	while ((part = strsep(&rest, " ")))
		argv[argc++] = part;
	if (bench_options_parse(&options, argc, argv, &why) != TY_OK)
		fail_msg("%s", why.text);
	fflush(NULL);
	dup2(fileno(out), 1);
	dup2(fileno(err), 2);
	run.code = options.command == BENCH_REPLAY ? bench_replay(&options)
		   : options.command == BENCH_COPY ? bench_copy(&options)
						   : bench_ping(&options);
	fflush(NULL);
	dup2(old_out, 1);
	dup2(old_err, 2);
	close(old_out);
	close(old_err);
	run.out = read_back(out);
	run.err = read_back(err);
	run.report = json_load_file(json, 0, NULL);
	close(trace_fd);
	close(json_fd);
	unlink(trace);
	unlink(json);
	return run;
}

static void free_run(struct run *run)
{
	json_decref(run->report);
	free(run->out);
	free(run->err);
}

static json_int_t figure(const struct run *run, const char *group, const char *name)
{
	json_t *object = group ? json_object_get(run->report, group) : run->report;
	json_t *value = json_object_get(object, name);

	if (!json_is_integer(value))
		fail_msg("no figure %s %s; printed: %s %s", group ? group : "", name, run->out, run->err);
	return json_integer_value(value);
}

static json_int_t count_of(const struct run *run, const char *row)
{
	return json_integer_value(json_object_get(json_object_get(json_object_get(run->report, "latency"), row), "count"));
}

static void assert_text(const char *text, const char *words)
{
	if (!strstr(text, words))
		fail_msg("\"%s\" is not in:\n%s", words, text);
}

static int reset_fake(void **state)
{
	(void)state;
	fake = (struct fake){.chunk_tokens = 512, .max_operation_chunks = 4096};
	return 0;
}

static void assert_good_replay(const struct run *run, unsigned parts)
{
	if (run->code != 0)
		fail_msg("exit code %d: %s", run->code, run->err);
	assert_int_equal(figure(run, NULL, "requests"), 5);
	assert_int_equal(figure(run, NULL, "chunks"), 17 * parts);
	assert_int_equal(figure(run, NULL, "ceiling"), 7 * parts);
	assert_int_equal(figure(run, NULL, "chunks_checked"), figure(run, NULL, "hits"));
	assert_int_equal(figure(run, NULL, "blocks_checked"), figure(run, NULL, "hits") * 4 / parts);
	assert_int_equal(figure(run, NULL, "words_wrong"), 0);
	assert_int_equal(figure(run, "replies", "sent"), figure(run, "replies", "completed"));
	assert_int_equal(figure(run, NULL, "chunks_stored") + figure(run, NULL, "chunks_present") + figure(run, NULL, "hits"),
		17 * parts);
}

static void test_good_replay(void **state)
{
	struct run run = run_bench("replay", "--concurrency 1 --require-ceiling --ping-every 1ms");
	const char *last = "replay: 5 requests, 7 chunks checked, 0 wrong\n";

	(void)state;
	assert_good_replay(&run, 1);
	assert_int_equal(figure(&run, NULL, "hits"), 7);
	assert_int_equal(figure(&run, NULL, "chunks_stored"), 10);
	assert_int_equal(figure(&run, NULL, "retrieved_bytes"), 7 * 65536);
	assert_string_equal(run.out + strlen(run.out) - strlen(last), last);
	assert_text(run.out, "ceiling of the trace");
	assert_true(count_of(&run, "sleep_late") >= 1); /* of the PINGs' process */
	free_run(&run);
}

/* Who knows the trace says what becomes of each conversation. */
static void test_hints(void **state)
{
	static const struct fake_said both[] = {{1, TY_HINT_DONE}, {2, TY_HINT_ALIVE}, {3, TY_HINT_ALIVE}, {2, TY_HINT_DONE},
		{3, TY_HINT_DONE}};
	static const struct fake_said alive[] = {{1, TY_HINT_NONE}, {2, TY_HINT_ALIVE}, {3, TY_HINT_ALIVE}, {2, TY_HINT_NONE},
		{3, TY_HINT_NONE}};
	struct run run;

	(void)state;
	fake.said = both;
	run = run_bench("replay", "--concurrency 1 --require-ceiling --hints both");
	assert_good_replay(&run, 1);
	free_run(&run);
	fake.said = alive;
	run = run_bench("replay", "--concurrency 1 --require-ceiling --hints=alive");
	assert_good_replay(&run, 1);
	free_run(&run);
}

/* Chunks of 128 tokens (four to a block of the trace), operations of at most 3, and a pool with room for 2 a session. */
static void test_windows_and_parts(void **state)
{
	struct run run;

	(void)state;
	fake.chunk_tokens = 128;
	fake.max_operation_chunks = 3;
	run = run_bench("replay", "--concurrency 1 --require-ceiling --geometry tiny,layout=interleaved");
	assert_good_replay(&run, 4);
	assert_int_equal(figure(&run, NULL, "hits"), 28);
	free_run(&run);
	run = run_bench("replay", "--concurrency 2 --pool-bytes 64KiB --geometry tiny,layout=cross-layer");
	assert_good_replay(&run, 4);
	free_run(&run);
}

static void test_many_sessions_by_the_clock(void **state)
{
	struct run run;

	(void)state;
	fake.busy_every = 3;
	run = run_bench("replay", "--concurrency 5 --speed 2 --store-early");
	assert_good_replay(&run, 1);
	assert_true(figure(&run, "replies", "busy_retries") > 0);
	assert_int_equal(json_integer_value(json_object_get(
				 json_object_get(json_object_get(run.report, "latency"), "request_intended"), "count")),
		5);
	free_run(&run);
}

/* Two processes, each with a service of its own (this fake's memory is not shared): every request is replayed once. */
static void test_clients_and_dealing(void **state)
{
	struct run run = run_bench("replay", "--clients 2 --concurrency 1");

	(void)state;
	assert_good_replay(&run, 1);
	/* requests 0, 2, 4 and 1, 3: hits of id 5, and of 0, 1, 3, 4 */
	assert_int_equal(figure(&run, NULL, "hits"), 1 + 4);
	free_run(&run);
	run = run_bench("replay", "--clients 3 --deal next");
	assert_good_replay(&run, 1);
	free_run(&run);
}

static void test_full_service_gives_honest_misses(void **state)
{
	struct run run;

	(void)state;
	fake.capacity = 4;
	run = run_bench("replay", "--concurrency 1");
	if (run.code != 0)
		fail_msg("%s", run.err);
	assert_int_equal(figure(&run, NULL, "chunks_stored"), 4);
	assert_int_equal(figure(&run, NULL, "chunks_dropped"), 17 - 4 - figure(&run, NULL, "hits"));
	free_run(&run);
	run = run_bench("replay", "--concurrency 1 --require-ceiling");
	assert_int_equal(run.code, 1);
	assert_text(run.err, "expected the ceiling of 7");
	free_run(&run);
}

/* Every way of being wrong, and what is said of it. */
static void test_faults_are_found(void **state)
{
	static const struct {
		enum fake_fault fault;
		uint32_t after;
		const char *options, *group, *name, *words;
	} cases[] = {
		{FAKE_FLIP_BIT, 3, "", NULL, "words_wrong", "no word of this run"},
		{FAKE_SWAP_BLOCKS, 2, "", NULL, "chunks_wrong", "which is word 2048 (block 1, layer 0 K, token 0) of chunk"},
		{FAKE_SWAP_CHUNKS, 0, "", NULL, "chunks_wrong", "which is word 0 (block 0, layer 0 K, token 0) of chunk 1.0"},
		{FAKE_NOT_WRITTEN, 0, "", NULL, "words_wrong", "poison from before the retrieve: it was never written"},
		{FAKE_IGNORE_READY, 0, "--store-early", "replies", "miscounted", "before the ready mark was there"},
		{FAKE_DOUBLE_REPLY, 1, "", "replies", "doubled", "LOOKUP: a second reply"},
		{FAKE_LOSE_REPLY, 1, "--timeout 20ms --grace 20ms", NULL, "requests_not_begun", "no reply for 40 ms"},
		{FAKE_NO_DONE_MARK, 0, "", "replies", "miscounted", "before the done mark was there"},
		{FAKE_WRONG_COUNT, 0, "", "replies", "miscounted", "4 stored, 0 present, 0 dropped, expected 3 together"},
		{FAKE_DEVICE_FAILED, 0, "", "replies", "unexpected_errors", "RETRIEVE: DEVICE_FAILED: as told"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char options[128];
		struct run run;

		reset_fake(NULL);
		fake.fault = cases[i].fault;
		fake.fault_after = cases[i].after;
		snprintf(options, sizeof options, "--concurrency 1 %s", cases[i].options[0] ? cases[i].options : "--seed 9");
		run = run_bench("replay", options);
		if (run.code != 1 || figure(&run, cases[i].group, cases[i].name) == 0)
			fail_msg("fault %u: exit code %d\n%s\n%s", cases[i].fault, run.code, run.out, run.err);
		assert_text(run.err, cases[i].words);
		free_run(&run);
	}
}

static void test_tolerated_errors(void **state)
{
	struct run run;

	(void)state;
	fake.fault = FAKE_DEVICE_FAILED;
	run = run_bench("replay", "--concurrency 1 --tolerate DEVICE_FAILED");
	assert_int_equal(run.code, 0);
	assert_int_equal(figure(&run, "replies", "tolerated_errors"), 1);
	assert_int_equal(figure(&run, NULL, "requests_failed"), 1);
	assert_int_equal(figure(&run, NULL, "requests"), 4);
	free_run(&run);
}

/* An operation whose reply says so may still write: its blocks are not used again (the fake sees to that) before a FLUSH was OK,
 * whatever the code was; and without a session that may begin the run ends. */
static void test_blocks_in_use_rest(void **state)
{
	static const struct {
		enum fake_fault fault;
		const char *tolerate;
	} cases[] = {{FAKE_STALLED, "DEVICE_STALLED"}, {FAKE_DEVICE_FAILED, "DEVICE_FAILED"}};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char options[128];
		struct run run;

		reset_fake(NULL);
		fake.fault = cases[i].fault;
		snprintf(options, sizeof options, "--concurrency 1 --tolerate %s --give-up 20ms", cases[i].tolerate);
		run = run_bench("replay", options); /* none is in use: nothing rests, and nobody asks */
		assert_int_equal(run.code, 0);
		assert_int_equal(figure(&run, NULL, "requests_failed"), 1);
		assert_int_equal(count_of(&run, "flush"), 0);
		free_run(&run);

		fake.in_use = true;
		fake.flushes = 2;
		run = run_bench("replay", options);
		if (run.code != 0)
			fail_msg("%s: exit code %d\n%s\n%s", cases[i].tolerate, run.code, run.out, run.err);
		assert_int_equal(figure(&run, NULL, "requests_failed"), 1);
		assert_int_equal(figure(&run, NULL, "requests"), 4);
		assert_int_equal(count_of(&run, "flush"), 1); /* and two that were not OK */
		assert_text(run.out, "TIMEOUT                           2");
		free_run(&run);

		fake.flushes = UINT32_MAX;
		run = run_bench("replay", options);
		assert_int_equal(run.code, 1);
		assert_text(run.err, "are not over: the last FLUSH was answered TIMEOUT");
		free_run(&run);
	}
}

/* One session's blocks rest for good; the others go on. */
static void test_others_go_on_beside_blocks_in_use(void **state)
{
	struct run run;

	(void)state;
	fake.fault = FAKE_STALLED;
	fake.in_use = true;
	fake.flushes = UINT32_MAX;
	run = run_bench("replay", "--concurrency 2 --tolerate DEVICE_STALLED");
	if (run.code != 0)
		fail_msg("exit code %d\n%s\n%s", run.code, run.out, run.err);
	assert_int_equal(figure(&run, NULL, "requests_failed"), 1);
	free_run(&run);
}

static void test_nothing_to_talk_to(void **state)
{
	static const char *const commands[] = {"replay", "copy", "ping"};

	(void)state;
	fake.refuse = true;
	for (unsigned i = 0; i < 3; i++) {
		struct run run = run_bench(commands[i], "");

		assert_int_equal(run.code, 2);
		assert_text(run.err, "cannot use the service at");
		assert_text(run.err, "nobody listens");
		free_run(&run);
	}
}

static void test_chunks_that_do_not_fit_the_trace(void **state)
{
	struct run run;

	(void)state;
	fake.chunk_tokens = 384;
	run = run_bench("replay", "");
	assert_int_equal(run.code, 2);
	assert_text(run.err, "is not a whole number of the service's chunks of 384 tokens");
	free_run(&run);
	fake.chunk_tokens = 64;
	run = run_bench("replay", "");
	assert_int_equal(run.code, 2);
	assert_text(run.err, "do not divide the service's chunks of 64 tokens");
	free_run(&run);
	fake.chunk_tokens = 512;
	run = run_bench("replay", "--pool-bytes 512KiB --concurrency 9");
	assert_int_equal(run.code, 2);
	assert_text(run.err, "expected room for a chunk");
	free_run(&run);
}

static void test_copy(void **state)
{
	struct run run;

	(void)state;
	fake.busy_every = 7;
	run = run_bench("copy", "--chunks 10 --op-chunks 3 --depth 2 --repeats 3 --warmup 1");
	if (run.code != 0)
		fail_msg("exit code %d: %s\n%s", run.code, run.out, run.err);
	assert_int_equal(figure(&run, NULL, "repeats"), 3);
	assert_int_equal(figure(&run, NULL, "chunks_stored"), 40);
	assert_int_equal(figure(&run, NULL, "chunks_checked"), 40);
	assert_true(json_real_value(json_object_get(json_object_get(run.report, "store_to_raw"), "median")) > 0);
	assert_text(run.out, "store / raw");
	free_run(&run);

	reset_fake(NULL);
	fake.fault = FAKE_SWAP_BLOCKS;
	fake.fault_after = 5;
	run = run_bench("copy", "--chunks 4 --op-chunks 2 --repeats 1 --no-raw");
	assert_int_equal(run.code, 1);
	assert_int_equal(figure(&run, NULL, "chunks_wrong"), 1);
	free_run(&run);
}

/* What is not found again cannot be checked, and that is not all well. */
static void test_copy_forgotten(void **state)
{
	(void)state;
	for (uint32_t found = 0; found < 4; found++) {
		char words[64];
		struct run run;

		reset_fake(NULL);
		fake.fault = FAKE_FORGET;
		fake.fault_always = true;
		fake.remembered = found;
		run = run_bench("copy", "--chunks 4 --op-chunks 2 --repeats 3 --no-raw");
		assert_int_equal(run.code, 1);
		assert_int_equal(figure(&run, NULL, "chunks_stored"), 4);
		assert_int_equal(figure(&run, NULL, "chunks_checked"), 0);
		snprintf(words, sizeof words, "LOOKUP finds %u of the 4 chunks just stored", found);
		assert_text(run.err, words);
		free_run(&run);
	}
}

static void test_ping(void **state)
{
	struct run run = run_bench("ping", "--rate 500 --duration 40ms");

	(void)state;
	assert_int_equal(run.code, 0);
	assert_int_equal(figure(&run, "replies", "sent"), 20);
	assert_int_equal(figure(&run, "replies", "completed"), 20);
	assert_text(run.out, "ping: 20 sent, 20 answered\n");
	assert_true(count_of(&run, "sleep_late") >= 1);
	free_run(&run);
}

/* A signal ends it, and it tells what it has measured. */
static void test_ping_interrupted(void **state)
{
	struct run run;

	(void)state;
	fake.interrupt_at = 5;
	run = run_bench("ping", "--rate 500 --duration 3000s");
	assert_int_equal(run.code, 0);
	assert_text(run.out, "ping: 5 sent, 5 answered\n");
	free_run(&run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_good_replay, reset_fake),
		cmocka_unit_test_setup(test_hints, reset_fake),
		cmocka_unit_test_setup(test_windows_and_parts, reset_fake),
		cmocka_unit_test_setup(test_many_sessions_by_the_clock, reset_fake),
		cmocka_unit_test_setup(test_clients_and_dealing, reset_fake),
		cmocka_unit_test_setup(test_full_service_gives_honest_misses, reset_fake),
		cmocka_unit_test_setup(test_faults_are_found, reset_fake),
		cmocka_unit_test_setup(test_tolerated_errors, reset_fake),
		cmocka_unit_test_setup(test_blocks_in_use_rest, reset_fake),
		cmocka_unit_test_setup(test_others_go_on_beside_blocks_in_use, reset_fake),
		cmocka_unit_test_setup(test_nothing_to_talk_to, reset_fake),
		cmocka_unit_test_setup(test_chunks_that_do_not_fit_the_trace, reset_fake),
		cmocka_unit_test_setup(test_copy, reset_fake),
		cmocka_unit_test_setup(test_copy_forgotten, reset_fake),
		cmocka_unit_test_setup(test_ping, reset_fake),
		cmocka_unit_test_setup(test_ping_interrupted, reset_fake),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
