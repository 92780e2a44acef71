/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/layout.h"
#include "wire/attach.h"
#include "wire/request.h"

_Static_assert(TY_ATTACH_DESCRIPTORS == 64, "Register.regions' attached_fd is one of a 64-bit set");

static enum ty_code check_count(const char *field, size_t found, size_t max, struct ty_error *err)
{
	if (found == 0)
		return ty_fail(err, TY_INVALID, "%s is empty, expected 1..%zu entries", field, max);
	if (found > max)
		return ty_fail(err, TY_LIMIT, "%s has %zu entries, expected 1..%zu", field, found, max);
	return TY_OK;
}

static enum ty_code check_part(uint32_t part, uint32_t parts, struct ty_error *err)
{
	if (parts == 0 || parts > TY_MAX_PARTS)
		return ty_fail(err, TY_INVALID, "Register.parts is %u, expected 1..%d", parts, TY_MAX_PARTS);
	if (part >= parts)
		return ty_fail(err, TY_INVALID, "Register.part is %u, expected 0..%u", part, parts - 1);
	return TY_OK;
}

/* ---- off the wire --------------------------------------------------------------------------------------------------- */

static enum ty_code read_region(const Tyer__V1__Region *in, size_t index, struct ty_region *out, uint64_t *numbers,
	struct ty_error *err)
{
	out->allocation_bytes = in->allocation_bytes;
	out->offset = in->offset;
	out->length = in->length;
	switch (in->memory_case) {
	case TYER__V1__REGION__MEMORY_IPC_HANDLE:
		if (in->ipc_handle.len != TY_IPC_HANDLE_BYTES)
			return ty_fail(err, TY_INVALID, "Register.regions[%zu].ipc_handle has %zu bytes, expected %d", index,
				in->ipc_handle.len, TY_IPC_HANDLE_BYTES);
		out->fd = -1;
		memcpy(out->ipc_handle, in->ipc_handle.data, TY_IPC_HANDLE_BYTES);
		return TY_OK;
	case TYER__V1__REGION__MEMORY_ATTACHED_FD:
		if (in->attached_fd >= TY_ATTACH_DESCRIPTORS)
			return ty_fail(err, TY_INVALID, "Register.regions[%zu].attached_fd is %u, expected 0..%d", index,
				in->attached_fd, TY_ATTACH_DESCRIPTORS - 1);
		if (*numbers & (uint64_t)1 << in->attached_fd)
			return ty_fail(err, TY_INVALID, "Register.regions[%zu].attached_fd is %u, as another region's", index,
				in->attached_fd);
		*numbers |= (uint64_t)1 << in->attached_fd;
		out->is_fd = true;
		out->fd = (int)in->attached_fd;
		return TY_OK;
	default:
		return ty_fail(err, TY_INVALID, "Register.regions[%zu].memory is absent, expected ipc_handle or attached_fd",
			index);
	}
}

/* Counts first: they say how large the copy is. */
static enum ty_code check_register(const Tyer__V1__Register *reg, size_t *plane_count, struct ty_error *err)
{
	enum ty_code code;
	size_t g;

	*plane_count = 0;
	if (reg->device.len != TY_UUID_BYTES)
		return ty_fail(err, TY_INVALID, "Register.device has %zu bytes, expected %d", reg->device.len, TY_UUID_BYTES);
	code = check_count("Register.regions", reg->n_regions, TY_MAX_REGIONS, err);
	if (code == TY_OK)
		code = check_count("Register.groups", reg->n_groups, TY_MAX_GROUPS, err);
	if (code == TY_OK)
		code = check_part(reg->part, reg->parts, err);
	if (code == TY_OK)
		code = ty_wire_check_text("Register.format", reg->format, 0, TY_FORMAT_MAX, err);
	for (g = 0; code == TY_OK && g < reg->n_groups; g++) {
		char field[48];

		snprintf(field, sizeof field, "Register.groups[%zu].planes", g);
		code = check_count(field, reg->groups[g]->n_planes, TY_MAX_PLANES, err);
		*plane_count += reg->groups[g]->n_planes;
	}
	if (code == TY_OK && reg->n_steps > TY_MAX_STEPS)
		code = ty_fail(err, TY_LIMIT, "Register.steps has %zu entries, expected at most %d", reg->n_steps, TY_MAX_STEPS);
	for (g = 0; code == TY_OK && g < reg->n_steps; g++)
		if (reg->steps[g]->n_planes != reg->n_groups)
			code = ty_fail(err, TY_INVALID, "Register.steps[%zu].planes has %zu entries, expected one a group: %zu", g,
				reg->steps[g]->n_planes, reg->n_groups);
	return code;
}

