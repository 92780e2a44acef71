/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/owner.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "wire/frame.h"

/* Offsets in a frame. Behind the header: zero u32, so that the body is aligned. */
enum {
	AT_ZERO = TY_FRAME_HEADER_BYTES,
	AT_BODY = TY_OWNER_HEADER_BYTES,
	HELLO_BYTES = AT_BODY + TY_OWNER_BYTES + TY_OWNER_NAME_MAX,
	WELCOME_BYTES = AT_BODY + 3 * 8,
	PIECE_BYTES = AT_BODY + 8,
	MAP_BYTES = AT_BODY + 3 * 8 + 8 + TY_KEY_BYTES,
	NUMBER_BYTES = AT_BODY + 8,      /* UNMAP, UNMAPPED, CANCEL */
	END_BYTES = AT_BODY + 8 + 4 + 4, /* REFUSED, MAPPED, DONE: number, code, length of the text; then the text */
	GRANT_BYTES = AT_BODY + 7 * 8 + 8 * 4, /* then offsets, then blocks */
};
_Static_assert(END_BYTES + TY_OWNER_TEXT_MAX <= TY_OWNER_TO_SERVICE_MAX && HELLO_BYTES <= TY_OWNER_TO_SERVICE_MAX,
	"the longest frame fits");

#define ROOM_MIN 4096u

static const struct ty_frame_kind frames = {"owner", TY_OWNER_MAGIC, TY_OWNER_VERSION};

/* ---- decoding ------------------------------------------------------------------------------------------------------------ */

static enum ty_code check_length(const char *name, size_t length, size_t expected, struct ty_error *err)
{
	if (length != expected)
		return ty_fail(err, TY_PROTOCOL, "owner's %s has %zu bytes, expected %zu", name, length, expected);
	return TY_OK;
}

static bool is_text(const uint8_t *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (text[i] < ' ' || text[i] > '~')
			return false;
	return true;
}

static enum ty_code decode_hello(const uint8_t *b, size_t length, struct ty_owner_frame *f, struct ty_error *err)
{
	static const uint8_t none[TY_OWNER_BYTES];
	const uint8_t *name = b + AT_BODY + TY_OWNER_BYTES;
	size_t n;

	if (check_length("HELLO", length, HELLO_BYTES, err) != TY_OK)
		return TY_PROTOCOL;
	memcpy(f->hello.id, b + AT_BODY, TY_OWNER_BYTES);
	n = strnlen((const char *)name, TY_OWNER_NAME_MAX);
	if (memcmp(f->hello.id, none, sizeof none) == 0)
		return ty_fail(err, TY_PROTOCOL, "owner's HELLO: id is all zero");
	for (size_t i = n; i < TY_OWNER_NAME_MAX; i++)
		if (name[i])
			return ty_fail(err, TY_PROTOCOL, "owner's HELLO: something is behind the name");
	if (!is_text(name, n))
		return ty_fail(err, TY_PROTOCOL, "owner's HELLO: name is no printable text");
	memcpy(f->hello.name, name, n);
	f->hello.name[n] = '\0';
	return TY_OK;
}

static enum ty_code decode_end(const uint8_t *b, size_t length, struct ty_owner_frame *f, struct ty_error *err)
{
	uint32_t code, text;

	if (length < END_BYTES)
		return ty_fail(err, TY_PROTOCOL, "owner's frame %d has %zu bytes, expected at least %d", (int)f->type, length, END_BYTES);
	code = ty_get32(b + AT_BODY + 8);
	text = ty_get32(b + AT_BODY + 12);
	if (code >= TY_CODE_COUNT || (f->type == TY_OWNER_REFUSED && code == TY_OK))
		return ty_fail(err, TY_PROTOCOL, "owner's frame %d: code is %u", (int)f->type, code);
	if (text > TY_OWNER_TEXT_MAX || text != length - END_BYTES || !is_text(b + END_BYTES, text))
		return ty_fail(err, TY_PROTOCOL, "owner's frame %d: text is %u bytes in a frame of %zu, or not printable", (int)f->type,
			text, length);
	f->end.number = ty_get64(b + AT_BODY);
	f->end.code = (enum ty_code)code;
	memcpy(f->end.text, b + END_BYTES, text);
	f->end.text[text] = '\0';
	return TY_OK;
}

