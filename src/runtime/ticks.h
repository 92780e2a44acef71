/* SPDX-License-Identifier: Apache-2.0
 *
 * Ticks: the cheapest time that is the same on every CPU. The counter that the CPU itself keeps, where it says that
 * it runs at one rate whatever happens; else, and in deterministic mode, the runtime's clock in ns. Ticks are for
 * stamping what happens; when somebody looks, they become times of the runtime's clock by two readings of both, one
 * from the runtime's creation and one from now, so that no rate need be known.
 */
#ifndef TY_RUNTIME_TICKS_H
#define TY_RUNTIME_TICKS_H

#include <stdbool.h>
#include <stdint.h>

#if defined(__x86_64__)
#include <x86intrin.h>
#define TY_HAVE_COUNTER 1
static inline uint64_t ty_counter(void)
{
	return __rdtsc();
}
#elif defined(__aarch64__)
#define TY_HAVE_COUNTER 1
static inline uint64_t ty_counter(void)
{
	uint64_t ticks;

	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
	return ticks;
}
#else
#define TY_HAVE_COUNTER 0
static inline uint64_t ty_counter(void)
{
	return 0;
}
#endif

struct ty_runtime;

/* Both clocks at one instant. */
struct ty_instant {
	uint64_t ticks;
	int64_t ns;
};

bool ty_counter_steady(void); /* may ty_counter be used at all */
struct ty_instant ty_instant_read(const struct ty_runtime *rt);
/* The clock at `ticks`, by the line through the runtime's creation and `now`. */
int64_t ty_ticks_clock(const struct ty_runtime *rt, const struct ty_instant *now, uint64_t ticks);
/* How long `ticks` take, in ns. */
int64_t ty_ticks_span(const struct ty_runtime *rt, const struct ty_instant *now, uint64_t ticks);

#endif
