/* SPDX-License-Identifier: Apache-2.0
 *
 * The verbs: arguments into messages. What the service alone can know (leases, block ids in range) it alone checks.
 */
#include "client/internal.h"

#include <string.h>

#include "device/layout.h"
#include "wire/pool.h"
#include "wire/request.h"

#define ADAPTER_MAX 64 /* bytes, as tyer.proto says */

/* protobuf-c's structs know no const; packing only reads. */
static void *unconst(const void *p)
{
	return (void *)(uintptr_t)p;
}

static enum ty_code submit(struct ty_client *c, Tyer__V1__Request *request, ty_done_fn done, void *user,
	struct ty_error *err)
{
	struct ty_request_slot *slot;
	enum ty_code code;

	if (done == NULL)
		return ty_fail(err, TY_INVALID, "done is null");
	code = ty_slot_take(c, NULL, &slot, err);
	return code != TY_OK ? code : ty_slot_submit(slot, request, done, user, err);
}

enum ty_code ty_client_ping(struct ty_client *c, ty_done_fn done, void *user, struct ty_error *err)
{
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT;
	Tyer__V1__Ping ping = TYER__V1__PING__INIT;

	request.verb_case = TYER__V1__REQUEST__VERB_PING;
	request.ping = &ping;
	return submit(c, &request, done, user, err);
}

enum ty_code ty_client_status(struct ty_client *c, ty_done_fn done, void *user, struct ty_error *err)
{
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT;
	Tyer__V1__Status status = TYER__V1__STATUS__INIT;

	request.verb_case = TYER__V1__REQUEST__VERB_STATUS;
	request.status = &status;
	return submit(c, &request, done, user, err);
}

enum ty_code ty_client_admin(struct ty_client *c, const void *bytes, size_t length, ty_done_fn done, void *user,
	struct ty_error *err)
{
	Tyer__V1__Request *request;
	enum ty_code code = ty_request_unpack(bytes, length, c->max_request_bytes, &request, err);

	if (code != TY_OK)
		return code;
	if (ty_verb_is_admin((uint32_t)request->verb_case))
		code = submit(c, request, done, user, err);
	else
		code = ty_fail(err, TY_INVALID, "request: its verb is %s, expected one of the administration's",
			ty_verb_name((uint32_t)request->verb_case));
	ty_request_free(request);
	return code;
}

/* ---- memory ---------------------------------------------------------------------------------------------------------- */

enum ty_code ty_client_register(struct ty_client *c, const struct ty_pool *pool, ty_done_fn done, void *user,
	struct ty_error *err)
{
	struct ty_request_slot *slot;
	struct ty_kept_pool *kept;
	enum ty_code code;

	if (done == NULL)
		return ty_fail(err, TY_INVALID, "done is null");
	code = ty_slot_take(c, NULL, &slot, err);
	if (code == TY_OK)
		code = ty_pool_keep(c, pool, &kept, err);
	if (code != TY_OK)
		return code;
	code = ty_pool_register(slot, kept, done, user, err);
	if (code != TY_OK)
		ty_pool_forget(c, kept);
	return code;
}

enum ty_code ty_client_unregister(struct ty_client *c, uint32_t registration, ty_done_fn done, void *user,
	struct ty_error *err)
{
	struct ty_kept_pool *kept = ty_pool_find(c, registration);
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT;
	Tyer__V1__Unregister unregister = TYER__V1__UNREGISTER__INIT;
	struct ty_request_slot *slot;
	enum ty_code code;

	if (done == NULL)
		return ty_fail(err, TY_INVALID, "done is null");
	if (kept != NULL && c->link != TY_LINK_UP) { /* the service that had it is gone: forget it, also when it is on its way back */
		if (c->link == TY_LINK_REGISTER)
			ty_link_lost(c, TY_CLOSED, "a pool was given up while it was being registered again");
		ty_pool_forget(c, kept);
	}
	if (kept != NULL && c->link == TY_LINK_UP && kept->leaving) /* the first one's answer takes the pool away */
		return ty_fail(err, TY_UNKNOWN_REGISTRATION, "registration: an UNREGISTER of %u is under way", registration);
	code = ty_pool_number(c, registration, &unregister.registration, err);
	if (code == TY_OK)
		code = ty_slot_take(c, NULL, &slot, err);
	if (code != TY_OK)
		return code;
	request.verb_case = TYER__V1__REQUEST__VERB_UNREGISTER;
	request.unregister = &unregister;
	slot->pool = kept;
	kept->leaving = true;
	code = ty_slot_submit(slot, &request, done, user, err);
	if (code != TY_OK) {
		slot->pool = NULL;
		kept->leaving = false;
	}
	return code;
}

