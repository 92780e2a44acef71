/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernels. Their contract is gather.h; gather.c is the same in C, and the tests hold one against the other.
 *
 * A job's units are numbered through the tile, so that neighbouring threads move neighbouring 16 bytes on both sides. Each thread
 * issues TY_KERNEL_UNITS_EACH loads before its first store: loads in flight are what HBM wants. The pool is read and written
 * past the caches (it is not touched again soon); the tile is not, because the copy engine reads it next. Beside an engine's kernels, which
 * stream more through the L2 cache than it holds while a tile is copied, a small tile asks to stay (job.keep): then its way through HBM, out
 * and in again, is spared them.
 */
#include "gather.h"
#include "pattern.h"

/* Where unit `unit` of the tile lies in the pool; false when its block is not to be touched, and then somewhere in block 0. Not a null
 * pointer: a load that a test of it guards was seen to run all the same. */
template <typename Job> __device__ __forceinline__ bool in_pool(const Job &job, uint32_t unit, uint4 **at)
{
	uint32_t run = unit / job.run_units;
	uint32_t within = unit - run * job.run_units;
	uint32_t index = run / job.plane_count;
	uint32_t plane = run - index * job.plane_count;
	uint32_t block = job.blocks[index];
	bool touched = block < job.block_limit;
	uint64_t base = __ldg((const unsigned long long *)job.planes + plane);

	*at = (uint4 *)(base + (touched ? block : 0) * job.block_stride) + within;
	return touched;
}

__device__ __forceinline__ void store_kept(uint4 *at, uint4 value, uint64_t policy)
{
	asm volatile("st.global.L2::cache_hint.v4.u32 [%0], {%1, %2, %3, %4}, %5;" ::"l"(at), "r"(value.x), "r"(value.y), "r"(value.z),
		"r"(value.w), "l"(policy)
		: "memory");
}

template <typename Job> __device__ __forceinline__ void gather(const Job &job)
{
	const uint32_t total = job.block_count * job.plane_count * job.run_units;
	const uint32_t step = TY_KERNEL_THREADS * TY_KERNEL_UNITS_EACH;
	uint4 *tile = (uint4 *)job.tile;
	uint64_t kept;

	asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(kept));
	for (uint32_t base = blockIdx.x * step; base < total; base += gridDim.x * step) {
		uint4 value[TY_KERNEL_UNITS_EACH];

#pragma unroll
		for (uint32_t i = 0; i < TY_KERNEL_UNITS_EACH; i++) {
			uint32_t unit = base + i * TY_KERNEL_THREADS + threadIdx.x;

			value[i] = make_uint4(0, 0, 0, 0);
			if (unit < total) {
				uint4 *from;
				bool touched = in_pool(job, unit, &from);
				uint4 found = __ldcs(from);

				if (touched)
					value[i] = found;
			}
		}
#pragma unroll
		for (uint32_t i = 0; i < TY_KERNEL_UNITS_EACH; i++) {
			uint32_t unit = base + i * TY_KERNEL_THREADS + threadIdx.x;

			if (unit >= total)
				continue;
			if (job.keep)
				store_kept(tile + unit, value[i], kept);
			else
				tile[unit] = value[i];
		}
	}
}

template <typename Job> __device__ __forceinline__ void scatter(const Job &job)
{
	const uint32_t total = job.block_count * job.plane_count * job.run_units;
	const uint32_t step = TY_KERNEL_THREADS * TY_KERNEL_UNITS_EACH;
	const uint4 *tile = (const uint4 *)job.tile;

	for (uint32_t base = blockIdx.x * step; base < total; base += gridDim.x * step) {
		uint4 value[TY_KERNEL_UNITS_EACH];

#pragma unroll
		for (uint32_t i = 0; i < TY_KERNEL_UNITS_EACH; i++) {
			uint32_t unit = base + i * TY_KERNEL_THREADS + threadIdx.x;

			if (unit < total)
				value[i] = __ldcs(tile + unit);
		}
#pragma unroll
		for (uint32_t i = 0; i < TY_KERNEL_UNITS_EACH; i++) {
			uint32_t unit = base + i * TY_KERNEL_THREADS + threadIdx.x;

			if (unit < total) {
				uint4 *to;

				if (in_pool(job, unit, &to))
					__stcs(to, value[i]);
			}
		}
	}
}

extern "C" __global__ void __launch_bounds__(TY_KERNEL_THREADS) ty_gather_kernel(const __grid_constant__ ty_gather_job job)
{
	gather(job);
}

extern "C" __global__ void __launch_bounds__(TY_KERNEL_THREADS) ty_scatter_kernel(const __grid_constant__ ty_gather_job job)
{
	scatter(job);
}

extern "C" __global__ void __launch_bounds__(TY_KERNEL_THREADS) ty_gather_few_kernel(const __grid_constant__ ty_gather_few job)
{
	gather(job);
}

extern "C" __global__ void __launch_bounds__(TY_KERNEL_THREADS) ty_scatter_few_kernel(const __grid_constant__ ty_gather_few job)
{
	scatter(job);
}

/* One thread block a run. */
extern "C" __global__ void __launch_bounds__(TY_KERNEL_THREADS)
	ty_pattern_fill_kernel(const __grid_constant__ ty_pattern_job job)
{
	const ty_pattern_place &run = job.runs[blockIdx.x];
	uint64_t *words = (uint64_t *)run.address;

	for (uint32_t w = threadIdx.x; w < job.words; w += TY_KERNEL_THREADS)
		words[w] = ty_pattern_word(job.seed, run.tag, run.first_word + w);
}

extern "C" __global__ void __launch_bounds__(TY_KERNEL_THREADS)
	ty_pattern_check_kernel(const __grid_constant__ ty_pattern_job job)
{
	const ty_pattern_place &run = job.runs[blockIdx.x];
	const uint64_t *words = (const uint64_t *)run.address;
	unsigned long long wrong = 0, first = ~0ull;

	for (uint32_t w = threadIdx.x; w < job.words; w += TY_KERNEL_THREADS) {
		if (words[w] == ty_pattern_word(job.seed, run.tag, run.first_word + w))
			continue;
		if (!wrong++)
			first = (unsigned long long)(job.first_run + blockIdx.x) << 32 | w;
	}
	if (wrong) {
		ty_pattern_verdict *verdict = (ty_pattern_verdict *)job.verdict;

		atomicAdd((unsigned long long *)&verdict->count, wrong);
		atomicMin((unsigned long long *)&verdict->first, first);
	}
}
