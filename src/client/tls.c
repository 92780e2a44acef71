/* SPDX-License-Identifier: Apache-2.0 */
#include "client/tls.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <mbedtls/error.h>
#include <mbedtls/pk.h>
#include <mbedtls/ssl.h>
#include <mbedtls/x509_crt.h>

#define SAN_IP (MBEDTLS_ASN1_CONTEXT_SPECIFIC | MBEDTLS_X509_SAN_IP_ADDRESS)

/* Results of the two callbacks over the socket: any that are no other error's. */
#define SOCKET_FAILED (-0x004e)

struct ty_tls {
	mbedtls_ssl_config config;
	mbedtls_x509_crt ca, own;
	mbedtls_pk_context key;
	mbedtls_ssl_context session;
	char *name;              /* null: an address is checked instead */
	uint8_t address[16];
	size_t address_length;
	const char *url;         /* for texts; the caller's */
	int fd, error;           /* of the socket, when it failed */
	bool begun, established;
};

/* ---- callbacks --------------------------------------------------------------------------------------------------------- */

static int draw(void *unused, unsigned char *out, size_t length)
{
	(void)unused;
	while (length > 0) {
		ssize_t n = getrandom(out, length, 0);

		if (n < 0 && errno != EINTR)
			return MBEDTLS_ERR_SSL_HW_ACCEL_FAILED;
		if (n > 0) {
			out += n;
			length -= (size_t)n;
		}
	}
	return 0;
}

static int socket_result(struct ty_tls *tls, ssize_t n, int again)
{
	if (n >= 0)
		return (int)n;
	if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)
		return again;
	tls->error = errno;
	return SOCKET_FAILED;
}

static int to_socket(void *user, const unsigned char *bytes, size_t length)
{
	struct ty_tls *tls = user;

	return socket_result(tls, send(tls->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT), MBEDTLS_ERR_SSL_WANT_WRITE);
}

static int from_socket(void *user, unsigned char *bytes, size_t length)
{
	struct ty_tls *tls = user;

	return socket_result(tls, recv(tls->fd, bytes, length, MSG_DONTWAIT), MBEDTLS_ERR_SSL_WANT_READ);
}

/* The library compares DNS names, not addresses. */
static int check_address(void *user, mbedtls_x509_crt *certificate, int depth, uint32_t *flags)
{
	const struct ty_tls *tls = user;
	bool found = false;

	if (depth != 0 || tls->name != NULL)
		return 0;
	for (const mbedtls_x509_sequence *san = &certificate->subject_alt_names; san != NULL; san = san->next)
		found |= san->buf.p != NULL && san->buf.tag == SAN_IP && san->buf.len == tls->address_length &&
			memcmp(san->buf.p, tls->address, tls->address_length) == 0;
	if (!found)
		*flags |= MBEDTLS_X509_BADCERT_CN_MISMATCH;
	return 0;
}

/* ---- open and close ------------------------------------------------------------------------------------------------------ */

static enum ty_code failed(int error, const char *what, const char *which, struct ty_error *err)
{
	char words[128];

	mbedtls_strerror(error, words, sizeof words);
	return ty_fail(err, TY_INVALID, "%s: \"%.120s\": %s", what, which, words);
}

static enum ty_code read_files(struct ty_tls *tls, const char *ca, const char *own, struct ty_error *err)
{
	int error = mbedtls_x509_crt_parse_file(&tls->ca, ca);

	if (error > 0)
		return ty_fail(err, TY_INVALID, "options.tls_ca: \"%.120s\": %d of its certificates cannot be read", ca, error);
	if (error < 0)
		return failed(error, "options.tls_ca", ca, err);
	if (own == NULL)
		return TY_OK;
	error = mbedtls_x509_crt_parse_file(&tls->own, own);
	if (error == 0)
		error = mbedtls_pk_parse_keyfile(&tls->key, own, NULL);
	if (error == 0)
		error = mbedtls_pk_check_pair(&tls->own.pk, &tls->key);
	if (error == 0)
		error = mbedtls_ssl_conf_own_cert(&tls->config, &tls->own, &tls->key);
	if (error > 0)
		return ty_fail(err, TY_INVALID, "options.tls_cert: \"%.120s\": %d of its certificates cannot be read", own, error);
	return error < 0 ? failed(error, "options.tls_cert", own, err) : TY_OK;
}

static enum ty_code set_name(struct ty_tls *tls, const char *name, struct ty_error *err)
{
	if (inet_pton(AF_INET, name, tls->address) == 1)
		tls->address_length = 4;
	else if (inet_pton(AF_INET6, name, tls->address) == 1)
		tls->address_length = 16;
	else if ((tls->name = strdup(name)) == NULL)
		return ty_fail(err, TY_NO_MEMORY, "no memory for TLS");
	return TY_OK;
}

enum ty_code ty_tls_open(const char *ca, const char *own, const char *name, struct ty_tls **out, struct ty_error *err)
{
	struct ty_tls *tls = calloc(1, sizeof *tls);
	enum ty_code code;

