/* SPDX-License-Identifier: Apache-2.0
 *
 * The client library against a service that answers, holds, lies and dies.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>

#include "fake.h"
#include "wire/request.h"

#define FOREVER_US 30000000 /* a poll that ends when it should takes microseconds; one that does not fails the test's count */

/* What a request's completion said. */
struct outcome {
	uint32_t calls;
	struct ty_result result;
	char error[256];
	uint8_t status[256];
};

static void on_done(void *user, const struct ty_result *result)
{
	struct outcome *o = user;

	o->calls++;
	o->result = *result;
	snprintf(o->error, sizeof o->error, "%s", result->error);
}

static struct ty_client *open_client(const struct ty_client_options *options)
{
	struct ty_client *c;
	struct ty_error err;

	if (ty_client_open(options, &c, &err) != TY_OK)
		fail_msg("ty_client_open: %s", err.text);
	return c;
}

static void wait_for(struct ty_client *c, const struct outcome *o)
{
	while (o->calls == 0)
		assert_int_not_equal(ty_client_poll(c, 0, FOREVER_US), 0);
	assert_int_equal(o->calls, 1);
}

static bool readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

/* ---- opening --------------------------------------------------------------------------------------------------------- */

static enum fake_answer check_hello(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	static const uint8_t zero[16];

	if (request->verb_case != TYER__V1__REQUEST__VERB_HELLO)
		return FAKE_REPLY;
	fake_hello(f, reply);
	if (request->client != 0 || request->hello->token.len != 16 || memcmp(request->hello->token.data, f->token, 16) != 0 ||
		request->hello->engine.len != 16 || memcmp(request->hello->engine.data, zero, 16) == 0 ||
		strcmp(request->hello->name, "test") != 0 || strcmp(request->hello->namespace_->tenant, "t") != 0 ||
		strcmp(request->hello->namespace_->model, "m") != 0 || strcmp(request->hello->namespace_->dtype, "bf16") != 0)
		reply->code = TYER__V1__CODE__INTERNAL;
	return FAKE_REPLY;
}

static void test_open(void **state)
{
	struct fake_options fo = {.answer = check_hello};
	struct ty_client_options o;
	const struct ty_client_info *info;
	struct fake f;
	struct ty_client *c;
	_Atomic uint64_t *mine, *theirs;

	(void)state;
	fake_start(&f, &fo);
	o = fake_client_options(&f);
	c = open_client(&o);
	info = ty_client_info(c);
	assert_int_equal(info->boot, FAKE_BOOT);
	assert_int_equal(info->client, FAKE_CLIENT);
	assert_int_equal(info->chunk_tokens, 256);
	assert_int_equal(info->max_operations, 7);
	assert_int_equal(info->max_operation_chunks, 11);
	assert_int_equal(info->max_chunk_bytes, 13);
	assert_int_equal(info->device_count, 1);
	assert_string_equal(info->devices[0].name, "host");
	assert_string_equal(info->devices[0].model, "host memory");
	assert_int_equal(info->devices[0].uuid[2], 3);

	/* the timeline is one page in two processes' (here: two mappings') sight */
	mine = ty_client_timeline(c);
	theirs = f.timeline;
	assert_ptr_not_equal(mine, theirs);
	ty_client_raise(c, (struct ty_mark){5, 9});
	assert_int_equal(atomic_load(&theirs[5]), 9);
	ty_client_raise(c, (struct ty_mark){5, 8}); /* only grows */
	assert_int_equal(atomic_load(&theirs[5]), 9);
	assert_false(ty_client_reached(c, (struct ty_mark){511, 3}));
	atomic_store(&theirs[511], 3);
	assert_true(ty_client_reached(c, (struct ty_mark){511, 3}));
	assert_true(ty_client_reached(c, (struct ty_mark){0, 77}));
	ty_client_close(c);
	fake_stop(&f);
}

