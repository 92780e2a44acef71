/* SPDX-License-Identifier: Apache-2.0 */
#include "gather.h"

#include <stdbool.h>
#include <string.h>

#include "pattern.h"

static unsigned char *at(uint64_t address)
{
	return (unsigned char *)(uintptr_t)address;
}

/* Run by run, each as far as [first, first + count) reaches into it. */
static void move(const struct ty_gather_job *job, uint64_t first, uint64_t count, bool scatter)
{
	const uint64_t *planes = (const uint64_t *)(const void *)at(job->planes);
	uint64_t end = first + count;

	while (first < end) {
		uint64_t run = first / job->run_units, within = first % job->run_units;
		uint64_t units = job->run_units - within < end - first ? job->run_units - within : end - first;
		uint32_t block = job->blocks[run / job->plane_count];
		unsigned char *tile = at(job->tile) + first * TY_GATHER_UNIT;
		size_t bytes = (size_t)units * TY_GATHER_UNIT;

		if (block < job->block_limit) {
			unsigned char *pool = at(planes[run % job->plane_count]) +
				(uint64_t)block * job->block_stride + within * TY_GATHER_UNIT;

			if (scatter)
				memcpy(pool, tile, bytes);
			else
				memcpy(tile, pool, bytes);
		} else if (!scatter) {
			memset(tile, 0, bytes);
		}
		first += units;
	}
}

void ty_gather_c(const struct ty_gather_job *job, uint64_t first, uint64_t count)
{
	move(job, first, count, false);
}

void ty_scatter_c(const struct ty_gather_job *job, uint64_t first, uint64_t count)
{
	move(job, first, count, true);
}

void ty_pattern_fill_c(const struct ty_pattern_job *job)
{
	for (uint32_t r = 0; r < job->run_count; r++) {
		uint64_t *words = (uint64_t *)(void *)at(job->runs[r].address);

		for (uint32_t w = 0; w < job->words; w++)
			words[w] = ty_pattern_word(job->seed, job->runs[r].tag, job->runs[r].first_word + w);
	}
}

void ty_pattern_check_c(const struct ty_pattern_job *job)
{
	struct ty_pattern_verdict *verdict = (struct ty_pattern_verdict *)(void *)at(job->verdict);

	for (uint32_t r = 0; r < job->run_count; r++) {
		const uint64_t *words = (const uint64_t *)(const void *)at(job->runs[r].address);

		for (uint32_t w = 0; w < job->words; w++) {
			uint64_t place = (uint64_t)(job->first_run + r) << 32 | w;

			if (words[w] == ty_pattern_word(job->seed, job->runs[r].tag, job->runs[r].first_word + w))
				continue;
			verdict->count++;
			if (place < verdict->first)
				verdict->first = place;
		}
	}
}
