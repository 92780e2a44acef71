/* SPDX-License-Identifier: Apache-2.0
 *
 * The connection for requests, from the client's side: a socket that does not block, on which the wire of nng's REQ protocol
 * is spoken (docs/wire.md). It belongs to the client's thread; none of its functions waits.
 *
 * It is not nng's REQ socket because a client must know when its connection is lost, bound how long a dial takes (the system's
 * own bound is 127 s), close in bounded time, and start no threads in an engine's process.
 */
#ifndef TY_CLIENT_CONNECTION_H
#define TY_CLIENT_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <tyer/result.h>

#include "wire/tls.h"

struct ty_address {
	const char *url; /* for texts; the caller's */
	struct sockaddr_storage socket;
	socklen_t length;
	bool ipc; /* its frames carry a type */
	bool secure; /* TLS; `host` is then what the certificate is for, if nothing else was said */
	char host[64];
};

/* "ipc://PATH", "tcp://ADDRESS:PORT", "tls+tcp://ADDRESS:PORT" (numeric, "[::1]" or "localhost": a name would wait for a resolver).
 * TY_INVALID. */
TY_MUST_USE enum ty_code ty_address_parse(const char *url, struct ty_address *out, struct ty_error *err);

struct ty_frame { /* on its way out; on the heap */
	struct ty_frame *next;
	bool *queued; /* cleared when it is out, or will never be */
	size_t size, sent;
	uint8_t bytes[];
};

struct ty_connection {
	int fd, epoll_fd; /* fd is -1: none */
	const struct ty_address *address;
	struct ty_tls *tls; /* null: none; the caller's */
	struct ty_tls_session *session; /* of it, from when the socket is connected */
	bool connected; /* the socket is, TLS perhaps not yet */
	bool greeted, waits; /* the peer's greeting is there; for room to send */
	struct ty_frame *out, **out_end;
	uint8_t *in;
	size_t in_from, in_to, in_room;
};

/* Room for `body` bytes of a request with number `id` (its first bit set); *at is where they go. Null: no memory. */
struct ty_frame *ty_frame_new(const struct ty_address *address, uint32_t id, size_t body, uint8_t **at);

/* Begin to connect, with the descriptor in the epoll set. `tls` belongs to an address that is secure, and is null for others. TY_OK:
 * under way, with an event when there is something to do. TY_BUSY: the peer's backlog is full, try again soon. */
TY_MUST_USE enum ty_code ty_connection_dial(struct ty_connection *c, const struct ty_address *address, struct ty_tls *tls, int epoll_fd,
	struct ty_error *err);
/* An event: is it connected, and secure? TY_BUSY: not yet. Sends our greeting then. */
TY_MUST_USE enum ty_code ty_connection_dialed(struct ty_connection *c, struct ty_error *err);
/* Queue the frame, which is the connection's from here on, and send what the socket takes. */
TY_MUST_USE enum ty_code ty_connection_send(struct ty_connection *c, struct ty_frame *frame, struct ty_error *err);
TY_MUST_USE enum ty_code ty_connection_flush(struct ty_connection *c, struct ty_error *err);
/* The next thing that came, from what is buffered or from the socket. TY_OK: *bytes has a reply of number *id, or is null: the
 * greeting. Good until the next call. TY_BUSY: nothing more now. TY_CLOSED, TY_PROTOCOL, TY_IO, TY_NO_MEMORY: it is over. */
TY_MUST_USE enum ty_code ty_connection_take(struct ty_connection *c, uint32_t *id, const uint8_t **bytes, size_t *length,
	struct ty_error *err);
void ty_connection_close(struct ty_connection *c);
/* Take *fd out of the epoll set, close it, and set it to -1; -1 is allowed. For the attach connection, too. */
void ty_client_close_watched(int epoll_fd, int *fd);

#endif
