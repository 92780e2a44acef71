/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TY_BASE_SECRET_H
#define TY_BASE_SECRET_H

#include <stddef.h>

#include <tyer/result.h>

/* What the file holds, at most size - 1 bytes and a zero behind them, into `out`. TY_IO: it cannot be read. TY_DENIED: others
 * may read it. TY_INVALID: it is longer. The text begins with `what` and the path; nothing of the contents is in it. After an
 * error `out` is zeros. Any thread; waits for the disk. */
TY_MUST_USE enum ty_code ty_secret_read(const char *what, const char *path, char *out, size_t size, struct ty_error *err);

#endif
