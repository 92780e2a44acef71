/* SPDX-License-Identifier: Apache-2.0
 *
 * path_check: how fast is each way that blocks can go, by run length? What the planner's table (src/device/plan.c) is held
 * against. Every chunk stored and retrieved is checked, by contents that say where they belong.
 *
 *   path_check           the GPU is ours
 *   path_check --busy    beside an engine at work in another process; its step time stands beside each way
 *
 * On the stand-in driver (--tiny) it checks itself, and the numbers mean nothing.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "busy.h"
#include "check.h"
#include "device/device.h"
#include "kernels/pattern.h"

#define MIB ((uint64_t)1 << 20)
#define PIECE (64 * MIB)
#define REPEATS_MAX 15
#define BATCHES 64

static struct {
	const char *device, *driver;
	uint64_t tile, bytes;
	uint32_t repeats, limit, run;
	bool busy, tiny;
} options = {.device = "cuda:0", .bytes = 256 * MIB, .repeats = 3, .limit = 60};

/* What is measured: a way, over so many streams. */
static const struct way {
	const char *name;
	enum ty_path path;
	uint32_t streams;
} ways[] = {
	{"staged", TY_PATH_STAGED, 1}, {"direct, 1", TY_PATH_DIRECT, 1}, {"direct, 2", TY_PATH_DIRECT, 2},
	{"direct, 4", TY_PATH_DIRECT, 4}, {"batch, 1", TY_PATH_BATCH, 1}, {"batch, 2", TY_PATH_BATCH, 2},
	{"strided, 1", TY_PATH_STRIDED, 1}, {"strided, 2", TY_PATH_STRIDED, 2},
};

static struct ty_device *dev;
static uint8_t *arena;
static struct test_pool tp;
static struct ty_layout *layout;
static struct ty_mapping *mapping;
static struct ty_batch batches[2][BATCHES];
static struct ty_copy copies[2][BATCHES];
static const char *step = "start";

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static _Noreturn void failed(const char *what, const char *text)
{
	struct ty_error err = {0};

	if (dev)
		(void)!ty_device_health(dev, &err);
	fprintf(stderr, "path_check: FAILED: %s: %s: %s %s\n", step, what, text, err.text);
	exit(1);
}

static void on_alarm(int signal_number)
{
	(void)signal_number;
	fprintf(stderr, "path_check: FAILED: %s: not done after %u s\n", step, options.limit);
	_exit(1);
}

static void must(const char *what, enum ty_code code, const struct ty_error *err)
{
	if (code != TY_OK)
		failed(what, err->text);
}

static void ask(const struct check_order *order, const char *what, struct check_answer *answer)
{
	static struct check_answer unused;
	struct ty_error err = {0};

	must(what, check_ask(order, answer ? answer : &unused, &err), &err);
}

/* ---- one transfer --------------------------------------------------------------------------------- */

struct job {
	enum ty_direction direction;
	uint32_t first, chunks; /* slots, and ids */
	const uint32_t *ids;
};

