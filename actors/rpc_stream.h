/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection's bytes: a socket that does not block, with TLS over it or without. Belongs to the edge's actor; nothing here waits.
 */
#ifndef TY_ACTORS_RPC_STREAM_H
#define TY_ACTORS_RPC_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "wire/tls.h"

struct ty_rpc_stream {
	int fd; /* -1: closed */
	int closer; /* of base/descriptors.h, the edge's: descriptors may come with the bytes. -1: none can */
	struct ty_tls_session *tls; /* null: none */
};

/* As recv and sendmsg: -1 and errno, EAGAIN among them. What could not be sent must be tried again with the same bytes in front. */
ssize_t ty_rpc_stream_receive(struct ty_rpc_stream *stream, void *bytes, size_t length);
ssize_t ty_rpc_stream_send(struct ty_rpc_stream *stream, struct iovec *iov, size_t count);
/* Is there something to receive of which the descriptor does not tell? */
bool ty_rpc_stream_holds(const struct ty_rpc_stream *stream);
/* Leaves the epoll set that it is in. */
void ty_rpc_stream_close(struct ty_rpc_stream *stream, int epoll_fd);

#endif
