/* SPDX-License-Identifier: Apache-2.0
 *
 * One client process's world: its connection, its pool, its registration. And a request of the trace on its way
 * through (session.c): LOOKUP, RETRIEVE and check the hits, fill and STORE the rest, END_SESSION.
 */
#ifndef TY_BENCH_ENGINE_H
#define TY_BENCH_ENGINE_H

#include "calls.h"
#include "options.h"
#include "policy.h"
#include "pool.h"

struct bench_engine {
	const struct bench_options *options;
	struct bench_stats *stats;
	struct bench_calls *calls;
	struct ty_client *client;
	const struct ty_client_info *info;
	struct bench_pool *pool; /* null: a client that only PINGs */
	uint32_t registration;
	struct bench_contents contents;
	const struct bench_trace *trace; /* replay */
	const struct bench_history *history; /* --hints; null: nothing is said */
	uint32_t parts;                  /* chunks of the service in a block of the trace */
	uint32_t window;                 /* chunks of the pool that belong to one session */
};

/* Connect; with_attach: for everything but PING. `number` is part of the client's name. On failure the exit code is left
 * in the stats, with what to say. */
TY_MUST_USE bool bench_engine_open(struct bench_engine *engine, const struct bench_options *options,
	struct bench_stats *stats, unsigned number, bool with_attach);
/* A pool of `chunks` chunks of this shape; and its registration. Failures as above. */
TY_MUST_USE bool bench_engine_pool(struct bench_engine *engine, const struct bench_shape *shape, uint32_t chunks);
TY_MUST_USE bool bench_engine_register(struct bench_engine *engine);
/* Unregister, disconnect, free. Counts what was lost. */
void bench_engine_close(struct bench_engine *engine);
/* Poll until *done, or until the requests in flight are overdue (then false, and the stats say so). */
TY_MUST_USE bool bench_engine_wait(struct bench_engine *engine, const bool *done);
/* Have requests gone without a reply for too long? Then the process cannot go on; the stats say so. */
bool bench_engine_overdue(struct bench_engine *engine);

/* Count a reply that is not OK: tolerated or unexpected, with a text. Returns true when it was tolerated. */
bool bench_engine_error(struct bench_engine *engine, enum bench_row verb, enum ty_code code, const char *text,
	const char *about);

/* ---- a request of the trace ---------------------------------------------------------------- */

enum bench_step {
	BENCH_IDLE,
	BENCH_LOOKUP,
	BENCH_POISON, /* local work */
	BENCH_RETRIEVE,
	BENCH_CHECK, /* local work */
	BENCH_FILL,  /* local work */
	BENCH_STORE, /* with --store-early the filling goes on meanwhile */
	BENCH_END,
};

struct bench_session {
	struct bench_engine *engine;
	uint32_t number; /* among the client's sessions: decides its marks' words and its part of the pool */
	const struct bench_request *request;
	uint32_t request_number;
	uint64_t id;
	uint8_t *hashes; /* room for the trace's largest request */
	uint32_t *own;   /* its blocks of the pool: engine->window chunks */
	uint32_t *blocks; /* those of the operation under way, chunk by chunk */
	struct bench_item *items;
	uint32_t chunks, hits;   /* of the prompt */
	uint32_t first, count;   /* chunks of the operation under way */
	uint32_t turn;           /* rotates `own`, so that a chunk lands in other blocks than the last one there */
	uint32_t worked;         /* items of the local work that are done */
	enum bench_step step;
	bool waiting, filling, answered, failed;
	bool quarantined; /* its last operation may still touch its blocks: nothing begins before FLUSH says that none does */
	enum ty_code flush_code; /* the last FLUSH's answer */
	int64_t retry_at, busy_since, backoff; /* ns; retry_at 0 = no retry is due */
	int64_t intended, started;
	struct ty_mark ready, done;
};

TY_MUST_USE bool bench_session_init(struct bench_session *session, struct bench_engine *engine, uint32_t number,
	const uint32_t *own);
void bench_session_free(struct bench_session *session);
/* May it take a request? One in quarantine may not. */
bool bench_session_ready(const struct bench_session *session);
void bench_session_start(struct bench_session *session, uint32_t request, int64_t intended);
/* A slice of local work, a retry or a FLUSH that is due. True when there was anything to do. */
bool bench_session_work(struct bench_session *session, int64_t now);

/* ---- the processes' loops ------------------------------------------------------------------ */

/* Between the processes of a run; in shared memory. */
struct bench_control {
	_Atomic bool stop;     /* set by the parent, read by all (relaxed: a hint to end soon) */
	_Atomic uint32_t next; /* --deal next: the next request; taken by fetch_add (relaxed: only its value counts) */
	int64_t start;         /* set by the parent before the start byte goes down the pipe */
};

/* The trace's requests that fall to client `number`. */
void bench_replay_client(struct bench_engine *engine, struct bench_control *control, unsigned number);
/* PING every `period` ns for `duration` ns (0 = until stopped). */
void bench_ping_client(struct bench_engine *engine, struct bench_control *control, int64_t period, int64_t duration);

/* How many sessions a replay client has, and the chunks of its pool; TY_INVALID when the pool cannot hold one chunk for
 * each. */
TY_MUST_USE enum ty_code bench_replay_plan(struct bench_engine *engine, const struct bench_shape *shape, uint32_t *chunks,
	struct ty_error *err);

/* The commands. Each returns the process's exit code. */
int bench_replay(const struct bench_options *options);
int bench_copy(const struct bench_options *options);
int bench_ping(const struct bench_options *options);

#endif
