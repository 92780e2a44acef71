/* SPDX-License-Identifier: Apache-2.0
 *
 * DELETE and CLEAR of what is below, and of what is on its way there.
 */
#include "below_house.h"

/* By tenant, by key and all: the others stay where they are. */
static void test_delete(void **state)
{
	struct told told;

	(void)state;
	open_world("fault:0", "fault:1");
	fill();
	prepare(TYER__V1__REQUEST__VERB_DELETE); /* somebody else's key */
	world_name_keys(&request, 0, 5);
	of_the_second();
	ask();
	assert_int_equal(counts()->below, 0);
	world_forget(&request);
	prepare(TYER__V1__REQUEST__VERB_DELETE);
	of_the_second();
	ask();
	assert_int_equal(counts()->below, 2 * CHUNKS);
	assert_int_equal(counts()->chunks, 0);
	world_forget(&request);
	list_all(&told, 0, NULL);
	expect_told(&told, true, false, 2);
	prepare(TYER__V1__REQUEST__VERB_DELETE);
	world_name_keys(&request, 0, CHUNKS);
	world_name_tenant(&request, "first");
	ask();
	assert_int_equal(counts()->below, 2 * CHUNKS);
	world_forget(&request);
	prepare(TYER__V1__REQUEST__VERB_DELETE);
	world_name_keys(&request, 2, 3);
	ask();
	assert_int_equal(counts()->chunks, 3);
	assert_int_equal(counts()->below, 6);
	world_forget(&request);
	prepare(TYER__V1__REQUEST__VERB_CLEAR);
	in_tiers();
	ask();
	assert_int_equal(counts()->chunks, 0);
	assert_int_equal(counts()->below, 2 * (CHUNKS - 3));
	world_forget(&request);
	assert_int_equal(world_stat(&world.service->eviction_stats.chunks), CHUNKS - 3);
	assert_int_equal(world_stat(&world.service->tiers[1]->stats.chunks), 0);
	world_close();
}

/* So many others that nothing of before is left in the arena; and what is below of a family then. */
static uint32_t left_below(uint32_t family, uint32_t count)
{
	struct world_fetch f = {0};

	for (uint32_t other = 100; other < 140; other++)
		assert_int_equal(world_store_now(other, 0, CHUNKS, SMALL), TY_OK);
	world_pass(SECOND);
	for (uint32_t i = 0; i < count; i++)
		assert_false(world_here(family, i));
	world_fetch(&f, family, 0, count);
	for (int i = 0; i < 1000 && !f.back; i++)
		world_pass(SECOND / 100);
	assert_true(f.back);
	return world_fetched(&f);
}

/* What is deleted while somebody has it goes when nobody has it any more, and not down to where it was deleted. */
static void test_delete_what_is_in_use(void **state)
{
	struct ty_lease *lease;

	(void)state;
	open_world("fault:0", "fault:1,write=evict");
	assert_int_equal(world_store_now(3, 0, 8, SMALL), TY_OK);
	world_pass(SECOND);
	lease = world_lookup(3, 8);
	assert_non_null(lease);
	prepare(TYER__V1__REQUEST__VERB_DELETE);
	world_name_keys(&request, 3, 8);
	ask();
	assert_int_equal(counts()->in_use, 8);
	world_forget(&request);
	world_release(lease);
	world_pass(SECOND);
	assert_int_equal(left_below(3, 8), 0);
	world_close();
}

/* Nor is what is deleted while it is stored. */
static void test_delete_what_is_filled(void **state)
{
	struct world_op *op;

	(void)state;
	open_world("fault:0", "fault:1,write=evict");
	op = world_store(3, 0, 8, SMALL, 0, 1);
	world_pass(SECOND / 100);
	prepare(TYER__V1__REQUEST__VERB_DELETE);
	world_name_keys(&request, 3, 8);
	ask();
	assert_int_equal(counts()->in_use, 8);
	world_forget(&request);
	world_copied(op, TY_OK);
	world_pass(SECOND);
	assert_int_equal(op->op.code, TY_OK);
	world_free(op);
	assert_int_equal(left_below(3, 8), 0);
	world_close();
}

/* Nor what waits to be written. */
static void test_delete_what_waits(void **state)
{
	struct ty_lease *lease;

	(void)state;
	open_world("fault:0,ops=2", NULL);
	fault[0].hang = true;
	store(2, 2); /* the tier has these, and one is next */
	store(3, 8);
	lease = world_lookup(3, 8);
	assert_non_null(lease);
	prepare(TYER__V1__REQUEST__VERB_DELETE);
	world_name_keys(&request, 3, 8);
	world_ask(&request, request.q.verb_case);
	world_pass(SECOND / 10);
	fault[0].hang = false;
	fault_let(world.service->tiers[0]);
	for (int i = 0; i < 10000 && !request.back; i++)
		world_pass(SECOND / 1000);
	assert_int_equal(counts()->in_use, 8);
	world_forget(&request);
	world_release(lease);
	world_pass(SECOND);
	assert_int_equal(world_stat(&world.service->tiers[0]->stats.queued), 0);
	assert_int_equal(left_below(3, 8), 0);
	world_close();
}

/* What is being summed up, or on its way down, is cleared too: it is waited for. */
static void test_clear_at_once(void **state)
{
	struct world_op *op;
	struct ty_lease *lease;

	(void)state;
	for (int round = 0; round < 20; round++) {
		open_world("fault:0", NULL);
		fault[0].delay_ns = SECOND / 10;
		op = world_store(0, 0, CHUNKS, SMALL, 0, 1);
		while (!world.at_gpu)
			world_steps(1);
		world_copied(op, TY_OK);
		while (!op->back)
			world_steps(1);
		world_free(op);
		world_steps((uint32_t)round);
		lease = round % 2 ? world_lookup(0, 1) : NULL;
		prepare(TYER__V1__REQUEST__VERB_CLEAR);
		ask();
		assert_int_equal(counts()->in_use, lease ? 1 : 0);
		assert_int_equal(counts()->chunks, CHUNKS - (lease ? 1 : 0));
		world_forget(&request);
		world_pass(SECOND);
		assert_int_equal(ty_index_count(world.service->index), lease ? 1 : 0);
		if (!lease) /* what was leased may be written once more */
			assert_int_equal(world_stat(&world.service->tiers[0]->stats.chunks), 0);
		if (lease)
			world_release(lease);
		world_idle();
		world_close();
	}
}

/* A PUT that never ends: its chunk is in use, the others go, and the answer comes before the deadline. */
static void test_clear_beside_a_hanging_put(void **state)
{
	(void)state;
	open_world("fault:0,ops=4", NULL);
	fault[0].hang = true;
	store(0, CHUNKS);
	prepare(TYER__V1__REQUEST__VERB_CLEAR);
	request.select.place = TYER__V1__PLACE__ARENA;
	ask();
	assert_int_equal(counts()->in_use, 4);
	assert_int_equal(counts()->chunks, CHUNKS - 4);
	world_forget(&request);
	fault[0].hang = false;
	fault_let(world.service->tiers[0]);
	world_pass(SECOND);
	world_close();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_delete),
		cmocka_unit_test(test_delete_what_is_in_use),
		cmocka_unit_test(test_delete_what_is_filled),
		cmocka_unit_test(test_delete_what_waits),
		cmocka_unit_test(test_clear_at_once),
		cmocka_unit_test(test_clear_beside_a_hanging_put),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
