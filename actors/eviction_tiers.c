/* SPDX-License-Identifier: Apache-2.0
 *
 * What goes down. Chunks are collected while a message is handled and sent to writeback as one list.
 */
#include "eviction_state.h"

#include <assert.h>
#include <stdlib.h>

#define DOWN_ITEMS 128 /* of one list */
#define AHEAD 32       /* victims that are written before their turn comes */

static uint64_t bytes_of(struct eviction *e, const struct ty_chunk *chunk)
{
	uint64_t bytes = 0;

	for (uint32_t part = 0; part < chunk->parts; part++)
		bytes += ty_slots_record(e->service->slots, chunk->slots[part])->length;
	return bytes;
}

static uint64_t load(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Of writeback's. */
static bool hint(const _Atomic bool *flag)
{
	return atomic_load_explicit(flag, memory_order_relaxed);
}

/* Room in the tier's queue, and for a victim's pin? Only this actor adds, so two cannot pass a limit together. */
static bool has_place(const struct ty_tier *tier, uint64_t pin)
{
	const struct ty_tier_stats *s = &tier->stats;

	return load(&s->queued) < tier->config.queue &&
	       !(pin && load(&s->pinned_bytes) && load(&s->pinned_bytes) + pin > tier->config.pins);
}

static bool take_place(struct ty_tier *tier, uint64_t pin)
{
	struct ty_tier_stats *s = &tier->stats;

	if (hint(&s->hangs) || !has_place(tier, pin)) {
		atomic_fetch_add_explicit(&s->dropped, 1, memory_order_relaxed);
		return false;
	}
	atomic_fetch_add_explicit(&s->queued, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&s->pinned_bytes, pin, memory_order_relaxed);
	return true;
}

/* What should have gone down at its commit, and was dropped then, has its last chance when it is evicted. */
static bool wants(const struct ty_tier *tier, enum ty_tier_write why)
{
	enum ty_tier_write write = tier->config.write;

	return write == why || (why == TY_TIER_WRITE_EVICT && write == TY_TIER_WRITE_COMMIT);
}

/* Is it there already, or on its way? */
bool eviction_is_below(const struct ty_chunk *chunk, uint32_t tier)
{
	return atomic_load_explicit(&chunk->below, memory_order_relaxed) & (0x101u << tier);
}

/* It was deleted, there too, while somebody had it: it does not come back that way. */
static bool is_doomed(const struct ty_chunk *chunk)
{
	return chunk->entry.owner == TY_DOOMED;
}

void eviction_stay(struct ty_chunk *chunk)
{
	atomic_fetch_and_explicit(&chunk->below, 0xff, memory_order_relaxed);
}

bool eviction_would_lose(struct eviction *e, const struct ty_chunk *chunk)
{
	uint16_t below = is_doomed(chunk) ? 0xff : atomic_load_explicit(&chunk->below, memory_order_relaxed);

	for (uint32_t i = 0; i < e->service->tier_count; i++) {
		const struct ty_tier *tier = e->service->tiers[i];

		if (!tier->config.wait || hint(&tier->stats.hangs) || hint(&tier->stats.failing) || below >> i & 1)
			continue;
		if (below & 0x100u << i)
			return true;
		if (wants(tier, TY_TIER_WRITE_EVICT) && ty_tier_takes(tier, chunk->space) && !has_place(tier, bytes_of(e, chunk)))
			return true;
	}
	return false;
}

static bool room_in_list(struct eviction *e)
{
	if (e->down && e->down->count == DOWN_ITEMS)
		eviction_flush_down(e);
	if (!e->down)
		e->down = calloc(1, sizeof *e->down + DOWN_ITEMS * sizeof e->down->item[0]);
	return e->down != NULL;
}

bool eviction_offer(struct eviction *e, struct ty_chunk *chunk, enum ty_tier_write why)
{
	struct ty_service *service = e->service;
	bool victim = why == TY_TIER_WRITE_EVICT;
	uint64_t pin = 0;
	uint16_t tiers = 0;

	if (is_doomed(chunk))
		return false;
	for (uint32_t i = 0; i < service->tier_count; i++) {
		struct ty_tier *tier = service->tiers[i];

		if (!wants(tier, why) || eviction_is_below(chunk, i) || !ty_tier_takes(tier, chunk->space))
			continue;
		if (victim && !pin)
			pin = bytes_of(e, chunk);
		if (!room_in_list(e) || !take_place(tier, pin))
			continue;
		tiers |= (uint16_t)(1u << i);
		atomic_fetch_or_explicit(&chunk->below, (uint16_t)(0x100u << i), memory_order_relaxed);
		if (victim) {
			ty_chunk_pin(chunk);
			ty_chunk_hold(chunk);
		}
	}
	if (!tiers)
		return false;
	e->down->item[e->down->count++] = (struct ty_down_item){chunk->key, victim ? chunk : NULL, pin, tiers};
	return victim;
}

void eviction_offer_to(struct eviction *e, struct ty_chunk *chunk, uint32_t tier)
{
	if (is_doomed(chunk) || eviction_is_below(chunk, tier) || !room_in_list(e) || !take_place(e->service->tiers[tier], 0))
		return;
	atomic_fetch_or_explicit(&chunk->below, (uint16_t)(0x100u << tier), memory_order_relaxed);
	atomic_fetch_add_explicit(&e->service->tiers[tier]->stats.offered_late, 1, memory_order_relaxed);
	e->down->item[e->down->count++] = (struct ty_down_item){.key = chunk->key, .tiers = (uint16_t)(1u << tier)};
}

bool eviction_send_down(struct eviction *e, struct ty_chunk *chunk, uint32_t tier)
{
	static const struct ty_hint done = {.band = TY_BAND_DONE};
	uint64_t pin = bytes_of(e, chunk);

	if (!eviction_is_below(chunk, tier)) {
		if (!room_in_list(e) || !take_place(e->service->tiers[tier], pin))
			return false;
		atomic_fetch_or_explicit(&chunk->below, (uint16_t)(0x100u << tier), memory_order_relaxed);
		ty_chunk_pin(chunk);
		ty_chunk_hold(chunk);
		e->down->item[e->down->count++] = (struct ty_down_item){chunk->key, chunk, pin, (uint16_t)(1u << tier)};
	}
	chunk->entry.owner = TY_NO_OWNER;
	eviction_hint(e, chunk, &done);
	return true;
}

/* The next victims, while there is still room without them: a store that needs their slots cannot wait for a tier. */
void eviction_clean_ahead(struct eviction *e)
{
	struct ty_entry *entry;
	bool any = false;

	for (uint32_t i = 0; i < e->service->tier_count; i++)
		any |= e->service->tiers[i]->config.write == TY_TIER_WRITE_EVICT;
	if (!any || ty_slots_used_bytes(e->service->slots) < load(&e->service->eviction_stats.ready_bytes) / 8 * 7)
		return;
	for (int i = 0; i < AHEAD && (entry = ty_order_victim(e->order, TY_ANY_DOMAIN)); i++) {
		struct ty_chunk *chunk = ty_container_of(entry, struct ty_chunk, entry);

		if (ty_chunk_state(chunk) == TY_CHUNK_READY)
			(void)eviction_offer(e, chunk, TY_TIER_WRITE_EVICT);
		ty_order_set_aside(e->order, entry);
	}
	ty_order_end_search(e->order);
}

void eviction_flush_down(struct eviction *e)
{
	struct ty_down *down = e->down;

	if (!down)
		return;
	e->down = NULL;
	if (down->count && ty_send(e->service->writeback, &down->msg, TY_WRITEBACK_DOWN) == TY_OK)
		return;
	for (uint32_t i = 0; i < down->count; i++)
		ty_down_drop(e->service, &down->item[i]);
	free(down);
}
