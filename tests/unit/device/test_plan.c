/* SPDX-License-Identifier: Apache-2.0
 *
 * The planner's pure functions: how planes are joined, what is chosen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "device/plan.h"

#define KIB 1024u
#define ALL (TY_PLAN_BIT(TY_PATH_STAGED) | TY_PLAN_BIT(TY_PATH_DIRECT) | TY_PLAN_BIT(TY_PATH_BATCH) | TY_PLAN_BIT(TY_PATH_STRIDED))

static void joins(void **state)
{
	/* two that lie together, one that is apart, one that follows it in another allocation, one before it */
	const uint64_t address[] = {4096, 4608, 8192, 8704, 512};
	const uint32_t allocation[] = {0, 0, 0, 1, 0};
	struct ty_span spans[5];

	(void)state;
	assert_int_equal(ty_plan_join(address, allocation, 5, 512, spans), 4);
	assert_int_equal(spans[0].first, 0);
	assert_int_equal(spans[0].bytes, 1024);
	assert_int_equal(spans[1].first, 2);
	assert_int_equal(spans[1].bytes, 512);
	assert_int_equal(spans[2].first, 3);
	assert_int_equal(spans[3].first, 4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(spans[i].rows, 1);
}

static uint32_t stride(const uint64_t *address, const uint32_t *allocation, uint32_t count, uint64_t max_pitch,
	struct ty_span *spans)
{
	uint32_t rows = ty_plan_join(address, allocation, count, 512, spans);

	return ty_plan_stride(spans, rows, address, allocation, max_pitch);
}

static void strides(void **state)
{
	const uint64_t even[] = {0x10000, 0x20000, 0x30000, 0x40000};
	const uint64_t uneven[] = {0x10000, 0x20000, 0x30000, 0x38000};
	const uint64_t down[] = {0x40000, 0x30000, 0x20000, 0x10000};
	const uint64_t pairs[] = {0x10000, 0x10200, 0x20000, 0x20200}; /* rows of two planes */
	const uint64_t mixed[] = {0x10000, 0x10200, 0x20000, 0x30000}; /* rows of different lengths */
	const uint64_t twice[] = {0x10000, 0x10000, 0x20000, 0x30000}; /* one place twice: no pitch */
	const uint32_t one[] = {0, 0, 0, 0}, two[] = {0, 0, 7, 7};
	struct ty_span s[4];

	(void)state;
	assert_int_equal(stride(even, one, 4, 1 << 20, s), 1);
	assert_int_equal(s[0].rows, 4);
	assert_int_equal(s[0].pitch, 0x10000);
	assert_int_equal(s[0].bytes, 512);
	assert_int_equal(stride(even, two, 4, 1 << 20, s), 2); /* never over an allocation's border */
	assert_int_equal(s[1].first, 2);
	assert_int_equal(s[1].rows, 2);
	assert_int_equal(stride(even, one, 4, 0xffff, s), 4); /* nor past the driver's longest pitch */
	assert_int_equal(stride(uneven, one, 4, 1 << 20, s), 2);
	assert_int_equal(s[0].rows, 3);
	assert_int_equal(s[1].rows, 1);
	assert_int_equal(stride(down, one, 4, 1 << 20, s), 4);
	assert_int_equal(stride(pairs, one, 4, 1 << 20, s), 1);
	assert_int_equal(s[0].rows, 2);
	assert_int_equal(s[0].bytes, 1024);
	assert_int_equal(stride(mixed, one, 4, 1 << 20, s), 2);
	assert_int_equal(s[1].first, 2);
	assert_int_equal(s[1].rows, 2);
	assert_int_equal(stride(twice, one, 4, 1 << 20, s), 2);
	assert_int_equal(s[0].rows, 1);
}

static struct ty_plan_shape shape(uint32_t run, uint32_t runs, uint32_t spans)
{
	return (struct ty_plan_shape){.block_bytes = (uint64_t)run * runs, .runs = runs, .spans = spans};
}

/* Who else uses the GPU. */
enum who { NOBODY, ANOTHER, OURSELVES };

