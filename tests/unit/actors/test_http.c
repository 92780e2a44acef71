/* SPDX-License-Identifier: Apache-2.0
 *
 * The HTTP server, spoken to byte by byte over TCP.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "rpc_house.h"

static struct house house;
static struct ty_http *http;

/* ---- metrics that take their time ------------------------------------------------------------------------------------ */

/* Holds every scrape until `patience` scrapes are there, or it is told to go on. */
struct slow {
	struct ty_scrape *held[8];
	unsigned count;
};
static _Atomic uint32_t slow_held;

struct go {
	struct ty_msg msg;
};

static void slow_scrape(void *self, struct ty_msg *msg)
{
	struct slow *slow = self;

	slow->held[slow->count++] = ty_container_of(msg, struct ty_scrape, msg);
	atomic_fetch_add(&slow_held, 1);
}

static void slow_go(void *self, struct ty_msg *msg)
{
	struct slow *slow = self;

	free(ty_container_of(msg, struct go, msg));
	while (slow->count > 0) {
		struct ty_scrape *scrape = slow->held[--slow->count];

		scrape->status = 200;
		scrape->type = "text/plain";
		scrape->body = strdup("slow but there\n");
		scrape->length = strlen(scrape->body);
		atomic_fetch_sub(&slow_held, 1);
		scrape->done(scrape);
	}
}

static const struct ty_handler slow_handlers[] = {{"scrape", slow_scrape}, {"go", slow_go}};
static const struct ty_class slow_class = {.name = "slow metrics",
	.state_size = sizeof(struct slow),
	.first_type = TY_METRICS_SCRAPE,
	.type_count = 2,
	.handlers = slow_handlers};

static void go_on(void)
{
	struct go *go = calloc(1, sizeof *go);

	assert_int_equal(ty_send(house.service->metrics, &go->msg, TY_METRICS_SCRAPE + 1), TY_OK);
}

/* ---- life ------------------------------------------------------------------------------------------------------------ */

static void start(void)
{
	struct ty_error err = {0};
	int listener;

	if (ty_http_listen("127.0.0.1:0", -1, &listener, &err) != TY_OK ||
		ty_http_start(house.service, "127.0.0.1:0", listener, &http, &err) != TY_OK)
		fail_msg("%s", err.text);
	assert_true(ty_http_port(http) > 0);
}

static int set_up(void **state)
{
	(void)state;
	house_config(&house);
	house_open(&house, true);
	start();
	return 0;
}

static int set_up_slow(void **state)
{
	struct ty_spawn_options options = {.size = sizeof options, .executor = TY_POOL, .cpu = -1};

	(void)state;
	house_config(&house);
	house_open(&house, true);
	ty_actor_unref(house.service->metrics);
	atomic_store(&slow_held, 0);
	assert_int_equal(ty_spawn(house.service->rt, &slow_class, NULL, &options, &house.service->metrics), TY_OK);
	start();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	ty_http_stop(http);
	http = NULL;
	house_close(&house);
	return 0;
}

/* ---- a client of bytes ----------------------------------------------------------------------------------------------- */

static int dial(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(ty_http_port(http))};
	struct timeval patience = {.tv_sec = HOUSE_WAIT_MS / 1000};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
	return fd;
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static char answer[1 << 20];

/* All until the server closes. */
static const char *hear(int fd)
{
	size_t n = 0;
	ssize_t got;

	while ((got = recv(fd, answer + n, sizeof answer - 1 - n, 0)) > 0)
		n += (size_t)got;
	assert_int_equal(got, 0);
	answer[n] = '\0';
	close(fd);
	return answer;
}

static const char *ask(const char *method, const char *path)
{
	char request[512];
	int fd = dial();

	snprintf(request, sizeof request, "%s %s HTTP/1.1\r\nHost: tyer\r\nConnection: close\r\n\r\n", method, path);
	say(fd, request);
	return hear(fd);
}

static void expect(const char *text, unsigned status, const char *has)
{
	char line[32];

	snprintf(line, sizeof line, "HTTP/1.1 %u ", status);
	if (strncmp(text, line, strlen(line)) != 0 || !strstr(text, has))
		fail_msg("expected %u with \"%s\", got: %.300s", status, has, text);
}

static const char *body_of(const char *text)
{
	const char *end = strstr(text, "\r\n\r\n");

	assert_non_null(end);
	return end + 4;
}

/* ---- tests ----------------------------------------------------------------------------------------------------------- */

