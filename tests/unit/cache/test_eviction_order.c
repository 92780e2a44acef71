/* SPDX-License-Identifier: Apache-2.0
 *
 * Who goes first, as the eviction actor has it from engines and from the configuration.
 */
#include "world.h"

#include <stdlib.h>

#include "cache/order.h"

enum { FAMILIES = 8, CHUNKS = 16 };
#define CHUNK (16 * MIB) /* four a piece */

static void check_and_close(void)
{
	world_check(FAMILIES, CHUNKS);
	world_close();
}

static void end(struct world_op *op)
{
	world_idle();
	if (!op->back)
		world_copied(op, TY_OK);
	world_idle();
	assert_true(op->back);
}

static void store_as(uint32_t family, uint32_t first, uint32_t count, struct ty_hint hint)
{
	struct world_op *op = world_store(family, first, count, CHUNK, 0, 1);

	op->op.hint = hint;
	end(op);
	assert_int_equal(op->op.stored + op->op.present, count);
	world_free(op);
}

static void store(uint32_t family, uint32_t count)
{
	store_as(family, 0, count, (struct ty_hint){0});
}

static void use_as(uint32_t family, uint32_t count, struct ty_hint hint)
{
	struct ty_lease *lease = world_lookup(family, count);

	assert_non_null(lease);
	assert_int_equal(lease->count, count);
	lease->hint = hint;
	world_release(lease);
	world_idle();
}

static void test_done_goes_first(void **state)
{
	struct ty_hint mine = {.owner = 1}, done = {.owner = 1, .band = TY_BAND_DONE}, other = {.owner = 2};

	(void)state;
	world_open(&(struct world_options){.pieces = 2});
	store_as(0, 0, 2, other);
	store_as(1, 0, 2, mine);
	store_as(2, 0, 4, mine);
	use_as(2, 1, other); /* the head of 2 is used by another conversation too */
	use_as(2, 4, done);
	store(3, 3);
	assert_true(world_here(2, 0) && world_here(0, 0) && world_here(1, 0) && world_here(0, 1) && world_here(1, 1));
	assert_false(world_here(2, 1) || world_here(2, 2) || world_here(2, 3));
	check_and_close();
}

/* What a session stored itself is in no lease; its end speaks of it all the same. */
static void test_hint_reaches_what_is_not_leased(void **state)
{
	struct ty_lease *lease;

	(void)state;
	world_open(&(struct world_options){.pieces = 2});
	store(0, 4);
	store(1, 4);
	lease = world_lookup(1, 1);
	lease->hint = (struct ty_hint){.owner = 1, .band = TY_BAND_DONE};
	lease->key_count = 5; /* one of them is not here */
	lease->keys = malloc(5 * sizeof *lease->keys);
	for (uint32_t i = 0; i < 5; i++)
		lease->keys[i] = world_key(1, i);
	world_release(lease);
	world_idle();
	store(2, 4);
	for (uint32_t i = 0; i < 4; i++)
		assert_true(world_here(0, i) && !world_here(1, i) && world_here(2, i));
	check_and_close();
}

static void test_kept_stays(void **state)
{
	struct ty_hint keep = {.owner = 1, .keep = true};
	struct world_op *op;

	(void)state;
	world_open(&(struct world_options){.pieces = 2, .keep_percent = 50});
	store_as(0, 0, 6, keep); /* of which four may */
	op = world_store(1, 0, 8, CHUNK, 0, 1);
	end(op);
	assert_int_equal(op->op.stored, 4);
	assert_int_equal(op->op.dropped, 4);
	world_free(op);
	op = world_store(2, 0, 1, TY_PIECE_BYTES, 0, 1); /* a whole piece: kept chunks lie in one of them */
	end(op);
	assert_true(op->op.stored == 1 || op->op.code == TY_NO_SPACE);
	world_free(op);
	uint32_t here = 0;
	for (uint32_t i = 0; i < 6; i++)
		here += world_here(0, i);
	assert_int_equal(here, 4);
	check_and_close();

	world_open(&(struct world_options){.pieces = 1, .keep_percent = 0});
	store_as(0, 0, 2, keep);
	store(1, 4);
	assert_false(world_here(0, 0) || world_here(0, 1));
	check_and_close();
}

