/* SPDX-License-Identifier: Apache-2.0 */
#include "eviction_state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define TICK_NS INT64_C(20000000) /* how often ops that wait are looked at: 20 ms */

static void publish_limits(const struct eviction *e)
{
	struct ty_eviction_stats *stats = &e->service->eviction_stats;

	atomic_store_explicit(&stats->quotas, e->quota_count, memory_order_relaxed);
	atomic_store_explicit(&stats->limit_bytes, e->limit, memory_order_relaxed);
	atomic_store_explicit(&stats->ahead_bytes, e->ahead, memory_order_relaxed);
	atomic_store_explicit(&stats->kept_limit_bytes, e->kept_max, memory_order_relaxed);
}

static void publish(struct eviction *e)
{
	struct ty_eviction_stats *stats = &e->service->eviction_stats;

	eviction_clean_ahead(e);
	eviction_flush_down(e);
	ty_events_flush(e->service, &e->events);
	atomic_store_explicit(&stats->used_bytes, ty_slots_used_bytes(e->service->slots), memory_order_relaxed);
	atomic_store_explicit(&stats->chunks, e->visible, memory_order_relaxed);
	atomic_store_explicit(&stats->kept_bytes, e->kept_bytes, memory_order_relaxed);
	atomic_store_explicit(&stats->order_bytes, ty_order_bytes(e->order), memory_order_relaxed);
	atomic_store_explicit(&stats->waiting, e->waiting_count, memory_order_relaxed);
	publish_limits(e);
	/* release: pairs with the acquire of whoever waits until all is back, and then asks how much that is */
	atomic_store_explicit(&stats->returning, e->returning, memory_order_release);
	if (e->stop && e->sums_due == 0) { /* and writeback has it all */
		struct ty_stop *stop = e->stop;

		e->stop = NULL;
		stop->stopped(stop);
	}
}

static void op_home(struct ty_op *op)
{
	enum ty_code sent = ty_send(op->home, &op->msg, op->home_type);

	assert(sent == TY_OK); /* whoever sent it out outlives it */
	(void)sent;
}

/* Nothing of it is to be copied, or ever will be. */
static void end_op(struct ty_op *op)
{
	ty_op_raise_done(op);
	op_home(op);
}

static void give_back(struct eviction *e, struct ty_op *op)
{
	for (uint32_t i = 0; i < op->count; i++) {
		if (op->chunks[i].fate != TY_FATE_MOVE)
			continue;
		eviction_abort_part(e, op->chunks[i].chunk, op->layout->part);
		op->chunks[i].fate = TY_FATE_DROPPED;
		op->chunks[i].chunk = NULL;
		eviction_count(&e->service->eviction_stats.aborts, 1);
	}
	op->copy_count = 0;
}

/* How many of its chunks have been decided on, from the head. */
static uint32_t decided(const struct ty_op *op)
{
	return op->copy_count + op->present + op->dropped;
}

/* While an op is looked at, nothing of its prompt is evicted for the rest of it: the chunks that are here are held, and let
 * go tail first. op->chunks[i].chunk says what is held. */
static void hold(struct eviction *e, struct ty_op *op, uint32_t from)
{
	for (uint32_t i = from; i < op->count; i++) {
		struct ty_chunk *chunk = ty_index_find(e->service->index, &op->chunks[i].key);

		if (chunk && eviction_discard(e, chunk))
			chunk = NULL;
		if (chunk && op->blocks && !eviction_fits(chunk, op->layout->parts, op->layout->chunk_bytes) && eviction_replace(e, chunk))
			chunk = NULL;
		if (chunk && chunk->filling) /* held already: by an op that fills it, or the key is here twice */
			chunk = NULL;
		if (chunk)
			eviction_begin_filling(e, chunk);
		op->chunks[i].chunk = chunk;
		op->chunks[i].fate = TY_FATE_DROPPED;
	}
}

/* A chunk is touched once for a request: by its lease, when that comes back; or here, if the request did not find it, because
 * its head was missing, and computed it again. Each rank stores its part: the first one's touch counts. */
static enum ty_reentry was_used(const struct ty_op *op, const struct ty_op_chunk *c)
{
	return c->fate == TY_FATE_PRESENT && op->layout->part == 0 && !ty_chunk_pins(c->chunk) ? TY_REENTER_USED
											       : TY_REENTER_YOUNG;
}

