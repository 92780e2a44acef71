/* SPDX-License-Identifier: Apache-2.0
 *
 * What cache lines allow: bare [--rounds N] [--workers 1,2,4,...] [--messages N] [--work STEPS]
 *
 * First how long a line takes from the first CPU to each other one: the rest hangs on that. Then scale's big without a
 * runtime: 120 talkers ping each other at random, one ping of each under way; each talker stays with one thread, each thread
 * with one CPU, and from each thread to each other one goes a ring that nobody else touches. Nobody sleeps, nothing is counted,
 * checked or bounded, none can be stolen: no runtime for general use could move less.
 * What is in a place of a ring:
 *
 *   address  the message's address, eight to a line: the message is a line of its own, as where a program owns its messages
 *   line     the message itself, one to a line
 *   packed   the message itself in sixteen bytes, four to a line
 *
 * --work: steps of a dependent chain (about a nanosecond each) that each message takes, in place of what a runtime does.
 * Prints the median of the rounds, in which the kinds and the worker counts take turns: ns a message.
 */
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TALKERS 120
#define PLACES 256 /* of a ring: more than there are messages, so none is ever full */
#define MAX_WORKERS 32
#define MAX_ROUNDS 99
#define LINE 64

enum kind { ADDRESS, INLINE, PACKED, KINDS };
static const char *const kind_names[KINDS] = {"address", "line", "packed"};
enum { PING, PONG };

/* A message is a word, so that copying it waits for nothing. */
static uint64_t message(uint64_t type, uint64_t to, uint64_t from)
{
	return type << 32 | to << 16 | from;
}

static uint32_t type_of(uint64_t message)
{
	return (uint32_t)(message >> 32);
}

static uint32_t to(uint64_t message)
{
	return (uint32_t)(message >> 16) & 0xffff;
}

static uint32_t from(uint64_t message)
{
	return (uint32_t)message & 0xffff;
}

/* A place says by `turn` whether it was filled in this lap (odd and even in turn) or in the one before: its receiver writes
 * nothing. turn: the sender stores with release, behind the rest; the receiver loads with acquire. */
struct packed_place {
	alignas(16) _Atomic(uint32_t) turn;
	uint64_t message;
};

struct line_place {
	alignas(LINE) _Atomic(uint32_t) turn;
	uint64_t message;
};

struct own_message { /* of a talker; whoever the message is with reads and writes it */
	alignas(LINE) uint64_t message;
};

union place_of {
	struct line_place line[PLACES];
	struct packed_place packed[PLACES];
	_Atomic(uintptr_t) address[PLACES]; /* the lowest bit: the turn */
};

struct ring {
	alignas(LINE) union place_of place;
};

struct talker { /* its worker's alone */
	alignas(LINE) uint64_t sent, received;
	uint32_t random;
};

struct item {
	struct own_message *own; /* null: the message is in the item */
	uint64_t message;
};

struct worker { /* its thread's alone */
	alignas(LINE) struct item queue[PLACES];
	uint32_t head, tail;
	uint32_t sent[MAX_WORKERS], taken[MAX_WORKERS]; /* of the ring to, from each other worker */
	uint32_t index;
	uint64_t handled, work;
	pthread_t thread;
};

static struct ring *rings[MAX_WORKERS][MAX_WORKERS]; /* from, to */
static struct talker talkers[TALKERS];
static struct own_message messages[TALKERS];
static struct worker workers[MAX_WORKERS];
static uint8_t homes[TALKERS]; /* the worker's index */
/* main's, and constant while workers run */
static uint32_t worker_count, all_ready;
static uint64_t each, steps;
static enum kind kind;
static alignas(LINE) _Atomic(uint32_t) started;  /* each worker adds itself, main comes last, and then all go: seq_cst */
static alignas(LINE) _Atomic(uint32_t) finished; /* talkers that have sent all. acq_rel, read with acquire: who sees all of them ends */

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "bare: %s\n", what);
	exit(1);
}

static uint32_t turn_of(uint32_t count)
{
	return (count / PLACES + 1) & 1;
}

static void put_here(struct worker *worker, struct item item)
{
	worker->queue[worker->tail++ % PLACES] = item;
}

static void send_item(struct worker *worker, struct item item)
{
	uint32_t home = homes[to(item.message)], at, turn;
	union place_of *place;

	if (item.own)
		item.own->message = item.message;
	if (home == worker->index) {
		put_here(worker, item);
		return;
	}
	at = worker->sent[home] % PLACES;
	turn = turn_of(worker->sent[home]++);
	place = &rings[worker->index][home]->place;
	if (kind == ADDRESS) {
		atomic_store_explicit(&place->address[at], (uintptr_t)item.own | turn, memory_order_release);
	} else if (kind == INLINE) {
		place->line[at].message = item.message;
		atomic_store_explicit(&place->line[at].turn, turn, memory_order_release);
	} else {
		place->packed[at].message = item.message;
		atomic_store_explicit(&place->packed[at].turn, turn, memory_order_release);
	}
}

