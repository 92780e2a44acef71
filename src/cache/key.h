/* SPDX-License-Identifier: Apache-2.0
 *
 * Keys: 32 bytes that name a chunk by everything that decides its contents.
 *
 *   root    = BLAKE2b-256("tyer.root.v1", length-prefixed: tenant, model, revision, dtype, quantization,
 *                         layout fingerprint, adapter, media)
 *   tokens:  key[i] = BLAKE2b-256(key = root, key[i-1] or zeros, tokens of chunk i as little-endian u32)
 *   hashes:  key[i] = BLAKE2b-256(key = root, 'h', the engine's hash of chunk i)  (that hash is chained already)
 *
 * Never shortened, always compared whole. Pure functions: any thread.
 */
#ifndef TY_CACHE_KEY_H
#define TY_CACHE_KEY_H

#include <tyer/client.h>

#define TY_CHUNK_MAX_PARTS 64 /* of one key: the ranks of an engine hold a part each */

struct ty_key {
	uint8_t bytes[TY_KEY_BYTES];
};

#define TY_IDENTITY_FIELD_MAX 255 /* bytes */
#define TY_DIGEST_FIELD_MAX 64    /* bytes: adapter, media */

struct ty_identity {
	char tenant[256], model[256], revision[256], dtype[256], quantization[256];
};

/* TY_INVALID names the field that is missing, too long, or not printable UTF-8. Null strings are "". */
TY_MUST_USE enum ty_code ty_identity_set(struct ty_identity *id, const char *tenant, const char *model,
	const char *revision, const char *dtype, const char *quantization, struct ty_error *err);

bool ty_identity_is(const struct ty_identity *a, const struct ty_identity *b); /* the same one */

void ty_key_root(const struct ty_identity *id, const uint8_t fingerprint[TY_KEY_BYTES], const void *adapter,
	size_t adapter_bytes, const void *media, size_t media_bytes, struct ty_key *root);

/* `previous` is the chunk before (null for the first). Writes token_count / chunk_tokens keys. */
void ty_key_from_tokens(const struct ty_key *root, const struct ty_key *previous, const uint32_t *tokens,
	size_t token_count, uint32_t chunk_tokens, struct ty_key *keys);
void ty_key_from_hashes(const struct ty_key *root, const uint8_t *hashes, size_t count, struct ty_key *keys);

#endif
