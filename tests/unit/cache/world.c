/* SPDX-License-Identifier: Apache-2.0 */
#include "world.h"

#include <stdlib.h>

struct world world;

static struct ty_error err;

/* ---- the owner ------------------------------------------------------------------------------------- */

struct gpu {
	uint32_t index;
};

static enum ty_code gpu_start(void *self, void *arg)
{
	((struct gpu *)self)->index = (uint32_t)(uintptr_t)arg;
	return TY_OK;
}

static void gpu_unexpected(void *self, struct ty_msg *msg)
{
	(void)self;
	fail_msg("the owner got message %x", msg->type);
}

static void gpu_transfer(void *self, struct ty_msg *msg)
{
	struct world_op *op = (struct world_op *)(void *)ty_container_of(msg, struct ty_op, msg);

	(void)self;
	assert_true(op->op.copy_count > 0 && op->op.copy_count <= op->op.count);
	op->next = world.at_gpu;
	world.at_gpu = op;
	world.at_gpu_count++;
}

static void piece_home(struct ty_piece *piece, uint32_t gpu)
{
	piece->code = world.piece_code[gpu] == TY_OK ? TY_OK : ty_fail(&piece->error, world.piece_code[gpu], "as told");
	if (ty_send(world.service->eviction, &piece->msg, TY_EVICTION_PIECE) != TY_OK)
		free(piece);
}

static void gpu_piece(void *self, struct ty_msg *msg)
{
	struct ty_piece *piece = ty_container_of(msg, struct ty_piece, msg);
	uint32_t gpu = ((struct gpu *)self)->index;

	world.piece_tries[gpu]++;
	if (world.hold_pieces)
		world.held[world.held_count++] = piece;
	else
		piece_home(piece, gpu);
}

static const struct ty_handler gpu_handlers[] = {
	{"start", gpu_unexpected}, {"transfer", gpu_transfer}, {"map", gpu_unexpected}, {"unmap", gpu_unexpected},
	{"piece", gpu_piece},
};
static const struct ty_class gpu_class = {
	.name = "gpu", .state_size = sizeof(struct gpu), .first_type = TY_GPU_START, .type_count = 5,
	.handlers = gpu_handlers, .start = gpu_start,
};

void world_let_pieces(void)
{
	for (uint32_t i = 0; i < world.held_count; i++) {
		struct ty_piece *piece = world.held[i];

		piece_home(piece, piece->gpu == world.service->gpu[0] ? 0 : 1);
	}
	world.held_count = 0;
	world.hold_pieces = false;
}

/* ---- the engine -------------------------------------------------------------------------------------- */

static void engine_op(void *self, struct ty_msg *msg)
{
	struct world_op *op = (struct world_op *)(void *)ty_container_of(msg, struct ty_op, msg);

	(void)self;
	assert_false(op->back); /* once */
	op->back = true;
	world.ops_back++;
	assert_int_equal(op->words[1], 1); /* its done word, whatever became of it */
	if (op->op.code == TY_OK)
		assert_int_equal(op->op.stored + op->op.present + op->op.dropped, op->op.count);
	else
		assert_int_equal(op->op.stored, 0);
}

static void engine_released(void *self, struct ty_msg *msg)
{
	(void)self;
	world.leases_back++;
	ty_lease_free(ty_container_of(msg, struct ty_lease, msg));
}

static void engine_fetched(void *self, struct ty_msg *msg)
{
	struct world_fetch *f = ty_container_of(msg, struct ty_fetch, msg)->user;

	(void)self;
	assert_false(f->back);
	f->back = true;
}

static const struct ty_handler engine_handlers[] = {
	{"op done", engine_op}, {"mapped", gpu_unexpected}, {"unmapped", gpu_unexpected}, {"released", engine_released},
	{"tick", gpu_unexpected}, {"fetched", engine_fetched},
};
static const struct ty_class engine_class = {
	.name = "engine", .state_size = 8, .first_type = TY_ENGINE_OP_DONE, .type_count = 6, .handlers = engine_handlers,
};

/* ---- the administration's edge --------------------------------------------------------------------------- */

