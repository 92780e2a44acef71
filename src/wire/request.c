/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/request.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---- the bounded allocator ------------------------------------------------------------------------------------------ */

/* What the heap adds to each object, about; counted so that many tiny objects cost what they cost. */
#define HEAP_OVERHEAD 16

/* protobuf-c frees by pointer alone, so that the size is not known then; only what is given out is counted. That bounds what is
 * live at any time from above. */
struct budget {
	size_t left;
	bool exceeded, no_memory;
};

static void *budget_alloc(void *data, size_t size)
{
	struct budget *b = data;
	size_t cost;
	void *memory;

	if (__builtin_add_overflow(size, (size_t)HEAP_OVERHEAD, &cost) || cost > b->left) {
		b->exceeded = true;
		return NULL;
	}
	b->left -= cost;
	memory = malloc(size != 0 ? size : 1);
	b->no_memory |= memory == NULL;
	return memory;
}

static void budget_free(void *data, void *pointer)
{
	(void)data;
	free(pointer);
}

static enum ty_code unpack(const ProtobufCMessageDescriptor *type, const void *bytes, size_t length, const char *what,
	ProtobufCMessage **out, struct ty_error *err)
{
	struct budget budget = {.left = length * TY_UNPACK_FACTOR + TY_UNPACK_BASE};
	ProtobufCAllocator allocator = {.alloc = budget_alloc, .free = budget_free, .allocator_data = &budget};

	*out = protobuf_c_message_unpack(type, &allocator, length, bytes);
	if (*out != NULL)
		return TY_OK;
	if (budget.exceeded)
		return ty_fail(err, TY_LIMIT, "%s of %zu bytes would take more than %zu bytes to unpack", what, length,
			length * TY_UNPACK_FACTOR + TY_UNPACK_BASE);
	if (budget.no_memory) /* nothing is wrong with it */
		return ty_fail(err, TY_NO_MEMORY, "no memory to unpack a %s of %zu bytes", what, length);
	return ty_fail(err, TY_PROTOCOL, "%zu bytes that are no %s of tyer.v1", length, what);
}

/* ---- requests ------------------------------------------------------------------------------------------------------- */

enum ty_code ty_request_unpack(const void *bytes, size_t length, uint32_t max_bytes, Tyer__V1__Request **out,
	struct ty_error *err)
{
	ProtobufCMessage *message;
	enum ty_code code;

	*out = NULL;
	if (length > max_bytes)
		return ty_fail(err, TY_LIMIT, "request of %zu bytes, max_request_bytes is %u", length, max_bytes);
	code = unpack(&tyer__v1__request__descriptor, bytes, length, "Request", &message, err);
	if (code == TY_OK)
		*out = (Tyer__V1__Request *)message;
	return code;
}

enum ty_code ty_request_check(const Tyer__V1__Request *request, uint32_t max_timeout_us, struct ty_error *err)
{
	if (request->version != TY_WIRE_VERSION)
		return ty_fail(err, TY_UNSUPPORTED, "version is %u, expected %u", request->version, TY_WIRE_VERSION);
	if (request->verb_case == TYER__V1__REQUEST__VERB__NOT_SET)
		return ty_fail(err, TY_UNSUPPORTED, "verb is absent or none of this version");
	if (request->timeout_us > max_timeout_us)
		return ty_fail(err, TY_INVALID, "timeout_us is %u, expected at most %u", request->timeout_us, max_timeout_us);
	return TY_OK;
}

void ty_request_free(Tyer__V1__Request *request)
{
	if (request != NULL)
		tyer__v1__request__free_unpacked(request, NULL);
}

/* ---- replies -------------------------------------------------------------------------------------------------------- */

enum ty_code ty_reply_unpack(const void *bytes, size_t length, Tyer__V1__Reply **out, struct ty_error *err)
{
	ProtobufCMessage *message;
	Tyer__V1__Reply *reply;
	enum ty_code code;

	*out = NULL;
	if (length > TY_REPLY_MAX_BYTES)
		return ty_fail(err, TY_LIMIT, "reply of %zu bytes, expected at most %d", length, TY_REPLY_MAX_BYTES);
	code = unpack(&tyer__v1__reply__descriptor, bytes, length, "Reply", &message, err);
	if (code != TY_OK)
		return code;
	reply = (Tyer__V1__Reply *)message;
	if ((int)reply->code < 0 || (int)reply->code >= TY_CODE_COUNT) {
		code = ty_fail(err, TY_PROTOCOL, "Reply.code is %d, expected 0..%d", (int)reply->code, TY_CODE_COUNT - 1);
		ty_reply_free(reply);
		return code;
	}
	*out = reply;
	return TY_OK;
}

