/* SPDX-License-Identifier: Apache-2.0
 *
 * path_check: how fast do blocks go, by run length? By each way alone (what the planner's table is held against), and by what the
 * planner makes of a policy (what its users get). Every chunk stored and retrieved is checked, by contents that say where they
 * belong.
 *
 *   path_check           the GPU is ours
 *   path_check --busy    beside an engine at work in another process; its step time stands beside each way
 *
 * Every figure is taken in --rounds rounds, in each the client's plain copies first and then ours (measure.h). Runs of 512 KiB and more
 * are a cross-layer pool's. On the stand-in driver (--tiny) it checks itself, and the numbers mean nothing.
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

#include "busy/busy.h"
#include "check.h"
#include "device/device.h"
#include "kernels/pattern.h"
#include "measure.h"

#define MIB ((uint64_t)1 << 20)
#define PIECE (64 * MIB)
#define BATCHES 256
#define WARM 0.15                /* of a measurement, before it counts */
#define PLAIN_REPEATS 10
#define PLAIN_BOTH 14

static struct {
	const char *device, *driver, *ways, *runs, *json, *calibration;
	uint64_t bytes;
	double seconds;
	uint32_t limit, rounds;
	bool busy, tiny;
} options = {.device = "cuda:0", .bytes = 512 * MIB, .seconds = 0.1, .limit = 200, .rounds = 7, .ways = "fast,quiet,auto",
	.runs = "4,8,16,32,64,512,2048"};

static struct ty_device *dev;
static uint8_t *arena;
static struct test_pool tp;
static struct ty_layout *layout;
static struct ty_mapping *mapping;
static struct ty_batch batches[2][BATCHES];
static struct ty_copy copies[2][BATCHES];
static const char *step = "start";
static FILE *json;
static uint64_t queued_before;
static double way_waited_us; /* when the way began */
static bool first_row = true;

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
	uint32_t batch_count;
};

static void submit(struct ty_batch *batch)
{
	enum ty_code code = ty_device_submit(dev, batch);

	if (code != TY_OK)
		failed("submit", ty_code_name(code));
}

static void prepare(struct job *jobs, unsigned count)
{
	uint32_t limit = ty_device_batch_limit(dev, layout);

	for (unsigned j = 0; j < count; j++) {
		jobs[j].batch_count = 0;
		for (uint32_t i = 0; i < jobs[j].chunks; i++)
			copies[j][i] = (struct ty_copy){arena + (jobs[j].first + i) * layout->chunk_bytes,
				jobs[j].ids + (size_t)(jobs[j].first + i) * layout->blocks_per_chunk};
		for (uint32_t i = 0; i < jobs[j].chunks; i += limit)
			batches[j][jobs[j].batch_count++] = (struct ty_batch){.mapping = mapping, .direction = jobs[j].direction,
				.copies = &copies[j][i], .count = jobs[j].chunks - i < limit ? jobs[j].chunks - i : limit};
	}
}

/* Every batch again as soon as it is done, until the time is over. GB/s, from the first end of a batch after the warm-up to the
 * last; the engine's step in microseconds; what queueing took, in microseconds of the owner's for 32 MiB. */
