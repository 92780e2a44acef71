/* SPDX-License-Identifier: Apache-2.0
 *
 * The S3 tier: what goes in comes out, signed, in order, over no more connections than allowed.
 */
#include "s3_lab.h"

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
	assert_int_equal(server.refused_signatures, 0);
	/* one after the other they need one connection, beside that of the first look */
	assert_int_equal(server.connections, 2);
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
	server.token = token;
	assert_int_equal(lab_open_tier(",region=eu-central-1,prefix=a/b-c_d.e~f/"), TY_OK);
	assert_int_equal(lab_do(TY_TIER_PUT, 1, 2, CHUNK), TY_TIER_DONE);
	assert_int_equal(lab_do(TY_TIER_GET, 1, 2, CHUNK), TY_TIER_DONE);
	assert_int_equal(lab_do(TY_TIER_EXISTS, 1, 1, 0), TY_TIER_DONE);
	assert_non_null(strstr(server.object[0].name, "/kv/a/b-c_d.e~f/"));
	assert_int_equal(server.refused_signatures, 0);
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
	server.secret = "another";
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
	assert_in_range(server.by_kind[2], 30 + 11, 29 + 10 + 2 * S3_KEYS_OUT);
	assert_int_equal(lab_do(TY_TIER_EXISTS, 41, 1, 0), TY_TIER_MISSING);
	s3_server_misbehave(&server, S3_FAULT_STATUS, 100, "GET", 500);
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

/* A chunk of more than part-size goes up in pieces, is there whole or not at all, and leaves no pieces behind. */
static void test_pieces(void **state)
{
	const uint64_t big = (uint64_t)11 << 20;

	(void)state;
	assert_int_equal(lab_open_tier(",part-size=5MiB,timeout=600s"), TY_OK);
	assert_int_equal(lab_do(TY_TIER_PUT, 1, 2, big + 1), TY_TIER_DONE);
	assert_int_equal(server.by_kind[5], 5);
	assert_int_equal(lab_do(TY_TIER_GET, 1, 2, big + 1), TY_TIER_DONE);
	assert_int_equal(server.refused_signatures, 0);
	/* a piece that fails once is sent again */
	s3_server_misbehave(&server, S3_FAULT_CLOSE, 1, "PUT", 0);
	assert_int_equal(lab_do(TY_TIER_PUT, 2, 1, big), TY_TIER_DONE);
	assert_int_equal(lab_do(TY_TIER_GET, 2, 1, big), TY_TIER_DONE);
	/* each step that fails for good */
	s3_server_misbehave(&server, S3_FAULT_STATUS, 100, "PUT", 403);
	assert_int_equal(lab_do(TY_TIER_PUT, 3, 1, big), TY_TIER_FAILED);
	s3_server_misbehave(&server, S3_FAULT_NO_ID, 1, "POST", 0);
	assert_int_equal(lab_do(TY_TIER_PUT, 3, 1, big), TY_TIER_FAILED);
	assert_non_null(strstr(lab.error, "UploadId"));
	s3_server_misbehave(&server, S3_FAULT_STATUS, 1, "POST", 403);
	assert_int_equal(lab_do(TY_TIER_PUT, 3, 1, big), TY_TIER_FAILED);
	lab_pass(2 * SECOND);
	assert_int_equal(server.aborted, 1); /* of the three, one had begun */
	for (int again = 1; again >= 0; again--) { /* an error behind the status: one that passes, one that does not */
		server.fault = S3_FAULT_LATE_ERROR;
		server.fault_count = 0;
		struct ty_tier_io *io = lab_io(TY_TIER_PUT, 3, 0, 1, big);
		struct driven_batch batch = {.ios = &io, .count = 1};
		unsigned begun = server.by_kind[4];

		lab.home = 0;
		driven_submit(&lab, &batch);
		while (server.by_kind[4] == begun)
			lab_step();
		s3_server_misbehave(&server, S3_FAULT_LATE_ERROR, 1, "POST", 0);
		server.code = again ? "InternalError" : "NoSuchUpload";
		while (!lab.home)
			lab_step();
		assert_int_equal(io->outcome, again ? TY_TIER_DONE : TY_TIER_FAILED);
		lab_free(io);
		lab_pass(2 * SECOND);
		assert_int_equal(lab_object(3) != NULL, again);
		if (again)
			assert_int_equal(lab_do(TY_TIER_DELETE, 3, 1, 0), TY_TIER_DONE);
	}
	assert_int_equal(server.aborted, 2);
	for (size_t i = 0; i < sizeof server.piece / sizeof server.piece[0]; i++)
		assert_null(server.piece[i].data);
	lab_close_tier();
}

