/* SPDX-License-Identifier: Apache-2.0
 *
 * TLS over the client's socket: mbedTLS, which is also what the service's side (nng) uses. It belongs to the client's thread, and
 * none of its functions waits. The service's certificate is always checked: who signed it, when it is good, and for whom.
 */
#ifndef TY_CLIENT_TLS_H
#define TY_CLIENT_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <tyer/result.h>

struct ty_tls; /* opaque: what is believed and shown, and one session at a time */

/* `ca` and `own` (null: none is shown) are PEM files; the latter holds a certificate and its key. The service's certificate must be good for
 * `name`: a numeric address stands in it as an IP address, anything else as a DNS name. Reads the files. TY_INVALID, TY_NO_MEMORY, TY_IO. */
TY_MUST_USE enum ty_code ty_tls_open(const char *ca, const char *own, const char *name, struct ty_tls **out, struct ty_error *err);
void ty_tls_close(struct ty_tls *tls); /* null is allowed */

/* A new session over a connected socket, instead of one before it. */
TY_MUST_USE enum ty_code ty_tls_begin(struct ty_tls *tls, int fd, const char *url, struct ty_error *err);
/* TY_OK: the peer is who it should be. TY_BUSY: go on when the socket can be read, or, with *writes, be written to. TY_DENIED: one side
 * does not believe the other. TY_PROTOCOL: it does not speak TLS. TY_CLOSED, TY_IO, TY_NO_MEMORY. */
TY_MUST_USE enum ty_code ty_tls_handshake(struct ty_tls *tls, bool *writes, struct ty_error *err);
/* As send and recv on a socket that does not block: -1 and errno, EAGAIN among them, EPROTO for what is no TLS. What could not be sent must
 * be tried again with the same bytes. */
ssize_t ty_tls_send(struct ty_tls *tls, const void *bytes, size_t length);
ssize_t ty_tls_recv(struct ty_tls *tls, void *bytes, size_t length);
void ty_tls_end(struct ty_tls *tls); /* the peer is told, if it still listens */

#endif
