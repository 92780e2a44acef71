/* SPDX-License-Identifier: Apache-2.0
 *
 * The client library against a service that lies, or is broken: what it says is never more than was asked, and what it does not say is not
 * taken for granted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "pair.h"

/* How the fake service answers what follows HELLO and REGISTER. */
struct lies {
	enum fake_answer how;
	bool other_id;        /* the reply is another request's */
	uint32_t registration; /* that REGISTER is answered with */
};

static enum fake_answer lie(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	static Tyer__V1__RegisterReply registered;
	static uint8_t fingerprint[32];
	const struct lies *lies = f->options.user;

	if (request->verb_case == TYER__V1__REQUEST__VERB_HELLO) {
		fake_hello(f, reply);
		return FAKE_REPLY;
	}
	if (request->verb_case == TYER__V1__REQUEST__VERB_REGISTER) {
		tyer__v1__register_reply__init(&registered);
		registered.registration = lies->registration;
		registered.fingerprint = (ProtobufCBinaryData){.len = sizeof fingerprint, .data = fingerprint};
		reply->verb_case = TYER__V1__REPLY__VERB_REGISTER;
		reply->register_ = &registered;
		return FAKE_REPLY;
	}
	if (request->verb_case == TYER__V1__REQUEST__VERB_UNREGISTER)
		return FAKE_REPLY;
	reply->id += lies->other_id;
	return lies->how;
}

static enum ty_code register_pool(struct pair *p, uint32_t *handle)
{
	static const struct ty_plane plane;
	static const struct ty_group group = {16, 1, 256, 256, 1, &plane};
	static const struct ty_region region = {.fd = -1, .allocation_bytes = 4096, .length = 4096};
	struct ty_pool pool = {.region_count = 1, .group_count = 1, .regions = &region, .groups = &group, .parts = 1};
	struct outcome o = {0};

	assert_int_equal(ty_client_register(p->client, &pool, on_done, &o, &p->err), TY_OK);
	wait_for(p->client, &o);
	*handle = o.result.code == TY_OK ? o.result.registered.registration : 0;
	return o.result.code;
}

/* A STORE or RETRIEVE that was answered with something that is no answer: nobody said that no copy of it touches its blocks. */
static void test_nobody_spoke_of_blocks(void **state)
{
	static const uint32_t id, one = 1, *const lists[1] = {&id};
	struct ty_transfer t = {.session = 1, .count = 1, .blocks = lists, .block_counts = &one, .group_count = 1};
	struct lies lies = {.registration = 7};
	struct pair p;

	(void)state;
	pair_start(&p, (struct fake_options){.answer = lie, .user = &lies});
	pair_open(&p);
	assert_int_equal(register_pool(&p, &t.registration), TY_OK);
	for (unsigned i = 0; i < 6; i++) {
		struct outcome o = {0};

		lies.how = i / 2 == 0 ? FAKE_GARBAGE : FAKE_REPLY; /* no reply at all, another request's, or one without its verb's message */
		lies.other_id = i / 2 == 1;
		assert_int_equal(i % 2 ? ty_client_store(p.client, &t, on_done, &o, &p.err) : ty_client_retrieve(p.client, &t, on_done, &o, &p.err),
			TY_OK);
		wait_for(p.client, &o);
		assert_int_equal(o.result.code, TY_PROTOCOL);
		assert_true(o.result.blocks_in_use);
	}
	pair_close(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nobody_spoke_of_blocks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
