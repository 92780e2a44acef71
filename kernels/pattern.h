/* SPDX-License-Identifier: Apache-2.0
 *
 * Contents that say where they belong: each 64-bit word of a chunk is a bijection of (chunk's tag, word's index in
 * the chunk), scrambled with a seed. A wrong word can be turned back into the place it came from. C and CUDA.
 */
#ifndef TY_KERNELS_PATTERN_H
#define TY_KERNELS_PATTERN_H

#include <stdint.h>

#ifdef __CUDACC__
#define TY_PATTERN_FN static __host__ __device__ inline
#else
#define TY_PATTERN_FN static inline
#endif

/* The word at `index` of chunk `tag`. Two rounds of multiply and xor-shift; each step is invertible. */
TY_PATTERN_FN uint64_t ty_pattern_word(uint64_t seed, uint32_t tag, uint32_t index)
{
	uint64_t x = (((uint64_t)tag << 32) | index) ^ seed;
	x *= 0x9e3779b97f4a7c15ull;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ull;
	x ^= x >> 32;
	return x;
}

/* The inverse: which chunk and index a word belongs to. */
TY_PATTERN_FN void ty_pattern_origin(uint64_t seed, uint64_t word, uint32_t *tag, uint32_t *index)
{
	uint64_t x = word;
	x ^= x >> 32;
	x *= 0xcfee444d8b59a89bull;
	x ^= x >> 32;
	x *= 0xf1de83e19937733dull;
	x ^= seed;
	*tag = (uint32_t)(x >> 32);
	*index = (uint32_t)x;
}

#endif
