/* SPDX-License-Identifier: Apache-2.0
 *
 * The mailbox: one word. It holds a pointer to the newest message of an intrusive last-in-first-out
 * list, or one of three tags. The consumer takes the whole list by one exchange and reverses it into
 * FIFOs of its own (ty_fifo), so it never waits for a producer that was preempted half-way.
 *
 *            word             who may change it, and to what
 *            EMPTY (running)  producer: message; consumer: IDLE, CLOSED
 *            IDLE             producer: message, and then schedules the actor; poller: EMPTY
 *            message          producer: newer message; consumer: EMPTY (takes all), CLOSED (takes all)
 *            CLOSED           nobody
 *
 *            who with whom    push   take/try_idle/leave_idle/close
 *            push             yes    yes
 *            consumer side    yes    no: one thread at a time, see below
 *
 * IDLE is the schedule flag: exactly one producer sees it go, and that producer makes the actor
 * runnable. "The queue was empty" would not do: it is true while a handler still runs.
 */
#ifndef TY_RUNTIME_MAILBOX_H
#define TY_RUNTIME_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <tyer/actor.h>

/* ty_msg.flags; written by the sender before the push, cleared by the receiver before the handler but for TY_MSG_KEPT.
 * The upper half is the size of a typed message, in units of its alignment (TY_SIZE_CODE); 0: untyped. */
enum {
	TY_MSG_URGENT = 1,   /* goes to the urgent FIFO at the reversal */
	TY_MSG_QUEUED = 2,   /* sits in a mailbox: sending it again is a bug of the sender's */
	TY_MSG_INTERNAL = 4, /* the runtime's own; never shown to a class */
	TY_MSG_REPLY = 8,    /* a request's answer: ty_request.reply.msg */
	TY_MSG_REQUEST = 16, /* a request that wants an answer: ty_request.msg */
};
#define TY_MSG_SIZE UINT32_C(0xffff0000)
#define TY_MSG_KEPT (TY_MSG_SIZE | TY_MSG_REQUEST) /* while the handler runs: it may find that the message does not fit */

#define TY_BOX_EMPTY ((uintptr_t)0)
#define TY_BOX_IDLE ((uintptr_t)1)
#define TY_BOX_CLOSED ((uintptr_t)2)

struct ty_mailbox {
	_Atomic(uintptr_t) word;
};

enum ty_pushed { TY_PUSH_QUEUED, TY_PUSH_WOKE, TY_PUSH_CLOSED };

/* Private to the consumer. */
struct ty_fifo {
	struct ty_msg *head, *tail;
};

static inline void ty_fifo_put(struct ty_fifo *fifo, struct ty_msg *msg)
{
	msg->next = NULL;
	if (fifo->tail)
		fifo->tail->next = msg;
	else
		fifo->head = msg;
	fifo->tail = msg;
}

static inline struct ty_msg *ty_fifo_take(struct ty_fifo *fifo)
{
	struct ty_msg *msg = fifo->head;

	if (msg) {
		fifo->head = msg->next;
		if (!fifo->head)
			fifo->tail = NULL;
	}
	return msg;
}

/* Any thread that keeps the mailbox alive. Lock-free: a failed exchange means another push went
 * through. On TY_PUSH_WOKE the caller must schedule the actor; on TY_PUSH_CLOSED the message is
 * still the caller's.
 *
 * acq_rel: the release publishes the message to ty_mailbox_take's acquire; the acquire pairs with
 * the release of ty_mailbox_try_idle, so that whoever schedules the actor sees all that its last run
 * wrote (its run-queue link among it). */
static inline enum ty_pushed ty_mailbox_push(struct ty_mailbox *box, struct ty_msg *msg)
{
	struct ty_msg *next = msg->next;
	uintptr_t old = atomic_load_explicit(&box->word, memory_order_relaxed);

	do {
		if (old == TY_BOX_CLOSED) {
			msg->next = next;
			return TY_PUSH_CLOSED;
		}
		msg->next = old == TY_BOX_IDLE ? NULL : (struct ty_msg *)old;
	} while (!atomic_compare_exchange_weak_explicit(
		&box->word, &old, (uintptr_t)msg, memory_order_acq_rel, memory_order_relaxed));
	return old == TY_BOX_IDLE ? TY_PUSH_WOKE : TY_PUSH_QUEUED;
}

/* Consumer, while the word is not IDLE. Everything sent since the last take, newest first, or null.
 * acquire: pairs with push. */
static inline struct ty_msg *ty_mailbox_take(struct ty_mailbox *box)
{
	/* relaxed look first: most runs end with an empty mailbox, and a load is cheaper than an exchange */
	if (atomic_load_explicit(&box->word, memory_order_relaxed) == TY_BOX_EMPTY)
		return NULL;
	return (struct ty_msg *)atomic_exchange_explicit(&box->word, TY_BOX_EMPTY, memory_order_acquire);
}

/* Consumer, its FIFOs empty. True: the mailbox is IDLE, the next push schedules the actor, and a
 * pooled actor may be running elsewhere already: do not touch it. False: something arrived.
 * release: pairs with the acquire in push. */
static inline bool ty_mailbox_try_idle(struct ty_mailbox *box)
{
	uintptr_t expected = TY_BOX_EMPTY;

	return atomic_compare_exchange_strong_explicit(
		&box->word, &expected, TY_BOX_IDLE, memory_order_release, memory_order_relaxed);
}

/* The thread that made a mailbox IDLE and is the only one to run its actor (dedicated, simulated):
 * back to EMPTY. False: a producer was first, and has woken or will wake the thread. relaxed: the
 * messages are acquired by the take that follows. */
static inline bool ty_mailbox_leave_idle(struct ty_mailbox *box)
{
	uintptr_t expected = TY_BOX_IDLE;

	return atomic_compare_exchange_strong_explicit(
		&box->word, &expected, TY_BOX_EMPTY, memory_order_relaxed, memory_order_relaxed);
}

/* Consumer, while the word is not IDLE: no message comes in any more. Returns what was still there,
 * newest first. acquire: pairs with push; release: with ty_mailbox_closed. */
static inline struct ty_msg *ty_mailbox_close(struct ty_mailbox *box)
{
	return (struct ty_msg *)atomic_exchange_explicit(&box->word, TY_BOX_CLOSED, memory_order_acq_rel);
}

/* Anyone, after TY_PUSH_CLOSED, who needs to see what the consumer did before its close. True. */
static inline bool ty_mailbox_closed(struct ty_mailbox *box)
{
	return atomic_load_explicit(&box->word, memory_order_acquire) == TY_BOX_CLOSED;
}

/* Reverse a list taken from a mailbox and append it, oldest first. Says how many there were. */
static inline uint32_t ty_mailbox_sort(struct ty_msg *newest, struct ty_fifo *urgent, struct ty_fifo *normal)
{
	struct ty_msg *oldest = NULL;
	uint32_t count = 0;

	while (newest) {
		struct ty_msg *next = newest->next;

		newest->next = oldest;
		oldest = newest;
		newest = next;
		count++;
	}
	while (oldest) {
		struct ty_msg *next = oldest->next;

		ty_fifo_put(oldest->flags & TY_MSG_URGENT ? urgent : normal, oldest);
		oldest = next;
	}
	return count;
}

#endif
