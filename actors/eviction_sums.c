/* SPDX-License-Identifier: Apache-2.0
 *
 * The contents' checksums. A pass over a chunk's bytes takes longer than its copy from the GPU did, so it comes after the
 * commit and beside everything else. What is on its way is pinned, hence bounded; a chunk without a sum is as good as any
 * other, and whoever takes it further down makes one. What the process before this one had no time for is made up for once
 * its chunks are here again, a few at a time.
 */
#include "eviction_state.h"

#include <assert.h>
#include <stdlib.h>

#define SHARE 16 /* of the arena, that may be on its way: a sixteenth */
#define LOOKS 4096 /* slots that are looked at in one message, for sums that are missing, or for the scrubber */
#define AT_ONCE 2  /* missing sums that are made at a time, by a bytework thread */

struct sum {
	struct ty_bytework work;
	struct ty_chunk *chunk; /* pinned */
	uint64_t bytes;         /* of its parts */
	bool offer;             /* then it goes down */
	bool made;              /* parts[] are filled in; not if the service stops */
	uint64_t parts[];       /* chunk->parts */
};

/* On a bytework's thread. */
static void run(struct ty_service *service, struct ty_bytework *work)
{
	struct sum *sum = ty_container_of(work, struct sum, work);
	struct ty_checksum_stats *stats = &service->checksum_stats;
	int64_t began = ty_now();

	sum->made = true;
	for (uint32_t i = 0; i < sum->chunk->parts && sum->made; i++) {
		uint32_t slot = sum->chunk->slots[i];

		sum->made = ty_bytework_sum(service, ty_slots_address(service->slots, slot),
			ty_slots_held(service->slots, slot)->length, &sum->parts[i]);
	}
	if (sum->made) {
		atomic_fetch_add_explicit(&stats->bytes, sum->bytes, memory_order_relaxed);
		atomic_fetch_add_explicit(&stats->ns, (uint64_t)(ty_now() - began), memory_order_relaxed);
	}
}

static uint64_t unsummed_bytes(const struct eviction *e, const struct ty_chunk *chunk)
{
	const struct ty_slots *slots = e->service->slots;
	uint64_t bytes = 0;

	for (uint32_t part = 0; part < chunk->parts; part++)
		if (!ty_slots_checksum(slots, chunk->slots[part]))
			bytes += ty_slots_record(slots, chunk->slots[part])->length;
	return bytes;
}

static void tell(struct eviction *e)
{
	/* relaxed: read by metrics */
	atomic_store_explicit(&e->service->checksum_stats.waiting, e->sum_bytes, memory_order_relaxed);
}

bool eviction_sum(struct eviction *e, struct ty_chunk *chunk, bool offer)
{
	struct ty_service *service = e->service;
	uint64_t bytes;
	struct sum *sum;

	if (!service->bytework_count || !(bytes = unsummed_bytes(e, chunk)))
		return false;
	sum = e->sum_bytes + bytes > service->arena.bytes / SHARE
		      ? NULL
		      : calloc(1, sizeof *sum + chunk->parts * sizeof sum->parts[0]);
	if (sum) {
		sum->chunk = chunk;
		sum->bytes = bytes;
		sum->offer = offer;
		ty_chunk_pin(chunk);
		ty_chunk_hold(chunk);
		sum->work.home = ty_self();
		sum->work.home_type = TY_EVICTION_SUMMED;
		sum->work.run = run;
		if (ty_bytework_send(service, &sum->work, &e->next_sum)) {
			e->sum_bytes += bytes;
			e->sums_begun++;
			e->sums_due += offer;
			tell(e);
			return true;
		}
		ty_chunk_let_go(chunk); /* the service stops */
		ty_chunk_unpin(chunk);
		free(sum);
	}
	eviction_count(&service->checksum_stats.skipped, 1);
	return false;
}

bool eviction_sums_pin(const struct eviction *e, struct ty_op *op)
{
	if (!op->sums)
		op->sums = e->sums_begun;
	return e->sums_ended < op->sums;
}

