/* SPDX-License-Identifier: Apache-2.0
 *
 * Packed parts: what was packed comes back byte for byte, whatever its length; what was not, or was damaged, is refused, and nothing is
 * written or read outside of what there is. Beside it, how the header tells of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "cache/checksum.h"
#include "cache/envelope.h"
#include "cache/pack.h"

static uint64_t random_state = 0x9e3779b97f4a7c15;

static uint64_t random64(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* Floats of about one size, cut to their upper two bytes, or four. */
static void fill_numbers(uint8_t *out, uint64_t length, uint32_t width)
{
	for (uint64_t i = 0; i < length; i += width) {
		float sum = -6;
		uint32_t bits;

		for (int k = 0; k < 12; k++)
			sum += (float)(random64() % 65536) / 65536;
		memcpy(&bits, &sum, sizeof bits);
		if (width < 4)
			bits >>= 16;
		memcpy(out + i, &bits, length - i < width ? length - i : width);
	}
}

static void fill_random(uint8_t *out, uint64_t length)
{
	for (uint64_t i = 0; i < length; i++)
		out[i] = (uint8_t)random64();
}

static const struct ty_packing ways[] = {
	{TY_CODEC_ZSTD, 1, 1}, {TY_CODEC_ZSTD, 1, 2}, {TY_CODEC_ZSTD, 9, 4}, {TY_CODEC_ZSTD, TY_PACK_LEVEL_MAX, 8}, {TY_CODEC_LZ4, 0, 1},
	{TY_CODEC_LZ4, 0, 2},
};

/* In memory that ends where it must not be passed: a sanitizer sees it, and so does what lies behind. */
static bool round_trip(const struct ty_packing *how, const uint8_t *in, uint64_t length)
{
	struct ty_packer packer = {0};
	struct ty_error err = {.text = ""};
	uint8_t *out = malloc(ty_pack_room(length) + 1), *exact, *back = malloc(length + 1);
	uint64_t stored;

	out[ty_pack_room(length)] = 0xa5;
	back[length] = 0xa5;
	stored = ty_pack(&packer, how, in, length, out, NULL, NULL);
	assert_true(stored <= ty_pack_room(length));
	assert_int_equal(out[ty_pack_room(length)], 0xa5);
	if (stored) {
		exact = malloc(stored);
		memcpy(exact, out, stored);
		assert_int_equal(ty_unpack(&packer, how, exact, stored, back, length, &err), TY_OK);
		assert_memory_equal(back, in, length);
		assert_int_equal(back[length], 0xa5);
		free(exact);
	}
	free(out);
	free(back);
	ty_packer_clear(&packer);
	return stored != 0;
}

static void test_round_trip(void **state)
{
	static const uint64_t lengths[] = {1, 2, 7, 63, 4095, 4096, TY_PACK_PLANE - 1, TY_PACK_PLANE, TY_PACK_PLANE + 1, 2 * TY_PACK_PLANE,
		2 * TY_PACK_PLANE + 3, 8 * TY_PACK_PLANE + 5, 3000001};
	uint8_t *in = malloc(3000001);

	(void)state;
	for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++)
		for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
			uint64_t length = lengths[i];

			memset(in, 7, length);
			assert_true(round_trip(&ways[w], in, length) || length < 4095);
			fill_numbers(in, length, ways[w].width < 4 ? 2 : 4);
			(void)round_trip(&ways[w], in, length);
			fill_random(in, length);
			assert_false(round_trip(&ways[w], in, length)); /* it lies as it is */
			memset(in + length / 2, 0, length - length / 2); /* half of it gets smaller */
			assert_true(round_trip(&ways[w], in, length) || length < 4 * 8 * TY_PACK_PLANE);
		}
	free(in);
}

/* A sixteen-bit number's exponents take less than its half, and its mantissas keep theirs. */
static void test_planes_pay(void **state)
{
	enum { LENGTH = 1 << 20 };
	const struct ty_packing planes = {TY_CODEC_ZSTD, 1, 2}, none = {TY_CODEC_ZSTD, 1, 1};
	uint8_t *in = malloc(LENGTH), *out = malloc(LENGTH);
	struct ty_packer packer = {0};
	uint64_t with, without;

	(void)state;
	fill_numbers(in, LENGTH, 2);
	with = ty_pack(&packer, &planes, in, LENGTH, out, NULL, NULL);
	without = ty_pack(&packer, &none, in, LENGTH, out, NULL, NULL);
	assert_true(with && with < LENGTH * 3 / 4);
	assert_true(without && with < without * 19 / 20);
	assert_int_equal(ty_pack_width("bf16"), 2);
	assert_int_equal(ty_pack_width("float32"), 4);
	assert_int_equal(ty_pack_width("fp8_e4m3"), 1);
	free(in);
	free(out);
	ty_packer_clear(&packer);
}

static bool after(void *user)
{
	uint32_t *left = user;

	return (*left)-- == 0;
}

static void test_stops(void **state)
{
	enum { LENGTH = 8 * TY_PACK_PLANE };
	uint8_t *in = calloc(1, LENGTH), *out = malloc(LENGTH);
	struct ty_packer packer = {0};
	uint32_t left;

	(void)state;
	left = 8;
	assert_true(ty_pack(&packer, &ways[0], in, LENGTH, out, after, &left));
	left = 7;
	assert_false(ty_pack(&packer, &ways[0], in, LENGTH, out, after, &left));
	free(in);
	free(out);
	ty_packer_clear(&packer);
}

/* Whatever is changed, cut off or added: it is refused, or other bytes come out, which the checksum of the contents sees; never is more
 * written than there is room for. */
