/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc_stream.h"

#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/descriptors.h"
#include "base/log.h"

#define DESCRIPTORS_MAX 253 /* that the kernel lets come at once */

/* It may take hours to close, so it is not done here. */
static void hand_away(int closer, int fd)
{
	if (!ty_closer_take(closer, fd))
		ty_log(TY_LOG_ERROR, "rpc", "descriptor %d of a client's stays open: too many wait to be closed", fd);
}

/* A receive without room for them would close what descriptors come along, on this thread. */
static ssize_t receive_alone(struct ty_rpc_stream *s, void *bytes, size_t length)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = bytes, .iov_len = length};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
	ssize_t n = recvmsg(s->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0)
		return n;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		size_t count = c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;

		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
			hand_away(s->closer, fd);
		}
	}
	return n;
}

ssize_t ty_rpc_stream_receive(struct ty_rpc_stream *s, void *bytes, size_t length)
{
	if (s->tls)
		return ty_tls_recv(s->tls, bytes, length);
	return s->closer >= 0 ? receive_alone(s, bytes, length) : recv(s->fd, bytes, length, MSG_DONTWAIT);
}

ssize_t ty_rpc_stream_send(struct ty_rpc_stream *s, struct iovec *iov, size_t count)
{
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = count};

	return s->tls ? ty_tls_send(s->tls, iov[0].iov_base, iov[0].iov_len) : sendmsg(s->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

bool ty_rpc_stream_holds(const struct ty_rpc_stream *s)
{
	return s->tls && ty_tls_holds(s->tls);
}

void ty_rpc_stream_close(struct ty_rpc_stream *s, int epoll_fd)
{
	if (s->fd < 0)
		return;
	ty_tls_end(s->tls);
	s->tls = NULL;
	if (s->closer >= 0) { /* what lies in it unread is closed with it */
		(void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
		(void)shutdown(s->fd, SHUT_RDWR);
		hand_away(s->closer, s->fd);
	} else {
		close(s->fd);
	}
	s->fd = -1;
}
