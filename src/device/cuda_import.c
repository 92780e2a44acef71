/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of other processes. Legacy IPC handles: one stands for a whole allocation and says nothing trustworthy about its size, so
 * the driver is asked for that; the same one is opened once however many regions and mappings use it. Pieces of physical memory
 * (cuMemCreate, exported as descriptors): those of all regions of a mapping are mapped one behind the other into one stretch of
 * addresses, so that planes in regions of one size lie at one pitch; the driver maps no more of a piece than there is.
 *
 * And memory of this process, by its address, for an owner that lives in the engine's: nothing is opened, the driver only says how much
 * there is.
 */
#include "cuda_private.h"

#include <stdlib.h>
#include <string.h>

/* ---- legacy handles -------------------------------------------------------------------------------- */

/* The allocation's real extent, from the address that the handle opened at. */
static enum ty_code measure(struct cuda_device *dev, struct cuda_import *import, uint32_t index, struct ty_error *err)
{
	cu_address start = 0;
	size_t bytes = 0;
	cu_result result = CU(dev, cuMemGetAddressRange, &start, &bytes, import->address);

	if (result != CU_SUCCESS)
		return ty_cuda_slow_failed(dev, err, "cuMemGetAddressRange of an opened handle", result);
	if (import->address < start || import->address - start > bytes)
		return ty_fail(err, TY_DEVICE_FAILED, "regions[%u]: the handle opened at an address outside its allocation",
			index);
	import->bytes = bytes - (import->address - start);
	return TY_OK;
}

static void close_import(struct cuda_device *dev, struct cuda_import *import)
{
	struct cuda_import **at = &dev->imports;

	if (import->pieces || import->own) { /* unmapped with the stretch; never mapped by us */
		free(import);
		return;
	}
	if (--import->uses > 0)
		return;
	while (*at != import)
		at = &(*at)->next;
	*at = import->next;
	if (!dev->base.poisoned) {
		cu_result result = CU(dev, cuIpcCloseMemHandle, import->address);

		if (result != CU_SUCCESS)
			ty_cuda_poison(dev, "cuIpcCloseMemHandle", result);
	}
	free(import);
}

static enum ty_code open_import(struct cuda_device *dev, const struct ty_region *region, uint32_t index,
	struct cuda_import **out, struct ty_error *err)
{
	struct cuda_import *import;
	enum ty_code code;
	cu_result result;

	for (import = dev->imports; import; import = import->next)
		if (!memcmp(import->handle.bytes, region->ipc_handle, sizeof import->handle.bytes)) {
			import->uses++;
			*out = import;
			return TY_OK;
		}
	import = calloc(1, sizeof *import);
	if (!import)
		return ty_fail(err, TY_NO_MEMORY, "no memory for an imported handle");
	memcpy(import->handle.bytes, region->ipc_handle, sizeof import->handle.bytes);
	result = CU(dev, cuIpcOpenMemHandle, &import->address, import->handle, CU_IPC_LAZY_PEER);
	if (result != CU_SUCCESS) {
		free(import);
		if (ty_cuda_stays(dev, "cuIpcOpenMemHandle", result))
			return ty_cuda_fail(&dev->api, err, "cuIpcOpenMemHandle", result);
		return ty_fail(err, result == CU_OUT_OF_MEMORY ? TY_NO_MEMORY : TY_INVALID,
			"regions[%u].ipc_handle: the driver does not open it on %s: %s (%d)", index, dev->base.info.name,
			ty_cuda_error_name(&dev->api, result), result);
	}
	import->uses = 1;
	import->next = dev->imports;
	dev->imports = import;
	code = measure(dev, import, index, err);
	if (code != TY_OK)
		close_import(dev, import);
	else
		*out = import;
	return code;
}

/* ---- this process's own ------------------------------------------------------------------------------- */

/* Is there memory as far as the region says? It may be many allocations, mapped one behind the other: the next few are looked at. TY_BUSY: there
 * are more. */
