/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/attach.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "wire/frame.h"

/* Offsets in a frame. */
enum {
	AT_BODY = TY_ATTACH_HEADER_BYTES,
	WELCOME_BYTES = AT_BODY + 4 + 8 + TY_ATTACH_TOKEN_BYTES, /* 4 bytes of zero align boot */
	REFUSED_FIXED_BYTES = AT_BODY + 4 + 4,                   /* then the text */
	DESCRIPTOR_BYTES = AT_BODY + 4,
	DESCRIPTOR_OK_BYTES = AT_BODY + 4 + 4,
	TIMELINE_BYTES = AT_BODY,
	EMBED_BYTES = AT_BODY,
};

_Static_assert(REFUSED_FIXED_BYTES + TY_ATTACH_TEXT_MAX <= TY_ATTACH_FRAME_MAX, "the longest frame fits");

_Static_assert(TY_ATTACH_HEADER_BYTES == TY_FRAME_HEADER_BYTES, "nothing is behind the header");

static const struct ty_frame_kind frames = {"attach", TY_ATTACH_MAGIC, TY_ATTACH_VERSION};

#define TIMELINE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

bool ty_attach_carries_fd(enum ty_attach_type type)
{
	return type == TY_ATTACH_WELCOME || type == TY_ATTACH_DESCRIPTOR || type == TY_ATTACH_TIMELINE || type == TY_ATTACH_EMBED;
}

size_t ty_attach_encode(const struct ty_attach_frame *frame, uint8_t bytes[TY_ATTACH_FRAME_MAX])
{
	size_t length = 0, text;

	memset(bytes, 0, TY_ATTACH_FRAME_MAX);
	switch (frame->type) {
	case TY_ATTACH_WELCOME:
		length = WELCOME_BYTES;
		ty_put64(bytes + AT_BODY + 4, frame->welcome.boot);
		memcpy(bytes + AT_BODY + 12, frame->welcome.token, TY_ATTACH_TOKEN_BYTES);
		break;
	case TY_ATTACH_REFUSED:
		text = strnlen(frame->refused.text, TY_ATTACH_TEXT_MAX);
		assert(frame->refused.code > TY_OK && frame->refused.code < TY_CODE_COUNT);
		length = REFUSED_FIXED_BYTES + text;
		ty_put32(bytes + AT_BODY, (uint32_t)frame->refused.code);
		ty_put32(bytes + AT_BODY + 4, (uint32_t)text);
		memcpy(bytes + REFUSED_FIXED_BYTES, frame->refused.text, text);
		break;
	case TY_ATTACH_DESCRIPTOR:
		assert(frame->descriptor.number < TY_ATTACH_DESCRIPTORS);
		length = DESCRIPTOR_BYTES;
		ty_put32(bytes + AT_BODY, frame->descriptor.number);
		break;
	case TY_ATTACH_DESCRIPTOR_OK:
		assert(frame->descriptor_ok.number < TY_ATTACH_DESCRIPTORS);
		assert(frame->descriptor_ok.code >= TY_OK && frame->descriptor_ok.code < TY_CODE_COUNT);
		length = DESCRIPTOR_OK_BYTES;
		ty_put32(bytes + AT_BODY, frame->descriptor_ok.number);
		ty_put32(bytes + AT_BODY + 4, (uint32_t)frame->descriptor_ok.code);
		break;
	case TY_ATTACH_TIMELINE:
		length = TIMELINE_BYTES;
		break;
	case TY_ATTACH_EMBED:
		length = EMBED_BYTES;
		break;
	}
	assert(length != 0);
	ty_frame_begin(&frames, (uint16_t)frame->type, (uint32_t)length, bytes);
	return length;
}

/* ---- decoding: `b` has the header's bytes and as many more as `length` says ---------------------------------------- */

static enum ty_code decode_welcome(const uint8_t *b, size_t length, struct ty_attach_frame *frame, struct ty_error *err)
{
	if (length != WELCOME_BYTES)
		return ty_fail(err, TY_PROTOCOL, "attach WELCOME has %zu bytes, expected %d", length, WELCOME_BYTES);
	if (ty_get32(b + AT_BODY) != 0)
		return ty_fail(err, TY_PROTOCOL, "attach WELCOME: reserved bytes are not zero");
	frame->welcome.boot = ty_get64(b + AT_BODY + 4);
	memcpy(frame->welcome.token, b + AT_BODY + 12, TY_ATTACH_TOKEN_BYTES);
	return TY_OK;
}

static enum ty_code decode_refused(const uint8_t *b, size_t length, struct ty_attach_frame *frame, struct ty_error *err)
{
	uint32_t code, text;