/* ---- prompts --------------------------------------------------------------------------------------------------------- */

static enum ty_code fill_chain(const char *field, const struct ty_chain *in, Tyer__V1__Chain *out, struct ty_error *err)
{
	tyer__v1__chain__init(out);
	if (in == NULL)
		return ty_fail(err, TY_INVALID, "%s is null", field);
	if (in->tokens != NULL && in->hashes != NULL)
		return ty_fail(err, TY_INVALID, "%s has tokens and hashes, expected one of them", field);
	if ((in->tokens == NULL && in->token_count != 0) || (in->hashes == NULL && in->chunk_count != 0))
		return ty_fail(err, TY_INVALID, "%s has a count without its array", field);
	if (in->chunk_count > SIZE_MAX / TY_KEY_BYTES)
		return ty_fail(err, TY_LIMIT, "%s.chunk_count is %zu", field, in->chunk_count);
	if (in->tokens != NULL) {
		out->n_tokens = in->token_count;
		out->tokens = unconst(in->tokens);
	}
	if (in->hashes != NULL)
		out->hashes = (ProtobufCBinaryData){.len = in->chunk_count * TY_KEY_BYTES, .data = unconst(in->hashes)};
	return TY_OK;
}

static enum ty_code fill_digest(const char *field, const void *bytes, size_t length, ProtobufCBinaryData *out,
	struct ty_error *err)
{
	if (length > ADAPTER_MAX)
		return ty_fail(err, TY_INVALID, "%s has %zu bytes, expected at most %d", field, length, ADAPTER_MAX);
	if (length != 0 && bytes == NULL)
		return ty_fail(err, TY_INVALID, "%s is null and has %zu bytes", field, length);
	*out = (ProtobufCBinaryData){.len = length, .data = unconst(bytes)};
	return TY_OK;
}

/* The service checks the values. */
static Tyer__V1__Hint *fill_hint(const struct ty_hint_said *in, Tyer__V1__Hint *out)
{
	if (!in)
		return NULL;
	tyer__v1__hint__init(out);
	out->kind = (Tyer__V1__Hint__Kind)in->kind;
	out->priority = in->priority;
	out->keep_s = in->keep_s;
	return out;
}

enum ty_code ty_client_lookup_with(struct ty_client *c, const struct ty_lookup *with, ty_done_fn done, void *user,
	struct ty_error *err)
{
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT;
	Tyer__V1__Lookup lookup = TYER__V1__LOOKUP__INIT;
	Tyer__V1__Chain message;
	Tyer__V1__Hint hint;
	enum ty_code code;

	code = fill_chain("chain", with->chain, &message, err);
	if (code == TY_OK)
		code = fill_digest("adapter", with->adapter, with->adapter_bytes, &lookup.adapter, err);
	if (code == TY_OK)
		code = fill_digest("media", with->media, with->media_bytes, &lookup.media, err);
	if (code != TY_OK)
		return code;
	lookup.session = with->session;
	lookup.chain = &message;
	lookup.conversation = with->conversation;
	lookup.hint = fill_hint(with->hint, &hint);
	request.verb_case = TYER__V1__REQUEST__VERB_LOOKUP;
	request.lookup = &lookup;
	return submit(c, &request, done, user, err);
}

enum ty_code ty_client_lookup_as(struct ty_client *c, uint64_t session, const struct ty_chain *chain, const void *adapter,
	size_t adapter_bytes, const void *media, size_t media_bytes, ty_done_fn done, void *user, struct ty_error *err)
{
	struct ty_lookup with = {.session = session, .chain = chain, .adapter = adapter, .adapter_bytes = adapter_bytes,
		.media = media, .media_bytes = media_bytes};

	return ty_client_lookup_with(c, &with, done, user, err);
}

