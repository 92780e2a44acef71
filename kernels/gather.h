/* SPDX-License-Identifier: Apache-2.0
 *
 * What the kernels are told. C and CUDA; the structs travel by value in a kernel's parameters, of which every driver takes 4 KiB,
 * so no job needs a copy of its own.
 *
 * A tile is dense: [block][plane][run], in the order of blocks[] and planes[]. Gather fills it from the pool, scatter writes it
 * to the pool. Everything is counted in units of 16 bytes, which is what one thread moves at once.
 */
#ifndef TY_KERNELS_GATHER_H
#define TY_KERNELS_GATHER_H

#include <stddef.h>
#include <stdint.h>

#define TY_GATHER_UNIT 16u
#define TY_GATHER_BLOCKS 1000u      /* of one job */
#define TY_GATHER_SKIP UINT32_MAX   /* TY_BLOCK_SKIP */
#define TY_GATHER_UNITS_MAX (1u << 26) /* of one job on a GPU: 1 GiB; keeps its arithmetic in 32 bits */

struct ty_gather_job {
	uint64_t planes;       /* address of plane_count addresses: where block 0 of each plane lies */
	uint64_t tile;         /* address */
	uint64_t block_stride; /* bytes from a plane's block to its next */
	uint32_t run_units;
	uint32_t plane_count;
	uint32_t block_limit;  /* blocks of the pool: an id at or past it is not touched */
	uint32_t block_count;  /* of this job */
	uint32_t keep;         /* not 0: the tile is small and soon read, so let the L2 cache keep it in place of other lines */
	uint32_t unused;
	uint32_t blocks[TY_GATHER_BLOCKS];
};

/* The same with few blocks: its beginning is all that a kernel for few is given. */
#define TY_GATHER_FEW 116u
struct ty_gather_few {
	uint64_t planes, tile, block_stride;
	uint32_t run_units, plane_count, block_limit, block_count, keep, unused;
	uint32_t blocks[TY_GATHER_FEW];
};

/* Fill or check runs with ty_pattern_word (pattern.h). */
#define TY_PATTERN_RUNS 248u
struct ty_pattern_place {
	uint64_t address;
	uint32_t tag, first_word;
};
struct ty_pattern_job {
	uint64_t seed;
	uint64_t verdict;   /* check: address of a struct ty_pattern_verdict */
	uint32_t words;     /* 64-bit words of a run */
	uint32_t run_count;
	uint32_t first_run; /* number of runs[0], for the verdict */
	uint32_t unused;
	struct ty_pattern_place runs[TY_PATTERN_RUNS];
};
struct ty_pattern_verdict {
	uint64_t count; /* wrong words */
	uint64_t first; /* the least (run << 32 | word) of them; all ones when there is none */
};

/* Names in the image. */
#define TY_KERNEL_GATHER "ty_gather_kernel"
#define TY_KERNEL_SCATTER "ty_scatter_kernel"
#define TY_KERNEL_GATHER_FEW "ty_gather_few_kernel"
#define TY_KERNEL_SCATTER_FEW "ty_scatter_few_kernel"
#define TY_KERNEL_FILL "ty_pattern_fill_kernel"
#define TY_KERNEL_CHECK "ty_pattern_check_kernel"
#define TY_KERNEL_THREADS 256u       /* of a thread block */
#define TY_KERNEL_UNITS_EACH 4u      /* that a thread has in flight at once */

/* ---- the same contract in C ---------------------------------------------------------------- */

#ifndef __CUDACC__

static inline uint64_t ty_gather_units(const struct ty_gather_job *job)
{
	return (uint64_t)job->block_count * job->plane_count * job->run_units;
}

/* Move units [first, first + count) of the job; ty_gather_units says how many it has. A tile's units whose block is not touched:
 * gather writes zeros there (what is left in a tile is another client's), scatter ignores them. */
void ty_gather_c(const struct ty_gather_job *job, uint64_t first, uint64_t count);
void ty_scatter_c(const struct ty_gather_job *job, uint64_t first, uint64_t count);

void ty_pattern_fill_c(const struct ty_pattern_job *job);
void ty_pattern_check_c(const struct ty_pattern_job *job);

/* The kernels' image: a fatbin. 0 bytes when this build has none. */
extern const unsigned char ty_kernels_image[];
extern const unsigned long ty_kernels_image_bytes;

_Static_assert(sizeof(struct ty_gather_job) <= 4096, "kernel parameters of every driver");
_Static_assert(offsetof(struct ty_gather_few, blocks) == offsetof(struct ty_gather_job, blocks), "one is the other's beginning");
_Static_assert(sizeof(struct ty_pattern_job) <= 4096, "kernel parameters of every driver");

#endif
#endif
