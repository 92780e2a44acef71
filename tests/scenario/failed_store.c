/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies that fail (LMCache issues 4991, 5032: a store that failed, a load that failed, were visible for a while, and served
 * bytes that nobody had written). What is found afterwards was stored by somebody who was told so, and holds what he stored.
 */
#include "harness.h"

#include <stdio.h>
#include <string.h>

#define PROMPT 12u
#define ROUNDS 200u

static struct h_service service;

static int setup(void **state)
{
	(void)state;
	h_prepare(&service);
	snprintf(service.config.device[0], sizeof service.config.device[0], "host:fail-every=3");
	h_start(&service);
	return 0;
}

static enum ty_code ok_or(struct h_client *c, enum ty_code code, enum ty_code other)
{
	if (code != TY_OK && code != other)
		fail_msg("%s: %s", ty_code_name(code), c->error);
	return code;
}

static void test_only_what_was_stored_is_found(void **state)
{
	struct h_client writer, reader;
	uint32_t failed = 0, found = 0;

	(void)state;
	h_open(&service, &writer, NULL, "a", 0, 1);
	h_open(&service, &reader, NULL, "a", 0, 1);
	for (uint32_t i = 0; i < ROUNDS; i++) {
		uint32_t base = i * PROMPT, hits;
		bool stored;

		ok_or(&writer, h_lookup(&writer, 1, base, PROMPT), TY_OK);
		assert_int_equal(writer.last.lookup.hits, 0);
		h_fill(&writer, base, PROMPT, 0);
		stored = ok_or(&writer, h_store(&writer, 1, 0, PROMPT, 0), TY_DEVICE_FAILED) == TY_OK;
		failed += !stored;
		ok_or(&writer, h_end(&writer, 1), TY_OK);

		ok_or(&reader, h_lookup(&reader, 1, base, PROMPT), TY_OK);
		hits = reader.last.lookup.hits;
		assert_int_equal(hits, stored ? PROMPT : 0);
		if (hits) {
			h_wipe(&reader, hits, 0);
			while (ok_or(&reader, h_retrieve(&reader, 1, 0, hits, 0), TY_DEVICE_FAILED) != TY_OK)
				failed++;
			assert_int_equal(h_wrong(&reader, base, hits, 0), 0);
			found++;
		}
		ok_or(&reader, h_end(&reader, 1), TY_OK);
	}
	assert_true(failed > ROUNDS / 10 && found > ROUNDS / 10);
	h_close(&reader);
	h_close(&writer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		H_TEST_OF(test_only_what_was_stored_is_found, setup, h_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
