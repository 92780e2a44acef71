/* SPDX-License-Identifier: Apache-2.0
 *
 * A retrieve whose completion is lost, an operation that is late, one that nobody wants any more: what its client can find out,
 * also after it came back (LMCache 4759, 4516, 4517: requests that park for ever, blocks reused under a copy).
 */
#include "harness.h"
#include "actors/engine.h"
#include "actors/service.h"

#include <stdio.h>
#include <string.h>

#include "wire/tyer.pb-c.h"

#define DELAY "1500000" /* us: every copy takes so long */
#define SOON 200000     /* us */

static struct h_service service;

static int setup(void **state)
{
	(void)state;
	h_prepare(&service);
	snprintf(service.config.device[0], sizeof service.config.device[0], "host:delay-us=%s", DELAY);
	h_start(&service);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	h_stop(&service);
	return 0;
}

/* The one operation that a reply tells of; `count` says how many there were. */
struct told {
	struct ty_operation operation;
	uint32_t count;
	enum ty_code code;
	bool there;
};

static void on_told(void *user, const struct ty_result *result)
{
	struct told *t = user;

	t->there = true;
	t->code = result->code;
	t->count = result->code == TY_OK ? result->operations.count : 0;
	if (t->count)
		t->operation = result->operations.list[0];
}

static struct told wait_told(struct h_client *c, struct told *t, enum ty_code sent)
{
	assert_int_equal(sent, TY_OK);
	while (!t->there)
		ty_client_poll(c->client, 0, 100000);
	assert_int_equal(t->code, TY_OK);
	return *t;
}

static struct told ask(struct h_client *c, uint64_t id)
{
	struct told t = {.there = false};

	return wait_told(c, &t, ty_client_operations(c->client, &id, 1, on_told, &t, NULL));
}

static struct told cancel(struct h_client *c, uint64_t id)
{
	struct told t = {.there = false};

	return wait_told(c, &t, ty_client_cancel(c->client, id, on_told, &t, NULL));
}

static const uint8_t engine[16] = {5};

/* A client of `engine` whose requests have `timeout_us`. */
static void open_with(struct h_client *c, uint32_t timeout_us, bool pool)
{
	struct ty_client_options o = {.size = sizeof o, .url = service.url, .attach_path = service.config.attach, .model = "m",
		.revision = "1", .dtype = "bf16", .tenant = "a", .timeout_us = timeout_us};

	if (!c->pool)
		h_open(&service, c, engine, "a", 0, 0);
	ty_client_close(c->client);
	memcpy(o.engine, engine, sizeof engine);
	assert_int_equal(ty_client_open(&o, &c->client, NULL), TY_OK);
	if (!pool)
		return;
	while (h_wait(c, ty_client_register(c->client, h_pool(c, 0, 1), h_done, c, &c->refused)) == TY_TIMEOUT)
		; /* a slow machine */
	assert_int_equal(c->last.code, TY_OK);
	c->registration = c->last.registered.registration;
}

static struct ty_transfer *transfer(struct h_client *c)
{
	static const uint32_t ids[2 * H_PER_CHUNK] = {0, 1, 2, 3, 8, 9, 10, 11}, *const lists[1] = {ids};
	static const uint32_t count = 2 * H_PER_CHUNK;
	static struct ty_transfer t;

	t = (struct ty_transfer){.session = 1, .registration = c->registration, .count = 2, .blocks = lists, .block_counts = &count,
		.group_count = 1};
	return &t;
}

static struct ty_op_table *table(void)
{
	return &service.service->operations;
}

static uint32_t out(void)
{
	return atomic_load(&table()->used);
}

/* The deadline passes while the copy is under way: the answer is early and says so, the row stays with all that it holds, a second
 * client may ask, and so may the first one when it has come back with another connection and another number. */