static void let_go(struct eviction *e, struct ty_op *op, uint32_t from)
{
	for (uint32_t i = op->count; i-- > from;) {
		struct ty_op_chunk *c = &op->chunks[i];

		if (c->fate == TY_FATE_MOVE || !c->chunk)
			continue;
		eviction_end_filling(e, c->chunk, was_used(op, c), &op->hint);
		c->chunk = NULL;
	}
}

enum verdict { DECIDED, NO_ROOM, WAIT };

/* No victim now: may there be one when what is on its way has arrived? */
static enum verdict no_room(struct eviction *e, struct ty_op *op)
{
	if (!e->search.saved && !e->search.ours)
		return eviction_sums_pin(e, op) ? WAIT : NO_ROOM;
	if (!op->waited)
		eviction_count(&e->service->eviction_stats.waits, 1);
	op->waited = true;
	return WAIT;
}

/* A slot for the op's part of a chunk; NO_ROOM or WAIT if there is none (now). */
static enum verdict find_slot(struct eviction *e, struct ty_op *op, const struct eviction_owner *owner,
	const struct ty_key *key, uint32_t *slot)
{
	const struct ty_layout *layout = op->layout;
	uint64_t class = ty_slots_class_of(layout->chunk_bytes);

	if (!eviction_make_allowance(e, owner->domain, class)) {
		op->for_quota = ty_order_exceeds(e->order, owner->domain, class);
		return no_room(e, op);
	}
	for (;;) {
		*slot = ty_slots_take(e->service->slots, layout->chunk_bytes, key, layout->part, layout->parts, owner->space);
		if (*slot != TY_NO_SLOT)
			return DECIDED;
		eviction_grow(e);
		if (eviction_growing(e))
			return WAIT;
		if (!eviction_make_room(e, class))
			return no_room(e, op);
	}
}

/* What becomes of the op's i-th chunk. */
static enum verdict decide(struct eviction *e, struct ty_op *op, const struct eviction_owner *owner, uint32_t i)
{
	const struct ty_layout *layout = op->layout;
	struct ty_op_chunk *c = &op->chunks[i];
	bool held = c->chunk != NULL;
	struct ty_chunk *chunk = held ? c->chunk : ty_index_find(e->service->index, &c->key);
	enum verdict verdict;

	if (chunk && !eviction_fits(chunk, layout->parts, layout->chunk_bytes))
		return NO_ROOM; /* the fingerprint is part of the key, so this takes a key of somebody else's making */
	if (chunk && ty_chunk_state(chunk) == TY_CHUNK_WRONG)
		return NO_ROOM; /* somebody has it still */
	if (chunk)
		eviction_claim(e, chunk, owner);
	if (chunk && chunk->slots[layout->part] != TY_NO_SLOT) {
		c->fate = TY_FATE_PRESENT;
		op->present++;
		return DECIDED;
	}
	verdict = find_slot(e, op, owner, &c->key, &c->slot);
	if (verdict != DECIDED)
		return verdict;
	if (!chunk) {
		chunk = eviction_add_chunk(e, &c->key, layout->parts, owner);
		if (!chunk) {
			ty_slots_give(e->service->slots, c->slot);
			return NO_ROOM;
		}
	}
	if (!held) /* then somebody fills another part of it, or it is new: it is in no order */
		chunk->filling++;
	eviction_set_slot(e, chunk, layout->part, c->slot);
	c->chunk = chunk;
	c->fate = TY_FATE_MOVE;
	op->copies[op->copy_count++] = (struct ty_copy){
		.host = ty_slots_address(e->service->slots, c->slot),
		.blocks = op->blocks ? op->blocks + (size_t)i * layout->blocks_per_chunk : NULL,
	};
	return DECIDED;
}

/* Decide on what is not decided yet. False: it has to wait for the arena to grow. */
static bool reserve(struct eviction *e, struct ty_op *op)
{
	uint32_t from = decided(op);
	struct eviction_owner owner = eviction_owner(e, op->space);
	enum verdict verdict = DECIDED;

	op->for_quota = false;
	eviction_begin_search(e, e->patience && ty_now() < op->patient);
	hold(e, op, from);
	for (uint32_t i = from; i < op->count && verdict == DECIDED; i++)
		verdict = decide(e, op, &owner, i);
	let_go(e, op, from);
	eviction_end_search(e);
	/* The head is worth more than the tail: where space ends, the op ends. */
	if (verdict == NO_ROOM)
		op->dropped = op->count - op->copy_count - op->present;
	return verdict != WAIT;
}

