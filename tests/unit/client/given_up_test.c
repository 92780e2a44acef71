/* SPDX-License-Identifier: Apache-2.0
 *
 * A REGISTER or UNREGISTER that got no answer in time: the library takes the pool back, behind the user's back and in order.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "pair.h"
#include "wire/request.h"

#define HEARD_MAX 64

struct heard {
	uint32_t verb, registration;
	uint64_t id, request;
};

/* What the service does, told by the test, and what it has heard: its thread's, read up to `count`. */
struct script {
	_Atomic bool hold_register, hold_unregister, hold_lookup;
	_Atomic uint32_t busy; /* so many UNREGISTERs are answered so */
	struct heard heard[HEARD_MAX];
	_Atomic uint32_t count; /* release, pairs with the test's acquire */
};

static struct script script;
static struct pair pair;
static struct ty_region region = {.allocation_bytes = 4096, .length = 4096, .ipc_handle = {1}};
static struct ty_plane plane;
static struct ty_group group = {16, 1, 256, 256, 1, &plane};
static struct ty_pool pool = {.region_count = 1, .group_count = 1, .regions = &region, .groups = &group, .parts = 1};

static void note(const Tyer__V1__Request *request)
{
	uint32_t n = atomic_load(&script.count);
	struct heard *h = &script.heard[n];

	if (n == HEARD_MAX)
		return;
	*h = (struct heard){.verb = request->verb_case, .id = request->id};
	if (request->verb_case == TYER__V1__REQUEST__VERB_UNREGISTER) {
		h->registration = request->unregister->registration;
		h->request = request->unregister->request;
	}
	atomic_store_explicit(&script.count, n + 1, memory_order_release);
}

static enum fake_answer answer(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	static Tyer__V1__RegisterReply registered;
	static uint8_t fingerprint[32];

	switch (request->verb_case) {
	case TYER__V1__REQUEST__VERB_HELLO:
		fake_hello(f, reply);
		return FAKE_REPLY;
	case TYER__V1__REQUEST__VERB_REGISTER:
		tyer__v1__register_reply__init(&registered);
		registered.registration = 77;
		registered.fingerprint = (ProtobufCBinaryData){.len = 32, .data = fingerprint};
		reply->verb_case = TYER__V1__REPLY__VERB_REGISTER;
		reply->register_ = &registered;
		note(request);
		return atomic_load(&script.hold_register) ? FAKE_HOLD : FAKE_REPLY;
	case TYER__V1__REQUEST__VERB_UNREGISTER:
		if (atomic_load(&script.busy)) {
			atomic_fetch_sub(&script.busy, 1);
			reply->code = TYER__V1__CODE__BUSY;
		}
		note(request);
		return atomic_load(&script.hold_unregister) ? FAKE_HOLD : FAKE_REPLY;
	case TYER__V1__REQUEST__VERB_LOOKUP:
		return atomic_load(&script.hold_lookup) ? FAKE_HOLD : FAKE_REPLY;
	default:
		return FAKE_REPLY;
	}
}

static int setup_of(uint32_t max_requests)
{
	memset(&script, 0, sizeof script);
	pair_start(&pair, (struct fake_options){.answer = answer});
	pair.options.max_requests = max_requests;
	pair_open(&pair);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	return setup_of(0);
}

static int setup_one(void **state)
{
	(void)state;
	return setup_of(1);
}

static int teardown(void **state)
{
	(void)state;
	pair_close(&pair);
	return 0;
}

/* Polls until the service has heard so many; nothing of the user's ends meanwhile. Returns the last one. */
static const struct heard *hear(uint32_t count)
{
	while (atomic_load_explicit(&script.count, memory_order_acquire) < count)
		assert_int_equal(ty_client_poll(pair.client, 0, 1000), 0);
	assert_int_equal(atomic_load(&script.count), count);
	return &script.heard[count - 1];
}

static void set_timeout(uint32_t us)
{
	assert_int_equal(ty_client_set_timeout(pair.client, us, &pair.err), TY_OK);
}

/* A REGISTER that ends with TIMEOUT; its id. */
static uint64_t give_up(void)
{
	struct outcome o = {0};
	uint64_t id;

	set_timeout(1000);
	assert_int_equal(ty_client_register(pair.client, &pool, on_done, &o, &pair.err), TY_OK);
	id = ty_client_last_id(pair.client);
	wait_for(pair.client, &o);
	assert_int_equal(o.result.code, TY_TIMEOUT);
	set_timeout(0);
	return id;
}

static uint32_t registered(void)
{
	struct outcome o = {0};

	assert_int_equal(ty_client_register(pair.client, &pool, on_done, &o, &pair.err), TY_OK);
	wait_for(pair.client, &o);
	assert_int_equal(o.result.code, TY_OK);
	return o.result.registered.registration;
}

