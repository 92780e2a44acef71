/* SPDX-License-Identifier: Apache-2.0
 *
 * A line for whoever started tyerd, in no log's form: that it is ready, or why it does not start.
 */
#ifndef TY_TYERD_SAY_H
#define TY_TYERD_SAY_H

#include <tyer/result.h>

/* The text, with its newline, to standard output or standard error. If that is a pipe that nobody reads, it waits for a second and then leaves
 * it: nothing else may depend on a reader. Any thread. */
void ty_say(int fd, const char *fmt, ...) TY_PRINTF(2, 3);

#endif
