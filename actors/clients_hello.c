/* SPDX-License-Identifier: Apache-2.0
 *
 * HELLO: a request that came over nng is tied to an attach connection and to an engine. And the way back, when that connection
 * has ended:
 *
 *   HELLO -> (devices known) -> JOIN to the engine -> ROUTE to rpc -> ROUTED: answered
 *   the connection ends      -> ROUTE without an engine to rpc -> ROUTED: LEAVE to the engine
 *
 * so that a request reaches an engine only between the JOIN and the LEAVE of its client.
 */
#include "clients_state.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "wire/request.h"

#define NAME_MAX_BYTES 64

static void wait_for_devices(struct clients *c, struct ty_exchange *x)
{
	x->next = NULL;
	*c->waiting_end = x;
	c->waiting_end = &x->next;
}

/* ---- who says it ------------------------------------------------------------------------------------------------------- */

static struct connection *by_token(struct clients *c, const ProtobufCBinaryData *token)
{
	struct connection *found = NULL;
	uint32_t left = c->taken;

	if (token->len != TY_ATTACH_TOKEN_BYTES)
		return NULL;
	for (uint32_t i = 0; left > 0 && i < TY_MAX_CLIENTS; i++) {
		struct connection *conn = c->connections[i];

		if (conn == NULL)
			continue;
		left--;
		/* how long this takes says nothing of how much of a guess was right */
		if (sodium_memcmp(conn->token, token->data, TY_ATTACH_TOKEN_BYTES) == 0 && conn->fd >= 0)
			found = conn;
	}
	return found;
}

/* No HELLO of it is being answered any more; it may say another. */
static void may_say_again(struct connection *conn)
{
	conn->hello = false;
	conn->hello_by = ty_now() + TY_CLIENTS_HELLO_NS;
}

int64_t clients_expire_hellos(struct clients *c, int64_t now)
{
	struct ty_exchange **link = &c->waiting;
	int64_t next = TY_NEVER;

	while (*link != NULL) {
		struct ty_exchange *x = *link;

		if (!c->stopping && x->deadline > now) {
			if (x->deadline < next)
				next = x->deadline;
			link = &x->next;
			continue;
		}
		struct connection *conn = by_token(c, &x->request->hello->token);

		*link = x->next;
		if (conn != NULL)
			may_say_again(conn);
		if (c->stopping)
			ty_exchange_refuse(x, TY_STOPPING, "the service is stopping");
		else
			ty_exchange_refuse(x, TY_TIMEOUT, "the devices are not all open yet: %u of %u", c->devices_known,
				c->service->gpu_count);
	}
	c->waiting_end = link;
	return next;
}

static struct connection *by_number(struct clients *c, uint64_t number)
{
	uint64_t index = (number & 0xffff) - 1;
	struct connection *conn = index < TY_MAX_CLIENTS ? c->connections[index] : NULL;

	return conn != NULL && conn->number == number ? conn : NULL;
}

/* ---- its engine -------------------------------------------------------------------------------------------------------- */

/* Two clients of one engine must agree on all that is part of a key. */
static enum ty_code same_identity(const struct ty_identity *a, const struct ty_identity *b, struct ty_error *err)
{
	static const struct {
		const char *name;
		size_t offset;
	} fields[] = {
		{"tenant", offsetof(struct ty_identity, tenant)},
		{"model", offsetof(struct ty_identity, model)},
		{"revision", offsetof(struct ty_identity, revision)},
		{"dtype", offsetof(struct ty_identity, dtype)},
		{"quantization", offsetof(struct ty_identity, quantization)},
	};

	for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
		const char *have = (const char *)a + fields[i].offset, *got = (const char *)b + fields[i].offset;

		/* both may be 255 bytes long: cut for the text, compared whole */
		if (strcmp(have, got) != 0)
			return ty_fail(err, TY_INVALID, "Hello.namespace.%s is \"%.60s\", the engine's other clients have \"%.60s\"",
				fields[i].name, got, have);
	}
	return TY_OK;
}

/* Another user's tenants are its own, whatever it calls them: nobody finds out what somebody else has asked. */
static bool is_another(uint32_t uid)
{
	return uid != 0 && uid != geteuid();
}

static void name_user(uint32_t uid, char out[32])
{
	snprintf(out, 32, TY_SPACE_USER, uid);
}

