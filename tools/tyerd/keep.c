/* SPDX-License-Identifier: Apache-2.0 */
#include "keep.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIRST 3  /* where descriptors begin that are handed over */
#define MOST 64  /* of them that are looked at */

const char *const ty_kept_names[TY_KEPT_COUNT] = {
	[TY_KEPT_ARENA] = "tyer-arena", [TY_KEPT_SLOTS] = "tyer-slots", [TY_KEPT_RECORD] = "tyer-record",
	[TY_KEPT_HTTP] = "tyer-http",
};

int ty_kept_find(const char *name)
{
	for (int i = 0; i < TY_KEPT_COUNT; i++)
		if (strcmp(name, ty_kept_names[i]) == 0)
			return i;
	return -1;
}

/* The whole variable is a decimal number of at most `max`; -1: it is not, or not there. */
static long number_in(const char *variable, long max)
{
	const char *text = getenv(variable);
	char *end;
	long value;

	if (!text || text[0] < '0' || text[0] > '9')
		return -1;
	errno = 0;
	value = strtol(text, &end, 10);
	return errno || *end || value > max ? -1 : value;
}

void ty_kept_take(struct ty_kept *kept)
{
	long count = number_in("LISTEN_FDS", MOST);
	const char *given = getenv("LISTEN_FDNAMES");
	char *names = strdup(given ? given : ""), *rest = names;

	for (int i = 0; i < TY_KEPT_COUNT; i++)
		kept->fd[i] = -1;
	if (number_in("LISTEN_PID", 0x7fffffff) != getpid())
		count = 0;
	for (int fd = FIRST; fd < FIRST + count; fd++) {
		const char *name = rest ? strsep(&rest, ":") : NULL;
		int which = name ? ty_kept_find(name) : -1;

		if (which < 0 || kept->fd[which] >= 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
			close(fd);
		else
			kept->fd[which] = fd;
	}
	free(names);
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	unsetenv("LISTEN_PID");
}

/* To a number that no handed over descriptor has. */
static bool move_up(int *fd, int command)
{
	int moved = fcntl(*fd, command, TY_KEPT_HIGH);

	if (moved < 0)
		return false;
	close(*fd);
	*fd = moved;
	return true;
}

bool ty_kept_hand_on(struct ty_kept *kept, int *also)
{
	char names[128] = "", number[16];
	size_t used = 0;
	int next = FIRST;

	for (int i = 0; i < TY_KEPT_COUNT; i++)
		if (kept->fd[i] >= 0 && !move_up(&kept->fd[i], F_DUPFD_CLOEXEC))
			return false;
	if (*also >= 0 && !move_up(also, F_DUPFD))
		return false;
	for (int i = 0; i < TY_KEPT_COUNT; i++) {
		if (kept->fd[i] < 0)
			continue;
		if (dup2(kept->fd[i], next) < 0)
			return false;
		used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", next > FIRST ? ":" : "", ty_kept_names[i]);
		next++;
	}
	if (next == FIRST)
		return true;
	snprintf(number, sizeof number, "%d", next - FIRST);
	if (setenv("LISTEN_FDS", number, 1) != 0 || setenv("LISTEN_FDNAMES", names, 1) != 0)
		return false;
	snprintf(number, sizeof number, "%ld", (long)getpid());
	return setenv("LISTEN_PID", number, 1) == 0;
}
