/* SPDX-License-Identifier: Apache-2.0
 *
 * An arena and a slot table that go from one owner to the next.
 */
#ifndef TY_TESTS_CACHE_ADOPT_HOUSE_H
#define TY_TESTS_CACHE_ADOPT_HOUSE_H

#include "check.h"

#include "cache/slots.h"

enum { PIECES = 6 };

extern struct ty_error err;
extern struct ty_arena arena;
extern struct ty_slots *slots;

int open_both(void **state);
int close_both(void **state);

/* The process dies, another one takes over; what the descriptors are copies of stays. */
enum ty_code hand_over(struct ty_slots_found *found);

struct ty_key key_of(uint64_t n);
uint32_t take(uint64_t bytes, uint64_t n); /* a slot for key_of(n) */

#endif
