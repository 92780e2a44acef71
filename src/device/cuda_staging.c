/* SPDX-License-Identifier: Apache-2.0
 *
 * Chunks through staging memory: a kernel gathers or scatters, the copy engine takes whole chunks over the link.
 *
 *   store:     kernel stream: gather -> middle      copy stream: (middle) copies to the host -> end
 *   retrieve:  copy stream: copies from the host -> middle      kernel stream: (middle) scatter -> end
 *
 * Staging is cut into slots, which both lanes share; a unit takes one, or some that adjoin. They are used again in stream order: the
 * unit's first stream waits for the ends of the last units that lay there. So more may be queued than there is room for, and a poll
 * that comes late leaves no gap on the link. Units may take copy streams in turn; a lane's kernels are one after the other.
 *
 * How much a unit takes is a compromise of three:
 *   - the GPU is ours: much, for each unit costs the processor what it costs;
 *   - an engine is at work: a kernel waits for a time slice, and what lies in staging must last the link until then. All that is
 *     ready is gathered in one slice, so small units, which fill the slots whole;
 *   - one operation alone: what the kernel does not overlap with a copy is latency. The first part of a store and the last of a
 *     retrieve are small.
 */
#include "cuda_private.h"

#include <string.h>

#define TAIL ((uint64_t)4 << 20) /* of one operation: what is gathered before its first copy, or scattered after its last */

/* ---- the memory --------------------------------------------------------------------------- */

/* Into slots. */
static void cut(struct cuda_device *dev, uint64_t bytes)
{
	const uint64_t tile = dev->tile_wanted;
	const uint32_t least = dev->tile_given ? 2 : dev->in_process ? 4 : TY_CUDA_SLOTS_LEAST;

	dev->slot_bytes = tile ? tile : TY_CUDA_SLOT_DEFAULT;
	if (dev->slot_bytes > bytes / least)
		dev->slot_bytes = bytes / least;
	if (dev->slot_bytes < bytes / TY_CUDA_SLOTS && !tile)
		dev->slot_bytes = bytes / TY_CUDA_SLOTS;
	if (dev->slot_bytes > (uint64_t)TY_GATHER_UNITS_MAX * TY_GATHER_UNIT / TY_CUDA_SLOTS)
		dev->slot_bytes = (uint64_t)TY_GATHER_UNITS_MAX * TY_GATHER_UNIT / TY_CUDA_SLOTS;
	dev->slot_bytes = dev->slot_bytes / TY_CUDA_TILE_ALIGN * TY_CUDA_TILE_ALIGN;
	dev->slot_count = (uint32_t)(bytes / dev->slot_bytes < TY_CUDA_SLOTS ? bytes / dev->slot_bytes : TY_CUDA_SLOTS);
	dev->batch_bytes = dev->slot_count * dev->slot_bytes;
}

enum ty_code ty_cuda_plan_staging(struct cuda_device *dev, const struct ty_device_options *options, struct ty_error *err)
{
	const uint64_t usual = dev->in_process && !options->tile_bytes ? TY_CUDA_STAGING_WITHIN : TY_CUDA_STAGING_DEFAULT;

	dev->staging_wanted = options->staging_bytes ? options->staging_bytes : usual;
	dev->tile_wanted = options->tile_bytes ? options->tile_bytes : dev->in_process ? TY_CUDA_SLOT_WITHIN : 0;
	dev->tile_given = options->tile_bytes != 0;
	if (dev->staging_wanted < TY_CUDA_STAGING_LEAST)
		return ty_fail(err, TY_INVALID, "staging: %llu bytes, expected at least %llu", (unsigned long long)dev->staging_wanted,
			(unsigned long long)TY_CUDA_STAGING_LEAST);
	if (dev->tile_given && dev->tile_wanted < TY_CUDA_TILE_LEAST)
		return ty_fail(err, TY_INVALID, "tile: %llu bytes, expected at least %llu", (unsigned long long)dev->tile_wanted,
			(unsigned long long)TY_CUDA_TILE_LEAST);
	dev->unit_slots[0] = dev->tile_given ? 1 : dev->in_process ? 2 : TY_CUDA_SLOTS;
	dev->unit_slots[1] = dev->tile_wanted ? 1 : TY_CUDA_BOTH_SLOTS;
	dev->keep_tiles = dev->tile_given ? options->keep_tiles : dev->in_process;
	cut(dev, dev->staging_wanted);
	return TY_OK;
}

enum ty_code ty_cuda_take_staging(struct cuda_device *dev, struct ty_error *err)
{
	uint64_t bytes;
	cu_result result;

