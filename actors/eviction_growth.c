/* SPDX-License-Identifier: Apache-2.0 */
#include "eviction_state.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/log.h"

#define STUCK_NS INT64_C(10000000000) /* no piece came for so long: nobody waits for the arena to grow any more */

#define RETURNING_AHEAD 16 /* pieces of a process before this one that are on their way at a time */

static bool gpu_is_well(const struct eviction *e, uint32_t gpu)
{
	/* acquire: the owner's state is released with what it says; only the state itself is used here */
	int state = atomic_load_explicit(&e->service->gpu_stats[gpu].state, memory_order_acquire);

	return state == TY_GPU_STARTING || state == TY_GPU_SERVING;
}

/* May this owner make a piece usable for all? Where there are GPUs that is theirs to do, for as long as one of them could yet
 * copy: a host device's word is no registration with a driver. */
static bool gpu_registers(const struct eviction *e, uint32_t gpu)
{
	const struct ty_service *service = e->service;

	if (!service->registrars || service->registrars >> gpu & 1)
		return true;
	for (uint32_t i = 0; i < service->gpu_count; i++)
		if (service->registrars >> i & 1 &&
			/* acquire: as in gpu_is_well */
			atomic_load_explicit(&service->gpu_stats[i].state, memory_order_acquire) != TY_GPU_FAILED)
			return false;
	return true;
}

static uint32_t gpu_index(const struct eviction *e, const struct ty_actor *gpu)
{
	for (uint32_t i = 0; i < e->service->gpu_count; i++)
		if (e->service->gpu[i] == gpu)
			return i;
	assert(false && "a piece is registered by an owner of the service");
	return 0;
}

#define NO_GPU UINT32_MAX

/* The next owner in turn that is well, and is not this one; NO_GPU: there is none. */
static uint32_t choose_gpu(struct eviction *e, uint32_t not_this)
{
	uint32_t count = e->service->gpu_count;

	assert(count > 0);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t gpu = (e->next_gpu + i) % count;

		if (gpu != not_this && gpu_is_well(e, gpu) && gpu_registers(e, gpu)) {
			e->next_gpu = (gpu + 1) % count;
			return gpu;
		}
	}
	return NO_GPU;
}

/* Pieces that may be hoped for: those that lie with a stalled device may never come. */
static uint32_t hoped_for(const struct eviction *e)
{
	uint32_t count = 0;
	bool any = false;

	for (uint32_t i = 0; i < e->service->gpu_count; i++) {
		if (gpu_is_well(e, i)) {
			any = true;
			count += e->coming_at[i];
		}
	}
	return any ? count : e->coming;
}

static bool ask_for_piece(struct eviction *e, uint32_t index, const struct ty_found_piece *found)
{
	struct ty_service *service = e->service;
	uint32_t gpu = choose_gpu(e, NO_GPU), populate = e->next_populate++ % service->populate_count;
	struct ty_piece *piece;

	/* acquire: pairs with main's release */
	if (atomic_load_explicit(&service->stopping, memory_order_acquire))
		return false;
	piece = calloc(1, sizeof *piece);
	if (!piece)
		return false; /* asked for again when something happens */
	for (uint32_t i = service->gpu_count; gpu == NO_GPU && i-- > 0;) /* all have failed, or are stalled: one of the latter may recover */
		if (gpu_registers(e, i))
			gpu = i;
	piece->index = index;
	piece->found = found;
	piece->gpu = service->gpu[gpu];
	piece->home = service->eviction;
	piece->home_type = TY_EVICTION_PIECE;
	piece->tries = 1;
	if (ty_send(service->populate[populate], &piece->msg, TY_POPULATE_PIECE) != TY_OK) {
		free(piece); /* it stops, and so do we */
		return false;
	}
	if (e->coming++ == 0)
		e->grown = ty_now();
	e->coming_at[gpu]++;
	e->fresh_coming += !found;
	return true;
}

static void skip_found(struct eviction *e)
{
	while (e->next_piece < e->service->arena.pieces && e->is_found[e->next_piece])
		e->next_piece++;
}

/* At least a piece, whatever the configuration says. While old pieces come back new ones come only if somebody waits. */
static bool wants_piece(const struct eviction *e)
{
	uint64_t ahead = (e->ahead + TY_PIECE_BYTES - 1) / TY_PIECE_BYTES;

	if (e->next_piece >= e->service->arena.pieces || (e->next_piece + 1) * TY_PIECE_BYTES > e->limit)
		return false;
	if (e->returning)
		return e->waiting && !e->fresh_coming;
	return ty_slots_free_pieces(e->service->slots) + hoped_for(e) < (ahead ? ahead : 1);
}

