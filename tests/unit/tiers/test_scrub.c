/* SPDX-License-Identifier: Apache-2.0
 *
 * scrub over the arena and a tier, on a logical clock: it finds what is wrong, tells nobody wrong bytes, keeps its rate, gives
 * way, and lives with whatever goes while it looks.
 */
#include "tests/unit/cache/world.h"

#include "fault.h"

enum { CHUNKS = 24 };
#define CHUNK (MIB / 4)
#define RATE (16 * MIB)

static struct ty_scrub_stats *stats(unsigned lane)
{
	return &world.service->scrub_stats[lane];
}

static uint64_t of(const _Atomic uint64_t *counter)
{
	return world_stat(counter);
}

static void open_world(uint64_t seed, bool tier)
{
	world_open(&(struct world_options){.seed = seed, .pieces = 4, .sums = true, .tier = {tier ? "fault:0" : NULL}});
	world.config.scrub_rate = RATE;
}

/* It is only there while it is wanted: by itself it never rests. */
static void begin(void)
{
	struct ty_spawn_options options = {.size = sizeof options, .executor = TY_POOL, .cpu = -1};
	static struct ty_msg start;

	assert_int_equal(ty_spawn(world.rt, &ty_scrub_class, world.service, &options, &world.service->scrub), TY_OK);
	start = (struct ty_msg)TY_MSG_INIT;
	assert_int_equal(ty_send(world.service->scrub, &start, TY_SCRUB_START), TY_OK);
}

static void stopped(struct ty_stop *stop)
{
	*(bool *)stop->user = true;
}

static void end(void)
{
	bool over = false;
	struct ty_stop stop = {.stopped = stopped, .user = &over};

	assert_int_equal(ty_send(world.service->scrub, &stop.msg, TY_SCRUB_STOP), TY_OK);
	world_idle();
	assert_true(over);
	ty_actor_stop(world.service->scrub);
	world_idle();
	ty_actor_unref(world.service->scrub);
	world.service->scrub = NULL;
}

/* Until a lane has gone through everything once more. */
static void go_through(unsigned lane)
{
	uint64_t before = of(&stats(lane)->passes);

	while (of(&stats(lane)->passes) == before)
		assert_true(ty_runtime_step(world.rt));
}

static void pass(unsigned lane)
{
	begin();
	go_through(lane);
	end();
}

static struct ty_chunk *chunk_of(uint32_t i)
{
	struct ty_key key = world_key(0, i);

	return ty_index_find(world.service->index, &key);
}

static void flip(uint32_t i)
{
	struct ty_chunk *chunk = chunk_of(i);

	ty_slots_address(world.service->slots, chunk->slots[0])[CHUNK / 2] ^= 4;
}

static void test_all_is_well(void **state)
{
	(void)state;
	open_world(1, true);
	assert_int_equal(world_store_now(0, 0, CHUNKS, CHUNK), TY_OK);
	for (unsigned lane = 0; lane < 2; lane++) {
		pass(lane);
		assert_int_equal(of(&stats(lane)->wrong), 0);
		assert_true(of(&stats(lane)->bytes) >= CHUNKS * CHUNK);
		assert_true(of(&stats(lane)->chunks) >= CHUNKS);
		/* at no more than its rate: the last chunk of a pass does not wait, but for that */
		assert_true(of(&stats(lane)->last_pass_ns) >= UINT64_C(1000000000) * (CHUNKS - 3) * CHUNK / RATE);
	}
	world_check(1, CHUNKS);
	world_close();
}

/* What lies packed is read as it lies there, and no slower than that: the rate is the disk's, not that of what comes of it. */
static void test_packed(void **state)
{
	uint64_t there, ns;

	(void)state;
	world_open(&(struct world_options){.seed = 1, .pieces = 4, .sums = true, .tier = {"fault:0,compress=zstd"}});
	world.config.scrub_rate = RATE;
	assert_int_equal(world_store_now(0, 0, CHUNKS, CHUNK), TY_OK); /* zeros, but for two words */
	there = of(&world.service->tiers[0]->stats.used_bytes);
	assert_in_range(there, CHUNKS * 2 * TY_ENVELOPE_BYTES, CHUNKS * CHUNK / 4);
	pass(1);
	ns = UINT64_C(1000000000) * there / RATE;
	assert_int_equal(of(&stats(1)->bytes), there);
	assert_in_range(of(&stats(1)->last_pass_ns), ns / CHUNKS * (CHUNKS - 1), 2 * ns);
	world_close();
}

/* A byte of the arena: a miss, and what is stored again is right. */
static void test_wrong_in_memory(void **state)
{
	(void)state;
	open_world(1, false);
	assert_int_equal(world_store_now(0, 0, CHUNKS, CHUNK), TY_OK);
	flip(5);
	pass(0);
	assert_int_equal(of(&stats(0)->wrong), 1);
	assert_false(world_here(0, 5));
	assert_true(world_here(0, 4) && world_here(0, 6));
	assert_int_equal(of(&world.service->eviction_stats.chunks), CHUNKS - 1);
	assert_int_equal(world_store_now(0, 0, CHUNKS, CHUNK), TY_OK);
	assert_true(world_here(0, 5));
	pass(0);
	assert_int_equal(of(&stats(0)->wrong), 1);
	world_check(1, CHUNKS);
	world_close();
}

