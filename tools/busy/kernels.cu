/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels.h"

extern "C" __global__ void __launch_bounds__(TY_BUSY_THREADS) ty_load_kernel(const __grid_constant__ ty_load_job job)
{
	const uint64_t step = (uint64_t)gridDim.x * TY_BUSY_THREADS;
	const uint4 *from = (const uint4 *)job.address;
	uint32_t sum = 0;

#pragma unroll 8
	for (uint64_t unit = blockIdx.x * (uint64_t)TY_BUSY_THREADS + threadIdx.x; unit < job.units; unit += step) {
		uint4 value = __ldcs(from + unit);

		sum += value.x ^ value.y ^ value.z ^ value.w;
	}
	if (sum == 0x7465726b)
		((uint32_t *)job.sink)[threadIdx.x & 3] = sum;
}

extern "C" __global__ void ty_spin_kernel(const __grid_constant__ ty_spin_job job)
{
	const volatile uint64_t *word = (const volatile uint64_t *)job.address;

	while (!*word)
		__nanosleep(1000);
}
