/* SPDX-License-Identifier: Apache-2.0
 *
 * REGISTER of memory that travels as descriptors: they arrive first, each is answered, then the request follows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pair.h"
#include "wire/request.h"

#define REGIONS 3

/* What the service has seen; its thread's, read by the test when a request was answered, or by an atomic. */
struct seen {
	uint32_t numbers[1024];
	char first[1024]; /* byte of each descriptor's memory */
	_Atomic uint32_t count;
	bool early; /* REGISTER came before the last descriptor */
	bool hold, refuse_second;
	_Atomic bool busy; /* REGISTER is answered so */
};

static void on_descriptor(struct fake *f, uint32_t number, int fd)
{
	struct seen *s = f->options.user;
	uint32_t n = atomic_load(&s->count), i;

	s->numbers[n] = number;
	if (pread(fd, &s->first[n], 1, 0) != 1)
		s->first[n] = 0;
	close(fd);
	atomic_store(&s->count, ++n);
	if (s->hold)
		return;
	if (s->refuse_second && n == 2) {
		fake_descriptor_ok(f, number, TY_DENIED);
	} else if (s->refuse_second) {
		fake_descriptor_ok(f, number, TY_OK);
	} else if (n % REGIONS == 0) { /* all at once, the last one first */
		for (i = 0; i < REGIONS; i++)
			fake_descriptor_ok(f, s->numbers[n - 1 - i], TY_OK);
	}
}

static enum fake_answer on_register(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	static Tyer__V1__RegisterReply registered;
	static uint8_t fingerprint[32];
	struct seen *s = f->options.user;
	uint32_t n, i;

	if (request->verb_case == TYER__V1__REQUEST__VERB_HELLO)
		fake_hello(f, reply);
	if (request->verb_case != TYER__V1__REQUEST__VERB_REGISTER)
		return FAKE_REPLY;
	if (atomic_load(&s->busy)) {
		reply->code = TYER__V1__CODE__BUSY;
		return FAKE_REPLY;
	}
	n = atomic_load(&s->count);
	s->early = n % REGIONS != 0;
	for (i = 0; i < REGIONS; i++)
		if (request->register_->n_regions != REGIONS ||
			request->register_->regions[i]->memory_case != TYER__V1__REGION__MEMORY_ATTACHED_FD ||
			request->register_->regions[i]->attached_fd != s->numbers[n - REGIONS + i])
			reply->code = TYER__V1__CODE__INTERNAL;
	tyer__v1__register_reply__init(&registered);
	registered.registration = n;
	registered.fingerprint = (ProtobufCBinaryData){.len = 32, .data = fingerprint};
	reply->verb_case = TYER__V1__REPLY__VERB_REGISTER;
	reply->register_ = &registered;
	return FAKE_REPLY;
}

struct world {
	struct seen seen;
	struct fake fake;
	struct ty_client *client;
	struct ty_region regions[REGIONS];
	struct ty_plane plane;
	struct ty_group group;
	struct ty_pool pool;
};

static struct world *world_open(bool hold, bool refuse_second)
{
	struct world *w = calloc(1, sizeof *w);
	struct outcome pinged = {0};
	struct fake_options fo = {.answer = on_register, .descriptor = on_descriptor, .user = &w->seen};
	struct ty_client_options o;
	struct ty_error err;
	uint32_t i;

	w->seen.hold = hold;
	w->seen.refuse_second = refuse_second;
	fake_start(&w->fake, &fo);
	o = fake_client_options(&w->fake);
	assert_int_equal(ty_client_open(&o, &w->client, &err), TY_OK);
	/* when this is answered the service's thread has closed its ends of what it sent before */
	assert_int_equal(ty_client_ping(w->client, on_done, &pinged, &err), TY_OK);
	wait_for(w->client, &pinged);
	for (i = 0; i < REGIONS; i++) {
		int fd = memfd_create("region", MFD_CLOEXEC);
		char c = (char)('a' + i);

		assert_int_equal(pwrite(fd, &c, 1, 0), 1);
		w->regions[i] = (struct ty_region){
			.is_fd = true, .fd = fd, .allocation_bytes = 4096, .length = 4096};
	}
	w->group = (struct ty_group){16, 1, 256, 256, 1, &w->plane};
	w->pool = (struct ty_pool){.region_count = REGIONS, .group_count = 1, .regions = w->regions, .groups = &w->group,
		.parts = 1};
	return w;
}

