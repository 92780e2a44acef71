/* SPDX-License-Identifier: Apache-2.0
 *
 * What lies on top of a policy: head starts, conversations, quotas, and entries that are out of the way for a while.
 */
#include "check.h"

#include "cache/order.h"

enum { COUNT = 64 };
#define SECOND 16u /* in an entry's time */

static struct ty_order *order;
static struct ty_entry entries[COUNT];

static struct ty_use use_of(uint32_t i, uint32_t second, uint8_t band, uint32_t owner)
{
	return (struct ty_use){.id = i, .now = second * SECOND, .owner = owner, .band = band};
}

static void add(uint32_t i, uint32_t domain, uint32_t second, uint8_t band, uint32_t owner)
{
	struct ty_use use = use_of(i, second, band, owner);

	entries[i] = (struct ty_entry){0};
	ty_order_add(order, &entries[i], domain);
	ty_order_put(order, &entries[i], TY_REENTER_YOUNG, &use);
	ty_order_charge(order, domain, 100, 0);
}

static void used(uint32_t i, uint32_t second, uint8_t band, uint32_t owner)
{
	struct ty_use use = use_of(i, second, band, owner);

	ty_order_used(order, &entries[i], &use);
}

static void gone(uint32_t i)
{
	ty_order_charge(order, entries[i].domain, 0, 100);
	ty_order_gone(order, &entries[i], i, true);
}

static int64_t next(void)
{
	struct ty_entry *entry = ty_order_victim(order, TY_ANY_DOMAIN);

	return entry ? entry - entries : -1;
}

static void expect(const int64_t *want, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(next(), want[i]);
		gone((uint32_t)want[i]);
	}
	assert_int_equal(next(), -1);
}

#define EXPECT(...) expect((int64_t[]){__VA_ARGS__}, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

static void open_order(const struct ty_quota *quotas, uint32_t count)
{
	order = ty_order_create(&ty_policy_lru, quotas, count, 10000);
	assert_non_null(order);
}

static void test_priorities_decay(void **state)
{
	(void)state;
	open_order(NULL, 0);
	add(0, 0, 0, TY_BAND_RAISED, 0);     /* as if used at 15 s */
	add(1, 0, 0, TY_BAND_RAISED + 3, 0); /* at 120 s */
	add(2, 0, 10, TY_BAND_AS_IT_IS, 0);
	add(3, 0, 20, TY_BAND_AS_IT_IS, 0);
	add(4, 0, 119, TY_BAND_AS_IT_IS, 0);
	add(5, 0, 121, TY_BAND_AS_IT_IS, 0);
	add(6, 0, 200, TY_BAND_DONE, 0);
	EXPECT(6, 2, 0, 3, 4, 1, 5);
	ty_order_destroy(order);
	assert_int_equal(ty_order_band_for(0), TY_BAND_RAISED);
	assert_int_equal(ty_order_band_for(15), TY_BAND_RAISED);
	assert_int_equal(ty_order_band_for(16), TY_BAND_RAISED + 1);
	assert_int_equal(ty_order_band_for(480), TY_BAND_ALIVE);
	assert_int_equal(ty_order_band_for(TY_KEEP_MAX_S), TY_BAND_KEPT - 1);
	assert_int_equal(ty_order_band_for(UINT64_MAX), TY_BAND_KEPT - 1);
}

static void test_done_spares_what_others_use(void **state)
{
	(void)state;
	open_order(NULL, 0);
	add(0, 0, 0, TY_BAND_AS_IT_IS, 7); /* a prompt's head, which another conversation uses too */
	add(1, 0, 0, TY_BAND_AS_IT_IS, 7);
	add(2, 0, 0, TY_BAND_ALIVE, 7);
	used(0, 1, TY_BAND_ALIVE, 8);
	add(3, 0, 2, TY_BAND_AS_IT_IS, 8);
	for (uint32_t i = 0; i < 3; i++)
		used(i, 3, TY_BAND_DONE, 7);
	assert_int_equal(entries[0].owner, TY_MANY_OWNERS);
	EXPECT(1, 2, 3, 0);
	ty_order_destroy(order);

	open_order(NULL, 0);
	add(0, 0, 0, TY_BAND_DONE, 7); /* done, and used again all the same */
	add(1, 0, 1, TY_BAND_DONE, 7);
	add(2, 0, 2, TY_BAND_AS_IT_IS, 7);
	used(0, 3, TY_BAND_AS_IT_IS, 7);
	EXPECT(1, 2, 0);
	ty_order_destroy(order);
}

static void test_hint_is_no_use(void **state)
{
	struct ty_use use = use_of(0, 9, TY_BAND_AS_IT_IS, 1);

	(void)state;
	open_order(NULL, 0);
	add(0, 0, 0, TY_BAND_AS_IT_IS, 1);
	add(1, 0, 1, TY_BAND_AS_IT_IS, 1);
	ty_order_hint(order, &entries[0], &use);
	assert_int_equal(next(), 0);
	use.band = TY_BAND_ALIVE;
	ty_order_hint(order, &entries[0], &use);
	assert_int_equal(next(), 1);
	use.band = TY_BAND_RAISED; /* less than it has */
	ty_order_hint(order, &entries[0], &use);
	assert_int_equal(entries[0].band, TY_BAND_ALIVE);
	EXPECT(1, 0);
	ty_order_destroy(order);
}