void eviction_grow(struct eviction *e)
{
	while (e->next_found < e->found_count && e->coming - e->fresh_coming < RETURNING_AHEAD) {
		if (!ask_for_piece(e, e->found[e->next_found].piece, &e->found[e->next_found]))
			return;
		e->next_found++;
	}
	for (skip_found(e); wants_piece(e); skip_found(e)) {
		if (!ask_for_piece(e, e->next_piece, NULL))
			return;
		e->next_piece++;
	}
}

enum ty_code eviction_growth_open(struct eviction *e)
{
	e->is_found = calloc(e->service->arena.pieces, sizeof *e->is_found);
	if (!e->is_found)
		return TY_NO_MEMORY;
	e->found = ty_slots_found(e->service->slots, &e->found_count);
	for (uint32_t i = 0; i < e->found_count; i++)
		e->is_found[e->found[i].piece] = true;
	for (uint32_t i = 0; i < e->service->arena.pieces; i++)
		e->is_found[i] |= ty_slots_aside(e->service->slots, i); /* or is not to be used */
	e->returning = e->found_count;
	e->began = ty_now();
	return TY_OK;
}

void eviction_growth_close(struct eviction *e)
{
	free(e->is_found);
}

bool eviction_growing(const struct eviction *e)
{
	return e->coming > 0 && ty_now() - e->grown < STUCK_NS;
}

/* Not usable: another owner may do better. True: it is on its way to one. */
static bool retry_piece(struct eviction *e, struct ty_piece *piece, uint32_t failed)
{
	uint32_t gpu;

	if (piece->code == TY_STOPPING || piece->tries >= e->service->gpu_count)
		return false;
	gpu = choose_gpu(e, failed);
	if (gpu == NO_GPU)
		return false;
	piece->tries++;
	piece->gpu = e->service->gpu[gpu];
	if (ty_send(piece->gpu, &piece->msg, TY_GPU_PIECE) != TY_OK)
		return false;
	e->coming_at[failed]--;
	e->coming_at[gpu]++;
	return true;
}

/* A piece that is usable, with what was found in it: its parts are parts of chunks again, the youngest first, each older than
 * all that is here. */
static void take_found(struct eviction *e, const struct ty_piece *piece)
{
	struct ty_eviction_stats *stats = &e->service->eviction_stats;
	const struct ty_found_piece *found = piece->found;
	uint32_t good = found->count - piece->damaged, back = 0;

	for (uint32_t i = 0; i < good; i++)
		back += eviction_return_part(e, found->slots[i]);
	for (uint32_t i = good; i < found->count; i++)
		ty_slots_give(e->service->slots, found->slots[i]);
	eviction_count(&stats->returned, back);
	eviction_count(&stats->return_lost, good - back);
	eviction_count(&stats->return_damaged, piece->damaged);
}

static void count_returned(struct eviction *e)
{
	struct ty_eviction_stats *stats = &e->service->eviction_stats;

	if (--e->returning)
		return;
	ty_log(stats->return_damaged ? TY_LOG_WARN : TY_LOG_INFO, "eviction",
		"%" PRIu64 " chunks are here again after %" PRId64 " ms: %" PRIu64 " parts; %" PRIu64 " damaged, %" PRIu64 " lost",
		e->visible, (ty_now() - e->began) / 1000000, stats->returned, stats->return_damaged, stats->return_lost);
	e->found = NULL;
	ty_slots_forget_found(e->service->slots);
	e->unsummed_at = 0;
	eviction_sum_missing(e);
	for (uint32_t i = 0; i < e->service->tier_count; i++)
		eviction_offers_begin(e, i);
}

void eviction_take_piece(struct eviction *e, struct ty_piece *piece)
{
	struct ty_eviction_stats *stats = &e->service->eviction_stats;
	uint32_t gpu = gpu_index(e, piece->gpu);

	e->grown = ty_now();
	if (piece->code == TY_OK) {
		ty_slots_add_piece(e->service->slots, piece->index);
		eviction_count(&stats->ready_bytes, TY_PIECE_BYTES);
		if (piece->found)
			take_found(e, piece);
	} else if (retry_piece(e, piece, gpu)) {
		return;
	} else {
		eviction_count(&stats->failed_bytes, TY_PIECE_BYTES);
		if (piece->code != TY_STOPPING)
			ty_log(TY_LOG_WARN, "eviction", "64 MiB of the arena at %" PRIu64 " are not used: %s",
				piece->index * TY_PIECE_BYTES, piece->error.text);
		/* a service that stops leaves it to the next one */
		if (piece->found && piece->code != TY_STOPPING) {
			eviction_count(&stats->return_lost, piece->found->count);
			ty_slots_lose_piece(e->service->slots, piece->index);
		}
	}
	e->coming--;
	e->coming_at[gpu]--;
	e->fresh_coming -= !piece->found;
	if (piece->found)
		count_returned(e);
	free(piece);
}
