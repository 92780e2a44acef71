/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks of memory for messages. Each thread that runs actors has pools of its own, one a size class, made at its first
 * ty_block_new. A block that is freed elsewhere goes home: it is pushed to the class's return stack, which its owner takes
 * whole when its own list is empty.
 *
 *            who with whom          take, put   send home   count
 *            take, put (its thread) no          yes         yes
 *            send home              yes         yes         yes
 *
 * The pools hang on the thread's seat, and go to the next thread that has it; they end with the runtime.
 */
#ifndef TY_RUNTIME_POOL_H
#define TY_RUNTIME_POOL_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <tyer/actor.h>

struct ty_block;
struct ty_seat;
struct ty_slab;

#define TY_POOL_CLASSES 8    /* blocks of 64, 128, ... 8192 bytes, their header included */
#define TY_POOL_SMALLEST 64

struct ty_pool {
	/* its thread's */
	struct ty_block *free;
	struct ty_slab *slabs;
	size_t size;                /* of a block; constant */
	uint64_t made, limit;       /* blocks */
	const struct ty_seat *seat; /* constant */
	_Atomic(uint64_t) taken, put, busy; /* written by its thread, read by anyone; relaxed */
	/* anyone's: pushed with release, taken whole with acquire */
	alignas(64) _Atomic(struct ty_block *) returned;
	_Atomic(uint64_t) sent_home; /* relaxed: a statistic */
};

struct ty_pools {
	struct ty_pool classes[TY_POOL_CLASSES];
};

void ty_pools_free(struct ty_pools *pools); /* null: nothing */
/* Blocks that are not at home now, and how often there was none left. Caller: anyone. */
void ty_pools_count(const struct ty_pools *pools, uint64_t *out, uint64_t *busy);

#endif
