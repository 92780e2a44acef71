/* SPDX-License-Identifier: Apache-2.0
 *
 * The command line of `tyer`.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tools/cli/options.h"

static struct cli_options o;
static struct ty_error err;

static enum ty_code parse(const char *const *args)
{
	int argc = 0;

	while (args[argc])
		argc++;
	err = (struct ty_error){ 0 };
	return cli_options_parse(&o, argc, (char **)(uintptr_t)args, &err);
}
#define PARSE(...) parse((const char *const[]){ "tyer", __VA_ARGS__, NULL })

static void taken(void **state)
{
	(void)state;
	assert_int_equal(PARSE("status"), TY_OK);
	assert_int_equal(o.command, CLI_STATUS);
	assert_int_equal(o.timeout_us, 5000000);
	assert_int_equal(strncmp(o.connect, "ipc:///", 7), 0);
	assert_true(o.connect_default);
	assert_false(o.json);
	assert_int_equal(PARSE("--json", "status", "--connect=tcp://h:1", "--timeout", "250ms"), TY_OK);
	assert_true(o.json);
	assert_string_equal(o.connect, "tcp://h:1");
	assert_false(o.connect_default);
	assert_int_equal(o.timeout_us, 250000);
	assert_int_equal(PARSE("ping", "--count", "3"), TY_OK);
	assert_int_equal(o.command, CLI_PING);
	assert_int_equal(o.count, 3);
	assert_int_equal(PARSE("-h"), TY_OK);
	assert_true(o.help);
	assert_int_equal(PARSE("status", "--version"), TY_OK);
	assert_true(o.version);
}

static void refused(void **state)
{
	static const struct {
		const char *args[4], *text;
	} cases[] = {
		{ { "tyer" }, "found no command" },
		{ { "tyer", "dance" }, "found command \"dance\"" },
		{ { "tyer", "\x1b[2J" }, "found command \"\\x1b[2J\"" },
		{ { "tyer", "ping", "status" }, "found \"status\" after the command ping" },
		{ { "tyer", "ping", "--json" }, "--json: found with ping" },
		{ { "tyer", "status", "--count=2" }, "--count: found with status" },
		{ { "tyer", "status", "--json=1" }, "--json: found a value" },
		{ { "tyer", "status", "--connect" }, "--connect: found no value, expected URL" },
		{ { "tyer", "status", "--connect=" }, "--connect: found no value" },
		{ { "tyer", "ping", "--count=0" }, "--count: found 0" },
		{ { "tyer", "ping", "--count=00" }, "--count: found 00, expected 1 to 1000000" },
		{ { "tyer", "list", "--max=000" }, "--max: found 000" },
		{ { "tyer", "ping", "--count=x" }, "--count: found \"x\"" },
		{ { "tyer", "ping", "--timeout=0" }, "--timeout: found \"0\", expected 1ms to 600s" },
		{ { "tyer", "ping", "--timeout=1h" }, "--timeout: found \"1h\"" },
		{ { "tyer", "--json", "--json" }, "--json: given twice" },
		{ { "tyer", "--verbose", "status" }, "found option \"--verbose\"" },
		{ { "tyer", "configure", "l1-size" }, "found \"l1-size\" after the command configure, expected NAME=VALUE" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_int_equal(parse(cases[i].args), TY_INVALID);
		if (!strstr(err.text, cases[i].text))
			fail_msg("said \"%s\", expected \"%s\"", err.text, cases[i].text);
	}
}

static void too_long(void **state)
{
	char url[400] = "--connect=ipc:///";

	(void)state;
	memset(url + strlen(url), 'x', sizeof url - 1 - strlen(url));
	url[sizeof url - 1] = 0;
	assert_int_equal(PARSE("status", url), TY_INVALID);
	assert_non_null(strstr(err.text, "--connect: found 389 bytes, expected below 256"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(taken),
		cmocka_unit_test(refused),
		cmocka_unit_test(too_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