/* The chunk that has this slot, if it is the first of its slots without a sum: so that each chunk is taken once. */
static struct ty_chunk *unsummed_chunk(const struct eviction *e, uint32_t slot)
{
	const struct ty_slots *slots = e->service->slots;
	const struct ty_slot_record *record = ty_slots_record(slots, slot);
	struct ty_chunk *chunk;

	if (record->state != TY_SLOT_READY || ty_slots_checksum(slots, slot))
		return NULL;
	chunk = ty_index_find(e->service->index, &record->key);
	if (!chunk || ty_chunk_state(chunk) != TY_CHUNK_READY)
		return NULL;
	for (uint32_t part = 0; part < chunk->parts; part++)
		if (!ty_slots_checksum(slots, chunk->slots[part]))
			return chunk->slots[part] == slot ? chunk : NULL;
	return NULL;
}

void eviction_sum_missing(struct eviction *e)
{
	uint32_t budget = LOOKS, most = AT_ONCE * e->service->bytework_count;

	while (e->unsummed_at != TY_NO_SLOT && budget && e->sums_begun - e->sums_ended < most) {
		uint32_t slot = ty_slots_next(e->service->slots, e->unsummed_at, &budget, &e->unsummed_at);
		struct ty_chunk *chunk = slot == TY_NO_SLOT ? NULL : unsummed_chunk(e, slot);

		if (chunk)
			(void)eviction_sum(e, chunk, false);
	}
	/* with sums on their way, the next one that is made goes on here */
	if (e->unsummed_at != TY_NO_SLOT && e->sums_begun == e->sums_ended)
		ty_timer_start(&e->look, TY_EVICTION_LOOK, ty_now());
}

void eviction_summed(struct eviction *e, struct ty_msg *msg)
{
	struct sum *sum = ty_container_of(ty_container_of(msg, struct ty_bytework, msg), struct sum, work);

	for (uint32_t part = 0; sum->made && part < sum->chunk->parts; part++)
		ty_slots_set_checksum(e->service->slots, sum->chunk->slots[part], sum->parts[part]);
	if (sum->offer && ty_chunk_state(sum->chunk) == TY_CHUNK_READY)
		eviction_offer(e, sum->chunk, TY_TIER_WRITE_COMMIT);
	ty_chunk_let_go(sum->chunk);
	ty_chunk_unpin(sum->chunk);
	e->sum_bytes -= sum->bytes;
	e->sums_ended++;
	e->sums_due -= sum->offer;
	tell(e);
	free(sum);
	eviction_sum_missing(e);
}

/* ---- what is held against its sums later ------------------------------------------------------------------ */

/* Chunks whose bytes are not what they were are condemned; then the next one that is visible, pinned. */
void eviction_scrub(struct eviction *e, struct ty_scrub_ask *ask)
{
	uint32_t budget = LOOKS, slot;

	if (ask->chunk) {
		if (ty_chunk_state(ask->chunk) == TY_CHUNK_READY)
			eviction_condemn(e, ask->chunk);
		ty_chunk_let_go(ask->chunk);
		ty_chunk_unpin(ask->chunk);
		(void)eviction_discard(e, ask->chunk);
		ask->chunk = NULL;
	}
	while (budget && !ask->chunk && ask->at != TY_NO_SLOT) {
		struct ty_chunk *chunk;

		slot = ty_slots_next(e->service->slots, ask->at, &budget, &ask->at);
		chunk = slot == TY_NO_SLOT ? NULL : eviction_chunk_at(e, slot);
		if (chunk && ty_chunk_state(chunk) == TY_CHUNK_READY) {
			ty_chunk_pin(chunk);
			ty_chunk_hold(chunk);
			ask->chunk = chunk;
		}
	}
	enum ty_code sent = ty_send(ask->home, &ask->msg, TY_SCRUB_CHUNK);
	assert(sent == TY_OK); /* it waits for this before it stops */
	(void)sent;
}
