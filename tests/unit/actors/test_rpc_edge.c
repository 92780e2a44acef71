/* SPDX-License-Identifier: Apache-2.0
 *
 * The edge, by clients that speak the wire by hand and not always well: after whatever they did a PING is answered, and what
 * they held is free again.
 */
#include "edge_house.h"
#include "base/descriptors.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- greetings -------------------------------------------------------------------------------------------------------- */

static void test_connect_and_close(void **state)
{
	/* over tcp fewer than its backlog: of more some would have to begin again, after a second */
	int times = edge_over_tcp() ? 100 : 1000;

	(void)state;
	for (int i = 0; i < times; i++) {
		int fd = raw_open();

		if (i % 3 == 1)
			raw_write(fd, edge_greeting, (size_t)(1 + i % 7));
		if (i % 3 == 2)
			raw_write(fd, edge_greeting, 8);
		close(fd);
	}
	edge_wait_for(&edge_stats()->connections_accepted, (uint64_t)times); /* with a full backlog nng's dial does not wait, but fails */
	edge_ping();
	edge_expect_empty();
	assert_int_equal(edge_get(&edge_stats()->connections_broken), 0);
	assert_int_equal(edge_get(&edge_stats()->receive_errors), 0);
}

static void test_half_a_greeting(void **state)
{
	int silent = raw_open(), half = raw_open();

	(void)state;
	raw_write(half, edge_greeting, 5);
	close(raw_connect_in_time());
	raw_closed(silent);
	raw_closed(half);
	edge_wait_for_least(&edge_stats()->connections_broken, 2);
	close(raw_connect_in_time());
	edge_expect_empty();
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
		edge_ping();
	}
	assert_int_equal(edge_get(&edge_stats()->connections_broken), sizeof texts / sizeof texts[0]);
	edge_expect_empty();
}

/* ---- frames ----------------------------------------------------------------------------------------------------------- */

static void test_half_a_frame(void **state)
{
	uint8_t bytes[64], head[9];
	size_t length = edge_ping_frame(bytes, 1), heads;
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
	edge_ping();
	edge_expect_empty();
	assert_int_equal(edge_get(&edge_stats()->connections_broken), 0);
	assert_int_equal(edge_get(&edge_stats()->requests[TYER__V1__REQUEST__VERB_PING]), 1);
}

static void test_frame_that_does_not_end(void **state)
{
	uint8_t bytes[64], part[5000] = {0};
	int some = raw_connect_in_time(), idle = raw_connect_in_time(), body = raw_connect_in_time();

	(void)state;
	edge_ping_frame(bytes, 1);
	raw_write(some, bytes, 4);
	raw_head(part, 100000);
	raw_write(body, part, sizeof part);
	raw_closed(some);
	raw_closed(body);
	edge_wait_for_least(&edge_stats()->connections_broken, 2);
	raw_ping(idle); /* who owes nothing may be silent for as long as he likes */
	usleep(2 * SHORT_MS * 1000);
	raw_ping(idle);
	close(idle);
	edge_expect_empty();
}

static void test_pieces(void **state)
{
	uint8_t bytes[300];
	size_t length = 0;
	int fd = raw_open();

	(void)state;
	/* The greeting and three requests, a byte at a time; then the three at once. */
	for (size_t i = 0; i < 8; i++)
		raw_write(fd, edge_greeting + i, 1);
	raw_read(fd, bytes, 8);
	for (uint32_t i = 1; i <= 3; i++)
		length += edge_ping_frame(bytes + length, i);
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
	memcpy(bytes, edge_greeting, 8);
	raw_write(fd, bytes, 8 + length);
	raw_read(fd, bytes, 8);
	raw_expect(fd, "\x80\0\0\1", 1, TY_OK);
	raw_expect(fd, "\x80\0\0\2", 1, TY_OK);
	raw_expect(fd, "\x80\0\0\3", 1, TY_OK);
	close(fd);
	edge_expect_empty();
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

		length += edge_ping_frame(bytes + length, 5);
		raw_write(fd, bytes, length);
		raw_expect(fd, trace, 1, TY_PROTOCOL);
		raw_expect(fd, "\x80\0\0\5", 1, TY_OK);
	}
	close(fd);
	free(bytes);
	free(junk);
	edge_expect_empty();
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
		raw_write(fd, bytes, raw_frame(bytes, trace, hops, edge_ping_bytes, sizeof edge_ping_bytes));
		raw_expect(fd, trace, hops, TY_OK);
	}
	memset(trace, 0, sizeof trace);
	trace[32] = 0x80; /* the ninth */
	raw_write(fd, bytes, raw_frame(bytes, trace, 9, edge_ping_bytes, sizeof edge_ping_bytes));
	raw_closed(fd);
	for (size_t length = 0; length < 8; length++) { /* shorter than a number, or none that ends */
		fd = raw_connect();
		memset(trace, 0, sizeof trace);
		raw_write(fd, bytes, raw_frame(bytes, trace, 0, "\0\0\0\0\0\0\0\0", length));
		raw_closed(fd);
	}
	assert_int_equal(edge_get(&edge_stats()->connections_broken), 9);
	assert_int_equal(edge_get(&edge_stats()->requests[0]), 0);
	edge_expect_empty();
}