enum ty_code ty_client_lookup(struct ty_client *c, uint64_t session, const struct ty_chain *chain, ty_done_fn done,
	void *user, struct ty_error *err)
{
	return ty_client_lookup_as(c, session, chain, NULL, 0, NULL, 0, done, user, err);
}

enum ty_code ty_client_end_session_as(struct ty_client *c, uint64_t session, const struct ty_hint_said *said,
	ty_done_fn done, void *user, struct ty_error *err)
{
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT;
	Tyer__V1__EndSession end = TYER__V1__END_SESSION__INIT;
	Tyer__V1__Hint hint;

	end.session = session;
	end.hint = fill_hint(said, &hint);
	request.verb_case = TYER__V1__REQUEST__VERB_END_SESSION;
	request.end_session = &end;
	return submit(c, &request, done, user, err);
}

enum ty_code ty_client_end_session(struct ty_client *c, uint64_t session, ty_done_fn done, void *user, struct ty_error *err)
{
	return ty_client_end_session_as(c, session, NULL, done, user, err);
}

/* ---- operations ------------------------------------------------------------------------------------------------------ */

uint64_t ty_client_last_id(const struct ty_client *c)
{
	return c->next_id - 1;
}

enum ty_code ty_client_cancel(struct ty_client *c, uint64_t id, ty_done_fn done, void *user, struct ty_error *err)
{
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT;
	Tyer__V1__Cancel cancel = TYER__V1__CANCEL__INIT;

	cancel.id = id;
	request.verb_case = TYER__V1__REQUEST__VERB_CANCEL;
	request.cancel = &cancel;
	return submit(c, &request, done, user, err);
}

enum ty_code ty_client_operations(struct ty_client *c, const uint64_t *ids, uint32_t count, ty_done_fn done, void *user,
	struct ty_error *err)
{
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT;
	Tyer__V1__Operations operations = TYER__V1__OPERATIONS__INIT;

	if (ids == NULL && count != 0)
		return ty_fail(err, TY_INVALID, "ids is null, and count is %u", count);
	operations.n_ids = count;
	operations.ids = unconst(ids);
	request.verb_case = TYER__V1__REQUEST__VERB_OPERATIONS;
	request.operations = &operations;
	return submit(c, &request, done, user, err);
}

/* ---- transfers ------------------------------------------------------------------------------------------------------- */

struct transfer_parts {
	Tyer__V1__BlockIds ids[TY_MAX_GROUPS], *at[TY_MAX_GROUPS];
	Tyer__V1__Mark ready, done, layers;
	Tyer__V1__Chain append;
};

static enum ty_code fill_mark(const char *field, const struct ty_mark *in, Tyer__V1__Mark *out, Tyer__V1__Mark **at,
	struct ty_error *err)
{
	if (in->word >= TY_TIMELINE_WORDS)
		return ty_fail(err, TY_INVALID, "%s.word is %u, expected 0..%d", field, in->word, TY_TIMELINE_WORDS - 1);
	tyer__v1__mark__init(out);
	out->word = in->word;
	out->value = in->value;
	*at = in->word != 0 ? out : NULL;
	return TY_OK;
}

static enum ty_code fill_ids(const uint32_t *const *blocks, const uint32_t *counts, uint32_t group_count,
	struct transfer_parts *parts, struct ty_error *err)
{
	uint32_t g;

	if (group_count > TY_MAX_GROUPS)
		return ty_fail(err, TY_INVALID, "group_count is %u, expected at most %d", group_count, TY_MAX_GROUPS);
	if (group_count != 0 && (blocks == NULL || counts == NULL))
		return ty_fail(err, TY_INVALID, "blocks or block_counts is null");
	for (g = 0; g < group_count; g++) {
		if (blocks[g] == NULL && counts[g] != 0)
			return ty_fail(err, TY_INVALID, "blocks[%u] is null and has %u ids", g, counts[g]);
		tyer__v1__block_ids__init(&parts->ids[g]);
		parts->ids[g].n_ids = counts[g];
		parts->ids[g].ids = unconst(blocks[g]);
		parts->at[g] = &parts->ids[g];
	}
	return TY_OK;
}

