/* SPDX-License-Identifier: Apache-2.0
 *
 * What the frames of UNIX sockets have in common (attach.h, owner.h): how a frame begins, and descriptors beside its bytes.
 */
#ifndef TY_WIRE_FRAME_H
#define TY_WIRE_FRAME_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <tyer/result.h>

/* Header: magic u32, version u16, type u16, length u32 (of all of the frame). What a kind has behind it is its own. */
#define TY_FRAME_HEADER_BYTES 12

struct ty_frame_kind {
	const char *name; /* for people: "attach" */
	uint32_t magic;
	uint16_t version;
};

void ty_frame_begin(const struct ty_frame_kind *kind, uint16_t type, uint32_t length, uint8_t *bytes);
/* Is it a frame of this kind and version? `bytes` are TY_FRAME_HEADER_BYTES at least. */
TY_MUST_USE enum ty_code ty_frame_check(const struct ty_frame_kind *kind, const uint8_t *bytes, struct ty_error *err);
uint16_t ty_frame_type(const uint8_t *bytes);
uint32_t ty_frame_length(const uint8_t *bytes);

/* ---- descriptors ------------------------------------------------------------------------------------ */

#define TY_FRAME_FDS 253 /* received with one message: all that one can carry (SCM_MAX_FD). One is wanted at most; whoever has no room for
                            the others waits while the kernel drops them (base/descriptors.h) */

/* Room for what goes beside the bytes; while the message is in use. */
union ty_frame_control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(TY_FRAME_FDS * sizeof(int))];
};

/* Send `fd` with the message. */
void ty_frame_put_fd(struct msghdr *msg, union ty_frame_control *control, int fd);
/* recvmsg without waiting, with room for descriptors, close-on-exec; as it says. */
ssize_t ty_frame_receive(int socket, struct msghdr *msg, union ty_frame_control *control);
/* Those that came with it, at most TY_FRAME_FDS, now the caller's. */
unsigned ty_frame_take_fds(struct msghdr *msg, int fds[TY_FRAME_FDS]);

#endif
