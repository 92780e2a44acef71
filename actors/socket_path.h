/* SPDX-License-Identifier: Apache-2.0
 *
 * The path of a UNIX socket, before something listens on it.
 */
#ifndef TY_ACTORS_SOCKET_PATH_H
#define TY_ACTORS_SOCKET_PATH_H

#include "base/config.h"

/* Makes the path's folder, for our own user, or for others to pass if any may come in; and takes away what a dead server left: a
 * socket that refuses connections. `what` is the option's name, for errors; `type` the socket's (SOCK_STREAM, ...); `path` fits into
 * a sockaddr_un. TY_EXISTS: somebody listens there, or it is no socket. Blocks for a connect to a local socket. */
TY_MUST_USE enum ty_code ty_socket_path_take(const struct ty_config *config, const char *what, const char *path, int type,
	struct ty_error *err);

#endif