	for (bytes = dev->staging_wanted;; bytes = bytes / 2 < TY_CUDA_STAGING_LEAST ? TY_CUDA_STAGING_LEAST : bytes / 2) {
		result = CU(dev, cuMemAlloc, &dev->staging, bytes);
		if (result != CU_OUT_OF_MEMORY || bytes == TY_CUDA_STAGING_LEAST)
			break;
	}
	if (result != CU_SUCCESS) {
		dev->staging = 0;
		if (ty_cuda_sticky(result))
			ty_cuda_poison(dev, "cuMemAlloc", result);
		return ty_fail(err, result == CU_OUT_OF_MEMORY ? TY_NO_MEMORY : TY_DEVICE_FAILED,
			"staging: %llu bytes of GPU memory cannot be had, nor %llu: %s (%d)", (unsigned long long)dev->staging_wanted,
			(unsigned long long)TY_CUDA_STAGING_LEAST, ty_cuda_error_name(&dev->api, result), result);
	}
	dev->staging_bytes = bytes;
	ty_device_count(&dev->base.stats.device_bytes, bytes);
	cut(dev, bytes);
	return TY_OK;
}

void ty_cuda_give_staging(struct cuda_device *dev)
{
	cu_result result = CU(dev, cuMemFree, dev->staging);

	ty_device_count(&dev->base.stats.device_bytes, -dev->staging_bytes);
	dev->staging = 0;
	dev->staging_bytes = 0;
	cut(dev, dev->staging_wanted);
	if (result != CU_SUCCESS)
		ty_cuda_poison(dev, "cuMemFree of staging", result);
}

/* ---- slots -------------------------------------------------------------------------------- */

/* As long as both lanes have work each has half of the slots; one alone takes all. Among places for `count` the one whose newest unit
 * is the oldest. */
static uint32_t take_slots(const struct cuda_device *dev, enum ty_direction direction, uint32_t count)
{
	const bool both = dev->lanes[!direction].queue.first;
	const uint32_t half = dev->slot_count / 2, first = both && direction == TY_TO_DEVICE ? half : 0;
	const uint32_t end = both && direction == TY_TO_HOST ? half : dev->slot_count;
	uint32_t best = first;
	uint64_t oldest = UINT64_MAX;

	for (uint32_t at = first; at + count <= end; at++) {
		uint64_t newest = 0;

		for (uint32_t i = at; i < at + count; i++)
			if (dev->slots[i].unit && dev->slots[i].used > newest)
				newest = dev->slots[i].used;
		if (newest < oldest) {
			oldest = newest;
			best = at;
		}
	}
	return best;
}

/* Let `stream` wait for all who lie in the slots. */
static cu_result wait_for_slots(struct cuda_device *dev, uint32_t first, uint32_t count, cu_stream stream)
{
	cu_result result = CU_SUCCESS;

	for (uint32_t i = first; i < first + count && result == CU_SUCCESS; i++) {
		const struct cuda_unit *unit = dev->slots[i].unit;

		/* a unit's slots adjoin */
		if (unit && (i == first || unit != dev->slots[i - 1].unit))
			result = CU(dev, cuStreamWaitEvent, stream, unit->ends[0], 0);
	}
	return result;
}

void ty_cuda_leave_slots(struct cuda_device *dev, const struct cuda_unit *unit)
{
	for (uint32_t i = 0; i < dev->slot_count; i++)
		if (dev->slots[i].unit == unit)
			dev->slots[i].unit = NULL;
}

/* ---- how much ------------------------------------------------------------------------------- */

/* What of the batch is still to be issued, when it has one group. */
static uint64_t bytes_left(const struct cuda_lane *lane, const struct ty_batch *batch)
{
	const struct ty_layout_group *g = &batch->mapping->layout->groups[0];
	const struct cuda_cursor *at = &lane->at;

	return (batch->count - at->copy) * g->tile_bytes -
		((uint64_t)at->block * g->plane_count + at->plane) * g->run_bytes;
}

static uint64_t unit_bytes(const struct cuda_device *dev, struct cuda_lane *lane, const struct ty_batch *batch)
{
	const struct ty_layout *layout = batch->mapping->layout;
	const bool both = dev->lanes[!batch->direction].queue.first;
	const uint32_t share = both ? dev->slot_count / 2 : dev->slot_count;
	uint32_t slots = dev->engine.busy ? 1 : dev->unit_slots[both];
	uint64_t most, left;

	/* two units at least, so that they overlap */
	slots = slots > share / 2 ? share / 2 : slots;
	most = (slots ? slots : 1) * dev->slot_bytes;
	if (dev->engine.busy || layout->group_count > 1)
		return most;
	left = bytes_left(lane, batch);
	/* of an odd number one takes what the other leaves, where they would be three else */
	if (!dev->tile_given && slots == share / 2 && share % 2 && left > 2 * most)
		most += dev->slot_bytes;
	if (lane->queue.count > 1)
		return most;
	if (batch->direction == TY_TO_DEVICE && left > TAIL && left - TAIL < most)
		return left - TAIL;
	if (batch->direction == TY_TO_HOST && !lane->at.copy && !lane->at.block && !lane->at.plane && left > TAIL && TAIL < most)
		return TAIL;
	return most;
}

