/* SPDX-License-Identifier: Apache-2.0 */
#include "house.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/checksum.h"
#include "device/device.h"

static struct house *house; /* of the test that runs: one thread */

/* ---- who is played ----------------------------------------------------------------------------------------------------- */

static void unexpected(void *self, struct ty_msg *msg)
{
	(void)self;
	fail_msg("unexpected message %x", msg->type);
}

static void on_answer(void *self, struct ty_msg *msg)
{
	struct call *call = ty_container_of(ty_container_of(msg, struct ty_exchange, msg), struct call, x);

	(void)self;
	assert_int_equal(call->answers++, 0);
	call->code = call->x.code;
	call->registration = call->x.reply.registered.registration;
	if (call->request.verb_case == TYER__V1__REQUEST__VERB_LOOKUP)
		call->hits = call->x.reply.lookup.hits;
}

static void take_map(struct ty_msg *msg, bool unmap)
{
	assert_true(house->map_count < 16);
	house->unmap[house->map_count] = unmap;
	house->maps[house->map_count++] = ty_container_of(msg, struct ty_map, msg);
}

static void on_map(void *self, struct ty_msg *msg)
{
	(void)self;
	take_map(msg, false);
}

static void on_unmap(void *self, struct ty_msg *msg)
{
	(void)self;
	take_map(msg, true);
}

static void on_reserve(void *self, struct ty_msg *msg)
{
	(void)self;
	assert_true(house->op_count < 256);
	house->ops[house->op_count++] = ty_container_of(msg, struct ty_op, msg);
}

static void on_release(void *self, struct ty_msg *msg)
{
	struct ty_lease *lease = ty_container_of(msg, struct ty_lease, msg);

	(void)self;
	assert_int_equal(ty_send(lease->engine, msg, TY_ENGINE_RELEASED), TY_OK);
}

static void on_engine_gone(void *self, struct ty_msg *msg)
{
	struct ty_engine_end *end = ty_container_of(msg, struct ty_engine_end, msg);

	(void)self;
	if (end->joins == house->last_client)
		house->idle = end;
	else
		assert_int_equal(ty_send(end->engine, msg, TY_ENGINE_STAY), TY_OK);
}

static const struct ty_handler rpc_handlers[] = {{"start", unexpected}, {"answer", on_answer}};
static const struct ty_handler gpu_handlers[] = {{"start", unexpected}, {"transfer", unexpected}, {"map", on_map}, {"unmap", on_unmap}};
static const struct ty_handler eviction_handlers[] = {
	{"start", unexpected}, {"reserve", on_reserve}, {"commit", unexpected}, {"release", on_release}};
static const struct ty_handler clients_handlers[] = {
	{"start", unexpected}, {"hello", unexpected}, {"routed", unexpected}, {"device", unexpected}, {"engine gone", on_engine_gone}};
static const struct ty_class classes[] = {
	{.name = "rpc", .state_size = 8, .first_type = TY_RPC_START, .type_count = 2, .handlers = rpc_handlers},
	{.name = "gpu", .state_size = 8, .first_type = TY_GPU_START, .type_count = 4, .handlers = gpu_handlers},
	{.name = "eviction", .state_size = 8, .first_type = TY_EVICTION_START, .type_count = 4, .handlers = eviction_handlers},
	{.name = "clients", .state_size = 8, .first_type = TY_CLIENTS_START, .type_count = 5, .handlers = clients_handlers},
};

/* ---- the house --------------------------------------------------------------------------------------------------------- */

static void spawn(struct house *h, const struct ty_class *class, void *arg, struct ty_actor **out)
{
	struct ty_spawn_options pool = {.size = sizeof pool, .executor = TY_POOL, .cpu = -1};

	assert_int_equal(ty_spawn(h->rt, class, arg, &pool, out), TY_OK);
}

int house_open(void **state)
{
	struct ty_runtime_options ro = {.size = sizeof ro, .seed = 1};
	struct house *h = calloc(1, sizeof *h);
	struct ty_service *s = calloc(1, sizeof *s);
	struct ty_engine_arg *arg = calloc(1, sizeof *arg);

	urcu_memb_register_thread(); /* it reads the index, as the runtime's own threads do */
	house = h;
	h->service = s;
	h->config = (struct ty_config){
		.gpu_stall_after_us = 10000000, .chunk_tokens = H_CHUNK_TOKENS, .max_registrations = 8, .max_sessions = 8,
		.max_session_chunks = 1024, .max_operations = 128, .max_operation_chunks = H_OP_CHUNKS,
		.max_operation_bytes = UINT64_MAX, .max_all_operations = 1024, .max_all_operation_bytes = UINT64_MAX,
	};
	s->config = &h->config;
	s->session_chunks.all = TY_SESSION_CHUNKS_ALL;
	s->pool_bytes.all = TY_POOL_BYTES_ALL;
	s->gpu_count = 1;
	s->gpu_stats[0].state = TY_GPU_SERVING;
	assert_int_equal(ty_index_create(&s->index, NULL), TY_OK);
	assert_int_equal(ty_op_table_open(&s->operations, 1024, UINT64_MAX, NULL), TY_OK);
	assert_int_equal(ty_runtime_create(&ro, &h->rt, NULL), TY_OK);
	s->rt = h->rt;
	spawn(h, &classes[0], NULL, &s->rpc);
	spawn(h, &classes[1], NULL, &s->gpu[0]);
	spawn(h, &classes[2], NULL, &s->eviction);
	spawn(h, &classes[3], NULL, &s->clients);
	arg->service = s;
	assert_int_equal(ty_identity_set(&arg->identity, "tenant", "model", "", "bf16", "", NULL), TY_OK);
	spawn(h, &ty_engine_class, arg, &h->engine);
	*state = h;
	return 0;
}

