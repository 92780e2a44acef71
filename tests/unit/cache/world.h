/* SPDX-License-Identifier: Apache-2.0
 *
 * A small world around the real eviction actor, on one thread with a logical clock: an owner that copies and registers only
 * when the test says so, an engine that counts what comes back, and populate either real or an impostor that touches
 * nothing.
 */
#ifndef TY_TESTS_CACHE_WORLD_H
#define TY_TESTS_CACHE_WORLD_H

#include "check.h"

#include "actors/populate.h"
#include "actors/service.h"

#define WORLD_GPUS 2
#define MIB ((uint64_t)1 << 20)

struct world_options {
	uint64_t seed;
	uint32_t pieces;
	uint64_t ahead;      /* bytes; 0 = the whole arena */
	uint32_t gpus;       /* 0 = 1 */
	bool real_populate;
	bool hold_pieces;    /* keep pieces at the owner until world_let_pieces */
	bool dont_start;
	bool sums;           /* with a checksum actor */
	int policy;          /* enum ty_config_policy */
	struct ty_tenant_quota quotas[2];
	uint32_t quota_count, keep_percent;
	const char *tenants[2]; /* null: "first" and "second" */
	const char *tier[2]; /* as --tier would say it; then writeback and prefetch are there too */
};

struct world_op { /* op first: the engine gets it back as one */
	struct ty_op op;
	struct world_op *next;   /* at the owner */
	bool back;
	_Atomic uint64_t words[2]; /* of its timeline; word 1 is its done word */
	struct ty_timeline timeline;
	struct ty_layout layout; /* last: its planes, of which there are none, would follow */
};

struct world_fetch {
	struct ty_fetch *fetch;
	uint32_t family, first;
	bool out, back;
};

extern struct world {
	struct ty_runtime *rt;
	struct ty_service *service;
	struct ty_config config;
	struct ty_actor *engine, *rpc;
	struct world_op *at_gpu;         /* ops that the owner has */
	uint32_t at_gpu_count;
	struct ty_piece *held[64];       /* pieces that the owner has */
	uint32_t held_count;
	bool hold_pieces;
	uint32_t piece_tries[WORLD_GPUS]; /* pieces seen by each owner */
	enum ty_code piece_code[WORLD_GPUS]; /* what the owner says of pieces */
	uint32_t ops_out, ops_back, leases_out, leases_back;
	uint16_t spaces[2];              /* families' owners, in turn: tenants "first" and "second", or the options' */
	uint64_t touched;                /* pieces that went through the impostor */
} world;

void world_open(const struct world_options *options);
void world_close(void); /* the runtime stops; then everything is checked to be back, and freed */
void world_idle(void);  /* run until nothing is to do, timers included */
void world_steps(uint32_t n); /* at most n */
void world_pass(int64_t ns); /* run for so much of the logical clock, less if nothing is to do any more */
void world_let_pieces(void);

struct ty_key world_key(uint32_t family, uint32_t chunk);
/* A store of chunks [first, first + count) of a family; it goes to eviction. The caller frees it, when it is back. */
struct world_op *world_store(uint32_t family, uint32_t first, uint32_t count, uint64_t chunk_bytes, uint32_t part,
	uint32_t parts);
/* The owner is done with an op that it has. With TY_OK the slots are filled first. */
void world_copied(struct world_op *op, enum ty_code code);
/* Store and copy, until it is back. */
enum ty_code world_store_now(uint32_t family, uint32_t first, uint32_t count, uint64_t chunk_bytes);
void world_free(struct world_op *op);

/* Chunks [first, first + count) of a family from below: it goes to prefetch. */
void world_fetch(struct world_fetch *f, uint32_t family, uint32_t first, uint32_t count);
/* It is back: how many are here. They are checked and released. */
uint32_t world_fetched(struct world_fetch *f);

/* The longest prefix of [0, count), pinned; contents are checked. Null: nothing is here. */
struct ty_lease *world_lookup(uint32_t family, uint32_t count);
void world_check_lease(const struct ty_lease *lease);
void world_release(struct ty_lease *lease);
bool world_here(uint32_t family, uint32_t chunk); /* visible */

/* A request of the administration, which stays the caller's until world_forget. Its answer is in `x` when it is back. */
#define WORLD_NAMED_MAX 64 /* keys of a request */

struct world_request {
	struct ty_exchange x;
	bool back;
	Tyer__V1__Request q;
	Tyer__V1__Select select;
	struct ty_key keys[WORLD_NAMED_MAX];
	ProtobufCBinaryData key_at[WORLD_NAMED_MAX];
	char tenant[32], *tenant_at;
	union {
		Tyer__V1__Pin pin;
		Tyer__V1__Unpin unpin;
		Tyer__V1__Delete delete_;
		Tyer__V1__Clear clear;
		Tyer__V1__List list;
		Tyer__V1__Configure configure;
		Tyer__V1__Warm warm;
	} verb;
};
void world_ask(struct world_request *request, Tyer__V1__Request__VerbCase verb); /* after world_prepare and its changes */
void world_prepare(struct world_request *request, Tyer__V1__Request__VerbCase verb);
void world_name_keys(struct world_request *request, uint32_t family, uint32_t count); /* its first ones are selected */
void world_name_tenant(struct world_request *request, const char *name);
void world_forget(struct world_request *request);

/* Everything that must hold between two messages, over the given families of `chunks` chunks: every slot has one owner, every
 * chunk in the index has what its fields say, and counters agree. */
void world_check(uint32_t families, uint32_t chunks);
uint64_t world_stat(const _Atomic uint64_t *counter);

#endif
