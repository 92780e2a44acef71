/* SPDX-License-Identifier: Apache-2.0
 *
 * Option structs of the public headers. Each begins with its size, as its caller was compiled with it, so that a caller and a library of
 * different versions understand each other: of a smaller, older struct the fields that it does not have are the defaults; a larger,
 * newer one is good as long as what this library does not know of it is zero.
 *
 * For that a new field goes behind all others, and begins at a multiple of 8 where the struct ended before: an older caller's padding
 * is nobody's to read. Zero, or what `defaults` says, means what it meant before there was the field.
 */
#ifndef TY_BASE_OPTIONS_H
#define TY_BASE_OPTIONS_H

#include <stddef.h>

#include <tyer/result.h>

#define TY_OPTIONS_MAX 4096 /* bytes that a struct of a later version may have: a size beyond that was never set */

/* Of another size than `size`: see ty_options_take. */
TY_MUST_USE const void *ty_options_adapt(const void *given, size_t size, const void *defaults, void *room, struct ty_error *err);

/* What was given as a struct of `size` bytes: itself, or `defaults` (of that size too) if it is null, or what is made of it in `room`, which has
 * as much room. Null: TY_INVALID for a size that is none, TY_UNSUPPORTED for what a later version has set. Any thread. */
TY_MUST_USE static inline const void *ty_options_take(const void *given, size_t size, const void *defaults, void *room, struct ty_error *err)
{
	if (given == NULL)
		return defaults;
	return *(const size_t *)given == size ? given : ty_options_adapt(given, size, defaults, room, err);
}

#endif
