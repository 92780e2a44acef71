/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection to a Redis server: hiredis writes commands and reads replies, what lies under it is a non-blocking socket, with
 * or without TLS (GnuTLS). Nothing in it waits: whoever has it waits for its events and has it take its steps. One thread.
 */
#ifndef TY_ACTORS_REDIS_CONNECTION_H
#define TY_ACTORS_REDIS_CONNECTION_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stdint.h>

#include <tyer/result.h>

#define REDIS_REPLY_ELEMENTS 65 /* in lists, if nothing else is said: a header and as many parts as a chunk may have */

#define REDIS_COMMAND_MAX ((uint64_t)1 << 30) /* bytes of its words: what a server takes, if nothing else is said there */

struct redis_connection; /* opaque */

/* Whom we trust and who we are: gnutls_certificate_credentials_t. Read by all connections. */
struct redis_tls;
/* `ca`: PEM, null = the system's; `cert`: PEM, certificate and key in one file, null = none. */
TY_MUST_USE enum ty_code redis_tls_load(const char *ca, const char *cert, struct redis_tls **out, struct ty_error *err);
void redis_tls_free(struct redis_tls *tls); /* null is allowed */

/* Null: the connection is over, there will be no reply. A reply is freed after it. May send, on any connection. */
typedef void redis_replied(void *user, const redisReply *reply);

/* Begin. `host` is numeric; with `tls` (null: plain) the server has to be `name`. Null: not even that, err says why. */
struct redis_connection *redis_connect(const char *host, int port, const struct redis_tls *tls, const char *name,
	struct ty_error *err);
/* What a reply may be: so many bytes besides what every reply may have, and so many elements in all of its lists. More ends the connection. */
struct redis_bounds {
	uint64_t bytes;
	uint32_t elements; /* 0: REDIS_REPLY_ELEMENTS */
};

/* Queue a command, also before the connection is there; the words are copied. `bounds`: null: as every reply. False: no memory, or
 * more than REDIS_COMMAND_MAX. */
TY_MUST_USE bool redis_send(struct redis_connection *c, redis_replied *replied, void *user, const struct redis_bounds *bounds, int count,
	const char *const *words, const size_t *lengths);
/* Do what can be done now: connect, shake hands, write, read a bounded piece, call for replies. False: it is over, and
 * redis_error says why; only redis_hang_up is left. */
TY_MUST_USE bool redis_step(struct redis_connection *c);
bool redis_is_open(const struct redis_connection *c);       /* what is sent goes out */
uint32_t redis_events(const struct redis_connection *c);    /* EPOLLIN, EPOLLOUT: that it waits for */
bool redis_wants_out(const struct redis_connection *c);     /* something is queued that the socket may take */
int redis_fd(const struct redis_connection *c);
/* TY_IO: the network, or the server ended it. TY_PROTOCOL: no Redis, or no TLS. TY_DENIED: certificates. */
const struct ty_error *redis_error(const struct redis_connection *c);
/* Ends it; calls for every reply that is still awaited, with null. Not from within its own step. */
void redis_hang_up(struct redis_connection *c);

#endif