static enum ty_code decode_grant(const uint8_t *b, size_t length, struct ty_owner_frame *f, struct ty_error *err)
{
	const uint8_t *at = b + AT_BODY;
	struct ty_owner_grant *g = &f->grant;
	uint32_t kind;
	uint64_t expected;

	if (length < GRANT_BYTES)
		return ty_fail(err, TY_PROTOCOL, "owner's GRANT has %zu bytes, expected at least %d", length, GRANT_BYTES);
	g->op = ty_get64(at);
	g->map = ty_get64(at + 8);
	g->client = ty_get64(at + 16);
	g->left_us = ty_get64(at + 24);
	g->ready.value = ty_get64(at + 32);
	g->done.value = ty_get64(at + 40);
	g->layers.value = ty_get64(at + 48);
	at += 56;
	kind = ty_get32(at);
	g->weight = ty_get32(at + 4);
	g->ready.word = ty_get32(at + 8);
	g->done.word = ty_get32(at + 12);
	g->layers.word = ty_get32(at + 16);
	g->count = ty_get32(at + 20);
	g->blocks_per_chunk = ty_get32(at + 24);
	if (kind > 1 || g->weight == 0 || g->weight > 100 || ty_get32(at + 28) != 0)
		return ty_fail(err, TY_PROTOCOL, "owner's GRANT: kind %u, weight %u; expected 0..1, 1..100", kind, g->weight);
	if (g->ready.word >= TY_TIMELINE_WORDS || g->done.word >= TY_TIMELINE_WORDS || g->layers.word >= TY_TIMELINE_WORDS)
		return ty_fail(err, TY_PROTOCOL, "owner's GRANT: words %u, %u, %u; expected 0..%d", g->ready.word, g->done.word,
			g->layers.word, TY_TIMELINE_WORDS - 1);
	if (g->count == 0 || g->blocks_per_chunk == 0)
		return ty_fail(err, TY_PROTOCOL, "owner's GRANT: %u chunks of %u blocks", g->count, g->blocks_per_chunk);
	expected = GRANT_BYTES + g->count * (8 + (uint64_t)g->blocks_per_chunk * 4); /* modulo 2^64: hence the second look */
	if (expected != length || g->count > length || g->blocks_per_chunk > length)
		return ty_fail(err, TY_PROTOCOL, "owner's GRANT: %u chunks of %u blocks in %zu bytes", g->count, g->blocks_per_chunk, length);
	g->store = kind == 0;
	g->packed = b + GRANT_BYTES;
	return TY_OK;
}

static enum ty_code decode_map(const uint8_t *b, size_t length, struct ty_owner_frame *f, struct ty_error *err)
{
	if (check_length("MAP", length, MAP_BYTES, err) != TY_OK)
		return TY_PROTOCOL;
	f->map.map = ty_get64(b + AT_BODY);
	f->map.memory = ty_get64(b + AT_BODY + 8);
	f->map.chunk_bytes = ty_get64(b + AT_BODY + 16);
	f->map.chunk_tokens = ty_get32(b + AT_BODY + 24);
	memcpy(f->map.fingerprint, b + AT_BODY + 32, TY_KEY_BYTES);
	return ty_get32(b + AT_BODY + 28) == 0 ? TY_OK : ty_fail(err, TY_PROTOCOL, "owner's MAP: reserved bytes are not zero");
}

static enum ty_code decode_header(const uint8_t *b, size_t length, struct ty_error *err)
{
	enum ty_code code;

	if (length < TY_OWNER_HEADER_BYTES)
		return ty_fail(err, TY_PROTOCOL, "owner: a frame of %zu bytes, expected at least %d", length, TY_OWNER_HEADER_BYTES);
	code = ty_frame_check(&frames, b, err);
	if (code != TY_OK)
		return code;
	if (ty_get32(b + AT_ZERO) != 0)
		return ty_fail(err, TY_PROTOCOL, "owner: reserved bytes are not zero");
	return TY_OK;
}

enum ty_code ty_owner_decode(const uint8_t *b, size_t length, struct ty_owner_frame *f, struct ty_error *err)
{
	enum ty_code code = decode_header(b, length, err);
	uint16_t type;

