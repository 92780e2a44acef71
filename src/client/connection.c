/* SPDX-License-Identifier: Apache-2.0 */
#include "client/connection.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/folder.h"
#include "wire/request.h"

#define GREETING_BYTES 8
#define READ_BYTES 16384 /* room of the buffer; a longer frame gets more, for as long as it takes */
#define FRAME_MAX (TY_REPLY_MAX_BYTES + 4)

/* A peer that froze without an end (over tcp) is found after 10 s of silence and three probes, or 10 s after what it does not
 * acknowledge. */
#define KEEP_IDLE_S 10
#define KEEP_INTERVAL_S 5
#define KEEP_PROBES 3
#define UNACKNOWLEDGED_MS 10000

static const uint8_t our_greeting[GREETING_BYTES] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};   /* REQ */
static const uint8_t their_greeting[GREETING_BYTES] = {0, 'S', 'P', 0, 0, 0x31, 0, 0}; /* REP */

/* ---- addresses ------------------------------------------------------------------------------------------------------- */

static enum ty_code parse_ipc(const char *url, struct ty_address *out, struct ty_error *err)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&out->socket;
	const char *path = url + strlen("ipc://");

	if (path[0] == '\0' || strlen(path) >= sizeof un->sun_path)
		return ty_fail(err, TY_INVALID, "options.url: its path is %zu bytes long, expected 1..%zu", strlen(path),
			sizeof un->sun_path - 1);
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, strlen(path) + 1);
	out->length = sizeof *un;
	out->ipc = true;
	return TY_OK;
}

static bool parse_port(const char *text, in_port_t *port)
{
	unsigned long value = 0;

	if (*text == '\0' || strlen(text) > 5)
		return false;
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9')
			return false;
		value = value * 10 + (unsigned long)(*text - '0');
	}
	*port = htons((uint16_t)value);
	return value >= 1 && value <= 65535;
}

/* `rest` is what follows the scheme. */
static enum ty_code parse_tcp(const char *url, const char *rest, struct ty_address *out, struct ty_error *err)
{
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&out->socket;
	struct sockaddr_in *in = (struct sockaddr_in *)&out->socket;
	const char *colon = strrchr(rest, ':');
	char *host = out->host;
	in_port_t port;
	size_t length;

	length = colon != NULL ? (size_t)(colon - rest) : 0;
	if (colon == NULL || length == 0 || length >= sizeof out->host || !parse_port(colon + 1, &port))
		return ty_fail(err, TY_INVALID, "options.url is \"%s\", expected %.*sADDRESS:PORT", url, (int)(rest - url), url);
	memcpy(host, rest, length);
	host[length] = '\0';
	if (host[0] == '[' && host[length - 1] == ']') {
		memmove(host, host + 1, length - 2); /* without its brackets */
		host[length - 2] = '\0';
		if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
			in6->sin6_family = AF_INET6;
			in6->sin6_port = port;
			out->length = sizeof *in6;
			return TY_OK;
		}
	} else if (inet_pton(AF_INET, strcmp(host, "localhost") == 0 ? "127.0.0.1" : host, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = port;
		out->length = sizeof *in;
		return TY_OK;
	}
	return ty_fail(err, TY_INVALID, "options.url is \"%s\", expected a numeric address: 127.0.0.1 or [::1]", url);
}

enum ty_code ty_address_parse(const char *url, struct ty_address *out, struct ty_error *err)
{
	memset(out, 0, sizeof *out);
	out->url = url;
	if (strncmp(url, "ipc://", 6) == 0)
		return parse_ipc(url, out, err);
	if (strncmp(url, "tcp://", 6) == 0)
		return parse_tcp(url, url + 6, out, err);
	out->secure = strncmp(url, "tls+tcp://", 10) == 0;
	if (out->secure)
		return parse_tcp(url, url + 10, out, err);
	return ty_fail(err, TY_INVALID, "options.url is \"%s\", expected ipc://PATH, tls+tcp://ADDRESS:PORT or tcp://ADDRESS:PORT", url);
}

/* ---- sending --------------------------------------------------------------------------------------------------------- */