void ty_reply_free(Tyer__V1__Reply *reply)
{
	if (reply != NULL)
		tyer__v1__reply__free_unpacked(reply, NULL);
}

bool ty_verb_is_admin(uint32_t verb)
{
	return verb >= TYER__V1__REQUEST__VERB_WARM && verb <= TYER__V1__REQUEST__VERB_EVENTS;
}

const char *ty_verb_name(uint32_t verb)
{
	switch (verb) {
	case TYER__V1__REQUEST__VERB_PING:
		return "PING";
	case TYER__V1__REQUEST__VERB_STATUS:
		return "STATUS";
	case TYER__V1__REQUEST__VERB_HELLO:
		return "HELLO";
	case TYER__V1__REQUEST__VERB_REGISTER:
		return "REGISTER";
	case TYER__V1__REQUEST__VERB_UNREGISTER:
		return "UNREGISTER";
	case TYER__V1__REQUEST__VERB_LOOKUP:
		return "LOOKUP";
	case TYER__V1__REQUEST__VERB_RETRIEVE:
		return "RETRIEVE";
	case TYER__V1__REQUEST__VERB_STORE:
		return "STORE";
	case TYER__V1__REQUEST__VERB_END_SESSION:
		return "END_SESSION";
	case TYER__V1__REQUEST__VERB_FLUSH:
		return "FLUSH";
	case TYER__V1__REQUEST__VERB_CANCEL:
		return "CANCEL";
	case TYER__V1__REQUEST__VERB_OPERATIONS:
		return "OPERATIONS";
	case TYER__V1__REQUEST__VERB_WARM:
		return "WARM";
	case TYER__V1__REQUEST__VERB_PIN:
		return "PIN";
	case TYER__V1__REQUEST__VERB_UNPIN:
		return "UNPIN";
	case TYER__V1__REQUEST__VERB_DELETE:
		return "DELETE";
	case TYER__V1__REQUEST__VERB_CLEAR:
		return "CLEAR";
	case TYER__V1__REQUEST__VERB_LIST:
		return "LIST";
	case TYER__V1__REQUEST__VERB_MOVE:
		return "MOVE";
	case TYER__V1__REQUEST__VERB_CONFIGURE:
		return "CONFIGURE";
	case TYER__V1__REQUEST__VERB_EVENTS:
		return "EVENTS";
	default:
		return "?";
	}
}

/* ---- text ----------------------------------------------------------------------------------------------------------- */

/* Bytes of the well-formed UTF-8 character at `s` (no overlong form, no surrogate, at most U+10FFFF), and its value; 0 = none. A
 * terminating zero ends every read: it is no continuation byte. */
static size_t utf8_next(const unsigned char *s, uint32_t *value)
{
	static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
	size_t n, i;
	uint32_t v;

	if (s[0] < 0x80) {
		*value = s[0];
		return 1;
	}
	if ((s[0] & 0xe0) == 0xc0) {
		n = 2;
		v = s[0] & 0x1fu;
	} else if ((s[0] & 0xf0) == 0xe0) {
		n = 3;
		v = s[0] & 0x0fu;
	} else if ((s[0] & 0xf8) == 0xf0) {
		n = 4;
		v = s[0] & 0x07u;
	} else {
		return 0;
	}
	for (i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		v = v << 6 | (s[i] & 0x3fu);
	}
	if (v < least[n] || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff))
		return 0;
	*value = v;
	return n;
}

enum ty_code ty_wire_check_text(const char *field, const char *text, size_t min, size_t max, struct ty_error *err)
{
	const unsigned char *s = (const unsigned char *)(text != NULL ? text : "");
	size_t length = strlen((const char *)s), at = 0, n;
	uint32_t c = 0;

	if (length < min || length > max)
		return ty_fail(err, TY_INVALID, "%s is %zu bytes long, expected %zu..%zu", field, length, min, max);
	for (; at < length; at += n) {
		n = utf8_next(s + at, &c);
		if (n == 0)
			return ty_fail(err, TY_INVALID, "%s is no UTF-8 at byte %zu", field, at);
		/* C0, DEL, C1, and the line and paragraph separators: what would break a line of a log */
		if (c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029)
			return ty_fail(err, TY_INVALID, "%s has the unprintable character U+%04X at byte %zu", field, c, at);
	}
	return TY_OK;
}
