/* SPDX-License-Identifier: Apache-2.0
 *
 * Chunks on their way. Nothing here waits: submit and poll issue a bounded number of units and look at the oldest events.
 *
 *   store, staged:     kernel stream: gather -> middle      copy stream: (middle) copies to the host -> end
 *   retrieve, staged:  copy stream: copies from the host -> middle      kernel stream: (middle) scatter -> end
 *   direct:            copy stream: copies -> end
 *
 * A tile's place in the ring is used again in stream order: the unit's first stream waits for the end of the last unit that lay
 * there. So several laps may be queued, and a poll that comes late leaves no gap on the link.
 */
#include "cuda_private.h"

#include <string.h>

/* device_private of a batch: [0] links the queue; [1] not null: a part of it goes directly; [2] not null: a call failed. */
static bool goes_directly(const struct ty_batch *batch)
{
	return batch->device_private[1] != NULL;
}

struct piece {
	uint8_t *host;
	uint64_t device;
	uint64_t bytes;
};

static struct cuda_unit *unit_at(struct cuda_lane *lane, uint32_t index)
{
	return &lane->units[(lane->first + index) % TY_CUDA_UNITS];
}

static const struct cuda_mapping *mapping_of(const struct ty_batch *batch)
{
	return (const struct cuda_mapping *)batch->mapping;
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

static void next_blocks(struct cuda_lane *lane, uint32_t blocks)
{
	struct cuda_cursor *at = &lane->at;

	at->plane = 0;
	at->block += blocks;
	if (at->block == lane->issuing->mapping->layout->groups[at->group].blocks_per_chunk)
		next_copy(lane);
}

static cu_result copy_piece(struct cuda_device *dev, struct cuda_lane *lane, enum ty_direction direction,
	const struct piece *piece)
{
	if (direction == TY_TO_HOST)
		return CU(dev, cuMemcpyDtoHAsync, piece->host, piece->device, piece->bytes, lane->copy);
	return CU(dev, cuMemcpyHtoDAsync, piece->device, piece->host, piece->bytes, lane->copy);
}

/* The copies of a unit, on the copy stream. On failure *call says what failed. */
static cu_result copy_pieces(struct cuda_device *dev, struct cuda_lane *lane, enum ty_direction direction,
	const struct piece *pieces, uint32_t count, const char **call)
{
	*call = direction == TY_TO_HOST ? "cuMemcpyDtoHAsync" : "cuMemcpyHtoDAsync";
	for (uint32_t i = 0; i < count; i++) {
		cu_result result = copy_piece(dev, lane, direction, &pieces[i]);

		if (result != CU_SUCCESS)
			return result;
	}
	ty_device_count(&dev->base.stats.copies, count);
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
	struct ty_gather_job *job, struct piece *pieces, uint64_t *tile_bytes)
{
	const struct cuda_mapping *m = mapping_of(batch);
	const uint32_t group = lane->at.group;
	const struct ty_layout_group *g = &m->base.layout->groups[group];
	const uint64_t block_bytes = (uint64_t)g->plane_count * g->run_bytes;
	uint32_t count = 0;

	job->planes = m->table + (g->first_plane + lane->at.plane) * sizeof(uint64_t);
	job->block_stride = g->block_stride;
	job->run_units = g->run_bytes / TY_GATHER_UNIT;
	job->block_limit = g->block_count;
	job->block_count = 0;
	*tile_bytes = 0;
	if (block_bytes > dev->tile_bytes) { /* some planes of one block */
		struct cuda_cursor *at = &lane->at;
		const struct ty_copy *copy = &batch->copies[at->copy];
		uint32_t fit = (uint32_t)(dev->tile_bytes / g->run_bytes), left = g->plane_count - at->plane;

		job->plane_count = fit < left ? fit : left;
		job->block_count = 1;
		job->blocks[0] = copy->blocks[g->first_block + at->block];
		*tile_bytes = (uint64_t)job->plane_count * g->run_bytes;
		pieces[0] = (struct piece){copy->host + g->tile_offset + at->block * block_bytes +
				(uint64_t)at->plane * g->run_bytes, 0, *tile_bytes};
		at->plane += job->plane_count;
		if (at->plane == g->plane_count)
			next_blocks(lane, 1);
		return 1;
	}
	job->plane_count = g->plane_count;
	while (lane->issuing == batch && lane->at.group == group && count < TY_CUDA_UNIT_COPIES) {
		const struct ty_copy *copy = &batch->copies[lane->at.copy];
		uint64_t fit = (dev->tile_bytes - *tile_bytes) / block_bytes;
		uint32_t blocks = g->blocks_per_chunk - lane->at.block;

		blocks = fit < blocks ? (uint32_t)fit : blocks;
		if (blocks > TY_GATHER_BLOCKS - job->block_count)
			blocks = TY_GATHER_BLOCKS - job->block_count;
		if (blocks == 0)
			break;
		memcpy(job->blocks + job->block_count, copy->blocks + g->first_block + lane->at.block,
			blocks * sizeof job->blocks[0]);
		pieces[count++] = (struct piece){copy->host + g->tile_offset + lane->at.block * block_bytes, *tile_bytes,
			blocks * block_bytes};
		job->block_count += blocks;
		*tile_bytes += blocks * block_bytes;
		next_blocks(lane, blocks);
	}
	return count;
}

/* A place in the ring for `bytes`; returns the newest unit in flight that lies (or lay) there, or null. */
static const struct cuda_unit *take_place(struct cuda_lane *lane, uint64_t bytes, uint64_t *begin)
{
	uint64_t size = (bytes + TY_CUDA_TILE_ALIGN - 1) / TY_CUDA_TILE_ALIGN * TY_CUDA_TILE_ALIGN;
	uint64_t in_lap = lane->ring_next % lane->ring_bytes;

	*begin = lane->ring_next;
	if (in_lap + size > lane->ring_bytes)
		*begin += lane->ring_bytes - in_lap;
	lane->ring_next = *begin + size;
	for (uint32_t i = lane->count; i > 0; i--) {
		const struct cuda_unit *u = unit_at(lane, i - 1);

		if (u->ring_end > u->ring_begin && u->ring_begin + lane->ring_bytes < *begin + size)
			return u;
	}
	return NULL;
}

static cu_result issue_staged(struct cuda_device *dev, struct cuda_lane *lane, struct cuda_unit *unit, const char **call)
{
	struct piece pieces[TY_CUDA_UNIT_COPIES];
	enum ty_direction direction = unit->batch->direction;
	cu_stream before = direction == TY_TO_HOST ? lane->kernel : lane->copy;
	cu_stream after = direction == TY_TO_HOST ? lane->copy : lane->kernel;
	const struct cuda_unit *there;
	struct ty_gather_job job;
	uint64_t bytes, begin;
	uint32_t count = fill_job(dev, lane, unit->batch, &job, pieces, &bytes);
	cu_result result = CU_SUCCESS;

	there = take_place(lane, bytes, &begin);
	unit->ring_begin = begin;
	unit->ring_end = lane->ring_next;
	unit->copies = count;
	job.tile = lane->ring + begin % lane->ring_bytes;
	for (uint32_t i = 0; i < count; i++)
		pieces[i].device += job.tile;
	*call = "cuStreamWaitEvent";
	if (there)
		result = CU(dev, cuStreamWaitEvent, before, there->end, 0);
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
		result = CU(dev, cuEventRecord, unit->end, after);
	}
	return result;
}

