/* SPDX-License-Identifier: Apache-2.0
 *
 * What comes over an attach connection once it is welcomed: descriptors, and what is none; and what happens when there are none left.
 */
#include "house.h"
#include "base/descriptors.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_descriptors),
		cmocka_unit_test(test_violations),
		cmocka_unit_test(test_out_of_descriptors),
		cmocka_unit_test(test_descriptors_that_linger),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