/* Everything is decided. */
static void send_on(struct eviction *e, struct ty_op *op)
{
	struct ty_eviction_stats *stats = &e->service->eviction_stats;

	eviction_count(&stats->present, op->present);
	eviction_count(&stats->no_space, op->dropped);
	if (op->copy_count) {
		if (ty_send(op->mover, &op->msg, op->mover_type) == TY_OK)
			return;
		ty_op_fail(op, TY_STOPPING, "whoever was to move its bytes has stopped");
		give_back(e, op);
	} else if (!op->present) {
		ty_op_fail(op, TY_NO_SPACE, "no space for any of %u chunks: all that is here is in use", op->count);
	}
	end_op(op);
}

/* Nobody wants it any more? Then its code says why. */
static bool given_up(struct ty_op *op)
{
	/* acquire: pairs with the engine's release */
	if (ty_op_cancelled(op))
		ty_op_fail(op, TY_CANCELLED, "cancelled before its copy began");
	else if (ty_now() >= op->deadline)
		ty_op_fail(op, TY_TIMEOUT, "deadline passed before there was space");
	return op->code != TY_OK;
}

static void wait_for_growth(struct eviction *e, struct ty_op *op)
{
	op->waiting_next = NULL;
	*e->waiting_tail = op;
	e->waiting_tail = &op->waiting_next;
	e->waiting_count++;
	if (!e->ticking)
		ty_timer_start(&e->tick, TY_EVICTION_TICK, ty_now() + TICK_NS);
	e->ticking = true;
}

static void unlink_waiting(struct eviction *e, struct ty_op **link)
{
	struct ty_op *op = *link;

	*link = op->waiting_next;
	if (!op->waiting_next)
		e->waiting_tail = link;
	op->waiting_next = NULL;
	e->waiting_count--;
}

/* Nobody overtakes; but who waits for his tenant's quota is in the way of that tenant alone. */
static bool has_to_queue(struct eviction *e, const struct ty_op *op)
{
	uint8_t domain = eviction_owner(e, op->space).domain;

	for (const struct ty_op *w = e->waiting; w; w = w->waiting_next)
		if (!w->for_quota || eviction_owner(e, w->space).domain == domain)
			return true;
	return false;
}

/* Look at the ops that wait: those that were given up go home, the others go on in their order as far as there is space. */
static void serve_waiting(struct eviction *e)
{
	bool full[TY_TENANT_QUOTAS_MAX + 1] = {false}; /* by domain: its quota */
	struct ty_op *op;

	for (struct ty_op **link = &e->waiting; (op = *link);) {
		if (!given_up(op)) {
			link = &op->waiting_next;
			continue;
		}
		unlink_waiting(e, link);
		give_back(e, op);
		end_op(op);
	}
	for (struct ty_op **link = &e->waiting; (op = *link);) {
		uint8_t domain = eviction_owner(e, op->space).domain;

		if (!full[domain] && reserve(e, op)) {
			unlink_waiting(e, link);
			send_on(e, op);
			continue;
		}
		if (!full[domain] && !op->for_quota)
			return;
		full[domain] = true;
		link = &op->waiting_next;
	}
}

/* ---- the actor ----------------------------------------------------------------------------------------- */

static void on_start(void *self, struct ty_msg *msg)
{
	(void)msg;
	eviction_grow(self);
}

static void on_reserve(void *self, struct ty_msg *msg)
{
	struct eviction *e = self;
	struct ty_op *op = ty_container_of(msg, struct ty_op, msg);

	assert(op->kind == TY_OP_STORE && op->layout->part < op->layout->parts);
	op->copy_count = op->stored = op->present = op->dropped = 0;
	op->sums = 0;
	op->patient = ty_now() + e->patience;
	op->waited = op->for_quota = false;
	for (uint32_t i = 0; i < op->count; i++) {
		op->chunks[i].fate = TY_FATE_DROPPED;
		op->chunks[i].chunk = NULL;
	}
	if (given_up(op))
		end_op(op);
	else if (has_to_queue(e, op) || !reserve(e, op))
		wait_for_growth(e, op);
	else
		send_on(e, op);
	eviction_grow(e);
	publish(e);
}

