/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu_load.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "busy/busy.h"
#include "kernels/pattern.h"

#define NAP_US 100
#define PATTERN_RUNS 65536u /* listed at once */

int64_t load_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

_Noreturn void load_failed(struct load_engine *e, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(e->line->error, sizeof e->line->error, fmt, args);
	va_end(args);
	atomic_store_explicit(&e->line->failed, true, memory_order_release); /* pairs with the parent's acquire */
	_exit(1);
}

static void must(struct load_engine *e, const char *what, enum ty_code code, const struct ty_error *err)
{
	if (code != TY_OK)
		load_failed(e, "%s: %s: %.180s", what, ty_code_name(code), err->text);
}

void load_key(uint64_t generation, uint32_t chunk, uint8_t key[TY_KEY_BYTES])
{
	for (uint32_t i = 0; i < TY_KEY_BYTES / 8; i++) {
		uint64_t word = ty_pattern_word(options.seed ^ generation * 0x9e3779b97f4a7c15ull, chunk + 1, i);

		memcpy(key + 8 * i, &word, 8);
	}
}

const uint32_t *load_blocks(const struct load_engine *e, uint32_t chunk, uint32_t shift)
{
	return e->ids + (size_t)((chunk + shift) % (2 * e->chunks)) * e->blocks_per_chunk;
}

/* ---- the pool --------------------------------------------------------------------------------- */

static void make_pool(struct load_engine *e)
{
	struct ty_region unused;
	struct ty_error err = {0};
	uint64_t random = options.seed + e->number + 1, pool;

	e->chunks = options.chunks;
	e->blocks_per_chunk = options.blocks_per_chunk;
	e->run_bytes = options.cross_layer ? options.run_bytes * options.planes : options.run_bytes;
	e->planes = options.cross_layer ? 1 : options.planes;
	e->block_count = 2 * e->chunks * e->blocks_per_chunk;
	e->block_stride = e->run_bytes;
	e->plane_stride = (uint64_t)e->block_count * e->run_bytes;
	e->chunk_bytes = (uint64_t)options.run_bytes * options.planes * e->blocks_per_chunk;
	pool = e->plane_stride * e->planes;
	must(e, "a client's GPU", ty_cuda_client_open(options.driver, (int)e->ordinal, &e->gpu, &err), &err);
	must(e, "a client's pool", ty_cuda_client_alloc(e->gpu, pool, &e->base, &e->region, &err), &err);
	e->region.length = pool;
	must(e, "a client's memory", ty_cuda_client_alloc(e->gpu, e->chunk_bytes, &e->scratch, &unused, &err), &err);
	must(e, "a client's memory", ty_cuda_client_host_alloc(e->gpu, e->chunk_bytes, (void **)&e->pinned, &err), &err);
	memset(e->pinned, (int)e->number + 1, e->chunk_bytes);
	e->ids = malloc(e->block_count * sizeof *e->ids);
	if (!e->ids)
		load_failed(e, "no memory");
	for (uint32_t i = 0; i < e->block_count; i++)
		e->ids[i] = i;
	for (uint32_t i = e->block_count - 1; i > 0; i--) {
		uint32_t k = (uint32_t)(ty_pattern_word(random, 7, i) % ((uint64_t)i + 1)), keep = e->ids[i];

		e->ids[i] = e->ids[k];
		e->ids[k] = keep;
	}
}

/* Fill all chunks with what the seed says, or compare; wrong words. */
static uint64_t patterns(struct load_engine *e, bool fill, uint64_t seed, uint32_t shift)
{
	uint32_t per_chunk = e->blocks_per_chunk * e->planes, count = 0;
	struct ty_pattern_run *runs = malloc(((size_t)per_chunk + PATTERN_RUNS) * sizeof *runs);
	uint32_t words = e->run_bytes / 8;
	struct ty_error err = {0};
	uint64_t wrong = 0;

	if (!runs)
		load_failed(e, "no memory");
	for (uint32_t c = 0; c < e->chunks; c++) {
		const uint32_t *blocks = load_blocks(e, c, shift);

		for (uint32_t i = 0; i < per_chunk; i++)
			runs[count++] = (struct ty_pattern_run){
				e->base + i % e->planes * e->plane_stride + blocks[i / e->planes] * e->block_stride, c + 1,
				i * words};
		if (count >= PATTERN_RUNS || c + 1 == e->chunks) {
			struct ty_pattern_wrong found = {0};

			if (fill)
				must(e, "a fill", ty_cuda_client_fill(e->gpu, seed, runs, count, words, &err), &err);
			else
				must(e, "a check", ty_cuda_client_check(e->gpu, seed, runs, count, words, &found, &err), &err);
			wrong += found.count;
			count = 0;
		}
	}
	free(runs);
	return wrong;
}

