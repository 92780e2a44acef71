/* SPDX-License-Identifier: Apache-2.0 */
#include "writeback.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cache/checksum.h"
#include "service.h"

#define TICK_NS 50000000       /* 50 ms: how often a tier that took nothing is asked again */
#define PATIENCE_NS 5000000000 /* a PUT older than this: the tier hangs, and what waits for it is dropped */

/* A chunk that waits for its tier's credit. */
struct waiting {
	struct waiting *next;
	struct ty_key key;
	struct ty_chunk *pinned; /* a victim; null: pinned when its turn comes */
	uint64_t pin_bytes;
};

/* One that is next, or with the tier. */
struct put {
	struct put *next, **link; /* of the tier's, the oldest first */
	struct ty_tier *tier;
	struct ty_bytework work;  /* while what has no sum yet is given one */
	struct ty_chunk *chunk;   /* pinned */
	uint64_t pin_bytes;       /* counted for it as a victim */
	int64_t since;
	struct ty_tier_io io; /* last */
};

struct lane { /* one a tier */
	struct ty_tier *tier;
	struct waiting *first, **end;
	struct put *next;  /* taken from these, pinned, and to be submitted; null: none */
	bool summing;      /* it is with a bytework thread */
	struct put *out, **out_end;
	bool hangs; /* as it was last told in the log */
};

struct writeback {
	struct ty_service *service;
	struct lane lanes[TY_MAX_TIERS];
	struct ty_timer tick;
	uint32_t bytework_turn;
	bool ticking, stopping, stopped; /* stopped: whoever stops it was told that nothing is out, and nothing may be any more */
	int64_t drain_until;
	struct ty_stop *stop;
};

/* A chunk that waits unpinned; null: it was evicted. */
static struct ty_chunk *hold(struct ty_service *service, const struct ty_key *key)
{
	struct ty_chunk *chunk = ty_index_pin(service->index, key);

	if (chunk)
		ty_chunk_hold(chunk);
	return chunk;
}

static void let_go(struct ty_chunk *chunk)
{
	ty_chunk_let_go(chunk);
	ty_chunk_unpin(chunk);
}

/* It has gone to that tier (which has noted it), or will not. */
static void forget(struct ty_tier *tier, struct ty_chunk *chunk, uint64_t pin_bytes)
{
	/* relaxed: a hint */
	atomic_fetch_and_explicit(&chunk->below, (uint16_t)~(0x100u << tier->index), memory_order_relaxed);
	atomic_fetch_sub_explicit(&tier->stats.pinned_bytes, pin_bytes, memory_order_relaxed);
	let_go(chunk);
}

static void drop(struct ty_service *service, struct ty_tier *tier, const struct ty_key *key, struct ty_chunk *pinned,
	uint64_t pin_bytes)
{
	struct ty_chunk *chunk = pinned ? pinned : hold(service, key);

	atomic_fetch_sub_explicit(&tier->stats.queued, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&tier->stats.dropped, 1, memory_order_relaxed);
	if (chunk)
		forget(tier, chunk, pin_bytes);
}

void ty_down_drop(struct ty_service *service, const struct ty_down_item *item)
{
	for (uint32_t t = 0; t < service->tier_count; t++)
		if (item->tiers >> t & 1)
			drop(service, service->tiers[t], &item->key, item->chunk, item->bytes);
}

static bool is_idle(const struct writeback *w)
{
	for (uint32_t i = 0; i < w->service->tier_count; i++)
		if (w->lanes[i].first || w->lanes[i].next || w->lanes[i].out)
			return false;
	return true;
}

static void settle(struct writeback *w)
{
	struct ty_stop *stop = w->stop;

	if (is_idle(w)) {
		w->stop = NULL;
		w->stopped |= stop != NULL;
		if (stop)
			stop->stopped(stop); /* it is gone after this */
	} else if (!w->ticking) {
		w->ticking = true;
		ty_timer_start(&w->tick, TY_WRITEBACK_TICK, ty_now() + TICK_NS);
	}
}

