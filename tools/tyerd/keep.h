/* SPDX-License-Identifier: Apache-2.0
 *
 * Descriptors that outlive a process: what is handed over at a start, and to whom. Both sides speak systemd's protocol (its
 * descriptor store, and LISTEN_FDS at a start), whether the other side is systemd or our own supervisor.
 */
#ifndef TY_TYERD_KEEP_H
#define TY_TYERD_KEEP_H

#include <stdbool.h>

enum ty_kept_name { TY_KEPT_ARENA, TY_KEPT_SLOTS, TY_KEPT_RECORD, TY_KEPT_HTTP, TY_KEPT_COUNT };
#define TY_KEPT_CACHE TY_KEPT_HTTP /* those before it are the cache */

struct ty_kept {
	int fd[TY_KEPT_COUNT]; /* -1: none */
};

extern const char *const ty_kept_names[TY_KEPT_COUNT]; /* "tyer-arena", ... */
int ty_kept_find(const char *name); /* an enum ty_kept_name; -1: none of ours */

/* What was handed to this process: LISTEN_FDS and LISTEN_FDNAMES, if LISTEN_PID says that they are meant for it. Descriptors
 * of other names, and the second one of a name, are closed. The environment forgets them. Before any thread exists. */
void ty_kept_take(struct ty_kept *kept);
#define TY_KEPT_HIGH 64 /* whoever calls ty_kept_hand_on has what it wants to keep at this number or above */
/* The other way round, in a process that is about to become another program: its descriptors from 3 on are these, and the
 * environment says so. `kept`, and *also (-1: none) with them, move to TY_KEPT_HIGH and above; *also stays open in the next
 * program. False: errno. */
bool ty_kept_hand_on(struct ty_kept *kept, int *also);

#endif
