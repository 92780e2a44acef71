/* SPDX-License-Identifier: Apache-2.0
 *
 * The nng side of rpc: everything that calls nng is in rpc_socket.c. Inside of rpc only.
 *
 * Who has a slot: nng, from ty_rpc_slot_receive or ty_rpc_slot_send until its message (TY_RPC_RECEIVED, TY_RPC_SENT) is
 * handled; the rpc actor; or whoever it handed the exchange to, until TY_RPC_ANSWER is handled.
 */
#ifndef TY_ACTORS_RPC_SOCKET_H
#define TY_ACTORS_RPC_SOCKET_H

#include "rpc.h"

struct ty_rpc_slot {
	struct ty_exchange exchange; /* first: the message says which slot it is */
	nng_pipe pipe;               /* where the request came from */
	struct ty_rpc_socket *socket;
	bool sending;                /* what nng has it for: written before it is given to nng, read by its callback */

	/* The actor's. */
	struct ty_rpc_slot *chain; /* of the table of open requests, or of those that wait to receive again */
	bool listed;               /* in that table */
	bool routed;               /* counts against config->max_requests */
	bool held;                 /* came before the stop, which waits for it */
};

struct ty_rpc_socket {
	struct ty_service *service;
	nng_socket socket;
	nng_duration send_timeout_ms; /* TY_RPC_SEND_TIMEOUT_MS, but for tests */
	/* The actor's table of open requests, by client and id; made here so that its start cannot fail. */
	struct ty_rpc_slot **buckets;
	uint32_t bucket_mask;
	uint32_t count;
	struct ty_rpc_slot slots[];
};

/* Hand the slot to nng. The last thing that is done with it. */
void ty_rpc_slot_receive(struct ty_rpc_slot *slot);
/* The same, with a reply that fits `message` exactly; the message is nng's. */
void ty_rpc_slot_send(struct ty_rpc_slot *slot, nng_msg *message);

/* After TY_RPC_RECEIVED: the message, which is the caller's from now on, or null and nng's error. */
nng_msg *ty_rpc_slot_received(struct ty_rpc_slot *slot, int *error);
/* After TY_RPC_SENT: false if the client did not take it; its connection is closed then. */
bool ty_rpc_slot_sent(struct ty_rpc_slot *slot);

/* Frees the request and the parts of a reply that lie on the heap. */
void ty_rpc_slot_clear(struct ty_rpc_slot *slot);

/* Close every context; when it returns nng calls back no more. */
void ty_rpc_socket_end(struct ty_rpc_socket *socket);

/* rpc_reply.c: the exchange's reply as a message of exactly its size, null if there is no memory for it. */
nng_msg *ty_rpc_reply_pack(const struct ty_exchange *exchange, uint64_t boot);

#endif
