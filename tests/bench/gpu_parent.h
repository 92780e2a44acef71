/* SPDX-License-Identifier: Apache-2.0
 *
 * gpu_load's parent: who runs, what they do now, how much that was, and what is said of it. Whatever fails ends all of them.
 */
#ifndef TY_BENCH_GPU_PARENT_H
#define TY_BENCH_GPU_PARENT_H

#include <stdio.h>
#include <sys/types.h>

#include "gpu_load.h"

#define NAP_US 200
#define PATIENCE_NS ((int64_t)90 * 1000000000)

extern pid_t pids[LOAD_CLIENTS + 2]; /* 0: there is none, or it is over */
extern FILE *json;                   /* the report; NULL: none */

/* ---- everybody (gpu_parent.c) ---- */

_Noreturn void stop_all(int status);
void look_for_failures(void);
void start(unsigned index, void (*run)(unsigned index)); /* a process that runs `run`, which does not return */
void wait_open(unsigned index);
void start_clients(unsigned from, unsigned to); /* and wait until they are open */
uint32_t device_of(unsigned client);
uint64_t clients_on(uint32_t device); /* the clients of a device, as bits; of all: LOAD_DEVICES */
void set_phase(enum load_mode mode, uint64_t clients);
void wait_idle(void); /* until every client that lives is through with the phase */
void once(enum load_mode mode); /* both, for all */
void end_all(void);

/* ---- measuring (gpu_measure.c) ---- */

struct window {
	int64_t from, to;
	double rate[2]; /* GB/s out, in */
};

/* PINGs that were due in the window: microseconds. */
struct pings {
	uint32_t count;
	double p50, p99, p999, most;
};

void nap_until(int64_t end);
void look(uint64_t clients, double seconds, struct window *w);
void warm(uint64_t clients); /* until each of the clients has done a round since now */
struct window measure(enum load_mode mode, uint64_t clients); /* a phase of it, from its warm beginning to its end */
struct pings pings_of(const struct window *w);
int by_value(const void *a, const void *b); /* doubles, for qsort */
double part_of(const double *sorted, uint32_t count, double part);

/* ---- the report (gpu_measure.c) ---- */

void row(const char *fmt, ...) TY_PRINTF(1, 2);
const char *layout(void);
void say_pings(const char *when, const struct pings *p);
int check(void); /* fresh contents out and in, by every client that lives: 0 if all was right */

#endif
