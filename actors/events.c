/* SPDX-License-Identifier: Apache-2.0
 *
 * A PUB socket on the edge of rpc (rpc_connection.h): nng's own would stop accepting for good when somebody connects and goes at
 * once. A subscriber that does not take its events in time loses its connection, so that it knows that it missed some.
 */
#include "events.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "rpc_connection.h"
#include "service.h"

static const struct ty_rpc_protocol publishes = {0x20, 0x21, TY_EVENTS_RETRY, TY_EVENTS_LATE};

struct ty_events_socket {
	struct ty_service *service;
	struct ty_rpc_edge edge;
};

struct events {
	struct ty_events_socket *socket;
	uint64_t sequence;     /* of the last event */
};

/* ---- whoever has something to tell ---------------------------------------------------------------------------- */

void ty_events_add(struct ty_service *service, struct ty_events_pending *pending, Tyer__V1__Event__Kind kind,
	const struct ty_key *key, uint32_t tier)
{
	struct ty_event_list *list = pending->list;

	if (!service->events)
		return;
	if (list && list->count == TY_EVENTS_BATCH_MAX) {
		ty_events_flush(service, pending);
		list = NULL;
	}
	if (!list) {
		list = malloc(sizeof *list);
		if (!list) {
			/* the actor counts it as told, to nobody: a gap */
			atomic_fetch_add_explicit(&service->events_stats.lost, 1, memory_order_relaxed);
			return;
		}
		list->msg = (struct ty_msg)TY_MSG_INIT;
		list->count = 0;
		pending->list = list;
	}
	list->item[list->count].key = *key;
	list->item[list->count].kind = (uint8_t)kind;
	list->item[list->count++].tier = (uint8_t)tier;
}

void ty_events_flush(struct ty_service *service, struct ty_events_pending *pending)
{
	struct ty_event_list *list = pending->list;

	pending->list = NULL;
	if (list && ty_send(service->events, &list->msg, TY_EVENTS_TELL) != TY_OK)
		free(list);
}

/* ---- a batch ---------------------------------------------------------------------------------------------------- */

/* One message, as it goes over the wire: a byte for "message", its length, the batch. Null: no memory. */
static struct ty_rpc_reply *pack(const Tyer__V1__EventBatch *batch)
{
	size_t bytes = tyer__v1__event_batch__get_packed_size(batch);
	struct ty_rpc_reply *frame = calloc(1, sizeof *frame + 9 + bytes);

	if (!frame)
		return NULL;
	frame->bytes[0] = 1;
	for (unsigned i = 0; i < 8; i++)
		frame->bytes[1 + i] = (uint8_t)(bytes >> (56 - 8 * i));
	tyer__v1__event_batch__pack(batch, frame->bytes + 9);
	frame->size = 9 + bytes;
	return frame;
}

/* To everybody. A connection that ends meanwhile stays in the list of all. */
static void send_batch(struct events *e, const Tyer__V1__EventBatch *batch)
{
	for (struct ty_rpc_connection *c = e->socket->edge.all; c; c = c->next_of_all) {
		struct ty_rpc_reply *frame;

		if (c->stream.fd < 0 || !c->greeted)
			continue;
		frame = pack(batch);
		if (frame)
			ty_rpc_edge_send(c, frame);
		else
			ty_rpc_edge_close(c, "no memory for its events");
	}
}

static void tell(void *self, struct ty_msg *msg)
{
	struct events *e = self;
	struct ty_event_list *list = ty_container_of(msg, struct ty_event_list, msg);
	struct ty_service *service = e->socket->service;
	Tyer__V1__Event events[TY_EVENTS_BATCH_MAX], *at[TY_EVENTS_BATCH_MAX];
	Tyer__V1__EventBatch batch = TYER__V1__EVENT_BATCH__INIT;
	uint64_t lost = atomic_exchange_explicit(&service->events_stats.lost, 0, memory_order_relaxed);

	e->sequence += lost;
	batch.boot = service->boot;
	batch.sequence = e->sequence + 1;
	batch.n_events = list->count;
	batch.events = at;
	for (uint32_t i = 0; i < list->count; i++) {
		tyer__v1__event__init(&events[i]);
		events[i].kind = (Tyer__V1__Event__Kind)list->item[i].kind;
		events[i].key = (ProtobufCBinaryData){.len = TY_KEY_BYTES, .data = list->item[i].key.bytes};
		events[i].tier = list->item[i].tier;
		at[i] = &events[i];
	}
	e->sequence += list->count;
	send_batch(e, &batch);
	/* release: pairs with the load before a snapshot */
	atomic_store_explicit(&service->events_stats.events, e->sequence, memory_order_release);
	free(list);
}