/* Somebody has it: nobody else gets it, it stays where it is until he is done, and then it can be stored again. */
static void test_wrong_while_leased(void **state)
{
	struct ty_lease *lease;
	struct world_op *op;

	(void)state;
	open_world(1, false);
	assert_int_equal(world_store_now(0, 0, CHUNKS, CHUNK), TY_OK);
	lease = world_lookup(0, CHUNKS);
	assert_int_equal(lease->count, CHUNKS);
	flip(5);
	pass(0);
	assert_int_equal(of(&stats(0)->wrong), 1);
	assert_non_null(chunk_of(5));
	assert_int_equal(ty_chunk_state(chunk_of(5)), TY_CHUNK_WRONG);
	assert_false(world_here(0, 5));
	op = world_store(0, 4, 3, CHUNK, 0, 1); /* its place is taken: the store ends there */
	world_idle();
	assert_int_equal(op->op.stored, 0);
	assert_true(op->back);
	world_free(op);
	pass(0); /* it is not counted again */
	assert_int_equal(of(&stats(0)->wrong), 1);
	world_release(lease);
	world_idle();
	assert_null(chunk_of(5));
	assert_int_equal(world_store_now(0, 0, CHUNKS, CHUNK), TY_OK);
	assert_true(world_here(0, 5));
	world_check(1, CHUNKS);
	world_close();
}

/* Wrong bytes in a tier: the tier drops them, and the arena's note that they are there goes too. */
static void test_wrong_in_a_tier(void **state)
{
	(void)state;
	open_world(1, true);
	assert_int_equal(world_store_now(0, 0, CHUNKS, CHUNK), TY_OK);
	fault[0].wrong_every = 9; /* operations, of which a chunk takes two */
	pass(1);
	fault[0].wrong_every = 0;
	assert_true(of(&stats(1)->wrong) > 0);
	assert_int_equal(world.service->tiers[0]->stats.chunks, CHUNKS - of(&stats(1)->wrong));
	for (uint32_t i = 0, below = 0; i < CHUNKS; i++) {
		below += chunk_of(i)->below & 1;
		if (i == CHUNKS - 1)
			assert_int_equal(below, CHUNKS - of(&stats(1)->wrong));
	}
	world_close();
}

/* A tier that fails, hangs, loses chunks while they are looked at, and comes back: passes go on. */
static void test_tiers_come_and_go(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct world_request *r = calloc(1, sizeof *r);

		open_world(seed, true);
		assert_int_equal(world_store_now(0, 0, CHUNKS, CHUNK), TY_OK);
			begin();
		fault[0].delay_ns = 50000000;
		fault[0].fail_every = 3;
		world_steps(500);
		fault[0].hang = true;
		world_steps(500);
		fault[0].hang = false;
		fault_let(world.service->tiers[0]);
		/* All goes, between any two of its steps. */
		world_prepare(r, TYER__V1__REQUEST__VERB_CLEAR);
		world_ask(r, TYER__V1__REQUEST__VERB_CLEAR);
		world_steps(300);
		fault[0].fail_every = 0;
		go_through(1);
		go_through(1);
		end();
		world_forget(r);
		free(r);
		assert_int_equal(of(&stats(1)->wrong), 0);
		assert_int_equal(world_store_now(1, 0, CHUNKS, CHUNK), TY_OK);
			pass(1);
		assert_true(of(&stats(1)->chunks) >= CHUNKS);
		world_close();
	}
}

/* While a tier is read for somebody, it waits; but not for ever. */
static void test_gives_way(void **state)
{
	uint64_t before;

	(void)state;
	open_world(1, true);
	assert_int_equal(world_store_now(0, 0, CHUNKS, CHUNK), TY_OK);
	pass(1);
	before = of(&stats(1)->position);
	atomic_fetch_add(&world.service->tiers[0]->stats.in_flight[TY_TIER_UP], 1); /* as a GET that takes its time */
	pass(1);
	assert_true(of(&stats(1)->last_pass_ns) > CHUNKS * UINT64_C(900000000)); /* a second's patience for each chunk */
	assert_int_equal(of(&stats(1)->position), before);
	atomic_fetch_sub(&world.service->tiers[0]->stats.in_flight[TY_TIER_UP], 1);
	world_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_is_well),
		cmocka_unit_test(test_packed),
		cmocka_unit_test(test_wrong_in_memory),
		cmocka_unit_test(test_wrong_while_leased),
		cmocka_unit_test(test_wrong_in_a_tier),
		cmocka_unit_test(test_tiers_come_and_go),
		cmocka_unit_test(test_gives_way),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
