/* SPDX-License-Identifier: Apache-2.0
 *
 * Namespaces from one owner of the slot table to the next: each keeps its number for as long as something is under it, and what is damaged
 * is not known.
 */
#include "adopt_house.h"

#include <stdio.h>
#include <string.h>

#include "cache/checksum.h"

static struct ty_spaces spaces;

static void open_spaces(void)
{
	uint32_t count;
	struct ty_space_record *records = ty_slots_spaces(slots, &count);

	memset(&spaces, 0, sizeof spaces);
	ty_spaces_open(&spaces, records, count);
}

static uint16_t number_of(const char *tenant)
{
	struct ty_identity identity;

	assert_ok(ty_identity_set(&identity, tenant, "model", NULL, "bf16", NULL, &err), &err);
	return ty_spaces_number(&spaces, &identity);
}

static void store_for(uint16_t space, uint64_t n)
{
	struct ty_key key = key_of(n);

	ty_slots_commit(slots, ty_slots_take(slots, 1 << 20, &key, 0, 1, space), 1);
}

static void assert_tenant(uint16_t number, const char *tenant)
{
	const struct ty_identity *identity = ty_spaces_identity(&spaces, number);

	if (!tenant) {
		assert_null(identity);
		return;
	}
	assert_non_null(identity);
	assert_string_equal(identity->tenant, tenant);
}

static struct ty_slots_found next_life(void)
{
	struct ty_slots_found found;

	assert_int_equal(hand_over(&found), TY_OK);
	ty_slots_add_piece(slots, 0);
	ty_slots_forget_found(slots);
	open_spaces();
	return found;
}

static void test_namespaces_come_back(void **state)
{
	(void)state;
	ty_slots_add_piece(slots, 0);
	open_spaces();
	assert_int_equal(number_of("first"), 1);
	assert_int_equal(number_of("second"), 2);
	assert_int_equal(number_of("third"), 3);
	assert_int_equal(number_of("first"), 1);
	store_for(1, 100);
	store_for(3, 300);
	assert_int_equal(next_life().nameless, 0);
	assert_tenant(1, "first");
	assert_tenant(2, NULL); /* nothing is its own: the number is free */
	assert_tenant(3, "third");
	assert_tenant(4, NULL);
	assert_int_equal(number_of("third"), 3);
	assert_int_equal(number_of("fourth"), 2);
	assert_int_equal(number_of("fifth"), 4);
	assert_int_equal(next_life().ready, 2);
	assert_int_equal(number_of("third"), 3);
}

/* What is damaged is not known, and its number is not given to somebody else, for as long as something is under it. */
static void test_a_damaged_namespace(void **state)
{
	struct ty_space_record *records;
	uint32_t count;

	(void)state;
	ty_slots_add_piece(slots, 0);
	open_spaces();
	for (uint64_t i = 1; i <= 5; i++) {
		char tenant[2] = {(char)('a' + i - 1), '\0'};

		assert_int_equal(number_of(tenant), i);
		if (i != 3)
			store_for((uint16_t)i, i * 100);
	}
	records = ty_slots_spaces(slots, &count);
	records[0].identity.tenant[0] ^= 1;
	records[2].identity.model[0] ^= 1;                      /* nothing is under it */
	memset(records[3].identity.tenant, 'x', 256);           /* a field without an end, under a check that fits */
	records[3].check = ty_checksum(&records[3].identity, sizeof records[3].identity);
	ty_space_clear(&records[4]);                            /* as if it had never been given */
	assert_int_equal(next_life().nameless, 3);
	assert_tenant(1, NULL);
	assert_tenant(2, "b");
	assert_tenant(4, NULL);
	assert_tenant(5, NULL);
	assert_int_equal(number_of("a"), 3);
	assert_int_equal(number_of("d"), 6);
	store_for(3, 1000);
	assert_int_equal(next_life().nameless, 3); /* and so in every life */
	assert_int_equal(number_of("a"), 3);
	assert_int_equal(number_of("d"), 6);
}

static void test_namespaces_are_limited(void **state)
{
	char tenant[16];

	(void)state;
	ty_slots_add_piece(slots, 0);
	open_spaces();
	for (unsigned i = 1; i <= TY_MAX_SPACES; i++) {
		snprintf(tenant, sizeof tenant, "tenant %u", i);
		assert_int_equal(number_of(tenant), i);
	}
	assert_int_equal(number_of("one more"), 0);
	store_for(TY_MAX_SPACES, 1);
	assert_int_equal(next_life().nameless, 0);
	assert_tenant(TY_MAX_SPACES, tenant);
	assert_int_equal(number_of("one more"), 1);
}

/* Another user has as many as are free, whatever it calls its tenants; what it has it keeps. */
static void test_namespaces_are_shared(void **state)
{
	const unsigned half = TY_MAX_SPACES / 2;
	struct ty_identity identity;
	char tenant[32];

	(void)state;
	open_spaces();
	for (unsigned i = 1; i <= half + 1; i++) {
		snprintf(tenant, sizeof tenant, "uid 5: %u", i);
		assert_int_equal(ty_identity_set(&identity, tenant, "m", NULL, "bf16", NULL, NULL), TY_OK);
		assert_int_equal(ty_spaces_number_of(&spaces, &identity, "uid 5: ", true), i <= half ? i : 0);
	}
	assert_int_equal(ty_identity_set(&identity, "uid 5: 1", "m", NULL, "bf16", NULL, NULL), TY_OK);
	assert_int_equal(ty_spaces_number_of(&spaces, &identity, "uid 5: ", true), 1);
	assert_int_equal(ty_identity_set(&identity, "uid 55: 1", "m", NULL, "bf16", NULL, NULL), TY_OK); /* somebody else */
	assert_int_equal(ty_spaces_number_of(&spaces, &identity, "uid 55: ", true), half + 1);
	assert_int_equal(number_of("ours"), half + 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_namespaces_come_back, open_both, close_both),
		cmocka_unit_test_setup_teardown(test_a_damaged_namespace, open_both, close_both),
		cmocka_unit_test_setup_teardown(test_namespaces_are_limited, open_both, close_both),
		cmocka_unit_test_setup_teardown(test_namespaces_are_shared, open_both, close_both),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
