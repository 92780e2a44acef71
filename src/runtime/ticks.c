/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/ticks.h"

#include "runtime/runtime.h"

#if defined(__x86_64__)
#include <cpuid.h>
#define CPUID_POWER 0x80000007u
#define POWER_STEADY (1u << 8) /* edx: the counter runs at one rate in all states */
#endif

#define READINGS 3

bool ty_counter_steady(void)
{
#if defined(__x86_64__)
	unsigned int a, b, c, d;

	return __get_cpuid(CPUID_POWER, &a, &b, &c, &d) && (d & POWER_STEADY);
#else
	return TY_HAVE_COUNTER;
#endif
}

struct ty_instant ty_instant_read(const struct ty_runtime *rt)
{
	struct ty_instant best = {0};
	uint64_t narrowest = UINT64_MAX;

	if (!rt->counter) {
		int64_t now = ty_runtime_now(rt);

		return (struct ty_instant){(uint64_t)now, now};
	}
	for (int i = 0; i < READINGS; i++) { /* the one that was interrupted least */
		uint64_t before = ty_counter(), after;
		int64_t ns = ty_clock();

		after = ty_counter();
		if (after - before < narrowest) {
			narrowest = after - before;
			best = (struct ty_instant){before + narrowest / 2, ns};
		}
	}
	return best;
}

int64_t ty_ticks_span(const struct ty_runtime *rt, const struct ty_instant *now, uint64_t ticks)
{
	uint64_t passed = now->ticks - rt->created.ticks;

	if (!rt->counter)
		return (int64_t)ticks;
	if (!passed)
		return 0;
	return (int64_t)((double)(int64_t)ticks * ((double)(now->ns - rt->created.ns) / (double)passed));
}

int64_t ty_ticks_clock(const struct ty_runtime *rt, const struct ty_instant *now, uint64_t ticks)
{
	/* from the nearer end of the line: what happened just now is wanted most exactly */
	return rt->counter ? now->ns - ty_ticks_span(rt, now, now->ticks - ticks) : (int64_t)ticks;
}
