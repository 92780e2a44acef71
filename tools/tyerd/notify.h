/* SPDX-License-Identifier: Apache-2.0
 *
 * The service manager's notification protocol: one datagram to the socket that NOTIFY_SOCKET names.
 */
#ifndef TY_TYERD_NOTIFY_H
#define TY_TYERD_NOTIFY_H

/* Send `state` ("READY=1") if a manager asked for it; errors are the manager's loss. Main thread. */
void ty_notify(const char *state);

#endif
