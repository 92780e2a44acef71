/* SPDX-License-Identifier: Apache-2.0
 *
 * What goes down comes up again: eviction, writeback and prefetch as they are, over tiers that misbehave as told, on one
 * thread with a logical clock. First each rule by itself, then all of them at random: a failing seed fails again.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "fault.h"
#include "tests/unit/cache/world.h"

#define CHUNK (MIB)
#define SECOND INT64_C(1000000000)

static struct ty_tier *tier(int i)
{
	return world.service->tiers[i];
}

static void open_world(const char *first, const char *second, uint32_t pieces)
{
	struct world_options options = {.pieces = pieces, .tier = {first, second}};

	world_open(&options);
}

static void store(uint32_t family, uint32_t count)
{
	struct world_op *op = world_store(family, 0, count, CHUNK, 0, 1);

	world_pass(SECOND / 10);
	if (!op->back)
		world_copied(op, TY_OK);
	world_pass(SECOND / 10);
	assert_int_equal(op->op.code, TY_OK);
	world_free(op);
}

/* Make room: stores of other prompts push everything out. */
static void push_out(uint32_t family)
{
	for (uint32_t f = family; f < family + 300; f += 100)
		store(f, 40);
	world_pass(SECOND);
}

static uint32_t fetch(uint32_t family, uint32_t first, uint32_t count)
{
	struct world_fetch f = {0};
	uint32_t here;

	world_fetch(&f, family, first, count);
	for (int i = 0; i < 1000 && !f.back; i++)
		world_pass(SECOND / 100);
	assert_true(f.back);
	here = world_fetched(&f);
	return here;
}

/* Down at the commit, out of the arena, and up again, in order. */
static void test_round_trip(void **state)
{
	(void)state;
	open_world("fault:0", NULL, 1);
	store(1, 20);
	world_pass(SECOND);
	assert_int_equal(tier(0)->stats.chunks, 20);
	assert_int_equal(tier(0)->stats.pinned_bytes, 0);
	for (uint32_t f = 2; f < 6; f++)
		store(f, 20);
	assert_false(world_here(1, 0));
	assert_int_equal(fetch(1, 0, 30), 20);
	assert_int_equal(world.service->prefetch_stats.loaded, 20);
	world_pass(SECOND);
	/* What came up is known to be below: it is not written again. */
	assert_int_equal(fault[0].puts, 100);
	world_close();
}

/* A chain stops at the first chunk that nobody has, and what is in the arena is not loaded. */
static void test_prefix(void **state)
{
	(void)state;
	open_world("fault:0", NULL, 1);
	store(1, 10);
	push_out(2);
	assert_int_equal(fetch(1, 0, 4), 4);
	assert_int_equal(fault[0].gets, 4);
	assert_int_equal(fetch(1, 0, 10), 10);
	assert_int_equal(fault[0].gets, 10);
	assert_int_equal(fetch(3, 0, 10), 0);
	world_close();
}

/* Two that want the same key: one load. */
static void test_shared_load(void **state)
{
	struct world_fetch a = {0}, b = {0};

	(void)state;
	open_world("fault:0", NULL, 1);
	store(1, 10);
	push_out(2);
	fault[0].delay_ns = SECOND / 100;
	world_fetch(&a, 1, 0, 10);
	world_fetch(&b, 1, 0, 10);
	world_pass(SECOND);
	assert_true(a.back && b.back);
	assert_int_equal(world_fetched(&a), 10);
	assert_int_equal(world_fetched(&b), 10);
	assert_int_equal(fault[0].gets, 10);
	world_close();
}

/* The second tier has what the first one lost. */
static void test_two_tiers(void **state)
{
	(void)state;
	open_world("fault:0", "fault:1", 1);
	store(1, 10);
	world_pass(SECOND);
	assert_int_equal(tier(0)->stats.chunks, 10);
	assert_int_equal(tier(1)->stats.chunks, 10);
	push_out(2);
	fault[0].fail = true;
	assert_int_equal(fetch(1, 0, 10), 10);
	assert_int_equal(fault[1].gets, 10);
	fault[0].fail = false;
	world_close();
}

static uint64_t summed; /* bytes, on whatever thread */

