/* SPDX-License-Identifier: Apache-2.0
 *
 * The attach socket's address: taken before the service starts, given back at its end.
 */
#include "clients_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/descriptors.h"
#include "socket_path.h"

#define BACKLOG 128

static enum ty_code bind_and_listen(struct ty_clients_socket *s, const struct sockaddr_un *address, mode_t mode,
	struct ty_error *err)
{
	struct stat st;

	s->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0)
		return ty_fail(err, TY_IO, "attach: socket: %s", strerror(errno));
	s->bare = ty_descriptors_allow(s->fd, false);
	/* the mode that bind gives the path, less the process's umask: there is no moment in which it is wider */
	if (fchmod(s->fd, mode) != 0)
		return ty_fail(err, TY_IO, "attach: fchmod: %s", strerror(errno));
	if (bind(s->fd, (const struct sockaddr *)address, sizeof *address) != 0)
		return ty_fail(err, errno == EADDRINUSE ? TY_EXISTS : TY_IO, "attach \"%s\": bind: %s", address->sun_path,
			strerror(errno));
	if (mode != 0600 && chmod(address->sun_path, mode) != 0)
		return ty_fail(err, TY_IO, "attach \"%s\": chmod: %s", address->sun_path, strerror(errno));
	if (lstat(address->sun_path, &st) == 0) {
		s->device = st.st_dev;
		s->inode = st.st_ino;
	}
	if (listen(s->fd, BACKLOG) != 0)
		return ty_fail(err, TY_IO, "attach \"%s\": listen: %s", address->sun_path, strerror(errno));
	return TY_OK;
}

enum ty_code ty_clients_listen(struct ty_service *service, struct ty_clients_socket **out, struct ty_error *err)
{
	const char *path = service->config->attach;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct ty_clients_socket *s;
	enum ty_code code;

	*out = NULL;
	if (path[0] == '\0' || strlen(path) >= sizeof address.sun_path)
		return ty_fail(err, TY_INVALID, "attach is %zu bytes long, expected 1..%zu", strlen(path),
			sizeof address.sun_path - 1);
	memcpy(address.sun_path, path, strlen(path));
	s = calloc(1, sizeof *s);
	if (s == NULL)
		return ty_fail(err, TY_NO_MEMORY, "attach: no memory");
	s->fd = -1;
	memcpy(s->path, path, strlen(path));
	code = ty_socket_path_take(service->config, "attach", path, SOCK_SEQPACKET, err);
	if (code == TY_OK)
		/* whoever may not attach is refused by his credentials; with nobody but our own user the path says so too */
		code = bind_and_listen(s, &address, service->config->allow_uid.count ? 0666 : 0600, err);
	if (code != TY_OK) {
		ty_clients_close(s);
		return code;
	}
	*out = s;
	return TY_OK;
}

void clients_socket_shut(struct ty_clients_socket *s)
{
	struct stat st;

	if (s->fd < 0)
		return;
	close(s->fd);
	s->fd = -1;
	if (lstat(s->path, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_dev == s->device && st.st_ino == s->inode)
		unlink(s->path);
}

void ty_clients_close(struct ty_clients_socket *s)
{
	if (s == NULL)
		return;
	clients_socket_shut(s);
	free(s);
}
