/* SPDX-License-Identifier: Apache-2.0
 *
 * The S3 tier against a server that misbehaves as told.
 */
#include "s3_lab.h"

/* ---- tests ---------------------------------------------------------------------------------------------------------- */

/* What goes in comes out; every request of every kind is signed as the server wants it. */
static void test_round_trip(void **state)
{
	(void)state;
	assert_int_equal(lab_open_tier(""), TY_OK);
	for (uint64_t n = 1; n <= 20; n++) {
		assert_int_equal(lab_do(TY_TIER_GET, n, 1, CHUNK), TY_TIER_MISSING);
		assert_int_equal(lab_do(TY_TIER_PUT, n, 1 + (uint32_t)n % 3, CHUNK), TY_TIER_DONE);
	}
	for (uint64_t n = 1; n <= 20; n++)
		assert_int_equal(lab_do(TY_TIER_GET, n, 1 + (uint32_t)n % 3, CHUNK), TY_TIER_DONE);
	/* packed ones take the room that they need */
	assert_true((lab_object(3)->length < TY_ENVELOPE_BYTES + CHUNK) == (lab_packing[0] != 0));
	assert_int_equal(lab_stat(&lab.tier->stats.unpack_to_bytes), lab_packing[0] ? 41 * CHUNK : 0);
	assert_int_equal(lab_do(TY_TIER_DELETE, 5, 1, 0), TY_TIER_DONE);
	assert_int_equal(lab_do(TY_TIER_GET, 5, 3, CHUNK), TY_TIER_MISSING);
	assert_int_equal(lab.server.refused_signatures, 0);
	/* one after the other they need one connection, beside that of the first look */
	assert_int_equal(lab.server.connections, 2);
	assert_int_equal(lab_stat(&lab.tier->stats.retries), 0);
	lab_close_tier();
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
	assert_int_equal(lab_open_tier(",region=eu-central-1,prefix=a/b-c_d.e~f/"), TY_OK);
	assert_int_equal(lab_do(TY_TIER_PUT, 1, 2, CHUNK), TY_TIER_DONE);
	assert_int_equal(lab_do(TY_TIER_GET, 1, 2, CHUNK), TY_TIER_DONE);
	assert_int_equal(lab_do(TY_TIER_EXISTS, 1, 1, 0), TY_TIER_DONE);
	assert_non_null(strstr(lab.server.object[0].name, "/kv/a/b-c_d.e~f/"));
	assert_int_equal(lab.server.refused_signatures, 0);
	lab_close_tier();
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
	assert_int_equal(lab_open_tier(""), TY_DENIED);
	assert_non_null(strstr(lab.error, "answers 403"));
	assert_null(strstr(lab.error, "wJalr"));
}

/* EXISTS answers for the leading keys, with the first one's shape, and stops where one is missing or of another shape. */
static void test_exists(void **state)
{
	struct ty_tier_io *io;

	(void)state;
	assert_int_equal(lab_open_tier(",connections=4"), TY_OK);
	for (uint64_t n = 1; n <= 40; n++)
		assert_int_equal(lab_do(TY_TIER_PUT, n, n == 30 ? 1 : 2, CHUNK), TY_TIER_DONE);
	io = lab_io(TY_TIER_EXISTS, 1, 0, 60, 0);
	lab_run(&io, 1);
	assert_int_equal(io->outcome, TY_TIER_DONE);
	assert_int_equal(io->found, 29);
	assert_int_equal(io->parts, 2);
	assert_int_equal(io->part[1].length, CHUNK);
	lab_free(io);
	io = lab_io(TY_TIER_EXISTS, 31, 0, 300, 0);
	lab_run(&io, 1);
	assert_int_equal(io->found, 10);
	lab_free(io);
	/* a window past the end of it at most, not all that were named */
	assert_in_range(lab.server.by_kind[2], 30 + 11, 29 + 10 + 2 * S3_KEYS_OUT);
	assert_int_equal(lab_do(TY_TIER_EXISTS, 41, 1, 0), TY_TIER_MISSING);
	s3_server_misbehave(&lab.server, S3_FAULT_STATUS, 100, "GET", 500);
	assert_int_equal(lab_do(TY_TIER_EXISTS, 1, 3, 0), TY_TIER_FAILED);
	lab_close_tier();
}

