/* SPDX-License-Identifier: Apache-2.0 */
#include "base/options.h"

#include <string.h>

const void *ty_options_adapt(const void *given, size_t size, const void *defaults, void *room, struct ty_error *err)
{
	const unsigned char *bytes = given;
	size_t said = *(const size_t *)given;

	if (said < sizeof size || said > TY_OPTIONS_MAX || said % sizeof size != 0) {
		(void)ty_fail(err, TY_INVALID, "options.size is %zu, expected the struct's: %zu in this version", said, size);
		return NULL;
	}
	for (size_t i = size; i < said; i++) {
		if (bytes[i] == 0)
			continue;
		(void)ty_fail(err, TY_UNSUPPORTED, "options.size is %zu and byte %zu is set: this library knows %zu bytes", said, i, size);
		return NULL;
	}
	memcpy(room, defaults, size);
	memcpy(room, given, said < size ? said : size);
	*(size_t *)room = size;
	return room;
}
