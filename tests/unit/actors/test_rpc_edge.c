/* SPDX-License-Identifier: Apache-2.0
 *
 * The edge, by clients that speak the wire by hand and not always well: after whatever they did a PING is answered, and what
 * they held is free again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "rpc_house.h"

#define ONE CLIENT(1, 0)
#define SHORT_MS 50 /* of a limit that the test waits for */

static const uint8_t greeting[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
static const uint8_t ping_bytes[] = {0x08, 0x01, 0x52, 0x00}; /* version 1, PING */
static struct house house;

static int set_up_with(void (*adjust)(struct ty_rpc_socket *))
{
	house_config(&house);
	house.adjust = adjust;
	house_open(&house, false);
	return 0;
}

static int set_up(void **state)
{
	(void)state;
	return set_up_with(NULL);
}

static int tear_down(void **state)
{
	(void)state;
	house_close(&house);
	return 0;
}

static struct ty_rpc_stats *stats(void)
{
	return &house.service->rpc_stats;
}

static uint64_t get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

static void wait_for(const _Atomic uint64_t *counter, uint64_t value)
{
	for (int i = 0; i < HOUSE_WAIT_MS && get(counter) < value; i++)
		usleep(1000);
	assert_true(get(counter) == value);
}

static void wait_for_least(const _Atomic uint64_t *counter, uint64_t value)
{
	for (int i = 0; i < HOUSE_WAIT_MS && get(counter) < value; i++)
		usleep(1000);
	assert_true(get(counter) >= value);
}

/* A client as it should be, beside the others. */
static void ping(void)
{
	nng_socket s = house_dial(&house);

	house_send_bytes(s, ping_bytes, sizeof ping_bytes);
	house_expect(house_receive(s), 0, TY_OK, "");
	nng_close(s);
}

/* Everybody has gone: nothing is left of them. */
static void expect_empty(void)
{
	house_wait(&stats()->open, 0);
	house_wait(&stats()->connections, 0);
}

/* ---- the wire by hand ------------------------------------------------------------------------------------------------- */

static bool over_tcp(void)
{
	return strncmp(house.config.listen, "tcp", 3) == 0;
}

static int raw_open(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct timeval patience = {.tv_sec = HOUSE_WAIT_MS / 1000};
	int fd = socket(over_tcp() ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
	if (over_tcp()) {
		in.sin_port = htons((uint16_t)atoi(strrchr(house.config.listen, ':') + 1));
		assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof in), 0);
	} else {
		snprintf(un.sun_path, sizeof un.sun_path, "%s/tyer.sock", house.directory);
		assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof un), 0);
	}
	return fd;
}

static void raw_write(int fd, const void *bytes, size_t length)
{
	const uint8_t *p = bytes;

	while (length > 0) {
		ssize_t n = send(fd, p, length, MSG_NOSIGNAL);

		assert_true(n > 0);
		p += n;
		length -= (size_t)n;
	}
}

static void raw_read(int fd, void *bytes, size_t length)
{
	assert_int_equal(recv(fd, bytes, length, MSG_WAITALL), length);
}

static int raw_connect(void)
{
	uint8_t theirs[8];
	int fd = raw_open();

	raw_write(fd, greeting, 8);
	raw_read(fd, theirs, 8);
	assert_memory_equal(theirs, "\0SP\0\0\x31\0\0", 8);
	return fd;
}

static size_t raw_head(uint8_t *out, uint64_t length)
{
	size_t at = 0;

	if (!over_tcp())
		out[at++] = 1;
	for (int i = 0; i < 8; i++)
		out[at++] = (uint8_t)(length >> (56 - 8 * i));
	return at;
}

/* A whole frame: head, hops, request. */
static size_t raw_frame(uint8_t *out, const void *trace, size_t hops, const void *bytes, size_t length)
{
	size_t at = raw_head(out, 4 * hops + length);

	memcpy(out + at, trace, 4 * hops);
	memcpy(out + at + 4 * hops, bytes, length);
	return at + 4 * hops + length;
}

static size_t ping_frame(uint8_t *out, uint32_t number)
{
	uint8_t trace[4] = {(uint8_t)(0x80 | number >> 24), (uint8_t)(number >> 16), (uint8_t)(number >> 8), (uint8_t)number};

	return raw_frame(out, trace, 1, ping_bytes, sizeof ping_bytes);
}