/* ---- a unit --------------------------------------------------------------------------------- */

/* Some planes of the block at the cursor, for a block that is larger than a unit. */
static uint32_t fill_planes(struct cuda_lane *lane, const struct ty_batch *batch, uint64_t most, struct ty_gather_job *job,
	struct cuda_piece *pieces)
{
	const struct ty_layout_group *g = &batch->mapping->layout->groups[lane->at.group];
	const uint64_t block_bytes = (uint64_t)g->plane_count * g->run_bytes;
	struct cuda_cursor *at = &lane->at;
	const struct ty_copy *copy = &batch->copies[at->copy];
	uint32_t fit = (uint32_t)(most / g->run_bytes), left = g->plane_count - at->plane;

	job->plane_count = fit < left ? fit : left;
	job->block_count = 1;
	job->blocks[0] = copy->blocks[g->first_block + at->block];
	pieces[0] = (struct cuda_piece){copy->host + g->tile_offset + at->block * block_bytes + (uint64_t)at->plane * g->run_bytes, 0,
		(uint64_t)job->plane_count * g->run_bytes};
	at->plane += job->plane_count;
	if (at->plane == g->plane_count)
		ty_cuda_next_blocks(lane, 1);
	return 1;
}

/* Does host memory go on behind `last`, in the same piece of what is registered? In staging it does anyhow. */
static bool goes_on(const struct cuda_device *dev, const struct cuda_piece *last, const uint8_t *host, uint64_t bytes)
{
	const uint64_t first = (uintptr_t)last->host - dev->host_phase, end = (uintptr_t)host + bytes - 1 - dev->host_phase;

	return host == last->host + last->bytes && dev->host_piece && first / dev->host_piece == end / dev->host_piece;
}

/* Blocks from the cursor on, at most `most` bytes of them; moves the cursor. Returns how many copies they are. */
static uint32_t fill_job(const struct cuda_device *dev, struct cuda_lane *lane, const struct ty_batch *batch, uint64_t most,
	struct ty_gather_job *job, struct cuda_piece *pieces)
{
	const struct cuda_mapping *m = ty_cuda_mapping(batch);
	const uint32_t group = lane->at.group;
	const struct ty_layout_group *g = &m->base.layout->groups[group];
	const uint64_t block_bytes = (uint64_t)g->plane_count * g->run_bytes;
	uint64_t bytes = 0;
	uint32_t count = 0;

	most = most < g->run_bytes ? g->run_bytes : most;
	job->planes = m->table + (g->first_plane + lane->at.plane) * sizeof(uint64_t);
	job->block_stride = g->block_stride;
	job->run_units = g->run_bytes / TY_GATHER_UNIT;
	job->block_limit = g->block_count;
	job->block_count = job->unused = 0;
	if (lane->at.plane || block_bytes > most)
		return fill_planes(lane, batch, most, job, pieces);
	job->plane_count = g->plane_count;
	while (lane->issuing == batch && lane->at.group == group && count < TY_CUDA_UNIT_COPIES) {
		const struct ty_copy *copy = &batch->copies[lane->at.copy];
		uint8_t *host = copy->host + g->tile_offset + lane->at.block * block_bytes;
		uint64_t fit = (most - bytes) / block_bytes;
		uint32_t blocks = g->blocks_per_chunk - lane->at.block;

		blocks = fit < blocks ? (uint32_t)fit : blocks;
		if (blocks > TY_GATHER_BLOCKS - job->block_count)
			blocks = TY_GATHER_BLOCKS - job->block_count;
		if (blocks == 0)
			break;
		memcpy(job->blocks + job->block_count, copy->blocks + g->first_block + lane->at.block,
			blocks * sizeof job->blocks[0]);
		if (count && goes_on(dev, &pieces[count - 1], host, blocks * block_bytes))
			pieces[count - 1].bytes += blocks * block_bytes;
		else
			pieces[count++] = (struct cuda_piece){host, bytes, blocks * block_bytes};
		job->block_count += blocks;
		bytes += blocks * block_bytes;
		ty_cuda_next_blocks(lane, blocks);
	}
	return count;
}

/* What travels to a kernel costs as it goes: few blocks go in few parameters. */
static cu_result launch(struct cuda_device *dev, struct cuda_lane *lane, enum ty_direction direction,
	struct ty_gather_job *job, const char **call)
{
	uint64_t each = TY_KERNEL_THREADS * TY_KERNEL_UNITS_EACH, grid = (ty_gather_units(job) + each - 1) / each;
	cu_function *functions = direction == TY_TO_HOST ? dev->gathers : dev->scatters;
	void *parameters[] = {job};

