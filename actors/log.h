/* SPDX-License-Identifier: Apache-2.0
 *
 * log: a dedicated thread that writes the lines to stderr, so that a full disk or a stopped pipe behind it blocks nobody
 * else. Lines travel in a fixed pool; when all of them are on their way, the next line is dropped and counted.
 */
#ifndef TY_ACTORS_LOG_H
#define TY_ACTORS_LOG_H

#include <tyer/actor.h>

#include "base/log.h"
#include "messages.h"

#define TY_LOG_LINES 1024

struct ty_log_line {
	struct ty_msg msg;
	size_t length;
	char text[TY_LOG_LINE_MAX];
};

/* The actor installs ty_log_actor_sink itself when it starts, and removes it when it stops; before and after, lines are written
 * to stderr by whoever logs. One at a time in a process. Spawn it first, so that it is stopped last. */
extern const struct ty_class ty_log_class; /* arg: struct ty_service */

/* For ty_log_set_sink. Any thread; false when there is no such actor, or no line left. */
bool ty_log_actor_sink(const char *line, size_t length);

/* Lines that were taken but that stderr did not take: it failed, or was blocked when the service stopped. Any thread. */
uint64_t ty_log_lost(void);

#endif