/* By its number chunks are known to be of a namespace. Another user may not take all numbers. Without one an engine is served all the
 * same, unless tenants have quotas: then nobody could hold it to its own. */
static enum ty_code number_space(struct clients *c, uint32_t uid, const struct ty_identity *identity, uint16_t *out, struct ty_error *err)
{
	char user[32];

	name_user(uid, user);
	*out = ty_spaces_number_of(&c->service->spaces, identity, user, is_another(uid));
	if (*out || !atomic_load_explicit(&c->service->eviction_stats.quotas, memory_order_relaxed))
		return TY_OK;
	return ty_fail(err, TY_LIMIT, "Hello.namespace: %d namespaces may be known, and this one is not among them: its tenant's quota could not be held",
		TY_MAX_SPACES);
}

static enum ty_code spawn_engine(struct clients *c, uint32_t uid, const uint8_t id[16], const struct ty_identity *identity,
	struct engine_entry **out, struct ty_error *err)
{
	struct ty_spawn_options options = {.size = sizeof options, .executor = TY_POOL, .cpu = -1};
	struct engine_entry *entry = calloc(1, sizeof *entry);
	struct ty_engine_arg *arg = calloc(1, sizeof *arg);
	enum ty_code code = TY_OK;

	if (entry == NULL || arg == NULL)
		code = ty_fail(err, TY_NO_MEMORY, "no memory for an engine");
	else
		code = number_space(c, uid, identity, &arg->space, err);
	if (code != TY_OK) {
		free(entry);
		free(arg);
		return code;
	}
	memcpy(entry->id, id, sizeof entry->id);
	entry->identity = *identity;
	arg->service = c->service;
	arg->identity = *identity;
	memcpy(arg->engine, id, sizeof arg->engine);
	code = ty_spawn(c->service->rt, &ty_engine_class, arg, &options, &entry->actor);
	if (code != TY_OK) {
		free(arg); /* else the engine's start frees it */
		free(entry);
		return ty_fail(err, code, "the engine's actor could not be started");
	}
	entry->next = c->engines;
	c->engines = entry;
	*out = entry;
	return TY_OK;
}

/* An engine that is idle, or on its way there, is joined again: it knows what became of its operations. One whose clients were
 * others is not it, though its id is the same. */
static enum ty_code find_engine(struct clients *c, uint32_t uid, const uint8_t id[16], const struct ty_identity *identity,
	struct engine_entry **out, struct ty_error *err)
{
	for (struct engine_entry *e = c->engines; e != NULL; e = e->next) {
		enum ty_code code;

		if (memcmp(e->id, id, sizeof e->id) != 0)
			continue;
		code = same_identity(&e->identity, identity, err);
		if (code != TY_OK && e->members == 0)
			continue;
		*out = e;
		return code;
	}
	return spawn_engine(c, uid, id, identity, out, err);
}

/* A message's way to the engine that has it. */
static void stay(struct engine_entry *entry, struct ty_engine_end *end)
{
	enum ty_code sent = ty_send(entry->actor, &end->msg, TY_ENGINE_STAY);

	assert(sent == TY_OK); /* it lives until we stop it */
	(void)sent;
}

/* ---- joining ----------------------------------------------------------------------------------------------------------- */

/* All that is checked of a HELLO, but for its token. */
static enum ty_code check_hello(const Tyer__V1__Hello *hello, uint32_t uid, uint32_t max_weight, struct ty_identity *identity,
	struct ty_error *err)
{
	static const uint8_t zero[16];
	const Tyer__V1__Namespace *n = hello->namespace_;
	char tenant[400], user[32]; /* cut off here it is still longer than a tenant may be */
	enum ty_code code;

	if (hello->engine.len != sizeof zero)
		return ty_fail(err, TY_INVALID, "Hello.engine has %zu bytes, expected %zu", hello->engine.len, sizeof zero);
	if (memcmp(hello->engine.data, zero, sizeof zero) == 0)
		return ty_fail(err, TY_INVALID, "Hello.engine is all zero, expected 16 random bytes");
	if (n == NULL)
		return ty_fail(err, TY_INVALID, "Hello.namespace is absent");
	code = ty_wire_check_text("Hello.name", hello->name, 0, NAME_MAX_BYTES, err);
	if (code != TY_OK)
		return code;
	if (hello->weight > max_weight)
		return ty_fail(err, TY_INVALID, "Hello.weight is %u, expected at most %u (max-client-weight)", hello->weight, max_weight);
	name_user(uid, user);
	snprintf(tenant, sizeof tenant, "%s%s", user, n->tenant);
	return ty_identity_set(identity, is_another(uid) ? tenant : n->tenant, n->model, n->revision, n->dtype, n->quantization, err);
}

