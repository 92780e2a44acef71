/* SPDX-License-Identifier: Apache-2.0
 *
 * The edge's limits: connections, requests, what may wait to be read; what becomes of what is open when one of both ends; and what is
 * answered meanwhile.
 */
#include "edge_house.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define DESCRIPTORS 256 /* that the process may have in a test that leaves none; more than it has in use */

/* ---- limits ----------------------------------------------------------------------------------------------------------- */

static void few_connections(struct ty_rpc_socket *socket)
{
	socket->edge.limits.connections = 2;
}

static int set_up_few_connections(void **state)
{
	(void)state;
	return edge_set_up_with(few_connections);
}

static void test_connections(void **state)
{
	int a = raw_connect(), b = raw_connect();

	(void)state;
	for (int i = 0; i < 20; i++)
		raw_closed(raw_open());
	assert_int_equal(edge_get(&edge_stats()->connections_refused), 20);
	raw_ping(a);
	raw_ping(b);
	close(a);
	house_wait(&edge_stats()->connections, 1);
	edge_ping();
	raw_ping(b);
	close(b);
	edge_expect_empty();
}

static void few_requests(struct ty_rpc_socket *socket)
{
	socket->edge.limits.requests = 2;
}

static int set_up_few_requests(void **state)
{
	(void)state;
	return edge_set_up_with(few_requests);
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
	edge_expect_empty();
}

static void no_exchanges(struct ty_rpc_socket *socket)
{
	socket->free = NULL;
}

static int set_up_no_exchanges(void **state)
{
	(void)state;
	return edge_set_up_with(no_exchanges);
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
		edge_ping();
	}
	nng_close(s);
	edge_expect_empty();
}

/* Write as much as it takes, read only when it takes no more: far more than there is room for on the way. All of it is
 * answered, in the order asked. */
static void test_many_at_once(void **state)
{
	enum { MANY = 20000 };
	uint8_t frame[64], *all, *bytes;
	size_t size = edge_ping_frame(frame, 0), head = edge_over_tcp() ? 8 : 9, length = MANY * size, sent = size, got, reply;
	int fd = raw_connect();

	(void)state;
	all = malloc(length);
	for (uint32_t i = 0; i < MANY; i++)
		edge_ping_frame(all + i * size, i);
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
	assert_int_equal(edge_get(&edge_stats()->replies[TY_OK]), MANY);
	close(fd);
	free(all);
	free(bytes);
	edge_expect_empty();
	assert_int_equal(edge_get(&edge_stats()->unsent), 0);
}

/* Ask, and never read. */
static void flood(int fd)
{
	uint8_t frame[64];
	size_t size = edge_ping_frame(frame, 1);

	for (uint32_t sent = 0; send(fd, frame, size, MSG_NOSIGNAL) >= 0; sent++)
		assert_true(sent < 100000000);
}

static void test_client_that_does_not_read(void **state)
{
	int fd = raw_connect_in_time();

	(void)state;
	flood(fd); /* until it is closed */
	house_wait(&edge_stats()->connections, 0);
	assert_true(edge_get(&edge_stats()->unsent) > 0);
	assert_true(edge_get(&edge_stats()->unsent) <= TY_RPC_CONNECTION_REPLIES);
	for (int i = 0; i < 50; i++)
		close(raw_connect_in_time());
	close(fd);
	edge_expect_empty();
}

static void little_room(struct ty_rpc_socket *socket)
{
	socket->edge.limits.all_reply_bytes = 100;
}

static int set_up_little_room(void **state)
{
	(void)state;
	return edge_set_up_with(little_room);
}

static void test_no_room_for_replies(void **state)
{
	int fd = raw_connect();

	(void)state;
	flood(fd);
	house_wait(&edge_stats()->connections, 0);
	assert_true(edge_get(&edge_stats()->unsent) > 0);
	close(fd);
	edge_ping();
	edge_expect_empty();
}

#define TWO CLIENT(1, 1)
#define ALIKE 25 /* bytes of each request that is held below */

static void little_room_for_requests(struct ty_rpc_socket *socket)
{
	socket->edge.limits.request_bytes = UINT64_C(4) * ALIKE;
}

static int set_up_little_room_for_requests(void **state)
{
	(void)state;
	return edge_set_up_with(little_room_for_requests);
}

/* Long requests are memory too: a client that asks without end gets half of what there is, and another one has room. */
static void test_no_room_for_requests(void **state)
{
	int fd = raw_connect();
	nng_socket other = house_dial(&house), late = house_dial(&house);

	(void)state;
	house_route(&house, ONE, house.engine);
	house_route(&house, TWO, house.engine);
	for (uint32_t id = 1; id <= 3; id++) {
		raw_hold(fd, id);
		house_wait(&house_seen.held, id);
	}
	raw_hold(fd, 4);
	raw_expect(fd, "\x80\0\0\1", 1, TY_BUSY);
	house_send_plain(other, TWO, 1, HOLD);
	house_wait(&house_seen.held, 4);
	house_send_plain(late, TWO, 2, HOLD);
	house_expect(house_receive(late), 2, TY_BUSY, "open requests are 100 bytes long, 25 of them this client's; all may have 100");
	house_release(house.engine);
	house_expect(house_receive(other), 1, TY_OK, "");
	for (int i = 0; i < 3; i++)
		raw_expect(fd, "\x80\0\0\1", 1, TY_OK);
	raw_hold(fd, 5); /* all of it is given back */
	house_wait(&house_seen.held, 1);
	house_release(house.engine);
	raw_expect(fd, "\x80\0\0\1", 1, TY_OK);
	nng_close(other);
	nng_close(late);
	close(fd);
	edge_expect_empty();
}

