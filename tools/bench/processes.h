/* SPDX-License-Identifier: Apache-2.0
 *
 * The processes of a run: forked before any of them has a thread, held at a common start, watched until they end. What
 * they count lies in memory that they share with the parent.
 */
#ifndef TY_BENCH_PROCESSES_H
#define TY_BENCH_PROCESSES_H

#include "engine.h"

struct bench_processes;

struct bench_child {
	struct bench_control *control;
	struct bench_stats *stats; /* its own */
	unsigned number;
	int ready_fd, start_fd;
	const void *user;
};
/* Runs in the child; calls bench_child_start once, when it is ready. */
typedef void (*bench_child_fn)(struct bench_child *child);
/* Says that this child is ready and waits for the start. False: there will be none; return. */
TY_MUST_USE bool bench_child_start(struct bench_child *child);

TY_MUST_USE enum ty_code bench_processes_new(unsigned count, struct bench_processes **out, struct ty_error *err);
void bench_processes_free(struct bench_processes *processes);
/* Child `number` (0, 1, ...; each once). A `follower` runs until the others have ended. */
TY_MUST_USE enum ty_code bench_processes_fork(struct bench_processes *processes, unsigned number, bool follower,
	bench_child_fn run, const void *user, struct ty_error *err);
/* Wait until all are ready, start them, call `tick` now and then, and wait until all have ended. SIGINT and SIGTERM end
 * the run early. A child that fails before the start keeps the others from starting. */
void bench_processes_run(struct bench_processes *processes,
	void (*tick)(struct bench_processes *processes, void *user), void *user);

struct bench_control *bench_processes_control(struct bench_processes *processes);
struct bench_stats *bench_processes_stats(struct bench_processes *processes, unsigned number);

#endif
