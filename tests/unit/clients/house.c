/* SPDX-License-Identifier: Apache-2.0 */
#include "house.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- the fake rpc ------------------------------------------------------------------------------------------------------ */

#define NUDGE (TY_RPC_STOP) /* a number of rpc's block that clients does not send */

struct rpc {
	struct house *house;
	struct ty_route *held;
};

static void send_back(struct rpc *rpc, struct ty_route *route)
{
	atomic_fetch_add(&rpc->house->routes, 1);
	if (route->engine == NULL)
		atomic_fetch_add(&rpc->house->ends, 1);
	assert_int_equal(ty_send(rpc->house->service->clients, &route->msg, TY_CLIENTS_ROUTED), TY_OK);
}

static void on_route(void *self, struct ty_msg *msg)
{
	struct ty_route *route = ty_container_of(msg, struct ty_route, msg);
	struct rpc *rpc = self;

	if (atomic_load(&rpc->house->hold)) {
		assert_null(rpc->held);
		rpc->held = route;
		atomic_fetch_add(&rpc->house->held, 1);
		return;
	}
	send_back(rpc, route);
}

static void on_nudge(void *self, struct ty_msg *msg)
{
	struct rpc *rpc = self;

	free(msg);
	if (rpc->held != NULL)
		send_back(rpc, rpc->held);
	rpc->held = NULL;
}

static void on_answer(void *self, struct ty_msg *msg)
{
	struct ty_exchange *x = ty_container_of(msg, struct ty_exchange, msg);
	struct hello *hello = ty_container_of(x, struct hello, exchange);

	(void)self;
	hello->code = x->code;
	snprintf(hello->error, sizeof hello->error, "%s", x->code == TY_OK ? "" : x->error.text);
	if (x->code == TY_OK) {
		const Tyer__V1__HelloReply *r = x->reply.hello;

		hello->client = r->client;
		hello->chunk_tokens = r->chunk_tokens;
		hello->devices = (uint32_t)r->n_devices;
		hello->max_chunk_bytes = r->limits->max_chunk_bytes;
		if (r->n_devices > 0)
			snprintf(hello->device, sizeof hello->device, "%s", r->devices[0]->name);
		tyer__v1__hello_reply__free_unpacked(x->reply.hello, NULL);
	}
	atomic_store_explicit(&hello->answered, true, memory_order_release);
}

static enum ty_code rpc_start(void *self, void *arg)
{
	((struct rpc *)self)->house = arg;
	return TY_OK;
}

static void unexpected(void *self, struct ty_msg *msg)
{
	(void)self;
	(void)msg;
	abort();
}

static const struct ty_handler rpc_handlers[] = {
	[TY_RPC_START - TY_RPC_START] = {"start", unexpected},
	[TY_RPC_ANSWER - TY_RPC_START] = {"answer", on_answer},
	[TY_RPC_ROUTE - TY_RPC_START] = {"route", on_route},
	[NUDGE - TY_RPC_START] = {"nudge", on_nudge},
};
static const struct ty_class rpc_class = {
	.name = "rpc", .state_size = sizeof(struct rpc), .first_type = TY_RPC_START,
	.type_count = sizeof rpc_handlers / sizeof rpc_handlers[0], .handlers = rpc_handlers, .start = rpc_start,
};

/* ---- the house --------------------------------------------------------------------------------------------------------- */

void house_open(struct house *h, uint32_t max_clients, bool device_open)
{
	struct ty_runtime_options ro = {.size = sizeof ro, .workers = 2};
	struct ty_spawn_options pool = {.size = sizeof pool, .executor = TY_POOL, .cpu = -1}, own = pool;
	struct ty_error err;

	memset(h, 0, sizeof *h);
	strcpy(h->directory, "/tmp/tyer-clients-test-XXXXXX");
	assert_non_null(mkdtemp(h->directory));
	snprintf(h->config.attach, sizeof h->config.attach, "%s/attach", h->directory);
	h->config.max_clients = max_clients;
	h->config.chunk_tokens = 256;
	h->service = calloc(1, sizeof *h->service);
	h->spaces = calloc(TY_MAX_SPACES, sizeof *h->spaces);
	ty_spaces_open(&h->service->spaces, h->spaces, 0);
	h->service->config = &h->config;
	h->service->boot = 0xb007;
	h->service->gpu_count = 1;
	snprintf(h->service->gpu_stats[0].info.name, sizeof h->service->gpu_stats[0].info.name, "host");
	if (ty_clients_listen(h->service, &h->socket, &err) != TY_OK)
		fail_msg("%s", err.text);
	assert_int_equal(ty_runtime_create(&ro, &h->service->rt, &err), TY_OK);
	h->arg = (struct ty_clients_arg){h->service, h->socket};
	own.executor = TY_DEDICATED;
	assert_int_equal(ty_spawn(h->service->rt, &ty_clients_class, &h->arg, &own, &h->service->clients), TY_OK);
	assert_int_equal(ty_spawn(h->service->rt, &rpc_class, h, &pool, &h->service->rpc), TY_OK);
	assert_int_equal(ty_send(h->service->clients, &h->start, TY_CLIENTS_START), TY_OK);
	if (device_open)
		house_device(h);
}

void house_device(struct house *h)
{
	atomic_store_explicit(&h->service->gpu_stats[0].state, TY_GPU_SERVING, memory_order_release);
	h->ready[0].device = 0;
	h->ready[0].code = TY_OK;
	assert_int_equal(ty_send(h->service->clients, &h->ready[0].msg, TY_CLIENTS_DEVICE), TY_OK);
}

