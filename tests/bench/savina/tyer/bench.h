/* SPDX-License-Identifier: Apache-2.0
 *
 * What the programs share: savina-tyer PROGRAM WORKERS PARAMETER... prints one line of JSON. A program sets
 * up its actors, calls clock_start, sends the first message and waits; the actor that sees the end calls
 * finished.
 */
#ifndef SAVINA_BENCH_H
#define SAVINA_BENCH_H

#include <stdint.h>
#include <stdlib.h>

#include <tyer/actor.h>

/* Returns the check: the driver knows what it must be. */
typedef uint64_t program_fn(struct ty_runtime *rt, const uint64_t *params);

program_fn run_pingpong, run_counting, run_threadring, run_fjthroughput, run_fjcreate, run_big, run_chameneos,
	run_bndbuffer, run_bndcrates, run_philosophers, run_concdict, run_wake;

/* Every actor's state is the address of the struct that `arg` of its spawn was: the program's own memory. */
struct actor_state {
	void *own;
};
enum ty_code state_start(void *self, void *arg);
#define CLASS(label, first, table)                                                                           \
	{                                                                                                    \
		.name = (label), .state_size = sizeof(struct actor_state), .first_type = (first),            \
		.type_count = sizeof(table) / sizeof((table)[0]), .handlers = (table), .start = state_start  \
	}
static inline void *own(void *self)
{
	return ((struct actor_state *)self)->own;
}

void must(enum ty_code code);
static inline void send(struct ty_actor *to, struct ty_msg *msg, uint32_t type)
{
	enum ty_code code = ty_send(to, msg, type);

	if (__builtin_expect(code != TY_OK, 0))
		must(code);
}
struct ty_actor *spawn(struct ty_runtime *rt, const struct ty_class *cls, void *arg);
/* Zeroed; each on lines of its own if size is a multiple of 64. Freed once the runtime is gone. */
void *table_of(uint64_t count, size_t size);

void clock_start(void);
void finished(void); /* any thread, once */
void wait_finished(void);
int64_t clock_ns(void);

/* Numbers that are the same in every language. */
static inline uint32_t next_random(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return *state >> 8;
}

/* wake alone: before the runtime is created, whose threads inherit it */
void place_sleepers(void);
/* wake alone: what is printed beside the time */
struct latency {
	int64_t p50, p99;
};
extern struct latency wake_latency, futex_latency;

#endif
