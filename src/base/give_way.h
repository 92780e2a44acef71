/* SPDX-License-Identifier: Apache-2.0
 *
 * Whose turn it is on a CPU. Some threads answer requests: they run for microseconds, and what they are woken for cannot wait.
 * Others move bytes: they run for milliseconds, and a little later is as good.
 */
#ifndef TY_BASE_GIVE_WAY_H
#define TY_BASE_GIVE_WAY_H

#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TY_GIVE_WAY_NICENESS 5
#define TY_SHORT_TURN_NS 100000  /* of who answers; the shortest that the kernel takes */
#define TY_OWNER_TURN_NS 500000  /* of who copies what somebody waits for; without a word it is 0.7 to 3 ms */

/* The kernel's struct sched_attr in its first size; the C library has no name for it yet. */
struct ty_sched_attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

/* The calling thread, and those that it begins from now on, ask for turns of `ns` (0: as long as anybody's). Since Linux 6.12 who
 * asks for less at a time is let on to a CPU at once when it is woken, instead of when the turn of whoever computes there is over
 * (4 ms where the clock ticks 250 times a second). Its share of the CPU stays what it is. An older kernel takes no notice. */
static inline void ty_set_turn(uint64_t ns)
{
	struct ty_sched_attr attr = {.size = sizeof attr};

	if (syscall(SYS_sched_getattr, 0, &attr, (unsigned)sizeof attr, 0) != 0)
		return;
	attr.size = sizeof attr;
	attr.runtime = ns;
	(void)syscall(SYS_sched_setattr, 0, &attr, 0);
}

/* The calling thread gives way to whoever has work now (the kernel's niceness is a thread's own on Linux, and threads that it or
 * its rings begin later inherit it). Raising it is always allowed; if not, the thread is merely less polite. */
static inline void ty_give_way(void)
{
	id_t self = (id_t)syscall(SYS_gettid);

	ty_set_turn(0);
	/* from where the process is: one that was begun with `nice` has threads that go first as well (19 is the end of it) */
	(void)setpriority(PRIO_PROCESS, self, getpriority(PRIO_PROCESS, self) + TY_GIVE_WAY_NICENESS);
}

#endif
