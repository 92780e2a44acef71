/* SPDX-License-Identifier: Apache-2.0
 *
 * An engine preempts and gives a store's blocks to somebody else (LMCache 4612, 4955, 4822, 5248: the store read what was in them
 * then, and wrong bytes were cached). When may blocks be used again? Without FLUSH: when the done word says so, or an answer. With
 * it: when it answers, which is when no copy touches them any more. The device holds copies up for as long as the test says.
 */
#include "harness.h"
#include "actors/service.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SOON 100000 /* us */

static struct h_service service;

static const uint32_t ids[2 * H_PER_CHUNK] = {0, 1, 2, 3, 8, 9, 10, 11}, *const lists[1] = {ids};

static struct ty_transfer two_chunks(const struct h_client *c)
{
	static const uint32_t count = 2 * H_PER_CHUNK;

	return (struct ty_transfer){.session = 1, .registration = c->registration, .count = 2, .blocks = lists, .block_counts = &count,
		.group_count = 1};
}

static void fill_two(struct h_client *c, uint32_t tag)
{
	h_fill(c, tag, 1, ids[0]);
	h_fill(c, tag + 1, 1, ids[H_PER_CHUNK]);
}

static enum ty_code flush(struct h_client *c, const uint32_t *blocks, uint32_t count)
{
	return h_wait(c, ty_client_flush(c->client, c->registration, &blocks, &count, 1, h_done, c, &c->refused));
}

static enum ty_code flush_all(struct h_client *c)
{
	return h_wait(c, ty_client_flush(c->client, c->registration, NULL, NULL, 0, h_done, c, &c->refused));
}

/* What is in the cache of chunks [base, base + 2), if anything, is what was in the blocks when they were to be stored. */
static void expect_cached(struct h_client *c, uint32_t base, uint32_t hits)
{
	assert_int_equal(h_lookup(c, 2, base, 2), TY_OK);
	assert_int_equal(c->last.lookup.hits, hits);
	if (hits) {
		h_wipe(c, 2, 64);
		assert_int_equal(h_retrieve(c, 2, 0, 2, 64), TY_OK);
		assert_int_equal(h_wrong(c, base, 2, 64), 0);
	}
	assert_int_equal(h_end(c, 2), TY_OK);
}

/* ---- stores ---------------------------------------------------------------------------------------------- */

/* The done word comes when the blocks have been read, which is before the store is over: who waits for it needs no FLUSH. */
static void test_reused_at_the_done_word(void **state)
{
	struct h_client c, store;
	struct ty_transfer t;

	(void)state;
	h_open(&service, &c, NULL, "a", 0, 1);
	assert_int_equal(h_lookup(&c, 1, 100, 2), TY_OK);
	fill_two(&c, 100);
	t = two_chunks(&c);
	t.done = (struct ty_mark){5, 1};
	*service.hold = H_HOLD_ALL;
	store = c;
	h_send(&store, ty_client_store(c.client, &t, h_done, &store, &store.refused));
	for (int i = 0; i < 20; i++) { /* not read yet, so nobody says that it is */
		ty_client_poll(c.client, 0, 1000);
		assert_false(ty_client_reached(c.client, t.done));
	}
	*service.hold = H_HOLD_DONE;
	while (!ty_client_reached(c.client, t.done))
		ty_client_poll(c.client, 0, 1000);
	fill_two(&c, 7000);
	assert_false(h_answered(&store));
	*service.hold = H_GO;
	assert_int_equal(h_answer(&store), TY_OK);
	expect_cached(&c, 100, 2);
	h_close(&c);
}

/* FLUSH answers when the copy has been read, and not before. */
static void test_reused_after_flush(void **state)
{
	const uint32_t *const blocks[1] = {ids + 3}, one = 1;
	struct h_client c, store, flushed;
	struct ty_transfer t;

	(void)state;
	h_open(&service, &c, NULL, "a", 0, 1);
	for (uint32_t round = 0, base = 100; round < 50; round++, base += 2) {
		assert_int_equal(h_lookup(&c, 1, base, 2), TY_OK);
		fill_two(&c, base);
		t = two_chunks(&c);
		if (round % 2)
			*service.hold = H_HOLD_ALL;
		store = flushed = c;
		h_send(&store, ty_client_store(c.client, &t, h_done, &store, &store.refused));
		h_send(&flushed, ty_client_flush(c.client, c.registration, blocks, &one, 1, h_done, &flushed, &flushed.refused));
		if (round % 2) {
			for (int i = 0; i < 5; i++)
				ty_client_poll(c.client, 0, 1000);
			assert_false(h_answered(&flushed));
			*service.hold = H_GO;
		}
		assert_int_equal(h_answer(&flushed), TY_OK);
		fill_two(&c, 7000 + base);
		assert_int_equal(h_answer(&store), TY_OK);
		expect_cached(&c, base, 2);
	}
	h_close(&c);
}

