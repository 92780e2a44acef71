/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "cache/checksum.h"
#include "cache/envelope.h"
#include "fuzz.h"

#define AT_CHECK 56

/* A header as a disk or a server gives it. The first byte's bit 0 says that its checksum is to fit, so that what lies behind that
 * is reached; what is missing of 4096 bytes is zero. What is accepted can be written, and is the same bytes then. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t header[TY_ENVELOPE_BYTES] = {0}, again[TY_ENVELOPE_BYTES];
	struct ty_envelope e, second;
	struct ty_error err = {.text = ""};
	enum ty_code code;
	uint64_t check;

	if (size > 1)
		memcpy(header, data + 1, size - 1 < sizeof header ? size - 1 : sizeof header);
	if (size && data[0] & 1) {
		memset(header + AT_CHECK, 0, sizeof check);
		check = ty_checksum(header, sizeof header);
		for (size_t i = 0; i < sizeof check; i++)
			header[AT_CHECK + i] = (uint8_t)(check >> 8 * i);
	}
	code = ty_envelope_read(header, &e, &err);
	if (code != TY_OK) {
		FUZZ_CHECK(code == TY_PROTOCOL || code == TY_UNSUPPORTED || code == TY_INVALID);
		FUZZ_CHECK(err.code == code && err.text[0] != '\0');
		return 0;
	}
	FUZZ_CHECK(e.parts >= 1 && e.parts <= TY_CHUNK_MAX_PARTS);
	for (uint32_t i = 0; i < e.parts; i++)
		FUZZ_CHECK(e.length[i] >= 1 && e.length[i] <= TY_PIECE_BYTES);
	for (uint32_t i = 0; i < e.parts; i++)
		FUZZ_CHECK(ty_envelope_stored(&e, i) >= 1 && ty_envelope_stored(&e, i) <= e.length[i]);
	FUZZ_CHECK(ty_envelope_total(&e) <= TY_ENVELOPE_BYTES + TY_CHUNK_MAX_PARTS * TY_PIECE_BYTES);
	ty_envelope_write(&e, again);
	FUZZ_CHECK(ty_envelope_read(again, &second, &err) == TY_OK);
	FUZZ_CHECK(second.parts == e.parts && !memcmp(&second.key, &e.key, sizeof e.key));
	FUZZ_CHECK(!memcmp(second.length, e.length, e.parts * sizeof e.length[0]));
	FUZZ_CHECK(!memcmp(second.checksum, e.checksum, e.parts * sizeof e.checksum[0]));
	FUZZ_CHECK(!memcmp(second.packed, e.packed, e.parts * sizeof e.packed[0]));
	FUZZ_CHECK(!strcmp(second.identity.tenant, e.identity.tenant) && !strcmp(second.identity.quantization, e.identity.quantization));
	return 0;
}

size_t fuzz_seed(unsigned index, uint8_t *bytes)
{
	static const uint32_t parts[] = {1, 2, TY_CHUNK_MAX_PARTS};
	struct ty_envelope e = {.parts = 0};

	if (index >= 4 * sizeof parts / sizeof parts[0])
		return SIZE_MAX;
	e.parts = parts[index / 4];
	for (uint32_t i = 0; i < e.parts; i++) {
		e.length[i] = i % 2 ? TY_PIECE_BYTES : 1 + i * 4097;
		e.checksum[i] = UINT64_C(0x0123456789abcdef) + i;
		if (index & 2 && e.length[i] > 32)
			e.packed[i] = (struct ty_envelope_packed){i % 3 ? TY_CODEC_ZSTD : TY_CODEC_LZ4, 1u << i % 4, e.length[i] / 2, i + 7};
	}
	memset(e.key.bytes, 7, sizeof e.key.bytes);
	strcpy(e.identity.tenant, "acme");
	strcpy(e.identity.model, "model");
	memset(e.identity.revision, 'r', TY_IDENTITY_FIELD_MAX);
	bytes[0] = index % 2 == 0;
	ty_envelope_write(&e, bytes + 1);
	return 1 + TY_ENVELOPE_BYTES;
}