static void rpc_answer(void *self, struct ty_msg *msg)
{
	struct world_request *request = (struct world_request *)(void *)ty_container_of(msg, struct ty_exchange, msg);

	(void)self;
	assert_false(request->back); /* once */
	request->back = true;
}

static const struct ty_handler rpc_handlers[] = {{"answer", rpc_answer}};
static const struct ty_class rpc_class = {
	.name = "rpc", .state_size = 8, .first_type = TY_RPC_ANSWER, .type_count = 1, .handlers = rpc_handlers,
};

/* ---- populate ------------------------------------------------------------------------------------------ */

static void impostor_piece(void *self, struct ty_msg *msg)
{
	struct ty_piece *piece = ty_container_of(msg, struct ty_piece, msg);

	(void)self;
	world.touched++;
	assert_int_equal(ty_send(piece->gpu, &piece->msg, TY_GPU_PIECE), TY_OK);
}

static void impostor_refuse(void *self, struct ty_msg *msg)
{
	(void)self;
	free(ty_container_of(msg, struct ty_piece, msg));
}

static const struct ty_handler impostor_handlers[] = {{"piece", impostor_piece}};
static const struct ty_class impostor_class = {
	.name = "populate", .state_size = 8, .first_type = TY_POPULATE_PIECE, .type_count = 1,
	.handlers = impostor_handlers, .refuse = impostor_refuse,
};

/* ---- open and close -------------------------------------------------------------------------------------- */

static void spawn(const struct ty_class *cls, void *arg, struct ty_actor **out)
{
	struct ty_spawn_options options = {.size = sizeof options, .executor = TY_POOL, .cpu = -1};

	assert_int_equal(ty_spawn(world.rt, cls, arg, &options, out), TY_OK);
}

static void open_tiers(const struct world_options *options)
{
	struct ty_service *s = world.service;
	static struct ty_msg start[2];

	for (int i = 0; i < 2 && options->tier[i]; i++)
		strcpy(world.config.tier[world.config.tier_count++], options->tier[i]);
	if (!world.config.tier_count)
		return;
	world.config.drain_timeout_us = 1000000;
	world.config.pack_threads = 2;
	assert_ok(ty_tiers_open(s, &err), &err);
	assert_ok(ty_packers_spawn(s, &err), &err);
	for (uint32_t i = 0; i < s->tier_count; i++) {
		spawn(s->tiers[i]->cls->actor, s->tiers[i], &s->tiers[i]->actor);
		start[i] = (struct ty_msg)TY_MSG_INIT;
		assert_int_equal(ty_send(s->tiers[i]->actor, &start[i], TY_TIER_START), TY_OK);
	}
	spawn(&ty_writeback_class, s, &s->writeback);
	spawn(&ty_prefetch_class, s, &s->prefetch);
}

static void count_stopped(struct ty_stop *stop)
{
	(*(int *)stop->user)++;
}

/* As the service does it. */
static void close_tiers(void)
{
	struct ty_service *s = world.service;
	uint32_t steps = 0;
	int stopped = 0;
	struct ty_stop eviction = {.stopped = count_stopped, .user = &stopped}, writeback = eviction, prefetch = eviction;
	static struct ty_msg stop[2];

	if (!s->tier_count)
		return;
	assert_int_equal(ty_send(s->eviction, &eviction.msg, TY_EVICTION_STOP), TY_OK);
	while (!stopped && steps++ < 10000)
		world_steps(1);
	assert_int_equal(stopped, 1);
	assert_int_equal(ty_send(s->writeback, &writeback.msg, TY_WRITEBACK_STOP), TY_OK);
	assert_int_equal(ty_send(s->prefetch, &prefetch.msg, TY_PREFETCH_STOP), TY_OK);
	world_steps(10000);
	for (uint32_t i = 0; i < s->tier_count; i++) {
		stop[i] = (struct ty_msg)TY_MSG_INIT;
		atomic_store_explicit(&s->tiers[i]->ending, true, memory_order_release);
		assert_int_equal(ty_send(s->tiers[i]->actor, &stop[i], TY_TIER_STOP), TY_OK);
	}
	world_idle();
	assert_int_equal(stopped, 3);
	ty_actor_unref(s->writeback);
	ty_actor_unref(s->prefetch);
	for (uint32_t i = 0; i < s->tier_count; i++)
		ty_actor_unref(s->tiers[i]->actor);
	ty_packers_release(s);
}