static double transfer(struct job *jobs, unsigned count, double *step_us, double *queue_us)
{
	struct ty_batch *done[16];
	uint64_t bytes = 0, from = 0, queued = 0, moved = 0;
	double start = measure_now(), end = start + options.seconds, first = 0, last = 0, p99;
	uint32_t out = 0;

	prepare(jobs, count);
	for (unsigned j = 0; j < count; j++)
		for (uint32_t i = 0; i < jobs[j].batch_count && i < 8; i++, out++)
			submit(&batches[j][i]);
	/* the others follow as these end: a job goes round */
	uint32_t next[2] = {jobs[0].batch_count < 8 ? 0 : 8 % jobs[0].batch_count,
		count > 1 ? (jobs[1].batch_count < 8 ? 0 : 8 % jobs[1].batch_count) : 0};

	while (out) {
		uint32_t n = ty_device_poll(dev, done, 16);
		double at = n ? measure_now() : 0;

		for (uint32_t i = 0; i < n; i++) {
			unsigned j = count > 1 && done[i]->direction != jobs[0].direction;

			if (done[i]->code != TY_OK)
				failed("a batch", ty_code_name(done[i]->code));
			out--;
			moved += done[i]->count * layout->chunk_bytes;
			if (first > 0 && at < end) {
				bytes += done[i]->count * layout->chunk_bytes;
				last = at;
			} else if (first <= 0 && (at > start + WARM * options.seconds || at >= end)) {
				first = at;
				from = options.busy ? ty_busy_steps() + 1 : 0;
			}
			if (at < end) {
				/* with eight out and in order, the batch after the newest is the one that is free */
				if (jobs[j].batch_count > 8) {
					submit(&batches[j][next[j]]);
					next[j] = (next[j] + 1) % jobs[j].batch_count;
				} else {
					submit(done[i]);
				}
				out++;
			}
		}
	}
	*step_us = 0;
	if (options.busy)
		ty_busy_times(from, step_us, &p99);
	queued = atomic_load_explicit(&ty_device_stats(dev)->submit_ns, memory_order_relaxed);
	*queue_us = (double)(queued - queued_before) / 1e3 * 32 * (double)MIB / (double)moved;
	queued_before = queued;
	return last > first ? (double)bytes / (last - first) / 1e9 : 0;
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
	const struct measure_shape shape = measure_shape(run, options.tiny ? MIB : 32 * MIB);
	struct check_case which = {.name = "paths", .small = -1, .run_bytes = shape.run_bytes, .planes = shape.planes,
		.blocks_per_chunk = shape.blocks_per_chunk, .cross_layer = shape.cross_layer,
		.chunks = (uint32_t)(options.bytes / shape.chunk_bytes)};

	which.chunks = which.chunks > BATCHES ? BATCHES : which.chunks;
	return which;
}

/* GB/s of plain copies on this side, and the engine's step meanwhile. */
static double plain(enum measure_side side, double *step_us)
{
	struct check_order order = {.verb = side == MEASURE_BOTH ? CHECK_RAW_BOTH : CHECK_RAW, .bytes = options.bytes / 2,
		.to_host = side == MEASURE_STORE};
	static struct check_answer answer;
	uint64_t from = options.busy ? ty_busy_steps() + 1 : 0;
	double p99;

	order.repeats = side == MEASURE_BOTH ? PLAIN_BOTH : PLAIN_REPEATS; /* in a row: its beginning and end are not both ways at once */
	ask(&order, "plain copies", &answer);
	*step_us = 0;
	if (options.busy)
		ty_busy_times(from, step_us, &p99);
	return (double)order.bytes * (side == MEASURE_BOTH ? 2 : 1) / answer.seconds / 1e9;
}

/* All rounds of a side. */
static void rounds_of(enum measure_side side, struct job *jobs, struct measure_rounds *r)
{
	struct measure_series *s = &r->side[side];

	for (r->count = 0; r->count < options.rounds; r->count++) {
		s->limit_gbs[r->count] = plain(side, &s->plain_step_us[r->count]);
		s->gbs[r->count] = transfer(jobs, side == MEASURE_BOTH ? 2 : 1, &s->step_us[r->count], &s->queue_us[r->count]);
	}
}

/* How long this thread has waited for a CPU since it began, in microseconds, as its kernel knows: what the host of a virtual machine
 * takes is not in it. Whatever the driver's calls took longer than they need may be this. -1: not known. */
static double waited_us(void)
{
	FILE *file = fopen("/proc/thread-self/schedstat", "re");
	unsigned long long ran, waited;
	bool read = file && fscanf(file, "%llu %llu", &ran, &waited) == 2;

	if (file)
		fclose(file);
	return read ? (double)waited / 1e3 : -1;
}