/* A request that finds its chunks touches them once, although it stores the same prompt too; ARC keeps what two requests
 * used, and what one did goes. */
static void test_one_touch_a_request(void **state)
{
	struct ty_lease *lease;

	(void)state;
	world_open(&(struct world_options){.pieces = 2});
	store(0, 2);
	store(1, 2);
	lease = world_lookup(0, 2);
	store(0, 2); /* present: not another use */
	lease->again = 2; /* the same request asked once more: not over yet */
	world_release(lease);
	world_idle();
	use_as(1, 2, (struct ty_hint){0});
	store(2, 4);
	store(3, 2);
	assert_true(world_here(1, 0) && world_here(1, 1));
	assert_false(world_here(0, 0) || world_here(0, 1));
	check_and_close();
}

static void test_hard_quota(void **state)
{
	struct world_options options = {.pieces = 4, .quotas = {{"second", 4 * CHUNK, 2 * CHUNK}}, .quota_count = 1};
	struct world_op *op;
	struct ty_lease *lease;

	(void)state;
	world_open(&options);
	store(1, 3);
	store(3, 3); /* of the same tenant: the oldest two go, although the arena is half empty */
	assert_true(world_here(3, 0) && world_here(3, 1) && world_here(3, 2));
	assert_int_equal(world_here(1, 0) + world_here(1, 1) + world_here(1, 2), 1);
	assert_true(world_here(1, 0)); /* its tail went first */
	lease = world_lookup(3, 3);
	op = world_store(5, 0, 4, CHUNK, 0, 1); /* what is in use cannot go: one fits */
	end(op);
	assert_int_equal(op->op.stored, 1);
	assert_int_equal(op->op.dropped, 3);
	world_free(op);
	world_release(lease);
	world_idle();
	op = world_store(7, 0, 1, 5 * CHUNK > TY_PIECE_BYTES ? TY_PIECE_BYTES : 5 * CHUNK, 0, 1);
	end(op); /* as large as the quota: everything else of the tenant goes */
	assert_int_equal(op->op.stored, 1);
	world_free(op);
	assert_false(world_here(3, 0));
	store(0, 12); /* others have the rest */
	assert_true(world_here(0, 11));
	assert_true(world_here(7, 0));
	check_and_close();
}

static void test_soft_quota(void **state)
{
	struct world_options options = {.pieces = 2, .quotas = {{"second", 0, 2 * CHUNK}}, .quota_count = 1};

	(void)state;
	world_open(&options);
	store(0, 2);
	store(1, 6);
	store(2, 3); /* the tenant is above its share: its chunks go, although they are younger */
	assert_true(world_here(0, 0) && world_here(0, 1));
	store(2, 6); /* the others have more than theirs now: the tenant's two stay */
	assert_false(world_here(0, 0) || world_here(0, 1));
	assert_true(world_here(1, 0) && world_here(1, 1));
	check_and_close();
}

/* A chunk that came without a namespace is somebody's as soon as somebody uses it. */
static void test_claimed_when_used(void **state)
{
	struct world_options options = {.pieces = 2, .quotas = {{"second", 4 * CHUNK, 4 * CHUNK}}, .quota_count = 1};
	struct world_op *op;
	struct ty_lease *lease;

	(void)state;
	world_open(&options);
	op = world_store(1, 0, 4, CHUNK, 0, 1);
	op->op.space = 0;
	end(op);
	world_free(op);
	lease = world_lookup(1, 4);
	lease->space = world.spaces[1];
	world_release(lease);
	world_idle();
	store(3, 1); /* the tenant has four by now */
	assert_false(world_here(1, 3));
	check_and_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_done_goes_first),
		cmocka_unit_test(test_hint_reaches_what_is_not_leased),
		cmocka_unit_test(test_kept_stays),
		cmocka_unit_test(test_one_touch_a_request),
		cmocka_unit_test(test_hard_quota),
		cmocka_unit_test(test_soft_quota),
		cmocka_unit_test(test_claimed_when_used),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
