/* SPDX-License-Identifier: Apache-2.0
 *
 * The real clients and engine actors, with an rpc that the test plays.
 */
#ifndef TY_TESTS_CLIENTS_HOUSE_H
#define TY_TESTS_CLIENTS_HOUSE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "actors/clients.h"
#include "actors/service.h"
#include "wire/attach.h"

#define TOKEN TY_ATTACH_TOKEN_BYTES

struct house {
	struct ty_config config;
	char directory[64];
	struct ty_service *service;
	struct ty_space_record *spaces;
	struct ty_clients_socket *socket;
	struct ty_clients_arg arg;
	struct ty_gpu_ready ready[TY_MAX_DEVICES];
	struct ty_msg start;
	struct ty_stop stop;
	_Atomic bool stopped;
	/* The fake rpc's. While `hold` is set routes stay with it; the next ROUTE or a nudge after hold is cleared sends them back. */
	_Atomic bool hold;
	_Atomic uint32_t held, routes, ends;
};

/* One host device, which is open if `device_open`. max_clients as given. */
void house_open(struct house *h, uint32_t max_clients, bool device_open);
void house_device(struct house *h); /* it is open now */
void house_let_go(struct house *h); /* the routes that are held go back */
void house_stop(struct house *h);   /* TY_CLIENTS_STOP, and wait for `stopped` */
void house_close(struct house *h);  /* stops first, if that was not done */
uint32_t house_actors(struct house *h); /* alive, apart from rpc and clients */
void house_wait_actors(struct house *h, uint32_t count);
void house_wait_ends(struct house *h, uint32_t count); /* clients whose route is gone */

/* A client's end of an attach connection. */
int house_connect(struct house *h);
/* The next frame (waits for it); *fd -1 or the caller's. TY_CLOSED: the end. */
enum ty_code house_recv(int socket, struct ty_attach_frame *frame, int *fd);
/* Connect and be welcomed. */
int house_attach(struct house *h, uint8_t token[TOKEN]);
/* Nothing but REFUSED comes, then the end. Returns REFUSED's code, or TY_CLOSED without one. Closes the socket. */
enum ty_code house_refused(int socket);

/* HELLO. Fields that are null are the good ones. */
struct hello {
	const uint8_t *token;
	size_t token_bytes;
	const uint8_t *engine;
	size_t engine_bytes; /* 0: 16 */
	const char *name, *tenant, *model;
	bool no_namespace;
	int64_t timeout_ns; /* 0: for ever */

	/* the answer */
	enum ty_code code;
	char error[256];
	uint64_t client;
	uint32_t devices, chunk_tokens;
	char device[32];
	uint64_t max_chunk_bytes;
	_Atomic bool answered;
	struct ty_exchange exchange;
	Tyer__V1__Request request;
	Tyer__V1__Hello message;
	Tyer__V1__Namespace space;
};
void house_send_hello(struct house *h, struct hello *hello);
void house_wait_hello(struct hello *hello);
enum ty_code house_hello(struct house *h, struct hello *hello); /* both */
/* It was answered with `code`, and `words` are in the error's text. */
void house_expect(const struct hello *hello, enum ty_code code, const char *words);

#endif
