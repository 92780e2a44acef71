/* SPDX-License-Identifier: Apache-2.0
 *
 * What the spine's chunks hold, and whether it is there.
 */
#include "spine.h"

#include <stdio.h>
#include <stdlib.h>

#include "kernels/pattern.h"

#define SAMPLE 61          /* every 61st word of a block is written and checked: all runs, all offsets over the seeds */

static uint32_t tag_of(const struct prompt *p, uint32_t chunk)
{
	return p->family * 1000 + chunk;
}

/* Word `i` of plane `plane` of block `b` of a chunk has this place in the chunk. */
static uint32_t place(uint32_t b, uint32_t plane, uint32_t i)
{
	return (b * PLANES + plane) * (RUN / 8) + i;
}

static uint64_t *word_at(struct engine_side *e, uint32_t block, uint32_t plane, uint32_t i)
{
	/* split layout: each plane is an array of blocks */
	return (uint64_t *)(void *)(e->pool + ((uint64_t)plane * BLOCKS + block) * RUN) + i;
}

void write_chunk(struct engine_side *e, const struct prompt *p, uint32_t k, bool poison)
{
	for (uint32_t b = 0; b < PER_CHUNK; b++)
		for (uint32_t plane = 0; plane < PLANES; plane++)
			for (uint32_t i = 0; i < RUN / 8; i += SAMPLE)
				*word_at(e, p->blocks[k * PER_CHUNK + b], plane, i) =
					poison ? 0xdeadbeefdeadbeefull
					       : ty_pattern_word(seed_of_contents, tag_of(p, p->first + k), place(b, plane, i));
}

static void check_planes(struct engine_side *e, const struct prompt *p, uint32_t k, uint32_t planes)
{
	for (uint32_t b = 0; b < PER_CHUNK; b++) {
		for (uint32_t plane = 0; plane < planes; plane++) {
			for (uint32_t i = 0; i < RUN / 8; i += SAMPLE) {
				uint64_t found = *word_at(e, p->blocks[k * PER_CHUNK + b], plane, i);
				uint32_t tag = tag_of(p, p->first + k), from, index;

				if (found == ty_pattern_word(seed_of_contents, tag, place(b, plane, i)))
					continue;
				ty_pattern_origin(seed_of_contents, found, &from, &index);
				fprintf(stderr, "chunk %u word %u holds %016llx: chunk %u word %u\n", tag, place(b, plane, i),
					(unsigned long long)found, from, index);
				abort();
			}
		}
	}
}

void check_chunk(struct engine_side *e, const struct prompt *p, uint32_t k)
{
	check_planes(e, p, k, PLANES);
	w.checked++;
}

bool step_reached(const struct engine_side *e, const struct prompt *p, uint32_t step)
{
	return atomic_load_explicit(&e->member->timeline->words[p->layers.word], memory_order_acquire) >= p->layers.value + step;
}

void check_first_step(struct engine_side *e, const struct prompt *p)
{
	if (!p->layers.word || p->broken || !step_reached(e, p, 0))
		return;
	for (uint32_t k = 0; k < p->count; k++)
		check_planes(e, p, k, 1);
	w.steps += !step_reached(e, p, STEPS_OF_LAYERS - 1);
}

uint64_t sum_of_blocks(struct engine_side *e, const struct prompt *p)
{
	uint64_t sum = 0;

	for (uint32_t b = 0; b < p->count * PER_CHUNK; b++)
		for (uint32_t plane = 0; plane < PLANES; plane++)
			for (uint32_t i = 0; i < RUN / 8; i += SAMPLE)
				sum = sum * 31 + *word_at(e, p->blocks[b], plane, i);
	return sum;
}
