/* SPDX-License-Identifier: Apache-2.0 */
#include "redis_connection.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/secret.h"

#define CERT_BYTES 65536 /* of a file with a certificate, those that it leans on, and its key */
#define READ_BYTES 65536
#define STEP_BYTES (1u << 20) /* of one step: then others have their turn */
#define REPLY_BYTES 65536     /* that any reply may have */

enum state { CONNECTING, SHAKING_HANDS, OPEN, OVER };

/* A command on its way out. */
struct output {
	struct output *next;
	char *bytes; /* hiredis's */
	size_t length;
};

/* A reply that is to come. */
struct awaited {
	struct awaited *next;
	redis_replied *replied;
	void *user;
	uint64_t max;
	uint32_t elements;
};

struct redis_connection {
	enum state state;
	int fd;
	gnutls_session_t tls; /* null: plain */
	bool want_write;      /* the socket, or the handshake, takes no more now */
	struct output *out, **out_end;
	size_t out_at;        /* bytes of the first one that are gone */
	struct awaited *awaited, **awaited_end;
	redisReader *reader;
	redisReplyObjectFunctions whole, bounded; /* hiredis's, and ours */
	uint64_t received;    /* since the last whole reply */
	uint32_t elements;    /* of its lists so far */
	bool answers;         /* there was a reply */
	struct ty_error error;
};

struct redis_tls {
	gnutls_certificate_credentials_t credentials;
};

/* ---- credentials ------------------------------------------------------------------------------------------ */

/* It has the key in it: nobody else may read it. */
static enum ty_code load_own(struct redis_tls *tls, const char *cert, struct ty_error *err)
{
	char *text = malloc(CERT_BYTES);
	gnutls_datum_t pem = {.data = (unsigned char *)text};
	enum ty_code code;
	int n;

	if (!text)
		return ty_fail(err, TY_NO_MEMORY, "--tier: redis: no memory for TLS");
	code = ty_secret_read("--tier: redis: cert", cert, text, CERT_BYTES, err);
	if (code == TY_OK) {
		pem.size = (unsigned)strlen(text);
		n = gnutls_certificate_set_x509_key_mem(tls->credentials, &pem, &pem, GNUTLS_X509_FMT_PEM);
		if (n < 0)
			code = ty_fail(err, TY_INVALID, "--tier: redis: cert %s: %s", cert, gnutls_strerror(n));
	}
	explicit_bzero(text, CERT_BYTES);
	free(text);
	return code;
}

enum ty_code redis_tls_load(const char *ca, const char *cert, struct redis_tls **out, struct ty_error *err)
{
	struct redis_tls *tls = calloc(1, sizeof *tls);
	enum ty_code code;
	int n;

	if (!tls || gnutls_certificate_allocate_credentials(&tls->credentials) < 0) {
		free(tls);
		return ty_fail(err, TY_NO_MEMORY, "--tier: redis: no memory for TLS");
	}
	n = ca ? gnutls_certificate_set_x509_trust_file(tls->credentials, ca, GNUTLS_X509_FMT_PEM)
	       : gnutls_certificate_set_x509_system_trust(tls->credentials);
	if (n <= 0) {
		redis_tls_free(tls);
		return ty_fail(err, TY_INVALID, "--tier: redis: ca %s: %s", ca ? ca : "of the system", n ? gnutls_strerror(n) : "no certificate");
	}
	code = cert ? load_own(tls, cert, err) : TY_OK;
	if (code != TY_OK) {
		redis_tls_free(tls);
		return code;
	}
	*out = tls;
	return TY_OK;
}

void redis_tls_free(struct redis_tls *tls)
{
	if (tls)
		gnutls_certificate_free_credentials(tls->credentials);
	free(tls);
}

/* ---- making and ending ------------------------------------------------------------------------------------ */

