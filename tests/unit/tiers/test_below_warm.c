/* SPDX-License-Identifier: Apache-2.0
 *
 * WARM: what comes up from below, and how much of it.
 */
#include "below_house.h"

#include <stdlib.h>

#include "actors/eviction_control.h"

static bool no_room_for_keys; /* that WARM remembers of a page */
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

void *__wrap_malloc(size_t size)
{
	return no_room_for_keys && size == EVICTION_AGAIN_MAX * sizeof(struct ty_key) ? NULL : __real_malloc(size);
}

static uint32_t here(uint32_t family)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < CHUNKS; i++)
		count += world_here(family, i);
	return count;
}

/* What that says, of so many. */
static void warm(void (*select)(void), uint32_t chunks)
{
	prepare(TYER__V1__REQUEST__VERB_WARM);
	select();
	ask();
	assert_int_equal(counts()->chunks, chunks);
	assert_int_equal(counts()->n_unsearched, 0);
	world_forget(&request);
}

static void of_a_namespace(void)
{
	static char tenant[] = "first", model[] = "model", dtype[] = "bf16";
	static char *tenants = tenant, *models = model, *dtypes = dtype;

	request.select.n_tenants = request.select.n_models = request.select.n_dtypes = 1;
	request.select.tenants = &tenants;
	request.select.models = &models;
	request.select.dtypes = &dtypes;
}

static void of_another_model(void)
{
	static char model[] = "another", *models = model;

	of_a_namespace();
	request.select.models = &models;
}

static void of_a_prefix_and_the_first(void)
{
	of_a_prefix(); /* the second's */
	of_a_namespace();
}

/* By the beginning of keys and by namespace: what both say, and nothing else. */
static void test_warm_what_is_selected(void **state)
{
	(void)state;
	open_world("fault:0", "fault:1");
	fill();
	warm(of_another_model, 0);
	warm(of_a_prefix_and_the_first, 0);
	assert_int_equal(here(0) + here(1), 0);
	warm(of_a_prefix, 1);
	assert_true(world_here(1, 7));
	assert_int_equal(here(0) + here(1), 1);
	warm(of_a_namespace, CHUNKS);
	assert_int_equal(here(0), CHUNKS);
	assert_int_equal(here(1), 1);
	world_check(3, CHUNKS);
	world_close();
}

/* By tenant, from the tier that has them; as much as the arena holds, and no more. */
static void test_warm(void **state)
{
	(void)state;
	open_world("fault:0", "fault:1");
	fill();
	prepare(TYER__V1__REQUEST__VERB_WARM);
	of_the_second();
	ask();
	assert_int_equal(counts()->chunks, CHUNKS);
	world_forget(&request);
	assert_int_equal(here(1), CHUNKS);
	assert_int_equal(here(0), 0);
	prepare(TYER__V1__REQUEST__VERB_WARM); /* by key it is as ever */
	world_name_keys(&request, 0, 3);
	ask();
	assert_int_equal(counts()->chunks, 3);
	world_forget(&request);
	assert_int_equal(here(0), 3);
	fault[0].fail = true; /* then the other one's */
	prepare(TYER__V1__REQUEST__VERB_WARM);
	world_name_tenant(&request, "first");
	ask();
	assert_int_equal(counts()->chunks, CHUNKS - 3);
	assert_int_equal(counts()->n_unsearched, 1);
	world_forget(&request);
	assert_int_equal(here(0), CHUNKS);
	world_check(3, CHUNKS);
	world_close();
}

/* Keys say all by themselves: who names a tenant beside them, or how they begin, is not brought what is another's. */
static void test_warm_keys_and_more(void **state)
{
	(void)state;
	open_world("fault:0", "fault:1");
	fill();
	for (int i = 0; i < 2; i++) {
		prepare(TYER__V1__REQUEST__VERB_WARM);
		world_name_keys(&request, 0, 3);
		if (i == 0)
			of_the_second();
		else
			of_a_prefix();
		ask();
		assert_int_equal(request.x.code, TY_INVALID);
		assert_non_null(strstr(request.x.error.text, "expected them alone"));
		world_forget(&request);
		assert_int_equal(here(0), 0);
	}
	world_close();
}

/* Nothing comes up where there is no memory to remember what would, and that is told, of each tier. */
static void test_warm_without_memory(void **state)
{
	(void)state;
	open_world("fault:0", "fault:1");
	fill();
	no_room_for_keys = true;
	prepare(TYER__V1__REQUEST__VERB_WARM);
	of_the_second();
	ask();
	no_room_for_keys = false;
	assert_int_equal(counts()->chunks, 0);
	assert_int_equal(counts()->n_unsearched, 2);
	assert_int_equal(counts()->unsearched[0]->code, TY_NO_MEMORY);
	assert_string_equal(counts()->unsearched[0]->error, "no memory for the keys of a page");
	world_forget(&request);
	warm(of_a_prefix, 1);
	world_close();
}

/* More lies below than the arena holds: it ends. And beside a tier that hangs in the middle of it, in time. */
static void test_warm_too_much(void **state)
{
	uint64_t families = 2 * TY_PIECE_BYTES / (CHUNKS * MIB) + 1, all = families * CHUNKS;

	(void)state;
	open_world("fault:0", NULL);
	for (uint32_t family = 0; family < families; family++) {
		assert_int_equal(world_store_now(2 * family, 0, CHUNKS, MIB), TY_OK);
		world_pass(SECOND);
	}
	assert_int_equal(world_stat(&world.service->tiers[0]->stats.chunks), all);
	prepare(TYER__V1__REQUEST__VERB_WARM);
	world_name_tenant(&request, "first");
	ask();
	assert_in_range(counts()->chunks, TY_PIECE_BYTES / MIB / 2, all - 1);
	assert_in_range(counts()->bytes, TY_PIECE_BYTES, TY_PIECE_BYTES + 256 * MIB);
	world_forget(&request);
	prepare(TYER__V1__REQUEST__VERB_CLEAR);
	request.select.place = TYER__V1__PLACE__ARENA;
	ask();
	world_forget(&request);
	fault[0].delay_ns = SECOND / 100;
	prepare(TYER__V1__REQUEST__VERB_WARM);
	world_name_tenant(&request, "first");
	world_ask(&request, request.q.verb_case);
	while (!request.back && !world_stat(&world.service->prefetch_stats.in_flight))
		world_steps(1);
	assert_false(request.back);
	fault[0].hang = true;
	for (int i = 0; i < 10000 && !request.back; i++)
		world_pass(SECOND / 1000);
	assert_true(request.back);
	assert_true(request.x.code == TY_TIMEOUT || counts()->n_unsearched == 1);
	world_forget(&request);
	fault[0].hang = false;
	fault_let(world.service->tiers[0]);
	world_pass(SECOND);
	prepare(TYER__V1__REQUEST__VERB_WARM);
	refused("select: is empty");
	world_close();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_warm),
		cmocka_unit_test(test_warm_what_is_selected),
		cmocka_unit_test(test_warm_too_much),
		cmocka_unit_test(test_warm_without_memory),
		cmocka_unit_test(test_warm_keys_and_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