/* A part that is not wanted is received past the arena. */
static void test_wanted_parts(void **state)
{
	struct ty_tier_io *io;
	uint8_t *spare;

	(void)state;
	assert_int_equal(lab_open_tier(""), TY_OK);
	assert_int_equal(lab_do(TY_TIER_PUT, 1, 3, CHUNK), TY_TIER_DONE);
	io = lab_io(TY_TIER_GET, 1, 0, 3, CHUNK);
	spare = io->part[1].data;
	io->part[1].data = NULL;
	lab_run(&io, 1);
	assert_int_equal(io->outcome, TY_TIER_DONE);
	assert_true(lab_holds(io, 1));
	for (int i = 0; i < CHUNK; i++)
		assert_int_equal(spare[i], 0xee);
	lab_free(io);
	assert_int_equal(lab_do(TY_TIER_GET, 1, 2, CHUNK), TY_TIER_CORRUPT); /* another shape is another chunk */
	lab_close_tier();
}

/* An object that is wrong, short, long or without end is a miss, counted and deleted; nothing is written past the parts. */
static void test_wrong_objects(void **state)
{
	static const enum s3_fault faults[] = {S3_FAULT_WRONG, S3_FAULT_SHORTER, S3_FAULT_LONGER, S3_FAULT_ENDLESS};
	static const char *const words[] = {"another checksum", "expected", "cut off", "cut off"};
	uint8_t *behind;

	(void)state;
	assert_int_equal(lab_open_tier(""), TY_OK);
	for (uint64_t i = 0; i < 4; i++) {
		assert_int_equal(lab_do(TY_TIER_PUT, i, 1, CHUNK), TY_TIER_DONE);
		s3_server_misbehave(&lab.server, faults[i], 1, "GET", 0);
		behind = lab.service->arena.base + CHUNK;
		memset(behind, 0xdd, 65536);
		assert_int_equal(lab_do(TY_TIER_GET, i, 1, CHUNK), TY_TIER_CORRUPT);
		assert_non_null(strstr(lab.error, words[i]));
		for (int b = 0; b < 65536; b++)
			assert_int_equal(behind[b], 0xdd);
		lab_pass(2 * SECOND);
		assert_null(lab_object(i));
		assert_int_equal(lab_do(TY_TIER_GET, i, 1, CHUNK), TY_TIER_MISSING);
		assert_int_equal(lab_stat(&lab.tier->stats.quarantined), i + 1);
	}
	/* an object of another key, or none of ours */
	for (uint64_t i = 10; i < 13; i++) {
		assert_int_equal(lab_do(TY_TIER_PUT, i, 1, CHUNK), TY_TIER_DONE);
		memset(lab_object(i)->data + (i == 10 ? 16 : i == 11 ? 0 : 100), 'x', 8);
		assert_int_equal(lab_do(TY_TIER_EXISTS, i, 1, 0), TY_TIER_MISSING);
		assert_int_equal(lab_do(TY_TIER_GET, i, 1, CHUNK), TY_TIER_CORRUPT);
	}
	assert_int_equal(lab_stat(&lab.tier->stats.retries), 0);
	lab_close_tier();
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

		assert_int_equal(lab_open_tier(",timeout=60s,retries=2"), TY_OK);
		assert_int_equal(lab_do(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
		before = lab_stat(&lab.tier->stats.retries);
		for (int v = 0; v < 3; v++) {
			const char *method = verbs[v] == TY_TIER_PUT ? "PUT" : verbs[v] == TY_TIER_GET ? "GET" : "DELETE";

			if (cases[i].fault == S3_FAULT_TRUNCATED && verbs[v] != TY_TIER_GET)
				continue;
			s3_server_misbehave(&lab.server, cases[i].fault, 1, method, cases[i].status);
			lab.server.code = "SlowDown";
			assert_int_equal(lab_do(verbs[v], 1, 1, CHUNK), TY_TIER_DONE);
			/* a kept connection that ends is libcurl's own to make anew */
			if (cases[i].fault != S3_FAULT_CLOSE)
				assert_int_equal(lab_stat(&lab.tier->stats.retries), ++before);
		}
		assert_int_equal(lab_do(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
		s3_server_misbehave(&lab.server, cases[i].fault, 1000, "GET", cases[i].status);
		lab.server.code = "SlowDown";
		assert_int_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_FAILED);
		assert_non_null(strstr(lab.error, cases[i].words));
		s3_server_misbehave(&lab.server, S3_FAULT_NONE, 0, "", 0);
		assert_int_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE); /* it was not taken for wrong */
		lab_close_tier();
	}
}

/* What will not pass is not tried again, nor followed. */
static void test_refusals(void **state)
{
	static const int statuses[] = {403, 307, 301, 400, 501, 507, 204, 299};

	(void)state;
	assert_int_equal(lab_open_tier(""), TY_OK);
	assert_int_equal(lab_do(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
		unsigned requests = lab.server.requests;
		char words[32];

		s3_server_misbehave(&lab.server, S3_FAULT_STATUS, 1, "GET", statuses[i]);
		lab.server.code = "AccessDenied";
		assert_int_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), statuses[i] == 507 ? TY_TIER_FULL : TY_TIER_FAILED);
		snprintf(words, sizeof words, "answers %d", statuses[i]);
		assert_non_null(strstr(lab.error, words));
		assert_int_equal(lab.server.requests, requests + 1);
	}
	assert_int_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE);
	assert_int_equal(lab_stat(&lab.tier->stats.retries), 0);
	lab_close_tier();
}