/* hiredis would make a list of any length that a server claims, and lists in lists: each element takes more memory than it has bytes. */
static void *create_array(const redisReadTask *task, int elements)
{
	struct redis_connection *c = task->privdata;
	uint32_t most = c->awaited ? c->awaited->elements : REDIS_REPLY_ELEMENTS;

	if (elements < 0 || (uint32_t)elements > most - c->elements)
		return NULL;
	c->elements += (uint32_t)elements;
	return c->whole.createArray(task, elements);
}

static bool make_reader(struct redis_connection *c)
{
	c->reader = redisReaderCreate();
	if (!c->reader)
		return false;
	c->whole = c->bounded = *c->reader->fn;
	c->bounded.createArray = create_array;
	c->reader->fn = &c->bounded;
	c->reader->privdata = c;
	return true;
}

static bool is_numeric(const char *name)
{
	uint8_t address[16];

	return inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
}

static bool make_session(struct redis_connection *c, const struct redis_tls *tls, const char *name)
{
	if (gnutls_init(&c->tls, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) < 0)
		return false;
	gnutls_transport_set_int(c->tls, c->fd);
	gnutls_session_set_verify_cert(c->tls, name, 0); /* keeps the pointer */
	return gnutls_set_default_priority(c->tls) >= 0 &&
	       gnutls_credentials_set(c->tls, GNUTLS_CRD_CERTIFICATE, tls->credentials) >= 0 &&
	       (is_numeric(name) || gnutls_server_name_set(c->tls, GNUTLS_NAME_DNS, name, strlen(name)) >= 0);
}