uint64_t __real_ty_checksum(const void *data, size_t length);
uint64_t __wrap_ty_checksum(const void *data, size_t length);
uint64_t __wrap_ty_checksum(const void *data, size_t length)
{
	summed += length;
	return __real_ty_checksum(data, length);
}

/* A sum is made once of a chunk that goes down, however often the tier has no room for it. */
static void test_summed_once(void **state)
{
	(void)state;
	open_world("fault:0,bytes=2MiB", NULL, 1);
	fault[0].hang = true;
	summed = 0;
	for (uint32_t f = 1; f <= 20; f++)
		store(f, 1);
	assert_in_range(summed, 2 * CHUNK, 3 * CHUNK + 65536);
	fault[0].hang = false;
	fault_let(tier(0));
	world_pass(SECOND);
	assert_int_equal(tier(0)->stats.chunks, 20);
	assert_in_range(summed, 20 * CHUNK, 20 * (CHUNK + 65536));
	world_close();
}

/* And where sums are made anyway, the way down waits for that one. */
static void test_summed_before(void **state)
{
	struct world_options options = {.pieces = 1, .sums = true, .tier = {"fault:0", NULL}};

	(void)state;
	world_open(&options);
	summed = 0;
	for (uint32_t f = 1; f <= 10; f++)
		store(f, 1);
	world_pass(SECOND);
	assert_int_equal(tier(0)->stats.chunks, 10);
	assert_int_equal(world.service->checksum_stats.bytes, 10 * CHUNK);
	assert_in_range(summed, 0, 10 * 65536);
	world_close();
}

static bool has_stopped;

static void on_stopped(struct ty_stop *stop)
{
	(void)stop;
	has_stopped = true;
}

static void stop_and_wait(struct ty_actor *actor, uint32_t type)
{
	struct ty_stop stop = {.stopped = on_stopped};

	has_stopped = false;
	assert_int_equal(ty_send(actor, &stop.msg, type), TY_OK);
	while (!has_stopped)
		world_steps(1);
}

/* A sum that is there only when writeback has said that nothing is on its way any more: nothing is. */
static void test_summed_after_the_stop(void **state)
{
	struct world_options options = {.pieces = 1, .sums = true, .tier = {"fault:0", NULL}};

	(void)state;
	world_open(&options);
	stop_and_wait(world.service->writeback, TY_WRITEBACK_STOP);
	fault[0].hang = true;
	store(1, 1);
	world_pass(SECOND);
	assert_int_equal(tier(0)->stats.submitted[TY_TIER_PUT], 0);
	assert_int_equal(tier(0)->stats.queued, 0);
	assert_int_equal(tier(0)->stats.dropped, 1);
	fault[0].hang = false;
	world_close();
}

/* The service stops while sums are being made: what waits for them goes down first. */
static void test_summed_before_the_stop(void **state)
{
	struct world_options options = {.pieces = 1, .sums = true, .tier = {"fault:0", NULL}};
	struct world_op *op;

	(void)state;
	world_open(&options);
	op = world_store(1, 0, 10, CHUNK, 0, 1);
	world_pass(SECOND / 10);
	world_copied(op, TY_OK);
	while (!world_here(1, 9))
		world_steps(1);
	assert_true(world.service->checksum_stats.waiting > 0);
	stop_and_wait(world.service->eviction, TY_EVICTION_STOP);
	assert_int_equal(world.service->checksum_stats.waiting, 0);
	stop_and_wait(world.service->writeback, TY_WRITEBACK_STOP);
	assert_int_equal(tier(0)->stats.chunks, 10);
	assert_int_equal(tier(0)->stats.dropped, 0);
	world_free(op);
	world_close();
}

static unsigned told_hangs, told_takes; /* lines of the log about the first tier */

static bool listen_to_log(const char *line, size_t length)
{
	(void)length;
	told_hangs += strstr(line, "fault:0 hangs: ") != NULL;
	told_takes += strstr(line, "fault:0 takes chunks again") != NULL;
	return true;
}

