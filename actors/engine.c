/* SPDX-License-Identifier: Apache-2.0
 *
 * Members come and go, requests are handed to the other files, deadlines are kept: an exchange is answered by its
 * deadline whatever became of its op.
 */
#include "engine_state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define TICK_NS 5000000 /* how exact deadlines are: 5 ms */

struct peer *engine_peer(struct engine *e, uint64_t client)
{
	for (struct peer *p = e->peers; p; p = p->next)
		if (p->member->client == client && !p->left)
			return p;
	return NULL;
}

void engine_watch(struct engine *e)
{
	if (!e->tick_armed) {
		e->tick_armed = true;
		ty_timer_start(&e->tick, TY_ENGINE_TICK, ty_now() + TICK_NS);
	}
}

/* What STATUS says of the engine stands in each member's slot. */
static void publish(struct engine *e)
{
	for (struct peer *p = e->peers; p; p = p->next) {
		struct ty_client_slot *slot = p->member->slot;

		if (p->left)
			continue;
		atomic_store_explicit(&slot->registrations, e->registration_count, memory_order_relaxed);
		atomic_store_explicit(&slot->sessions, e->session_count, memory_order_relaxed);
		atomic_store_explicit(&slot->operations, e->flight_count, memory_order_relaxed);
		atomic_store_explicit(&slot->leases, e->leased, memory_order_relaxed);
	}
}

static void free_peer(struct peer *p)
{
	ty_timeline_unref(p->member->timeline);
	ty_descriptor_box_unref(p->member->descriptors);
	free(p->member);
	free(p);
}

void engine_settle(struct engine *e)
{
	struct peer **link = &e->peers;

	while (*link) {
		struct peer *p = *link;

		if (p->left && !p->uses) {
			*link = p->next;
			free_peer(p);
		} else {
			link = &p->next;
		}
	}
	publish(e);
	if (e->peers || e->registrations || e->flights || e->flushes || e->lookups || e->leases_out || e->end_out)
		return;
	/* The last member is gone and everything is back. */
	assert(!e->session_count && !e->leased);
	e->end_out = true;
	e->end.engine = ty_self();
	e->end.joins = e->joins;
	enum ty_code sent = ty_send(e->service->clients, &e->end.msg, TY_CLIENTS_ENGINE_GONE);
	assert(sent == TY_OK); /* clients waits for its engines */
}

/* ---- messages --------------------------------------------------------------------------------------- */

static void on_request(void *self, struct ty_msg *msg)
{
	struct engine *e = self;
	struct ty_exchange *x = ty_container_of(msg, struct ty_exchange, msg);
	struct peer *peer = engine_peer(e, x->request->client);

	if (!peer) {
		ty_exchange_refuse(x, TY_UNKNOWN_CLIENT, "client: %llu is not here; attach and HELLO first",
			(unsigned long long)x->request->client);
		return;
	}
	switch (x->request->verb_case) {
	case TYER__V1__REQUEST__VERB_REGISTER:
		engine_register(e, peer, x);
		break;
	case TYER__V1__REQUEST__VERB_UNREGISTER:
		engine_unregister(e, peer, x);
		break;
	case TYER__V1__REQUEST__VERB_LOOKUP:
		engine_lookup(e, peer, x);
		break;
	case TYER__V1__REQUEST__VERB_RETRIEVE:
		engine_retrieve(e, peer, x);
		break;
	case TYER__V1__REQUEST__VERB_STORE:
		engine_store(e, peer, x);
		break;
	case TYER__V1__REQUEST__VERB_END_SESSION:
		engine_end_session(e, x);
		break;
	case TYER__V1__REQUEST__VERB_FLUSH:
		engine_flush(e, peer, x);
		break;
	case TYER__V1__REQUEST__VERB_CANCEL:
		engine_cancel(e, peer, x);
		break;
	case TYER__V1__REQUEST__VERB_OPERATIONS:
		engine_operations(e, x);
		break;
	default:
		ty_exchange_refuse(x, TY_UNSUPPORTED, "verb: %d is none that an engine answers", (int)x->request->verb_case);
		break;
	}
	publish(e);
}

/* Those that have left may have something under way still. */
static bool has_members(const struct engine *e)
{
	for (const struct peer *p = e->peers; p; p = p->next)
		if (!p->left)
			return true;
	return false;
}

static void on_join(void *self, struct ty_msg *msg)
{
	struct engine *e = self;
	struct peer *p = calloc(1, sizeof *p);
	struct ty_member *m = ty_container_of(msg, struct ty_member, msg);

	if (!p) /* 40 bytes: the process is beyond serving */
		abort();
	if (!has_members(e)) /* it may have another layout than those before it, whose sessions are over */
		e->has_fingerprint = false;
	e->joins++;
	p->member = m;
	p->next = e->peers;
	e->peers = p;
	publish(e);
}