/* The driver's call that took longest so far. */
static const char *longest_call(double *us)
{
	const struct ty_device_call_times *times = ty_device_call_times(dev);
	const char *longest = "";
	uint64_t ns = 0;

	for (unsigned i = 0; i < TY_DEVICE_CALLS; i++)
		if (times[i].longest_ns > ns) {
			ns = times[i].longest_ns;
			longest = times[i].name;
		}
	*us = (double)ns / 1e3;
	return longest;
}

/* What the driver's calls took this way, of all run lengths: the most of the time first. */
static void tell_calls(const struct measure_way *way)
{
	const struct ty_device_call_times *times = ty_device_call_times(dev);
	bool told[TY_DEVICE_CALLS] = {false};

	printf("           %s, calls (mean us):", way->name);
	for (;;) {
		unsigned most = TY_DEVICE_CALLS;

		for (unsigned i = 0; i < TY_DEVICE_CALLS; i++)
			if (times[i].count && !told[i] && (most == TY_DEVICE_CALLS || times[i].total_ns > times[most].total_ns))
				most = i;
		if (most == TY_DEVICE_CALLS)
			break;
		told[most] = true;
		printf(" %s %.2f of %llu;", times[most].name, (double)times[most].total_ns / 1e3 / (double)times[most].count,
			(unsigned long long)times[most].count);
	}
	printf("\n");
}

static void tell(const struct measure_way *way, uint32_t run, const struct measure_rounds *r, const enum ty_path paths[2], double idle_us)
{
	char goes[24];
	const char *longest;
	double us;

	snprintf(goes, sizeof goes, paths[0] == paths[1] ? "%s" : "%s/%s", ty_path_name(paths[0]), ty_path_name(paths[1]));
	measure_print_row(stdout, run, way->name, goes, r, options.busy);
	if (!json)
		return;
	longest = longest_call(&us);
	fprintf(json, "%s\n    {\"run_bytes\": %u, \"way\": \"%s\", \"path\": \"%s\", \"cross_layer\": %s", first_row ? "" : ",", run,
		way->name, goes, run >= MEASURE_CROSS_LAYER ? "true" : "false");
	measure_print_json(json, r, options.busy);
	fprintf(json, ",\n     \"idle_submit_us\": %.2f, \"longest_call\": \"%s\", \"longest_call_us\": %.1f, \"waited_us\": ", idle_us,
		longest, us);
	if (way_waited_us < 0)
		fprintf(json, "null}");
	else
		fprintf(json, "%.1f}", waited_us() - way_waited_us);
	first_row = false;
}

/* From idle, what one chunk's submit takes. */
static double submit_idle(const uint32_t *ids)
{
	double best = 1;

	copies[0][0] = (struct ty_copy){arena, ids};
	for (unsigned i = 0; i < 9; i++) {
		struct ty_batch *one;
		double at;

		batches[0][0] = (struct ty_batch){.mapping = mapping, .direction = TY_TO_HOST, .copies = &copies[0][0], .count = 1};
		at = measure_now();
		submit(&batches[0][0]);
		at = measure_now() - at;
		best = at < best ? at : best;
		while (!ty_device_poll(dev, &one, 1))
			;
	}
	return best * 1e6;
}

static void look_at_paths(uint32_t chunks, enum ty_path paths[2])
{
	for (unsigned d = 0; d < 2; d++)
		paths[d] = ty_device_path(dev, mapping, 0, (enum ty_direction)d, chunks);
}

