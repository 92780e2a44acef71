/* SPDX-License-Identifier: Apache-2.0 */
#include "edge_house.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/ports.h"

const uint8_t edge_greeting[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
const uint8_t edge_ping_bytes[4] = {0x08, 0x01, 0x52, 0x00};
struct house house;

int edge_set_up_with(void (*adjust)(struct ty_rpc_socket *))
{
	house_config(&house);
	house.adjust = adjust;
	house_open(&house, false);
	return 0;
}

int edge_set_up(void **state)
{
	(void)state;
	return edge_set_up_with(NULL);
}

int edge_tear_down(void **state)
{
	(void)state;
	house_close(&house);
	return 0;
}

struct ty_rpc_stats *edge_stats(void)
{
	return &house.service->rpc_stats;
}

uint64_t edge_get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void edge_wait_for(const _Atomic uint64_t *counter, uint64_t value)
{
	for (int i = 0; i < HOUSE_WAIT_MS && edge_get(counter) < value; i++)
		usleep(1000);
	assert_true(edge_get(counter) == value);
}

void edge_wait_for_least(const _Atomic uint64_t *counter, uint64_t value)
{
	for (int i = 0; i < HOUSE_WAIT_MS && edge_get(counter) < value; i++)
		usleep(1000);
	assert_true(edge_get(counter) >= value);
}

void edge_ping(void)
{
	nng_socket s = house_dial(&house);

	house_send_bytes(s, edge_ping_bytes, sizeof edge_ping_bytes);
	house_expect(house_receive(s), 0, TY_OK, "");
	nng_close(s);
}

void edge_expect_empty(void)
{
	house_wait(&edge_stats()->open, 0);
	house_wait(&edge_stats()->connections, 0);
}

void edge_send_long(nng_socket s, size_t length)
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

/* ---- the wire by hand ------------------------------------------------------------------------------------------------- */

bool edge_over_tcp(void)
{
	return strncmp(house.config.listen, "ipc", 3) != 0;
}

int raw_socket(void)
{
	struct timeval patience = {.tv_sec = HOUSE_WAIT_MS / 1000};
	int fd = socket(edge_over_tcp() ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
	return fd;
}

void raw_dial(int fd)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	if (edge_over_tcp()) {
		in.sin_port = htons((uint16_t)atoi(strrchr(house.config.listen, ':') + 1));
		assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof in), 0);
	} else {
		snprintf(un.sun_path, sizeof un.sun_path, "%s/tyer.sock", house.directory);
		assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof un), 0);
	}
}

int raw_open(void)
{
	int fd = raw_socket();

	raw_dial(fd);
	return fd;
}

void raw_write(int fd, const void *bytes, size_t length)
{
	const uint8_t *p = bytes;

	while (length > 0) {
		ssize_t n = send(fd, p, length, MSG_NOSIGNAL);

		assert_true(n > 0);
		p += n;
		length -= (size_t)n;
	}
}

void raw_read(int fd, void *bytes, size_t length)
{
	assert_int_equal(recv(fd, bytes, length, MSG_WAITALL), length);
}

void raw_greet(int fd)
{
	uint8_t theirs[8];

	raw_write(fd, edge_greeting, 8);
	raw_read(fd, theirs, 8);
	assert_memory_equal(theirs, "\0SP\0\0\x31\0\0", 8);
}

int raw_connect(void)
{
	int fd = raw_open();

	raw_greet(fd);
	return fd;
}

size_t raw_head(uint8_t *out, uint64_t length)
{
	size_t at = 0;

	if (!edge_over_tcp())
		out[at++] = 1;
	for (int i = 0; i < 8; i++)
		out[at++] = (uint8_t)(length >> (56 - 8 * i));
	return at;
}

size_t raw_frame(uint8_t *out, const void *trace, size_t hops, const void *bytes, size_t length)
{
	size_t at = raw_head(out, 4 * hops + length);

	memcpy(out + at, trace, 4 * hops);
	memcpy(out + at + 4 * hops, bytes, length);
	return at + 4 * hops + length;
}

size_t edge_ping_frame(uint8_t *out, uint32_t number)
{
	uint8_t trace[4] = {(uint8_t)(0x80 | number >> 24), (uint8_t)(number >> 16), (uint8_t)(number >> 8), (uint8_t)number};

	return raw_frame(out, trace, 1, edge_ping_bytes, sizeof edge_ping_bytes);
}

void raw_expect(int fd, const void *trace, size_t hops, enum ty_code code)
{
	size_t head = edge_over_tcp() ? 8 : 9, length;
	uint8_t bytes[1024];
	Tyer__V1__Reply *reply;

	raw_read(fd, bytes, head);
	if (!edge_over_tcp())
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

void raw_ping(int fd)
{
	uint8_t bytes[64];

	raw_write(fd, bytes, edge_ping_frame(bytes, 7));
	raw_expect(fd, "\x80\0\0\7", 1, TY_OK);
}

int raw_connect_in_time(void)
{
	uint8_t theirs[8], bytes[64];
	size_t size = edge_ping_frame(bytes, 7);

	for (int i = 0; i < 1000; i++) {
		int fd = raw_open();

		if (send(fd, edge_greeting, 8, MSG_NOSIGNAL) == 8 && recv(fd, theirs, 8, MSG_WAITALL) == 8 &&
			send(fd, bytes, size, MSG_NOSIGNAL) == (ssize_t)size && recv(fd, theirs, 1, MSG_PEEK) == 1) {
			raw_expect(fd, "\x80\0\0\7", 1, TY_OK);
			return fd;
		}
		close(fd);
	}
	fail_msg("not one of a thousand clients was in time");
	return -1;
}

void raw_closed(int fd)
{
	char bytes[4096];
	ssize_t n;

	do
		n = recv(fd, bytes, sizeof bytes, 0);
	while (n > 0);
	assert_true(n == 0 || errno != EAGAIN);
	close(fd);
}

void raw_hold(int fd, uint64_t id)
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

/* ---- tcp -------------------------------------------------------------------------------------------------------------- */

int edge_set_up_tcp(void **state)
{
	uint16_t port = ports_take();

	(void)state;
	assert_int_not_equal(port, 0);
	house_config(&house);
	house.config.tcp_insecure = 1;
	snprintf(house.config.listen, sizeof house.config.listen, "tcp://127.0.0.1:%u", port);
	house_open(&house, false);
	return 0;
}

static void impatient(struct ty_rpc_socket *socket)
{
	socket->edge.limits.frame_ms = SHORT_MS;
}

int set_up_impatient(void **state)
{
	(void)state;
	return edge_set_up_with(impatient);
}