	memset(f, 0, sizeof *f);
	if (code != TY_OK)
		return code;
	if (ty_frame_length(b) != length)
		return ty_fail(err, TY_PROTOCOL, "owner: the frame says %u bytes and has %zu", ty_frame_length(b), length);
	type = ty_frame_type(b);
	f->type = (enum ty_owner_type)type;
	switch (type) {
	case TY_OWNER_HELLO:
		return decode_hello(b, length, f, err);
	case TY_OWNER_WELCOME:
		if (check_length("WELCOME", length, WELCOME_BYTES, err) != TY_OK)
			return TY_PROTOCOL;
		f->welcome.boot = ty_get64(b + AT_BODY);
		f->welcome.arena_bytes = ty_get64(b + AT_BODY + 8);
		f->welcome.piece_bytes = ty_get64(b + AT_BODY + 16);
		return TY_OK;
	case TY_OWNER_PIECE:
		if (check_length("PIECE", length, PIECE_BYTES, err) != TY_OK)
			return TY_PROTOCOL;
		f->piece.index = ty_get32(b + AT_BODY);
		return ty_get32(b + AT_BODY + 4) == 0 ? TY_OK : ty_fail(err, TY_PROTOCOL, "owner's PIECE: reserved bytes are not zero");
	case TY_OWNER_MAP:
		return decode_map(b, length, f, err);
	case TY_OWNER_UNMAP:
	case TY_OWNER_UNMAPPED:
	case TY_OWNER_CANCEL:
		f->end.number = length >= NUMBER_BYTES ? ty_get64(b + AT_BODY) : 0;
		return check_length("frame", length, NUMBER_BYTES, err);
	case TY_OWNER_REFUSED:
	case TY_OWNER_MAPPED:
	case TY_OWNER_DONE:
		return decode_end(b, length, f, err);
	case TY_OWNER_GRANT:
		return decode_grant(b, length, f, err);
	default:
		return ty_fail(err, TY_PROTOCOL, "owner: unknown frame type %u", type);
	}
}

void ty_owner_grant_read(const struct ty_owner_grant *g, uint64_t *offsets, uint32_t *blocks)
{
	const uint8_t *at = g->packed;

	for (uint32_t i = 0; i < g->count; i++, at += 8)
		offsets[i] = ty_get64(at);
	for (uint64_t i = 0; i < (uint64_t)g->count * g->blocks_per_chunk; i++, at += 4)
		blocks[i] = ty_get32(at);
}

/* ---- encoding ------------------------------------------------------------------------------------------------------------ */

static uint64_t frame_length(const struct ty_owner_frame *f)
{
	switch (f->type) {
	case TY_OWNER_HELLO:
		return HELLO_BYTES;
	case TY_OWNER_WELCOME:
		return WELCOME_BYTES;
	case TY_OWNER_PIECE:
		return PIECE_BYTES;
	case TY_OWNER_MAP:
		return MAP_BYTES;
	case TY_OWNER_UNMAP:
	case TY_OWNER_UNMAPPED:
	case TY_OWNER_CANCEL:
		return NUMBER_BYTES;
	case TY_OWNER_REFUSED:
	case TY_OWNER_MAPPED:
	case TY_OWNER_DONE:
		return END_BYTES + strnlen(f->end.text, TY_OWNER_TEXT_MAX);
	case TY_OWNER_GRANT:
		return GRANT_BYTES + f->grant.count * (8 + (uint64_t)f->grant.blocks_per_chunk * 4);
	}
	return 0;
}

static void encode_grant(const struct ty_owner_grant *g, uint8_t *at)
{
	const uint64_t longs[7] = {g->op, g->map, g->client, g->left_us, g->ready.value, g->done.value, g->layers.value};
	const uint32_t words[8] = {!g->store, g->weight, g->ready.word, g->done.word, g->layers.word, g->count, g->blocks_per_chunk, 0};

	for (unsigned i = 0; i < 7; i++, at += 8)
		ty_put64(at, longs[i]);
	for (unsigned i = 0; i < 8; i++, at += 4)
		ty_put32(at, words[i]);
	for (uint32_t i = 0; i < g->count; i++, at += 8)
		ty_put64(at, g->offsets[i]);
	for (uint32_t i = 0; i < g->count; i++)
		for (uint32_t b = 0; b < g->blocks_per_chunk; b++, at += 4)
			ty_put32(at, g->blocks[i][b]);
}