static enum ty_code open_own(struct cuda_device *dev, struct cuda_mapping *m, const struct ty_region *region, uint32_t index,
	uint32_t *calls, struct ty_error *err)
{
	struct cuda_import *import = m->imports[index];

	if (!import) {
		import = calloc(1, sizeof *import);
		if (!import)
			return ty_fail(err, TY_NO_MEMORY, "no memory for a region");
		import->own = true;
		import->uses = 1;
		import->address = region->address;
		m->imports[index] = import;
	}
	for (; import->bytes < region->allocation_bytes; ++*calls) {
		cu_address start = 0, at = region->address + import->bytes;
		size_t bytes = 0;
		cu_result result;

		if (*calls >= TY_CUDA_MAP_CALLS)
			return TY_BUSY;
		result = CU(dev, cuMemGetAddressRange, &start, &bytes, at);
		if (result != CU_SUCCESS && ty_cuda_stays(dev, "cuMemGetAddressRange", result))
			return ty_cuda_fail(&dev->api, err, "cuMemGetAddressRange", result);
		if (result != CU_SUCCESS || at < start || at - start >= bytes)
			break;
		if (import->bytes) /* a strided copy is kept inside of one allocation */
			m->stretch.rows_end = true;
		else
			import->first = start;
		import->bytes += bytes - (at - start);
	}
	if (!import->bytes)
		return ty_fail(err, TY_INVALID, "regions[%u].address: %#llx is no memory of %s in this process", index,
			(unsigned long long)region->address, dev->base.info.name);
	return TY_OK;
}

/* ---- pieces ------------------------------------------------------------------------------------------ */

static bool has_pieces(const struct ty_region *r)
{
	return r->is_fd || r->segment_count;
}

/* A region with one descriptor is one piece. */
static uint32_t piece_count(const struct ty_region *r)
{
	return r->segment_count ? r->segment_count : 1;
}

static struct ty_segment piece_of(const struct ty_region *r, uint32_t index)
{
	return r->segment_count ? r->segments[index] : (struct ty_segment){r->fd, r->allocation_bytes};
}

/* The sum of a region's pieces, checked. */
static enum ty_code measure_pieces(const struct ty_region *r, uint32_t index, uint64_t *total, struct ty_error *err)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < piece_count(r); i++) {
		uint64_t bytes = piece_of(r, i).bytes;

		if (bytes == 0 || bytes % TY_CUDA_PIECE_BYTES)
			return ty_fail(err, TY_INVALID, "regions[%u].segments[%u].bytes: %llu, expected a multiple of %llu", index, i,
				(unsigned long long)bytes, (unsigned long long)TY_CUDA_PIECE_BYTES);
		if (__builtin_add_overflow(sum, bytes, &sum))
			return ty_fail(err, TY_INVALID, "regions[%u].segments: their sum does not fit 64 bits", index);
	}
	if (sum != r->allocation_bytes)
		return ty_fail(err, TY_INVALID, "regions[%u].allocation_bytes: %llu, but its segments have %llu", index,
			(unsigned long long)r->allocation_bytes, (unsigned long long)sum);
	if (__builtin_add_overflow(*total, sum, total))
		return ty_fail(err, TY_INVALID, "regions: their sum does not fit 64 bits");
	return TY_OK;
}

enum ty_code ty_cuda_reserve(struct cuda_device *dev, struct cuda_mapping *m, const struct ty_region *regions, struct ty_error *err)
{
	struct cuda_stretch *s = &m->stretch;
	enum ty_code code = TY_OK;
	cu_result result;

	for (uint32_t i = 0; i < m->base.layout->region_count && code == TY_OK; i++)
		if (has_pieces(&regions[i])) {
			code = measure_pieces(&regions[i], i, &s->bytes, err);
			s->room += piece_count(&regions[i]);
		}
	if (code != TY_OK || !s->room)
		return code;
	s->ends = calloc(s->room, sizeof *s->ends);
	if (!s->ends)
		return ty_fail(err, TY_NO_MEMORY, "no memory for %u pieces", s->room);
	result = CU(dev, cuMemAddressReserve, &s->address, s->bytes, 0, 0, 0);
	if (result == CU_SUCCESS)
		return TY_OK;
	s->address = 0;
	return ty_cuda_slow_failed(dev, err, "addresses for the pieces of a pool", result);
}

