/* SPDX-License-Identifier: Apache-2.0
 *
 * Which way a group's blocks go. Pure functions: no device, no clock. What is known about the machine comes as a table of rates,
 * compiled in (measured on an H100) or from a calibration.
 *
 *   staged    a kernel gathers or scatters between the pool and dense staging, one long copy a chunk goes over the link
 *   direct    one copy a run, in turn over several streams
 *   batch     many runs in one call of the driver
 *   strided   rows at one pitch in one call: the planes of a block
 *
 * Copies go by the copy engines, which nobody else uses, and are preferred. A kernel is worth its while where they are slower: short runs.
 * It takes multiprocessors, and memory bandwidth three times over; beside a busy engine in another process each launch waits for a time
 * slice and takes one from the engine. Hence the sharing policy.
 */
#ifndef TY_DEVICE_PLAN_H
#define TY_DEVICE_PLAN_H

#include "device.h"

#define TY_PLAN_RUNS 10           /* run lengths of the table: 4 KiB, 8 KiB, ... 2 MiB */
#define TY_PLAN_RUN_LEAST 4096u
#define TY_PLAN_ROWS 64u          /* of the strided copies that the table tells of */
/* Parts of 1000. */
#define TY_PLAN_SAME 15u         /* ways without a kernel that are this near to each other are as fast as each other: what was measured in
                                  * milliseconds says no more */
#define TY_PLAN_GAIN 20u         /* a kernel must be faster than copies by more than this where nobody else uses the GPU (kernels reach 0.99
                                  * of the link there, and 0.97 is wanted) ... */
#define TY_PLAN_GAIN_BESIDE 60u  /* ... and by this where it costs an engine, which its launches hold up for a third of its step; and strided
                                  * copies, which are measured in memory of our own, are up to 7 % faster in another process's */
#define TY_PLAN_STRIDED_WITHIN 950u /* strided copies beside kernels of this process, of what they are beside another's */
#define TY_PLAN_OWNER_SHARE 16u  /* of a transfer's time that queueing copies may take of the owner's, where nobody else uses the GPU and
                                  * a kernel does as well: 10 us of the 600 that 32 MiB take */

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
	uint32_t copy_ns; /* of one more strided copy; of a row that one has less, a part of it */
	uint32_t owner_ns[TY_PATHS]; /* of the owner's time: a run (direct, batch), a strided copy ... */
	uint32_t owner_call_ns;      /* ... and what else queueing them takes */
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

/* Whose kernels run beside ours. */
enum ty_plan_beside {
	TY_PLAN_ALONE,  /* nobody's */
	TY_PLAN_BESIDE, /* an engine's in another process: in turns, by time slices */
	TY_PLAN_WITHIN, /* an engine's in this process: at once, so that ours wait for nothing, and take something of all that there is */
};

/* Nanoseconds that `blocks` blocks take: their copies, or twice what queueing them takes the owner, if that is more. */
uint64_t ty_plan_cost(const struct ty_plan_rates *rates, const struct ty_plan_shape *shape, enum ty_path path,
	uint64_t blocks, enum ty_direction direction, enum ty_plan_beside beside);

/* Who else uses the GPU, and what may be done about it. */
struct ty_plan_policy {
	enum ty_sharing sharing;
	bool busy;       /* an engine was noticed */
	bool in_process; /* it is this process: at work for all we know */
};
/* The way that is to be taken among `allowed` (bits); DIRECT is always allowed. Without a kernel the one that costs least, and of those that
 * are as fast as each other the one that asks less of the processor; with one if that is faster by a margin (TY_PLAN_GAIN); or
 * as fast, where nobody else uses the GPU and queueing copies costs the owner (TY_PLAN_OWNER_SHARE). */
enum ty_path ty_plan_choose(const struct ty_plan_rates *rates, const struct ty_plan_shape *shape, uint64_t blocks,
	enum ty_direction direction, unsigned allowed, const struct ty_plan_policy *policy);

#endif
