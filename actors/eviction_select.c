/* SPDX-License-Identifier: Apache-2.0 */
#include "eviction_control.h"

#include <stdlib.h>
#include <string.h>

#include "wire/request.h"

/* The fields of a namespace, as a select names them and as an identity has them. */
struct names {
	const char *field;
	char *const *names;
	size_t count, offset;
};

#define FIELD_COUNT 5
static void list_names(const Tyer__V1__Select *s, struct names out[FIELD_COUNT])
{
	const struct names all[FIELD_COUNT] = {
		{"tenants", s->tenants, s->n_tenants, offsetof(struct ty_identity, tenant)},
		{"models", s->models, s->n_models, offsetof(struct ty_identity, model)},
		{"revisions", s->revisions, s->n_revisions, offsetof(struct ty_identity, revision)},
		{"dtypes", s->dtypes, s->n_dtypes, offsetof(struct ty_identity, dtype)},
		{"quantizations", s->quantizations, s->n_quantizations, offsetof(struct ty_identity, quantization)},
	};

	memcpy(out, all, sizeof all);
}

static enum ty_code check_names(const Tyer__V1__Select *s, bool *any, struct ty_error *err)
{
	struct names names[FIELD_COUNT];
	enum ty_code code = TY_OK;

	*any = true;
	list_names(s, names);
	for (unsigned f = 0; f < FIELD_COUNT; f++) {
		if (names[f].count > SELECT_NAMES_MAX)
			return ty_fail(err, TY_INVALID, "select.%s: %zu entries; expected at most %d", names[f].field, names[f].count,
				SELECT_NAMES_MAX);
		for (size_t i = 0; i < names[f].count && code == TY_OK; i++) {
			char field[48];

			snprintf(field, sizeof field, "select.%s[%zu]", names[f].field, i);
			code = ty_wire_check_text(field, names[f].names[i], 0, TY_IDENTITY_FIELD_MAX, err);
			*any = false;
		}
	}
	return code;
}

static enum ty_code take_keys(const Tyer__V1__Select *s, struct eviction_select *out, struct ty_error *err)
{
	if (s->n_keys > SELECT_KEYS_MAX)
		return ty_fail(err, TY_INVALID, "select.keys: %zu keys; expected at most %d", s->n_keys, SELECT_KEYS_MAX);
	for (size_t i = 0; i < s->n_keys; i++)
		if (s->keys[i].len != TY_KEY_BYTES)
			return ty_fail(err, TY_INVALID, "select.keys[%zu]: %zu bytes; expected %d", i, s->keys[i].len, TY_KEY_BYTES);
	out->keys = malloc(s->n_keys * sizeof *out->keys);
	if (!out->keys)
		return ty_fail(err, TY_NO_MEMORY, "no memory for %zu keys", s->n_keys);
	for (size_t i = 0; i < s->n_keys; i++)
		memcpy(out->keys[i].bytes, s->keys[i].data, TY_KEY_BYTES);
	out->key_count = (uint32_t)s->n_keys;
	return TY_OK;
}

static enum ty_code check_prompt(const struct eviction *e, const Tyer__V1__Prompt *p, struct ty_identity *identity,
	size_t *count, struct ty_error *err)
{
	const Tyer__V1__Namespace *n = p->namespace_;
	struct ty_error why;

	if (!n)
		return ty_fail(err, TY_INVALID, "select.prompt.namespace: absent");
	if (ty_identity_set(identity, n->tenant, n->model, n->revision, n->dtype, n->quantization, &why) != TY_OK)
		return ty_fail(err, TY_INVALID, "select.prompt.namespace.%s", why.text);
	if (p->fingerprint.len != TY_KEY_BYTES)
		return ty_fail(err, TY_INVALID, "select.prompt.fingerprint: %zu bytes; expected RegisterReply's %d", p->fingerprint.len,
			TY_KEY_BYTES);
	if (p->adapter.len > TY_DIGEST_FIELD_MAX || p->media.len > TY_DIGEST_FIELD_MAX)
		return ty_fail(err, TY_INVALID, "select.prompt.%s: longer than %d bytes",
			p->adapter.len > TY_DIGEST_FIELD_MAX ? "adapter" : "media", TY_DIGEST_FIELD_MAX);
	if (!p->chain || (p->chain->n_tokens && p->chain->hashes.len))
		return ty_fail(err, TY_INVALID, "select.prompt.chain: expected either tokens or hashes");
	if (p->chain->hashes.len % TY_KEY_BYTES)
		return ty_fail(err, TY_INVALID, "select.prompt.chain.hashes: %zu bytes; expected a multiple of %d",
			p->chain->hashes.len, TY_KEY_BYTES);
	*count = p->chain->hashes.len ? p->chain->hashes.len / TY_KEY_BYTES
				      : p->chain->n_tokens / e->service->config->chunk_tokens;
	if (!*count || *count > SELECT_PROMPT_MAX)
		return ty_fail(err, TY_INVALID, "select.prompt.chain: %zu whole chunks; expected 1..%d", *count, SELECT_PROMPT_MAX);
	return TY_OK;
}

