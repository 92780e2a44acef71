/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/layout.h"
#include "wire/attach.h"
#include "wire/request.h"

static const uint8_t no_owner[TY_OWNER_BYTES];

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

/* Numbers of descriptors, each in one place only; and the segments that are taken so far. */
struct taken {
	uint8_t numbers[TY_ATTACH_DESCRIPTORS / 8];
	struct ty_segment *segments;
	uint32_t count;
};

static enum ty_code take_number(struct taken *t, uint32_t number, const char *field, struct ty_error *err)
{
	if (number >= TY_ATTACH_DESCRIPTORS)
		return ty_fail(err, TY_INVALID, "%s.attached_fd is %u, expected 0..%d", field, number, TY_ATTACH_DESCRIPTORS - 1);
	if (t->numbers[number / 8] & 1u << number % 8)
		return ty_fail(err, TY_INVALID, "%s.attached_fd is %u, as another one's", field, number);
	t->numbers[number / 8] |= (uint8_t)(1u << number % 8);
	return TY_OK;
}

static enum ty_code read_segments(const Tyer__V1__Segments *in, size_t index, struct ty_region *out, struct taken *t,
	struct ty_error *err)
{
	enum ty_code code = TY_OK;
	char field[96];

	if (in->n_segments == 0)
		return ty_fail(err, TY_INVALID, "Register.regions[%zu].segments is empty, expected at least one", index);
	if (in->n_segments > TY_ATTACH_DESCRIPTORS - t->count)
		return ty_fail(err, TY_LIMIT, "Register.regions[%zu].segments has %zu entries, expected at most %d in all regions",
			index, in->n_segments, TY_ATTACH_DESCRIPTORS);
	out->segments = t->segments + t->count;
	out->segment_count = (uint32_t)in->n_segments;
	for (size_t i = 0; i < in->n_segments && code == TY_OK; i++) {
		snprintf(field, sizeof field, "Register.regions[%zu].segments[%zu]", index, i);
		code = take_number(t, in->segments[i]->attached_fd, field, err);
		t->segments[t->count++] = (struct ty_segment){(int)in->segments[i]->attached_fd, in->segments[i]->bytes};
	}
	return code;
}

/* own: of the client's process, which alone reaches it. */
static enum ty_code read_region(const Tyer__V1__Region *in, size_t index, bool own, struct ty_region *out, struct taken *t,
	struct ty_error *err)
{
	char field[48];

	out->allocation_bytes = in->allocation_bytes;
	out->offset = in->offset;
	out->length = in->length;
	out->fd = -1;
	if (own && in->memory_case != TYER__V1__REGION__MEMORY__NOT_SET)
		return ty_fail(err, TY_INVALID, "Register.regions[%zu].memory is there, expected none with an owner", index);
	switch (in->memory_case) {
	case TYER__V1__REGION__MEMORY_IPC_HANDLE:
		if (in->ipc_handle.len != TY_IPC_HANDLE_BYTES)
			return ty_fail(err, TY_INVALID, "Register.regions[%zu].ipc_handle has %zu bytes, expected %d", index,
				in->ipc_handle.len, TY_IPC_HANDLE_BYTES);
		memcpy(out->ipc_handle, in->ipc_handle.data, TY_IPC_HANDLE_BYTES);
		return TY_OK;
	case TYER__V1__REGION__MEMORY_ATTACHED_FD:
		out->is_fd = true;
		out->fd = (int)in->attached_fd;
		snprintf(field, sizeof field, "Register.regions[%zu]", index);
		return take_number(t, in->attached_fd, field, err);
	case TYER__V1__REGION__MEMORY_SEGMENTS:
		return read_segments(in->segments, index, out, t, err);
	default:
		if (own)
			return TY_OK;
		return ty_fail(err, TY_INVALID,
			"Register.regions[%zu].memory is absent, expected ipc_handle, attached_fd or segments", index);
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
	if (code == TY_OK && reg->owner.len != 0 && reg->owner.len != TY_OWNER_BYTES)
		code = ty_fail(err, TY_INVALID, "Register.owner has %zu bytes, expected %d or none", reg->owner.len, TY_OWNER_BYTES);
	if (code == TY_OK && reg->owner.len != 0 && memcmp(reg->owner.data, no_owner, sizeof no_owner) == 0)
		code = ty_fail(err, TY_INVALID, "Register.owner is all zero, expected an owner's number, or nothing");
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
	struct ty_segment segments[TY_ATTACH_DESCRIPTORS];
	struct ty_plane planes[];
};

enum ty_code ty_pool_from_register(const Tyer__V1__Register *reg, struct ty_pool **out, struct ty_error *err)
{
	struct ty_plane *plane;
	struct pool_block *b;
	size_t planes, i, p;
	struct taken taken = {.count = 0};
	enum ty_code code;

