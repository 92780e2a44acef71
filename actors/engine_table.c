/* SPDX-License-Identifier: Apache-2.0
 *
 * What an engine's clients may ask about its operations: those that are out, and those that have been, for a while.
 */
#include "engine_state.h"

#include <stdlib.h>
#include <string.h>

#include "wire/request.h"

struct finished { /* began 0: none */
	uint64_t id, client, session;
	int64_t began, ended;
	enum ty_op_kind kind;
	uint32_t device, chunks, stored, present, dropped;
	enum ty_code code, answer;
};

/* Taken first and given back if it was too much, as a row of the table of operations is. */
bool ty_share_take(struct ty_share *share, uint64_t has, uint64_t more)
{
	uint64_t all = atomic_load_explicit(&share->all, memory_order_relaxed), used, left;

	if (more > all)
		return false;
	used = atomic_fetch_add_explicit(&share->used, more, memory_order_relaxed);
	left = used < all ? all - used : 0;
	if (more <= left && has + more <= left - more)
		return true;
	ty_share_give(share, more);
	return false;
}

void ty_share_give(struct ty_share *share, uint64_t what)
{
	atomic_fetch_sub_explicit(&share->used, what, memory_order_relaxed);
}

void engine_remember(struct engine *e, const struct flight *f)
{
	const struct ty_op *op = &f->op;

	if (!e->finished)
		e->finished = calloc(TY_FINISHED_OPERATIONS, sizeof *e->finished);
	if (!e->finished) /* no memory for it: whoever asks hears that nothing is known */
		return;
	e->finished[e->finished_next] = (struct finished){
		.id = f->request, .client = f->peer->member->client, .session = f->session, .began = f->began,
		.ended = ty_now(), .kind = op->kind, .device = f->registration->device, .chunks = op->count,
		.stored = op->stored, .present = op->present, .dropped = op->dropped, .code = op->code, .answer = f->answer,
	};
	e->finished_next = (e->finished_next + 1) % TY_FINISHED_OPERATIONS;
}

/* ---- the reply ------------------------------------------------------------------------------------------ */

/* A reply with room for `count`; freed by rpc as if it had been unpacked. */
static Tyer__V1__OperationsReply *new_reply(size_t count)
{
	Tyer__V1__OperationsReply *reply = malloc(sizeof *reply);

	if (!reply)
		return NULL;
	tyer__v1__operations_reply__init(reply);
	reply->operations = calloc(count ? count : 1, sizeof(Tyer__V1__Operation *));
	if (reply->operations)
		return reply;
	free(reply);
	return NULL;
}

static Tyer__V1__Operation *add(const struct engine *e, Tyer__V1__OperationsReply *reply, enum ty_op_kind kind, uint32_t device)
{
	Tyer__V1__Operation *o = malloc(sizeof *o);

	if (!o)
		return NULL;
	tyer__v1__operation__init(o);
	o->verb = kind == TY_OP_STORE ? TYER__V1__REQUEST__VERB_STORE : TYER__V1__REQUEST__VERB_RETRIEVE;
	o->device = strdup(e->service->gpu_stats[device].info.name);
	if (!o->device) {
		free(o);
		return NULL;
	}
	reply->operations[reply->n_operations++] = o;
	return o;
}

static bool add_flight(const struct engine *e, Tyer__V1__OperationsReply *reply, const struct flight *f)
{
	Tyer__V1__Operation *o = add(e, reply, f->op.kind, f->registration->device);

	if (!o)
		return false;
	o->id = f->request;
	o->client = f->peer->member->client;
	o->session = f->session;
	/* acquire: as ty_op_table_see */
	o->state = (Tyer__V1__OperationState)atomic_load_explicit(&f->op.row->state, memory_order_acquire);
	o->age_us = (uint64_t)(ty_now() - f->began) / 1000;
	o->chunks = f->op.count;
	o->answered = f->exchange == NULL;
	o->answer = (Tyer__V1__Code)f->answer;
	o->blocks_in_use = ty_op_touches(&f->op);
	return true;
}

