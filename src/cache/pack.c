/* SPDX-License-Identifier: Apache-2.0 */
#include "pack.h"

#include <assert.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/bytes.h"

#define AS_IT_IS 0x80000000u
#define WORD 4u /* before each plane */
#define SAVES 16 /* a plane, and a part, saves at least a sixteenth, or lies as it is */
#define PLANE_ROOM (TY_PACK_PLANE + TY_PACK_WIDTH_MAX) /* the last one also has the bytes that are left */
#define ZSTD_FRAME 0xfd2fb528u /* how one begins: libraries know older formats too */

void ty_packer_clear(struct ty_packer *packer)
{
	ZSTD_freeCCtx(packer->zip);
	ZSTD_freeDCtx(packer->unzip);
	free(packer->planes);
	memset(packer, 0, sizeof *packer);
}

uint32_t ty_pack_width(const char *dtype)
{
	return strstr(dtype, "16") ? 2 : strstr(dtype, "32") ? 4 : strstr(dtype, "64") ? 8 : 1;
}

uint64_t ty_pack_room(uint64_t length)
{
	return length - (length + SAVES - 1) / SAVES;
}

static bool has_planes(struct ty_packer *p)
{
	if (!p->planes)
		p->planes = malloc((size_t)PLANE_ROOM * TY_PACK_WIDTH_MAX);
	return p->planes != NULL;
}

/* ---- numbers and planes --------------------------------------------------------------------------------- */

/* The even bytes of eight, together. */
static uint32_t gather(uint64_t x)
{
	x &= UINT64_C(0x00ff00ff00ff00ff);
	x = (x | x >> 8) & UINT64_C(0x0000ffff0000ffff);
	return (uint32_t)(x | x >> 16);
}

static uint64_t spread(uint32_t four)
{
	uint64_t x = four;

	x = (x | x << 16) & UINT64_C(0x0000ffff0000ffff);
	return (x | x << 8) & UINT64_C(0x00ff00ff00ff00ff);
}

static void take_plane(const uint8_t *in, uint64_t numbers, uint32_t width, uint32_t plane, uint8_t *out)
{
	uint64_t i = 0;

	if (width == 2)
		for (; i + 4 <= numbers; i += 4)
			ty_put32(out + i, gather(ty_get64(in + 2 * i) >> 8 * plane));
	for (; i < numbers; i++)
		out[i] = in[i * width + plane];
}

static void join_planes(const uint8_t *const planes[], uint64_t numbers, uint32_t width, uint8_t *out)
{
	uint64_t i = 0;

	if (width == 2)
		for (; i + 4 <= numbers; i += 4)
			ty_put64(out + 2 * i, spread(ty_get32(planes[0] + i)) | spread(ty_get32(planes[1] + i)) << 8);
	for (; i < numbers; i++)
		for (uint32_t p = 0; p < width; p++)
			out[i * width + p] = planes[p][i];
}

/* ---- one plane ------------------------------------------------------------------------------------------- */

/* Exponents repeat by chance: short matches, which a level of the library's looks for, cost time, and more bytes than they save. At level 1
 * there are long ones alone, found with a small table, and entropy coding does the rest. */
static bool set_level(struct ty_packer *p, int level)
{
	if (!p->zip)
		p->zip = ZSTD_createCCtx();
	if (!p->zip)
		return false;
	if (p->level == level)
		return true;
	p->level = 0;
	if (ZSTD_isError(ZSTD_CCtx_reset(p->zip, ZSTD_reset_session_and_parameters)) ||
		ZSTD_isError(ZSTD_CCtx_setParameter(p->zip, ZSTD_c_compressionLevel, level)))
		return false;
	if (level == 1 && (ZSTD_isError(ZSTD_CCtx_setParameter(p->zip, ZSTD_c_strategy, ZSTD_fast)) ||
				  ZSTD_isError(ZSTD_CCtx_setParameter(p->zip, ZSTD_c_minMatch, 7)) ||
				  ZSTD_isError(ZSTD_CCtx_setParameter(p->zip, ZSTD_c_hashLog, 8))))
		return false;
	p->level = level;
	return true;
}

static uint64_t compress(struct ty_packer *p, const struct ty_packing *how, const uint8_t *in, uint64_t length, uint8_t *out,
	uint64_t room)
{
	size_t n;
	int m;

	if (how->codec == TY_CODEC_LZ4) {
		m = LZ4_compress_default((const char *)in, (char *)out, (int)length, (int)room);
		return m > 0 ? (uint64_t)m : 0;
	}
	n = set_level(p, how->level) ? ZSTD_compress2(p->zip, out, room, in, length) : 0;
	return ZSTD_isError(n) ? 0 : n;
}

/* One that says itself how long it is, in the format of today, and is all of the bytes: nothing else is given to the library. */
static bool is_frame(const uint8_t *in, uint64_t stored, uint64_t length)
{
	return stored > WORD && ty_get32(in) == ZSTD_FRAME && ZSTD_getFrameContentSize(in, stored) == length &&
	       ZSTD_findFrameCompressedSize(in, stored) == stored;
}

static bool decompress(struct ty_packer *p, enum ty_codec codec, const uint8_t *in, uint64_t stored, uint8_t *out, uint64_t length)
{
	if (codec == TY_CODEC_LZ4)
		return LZ4_decompress_safe((const char *)in, (char *)out, (int)stored, (int)length) == (int)length;
	return is_frame(in, stored, length) && ZSTD_decompressDCtx(p->unzip, out, length, in, stored) == length;
}

