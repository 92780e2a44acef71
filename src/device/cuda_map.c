/* SPDX-License-Identifier: Apache-2.0
 *
 * A client's pool: its handles opened, its real extents checked, its plane table on the GPU. Slow lane only.
 *
 * A handle stands for a whole allocation and says nothing trustworthy about its size, so the driver is asked for that. The same
 * handle is opened once however many regions and mappings use it.
 */
#include "cuda_private.h"

#include <stdlib.h>
#include <string.h>

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
		if (ty_cuda_sticky(result))
			return ty_cuda_slow_failed(dev, err, "cuIpcOpenMemHandle", result);
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

static enum ty_code upload_table(struct cuda_device *dev, struct cuda_mapping *m, struct ty_error *err)
{
	size_t bytes = m->base.layout->plane_count * sizeof m->planes[0];
	cu_result result = CU(dev, cuMemAlloc, &m->table, bytes);

	if (result != CU_SUCCESS)
		return ty_cuda_slow_failed(dev, err, "GPU memory for the plane table", result);
	ty_device_count(&dev->base.stats.device_bytes, bytes);
	for (uint32_t i = 0; i < m->base.layout->step_count * m->base.layout->group_count; i++) {
		const struct ty_part *part = &m->base.parts[i];
		uint32_t first = m->base.layout->groups[i % m->base.layout->group_count].first_plane + part->first_plane;

		if (part->mapping)
			((struct cuda_mapping *)part->mapping)->table = m->table + first * sizeof m->planes[0];
	}
	memcpy(dev->upload, m->planes, bytes);
	result = CU(dev, cuMemcpyHtoDAsync, m->table, dev->upload, bytes, dev->lanes[TY_TO_DEVICE].copy[0]);
	if (result != CU_SUCCESS)
		return ty_cuda_slow_failed(dev, err, "upload of the plane table", result);
	return ty_cuda_finish(dev, dev->lanes[TY_TO_DEVICE].copy[0], "upload of the plane table", err);
}

static void end_part(struct ty_mapping *part)
{
	struct cuda_mapping *m = (struct cuda_mapping *)part;

	free(m->spans);
	free(m);
}

void ty_cuda_unmap(struct ty_device *base, struct ty_mapping *mapping)
{
	struct cuda_device *dev = (struct cuda_device *)base;
	struct cuda_mapping *m = (struct cuda_mapping *)mapping;

	for (unsigned i = 0; i < 2; i++)
		for (struct ty_batch *b = dev->lanes[i].queue.first; b; b = ty_batch_next(b))
			assert(b->mapping != mapping && "no batch of a mapping is in flight when it is closed");
	if (!base->poisoned) {
		cu_result result = ty_cuda_use(&dev->api, dev->context);

		if (result == CU_SUCCESS && m->table) {
			result = CU(dev, cuMemFree, m->table);
			ty_device_count(&base->stats.device_bytes,
				-(uint64_t)(m->base.layout->plane_count * sizeof m->planes[0]));
		}
		if (result != CU_SUCCESS)
			ty_cuda_poison(dev, "cuMemFree of a plane table", result);
	}
	for (uint32_t i = 0; i < TY_MAX_REGIONS; i++)
		if (m->imports[i])
			close_import(dev, m->imports[i]);
	ty_mapping_join(mapping, end_part);
	free(m->spans);
	free(m);
}

/* Which ways m's groups can go; its regions are those of `of`, itself or the mapping that it is a part of. */
static bool plan(const struct cuda_device *dev, struct cuda_mapping *m, const struct cuda_mapping *of)
{
	const struct ty_layout *layout = m->base.layout;
	uint32_t *allocation = calloc(layout->plane_count, sizeof *allocation); /* by plane: the first region of the same handle */

	m->spans = calloc(2 * (size_t)layout->plane_count, sizeof *m->spans);
	if (allocation && m->spans) {
		for (uint32_t i = 0; i < layout->plane_count; i++)
			while (of->imports[allocation[i]] != of->imports[layout->planes[i].region])
				allocation[i]++;
		ty_cuda_plan_groups(dev, m, allocation);
	}
	free(allocation);
	return allocation && m->spans;
}

static struct ty_mapping *make_part(struct ty_mapping *whole, const struct ty_layout *layout, uint32_t first)
{
	const struct cuda_mapping *of = (const struct cuda_mapping *)whole;
	struct cuda_mapping *m = calloc(1, sizeof *m + layout->plane_count * sizeof m->planes[0]);

	if (!m)
		return NULL;
	m->base.device = whole->device;
	m->base.layout = layout;
	memcpy(m->planes, of->planes + first, layout->plane_count * sizeof m->planes[0]);
	if (plan((const struct cuda_device *)whole->device, m, of))
		return &m->base;
	end_part(&m->base);
	return NULL;
}

/* The whole or any part of it? */
static bool may_stage(const struct cuda_device *dev, const struct cuda_mapping *m)
{
	const struct ty_layout *layout = m->base.layout;
	bool any = ty_cuda_may_stage(dev, m);

	for (uint32_t i = 0; i < layout->step_count * layout->group_count; i++)
		if (m->base.parts[i].mapping && ty_cuda_may_stage(dev, (const struct cuda_mapping *)m->base.parts[i].mapping))
			any = true;
	return any;
}

enum ty_code ty_cuda_map(struct ty_device *base, const struct ty_layout *layout, const struct ty_region *regions,
	struct ty_mapping **out, struct ty_error *err)
{
	struct cuda_device *dev = (struct cuda_device *)base;
	struct cuda_mapping *m = calloc(1, sizeof *m + layout->plane_count * sizeof m->planes[0]);
	cu_result result = ty_cuda_use(&dev->api, dev->context);
	enum ty_code code = TY_OK;

	if (!m)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a mapping of %u planes", layout->plane_count);
	m->base.device = base;
	m->base.layout = layout;
	if (result != CU_SUCCESS)
		code = ty_cuda_slow_failed(dev, err, "cuCtxSetCurrent", result);
	for (uint32_t i = 0; i < layout->region_count && code == TY_OK; i++) {
		if (regions[i].is_fd) {
			code = ty_fail(err, TY_INVALID, "regions[%u]: a descriptor, expected an IPC handle: this is a GPU", i);
			break;
		}
		code = open_import(dev, &regions[i], i, &m->imports[i], err);
		if (code == TY_OK)
			code = check_extent(m->imports[i], &regions[i], i, layout->region_length[i], err);
	}
	if (code != TY_OK)
		goto out;
	for (uint32_t i = 0; i < layout->plane_count; i++) {
		const struct ty_plane *p = &layout->planes[i];

		m->planes[i] = m->imports[p->region]->address + regions[p->region].offset + p->offset;
	}
	if (!plan(dev, m, m))
		code = ty_fail(err, TY_NO_MEMORY, "no memory for a mapping of %u planes", layout->plane_count);
	if (code == TY_OK)
		code = ty_mapping_split(&m->base, make_part, err);
	if (code == TY_OK && may_stage(dev, m))
		code = upload_table(dev, m, err);
out:
	if (code != TY_OK)
		ty_cuda_unmap(base, &m->base);
	else
		*out = &m->base;
	return code;
}