static uint64_t contents(const struct load_engine *e, uint64_t generation)
{
	(void)e;
	return options.seed * 31 + generation * 0x9e3779b97f4a7c15ull;
}

/* ---- rounds ----------------------------------------------------------------------------------- */

static const struct load_way *way(void)
{
	return options.plain ? &load_plain : &load_tyer;
}

static uint64_t next_generation(struct load_engine *e)
{
	return ++e->fresh << 8 | e->number; /* nobody else's */
}

static void store_round(struct load_engine *e)
{
	uint64_t generation = next_generation(e);

	way()->store(e, generation, 0);
	e->generation = generation;
}

/* What was evicted meanwhile, by what others store, is stored again, as an engine computes a prompt again: the same chunks, so that the
 * service learns that they go too early. With new ones each time it would keep what was read before for ever, and nothing else. */
static void retrieve_round(struct load_engine *e)
{
	if (!e->generation)
		store_round(e);
	for (uint32_t tries = 0; way()->retrieve(e, e->generation, e->chunks) < e->chunks; tries++) {
		if (tries == 1000)
			load_failed(e, "its chunks never stay");
		way()->store(e, e->generation, 0);
	}
}

static void raw(struct load_engine *e, bool to_host)
{
	struct ty_error err = {0};
	double seconds;

	must(e, "a plain copy", ty_cuda_client_time_copy(e->gpu, to_host, e->pinned, e->scratch, e->chunk_bytes, &seconds, &err), &err);
	atomic_fetch_add_explicit(&e->line->bytes[!to_host], e->chunk_bytes, memory_order_relaxed);
}

static void compare(struct load_engine *e, uint64_t generation, uint32_t shift)
{
	e->line->wrong_words += patterns(e, false, contents(e, generation), shift);
	e->line->checked_chunks += e->chunks;
}

static void check_round(struct load_engine *e)
{
	uint64_t generation = next_generation(e);

	for (uint32_t tries = 0; tries < 100; tries++) {
		(void)patterns(e, true, contents(e, generation), 0);
		way()->store(e, generation, 0);
		(void)patterns(e, true, ~contents(e, generation), 0);
		(void)patterns(e, true, ~contents(e, generation), e->chunks);
		e->generation = generation;
		if (way()->retrieve(e, generation, e->chunks) == e->chunks) {
			compare(e, generation, e->chunks);
			return;
		}
	}
	load_failed(e, "its chunks never stay");
}

static void latency(struct load_engine *e)
{
	struct ty_error err = {0};
	uint32_t count = options.iterations < LOAD_SAMPLES ? options.iterations : LOAD_SAMPLES;

	if (!way()->latency)
		load_failed(e, "it has no done word");
	store_round(e);
	for (uint32_t i = 0; i < count; i++) {
		double seconds = 0;
		int64_t began = load_now();

		/* by the same clock: from the call until it is seen to be done */
		must(e, "a plain copy", ty_cuda_client_time_copy(e->gpu, false, e->pinned, e->scratch, e->chunk_bytes, &seconds, &err),
			&err);
		e->line->raw_us[i] = (double)(load_now() - began) / 1e3;
		e->line->done_us[i] = way()->latency(e, e->generation, e->chunks) * 1e6;
	}
	e->line->samples = count;
}

/* ---- two clients ------------------------------------------------------------------------------ */

static void step_to(struct load_engine *e, uint32_t step)
{
	atomic_store_explicit(&e->line->step, step, memory_order_release); /* pairs with the other's acquire */
}