static void open_spaces(struct ty_service *s, const char *const tenants[2])
{
	static const char *const usual[2] = {"first", "second"};
	uint32_t count;
	struct ty_space_record *records = ty_slots_spaces(s->slots, &count);

	ty_spaces_open(&s->spaces, records, count);
	for (unsigned i = 0; i < 2; i++) {
		struct ty_identity identity;

		assert_ok(ty_identity_set(&identity, tenants[i] ? tenants[i] : usual[i], "model", NULL, "bf16", NULL, &err), &err);
		world.spaces[i] = ty_spaces_number(&s->spaces, &identity);
	}
}

void world_open(const struct world_options *options)
{
	struct ty_runtime_options ro = {.size = sizeof ro, .seed = options->seed ? options->seed : 1};
	struct ty_service *s = calloc(1, sizeof *s);
	static struct ty_msg start;

	memset(&world, 0, sizeof world);
	urcu_memb_register_thread(); /* this thread plays all of the runtime's */
	world.service = s;
	world.hold_pieces = options->hold_pieces;
	world.config.l1_size = options->pieces * TY_PIECE_BYTES;
	world.config.l1_ahead = options->ahead ? options->ahead : world.config.l1_size;
	world.config.policy = options->policy;
	memcpy(world.config.quotas, options->quotas, sizeof options->quotas);
	world.config.quota_count = options->quota_count;
	world.config.keep_percent = options->keep_percent;
	s->config = &world.config;
	assert_ok(ty_arena_open(world.config.l1_size, &s->arena, &err), &err);
	assert_ok(ty_slots_open(&s->arena, &s->slots, &err), &err);
	open_spaces(s, options->tenants);
	assert_ok(ty_index_create(&s->index, &err), &err);
	assert_ok(ty_runtime_create(&ro, &world.rt, &err), &err);
	s->rt = world.rt;
	spawn(&ty_eviction_class, s, &s->eviction);
	if (options->sums) {
		spawn(&ty_bytework_class, s, &s->bytework[0]);
		s->bytework_count = 1;
	}
	spawn(options->real_populate ? &ty_populate_class : &impostor_class, s, &s->populate[0]);
	s->populate_count = 1;
	s->gpu_count = options->gpus ? options->gpus : 1;
	for (uint32_t i = 0; i < s->gpu_count; i++) {
		spawn(&gpu_class, (void *)(uintptr_t)i, &s->gpu[i]);
		atomic_store(&s->gpu_stats[i].state, TY_GPU_SERVING);
	}
	open_tiers(options);
	spawn(&engine_class, NULL, &world.engine);
	spawn(&rpc_class, NULL, &world.rpc);
	start = (struct ty_msg)TY_MSG_INIT;
	assert_int_equal(ty_send(s->eviction, &start, TY_EVICTION_START), TY_OK);
	if (!options->dont_start)
		world_idle();
}

void world_close(void)
{
	struct ty_service *s = world.service;

	close_tiers();
	ty_actor_unref(s->eviction);
	if (s->bytework_count)
		ty_actor_unref(s->bytework[0]);
	ty_actor_unref(s->populate[0]);
	for (uint32_t i = 0; i < s->gpu_count; i++)
		ty_actor_unref(s->gpu[i]);
	ty_actor_unref(world.engine);
	ty_actor_unref(world.rpc);
	ty_runtime_destroy(world.rt);
	assert_int_equal(world.ops_back, world.ops_out);
	assert_int_equal(world.leases_back, world.leases_out);
	for (uint32_t i = 0; i < world.held_count; i++)
		free(world.held[i]);
	urcu_memb_unregister_thread();
	ty_tiers_close(s);
	ty_index_destroy(s->index);
	ty_slots_close(s->slots);
	ty_arena_close(&s->arena);
	free(s);
}

void world_idle(void)
{
	while (ty_runtime_step(world.rt))
		;
}

void world_steps(uint32_t n)
{
	while (n-- && ty_runtime_step(world.rt))
		;
}

