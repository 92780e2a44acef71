/* SPDX-License-Identifier: Apache-2.0
 *
 * The client library against a service that lies, or is broken: what it says is never more than was asked, and what it does not say is not
 * taken for granted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/internal.h"
#include "pair.h"

/* How the fake service answers what follows HELLO and REGISTER. */
struct lies {
	enum fake_answer how;
	bool other_id;        /* the reply is another request's */
	uint32_t registration; /* that REGISTER is answered with */
	uint32_t chunks;       /* that LOOKUP and RETRIEVE are; 0: they have no message */
	uint32_t limit;        /* max_request_bytes, if not 0 */
};

static enum fake_answer lie(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	static Tyer__V1__RegisterReply registered;
	static uint8_t fingerprint[32];
	static Tyer__V1__LookupReply found;
	static Tyer__V1__RetrieveReply retrieved;
	const struct lies *lies = f->options.user;

	if (request->verb_case == TYER__V1__REQUEST__VERB_HELLO) {
		fake_hello(f, reply);
		if (lies->limit != 0)
			reply->hello->limits->max_request_bytes = lies->limit;
		return FAKE_REPLY;
	}
	if (request->verb_case == TYER__V1__REQUEST__VERB_LOOKUP) {
		tyer__v1__lookup_reply__init(&found);
		found.chunks = found.hits = lies->chunks;
		reply->verb_case = TYER__V1__REPLY__VERB_LOOKUP;
		reply->lookup = &found;
		return FAKE_REPLY;
	}
	if (request->verb_case == TYER__V1__REQUEST__VERB_RETRIEVE && lies->chunks != 0) {
		tyer__v1__retrieve_reply__init(&retrieved);
		retrieved.chunks = lies->chunks;
		reply->verb_case = TYER__V1__REPLY__VERB_RETRIEVE;
		reply->retrieve = &retrieved;
		return FAKE_REPLY;
	}
	if (request->verb_case == TYER__V1__REQUEST__VERB_REGISTER) {
		tyer__v1__register_reply__init(&registered);
		registered.registration = lies->registration;
		registered.fingerprint = (ProtobufCBinaryData){.len = sizeof fingerprint, .data = fingerprint};
		reply->verb_case = TYER__V1__REPLY__VERB_REGISTER;
		reply->register_ = &registered;
		return FAKE_REPLY;
	}
	if (request->verb_case == TYER__V1__REQUEST__VERB_UNREGISTER)
		return FAKE_REPLY;
	reply->id += lies->other_id;
	return lies->how;
}

static enum ty_code register_pool(struct pair *p, uint32_t *handle)
{
	static const struct ty_plane plane;
	static const struct ty_group group = {16, 1, 256, 256, 1, &plane};
	static const struct ty_region region = {.fd = -1, .allocation_bytes = 4096, .length = 4096};
	struct ty_pool pool = {.region_count = 1, .group_count = 1, .regions = &region, .groups = &group, .parts = 1};
	struct outcome o = {0};

	assert_int_equal(ty_client_register(p->client, &pool, on_done, &o, &p->err), TY_OK);
	wait_for(p->client, &o);
	*handle = o.result.code == TY_OK ? o.result.registered.registration : 0;
	return o.result.code;
}

/* A STORE or RETRIEVE that was answered with something that is no answer: nobody said that no copy of it touches its blocks. */
static void test_nobody_spoke_of_blocks(void **state)
{
	static const uint32_t id, one = 1, *const lists[1] = {&id};
	struct ty_transfer t = {.session = 1, .count = 1, .blocks = lists, .block_counts = &one, .group_count = 1};
	struct lies lies = {.registration = 7};
	struct pair p;

	(void)state;
	pair_start(&p, (struct fake_options){.answer = lie, .user = &lies});
	pair_open(&p);
	assert_int_equal(register_pool(&p, &t.registration), TY_OK);
	for (unsigned i = 0; i < 6; i++) {
		struct outcome o = {0};

		lies.how = i / 2 == 0 ? FAKE_GARBAGE : FAKE_REPLY; /* no reply at all, another request's, or one without its verb's message */
		lies.other_id = i / 2 == 1;
		assert_int_equal(i % 2 ? ty_client_store(p.client, &t, on_done, &o, &p.err) : ty_client_retrieve(p.client, &t, on_done, &o, &p.err),
			TY_OK);
		wait_for(p.client, &o);
		assert_int_equal(o.result.code, TY_PROTOCOL);
		assert_true(o.result.blocks_in_use);
	}
	pair_close(&p);
}