/* The next reply: it has this in front. */
static void raw_expect(int fd, const void *trace, size_t hops, enum ty_code code)
{
	size_t head = over_tcp() ? 8 : 9, length;
	uint8_t bytes[512];
	Tyer__V1__Reply *reply;

	raw_read(fd, bytes, head);
	if (!over_tcp())
		assert_int_equal(bytes[0], 1);
	for (size_t i = head - 8; i < head - 2; i++)
		assert_int_equal(bytes[i], 0);
	length = (size_t)bytes[head - 2] << 8 | bytes[head - 1];
	assert_in_range(length, 4 * hops, sizeof bytes);
	raw_read(fd, bytes, length);
	assert_memory_equal(bytes, trace, 4 * hops);
	reply = tyer__v1__reply__unpack(NULL, length - 4 * hops, bytes + 4 * hops);
	assert_non_null(reply);
	assert_int_equal(reply->code, code);
	assert_true(reply->boot == HOUSE_BOOT);
	tyer__v1__reply__free_unpacked(reply, NULL);
}

static void raw_ping(int fd)
{
	uint8_t bytes[64];

	raw_write(fd, bytes, ping_frame(bytes, 7));
	raw_expect(fd, "\x80\0\0\7", 1, TY_OK);
}

/* A client that got an answer, where the limit of a greeting is so short that a busy machine misses it at times: again then.
 * Once it is greeted nothing is expected of it. */
static int raw_connect_in_time(void)
{
	uint8_t theirs[8], bytes[64];
	size_t size = ping_frame(bytes, 7);

	for (int i = 0; i < 1000; i++) {
		int fd = raw_open();

		if (send(fd, greeting, 8, MSG_NOSIGNAL) == 8 && recv(fd, theirs, 8, MSG_WAITALL) == 8 &&
			send(fd, bytes, size, MSG_NOSIGNAL) == (ssize_t)size && recv(fd, theirs, 1, MSG_PEEK) == 1) {
			raw_expect(fd, "\x80\0\0\7", 1, TY_OK);
			return fd;
		}
		close(fd);
	}
	fail_msg("not one of a thousand clients was in time");
	return -1;
}

/* The service closes it; whatever it had sent before is read. */
static void raw_closed(int fd)
{
	char bytes[4096];
	ssize_t n;

	do
		n = recv(fd, bytes, sizeof bytes, 0);
	while (n > 0);
	assert_true(n == 0 || errno != EAGAIN);
	close(fd);
}

/* UNREGISTER of HOLD, by hand. */
static void raw_hold(int fd, uint64_t id)
{
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT;
	Tyer__V1__Unregister unregister = TYER__V1__UNREGISTER__INIT;
	uint8_t packed[128], bytes[256];

	unregister.registration = HOLD;
	request.version = 1;
	request.client = ONE;
	request.id = id;
	request.verb_case = TYER__V1__REQUEST__VERB_UNREGISTER;
	request.unregister = &unregister;
	assert_true(tyer__v1__request__get_packed_size(&request) <= sizeof packed);
	raw_write(fd, bytes, raw_frame(bytes, "\x80\0\0\1", 1, packed, tyer__v1__request__pack(&request, packed)));
}

/* ---- greetings -------------------------------------------------------------------------------------------------------- */

static void test_connect_and_close(void **state)
{
	/* over tcp fewer than its backlog: of more some would have to begin again, after a second */
	int times = over_tcp() ? 100 : 1000;

	(void)state;
	for (int i = 0; i < times; i++) {
		int fd = raw_open();

		if (i % 3 == 1)
			raw_write(fd, greeting, (size_t)(1 + i % 7));
		if (i % 3 == 2)
			raw_write(fd, greeting, 8);
		close(fd);
	}
	wait_for(&stats()->connections_accepted, (uint64_t)times); /* with a full backlog nng's dial does not wait, but fails */
	ping();
	expect_empty();
	assert_int_equal(get(&stats()->connections_broken), 0);
	assert_int_equal(get(&stats()->receive_errors), 0);
}

static void impatient(struct ty_rpc_socket *socket)
{
	socket->edge.limits.frame_ms = SHORT_MS;
}