/* One that hangs: those who wait for it go home with what they have; the other tier serves as ever. */
static void test_hang(void **state)
{
	struct world_fetch f = {0};

	(void)state;
	open_world("fault:0", "fault:1", 1);
	store(1, 10);
	push_out(2);
	fault[0].hang = true;
	assert_int_equal(fetch(1, 0, 10), 10); /* after a while, from the second one */
	assert_int_equal(fault[0].gets, 0);
	push_out(3);
	world_fetch(&f, 1, 0, 10); /* it is known to hang: nobody waits */
	world_pass(SECOND / 10);
	assert_true(f.back);
	assert_int_equal(world_fetched(&f), 10);
	/* Stores go on, and what it should have got is dropped once it hangs for too long. */
	told_hangs = told_takes = 0;
	ty_log_set_sink(listen_to_log);
	for (uint32_t i = 0; i < 10; i++)
		push_out(10 + i);
	assert_true(tier(0)->stats.dropped > 0);
	assert_true(tier(0)->stats.pinned_bytes <= tier(0)->config.pins);
	assert_int_equal(tier(1)->stats.pinned_bytes, 0);
	assert_int_equal(told_hangs, 1);
	assert_int_equal(told_takes, 0);
	/* It comes back. */
	fault[0].hang = false;
	fault_let(tier(0));
	world_pass(SECOND);
	push_out(30);
	world_pass(SECOND);
	push_out(31);
	assert_int_equal(told_hangs, 1);
	assert_int_equal(told_takes, 1);
	ty_log_set_sink(NULL);
	fault[1].fail = true;
	assert_int_equal(fetch(30, 0, 20), 20);
	world_close();
}

/* One that hangs in the middle of a load keeps its slots, and nothing else. */
static void test_hanging_load(void **state)
{
	struct world_fetch f = {0};

	(void)state;
	open_world("fault:0", NULL, 1);
	store(1, 10);
	push_out(2);
	fault[0].delay_ns = SECOND / 1000;
	world_fetch(&f, 1, 0, 10);
	for (int i = 0; i < 10000 && !world.service->prefetch_stats.in_flight; i++)
		world_steps(1);
	fault[0].hang = true;
	world_pass(3 * SECOND);
	assert_true(f.back);
	assert_true(world_fetched(&f) < 10);
	push_out(3);
	fault[0].hang = false;
	fault_let(tier(0));
	world_pass(SECOND);
	assert_int_equal(world.service->prefetch_stats.in_flight, 0);
	assert_int_equal(fetch(1, 0, 10), 10);
	world_close();
}

/* Loads that nobody waits for any more fill the window of one that hangs: who has not begun asks the next tier. */
static void test_full_window(void **state)
{
	struct world_fetch first = {0}, second = {0};

	(void)state;
	open_world("fault:0,ops=1", "fault:1", 1);
	store(1, 10);
	store(2, 10);
	push_out(10);
	fault[0].delay_ns = SECOND / 100;
	world_fetch(&first, 1, 0, 10);
	world_fetch(&second, 2, 0, 10);
	for (int i = 0; i < 10000 && (second.fetch->known < 10 || !world.service->prefetch_stats.in_flight); i++)
		world_steps(1);
	assert_true(!first.back && second.fetch->known == 10 && second.fetch->asked == 0);
	fault[0].hang = true;
	atomic_store(&first.fetch->cancelled, true);
	world_pass(2 * SECOND);
	assert_true(first.back && second.back);
	world_fetched(&first);
	assert_int_equal(world_fetched(&second), 10);
	fault[0].hang = false;
	fault_let(tier(0));
	world_pass(SECOND);
	world_close();
}

/* Every second operation fails, other bytes come back, it is full: a miss each, never wrong bytes, and all pins come back. */
static void test_faults(void **state)
{
	(void)state;
	open_world("fault:0", NULL, 1);
	fault[0].fail_every = 2;
	store(1, 20);
	world_pass(SECOND);
	assert_int_equal(tier(0)->stats.chunks, 10);
	fault[0].fail_every = 0;
	push_out(2);
	fault[0].wrong_every = 3;
	fetch(1, 0, 20); /* contents are checked with the lease */
	fault[0].wrong_every = 1;
	push_out(3);
	assert_int_equal(fetch(2, 0, 20), 0);
	assert_true(world.service->prefetch_stats.corrupt > 0);
	fault[0].wrong_every = 0;
	fault[0].full = true;
	store(4, 20);
	world_pass(SECOND);
	assert_true(tier(0)->stats.outcomes[TY_TIER_PUT][TY_TIER_FULL] >= 20);
	assert_int_equal(tier(0)->stats.pinned_bytes, 0);
	world_close();
}

