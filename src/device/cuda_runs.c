/* SPDX-License-Identifier: Apache-2.0
 *
 * Chunks without a kernel: run by run, many runs a call, or rows at a pitch. Strided copies go over the lane's streams in turn, which
 * hides the start of one behind the end of another; a unit is done when the last of each stream it used is.
 */
#include "cuda_private.h"

struct rows {
	struct cuda_piece piece; /* the first row */
	uint64_t pitch;
	uint32_t count;
};

static cu_stream take_stream(struct cuda_device *dev, struct cuda_lane *lane, struct cuda_unit *unit)
{
	uint32_t turn = lane->turn % dev->streams[unit->path];

	lane->turn = turn + 1;
	unit->awaited |= 1u << turn;
	return lane->copy[turn];
}

/* A unit of nothing but skipped blocks has an end too. */
static cu_result mark_ends(struct cuda_device *dev, struct cuda_lane *lane, struct cuda_unit *unit, const char **call)
{
	cu_result result = CU_SUCCESS;

	if (!unit->awaited)
		unit->awaited = 1;
	*call = "cuEventRecord";
	for (uint32_t s = 0; s < dev->stream_count && result == CU_SUCCESS; s++)
		if (unit->awaited & 1u << s)
			result = CU(dev, cuEventRecord, unit->ends[s], lane->copy[s]);
	return result;
}

/* Where a row of the block at the cursor lies; false: it is skipped. */
static bool place(const struct cuda_lane *lane, const struct ty_batch *batch, const struct ty_span *span, struct cuda_piece *out)
{
	const struct cuda_cursor *at = &lane->at;
	const struct ty_layout_group *g = &batch->mapping->layout->groups[at->group];
	const struct ty_copy *copy = &batch->copies[at->copy];
	uint32_t id = copy->blocks[g->first_block + at->block];

	if (id == TY_BLOCK_SKIP)
		return false;
	out->host = copy->host + g->tile_offset + ((uint64_t)at->block * g->plane_count + span->first) * g->run_bytes;
	out->device = ty_cuda_mapping(batch)->planes[g->first_plane + span->first] + id * g->block_stride;
	out->bytes = span->bytes;
	return true;
}

/* Runs from the cursor on, neighbours joined as far as they lie together on both sides, inside one chunk: the next chunk's slot may
 * lie in a piece of memory of its own. Of one block they were joined before (ty_plan_join), unless they are of two allocations: the driver
 * takes no copy that crosses from one to the other. */
static uint32_t collect_runs(struct cuda_lane *lane, const struct ty_batch *batch, struct cuda_piece *pieces, uint32_t max)
{
	const uint32_t group = lane->at.group;
	const struct cuda_group *g = &ty_cuda_mapping(batch)->groups[group];
	uint32_t count = 0;

	while (lane->issuing == batch && lane->at.group == group) {
		struct cuda_cursor *at = &lane->at;
		struct cuda_piece *last = count ? &pieces[count - 1] : NULL, piece;

		if (place(lane, batch, &g->rows[at->plane], &piece)) {
			if (last && !at->plane && at->block && g->joins && last->device + last->bytes == piece.device &&
				last->host + last->bytes == piece.host)
				last->bytes += piece.bytes;
			else if (count == max)
				return count;
			else
				pieces[count++] = piece;
		}
		if (++at->plane == g->shape.runs)
			ty_cuda_next_blocks(lane, 1);
	}
	return count;
}

cu_result ty_cuda_issue_direct(struct cuda_device *dev, struct cuda_lane *lane, struct cuda_unit *unit, const char **call)
{
	struct cuda_piece pieces[TY_CUDA_UNIT_COPIES];
	enum ty_direction direction = unit->batch->direction;

	unit->copies = collect_runs(lane, unit->batch, pieces, TY_CUDA_UNIT_COPIES);
	for (uint32_t i = 0; i < unit->copies; i++) {
		cu_result result = ty_cuda_copy(dev, take_stream(dev, lane, unit), direction, &pieces[i], call);

		if (result != CU_SUCCESS)
			return result;
	}
	return mark_ends(dev, lane, unit, call);
}