void world_pass(int64_t ns)
{
	int64_t until = ty_runtime_now(world.rt) + ns;

	while (ty_runtime_now(world.rt) < until && ty_runtime_step(world.rt))
		;
}

/* ---- contents ---------------------------------------------------------------------------------------------- */

struct ty_key world_key(uint32_t family, uint32_t chunk)
{
	uint64_t random = (uint64_t)family << 32 | chunk;
	struct ty_key key;

	for (int i = 0; i < 4; i++) {
		uint64_t word = next_random(&random);

		memcpy(key.bytes + i * 8, &word, 8);
	}
	return key;
}

static void write_word(uint8_t *at, const struct ty_key *key, uint64_t part)
{
	uint64_t word;

	memcpy(&word, key->bytes, 8);
	word += part;
	memcpy(at, &word, 8);
}

/* The first and the last words of a slot say whose it is. */
static void fill(uint32_t slot, uint64_t bytes, const struct ty_key *key, uint32_t part)
{
	uint8_t *at = ty_slots_address(world.service->slots, slot);

	write_word(at, key, part);
	write_word(at + bytes - 8, key, part);
}

static void check_contents(const struct ty_chunk *chunk)
{
	for (uint32_t part = 0; part < chunk->parts; part++) {
		const struct ty_slot_record *record = ty_slots_record(world.service->slots, chunk->slots[part]);
		const uint8_t *at = ty_slots_address(world.service->slots, chunk->slots[part]);
		uint8_t want[8];

		write_word(want, &chunk->key, part);
		assert_memory_equal(at, want, 8);
		assert_memory_equal(at + record->length - 8, want, 8);
	}
}

/* ---- requests ------------------------------------------------------------------------------------------------ */

struct world_op *world_store(uint32_t family, uint32_t first, uint32_t count, uint64_t chunk_bytes, uint32_t part,
	uint32_t parts)
{
	struct world_op *op = calloc(1, sizeof *op);

	op->layout.part = part;
	op->layout.parts = parts;
	op->layout.chunk_bytes = chunk_bytes;
	op->layout.blocks_per_chunk = 1;
	op->timeline.words = op->words;
	op->timeline.refs = 1;
	op->op.kind = TY_OP_STORE;
	op->op.home = world.engine;
	op->op.home_type = TY_ENGINE_OP_DONE;
	op->op.mover = world.service->gpu[0];
	op->op.mover_type = TY_GPU_TRANSFER;
	op->op.deadline = TY_NEVER;
	op->op.space = world.spaces[family % 2];
	op->op.layout = &op->layout;
	op->op.timeline = &op->timeline;
	op->op.done = (struct ty_mark){1, 1};
	op->op.count = count;
	op->op.chunks = calloc(count, sizeof *op->op.chunks);
	op->op.blocks = calloc(count, sizeof *op->op.blocks);
	op->op.copies = calloc(count, sizeof *op->op.copies);
	for (uint32_t i = 0; i < count; i++) {
		op->op.chunks[i].key = world_key(family, first + i);
		op->op.blocks[i] = i;
	}
	world.ops_out++;
	assert_int_equal(ty_send(world.service->eviction, &op->op.msg, TY_EVICTION_RESERVE), TY_OK);
	return op;
}

void world_free(struct world_op *op)
{
	assert_true(op->back);
	free(op->op.chunks);
	free(op->op.blocks);
	free(op->op.copies);
	free(op);
}

void world_copied(struct world_op *op, enum ty_code code)
{
	struct world_op **link = &world.at_gpu;
	uint32_t copies = 0;

	while (*link != op) {
		assert_non_null(*link);
		link = &(*link)->next;
	}
	*link = op->next;
	world.at_gpu_count--;
	for (uint32_t i = 0; i < op->op.count; i++) {
		struct ty_op_chunk *c = &op->op.chunks[i];

		if (c->fate != TY_FATE_MOVE)
			continue;
		assert_ptr_equal(op->op.copies[copies].host, ty_slots_address(world.service->slots, c->slot));
		assert_int_equal(*op->op.copies[copies].blocks, i);
		copies++;
		if (code == TY_OK)
			fill(c->slot, op->layout.chunk_bytes, &c->key, op->layout.part);
	}
	assert_int_equal(copies, op->op.copy_count);
	if (code != TY_OK)
		ty_op_fail(&op->op, code, "as told");
	ty_op_raise_done(&op->op);
	assert_int_equal(ty_send(world.service->eviction, &op->op.msg, TY_EVICTION_COMMIT), TY_OK);
}