/* A store that waits for its blocks when they are taken away: CANCEL, and it never begins; no FLUSH is needed. */
static void test_reused_after_cancel(void **state)
{
	struct h_client c, store;
	struct ty_transfer t;

	(void)state;
	h_open(&service, &c, NULL, "a", 0, 1);
	assert_int_equal(h_lookup(&c, 1, 100, 2), TY_OK);
	t = two_chunks(&c);
	t.ready = (struct ty_mark){6, 1};
	store = c;
	h_send(&store, ty_client_store(c.client, &t, h_done, &store, &store.refused));
	assert_int_equal(h_wait(&c, ty_client_cancel(c.client, ty_client_last_id(c.client), h_done, &c, &c.refused)), TY_OK);
	assert_int_equal(h_answer(&store), TY_CANCELLED);
	assert_false(store.last.blocks_in_use);
	fill_two(&c, 7000);
	ty_client_raise(c.client, t.ready);
	expect_cached(&c, 100, 0);
	h_close(&c);
}

/* ---- answers that are early -------------------------------------------------------------------------------- */

/* Two clients of one engine, with two chunks in the cache under session 1, and the second one's requests end soon. */
static void open_both(struct h_client *patient, struct h_client *hasty)
{
	static const uint8_t engine[16] = {7};

	h_open(&service, patient, engine, "a", 0, 1);
	h_open(&service, hasty, engine, "a", 0, 1);
	assert_int_equal(h_lookup(patient, 1, 100, 2), TY_OK);
	h_fill(patient, 100, 2, 0);
	assert_int_equal(h_store(patient, 1, 0, 2, 0), TY_OK);
	assert_int_equal(h_lookup(patient, 1, 100, 2), TY_OK);
	assert_int_equal(patient->last.lookup.hits, 2);
	assert_int_equal(ty_client_set_timeout(hasty->client, SOON, &hasty->refused), TY_OK);
}

/* A retrieve that is answered while its copy is held up. On a slow machine it may be late before it begins: then once more. */
static void retrieve_late(struct h_client *c, const struct ty_transfer *t)
{
	*service.hold = H_HOLD_DONE;
	do
		h_expect(c, h_wait(c, ty_client_retrieve(c->client, t, h_done, c, &c->refused)), TY_TIMEOUT, "");
	while (!c->last.blocks_in_use);
}

static void test_late_copies(void **state)
{
	static const uint32_t others[2] = {7, 200}, bad[1] = {H_BLOCKS};
	struct h_client patient, hasty;
	struct ty_transfer t;

	(void)state;
	open_both(&patient, &hasty);
	t = two_chunks(&hasty);

	/* A ready word that never comes: nothing has begun, and nothing will. */
	t.ready = (struct ty_mark){3, 1};
	do /* once more if the answer was the library's own: the service was later than that */
		h_expect(&hasty, h_wait(&hasty, ty_client_retrieve(hasty.client, &t, h_done, &hasty, &hasty.refused)), TY_TIMEOUT, "");
	while (hasty.last.blocks_in_use);
	while (flush(&hasty, ids, 2) == TY_TIMEOUT)
		;
	assert_int_equal(hasty.last.code, TY_OK);

	/* One that is under way: its blocks are not safe, and FLUSH of one of them waits for it; of others it does not. */
	t.ready = (struct ty_mark){0, 0};
	retrieve_late(&hasty, &t);
	h_expect(&hasty, flush(&hasty, ids + 5, 1), TY_TIMEOUT, "");
	h_expect(&hasty, flush_all(&hasty), TY_TIMEOUT, "");
	assert_int_equal(ty_client_set_timeout(hasty.client, 0, &hasty.refused), TY_OK);
	h_expect(&hasty, flush(&hasty, others, 2), TY_OK, "");
	h_expect(&hasty, flush(&hasty, NULL, 0), TY_OK, ""); /* a group with no ids: no block at all */
	*service.hold = H_GO;
	h_expect(&hasty, flush_all(&hasty), TY_OK, "");
	for (uint32_t k = 0; k < 2; k++)
		assert_int_equal(h_wrong(&hasty, 100 + k, 1, ids[k * H_PER_CHUNK]), 0);

	h_expect(&hasty, flush(&hasty, bad, 1), TY_INVALID, "blocks[0].ids[0]: 256; the pool has 256 blocks");
	h_expect(&hasty, h_wait(&hasty, ty_client_flush(hasty.client, 99, NULL, NULL, 0, h_done, &hasty, &hasty.refused)),
		TY_UNKNOWN_REGISTRATION, "registration");
	h_expect(&hasty, h_wait(&hasty, ty_client_flush(hasty.client, hasty.registration, (const uint32_t *const[]){ids, ids},
				      (const uint32_t[]){1, 1}, 2, h_done, &hasty, &hasty.refused)),
		TY_INVALID, "blocks: 2 groups");
	h_close(&hasty);
	h_close(&patient);
}

