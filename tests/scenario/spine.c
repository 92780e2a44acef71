/* SPDX-License-Identifier: Apache-2.0
 *
 * The spine under a seeded schedule: real engine, eviction, populate and gpu actors over the host device, on one thread
 * with a logical clock, driven by random prompts of several engines that share a small arena. Faults, deadlines, hostile
 * requests and departing clients are drawn from the seed too. At the end:
 *   - every request was answered exactly once, and every engine ended;
 *   - every retrieved block held what the key promises, bit for bit;
 *   - slots in use are those of visible chunks, and nothing is pinned.
 *
 * usage: spine [SEEDS [FIRST]]; a failing seed is printed and fails again alone: spine 1 SEED
 */
#include "spine.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "actors/populate.h"
#include "base/log.h"
#include "cache/checksum.h"

#define STEPS 1500         /* of the driver, per seed */

struct world w;
static uint64_t rng_state;
uint64_t seed_of_contents;

uint32_t rnd(uint32_t below)
{
	rng_state = rng_state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)((rng_state >> 33) % below);
}

/* ---- the edge, played by the test ------------------------------------------------------------------- */

static void rpc_answer(void *self, struct ty_msg *msg)
{
	struct call *call = (struct call *)(void *)ty_container_of(msg, struct ty_exchange, msg);

	(void)self;
	assert(!call->answered);
	call->answered = true;
	w.answers++;
	answered(call);
	free(call);
}

static void unexpected(void *self, struct ty_msg *msg)
{
	(void)self;
	fprintf(stderr, "unexpected message %x\n", msg->type);
	abort();
}

static const struct ty_handler rpc_handlers[] = {{"start", unexpected}, {"answer", rpc_answer}};
static const struct ty_class rpc_class = {
	.name = "rpc", .state_size = 8, .first_type = TY_RPC_START, .type_count = 2, .handlers = rpc_handlers,
};

static void clients_device(void *self, struct ty_msg *msg)
{
	(void)self, (void)msg;
	w.device_open = true;
}

static void clients_engine_gone(void *self, struct ty_msg *msg)
{
	struct ty_engine_end *end = ty_container_of(msg, struct ty_engine_end, msg);

	(void)self;
	for (int i = 0; i < ENGINES; i++) {
		if (w.engines[i].actor == end->engine) {
			assert(!w.engines[i].here && !w.engines[i].gone);
			w.engines[i].gone = true;
		}
	}
	ty_actor_stop(end->engine);
}

static const struct ty_handler clients_handlers[] = {
	{"start", unexpected}, {"hello", unexpected}, {"routed", unexpected}, {"device", clients_device},
	{"engine gone", clients_engine_gone},
};
static const struct ty_class clients_class = {
	.name = "clients", .state_size = 8, .first_type = TY_CLIENTS_START, .type_count = 5, .handlers = clients_handlers,
};

/* ---- engines come and go ---------------------------------------------------------------------------------- */