/* Cancelled while it waits: home at once, whatever the tier does. */
static void test_cancel(void **state)
{
	struct world_fetch f = {0};

	(void)state;
	open_world("fault:0", NULL, 1);
	store(1, 10);
	push_out(2);
	fault[0].hang = true;
	world_fetch(&f, 1, 0, 10);
	world_pass(SECOND / 100);
	assert_false(f.back);
	atomic_store(&f.fetch->cancelled, true);
	world_pass(SECOND / 50);
	assert_true(f.back);
	assert_int_equal(world_fetched(&f), 0);
	fault[0].hang = false;
	world_close();
}

/* Only when it is used again; only when it leaves; never; only one tenant's. */
static void test_policies(void **state)
{
	struct ty_lease *lease;

	(void)state;
	open_world("fault:0,write=reuse", "fault:1,write=evict", 1);
	store(1, 10);
	world_pass(SECOND);
	assert_int_equal(tier(0)->stats.chunks + tier(1)->stats.chunks, 0);
	lease = world_lookup(1, 5);
	world_release(lease);
	world_pass(SECOND);
	assert_int_equal(tier(0)->stats.chunks, 5);
	for (uint32_t f = 2; f < 40; f++) /* a few at a time: victims have room for their pins */
		store(f, 2);
	world_pass(SECOND);
	assert_true(tier(1)->stats.chunks >= 10);
	assert_int_equal(fetch(1, 0, 10), 10);
	world_close();

	open_world("fault:0,write=never", "fault:1,tenant=first", 1);
	store(1, 5);
	store(2, 5);
	world_pass(SECOND);
	assert_int_equal(tier(0)->stats.chunks, 0);
	assert_int_equal(tier(1)->stats.chunks, 5);
	world_close();
}

/* A slow tier: what it cannot take is dropped and counted, its pins stay within the limit, and stores go on. */
static void test_slow(void **state)
{
	(void)state;
	open_world("fault:0,queue=8,ops=2", NULL, 1);
	fault[0].delay_ns = 10 * SECOND;
	for (uint32_t f = 1; f < 8; f++) {
		store(f, 20);
		assert_true(tier(0)->stats.queued <= 8);
	}
	assert_true(tier(0)->stats.dropped > 0);
	assert_int_equal(world.service->eviction_stats.no_space, 0);
	world_close();
}

/* What stores wait for is lost to none: each finds its room when what lay there has been written. */
static void test_wait(void **state)
{
	(void)state;
	open_world("fault:0,queue=8,ops=2,wait=3600s", NULL, 1);
	fault[0].delay_ns = SECOND / 10;
	for (uint32_t f = 1; f < 12; f++) {
		struct world_op *op = world_store(f, 0, 20, CHUNK, 0, 1);

		for (int i = 0; i < 10000 && !op->back; i++) {
			world_pass(SECOND / 100);
			if (world.at_gpu)
				world_copied(world.at_gpu, TY_OK);
		}
		assert_true(op->back);
		assert_int_equal(op->op.stored, 20);
		world_free(op);
	}
	assert_true(world.service->eviction_stats.waits > 0);
	world_pass(100 * SECOND);
	for (uint32_t f = 1; f < 12; f++)
		assert_int_equal(fetch(f, 0, 20), 20);
	assert_int_equal(tier(0)->stats.pinned_bytes, 0);
	world_close();
}

