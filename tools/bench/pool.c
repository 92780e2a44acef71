/* SPDX-License-Identifier: Apache-2.0 */
#include "pool.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum ty_code plan_pool(const struct bench_shape *shape, uint32_t block_count, struct bench_pool *plan,
	struct ty_error *err)
{
	uint64_t plane_stride;

	if (__builtin_mul_overflow((uint64_t)block_count, (uint64_t)shape->run_bytes, &plane_stride) ||
		__builtin_mul_overflow((uint64_t)block_count, shape->block_bytes, &plan->bytes) ||
		plan->bytes > INT64_MAX)
		return ty_fail(err, TY_INVALID, "pool: %u blocks of %llu bytes are too many", block_count,
			(unsigned long long)shape->block_bytes);
	plan->shape = *shape;
	plan->block_count = block_count;
	if (shape->geometry.layout == BENCH_SPLIT) {
		plan->block_stride = shape->run_bytes;
		plan->plane_stride = plane_stride;
	} else {
		plan->block_stride = shape->block_bytes;
		plan->plane_stride = shape->run_bytes;
	}
	return TY_OK;
}

enum ty_code bench_pool_open(const char *device, const char *driver, const struct bench_shape *shape,
	uint32_t block_count, struct bench_pool **out, struct ty_error *err)
{
	struct bench_pool plan = {0};
	enum ty_code code;
	char *end;
	long ordinal;

	assert(block_count > 0 && block_count <= INT32_MAX);
	code = plan_pool(shape, block_count, &plan, err);
	if (code != TY_OK)
		return code;
	if (strcmp(device, "host") == 0)
		return bench_pool_host_open(&plan, out, err);
	if (strncmp(device, "cuda:", 5) == 0 && device[5] >= '0' && device[5] <= '9') {
		ordinal = strtol(device + 5, &end, 10);
		if (*end == 0 && ordinal < 1024)
			return bench_pool_cuda_open(&plan, driver, (int)ordinal, out, err);
	}
	return ty_fail(err, TY_INVALID, "--device %s: expected host or cuda:N", device);
}

void bench_pool_close(struct bench_pool *pool)
{
	if (pool)
		pool->ops->close(pool);
}

enum ty_code bench_pool_fill(struct bench_pool *pool, uint64_t seed, const struct bench_item *items, uint32_t count,
	struct ty_error *err)
{
	return pool->ops->fill(pool, seed, items, count, err);
}

enum ty_code bench_pool_check(struct bench_pool *pool, uint64_t seed, const struct bench_item *items, uint32_t count,
	struct bench_wrong *wrong, struct ty_error *err)
{
	*wrong = (struct bench_wrong){0};
	return pool->ops->check(pool, seed, items, count, wrong, err);
}

enum ty_code bench_pool_raw_copy(struct bench_pool *pool, bool to_host, uint64_t bytes, double *seconds,
	struct ty_error *err)
{
	assert(bytes > 0 && bytes <= pool->bytes);
	return pool->ops->raw_copy(pool, to_host, bytes, seconds, err);
}

enum ty_code bench_pool_free_memory(struct bench_pool *pool, uint64_t *bytes, struct ty_error *err)
{
	return pool->ops->free_memory(pool, bytes, err);
}

void bench_pool_declare(const struct bench_pool *pool, const uint8_t device[TY_UUID_BYTES], struct ty_plane *planes,
	struct ty_group *group, struct ty_pool *out)
{
	for (uint32_t p = 0; p < pool->shape.run_count; p++)
		planes[p] = (struct ty_plane){.region = 0, .offset = p * pool->plane_stride};
	*group = (struct ty_group){
		.block_tokens = pool->shape.geometry.block_tokens,
		.block_count = pool->block_count,
		.block_stride = pool->block_stride,
		.run_bytes = pool->shape.run_bytes,
		.plane_count = pool->shape.run_count,
		.planes = planes,
	};
	*out = (struct ty_pool){
		.region_count = 1,
		.regions = &pool->region,
		.group_count = 1,
		.groups = group,
		.part = 0,
		.parts = 1,
		.format = "NHD",
	};
	memcpy(out->device, device, TY_UUID_BYTES);
}

enum ty_code bench_pool_find_device(const struct bench_pool *pool, const struct ty_client_info *info,
	uint8_t device[TY_UUID_BYTES], struct ty_error *err)
{
	static const uint8_t none[TY_UUID_BYTES];
	char names[160] = "";

	for (uint32_t i = 0; i < info->device_count; i++) {
		const struct ty_device_info *d = &info->devices[i];
		size_t length = strlen(names);

		if (memcmp(d->uuid, pool->any_device ? none : pool->device, TY_UUID_BYTES) == 0) {
			memcpy(device, d->uuid, TY_UUID_BYTES);
			return TY_OK;
		}
		if (length + sizeof d->name + 3 < sizeof names)
			snprintf(names + length, sizeof names - length, "%s%.31s", length ? ", " : "", d->name);
	}
	return ty_fail(err, TY_INVALID, "--device: the service does not serve %s; it serves: %s",
		pool->any_device ? "host memory" : "this GPU (by uuid)", names[0] ? names : "nothing");
}