/* What is not printable becomes '?': it may be a driver's text. */
static void encode_text(const char *text, size_t length, uint8_t *at)
{
	for (size_t i = 0; i < length; i++)
		at[i] = text[i] < ' ' || text[i] > '~' ? '?' : (uint8_t)text[i];
}

static void encode(const struct ty_owner_frame *f, uint8_t *b, size_t length)
{
	memset(b, 0, length);
	ty_frame_begin(&frames, (uint16_t)f->type, (uint32_t)length, b);
	switch (f->type) {
	case TY_OWNER_HELLO:
		memcpy(b + AT_BODY, f->hello.id, TY_OWNER_BYTES);
		encode_text(f->hello.name, strnlen(f->hello.name, TY_OWNER_NAME_MAX), b + AT_BODY + TY_OWNER_BYTES);
		break;
	case TY_OWNER_WELCOME:
		ty_put64(b + AT_BODY, f->welcome.boot);
		ty_put64(b + AT_BODY + 8, f->welcome.arena_bytes);
		ty_put64(b + AT_BODY + 16, f->welcome.piece_bytes);
		break;
	case TY_OWNER_PIECE:
		ty_put32(b + AT_BODY, f->piece.index);
		break;
	case TY_OWNER_MAP:
		ty_put64(b + AT_BODY, f->map.map);
		ty_put64(b + AT_BODY + 8, f->map.memory);
		ty_put64(b + AT_BODY + 16, f->map.chunk_bytes);
		ty_put32(b + AT_BODY + 24, f->map.chunk_tokens);
		memcpy(b + AT_BODY + 32, f->map.fingerprint, TY_KEY_BYTES);
		break;
	case TY_OWNER_UNMAP:
	case TY_OWNER_UNMAPPED:
	case TY_OWNER_CANCEL:
		ty_put64(b + AT_BODY, f->end.number);
		break;
	case TY_OWNER_REFUSED:
	case TY_OWNER_MAPPED:
	case TY_OWNER_DONE:
		ty_put64(b + AT_BODY, f->end.number);
		ty_put32(b + AT_BODY + 8, (uint32_t)f->end.code);
		ty_put32(b + AT_BODY + 12, (uint32_t)(length - END_BYTES));
		encode_text(f->end.text, length - END_BYTES, b + END_BYTES);
		break;
	case TY_OWNER_GRANT:
		encode_grant(&f->grant, b + AT_BODY);
		break;
	}
}

/* ---- the socket ------------------------------------------------------------------------------------------------------------ */

void ty_owner_stream_open(struct ty_owner_stream *s, int fd, size_t in_max)
{
	*s = (struct ty_owner_stream){.fd = fd, .in_max = in_max, .send_fd = -1, .received_fd = -1};
}

void ty_owner_stream_close(struct ty_owner_stream *s)
{
	if (s->fd >= 0)
		close(s->fd);
	if (s->received_fd >= 0)
		close(s->received_fd);
	free(s->in);
	free(s->out);
	*s = (struct ty_owner_stream){.fd = -1, .send_fd = -1, .received_fd = -1};
}

/* Room for `more` bytes behind `length`. */
static bool have_room(uint8_t **bytes, size_t *room, size_t length, size_t more)
{
	size_t want = *room ? *room : ROOM_MIN;
	uint8_t *bigger;

	if (length + more <= *room)
		return true;
	while (want < length + more)
		want *= 2;
	bigger = realloc(*bytes, want);
	if (!bigger)
		return false;
	*bytes = bigger;
	*room = want;
	return true;
}

enum ty_code ty_owner_put(struct ty_owner_stream *s, const struct ty_owner_frame *f, struct ty_error *err)
{
	uint64_t length = frame_length(f);