/* ---- direct units -------------------------------------------------------------------------- */

/* Runs from the cursor on, neighbours joined as far as they lie together on both sides, inside one chunk. */
static uint32_t collect_runs(struct cuda_lane *lane, const struct ty_batch *batch, struct piece *pieces)
{
	const struct cuda_mapping *m = mapping_of(batch);
	uint32_t group = lane->at.group, count = 0;
	const struct ty_layout_group *g = &m->base.layout->groups[group];
	const struct cuda_span *spans = m->spans + m->groups[group].first_span;
	const uint64_t block_bytes = (uint64_t)g->plane_count * g->run_bytes;

	while (lane->issuing == batch && lane->at.group == group) {
		struct cuda_cursor *at = &lane->at;
		const struct ty_copy *copy = &batch->copies[at->copy];
		const struct cuda_span *span = &spans[at->plane];
		uint32_t id = copy->blocks[g->first_block + at->block];

		if (id != TY_BLOCK_SKIP) {
			uint8_t *host = copy->host + g->tile_offset + at->block * block_bytes +
				(uint64_t)span->first * g->run_bytes;
			uint64_t device = m->planes[g->first_plane + span->first] + id * g->block_stride;
			struct piece *last = count ? &pieces[count - 1] : NULL;

			if (last && last->device + last->bytes == device && last->host + last->bytes == host &&
				(at->plane || at->block))
				last->bytes += span->bytes;
			else if (count == TY_CUDA_UNIT_COPIES)
				return count;
			else
				pieces[count++] = (struct piece){host, device, span->bytes};
		}
		if (++at->plane == m->groups[group].span_count)
			next_blocks(lane, 1);
	}
	return count;
}