static int set_up_impatient(void **state)
{
	(void)state;
	return set_up_with(impatient);
}

static void test_half_a_greeting(void **state)
{
	int silent = raw_open(), half = raw_open();

	(void)state;
	raw_write(half, greeting, 5);
	close(raw_connect_in_time());
	raw_closed(silent);
	raw_closed(half);
	wait_for_least(&stats()->connections_broken, 2);
	close(raw_connect_in_time());
	expect_empty();
}

static void test_no_greeting(void **state)
{
	static const char *const texts[] = {
		"\0SP\0\0\x31\0\0", /* REP: what we are */
		"\0SP\0\0\x10\0\0", /* PAIR */
		"\0SP\0\0\x30\0\1", "\0SP\1\0\x30\0\0", "\1SP\0\0\x30\0\0", "\0sp\0\0\x30\0\0", "GET / HT",
		"\xff\xff\xff\xff\xff\xff\xff\xff",
	};

	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		int fd = raw_open();

		raw_write(fd, texts[i], 8);
		raw_closed(fd);
		ping();
	}
	assert_int_equal(get(&stats()->connections_broken), sizeof texts / sizeof texts[0]);
	expect_empty();
}

/* ---- frames ----------------------------------------------------------------------------------------------------------- */

static void test_half_a_frame(void **state)
{
	uint8_t bytes[64], head[9];
	size_t length = ping_frame(bytes, 1), heads;
	int fd;

	(void)state;
	for (size_t part = 1; part < length; part++) { /* and gone */
		fd = raw_connect();
		raw_write(fd, bytes, part);
		close(fd);
	}
	fd = raw_connect(); /* a long one, too */
	heads = raw_head(head, 100000);
	raw_write(fd, head, heads);
	close(fd);
	ping();
	expect_empty();
	assert_int_equal(get(&stats()->connections_broken), 0);
	assert_int_equal(get(&stats()->requests[TYER__V1__REQUEST__VERB_PING]), 1);
}

static void test_frame_that_does_not_end(void **state)
{
	uint8_t bytes[64], part[5000] = {0};
	int some = raw_connect_in_time(), idle = raw_connect_in_time(), body = raw_connect_in_time();

	(void)state;
	ping_frame(bytes, 1);
	raw_write(some, bytes, 4);
	raw_head(part, 100000);
	raw_write(body, part, sizeof part);
	raw_closed(some);
	raw_closed(body);
	wait_for_least(&stats()->connections_broken, 2);
	raw_ping(idle); /* who owes nothing may be silent for as long as he likes */
	usleep(2 * SHORT_MS * 1000);
	raw_ping(idle);
	close(idle);
	expect_empty();
}

static void test_pieces(void **state)
{
	uint8_t bytes[300];
	size_t length = 0;
	int fd = raw_open();

	(void)state;
	/* The greeting and three requests, a byte at a time; then the three at once. */
	for (size_t i = 0; i < 8; i++)
		raw_write(fd, greeting + i, 1);
	raw_read(fd, bytes, 8);
	for (uint32_t i = 1; i <= 3; i++)
		length += ping_frame(bytes + length, i);
	for (size_t i = 0; i < length; i++)
		raw_write(fd, bytes + i, 1);
	raw_write(fd, bytes, length);
	for (int i = 0; i < 2; i++) {
		raw_expect(fd, "\x80\0\0\1", 1, TY_OK);
		raw_expect(fd, "\x80\0\0\2", 1, TY_OK);
		raw_expect(fd, "\x80\0\0\3", 1, TY_OK);
	}
	close(fd);
	/* All in one write, greeting first. */
	fd = raw_open();
	memmove(bytes + 8, bytes, length);
	memcpy(bytes, greeting, 8);
	raw_write(fd, bytes, 8 + length);
	raw_read(fd, bytes, 8);
	raw_expect(fd, "\x80\0\0\1", 1, TY_OK);
	raw_expect(fd, "\x80\0\0\2", 1, TY_OK);
	raw_expect(fd, "\x80\0\0\3", 1, TY_OK);
	close(fd);
	expect_empty();
}

