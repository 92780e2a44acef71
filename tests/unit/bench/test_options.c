/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "options.h"

static enum ty_code parse(struct bench_options *o, struct ty_error *err, const char *line)
{
	char copy[512], *argv[32] = {(char *)(uintptr_t) "tyer-bench"}, *rest = copy, *part;
	int argc = 1;

	assert_true(strlen(line) < sizeof copy);
	strcpy(copy, line);
	while ((part = strsep(&rest, " ")))
		argv[argc++] = part;
	*err = (struct ty_error){0};
	return bench_options_parse(o, argc, argv, err);
}

static void test_defaults(void **state)
{
	struct bench_options o;
	struct ty_error err;

	(void)state;
	assert_int_equal(parse(&o, &err, "replay t.jsonl"), TY_OK);
	assert_int_equal(o.command, BENCH_REPLAY);
	assert_string_equal(o.trace, "t.jsonl");
	assert_true(o.speed == 0);
	assert_int_equal(o.clients, 1);
	assert_int_equal(o.concurrency, 8);
	assert_int_equal(o.ping_every_us, 10000);
	assert_int_equal(o.block_tokens, 512);
	assert_int_equal(o.geometry.block_tokens, 128);
	assert_string_equal(o.device, "host");
	assert_non_null(strstr(o.attach, "attach.sock"));
	assert_int_equal(parse(&o, &err, "copy"), TY_OK);
	assert_int_equal(o.depth, 4);
	assert_int_equal(parse(&o, &err, "ping --rate 50"), TY_OK);
	assert_true(o.rate == 50);
	assert_int_equal(parse(&o, &err, "trace --rate 0.5 --seed 7"), TY_OK);
	assert_true(o.synth.rate == 0.5);
	assert_int_equal(o.synth.seed, 7);
}

static void test_values(void **state)
{
	struct bench_options o;
	struct ty_error err;

	(void)state;
	assert_int_equal(parse(&o, &err,
				 "replay --connect=ipc:///tmp/x/s --concurrency 1 --clients=4 --speed 2.5 --deal next --pool-bytes 64MiB "
				 "--timeout 2s --ping-every 0 --tolerate TIMEOUT,DEVICE_FAILED --store-early - --geometry llama-3.1-8b"),
		TY_OK);
	assert_string_equal(o.connect, "ipc:///tmp/x/s");
	assert_string_equal(o.attach, "/tmp/x/attach.sock");
	assert_string_equal(o.trace, "-");
	assert_int_equal(o.clients, 4);
	assert_true(o.speed == 2.5);
	assert_int_equal(o.deal, BENCH_DEAL_NEXT);
	assert_int_equal(o.pool_bytes, 64 << 20);
	assert_int_equal(o.timeout_us, 2000000);
	assert_int_equal(o.ping_every_us, 0);
	assert_int_equal(o.tolerate, 1u << TY_TIMEOUT | 1u << TY_DEVICE_FAILED);
	assert_true(o.store_early);
	assert_int_equal(o.geometry.layers, 32);
	assert_int_equal(parse(&o, &err, "replay --help"), TY_OK);
	assert_true(o.help);
}

static void test_refusals(void **state)
{
	static const char *const bad[][2] = {
		{"nonsense", "expected a command"},
		{"replay", "expected a trace's file name"},
		{"replay a b", "unexpected argument \"b\""},
		{"replay a --chunks 4", "unknown option --chunks"},
		{"replay a --clients 0", "--clients: found 0, expected 1 to 256"},
		{"replay a --clients 1x", "--clients: found \"1x\""},
		{"replay a --concurrency 65", "--concurrency:"},
		{"replay a --concurrency", "--concurrency: expected N after it"},
		{"replay a --speed 0", "--speed: found \"0\""},
		{"replay a --speed fast", "--speed: found \"fast\""},
		{"replay a --pool-bytes 1XB", "--pool-bytes: found"},
		{"replay a --hints some", "--hints: found \"some\""},
		{"replay a --deal all", "--deal: found \"all\""},
		{"replay a --tolerate OOPS", "--tolerate: found \"OOPS\""},
		{"replay a --store-early=yes", "--store-early: takes no value"},
		{"copy x", "unexpected argument"},
		{"ping --rate 0", "--rate: found \"0\""},
		{"trace --rate nan", "--rate: found \"nan\""},
		{"copy --geometry huge", "--geometry: 'huge'"},
		{"copy --geometry tiny,layers=0", "layers=0: expected a number from 1"},
		{"copy --geometry tiny,dtype=int3", "dtype=int3: expected bf16"},
		{"copy --geometry tiny,layout=odd", "layout=odd: expected split"},
		{"copy --geometry tiny,colour=1", "unknown field 'colour'"},
		{"copy --geometry layers=2,tiny", "expected a preset first"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct bench_options o;
		struct ty_error err;

		assert_int_equal(parse(&o, &err, bad[i][0]), TY_INVALID);
		if (!strstr(err.text, bad[i][1]))
			fail_msg("%s: got \"%s\"", bad[i][0], err.text);
	}
}

static void test_help_names_every_option(void **state)
{
	struct bench_options o;
	struct ty_error err;
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	(void)state;
	assert_int_equal(parse(&o, &err, "replay --help"), TY_OK);
	bench_options_help(out, &o);
	fclose(out);
	assert_non_null(strstr(text, "--concurrency N"));
	assert_non_null(strstr(text, "(default: 8)"));
	assert_null(strstr(text, "--op-chunks"));
	free(text);
}

static void test_shapes(void **state)
{
	struct bench_geometry g;
	struct bench_shape s;
	struct ty_error err = {0};
	char place[96];

	(void)state;
	assert_int_equal(bench_geometry_parse("llama-3.1-8b", &g, &err), TY_OK);
	assert_int_equal(bench_shape_make(&g, 256, &s, &err), TY_OK);
	assert_int_equal(s.run_bytes, 32768);
	assert_int_equal(s.run_count, 64);
	assert_int_equal(s.blocks_per_chunk, 16);
	assert_int_equal(s.chunk_bytes, 32 << 20);
	bench_shape_place(&s, (uint32_t)(((uint64_t)3 * 64 + 9) * 32768 / 8 + 2048 / 8 * 5), place, sizeof place);
	assert_string_equal(place, "block 3, layer 4 V, token 5");
	assert_int_equal(bench_shape_make(&g, 100, &s, &err), TY_INVALID);
	assert_non_null(strstr(err.text, "do not divide the service's chunks of 100 tokens"));
	assert_int_equal(bench_geometry_parse("llama-3.1-8b,layout=cross-layer", &g, &err), TY_OK);
	assert_int_equal(bench_shape_make(&g, 256, &s, &err), TY_OK);
	assert_int_equal(s.run_bytes, 2 << 20);
	assert_int_equal(s.run_count, 1);
	/* Products that do not fit are refused, not cut. */
	assert_int_equal(bench_geometry_parse("heads=65536,dim=65536,block=512", &g, &err), TY_OK);
	assert_int_equal(bench_shape_make(&g, 512, &s, &err), TY_INVALID);
	assert_int_equal(bench_geometry_parse("layers=65536", &g, &err), TY_OK);
	assert_int_equal(bench_shape_make(&g, 512, &s, &err), TY_INVALID);
	assert_int_equal(bench_geometry_parse("heads=1,dim=1,dtype=fp8_e4m3,block=1", &g, &err), TY_OK);
	assert_int_equal(bench_shape_make(&g, 512, &s, &err), TY_INVALID);
	assert_non_null(strstr(err.text, "multiple of 16"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_help_names_every_option),
		cmocka_unit_test(test_shapes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
