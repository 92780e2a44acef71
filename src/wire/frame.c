/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/frame.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"

enum { AT_MAGIC = 0, AT_VERSION = 4, AT_TYPE = 6, AT_LENGTH = 8 };

void ty_frame_begin(const struct ty_frame_kind *kind, uint16_t type, uint32_t length, uint8_t *bytes)
{
	ty_put32(bytes + AT_MAGIC, kind->magic);
	ty_put16(bytes + AT_VERSION, kind->version);
	ty_put16(bytes + AT_TYPE, type);
	ty_put32(bytes + AT_LENGTH, length);
}

enum ty_code ty_frame_check(const struct ty_frame_kind *kind, const uint8_t *bytes, struct ty_error *err)
{
	if (ty_get32(bytes + AT_MAGIC) != kind->magic)
		return ty_fail(err, TY_PROTOCOL, "%s: magic is %08x, expected %08x: the peer is not a Tyer", kind->name,
			ty_get32(bytes + AT_MAGIC), kind->magic);
	if (ty_get16(bytes + AT_VERSION) != kind->version)
		return ty_fail(err, TY_UNSUPPORTED, "%s: version is %u, expected %u", kind->name, ty_get16(bytes + AT_VERSION), kind->version);
	return TY_OK;
}

uint16_t ty_frame_type(const uint8_t *bytes)
{
	return ty_get16(bytes + AT_TYPE);
}

uint32_t ty_frame_length(const uint8_t *bytes)
{
	return ty_get32(bytes + AT_LENGTH);
}

/* ---- descriptors ------------------------------------------------------------------------------------ */

void ty_frame_put_fd(struct msghdr *msg, union ty_frame_control *control, int fd)
{
	struct cmsghdr *c;

	memset(control, 0, sizeof *control);
	msg->msg_control = control->bytes;
	msg->msg_controllen = CMSG_SPACE(sizeof fd);
	c = CMSG_FIRSTHDR(msg);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
}

ssize_t ty_frame_receive(int socket, struct msghdr *msg, union ty_frame_control *control)
{
	ssize_t n;

	msg->msg_control = control->bytes;
	msg->msg_controllen = sizeof control->bytes;
	do
		n = recvmsg(socket, msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	return n;
}

unsigned ty_frame_take_fds(struct msghdr *msg, int fds[TY_FRAME_FDS])
{
	unsigned count = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n = c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;

		assert(count + n <= TY_FRAME_FDS); /* by the size of the control buffer */
		memcpy(fds + count, CMSG_DATA(c), n * sizeof(int));
		count += (unsigned)n;
	}
	return count;
}
