/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>

#include "rpc_house.h"
#include "base/log.h"

struct house_seen house_seen;

/* ---- the fakes ------------------------------------------------------------------------------------------------------ */

struct engine {
	struct ty_exchange *held;
};

struct release {
	struct ty_msg msg;
};
#define RELEASE (TY_ENGINE_REQUEST + 1)

static void engine_answer(struct ty_exchange *e)
{
	switch (e->request->verb_case) {
	case TYER__V1__REQUEST__VERB_REGISTER:
		e->reply.registered.registration = 7;
		e->reply.registered.chunk_bytes = (uint64_t)5 << 33;
		memset(e->reply.registered.fingerprint, 0xab, 32);
		break;
	case TYER__V1__REQUEST__VERB_LOOKUP:
		e->reply.lookup.chunks = 12;
		e->reply.lookup.hits = 11;
		break;
	case TYER__V1__REQUEST__VERB_RETRIEVE:
		e->reply.retrieve.chunks = 21;
		break;
	case TYER__V1__REQUEST__VERB_STORE:
		e->reply.store.stored = 31;
		e->reply.store.present = 32;
		e->reply.store.dropped = 33;
		break;
	case TYER__V1__REQUEST__VERB_END_SESSION:
		if (e->request->end_session->session == 404) {
			/* with half a character at the end, as a cut text may have */
			ty_exchange_refuse(e, TY_UNKNOWN_SESSION, "no session 404 \xe2\x82");
			return;
		}
		e->reply.end_session.released = 41;
		break;
	default:
		break;
	}
	e->code = TY_OK;
	ty_exchange_answer(e);
}

static void engine_request(void *self, struct ty_msg *msg)
{
	struct ty_exchange *e = ty_container_of(msg, struct ty_exchange, msg);
	struct engine *engine = self;

	atomic_store(&house_seen.client, e->request->client);
	atomic_store(&house_seen.allowed, e->deadline - e->received);
	atomic_fetch_add(&house_seen.requests, 1);
	if (e->request->verb_case == TYER__V1__REQUEST__VERB_UNREGISTER && e->request->unregister->registration == HOLD) {
		e->next = engine->held;
		engine->held = e;
		atomic_fetch_add(&house_seen.held, 1);
	} else if (e->request->verb_case == TYER__V1__REQUEST__VERB_UNREGISTER && e->request->unregister->registration == COMPLAIN) {
		char text[sizeof e->error.text];

		memset(text, 1, sizeof text - 1);
		text[sizeof text - 1] = '\0';
		ty_exchange_refuse(e, TY_INVALID, "%s", text);
	} else {
		engine_answer(e);
	}
}

static void engine_release(void *self, struct ty_msg *msg)
{
	struct engine *engine = self;

	while (engine->held) {
		struct ty_exchange *e = engine->held;

		engine->held = e->next;
		atomic_fetch_sub(&house_seen.held, 1);
		engine_answer(e);
	}
	free(ty_container_of(msg, struct release, msg));
}

static void engine_stop(void *self)
{
	struct engine *engine = self;

	while (engine->held) {
		struct ty_exchange *e = engine->held;

		engine->held = e->next;
		atomic_fetch_sub(&house_seen.held, 1);
		ty_exchange_refuse(e, TY_CANCELLED, "the engine ends");
	}
}

/* What was sent before its close, and after its stop. */
static void engine_refuse(void *self, struct ty_msg *msg)
{
	(void)self;
	if (msg->type == TY_ENGINE_REQUEST)
		ty_exchange_refuse(ty_container_of(msg, struct ty_exchange, msg), TY_CANCELLED, "the engine ends");
	else
		free(ty_container_of(msg, struct release, msg));
}

static void clients_hello(void *self, struct ty_msg *msg)
{
	struct ty_exchange *e = ty_container_of(msg, struct ty_exchange, msg);
	Tyer__V1__HelloReply *hello = malloc(sizeof *hello);

	(void)self;
	tyer__v1__hello_reply__init(hello);
	hello->client = 77;
	hello->chunk_tokens = 256;
	e->reply.hello = hello;
	e->code = TY_OK;
	atomic_fetch_add(&house_seen.hellos, 1);
	ty_exchange_answer(e);
}

static void clients_routed(void *self, struct ty_msg *msg)
{
	(void)self;
	free(ty_container_of(msg, struct ty_route, msg));
	atomic_fetch_add(&house_seen.routed, 1);
}

