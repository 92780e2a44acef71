/* SPDX-License-Identifier: Apache-2.0
 *
 * How an owner shares its device, under a seeded schedule: the real gpu actor over the host device, with clients of different
 * weights that always have operations waiting in both directions, and some that come and go. Held against:
 *   - between any two moments each of the clients that were there all the time has moved its weight's share, but for a batch or
 *     so of each of the others;
 *   - no client gets ahead by having been away;
 *   - while a store waits at most RETRIEVE_RUN batches of retrieves pass it;
 *   - clients that register and unregister pools all the time hold up nobody's operations;
 *   - nor does one whose operations are next to nothing, however many it has.
 *
 * usage: sharing [SEEDS [FIRST]]
 */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "actors/service.h"
#include "base/log.h"

#define CLIENTS 5
#define STEADY 3       /* of them are always there */
#define RETRIEVE_RUN 8 /* as in actors/gpu_copies.c */
#define WINDOWS 4      /* in which shares are looked at */
#define LARGE (512u << 10) /* bytes of a block: a chunk of 8 is a batch of the host device */
#define SMALL (16u << 10)  /* likewise: batches are scarcer than bytes, so that retrieves could take them all */
#define BLOCKS 64
#define POOLS 12 /* that are registered and unregistered all the time ... */
#define TURNS 12 /* ... of which so many at most come back between two ends of operations */
#define TINY 16u /* bytes of a block of client 0's, in a run for that */
#define TINY_DEPTH 300u
#define TINY_PASS 12u    /* of its operations end for each of another's, at most: nine by what they cost, and those that the device has at once ... */
#define TINY_START 12u   /* ... at first */
#define TINY_OTHERS 100u  /* of another's operations, and it is over */

static uint64_t rng_state;

static uint32_t rnd(uint32_t below)
{
	rng_state = rng_state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)((rng_state >> 33) % below);
}

struct client {
	uint32_t weight, out[2];
	bool here;
	uint64_t moved[2]; /* bytes since it came */
};

static struct world {
	struct ty_runtime *rt;
	struct ty_service *service;
	struct ty_config config;
	struct ty_actor *engine;
	struct ty_map map;
	bool open, mapped, unmapped;
	struct ty_map pools[POOLS];
	uint32_t pools_out, turns; /* turns: since an operation ended */
	bool pools_wanted;
	struct client clients[CLIENTS];
	uint64_t moved[2];   /* by all */
	uint64_t since;      /* retrieved since a store moved, while one waited */
	uint32_t stores, stores_out; /* that ended; that are out */
	uint64_t next_id;
	uint8_t *slots;
	struct ty_timeline timeline;
	_Atomic uint64_t words[TY_TIMELINE_WORDS];
	uint32_t depth; /* operations of a client that wait, in each direction: more than the device is given at once */
	uint32_t run;   /* bytes of a block: LARGE or SMALL */
	struct ty_map tiny; /* client 0's, if it has a layout */
	uint32_t ended[2];  /* operations: of its; of others ... */
	bool alone;         /* ... of which no more come */
} w;

static uint64_t chunk_bytes(void)
{
	return (uint64_t)8 * w.run;
}

struct flight {
	struct ty_op op;
	uint32_t client;
	uint32_t blocks[BLOCKS];
	struct ty_copy copies[BLOCKS / 8];
};

/* ---- the rest of the house ------------------------------------------------------------------------------ */

/* It is mapped or unmapped again as soon as it is back. */
static bool pool_is_back(struct ty_msg *msg, uint32_t type)
{
	struct ty_map *map = ty_container_of(msg, struct ty_map, msg);

	if (map == &w.map || map == &w.tiny)
		return false;
	assert(map->code == TY_OK);
	assert(++w.turns <= TURNS || !w.pools_wanted);
	if (type == TY_ENGINE_UNMAPPED && !w.pools_wanted) {
		w.pools_out--;
		return true;
	}
	map->home_type = type == TY_ENGINE_MAPPED ? TY_ENGINE_UNMAPPED : TY_ENGINE_MAPPED;
	assert(ty_send(w.service->gpu[0], msg, type == TY_ENGINE_MAPPED ? TY_GPU_UNMAP : TY_GPU_MAP) == TY_OK);
	return true;
}

