/* SPDX-License-Identifier: Apache-2.0
 *
 * Eviction, writeback and prefetch as they are over two tiers that misbehave at random, on one thread with a logical clock, by
 * seeds: stores and fetches, cancelled or not, devices that fail. At the end everything is back: no pin, no half chunk, no io.
 *
 *   stress_tiers_seeds [COUNT]          so many short runs, and long ones
 *   stress_tiers_seeds long|short SEED  the one that failed
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/cache/world.h"
#include "tests/unit/tiers/fault.h"

#define FAMILIES 40
#define CHUNKS 12
#define SECOND INT64_C(1000000000)

/* An arena that is full of large chunks after a while, for long; and two tenants' small quotas, for a moment. */
static const struct shape {
	uint32_t steps, families;
	uint64_t bytes, quota;
} long_run = {600, FAMILIES, MIB / 4, 0}, short_run = {60, 4, 16384, 8 * 16384};

static struct { uint64_t evictions, written, loaded, shared, cancelled, saved; } total; /* so that a run of nothing is seen */
static uint64_t rng;

static struct ty_tier *tier(int i)
{
	return world.service->tiers[i];
}

static uint32_t rnd(uint32_t below)
{
	return (uint32_t)(next_random(&rng) >> 33) % below;
}

static void misbehave(void)
{
	struct fault *f = &fault[rnd(2)];

	f->fail = rnd(8) == 0;
	f->full = rnd(8) == 0;
	f->fail_every = rnd(4) == 0 ? 2 + rnd(5) : 0;
	f->wrong_every = rnd(4) == 0 ? 2 + rnd(5) : 0;
	f->delay_ns = rnd(3) ? 1000 * (int64_t)(1 + rnd(1000000)) : 0;
	f->hang = rnd(6) == 0;
	if (!f->hang)
		fault_let(tier((int)(f - fault)));
}

static void run(const struct shape *shape, uint64_t seed)
{
	struct world_options options = {.seed = seed, .pieces = 1, .tier = {
		seed % 3 ? "fault:0,queue=32,pins=16MiB,ops=8" : "fault:0,queue=32,pins=16MiB,ops=8,compress=lz4",
		seed % 2 ? "fault:1,write=evict" : "fault:1,write=evict,wait=300ms"},
		.quotas = {{"first", shape->quota, 0}, {"second", shape->quota, 0}}, .quota_count = shape->quota ? 2 : 0};
	struct world_op *ops[8] = {0};
	struct world_fetch fetches[8] = {0};

	rng = seed;
	world_open(&options);
	for (uint32_t i = 0; i < shape->steps; i++) {
		uint32_t at = rnd(8), family = rnd(shape->families), first = rnd(4);

		if (rnd(40) == 0)
			misbehave();
		if (rnd(2)) {
			if (!ops[at]) {
				ops[at] = world_store(family, 0, 1 + rnd(CHUNKS), shape->bytes, 0, 1);
			} else if (ops[at]->back) {
				world_free(ops[at]);
				ops[at] = NULL;
			}
		} else if (!fetches[at].out) {
			world_fetch(&fetches[at], family, first, 1 + rnd(CHUNKS));
		} else if (fetches[at].back) {
			world_fetched(&fetches[at]);
		} else if (rnd(5) == 0) {
			atomic_store(&fetches[at].fetch->cancelled, true);
		}
		if (world.at_gpu && rnd(2))
			world_copied(world.at_gpu, rnd(10) ? TY_OK : TY_DEVICE_FAILED);
		world_steps(rnd(60));
	}
	for (int i = 0; i < FAULTS; i++) {
		struct fault *f = &fault[i];

		*f = (struct fault){.gets = f->gets, .puts = f->puts};
		fault_let(tier(i));
	}
	world_pass(40 * SECOND);
	while (world.at_gpu) {
		world_copied(world.at_gpu, TY_OK);
		world_pass(SECOND);
	}
	world_pass(SECOND);
	for (int i = 0; i < 8; i++) {
		if (ops[i])
			world_free(ops[i]);
		if (fetches[i].out) {
			assert_true(fetches[i].back);
			world_fetched(&fetches[i]);
		}
	}
	world_pass(SECOND);
	for (int i = 0; i < FAULTS; i++) {
		assert_int_equal(tier(i)->stats.pinned_bytes, 0);
		assert_int_equal(tier(i)->stats.buffer_bytes, 0);
		total.saved += tier(i)->stats.pack_from_bytes - tier(i)->stats.pack_to_bytes;
		assert_int_equal(tier(i)->stats.in_flight[0] + tier(i)->stats.in_flight[1], 0);
	}
	assert_int_equal(world.service->prefetch_stats.in_flight, 0);
	total.evictions += world.service->eviction_stats.evictions;
	total.written += fault[0].puts + fault[1].puts;
	total.loaded += world.service->prefetch_stats.loaded;
	total.shared += world.service->prefetch_stats.shared;
	total.cancelled += world.service->prefetch_stats.cancelled;
	world_check(shape->families, CHUNKS + 4);
	world_close();
}

static void run_all(const char *name, const struct shape *shape, uint64_t count)
{
	for (uint64_t seed = 1; seed <= count; seed++) {
		fprintf(stderr, "%s %llu\r", name, (unsigned long long)seed); /* the last one is the one that failed */
		run(shape, seed);
	}
}

int main(int argc, char **argv)
{
	uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 2000;

	if (argc > 2) {
		run(argv[1][0] == 'l' ? &long_run : &short_run, strtoull(argv[2], NULL, 10));
		return 0;
	}
	run_all("short", &short_run, count);
	run_all("long", &long_run, count / 130);
	printf("%llu short and %llu long runs: %llu evictions, %llu chunks written, %llu loaded, %llu loads shared, "
	       "%llu fetches cancelled, %llu bytes saved by packing\n", (unsigned long long)count, (unsigned long long)count / 130,
		(unsigned long long)total.evictions, (unsigned long long)total.written, (unsigned long long)total.loaded,
		(unsigned long long)total.shared, (unsigned long long)total.cancelled, (unsigned long long)total.saved);
	assert_true(total.evictions && total.written && total.loaded && total.shared && total.cancelled && total.saved);
	return 0;
}
