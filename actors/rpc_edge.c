/* SPDX-License-Identifier: Apache-2.0
 *
 * Who comes in: ty_rpc_edge_poll() hears from epoll, accept_some() takes those who connect, admit() looks who it is and whether there
 * is room, and rpc_connection.c goes on with it.
 */
#include "rpc_connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/descriptors.h"
#include "service.h"

#define RETRY_NS 100000000 /* after an error of accept, before it is tried again */
#define SPIN_LEAST_US 10   /* with less a look or two would be all */
#define ACCEPT_AT_ONCE 16  /* connections; then the others have their turn */

static void count(_Atomic uint64_t *counter, uint64_t more)
{
	atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

/* ---- accepting ------------------------------------------------------------------------------------------------------ */

static struct ty_rpc_connection *take_free(struct ty_rpc_edge *edge)
{
	struct ty_rpc_connection *c = edge->free;

	if (c) {
		edge->free = c->next_free;
		return c;
	}
	c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	c->edge = edge;
	c->stream.fd = -1;
	c->late_at = TY_NEVER;
	c->next_of_all = edge->all;
	edge->all = c;
	return c;
}

/* The socket's mode keeps others out already; its folder may have been changed under it. */
static bool may_connect(const struct ty_rpc_edge *edge, int fd, uint64_t *uid)
{
	struct ucred peer;
	socklen_t length = sizeof peer;

	if (edge->transport != TY_RPC_IPC)
		return true;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
		return false;
	*uid = peer.uid;
	return edge->private ? peer.uid == 0 || peer.uid == geteuid() : ty_config_allows_uid(edge->service->config, peer.uid);
}

/* Another user may have as many connections as are free, and no more. Nobody knows whose those over tcp are. */
static bool has_its_share(const struct ty_rpc_edge *edge, uint64_t uid)
{
	uint32_t its = 0;

	if (edge->transport != TY_RPC_IPC || uid == 0 || uid == geteuid())
		return false;
	for (const struct ty_rpc_connection *c = edge->all; c; c = c->next_of_all)
		its += c->stream.fd >= 0 && c->uid == uid;
	return its > 0 && its >= edge->limits.connections - edge->open;
}

static void refuse(struct ty_rpc_edge *edge, int fd)
{
	struct ty_rpc_stream stream = {.fd = fd, .closer = edge->closer};

	count(&edge->service->rpc_stats.connections_refused, 1);
	ty_rpc_stream_close(&stream, edge->waiter.epoll_fd);
}

static void admit(struct ty_rpc_edge *edge, int fd)
{
	struct ty_rpc_stats *stats = &edge->service->rpc_stats;
	struct ty_rpc_reply *greeting = NULL;
	struct ty_rpc_connection *c = NULL;
	uint64_t uid = UINT64_MAX;

	count(&stats->connections_accepted, 1);
	if (!may_connect(edge, fd, &uid)) {
		ty_rpc_edge_note(edge, TY_LOG_WARN, "refusing a connection of user %llu", (unsigned long long)uid);
		refuse(edge, fd);
		return;
	}
	if (edge->open >= edge->limits.connections || has_its_share(edge, uid)) {
		ty_rpc_edge_note(edge, TY_LOG_WARN, "refusing a connection: %u are open, and at most %u", edge->open, edge->limits.connections);
		refuse(edge, fd);
		return;
	}
	greeting = malloc(sizeof *greeting + TY_RPC_RESERVE_BYTES);
	if (greeting)
		c = take_free(edge);
	if (!c) {
		ty_rpc_edge_note(edge, TY_LOG_WARN, "refusing a connection: no memory for it");
		free(greeting);
		refuse(edge, fd);
		return;
	}
	edge->open++;
	atomic_fetch_add_explicit(&stats->connections, 1, memory_order_relaxed);
	ty_rpc_connection_begin(c, fd, uid, greeting);
}

static void accept_next(struct ty_rpc_edge *edge)
{
	if (!ty_waiter_add(&edge->waiter, edge->listener.fd, EPOLLIN, (uintptr_t)edge))
		ty_timer_start(&edge->retry, edge->protocol->retry, ty_now() + RETRY_NS);
}

/* Whoever it was is gone; the next one may come in. These are the ones that the kernel passes on from the network. */
static bool is_the_peers(int error)
{
	return error == EINTR || error == ECONNABORTED || error == EPROTO || error == ENETDOWN || error == ENOPROTOOPT || error == EHOSTDOWN ||
		error == ENONET || error == EHOSTUNREACH || error == EOPNOTSUPP || error == ENETUNREACH || error == EPERM;
}

static void accept_some(struct ty_rpc_edge *edge)
{
	for (int i = 0; i < ACCEPT_AT_ONCE; i++) {
		int fd = accept4(edge->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			admit(edge, fd);
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			return;
		} else if (!is_the_peers(errno)) {
			/* No descriptors, no memory: the one that waits stays in the backlog, and epoll would tell of it without end. */
			count(&edge->service->rpc_stats.receive_errors, 1);
			ty_rpc_edge_note(edge, TY_LOG_WARN, "accept: %s; trying again", strerror(errno));
			ty_waiter_remove(&edge->waiter, edge->listener.fd);
			ty_timer_start(&edge->retry, edge->protocol->retry, ty_now() + RETRY_NS);
			return;
		}
	}
}

void ty_rpc_edge_retry(void *actor, struct ty_msg *msg)
{
	(void)actor;
	accept_next(ty_container_of(ty_container_of(msg, struct ty_timer, msg), struct ty_rpc_edge, retry));
}

/* ---- waiting -------------------------------------------------------------------------------------------------------- */

void ty_rpc_edge_wait(struct ty_rpc_edge *edge, int64_t deadline)
{
	int64_t left = deadline == TY_NEVER ? -1 : deadline - ty_runtime_now(edge->service->rt);

	if (deadline == TY_NEVER || left > 0)
		ty_waiter_wait(&edge->waiter, left);
}

void ty_rpc_edge_wake(struct ty_rpc_edge *edge)
{
	ty_waiter_wake(&edge->waiter);
}

static bool is_handshake(struct ty_rpc_edge *edge, const struct epoll_event *event)
{
	const struct ty_rpc_connection *c = (void *)(uintptr_t)event->data.u64;

	return event->data.u64 != (uintptr_t)edge && c->stream.fd >= 0 && !c->secure;
}

/* False: there is more to do at once. A handshake takes milliseconds of CPU time, and strangers may ask for as many as they like: each
 * turn has one, so that nobody else waits for more; and not always the first, which could be the same each time. */
static bool serve(struct ty_rpc_edge *edge, const struct epoll_event *events, int count)
{
	uint32_t handshakes = 0, turn = 0;

	for (int i = 0; edge->tls && i < count; i++)
		handshakes += is_handshake(edge, &events[i]);
	if (handshakes)
		turn = edge->handshake_turn++ % handshakes;
	for (int i = 0; i < count; i++) {
		void *what = (void *)(uintptr_t)events[i].data.u64;
		struct ty_rpc_connection *c = what;

		/* A connection that ended meanwhile may be another's by now, of which nothing is known: its socket says what there is. */
		if (what == edge)
			accept_some(edge);
		else if (c->stream.fd >= 0 && (!is_handshake(edge, &events[i]) || turn-- == 0))
			ty_rpc_connection_event(c, events[i].events);
	}
	return count < TY_WAITER_EVENTS && handshakes <= 1;
}

int64_t ty_rpc_edge_poll(struct ty_rpc_edge *edge, int64_t now)
{
	const struct epoll_event *events;
	int n = ty_waiter_take(&edge->waiter, &events);

	return serve(edge, events, n) ? TY_NEVER : now;
}

/* ---- life ----------------------------------------------------------------------------------------------------------- */

void ty_rpc_edge_start(struct ty_rpc_edge *edge, const struct ty_rpc_calls *calls, void *owner)
{
	edge->calls = calls;
	edge->owner = owner;
	if (edge->service->spin_us >= SPIN_LEAST_US)
		edge->waiter.spin_ns = (int64_t)edge->service->spin_us * 1000;
	accept_next(edge);
}

void ty_rpc_edge_stop(struct ty_rpc_edge *edge)
{
	ty_waiter_remove(&edge->waiter, edge->listener.fd);
	ty_unix_listener_close(&edge->listener, edge->closer);
	for (struct ty_rpc_connection *c = edge->all; c; c = c->next_of_all)
		ty_rpc_stream_close(&c->stream, edge->waiter.epoll_fd);
}

void ty_rpc_edge_free(struct ty_rpc_edge *edge)
{
	ty_rpc_edge_stop(edge); /* it may never have begun */
	while (edge->all) {
		struct ty_rpc_connection *c = edge->all;

		edge->all = c->next_of_all;
		while (c->first) {
			struct ty_rpc_reply *reply = c->first;

			c->first = reply->next;
			free(reply);
		}
		free(c->reserve);
		free(c->body);
		free(c);
	}
	ty_waiter_close(&edge->waiter);
	ty_tls_close(edge->tls);
	if (edge->closer >= 0)
		ty_closer_close(edge->closer);
}
