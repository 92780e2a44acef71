/* SPDX-License-Identifier: Apache-2.0
 *
 * A house for the rpc, metrics and log actors: a real runtime and a service around them, with actors of the test's own in the
 * places of clients and engines.
 */
#ifndef TESTS_RPC_HOUSE_H
#define TESTS_RPC_HOUSE_H

#include <nng/nng.h>

#include "actors/rpc_socket.h"
#include "actors/service.h"

#define HOUSE_BOOT 0x1122334455667788u
#define HOUSE_WAIT_MS 20000 /* nothing that is to happen takes so long */
#define HOLD 999            /* UNREGISTER of this registration is kept until house_release ... */
#define COMPLAIN 998        /* ... and of this one refused, with as long a text as there is, none of which is printable */

/* The number of the client with this index (from 0) and generation. */
#define CLIENT(generation, index) ((uint64_t)(generation) << 16 | ((index) + 1))

struct house {
	struct ty_msg start;
	char directory[64];
	struct ty_config config;
	struct ty_service *service;
	struct ty_rpc_socket *socket;
	struct ty_actor *engine;
	void (*adjust)(struct ty_rpc_socket *socket); /* limits, before the actor is there */
};

/* What the engine saw last, and counts; written by the fakes, read by the test when a reply said that it is there. */
struct house_seen {
	_Atomic uint32_t requests, hellos, routed, held;
	_Atomic uint64_t client;
	_Atomic uint32_t status_bytes; /* set by the test: of a text in STATUS's reply */
	_Atomic int64_t allowed; /* deadline - received */
};
extern struct house_seen house_seen;

void house_config(struct house *house);           /* defaults, addresses in a directory of its own */
void house_open(struct house *house, bool metrics); /* the runtime, the fakes, rpc; metrics: the real one */
void house_close(struct house *house);
void house_route(struct house *house, uint64_t client, struct ty_actor *engine); /* waits until the route stands, or is gone */
struct ty_actor *house_engine(struct house *house); /* one more; the caller's reference */
void house_release(struct ty_actor *engine);      /* it answers what it holds */
void house_wait(const _Atomic uint32_t *counter, uint32_t value);

/* A client: a REQ socket. */
nng_socket house_dial(const struct house *house);
void house_send(nng_socket socket, const Tyer__V1__Request *request);
void house_send_bytes(nng_socket socket, const void *bytes, size_t length);
Tyer__V1__Reply *house_receive(nng_socket socket); /* fails the test when none comes */
Tyer__V1__Reply *house_ask(nng_socket socket, const Tyer__V1__Request *request);
void house_expect(Tyer__V1__Reply *reply, uint64_t id, enum ty_code code, const char *error_has); /* and frees it */

/* UNREGISTER of `registration`. */
void house_send_plain(nng_socket socket, uint64_t client, uint64_t id, uint32_t registration);

#endif
