/* SPDX-License-Identifier: Apache-2.0
 *
 * Chunks on their way. Nothing here waits: submit and poll issue a bounded number of units and look at the oldest events.
 *
 *   store, staged:     kernel stream: gather -> middle      copy stream: (middle) copies to the host -> end
 *   retrieve, staged:  copy stream: copies from the host -> middle      kernel stream: (middle) scatter -> end
 *   without a kernel:  copy streams in turn: copies -> an end on each (cuda_runs.c)
 *
 * A slot of staging is used again in stream order: the unit's first stream waits for the end of the last unit that lay there. So
 * more than there are slots may be queued, and a poll that comes late leaves no gap on the link.
 */
#include "cuda_private.h"

#include <string.h>

static bool all_staged(const struct ty_batch *batch)
{
	for (uint32_t i = 0; i < batch->mapping->layout->group_count; i++)
		if (ty_cuda_path_of(batch, i) != TY_PATH_STAGED)
			return false;
	return true;
}

static struct cuda_unit *unit_at(struct cuda_lane *lane, uint32_t index)
{
	return &lane->units[(lane->first + index) % TY_CUDA_UNITS];
}

/* Past the last block of a group in one chunk: groups are the outer loop, so that blocks of many chunks share a launch. */
static void next_copy(struct cuda_lane *lane)
{
	struct cuda_cursor *at = &lane->at;
	const struct ty_batch *batch = lane->issuing;

	at->block = 0;
	at->plane = 0;
	if (++at->copy < batch->count)
		return;
	at->copy = 0;
	if (++at->group < batch->mapping->layout->group_count)
		return;
	at->group = 0;
	lane->issuing = ty_batch_next(batch);
}

void ty_cuda_next_blocks(struct cuda_lane *lane, uint32_t blocks)
{
	struct cuda_cursor *at = &lane->at;

	at->plane = 0;
	at->block += blocks;
	if (at->block == lane->issuing->mapping->layout->groups[at->group].blocks_per_chunk)
		next_copy(lane);
}

cu_result ty_cuda_copy(struct cuda_device *dev, cu_stream stream, enum ty_direction direction, const struct cuda_piece *piece,
	const char **call)
{
	ty_device_count(&dev->base.stats.copies, 1);
	*call = direction == TY_TO_HOST ? "cuMemcpyDtoHAsync" : "cuMemcpyHtoDAsync";
	if (direction == TY_TO_HOST)
		return CU(dev, cuMemcpyDtoHAsync, piece->host, piece->device, piece->bytes, stream);
	return CU(dev, cuMemcpyHtoDAsync, piece->device, piece->host, piece->bytes, stream);
}

/* The copies of a staged unit. On failure *call says what failed. */
static cu_result copy_pieces(struct cuda_device *dev, struct cuda_lane *lane, enum ty_direction direction,
	const struct cuda_piece *pieces, uint32_t count, const char **call)
{
	for (uint32_t i = 0; i < count; i++) {
		cu_result result = ty_cuda_copy(dev, lane->copy[0], direction, &pieces[i], call);

		if (result != CU_SUCCESS)
			return result;
	}
	return CU_SUCCESS;
}

static cu_result launch(struct cuda_device *dev, struct cuda_lane *lane, enum ty_direction direction,
	struct ty_gather_job *job)
{
	uint64_t each = TY_KERNEL_THREADS * TY_KERNEL_UNITS_EACH, grid = (ty_gather_units(job) + each - 1) / each;
	void *parameters[] = {job};

	ty_device_count(&dev->base.stats.launches, 1);
	return CU(dev, cuLaunchKernel, direction == TY_TO_HOST ? dev->gather : dev->scatter,
		(unsigned)(grid < dev->grid_max ? grid : dev->grid_max), 1, 1, TY_KERNEL_THREADS, 1, 1, 0, lane->kernel,
		parameters, NULL);
}

/* ---- staged units -------------------------------------------------------------------------- */

/* Blocks from the cursor on for one tile, at most tile_bytes of them; moves the cursor. */
static uint32_t fill_job(struct cuda_device *dev, struct cuda_lane *lane, const struct ty_batch *batch,
	struct ty_gather_job *job, struct cuda_piece *pieces)
{
	const struct cuda_mapping *m = ty_cuda_mapping(batch);
	const uint32_t group = lane->at.group;
	const struct ty_layout_group *g = &m->base.layout->groups[group];
	const uint64_t block_bytes = (uint64_t)g->plane_count * g->run_bytes;
	uint64_t tile_bytes = 0;
	uint32_t count = 0;

