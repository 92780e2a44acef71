/* SPDX-License-Identifier: Apache-2.0
 *
 * Text from outside made safe to show: what reaches a terminal, a log or JSON is valid UTF-8 without raw control
 * characters, whatever came in.
 */
#ifndef TY_BASE_TEXT_H
#define TY_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ty_escape {
	TY_ESCAPE_TEXT, /* for people: control characters become \n, \t, \x1b, \u202e */
	TY_ESCAPE_JSON, /* the inside of a JSON string */
};

/* Decode one code point of text[0..length), length > 0. Returns how many bytes it took. Malformed input (overlong, surrogate,
 * cut, stray byte) gives *code = U+FFFD and takes the bytes up to the first that does not fit, at least one. */
size_t ty_utf8_next(const char *text, size_t length, uint32_t *code);

/* Write in[0..length) escaped to out, at most `room` bytes with the terminating zero (room > 0); never half a character or
 * half an escape. Returns the bytes written without the zero; *cut (may be null) says whether something was left off. */
size_t ty_escape(char *out, size_t room, const char *in, size_t length, enum ty_escape style, bool *cut);

#endif