static enum ty_code fill_blocks(const struct ty_transfer *t, struct transfer_parts *parts, struct ty_error *err)
{
	if (t->group_count == 0)
		return ty_fail(err, TY_INVALID, "transfer.group_count is 0, expected 1..%d", TY_MAX_GROUPS);
	return fill_ids(t->blocks, t->block_counts, t->group_count, parts, err);
}

enum ty_code ty_client_retrieve(struct ty_client *c, const struct ty_transfer *t, ty_done_fn done, void *user,
	struct ty_error *err)
{
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT;
	Tyer__V1__Retrieve retrieve = TYER__V1__RETRIEVE__INIT;
	struct transfer_parts parts;
	enum ty_code code;

	if (t->append != NULL || t->hint != NULL)
		return ty_fail(err, TY_INVALID, "transfer.%s is STORE's, expected null", t->append ? "append" : "hint");
	code = fill_blocks(t, &parts, err);
	if (code == TY_OK)
		code = fill_mark("transfer.ready", &t->ready, &parts.ready, &retrieve.ready, err);
	if (code == TY_OK)
		code = fill_mark("transfer.done", &t->done, &parts.done, &retrieve.done, err);
	if (code == TY_OK)
		code = ty_pool_number(c, t->registration, &retrieve.registration, err);
	if (code == TY_OK)
		code = fill_mark("transfer.layers", &t->layers, &parts.layers, &retrieve.layers, err);
	if (code != TY_OK)
		return code;
	retrieve.session = t->session;
	retrieve.first = t->first;
	retrieve.count = t->count;
	retrieve.n_blocks = t->group_count;
	retrieve.blocks = parts.at;
	request.verb_case = TYER__V1__REQUEST__VERB_RETRIEVE;
	request.retrieve = &retrieve;
	return submit(c, &request, done, user, err);
}

enum ty_code ty_client_store(struct ty_client *c, const struct ty_transfer *t, ty_done_fn done, void *user,
	struct ty_error *err)
{
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT;
	Tyer__V1__Store store = TYER__V1__STORE__INIT;
	struct transfer_parts parts;
	Tyer__V1__Hint hint;
	enum ty_code code;

	if (t->layers.word != 0)
		return ty_fail(err, TY_INVALID, "transfer.layers is RETRIEVE's, expected word 0");
	code = fill_blocks(t, &parts, err);
	if (code == TY_OK)
		code = fill_mark("transfer.ready", &t->ready, &parts.ready, &store.ready, err);
	if (code == TY_OK)
		code = fill_mark("transfer.done", &t->done, &parts.done, &store.done, err);
	if (code == TY_OK)
		code = ty_pool_number(c, t->registration, &store.registration, err);
	if (code == TY_OK && t->append != NULL) {
		code = fill_chain("transfer.append", t->append, &parts.append, err);
		store.append = &parts.append;
	}
	if (code != TY_OK)
		return code;
	store.hint = fill_hint(t->hint, &hint);
	store.session = t->session;
	store.first = t->first;
	store.count = t->count;
	store.n_blocks = t->group_count;
	store.blocks = parts.at;
	request.verb_case = TYER__V1__REQUEST__VERB_STORE;
	request.store = &store;
	return submit(c, &request, done, user, err);
}

enum ty_code ty_client_flush(struct ty_client *c, uint32_t registration, const uint32_t *const *blocks,
	const uint32_t *block_counts, uint32_t group_count, ty_done_fn done, void *user, struct ty_error *err)
{
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT;
	Tyer__V1__Flush flush = TYER__V1__FLUSH__INIT;
	struct transfer_parts parts;
	enum ty_code code = fill_ids(blocks, block_counts, group_count, &parts, err);

	if (code == TY_OK)
		code = ty_pool_number(c, registration, &flush.registration, err);
	if (code != TY_OK)
		return code;
	flush.n_blocks = group_count;
	flush.blocks = parts.at;
	request.verb_case = TYER__V1__REQUEST__VERB_FLUSH;
	request.flush = &flush;
	return submit(c, &request, done, user, err);
}
