/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/park.h"

#include <assert.h>
#include <ck_ec.h>
#include <errno.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <tyer/actor.h>

static_assert(sizeof(struct ty_park) == sizeof(struct ck_ec32), "a park is an event count");

#define NS 1000000000

/* Made here and not by libc's syscall: on the way out of a sleep each cache line and page that is touched is a miss. */
static void futex(const uint32_t *word, unsigned long op, uint32_t value, const struct timespec *deadline)
{
#if defined(__x86_64__)
	unsigned long number = SYS_futex;
	register const struct timespec *timeout __asm__("r10") = deadline;
	register unsigned long second __asm__("r8") = 0;
	register unsigned long bits __asm__("r9") = FUTEX_BITSET_MATCH_ANY;

	__asm__ volatile("syscall"
			 : "+a"(number)
			 : "D"(word), "S"(op), "d"(value), "r"(timeout), "r"(second), "r"(bits)
			 : "rcx", "r11", "memory");
#else
	syscall(SYS_futex, word, op, value, deadline, NULL, FUTEX_BITSET_MATCH_ANY);
#endif
}

static struct ck_ec32 *ec(struct ty_park *park)
{
	return (struct ck_ec32 *)(void *)park;
}

int64_t ty_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * NS + now.tv_nsec;
}

static int get_time(const struct ck_ec_ops *ops, struct timespec *out)
{
	(void)ops;
	return clock_gettime(CLOCK_MONOTONIC, out);
}

/* The deadline is the wait's own (state->data), never the step of ck's backoff. */
static void futex_wait(const struct ck_ec_wait_state *state, const uint32_t *word, uint32_t expected,
	const struct timespec *step)
{
	const struct timespec *deadline = state->data;

	(void)step;
	/* returns early on a changed word, a signal, spuriously: ck_ec checks and comes again */
	futex(word, FUTEX_WAIT_BITSET_PRIVATE, expected, deadline);
}

static void futex_wake(const struct ck_ec_ops *ops, const uint32_t *word)
{
	(void)ops;
	futex(word, FUTEX_WAKE_PRIVATE, 1, NULL);
}

/* Spinning is done by those who park, who know what to look at meanwhile. */
static const struct ck_ec_ops ops = {
	.gettime = get_time,
	.wait32 = futex_wait,
	.wake32 = futex_wake,
	.busy_loop_iter = 1,
};
/* The variant for one producer rests on x86's store order and on a one-second backoff: not for us. */
static const struct ck_ec_mode mode = {.ops = &ops, .single_producer = false};

void ty_park_init(struct ty_park *park)
{
	ck_ec32_init(ec(park), 0);
}

uint32_t ty_park_ticket(const struct ty_park *park)
{
	return ck_ec32_value((const struct ck_ec32 *)(const void *)park);
}

bool ty_park_wait(struct ty_park *park, uint32_t ticket, int64_t deadline)
{
	struct timespec until;

	if (deadline == TY_NEVER)
		return ck_ec32_wait_pred(ec(park), &mode, ticket, NULL, NULL, NULL) == 0;
	if (deadline <= 0)
		return ty_park_ticket(park) != ticket;
	until.tv_sec = deadline / NS;
	until.tv_nsec = deadline % NS;
	return ck_ec32_wait_pred(ec(park), &mode, ticket, NULL, &until, &until) == 0;
}

void ty_park_wake(struct ty_park *park)
{
	ck_ec32_inc(ec(park), &mode);
}
