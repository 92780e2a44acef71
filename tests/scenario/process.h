/* SPDX-License-Identifier: Apache-2.0
 *
 * For scenario tests that need the service as a process of its own: to kill, to stop, to start anew.
 */
#ifndef TY_TESTS_PROCESS_H
#define TY_TESTS_PROCESS_H

#include <sys/types.h>

#include "harness.h"

/* Start tyerd (its path in $TYERD) where `s` was prepared, and wait until it is ready. `more` are further options, ended by null, or
 * null. $LD_PRELOAD is `preload` if that is not null. */
pid_t p_start(struct h_service *s, const char *const *more, const char *preload);
void p_kill(pid_t pid); /* SIGKILL, and wait */
/* SIGTERM, and wait: its exit status. */
int p_stop(pid_t pid);
void p_freeze(pid_t pid); /* SIGSTOP, and wait until none of its threads runs */

/* A clock that can be put ahead: of the services that p_start(.., getenv("SHIFT_CLOCK")) starts from p_clock_open on. Such a service is
 * to be killed, not stopped: the kernel's clocks are not ahead, and a thread that waits there for a time of ours waits for long. */
struct p_clock {
	_Atomic int64_t *ahead; /* [0]: the monotonic clocks, [1]: that on the wall; nanoseconds, to be changed at any time */
	char path[32];
};
void p_clock_open(struct p_clock *clock);
void p_clock_close(struct p_clock *clock);

/* A number of STATUS by its name of /metrics ("tyer_operations"). */
double p_counter(struct h_client *c, const char *name);
/* Poll until the client is connected (again). */
void p_wait_up(struct h_client *c);

#endif