static void little_room_for_frames(struct ty_rpc_socket *socket)
{
	socket->edge.limits.all_frame_bytes = 65536;
}

static int set_up_little_room_for_frames(void **state)
{
	(void)state;
	return edge_set_up_with(little_room_for_frames);
}

/* Frames that are begun and not ended take memory: past what all may have the one that has sent most loses its connection. */
static void test_no_room_for_frames(void **state)
{
	enum { SIZE = 60000, LARGE = 40000, SMALL = 20000 };
	static uint8_t frame[9 + SIZE];
	int greedy = raw_connect(), modest = raw_connect();
	size_t head = raw_head(frame, SIZE);

	(void)state;
	memset(frame + head, 0, sizeof frame - head);
	frame[head] = 0x80; /* a hop, and then what is no request */
	raw_write(greedy, frame, LARGE);
	raw_write(modest, frame, SMALL);
	edge_ping(); /* nothing is over yet */
	assert_int_equal(edge_get(&edge_stats()->connections_crowded), 0);
	raw_write(modest, frame + SMALL, 10000);
	raw_closed(greedy);
	assert_int_equal(edge_get(&edge_stats()->connections_crowded), 1);
	raw_write(modest, frame + SMALL + 10000, head + SIZE - SMALL - 10000);
	raw_expect(modest, "\x80\0\0\0", 1, TY_PROTOCOL);
	raw_ping(modest);
	close(modest);
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
	house_wait(&edge_stats()->connections, 0);
	next = raw_connect();
	raw_hold(next, 6);
	house_wait(&house_seen.held, 6);
	house_release(house.engine);
	raw_expect(next, "\x80\0\0\1", 1, TY_OK); /* one, its own */
	raw_ping(next);
	house_wait(&edge_stats()->open, 0);
	close(next);
	edge_expect_empty();
	assert_int_equal(edge_get(&edge_stats()->unsent), 0);
}

/* Half a close is a close. */
static void test_shutdown(void **state)
{
	int a = raw_connect(), b = raw_connect();

	(void)state;
	assert_int_equal(shutdown(a, SHUT_WR), 0);
	raw_closed(a);
	house_wait(&edge_stats()->connections, 1);
	assert_int_equal(shutdown(b, SHUT_RDWR), 0);
	house_wait(&edge_stats()->connections, 0);
	close(b);
	edge_ping();
}

/* Takes every descriptor that is free, as copies of `fd`; returns how many it has. */
static size_t hoard(int fd, int *taken, size_t count)
{
	while (count < DESCRIPTORS && (taken[count] = dup(fd)) >= 0)
		count++;
	assert_true(count < DESCRIPTORS);
	return count;
}

/* No descriptor is left for who comes in: he waits, and comes in when there is one. Those of the tests before, and of nng, are closed
 * by threads of their own, whenever that is: who came in by one of them goes, it is taken, too, and the next one comes. */
static void test_accept_errors(void **state)
{
	struct rlimit before, few;
	int fd = raw_socket(), first = dup(fd), taken[DESCRIPTORS];
	size_t count = 0;

	(void)state;
	edge_ping();
	house_wait(&edge_stats()->connections, 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	few = before;
	few.rlim_cur = DESCRIPTORS;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	count = hoard(first, taken, count);
	raw_dial(fd);
	while (edge_get(&edge_stats()->receive_errors) < 3) { /* it is tried again and again */
		if (atomic_load(&edge_stats()->connections) == 1) {
			close(fd);
			fd = raw_socket();
			house_wait(&edge_stats()->connections, 0);
			count = hoard(first, taken, count);
			raw_dial(fd);
		}
		usleep(1000);
	}
	while (count > 0)
		close(taken[--count]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	close(first);
	raw_greet(fd);
	raw_ping(fd);
	close(fd);
	edge_expect_empty();
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
	raw_write(fds[4], edge_greeting, 3);
	fds[5] = raw_connect();
	raw_ping(fds[5]);
	house_wait(&house_seen.held, 1);
	ty_actor_stop(house.service->rpc);
	for (int i = 0; i < 6; i++)
		raw_closed(fds[i]);
	house_release(house.engine);
	house_wait(&house_seen.held, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WITH(connections, few_connections),
		TEST_WITH(requests_of_a_connection, few_requests),
		TEST_WITH(no_exchange, no_exchanges),
		TEST(many_at_once),
		TEST_WITH(client_that_does_not_read, impatient),
		TEST_WITH(no_room_for_replies, little_room),
		TEST_WITH(no_room_for_requests, little_room_for_requests),
		TEST_WITH(no_room_for_frames, little_room_for_frames),
		TEST(answers_for_nobody),
		TEST(shutdown),
		TEST(accept_errors),
		TEST(stop),
		TEST_TCP(many_at_once),
		TEST_TCP(accept_errors),
		TEST_TCP(answers_for_nobody),
		TEST_TCP(shutdown),
		TEST_TCP(stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
