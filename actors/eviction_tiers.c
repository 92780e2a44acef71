/* SPDX-License-Identifier: Apache-2.0
 *
 * What goes down. Chunks are collected while a message is handled and sent to writeback as one list.
 */
#include "eviction_state.h"

#include <assert.h>
#include <stdlib.h>

#define DOWN_ITEMS 128 /* of one list */

static uint64_t bytes_of(struct eviction *e, const struct ty_chunk *chunk)
{
	uint64_t bytes = 0;

	for (uint32_t part = 0; part < chunk->parts; part++)
		bytes += ty_slots_record(e->service->slots, chunk->slots[part])->length;
	return bytes;
}

/* Room for its pins? Only this actor adds, so two lists cannot pass the limit together. */
static bool take_pins(struct ty_tier *tier, uint64_t bytes)
{
	uint64_t before = atomic_load_explicit(&tier->stats.pinned_bytes, memory_order_relaxed);

	/* relaxed: a hint of writeback's */
	if (atomic_load_explicit(&tier->stats.hangs, memory_order_relaxed) ||
		(before && before + bytes > tier->config.pins)) {
		atomic_fetch_add_explicit(&tier->stats.dropped, 1, memory_order_relaxed);
		return false;
	}
	atomic_fetch_add_explicit(&tier->stats.pinned_bytes, bytes, memory_order_relaxed);
	return true;
}

/* What should have gone down at its commit, and was dropped then, has its last chance when it is evicted. */
static bool wants(const struct ty_tier *tier, enum ty_tier_write why)
{
	enum ty_tier_write write = tier->config.write;

	return write == why || (why == TY_TIER_WRITE_EVICT && write == TY_TIER_WRITE_COMMIT);
}

/* Is it there already, or on its way? */
static bool is_below(const struct ty_chunk *chunk, uint32_t tier)
{
	return atomic_load_explicit(&chunk->below, memory_order_relaxed) & (0x101u << tier);
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
	uint64_t bytes = 0;
	uint16_t tiers = 0;

	for (uint32_t i = 0; i < service->tier_count; i++) {
		struct ty_tier *tier = service->tiers[i];

		if (!wants(tier, why) || is_below(chunk, i) || !ty_tier_takes(tier, chunk->space))
			continue;
		if (!bytes)
			bytes = bytes_of(e, chunk);
		if (!room_in_list(e) || !take_pins(tier, bytes))
			continue;
		tiers |= (uint16_t)(1u << i);
		atomic_fetch_or_explicit(&chunk->below, (uint16_t)(0x100u << i), memory_order_relaxed);
		ty_chunk_pin(chunk);
	}
	if (!tiers)
		return false;
	e->down->item[e->down->count++] = (struct ty_down_item){chunk, bytes, tiers};
	return true;
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
		for (uint32_t t = 0; t < e->service->tier_count; t++)
			if (down->item[i].tiers >> t & 1)
				ty_down_release(e->service->tiers[t], down->item[i].chunk, down->item[i].bytes, false);
	free(down);
}
