/* SPDX-License-Identifier: Apache-2.0
 *
 * How a chunk looks outside of the arena, in every tier: a header of 4096 bytes, then the parts, each padded with zeros to
 * a multiple of 4096. Little-endian.
 *
 *        0  8   "tyerchnk"                 64  16 each  parts: length, checksum.h's (64 of them, unused ones zero)
 *        8  4   version: 1, or 2          1088           identity: tenant, model, revision, dtype, quantization, each as
 *       12  4   parts: 1..64                            2 bytes of length and 255 of text
 *       16  32  key                      2373           zeros
 *       48  8   bytes of all of it       2432  16 each  version 2: how parts lie packed (pack.h): 1 byte codec, 1 width, 2 zeros, 4 bytes
 *       56  8   checksum of the header,                 of length there, 8 its checksum; all zero: as it is
 *               this word zero           3456           zeros
 *
 * Lengths and checksums at 64 are those of the contents, packed or not. Version 2 has a packed part; all else is of version 1, so
 * that who knows no other one can read it.
 *
 * Pure functions: any thread.
 */
#ifndef TY_CACHE_ENVELOPE_H
#define TY_CACHE_ENVELOPE_H

#include "arena.h"
#include "index.h"
#include "pack.h"

#define TY_ENVELOPE_BYTES 4096u
#define TY_ENVELOPE_ALIGN 4096u

struct ty_envelope_packed { /* all zero: the part lies as it is */
	enum ty_codec codec;
	uint32_t width;
	uint64_t stored;   /* bytes that it takes, fewer than its length; 0: as it is */
	uint64_t checksum; /* of these */
};

struct ty_envelope {
	struct ty_key key;
	struct ty_identity identity;
	uint32_t parts;
	uint64_t length[TY_CHUNK_MAX_PARTS], checksum[TY_CHUNK_MAX_PARTS];
	struct ty_envelope_packed packed[TY_CHUNK_MAX_PARTS];
};

void ty_envelope_write(const struct ty_envelope *envelope, uint8_t out[TY_ENVELOPE_BYTES]);
/* TY_PROTOCOL: none of ours. TY_UNSUPPORTED: of another version, or packed by a codec that is not known. TY_INVALID: damaged. The text
 * says which. */
TY_MUST_USE enum ty_code ty_envelope_read(const uint8_t in[TY_ENVELOPE_BYTES], struct ty_envelope *out, struct ty_error *err);

/* Does it say that something is packed? A hint, without looking at anything else. */
bool ty_envelope_says_packed(const uint8_t in[TY_ENVELOPE_BYTES]);

static inline uint64_t ty_envelope_padded(uint64_t length)
{
	return (length + TY_ENVELOPE_ALIGN - 1) / TY_ENVELOPE_ALIGN * TY_ENVELOPE_ALIGN;
}

/* Bytes that a part takes, without padding. */
static inline uint64_t ty_envelope_stored(const struct ty_envelope *envelope, uint32_t part)
{
	return envelope->packed[part].stored ? envelope->packed[part].stored : envelope->length[part];
}

bool ty_envelope_is_packed(const struct ty_envelope *envelope); /* any part of it */

/* Where a part begins, and where everything ends, by what the parts take. */
uint64_t ty_envelope_offset(const struct ty_envelope *envelope, uint32_t part);
uint64_t ty_envelope_total(const struct ty_envelope *envelope);

/* The bytes of one part are what the header says. */
bool ty_envelope_matches(const struct ty_envelope *envelope, uint32_t part, const void *data);
/* Likewise those that it takes, packed. */
bool ty_envelope_matches_packed(const struct ty_envelope *envelope, uint32_t part, const void *stored);

#endif
