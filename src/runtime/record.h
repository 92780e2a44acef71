/* SPDX-License-Identifier: Apache-2.0
 *
 * The flight recorder: what each thread of the runtime did last, in a ring of fixed size, always on.
 *
 *            who with whom    write   read
 *            write            no: the thread that has the seat alone
 *            read             yes     yes: anyone, at any time
 *
 * The writer overwrites the oldest event and never looks at readers. A reader copies, then reads again how many were
 * written, and drops those that may have been overwritten meanwhile. Every word is stored with release and loaded with
 * acquire: whoever sees a word of event n sees at least n written before it, so no fence is needed (and on the common
 * machines it is a plain store).
 */
#ifndef TY_RUNTIME_RECORD_H
#define TY_RUNTIME_RECORD_H

#include <stdatomic.h>
#include <stdint.h>

#define TY_RING_EVENTS 2048 /* 64 KiB a thread: it stays in the second cache */

enum ty_event_kind {
	TY_EVENT_SEND = 1, /* number: the receiver's; no cls, no index: the BEGIN of the same message has them */
	TY_EVENT_BEGIN,    /* a message of an actor; it ends with the next BEGIN or END of the ring */
	TY_EVENT_END,      /* what was begun is over, and no message begins at once */
	TY_EVENT_POLL,     /* one poll, at its end; msg: the ticks at its beginning */
	TY_EVENT_PARK,
	TY_EVENT_UNPARK,   /* index: 1 when woken, 0 when it was time */
	TY_EVENT_WAKE,     /* another thread; number: worker (index 0) or dedicated actor (index 1) */
	TY_EVENT_TIMER,    /* a timer's message is about to begin */
	TY_EVENT_DROP,     /* refused by an actor, or sent to one that had stopped */
};

/* Instead of the index of a handler. */
enum {
	TY_INDEX_UNKNOWN = 0xfffffc,
	TY_INDEX_REFUSE,
	TY_INDEX_STOP,
	TY_INDEX_START,
};

struct ty_event_slot {
	_Atomic(uint64_t) when;       /* ticks */
	_Atomic(uint32_t) number;     /* its lower half */
	_Atomic(uint32_t) what;       /* kind << 24 | index */
	_Atomic(const void *) cls;    /* of another event, if this kind has none */
	_Atomic(uint64_t) msg;        /* its address, to pair a send with a begin */
};

struct ty_ring {
	_Atomic(uint64_t) written;    /* events ever written */
	struct ty_event_slot slots[TY_RING_EVENTS];
};

static inline void ty_ring_write(struct ty_ring *ring, enum ty_event_kind kind, uint64_t when, uint64_t number,
	uint32_t index, const void *cls, uint64_t msg)
{
	uint64_t n = atomic_load_explicit(&ring->written, memory_order_relaxed);
	struct ty_event_slot *slot = &ring->slots[n % TY_RING_EVENTS];

	atomic_store_explicit(&slot->when, when, memory_order_release);
	atomic_store_explicit(&slot->number, (uint32_t)number, memory_order_release);
	atomic_store_explicit(&slot->what, (uint32_t)kind << 24 | index, memory_order_release);
	if (kind != TY_EVENT_SEND)
		atomic_store_explicit(&slot->cls, cls, memory_order_release);
	atomic_store_explicit(&slot->msg, msg, memory_order_release);
	atomic_store_explicit(&ring->written, n + 1, memory_order_release);
}

/* An event, copied out of a ring. */
struct ty_event {
	uint64_t when, msg;
	const void *cls;
	uint32_t number, index;
	enum ty_event_kind kind;
};
/* Copies what the ring holds, oldest first, to `out` (room for TY_RING_EVENTS). Returns how many. */
uint32_t ty_ring_read(const struct ty_ring *ring, struct ty_event *out);

#endif