int house_close(void **state)
{
	struct house *h = *state;
	struct ty_service *s = h->service;
	struct ty_actor *all[] = {h->engine, s->rpc, s->gpu[0], s->eviction, s->clients};

	house_run(h);
	assert_non_null(h->idle);
	assert_int_equal(s->pool_bytes.used, 0);
	assert_int_equal(s->operations.used, 0);
	ty_runtime_destroy(h->rt);
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
		ty_actor_unref(all[i]);
	ty_op_table_close(&s->operations);
	ty_index_destroy(s->index);
	urcu_memb_unregister_thread();
	free(s);
	free(h);
	return 0;
}

void house_pass(struct house *h, int64_t ns)
{
	int64_t until = ty_runtime_now(h->rt) + ns;

	while (ty_runtime_now(h->rt) < until && ty_runtime_step(h->rt))
		;
}

void house_run(struct house *h)
{
	house_pass(h, 1000000);
}

/* ---- clients ----------------------------------------------------------------------------------------------------------- */

struct ty_member *house_join(struct house *h)
{
	struct ty_member *m = calloc(1, sizeof *m);

	m->msg = m->leave = (struct ty_msg)TY_MSG_INIT;
	m->client = ++h->last_client;
	m->slot = &h->service->client_slots[m->client];
	m->descriptors = calloc(1, sizeof *m->descriptors);
	m->descriptors->refs = 1;
	assert_int_equal(ty_send(h->engine, &m->msg, TY_ENGINE_JOIN), TY_OK);
	if (h->idle)
		assert_int_equal(ty_send(h->engine, &h->idle->msg, TY_ENGINE_STAY), TY_OK);
	h->idle = NULL;
	return m;
}

void house_leave(struct house *h, struct ty_member *m)
{
	assert_int_equal(ty_send(h->engine, &m->leave, TY_ENGINE_LEAVE), TY_OK);
}

static struct call *new_call(struct house *h, const struct ty_member *m, Tyer__V1__Request__VerbCase verb, int64_t timeout)
{
	struct call *c = calloc(1, sizeof *c);

	tyer__v1__request__init(&c->request);
	c->request.client = m->client;
	c->request.id = ++h->last_id;
	c->request.verb_case = verb;
	c->x.request = &c->request;
	c->x.rpc = ty_actor_ref(h->service->rpc);
	c->x.received = ty_runtime_now(h->rt);
	c->x.deadline = c->x.received + timeout;
	return c;
}

static struct call *send_call(struct house *h, struct call *c)
{
	assert_int_equal(ty_send(h->engine, &c->x.msg, TY_ENGINE_REQUEST), TY_OK);
	return c;
}

struct call *house_register(struct house *h, const struct ty_member *m, uint64_t offset, int fd, const char *format, int64_t timeout)
{
	static uint8_t uuid[16], handle[TY_IPC_HANDLE_BYTES];
	static Tyer__V1__Region region, more, *regions[2] = {&region, &more};
	static Tyer__V1__Plane plane, other, *planes[2] = {&plane, &other};
	static Tyer__V1__Group group, *groups[1] = {&group};
	struct call *c = new_call(h, m, TYER__V1__REQUEST__VERB_REGISTER, timeout);

	tyer__v1__region__init(&region);
	region.memory_case = fd < 0 ? TYER__V1__REGION__MEMORY_IPC_HANDLE : TYER__V1__REGION__MEMORY_ATTACHED_FD;
	if (fd < 0)
		region.ipc_handle = (ProtobufCBinaryData){sizeof handle, handle};
	else
		region.attached_fd = (uint32_t)fd;
	region.offset = offset;
	region.length = H_BLOCKS * H_RUN;
	region.allocation_bytes = offset + region.length;
	more = region;
	more.attached_fd = (uint32_t)h->more_fd;
	tyer__v1__plane__init(&plane);
	tyer__v1__plane__init(&other);
	other.region = 1;
	tyer__v1__group__init(&group);
	group.block_tokens = H_BLOCK_TOKENS;
	group.block_count = H_BLOCKS;
	group.block_stride = group.run_bytes = H_RUN;
	group.n_planes = h->more_fd ? 2 : 1;
	group.planes = planes;
	tyer__v1__register__init(&c->verb.reg);
	c->verb.reg.device = (ProtobufCBinaryData){16, uuid};
	c->verb.reg.regions = regions;
	c->verb.reg.groups = groups;
	c->verb.reg.n_regions = h->more_fd ? 2 : 1;
	c->verb.reg.n_groups = 1;
	c->verb.reg.parts = 1;
	c->verb.reg.format = (char *)(uintptr_t)format;
	c->request.register_ = &c->verb.reg;
	send_call(h, c);
	house_run(h); /* its message is static */
	return c;
}