/* Header lines and interim answers without end are cut off. */
static void test_floods(void **state)
{
	static const enum s3_fault faults[] = {S3_FAULT_HEADERS, S3_FAULT_CONTINUES};

	(void)state;
	assert_int_equal(lab_open_tier(""), TY_OK);
	assert_int_equal(lab_do(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	for (int i = 0; i < 2; i++)
		for (int v = 0; v < 2; v++) {
			s3_server_misbehave(&lab.server, faults[i], 1, "", 0);
			assert_int_equal(lab_do(v ? TY_TIER_GET : TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_FAILED);
			assert_non_null(strstr(lab.error, "more than 16384 bytes"));
		}
	s3_server_misbehave(&lab.server, S3_FAULT_NONE, 0, "", 0);
	assert_int_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE);
	lab_close_tier();
}

/* A store that is away is found to be, asked for nothing until it answers a question of ours, and used again at once. What goes down
 * waits for it, within its deadline. */
static void test_down(void **state)
{
	struct ty_tier_io *io;
	struct batch batch = {.ios = &io, .count = 1};
	unsigned requests;

	(void)state;
	assert_int_equal(lab_open_tier(",retries=1,timeout=60s"), TY_OK);
	assert_int_equal(lab_do(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	s3_server_misbehave(&lab.server, S3_FAULT_STATUS, 1000, "", 503);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_FAILED);
		assert_int_equal(lab_stat(&lab.tier->stats.down), 0);
	}
	assert_int_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_FAILED); /* the fifth failure in a row is its first try */
	assert_int_equal(lab_stat(&lab.tier->stats.down), 1);
	requests = lab.server.requests;
	for (int i = 0; i < 50; i++) {
		assert_int_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_FAILED);
		assert_non_null(strstr(lab.error, "the store is down: it answers 503"));
	}
	assert_in_range(lab.server.requests, requests, requests + 3); /* probes */
	lab_pass(120 * SECOND);
	assert_int_equal(lab_stat(&lab.tier->stats.down), 1);
	assert_in_range(lab.server.requests, requests + 4, requests + 15); /* ever more seldom: 0.5, 1, 2, ... 30 s */
	assert_int_equal(lab_do(TY_TIER_PUT, 2, 1, CHUNK), TY_TIER_LATE);
	assert_int_equal(lab_do(TY_TIER_DELETE, 2, 1, CHUNK), TY_TIER_FAILED);
	lab_pass(2 * SECOND);
	io = lab_io(TY_TIER_PUT, 3, 0, 1, CHUNK);
	lab.home = 0;
	assert_int_equal(ty_send(lab.driver, &batch.msg, LAB_RUN), TY_OK);
	lab_pass(2 * SECOND);
	assert_int_equal(lab.home, 0);
	s3_server_misbehave(&lab.server, S3_FAULT_NONE, 0, "", 0);
	while (!lab.home)
		lab_step();
	assert_int_equal(io->outcome, TY_TIER_DONE);
	lab_free(io);
	assert_int_equal(lab_stat(&lab.tier->stats.down), 0);
	assert_int_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE);
	/* the same with nobody there, and with one who takes connections and says nothing */
	s3_server_misbehave(&lab.server, S3_FAULT_HANG, 1000, "", 0);
	for (int i = 0; i < 5; i++)
		assert_int_not_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE);
	assert_int_equal(lab_stat(&lab.tier->stats.down), 1);
	lab_pass(60 * SECOND);
	assert_int_equal(lab_stat(&lab.tier->stats.down), 1);
	s3_server_misbehave(&lab.server, S3_FAULT_NONE, 0, "", 0);
	lab_pass(60 * SECOND);
	assert_int_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE);
	lab_close_tier();
}