static void landed(struct ty_msg *msg)
{
	struct flight *f = ty_container_of(msg, struct flight, op.msg);
	struct client *c = &w.clients[f->client];
	int dir = f->op.kind == TY_OP_RETRIEVE;

	assert(f->op.code == TY_OK);
	w.turns = 0;
	c->out[dir]--;
	c->moved[dir] += f->op.copy_count * f->op.layout->chunk_bytes;
	w.moved[dir] += f->op.copy_count * f->op.layout->chunk_bytes;
	w.ended[f->client != 0]++;
	assert(!w.tiny.layout || w.alone || w.ended[0] <= TINY_PASS * (w.ended[1] + TINY_START));
	if (dir) {
		w.since = w.stores_out ? w.since + f->op.copy_count : 0;
	} else {
		w.stores_out--;
		w.stores++;
		w.since = 0;
	}
	/* Small: every operation is a batch, of up to 4 chunks; three times the bound, for the two directions end at their own pace, and two actors
	 * whose turns are the seed's tell of them (of 700 seeds the most was 67, once, else 51). Large: a
	 * chunk is a batch, and until a store ends each client's first may have 4 to go, each behind RETRIEVE_RUN of retrieves. */
	assert(w.tiny.layout || w.since <= (w.run == SMALL ? 3 * RETRIEVE_RUN * 4 : RETRIEVE_RUN * 4 * CLIENTS + 64));
	free(f);
}

static void unexpected(void *self, struct ty_msg *msg)
{
	(void)self;
	fprintf(stderr, "unexpected message %x\n", msg->type);
	abort();
}

static void engine_done(void *self, struct ty_msg *msg)
{
	(void)self;
	landed(msg);
}

static void engine_mapped(void *self, struct ty_msg *msg)
{
	(void)self;
	if (pool_is_back(msg, TY_ENGINE_MAPPED))
		return;
	assert(w.map.code == TY_OK && w.tiny.code == TY_OK);
	w.mapped = w.map.mapping && (!w.tiny.layout || w.tiny.mapping);
}

static void engine_unmapped(void *self, struct ty_msg *msg)
{
	(void)self;
	if (!pool_is_back(msg, TY_ENGINE_UNMAPPED))
		w.unmapped = !w.map.mapping && !w.tiny.mapping;
}

static const struct ty_handler engine_handlers[] = {
	{"request", unexpected}, {"join", unexpected}, {"leave", unexpected}, {"op done", engine_done}, {"mapped", engine_mapped},
	{"unmapped", engine_unmapped},
};
static const struct ty_class engine_class = {
	.name = "engine", .state_size = 8, .first_type = TY_ENGINE_REQUEST, .type_count = 6, .handlers = engine_handlers,
};

static const struct ty_handler eviction_handlers[] = {{"commit", engine_done}};
static const struct ty_class eviction_class = {
	.name = "eviction", .state_size = 8, .first_type = TY_EVICTION_COMMIT, .type_count = 1, .handlers = eviction_handlers,
};

static void device_open(void *self, struct ty_msg *msg)
{
	(void)self, (void)msg;
	w.open = true;
}

static const struct ty_handler clients_handlers[] = {
	{"start", unexpected}, {"hello", unexpected}, {"routed", unexpected}, {"device", device_open},
};
static const struct ty_class clients_class = {
	.name = "clients", .state_size = 8, .first_type = TY_CLIENTS_START, .type_count = 4, .handlers = clients_handlers,
};

static void steps(uint32_t n)
{
	while (n-- && ty_runtime_step(w.rt))
		;
}

/* ---- the clients ---------------------------------------------------------------------------------------- */

static void send_op(uint32_t index, int dir)
{
	struct client *c = &w.clients[index];
	struct flight *f = calloc(1, sizeof *f);
	const struct ty_map *map = index == 0 && w.tiny.layout ? &w.tiny : &w.map;
	uint32_t chunks = w.tiny.layout ? 1 : 1 + rnd(4);

	f->client = index;
	f->op.kind = dir ? TY_OP_RETRIEVE : TY_OP_STORE;
	f->op.id = ++w.next_id;
	f->op.client = 0x10000u * (1 + rnd(9)) + index + 1; /* of whatever generation */
	f->op.weight = c->weight;
	f->op.home = w.engine;
	f->op.home_type = TY_ENGINE_OP_DONE;
	f->op.copied = dir ? w.engine : w.service->eviction;
	f->op.copied_type = dir ? TY_ENGINE_OP_DONE : TY_EVICTION_COMMIT;
	f->op.deadline = TY_NEVER;
	f->op.ready = (struct ty_mark){1, 1};
	f->op.timeline = &w.timeline;
	f->op.layout = map->layout;
	f->op.mapping = map->mapping;
	f->op.count = f->op.copy_count = chunks;
	f->op.blocks = f->blocks;
	f->op.copies = f->copies;
	for (uint32_t i = 0; i < 8 * chunks; i++)
		f->blocks[i] = i;
	for (uint32_t i = 0; i < chunks; i++)
		f->copies[i] = (struct ty_copy){w.slots + i * chunk_bytes(), f->blocks + 8 * i};
	c->out[dir]++;
	w.stores_out += !dir;
	assert(ty_send(w.service->gpu[0], &f->op.msg, TY_GPU_TRANSFER) == TY_OK);
}

