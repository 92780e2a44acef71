/* SPDX-License-Identifier: Apache-2.0
 *
 * Packing: a part of a chunk made smaller, and back. docs/compression.md. KV bytes are numbers whose exponents say little and whose
 * mantissas are noise, so a part is cut into blocks, a block into planes (the first bytes of all its numbers, then the second ones, ...), and each
 * plane is compressed by itself, or lies as it is where that saves nothing:
 *
 *     block 0: plane 0, plane 1, ...; block 1: plane 0, ...
 *     plane:   4 bytes, little-endian: bit 31: as it is; the others: how many bytes follow     then these
 *
 * A block is of `width` times TY_PACK_PLANE bytes, the last one of what is left; its last plane also has the bytes that make no
 * whole number. How long everything is follows from the part's length, so what unpacks has nothing to believe: it writes
 * exactly that many bytes, and reads exactly those that there are, or fails.
 *
 * Pure functions; a packer is one thread's.
 */
#ifndef TY_CACHE_PACK_H
#define TY_CACHE_PACK_H

#include <tyer/result.h>
#include <stdbool.h>
#include <stdint.h>

#define TY_PACK_PLANE (128u << 10) /* what zstd compresses at a time, whatever it is given */
#define TY_PACK_WIDTH_MAX 8
#define TY_PACK_LEVEL_MAX 19

enum ty_codec { TY_CODEC_NONE, TY_CODEC_ZSTD, TY_CODEC_LZ4, TY_CODECS }; /* lie in headers of chunks: never renumbered */

struct ty_packing { /* how */
	enum ty_codec codec;
	int level;          /* zstd: 1 to TY_PACK_LEVEL_MAX. 1 is made for numbers; those above are the library's own */
	uint32_t width;     /* bytes of a number: 1, 2, 4 or 8 */
};

/* What the libraries need again and again. All zero is a new one; what it takes (some 2 MiB at most) is taken when it is used first. */
struct ty_packer {
	struct ZSTD_CCtx_s *zip;
	int level;          /* that it is set to; 0: none yet */
	struct ZSTD_DCtx_s *unzip;
	uint8_t *planes;
};
void ty_packer_clear(struct ty_packer *packer);

/* Bytes of a number, by the name of its type; 1 where that is not known. A wrong one costs bytes, and nothing else. */
uint32_t ty_pack_width(const char *dtype);

/* The most that a part may take packed: what would take more lies as it is, for unpacking it would not be worth its time. */
uint64_t ty_pack_room(uint64_t length);

/* Of `length` bytes, at least 1, into `out`, which has room for ty_pack_room(length): bytes that it took. 0: it does not get small enough
 * (which is found out early where the first block and one in the middle show it), there is no memory, or `stop`, which is asked before each
 * block and may be null, said true. */
TY_MUST_USE uint64_t ty_pack(struct ty_packer *packer, const struct ty_packing *how, const uint8_t *in, uint64_t length, uint8_t *out,
	bool (*stop)(void *user), void *user);

/* `in`, `stored` bytes from outside, back into the `length` bytes of `out`. TY_INVALID: they are none of ty_pack's for such a part, and the
 * text says what was found; TY_NO_MEMORY. Then `out` holds anything, but nothing was written behind it. */
TY_MUST_USE enum ty_code ty_unpack(struct ty_packer *packer, const struct ty_packing *how, const uint8_t *in, uint64_t stored,
	uint8_t *out, uint64_t length, struct ty_error *err);

#endif
