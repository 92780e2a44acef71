/* SPDX-License-Identifier: Apache-2.0 */
#include <tyer/result.h>

#include <stdio.h>

static const char *const names[TY_CODE_COUNT] = {
	"OK", "INVALID", "UNSUPPORTED", "UNKNOWN_CLIENT", "UNKNOWN_REGISTRATION", "UNKNOWN_SESSION", "EXISTS",
	"NOT_LEASED", "BUSY", "NO_SPACE", "TIMEOUT", "CANCELLED", "STOPPING", "DEVICE_FAILED", "DEVICE_STALLED",
	"NO_MEMORY", "LIMIT", "CLOSED", "DENIED", "IO", "PROTOCOL", "INTERNAL", "NO_DEVICE",
};

const char *ty_code_name(enum ty_code code)
{
	return (unsigned)code < TY_CODE_COUNT ? names[code] : "?";
}

enum ty_code ty_fail(struct ty_error *err, enum ty_code code, const char *fmt, ...)
{
	if (err) {
		va_list args;

		err->code = code;
		va_start(args, fmt);
		vsnprintf(err->text, sizeof err->text, fmt, args);
		va_end(args);
	}
	return code;
}