static void test_frame_type(void **state)
{
	uint8_t bytes[64];
	size_t length = edge_ping_frame(bytes, 1);
	int fd;

	(void)state;
	for (int type = 0; type < 256; type += 51) {
		bytes[0] = (uint8_t)type;
		fd = raw_connect();
		raw_write(fd, bytes, length);
		raw_closed(fd);
	}
	assert_int_equal(edge_get(&edge_stats()->connections_broken), 6);
	edge_ping();
}

static void test_length(void **state)
{
	nng_socket s = house_dial(&house);
	uint64_t lengths[] = {(uint64_t)house.config.max_request_bytes + TY_RPC_HEADER_ROOM + 1, UINT64_C(1) << 40,
		UINT64_C(1) << 63, UINT64_MAX - 8, UINT64_MAX};

	(void)state;
	edge_send_long(s, house.config.max_request_bytes);
	house_expect(house_receive(s), 6, TY_UNKNOWN_CLIENT, "HELLO");
	edge_send_long(s, (size_t)house.config.max_request_bytes + 1);
	house_expect(house_receive(s), 0, TY_LIMIT, "max_request_bytes");
	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		int fd = raw_connect();
		uint8_t head[9];

		raw_write(fd, head, raw_head(head, lengths[i]));
		raw_closed(fd); /* before a byte of it was sent */
	}
	assert_int_equal(edge_get(&edge_stats()->connections_broken), sizeof lengths / sizeof lengths[0]);
	nng_close(s);
	edge_ping();
	edge_expect_empty();
}

/* Each connection that comes over tcp has our times of keep-alive: it inherits them. */
static void test_keep_alive(void **state)
{
	nng_socket s = house_dial(&house);
	int found = 0;

	(void)state;
	house_send_bytes(s, edge_ping_bytes, sizeof edge_ping_bytes);
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

/* The greeting, and a descriptor beside it. */
static ssize_t greet_with(int fd, int descriptor)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {.bytes = {0}};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)edge_greeting, .iov_len = sizeof edge_greeting};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof descriptor);
	memcpy(CMSG_DATA(c), &descriptor, sizeof descriptor);
	return sendmsg(fd, &msg, MSG_NOSIGNAL);
}

/* A descriptor beside the bytes would be dropped by whoever receives them, which may take hours: the kernel is told to take none. */
static void test_descriptors(void **state)
{
	int fd = raw_open();

	(void)state;
	if (!ty_descriptors_allow(fd, true)) { /* an older kernel */
		close(fd);
		skip();
	}
	assert_int_equal(greet_with(fd, fd), -1);
	assert_int_equal(errno, EPERM);
	edge_ping();
	close(fd);
	edge_expect_empty();
}

/* As on a kernel that cannot be told. */
static void let_descriptors_in(struct ty_rpc_socket *socket)
{
	struct ty_error err;

	(void)ty_descriptors_allow(socket->edge.listener.fd, true);
	if (socket->edge.closer < 0)
		assert_int_equal(ty_closer_open(&socket->edge.closer, &err), TY_OK);
}

static int set_up_let_in(void **state)
{
	(void)state;
	return edge_set_up_with(let_descriptors_in);
}

/* They are closed, both those that were received and those that were not, by somebody whom nobody waits for. */
static void test_descriptors_let_in(void **state)
{
	int fd = raw_open(), full = raw_open(), ends[2];
	uint8_t theirs[8];
	char byte;

	(void)state;
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(greet_with(fd, ends[1]), 8);
	raw_read(fd, theirs, 8);
	raw_ping(fd);
	raw_write(full, "GET / HTTP/1.0\r\n", 16); /* it is closed for this, and what follows may stay unread */
	(void)greet_with(full, ends[1]);
	raw_closed(full);
	close(ends[1]);
	assert_int_equal(read(ends[0], &byte, 1), 0); /* nobody has the other end any more */
	close(ends[0]);
	raw_ping(fd);
	close(fd);
	edge_expect_empty();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(connect_and_close),
		TEST(descriptors),
		TEST_WITH(descriptors_let_in, let_in),
		TEST_WITH(half_a_greeting, impatient),
		TEST(no_greeting),
		TEST(half_a_frame),
		TEST_WITH(frame_that_does_not_end, impatient),
		TEST(pieces),
		TEST(around_the_buffer),
		TEST(hops),
		TEST(frame_type),
		TEST(length),
		TEST_TCP(connect_and_close),
		TEST_TCP(keep_alive),
		TEST_TCP(no_greeting),
		TEST_TCP(half_a_frame),
		TEST_TCP(pieces),
		TEST_TCP(around_the_buffer),
		TEST_TCP(hops),
		TEST_TCP(length),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
