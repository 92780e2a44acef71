/* SPDX-License-Identifier: Apache-2.0
 *
 * The status page: what is on it, in both forms, for a full service, an empty one and one whose strings are hostile.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "base/text.h"
#include "tools/cli/show.h"

#define BOOT 0x00c0ffee12345678u

static Tyer__V1__ArenaStatus arena = TYER__V1__ARENA_STATUS__INIT;
static Tyer__V1__Device device = TYER__V1__DEVICE__INIT;
static Tyer__V1__DeviceStatus device_status = TYER__V1__DEVICE_STATUS__INIT;
static Tyer__V1__ClientStatus client = TYER__V1__CLIENT_STATUS__INIT;
static Tyer__V1__Counter looked_up = TYER__V1__COUNTER__INIT, hit = TYER__V1__COUNTER__INIT;
static Tyer__V1__DeviceStatus *devices[] = { &device_status };
static Tyer__V1__ClientStatus *clients[] = { &client };
static Tyer__V1__Counter *counters[] = { &looked_up, &hit };
static Tyer__V1__StatusReply full = TYER__V1__STATUS_REPLY__INIT;
static uint8_t uuid[16] = { 0xab, 0x01, [15] = 0xff };

static int set_up(void **state)
{
	(void)state;
	arena.size_bytes = 4ull << 30;
	arena.ready_bytes = 1ull << 30;
	arena.used_bytes = 512ull << 20;
	arena.chunks = 1234;
	arena.leases = 3;
	arena.evictions = 77;
	device.name = (char *)(uintptr_t)"cuda:0";
	device.model = (char *)(uintptr_t)"NVIDIA H200";
	device.uuid.data = uuid;
	device.uuid.len = sizeof uuid;
	device_status.device = &device;
	device_status.state = (char *)(uintptr_t)"serving";
	device_status.call = (char *)(uintptr_t)"cuMemHostRegister_v2";
	device_status.call_age_us = 1800;
	device_status.queued = 5;
	device_status.in_flight = 6;
	device_status.stored_bytes = 3ull << 29;
	device_status.retrieved_bytes = 999;
	device_status.mappings = 2;
	device_status.note = (char *)(uintptr_t)"";
	client.name = (char *)(uintptr_t)"vllm-0";
	client.client = 0x10001;
	client.pid = 4711;
	client.uid = 1000;
	client.tenant = (char *)(uintptr_t)"acme";
	client.model = (char *)(uintptr_t)"llama-3.1-8b";
	client.registrations = 1;
	client.sessions = 8;
	client.operations = 2;
	client.leases = 300;
	looked_up.name = (char *)(uintptr_t)CLI_COUNTER_LOOKED_UP;
	looked_up.value = 288500;
	hit.name = (char *)(uintptr_t)CLI_COUNTER_HIT;
	hit.value = 105710;
	full.version = (char *)(uintptr_t)"0.1.0";
	full.uptime_us = 93784000000;
	full.arena = &arena;
	full.n_devices = full.n_clients = 1;
	full.devices = devices;
	full.clients = clients;
	full.n_counters = 2;
	full.counters = counters;
	return 0;
}

/* Through the wire and shown; the caller frees. */
static char *show(bool (*how)(FILE *, uint64_t, const Tyer__V1__StatusReply *), const Tyer__V1__StatusReply *s)
{
	size_t length = tyer__v1__status_reply__get_packed_size(s), size;
	uint8_t *bytes = malloc(length + 1);
	Tyer__V1__StatusReply *read_back;
	char *text = NULL;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(bytes);
	assert_non_null(out);
	assert_int_equal(tyer__v1__status_reply__pack(s, bytes), length);
	read_back = tyer__v1__status_reply__unpack(NULL, length, bytes);
	assert_non_null(read_back);
	assert_true(how(out, BOOT, read_back));
	assert_int_equal(fclose(out), 0);
	tyer__v1__status_reply__free_unpacked(read_back, NULL);
	free(bytes);
	for (size_t at = 0; at < size;) {
		uint32_t code;

		at += ty_utf8_next(text + at, size - at, &code);
		assert_true(code == '\n' || (code >= 0x20 && (code < 0x7f || code > 0x9f)));
	}
	return text;
}

static void has(const char *text, const char *what)
{
	if (!strstr(text, what))
		fail_msg("not there: %s\nin:\n%s", what, text);
}