enum ty_code world_store_now(uint32_t family, uint32_t first, uint32_t count, uint64_t chunk_bytes)
{
	struct world_op *op = world_store(family, first, count, chunk_bytes, 0, 1);
	enum ty_code code;

	world_idle();
	if (!op->back)
		world_copied(op, TY_OK);
	world_idle();
	code = op->op.code;
	world_free(op);
	return code;
}

void world_fetch(struct world_fetch *f, uint32_t family, uint32_t first, uint32_t count)
{
	struct ty_key keys[64];

	assert_true(count <= 64);
	for (uint32_t i = 0; i < count; i++)
		keys[i] = world_key(family, first + i);
	*f = (struct world_fetch){.fetch = ty_fetch_create(keys, count), .family = family, .first = first, .out = true};
	assert_non_null(f->fetch);
	f->fetch->home = world.engine;
	f->fetch->home_type = TY_ENGINE_FETCHED;
	f->fetch->user = f;
	f->fetch->priority = TY_FETCH_LOOKUP;
	f->fetch->space = world.spaces[family % 2];
	assert_int_equal(ty_send(world.service->prefetch, &f->fetch->msg, TY_PREFETCH_FETCH), TY_OK);
}

uint32_t world_fetched(struct world_fetch *f)
{
	struct ty_lease *lease = f->fetch->lease;
	uint32_t here = lease->count;

	assert_true(f->out && f->back);
	world_check_lease(lease);
	for (uint32_t i = 0; i < here; i++) {
		struct ty_key key = world_key(f->family, f->first + i);

		assert_memory_equal(&lease->chunks[i]->key, &key, sizeof key);
	}
	if (here) {
		f->fetch->lease = NULL;
		world_release(lease);
	}
	ty_fetch_free(f->fetch);
	f->out = false;
	return here;
}

struct ty_lease *world_lookup(uint32_t family, uint32_t count)
{
	struct ty_lease *lease = calloc(1, sizeof *lease + count * sizeof lease->chunks[0]);

	for (uint32_t i = 0; i < count; i++) {
		struct ty_key key = world_key(family, i);
		struct ty_chunk *chunk = ty_index_pin(world.service->index, &key);

		if (!chunk)
			break;
		assert_memory_equal(&chunk->key, &key, sizeof key);
		lease->chunks[lease->count++] = chunk;
	}
	if (lease->count == 0) {
		free(lease);
		return NULL;
	}
	lease->engine = world.engine;
	world_check_lease(lease);
	return lease;
}

void world_check_lease(const struct ty_lease *lease)
{
	for (uint32_t i = 0; i < lease->count; i++) {
		assert_int_equal(ty_chunk_state(lease->chunks[i]), TY_CHUNK_READY);
		check_contents(lease->chunks[i]);
	}
}

void world_release(struct ty_lease *lease)
{
	world.leases_out++;
	assert_int_equal(ty_send(world.service->eviction, &lease->msg, TY_EVICTION_RELEASE), TY_OK);
}

bool world_here(uint32_t family, uint32_t chunk)
{
	struct ty_key key = world_key(family, chunk);
	struct ty_chunk *found = ty_index_pin(world.service->index, &key);

	if (found)
		ty_chunk_unpin(found);
	return found;
}