static uint8_t *put_number(uint8_t *out, uint64_t value, int bytes)
{
	while (bytes-- > 0)
		*out++ = (uint8_t)(value >> 8 * bytes);
	return out;
}

struct ty_frame *ty_frame_new(const struct ty_address *address, uint32_t id, size_t body, uint8_t **at)
{
	size_t head = address->ipc ? 1 + 8 + 4 : 8 + 4;
	struct ty_frame *f = malloc(sizeof *f + head + body);
	uint8_t *out;

	if (f == NULL)
		return NULL;
	*f = (struct ty_frame){.size = head + body};
	out = f->bytes;
	if (address->ipc)
		*out++ = 1; /* a message */
	out = put_number(out, 4 + body, 8);
	*at = put_number(out, id, 4);
	return f;
}

static void drop_first(struct ty_connection *c)
{
	struct ty_frame *f = c->out;

	c->out = f->next;
	if (c->out == NULL)
		c->out_end = &c->out;
	if (f->queued != NULL)
		*f->queued = false;
	free(f);
}

static void wait_for_room(struct ty_connection *c, bool wait)
{
	struct epoll_event event = {.events = wait ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.fd = c->fd};
	int rv;

	if (c->waits == wait)
		return;
	c->waits = wait;
	rv = epoll_ctl(c->epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
	assert(rv == 0);
}

static enum ty_code over(int error, struct ty_error *err)
{
	if (error == EPIPE || error == ECONNRESET || error == ENOTCONN)
		return ty_fail(err, TY_CLOSED, "the connection to the service ended before the answer");
	if (error == EPROTO)
		return ty_fail(err, TY_PROTOCOL, "the connection to the service: what came is not what TLS sends");
	if (error == ETIMEDOUT)
		return ty_fail(err, TY_CLOSED, "the service's machine does not answer: the connection is lost");
	return ty_fail(err, TY_IO, "the connection to the service: %s", strerror(error));
}

/* As send and recv. */
static ssize_t transmit(struct ty_connection *c, const uint8_t *bytes, size_t length)
{
	return c->tls != NULL ? ty_tls_send(c->session, bytes, length) : send(c->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static ssize_t receive(struct ty_connection *c, uint8_t *bytes, size_t length)
{
	return c->tls != NULL ? ty_tls_recv(c->session, bytes, length) : recv(c->fd, bytes, length, MSG_DONTWAIT);
}

enum ty_code ty_connection_flush(struct ty_connection *c, struct ty_error *err)
{
	while (c->out != NULL) {
		struct ty_frame *f = c->out;
		ssize_t n = transmit(c, f->bytes + f->sent, f->size - f->sent);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (n < 0)
			return over(errno, err);
		f->sent += (size_t)n;
		if (f->sent == f->size)
			drop_first(c);
	}
	wait_for_room(c, c->out != NULL);
	return TY_OK;
}

enum ty_code ty_connection_send(struct ty_connection *c, struct ty_frame *frame, struct ty_error *err)
{
	bool first = c->out == NULL;

	frame->next = NULL;
	if (frame->queued != NULL)
		*frame->queued = true;
	*c->out_end = frame;
	c->out_end = &frame->next;
	return first ? ty_connection_flush(c, err) : TY_OK; /* else the socket is full: its room is waited for */
}

/* ---- dialing --------------------------------------------------------------------------------------------------------- */

static enum ty_code dial_error(int error, const char *url, struct ty_error *err)
{
	switch (error) {
	case ECONNREFUSED:
	case ENOENT:
		return ty_fail(err, TY_CLOSED, "nobody listens at %s", url);
	case ETIMEDOUT:
	case EHOSTUNREACH:
	case ENETUNREACH:
		return ty_fail(err, TY_TIMEOUT, "connecting to %s: %s", url, strerror(error));
	case EPROTOTYPE:
		return ty_fail(err, TY_PROTOCOL, "%s is a socket of another kind", url);
	case EACCES:
	case EPERM:
		return ty_fail(err, TY_DENIED, "connecting to %s is not permitted", url);
	default:
		return ty_fail(err, TY_IO, "connecting to %s: %s", url, strerror(error));
	}
}

static void set_tcp_options(int fd)
{
	static const struct { int level, name, value; } options[] = {
		{IPPROTO_TCP, TCP_NODELAY, 1}, {SOL_SOCKET, SO_KEEPALIVE, 1}, {IPPROTO_TCP, TCP_KEEPIDLE, KEEP_IDLE_S},
		{IPPROTO_TCP, TCP_KEEPINTVL, KEEP_INTERVAL_S}, {IPPROTO_TCP, TCP_KEEPCNT, KEEP_PROBES},
		{IPPROTO_TCP, TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS},
	};

	for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
		(void)setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof options[i].value);
}

enum ty_code ty_connection_dial(struct ty_connection *c, const struct ty_address *address, struct ty_tls *tls, int epoll_fd,
	struct ty_error *err)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLOUT};
	int rv, error;

	assert(c->fd < 0 && c->out == NULL && address->secure == (tls != NULL));
	*c = (struct ty_connection){.fd = -1, .epoll_fd = epoll_fd, .address = address, .tls = tls, .waits = true};
	c->out_end = &c->out;
	if (address->ipc && ty_folder_check(((const struct sockaddr_un *)&address->socket)->sun_path, err) != TY_OK)
		return err->code;
	c->fd = socket(address->socket.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->fd < 0)
		return ty_fail(err, TY_IO, "connecting to %s: socket: %s", address->url, strerror(errno));
	if (!address->ipc)
		set_tcp_options(c->fd);
	do
		rv = connect(c->fd, (const struct sockaddr *)&address->socket, address->length);
	while (rv != 0 && errno == EINTR);
	error = errno;
	if (rv == 0 || error == EINPROGRESS) {
		event.data.fd = c->fd;
		if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event) == 0)
			return TY_OK;
		error = errno;
	}
	ty_connection_close(c);
	if (error == EAGAIN)
		return ty_fail(err, TY_BUSY, "%s accepts nobody: its backlog is full", address->url);
	return dial_error(error, address->url, err);
}