/* A store that is late when its blocks have been read: they are safe, and its answer says so. */
static void test_late_store(void **state)
{
	struct h_client patient, hasty;
	struct ty_transfer t;
	uint32_t read = 0;

	(void)state;
	open_both(&patient, &hasty);
	t = two_chunks(&hasty);
	t.first = 2;
	t.done = (struct ty_mark){5, 0};
	*service.hold = H_HOLD_DONE;
	for (uint32_t base = 900; !read; base += 2) { /* once more if it was late before it was read: a slow machine */
		t.done.value++;
		t.append = h_chain(base, 2);
		h_expect(&hasty, h_wait(&hasty, ty_client_store(hasty.client, &t, h_done, &hasty, &hasty.refused)), TY_TIMEOUT, "");
		t.first += 2;
		read = !hasty.last.blocks_in_use && ty_client_reached(hasty.client, t.done);
	}
	*service.hold = H_GO;
	h_close(&hasty);
	h_close(&patient);
}

/* A client that leaves while a FLUSH of its waits, and UNREGISTER with operations under way. */
static void test_leave_and_unregister(void **state)
{
	struct h_client patient, hasty, retrieved;
	struct ty_transfer t;

	(void)state;
	open_both(&patient, &hasty);
	t = two_chunks(&hasty);
	retrieve_late(&hasty, &t);
	h_send(&hasty, ty_client_flush(hasty.client, hasty.registration, NULL, NULL, 0, h_done, &hasty, &hasty.refused));
	h_close(&hasty);
	assert_int_equal(hasty.last.code, TY_CANCELLED);

	/* UNREGISTER answers when the copies are over: the memory is the engine's again */
	t = two_chunks(&patient);
	retrieved = patient;
	h_send(&retrieved, ty_client_retrieve(patient.client, &t, h_done, &retrieved, &patient.refused));
	h_send(&patient, ty_client_unregister(patient.client, patient.registration, h_done, &patient, &patient.refused));
	for (int i = 0; i < 20; i++)
		ty_client_poll(patient.client, 0, 1000);
	assert_false(h_answered(&patient));
	*service.hold = H_GO;
	assert_int_equal(h_answer(&patient), TY_OK);
	assert_true(h_answered(&retrieved)); /* before */
	assert_int_equal(retrieved.last.code, TY_OK);
	for (uint32_t k = 0; k < 2; k++)
		assert_int_equal(h_wrong(&patient, 100 + k, 1, ids[k * H_PER_CHUNK]), 0);
	h_close(&patient);
}

/* The attach connections of this process's clients end. */
static void break_attach(void)
{
	for (int fd = 0; fd < 1024; fd++) {
		struct sockaddr_un address = {.sun_path = ""};
		socklen_t length = sizeof address;

		if (getpeername(fd, (struct sockaddr *)&address, &length) == 0 && strcmp(address.sun_path, service.config.attach) == 0)
			assert_int_equal(shutdown(fd, SHUT_RDWR), 0);
	}
}

/* The client loses its connection under a copy, while the service lives. It is not UP again before that copy is over: a pool is mapped
 * when the device has nothing to do, so whoever waits for UP has its blocks back. */
