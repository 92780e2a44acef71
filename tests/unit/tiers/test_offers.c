/* SPDX-License-Identifier: Apache-2.0
 *
 * Chunks of the arena that a tier with write=commit should have had long ago: they go down, each once, whatever the tier does
 * meanwhile, and behind what is stored now.
 */
#include "tests/unit/cache/world.h"

#include <stdlib.h>

#include "fault.h"

enum { CHUNKS = 60, SMALL = 64 * 1024 };
#define SECOND INT64_C(1000000000)

static void configure(const char *value)
{
	struct world_request *r = calloc(1, sizeof *r);
	Tyer__V1__Setting setting = TYER__V1__SETTING__INIT, *at = &setting;

	world_prepare(r, TYER__V1__REQUEST__VERB_CONFIGURE);
	setting.name = (char *)(uintptr_t) "tier.0.write";
	setting.value = (char *)(uintptr_t)value;
	r->verb.configure.settings = &at;
	r->verb.configure.n_settings = 1;
	world_ask(r, TYER__V1__REQUEST__VERB_CONFIGURE);
	while (!r->back)
		world_steps(1);
	assert_int_equal(r->x.code, TY_OK);
	world_forget(r);
	free(r);
}

static uint64_t of(const _Atomic uint64_t *counter)
{
	return world_stat(counter);
}

static struct ty_tier_stats *stats(void)
{
	return &world.service->tiers[0]->stats;
}

/* Family 0 is here, and was never offered. */
static void open_world(uint64_t seed)
{
	world_open(&(struct world_options){.seed = seed, .pieces = 1, .tier = {"fault:0,write=never"}});
	assert_int_equal(world_store_now(0, 0, CHUNKS, SMALL), TY_OK);
	world_pass(SECOND);
	assert_int_equal(of(&stats()->chunks), 0);
}

/* Chunks of it whose keys begin with a byte below that. */
static unsigned silent(uint8_t below)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < CHUNKS; i++)
		n += world_key(0, i).bytes[0] < below;
	return n;
}

static void test_all_go_once(void **state)
{
	(void)state;
	open_world(1);
	configure("commit");
	world_pass(SECOND);
	assert_int_equal(of(&stats()->chunks), CHUNKS);
	assert_int_equal(of(&stats()->offered_late), CHUNKS);
	assert_int_equal(fault[0].puts, CHUNKS);
	configure("never");
	configure("commit"); /* it is known that they are there: not even asked */
	world_pass(SECOND);
	assert_int_equal(of(&stats()->submitted[TY_TIER_EXISTS]), CHUNKS);
	assert_int_equal(fault[0].puts, CHUNKS);
	world_close();
}

/* It fails, it hangs, it is slow, at any time: in the end it has all of them. */
static void test_faults(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 30; seed++) {
		open_world(seed);
		fault[0].delay_ns = SECOND / 50;
		if (seed % 3 == 0)
			fault[0].fail = true;
		else
			fault[0].fail_every = seed % 3 == 1 ? 3 : 0;
		configure("commit");
		world_pass(SECOND / 10);
		fault[0].hang = seed % 2;
		world_pass(6 * SECOND); /* for so long that what waits is dropped */
		fault[0].hang = fault[0].fail = false;
		fault[0].fail_every = 0;
		fault_let(world.service->tiers[0]);
		world_pass(20 * SECOND);
		/* a write that failed, or was dropped, is that: it has its last chance at its eviction. No other is missing. */
		assert_true(of(&stats()->chunks) + of(&stats()->dropped) + of(&stats()->outcomes[TY_TIER_PUT][TY_TIER_FAILED]) >= CHUNKS);
		if (seed % 3 == 2 && seed % 2 == 0)
			assert_int_equal(of(&stats()->chunks), CHUNKS);
		assert_int_equal(of(&stats()->queued), 0);
		world_close();
	}
}

/* Down for a minute: a few questions a second, and then all goes down. */
static void test_down(void **state)
{
	(void)state;
	open_world(1);
	fault[0].fail = true;
	configure("commit");
	world_pass(60 * SECOND);
	assert_in_range(of(&stats()->submitted[TY_TIER_EXISTS]), 60, 60 * 20);
	assert_int_equal(fault[0].puts, 0);
	fault[0].fail = false;
	world_pass(20 * SECOND);
	assert_int_equal(of(&stats()->chunks), CHUNKS);
	assert_int_equal(of(&stats()->dropped), 0);
	world_close();
}

/* Of some chunks it never says whether it has them: all others go down, and those when it does. */
static void test_silent_about_some(void **state)
{
	(void)state;
	open_world(1);
	fault[0].silent_below = 64;
	configure("commit");
	world_pass(60 * SECOND);
	assert_in_range(of(&stats()->chunks), 1, CHUNKS - 1);
	assert_int_equal(of(&stats()->chunks) + silent(64), CHUNKS);
	assert_in_range(of(&stats()->submitted[TY_TIER_EXISTS]), CHUNKS, CHUNKS + 60 * 20);
	fault[0].silent_below = 0;
	world_pass(20 * SECOND);
	assert_int_equal(of(&stats()->chunks), CHUNKS);
	assert_int_equal(fault[0].puts, CHUNKS);
	world_close();
}

/* Told to write no more in the middle of it: it ends. */
static void test_changed_mind(void **state)
{
	uint64_t puts;

	(void)state;
	open_world(1);
	fault[0].delay_ns = SECOND / 10;
	configure("commit");
	world_pass(SECOND / 10);
	configure("reuse");
	world_pass(SECOND);
	puts = fault[0].puts;
	assert_true(puts < CHUNKS);
	world_pass(10 * SECOND);
	assert_int_equal(fault[0].puts, puts);
	world_close();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_go_once), cmocka_unit_test(test_faults), cmocka_unit_test(test_down),
		cmocka_unit_test(test_silent_about_some), cmocka_unit_test(test_changed_mind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
