/* SPDX-License-Identifier: Apache-2.0
 *
 * The two processes that tyerd is: the worker, which is the service, and the supervisor, which holds what is to outlive it
 * and starts it again.
 */
#ifndef TY_TYERD_RUN_H
#define TY_TYERD_RUN_H

#include "base/config.h"
#include "keep.h"

/* Exit statuses of a worker: 0 it was asked to stop; 1 it cannot serve; 2 its configuration; and: a device is beyond use for
 * this process, start another one. */
#define TY_EXIT_DEVICE 70

/* From a supervisor to its worker, and to the supervisor that it becomes in an upgrade. */
#define TY_SUPERVISOR_ENV "TYER_SUPERVISOR" /* the socket between the two, in the worker */
#define TY_RESTARTS_ENV "TYER_RESTARTS"     /* workers before this one */
#define TY_REASON_ENV "TYER_RESTART_REASON" /* why the last one ended */
#define TY_ENDED_ENV "TYER_RESTART_ENDED"   /* when: ms of the monotonic clock */

int ty_worker_run(const struct ty_config *config, struct ty_kept *kept);
int ty_supervisor_run(const struct ty_config *config, char **argv, struct ty_kept *kept);

#endif