/* Tiers are shown from their counters; one whose name is none of a tier is left out, whatever it holds. */
static void tiers(void **state)
{
	static const struct { const char *name; double value; } all[] = {
		{"tyer_tier_serving{tier=\"0\",kind=\"disk\"}", 1}, {"tyer_tier_chunks{tier=\"0\",kind=\"disk\"}", 12},
		{"tyer_tier_used_bytes{tier=\"0\",kind=\"disk\"}", 1048576}, {"tyer_tier_serving{tier=\"1\",kind=\"s3\"}", 0},
		{"tyer_tier_down{tier=\"1\",kind=\"s3\"}", 1}, {"tyer_tier_written_bytes_total{tier=\"1\",kind=\"s3\"}", 2048},
		{"tyer_tier_quarantined_total{tier=\"1\",kind=\"s3\"}", -1}, {"tyer_tier_serving{tier=\"2\",kind=\"redis\"}", 0},
		{"tyer_tier_pack_input_bytes_total{tier=\"0\",kind=\"disk\"}", 1000}, {"tyer_tier_pack_output_bytes_total{tier=\"0\",kind=\"disk\"}", 712},
		{"tyer_tier_serving{tier=\"", 1}, {"tyer_tier_serving{tier=\"123456789\",kind=\"x\"}", 1}, {"tyer_tier_serving{\x1b}", 1},
	};
	Tyer__V1__Counter counter[sizeof all / sizeof all[0]], *list[sizeof all / sizeof all[0]];
	Tyer__V1__StatusReply reply = full;
	char *text;

	(void)state;
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		tyer__v1__counter__init(&counter[i]);
		counter[i].name = (char *)(uintptr_t)all[i].name;
		counter[i].value = all[i].value;
		list[i] = &counter[i];
	}
	reply.n_counters = sizeof all / sizeof all[0];
	reply.counters = list;
	text = show(cli_show_text, &reply);
	has(text, "\n\nTIER  KIND   STATE        CHUNKS     USED  PACKED  WRITTEN  READ  WAITING  DROPPED  WRONG\n"
		  "0     disk   serving          12  1.0 MiB     71%      0 B   0 B        0        0      0\n"
		  "1     s3     down              0      0 B       -  2.0 KiB   0 B        0        0      0\n"
		  "2     redis  not serving       0      0 B       -      0 B   0 B        0        0      0\n\n");
	free(text);
	text = show(cli_show_text, &full);
	assert_null(strstr(text, "TIER"));
	free(text);
}

static void full_page(void **state)
{
	char *text = show(cli_show_text, &full);

	(void)state;
	has(text, "Tyer     0.1.0, boot 00c0ffee12345678, up 1 d 02:03\n");
	has(text, "Arena    4.0 GiB, ready 1.0 GiB, used 512 MiB (12.5 %)\n");
	has(text, "Chunks   1234 here, 3 leases, 77 evicted\n");
	has(text, "Hits     105710 of 288500 chunks looked up (36.6 %)\n");
	has(text, "DEVICE  MODEL        STATE    NOW                           QUEUED  IN FLIGHT   STORED  RETRIEVED  MAPPINGS\n"
		  "cuda:0  NVIDIA H200  serving  cuMemHostRegister_v2 1800 us       5          6  1.5 GiB      999 B         2\n");
	has(text, "CLIENT   PID   UID  TENANT  MODEL         REGISTRATIONS  SESSIONS  OPERATIONS  LEASES\n"
		  "vllm-0  4711  1000  acme    llama-3.1-8b              1         8           2     300\n");
	free(text);
	device_status.note = (char *)(uintptr_t)"no kernels";
	arena.failed_bytes = 64 << 20;
	text = show(cli_show_text, &full);
	has(text, "\ncuda:0: no kernels\n");
	has(text, "(12.5 %), failed 64.0 MiB\n");
	arena.failed_bytes = 0;
	free(text);
}

static void empty_page(void **state)
{
	const Tyer__V1__StatusReply empty = TYER__V1__STATUS_REPLY__INIT;
	char *text = show(cli_show_text, &empty);

	(void)state;
	has(text, "Hits     not counted by this service\n");
	has(text, "No clients.\n");
	free(text);
	looked_up.value = hit.value = 0;
	text = show(cli_show_text, &full);
	has(text, "Hits     no chunk looked up\n");
	free(text);
	text = show(cli_show_json, &empty);
	has(text, "\"hit_rate\": null");
	free(text);
}

