/* SPDX-License-Identifier: Apache-2.0
 *
 * The attach connections: listened to, and their end. Waits in epoll.
 */
#include "clients_state.h"

#include <assert.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/descriptors.h"
#include "base/log.h"
#include "wire/frame.h"

#define FRAMES_MAX 16          /* of one connection in one turn */

void ty_descriptor_box_unref(struct ty_descriptor_box *box)
{
	/* acq_rel: what every holder put or took happens before the last one looks */
	if (box == NULL || atomic_fetch_sub_explicit(&box->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (uint32_t i = 0; i < TY_CLIENT_FDS; i++) {
		int place = atomic_load_explicit(&box->place[i], memory_order_relaxed);

		if (place != 0)
			close(place - 1);
	}
	free(box);
}

/* Away with a descriptor that is a client's, or in whose queue there may be one. */
static void drop(struct clients *c, int fd)
{
	if (!ty_closer_take(c->closer, fd))
		ty_log(TY_LOG_ERROR, "clients", "descriptor %d of a client's stays open: too many wait to be closed", fd);
}

void clients_hang_up(struct clients *c, int fd)
{
	(void)shutdown(fd, SHUT_RDWR);
	drop(c, fd);
}

void clients_note(struct clients *c, const char *fmt, ...)
{
	int64_t now = ty_now();
	char text[1024];
	va_list args;

	if (now >= c->lines_until) {
		if (c->lines_left_out)
			ty_log(TY_LOG_INFO, "clients", "%u lines about clients that came and went are left out", c->lines_left_out);
		c->lines = c->lines_left_out = 0;
		c->lines_until = now + 1000000000;
	}
	if (c->lines == TY_CLIENTS_LINES) {
		c->lines_left_out++;
		return;
	}
	c->lines++;
	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	ty_log(TY_LOG_INFO, "clients", "%s", text);
}

/* ---- the end of a connection ------------------------------------------------------------------------------------------ */

void connection_release(struct clients *c, struct connection *conn)
{
	uint32_t index = conn->index;

	assert(conn->fd < 0 && c->connections[index] == conn);
	ty_timeline_unref(conn->timeline);
	ty_descriptor_box_unref(conn->box);
	free(conn->route);
	free(conn);
	c->connections[index] = NULL;
	c->taken--;
	c->free_index[(c->free_head + c->free_count++) % TY_MAX_CLIENTS] = (uint16_t)index;
}

void connection_end(struct clients *c, struct connection *conn, const char *why)
{
	struct ty_client_slot *slot = &c->service->client_slots[conn->index];

	if (conn->fd < 0)
		return;
	clients_note(c, "client %llu (%s, pid %u) is gone: %s", (unsigned long long)conn->number,
		conn->state == CONNECTION_ATTACHED ? "no HELLO" : slot->name, slot->pid, why);
	ty_waiter_remove(&c->waiter, conn->fd);
	clients_hang_up(c, conn->fd);
	conn->fd = -1;
	c->open--;
	atomic_store_explicit(&slot->state, 0, memory_order_release);
	switch (conn->state) {
	case CONNECTION_ATTACHED:
		connection_release(c, conn);
		break;
	case CONNECTION_JOINING: /* its route comes back first */
		break;
	case CONNECTION_JOINED:
		clients_leave(c, conn);
		break;
	default:
		assert(false);
	}
}

void connection_refuse(struct clients *c, struct connection *conn, enum ty_code code, const char *text)
{
	struct ty_attach_frame frame = {.type = TY_ATTACH_REFUSED, .refused.code = code};
	enum ty_code sent;

	if (code == TY_PROTOCOL)
		clients_count(&c->service->clients_stats.violations);
	snprintf(frame.refused.text, sizeof frame.refused.text, "%.*s", TY_ATTACH_TEXT_MAX, text);
	sent = ty_attach_send(conn->fd, &frame, -1, NULL);
	(void)sent;
	connection_end(c, conn, text);
}

void clients_settle(struct clients *c)
{
	struct ty_stop *stop = c->stop;

	if (stop == NULL || c->taken != 0 || c->engines != NULL)
		return;
	c->stop = NULL;
	stop->stopped(stop); /* it is gone after this */
}

/* ---- what clients send -------------------------------------------------------------------------------------------------- */

static void put_descriptor(struct clients *c, struct connection *conn, uint32_t number, int fd)
{
	struct ty_attach_frame frame = {.type = TY_ATTACH_DESCRIPTOR_OK, .descriptor_ok = {.number = number, .code = TY_OK}};
	struct ty_error err;
	int old = 0;

	if (ty_descriptor_closes_at_once(fd)) {
		/* release: pairs with the engine's acquire. One that is still there belongs to a REGISTER that failed: it is replaced. */
		old = atomic_exchange_explicit(&conn->box->place[number], fd + 1, memory_order_acq_rel);
	} else { /* no memory, and whoever closes it may wait for ever */
		frame.descriptor_ok.code = TY_INVALID;
		clients_count(&c->service->clients_stats.descriptors_refused);
		drop(c, fd);
	}
	if (old != 0)
		close(old - 1);
	/* a client that does not read 64 answers has no room for more: that is its end */
	if (ty_attach_send(conn->fd, &frame, -1, &err) != TY_OK)
		connection_end(c, conn, err.text);
}

/* A client that has been here before brings the page that it has. Nobody but the connection refers to ours yet. */
static bool replace_timeline(struct clients *c, struct connection *conn, int fd)
{
	struct ty_timeline *theirs = NULL;
	struct ty_error err;
	enum ty_code code;

	code = conn->hello ? ty_fail(&err, TY_PROTOCOL, "attach: TIMELINE after HELLO")
			   : ty_timeline_open(fd, &theirs, &err);
	drop(c, fd);
	if (code != TY_OK) {
		connection_refuse(c, conn, TY_PROTOCOL, err.text);
		return false;
	}
	ty_timeline_unref(conn->timeline);
	conn->timeline = theirs;
	return true;
}

/* An owner in an engine's process: what follows is between it and embedded, over this socket. */
static void hand_over(struct clients *c, struct connection *conn, int fd)
{
	const struct ty_client_slot *slot = &c->service->client_slots[conn->index];
	struct ty_embed_request *embed = NULL;
	enum ty_code sent;

	if (conn->hello)
		connection_refuse(c, conn, TY_PROTOCOL, "attach: EMBED after HELLO");
	else if (!ty_uids_have(&c->service->config->embed_uid, slot->uid))
		connection_refuse(c, conn, TY_DENIED, "this user's engines may have no owner of their own: only those of --embed-uid may");
	else if (!(embed = calloc(1, sizeof *embed)))
		connection_refuse(c, conn, TY_NO_MEMORY, "no memory for an owner");
	if (!embed) {
		drop(c, fd);
		return;
	}
	embed->msg = (struct ty_msg)TY_MSG_INIT;
	embed->fd = fd;
	embed->uid = slot->uid;
	connection_end(c, conn, "it is an engine's owner, and goes on as that");
	sent = ty_send(c->service->gpu[TY_EMBEDDED_DEVICE], &embed->msg, TY_GPU_EMBED);
	assert(sent == TY_OK); /* it outlives clients */
}

void clients_read(struct clients *c, struct connection *conn)
{
	struct ty_attach_frame frame;
	struct ty_error err;
	int fd, unwanted[TY_FRAME_FDS];
	unsigned count;

	for (int i = 0; i < FRAMES_MAX && conn->fd >= 0; i++) {
		enum ty_code code = ty_attach_recv_all(conn->fd, &frame, &fd, unwanted, &count, &err);

		while (count > 0)
			drop(c, unwanted[--count]);
		if (code == TY_BUSY)
			return;
		if (code == TY_CLOSED || code == TY_IO) {
			connection_end(c, conn, err.text);
			return; /* it may be released */
		}
		if (code == TY_OK && frame.type == TY_ATTACH_TIMELINE) {
			if (!replace_timeline(c, conn, fd))
				return;
			continue;
		}
		if (code == TY_OK && frame.type == TY_ATTACH_EMBED) {
			hand_over(c, conn, fd);
			return;
		}
		if (code != TY_OK || frame.type != TY_ATTACH_DESCRIPTOR) {
			if (code == TY_OK && fd >= 0)
				drop(c, fd);
			connection_refuse(c, conn, TY_PROTOCOL, code == TY_OK ? "attach: not a client's frame" : err.text);
			return;
		}
		uint32_t index = conn->index;

		put_descriptor(c, conn, frame.descriptor.number, fd);
		if (c->connections[index] != conn)
			return;
	}
}

/* ---- waiting ------------------------------------------------------------------------------------------------------------ */

static void wait_for_events(void *self, int64_t deadline)
{
	struct clients *c = self;
	int64_t left = deadline == TY_NEVER ? -1 : deadline - ty_runtime_now(c->service->rt);

	if (deadline == TY_NEVER || left > 0)
		ty_waiter_wait(&c->waiter, left);
}

static void wake(void *self)
{
	struct clients *c = self;

	ty_waiter_wake(&c->waiter);
}

/* Connections that do not say HELLO; returns when the next one is due. */
static int64_t expire_connections(struct clients *c, int64_t now)
{
	int64_t next = TY_NEVER;
	uint32_t left = c->taken;

	for (uint32_t i = 0; left > 0 && i < TY_MAX_CLIENTS; i++) {
		struct connection *conn = c->connections[i];

		if (conn == NULL)
			continue;
		left--;
		if (conn->state != CONNECTION_ATTACHED || conn->hello)
			continue;
		if (conn->hello_by <= now)
			connection_refuse(c, conn, TY_TIMEOUT, "no HELLO in time");
		else if (conn->hello_by < next)
			next = conn->hello_by;
	}
	return next;
}

static int64_t poll_connections(void *self, int64_t now)
{
	struct clients *c = self;
	const struct epoll_event *events;
	int n = ty_waiter_take(&c->waiter, &events);
	int64_t next, other;

	for (int i = 0; i < n; i++) {
		uint64_t what = events[i].data.u64;

		if (what == CLIENTS_EVENT_LISTENER) {
			if (c->accepting)
				clients_accept(c);
		} else if (c->connections[what] != NULL && c->connections[what]->fd >= 0) {
			clients_read(c, c->connections[what]);
		}
	}
	if (c->accept_again <= now && !c->stopping) {
		c->accept_again = TY_NEVER;
		clients_set_accepting(c, true);
	}
	next = clients_expire_hellos(c, now); /* first: whoever said them may say another, for so long */
	other = expire_connections(c, now);
	if (other < next)
		next = other;
	if (c->accept_again < next)
		next = c->accept_again;
	other = clients_expire_engines(c, now);
	if (other < next)
		next = other;
	clients_settle(c);
	return n == TY_WAITER_EVENTS ? now : next;
}

/* ---- life --------------------------------------------------------------------------------------------------------------- */

static void on_start(void *self, struct ty_msg *msg)
{
	struct clients *c = self;

	(void)msg;
	if (!c->stopping)
		clients_set_accepting(c, true);
}

static void on_stop(void *self, struct ty_msg *msg)
{
	struct clients *c = self;

	assert(!c->stopping);
	c->stopping = true;
	c->stop = ty_container_of(msg, struct ty_stop, msg);
	c->accepting = false;
	c->accept_again = TY_NEVER;
	ty_waiter_remove(&c->waiter, c->socket->listener.fd);
	ty_unix_listener_close(&c->socket->listener, c->socket->listener.bare ? -1 : c->closer);
	clients_expire_hellos(c, ty_now());
	clients_expire_engines(c, ty_now());
	for (uint32_t i = 0; i < TY_MAX_CLIENTS; i++)
		if (c->connections[i] != NULL && c->connections[i]->fd >= 0)
			connection_refuse(c, c->connections[i], TY_STOPPING, "the service is stopping");
	clients_settle(c);
}

static enum ty_code start(void *self, void *arg)
{
	const struct ty_clients_arg *a = arg;
	struct clients *c = self;
	struct ty_error err;

	c->service = a->service;
	c->socket = a->socket;
	c->waiting_end = &c->waiting;
	c->accept_again = TY_NEVER;
	c->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (ty_waiter_open(&c->waiter, &err) != TY_OK) {
		ty_log(TY_LOG_ERROR, "clients", "%s", err.text);
		abort(); /* nobody could ever join, and nobody would be told */
	}
	for (uint32_t i = 0; i < TY_MAX_CLIENTS; i++) {
		c->free_index[i] = (uint16_t)i;
		/* a number of an earlier service names nobody in this one */
		c->generation[i] = randombytes_random();
	}
	if (ty_closer_open(&c->closer, &err) != TY_OK) {
		ty_log(TY_LOG_ERROR, "clients", "%s", err.text);
		abort(); /* as above */
	}
	c->free_count = TY_MAX_CLIENTS;
	return TY_OK;
}

static void stop(void *self)
{
	struct clients *c = self;

	/* After TY_CLIENTS_STOP nobody is left; without it (a start that failed half way) connections just end. */
	for (uint32_t i = 0; i < TY_MAX_CLIENTS; i++) {
		struct connection *conn = c->connections[i];

		if (conn == NULL)
			continue;
		assert(conn->state == CONNECTION_ATTACHED);
		connection_end(c, conn, "the service is stopping");
	}
	assert(c->engines == NULL && c->waiting == NULL);
	ty_closer_close(c->closer);
	ty_waiter_close(&c->waiter);
	if (c->reserve_fd >= 0)
		close(c->reserve_fd);
}

/* What comes after the end. Devices and engines have their messages in their own state. */
static void refuse(void *self, struct ty_msg *msg)
{
	(void)self;
	if (msg->type == TY_CLIENTS_HELLO) {
		ty_exchange_refuse(ty_container_of(msg, struct ty_exchange, msg), TY_STOPPING, "the service is stopping");
	} else if (msg->type == TY_CLIENTS_ROUTED) {
		struct ty_route *route = ty_container_of(msg, struct ty_route, msg);

		if (route->hello != NULL)
			ty_exchange_refuse(route->hello, TY_STOPPING, "the service is stopping");
		free(route);
	}
}

static const struct ty_handler handlers[] = {
	[TY_CLIENTS_START - TY_CLIENTS_START] = {"start", on_start},
	[TY_CLIENTS_HELLO - TY_CLIENTS_START] = {"hello", clients_on_hello},
	[TY_CLIENTS_ROUTED - TY_CLIENTS_START] = {"routed", clients_on_routed},
	[TY_CLIENTS_DEVICE - TY_CLIENTS_START] = {"device", clients_on_device},
	[TY_CLIENTS_ENGINE_GONE - TY_CLIENTS_START] = {"engine gone", clients_on_engine_gone},
	[TY_CLIENTS_STOP - TY_CLIENTS_START] = {"stop", on_stop},
};

const struct ty_class ty_clients_class = {
	.name = "clients",
	.state_size = sizeof(struct clients),
	.first_type = TY_CLIENTS_START,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.stop = stop,
	.refuse = refuse,
	.poll = poll_connections,
	.wait = {wait_for_events, wake},
};