static unsigned no_memory; /* so many requests find none */

CURLMcode __real_curl_multi_add_handle(CURLM *multi, CURL *easy);
CURLMcode __wrap_curl_multi_add_handle(CURLM *multi, CURL *easy);
CURLMcode __wrap_curl_multi_add_handle(CURLM *multi, CURL *easy)
{
	if (!no_memory)
		return __real_curl_multi_add_handle(multi, easy);
	no_memory--;
	return CURLM_OUT_OF_MEMORY;
}

/* A question whether it is back that cannot even be sent is not the last one. */
static void test_down_without_memory(void **state)
{
	(void)state;
	assert_int_equal(lab_open_tier(",timeout=2s,retries=0"), TY_OK);
	assert_int_equal(lab_do(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	s3_server_misbehave(&lab.server, S3_FAULT_STATUS, 100, "", 503);
	for (int i = 0; i < 5; i++)
		assert_int_not_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE);
	assert_int_equal(lab_stat(&lab.tier->stats.down), 1);
	no_memory = 1;
	s3_server_misbehave(&lab.server, S3_FAULT_NONE, 0, "", 0);
	lab_pass(60 * SECOND);
	assert_int_equal(no_memory, 0);
	assert_int_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE);
	lab_close_tier();
}

/* A chunk of more than part-size goes up in pieces, is there whole or not at all, and leaves no pieces behind. */
static void test_pieces(void **state)
{
	const uint64_t big = (uint64_t)11 << 20;

	(void)state;
	assert_int_equal(lab_open_tier(",part-size=5MiB,timeout=600s"), TY_OK);
	assert_int_equal(lab_do(TY_TIER_PUT, 1, 2, big + 1), TY_TIER_DONE);
	assert_int_equal(lab.server.by_kind[5], 5);
	assert_int_equal(lab_do(TY_TIER_GET, 1, 2, big + 1), TY_TIER_DONE);
	assert_int_equal(lab.server.refused_signatures, 0);
	/* a piece that fails once is sent again */
	s3_server_misbehave(&lab.server, S3_FAULT_CLOSE, 1, "PUT", 0);
	assert_int_equal(lab_do(TY_TIER_PUT, 2, 1, big), TY_TIER_DONE);
	assert_int_equal(lab_do(TY_TIER_GET, 2, 1, big), TY_TIER_DONE);
	/* each step that fails for good */
	s3_server_misbehave(&lab.server, S3_FAULT_STATUS, 100, "PUT", 403);
	assert_int_equal(lab_do(TY_TIER_PUT, 3, 1, big), TY_TIER_FAILED);
	s3_server_misbehave(&lab.server, S3_FAULT_NO_ID, 1, "POST", 0);
	assert_int_equal(lab_do(TY_TIER_PUT, 3, 1, big), TY_TIER_FAILED);
	assert_non_null(strstr(lab.error, "UploadId"));
	s3_server_misbehave(&lab.server, S3_FAULT_STATUS, 1, "POST", 403);
	assert_int_equal(lab_do(TY_TIER_PUT, 3, 1, big), TY_TIER_FAILED);
	lab_pass(2 * SECOND);
	assert_int_equal(lab.server.aborted, 1); /* of the three, one had begun */
	for (int again = 1; again >= 0; again--) { /* an error behind the status: one that passes, one that does not */
		lab.server.fault = S3_FAULT_LATE_ERROR;
		lab.server.fault_count = 0;
		struct ty_tier_io *io = lab_io(TY_TIER_PUT, 3, 0, 1, big);
		struct batch batch = {.ios = &io, .count = 1};
		unsigned begun = lab.server.by_kind[4];

		lab.home = 0;
		assert_int_equal(ty_send(lab.driver, &batch.msg, LAB_RUN), TY_OK);
		while (lab.server.by_kind[4] == begun)
			lab_step();
		s3_server_misbehave(&lab.server, S3_FAULT_LATE_ERROR, 1, "POST", 0);
		lab.server.code = again ? "InternalError" : "NoSuchUpload";
		while (!lab.home)
			lab_step();
		assert_int_equal(io->outcome, again ? TY_TIER_DONE : TY_TIER_FAILED);
		lab_free(io);
		lab_pass(2 * SECOND);
		assert_int_equal(lab_object(3) != NULL, again);
		if (again)
			assert_int_equal(lab_do(TY_TIER_DELETE, 3, 1, 0), TY_TIER_DONE);
	}
	assert_int_equal(lab.server.aborted, 2);
	for (size_t i = 0; i < sizeof lab.server.piece / sizeof lab.server.piece[0]; i++)
		assert_null(lab.server.piece[i].data);
	lab_close_tier();
}