/* A member died or closed: its requests are answered, its ops die as soon as they may, its memory is given back. */
static void on_leave(void *self, struct ty_msg *msg)
{
	struct engine *e = self;
	struct ty_member *m = ty_container_of(msg, struct ty_member, leave);
	struct peer *p = engine_peer(e, m->client);

	assert(p && p->member == m);
	p->left = true;
	engine_drop_sessions(e, p);
	engine_flush_leave(e, p);
	for (struct flight *f = e->flights; f; f = f->next)
		if (f->peer == p)
			engine_give_up(f, TY_CANCELLED, "its client is gone");
	for (struct registration *r = e->registrations, *next; r; r = next) {
		next = r->next;
		if (r->peer != p)
			continue;
		if (r->exchange) {
			ty_exchange_refuse(r->exchange, TY_CANCELLED, "its client is gone");
			r->exchange = NULL;
		}
		engine_close_registration(e, r);
	}
	engine_settle(e);
}

static void on_op_done(void *self, struct ty_msg *msg)
{
	struct engine *e = self;

	engine_landed(e, ty_container_of(msg, struct flight, op.msg));
	engine_settle(e);
}

static void on_mapped(void *self, struct ty_msg *msg)
{
	engine_mapped(self, ty_container_of(msg, struct registration, map.msg));
	engine_settle(self);
}

static void on_unmapped(void *self, struct ty_msg *msg)
{
	engine_unmapped(self, ty_container_of(msg, struct registration, map.msg));
	engine_settle(self);
}

static void on_released(void *self, struct ty_msg *msg)
{
	struct engine *e = self;

	e->leases_out--;
	ty_lease_free(ty_container_of(msg, struct ty_lease, msg));
	engine_settle(e);
}

/* What a request that is late hears: whether its device still moves. */
static enum ty_code late_code(const struct engine *e, uint32_t device)
{
	return ty_gpu_stalled(e->service, device) ? TY_DEVICE_STALLED : TY_TIMEOUT;
}

static void on_tick(void *self, struct ty_msg *msg)
{
	struct engine *e = self;
	int64_t now = ty_now();
	bool out = false;

	(void)msg;
	e->tick_armed = false;
	for (struct flight *f = e->flights; f; f = f->next) {
		if (f->exchange && now >= f->exchange->deadline)
			engine_give_up(f, late_code(e, f->registration->device),
				ty_op_is_ready(&f->op) ? "the deadline passed" : "the deadline passed: its ready word has not come");
		out |= f->exchange != NULL;
	}
	for (struct registration *r = e->registrations; r; r = r->next) {
		if (r->exchange && now >= r->exchange->deadline) {
			ty_exchange_refuse(r->exchange, late_code(e, r->device), "the deadline passed in the device's slow lane");
			r->exchange = NULL;
			if (r->state == REG_MAPPING) /* nobody knows its number */
				engine_close_registration(e, r);
		}
		out |= r->exchange != NULL;
	}
	out |= engine_flush_expire(e, now);
	out |= engine_fetch_expire(e, now);
	if (out)
		engine_watch(e);
}

static enum ty_code start(void *self, void *arg)
{
	struct engine *e = self;
	struct ty_engine_arg *a = arg;

	e->service = a->service;
	e->identity = a->identity;
	e->space = a->space;
	free(a);
	return TY_OK;
}

static void stop(void *self)
{
	struct engine *e = self;

	free(e->finished);
	assert(!e->flights && !e->flushes && !e->lookups && !e->registrations && !e->peers && !e->leases_out);
}

/* A request that came too late, when the engine has ended already. Everything else that is sent here outlives it. */
static void refuse(void *self, struct ty_msg *msg)
{
	(void)self;
	assert(msg->type == TY_ENGINE_REQUEST);
	ty_exchange_refuse(ty_container_of(msg, struct ty_exchange, msg), TY_UNKNOWN_CLIENT, "client: its engine has ended");
}

static void on_fetched(void *self, struct ty_msg *msg)
{
	engine_fetched(self, ty_container_of(msg, struct ty_fetch, msg));
	engine_settle(self);
}

/* The end was too early. */
static void on_stay(void *self, struct ty_msg *msg)
{
	struct engine *e = self;

	(void)msg;
	e->end_out = false;
	engine_settle(e);
}

static void on_flush_go(void *self, struct ty_msg *msg)
{
	engine_flush_go(self, msg);
	engine_settle(self);
}

static const struct ty_handler handlers[] = {
	{"request", on_request},
	{"join", on_join},
	{"leave", on_leave},
	{"op done", on_op_done},
	{"mapped", on_mapped},
	{"unmapped", on_unmapped},
	{"released", on_released},
	{"tick", on_tick},
	{"fetched", on_fetched},
	{"stay", on_stay},
	{"flush go", on_flush_go},
};

const struct ty_class ty_engine_class = {
	.name = "engine",
	.state_size = sizeof(struct engine),
	.first_type = TY_ENGINE_REQUEST,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.stop = stop,
	.refuse = refuse,
};
