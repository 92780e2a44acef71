/* SPDX-License-Identifier: Apache-2.0
 *
 * What the chunks hold. Every 64-bit word names the chunk ("tag") and the place in it (kernels/pattern.h), in the order
 * [block of the chunk][layer][plane][token], so a wrong word tells where it came from. A tag is
 * trace id * parts + part, where `parts` is how many chunks of the service a block of the trace makes.
 */
#ifndef TY_BENCH_CONTENTS_H
#define TY_BENCH_CONTENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "geometry.h"

/* One chunk in the pool: where its blocks are, and what they (are to) hold. */
struct bench_item {
	uint32_t tag;
	const uint32_t *blocks; /* blocks_per_chunk ids */
};

/* What a check found. `first_*` mean something only when words is not 0. */
struct bench_wrong {
	uint64_t words;      /* wrong ones, in all items */
	uint32_t chunks;     /* items with a wrong word; of a GPU's pool at least one when words is not 0 */
	uint32_t first_item; /* index of the item with the first wrong word */
	uint32_t first_index; /* of the word in its chunk */
	uint64_t first_found;
};

/* Which words could have come from this run: what turns a wrong word into words. */
struct bench_contents {
	uint64_t seed;
	uint32_t parts;    /* chunks a block of the trace */
	uint64_t max_tag;  /* tags below it are in use */
};

/* A number that depends on both, well mixed: seeds for parts of a run. */
uint64_t bench_mix(uint64_t seed, uint64_t number);
/* The seed of the poison that lies in blocks before they are retrieved into. */
uint64_t bench_poison_seed(uint64_t seed);
/* The chunk's name for the service, from (seed, tag). */
void bench_hash(uint64_t seed, uint32_t tag, uint8_t hash[TY_KEY_BYTES]);

/* From now on contents, and what they are held against, are bf16 numbers, evenly spread between -2 and 2, made of the same words. Once, before
 * anything is filled. */
void bench_contents_are_numbers(void);

void bench_fill_run(void *to, uint64_t seed, uint32_t tag, uint32_t first, uint32_t words);
/* How many words of the run are wrong; the first one's place in the run and contents in *where and *found. */
uint32_t bench_check_run(const void *from, uint64_t seed, uint32_t tag, uint32_t first, uint32_t words, uint32_t *where,
	uint64_t *found);

/* "chunk 5.0 (id.part), word 17 (block 0, layer 1 K, token 2), block 93 of the pool: found 0x..., which is ..." */
void bench_describe_wrong(const struct bench_contents *contents, const struct bench_shape *shape,
	const struct bench_item *items, const struct bench_wrong *wrong, char *text, size_t size);

#endif