static json_int_t integer(const json_t *object, const char *name)
{
	const json_t *value = json_object_get(object, name);

	if (!json_is_integer(value))
		fail_msg("no integer: %s", name);
	return json_integer_value(value);
}

static const char *string(const json_t *object, const char *name)
{
	const char *value = json_string_value(json_object_get(object, name));

	if (!value)
		fail_msg("no string: %s", name);
	return value;
}

static void full_json(void **state)
{
	char *text = show(cli_show_json, &full);
	json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL), *part;

	(void)state;
	assert_non_null(root);
	assert_string_equal(string(root, "version"), "0.1.0");
	assert_string_equal(string(root, "boot"), "00c0ffee12345678");
	assert_int_equal(integer(root, "uptime_us"), 93784000000);
	assert_true(json_real_value(json_object_get(root, "hit_rate")) > 0.3664);
	assert_true(json_real_value(json_object_get(root, "hit_rate")) < 0.3665);
	part = json_object_get(root, "arena");
	assert_int_equal(integer(part, "size_bytes"), 4ull << 30);
	assert_int_equal(integer(part, "ready_bytes"), 1ull << 30);
	assert_int_equal(integer(part, "used_bytes"), 512 << 20);
	assert_int_equal(integer(part, "chunks"), 1234);
	assert_int_equal(integer(part, "leases"), 3);
	assert_int_equal(integer(part, "evictions"), 77);
	assert_int_equal(integer(part, "failed_bytes"), 0);
	assert_int_equal(json_array_size(json_object_get(root, "devices")), 1);
	part = json_array_get(json_object_get(root, "devices"), 0);
	assert_string_equal(string(part, "name"), "cuda:0");
	assert_string_equal(string(part, "uuid"), "ab0100000000000000000000000000ff");
	assert_string_equal(string(part, "call"), "cuMemHostRegister_v2");
	assert_int_equal(integer(part, "call_age_us"), 1800);
	assert_int_equal(integer(part, "stored_bytes"), 3ull << 29);
	assert_int_equal(json_array_size(json_object_get(root, "clients")), 1);
	part = json_array_get(json_object_get(root, "clients"), 0);
	assert_string_equal(string(part, "client"), "0000000000010001");
	assert_int_equal(integer(part, "leases"), 300);
	part = json_object_get(root, "counters");
	assert_int_equal(json_object_size(part), 2);
	assert_true(json_real_value(json_object_get(part, CLI_COUNTER_HIT)) == 105710);
	json_decref(root);
	free(text);
}

/* `show` asserts that neither form lets a control character or malformed UTF-8 through. */
static void hostile_strings(void **state)
{
	char long_name[3000];
	char *text;

	(void)state;
	memset(long_name, '"', sizeof long_name - 1);
	long_name[sizeof long_name - 1] = 0;
	client.name = (char *)(uintptr_t)"a\x1b[31m\nroot 0 0\xff\xc2\x9b\xe2\x80\xae";
	client.tenant = long_name;
	client.leases = UINT64_MAX;
	device.name = (char *)(uintptr_t)"\r";
	device_status.note = long_name;
	device_status.call = long_name;
	hit.value = 1.0 / 0.0;
	arena.used_bytes = UINT64_MAX;
	text = show(cli_show_text, &full);
	has(text, "a\\x1b[31m\\nroot 0 0\xef\xbf\xbd\\u009b\\u202e");
	has(text, "\n\\r ");
	has(text, "\"\"..  ");
	free(text);
	text = show(cli_show_json, &full);
	assert_non_null(text);
	json_decref(json_loads(text, JSON_REJECT_DUPLICATES, NULL));
	free(text);
}

static void output_that_fails(void **state)
{
	FILE *out = fopen("/dev/full", "w");

	(void)state;
	assert_non_null(out);
	setvbuf(out, NULL, _IONBF, 0);
	assert_false(cli_show_text(out, BOOT, &full));
	fclose(out);
	out = fopen("/dev/full", "w");
	assert_non_null(out);
	setvbuf(out, NULL, _IONBF, 0);
	assert_false(cli_show_json(out, BOOT, &full));
	fclose(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(full_page, set_up),
		cmocka_unit_test_setup(tiers, set_up),
		cmocka_unit_test_setup(empty_page, set_up),
		cmocka_unit_test_setup(full_json, set_up),
		cmocka_unit_test_setup(hostile_strings, set_up),
		cmocka_unit_test_setup(output_that_fails, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
