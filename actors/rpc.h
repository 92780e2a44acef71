/* SPDX-License-Identifier: Apache-2.0
 *
 * rpc: the edge, where clients' REQ sockets connect. Decodes requests, routes each to the actor that answers it, sends the
 * reply. Answers PING itself.
 */
#ifndef TY_ACTORS_RPC_H
#define TY_ACTORS_RPC_H

#include <tyer/actor.h>

#include "messages.h"
#include "wire/tyer.pb-c.h"

struct ty_service;

/* A place for a request: made at start, one per request that may be in the house. It travels to whoever
 * answers and comes back as TY_RPC_ANSWER; `request` is readable and `reply` writable by whoever has it. */
struct ty_exchange {
	struct ty_msg msg;
	struct ty_actor *rpc; /* whoever has the exchange has a reference through it, until ty_exchange_answer */
	Tyer__V1__Request *request;
	int64_t received; /* runtime's clock */
	int64_t deadline;
	bool hello_done;  /* rpc's */

	/* The reply. The verb's message is one of these, by the request's verb; sent only when code is TY_OK. */
	enum ty_code code;
	struct ty_error error;
	bool blocks_in_use; /* of a failed RETRIEVE or STORE: its copy may still be under way */
	union {
		Tyer__V1__StatusReply *status; /* allocated with protobuf-c's default allocator, freed by rpc */
		Tyer__V1__HelloReply *hello;   /* likewise */
		Tyer__V1__OperationsReply *operations; /* likewise; CANCEL's too */
		ProtobufCMessage *message;     /* likewise: of the administration's verbs, its reply's type is the verb's */
		struct { uint32_t registration, device; uint64_t chunk_bytes; uint8_t fingerprint[32]; } registered;
		struct { uint32_t chunks, hits; } lookup;
		struct { uint32_t chunks; } retrieve;
		struct { uint32_t stored, present, dropped; } store;
		struct { uint32_t released; } end_session;
	} reply;

	struct ty_exchange *next; /* of whoever has it */
};

/* Finish: set the code (and the text, when it is not TY_OK) and send it home. Whoever has it, once; any thread. The exchange
 * is gone with the call. Its reply is zeroed before it is handed out. */
void ty_exchange_answer(struct ty_exchange *exchange);
void ty_exchange_refuse(struct ty_exchange *exchange, enum ty_code code, const char *fmt, ...) TY_PRINTF(3, 4);

/* A client's number and the engine actor its requests go to. Allocated by clients; rpc holds a reference to `engine`
 * while the route stands. Sent back as TY_CLIENTS_ROUTED. */
struct ty_route {
	struct ty_msg msg;
	uint64_t client;
	struct ty_actor *engine; /* null: the client is gone */
	uint32_t uid;            /* whose process it is */
	struct ty_exchange *hello; /* clients': answered when the route stands */
};

/* Written by rpc (relaxed), read by metrics. */
#define TY_VERBS 32 /* by the oneof's field number; 0: the request could not be read, or its verb is unknown */
#define TY_LATENCY_BUCKETS 8
struct ty_rpc_stats {
	_Atomic uint64_t requests[TY_VERBS];
	_Atomic uint64_t replies[TY_CODE_COUNT];
	_Atomic uint64_t malformed, latency_us_sum[TY_VERBS];
	_Atomic uint64_t latency[TY_VERBS][TY_LATENCY_BUCKETS]; /* answers that took at most ty_latency_bound_us[i] */
	_Atomic uint64_t receive_errors; /* accepts and receives that failed, other than by the client's close */
	_Atomic uint64_t unsent;         /* replies that the client did not take in time, or without memory for them: its connection was closed */
	_Atomic uint32_t open;           /* requests not answered yet */
	_Atomic uint32_t connections;
	_Atomic uint64_t connections_accepted;
	_Atomic uint64_t connections_refused; /* of those: too many, or no memory for it */
	_Atomic uint64_t connections_crowded; /* of those: closed because frames on their way in took too much memory */
	_Atomic uint64_t connections_broken;  /* of those: closed because what came was not the protocol */
};
extern const uint64_t ty_latency_bound_us[TY_LATENCY_BUCKETS]; /* the last one is UINT64_MAX */

struct ty_stop {
	struct ty_msg msg;
	void (*stopped)(struct ty_stop *stop); /* called once by the actor that was asked; must not block */
	void *user;
};

/* The listening socket, its connections, and the exchanges. Apart from the actor, so that an address that is taken fails
 * the start of the service, and so that an answer that comes after the actor's end finds its exchange still there:
 *
 *   ty_rpc_open     before any actor is spawned; clients may connect from here on, what they send waits
 *   ty_spawn        ty_rpc_class with the socket as its argument
 *   TY_RPC_START    reading begins
 *   (the runtime stops the actor: connections are closed, nng calls back no more)
 *   ty_rpc_close    after ty_runtime_destroy (or after ty_rpc_open, if nothing was spawned)
 *
 * service->config is read by ty_rpc_open; service->rt, boot, clients and metrics by the actor. */
struct ty_rpc_socket;

#define TY_RPC_ADMIN_REQUESTS 24 /* open at once on the administration socket, with the spare ones */
#define TY_RPC_SPARE 8          /* exchanges beyond config->max_requests: for STATUS and HELLO. PING and BUSY need none */
#define TY_RPC_SEND_TIMEOUT_MS 10000 /* a client that does not take its reply for so long loses its connection */

/* Listen on `url`: "ipc://PATH" (its directory is made if missing, 0700; the socket is 0600; what a dead server left is removed;
 * with --allow-uid both are wider, and credentials decide), "tls+tcp://ADDRESS:PORT", or, with --tcp-insecure,
 * "tcp://ADDRESS:PORT". `admin`: the administration's, ipc alone, which only root and the user of the service may connect to.
 * TY_INVALID: no such URL. TY_DENIED: tcp without that option. TY_EXISTS: somebody listens there. TY_IO, TY_NO_MEMORY. The text
 * names the address. */
TY_MUST_USE enum ty_code ty_rpc_open(struct ty_service *service, const char *url, bool admin, struct ty_rpc_socket **out,
	struct ty_error *err);
void ty_rpc_close(struct ty_rpc_socket *socket); /* null is allowed */

/* A struct ty_route is heap memory: rpc frees one that it can send back to nobody, because clients has stopped. */
extern const struct ty_class ty_rpc_class; /* arg: struct ty_rpc_socket */

#endif
