/* SPDX-License-Identifier: Apache-2.0 */
#include "secret.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum ty_code read_all(const char *what, const char *path, int fd, char *out, size_t size, struct ty_error *err)
{
	struct stat st;
	size_t length = 0;
	ssize_t n = 1;

	if (fd < 0 || fstat(fd, &st) != 0)
		return ty_fail(err, TY_IO, "%s %s: %s", what, path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return ty_fail(err, TY_IO, "%s %s: is no file", what, path);
	if (st.st_mode & 077)
		return ty_fail(err, TY_DENIED, "%s %s: mode %03o, expected 600: others may read it", what, path,
			(unsigned)(st.st_mode & 0777));
	while (n > 0 && length < size) {
		n = read(fd, out + length, size - length);
		if (n < 0)
			return ty_fail(err, TY_IO, "%s %s: %s", what, path, strerror(errno));
		length += (size_t)n;
	}
	if (length == size)
		return ty_fail(err, TY_INVALID, "%s %s: expected less than %zu bytes", what, path, size);
	out[length] = 0;
	return TY_OK;
}

enum ty_code ty_secret_read(const char *what, const char *path, char *out, size_t size, struct ty_error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	enum ty_code code = read_all(what, path, fd, out, size, err);

	if (fd >= 0)
		close(fd);
	if (code != TY_OK)
		explicit_bzero(out, size);
	return code;
}
