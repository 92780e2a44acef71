/* SPDX-License-Identifier: Apache-2.0
 *
 * systemd's notification protocol: a few lines of text, and perhaps a descriptor, to whoever started this process: to our own
 * supervisor over the socket that TYER_SUPERVISOR names, else to the service manager's that NOTIFY_SOCKET names.
 */
#ifndef TY_TYERD_NOTIFY_H
#define TY_TYERD_NOTIFY_H

#define TY_NOTIFY_MAX 1024 /* bytes of a message */
/* A line of our own: why this process ends by itself. */
#define TY_NOTIFY_REASON "X_TYER_REASON="
/* Another one, to a supervisor alone: all that the process before left serves again. */
#define TY_NOTIFY_RETURNED "X_TYER_RETURNED=1"

/* Once, before the others: from now on messages go over this socket. */
void ty_notify_over(int fd);

/* That socket; -1: there is none. Its end is the supervisor's. */
int ty_notify_socket(void);

/* Send `state` ("READY=1") if anybody wants it, with `fd` unless it is -1. Waits for a moment if the other side is behind;
 * other errors are its loss. Main thread. */
void ty_notify(const char *state, int fd);
/* Keep this descriptor under this name, instead of one that has it. fd -1: keep none. */
void ty_notify_keep(const char *name, int fd);

#endif
