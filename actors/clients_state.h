/* SPDX-License-Identifier: Apache-2.0
 *
 * What the clients actor's files share. All of it is the actor's own.
 */
#ifndef TY_ACTORS_CLIENTS_STATE_H
#define TY_ACTORS_CLIENTS_STATE_H

#include <limits.h>
#include <sys/stat.h>

#include "base/waiter.h"
#include "clients.h"
#include "engine.h"
#include "service.h"
#include "unix_listener.h"
#include "wire/attach.h"

#define CLIENTS_EVENT_LISTENER UINT32_MAX /* in epoll's data; else it is a connection's index */

struct ty_clients_socket {
	struct ty_unix_listener listener;
};

/* An engine actor that has members, or had. */
struct engine_entry {
	uint8_t id[16];
	struct ty_identity identity;
	struct ty_actor *actor;
	uint32_t members;
	uint64_t joins;            /* members that it was sent, ever */
	struct ty_engine_end *end; /* the engine's, when it is idle: it is kept until `until` */
	int64_t until;
	struct engine_entry *next; /* the one that was spawned last is first */
};

enum connection_state {
	CONNECTION_FREE,
	CONNECTION_ATTACHED, /* greeted */
	CONNECTION_JOINING,  /* HELLO is fine; its route is on the way */
	CONNECTION_JOINED,
	CONNECTION_LEAVING,  /* over; the end of its route is on the way */
};

struct connection {
	enum connection_state state;
	int fd;      /* -1: over */
	uint32_t index;
	uint64_t number;
	uint8_t token[TY_ATTACH_TOKEN_BYTES];
	bool hello;       /* one is being answered, or was */
	int64_t hello_by; /* else the connection ends then */
	struct ty_timeline *timeline;
	struct ty_descriptor_box *box;
	struct engine_entry *engine; /* JOINING and later */
	struct ty_member *member;    /* the engine's; its address is ours for LEAVE */
	struct ty_route *route;      /* JOINED: kept for the end */
};

struct clients {
	struct ty_service *service;
	struct ty_clients_socket *socket;
	struct ty_waiter waiter;
	int reserve_fd;
	int closer; /* closes what clients sent, and what that may lie in */
	bool accepting;      /* the listener is in the epoll set */
	int64_t accept_again; /* when it is not for want of descriptors: when to try, else TY_NEVER */

	struct connection *connections[TY_MAX_CLIENTS]; /* null: free */
	uint32_t open;  /* whose descriptor is open: against max_clients */
	uint32_t taken; /* entries of connections[] */
	/* Free indices, oldest first: a slot that metrics may still read is used again last. */
	uint16_t free_index[TY_MAX_CLIENTS];
	uint32_t free_head, free_count;
	uint64_t generation[TY_MAX_CLIENTS];

	struct engine_entry *engines;
	uint32_t idle; /* of them */
	uint32_t devices_known;
	bool device_open[TY_MAX_DEVICES];
	struct ty_exchange *waiting, **waiting_end; /* HELLOs, until every device is open or failed */
	struct ty_stop *stop;
	bool stopping;
	int64_t lines_until; /* the second that `lines` were written in ends */
	uint32_t lines, lines_left_out;
};

/* One more; returns how many there are. */
static inline uint64_t clients_count(_Atomic uint64_t *counter)
{
	return atomic_fetch_add_explicit(counter, 1, memory_order_relaxed) + 1;
}

/* clients.c */
/* About a client that comes or goes; TY_CLIENTS_LINES a second. */
TY_PRINTF(2, 3) void clients_note(struct clients *c, const char *fmt, ...);
/* Takes what a connection's client has written so far. It may be over afterwards, and released. */
void clients_read(struct clients *c, struct connection *conn);
void connection_end(struct clients *c, struct connection *conn, const char *why);
/* A violation, or what it may not: say why, in case that anybody reads it, and end it. */
void connection_refuse(struct clients *c, struct connection *conn, enum ty_code code, const char *text);
/* The peer sees the end at once, whenever the last of it is closed. */
void clients_hang_up(struct clients *c, int fd);
/* Nothing refers to it any more. */
void connection_release(struct clients *c, struct connection *conn);
/* Has everything ended that STOP waits for? Then say so. */
void clients_settle(struct clients *c);

/* clients_accept.c */
/* Whether connections that come are looked at. */
void clients_set_accepting(struct clients *c, bool on);
/* Some of those that have come. */
void clients_accept(struct clients *c);

/* clients_hello.c */
void clients_on_hello(void *self, struct ty_msg *msg);
void clients_on_routed(void *self, struct ty_msg *msg);
void clients_on_device(void *self, struct ty_msg *msg);
void clients_on_engine_gone(void *self, struct ty_msg *msg);
/* The connection of a member is over: take its route back, then LEAVE. */
void clients_leave(struct clients *c, struct connection *conn);
/* HELLOs that wait: those whose deadline has passed are refused (all of them when the service stops). Returns when the next one
 * is due. */
int64_t clients_expire_hellos(struct clients *c, int64_t now);
/* Idle engines: those whose time is over end (all of them when the service stops). Returns when the next one is due. */
int64_t clients_expire_engines(struct clients *c, int64_t now);

#endif
