/* SPDX-License-Identifier: Apache-2.0
 *
 * The S3 tier against a server that misbehaves as told. The runtime is deterministic and the server is moved between its steps: time is
 * logical, so what is silent for ten seconds costs none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "actors/s3.h"
#include "s3_server.h"
#include "base/log.h"
#include "cache/checksum.h"

#define CHUNK 10000 /* no multiple of anything */
#define SECOND INT64_C(1000000000)
enum { LAB_RUN = 0x900, LAB_HOME };

static struct lab {
	struct s3_server server;
	struct ty_config config;
	struct ty_service *service;
	struct ty_tier *tier;
	struct ty_actor *driver;
	struct ty_msg start, stop;
	unsigned home;
	int64_t timeout;
	char error[256];
} lab;

/* ---- a tier and its user ---------------------------------------------------------------------------------------- */

static void on_home(void *self, struct ty_msg *msg)
{
	(void)self;
	(void)msg;
	lab.home++;
}

struct batch { struct ty_msg msg; struct ty_tier_io **ios; uint32_t count; };

static void on_run(void *self, struct ty_msg *msg)
{
	struct batch *b = ty_container_of(msg, struct batch, msg);

	(void)self;
	for (uint32_t i = 0; i < b->count; i++) {
		b->ios[i]->home = ty_self();
		b->ios[i]->home_type = LAB_HOME;
		b->ios[i]->deadline = ty_now() + lab.tier->config.timeout;
		assert_true(ty_tier_submit(lab.tier, b->ios[i]));
	}
}

static const struct ty_handler handlers[] = {{"run", on_run}, {"home", on_home}};
static const struct ty_class driver_class = {.name = "driver", .first_type = LAB_RUN, .type_count = 2, .handlers = handlers};

static _Atomic bool pumping;

static void *pump_thread(void *arg)
{
	(void)arg;
	while (atomic_load(&pumping))
		if (!s3_server_pump(&lab.server))
			sched_yield();
	return NULL;
}

static enum ty_code open_tier(const char *settings)
{
	struct ty_runtime_options options = {.size = sizeof options, .seed = 1};
	struct ty_spawn_options own = {.size = sizeof own, .executor = TY_DEDICATED, .cpu = -1};
	struct ty_error err = {.text = ""};
	pthread_t thread;
	enum ty_code code;

	lab.service = calloc(1, sizeof *lab.service);
	lab.service->config = &lab.config;
	memset(&lab.config, 0, sizeof lab.config);
	lab.config.l1_size = 2 * TY_PIECE_BYTES;
	lab.config.tier_count = 1;
	lab.config.pack_threads = 1;
	snprintf(lab.config.tier[0], sizeof lab.config.tier[0], "s3:http://127.0.0.1:%u/kv%s", lab.server.port, settings);
	assert_int_equal(ty_arena_open(lab.config.l1_size, &lab.service->arena, &err), TY_OK);
	assert_int_equal(ty_index_create(&lab.service->index, &err), TY_OK);
	atomic_store(&pumping, true); /* it is asked once, and waited for, before anything runs */
	assert_int_equal(pthread_create(&thread, NULL, pump_thread, NULL), 0);
	code = ty_tiers_open(lab.service, &err);
	atomic_store(&pumping, false);
	pthread_join(thread, NULL);
	snprintf(lab.error, sizeof lab.error, "%s", err.text);
	if (code != TY_OK) {
		ty_index_destroy(lab.service->index);
		ty_arena_close(&lab.service->arena);
		free(lab.service);
		return code;
	}
	lab.tier = lab.service->tiers[0];
	assert_int_equal(ty_runtime_create(&options, &lab.service->rt, &err), TY_OK);
	assert_int_equal(ty_spawn(lab.service->rt, &driver_class, NULL, NULL, &lab.driver), TY_OK);
	assert_int_equal(ty_packers_spawn(lab.service, &err), TY_OK);
	assert_int_equal(lab.tier->cls->spawn(lab.tier, &err), TY_OK);
	assert_int_equal(ty_spawn(lab.service->rt, lab.tier->cls->actor, lab.tier, &own, &lab.tier->actor), TY_OK);
	lab.start = lab.stop = (struct ty_msg)TY_MSG_INIT;
	assert_int_equal(ty_send(lab.tier->actor, &lab.start, TY_TIER_START), TY_OK);
	while (atomic_load(&lab.tier->stats.state) == TY_TIER_STARTING)
		assert_true(ty_runtime_step(lab.service->rt));
	return TY_OK;
}

static void step(void)
{
	while (s3_server_pump(&lab.server))
		;
	(void)ty_runtime_step(lab.service->rt);
}

static void pass(int64_t ns)
{
	int64_t until = ty_runtime_now(lab.service->rt) + ns;

	while (ty_runtime_now(lab.service->rt) < until) {
		while (s3_server_pump(&lab.server))
			;
		if (!ty_runtime_step(lab.service->rt))
			return;
	}
}

