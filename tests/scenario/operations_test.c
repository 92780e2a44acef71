/* SPDX-License-Identifier: Apache-2.0
 *
 * CANCEL, OPERATIONS, and what STATUS shows of what is out. The device holds copies up for as long as the test says.
 */
#include "harness.h"
#include "actors/engine.h"
#include "actors/service.h"

#include "wire/tyer.pb-c.h"

#include <unistd.h>

static struct h_service service;

static const uint8_t engine[16] = {5};

/* A store of two chunks, sent, that `c` hears the answer of; its id. */
static uint64_t send_store(struct h_client *c, struct ty_mark ready)
{
	struct ty_transfer t = h_transfer(c, 1, 0, 2, 0);

	t.ready = ready;
	h_send(c, ty_client_store(c->client, &t, h_done, c, &c->refused));
	return ty_client_last_id(c->client);
}

static struct h_told wait_state(struct h_client *c, uint64_t id, enum ty_operation_state state)
{
	struct h_told told;

	do
		told = h_ask(c, id);
	while (!told.count || told.operation.state != state);
	return told;
}

/* CANCEL: of one that has not begun, at once; of one that has, as soon as it may; of one that is over or unknown, it says so. */
static void test_cancel(void **state)
{
	struct h_client c, other;
	struct h_told told;
	uint64_t id;

	(void)state;
	h_open(&service, &c, engine, "a", 0, 1);
	h_open(&service, &other, engine, "a", 0, 1);
	assert_int_equal(h_lookup(&c, 1, 100, 2), TY_OK);
	h_fill(&c, 100, 2, 0);
	id = send_store(&c, (struct ty_mark){9, 1}); /* never comes */
	told = wait_state(&other, id, TY_OPERATION_WAITING); /* it has its slots, and waits */
	assert_false(told.operation.answered);
	assert_true(told.operation.blocks_in_use); /* it may begin at any time */
	assert_int_equal(h_cancel(&other, id).count, 1); /* another client of the engine may */
	assert_int_equal(h_answer(&c), TY_CANCELLED);
	assert_false(c.last.blocks_in_use);
	wait_state(&c, id, TY_OPERATION_OVER);
	assert_int_equal(atomic_load(&service.service->eviction_stats.used_bytes), 0);
	assert_int_equal(h_cancel(&c, id).operation.state, TY_OPERATION_OVER);
	assert_int_equal(h_cancel(&c, 4711).count, 0);

	/* one that is under way: its own answer comes when its blocks are safe, whatever that answer is */
	*service.hold = H_HOLD_ALL;
	id = send_store(&c, (struct ty_mark){0, 0});
	wait_state(&other, id, TY_OPERATION_COPYING);
	assert_int_equal(h_cancel(&other, id).operation.state, TY_OPERATION_COPYING);
	for (int i = 0; i < 20; i++)
		ty_client_poll(c.client, 0, 1000);
	assert_false(h_answered(&c));
	*service.hold = H_GO;
	h_answer(&c);
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
	struct h_client c;
	uint64_t id;

	(void)state;
	h_open(&service, &c, engine, "a", 0, 1);
	assert_int_equal(h_lookup(&c, 1, 100, 2), TY_OK);
	id = send_store(&c, (struct ty_mark){9, 1});
	wait_state(&c, id, TY_OPERATION_WAITING);
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
	assert_int_equal(h_cancel(&c, id).count, 1);
	assert_int_equal(h_answer(&c), TY_CANCELLED);
	h_close(&c);
}

/* An engine remembers the last TY_FINISHED_OPERATIONS, and no more. */
static void test_history_is_bounded(void **state)
{
	struct h_client c;
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
	assert_int_equal(h_operations(&c), TY_FINISHED_OPERATIONS);
	assert_int_equal(h_ask(&c, first).count, 0);
	h_close(&c);
}

/* ---- what an engine has for as long as it likes ------------------------------------------------------------ */

/* Sessions of 100 chunks, until it hears BUSY. */
static uint32_t open_sessions(struct h_client *c)
{
	uint32_t count = 0;
	enum ty_code code;

	while ((code = h_lookup(c, count + 1, 100, 100)) == TY_OK)
		count++;
	h_expect(c, code, TY_BUSY, "chunks of at most");
	return count;
}

/* Pools of 64 KiB, until there may be no more. */
static uint32_t register_pools(struct h_client *c)
{
	struct ty_pool *pool = h_pool(c, 0, 1);
	struct ty_region region = pool->regions[0];
	struct ty_plane planes[H_PLANES];
	struct ty_group group = pool->groups[0];
	uint32_t count = 0;
	enum ty_code code;

	pool->regions = &region;
	pool->groups = &group;
	group.block_count = 16;
	group.planes = planes;
	for (uint32_t i = 0; i < H_PLANES; i++)
		planes[i] = (struct ty_plane){0, (uint64_t)i * 16 * H_RUN};
	region.length = 16 * H_PLANES * H_RUN;
	for (;;) {
		region.offset = count * region.length;
		code = h_wait(c, ty_client_register(c->client, pool, h_done, c, &c->refused));
		if (code != TY_OK)
			break;
		count++;
	}
	h_expect(c, code, TY_LIMIT, "bytes; ");
	return count;
}

static void gone(const struct ty_share *share)
{
	while (atomic_load(&share->used))
		usleep(1000);
}

/* Nobody takes all of it: one gets half, the next one a share of the rest, and what they had is there again when they are gone. */
static void test_all_that_there_is(void **state)
{
	struct ty_share *chunks = &service.service->session_chunks, *bytes = &service.service->pool_bytes;
	struct h_client a, b;

	(void)state;
	h_open(&service, &a, NULL, "a", 0, 1);
	h_open(&service, &b, NULL, "b", 0, 1);
	chunks->all = 1000;
	assert_int_equal(open_sessions(&a), 5);
	assert_int_equal(open_sessions(&b), 2);
	assert_int_equal(atomic_load(&chunks->used), 700);
	h_ok(&a, h_end(&a, 1)); /* and what ends makes room */
	h_ok(&b, h_lookup(&b, 9, 100, 100));
	h_ok(&a, h_lookup(&a, 2, 200, 50)); /* a session has what it had */
	h_close(&a);
	h_close(&b);
	gone(chunks);
	gone(bytes);
	h_open(&service, &a, NULL, "a", 0, 0);
	h_open(&service, &b, NULL, "b", 0, 0);
	bytes->all = 16 * 16 * H_PLANES * H_RUN;
	assert_int_equal(register_pools(&a), 8);
	assert_int_equal(register_pools(&b), 4);
	assert_int_equal(atomic_load(&bytes->used), 12 * 16 * H_PLANES * H_RUN);
	h_close(&a);
	h_close(&b);
	gone(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		H_TEST_HELD(test_cancel),
		H_TEST_HELD(test_status_shows_them),
		H_TEST_HELD(test_history_is_bounded),
		H_TEST(test_all_that_there_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