static void test_lost_completion(void **state)
{
	struct h_client c = {0}, other = {0};
	struct ty_op_seen seen;
	struct told t;
	uint64_t store, retrieve;

	(void)state;
	open_with(&other, 0, true);
	open_with(&c, SOON, true);
	h_fill(&c, 100, 2, 0);
	assert_int_equal(h_lookup(&c, 1, 100, 2), TY_OK);
	assert_int_equal(h_wait(&c, ty_client_store(c.client, transfer(&c), h_done, &c, &c.refused)), TY_TIMEOUT);
	store = ty_client_last_id(c.client);
	t = ask(&other, store);
	assert_int_equal(t.count, 1);
	assert_true(t.operation.store);
	assert_int_equal(t.operation.id, store);
	assert_int_equal(t.operation.session, 1);
	assert_int_equal(t.operation.chunks, 2);
	if (t.operation.state != TY_OPERATION_OVER) { /* a machine so slow that it is over by now has nothing to show here */
		assert_true(t.operation.answered);
		assert_int_equal(t.operation.answer, TY_TIMEOUT);
		assert_true(ty_op_table_see(table(), 0, &seen));
		assert_int_equal(seen.id, store);
		assert_true(seen.answered);
		assert_false(seen.retrieve);
		assert_int_equal(atomic_load(&table()->used_bytes), 2 * H_CHUNK_BYTES);
	}

	/* the client comes back: new connection, new number, the same engine, and what it asks for by its own id */
	open_with(&c, 0, false);
	while ((t = ask(&c, store)).operation.state != TY_OPERATION_OVER)
		assert_int_equal(t.count, 1);
	assert_false(t.operation.blocks_in_use);
	assert_int_equal(t.operation.answer, TY_TIMEOUT);
	/* the copy had begun, so the store went through, although its client heard that it was late */
	if (t.operation.code == TY_OK)
		assert_int_equal(t.operation.stored, 2);
	else
		assert_true(t.operation.code == TY_CANCELLED || t.operation.code == TY_TIMEOUT);
	assert_int_equal(out(), 0);
	assert_int_equal(atomic_load(&table()->used_bytes), 0);

	/* the same for a retrieve whose client is killed, and comes back when it is over */
	open_with(&c, 0, true);
	assert_int_equal(h_lookup(&other, 2, 500, 2), TY_OK);
	h_fill(&other, 500, 2, 0);
	assert_int_equal(h_store(&other, 2, 0, 2, 0), TY_OK);
	assert_int_equal(h_lookup(&c, 1, 500, 2), TY_OK);
	assert_int_equal(c.last.lookup.hits, 2);
	assert_int_equal(ty_client_retrieve(c.client, transfer(&c), h_done, &c, &c.refused), TY_OK);
	retrieve = ty_client_last_id(c.client);
	while (ask(&other, retrieve).count == 0) /* it has reached the engine */
		;
	h_close(&c);
	h_close(&other); /* nobody of the engine is left */
	memset(&c, 0, sizeof c);
	open_with(&c, 0, false);
	while ((t = ask(&c, retrieve)).operation.state != TY_OPERATION_OVER)
		assert_int_equal(t.count, 1);
	assert_int_equal(t.operation.id, retrieve);
	assert_false(t.operation.store);
	assert_int_equal(ask(&c, store).operation.id, store);
	assert_int_equal(ask(&c, 12345).count, 0);
	h_close(&c);
}

/* Slots and blocks of a late store are its own until its copy is over: nobody gets them meanwhile, and its credit is not given out. */
static void test_quarantine(void **state)
{
	struct ty_eviction_stats *stats = &service.service->eviction_stats;
	struct h_client c = {0}, patient = {0};
	struct told t;
	uint64_t id;

	(void)state;
	open_with(&patient, 0, true);
	open_with(&c, SOON, true);
	h_fill(&c, 100, 2, 0);
	assert_int_equal(h_lookup(&c, 1, 100, 2), TY_OK);
	assert_int_equal(h_wait(&c, ty_client_store(c.client, transfer(&c), h_done, &c, &c.refused)), TY_TIMEOUT);
	id = ty_client_last_id(c.client);
	h_close(&c); /* and its client goes too: the mapping must stay */
	t = ask(&patient, id);
	assert_int_equal(t.count, 1);
	if (t.operation.state == TY_OPERATION_COPYING) {
		assert_int_equal(out(), 1);
		assert_int_equal(atomic_load(&service.service->gpu_stats[0].mappings), 2);
		assert_int_equal(atomic_load(&stats->used_bytes), 2 * H_CHUNK_BYTES); /* reserved, and not visible */
		assert_int_equal(atomic_load(&stats->chunks), 0);
	}
	while (ask(&patient, id).operation.state != TY_OPERATION_OVER)
		;
	assert_int_equal(out(), 0);
	while (atomic_load(&service.service->gpu_stats[0].mappings) != 1) /* then the mapping goes, by itself */
		ty_client_poll(patient.client, 0, 1000);
	assert_int_equal(atomic_load(&stats->used_bytes), atomic_load(&stats->chunks) * H_CHUNK_BYTES);
	h_close(&patient);
}

