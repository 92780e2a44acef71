/* SPDX-License-Identifier: Apache-2.0
 *
 * The edge over TLS: a peer of nng's, with requests longer than a record; those who say nothing, say something else, go away in the
 * middle, or take no replies. (Whom either side believes: tests/scenario/client_tls.py.)
 */
#include "edge_house.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <mbedtls/ecp.h>
#include <mbedtls/oid.h>
#include <mbedtls/pk.h>
#include <mbedtls/x509_crt.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/tls/tls.h>

#include "tests/ports.h"
#include "wire/tls.h"

static char certificate[160]; /* a file with it and its key, signed by itself for 127.0.0.1 */

/* ---- a certificate ---------------------------------------------------------------------------------------------------- */

static int draw(void *unused, unsigned char *out, size_t length)
{
	(void)unused;
	return getrandom(out, length, 0) == (ssize_t)length ? 0 : -1;
}

static void write_certificate(void)
{
	static const unsigned char address[] = {0x30, 6, 0x87, 4, 127, 0, 0, 1}; /* SubjectAltName: one IP address */
	static unsigned char crt[4096], key[4096];
	mbedtls_x509write_cert writer;
	mbedtls_pk_context pk;
	mbedtls_mpi serial;
	FILE *file;

	mbedtls_pk_init(&pk);
	mbedtls_mpi_init(&serial);
	mbedtls_x509write_crt_init(&writer);
	assert_int_equal(mbedtls_pk_setup(&pk, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY)), 0);
	assert_int_equal(mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(pk), draw, NULL), 0);
	assert_int_equal(mbedtls_mpi_lset(&serial, 1), 0);
	mbedtls_x509write_crt_set_version(&writer, MBEDTLS_X509_CRT_VERSION_3);
	mbedtls_x509write_crt_set_md_alg(&writer, MBEDTLS_MD_SHA256);
	mbedtls_x509write_crt_set_subject_key(&writer, &pk);
	mbedtls_x509write_crt_set_issuer_key(&writer, &pk);
	assert_int_equal(mbedtls_x509write_crt_set_subject_name(&writer, "CN=127.0.0.1"), 0);
	assert_int_equal(mbedtls_x509write_crt_set_issuer_name(&writer, "CN=127.0.0.1"), 0);
	assert_int_equal(mbedtls_x509write_crt_set_serial(&writer, &serial), 0);
	assert_int_equal(mbedtls_x509write_crt_set_validity(&writer, "20200101000000", "20991231235959"), 0);
	assert_int_equal(mbedtls_x509write_crt_set_basic_constraints(&writer, 1, -1), 0);
	assert_int_equal(mbedtls_x509write_crt_set_extension(&writer, MBEDTLS_OID_SUBJECT_ALT_NAME,
		MBEDTLS_OID_SIZE(MBEDTLS_OID_SUBJECT_ALT_NAME), 0, address, sizeof address), 0);
	assert_int_equal(mbedtls_x509write_crt_pem(&writer, crt, sizeof crt, draw, NULL), 0);
	assert_int_equal(mbedtls_pk_write_key_pem(&pk, key, sizeof key), 0);
	file = fopen(certificate, "w");
	assert_non_null(file);
	assert_true(fprintf(file, "%s%s", (char *)crt, (char *)key) > 0);
	assert_int_equal(fclose(file), 0);
	mbedtls_x509write_crt_free(&writer);
	mbedtls_mpi_free(&serial);
	mbedtls_pk_free(&pk);
}

/* ---- the house -------------------------------------------------------------------------------------------------------- */

static int set_up_with(void (*adjust)(struct ty_rpc_socket *))
{
	uint16_t port = ports_take();

	assert_int_not_equal(port, 0);
	house_config(&house);
	snprintf(certificate, sizeof certificate, "%s/service.pem", house.directory);
	write_certificate();
	snprintf(house.config.tls_cert, sizeof house.config.tls_cert, "%s", certificate);
	snprintf(house.config.listen, sizeof house.config.listen, "tls+tcp://127.0.0.1:%u", port);
	house.adjust = adjust;
	house_open(&house, false);
	return 0;
}