/* An operation ends by its deadline, and from then on its memory is its owner's. */
static void test_deadline(void **state)
{
	struct ty_tier_io *io;

	(void)state;
	assert_int_equal(lab_open_tier(",timeout=4s,retries=0"), TY_OK);
	assert_int_equal(lab_do(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	s3_server_misbehave(&lab.server, S3_FAULT_DRIP, 1, "GET", 0);
	io = lab_io(TY_TIER_GET, 1, 0, 1, CHUNK);
	lab_run(&io, 1);
	if (io->outcome != TY_TIER_LATE)
		fail_msg("%s", io->error);
	memset(io->part[0].data, 0xcc, CHUNK);
	lab_pass(30 * SECOND);
	for (int i = 0; i < CHUNK; i++)
		assert_int_equal(io->part[0].data[i], 0xcc);
	lab_free(io);
	lab_close_tier();
}

/* What is said of one chunk is done in that order, also where the first takes its time: a chunk that is deleted while it goes up is not
 * there when it has. Those of others do not wait for it. */
static void test_order(void **state)
{
	struct ty_tier_io *ios[4];

	(void)state;
	assert_int_equal(lab_open_tier(",timeout=60s"), TY_OK);
	s3_server_misbehave(&lab.server, S3_FAULT_HANG, 1, "PUT", 0);
	ios[0] = lab_io(TY_TIER_PUT, 1, 0, 1, CHUNK);
	ios[1] = lab_io(TY_TIER_DELETE, 1, 0, 1, 0);
	ios[2] = lab_io(TY_TIER_PUT, 2, 2, 1, CHUNK);
	ios[3] = lab_io(TY_TIER_DELETE, 2, 0, 1, 0);
	lab_run(ios, 4);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(ios[i]->outcome, TY_TIER_DONE);
		lab_free(ios[i]);
	}
	assert_int_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_MISSING);
	/* and one that waits goes home in time, as any other */
	s3_server_misbehave(&lab.server, S3_FAULT_HANG, 100, "PUT", 0);
	ios[0] = lab_io(TY_TIER_PUT, 1, 0, 1, CHUNK);
	ios[1] = lab_io(TY_TIER_DELETE, 1, 0, 1, 0);
	lab_run(ios, 2);
	assert_int_not_equal(ios[0]->outcome, TY_TIER_DONE);
	assert_true(ios[1]->outcome == TY_TIER_LATE || ios[1]->outcome == TY_TIER_DONE || ios[1]->outcome == TY_TIER_FAILED);
	lab_free(ios[0]);
	lab_free(ios[1]);
	lab_close_tier();
}

