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
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <fcntl.h>
#include <unistd.h>

#include "actors/engine.h"
#include "actors/populate.h"
#include "actors/service.h"
#include "cache/checksum.h"
#include "base/log.h"
#include "kernels/pattern.h"

#define ENGINES 3
#define SESSIONS 4         /* per engine at a time */
#define FAMILIES 40        /* prompts with a common beginning, some more usual than others */
#define CHAIN 6            /* chunks of the longest prompt */
#define BLOCKS 96          /* of a pool */
#define PLANES 4
#define RUN 65536          /* bytes of a block in a plane */
#define BLOCK_TOKENS 128
#define CHUNK_TOKENS 512
#define PER_CHUNK (CHUNK_TOKENS / BLOCK_TOKENS)
#define CHUNK_WORDS ((uint64_t)PER_CHUNK * PLANES * RUN / 8)
#define STEPS_OF_LAYERS 2  /* the first plane, then the others */
#define STEPS 1500         /* of the driver, per seed */
#define SAMPLE 61          /* every 61st word of a block is written and checked: all runs, all offsets over the seeds */

static uint64_t rng_state;
static uint64_t seed_of_contents;

static uint32_t rnd(uint32_t below)
{
	rng_state = rng_state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)((rng_state >> 33) % below);
}

enum phase { IDLE, LOOKING, READY, RETRIEVING, STORING, FLUSHING, ENDING };

struct prompt {
	enum phase phase;
	uint64_t id;
	uint32_t family, chunks, hits;
	uint32_t first, count;          /* of the op under way */
	uint32_t blocks[CHAIN * PER_CHUNK];
	uint32_t serial;                /* of the op under way */
	struct ty_mark layers;          /* of a retrieve; word 0: not layer by layer */
	bool flushed;                   /* nothing may touch its blocks any more ... */
	uint64_t sum;                   /* ... which held this then */
	bool broken;                    /* the op under way was made wrong on purpose */
};

struct engine_side {
	struct ty_actor *actor;
	struct ty_member *member;
	uint8_t *pool;
	uint64_t generation;
	int fd;
	uint32_t registration;
	bool here, gone, block_taken[BLOCKS];
	struct prompt prompts[SESSIONS];
	struct ty_client_slot slot;
};

struct call { /* an exchange and what it was for */
	struct ty_exchange x;
	Tyer__V1__Request request;
	union {
		Tyer__V1__Register reg;
		Tyer__V1__Lookup lookup;
		Tyer__V1__Retrieve retrieve;
		Tyer__V1__Store store;
		Tyer__V1__Flush flush;
		Tyer__V1__EndSession end;
	} verb;
	Tyer__V1__Chain chain;
	Tyer__V1__BlockIds ids, *ids_list[1];
	Tyer__V1__Mark layers;
	uint8_t hashes[CHAIN * TY_KEY_BYTES];
	uint32_t flushed[CHAIN * PER_CHUNK], serial; /* FLUSH: its own blocks, and whose they were */
	struct engine_side *engine;
	uint64_t generation;
	struct prompt *prompt;
	bool answered;
};

static struct world {
	struct ty_runtime *rt;
	struct ty_service *service;
	struct ty_config config;
	struct engine_side engines[ENGINES];
	uint32_t calls, answers, checked, steps, stored, timeouts, flushed, failures, left;
	uint64_t next_session, next_client;
	bool device_open;
} w;

/* ---- the edge, played by the test ------------------------------------------------------------------- */

static void answered(struct call *call);

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

/* ---- contents ----------------------------------------------------------------------------------------- */

static uint32_t tag_of(const struct prompt *p, uint32_t chunk)
{
	return p->family * 1000 + chunk;
}

/* Word `i` of plane `plane` of block `b` of a chunk has this place in the chunk. */
static uint32_t place(uint32_t b, uint32_t plane, uint32_t i)
{
	return (b * PLANES + plane) * (RUN / 8) + i;
}

static uint64_t *word_at(struct engine_side *e, uint32_t block, uint32_t plane, uint32_t i)
{
	/* split layout: each plane is an array of blocks */
	return (uint64_t *)(void *)(e->pool + ((uint64_t)plane * BLOCKS + block) * RUN) + i;
}

static void write_chunk(struct engine_side *e, const struct prompt *p, uint32_t k, bool poison)
{
	for (uint32_t b = 0; b < PER_CHUNK; b++)
		for (uint32_t plane = 0; plane < PLANES; plane++)
			for (uint32_t i = 0; i < RUN / 8; i += SAMPLE)
				*word_at(e, p->blocks[k * PER_CHUNK + b], plane, i) =
					poison ? 0xdeadbeefdeadbeefull
					       : ty_pattern_word(seed_of_contents, tag_of(p, p->first + k), place(b, plane, i));
}

