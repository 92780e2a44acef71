/* SPDX-License-Identifier: Apache-2.0 */
#include "key.h"

#include <assert.h>
#include <endian.h>
#include <sodium.h>
#include <string.h>

static_assert(TY_KEY_BYTES == crypto_generichash_BYTES && TY_KEY_BYTES == crypto_generichash_KEYBYTES,
	"a key is one BLAKE2b-256 digest, and fit to key the next");

/* Decode the code point that starts at `s`: its length in bytes, 0 if it is no well-formed UTF-8 (overlong, surrogate,
 * past U+10FFFF, cut short by the terminator). */
static size_t utf8_decode(const uint8_t *s, uint32_t *out)
{
	static const uint32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000};
	size_t length;
	uint32_t point;

	if (s[0] < 0x80) {
		*out = s[0];
		return 1;
	}
	if ((s[0] & 0xe0) == 0xc0) {
		length = 2;
		point = s[0] & 0x1fu;
	} else if ((s[0] & 0xf0) == 0xe0) {
		length = 3;
		point = s[0] & 0x0fu;
	} else if ((s[0] & 0xf8) == 0xf0) {
		length = 4;
		point = s[0] & 0x07u;
	} else {
		return 0;
	}
	for (size_t i = 1; i < length; i++) {
		if ((s[i] & 0xc0) != 0x80) /* the terminator is none either */
			return 0;
		point = point << 6 | (s[i] & 0x3fu);
	}
	if (point < smallest[length] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
		return 0;
	*out = point;
	return length;
}

static bool printable(uint32_t point)
{
	return point >= 0x20 && !(point >= 0x7f && point <= 0x9f);
}

/* Copy one field, zeros behind it, so that equal identities are equal bytes. */
static enum ty_code set_field(char (*to)[256], const char *from, const char *name, bool required,
	struct ty_error *err)
{
	size_t length;

	if (!from)
		from = "";
	length = strnlen(from, TY_IDENTITY_FIELD_MAX + 1);
	if (length > TY_IDENTITY_FIELD_MAX)
		return ty_fail(err, TY_INVALID, "%s: longer than %d bytes", name, TY_IDENTITY_FIELD_MAX);
	if (required && length == 0)
		return ty_fail(err, TY_INVALID, "%s: empty, expected 1..%d bytes", name,
			TY_IDENTITY_FIELD_MAX);
	for (size_t i = 0; i < length;) {
		uint32_t point;
		size_t step = utf8_decode((const uint8_t *)from + i, &point);

		if (step == 0)
			return ty_fail(err, TY_INVALID, "%s: byte 0x%02x at offset %zu, expected UTF-8", name,
				(uint8_t)from[i], i);
		if (!printable(point))
			return ty_fail(err, TY_INVALID, "%s: control character U+%04X at offset %zu", name, point, i);
		i += step;
	}
	memset(*to, 0, sizeof *to);
	memcpy(*to, from, length);
	return TY_OK;
}

bool ty_identity_is(const struct ty_identity *a, const struct ty_identity *b)
{
	return !strcmp(a->tenant, b->tenant) && !strcmp(a->model, b->model) && !strcmp(a->revision, b->revision) &&
	       !strcmp(a->dtype, b->dtype) && !strcmp(a->quantization, b->quantization);
}

enum ty_code ty_identity_set(struct ty_identity *id, const char *tenant, const char *model, const char *revision,
	const char *dtype, const char *quantization, struct ty_error *err)
{
	enum ty_code code = set_field(&id->tenant, tenant, "tenant", false, err);

	if (code == TY_OK)
		code = set_field(&id->model, model, "model", true, err);
	if (code == TY_OK)
		code = set_field(&id->revision, revision, "revision", false, err);
	if (code == TY_OK)
		code = set_field(&id->dtype, dtype, "dtype", true, err);
	if (code == TY_OK)
		code = set_field(&id->quantization, quantization, "quantization", false, err);
	return code;
}

/* The length goes first: no two lists of fields run together into the same bytes. */
static void absorb(crypto_generichash_state *state, const void *bytes, size_t length)
{
	uint32_t prefix = htole32((uint32_t)length);

	crypto_generichash_update(state, (const uint8_t *)&prefix, sizeof prefix);
	if (length)
		crypto_generichash_update(state, bytes, length);
}

static void absorb_text(crypto_generichash_state *state, const char *text)
{
	absorb(state, text, strlen(text));
}

void ty_key_root(const struct ty_identity *id, const uint8_t fingerprint[TY_KEY_BYTES], const void *adapter,
	size_t adapter_bytes, const void *media, size_t media_bytes, struct ty_key *root)
{
	static const char domain[] = "tyer.root.v1";
	crypto_generichash_state state;

	assert(adapter_bytes <= TY_DIGEST_FIELD_MAX && media_bytes <= TY_DIGEST_FIELD_MAX);
	crypto_generichash_init(&state, NULL, 0, TY_KEY_BYTES);
	crypto_generichash_update(&state, (const uint8_t *)domain, sizeof domain - 1);
	absorb_text(&state, id->tenant);
	absorb_text(&state, id->model);
	absorb_text(&state, id->revision);
	absorb_text(&state, id->dtype);
	absorb_text(&state, id->quantization);
	absorb(&state, fingerprint, TY_KEY_BYTES);
	absorb(&state, adapter, adapter_bytes);
	absorb(&state, media, media_bytes);
	crypto_generichash_final(&state, root->bytes, TY_KEY_BYTES);
}

/* Tokens enter as little-endian words on every machine, so that keys may be shared between machines. */
static void absorb_tokens(crypto_generichash_state *state, const uint32_t *tokens, uint32_t count)
{
#if __BYTE_ORDER == __LITTLE_ENDIAN
	crypto_generichash_update(state, (const uint8_t *)tokens, (size_t)count * sizeof *tokens);
#else
	for (uint32_t i = 0; i < count; i++) {
		uint32_t token = htole32(tokens[i]);

		crypto_generichash_update(state, (const uint8_t *)&token, sizeof token);
	}
#endif
}

void ty_key_from_tokens(const struct ty_key *root, const struct ty_key *previous, const uint32_t *tokens,
	size_t token_count, uint32_t chunk_tokens, struct ty_key *keys)
{
	static const struct ty_key zeros;
	size_t chunks;

	assert(chunk_tokens > 0);
	chunks = token_count / chunk_tokens;
	if (!previous)
		previous = &zeros;
	for (size_t i = 0; i < chunks; i++) {
		crypto_generichash_state state;

		crypto_generichash_init(&state, root->bytes, TY_KEY_BYTES, TY_KEY_BYTES);
		crypto_generichash_update(&state, previous->bytes, TY_KEY_BYTES);
		absorb_tokens(&state, tokens + i * chunk_tokens, chunk_tokens);
		crypto_generichash_final(&state, keys[i].bytes, TY_KEY_BYTES);
		previous = &keys[i];
	}
}

void ty_key_from_hashes(const struct ty_key *root, const uint8_t *hashes, size_t count, struct ty_key *keys)
{
	/* 33 bytes: no chunk of tokens, which is 32 + 4n, is hashed to the same. */
	uint8_t message[1 + TY_KEY_BYTES] = {'h'};

	for (size_t i = 0; i < count; i++) {
		memcpy(message + 1, hashes + i * TY_KEY_BYTES, TY_KEY_BYTES);
		crypto_generichash(keys[i].bytes, TY_KEY_BYTES, message, sizeof message, root->bytes, TY_KEY_BYTES);
	}
}