static void world_close(struct world *w)
{
	uint32_t i;

	ty_client_close(w->client);
	fake_stop(&w->fake);
	for (i = 0; i < REGIONS; i++)
		if (w->regions[i].fd >= 0)
			close(w->regions[i].fd);
	free(w);
}

static uint32_t open_descriptors(void)
{
	uint32_t n = 0;
	int fd;

	for (fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) != -1;
	return n;
}

#define MANY 400 /* pieces of a region */

/* Many descriptors, one after the other. The caller's own may be closed as soon as the call is back, and
 * nothing of ours stays open. */
static void test_register(void **state)
{
	struct world *w = world_open(false, false);
	uint32_t before = open_descriptors(), i, k;
	struct ty_error err;

	(void)state;
	for (k = 0; k < 30; k++) {
		struct ty_region regions[REGIONS];
		struct ty_pool pool = w->pool;
		struct outcome o = {0};

		memcpy(regions, w->regions, sizeof regions);
		pool.regions = regions;
		for (i = 0; i < REGIONS; i++)
			regions[i].fd = dup(w->regions[i].fd);
		atomic_store(&w->seen.count, 0);
		assert_int_equal(ty_client_register(w->client, &pool, on_done, &o, &err), TY_OK);
		for (i = 0; i < REGIONS; i++)
			close(regions[i].fd);
		wait_for(w->client, &o);
		if (o.result.code != TY_OK)
			fail_msg("REGISTER: %s %s", ty_code_name(o.result.code), o.error);
		assert_int_equal(o.result.registered.registration, k + 1);
		assert_false(w->seen.early);
		for (i = 0; i < REGIONS; i++)
			assert_int_equal(w->seen.first[i], 'a' + i);
		/* kept for a service that comes back, until UNREGISTER */
		assert_int_equal(open_descriptors(), before + REGIONS);
		o = (struct outcome){0};
		assert_int_equal(ty_client_unregister(w->client, k + 1, on_done, &o, &err), TY_OK);
		wait_for(w->client, &o);
	}
	assert_int_equal(open_descriptors(), before);
	w->regions[1].fd = 1000; /* none */
	assert_int_equal(ty_client_register(w->client, &w->pool, on_done, NULL, &err), TY_INVALID);
	assert_non_null(strstr(err.text, "pool.regions: descriptor 1000, the pool's 1th"));
	assert_int_equal(open_descriptors(), before);
	w->regions[1].fd = -1;
	world_close(w);
}

/* What was sent for a REGISTER that the service never took goes: something else comes under each of its numbers. */
static void expect_replaced(struct world *w)
{
	const struct seen *s = &w->seen;

	while (atomic_load(&s->count) < 2 * REGIONS)
		ty_client_poll(w->client, 0, 1000);
	for (uint32_t i = REGIONS; i < 2 * REGIONS; i++) {
		uint32_t same = 0;

		assert_int_equal(s->first[i], 0); /* none of the pool's memory */
		for (uint32_t k = 0; k < REGIONS; k++)
			same += s->numbers[k] == s->numbers[i];
		assert_int_equal(same, 1);
	}
}

/* It is the edge that has no room for the request: nobody has taken its descriptors. */
static void test_busy(void **state)
{
	struct world *w = world_open(false, false);
	struct outcome o = {0}, again = {0};
	struct ty_error err;

	(void)state;
	atomic_store(&w->seen.busy, true);
	assert_int_equal(ty_client_register(w->client, &w->pool, on_done, &o, &err), TY_OK);
	wait_for(w->client, &o);
	assert_int_equal(o.result.code, TY_BUSY);
	expect_replaced(w);
	atomic_store(&w->seen.busy, false);
	assert_int_equal(ty_client_register(w->client, &w->pool, on_done, &again, &err), TY_OK);
	wait_for(w->client, &again);
	assert_int_equal(again.result.code, TY_OK);
	world_close(w);
}

/* The second descriptor is refused: REGISTER is not sent, its code is the service's; the next one works. */
static void test_refused(void **state)
{
	struct world *w = world_open(false, true);
	struct outcome o = {0}, again = {0};
	struct ty_error err;

	(void)state;
	assert_int_equal(ty_client_register(w->client, &w->pool, on_done, &o, &err), TY_OK);
	wait_for(w->client, &o);
	assert_int_equal(o.result.code, TY_DENIED);
	assert_int_equal(atomic_load(&w->fake.requests), 2); /* HELLO, PING */
	expect_replaced(w);
	assert_int_equal(ty_client_register(w->client, &w->pool, on_done, &again, &err), TY_OK);
	wait_for(w->client, &again);
	assert_int_equal(again.result.code, TY_OK);
	assert_int_equal(o.calls, 1);
	world_close(w);
}