static void check_planes(struct engine_side *e, const struct prompt *p, uint32_t k, uint32_t planes)
{
	for (uint32_t b = 0; b < PER_CHUNK; b++) {
		for (uint32_t plane = 0; plane < planes; plane++) {
			for (uint32_t i = 0; i < RUN / 8; i += SAMPLE) {
				uint64_t found = *word_at(e, p->blocks[k * PER_CHUNK + b], plane, i);
				uint32_t tag = tag_of(p, p->first + k), from, index;

				if (found == ty_pattern_word(seed_of_contents, tag, place(b, plane, i)))
					continue;
				ty_pattern_origin(seed_of_contents, found, &from, &index);
				fprintf(stderr, "chunk %u word %u holds %016llx: chunk %u word %u\n", tag, place(b, plane, i),
					(unsigned long long)found, from, index);
				abort();
			}
		}
	}
}

static void check_chunk(struct engine_side *e, const struct prompt *p, uint32_t k)
{
	check_planes(e, p, k, PLANES);
	w.checked++;
}

/* Is `step` of the retrieve under way there, as its word says? */
static bool step_reached(const struct engine_side *e, const struct prompt *p, uint32_t step)
{
	return atomic_load_explicit(&e->member->timeline->words[p->layers.word], memory_order_acquire) >= p->layers.value + step;
}

/* Then its planes hold their contents, long before the reply. */
static void check_first_step(struct engine_side *e, const struct prompt *p)
{
	if (!p->layers.word || p->broken || !step_reached(e, p, 0))
		return;
	for (uint32_t k = 0; k < p->count; k++)
		check_planes(e, p, k, 1);
	w.steps += !step_reached(e, p, STEPS_OF_LAYERS - 1);
}

static uint64_t sum_of_blocks(struct engine_side *e, const struct prompt *p)
{
	uint64_t sum = 0;

	for (uint32_t b = 0; b < p->count * PER_CHUNK; b++)
		for (uint32_t plane = 0; plane < PLANES; plane++)
			for (uint32_t i = 0; i < RUN / 8; i += SAMPLE)
				sum = sum * 31 + *word_at(e, p->blocks[b], plane, i);
	return sum;
}

static bool take_blocks(struct engine_side *e, struct prompt *p, uint32_t count)
{
	uint32_t found = 0;

	for (uint32_t i = 0, at = rnd(BLOCKS); i < BLOCKS && found < count; i++, at = (at + 1) % BLOCKS)
		if (!e->block_taken[at])
			p->blocks[found++] = at;
	for (uint32_t i = 0; found == count && i < count; i++)
		e->block_taken[p->blocks[i]] = true;
	return found == count;
}

static void give_blocks(struct engine_side *e, struct prompt *p)
{
	for (uint32_t i = 0; i < p->count * PER_CHUNK; i++)
		e->block_taken[p->blocks[i]] = false;
}

/* ---- requests ------------------------------------------------------------------------------------------- */

static struct call *new_call(struct engine_side *e, struct prompt *p, Tyer__V1__Request__VerbCase verb, int64_t timeout)
{
	struct call *c = calloc(1, sizeof *c);

	tyer__v1__request__init(&c->request);
	c->request.client = e->member->client;
	c->request.verb_case = verb;
	c->x.rpc = ty_actor_ref(w.service->rpc);
	c->x.request = &c->request;
	c->x.received = ty_runtime_now(w.rt);
	c->x.deadline = c->x.received + timeout;
	c->engine = e;
	c->generation = e->generation;
	c->prompt = p;
	return c;
}

static void send_call(struct call *c)
{
	w.calls++;
	if (ty_send(c->engine->actor, &c->x.msg, TY_ENGINE_REQUEST) != TY_OK)
		abort();
}

static void set_chain(struct call *c, uint32_t family, uint32_t chunks)
{
	tyer__v1__chain__init(&c->chain);
	for (uint32_t i = 0; i < chunks; i++) {
		uint32_t id = family * 1000 + i;

		memcpy(c->hashes + i * TY_KEY_BYTES, &id, sizeof id);
	}
	c->chain.hashes = (ProtobufCBinaryData){chunks * TY_KEY_BYTES, c->hashes};
}

static void set_ids(struct call *c, struct prompt *p)
{
	tyer__v1__block_ids__init(&c->ids);
	c->ids.ids = p->blocks;
	c->ids.n_ids = p->count * PER_CHUNK;
	c->ids_list[0] = &c->ids;
}

static int64_t some_timeout(void)
{
	return rnd(4) ? 1000000000000 : (int64_t)rnd(rnd(2) ? 100000 : 20000000); /* now and then one that passes */
}