static void expect_open(const struct ty_client_options *o, enum ty_code code, const char *text)
{
	struct ty_client *c = (struct ty_client *)(uintptr_t)1;
	struct ty_error err = {.text = ""};

	assert_int_equal(ty_client_open(o, &c, &err), code);
	assert_null(c);
	assert_int_equal(err.code, code);
	if (strstr(err.text, text) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", err.text, text);
}

static void test_open_refusals(void **state)
{
	struct fake_options refuse = {.refuse = true}, version = {.version = 2}, silent = {.silent = true},
			    no_rep = {.no_rep = true};
	struct ty_client_options o;
	struct fake f;

	(void)state;
	fake_start(&f, &refuse);
	o = fake_client_options(&f);
	expect_open(&o, TY_LIMIT, "max_clients");
	fake_stop(&f);

	fake_start(&f, &version);
	o = fake_client_options(&f);
	expect_open(&o, TY_UNSUPPORTED, "version is 2");
	fake_stop(&f);

	fake_start(&f, &silent);
	o = fake_client_options(&f);
	o.connect_timeout_us = 20000;
	expect_open(&o, TY_TIMEOUT, "no greeting");
	fake_stop(&f);

	fake_start(&f, &no_rep);
	o = fake_client_options(&f);
	expect_open(&o, TY_CLOSED, "nobody listens at ipc://");
	o.attach_path = NULL;
	expect_open(&o, TY_CLOSED, "nobody listens at ipc://");
	o.url = "tcp://127.0.0.1:1";
	expect_open(&o, TY_CLOSED, "nobody listens at tcp://");
	fake_stop(&f);
	o = fake_client_options(&f);
	expect_open(&o, TY_CLOSED, "nobody listens on the attach socket");
}

static void test_open_bad_options(void **state)
{
	struct ty_client_options o = {.size = sizeof o, .url = "ipc:///nonexistent/x"};
	struct {
		struct ty_client_options o;
		uint64_t later;
	} longer = {.o = {.size = sizeof longer, .url = "ipc:///nonexistent/x"}, .later = 1};
	char name[66];

	(void)state;
	expect_open(NULL, TY_INVALID, "options");
	o.size = 8;
	expect_open(&o, TY_INVALID, "options.size");
	o.size = sizeof o;
	o.max_requests = 65;
	expect_open(&o, TY_INVALID, "max_requests");
	o.max_requests = 0;
	memset(name, 'x', 65);
	name[65] = '\0';
	o.name = name;
	expect_open(&o, TY_INVALID, "options.name");
	o.name = "a\nb";
	expect_open(&o, TY_INVALID, "options.name");
	o.name = NULL;
	o.url = "nonsense";
	expect_open(&o, TY_INVALID, "options.url");
	o.url = NULL;
	expect_open(&o, TY_INVALID, "options.url");
	expect_open(&longer.o, TY_UNSUPPORTED, "options.size");
}

/* A socket of another kind, and one that speaks something else. */
static void test_open_not_a_tyer(void **state)
{
	char directory[] = "/tmp/tyer-client-test-XXXXXX", path[64], url[80];
	struct ty_client_options o = {.size = sizeof o, .url = "ipc:///nonexistent/x", .attach_path = path};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	nng_socket pair;
	int fd;

	(void)state;
	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof path, "%s/s", directory);
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(fd, 4), 0);
	expect_open(&o, TY_PROTOCOL, "another kind");

	/* accepts, and never speaks nng's protocol */
	snprintf(url, sizeof url, "ipc://%s", path);
	o = (struct ty_client_options){.size = sizeof o, .url = url, .connect_timeout_us = 250000};
	expect_open(&o, TY_PROTOCOL, "does not answer");
	close(fd);
	unlink(path);

	/* speaks it, but is no REP socket */
	assert_int_equal(nng_pair0_open(&pair), 0);
	assert_int_equal(nng_listen(pair, url, NULL, 0), 0);
	expect_open(&o, TY_PROTOCOL, "but with 00 53 50 00 00 10 00 00");
	nng_close(pair);
	rmdir(directory);
}

static enum fake_answer other_boot(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	(void)request;
	fake_hello(f, reply);
	reply->boot = 1;
	return FAKE_REPLY;
}

static enum fake_answer deny(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	(void)f;
	(void)request;
	reply->code = TYER__V1__CODE__DENIED;
	reply->error = (char *)"Hello.token is nobody's";
	return FAKE_REPLY;
}

static enum fake_answer garbage(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	(void)f;
	(void)request;
	(void)reply;
	return FAKE_GARBAGE;
}

static enum fake_answer hold_all(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	(void)f;
	(void)request;
	(void)reply;
	return FAKE_HOLD;
}