	if (length > TY_OWNER_TO_OWNER_MAX)
		return ty_fail(err, TY_LIMIT, "a frame of %llu bytes for an owner; at most %u", (unsigned long long)length, TY_OWNER_TO_OWNER_MAX);
	if (s->out_sent > s->out_length / 2) {
		memmove(s->out, s->out + s->out_sent, s->out_length - s->out_sent);
		s->out_length -= s->out_sent;
		s->out_sent = 0;
	}
	if (!have_room(&s->out, &s->out_room, s->out_length, length))
		return ty_fail(err, TY_NO_MEMORY, "no memory for a frame of %llu bytes", (unsigned long long)length);
	encode(f, s->out + s->out_length, length);
	s->out_length += length;
	return TY_OK;
}

enum ty_code ty_owner_flush(struct ty_owner_stream *s, struct ty_error *err)
{
	while (s->out_sent < s->out_length) {
		union ty_frame_control control;
		struct iovec iov = {.iov_base = s->out + s->out_sent, .iov_len = s->out_length - s->out_sent};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
		ssize_t n;

		if (s->send_fd >= 0)
			ty_frame_put_fd(&msg, &control, s->send_fd);
		n = sendmsg(s->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n > 0) {
			s->send_fd = -1;
			s->out_sent += (size_t)n;
		} else if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) {
			return ty_fail(err, TY_BUSY, "owner: the socket takes no more now");
		} else if (errno == EPIPE || errno == ECONNRESET) {
			return ty_fail(err, TY_CLOSED, "owner: the peer closed the connection");
		} else if (errno != EINTR) {
			return ty_fail(err, TY_IO, "owner: sendmsg: %s", strerror(errno));
		}
	}
	s->out_sent = s->out_length = 0;
	return TY_OK;
}

/* One descriptor, of the first bytes; any more is closed. */
static enum ty_code keep_fds(struct ty_owner_stream *s, struct msghdr *msg, struct ty_error *err)
{
	int fds[TY_FRAME_FDS];
	unsigned count = ty_frame_take_fds(msg, fds), kept = count && s->received_fd < 0;

	if (kept)
		s->received_fd = fds[0];
	for (unsigned i = kept; i < count; i++)
		close(fds[i]);
	return count > kept ? ty_fail(err, TY_PROTOCOL, "owner: more than one descriptor came") : TY_OK;
}

static enum ty_code receive(struct ty_owner_stream *s, size_t more, struct ty_error *err)
{
	union ty_frame_control control;
	struct iovec iov;
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (!have_room(&s->in, &s->in_room, s->in_length, more))
		return ty_fail(err, TY_NO_MEMORY, "owner: no memory for a frame of %zu bytes", s->in_length + more);
	iov = (struct iovec){.iov_base = s->in + s->in_length, .iov_len = s->in_room - s->in_length};
	n = ty_frame_receive(s->fd, &msg, &control);
	if (n == 0 || (n < 0 && errno == ECONNRESET))
		return ty_fail(err, TY_CLOSED, "owner: the peer closed the connection");
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return ty_fail(err, TY_BUSY, "owner: nothing to receive");
	if (n < 0)
		return ty_fail(err, TY_IO, "owner: recvmsg: %s", strerror(errno));
	s->in_length += (size_t)n;
	return keep_fds(s, &msg, err);
}

bool ty_owner_more(const struct ty_owner_stream *s)
{
	return s->fd >= 0 && s->in_taken != 0;
}

enum ty_code ty_owner_take(struct ty_owner_stream *s, struct ty_owner_frame *f, struct ty_error *err)
{
	if (s->in_taken)
		memmove(s->in, s->in + s->in_taken, s->in_length - s->in_taken);
	s->in_length -= s->in_taken;
	s->in_taken = 0;
	for (;;) {
		size_t want = TY_OWNER_HEADER_BYTES;
		enum ty_code code;

		if (s->in_length >= want) {
			code = decode_header(s->in, s->in_length, err);
			want = ty_frame_length(s->in);
			if (code == TY_OK && (want < TY_OWNER_HEADER_BYTES || want > s->in_max))
				code = ty_fail(err, TY_PROTOCOL, "owner: a frame of %zu bytes, expected %d..%zu", want, TY_OWNER_HEADER_BYTES,
					s->in_max);
			if (code != TY_OK)
				return code;
		}
		if (s->in_length >= want) {
			s->in_taken = want;
			return ty_owner_decode(s->in, want, f, err);
		}
		code = receive(s, want - s->in_length, err);
		if (code != TY_OK)
			return code;
	}
}
