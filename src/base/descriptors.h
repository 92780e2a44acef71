/* SPDX-License-Identifier: Apache-2.0
 *
 * Descriptors that come from somebody else. Who drops the last copy of one may wait as long as whoever made it likes: a TCP socket
 * that is told to linger over bytes that nobody reads (hours), a file of a FUSE or network file system whose server is silent. It
 * is dropped by close; by a receive that has no room for it; and by the close of a UNIX socket in whose queue it lies. So
 * nobody may send any where none is expected, what is none of the kinds that are is refused, and what may wait is closed by a thread
 * that has nothing else to do.
 */
#ifndef TY_BASE_DESCRIPTORS_H
#define TY_BASE_DESCRIPTORS_H

#include <stdbool.h>

#include <tyer/result.h>

/* May descriptors be sent to this UNIX socket; of one that listens: to what it accepts? False: the kernel does not know how to forbid
 * it (before Linux 6.16), and everybody who may connect may. */
bool ty_descriptors_allow(int socket, bool allowed);

/* Is it of a kind whose close never waits: a memfd, a device's, a pipe? Does not wait. */
bool ty_descriptor_closes_at_once(int fd);

/* A thread that closes descriptors, each in its own time. *closer is what the two below want. */
TY_MUST_USE enum ty_code ty_closer_open(int *closer, struct ty_error *err);
/* The descriptor is the thread's. Any thread; does not wait. False: thousands are waiting already, and this one stays open for good. */
bool ty_closer_take(int closer, int fd);
/* It ends when it has closed what it has; nobody waits for that. */
void ty_closer_close(int closer);

#endif
