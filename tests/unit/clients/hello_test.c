/* SPDX-License-Identifier: Apache-2.0
 *
 * HELLO: who may say it, what is wrong with one, and which engine it leads to.
 */
#include "house.h"
#include "actors/clients_state.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void test_hello(void **state)
{
	struct hello hello = {.name = "rank 0"}, again, stranger;
	uint8_t token[TOKEN], wrong[TOKEN] = {0};
	const struct ty_client_slot *slot;
	struct house h;
	int fd;

	(void)state;
	house_open(&h, 8, true);
	fd = house_attach(&h, token);
	hello.token = token;
	assert_int_equal(house_hello(&h, &hello), TY_OK);
	assert_int_equal(hello.devices, 1);
	assert_string_equal(hello.device, "host");
	assert_int_equal(hello.chunk_tokens, 256);
	assert_int_equal(hello.max_chunk_bytes, TY_PIECE_BYTES);
	assert_int_equal(hello.client & 0xffff, 1);
	slot = &h.service->client_slots[0];
	assert_int_equal(atomic_load_explicit(&slot->state, memory_order_acquire), 2);
	assert_int_equal(slot->number, hello.client);
	assert_string_equal(slot->name, "rank 0");
	assert_string_equal(slot->tenant, "t");
	assert_string_equal(slot->model, "m");
	assert_int_equal(house_actors(&h), 1);

	again = (struct hello){.token = token};
	house_hello(&h, &again);
	house_expect(&again, TY_EXISTS, "HELLO already");
	stranger = (struct hello){.token = wrong};
	house_hello(&h, &stranger);
	house_expect(&stranger, TY_DENIED, "Hello.token");
	stranger = (struct hello){.token = token, .token_bytes = TOKEN - 1};
	house_hello(&h, &stranger);
	house_expect(&stranger, TY_DENIED, "Hello.token");

	close(fd);
	house_wait_ends(&h, 1);
	assert_int_equal(atomic_load(&slot->state), 0);
	assert_int_equal(house_actors(&h), 1); /* its engine is kept for a while */
	/* the token died with its connection */
	again = (struct hello){.token = token};
	house_hello(&h, &again);
	house_expect(&again, TY_DENIED, "Hello.token");
	house_close(&h);
}

/* A client that comes back sends its page over one socket and HELLO over another: they are taken in that order. */
static void test_timeline_before_hello(void **state)
{
	static const struct ty_attach_frame timeline = {.type = TY_ATTACH_TIMELINE};
	struct ty_attach_frame frame;
	struct house h;
	int fd, page_fd;

	(void)state;
	house_open(&h, 8, true);
	for (uint32_t i = 1; i <= 1000; i++) {
		struct hello hello = {.token = NULL};
		uint8_t token[TOKEN];

		fd = house_connect(&h);
		assert_int_equal(house_recv(fd, &frame, &page_fd), TY_OK);
		memcpy(token, frame.welcome.token, TOKEN);
		hello.token = token;
		assert_int_equal(ty_attach_send(fd, &timeline, page_fd, NULL), TY_OK);
		close(page_fd);
		assert_int_equal(house_hello(&h, &hello), TY_OK);
		shutdown(fd, SHUT_WR);
		assert_int_equal(house_refused(fd), TY_CLOSED);
		house_wait_ends(&h, i);
	}
	house_close(&h);
}

