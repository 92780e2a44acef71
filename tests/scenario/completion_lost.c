/* SPDX-License-Identifier: Apache-2.0
 *
 * A completion that is lost, or comes too late (LMCache 4759: a retrieve parked until a watchdog came; 4516: an hour and a half's
 * stall of a healthy server; 4517: blocks reused under a copy). Its client is answered by its deadline, and finds out what became
 * of the operation, also after it came back; until the copy is over nobody gets what the operation holds.
 */
#include "harness.h"
#include "actors/service.h"

#define SOON 100000 /* us */

static struct h_service service;
static const uint8_t engine[16] = {5};

static uint64_t out(void)
{
	return atomic_load(&service.service->operations.used);
}

static struct h_told wait_over(struct h_client *c, uint64_t id)
{
	struct h_told told;

	while ((told = h_ask(c, id)).operation.state != TY_OPERATION_OVER)
		assert_int_equal(told.count, 1);
	return told;
}

/* A store of `c` that hears TIMEOUT while its copy is held up; its id. On a slow machine it may be late before it begins: then it
 * never does, and there is another one. */
static uint64_t store_late(struct h_client *c, struct h_client *other)
{
	struct h_told told;
	uint64_t id;

	*service.hold = H_HOLD_ALL;
	assert_int_equal(h_lookup(c, 1, 100, 2), TY_OK);
	h_fill(c, 100, 2, 0);
	assert_int_equal(ty_client_set_timeout(c->client, SOON, &c->refused), TY_OK);
	do {
		assert_int_equal(h_store(c, 1, 0, 2, 0), TY_TIMEOUT);
		id = ty_client_last_id(c->client);
		do
			told = h_ask(other, id);
		while (told.count && told.operation.state < TY_OPERATION_COPYING);
	} while (!told.count || told.operation.state != TY_OPERATION_COPYING);
	assert_true(c->last.blocks_in_use);
	return id;
}

/* The answer is early and says so, the row stays with all that it holds, a second client may ask, and so may the first one when it
 * has come back with another connection and another number. */
static void test_store(void **state)
{
	struct h_client c, other;
	struct ty_op_seen seen;
	uint32_t row = 0;
	struct h_told told;
	uint64_t store;

	(void)state;
	h_open(&service, &other, engine, "a", 0, 1);
	h_open(&service, &c, engine, "a", 0, 1);
	store = store_late(&c, &other);
	told = h_ask(&other, store);
	assert_true(told.operation.store && told.operation.answered && told.operation.blocks_in_use);
	assert_int_equal(told.operation.id, store);
	assert_int_equal(told.operation.session, 1);
	assert_int_equal(told.operation.chunks, 2);
	assert_int_equal(told.operation.answer, TY_TIMEOUT);
	assert_int_equal(out(), 1);
	while (!ty_op_table_see(&service.service->operations, row, &seen))
		row++;
	assert_int_equal(seen.id, store);
	assert_true(seen.answered && !seen.retrieve);
	assert_int_equal(atomic_load(&service.service->operations.used_bytes), 2 * H_CHUNK_BYTES);

	h_close(&c);
	h_open(&service, &c, engine, "a", 0, 0);
	assert_int_equal(h_ask(&c, store).operation.state, TY_OPERATION_COPYING);
	*service.hold = H_GO;
	told = wait_over(&c, store);
	assert_false(told.operation.blocks_in_use);
	assert_int_equal(told.operation.answer, TY_TIMEOUT);
	/* the copy had begun, so the store went through, unless it was told to stop between two pieces */
	if (told.operation.code == TY_OK)
		assert_int_equal(told.operation.stored, 2);
	else
		assert_true(told.operation.code == TY_CANCELLED || told.operation.code == TY_TIMEOUT);
	h_idle(&service, false);
	h_close(&c);
	h_close(&other);
}

/* The same of a retrieve whose whole engine goes, and comes back. */
static void test_retrieve(void **state)
{
	struct h_client c, other;
	struct ty_transfer t;
	struct h_told told;
	uint64_t retrieve;

	(void)state;
	h_open(&service, &other, engine, "a", 0, 1);
	h_open(&service, &c, engine, "a", 0, 1);
	assert_int_equal(h_lookup(&other, 2, 500, 2), TY_OK);
	h_fill(&other, 500, 2, 0);
	assert_int_equal(h_store(&other, 2, 0, 2, 0), TY_OK);
	assert_int_equal(h_lookup(&c, 1, 500, 2), TY_OK);
	assert_int_equal(c.last.lookup.hits, 2);
	*service.hold = H_HOLD_DONE;
	t = h_transfer(&c, 1, 0, 2, 0);
	h_send(&c, ty_client_retrieve(c.client, &t, h_done, &c, &c.refused));
	retrieve = ty_client_last_id(c.client);
	while (h_ask(&other, retrieve).operation.state != TY_OPERATION_COPYING)
		;
	h_close(&c);
	h_close(&other);
	h_open(&service, &c, engine, "a", 0, 0);
	assert_int_equal(h_ask(&c, retrieve).operation.state, TY_OPERATION_COPYING);
	*service.hold = H_GO;
	told = wait_over(&c, retrieve);
	assert_int_equal(told.operation.id, retrieve);
	assert_false(told.operation.store);
	assert_int_equal(h_ask(&c, 12345).count, 0);
	h_close(&c);
}

/* Slots and blocks of a late store are its own until its copy is over: nobody gets them meanwhile, its credit is not given out, and
 * the mapping stays, also when its client has gone. */
static void test_quarantine(void **state)
{
	struct ty_eviction_stats *stats = &service.service->eviction_stats;
	struct h_client c, patient;
	uint64_t id;

	(void)state;
	h_open(&service, &patient, engine, "a", 0, 1);
	h_open(&service, &c, engine, "a", 0, 1);
	id = store_late(&c, &patient);
	h_close(&c);
	assert_int_equal(h_ask(&patient, id).operation.state, TY_OPERATION_COPYING);
	assert_int_equal(out(), 1);
	assert_int_equal(atomic_load(&service.service->gpu_stats[0].mappings), 2);
	assert_int_equal(atomic_load(&stats->used_bytes), 2 * H_CHUNK_BYTES); /* reserved, and not visible */
	assert_int_equal(atomic_load(&stats->chunks), 0);
	*service.hold = H_GO;
	wait_over(&patient, id);
	assert_int_equal(out(), 0);
	while (atomic_load(&service.service->gpu_stats[0].mappings) != 1) /* then the mapping goes, by itself */
		ty_client_poll(patient.client, 0, 1000);
	assert_int_equal(atomic_load(&stats->used_bytes), atomic_load(&stats->chunks) * H_CHUNK_BYTES);
	h_close(&patient);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		H_TEST_HELD(test_store),
		H_TEST_HELD(test_retrieve),
		H_TEST_HELD(test_quarantine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