static void test_damage(void **state)
{
	enum { LENGTH = 2 * TY_PACK_PLANE + 5001 };
	uint8_t *in = malloc(LENGTH), *out = malloc(LENGTH), *back = malloc(LENGTH);

	(void)state;
	for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
		struct ty_packer packer = {0};
		struct ty_error err = {.text = ""};
		uint64_t stored, refused = 0;

		memset(in, 0, LENGTH);
		fill_numbers(in, LENGTH / 2, 2);
		stored = ty_pack(&packer, &ways[w], in, LENGTH, out, NULL, NULL);
		assert_true(stored);
		for (uint32_t round = 0; round < 300; round++) {
			uint8_t *bad = malloc(stored + 8);
			uint64_t length = stored;

			memcpy(bad, out, stored);
			memset(bad + stored, 0, 8);
			if (round % 3 == 0) {
				length = random64() % stored;
			} else if (round % 3 == 1) {
				bad[random64() % stored] ^= (uint8_t)(1u << random64() % 8);
			} else {
				length += 1 + random64() % 8;
			}
			err = (struct ty_error){.text = ""};
			bad = realloc(bad, length ? length : 1); /* so that a sanitizer sees a read behind it */
			if (ty_unpack(&packer, &ways[w], bad, length, back, LENGTH, &err) != TY_OK) {
				assert_int_equal(err.code, TY_INVALID);
				refused++;
			} else {
				assert_int_equal(round % 3, 1);
			}
			free(bad);
		}
		assert_true(refused >= 200); /* all that have another length */
		ty_packer_clear(&packer);
	}
	free(in);
	free(out);
	free(back);
}

/* What claims to be more than there is, or more than the part: before a byte of it is looked at. */
static void test_hostile_words(void **state)
{
	static const struct { uint32_t word; uint64_t more; } bad[] = {
		{0, 0}, {0x80000000u, 0}, {1, 0}, {0x7fffffffu, 100}, {0xffffffffu, 100}, {0x80000000u | 4097, 4097}, {0x80000000u | 4095, 4095},
		{4096, 4096}, /* packed, and saves nothing */
	};
	uint8_t out[4096], *in = calloc(1, 8192);
	struct ty_error err;

	(void)state;
	for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++)
		for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
			struct ty_packer packer = {0};

			if (ways[w].width != 1)
				continue;
			ty_put32(in, bad[i].word);
			assert_int_equal(ty_unpack(&packer, &ways[w], in, 4 + bad[i].more, out, sizeof out, &err), TY_INVALID);
			assert_int_equal(ty_unpack(&packer, &ways[w], in, 3, out, sizeof out, &err), TY_INVALID);
			ty_packer_clear(&packer);
		}
	free(in);
}

/* ---- the header ------------------------------------------------------------------------------------------ */

static void seal(uint8_t *header)
{
	ty_put64(header + 56, 0);
	ty_put64(header + 56, ty_checksum(header, TY_ENVELOPE_BYTES));
}

static void test_header(void **state)
{
	static const struct { uint32_t at; uint8_t value; enum ty_code code; } changes[] = {
		{2432 + 16, TY_CODECS, TY_UNSUPPORTED}, {2432 + 16, TY_CODEC_NONE, TY_INVALID}, {2432 + 17, 0, TY_INVALID},
		{2432 + 17, 3, TY_INVALID}, {2432 + 17, 16, TY_INVALID}, {2432 + 18, 1, TY_INVALID}, {2432 + 22, 1, TY_INVALID},
		{2432 + 4, 1, TY_INVALID}, {8, 1, TY_INVALID}, {8, 3, TY_UNSUPPORTED},
	};
	struct ty_envelope e = {.parts = 3, .length = {5000, 60000, 4096}, .checksum = {1, 2, 3}}, got;
	uint8_t header[TY_ENVELOPE_BYTES], changed[TY_ENVELOPE_BYTES];
	struct ty_error err;

	(void)state;
	ty_envelope_write(&e, header);
	assert_int_equal(ty_get32(header + 8), 1);
	assert_int_equal(ty_envelope_total(&e), 4096 + 8192 + 61440 + 4096);
	e.packed[1] = (struct ty_envelope_packed){TY_CODEC_ZSTD, 2, 30000, 77};
	ty_envelope_write(&e, header);
	assert_int_equal(ty_get32(header + 8), 2);
	memset(&got, 0xee, sizeof got);
	assert_int_equal(ty_envelope_read(header, &got, &err), TY_OK);
	assert_memory_equal(got.packed, e.packed, 3 * sizeof e.packed[0]);
	assert_int_equal(ty_envelope_stored(&got, 0), 5000);
	assert_int_equal(ty_envelope_stored(&got, 1), 30000);
	assert_int_equal(ty_envelope_offset(&got, 2), 4096 + 8192 + 32768);
	assert_int_equal(ty_envelope_total(&got), 4096 + 8192 + 32768 + 4096);
	assert_true(ty_envelope_is_packed(&got));
	for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
		memcpy(changed, header, sizeof changed);
		changed[changes[i].at] = changes[i].value;
		seal(changed);
		assert_int_equal(ty_envelope_read(changed, &got, &err), changes[i].code);
	}
	memcpy(changed, header, sizeof changed); /* version 2, and nothing packed */
	memset(changed + 2432 + 16, 0, 16);
	seal(changed);
	assert_int_equal(ty_envelope_read(changed, &got, &err), TY_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_planes_pay),
		cmocka_unit_test(test_stops),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_hostile_words),
		cmocka_unit_test(test_header),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
