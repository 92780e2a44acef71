/* SPDX-License-Identifier: Apache-2.0
 *
 * The clients actor from its two sides: attach connections, and HELLOs from rpc.
 */
#include "house.h"
#include "actors/clients_state.h"
#include "base/descriptors.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define TOKEN TY_ATTACH_TOKEN_BYTES

static void expect(const struct hello *hello, enum ty_code code, const char *words)
{
	if (hello->code != code || strstr(hello->error, words) == NULL)
		fail_msg("got %s \"%s\", expected %s \"%s\"", ty_code_name(hello->code), hello->error, ty_code_name(code), words);
}

/* ---- greeting ---------------------------------------------------------------------------------------------------------- */

static void test_welcome(void **state)
{
	struct ty_attach_frame frame;
	uint8_t token[TOKEN], other[TOKEN];
	struct house h;
	struct stat st;
	void *page;
	int fd, second, page_fd;

	(void)state;
	house_open(&h, 8, true);
	assert_int_equal(stat(h.config.attach, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	fd = house_connect(&h);
	assert_int_equal(house_recv(fd, &frame, &page_fd), TY_OK);
	assert_int_equal(frame.type, TY_ATTACH_WELCOME);
	assert_int_equal(frame.welcome.boot, 0xb007);
	memcpy(token, frame.welcome.token, TOKEN);
	assert_int_equal(fcntl(page_fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	assert_int_equal(ftruncate(page_fd, 8192), -1);
	assert_int_equal(ftruncate(page_fd, 0), -1);
	assert_int_equal(ty_attach_timeline_map(page_fd, &page, NULL), TY_OK);
	ty_attach_timeline_unmap(page);
	close(page_fd);
	second = house_attach(&h, other);
	assert_memory_not_equal(token, other, TOKEN);
	assert_int_equal(atomic_load(&h.service->client_slots[0].state), 1);
	assert_int_equal(h.service->client_slots[0].pid, getpid());
	close(fd);
	close(second);
	house_close(&h);
}

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
	expect(&again, TY_EXISTS, "HELLO already");
	stranger = (struct hello){.token = wrong};
	house_hello(&h, &stranger);
	expect(&stranger, TY_DENIED, "Hello.token");
	stranger = (struct hello){.token = token, .token_bytes = TOKEN - 1};
	house_hello(&h, &stranger);
	expect(&stranger, TY_DENIED, "Hello.token");

	close(fd);
	house_wait_ends(&h, 1);
	assert_int_equal(atomic_load(&slot->state), 0);
	assert_int_equal(house_actors(&h), 1); /* its engine is kept for a while */
	/* the token died with its connection */
	again = (struct hello){.token = token};
	house_hello(&h, &again);
	expect(&again, TY_DENIED, "Hello.token");
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
		expect(&bad, TY_INVALID, cases[i].words);
	}
	assert_int_equal(house_actors(&h), 0);
	assert_int_equal(house_hello(&h, &good), TY_OK); /* none of these did any harm */
	close(fd);
	house_close(&h);
}

/* When all namespaces are known a new one has no number, and nobody could hold its tenant to a quota. */
static void test_no_namespace_left(void **state)
{
	uint8_t token[TOKEN];
	struct hello known = {.token = token, .tenant = "t"}, new = {.token = token, .tenant = "another"}, again = new;
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
	expect(&new, TY_LIMIT, "4096 namespaces may be known");
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
	expect(&wrong, TY_INVALID, "Hello.namespace.tenant is \"x\"");
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
	expect(&hello, TY_CLOSED, "attach connection ended");
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
	expect(&late, TY_TIMEOUT, "0 of 1");
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
	expect(&first, TY_STOPPING, "stopping");
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
	expect(&hasty, TY_TIMEOUT, "the devices are not all open yet");
	assert_int_equal(ty_attach_send(fd, &(struct ty_attach_frame){.type = TY_ATTACH_TIMELINE}, page, NULL), TY_OK);
	close(page);
	house_send_hello(&h, &patient);
	house_hello(&h, &other);
	expect(&other, TY_EXISTS, "waits already");
	house_device(&h);
	house_wait_hello(&patient);
	assert_int_equal(patient.code, TY_OK);
	close(fd);
	house_close(&h);
}

/* ---- limits and violations ---------------------------------------------------------------------------------------------- */

static void test_max_clients(void **state)
{
	uint8_t token[TOKEN];
	struct house h;
	int fd[3];

	(void)state;
	house_open(&h, 2, true);
	fd[0] = house_attach(&h, token);
	fd[1] = house_attach(&h, token);
	assert_int_equal(house_refused(house_connect(&h)), TY_LIMIT);
	close(fd[0]);
	while (atomic_load(&h.service->client_slots[0].state) != 0)
		poll(NULL, 0, 1);
	fd[2] = house_attach(&h, token);
	assert_int_equal(house_refused(house_connect(&h)), TY_LIMIT);
	close(fd[1]);
	close(fd[2]);
	house_close(&h);
}

static void send_descriptor(int socket, uint32_t number, int fd)
{
	struct ty_attach_frame frame = {.type = TY_ATTACH_DESCRIPTOR, .descriptor.number = number};
	int none;

	assert_int_equal(ty_attach_send(socket, &frame, fd, NULL), TY_OK);
	assert_int_equal(house_recv(socket, &frame, &none), TY_OK);
	assert_int_equal(frame.type, TY_ATTACH_DESCRIPTOR_OK);
	assert_int_equal(frame.descriptor_ok.number, number);
	assert_int_equal(frame.descriptor_ok.code, TY_OK);
}

/* Does anybody hold the pipe's other end? Waits for the answer that is expected. */
static void expect_held(int pipe_fd, bool held)
{
	struct pollfd p = {.fd = pipe_fd, .events = POLLIN};

	if (held)
		assert_int_equal(poll(&p, 1, 0), 0);
	else
		assert_int_equal(poll(&p, 1, 30000), 1);
}

/* A descriptor that nobody took is closed with its connection; one that is sent again under its number replaces it. */
static void test_descriptors(void **state)
{
	uint8_t token[TOKEN];
	struct hello hello = {.token = token};
	struct house h;
	int fd, a[2], b[2];

	(void)state;
	house_open(&h, 2, true);
	assert_int_equal(pipe2(a, O_CLOEXEC), 0);
	assert_int_equal(pipe2(b, O_CLOEXEC), 0);
	fd = house_attach(&h, token);
	send_descriptor(fd, 63, a[1]);
	close(a[1]);
	expect_held(a[0], true);
	send_descriptor(fd, 63, b[1]);
	close(b[1]);
	expect_held(a[0], false);
	expect_held(b[0], true);
	assert_int_equal(house_hello(&h, &hello), TY_OK);
	expect_held(b[0], true);
	close(fd);
	expect_held(b[0], false);
	close(a[0]);
	close(b[0]);
	house_close(&h);
}

static void send_raw(int socket, const void *bytes, size_t length, const int *fds, size_t fd_count)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(8 * sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	memset(&control, 0, sizeof control);
	if (fd_count > 0) {
		struct cmsghdr *c;

		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
	}
	assert_int_equal(sendmsg(socket, &msg, 0), length);
}

/* Each ends its connection, closes what came with it, and disturbs nobody. */
static void test_violations(void **state)
{
	struct ty_attach_frame descriptor = {.type = TY_ATTACH_DESCRIPTOR}, welcome = {.type = TY_ATTACH_WELCOME};
	uint8_t bytes[TY_ATTACH_FRAME_MAX], big[4096] = {0}, token[TOKEN], good[TOKEN];
	struct hello hello = {.token = good};
	struct house h;
	int bystander, fd, p[2], many[6];
	size_t length;

	(void)state;
	house_open(&h, 4, true);
	bystander = house_attach(&h, good);
	for (int kind = 0; kind < 7; kind++) {
		assert_int_equal(pipe2(p, O_CLOEXEC), 0);
		for (int i = 0; i < 6; i++)
			many[i] = p[1];
		fd = house_attach(&h, token);
		length = ty_attach_encode(&descriptor, bytes);
		switch (kind) {
		case 0: /* without its descriptor */
			send_raw(fd, bytes, length, NULL, 0);
			break;
		case 1: /* with two */
			send_raw(fd, bytes, length, many, 2);
			break;
		case 2: /* with more than there is room for */
			send_raw(fd, bytes, length, many, 6);
			break;
		case 3: /* a frame of the service's */
			length = ty_attach_encode(&welcome, bytes);
			send_raw(fd, bytes, length, many, 1);
			break;
		case 4:
			send_raw(fd, "GET / HTTP/1.1\r\n\r\n", 18, many, 1);
			break;
		case 5:
			send_raw(fd, big, sizeof big, many, 1);
			break;
		case 6: /* number 1024 and more */
			bytes[TY_ATTACH_HEADER_BYTES + 1] = 4;
			send_raw(fd, bytes, length, many, 1);
			break;
		}
		close(p[1]);
		assert_int_equal(house_refused(fd), TY_PROTOCOL);
		expect_held(p[0], false);
		close(p[0]);
	}
	assert_int_equal(house_hello(&h, &hello), TY_OK);
	close(bystander);
	house_close(&h);
}

/* A TCP socket whose close waits for an hour: for bytes that nobody reads. `reader` is the end that does not. */
static int lingering(int *reader)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct linger linger = {.l_onoff = 1, .l_linger = 3600};
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 1;
	static const char bytes[65536];
	socklen_t length = sizeof address;

	assert_int_equal(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
	*reader = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(*reader >= 0);
	while (send(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
		;
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
	close(listener);
	return fd;
}

/* Descriptors that nobody can close in his lifetime, in all ways in which one can be sent: the actor does not wait for any of them. */
static void test_descriptors_that_linger(void **state)
{
	struct ty_attach_frame descriptor = {.type = TY_ATTACH_DESCRIPTOR}, answer;
	uint8_t bytes[TY_ATTACH_FRAME_MAX], token[TOKEN];
	struct house h;
	int fd, reader[5], lingers, many[6], none, closer; /* of our copies, one of which may be the last */
	size_t length;

	(void)state;
	house_open(&h, 4, true);
	assert_int_equal(ty_closer_open(&closer, NULL), TY_OK);
	for (int way = 0; way < 5; way++) {
		struct hello hello = {.token = token};

		fd = house_attach(&h, token);
		lingers = lingering(&reader[way]);
		for (int i = 0; i < 6; i++)
			many[i] = lingers;
		length = ty_attach_encode(&descriptor, bytes);
		switch (way) {
		case 0: /* as it should be: it is refused */
			assert_int_equal(ty_attach_send(fd, &descriptor, lingers, NULL), TY_OK);
			assert_true(ty_closer_take(closer, lingers));
			assert_int_equal(house_recv(fd, &answer, &none), TY_OK);
			assert_int_equal(answer.type, TY_ATTACH_DESCRIPTOR_OK);
			assert_int_equal(answer.descriptor_ok.code, TY_INVALID);
			assert_int_equal(house_hello(&h, &hello), TY_OK); /* and the client goes on */
			break;
		case 1: /* as a timeline */
			assert_int_equal(ty_attach_send(fd, &(struct ty_attach_frame){.type = TY_ATTACH_TIMELINE}, lingers, NULL), TY_OK);
			assert_true(ty_closer_take(closer, lingers));
			break;
		case 2: /* beside nonsense */
			send_raw(fd, "junk", 4, many, 1);
			assert_true(ty_closer_take(closer, lingers));
			break;
		case 3: /* several */
			send_raw(fd, bytes, length, many, 6);
			assert_true(ty_closer_take(closer, lingers));
			break;
		case 4: /* behind a violation: nobody receives it */
			send_raw(fd, "junk", 4, many, 0);
			(void)!ty_attach_send(fd, &descriptor, lingers, NULL); /* too late, at times */
			assert_true(ty_closer_take(closer, lingers));
			break;
		}
		if (way > 0) {
			enum ty_code code = house_refused(fd);

			/* what lies unread when it is closed takes the reason from its reader */
			assert_true(code == TY_PROTOCOL || (way == 4 && code == TY_CLOSED));
			fd = house_attach(&h, token); /* somebody else is served */
			assert_int_equal(house_hello(&h, &hello), TY_OK);
		}
		close(fd);
	}
	house_close(&h);
	ty_closer_close(closer);
	for (int way = 0; way < 5; way++)
		close(reader[way]); /* whoever waits for them is let go */
}

static _Atomic uint32_t lines;

static bool count_line(const char *text, size_t length)
{
	(void)length;
	lines += strstr(text, " is gone: ") != NULL;
	return true;
}

/* Whoever comes and goes in a loop does not fill the log, however slow or fast. */
static void test_lines(void **state)
{
	enum { MANY = 5 * TY_CLIENTS_LINES };
	struct house h;
	int64_t began;
	uint64_t seconds;

	(void)state;
	house_open(&h, 4, true);
	ty_log_set_sink(count_line);
	atomic_store(&lines, 0);
	began = ty_runtime_now(h.service->rt);
	for (int i = 0; i < MANY; i++) {
		uint8_t token[TOKEN];

		close(house_attach(&h, token));
		while (atomic_load(&h.service->client_slots[i % TY_MAX_CLIENTS].state) != 0)
			poll(NULL, 0, 0);
	}
	seconds = (uint64_t)(ty_runtime_now(h.service->rt) - began) / 1000000000;
	house_stop(&h);
	ty_log_set_sink(NULL);
	assert_in_range(atomic_load(&lines), 1, TY_CLIENTS_LINES * (seconds + 2));
	if (seconds < 2)
		assert_true(atomic_load(&lines) < MANY);
	house_close(&h);
}

/* No descriptor left: a connection is dropped, not left in the backlog; with descriptors it works again. */
static void test_out_of_descriptors(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct rlimit limit, small;
	uint8_t token[TOKEN];
	struct hello hello = {.token = token};
	struct house h;
	struct ty_attach_frame frame;
	int fd[2], next, page;

	(void)state;
	house_open(&h, 4, true);
	memcpy(address.sun_path, h.config.attach, strlen(h.config.attach));
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	fd[0] = house_attach(&h, token);
	/* when this is answered the actor has closed all that greeting opened */
	assert_int_equal(house_hello(&h, &hello), TY_OK);
	fd[1] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	next = dup(0); /* all below are taken */
	close(next);
	small = (struct rlimit){.rlim_cur = (rlim_t)next, .rlim_max = limit.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
	assert_int_equal(connect(fd[1], (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(house_refused(fd[1]), TY_CLOSED);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	while (atomic_load(&h.service->clients_stats.dropped) != 1) /* counted when it is closed */
		poll(NULL, 0, 1);
	/* the actor may have looked for the next one already, in vain, and takes this one for it */
	while (house_recv(fd[1] = house_connect(&h), &frame, &page) != TY_OK)
		close(fd[1]);
	assert_int_equal(frame.type, TY_ATTACH_WELCOME);
	close(page);
	close(fd[0]);
	close(fd[1]);
	house_close(&h);
}

/* ---- start and stop ---------------------------------------------------------------------------------------------------- */

static void test_stop(void **state)
{
	uint8_t token[2][TOKEN];
	struct hello hello = {.token = token[0]}, late = {.token = token[1]};
	struct house h;
	int fd[2];

	(void)state;
	house_open(&h, 4, true);
	fd[0] = house_attach(&h, token[0]);
	fd[1] = house_attach(&h, token[1]);
	assert_int_equal(house_hello(&h, &hello), TY_OK);
	house_stop(&h);
	house_wait_actors(&h, 0); /* the engine is asked to stop before `stopped` is called, and ends on its own thread */
	assert_int_equal(atomic_load(&h.ends), 1);
	assert_int_equal(house_refused(fd[0]), TY_STOPPING);
	assert_int_equal(house_refused(fd[1]), TY_STOPPING);
	house_hello(&h, &late);
	expect(&late, TY_STOPPING, "stopping");
	house_close(&h);
}

static void test_listen(void **state)
{
	struct ty_clients_socket *socket_a, *socket_b;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct ty_service *service = calloc(1, sizeof *service);
	char directory[] = "/tmp/tyer-clients-test-XXXXXX";
	struct ty_config config = {0};
	struct ty_error err;
	struct stat st;
	int fd;

	(void)state;
	service->config = &config;
	assert_non_null(mkdtemp(directory));
	snprintf(config.attach, sizeof config.attach, "%s/run/attach", directory); /* makes `run` */
	assert_int_equal(ty_clients_listen(service, &socket_a, &err), TY_OK);
	assert_int_equal(ty_clients_listen(service, &socket_b, &err), TY_EXISTS);
	assert_non_null(strstr(err.text, "address in use"));
	assert_null(socket_b);
	assert_int_equal(stat(config.attach, &st), 0); /* it did not take the living one's away */
	ty_clients_close(socket_a);
	assert_int_equal(stat(config.attach, &st), -1);

	/* what a dead server left */
	memcpy(address.sun_path, config.attach, strlen(config.attach));
	fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	close(fd);
	assert_int_equal(ty_clients_listen(service, &socket_a, &err), TY_OK);
	/* somebody else's file at our path stays */
	assert_int_equal(unlink(config.attach), 0);
	fd = open(config.attach, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close(fd);
	ty_clients_close(socket_a);
	assert_int_equal(ty_clients_listen(service, &socket_a, &err), TY_EXISTS);
	assert_non_null(strstr(err.text, "no socket"));
	assert_int_equal(unlink(config.attach), 0);

	/* a socket of another kind that is alive */
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(ty_clients_listen(service, &socket_a, &err), TY_EXISTS);
	close(fd);
	assert_int_equal(unlink(config.attach), 0);

	config.attach[0] = '\0';
	assert_int_equal(ty_clients_listen(service, &socket_a, &err), TY_INVALID);
	ty_clients_close(NULL);
	snprintf(config.attach, sizeof config.attach, "%s/run", directory);
	rmdir(config.attach);
	rmdir(directory);
	free(service);
}

/* Many that come and go, at every point of their life; slots and numbers come round. */
static void test_coming_and_going(void **state)
{
	struct house h;
	uint32_t joins = 0;
	uint64_t last = 0;

	(void)state;
	house_open(&h, 8, true);
	for (int i = 0; i < 300; i++) {
		uint8_t token[TOKEN], engine[16] = {1, (uint8_t)(i / 7)};
		struct hello hello = {.token = token, .engine = engine};
		int fd = house_connect(&h);

		if (i % 3 == 0) { /* before it is greeted */
			close(fd);
			continue;
		}
		close(fd);
		fd = house_attach(&h, token);
		if (i % 3 == 1) {
			house_send_hello(&h, &hello);
			close(fd); /* before it is answered, or not */
			house_wait_hello(&hello);
			assert_true(hello.code == TY_OK || hello.code == TY_CLOSED || hello.code == TY_DENIED);
			joins += hello.code != TY_DENIED;
			continue;
		}
		assert_int_equal(house_hello(&h, &hello), TY_OK);
		joins++;
		assert_int_not_equal(hello.client, last);
		last = hello.client;
		close(fd);
	}
	house_wait_ends(&h, joins);
	assert_int_equal(atomic_load(&h.routes), 2 * joins);
	house_close(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_welcome),
		cmocka_unit_test(test_hello),
		cmocka_unit_test(test_timeline_before_hello),
		cmocka_unit_test(test_bad_hellos),
		cmocka_unit_test(test_no_namespace_left),
		cmocka_unit_test(test_one_engine),
		cmocka_unit_test(test_idle_engines),
		cmocka_unit_test(test_ends_while_joining),
		cmocka_unit_test(test_waits_for_devices),
		cmocka_unit_test(test_one_hello_at_a_time),
		cmocka_unit_test(test_max_clients),
		cmocka_unit_test(test_descriptors),
		cmocka_unit_test(test_violations),
		cmocka_unit_test(test_out_of_descriptors),
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_descriptors_that_linger),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_listen),
		cmocka_unit_test(test_coming_and_going),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