static void test_pages(void **state)
{
	const char *text;

	(void)state;
	text = ask("GET", "/metrics");
	expect(text, 200, "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n");
	assert_string_equal(text + strlen(text) - 6, "# EOF\n");
	expect(text, 200, "\ntyer_requests_total{verb=\"PING\"} 0\n");
	expect(ask("GET", "/healthz"), 200, "\r\n\r\nok\n");
	expect(ask("GET", "/readyz"), 503, "no device serves");
	expect(ask("GET", "/status"), 200, "Content-Type: application/json\r\n");
	expect(ask("GET", "/"), 200, "<a href=\"/metrics\">");
	text = ask("GET", "/trace");
	expect(text, 200, "Content-Type: application/json\r\n");
	assert_non_null(strstr(body_of(text), "\"name\":\"scrape\"")); /* what made the pages before */
	assert_string_equal(text + strlen(text) - 3, "]}\n");
	expect(ask("GET", "/metrics?x=1"), 200, "# EOF");
	expect(ask("GET", "/metrics/"), 404, "no such page");
	expect(ask("GET", "/../etc/passwd"), 404, "no such page");
	expect(ask("POST", "/metrics"), 405, "Allow: GET, HEAD\r\n");
	expect(ask("DELETE", "/"), 405, "Allow: GET, HEAD\r\n");
	expect(ask("BREW", "/healthz"), 405, "Allow: GET, HEAD\r\n");
	atomic_store(&house.service->stopping, true);
	expect(ask("GET", "/healthz"), 503, "\r\n\r\nstopping\n");
}

static bool refuses_a_trace(void)
{
	const char *text = ask("GET", "/trace");

	return strncmp(text, "HTTP/1.1 503 ", 13) == 0 && strstr(text, "another trace is on its way");
}

/* Traces are large, and there is one at a time: who does not read his keeps others from theirs, and nothing else, until he goes. */
static void test_one_trace(void **state)
{
	static const char request[] = "GET /trace HTTP/1.1\r\nHost: tyer\r\n\r\n";
	int small = 4096, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(ty_http_port(http))};

	(void)state;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
	/* more answers than lie between us: one of them stays with the server. Before that one may just be on its way */
	do {
		ssize_t n = send(fd, request, sizeof request - 1, MSG_NOSIGNAL | MSG_DONTWAIT);

		assert_true(n == sizeof request - 1 || (n < 0 && errno == EAGAIN));
		expect(ask("GET", "/metrics"), 200, "# EOF");
	} while (!refuses_a_trace() || !refuses_a_trace());
	close(fd);
	while (strncmp(ask("GET", "/trace"), "HTTP/1.1 200 ", 13) != 0)
		;
}

static void test_head(void **state)
{
	const char *text = ask("HEAD", "/healthz");

	(void)state;
	expect(text, 200, "Content-Length: 3\r\n");
	assert_string_equal(body_of(text), "");
	text = ask("HEAD", "/");
	expect(text, 200, "Content-Type: text/html");
	assert_string_equal(body_of(text), "");
}

static void test_one_connection_many_requests(void **state)
{
	int fd = dial();
	const char *text;
	unsigned answers = 0;

	(void)state;
	for (int i = 0; i < 20; i++) /* all at once, before the first is answered */
		say(fd, "GET /healthz HTTP/1.1\r\nHost: tyer\r\n\r\n");
	say(fd, "GET /healthz HTTP/1.1\r\nHost: tyer\r\nConnection: close\r\n\r\n");
	text = hear(fd);
	while ((text = strstr(text, "HTTP/1.1 200")) != NULL) {
		answers++;
		text++;
	}
	assert_int_equal(answers, 21);
}

static void test_bad_requests(void **state)
{
	char *long_path = malloc(100000);
	int fd = dial();
	const char *text;

	(void)state;
	say(fd, "\x16\x03\x01\x02 this is no HTTP\r\n\r\n");
	text = hear(fd);
	assert_true(text[0] == '\0' || strncmp(text, "HTTP/1.1 4", 10) == 0 || strncmp(text, "HTTP/1.0 4", 10) == 0);

	fd = dial(); /* a line longer than a connection's memory */
	memset(long_path, 'a', 100000);
	memcpy(long_path, "GET /", 5);
	long_path[99999] = '\0';
	(void)send(fd, long_path, strlen(long_path), MSG_NOSIGNAL);
	shutdown(fd, SHUT_WR);
	recv(fd, answer, 64, 0); /* an answer of 4xx, or the end */
	close(fd);
	free(long_path);

	fd = dial(); /* a body that nobody wants */
	say(fd, "GET /healthz HTTP/1.1\r\nHost: tyer\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello");
	expect(hear(fd), 200, "\r\n\r\nok\n");

	fd = dial(); /* half a request */
	say(fd, "GET /hea");
	close(fd);
	expect(ask("GET", "/healthz"), 200, "ok");
}