static void arrive(struct engine_side *e)
{
	struct ty_engine_arg *arg = calloc(1, sizeof *arg);
	struct ty_spawn_options options = {.size = sizeof options, .executor = TY_POOL, .cpu = -1};
	uint64_t bytes = (uint64_t)PLANES * BLOCKS * RUN;

	if (e->actor)
		ty_actor_unref(e->actor);
	uint64_t generation = e->generation + 1;

	*e = (struct engine_side){.here = true, .generation = generation};
	arg->service = w.service;
	assert(ty_identity_set(&arg->identity, "tenant", "model", "r1", "bf16", "", NULL) == TY_OK);
	assert(ty_spawn(w.rt, &ty_engine_class, arg, &options, &e->actor) == TY_OK);

	e->member = calloc(1, sizeof *e->member);
	e->member->client = ++w.next_client;
	e->member->slot = &e->slot;
	e->member->weight = 1 + rnd(TY_WEIGHT_MAX);
	e->member->timeline = calloc(1, sizeof *e->member->timeline);
	e->member->timeline->refs = 1;
	e->member->timeline->words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	e->member->descriptors = calloc(1, sizeof *e->member->descriptors);
	e->member->descriptors->refs = 1;
	e->fd = memfd_create("pool", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert(e->fd >= 0 && ftruncate(e->fd, (off_t)bytes) == 0 && fcntl(e->fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
	e->pool = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, e->fd, 0);
	e->member->descriptors->place[5] = e->fd + 1;
	assert(ty_send(e->actor, &e->member->msg, TY_ENGINE_JOIN) == TY_OK);

	struct call *c = new_call(e, NULL, TYER__V1__REQUEST__VERB_REGISTER, 1000000000000);
	static uint8_t uuid[16];
	static Tyer__V1__Region region, *regions[1] = {&region};
	static Tyer__V1__Plane planes[PLANES], *plane_list[PLANES];
	static Tyer__V1__Group group, *groups[1] = {&group};
	static Tyer__V1__Step steps[STEPS_OF_LAYERS], *step_list[STEPS_OF_LAYERS];
	static uint32_t step_planes[STEPS_OF_LAYERS] = {1, PLANES};

	tyer__v1__region__init(&region);
	region.memory_case = TYER__V1__REGION__MEMORY_ATTACHED_FD;
	region.attached_fd = 5;
	region.allocation_bytes = region.length = bytes;
	tyer__v1__group__init(&group);
	group.block_tokens = BLOCK_TOKENS;
	group.block_count = BLOCKS;
	group.block_stride = RUN;
	group.run_bytes = RUN;
	group.n_planes = PLANES;
	group.planes = plane_list;
	for (uint32_t i = 0; i < PLANES; i++) {
		tyer__v1__plane__init(&planes[i]);
		planes[i].offset = (uint64_t)i * BLOCKS * RUN;
		plane_list[i] = &planes[i];
	}
	tyer__v1__register__init(&c->verb.reg);
	c->verb.reg.device = (ProtobufCBinaryData){16, uuid};
	c->verb.reg.regions = regions;
	c->verb.reg.n_regions = 1;
	c->verb.reg.groups = groups;
	c->verb.reg.n_groups = 1;
	c->verb.reg.parts = 1;
	for (uint32_t i = 0; i < STEPS_OF_LAYERS; i++) {
		tyer__v1__step__init(&steps[i]);
		steps[i].planes = &step_planes[i];
		steps[i].n_planes = 1;
		step_list[i] = &steps[i];
	}
	c->verb.reg.steps = step_list;
	c->verb.reg.n_steps = STEPS_OF_LAYERS;
	c->request.register_ = &c->verb.reg;
	send_call(c);
}

static void leave(struct engine_side *e)
{
	e->here = false;
	w.left++;
	munmap(e->pool, (uint64_t)PLANES * BLOCKS * RUN); /* as a dying process does; the service has its own mapping */
	if (ty_send(e->actor, &e->member->leave, TY_ENGINE_LEAVE) != TY_OK)
		abort();
}

/* ---- a run --------------------------------------------------------------------------------------------------- */

static void steps(uint32_t n)
{
	while (n-- && ty_runtime_step(w.rt))
		;
}

static void act(void)
{
	struct engine_side *e = &w.engines[rnd(ENGINES)];
	struct prompt *p = &e->prompts[rnd(SESSIONS)];

	if (!w.device_open) /* until then HELLO waits */
		return;
	if (!e->here) {
		if (e->gone || !e->actor)
			arrive(e);
		return;
	}
	if (!e->registration) /* not answered yet */
		return;
	if (rnd(400) == 0) {
		leave(e);
		return;
	}
	if (p->phase == RETRIEVING)
		check_first_step(e, p);
	if (p->phase == IDLE || (p->phase == READY && rnd(8) == 0))
		look_up(e, p);
	else if (p->phase == READY && p->hits && rnd(3) == 0)
		retrieve(e, p);
	else if (p->phase == READY && rnd(2))
		store(e, p);
	else if (p->phase == READY)
		end_session(e, p);
	else if ((p->phase == RETRIEVING || p->phase == STORING) && rnd(3) == 0)
		flush(e, p);
}

/* A word that copies wait for, as tests/scenario/harness.h's: what is slow is so by the seed, and not by the clock on the wall. */
static _Atomic uint64_t *open_hold(int *fd)
{
	_Atomic uint64_t *at;

	*fd = memfd_create("hold", MFD_CLOEXEC);
	assert(*fd >= 0 && ftruncate(*fd, sizeof *at) == 0);
	at = mmap(NULL, sizeof *at, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	assert(at != MAP_FAILED);
	return at;
}

/* Now and then nothing is copied for a while, or what has been copied is not done. */
static void hold_some(void)
{
	if (!w.hold || rnd(10))
		return;
	atomic_store(w.hold, rnd(3));
}

static void start_service(uint64_t seed)
{
	static const struct {
		const char *fault;
		bool held;
	} devices[] = {{NULL, false}, {NULL, false}, {"fail-every=7", false}, {"", true}, {",fail-every=11", true}};
	static char fault[64];
	struct ty_runtime_options ro = {.size = sizeof ro, .seed = seed};
	struct ty_spawn_options pool = {.size = sizeof pool, .executor = TY_POOL, .cpu = -1}, own = pool;
	struct ty_service *s = calloc(1, sizeof *s);
	static struct ty_gpu_arg gpu;
	uint32_t device = rnd(sizeof devices / sizeof devices[0]);

	own.executor = TY_DEDICATED;
	memset(&w, 0, sizeof w);
	if (devices[device].held) {
		w.hold = open_hold(&w.hold_fd);
		snprintf(fault, sizeof fault, "hold-fd=%d%s", w.hold_fd, devices[device].fault);
	}
	w.service = s;
	w.config = (struct ty_config){
		.gpu_stall_after_us = 10000000,
		.l1_size = TY_PIECE_BYTES * (1 + rnd(2)), .l1_ahead = TY_PIECE_BYTES, .chunk_tokens = CHUNK_TOKENS,
		.max_registrations = 2, .max_sessions = SESSIONS, .max_session_chunks = CHAIN, .max_operations = 64,
		.max_operation_chunks = CHAIN, .max_operation_bytes = UINT64_MAX, .max_all_operations = 1024,
		.max_all_operation_bytes = UINT64_MAX, .populate_threads = 1, .keep_percent = 50,
	};
	w.config.policy = (int)rnd(3);
	s->config = &w.config;
	assert(ty_arena_open(w.config.l1_size, &s->arena, NULL) == TY_OK);
	assert(ty_slots_open(&s->arena, &s->slots, NULL) == TY_OK);
	assert(ty_index_create(&s->index, NULL) == TY_OK);
	s->session_chunks.all = TY_SESSION_CHUNKS_ALL;
	s->pool_bytes.all = TY_POOL_BYTES_ALL;
	s->fetches.all = TY_FETCHES;
	assert(ty_op_table_open(&s->operations, w.config.max_all_operations, w.config.max_all_operation_bytes, NULL) == TY_OK);
	assert(ty_runtime_create(&ro, &w.rt, NULL) == TY_OK);
	s->rt = w.rt;
	assert(ty_spawn(w.rt, &rpc_class, NULL, &pool, &s->rpc) == TY_OK);
	assert(ty_spawn(w.rt, &clients_class, NULL, &pool, &s->clients) == TY_OK);
	assert(ty_spawn(w.rt, &ty_eviction_class, s, &pool, &s->eviction) == TY_OK);
	assert(ty_spawn(w.rt, &ty_bytework_class, s, &pool, &s->bytework[0]) == TY_OK);
	s->bytework_count = 1;
	assert(ty_spawn(w.rt, &ty_populate_class, s, &own, &s->populate[0]) == TY_OK);
	s->populate_count = 1;
	gpu = (struct ty_gpu_arg){.service = s, .ready_to = &s->clients, .ready_type = TY_CLIENTS_DEVICE,
		.options = {.name = "host", .fault = w.hold ? fault : devices[device].fault}};
	assert(ty_spawn(w.rt, &ty_gpu_class, &gpu, &own, &s->gpu[0]) == TY_OK);
	s->gpu_count = 1;
	static struct ty_msg start_gpu, start_eviction;

	start_gpu = start_eviction = (struct ty_msg)TY_MSG_INIT;
	assert(ty_send(s->gpu[0], &start_gpu, TY_GPU_START) == TY_OK);
	assert(ty_send(s->eviction, &start_eviction, TY_EVICTION_START) == TY_OK);
}

/* What lies in a slot is what was summed up, if it did not come too fast for that. */
static bool check_sum(void *unsummed, uint32_t slot)
{
	const struct ty_slot_record *record = ty_slots_record(w.service->slots, slot);
	uint64_t sum = ty_slots_checksum(w.service->slots, slot);

	assert(record->state == TY_SLOT_READY);
	if (sum)
		assert(sum == ty_checksum(ty_slots_address(w.service->slots, slot), record->length));
	else
		++*(uint64_t *)unsummed;
	return true;
}

static void check_end(void)
{
	const struct ty_eviction_stats *ev = &w.service->eviction_stats;
	uint64_t unsummed = 0;

	assert(w.device_open);
	assert(w.answers == w.calls);
	for (int i = 0; i < ENGINES; i++)
		assert(!w.engines[i].actor || w.engines[i].gone);
	assert(ev->used_bytes == ev->chunks * CHUNK_WORDS * 8);
	assert(ty_index_count(w.service->index) == ev->chunks);
	for (uint32_t piece = 0; piece < w.service->arena.pieces; piece++)
		ty_slots_each_in_piece(w.service->slots, piece, check_sum, &unsummed);
	assert(unsummed <= w.service->checksum_stats.skipped && w.service->checksum_stats.waiting == 0);
	assert(w.service->lookup_stats.leases == 0);
	assert(w.service->operations.used == 0 && w.service->operations.used_bytes == 0);
	assert(w.service->gpu_stats[0].mappings == 0 && w.service->gpu_stats[0].in_flight == 0);
}

static void stop_service(void)
{
	struct ty_service *s = w.service;
	struct ty_actor *all[] = {s->rpc, s->clients, s->eviction, s->bytework[0], s->populate[0], s->gpu[0]};

	ty_runtime_destroy(w.rt);
	for (int i = 0; i < ENGINES; i++)
		if (w.engines[i].actor)
			ty_actor_unref(w.engines[i].actor);
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
		ty_actor_unref(all[i]);
	ty_op_table_close(&s->operations);
	ty_index_destroy(s->index);
	ty_slots_close(s->slots);
	ty_arena_close(&s->arena);
	free(s);
	if (w.hold) {
		munmap((void *)(uintptr_t)w.hold, sizeof *w.hold);
		close(w.hold_fd);
	}
}

static void run(uint64_t seed)
{
	rng_state = seed * 0x9e3779b97f4a7c15ull + 1;
	seed_of_contents = ((uint64_t)rnd(UINT32_MAX) << 32) | rnd(UINT32_MAX);
	ty_log_setup(TY_LOG_ERROR, false);
	start_service(seed);
	for (int i = 0; i < STEPS; i++) {
		act();
		hold_some();
		steps(rnd(40) ? rnd(12) : 600);
	}
	for (int i = 0; i < ENGINES; i++)
		if (w.engines[i].here)
			leave(&w.engines[i]);
	if (w.hold)
		atomic_store(w.hold, 0);
	while (ty_runtime_step(w.rt))
		;
	check_end();
	stop_service();
}

int main(int argc, char **argv)
{
	const char *turn = getenv("TYER_SEED"); /* each turn has seeds of its own */
	uint64_t seeds = argc > 1 ? strtoull(argv[1], NULL, 10) : 20;
	uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : turn ? strtoull(turn, NULL, 10) * seeds + 1 : 1;
	uint64_t checked = 0, half = 0, stored = 0, timeouts = 0, flushed = 0, failures = 0, left = 0;

	urcu_memb_register_thread(); /* it reads the index, as the runtime's own threads do */
	for (uint64_t seed = first; seed < first + seeds; seed++) {
		fprintf(stderr, "seed %llu\r", (unsigned long long)seed);
		run(seed);
		checked += w.checked, half += w.steps, stored += w.stored, timeouts += w.timeouts, flushed += w.flushed, failures += w.failures, left += w.left;
	}
	urcu_memb_unregister_thread();
	printf("spine: %llu seeds, %llu chunks stored, %llu checked (%llu seen half there), %llu late, %llu flushes, %llu refused or failed, %llu departures\n",
		(unsigned long long)seeds, (unsigned long long)stored, (unsigned long long)checked, (unsigned long long)half,
		(unsigned long long)timeouts, (unsigned long long)flushed, (unsigned long long)failures, (unsigned long long)left);
	return checked && stored ? 0 : 1;
}