/* Frames around the size of the receive buffer, each with a short one behind it. What they carry is no Request. */
static void test_around_the_buffer(void **state)
{
	enum { MOST = TY_RPC_READ_BYTES };
	uint8_t *bytes = malloc(MOST + 200), *junk = malloc(MOST + 100);
	uint8_t trace[4] = {0x80, 0, 0, 9};
	int fd = raw_connect();

	(void)state;
	memset(junk, 0xff, MOST + 100);
	for (size_t size = MOST - 40; size < MOST + 40; size++) {
		size_t length = raw_frame(bytes, trace, 1, junk, size);

		length += ping_frame(bytes + length, 5);
		raw_write(fd, bytes, length);
		raw_expect(fd, trace, 1, TY_PROTOCOL);
		raw_expect(fd, "\x80\0\0\5", 1, TY_OK);
	}
	close(fd);
	free(bytes);
	free(junk);
	expect_empty();
}

static void test_hops(void **state)
{
	uint8_t trace[4 * 9] = {0}, bytes[128];
	int fd = raw_connect();

	(void)state;
	for (size_t hops = 1; hops <= TY_RPC_HOPS_MAX; hops++) {
		memset(trace, 0, sizeof trace);
		for (size_t i = 0; i < hops; i++)
			trace[4 * i + 3] = (uint8_t)(i + 1);
		trace[4 * (hops - 1)] = 0x80;
		raw_write(fd, bytes, raw_frame(bytes, trace, hops, ping_bytes, sizeof ping_bytes));
		raw_expect(fd, trace, hops, TY_OK);
	}
	memset(trace, 0, sizeof trace);
	trace[32] = 0x80; /* the ninth */
	raw_write(fd, bytes, raw_frame(bytes, trace, 9, ping_bytes, sizeof ping_bytes));
	raw_closed(fd);
	for (size_t length = 0; length < 8; length++) { /* shorter than a number, or none that ends */
		fd = raw_connect();
		memset(trace, 0, sizeof trace);
		raw_write(fd, bytes, raw_frame(bytes, trace, 0, "\0\0\0\0\0\0\0\0", length));
		raw_closed(fd);
	}
	assert_int_equal(get(&stats()->connections_broken), 9);
	assert_int_equal(get(&stats()->requests[0]), 0);
	expect_empty();
}

static void test_frame_type(void **state)
{
	uint8_t bytes[64];
	size_t length = ping_frame(bytes, 1);
	int fd;

	(void)state;
	for (int type = 0; type < 256; type += 51) {
		bytes[0] = (uint8_t)type;
		fd = raw_connect();
		raw_write(fd, bytes, length);
		raw_closed(fd);
	}
	assert_int_equal(get(&stats()->connections_broken), 6);
	ping();
}

/* A request of exactly `length` bytes. */
static void send_long(nng_socket s, size_t length)
{
	Tyer__V1__Request r = TYER__V1__REQUEST__INIT;
	Tyer__V1__Lookup lookup = TYER__V1__LOOKUP__INIT;
	uint8_t *bytes = calloc(1, length);

	r.version = 1;
	r.id = 6;
	r.client = ONE;
	r.verb_case = TYER__V1__REQUEST__VERB_LOOKUP;
	r.lookup = &lookup;
	lookup.adapter.data = bytes;
	lookup.adapter.len = length - 64;
	while (tyer__v1__request__get_packed_size(&r) < length)
		lookup.adapter.len++;
	assert_int_equal(tyer__v1__request__get_packed_size(&r), length);
	house_send(s, &r);
	free(bytes);
}

static void test_length(void **state)
{
	nng_socket s = house_dial(&house);
	uint64_t lengths[] = {(uint64_t)house.config.max_request_bytes + TY_RPC_HEADER_ROOM + 1, UINT64_C(1) << 40,
		UINT64_C(1) << 63, UINT64_MAX - 8, UINT64_MAX};

	(void)state;
	send_long(s, house.config.max_request_bytes);
	house_expect(house_receive(s), 6, TY_UNKNOWN_CLIENT, "HELLO");
	send_long(s, (size_t)house.config.max_request_bytes + 1);
	house_expect(house_receive(s), 0, TY_LIMIT, "max_request_bytes");
	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		int fd = raw_connect();
		uint8_t head[9];

		raw_write(fd, head, raw_head(head, lengths[i]));
		raw_closed(fd); /* before a byte of it was sent */
	}
	assert_int_equal(get(&stats()->connections_broken), sizeof lengths / sizeof lengths[0]);
	nng_close(s);
	ping();
	expect_empty();
}

