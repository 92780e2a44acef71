/* SPDX-License-Identifier: Apache-2.0
 *
 * Which way a group's blocks go. Pure functions: no device, no clock. What is known about the machine comes as a table of rates,
 * compiled in (measured on an H200) or from a calibration.
 *
 *   staged    a kernel gathers or scatters between the pool and dense staging, one long copy a chunk goes over the link
 *   direct    one copy a run, in turn over several streams
 *   batch     many runs in one call of the driver
 *   strided   rows at one pitch in one call: the planes of a block
 *
 * Kernels are the fastest where the GPU is ours. Beside a busy engine in another process each launch waits for a time slice and
 * takes one from the engine; copy engines run beside it. Hence the sharing policy.
 */
#ifndef TY_DEVICE_PLAN_H
#define TY_DEVICE_PLAN_H

#include "device.h"

#define TY_PLAN_RUNS 10           /* run lengths of the table: 4 KiB, 8 KiB, ... 2 MiB */
#define TY_PLAN_RUN_LEAST 4096u
#define TY_PLAN_ROWS 64u          /* of the strided copies that the table tells of */
#define TY_PLAN_SAME 50u          /* of 1000: paths this near to each other are as fast as each other: a rate that was measured in 3 ms */
#define TY_PLAN_SAME_BESIDE 15u   /* the same beside an engine, where it was measured for longer and the order costs the engine */

/* Consecutive planes of a group as one or more rows at one pitch. Planes that lie one behind the other in pool and slot are one
 * row; rows of one length at one distance, inside one allocation, are one span. */
struct ty_span {
	uint32_t first;  /* plane of the group */
	uint32_t rows;
	uint64_t bytes;  /* of a row; in the slot the next row follows at once */
	uint64_t pitch;  /* from a row to the next in the pool; 0 when there is one */
};

/* What the choice depends on. */
struct ty_plan_shape {
	uint64_t block_bytes; /* of all planes of a block */
	uint32_t runs;        /* that a block is made of, planes joined */
	uint32_t spans;       /* the same in strided copies */
};

/* MB/s by [direction][run length], and what an operation costs beside that. */
struct ty_plan_rates {
	uint32_t alone[TY_PATHS][2][TY_PLAN_RUNS];
	uint32_t beside[TY_PATHS][2][TY_PLAN_RUNS]; /* a busy engine of another process */
	uint32_t fixed_ns[TY_PATHS];
	uint32_t copy_ns; /* of one more strided copy */
};
extern const struct ty_plan_rates ty_plan_defaults;

#define TY_PLAN_BIT(path) (1u << (path))

/* Cut `count` planes of run_bytes into rows: out[i].rows is 1. `address` is where block 0 of each plane lies, `allocation` tells
 * allocations apart. Room for `count` spans. Returns how many there are. */
uint32_t ty_plan_join(const uint64_t *address, const uint32_t *allocation, uint32_t count, uint64_t run_bytes,
	struct ty_span *out);
/* Put rows (of ty_plan_join) together, to a pitch of at most max_pitch; in place. Returns how many spans are left. */
uint32_t ty_plan_stride(struct ty_span *spans, uint32_t count, const uint64_t *address, const uint32_t *allocation,
	uint64_t max_pitch);

/* Nanoseconds that `blocks` blocks take. */
uint64_t ty_plan_cost(const struct ty_plan_rates *rates, const struct ty_plan_shape *shape, enum ty_path path,
	uint64_t blocks, enum ty_direction direction, bool beside);
/* The way that costs least among `allowed` (bits); DIRECT is always allowed. Among ways that are as fast as each other
 * (TY_PLAN_SAME) the one that asks less of the processor; beside an engine, of the engine. */
enum ty_path ty_plan_choose(const struct ty_plan_rates *rates, const struct ty_plan_shape *shape, uint64_t blocks,
	enum ty_direction direction, unsigned allowed, enum ty_sharing sharing, bool busy);

#endif