static bool add_finished(const struct engine *e, Tyer__V1__OperationsReply *reply, const struct finished *f)
{
	Tyer__V1__Operation *o = add(e, reply, f->kind, f->device);

	if (!o)
		return false;
	o->id = f->id;
	o->client = f->client;
	o->session = f->session;
	o->state = TYER__V1__OPERATION_STATE__OVER;
	o->age_us = (uint64_t)(ty_now() - f->ended) / 1000;
	o->chunks = f->chunks;
	o->answered = true;
	o->answer = (Tyer__V1__Code)f->answer;
	o->code = (Tyer__V1__Code)f->code;
	o->stored = f->stored;
	o->present = f->present;
	o->dropped = f->dropped;
	return true;
}

static const struct finished *remembered(const struct engine *e, uint32_t i)
{
	const struct finished *f = e->finished ? &e->finished[i] : NULL;

	return f && f->began && ty_now() - f->ended < TY_FINISHED_NS ? f : NULL;
}

static bool is_wanted(const Tyer__V1__Operations *q, uint64_t id)
{
	for (size_t i = 0; i < q->n_ids; i++)
		if (q->ids[i] == id)
			return true;
	return q->n_ids == 0;
}

static void reply_with(struct ty_exchange *x, Tyer__V1__OperationsReply *reply, bool whole)
{
	x->reply.operations = reply; /* freed with the exchange, also when it is not sent */
	if (whole)
		ty_exchange_answer(x);
	else
		ty_exchange_refuse(x, TY_NO_MEMORY, "no memory for the answer");
}

void engine_operations(struct engine *e, struct ty_exchange *x)
{
	const Tyer__V1__Operations *q = x->request->operations;
	Tyer__V1__OperationsReply *reply;
	bool whole;

	if (q->n_ids > TY_OPERATION_IDS) {
		ty_exchange_refuse(x, TY_LIMIT, "ids: %zu; at most %d", q->n_ids, TY_OPERATION_IDS);
		return;
	}
	reply = new_reply(e->flight_count + TY_FINISHED_OPERATIONS);
	whole = reply != NULL;
	for (const struct flight *f = e->flights; whole && f; f = f->next)
		whole = !is_wanted(q, f->request) || add_flight(e, reply, f);
	for (uint32_t i = 0; whole && i < TY_FINISHED_OPERATIONS; i++) {
		const struct finished *f = remembered(e, i);

		whole = !f || !is_wanted(q, f->id) || add_finished(e, reply, f);
	}
	reply_with(x, reply, whole);
}

/* ---- CANCEL ---------------------------------------------------------------------------------------------- */

/* The client's own, or else anybody's of the engine: a client that came back has another number. */
static struct flight *find_flight(const struct engine *e, const struct peer *peer, uint64_t id)
{
	struct flight *found = NULL;

	for (struct flight *f = e->flights; f; f = f->next) {
		if (f->request != id)
			continue;
		if (f->peer == peer)
			return f;
		found = f;
	}
	return found;
}

void engine_cancel(struct engine *e, const struct peer *peer, struct ty_exchange *x)
{
	uint64_t id = x->request->cancel->id;
	struct flight *f = find_flight(e, peer, id);
	Tyer__V1__OperationsReply *reply = new_reply(1);
	bool whole = reply != NULL;

	/* One that has not begun will not: its answer goes out now. Else it is on its way home, and its answer then says more. */
	if (f && ty_op_cancel(&f->op) && f->exchange)
		engine_give_up(f, TY_CANCELLED, "cancelled");
	if (f && whole)
		whole = add_flight(e, reply, f);
	for (uint32_t i = 0; !f && whole && i < TY_FINISHED_OPERATIONS && !reply->n_operations; i++) {
		const struct finished *over = remembered(e, i);

		if (over && over->id == id)
			whole = add_finished(e, reply, over);
	}
	reply_with(x, reply, whole);
}