static void test_reused_after_a_lost_connection(void **state)
{
	struct h_client c, store;
	struct ty_transfer t;
	uint64_t id;

	(void)state;
	h_open(&service, &c, NULL, "a", 0, 1);
	assert_int_equal(h_lookup(&c, 1, 100, 2), TY_OK);
	fill_two(&c, 100);
	t = two_chunks(&c);
	*service.hold = H_HOLD_ALL;
	store = c;
	h_send(&store, ty_client_store(c.client, &t, h_done, &store, &store.refused));
	id = ty_client_last_id(c.client);
	while (h_ask(&c, id).operation.state != TY_OPERATION_COPYING)
		;
	break_attach();
	assert_int_equal(h_answer(&store), TY_CLOSED);
	assert_true(store.last.blocks_in_use);
	for (int i = 0; i < 200; i++) {
		ty_client_poll(c.client, 0, 1000);
		assert_int_equal(ty_client_state(c.client, NULL), TY_CLIENT_AWAY);
	}
	*service.hold = H_GO;
	while (ty_client_state(c.client, NULL) != TY_CLIENT_UP)
		ty_client_poll(c.client, 0, 1000);
	assert_false(h_ask(&c, id).operation.blocks_in_use);
	assert_int_equal(flush_all(&c), TY_OK);
	h_close(&c);
}

/* Stores of so many blocks that a FLUSH cannot look at all of them in one go. It waits for one that only the last place of the oldest
 * names, and not where no store does; it is answered by its deadline, and may be out when its client goes. */
#define MANY 1500 /* chunks of a store */

static void send_many(struct h_client *c, uint32_t first, uint32_t last_block)
{
	static uint32_t many[MANY * H_PER_CHUNK];
	static const uint32_t *const of[1] = {many}, count = MANY * H_PER_CHUNK;
	struct ty_transfer t = {.session = 1, .registration = c->registration, .first = first, .count = MANY, .blocks = of,
		.block_counts = &count, .group_count = 1};

	for (uint32_t i = 0; i < count; i++)
		many[i] = i % 100;
	many[count - 1] = last_block;
	h_send(c, ty_client_store(c->client, &t, h_done, c, &c->refused));
}

static void test_flush_of_many(void **state)
{
	static const uint32_t named = 200, other = 201, one = 1;
	const uint32_t *const blocks[1] = {&named}, *const others[1] = {&other};
	struct h_client c, first, second, looks, waits[10];

	(void)state;
	h_open(&service, &c, NULL, "a", 0, 1);
	assert_int_equal(h_lookup(&c, 1, 100, 2 * MANY), TY_OK);
	*service.hold = H_HOLD_ALL;
	first = second = looks = c;
	send_many(&first, 0, named);
	send_many(&second, MANY, 0);
	for (int i = 0; i < 10; i++) {
		waits[i] = c;
		h_send(&waits[i], ty_client_flush(c.client, c.registration, blocks, &one, 1, h_done, &waits[i], &waits[i].refused));
		h_send(&looks, ty_client_flush(c.client, c.registration, others, &one, 1, h_done, &looks, &looks.refused));
		assert_int_equal(h_answer(&looks), TY_OK);
		assert_int_equal(ty_client_set_timeout(c.client, i % 2 ? SOON : 1000, &c.refused), TY_OK);
		h_send(&looks, ty_client_flush(c.client, c.registration, blocks, &one, 1, h_done, &looks, &looks.refused));
		assert_int_equal(h_answer(&looks), TY_TIMEOUT);
		assert_int_equal(ty_client_set_timeout(c.client, 0, &c.refused), TY_OK);
	}
	for (int i = 0; i < 10; i++)
		assert_false(h_answered(&waits[i]));
	*service.hold = H_GO;
	for (int i = 0; i < 10; i++)
		assert_int_equal(h_answer(&waits[i]), TY_OK);
	assert_int_equal(h_answer(&first), TY_OK);
	assert_int_equal(h_answer(&second), TY_OK);
	h_close(&c);
	for (uint32_t base = 20000; base < 60000; base += 10000) { /* gone while it looks */
		h_open(&service, &c, NULL, "b", 0, 1);
		assert_int_equal(h_lookup(&c, 1, base, 2 * MANY), TY_OK);
		*service.hold = H_HOLD_ALL;
		first = second = looks = c;
		send_many(&first, 0, named);
		send_many(&second, MANY, 0);
		for (int i = 0; i < 10; i++)
			h_send(&looks, ty_client_flush(c.client, c.registration, blocks, &one, 1, h_done, &looks, &looks.refused));
		h_close(&c);
		*service.hold = H_GO;
		h_idle(&service, true);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		H_TEST_HELD(test_reused_at_the_done_word),
		H_TEST_HELD(test_reused_after_flush),
		H_TEST_HELD(test_reused_after_cancel),
		H_TEST_HELD(test_flush_of_many),
		H_TEST_HELD(test_late_copies),
		H_TEST_HELD(test_late_store),
		H_TEST_HELD(test_reused_after_a_lost_connection),
		H_TEST_HELD(test_leave_and_unregister),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
