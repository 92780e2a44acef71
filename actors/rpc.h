/* SPDX-License-Identifier: Apache-2.0
 *
 * rpc: the nng REP socket. Decodes requests at the edge, routes each to the actor that answers it, sends the reply.
 * Answers PING itself.
 */
#ifndef TY_ACTORS_RPC_H
#define TY_ACTORS_RPC_H

#include <nng/nng.h>
#include <tyer/actor.h>

#include "messages.h"
#include "wire/tyer.pb-c.h"

struct ty_service;

/* One nng context and the request it carries: made at start, one per request that may be in flight. It travels to whoever
 * answers and comes back as TY_RPC_ANSWER; `request` is readable and `reply` writable by whoever has it. */
struct ty_exchange {
	struct ty_msg msg;
	struct ty_actor *rpc;
	nng_ctx ctx;
	nng_aio *aio;
	Tyer__V1__Request *request;
	int64_t received; /* runtime's clock */
	int64_t deadline;
	bool hello_done;  /* rpc's */

	/* The reply. The verb's message is one of these, by the request's verb; sent only when code is TY_OK. */
	enum ty_code code;
	struct ty_error error;
	union {
		Tyer__V1__StatusReply *status; /* allocated with protobuf-c's default allocator, freed by rpc */
		Tyer__V1__HelloReply *hello;   /* likewise */
		struct { uint32_t registration; uint64_t chunk_bytes; uint8_t fingerprint[32]; } registered;
		struct { uint32_t chunks, hits; } lookup;
		struct { uint32_t chunks; } retrieve;
		struct { uint32_t stored, present, dropped; } store;
		struct { uint32_t released; } end_session;
	} reply;

	struct ty_exchange *next; /* of whoever has it */
};

/* Finish: set the code (and the text, when it is not TY_OK) and send it home. Whoever has it, once. */
void ty_exchange_answer(struct ty_exchange *exchange);
void ty_exchange_refuse(struct ty_exchange *exchange, enum ty_code code, const char *fmt, ...) TY_PRINTF(3, 4);

/* A client's number and the engine actor its requests go to. Allocated by clients; rpc holds a reference to `engine`
 * while the route stands. Sent back as TY_CLIENTS_ROUTED. */
struct ty_route {
	struct ty_msg msg;
	uint64_t client;
	struct ty_actor *engine; /* null: the client is gone */
	struct ty_exchange *hello; /* clients': answered when the route stands */
};

/* Written by rpc (relaxed), read by metrics. */
#define TY_VERBS 19 /* by the oneof's field number */
struct ty_rpc_stats {
	_Atomic uint64_t requests[TY_VERBS];
	_Atomic uint64_t replies[TY_CODE_COUNT];
	_Atomic uint64_t malformed, latency_us_sum[TY_VERBS];
	_Atomic uint32_t open; /* requests not answered yet */
};

struct ty_stop {
	struct ty_msg msg;
	void (*stopped)(struct ty_stop *stop); /* called once by the actor that was asked; must not block */
	void *user;
};

extern const struct ty_class ty_rpc_class; /* arg: struct ty_service */

#endif
