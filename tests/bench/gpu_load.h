/* SPDX-License-Identifier: Apache-2.0
 *
 * gpu_load's parts: a parent that says what everybody does now (phases), client processes that store and retrieve, one that
 * PINGs, and two services that they may use: Tyer, and the baseline (gpu_threads.c).
 *
 *   gpu_load.c     scenarios
 *   gpu_parent.c   processes and phases
 *   gpu_measure.c  rates, PINGs, the report
 *   gpu_engine.c   a client process: its pool, its rounds, its checks
 *   gpu_tyer.c     its way to Tyer, by libtyer-client
 *   gpu_plain.c    its way to the baseline
 */
#ifndef TY_BENCH_GPU_LOAD_H
#define TY_BENCH_GPU_LOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <tyer/client.h>

#include "device/cuda_client.h"

#define LOAD_CLIENTS 64
#define LOAD_DEVICES 16
#define LOAD_PINGS 65536
#define LOAD_SAMPLES 4096
#define LOAD_OP_CHUNKS 4 /* of one STORE or RETRIEVE ... */
#define LOAD_DEPTH 4     /* ... and how many of them a client of Tyer has in flight */

enum load_mode {
	LOAD_IDLE,
	LOAD_STORE,       /* fresh chunks, again and again */
	LOAD_RETRIEVE,    /* the same chunks into other blocks */
	LOAD_TURNS,       /* each client stores and retrieves in turn */
	LOAD_HALVES,      /* half of a device's clients store, the others retrieve */
	LOAD_RAW_STORE,   /* plain page-locked copies, without any service */
	LOAD_RAW_RETRIEVE,
	LOAD_RAW_HALVES,
	LOAD_CHECK,       /* once: fresh contents out, poison, in elsewhere, every word compared */
	LOAD_LATENCY,     /* client 0 alone: one chunk, call to done word; raw copies between */
	LOAD_CROSS,       /* once: client 0 stores, client 1 retrieves and compares */
	LOAD_PAIR,        /* once: clients 0 and 1 are two parts of an engine */
	LOAD_STALL,       /* once: the client's kernel never ends, and a STORE awaits what comes after it */
	LOAD_END,
};

/* One client's line in shared memory. The client writes, the parent reads. */
struct load_line {
	_Atomic uint64_t bytes[2];   /* moved: stored, retrieved; relaxed */
	_Atomic uint64_t rounds;
	_Atomic uint32_t idle_phase; /* the last phase that it is through with; release, the parent acquires */
	_Atomic uint32_t step;       /* of LOAD_CROSS and LOAD_PAIR: read by the other one too; release, acquire */
	_Atomic bool open, failed;   /* release: `error` and all else is written; the parent acquires */
	uint64_t checked_chunks, wrong_words;
	uint32_t samples;
	double done_us[LOAD_SAMPLES], raw_us[LOAD_SAMPLES];
	char error[256];
};

struct load_ping {
	int64_t due;
	int64_t took; /* ns, from when it should have been sent */
};

struct load_shared {
	_Atomic uint32_t phase;   /* counts up; the rest is written before it (release) */
	_Atomic uint32_t mode;    /* enum load_mode; relaxed, read after phase */
	_Atomic uint64_t clients; /* bits: who takes part */
	_Atomic uint32_t pings;   /* written; release */
	_Atomic uint64_t free_bytes[LOAD_DEVICES]; /* of each GPU, by the watcher; relaxed */
	struct load_ping ping[LOAD_PINGS];
	struct load_line line[LOAD_CLIENTS + 2]; /* the last are the PING's and the watcher's */
};

struct load_options {
	const char *scenario, *connect, *attach, *driver, *json;
	bool plain; /* the baseline, not Tyer */
	bool cross_layer, tiny;
	uint32_t devices[LOAD_DEVICES], device_count;
	uint32_t clients, chunks, planes, run_bytes, blocks_per_chunk, iterations, ping_hz;
	double seconds;
	uint64_t seed;
};
extern struct load_options options;
extern struct load_shared *shared;

/* A client process. */
struct load_engine {
	uint32_t number, ordinal;
	struct load_line *line;
	struct ty_cuda_client *gpu;
	uint64_t base, scratch; /* the pool; what raw copies move, chunk by chunk */
	uint8_t *pinned;
	struct ty_region region;
	uint32_t chunks;        /* of a round; the pool has room for twice as many */
	uint32_t blocks_per_chunk, block_count, run_bytes, planes;
	uint64_t block_stride, plane_stride, chunk_bytes;
	uint32_t *ids;          /* all blocks, in no order */
	uint64_t generation;    /* of the chunks that are stored and can be retrieved; 0: none */
	uint64_t fresh;         /* generations so far */
	void *service;          /* struct ty_client or nng socket: the way's own */
	uint32_t registration;
	uint64_t session;
	uint32_t part, parts;
};

_Noreturn void load_failed(struct load_engine *e, const char *fmt, ...) TY_PRINTF(2, 3);
int64_t load_now(void);
/* A chunk's key; the same for all clients that know its generation. */
void load_key(uint64_t generation, uint32_t chunk, uint8_t key[TY_KEY_BYTES]);
/* The block ids of a chunk: `shift` chunks further on in the pool's order. */
const uint32_t *load_blocks(const struct load_engine *e, uint32_t chunk, uint32_t shift);

/* A way to a service. Each fails by load_failed. */
struct load_way {
	void (*open)(struct load_engine *e, const uint8_t id[16]);
	void (*join)(struct load_engine *e); /* register the pool */
	void (*close)(struct load_engine *e);
	void (*store)(struct load_engine *e, uint64_t generation, uint32_t shift);
	/* How many of the chunks were there; nothing was moved unless all were. */
	uint32_t (*retrieve)(struct load_engine *e, uint64_t generation, uint32_t shift);
	/* Call to the done word of one chunk's RETRIEVE, seconds; null: it has no such thing. */
	double (*latency)(struct load_engine *e, uint64_t generation, uint32_t shift);
	void (*ping)(struct load_engine *e); /* returns when it is answered */
};
extern const struct load_way load_tyer, load_plain;

/* Of Tyer alone. */
void load_tyer_lookup(struct load_engine *e, uint64_t session, uint64_t generation, uint32_t *hits);
void load_tyer_move(struct load_engine *e, uint64_t session, bool store, uint32_t shift);
void load_tyer_end(struct load_engine *e, uint64_t session);
/* A STORE whose ready word is raised by nobody; its reply is not waited for. */
void load_tyer_store_unready(struct load_engine *e, uint64_t generation);

/* The process's main loop: until LOAD_END. */
_Noreturn void load_engine_run(uint32_t number, uint32_t ordinal, uint32_t part, uint32_t parts);
_Noreturn void load_ping_run(void);
_Noreturn void load_watch_run(void);

#endif
