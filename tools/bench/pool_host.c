/* SPDX-License-Identifier: Apache-2.0
 *
 * A pool in host memory: a memfd sealed against any change of size, as the service's host device wants it.
 */
#include "pool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct pool_host {
	struct bench_pool pool;
	uint8_t *base;
	uint8_t *other; /* the raw copies' other end; made by the first one */
	uint64_t other_bytes;
	int fd;
};

static struct pool_host *host_of(struct bench_pool *pool)
{
	return (struct pool_host *)pool; /* its first member */
}

static uint8_t *run_at(struct pool_host *h, uint32_t block, uint32_t run)
{
	return h->base + run * h->pool.plane_stride + block * h->pool.block_stride;
}

static void host_close(struct bench_pool *pool)
{
	struct pool_host *h = host_of(pool);

	if (h->base)
		munmap(h->base, pool->bytes);
	if (h->other)
		munmap(h->other, h->other_bytes);
	if (h->fd >= 0)
		close(h->fd);
	free(h);
}

static enum ty_code host_fill(struct bench_pool *pool, uint64_t seed, const struct bench_item *items, uint32_t count,
	struct ty_error *err)
{
	const struct bench_shape *s = &pool->shape;

	(void)err;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t first = 0;

		for (uint32_t b = 0; b < s->blocks_per_chunk; b++)
			for (uint32_t r = 0; r < s->run_count; r++, first += s->run_words)
				bench_fill_run(run_at(host_of(pool), items[i].blocks[b], r), seed, items[i].tag, first,
					s->run_words);
	}
	return TY_OK;
}

static enum ty_code host_check(struct bench_pool *pool, uint64_t seed, const struct bench_item *items, uint32_t count,
	struct bench_wrong *wrong, struct ty_error *err)
{
	const struct bench_shape *s = &pool->shape;

	(void)err;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t first = 0, where;
		uint64_t before = wrong->words, found;

		for (uint32_t b = 0; b < s->blocks_per_chunk; b++) {
			for (uint32_t r = 0; r < s->run_count; r++, first += s->run_words) {
				uint32_t bad = bench_check_run(run_at(host_of(pool), items[i].blocks[b], r), seed,
					items[i].tag, first, s->run_words, &where, &found);

				if (bad && wrong->words == 0) {
					wrong->first_item = i;
					wrong->first_index = first + where;
					wrong->first_found = found;
				}
				wrong->words += bad;
			}
		}
		wrong->chunks += wrong->words != before;
	}
	return TY_OK;
}

static double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static enum ty_code host_raw_copy(struct bench_pool *pool, bool to_host, uint64_t bytes, double *seconds,
	struct ty_error *err)
{
	struct pool_host *h = host_of(pool);
	double start;

	if (h->other_bytes < bytes) {
		void *other = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (other == MAP_FAILED)
			return ty_fail(err, TY_NO_MEMORY, "raw copy: %llu bytes: %s", (unsigned long long)bytes, strerror(errno));
		if (h->other)
			munmap(h->other, h->other_bytes);
		h->other = other;
		h->other_bytes = bytes;
		memset(other, 0x5a, bytes); /* the first touch is not part of the copy */
	}
	start = seconds_now();
	if (to_host)
		memcpy(h->other, h->base, bytes);
	else
		memcpy(h->base, h->other, bytes);
	__asm__ volatile("" ::: "memory"); /* the copy is made, whatever becomes of its bytes */
	*seconds = seconds_now() - start;
	return TY_OK;
}

static enum ty_code host_free_memory(struct bench_pool *pool, uint64_t *bytes, struct ty_error *err)
{
	(void)pool;
	*bytes = 0;
	return ty_fail(err, TY_UNSUPPORTED, "--hbm: the host device has no memory of its own: expected --device cuda:N");
}

static const struct bench_pool_ops host_ops = {host_close, host_fill, host_check, host_raw_copy, host_free_memory};

enum ty_code bench_pool_host_open(const struct bench_pool *plan, struct bench_pool **out, struct ty_error *err)
{
	struct pool_host *h = calloc(1, sizeof *h);
	const char *what = "memfd_create";
	void *base;

	if (!h)
		return ty_fail(err, TY_NO_MEMORY, "no memory for the pool");
	h->pool = *plan;
	h->pool.ops = &host_ops;
	h->pool.any_device = true;
	h->pool.slice_bytes = 256 << 10;
	h->fd = memfd_create("tyer-bench-pool", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (h->fd < 0)
		goto fail;
	what = "ftruncate";
	if (ftruncate(h->fd, (off_t)plan->bytes) < 0)
		goto fail;
	what = "mmap";
	base = mmap(NULL, plan->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, h->fd, 0);
	if (base == MAP_FAILED)
		goto fail;
	h->base = base;
	what = "seal";
	if (fcntl(h->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		goto fail;
	h->pool.region = (struct ty_region){.is_fd = true, .fd = h->fd, .allocation_bytes = plan->bytes, .length = plan->bytes};
	*out = &h->pool;
	return TY_OK;
fail:
	ty_fail(err, TY_IO, "pool of %llu bytes in host memory: %s: %s", (unsigned long long)plan->bytes, what, strerror(errno));
	host_close(&h->pool);
	return TY_IO;
}
