/* SPDX-License-Identifier: Apache-2.0
 *
 * A log-linear histogram: fixed memory, no allocation, mergeable, at most 0.4 % off at any quantile. Every power of two
 * is cut into TY_HISTOGRAM_SUB equal buckets; below 2 * TY_HISTOGRAM_SUB each value has a bucket of its own. The unit is
 * the caller's (nanoseconds, mostly). Plain memory with one writer: it may lie in shared memory that others read after
 * the writer is done.
 */
#ifndef TY_BASE_HISTOGRAM_H
#define TY_BASE_HISTOGRAM_H

#include <stdint.h>

#define TY_HISTOGRAM_SUB_BITS 7
#define TY_HISTOGRAM_SUB (1u << TY_HISTOGRAM_SUB_BITS)
#define TY_HISTOGRAM_MAX_BITS 43 /* values of 2^43 and more (2.4 hours of nanoseconds) share the last bucket */
#define TY_HISTOGRAM_BUCKETS ((TY_HISTOGRAM_MAX_BITS - TY_HISTOGRAM_SUB_BITS + 1) * TY_HISTOGRAM_SUB)

struct ty_histogram {
	uint64_t count;
	uint64_t sum;      /* saturates */
	uint64_t min, max; /* exact; 0 while count is 0 */
	uint64_t buckets[TY_HISTOGRAM_BUCKETS];
};

/* All zero is an empty histogram; this makes one of anything. */
void ty_histogram_reset(struct ty_histogram *h);
void ty_histogram_add(struct ty_histogram *h, uint64_t value);
/* `into` becomes what it would be, had it been given every value of `from` too. */
void ty_histogram_merge(struct ty_histogram *into, const struct ty_histogram *from);
/* The value at rank ceil(quantile * count), 0 <= quantile <= 1: the middle of its bucket, never outside [min, max].
 * 0 of an empty histogram. */
uint64_t ty_histogram_quantile(const struct ty_histogram *h, double quantile);
double ty_histogram_mean(const struct ty_histogram *h);

#endif
