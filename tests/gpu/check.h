/* SPDX-License-Identifier: Apache-2.0
 *
 * What device_check's two processes share: the cases, and what the one asks of the other.
 *
 *   owner (device_check.c)   opens the device as the service does, maps, stores, retrieves, measures
 *   client (client.c)        is the engine: owns the pool, fills it and looks at it
 */
#ifndef TY_GPU_CHECK_H
#define TY_GPU_CHECK_H

#include "device/cuda_client.h"
#include "unit/device/pools.h"

#define CHECK_MAX_CHUNK ((uint64_t)64 << 20)
#define CHECK_SEED 0x7465726879ull
#define CHECK_WIPE_SEED 0x706977ull

/* A pool to measure with: one region, `planes` planes of blocks of 16 tokens; or one of the small pools (unit/device/pools.c). */
struct check_case {
	const char *name;
	int small;           /* index of a small pool; -1: none */
	uint32_t run_bytes, planes, blocks_per_chunk, chunks;
	bool cross_layer;    /* [block][plane] in place of [plane][block] */
};

enum check_verb {
	CHECK_ALLOC,    /* of a case: regions come back */
	CHECK_FREE,
	CHECK_WIPE,     /* every byte of the pool */
	CHECK_FILL,     /* the blocks of `chunks` chunks, ids drawn by ids_seed, with their pattern */
	CHECK_RUNS,     /* do these blocks hold the pattern? skipped ones are not looked at */
	CHECK_ALL,      /* the same, and every other byte of the pool is as wiped */
	CHECK_RAW,      /* seconds of one contiguous copy of `bytes`, median of `repeats` */
	CHECK_RAW_BOTH, /* of `bytes` each way at once, mean of `repeats` in a row */
	CHECK_MEMORY,   /* of the GPU, that is free */
};
struct check_order {
	enum check_verb verb;
	struct check_case which;
	uint32_t chunks, repeats;
	bool skip, to_host;
	uint64_t ids_seed, bytes;
};
struct check_answer {
	enum ty_code code;
	struct ty_error err;
	struct ty_region regions[TY_MAX_REGIONS];
	double seconds;
	uint64_t bytes;
};

/* The case's pool (regions without memory) and how it is filled. */
void check_build(const struct check_case *which, struct test_pool *out);

/* Start the client; before this process calls the driver. Ask it: the answer's code is not TY_OK when it could not, or when
 * what it looked at is wrong (then the text says where). */
TY_MUST_USE enum ty_code check_client_start(const char *driver, int ordinal, struct ty_error *err);
TY_MUST_USE enum ty_code check_ask(const struct check_order *order, struct check_answer *answer, struct ty_error *err);
void check_client_stop(void);

#endif