/* What is said of one chunk is done in that order, also where the first takes its time: a chunk that is deleted while it goes up is not
 * there when it has. Those of others do not wait for it. */
static void test_order(void **state)
{
	struct ty_tier_io *ios[4];

	(void)state;
	assert_int_equal(lab_open_tier(",timeout=60s"), TY_OK);
	s3_server_misbehave(&server, S3_FAULT_HANG, 1, "PUT", 0);
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
	s3_server_misbehave(&server, S3_FAULT_HANG, 100, "PUT", 0);
	ios[0] = lab_io(TY_TIER_PUT, 1, 0, 1, CHUNK);
	ios[1] = lab_io(TY_TIER_DELETE, 1, 0, 1, 0);
	lab_run(ios, 2);
	assert_int_not_equal(ios[0]->outcome, TY_TIER_DONE);
	assert_true(ios[1]->outcome == TY_TIER_LATE || ios[1]->outcome == TY_TIER_DONE || ios[1]->outcome == TY_TIER_FAILED);
	lab_free(ios[0]);
	lab_free(ios[1]);
	lab_close_tier();
}

/* No more connections than allowed; writes that hang leave the reads theirs. */
static void test_lanes(void **state)
{
	struct ty_tier_io *ios[40];
	struct driven_batch writes = {.ios = ios, .count = 20};

	(void)state;
	assert_int_equal(lab_open_tier(",connections=4,timeout=600s,stall=300s"), TY_OK);
	assert_int_equal(lab_do(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	s3_server_misbehave(&server, S3_FAULT_HANG, 1000, "PUT", 0);
	for (uint32_t i = 0; i < 20; i++)
		ios[i] = lab_io(TY_TIER_PUT, 100 + i, 40 + i, 1, CHUNK);
	driven_submit(&lab, &writes);
	lab_pass(SECOND);
	for (uint32_t i = 20; i < 40; i++)
		ios[i] = lab_io(TY_TIER_GET, 1, i, 1, CHUNK);
	lab_run(ios + 20, 20);
	for (uint32_t i = 20; i < 40; i++) {
		assert_int_equal(ios[i]->outcome, TY_TIER_DONE);
		assert_true(lab_holds(ios[i], 1));
	}
	assert_in_range(server.most_open, 3, 4);
	lab_close_tier();
	for (uint32_t i = 0; i < 40; i++)
		lab_free(ios[i]);
}

static void write_credentials(const char *path, const char *secret)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fprintf(f, "# keys\n[other]\naws_access_key_id = x\n[default]\naws_access_key_id=%s\n aws_secret_access_key = %s \nregion = x\n",
		server.id, secret);
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
	server.secret = "first";
	assert_int_equal(lab_open_tier(settings), TY_OK);
	assert_int_equal(lab_do(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	server.secret = "second";
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
	assert_int_equal(server.requests, 1); /* nothing was asked for what cannot be meant */
	server.id = NULL; /* from here on anybody may ask */
	for (int status = 200; status < 600; status += 101) { /* 200, 301, 402, 503 */
		s3_server_misbehave(&server, status == 200 ? S3_FAULT_NONE : S3_FAULT_STATUS, 1, "GET", status);
		if (status == 200 || status >= 500) {
			assert_int_equal(lab_open_tier(""), TY_OK);
			assert_non_null(strstr(lab.tier->stats.note, status == 200 ? "the bucket answers; requests are not signed" : "it does not answer"));
			lab_close_tier();
		} else {
			assert_int_equal(lab_open_tier(""), TY_INVALID);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LAB_TEST(test_round_trip),
		LAB_TEST(test_token),
		LAB_TEST(test_vectors),
		LAB_TEST(test_exists),
		LAB_TEST(test_wanted_parts),
		LAB_TEST(test_pieces),
		LAB_TEST(test_order),
		LAB_TEST(test_lanes),
		LAB_TEST(test_credentials_file),
		LAB_TEST(test_configuration),
		LAB_PACKED(test_round_trip),
		LAB_PACKED(test_exists),
		LAB_PACKED(test_wanted_parts),
	};

	ty_log_setup(TY_LOG_ERROR, false);
	return cmocka_run_group_tests_name("tiers-s3", tests, NULL, NULL);
}