static void measure(const struct measure_way *way, uint32_t run)
{
	const struct check_case which = make_case(run);
	struct check_order order = {.verb = CHECK_ALLOC, .which = which, .chunks = which.chunks, .ids_seed = 11};
	struct measure_rounds rounds = {0};
	uint64_t random = order.ids_seed;
	static struct check_answer answer;
	struct ty_error err = {0};
	enum ty_path paths[2];
	uint32_t *ids, half = which.chunks / 2;
	struct job jobs[2];

	check_build(&which, &tp);
	ask(&order, "the client's allocation", &answer);
	memcpy(tp.regions, answer.regions, sizeof tp.regions);
	must("layout", ty_layout_create(&tp.pool, tp.chunk_tokens, CHECK_MAX_CHUNK, &layout, &err), &err);
	must("map", ty_device_map(dev, layout, tp.regions, &mapping, &err), &err);
	look_at_paths(which.chunks, paths);
	if (way->how.path != TY_PATH_PLANNED && paths[0] != way->how.path) { /* the pool or the driver has no such way */
		printf("%5u KiB  %-20s not to be had: %s\n", run / 1024, way->name, ty_path_name(paths[0]));
		goto out;
	}
	ids = test_draw_ids(layout, which.chunks, false, &random);
	order.verb = CHECK_FILL;
	ask(&order, "the client's fill", NULL);
	jobs[0] = (struct job){TY_TO_HOST, 0, which.chunks, ids, 0};
	rounds_of(MEASURE_STORE, jobs, &rounds);
	look_at_paths(which.chunks, paths); /* by now it is known whether an engine is there */
	check_slot(0);
	check_slot(which.chunks - 1);
	free(ids);
	/* elsewhere, and the client looks at every word */
	order.verb = CHECK_WIPE;
	ask(&order, "the client's wipe", NULL);
	order.ids_seed = random = 12;
	ids = test_draw_ids(layout, which.chunks, false, &random);
	jobs[0] = (struct job){TY_TO_DEVICE, 0, which.chunks, ids, 0};
	rounds_of(MEASURE_RETRIEVE, jobs, &rounds);
	order.verb = CHECK_RUNS;
	ask(&order, "retrieved contents", NULL);
	jobs[0] = (struct job){TY_TO_DEVICE, 0, half, ids, 0};
	jobs[1] = (struct job){TY_TO_HOST, half, half, ids, 0};
	rounds_of(MEASURE_BOTH, jobs, &rounds);
	ask(&order, "contents after both ways at once", NULL);
	check_slot(half);
	tell(way, run, &rounds, paths, submit_idle(ids));
	free(ids);
out:
	ty_device_unmap(dev, mapping);
	order.verb = CHECK_FREE;
	ask(&order, "the client's free", NULL);
	free(layout);
}

static void each_way(const struct measure_way *way)
{
	struct ty_device_options o = way->how;
	const char *runs = options.runs;
	struct ty_error err = {0};

	o.name = options.device;
	o.driver = options.driver;
	o.waited_us = options.busy ? 0 : 3600000000u; /* the GPU is ours */
	o.calibration = options.calibration;
	step = way->name;
	way_waited_us = waited_us();
	must("open", ty_device_open(&o, &dev, &err), &err);
	if (ty_device_note(dev)[0])
		printf("%s: %s\n", ty_device_info(dev)->name, ty_device_note(dev));
	queued_before = atomic_load_explicit(&ty_device_stats(dev)->submit_ns, memory_order_relaxed);
	for (uint64_t at = 0; at < options.bytes; at += PIECE)
		must("registration", ty_device_register_host(dev, arena + at, PIECE, &err), &err);
	for (uint32_t run; (run = measure_next_run(&runs));)
		measure(way, run);
	tell_calls(way);
	for (uint64_t at = 0; at < options.bytes; at += PIECE)
		ty_device_unregister_host(dev, arena + at);
	ty_device_close(dev);
	dev = NULL;
}

/* The engine's step with nothing beside it. */
static double step_alone(void)
{
	uint64_t from = ty_busy_steps() + 1;
	double median, p99;

	usleep(options.tiny ? 20000 : 300000);
	ty_busy_times(from, &median, &p99);
	printf("the engine's step: %.0f us alone (p99 %.0f)\n", median, p99);
	return median;
}

