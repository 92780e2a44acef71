/* SPDX-License-Identifier: Apache-2.0
 *
 * What the cache's unit tests share.
 */
#ifndef TY_TESTS_CACHE_CHECK_H
#define TY_TESTS_CACHE_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <tyer/result.h>

#define assert_ok(call, err) \
	do { \
		if ((call) != TY_OK) \
			fail_msg("%s: %s", #call, (err)->text); \
	} while (0)

/* The call fails with this code, says so in the error too, and its text names this. */
#define assert_refused(call, want, err, words) \
	do { \
		memset((err), 0, sizeof *(err)); \
		assert_int_equal((call), (want)); \
		assert_int_equal((err)->code, (want)); \
		if (!strstr((err)->text, (words))) \
			fail_msg("\"%s\" does not say \"%s\"", (err)->text, (words)); \
	} while (0)

/* splitmix64: the same numbers everywhere. */
static inline uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

#endif
