/* SPDX-License-Identifier: Apache-2.0
 *
 * bench-compress [MIB [ROUNDS]]: what packing (src/cache/pack.h) makes of KV bytes, and how fast, on one core. There is no model here, so
 * the numbers are made: they have what is known of keys and values, and nothing that would make them smaller than those. Per layer and head each of
 * 128 channels has a size and a mean of its own:
 *
 *   K   sizes spread by a factor of 1.5 (log-normal); a few channels (6 of 128) are outliers, eight times as large around a mean that is large too, as
 *       KIVI (Liu et al. 2024) and KVQuant (Hooper et al. 2024) found them in keys, alike for all tokens; tokens in a row are alike (0.7), as rotary
 *       embeddings turn slowly in most channels
 *   V   sizes spread by 1.3, no outlier channels, tokens independent
 *
 * each a normal distribution in its channel. They lie token by token, channels innermost, which is what a block holds, in bf16, fp16 or fp8 (e4m3, scaled to
 * its range per tensor). Beside them: noise, the worst there is, which is also what uniformly quantized int4 in groups with a scale of its own looks
 * like; and zeros. The table says bytes before / after, and MB of contents a second, each way; medians of rounds, all in turn.
 */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cache/pack.h"

#define CHANNELS 128
#define HEADS 8
#define ROUNDS_MAX 101

static uint64_t random_state = 0x853c49e6748fea9b;

static uint64_t random64(void)
{
	uint64_t z = random_state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static double uniform(void)
{
	return ((double)(random64() >> 11) + 0.5) / 9007199254740992.0;
}

static double normal(void)
{
	return sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform());
}

/* ---- numbers as they lie in memory ------------------------------------------------------------------------- */

static uint16_t to_bf16(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof bits);
	return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* To a float of `exponent` and `mantissa` bits, nearest; what is too large is the largest. */
static uint32_t to_small(float f, int exponent, int mantissa, float largest)
{
	int bias = (1 << (exponent - 1)) - 1, e;
	float size = fabsf(f) < largest ? fabsf(f) : largest;
	uint32_t sign = (uint32_t)(f < 0) << (exponent + mantissa);
	long steps;

	(void)frexpf(size, &e); /* size = m * 2^e, m in [0.5, 1) */
	e = e - 1 < 1 - bias ? 1 - bias : e - 1;
	steps = lrintf(ldexpf(size, mantissa - e)); /* of the last place; a full number has the hidden bit in it */
	if (steps >= 2l << mantissa) {
		steps >>= 1;
		e++;
	}
	return sign | (steps < 1l << mantissa ? (uint32_t)steps
					      : (uint32_t)(e + bias) << mantissa | ((uint32_t)steps & ((1u << mantissa) - 1)));
}

struct kind {
	const char *name;
	uint32_t width; /* bytes of a number; 0: noise, 9: zeros */
	bool keys, fp16;
};

static const struct kind kinds[] = {
	{"K bf16", 2, true, false}, {"V bf16", 2, false, false}, {"K fp16", 2, true, true}, {"V fp16", 2, false, true},
	{"K fp8", 1, true, false}, {"V fp8", 1, false, false}, {"noise", 0, false, false}, {"zeros", 9, false, false},
};

static void fill(const struct kind *kind, uint8_t *out, uint64_t bytes)
{
	float scale[HEADS * CHANNELS], mean[HEADS * CHANNELS], last[HEADS * CHANNELS];

	if (kind->width == 0 || kind->width == 9) {
		for (uint64_t i = 0; i < bytes; i += 8) {
			uint64_t word = kind->width ? 0 : random64();

			memcpy(out + i, &word, 8);
		}
		return;
	}
	for (uint32_t c = 0; c < HEADS * CHANNELS; c++) {
		bool outlier = kind->keys && c % CHANNELS < 6;

		scale[c] = (float)exp(log(kind->keys ? 1.5 : 1.3) * normal()) * (outlier ? 8 : 1);
		mean[c] = outlier ? (float)(10 * normal()) : 0;
		last[c] = (float)normal();
	}
	for (uint64_t i = 0; i < bytes / kind->width; i++) {
		uint64_t c = i % (HEADS * CHANNELS);
		float x = (float)normal(), value;

		if (kind->keys)
			x = 0.7f * last[c] + 0.714f * x;
		last[c] = x;
		value = mean[c] + scale[c] * x;
		if (kind->width == 1) {
			out[i] = (uint8_t)to_small(value * (kind->keys ? 8 : 60), 4, 3, 448); /* the largest near the range's end */
		} else {
			uint16_t bits = kind->fp16 ? (uint16_t)to_small(value, 5, 10, 65504) : to_bf16(value);

			memcpy(out + 2 * i, &bits, sizeof bits);
		}
	}
}

