/* SPDX-License-Identifier: Apache-2.0
 *
 * The eviction actor on real threads: engines that look up, read through their pins, give back (by lease, or pin by pin) and
 * store, beside an owner that fills slots, all on one pool, over an arena too small for them. Slots are plain memory: a slot
 * that is reused under a pin is a reported race, or a wrong word. With "tiers": small quotas instead, over two tiers that
 * misbehave, with writeback and prefetch, and engines that fetch what is below.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "actors/populate.h"
#include "actors/service.h"
#include "tests/unit/tiers/fault.h"

enum { ENGINES = 3, FAMILIES = 6, CHUNKS = 10, ROUNDS = 8000, TIERS_ROUNDS = 2000, PIECES = 3, WORDS = 64 };

#define SMALL 16384

static struct ty_service service;
static struct ty_config config;
static _Atomic uint32_t finished, rounds;
static _Atomic uint64_t hits, stored, refused;
static bool with_tiers;
static uint16_t space; /* of all, with tiers */

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
	struct ty_fetch *fetch;
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
	e->layout->chunk_bytes = with_tiers ? SMALL : family % 2 ? 3u << 20 : 8u << 20;
	op->space = space;
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

static void fetch(struct engine *e)
{
	uint32_t family = rnd(e, FAMILIES), count = 1 + rnd(e, CHUNKS);
	struct ty_key keys[CHUNKS];
	struct ty_fetch *f;

	for (uint32_t i = 0; i < count; i++)
		keys[i] = key_of(family, i);
	f = ty_fetch_create(keys, count);
	assert(f);
	f->home = ty_self();
	f->home_type = TY_ENGINE_FETCHED;
	f->priority = TY_FETCH_LOOKUP;
	f->space = space;
	e->fetch = f;
	assert(ty_send(service.prefetch, &f->msg, TY_PREFETCH_FETCH) == TY_OK);
	/* Freed by this actor alone, later. Release: pairs with prefetch's acquire. */
	if (rnd(e, 8) == 0)
		atomic_store_explicit(&f->cancelled, true, memory_order_release);
}

/* Now and then, whoever's turn it is. A tier hangs until the next time; who waits for it gives up after a second. */
static void misbehave(void)
{
	uint32_t round = atomic_fetch_add_explicit(&rounds, 1, memory_order_relaxed), turn = round / 64;
	struct fault *f = &fault[turn % FAULTS];

	if (round % 64)
		return;
	f->fail_every = turn % 3 ? 0 : 2;
	f->wrong_every = turn % 4 ? 0 : 3;
	f->full = turn % 5 == 4;
	f->hang = turn % 32 == 31;
	f->delay_ns = turn % 2 ? 0 : 100000;
	fault_let(service.tiers[turn % FAULTS]);
}