/* ---- one chunk, one tier ------------------------------------------------------------------------------- */

static struct put *make_put(struct writeback *w, struct ty_tier *tier, struct ty_chunk *chunk)
{
	struct put *put = calloc(1, sizeof *put + chunk->parts * sizeof put->io.part[0]);

	if (!put)
		return NULL;
	put->tier = tier;
	put->chunk = chunk;
	put->io.home = ty_self();
	put->io.home_type = TY_WRITEBACK_IO;
	put->io.verb = TY_TIER_PUT;
	put->io.keys = &chunk->key;
	put->io.key_count = 1;
	put->io.identity = ty_spaces_identity(&w->service->spaces, chunk->space);
	put->io.parts = chunk->parts;
	for (uint32_t i = 0; i < chunk->parts; i++) {
		const struct ty_slot_record *record = ty_slots_held(w->service->slots, chunk->slots[i]);
		uint8_t *data = ty_slots_address(w->service->slots, chunk->slots[i]);

		/* What lies behind the contents in the slot is nobody's, and may be of somebody else's earlier chunk. */
		memset(data + record->length, 0, ty_envelope_padded(record->length) - record->length);
		put->io.part[i] = (struct ty_tier_part){data, record->length, ty_slots_checksum(w->service->slots, chunk->slots[i])};
	}
	return put;
}

/* On a bytework's thread, if there is one: a pass over the bytes takes longer than a handler may. */
static void sum(struct ty_service *service, struct ty_bytework *work)
{
	struct put *put = ty_container_of(work, struct put, work);

	(void)service;
	for (uint32_t i = 0; i < put->io.parts; i++)
		if (!put->io.part[i].checksum)
			put->io.part[i].checksum = ty_checksum(put->io.part[i].data, put->io.part[i].length);
}

/* What eviction had no time for, or has not done yet. */
static void sum_missing(struct writeback *w, struct lane *lane)
{
	struct put *put = lane->next;
	bool missing = false;

	for (uint32_t i = 0; i < put->io.parts; i++)
		missing |= !put->io.part[i].checksum;
	put->work.home = ty_self();
	put->work.home_type = TY_WRITEBACK_SUMMED;
	put->work.run = sum;
	lane->summing = missing && ty_bytework_send(w->service, &put->work, &w->bytework_turn);
	if (missing && !lane->summing)
		sum(w->service, &put->work);
}

static void take_first(struct lane *lane)
{
	struct waiting *item = lane->first;

	lane->first = item->next;
	if (!lane->first)
		lane->end = &lane->first;
	free(item);
}

static void drop_first(struct writeback *w, struct lane *lane)
{
	drop(w->service, lane->tier, &lane->first->key, lane->first->pinned, lane->first->pin_bytes);
	take_first(lane);
}

/* The one that is next, unless it is being summed up. False: there is none. */
static bool drop_next(struct writeback *w, struct lane *lane)
{
	struct put *put = lane->next;

	if (!put || lane->summing)
		return false;
	drop(w->service, lane->tier, &put->chunk->key, put->chunk, put->pin_bytes);
	free(put);
	lane->next = NULL;
	return true;
}

static void drop_all(struct writeback *w, struct lane *lane)
{
	(void)drop_next(w, lane);
	while (lane->first)
		drop_first(w, lane);
}

/* Eviction's mark, which it takes away when the chunk is deleted. A chunk that was evicted while it waited, and stored again, waits twice:
 * the first turn takes it away too. */
static bool is_wanted(const struct lane *lane, const struct ty_chunk *chunk)
{
	/* relaxed: a hint */
	return atomic_load_explicit(&chunk->below, memory_order_relaxed) & 0x100u << lane->tier->index;
}

/* Is it there, or with the tier? */
static bool has_gone(const struct lane *lane, const struct ty_chunk *chunk)
{
	/* relaxed: a hint */
	if (atomic_load_explicit(&chunk->below, memory_order_relaxed) >> lane->tier->index & 1)
		return true;
	for (const struct put *put = lane->out; put; put = put->next)
		if (put->chunk == chunk)
			return true;
	return false;
}