/* The oldest in the ring; false: none. Of a message by address the contents are left for later, its line asked for. */
static bool take_from(struct worker *worker, uint32_t sender, struct item *out)
{
	uint32_t at = worker->taken[sender] % PLACES, turn = turn_of(worker->taken[sender]);
	union place_of *place = &rings[sender][worker->index]->place;

	*out = (struct item){0};
	if (kind == ADDRESS) {
		uintptr_t word = atomic_load_explicit(&place->address[at], memory_order_acquire);

		if (!word || (word & 1) != turn)
			return false;
		out->own = (struct own_message *)(word & ~(uintptr_t)1);
		__builtin_prefetch(out->own, 1);
	} else if (kind == INLINE) {
		if (atomic_load_explicit(&place->line[at].turn, memory_order_acquire) != turn)
			return false;
		out->message = place->line[at].message;
	} else {
		if (atomic_load_explicit(&place->packed[at].turn, memory_order_acquire) != turn)
			return false;
		out->message = place->packed[at].message;
	}
	worker->taken[sender]++;
	return true;
}

static void compute(struct worker *worker)
{
	uint64_t x = worker->work;

	for (uint64_t i = 0; i < steps; i++)
		x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	worker->work = x;
}

static void handle(struct worker *worker, struct item item)
{
	struct talker *talker;
	uint32_t self;

	if (item.own)
		item.message = item.own->message;
	self = to(item.message);
	talker = &talkers[self];
	worker->handled++;
	compute(worker);
	if (type_of(item.message) == PING) {
		talker->received++;
		item.message = message(PONG, from(item.message), self);
		send_item(worker, item);
		return;
	}
	if (talker->sent == each) {
		atomic_fetch_add_explicit(&finished, 1, memory_order_acq_rel);
		return;
	}
	talker->sent++;
	talker->random = talker->random * 1664525u + 1013904223u;
	item.message = message(PING, (talker->random >> 8) % TALKERS, self);
	send_item(worker, item);
}

static void *run_worker(void *arg)
{
	struct worker *worker = arg;
	struct item item;

	atomic_fetch_add(&started, 1);
	while (atomic_load(&started) < all_ready)
		;
	while (atomic_load_explicit(&finished, memory_order_acquire) < TALKERS) {
		for (uint32_t sender = 0; sender < worker_count; sender++)
			while (sender != worker->index && take_from(worker, sender, &item))
				put_here(worker, item);
		for (uint32_t left = worker->tail - worker->head; left; left--)
			handle(worker, worker->queue[worker->head++ % PLACES]);
	}
	return NULL;
}

static int64_t clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void prepare(uint32_t count)
{
	worker_count = count;
	all_ready = count + 1;
	memset(workers, 0, sizeof workers);
	atomic_store(&started, 0);
	atomic_store(&finished, 0);
	for (uint32_t i = 0; i < count; i++) {
		workers[i].index = i;
		for (uint32_t k = 0; k < count; k++)
			memset(rings[i][k], 0, sizeof *rings[i][k]);
	}
	for (uint32_t i = 0; i < TALKERS; i++) {
		struct item item = {.own = kind == ADDRESS ? &messages[i] : NULL, .message = message(PONG, i, 0)};

		talkers[i] = (struct talker){.random = i};
		homes[i] = (uint8_t)(i % count);
		messages[i].message = item.message;
		put_here(&workers[homes[i]], item);
	}
}

/* ns a message. The workers are bound to the first CPUs that the process may use. */
static double run_once(uint32_t count)
{
	uint64_t received = 0, handled = 0;
	cpu_set_t all;
	size_t cpu = 0;
	int64_t began;

	prepare(count);
	if (sched_getaffinity(0, sizeof all, &all) != 0)
		fail("no CPUs");
	for (uint32_t i = 0; i < count; i++, cpu++) {
		pthread_attr_t attr;
		cpu_set_t one;

		while (!CPU_ISSET(cpu, &all))
			cpu++;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (pthread_attr_init(&attr) != 0 || pthread_attr_setaffinity_np(&attr, sizeof one, &one) != 0 ||
			pthread_create(&workers[i].thread, &attr, run_worker, &workers[i]) != 0)
			fail("no thread");
		pthread_attr_destroy(&attr);
	}
	while (atomic_load(&started) < count)
		sched_yield();
	began = clock_ns();
	atomic_fetch_add(&started, 1);
	for (uint32_t i = 0; i < count; i++) {
		pthread_join(workers[i].thread, NULL);
		handled += workers[i].handled;
	}
	began = clock_ns() - began;
	for (uint32_t i = 0; i < TALKERS; i++)
		received += talkers[i].received;
	if (received != each * TALKERS || handled != (2 * each + 1) * TALKERS)
		fail("a ping is missing");
	return (double)began / (double)handled;
}

