/* SPDX-License-Identifier: Apache-2.0
 *
 * Finished requests on their way from nng's threads to the client's: a last-in-first-out list that is taken whole and
 * reversed, with an eventfd that is written when the list stops being empty.
 */
#ifndef TY_CLIENT_COMPLETIONS_H
#define TY_CLIENT_COMPLETIONS_H

#include <stdatomic.h>
#include <stddef.h>

/* Embedded in what travels. `next` is written by the pusher before the push and read by the taker after the take; what is around
 * it is handed over the same way. */
struct ty_completion {
	struct ty_completion *next;
};

struct ty_completions {
	_Atomic(struct ty_completion *) head; /* push: release; take: acquire, which pairs with it */
	int event_fd;                         /* constant; written by pushers, read by the taker */
};

/* Any thread, for an object that is not in the list. Never waits: a push fails only if another one succeeded, and the eventfd does
 * not block. */
void ty_completions_push(struct ty_completions *list, struct ty_completion *completion);
/* The client's thread. All that was pushed, oldest first; null if nothing was. */
struct ty_completion *ty_completions_take(struct ty_completions *list);
/* Make the eventfd readable, by hand: any thread. */
void ty_completions_signal(struct ty_completions *list);

#endif
