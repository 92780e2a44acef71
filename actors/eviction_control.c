/* SPDX-License-Identifier: Apache-2.0
 *
 * What the administration asks for. A request becomes a job, which goes through the chunks that were named, or through the whole
 * slot table, a slice a message, so that stores pass between; LIST, DELETE and CLEAR then through the tiers (eviction_below.c). It
 * is answered once, by its deadline; a job that waits for tiers ends when they have answered.
 *
 *   ARENA --> AGAIN --> BELOW --> OVER     each phase but for OVER may be left out
 */
#include "eviction_control.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "events.h"
#include "prefetch.h"
#include "tier.h"

#define SLICE 4096           /* slots looked at in one message */
#define EVENTS_MAX 16384     /* keys of one reply */
#define REST_NS 2000000      /* 2 ms: how often a job that rests looks again */
#define AGAIN_NS 2000000000  /* so long it comes back to what the service itself has pinned; at most half of what it has left */

/* Over: whoever waited has its answer, and nothing of it is out. */
static void end(struct eviction_job *job)
{
	assert(!job->x && !job->ios && !job->fetch && !job->going);
	if (job->armed)
		ty_timer_cancel(&job->late);
	if (job->resting)
		ty_timer_cancel(&job->again);
	*job->link = job->next;
	if (job->next)
		job->next->link = job->link;
	eviction_below_close(job);
	eviction_select_close(&job->select);
	if (job->list)
		protobuf_c_message_free_unpacked((ProtobufCMessage *)job->list, NULL);
	free(job->again_keys);
	free(job->keys);
	free(job->tiers);
	free(job);
}

/* ---- what is done with a chunk -------------------------------------------------------------------------- */

static bool list_chunk(struct eviction_job *job, const struct ty_chunk *chunk)
{
	struct eviction *e = job->e;
	Tyer__V1__ChunkInfo *info = eviction_job_list(job, &chunk->key, ty_spaces_identity(&e->service->spaces, chunk->space));
	unsigned band = chunk->entry.band;

	if (!info)
		return false;
	info->bytes = eviction_chunk_bytes(e, chunk);
	info->parts = chunk->parts;
	info->missing = chunk->parts - (uint32_t)__builtin_popcountll(chunk->committed);
	info->leases = eviction_leases(chunk);
	info->pinned = band == TY_BAND_KEPT;
	info->done = band == TY_BAND_DONE;
	if (band >= TY_BAND_RAISED && band < TY_BAND_KEPT)
		info->priority = band - TY_BAND_RAISED + 1;
	info->idle_s = (ty_order_time(ty_now()) - chunk->entry.used) / (uint32_t)(1000000000 / TY_ORDER_UNIT_NS);
	info->tiers = atomic_load_explicit(&chunk->below, memory_order_relaxed) & 0xff;
	return true;
}

bool eviction_job_remember(struct eviction_job *job, const struct ty_key *key)
{
	if (!job->again_keys)
		job->again_keys = malloc(EVICTION_AGAIN_MAX * sizeof *job->again_keys);
	if (!job->again_keys || job->again_count == EVICTION_AGAIN_MAX)
		return false;
	job->again_keys[job->again_count++] = *key;
	return true;
}

static void take_away(struct eviction_job *job, struct ty_chunk *chunk)
{
	static const struct ty_hint done = {.band = TY_BAND_DONE};
	uint64_t bytes = eviction_chunk_bytes(job->e, chunk);

	(void)eviction_keep(job->e, chunk, false);
	if (!chunk->filling && eviction_remove(job->e, chunk)) {
		job->chunks++;
		job->bytes += bytes;
		return;
	}
	if (job->phase == EVICTION_ARENA && !chunk->filling && !eviction_leases(chunk) && eviction_job_remember(job, &chunk->key))
		return;
	chunk->entry.owner = TY_DOOMED;
	eviction_hint(job->e, chunk, &done);
	eviction_stay(chunk);
	job->in_use++;
}

static void act(struct eviction_job *job, struct ty_chunk *chunk)
{
	struct eviction *e = job->e;
	bool kept = chunk->entry.band == TY_BAND_KEPT, did;
	uint64_t bytes = eviction_chunk_bytes(e, chunk);

	switch (job->verb) {
	case TYER__V1__REQUEST__VERB_PIN:
		did = !kept && eviction_keep(e, chunk, true);
		job->refused += !kept && !did;
		break;
	case TYER__V1__REQUEST__VERB_UNPIN:
		did = kept && eviction_keep(e, chunk, false);
		break;
	case TYER__V1__REQUEST__VERB_MOVE:
		did = ty_chunk_state(chunk) == TY_CHUNK_READY && eviction_send_down(e, chunk, job->tier);
		job->refused += !did;
		break;
	case TYER__V1__REQUEST__VERB_LIST:
		did = list_chunk(job, chunk);
		break;
	case TYER__V1__REQUEST__VERB_EVENTS:
		did = ty_chunk_state(chunk) == TY_CHUNK_READY;
		if (did) {
			memcpy(job->keys + job->chunks * TY_KEY_BYTES, chunk->key.bytes, TY_KEY_BYTES);
			job->tiers[job->chunks] = (uint8_t)atomic_load_explicit(&chunk->below, memory_order_relaxed);
		}
		break;
	case TYER__V1__REQUEST__VERB_DELETE:
	case TYER__V1__REQUEST__VERB_CLEAR:
		take_away(job, chunk);
		return;
	default:
		return;
	}
	job->chunks += did;
	job->bytes += did ? bytes : 0;
}