struct call *house_unregister(struct house *h, const struct ty_member *m, uint32_t registration, uint64_t request)
{
	struct call *c = new_call(h, m, TYER__V1__REQUEST__VERB_UNREGISTER, H_FOR_EVER);

	tyer__v1__unregister__init(&c->verb.unregister);
	c->verb.unregister.registration = registration;
	c->verb.unregister.request = request;
	c->request.unregister = &c->verb.unregister;
	return send_call(h, c);
}

struct call *house_lookup(struct house *h, const struct ty_member *m, uint64_t session, uint32_t chunks)
{
	struct call *c = new_call(h, m, TYER__V1__REQUEST__VERB_LOOKUP, H_FOR_EVER);

	assert_true(chunks <= H_OP_CHUNKS);
	for (uint32_t i = 0; i < chunks; i++)
		memcpy(c->hashes + (size_t)i * TY_KEY_BYTES, &(uint32_t){i + 1}, sizeof(uint32_t));
	tyer__v1__chain__init(&c->chain);
	c->chain.hashes = (ProtobufCBinaryData){chunks * TY_KEY_BYTES, c->hashes};
	tyer__v1__lookup__init(&c->verb.lookup);
	c->verb.lookup.session = session;
	c->verb.lookup.chain = &c->chain;
	c->request.lookup = &c->verb.lookup;
	return send_call(h, c);
}

static void set_blocks(struct call *c, uint32_t first, uint32_t count)
{
	tyer__v1__block_ids__init(&c->ids);
	c->ids.ids = c->blocks;
	c->ids.n_ids = count;
	c->ids_list[0] = &c->ids;
	for (uint32_t i = 0; i < count; i++)
		c->blocks[i] = first + i;
}

struct call *house_store(struct house *h, const struct ty_member *m, uint64_t session, uint32_t registration, uint32_t first_block)
{
	struct call *c = new_call(h, m, TYER__V1__REQUEST__VERB_STORE, H_FOR_EVER);

	set_blocks(c, first_block, H_OP_CHUNKS * H_PER_CHUNK);
	tyer__v1__store__init(&c->verb.store);
	c->verb.store.session = session;
	c->verb.store.registration = registration;
	c->verb.store.count = H_OP_CHUNKS;
	c->verb.store.blocks = c->ids_list;
	c->verb.store.n_blocks = 1;
	c->request.store = &c->verb.store;
	return send_call(h, c);
}

struct call *house_flush(struct house *h, const struct ty_member *m, uint32_t registration, uint32_t first_block, uint32_t blocks)
{
	struct call *c = new_call(h, m, TYER__V1__REQUEST__VERB_FLUSH, H_FOR_EVER);

	set_blocks(c, first_block, blocks);
	tyer__v1__flush__init(&c->verb.flush);
	c->verb.flush.registration = registration;
	c->verb.flush.blocks = c->ids_list;
	c->verb.flush.n_blocks = 1;
	c->request.flush = &c->verb.flush;
	return send_call(h, c);
}

struct call house_end(struct house *h, struct call *call)
{
	struct call c;

	house_run(h);
	assert_int_equal(call->answers, 1);
	c = *call;
	free(call);
	return c;
}

/* ---- what the owner and eviction send back ----------------------------------------------------------------------------- */

void house_send_map(struct house *h, enum ty_code code)
{
	struct ty_map *map = h->maps[0];

	assert_true(h->map_count > 0);
	if (!h->unmap[0])
		map->code = code == TY_OK ? TY_OK : ty_fail(&map->error, code, "the test says so");
	h->map_count--;
	memmove(h->maps, h->maps + 1, h->map_count * sizeof h->maps[0]);
	memmove(h->unmap, h->unmap + 1, h->map_count * sizeof h->unmap[0]);
	assert_int_equal(ty_send(map->home, &map->msg, map->home_type), TY_OK);
}

void house_land(struct house *h, uint64_t op)
{
	uint32_t i = 0;
	struct ty_op *found;

	while (i < h->op_count && h->ops[i]->id != op)
		i++;
	assert_true(i < h->op_count);
	found = h->ops[i];
	h->ops[i] = h->ops[--h->op_count];
	assert_int_equal(ty_send(found->home, &found->msg, found->home_type), TY_OK);
}

uint32_t house_have_pool(struct house *h, const struct ty_member *m, uint64_t offset, const char *format)
{
	struct call *call = house_register(h, m, offset, -1, format, H_FOR_EVER), answer;

	house_send_map(h, TY_OK);
	answer = house_end(h, call);
	assert_int_equal(answer.code, TY_OK);
	return answer.registration;
}
