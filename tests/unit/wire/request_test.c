/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests and replies off the wire: sizes, versions, verbs, timeouts, and messages that are built to cost much.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/layout.h"
#include "wire/request.h"

static uint8_t *pack(const Tyer__V1__Request *request, size_t *length)
{
	uint8_t *bytes;

	*length = tyer__v1__request__get_packed_size(request);
	bytes = malloc(*length + 1);
	tyer__v1__request__pack(request, bytes);
	return bytes;
}

static void test_good(void **state)
{
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT, *back;
	Tyer__V1__Ping ping = TYER__V1__PING__INIT;
	struct ty_error err;
	uint8_t *bytes;
	size_t length;

	(void)state;
	request.version = 1;
	request.id = 77;
	request.timeout_us = 1000;
	request.verb_case = TYER__V1__REQUEST__VERB_PING;
	request.ping = &ping;
	bytes = pack(&request, &length);
	assert_int_equal(ty_request_unpack(bytes, length, (uint32_t)length, &back, &err), TY_OK);
	assert_int_equal(back->id, 77);
	assert_int_equal(ty_request_check(back, 1000, &err), TY_OK);
	assert_int_equal(ty_request_check(back, 999, &err), TY_INVALID);
	assert_non_null(strstr(err.text, "timeout_us is 1000"));
	back->version = 2;
	assert_int_equal(ty_request_check(back, 1000, &err), TY_UNSUPPORTED);
	assert_non_null(strstr(err.text, "version is 2, expected 1"));
	ty_request_free(back);

	assert_int_equal(ty_request_unpack(bytes, length, (uint32_t)length - 1, &back, &err), TY_LIMIT);
	assert_non_null(strstr(err.text, "max_request_bytes"));
	assert_null(back);
	free(bytes);
	/* nothing at all is a request without a verb; field 99 is a verb of a later version */
	assert_int_equal(ty_request_unpack("", 0, 10, &back, &err), TY_OK);
	assert_int_equal(ty_request_check(back, 1, &err), TY_UNSUPPORTED);
	ty_request_free(back);
	assert_int_equal(ty_request_unpack("\x08\x01\x9a\x06\x00", 5, 10, &back, &err), TY_OK);
	assert_int_equal(ty_request_check(back, 1, &err), TY_UNSUPPORTED);
	assert_non_null(strstr(err.text, "verb"));
	ty_request_free(back);
	ty_request_free(NULL);
}

static void test_garbage(void **state)
{
	static const struct {
		const char *bytes;
		size_t length;
	} cases[] = {
		{"\xff", 1},                                             /* a tag that does not end */
		{"\x08", 1},                                             /* a number that is not there */
		{"\x11\x01\x02", 3},                                     /* a fixed64 of two bytes */
		{"\x52\x05\x00", 3},                                     /* Ping of five bytes, one there */
		{"\x52\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11},    /* a length of 2^64 - 1 */
		{"\x52\xff\xff\xff\xff\x0f", 6},                         /* of 2^32 - 1 */
		{"\x0b\x0c", 2},                                         /* a group */
		{"\x62\x02\x0a\x7f", 4},                                 /* Hello.token of 127 bytes in a Hello of two */
	};
	Tyer__V1__Request *back;
	struct ty_error err;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		uint8_t *exact = malloc(cases[i].length);

		memcpy(exact, cases[i].bytes, cases[i].length);
		if (ty_request_unpack(exact, cases[i].length, 100, &back, &err) != TY_PROTOCOL)
			fail_msg("case %zu", i);
		assert_null(back);
		free(exact);
	}
}