/* Tail first: the head becomes the youngest. */
static void commit(struct eviction *e, struct ty_op *op)
{
	for (uint32_t i = op->count; i-- > 0;) {
		struct ty_op_chunk *c = &op->chunks[i];

		if (c->fate != TY_FATE_MOVE)
			continue;
		eviction_commit_part(e, op, c);
		op->stored++;
	}
	eviction_count(&e->service->eviction_stats.commits, op->stored);
}

static void on_commit(void *self, struct ty_msg *msg)
{
	struct eviction *e = self;
	struct ty_op *op = ty_container_of(msg, struct ty_op, msg);

	if (op->code == TY_OK)
		commit(e, op);
	else
		give_back(e, op);
	op_home(op);
	publish(e);
}

/* What the session knows besides its lease: it stored these, so they were used already. */
static void hint_rest(struct eviction *e, const struct ty_lease *lease)
{
	for (uint32_t i = lease->key_count; i-- > lease->count;) {
		struct ty_chunk *chunk = ty_index_find(e->service->index, &lease->keys[i]);

		if (chunk)
			eviction_hint(e, chunk, &lease->hint);
	}
}

static void on_release(void *self, struct ty_msg *msg)
{
	struct eviction *e = self;
	struct ty_lease *lease = ty_container_of(msg, struct ty_lease, msg);
	struct eviction_owner owner = eviction_owner(e, lease->space);

	hint_rest(e, lease);
	for (uint32_t i = lease->count; i-- > 0;) {
		struct ty_chunk *chunk = lease->chunks[i]; /* pinned: so it is in the index */

		eviction_claim(e, chunk, &owner);
		if (i >= lease->again)
			eviction_used(e, chunk, &lease->hint);
		if (ty_chunk_state(chunk) == TY_CHUNK_READY)
			eviction_offer(e, chunk, TY_TIER_WRITE_REUSE);
		ty_chunk_unpin(chunk);
		(void)eviction_discard(e, chunk);
	}
	publish(e);
	if (ty_send(lease->engine, &lease->msg, TY_ENGINE_RELEASED) != TY_OK)
		ty_lease_free(lease);
}

void ty_lease_free(struct ty_lease *lease)
{
	free(lease->keys);
	free(lease);
}

static void on_piece(void *self, struct ty_msg *msg)
{
	struct eviction *e = self;

	eviction_take_piece(e, ty_container_of(msg, struct ty_piece, msg));
	serve_waiting(e);
	eviction_grow(e);
	publish(e);
}

static void on_tick(void *self, struct ty_msg *msg)
{
	struct eviction *e = self;

	(void)msg;
	e->ticking = false;
	serve_waiting(e);
	if (e->waiting) {
		ty_timer_start(&e->tick, TY_EVICTION_TICK, ty_now() + TICK_NS);
		e->ticking = true;
	}
	eviction_grow(e);
	publish(e);
}

/* ---- the administration ------------------------------------------------------------------------------ */

static void on_control(void *self, struct ty_msg *msg)
{
	eviction_control(self, ty_container_of(msg, struct ty_exchange, msg));
	eviction_grow(self);
	publish(self);
}

static void on_control_go(void *self, struct ty_msg *msg)
{
	eviction_control_go(self, msg);
	publish(self);
}

static void on_control_late(void *self, struct ty_msg *msg)
{
	eviction_control_late(self, msg);
}

static void on_tier_io(void *self, struct ty_msg *msg)
{
	eviction_below_home(msg);
	publish(self);
}

static void on_control_again(void *self, struct ty_msg *msg)
{
	eviction_control_again(msg);
	publish(self);
}

static void on_offer(void *self, struct ty_msg *msg)
{
	(void)msg;
	eviction_offers_look(self);
	publish(self);
}

static void on_offered(void *self, struct ty_msg *msg)
{
	eviction_offers_home(msg);
	publish(self);
}

static void on_scrub(void *self, struct ty_msg *msg)
{
	eviction_scrub(self, ty_container_of(msg, struct ty_scrub_ask, msg));
	publish(self);
}

static void on_fetched(void *self, struct ty_msg *msg)
{
	eviction_fetched(self, msg);
	publish(self);
}

