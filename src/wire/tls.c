/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/tls.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <mbedtls/error.h>
#include <mbedtls/pk.h>
#include <mbedtls/ssl.h>
#include <mbedtls/x509_crt.h>

#define SAN_IP (MBEDTLS_ASN1_CONTEXT_SPECIFIC | MBEDTLS_X509_SAN_IP_ADDRESS)

/* Results of the two callbacks over the socket: any that are no other error's. */
#define SOCKET_FAILED (-0x004e)

#define BUDGET 16384 /* bytes that one call takes from the socket: about a record */

struct ty_tls {
	mbedtls_ssl_config config;
	mbedtls_x509_crt ca, own;
	mbedtls_pk_context key;
	bool service;
	char *name;              /* a client's; null: an address is checked instead */
	uint8_t address[16];
	size_t address_length;
};

struct ty_tls_session {
	const struct ty_tls *tls;
	mbedtls_ssl_context context;
	const char *peer; /* for texts; the caller's */
	int fd, error;    /* of the socket, when it failed */
	size_t budget;    /* bytes that this call may still take from the socket */
	bool established;
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

static int socket_result(struct ty_tls_session *session, ssize_t n, int again)
{
	if (n >= 0)
		return (int)n;
	if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)
		return again;
	session->error = errno;
	return SOCKET_FAILED;
}

static int to_socket(void *user, const unsigned char *bytes, size_t length)
{
	struct ty_tls_session *session = user;

	return socket_result(session, send(session->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT), MBEDTLS_ERR_SSL_WANT_WRITE);
}