void house_let_go(struct house *h)
{
	struct ty_msg *nudge = calloc(1, sizeof *nudge);

	atomic_store(&h->hold, false);
	assert_int_equal(ty_send(h->service->rpc, nudge, NUDGE), TY_OK);
}

static void stopped(struct ty_stop *stop)
{
	atomic_store_explicit((_Atomic bool *)stop->user, true, memory_order_release);
}

void house_stop(struct house *h)
{
	h->stop.stopped = stopped;
	h->stop.user = &h->stopped;
	assert_int_equal(ty_send(h->service->clients, &h->stop.msg, TY_CLIENTS_STOP), TY_OK);
	while (!atomic_load_explicit(&h->stopped, memory_order_acquire))
		poll(NULL, 0, 1);
}

void house_close(struct house *h)
{
	if (!atomic_load(&h->stopped))
		house_stop(h);
	house_wait_actors(h, 0); /* they were asked to stop, and end on their own threads */
	ty_runtime_destroy(h->service->rt);
	ty_actor_unref(h->service->clients);
	ty_actor_unref(h->service->rpc);
	ty_clients_close(h->socket);
	assert_int_equal(access(h->config.attach, F_OK), -1);
	assert_int_equal(rmdir(h->directory), 0);
	free(h->service);
	free(h->spaces);
}

uint32_t house_actors(struct house *h)
{
	struct ty_runtime_stats stats;

	ty_runtime_stats(h->service->rt, &stats);
	return (uint32_t)stats.actors - 2;
}

void house_wait_actors(struct house *h, uint32_t count)
{
	while (house_actors(h) != count)
		poll(NULL, 0, 1);
}

void house_wait_ends(struct house *h, uint32_t count)
{
	while (atomic_load(&h->ends) != count)
		poll(NULL, 0, 1);
}

/* ---- a client ---------------------------------------------------------------------------------------------------------- */

int house_connect(struct house *h)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	memcpy(address.sun_path, h->config.attach, strlen(h->config.attach));
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
	return fd;
}

enum ty_code house_recv(int socket, struct ty_attach_frame *frame, int *fd)
{
	struct pollfd p = {.fd = socket, .events = POLLIN};

	poll(&p, 1, -1);
	return ty_attach_recv(socket, frame, fd, NULL);
}

int house_attach(struct house *h, uint8_t token[TOKEN])
{
	struct ty_attach_frame frame;
	int fd, page;

	fd = house_connect(h);
	assert_int_equal(house_recv(fd, &frame, &page), TY_OK);
	assert_int_equal(frame.type, TY_ATTACH_WELCOME);
	memcpy(token, frame.welcome.token, TOKEN);
	close(page);
	return fd;
}

enum ty_code house_refused(int socket)
{
	enum ty_code code = TY_CLOSED, received;
	struct ty_attach_frame frame;
	int fd;

	while ((received = house_recv(socket, &frame, &fd)) == TY_OK) {
		assert_int_equal(frame.type, TY_ATTACH_REFUSED);
		code = frame.refused.code;
	}
	assert_int_equal(received, TY_CLOSED);
	close(socket);
	return code;
}

/* ---- HELLO ------------------------------------------------------------------------------------------------------------- */

void house_send_hello(struct house *h, struct hello *o)
{
	static const uint8_t engine[16] = {7};

	tyer__v1__request__init(&o->request);
	tyer__v1__hello__init(&o->message);
	tyer__v1__namespace__init(&o->space);
	o->space.tenant = (char *)(uintptr_t)(o->tenant != NULL ? o->tenant : "t");
	o->space.model = (char *)(uintptr_t)(o->model != NULL ? o->model : "m");
	o->space.dtype = (char *)(uintptr_t)"bf16";
	o->message.token = (ProtobufCBinaryData){
		.len = o->token_bytes != 0 ? o->token_bytes : TOKEN, .data = (uint8_t *)(uintptr_t)o->token};
	o->message.engine = (ProtobufCBinaryData){.len = o->engine_bytes != 0 ? o->engine_bytes : 16,
		.data = (uint8_t *)(uintptr_t)(o->engine != NULL ? o->engine : engine)};
	o->message.name = (char *)(uintptr_t)(o->name != NULL ? o->name : "test");
	o->message.namespace_ = o->no_namespace ? NULL : &o->space;
	o->request.verb_case = TYER__V1__REQUEST__VERB_HELLO;
	o->request.hello = &o->message;
	memset(&o->exchange, 0, sizeof o->exchange);
	o->exchange.request = &o->request;
	o->exchange.deadline =
		o->timeout_ns != 0 ? ty_runtime_now(h->service->rt) + o->timeout_ns : INT64_MAX;
	o->exchange.rpc = ty_actor_ref(h->service->rpc);
	atomic_store(&o->answered, false);
	assert_int_equal(ty_send(h->service->clients, &o->exchange.msg, TY_CLIENTS_HELLO), TY_OK);
}

void house_wait_hello(struct hello *hello)
{
	while (!atomic_load_explicit(&hello->answered, memory_order_acquire))
		poll(NULL, 0, 1);
}

enum ty_code house_hello(struct house *h, struct hello *hello)
{
	house_send_hello(h, hello);
	house_wait_hello(hello);
	return hello->code;
}

void house_expect(const struct hello *hello, enum ty_code code, const char *words)
{
	if (hello->code != code || strstr(hello->error, words) == NULL)
		fail_msg("got %s \"%s\", expected %s \"%s\"", ty_code_name(hello->code), hello->error, ty_code_name(code), words);
}
