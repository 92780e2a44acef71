/* SPDX-License-Identifier: Apache-2.0
 *
 * A request's way here: request() takes it from its connection and unpacks it, dispatch() hands it to whoever answers,
 * answered() takes it back, reply() packs it and gives it to the connection, replied() says that it is out.
 */
#include "rpc.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "rpc_socket.h"
#include "service.h"
#include "wire/request.h"

const uint64_t ty_latency_bound_us[TY_LATENCY_BUCKETS] = {100, 1000, 10000, 100000, 1000000, 10000000, 100000000, UINT64_MAX};

/* Where a client's requests go. Its place is in the client's number (clients.h), all of which is compared. */
struct place {
	uint64_t client;
	struct ty_actor *engine; /* a reference; null: nobody is there */
	uint32_t uid;            /* whose process it is */
	uint32_t requests;       /* open, of this client ... */
	uint64_t bytes;          /* ... and how long they are */
};

struct rpc {
	struct ty_rpc_socket *socket;
	struct ty_service *service;
	struct ty_actor *self; /* a reference */
	struct place places[TY_MAX_CLIENTS];

	uint32_t routed;    /* open requests that an engine has; at most config->max_requests ... */
	uint64_t bytes;     /* ... and how long they are; at most limits.request_bytes */
	uint32_t held;      /* open requests that a stop waits for */
	bool stopping;
	struct ty_stop *stop; /* who waits; null once it was told */
};

static struct ty_rpc_slot *slot_of(struct ty_exchange *exchange)
{
	return ty_container_of(exchange, struct ty_rpc_slot, exchange);
}

static struct ty_exchange *exchange_of(struct ty_msg *msg)
{
	return ty_container_of(msg, struct ty_exchange, msg);
}