/* Is the socket connected? */
static enum ty_code connected(struct ty_connection *c, struct ty_error *err)
{
	socklen_t length = sizeof(int);
	int error = 0;

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0)
		error = errno;
	if (error != 0)
		return dial_error(error, c->address->url, err);
	c->connected = true;
	return c->tls != NULL ? ty_tls_begin(c->tls, c->fd, c->address->url, &c->session, err) : TY_OK;
}

static enum ty_code secured(struct ty_connection *c, struct ty_error *err)
{
	bool writes;
	enum ty_code code = ty_tls_handshake(c->session, &writes, err);

	if (code == TY_BUSY)
		wait_for_room(c, writes);
	return code;
}

enum ty_code ty_connection_dialed(struct ty_connection *c, struct ty_error *err)
{
	struct ty_frame *greeting;
	enum ty_code code = c->connected ? TY_OK : connected(c, err);

	if (code == TY_OK && c->tls != NULL)
		code = secured(c, err);
	if (code != TY_OK)
		return code;
	greeting = malloc(sizeof *greeting + GREETING_BYTES);
	if (greeting == NULL)
		return ty_fail(err, TY_NO_MEMORY, "connecting to %s: no memory", c->address->url);
	*greeting = (struct ty_frame){.size = GREETING_BYTES};
	memcpy(greeting->bytes, our_greeting, GREETING_BYTES);
	return ty_connection_send(c, greeting, err);
}

void ty_client_close_watched(int epoll_fd, int *fd)
{
	struct epoll_event unused = {0};

	if (*fd < 0)
		return;
	/* Closing alone takes it out of the set only if nobody has a copy: a child of fork has. What it then tells of would be told for ever, and
	 * under a number that is another descriptor's by then. Fails where it never was in the set. */
	(void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, *fd, &unused);
	close(*fd);
	*fd = -1;
}

void ty_connection_close(struct ty_connection *c)
{
	ty_tls_end(c->session);
	c->session = NULL;
	ty_client_close_watched(c->epoll_fd, &c->fd);
	while (c->out != NULL)
		drop_first(c);
	free(c->in);
	c->in = NULL;
	c->in_from = c->in_to = c->in_room = 0;
}

