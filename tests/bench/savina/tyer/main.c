/* SPDX-License-Identifier: Apache-2.0 */
#include "bench.h"

#include <inttypes.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const struct {
	const char *name;
	program_fn *run;
	int params;
} programs[] = {
	{"pingpong", run_pingpong, 1},
	{"counting", run_counting, 1},
	{"threadring", run_threadring, 2},
	{"fjthroughput", run_fjthroughput, 2},
	{"fjcreate", run_fjcreate, 2},
	{"big", run_big, 2},
	{"chameneos", run_chameneos, 2},
	{"bndbuffer", run_bndbuffer, 4},
	{"bndcrates", run_bndcrates, 4},
	{"philosophers", run_philosophers, 2},
	{"concdict", run_concdict, 3},
	{"wake", run_wake, 1},
};

struct latency wake_latency, futex_latency;

#define MAX_TABLES 16
static void *tables[MAX_TABLES]; /* main's: actors use them until the runtime is gone */
static int table_count;

static _Atomic(uint32_t) over; /* set by finished (release), read by wait_finished (acquire); a futex */
static int64_t began, began_cpu, took, took_cpu;

void must(enum ty_code code)
{
	if (code != TY_OK) {
		fprintf(stderr, "savina-tyer: %s\n", ty_code_name(code));
		exit(1);
	}
}

enum ty_code state_start(void *self, void *arg)
{
	((struct actor_state *)self)->own = arg;
	return TY_OK;
}

struct ty_actor *spawn(struct ty_runtime *rt, const struct ty_class *cls, void *arg)
{
	struct ty_actor *actor;

	must(ty_spawn(rt, cls, arg, NULL, &actor));
	return actor;
}

void *table_of(uint64_t count, size_t size)
{
	void *table = NULL;

	if (table_count == MAX_TABLES || posix_memalign(&table, 64, count * size))
		must(TY_NO_MEMORY);
	tables[table_count++] = table;
	return memset(table, 0, count * size);
}

static int64_t read_clock(clockid_t id)
{
	struct timespec now;

	clock_gettime(id, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t clock_ns(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

void clock_start(void)
{
	began_cpu = read_clock(CLOCK_PROCESS_CPUTIME_ID);
	began = clock_ns();
}

void finished(void)
{
	atomic_store_explicit(&over, 1, memory_order_release);
	syscall(SYS_futex, &over, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void wait_finished(void)
{
	while (!atomic_load_explicit(&over, memory_order_acquire))
		syscall(SYS_futex, &over, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
	took = clock_ns() - began;
	took_cpu = read_clock(CLOCK_PROCESS_CPUTIME_ID) - began_cpu;
}

int main(int argc, char **argv)
{
	struct ty_runtime_options options = {.size = sizeof options};
	uint64_t params[4] = {0}, check;
	struct ty_runtime *rt;
	size_t which = 0;

	while (which < sizeof programs / sizeof programs[0] && argc > 1 &&
		strcmp(programs[which].name, argv[1]) != 0)
		which++;
	if (which == sizeof programs / sizeof programs[0] || argc != programs[which].params + 3) {
		fprintf(stderr, "usage: savina-tyer PROGRAM WORKERS PARAMETER...\n");
		return 2;
	}
	options.workers = (uint32_t)strtoul(argv[2], NULL, 10);
	for (int i = 3; i < argc; i++)
		params[i - 3] = strtoull(argv[i], NULL, 10);
	if (programs[which].run == run_wake)
		place_sleepers();
	must(ty_runtime_create(&options, &rt, NULL));
	check = programs[which].run(rt, params);
	ty_runtime_destroy(rt);
	while (table_count)
		free(tables[--table_count]);
	printf("{\"ns\":%" PRId64 ",\"cpu_ns\":%" PRId64 ",\"check\":%" PRIu64, took, took_cpu, check);
	if (wake_latency.p50)
		printf(",\"p50\":%" PRId64 ",\"p99\":%" PRId64 ",\"futex_p50\":%" PRId64
		       ",\"futex_p99\":%" PRId64,
			wake_latency.p50, wake_latency.p99, futex_latency.p50, futex_latency.p99);
	printf("}\n");
	return 0;
}