/* The first of those that wait is next, if there is anything to be done with it. */
static void take_next(struct writeback *w, struct lane *lane)
{
	struct waiting *item = lane->first;
	struct ty_chunk *chunk = item->pinned ? item->pinned : hold(w->service, &item->key);

	if (chunk && (!is_wanted(lane, chunk) || has_gone(lane, chunk))) {
		atomic_fetch_sub_explicit(&lane->tier->stats.queued, 1, memory_order_relaxed);
		forget(lane->tier, chunk, item->pin_bytes);
		take_first(lane);
		return;
	}
	lane->next = chunk ? make_put(w, lane->tier, chunk) : NULL;
	if (!lane->next) { /* evicted before its turn came, or no memory */
		if (chunk && !item->pinned)
			let_go(chunk);
		drop_first(w, lane);
		return;
	}
	lane->next->pin_bytes = item->pin_bytes;
	take_first(lane);
	sum_missing(w, lane);
}

/* Give it to the tier, if it is still wanted. False: not yet, or the tier takes no more now. */
static bool submit_next(struct lane *lane)
{
	struct put *put = lane->next;

	if (lane->summing)
		return false;
	if (!is_wanted(lane, put->chunk)) {
		atomic_fetch_sub_explicit(&lane->tier->stats.queued, 1, memory_order_relaxed);
		forget(put->tier, put->chunk, put->pin_bytes);
		free(put);
		lane->next = NULL;
		return true;
	}
	put->io.deadline = ty_now() + lane->tier->config.timeout;
	if (!ty_tier_submit(lane->tier, &put->io))
		return false;
	put->since = ty_now();
	put->link = lane->out_end;
	*put->link = put;
	lane->out_end = &put->next;
	lane->next = NULL;
	atomic_fetch_sub_explicit(&lane->tier->stats.queued, 1, memory_order_relaxed);
	return true;
}

static bool has_credit(const struct lane *lane)
{
	const struct ty_tier_stats *s = &lane->tier->stats;

	return atomic_load_explicit(&s->in_flight[TY_TIER_DOWN], memory_order_relaxed) < lane->tier->config.ops;
}

static void pump(struct writeback *w, struct lane *lane)
{
	do
		while (!lane->next && lane->first && has_credit(lane))
			take_next(w, lane);
	while (lane->next && has_credit(lane) && submit_next(lane));
}

/* Then what waits for it is dropped, and eviction offers it nothing. */
static bool look_if_hangs(struct lane *lane, int64_t now)
{
	bool hangs = lane->out && now - lane->out->since > PATIENCE_NS;

	if (hangs && !lane->hangs)
		ty_log(TY_LOG_WARN, "tier", "%s:%s hangs: what is to go down to it is dropped", lane->tier->config.kind, lane->tier->config.where);
	else if (!hangs && lane->hangs)
		ty_log(TY_LOG_INFO, "tier", "%s:%s takes chunks again", lane->tier->config.kind, lane->tier->config.where);
	lane->hangs = hangs;
	atomic_store_explicit(&lane->tier->stats.hangs, hangs, memory_order_relaxed);
	return hangs;
}

/* ---- messages -------------------------------------------------------------------------------------------- */

static void enqueue(struct writeback *w, uint32_t tier, const struct ty_down_item *from)
{
	struct lane *lane = &w->lanes[tier];
	struct waiting *item = look_if_hangs(lane, ty_now()) ? NULL : calloc(1, sizeof *item);

	if (!item) {
		drop(w->service, lane->tier, &from->key, from->chunk, from->bytes);
		return;
	}
	item->key = from->key;
	item->pinned = from->chunk;
	item->pin_bytes = from->bytes;
	*lane->end = item;
	lane->end = &item->next;
}