/* ---- the way through ---------------------------------------------------------------------------------------- */

bool eviction_job_deletes(const struct eviction_job *job)
{
	return job->verb == TYER__V1__REQUEST__VERB_DELETE || job->verb == TYER__V1__REQUEST__VERB_CLEAR;
}

bool eviction_job_is_full(const struct eviction_job *job)
{
	return job->max && job->chunks >= job->max;
}

/* Is it of this request? */
static bool reaches(const struct eviction_job *job, Tyer__V1__Place other)
{
	return job->select.select->place != other;
}

static bool goes_below(const struct eviction_job *job)
{
	return job->e->service->tier_count && reaches(job, TYER__V1__PLACE__ARENA) &&
	       (eviction_job_deletes(job) || job->verb == TYER__V1__REQUEST__VERB_LIST);
}

/* The chunks that were named. */
static bool walk_keys(struct eviction_job *job)
{
	for (; job->at < job->select.key_count && !eviction_job_is_full(job); job->at++) {
		struct ty_chunk *chunk = ty_index_find(job->e->service->index, &job->select.keys[job->at]);

		if (chunk && eviction_selects(job->e, &job->select, chunk))
			act(job, chunk);
	}
	return job->at == job->select.key_count;
}

/* A slice of the slot table. True: that was the last one. */
static bool walk_slots(struct eviction_job *job)
{
	bool tells = eviction_job_deletes(job) && goes_below(job);
	uint32_t budget = SLICE;

	while (budget && !eviction_job_is_full(job)) {
		uint32_t at, slot = ty_slots_next(job->e->service->slots, job->at, &budget, &at);
		struct ty_chunk *chunk;

		if (slot == TY_NO_SLOT) {
			job->at = at;
			return at == TY_NO_SLOT;
		}
		chunk = eviction_chunk_at(job->e, slot);
		if (chunk && !eviction_selects(job->e, &job->select, chunk))
			chunk = NULL;
		/* also where the tier is looked through later: this holds where it cannot be, or no time is left for it */
		if (chunk && tells && !eviction_below_delete(job, &chunk->key))
			return false;
		job->at = at;
		if (chunk)
			act(job, chunk);
	}
	return false;
}

/* Those that the service had pinned. True: none is left. */
static bool walk_again(struct eviction_job *job)
{
	int64_t now = ty_now();

	if (!job->again_until) {
		int64_t left = job->x->deadline == TY_NEVER ? TY_NEVER : (job->x->deadline - now) / 2;

		job->again_until = now + (left < AGAIN_NS ? left : AGAIN_NS);
	}
	for (uint32_t i = 0; i < job->again_count;) {
		const struct ty_key *key = &job->again_keys[i];
		struct ty_chunk *chunk = ty_index_find(job->e->service->index, key);

		if (chunk && !chunk->filling && ty_chunk_pins(chunk) && !eviction_leases(chunk) && now < job->again_until) {
			i++;
			continue;
		}
		/* once more: it may have come down meanwhile */
		if (!job->select.keys && goes_below(job) && !eviction_below_delete(job, key))
			return false;
		if (chunk)
			take_away(job, chunk);
		job->again_keys[i] = job->again_keys[--job->again_count];
	}
	if (job->again_count)
		eviction_job_rest(job);
	return !job->again_count;
}

/* The arena has been gone through. A LIST that has something has had its page: whoever asks for more may wait for tiers. */
static void leave_arena(struct eviction_job *job)
{
	job->at = 0;
	job->phase = goes_below(job) ? EVICTION_BELOW : EVICTION_OVER;
	job->whole = job->verb == TYER__V1__REQUEST__VERB_LIST && job->chunks;
}

static void walk(struct eviction_job *job)
{
	switch (job->phase) {
	case EVICTION_ARENA:
		if (!(job->select.keys ? walk_keys(job) : walk_slots(job)))
			break;
		if (job->again_count)
			job->phase = EVICTION_AGAIN;
		else
			leave_arena(job);
		break;
	case EVICTION_AGAIN:
		if (walk_again(job))
			leave_arena(job);
		break;
	case EVICTION_BELOW:
		eviction_below_walk(job);
		break;
	case EVICTION_OVER:
		break;
	}
}