/* ---- limits ----------------------------------------------------------------------------------------------------------- */

static void few_connections(struct ty_rpc_socket *socket)
{
	socket->edge.limits.connections = 2;
}

static int set_up_few_connections(void **state)
{
	(void)state;
	return set_up_with(few_connections);
}

static void test_connections(void **state)
{
	int a = raw_connect(), b = raw_connect();

	(void)state;
	for (int i = 0; i < 20; i++)
		raw_closed(raw_open());
	assert_int_equal(get(&stats()->connections_refused), 20);
	raw_ping(a);
	raw_ping(b);
	close(a);
	house_wait(&stats()->connections, 1);
	ping();
	raw_ping(b);
	close(b);
	expect_empty();
}

static void few_requests(struct ty_rpc_socket *socket)
{
	socket->edge.limits.requests = 2;
}

static int set_up_few_requests(void **state)
{
	(void)state;
	return set_up_with(few_requests);
}

static void test_requests_of_a_connection(void **state)
{
	int a = raw_connect(), b = raw_connect();

	(void)state;
	house_route(&house, ONE, house.engine);
	raw_hold(a, 1);
	raw_hold(a, 2);
	house_wait(&house_seen.held, 2);
	raw_hold(a, 3);
	raw_expect(a, "\x80\0\0\1", 1, TY_BUSY);
	raw_ping(a);
	raw_hold(b, 4);
	house_wait(&house_seen.held, 3);
	house_release(house.engine);
	raw_expect(a, "\x80\0\0\1", 1, TY_OK);
	raw_expect(a, "\x80\0\0\1", 1, TY_OK);
	raw_expect(b, "\x80\0\0\1", 1, TY_OK);
	raw_hold(a, 5);
	house_wait(&house_seen.held, 1);
	house_release(house.engine);
	raw_expect(a, "\x80\0\0\1", 1, TY_OK);
	close(a);
	close(b);
	expect_empty();
}

static void no_exchanges(struct ty_rpc_socket *socket)
{
	socket->free = NULL;
}

static int set_up_no_exchanges(void **state)
{
	(void)state;
	return set_up_with(no_exchanges);
}

static void test_no_exchange(void **state)
{
	nng_socket s = house_dial(&house);
	static const uint8_t status_bytes[] = {0x08, 0x01, 0x5a, 0x00}; /* version 1, STATUS */

	(void)state;
	house_route(&house, ONE, house.engine);
	for (int i = 0; i < 3; i++) {
		house_send_bytes(s, status_bytes, sizeof status_bytes);
		house_expect(house_receive(s), 0, TY_BUSY, "exchanges");
		house_send_plain(s, ONE, 3, 1);
		house_expect(house_receive(s), 3, TY_BUSY, "exchanges");
		house_send_bytes(s, "\xff", 1);
		house_expect(house_receive(s), 0, TY_PROTOCOL, "no Request");
		ping();
	}
	nng_close(s);
	expect_empty();
}

/* Write as much as it takes, read only when it takes no more: far more than there is room for on the way. All of it is
 * answered, in the order asked. */
