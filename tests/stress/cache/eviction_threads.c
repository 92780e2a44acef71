/* SPDX-License-Identifier: Apache-2.0
 *
 * The eviction actor on real threads: engines that look up, read through their pins, give back (by lease, or pin by pin) and
 * store, beside an owner that fills slots, all on one pool, over an arena too small for them. Slots are plain memory: a slot
 * that is reused under a pin is a reported race, or a wrong word.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "actors/populate.h"
#include "actors/service.h"

enum { ENGINES = 3, FAMILIES = 6, CHUNKS = 10, ROUNDS = 8000, PIECES = 3, WORDS = 64 };

static struct ty_service service;
static struct ty_config config;
static _Atomic uint32_t finished;
static _Atomic uint64_t hits, stored, refused;

static struct ty_key key_of(uint32_t family, uint32_t chunk)
{
	struct ty_key key = {{0}};
	uint64_t word = (family * 100 + chunk + 1) * UINT64_C(0x9e3779b97f4a7c15);

	memcpy(key.bytes, &word, sizeof word);
	key.bytes[31] = (uint8_t)chunk;
	return key;
}

static uint64_t word_of(const struct ty_key *key)
{
	uint64_t word;

	memcpy(&word, key->bytes, sizeof word);
	return word;
}

/* ---- the owner and populate --------------------------------------------------------------------------- */

static void nothing(void *self, struct ty_msg *msg)
{
	(void)self, (void)msg;
	abort();
}

static void transfer(void *self, struct ty_msg *msg)
{
	struct ty_op *op = ty_container_of(msg, struct ty_op, msg);

	(void)self;
	for (uint32_t i = 0, copy = 0; i < op->count; i++) {
		if (op->chunks[i].fate != TY_FATE_MOVE)
			continue;
		uint64_t *words = (uint64_t *)(void *)op->copies[copy++].host;

		for (uint32_t k = 0; k < WORDS; k++)
			words[k] = word_of(&op->chunks[i].key);
	}
	if (op->id % 7 == 0)
		ty_op_fail(op, TY_DEVICE_FAILED, "as told");
	ty_op_raise_done(op);
	assert(ty_send(service.eviction, &op->msg, TY_EVICTION_COMMIT) == TY_OK);
}

static void piece_home(void *self, struct ty_msg *msg)
{
	(void)self;
	assert(ty_send(service.eviction, msg, TY_EVICTION_PIECE) == TY_OK);
}

static const struct ty_handler gpu_handlers[] = {
	{"start", nothing}, {"transfer", transfer}, {"map", nothing}, {"unmap", nothing}, {"piece", piece_home},
};
static const struct ty_class gpu_class = {
	.name = "gpu", .state_size = 8, .first_type = TY_GPU_START, .type_count = 5, .handlers = gpu_handlers,
};

static void populate_piece(void *self, struct ty_msg *msg)
{
	(void)self;
	assert(ty_send(ty_container_of(msg, struct ty_piece, msg)->gpu, msg, TY_GPU_PIECE) == TY_OK);
}

static const struct ty_handler populate_handlers[] = {{"piece", populate_piece}};
static const struct ty_class populate_class = {
	.name = "populate", .state_size = 8, .first_type = TY_POPULATE_PIECE, .type_count = 1,
	.handlers = populate_handlers,
};

/* ---- an engine: an op or a lease is out, or the next round begins -------------------------------------------- */

struct engine {
	uint64_t random;
	uint32_t rounds;
	struct ty_layout *layout;
	struct ty_op *op;
};

static uint32_t rnd(struct engine *e, uint32_t below)
{
	e->random = e->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)((e->random >> 33) % below);
}

static void read_through(const struct ty_chunk *chunk)
{
	const uint64_t *words = (const uint64_t *)(const void *)ty_slots_address(service.slots, chunk->slots[0]);

	for (uint32_t k = 0; k < WORDS; k++)
		assert(words[k] == word_of(&chunk->key));
	atomic_fetch_add_explicit(&hits, 1, memory_order_relaxed);
}

static void store(struct engine *e)
{
	struct ty_op *op = e->op;
	uint32_t family = rnd(e, FAMILIES);

	op->id++;
	op->kind = TY_OP_STORE;
	op->home = ty_self();
	op->home_type = TY_ENGINE_OP_DONE;
	op->mover = service.gpu[0];
	op->mover_type = TY_GPU_TRANSFER;
	op->deadline = TY_NEVER;
	op->code = TY_OK;
	op->done_raised = false;
	op->count = 1 + rnd(e, CHUNKS);
	/* families of two layouts, so that pieces change their class under the readers too */
	op->layout = &e->layout[0];
	e->layout->chunk_bytes = family % 2 ? 3u << 20 : 8u << 20;
	for (uint32_t i = 0; i < op->count; i++)
		op->chunks[i].key = key_of(family, i);
	assert(ty_send(service.eviction, &op->msg, TY_EVICTION_RESERVE) == TY_OK);
}

/* True: a lease is out. */
static bool look_up(struct engine *e)
{
	uint32_t family = rnd(e, FAMILIES), count = 1 + rnd(e, CHUNKS);
	struct ty_lease *lease = calloc(1, sizeof *lease + count * sizeof lease->chunks[0]);

	assert(lease);
	for (uint32_t i = 0; i < count; i++) {
		struct ty_key key = key_of(family, i);
		struct ty_chunk *chunk = ty_index_pin(service.index, &key);

		if (!chunk)
			break;
		lease->chunks[lease->count++] = chunk;
	}
	for (uint32_t i = 0; i < lease->count; i++)
		read_through(lease->chunks[i]);
	if (lease->count && rnd(e, 2)) {
		lease->engine = ty_self();
		assert(ty_send(service.eviction, &lease->msg, TY_EVICTION_RELEASE) == TY_OK);
		return true;
	}
	for (uint32_t i = 0; i < lease->count; i++)
		ty_chunk_unpin(lease->chunks[i]);
	free(lease);
	return false;
}

