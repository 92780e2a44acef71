/* SPDX-License-Identifier: Apache-2.0 */
#include "say.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#define WAIT_MS 1000
#define LINE_MAX_BYTES 2048 /* less than a pipe takes whole, once it polls writable */

void ty_say(int fd, const char *fmt, ...)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	char line[LINE_MAX_BYTES];
	va_list args;
	int length;
	ssize_t n;

	va_start(args, fmt);
	length = vsnprintf(line, sizeof line, fmt, args);
	va_end(args);
	if (length >= (int)sizeof line) {
		length = (int)sizeof line - 1;
		line[length - 1] = '\n';
	}
	if (length <= 0 || poll(&p, 1, WAIT_MS) == 0)
		return;
	do
		n = write(fd, line, (size_t)length);
	while (n < 0 && errno == EINTR);
}
