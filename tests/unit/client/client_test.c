/* SPDX-License-Identifier: Apache-2.0
 *
 * The client library against a service that answers, holds, lies and dies.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pair.h"

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

static uint8_t status_bytes[256]; /* they are the completion's only for its call */

static void on_status(void *user, const struct ty_result *result)
{
	on_done(user, result);
	assert_in_range(result->status.length, 1, sizeof status_bytes);
	memcpy(status_bytes, result->status.bytes, result->status.length);
}

static void test_without_attach(void **state)
{
	struct outcome ping = {0}, status = {0};
	Tyer__V1__StatusReply *reply;
	struct pair p;

	(void)state;
	pair_start(&p, (struct fake_options){.answer = ping_status, .no_attach = true});
	p.options.attach_path = NULL;
	pair_open(&p);
	assert_int_equal(ty_client_info(p.client)->boot, FAKE_BOOT);
	assert_null(ty_client_timeline(p.client));
	assert_int_equal(ty_client_ping(p.client, on_done, &ping, &p.err), TY_OK);
	assert_int_equal(ty_client_status(p.client, on_status, &status, &p.err), TY_OK);
	wait_for(p.client, &ping);
	wait_for(p.client, &status);
	assert_int_equal(ping.result.code, TY_OK);
	assert_int_equal(ping.result.boot, FAKE_BOOT);
	assert_int_equal(status.result.code, TY_OK);
	reply = tyer__v1__status_reply__unpack(NULL, status.result.status.length, status_bytes);
	assert_non_null(reply);
	assert_string_equal(reply->version, "1.2.3");
	tyer__v1__status_reply__free_unpacked(reply, NULL);
	assert_int_equal(ty_client_end_session(p.client, 1, on_done, &ping, &p.err), TY_INVALID);
	pair_close(&p);
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
	struct outcome o[7] = {{0}};
	struct pair p;
	size_t i;

	(void)state;
	memset(hashes, 0x77, sizeof hashes);
	memset(region.ipc_handle, 0x5a, sizeof region.ipc_handle);
	pair_start(&p, (struct fake_options){.answer = check_verbs});
	p.options.timeout_us = 5000000;
	pair_open(&p);
	assert_int_equal(ty_client_register(p.client, &pool, on_done, &o[0], &p.err), TY_OK);
	wait_for(p.client, &o[0]);
	assert_int_equal(o[0].result.code, TY_OK);
	t.registration = o[0].result.registered.registration; /* the client's own number; the service's is 3 */
	assert_int_equal(t.registration, 1);
	assert_int_equal(ty_client_lookup_with(p.client, &with, on_done, &o[2], &p.err), TY_OK);
	assert_int_equal(ty_client_retrieve(p.client, &t, on_done, &o[3], &p.err), TY_OK);
	t.append = &by_tokens;
	t.hint = &urgent;
	t.ready.word = 0;
	assert_int_equal(ty_client_store(p.client, &t, on_done, &o[4], &p.err), TY_OK);
	assert_int_equal(ty_client_end_session_as(p.client, 77, &over, on_done, &o[5], &p.err), TY_OK);
	assert_int_equal(ty_client_flush(p.client, t.registration, blocks, counts, 2, on_done, &o[6], &p.err), TY_OK);
	assert_int_equal(ty_client_unregister(p.client, t.registration, on_done, &o[1], &p.err), TY_OK);
	for (i = 0; i < 7; i++) {
		wait_for(p.client, &o[i]);
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
	assert_int_equal(ty_client_unregister(p.client, t.registration, on_done, &o[0], &p.err), TY_UNKNOWN_REGISTRATION);
	assert_int_equal(ty_client_lookup(p.client, 1, &both, on_done, &o[0], &p.err), TY_INVALID);
	assert_int_equal(ty_client_lookup(p.client, 1, NULL, on_done, &o[0], &p.err), TY_INVALID);
	assert_int_equal(ty_client_retrieve(p.client, &t, on_done, &o[0], &p.err), TY_INVALID); /* append */
	t.append = NULL;
	t.done.word = 512;
	assert_int_equal(ty_client_store(p.client, &t, on_done, &o[0], &p.err), TY_INVALID);
	t.done.word = 1;
	t.group_count = 9;
	assert_int_equal(ty_client_store(p.client, &t, on_done, &o[0], &p.err), TY_INVALID);
	assert_int_equal(ty_client_flush(p.client, 3, blocks, counts, 9, on_done, &o[0], &p.err), TY_INVALID);
	assert_int_equal(ty_client_flush(p.client, 3, NULL, NULL, 1, on_done, &o[0], &p.err), TY_INVALID);
	pool.part = 2;
	assert_int_equal(ty_client_register(p.client, &pool, on_done, &o[0], &p.err), TY_INVALID);
	assert_non_null(strstr(p.err.text, "Register.part"));
	assert_int_equal(ty_client_ping(p.client, NULL, NULL, &p.err), TY_INVALID);
	assert_int_equal(ty_client_poll(p.client, 0, 0), 0);
	assert_int_equal(o[0].calls, 1);
	pair_close(&p);
}

/* Longer than the service's max_request_bytes (65536 here). */
static void test_request_too_long(void **state)
{
	uint8_t *hashes = calloc(4096, TY_KEY_BYTES);
	struct ty_chain chain = {.hashes = hashes, .chunk_count = 4096};
	struct outcome o = {0};
	struct pair p;

	(void)state;
	pair_start(&p, (struct fake_options){0});
	pair_open(&p);
	assert_int_equal(ty_client_lookup(p.client, 1, &chain, on_done, &o, &p.err), TY_LIMIT);
	assert_non_null(strstr(p.err.text, "max_request_bytes"));
	ty_client_close(p.client);
	assert_int_equal(o.calls, 0);
	fake_stop(&p.fake);
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
	struct outcome o[64], extra = {0};
	struct pair p;
	uint32_t delivered, round, i;

	(void)state;
	pair_start(&p, (struct fake_options){.answer = hold_pings});
	p.options.max_requests = 64;
	pair_open(&p);
	for (round = 0; round < 3; round++) {
		memset(o, 0, sizeof o);
		for (i = 0; i < 64; i++)
			assert_int_equal(ty_client_ping(p.client, on_done, &o[i], &p.err), TY_OK);
		assert_int_equal(ty_client_ping(p.client, on_done, &extra, &p.err), TY_BUSY);
		assert_int_equal(ty_client_poll(p.client, 0, 0), 0);
		fake_wait_holding(&p.fake, 64);
		fake_order(&p.fake, &p.fake.release); /* the youngest first */
		for (delivered = 0; delivered < 64;) {
			uint32_t n = ty_client_poll(p.client, 3, FOREVER_US);

			assert_in_range(n, 1, 3);
			delivered += n;
		}
		assert_int_equal(delivered, 64);
		assert_int_equal(ty_client_poll(p.client, 0, 0), 0);
		for (i = 0; i < 64; i++) {
			assert_int_equal(o[i].calls, 1);
			assert_int_equal(o[i].result.code, TY_OK);
		}
	}
	assert_int_equal(extra.calls, 0);
	pair_close(&p);
}

static bool readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

/* ty_client_fd stays readable as long as something is undelivered, and not longer. */
static void test_fd(void **state)
{
	struct outcome o[2] = {{0}};
	struct pollfd fd;
	struct pair p;

	(void)state;
	pair_start(&p, (struct fake_options){.answer = hold_pings});
	pair_open(&p);
	fd = (struct pollfd){.fd = ty_client_fd(p.client), .events = POLLIN};
	assert_int_equal(ty_client_ping(p.client, on_done, &o[0], &p.err), TY_OK);
	assert_int_equal(ty_client_ping(p.client, on_done, &o[1], &p.err), TY_OK);
	fake_wait_holding(&p.fake, 2);
	ty_client_poll(p.client, 0, 0);
	assert_false(readable(fd.fd));
	fake_order(&p.fake, &p.fake.release);
	while (o[0].calls + o[1].calls < 2) {
		assert_int_equal(poll(&fd, 1, FOREVER_US / 1000), 1);
		ty_client_poll(p.client, 1, 0);
	}
	ty_client_poll(p.client, 0, 0);
	assert_false(readable(fd.fd));
	pair_close(&p);
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
	struct chain_of_pings pings = {.left = 200};
	struct pair p;

	(void)state;
	pair_start(&p, (struct fake_options){0});
	p.options.max_requests = 1;
	pair_open(&p);
	pings.client = p.client;
	assert_int_equal(ty_client_ping(p.client, ping_again, &pings, &p.err), TY_OK);
	while (pings.done < 201)
		assert_int_equal(ty_client_poll(p.client, 0, FOREVER_US), 1);
	pair_close(&p);
}

/* ---- when things go wrong --------------------------------------------------------------------------------------------- */

static void test_service_dies(void **state)
{
	struct outcome o[8] = {{0}}, later = {0};
	struct pollfd fd;
	struct pair p;
	uint32_t i, calls = 0;

	(void)state;
	pair_start(&p, (struct fake_options){.answer = hold_pings});
	pair_open(&p);
	for (i = 0; i < 8; i++)
		assert_int_equal(ty_client_ping(p.client, on_done, &o[i], &p.err), TY_OK);
	fake_wait_holding(&p.fake, 8);
	fake_order(&p.fake, &p.fake.drop_attach);
	fd = (struct pollfd){.fd = ty_client_fd(p.client), .events = POLLIN};
	while (calls < 8) {
		assert_int_equal(poll(&fd, 1, FOREVER_US / 1000), 1); /* readable until the last one is delivered */
		calls += ty_client_poll(p.client, 3, 0);
	}
	for (i = 0; i < 8; i++) {
		assert_int_equal(o[i].calls, 1);
		assert_int_equal(o[i].result.code, TY_CLOSED);
		assert_int_equal(o[i].result.boot, 0);
	}
	assert_int_equal(ty_client_ping(p.client, on_done, &later, &p.err), TY_CLOSED);
	/* answers that come after all are not delivered a second time */
	fake_release(&p.fake);
	assert_int_equal(ty_client_poll(p.client, 0, 20000), 0);
	ty_client_close(p.client);
	for (i = 0; i < 8; i++)
		assert_int_equal(o[i].calls, 1);
	assert_int_equal(later.calls, 0);
	fake_stop(&p.fake);
}

static void test_close_in_flight(void **state)
{
	struct outcome o[8] = {{0}};
	struct pair p;
	uint32_t i;

	(void)state;
	pair_start(&p, (struct fake_options){.answer = hold_pings});
	pair_open(&p);
	for (i = 0; i < 8; i++)
		assert_int_equal(ty_client_ping(p.client, on_done, &o[i], &p.err), TY_OK);
	fake_wait_holding(&p.fake, 8);
	ty_client_close(p.client);
	for (i = 0; i < 8; i++) {
		assert_int_equal(o[i].calls, 1);
		assert_int_equal(o[i].result.code, TY_CANCELLED);
	}
	fake_stop(&p.fake);
	ty_client_close(NULL);
}

static int open_descriptors(void)
{
	int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) != -1;
	return n;
}