static void metrics_status(void *self, struct ty_msg *msg)
{
	struct ty_exchange *e = ty_container_of(msg, struct ty_exchange, msg);
	Tyer__V1__StatusReply *status = malloc(sizeof *status);

	(void)self;
	tyer__v1__status_reply__init(status);
	status->uptime_us = 4711;
	if (atomic_load(&house_seen.status_bytes)) {
		status->version = calloc(1, atomic_load(&house_seen.status_bytes) + 1);
		memset(status->version, 'v', atomic_load(&house_seen.status_bytes));
	}
	e->reply.status = status;
	e->code = TY_OK;
	ty_exchange_answer(e);
}

static const struct ty_handler engine_handlers[] = {{"request", engine_request}, {"release", engine_release}};
static const struct ty_class engine_class = {.name = "fake engine",
	.state_size = sizeof(struct engine),
	.first_type = TY_ENGINE_REQUEST,
	.type_count = 2,
	.handlers = engine_handlers,
	.stop = engine_stop,
	.refuse = engine_refuse};
static const struct ty_handler clients_handlers[] = {{"hello", clients_hello}, {"routed", clients_routed}};
static const struct ty_class clients_class = {
	.name = "fake clients", .first_type = TY_CLIENTS_HELLO, .type_count = 2, .handlers = clients_handlers};
static const struct ty_handler metrics_handlers[] = {{"status", metrics_status}};
static const struct ty_class metrics_class = {
	.name = "fake metrics", .first_type = TY_METRICS_STATUS, .type_count = 1, .handlers = metrics_handlers};

/* ---- the house ------------------------------------------------------------------------------------------------------ */

void house_config(struct house *house)
{
	char program[] = "test", *argv[] = {program, NULL};
	struct ty_error err;
	bool help, version;

	memset(house, 0, sizeof *house);
	memset(&house_seen, 0, sizeof house_seen);
	strcpy(house->directory, "/tmp/tyer-test-XXXXXX");
	assert_non_null(mkdtemp(house->directory));
	assert_int_equal(ty_config_parse(&house->config, 1, argv, &help, &version, &err), TY_OK);
	snprintf(house->config.listen, sizeof house->config.listen, "ipc://%s/tyer.sock", house->directory);
	house->config.max_requests = 16;
	house->config.max_client_requests = 16;
	ty_log_setup(TY_LOG_ERROR, false);
}

static struct ty_actor *spawn(struct house *house, const struct ty_class *cls, void *arg)
{
	struct ty_spawn_options options = {.size = sizeof options, .executor = cls->poll ? TY_DEDICATED : TY_POOL, .cpu = -1};
	struct ty_actor *actor;

	assert_int_equal(ty_spawn(house->service->rt, cls, arg, &options, &actor), TY_OK);
	return actor;
}

void house_open(struct house *house, bool metrics)
{
	struct ty_runtime_options options = {.size = sizeof options, .workers = 2};
	struct ty_service *service = calloc(1, sizeof *service);
	struct ty_error err = {0};

	assert_non_null(service);
	house->service = service;
	service->config = &house->config;
	service->boot = HOUSE_BOOT;
	if (ty_rpc_open(service, service->config->listen, false, &house->socket, &err) != TY_OK)
		fail_msg("%s", err.text);
	if (house->adjust)
		house->adjust(house->socket);
	assert_int_equal(ty_runtime_create(&options, &service->rt, &err), TY_OK);
	service->started = ty_runtime_now(service->rt);
	service->clients = spawn(house, &clients_class, NULL);
	service->metrics = spawn(house, metrics ? &ty_metrics_class : &metrics_class, service);
	service->rpc = spawn(house, &ty_rpc_class, house->socket);
	house->engine = spawn(house, &engine_class, NULL);
	assert_int_equal(ty_send(service->rpc, &house->start, TY_RPC_START), TY_OK);
}

void house_close(struct house *house)
{
	struct ty_service *service = house->service;
	char path[128];

	if (service) {
		ty_actor_unref(house->engine);
		ty_actor_unref(service->rpc);
		ty_actor_unref(service->metrics);
		ty_actor_unref(service->clients);
		ty_runtime_destroy(service->rt);
		ty_rpc_close(house->socket);
		free(service);
	}
	snprintf(path, sizeof path, "%s/tyer.sock", house->directory);
	assert_int_not_equal(access(path, F_OK), 0); /* a socket goes with its server */
	assert_int_equal(rmdir(house->directory), 0);
}

