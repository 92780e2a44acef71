/* SPDX-License-Identifier: Apache-2.0 */
#include "unix_listener.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/descriptors.h"
#include "base/folder.h"

#define BACKLOG 128

/* ---- the path --------------------------------------------------------------------------------------------------------- */

static enum ty_code make_directory(const struct ty_config *config, const char *what, const char *path, struct ty_error *err)
{
	char directory[sizeof((struct sockaddr_un *)0)->sun_path];
	const char *slash = strrchr(path, '/');
	struct ty_error why;

	if (slash == NULL || slash == path)
		return TY_OK;
	memcpy(directory, path, (size_t)(slash - path));
	directory[slash - path] = '\0';
	if (mkdir(directory, 0700) == 0)
		return config->allow_uid.count == 0 || chmod(directory, 0711) == 0 ? TY_OK
			: ty_fail(err, TY_IO, "%s: cannot open the directory \"%s\" for others: %s", what, directory, strerror(errno));
	if (errno != EEXIST)
		return ty_fail(err, TY_IO, "%s: cannot make the directory \"%s\": %s", what, directory, strerror(errno));
	if (ty_folder_check(path, &why) != TY_OK)
		return ty_fail(err, why.code, "%s: %s", what, why.text);
	return TY_OK;
}

/* Whoever does not refuse the connection is alive: EAGAIN says that his backlog is full, EPROTOTYPE that his socket is of another
 * kind. One that we may not ask stays as well. */
static enum ty_code take_path(const struct ty_config *config, const char *what, const struct sockaddr_un *address, int type,
	struct ty_error *err)
{
	const char *path = address->sun_path;
	enum ty_code code = make_directory(config, what, path, err);
	struct stat st;
	int fd, rv;

	if (code != TY_OK)
		return code;
	if (lstat(path, &st) != 0)
		return errno == ENOENT ? TY_OK : ty_fail(err, TY_IO, "%s: cannot look at \"%s\": %s", what, path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return ty_fail(err, TY_EXISTS, "%s: \"%s\" is there and is no socket", what, path);
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return ty_fail(err, TY_IO, "%s: socket: %s", what, strerror(errno));
	rv = connect(fd, (const struct sockaddr *)address, sizeof *address);
	if (rv == 0 || errno == EAGAIN || errno == EPROTOTYPE)
		code = ty_fail(err, TY_EXISTS, "%s: address in use: a server answers on \"%s\" already", what, path);
	else if (errno != ECONNREFUSED && errno != ENOENT)
		code = ty_fail(err, TY_IO, "%s: cannot connect to \"%s\" to see who has it: %s", what, path, strerror(errno));
	else if (unlink(path) != 0 && errno != ENOENT)
		code = ty_fail(err, TY_IO, "%s: cannot remove the dead socket \"%s\": %s", what, path, strerror(errno));
	close(fd);
	return code;
}

/* ---- the socket ------------------------------------------------------------------------------------------------------- */

static enum ty_code bind_and_listen(struct ty_unix_listener *l, const char *what, const struct sockaddr_un *address, int type,
	mode_t mode, struct ty_error *err)
{
	struct stat st;

	l->fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->fd < 0)
		return ty_fail(err, TY_IO, "%s: socket: %s", what, strerror(errno));
	l->bare = ty_descriptors_allow(l->fd, false);
	/* the mode that bind gives the path, less the process's umask: there is no moment in which it is wider */
	if (fchmod(l->fd, mode) != 0)
		return ty_fail(err, TY_IO, "%s: fchmod: %s", what, strerror(errno));
	if (bind(l->fd, (const struct sockaddr *)address, sizeof *address) != 0)
		return ty_fail(err, errno == EADDRINUSE ? TY_EXISTS : TY_IO, "%s \"%s\": bind: %s", what, address->sun_path,
			strerror(errno));
	if (mode != 0600 && chmod(address->sun_path, mode) != 0)
		return ty_fail(err, TY_IO, "%s \"%s\": chmod: %s", what, address->sun_path, strerror(errno));
	if (lstat(address->sun_path, &st) == 0) {
		l->device = st.st_dev;
		l->inode = st.st_ino;
	}
	if (listen(l->fd, BACKLOG) != 0)
		return ty_fail(err, TY_IO, "%s \"%s\": listen: %s", what, address->sun_path, strerror(errno));
	return TY_OK;
}

enum ty_code ty_unix_listen(struct ty_unix_listener *l, const struct ty_config *config, const char *what, const char *path, int type,
	bool open, struct ty_error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t length = strlen(path);
	enum ty_code code;

	*l = (struct ty_unix_listener){.fd = -1};
	if (length == 0 || length >= sizeof address.sun_path)
		return ty_fail(err, TY_INVALID, "%s: \"%s\" is %zu bytes long, a socket's path 1 to %zu", what, path, length,
			sizeof address.sun_path - 1);
	if (path[0] != '/')
		return ty_fail(err, TY_INVALID, "%s: \"%s\", expected an absolute path", what, path);
	memcpy(address.sun_path, path, length + 1);
	memcpy(l->path, path, length + 1);
	code = take_path(config, what, &address, type, err);
	if (code == TY_OK)
		code = bind_and_listen(l, what, &address, type, open ? 0666 : 0600, err);
	if (code != TY_OK)
		ty_unix_listener_close(l, -1);
	return code;
}

void ty_unix_listener_close(struct ty_unix_listener *l, int closer)
{
	struct stat st;

	if (l->fd < 0)
		return;
	(void)shutdown(l->fd, SHUT_RDWR); /* nobody comes in any more, whenever it is closed */
	if (closer < 0 || !ty_closer_take(closer, l->fd))
		close(l->fd);
	l->fd = -1;
	if (lstat(l->path, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_dev == l->device && st.st_ino == l->inode)
		unlink(l->path);
}
