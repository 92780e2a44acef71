/* SPDX-License-Identifier: Apache-2.0 */
#include "notify.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define WAIT_S 2 /* for room at the other side */

static int supervisor = -1; /* the main thread's */

void ty_notify_over(int fd)
{
	supervisor = fd;
}

int ty_notify_socket(void)
{
	return supervisor;
}

static void send_message(int socket, const struct sockaddr_un *to, socklen_t length, const char *state, int fd)
{
	struct timeval wait = {.tv_sec = WAIT_S};
	struct iovec text = {.iov_base = (void *)(uintptr_t)state, .iov_len = strlen(state)};
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct msghdr message = {
		.msg_name = (void *)(uintptr_t)to, .msg_namelen = length, .msg_iov = &text, .msg_iovlen = 1,
	};

	if (fd >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof control.room;
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
	}
	(void)setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
	(void)!sendmsg(socket, &message, MSG_NOSIGNAL);
}

void ty_notify(const char *state, int fd)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	const char *path = getenv("NOTIFY_SOCKET");
	size_t length = path ? strlen(path) : 0;
	int s;

	if (supervisor >= 0) {
		send_message(supervisor, NULL, 0, state, fd);
		return;
	}
	if (!length || length >= sizeof to.sun_path)
		return;
	memcpy(to.sun_path, path, length);
	if (to.sun_path[0] == '@') /* an abstract address */
		to.sun_path[0] = '\0';
	s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (s < 0)
		return;
	send_message(s, &to, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length), state, fd);
	close(s);
}

void ty_notify_keep(const char *name, int fd)
{
	char state[TY_NOTIFY_MAX];

	snprintf(state, sizeof state, "FDSTOREREMOVE=1\nFDNAME=%s", name);
	ty_notify(state, -1);
	if (fd < 0)
		return;
	snprintf(state, sizeof state, "FDSTORE=1\nFDNAME=%s", name);
	ty_notify(state, fd);
}