static enum ty_path choose(const struct ty_plan_shape *s, uint64_t blocks, enum ty_direction direction, unsigned allowed,
	enum ty_sharing sharing, enum who who)
{
	const struct ty_plan_policy policy = {sharing, who == ANOTHER, who == OURSELVES};

	return ty_plan_choose(&ty_plan_defaults, s, blocks, direction, allowed, &policy);
}

static void expect_each(uint32_t run, uint32_t runs, uint32_t spans, unsigned allowed, enum ty_sharing sharing, enum who who,
	enum ty_path to_host, enum ty_path to_device)
{
	struct ty_plan_shape s = shape(run, runs, spans);

	for (unsigned direction = 0; direction < 2; direction++) {
		enum ty_path got = choose(&s, 16ull * 64, direction, allowed, sharing, who);
		enum ty_path want = direction == TY_TO_HOST ? to_host : to_device;

		if (got != want)
			fail_msg("runs of %u, direction %u, sharing %d, who %d: %s, expected %s", run, direction, sharing, who,
				ty_path_name(got), ty_path_name(want));
	}
}

static void expect(uint32_t run, uint32_t runs, uint32_t spans, unsigned allowed, enum ty_sharing sharing, enum who who,
	enum ty_path want)
{
	expect_each(run, runs, spans, allowed, sharing, who, want, want);
}

/* What is chosen by default; docs/device.md has the same table. */
static void defaults(void **state)
{
	const enum ty_path staged = TY_PATH_STAGED, batch = TY_PATH_BATCH, strided = TY_PATH_STRIDED, direct = TY_PATH_DIRECT;
	const unsigned old = ALL & ~TY_PLAN_BIT(TY_PATH_BATCH), flat = ALL & ~TY_PLAN_BIT(TY_PATH_STRIDED);

	(void)state;
	for (enum ty_sharing sharing = TY_SHARING_AUTO; sharing <= TY_SHARING_FAST; sharing += TY_SHARING_FAST) {
		for (uint32_t run = 4 * KIB; run <= 64 * KIB; run *= 2)
			expect(run, 64, 1, ALL, sharing, NOBODY, staged);
		/* as fast without a kernel: rows, if there are many at a pitch; but no long lists of copies */
		expect(128 * KIB, 64, 1, ALL, sharing, NOBODY, strided);
		for (uint32_t run = 64 * KIB; run <= 1024 * KIB; run *= 2)
			expect(run, 64, 64, flat, sharing, NOBODY, staged);
		for (uint32_t run = 512 * KIB; run <= 2048 * KIB; run *= 2)
			expect(run, 1, 1, ALL, sharing, NOBODY, staged);
		expect(4096 * KIB, 1, 1, ALL, sharing, NOBODY, batch);
	}
	for (enum who who = NOBODY; who <= OURSELVES; who++) {
		/* batches are as fast from 32 KiB on, and take an owner that has both directions to queue too long */
		for (uint32_t run = 4 * KIB; run <= 64 * KIB; run *= 2)
			expect(run, 64, 1, ALL, TY_SHARING_QUIET, who, strided);
		expect(128 * KIB, 64, 1, ALL, TY_SHARING_QUIET, who, who == OURSELVES ? batch : strided);
		expect(512 * KIB, 64, 1, ALL, TY_SHARING_QUIET, who, who == OURSELVES ? batch : strided);
		expect(2048 * KIB, 1, 1, ALL, TY_SHARING_QUIET, who, batch);
		/* planes in allocations of their own, a driver without batches, neither */
		expect(8 * KIB, 64, 64, flat, TY_SHARING_QUIET, who, batch);
		expect(32 * KIB, 64, 1, old, TY_SHARING_QUIET, who, strided);
		expect(8 * KIB, 64, 64, TY_PLAN_BIT(direct), TY_SHARING_QUIET, who, direct);
	}
	expect(8 * KIB, 64, 1, ALL, TY_SHARING_AUTO, ANOTHER, strided);
	expect(32 * KIB, 64, 1, ALL, TY_SHARING_AUTO, ANOTHER, strided);
	for (uint32_t run = 4 * KIB; run <= 16 * KIB; run *= 2) {
		expect(run, 64, 1, ALL, TY_SHARING_FAST, ANOTHER, staged);
		expect(run, 64, 1, ALL, TY_SHARING_FAST, OURSELVES, staged);
		expect(run, 64, 1, ALL, TY_SHARING_AUTO, OURSELVES, staged);
	}
	/* copies as fast as kernels: those that leave the engine alone */
	for (uint32_t run = 32 * KIB; run <= 128 * KIB; run *= 2) {
		const enum ty_path within = run < 128 * KIB ? staged : batch; /* where strided copies go more slowly */

		expect(run, 64, 1, ALL, TY_SHARING_FAST, ANOTHER, strided);
		expect(run, 64, 1, ALL, TY_SHARING_FAST, OURSELVES, within);
		expect(run, 64, 1, ALL, TY_SHARING_AUTO, OURSELVES, within);
	}
	expect(64 * KIB, 32, 1, ALL, TY_SHARING_FAST, ANOTHER, strided); /* copies of half as many rows, not of none */
	expect(2048 * KIB, 1, 1, ALL, TY_SHARING_FAST, ANOTHER, batch);
	expect(2048 * KIB, 1, 1, ALL, TY_SHARING_AUTO, OURSELVES, batch);
	/* no kernels in this build */
	expect(8 * KIB, 64, 1, ALL & ~TY_PLAN_BIT(staged), TY_SHARING_FAST, NOBODY, strided);
	expect(2048 * KIB, 1, 1, TY_PLAN_BIT(direct), TY_SHARING_FAST, NOBODY, direct);
}