/* The engine's view of the connection, with references of its own. */
static struct ty_member *make_member(struct clients *c, struct connection *conn)
{
	struct ty_member *m = calloc(1, sizeof *m);

	if (m == NULL)
		return NULL;
	m->client = conn->number;
	m->slot = &c->service->client_slots[conn->index];
	m->timeline = ty_timeline_ref(conn->timeline);
	/* relaxed: we have a reference */
	atomic_fetch_add_explicit(&conn->box->refs, 1, memory_order_relaxed);
	m->descriptors = conn->box;
	return m;
}

static void free_member(struct ty_member *m)
{
	ty_timeline_unref(m->timeline);
	ty_descriptor_box_unref(m->descriptors);
	free(m);
}

/* Names for people, before the slot's state says joined. */
static void name_slot(struct clients *c, const struct connection *conn, const Tyer__V1__Hello *hello,
	const struct ty_identity *identity)
{
	struct ty_client_slot *slot = &c->service->client_slots[conn->index];

	/* metrics reads the names of joined slots only; each fits by its check */
	strcpy(slot->name, hello->name);
	strcpy(slot->tenant, identity->tenant);
	strcpy(slot->model, identity->model);
}

static enum ty_code join(struct clients *c, struct connection *conn, struct ty_exchange *x, struct ty_error *err)
{
	const Tyer__V1__Hello *hello = x->request->hello;
	uint32_t uid = c->service->client_slots[conn->index].uid;
	struct engine_entry *engine = NULL;
	struct ty_identity identity;
	struct ty_member *member;
	struct ty_route *route;
	enum ty_code code;

	code = check_hello(hello, uid, c->service->config->max_client_weight, &identity, err);
	if (code != TY_OK)
		return code;
	route = calloc(1, sizeof *route);
	member = make_member(c, conn);
	if (route == NULL || member == NULL)
		code = ty_fail(err, TY_NO_MEMORY, "no memory for a member");
	else
		member->weight = hello->weight ? hello->weight : c->service->config->client_weight;
	if (code == TY_OK)
		code = find_engine(c, uid, hello->engine.data, &identity, &engine, err);
	if (code == TY_OK) {
		code = ty_send(engine->actor, &member->msg, TY_ENGINE_JOIN);
		assert(code == TY_OK); /* it lives until we stop it */
		engine->members++;
		engine->joins++;
		if (engine->end != NULL) { /* behind the member, so that it is not idle when it has it back */
			stay(engine, engine->end);
			engine->end = NULL;
			c->idle--;
		}
		conn->state = CONNECTION_JOINING;
		conn->engine = engine;
		conn->member = member;
		name_slot(c, conn, hello, &identity);
		route->client = conn->number;
		route->uid = uid;
		route->engine = engine->actor;
		route->hello = x;
		code = ty_send(c->service->rpc, &route->msg, TY_RPC_ROUTE);
		assert(code == TY_OK); /* rpc runs as long as anybody is here */
		return TY_OK;
	}
	free(route);
	if (member != NULL)
		free_member(member);
	return code;
}

/* Devices are known. */
static void answer_hello(struct clients *c, struct ty_exchange *x)
{
	struct connection *conn = by_token(c, &x->request->hello->token);
	struct ty_error err;
	enum ty_code code;

	if (conn == NULL) {
		ty_exchange_refuse(x, TY_DENIED, "Hello.token is of no attach connection that is open");
		return;
	}
	if (conn->state != CONNECTION_ATTACHED) {
		ty_exchange_refuse(x, TY_EXISTS, "this attach connection has said HELLO already");
		return;
	}
	code = join(c, conn, x, &err);
	if (code != TY_OK) {
		may_say_again(conn);
		ty_exchange_refuse(x, code, "%s", err.text);
	}
}

