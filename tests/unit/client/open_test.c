/* SPDX-License-Identifier: Apache-2.0
 *
 * The client library's open: who is there, who is not, and who is something else.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>

#include "pair.h"
#include "tests/ports.h"

static enum fake_answer check_hello(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	static const uint8_t zero[16];

	if (request->verb_case != TYER__V1__REQUEST__VERB_HELLO)
		return FAKE_REPLY;
	fake_hello(f, reply);
	if (request->client != 0 || request->hello->token.len != 16 || memcmp(request->hello->token.data, f->token, 16) != 0 ||
		request->hello->engine.len != 16 || memcmp(request->hello->engine.data, zero, 16) == 0 ||
		strcmp(request->hello->name, "test") != 0 || strcmp(request->hello->namespace_->tenant, "t") != 0 ||
		strcmp(request->hello->namespace_->model, "m") != 0 || strcmp(request->hello->namespace_->dtype, "bf16") != 0)
		reply->code = TYER__V1__CODE__INTERNAL;
	return FAKE_REPLY;
}

/* An attempt that ends late, in the step that `text` names: on a busy machine a step before may take all of a short time, so it is given
 * more until that is not so. */
static void expect_open_late(struct ty_client_options *o, const char *text)
{
	struct ty_client *client;
	struct ty_error err;

	o->connect_timeout_us = 10000;
	do {
		o->connect_timeout_us *= 2;
		assert_int_equal(ty_client_open(o, &client, &err), TY_TIMEOUT);
		assert_null(client);
	} while (!strstr(err.text, text) && o->connect_timeout_us < 20000000);
	assert_non_null(strstr(err.text, text));
}

static void test_open(void **state)
{
	const struct ty_client_info *info;
	struct pair p;
	_Atomic uint64_t *mine, *theirs;

	(void)state;
	pair_start(&p, (struct fake_options){.answer = check_hello});
	pair_open(&p);
	info = ty_client_info(p.client);
	assert_int_equal(info->boot, FAKE_BOOT);
	assert_int_equal(info->client, FAKE_CLIENT);
	assert_int_equal(info->chunk_tokens, 256);
	assert_int_equal(info->max_operations, 7);
	assert_int_equal(info->max_operation_chunks, 11);
	assert_int_equal(info->max_chunk_bytes, 13);
	assert_int_equal(info->device_count, 1);
	assert_string_equal(info->devices[0].name, "host");
	assert_string_equal(info->devices[0].model, "host memory");
	assert_int_equal(info->devices[0].uuid[2], 3);

	/* the timeline is one page in two processes' (here: two mappings') sight */
	mine = ty_client_timeline(p.client);
	theirs = p.fake.timeline;
	assert_ptr_not_equal(mine, theirs);
	ty_client_raise(p.client, (struct ty_mark){5, 9});
	assert_int_equal(atomic_load(&theirs[5]), 9);
	ty_client_raise(p.client, (struct ty_mark){5, 8}); /* only grows */
	assert_int_equal(atomic_load(&theirs[5]), 9);
	assert_false(ty_client_reached(p.client, (struct ty_mark){511, 3}));
	atomic_store(&theirs[511], 3);
	assert_true(ty_client_reached(p.client, (struct ty_mark){511, 3}));
	assert_true(ty_client_reached(p.client, (struct ty_mark){0, 77}));
	pair_close(&p);
}

static void test_open_refusals(void **state)
{
	struct fake_options refuse = {.refuse = true}, version = {.version = 2}, silent = {.silent = true},
			    no_rep = {.no_rep = true};
	struct ty_client_options o;
	struct fake f;

	(void)state;
	fake_start(&f, &refuse);
	o = fake_client_options(&f);
	expect_open(&o, TY_LIMIT, "max_clients");
	fake_stop(&f);

	fake_start(&f, &version);
	o = fake_client_options(&f);
	expect_open(&o, TY_UNSUPPORTED, "version is 2");
	fake_stop(&f);

	fake_start(&f, &silent);
	o = fake_client_options(&f);
	expect_open_late(&o, "no greeting");
	fake_stop(&f);

	fake_start(&f, &no_rep);
	o = fake_client_options(&f);
	expect_open(&o, TY_CLOSED, "nobody listens at ipc://");
	o.attach_path = NULL;
	expect_open(&o, TY_CLOSED, "nobody listens at ipc://");
	o.url = "tcp://127.0.0.1:1";
	expect_open(&o, TY_CLOSED, "nobody listens at tcp://");
	fake_stop(&f);
	o = fake_client_options(&f);
	expect_open(&o, TY_CLOSED, "nobody listens on the attach socket");
}

static void test_open_bad_options(void **state)
{
	struct ty_client_options o = {.size = sizeof o, .url = "ipc:///nonexistent/x"};
	struct {
		struct ty_client_options o;
		uint64_t later;
	} longer = {.o = {.size = sizeof longer, .url = "ipc:///nonexistent/x"}, .later = 1};
	char name[66];

	(void)state;
	expect_open(NULL, TY_INVALID, "options");
	o.size = 7;
	expect_open(&o, TY_INVALID, "options.size");
	o.size = sizeof o;
	o.max_requests = 65;
	expect_open(&o, TY_INVALID, "max_requests");
	o.max_requests = 0;
	memset(name, 'x', 65);
	name[65] = '\0';
	o.name = name;
	expect_open(&o, TY_INVALID, "options.name");
	o.name = "a\nb";
	expect_open(&o, TY_INVALID, "options.name");
	o.name = NULL;
	o.url = "nonsense";
	expect_open(&o, TY_INVALID, "options.url");
	o.url = NULL;
	expect_open(&o, TY_INVALID, "options.url");
	expect_open(&longer.o, TY_UNSUPPORTED, "options.size");
	longer.later = 0; /* a later version's, of which nothing is asked */
	expect_open(&longer.o, TY_CLOSED, "nobody listens");
	o.url = "ipc:///nonexistent/x"; /* an earlier one's, without TLS */
	o.tls_ca = "none of its";
	expect_open(&o, TY_INVALID, "tls_ca");
	o.size = offsetof(struct ty_client_options, tls_ca);
	expect_open(&o, TY_CLOSED, "nobody listens");
}