static bool is_done(const struct eviction_job *job)
{
	return job->phase == EVICTION_OVER || eviction_job_is_full(job) || job->whole;
}

void eviction_job_rest(struct eviction_job *job)
{
	job->resting = true;
	ty_timer_start(&job->again, TY_EVICTION_CONTROL_AGAIN, ty_now() + REST_NS);
}

/* One slice; then it is answered, goes on, or waits for a tier or for its timer. */
void eviction_job_step(struct eviction_job *job)
{
	if (job->going)
		return; /* its own message comes */
	if (job->resting)
		ty_timer_cancel(&job->again);
	job->resting = false;
	if (job->x && !is_done(job))
		walk(job);
	if (job->ios || job->fetch)
		return; /* when one comes home it goes on */
	if (job->x && is_done(job))
		eviction_job_answer(job);
	if (!job->x) {
		end(job);
		return;
	}
	if (job->resting)
		return;
	job->going = true;
	enum ty_code sent = ty_send(ty_self(), &job->go, TY_EVICTION_CONTROL_GO);
	assert(sent == TY_OK); /* this actor runs */
	(void)sent;
}

void eviction_control_go(struct eviction *e, struct ty_msg *msg)
{
	struct eviction_job *job = ty_container_of(msg, struct eviction_job, go);

	(void)e;
	job->going = false;
	eviction_job_step(job);
}

void eviction_control_again(struct ty_msg *msg)
{
	struct eviction_job *job = ty_container_of(ty_container_of(msg, struct ty_timer, msg), struct eviction_job, again);

	job->resting = false;
	eviction_job_step(job);
}

/* What is out comes home later. A LIST that has come some way says how far. */
void eviction_control_late(struct eviction *e, struct ty_msg *msg)
{
	struct eviction_job *job = ty_container_of(ty_container_of(msg, struct ty_timer, msg), struct eviction_job, late);

	(void)e;
	job->armed = false;
	if (!job->x)
		return;
	/* a batch of keys that is half answered is no way: it would be begun again, and end so again */
	if (job->verb == TYER__V1__REQUEST__VERB_LIST && (job->moved || (job->phase == EVICTION_ARENA && job->chunks))) {
		eviction_job_answer(job);
		return;
	}
	ty_exchange_refuse(job->x, TY_TIMEOUT, "the deadline passed; what was done so far stays done: %llu chunks, %llu in the tiers, "
		"%llu in use, %llu refused, %llu failed", (unsigned long long)job->chunks, (unsigned long long)job->below,
		(unsigned long long)job->in_use, (unsigned long long)job->refused, (unsigned long long)job->failed);
	job->x = NULL;
	if (job->fetch) /* release: pairs with prefetch's acquire */
		atomic_store_explicit(&job->fetch->cancelled, true, memory_order_release);
}

/* ---- the request -------------------------------------------------------------------------------------------------- */

static const Tyer__V1__Select *select_of(const Tyer__V1__Request *q)
{
	switch (q->verb_case) {
	case TYER__V1__REQUEST__VERB_WARM:
		return q->warm->select;
	case TYER__V1__REQUEST__VERB_PIN:
		return q->pin->select;
	case TYER__V1__REQUEST__VERB_UNPIN:
		return q->unpin->select;
	case TYER__V1__REQUEST__VERB_DELETE:
		return q->delete_->select;
	case TYER__V1__REQUEST__VERB_CLEAR:
		return q->clear->select;
	case TYER__V1__REQUEST__VERB_LIST:
		return q->list->select;
	case TYER__V1__REQUEST__VERB_MOVE:
		return q->move->select;
	default:
		return NULL;
	}
}

static enum ty_code check_page(uint64_t cursor, uint32_t max, uint32_t limit, struct eviction_job *job, struct ty_error *err)
{
	if (max > limit)
		return ty_fail(err, TY_INVALID, "max: %u; expected 1..%u, or 0", max, limit);
	if (cursor > UINT32_MAX)
		return ty_fail(err, TY_INVALID, "cursor: %llu; expected 0, or what a reply said", (unsigned long long)cursor);
	job->at = (uint32_t)cursor;
	job->max = max ? max : limit;
	return TY_OK;
}

static enum ty_code prepare(struct eviction_job *job, const Tyer__V1__Request *q, struct ty_error *err)
{
	struct ty_service *service = job->e->service;
	Tyer__V1__Place place = job->select.select->place;
	enum ty_code code = TY_OK;

