/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/runq.h"

#include <assert.h>
#include <stddef.h>

#include "runtime/runtime.h"

static_assert((TY_RING & (TY_RING - 1)) == 0, "places are found by masking");

void ty_runq_push(struct ty_runq *q, struct ty_actor *actor)
{
	struct ty_actor *old = atomic_load_explicit(&q->inbox, memory_order_relaxed);

	/* seq_cst: publishes the actor to who takes it, and orders this push before the look at the
	 * idle workers in worker.c */
	do
		actor->run_next = old;
	while (!atomic_compare_exchange_weak_explicit(
		&q->inbox, &old, actor, memory_order_seq_cst, memory_order_relaxed));
}

/* Append to the spill. The owner alone makes it non-null, so after its exchange it stays null until
 * the store; thieves may only have taken it before. acquire: the chain's links may have been written
 * when it was another's. */
static void spill_put(struct ty_runq *q, struct ty_actor *actor)
{
	struct ty_actor *chain = atomic_exchange_explicit(&q->spill, NULL, memory_order_acquire);

	actor->run_next = NULL;
	if (chain)
		q->spill_tail->run_next = actor;
	else
		chain = actor;
	q->spill_tail = actor;
	atomic_store_explicit(&q->spill, chain, memory_order_seq_cst); /* pairs with who takes it; and as in ring_put */
}

/* Owner. False: no place. acquire on head: pairs with the release of the CAS that freed the place. */
static bool ring_put(struct ty_runq *q, struct ty_actor *actor)
{
	uint64_t tail = atomic_load_explicit(&q->tail, memory_order_relaxed);
	uint64_t head = atomic_load_explicit(&q->head, memory_order_acquire);

	if (tail - head >= TY_RING)
		return false;
	atomic_store_explicit(&q->ring[tail & (TY_RING - 1)], actor, memory_order_relaxed);
	/* pairs with thieves' acquire; seq_cst: before the look at the idle workers, see ty_pool_schedule */
	atomic_store_explicit(&q->tail, tail + 1, memory_order_seq_cst);
	if (tail - head >= atomic_load_explicit(&q->high, memory_order_relaxed))
		atomic_store_explicit(&q->high, tail + 1 - head, memory_order_relaxed);
	return true;
}

bool ty_runq_put(struct ty_runq *q, struct ty_actor *actor)
{
	if (!q->first) {
		q->first = actor;
		return false;
	}
	if (atomic_load_explicit(&q->spill, memory_order_relaxed) || !ring_put(q, actor))
		spill_put(q, actor);
	return true;
}

static void put_chain(struct ty_runq *q, struct ty_actor *chain)
{
	while (chain) {
		struct ty_actor *next = chain->run_next;

		ty_runq_put(q, chain);
		chain = next;
	}
}

/* Take the inbox whole; oldest first. acquire: pairs with the push. */
static struct ty_actor *take_inbox(struct ty_runq *q)
{
	struct ty_actor *newest, *oldest = NULL;

	if (!atomic_load_explicit(&q->inbox, memory_order_relaxed))
		return NULL;
	newest = atomic_exchange_explicit(&q->inbox, NULL, memory_order_acquire);
	while (newest) {
		struct ty_actor *next = newest->run_next;

		newest->run_next = oldest;
		oldest = newest;
		newest = next;
	}
	return oldest;
}

bool ty_runq_put_last(struct ty_runq *q, struct ty_actor *actor)
{
	put_chain(q, take_inbox(q));
	return ty_runq_put(q, actor);
}

/* Owner: move from the spill to the ring what fits. */
static void refill(struct ty_runq *q)
{
	struct ty_actor *chain = atomic_exchange_explicit(&q->spill, NULL, memory_order_acquire);

	while (chain) {
		struct ty_actor *next = chain->run_next;

		if (!ring_put(q, chain)) {
			/* as in spill_put; its tail is what it was */
			atomic_store_explicit(&q->spill, chain, memory_order_seq_cst);
			return;
		}
		chain = next;
	}
}