	job->planes = m->table + (g->first_plane + lane->at.plane) * sizeof(uint64_t);
	job->block_stride = g->block_stride;
	job->run_units = g->run_bytes / TY_GATHER_UNIT;
	job->block_limit = g->block_count;
	job->block_count = 0;
	if (block_bytes > dev->tile_bytes) { /* some planes of one block */
		struct cuda_cursor *at = &lane->at;
		const struct ty_copy *copy = &batch->copies[at->copy];
		uint32_t fit = (uint32_t)(dev->tile_bytes / g->run_bytes), left = g->plane_count - at->plane;

		job->plane_count = fit < left ? fit : left;
		job->block_count = 1;
		job->blocks[0] = copy->blocks[g->first_block + at->block];
		pieces[0] = (struct cuda_piece){copy->host + g->tile_offset + at->block * block_bytes +
				(uint64_t)at->plane * g->run_bytes, 0, (uint64_t)job->plane_count * g->run_bytes};
		at->plane += job->plane_count;
		if (at->plane == g->plane_count)
			ty_cuda_next_blocks(lane, 1);
		return 1;
	}
	job->plane_count = g->plane_count;
	while (lane->issuing == batch && lane->at.group == group && count < TY_CUDA_UNIT_COPIES) {
		const struct ty_copy *copy = &batch->copies[lane->at.copy];
		uint64_t fit = (dev->tile_bytes - tile_bytes) / block_bytes;
		uint32_t blocks = g->blocks_per_chunk - lane->at.block;

		blocks = fit < blocks ? (uint32_t)fit : blocks;
		if (blocks > TY_GATHER_BLOCKS - job->block_count)
			blocks = TY_GATHER_BLOCKS - job->block_count;
		if (blocks == 0)
			break;
		memcpy(job->blocks + job->block_count, copy->blocks + g->first_block + lane->at.block,
			blocks * sizeof job->blocks[0]);
		pieces[count++] = (struct cuda_piece){copy->host + g->tile_offset + lane->at.block * block_bytes, tile_bytes,
			blocks * block_bytes};
		job->block_count += blocks;
		tile_bytes += blocks * block_bytes;
		ty_cuda_next_blocks(lane, blocks);
	}
	return count;
}

/* A slot for the next unit of a lane. As long as both lanes have work each has half of them; one alone takes all. Whoever is short of
 * slots uses its own oldest again. */
static struct cuda_slot *take_slot(struct cuda_device *dev, enum ty_direction direction)
{
	const struct cuda_lane *other = &dev->lanes[!direction];
	uint32_t share = other->queue.first ? dev->slot_count / 2 : dev->slot_count, held[2] = {0};
	struct cuda_slot *unused = NULL, *oldest[2] = {NULL};

	for (uint32_t i = 0; i < dev->slot_count; i++) {
		struct cuda_slot *slot = &dev->slots[i];

		if (!slot->unit) {
			unused = slot;
			continue;
		}
		held[slot->direction]++;
		if (!oldest[slot->direction] || slot->used < oldest[slot->direction]->used)
			oldest[slot->direction] = slot;
	}
	if (held[direction] < share && unused)
		return unused;
	if (!held[direction] || (held[direction] < share && held[!direction] > dev->slot_count - share))
		return oldest[!direction] ? oldest[!direction] : unused;
	return oldest[direction];
}