static void test_open_hello_fails(void **state)
{
	static const struct {
		enum fake_answer (*answer)(struct fake *, const Tyer__V1__Request *, Tyer__V1__Reply *);
		enum ty_code code;
		const char *text;
	} cases[] = {
		{other_boot, TY_PROTOCOL, "different services"},
		{deny, TY_DENIED, "Hello.token is nobody's"},
		{garbage, TY_PROTOCOL, "no Reply"},
		{hold_all, TY_TIMEOUT, "HELLO in connect_timeout_us"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct fake_options fo = {.answer = cases[i].answer};
		struct ty_client_options o;
		struct fake f;

		fake_start(&f, &fo);
		o = fake_client_options(&f);
		if (cases[i].code == TY_TIMEOUT)
			o.connect_timeout_us = 50000;
		expect_open(&o, cases[i].code, cases[i].text);
		fake_stop(&f);
	}
}

static enum fake_answer ping_status(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	static Tyer__V1__StatusReply status;

	(void)f;
	if (request->client != 0)
		reply->code = TYER__V1__CODE__INTERNAL;
	if (request->verb_case == TYER__V1__REQUEST__VERB_STATUS) {
		tyer__v1__status_reply__init(&status);
		status.version = (char *)"1.2.3";
		reply->verb_case = TYER__V1__REPLY__VERB_STATUS;
		reply->status = &status;
	}
	return FAKE_REPLY;
}

static void on_status(void *user, const struct ty_result *result)
{
	struct outcome *o = user;

	on_done(user, result);
	assert_in_range(result->status.length, 1, sizeof o->status);
	memcpy(o->status, result->status.bytes, result->status.length);
}

static void test_without_attach(void **state)
{
	struct fake_options fo = {.answer = ping_status, .no_attach = true};
	struct ty_client_options o;
	struct outcome ping = {0}, status = {0};
	Tyer__V1__StatusReply *reply;
	struct fake f;
	struct ty_client *c;
	struct ty_error err;

	(void)state;
	fake_start(&f, &fo);
	o = fake_client_options(&f);
	o.attach_path = NULL;
	c = open_client(&o);
	assert_int_equal(ty_client_info(c)->boot, FAKE_BOOT);
	assert_null(ty_client_timeline(c));
	assert_int_equal(ty_client_ping(c, on_done, &ping, &err), TY_OK);
	assert_int_equal(ty_client_status(c, on_status, &status, &err), TY_OK);
	wait_for(c, &ping);
	wait_for(c, &status);
	assert_int_equal(ping.result.code, TY_OK);
	assert_int_equal(ping.result.boot, FAKE_BOOT);
	assert_int_equal(status.result.code, TY_OK);
	reply = tyer__v1__status_reply__unpack(NULL, status.result.status.length, status.status);
	assert_non_null(reply);
	assert_string_equal(reply->version, "1.2.3");
	tyer__v1__status_reply__free_unpacked(reply, NULL);
	assert_int_equal(ty_client_end_session(c, 1, on_done, &ping, &err), TY_INVALID);
	ty_client_close(c);
	fake_stop(&f);
}

/* ---- every verb, there and back --------------------------------------------------------------------------------------- */

#define EXPECT(what) \
	do { \
		if (!(what)) { \
			reply->code = TYER__V1__CODE__INTERNAL; \
			reply->error = (char *)#what; \
			return FAKE_REPLY; \
		} \
	} while (0)

static enum fake_answer check_transfer(const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	static Tyer__V1__RetrieveReply retrieved;
	static Tyer__V1__StoreReply stored;

	if (request->verb_case == TYER__V1__REQUEST__VERB_RETRIEVE) {
		const Tyer__V1__Retrieve *r = request->retrieve;

		EXPECT(r->session == 77 && r->registration == 3 && r->first == 2 && r->count == 4 && r->n_blocks == 2);
		EXPECT(r->blocks[0]->n_ids == 2 && r->blocks[0]->ids[1] == TY_BLOCK_SKIP && r->blocks[1]->n_ids == 1);
		EXPECT(r->ready->word == 1 && r->ready->value == 10 && r->done->word == 511 && r->done->value == 1ull << 40);
		tyer__v1__retrieve_reply__init(&retrieved);
		retrieved.chunks = 4;
		reply->verb_case = TYER__V1__REPLY__VERB_RETRIEVE;
		reply->retrieve = &retrieved;
	} else {
		const Tyer__V1__Store *s = request->store;

		EXPECT(s->session == 77 && s->registration == 3 && s->first == 2 && s->count == 4 && s->n_blocks == 2);
		EXPECT(s->ready == NULL && s->done->word == 511 && s->hint->priority == 4);
		EXPECT(s->append->n_tokens == 3 && s->append->tokens[2] == 300000 && s->append->hashes.len == 0);
		tyer__v1__store_reply__init(&stored);
		stored.stored = 1;
		stored.present = 2;
		stored.dropped = 3;
		reply->verb_case = TYER__V1__REPLY__VERB_STORE;
		reply->store = &stored;
	}
	return FAKE_REPLY;
}

static enum fake_answer check_register(const Tyer__V1__Register *r, Tyer__V1__Reply *reply)
{
	static Tyer__V1__RegisterReply registered;
	static uint8_t fingerprint[32] = {9};

	EXPECT(r->device.len == 16 && r->device.data[0] == 1 && r->part == 1 && r->parts == 2);
	EXPECT(strcmp(r->format, "NHD") == 0 && r->n_regions == 1 && r->n_groups == 2);
	EXPECT(r->regions[0]->memory_case == TYER__V1__REGION__MEMORY_IPC_HANDLE);
	EXPECT(r->regions[0]->ipc_handle.len == 64 && r->regions[0]->ipc_handle.data[63] == 0x5a);
	EXPECT(r->regions[0]->allocation_bytes == 1 << 20 && r->regions[0]->offset == 256 && r->regions[0]->length == 4096);
	EXPECT(r->groups[0]->block_tokens == 16 && r->groups[0]->block_count == 100 && r->groups[0]->block_stride == 512);
	EXPECT(r->groups[0]->run_bytes == 256 && r->groups[0]->n_planes == 2 && r->groups[1]->n_planes == 1);
	EXPECT(r->groups[0]->planes[1]->offset == 64 && r->groups[1]->planes[0]->offset == 128);
	tyer__v1__register_reply__init(&registered);
	registered.registration = 3;
	registered.chunk_bytes = 1ull << 33;
	registered.fingerprint = (ProtobufCBinaryData){.len = 32, .data = fingerprint};
	reply->verb_case = TYER__V1__REPLY__VERB_REGISTER;
	reply->register_ = &registered;
	return FAKE_REPLY;
}

static enum fake_answer check_verbs(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	static Tyer__V1__LookupReply lookup;
	static Tyer__V1__EndSessionReply ended;

	if (request->verb_case == TYER__V1__REQUEST__VERB_HELLO) {
		fake_hello(f, reply);
		return FAKE_REPLY;
	}
	EXPECT(request->client == FAKE_CLIENT && request->timeout_us == 5000000 && request->version == 1);
	switch (request->verb_case) {
	case TYER__V1__REQUEST__VERB_REGISTER:
		return check_register(request->register_, reply);
	case TYER__V1__REQUEST__VERB_UNREGISTER:
		EXPECT(request->unregister->registration == 3);
		return FAKE_REPLY;
	case TYER__V1__REQUEST__VERB_LOOKUP:
		EXPECT(request->lookup->session == 77 && request->lookup->chain->hashes.len == 64);
		EXPECT(request->lookup->chain->hashes.data[63] == 0x77 && request->lookup->chain->n_tokens == 0);
		EXPECT(request->lookup->adapter.len == 4 && memcmp(request->lookup->adapter.data, "lora", 4) == 0);
		EXPECT(request->lookup->media.len == 0 && request->lookup->conversation == 5);
		EXPECT(request->lookup->hint->kind == TYER__V1__HINT__KIND__ALIVE && request->lookup->hint->keep_s == 90);
		tyer__v1__lookup_reply__init(&lookup);
		lookup.chunks = 2;
		lookup.hits = 1;
		reply->verb_case = TYER__V1__REPLY__VERB_LOOKUP;
		reply->lookup = &lookup;
		return FAKE_REPLY;
	case TYER__V1__REQUEST__VERB_FLUSH:
		EXPECT(request->flush->registration == 3 && request->flush->n_blocks == 2 && request->flush->blocks[0]->n_ids == 2);
		EXPECT(request->flush->blocks[1]->ids[0] == 9);
		return FAKE_REPLY;
	case TYER__V1__REQUEST__VERB_END_SESSION:
		EXPECT(request->end_session->session == 77 && request->end_session->hint->kind == TYER__V1__HINT__KIND__DONE);
		tyer__v1__end_session_reply__init(&ended);
		ended.released = 5;
		reply->verb_case = TYER__V1__REPLY__VERB_END_SESSION;
		reply->end_session = &ended;
		return FAKE_REPLY;
	default:
		return check_transfer(request, reply);
	}
}

static void test_verbs(void **state)
{
	static const struct ty_plane planes[3] = {{0, 0}, {0, 64}, {0, 128}};
	static const struct ty_group groups[2] = {{16, 100, 512, 256, 2, planes}, {32, 50, 512, 16, 1, planes + 2}};
	struct ty_region region = {.fd = -1, .allocation_bytes = 1 << 20, .offset = 256, .length = 4096};
	struct ty_pool pool = {.device = {1}, .region_count = 1, .group_count = 2, .regions = &region, .groups = groups,
		.part = 1, .parts = 2, .format = "NHD"};
	static const uint32_t tokens[3] = {0, 1, 300000}, ids0[2] = {4, TY_BLOCK_SKIP}, ids1[1] = {9};
	const uint32_t *const blocks[2] = {ids0, ids1};
	const uint32_t counts[2] = {2, 1};
	struct ty_transfer t = {.session = 77, .first = 2, .count = 4, .blocks = blocks,
		.block_counts = counts, .group_count = 2, .ready = {1, 10}, .done = {511, 1ull << 40}};
	uint8_t hashes[64];
	struct ty_chain by_tokens = {.tokens = tokens, .token_count = 3}, by_hashes = {.hashes = hashes, .chunk_count = 2},
			both = {.tokens = tokens, .token_count = 3, .hashes = hashes, .chunk_count = 2};
	static const struct ty_hint_said alive = {.kind = TY_HINT_ALIVE, .keep_s = 90}, over = {.kind = TY_HINT_DONE},
		urgent = {.priority = 4};
	struct ty_lookup with = {.session = 77, .chain = &by_hashes, .adapter = "lora", .adapter_bytes = 4, .conversation = 5,
		.hint = &alive};
	struct fake_options fo = {.answer = check_verbs};
	struct outcome o[7] = {{0}};
	struct ty_client_options co;
	struct fake f;
	struct ty_client *c;
	struct ty_error err;
	size_t i;

	(void)state;
	memset(hashes, 0x77, sizeof hashes);
	memset(region.ipc_handle, 0x5a, sizeof region.ipc_handle);
	fake_start(&f, &fo);
	co = fake_client_options(&f);
	co.timeout_us = 5000000;
	c = open_client(&co);
	assert_int_equal(ty_client_register(c, &pool, on_done, &o[0], &err), TY_OK);
	wait_for(c, &o[0]);
	assert_int_equal(o[0].result.code, TY_OK);
	t.registration = o[0].result.registered.registration; /* the client's own number; the service's is 3 */
	assert_int_equal(t.registration, 1);
	assert_int_equal(ty_client_lookup_with(c, &with, on_done, &o[2], &err), TY_OK);
	assert_int_equal(ty_client_retrieve(c, &t, on_done, &o[3], &err), TY_OK);
	t.append = &by_tokens;
	t.hint = &urgent;
	t.ready.word = 0;
	assert_int_equal(ty_client_store(c, &t, on_done, &o[4], &err), TY_OK);
	assert_int_equal(ty_client_end_session_as(c, 77, &over, on_done, &o[5], &err), TY_OK);
	assert_int_equal(ty_client_flush(c, t.registration, blocks, counts, 2, on_done, &o[6], &err), TY_OK);
	assert_int_equal(ty_client_unregister(c, t.registration, on_done, &o[1], &err), TY_OK);
	for (i = 0; i < 7; i++) {
		wait_for(c, &o[i]);
		if (o[i].result.code != TY_OK)
			fail_msg("verb %zu: %s %s", i, ty_code_name(o[i].result.code), o[i].error);
		assert_string_equal(o[i].error, "");
		assert_int_equal(o[i].result.boot, FAKE_BOOT);
	}
	assert_int_equal(o[0].result.registered.chunk_bytes, 1ull << 33);
	assert_int_equal(o[0].result.registered.fingerprint[0], 9);
	assert_int_equal(o[2].result.lookup.chunks, 2);
	assert_int_equal(o[2].result.lookup.hits, 1);
	assert_int_equal(o[3].result.retrieve.chunks, 4);
	assert_int_equal(o[4].result.store.stored, 1);
	assert_int_equal(o[4].result.store.present, 2);
	assert_int_equal(o[4].result.store.dropped, 3);
	assert_int_equal(o[5].result.end_session.released, 5);

	/* what is refused before it is sent */
	assert_int_equal(ty_client_unregister(c, t.registration, on_done, &o[0], &err), TY_UNKNOWN_REGISTRATION);
	assert_int_equal(ty_client_lookup(c, 1, &both, on_done, &o[0], &err), TY_INVALID);
	assert_int_equal(ty_client_lookup(c, 1, NULL, on_done, &o[0], &err), TY_INVALID);
	assert_int_equal(ty_client_retrieve(c, &t, on_done, &o[0], &err), TY_INVALID); /* append */
	t.append = NULL;
	t.done.word = 512;
	assert_int_equal(ty_client_store(c, &t, on_done, &o[0], &err), TY_INVALID);
	t.done.word = 1;
	t.group_count = 9;
	assert_int_equal(ty_client_store(c, &t, on_done, &o[0], &err), TY_INVALID);
	assert_int_equal(ty_client_flush(c, 3, blocks, counts, 9, on_done, &o[0], &err), TY_INVALID);
	assert_int_equal(ty_client_flush(c, 3, NULL, NULL, 1, on_done, &o[0], &err), TY_INVALID);
	pool.part = 2;
	assert_int_equal(ty_client_register(c, &pool, on_done, &o[0], &err), TY_INVALID);
	assert_non_null(strstr(err.text, "Register.part"));
	assert_int_equal(ty_client_ping(c, NULL, NULL, &err), TY_INVALID);
	assert_int_equal(ty_client_poll(c, 0, 0), 0);
	assert_int_equal(o[0].calls, 1);
	ty_client_close(c);
	fake_stop(&f);
}

/* Longer than the service's max_request_bytes (65536 here). */
static void test_request_too_long(void **state)
{
	struct fake_options fo = {0};
	struct ty_client_options co;
	uint8_t *hashes = calloc(4096, TY_KEY_BYTES);
	struct ty_chain chain = {.hashes = hashes, .chunk_count = 4096};
	struct outcome o = {0};
	struct fake f;
	struct ty_client *c;
	struct ty_error err;

	(void)state;
	fake_start(&f, &fo);
	co = fake_client_options(&f);
	c = open_client(&co);
	assert_int_equal(ty_client_lookup(c, 1, &chain, on_done, &o, &err), TY_LIMIT);
	assert_non_null(strstr(err.text, "max_request_bytes"));
	ty_client_close(c);
	assert_int_equal(o.calls, 0);
	fake_stop(&f);
	free(hashes);
}

/* ---- many at once ---------------------------------------------------------------------------------------------------- */

static enum fake_answer hold_pings(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	if (request->verb_case == TYER__V1__REQUEST__VERB_PING)
		return FAKE_HOLD;
	fake_hello(f, reply);
	return FAKE_REPLY;
}

static void test_in_flight(void **state)
{
	struct fake_options fo = {.answer = hold_pings};
	struct outcome o[64], extra = {0};
	struct ty_client_options co;
	struct fake f;
	struct ty_client *c;
	struct ty_error err;
	uint32_t delivered, round, i;

	(void)state;
	fake_start(&f, &fo);
	co = fake_client_options(&f);
	co.max_requests = 64;
	c = open_client(&co);
	for (round = 0; round < 3; round++) {
		memset(o, 0, sizeof o);
		for (i = 0; i < 64; i++)
			assert_int_equal(ty_client_ping(c, on_done, &o[i], &err), TY_OK);
		assert_int_equal(ty_client_ping(c, on_done, &extra, &err), TY_BUSY);
		assert_int_equal(ty_client_poll(c, 0, 0), 0);
		fake_wait_holding(&f, 64);
		fake_order(&f, &f.release); /* the youngest first */
		for (delivered = 0; delivered < 64;) {
			uint32_t n = ty_client_poll(c, 3, FOREVER_US);

			assert_in_range(n, 1, 3);
			delivered += n;
		}
		assert_int_equal(delivered, 64);
		assert_int_equal(ty_client_poll(c, 0, 0), 0);
		for (i = 0; i < 64; i++) {
			assert_int_equal(o[i].calls, 1);
			assert_int_equal(o[i].result.code, TY_OK);
		}
	}
	assert_int_equal(extra.calls, 0);
	ty_client_close(c);
	fake_stop(&f);
}

/* ty_client_fd stays readable as long as something is undelivered, and not longer. */
static void test_fd(void **state)
{
	struct fake_options fo = {.answer = hold_pings};
	struct outcome o[2] = {{0}};
	struct ty_client_options co;
	struct pollfd p;
	struct fake f;
	struct ty_client *c;
	struct ty_error err;

	(void)state;
	fake_start(&f, &fo);
	co = fake_client_options(&f);
	c = open_client(&co);
	p = (struct pollfd){.fd = ty_client_fd(c), .events = POLLIN};
	assert_int_equal(ty_client_ping(c, on_done, &o[0], &err), TY_OK);
	assert_int_equal(ty_client_ping(c, on_done, &o[1], &err), TY_OK);
	fake_wait_holding(&f, 2);
	ty_client_poll(c, 0, 0);
	assert_false(readable(p.fd));
	fake_order(&f, &f.release);
	while (o[0].calls + o[1].calls < 2) {
		assert_int_equal(poll(&p, 1, FOREVER_US / 1000), 1);
		ty_client_poll(c, 1, 0);
	}
	ty_client_poll(c, 0, 0);
	assert_false(readable(p.fd));
	ty_client_close(c);
	fake_stop(&f);
}

/* A callback may send the next request, also when only one may be in flight; it may not poll. */
struct chain_of_pings {
	struct ty_client *client;
	uint32_t left, done;
};

static void ping_again(void *user, const struct ty_result *result)
{
	struct chain_of_pings *p = user;
	struct ty_error err;

	assert_int_equal(result->code, TY_OK);
	p->done++;
	assert_int_equal(ty_client_poll(p->client, 0, FOREVER_US), 0);
	if (p->left-- > 0)
		assert_int_equal(ty_client_ping(p->client, ping_again, p, &err), TY_OK);
}

static void test_from_callback(void **state)
{
	struct fake_options fo = {0};
	struct ty_client_options co;
	struct chain_of_pings p = {.left = 200};
	struct fake f;
	struct ty_error err;

	(void)state;
	fake_start(&f, &fo);
	co = fake_client_options(&f);
	co.max_requests = 1;
	p.client = open_client(&co);
	assert_int_equal(ty_client_ping(p.client, ping_again, &p, &err), TY_OK);
	while (p.done < 201)
		assert_int_equal(ty_client_poll(p.client, 0, FOREVER_US), 1);
	ty_client_close(p.client);
	fake_stop(&f);
}

/* ---- when things go wrong --------------------------------------------------------------------------------------------- */

static void test_service_dies(void **state)
{
	struct fake_options fo = {.answer = hold_pings};
	struct outcome o[8] = {{0}}, later = {0};
	struct ty_client_options co;
	struct pollfd p;
	struct fake f;
	struct ty_client *c;
	struct ty_error err;
	uint32_t i, calls = 0;

	(void)state;
	fake_start(&f, &fo);
	co = fake_client_options(&f);
	c = open_client(&co);
	for (i = 0; i < 8; i++)
		assert_int_equal(ty_client_ping(c, on_done, &o[i], &err), TY_OK);
	fake_wait_holding(&f, 8);
	fake_order(&f, &f.drop_attach);
	p = (struct pollfd){.fd = ty_client_fd(c), .events = POLLIN};
	while (calls < 8) {
		assert_int_equal(poll(&p, 1, FOREVER_US / 1000), 1); /* readable until the last one is delivered */
		calls += ty_client_poll(c, 3, 0);
	}
	for (i = 0; i < 8; i++) {
		assert_int_equal(o[i].calls, 1);
		assert_int_equal(o[i].result.code, TY_CLOSED);
		assert_int_equal(o[i].result.boot, 0);
	}
	assert_int_equal(ty_client_ping(c, on_done, &later, &err), TY_CLOSED);
	/* answers that come after all are not delivered a second time */
	fake_release(&f);
	assert_int_equal(ty_client_poll(c, 0, 20000), 0);
	ty_client_close(c);
	for (i = 0; i < 8; i++)
		assert_int_equal(o[i].calls, 1);
	assert_int_equal(later.calls, 0);
	fake_stop(&f);
}

static void test_close_in_flight(void **state)
{
	struct fake_options fo = {.answer = hold_pings};
	struct outcome o[8] = {{0}};
	struct ty_client_options co;
	struct fake f;
	struct ty_client *c;
	struct ty_error err;
	uint32_t i;

	(void)state;
	fake_start(&f, &fo);
	co = fake_client_options(&f);
	c = open_client(&co);
	for (i = 0; i < 8; i++)
		assert_int_equal(ty_client_ping(c, on_done, &o[i], &err), TY_OK);
	fake_wait_holding(&f, 8);
	ty_client_close(c);
	for (i = 0; i < 8; i++) {
		assert_int_equal(o[i].calls, 1);
		assert_int_equal(o[i].result.code, TY_CANCELLED);
	}
	fake_stop(&f);
	ty_client_close(NULL);
}

/* The nng connection breaks: what was sent is not sent again. */
static void test_connection_breaks(void **state)
{
	struct fake_options fo = {.answer = hold_pings};
	struct outcome o = {0};
	struct ty_client_options co;
	struct fake f;
	struct ty_client *c;
	struct ty_error err;

	(void)state;
	fake_start(&f, &fo);
	co = fake_client_options(&f);
	c = open_client(&co);
	assert_int_equal(ty_client_ping(c, on_done, &o, &err), TY_OK);
	fake_wait_holding(&f, 1);
	fake_order(&f, &f.drop_rep);
	wait_for(c, &o);
	assert_int_equal(o.result.code, TY_CLOSED);
	assert_int_equal(atomic_load(&f.requests), 2); /* HELLO and one PING */
	ty_client_close(c);
	fake_stop(&f);
}

static void test_timeout(void **state)
{
	struct fake_options fo = {.answer = hold_pings};
	struct outcome o[2] = {{0}};
	struct ty_client_options co;
	struct fake f;
	struct ty_client *c;
	struct ty_error err;

	(void)state;
	fake_start(&f, &fo);
	co = fake_client_options(&f);
	co.timeout_us = 1000;
	co.max_requests = 1;
	c = open_client(&co);
	assert_int_equal(ty_client_ping(c, on_done, &o[0], &err), TY_OK);
	wait_for(c, &o[0]);
	assert_int_equal(o[0].result.code, TY_TIMEOUT);
	/* its late answer is nobody's; the slot serves the next request */
	fake_release(&f);
	assert_int_equal(ty_client_ping(c, on_done, &o[1], &err), TY_OK);
	fake_wait_holding(&f, 1);
	fake_order(&f, &f.release);
	wait_for(c, &o[1]);
	assert_int_equal(o[1].result.code, TY_OK);
	assert_int_equal(o[0].calls, 1);
	ty_client_close(c);

	co.timeout_us = 600000001; /* one more than this service's max_timeout_us */
	expect_open(&co, TY_INVALID, "timeout_us");
	fake_stop(&f);
}

static enum fake_answer lie(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	static Tyer__V1__LookupReply lookup;
	static Tyer__V1__RegisterReply registered;

	switch (request->verb_case) {
	case TYER__V1__REQUEST__VERB_HELLO:
		fake_hello(f, reply);
		return FAKE_REPLY;
	case TYER__V1__REQUEST__VERB_PING:
		reply->id++; /* another request's */
		return FAKE_REPLY;
	case TYER__V1__REQUEST__VERB_STATUS:
		return FAKE_REPLY; /* OK without a StatusReply */
	case TYER__V1__REQUEST__VERB_LOOKUP:
		tyer__v1__lookup_reply__init(&lookup);
		lookup.chunks = 1;
		lookup.hits = 2;
		reply->verb_case = TYER__V1__REPLY__VERB_LOOKUP;
		reply->lookup = &lookup;
		return FAKE_REPLY;
	case TYER__V1__REQUEST__VERB_END_SESSION:
		tyer__v1__register_reply__init(&registered);
		reply->verb_case = TYER__V1__REPLY__VERB_REGISTER; /* another verb's */
		reply->register_ = &registered;
		return FAKE_REPLY;
	default:
		reply->code = (Tyer__V1__Code)99;
		return FAKE_REPLY;
	}
}

static void test_lies(void **state)
{
	static const struct ty_plane plane;
	static const struct ty_group group = {16, 1, 256, 256, 1, &plane};
	static const struct ty_region region = {.fd = -1, .allocation_bytes = 4096, .length = 4096};
	struct ty_pool pool = {.region_count = 1, .group_count = 1, .regions = &region, .groups = &group, .parts = 1};
	struct fake_options fo = {.answer = lie};
	struct ty_chain chain = {0};
	struct outcome o[5] = {{0}};
	struct ty_client_options co;
	struct fake f;
	struct ty_client *c;
	struct ty_error err;
	size_t i;

	(void)state;
	fake_start(&f, &fo);
	co = fake_client_options(&f);
	c = open_client(&co);
	assert_int_equal(ty_client_ping(c, on_done, &o[0], &err), TY_OK);
	assert_int_equal(ty_client_status(c, on_done, &o[1], &err), TY_OK);
	assert_int_equal(ty_client_lookup(c, 1, &chain, on_done, &o[2], &err), TY_OK);
	assert_int_equal(ty_client_end_session(c, 1, on_done, &o[3], &err), TY_OK);
	assert_int_equal(ty_client_register(c, &pool, on_done, &o[4], &err), TY_OK);
	for (i = 0; i < 5; i++) {
		wait_for(c, &o[i]);
		assert_int_equal(o[i].result.code, TY_PROTOCOL);
		assert_string_not_equal(o[i].error, "");
	}
	ty_client_close(c);
	fake_stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open),
		cmocka_unit_test(test_open_refusals),
		cmocka_unit_test(test_open_bad_options),
		cmocka_unit_test(test_open_not_a_tyer),
		cmocka_unit_test(test_open_hello_fails),
		cmocka_unit_test(test_without_attach),
		cmocka_unit_test(test_verbs),
		cmocka_unit_test(test_request_too_long),
		cmocka_unit_test(test_in_flight),
		cmocka_unit_test(test_fd),
		cmocka_unit_test(test_from_callback),
		cmocka_unit_test(test_service_dies),
		cmocka_unit_test(test_close_in_flight),
		cmocka_unit_test(test_connection_breaks),
		cmocka_unit_test(test_timeout),
		cmocka_unit_test(test_lies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