cu_result ty_cuda_copy_all(struct cuda_device *dev, cu_stream stream, enum ty_direction direction, const struct cuda_piece *pieces,
	uint32_t count, const char **call)
{
	cu_address device[TY_CUDA_BATCH_COPIES], host[TY_CUDA_BATCH_COPIES];
	size_t bytes[TY_CUDA_BATCH_COPIES], first = 0, failed = 0;
	struct cu_batch_attributes attributes = {.order = CU_ORDER_STREAM};
	bool to_host = direction == TY_TO_HOST;

	for (uint32_t i = 0; i < count; i++) {
		device[i] = pieces[i].device;
		host[i] = (uintptr_t)pieces[i].host;
		bytes[i] = pieces[i].bytes;
	}
	ty_device_count(&dev->base.stats.copies, 1);
	if (dev->api.cuMemcpyBatchAsync_v2) {
		*call = "cuMemcpyBatchAsync_v2";
		return CU(dev, cuMemcpyBatchAsync_v2, to_host ? host : device, to_host ? device : host, bytes, count,
			&attributes, &first, 1, stream);
	}
	*call = "cuMemcpyBatchAsync";
	return CU(dev, cuMemcpyBatchAsync, to_host ? host : device, to_host ? device : host, bytes, count,
		&attributes, &first, 1, &failed, stream);
}

cu_result ty_cuda_issue_batch(struct cuda_device *dev, struct cuda_lane *lane, struct cuda_unit *unit, const char **call)
{
	struct cuda_piece pieces[TY_CUDA_BATCH_COPIES];
	enum ty_direction direction = unit->batch->direction;
	const bool idle = !lane->count; /* the link waits for this call */
	uint32_t count = collect_runs(lane, unit->batch, pieces, idle ? TY_CUDA_FIRST_COPIES : TY_CUDA_BATCH_COPIES), first = 0;
	cu_result result = CU_SUCCESS;
	cu_stream stream;

	unit->copies = (count + TY_CUDA_BATCH_WEIGHT - 1) / TY_CUDA_BATCH_WEIGHT;
	if (!count)
		return mark_ends(dev, lane, unit, call);
	stream = take_stream(dev, lane, unit);
	if (idle && count > 1 && pieces[0].bytes >= TY_CUDA_FIRST_BYTES) {
		first = 1;
		result = ty_cuda_copy(dev, stream, direction, &pieces[0], call);
	}
	if (result == CU_SUCCESS)
		result = ty_cuda_copy_all(dev, stream, direction, pieces + first, count - first, call);
	return result == CU_SUCCESS ? mark_ends(dev, lane, unit, call) : result;
}

static uint32_t collect_rows(struct cuda_lane *lane, const struct ty_batch *batch, struct rows *out)
{
	const uint32_t group = lane->at.group;
	const struct cuda_group *g = &ty_cuda_mapping(batch)->groups[group];
	uint32_t count = 0;

	while (lane->issuing == batch && lane->at.group == group && count < TY_CUDA_UNIT_COPIES) {
		const struct ty_span *span = &g->spans[lane->at.plane];

		if (place(lane, batch, span, &out[count].piece)) {
			out[count].pitch = span->pitch;
			out[count++].count = span->rows;
		}
		if (++lane->at.plane == g->shape.spans)
			ty_cuda_next_blocks(lane, 1);
	}
	return count;
}

static cu_result copy_rows(struct cuda_device *dev, cu_stream stream, enum ty_direction direction, const struct rows *rows,
	const char **call)
{
	struct cu_copy_2d copy = {.width = rows->piece.bytes, .rows = rows->count};

	if (rows->count == 1)
		return ty_cuda_copy(dev, stream, direction, &rows->piece, call);
	if (direction == TY_TO_HOST) {
		copy.from_type = CU_MEMORY_DEVICE;
		copy.from_device = rows->piece.device;
		copy.from_pitch = rows->pitch;
		copy.to_type = CU_MEMORY_HOST;
		copy.to_host = rows->piece.host;
		copy.to_pitch = rows->piece.bytes;
	} else {
		copy.from_type = CU_MEMORY_HOST;
		copy.from_host = rows->piece.host;
		copy.from_pitch = rows->piece.bytes;
		copy.to_type = CU_MEMORY_DEVICE;
		copy.to_device = rows->piece.device;
		copy.to_pitch = rows->pitch;
	}
	*call = "cuMemcpy2DAsync";
	ty_device_count(&dev->base.stats.copies, 1);
	return CU(dev, cuMemcpy2DAsync, &copy, stream);
}

cu_result ty_cuda_issue_strided(struct cuda_device *dev, struct cuda_lane *lane, struct cuda_unit *unit, const char **call)
{
	struct rows rows[TY_CUDA_UNIT_COPIES];
	enum ty_direction direction = unit->batch->direction;

	unit->copies = collect_rows(lane, unit->batch, rows);
	for (uint32_t i = 0; i < unit->copies; i++) {
		cu_result result = copy_rows(dev, take_stream(dev, lane, unit), direction, &rows[i], call);

		if (result != CU_SUCCESS)
			return result;
	}
	return mark_ends(dev, lane, unit, call);
}