static int set_up(void **state)
{
	(void)state;
	return set_up_with(NULL);
}

static void make_impatient(struct ty_rpc_socket *socket)
{
	socket->edge.limits.frame_ms = SHORT_MS;
}

static void make_room_little(struct ty_rpc_socket *socket)
{
	socket->edge.limits.all_reply_bytes = 100;
}

static int set_up_little_room(void **state)
{
	(void)state;
	return set_up_with(make_room_little);
}

static void make_patient(struct ty_rpc_socket *socket)
{
	socket->edge.limits.frame_ms = 600000;
}

/* Nobody is saved by a deadline. */
static int set_up_patient(void **state)
{
	(void)state;
	return set_up_with(make_patient);
}

static int set_up_hasty(void **state)
{
	(void)state;
	return set_up_with(make_impatient);
}

static int tear_down(void **state)
{
	(void)state;
	unlink(certificate);
	house_close(&house);
	return 0;
}

/* ---- clients ---------------------------------------------------------------------------------------------------------- */

static nng_socket dial(void)
{
	nng_tls_config *tls;
	nng_dialer dialer;
	nng_socket s;

	assert_int_equal(nng_req0_open(&s), 0);
	assert_int_equal(nng_socket_set_ms(s, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE), 0);
	assert_int_equal(nng_socket_set_ms(s, NNG_OPT_RECVTIMEO, HOUSE_WAIT_MS), 0);
	assert_int_equal(nng_socket_set_ms(s, NNG_OPT_SENDTIMEO, HOUSE_WAIT_MS), 0);
	assert_int_equal(nng_dialer_create(&dialer, s, house.config.listen), 0);
	assert_int_equal(nng_tls_config_alloc(&tls, NNG_TLS_MODE_CLIENT), 0);
	assert_int_equal(nng_tls_config_auth_mode(tls, NNG_TLS_AUTH_MODE_NONE), 0);
	assert_int_equal(nng_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, tls), 0);
	nng_tls_config_free(tls);
	assert_int_equal(nng_dialer_start(dialer, 0), 0);
	return s;
}

static void ping(void)
{
	nng_socket s = dial();

	house_send_bytes(s, edge_ping_bytes, sizeof edge_ping_bytes);
	house_expect(house_receive(s), 0, TY_OK, "");
	nng_close(s);
}

/* By hand: connected, and secure. */
struct secure {
	struct ty_tls *tls;
	struct ty_tls_session *session;
	int fd;
};

static void await(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	assert_int_equal(poll(&p, 1, HOUSE_WAIT_MS), 1);
}

static struct secure secure_open(void)
{
	struct secure s = {.fd = raw_open()};
	struct ty_error err = {0};
	enum ty_code code;
	bool writes;

	assert_int_equal(ty_tls_open(certificate, NULL, "127.0.0.1", &s.tls, &err), TY_OK);
	assert_int_equal(ty_tls_begin(s.tls, s.fd, "the service", &s.session, &err), TY_OK);
	while ((code = ty_tls_handshake(s.session, &writes, &err)) == TY_BUSY)
		await(s.fd, writes ? POLLOUT : POLLIN);
	if (code != TY_OK)
		fail_msg("%s", err.text);
	return s;
}

static void secure_close(struct secure *s)
{
	ty_tls_end(s->session);
	ty_tls_close(s->tls);
	close(s->fd);
}

/* ---- tests ------------------------------------------------------------------------------------------------------------ */