/* Told to stop, it ends all that is out, in whatever state it is. */
static void test_stop(void **state)
{
	struct ty_tier_io *ios[40];
	struct batch batch = {.ios = ios, .count = 40};

	(void)state;
	assert_int_equal(lab_open_tier(",part-size=5MiB,connections=4"), TY_OK);
	s3_server_misbehave(&lab.server, S3_FAULT_HANG, 1000, "", 0);
	lab.server.fault_count = 1000;
	for (uint32_t i = 0; i < 40; i++)
		ios[i] = i % 4 == 0 ? lab_io(TY_TIER_EXISTS, i, 0, 40, 0)
				    : lab_io(i % 2 ? TY_TIER_PUT : TY_TIER_GET, i, 0, 1, i == 1 ? 6 << 20 : CHUNK);
	lab.home = 0;
	assert_int_equal(ty_send(lab.driver, &batch.msg, LAB_RUN), TY_OK);
	lab_pass(SECOND);
	assert_int_equal(lab.home, 0);
	lab_close_tier();
	assert_int_equal(lab.home, 40);
	for (uint32_t i = 0; i < 40; i++) {
		assert_int_equal(ios[i]->outcome, TY_TIER_STOPPED);
		lab_free(ios[i]);
	}
}

/* No more connections than allowed; writes that hang leave the reads theirs. */
static void test_lanes(void **state)
{
	struct ty_tier_io *ios[40];
	struct batch writes = {.ios = ios, .count = 20};

	(void)state;
	assert_int_equal(lab_open_tier(",connections=4,timeout=600s,stall=300s"), TY_OK);
	assert_int_equal(lab_do(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	s3_server_misbehave(&lab.server, S3_FAULT_HANG, 1000, "PUT", 0);
	for (uint32_t i = 0; i < 20; i++)
		ios[i] = lab_io(TY_TIER_PUT, 100 + i, 40 + i, 1, CHUNK);
	assert_int_equal(ty_send(lab.driver, &writes.msg, LAB_RUN), TY_OK);
	lab_pass(SECOND);
	for (uint32_t i = 20; i < 40; i++)
		ios[i] = lab_io(TY_TIER_GET, 1, i, 1, CHUNK);
	lab_run(ios + 20, 20);
	for (uint32_t i = 20; i < 40; i++) {
		assert_int_equal(ios[i]->outcome, TY_TIER_DONE);
		assert_true(lab_holds(ios[i], 1));
	}
	assert_in_range(lab.server.most_open, 3, 4);
	lab_close_tier();
	for (uint32_t i = 0; i < 40; i++)
		lab_free(ios[i]);
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
	assert_int_equal(lab_open_tier(settings), TY_OK);
	assert_int_equal(lab_do(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	lab.server.secret = "second";
	assert_int_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_FAILED);
	assert_non_null(strstr(lab.error, "403 SignatureDoesNotMatch"));
	write_credentials(path, "second");
	since = ty_runtime_now(lab.service->rt);
	while (lab_do(TY_TIER_GET, 1, 1, CHUNK) != TY_TIER_DONE)
		assert_true(ty_runtime_now(lab.service->rt) < since + 20 * SECOND);
	assert_true(ty_runtime_now(lab.service->rt) > since + 8 * SECOND); /* it is not read for each request */
	lab_close_tier();
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(lab_open_tier(settings), TY_DENIED);
	assert_non_null(strstr(lab.error, "others may read it"));
	unlink(path);
	assert_int_equal(lab_open_tier(settings), TY_IO);
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
		assert_int_equal(lab_open_tier(cases[i].settings), cases[i].code);
		assert_non_null(strstr(lab.error, cases[i].words));
	}
	unsetenv("AWS_SECRET_ACCESS_KEY");
	assert_int_equal(lab_open_tier(""), TY_INVALID);
	assert_non_null(strstr(lab.error, "expected both or none"));
	unsetenv("AWS_ACCESS_KEY_ID");
	assert_int_equal(lab_open_tier(""), TY_DENIED);
	assert_int_equal(lab.server.requests, 1); /* nothing was asked for what cannot be meant */
	lab.server.id = NULL; /* from here on anybody may ask */
	for (int status = 200; status < 600; status += 101) { /* 200, 301, 402, 503 */
		s3_server_misbehave(&lab.server, status == 200 ? S3_FAULT_NONE : S3_FAULT_STATUS, 1, "GET", status);
		if (status == 200 || status >= 500) {
			assert_int_equal(lab_open_tier(""), TY_OK);
			assert_non_null(strstr(lab.tier->stats.note, status == 200 ? "the bucket answers; requests are not signed" : "it does not answer"));
			lab_close_tier();
		} else {
			assert_int_equal(lab_open_tier(""), TY_INVALID);
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
	assert_int_equal(lab_open_tier(",part-size=5MiB,connections=6,timeout=20s"), TY_OK);
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
			ios[i] = numbers[i] ? lab_io(verb, numbers[i], i + 12 * LARGE / CHUNK, verb == TY_TIER_EXISTS ? 8 : 1, CHUNK)
					    : lab_io(verb, 0, i, verb == TY_TIER_EXISTS ? 8 : 1, LARGE);
			if (numbers[i] == 0)
				ios[i]->identity = NULL;
		}
		lab_run(ios, count);
		for (uint32_t i = 0; i < count; i++) {
			if (ios[i]->verb == TY_TIER_GET && ios[i]->outcome == TY_TIER_DONE && numbers[i] != 0)
				assert_true(lab_holds(ios[i], numbers[i]));
			lab_free(ios[i]);
		}
	}
	assert_int_equal(lab_stat(&lab.tier->stats.in_flight[0]), 0);
	assert_int_equal(lab_stat(&lab.tier->stats.in_flight[1]), 0);
	assert_int_equal(lab_stat(&lab.tier->stats.in_flight_bytes[0]), 0);
	assert_int_equal(lab.server.refused_signatures, 0);
	lab_close_tier();
}

int main(void)
{
#define PACKED(f) cmocka_unit_test_prestate_setup_teardown(f, lab_open, lab_close, (void *)(uintptr_t)",compress=zstd")
#define TEST(f) cmocka_unit_test_setup_teardown(f, lab_open, lab_close)
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
		TEST(test_down_without_memory),
		TEST(test_pieces),
		TEST(test_deadline),
		TEST(test_order),
		TEST(test_stop),
		TEST(test_lanes),
		TEST(test_credentials_file),
		TEST(test_configuration),
		TEST(test_random),
		PACKED(test_round_trip),
		PACKED(test_exists),
		PACKED(test_wanted_parts),
		PACKED(test_wrong_objects),
		PACKED(test_passing),
		PACKED(test_floods),
		PACKED(test_deadline),
		PACKED(test_stop),
		PACKED(test_random),
	};

	ty_log_setup(TY_LOG_ERROR, false);
	return cmocka_run_group_tests_name("tiers-s3", tests, NULL, NULL);
}
