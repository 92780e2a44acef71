/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"

#include <assert.h>
#include <string.h>

#define REPLACEMENT 0xfffdu

size_t ty_utf8_next(const char *text, size_t length, uint32_t *code)
{
	const unsigned char *s = (const unsigned char *)text;
	uint32_t lead, value, low = 0x80, high = 0xbf;
	size_t need;

	assert(length > 0);
	*code = REPLACEMENT;
	lead = s[0];
	if (lead < 0x80) {
		*code = lead;
		return 1;
	}
	if (lead >= 0xc2 && lead <= 0xdf) {
		need = 1;
		value = lead & 0x1f;
	} else if (lead >= 0xe0 && lead <= 0xef) {
		need = 2;
		value = lead & 0x0f;
		/* the second byte's range rules out overlong forms and surrogates */
		if (lead == 0xe0)
			low = 0xa0;
		if (lead == 0xed)
			high = 0x9f;
	} else if (lead >= 0xf0 && lead <= 0xf4) {
		need = 3;
		value = lead & 0x07;
		if (lead == 0xf0)
			low = 0x90;
		if (lead == 0xf4)
			high = 0x8f;
	} else {
		return 1;
	}
	for (size_t i = 1; i <= need; i++) {
		if (i >= length || s[i] < low || s[i] > high)
			return i;
		value = value << 6 | (s[i] & 0x3fu);
		low = 0x80;
		high = 0xbf;
	}
	*code = value;
	return need + 1;
}

/* What must not reach a reader raw: C0, DEL, C1, line and paragraph separators, and the marks that turn the direction of
 * the text around them. */
static bool is_unsafe(uint32_t code)
{
	return code < 0x20 || (code >= 0x7f && code <= 0x9f) || code == 0x2028 || code == 0x2029 ||
	       code == 0x200e || code == 0x200f || (code >= 0x202a && code <= 0x202e) ||
	       (code >= 0x2066 && code <= 0x2069);
}

/* Writes the escape of an unsafe code point (all of them are below 0x10000) to out[8]; returns its length. */
static size_t escape_code(char *out, uint32_t code, enum ty_escape style)
{
	static const char hex[] = "0123456789abcdef";
	size_t n = 0;

	out[n++] = '\\';
	if (code == '\n' || code == '\t' || code == '\r') {
		out[n++] = code == '\n' ? 'n' : code == '\t' ? 't' : 'r';
		return n;
	}
	if (style == TY_ESCAPE_TEXT && code < 0x80) {
		out[n++] = 'x';
	} else {
		out[n++] = 'u';
		out[n++] = hex[code >> 12 & 15];
		out[n++] = hex[code >> 8 & 15];
	}
	out[n++] = hex[code >> 4 & 15];
	out[n++] = hex[code & 15];
	return n;
}

size_t ty_escape(char *out, size_t room, const char *in, size_t length, enum ty_escape style, bool *cut)
{
	size_t used = 0, at = 0;

	assert(room > 0);
	while (at < length) {
		char escaped[8];
		const char *from = in + at;
		uint32_t code;
		size_t took = ty_utf8_next(in + at, length - at, &code), count = took;

		if (is_unsafe(code)) {
			count = escape_code(escaped, code, style);
			from = escaped;
		} else if (style == TY_ESCAPE_JSON && (code == '"' || code == '\\')) {
			escaped[0] = '\\';
			escaped[1] = (char)code;
			count = 2;
			from = escaped;
		} else if (code == REPLACEMENT) {
			from = "\xef\xbf\xbd";
			count = 3;
		}
		if (count >= room - used)
			break;
		memcpy(out + used, from, count);
		used += count;
		at += took;
	}
	out[used] = 0;
	if (cut)
		*cut = at < length;
	return used;
}
