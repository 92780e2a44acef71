/* SPDX-License-Identifier: Apache-2.0
 *
 * How far a LIST or EVENTS is followed: to its end, and not for ever.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../../tools/cli/admin.h"

#define FULL 1000

static void followed_to_the_end(void **state)
{
	const struct cli_page begin = {0}, end = {0}, arena = {.cursor = 9}, below = {.below_length = 2};
	struct cli_way way = {0};
	struct ty_error err;

	(void)state;
	assert_int_equal(cli_page_follows(&way, &begin, &arena, FULL, &err), TY_OK);
	assert_int_equal(cli_page_follows(&way, &arena, &below, 3, &err), TY_OK);
	assert_int_equal(cli_page_follows(&way, &below, &end, 0, &err), TY_OK);
	assert_int_equal(way.chunks, FULL + 3);
}

/* Each full page shows that it goes on. */
static void pages_that_the_deadline_cuts(void **state)
{
	struct cli_page asked = {0}, next = {.cursor = 1};
	struct cli_way way = {0};
	struct ty_error err;

	(void)state;
	for (uint32_t i = 0; i < 3 * CLI_BRIEF_MAX; i++, asked = next, next.cursor++)
		assert_int_equal(cli_page_follows(&way, &asked, &next, i % CLI_BRIEF_MAX ? 1 : FULL, &err), TY_OK);
	way.brief = 0;
	for (uint32_t i = 0; i < CLI_BRIEF_MAX; i++, asked = next, next.cursor++)
		assert_int_equal(cli_page_follows(&way, &asked, &next, FULL - 1, &err), TY_OK);
	assert_int_equal(cli_page_follows(&way, &asked, &next, FULL - 1, &err), TY_LIMIT);
	assert_non_null(strstr(err.text, "4097 pages in a row"));
	next.cursor = 0; /* that was all: no limit is passed */
	assert_int_equal(cli_page_follows(&way, &asked, &next, FULL - 1, &err), TY_OK);
}

static void more_than_there_can_be(void **state)
{
	const struct cli_page asked = {.cursor = 1}, next = {.cursor = 2}, end = {0};
	struct cli_way way = {.chunks = CLI_LIST_MAX - FULL};
	struct ty_error err;

	(void)state;
	assert_int_equal(cli_page_follows(&way, &asked, &next, FULL, &err), TY_OK);
	assert_int_equal(cli_page_follows(&way, &asked, &next, FULL, &err), TY_LIMIT);
	assert_non_null(strstr(err.text, "4294968296 chunks, expected at most 4294967296"));
	assert_int_equal(cli_page_follows(&way, &asked, &end, FULL, &err), TY_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(followed_to_the_end),
		cmocka_unit_test(pages_that_the_deadline_cuts),
		cmocka_unit_test(more_than_there_can_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