static void count(_Atomic uint64_t *counter, uint64_t more)
{
	atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

/* ---- open requests by id -------------------------------------------------------------------------------------------- */

static uint32_t bucket_of(const struct rpc *rpc, const Tyer__V1__Request *request)
{
	uint64_t h = (request->client ^ (request->id + 0x9e3779b97f4a7c15u)) * 0xbf58476d1ce4e5b9u;

	return (uint32_t)((h ^ h >> 32) & rpc->socket->bucket_mask);
}

/* False: the client has a request of this id open. */
static bool list(struct rpc *rpc, struct ty_rpc_slot *slot)
{
	const Tyer__V1__Request *request = slot->exchange.request;
	struct ty_rpc_slot **bucket = &rpc->socket->buckets[bucket_of(rpc, request)];

	for (struct ty_rpc_slot *other = *bucket; other; other = other->chain)
		if (other->exchange.request->id == request->id && other->exchange.request->client == request->client)
			return false;
	slot->chain = *bucket;
	*bucket = slot;
	slot->listed = true;
	return true;
}

static void unlist(struct rpc *rpc, struct ty_rpc_slot *slot)
{
	struct ty_rpc_slot **at = &rpc->socket->buckets[bucket_of(rpc, slot->exchange.request)];

	if (!slot->listed)
		return;
	while (*at != slot)
		at = &(*at)->chain;
	*at = slot->chain;
	slot->listed = false;
}

/* ---- slots ---------------------------------------------------------------------------------------------------------- */

/* The one that never leaves, for what is answered on the spot. */
static bool is_local(const struct rpc *rpc, const struct ty_rpc_slot *slot)
{
	return slot == &rpc->socket->slots[rpc->socket->count];
}

static struct ty_rpc_slot *take_slot(struct rpc *rpc)
{
	struct ty_rpc_slot *slot = rpc->socket->free;

	if (!slot)
		return &rpc->socket->slots[rpc->socket->count];
	rpc->socket->free = slot->chain;
	return slot;
}

static void link_slot(struct ty_rpc_slot *slot)
{
	struct ty_rpc_connection *connection = slot->connection;

	slot->next = connection->slots;
	slot->at = &connection->slots;
	if (slot->next)
		slot->next->at = &slot->next;
	connection->slots = slot;
	connection->requests++;
	slot->away = true;
}

static void unlink_slot(struct ty_rpc_slot *slot)
{
	*slot->at = slot->next;
	if (slot->next)
		slot->next->at = slot->at;
	slot->connection->requests--;
}

static struct place *place_of(struct rpc *rpc, uint64_t client)
{
	uint64_t index = client & 0xffff;

	return index >= 1 && index <= TY_MAX_CLIENTS ? &rpc->places[index - 1] : NULL;
}

static void put_slot(struct rpc *rpc, struct ty_rpc_slot *slot)
{
	if (slot->exchange.request)
		unlist(rpc, slot);
	if (slot->routed) {
		struct place *place = place_of(rpc, slot->exchange.request->client);

		slot->routed = false;
		rpc->routed--;
		rpc->bytes -= slot->bytes;
		if (place->client == slot->exchange.request->client) { /* else it left, and another came */
			place->requests--;
			place->bytes -= slot->bytes;
		}
	}
	if (slot->away && slot->connection)
		unlink_slot(slot);
	slot->away = false;
	slot->connection = NULL;
	ty_rpc_slot_clear(slot);
	if (is_local(rpc, slot))
		return;
	slot->chain = rpc->socket->free;
	rpc->socket->free = slot;
}

/* The connection is over: nobody takes the answers any more. They come home all the same. */
static void gone(void *owner, struct ty_rpc_connection *connection)
{
	(void)owner;
	while (connection->slots) {
		struct ty_rpc_slot *slot = connection->slots;

		unlink_slot(slot);
		slot->connection = NULL;
	}
}

/* ---- replies -------------------------------------------------------------------------------------------------------- */

/* A request is open no more: its reply is out, or there is nobody for it. */
static void finish(struct rpc *rpc, bool held)
{
	atomic_fetch_sub_explicit(&rpc->service->rpc_stats.open, 1, memory_order_relaxed);
	rpc->held -= held;
	if (rpc->stop && rpc->held == 0) {
		struct ty_stop *stop = rpc->stop;

		rpc->stop = NULL;
		stop->stopped(stop);
	}
}

static void replied(void *owner, const struct ty_rpc_reply *frame)
{
	finish(owner, frame->held);
}

static void note_latency(struct rpc *rpc, const struct ty_exchange *exchange, unsigned verb)
{
	struct ty_rpc_stats *stats = &rpc->service->rpc_stats;
	int64_t took = ty_now() - exchange->received;
	uint64_t us = took > 0 ? (uint64_t)took / 1000 : 0;
	unsigned i = 0;

	while (us > ty_latency_bound_us[i])
		i++;
	count(&stats->latency[verb][i], 1);
	count(&stats->latency_us_sum[verb], us);
}

static void reply(struct rpc *rpc, struct ty_rpc_slot *slot)
{
	struct ty_exchange *exchange = &slot->exchange;
	unsigned verb = exchange->request ? (unsigned)exchange->request->verb_case : 0;
	struct ty_rpc_connection *connection = slot->connection;
	struct ty_rpc_reply *frame = NULL;
	bool held = slot->held, ipc = rpc->socket->edge.transport == TY_RPC_IPC;

	if ((unsigned)exchange->code >= TY_CODE_COUNT) {
		ty_log(TY_LOG_ERROR, "rpc", "%s was answered with %d, which is no code", ty_verb_name(verb),
			(int)exchange->code);
		exchange->code = TY_INTERNAL;
	}
	if (connection && verb == TYER__V1__REQUEST__VERB_HELLO && exchange->code == TY_OK)
		connection->client = exchange->reply.hello->client;
	if (connection && verb == TYER__V1__REQUEST__VERB_REGISTER && exchange->code == TY_OK)
		connection->device = exchange->reply.registered.device + 1;
	if (connection) {
		frame = ty_rpc_reply_pack(slot, rpc->service->boot, ipc, &connection->reserve);
		if (!frame && exchange->code == TY_OK) {
			exchange->code = ty_fail(&exchange->error, TY_NO_MEMORY, "no memory for the reply");
			frame = ty_rpc_reply_pack(slot, rpc->service->boot, ipc, &connection->reserve);
		}
	}
	count(&rpc->service->rpc_stats.replies[exchange->code], 1);
	note_latency(rpc, exchange, verb);
	put_slot(rpc, slot); /* before the reply is out: with it in hand the client may use the id again */
	if (frame) {
		ty_rpc_edge_send(connection, frame);
		return;
	}
	finish(rpc, held);
	if (!connection)
		return;
	/* Its reserve is on the way out already. Whoever hears nothing would wait; the connection's end tells it at once. */
	count(&rpc->service->rpc_stats.unsent, 1 + connection->replies);
	ty_rpc_edge_close(connection, "no memory for a reply");
}

static void refuse_here(struct rpc *rpc, struct ty_rpc_slot *slot, enum ty_code code, const char *fmt, ...) TY_PRINTF(4, 5);

static void refuse_here(struct rpc *rpc, struct ty_rpc_slot *slot, enum ty_code code, const char *fmt, ...)
{
	va_list args;

	slot->exchange.code = slot->exchange.error.code = code;
	va_start(args, fmt);
	vsnprintf(slot->exchange.error.text, sizeof slot->exchange.error.text, fmt, args);
	va_end(args);
	reply(rpc, slot);
}

static void answered(void *self, struct ty_msg *msg)
{
	reply(self, slot_of(exchange_of(msg)));
}

/* ---- requests ------------------------------------------------------------------------------------------------------- */

/* May it leave? Those that may not are answered at once, so nothing ever waits here. */
static bool has_room(struct rpc *rpc, struct ty_rpc_slot *slot)
{
	uint32_t limit = rpc->socket->edge.limits.requests;

	if (slot->connection->requests >= limit)
		refuse_here(rpc, slot, TY_BUSY, "%u requests of this connection are open", limit);
	else if (is_local(rpc, slot))
		refuse_here(rpc, slot, TY_BUSY, "all of the service's %u exchanges are taken", rpc->socket->count);
	else
		return true;
	return false;
}

/* Hand the exchange over, with a reference to this actor in it. */
static void hand_over(struct rpc *rpc, struct ty_rpc_slot *slot, struct ty_actor *to, uint32_t type)
{
	if (!slot->routed && !has_room(rpc, slot))
		return;
	link_slot(slot);
	ty_actor_ref(rpc->self);
	if (ty_send(to, &slot->exchange.msg, type) == TY_OK)
		return;
	ty_actor_unref(rpc->self);
	if (rpc->stopping || atomic_load_explicit(&rpc->service->stopping, memory_order_acquire))
		refuse_here(rpc, slot, TY_STOPPING, "the service is stopping");
	else
		refuse_here(rpc, slot, TY_CLOSED, "client %llu: whoever answers %s for it is gone",
			(unsigned long long)slot->exchange.request->client,
			ty_verb_name((uint32_t)slot->exchange.request->verb_case));
}

/* Credit: of all clients together, of this one, and of what is free, of which one that asks without end leaves as much as it has
 * (operations.h does the same). */
static bool has_credit(struct rpc *rpc, struct ty_rpc_slot *slot, const struct place *place)
{
	const struct ty_config *config = rpc->service->config;
	uint64_t room = rpc->socket->edge.limits.request_bytes;

	if (rpc->routed >= config->max_requests)
		refuse_here(rpc, slot, TY_BUSY, "max_requests = %u requests are open", config->max_requests);
	else if (place->requests >= config->max_client_requests)
		refuse_here(rpc, slot, TY_BUSY, "max_client_requests = %u requests of this client are open",
			config->max_client_requests);
	else if (place->requests > config->max_requests - rpc->routed)
		refuse_here(rpc, slot, TY_BUSY, "%u of max_requests = %u requests are open, %u of them this client's", rpc->routed,
			config->max_requests, place->requests);
	else if (slot->bytes > room - rpc->bytes || place->bytes > room - rpc->bytes)
		refuse_here(rpc, slot, TY_BUSY, "open requests are %llu bytes long, %llu of them this client's; all may have %llu",
			(unsigned long long)rpc->bytes, (unsigned long long)place->bytes, (unsigned long long)room);
	else
		return true;
	return false;
}

/* May this connection speak for the client? Over ipc whoever is the same user, or root; over TLS who said its HELLO here; over plain
 * tcp nobody knows, and --tcp-insecure says that it is all right. */
static bool speaks_for(const struct rpc *rpc, const struct ty_rpc_connection *connection, const struct place *place)
{
	switch (rpc->socket->edge.transport) {
	case TY_RPC_IPC:
		return connection->uid == place->uid || connection->uid == 0;
	case TY_RPC_TLS:
		return connection->client == place->client;
	default:
		return true;
	}
}

static void dispatch_to_engine(struct rpc *rpc, struct ty_rpc_slot *slot)
{
	const Tyer__V1__Request *request = slot->exchange.request;
	struct place *place = place_of(rpc, request->client);

	if (!place || !place->engine || place->client != request->client) {
		refuse_here(rpc, slot, TY_UNKNOWN_CLIENT, "client %llu is none of this service (boot %016llx): HELLO first",
			(unsigned long long)request->client, (unsigned long long)rpc->service->boot);
		return;
	}
	if (!speaks_for(rpc, slot->connection, place)) {
		refuse_here(rpc, slot, TY_DENIED, "client %llu is somebody else's", (unsigned long long)request->client);
		return;
	}
	if (!has_credit(rpc, slot, place) || !has_room(rpc, slot))
		return;
	if (!list(rpc, slot)) {
		refuse_here(rpc, slot, TY_EXISTS, "id %llu: client %llu has a request of this id open",
			(unsigned long long)request->id, (unsigned long long)request->client);
		return;
	}
	slot->routed = true;
	rpc->routed++;
	rpc->bytes += slot->bytes;
	place->requests++;
	place->bytes += slot->bytes;
	hand_over(rpc, slot, place->engine, TY_ENGINE_REQUEST);
}

static void dispatch(struct rpc *rpc, struct ty_rpc_slot *slot)
{
	switch (slot->exchange.request->verb_case) {
	case TYER__V1__REQUEST__VERB_PING:
		reply(rpc, slot);
		break;
	case TYER__V1__REQUEST__VERB_STATUS:
		hand_over(rpc, slot, rpc->service->metrics, TY_METRICS_STATUS);
		break;
	default:
		if (ty_verb_is_admin((uint32_t)slot->exchange.request->verb_case) != rpc->socket->admin)
			refuse_here(rpc, slot, TY_DENIED, "verb: %s is for the %s socket",
				ty_verb_name((uint32_t)slot->exchange.request->verb_case),
				rpc->socket->admin ? "engines'" : "administration");
		else if (rpc->socket->admin)
			hand_over(rpc, slot, rpc->service->eviction, TY_EVICTION_CONTROL);
		else if (slot->exchange.request->verb_case == TYER__V1__REQUEST__VERB_HELLO)
			hand_over(rpc, slot, rpc->service->clients, TY_CLIENTS_HELLO);
		else
			dispatch_to_engine(rpc, slot);
		break;
	}
}

/* A request is open from here on. */
static void begin(struct rpc *rpc, struct ty_rpc_slot *slot)
{
	struct ty_exchange *exchange = &slot->exchange;

	exchange->received = ty_now();
	exchange->deadline = TY_NEVER;
	exchange->hello_done = false;
	exchange->next = NULL;
	exchange->blocks_in_use = false;
	exchange->code = exchange->error.code = TY_OK;
	exchange->error.text[0] = '\0';
	memset(&exchange->reply, 0, sizeof exchange->reply);
	slot->held = !rpc->stopping;
	rpc->held += slot->held;
	atomic_fetch_add_explicit(&rpc->service->rpc_stats.open, 1, memory_order_relaxed);
}

static void request(void *owner, struct ty_rpc_connection *connection, const uint8_t *trace, size_t trace_bytes,
	const uint8_t *bytes, size_t length)
{
	struct rpc *rpc = owner;
	const struct ty_config *config = rpc->service->config;
	struct ty_rpc_slot *slot = take_slot(rpc);
	struct ty_exchange *exchange = &slot->exchange;
	uint32_t timeout_us;

	assert(trace_bytes <= sizeof slot->trace);
	slot->connection = connection;
	memcpy(slot->trace, trace, trace_bytes);
	slot->trace_bytes = (uint8_t)trace_bytes;
	slot->bytes = length;
	begin(rpc, slot);
	exchange->code = ty_request_unpack(bytes, length, config->max_request_bytes, &exchange->request, &exchange->error);
	if (exchange->code != TY_OK) {
		count(&rpc->service->rpc_stats.malformed, 1);
		count(&rpc->service->rpc_stats.requests[0], 1);
		reply(rpc, slot);
		return;
	}
	assert((unsigned)exchange->request->verb_case < TY_VERBS);
	count(&rpc->service->rpc_stats.requests[exchange->request->verb_case], 1);
	if (rpc->stopping) {
		refuse_here(rpc, slot, TY_STOPPING, "the service is stopping");
		return;
	}
	exchange->code = ty_request_check(exchange->request, config->max_timeout_us, &exchange->error);
	if (exchange->code != TY_OK) {
		reply(rpc, slot);
		return;
	}
	timeout_us = exchange->request->timeout_us ? exchange->request->timeout_us : config->default_timeout_us;
	exchange->deadline = exchange->received + (int64_t)timeout_us * 1000;
	dispatch(rpc, slot);
}

static const struct ty_rpc_calls calls = {.request = request, .replied = replied, .gone = gone};

/* ---- clients come and go -------------------------------------------------------------------------------------------- */

static void send_route_back(struct ty_actor *clients, struct ty_route *route)
{
	if (ty_send(clients, &route->msg, TY_CLIENTS_ROUTED) == TY_OK)
		return;
	if (route->hello)
		ty_exchange_refuse(route->hello, TY_STOPPING, "the service is stopping");
	free(route);
}

static void route(void *self, struct ty_msg *msg)
{
	struct rpc *rpc = self;
	struct ty_route *r = ty_container_of(msg, struct ty_route, msg);
	struct place *place = place_of(rpc, r->client);

	assert(place);
	if (r->engine) {
		assert(!place->engine || place->client == r->client);
		ty_actor_ref(r->engine);
		if (place->engine)
			ty_actor_unref(place->engine);
		place->engine = r->engine;
		if (place->client != r->client) { /* else what it has open comes home here still */
			place->requests = 0;
			place->bytes = 0;
		}
		place->client = r->client;
		place->uid = r->uid;
	} else if (place->engine && place->client == r->client) {
		ty_actor_unref(place->engine);
		place->engine = NULL;
	}
	send_route_back(rpc->service->clients, r);
}

/* ---- life ----------------------------------------------------------------------------------------------------------- */

static void stop_requested(void *self, struct ty_msg *msg)
{
	struct rpc *rpc = self;
	struct ty_stop *stop = ty_container_of(msg, struct ty_stop, msg);

	assert(!rpc->stopping);
	rpc->stopping = true;
	if (rpc->held > 0) {
		ty_log(TY_LOG_INFO, "rpc", "stopping: %u requests are open", rpc->held);
		rpc->stop = stop;
	} else {
		stop->stopped(stop);
	}
}

static enum ty_code start(void *self, void *arg)
{
	struct rpc *rpc = self;

	rpc->socket = arg;
	rpc->service = rpc->socket->service;
	rpc->self = ty_actor_ref(ty_self());
	return TY_OK;
}

/* Everybody whom a request may go to is there. */
static void open_up(void *self, struct ty_msg *msg)
{
	struct rpc *rpc = self;

	(void)msg;
	for (uint32_t i = 0; i < rpc->socket->count; i++)
		rpc->socket->slots[i].exchange.rpc = rpc->self;
	ty_rpc_edge_start(&rpc->socket->edge, &calls, rpc);
}

static void wait_for_events(void *self, int64_t deadline)
{
	struct rpc *rpc = self;

	ty_rpc_edge_wait(&rpc->socket->edge, deadline);
}

static void wake(void *self)
{
	struct rpc *rpc = self;

	ty_rpc_edge_wake(&rpc->socket->edge);
}

static int64_t poll_edge(void *self, int64_t now)
{
	struct rpc *rpc = self;

	return ty_rpc_edge_poll(&rpc->socket->edge, now);
}

static void stop(void *self)
{
	struct rpc *rpc = self;

	ty_rpc_edge_stop(&rpc->socket->edge);
	for (uint32_t i = 0; i < TY_MAX_CLIENTS; i++)
		if (rpc->places[i].engine)
			ty_actor_unref(rpc->places[i].engine);
	if (rpc->stop) /* not all was answered in time; whoever asked is told all the same */
		rpc->stop->stopped(rpc->stop);
	ty_actor_unref(rpc->self);
}

/* After the close. Exchanges and connections are the socket's: they need nothing. */
static void refuse(void *self, struct ty_msg *msg)
{
	struct rpc *rpc = self;

	switch (msg->type) {
	case TY_RPC_ROUTE:
		send_route_back(rpc->service->clients, ty_container_of(msg, struct ty_route, msg));
		break;
	case TY_RPC_STOP: {
		struct ty_stop *request = ty_container_of(msg, struct ty_stop, msg);

		request->stopped(request);
		break;
	}
	default:
		break;
	}
}

static const struct ty_handler handlers[] = {
	[TY_RPC_START - TY_RPC_START] = {"start", open_up},
	[TY_RPC_ANSWER - TY_RPC_START] = {"answer", answered},
	[TY_RPC_ROUTE - TY_RPC_START] = {"route", route},
	[TY_RPC_STOP - TY_RPC_START] = {"stop", stop_requested},
	[TY_RPC_RETRY - TY_RPC_START] = {"retry", ty_rpc_edge_retry},
	[TY_RPC_LATE - TY_RPC_START] = {"late", ty_rpc_edge_late},
};

const struct ty_class ty_rpc_class = {
	.name = "rpc",
	.state_size = sizeof(struct rpc),
	.first_type = TY_RPC_START,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.stop = stop,
	.refuse = refuse,
	.poll = poll_edge,
	.wait = {wait_for_events, wake},
};