static void test_many_at_once(void **state)
{
	enum { MANY = 20000 };
	uint8_t frame[64], *all, *bytes;
	size_t size = ping_frame(frame, 0), head = over_tcp() ? 8 : 9, length = MANY * size, sent = size, got, reply;
	int fd = raw_connect();

	(void)state;
	all = malloc(length);
	for (uint32_t i = 0; i < MANY; i++)
		ping_frame(all + i * size, i);
	raw_write(fd, all, size);
	reply = (size_t)recv(fd, frame, sizeof frame, 0); /* all PINGs' replies are alike in size */
	bytes = malloc(MANY * reply);
	memcpy(bytes, frame, reply);
	got = reply;
	while (got < MANY * reply) {
		struct pollfd p = {.fd = fd, .events = (short)(POLLIN | (sent < length ? POLLOUT : 0))};
		ssize_t n;

		assert_int_equal(poll(&p, 1, HOUSE_WAIT_MS), 1);
		if (p.revents & POLLOUT) {
			n = send(fd, all + sent, length - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
			assert_true(n > 0 || errno == EAGAIN);
			sent += n > 0 ? (size_t)n : 0;
		} else {
			n = recv(fd, bytes + got, MANY * reply - got, 0);
			assert_true(n > 0);
			got += (size_t)n;
		}
	}
	for (uint32_t i = 0; i < MANY; i++) {
		assert_memory_equal(bytes + i * reply, frame, head);
		assert_memory_equal(bytes + i * reply + head, all + i * size + head, 4); /* its number */
		assert_memory_equal(bytes + i * reply + head + 4, frame + head + 4, reply - head - 4);
	}
	assert_int_equal(get(&stats()->replies[TY_OK]), MANY);
	close(fd);
	free(all);
	free(bytes);
	expect_empty();
	assert_int_equal(get(&stats()->unsent), 0);
}

/* Ask, and never read. */
static void flood(int fd)
{
	uint8_t frame[64];
	size_t size = ping_frame(frame, 1);

	for (uint32_t sent = 0; send(fd, frame, size, MSG_NOSIGNAL) >= 0; sent++)
		assert_true(sent < 100000000);
}

static void test_client_that_does_not_read(void **state)
{
	int fd = raw_connect_in_time();

	(void)state;
	flood(fd); /* until it is closed */
	house_wait(&stats()->connections, 0);
	assert_true(get(&stats()->unsent) > 0);
	assert_true(get(&stats()->unsent) <= TY_RPC_CONNECTION_REPLIES);
	for (int i = 0; i < 50; i++)
		close(raw_connect_in_time());
	close(fd);
	expect_empty();
}

static void little_room(struct ty_rpc_socket *socket)
{
	socket->edge.limits.all_reply_bytes = 100;
}

static int set_up_little_room(void **state)
{
	(void)state;
	return set_up_with(little_room);
}

static void test_no_room_for_replies(void **state)
{
	int fd = raw_connect();

	(void)state;
	flood(fd);
	house_wait(&stats()->connections, 0);
	assert_true(get(&stats()->unsent) > 0);
	close(fd);
	ping();
	expect_empty();
}

/* ---- ends ------------------------------------------------------------------------------------------------------------- */

/* The client is gone while an engine has its requests; the connection's place is another client's by the time they come home. */
static void test_answers_for_nobody(void **state)
{
	int gone = raw_connect(), next;

	(void)state;
	house_route(&house, ONE, house.engine);
	for (uint64_t id = 1; id <= 5; id++)
		raw_hold(gone, id);
	house_wait(&house_seen.held, 5);
	close(gone);
	house_wait(&stats()->connections, 0);
	next = raw_connect();
	raw_hold(next, 6);
	house_wait(&house_seen.held, 6);
	house_release(house.engine);
	raw_expect(next, "\x80\0\0\1", 1, TY_OK); /* one, its own */
	raw_ping(next);
	house_wait(&stats()->open, 0);
	close(next);
	expect_empty();
	assert_int_equal(get(&stats()->unsent), 0);
}

/* Half a close is a close. */
static void test_shutdown(void **state)
{
	int a = raw_connect(), b = raw_connect();

	(void)state;
	assert_int_equal(shutdown(a, SHUT_WR), 0);
	raw_closed(a);
	house_wait(&stats()->connections, 1);
	assert_int_equal(shutdown(b, SHUT_RDWR), 0);
	house_wait(&stats()->connections, 0);
	close(b);
	ping();
}

static void test_accept_errors(void **state)
{
	static const int errors[] = {NNG_ECLOSED, NNG_ECANCELED, NNG_ENOMEM, NNG_ENOFILES, NNG_ECONNABORTED};

	(void)state;
	ping();
	for (uint64_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
		/* until it hits one that waits */
		for (int n = 0; n < HOUSE_WAIT_MS && get(&stats()->receive_errors) == i; n++) {
			nng_aio_abort(house.socket->edge.accept.aio, errors[i]);
			usleep(1000);
		}
		assert_int_equal(get(&stats()->receive_errors), i + 1);
		ping();
	}
	expect_empty();
}

/* The actor ends while connections are in every state. */
static void test_stop(void **state)
{
	uint8_t head[9];
	int fds[6];

	(void)state;
	house_route(&house, ONE, house.engine);
	fds[0] = raw_open();
	fds[1] = raw_connect();
	fds[2] = raw_connect();
	raw_write(fds[2], head, raw_head(head, 100000));
	raw_write(fds[2], "body", 4);
	fds[3] = raw_connect();
	raw_hold(fds[3], 1);
	fds[4] = raw_open();
	raw_write(fds[4], greeting, 3);
	fds[5] = raw_connect();
	raw_ping(fds[5]);
	house_wait(&house_seen.held, 1);
	ty_actor_stop(house.service->rpc);
	for (int i = 0; i < 6; i++)
		raw_closed(fds[i]);
	house_release(house.engine);
	house_wait(&house_seen.held, 0);
}

/* ---- tcp -------------------------------------------------------------------------------------------------------------- */

static int set_up_tcp(void **state)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof address;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)state;
	house_config(&house);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
	house.config.tcp_insecure = 1;
	snprintf(house.config.listen, sizeof house.config.listen, "tcp://127.0.0.1:%u", ntohs(address.sin_port));
	close(fd);
	house_open(&house, false);
	return 0;
}

