/* SPDX-License-Identifier: Apache-2.0
 *
 * What a thread waits on that has descriptors to look after: epoll, and an eventfd by which anybody wakes it. For actors with a thread
 * and a wait of their own (ty_class.wait).
 *
 * | may be called by                         |                    | together with  |
 * | ty_waiter_wake                           | anyone             | everything     |
 * | all others                               | the thread it is   | ty_waiter_wake |
 *
 * Waker and thread are ordered by whoever decides that a wake is needed (an actor's mailbox); there is no order to be had here.
 */
#ifndef TY_BASE_WAITER_H
#define TY_BASE_WAITER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include <tyer/result.h>

#define TY_WAITER_EVENTS 64 /* taken at once */

struct ty_waiter {
	int epoll_fd, wake_fd; /* constant while it is open */
	int64_t spin_ns;       /* looked for so long before it sleeps; 0: it sleeps at once */
	int count;             /* of events that a wait came back with */
	bool put_off;          /* the last take left looking to the wait that mostly follows it */
	struct epoll_event events[TY_WAITER_EVENTS];
};

TY_MUST_USE enum ty_code ty_waiter_open(struct ty_waiter *waiter, struct ty_error *err); /* TY_IO */
void ty_waiter_close(struct ty_waiter *waiter);

/* Have events of `fd` come with `data` (any but UINT64_MAX); level-triggered. Closing the descriptor takes it out, unless
 * somebody has a copy of it: then it is removed first. False: errno says why. */
TY_MUST_USE bool ty_waiter_add(struct ty_waiter *waiter, int fd, uint32_t events, uint64_t data);
TY_MUST_USE bool ty_waiter_change(struct ty_waiter *waiter, int fd, uint32_t events, uint64_t data);
void ty_waiter_remove(struct ty_waiter *waiter, int fd);

/* Sleep until there is an event, a wake, or `ns` have passed (below 0: for as long as it takes). Returns early at times. */
void ty_waiter_wait(struct ty_waiter *waiter, int64_t ns);
void ty_waiter_wake(struct ty_waiter *waiter);
/* What there is to do: *events, at most TY_WAITER_EVENTS, until the next wait or take. To be called again and again, and always before
 * a wait. One for a descriptor that was closed meanwhile may be among them. */
int ty_waiter_take(struct ty_waiter *waiter, const struct epoll_event **events);

#endif
