/* SPDX-License-Identifier: Apache-2.0
 *
 * Whoever comes to the attach socket: refused, or greeted, with a number, a token and a page of its own.
 */
#include "clients_state.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/descriptors.h"
#include "base/log.h"

#define ACCEPTS_MAX 16         /* of one turn */
#define ACCEPT_PAUSE_NS 100000000 /* out of descriptors, the reserve too */
#define NUMBER_BITS 48         /* of a generation, above the index */

void clients_set_accepting(struct clients *c, bool on)
{
	if (on == c->accepting)
		return;
	if (!on)
		ty_waiter_remove(&c->waiter, c->socket->listener.fd);
	if (!on || ty_waiter_add(&c->waiter, c->socket->listener.fd, EPOLLIN, CLIENTS_EVENT_LISTENER)) {
		c->accepting = on;
		c->accept_again = TY_NEVER;
	} else {
		ty_log(TY_LOG_ERROR, "clients", "attach: epoll_ctl: %s", strerror(errno));
		c->accept_again = ty_now() + ACCEPT_PAUSE_NS;
	}
}

static bool is_power_of_two(uint64_t n)
{
	return (n & (n - 1)) == 0;
}

static void refuse_new(struct clients *c, int fd, enum ty_code code, const char *text)
{
	struct ty_attach_frame frame = {.type = TY_ATTACH_REFUSED, .refused.code = code};
	uint64_t refused = clients_count(&c->service->clients_stats.refused);
	enum ty_code sent;

	snprintf(frame.refused.text, sizeof frame.refused.text, "%.*s", TY_ATTACH_TEXT_MAX, text);
	sent = ty_attach_send(fd, &frame, -1, NULL);
	(void)sent; /* it hears the end of the connection in any case */
	clients_hang_up(c, fd);
	/* the first, and then ever more seldom: whoever is refused tries again */
	if (is_power_of_two(refused))
		ty_log(TY_LOG_WARN, "clients", "refused a connection (%llu so far): %s", (unsigned long long)refused, text);
}

/* The page, mapped here; *fd is for the client. */
static struct ty_timeline *make_timeline(int *fd, struct ty_error *err)
{
	struct ty_timeline *t = NULL;

	if (ty_attach_timeline_create(fd, err) == TY_OK && ty_timeline_open(*fd, &t, err) != TY_OK) {
		close(*fd);
		*fd = -1;
	}
	return t;
}

static void fill_slot(struct clients *c, const struct connection *conn, const struct ucred *who)
{
	struct ty_client_slot *slot = &c->service->client_slots[conn->index];

	slot->number = conn->number;
	slot->name[0] = slot->tenant[0] = slot->model[0] = '\0';
	slot->pid = (uint32_t)who->pid;
	slot->uid = who->uid;
	atomic_store_explicit(&slot->registrations, 0, memory_order_relaxed);
	atomic_store_explicit(&slot->sessions, 0, memory_order_relaxed);
	atomic_store_explicit(&slot->operations, 0, memory_order_relaxed);
	atomic_store_explicit(&slot->leases, 0, memory_order_relaxed);
	/* pairs with metrics' acquire */
	atomic_store_explicit(&slot->state, 1, memory_order_release);
}

static struct connection *make_connection(struct clients *c, int fd, int *timeline_fd, struct ty_error *err)
{
	struct connection *conn = calloc(1, sizeof *conn);

	if (conn == NULL) {
		ty_fail(err, TY_NO_MEMORY, "no memory for a client");
		return NULL;
	}
	conn->box = calloc(1, sizeof *conn->box);
	conn->timeline = make_timeline(timeline_fd, err);
	if (conn->box == NULL || conn->timeline == NULL) {
		if (conn->box == NULL)
			ty_fail(err, TY_NO_MEMORY, "no memory for a client");
		if (conn->timeline != NULL)
			close(*timeline_fd);
		ty_timeline_unref(conn->timeline);
		free(conn->box);
		free(conn);
		return NULL;
	}
	atomic_init(&conn->box->refs, 1);
	conn->state = CONNECTION_ATTACHED;
	conn->fd = fd;
	conn->index = c->free_index[c->free_head];
	c->free_head = (c->free_head + 1) % TY_MAX_CLIENTS;
	c->free_count--;
	c->connections[conn->index] = conn;
	c->taken++;
	c->open++;
	c->generation[conn->index] = (c->generation[conn->index] + 1) & ((UINT64_C(1) << NUMBER_BITS) - 1);
	conn->number = c->generation[conn->index] << 16 | (conn->index + 1);
	conn->hello_by = ty_now() + TY_CLIENTS_HELLO_NS;
	randombytes_buf(conn->token, sizeof conn->token);
	return conn;
}

