/* SPDX-License-Identifier: Apache-2.0 */
#include "base/histogram.h"

#include <assert.h>
#include <string.h>

static unsigned bucket_of(uint64_t value)
{
	unsigned top;

	if (value < TY_HISTOGRAM_SUB)
		return (unsigned)value;
	top = 63u - (unsigned)__builtin_clzll(value);
	if (top >= TY_HISTOGRAM_MAX_BITS)
		return TY_HISTOGRAM_BUCKETS - 1;
	/* `value >> shift` lies in [SUB, 2 * SUB): its distance from SUB is the place inside the octave. */
	return (top - TY_HISTOGRAM_SUB_BITS) * TY_HISTOGRAM_SUB + (unsigned)(value >> (top - TY_HISTOGRAM_SUB_BITS));
}

static uint64_t middle_of(unsigned bucket)
{
	unsigned octave = bucket / TY_HISTOGRAM_SUB; /* 0 and 1 have buckets one wide */
	uint64_t low;

	if (octave < 2)
		return bucket;
	low = (uint64_t)(TY_HISTOGRAM_SUB + bucket % TY_HISTOGRAM_SUB) << (octave - 1);
	return low + (((uint64_t)1 << (octave - 1)) >> 1);
}

void ty_histogram_reset(struct ty_histogram *h)
{
	memset(h, 0, sizeof *h);
}

void ty_histogram_add(struct ty_histogram *h, uint64_t value)
{
	if (h->count == 0 || value < h->min)
		h->min = value;
	if (value > h->max)
		h->max = value;
	if (__builtin_add_overflow(h->sum, value, &h->sum))
		h->sum = UINT64_MAX;
	h->count++;
	h->buckets[bucket_of(value)]++;
}

void ty_histogram_merge(struct ty_histogram *into, const struct ty_histogram *from)
{
	if (from->count == 0)
		return;
	if (into->count == 0 || from->min < into->min)
		into->min = from->min;
	if (from->max > into->max)
		into->max = from->max;
	if (__builtin_add_overflow(into->sum, from->sum, &into->sum))
		into->sum = UINT64_MAX;
	into->count += from->count;
	for (unsigned i = 0; i < TY_HISTOGRAM_BUCKETS; i++)
		into->buckets[i] += from->buckets[i];
}

uint64_t ty_histogram_quantile(const struct ty_histogram *h, double quantile)
{
	uint64_t rank, seen = 0, value = 0;
	double exact;

	assert(quantile >= 0 && quantile <= 1);
	if (h->count == 0)
		return 0;
	exact = quantile * (double)h->count;
	rank = (uint64_t)exact;
	if ((double)rank < exact || rank == 0)
		rank++;
	if (rank >= h->count)
		return h->max; /* the last rank is known exactly */
	for (unsigned i = 0; i < TY_HISTOGRAM_BUCKETS; i++) {
		seen += h->buckets[i];
		if (seen >= rank) {
			value = middle_of(i);
			break;
		}
	}
	if (value < h->min)
		value = h->min;
	return value > h->max ? h->max : value;
}

double ty_histogram_mean(const struct ty_histogram *h)
{
	return h->count ? (double)h->sum / (double)h->count : 0;
}
