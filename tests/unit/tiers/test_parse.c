/* SPDX-License-Identifier: Apache-2.0
 *
 * What --tier says, and what it may not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "actors/tier.h"

static void test_taken(void **state)
{
	struct ty_tier_config c;
	struct ty_error err = {.text = ""};

	(void)state;
	assert_int_equal(ty_tier_parse("disk:/a:b,size=1GiB,write=evict,tenant=a,tenant=b,ops=1024,queue=1,timeout=1ms,pins=1,own=x=y,scrub=yes", &c,
				 &err), TY_OK);
	assert_string_equal(c.kind, "disk");
	assert_string_equal(c.where, "/a:b");
	assert_true(c.size == UINT64_C(1) << 30 && c.write == TY_TIER_WRITE_EVICT && c.tenant_count == 2);
	assert_string_equal(c.tenants[1], "b");
	assert_true(c.ops == 1024 && c.queue == 1 && c.timeout == 1000000 && c.pins == 1 && c.arg_count == 1);
	assert_string_equal(c.args[0].value, "x=y");
	assert_int_equal(c.scrub, TY_TIER_SCRUB_YES);
	assert_int_equal(ty_tier_parse("disk:/a,compress=zstd:7", &c, &err), TY_OK);
	assert_true(c.packing.codec == TY_CODEC_ZSTD && c.packing.level == 7);
	assert_int_equal(ty_tier_parse("disk:/a,compress=lz4", &c, &err), TY_OK);
	assert_int_equal(c.packing.codec, TY_CODEC_LZ4);
	assert_int_equal(ty_tier_parse("disk:/a,compress=none", &c, &err), TY_OK);
	assert_int_equal(c.packing.codec, TY_CODEC_NONE);
	assert_int_equal(ty_tier_parse("redis:h:1", &c, &err), TY_OK);
	assert_true(c.size == UINT64_MAX && c.write == TY_TIER_WRITE_COMMIT && !c.tenant_count && !c.arg_count);
}

static void refused(const char *text, const char *words)
{
	struct ty_tier_config c;
	struct ty_error err = {.text = ""};

	assert_int_equal(ty_tier_parse(text, &c, &err), TY_INVALID);
	if (!strstr(err.text, words))
		fail_msg("\"%s\": says \"%s\", expected \"%s\"", text, err.text, words);
}

static void test_refused(void **state)
{
	char many[TY_CONFIG_TIER_MAX + 2] = "disk:/a", longest[TY_CONFIG_TIER_MAX + 2];

	(void)state;
	refused("disk:/a,scrub=maybe", "scrub: found \"maybe\", expected yes or no");
	refused("", "expected KIND:WHERE");
	refused("disk", "expected KIND:WHERE");
	refused(":/a", "expected KIND:WHERE");
	refused("disk:", "expected KIND:WHERE");
	refused("disk:,size=1GiB", "expected KIND:WHERE");
	refused("a-kind-of-many-letters:/a", "expected KIND:WHERE");
	refused("disk:/a,size", "expected name=value");
	refused("disk:/a,size=", "expected name=value");
	refused("disk:/a,=1GiB", "expected name=value");
	refused("disk:/a,size=much", "size: ");
	refused("disk:/a,size=1MiB", "size: found \"1MiB\"");
	refused("disk:/a,size=99999999999999GiB", "size: ");
	refused("disk:/a,write=often", "write: found \"often\", expected commit, reuse, evict or never");
	refused("disk:/a,ops=0", "ops: found \"0\", expected 1 to 1024");
	refused("disk:/a,ops=1025", "ops: found \"1025\"");
	refused("disk:/a,ops=-1", "ops: ");
	refused("disk:/a,queue=0", "queue: found \"0\"");
	refused("disk:/a,bytes=0", "bytes: found \"0\"");
	refused("disk:/a,pins=-1", "pins: ");
	refused("disk:/a,timeout=0s", "timeout: found \"0s\"");
	refused("disk:/a,timeout=2h30", "timeout: ");
	refused("disk:/a,wait=long", "wait: ");
	refused("disk:/a,compress=gzip", "compress: found \"gzip\", expected none, lz4, or zstd[:LEVEL] with 1 to 19");
	refused("disk:/a,compress=zstd:0", "compress: found \"zstd:0\"");
	refused("disk:/a,compress=zstd:20", "compress: ");
	refused("disk:/a,compress=zstd:", "compress: ");
	refused("disk:/a,compress=zstd:-1", "compress: ");
	refused("disk:/a,compress=lz4:1", "compress: ");
	refused("disk:/a,compress=zst", "compress: ");
	refused("disk:/a,tenant=\x1b[2J", "tenant: control character");
	refused("disk:/a,tenant=\xff", "tenant: ");
	refused("disk:/a,a-setting-that-is-much-too-long=1", "too long");
	for (int i = 0; i <= TY_TIER_TENANTS; i++)
		strcat(many, ",tenant=t");
	refused(many, "tenant: found more than 8");
	strcpy(many, "disk:/a");
	for (int i = 0; i <= TY_TIER_ARGS; i++)
		strcat(many, ",a=b");
	refused(many, "settings of the kind's own");
	memset(longest, 'x', sizeof longest);
	memcpy(longest, "disk:", 5);
	longest[sizeof longest - 1] = 0;
	refused(longest, "expected at most");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {cmocka_unit_test(test_taken), cmocka_unit_test(test_refused)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