/* Import a piece, map it behind the others, let go of the handle: the mapping keeps the memory. */
static enum ty_code map_piece(struct cuda_device *dev, struct cuda_stretch *s, const struct ty_segment *segment, uint32_t region,
	uint32_t index, struct ty_error *err)
{
	uint64_t at = s->count ? s->ends[s->count - 1] : 0;
	struct cu_access access = {.location = {CU_LOCATION_DEVICE, dev->device}, .flags = CU_ACCESS_READ_WRITE};
	const char *call = "cuMemImportFromShareableHandle";
	cu_piece piece;
	cu_result result = CU(dev, cuMemImportFromShareableHandle, &piece, (void *)(intptr_t)segment->fd, CU_HANDLE_POSIX_FD);

	if (result == CU_SUCCESS) {
		cu_result released;

		call = "cuMemMap";
		result = CU(dev, cuMemMap, s->address + at, segment->bytes, 0, piece, 0);
		released = CU(dev, cuMemRelease, piece);
		if (result == CU_SUCCESS)
			s->ends[s->count++] = at + segment->bytes;
		if (result == CU_SUCCESS && released != CU_SUCCESS) {
			call = "cuMemRelease";
			result = released;
		}
	}
	if (result == CU_SUCCESS) {
		call = "cuMemSetAccess";
		result = CU(dev, cuMemSetAccess, s->address + at, segment->bytes, &access, 1);
	}
	if (result == CU_SUCCESS)
		return TY_OK;
	if (ty_cuda_stays(dev, call, result))
		return ty_cuda_fail(&dev->api, err, call, result);
	return ty_fail(err, result == CU_OUT_OF_MEMORY ? TY_NO_MEMORY : TY_INVALID,
		"regions[%u].segments[%u]: %s does not take it as %llu bytes of %s: %s (%d)", region, index, call,
		(unsigned long long)segment->bytes, dev->base.info.name, ty_cuda_error_name(&dev->api, result), result);
}

/* The region's pieces are all there: it is as if its memory were one allocation. */
static enum ty_code add_region(struct cuda_mapping *m, const struct ty_region *r, uint32_t index, struct ty_error *err)
{
	struct cuda_import *import = calloc(1, sizeof *import);

	if (!import)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a region");
	import->pieces = true;
	import->uses = 1;
	import->bytes = r->allocation_bytes;
	import->address = m->stretch.address + m->stretch.ends[m->stretch.count - 1] - import->bytes;
	m->imports[index] = import;
	return TY_OK;
}

/* ---- regions ------------------------------------------------------------------------------------------ */

static enum ty_code check_extent(const struct cuda_import *import, const struct ty_region *r, uint32_t index,
	uint64_t expected_length, struct ty_error *err)
{
	if (r->length != expected_length)
		return ty_fail(err, TY_INVALID, "regions[%u].length: %llu, but the layout was checked with %llu", index,
			(unsigned long long)r->length, (unsigned long long)expected_length);
	if (r->allocation_bytes > import->bytes)
		return ty_fail(err, TY_INVALID, "regions[%u].allocation_bytes: %llu, but the allocation has %llu", index,
			(unsigned long long)r->allocation_bytes, (unsigned long long)import->bytes);
	if (r->offset > r->allocation_bytes || r->length > r->allocation_bytes - r->offset)
		return ty_fail(err, TY_INVALID, "regions[%u]: offset %llu + length %llu passes allocation_bytes %llu", index,
			(unsigned long long)r->offset, (unsigned long long)r->length,
			(unsigned long long)r->allocation_bytes);
	if ((import->address + r->offset) % TY_RUN_ALIGN)
		return ty_fail(err, TY_INVALID, "regions[%u]: its first byte is not aligned to %d", index, TY_RUN_ALIGN);
	return TY_OK;
}