static cu_result issue_staged(struct cuda_device *dev, struct cuda_lane *lane, struct cuda_unit *unit, const char **call)
{
	struct cuda_piece pieces[TY_CUDA_UNIT_COPIES];
	enum ty_direction direction = unit->batch->direction;
	cu_stream before = direction == TY_TO_HOST ? lane->kernel : lane->copy[0];
	cu_stream after = direction == TY_TO_HOST ? lane->copy[0] : lane->kernel;
	struct cuda_slot *slot = take_slot(dev, direction);
	const struct cuda_unit *there = slot->unit;
	struct ty_gather_job job;
	uint32_t count = fill_job(dev, lane, unit->batch, &job, pieces);
	cu_result result = CU_SUCCESS;

	slot->unit = unit;
	slot->direction = direction;
	slot->used = ++dev->slot_uses;
	unit->awaited = 1;
	unit->copies = count;
	job.tile = slot->address;
	for (uint32_t i = 0; i < count; i++)
		pieces[i].device += job.tile;
	*call = "cuStreamWaitEvent";
	if (there)
		result = CU(dev, cuStreamWaitEvent, before, there->ends[0], 0);
	if (result == CU_SUCCESS && direction == TY_TO_HOST) {
		*call = "cuLaunchKernel";
		result = launch(dev, lane, direction, &job);
	} else if (result == CU_SUCCESS) {
		result = copy_pieces(dev, lane, direction, pieces, count, call);
	}
	if (result == CU_SUCCESS) {
		*call = "cuEventRecord";
		result = CU(dev, cuEventRecord, unit->middle, before);
	}
	if (result == CU_SUCCESS) {
		*call = "cuStreamWaitEvent";
		result = CU(dev, cuStreamWaitEvent, after, unit->middle, 0);
	}
	if (result == CU_SUCCESS && direction == TY_TO_DEVICE) {
		*call = "cuLaunchKernel";
		result = launch(dev, lane, direction, &job);
	} else if (result == CU_SUCCESS) {
		result = copy_pieces(dev, lane, direction, pieces, count, call);
	}
	if (result == CU_SUCCESS) {
		*call = "cuEventRecord";
		result = CU(dev, cuEventRecord, unit->ends[0], after);
	}
	return result;
}

/* ---- issuing -------------------------------------------------------------------------------- */

/* Part of a unit may be queued: mark its ends if that can still be done, so that its memory is not given back early. */
static void mark_failed(struct cuda_device *dev, struct cuda_lane *lane, struct cuda_unit *unit)
{
	unit->batch->device_private[2] = unit->batch;
	unit->awaited |= 1;
	for (uint32_t s = 0; s < dev->streams; s++)
		if (unit->awaited & 1u << s)
			(void)CU(dev, cuEventRecord, unit->ends[s], lane->copy[s]);
}

/* The next unit; returns how many copies it has. */
static uint32_t issue_one(struct cuda_device *dev, struct cuda_lane *lane)
{
	static cu_result (*const ways[TY_PATHS])(struct cuda_device *, struct cuda_lane *, struct cuda_unit *, const char **) = {
		[TY_PATH_STAGED] = issue_staged,
		[TY_PATH_DIRECT] = ty_cuda_issue_direct,
		[TY_PATH_BATCH] = ty_cuda_issue_batch,
		[TY_PATH_STRIDED] = ty_cuda_issue_strided,
	};
	struct cuda_unit *unit = unit_at(lane, lane->count);
	struct ty_batch *batch = lane->issuing;
	const char *call = "";
	cu_result result;

	/* not before its turn: what is known about the GPU may change while it waits */
	if (!lane->at.group && !lane->at.copy && !lane->at.block && !lane->at.plane)
		ty_cuda_plan_batch(dev, batch);
	unit->batch = batch;
	unit->path = ty_cuda_path_of(batch, lane->at.group);
	unit->awaited = 0;
	ty_device_count(&dev->base.stats.units[unit->path], 1);
	result = ways[unit->path](dev, lane, unit, &call);
	unit->last = lane->issuing != batch;
	lane->count++;
	lane->copies += unit->copies;
	if (result != CU_SUCCESS) {
		ty_cuda_poison(dev, call, result);
		mark_failed(dev, lane, unit);
	}
	return unit->copies;
}

static void issue(struct cuda_device *dev, struct cuda_lane *lane)
{
	uint32_t copies = 0;
	int64_t began = 0;

	for (unsigned i = 0; i < TY_CUDA_ISSUE && copies < TY_CUDA_UNIT_COPIES; i++) {
		if (dev->base.poisoned || !lane->issuing || lane->count == TY_CUDA_UNITS ||
			lane->copies + TY_CUDA_UNIT_COPIES > TY_CUDA_LANE_COPIES)
			break;
		if (!began)
			began = ty_device_clock();
		copies += issue_one(dev, lane);
	}
	if (began)
		ty_device_count(&dev->base.stats.submit_ns, (uint64_t)(ty_device_clock() - began));
}

enum ty_code ty_cuda_submit(struct ty_device *base, struct ty_batch *batch)
{
	struct cuda_device *dev = (struct cuda_device *)base;
	struct cuda_lane *lane = &dev->lanes[batch->direction];
	cu_result result;

	if (lane->queue.count >= TY_CUDA_QUEUE)
		return TY_BUSY;
	result = ty_cuda_use(&dev->api, dev->context);
	if (result != CU_SUCCESS) {
		ty_cuda_poison(dev, "cuCtxSetCurrent", result);
		return TY_DEVICE_FAILED;
	}
	batch->client_free = false;
	batch->code = TY_OK;
	batch->device_private[2] = NULL;
	ty_batch_push(&lane->queue, batch);
	if (!lane->issuing)
		lane->issuing = batch;
	issue(dev, lane);
	return TY_OK;
}