	*out = NULL;
	code = check_register(reg, &planes, err);
	if (code != TY_OK)
		return code;
	b = calloc(1, sizeof *b + planes * sizeof b->planes[0]);
	if (b == NULL)
		return ty_fail(err, TY_NO_MEMORY, "Register: no memory for %zu planes", planes);
	memcpy(b->pool.device, reg->device.data, TY_UUID_BYTES);
	if (reg->owner.len != 0)
		memcpy(b->pool.owner, reg->owner.data, TY_OWNER_BYTES);
	b->pool.memory = reg->memory;
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
	taken.segments = b->segments;
	for (i = 0; i < reg->n_regions; i++) {
		code = read_region(reg->regions[i], i, reg->owner.len != 0, &b->regions[i], &taken, err);
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

/* check_count, of a caller's array. */
static enum ty_code check_array(const char *field, const void *array, size_t found, size_t max, struct ty_error *err)
{
	enum ty_code code = check_count(field, found, max, err);

	if (code == TY_OK && array == NULL)
		code = ty_fail(err, TY_INVALID, "%s is null, expected %zu entries", field, found);
	return code;
}

static enum ty_code check_pool(const struct ty_pool *pool, size_t *plane_count, struct ty_error *err)
{
	uint32_t g, segments = 0;
	enum ty_code code;

	*plane_count = 0;
	code = check_array("pool.regions", pool->regions, pool->region_count, TY_MAX_REGIONS, err);
	if (code == TY_OK)
		code = check_array("pool.groups", pool->groups, pool->group_count, TY_MAX_GROUPS, err);
	if (code == TY_OK)
		code = check_part(pool->part, pool->parts, err);
	if (code == TY_OK)
		code = ty_wire_check_text("pool.format", pool->format, 0, TY_FORMAT_MAX, err);
	for (g = 0; code == TY_OK && g < pool->group_count; g++) {
		char field[48];

		snprintf(field, sizeof field, "pool.groups[%u].planes", g);
		code = check_array(field, pool->groups[g].planes, pool->groups[g].plane_count, TY_MAX_PLANES, err);
		*plane_count += pool->groups[g].plane_count;
	}
	for (g = 0; code == TY_OK && g < pool->region_count; g++) {
		if (pool->regions[g].segment_count > TY_ATTACH_DESCRIPTORS - segments)
			code = ty_fail(err, TY_LIMIT, "pool.regions[%u].segments has %u entries, expected at most %d in all regions", g,
				pool->regions[g].segment_count, TY_ATTACH_DESCRIPTORS);
		else if (pool->regions[g].segment_count != 0 && pool->regions[g].segments == NULL)
			code = ty_fail(err, TY_INVALID, "pool.regions[%u].segments is null, expected %u entries", g,
				pool->regions[g].segment_count);
		else
			segments += pool->regions[g].segment_count;
		if (code == TY_OK && pool->regions[g].is_fd && pool->regions[g].segment_count == 0 && segments++ == TY_ATTACH_DESCRIPTORS)
			code = ty_fail(err, TY_LIMIT, "pool.regions have more than %d descriptors", TY_ATTACH_DESCRIPTORS);
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
	Tyer__V1__Segments pieces[TY_MAX_REGIONS];
	Tyer__V1__Segment segments[TY_ATTACH_DESCRIPTORS], *segment_at[TY_ATTACH_DESCRIPTORS];
	uint32_t segment_count;
	uint8_t device[TY_UUID_BYTES], owner[TY_OWNER_BYTES];
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

/* `*numbers` goes on by one for each descriptor. */
static void write_region(struct register_block *b, uint32_t i, const struct ty_region *in, const uint32_t **numbers)
{
	Tyer__V1__Region *out = &b->regions[i];

	tyer__v1__region__init(out);
	b->region_at[i] = out;
	out->allocation_bytes = in->allocation_bytes;
	out->offset = in->offset;
	out->length = in->length;
	if (b->reg.owner.len != 0) /* nobody but this process reaches it */
		return;
	if (in->segment_count != 0) {
		out->memory_case = TYER__V1__REGION__MEMORY_SEGMENTS;
		out->segments = &b->pieces[i];
		tyer__v1__segments__init(out->segments);
		out->segments->segments = b->segment_at + b->segment_count;
		out->segments->n_segments = in->segment_count;
		for (uint32_t k = 0; k < in->segment_count; k++) {
			Tyer__V1__Segment *segment = &b->segments[b->segment_count];

			tyer__v1__segment__init(segment);
			segment->attached_fd = *(*numbers)++;
			segment->bytes = in->segments[k].bytes;
			b->segment_at[b->segment_count++] = segment;
		}
		return;
	}
	if (in->is_fd) {
		out->memory_case = TYER__V1__REGION__MEMORY_ATTACHED_FD;
		out->attached_fd = *(*numbers)++;
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
	if (ty_pool_has_owner(pool)) {
		memcpy(b->owner, pool->owner, TY_OWNER_BYTES);
		b->reg.owner = (ProtobufCBinaryData){.len = TY_OWNER_BYTES, .data = b->owner};
		b->reg.memory = pool->memory;
	}
	if (pool->format != NULL)
		memcpy(b->format, pool->format, strlen(pool->format)); /* its length is checked */
	b->reg.format = b->format;
	b->reg.part = pool->part;
	b->reg.parts = pool->parts;
	b->reg.n_regions = pool->region_count;
	b->reg.regions = b->region_at;
	for (i = 0; i < pool->region_count; i++)
		write_region(b, i, &pool->regions[i], &numbers);
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

bool ty_pool_has_owner(const struct ty_pool *pool)
{
	return memcmp(pool->owner, no_owner, sizeof no_owner) != 0;
}

/* ---- descriptors ------------------------------------------------------------------------------------------------------ */

uint32_t ty_pool_descriptors(const struct ty_pool *pool, int **out)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < pool->region_count && !ty_pool_has_owner(pool); i++) {
		/* its own copies, or the caller's to change */
		struct ty_region *region = (struct ty_region *)(uintptr_t)&pool->regions[i];
		struct ty_segment *segments = (struct ty_segment *)(uintptr_t)region->segments;

		for (uint32_t k = 0; k < region->segment_count && count < TY_ATTACH_DESCRIPTORS; k++)
			out[count++] = &segments[k].fd;
		if (region->is_fd && region->segment_count == 0 && count < TY_ATTACH_DESCRIPTORS)
			out[count++] = &region->fd;
	}
	return count;
}