/* One allocation: the pool, its regions, its groups, all planes, the format. */
struct pool_block {
	struct ty_pool pool;
	struct ty_region regions[TY_MAX_REGIONS];
	struct ty_group groups[TY_MAX_GROUPS];
	char format[TY_FORMAT_MAX + 1];
	uint32_t steps[TY_MAX_STEPS * TY_MAX_GROUPS];
	struct ty_plane planes[];
};

enum ty_code ty_pool_from_register(const Tyer__V1__Register *reg, struct ty_pool **out, struct ty_error *err)
{
	struct ty_plane *plane;
	struct pool_block *b;
	size_t planes, i, p;
	uint64_t numbers = 0;
	enum ty_code code;

	*out = NULL;
	code = check_register(reg, &planes, err);
	if (code != TY_OK)
		return code;
	b = calloc(1, sizeof *b + planes * sizeof b->planes[0]);
	if (b == NULL)
		return ty_fail(err, TY_NO_MEMORY, "Register: no memory for %zu planes", planes);
	memcpy(b->pool.device, reg->device.data, TY_UUID_BYTES);
	b->pool.region_count = (uint32_t)reg->n_regions;
	b->pool.group_count = (uint32_t)reg->n_groups;
	b->pool.regions = b->regions;
	b->pool.groups = b->groups;
	b->pool.part = reg->part;
	b->pool.parts = reg->parts;
	b->pool.format = b->format;
	b->pool.step_count = (uint32_t)reg->n_steps;
	b->pool.steps = b->steps;
	for (i = 0; i < reg->n_steps; i++)
		memcpy(b->steps + i * reg->n_groups, reg->steps[i]->planes, reg->n_groups * sizeof b->steps[0]);
	if (reg->format != NULL)
		memcpy(b->format, reg->format, strlen(reg->format)); /* its length is checked */
	for (i = 0; i < reg->n_regions; i++) {
		code = read_region(reg->regions[i], i, &b->regions[i], &numbers, err);
		if (code != TY_OK) {
			free(b);
			return code;
		}
	}
	plane = b->planes;
	for (i = 0; i < reg->n_groups; i++) {
		const Tyer__V1__Group *in = reg->groups[i];
		struct ty_group *group = &b->groups[i];

		group->block_tokens = in->block_tokens;
		group->block_count = in->block_count;
		group->block_stride = in->block_stride;
		group->run_bytes = in->run_bytes;
		group->plane_count = (uint32_t)in->n_planes;
		group->planes = plane;
		for (p = 0; p < in->n_planes; p++, plane++) {
			plane->region = in->planes[p]->region;
			plane->offset = in->planes[p]->offset;
		}
	}
	*out = &b->pool; /* first member: freed by its address */
	return TY_OK;
}

void ty_pool_free(struct ty_pool *pool)
{
	free(pool);
}

/* ---- onto the wire -------------------------------------------------------------------------------------------------- */

static enum ty_code check_pool(const struct ty_pool *pool, size_t *plane_count, struct ty_error *err)
{
	enum ty_code code;
	uint32_t g;

	*plane_count = 0;
	code = check_count("pool.regions", pool->region_count, TY_MAX_REGIONS, err);
	if (code == TY_OK)
		code = check_count("pool.groups", pool->group_count, TY_MAX_GROUPS, err);
	if (code == TY_OK)
		code = check_part(pool->part, pool->parts, err);
	if (code == TY_OK)
		code = ty_wire_check_text("pool.format", pool->format, 0, TY_FORMAT_MAX, err);
	for (g = 0; code == TY_OK && g < pool->group_count; g++) {
		char field[48];

		snprintf(field, sizeof field, "pool.groups[%u].planes", g);
		code = check_count(field, pool->groups[g].plane_count, TY_MAX_PLANES, err);
		*plane_count += pool->groups[g].plane_count;
	}
	if (code == TY_OK && pool->step_count > TY_MAX_STEPS)
		code = ty_fail(err, TY_LIMIT, "pool.steps has %u entries, expected at most %d", pool->step_count, TY_MAX_STEPS);
	if (code == TY_OK && pool->step_count != 0 && pool->steps == NULL)
		code = ty_fail(err, TY_INVALID, "pool.steps is null, expected %u entries", pool->step_count);
	return code;
}

