/* SPDX-License-Identifier: Apache-2.0
 *
 * kernel_check: the kernels on a real GPU, held against their contract in C (kernels/gather.c), in one process and without any of
 * the owner's code: what compute-sanitizer looks at.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/cuda_driver.h"
#include "kernels/gather.h"

#define POOL_BYTES ((size_t)8 << 20)
#define TILE_BYTES ((size_t)2 << 20)

static struct ty_cuda api;
static cu_stream stream;
static cu_event done;
static uint8_t *host; /* page-locked: the pool, the tile, the plane table, a verdict */
static cu_address device;

static void must(const char *what, cu_result result)
{
	if (result == CU_SUCCESS)
		return;
	fprintf(stderr, "kernel_check: FAILED: %s: %s\n", what, ty_cuda_error_name(&api, result));
	exit(1);
}

static void finish(void)
{
	cu_result result;

	must("cuEventRecord", api.cuEventRecord(done, stream));
	while ((result = api.cuEventQuery(done)) == CU_NOT_READY)
		sched_yield();
	must("the stream", result);
}

static void run(cu_function function, unsigned grid, void *job)
{
	void *parameters[] = {job};

	must("cuLaunchKernel", api.cuLaunchKernel(function, grid, 1, 1, TY_KERNEL_THREADS, 1, 1, 0, stream, parameters, NULL));
}

struct shape {
	uint32_t run_bytes, planes, blocks, pool_blocks, grid;
};

/* Pool and tile go in, the kernel runs, both come out and are what the C makes of them. */
static void check(cu_function function, const struct shape *shape, bool scatter, bool keep, uint32_t seed)
{
	static uint8_t model[POOL_BYTES + TILE_BYTES];
	uint64_t *planes = (uint64_t *)(void *)(host + POOL_BYTES + TILE_BYTES), own[64];
	struct ty_gather_job job = {.planes = device + POOL_BYTES + TILE_BYTES, .tile = device + POOL_BYTES,
		.block_stride = shape->run_bytes + 64, .run_units = shape->run_bytes / TY_GATHER_UNIT, .plane_count = shape->planes,
		.block_limit = shape->pool_blocks, .block_count = shape->blocks,
		.keep = keep};
	struct ty_gather_job in_c = job;
	size_t bytes = POOL_BYTES + TILE_BYTES;

	for (uint32_t p = 0; p < shape->planes; p++) {
		uint64_t at = (uint64_t)p * shape->pool_blocks * (shape->run_bytes + 64);

		planes[p] = device + at;
		own[p] = (uintptr_t)model + at;
	}
	for (size_t i = 0; i < bytes / 4; i++)
		((uint32_t *)(void *)host)[i] = (uint32_t)(i + seed) * 2654435761u;
	memcpy(model, host, bytes);
	for (uint32_t b = 0; b < shape->blocks; b++) /* each once; every seventh is skipped */
		in_c.blocks[b] = job.blocks[b] = b % 7 == 3 ? TY_GATHER_SKIP : (b * 5 + seed) % shape->pool_blocks;
	in_c.planes = (uintptr_t)own;
	in_c.tile = (uintptr_t)(model + POOL_BYTES);
	must("a copy in", api.cuMemcpyHtoDAsync(device, host, bytes + shape->planes * 8, stream));
	run(function, shape->grid, &job);
	must("a copy out", api.cuMemcpyDtoHAsync(host, device, bytes, stream));
	finish();
	(scatter ? ty_scatter_c : ty_gather_c)(&in_c, 0, ty_gather_units(&in_c));
	for (size_t i = 0; i < bytes; i++)
		if (host[i] != model[i]) {
			fprintf(stderr, "kernel_check: FAILED: %s, runs of %u, %u planes, %u blocks: byte %zu of the %s holds %#x, expected "
				"%#x\n", scatter ? "scatter" : "gather", shape->run_bytes, shape->planes, shape->blocks,
				i < POOL_BYTES ? i : i - POOL_BYTES, i < POOL_BYTES ? "pool" : "tile", host[i], model[i]);
			exit(1);
		}
}

static void check_patterns(cu_function fill, cu_function look)
{
	cu_address verdict = device + POOL_BYTES + TILE_BYTES;
	struct ty_pattern_job job = {.seed = 11, .verdict = verdict, .words = 100, .run_count = 50};
	struct ty_pattern_verdict *found = (struct ty_pattern_verdict *)(void *)host;

	for (uint32_t r = 0; r < job.run_count; r++)
		job.runs[r] = (struct ty_pattern_place){device + r * 4096, r + 1, r * 7};
	*found = (struct ty_pattern_verdict){0, UINT64_MAX};
	must("a copy in", api.cuMemcpyHtoDAsync(verdict, host, sizeof *found, stream));
	run(fill, job.run_count, &job);
	job.runs[31].tag++; /* so that one run is wrong */
	run(look, job.run_count, &job);
	must("a copy out", api.cuMemcpyDtoHAsync(host, verdict, sizeof *found, stream));
	finish();
	if (found->count != job.words || found->first != (uint64_t)31 << 32) {
		fprintf(stderr, "kernel_check: FAILED: the pattern's check found %llu wrong words, first %#llx\n",
			(unsigned long long)found->count, (unsigned long long)found->first);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	static const struct shape shapes[] = {{16, 3, 9, 11, 1}, {4096, 8, 16, 17, 5}, {8192, 4, 40, 41, 64}, {2048, 64, 11, 12, 300},
		{48, 33, 1000, 1009, 7}, {1 << 20, 1, 2, 3, 132}};
	cu_function gather, scatter, fill, look;
	struct ty_error err = {0};
	cu_context context;
	cu_module module;
	cu_device gpu;

	if (ty_cuda_load(getenv("TYER_CUDA_DRIVER"), &api, &err) != TY_OK ||
		ty_cuda_context(&api, argc > 1 ? atoi(argv[1]) : 0, &gpu, &context, &err) != TY_OK) {
		fprintf(stderr, "kernel_check: FAILED: %s\n", err.text);
		return 1;
	}
	must("cuModuleLoadData", api.cuModuleLoadData(&module, ty_kernels_image));
	must("gather", api.cuModuleGetFunction(&gather, module, TY_KERNEL_GATHER));
	must("scatter", api.cuModuleGetFunction(&scatter, module, TY_KERNEL_SCATTER));
	must("fill", api.cuModuleGetFunction(&fill, module, TY_KERNEL_FILL));
	must("check", api.cuModuleGetFunction(&look, module, TY_KERNEL_CHECK));
	must("cuStreamCreate", api.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	must("cuEventCreate", api.cuEventCreate(&done, CU_EVENT_NO_TIMING));
	must("cuMemAlloc", api.cuMemAlloc(&device, POOL_BYTES + TILE_BYTES + 4096));
	must("cuMemHostAlloc", api.cuMemHostAlloc((void **)&host, POOL_BYTES + TILE_BYTES + 4096, CU_HOST_PORTABLE));
	for (unsigned i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
		check(gather, &shapes[i], false, false, i + 1);
		check(gather, &shapes[i], false, true, i + 1);
		check(scatter, &shapes[i], true, false, i + 1);
	}
	check_patterns(fill, look);
	must("cuMemFreeHost", api.cuMemFreeHost(host));
	must("cuMemFree", api.cuMemFree(device));
	must("cuEventDestroy", api.cuEventDestroy(done));
	must("cuStreamDestroy", api.cuStreamDestroy(stream));
	must("cuModuleUnload", api.cuModuleUnload(module));
	printf("kernel_check: all right\n");
	return 0;
}
