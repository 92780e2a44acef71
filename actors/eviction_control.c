/* SPDX-License-Identifier: Apache-2.0
 *
 * What the administration asks for. A request becomes a job, which goes through the chunks that were named, or through the whole
 * slot table, a slice a message, so that stores pass between. It is answered once, by its deadline; a job that waits
 * for tiers ends when they have answered.
 */
#include "eviction_control.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "events.h"
#include "prefetch.h"
#include "tier.h"

#define SLICE 4096           /* slots looked at in one message */
#define LIST_MAX 1000        /* chunks of one reply */
#define EVENTS_MAX 16384     /* keys of one reply */

struct job {
	struct ty_msg go;
	struct ty_timer late;  /* its deadline, while it is answered by nobody */
	bool armed;
	struct eviction *e;
	struct ty_exchange *x; /* null: answered */
	Tyer__V1__Request__VerbCase verb;
	struct eviction_select select;
	uint32_t at;           /* the next key, or slot to look from */
	uint32_t tier;         /* MOVE's; DELETE: the next one to tell of the key at hand */
	uint32_t ios;          /* DELETEs that are out */
	bool walked;           /* nothing is left to look at */
	struct ty_fetch *fetch; /* WARM's, while it is out */
	uint64_t max;
	uint64_t chunks, bytes, in_use, refused, failed;
	Tyer__V1__ListReply *list;
	uint8_t *keys, *tiers; /* EVENTS: EVENTS_MAX of them ... */
	uint64_t sequence;     /* ... looked at after this event was told */
};

/* A DELETE on its way through a tier. */
struct deletion {
	struct ty_key key;
	struct job *job;
	struct ty_tier_io io; /* last: its parts would follow */
};

/* ---- replies ------------------------------------------------------------------------------------------- */

ProtobufCMessage *eviction_new_message(const ProtobufCMessageDescriptor *type)
{
	ProtobufCMessage *message = malloc(type->sizeof_message);

	if (message)
		protobuf_c_message_init(type, message);
	return message;
}

bool eviction_set_bytes(ProtobufCBinaryData *out, const void *bytes, size_t length)
{
	out->data = malloc(length ? length : 1);
	if (!out->data)
		return false;
	if (length)
		memcpy(out->data, bytes, length);
	out->len = length;
	return true;
}

static void refuse(struct job *job, enum ty_code code, const char *text)
{
	ty_exchange_refuse(job->x, code, "%s", text);
	job->x = NULL;
}

static void answer(struct job *job, ProtobufCMessage *message)
{
	if (!message) {
		refuse(job, TY_NO_MEMORY, "no memory for the reply");
		return;
	}
	job->x->reply.message = message;
	ty_exchange_answer(job->x);
	job->x = NULL;
}

static void answer_counts(struct job *job)
{
	Tyer__V1__ControlReply *reply = (Tyer__V1__ControlReply *)eviction_new_message(&tyer__v1__control_reply__descriptor);

	if (reply) {
		reply->chunks = job->chunks;
		reply->bytes = job->bytes;
		reply->in_use = job->in_use;
		reply->refused = job->refused;
		reply->failed = job->failed;
	}
	answer(job, (ProtobufCMessage *)reply);
}

static void answer_events(struct job *job)
{
	Tyer__V1__EventsReply *reply = (Tyer__V1__EventsReply *)eviction_new_message(&tyer__v1__events_reply__descriptor);

	if (!reply) {
		refuse(job, TY_NO_MEMORY, "no memory for the reply");
		return;
	}
	reply->url = strdup(job->e->service->config->events);
	reply->sequence = job->sequence;
	reply->keys = (ProtobufCBinaryData){.len = job->chunks * TY_KEY_BYTES, .data = job->keys};
	reply->tiers = (ProtobufCBinaryData){.len = job->chunks, .data = job->tiers};
	job->keys = job->tiers = NULL;
	reply->next = job->walked ? 0 : job->at;
	answer(job, (ProtobufCMessage *)reply);
}