/* Descriptors that nobody answers: the request times out; with the service it ends; with the client too. */
static void test_unanswered(void **state)
{
	struct world *w = world_open(true, false);
	uint32_t before = open_descriptors(), i;
	struct outcome o[3] = {{0}};
	struct ty_error err;

	(void)state;
	assert_int_equal(ty_client_set_timeout(w->client, 1000, &err), TY_OK);
	assert_int_equal(ty_client_register(w->client, &w->pool, on_done, &o[0], &err), TY_OK);
	wait_for(w->client, &o[0]);
	assert_int_equal(o[0].result.code, TY_TIMEOUT);
	assert_int_equal(ty_client_set_timeout(w->client, 0, &err), TY_OK);
	while (open_descriptors() > before) /* the service may be late to close what it was sent; what the test before left may go */
		ty_client_poll(w->client, 0, 1000);

	assert_int_equal(ty_client_register(w->client, &w->pool, on_done, &o[1], &err), TY_OK);
	fake_order(&w->fake, &w->fake.drop_attach);
	wait_for(w->client, &o[1]);
	assert_int_equal(o[1].result.code, TY_CLOSED);
	world_close(w);

	w = world_open(true, false);
	assert_int_equal(ty_client_register(w->client, &w->pool, on_done, &o[2], &err), TY_OK);
	ty_client_close(w->client);
	w->client = NULL;
	assert_int_equal(o[2].calls, 1);
	assert_int_equal(o[2].result.code, TY_CANCELLED);
	world_close(w);
	for (i = 0; i < 3; i++)
		assert_int_equal(o[i].calls, 1);
}

/* Numbers of REGISTERs that are under way are not given twice; when there are none left the answer is BUSY. */
static void test_numbers(void **state)
{
	struct world *w = world_open(true, false);
	struct ty_segment segments[MANY];
	struct outcome o[3] = {{0}};
	uint8_t used[1024] = {0};
	uint32_t i, k;
	struct ty_error err;

	(void)state;
	for (k = 0; k < MANY; k++)
		segments[k] = (struct ty_segment){w->regions[0].fd, 4096};
	w->regions[0].segment_count = MANY;
	w->regions[0].segments = segments;
	for (i = 0; i < 2; i++)
		assert_int_equal(ty_client_register(w->client, &w->pool, on_done, &o[i], &err), TY_OK);
	assert_int_equal(ty_client_register(w->client, &w->pool, on_done, &o[2], &err), TY_BUSY);
	while (atomic_load(&w->seen.count) < 2 * (MANY + REGIONS - 1))
		assert_int_equal(ty_client_poll(w->client, 0, 1000), 0);
	for (k = 0; k < 2 * (MANY + REGIONS - 1); k++) {
		assert_in_range(w->seen.numbers[k], 0, 1023);
		assert_int_equal(used[w->seen.numbers[k]]++, 0);
	}
	w->regions[0].segment_count = 0;
	ty_client_close(w->client);
	w->client = NULL;
	for (i = 0; i < 2; i++)
		assert_int_equal(o[i].calls, 1);
	assert_int_equal(o[2].calls, 0);
	world_close(w);
}

/* A second UNREGISTER before the first one's answer is refused at the call: the pool goes once. */
static void test_unregister_twice(void **state)
{
	struct world *w = world_open(false, false);
	uint32_t before = open_descriptors();
	struct outcome o[3] = {{0}};
	struct ty_error err;

	(void)state;
	assert_int_equal(ty_client_register(w->client, &w->pool, on_done, &o[0], &err), TY_OK);
	wait_for(w->client, &o[0]);
	assert_int_equal(o[0].result.code, TY_OK);
	assert_int_equal(ty_client_unregister(w->client, 1, on_done, &o[1], &err), TY_OK);
	assert_int_equal(ty_client_unregister(w->client, 1, on_done, &o[2], &err), TY_UNKNOWN_REGISTRATION);
	assert_non_null(strstr(err.text, "an UNREGISTER of 1 is under way"));
	wait_for(w->client, &o[1]);
	assert_int_equal(o[1].result.code, TY_OK);
	assert_int_equal(o[2].calls, 0);
	while (open_descriptors() > before)
		ty_client_poll(w->client, 0, 1000);
	world_close(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unregister_twice),
		cmocka_unit_test(test_register),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_busy),
		cmocka_unit_test(test_unanswered),
		cmocka_unit_test(test_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