static enum ty_code begin(struct redis_connection *c, const char *host, int port, struct ty_error *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *found = NULL;
	int one = 1, failed;
	char number[12];

	snprintf(number, sizeof number, "%d", port);
	if (getaddrinfo(host, number, &hints, &found) != 0)
		return ty_fail(err, TY_INVALID, "found host \"%.60s\", expected a numeric address", host);
	c->fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	failed = c->fd < 0 || (connect(c->fd, found->ai_addr, found->ai_addrlen) != 0 && errno != EINPROGRESS);
	freeaddrinfo(found);
	if (failed)
		return ty_fail(err, TY_IO, "%s", strerror(errno));
	(void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	(void)setsockopt(c->fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
	return TY_OK;
}

struct redis_connection *redis_connect(const char *host, int port, const struct redis_tls *tls, const char *name,
	struct ty_error *err)
{
	struct redis_connection *c = calloc(1, sizeof *c);

	if (!c) {
		(void)ty_fail(err, TY_NO_MEMORY, "no memory");
		return NULL;
	}
	c->fd = -1;
	c->out_end = &c->out;
	c->awaited_end = &c->awaited;
	if (begin(c, host, port, err) == TY_OK) {
		if (make_reader(c) && (!tls || make_session(c, tls, name)))
			return c;
		(void)ty_fail(err, TY_NO_MEMORY, "no memory");
	}
	redis_hang_up(c);
	return NULL;
}

static void drop_output(struct redis_connection *c)
{
	struct output *o = c->out;

	c->out = o->next;
	if (!c->out)
		c->out_end = &c->out;
	c->out_at = 0;
	redisFreeCommand(o->bytes);
	free(o);
}

static struct awaited take_awaited(struct redis_connection *c)
{
	struct awaited *first = c->awaited, taken = *first;

	c->awaited = first->next;
	if (!c->awaited)
		c->awaited_end = &c->awaited;
	free(first);
	return taken;
}

void redis_hang_up(struct redis_connection *c)
{
	c->state = OVER;
	while (c->awaited) {
		struct awaited a = take_awaited(c);

		if (a.replied)
			a.replied(a.user, NULL);
	}
	while (c->out)
		drop_output(c);
	if (c->tls)
		gnutls_deinit(c->tls);
	if (c->reader)
		redisReaderFree(c->reader);
	if (c->fd >= 0)
		close(c->fd);
	free(c);
}

/* hiredis counts in an int. */
static bool fits(int count, const size_t *lengths)
{
	uint64_t bytes = 0;

	for (int i = 0; i < count; i++)
		if (lengths[i] > REDIS_COMMAND_MAX || (bytes += lengths[i]) > REDIS_COMMAND_MAX)
			return false;
	return true;
}

bool redis_send(struct redis_connection *c, redis_replied *replied, void *user, const struct redis_bounds *bounds, int count,
	const char *const *words, const size_t *lengths)
{
	struct awaited *a = calloc(1, sizeof *a);
	struct output *o = calloc(1, sizeof *o);
	int length = o && a && fits(count, lengths) ? redisFormatCommandArgv(&o->bytes, count, (const char **)(uintptr_t)words, lengths) : -1;

	if (length < 0) {
		free(o);
		free(a);
		return false;
	}
	o->length = (size_t)length;
	*c->out_end = o;
	c->out_end = &o->next;
	*a = (struct awaited){.replied = replied, .user = user, .max = REPLY_BYTES, .elements = REDIS_REPLY_ELEMENTS};
	if (bounds) {
		a->max += bounds->bytes;
		a->elements = bounds->elements ? bounds->elements : a->elements;
	}
	*c->awaited_end = a;
	c->awaited_end = &a->next;
	return true;
}

/* ---- steps -------------------------------------------------------------------------------------------------- */

static void over(struct redis_connection *c, enum ty_code code, const char *text)
{
	c->state = OVER;
	(void)ty_fail(&c->error, code, "%.150s", text);
}

/* By the other side. With TLS 1.3 a server looks at our certificate when the handshake is over for us; its alert may be lost. */
static void over_by_peer(struct redis_connection *c, const char *text)
{
	if (!c->tls)
		over(c, TY_IO, c->answers ? text : "it has ended the connection (does it speak TLS? rediss:)");
	else if (c->state == OPEN && !c->answers)
		over(c, TY_DENIED, "it has ended the connection (does it want a certificate? cert=)");
	else
		over(c, TY_IO, text);
}

static void over_by_tls(struct redis_connection *c, int code)
{
	gnutls_datum_t text = {0};

	if (code == GNUTLS_E_FATAL_ALERT_RECEIVED) {
		over(c, TY_DENIED, gnutls_alert_get_name(gnutls_alert_get(c->tls)));
	} else if (code == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR &&
		   gnutls_certificate_verification_status_print(gnutls_session_get_verify_cert_status(c->tls), GNUTLS_CRT_X509,
			   &text, 0) >= 0) {
		over(c, TY_DENIED, (const char *)text.data);
		gnutls_free(text.data);
	} else if (code == GNUTLS_E_PULL_ERROR || code == GNUTLS_E_PUSH_ERROR || code == GNUTLS_E_PREMATURE_TERMINATION) {
		over_by_peer(c, gnutls_strerror(code));
	} else {
		over(c, TY_PROTOCOL, gnutls_strerror(code));
	}
}

static bool is_again(int code)
{
	return code == GNUTLS_E_AGAIN || code == GNUTLS_E_INTERRUPTED;
}

/* Bytes; 0: none now; below: it is over. */
static ssize_t put_bytes(struct redis_connection *c, const char *bytes, size_t length)
{
	ssize_t n = c->tls ? gnutls_record_send(c->tls, bytes, length) : send(c->fd, bytes, length, MSG_NOSIGNAL);

	if (n >= 0)
		return n;
	if (c->tls ? is_again((int)n) : errno == EAGAIN || errno == EINTR)
		return 0;
	if (c->tls)
		over_by_tls(c, (int)n);
	else
		over_by_peer(c, strerror(errno));
	return -1;
}

static ssize_t get_bytes(struct redis_connection *c, char *bytes, size_t room)
{
	ssize_t n = c->tls ? gnutls_record_recv(c->tls, bytes, room) : recv(c->fd, bytes, room, 0);

	if (n > 0)
		return n;
	if (n == 0) {
		over_by_peer(c, "it has ended the connection");
		return -1;
	}
	if (c->tls ? is_again((int)n) || n == GNUTLS_E_REHANDSHAKE : errno == EAGAIN || errno == EINTR)
		return 0;
	if (c->tls)
		over_by_tls(c, (int)n);
	else
		over_by_peer(c, strerror(errno));
	return -1;
}

static bool write_out(struct redis_connection *c)
{
	c->want_write = false;
	while (c->out) {
		ssize_t n = put_bytes(c, c->out->bytes + c->out_at, c->out->length - c->out_at);

		if (n < 0)
			return false;
		c->want_write = n == 0;
		if (n == 0)
			break;
		c->out_at += (size_t)n;
		if (c->out_at == c->out->length)
			drop_output(c);
	}
	return true;
}

static bool take_replies(struct redis_connection *c)
{
	void *reply = NULL;

	while (redisReaderGetReply(c->reader, &reply) == REDIS_OK && reply) {
		struct awaited a;

		if (!c->awaited) {
			freeReplyObject(reply);
			over(c, TY_PROTOCOL, "a reply to nothing");
			return false;
		}
		a = take_awaited(c);
		c->received = 0;
		c->elements = 0;
		c->answers = true;
		if (a.replied)
			a.replied(a.user, reply);
		freeReplyObject(reply);
		reply = NULL;
	}
	if (c->reader->err || c->received > (c->awaited ? c->awaited->max : 0)) {
		over(c, TY_PROTOCOL, c->reader->err ? c->reader->errstr : "a reply of more bytes than anything that was asked for");
		return false;
	}
	return true;
}

static bool read_in(struct redis_connection *c)
{
	char bytes[READ_BYTES];

	/* What GnuTLS has decrypted already no event would tell of. */
	for (size_t taken = 0; taken < STEP_BYTES || (c->tls && gnutls_record_check_pending(c->tls));) {
		ssize_t n = get_bytes(c, bytes, sizeof bytes);

		if (n <= 0)
			return n == 0;
		taken += (size_t)n;
		c->received += (uint64_t)n;
		if (redisReaderFeed(c->reader, bytes, (size_t)n) != REDIS_OK) {
			over(c, TY_NO_MEMORY, c->reader->errstr);
			return false;
		}
		if (!take_replies(c))
			return false;
	}
	return true;
}

static bool finish_connect(struct redis_connection *c)
{
	struct sockaddr_storage peer;
	socklen_t length = sizeof peer;
	int failed = 0;

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &failed, &(socklen_t){sizeof failed}) != 0 || failed) {
		over(c, TY_IO, strerror(failed ? failed : errno));
		return false;
	}
	if (getpeername(c->fd, (struct sockaddr *)&peer, &length) == 0)
		c->state = c->tls ? SHAKING_HANDS : OPEN;
	return true; /* else: not yet */
}