/* In turns: nobody has all of his there before the others have any. */
static void keep_busy(void)
{
	for (bool more = true; more;) {
		more = false;
		for (uint32_t i = 0; i < CLIENTS; i++)
			for (int dir = 0; dir < 2; dir++)
				if (w.clients[i].here && w.clients[i].out[dir] < w.depth) {
					send_op(i, dir);
					more = true;
				}
	}
}

/* Two by two, the second always there: what they moved since `from`, by weight, differs by what one operation of each and a
 * batch in flight can make. */
static void check_shares(const uint64_t from[CLIENTS][2])
{
	for (int dir = 0; dir < 2; dir++)
		for (uint32_t a = 0; a < CLIENTS; a++) /* one that came may have less, but not more */
			for (uint32_t b = 0; b < STEADY; b++) {
				const struct client *x = &w.clients[a], *y = &w.clients[b];
				double p = (double)(x->moved[dir] - from[a][dir]) / x->weight,
				       q = (double)(y->moved[dir] - from[b][dir]) / y->weight;
				/* an operation counts when it is over: one of 4 chunks is begun; and the batches under way */
				double slack = (double)chunk_bytes() * (4 + 2) / x->weight + (double)chunk_bytes() * (4 + 2) / y->weight;

				if (p > q + slack) {
					fprintf(stderr, "dir %d: client %u (weight %u) moved %.0f a weight, client %u (weight %u) %.0f\n",
						dir, a, x->weight, p, b, y->weight, q);
					abort();
				}
			}
}

/* ---- a run ---------------------------------------------------------------------------------------------- */

