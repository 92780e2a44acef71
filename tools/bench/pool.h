/* SPDX-License-Identifier: Apache-2.0
 *
 * The load generator's KV pool, as an engine would have it: in a sealed memfd (pool_host.c) or in GPU memory
 * (pool_cuda.c), behind one small table of functions. One thread per pool; made after any fork.
 */
#ifndef TY_BENCH_POOL_H
#define TY_BENCH_POOL_H

#include <tyer/client.h>

#include "contents.h"

struct bench_pool;

struct bench_pool_ops {
	void (*close)(struct bench_pool *pool);
	enum ty_code (*fill)(struct bench_pool *pool, uint64_t seed, const struct bench_item *items, uint32_t count,
		struct ty_error *err);
	enum ty_code (*check)(struct bench_pool *pool, uint64_t seed, const struct bench_item *items, uint32_t count,
		struct bench_wrong *wrong, struct ty_error *err);
	enum ty_code (*raw_copy)(struct bench_pool *pool, bool to_host, uint64_t bytes, double *seconds,
		struct ty_error *err);
	enum ty_code (*free_memory)(struct bench_pool *pool, uint64_t *bytes, struct ty_error *err);
};

struct bench_pool {
	const struct bench_pool_ops *ops;
	struct bench_shape shape;
	uint32_t block_count;
	uint64_t bytes;
	uint64_t block_stride, plane_stride; /* block b of declared plane p at p * plane_stride + b * block_stride */
	struct ty_region region;             /* for REGISTER */
	bool any_device;                     /* no uuid of its own: the service's host device */
	uint8_t device[TY_UUID_BYTES];
	uint64_t slice_bytes; /* fill or check about this much at a time, so that completions are noticed between */
};

/* device: "host" or "cuda:N"; driver: null = libcuda.so.1. At most INT32_MAX blocks. */
TY_MUST_USE enum ty_code bench_pool_open(const char *device, const char *driver, const struct bench_shape *shape,
	uint32_t block_count, struct bench_pool **out, struct ty_error *err);
void bench_pool_close(struct bench_pool *pool); /* null is allowed */

/* Let the items' blocks hold the contents that (seed, tag) say. Finished on return. */
TY_MUST_USE enum ty_code bench_pool_fill(struct bench_pool *pool, uint64_t seed, const struct bench_item *items,
	uint32_t count, struct ty_error *err);
/* Do they? A wrong word is no error of the call. */
TY_MUST_USE enum ty_code bench_pool_check(struct bench_pool *pool, uint64_t seed, const struct bench_item *items,
	uint32_t count, struct bench_wrong *wrong, struct ty_error *err);
/* Seconds of one contiguous copy of `bytes` (at most the pool's) between the pool and other memory: page-locked host
 * memory for a GPU, ordinary memory for the host. To the pool it overwrites what was there. */
TY_MUST_USE enum ty_code bench_pool_raw_copy(struct bench_pool *pool, bool to_host, uint64_t bytes, double *seconds,
	struct ty_error *err);
/* Free memory of the pool's device. TY_UNSUPPORTED of the host. */
TY_MUST_USE enum ty_code bench_pool_free_memory(struct bench_pool *pool, uint64_t *bytes, struct ty_error *err);

/* For REGISTER: the pool as the wire wants it. `planes` has room for shape.run_count entries; all must outlive *out. */
void bench_pool_declare(const struct bench_pool *pool, const uint8_t device[TY_UUID_BYTES], struct ty_plane *planes,
	struct ty_group *group, struct ty_pool *out);
/* The service's device on which this pool lies, by uuid. */
TY_MUST_USE enum ty_code bench_pool_find_device(const struct bench_pool *pool, const struct ty_client_info *info,
	uint8_t device[TY_UUID_BYTES], struct ty_error *err);

/* The two kinds. `pool` comes with shape, sizes and strides set; they allocate and fill in the rest. */
TY_MUST_USE enum ty_code bench_pool_host_open(const struct bench_pool *plan, struct bench_pool **out,
	struct ty_error *err);
TY_MUST_USE enum ty_code bench_pool_cuda_open(const struct bench_pool *plan, const char *driver, int ordinal,
	struct bench_pool **out, struct ty_error *err);

#endif
