/* SPDX-License-Identifier: Apache-2.0
 *
 * Option structs of other versions: those before have fewer fields, those after have more.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/options.h"

struct first {
	size_t size;
	uint64_t number;
};
struct second { /* this version */
	size_t size;
	uint64_t number;
	const char *name;
	int cpu; /* -1 by default */
};
struct third {
	struct second known;
	uint64_t later[3];
};

static const struct second defaults = {.size = sizeof defaults, .cpu = -1};

static const struct second *take(const void *given, struct second *room, struct ty_error *err)
{
	memset(room, 0x5a, sizeof *room);
	return ty_options_take(given, sizeof *room, &defaults, room, err);
}

static void same_version(void **state)
{
	const struct second given = {.size = sizeof given, .number = 3, .cpu = 0};
	struct second room;
	struct ty_error err;

	(void)state;
	assert_ptr_equal(take(&given, &room, &err), &given);
	assert_ptr_equal(take(NULL, &room, &err), &defaults);
}

static void older_version(void **state)
{
	const struct first given = {.size = sizeof given, .number = 3};
	const size_t none = sizeof none;
	const struct second *taken;
	struct second room;
	struct ty_error err;

	(void)state;
	taken = take(&given, &room, &err);
	assert_non_null(taken);
	assert_int_equal(taken->size, sizeof *taken);
	assert_int_equal(taken->number, 3);
	assert_null(taken->name);
	assert_int_equal(taken->cpu, -1);
	taken = take(&none, &room, &err);
	assert_non_null(taken);
	assert_int_equal(taken->number, 0);
	assert_int_equal(taken->cpu, -1);
}

static void newer_version(void **state)
{
	struct third given = {.known = {.size = sizeof given, .number = 3, .name = "n", .cpu = 7}};
	const struct second *taken;
	struct second room;
	struct ty_error err;

	(void)state;
	taken = take(&given, &room, &err);
	assert_non_null(taken);
	assert_int_equal(taken->size, sizeof *taken);
	assert_int_equal(taken->number, 3);
	assert_string_equal(taken->name, "n");
	assert_int_equal(taken->cpu, 7);
	for (size_t i = sizeof given.known; i < sizeof given; i++) {
		((unsigned char *)&given)[i] = 1;
		assert_null(take(&given, &room, &err));
		assert_int_equal(err.code, TY_UNSUPPORTED);
		assert_non_null(strstr(err.text, "this library knows 32 bytes"));
		((unsigned char *)&given)[i] = 0;
	}
}

static void no_version(void **state)
{
	static const size_t sizes[] = {0, 1, 7, 9, 20, 33, TY_OPTIONS_MAX + 8, SIZE_MAX, SIZE_MAX - 7};
	struct third given = {.known = {.number = 3}};
	struct second room;
	struct ty_error err;

	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		given.known.size = sizes[i];
		assert_null(take(&given, &room, &err));
		assert_int_equal(err.code, TY_INVALID);
		assert_non_null(strstr(err.text, "options.size"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_version),
		cmocka_unit_test(older_version),
		cmocka_unit_test(newer_version),
		cmocka_unit_test(no_version),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
