/* SPDX-License-Identifier: Apache-2.0
 *
 * The attach protocol: what a local client and the service say over their UNIX SOCK_SEQPACKET socket. One message is one
 * frame; borders are the kernel's. A connection carries descriptors and credentials, and its end is the client's death.
 *
 *   service -> client   WELCOME {boot, token} + the timeline's memfd     first, once
 *                       REFUSED {code, text}                             instead, or later: why the end follows
 *   client  -> service  DESCRIPTOR {number} + one descriptor             number is then named by REGISTER
 *   client  -> service  TIMELINE + its memfd                             before HELLO: use this page, which an earlier service
 *                                                                        made, instead of WELCOME's
 *   service -> client   DESCRIPTOR_OK {number, code}                     one for each
 *   owner   -> service  EMBED + one end of a socket pair                 instead of all that: an owner in an engine's process (owner.h).
 *                                                                        What follows is said there, and this connection ends
 *
 * Every frame is little-endian and begins with magic, version, type and its own whole length; a frame of another length than
 * its type has, with other descriptors than its type carries, or with an unknown type, is a violation, and ends the connection.
 */
#ifndef TY_WIRE_ATTACH_H
#define TY_WIRE_ATTACH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tyer/client.h>

#define TY_ATTACH_MAGIC 0x41595454u /* "TTYA" */
#define TY_ATTACH_VERSION 1
#define TY_ATTACH_HEADER_BYTES 12
#define TY_ATTACH_FRAME_MAX 256 /* bytes of the longest frame */
#define TY_ATTACH_TOKEN_BYTES 16
#define TY_ATTACH_TEXT_MAX 224      /* bytes of REFUSED's text */
#define TY_ATTACH_DESCRIPTORS 1024  /* numbers are 0..1023 */
#define TY_ATTACH_TIMELINE_BYTES (TY_TIMELINE_WORDS * sizeof(uint64_t))

enum ty_attach_type {
	TY_ATTACH_WELCOME = 1,
	TY_ATTACH_REFUSED = 2,
	TY_ATTACH_DESCRIPTOR = 3,
	TY_ATTACH_DESCRIPTOR_OK = 4,
	TY_ATTACH_TIMELINE = 5,
	TY_ATTACH_EMBED = 6,
};

struct ty_attach_frame {
	enum ty_attach_type type;
	union {
		struct {
			uint64_t boot;
			uint8_t token[TY_ATTACH_TOKEN_BYTES];
		} welcome;
		struct {
			enum ty_code code; /* never TY_OK */
			char text[TY_ATTACH_TEXT_MAX + 1];
		} refused;
		struct {
			uint32_t number;
		} descriptor;
		struct {
			uint32_t number;
			enum ty_code code;
		} descriptor_ok;
	};
};

/* The frame's bytes; returns how many. The frame is well formed (asserted). */
size_t ty_attach_encode(const struct ty_attach_frame *frame, uint8_t bytes[TY_ATTACH_FRAME_MAX]);
/* TY_PROTOCOL: these bytes are no frame. TY_UNSUPPORTED: they are one of another version. Reads nothing but the bytes. */
TY_MUST_USE enum ty_code ty_attach_decode(const void *bytes, size_t length, struct ty_attach_frame *frame,
	struct ty_error *err);
/* Does a frame of this type carry a descriptor? */
bool ty_attach_carries_fd(enum ty_attach_type type);

/* ---- the socket; none of these waits ------------------------------------------------------------------------------ */

/* Send; `fd` is -1 or a descriptor that stays the caller's. TY_BUSY: the socket is full, nothing was sent. TY_CLOSED: the
 * peer is gone. */
TY_MUST_USE enum ty_code ty_attach_send(int socket, const struct ty_attach_frame *frame, int fd, struct ty_error *err);
/* Receive one frame. On TY_OK *fd is its descriptor (close-on-exec, the caller's), or -1 when its type carries none. TY_BUSY:
 * nothing there. TY_CLOSED: the peer is gone. TY_PROTOCOL, TY_UNSUPPORTED: a violation; whatever came with it is closed. */
TY_MUST_USE enum ty_code ty_attach_recv(int socket, struct ty_attach_frame *frame, int *fd, struct ty_error *err);
/* The same, but what came with a violation is the caller's: *count descriptors in `unwanted`, which has room for TY_FRAME_FDS (frame.h). For
 * who may not wait for what a close may wait for. */
TY_MUST_USE enum ty_code ty_attach_recv_all(int socket, struct ty_attach_frame *frame, int *fd, int *unwanted, unsigned *count,
	struct ty_error *err);

/* A timeline page: a memfd of TY_ATTACH_TIMELINE_BYTES, sealed against shrinking, growing and further sealing. */
TY_MUST_USE enum ty_code ty_attach_timeline_create(int *fd, struct ty_error *err);
/* Map it, after checking size and seals (a page that could shrink would let a peer kill us by SIGBUS). */
TY_MUST_USE enum ty_code ty_attach_timeline_map(int fd, void **page, struct ty_error *err);
void ty_attach_timeline_unmap(void *page);

#endif
