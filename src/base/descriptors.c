/* SPDX-License-Identifier: Apache-2.0 */
#include "base/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83 /* the C library has no name for it yet */
#endif

bool ty_descriptors_allow(int socket, bool allowed)
{
	int value = allowed;

	return setsockopt(socket, SOL_SOCKET, SO_PASSRIGHTS, &value, sizeof value) == 0;
}

bool ty_descriptor_closes_at_once(int fd)
{
	struct statx st;

	if (fcntl(fd, F_GET_SEALS) >= 0)
		return true; /* memory */
	/* asks no file system's server */
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &st) != 0)
		return false;
	switch (st.stx_mode & S_IFMT) {
	case S_IFCHR: /* a driver's */
	case S_IFIFO:
	case 0: /* an object of the kernel's without a file system */
		return true;
	default:
		return false;
	}
}

/* ---- the thread ---------------------------------------------------------------------------------------- */

static void *close_all(void *arg)
{
	int from = (int)(intptr_t)arg, fd;
	ssize_t n;

	while ((n = read(from, &fd, sizeof fd)) == (ssize_t)sizeof fd || (n < 0 && errno == EINTR))
		if (n > 0)
			close(fd);
	close(from);
	return NULL;
}

/* Detached: nobody waits for what it waits for. */
static int begin(int from)
{
	pthread_attr_t attr;
	sigset_t all, before;
	pthread_t id;
	int error = pthread_attr_init(&attr);

	if (error)
		return error;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&id, &attr, close_all, (void *)(intptr_t)from);
	if (!error)
		pthread_setname_np(id, "tyer-closer");
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return error;
}

enum ty_code ty_closer_open(int *closer, struct ty_error *err)
{
	int ends[2], error;

	*closer = -1;
	if (pipe2(ends, O_CLOEXEC) != 0)
		return ty_fail(err, TY_IO, "closer: pipe: %s", strerror(errno));
	/* who takes may not wait; who closes may */
	error = fcntl(ends[1], F_SETFL, O_NONBLOCK) == 0 ? begin(ends[0]) : errno;
	if (error) {
		close(ends[0]);
		close(ends[1]);
		return ty_fail(err, TY_LIMIT, "closer: its thread: %s", strerror(error));
	}
	*closer = ends[1];
	return TY_OK;
}

bool ty_closer_take(int closer, int fd)
{
	ssize_t n;

	do
		n = write(closer, &fd, sizeof fd); /* goes whole, or not at all */
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)sizeof fd;
}

void ty_closer_close(int closer)
{
	close(closer);
}