static void test_requests(void **state)
{
	nng_socket s = dial();

	(void)state;
	for (int i = 0; i < 100; i++) {
		house_send_bytes(s, edge_ping_bytes, sizeof edge_ping_bytes);
		house_expect(house_receive(s), 0, TY_OK, "");
	}
	/* around the buffer, around a record, many records */
	for (size_t length = TY_RPC_READ_BYTES - 20; length < TY_RPC_READ_BYTES + 20; length++) {
		edge_send_long(s, length);
		house_expect(house_receive(s), 6, TY_UNKNOWN_CLIENT, "HELLO");
	}
	for (size_t length = 16384 - 20; length < 16384 + 20; length++) {
		edge_send_long(s, length);
		house_expect(house_receive(s), 6, TY_UNKNOWN_CLIENT, "HELLO");
	}
	edge_send_long(s, house.config.max_request_bytes);
	house_expect(house_receive(s), 6, TY_UNKNOWN_CLIENT, "HELLO");
	nng_close(s);
	edge_expect_empty();
	assert_int_equal(edge_get(&edge_stats()->connections_broken), 0);
}

/* Many frames in one record: of what TLS has taken from the socket epoll does not tell. */
static void test_many_in_a_record(void **state)
{
	enum { MANY = 600 }; /* replies to these are more than may wait */
	struct secure s = secure_open();
	uint8_t out[8 + MANY * 32], in[4096];
	size_t size = 8, sent = 0, replies = 0, frame = 0, have = 0;
	bool greeted = false;

	(void)state;
	memcpy(out, edge_greeting, 8);
	for (uint32_t i = 0; i < MANY; i++) {
		memcpy(out + size, "\0\0\0\0\0\0\0\x08\x80\0\0\0\x08\1\x52\0", 16);
		size += 16;
	}
	while (sent < size) {
		ssize_t n = ty_tls_send(s.session, out + sent, size - sent);

		assert_true(n > 0 || errno == EAGAIN);
		if (n > 0)
			sent += (size_t)n;
		else
			await(s.fd, POLLOUT);
	}
	while (replies < MANY) {
		ssize_t n = ty_tls_recv(s.session, in + have, sizeof in - have);

		assert_true(n > 0 || (n < 0 && errno == EAGAIN));
		if (n < 0) {
			await(s.fd, POLLIN);
			continue;
		}
		have += (size_t)n;
		if (!greeted && have >= 8) {
			memmove(in, in + 8, have -= 8);
			greeted = true;
		}
		while (greeted && have >= 8 && have >= (frame = 8 + ((size_t)in[6] << 8 | in[7]))) {
			memmove(in, in + frame, have -= frame);
			replies++;
		}
	}
	assert_int_equal(edge_get(&edge_stats()->replies[TY_OK]), MANY);
	secure_close(&s);
	edge_expect_empty();
}

static void test_no_handshake(void **state)
{
	int silent = raw_open(), half = raw_open();

	(void)state;
	raw_write(half, "\x16\3\1\2\0\1", 6); /* a ClientHello that does not go on */
	raw_closed(silent);
	raw_closed(half);
	edge_wait_for(&edge_stats()->connections_broken, 2);
	edge_expect_empty();
}

static void test_something_else(void **state)
{
	static const char *const texts[] = {"GET / HTTP/1.1\r\n\r\n", "\0SP\0\0\x30\0\0", "\x16\3\1\0\x04garbage of a record",
		"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"};

	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		int fd = raw_open();

		raw_write(fd, texts[i], i == 1 ? 8 : strlen(texts[i]));
		shutdown(fd, SHUT_WR);
		raw_closed(fd);
		ping();
	}
	edge_expect_empty();
}

static void test_comes_and_goes(void **state)
{
	struct secure s;

	(void)state;
	for (int i = 0; i < 100; i++) {
		int fd = raw_open();

		raw_write(fd, "\x16\3\1\2\0\1", (size_t)(i % 6 + 1));
		close(fd);
	}
	for (int i = 0; i < 20; i++) { /* secure, and gone before a word */
		s = secure_open();
		if (i & 1)
			assert_int_equal(ty_tls_send(s.session, edge_greeting, 8), 8);
		secure_close(&s);
	}
	ping();
	edge_expect_empty();
}