static void look_up(struct engine_side *e, struct prompt *p)
{
	struct call *c = new_call(e, p, TYER__V1__REQUEST__VERB_LOOKUP, 1000000000000);

	if (p->phase == IDLE) /* else the session gets another prompt */
		p->id = ++w.next_session;
	p->family = rnd(rnd(FAMILIES) + 1);
	p->chunks = 1 + rnd(CHAIN);
	tyer__v1__lookup__init(&c->verb.lookup);
	c->verb.lookup.session = p->id;
	set_chain(c, p->family, p->chunks);
	c->verb.lookup.chain = &c->chain;
	c->request.lookup = &c->verb.lookup;
	p->phase = LOOKING;
	send_call(c);
}

static void retrieve(struct engine_side *e, struct prompt *p)
{
	p->first = rnd(p->hits);
	p->count = 1 + rnd(p->hits - p->first);
	if (!take_blocks(e, p, p->count * PER_CHUNK))
		return;
	struct call *c = new_call(e, p, TYER__V1__REQUEST__VERB_RETRIEVE, some_timeout());

	tyer__v1__retrieve__init(&c->verb.retrieve);
	c->verb.retrieve.session = p->id;
	c->verb.retrieve.registration = e->registration;
	c->verb.retrieve.first = p->first;
	c->verb.retrieve.count = p->count;
	set_ids(c, p);
	c->verb.retrieve.blocks = c->ids_list;
	c->verb.retrieve.n_blocks = 1;
	c->request.retrieve = &c->verb.retrieve;
	p->layers.word = 0;
	if (rnd(2)) {
		p->layers = (struct ty_mark){1 + (uint32_t)(p - e->prompts), p->layers.value + STEPS_OF_LAYERS};
		tyer__v1__mark__init(&c->layers);
		c->layers.word = p->layers.word;
		c->layers.value = p->layers.value;
		c->verb.retrieve.layers = &c->layers;
	}
	for (uint32_t k = 0; k < p->count; k++)
		write_chunk(e, p, k, true);
	p->broken = rnd(10) == 0;
	if (p->broken) {
		switch (rnd(4)) {
		case 0:
			c->verb.retrieve.count = p->hits - p->first + 1; /* and too few ids */
			break;
		case 1:
			c->ids.n_ids--;
			break;
		case 2:
			c->verb.retrieve.registration += 7;
			break;
		default:
			c->verb.retrieve.first = p->hits;
			break;
		}
	}
	p->phase = RETRIEVING;
	p->serial++;
	send_call(c);
}

static void store(struct engine_side *e, struct prompt *p)
{
	p->first = p->hits < p->chunks ? p->hits : rnd(p->chunks);
	p->count = 1 + rnd(p->chunks - p->first);
	if (!take_blocks(e, p, p->count * PER_CHUNK))
		return;
	struct call *c = new_call(e, p, TYER__V1__REQUEST__VERB_STORE, some_timeout());

	tyer__v1__store__init(&c->verb.store);
	c->verb.store.session = p->id;
	c->verb.store.registration = e->registration;
	c->verb.store.first = p->first;
	c->verb.store.count = p->count;
	set_ids(c, p);
	c->verb.store.blocks = c->ids_list;
	c->verb.store.n_blocks = 1;
	c->request.store = &c->verb.store;
	for (uint32_t k = 0; k < p->count; k++)
		write_chunk(e, p, k, false);
	p->broken = rnd(10) == 0;
	if (p->broken) {
		if (rnd(2))
			c->verb.store.first = p->chunks;
		else
			c->ids.n_ids++, c->ids.n_ids -= 2;
	}
	p->phase = STORING;
	p->serial++;
	send_call(c);
}

static void end_session(struct engine_side *e, struct prompt *p)
{
	struct call *c = new_call(e, p, TYER__V1__REQUEST__VERB_END_SESSION, 1000000000000);

	tyer__v1__end_session__init(&c->verb.end);
	c->verb.end.session = p->id;
	c->request.end_session = &c->verb.end;
	p->phase = ENDING;
	send_call(c);
}

/* Of the op under way, or one that was answered early: then its blocks are used again when this is answered. */
static void flush(struct engine_side *e, struct prompt *p)
{
	struct call *c = new_call(e, p, TYER__V1__REQUEST__VERB_FLUSH, 1000000000000);

	tyer__v1__flush__init(&c->verb.flush);
	c->verb.flush.registration = e->registration;
	if (rnd(4)) { /* else all blocks */
		set_ids(c, p);
		memcpy(c->flushed, p->blocks, c->ids.n_ids * sizeof c->flushed[0]);
		c->ids.ids = c->flushed;
		c->verb.flush.blocks = c->ids_list;
		c->verb.flush.n_blocks = 1;
	}
	c->request.flush = &c->verb.flush;
	c->serial = p->serial;
	send_call(c);
}