static void answer_job(struct job *job)
{
	if (job->verb == TYER__V1__REQUEST__VERB_LIST) {
		job->list->next = job->walked ? 0 : job->at;
		answer(job, (ProtobufCMessage *)job->list);
		job->list = NULL;
	} else if (job->verb == TYER__V1__REQUEST__VERB_EVENTS) {
		answer_events(job);
	} else {
		answer_counts(job);
	}
}

/* Over: whoever waited has its answer, and nothing of it is out. */
static void end(struct job *job)
{
	assert(!job->x && !job->ios && !job->fetch);
	if (job->armed)
		ty_timer_cancel(&job->late);
	eviction_select_close(&job->select);
	if (job->list)
		protobuf_c_message_free_unpacked((ProtobufCMessage *)job->list, NULL);
	free(job->keys);
	free(job->tiers);
	free(job);
}

/* ---- what is done with a chunk -------------------------------------------------------------------------- */

static Tyer__V1__Namespace *new_namespace(const struct ty_identity *identity)
{
	Tyer__V1__Namespace *n = (Tyer__V1__Namespace *)eviction_new_message(&tyer__v1__namespace__descriptor);

	if (!n)
		return NULL;
	n->tenant = strdup(identity->tenant);
	n->model = strdup(identity->model);
	n->revision = strdup(identity->revision);
	n->dtype = strdup(identity->dtype);
	n->quantization = strdup(identity->quantization);
	return n;
}

static bool list_chunk(struct job *job, const struct ty_chunk *chunk)
{
	struct eviction *e = job->e;
	const struct ty_identity *identity = ty_spaces_identity(&e->service->spaces, chunk->space);
	Tyer__V1__ChunkInfo *info = (Tyer__V1__ChunkInfo *)eviction_new_message(&tyer__v1__chunk_info__descriptor);
	unsigned band = chunk->entry.band;

	if (!info || !eviction_set_bytes(&info->key, chunk->key.bytes, TY_KEY_BYTES)) {
		free(info);
		return false;
	}
	job->list->chunks[job->list->n_chunks++] = info;
	info->namespace_ = identity ? new_namespace(identity) : NULL;
	info->bytes = eviction_chunk_bytes(e, chunk);
	info->parts = chunk->parts;
	info->missing = chunk->parts - (uint32_t)__builtin_popcountll(chunk->committed);
	info->leases = ty_chunk_pins(chunk);
	info->pinned = band == TY_BAND_KEPT;
	info->done = band == TY_BAND_DONE;
	if (band >= TY_BAND_RAISED && band < TY_BAND_KEPT)
		info->priority = band - TY_BAND_RAISED + 1;
	info->idle_s = (ty_order_time(ty_now()) - chunk->entry.used) / (uint32_t)(1000000000 / TY_ORDER_UNIT_NS);
	info->tiers = atomic_load_explicit(&chunk->below, memory_order_relaxed) & 0xff;
	return true;
}

static void take_away(struct job *job, struct ty_chunk *chunk)
{
	static const struct ty_hint done = {.band = TY_BAND_DONE};
	uint64_t bytes = eviction_chunk_bytes(job->e, chunk);

	(void)eviction_keep(job->e, chunk, false);
	if (!chunk->filling && eviction_remove(job->e, chunk)) {
		job->chunks++;
		job->bytes += bytes;
		return;
	}
	chunk->entry.owner = TY_DOOMED;
	eviction_hint(job->e, chunk, &done);
	job->in_use++;
}

/* False: not now, this chunk again. */
static bool act(struct job *job, struct ty_chunk *chunk)
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
	default: /* DELETE, CLEAR */
		take_away(job, chunk);
		return true;
	}
	job->chunks += did;
	job->bytes += did ? bytes : 0;
	return true;
}

/* ---- DELETE in the tiers ---------------------------------------------------------------------------------- */

static bool deletes(const struct job *job)
{
	return job->verb == TYER__V1__REQUEST__VERB_DELETE || job->verb == TYER__V1__REQUEST__VERB_CLEAR;
}