/* A child of fork lets go of the client, with requests in flight: the parent's goes on. */
static void test_fork(void **state)
{
	struct outcome o[2] = {{0}};
	struct pair p;
	int status;
	pid_t child;

	(void)state;
	pair_start(&p, (struct fake_options){.answer = hold_pings});
	pair_open(&p);
	for (int i = 0; i < 2; i++)
		assert_int_equal(ty_client_ping(p.client, on_done, &o[i], &p.err), TY_OK);
	fake_wait_holding(&p.fake, 2);
	child = fork();
	if (child == 0) {
		int before = open_descriptors();

		ty_client_forked(p.client);
		_exit(before - open_descriptors());
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 6); /* two sockets, the timeline, epoll, timer, event */
	fake_release(&p.fake);
	for (int i = 0; i < 2; i++) {
		wait_for(p.client, &o[i]);
		assert_int_equal(o[i].result.code, TY_OK);
	}
	/* and hears of the end of either connection */
	assert_int_equal(ty_client_ping(p.client, on_done, memset(o, 0, sizeof o), &p.err), TY_OK);
	fake_wait_holding(&p.fake, 1);
	fake_order(&p.fake, &p.fake.drop_attach);
	wait_for(p.client, o);
	assert_int_equal(o[0].result.code, TY_CLOSED);
	pair_close(&p);
	ty_client_forked(NULL);
}