static void wait_for(const struct load_engine *e, uint32_t other, uint32_t step)
{
	const struct load_line *line = &shared->line[other];

	(void)e;
	while (atomic_load_explicit(&line->step, memory_order_acquire) < step) {
		if (atomic_load_explicit(&line->failed, memory_order_acquire))
			_exit(1); /* the parent has seen why */
		usleep(NAP_US);
	}
}

#define SHARED_GENERATION ((uint64_t)1 << 62) /* known to both */

static void cross(struct load_engine *e)
{
	uint64_t generation = SHARED_GENERATION | atomic_load_explicit(&shared->phase, memory_order_relaxed);

	if (e->number == 0) {
		(void)patterns(e, true, contents(e, generation), 0);
		way()->store(e, generation, 0);
		step_to(e, 1);
	} else if (e->number == 1) {
		(void)patterns(e, true, ~contents(e, generation), 0);
		wait_for(e, 0, 1);
		if (way()->retrieve(e, generation, 0) < e->chunks)
			load_failed(e, "what the other GPU stored is not there");
		compare(e, generation, 0);
	}
}

/* Two parts of one engine: what only one of them stored is not there. */
static void pair(struct load_engine *e)
{
	uint64_t generation = SHARED_GENERATION | atomic_load_explicit(&shared->phase, memory_order_relaxed);
	uint64_t mine = generation + e->part, first = generation, second = generation + 1;
	uint32_t hits;

	if (e->number > 1)
		return;
	(void)patterns(e, true, contents(e, mine), 0);
	if (e->part == 0) {
		load_tyer_lookup(e, first, generation, &hits);
		load_tyer_move(e, first, true, 0);
		load_tyer_lookup(e, second, generation, &hits);
		if (hits)
			load_failed(e, "%u chunks are there, and only one of two parts was stored", hits);
		load_tyer_end(e, second);
		step_to(e, 1);
		wait_for(e, 1, 2);
		load_tyer_lookup(e, second, generation, &hits);
		if (hits != e->chunks)
			load_failed(e, "%u of %u chunks are there, and both parts were stored", hits, e->chunks);
		step_to(e, 3);
	} else {
		wait_for(e, 0, 1);
		load_tyer_move(e, first, true, 0);
		step_to(e, 2);
		wait_for(e, 0, 3);
	}
	(void)patterns(e, true, ~contents(e, mine), e->chunks);
	load_tyer_move(e, second, false, e->chunks);
	compare(e, mine, e->chunks);
	if (e->part == 1) {
		step_to(e, 4);
	} else {
		wait_for(e, 1, 4);
		load_tyer_end(e, first);
		load_tyer_end(e, second);
	}
}

static void stall(struct load_engine *e)
{
	static const uint64_t zero;
	struct ty_error err = {0};

	load_tyer_store_unready(e, next_generation(e));
	must(e, "a client's memory", ty_cuda_client_write(e->gpu, e->scratch, &zero, sizeof zero, &err), &err);
	must(e, "a kernel without an end", ty_busy_hang(e->gpu, e->scratch, &err), &err);
}

/* ---- the loop --------------------------------------------------------------------------------- */

/* Returns false when the phase is done with, whatever others still do. */
static bool one_round(struct load_engine *e, enum load_mode mode)
{
	bool odd = e->number / options.device_count % 2; /* of each device, half of the clients */

	switch (mode) {
	case LOAD_STORE:
		store_round(e);
		return true;
	case LOAD_RETRIEVE:
		retrieve_round(e);
		return true;
	case LOAD_TURNS:
		store_round(e);
		retrieve_round(e);
		return true;
	case LOAD_HALVES:
		(odd ? retrieve_round : store_round)(e);
		return true;
	case LOAD_RAW_STORE:
	case LOAD_RAW_RETRIEVE:
		raw(e, mode == LOAD_RAW_STORE);
		return true;
	case LOAD_RAW_HALVES:
		raw(e, !odd);
		return true;
	case LOAD_CHECK:
		check_round(e);
		return false;
	case LOAD_LATENCY:
		if (e->number == 0)
			latency(e);
		return false;
	case LOAD_CROSS:
		cross(e);
		return false;
	case LOAD_PAIR:
		pair(e);
		return false;
	case LOAD_STALL:
		stall(e);
		return false;
	case LOAD_IDLE:
	case LOAD_END:
		break;
	}
	return false;
}

