/* SPDX-License-Identifier: Apache-2.0 */
#include "socket_path.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static enum ty_code make_directory(const struct ty_config *config, const char *what, const char *path, struct ty_error *err)
{
	char directory[sizeof((struct sockaddr_un *)0)->sun_path];
	const char *slash = strrchr(path, '/');

	if (slash == NULL || slash == path)
		return TY_OK;
	memcpy(directory, path, (size_t)(slash - path));
	directory[slash - path] = '\0';
	if (mkdir(directory, 0700) == 0)
		return config->allow_uid.count == 0 || chmod(directory, 0711) == 0 ? TY_OK
			: ty_fail(err, TY_IO, "%s: cannot open the directory \"%s\" for others: %s", what, directory, strerror(errno));
	if (errno != EEXIST)
		return ty_fail(err, TY_IO, "%s: cannot make the directory \"%s\": %s", what, directory, strerror(errno));
	return TY_OK;
}

/* Whoever does not refuse the connection is alive: EAGAIN says that his backlog is full, EPROTOTYPE that his socket is of another
 * kind. One that we may not ask stays as well. */
enum ty_code ty_socket_path_take(const struct ty_config *config, const char *what, const char *path, int type, struct ty_error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	enum ty_code code = make_directory(config, what, path, err);
	struct stat st;
	int fd, rv;

	assert(strlen(path) < sizeof address.sun_path);
	if (code != TY_OK)
		return code;
	if (lstat(path, &st) != 0)
		return errno == ENOENT ? TY_OK : ty_fail(err, TY_IO, "%s: cannot look at \"%s\": %s", what, path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return ty_fail(err, TY_EXISTS, "%s: \"%s\" is there and is no socket", what, path);
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return ty_fail(err, TY_IO, "%s: socket: %s", what, strerror(errno));
	memcpy(address.sun_path, path, strlen(path) + 1);
	rv = connect(fd, (struct sockaddr *)&address, sizeof address);
	if (rv == 0 || errno == EAGAIN || errno == EPROTOTYPE)
		code = ty_fail(err, TY_EXISTS, "%s: address in use: a server answers on \"%s\" already", what, path);
	else if (errno != ECONNREFUSED && errno != ENOENT)
		code = ty_fail(err, TY_IO, "%s: cannot connect to \"%s\" to see who has it: %s", what, path, strerror(errno));
	else if (unlink(path) != 0 && errno != ENOENT)
		code = ty_fail(err, TY_IO, "%s: cannot remove the dead socket \"%s\": %s", what, path, strerror(errno));
	close(fd);
	return code;
}
