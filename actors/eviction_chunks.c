/* SPDX-License-Identifier: Apache-2.0
 *
 * A chunk's life: into the index and the order, its parts' slots, whose it is, and its end.
 */
#include "eviction_state.h"

#include <assert.h>
#include <string.h>

const struct ty_hint eviction_no_hint;

/* By which a policy knows it again: its first bytes are as good as a hash. */
static uint64_t id_of(const struct ty_chunk *chunk)
{
	uint64_t id;

	memcpy(&id, chunk->key.bytes, sizeof id);
	return id;
}

static struct ty_use use_of(const struct ty_chunk *chunk, const struct ty_hint *hint)
{
	return (struct ty_use){
		.id = id_of(chunk),
		.now = ty_order_time(ty_now()),
		.owner = hint->owner,
		.band = hint->band,
	};
}

/* ---- whose it is --------------------------------------------------------------------------------- */

static uint8_t domain_of(const struct eviction *e, const struct ty_identity *identity)
{
	for (uint32_t i = 0; identity && i < e->quota_count; i++)
		if (!strcmp(e->quotas[i].tenant, identity->tenant))
			return (uint8_t)(i + 1);
	return 0;
}

struct eviction_owner eviction_owner(struct eviction *e, uint16_t space)
{
	uint8_t *known = &e->domains[space];

	if (!*known) /* strings are compared once for a namespace */
		*known = (uint8_t)(domain_of(e, ty_spaces_identity(&e->service->spaces, space)) + 1);
	return (struct eviction_owner){space, (uint8_t)(*known - 1)};
}

uint64_t eviction_chunk_bytes(const struct eviction *e, const struct ty_chunk *chunk)
{
	uint64_t bytes = 0;

	for (uint32_t part = 0; part < chunk->parts; part++)
		if (chunk->slots[part] != TY_NO_SLOT)
			bytes += ty_slots_class(e->service->slots, chunk->slots[part]);
	return bytes;
}

uint64_t eviction_leases(const struct ty_chunk *chunk)
{
	uint64_t pins = ty_chunk_pins(chunk), ours = atomic_load_explicit(&chunk->ours, memory_order_relaxed);

	return pins > ours ? pins - ours : 0;
}

struct ty_chunk *eviction_chunk_at(const struct eviction *e, uint32_t slot)
{
	struct ty_chunk *chunk = ty_index_find(e->service->index, &ty_slots_record(e->service->slots, slot)->key);

	for (uint32_t part = 0; chunk && part < chunk->parts; part++)
		if (chunk->slots[part] != TY_NO_SLOT)
			return chunk->slots[part] == slot ? chunk : NULL;
	return NULL; /* a piece of a process before this one, whose parts are not all back */
}

void eviction_claim(struct eviction *e, struct ty_chunk *chunk, const struct eviction_owner *owner)
{
	if (chunk->space || !owner->space)
		return;
	eviction_keep_under(e, chunk, owner->space);
	if (chunk->entry.domain != owner->domain) {
		uint64_t bytes = eviction_chunk_bytes(e, chunk);

		ty_order_charge(e->order, chunk->entry.domain, 0, bytes);
		ty_order_charge(e->order, owner->domain, bytes, 0);
		ty_order_set_domain(e->order, &chunk->entry, owner->domain, id_of(chunk));
	}
}

/* ---- what is kept -------------------------------------------------------------------------------- */

/* Whose it is: 0 is the service's own user's. All namespaces of another user have one account, the number of that which was looked up first. */
static uint32_t account_of(struct eviction *e, uint16_t space)
{
	const struct ty_identity *identity = ty_spaces_identity(&e->service->spaces, space), *other;
	size_t length = identity ? ty_space_user(identity->tenant) : 0;
	uint32_t account = space;

	if (!identity) /* the table is full, or was damaged */
		return EVICTION_ACCOUNTS - 1;
	if (e->accounts[space]) /* strings are compared once for a namespace */
		return e->accounts[space] - 1u;
	if (!length)
		account = 0;
	for (uint32_t i = 1; length && i <= TY_MAX_SPACES; i++) {
		other = e->accounts[i] ? ty_spaces_identity(&e->service->spaces, (uint16_t)i) : NULL;
		if (other && !strncmp(other->tenant, identity->tenant, length)) {
			account = e->accounts[i] - 1u;
			break;
		}
	}
	e->accounts[space] = (uint16_t)(account + 1);
	return account;
}

static void count_kept(struct eviction *e, uint16_t space, uint64_t bytes, bool keep)
{
	uint32_t account = account_of(e, space);

	if (account)
		e->kept_of[account] = keep ? e->kept_of[account] + bytes : e->kept_of[account] - bytes;
}