enum ty_code ty_cuda_import(struct cuda_device *dev, struct cuda_mapping *m, const struct ty_region *regions, struct ty_error *err)
{
	const struct ty_layout *layout = m->base.layout;

	for (uint32_t calls = 0; m->region < layout->region_count; calls++) {
		const struct ty_region *r = &regions[m->region];
		enum ty_code code;

		if (calls >= TY_CUDA_MAP_CALLS)
			return TY_BUSY;
		if (r->address) {
			code = open_own(dev, m, r, m->region, &calls, err);
			if (code == TY_BUSY)
				return code;
		} else if (!has_pieces(r)) {
			code = open_import(dev, r, m->region, &m->imports[m->region], err);
		} else {
			struct ty_segment segment = piece_of(r, m->segment);

			code = map_piece(dev, &m->stretch, &segment, m->region, m->segment, err);
			if (code == TY_OK && ++m->segment < piece_count(r))
				continue;
			if (code == TY_OK)
				code = add_region(m, r, m->region, err);
			m->segment = 0;
		}
		if (code == TY_OK)
			code = check_extent(m->imports[m->region], r, m->region, layout->region_length[m->region], err);
		if (code != TY_OK)
			return code;
		m->region++;
	}
	return TY_OK;
}

bool ty_cuda_let_go(struct cuda_device *dev, struct cuda_mapping *m)
{
	struct cuda_stretch *s = &m->stretch;
	cu_result result = CU_SUCCESS;
	const char *call = "cuMemUnmap";
	uint32_t calls = 0;

	for (uint32_t i = 0; i < TY_MAX_REGIONS; i++) {
		if (!m->imports[i])
			continue;
		if (calls++ == TY_CUDA_MAP_CALLS)
			return false;
		close_import(dev, m->imports[i]);
		m->imports[i] = NULL;
	}
	while (s->count && !dev->base.poisoned && result == CU_SUCCESS) {
		uint64_t from = s->count > 1 ? s->ends[s->count - 2] : 0;

		if (calls++ == TY_CUDA_MAP_CALLS)
			return false;
		result = CU(dev, cuMemUnmap, s->address + from, s->ends[s->count - 1] - from);
		s->count--;
	}
	if (s->address && !dev->base.poisoned && result == CU_SUCCESS) {
		call = "cuMemAddressFree";
		result = CU(dev, cuMemAddressFree, s->address, s->bytes);
	}
	if (result != CU_SUCCESS)
		ty_cuda_poison(dev, call, result);
	s->address = 0;
	free(s->ends);
	s->ends = NULL;
	return true;
}

/* Two rows of 16 bytes on the two sides of the first seam, into page-locked memory of ours. */
enum ty_code ty_cuda_try_rows(struct cuda_device *dev, struct cuda_mapping *m, struct ty_error *err)
{
	struct cuda_stretch *s = &m->stretch;
	cu_stream stream = dev->lanes[TY_TO_HOST].copy[0];
	struct cu_copy_2d copy = {.from_type = CU_MEMORY_DEVICE, .to_type = CU_MEMORY_HOST, .to_host = dev->upload,
		.from_pitch = TY_CUDA_PIECE_BYTES, .to_pitch = TY_RUN_ALIGN, .width = TY_RUN_ALIGN, .rows = 2};
	cu_result result;
	enum ty_code code;

	if (s->count < 2)
		return TY_OK;
	if (dev->rows == ROWS_UNKNOWN) {
		copy.from_device = s->address + s->ends[0] - TY_CUDA_PIECE_BYTES;
		result = CU(dev, cuMemcpy2DAsync, &copy, stream);
		if (result != CU_SUCCESS && result != CU_INVALID_VALUE)
			return ty_cuda_slow_failed(dev, err, "cuMemcpy2DAsync", result);
		if (result == CU_SUCCESS) {
			code = ty_cuda_finish(dev, stream, "rows from piece to piece", err);
			if (code != TY_OK)
				return code;
		}
		dev->rows = result == CU_SUCCESS ? ROWS_CROSS : ROWS_END;
	}
	s->rows_end = dev->rows == ROWS_END;
	return TY_OK;
}
