/* SPDX-License-Identifier: Apache-2.0
 *
 * The S3 tier against a server that misbehaves as told.
 */
#include "s3_lab.h"

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
		s3_server_misbehave(&server, faults[i], 1, "GET", 0);
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
			s3_server_misbehave(&server, cases[i].fault, 1, method, cases[i].status);
			server.code = "SlowDown";
			assert_int_equal(lab_do(verbs[v], 1, 1, CHUNK), TY_TIER_DONE);
			/* a kept connection that ends is libcurl's own to make anew */
			if (cases[i].fault != S3_FAULT_CLOSE)
				assert_int_equal(lab_stat(&lab.tier->stats.retries), ++before);
		}
		assert_int_equal(lab_do(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
		s3_server_misbehave(&server, cases[i].fault, 1000, "GET", cases[i].status);
		server.code = "SlowDown";
		assert_int_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_FAILED);
		assert_non_null(strstr(lab.error, cases[i].words));
		s3_server_misbehave(&server, S3_FAULT_NONE, 0, "", 0);
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
		unsigned requests = server.requests;
		char words[32];

		s3_server_misbehave(&server, S3_FAULT_STATUS, 1, "GET", statuses[i]);
		server.code = "AccessDenied";
		assert_int_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), statuses[i] == 507 ? TY_TIER_FULL : TY_TIER_FAILED);
		snprintf(words, sizeof words, "answers %d", statuses[i]);
		assert_non_null(strstr(lab.error, words));
		assert_int_equal(server.requests, requests + 1);
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
			s3_server_misbehave(&server, faults[i], 1, "", 0);
			assert_int_equal(lab_do(v ? TY_TIER_GET : TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_FAILED);
			assert_non_null(strstr(lab.error, "more than 16384 bytes"));
		}
	s3_server_misbehave(&server, S3_FAULT_NONE, 0, "", 0);
	assert_int_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE);
	lab_close_tier();
}

/* A store that is away is found to be, asked for nothing until it answers a question of ours, and used again at once. What goes down
 * waits for it, within its deadline. */
static void test_down(void **state)
{
	struct ty_tier_io *io;
	struct driven_batch batch = {.ios = &io, .count = 1};
	unsigned requests;

	(void)state;
	assert_int_equal(lab_open_tier(",retries=1,timeout=60s"), TY_OK);
	assert_int_equal(lab_do(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	s3_server_misbehave(&server, S3_FAULT_STATUS, 1000, "", 503);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_FAILED);
		assert_int_equal(lab_stat(&lab.tier->stats.down), 0);
	}
	assert_int_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_FAILED); /* the fifth failure in a row is its first try */
	assert_int_equal(lab_stat(&lab.tier->stats.down), 1);
	requests = server.requests;
	for (int i = 0; i < 50; i++) {
		assert_int_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_FAILED);
		assert_non_null(strstr(lab.error, "the store is down: it answers 503"));
	}
	assert_in_range(server.requests, requests, requests + 3); /* probes */
	lab_pass(120 * SECOND);
	assert_int_equal(lab_stat(&lab.tier->stats.down), 1);
	assert_in_range(server.requests, requests + 4, requests + 15); /* ever more seldom: 0.5, 1, 2, ... 30 s */
	assert_int_equal(lab_do(TY_TIER_PUT, 2, 1, CHUNK), TY_TIER_LATE);
	assert_int_equal(lab_do(TY_TIER_DELETE, 2, 1, CHUNK), TY_TIER_FAILED);
	lab_pass(2 * SECOND);
	io = lab_io(TY_TIER_PUT, 3, 0, 1, CHUNK);
	lab.home = 0;
	driven_submit(&lab, &batch);
	lab_pass(2 * SECOND);
	assert_int_equal(lab.home, 0);
	s3_server_misbehave(&server, S3_FAULT_NONE, 0, "", 0);
	while (!lab.home)
		lab_step();
	assert_int_equal(io->outcome, TY_TIER_DONE);
	lab_free(io);
	assert_int_equal(lab_stat(&lab.tier->stats.down), 0);
	assert_int_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE);
	/* the same with nobody there, and with one who takes connections and says nothing */
	s3_server_misbehave(&server, S3_FAULT_HANG, 1000, "", 0);
	for (int i = 0; i < 5; i++)
		assert_int_not_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE);
	assert_int_equal(lab_stat(&lab.tier->stats.down), 1);
	lab_pass(60 * SECOND);
	assert_int_equal(lab_stat(&lab.tier->stats.down), 1);
	s3_server_misbehave(&server, S3_FAULT_NONE, 0, "", 0);
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
	s3_server_misbehave(&server, S3_FAULT_STATUS, 100, "", 503);
	for (int i = 0; i < 5; i++)
		assert_int_not_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE);
	assert_int_equal(lab_stat(&lab.tier->stats.down), 1);
	no_memory = 1;
	s3_server_misbehave(&server, S3_FAULT_NONE, 0, "", 0);
	lab_pass(60 * SECOND);
	assert_int_equal(no_memory, 0);
	assert_int_equal(lab_do(TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE);
	lab_close_tier();
}

/* An operation ends by its deadline, and from then on its memory is its owner's. */
static void test_deadline(void **state)
{
	struct ty_tier_io *io;

	(void)state;
	assert_int_equal(lab_open_tier(",timeout=4s,retries=0"), TY_OK);
	assert_int_equal(lab_do(TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	s3_server_misbehave(&server, S3_FAULT_DRIP, 1, "GET", 0);
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

/* Told to stop, it ends all that is out, in whatever state it is. */
static void test_stop(void **state)
{
	struct ty_tier_io *ios[40];
	struct driven_batch batch = {.ios = ios, .count = 40};

	(void)state;
	assert_int_equal(lab_open_tier(",part-size=5MiB,connections=4"), TY_OK);
	s3_server_misbehave(&server, S3_FAULT_HANG, 1000, "", 0);
	server.fault_count = 1000;
	for (uint32_t i = 0; i < 40; i++)
		ios[i] = i % 4 == 0 ? lab_io(TY_TIER_EXISTS, i, 0, 40, 0)
				    : lab_io(i % 2 ? TY_TIER_PUT : TY_TIER_GET, i, 0, 1, i == 1 ? 6 << 20 : CHUNK);
	lab.home = 0;
	driven_submit(&lab, &batch);
	lab_pass(SECOND);
	assert_int_equal(lab.home, 0);
	lab_close_tier();
	assert_int_equal(lab.home, 40);
	for (uint32_t i = 0; i < 40; i++) {
		assert_int_equal(ios[i]->outcome, TY_TIER_STOPPED);
		lab_free(ios[i]);
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

		s3_server_misbehave(&server, fault, times, method, draw(&random, 2) ? 503 : 403);
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
	assert_int_equal(server.refused_signatures, 0);
	lab_close_tier();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LAB_TEST(test_wrong_objects),
		LAB_TEST(test_passing),
		LAB_TEST(test_refusals),
		LAB_TEST(test_floods),
		LAB_TEST(test_down),
		LAB_TEST(test_down_without_memory),
		LAB_TEST(test_deadline),
		LAB_TEST(test_stop),
		LAB_TEST(test_random),
		LAB_PACKED(test_wrong_objects),
		LAB_PACKED(test_passing),
		LAB_PACKED(test_floods),
		LAB_PACKED(test_deadline),
		LAB_PACKED(test_stop),
		LAB_PACKED(test_random),
	};

	ty_log_setup(TY_LOG_ERROR, false);
	return cmocka_run_group_tests_name("tiers-s3-faults", tests, NULL, NULL);
}
