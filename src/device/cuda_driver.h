/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver's library, found at run time. Only src/device/cuda*.c includes this: nobody else can reach the driver.
 */
#ifndef TY_DEVICE_CUDA_DRIVER_H
#define TY_DEVICE_CUDA_DRIVER_H

#include <stdbool.h>

#include <tyer/result.h>
#include "cuda_api.h"

/* Open the library (null = "libcuda.so.1"), fill the table, initialize the driver. TY_UNSUPPORTED: there is none, it is too
 * old, or a function is missing (named). The library stays open until the process ends: a driver cannot be unloaded. */
TY_MUST_USE enum ty_code ty_cuda_load(const char *path, struct ty_cuda *api, struct ty_error *err);

/* What an engine's side needs besides, of a driver that is loaded; `path` is for the text. */
TY_MUST_USE enum ty_code ty_cuda_load_words(const char *path, const struct ty_cuda *api, struct ty_cuda_words *words,
	struct ty_error *err);

/* Make `context` this thread's, unless it is. */
TY_MUST_USE cu_result ty_cuda_use(const struct ty_cuda *api, cu_context context);
/* Before a context goes: this thread has none of it. */
void ty_cuda_forget(const struct ty_cuda *api, cu_context context);

/* "CUDA_ERROR_...", never null. */
const char *ty_cuda_error_name(const struct ty_cuda *api, cu_result result);
/* Does every later call in this process fail after this one? */
bool ty_cuda_sticky(cu_result result);
/* By what a call about a context's work came to: is there nothing of it that still runs? Some errors say nothing of what was queued before. */
bool ty_cuda_gone(cu_result result);
/* The code for an error that is not sticky, of a call that `what` names; fills err. */
enum ty_code ty_cuda_fail(const struct ty_cuda *api, struct ty_error *err, const char *what, cu_result result);

/* Look the device up, retain its primary context and make it this thread's. */
TY_MUST_USE enum ty_code ty_cuda_context(const struct ty_cuda *api, int ordinal, cu_device *device, cu_context *context,
	struct ty_error *err);

#endif