/* A socket of another kind, and one that speaks something else. */
static void test_open_not_a_tyer(void **state)
{
	char directory[] = "/tmp/tyer-client-test-XXXXXX", path[64], url[80];
	struct ty_client_options o = {.size = sizeof o, .url = "ipc:///nonexistent/x", .attach_path = path};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	nng_socket pair;
	int fd;

	(void)state;
	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof path, "%s/s", directory);
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(fd, 4), 0);
	expect_open(&o, TY_PROTOCOL, "another kind");

	/* accepts, and never speaks nng's protocol */
	snprintf(url, sizeof url, "ipc://%s", path);
	o = (struct ty_client_options){.size = sizeof o, .url = url, .connect_timeout_us = 250000};
	expect_open(&o, TY_PROTOCOL, "does not answer");
	close(fd);
	unlink(path);

	/* speaks it, but is no REP socket */
	assert_int_equal(nng_pair0_open(&pair), 0);
	assert_int_equal(nng_listen(pair, url, NULL, 0), 0);
	expect_open(&o, TY_PROTOCOL, "but with 00 53 50 00 00 10 00 00");
	nng_close(pair);
	rmdir(directory);
}

static enum fake_answer other_boot(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	(void)request;
	fake_hello(f, reply);
	reply->boot = 1;
	return FAKE_REPLY;
}

static enum fake_answer no_boot(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	if (request->verb_case == TYER__V1__REQUEST__VERB_HELLO)
		fake_hello(f, reply);
	reply->boot = 0;
	return FAKE_REPLY;
}

static enum fake_answer deny(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	(void)f;
	(void)request;
	reply->code = TYER__V1__CODE__DENIED;
	reply->error = (char *)"Hello.token is nobody's";
	return FAKE_REPLY;
}

static enum fake_answer garbage(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	(void)f;
	(void)request;
	(void)reply;
	return FAKE_GARBAGE;
}

static enum fake_answer hold_all(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	(void)f;
	(void)request;
	(void)reply;
	return FAKE_HOLD;
}

static void test_open_hello_fails(void **state)
{
	static const struct {
		enum fake_answer (*answer)(struct fake *, const Tyer__V1__Request *, Tyer__V1__Reply *);
		enum ty_code code;
		const char *text;
	} cases[] = {
		{other_boot, TY_PROTOCOL, "different services"},
		{deny, TY_DENIED, "Hello.token is nobody's"},
		{garbage, TY_PROTOCOL, "no Reply"},
	};
	struct fake_options silent = {.answer = hold_all};
	struct ty_client_options options;
	struct fake fake;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct fake_options fo = {.answer = cases[i].answer};
		struct ty_client_options o;
		struct fake f;

		fake_start(&f, &fo);
		o = fake_client_options(&f);
		expect_open(&o, cases[i].code, cases[i].text);
		fake_stop(&f);
	}
	fake_start(&fake, &silent);
	options = fake_client_options(&fake);
	expect_open_late(&options, "HELLO in connect_timeout_us");
	fake_stop(&fake);
}

/* Who does not say which start of it answers could be another one after each request, and a client without attach has no other word for it. */
static void test_boot_not_told(void **state)
{
	const struct fake_options fo = {.answer = no_boot};
	struct ty_client_options o;
	struct fake f;

	(void)state;
	fake_start(&f, &fo);
	o = fake_client_options(&f);
	expect_open(&o, TY_PROTOCOL, "Reply.boot is 0");
	o.attach_path = NULL;
	expect_open(&o, TY_PROTOCOL, "Reply.boot is 0");
	fake_pause(&f);
	fake_resume(&f, 0);
	o = fake_client_options(&f);
	expect_open(&o, TY_PROTOCOL, "WELCOME's boot is 0");
	fake_stop(&f);
}

static int option(int fd, int level, int name)
{
	socklen_t size = sizeof(int);
	int value = -1;

	assert_int_equal(getsockopt(fd, level, name, &value, &size), 0);
	return value;
}

/* A machine that freezes is found by the kernel: the client's end of a tcp connection has the times that docs/client.md tells. */
static void test_keep_alive(void **state)
{
	uint16_t port = ports_take();
	socklen_t length;
	struct pair p;
	int found = 0;

	(void)state;
	assert_int_not_equal(port, 0);
	pair_start(&p, (struct fake_options){.port = port});
	pair_open(&p);
	for (int fd = 0; fd < 1024; fd++) {
		struct sockaddr_in theirs = {.sin_port = 0};

		length = sizeof theirs;
		if (getpeername(fd, (struct sockaddr *)&theirs, &length) != 0 || theirs.sin_family != AF_INET ||
			theirs.sin_port != htons(port))
			continue;
		assert_int_not_equal(option(fd, SOL_SOCKET, SO_KEEPALIVE), 0);
		assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPIDLE), 10);
		assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPINTVL), 5);
		assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPCNT), 3);
		assert_int_equal(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 10000);
		found++;
	}
	assert_int_equal(found, 1);
	pair_close(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open),
		cmocka_unit_test(test_open_refusals),
		cmocka_unit_test(test_open_bad_options),
		cmocka_unit_test(test_open_not_a_tyer),
		cmocka_unit_test(test_open_hello_fails),
		cmocka_unit_test(test_boot_not_told),
		cmocka_unit_test(test_keep_alive),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