static void close_tier(void)
{
	assert_int_equal(ty_send(lab.tier->actor, &lab.stop, TY_TIER_STOP), TY_OK);
	pass(SECOND);
	ty_runtime_destroy(lab.service->rt);
	ty_actor_unref(lab.driver);
	ty_actor_unref(lab.tier->actor);
	lab.tier->cls->release(lab.tier);
	ty_packers_release(lab.service);
	ty_tiers_close(lab.service);
	ty_index_destroy(lab.service->index);
	ty_arena_close(&lab.service->arena);
	free(lab.service);
}

static int open_lab(void **state)
{
	(void)state;
	memset(&lab, 0, sizeof lab);
	lab.server.id = "AKIDEXAMPLE";
	lab.server.secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
	setenv("AWS_ACCESS_KEY_ID", lab.server.id, 1);
	setenv("AWS_SECRET_ACCESS_KEY", lab.server.secret, 1);
	unsetenv("AWS_SESSION_TOKEN");
	s3_server_open(&lab.server);
	return 0;
}

static int close_lab(void **state)
{
	(void)state;
	s3_server_close(&lab.server);
	return 0;
}

/* ---- chunks ------------------------------------------------------------------------------------------------------- */

static struct ty_key key_of(uint64_t number)
{
	struct ty_key key;

	for (size_t i = 0; i < sizeof key.bytes; i++)
		key.bytes[i] = (uint8_t)(number * 131 + i * 7 + (number >> (i % 8)));
	return key;
}

static void name_of(uint64_t number, char out[128])
{
	struct ty_key key = key_of(number);
	int n = snprintf(out, 128, "/kv/tyer/");

	for (size_t i = 0; i < sizeof key.bytes; i++)
		n += snprintf(out + n, 128 - (size_t)n, "%02x", key.bytes[i]);
}

static struct s3_object *object_of(uint64_t number)
{
	char name[128];

	name_of(number, name);
	return s3_server_find(&lab.server, name);
}

static uint8_t byte_of(uint64_t number, uint32_t part, uint64_t i)
{
	return (uint8_t)(number * 31 + part * 17 + i * 13 + (i >> 8));
}

static struct ty_tier_io *new_io(enum ty_tier_verb verb, uint64_t number, uint32_t place, uint32_t parts, uint64_t bytes)
{
	uint32_t keys = verb == TY_TIER_EXISTS ? parts : 1;
	struct ty_tier_io *io = calloc(1, sizeof *io + TY_CHUNK_MAX_PARTS * sizeof io->part[0]);
	struct ty_key *key = calloc(keys, sizeof *key);

	for (uint32_t i = 0; i < keys; i++)
		key[i] = key_of(number + i);
	io->verb = verb;
	io->keys = key;
	io->key_count = keys;
	if (verb != TY_TIER_PUT && verb != TY_TIER_GET)
		return io;
	io->parts = parts;
	for (uint32_t p = 0; p < parts; p++) {
		uint64_t at = (place + p) * ty_envelope_padded(bytes);

		assert_true(at + bytes <= lab.service->arena.bytes);
		io->part[p].data = lab.service->arena.base + at;
		io->part[p].length = bytes;
		memset(io->part[p].data, 0xee, bytes);
		if (verb == TY_TIER_GET)
			continue;
		for (uint64_t i = 0; i < bytes; i++)
			io->part[p].data[i] = byte_of(number, p, i);
		io->part[p].checksum = ty_checksum(io->part[p].data, bytes);
	}
	return io;
}

static void free_io(struct ty_tier_io *io)
{
	free((void *)(uintptr_t)io->keys);
	free(io);
}

static void run(struct ty_tier_io **ios, uint32_t count)
{
	struct batch batch = {.ios = ios, .count = count};

	lab.home = 0;
	assert_int_equal(ty_send(lab.driver, &batch.msg, LAB_RUN), TY_OK);
	while (lab.home < count)
		step();
}

static bool holds(const struct ty_tier_io *io, uint64_t number)
{
	for (uint32_t p = 0; p < io->parts; p++)
		for (uint64_t i = 0; io->part[p].data && i < io->part[p].length; i++)
			if (io->part[p].data[i] != byte_of(number, p, i))
				return false;
	return true;
}

static enum ty_tier_outcome doit(enum ty_tier_verb verb, uint64_t number, uint32_t parts, uint64_t bytes)
{
	struct ty_tier_io *io = new_io(verb, number, 0, parts, bytes);
	enum ty_tier_outcome outcome;

	run(&io, 1);
	outcome = io->outcome;
	if (verb == TY_TIER_GET && outcome == TY_TIER_DONE && !holds(io, number))
		outcome = TY_TIER_OUTCOMES; /* wrong bytes, said to be right */
	if (verb == TY_TIER_EXISTS && outcome == TY_TIER_DONE && !io->found)
		outcome = TY_TIER_MISSING;
	snprintf(lab.error, sizeof lab.error, "%s", io->error);
	free_io(io);
	return outcome;
}