static void test_out_of_the_way(void **state)
{
	struct ty_use use = use_of(0, 50, TY_BAND_AS_IT_IS, 0);

	(void)state;
	open_order(NULL, 0);
	for (uint32_t i = 0; i < 6; i++)
		add(i, 0, i, i == 4 ? TY_BAND_RAISED : TY_BAND_AS_IT_IS, 0);
	ty_order_set_aside(order, &entries[0]);
	ty_order_set_aside(order, &entries[1]);
	ty_order_park(order, &entries[2]);
	assert_int_equal(next(), 3);
	ty_order_set_aside(order, &entries[3]);
	gone(1); /* with others of its piece */
	assert_ptr_equal(ty_order_parked(order), &entries[2]);
	ty_order_end_search(order);
	assert_int_equal(next(), 0); /* where it was */
	ty_order_take_out(order, &entries[0]);
	ty_order_put(order, &entries[0], TY_REENTER_YOUNG, &use);
	used(2, 60, TY_BAND_AS_IT_IS, 0); /* parked: that brings it back */
	assert_null(ty_order_parked(order));
	ty_order_keep(order, &entries[3], 3, 61, true);
	assert_int_equal(next(), 5);
	ty_order_keep(order, &entries[3], 3, 70, false);
	EXPECT(5, 4, 0, 2, 3);
	ty_order_destroy(order);
}

static void test_quotas(void **state)
{
	static const struct ty_quota quotas[] = {{.soft = 300, .hard = 500}, {.soft = 200, .hard = 0}};

	(void)state;
	open_order(quotas, 2); /* the others' share: 9500 */
	for (uint32_t i = 0; i < 4; i++)
		add(i, 1, i, TY_BAND_AS_IT_IS, 0);
	for (uint32_t i = 4; i < 7; i++)
		add(i, 2, i, TY_BAND_AS_IT_IS, 0);
	add(7, 0, 0, TY_BAND_DONE, 0);
	assert_false(ty_order_exceeds(order, 1, 100));
	assert_true(ty_order_exceeds(order, 1, 101));
	assert_true(ty_order_exceeds(order, 1, UINT64_MAX));
	assert_false(ty_order_exceeds(order, 2, UINT64_MAX));
	assert_ptr_equal(ty_order_victim(order, 2), &entries[4]);
	/* both are 100 above: the first of them; then the other; then who is nearest to its soft quota */
	assert_int_equal(next(), 0);
	gone(0);
	assert_int_equal(next(), 4);
	gone(4);
	assert_int_equal(ty_order_charged(order, 1), 300);
	assert_int_equal(next(), 1);
	gone(1);
	assert_int_equal(next(), 5);
	gone(5);
	EXPECT(2, 6, 3, 7);
	ty_order_destroy(order);
}

static uint32_t visit(void *user, struct ty_entry *entry, uint64_t *id, uint64_t *bytes)
{
	(void)user;
	*id = (uint64_t)(entry - entries);
	*bytes = 100;
	return entry - entries == 3 ? 1 : 0;
}

/* To every policy from every other: what was to go first still goes first. */
static void test_move_all(void **state)
{
	static const struct ty_quota quota = {.soft = 0, .hard = 900};

	(void)state;
	for (size_t from = 0; ty_policies[from]; from++) {
		for (size_t to = 0; ty_policies[to]; to++) {
			struct ty_order *before = order = ty_order_create(ty_policies[from], NULL, 0, 10000);
			struct ty_use use = use_of(5, 20, TY_BAND_AS_IT_IS, 0);

			for (uint32_t i = 0; i < 8; i++)
				add(i, 0, i, i == 7 ? TY_BAND_ALIVE : i == 6 ? TY_BAND_DONE : TY_BAND_AS_IT_IS, 0);
			ty_order_keep(order, &entries[0], 0, 9, true);
			ty_order_park(order, &entries[4]);
			ty_order_take_out(order, &entries[5]);
			ty_order_set_aside(order, &entries[1]);
			order = ty_order_create(ty_policies[to], &quota, 1, 10000);
			ty_order_move_all(before, order, visit, NULL);
			assert_null(ty_order_victim(before, TY_ANY_DOMAIN));
			ty_order_destroy(before);
			assert_string_equal(ty_order_policy(order), ty_policies[to]->name);
			assert_int_equal(ty_order_charged(order, 0), 700);
			assert_int_equal(ty_order_charged(order, 1), 100);
			assert_ptr_equal(ty_order_parked(order), &entries[4]);
			ty_order_put(order, &entries[5], TY_REENTER_YOUNG, &use);
			assert_int_equal(entries[5].list != 0, 1);
			assert_int_equal(next(), 3); /* above its soft quota */
			gone(3);
			EXPECT(6, 1, 2, 5, 7);
			gone(4);
			gone(0); /* kept: never a victim */
			ty_order_destroy(order);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_priorities_decay),
		cmocka_unit_test(test_done_spares_what_others_use),
		cmocka_unit_test(test_hint_is_no_use),
		cmocka_unit_test(test_out_of_the_way),
		cmocka_unit_test(test_quotas),
		cmocka_unit_test(test_move_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
