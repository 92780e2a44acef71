/* SPDX-License-Identifier: Apache-2.0
 *
 * The mailbox: one word. It holds a pointer to the newest message of an intrusive last-in-first-out
 * list, or one of three tags. The consumer takes the whole list by one exchange and reverses it into
 * FIFOs of its own (ty_fifo), so it never waits for a producer that was preempted half-way.
 *
 *            word             who may change it, and to what
 *            EMPTY (running)  producer: message; consumer: IDLE, CLOSED
 *            IDLE             producer: EMPTY, and then hands its messages over and schedules the actor;
 *                             or (the actor has a thread of its own) message; poller: EMPTY
 *            message          producer: newer message; consumer: EMPTY (takes all), CLOSED (takes all)
 *            CLOSED           latecomers hang a list of their own on it; the owner ends that with OVER
 *            OVER             its owner, which leaves it: DEAD
 *
 *            who with whom    push   take/try_idle/leave_idle/close
 *            push, late       yes    yes
 *            consumer side    yes    no: one thread at a time, see below
 *
 * IDLE is the schedule flag: exactly one producer sees it go, and that producer makes the actor
 * runnable. "The queue was empty" would not do: it is true while a handler still runs. Until it has
 * scheduled the actor that producer is alone with it, so a message that wakes its receiver need not go
 * through the word: it is handed over beside it (ty_actor.handed), and taken without an exchange.
 */
#ifndef TY_RUNTIME_MAILBOX_H
#define TY_RUNTIME_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <tyer/actor.h>

/* ty_msg.flags, beside TY_MSG_QUEUED; written by the sender before the push, cleared by the receiver before the handler but
 * for TY_MSG_KEPT. The upper half is the size of a typed message, in units of its alignment (TY_SIZE_CODE); 0: untyped. */
enum {
	TY_MSG_URGENT = 1,   /* goes to the urgent FIFO at the reversal: an index, too */
	TY_MSG_INTERNAL = 4, /* the runtime's own; never shown to a class */
	TY_MSG_REPLY = 8,    /* a request's answer: ty_request.reply.msg */
	TY_MSG_REQUEST = 16, /* a request that wants an answer: ty_request.msg */
};
#define TY_MSG_SIZE UINT32_C(0xffff0000)
#define TY_MSG_KEPT (TY_MSG_SIZE | TY_MSG_REQUEST) /* while the handler runs: it may find that the message does not fit */

#define TY_BOX_EMPTY ((uintptr_t)0)
#define TY_BOX_IDLE ((uintptr_t)1)
#define TY_BOX_CLOSED ((uintptr_t)2) /* a bit: the rest is the late list */
#define TY_BOX_OVER ((uintptr_t)3)   /* two bits: IDLE's is never set with CLOSED's otherwise */
#define TY_BOX_DEAD ((uintptr_t)7)

/* Have a line come to be written. Whoever reads it first gets a copy, and waits once more when it writes. Any address will do,
 * also of what is gone. */
static inline void ty_fetch(const void *line)
{
#if defined(__x86_64__)
	__asm__ volatile("prefetchw %0" : : "m"(*(const char *)line)); /* the builtin asks for a copy */
#else
	__builtin_prefetch(line, 1);
#endif
}

struct ty_mailbox {
	_Atomic(uintptr_t) word;
};

enum ty_pushed { TY_PUSH_QUEUED, TY_PUSH_WOKE, TY_PUSH_CLOSED };

/* Private to the consumer: a ring through `next`, known by its newest message. */
struct ty_fifo {
	struct ty_msg *last;
};

/* A list from `first` to `last`, both not null. */
static inline void ty_fifo_append(struct ty_fifo *fifo, struct ty_msg *first, struct ty_msg *last)
{
	if (fifo->last) {
		last->next = fifo->last->next;
		fifo->last->next = first;
	} else {
		last->next = first;
	}
	fifo->last = last;
}

static inline struct ty_msg *ty_fifo_take(struct ty_fifo *fifo)
{
	struct ty_msg *last = fifo->last, *msg;

	if (!last)
		return NULL;
	msg = last->next;
	if (msg == last)
		fifo->last = NULL;
	else
		last->next = msg->next;
	return msg;
}

/* Any thread that keeps the mailbox alive. A list of messages, newest first; one is its own oldest.
 * Lock-free: a failed exchange means another push went through. TY_PUSH_WOKE: the caller must schedule
 * the actor, and hand the list over if `hand_over` is set: it is not in the mailbox then.
 * TY_PUSH_CLOSED: it is still the caller's.
 *
 * acq_rel: the release publishes the messages to ty_mailbox_take's acquire; the acquire pairs with
 * the release of ty_mailbox_try_idle, so that whoever schedules the actor sees all that its last run
 * wrote (its run-queue link among it). */
static inline enum ty_pushed ty_mailbox_push(
	struct ty_mailbox *box, struct ty_msg *newest, struct ty_msg *oldest, bool hand_over)
{
	uintptr_t old = atomic_load_explicit(&box->word, memory_order_relaxed), new;

	do {
		new = (uintptr_t)newest;
		oldest->next = NULL;
		if (old == TY_BOX_IDLE && hand_over)
			new = TY_BOX_EMPTY;
		else if (old & TY_BOX_CLOSED)
			return TY_PUSH_CLOSED;
		else if (old > TY_BOX_IDLE)
			oldest->next = (struct ty_msg *)old;
	} while (!atomic_compare_exchange_weak_explicit(
		&box->word, &old, new, memory_order_acq_rel, memory_order_relaxed));
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
	return atomic_load_explicit(&box->word, memory_order_acquire) & TY_BOX_CLOSED;
}

/* Consumer, after its close: nobody may come late any more. Returns who did, the last first. acq_rel: pairs with
 * join_late in monitor.c, both ways. */
static inline void *ty_mailbox_end(struct ty_mailbox *box)
{
	uintptr_t late = atomic_exchange_explicit(&box->word, TY_BOX_OVER, memory_order_acq_rel);

	return (void *)(late & ~TY_BOX_CLOSED);
}

/* Reverse a list taken from a mailbox and append it, oldest first. Says how many there were. Each message is written here, so its
 * line is fetched before it is read (ty_fetch). */
static inline uint32_t ty_mailbox_sort(struct ty_msg *newest, struct ty_fifo *urgent, struct ty_fifo *normal)
{
	struct ty_msg *first[2] = {NULL, NULL}, *last[2];
	uint32_t count = 0;

	ty_fetch(newest);
	for (struct ty_msg *msg = newest, *next; msg; msg = next) {
		uint32_t which;

		next = msg->next;
		ty_fetch(next ? next : msg); /* a null address would be looked up in vain */
		which = msg->flags & TY_MSG_URGENT;
		msg->next = first[which];
		if (!first[which])
			last[which] = msg;
		first[which] = msg;
		count++;
	}
	if (first[0])
		ty_fifo_append(normal, first[0], last[0]);
	if (first[1])
		ty_fifo_append(urgent, first[1], last[1]);
	return count;
}

#endif