/* CANCEL: of one that has not begun, at once; of one that has, as soon as it may; of one that is over or unknown, it says so. */
static void test_cancel(void **state)
{
	struct h_client c = {0}, other = {0};
	struct ty_transfer *t;
	struct told told;
	uint64_t id;

	(void)state;
	open_with(&c, 0, true);
	open_with(&other, 0, true);
	assert_int_equal(h_lookup(&c, 1, 100, 2), TY_OK);
	h_fill(&c, 100, 2, 0);
	t = transfer(&c);
	t->ready = (struct ty_mark){9, 1}; /* never comes */
	c.last.code = TY_INTERNAL;
	assert_int_equal(ty_client_store(c.client, t, h_done, &c, &c.refused), TY_OK);
	id = ty_client_last_id(c.client);
	do
		told = ask(&other, id);
	while (told.operation.state != TY_OPERATION_WAITING); /* it has its slots, and waits */
	assert_int_equal(told.operation.answered, false);
	assert_true(told.operation.blocks_in_use); /* it may begin at any time */
	told = cancel(&other, id); /* another client of the engine may */
	assert_int_equal(told.count, 1);
	while (c.last.code == TY_INTERNAL)
		ty_client_poll(c.client, 0, 100000);
	assert_int_equal(c.last.code, TY_CANCELLED);
	assert_false(c.last.blocks_in_use);
	while (ask(&c, id).operation.state != TY_OPERATION_OVER)
		;
	assert_int_equal(atomic_load(&service.service->eviction_stats.used_bytes), 0);
	assert_int_equal(cancel(&c, id).operation.state, TY_OPERATION_OVER);
	assert_int_equal(cancel(&c, 4711).count, 0);

	/* one that is under way: its own answer comes when its blocks are safe, whatever that answer is */
	t->ready = (struct ty_mark){0, 0};
	c.last.code = TY_INTERNAL;
	assert_int_equal(ty_client_store(c.client, t, h_done, &c, &c.refused), TY_OK);
	id = ty_client_last_id(c.client);
	do
		told = ask(&other, id);
	while (told.operation.state < TY_OPERATION_COPYING);
	cancel(&other, id);
	while (c.last.code == TY_INTERNAL)
		ty_client_poll(c.client, 0, 100000);
	assert_true(c.last.code == TY_CANCELLED || c.last.code == TY_OK);
	assert_false(c.last.blocks_in_use);
	h_close(&other);
	h_close(&c);
}

/* STATUS shows every operation that is out: of which client, doing what, for how long. */
static void on_status(void *user, const struct ty_result *result)
{
	Tyer__V1__StatusReply **out_reply = user;

	*out_reply = tyer__v1__status_reply__unpack(NULL, result->status.length, result->status.bytes);
}

static void test_status_shows_them(void **state)
{
	Tyer__V1__StatusReply *status = NULL;
	struct h_client c = {0};
	struct ty_transfer *t;
	uint64_t id;

	(void)state;
	open_with(&c, 0, true);
	assert_int_equal(h_lookup(&c, 1, 100, 2), TY_OK);
	t = transfer(&c);
	t->ready = (struct ty_mark){9, 1};
	c.last.code = TY_INTERNAL;
	assert_int_equal(ty_client_store(c.client, t, h_done, &c, &c.refused), TY_OK);
	id = ty_client_last_id(c.client);
	while (ask(&c, id).operation.state != TY_OPERATION_WAITING)
		;
	assert_int_equal(ty_client_status(c.client, on_status, &status, NULL), TY_OK);
	while (!status)
		ty_client_poll(c.client, 0, 100000);
	assert_int_equal(status->n_operations, 1);
	assert_int_equal(status->operations[0]->id, id);
	assert_int_equal(status->operations[0]->client, ty_client_info(c.client)->client);
	assert_int_equal(status->operations[0]->session, 1);
	assert_int_equal(status->operations[0]->verb, TYER__V1__REQUEST__VERB_STORE);
	assert_int_equal(status->operations[0]->state, TYER__V1__OPERATION_STATE__WAITING);
	assert_string_equal(status->operations[0]->device, "host");
	tyer__v1__status_reply__free_unpacked(status, NULL);
	assert_int_equal(cancel(&c, id).count, 1);
	h_close(&c);
}

/* An engine remembers the last TY_FINISHED_OPERATIONS, and no more. */
static void test_history_is_bounded(void **state)
{
	struct told all = {.there = false};
	struct h_client c = {0};
	uint64_t first = 0;

	(void)state;
	h_open(&service, &c, engine, "a", 0, 1);
	assert_int_equal(h_lookup(&c, 1, 100, 2), TY_OK);
	h_fill(&c, 100, 2, 0);
	assert_int_equal(h_store(&c, 1, 0, 2, 0), TY_OK);
	for (uint32_t i = 0; i < TY_FINISHED_OPERATIONS + 10; i++) { /* what is there already is not copied */
		assert_int_equal(h_store(&c, 1, 0, 2, 0), TY_OK);
		first = first ? first : ty_client_last_id(c.client);
	}
	wait_told(&c, &all, ty_client_operations(c.client, NULL, 0, on_told, &all, NULL));
	assert_int_equal(all.count, TY_FINISHED_OPERATIONS);
	assert_int_equal(ask(&c, first).count, 0);
	h_close(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_lost_completion, setup, teardown),
		cmocka_unit_test_setup_teardown(test_quarantine, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
		cmocka_unit_test_setup_teardown(test_status_shows_them, setup, teardown),
		cmocka_unit_test_setup_teardown(test_history_is_bounded, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