	if (length < REFUSED_FIXED_BYTES)
		return ty_fail(err, TY_PROTOCOL, "attach REFUSED has %zu bytes, expected at least %d", length,
			REFUSED_FIXED_BYTES);
	code = ty_get32(b + AT_BODY);
	text = ty_get32(b + AT_BODY + 4);
	if (code == TY_OK || code >= TY_CODE_COUNT)
		return ty_fail(err, TY_PROTOCOL, "attach REFUSED: code is %u, expected 1..%d", code, TY_CODE_COUNT - 1);
	if (text > TY_ATTACH_TEXT_MAX || text != length - REFUSED_FIXED_BYTES)
		return ty_fail(err, TY_PROTOCOL, "attach REFUSED: text is %u bytes in a frame of %zu", text, length);
	if (memchr(b + REFUSED_FIXED_BYTES, 0, text) != NULL)
		return ty_fail(err, TY_PROTOCOL, "attach REFUSED: a zero byte in the text");
	frame->refused.code = (enum ty_code)code;
	memcpy(frame->refused.text, b + REFUSED_FIXED_BYTES, text);
	frame->refused.text[text] = '\0';
	return TY_OK;
}

static enum ty_code check_number(uint32_t number, struct ty_error *err)
{
	if (number >= TY_ATTACH_DESCRIPTORS)
		return ty_fail(err, TY_PROTOCOL, "attach: descriptor number is %u, expected 0..%d", number,
			TY_ATTACH_DESCRIPTORS - 1);
	return TY_OK;
}

static enum ty_code decode_descriptor(const uint8_t *b, size_t length, struct ty_attach_frame *frame, struct ty_error *err)
{
	if (length != DESCRIPTOR_BYTES)
		return ty_fail(err, TY_PROTOCOL, "attach DESCRIPTOR has %zu bytes, expected %d", length, DESCRIPTOR_BYTES);
	frame->descriptor.number = ty_get32(b + AT_BODY);
	return check_number(frame->descriptor.number, err);
}

static enum ty_code decode_descriptor_ok(const uint8_t *b, size_t length, struct ty_attach_frame *frame,
	struct ty_error *err)
{
	uint32_t code;

	if (length != DESCRIPTOR_OK_BYTES)
		return ty_fail(err, TY_PROTOCOL, "attach DESCRIPTOR_OK has %zu bytes, expected %d", length,
			DESCRIPTOR_OK_BYTES);
	frame->descriptor_ok.number = ty_get32(b + AT_BODY);
	code = ty_get32(b + AT_BODY + 4);
	if (code >= TY_CODE_COUNT)
		return ty_fail(err, TY_PROTOCOL, "attach DESCRIPTOR_OK: code is %u, expected 0..%d", code, TY_CODE_COUNT - 1);
	frame->descriptor_ok.code = (enum ty_code)code;
	return check_number(frame->descriptor_ok.number, err);
}

enum ty_code ty_attach_decode(const void *bytes, size_t length, struct ty_attach_frame *frame, struct ty_error *err)
{
	const uint8_t *b = bytes;
	enum ty_code code;
	uint16_t type;

	memset(frame, 0, sizeof *frame);
	if (length < TY_ATTACH_HEADER_BYTES || length > TY_ATTACH_FRAME_MAX)
		return ty_fail(err, TY_PROTOCOL, "attach: a frame of %zu bytes, expected %d..%d", length,
			TY_ATTACH_HEADER_BYTES, TY_ATTACH_FRAME_MAX);
	code = ty_frame_check(&frames, b, err);
	if (code != TY_OK)
		return code;
	if (ty_frame_length(b) != length)
		return ty_fail(err, TY_PROTOCOL, "attach: the frame says %u bytes and has %zu", ty_frame_length(b), length);
	type = ty_frame_type(b);
	frame->type = (enum ty_attach_type)type;
	switch (type) {
	case TY_ATTACH_WELCOME:
		return decode_welcome(b, length, frame, err);
	case TY_ATTACH_REFUSED:
		return decode_refused(b, length, frame, err);
	case TY_ATTACH_DESCRIPTOR:
		return decode_descriptor(b, length, frame, err);
	case TY_ATTACH_DESCRIPTOR_OK:
		return decode_descriptor_ok(b, length, frame, err);
	case TY_ATTACH_TIMELINE:
		if (length != TIMELINE_BYTES)
			return ty_fail(err, TY_PROTOCOL, "attach TIMELINE has %zu bytes, expected %d", length, TIMELINE_BYTES);
		return TY_OK;
	case TY_ATTACH_EMBED:
		if (length != EMBED_BYTES)
			return ty_fail(err, TY_PROTOCOL, "attach EMBED has %zu bytes, expected %d", length, EMBED_BYTES);
		return TY_OK;
	default:
		return ty_fail(err, TY_PROTOCOL, "attach: unknown frame type %u", type);
	}
}

/* ---- the socket ---------------------------------------------------------------------------------------------------- */