/* Tell every tier. False: one has no room for more, and something of this job is out that will make some. */
static bool delete_below(struct job *job, const struct ty_key *key)
{
	struct ty_service *service = job->e->service;

	for (; job->tier < service->tier_count; job->tier++) {
		struct deletion *d = calloc(1, sizeof *d);

		if (d) {
			d->key = *key;
			d->job = job;
			d->io.home = ty_self();
			d->io.home_type = TY_EVICTION_TIER_IO;
			d->io.verb = TY_TIER_DELETE;
			d->io.deadline = ty_now() + service->tiers[job->tier]->config.timeout;
			d->io.keys = &d->key;
			d->io.key_count = 1;
		}
		if (d && ty_tier_submit(service->tiers[job->tier], &d->io)) {
			job->ios++;
			continue;
		}
		free(d);
		if (job->ios)
			return false;
		job->failed++;
	}
	job->tier = 0;
	return true;
}

/* ---- the way through ---------------------------------------------------------------------------------------- */

static bool is_full(const struct job *job)
{
	return job->max && job->chunks >= job->max;
}

/* The chunks that were named. */
static void walk_keys(struct job *job)
{
	while (job->at < job->select.key_count && !is_full(job)) {
		const struct ty_key *key = &job->select.keys[job->at];
		struct ty_chunk *chunk;

		if (deletes(job) && !delete_below(job, key))
			return;
		chunk = ty_index_find(job->e->service->index, key);
		job->at++;
		if (chunk && eviction_selects(job->e, &job->select, chunk) && !act(job, chunk))
			return;
	}
	job->walked = job->at == job->select.key_count;
}

/* A slice of the slot table. */
static void walk_slots(struct job *job)
{
	uint32_t budget = SLICE;

	while (budget && !is_full(job)) {
		uint32_t at, slot = ty_slots_next(job->e->service->slots, job->at, &budget, &at);
		struct ty_chunk *chunk;

		if (slot == TY_NO_SLOT) {
			job->walked = at == TY_NO_SLOT;
			job->at = at;
			return;
		}
		chunk = eviction_chunk_at(job->e, slot);
		if (chunk && !eviction_selects(job->e, &job->select, chunk))
			chunk = NULL;
		if (chunk && deletes(job) && !delete_below(job, &chunk->key))
			return;
		job->at = at;
		if (chunk)
			(void)act(job, chunk);
	}
}

/* One slice; then it is answered, goes on, or waits for a tier. */
static void step(struct job *job)
{
	if (job->x && !job->walked && !is_full(job)) {
		if (job->select.keys)
			walk_keys(job);
		else
			walk_slots(job);
	}
	if (job->ios)
		return; /* when one comes home it goes on */
	if (job->x && (job->walked || is_full(job)))
		answer_job(job);
	if (!job->x) {
		end(job);
		return;
	}
	enum ty_code sent = ty_send(ty_self(), &job->go, TY_EVICTION_CONTROL_GO);
	assert(sent == TY_OK); /* this actor runs */
	(void)sent;
}

void eviction_control_go(struct eviction *e, struct ty_msg *msg)
{
	(void)e;
	step(ty_container_of(msg, struct job, go));
}

/* What is out comes home later. */
void eviction_control_late(struct eviction *e, struct ty_msg *msg)
{
	struct job *job = ty_container_of(ty_container_of(msg, struct ty_timer, msg), struct job, late);

	(void)e;
	job->armed = false;
	if (job->x)
		refuse(job, TY_TIMEOUT, "the deadline passed; what was done so far stays done");
}

void eviction_deleted(struct ty_msg *msg)
{
	struct deletion *d = ty_container_of(ty_container_of(msg, struct ty_tier_io, msg), struct deletion, io);
	struct job *job = d->job;

	job->failed += d->io.outcome != TY_TIER_DONE && d->io.outcome != TY_TIER_MISSING;
	free(d);
	job->ios--;
	step(job);
}

