/* SPDX-License-Identifier: Apache-2.0
 *
 * Chunks that are in the arena and were never offered to a tier that wants each at its commit: those of a process before this one,
 * whose queue ended with it, and those from before CONFIGURE said write=commit. A walk over the slots for each such tier asks it
 * (EXISTS) whether it has the chunk, and if not sends it down like any other. It gives way: a few questions at a time, and none while
 * the tier's queue is not nearly empty. Of what a tier does not tell it is asked again in another walk, behind all others: one chunk that
 * it never tells of holds none up. Those that it is known to have, or was offered, are not asked for twice.
 */
#include "eviction_state.h"

#include <stdlib.h>

#define LOOKS 2048          /* slots looked at in one message, of each tier */
#define ASKED_MAX 8         /* chunks that a tier is asked of at once */
#define QUEUED_MAX 64       /* not while so many wait to be written to it */
#define BUSY_NS 20000000    /* 20 ms: then it is looked whether that is so any more */
#define RETRY_NS 1000000000 /* after a tier failed, or while it does not serve */

#define AGAIN_NS 10000000000 /* before another walk, of all slots, for what it did not tell of */

struct question {
	struct eviction *e;
	uint32_t tier;
	struct ty_key key;
	struct ty_tier_io io; /* last: parts follow */
};

static bool is_ready(const struct ty_tier *tier)
{
	const struct ty_tier_stats *s = &tier->stats;

	/* acquire: pairs with the tier's release. The rest are hints (relaxed). Before it has found out what it holds it would say no. */
	return atomic_load_explicit(&s->state, memory_order_acquire) == TY_TIER_SERVING &&
	       !atomic_load_explicit(&s->scanning, memory_order_relaxed) && !atomic_load_explicit(&s->hangs, memory_order_relaxed);
}

static bool is_busy(const struct eviction_offers *o, const struct ty_tier *tier)
{
	return o->asked >= ASKED_MAX || atomic_load_explicit(&tier->stats.queued, memory_order_relaxed) >= QUEUED_MAX;
}

static bool ask(struct eviction *e, uint32_t t, const struct ty_chunk *chunk)
{
	struct ty_tier *tier = e->service->tiers[t];
	struct question *q = calloc(1, sizeof *q + TY_CHUNK_MAX_PARTS * sizeof q->io.part[0]);

	if (!q)
		return false;
	q->e = e;
	q->tier = t;
	q->key = chunk->key;
	q->io.home = ty_self();
	q->io.home_type = TY_EVICTION_OFFERED;
	q->io.verb = TY_TIER_EXISTS;
	q->io.aside = true;
	q->io.deadline = ty_now() + tier->config.timeout;
	q->io.keys = &q->key;
	q->io.key_count = 1;
	if (ty_tier_submit(tier, &q->io)) {
		e->offers[t].asked++;
		return true;
	}
	free(q);
	return false;
}

/* When to look again; TY_NEVER: when an answer comes, or not at all. */
static int64_t walk(struct eviction *e, uint32_t t, int64_t now)
{
	struct eviction_offers *o = &e->offers[t];
	struct ty_tier *tier = e->service->tiers[t];
	uint32_t budget = LOOKS;

	if (tier->config.write != TY_TIER_WRITE_COMMIT) {
		o->at = TY_NO_SLOT;
		o->again = false;
	}
	if (o->at == TY_NO_SLOT && o->again && !o->asked) {
		o->at = 0;
		o->again = false;
		o->pause = now + AGAIN_NS;
	}
	if (o->at == TY_NO_SLOT)
		return TY_NEVER; /* an answer that is still out looks again */
	if (now < o->pause)
		return o->pause;
	if (!is_ready(tier))
		return now + RETRY_NS;
	while (budget && o->at != TY_NO_SLOT) {
		uint32_t at, slot;
		struct ty_chunk *chunk;

		if (is_busy(o, tier))
			return now + BUSY_NS;
		slot = ty_slots_next(e->service->slots, o->at, &budget, &at);
		chunk = slot == TY_NO_SLOT ? NULL : eviction_chunk_at(e, slot);
		if (chunk && ty_chunk_state(chunk) == TY_CHUNK_READY && !eviction_is_below(chunk, t) && ty_tier_takes(tier, chunk->space) &&
			!ask(e, t, chunk))
			return now + BUSY_NS;
		o->at = at;
	}
	return o->at == TY_NO_SLOT && !o->again ? TY_NEVER : now;
}

void eviction_offers_look(struct eviction *e)
{
	int64_t now = ty_now(), next = TY_NEVER;

	/* acquire: pairs with main's release */
	if (atomic_load_explicit(&e->service->stopping, memory_order_acquire))
		return;
	for (uint32_t t = 0; t < e->service->tier_count; t++) {
		int64_t at = walk(e, t, now);

		next = at < next ? at : next;
	}
	ty_timer_start(&e->offer_timer, TY_EVICTION_OFFER, next);
}

void eviction_offers_begin(struct eviction *e, uint32_t tier)
{
	if (e->service->tiers[tier]->config.write != TY_TIER_WRITE_COMMIT)
		return;
	e->offers[tier].at = 0;
	e->offers[tier].again = false;
	e->offers[tier].pause = 0;
	ty_timer_start(&e->offer_timer, TY_EVICTION_OFFER, ty_now());
}

void eviction_offers_home(struct ty_msg *msg)
{
	struct question *q = ty_container_of(ty_container_of(msg, struct ty_tier_io, msg), struct question, io);
	struct eviction *e = q->e;
	struct eviction_offers *o = &e->offers[q->tier];
	struct ty_chunk *chunk = ty_index_find(e->service->index, &q->key);

	o->asked--;
	if (q->io.outcome != TY_TIER_DONE) {
		o->again = true;
		o->pause = ty_now() + RETRY_NS;
	} else if (chunk && ty_chunk_state(chunk) == TY_CHUNK_READY) {
		if (q->io.found) /* relaxed: a hint */
			atomic_fetch_or_explicit(&chunk->below, (uint16_t)(1u << q->tier), memory_order_relaxed);
		else
			eviction_offer_to(e, chunk, q->tier);
	}
	free(q);
	eviction_offers_look(e);
}
