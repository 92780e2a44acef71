/* SPDX-License-Identifier: Apache-2.0
 *
 * When may an engine use its blocks again? What a reply says of them, and FLUSH. The device holds every copy up for a while
 * (host:delay-us), so that operations are late on purpose.
 */
#include "harness.h"
#include "actors/service.h"

#include <stdio.h>
#include <string.h>

#define DELAY "2000000" /* us: far longer than the deadlines below */
#define SOON 20000      /* us */

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

static void expect(struct h_client *c, enum ty_code code, enum ty_code expected, const char *words)
{
	if (code != expected || !strstr(c->error, words))
		fail_msg("got %s \"%s\", expected %s \"%s\"", ty_code_name(code), c->error, ty_code_name(expected), words);
}

static const uint32_t ids[2 * H_PER_CHUNK] = {0, 1, 2, 3, 8, 9, 10, 11}, *const lists[1] = {ids};

static enum ty_code flush(struct h_client *c, const uint32_t *blocks, uint32_t count)
{
	return h_wait(c, ty_client_flush(c->client, c->registration, &blocks, &count, 1, h_done, c, &c->refused));
}

/* Two clients of one engine, one patient and one whose requests end soon. */
static void open_both(struct h_client *patient, struct h_client *hasty)
{
	static const uint8_t engine[16] = {7};
	struct ty_client_options o = {.size = sizeof o, .url = service.url, .attach_path = service.config.attach,
		.model = "m", .revision = "1", .dtype = "bf16", .tenant = "a", .timeout_us = SOON};

	memcpy(o.engine, engine, sizeof engine);
	h_open(&service, patient, engine, "a", 0, 1);
	h_open(&service, hasty, engine, "a", 0, 1);
	/* the hasty one's REGISTER had time; from here on it has none */
	assert_int_equal(h_lookup(patient, 1, 100, 2), TY_OK);
	h_fill(patient, 100, 2, 0);
	assert_int_equal(h_store(patient, 1, 0, 2, 0), TY_OK);
	assert_int_equal(h_lookup(patient, 1, 100, 2), TY_OK);
	assert_int_equal(patient->last.lookup.hits, 2);
	ty_client_close(hasty->client);
	if (ty_client_open(&o, &hasty->client, &hasty->refused) != TY_OK)
		fail_msg("%s", hasty->refused.text);
	if (h_wait(hasty, ty_client_register(hasty->client, h_pool(hasty, 0, 1), h_done, hasty, &hasty->refused)) != TY_OK)
		fail_msg("%s", hasty->error);
	hasty->registration = hasty->last.registered.registration;
}

static void test_late_copies(void **state)
{
	struct ty_transfer t = {.session = 1, .count = 2, .blocks = lists, .block_counts = (const uint32_t[]){2 * H_PER_CHUNK},
		.group_count = 1};
	static const uint32_t others[2] = {7, 200}, bad[1] = {H_BLOCKS};
	struct h_client patient, hasty;

	(void)state;
	open_both(&patient, &hasty);
	t.registration = hasty.registration;

	/* A ready word that never comes: nothing has begun, and nothing will. */
	t.ready = (struct ty_mark){3, 1};
	expect(&hasty, h_wait(&hasty, ty_client_retrieve(hasty.client, &t, h_done, &hasty, &hasty.refused)), TY_TIMEOUT,
		"ready word has not come");
	assert_false(hasty.last.blocks_in_use);
	expect(&hasty, flush(&hasty, ids, 2), TY_OK, "");

	/* One that is under way: its blocks are not safe, and FLUSH of one of them waits for it; of others it does not. */
	t.ready = (struct ty_mark){0, 0};
	expect(&hasty, h_wait(&hasty, ty_client_retrieve(hasty.client, &t, h_done, &hasty, &hasty.refused)), TY_TIMEOUT,
		"may still touch its blocks");
	assert_true(hasty.last.blocks_in_use);
	expect(&hasty, flush(&hasty, others, 2), TY_OK, "");
	expect(&hasty, flush(&hasty, ids + 5, 1), TY_TIMEOUT, "1 operations may still touch");
	expect(&hasty, flush(&hasty, NULL, 0), TY_OK, ""); /* a group with no ids: no block at all */
	while (h_wait(&hasty, ty_client_flush(hasty.client, hasty.registration, NULL, NULL, 0, h_done, &hasty,
			      &hasty.refused)) == TY_TIMEOUT)
		;
	assert_int_equal(hasty.last.code, TY_OK);
	expect(&hasty, flush(&hasty, ids, 8), TY_OK, "");
	for (uint32_t k = 0; k < 2; k++)
		assert_int_equal(h_wrong(&hasty, 100 + k, 1, ids[k * H_PER_CHUNK]), 0);

	/* A store that is late has read its blocks by then: they are safe. */
	t.append = h_chain(900, 2);
	t.first = 2;
	expect(&hasty, h_wait(&hasty, ty_client_store(hasty.client, &t, h_done, &hasty, &hasty.refused)), TY_TIMEOUT, "deadline");
	while (hasty.last.blocks_in_use) { /* on a slow machine the deadline may come before the copy */
		hasty.last.blocks_in_use = flush(&hasty, ids, 8) != TY_OK;
		print_message("the store's copy had not begun in time\n");
	}

	expect(&hasty, flush(&hasty, bad, 1), TY_INVALID, "blocks[0].ids[0]: 256; the pool has 256 blocks");
	expect(&hasty, h_wait(&hasty, ty_client_flush(hasty.client, 99, NULL, NULL, 0, h_done, &hasty, &hasty.refused)),
		TY_UNKNOWN_REGISTRATION, "registration");
	expect(&hasty, h_wait(&hasty, ty_client_flush(hasty.client, hasty.registration, (const uint32_t *const[]){ids, ids},
				      (const uint32_t[]){1, 1}, 2, h_done, &hasty, &hasty.refused)),
		TY_INVALID, "blocks: 2 groups");
	h_close(&hasty);
	h_close(&patient);
}

/* A client that leaves while a FLUSH of its waits, and UNREGISTER with operations under way. */
static void test_leave_and_unregister(void **state)
{
	struct ty_transfer t = {.session = 1, .count = 2, .blocks = lists, .block_counts = (const uint32_t[]){2 * H_PER_CHUNK},
		.group_count = 1};
	struct h_client patient, hasty;

	(void)state;
	open_both(&patient, &hasty);
	t.registration = hasty.registration;
	expect(&hasty, h_wait(&hasty, ty_client_retrieve(hasty.client, &t, h_done, &hasty, &hasty.refused)), TY_TIMEOUT, "");
	assert_int_equal(ty_client_flush(hasty.client, hasty.registration, NULL, NULL, 0, h_done, &hasty, &hasty.refused), TY_OK);
	h_close(&hasty);

	/* UNREGISTER answers when the copies are over: the memory is the engine's again */
	t.registration = patient.registration;
	assert_int_equal(ty_client_retrieve(patient.client, &t, h_done, &hasty, &hasty.refused), TY_OK);
	hasty.last.code = TY_INTERNAL;
	expect(&patient, h_wait(&patient, ty_client_unregister(patient.client, patient.registration, h_done, &patient,
					  &patient.refused)), TY_OK, "");
	assert_int_equal(hasty.last.code, TY_OK); /* the retrieve was answered before */
	for (uint32_t k = 0; k < 2; k++)
		assert_int_equal(h_wrong(&patient, 100 + k, 1, ids[k * H_PER_CHUNK]), 0);
	h_close(&patient);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_late_copies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_leave_and_unregister, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
