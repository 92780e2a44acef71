/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/bytes.h"
#include "cache/pack.h"
#include "fuzz.h"

#define HEAD 4
#define LENGTH_MAX (600u << 10)

/* Packed bytes as a disk or a server gives them. The first byte says codec and width, the next three how long the part is to be: exactly
 * that many bytes of memory there are, and exactly as many packed ones as follow. What unpacks can be packed, and is the same again. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct ty_packer packer;
	struct ty_packing how;
	struct ty_error err = {.text = ""};
	uint8_t *in, *out, *again;
	uint64_t length, n;
	enum ty_code code;

	if (size < HEAD)
		return 0;
	how = (struct ty_packing){data[0] & 1 ? TY_CODEC_LZ4 : TY_CODEC_ZSTD, 1, 1u << (data[0] >> 1 & 3)};
	length = 1 + (ty_get32(data) >> 8) % LENGTH_MAX;
	n = size - HEAD;
	in = malloc(n ? n : 1);
	out = malloc(length);
	memcpy(in, data + HEAD, n);
	code = ty_unpack(&packer, &how, in, n, out, length, &err);
	FUZZ_CHECK(code == TY_OK || (code == TY_INVALID && err.code == code && err.text[0]));
	again = malloc(length);
	if (code == TY_OK) {
		uint8_t *packed = malloc(length);
		uint64_t stored = ty_pack(&packer, &how, out, length, packed, NULL, NULL);

		FUZZ_CHECK(stored <= ty_pack_room(length));
		FUZZ_CHECK(!stored || (ty_unpack(&packer, &how, packed, stored, again, length, &err) == TY_OK && !memcmp(again, out, length)));
		free(packed);
	}
	free(in);
	free(out);
	free(again);
	return 0;
}

/* Parts of each codec and width: zeros, words that count, and both. */
size_t fuzz_seed(unsigned index, uint8_t *bytes)
{
	static const uint32_t lengths[] = {1000, 4096, 128 << 10, (256 << 10) + 3};
	struct ty_packing how = {index & 1 ? TY_CODEC_LZ4 : TY_CODEC_ZSTD, 1, 1u << (index >> 1 & 3)};
	uint32_t length = lengths[index >> 3 & 3];
	struct ty_packer packer = {0};
	uint8_t *in = calloc(1, length), *out = malloc(length);
	uint64_t stored;

	if (index >= 64) {
		free(in);
		free(out);
		return SIZE_MAX;
	}
	for (uint32_t i = 0; index >> 5 && i + 4 <= length / 8; i += 4)
		ty_put32(in + i, i * 2654435761u);
	stored = ty_pack(&packer, &how, in, length, out, NULL, NULL);
	FUZZ_CHECK(stored && stored <= FUZZ_SEED_MAX - HEAD);
	ty_put32(bytes, (length - 1) << 8 | (index & 7));
	memcpy(bytes + HEAD, out, stored);
	ty_packer_clear(&packer);
	free(in);
	free(out);
	return HEAD + stored;
}