/* One allocation again: the message, what it points to, and the arrays of pointers that protobuf-c wants. */
struct register_block {
	Tyer__V1__Register reg;
	Tyer__V1__Region regions[TY_MAX_REGIONS], *region_at[TY_MAX_REGIONS];
	Tyer__V1__Group groups[TY_MAX_GROUPS], *group_at[TY_MAX_GROUPS];
	Tyer__V1__Step steps[TY_MAX_STEPS], *step_at[TY_MAX_STEPS];
	uint8_t device[TY_UUID_BYTES];
	uint8_t handles[TY_MAX_REGIONS][TY_IPC_HANDLE_BYTES];
	char format[TY_FORMAT_MAX + 1];
	Tyer__V1__Plane planes[]; /* then one pointer to each */
};

static void write_group(struct register_block *b, uint32_t i, const struct ty_group *in, Tyer__V1__Plane *planes,
	Tyer__V1__Plane **plane_at)
{
	Tyer__V1__Group *out = &b->groups[i];
	uint32_t p;

	tyer__v1__group__init(out);
	b->group_at[i] = out;
	out->block_tokens = in->block_tokens;
	out->block_count = in->block_count;
	out->block_stride = in->block_stride;
	out->run_bytes = in->run_bytes;
	out->n_planes = in->plane_count;
	out->planes = plane_at;
	for (p = 0; p < in->plane_count; p++) {
		tyer__v1__plane__init(&planes[p]);
		planes[p].region = in->planes[p].region;
		planes[p].offset = in->planes[p].offset;
		plane_at[p] = &planes[p];
	}
}

static void write_region(struct register_block *b, uint32_t i, const struct ty_region *in, uint32_t number)
{
	Tyer__V1__Region *out = &b->regions[i];

	tyer__v1__region__init(out);
	b->region_at[i] = out;
	out->allocation_bytes = in->allocation_bytes;
	out->offset = in->offset;
	out->length = in->length;
	if (in->is_fd) {
		out->memory_case = TYER__V1__REGION__MEMORY_ATTACHED_FD;
		out->attached_fd = number;
		return;
	}
	memcpy(b->handles[i], in->ipc_handle, TY_IPC_HANDLE_BYTES);
	out->memory_case = TYER__V1__REGION__MEMORY_IPC_HANDLE;
	out->ipc_handle.len = TY_IPC_HANDLE_BYTES;
	out->ipc_handle.data = b->handles[i];
}

enum ty_code ty_register_from_pool(const struct ty_pool *pool, const uint32_t *numbers, Tyer__V1__Register **out,
	struct ty_error *err)
{
	size_t planes, next = 0;
	struct register_block *b;
	Tyer__V1__Plane **plane_at;
	enum ty_code code;
	uint32_t i;

	*out = NULL;
	code = check_pool(pool, &planes, err);
	if (code != TY_OK)
		return code;
	b = calloc(1, sizeof *b + planes * (sizeof(Tyer__V1__Plane) + sizeof(Tyer__V1__Plane *)));
	if (b == NULL)
		return ty_fail(err, TY_NO_MEMORY, "REGISTER: no memory for %zu planes", planes);
	tyer__v1__register__init(&b->reg);
	memcpy(b->device, pool->device, TY_UUID_BYTES);
	b->reg.device.len = TY_UUID_BYTES;
	b->reg.device.data = b->device;
	if (pool->format != NULL)
		memcpy(b->format, pool->format, strlen(pool->format)); /* its length is checked */
	b->reg.format = b->format;
	b->reg.part = pool->part;
	b->reg.parts = pool->parts;
	b->reg.n_regions = pool->region_count;
	b->reg.regions = b->region_at;
	for (i = 0; i < pool->region_count; i++)
		write_region(b, i, &pool->regions[i], pool->regions[i].is_fd ? numbers[i] : 0);
	b->reg.n_groups = pool->group_count;
	b->reg.groups = b->group_at;
	plane_at = (Tyer__V1__Plane **)(void *)(b->planes + planes);
	for (i = 0; i < pool->group_count; i++) {
		write_group(b, i, &pool->groups[i], b->planes + next, plane_at + next);
		next += pool->groups[i].plane_count;
	}
	b->reg.n_steps = pool->step_count;
	b->reg.steps = b->step_at;
	for (i = 0; i < pool->step_count; i++) {
		tyer__v1__step__init(&b->steps[i]);
		b->step_at[i] = &b->steps[i];
		b->steps[i].n_planes = pool->group_count;
		/* protobuf-c's structs know no const; packing only reads */
		b->steps[i].planes = (uint32_t *)(uintptr_t)(pool->steps + (size_t)i * pool->group_count);
	}
	*out = &b->reg;
	return TY_OK;
}

void ty_register_free(Tyer__V1__Register *reg)
{
	free(reg);
}