/* Each connection that comes over tcp has our times of keep-alive: nng's listener does not offer them, they are inherited. */
static void test_keep_alive(void **state)
{
	nng_socket s = house_dial(&house);
	int found = 0;

	(void)state;
	house_send_bytes(s, ping_bytes, sizeof ping_bytes);
	house_expect(house_receive(s), 0, TY_OK, "");
	for (int fd = 0; fd < 1024; fd++) {
		struct sockaddr_in ours, theirs;
		socklen_t length = sizeof ours, size = sizeof theirs, int_size = sizeof(int);
		int idle = 0, on = 0, interval = 0, probes = 0;
		unsigned unacknowledged = 0;

		if (getsockname(fd, (struct sockaddr *)&ours, &length) != 0 || getpeername(fd, (struct sockaddr *)&theirs, &size) != 0 ||
			ours.sin_family != AF_INET || ntohs(ours.sin_port) != atoi(strrchr(house.config.listen, ':') + 1))
			continue;
		assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, &int_size), 0);
		assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, &int_size), 0);
		assert_int_not_equal(on, 0);
		assert_int_equal(idle, 30);
		assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, &int_size), 0);
		assert_int_equal(interval, 10);
		assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, &int_size), 0);
		assert_int_equal(probes, 3);
		assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacknowledged, &int_size), 0);
		assert_int_equal(unacknowledged, 30000);
		found++;
	}
	assert_int_equal(found, 1);
	nng_close(s);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)
#define TEST_WITH(name, set) cmocka_unit_test_setup_teardown(test_##name, set_up_##set, tear_down)
#define TEST_TCP(name) {"tcp: test_" #name, test_##name, set_up_tcp, tear_down, NULL}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(connect_and_close),
		TEST_WITH(half_a_greeting, impatient),
		TEST(no_greeting),
		TEST(half_a_frame),
		TEST_WITH(frame_that_does_not_end, impatient),
		TEST(pieces),
		TEST(around_the_buffer),
		TEST(hops),
		TEST(frame_type),
		TEST(length),
		TEST_WITH(connections, few_connections),
		TEST_WITH(requests_of_a_connection, few_requests),
		TEST_WITH(no_exchange, no_exchanges),
		TEST(many_at_once),
		TEST_WITH(client_that_does_not_read, impatient),
		TEST_WITH(no_room_for_replies, little_room),
		TEST(answers_for_nobody),
		TEST(shutdown),
		TEST(accept_errors),
		TEST(stop),
		TEST_TCP(connect_and_close),
		TEST_TCP(keep_alive),
		TEST_TCP(no_greeting),
		TEST_TCP(half_a_frame),
		TEST_TCP(pieces),
		TEST_TCP(around_the_buffer),
		TEST_TCP(hops),
		TEST_TCP(length),
		TEST_TCP(many_at_once),
		TEST_TCP(answers_for_nobody),
		TEST_TCP(shutdown),
		TEST_TCP(stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
