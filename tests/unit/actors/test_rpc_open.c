/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses: which are taken, which are refused and why, what a dead server left, who may connect.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "rpc_house.h"

static struct house house;
static struct ty_service *service;

static int set_up(void **state)
{
	(void)state;
	house_config(&house);
	service = calloc(1, sizeof *service);
	service->config = &house.config;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free(service);
	house_close(&house);
	return 0;
}

static void expect(const char *url, enum ty_code code, const char *says)
{
	struct ty_rpc_socket *socket;
	struct ty_error err = {0};
	enum ty_code got;

	snprintf(house.config.listen, sizeof house.config.listen, "%s", url);
	got = ty_rpc_open(service, service->config->listen, false, &socket, &err);
	if (got != code)
		fail_msg("%s: expected %s, got %s: %s", url, ty_code_name(code), ty_code_name(got), err.text);
	if (code == TY_OK) {
		ty_rpc_close(socket);
	} else {
		assert_null(socket);
		assert_int_equal(err.code, code);
		if (!strstr(err.text, says))
			fail_msg("\"%s\" does not say \"%s\"", err.text, says);
	}
}

static const char *url_of(const char *name)
{
	static char url[256];

	snprintf(url, sizeof url, "ipc://%s/%s", house.directory, name);
	return url;
}

static void test_addresses(void **state)
{
	char long_url[200];

	(void)state;
	expect("tcp://0.0.0.0:9000", TY_DENIED, "0.0.0.0");
	expect("tcp://127.0.0.1:9000", TY_DENIED, "tcp tells of nobody who he is");
	expect("tcp://[::]:9000", TY_DENIED, "[::]");
	expect("tcp://localhost:9000", TY_INVALID, "numeric");
	expect("tcp://*:9000", TY_INVALID, "numeric");
	expect("tcp://127.0.0.1", TY_INVALID, "PORT");
	expect("tcp://127.0.0.1:", TY_INVALID, "PORT");
	expect("tcp://127.0.0.1:0", TY_INVALID, "1..65535");
	expect("tcp://127.0.0.1:65536", TY_INVALID, "1..65535");
	expect("tcp://127.0.0.1:80x", TY_INVALID, "1..65535");
	expect("tcp://eth0;127.0.0.1:9000", TY_INVALID, "numeric");
	expect("tcp://[::1:9000", TY_INVALID, "numeric");
	expect("tls+tcp://127.0.0.1:9000", TY_INVALID, "--tls-cert");
	snprintf(house.config.tls_cert, sizeof house.config.tls_cert, "/nonexistent/cert.pem");
	expect("tls+tcp://localhost:9000", TY_INVALID, "numeric");
	expect("tls+tcp://127.0.0.1:9000", TY_IO, "/nonexistent/cert.pem");
	expect("abstract://tyer", TY_INVALID, "abstract://");
	expect("inproc://tyer", TY_INVALID, "inproc://");
	expect("ws://127.0.0.1:9000", TY_INVALID, "ws://");
	expect("ipc://tyer.sock", TY_INVALID, "absolute");
	expect("ipc://", TY_INVALID, "absolute");
	expect("", TY_INVALID, "ipc://");
	snprintf(long_url, sizeof long_url, "ipc://%s/%0100d", house.directory, 0);
	expect(long_url, TY_INVALID, "107");
	expect("ipc:///nonexistent-for-tyer/deeper/tyer.sock", TY_IO, "/nonexistent-for-tyer/deeper");
}

static void test_permissions(void **state)
{
	struct ty_rpc_socket *socket;
	struct ty_error err = {0};
	char path[160], directory[128];
	struct stat st;
	mode_t mask = umask(0);

	(void)state;
	snprintf(directory, sizeof directory, "%s/made", house.directory);
	snprintf(path, sizeof path, "%s/tyer.sock", directory);
	snprintf(house.config.listen, sizeof house.config.listen, "ipc://%s", path);
	assert_int_equal(ty_rpc_open(service, service->config->listen, false, &socket, &err), TY_OK);
	umask(mask);
	assert_int_equal(stat(directory, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(stat(path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0600);
	ty_rpc_close(socket);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(rmdir(directory), 0);
}

static void test_in_use(void **state)
{
	char url[256], path[128];
	struct ty_rpc_socket *first;
	struct ty_error err = {0};
	struct stat st;

	(void)state;
	snprintf(url, sizeof url, "%s", url_of("tyer.sock"));
	snprintf(path, sizeof path, "%s/tyer.sock", house.directory);
	assert_int_equal(ty_rpc_open(service, service->config->listen, false, &first, &err), TY_OK);
	expect(url, TY_EXISTS, path);
	assert_int_equal(stat(path, &st), 0); /* still the first one's */
	ty_rpc_close(first);
	expect(url, TY_OK, "");
}

static void make_stale(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(strlen(path) < sizeof address.sun_path);
	strcpy(address.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(fd, 1), 0);
	close(fd); /* as a killed server leaves it */
	assert_int_equal(access(path, F_OK), 0);
}

static void test_stale(void **state)
{
	char path[128];

	(void)state;
	snprintf(path, sizeof path, "%s/tyer.sock", house.directory);
	make_stale(path);
	expect(url_of("tyer.sock"), TY_OK, "");
}

static void test_not_a_socket(void **state)
{
	char path[128];
	int fd;

	(void)state;
	snprintf(path, sizeof path, "%s/file", house.directory);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, "precious", 8), 8);
	close(fd);
	expect(url_of("file"), TY_EXISTS, "no socket");
	assert_int_equal(access(path, F_OK), 0);
	unlink(path);
}

static void test_tcp(void **state)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof address;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char url[64];

	(void)state;
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
	snprintf(url, sizeof url, "tcp://127.0.0.1:%u", ntohs(address.sin_port));
	house.config.tcp_insecure = 1;
	expect(url, TY_EXISTS, url);
	close(fd);
	expect(url, TY_OK, "");
}

static void test_contexts(void **state)
{
	(void)state;
	house.config.max_requests = UINT32_MAX;
	expect(url_of("tyer.sock"), TY_INVALID, "max_requests");
	house.config.max_requests = 1;
	expect(url_of("tyer.sock"), TY_OK, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_addresses, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_permissions, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_in_use, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_stale, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_not_a_socket, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_tcp, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_contexts, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