static void make_pool(struct ty_map *map, struct ty_region *region, uint32_t run, int *fd)
{
	struct ty_plane plane = {0, 0};
	struct ty_group group = {16, BLOCKS, run, run, 1, &plane};
	struct ty_pool pool = {.region_count = 1, .group_count = 1, .regions = region, .groups = &group, .parts = 1};
	uint64_t bytes = (uint64_t)BLOCKS * run;
	struct ty_layout *layout;

	*fd = memfd_create("pool", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert(*fd >= 0 && ftruncate(*fd, (off_t)bytes) == 0 && fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
	*region = (struct ty_region){.is_fd = true, .fd = *fd, .allocation_bytes = bytes, .length = bytes};
	assert(ty_layout_create(&pool, 128, TY_PIECE_BYTES, &layout, NULL) == TY_OK && layout->chunk_bytes == (uint64_t)8 * run);
	*map = (struct ty_map){.msg = TY_MSG_INIT, .home = w.engine, .home_type = TY_ENGINE_MAPPED, .layout = layout, .regions = region,
		.region_count = 1};
	assert(ty_send(w.service->gpu[0], &map->msg, TY_GPU_MAP) == TY_OK);
}

static void start(uint64_t seed)
{
	struct ty_runtime_options ro = {.size = sizeof ro, .seed = seed};
	struct ty_spawn_options pool = {.size = sizeof pool, .executor = TY_POOL, .cpu = -1}, own = pool;
	static struct ty_msg go;
	static struct ty_gpu_arg gpu;

	own.executor = TY_DEDICATED;
	memset(&w, 0, sizeof w);
	w.timeline.words = w.words;
	w.run = rnd(2) ? LARGE : SMALL;
	w.depth = w.run == LARGE ? 16 : 100;
	w.service = calloc(1, sizeof *w.service);
	w.service->config = &w.config;
	w.config.gpu_stall_after_us = UINT32_MAX;
	assert(ty_runtime_create(&ro, &w.rt, NULL) == TY_OK);
	w.service->rt = w.rt;
	assert(ty_spawn(w.rt, &clients_class, NULL, &pool, &w.service->clients) == TY_OK);
	assert(ty_spawn(w.rt, &engine_class, NULL, &pool, &w.engine) == TY_OK);
	assert(ty_spawn(w.rt, &eviction_class, NULL, &pool, &w.service->eviction) == TY_OK);
	gpu = (struct ty_gpu_arg){.service = w.service, .ready_to = &w.service->clients, .ready_type = TY_CLIENTS_DEVICE, .options = {.name = "host"}};
	assert(ty_spawn(w.rt, &ty_gpu_class, &gpu, &own, &w.service->gpu[0]) == TY_OK);
	w.service->gpu_count = 1;
	go = (struct ty_msg)TY_MSG_INIT;
	assert(ty_send(w.service->gpu[0], &go, TY_GPU_START) == TY_OK);
	while (!w.open)
		steps(1);
}

static void register_pools(void)
{
	w.pools_wanted = true;
	for (uint32_t i = 0; i < POOLS; i++, w.pools_out++) {
		w.pools[i] = w.map;
		w.pools[i].msg = (struct ty_msg)TY_MSG_INIT;
		w.pools[i].mapping = NULL;
		assert(ty_send(w.service->gpu[0], &w.pools[i].msg, TY_GPU_MAP) == TY_OK);
	}
}

static struct ty_region region, tiny_region;
static int fd, tiny_fd;

static void begin(uint64_t seed, bool tiny)
{
	rng_state = seed * 0x9e3779b97f4a7c15ull + 1;
	start(seed);
	w.run = tiny ? LARGE : w.run;
	w.slots = aligned_alloc(4096, 4 * chunk_bytes());
	memset(w.slots, 1, 4 * chunk_bytes());
	make_pool(&w.map, &region, w.run, &fd);
	if (tiny)
		make_pool(&w.tiny, &tiny_region, TINY, &tiny_fd);
	while (!w.mapped)
		steps(1);
}

static void unmap(struct ty_map *map)
{
	map->home_type = TY_ENGINE_UNMAPPED;
	assert(ty_send(w.service->gpu[0], &map->msg, TY_GPU_UNMAP) == TY_OK);
}

/* All of it is over. */
static void end(void)
{
	unmap(&w.map);
	if (w.tiny.layout)
		unmap(&w.tiny);
	while (!w.unmapped)
		steps(1);
	ty_runtime_destroy(w.rt);
	ty_actor_unref(w.service->gpu[0]);
	ty_actor_unref(w.service->eviction);
	ty_actor_unref(w.service->clients);
	ty_actor_unref(w.engine);
	if (w.tiny.layout)
		close(tiny_fd);
	free((void *)(uintptr_t)w.tiny.layout);
	free((void *)(uintptr_t)w.map.layout);
	free(w.slots);
	free(w.service);
	close(fd);
}

/* Client 0 has far more operations waiting than the device takes, of next to no bytes; another one's go on beside them. */
static void run_tiny(uint64_t seed)
{
	uint32_t others;

	begin(seed, true);
	for (uint32_t i = 0; i < 2; i++)
		w.clients[i] = (struct client){.weight = 1, .here = true};
	for (others = 0; others < TINY_OTHERS;) {
		for (int dir = 0; dir < 2; dir++)
			for (; w.clients[1].out[dir] < 24; others++)
				send_op(1, dir);
		for (int dir = 0; dir < 2; dir++)
			while (w.clients[0].out[dir] < TINY_DEPTH)
				send_op(0, dir);
		steps(atomic_load(&w.words[1]) ? 1 + rnd(6) : 4 * TINY_DEPTH + 1000);
		atomic_store(&w.words[1], 1); /* what was sent first begins when all of it is there */
	}
	w.alone = true;
	while (ty_runtime_step(w.rt))
		;
	end();
}

static void run(uint64_t seed)
{
	uint64_t from[CLIENTS][2];
	bool small;

	begin(seed, false);
	small = w.run == SMALL;
	for (uint32_t i = 0; i < CLIENTS; i++)
		w.clients[i] = (struct client){.weight = 1 + rnd(i == 0 ? 1 : 10), .here = i < STEADY};
	/* What is sent first waits for its ready word until all of it is there: else its order would be that of its arrival. */
	keep_busy();
	steps(4 * CLIENTS * w.depth + 1000);
	atomic_store(&w.words[1], 1);
	if (!small)
		register_pools();
	for (uint32_t windows = 0, next = 0; !small && windows <= WINDOWS;) {
		keep_busy();
		steps(1 + rnd(6));
		if (w.stores < next)
			continue;
		if (windows++)
			check_shares(from);
		for (uint32_t i = 0; i < CLIENTS; i++)
			memcpy(from[i], w.clients[i].moved, sizeof from[i]);
		next = w.stores + 12;
		for (uint32_t i = STEADY; i < CLIENTS; i++)
			w.clients[i].here = rnd(2);
	}
	w.pools_wanted = false;
	while (ty_runtime_step(w.rt)) /* small: all of it, with nothing behind it */
		;
	assert(!w.pools_out);
	end();
}

int main(int argc, char **argv)
{
	const char *turn = getenv("TYER_SEED"); /* each turn has seeds of its own */
	uint64_t seeds = argc > 1 ? strtoull(argv[1], NULL, 10) : 10;
	uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : turn ? strtoull(turn, NULL, 10) * seeds + 1 : 1, moved = 0;

	ty_log_setup(TY_LOG_ERROR, false);
	for (uint64_t seed = first; seed < first + seeds; seed++) {
		fprintf(stderr, "seed %llu\r", (unsigned long long)seed);
		run(seed);
		run_tiny(seed);
		moved += w.moved[0] + w.moved[1];
	}
	printf("sharing: %llu seeds, %llu MiB moved\n", (unsigned long long)seeds, (unsigned long long)(moved >> 20));
	return 0;
}