/* What a well-formed REGISTER of the largest kind costs is allowed, by a margin; here with the shortest planes there are. */
static void test_largest_register(void **state)
{
	Tyer__V1__Register reg = TYER__V1__REGISTER__INIT;
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT, *back;
	Tyer__V1__Group *groups = calloc(TY_MAX_GROUPS, sizeof *groups), *group_at[TY_MAX_GROUPS];
	Tyer__V1__Region *regions = calloc(TY_MAX_REGIONS, sizeof *regions), *region_at[TY_MAX_REGIONS];
	Tyer__V1__Plane plane = TYER__V1__PLANE__INIT, **plane_at = calloc(TY_MAX_PLANES, sizeof *plane_at);
	uint8_t handle[64] = {0}, *bytes;
	struct ty_error err;
	size_t length;

	(void)state;
	for (int i = 0; i < TY_MAX_PLANES; i++)
		plane_at[i] = &plane;
	for (int i = 0; i < TY_MAX_GROUPS; i++) {
		tyer__v1__group__init(&groups[i]);
		groups[i].n_planes = TY_MAX_PLANES;
		groups[i].planes = plane_at;
		group_at[i] = &groups[i];
	}
	for (int i = 0; i < TY_MAX_REGIONS; i++) {
		tyer__v1__region__init(&regions[i]);
		regions[i].memory_case = TYER__V1__REGION__MEMORY_IPC_HANDLE;
		regions[i].ipc_handle = (ProtobufCBinaryData){.len = 64, .data = handle};
		region_at[i] = &regions[i];
	}
	reg.n_groups = TY_MAX_GROUPS;
	reg.groups = group_at;
	reg.n_regions = TY_MAX_REGIONS;
	reg.regions = region_at;
	request.verb_case = TYER__V1__REQUEST__VERB_REGISTER;
	request.register_ = &reg;
	bytes = pack(&request, &length);
	if (ty_request_unpack(bytes, length, 1 << 22, &back, &err) != TY_OK)
		fail_msg("%s", err.text);
	assert_int_equal(back->register_->n_groups, TY_MAX_GROUPS);
	assert_int_equal(back->register_->groups[7]->n_planes, TY_MAX_PLANES);
	ty_request_free(back);
	free(bytes);
	free(groups);
	free(regions);
	free(plane_at);
}

/* Tokens as clients send them, one byte each at the least: four bytes of memory each. */
static void test_largest_lookup(void **state)
{
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT, *back;
	Tyer__V1__Lookup lookup = TYER__V1__LOOKUP__INIT;
	Tyer__V1__Chain chain = TYER__V1__CHAIN__INIT;
	uint32_t *tokens = calloc(4000000, sizeof *tokens);
	struct ty_error err;
	uint8_t *bytes;
	size_t length;

	(void)state;
	chain.n_tokens = 4000000;
	chain.tokens = tokens;
	lookup.chain = &chain;
	request.verb_case = TYER__V1__REQUEST__VERB_LOOKUP;
	request.lookup = &lookup;
	bytes = pack(&request, &length);
	if (ty_request_unpack(bytes, length, 1 << 22, &back, &err) != TY_OK)
		fail_msg("%s", err.text);
	assert_int_equal(back->lookup->chain->n_tokens, 4000000);
	ty_request_free(back);
	free(bytes);
	free(tokens);
}

/* Messages of a mebibyte that would cost forty without a bound: many empty submessages, many unknown fields, one oneof given over and
 * over. What is refused leaves nothing behind (the sanitizers say so), and never takes more than the bound. */
static void test_amplifiers(void **state)
{
	static const struct {
		uint32_t field;       /* of Request */
		uint8_t unit[4];
		size_t unit_length;
		bool deep;            /* inside a Group inside the Register */
	} cases[] = {
		{13, {0x12, 0x00}, 2, false}, /* Register.regions: {} */
		{13, {0x1a, 0x00}, 2, false}, /* Register.groups: {} */
		{13, {0x2a, 0x00}, 2, true},  /* Group.planes: {} */
		{13, {0x78, 0x00}, 2, false}, /* Register, unknown field 15 */
		{16, {0x2a, 0x00}, 2, false}, /* Retrieve.blocks: {} */
		{15, {0x12, 0x00}, 2, false}, /* Lookup.chain: {} merged over and over */
	};
	const size_t size = 1 << 20;
	uint8_t *bytes = malloc(size + 64);

	(void)state;
	for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
		Tyer__V1__Request *back;
		struct ty_error err;
		enum ty_code code;
		size_t at = 0, body = size, tag = cases[k].field << 3 | 2;
		size_t before = mallinfo2().uordblks, after;

		/* tag, then the length as a varint of five bytes */
#define PUT_LENGTH(n) \
	do { \
		size_t left = (n); \
		for (int b = 0; b < 5; b++, left >>= 7) \
			bytes[at++] = (uint8_t)((left & 0x7f) | (b < 4 ? 0x80 : 0)); \
	} while (0)
		if (tag >= 0x80) {
			bytes[at++] = (uint8_t)(tag | 0x80);
			bytes[at++] = (uint8_t)(tag >> 7);
		} else {
			bytes[at++] = (uint8_t)tag;
		}
		PUT_LENGTH(cases[k].deep ? body + 6 : body);
		if (cases[k].deep) {
			bytes[at++] = 0x1a;
			PUT_LENGTH(body);
		}
		for (size_t i = 0; i < body; i += cases[k].unit_length, at += cases[k].unit_length)
			memcpy(bytes + at, cases[k].unit, cases[k].unit_length);
		code = ty_request_unpack(bytes, at, 1 << 22, &back, &err);
		if (code == TY_OK) {
			after = mallinfo2().uordblks;
			if (after > before)
				assert_true(after - before <= at * TY_UNPACK_FACTOR + TY_UNPACK_BASE);
			ty_request_free(back);
		} else {
			assert_int_equal(code, TY_LIMIT);
			assert_null(back);
		}
		if (k < 5 && code != TY_LIMIT)
			fail_msg("case %zu was let through", k);
	}
	free(bytes);
}

