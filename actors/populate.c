/* SPDX-License-Identifier: Apache-2.0 */
#include "populate.h"

#include <stdlib.h>
#include <string.h>

#include "base/give_way.h"
#include "base/log.h"
#include "base/numa.h"
#include "service.h"
#include "cache/checksum.h"

/* The kernel holds the address space's lock while it maps a slice, also when the scheduler takes this thread off its CPU in
 * the middle: a slice is how long others that need the lock (an allocator that grows, a driver that maps memory) wait. */
#define SLICE_BYTES ((uint64_t)1 << 20)
#define SAMPLE 16    /* of the parts that are looked at by sample: every sixteenth */

struct populate {
	struct ty_service *service;
};

static enum ty_code start(void *self, void *arg)
{
	struct populate *p = self;

	p->service = arg;
	ty_give_way();
	return TY_OK;
}

static void pass_on(struct populate *p, struct ty_piece *piece)
{
	if (piece->code == TY_OK) {
		if (ty_send(piece->gpu, &piece->msg, TY_GPU_PIECE) == TY_OK)
			return;
		piece->code = ty_fail(&piece->error, TY_STOPPING, "the device's owner has stopped");
	}
	if (ty_send(p->service->eviction, &piece->msg, TY_EVICTION_PIECE) != TY_OK)
		free(piece);
}

static bool is_right(const struct ty_slots *slots, uint32_t slot)
{
	const struct ty_slot_record *record = ty_slots_record(slots, slot);

	return ty_checksum(ty_slots_address(slots, slot), record->length) == record->checksum;
}

/* Every `step`-th part, or the first one behind it that has a sum. What does not hold what was summed up goes to the end of the list, the others keep their order. */
static void look_at(struct populate *p, struct ty_piece *piece, uint32_t step)
{
	uint32_t *slots = piece->found->slots, left = piece->found->count;

	for (uint32_t i = 0; i < left;) {
		uint32_t slot = slots[i];

		/* acquire: pairs with main's release */
		if (atomic_load_explicit(&p->service->stopping, memory_order_acquire))
			break;
		if (!ty_slots_checksum(p->service->slots, slot)) {
			i++;
			continue;
		}
		if (is_right(p->service->slots, slot)) {
			i += step;
			continue;
		}
		memmove(slots + i, slots + i + 1, (left - i - 1) * sizeof *slots);
		slots[--left] = slot;
	}
	piece->damaged = piece->found->count - left;
}

/* Do the parts that were found hold what was committed? One that does not, and from then on every part is looked at. */
static void verify(struct populate *p, struct ty_piece *piece)
{
	int how = p->service->config->restart_verify;
	bool all = how == TY_CONFIG_VERIFY_FULL ||
		   /* relaxed: a hint from one populate thread to another */
		   atomic_load_explicit(&p->service->damage_seen, memory_order_relaxed);

	if (how == TY_CONFIG_VERIFY_NONE)
		return;
	look_at(p, piece, all ? 1 : SAMPLE);
	if (!piece->damaged)
		return;
	atomic_store_explicit(&p->service->damage_seen, true, memory_order_relaxed);
	if (!all)
		look_at(p, piece, 1);
	ty_log(TY_LOG_WARN, "populate", "%u of %u parts in 64 MiB of the arena at %llu are not what was committed", piece->damaged,
		piece->found->count, (unsigned long long)(piece->index * TY_PIECE_BYTES));
}

/* Its pages beside the device whose owner registers it, if that is known by now. */
static void prefer_near(struct populate *p, const struct ty_piece *piece)
{
	struct ty_service *s = p->service;
	struct ty_error err;

	for (uint32_t i = 0; i < s->gpu_count; i++) {
		/* relaxed: a hint */
		int node = atomic_load_explicit(&s->gpu_stats[i].near, memory_order_relaxed) - 1;

		if (s->gpu[i] != piece->gpu)
			continue;
		if (ty_numa_prefer(node, s->arena.base + piece->index * TY_PIECE_BYTES, TY_PIECE_BYTES, &err) != TY_OK)
			ty_log(TY_LOG_DEBUG, "populate", "%s", err.text); /* then they lie where they lie */
	}
}

static void on_piece(void *self, struct ty_msg *msg)
{
	struct populate *p = self;
	struct ty_piece *piece = ty_container_of(msg, struct ty_piece, msg);
	/* what was found in it was written to pages that exist */
	enum ty_code (*make_ready)(const struct ty_arena *, uint64_t, uint64_t, struct ty_error *) =
		piece->found ? ty_arena_map : ty_arena_populate;
	uint64_t first = piece->index * TY_PIECE_BYTES;

	piece->code = TY_OK;
	prefer_near(p, piece);
	for (uint64_t at = 0; at < TY_PIECE_BYTES && piece->code == TY_OK; at += SLICE_BYTES) {
		/* acquire: pairs with main's release. Nobody wants the pages any more. */
		if (atomic_load_explicit(&p->service->stopping, memory_order_acquire))
			piece->code = ty_fail(&piece->error, TY_STOPPING, "the service stops");
		else
			piece->code = make_ready(&p->service->arena, first + at, SLICE_BYTES, &piece->error);
	}
	if (piece->code == TY_OK && piece->found)
		verify(p, piece);
	pass_on(p, piece);
}

static void refuse(void *self, struct ty_msg *msg)
{
	struct ty_piece *piece = ty_container_of(msg, struct ty_piece, msg);

	piece->code = ty_fail(&piece->error, TY_STOPPING, "the service stops");
	pass_on(self, piece);
}

static const struct ty_handler handlers[] = {
	{"piece", on_piece},
};

const struct ty_class ty_populate_class = {
	.name = "populate",
	.state_size = sizeof(struct populate),
	.first_type = TY_POPULATE_PIECE,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.refuse = refuse,
};