	*out = NULL;
	if (tls == NULL)
		return ty_fail(err, TY_NO_MEMORY, "no memory for TLS");
	mbedtls_ssl_config_init(&tls->config);
	mbedtls_x509_crt_init(&tls->ca);
	mbedtls_x509_crt_init(&tls->own);
	mbedtls_pk_init(&tls->key);
	mbedtls_ssl_init(&tls->session);
	code = mbedtls_ssl_config_defaults(&tls->config, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_STREAM,
		       MBEDTLS_SSL_PRESET_DEFAULT) == 0
		       ? read_files(tls, ca, own, err)
		       : ty_fail(err, TY_NO_MEMORY, "no memory for TLS");
	if (code == TY_OK)
		code = set_name(tls, name, err);
	if (code != TY_OK) {
		ty_tls_close(tls);
		return code;
	}
	mbedtls_ssl_conf_min_version(&tls->config, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3); /* TLS 1.2 */
	mbedtls_ssl_conf_authmode(&tls->config, MBEDTLS_SSL_VERIFY_REQUIRED);
	mbedtls_ssl_conf_ca_chain(&tls->config, &tls->ca, NULL);
	mbedtls_ssl_conf_rng(&tls->config, draw, NULL);
	mbedtls_ssl_conf_verify(&tls->config, check_address, tls);
	*out = tls;
	return TY_OK;
}

void ty_tls_close(struct ty_tls *tls)
{
	if (tls == NULL)
		return;
	mbedtls_ssl_free(&tls->session);
	mbedtls_ssl_config_free(&tls->config);
	mbedtls_x509_crt_free(&tls->ca);
	mbedtls_x509_crt_free(&tls->own);
	mbedtls_pk_free(&tls->key);
	free(tls->name);
	free(tls);
}

/* ---- a session ------------------------------------------------------------------------------------------------------------ */

enum ty_code ty_tls_begin(struct ty_tls *tls, int fd, const char *url, struct ty_error *err)
{
	mbedtls_ssl_free(&tls->session);
	mbedtls_ssl_init(&tls->session);
	tls->fd = fd;
	tls->url = url;
	tls->error = 0;
	tls->established = false;
	/* a name is also told to the peer; of an address nothing is (null) */
	tls->begun = mbedtls_ssl_setup(&tls->session, &tls->config) == 0 && mbedtls_ssl_set_hostname(&tls->session, tls->name) == 0;
	if (!tls->begun)
		return ty_fail(err, TY_NO_MEMORY, "connecting to %s: no memory for TLS", url);
	mbedtls_ssl_set_bio(&tls->session, tls, to_socket, from_socket, NULL);
	return TY_OK;
}

static enum ty_code not_believed(struct ty_tls *tls, struct ty_error *err)
{
	uint32_t flags = mbedtls_ssl_get_verify_result(&tls->session);
	char words[160];
	int length = mbedtls_x509_crt_verify_info(words, sizeof words, "", flags);

	for (int i = 0; i < length; i++)
		if (words[i] == '\n')
			words[i] = i + 1 < length ? ';' : '\0';
	return ty_fail(err, TY_DENIED, "the certificate of %.100s is not believed: %s", tls->url, length > 0 ? words : "no reason is known");
}

enum ty_code ty_tls_handshake(struct ty_tls *tls, bool *writes, struct ty_error *err)
{
	int result = mbedtls_ssl_handshake(&tls->session);
	char words[128];

	*writes = result == MBEDTLS_ERR_SSL_WANT_WRITE;
	switch (result) {
	case 0:
		tls->established = true;
		return TY_OK;
	case MBEDTLS_ERR_SSL_WANT_READ:
	case MBEDTLS_ERR_SSL_WANT_WRITE:
		return TY_BUSY;
	case MBEDTLS_ERR_X509_CERT_VERIFY_FAILED:
		return not_believed(tls, err);
	case MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE:
		return ty_fail(err, TY_DENIED, "%s ended the TLS handshake: it does not believe the certificate, or wants one (options.tls_cert)",
			tls->url);
	case MBEDTLS_ERR_SSL_CONN_EOF:
		return ty_fail(err, TY_PROTOCOL, "%s closed the connection in the TLS handshake: does it speak TLS?", tls->url);
	case MBEDTLS_ERR_SSL_ALLOC_FAILED:
		return ty_fail(err, TY_NO_MEMORY, "connecting to %s: no memory for TLS", tls->url);
	case SOCKET_FAILED:
		if (tls->error == ECONNRESET || tls->error == EPIPE)
			return ty_fail(err, TY_PROTOCOL, "%s closed the connection in the TLS handshake: does it speak TLS?", tls->url);
		return ty_fail(err, TY_IO, "connecting to %s: %s", tls->url, strerror(tls->error));
	default:
		mbedtls_strerror(result, words, sizeof words);
		return ty_fail(err, TY_PROTOCOL, "%.100s does not speak TLS as it should: %s", tls->url, words);
	}
}

/* A transfer's result as a socket's: -1 and errno, or what it was. */
static ssize_t as_socket(struct ty_tls *tls, int result)
{
	switch (result) {
	case MBEDTLS_ERR_SSL_WANT_READ:
	case MBEDTLS_ERR_SSL_WANT_WRITE:
		errno = EAGAIN;
		return -1;
	case MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY:
	case MBEDTLS_ERR_SSL_CONN_EOF:
		return 0;
	case SOCKET_FAILED:
		errno = tls->error;
		return -1;
	case MBEDTLS_ERR_SSL_ALLOC_FAILED:
		errno = ENOMEM;
		return -1;
	default:
		if (result >= 0)
			return result;
		errno = EPROTO;
		return -1;
	}
}

ssize_t ty_tls_send(struct ty_tls *tls, const void *bytes, size_t length)
{
	assert(tls->established);
	return as_socket(tls, mbedtls_ssl_write(&tls->session, bytes, length));
}

ssize_t ty_tls_recv(struct ty_tls *tls, void *bytes, size_t length)
{
	assert(tls->established);
	return as_socket(tls, mbedtls_ssl_read(&tls->session, bytes, length));
}

void ty_tls_end(struct ty_tls *tls)
{
	if (tls->established)
		(void)mbedtls_ssl_close_notify(&tls->session);
	tls->established = false;
}