static enum ty_code take_prompt(const struct eviction *e, const Tyer__V1__Prompt *p, struct eviction_select *out,
	struct ty_error *err)
{
	struct ty_identity identity;
	struct ty_key root;
	size_t count = 0;
	enum ty_code code = check_prompt(e, p, &identity, &count, err);

	if (code != TY_OK)
		return code;
	out->keys = malloc(count * sizeof *out->keys);
	if (!out->keys)
		return ty_fail(err, TY_NO_MEMORY, "no memory for %zu keys", count);
	out->key_count = (uint32_t)count;
	ty_key_root(&identity, p->fingerprint.data, p->adapter.data, p->adapter.len, p->media.data, p->media.len, &root);
	if (p->chain->hashes.len)
		ty_key_from_hashes(&root, p->chain->hashes.data, count, out->keys);
	else
		ty_key_from_tokens(&root, NULL, p->chain->tokens, p->chain->n_tokens, e->service->config->chunk_tokens, out->keys);
	return TY_OK;
}

enum ty_code eviction_select_open(struct eviction *e, const Tyer__V1__Select *select, struct eviction_select *out,
	struct ty_error *err)
{
	static const Tyer__V1__Select everything = TYER__V1__SELECT__INIT;
	const Tyer__V1__Select *s = select ? select : &everything;
	enum ty_code code;

	memset(out, 0, sizeof *out);
	out->select = s;
	code = check_names(s, &out->any_space, err);
	if (code == TY_OK && s->key_prefix.len > TY_KEY_BYTES)
		code = ty_fail(err, TY_INVALID, "select.key_prefix: %zu bytes; expected at most %d", s->key_prefix.len, TY_KEY_BYTES);
	if (code == TY_OK && s->n_keys && s->prompt)
		code = ty_fail(err, TY_INVALID, "select: has both keys and a prompt; expected one of them");
	if (code == TY_OK && s->n_keys)
		code = take_keys(s, out, err);
	if (code == TY_OK && s->prompt)
		code = take_prompt(e, s->prompt, out, err);
	return code;
}

void eviction_select_close(struct eviction_select *select)
{
	free(select->keys);
	select->keys = NULL;
}

bool eviction_select_is_empty(const Tyer__V1__Select *s)
{
	return !s || !(s->n_keys || s->key_prefix.len || s->prompt || s->n_tenants || s->n_models || s->n_revisions ||
		       s->n_dtypes || s->n_quantizations);
}

static bool selects_identity(const Tyer__V1__Select *s, const struct ty_identity *identity)
{
	struct names names[FIELD_COUNT];

	if (!identity)
		return false; /* nobody knows whose it is */
	list_names(s, names);
	for (unsigned f = 0; f < FIELD_COUNT; f++) {
		bool found = names[f].count == 0;

		for (size_t i = 0; i < names[f].count && !found; i++)
			found = !strcmp(names[f].names[i], (const char *)identity + names[f].offset);
		if (!found)
			return false;
	}
	return true;
}

static bool has_prefix(const Tyer__V1__Select *s, const struct ty_key *key)
{
	return !s->key_prefix.len || memcmp(key->bytes, s->key_prefix.data, s->key_prefix.len) == 0;
}

bool eviction_selects(struct eviction *e, struct eviction_select *select, const struct ty_chunk *chunk)
{
	uint8_t *known = &select->spaces[chunk->space];

	if (!has_prefix(select->select, &chunk->key))
		return false;
	if (select->any_space)
		return true;
	if (!*known)
		*known = selects_identity(select->select, ty_spaces_identity(&e->service->spaces, chunk->space)) ? 2 : 1;
	return *known == 2;
}

bool eviction_selects_below(const struct eviction_select *select, const struct ty_key *key, const struct ty_identity *identity)
{
	return has_prefix(select->select, key) && (select->any_space || selects_identity(select->select, identity));
}