static void next_round(struct engine *e)
{
	while (e->rounds < ROUNDS) {
		e->rounds++;
		if (rnd(e, 3) == 0) {
			store(e);
			return;
		}
		if (look_up(e))
			return;
	}
	/* release: what this engine did comes before main's look at it */
	atomic_fetch_add_explicit(&finished, 1, memory_order_release);
}

static void begin(void *self, struct ty_msg *msg)
{
	(void)msg;
	next_round(self);
}

static void op_done(void *self, struct ty_msg *msg)
{
	struct ty_op *op = ty_container_of(msg, struct ty_op, msg);

	atomic_fetch_add_explicit(op->code == TY_OK ? &stored : &refused, op->code == TY_OK ? op->stored : 1,
		memory_order_relaxed);
	next_round(self);
}

static void released(void *self, struct ty_msg *msg)
{
	free(ty_container_of(msg, struct ty_lease, msg));
	next_round(self);
}

static enum ty_code engine_start(void *self, void *arg)
{
	struct engine *e = self;

	e->random = (uintptr_t)arg;
	e->layout = calloc(1, sizeof *e->layout);
	e->op = calloc(1, sizeof *e->op);
	assert(e->layout && e->op);
	e->layout->parts = e->layout->blocks_per_chunk = 1;
	e->op->chunks = calloc(CHUNKS, sizeof *e->op->chunks);
	e->op->copies = calloc(CHUNKS, sizeof *e->op->copies);
	e->op->blocks = calloc(CHUNKS, sizeof *e->op->blocks);
	assert(e->op->chunks && e->op->copies && e->op->blocks);
	return TY_OK;
}

static void engine_stop(void *self)
{
	struct engine *e = self;

	free(e->op->chunks);
	free(e->op->copies);
	free(e->op->blocks);
	free(e->op);
	free(e->layout);
}

static const struct ty_handler engine_handlers[] = {
	{"begin", begin}, {"join", nothing}, {"leave", nothing}, {"op done", op_done}, {"mapped", nothing},
	{"unmapped", nothing}, {"released", released},
};
static const struct ty_class engine_class = {
	.name = "engine", .state_size = sizeof(struct engine), .first_type = TY_ENGINE_REQUEST, .type_count = 7,
	.handlers = engine_handlers, .start = engine_start, .stop = engine_stop,
};

static void spawn(const struct ty_class *cls, void *arg, struct ty_actor **out)
{
	struct ty_spawn_options options = {.size = sizeof options, .executor = TY_POOL, .cpu = -1};

	if (ty_spawn(service.rt, cls, arg, &options, out) != TY_OK)
		abort();
}

int main(void)
{
	struct ty_runtime_options options = {.size = sizeof options, .workers = 3};
	static struct ty_msg begins[ENGINES], start;
	struct ty_actor *engines[ENGINES];
	const struct ty_eviction_stats *stats = &service.eviction_stats;
	struct ty_error err;

	config.l1_size = config.l1_ahead = PIECES * TY_PIECE_BYTES;
	service.config = &config;
	if (ty_arena_open(config.l1_size, &service.arena, &err) != TY_OK ||
		ty_slots_open(&service.arena, &service.slots, &err) != TY_OK ||
		ty_index_create(&service.index, &err) != TY_OK || ty_runtime_create(&options, &service.rt, &err) != TY_OK) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	spawn(&ty_eviction_class, &service, &service.eviction);
	spawn(&populate_class, NULL, &service.populate[0]);
	service.populate_count = 1;
	spawn(&gpu_class, NULL, &service.gpu[0]);
	service.gpu_count = 1;
	atomic_store(&service.gpu_stats[0].state, TY_GPU_SERVING);
	assert(ty_send(service.eviction, &start, TY_EVICTION_START) == TY_OK);
	for (uintptr_t i = 0; i < ENGINES; i++) {
		spawn(&engine_class, (void *)(i + 1), &engines[i]);
		assert(ty_send(engines[i], &begins[i], TY_ENGINE_REQUEST) == TY_OK);
	}
	while (atomic_load_explicit(&finished, memory_order_acquire) < ENGINES)
		usleep(1000);
	for (int i = 0; i < ENGINES; i++)
		ty_actor_unref(engines[i]);
	ty_actor_unref(service.gpu[0]);
	ty_actor_unref(service.populate[0]);
	ty_actor_unref(service.eviction);
	ty_runtime_destroy(service.rt);
	printf("%llu reads through pins, %llu chunks stored, %llu stores refused or failed, %llu evictions, %llu pieces reclaimed\n",
		(unsigned long long)hits, (unsigned long long)stored, (unsigned long long)refused,
		(unsigned long long)stats->evictions, (unsigned long long)stats->reclaimed_pieces);
	assert(hits && stored && refused && stats->evictions && stats->reclaimed_pieces);
	/* Nothing is out: what is in the index is visible, and has the slots that are in use. */
	assert(ty_index_count(service.index) == stats->chunks && ty_slots_used(service.slots) == stats->chunks);
	ty_index_destroy(service.index);
	ty_slots_close(service.slots);
	ty_arena_close(&service.arena);
	return 0;
}