/* ---- how fast ---------------------------------------------------------------------------------------------------- */

struct way {
	const char *name;
	enum ty_codec codec;
	int level;
	bool planes;
};

static const struct way ways[] = {
	{"lz4", TY_CODEC_LZ4, 0, true}, {"zstd:1", TY_CODEC_ZSTD, 1, true}, {"zstd:3", TY_CODEC_ZSTD, 3, true},
	{"zstd:6", TY_CODEC_ZSTD, 6, true}, {"zstd:1, no planes", TY_CODEC_ZSTD, 1, false}, {"lz4, no planes", TY_CODEC_LZ4, 0, false},
};
#define WAYS (sizeof ways / sizeof ways[0])

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* the core's own time: other work beside it does not count */
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *times, uint32_t count)
{
	qsort(times, count, sizeof *times, compare);
	return times[count / 2];
}

int main(int argc, char **argv)
{
	uint64_t bytes = (uint64_t)(argc > 1 ? atoi(argv[1]) : 16) << 20;
	uint32_t rounds = argc > 2 ? (uint32_t)atoi(argv[2]) : 5;
	uint8_t *in = malloc(bytes), *out = malloc(bytes), *back = malloc(bytes);
	struct ty_packer packer = {0};

	assert(in && out && back && bytes && rounds && rounds <= ROUNDS_MAX);
	printf("%-8s %-18s %8s %12s %12s\n", "bytes", "how", "ratio", "pack MB/s", "unpack MB/s");
	for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
		static double packing[WAYS][ROUNDS_MAX], unpacking[WAYS][ROUNDS_MAX];
		uint64_t stored[WAYS];

		fill(&kinds[k], in, bytes);
		for (uint32_t round = 0; round < rounds; round++)
			for (size_t w = 0; w < WAYS; w++) {
				struct ty_packing how = {ways[w].codec, ways[w].level, ways[w].planes && kinds[k].width == 2 ? 2 : 1};
				struct ty_error err;
				double began = now(), packed;
				enum ty_code code = TY_OK;

				stored[w] = ty_pack(&packer, &how, in, bytes, out, NULL, NULL);
				packed = now();
				if (stored[w])
					code = ty_unpack(&packer, &how, out, stored[w], back, bytes, &err);
				packing[w][round] = packed - began;
				unpacking[w][round] = now() - packed;
				if (stored[w] && (code != TY_OK || memcmp(back, in, bytes) != 0)) {
					fprintf(stderr, "%s, %s: it does not come back\n", kinds[k].name, ways[w].name);
					return 1;
				}
			}
		for (size_t w = 0; w < WAYS; w++) {
			double pack = (double)bytes / 1e6 / median(packing[w], rounds), unpack = (double)bytes / 1e6 / median(unpacking[w], rounds);

			if (!ways[w].planes && kinds[k].width != 2)
				continue;
			if (stored[w])
				printf("%-8s %-18s %8.2f %12.0f %12.0f\n", kinds[k].name, ways[w].name, (double)bytes / (double)stored[w], pack,
					unpack);
			else
				printf("%-8s %-18s %8s %12.0f %12s\n", kinds[k].name, ways[w].name, "as it is", pack, "-");
			fflush(stdout);
		}
	}
	ty_packer_clear(&packer);
	free(in);
	free(out);
	free(back);
	return 0;
}