static void next_round(struct engine *e)
{
	while (e->rounds < (with_tiers ? TIERS_ROUNDS : ROUNDS)) {
		e->rounds++;
		if (with_tiers)
			misbehave();
		if (with_tiers && rnd(e, 2)) {
			fetch(e);
			return;
		}
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

static void fetched(void *self, struct ty_msg *msg)
{
	struct engine *e = self;
	struct ty_fetch *f = ty_container_of(msg, struct ty_fetch, msg);
	struct ty_lease *lease = f->lease;

	assert(f == e->fetch);
	for (uint32_t i = 0; i < lease->count; i++) {
		assert(memcmp(&lease->chunks[i]->key, &f->keys[i], sizeof f->keys[i]) == 0);
		read_through(lease->chunks[i]);
	}
	if (lease->count) {
		f->lease = NULL;
		assert(ty_send(service.eviction, &lease->msg, TY_EVICTION_RELEASE) == TY_OK);
		ty_fetch_free(f);
		return; /* the lease comes back */
	}
	ty_fetch_free(f);
	next_round(e);
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
	{"unmapped", nothing}, {"released", released}, {"tick", nothing}, {"fetched", fetched},
};
static const struct ty_class engine_class = {
	.name = "engine", .state_size = sizeof(struct engine), .first_type = TY_ENGINE_REQUEST, .type_count = 9,
	.handlers = engine_handlers, .start = engine_start, .stop = engine_stop,
};

static void spawn(const struct ty_class *cls, void *arg, struct ty_actor **out)
{
	struct ty_spawn_options options = {.size = sizeof options, .executor = TY_POOL, .cpu = -1};

	if (ty_spawn(service.rt, cls, arg, &options, out) != TY_OK)
		abort();
}

/* ---- tiers --------------------------------------------------------------------------------------------------------- */

static void open_tiers(void)
{
	struct ty_identity identity;
	struct ty_error err;
	uint32_t count;
	struct ty_space_record *records = ty_slots_spaces(service.slots, &count);

	ty_spaces_open(&service.spaces, records, count);
	assert(ty_identity_set(&identity, "tenant", "model", NULL, "bf16", NULL, &err) == TY_OK);
	space = ty_spaces_number(&service.spaces, &identity);
	strcpy(config.quotas[0].tenant, "tenant");
	config.quotas[0].hard = 24 * SMALL;
	config.quota_count = 1;
	config.drain_timeout_us = 100000;
	config.pack_threads = 2;
	strcpy(config.tier[0], "fault:0,ops=4,queue=16,compress=zstd");
	strcpy(config.tier[1], "fault:1,write=evict,pins=64KiB");
	config.tier_count = FAULTS;
	assert(ty_tiers_open(&service, &err) == TY_OK);
}

static void spawn_tiers(void)
{
	static struct ty_msg starts[FAULTS];
	struct ty_error err;

	assert(ty_packers_spawn(&service, &err) == TY_OK);
	for (uint32_t i = 0; i < FAULTS; i++) {
		spawn(service.tiers[i]->cls->actor, service.tiers[i], &service.tiers[i]->actor);
		assert(ty_send(service.tiers[i]->actor, &starts[i], TY_TIER_START) == TY_OK);
	}
	spawn(&ty_writeback_class, &service, &service.writeback);
	spawn(&ty_prefetch_class, &service, &service.prefetch);
}

static void note_stopped(struct ty_stop *stop)
{
	atomic_fetch_add_explicit((_Atomic int *)stop->user, 1, memory_order_release);
}

/* As the service does it. */
static void stop_tiers(void)
{
	static struct ty_msg stops[FAULTS];
	static _Atomic int stopped;
	struct ty_stop writeback = {.stopped = note_stopped, .user = &stopped}, prefetch = writeback;

	assert(ty_send(service.writeback, &writeback.msg, TY_WRITEBACK_STOP) == TY_OK);
	assert(ty_send(service.prefetch, &prefetch.msg, TY_PREFETCH_STOP) == TY_OK);
	usleep(10000);
	for (uint32_t i = 0; i < FAULTS; i++) {
		atomic_store_explicit(&service.tiers[i]->ending, true, memory_order_release);
		assert(ty_send(service.tiers[i]->actor, &stops[i], TY_TIER_STOP) == TY_OK);
	}
	while (atomic_load_explicit(&stopped, memory_order_acquire) < 2)
		usleep(1000);
}

static void check_tiers(void)
{
	uint64_t puts = 0, gets = 0;

	for (uint32_t i = 0; i < FAULTS; i++) {
		const struct ty_tier_stats *s = &service.tiers[i]->stats;

		assert(!s->buffer_bytes && !s->queued && !s->pinned_bytes && !s->in_flight[0] && !s->in_flight[1]);
		puts += fault[i].puts;
		gets += fault[i].gets;
		ty_actor_unref(service.tiers[i]->actor);
	}
	ty_actor_unref(service.writeback);
	ty_actor_unref(service.prefetch);
	ty_packers_release(&service);
	printf("%llu chunks written, %llu read, %llu loads shared, %llu fetches cancelled\n", (unsigned long long)puts,
		(unsigned long long)gets, (unsigned long long)service.prefetch_stats.shared,
		(unsigned long long)service.prefetch_stats.cancelled);
	assert(puts && gets && service.prefetch_stats.loaded && service.prefetch_stats.cancelled);
}

int main(int argc, char **argv)
{
	struct ty_runtime_options options = {.size = sizeof options, .workers = 3};
	static struct ty_msg begins[ENGINES], start;
	struct ty_actor *engines[ENGINES];
	const struct ty_eviction_stats *stats = &service.eviction_stats;
	struct ty_error err;

	with_tiers = argc > 1 && strcmp(argv[1], "tiers") == 0;
	config.l1_size = config.l1_ahead = PIECES * TY_PIECE_BYTES;
	service.config = &config;
	if (ty_arena_open(config.l1_size, &service.arena, &err) != TY_OK ||
		ty_slots_open(&service.arena, &service.slots, &err) != TY_OK ||
		ty_index_create(&service.index, &err) != TY_OK || ty_runtime_create(&options, &service.rt, &err) != TY_OK) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	if (with_tiers)
		open_tiers(); /* eviction's start reads the quotas */
	spawn(&ty_eviction_class, &service, &service.eviction);
	spawn(&populate_class, NULL, &service.populate[0]);
	service.populate_count = 1;
	spawn(&gpu_class, NULL, &service.gpu[0]);
	service.gpu_count = 1;
	atomic_store(&service.gpu_stats[0].state, TY_GPU_SERVING);
	if (with_tiers)
		spawn_tiers();
	assert(ty_send(service.eviction, &start, TY_EVICTION_START) == TY_OK);
	for (uintptr_t i = 0; i < ENGINES; i++) {
		spawn(&engine_class, (void *)(i + 1), &engines[i]);
		assert(ty_send(engines[i], &begins[i], TY_ENGINE_REQUEST) == TY_OK);
	}
	while (atomic_load_explicit(&finished, memory_order_acquire) < ENGINES)
		usleep(1000);
	if (with_tiers)
		stop_tiers();
	for (int i = 0; i < ENGINES; i++)
		ty_actor_unref(engines[i]);
	ty_actor_unref(service.gpu[0]);
	ty_actor_unref(service.populate[0]);
	ty_actor_unref(service.eviction);
	ty_runtime_destroy(service.rt);
	if (with_tiers)
		check_tiers();
	printf("%llu reads through pins, %llu chunks stored, %llu stores refused or failed, %llu evictions, %llu pieces reclaimed\n",
		(unsigned long long)hits, (unsigned long long)stored, (unsigned long long)refused,
		(unsigned long long)stats->evictions, (unsigned long long)stats->reclaimed_pieces);
	assert(hits && stored && refused && stats->evictions && (with_tiers || stats->reclaimed_pieces));
	/* Nothing is out: what is in the index is visible, and has the slots that are in use. */
	assert(ty_index_count(service.index) == stats->chunks && ty_slots_used(service.slots) == stats->chunks);
	ty_tiers_close(&service);
	ty_index_destroy(service.index);
	ty_slots_close(service.slots);
	ty_arena_close(&service.arena);
	return 0;
}