static void set_rates(struct ty_plan_rates *rates, enum ty_path path, uint32_t alone, uint32_t beside)
{
	for (unsigned i = 0; i < TY_PLAN_RUNS; i++) {
		rates->alone[path][TY_TO_HOST][i] = alone;
		rates->beside[path][TY_TO_HOST][i] = beside;
	}
}

/* What was measured decides: a kernel must gain more than the margin, unless long lists of copies are what it saves. */
static void measured(void **state)
{
	struct ty_plan_rates rates = ty_plan_defaults;
	const struct ty_plan_shape runs = shape(256 * KIB, 64, 1), blocks = shape(2048 * KIB, 1, 1);
	const struct ty_plan_policy alone = {.sharing = TY_SHARING_FAST}, within = {.sharing = TY_SHARING_FAST, .in_process = true};
	const struct {
		uint32_t staged;
		enum ty_path blocks_alone, blocks_within, runs_alone, runs_within; /* beside batches at 50000 */
	} cases[] = {
		{48500, TY_PATH_BATCH, TY_PATH_BATCH, TY_PATH_BATCH, TY_PATH_BATCH},
		{50900, TY_PATH_STAGED, TY_PATH_BATCH, TY_PATH_STAGED, TY_PATH_BATCH},
		{52900, TY_PATH_STAGED, TY_PATH_BATCH, TY_PATH_STAGED, TY_PATH_BATCH},
		{53600, TY_PATH_STAGED, TY_PATH_STAGED, TY_PATH_STAGED, TY_PATH_STAGED},
	};

	(void)state;
	set_rates(&rates, TY_PATH_DIRECT, 30000, 30000);
	set_rates(&rates, TY_PATH_STRIDED, 30000, 30000);
	set_rates(&rates, TY_PATH_BATCH, 50000, 50000);
	for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		set_rates(&rates, TY_PATH_STAGED, cases[i].staged, cases[i].staged);
		assert_int_equal(ty_plan_choose(&rates, &blocks, 1024, TY_TO_HOST, ALL, &alone), cases[i].blocks_alone);
		assert_int_equal(ty_plan_choose(&rates, &blocks, 1024, TY_TO_HOST, ALL, &within), cases[i].blocks_within);
		assert_int_equal(ty_plan_choose(&rates, &runs, 1024, TY_TO_HOST, ALL, &alone), cases[i].runs_alone);
		assert_int_equal(ty_plan_choose(&rates, &runs, 1024, TY_TO_HOST, ALL, &within), cases[i].runs_within);
	}
}