/* The nng connection breaks: what was sent is not sent again. */
static void test_connection_breaks(void **state)
{
	struct outcome o = {0};
	struct pair p;

	(void)state;
	pair_start(&p, (struct fake_options){.answer = hold_pings});
	pair_open(&p);
	assert_int_equal(ty_client_ping(p.client, on_done, &o, &p.err), TY_OK);
	fake_wait_holding(&p.fake, 1);
	fake_order(&p.fake, &p.fake.drop_rep);
	wait_for(p.client, &o);
	assert_int_equal(o.result.code, TY_CLOSED);
	assert_int_equal(atomic_load(&p.fake.requests), 2); /* HELLO and one PING */
	pair_close(&p);
}

static void test_timeout(void **state)
{
	struct outcome o[2] = {{0}};
	struct pair p;

	(void)state;
	pair_start(&p, (struct fake_options){.answer = hold_pings});
	p.options.max_requests = 1;
	pair_open(&p);
	assert_int_equal(ty_client_set_timeout(p.client, 600000001, &p.err), TY_INVALID);
	assert_int_equal(ty_client_set_timeout(p.client, 1000, &p.err), TY_OK);
	assert_int_equal(ty_client_ping(p.client, on_done, &o[0], &p.err), TY_OK);
	wait_for(p.client, &o[0]);
	assert_int_equal(o[0].result.code, TY_TIMEOUT);
	/* its late answer is nobody's; the slot serves the next request, whose time is another */
	assert_int_equal(ty_client_set_timeout(p.client, 0, &p.err), TY_OK);
	fake_release(&p.fake);
	assert_int_equal(ty_client_ping(p.client, on_done, &o[1], &p.err), TY_OK);
	fake_wait_holding(&p.fake, 1);
	fake_order(&p.fake, &p.fake.release);
	wait_for(p.client, &o[1]);
	assert_int_equal(o[1].result.code, TY_OK);
	assert_int_equal(o[0].calls, 1);
	ty_client_close(p.client);

	p.options.timeout_us = 600000001; /* one more than this service's max_timeout_us */
	expect_open(&p.options, TY_INVALID, "timeout_us");
	fake_stop(&p.fake);
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
	struct ty_chain chain = {0};
	struct outcome o[5] = {{0}};
	struct pair p;
	size_t i;

	(void)state;
	pair_start(&p, (struct fake_options){.answer = lie});
	pair_open(&p);
	assert_int_equal(ty_client_ping(p.client, on_done, &o[0], &p.err), TY_OK);
	assert_int_equal(ty_client_status(p.client, on_done, &o[1], &p.err), TY_OK);
	assert_int_equal(ty_client_lookup(p.client, 1, &chain, on_done, &o[2], &p.err), TY_OK);
	assert_int_equal(ty_client_end_session(p.client, 1, on_done, &o[3], &p.err), TY_OK);
	assert_int_equal(ty_client_register(p.client, &pool, on_done, &o[4], &p.err), TY_OK);
	for (i = 0; i < 5; i++) {
		wait_for(p.client, &o[i]);
		assert_int_equal(o[i].result.code, TY_PROTOCOL);
		assert_string_not_equal(o[i].error, "");
	}
	pair_close(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_without_attach),
		cmocka_unit_test(test_verbs),
		cmocka_unit_test(test_request_too_long),
		cmocka_unit_test(test_in_flight),
		cmocka_unit_test(test_fd),
		cmocka_unit_test(test_from_callback),
		cmocka_unit_test(test_service_dies),
		cmocka_unit_test(test_close_in_flight),
		cmocka_unit_test(test_fork),
		cmocka_unit_test(test_connection_breaks),
		cmocka_unit_test(test_timeout),
		cmocka_unit_test(test_lies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