static uint64_t stat_of(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

/* ---- tests ---------------------------------------------------------------------------------------------------------- */

/* What goes in comes out; every request of every kind is signed as the server wants it. */
static void test_round_trip(void **state)
{
	(void)state;
	assert_int_equal(open_tier(""), TY_OK);
	for (uint64_t n = 1; n <= 20; n++) {
		assert_int_equal(doit(TY_TIER_GET, n, 1, CHUNK), TY_TIER_MISSING);
		assert_int_equal(doit(TY_TIER_PUT, n, 1 + (uint32_t)n % 3, CHUNK), TY_TIER_DONE);
	}
	for (uint64_t n = 1; n <= 20; n++)
		assert_int_equal(doit(TY_TIER_GET, n, 1 + (uint32_t)n % 3, CHUNK), TY_TIER_DONE);
	assert_int_equal(doit(TY_TIER_DELETE, 5, 1, 0), TY_TIER_DONE);
	assert_int_equal(doit(TY_TIER_GET, 5, 3, CHUNK), TY_TIER_MISSING);
	assert_int_equal(lab.server.refused_signatures, 0);
	/* one after the other they need one connection, beside that of the first look */
	assert_int_equal(lab.server.connections, 2);
	assert_int_equal(stat_of(&lab.tier->stats.retries), 0);
	close_tier();
}

/* A session's token, another region, another place: signed, too. */
static void test_token(void **state)
{
	char token[1200];

	(void)state;
	memset(token, 'T', sizeof token - 1);
	token[sizeof token - 1] = 0;
	setenv("AWS_SESSION_TOKEN", token, 1);
	lab.server.token = token;
	assert_int_equal(open_tier(",region=eu-central-1,prefix=a/b-c_d.e~f/"), TY_OK);
	assert_int_equal(doit(TY_TIER_PUT, 1, 2, CHUNK), TY_TIER_DONE);
	assert_int_equal(doit(TY_TIER_GET, 1, 2, CHUNK), TY_TIER_DONE);
	assert_int_equal(doit(TY_TIER_EXISTS, 1, 1, 0), TY_TIER_DONE);
	assert_non_null(strstr(lab.server.object[0].name, "/kv/a/b-c_d.e~f/"));
	assert_int_equal(lab.server.refused_signatures, 0);
	close_tier();
}

/* AWS's published examples of S3 requests: the checker that all of this leans on says what they say. */
static void test_vectors(void **state)
{
#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define SIGNED(names) "Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, " \
	"SignedHeaders=" names ", Signature=x\r\n"
#define HOST "Host: examplebucket.s3.amazonaws.com\r\n"
	static const struct { const char *head, *signature; } vectors[] = {
		{"GET /test.txt HTTP/1.1\r\n" HOST SIGNED("host;range;x-amz-content-sha256;x-amz-date")
			"Range: bytes=0-9\r\nx-amz-content-sha256: " EMPTY "\r\nx-amz-date: 20130524T000000Z\r\n\r\n",
			"f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
		{"PUT /test%24file.text HTTP/1.1\r\n" HOST
			SIGNED("date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class")
			"Date: Fri, 24 May 2013 00:00:00 GMT\r\nx-amz-date: 20130524T000000Z\r\n"
			"x-amz-storage-class: REDUCED_REDUNDANCY\r\n"
			"x-amz-content-sha256: 44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072\r\n\r\n",
			"98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"},
		{"GET /?lifecycle HTTP/1.1\r\n" HOST SIGNED("host;x-amz-content-sha256;x-amz-date")
			"x-amz-date: 20130524T000000Z\r\nx-amz-content-sha256: " EMPTY "\r\n\r\n",
			"fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
		{"GET /?max-keys=2&prefix=J HTTP/1.1\r\n" HOST SIGNED("host;x-amz-content-sha256;x-amz-date")
			"x-amz-date: 20130524T000000Z\r\nx-amz-content-sha256: " EMPTY "\r\n\r\n",
			"34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
	};
	char should[65], is[65], reason[200];

	(void)state;
	for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
		assert_true(s3_signature(vectors[i].head, "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", should, is, reason));
		assert_string_equal(should, vectors[i].signature);
	}
	/* and a request signed with another secret is refused */
	lab.server.secret = "another";
	assert_int_equal(open_tier(""), TY_DENIED);
	assert_non_null(strstr(lab.error, "answers 403"));
	assert_null(strstr(lab.error, "wJalr"));
}

/* EXISTS answers for the leading keys, with the first one's shape, and stops where one is missing or of another shape. */
static void test_exists(void **state)
{
	struct ty_tier_io *io;

	(void)state;
	assert_int_equal(open_tier(",connections=4"), TY_OK);
	for (uint64_t n = 1; n <= 40; n++)
		assert_int_equal(doit(TY_TIER_PUT, n, n == 30 ? 1 : 2, CHUNK), TY_TIER_DONE);
	io = new_io(TY_TIER_EXISTS, 1, 0, 60, 0);
	run(&io, 1);
	assert_int_equal(io->outcome, TY_TIER_DONE);
	assert_int_equal(io->found, 29);
	assert_int_equal(io->parts, 2);
	assert_int_equal(io->part[1].length, CHUNK);
	free_io(io);
	io = new_io(TY_TIER_EXISTS, 31, 0, 300, 0);
	run(&io, 1);
	assert_int_equal(io->found, 10);
	free_io(io);
	/* a window past the end of it at most, not all that were named */
	assert_in_range(lab.server.by_kind[2], 30 + 11, 29 + 10 + 2 * S3_KEYS_OUT);
	assert_int_equal(doit(TY_TIER_EXISTS, 41, 1, 0), TY_TIER_MISSING);
	s3_server_misbehave(&lab.server, S3_FAULT_STATUS, 100, "GET", 500);
	assert_int_equal(doit(TY_TIER_EXISTS, 1, 3, 0), TY_TIER_FAILED);
	close_tier();
}

/* A part that is not wanted is received past the arena. */
static void test_wanted_parts(void **state)
{
	struct ty_tier_io *io;
	uint8_t *spare;

	(void)state;
	assert_int_equal(open_tier(""), TY_OK);
	assert_int_equal(doit(TY_TIER_PUT, 1, 3, CHUNK), TY_TIER_DONE);
	io = new_io(TY_TIER_GET, 1, 0, 3, CHUNK);
	spare = io->part[1].data;
	io->part[1].data = NULL;
	run(&io, 1);
	assert_int_equal(io->outcome, TY_TIER_DONE);
	assert_true(holds(io, 1));
	for (int i = 0; i < CHUNK; i++)
		assert_int_equal(spare[i], 0xee);
	free_io(io);
	assert_int_equal(doit(TY_TIER_GET, 1, 2, CHUNK), TY_TIER_CORRUPT); /* another shape is another chunk */
	close_tier();
}

/* An object that is wrong, short, long or without end is a miss, counted and deleted; nothing is written past the parts. */
static void test_wrong_objects(void **state)
{
	static const enum s3_fault faults[] = {S3_FAULT_WRONG, S3_FAULT_SHORTER, S3_FAULT_LONGER, S3_FAULT_ENDLESS};
	static const char *const words[] = {"another checksum", "expected", "cut off", "cut off"};
	uint8_t *behind;

	(void)state;
	assert_int_equal(open_tier(""), TY_OK);
	for (uint64_t i = 0; i < 4; i++) {
		assert_int_equal(doit(TY_TIER_PUT, i, 1, CHUNK), TY_TIER_DONE);
		s3_server_misbehave(&lab.server, faults[i], 1, "GET", 0);
		behind = lab.service->arena.base + CHUNK;
		memset(behind, 0xdd, 65536);
		assert_int_equal(doit(TY_TIER_GET, i, 1, CHUNK), TY_TIER_CORRUPT);
		assert_non_null(strstr(lab.error, words[i]));
		for (int b = 0; b < 65536; b++)
			assert_int_equal(behind[b], 0xdd);
		pass(2 * SECOND);
		assert_null(object_of(i));
		assert_int_equal(doit(TY_TIER_GET, i, 1, CHUNK), TY_TIER_MISSING);
		assert_int_equal(stat_of(&lab.tier->stats.quarantined), i + 1);
	}
	/* an object of another key, or none of ours */
	for (uint64_t i = 10; i < 13; i++) {
		assert_int_equal(doit(TY_TIER_PUT, i, 1, CHUNK), TY_TIER_DONE);
		memset(object_of(i)->data + (i == 10 ? 16 : i == 11 ? 0 : 100), 'x', 8);
		assert_int_equal(doit(TY_TIER_EXISTS, i, 1, 0), TY_TIER_MISSING);
		assert_int_equal(doit(TY_TIER_GET, i, 1, CHUNK), TY_TIER_CORRUPT);
	}
	assert_int_equal(stat_of(&lab.tier->stats.retries), 0);
	close_tier();
}

/* What may pass is tried again, and once is enough; what lasts fails, with the reason. */
static void test_passing(void **state)
{
	static const struct { enum s3_fault fault; int status; const char *words; } cases[] = {
		{S3_FAULT_STATUS, 503, "answers 503 SlowDown"}, {S3_FAULT_STATUS, 500, "answers 500"}, {S3_FAULT_STATUS, 429, "answers 429"},
		{S3_FAULT_CLOSE, 0, ""}, {S3_FAULT_GARBAGE, 0, ""}, {S3_FAULT_HANG, 0, "nothing moved"}, {S3_FAULT_TRUNCATED, 0, "transfer closed"},
	};
	static const enum ty_tier_verb verbs[] = {TY_TIER_PUT, TY_TIER_GET, TY_TIER_DELETE};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		uint64_t before;

		assert_int_equal(open_tier(",timeout=60s,retries=2"), TY_OK);
		assert_int_equal(doit(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
		before = stat_of(&lab.tier->stats.retries);
		for (int v = 0; v < 3; v++) {
			const char *method = verbs[v] == TY_TIER_PUT ? "PUT" : verbs[v] == TY_TIER_GET ? "GET" : "DELETE";

			if (cases[i].fault == S3_FAULT_TRUNCATED && verbs[v] != TY_TIER_GET)
				continue;
			s3_server_misbehave(&lab.server, cases[i].fault, 1, method, cases[i].status);
			lab.server.code = "SlowDown";
			assert_int_equal(doit(verbs[v], 1, 1, CHUNK), TY_TIER_DONE);
			/* a kept connection that ends is libcurl's own to make anew */
			if (cases[i].fault != S3_FAULT_CLOSE)
				assert_int_equal(stat_of(&lab.tier->stats.retries), ++before);
		}
		assert_int_equal(doit(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
		s3_server_misbehave(&lab.server, cases[i].fault, 1000, "GET", cases[i].status);
		lab.server.code = "SlowDown";
		assert_int_equal(doit(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_FAILED);
		assert_non_null(strstr(lab.error, cases[i].words));
		s3_server_misbehave(&lab.server, S3_FAULT_NONE, 0, "", 0);
		assert_int_equal(doit(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE); /* it was not taken for wrong */
		close_tier();
	}
}

/* What will not pass is not tried again, nor followed. */
static void test_refusals(void **state)
{
	static const int statuses[] = {403, 307, 301, 400, 501, 507, 204, 299};

	(void)state;
	assert_int_equal(open_tier(""), TY_OK);
	assert_int_equal(doit(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
		unsigned requests = lab.server.requests;
		char words[32];

		s3_server_misbehave(&lab.server, S3_FAULT_STATUS, 1, "GET", statuses[i]);
		lab.server.code = "AccessDenied";
		assert_int_equal(doit(TY_TIER_GET, 1, 1, CHUNK), statuses[i] == 507 ? TY_TIER_FULL : TY_TIER_FAILED);
		snprintf(words, sizeof words, "answers %d", statuses[i]);
		assert_non_null(strstr(lab.error, words));
		assert_int_equal(lab.server.requests, requests + 1);
	}
	assert_int_equal(doit(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE);
	assert_int_equal(stat_of(&lab.tier->stats.retries), 0);
	close_tier();
}

/* Header lines and interim answers without end are cut off. */
static void test_floods(void **state)
{
	static const enum s3_fault faults[] = {S3_FAULT_HEADERS, S3_FAULT_CONTINUES};

	(void)state;
	assert_int_equal(open_tier(""), TY_OK);
	assert_int_equal(doit(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	for (int i = 0; i < 2; i++)
		for (int v = 0; v < 2; v++) {
			s3_server_misbehave(&lab.server, faults[i], 1, "", 0);
			assert_int_equal(doit(v ? TY_TIER_GET : TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_FAILED);
			assert_non_null(strstr(lab.error, "more than 16384 bytes"));
		}
	s3_server_misbehave(&lab.server, S3_FAULT_NONE, 0, "", 0);
	assert_int_equal(doit(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE);
	close_tier();
}

/* A store that is away is found to be, asked for nothing until it answers a question of ours, and used again at once. What goes down
 * waits for it, within its deadline. */
static void test_down(void **state)
{
	struct ty_tier_io *io;
	struct batch batch = {.ios = &io, .count = 1};
	unsigned requests;

	(void)state;
	assert_int_equal(open_tier(",retries=1,timeout=60s"), TY_OK);
	assert_int_equal(doit(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	s3_server_misbehave(&lab.server, S3_FAULT_STATUS, 1000, "", 503);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(doit(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_FAILED);
		assert_int_equal(stat_of(&lab.tier->stats.down), 0);
	}
	assert_int_equal(doit(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_FAILED); /* the fifth failure in a row is its first try */
	assert_int_equal(stat_of(&lab.tier->stats.down), 1);
	requests = lab.server.requests;
	for (int i = 0; i < 50; i++) {
		assert_int_equal(doit(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_FAILED);
		assert_non_null(strstr(lab.error, "the store is down: it answers 503"));
	}
	assert_in_range(lab.server.requests, requests, requests + 3); /* probes */
	pass(120 * SECOND);
	assert_int_equal(stat_of(&lab.tier->stats.down), 1);
	assert_in_range(lab.server.requests, requests + 4, requests + 15); /* ever more seldom: 0.5, 1, 2, ... 30 s */
	assert_int_equal(doit(TY_TIER_PUT, 2, 1, CHUNK), TY_TIER_LATE);
	assert_int_equal(doit(TY_TIER_DELETE, 2, 1, CHUNK), TY_TIER_FAILED);
	pass(2 * SECOND);
	io = new_io(TY_TIER_PUT, 3, 0, 1, CHUNK);
	lab.home = 0;
	assert_int_equal(ty_send(lab.driver, &batch.msg, LAB_RUN), TY_OK);
	pass(2 * SECOND);
	assert_int_equal(lab.home, 0);
	s3_server_misbehave(&lab.server, S3_FAULT_NONE, 0, "", 0);
	while (!lab.home)
		step();
	assert_int_equal(io->outcome, TY_TIER_DONE);
	free_io(io);
	assert_int_equal(stat_of(&lab.tier->stats.down), 0);
	assert_int_equal(doit(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE);
	/* the same with nobody there, and with one who takes connections and says nothing */
	s3_server_misbehave(&lab.server, S3_FAULT_HANG, 1000, "", 0);
	for (int i = 0; i < 5; i++)
		assert_int_not_equal(doit(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE);
	assert_int_equal(stat_of(&lab.tier->stats.down), 1);
	pass(60 * SECOND);
	assert_int_equal(stat_of(&lab.tier->stats.down), 1);
	s3_server_misbehave(&lab.server, S3_FAULT_NONE, 0, "", 0);
	pass(60 * SECOND);
	assert_int_equal(doit(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE);
	close_tier();
}

/* A chunk of more than part-size goes up in pieces, is there whole or not at all, and leaves no pieces behind. */
static void test_pieces(void **state)
{
	const uint64_t big = (uint64_t)11 << 20;

	(void)state;
	assert_int_equal(open_tier(",part-size=5MiB,timeout=600s"), TY_OK);
	assert_int_equal(doit(TY_TIER_PUT, 1, 2, big + 1), TY_TIER_DONE);
	assert_int_equal(lab.server.by_kind[5], 5);
	assert_int_equal(doit(TY_TIER_GET, 1, 2, big + 1), TY_TIER_DONE);
	assert_int_equal(lab.server.refused_signatures, 0);
	/* a piece that fails once is sent again */
	s3_server_misbehave(&lab.server, S3_FAULT_CLOSE, 1, "PUT", 0);
	assert_int_equal(doit(TY_TIER_PUT, 2, 1, big), TY_TIER_DONE);
	assert_int_equal(doit(TY_TIER_GET, 2, 1, big), TY_TIER_DONE);
	/* each step that fails for good */
	s3_server_misbehave(&lab.server, S3_FAULT_STATUS, 100, "PUT", 403);
	assert_int_equal(doit(TY_TIER_PUT, 3, 1, big), TY_TIER_FAILED);
	s3_server_misbehave(&lab.server, S3_FAULT_NO_ID, 1, "POST", 0);
	assert_int_equal(doit(TY_TIER_PUT, 3, 1, big), TY_TIER_FAILED);
	assert_non_null(strstr(lab.error, "UploadId"));
	s3_server_misbehave(&lab.server, S3_FAULT_STATUS, 1, "POST", 403);
	assert_int_equal(doit(TY_TIER_PUT, 3, 1, big), TY_TIER_FAILED);
	pass(2 * SECOND);
	assert_int_equal(lab.server.aborted, 1); /* of the three, one had begun */
	for (int again = 1; again >= 0; again--) { /* an error behind the status: one that passes, one that does not */
		lab.server.fault = S3_FAULT_LATE_ERROR;
		lab.server.fault_count = 0;
		struct ty_tier_io *io = new_io(TY_TIER_PUT, 3, 0, 1, big);
		struct batch batch = {.ios = &io, .count = 1};
		unsigned begun = lab.server.by_kind[4];

		lab.home = 0;
		assert_int_equal(ty_send(lab.driver, &batch.msg, LAB_RUN), TY_OK);
		while (lab.server.by_kind[4] == begun)
			step();
		s3_server_misbehave(&lab.server, S3_FAULT_LATE_ERROR, 1, "POST", 0);
		lab.server.code = again ? "InternalError" : "NoSuchUpload";
		while (!lab.home)
			step();
		assert_int_equal(io->outcome, again ? TY_TIER_DONE : TY_TIER_FAILED);
		free_io(io);
		pass(2 * SECOND);
		assert_int_equal(object_of(3) != NULL, again);
		if (again)
			assert_int_equal(doit(TY_TIER_DELETE, 3, 1, 0), TY_TIER_DONE);
	}
	assert_int_equal(lab.server.aborted, 2);
	for (size_t i = 0; i < sizeof lab.server.piece / sizeof lab.server.piece[0]; i++)
		assert_null(lab.server.piece[i].data);
	close_tier();
}

/* An operation ends by its deadline, and from then on its memory is its owner's. */
static void test_deadline(void **state)
{
	struct ty_tier_io *io;

	(void)state;
	assert_int_equal(open_tier(",timeout=4s,retries=0"), TY_OK);
	assert_int_equal(doit(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	s3_server_misbehave(&lab.server, S3_FAULT_DRIP, 1, "GET", 0);
	io = new_io(TY_TIER_GET, 1, 0, 1, CHUNK);
	run(&io, 1);
	if (io->outcome != TY_TIER_LATE)
		fail_msg("%s", io->error);
	memset(io->part[0].data, 0xcc, CHUNK);
	pass(30 * SECOND);
	for (int i = 0; i < CHUNK; i++)
		assert_int_equal(io->part[0].data[i], 0xcc);
	free_io(io);
	close_tier();
}

/* Told to stop, it ends all that is out, in whatever state it is. */
static void test_stop(void **state)
{
	struct ty_tier_io *ios[40];
	struct batch batch = {.ios = ios, .count = 40};

	(void)state;
	assert_int_equal(open_tier(",part-size=5MiB,connections=4"), TY_OK);
	s3_server_misbehave(&lab.server, S3_FAULT_HANG, 1000, "", 0);
	lab.server.fault_count = 1000;
	for (uint32_t i = 0; i < 40; i++)
		ios[i] = i % 4 == 0 ? new_io(TY_TIER_EXISTS, i, 0, 40, 0)
				    : new_io(i % 2 ? TY_TIER_PUT : TY_TIER_GET, i, 0, 1, i == 1 ? 6 << 20 : CHUNK);
	lab.home = 0;
	assert_int_equal(ty_send(lab.driver, &batch.msg, LAB_RUN), TY_OK);
	pass(SECOND);
	assert_int_equal(lab.home, 0);
	close_tier();
	assert_int_equal(lab.home, 40);
	for (uint32_t i = 0; i < 40; i++) {
		assert_int_equal(ios[i]->outcome, TY_TIER_STOPPED);
		free_io(ios[i]);
	}
}

/* No more connections than allowed; writes that hang leave the reads theirs. */
static void test_lanes(void **state)
{
	struct ty_tier_io *ios[40];
	struct batch writes = {.ios = ios, .count = 20};

	(void)state;
	assert_int_equal(open_tier(",connections=4,timeout=600s,stall=300s"), TY_OK);
	assert_int_equal(doit(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	s3_server_misbehave(&lab.server, S3_FAULT_HANG, 1000, "PUT", 0);
	for (uint32_t i = 0; i < 20; i++)
		ios[i] = new_io(TY_TIER_PUT, 100 + i, 40 + i, 1, CHUNK);
	assert_int_equal(ty_send(lab.driver, &writes.msg, LAB_RUN), TY_OK);
	pass(SECOND);
	for (uint32_t i = 20; i < 40; i++)
		ios[i] = new_io(TY_TIER_GET, 1, i, 1, CHUNK);
	run(ios + 20, 20);
	for (uint32_t i = 20; i < 40; i++) {
		assert_int_equal(ios[i]->outcome, TY_TIER_DONE);
		assert_true(holds(ios[i], 1));
	}
	assert_in_range(lab.server.most_open, 3, 4);
	close_tier();
	for (uint32_t i = 0; i < 40; i++)
		free_io(ios[i]);
}

static void write_credentials(const char *path, const char *secret)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fprintf(f, "# keys\n[other]\naws_access_key_id = x\n[default]\naws_access_key_id=%s\n aws_secret_access_key = %s \nregion = x\n",
		lab.server.id, secret);
	fclose(f);
	assert_int_equal(chmod(path, 0600), 0);
}

/* Credentials of a file that were replaced there are read again when the old ones are refused. */
static void test_credentials_file(void **state)
{
	char path[] = "/tmp/tyer-s3-test.XXXXXX", settings[128];
	int fd = mkstemp(path);
	int64_t since;

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	unsetenv("AWS_ACCESS_KEY_ID");
	unsetenv("AWS_SECRET_ACCESS_KEY");
	snprintf(settings, sizeof settings, ",credentials-file=%s", path);
	write_credentials(path, "first");
	lab.server.secret = "first";
	assert_int_equal(open_tier(settings), TY_OK);
	assert_int_equal(doit(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	lab.server.secret = "second";
	assert_int_equal(doit(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_FAILED);
	assert_non_null(strstr(lab.error, "403 SignatureDoesNotMatch"));
	write_credentials(path, "second");
	since = ty_runtime_now(lab.service->rt);
	while (doit(TY_TIER_GET, 1, 1, CHUNK) != TY_TIER_DONE)
		assert_true(ty_runtime_now(lab.service->rt) < since + 20 * SECOND);
	assert_true(ty_runtime_now(lab.service->rt) > since + 8 * SECOND); /* it is not read for each request */
	close_tier();
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(open_tier(settings), TY_DENIED);
	assert_non_null(strstr(lab.error, "others may read it"));
	unlink(path);
	assert_int_equal(open_tier(settings), TY_IO);
}

static void test_configuration(void **state)
{
	static const struct { const char *settings, *words; enum ty_code code; } cases[] = {
		{",color=red", "expected region=, prefix=", TY_INVALID},
		{",size=1GiB", "lifecycle", TY_INVALID},
		{",part-size=1MiB", "5MiB to 1GiB", TY_INVALID},
		{",connections=1", "2 to 256", TY_INVALID},
		{",retries=11", "0 to 10", TY_INVALID},
		{",stall=0s", "1ms to 1h", TY_INVALID},
		{",style=dns", "path or host", TY_INVALID},
		{",style=host", "expected a name", TY_INVALID},
		{",region=a b", "letters", TY_INVALID},
		{",prefix=a//b", "single /", TY_INVALID},
		{",prefix=%41", "letters", TY_INVALID},
		{",ca-file=/nonexistent/ca", "No such file", TY_IO},
		{"/more", "bucket", TY_INVALID},
		{"?x", "bucket", TY_INVALID},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_int_equal(open_tier(cases[i].settings), cases[i].code);
		assert_non_null(strstr(lab.error, cases[i].words));
	}
	unsetenv("AWS_SECRET_ACCESS_KEY");
	assert_int_equal(open_tier(""), TY_INVALID);
	assert_non_null(strstr(lab.error, "expected both or none"));
	unsetenv("AWS_ACCESS_KEY_ID");
	assert_int_equal(open_tier(""), TY_DENIED);
	assert_int_equal(lab.server.requests, 1); /* nothing was asked for what cannot be meant */
	for (int status = 200; status < 600; status += 101) { /* 200, 301, 402, 503 */
		s3_server_misbehave(&lab.server, S3_FAULT_STATUS, 1, "HEAD", status);
		if (status == 200 || status >= 500) {
			assert_int_equal(open_tier(""), TY_OK);
			assert_non_null(strstr(lab.tier->stats.note, status == 200 ? "the bucket answers; requests are not signed" : "it does not answer"));
			close_tier();
		} else {
			assert_int_equal(open_tier(""), TY_INVALID);
		}
	}
}

static uint64_t draw(uint64_t *random, uint64_t below)
{
	*random = *random * 6364136223846793005u + 1442695040888963407u;
	return (*random >> 33) % below;
}

/* Whatever happens, in whatever order: every io comes home once, and no wrong byte is said to be right. */
#define LARGE (UINT32_C(6) << 20) /* of several pieces */

static void test_random(void **state)
{
	static const char *const methods[] = {"", "GET", "PUT", "POST", "DELETE"};
	uint64_t random = 7;

	(void)state;
	assert_int_equal(open_tier(",part-size=5MiB,connections=6,timeout=20s"), TY_OK);
	for (int round = 0; round < 150; round++) {
		struct ty_tier_io *ios[12];
		uint64_t numbers[12];
		uint32_t count = 1 + (uint32_t)draw(&random, 12);
		enum s3_fault fault = (enum s3_fault)draw(&random, S3_FAULT_LATE_ERROR + 1);
		int times = (int)draw(&random, 6);
		const char *method = methods[draw(&random, 5)];

		s3_server_misbehave(&lab.server, fault, times, method, draw(&random, 2) ? 503 : 403);
		for (uint32_t i = 0; i < count; i++) {
			enum ty_tier_verb verb = (enum ty_tier_verb)draw(&random, 4);

			numbers[i] = draw(&random, 20);
			/* places are counted in an io's own bytes: the small ones lie behind all large ones */
			ios[i] = numbers[i] ? new_io(verb, numbers[i], i + 12 * LARGE / CHUNK, verb == TY_TIER_EXISTS ? 8 : 1, CHUNK)
					    : new_io(verb, 0, i, verb == TY_TIER_EXISTS ? 8 : 1, LARGE);
			if (numbers[i] == 0)
				ios[i]->identity = NULL;
		}
		run(ios, count);
		for (uint32_t i = 0; i < count; i++) {
			if (ios[i]->verb == TY_TIER_GET && ios[i]->outcome == TY_TIER_DONE && numbers[i] != 0)
				assert_true(holds(ios[i], numbers[i]));
			free_io(ios[i]);
		}
	}
	assert_int_equal(stat_of(&lab.tier->stats.in_flight[0]), 0);
	assert_int_equal(stat_of(&lab.tier->stats.in_flight[1]), 0);
	assert_int_equal(stat_of(&lab.tier->stats.in_flight_bytes[0]), 0);
	assert_int_equal(lab.server.refused_signatures, 0);
	close_tier();
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_lab, close_lab)
	const struct CMUnitTest tests[] = {
		TEST(test_round_trip),
		TEST(test_token),
		TEST(test_vectors),
		TEST(test_exists),
		TEST(test_wanted_parts),
		TEST(test_wrong_objects),
		TEST(test_passing),
		TEST(test_refusals),
		TEST(test_floods),
		TEST(test_down),
		TEST(test_pieces),
		TEST(test_deadline),
		TEST(test_stop),
		TEST(test_lanes),
		TEST(test_credentials_file),
		TEST(test_configuration),
		TEST(test_random),
	};

	ty_log_setup(TY_LOG_ERROR, false);
	return cmocka_run_group_tests_name("tiers-s3", tests, NULL, NULL);
}