/* So long, and no longer; and not for a tier that hangs, nor for one that fails. */
static void test_wait_ends(void **state)
{
	struct world_op *op;

	(void)state;
	open_world("fault:0,wait=1s", NULL, 1);
	fault[0].hang = true;
	for (uint32_t f = 1; f < 4; f++)
		store(f, 20);
	op = world_store(4, 0, 20, CHUNK, 0, 1);
	world_pass(SECOND / 2);
	assert_false(world.at_gpu != NULL || op->back);
	world_pass(SECOND);
	assert_non_null(world.at_gpu);
	world_copied(op, TY_OK);
	world_pass(SECOND / 10);
	assert_int_equal(op->op.stored, 20);
	world_free(op);
	world_pass(5 * SECOND); /* it is known to hang */
	store(5, 20);
	store(6, 20);
	assert_int_equal(world.service->eviction_stats.waiting, 0);
	fault[0].hang = false;
	fault[0].fail = true;
	fault_let(tier(0));
	world_pass(SECOND);
	store(7, 20);
	store(8, 20);
	store(9, 20);
	assert_int_equal(world.service->eviction_stats.no_space, 0);
	world_close();
}

/* Who waits for room in its own tenant's quota holds up that tenant alone, and its own stores keep their order. */
static void quota_waits_alone(const char *how)
{
	struct world_options options = {.pieces = 2, .tier = {how},
		.quotas = {{.tenant = "first", .hard = 16 * CHUNK, .soft = 16 * CHUNK}}, .quota_count = 1};
	struct world_op *waits, *behind;

	world_open(&options);
	fault[0].hang = true;
	store(2, 16); /* all of the quota, and on its way down */
	waits = world_store(4, 0, 8, CHUNK, 0, 1);
	behind = world_store(6, 0, 1, CHUNK, 0, 1);
	world_pass(SECOND / 10);
	assert_null(world.at_gpu);
	assert_int_equal(world.service->eviction_stats.waiting, 2);
	for (uint32_t f = 1; f < 9; f += 2)
		store(f, 20); /* the other tenant's */
	assert_int_equal(world.service->eviction_stats.waiting, 2);
	fault[0].hang = false;
	fault_let(tier(0));
	for (int i = 0; i < 1000 && !(waits->back && behind->back); i++) {
		world_pass(SECOND / 100);
		assert_true(world.at_gpu_count != 1 || world.at_gpu == waits || waits->back);
		if (world.at_gpu)
			world_copied(world.at_gpu, TY_OK);
	}
	assert_true(waits->back && behind->back);
	assert_int_equal(waits->op.stored, 8);
	assert_int_equal(behind->op.stored, 1);
	world_free(waits);
	world_free(behind);
	world_close();
}

static void test_quota_waits_alone(void **state)
{
	(void)state;
	quota_waits_alone("fault:0,ops=2,wait=100s,timeout=200s");
	quota_waits_alone("fault:0,wait=100s,timeout=200s"); /* all of it is with the tier already */
}

/* Evicted while it waits, and stored again: it waits twice, and goes once. */
static void test_coalesced(void **state)
{
	(void)state;
	open_world("fault:0,ops=8", NULL, 1);
	fault[0].hang = true;
	store(9, 8); /* with the tier, which has no room for more */
	for (uint32_t round = 0; round < 3; round++) {
		store(1, 4);
		store(10 + 2 * round, 40);
		store(11 + 2 * round, 40);
		assert_false(world_here(1, 0));
	}
	store(1, 4);
	fault[0].hang = false;
	fault_let(tier(0));
	world_pass(SECOND);
	assert_int_equal(tier(0)->stats.queued, 0);
	assert_int_equal(tier(0)->stats.pinned_bytes, 0);
	assert_int_equal(fault[0].puts, tier(0)->stats.chunks);
	assert_int_equal(fetch(1, 0, 4), 4);
	world_close();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip), cmocka_unit_test(test_prefix), cmocka_unit_test(test_shared_load),
		cmocka_unit_test(test_two_tiers), cmocka_unit_test(test_summed_once), cmocka_unit_test(test_summed_before), cmocka_unit_test(test_summed_after_the_stop), cmocka_unit_test(test_summed_before_the_stop), cmocka_unit_test(test_hang), cmocka_unit_test(test_hanging_load),
		cmocka_unit_test(test_full_window), cmocka_unit_test(test_coalesced),
		cmocka_unit_test(test_faults), cmocka_unit_test(test_cancel), cmocka_unit_test(test_policies),
		cmocka_unit_test(test_slow), cmocka_unit_test(test_wait), cmocka_unit_test(test_wait_ends), cmocka_unit_test(test_quota_waits_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
