/* SPDX-License-Identifier: Apache-2.0
 *
 * Parking a thread: ck's event count, with deadlines that are kept. Unwrapped, ck_ec sleeps in steps
 * of 2, 16, 128 and 1024 ms and looks at the caller's deadline only between them.
 *
 * One waiter, any number of wakers:
 *
 *	waiter                                   waker
 *	ticket = ty_park_ticket(park);           make the condition true;
 *	say that I may sleep;                    see that the waiter may sleep;
 *	check the condition;                     ty_park_wake(park);
 *	ty_park_wait(park, ticket, deadline);
 *
 * A wake after the ticket was drawn ends the wait, also if it comes before it. Whether "say, then
 * check" and "make, then see" need sequential consistency is the user's to decide; each says so.
 */
#ifndef TY_RUNTIME_PARK_H
#define TY_RUNTIME_PARK_H

#include <stdbool.h>
#include <stdint.h>

struct ty_park {
	uint32_t counter; /* a struct ck_ec32: waiter and wakers, through ck_ec alone */
};

void ty_park_init(struct ty_park *park);
uint32_t ty_park_ticket(const struct ty_park *park);
/* Until woken since the ticket, or CLOCK_MONOTONIC passes the deadline (ns; TY_NEVER). True: woken. */
bool ty_park_wait(struct ty_park *park, uint32_t ticket, int64_t deadline);
/* Never blocks; a system call only when the waiter sleeps. */
void ty_park_wake(struct ty_park *park);

int64_t ty_clock(void); /* CLOCK_MONOTONIC, ns */

/* In a loop that spins. */
static inline void ty_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

#endif