static _Atomic unsigned lines;

static bool count_line(const char *line, size_t length)
{
	(void)line, (void)length;
	atomic_fetch_add(&lines, 1);
	return true;
}

/* Whoever says what is no request in a loop does not fill the log, however slow or fast. */
static void test_lines(void **state)
{
	enum { MANY = 10 * TY_HTTP_LINES };
	struct timespec began, ended;
	unsigned seconds;

	(void)state;
	ty_log_setup(TY_LOG_INFO, false);
	ty_log_set_sink(count_line);
	atomic_store(&lines, 0);
	clock_gettime(CLOCK_MONOTONIC, &began);
	for (int i = 0; i < MANY; i++) {
		int fd = dial();

		say(fd, "GET / HTTP/1.1\r\nHost: tyer\r\nContent-Length: five\r\n\r\n");
		(void)hear(fd);
	}
	clock_gettime(CLOCK_MONOTONIC, &ended);
	ty_log_set_sink(NULL);
	ty_log_setup(TY_LOG_ERROR, false);
	seconds = (unsigned)(ended.tv_sec - began.tv_sec);
	assert_in_range(atomic_load(&lines), 1, (TY_HTTP_LINES + 1) * (seconds + 1));
	if (seconds < 2)
		assert_true(atomic_load(&lines) < MANY);
	expect(ask("GET", "/healthz"), 200, "ok");
}

/* More than there is room for come, and say a byte now and then, so that they are not closed for their silence: the oldest make
 * room, and whoever asks is answered. */
static void test_connection_limit(void **state)
{
	enum { MANY = 3 * TY_HTTP_CONNECTIONS };
	struct pollfd asks = {.events = POLLIN};
	int fds[MANY];

	(void)state;
	for (int i = 0; i < MANY; i++) {
		fds[i] = dial();
		say(fds[i], "GET /");
	}
	asks.fd = dial();
	say(asks.fd, "GET /healthz HTTP/1.1\r\nHost: tyer\r\nConnection: close\r\n\r\n");
	for (int turn = 0; poll(&asks, 1, 100) == 0; turn++) {
		assert_true(turn < HOUSE_WAIT_MS / 100);
		for (int i = 0; i < MANY; i++)
			(void)!send(fds[i], "x", 1, MSG_NOSIGNAL); /* those that had to go do not hear it */
	}
	expect(hear(asks.fd), 200, "ok");
	for (int i = 0; i < MANY - TY_HTTP_CONNECTIONS; i++) { /* these had to go */
		char byte;

		assert_true(recv(fds[i], &byte, 1, 0) <= 0);
		assert_true(errno != EAGAIN);
	}
	for (int i = 0; i < MANY; i++)
		close(fds[i]);
}

static void test_metrics_gone(void **state)
{
	(void)state;
	ty_actor_stop(house.service->metrics);
	for (int i = 0; i < 1000; i++) {
		const char *text = ask("GET", "/healthz");

		if (strncmp(text, "HTTP/1.1 503", 12) == 0) {
			assert_string_equal(body_of(text), "stopping\n");
			return;
		}
	}
	fail_msg("metrics never stopped");
}

/* ---- pages that take time -------------------------------------------------------------------------------------------- */

static void test_slow_page(void **state)
{
	int a = dial(), b = dial();

	(void)state;
	say(a, "GET /status HTTP/1.1\r\nHost: tyer\r\nConnection: close\r\n\r\n");
	say(b, "GET /metrics HTTP/1.1\r\nHost: tyer\r\nConnection: close\r\n\r\n");
	house_wait(&slow_held, 2);
	expect(ask("GET", "/"), 200, "Tyer"); /* the server's thread does not wait */
	go_on();
	expect(hear(a), 200, "slow but there");
	expect(hear(b), 200, "slow but there");
}

static void test_leaves_while_it_waits(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "GET /status HTTP/1.1\r\nHost: tyer\r\n\r\n");
	house_wait(&slow_held, 1);
	close(fd);
	expect(ask("GET", "/"), 200, "Tyer");
	go_on();
	expect(ask("GET", "/"), 200, "Tyer");
}

static _Atomic uint32_t stop_begun, stop_ended;

static void *stop_server(void *arg)
{
	(void)arg;
	atomic_store(&stop_begun, 1);
	ty_http_stop(http);
	http = NULL;
	atomic_store(&stop_ended, 1);
	return NULL;
}

