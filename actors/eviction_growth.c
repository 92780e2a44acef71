/* SPDX-License-Identifier: Apache-2.0 */
#include "eviction_state.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/log.h"

#define STUCK_NS INT64_C(10000000000) /* no piece came for so long: nobody waits for the arena to grow any more */

static bool gpu_is_well(const struct eviction *e, uint32_t gpu)
{
	/* acquire: the owner's state is released with what it says; only the state itself is used here */
	int state = atomic_load_explicit(&e->service->gpu_stats[gpu].state, memory_order_acquire);

	return state == TY_GPU_STARTING || state == TY_GPU_SERVING;
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

		if (gpu != not_this && gpu_is_well(e, gpu)) {
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

static bool ask_for_piece(struct eviction *e)
{
	struct ty_service *service = e->service;
	uint32_t gpu = choose_gpu(e, NO_GPU), populate = e->next_populate++ % service->populate_count;
	struct ty_piece *piece = calloc(1, sizeof *piece);

	if (!piece)
		return false; /* asked for again when something happens */
	if (gpu == NO_GPU) /* all have failed, or are stalled: one of the latter may recover */
		gpu = 0;
	piece->index = e->next_piece;
	piece->gpu = service->gpu[gpu];
	piece->tries = 1;
	if (ty_send(service->populate[populate], &piece->msg, TY_POPULATE_PIECE) != TY_OK) {
		free(piece); /* it stops, and so do we */
		return false;
	}
	if (e->coming++ == 0)
		e->grown = ty_now();
	e->coming_at[gpu]++;
	e->next_piece++;
	return true;
}

/* At least a piece, whatever the configuration says. */
void eviction_grow(struct eviction *e)
{
	struct ty_service *service = e->service;
	uint64_t ahead = (service->config->l1_ahead + TY_PIECE_BYTES - 1) / TY_PIECE_BYTES;

	if (ahead == 0)
		ahead = 1;
	/* acquire: pairs with main's release */
	while (e->next_piece < service->arena.pieces && ty_slots_free_pieces(service->slots) + hoped_for(e) < ahead &&
		!atomic_load_explicit(&service->stopping, memory_order_acquire))
		if (!ask_for_piece(e))
			break;
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

void eviction_take_piece(struct eviction *e, struct ty_piece *piece)
{
	struct ty_eviction_stats *stats = &e->service->eviction_stats;
	uint32_t gpu = gpu_index(e, piece->gpu);

	e->grown = ty_now();
	if (piece->code == TY_OK) {
		ty_slots_add_piece(e->service->slots, piece->index);
		eviction_count(&stats->ready_bytes, TY_PIECE_BYTES);
	} else if (retry_piece(e, piece, gpu)) {
		return;
	} else {
		eviction_count(&stats->failed_bytes, TY_PIECE_BYTES);
		if (piece->code != TY_STOPPING)
			ty_log(TY_LOG_WARN, "eviction", "64 MiB of the arena at %" PRIu64 " are not used: %s",
				piece->index * TY_PIECE_BYTES, piece->error.text);
	}
	e->coming--;
	e->coming_at[gpu]--;
	free(piece);
}
