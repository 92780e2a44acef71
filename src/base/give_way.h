/* SPDX-License-Identifier: Apache-2.0
 *
 * For threads whose work can wait a little: pages for later, sums, tiers.
 */
#ifndef TY_BASE_GIVE_WAY_H
#define TY_BASE_GIVE_WAY_H

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TY_GIVE_WAY_NICENESS 5

/* The calling thread gives way to whoever has work now (the kernel's niceness is a thread's own on Linux, and threads that it or
 * its rings begin later inherit it). Raising it is always allowed; if not, the thread is merely less polite. */
static inline void ty_give_way(void)
{
	(void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), TY_GIVE_WAY_NICENESS);
}

#endif
