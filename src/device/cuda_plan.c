/* SPDX-License-Identifier: Apache-2.0
 *
 * Which way a mapping's groups go: plan.h's choice with what this device knows, and whether an engine is at work.
 */
#include "cuda_private.h"

#include <string.h>

#define BLOCKS_TRIED 24 /* powers of two */

void ty_cuda_plan_groups(const struct cuda_device *dev, struct cuda_mapping *m, const uint32_t *allocation, bool rows_cross)
{
	const struct ty_layout *layout = m->base.layout;
	struct ty_span *room = m->spans;

	for (uint32_t i = 0; i < layout->group_count; i++) {
		const struct ty_layout_group *g = &layout->groups[i];
		struct cuda_group *group = &m->groups[i];
		const uint64_t *address = m->planes + g->first_plane;
		const uint32_t *of = allocation + g->first_plane;

		group->rows = room;
		group->shape.block_bytes = (uint64_t)g->plane_count * g->run_bytes;
		group->shape.runs = ty_plan_join(address, of, g->plane_count, g->run_bytes, group->rows);
		group->spans = room + g->plane_count;
		memcpy(group->spans, group->rows, group->shape.runs * sizeof *group->rows);
		group->shape.spans = ty_plan_stride(group->spans, group->shape.runs, address, of,
			rows_cross ? dev->max_pitch : 0);
		group->joins = of[0] == of[g->plane_count - 1];
		room += 2 * g->plane_count;
		group->allowed = TY_PLAN_BIT(TY_PATH_DIRECT);
		if (ty_cuda_batches(dev))
			group->allowed |= TY_PLAN_BIT(TY_PATH_BATCH);
		if (group->shape.spans < group->shape.runs)
			group->allowed |= TY_PLAN_BIT(TY_PATH_STRIDED);
		if (dev->staging && g->run_bytes <= dev->slot_bytes)
			group->allowed |= TY_PLAN_BIT(TY_PATH_STAGED);
	}
}

static enum ty_path choose(const struct cuda_device *dev, const struct cuda_group *group, uint64_t blocks,
	enum ty_direction direction, bool busy)
{
	const struct ty_plan_policy policy = {dev->sharing, busy, dev->in_process};

	if (dev->forced != TY_PATH_PLANNED)
		return group->allowed & TY_PLAN_BIT(dev->forced) ? dev->forced : TY_PATH_DIRECT;
	return ty_plan_choose(&dev->calibration.rates, &group->shape, blocks, direction, group->allowed, &policy);
}

/* A group that never would be staged needs no plane table, and from now on may not be. */
bool ty_cuda_may_stage(const struct cuda_device *dev, const struct cuda_mapping *m)
{
	struct cuda_mapping *change = (struct cuda_mapping *)(uintptr_t)m;
	bool any = false;

	for (uint32_t i = 0; i < m->base.layout->group_count; i++) {
		bool staged = false;

		for (unsigned tried = 0; tried < 4 * BLOCKS_TRIED && !staged; tried++)
			staged = choose(dev, &m->groups[i], 1ull << tried / 4, tried & 1 ? TY_TO_HOST : TY_TO_DEVICE,
				tried & 2) == TY_PATH_STAGED;
		if (!staged)
			change->groups[i].allowed &= ~TY_PLAN_BIT(TY_PATH_STAGED);
		any = any || staged;
	}
	return any;
}

void ty_cuda_plan_batch(const struct cuda_device *dev, struct ty_batch *batch)
{
	const struct cuda_mapping *m = ty_cuda_mapping(batch);
	uintptr_t paths = 0;

	for (uint32_t i = 0; i < m->base.layout->group_count; i++) {
		uint64_t blocks = (uint64_t)batch->count * m->base.layout->groups[i].blocks_per_chunk;

		paths |= (uintptr_t)choose(dev, &m->groups[i], blocks, batch->direction, dev->engine.busy) << (4 * i);
	}
	batch->device_private[1] = (void *)paths;
}

enum ty_path ty_cuda_path(const struct ty_mapping *mapping, uint32_t group, enum ty_direction direction, uint32_t chunks)
{
	const struct cuda_device *dev = (const struct cuda_device *)mapping->device;
	const struct cuda_mapping *m = (const struct cuda_mapping *)mapping;

	return choose(dev, &m->groups[group], (uint64_t)chunks * mapping->layout->groups[group].blocks_per_chunk, direction,
		dev->engine.busy);
}

/* ---- is an engine at work? ------------------------------------------------------------------- */