/* No more chunks than the prompt has, and as many as were to be written. */
static void test_counts(void **state)
{
	static const uint32_t ids[2] = {0, 1}, two = 2, *const lists[1] = {ids}, tokens[3 * 256 + 255] = {0};
	struct ty_transfer t = {.session = 1, .count = 2, .blocks = lists, .block_counts = &two, .group_count = 1};
	struct ty_chain by_tokens = {.tokens = tokens, .token_count = sizeof tokens / sizeof tokens[0]};
	static const uint8_t hashes[3][TY_KEY_BYTES];
	struct ty_chain by_hashes = {.hashes = hashes[0], .chunk_count = 3};
	struct lies lies = {.registration = 7};
	struct pair p;

	(void)state;
	pair_start(&p, (struct fake_options){.answer = lie, .user = &lies});
	pair_open(&p);
	assert_int_equal(register_pool(&p, &t.registration), TY_OK);
	for (lies.chunks = 1; lies.chunks <= 4; lies.chunks++) {
		struct outcome looked[2] = {{0}}, retrieved = {0};

		assert_int_equal(ty_client_lookup(p.client, 1, &by_tokens, on_done, &looked[0], &p.err), TY_OK);
		assert_int_equal(ty_client_lookup(p.client, 1, &by_hashes, on_done, &looked[1], &p.err), TY_OK);
		assert_int_equal(ty_client_retrieve(p.client, &t, on_done, &retrieved, &p.err), TY_OK);
		for (unsigned i = 0; i < 2; i++) {
			wait_for(p.client, &looked[i]);
			assert_int_equal(looked[i].result.code, lies.chunks <= 3 ? TY_OK : TY_PROTOCOL);
		}
		wait_for(p.client, &retrieved);
		assert_int_equal(retrieved.result.code, lies.chunks == 2 ? TY_OK : TY_PROTOCOL);
		assert_int_equal(retrieved.result.blocks_in_use, lies.chunks != 2);
	}
	pair_close(&p);
}

/* 0 is no registration: a client that came back would register its pools again without end. */
static void test_registration_of_number_0(void **state)
{
	struct lies lies = {.registration = 0};
	uint32_t handle;
	struct pair p;

	(void)state;
	pair_start(&p, (struct fake_options){.answer = lie, .user = &lies});
	pair_open(&p);
	assert_int_equal(register_pool(&p, &handle), TY_PROTOCOL);
	pair_close(&p);
}

/* A service that took next to nothing is followed by one that does. */
static void test_limit_of_the_last_service(void **state)
{
	struct lies lies = {.limit = 1};
	struct outcome o = {0};
	struct pair p;

	(void)state;
	pair_start(&p, (struct fake_options){.answer = lie, .user = &lies});
	pair_open(&p);
	assert_int_equal(ty_client_ping(p.client, on_done, &o, &p.err), TY_LIMIT);
	fake_pause(&p.fake);
	while (ty_client_state(p.client, NULL) == TY_CLIENT_UP)
		ty_client_poll(p.client, 0, 0);
	lies.limit = 0;
	fake_resume(&p.fake, FAKE_BOOT + 1);
	while (ty_client_state(p.client, &p.err) != TY_CLIENT_UP) {
		if (p.err.code == TY_LIMIT)
			fail_msg("%s", p.err.text);
		ty_client_poll(p.client, 0, 1000);
	}
	pair_close(&p);
}

/* ---- more than was asked for ------------------------------------------------------------------------------------------------- */

#define FRAME_BYTES 13 /* of a frame without a body, over ipc */
#define FRAMES 8000    /* fewer bytes than a socket holds, and more than one turn takes */

struct raw {
	int listen_fd, fd;
	char path[64], url[80];
	uint8_t frame[FRAME_BYTES]; /* of the request that was read last: type, length, number */
	uint8_t id[8];
};

static void receive(int fd, uint8_t *bytes, size_t length)
{
	assert_int_equal(recv(fd, bytes, length, MSG_WAITALL), length);
}

