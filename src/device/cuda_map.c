/* SPDX-License-Identifier: Apache-2.0
 *
 * A client's pool: its memory made reachable (cuda_import.c), its ways planned, its plane table on the GPU. Slow lane only, a few
 * calls at a time.
 */
#include "cuda_private.h"

#include <stdlib.h>
#include <string.h>

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

bool ty_cuda_unmap(struct ty_device *base, struct ty_mapping *mapping)
{
	struct cuda_device *dev = (struct cuda_device *)base;
	struct cuda_mapping *m = (struct cuda_mapping *)mapping;

	for (unsigned i = 0; i < 2; i++)
		for (struct ty_batch *b = dev->lanes[i].queue.first; b; b = ty_batch_next(b))
			assert(b->mapping != mapping && "no batch of a mapping is in flight when it is closed");
	if (!base->poisoned) {
		cu_result result = ty_cuda_use(&dev->api, dev->context);

		if (result == CU_SUCCESS && !ty_cuda_probe_is_over(dev))
			return false;
		if (result == CU_SUCCESS && m->table && !base->poisoned) {
			result = CU(dev, cuMemFree, m->table);
			m->table = 0;
			ty_device_count(&base->stats.device_bytes,
				-(uint64_t)(m->base.layout->plane_count * sizeof m->planes[0]));
		}
		if (result != CU_SUCCESS)
			ty_cuda_poison(dev, "cuMemFree of a plane table", result);
	}
	if (!ty_cuda_let_go(dev, m))
		return false;
	ty_mapping_join(mapping, end_part);
	free(m->spans);
	free(m);
	return true;
}

static bool same_allocation(const struct cuda_mapping *m, uint32_t a, uint32_t b)
{
	const struct cuda_import *x = m->imports[a], *y = m->imports[b];

	return x == y || (x->pieces && y->pieces) || (x->own && y->own && x->first == y->first);
}

/* Which ways m's groups can go; its regions are those of `of`, itself or the mapping that it is a part of. */
static bool plan(const struct cuda_device *dev, struct cuda_mapping *m, const struct cuda_mapping *of)
{
	const struct ty_layout *layout = m->base.layout;
	/* by plane: the first region of the same handle, or the first of those in the stretch when it is as one allocation */
	uint32_t *allocation = calloc(layout->plane_count, sizeof *allocation);

	m->spans = calloc(2 * (size_t)layout->plane_count, sizeof *m->spans);
	if (allocation && m->spans) {
		for (uint32_t i = 0; i < layout->plane_count; i++)
			while (!same_allocation(of, allocation[i], layout->planes[i].region))
				allocation[i]++;
		ty_cuda_plan_groups(dev, m, allocation, !of->stretch.rows_end);
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

static enum ty_code begin(struct cuda_device *dev, const struct ty_layout *layout, const struct ty_region *regions,
	struct cuda_mapping **out, struct ty_error *err)
{
	struct cuda_mapping *m = calloc(1, sizeof *m + layout->plane_count * sizeof m->planes[0]);

	*out = m;
	if (!m)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a mapping of %u planes", layout->plane_count);
	m->base.device = &dev->base;
	m->base.layout = layout;
	return ty_cuda_reserve(dev, m, regions, err);
}

/* All of its memory is there. */
static enum ty_code complete(struct cuda_device *dev, struct cuda_mapping *m, const struct ty_region *regions, struct ty_error *err)
{
	const struct ty_layout *layout = m->base.layout;
	enum ty_code code = ty_cuda_try_rows(dev, m, err);

	if (code != TY_OK)
		return code;
	for (uint32_t i = 0; i < layout->plane_count; i++) {
		const struct ty_plane *p = &layout->planes[i];

		m->planes[i] = m->imports[p->region]->address + regions[p->region].offset + p->offset;
	}
	if (!plan(dev, m, m))
		return ty_fail(err, TY_NO_MEMORY, "no memory for a mapping of %u planes", layout->plane_count);
	code = ty_mapping_split(&m->base, make_part, err);
	return code == TY_OK && may_stage(dev, m) ? upload_table(dev, m, err) : code;
}

enum ty_code ty_cuda_map(struct ty_device *base, const struct ty_layout *layout, const struct ty_region *regions,
	struct ty_mapping **out, struct ty_error *err)
{
	struct cuda_device *dev = (struct cuda_device *)base;
	struct cuda_mapping *m = (struct cuda_mapping *)*out;
	cu_result result = base->poisoned ? CU_SUCCESS : ty_cuda_use(&dev->api, dev->context);
	enum ty_code code = TY_OK;

	if (base->poisoned) /* since it began */
		code = ty_fail(err, TY_DEVICE_FAILED, "%s", base->failure.text);
	else if (result != CU_SUCCESS)
		code = ty_cuda_slow_failed(dev, err, "cuCtxSetCurrent", result);
	else if (!m)
		code = begin(dev, layout, regions, &m, err);
	if (!m)
		return code;
	if (code == TY_OK && !m->broken)
		code = ty_cuda_import(dev, m, regions, err);
	if (code == TY_OK && !m->broken)
		code = complete(dev, m, regions, err);
	if (code != TY_OK && code != TY_BUSY && !m->broken) {
		m->broken = true;
		m->failure = *err;
	}
	if (m->broken) { /* let go of what there is, in turns too */
		struct ty_error failure = m->failure;

		if (!ty_cuda_unmap(base, &m->base)) {
			*out = &m->base;
			return TY_BUSY;
		}
		*out = NULL;
		*err = failure;
		return failure.code;
	}
	*out = &m->base;
	return code;
}