/* ---- lines --------------------------------------------------------------------------------- */

#define BOUNCES 20000

struct shared_line {
	alignas(LINE) _Atomic(uint32_t) turn; /* even: the first thread's; whoever has it adds one */
	alignas(LINE) size_t cpu;             /* of the second */
};

static bool pin(size_t cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof set, &set) == 0; /* of the calling thread */
}

static void bounce(struct shared_line *line, uint32_t parity)
{
	for (uint32_t turn = parity; turn < 2 * BOUNCES; turn += 2) {
		while (atomic_load_explicit(&line->turn, memory_order_acquire) != turn)
			;
		atomic_store_explicit(&line->turn, turn + 1, memory_order_release);
	}
}

static void *second(void *arg)
{
	struct shared_line *line = arg;

	if (!pin(line->cpu))
		fail("no CPU");
	bounce(line, 1);
	return NULL;
}

/* ns that a line takes from the caller's CPU to another. */
static double move_to(size_t cpu)
{
	struct shared_line line = {.cpu = cpu};
	int64_t began = clock_ns();
	pthread_t thread;

	if (pthread_create(&thread, NULL, second, &line) != 0)
		fail("no CPU");
	bounce(&line, 0);
	pthread_join(thread, NULL);
	return (double)(clock_ns() - began) / (2.0 * BOUNCES);
}

static void show_lines(void)
{
	cpu_set_t all;
	bool first = true;

	if (sched_getaffinity(0, sizeof all, &all) != 0)
		fail("no CPU");
	for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &all))
			continue;
		if (!first)
			printf(" %zu: %.0f", cpu, move_to(cpu));
		else if (pin(cpu))
			printf("a line from CPU %zu to, ns:", cpu);
		first = false;
		fflush(stdout);
	}
	printf("\n");
	if (sched_setaffinity(0, sizeof all, &all) != 0)
		fail("no CPU");
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Of the counts those that this machine has CPUs for: who spins needs one. Returns how many. */
static size_t that_have_cpus(uint32_t *counts, size_t count, uint32_t cpus)
{
	size_t kept = 0;

	for (size_t i = 0; i < count; i++)
		if (counts[i] >= 1 && counts[i] <= MAX_WORKERS && counts[i] <= cpus)
			counts[kept++] = counts[i];
	return kept;
}

int main(int argc, char **argv)
{
	static double results[KINDS][MAX_WORKERS][MAX_ROUNDS];
	uint32_t counts[MAX_WORKERS] = {1, 2, 4, 8, 16};
	size_t count = 5;
	uint64_t total = 4000000;
	int rounds = 5;
	cpu_set_t all;

	for (int i = 1; i < argc; i += 2) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";

		if (strcmp(argv[i], "--rounds") == 0) {
			rounds = atoi(value);
		} else if (strcmp(argv[i], "--messages") == 0) {
			total = strtoull(value, NULL, 10);
		} else if (strcmp(argv[i], "--work") == 0) {
			steps = strtoull(value, NULL, 10);
		} else if (strcmp(argv[i], "--workers") == 0 && *value) {
			count = 0;
			for (char *word = strtok(argv[i + 1], ","); word && count < MAX_WORKERS; word = strtok(NULL, ","))
				counts[count++] = (uint32_t)strtoul(word, NULL, 10);
		} else {
			rounds = 0;
		}
	}
	each = total / TALKERS / 2;
	if (rounds < 1 || rounds > MAX_ROUNDS || !each) {
		fprintf(stderr, "usage: bare [--rounds N] [--workers 1,2,4,...] [--messages N] [--work STEPS]\n");
		return 2;
	}
	for (size_t i = 0; i < MAX_WORKERS; i++)
		for (size_t k = 0; k < MAX_WORKERS; k++)
			if (!(rings[i][k] = aligned_alloc(LINE, sizeof *rings[i][k])))
				fail("no memory");
	if (sched_getaffinity(0, sizeof all, &all) != 0)
		fail("no CPUs");
	count = that_have_cpus(counts, count, (uint32_t)CPU_COUNT(&all));
	show_lines();
	for (int round = 0; round < rounds; round++)
		for (size_t i = 0; i < count; i++)
			for (kind = 0; kind < KINDS; kind++)
				results[kind][i][round] = run_once(counts[i]);
	printf("bare big, %" PRIu64 " steps of work a message, %d rounds, median ns a message\nwrk", steps, rounds);
	for (kind = 0; kind < KINDS; kind++)
		printf(" %8s", kind_names[kind]);
	printf("\n");
	for (size_t i = 0; i < count; i++) {
		printf("%3u", counts[i]);
		for (kind = 0; kind < KINDS; kind++) {
			qsort(results[kind][i], (size_t)rounds, sizeof(double), by_value);
			printf(" %8.1f", results[kind][i][rounds / 2]);
		}
		printf("\n");
	}
	return 0;
}
