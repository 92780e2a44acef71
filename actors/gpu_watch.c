/* SPDX-License-Identifier: Apache-2.0
 *
 * Does a device still move? Asked from outside, of what its owner shows: an owner that sits in a call cannot be asked itself.
 */
#include <time.h>

#include "service.h"

struct ty_gpu_stuck ty_gpu_stuck(const struct ty_gpu_stats *stats)
{
	struct ty_gpu_stuck stuck = {0};
	int64_t now, oldest, since;
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	now = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
	stuck.call = atomic_load_explicit(&stats->call.name, memory_order_acquire); /* pairs with ty_call_begin */
	since = atomic_load_explicit(&stats->call.since, memory_order_relaxed);
	if (stuck.call && since > 0 && now > since)
		stuck.call_ns = now - since;
	oldest = atomic_load_explicit(&stats->oldest, memory_order_relaxed);
	if (oldest > 0 && now > oldest)
		stuck.copy_ns = now - oldest;
	return stuck;
}

bool ty_gpu_stalled(const struct ty_service *service, uint32_t device)
{
	const struct ty_gpu_stats *stats = &service->gpu_stats[device];

	/* acquire: pairs with the owner's release */
	return atomic_load_explicit(&stats->state, memory_order_acquire) == TY_GPU_STALLED ||
	       ty_gpu_stuck(stats).call_ns > (int64_t)service->config->gpu_stall_after_us * 1000;
}