static void test_replies(void **state)
{
	Tyer__V1__Reply reply = TYER__V1__REPLY__INIT, *back;
	uint8_t bytes[64];
	struct ty_error err;
	size_t length;

	(void)state;
	reply.code = TYER__V1__CODE__INTERNAL;
	reply.id = 5;
	length = tyer__v1__reply__pack(&reply, bytes);
	assert_int_equal(ty_reply_unpack(bytes, length, &back, &err), TY_OK);
	assert_int_equal(back->id, 5);
	ty_reply_free(back);
	reply.code = (Tyer__V1__Code)TY_CODE_COUNT;
	length = tyer__v1__reply__pack(&reply, bytes);
	assert_int_equal(ty_reply_unpack(bytes, length, &back, &err), TY_PROTOCOL);
	assert_non_null(strstr(err.text, "Reply.code is 23"));
	reply.code = (Tyer__V1__Code)-1;
	length = tyer__v1__reply__pack(&reply, bytes);
	assert_int_equal(ty_reply_unpack(bytes, length, &back, &err), TY_PROTOCOL);
	assert_int_equal(ty_reply_unpack(bytes, (size_t)TY_REPLY_MAX_BYTES + 1, &back, &err), TY_LIMIT);
	assert_int_equal(ty_reply_unpack("\xff", 1, &back, &err), TY_PROTOCOL);
	ty_reply_free(NULL);
}

/* STATUS of a service with all the clients that there may be. */
static void test_largest_status(void **state)
{
	Tyer__V1__Reply reply = TYER__V1__REPLY__INIT, *back;
	Tyer__V1__StatusReply status = TYER__V1__STATUS_REPLY__INIT;
	Tyer__V1__ClientStatus client = TYER__V1__CLIENT_STATUS__INIT, *clients[1024];
	Tyer__V1__Counter counter = TYER__V1__COUNTER__INIT, *counters[2048];
	struct ty_error err;
	uint8_t *bytes;
	size_t length;

	(void)state;
	client.name = (char *)"n";
	client.client = 1;
	counter.name = (char *)"tyer_requests_total{verb=\"LOOKUP\"}";
	counter.value = 1;
	for (int i = 0; i < 1024; i++)
		clients[i] = &client;
	for (int i = 0; i < 2048; i++)
		counters[i] = &counter;
	status.n_clients = 1024;
	status.clients = clients;
	status.n_counters = 2048;
	status.counters = counters;
	reply.verb_case = TYER__V1__REPLY__VERB_STATUS;
	reply.status = &status;
	length = tyer__v1__reply__get_packed_size(&reply);
	bytes = malloc(length);
	tyer__v1__reply__pack(&reply, bytes);
	if (ty_reply_unpack(bytes, length, &back, &err) != TY_OK)
		fail_msg("%s", err.text);
	assert_int_equal(back->status->n_clients, 1024);
	ty_reply_free(back);
	free(bytes);
}

static void test_text(void **state)
{
	static const char *const good[] = {"", "abc", "Tyer \xc3\xa9\xe2\x82\xac\xf0\x9f\x9a\x82", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"};
	static const char *const bad[] = {"\x01", "\n", "\x7f", "\xc2\x80", "\x80", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80",
		"\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "a\xc3", "a\xe2\x82", "\xe2\x80\xa8", "\xff"};
	struct ty_error err;

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
		assert_int_equal(ty_wire_check_text("f", good[i], 0, 64, &err), TY_OK);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		if (ty_wire_check_text("f", bad[i], 0, 64, &err) != TY_INVALID)
			fail_msg("text %zu", i);
	assert_int_equal(ty_wire_check_text("f", NULL, 0, 64, &err), TY_OK);
	assert_int_equal(ty_wire_check_text("f", NULL, 1, 64, &err), TY_INVALID);
	assert_int_equal(ty_wire_check_text("f", "abcd", 0, 3, &err), TY_INVALID);
	assert_non_null(strstr(err.text, "f is 4 bytes long, expected 0..3"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_largest_register),
		cmocka_unit_test(test_largest_lookup),
		cmocka_unit_test(test_amplifiers),
		cmocka_unit_test(test_replies),
		cmocka_unit_test(test_largest_status),
		cmocka_unit_test(test_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