void eviction_keep_under(struct eviction *e, struct ty_chunk *chunk, uint16_t space)
{
	bool kept = chunk->entry.band == TY_BAND_KEPT;
	uint64_t bytes = kept ? eviction_chunk_bytes(e, chunk) : 0;

	if (kept)
		count_kept(e, chunk->space, bytes, false);
	chunk->space = space;
	if (kept)
		count_kept(e, chunk->space, bytes, true);
}

/* An engine says so. One of another user has no more kept than is free of what may be, as with all that is shared (docs/life.md): n of them
 * leave 1/(n + 1), whatever they call their tenants. */
static void keep_as_said(struct eviction *e, struct ty_chunk *chunk)
{
	uint64_t bytes, left = e->kept_max > e->kept_bytes ? e->kept_max - e->kept_bytes : 0;
	uint32_t account;

	if (chunk->entry.band == TY_BAND_KEPT || ty_chunk_state(chunk) != TY_CHUNK_READY)
		return;
	bytes = eviction_chunk_bytes(e, chunk);
	account = account_of(e, chunk->space);
	if ((account && (bytes > left || e->kept_of[account] + bytes > left - bytes)) || !eviction_keep(e, chunk, true))
		eviction_count(&e->service->eviction_stats.not_kept, 1);
}

/* Only what is complete is kept: its bytes do not change any more. */
bool eviction_keep(struct eviction *e, struct ty_chunk *chunk, bool keep)
{
	uint64_t bytes;

	if (keep == (chunk->entry.band == TY_BAND_KEPT))
		return true;
	bytes = eviction_chunk_bytes(e, chunk);
	if (keep && (ty_chunk_state(chunk) != TY_CHUNK_READY || e->kept_bytes + bytes > e->kept_max))
		return false;
	count_kept(e, chunk->space, bytes, keep);
	e->kept_bytes = keep ? e->kept_bytes + bytes : e->kept_bytes - bytes;
	ty_order_keep(e->order, &chunk->entry, id_of(chunk), ty_order_time(ty_now()), keep);
	return true;
}

/* ---- in and out ---------------------------------------------------------------------------------- */

struct ty_chunk *eviction_add_chunk(struct eviction *e, const struct ty_key *key, uint32_t parts,
	const struct eviction_owner *owner)
{
	struct ty_chunk *chunk = ty_index_add(e->service->index, key, parts);

	if (!chunk)
		return NULL;
	ty_order_add(e->order, &chunk->entry, owner->domain);
	eviction_claim(e, chunk, owner);
	return chunk;
}

bool eviction_fits(const struct ty_chunk *chunk, uint32_t parts, uint64_t part_bytes)
{
	return chunk->parts == parts && (!chunk->length || chunk->length == part_bytes);
}

void eviction_set_slot(struct eviction *e, struct ty_chunk *chunk, uint32_t part, uint32_t slot)
{
	uint32_t length = ty_slots_record(e->service->slots, slot)->length;

	assert(chunk->slots[part] == TY_NO_SLOT && (!chunk->length || chunk->length == length));
	chunk->length = length;
	chunk->slots[part] = slot;
	ty_order_charge(e->order, chunk->entry.domain, ty_slots_class(e->service->slots, slot), 0);
}

static void give_slot(struct eviction *e, struct ty_chunk *chunk, uint32_t part)
{
	uint32_t slot = chunk->slots[part];

	ty_order_charge(e->order, chunk->entry.domain, 0, ty_slots_class(e->service->slots, slot));
	ty_slots_give(e->service->slots, slot);
	chunk->slots[part] = TY_NO_SLOT;
}

/* It is DEAD, and has no slots. */
static void remove_chunk(struct eviction *e, struct ty_chunk *chunk, bool evicted)
{
	ty_order_gone(e->order, &chunk->entry, id_of(chunk), evicted);
	ty_index_remove(e->service->index, chunk);
}

void eviction_begin_filling(struct eviction *e, struct ty_chunk *chunk)
{
	if (chunk->filling++ == 0)
		ty_order_take_out(e->order, &chunk->entry);
}

void eviction_end_filling(struct eviction *e, struct ty_chunk *chunk, enum ty_reentry how, const struct ty_hint *hint)
{
	struct ty_use use = use_of(chunk, hint);

	assert(chunk->filling > 0);
	if (--chunk->filling == 0)
		ty_order_put(e->order, &chunk->entry, how, &use);
}

static void commit_part(struct eviction *e, struct ty_chunk *chunk, uint32_t part)
{
	chunk->committed |= UINT64_C(1) << part;
	if (chunk->committed == ty_chunk_all_parts(chunk)) {
		ty_chunk_publish(chunk);
		e->visible++;
		ty_events_add(e->service, &e->events, TYER__V1__EVENT__KIND__STORED, &chunk->key, 0);
	}
}