/* As many chunks a batch, and batches at once, as the device takes; seconds. */
static double transfer(const struct job *jobs, unsigned count)
{
	uint32_t sent[2] = {0}, todo = 0, done = 0, limit = ty_device_batch_limit(dev, layout);
	struct ty_batch *finished[16];
	double start = now();

	for (unsigned j = 0; j < count; j++)
		todo += (jobs[j].chunks + limit - 1) / limit;
	for (unsigned j = 0; j < count; j++)
		for (uint32_t i = 0; i < jobs[j].chunks; i++)
			copies[j][i] = (struct ty_copy){arena + (jobs[j].first + i) * layout->chunk_bytes,
				jobs[j].ids + (size_t)(jobs[j].first + i) * layout->blocks_per_chunk};
	while (done < todo) {
		uint32_t n;

		for (unsigned j = 0; j < count; j++)
			while (sent[j] < jobs[j].chunks) {
				uint32_t i = sent[j], left = jobs[j].chunks - i;
				enum ty_code code;

				batches[j][i] = (struct ty_batch){.mapping = mapping, .direction = jobs[j].direction,
					.copies = &copies[j][i], .count = left < limit ? left : limit};
				code = ty_device_submit(dev, &batches[j][i]);
				if (code == TY_BUSY)
					break;
				if (code != TY_OK)
					failed("submit", ty_code_name(code));
				sent[j] += batches[j][i].count;
			}
		n = ty_device_poll(dev, finished, 16);
		for (uint32_t i = 0; i < n; i++)
			if (finished[i]->code != TY_OK)
				failed("a batch", ty_code_name(finished[i]->code));
		done += n;
	}
	return now() - start;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* GB/s, the median. */
static double rate(const struct job *jobs, unsigned count, double *step_us)
{
	double seconds[REPEATS_MAX], p99;
	uint64_t bytes = 0, from = options.busy ? busy_steps() + 1 : 0;

	for (unsigned j = 0; j < count; j++)
		bytes += jobs[j].chunks * layout->chunk_bytes;
	for (uint32_t i = 0; i < options.repeats; i++)
		seconds[i] = transfer(jobs, count);
	if (options.busy)
		busy_times(from, step_us, &p99);
	qsort(seconds, options.repeats, sizeof seconds[0], by_value);
	return (double)bytes / seconds[options.repeats / 2] / 1e9;
}

static void check_slot(uint32_t c)
{
	const uint64_t *words = (const uint64_t *)(const void *)(arena + c * layout->chunk_bytes);

	for (uint32_t w = 0; w < layout->chunk_bytes / 8; w++)
		if (words[w] != ty_pattern_word(CHECK_SEED, c + 1, w))
			failed("stored contents", "a word is not what the client wrote");
}

/* ---- one case, one way ------------------------------------------------------------------------------ */

static struct check_case make_case(uint32_t run)
{
	struct check_case which = {.name = "paths", .small = -1, .run_bytes = run, .planes = 64, .blocks_per_chunk = 16};
	uint64_t most = options.tiny ? MIB : 32 * MIB, chunk;

	while (which.planes > 1 && (uint64_t)run * which.planes * which.blocks_per_chunk > most)
		which.planes /= 2;
	while (which.blocks_per_chunk > 1 && (uint64_t)run * which.planes * which.blocks_per_chunk > most)
		which.blocks_per_chunk /= 2;
	chunk = (uint64_t)run * which.planes * which.blocks_per_chunk;
	which.chunks = (uint32_t)(options.bytes / chunk);
	which.chunks = which.chunks > BATCHES ? BATCHES : which.chunks;
	return which;
}

static double raw(bool to_host, uint64_t bytes)
{
	const struct check_order order = {.verb = CHECK_RAW, .bytes = bytes, .to_host = to_host, .repeats = options.repeats};
	static struct check_answer answer;

	ask(&order, "one contiguous copy", &answer);
	return (double)bytes / answer.seconds / 1e9;
}

static void measure(const struct way *way, uint32_t run)
{
	const struct check_case which = make_case(run);
	struct check_order order = {.verb = CHECK_ALLOC, .which = which, .chunks = which.chunks, .ids_seed = 11};
	double store, retrieve, both, steps[3] = {0}, submit, limit[2];
	uint64_t random = order.ids_seed;
	static struct check_answer answer;
	struct ty_error err = {0};
	uint32_t *ids, half = which.chunks / 2;
	struct job jobs[2];
	enum ty_path path;

	check_build(&which, &tp);
	ask(&order, "the client's allocation", &answer);
	memcpy(tp.regions, answer.regions, sizeof tp.regions);
	must("layout", ty_layout_create(&tp.pool, tp.chunk_tokens, CHECK_MAX_CHUNK, &layout, &err), &err);
	must("map", ty_device_map(dev, layout, tp.regions, &mapping, &err), &err);
	path = ty_device_path(dev, mapping, 0, TY_TO_HOST, 1);
	if (path != way->path) { /* the pool or the driver has no such way: direct stands in, and is measured already */
		printf("%5u KiB  %-10s  not to be had: %s\n", run / 1024, way->name, ty_path_name(path));
		goto out;
	}
	ids = test_draw_ids(layout, which.chunks, false, &random);
	order.verb = CHECK_FILL;
	ask(&order, "the client's fill", NULL);
	for (unsigned i = 0; i < 2; i++)
		limit[i] = raw(i == 0, layout->chunk_bytes * which.chunks);
	jobs[0] = (struct job){TY_TO_HOST, 0, which.chunks, ids};
	store = rate(jobs, 1, &steps[0]);
	check_slot(0);
	check_slot(which.chunks - 1);
	free(ids);
	/* elsewhere, and the client looks at every word */
	order.verb = CHECK_WIPE;
	ask(&order, "the client's wipe", NULL);
	order.ids_seed = random = 12;
	ids = test_draw_ids(layout, which.chunks, false, &random);
	jobs[0] = (struct job){TY_TO_DEVICE, 0, which.chunks, ids};
	retrieve = rate(jobs, 1, &steps[1]);
	order.verb = CHECK_RUNS;
	ask(&order, "retrieved contents", NULL);
	jobs[0] = (struct job){TY_TO_DEVICE, 0, half, ids};
	jobs[1] = (struct job){TY_TO_HOST, half, half, ids};
	both = rate(jobs, 2, &steps[2]);
	ask(&order, "contents after both ways at once", NULL);
	check_slot(half);
	/* from idle, what one chunk's submit costs */
	copies[0][0] = (struct ty_copy){arena, ids};
	batches[0][0] = (struct ty_batch){.mapping = mapping, .direction = TY_TO_HOST, .copies = &copies[0][0], .count = 1};
	submit = now();
	if (ty_device_submit(dev, &batches[0][0]) != TY_OK)
		failed("submit", "from idle");
	submit = now() - submit;
	for (struct ty_batch *one; !ty_device_poll(dev, &one, 1);)
		;
	free(ids);
	printf("%5u KiB  %-10s  %6.2f %5.3f  %6.2f %5.3f  %6.2f  %6.1f", run / 1024, way->name, store, store / limit[0], retrieve,
		retrieve / limit[1], both, submit * 1e6);
	if (options.busy)
		printf("  %7.0f %7.0f %7.0f", steps[0], steps[1], steps[2]);
	printf("\n");
	fflush(stdout);
out:
	ty_device_unmap(dev, mapping);
	order.verb = CHECK_FREE;
	ask(&order, "the client's free", NULL);
	free(layout);
}

static void each_way(const struct way *way)
{
	const struct ty_device_options o = {.name = options.device, .driver = options.driver, .path = way->path,
		.copy_streams = way->streams, .tile_bytes = options.tile};
	struct ty_error err = {0};

	step = way->name;
	must("open", ty_device_open(&o, &dev, &err), &err);
	for (uint64_t at = 0; at < options.bytes; at += PIECE)
		must("registration", ty_device_register_host(dev, arena + at, PIECE, &err), &err);
	for (uint32_t run = 4096; run <= 2 * MIB; run *= 2)
		if (!options.run || run == options.run)
			measure(way, run);
	for (uint64_t at = 0; at < options.bytes; at += PIECE)
		ty_device_unregister_host(dev, arena + at);
	ty_device_close(dev);
	dev = NULL;
}

/* The step alone, and beside nothing but one contiguous copy after the other. */
static void plain_steps(void)
{
	double alone, alone_99, out, back, p99;
	uint64_t from = busy_steps() + 1;

	step = "the engine's step";
	usleep(300000);
	busy_times(from, &alone, &alone_99);
	from = busy_steps() + 1;
	for (unsigned i = 0; i < 10; i++)
		(void)raw(true, options.bytes);
	busy_times(from, &out, &p99);
	from = busy_steps() + 1;
	for (unsigned i = 0; i < 10; i++)
		(void)raw(false, options.bytes);
	busy_times(from, &back, &p99);
	printf("the engine's step: %.0f us alone (p99 %.0f), %.0f beside plain copies to the host, %.0f to the device\n", alone, alone_99,
		out, back);
}

static uint64_t number(const char *name, const char *text, uint64_t least, uint64_t most)
{
	char *end;
	unsigned long long n = strtoull(text, &end, 10);

	if (end == text || *end || text[0] == '-' || n < least || n > most) {
		fprintf(stderr, "--%s %s: expected a number of %llu..%llu\n", name, text, (unsigned long long)least,
			(unsigned long long)most);
		exit(2);
	}
	return n;
}

static void parse(int argc, char **argv)
{
	static const struct option known[] = {
		{"device", required_argument, NULL, 'd'}, {"driver", required_argument, NULL, 'D'},
		{"repeats", required_argument, NULL, 'r'}, {"tile", required_argument, NULL, 't'},
		{"limit", required_argument, NULL, 'l'}, {"run", required_argument, NULL, 'R'}, {"busy", no_argument, NULL, 'b'},
		{"tiny", no_argument, NULL, 'y'}, {"help", no_argument, NULL, 'h'}, {0},
	};
	int o;

	options.driver = getenv("TYER_CUDA_DRIVER");
	while ((o = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (o) {
		case 'd': options.device = optarg; break;
		case 'D': options.driver = optarg; break;
		case 'r': options.repeats = (uint32_t)number("repeats", optarg, 1, REPEATS_MAX); break;
		case 't': options.tile = number("tile", optarg, 1, UINT64_MAX); break;
		case 'l': options.limit = (uint32_t)number("limit", optarg, 1, 3600); break;
		case 'R': options.run = (uint32_t)number("run", optarg, 4096, 2 * MIB); break;
		case 'b': options.busy = true; break;
		case 'y': options.tiny = true; break;
		default:
			fprintf(o == 'h' ? stdout : stderr, "usage: path_check [--busy] [--run BYTES] [--tile BYTES] [--repeats N]\n"
				"                  [--device cuda:N] [--driver PATH] [--limit SECONDS] [--tiny]\n");
			exit(o == 'h' ? 0 : 2);
		}
	}
	if (strncmp(options.device, "cuda:", 5)) {
		fprintf(stderr, "--device %s: expected cuda:N\n", options.device);
		exit(2);
	}
	if (options.tiny) {
		options.bytes = PIECE / 16;
		options.repeats = 1;
	}
}

int main(int argc, char **argv)
{
	struct ty_error err = {0};
	uint64_t mapped;

	parse(argc, argv);
	signal(SIGALRM, on_alarm);
	alarm(options.limit);
	/* children first: this process has not called the driver yet */
	if (options.busy)
		must("start", busy_start(options.driver, atoi(options.device + 5), options.tiny, &err), &err);
	must("start", check_client_start(options.driver, atoi(options.device + 5), &err), &err);
	mapped = (options.bytes + PIECE - 1) / PIECE * PIECE;
	arena = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (arena == MAP_FAILED)
		failed("arena", strerror(errno));
	if (options.busy)
		plain_steps();
	printf("%9s  %-10s  %6s %5s  %6s %5s  %6s  %6s%s\n", "run", "way", "store", "ratio", "retr.", "ratio", "both", "sub.us",
		options.busy ? "     step us: store, retr., both" : "");
	for (unsigned i = 0; i < sizeof ways / sizeof ways[0]; i++)
		each_way(&ways[i]);
	printf("GB/s; ratio to one contiguous page-locked copy of as many bytes%s; submit from idle, in us a chunk of 32 MiB at most.\n",
		options.busy ? " beside the same engine" : "");
	check_client_stop();
	if (options.busy)
		busy_stop();
	printf("path_check: all right\n");
	return 0;
}
