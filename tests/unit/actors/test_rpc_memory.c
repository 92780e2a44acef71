/* SPDX-License-Identifier: Apache-2.0
 *
 * The edge without memory for replies (the program is linked with --wrap): whoever asked hears of it.
 */
#include "edge_house.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Atomic bool no_memory;    /* for replies ... */
static _Atomic bool for_anything; /* ... and for all else that rpc's thread allocates */
static _Thread_local bool packs;  /* asked for a reply's size: its frame comes next */

size_t __real_tyer__v1__reply__get_packed_size(const Tyer__V1__Reply *reply);
size_t __wrap_tyer__v1__reply__get_packed_size(const Tyer__V1__Reply *reply);
size_t __wrap_tyer__v1__reply__get_packed_size(const Tyer__V1__Reply *reply)
{
	packs = true;
	return __real_tyer__v1__reply__get_packed_size(reply);
}

static bool is_rpc(void)
{
	char name[16];

	return pthread_getname_np(pthread_self(), name, sizeof name) == 0 && strcmp(name, "rpc") == 0;
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
	bool frame = packs;

	packs = false;
	if ((frame && atomic_load(&no_memory)) || (atomic_load(&for_anything) && is_rpc()))
		return NULL;
	return __real_malloc(size);
}

static int set_up(void **state)
{
	atomic_store(&no_memory, false);
	atomic_store(&for_anything, false);
	return edge_set_up(state);
}

#define TEST_HERE(name) cmocka_unit_test_setup_teardown(test_##name, set_up, edge_tear_down)

static void send_status(int fd)
{
	static const uint8_t status_bytes[] = {0x08, 0x01, 0x5a, 0x00}; /* version 1, STATUS */
	uint8_t bytes[64];

	raw_write(fd, bytes, raw_frame(bytes, "\x80\0\0\7", 1, status_bytes, sizeof status_bytes));
}

/* Short replies are what they are, a long one becomes a short one; and what was used is there again for the next. */
static void test_short_replies(void **state)
{
	int fd = raw_connect();

	(void)state;
	atomic_store(&house_seen.status_bytes, 2000);
	atomic_store(&no_memory, true);
	for (int i = 0; i < 3; i++) {
		raw_ping(fd);
		send_status(fd);
		raw_expect(fd, "\x80\0\0\7", 1, TY_NO_MEMORY);
	}
	atomic_store(&house_seen.status_bytes, 20);
	send_status(fd);
	raw_expect(fd, "\x80\0\0\7", 1, TY_OK);
	assert_int_equal(edge_get(&edge_stats()->unsent), 0);
	atomic_store(&no_memory, false);
	raw_ping(fd);
	close(fd);
	edge_expect_empty();
}

/* The longest error that there is fits, too: a text that quotes what the client sent, and all hops in front. */
static void test_long_error(void **state)
{
	static const uint8_t trace[4 * TY_RPC_HOPS_MAX] = {[4 * TY_RPC_HOPS_MAX - 4] = 0x80};
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT;
	Tyer__V1__Unregister unregister = TYER__V1__UNREGISTER__INIT;
	uint8_t packed[64], bytes[128];
	int fd = raw_connect();

	(void)state;
	house_route(&house, ONE, house.engine);
	unregister.registration = COMPLAIN;
	request.version = 1;
	request.client = ONE;
	request.id = 5;
	request.verb_case = TYER__V1__REQUEST__VERB_UNREGISTER;
	request.unregister = &unregister;
	atomic_store(&no_memory, true);
	raw_write(fd, bytes, raw_frame(bytes, trace, TY_RPC_HOPS_MAX, packed, tyer__v1__request__pack(&request, packed)));
	raw_expect(fd, trace, TY_RPC_HOPS_MAX, TY_INVALID);
	close(fd);
	edge_expect_empty();
}

/* Nor is there any to read the request: that is not the client's fault. */
static void test_no_memory_at_all(void **state)
{
	int fd = raw_connect();
	uint8_t bytes[64];
	size_t size = edge_ping_frame(bytes, 7);

	(void)state;
	atomic_store(&for_anything, true);
	raw_write(fd, bytes, size);
	raw_expect(fd, "\x80\0\0\7", 1, TY_NO_MEMORY);
	atomic_store(&for_anything, false);
	raw_ping(fd);
	close(fd);
	edge_expect_empty();
}

/* Two at once: for the second there is nothing, and the connection ends. Another one goes on. */
static void test_no_reserve(void **state)
{
	int fd = raw_connect(), other = raw_connect();
	uint8_t bytes[128];
	size_t size = edge_ping_frame(bytes, 7);

	(void)state;
	size += edge_ping_frame(bytes + size, 8);
	atomic_store(&no_memory, true);
	raw_write(fd, bytes, size);
	raw_closed(fd);
	assert_int_equal(edge_get(&edge_stats()->unsent), 2);
	raw_ping(other);
	atomic_store(&no_memory, false);
	close(other);
	edge_expect_empty();
	fd = raw_connect(); /* in the memory of the first one */
	atomic_store(&no_memory, true);
	raw_ping(fd);
	atomic_store(&no_memory, false);
	close(fd);
	edge_expect_empty();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_HERE(short_replies),
		TEST_HERE(long_error),
		TEST_HERE(no_memory_at_all),
		TEST_HERE(no_reserve),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