static void test_stop_while_pages_are_made(void **state)
{
	pthread_t thread;
	int fd = dial(), idle = dial();

	(void)state;
	atomic_store(&stop_begun, 0);
	atomic_store(&stop_ended, 0);
	say(fd, "GET /status HTTP/1.1\r\nHost: tyer\r\nConnection: close\r\n\r\n");
	house_wait(&slow_held, 1);
	pthread_create(&thread, NULL, stop_server, NULL);
	house_wait(&stop_begun, 1);
	usleep(20000); /* so that it is likely inside the stop; the test holds either way */
	assert_int_equal(atomic_load(&stop_ended), 0);
	go_on();
	pthread_join(thread, NULL);
	assert_int_equal(atomic_load(&stop_ended), 1);
	close(fd);
	close(idle);
}

/* ---- addresses ------------------------------------------------------------------------------------------------------- */

static void refused(const char *address, enum ty_code code, const char *says)
{
	int other = -1;
	struct ty_error err = {0};
	enum ty_code got = ty_http_listen(address, -1, &other, &err);

	if (got != code)
		fail_msg("%s: expected %s, got %s: %s", address, ty_code_name(code), ty_code_name(got), err.text);
	assert_int_equal(other, -1);
	if (!strstr(err.text, says))
		fail_msg("\"%s\" does not say \"%s\"", err.text, says);
}

static void test_addresses(void **state)
{
	char taken[32];
	struct ty_http *v6;
	struct ty_error err;
	int listener;

	(void)state;
	refused("", TY_INVALID, "IP:PORT");
	refused("9700", TY_INVALID, "IP:PORT");
	refused(":9700", TY_INVALID, "IP:PORT");
	refused("127.0.0.1:", TY_INVALID, "port");
	refused("127.0.0.1:65536", TY_INVALID, "65535");
	refused("127.0.0.1:+80", TY_INVALID, "+80");
	refused("127.0.0.1: 80", TY_INVALID, "port");
	refused("127.0.0.1:000080", TY_INVALID, "port");
	refused("localhost:9700", TY_INVALID, "localhost");
	refused("127.1:9700", TY_INVALID, "127.1");
	refused("::1:9700", TY_INVALID, "brackets");
	refused("[127.0.0.1]:9700", TY_INVALID, "numeric");
	refused("[::1:9700", TY_INVALID, "numeric");
	ty_log_setup(TY_LOG_ERROR, false);
	snprintf(taken, sizeof taken, "127.0.0.1:%u", ty_http_port(http));
	refused(taken, TY_EXISTS, taken);
	if (access("/proc/net/if_inet6", F_OK) == 0 && ty_http_listen("[::1]:0", -1, &listener, &err) == TY_OK) {
		assert_int_equal(ty_http_start(house.service, "[::1]:0", listener, &v6, &err), TY_OK);
		assert_true(ty_http_port(v6) > 0);
		ty_http_stop(v6);
	}
}

/* A socket that was kept is taken where it listens, and nowhere else. The server's end does not end it for others. */
static void test_kept_sockets(void **state)
{
	char there[32], elsewhere[32];
	struct ty_error err;
	int plain = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), kept, got, copy;

	(void)state;
	assert_int_equal(ty_http_listen("127.0.0.1:0", plain, &kept, &err), TY_OK); /* one that does not listen */
	assert_int_equal(ty_http_listen("127.0.0.1:0", kept, &got, &err), TY_OK);
	assert_int_equal(got, kept);
	copy = dup(kept);
	ty_http_stop(http);
	assert_int_equal(ty_http_start(house.service, "127.0.0.1:0", kept, &http, &err), TY_OK);
	snprintf(there, sizeof there, "127.0.0.1:%u", ty_http_port(http));
	snprintf(elsewhere, sizeof elsewhere, "127.0.0.2:%u", ty_http_port(http));
	ty_http_stop(http);
	assert_int_equal(ty_http_listen(there, copy, &got, &err), TY_OK);
	assert_int_equal(got, copy);
	copy = dup(got);
	assert_int_equal(ty_http_start(house.service, there, got, &http, &err), TY_OK);
	test_head(state);
	assert_int_equal(ty_http_listen(elsewhere, copy, &got, &err), TY_OK);
	close(got);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_pages, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_one_trace, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_head, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_one_connection_many_requests, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_bad_requests, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_lines, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_connection_limit, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_metrics_gone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_slow_page, set_up_slow, tear_down),
		cmocka_unit_test_setup_teardown(test_leaves_while_it_waits, set_up_slow, tear_down),
		cmocka_unit_test_setup_teardown(test_stop_while_pages_are_made, set_up_slow, tear_down),
		cmocka_unit_test_setup_teardown(test_addresses, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_kept_sockets, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
