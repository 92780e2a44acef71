/* SPDX-License-Identifier: Apache-2.0
 *
 * TLS over a socket that does not block: mbedTLS. What a side believes and shows is read once; each connection has a session. All of it
 * belongs to one thread, and none of its functions waits. A client always checks the service's certificate: who signed it, when it is
 * good, and for whom. The service asks for a client's only if it was told who may have signed one.
 */
#ifndef TY_WIRE_TLS_H
#define TY_WIRE_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <tyer/result.h>

struct ty_tls;         /* opaque: what is believed and shown */
struct ty_tls_session; /* opaque: one connection */

/* A client's side. `ca` and `own` (null: none is shown) are PEM files; the latter holds a certificate and its key. The service's certificate
 * must be good for `name`: a numeric address stands in it as an IP address, anything else as a DNS name. Reads the files. TY_INVALID,
 * TY_NO_MEMORY. */
TY_MUST_USE enum ty_code ty_tls_open(const char *ca, const char *own, const char *name, struct ty_tls **out, struct ty_error *err);
/* The service's. `own` as above; `ca` (null: nobody is asked for a certificate) may have signed a client's. Reads the files. TY_IO: one
 * of them cannot be read, or is not what it should be. TY_NO_MEMORY. */
TY_MUST_USE enum ty_code ty_tls_open_service(const char *own, const char *ca, struct ty_tls **out, struct ty_error *err);
void ty_tls_close(struct ty_tls *tls); /* null is allowed; its sessions have ended */

/* A session over a connected socket. `peer` names it in errors, and lives as long. TY_NO_MEMORY. */
TY_MUST_USE enum ty_code ty_tls_begin(struct ty_tls *tls, int fd, const char *peer, struct ty_tls_session **out, struct ty_error *err);
/* TY_OK: the peer is who it should be. TY_BUSY: go on when the socket can be read, or, with *writes, be written to. TY_DENIED: one side
 * does not believe the other. TY_PROTOCOL: it does not speak TLS. TY_IO, TY_NO_MEMORY. */
TY_MUST_USE enum ty_code ty_tls_handshake(struct ty_tls_session *session, bool *writes, struct ty_error *err);
/* As send and recv on a socket that does not block: -1 and errno, EAGAIN among them, EPROTO for what is no TLS. Neither a receive nor a step of
 * the handshake takes more than a record's bytes: with EAGAIN (TY_BUSY) more may lie in the socket. What could not be sent must
 * be tried again with the same bytes. */
ssize_t ty_tls_send(struct ty_tls_session *session, const void *bytes, size_t length);
ssize_t ty_tls_recv(struct ty_tls_session *session, void *bytes, size_t length);
/* Is there something to receive that has left the socket already? */
bool ty_tls_holds(const struct ty_tls_session *session);
void ty_tls_end(struct ty_tls_session *session); /* the peer is told, if it still listens; null is allowed */

#endif
