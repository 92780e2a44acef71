/* SPDX-License-Identifier: Apache-2.0
 *
 * The spine's parts: engines that the test plays, what their blocks hold, what they ask for and are answered.
 */
#ifndef TY_TESTS_SPINE_H
#define TY_TESTS_SPINE_H

#include "actors/engine.h"
#include "actors/service.h"

#define ENGINES 3
#define SESSIONS 4         /* per engine at a time */
#define CHAIN 6            /* chunks of the longest prompt */
#define BLOCKS 96          /* of a pool */
#define PLANES 4
#define RUN 65536          /* bytes of a block in a plane */
#define BLOCK_TOKENS 128
#define CHUNK_TOKENS 512
#define PER_CHUNK (CHUNK_TOKENS / BLOCK_TOKENS)
#define CHUNK_WORDS ((uint64_t)PER_CHUNK * PLANES * RUN / 8)
#define STEPS_OF_LAYERS 2  /* the first plane, then the others */

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

extern struct world {
	struct ty_runtime *rt;
	struct ty_service *service;
	struct ty_config config;
	struct engine_side engines[ENGINES];
	uint32_t calls, answers, checked, steps, stored, timeouts, flushed, failures, left;
	uint64_t next_session, next_client;
	bool device_open;
	_Atomic uint64_t *hold; /* of a device that is slow at times; null: it is not */
	int hold_fd;
} w;

/* Of the seed. */
uint32_t rnd(uint32_t below);
extern uint64_t seed_of_contents;

/* ---- contents (spine_contents.c); each aborts when it finds what should not be there ---- */

/* What chunk `first` + k of the prompt's holds goes into its blocks, or (`poison`) something that no chunk holds. */
void write_chunk(struct engine_side *e, const struct prompt *p, uint32_t k, bool poison);
void check_chunk(struct engine_side *e, const struct prompt *p, uint32_t k);
/* Is `step` of the retrieve under way there, as its word says? */
bool step_reached(const struct engine_side *e, const struct prompt *p, uint32_t step);
/* Then its planes hold their contents, long before the reply. */
void check_first_step(struct engine_side *e, const struct prompt *p);
uint64_t sum_of_blocks(struct engine_side *e, const struct prompt *p);

/* ---- requests (spine_requests.c) ---- */

struct call *new_call(struct engine_side *e, struct prompt *p, Tyer__V1__Request__VerbCase verb, int64_t timeout);
void send_call(struct call *c);
void look_up(struct engine_side *e, struct prompt *p);
void retrieve(struct engine_side *e, struct prompt *p);
void store(struct engine_side *e, struct prompt *p);
void end_session(struct engine_side *e, struct prompt *p);
/* Of the op under way, or one that was answered early: then its blocks are used again when this is answered. */
void flush(struct engine_side *e, struct prompt *p);
/* What became of a call that came back; the caller frees it. */
void answered(struct call *call);

#endif
