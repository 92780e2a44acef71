/* SPDX-License-Identifier: Apache-2.0
 *
 * A worker's run queue: the actors that are scheduled to run on it. Four parts, so that no side
 * ever waits for another:
 *
 *   first   the actor that runs next, the owner's alone: while it is null, ring and spill are empty
 *   ring    256 places, filled by the owner alone, emptied by the owner and by thieves (a CAS on the
 *           head; its 64-bit count never repeats, so a stalled thief's CAS just fails)
 *   spill   what does not fit: a chain in order, put by the owner, taken whole by anyone
 *   inbox   what other threads schedule: a LIFO pushed by anyone, taken whole by anyone
 *
 *            who with whom   push   put/pop   steal
 *            push            yes    yes       yes
 *            put/pop         yes    no: owner yes
 *            steal           yes    yes       yes (each thief has a queue of its own)
 *
 * An actor is in at most one queue, once: its mailbox's IDLE tag sees to that. Order is first in,
 * first out up to what runs concurrently; an actor put at the back is reached after all before it.
 * (tests/model/ring.pml, tests/model/spill.pml)
 */
#ifndef TY_RUNTIME_RUNQ_H
#define TY_RUNTIME_RUNQ_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ty_actor;

#define TY_RING 256 /* power of two */

struct ty_runq {
	alignas(64) _Atomic(uint64_t) head; /* owner and thieves */
	alignas(64) _Atomic(uint64_t) tail; /* owner; read by thieves */
	_Atomic(struct ty_actor *) spill;   /* put by the owner (null before), taken by anyone */
	alignas(64) struct ty_actor *first; /* the owner's: on a line that no thief reads */
	struct ty_actor *spill_tail;        /* the owner's; valid while spill is not null */
	_Atomic(uint64_t) high;             /* most that the ring held: the owner's; read by who asks; relaxed */
	alignas(64) _Atomic(struct ty_actor *) inbox;
	alignas(64) _Atomic(struct ty_actor *) ring[TY_RING];
};

/* What a thief saw of a queue when it last looked. All of it 0: it never did. */
struct ty_runq_look {
	uint64_t tail;            /* of the ring */
	bool inbox;               /* something was in it */
	uint64_t since;           /* ticks: when it was seen first */
};

/* Anyone. Sequentially consistent: see notify in worker.c. */
void ty_runq_push(struct ty_runq *q, struct ty_actor *actor);
/* Owner. Puts at the back. True: others may take it; false: the owner runs it next. */
bool ty_runq_put(struct ty_runq *q, struct ty_actor *actor);
/* Owner. The same, behind those that others have pushed. */
bool ty_runq_put_last(struct ty_runq *q, struct ty_actor *actor);
/* Owner. Null: empty. *moved: what others pushed, or the spill, went to the ring; while it moved, thieves saw neither. */
struct ty_actor *ty_runq_pop_any(struct ty_runq *q, bool *moved);
static inline struct ty_actor *ty_runq_pop(struct ty_runq *q, bool *moved)
{
	struct ty_actor *first = q->first;

	/* there is the first, and nothing else: what thieves take meanwhile makes that no less true */
	if (!first || atomic_load_explicit(&q->inbox, memory_order_relaxed) ||
		atomic_load_explicit(&q->spill, memory_order_relaxed) ||
		atomic_load_explicit(&q->tail, memory_order_relaxed) !=
			atomic_load_explicit(&q->head, memory_order_relaxed))
		return ty_runq_pop_any(q, moved);
	*moved = false;
	q->first = NULL;
	return first;
}
/* A worker other than `victim`, into its own queue: takes half of the ring, or the spill, or the
 * inbox. */
struct ty_actor *ty_runq_steal(struct ty_runq *victim, struct ty_runq *own);
/* A worker other than the owner. Has something been in the queue for longer than `patience`, as far as this thief's looks
 * tell (an inbox that never was empty when it looked may have been taken meanwhile, and filled again), or is there so much
 * that it need not wait for that: `deep` in the ring, or any in the spill? `now` and `patience` in ticks. */
bool ty_runq_waits(
	const struct ty_runq *q, struct ty_runq_look *look, uint64_t now, uint64_t patience, uint64_t deep);
/* Anyone. Would ty_runq_steal find something? Sequentially consistent with push and put. */
bool ty_runq_stealable(const struct ty_runq *q);

#endif