uint32_t ty_cuda_batch_limit(const struct ty_device *base, const struct ty_layout *layout)
{
	const struct cuda_device *dev = (const struct cuda_device *)base;
	uint64_t staging = dev->staging ? dev->slot_count * dev->tile_bytes : TY_CUDA_STAGING_DEFAULT;
	uint64_t chunks = staging / 2 / layout->chunk_bytes;

	return chunks < 1 ? 1 : chunks > TY_BATCH_CHUNKS ? TY_BATCH_CHUNKS : (uint32_t)chunks;
}

/* ---- completion ----------------------------------------------------------------------------- */

/* Is the event there? An error is an answer too: nothing of the context runs any more. */
bool ty_cuda_reached(struct cuda_device *dev, cu_event event)
{
	cu_result result = CU(dev, cuEventQuery, event);

	if (result != CU_SUCCESS && result != CU_NOT_READY)
		ty_cuda_poison(dev, "cuEventQuery", result);
	return result != CU_NOT_READY;
}

static void finish_batch(struct cuda_device *dev, struct cuda_lane *lane)
{
	struct ty_batch *batch = ty_batch_pop(&lane->queue);

	if (lane->issuing == batch)
		lane->issuing = lane->queue.first;
	batch->client_free = true;
	batch->code = dev->base.poisoned || batch->device_private[2] ? TY_DEVICE_FAILED : TY_OK;
	ty_batch_push(&dev->done, batch);
}

/* The oldest store whose last gather is still out: when that is done, nothing reads the client's blocks any more. */
static void free_clients(struct cuda_device *dev, struct cuda_lane *lane)
{
	for (uint32_t i = 0; i < lane->count; i++) {
		struct cuda_unit *unit = unit_at(lane, i);

		if (!unit->last || unit->batch->client_free)
			continue;
		if (!all_staged(unit->batch) || !ty_cuda_reached(dev, unit->middle))
			return;
		unit->batch->client_free = !dev->base.poisoned;
	}
}

static bool is_done(struct cuda_device *dev, struct cuda_unit *unit)
{
	for (uint32_t s = 0; s < dev->streams; s++)
		if (unit->awaited & 1u << s) {
			if (!ty_cuda_reached(dev, unit->ends[s]))
				return false;
			unit->awaited &= ~(1u << s);
		}
	return true;
}

static void retire(struct cuda_device *dev, struct cuda_lane *lane)
{
	while (lane->count && is_done(dev, unit_at(lane, 0))) {
		struct cuda_unit *unit = unit_at(lane, 0);

		for (uint32_t i = 0; i < dev->slot_count; i++)
			if (dev->slots[i].unit == unit)
				dev->slots[i].unit = NULL;
		lane->first = (lane->first + 1) % TY_CUDA_UNITS;
		lane->count--;
		lane->copies -= unit->copies;
		lane->watched = 0;
		if (unit->last)
			finish_batch(dev, lane);
	}
	/* nothing of a failed lane is out any more: the rest of its batches will not be issued */
	if (dev->base.poisoned && !lane->count)
		while (lane->queue.first)
			finish_batch(dev, lane);
}

uint32_t ty_cuda_poll(struct ty_device *base, struct ty_batch **done, uint32_t max)
{
	static const enum ty_direction order[2] = {TY_TO_DEVICE, TY_TO_HOST}; /* somebody waits for a retrieve */
	struct cuda_device *dev = (struct cuda_device *)base;
	uint32_t count = 0;

	if (dev->lanes[0].queue.first || dev->lanes[1].queue.first)
		ty_cuda_probe(dev);
	for (unsigned i = 0; i < 2; i++) {
		struct cuda_lane *lane = &dev->lanes[order[i]];
		cu_result result;

		if (!lane->queue.first)
			continue;
		result = ty_cuda_use(&dev->api, dev->context);
		if (result != CU_SUCCESS)
			ty_cuda_poison(dev, "cuCtxSetCurrent", result);
		retire(dev, lane);
		ty_cuda_watch(dev, lane);
		issue(dev, lane);
		if (order[i] == TY_TO_HOST)
			free_clients(dev, lane);
	}
	while (count < max && dev->done.first)
		done[count++] = ty_batch_pop(&dev->done);
	return count;
}
