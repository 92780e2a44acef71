/* SPDX-License-Identifier: Apache-2.0
 *
 * FLUSH goes through the flights once, in more than one message if they have many blocks, while others of them land.
 */
#include "house.h"

#define STORES 24 /* of 256 blocks: more than a FLUSH looks at in one message */
#define STORE_BLOCKS (H_OP_CHUNKS * H_PER_CHUNK)

static struct call *stores[STORES];
static struct ty_member *member;
static uint32_t pool;
static uint64_t first; /* op */

/* Store i has blocks [i * STORE_BLOCKS, ...) and is op first + i. */
static void begin(struct house *h)
{
	member = house_join(h);
	pool = house_have_pool(h, member, 0, "");
	assert_int_equal(house_end(h, house_lookup(h, member, 1, H_OP_CHUNKS)).code, TY_OK);
	for (uint32_t i = 0; i < STORES; i++)
		stores[i] = house_store(h, member, 1, pool, i * STORE_BLOCKS);
	house_run(h);
	assert_int_equal(h->op_count, STORES);
	first = h->ops[0]->id;
}

static void end(struct house *h)
{
	while (h->op_count)
		house_land(h, h->ops[0]->id);
	for (uint32_t i = 0; i < STORES; i++)
		assert_int_equal(house_end(h, stores[i]).code, TY_OK);
	house_leave(h, member);
	house_run(h);
	house_send_map(h, TY_OK);
}

/* It waits for the one that it names, and for no other. */
static void test_waits_for_its_own(void **state)
{
	struct house *h = *state;
	struct call *flush, *other, *none;

	begin(h);
	flush = house_flush(h, member, pool, 3, 1);
	other = house_flush(h, member, pool, (STORES - 1) * STORE_BLOCKS, 1);
	none = house_flush(h, member, pool, STORES * STORE_BLOCKS, 1);
	house_run(h);
	assert_int_equal(flush->answers + other->answers, 0);
	assert_int_equal(house_end(h, none).code, TY_OK);
	for (uint32_t i = 1; i < STORES - 1; i++)
		house_land(h, first + i);
	house_run(h);
	assert_int_equal(flush->answers + other->answers, 0);
	house_land(h, first);
	assert_int_equal(house_end(h, flush).code, TY_OK);
	assert_int_equal(other->answers, 0);
	house_land(h, first + STORES - 1);
	assert_int_equal(house_end(h, other).code, TY_OK);
	end(h);
}

/* Its place in the list goes, and all that would have been looked at next but the last. */
static void test_they_land_meanwhile(void **state)
{
	struct house *h = *state;

	for (uint32_t landed = 1; landed < STORES; landed += 3) {
		struct call *flush;

		begin(h);
		flush = house_flush(h, member, pool, 0, STORE_BLOCKS / 2);
		for (uint32_t i = landed; i >= 1; i--) /* before it looks again */
			house_land(h, first + i);
		house_run(h);
		assert_int_equal(flush->answers, 0);
		house_land(h, first);
		assert_int_equal(house_end(h, flush).code, TY_OK);
		end(h);
	}
}

/* Those that set out behind it are none of its. */
static void test_later_ones(void **state)
{
	struct house *h = *state;
	struct call *flush, *store;

	begin(h);
	flush = house_flush(h, member, pool, 0, 1);
	store = house_store(h, member, 1, pool, 0);
	house_run(h);
	house_land(h, first);
	assert_int_equal(house_end(h, flush).code, TY_OK);
	assert_int_equal(store->answers, 0);
	house_land(h, first + STORES);
	assert_int_equal(house_end(h, store).code, TY_OK);
	end(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_waits_for_its_own, house_open, house_close),
		cmocka_unit_test_setup_teardown(test_they_land_meanwhile, house_open, house_close),
		cmocka_unit_test_setup_teardown(test_later_ones, house_open, house_close),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