enum ty_code ty_attach_send(int socket, const struct ty_attach_frame *frame, int fd, struct ty_error *err)
{
	union ty_frame_control control;
	uint8_t bytes[TY_ATTACH_FRAME_MAX];
	struct iovec iov = {.iov_base = bytes, .iov_len = ty_attach_encode(frame, bytes)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	assert((fd >= 0) == ty_attach_carries_fd(frame->type));
	if (fd >= 0)
		ty_frame_put_fd(&msg, &control, fd);
	do
		n = sendmsg(socket, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return TY_OK; /* a packet goes whole or not at all */
	if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)
		return ty_fail(err, TY_BUSY, "attach: the socket takes no more now");
	if (errno == ETOOMANYREFS)
		return ty_fail(err, TY_LIMIT, "attach: too many descriptors of this user are in flight");
	if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN)
		return ty_fail(err, TY_CLOSED, "attach: the peer closed the connection");
	return ty_fail(err, TY_IO, "attach: sendmsg: %s", strerror(errno));
}

enum ty_code ty_attach_recv_all(int socket, struct ty_attach_frame *frame, int *fd, int *unwanted, unsigned *count,
	struct ty_error *err)
{
	union ty_frame_control control;
	uint8_t bytes[TY_ATTACH_FRAME_MAX];
	struct iovec iov = {.iov_base = bytes, .iov_len = sizeof bytes};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	unsigned wanted;
	enum ty_code code;
	ssize_t n;

	*fd = -1;
	*count = 0;
	n = ty_frame_receive(socket, &msg, &control);
	if (n < 0) {
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return ty_fail(err, TY_BUSY, "attach: nothing to receive");
		if (errno == ECONNRESET || errno == ENOTCONN)
			return ty_fail(err, TY_CLOSED, "attach: the peer closed the connection");
		return ty_fail(err, TY_IO, "attach: recvmsg: %s", strerror(errno));
	}
	*count = ty_frame_take_fds(&msg, unwanted);
	if (n == 0) /* the end; or an empty packet, which is no frame: the connection is over either way */
		return ty_fail(err, TY_CLOSED, "attach: the peer closed the connection");
	if (msg.msg_flags & MSG_TRUNC)
		return ty_fail(err, TY_PROTOCOL, "attach: a frame of more than %d bytes", TY_ATTACH_FRAME_MAX);
	if (msg.msg_flags & MSG_CTRUNC) /* we have no number free for one */
		return ty_fail(err, TY_PROTOCOL, "attach: descriptors of a frame were cut off: none is free here");
	code = ty_attach_decode(bytes, (size_t)n, frame, err);
	if (code != TY_OK)
		return code;
	wanted = ty_attach_carries_fd(frame->type) ? 1 : 0;
	if (*count != wanted)
		return ty_fail(err, TY_PROTOCOL, "attach: a frame of type %d with %u descriptors, expected %u", (int)frame->type, *count, wanted);
	if (wanted)
		*fd = unwanted[0];
	*count = 0;
	return TY_OK;
}

enum ty_code ty_attach_recv(int socket, struct ty_attach_frame *frame, int *fd, struct ty_error *err)
{
	int unwanted[TY_FRAME_FDS];
	unsigned count;
	enum ty_code code = ty_attach_recv_all(socket, frame, fd, unwanted, &count, err);

	while (count > 0)
		close(unwanted[--count]);
	return code;
}

/* ---- the timeline page --------------------------------------------------------------------------------------------- */

enum ty_code ty_attach_timeline_create(int *out, struct ty_error *err)
{
	int fd = memfd_create("tyer-timeline", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	*out = -1;
	if (fd < 0)
		return ty_fail(err, TY_IO, "timeline: memfd_create: %s", strerror(errno));
	if (ftruncate(fd, TY_ATTACH_TIMELINE_BYTES) != 0 || fcntl(fd, F_ADD_SEALS, TIMELINE_SEALS) != 0) {
		enum ty_code code = ty_fail(err, TY_IO, "timeline: sizing and sealing: %s", strerror(errno));

		close(fd);
		return code;
	}
	*out = fd;
	return TY_OK;
}

enum ty_code ty_attach_timeline_map(int fd, void **page, struct ty_error *err)
{
	struct stat st;
	int seals;
	void *at;

	*page = NULL;
	seals = fcntl(fd, F_GET_SEALS); /* first: what is no memfd may be a file whose server has fstat wait */
	if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0)
		return ty_fail(err, TY_PROTOCOL, "timeline: not a memfd sealed against shrinking, and against nothing that we do");
	if (fstat(fd, &st) != 0)
		return ty_fail(err, TY_IO, "timeline: fstat: %s", strerror(errno));
	if (st.st_size != (off_t)TY_ATTACH_TIMELINE_BYTES)
		return ty_fail(err, TY_PROTOCOL, "timeline: %lld bytes, expected %zu", (long long)st.st_size,
			TY_ATTACH_TIMELINE_BYTES);
	at = mmap(NULL, TY_ATTACH_TIMELINE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return ty_fail(err, TY_IO, "timeline: mmap: %s", strerror(errno));
	*page = at;
	return TY_OK;
}

void ty_attach_timeline_unmap(void *page)
{
	if (page != NULL)
		munmap(page, TY_ATTACH_TIMELINE_BYTES);
}