/* The library goes on reading over what says nothing to it (alerts that are warnings), for as long as the peer sends such. */
static int from_socket(void *user, unsigned char *bytes, size_t length)
{
	struct ty_tls_session *session = user;
	int result = MBEDTLS_ERR_SSL_WANT_READ;

	if (session->budget > 0)
		result = socket_result(session, recv(session->fd, bytes, length < session->budget ? length : session->budget, MSG_DONTWAIT),
			MBEDTLS_ERR_SSL_WANT_READ);
	session->budget -= result > 0 ? (size_t)result : 0;
	return result;
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

/* What a side calls its files, and what it says of one that is not right. */
struct names {
	const char *ca, *own;
	enum ty_code code;
};
static const struct names client_names = {"options.tls_ca", "options.tls_cert", TY_INVALID};
static const struct names service_names = {"--tls-ca", "--tls-cert", TY_IO};

/* `error` is what parsing or checking a file said: below 0 it is mbedTLS's, above so many certificates could not be read. */
static enum ty_code judge(int error, const char *what, const char *path, const char *expected, enum ty_code code, struct ty_error *err)
{
	char words[128];

	if (error == 0)
		return TY_OK;
	if (error > 0)
		return ty_fail(err, code, "%s: \"%.120s\": %d of its certificates cannot be read", what, path, error);
	if (access(path, R_OK) != 0)
		snprintf(words, sizeof words, "%s", strerror(errno)); /* the library says "file failed" */
	else
		mbedtls_strerror(error, words, sizeof words);
	return ty_fail(err, code, "%s: \"%.120s\": %.100s, expected a PEM file with %s", what, path, words, expected);
}

static enum ty_code read_ca(struct ty_tls *tls, const char *path, const struct names *names, struct ty_error *err)
{
	return judge(mbedtls_x509_crt_parse_file(&tls->ca, path), names->ca, path, "certificates", names->code, err);
}

static enum ty_code read_own(struct ty_tls *tls, const char *path, const struct names *names, struct ty_error *err)
{
	int error = mbedtls_x509_crt_parse_file(&tls->own, path);

	if (error == 0)
		error = mbedtls_pk_parse_keyfile(&tls->key, path, NULL);
	if (error == 0)
		error = mbedtls_pk_check_pair(&tls->own.pk, &tls->key);
	if (error == 0)
		error = mbedtls_ssl_conf_own_cert(&tls->config, &tls->own, &tls->key);
	return judge(error, names->own, path, "a certificate and its key", names->code, err);
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

static enum ty_code make(bool service, struct ty_tls **out, struct ty_error *err)
{
	struct ty_tls *tls = calloc(1, sizeof *tls);

	*out = NULL;
	if (tls == NULL)
		return ty_fail(err, TY_NO_MEMORY, "no memory for TLS");
	tls->service = service;
	mbedtls_ssl_config_init(&tls->config);
	mbedtls_x509_crt_init(&tls->ca);
	mbedtls_x509_crt_init(&tls->own);
	mbedtls_pk_init(&tls->key);
	if (mbedtls_ssl_config_defaults(&tls->config, service ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
		    MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT) != 0) {
		ty_tls_close(tls);
		return ty_fail(err, TY_NO_MEMORY, "no memory for TLS");
	}
	mbedtls_ssl_conf_min_version(&tls->config, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3); /* TLS 1.2 */
	mbedtls_ssl_conf_rng(&tls->config, draw, NULL);
	*out = tls;
	return TY_OK;
}

static enum ty_code made(struct ty_tls **out, enum ty_code code)
{
	if (code != TY_OK) {
		ty_tls_close(*out);
		*out = NULL;
	}
	return code;
}

enum ty_code ty_tls_open(const char *ca, const char *own, const char *name, struct ty_tls **out, struct ty_error *err)
{
	enum ty_code code = make(false, out, err);
	struct ty_tls *tls = *out;

	if (code != TY_OK)
		return code;
	mbedtls_ssl_conf_authmode(&tls->config, MBEDTLS_SSL_VERIFY_REQUIRED);
	mbedtls_ssl_conf_ca_chain(&tls->config, &tls->ca, NULL);
	mbedtls_ssl_conf_verify(&tls->config, check_address, tls);
	code = read_ca(tls, ca, &client_names, err);
	if (code == TY_OK && own != NULL)
		code = read_own(tls, own, &client_names, err);
	if (code == TY_OK)
		code = set_name(tls, name, err);
	return made(out, code);
}

enum ty_code ty_tls_open_service(const char *own, const char *ca, struct ty_tls **out, struct ty_error *err)
{
	enum ty_code code = make(true, out, err);
	struct ty_tls *tls = *out;

	if (code != TY_OK)
		return code;
	mbedtls_ssl_conf_authmode(&tls->config, ca != NULL ? MBEDTLS_SSL_VERIFY_REQUIRED : MBEDTLS_SSL_VERIFY_NONE);
	mbedtls_ssl_conf_ca_chain(&tls->config, &tls->ca, NULL);
	code = read_own(tls, own, &service_names, err);
	if (code == TY_OK && ca != NULL)
		code = read_ca(tls, ca, &service_names, err);
	return made(out, code);
}

void ty_tls_close(struct ty_tls *tls)
{
	if (tls == NULL)
		return;
	mbedtls_ssl_config_free(&tls->config);
	mbedtls_x509_crt_free(&tls->ca);
	mbedtls_x509_crt_free(&tls->own);
	mbedtls_pk_free(&tls->key);
	free(tls->name);
	free(tls);
}

/* ---- a session ------------------------------------------------------------------------------------------------------------ */

enum ty_code ty_tls_begin(struct ty_tls *tls, int fd, const char *peer, struct ty_tls_session **out, struct ty_error *err)
{
	struct ty_tls_session *session = calloc(1, sizeof *session);

	*out = NULL;
	if (session == NULL)
		return ty_fail(err, TY_NO_MEMORY, "%s: no memory for TLS", peer);
	session->tls = tls;
	session->fd = fd;
	session->peer = peer;
	mbedtls_ssl_init(&session->context);
	/* a name is also told to the peer; of an address nothing is (null) */
	if (mbedtls_ssl_setup(&session->context, &tls->config) != 0 ||
		(!tls->service && mbedtls_ssl_set_hostname(&session->context, tls->name) != 0)) {
		ty_tls_end(session);
		return ty_fail(err, TY_NO_MEMORY, "%s: no memory for TLS", peer);
	}
	mbedtls_ssl_set_bio(&session->context, session, to_socket, from_socket, NULL);
	*out = session;
	return TY_OK;
}

static enum ty_code not_believed(struct ty_tls_session *session, struct ty_error *err)
{
	uint32_t flags = mbedtls_ssl_get_verify_result(&session->context);
	char words[160];
	int length = mbedtls_x509_crt_verify_info(words, sizeof words, "", flags);

	for (int i = 0; i < length; i++)
		if (words[i] == '\n')
			words[i] = i + 1 < length ? ';' : '\0';
	return ty_fail(err, TY_DENIED, "the certificate of %.100s is not believed: %s", session->peer,
		length > 0 ? words : "no reason is known");
}

/* The peer closed the connection, or ended the handshake with an alert. */
static enum ty_code turned_away(const struct ty_tls_session *session, bool alert, struct ty_error *err)
{
	if (!alert)
		return ty_fail(err, TY_PROTOCOL, "%s closed the connection in the TLS handshake: does it speak TLS?", session->peer);
	return ty_fail(err, TY_DENIED, "%s ended the TLS handshake: it does not believe the certificate%s", session->peer,
		session->tls->service ? "" : ", or wants one (options.tls_cert)");
}

enum ty_code ty_tls_handshake(struct ty_tls_session *session, bool *writes, struct ty_error *err)
{
	char words[128];
	int result;

	session->budget = BUDGET;
	result = mbedtls_ssl_handshake(&session->context);
	*writes = result == MBEDTLS_ERR_SSL_WANT_WRITE;
	switch (result) {
	case 0:
		session->established = true;
		return TY_OK;
	case MBEDTLS_ERR_SSL_WANT_READ:
	case MBEDTLS_ERR_SSL_WANT_WRITE:
		return TY_BUSY;
	case MBEDTLS_ERR_X509_CERT_VERIFY_FAILED:
		return not_believed(session, err);
	case MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE:
		return turned_away(session, true, err);
	case MBEDTLS_ERR_SSL_CONN_EOF:
		return turned_away(session, false, err);
	case MBEDTLS_ERR_SSL_ALLOC_FAILED:
		return ty_fail(err, TY_NO_MEMORY, "%s: no memory for TLS", session->peer);
	case SOCKET_FAILED:
		if (session->error == ECONNRESET || session->error == EPIPE)
			return turned_away(session, false, err);
		return ty_fail(err, TY_IO, "%s: %s", session->peer, strerror(session->error));
	default:
		mbedtls_strerror(result, words, sizeof words);
		return ty_fail(err, TY_PROTOCOL, "%.100s does not speak TLS as it should: %s", session->peer, words);
	}
}

/* A transfer's result as a socket's: -1 and errno, or what it was. */
static ssize_t as_socket(const struct ty_tls_session *session, int result)
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
		errno = session->error;
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

ssize_t ty_tls_send(struct ty_tls_session *session, const void *bytes, size_t length)
{
	assert(session->established);
	return as_socket(session, mbedtls_ssl_write(&session->context, bytes, length));
}

ssize_t ty_tls_recv(struct ty_tls_session *session, void *bytes, size_t length)
{
	assert(session->established);
	session->budget = BUDGET;
	return as_socket(session, mbedtls_ssl_read(&session->context, bytes, length));
}

bool ty_tls_holds(const struct ty_tls_session *session)
{
	return mbedtls_ssl_check_pending(&session->context) != 0;
}

void ty_tls_end(struct ty_tls_session *session)
{
	if (session == NULL)
		return;
	if (session->established)
		(void)mbedtls_ssl_close_notify(&session->context);
	mbedtls_ssl_free(&session->context);
	free(session);
}