/* It is secure and then sends what is no TLS. */
static void test_breaks_off(void **state)
{
	struct secure s = secure_open();

	(void)state;
	assert_int_equal(ty_tls_send(s.session, edge_greeting, 8), 8);
	raw_write(s.fd, "\x17\3\3\0\x20 this was never sealed by anybody", 37);
	house_wait(&edge_stats()->connections, 0);
	assert_int_equal(edge_get(&edge_stats()->connections_broken), 1);
	secure_close(&s);
	ping();
}

static const uint8_t warning[] = {0x15, 3, 3, 0, 2, 1, 90}; /* user_canceled */
static uint8_t warnings[sizeof warning * 4096]; /* filled before the threads begin */
static _Atomic bool enough;

/* What TLS reads over, as fast as it goes. */
static void *warn(void *arg)
{
	size_t at = 0;
	int fd = *(int *)arg;

	while (!atomic_load(&enough)) {
		ssize_t n = send(fd, warnings + at, sizeof warnings - at, MSG_NOSIGNAL);

		if (n <= 0)
			break; /* it is closed */
		at = (at + (size_t)n) % sizeof warnings;
	}
	return NULL;
}

/* Several in the middle of their handshakes, without end: the others have their turns all the same. */
static void test_endless_warnings(void **state)
{
	enum { COUNT = 3 };
	struct ty_tls_session *session[COUNT];
	struct ty_tls *tls;
	struct ty_error err = {0};
	pthread_t thread[COUNT];
	int fd[COUNT];
	bool writes;

	(void)state;
	atomic_store(&enough, false);
	for (size_t i = 0; i < sizeof warnings; i += sizeof warning)
		memcpy(warnings + i, warning, sizeof warning);
	assert_int_equal(ty_tls_open(certificate, NULL, "127.0.0.1", &tls, &err), TY_OK);
	for (int i = 0; i < COUNT; i++) {
		fd[i] = raw_open();
		assert_int_equal(ty_tls_begin(tls, fd[i], "the service", &session[i], &err), TY_OK);
		assert_int_equal(ty_tls_handshake(session[i], &writes, &err), TY_BUSY); /* a ClientHello */
		await(fd[i], POLLIN);
	}
	for (int i = 0; i < COUNT; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, warn, &fd[i]), 0);
	for (int i = 0; i < 5; i++)
		ping();
	atomic_store(&enough, true);
	for (int i = 0; i < COUNT; i++) {
		shutdown(fd[i], SHUT_RDWR); /* it may wait in its send */
		assert_int_equal(pthread_join(thread[i], NULL), 0);
		ty_tls_end(session[i]);
		close(fd[i]);
	}
	ty_tls_close(tls);
	edge_expect_empty();
}

/* Asks, and takes no replies: what waits is bounded, and it loses its connection. */
static void test_takes_no_replies(void **state)
{
	struct secure s = secure_open();
	uint8_t frame[64];
	size_t size = edge_ping_frame(frame, 1);
	ssize_t n;

	(void)state;
	assert_int_equal(ty_tls_send(s.session, edge_greeting, 8), 8);
	do {
		struct pollfd p = {.fd = s.fd, .events = POLLOUT};

		n = ty_tls_send(s.session, frame, size);
		if (n < 0 && errno == EAGAIN)
			poll(&p, 1, HOUSE_WAIT_MS);
	} while (n > 0 || errno == EAGAIN);
	house_wait(&edge_stats()->connections, 0);
	assert_true(edge_get(&edge_stats()->unsent) > 0);
	assert_true(edge_get(&edge_stats()->unsent) <= TY_RPC_CONNECTION_REPLIES);
	secure_close(&s);
	edge_expect_empty();
}

#define TLS_TEST(name, set) cmocka_unit_test_setup_teardown(test_##name, set, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TLS_TEST(requests, set_up),
		TLS_TEST(many_in_a_record, set_up),
		TLS_TEST(no_handshake, set_up_hasty),
		TLS_TEST(something_else, set_up),
		TLS_TEST(comes_and_goes, set_up),
		TLS_TEST(breaks_off, set_up),
		TLS_TEST(endless_warnings, set_up_patient),
		TLS_TEST(takes_no_replies, set_up_little_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
