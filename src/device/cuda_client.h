/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine's side of a GPU: what an inference engine does with its own memory, for the load generator, the examples
 * and the tests. Not used by the service. One thread per object.
 */
#ifndef TY_DEVICE_CUDA_CLIENT_H
#define TY_DEVICE_CUDA_CLIENT_H

#include <tyer/client.h>

struct ty_cuda_client; /* a context and two streams on one GPU */

/* driver: null = "libcuda.so.1". */
TY_MUST_USE enum ty_code ty_cuda_client_open(const char *driver, int ordinal, struct ty_cuda_client **out,
	struct ty_error *err);
void ty_cuda_client_close(struct ty_cuda_client *c);
void ty_cuda_client_uuid(const struct ty_cuda_client *c, uint8_t uuid[TY_UUID_BYTES]);

/* Its own stream of either direction, a CUstream: for stream.h. Everything above and below goes through these two. */
void *ty_cuda_client_stream(struct ty_cuda_client *c, bool to_host);
/* A copy that is queued behind what the stream of its direction holds, host memory page-locked. */
TY_MUST_USE enum ty_code ty_cuda_client_queue(struct ty_cuda_client *c, bool to_host, void *host, uint64_t device, uint64_t bytes,
	struct ty_error *err);
/* Is all that was queued there done? Never waits. */
TY_MUST_USE enum ty_code ty_cuda_client_done(struct ty_cuda_client *c, bool to_host, bool *done, struct ty_error *err);

/* Memory of one allocation, its legacy IPC handle filled into region (offset 0, length = allocation). */
TY_MUST_USE enum ty_code ty_cuda_client_alloc(struct ty_cuda_client *c, uint64_t bytes, uint64_t *address,
	struct ty_region *region, struct ty_error *err);
void ty_cuda_client_free(struct ty_cuda_client *c, uint64_t address);

/* The same in pieces (cuMemCreate), `count` of `bytes` each, a multiple of 2 MiB, mapped one behind the other; fds are theirs, for
 * ty_segment, and the caller's to close. */
TY_MUST_USE enum ty_code ty_cuda_client_alloc_pieces(struct ty_cuda_client *c, uint32_t count, uint64_t bytes, uint64_t *address,
	int *fds, struct ty_error *err);
void ty_cuda_client_free_pieces(struct ty_cuda_client *c, uint64_t address, uint32_t count, uint64_t bytes);

/* Page-locked host memory (for raw-copy baselines and for filling). */
TY_MUST_USE enum ty_code ty_cuda_client_host_alloc(struct ty_cuda_client *c, uint64_t bytes, void **out, struct ty_error *err);
void ty_cuda_client_host_free(struct ty_cuda_client *c, void *memory);

/* Copies that are finished on return. */
TY_MUST_USE enum ty_code ty_cuda_client_write(struct ty_cuda_client *c, uint64_t to, const void *from, uint64_t bytes, struct ty_error *err);
TY_MUST_USE enum ty_code ty_cuda_client_read(struct ty_cuda_client *c, void *to, uint64_t from, uint64_t bytes, struct ty_error *err);

/* Fill or check `runs` runs of the pool by kernel (kernels/pattern.h): run i lies at runs[i].address, is `words` 64-bit words
 * long and holds ty_pattern_word(seed, tag, first_word + j). check counts wrong words and reports the first. Finished on return. */
struct ty_pattern_run {
	uint64_t address;
	uint32_t tag;        /* which chunk the contents belong to */
	uint32_t first_word; /* index in the chunk of the run's first word */
};
struct ty_pattern_wrong {
	uint64_t count;      /* wrong words */
	uint64_t run, word;  /* the first wrong one found: run index, word in the run */
	uint64_t found;      /* what it held */
};
TY_MUST_USE enum ty_code ty_cuda_client_fill(struct ty_cuda_client *c, uint64_t seed, const struct ty_pattern_run *runs,
	uint32_t count, uint32_t words, struct ty_error *err);
TY_MUST_USE enum ty_code ty_cuda_client_check(struct ty_cuda_client *c, uint64_t seed, const struct ty_pattern_run *runs,
	uint32_t count, uint32_t words, struct ty_pattern_wrong *wrong, struct ty_error *err);

/* Raw contiguous pinned copy of `bytes` between `host` and `device`, timed by events on a stream: seconds, of one copy. For the
 * ratio that benchmarks report. */
TY_MUST_USE enum ty_code ty_cuda_client_time_copy(struct ty_cuda_client *c, bool to_host, void *host, uint64_t device,
	uint64_t bytes, double *seconds, struct ty_error *err);
/* The same both ways at once, `copies` of `bytes` each way between memory of its own: seconds of all. */
TY_MUST_USE enum ty_code ty_cuda_client_time_both(struct ty_cuda_client *c, void *host[2], const uint64_t device[2], uint64_t bytes,
	uint32_t copies, double *seconds, struct ty_error *err);
/* Start a kernel of an image, one thread block of TY_KERNEL_THREADS, with a job by value, on its stream to the host; returns at once. Once a
 * client: whoever starts one is about to be killed with it (tools/busy). */
TY_MUST_USE enum ty_code ty_cuda_client_launch(struct ty_cuda_client *c, const void *image, const char *kernel, const void *job,
	struct ty_error *err);
/* Device memory that is free and in all, of the whole GPU. */
TY_MUST_USE enum ty_code ty_cuda_client_memory(struct ty_cuda_client *c, uint64_t *free_bytes, uint64_t *total_bytes, struct ty_error *err);

#endif
