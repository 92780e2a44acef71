/* SPDX-License-Identifier: Apache-2.0 */
#include "contents.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "kernels/pattern.h"

uint64_t bench_mix(uint64_t seed, uint64_t number)
{
	uint64_t x = seed ^ (number + 1) * 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

uint64_t bench_poison_seed(uint64_t seed)
{
	return bench_mix(seed, 0x506f69736f6eull);
}

void bench_hash(uint64_t seed, uint32_t tag, uint8_t hash[TY_KEY_BYTES])
{
	uint64_t state = bench_mix(seed, tag);

	for (unsigned i = 0; i < TY_KEY_BYTES / 8; i++) {
		uint64_t word = bench_mix(state, i);

		memcpy(hash + 8 * i, &word, 8);
	}
}

static bool numbers; /* set before any process or thread begins */

void bench_contents_are_numbers(void)
{
	numbers = true;
}

/* Of 16 random bits: sign and mantissa as they are, and an exponent that is one smaller half the time, ... */
static uint64_t number_of(uint64_t bits)
{
	uint64_t exponent = 127 - (uint64_t)__builtin_ctzll(bits >> 7 | 0x100);

	return (bits & 0x807f) | exponent << 7;
}

static uint64_t word_at(uint64_t seed, uint32_t tag, uint32_t index)
{
	uint64_t word = ty_pattern_word(seed, tag, index), out = 0;

	if (!numbers)
		return word;
	for (unsigned at = 0; at < 64; at += 16)
		out |= number_of(word >> at & 0xffff) << at;
	return out;
}

void bench_fill_run(void *to, uint64_t seed, uint32_t tag, uint32_t first, uint32_t words)
{
	uint64_t *word = to;

	if (numbers)
		for (uint32_t i = 0; i < words; i++)
			word[i] = word_at(seed, tag, first + i);
	else
		for (uint32_t i = 0; i < words; i++)
			word[i] = ty_pattern_word(seed, tag, first + i);
}

uint32_t bench_check_run(const void *from, uint64_t seed, uint32_t tag, uint32_t first, uint32_t words, uint32_t *where,
	uint64_t *found)
{
	const uint64_t *word = from;
	uint64_t differ = 0;
	uint32_t wrong = 0;

	/* No branch per word: the whole run first, and only a wrong one again word by word. */
	if (numbers)
		for (uint32_t i = 0; i < words; i++)
			differ |= word[i] ^ word_at(seed, tag, first + i);
	else
		for (uint32_t i = 0; i < words; i++)
			differ |= word[i] ^ ty_pattern_word(seed, tag, first + i);
	if (!differ)
		return 0;
	for (uint32_t i = 0; i < words; i++) {
		if (word[i] == word_at(seed, tag, first + i))
			continue;
		if (wrong++ == 0) {
			*where = i;
			*found = word[i];
		}
	}
	/* A word that was wrong a moment ago and is right now was written late: count it all the same. */
	if (wrong == 0) {
		*where = 0;
		*found = word[0];
		wrong = 1;
	}
	return wrong;
}

/* Is `word` one that this run wrote with `seed`? The pattern is a bijection, so a stray word passes by luck once in
 * 2^64 / (tags * words of a chunk). */
static bool origin_of(const struct bench_contents *contents, const struct bench_shape *shape, uint64_t seed,
	uint64_t word, uint32_t *tag, uint32_t *index)
{
	ty_pattern_origin(seed, word, tag, index);
	return *tag < contents->max_tag && *index < shape->chunk_words;
}

static void describe_origin(const struct bench_contents *contents, const struct bench_shape *shape, uint32_t tag,
	uint32_t index, uint64_t found, char *text, size_t size)
{
	uint32_t from_tag, from_index;
	char place[96];

	if (numbers) {
		snprintf(text, size, "a number, which does not say where it belongs");
		return;
	}
	if (origin_of(contents, shape, contents->seed, found, &from_tag, &from_index)) {
		bench_shape_place(shape, from_index, place, sizeof place);
		if (from_tag == tag && from_index == index)
			snprintf(text, size, "the right word by now: it was written after the service said it was done");
		else
			snprintf(text, size, "word %u (%s) of chunk %u.%u", from_index, place,
				from_tag / contents->parts, from_tag % contents->parts);
	} else if (origin_of(contents, shape, bench_poison_seed(contents->seed), found, &from_tag, &from_index)) {
		snprintf(text, size, "the poison from before the retrieve%s: it was never written",
			from_tag == tag && from_index == index ? "" : ", of another place");
	} else {
		snprintf(text, size, "no word of this run (damage, or contents of another seed or geometry)");
	}
}

void bench_describe_wrong(const struct bench_contents *contents, const struct bench_shape *shape,
	const struct bench_item *items, const struct bench_wrong *wrong, char *text, size_t size)
{
	const struct bench_item *item = &items[wrong->first_item];
	uint32_t words_per_block = (uint32_t)(shape->block_bytes / 8);
	char place[96], origin[192];

	bench_shape_place(shape, wrong->first_index, place, sizeof place);
	describe_origin(contents, shape, item->tag, wrong->first_index, wrong->first_found, origin, sizeof origin);
	snprintf(text, size,
		"%" PRIu64 " wrong words in %u chunks; the first: chunk %u.%u (trace id.part), word %u (%s), block %u of "
		"the pool: found %016" PRIx64 ", which is %s",
		wrong->words, wrong->chunks, item->tag / contents->parts, item->tag % contents->parts, wrong->first_index,
		place, item->blocks[wrong->first_index / words_per_block], wrong->first_found, origin);
}