static void gone(void *owner, struct ty_rpc_connection *connection)
{
	(void)owner;
	(void)connection;
}

static const struct ty_rpc_calls calls = {.gone = gone};

/* ---- life ----------------------------------------------------------------------------------------------------------- */

enum ty_code ty_events_open(struct ty_service *service, struct ty_events_socket **out, struct ty_error *err)
{
	struct ty_events_socket *socket;
	enum ty_code code;

	*out = NULL;
	if (strcmp(service->config->events, "off") == 0 || !service->config->events[0])
		return TY_OK;
	socket = calloc(1, sizeof *socket);
	if (!socket)
		return ty_fail(err, TY_NO_MEMORY, "no memory for the events' socket");
	socket->service = service;
	socket->edge.protocol = &publishes;
	socket->edge.private = true;
	code = ty_rpc_listen(service, service->config->events, &socket->edge, err);
	if (code != TY_OK) {
		ty_events_close(socket);
		return code;
	}
	socket->edge.limits.connections = TY_EVENTS_SUBSCRIBERS;
	socket->edge.limits.replies = UINT32_MAX; /* nothing is read from them that would have to wait */
	socket->edge.limits.reply_bytes = UINT64_MAX;
	socket->edge.limits.all_reply_bytes = (uint64_t)TY_EVENTS_SUBSCRIBERS * TY_EVENTS_QUEUE_BYTES;
	socket->edge.limits.queue_bytes = TY_EVENTS_QUEUE_BYTES;
	*out = socket;
	return TY_OK;
}

void ty_events_close(struct ty_events_socket *socket)
{
	if (!socket)
		return;
	ty_rpc_edge_free(&socket->edge);
	free(socket);
}

static enum ty_code start(void *self, void *arg)
{
	struct events *e = self;

	e->socket = arg;
	return TY_OK;
}

static void open_up(void *self, struct ty_msg *msg)
{
	struct events *e = self;

	(void)msg;
	ty_rpc_edge_start(&e->socket->edge, &calls, e);
}

static void wait_for_events(void *self, int64_t deadline)
{
	struct events *e = self;

	ty_rpc_edge_wait(&e->socket->edge, deadline);
}

static void wake(void *self)
{
	struct events *e = self;

	ty_rpc_edge_wake(&e->socket->edge);
}

static int64_t poll_edge(void *self, int64_t now)
{
	struct events *e = self;
	int64_t next = ty_rpc_edge_poll(&e->socket->edge, now);

	atomic_store_explicit(&e->socket->service->events_stats.subscribers, e->socket->edge.open, memory_order_relaxed);
	return next;
}

static void stop(void *self)
{
	struct events *e = self;

	ty_rpc_edge_stop(&e->socket->edge);
}

static void refuse(void *self, struct ty_msg *msg)
{
	(void)self;
	if (msg->type == TY_EVENTS_TELL)
		free(ty_container_of(msg, struct ty_event_list, msg));
}

static const struct ty_handler handlers[] = {
	[TY_EVENTS_START - TY_EVENTS_START] = {"start", open_up},
	[TY_EVENTS_TELL - TY_EVENTS_START] = {"tell", tell},
	[TY_EVENTS_RETRY - TY_EVENTS_START] = {"retry", ty_rpc_edge_retry},
	[TY_EVENTS_LATE - TY_EVENTS_START] = {"late", ty_rpc_edge_late},
};

const struct ty_class ty_events_class = {
	.name = "events",
	.state_size = sizeof(struct events),
	.first_type = TY_EVENTS_START,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.stop = stop,
	.refuse = refuse,
	.poll = poll_edge,
	.wait = {wait_for_events, wake},
};
