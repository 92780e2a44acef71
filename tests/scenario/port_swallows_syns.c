/* SPDX-License-Identifier: Apache-2.0
 *
 * After a restart the service's port takes no connection and refuses none: SYNs are swallowed (LMCache 4670: two minutes of nothing,
 * in 14 % of the restarts, as long as the system's own patience). An attempt is given up by itself, and the client is back as soon as
 * the port answers.
 */
#include "process.h"
#include "tests/ports.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_in address_of(uint16_t port)
{
	return (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
}

/* Listens; -1: somebody else does. */
static int listen_at(uint16_t port)
{
	struct sockaddr_in address = address_of(port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), 0);
	if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 0) != 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Listens and accepts nobody, with a queue that is full: further SYNs get no answer. */
struct swallower {
	int listener, full[4];
};

static void swallow(struct swallower *s, uint16_t port)
{
	struct sockaddr_in address = address_of(port);

	s->listener = listen_at(port);
	assert_true(s->listener >= 0);
	for (size_t i = 0; i < 4; i++) {
		s->full[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		(void)connect(s->full[i], (struct sockaddr *)&address, sizeof address);
	}
}

static void spit_out(struct swallower *s)
{
	for (size_t i = 0; i < 4; i++)
		close(s->full[i]);
	close(s->listener);
}

static enum ty_code ping(struct h_client *c)
{
	return h_wait(c, ty_client_ping(c->client, h_done, c, &c->refused));
}

static void test_swallowed(void **state)
{
	static const char *const insecure[] = {"--tcp-insecure", "on", NULL};
	struct ty_client_options o = {.size = sizeof o, .name = "test", .model = "m", .revision = "1", .dtype = "bf16"};
	struct ty_error why = {.text = ""};
	struct swallower swallower;
	struct h_client c = {0};
	struct ty_client *other;
	struct h_service s;
	uint16_t port = ports_take();
	uint64_t boot;
	pid_t pid;

	(void)state;
	assert_int_not_equal(port, 0);
	h_prepare(&s);
	snprintf(s.config.listen, sizeof s.config.listen, "tcp://127.0.0.1:%u", port);
	o.url = s.config.listen;
	pid = p_start(&s, insecure, NULL);
	if (ty_client_open(&o, &c.client, &why) != TY_OK)
		fail_msg("%s", why.text);
	assert_int_equal(ping(&c), TY_OK);
	boot = c.last.boot;
	p_kill(pid);
	swallow(&swallower, port);
	while (ty_client_state(c.client, &why) == TY_CLIENT_UP) /* the dead service's connection ends */
		ty_client_poll(c.client, 0, 100000);
	/* by the system's bound an attempt would take 127 s, and all of this test */
	while (why.code != TY_TIMEOUT) {
		ty_client_poll(c.client, 0, 100000);
		assert_int_equal(ping(&c), TY_CLOSED); /* at once, however the attempt goes */
		assert_int_not_equal(ty_client_state(c.client, &why), TY_CLIENT_UP);
	}
	/* opening is bounded too */
	o.connect_timeout_us = 100000;
	assert_int_equal(ty_client_open(&o, &other, &why), TY_TIMEOUT);
	spit_out(&swallower);
	pid = p_start(&s, insecure, NULL);
	p_wait_up(&c);
	assert_int_equal(ping(&c), TY_OK);
	assert_true(c.last.boot != boot);
	ty_client_close(c.client);
	assert_int_equal(p_stop(pid), 0);
	h_stop(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_swallowed)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