	*call = "cuLaunchKernel";
	ty_device_count(&dev->base.stats.launches, 1);
	return CU(dev, cuLaunchKernel, functions[job->block_count <= TY_GATHER_FEW],
		(unsigned)(grid < dev->grid_max ? grid : dev->grid_max), 1, 1, TY_KERNEL_THREADS, 1, 1, 0, lane->kernel,
		parameters, NULL);
}

/* Each chunk's part of the unit. A call costs the owner 2 to 3 us, one more copy of a batch 0.4. */
static cu_result copy_pieces(struct cuda_device *dev, cu_stream stream, enum ty_direction direction, const struct cuda_piece *pieces,
	uint32_t count, const char **call)
{
	if (count > 2 && ty_cuda_batches(dev))
		return ty_cuda_copy_all(dev, stream, direction, pieces, count, call);
	for (uint32_t i = 0; i < count; i++) {
		cu_result result = ty_cuda_copy(dev, stream, direction, &pieces[i], call);

		if (result != CU_SUCCESS)
			return result;
	}
	return CU_SUCCESS;
}

/* Where the unit lies; its job and pieces then name the memory. */
static cu_result place(struct cuda_device *dev, struct cuda_unit *unit, cu_stream before, struct ty_gather_job *job,
	struct cuda_piece *pieces, uint32_t count)
{
	enum ty_direction direction = unit->batch->direction;
	uint64_t bytes = ty_gather_units(job) * TY_GATHER_UNIT;
	uint32_t slots = (uint32_t)((bytes + dev->slot_bytes - 1) / dev->slot_bytes);
	uint32_t first = take_slots(dev, direction, slots);
	cu_result result = wait_for_slots(dev, first, slots, before);

	unit->bytes = bytes;
	dev->slot_uses++;
	for (uint32_t i = first; i < first + slots; i++) {
		dev->slots[i].unit = unit;
		dev->slots[i].direction = direction;
		dev->slots[i].used = dev->slot_uses;
	}
	job->tile = dev->staging + first * dev->slot_bytes;
	job->keep = dev->keep_tiles;
	for (uint32_t i = 0; i < count; i++)
		pieces[i].device += job->tile;
	return result;
}

/* Within an engine's process a second stream lowers the engine's step beside stores, and with both directions at work it raises the rate.
 * Beside retrieves alone it does neither, and they are slower by half a percent (docs/embed.md). */
static uint32_t streams_in_turn(const struct cuda_device *dev, enum ty_direction direction)
{
	return direction == TY_TO_DEVICE && dev->one_for_retrieves && !dev->lanes[TY_TO_HOST].queue.first ? 1 : dev->streams[TY_PATH_STAGED];
}

cu_result ty_cuda_issue_staged(struct cuda_device *dev, struct cuda_lane *lane, struct cuda_unit *unit, const char **call)
{
	struct cuda_piece pieces[TY_CUDA_UNIT_COPIES];
	enum ty_direction direction = unit->batch->direction;
	cu_stream copy = lane->copy[lane->staged_turn];
	cu_stream before = direction == TY_TO_HOST ? lane->kernel : copy, after = direction == TY_TO_HOST ? copy : lane->kernel;
	struct ty_gather_job job;
	uint32_t count = fill_job(dev, lane, unit->batch, unit_bytes(dev, lane, unit->batch), &job, pieces);
	cu_result result;

	unit->awaited = 1;
	unit->copies = count;
	unit->stream = lane->staged_turn;
	lane->staged_turn = (lane->staged_turn + 1) % streams_in_turn(dev, direction);
	*call = "cuStreamWaitEvent";
	result = place(dev, unit, before, &job, pieces, count);
	if (result == CU_SUCCESS)
		result = direction == TY_TO_HOST ? launch(dev, lane, direction, &job, call)
						 : copy_pieces(dev, copy, direction, pieces, count, call);
	if (result == CU_SUCCESS) {
		*call = "cuEventRecord";
		result = CU(dev, cuEventRecord, unit->middle, before);
	}
	if (result == CU_SUCCESS) {
		*call = "cuStreamWaitEvent";
		result = CU(dev, cuStreamWaitEvent, after, unit->middle, 0);
	}
	if (result == CU_SUCCESS)
		result = direction == TY_TO_DEVICE ? launch(dev, lane, direction, &job, call)
						   : copy_pieces(dev, copy, direction, pieces, count, call);
	if (result == CU_SUCCESS) {
		*call = "cuEventRecord";
		result = CU(dev, cuEventRecord, unit->ends[0], after);
	}
	return result;
}
