/* SPDX-License-Identifier: Apache-2.0
 *
 * All of the arena is leased, and somebody wants to store (LMCache 4817: the thread that evicts died, and the arena was frozen; 3187:
 * 17,000 failed allocations in four hours, everything being pinned). It is answered, and as soon as a lease ends there is room.
 */
#include "harness.h"

#define PROMPT 60

static struct h_service service;

/* A prompt of its own for each session, leased until the session ends. Its code if it was not stored, or not all of it. */
static enum ty_code store_and_lease(struct h_client *c, uint32_t session, uint32_t *stored)
{
	uint32_t base = 500000 + session * PROMPT;
	enum ty_code code;

	h_ok(c, h_lookup(c, session, base, PROMPT));
	h_fill(c, base, PROMPT, 0);
	code = h_store(c, session, 0, PROMPT, 0);
	if (code == TY_OK) {
		*stored += c->last.store.stored;
		h_ok(c, h_lookup(c, session, base, PROMPT));
	}
	return code;
}

static void test_pinned(void **state)
{
	uint32_t stored = 0, sessions = 0;
	struct h_client c, other;
	enum ty_code code;

	(void)state;
	h_open(&service, &c, NULL, "pinned", 0, 1);
	h_open(&service, &other, NULL, "other", 0, 1);
	do
		code = store_and_lease(&c, ++sessions, &stored);
	while (code == TY_OK);
	assert_int_equal(code, TY_NO_SPACE);
	assert_in_range(stored, 4096, 8192); /* 128 MiB are 8192 */
	for (int i = 0; i < 20; i++) { /* it says so each time, to everybody, and the rest goes on */
		h_ok(&other, h_lookup(&other, 1, 900, 2));
		h_fill(&other, 900, 2, 0);
		assert_int_equal(h_store(&other, 1, 0, 2, 0), TY_NO_SPACE);
		h_ok(&c, h_retrieve(&c, 1, 0, PROMPT, 0));
		assert_int_equal(h_wrong(&c, 500000 + PROMPT, PROMPT, 0), 0);
	}
	h_ok(&c, h_end(&c, 1)); /* what one session gave back is room again */
	h_ok(&other, h_store(&other, 1, 0, 2, 0));
	assert_int_equal(other.last.store.stored, 2);
	h_ok(&other, h_end(&other, 1));
	h_close(&c); /* and all of it is, without anybody's asking */
	h_idle(&service, true);
	stored = 0;
	for (uint32_t session = 1; session < sessions; session++)
		h_ok(&other, store_and_lease(&other, session, &stored));
	assert_in_range(stored, 4096, 8192);
	h_close(&other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {H_TEST(test_pinned)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
