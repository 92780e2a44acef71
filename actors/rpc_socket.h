/* SPDX-License-Identifier: Apache-2.0
 *
 * What ty_rpc_open makes: the edge (rpc_connection.h) and the slots. Inside of rpc only.
 *
 * Who has a slot: the actor, or whoever it handed the exchange to, until TY_RPC_ANSWER is handled. One that carries no request
 * is in the free list.
 */
#ifndef TY_ACTORS_RPC_SOCKET_H
#define TY_ACTORS_RPC_SOCKET_H

#include "rpc_connection.h"

struct ty_rpc_slot {
	struct ty_exchange exchange; /* first: the message says which slot it is */

	/* The actor's. */
	struct ty_rpc_connection *connection; /* where the request came from; null: that is over, nobody wants the reply */
	struct ty_rpc_slot *next, **at;       /* of the connection's, while the request is in the house */
	struct ty_rpc_slot *chain; /* of the table of open requests, or of the free ones */
	bool listed;               /* in that table */
	bool routed;               /* counts against config->max_requests */
	bool held;                 /* came before the stop, which waits for it */
	size_t bytes;              /* of the request, as it came */
	bool away;                 /* whoever answers it has it */
	uint8_t trace_bytes;
	uint8_t trace[4 * TY_RPC_HOPS_MAX]; /* goes in front of the reply */
};

struct ty_rpc_socket {
	struct ty_service *service;
	bool admin; /* its verbs, and no engine's */
	struct ty_rpc_edge edge;
	/* The actor's table of open requests, by client and id; made here so that its start cannot fail. */
	struct ty_rpc_slot **buckets;
	uint32_t bucket_mask;
	struct ty_rpc_slot *free;
	uint32_t count;
	/* count, and one more that never leaves the actor: what is answered on the spot needs no free one. */
	struct ty_rpc_slot slots[];
};

/* Frees the request and the parts of a reply that lie on the heap. */
void ty_rpc_slot_clear(struct ty_rpc_slot *slot);

/* rpc_reply.c: the exchange's reply as a frame. Without memory it is made in *reserve, which is null then; null if that is not there, or too
 * small. What is no more than an error never is. */
struct ty_rpc_reply *ty_rpc_reply_pack(const struct ty_rpc_slot *slot, uint64_t boot, bool ipc, struct ty_rpc_reply **reserve);

#endif