void house_wait(const _Atomic uint32_t *counter, uint32_t value)
{
	struct timespec pause = {.tv_nsec = 1000000};

	for (int i = 0; i < HOUSE_WAIT_MS && atomic_load(counter) != value; i++)
		nanosleep(&pause, NULL);
	assert_int_equal(atomic_load(counter), value);
}

void house_route(struct house *house, uint64_t client, struct ty_actor *engine)
{
	struct ty_route *route = calloc(1, sizeof *route);
	uint32_t before = atomic_load(&house_seen.routed);

	assert_non_null(route);
	route->uid = geteuid();
	route->client = client;
	route->engine = engine;
	assert_int_equal(ty_send(house->service->rpc, &route->msg, TY_RPC_ROUTE), TY_OK);
	house_wait(&house_seen.routed, before + 1);
}

struct ty_actor *house_engine(struct house *house)
{
	return spawn(house, &engine_class, NULL);
}

void house_release(struct ty_actor *engine)
{
	struct release *release = calloc(1, sizeof *release);

	assert_non_null(release);
	assert_int_equal(ty_send(engine, &release->msg, RELEASE), TY_OK);
}

/* ---- a client ------------------------------------------------------------------------------------------------------- */

nng_socket house_dial(const struct house *house)
{
	nng_socket socket;

	assert_int_equal(nng_req0_open(&socket), 0);
	assert_int_equal(nng_socket_set_ms(socket, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE), 0);
	assert_int_equal(nng_socket_set_ms(socket, NNG_OPT_RECVTIMEO, HOUSE_WAIT_MS), 0);
	assert_int_equal(nng_socket_set_ms(socket, NNG_OPT_SENDTIMEO, HOUSE_WAIT_MS), 0);
	assert_int_equal(nng_dial(socket, house->config.listen, NULL, 0), 0);
	return socket;
}

void house_send_bytes(nng_socket socket, const void *bytes, size_t length)
{
	assert_int_equal(nng_send(socket, (void *)(uintptr_t)bytes, length, 0), 0);
}

void house_send(nng_socket socket, const Tyer__V1__Request *request)
{
	size_t length = tyer__v1__request__get_packed_size(request);
	uint8_t *bytes = malloc(length + 1);

	tyer__v1__request__pack(request, bytes);
	house_send_bytes(socket, bytes, length);
	free(bytes);
}

Tyer__V1__Reply *house_receive(nng_socket socket)
{
	Tyer__V1__Reply *reply;
	size_t length;
	void *bytes;

	assert_int_equal(nng_recv(socket, &bytes, &length, NNG_FLAG_ALLOC), 0);
	reply = tyer__v1__reply__unpack(NULL, length, bytes);
	assert_non_null(reply);
	assert_int_equal(length, tyer__v1__reply__get_packed_size(reply));
	nng_free(bytes, length);
	assert_true(reply->boot == HOUSE_BOOT);
	return reply;
}

Tyer__V1__Reply *house_ask(nng_socket socket, const Tyer__V1__Request *request)
{
	house_send(socket, request);
	return house_receive(socket);
}

void house_expect(Tyer__V1__Reply *reply, uint64_t id, enum ty_code code, const char *error_has)
{
	if ((int)reply->code != (int)code)
		fail_msg("expected %s, got %s: %s", ty_code_name(code), ty_code_name((enum ty_code)reply->code), reply->error);
	assert_true(reply->id == id);
	if (code == TY_OK) {
		assert_string_equal(reply->error, "");
	} else {
		assert_int_equal(reply->verb_case, TYER__V1__REPLY__VERB__NOT_SET);
		if (!strstr(reply->error, error_has))
			fail_msg("\"%s\" does not say \"%s\"", reply->error, error_has);
	}
	tyer__v1__reply__free_unpacked(reply, NULL);
}

void house_send_plain(nng_socket socket, uint64_t client, uint64_t id, uint32_t registration)
{
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT;
	Tyer__V1__Unregister unregister = TYER__V1__UNREGISTER__INIT;

	unregister.registration = registration;
	request.version = 1;
	request.client = client;
	request.id = id;
	request.verb_case = TYER__V1__REQUEST__VERB_UNREGISTER;
	request.unregister = &unregister;
	house_send(socket, &request);
}