/* ---- WARM ----------------------------------------------------------------------------------------------------- */

static void begin_warm(struct job *job)
{
	struct eviction *e = job->e;
	struct ty_fetch *fetch;

	if (!job->select.key_count) {
		refuse(job, TY_INVALID, "select: expected keys or a prompt; what lies below is not listed");
	} else if (!e->service->tier_count) {
		refuse(job, TY_UNSUPPORTED, "this service has no tiers (--tier)");
	} else if (!(fetch = ty_fetch_create(job->select.keys, job->select.key_count))) {
		refuse(job, TY_NO_MEMORY, "no memory for a fetch");
	} else {
		fetch->home = ty_self();
		fetch->home_type = TY_EVICTION_FETCHED;
		fetch->priority = TY_FETCH_WARM;
		fetch->user = job;
		job->fetch = fetch;
		if (ty_send(e->service->prefetch, &fetch->msg, TY_PREFETCH_FETCH) == TY_OK)
			return;
		job->fetch = NULL;
		ty_fetch_free(fetch);
		refuse(job, TY_STOPPING, "the service stops");
	}
	end(job);
}

/* What came up is touched as any request's would be, and let go. */
void eviction_fetched(struct eviction *e, struct ty_msg *msg)
{
	struct ty_fetch *fetch = ty_container_of(msg, struct ty_fetch, msg);
	struct job *job = fetch->user;
	struct ty_lease *lease = fetch->lease;

	for (uint32_t i = lease ? lease->count : 0; i-- > 0;) {
		struct ty_chunk *chunk = lease->chunks[i];

		job->chunks++;
		job->bytes += eviction_chunk_bytes(e, chunk);
		eviction_used(e, chunk, &eviction_no_hint);
		ty_chunk_unpin(chunk);
	}
	job->fetch = NULL;
	ty_fetch_free(fetch); /* with its lease */
	if (job->x)
		answer_counts(job);
	end(job);
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

static enum ty_code check_page(uint64_t cursor, uint32_t max, uint32_t limit, struct job *job, struct ty_error *err)
{
	if (max > limit)
		return ty_fail(err, TY_INVALID, "max: %u; expected 1..%u, or 0", max, limit);
	if (cursor > UINT32_MAX)
		return ty_fail(err, TY_INVALID, "cursor: %llu; expected 0, or what a reply said", (unsigned long long)cursor);
	job->at = (uint32_t)cursor;
	job->max = max ? max : limit;
	return TY_OK;
}

static enum ty_code prepare(struct job *job, const Tyer__V1__Request *q, struct ty_error *err)
{
	struct ty_service *service = job->e->service;
	enum ty_code code = TY_OK;

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
		code = check_page(q->list->cursor, q->list->max, LIST_MAX, job, err);
		job->list = (Tyer__V1__ListReply *)eviction_new_message(&tyer__v1__list_reply__descriptor);
		if (job->list)
			job->list->chunks = malloc(LIST_MAX * sizeof *job->list->chunks);
		if (code == TY_OK && (!job->list || !job->list->chunks))
			code = ty_fail(err, TY_NO_MEMORY, "no memory for a list");
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
	struct job *job;
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
	if (x->deadline != TY_NEVER) {
		ty_timer_start(&job->late, TY_EVICTION_CONTROL_LATE, x->deadline);
		job->armed = true;
	}
	code = eviction_select_open(e, select_of(x->request), &job->select, &err);
	if (code == TY_OK)
		code = prepare(job, x->request, &err);
	if (code != TY_OK) {
		refuse(job, code, err.text);
		end(job);
	} else if (job->verb == TYER__V1__REQUEST__VERB_WARM) {
		begin_warm(job);
	} else {
		step(job);
	}
}

/* The actor has stopped: nobody hears the answer. */
void eviction_control_drop(struct ty_msg *msg)
{
	struct job *job = ty_container_of(msg, struct job, go);

	if (job->x)
		refuse(job, TY_STOPPING, "the service stops");
	end(job);
}