/* Came after the stop. */
static void refuse(void *self, struct ty_msg *msg)
{
	struct writeback *w = self;
	struct ty_down *down = ty_container_of(msg, struct ty_down, msg);

	assert(msg->type == TY_WRITEBACK_DOWN); /* nothing else is out */
	for (uint32_t i = 0; i < down->count; i++)
		ty_down_drop(w->service, &down->item[i]);
	free(down);
}

static void on_down(void *self, struct ty_msg *msg)
{
	struct writeback *w = self;
	struct ty_down *down = ty_container_of(msg, struct ty_down, msg);

	if (w->stopped) {
		refuse(self, msg);
		return;
	}
	for (uint32_t i = 0; i < down->count; i++)
		for (uint32_t t = 0; t < w->service->tier_count; t++)
			if (down->item[i].tiers >> t & 1)
				enqueue(w, t, &down->item[i]);
	free(down);
	for (uint32_t t = 0; t < w->service->tier_count; t++)
		pump(w, &w->lanes[t]);
	settle(w);
}

static void on_io(void *self, struct ty_msg *msg)
{
	struct writeback *w = self;
	struct put *put = ty_container_of(msg, struct put, io.msg);
	struct lane *lane = &w->lanes[put->tier->index];

	*put->link = put->next;
	if (put->next)
		put->next->link = put->link;
	else
		lane->out_end = put->link;
	/* relaxed: a hint of eviction's */
	atomic_store_explicit(&lane->tier->stats.failing, put->io.outcome != TY_TIER_DONE, memory_order_relaxed);
	forget(put->tier, put->chunk, put->pin_bytes);
	free(put);
	look_if_hangs(lane, ty_now());
	pump(w, lane);
	settle(w);
}

static void abandon(struct writeback *w, struct lane *lane)
{
	uint64_t count = drop_next(w, lane);

	for (; lane->first; drop_first(w, lane))
		count++;
	atomic_fetch_add_explicit(&w->service->writeback_stats.abandoned, count, memory_order_relaxed);
}

static void look(struct writeback *w, struct lane *lane, int64_t now)
{
	if (w->stopping && now >= w->drain_until)
		abandon(w, lane);
	if (look_if_hangs(lane, now))
		drop_all(w, lane);
	pump(w, lane);
}

static void on_tick(void *self, struct ty_msg *msg)
{
	struct writeback *w = self;
	int64_t now = ty_now();

	(void)msg;
	w->ticking = false;
	for (uint32_t t = 0; t < w->service->tier_count; t++)
		look(w, &w->lanes[t], now);
	settle(w);
}

static void on_summed(void *self, struct ty_msg *msg)
{
	struct writeback *w = self;
	struct ty_bytework *work = ty_container_of(msg, struct ty_bytework, msg);
	struct put *put = ty_container_of(work, struct put, work);
	struct lane *lane = &w->lanes[put->tier->index];

	assert(work->ran); /* bytework outlives this actor */
	lane->summing = false;
	look(w, lane, ty_now());
	settle(w);
}

static void on_stop(void *self, struct ty_msg *msg)
{
	struct writeback *w = self;

	w->stopping = true;
	w->stop = ty_container_of(msg, struct ty_stop, msg);
	w->drain_until = ty_now() + (int64_t)w->service->config->drain_timeout_us * 1000;
	settle(w);
}

static enum ty_code start(void *self, void *arg)
{
	struct writeback *w = self;

	w->service = arg;
	for (uint32_t i = 0; i < w->service->tier_count; i++) {
		struct lane *lane = &w->lanes[i];

		lane->tier = w->service->tiers[i];
		lane->end = &lane->first;
		lane->out_end = &lane->out;
	}
	return TY_OK;
}

static void stop(void *self)
{
	assert(is_idle(self));
}

static const struct ty_handler handlers[] = {
	{"down", on_down},
	{"io", on_io},
	{"tick", on_tick},
	{"stop", on_stop},
	{"summed", on_summed},
};

const struct ty_class ty_writeback_class = {
	.name = "writeback",
	.state_size = sizeof(struct writeback),
	.first_type = TY_WRITEBACK_DOWN,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.stop = stop,
	.refuse = refuse,
};