static void greet(struct clients *c, int fd, const struct ucred *who)
{
	struct ty_attach_frame frame = {.type = TY_ATTACH_WELCOME, .welcome.boot = c->service->boot};
	struct connection *conn;
	struct ty_error err;
	enum ty_code code;
	int page;

	conn = make_connection(c, fd, &page, &err);
	if (conn == NULL) {
		refuse_new(c, fd, err.code, err.text);
		return;
	}
	ty_descriptors_allow(fd, true);
	fill_slot(c, conn, who);
	memcpy(frame.welcome.token, conn->token, sizeof conn->token);
	code = ty_attach_send(fd, &frame, page, &err);
	close(page);
	if (code != TY_OK)
		connection_end(c, conn, err.text);
	else if (!ty_waiter_add(&c->waiter, fd, EPOLLIN | EPOLLRDHUP, conn->index))
		connection_refuse(c, conn, TY_IO, "attach: epoll_ctl failed");
}

/* No descriptor is free, which is said whether anybody is there or not: take the connection with the one in reserve, so that it does
 * not stay in the backlog and wake us for ever, and end it. 0, or why not. */
static int accept_and_drop(struct clients *c)
{
	int fd = -1, error = EMFILE;

	if (c->reserve_fd >= 0) {
		close(c->reserve_fd);
		fd = accept4(c->socket->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		error = fd >= 0 ? 0 : errno;
		if (fd >= 0 && c->socket->listener.bare)
			close(fd); /* nothing can lie in its queue */
		else if (fd >= 0)
			clients_hang_up(c, fd);
	}
	c->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC); /* again, if somebody was faster the last time */
	if (fd >= 0) {
		uint64_t dropped = clients_count(&c->service->clients_stats.dropped);

		if (is_power_of_two(dropped))
			ty_log(TY_LOG_ERROR, "clients", "out of descriptors: %llu connections dropped so far", (unsigned long long)dropped);
	}
	return error;
}

/* Another user's processes may together have as many clients as are free, and no more: so they leave room for others, as engines do with
 * requests. Our own user's and root's may have all. */
static bool has_its_share(const struct clients *c, uid_t uid)
{
	uint32_t its = 0, left = c->taken;

	if (uid == 0 || uid == geteuid())
		return false;
	for (uint32_t i = 0; left > 0 && i < TY_MAX_CLIENTS; i++) {
		const struct connection *conn = c->connections[i];

		if (conn == NULL)
			continue;
		left--;
		its += conn->fd >= 0 && c->service->client_slots[i].uid == uid;
	}
	return its > 0 && its >= c->service->config->max_clients - c->open;
}

void clients_accept(struct clients *c)
{
	for (int i = 0; i < ACCEPTS_MAX; i++) {
		struct ucred who = {0};
		socklen_t length = sizeof who;
		int fd = accept4(c->socket->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), error = fd < 0 ? errno : 0;

		if (error == EMFILE || error == ENFILE) {
			error = accept_and_drop(c);
			if (error == 0)
				continue;
		}
		if (error != 0) {
			if (error == EINTR || error == ECONNABORTED)
				continue;
			if (error == EAGAIN || error == EWOULDBLOCK)
				return;
			clients_set_accepting(c, false); /* not even that: do not spin */
			c->accept_again = ty_now() + ACCEPT_PAUSE_NS;
			return;
		}
		if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length) != 0 || length != sizeof who)
			refuse_new(c, fd, TY_DENIED, "no credentials");
		else if (!ty_config_allows_uid(c->service->config, who.uid))
			refuse_new(c, fd, TY_DENIED, "this user may not attach: only the service's own, root and those of --allow-uid may");
		else if (c->open >= c->service->config->max_clients)
			refuse_new(c, fd, TY_LIMIT, "max_clients are attached");
		else if (has_its_share(c, who.uid))
			refuse_new(c, fd, TY_LIMIT, "max_clients: this user's processes have as many as are free");
		else if (c->free_count == 0)
			refuse_new(c, fd, TY_LIMIT, "too many clients are leaving: try again");
		else
			greet(c, fd, &who);
	}
}
