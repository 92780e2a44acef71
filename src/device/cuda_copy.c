/* SPDX-License-Identifier: Apache-2.0
 *
 * Chunks on their way. Nothing here waits: submit and poll issue a bounded number of units and look at the oldest events.
 *
 *   staged:            cuda_staging.c
 *   without a kernel:  copy streams in turn: copies -> an end on each (cuda_runs.c)
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

/* ---- issuing -------------------------------------------------------------------------------- */

/* Part of a unit may be queued: mark its ends, so that its memory is not given back early. A staged one's is behind both of its streams,
 * whichever of its calls it was that failed. */
static void mark_failed(struct cuda_device *dev, struct cuda_lane *lane, struct cuda_unit *unit)
{
	cu_result result = CU_SUCCESS;

	if (unit->path == TY_PATH_STAGED) {
		result = CU(dev, cuEventRecord, unit->middle, lane->kernel);
		if (result == CU_SUCCESS)
			result = CU(dev, cuStreamWaitEvent, lane->copy[unit->stream], unit->middle, 0);
		if (result == CU_SUCCESS)
			result = CU(dev, cuEventRecord, unit->ends[0], lane->copy[unit->stream]);
	}
	for (uint32_t s = 0; s < dev->stream_count && unit->path != TY_PATH_STAGED && result == CU_SUCCESS; s++)
		if (unit->awaited & 1u << s)
			result = CU(dev, cuEventRecord, unit->ends[s], lane->copy[s]);
	unit->unmarked = result != CU_SUCCESS && !ty_cuda_gone(result);
}

/* The next unit; returns how many copies it has. */
static uint32_t issue_one(struct cuda_device *dev, struct cuda_lane *lane)
{
	static cu_result (*const ways[TY_PATHS])(struct cuda_device *, struct cuda_lane *, struct cuda_unit *, const char **) = {
		[TY_PATH_STAGED] = ty_cuda_issue_staged,
		[TY_PATH_DIRECT] = ty_cuda_issue_direct,
		[TY_PATH_BATCH] = ty_cuda_issue_batch,
		[TY_PATH_STRIDED] = ty_cuda_issue_strided,
	};
	struct cuda_unit *unit = ty_cuda_unit_at(lane, lane->count);
	struct ty_batch *batch = lane->issuing;
	const char *call = "";
	cu_result result;

	/* not before its turn: what is known about the GPU may change while it waits */
	if (!lane->at.group && !lane->at.copy && !lane->at.block && !lane->at.plane)
		ty_cuda_plan_batch(dev, batch);
	unit->batch = batch;
	unit->path = ty_cuda_path_of(batch, lane->at.group);
	unit->awaited = 0;
	unit->unmarked = false;
	ty_device_count(&dev->base.stats.units[unit->path], 1);
	result = ways[unit->path](dev, lane, unit, &call);
	unit->last = lane->issuing != batch;
	lane->count++;
	lane->copies += unit->copies;
	if (result != CU_SUCCESS) {
		ty_cuda_poison(dev, call, result);
		batch->device_private[2] = batch;
		unit->awaited |= 1;
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
			began = dev->base.now;
		copies += issue_one(dev, lane);
	}
	if (began)
		ty_device_count(&dev->base.stats.submit_ns, (uint64_t)(dev->base.now - began));
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
	uint64_t chunks = dev->batch_bytes / 2 / layout->chunk_bytes;

	return chunks < 1 ? 1 : chunks > TY_BATCH_CHUNKS ? TY_BATCH_CHUNKS : (uint32_t)chunks;
}

/* ---- completion ----------------------------------------------------------------------------- */

/* Is the event there? That the context is gone is an answer too; any other error is none. */
bool ty_cuda_reached(struct cuda_device *dev, cu_event event)
{
	cu_result result = CU(dev, cuEventQuery, event);

	if (result != CU_SUCCESS && result != CU_NOT_READY)
		ty_cuda_poison(dev, "cuEventQuery", result);
	return result == CU_SUCCESS || ty_cuda_gone(result);
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
		struct cuda_unit *unit = ty_cuda_unit_at(lane, i);

		if (!unit->last || unit->batch->client_free)
			continue;
		if (!all_staged(unit->batch) || !ty_cuda_reached(dev, unit->middle))
			return;
		unit->batch->client_free = !dev->base.poisoned;
	}
}

static bool is_done(struct cuda_device *dev, struct cuda_lane *lane, struct cuda_unit *unit)
{
	if (unit->unmarked)
		mark_failed(dev, lane, unit);
	if (unit->unmarked)
		return false;
	for (uint32_t s = 0; s < dev->stream_count; s++)
		if (unit->awaited & 1u << s) {
			if (!ty_cuda_reached(dev, unit->ends[s]))
				return false;
			unit->awaited &= ~(1u << s);
		}
	return true;
}

static void retire(struct cuda_device *dev, struct cuda_lane *lane)
{
	while (lane->count && is_done(dev, lane, ty_cuda_unit_at(lane, 0))) {
		struct cuda_unit *unit = ty_cuda_unit_at(lane, 0);

		ty_cuda_leave_slots(dev, unit);
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
