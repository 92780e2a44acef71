/* SPDX-License-Identifier: Apache-2.0 */
#include "envelope.h"

#include <assert.h>
#include <string.h>

#include "base/bytes.h"
#include "checksum.h"

#define MAGIC "tyerchnk"
#define VERSION 1
#define AT_VERSION 8
#define AT_PARTS 12
#define AT_KEY 16
#define AT_TOTAL 48
#define AT_CHECK 56
#define AT_TABLE 64
#define AT_IDENTITY (AT_TABLE + 16 * TY_CHUNK_MAX_PARTS)
#define FIELD_ROOM (2 + TY_IDENTITY_FIELD_MAX)
#define FIELDS 5

static_assert(AT_IDENTITY + FIELDS * FIELD_ROOM <= TY_ENVELOPE_BYTES, "the header has room");

uint64_t ty_envelope_offset(const struct ty_envelope *envelope, uint32_t part)
{
	uint64_t at = TY_ENVELOPE_BYTES;

	for (uint32_t i = 0; i < part; i++)
		at += ty_envelope_padded(envelope->length[i]);
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
	ty_put32(out + AT_VERSION, VERSION);
	ty_put32(out + AT_PARTS, envelope->parts);
	memcpy(out + AT_KEY, envelope->key.bytes, TY_KEY_BYTES);
	ty_put64(out + AT_TOTAL, ty_envelope_total(envelope));
	for (uint32_t i = 0; i < envelope->parts; i++) {
		ty_put64(out + AT_TABLE + 16 * i, envelope->length[i]);
		ty_put64(out + AT_TABLE + 16 * i + 8, envelope->checksum[i]);
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

	if (memcmp(in, MAGIC, 8) != 0)
		return ty_fail(err, TY_PROTOCOL, "header: no chunk of Tyer's");
	if (ty_get32(in + AT_VERSION) != VERSION)
		return ty_fail(err, TY_UNSUPPORTED, "header: version %u; expected %d", ty_get32(in + AT_VERSION), VERSION);
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
	}
	if (ty_get64(in + AT_TOTAL) != ty_envelope_total(out))
		return ty_fail(err, TY_INVALID, "header: %llu bytes in all; its parts make %llu",
			(unsigned long long)ty_get64(in + AT_TOTAL), (unsigned long long)ty_envelope_total(out));
	for (uint32_t i = 0; i < FIELDS; i++)
		if (!get_text(in + AT_IDENTITY + i * FIELD_ROOM, fields[i]))
			return ty_fail(err, TY_INVALID, "header: field %u of the identity is no text", i);
	return TY_OK;
}
