/* SPDX-License-Identifier: Apache-2.0
 *
 * The service has no descriptor left, because somebody connects and connects: those who are there go on, nobody waits for ever, and when
 * there are descriptors again others may come.
 */
#include "process.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LIMIT 96
#define FLOOD 300

static int connect_to(const char *path, int type)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	assert_true(strlen(path) < sizeof address.sun_path);
	strcpy(address.sun_path, path);
	(void)connect(fd, (struct sockaddr *)&address, sizeof address); /* a full backlog is fine too */
	return fd;
}

static void round_trip(struct h_client *c, uint32_t base)
{
	assert_int_equal(h_lookup(c, 1, base, 2), TY_OK);
	h_fill(c, base, 2, 0);
	if (h_store(c, 1, 0, 2, 0) != TY_OK)
		fail_msg("%s", c->error);
	assert_int_equal(h_lookup(c, 1, base, 2), TY_OK);
	assert_int_equal(c->last.lookup.hits, 2);
	assert_int_equal(h_retrieve(c, 1, 0, 2, 64), TY_OK);
	assert_int_equal(h_wrong(c, base, 2, 64), 0);
	assert_int_equal(h_end(c, 1), TY_OK);
}

static void test_flood(void **state)
{
	struct rlimit before, few;
	static int fds[2 * FLOOD];
	struct h_service s;
	struct h_client c, later;
	pid_t pid;

	(void)state;
	h_prepare(&s);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	few = (struct rlimit){LIMIT, before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0); /* the service inherits it */
	pid = p_start(&s, NULL, NULL);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	h_open(&s, &c, NULL, "descriptors", 0, 1);
	round_trip(&c, 100);
	for (int i = 0; i < FLOOD; i++) {
		fds[2 * i] = connect_to(s.config.listen + strlen("ipc://"), SOCK_STREAM);
		fds[2 * i + 1] = connect_to(s.config.attach, SOCK_SEQPACKET);
	}
	for (uint32_t i = 0; i < 20; i++)
		round_trip(&c, 1000 + i * 10);
	for (int i = 0; i < 2 * FLOOD; i++)
		close(fds[i]);
	/* one that comes now gets in, if not at its first try */
	while (h_try_open(&s, &later, NULL, "descriptors", 0, 1) != TY_OK)
		usleep(10000);
	round_trip(&later, 5000);
	assert_int_equal(ty_client_state(c.client, NULL), TY_CLIENT_UP); /* it has never been away */
	h_close(&later);
	h_close(&c);
	assert_int_equal(p_stop(pid), 0);
	h_stop(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_flood)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
