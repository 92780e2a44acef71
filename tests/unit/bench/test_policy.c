/* SPDX-License-Identifier: Apache-2.0
 *
 * The simulation of policies: what can be counted by hand, and what must hold for any trace.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy.h"

static struct bench_trace trace;
static struct bench_history history;
static struct ty_error err;

static void open_file(FILE *in, bool partial_tails)
{
	assert_non_null(in);
	assert_int_equal(bench_trace_read(in, "T", 0, 512, &trace, &err), TY_OK);
	fclose(in);
	assert_int_equal(bench_history_open(&trace, 512, partial_tails, &history, &err), TY_OK);
}

static void open_text(const char *text, bool partial_tails)
{
	open_file(fmemopen((void *)(uintptr_t)text, strlen(text), "r"), partial_tails);
}

static void close_all(void)
{
	bench_history_close(&history);
	bench_trace_free(&trace);
}

static uint64_t hits(const struct ty_policy_class *cls, uint32_t size, enum bench_hints hints)
{
	struct bench_simulation sim;

	assert_int_equal(bench_simulate(&history, cls, size, hints, &sim, &err), TY_OK);
	return sim.hits;
}

static uint64_t belady(uint32_t size)
{
	uint64_t best;

	assert_int_equal(bench_belady(&history, size, &best, &err), TY_OK);
	return best;
}

#define LINE(input, ids) "{\"timestamp\": 0, \"input_length\": " #input ", \"output_length\": 1, \"hash_ids\": " ids "}\n"

/* A head that two conversations share (90); the first one goes on, the second does not; the third ends with what others share. */
static const char chats[] = LINE(1536, "[90, 7, 8]") LINE(1100, "[90, 5, 3]") LINE(2560, "[90, 7, 8, 1, 2]")
	LINE(600, "[90, 4]") LINE(3072, "[90, 7, 8, 1, 2, 6]");

static void test_history(void **state)
{
	static const uint32_t conversations[] = {1, 2, 1, 3, 1}, counts[] = {3, 2, 5, 1, 6};
	static const bool alive[] = {true, false, true, false, false};

	(void)state;
	open_text(chats, false);
	assert_int_equal(history.blocks, 9);
	assert_int_equal(history.conversation_count, 3);
	assert_int_equal(history.alive_count, 2);
	for (uint32_t r = 0; r < 5; r++) {
		assert_int_equal(history.conversations[r], conversations[r]);
		assert_int_equal(history.counts[r], counts[r]);
		assert_int_equal(history.alive[r], alive[r]);
	}
	assert_int_equal(history.next[0], 1);          /* 90 */
	assert_int_equal(history.next[1], 2);          /* 7 */
	assert_int_equal(history.next[4], UINT32_MAX); /* 5 */
	close_all();
	open_text(chats, true);
	assert_int_equal(history.counts[1], 3);
	close_all();
}

static void test_by_hand(void **state)
{
	(void)state;
	open_text(chats, false);
	for (size_t i = 0; ty_policies[i]; i++)
		assert_int_equal(hits(ty_policies[i], 100, BENCH_HINTS_NONE), 1 + 3 + 1 + 5); /* all that can be */
	assert_int_equal(belady(100), 10);
	assert_int_equal(belady(5), 10);
	assert_int_equal(belady(1), 4);
	/* Room for three: request 2 finds 90 and 7 (the room for 5 was the tail's, 8), the last one 90, 7 and 8 */
	assert_int_equal(hits(&ty_policy_lru, 3, BENCH_HINTS_NONE), 1 + 2 + 1 + 3);
	close_all();
}

/* No policy, with whatever hints, beats who knows the future, and more room is never worse for that one. */
static void test_nobody_beats_belady(void **state)
{
	struct bench_synth synth = {.requests = 1500, .rate = 4, .prompts = 6, .prompt_tokens = 1500, .turns = 4,
		.input_tokens = 800, .output_tokens = 300, .think_s = 30, .max_tokens = 20000, .block_tokens = 512};
	uint64_t before, better = 0;

	(void)state;
	for (synth.seed = 1; synth.seed <= 4; synth.seed++) {
		FILE *file = tmpfile();

		assert_int_equal(bench_synth_write(&synth, file, &err), TY_OK);
		rewind(file);
		open_file(file, synth.seed % 2);
		before = 0;
		for (uint32_t size = 100; size <= 6400; size *= 4) {
			uint64_t best = belady(size);

			assert_true(best >= before);
			before = best;
			for (size_t i = 0; ty_policies[i]; i++) {
				uint64_t plain = hits(ty_policies[i], size, BENCH_HINTS_NONE);
				uint64_t both = hits(ty_policies[i], size, BENCH_HINTS_BOTH);

				assert_true(plain <= best && both <= best);
				assert_true(hits(ty_policies[i], size, BENCH_HINTS_ALIVE) <= best);
				better += both > plain;
			}
		}
		close_all();
	}
	assert_true(better > 20); /* hints are worth having: in most of these 48 */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_history),
		cmocka_unit_test(test_by_hand),
		cmocka_unit_test(test_nobody_beats_belady),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
