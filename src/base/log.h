/* SPDX-License-Identifier: Apache-2.0
 *
 * Logging that never blocks its caller: a line is formatted into a fixed buffer and handed to the sink. Before a sink is
 * set, and after it is removed, lines are written to stderr. Any thread.
 */
#ifndef TY_BASE_LOG_H
#define TY_BASE_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tyer/result.h>

enum ty_log_level { TY_LOG_ERROR, TY_LOG_WARN, TY_LOG_INFO, TY_LOG_DEBUG };

#define TY_LOG_LINE_MAX 1024 /* bytes with the newline; longer text is cut and marked */
#define TY_LOG_TIME_MAX 64   /* bytes that ty_log_format_time needs at most, with the zero */

/* Takes a complete line (with newline); must not block; false: could not take it (it is counted as dropped). */
typedef bool (*ty_log_sink)(const char *line, size_t length);

void ty_log_setup(enum ty_log_level level, bool json);
void ty_log_set_sink(ty_log_sink sink); /* null: stderr */
uint64_t ty_log_dropped(void);

/* "2026-01-31T23:59:59.999Z": UTC, seconds since 1970. Takes no lock (gmtime_r does). */
void ty_log_format_time(char out[TY_LOG_TIME_MAX], int64_t seconds, unsigned milliseconds);

/* `where` is a short name of the part ("gpu", "clients"); the text is one line. */
void ty_log(enum ty_log_level level, const char *where, const char *fmt, ...) TY_PRINTF(3, 4);

#endif
