/* SPDX-License-Identifier: Apache-2.0
 *
 * The pages that the supervisor answers: what is said, and that no peer keeps it from others. The clock is the test's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tools/tyerd/pages.h"

#define WHY "restarting: the last worker ended (signal 9 (Killed)); the next one starts in 400 ms"

static struct ty_pages pages;
static struct sockaddr_in address;
static int listener;
static int64_t now;

static int set_up(void **state)
{
	socklen_t length = sizeof address;

	(void)state;
	now = 1000;
	ty_pages_open(&pages);
	address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	return bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64) ||
	       getsockname(listener, (struct sockaddr *)&address, &length);
}

static int tear_down(void **state)
{
	(void)state;
	now += TY_PAGES_MS;
	ty_pages_serve(&pages, -1, now, WHY, 7);
	for (unsigned i = 0; i < TY_PAGES_CONNECTIONS; i++)
		assert_int_equal(pages.connections[i].fd, -1);
	return close(listener);
}

static int dial(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
	return fd;
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* As the supervisor does it, until nothing more happens by itself. */
static void serve(void)
{
	struct pollfd polled[TY_PAGES_POLLED];

	do {
		ty_pages_serve(&pages, listener, now, WHY, 7);
		(void)ty_pages_poll(&pages, listener, now, polled);
	} while (poll(polled, TY_PAGES_POLLED, 20) > 0);
}

/* Everything up to the end that the peer made. */
static const char *heard(int fd)
{
	static char text[4096];
	size_t used = 0;
	ssize_t n;

	while ((n = recv(fd, text + used, sizeof text - 1 - used, 0)) > 0)
		used += (size_t)n;
	text[used] = '\0';
	return text;
}

static void expect(const char *request, const char *begins, const char *contains)
{
	int fd = dial();
	const char *said;

	say(fd, request);
	serve();
	said = heard(fd);
	if (strncmp(said, begins, strlen(begins)) != 0 || !strstr(said, contains))
		fail_msg("%s: \"%s\" does not begin \"%s\" and contain \"%s\"", request, said, begins, contains);
	close(fd);
}

static void test_what_is_said(void **state)
{
	(void)state;
	expect("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 503 ", "\r\n\r\n" WHY "\n");
	expect("GET /readyz HTTP/1.0\n\n", "HTTP/1.1 503 ", "\r\n\r\n" WHY "\n");
	expect("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 503 ", WHY);
	expect("GET /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 200 ", "\ntyer_healthy 0\n");
	expect("GET /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 200 ", "\ntyer_restarts_total 7\n# EOF\n");
	expect("GET /metrics/but/longer/than/any HTTP/1.1\r\n\r\n", "HTTP/1.1 503 ", WHY);
	expect("POST /healthz HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 405 ", "Allow: GET, HEAD\r\n");
	expect("DELETED/healthz\r\n\r\n", "HTTP/1.1 405 ", "GET and HEAD only\n");
	expect("\n\n", "HTTP/1.1 405 ", "GET and HEAD only\n");
}

static void test_head(void **state)
{
	int fd = dial();
	const char *said;

	(void)state;
	say(fd, "HEAD /healthz HTTP/1.1\r\n\r\n");
	serve();
	said = heard(fd);
	assert_non_null(strstr(said, "Content-Length: "));
	assert_string_equal(strstr(said, "\r\n\r\n"), "\r\n\r\n");
	close(fd);
}

static void test_byte_by_byte(void **state)
{
	int fd = dial();

	(void)state;
	for (const char *at = "GET /healthz HTTP/1.1\r\nA: b\r\n\r\n"; *at; at++) {
		char byte[2] = {*at, '\0'};

		say(fd, byte);
		serve();
	}
	assert_non_null(strstr(heard(fd), WHY));
	close(fd);
}

/* A request without an end is answered all the same; one that says nothing is closed in time, and others had to wait no longer. */
static void test_rude_ones(void **state)
{
	char much[1025];
	int silent[TY_PAGES_CONNECTIONS], fd = dial(), later;

	(void)state;
	memset(much, 'x', sizeof much - 1);
	much[sizeof much - 1] = '\0';
	for (int i = 0; i < 20; i++) {
		say(fd, much);
		serve();
	}
	assert_int_equal(strncmp(heard(fd), "HTTP/1.1 405 ", 13), 0);
	close(fd);
	serve();
	for (unsigned i = 0; i < TY_PAGES_CONNECTIONS; i++) {
		silent[i] = dial();
		serve();
	}
	later = dial();
	say(later, "GET /healthz HTTP/1.1\r\n\r\n");
	serve();
	assert_int_equal(recv(later, much, 1, MSG_DONTWAIT), -1);
	now += TY_PAGES_MS;
	serve();
	serve();
	assert_non_null(strstr(heard(later), WHY));
	for (unsigned i = 0; i < TY_PAGES_CONNECTIONS; i++) {
		assert_int_equal(recv(silent[i], much, 1, 0), 0);
		close(silent[i]);
	}
	close(later);
}

/* Somebody else accepts: those that are here are answered, no new ones taken. And without a socket at all nothing happens. */
static void test_not_its_turn(void **state)
{
	struct pollfd polled[TY_PAGES_POLLED];
	int here = dial(), other;

	(void)state;
	serve();
	other = dial();
	say(here, "GET /healthz HTTP/1.1\r\n\r\n");
	say(other, "GET /healthz HTTP/1.1\r\n\r\n");
	assert_int_equal(ty_pages_poll(&pages, -1, now, polled), now + TY_PAGES_MS);
	assert_int_equal(poll(polled, TY_PAGES_POLLED, -1), 1);
	ty_pages_serve(&pages, -1, now, WHY, 7);
	assert_non_null(strstr(heard(here), WHY));
	assert_int_equal(recv(other, &(char){0}, 1, MSG_DONTWAIT), -1);
	close(here);
	close(other);
}

/* It cannot accept: it looks again later, and does not spin. */
static void test_deaf_for_a_while(void **state)
{
	struct pollfd polled[TY_PAGES_POLLED];
	int plain = socket(AF_INET, SOCK_DGRAM, 0);

	(void)state;
	ty_pages_serve(&pages, plain, now, WHY, 7);
	assert_int_equal(ty_pages_poll(&pages, plain, now, polled), pages.deaf_until);
	assert_true(pages.deaf_until > now);
	assert_int_equal(polled[TY_PAGES_CONNECTIONS].fd, -1);
	now = pages.deaf_until;
	assert_int_equal(ty_pages_poll(&pages, plain, now, polled), INT64_MAX);
	assert_int_equal(polled[TY_PAGES_CONNECTIONS].fd, plain);
	close(plain);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_what_is_said, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_head, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_byte_by_byte, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_rude_ones, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_not_its_turn, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_deaf_for_a_while, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
