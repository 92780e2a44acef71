/* SPDX-License-Identifier: Apache-2.0
 *
 * The load of the original deadlock (LMCache 2823, 2816): sixteen clients store and retrieve at once, each with a PING in between, and
 * each PING is answered while they do. And one that asks without end beside others that do not: it hears BUSY, they never do.
 */
#include "harness.h"
#include "actors/service.h"

#include <stdio.h>
#include <string.h>

#define CLIENTS 16
#define ROUNDS 40
#define CHUNKS 8

static struct h_service service;

static int setup(void **state)
{
	(void)state;
	h_prepare(&service);
	return 0;
}

struct driver {
	struct h_client c;
	uint32_t number, round, pings, hits, stored, busy;
	bool out, ping_out;
	enum { LOOK, STORE, AGAIN, FETCH, END, DONE } step;
	enum ty_code code;
	char error[200];
};

static void on_step(void *user, const struct ty_result *result)
{
	struct driver *d = user;

	d->out = false;
	d->code = result->code;
	snprintf(d->error, sizeof d->error, "%s", result->error);
	d->hits = d->step == FETCH && result->code == TY_OK ? result->lookup.hits : 0;
}

static void on_ping(void *user, const struct ty_result *result)
{
	struct driver *d = user;

	assert_int_equal(result->code, TY_OK);
	d->ping_out = false;
	d->pings++;
}

static uint32_t base_of(const struct driver *d)
{
	return 10000 + (d->number % 4) * 1000 + d->round * CHUNKS; /* four of them store the same */
}

static struct ty_transfer *transfer(struct driver *d, uint32_t block)
{
	static uint32_t ids[CHUNKS * H_PER_CHUNK];
	static const uint32_t *const lists[1] = {ids}, count = CHUNKS * H_PER_CHUNK;
	static struct ty_transfer t;

	for (uint32_t i = 0; i < count; i++)
		ids[i] = block + i;
	t = (struct ty_transfer){.session = 1, .registration = d->c.registration, .count = CHUNKS, .blocks = lists,
		.block_counts = &count, .group_count = 1};
	return &t;
}

static void advance(struct driver *d)
{
	struct ty_error *err = &d->c.refused;

	if (d->out || d->step == DONE)
		return;
	if (d->code != TY_OK)
		fail_msg("client %u, step %d: %s %s", d->number, d->step, ty_code_name(d->code), d->error);
	switch (d->step) {
	case LOOK:
		assert_int_equal(ty_client_lookup(d->c.client, 1, h_chain(base_of(d), CHUNKS), on_step, d, err), TY_OK);
		d->step = STORE;
		break;
	case STORE:
		h_fill(&d->c, base_of(d), CHUNKS, 0);
		assert_int_equal(ty_client_store(d->c.client, transfer(d, 0), on_step, d, err), TY_OK);
		d->step = AGAIN;
		break;
	case AGAIN:
		assert_int_equal(ty_client_lookup(d->c.client, 1, h_chain(base_of(d), CHUNKS), on_step, d, err), TY_OK);
		d->step = FETCH;
		break;
	case FETCH:
		if (d->hits < CHUNKS) { /* another one is still writing what this one found on its way */
			d->step = AGAIN;
			advance(d);
			return;
		}
		h_wipe(&d->c, CHUNKS, 128);
		assert_int_equal(ty_client_retrieve(d->c.client, transfer(d, 128), on_step, d, err), TY_OK);
		d->step = END;
		break;
	case END:
		assert_int_equal(h_wrong(&d->c, base_of(d), CHUNKS, 128), 0);
		assert_int_equal(ty_client_end_session(d->c.client, 1, on_step, d, err), TY_OK);
		d->step = ++d->round == ROUNDS ? DONE : LOOK;
		break;
	default:
		return;
	}
	d->out = true;
}

static void test_sixteen(void **state)
{
	static struct driver drivers[CLIENTS];
	bool busy = true;

	(void)state;
	h_start(&service);
	memset(drivers, 0, sizeof drivers);
	for (uint32_t i = 0; i < CLIENTS; i++) {
		drivers[i].number = i;
		h_open(&service, &drivers[i].c, NULL, "load", 0, 1);
	}
	while (busy) {
		busy = false;
		for (uint32_t i = 0; i < CLIENTS; i++) {
			struct driver *d = &drivers[i];

			advance(d);
			if (!d->ping_out && d->step != DONE) {
				assert_int_equal(ty_client_ping(d->c.client, on_ping, d, &d->c.refused), TY_OK);
				d->ping_out = true;
			}
			ty_client_poll(d->c.client, 0, 0);
			busy |= d->step != DONE || d->out || d->ping_out;
		}
	}
	for (uint32_t i = 0; i < CLIENTS; i++) {
		assert_true(drivers[i].pings > ROUNDS);
		h_close(&drivers[i].c);
	}
	h_idle(&service, true);
}

/* ---- one that asks without end ------------------------------------------------------------------------------------------- */

static void on_greedy(void *user, const struct ty_result *result)
{
	struct driver *d = user;

	d->busy += result->code == TY_BUSY;
	d->stored += result->code == TY_OK;
	d->out = false;
	if (result->code != TY_OK && result->code != TY_BUSY && result->code != TY_CLOSED && result->code != TY_CANCELLED)
		fail_msg("greedy: %s %s", ty_code_name(result->code), result->error);
}

static void test_greedy(void **state)
{
	static struct driver greedy[3];
	struct h_client modest;
	uint32_t busy = 0;

	(void)state;
	service.config.max_all_operations = 24;
	service.config.max_requests = 48;
	snprintf(service.config.device[0], sizeof service.config.device[0], "host:delay-us=2000");
	h_start(&service);
	memset(greedy, 0, sizeof greedy);
	for (uint32_t i = 0; i < 3; i++) {
		greedy[i].number = i;
		h_open(&service, &greedy[i].c, NULL, "greedy", 0, 1);
		assert_int_equal(h_lookup(&greedy[i].c, 1, 20000 + i * 100, CHUNKS), TY_OK);
	}
	h_open(&service, &modest, NULL, "modest", 0, 1);
	for (uint32_t round = 0; round < 60; round++) {
		uint32_t base = 30000 + round * 2;

		for (uint32_t i = 0; i < 3; i++) { /* as many as its library lets out, all the time */
			struct driver *d = &greedy[i];

			while (ty_client_store(d->c.client, transfer(d, 0), on_greedy, d, &d->c.refused) == TY_OK)
				;
			ty_client_poll(d->c.client, 0, 0);
		}
		/* whoever asks for little is served, each time */
		if (h_lookup(&modest, 1, base, 2) != TY_OK)
			fail_msg("LOOKUP: %s", modest.error);
		h_fill(&modest, base, 2, 0);
		if (h_store(&modest, 1, 0, 2, 0) != TY_OK)
			fail_msg("STORE: %s", modest.error);
		assert_int_equal(h_end(&modest, 1), TY_OK);
	}
	for (uint32_t i = 0; i < 3; i++) {
		busy += greedy[i].busy;
		assert_true(greedy[i].stored > 0);
		h_close(&greedy[i].c);
	}
	assert_true(busy > 0);
	print_message("BUSY for those that ask without end: %u; for the one that does not: 0\n", busy);
	h_close(&modest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		H_TEST_OF(test_sixteen, setup, h_teardown),
		H_TEST_OF(test_greedy, setup, h_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