/* ---- receiving ------------------------------------------------------------------------------------------------------- */

static enum ty_code take_greeting(struct ty_connection *c, struct ty_error *err)
{
	const uint8_t *p = c->in + c->in_from;

	if (c->in_to - c->in_from < GREETING_BYTES)
		return TY_BUSY;
	if (memcmp(p, their_greeting, GREETING_BYTES) != 0)
		return ty_fail(err, TY_PROTOCOL, "%s does not answer as nng's REP protocol does, but with "
			"%02x %02x %02x %02x %02x %02x %02x %02x", c->address->url, p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]);
	c->in_from += GREETING_BYTES;
	c->greeted = true;
	return TY_OK;
}

/* A whole frame that is buffered. TY_BUSY: *need bytes must be there first. */
static enum ty_code take_frame(struct ty_connection *c, uint32_t *id, const uint8_t **bytes, size_t *length, size_t *need,
	struct ty_error *err)
{
	const uint8_t *p = c->in + c->in_from;
	size_t head = c->address->ipc ? 9 : 8;
	uint64_t size = 0;

	*need = head;
	if (c->in_to - c->in_from < head)
		return TY_BUSY;
	if (c->address->ipc && p[0] != 1)
		return ty_fail(err, TY_PROTOCOL, "the service sent a frame of type %u, expected 1", p[0]);
	for (size_t i = head - 8; i < head; i++)
		size = size << 8 | p[i];
	if (size < 4 || size > FRAME_MAX)
		return ty_fail(err, TY_PROTOCOL, "the service sent a frame of %llu bytes, expected 4..%d", (unsigned long long)size,
			FRAME_MAX);
	*need = head + (size_t)size;
	if (c->in_to - c->in_from < *need)
		return TY_BUSY;
	p += head;
	*id = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
	*bytes = p + 4;
	*length = (size_t)size - 4;
	c->in_from += *need;
	return TY_OK;
}

/* Room for `need` bytes from in_from on. */
static bool make_room(struct ty_connection *c, size_t need)
{
	size_t have = c->in_to - c->in_from, room = need > READ_BYTES ? need : READ_BYTES;
	uint8_t *in;

	if (c->in_room < need || (have == 0 && c->in_room != READ_BYTES)) { /* larger; or the usual one again */
		in = malloc(room);
		if (in == NULL)
			return false;
		if (have != 0)
			memcpy(in, c->in + c->in_from, have);
		free(c->in);
		c->in = in;
		c->in_room = room;
	} else if (c->in_from != 0) {
		memmove(c->in, c->in + c->in_from, have);
	}
	c->in_from = 0;
	c->in_to = have;
	return true;
}

enum ty_code ty_connection_take(struct ty_connection *c, uint32_t *id, const uint8_t **bytes, size_t *length,
	struct ty_error *err)
{
	for (;;) {
		size_t need = GREETING_BYTES;
		enum ty_code code;
		ssize_t n;

		*bytes = NULL;
		if (c->in == NULL && !make_room(c, need))
			return ty_fail(err, TY_NO_MEMORY, "no memory for what the service says");
		code = c->greeted ? take_frame(c, id, bytes, length, &need, err) : take_greeting(c, err);
		if (code != TY_BUSY)
			return code;
		if (!make_room(c, need))
			return ty_fail(err, TY_NO_MEMORY, "no memory for a reply of %zu bytes", need);
		n = receive(c, c->in + c->in_to, c->in_room - c->in_to);
		if (n > 0)
			c->in_to += (size_t)n;
		else if (n == 0 || errno == ECONNRESET) /* reset: it left unread what we said */
			return c->greeted ? over(ECONNRESET, err)
					  : ty_fail(err, TY_PROTOCOL, "%s accepts connections, but does not answer as nng's REP "
						  "protocol does: it closed this one%s", c->address->url,
						  c->address->ipc || c->address->secure ? "" : " (does it speak TLS?)");
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			return TY_BUSY;
		else if (errno != EINTR)
			return over(errno, err);
	}
}