static cu_result issue_direct(struct cuda_device *dev, struct cuda_lane *lane, struct cuda_unit *unit, const char **call)
{
	struct piece pieces[TY_CUDA_UNIT_COPIES];
	uint32_t count = collect_runs(lane, unit->batch, pieces);
	cu_result result;

	unit->ring_begin = unit->ring_end = 0;
	unit->copies = count;
	result = copy_pieces(dev, lane, unit->batch->direction, pieces, count, call);
	if (result == CU_SUCCESS) {
		*call = "cuEventRecord";
		result = CU(dev, cuEventRecord, unit->end, lane->copy);
	}
	return result;
}

/* ---- issuing -------------------------------------------------------------------------------- */

/* The next unit; returns how many copies it has. */
static uint32_t issue_one(struct cuda_device *dev, struct cuda_lane *lane)
{
	struct cuda_unit *unit = unit_at(lane, lane->count);
	struct ty_batch *batch = lane->issuing;
	const char *call = "";
	cu_result result;

	unit->batch = batch;
	if (mapping_of(batch)->groups[lane->at.group].direct)
		result = issue_direct(dev, lane, unit, &call);
	else
		result = issue_staged(dev, lane, unit, &call);
	unit->last = lane->issuing != batch;
	lane->count++;
	lane->copies += unit->copies;
	if (result == CU_SUCCESS)
		return unit->copies;
	/* Part of the unit may be queued: mark its end if that can still be done, so that its memory is not given back early. */
	batch->device_private[2] = batch;
	ty_cuda_poison(dev, call, result);
	(void)CU(dev, cuEventRecord, unit->end, lane->copy);
	return unit->copies;
}

static void issue(struct cuda_device *dev, struct cuda_lane *lane)
{
	uint32_t copies = 0;

	for (unsigned i = 0; i < TY_CUDA_ISSUE && copies < TY_CUDA_UNIT_COPIES; i++) {
		if (dev->base.poisoned || !lane->issuing || lane->count == TY_CUDA_UNITS ||
			lane->copies + TY_CUDA_UNIT_COPIES > TY_CUDA_LANE_COPIES)
			return;
		copies += issue_one(dev, lane);
	}
}

enum ty_code ty_cuda_submit(struct ty_device *base, struct ty_batch *batch)
{
	struct cuda_device *dev = (struct cuda_device *)base;
	struct cuda_lane *lane = &dev->lanes[batch->direction];
	const struct cuda_mapping *m = mapping_of(batch);
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
	batch->device_private[1] = batch->device_private[2] = NULL;
	for (uint32_t i = 0; i < m->base.layout->group_count; i++)
		if (m->groups[i].direct)
			batch->device_private[1] = batch;
	ty_batch_push(&lane->queue, batch);
	if (!lane->issuing)
		lane->issuing = batch;
	issue(dev, lane);
	return TY_OK;
}

uint32_t ty_cuda_batch_limit(const struct ty_device *base, const struct ty_layout *layout)
{
	const struct cuda_device *dev = (const struct cuda_device *)base;
	uint64_t chunks = (dev->staging ? dev->lanes[0].ring_bytes : TY_CUDA_STAGING_DEFAULT / 2) / layout->chunk_bytes;

	return chunks < 1 ? 1 : chunks > TY_CUDA_BATCH_CHUNKS ? TY_CUDA_BATCH_CHUNKS : (uint32_t)chunks;
}

/* ---- completion ----------------------------------------------------------------------------- */

/* Is the event there? An error is an answer too: nothing of the context runs any more. */
static bool reached(struct cuda_device *dev, cu_event event)
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
		if (goes_directly(unit->batch) || !reached(dev, unit->middle))
			return;
		unit->batch->client_free = !dev->base.poisoned;
	}
}

static void retire(struct cuda_device *dev, struct cuda_lane *lane)
{
	while (lane->count && reached(dev, unit_at(lane, 0)->end)) {
		struct cuda_unit *unit = unit_at(lane, 0);

		lane->first = (lane->first + 1) % TY_CUDA_UNITS;
		lane->count--;
		lane->copies -= unit->copies;
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

	for (unsigned i = 0; i < 2; i++) {
		struct cuda_lane *lane = &dev->lanes[order[i]];
		cu_result result;

		if (!lane->queue.first)
			continue;
		result = ty_cuda_use(&dev->api, dev->context);
		if (result != CU_SUCCESS)
			ty_cuda_poison(dev, "cuCtxSetCurrent", result);
		retire(dev, lane);
		issue(dev, lane);
		if (order[i] == TY_TO_HOST)
			free_clients(dev, lane);
	}
	while (count < max && dev->done.first)
		done[count++] = ty_batch_pop(&dev->done);
	return count;
}