/* The same memory is registered again behind it, at once. The answers that come late are nobody's. */
static void test_register(void **state)
{
	struct outcome o = {0};
	uint64_t id;

	(void)state;
	atomic_store(&script.hold_register, true);
	atomic_store(&script.hold_unregister, true);
	id = give_up();
	assert_int_equal(hear(2)->verb, TYER__V1__REQUEST__VERB_UNREGISTER);
	assert_int_equal(script.heard[1].request, id);
	assert_int_equal(script.heard[1].registration, 0);
	atomic_store(&script.hold_register, false);
	assert_int_equal(ty_client_register(pair.client, &pool, on_done, &o, &pair.err), TY_OK);
	wait_for(pair.client, &o);
	assert_int_equal(o.result.code, TY_OK);
	assert_int_equal(hear(3)->verb, TYER__V1__REQUEST__VERB_REGISTER);
	fake_release(&pair.fake);
	o = (struct outcome){0};
	assert_int_equal(ty_client_ping(pair.client, on_done, &o, &pair.err), TY_OK);
	wait_for(pair.client, &o);
	hear(3); /* and no more */
}

/* The service has no room for it: again later. Until then nothing is registered that might be the same memory. */
static void test_busy(void **state)
{
	struct outcome o = {0};
	enum ty_code code;
	uint64_t id;

	(void)state;
	atomic_store(&script.hold_register, true);
	atomic_store(&script.busy, UINT32_MAX);
	id = give_up();
	atomic_store(&script.hold_register, false);
	while ((code = ty_client_register(pair.client, &pool, on_done, &o, &pair.err)) == TY_OK) { /* its UNREGISTER is out: then it may be */
		wait_for(pair.client, &o);
		o.calls = 0;
	}
	assert_int_equal(code, TY_BUSY);
	assert_non_null(strstr(pair.err.text, "is not taken back yet"));
	atomic_store(&script.busy, 0);
	while ((code = ty_client_register(pair.client, &pool, on_done, &o, &pair.err)) == TY_BUSY)
		ty_client_poll(pair.client, 0, 1000);
	assert_int_equal(code, TY_OK);
	wait_for(pair.client, &o);
	assert_int_equal(o.result.code, TY_OK);
	for (uint32_t i = 1; i < atomic_load(&script.count); i++)
		assert_true(script.heard[i].verb == TYER__V1__REQUEST__VERB_REGISTER || script.heard[i].request == id);
}

/* The user's only slot is taken for as long as it likes. */
static void test_no_slot(void **state)
{
	struct outcome looked = {0};
	const struct ty_chain chain = {0};
	uint64_t id;

	(void)state;
	atomic_store(&script.hold_register, true);
	atomic_store(&script.hold_lookup, true);
	atomic_store(&script.busy, 1); /* and once more, a while later */
	id = give_up();
	assert_int_equal(ty_client_lookup(pair.client, 1, &chain, on_done, &looked, &pair.err), TY_OK);
	assert_int_equal(hear(3)->request, id);
	assert_int_equal(looked.calls, 0);
	fake_release(&pair.fake);
	wait_for(pair.client, &looked);
}

/* By the number that it has. The user has it no more. */
static void test_unregister(void **state)
{
	struct outcome o = {0}, again = {0};
	uint32_t handle;

	(void)state;
	handle = registered();
	atomic_store(&script.hold_unregister, true);
	set_timeout(1000);
	assert_int_equal(ty_client_unregister(pair.client, handle, on_done, &o, &pair.err), TY_OK);
	wait_for(pair.client, &o);
	assert_int_equal(o.result.code, TY_TIMEOUT);
	atomic_store(&script.hold_unregister, false);
	assert_int_equal(hear(3)->registration, 77);
	assert_int_equal(script.heard[2].request, 0);
	assert_int_equal(ty_client_unregister(pair.client, handle, on_done, &again, &pair.err), TY_UNKNOWN_REGISTRATION);
	fake_release(&pair.fake);
	assert_int_equal(o.calls, 1);
	assert_int_equal(again.calls, 0);
}

/* The service is gone, and with it what it had: the next one is not asked. */
static void test_lost(void **state)
{
	struct outcome pinged = {0};

	(void)state;
	atomic_store(&script.hold_register, true);
	atomic_store(&script.hold_unregister, true);
	give_up();
	hear(2);
	fake_pause(&pair.fake);
	while (ty_client_state(pair.client, NULL) == TY_CLIENT_UP)
		ty_client_poll(pair.client, 0, 1000);
	fake_resume(&pair.fake, FAKE_BOOT + 1);
	while (ty_client_state(pair.client, NULL) != TY_CLIENT_UP)
		ty_client_poll(pair.client, 0, 1000);
	assert_int_equal(ty_client_ping(pair.client, on_done, &pinged, &pair.err), TY_OK);
	wait_for(pair.client, &pinged);
	assert_int_equal(atomic_load(&script.count), 2);
	atomic_store(&script.hold_register, false);
	registered();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_register, setup, teardown),
		cmocka_unit_test_setup_teardown(test_busy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_slot, setup_one, teardown),
		cmocka_unit_test_setup_teardown(test_unregister, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lost, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