	if ((unsigned)place > TYER__V1__PLACE__TIERS)
		return ty_fail(err, TY_INVALID, "select.place: %d; expected 0 to %d", (int)place, TYER__V1__PLACE__TIERS);
	if (place == TYER__V1__PLACE__TIERS && (q->verb_case == TYER__V1__REQUEST__VERB_PIN ||
		q->verb_case == TYER__V1__REQUEST__VERB_UNPIN || q->verb_case == TYER__V1__REQUEST__VERB_MOVE))
		return ty_fail(err, TY_INVALID, "select.place: this is of chunks in the arena");
	switch (q->verb_case) {
	case TYER__V1__REQUEST__VERB_DELETE:
		if (eviction_select_is_empty(q->delete_->select))
			return ty_fail(err, TY_INVALID, "select: is empty; CLEAR takes everything away");
		break;
	case TYER__V1__REQUEST__VERB_MOVE:
		if (q->move->tier >= service->tier_count)
			return ty_fail(err, TY_INVALID, "tier: %u; this service has %u", q->move->tier, service->tier_count);
		job->tier = q->move->tier;
		break;
	case TYER__V1__REQUEST__VERB_LIST:
		code = check_page(q->list->cursor, q->list->max, EVICTION_LIST_MAX, job, err);
		if (code == TY_OK && job->select.keys && job->at > job->select.key_count)
			code = ty_fail(err, TY_INVALID, "cursor: %u; there are %u keys", job->at, job->select.key_count);
		job->list = (Tyer__V1__ListReply *)eviction_new_message(&tyer__v1__list_reply__descriptor);
		if (code == TY_OK && !job->list)
			code = ty_fail(err, TY_NO_MEMORY, "no memory for a list");
		if (code == TY_OK)
			code = eviction_below_open(job, &q->list->below, err);
		break;
	case TYER__V1__REQUEST__VERB_EVENTS:
		if (!service->events)
			return ty_fail(err, TY_UNSUPPORTED, "this service tells no events (--events)");
		code = check_page(q->events->cursor, q->events->max, EVENTS_MAX, job, err);
		/* acquire: pairs with the events actor's release. Whoever said one of these had changed what a page shows before. */
		job->sequence = atomic_load_explicit(&service->events_stats.events, memory_order_acquire);
		job->keys = malloc(EVENTS_MAX * TY_KEY_BYTES);
		job->tiers = malloc(EVENTS_MAX);
		if (code == TY_OK && (!job->keys || !job->tiers))
			code = ty_fail(err, TY_NO_MEMORY, "no memory for a snapshot");
		break;
	default:
		break;
	}
	return code;
}

void eviction_control(struct eviction *e, struct ty_exchange *x)
{
	struct ty_error err;
	struct eviction_job *job;
	enum ty_code code;

	if (x->request->verb_case == TYER__V1__REQUEST__VERB_CONFIGURE) {
		eviction_configure(e, x);
		return;
	}
	job = calloc(1, sizeof *job);
	if (!job) {
		ty_exchange_refuse(x, TY_NO_MEMORY, "no memory for it");
		return;
	}
	job->go = (struct ty_msg)TY_MSG_INIT;
	job->e = e;
	job->x = x;
	job->verb = x->request->verb_case;
	job->next = e->jobs;
	job->link = &e->jobs;
	if (job->next)
		job->next->link = &job->next;
	e->jobs = job;
	if (x->deadline != TY_NEVER) {
		ty_timer_start(&job->late, TY_EVICTION_CONTROL_LATE, x->deadline);
		job->armed = true;
	}
	code = eviction_select_open(e, select_of(x->request), &job->select, &err);
	if (code == TY_OK)
		code = prepare(job, x->request, &err);
	if (code != TY_OK) {
		eviction_job_refuse(job, code, err.text);
		end(job);
	} else if (job->verb == TYER__V1__REQUEST__VERB_WARM) {
		eviction_warm_begin(job);
	} else {
		if (job->phase == EVICTION_ARENA && !reaches(job, TYER__V1__PLACE__TIERS))
			leave_arena(job);
		eviction_job_step(job);
	}
}

/* The actor has stopped: nobody hears the answer. */
static void abandon(struct eviction_job *job)
{
	if (job->x)
		eviction_job_refuse(job, TY_STOPPING, "the service stops");
	end(job);
}

void eviction_control_drop(struct ty_msg *msg)
{
	struct eviction_job *job = ty_container_of(msg, struct eviction_job, go);

	job->going = false;
	abandon(job);
}

/* Those whose message is on its way end with it; those that have something out end nowhere, and the stop saw to it that there are
 * none. */
void eviction_control_close(struct eviction *e)
{
	for (struct eviction_job *job = e->jobs, *next; job; job = next) {
		next = job->next;
		if (!job->going && !job->ios && !job->fetch)
			abandon(job);
	}
}