void clients_on_hello(void *self, struct ty_msg *msg)
{
	struct ty_exchange *x = ty_container_of(msg, struct ty_exchange, msg);
	struct clients *c = self;
	struct connection *conn;

	if (c->stopping) {
		ty_exchange_refuse(x, TY_STOPPING, "the service is stopping");
		return;
	}
	conn = by_token(c, &x->request->hello->token);
	if (conn != NULL) {
		/* What it wrote to its attach connection before HELLO counts before HELLO, whichever of the two is heard of first. */
		clients_read(c, conn);
		conn = by_token(c, &x->request->hello->token);
	}
	if (conn != NULL && conn->state == CONNECTION_ATTACHED && conn->hello) { /* or one client's could be all the requests that there are */
		ty_exchange_refuse(x, TY_EXISTS, "a HELLO of this attach connection waits already");
		return;
	}
	if (conn != NULL)
		conn->hello = true; /* it may wait as long as its request may */
	if (conn == NULL || c->devices_known >= c->service->gpu_count)
		answer_hello(c, x);
	else
		wait_for_devices(c, x);
}

void clients_on_device(void *self, struct ty_msg *msg)
{
	const struct ty_gpu_ready *ready = ty_container_of(msg, struct ty_gpu_ready, msg);
	struct clients *c = self;
	struct ty_exchange *x;

	assert(ready->device < TY_MAX_DEVICES && c->devices_known < c->service->gpu_count);
	c->device_open[ready->device] = ready->code == TY_OK;
	if (++c->devices_known < c->service->gpu_count)
		return;
	x = c->waiting;
	c->waiting = NULL;
	c->waiting_end = &c->waiting;
	while (x != NULL) {
		struct ty_exchange *next = x->next;

		answer_hello(c, x);
		x = next;
	}
}

/* ---- the answer -------------------------------------------------------------------------------------------------------- */

/* A copy on the heap, allocated as rpc will free it. */
static Tyer__V1__HelloReply *copy_reply(const Tyer__V1__HelloReply *reply)
{
	size_t length = tyer__v1__hello_reply__get_packed_size(reply);
	uint8_t *bytes = malloc(length);
	Tyer__V1__HelloReply *copy;

	if (bytes == NULL)
		return NULL;
	tyer__v1__hello_reply__pack(reply, bytes);
	copy = tyer__v1__hello_reply__unpack(NULL, length, bytes);
	free(bytes);
	return copy;
}

static Tyer__V1__HelloReply *make_reply(const struct clients *c, uint64_t number)
{
	const struct ty_config *config = c->service->config;
	Tyer__V1__Device devices[TY_MAX_DEVICES], *device_at[TY_MAX_DEVICES];
	Tyer__V1__HelloReply reply = TYER__V1__HELLO_REPLY__INIT;
	Tyer__V1__Limits limits = TYER__V1__LIMITS__INIT;

	for (uint32_t i = 0; i < c->service->gpu_count; i++) {
		struct ty_gpu_stats *stats = &c->service->gpu_stats[i];
		Tyer__V1__Device *device = &devices[reply.n_devices];

		/* acquire: pairs with the owner's release; its info was written before */
		if (!c->device_open[i] || atomic_load_explicit(&stats->state, memory_order_acquire) == TY_GPU_STARTING)
			continue;
		tyer__v1__device__init(device);
		device->name = stats->info.name;
		device->model = stats->info.model;
		device->uuid = (ProtobufCBinaryData){.len = TY_UUID_BYTES, .data = stats->info.uuid};
		device_at[reply.n_devices++] = device;
	}
	reply.devices = device_at;
	reply.client = number;
	reply.chunk_tokens = config->chunk_tokens;
	limits.max_request_bytes = config->max_request_bytes;
	limits.max_timeout_us = config->max_timeout_us;
	limits.default_timeout_us = config->default_timeout_us;
	limits.max_clients = config->max_clients;
	limits.max_registrations = config->max_registrations;
	limits.max_sessions = config->max_sessions;
	limits.max_session_chunks = config->max_session_chunks;
	limits.max_operations = config->max_operations;
	limits.max_all_operations = config->max_all_operations;
	limits.max_all_operation_bytes = config->max_all_operation_bytes;
	limits.max_client_requests = config->max_client_requests;
	limits.max_operation_chunks = config->max_operation_chunks;
	limits.max_operation_bytes = config->max_operation_bytes;
	limits.max_client_weight = config->max_client_weight;
	limits.max_chunk_bytes = TY_PIECE_BYTES; /* no slot crosses a piece's border */
	reply.limits = &limits;
	return copy_reply(&reply);
}