/* Owner. The oldest of the ring, the spill behind it; null: none. *moved is set if that went to the ring. */
static struct ty_actor *ring_pop(struct ty_runq *q, bool *moved)
{
	for (;;) {
		uint64_t tail = atomic_load_explicit(&q->tail, memory_order_relaxed); /* its own */
		uint64_t head = atomic_load_explicit(&q->head, memory_order_acquire);
		struct ty_actor *actor;

		if (tail - head <= TY_RING / 2 && atomic_load_explicit(&q->spill, memory_order_relaxed)) {
			refill(q);
			*moved = true;
			continue;
		}
		if (tail == head)
			return NULL;
		actor = atomic_load_explicit(&q->ring[head & (TY_RING - 1)], memory_order_relaxed);
		/* release: frees the place for ring_put's acquire */
		if (atomic_compare_exchange_strong_explicit(
			    &q->head, &head, head + 1, memory_order_acq_rel, memory_order_relaxed))
			return actor;
	}
}

/* It is run after the one that is run now: have what that takes come meanwhile, for it may have run elsewhere last. Of the state
 * the last two lines: most have no more. */
static void expect(const struct ty_actor *actor)
{
	const unsigned char *end_of_state = (const unsigned char *)actor; /* nothing of the actor is read: that would wait */

	ty_fetch(end_of_state - TY_LINE);
	ty_fetch(end_of_state - 1);
	ty_fetch(&actor->box);
	ty_fetch(&actor->last);
	ty_fetch((const unsigned char *)&actor->arg - 1);
}

struct ty_actor *ty_runq_pop_any(struct ty_runq *q, bool *moved)
{
	struct ty_actor *chain = take_inbox(q), *actor;

	*moved = chain;
	put_chain(q, chain);
	actor = q->first;
	if (!actor)
		return NULL;
	q->first = ring_pop(q, moved);
	if (q->first)
		expect(q->first);
	return actor;
}

/* Half of the ring, or its only one. The places are read before the CAS on head: had the owner put others in their
 * place, head would have moved, and the CAS fails. acquire on tail: pairs with ring_put. */
static uint64_t grab_half(struct ty_runq *victim, struct ty_actor *out[TY_RING / 2])
{
	for (;;) {
		uint64_t head = atomic_load_explicit(&victim->head, memory_order_acquire);
		uint64_t tail = atomic_load_explicit(&victim->tail, memory_order_acquire);
		uint64_t n = (tail - head + 1) / 2;

		if (n == 0)
			return 0;
		if (n > TY_RING / 2) /* head moved between the loads */
			continue;
		for (uint64_t i = 0; i < n; i++)
			out[i] = atomic_load_explicit(
				&victim->ring[(head + i) & (TY_RING - 1)], memory_order_relaxed);
		if (atomic_compare_exchange_strong_explicit(
			    &victim->head, &head, head + n, memory_order_acq_rel, memory_order_relaxed))
			return n;
	}
}

struct ty_actor *ty_runq_steal(struct ty_runq *victim, struct ty_runq *own)
{
	struct ty_actor *grabbed[TY_RING / 2], *chain = NULL;
	uint64_t n = grab_half(victim, grabbed);

	if (n) {
		for (uint64_t i = 1; i < n; i++)
			ty_runq_put(own, grabbed[i]);
		return grabbed[0];
	}
	if (atomic_load_explicit(&victim->spill, memory_order_relaxed))
		chain = atomic_exchange_explicit(&victim->spill, NULL, memory_order_acquire);
	if (!chain)
		chain = take_inbox(victim);
	if (chain)
		put_chain(own, chain->run_next);
	return chain;
}

bool ty_runq_waits(
	const struct ty_runq *q, struct ty_runq_look *look, uint64_t now, uint64_t patience, uint64_t deep)
{
	/* acquire, head first: then tail is not behind it */
	uint64_t head = atomic_load_explicit(&q->head, memory_order_acquire);
	uint64_t tail = atomic_load_explicit(&q->tail, memory_order_acquire);
	bool inbox = atomic_load_explicit(&q->inbox, memory_order_relaxed);

	if (tail - head >= deep || atomic_load_explicit(&q->spill, memory_order_relaxed))
		return true;
	if (head >= look->tail && !(inbox && look->inbox)) { /* what was seen is gone */
		*look = (struct ty_runq_look){.tail = tail, .inbox = inbox, .since = now};
		return false;
	}
	return now - look->since >= patience;
}

bool ty_runq_stealable(const struct ty_runq *q)
{
	uint64_t head;

	if (atomic_load_explicit(&q->inbox, memory_order_seq_cst))
		return true;
	if (atomic_load_explicit(&q->spill, memory_order_seq_cst))
		return true;
	head = atomic_load_explicit(&q->head, memory_order_acquire);
	return atomic_load_explicit(&q->tail, memory_order_seq_cst) != head;
}
