/* SPDX-License-Identifier: Apache-2.0
 *
 * The attach socket: who is let in, how many, and what a start and a stop do to it.
 */
#include "house.h"
#include "actors/clients_state.h"
#include "base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

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
	house_expect(&late, TY_STOPPING, "stopping");
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
		cmocka_unit_test(test_max_clients),
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_listen),
		cmocka_unit_test(test_coming_and_going),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