static void joined(struct clients *c, struct connection *conn, struct ty_route *route)
{
	struct ty_client_slot *slot = &c->service->client_slots[conn->index];
	struct ty_exchange *x = route->hello;

	conn->state = CONNECTION_JOINED;
	conn->route = route;
	route->hello = NULL;
	if (conn->fd < 0) { /* it ended meanwhile */
		ty_exchange_refuse(x, TY_CLOSED, "the attach connection ended");
		clients_leave(c, conn);
		return;
	}
	x->reply.hello = make_reply(c, conn->number);
	if (x->reply.hello == NULL) {
		ty_exchange_refuse(x, TY_NO_MEMORY, "no memory for the answer");
		connection_end(c, conn, "no memory for the answer to HELLO");
		return;
	}
	/* release: pairs with metrics' acquire */
	atomic_store_explicit(&slot->state, 2, memory_order_release);
	clients_note(c, "client %llu joined: %s (pid %u, uid %u), tenant \"%s\", model \"%s\"",
		(unsigned long long)conn->number, slot->name, slot->pid, slot->uid, slot->tenant, slot->model);
	ty_exchange_answer(x);
}

void clients_on_routed(void *self, struct ty_msg *msg)
{
	struct ty_route *route = ty_container_of(msg, struct ty_route, msg);
	struct clients *c = self;
	struct connection *conn = by_number(c, route->client);
	struct engine_entry *engine;
	enum ty_code sent;

	assert(conn != NULL);
	if (conn->state == CONNECTION_JOINING) {
		joined(c, conn, route);
		return;
	}
	assert(conn->state == CONNECTION_LEAVING);
	free(route);
	engine = conn->engine;
	/* nothing of this client comes to the engine behind this any more; the member is freed there */
	sent = ty_send(engine->actor, &conn->member->leave, TY_ENGINE_LEAVE);
	assert(sent == TY_OK);
	engine->members--;
	connection_release(c, conn);
	clients_settle(c);
}

void clients_leave(struct clients *c, struct connection *conn)
{
	struct ty_route *route = conn->route;
	enum ty_code sent;

	assert(conn->state == CONNECTION_JOINED && conn->fd < 0);
	conn->state = CONNECTION_LEAVING;
	conn->route = NULL;
	route->engine = NULL;
	route->hello = NULL;
	sent = ty_send(c->service->rpc, &route->msg, TY_RPC_ROUTE);
	assert(sent == TY_OK); /* rpc runs as long as anybody is here */
}

/* It is idle, and nobody asks for it any more. */
static void end_engine(struct clients *c, struct engine_entry *entry)
{
	struct engine_entry **link = &c->engines;

	assert(entry->members == 0 && entry->end != NULL);
	while (*link != entry)
		link = &(*link)->next;
	*link = entry->next;
	c->idle--;
	/* its message lives in its state: not touched after this */
	ty_actor_stop(entry->actor);
	ty_actor_unref(entry->actor);
	free(entry);
}

int64_t clients_expire_engines(struct clients *c, int64_t now)
{
	struct engine_entry *entry = c->engines, *next, *first = NULL;

	for (; entry != NULL; entry = next) {
		next = entry->next;
		if (entry->end == NULL)
			continue;
		if (c->stopping || entry->until <= now)
			end_engine(c, entry);
		else if (first == NULL || entry->until < first->until)
			first = entry;
	}
	if (c->idle > TY_CLIENTS_LINGER_MAX) {
		end_engine(c, first);
		return now;
	}
	return first != NULL ? first->until : TY_NEVER;
}

void clients_on_engine_gone(void *self, struct ty_msg *msg)
{
	struct ty_engine_end *end = ty_container_of(msg, struct ty_engine_end, msg);
	struct clients *c = self;
	struct engine_entry *entry = c->engines;

	while (entry != NULL && entry->actor != end->engine)
		entry = entry->next;
	if (entry == NULL)
		abort(); /* an engine that is none of ours */
	if (end->joins != entry->joins) { /* somebody joined while it was on its way */
		stay(entry, end);
		return;
	}
	entry->end = end;
	entry->until = ty_now() + TY_CLIENTS_LINGER_NS;
	c->idle++;
	clients_expire_engines(c, ty_now());
	clients_settle(c);
}