void eviction_commit_part(struct eviction *e, const struct ty_op *op, const struct ty_op_chunk *c)
{
	uint32_t part = op->layout->part;
	struct ty_chunk *chunk = c->chunk;

	ty_slots_commit(e->service->slots, chunk->slots[part], c->checksum);
	if (c->below)
		atomic_fetch_or_explicit(&chunk->below, c->below, memory_order_relaxed);
	commit_part(e, chunk, part);
	eviction_end_filling(e, chunk, TY_REENTER_YOUNG, &op->hint);
	if (op->hint.keep)
		keep_as_said(e, chunk);
	/* it goes down with its sum, if one is being made */
	if (ty_chunk_state(chunk) == TY_CHUNK_READY && !eviction_sum(e, chunk, true))
		eviction_offer(e, chunk, TY_TIER_WRITE_COMMIT);
}

void eviction_abort_part(struct eviction *e, struct ty_chunk *chunk, uint32_t part)
{
	give_slot(e, chunk, part);
	if (chunk->filling == 1 && !chunk->committed) {
		bool killed = ty_chunk_kill(chunk); /* it was never visible: nobody has it pinned */

		assert(killed);
		(void)killed;
		remove_chunk(e, chunk, false);
	} else {
		eviction_end_filling(e, chunk, TY_REENTER_YOUNG, &eviction_no_hint);
	}
}

bool eviction_return_part(struct eviction *e, uint32_t slot)
{
	const struct ty_slot_record *record = ty_slots_record(e->service->slots, slot);
	uint16_t space = ty_spaces_identity(&e->service->spaces, record->space) ? record->space : 0;
	struct eviction_owner owner = eviction_owner(e, space);
	struct ty_chunk *chunk = ty_index_find(e->service->index, &record->key);

	if (!chunk) {
		chunk = eviction_add_chunk(e, &record->key, record->parts, &owner);
		if (chunk) {
			struct ty_use use = use_of(chunk, &eviction_no_hint);

			ty_order_put(e->order, &chunk->entry, TY_REENTER_OLD, &use);
		}
	}
	if (!chunk || !eviction_fits(chunk, record->parts, record->length) || chunk->slots[record->part] != TY_NO_SLOT) {
		ty_slots_give(e->service->slots, slot);
		return false;
	}
	eviction_set_slot(e, chunk, record->part, slot);
	commit_part(e, chunk, record->part);
	return true;
}

bool eviction_remove(struct eviction *e, struct ty_chunk *chunk)
{
	bool visible = ty_chunk_state(chunk) == TY_CHUNK_READY;

	assert(chunk->filling == 0);
	if (!ty_chunk_kill(chunk))
		return false;
	if (visible)
		ty_events_add(e->service, &e->events, TYER__V1__EVENT__KIND__EVICTED, &chunk->key, 0);
	(void)eviction_keep(e, chunk, false);
	for (uint32_t part = 0; part < chunk->parts; part++)
		if (chunk->slots[part] != TY_NO_SLOT)
			give_slot(e, chunk, part);
	remove_chunk(e, chunk, true);
	e->visible -= visible;
	return true;
}

void eviction_condemn(struct eviction *e, struct ty_chunk *chunk)
{
	static const struct ty_hint done = {.band = TY_BAND_DONE};

	(void)eviction_keep(e, chunk, false);
	ty_chunk_condemn(chunk);
	ty_events_add(e->service, &e->events, TYER__V1__EVENT__KIND__EVICTED, &chunk->key, 0);
	e->visible--;
	chunk->entry.owner = TY_DOOMED;
	eviction_hint(e, chunk, &done);
}

bool eviction_discard(struct eviction *e, struct ty_chunk *chunk)
{
	return ty_chunk_state(chunk) == TY_CHUNK_WRONG && !chunk->filling && eviction_remove(e, chunk);
}

bool eviction_replace(struct eviction *e, struct ty_chunk *chunk)
{
	if (chunk->filling)
		return false;
	if (ty_chunk_state(chunk) == TY_CHUNK_READY)
		eviction_condemn(e, chunk);
	return eviction_remove(e, chunk);
}

bool eviction_evict(struct eviction *e, struct ty_chunk *chunk)
{
	if (ty_chunk_state(chunk) == TY_CHUNK_READY && eviction_offer(e, chunk, TY_TIER_WRITE_EVICT))
		return false;
	if (!eviction_remove(e, chunk))
		return false;
	eviction_count(&e->service->eviction_stats.evictions, 1);
	return true;
}

/* ---- what is said of it -------------------------------------------------------------------------- */

void eviction_used(struct eviction *e, struct ty_chunk *chunk, const struct ty_hint *hint)
{
	struct ty_use use = use_of(chunk, hint);

	ty_order_used(e->order, &chunk->entry, &use);
	if (hint->keep)
		keep_as_said(e, chunk);
}

void eviction_hint(struct eviction *e, struct ty_chunk *chunk, const struct ty_hint *hint)
{
	struct ty_use use = use_of(chunk, hint);

	ty_order_hint(e->order, &chunk->entry, &use);
	if (hint->keep)
		keep_as_said(e, chunk);
}
