/* SPDX-License-Identifier: Apache-2.0
 *
 * LOOKUP and END_SESSION: the session's chain of keys, and the lease on the leading chunks that are here. The index is
 * read right here, without a message; a pin taken here holds until eviction gets the lease back.
 */
#include "engine_state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static struct session **bucket(struct engine *e, uint64_t id)
{
	return &e->sessions[(id * 0x9e3779b97f4a7c15ull >> 32) % SESSION_BUCKETS];
}

struct session *engine_find_session(struct engine *e, uint64_t id)
{
	struct session *s = *bucket(e, id);

	while (s && s->id != id)
		s = s->next;
	return s;
}

static struct session *open_session(struct engine *e, struct peer *peer, uint64_t id)
{
	struct session *s = calloc(1, sizeof *s), **head = bucket(e, id);

	if (!s)
		return NULL;
	s->id = id;
	s->peer = peer;
	s->next = *head;
	*head = s;
	e->session_count++;
	return s;
}

/* Engines count together. */
static void count_in(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* The lease goes to eviction, which touches its chunks, unpins them, and sends it back to be freed. Of so many leading ones the
 * request goes on, with another lease. */
static uint32_t release(struct engine *e, struct ty_lease *lease, const struct ty_hint *hint, uint32_t again)
{
	if (!lease)
		return 0;

	uint32_t count = lease->count;

	lease->hint = *hint;
	lease->again = again;

	e->leased -= count;
	e->leases_out++;
	enum ty_code sent = ty_send(e->service->eviction, &lease->msg, TY_EVICTION_RELEASE);
	assert(sent == TY_OK); /* eviction outlives engines */
	/* release: whoever sees them gone, and sends to eviction then, comes behind this message */
	atomic_fetch_sub_explicit(&e->service->lookup_stats.leases, count, memory_order_release);
	return count;
}

static uint32_t close_session(struct engine *e, struct session *s)
{
	struct session **link = bucket(e, s->id);
	uint32_t released = release(e, s->lease, &s->hint, 0);

	engine_fetch_drop(e, s);

	while (*link != s)
		link = &(*link)->next;
	*link = s->next;
	e->session_count--;
	e->session_chunks -= s->room;
	ty_share_give(&e->service->session_chunks, s->room);
	free(s->keys);
	free(s);
	return released;
}

void engine_drop_sessions(struct engine *e, const struct peer *peer)
{
	for (uint32_t b = 0; b < SESSION_BUCKETS; b++) {
		for (struct session *s = e->sessions[b], *next; s; s = next) {
			next = s->next;
			if (!peer || s->peer == peer)
				close_session(e, s);
		}
	}
}

/* ---- chains -------------------------------------------------------------------------------------------- */

/* How many chunks a chain has; TY_INVALID when it says two things at once or half a hash. */
enum ty_code engine_chain_length(const struct engine *e, const Tyer__V1__Chain *chain, size_t *chunks,
	struct ty_error *err)
{
	*chunks = 0;
	if (!chain)
		return TY_OK;
	if (chain->n_tokens && chain->hashes.len)
		return ty_fail(err, TY_INVALID, "chain: has both tokens and hashes; expected one of them");
	if (chain->hashes.len % TY_KEY_BYTES)
		return ty_fail(err, TY_INVALID, "chain.hashes: %zu bytes; expected a multiple of %d", chain->hashes.len,
			TY_KEY_BYTES);
	*chunks = chain->hashes.len ? chain->hashes.len / TY_KEY_BYTES : chain->n_tokens / e->service->config->chunk_tokens;
	return TY_OK;
}

/* The session's keys stay until it ends. */
static enum ty_code give_room(struct engine *e, struct session *s, uint32_t room, struct ty_error *err)
{
	uint32_t more = room - s->room;
	struct ty_key *keys;

	if (!ty_share_take(&e->service->session_chunks, e->session_chunks, more))
		return ty_fail(err, TY_BUSY, "sessions: %llu chunks of at most %llu are in those of all engines, %llu of them in this one's",
			(unsigned long long)atomic_load_explicit(&e->service->session_chunks.used, memory_order_relaxed),
			(unsigned long long)atomic_load_explicit(&e->service->session_chunks.all, memory_order_relaxed), (unsigned long long)e->session_chunks);
	keys = realloc(s->keys, room * sizeof *keys);
	if (!keys) {
		ty_share_give(&e->service->session_chunks, more);
		return ty_fail(err, TY_NO_MEMORY, "no memory for %u keys", room);
	}
	e->session_chunks += more;
	s->keys = keys;
	s->room = room;
	return TY_OK;
}

/* May the session have `more` chunks behind those `before`? Then it has room for them. */
static enum ty_code check_room(struct engine *e, struct session *s, uint32_t before, size_t more, struct ty_error *err)
{
	uint32_t limit = e->service->config->max_session_chunks;

	if (more > limit - before)
		return ty_fail(err, TY_LIMIT, "max-session-chunks: the chain would have %zu chunks; at most %u", before + more, limit);
	return before + more > s->room ? give_room(e, s, before + (uint32_t)more, err) : TY_OK;
}

enum ty_code engine_append(struct engine *e, struct session *s, const Tyer__V1__Chain *chain, struct ty_error *err)
{
	size_t more;
	enum ty_code code = engine_chain_length(e, chain, &more, err);

	if (code == TY_OK)
		code = check_room(e, s, s->chunks, more, err);
	if (code != TY_OK || !more)
		return code;
	if (chain->hashes.len)
		ty_key_from_hashes(&s->root, chain->hashes.data, more, s->keys + s->chunks);
	else
		ty_key_from_tokens(&s->root, s->chunks ? &s->keys[s->chunks - 1] : NULL, chain->tokens, chain->n_tokens,
			e->service->config->chunk_tokens, s->keys + s->chunks);
	s->chunks += (uint32_t)more;
	return TY_OK;
}

/* ---- hints --------------------------------------------------------------------------------------------- */

/* Conversations are numbered by each engine: here they are told apart among all. */
static uint32_t owner_of(const struct engine *e, uint64_t conversation)
{
	uint64_t mixed = (conversation ^ (uint64_t)(uintptr_t)e * 0x9e3779b97f4a7c15ull) * 0xd6e8feb86659fd93ull;

	return (uint32_t)(mixed >> 32) % (TY_DOOMED - 1) + 1;
}

static uint8_t band_of(const Tyer__V1__Hint *said)
{
	uint8_t band = said->priority ? (uint8_t)(TY_BAND_RAISED + said->priority - 1) : TY_BAND_AS_IT_IS;

	if (said->keep_s && ty_order_band_for(said->keep_s) > band)
		band = ty_order_band_for(said->keep_s);
	if (said->kind == TYER__V1__HINT__KIND__ALIVE && band == TY_BAND_AS_IT_IS)
		band = TY_BAND_ALIVE;
	return said->kind == TYER__V1__HINT__KIND__DONE ? TY_BAND_DONE : band;
}

/* What is said of the session's chunks: `said`, or what LOOKUP said, if that is null. */
enum ty_code engine_hint(const struct engine *e, const struct session *s, const Tyer__V1__Hint *said, struct ty_hint *out,
	struct ty_error *err)
{
	if (!said) {
		*out = s->hint;
		return TY_OK;
	}
	if ((unsigned)said->kind > TYER__V1__HINT__KIND__PINNED)
		return ty_fail(err, TY_INVALID, "hint.kind: %d; expected 0..%d", (int)said->kind, TYER__V1__HINT__KIND__PINNED);
	if (said->priority > TY_PRIORITIES)
		return ty_fail(err, TY_INVALID, "hint.priority: %u; expected 0..%d", said->priority, TY_PRIORITIES);
	if (said->keep_s > TY_KEEP_MAX_S)
		return ty_fail(err, TY_INVALID, "hint.keep_s: %u; expected 0..%u", said->keep_s, TY_KEEP_MAX_S);
	if (said->kind == TYER__V1__HINT__KIND__DONE && (said->priority || said->keep_s))
		return ty_fail(err, TY_INVALID, "hint: says DONE, and to keep it; expected one of them");
	*out = (struct ty_hint){
		.owner = owner_of(e, s->conversation),
		.band = band_of(said),
		.keep = said->kind == TYER__V1__HINT__KIND__PINNED,
	};
	return TY_OK;
}

/* A lease with room for so many, with what `lease` has (null: nothing); null: no memory, and `lease` is as it was. */
static struct ty_lease *grow_lease(struct engine *e, struct ty_lease *lease, uint32_t room)
{
	struct ty_lease *bigger = realloc(lease, sizeof *lease + room * sizeof lease->chunks[0]);

	if (bigger && !lease)
		*bigger = (struct ty_lease){.msg = TY_MSG_INIT, .engine = ty_self(), .space = e->space};
	return bigger;
}

/* Something is said of everything that the session has, not only of what it leases: eviction gets the keys. */
static void say_of_all(struct engine *e, struct session *s)
{
	if (s->hint.band == TY_BAND_AS_IT_IS && !s->hint.keep)
		return;
	if (!s->lease)
		s->lease = grow_lease(e, NULL, 0);
	if (!s->lease)
		return; /* no memory: a hint is lost, no more */
	s->lease->keys = s->keys;
	s->lease->key_count = s->chunks;
	s->keys = NULL;
}

/* ---- verbs --------------------------------------------------------------------------------------------- */

/* The chunk, pinned, if it is here. A store below is not trusted with being right: one that is not of our layout's shape is none of ours,
 * and a copy of what the layout says would go past its slots. */
static struct ty_chunk *pin(const struct engine *e, const struct ty_key *key)
{
	struct ty_chunk *chunk = ty_index_pin(e->service->index, key);

	if (!chunk || (chunk->parts == e->parts && chunk->length == e->part_bytes))
		return chunk;
	ty_chunk_unpin(chunk);
	return NULL;
}

/* Pin the longest prefix that is here: what the lease has not yet. */
enum ty_code engine_extend_lease(struct engine *e, struct session *s, struct ty_error *err)
{
	uint32_t have = s->lease ? s->lease->count : 0;
	struct ty_lease *lease;

	if (have == s->chunks)
		return TY_OK;
	lease = grow_lease(e, s->lease, s->chunks);
	if (!lease)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a lease of %u chunks", s->chunks);
	while (lease->count < s->chunks) {
		struct ty_chunk *chunk = pin(e, &s->keys[lease->count]);

		if (!chunk)
			break;
		lease->chunks[lease->count++] = chunk;
	}
	e->leased += lease->count - have;
	count_in(&e->service->lookup_stats.leases, lease->count - have);
	s->lease = lease->count ? lease : NULL;
	if (!s->lease)
		free(lease);
	return TY_OK;
}

void engine_answer_lookup(struct engine *e, const struct session *s, struct ty_exchange *x)
{
	x->reply.lookup.chunks = s->chunks;
	x->reply.lookup.hits = s->lease ? s->lease->count : 0;
	count_in(&e->service->lookup_stats.chunks, x->reply.lookup.chunks);
	count_in(&e->service->lookup_stats.hits, x->reply.lookup.hits);
	ty_exchange_answer(x);
}

static enum ty_code check_lookup(struct engine *e, const Tyer__V1__Lookup *q, struct ty_error *err)
{
	if (!q->session)
		return ty_fail(err, TY_INVALID, "session: 0; expected a number that the engine chose, not 0");
	if (q->adapter.len > TY_DIGEST_FIELD_MAX || q->media.len > TY_DIGEST_FIELD_MAX)
		return ty_fail(err, TY_INVALID, "%s: longer than %d bytes", q->adapter.len > TY_DIGEST_FIELD_MAX ? "adapter" : "media",
			TY_DIGEST_FIELD_MAX);
	if (!e->has_fingerprint)
		return ty_fail(err, TY_UNKNOWN_REGISTRATION,
			"this engine has no pool yet: the layout is part of every key, so a REGISTER must have succeeded first");
	return TY_OK;
}

/* The session's prompt is another one from now on, or the same once more: a scheduler that asks again about a request has not
 * used its chunks twice. */
static enum ty_code give_prompt(struct engine *e, struct session *s, const Tyer__V1__Lookup *q, const struct ty_hint *hint,
	struct ty_error *err)
{
	struct ty_lease *before = s->lease;
	const struct ty_hint was = s->hint; /* of the prompt before */
	struct ty_key last = s->chunks ? s->keys[s->chunks - 1] : (struct ty_key){{0}};
	uint32_t chunks = s->chunks;
	size_t count;
	bool same;
	enum ty_code code = engine_chain_length(e, q->chain, &count, err);

	if (code == TY_OK)
		code = check_room(e, s, 0, count, err);
	if (code != TY_OK) /* and the session is as it was */
		return code;
	engine_fetch_drop(e, s);
	s->hint = *hint;
	ty_key_root(&e->identity, e->fingerprint, q->adapter.data, q->adapter.len, q->media.data, q->media.len, &s->root);
	s->chunks = 0;
	s->lease = NULL;
	code = engine_append(e, s, q->chain, err);
	if (code == TY_OK)
		code = engine_extend_lease(e, s, err);
	same = code == TY_OK && chunks && chunks == s->chunks && !memcmp(&last, &s->keys[chunks - 1], sizeof last);
	/* After the new pins, so that what both have in common cannot be evicted between. */
	release(e, before, &was, same && s->lease ? s->lease->count : 0);
	return code;
}

void engine_lookup(struct engine *e, struct peer *peer, struct ty_exchange *x)
{
	const Tyer__V1__Lookup *q = x->request->lookup;
	struct ty_hint hint;
	struct ty_error err;
	enum ty_code code = check_lookup(e, q, &err);
	struct session *s = code == TY_OK ? engine_find_session(e, q->session) : NULL;
	bool opened = false;

	if (code == TY_OK && !s) {
		if (e->session_count >= e->service->config->max_sessions)
			code = ty_fail(&err, TY_LIMIT, "max-sessions: this engine has %u open; END_SESSION some", e->session_count);
		else if (!(s = open_session(e, peer, q->session)))
			code = ty_fail(&err, TY_NO_MEMORY, "no memory for a session");
		opened = true;
	}
	if (code == TY_OK && opened) {
		s->conversation = q->conversation ? q->conversation : q->session;
		s->hint.owner = owner_of(e, s->conversation);
	}
	if (code == TY_OK)
		code = engine_hint(e, s, q->hint, &hint, &err);
	if (code == TY_OK)
		code = give_prompt(e, s, q, &hint, &err);
	if (code != TY_OK) {
		ty_exchange_refuse(x, code, "%s", err.text);
		if (s && opened)
			close_session(e, s);
		return;
	}
	if (!engine_fetch_begin(e, s, x))
		engine_answer_lookup(e, s, x);
}

void engine_end_session(struct engine *e, struct ty_exchange *x)
{
	uint64_t id = x->request->end_session->session;
	struct session *s = engine_find_session(e, id);
	struct ty_error err;
	enum ty_code code;

	if (!s) {
		ty_exchange_refuse(x, TY_UNKNOWN_SESSION, "session: %llu is not open; LOOKUP opens one", (unsigned long long)id);
		return;
	}
	code = engine_hint(e, s, x->request->end_session->hint, &s->hint, &err);
	if (code != TY_OK) {
		ty_exchange_refuse(x, code, "%s", err.text);
		return;
	}
	say_of_all(e, s);
	x->reply.end_session.released = close_session(e, s);
	ty_exchange_answer(x);
}