static void test_bad_hellos(void **state)
{
	static const uint8_t zero[16];
	uint8_t token[TOKEN];
	char name[66];
	struct hello good = {.token = token};
	struct house h;
	int fd;

	(void)state;
	memset(name, 'n', 65);
	name[65] = '\0';
	house_open(&h, 8, true);
	fd = house_attach(&h, token);
	const struct {
		struct hello hello;
		const char *words;
	} cases[] = {
		{{.token = token, .engine = zero}, "Hello.engine is all zero"},
		{{.token = token, .engine_bytes = 15}, "Hello.engine has 15 bytes"},
		{{.token = token, .no_namespace = true}, "Hello.namespace"},
		{{.token = token, .name = name}, "Hello.name is 65 bytes"},
		{{.token = token, .name = "a\x1b[2J"}, "Hello.name"},
		{{.token = token, .name = "\xc0\x80"}, "Hello.name is no UTF-8"},
		{{.token = token, .model = ""}, "model"},
		{{.token = token, .tenant = "a\nb"}, "tenant"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct hello bad;

		memcpy(&bad, &cases[i].hello, sizeof bad);
		house_hello(&h, &bad);
		house_expect(&bad, TY_INVALID, cases[i].words);
	}
	assert_int_equal(house_actors(&h), 0);
	assert_int_equal(house_hello(&h, &good), TY_OK); /* none of these did any harm */
	close(fd);
	house_close(&h);
}

/* When all namespaces are known a new one has no number, and nobody could hold its tenant to a quota. */
static void test_no_namespace_left(void **state)
{
	static const uint8_t other[16] = {0xaa, 1}; /* an engine: the first one's client may not have left yet */
	uint8_t token[TOKEN];
	struct hello known = {.token = token, .tenant = "t"}, new = {.token = token, .engine = other, .tenant = "another"}, again = new;
	struct ty_identity identity;
	char model[16];
	struct house h;
	int fd;

	(void)state;
	house_open(&h, 8, true);
	fd = house_attach(&h, token);
	assert_int_equal(house_hello(&h, &known), TY_OK);
	close(fd);
	for (unsigned i = 0; i < TY_MAX_SPACES; i++) {
		snprintf(model, sizeof model, "%u", i);
		assert_int_equal(ty_identity_set(&identity, "t", model, NULL, "bf16", NULL, NULL), TY_OK);
		(void)ty_spaces_number(&h.service->spaces, &identity);
	}
	atomic_store(&h.service->eviction_stats.quotas, 1);
	fd = house_attach(&h, token);
	house_hello(&h, &new);
	house_expect(&new, TY_LIMIT, "4096 namespaces may be known");
	known.client = 0;
	assert_int_equal(house_hello(&h, &known), TY_OK);
	close(fd);
	atomic_store(&h.service->eviction_stats.quotas, 0);
	fd = house_attach(&h, token);
	assert_int_equal(house_hello(&h, &again), TY_OK);
	close(fd);
	house_close(&h);
}

/* ---- engines ----------------------------------------------------------------------------------------------------------- */

static void test_one_engine(void **state)
{
	static const uint8_t one[16] = {1}, two[16] = {2};
	uint8_t token[4][TOKEN];
	struct hello a = {.token = token[0], .engine = one}, b = {.token = token[1], .engine = one},
		     other = {.token = token[2], .engine = two}, wrong = {.token = token[3], .engine = one, .tenant = "x"};
	struct house h;
	int fd[4];

	(void)state;
	house_open(&h, 8, true);
	for (int i = 0; i < 4; i++)
		fd[i] = house_attach(&h, token[i]);
	assert_int_equal(house_hello(&h, &a), TY_OK);
	assert_int_equal(house_hello(&h, &b), TY_OK);
	assert_int_equal(house_actors(&h), 1);
	assert_int_equal(house_hello(&h, &other), TY_OK);
	assert_int_equal(house_actors(&h), 2);
	house_hello(&h, &wrong);
	house_expect(&wrong, TY_INVALID, "Hello.namespace.tenant is \"x\"");
	close(fd[0]);
	close(fd[1]);
	close(fd[2]);
	house_wait_ends(&h, 3);
	/* who comes back to an engine without members finds the one there was */
	fd[0] = house_attach(&h, token[0]);
	a = (struct hello){.token = token[0], .engine = one};
	assert_int_equal(house_hello(&h, &a), TY_OK);
	assert_int_equal(house_actors(&h), 2);
	close(fd[0]);
	house_wait_ends(&h, 4);
	/* what was wrong for it while it had members is right for a new one of the same number */
	wrong = (struct hello){.token = token[3], .engine = one, .tenant = "x"};
	assert_int_equal(house_hello(&h, &wrong), TY_OK);
	assert_int_equal(house_actors(&h), 3);
	close(fd[3]);
	house_close(&h);
}

/* Engines without members are kept, but not without bound. */
static void test_idle_engines(void **state)
{
	struct house h;

	(void)state;
	house_open(&h, 8, true);
	for (uint8_t i = 0; i < TY_CLIENTS_LINGER_MAX + 20; i++) {
		uint8_t token[TOKEN], engine[16] = {3, i};
		struct hello hello = {.token = token, .engine = engine};
		int fd = house_attach(&h, token);

		assert_int_equal(house_hello(&h, &hello), TY_OK);
		close(fd);
		house_wait_ends(&h, i + 1u);
	}
	house_wait_actors(&h, TY_CLIENTS_LINGER_MAX);
	house_close(&h);
}

/* The connection ends while its route is on the way: CLOSED, and the route is taken back. */
static void test_ends_while_joining(void **state)
{
	uint8_t token[TOKEN];
	struct hello hello = {.token = token};
	struct house h;
	int fd;

	(void)state;
	house_open(&h, 8, true);
	fd = house_attach(&h, token);
	atomic_store(&h.hold, true);
	house_send_hello(&h, &hello);
	while (atomic_load(&h.held) == 0)
		poll(NULL, 0, 1);
	close(fd);
	while (atomic_load(&h.service->client_slots[0].state) != 0)
		poll(NULL, 0, 1);
	assert_false(atomic_load(&hello.answered));
	house_let_go(&h);
	house_wait_hello(&hello);
	house_expect(&hello, TY_CLOSED, "attach connection ended");
	house_wait_ends(&h, 1);
	assert_int_equal(atomic_load(&h.ends), 1);
	house_close(&h);
}

/* Until the devices are known HELLO waits, at most until its deadline. */
static void test_waits_for_devices(void **state)
{
	uint8_t token[3][TOKEN];
	struct hello first = {.token = token[0]}, late = {.token = token[1], .timeout_ns = 1000000}, last = {.token = token[2]};
	struct house h;
	int fd[3];

	(void)state;
	house_open(&h, 8, false);
	for (int i = 0; i < 3; i++)
		fd[i] = house_attach(&h, token[i]);
	house_send_hello(&h, &first);
	house_send_hello(&h, &late);
	house_send_hello(&h, &last);
	house_wait_hello(&late);
	house_expect(&late, TY_TIMEOUT, "0 of 1");
	assert_false(atomic_load(&first.answered));
	house_device(&h);
	house_wait_hello(&first);
	house_wait_hello(&last);
	assert_int_equal(first.code, TY_OK);
	assert_int_equal(last.code, TY_OK);
	assert_int_equal(last.devices, 1);
	for (int i = 0; i < 3; i++)
		close(fd[i]);
	house_close(&h);

	/* and when the service stops they are refused */
	house_open(&h, 8, false);
	fd[0] = house_attach(&h, token[0]);
	first = (struct hello){.token = token[0]};
	house_send_hello(&h, &first);
	house_stop(&h);
	house_wait_hello(&first);
	house_expect(&first, TY_STOPPING, "stopping");
	assert_int_equal(house_refused(fd[0]), TY_STOPPING);
	house_close(&h);
}

/* One that is not answered in time is as if it had not been said: the page may still be replaced, and another may be said; but only one at
 * a time. */
static void test_one_hello_at_a_time(void **state)
{
	struct hello hasty = {.timeout_ns = 1000000}, patient = {.token = NULL}, other = {.token = NULL};
	struct ty_attach_frame frame;
	uint8_t token[TOKEN];
	struct house h;
	int fd, page;

	(void)state;
	house_open(&h, 4, false);
	fd = house_connect(&h);
	assert_int_equal(house_recv(fd, &frame, &page), TY_OK);
	memcpy(token, frame.welcome.token, TOKEN);
	hasty.token = patient.token = other.token = token;
	house_hello(&h, &hasty);
	house_expect(&hasty, TY_TIMEOUT, "the devices are not all open yet");
	assert_int_equal(ty_attach_send(fd, &(struct ty_attach_frame){.type = TY_ATTACH_TIMELINE}, page, NULL), TY_OK);
	close(page);
	house_send_hello(&h, &patient);
	house_hello(&h, &other);
	house_expect(&other, TY_EXISTS, "waits already");
	house_device(&h);
	house_wait_hello(&patient);
	assert_int_equal(patient.code, TY_OK);
	close(fd);
	house_close(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hello),
		cmocka_unit_test(test_timeline_before_hello),
		cmocka_unit_test(test_bad_hellos),
		cmocka_unit_test(test_no_namespace_left),
		cmocka_unit_test(test_one_engine),
		cmocka_unit_test(test_idle_engines),
		cmocka_unit_test(test_ends_while_joining),
		cmocka_unit_test(test_waits_for_devices),
		cmocka_unit_test(test_one_hello_at_a_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