void world_prepare(struct world_request *r, Tyer__V1__Request__VerbCase verb)
{
	memset(r, 0, sizeof *r);
	tyer__v1__request__init(&r->q);
	tyer__v1__select__init(&r->select);
	r->q.verb_case = verb;
	r->q.pin = &r->verb.pin; /* one of the union's pointers */
	switch (verb) {
	case TYER__V1__REQUEST__VERB_LIST:
		tyer__v1__list__init(&r->verb.list);
		r->verb.list.select = &r->select;
		break;
	case TYER__V1__REQUEST__VERB_UNPIN:
		tyer__v1__unpin__init(&r->verb.unpin);
		r->verb.unpin.select = &r->select;
		break;
	case TYER__V1__REQUEST__VERB_DELETE:
		tyer__v1__delete__init(&r->verb.delete_);
		r->verb.delete_.select = &r->select;
		break;
	case TYER__V1__REQUEST__VERB_CLEAR:
		tyer__v1__clear__init(&r->verb.clear);
		r->verb.clear.select = &r->select;
		break;
	case TYER__V1__REQUEST__VERB_WARM:
		tyer__v1__warm__init(&r->verb.warm);
		r->verb.warm.select = &r->select;
		break;
	case TYER__V1__REQUEST__VERB_CONFIGURE:
		tyer__v1__configure__init(&r->verb.configure);
		break;
	default:
		tyer__v1__pin__init(&r->verb.pin);
		r->verb.pin.select = &r->select;
		break;
	}
	r->x.request = &r->q;
	r->x.deadline = TY_NEVER;
}

void world_name_keys(struct world_request *r, uint32_t family, uint32_t count)
{
	assert_true(count <= WORLD_NAMED_MAX);
	for (uint32_t i = 0; i < count; i++) {
		r->keys[i] = world_key(family, i);
		r->key_at[i] = (ProtobufCBinaryData){.len = TY_KEY_BYTES, .data = r->keys[i].bytes};
	}
	r->select.n_keys = count;
	r->select.keys = r->key_at;
}

void world_name_tenant(struct world_request *r, const char *name)
{
	snprintf(r->tenant, sizeof r->tenant, "%s", name);
	r->tenant_at = r->tenant;
	r->select.n_tenants = 1;
	r->select.tenants = &r->tenant_at;
}

void world_ask(struct world_request *r, Tyer__V1__Request__VerbCase verb)
{
	assert_int_equal(r->q.verb_case, verb);
	r->x.rpc = ty_actor_ref(world.rpc);
	assert_int_equal(ty_send(world.service->eviction, &r->x.msg, TY_EVICTION_CONTROL), TY_OK);
}

void world_forget(struct world_request *r)
{
	assert_true(r->back);
	if (r->x.code == TY_OK)
		protobuf_c_message_free_unpacked(r->x.reply.message, NULL);
}

/* ---- what must hold -------------------------------------------------------------------------------------------- */

uint64_t world_stat(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void world_check(uint32_t families, uint32_t chunks)
{
	const struct ty_service *s = world.service;
	uint32_t slots = 0, known = 0, visible = 0;
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < families * chunks; i++) {
		struct ty_key key = world_key(i / chunks, i % chunks);
		struct ty_chunk *chunk = ty_index_find(s->index, &key);
		uint32_t filled = 0, filling = 0;

		if (!chunk)
			continue;
		known++;
		for (uint32_t part = 0; part < chunk->parts; part++) {
			const struct ty_slot_record *record;
			bool here = chunk->committed >> part & 1;

			if (chunk->slots[part] == TY_NO_SLOT) {
				assert_false(here);
				continue;
			}
			record = ty_slots_record(s->slots, chunk->slots[part]);
			/* Key and part are the slot's: no two chunks have one slot. */
			assert_memory_equal(&record->key, &key, sizeof key);
			assert_int_equal(record->part, part);
			assert_int_equal(record->parts, chunk->parts);
			assert_int_equal(record->state, here ? TY_SLOT_READY : TY_SLOT_FILLING);
			assert_true(ty_slots_record_whole(record));
			slots++;
			bytes += record->length;
			filled += here;
			filling += !here;
		}
		assert_true(filled + filling > 0); /* a chunk without a slot would be nothing */
		assert_int_equal(chunk->filling, filling);
		assert_int_equal(ty_chunk_state(chunk), filled == chunk->parts ? TY_CHUNK_READY : TY_CHUNK_FILLING);
		if (filled == chunk->parts) {
			check_contents(chunk);
			visible++;
		}
	}
	assert_int_equal(ty_index_count(s->index), known);
	assert_int_equal(ty_slots_used(s->slots), slots);
	assert_int_equal(ty_slots_used_bytes(s->slots), bytes);
	assert_int_equal(world_stat(&s->eviction_stats.used_bytes), bytes);
	assert_int_equal(world_stat(&s->eviction_stats.chunks), visible);
}
