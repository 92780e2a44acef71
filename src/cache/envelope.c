/* SPDX-License-Identifier: Apache-2.0 */
#include "envelope.h"

#include <assert.h>
#include <string.h>

#include "base/bytes.h"
#include "checksum.h"

#define MAGIC "tyerchnk"
#define VERSION 1        /* every part lies as it is */
#define VERSION_PACKED 2
#define AT_VERSION 8
#define AT_PARTS 12
#define AT_KEY 16
#define AT_TOTAL 48
#define AT_CHECK 56
#define AT_TABLE 64
#define AT_IDENTITY (AT_TABLE + 16 * TY_CHUNK_MAX_PARTS)
#define FIELD_ROOM (2 + TY_IDENTITY_FIELD_MAX)
#define FIELDS 5
#define AT_PACKED 2432
#define PACKED_ROOM 16

static_assert(AT_IDENTITY + FIELDS * FIELD_ROOM <= AT_PACKED, "the header has room");
static_assert(AT_PACKED + PACKED_ROOM * TY_CHUNK_MAX_PARTS <= TY_ENVELOPE_BYTES, "and so for this");

uint64_t ty_envelope_offset(const struct ty_envelope *envelope, uint32_t part)
{
	uint64_t at = TY_ENVELOPE_BYTES;

	for (uint32_t i = 0; i < part; i++)
		at += ty_envelope_padded(ty_envelope_stored(envelope, i));
	return at;
}

uint64_t ty_envelope_total(const struct ty_envelope *envelope)
{
	return ty_envelope_offset(envelope, envelope->parts);
}

bool ty_envelope_matches(const struct ty_envelope *envelope, uint32_t part, const void *data)
{
	return ty_checksum(data, envelope->length[part]) == envelope->checksum[part];
}

bool ty_envelope_matches_packed(const struct ty_envelope *envelope, uint32_t part, const void *stored)
{
	return ty_checksum(stored, envelope->packed[part].stored) == envelope->packed[part].checksum;
}

bool ty_envelope_is_packed(const struct ty_envelope *envelope)
{
	for (uint32_t i = 0; i < envelope->parts; i++)
		if (envelope->packed[i].stored)
			return true;
	return false;
}

bool ty_envelope_says_packed(const uint8_t in[TY_ENVELOPE_BYTES])
{
	return ty_get32(in + AT_VERSION) == VERSION_PACKED;
}

static void put_packed(uint8_t *at, const struct ty_envelope_packed *packed)
{
	at[0] = (uint8_t)packed->codec;
	at[1] = (uint8_t)packed->width;
	ty_put32(at + 4, (uint32_t)packed->stored);
	ty_put64(at + 8, packed->checksum);
}

/* How a part of `length` bytes lies there. */
static enum ty_code get_packed(const uint8_t *at, uint32_t part, uint64_t length, struct ty_envelope_packed *out, struct ty_error *err)
{
	static const uint8_t as_it_is[PACKED_ROOM];

	memset(out, 0, sizeof *out);
	if (memcmp(at, as_it_is, sizeof as_it_is) == 0)
		return TY_OK;
	if (at[0] >= TY_CODECS)
		return ty_fail(err, TY_UNSUPPORTED, "header: part %u has codec %u; expected at most %d", part, at[0], TY_CODECS - 1);
	out->codec = (enum ty_codec)at[0];
	out->width = at[1];
	out->stored = ty_get32(at + 4);
	out->checksum = ty_get64(at + 8);
	if (out->codec == TY_CODEC_NONE || !out->width || out->width > TY_PACK_WIDTH_MAX || out->width & (out->width - 1) ||
		ty_get16(at + 2) || !out->stored || out->stored > ty_pack_room(length))
		return ty_fail(err, TY_INVALID, "header: part %u has codec %u, width %u, %llu bytes packed of %llu", part, at[0], at[1],
			(unsigned long long)out->stored, (unsigned long long)length);
	return TY_OK;
}

static void put_text(uint8_t *at, const char *text)
{
	size_t length = strlen(text);

	assert(length <= TY_IDENTITY_FIELD_MAX);
	at[0] = (uint8_t)length;
	memcpy(at + 2, text, length);
}

static bool get_text(const uint8_t *at, char out[TY_IDENTITY_FIELD_MAX + 1])
{
	size_t length = at[0];

	if (at[1] || memchr(at + 2, 0, length))
		return false;
	memcpy(out, at + 2, length);
	out[length] = '\0';
	return true;
}