/* Answered before its time, perhaps while its copy was under way. */
static bool is_early(enum ty_code code)
{
	return code == TY_TIMEOUT || code == TY_CANCELLED || code == TY_DEVICE_STALLED;
}

static void expect_ok(const struct call *call)
{
	if (call->x.code != TY_OK) {
		fprintf(stderr, "verb %d: %s: %s\n", call->request.verb_case, ty_code_name(call->x.code), call->x.error.text);
		abort();
	}
}

static void answered(struct call *call)
{
	struct engine_side *e = call->engine;
	struct prompt *p = call->prompt;
	enum ty_code code = call->x.code;

	if (call->generation != e->generation || !e->here)
		return; /* its client is gone */
	if (call->request.verb_case == TYER__V1__REQUEST__VERB_REGISTER) {
		expect_ok(call);
		e->registration = call->x.reply.registered.registration;
		assert(call->x.reply.registered.chunk_bytes == CHUNK_WORDS * 8);
		return;
	}
	if (call->request.verb_case == TYER__V1__REQUEST__VERB_FLUSH) {
		expect_ok(call);
		w.flushed++;
		if (call->serial != p->serial)
			return;
		if (p->phase == FLUSHING) {
			give_blocks(e, p);
			p->phase = READY;
		} else if (p->phase == RETRIEVING) { /* its copy is over, and its answer on the way */
			p->flushed = true;
			p->sum = sum_of_blocks(e, p);
		}
		return;
	}
	switch (p->phase) {
	case LOOKING:
		expect_ok(call);
		assert( call->x.reply.lookup.chunks == p->chunks && call->x.reply.lookup.hits <= p->chunks);
		p->hits = call->x.reply.lookup.hits;
		p->phase = READY;
		return;
	case RETRIEVING:
	case STORING:
		assert(!p->flushed || p->sum == sum_of_blocks(e, p));
		p->flushed = false;
		if (code == TY_OK) {
			assert(!p->broken);
			for (uint32_t k = 0; p->phase == RETRIEVING && k < p->count; k++)
				check_chunk(e, p, k);
			assert(p->phase != RETRIEVING || !p->layers.word || step_reached(e, p, STEPS_OF_LAYERS - 1));
			if (p->phase == STORING) {
				assert(call->x.reply.store.stored + call->x.reply.store.present + call->x.reply.store.dropped == p->count);
				w.stored += call->x.reply.store.stored;
			}
		} else if (is_early(code)) {
			w.timeouts++;
		} else {
			if (!p->broken && code != TY_DEVICE_FAILED && code != TY_NO_SPACE)
				expect_ok(call);
			w.failures++;
		}
		if (call->x.blocks_in_use) {
			assert(is_early(code));
			p->phase = FLUSHING;
			flush(e, p);
			return;
		}
		give_blocks(e, p);
		p->phase = READY;
		return;
	case ENDING:
		expect_ok(call);
		p->phase = IDLE;
		return;
	default:
		abort();
	}
}

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

static void start_service(uint64_t seed)
{
	static const char *const faults[] = {"host", "host", "host:fail-every=7", "host:delay-us=300", "host:delay-us=50,fail-every=11"};
	struct ty_runtime_options ro = {.size = sizeof ro, .seed = seed};
	struct ty_spawn_options pool = {.size = sizeof pool, .executor = TY_POOL, .cpu = -1}, own = pool;
	struct ty_service *s = calloc(1, sizeof *s);
	static struct ty_gpu_arg gpu;
	const char *device = faults[rnd(sizeof faults / sizeof faults[0])];

	own.executor = TY_DEDICATED;
	memset(&w, 0, sizeof w);
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
	gpu = (struct ty_gpu_arg){.service = s, .ready_to = &s->clients, .ready_type = TY_CLIENTS_DEVICE, .options = {.name = "host", .fault = device[4] ? device + 5 : NULL}};
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
}

static void run(uint64_t seed)
{
	rng_state = seed * 0x9e3779b97f4a7c15ull + 1;
	seed_of_contents = ((uint64_t)rnd(UINT32_MAX) << 32) | rnd(UINT32_MAX);
	ty_log_setup(TY_LOG_ERROR, false);
	start_service(seed);
	for (int i = 0; i < STEPS; i++) {
		act();
		steps(rnd(40) ? rnd(12) : 600);
	}
	for (int i = 0; i < ENGINES; i++)
		if (w.engines[i].here)
			leave(&w.engines[i]);
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
