/* SPDX-License-Identifier: Apache-2.0
 *
 * Results: every fallible function of Tyer returns an enum ty_code that the compiler does not let
 * a caller ignore, and fills a struct ty_error with the sentence a person needs: which field, what
 * was found, what was expected.
 */
#ifndef TYER_RESULT_H
#define TYER_RESULT_H

#include <stdarg.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TY_MUST_USE __attribute__((warn_unused_result))
#define TY_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define TY_API __attribute__((visibility("default")))

/* The codes travel in replies too (tyer.proto, enum Code): numbers are never reused. */
enum ty_code {
	TY_OK = 0,
	TY_INVALID = 1,              /* a field is malformed, out of range or contradicts another */
	TY_UNSUPPORTED = 2,          /* unknown verb, version or feature */
	TY_UNKNOWN_CLIENT = 3,       /* HELLO first, or the service restarted: attach and HELLO again */
	TY_UNKNOWN_REGISTRATION = 4, /* no such registration: REGISTER (again) */
	TY_UNKNOWN_SESSION = 5,      /* no such session: LOOKUP opens one */
	TY_EXISTS = 6,               /* the name, registration or request id is taken */
	TY_NOT_LEASED = 7,           /* RETRIEVE of chunks that no LOOKUP of the session found */
	TY_BUSY = 8,                 /* no credit left: answered at once, try again later */
	TY_NO_SPACE = 9,             /* the arena is full and everything in it is pinned */
	TY_TIMEOUT = 10,             /* the request's deadline passed */
	TY_CANCELLED = 11,           /* cancelled by its client, or its client died */
	TY_STOPPING = 12,            /* the service or runtime is stopping */
	TY_DEVICE_FAILED = 13,       /* the device reported an error */
	TY_DEVICE_STALLED = 14,      /* the device does not finish what it was given */
	TY_NO_MEMORY = 15,           /* the operating system gave no memory */
	TY_LIMIT = 16,               /* a configured limit, named in the text, would be passed */
	TY_CLOSED = 17,              /* the peer, actor or connection is gone */
	TY_DENIED = 18,              /* not allowed for these credentials */
	TY_IO = 19,                  /* a system call failed; the text has its errno */
	TY_PROTOCOL = 20,            /* the peer does not speak Tyer's protocol */
	TY_INTERNAL = 21,            /* a bug of Tyer's: please report the text */
	TY_NO_DEVICE = 22,           /* no device of this service has the UUID; the text lists those it has */
	TY_CODE_COUNT
};

/* Options: each struct of them begins with its size, sizeof the struct as the caller was compiled with it, and what is not set in it is zero.
 * A library of another version takes it: fields that an older, smaller struct does not have mean what zero means (or what is said there), and what a
 * newer, larger one has beyond what this library knows must be zero, else it is TY_UNSUPPORTED. A size that is no struct's is TY_INVALID. */

/* What went wrong, in words. Filled only when the code is not TY_OK; always terminated. */
struct ty_error {
	enum ty_code code;
	char text[244];
};

/* The code's name, as in tyer.proto ("NO_SPACE"); "?" for a number that is none. Static storage. */
TY_API const char *ty_code_name(enum ty_code code);

/* Fill `err` (which may be null) and return `code`, so that `return ty_fail(err, ...)` is one line. */
TY_API enum ty_code ty_fail(struct ty_error *err, enum ty_code code, const char *fmt, ...)
	TY_PRINTF(3, 4);

#ifdef __cplusplus
}
#endif
#endif