_Noreturn void load_engine_run(uint32_t number, uint32_t ordinal, uint32_t part, uint32_t parts)
{
	static struct load_engine e;
	uint8_t id[16] = {0};
	uint32_t done = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	e = (struct load_engine){.number = number, .ordinal = ordinal, .line = &shared->line[number], .part = part, .parts = parts};
	if (parts > 1)
		memcpy(id, &options.seed, sizeof options.seed);
	make_pool(&e);
	way()->open(&e, id);
	way()->join(&e);
	atomic_store_explicit(&e.line->open, true, memory_order_release); /* pairs with the parent's acquire */
	for (;;) {
		uint32_t phase = atomic_load_explicit(&shared->phase, memory_order_acquire); /* pairs with the parent's release */
		enum load_mode mode = (enum load_mode)atomic_load_explicit(&shared->mode, memory_order_relaxed);
		bool mine = atomic_load_explicit(&shared->clients, memory_order_relaxed) >> number & 1;

		if (mode == LOAD_END)
			break;
		if (phase != done && mine && one_round(&e, mode)) {
			atomic_fetch_add_explicit(&e.line->rounds, 1, memory_order_relaxed);
			continue;
		}
		done = phase;
		atomic_store_explicit(&e.line->idle_phase, phase, memory_order_release); /* pairs with the parent's acquire */
		usleep(NAP_US);
	}
	way()->close(&e);
	ty_cuda_client_host_free(e.gpu, e.pinned);
	ty_cuda_client_free(e.gpu, e.scratch);
	ty_cuda_client_free(e.gpu, e.base);
	ty_cuda_client_close(e.gpu);
	_exit(0);
}

/* PINGs at a fixed rate. One that could not be sent in time, because the one before had no answer, is measured from when it
 * should have been. */
_Noreturn void load_ping_run(void)
{
	static struct load_engine e;
	int64_t period = 1000000000 / options.ping_hz, due;
	uint32_t count = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	e = (struct load_engine){.number = LOAD_CLIENTS, .line = &shared->line[LOAD_CLIENTS]};
	way()->open(&e, NULL);
	atomic_store_explicit(&e.line->open, true, memory_order_release);
	due = load_now();
	while (atomic_load_explicit(&shared->mode, memory_order_relaxed) != LOAD_END && count < LOAD_PINGS) {
		int64_t now = load_now();

		if (now < due) {
			struct timespec nap = {.tv_nsec = due - now};

			nanosleep(&nap, NULL);
			continue;
		}
		way()->ping(&e);
		shared->ping[count] = (struct load_ping){due, load_now() - due};
		atomic_store_explicit(&shared->pings, ++count, memory_order_release); /* pairs with the parent's acquire */
		due += period;
	}
	way()->close(&e);
	_exit(0);
}

/* Free memory of every GPU, all the time. */
_Noreturn void load_watch_run(void)
{
	static struct load_engine e;
	struct ty_cuda_client *gpu[LOAD_DEVICES];
	struct ty_error err = {0};
	uint64_t total, available;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	e = (struct load_engine){.number = LOAD_CLIENTS + 1, .line = &shared->line[LOAD_CLIENTS + 1]};
	for (uint32_t i = 0; i < options.device_count; i++)
		must(&e, "the watcher", ty_cuda_client_open(options.driver, (int)options.devices[i], &gpu[i], &err), &err);
	while (atomic_load_explicit(&shared->mode, memory_order_relaxed) != LOAD_END) {
		for (uint32_t i = 0; i < options.device_count; i++) {
			must(&e, "the watcher", ty_cuda_client_memory(gpu[i], &available, &total, &err), &err);
			atomic_store_explicit(&shared->free_bytes[options.devices[i]], available, memory_order_relaxed);
		}
		atomic_store_explicit(&e.line->open, true, memory_order_release);
		usleep(2000);
	}
	for (uint32_t i = 0; i < options.device_count; i++)
		ty_cuda_client_close(gpu[i]);
	_exit(0);
}
