/* SPDX-License-Identifier: Apache-2.0
 *
 * A UNIX socket that listens: its path is taken before the service starts, and given back at its end.
 */
#ifndef TY_ACTORS_UNIX_LISTENER_H
#define TY_ACTORS_UNIX_LISTENER_H

#include <stdbool.h>
#include <sys/types.h>
#include <sys/un.h>

#include "base/config.h"

struct ty_unix_listener {
	int fd;     /* does not block; -1: closed */
	bool bare;  /* the kernel lets nobody send descriptors to it */
	dev_t device;
	ino_t inode; /* of the path, as we made it */
	char path[sizeof((struct sockaddr_un *)0)->sun_path];
};

/* Listen at `path`, which is absolute, with sockets of `type` (SOCK_STREAM, ...). Makes its folder, for our own user, or for others to pass
 * if any may come in; takes away what a dead server left: a socket that refuses connections. `open`: the path lets everybody
 * connect, and whoever accepts looks at their credentials. `what` is the option's name, for errors. TY_INVALID: no such path.
 * TY_EXISTS: somebody listens there, or it is no socket. TY_IO. Blocks for a connect to a local socket. */
TY_MUST_USE enum ty_code ty_unix_listen(struct ty_unix_listener *listener, const struct ty_config *config, const char *what,
	const char *path, int type, bool open, struct ty_error *err);
/* The path goes with it, if it is still ours. May be repeated. What strangers sent before they were accepted may take hours to be dropped:
 * `closer` (base/descriptors.h) has the time, -1: there is none, or none is needed. */
void ty_unix_listener_close(struct ty_unix_listener *listener, int closer);

#endif