/* In the engine's process kernels go at their rates alone, and copies at those beside an engine. */
static void within(void **state)
{
	struct ty_plan_rates rates = ty_plan_defaults;
	const struct ty_plan_shape runs = shape(256 * KIB, 64, 1);
	const struct ty_plan_policy policy = {.in_process = true};

	(void)state;
	set_rates(&rates, TY_PATH_STRIDED, 1000, 1000);
	set_rates(&rates, TY_PATH_BATCH, 10000, 50000);
	set_rates(&rates, TY_PATH_STAGED, 50000, 10000);
	assert_int_equal(ty_plan_choose(&rates, &runs, 1024, TY_TO_HOST, ALL, &policy), TY_PATH_BATCH);
	set_rates(&rates, TY_PATH_STAGED, 53600, 10000);
	assert_int_equal(ty_plan_choose(&rates, &runs, 1024, TY_TO_HOST, ALL, &policy), TY_PATH_STAGED);
}

/* A cost never falls with more blocks, and stays a number at the far end. */
static void costs(void **state)
{
	(void)state;
	for (enum ty_path path = TY_PATH_STAGED; path < TY_PATHS; path++)
		for (uint32_t run = 16; run <= 8u << 20; run = run * 3 / 2 / 16 * 16 + 16) {
			struct ty_plan_shape s = shape(run, 80, 5);
			uint64_t last = 0;

			for (unsigned log = 0; log < 32; log++) {
				uint64_t cost = ty_plan_cost(&ty_plan_defaults, &s, path, 1ull << log, TY_TO_HOST,
					log & 1 ? TY_PLAN_BESIDE : TY_PLAN_ALONE);

				if (log & 1) {
					assert_true(cost > last);
					last = cost;
				}
			}
			assert_true(last < UINT64_MAX / 2);
		}
}

/* Both directions at once: what takes the owner more than half of the time that its copies take is that much slower. */
static void both_ways(void **state)
{
	struct ty_plan_rates rates = ty_plan_defaults;
	const struct ty_plan_shape runs = shape(32 * KIB, 64, 1);
	const uint64_t copies = 1024 * 2 * 1024 * KIB / 50; /* ns, at 50 GB/s */

	(void)state;
	set_rates(&rates, TY_PATH_BATCH, 50000, 50000);
	rates.owner_ns[TY_PATH_BATCH] = 100; /* of 640 a run */
	assert_in_range(ty_plan_cost(&rates, &runs, TY_PATH_BATCH, 1024, TY_TO_HOST, TY_PLAN_BESIDE), copies, copies + 20000);
	rates.owner_ns[TY_PATH_BATCH] = 640;
	assert_in_range(ty_plan_cost(&rates, &runs, TY_PATH_BATCH, 1024, TY_TO_HOST, TY_PLAN_BESIDE), copies * 19 / 10, copies * 21 / 10);
}

/* One run is one copy; strided copies of few rows cost more than of many. */
static void few(void **state)
{
	struct ty_plan_shape one = shape(64 * KIB, 1, 1), rows = shape(32 * KIB, 64, 1), pairs = shape(32 * KIB, 64, 32);

	(void)state;
	assert_int_equal(choose(&one, 1, TY_TO_HOST, ALL, TY_SHARING_QUIET, NOBODY), TY_PATH_DIRECT);
	assert_true(ty_plan_cost(&ty_plan_defaults, &pairs, TY_PATH_STRIDED, 16, TY_TO_HOST, TY_PLAN_BESIDE) >
		ty_plan_cost(&ty_plan_defaults, &rows, TY_PATH_STRIDED, 16, TY_TO_HOST, TY_PLAN_BESIDE));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(joins),
		cmocka_unit_test(strides),
		cmocka_unit_test(defaults),
		cmocka_unit_test(measured),
		cmocka_unit_test(within),
		cmocka_unit_test(costs),
		cmocka_unit_test(both_ways),
		cmocka_unit_test(few),
	};

	return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