/* Bytes that it took; 0: there is no room. `small`: it was made smaller. */
static uint64_t pack_plane(struct ty_packer *p, const struct ty_packing *how, const uint8_t *in, uint64_t length, uint8_t *out,
	uint64_t room, bool *small)
{
	uint64_t most = ty_pack_room(length), n;

	if (room <= WORD)
		return 0;
	n = most < WORD ? 0 : compress(p, how, in, length, out + WORD, most < room - WORD ? most : room - WORD);
	if (n) {
		*small = true;
		ty_put32(out, (uint32_t)n);
		return WORD + n;
	}
	if (room - WORD < length)
		return 0;
	ty_put32(out, AS_IT_IS | (uint32_t)length);
	memcpy(out + WORD, in, length);
	return WORD + length;
}

/* ---- blocks ------------------------------------------------------------------------------------------------ */

static uint64_t plane_bytes(uint64_t block, uint32_t width, uint32_t plane)
{
	return block / width + (plane == width - 1 ? block % width : 0);
}

static uint64_t pack_block(struct ty_packer *p, const struct ty_packing *how, const uint8_t *in, uint64_t block, uint8_t *out,
	uint64_t room, bool *small)
{
	uint64_t numbers = block / how->width, taken = 0, n;

	for (uint32_t i = 0; i < how->width; i++) {
		const uint8_t *plane = in;

		if (how->width > 1) {
			take_plane(in, numbers, how->width, i, p->planes);
			if (i == how->width - 1)
				memcpy(p->planes + numbers, in + numbers * how->width, block % how->width);
			plane = p->planes;
		}
		n = pack_plane(p, how, plane, plane_bytes(block, how->width, i), out + taken, room - taken, small);
		if (!n)
			return 0;
		taken += n;
	}
	return taken;
}

uint64_t ty_pack(struct ty_packer *p, const struct ty_packing *how, const uint8_t *in, uint64_t length, uint8_t *out,
	bool (*stop)(void *user), void *user)
{
	uint64_t room = ty_pack_room(length), size = (uint64_t)how->width * TY_PACK_PLANE, taken = 0, n;

	assert(how->width >= 1 && how->width <= TY_PACK_WIDTH_MAX && how->codec != TY_CODEC_NONE);
	if (!has_planes(p))
		return 0;
	for (uint64_t at = 0; at < length; at += size) {
		uint64_t block = length - at < size ? length - at : size;
		bool small = false;

		if (stop && stop(user))
			return 0;
		n = pack_block(p, how, in + at, block, out + taken, room - taken, &small);
		if (!n)
			return 0;
		if (at == 0 && !small) { /* one look in the middle, written where the next block will lie */
			uint64_t middle = length / size / 2 * size;

			if (middle == 0 || !pack_block(p, how, in + middle, size, out + n, room - n, &small) || !small)
				return 0;
		}
		taken += n;
	}
	return taken;
}

static bool unpack_block(struct ty_packer *p, const struct ty_packing *how, const uint8_t *in, uint64_t stored, uint64_t *taken,
	uint8_t *out, uint64_t block)
{
	const uint8_t *planes[TY_PACK_WIDTH_MAX];
	uint64_t numbers = block / how->width;

	for (uint32_t i = 0; i < how->width; i++) {
		uint64_t bytes = plane_bytes(block, how->width, i), n;
		uint8_t *plane = how->width == 1 ? out : p->planes + (size_t)i * PLANE_ROOM;
		uint32_t word;

		if (stored - *taken < WORD)
			return false;
		word = ty_get32(in + *taken);
		*taken += WORD;
		n = word & ~AS_IT_IS;
		if (n > stored - *taken || (word & AS_IT_IS && n != bytes))
			return false;
		if (word & AS_IT_IS)
			planes[i] = in + *taken;
		else if (n > ty_pack_room(bytes) || !decompress(p, how->codec, in + *taken, n, plane, bytes))
			return false;
		else
			planes[i] = plane;
		*taken += n;
	}
	if (how->width > 1) {
		join_planes(planes, numbers, how->width, out);
		memcpy(out + numbers * how->width, planes[how->width - 1] + numbers, block % how->width);
	} else if (planes[0] != out) {
		memcpy(out, planes[0], block);
	}
	return true;
}

enum ty_code ty_unpack(struct ty_packer *p, const struct ty_packing *how, const uint8_t *in, uint64_t stored, uint8_t *out,
	uint64_t length, struct ty_error *err)
{
	uint64_t size = (uint64_t)how->width * TY_PACK_PLANE, taken = 0;

	assert(how->width >= 1 && how->width <= TY_PACK_WIDTH_MAX && how->codec != TY_CODEC_NONE);
	if (!p->unzip && how->codec == TY_CODEC_ZSTD)
		p->unzip = ZSTD_createDCtx();
	if (!has_planes(p) || (!p->unzip && how->codec == TY_CODEC_ZSTD))
		return ty_fail(err, TY_NO_MEMORY, "no memory to unpack with");
	for (uint64_t at = 0; at < length; at += size) {
		uint64_t block = length - at < size ? length - at : size;

		if (!unpack_block(p, how, in, stored, &taken, out + at, block))
			return ty_fail(err, TY_INVALID, "packed bytes are damaged in the block at %llu of %llu",
				(unsigned long long)at, (unsigned long long)length);
	}
	if (taken != stored)
		return ty_fail(err, TY_INVALID, "%llu packed bytes; their blocks make %llu", (unsigned long long)stored,
			(unsigned long long)taken);
	return TY_OK;
}