void ty_envelope_write(const struct ty_envelope *envelope, uint8_t out[TY_ENVELOPE_BYTES])
{
	const struct ty_identity *id = &envelope->identity;
	const char *fields[FIELDS] = {id->tenant, id->model, id->revision, id->dtype, id->quantization};

	assert(envelope->parts >= 1 && envelope->parts <= TY_CHUNK_MAX_PARTS);
	memset(out, 0, TY_ENVELOPE_BYTES);
	memcpy(out, MAGIC, 8);
	ty_put32(out + AT_VERSION, ty_envelope_is_packed(envelope) ? VERSION_PACKED : VERSION);
	ty_put32(out + AT_PARTS, envelope->parts);
	memcpy(out + AT_KEY, envelope->key.bytes, TY_KEY_BYTES);
	ty_put64(out + AT_TOTAL, ty_envelope_total(envelope));
	for (uint32_t i = 0; i < envelope->parts; i++) {
		ty_put64(out + AT_TABLE + 16 * i, envelope->length[i]);
		ty_put64(out + AT_TABLE + 16 * i + 8, envelope->checksum[i]);
		put_packed(out + AT_PACKED + PACKED_ROOM * i, &envelope->packed[i]);
	}
	for (uint32_t i = 0; i < FIELDS; i++)
		put_text(out + AT_IDENTITY + i * FIELD_ROOM, fields[i]);
	ty_put64(out + AT_CHECK, ty_checksum(out, TY_ENVELOPE_BYTES));
}

enum ty_code ty_envelope_read(const uint8_t in[TY_ENVELOPE_BYTES], struct ty_envelope *out, struct ty_error *err)
{
	uint8_t copy[TY_ENVELOPE_BYTES];
	char *fields[FIELDS] = {out->identity.tenant, out->identity.model, out->identity.revision, out->identity.dtype,
		out->identity.quantization};
	uint64_t check = ty_get64(in + AT_CHECK);
	uint32_t version = ty_get32(in + AT_VERSION);
	enum ty_code code;

	if (memcmp(in, MAGIC, 8) != 0)
		return ty_fail(err, TY_PROTOCOL, "header: no chunk of Tyer's");
	if (version != VERSION && version != VERSION_PACKED)
		return ty_fail(err, TY_UNSUPPORTED, "header: version %u; expected %d or %d", version, VERSION, VERSION_PACKED);
	memcpy(copy, in, sizeof copy);
	ty_put64(copy + AT_CHECK, 0);
	if (ty_checksum(copy, sizeof copy) != check)
		return ty_fail(err, TY_INVALID, "header: its checksum is wrong");
	out->parts = ty_get32(in + AT_PARTS);
	if (out->parts < 1 || out->parts > TY_CHUNK_MAX_PARTS)
		return ty_fail(err, TY_INVALID, "header: %u parts; expected 1..%d", out->parts, TY_CHUNK_MAX_PARTS);
	memcpy(out->key.bytes, in + AT_KEY, TY_KEY_BYTES);
	for (uint32_t i = 0; i < out->parts; i++) {
		out->length[i] = ty_get64(in + AT_TABLE + 16 * i);
		out->checksum[i] = ty_get64(in + AT_TABLE + 16 * i + 8);
		if (out->length[i] < 1 || out->length[i] > TY_PIECE_BYTES)
			return ty_fail(err, TY_INVALID, "header: part %u has %llu bytes; expected 1..%llu", i,
				(unsigned long long)out->length[i], (unsigned long long)TY_PIECE_BYTES);
		memset(&out->packed[i], 0, sizeof out->packed[i]);
		code = version == VERSION ? TY_OK
					  : get_packed(in + AT_PACKED + PACKED_ROOM * i, i, out->length[i], &out->packed[i], err);
		if (code != TY_OK)
			return code;
	}
	if (version == VERSION_PACKED && !ty_envelope_is_packed(out))
		return ty_fail(err, TY_INVALID, "header: version %u, and no part is packed", version);
	if (ty_get64(in + AT_TOTAL) != ty_envelope_total(out))
		return ty_fail(err, TY_INVALID, "header: %llu bytes in all; its parts make %llu",
			(unsigned long long)ty_get64(in + AT_TOTAL), (unsigned long long)ty_envelope_total(out));
	for (uint32_t i = 0; i < FIELDS; i++)
		if (!get_text(in + AT_IDENTITY + i * FIELD_ROOM, fields[i]))
			return ty_fail(err, TY_INVALID, "header: field %u of the identity is no text", i);
	return TY_OK;
}
