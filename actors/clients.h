/* SPDX-License-Identifier: Apache-2.0
 *
 * clients: the attach socket. Accepts connections, checks credentials, hands out timeline pages, takes descriptors, ties
 * HELLO to connections, and knows at once when a client's connection ends.
 */
#ifndef TY_ACTORS_CLIENTS_H
#define TY_ACTORS_CLIENTS_H

#include "gpu.h"
#include "rpc.h"
#include "cache/key.h"

/* One slot per client; the number in the wire's client field is (generation << 16 | index + 1). Written by clients
 * before `state` says so, and by its engine (the four counters, of the whole engine), read by metrics. */
struct ty_client_slot {
	_Atomic uint32_t state;     /* 0 free, 1 attached, 2 joined; release / acquire */
	uint64_t number;
	char name[65], tenant[256], model[256];
	uint32_t pid, uid;
	_Atomic uint32_t registrations, sessions, operations; /* its engine's; relaxed */
	_Atomic uint64_t leases;
};

#define TY_CLIENTS_LINGER_NS TY_FINISHED_NS /* an engine without clients is kept for so long ... */
#define TY_CLIENTS_LINGER_MAX 64            /* ... and so many of them: then the one that is to end next ends */
#define TY_CLIENTS_HELLO_NS 30000000000     /* a connection that has not said HELLO for so long ends */

#define TY_CLIENTS_LINES 100 /* of the log in a second, about clients that come and go: whoever does so in a loop fills no disk */

/* Written by clients (relaxed), read by metrics. */
struct ty_clients_stats {
	_Atomic uint64_t refused;     /* attach connections that were told so: not allowed, too many */
	_Atomic uint64_t dropped;     /* and those for which there was no descriptor */
	_Atomic uint64_t violations;  /* that were ended for what they said */
	_Atomic uint64_t descriptors_refused; /* that clients sent, and that are no memory */
};

#define TY_CLIENT_FDS 1024 /* descriptors that a client may have sent and not yet used */

/* A process of an engine, as the engine actor learns of it. Allocated by clients; travels to the engine with JOIN, stays
 * there, and is freed by the engine after LEAVE (which the same object carries: clients keeps its address for that). */
struct ty_member {
	struct ty_msg msg;   /* of JOIN */
	struct ty_msg leave; /* of LEAVE */
	uint64_t client;
	struct ty_client_slot *slot;
	struct ty_timeline *timeline; /* a reference of the member's */
	struct ty_descriptor_box *descriptors; /* shared with clients, see there */
	uint32_t weight; /* 1..TY_WEIGHT_MAX */
	struct ty_member *next; /* the engine's */
};

/* Descriptors that arrived over an attach connection and wait for REGISTER. clients puts, the engine takes; each place is
 * one atomic word (0 = empty, else descriptor + 1), so neither waits for the other. Closed with its last reference. */
struct ty_descriptor_box {
	_Atomic uint32_t refs;
	_Atomic int place[TY_CLIENT_FDS]; /* put: release; take: exchange, acquire */
};
void ty_descriptor_box_unref(struct ty_descriptor_box *box);

/* The attach socket, apart from the actor, so that an address that is taken fails the start of the service:
 *
 *   ty_clients_listen  before any actor is spawned; clients may connect from here on, and wait to be greeted
 *   ty_spawn           ty_clients_class, dedicated, with a struct ty_clients_arg
 *   TY_CLIENTS_START   accepting begins
 *   TY_CLIENTS_STOP    nobody is accepted any more, every connection ends as if its client had died; `stopped` is called when
 *                      no engine is left
 *   ty_clients_close   after ty_runtime_destroy (or after ty_clients_listen, if nothing was spawned) */
struct ty_clients_socket;

/* Listen on service->config->attach (its directory is made if missing, 0700; the socket is 0600; what a dead server left is
 * removed). TY_EXISTS: somebody listens there, or it is no socket. TY_INVALID, TY_IO, TY_NO_MEMORY. The text names the path. */
TY_MUST_USE enum ty_code ty_clients_listen(struct ty_service *service, struct ty_clients_socket **out, struct ty_error *err);
void ty_clients_close(struct ty_clients_socket *socket); /* null is allowed */

struct ty_clients_arg { /* copied by the actor's start */
	struct ty_service *service;
	struct ty_clients_socket *socket;
};
extern const struct ty_class ty_clients_class; /* arg: struct ty_clients_arg */

#endif