static enum ty_code start(void *self, void *arg)
{
	struct eviction *e = self;
	const struct ty_config *config = ((struct ty_service *)arg)->config;

	e->service = arg;
	e->waiting_tail = &e->waiting;
	e->unsummed_at = TY_NO_SLOT;
	for (uint32_t i = 0; i < TY_MAX_TIERS; i++)
		e->offers[i].at = TY_NO_SLOT;
	e->limit = e->service->arena.pieces * TY_PIECE_BYTES;
	e->ahead = config->l1_ahead;
	e->quota_count = config->quota_count;
	memcpy(e->quotas, config->quotas, sizeof e->quotas);
	e->keep_percent = config->keep_percent;
	for (uint32_t i = 0; i < e->service->tier_count; i++)
		if (e->service->tiers[i]->config.wait > e->patience)
			e->patience = e->service->tiers[i]->config.wait;
	e->kept_max = e->limit * config->keep_percent / 100;
	publish_limits(e);
	e->order = eviction_new_order(ty_policies[config->policy], e->quotas, e->quota_count, e->limit);
	e->tried = calloc(e->service->arena.pieces, sizeof *e->tried);
	if (e->order && e->tried && eviction_growth_open(e) == TY_OK)
		return TY_OK;
	ty_log(TY_LOG_ERROR, "eviction", "no memory to start with");
	return TY_NO_MEMORY;
}

static void on_summed(void *self, struct ty_msg *msg)
{
	struct eviction *e = self;

	eviction_summed(e, msg);
	if (e->waiting)
		serve_waiting(e);
	publish(e);
}

static void on_look(void *self, struct ty_msg *msg)
{
	(void)msg;
	eviction_sum_missing(self);
}

/* The runtime stops. Chunks and slots stay as they are: whoever opened index and table closes them. */
static void stop(void *self)
{
	struct eviction *e = self;

	for (struct ty_op *op; (op = e->waiting);) {
		unlink_waiting(e, &e->waiting);
		ty_op_fail(op, TY_STOPPING, "the service stops");
		give_back(e, op);
		end_op(op);
	}
	eviction_control_close(e);
	ty_order_destroy(e->order);
	free(e->events.list);
	free(e->tried);
	eviction_growth_close(e);
}

/* Came after the stop. Nothing new begins, what is out comes in. */
static void refuse(void *self, struct ty_msg *msg)
{
	switch (msg->type) {
	case TY_EVICTION_RESERVE: {
		struct ty_op *op = ty_container_of(msg, struct ty_op, msg);

		ty_op_fail(op, TY_STOPPING, "the service stops");
		end_op(op);
		break;
	}
	case TY_EVICTION_COMMIT:
		on_commit(self, msg);
		break;
	case TY_EVICTION_RELEASE:
		on_release(self, msg);
		break;
	case TY_EVICTION_SUMMED:
		on_summed(self, msg);
		break;
	case TY_EVICTION_CONTROL:
		ty_exchange_refuse(ty_container_of(msg, struct ty_exchange, msg), TY_STOPPING, "the service stops");
		break;
	case TY_EVICTION_CONTROL_GO:
		eviction_control_drop(msg);
		break;
	case TY_EVICTION_PIECE:
		free(ty_container_of(msg, struct ty_piece, msg));
		break;
	default: /* START and timers live elsewhere */
		break;
	}
}

static void on_stop(void *self, struct ty_msg *msg)
{
	struct eviction *e = self;

	assert(!e->stop);
	e->stop = ty_container_of(msg, struct ty_stop, msg);
	publish(e);
}

static const struct ty_handler handlers[] = {
	{"start", on_start},
	{"reserve", on_reserve},
	{"commit", on_commit},
	{"release", on_release},
	{"piece", on_piece},
	{"tick", on_tick},
	{"summed", on_summed},
	{"control", on_control},
	{"control go", on_control_go},
	{"control late", on_control_late},
	{"tier io", on_tier_io},
	{"fetched", on_fetched},
	{"look", on_look},
	{"scrub", on_scrub},
	{"control again", on_control_again},
	{"offer", on_offer},
	{"offered", on_offered},
	{"stop", on_stop},
};

const struct ty_class ty_eviction_class = {
	.name = "eviction",
	.state_size = sizeof(struct eviction),
	.first_type = TY_EVICTION_START,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.stop = stop,
	.refuse = refuse,
};