static void read_request(struct raw *raw)
{
	uint8_t body[512], *id;
	uint64_t length;

	receive(raw->fd, raw->frame, FRAME_BYTES);
	length = (uint64_t)raw->frame[7] << 8 | raw->frame[8];
	assert_in_range(length, 5, sizeof body);
	receive(raw->fd, body, length - 4);
	id = memchr(body, 0x19, length - 4); /* Request.id, fixed64 */
	assert_non_null(id);
	memcpy(raw->id, id + 1, sizeof raw->id);
}

static void send_reply(struct raw *raw)
{
	uint8_t bytes[FRAME_BYTES + 18] = {1, 0, 0, 0, 0, 0, 0, 0, 4 + 18};

	memcpy(bytes + 9, raw->frame + 9, 4);
	memcpy(bytes + FRAME_BYTES, (uint8_t[]){0x19, 0, 0, 0, 0, 0, 0, 0, 1, 0x21}, 10); /* Reply.boot, .id */
	memcpy(bytes + FRAME_BYTES + 10, raw->id, 8);
	assert_int_equal(send(raw->fd, bytes, sizeof bytes, MSG_NOSIGNAL), sizeof bytes);
}

static void *greet(void *arg)
{
	static const uint8_t greeting[8] = {0, 'S', 'P', 0, 0, 0x31, 0, 0};
	struct raw *raw = arg;
	uint8_t theirs[8];

	raw->fd = accept4(raw->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	receive(raw->fd, theirs, sizeof theirs);
	assert_int_equal(send(raw->fd, greeting, sizeof greeting, MSG_NOSIGNAL), sizeof greeting);
	read_request(raw);
	send_reply(raw);
	return NULL;
}

/* A client of a service that is this test's own thread, from when it is open. */
static struct ty_client *open_raw(struct raw *raw)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct ty_client_options o = {.size = sizeof o, .url = raw->url};
	struct ty_client *c;
	struct ty_error err;
	pthread_t thread;

	snprintf(raw->path, sizeof raw->path, "/tmp/tyer-client-raw-%d", (int)getpid());
	snprintf(raw->url, sizeof raw->url, "ipc://%s", raw->path);
	unlink(raw->path);
	strcpy(address.sun_path, raw->path);
	raw->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(raw->listen_fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(raw->listen_fd, 1), 0);
	assert_int_equal(pthread_create(&thread, NULL, greet, raw), 0);
	if (ty_client_open(&o, &c, &err) != TY_OK)
		fail_msg("%s", err.text);
	pthread_join(thread, NULL);
	return c;
}

static void close_raw(struct raw *raw, struct ty_client *c)
{
	ty_client_close(c);
	close(raw->fd);
	close(raw->listen_fd);
	unlink(raw->path);
}

/* Frames that nobody asked for, and no end of them: each poll takes some and returns, and what is behind them is found. */
static void test_frames_without_end(void **state)
{
	static uint8_t flood[FRAMES][FRAME_BYTES];
	struct outcome o = {0};
	struct pollfd fd;
	struct raw raw;
	struct ty_client *c = open_raw(&raw);
	int left = 0;

	(void)state;
	fd = (struct pollfd){.fd = ty_client_fd(c), .events = POLLIN};
	for (size_t i = 0; i < FRAMES; i++)
		memcpy(flood[i], (uint8_t[]){1, 0, 0, 0, 0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff}, FRAME_BYTES);
	assert_int_equal(ty_client_ping(c, on_done, &o, NULL), TY_OK);
	read_request(&raw);
	assert_int_equal(send(raw.fd, flood, sizeof flood, MSG_NOSIGNAL), sizeof flood);
	send_reply(&raw);
	assert_int_equal(ty_client_poll(c, 0, 0), 0);
	assert_int_equal(ioctl(c->connection.fd, FIONREAD, &left), 0);
	assert_int_not_equal(left, 0);
	while (o.calls == 0) {
		assert_int_equal(poll(&fd, 1, FOREVER_US / 1000), 1);
		ty_client_poll(c, 0, 0);
	}
	assert_int_equal(o.result.code, TY_OK);
	ty_client_poll(c, 0, 0);
	assert_int_equal(poll(&fd, 1, 0), 0);
	close_raw(&raw, c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nobody_spoke_of_blocks),
		cmocka_unit_test(test_counts),
		cmocka_unit_test(test_registration_of_number_0),
		cmocka_unit_test(test_limit_of_the_last_service),
		cmocka_unit_test(test_frames_without_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