static void parse(int argc, char **argv)
{
	static const struct option known[] = {
		{"device", required_argument, NULL, 'd'}, {"driver", required_argument, NULL, 'D'},
		{"seconds", required_argument, NULL, 's'}, {"rounds", required_argument, NULL, 'r'}, {"limit", required_argument, NULL, 'l'},
		{"calibration", required_argument, NULL, 'C'}, {"runs", required_argument, NULL, 'R'}, {"ways", required_argument, NULL, 'w'}, {"busy", no_argument, NULL, 'b'},
		{"bytes", required_argument, NULL, 'B'}, {"json", required_argument, NULL, 'j'}, {"tiny", no_argument, NULL, 'y'}, {"help", no_argument, NULL, 'h'}, {0},
	};
	int o;

	options.driver = getenv("TYER_CUDA_DRIVER");
	while ((o = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (o) {
		case 'd': options.device = optarg; break;
		case 'D': options.driver = optarg; break;
		case 's': options.seconds = (double)measure_number("seconds", optarg, 1, 3600000) / 1e3; break;
		case 'r': options.rounds = (uint32_t)measure_number("rounds", optarg, 1, MEASURE_ROUNDS); break;
		case 'l': options.limit = (uint32_t)measure_number("limit", optarg, 1, 3600); break;
		case 'B': options.bytes = measure_number("bytes", optarg, 64, 8192) * MIB; break;
		case 'C': options.calibration = optarg; break;
		case 'R': options.runs = optarg; break;
		case 'w': options.ways = optarg; break;
		case 'b': options.busy = true; break;
		case 'j': options.json = optarg; break;
		case 'y': options.tiny = true; break;
		default:
			fprintf(o == 'h' ? stdout : stderr, "usage: path_check [--busy] [--ways fast,quiet,auto,staged,...] [--runs KIB,...] [--rounds N]\n"
				"                  [--seconds MILLISECONDS, of a round] [--calibration DIR] [--json FILE] [--bytes MIB, of the pool]\n"
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
		options.seconds = 0.003;
		options.rounds = 2;
	}
}

int main(int argc, char **argv)
{
	struct measure_way way;
	struct ty_error err = {0};
	uint64_t mapped;
	const char *list;
	double alone;

	parse(argc, argv);
	for (list = options.ways; measure_next_way(&list, &way);) /* all of them are ways */
		;
	list = options.ways;
	signal(SIGALRM, on_alarm);
	alarm(options.limit);
	json = options.json ? fopen(options.json, "we") : NULL;
	if (options.json && !json)
		failed("the report", strerror(errno));
	/* children first: this process has not called the driver yet */
	if (options.busy)
		must("start", ty_busy_start(options.driver, atoi(options.device + 5), options.tiny, &err), &err);
	must("start", check_client_start(options.driver, atoi(options.device + 5), &err), &err);
	mapped = (options.bytes + PIECE - 1) / PIECE * PIECE;
	arena = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (arena == MAP_FAILED)
		failed("arena", strerror(errno));
	alone = options.busy ? step_alone() : 0;
	if (json)
		fprintf(json, "{\n  \"busy\": %s, \"step_alone_us\": %.1f, \"rows\": [", options.busy ? "true" : "false", alone);
	measure_print_head(stdout, options.busy);
	while (measure_next_way(&list, &way))
		each_way(&way);
	printf("GB/s; ratio to plain page-locked copies%s, median (least..most) of %u rounds; queueing: the owner's us for 32 MiB, store, "
	       "retrieve\n", options.busy ? " beside the same engine" : "", options.rounds);
	if (json && (fprintf(json, "\n  ]\n}\n") < 0 || fclose(json)))
		failed("the report", strerror(errno));
	check_client_stop();
	if (options.busy)
		ty_busy_stop();
	printf("path_check: all right\n");
	return 0;
}
