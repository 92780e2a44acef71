/* SPDX-License-Identifier: Apache-2.0
 *
 * An engine at work, in a process of its own or on a thread of this one: steps of about 1.6 ms, each a row of kernels that read
 * weights. For calibrating and measuring beside it; no service starts one. One at a time.
 */
#ifndef TY_BUSY_H
#define TY_BUSY_H

#include <stdbool.h>
#include <stdint.h>

#include <tyer/result.h>

#include "device/cuda_client.h"

/* Start it, before this process calls the driver; returns when it steps. `tiny`: a few kernels over a little memory. */
TY_MUST_USE enum ty_code ty_busy_start(const char *driver, int ordinal, bool tiny, struct ty_error *err);
/* The same on a thread of this process, in the device's primary context: for an owner in the engine's process. An error of the driver
 * ends the process. */
TY_MUST_USE enum ty_code ty_busy_start_here(const char *driver, int ordinal, bool tiny, struct ty_error *err);
/* After any start, also one that failed. */
void ty_busy_stop(void);

/* How many steps there have been. */
uint64_t ty_busy_steps(void);
/* Microseconds of a step, median and 99th of 100, of those from `from` on (at most the last 65536); 0 when there was none. */
void ty_busy_times(uint64_t from, double *median, double *p99);

/* A kernel that ends when the 64-bit word at `address` is not 0, on the client's stream: an engine that hangs. Returns at once. */
TY_MUST_USE enum ty_code ty_busy_hang(struct ty_cuda_client *c, uint64_t address, struct ty_error *err);

#endif