static bool shake_hands(struct redis_connection *c)
{
	int code = gnutls_handshake(c->tls);

	if (code == GNUTLS_E_SUCCESS) {
		c->state = OPEN;
	} else if (!is_again(code) && gnutls_error_is_fatal(code)) {
		over_by_tls(c, code);
		return false;
	}
	c->want_write = c->state != OPEN && gnutls_record_get_direction(c->tls) == 1;
	return true;
}

bool redis_step(struct redis_connection *c)
{
	assert(c->state != OVER);
	if (c->state == CONNECTING && !finish_connect(c))
		return false;
	if (c->state == SHAKING_HANDS && !shake_hands(c))
		return false;
	return c->state != OPEN || (write_out(c) && read_in(c) && (c->want_write || write_out(c)));
}

bool redis_is_open(const struct redis_connection *c)
{
	return c->state == OPEN;
}

uint32_t redis_events(const struct redis_connection *c)
{
	return c->state == CONNECTING ? EPOLLOUT : EPOLLIN | (c->want_write ? (uint32_t)EPOLLOUT : 0);
}

bool redis_wants_out(const struct redis_connection *c)
{
	return c->state == OPEN && c->out && !c->want_write;
}

int redis_fd(const struct redis_connection *c)
{
	return c->fd;
}

const struct ty_error *redis_error(const struct redis_connection *c)
{
	return &c->error;
}
