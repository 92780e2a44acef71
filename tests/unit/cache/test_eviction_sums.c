/* SPDX-License-Identifier: Apache-2.0
 *
 * Checksums of contents, made after the commit: of what, how much at once, and that nobody waits for them.
 */
#include "world.h"

#include "cache/checksum.h"

enum { FAMILIES = 4, CHUNKS = 32 };

static uint64_t stat_of(const _Atomic uint64_t *counter)
{
	return world_stat(counter);
}

/* Of the chunks [0, count) of a family, how many have the sums of all their parts; those that are made are right. */
static uint32_t summed(uint32_t family, uint32_t count)
{
	const struct ty_slots *slots = world.service->slots;
	uint32_t n = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct ty_key key = world_key(family, i);
		struct ty_chunk *chunk = ty_index_find(world.service->index, &key);
		bool all = true;

		assert_non_null(chunk);
		assert_int_equal(ty_chunk_pins(chunk), 0);
		for (uint32_t part = 0; part < chunk->parts; part++) {
			uint32_t slot = chunk->slots[part];
			uint64_t sum = slot == TY_NO_SLOT ? 0 : ty_slots_checksum(slots, slot);

			if (sum)
				assert_int_equal(sum, ty_checksum(ty_slots_address(slots, slot), ty_slots_record(slots, slot)->length));
			all &= sum != 0;
		}
		n += all;
	}
	return n;
}

static void store_part(uint32_t part)
{
	struct world_op *op = world_store(0, 0, 3, 2 * MIB + 4096, part, 2);

	world_idle();
	world_copied(op, TY_OK);
	world_idle();
	assert_int_equal(op->op.stored, 3);
	world_free(op);
}

static void test_every_part_once_it_is_visible(void **state)
{
	(void)state;
	world_open(&(struct world_options){.pieces = 4, .sums = true});
	store_part(0);
	assert_int_equal(summed(0, 3), 0);
	assert_int_equal(stat_of(&world.service->checksum_stats.bytes), 0); /* not visible yet */
	store_part(1);
	assert_int_equal(summed(0, 3), 3);
	assert_int_equal(stat_of(&world.service->checksum_stats.bytes), 6 * (2 * MIB + 4096));
	assert_int_equal(stat_of(&world.service->checksum_stats.waiting), 0);
	world_check(FAMILIES, CHUNKS);
	world_close();
}

static void test_no_more_than_a_share_at_once(void **state)
{
	(void)state;
	world_open(&(struct world_options){.pieces = 2, .sums = true}); /* a sixteenth: 8 MiB */
	assert_int_equal(world_store_now(0, 0, 5, 3 * MIB), TY_OK);
	world_idle();
	assert_int_equal(summed(0, 5), 2);
	assert_int_equal(stat_of(&world.service->checksum_stats.skipped), 3);
	assert_int_equal(world_store_now(1, 0, 1, 9 * MIB), TY_OK); /* by itself too large */
	world_idle();
	assert_int_equal(stat_of(&world.service->checksum_stats.skipped), 4);
	assert_int_equal(world_store_now(2, 0, 2, 3 * MIB), TY_OK); /* the share is free again */
	world_idle();
	assert_int_equal(summed(2, 2), 2);
	world_check(FAMILIES, CHUNKS);
	world_close();
}

/* Another size needs the whole piece, in which something is being summed up: the store waits for that, and is not dropped. */
static void test_a_store_waits_for_sums(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct world_op *last, *other;

		world_open(&(struct world_options){.pieces = 1, .sums = true, .seed = seed});
		assert_int_equal(world_store_now(0, 0, 30, 2 * MIB), TY_OK);
		last = world_store(1, 0, 1, 2 * MIB, 0, 1);
		world_idle();
		world_copied(last, TY_OK);
		other = world_store(2, 0, 1, 3 * MIB, 0, 1);
		world_idle();
		assert_int_equal(other->op.copy_count, 1);
		world_copied(other, TY_OK);
		world_idle();
		assert_int_equal(other->op.stored, 1);
		world_free(last);
		world_free(other);
		world_check(FAMILIES, CHUNKS);
		world_close();
	}
}

static void test_without_anybody_to_sum(void **state)
{
	(void)state;
	world_open(&(struct world_options){.pieces = 2, .sums = true});
	ty_actor_stop(world.service->bytework[0]);
	world_idle();
	assert_int_equal(world_store_now(0, 0, 2, MIB), TY_OK);
	world_idle();
	assert_int_equal(summed(0, 2), 0);
	assert_int_equal(stat_of(&world.service->checksum_stats.skipped), 2);
	world_check(FAMILIES, CHUNKS);
	world_close();
}

static void test_not_when_it_stops(void **state)
{
	(void)state;
	world_open(&(struct world_options){.pieces = 2, .sums = true});
	atomic_store_explicit(&world.service->stopping, true, memory_order_release);
	assert_int_equal(world_store_now(0, 0, 2, MIB), TY_OK);
	world_idle();
	assert_int_equal(summed(0, 2), 0);
	assert_int_equal(stat_of(&world.service->checksum_stats.waiting), 0);
	world_check(FAMILIES, CHUNKS);
	world_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_part_once_it_is_visible),
		cmocka_unit_test(test_no_more_than_a_share_at_once),
		cmocka_unit_test(test_a_store_waits_for_sums),
		cmocka_unit_test(test_without_anybody_to_sum),
		cmocka_unit_test(test_not_when_it_stops),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