static void saw(struct cuda_device *dev, bool held_up)
{
	struct cuda_engine *e = &dev->engine;

	e->slow = held_up ? e->slow + 1 : 0;
	e->quick = held_up ? 0 : e->quick + 1;
	if (!e->busy && e->slow >= TY_CUDA_SLOW_SEEN) {
		e->busy = true;
		ty_device_count(&dev->base.stats.busy, 1);
	} else if (e->quick >= TY_CUDA_QUICK_SEEN) {
		e->busy = false;
	}
}

void ty_cuda_forget_engine(struct cuda_device *dev)
{
	dev->engine.busy = false;
	dev->engine.slow = dev->engine.quick = 0;
}

/* Alone, a kernel of ours is through in well under the limit. When it is not ready although nothing of ours is before it, it waits
 * for a time slice: every pool is another process's, and that one is computing. Only what is seen not to be ready counts, so
 * that a late poll is no sign. */
void ty_cuda_watch(struct cuda_device *dev, struct cuda_lane *lane)
{
	struct cuda_unit *unit = &lane->units[lane->first];
	bool to_host, waits;
	int64_t now, limit = dev->waited_ns;

	if (!lane->count || unit->path != TY_PATH_STAGED || dev->base.poisoned) {
		lane->watched = 0;
		return;
	}
	to_host = unit->batch->direction == TY_TO_HOST;
	/* store: the gather is first. Retrieve: the copy is, and then the scatter */
	if (ty_cuda_reached(dev, unit->middle) == to_host) {
		lane->watched = 0;
		return;
	}
	waits = to_host || !ty_cuda_reached(dev, unit->ends[0]);
	now = dev->base.now;
	if (!waits)
		return;
	if (!lane->watched)
		lane->watched = now;
	if (unit->bytes > TY_CUDA_WAITED_BYTES)
		limit = (int64_t)((double)limit * (double)unit->bytes / (double)TY_CUDA_WAITED_BYTES);
	if (now - lane->watched <= limit)
		return;
	lane->watched = now; /* as long again is another sign */
	saw(dev, true);
}

/* A probe is alone on its stream, and while an engine is believed in there is little of ours before it: it is held up by a third
 * of the limit, or it was not held up. One that ends between two looks was not seen to wait for longer than the first. */
void ty_cuda_probe(struct cuda_device *dev)
{
	struct ty_gather_job job = {.run_units = 1, .plane_count = 1};
	struct cuda_engine *e = &dev->engine;
	void *parameters[] = {&job};
	const char *call = "cuCtxSetCurrent";
	int64_t now;
	cu_result result;

	if (!dev->gathers[0] || dev->base.poisoned || (!e->out && !e->busy))
		return;
	now = dev->base.now;
	result = ty_cuda_use(&dev->api, dev->context);
	if (result == CU_SUCCESS && e->out) {
		if (!ty_cuda_reached(dev, e->end)) {
			e->waited = now;
			return;
		}
		e->out = false;
		saw(dev, e->waited - e->launched > dev->waited_ns / 3);
		return;
	}
	if (now - e->launched < TY_CUDA_PROBE_NS)
		return;
	if (result == CU_SUCCESS) {
		call = "cuLaunchKernel";
		result = CU(dev, cuLaunchKernel, dev->gathers[1], 1, 1, 1, TY_KERNEL_THREADS, 1, 1, 0, e->stream, parameters, NULL);
	}
	if (result == CU_SUCCESS) {
		call = "cuEventRecord";
		result = CU(dev, cuEventRecord, e->end, e->stream);
	}
	if (result != CU_SUCCESS)
		ty_cuda_poison(dev, call, result);
	e->out = result == CU_SUCCESS;
	e->launched = e->waited = now;
}

bool ty_cuda_probe_is_over(struct cuda_device *dev)
{
	struct cuda_engine *e = &dev->engine;

	if (!e->out || dev->base.poisoned)
		return true;
	if (ty_cuda_reached(dev, e->end))
		e->out = false;
	else if (dev->base.now - e->launched > dev->patience_ns)
		ty_cuda_poison(dev, "a probe that does not end: cuEventQuery", CU_NOT_READY);
	return !e->out || dev->base.poisoned;
}

enum ty_code ty_cuda_end_probe(struct cuda_device *dev, struct ty_error *err)
{
	if (!dev->engine.out || dev->base.poisoned)
		return TY_OK;
	dev->engine.out = false;
	return ty_cuda_finish(dev, dev->engine.stream, "the last probe", err);
}
