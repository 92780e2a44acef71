/* SPDX-License-Identifier: Apache-2.0
 *
 * device_check: is the owner's code right on a real GPU, and how fast is it? Runs by itself, in about half a minute.
 *
 *   - every small pool of the unit tests through the real kernels, with scarce staging and with plenty: every byte of slots and
 *     pools is compared;
 *   - chunks of a common model, stored, wiped, and retrieved into other blocks, checked by a kernel: GB/s each way and both ways
 *     at once, against one contiguous page-locked copy of as many bytes in the same run;
 *   - the same over run lengths;
 *   - what a submit costs, GPU memory taken, the longest call.
 *
 * It runs on the stand-in driver too (--tiny), where it checks itself and the numbers mean nothing.
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "device/cuda_driver.h"
#include "device/device.h"
#include "kernels/pattern.h"
#include "measure.h"

#define MIB ((uint64_t)1 << 20)
#define PIECE (64 * MIB)
#define SLOT_ALIGN 4096u
#define TOUCHERS 8
#define REPEATS_MAX 15
#define RESULTS 24

struct result {
	struct check_case which;
	uint64_t chunk_bytes;
	double raw[2], way[2], both; /* bytes a second, by enum ty_direction */
	double submit[2];            /* seconds of one chunk's submit */
	enum ty_path path;
};

static struct {
	const char *device, *driver;
	uint64_t staging, tile;
	uint32_t chunks, repeats, limit;
	bool tiny, json, skip_sweep;
} options = {.device = "cuda:0", .chunks = 64, .repeats = 5, .limit = 55};

static struct ty_device *dev;
static struct ty_device_call call;
static uint8_t *arena;
static uint64_t arena_bytes;
static struct test_pool tp;
static struct ty_layout *layout;
static struct ty_mapping *mapping;
static const char *step = "start"; /* for the alarm */
static char case_name[96];
static FILE *table;
static struct result results[RESULTS];
static unsigned result_count;
static double populate_seconds, register_seconds, open_seconds, map_seconds;
static int64_t beyond_bytes; /* GPU memory beyond what a context takes that does nothing */

static void say_state(void)
{
	const char *name = atomic_load_explicit(&call.name, memory_order_acquire);
	struct ty_error err;

	fprintf(stderr, "  step: %s%s%s\n", step, case_name[0] ? ", case " : "", case_name);
	if (name)
		fprintf(stderr, "  inside the driver's %s for %.3f s\n", name,
			measure_now() - (double)atomic_load_explicit(&call.since, memory_order_relaxed) / 1e9);
	if (dev) {
		const struct ty_device_stats *s = ty_device_stats(dev);

		fprintf(stderr, "  device: %s (%s), note: \"%s\"\n", ty_device_info(dev)->name, ty_device_info(dev)->model,
			ty_device_note(dev));
		fprintf(stderr, "  launches %llu, copies %llu, GPU bytes %llu\n", (unsigned long long)s->launches,
			(unsigned long long)s->copies, (unsigned long long)s->device_bytes);
		if (ty_device_health(dev, &err) != TY_OK)
			fprintf(stderr, "  poisoned: %s\n", err.text);
	}
	if (layout)
		fprintf(stderr, "  layout: %u groups, %u planes, chunk %llu bytes, run %u bytes, stride %llu, blocks %u\n",
			layout->group_count, layout->plane_count, (unsigned long long)layout->chunk_bytes,
			layout->groups[0].run_bytes, (unsigned long long)layout->groups[0].block_stride,
			layout->groups[0].block_count);
}

static _Noreturn void failed(const char *what, enum ty_code code, const char *text)
{
	fprintf(stderr, "device_check: FAILED: %s: %s: %s\n", what, ty_code_name(code), text);
	say_state();
	exit(1);
}

/* Nothing else runs in this process but the loop that never ended, so that printing from here is as good as it gets. */
static void on_alarm(int signal_number)
{
	(void)signal_number;
	fprintf(stderr, "device_check: FAILED: not done after %u s\n", options.limit);
	say_state();
	_exit(1);
}

static void must(const char *what, enum ty_code code, const struct ty_error *err)
{
	if (code != TY_OK)
		failed(what, code, err->text);
}

static void ask(const struct check_order *order, const char *what, struct check_answer *answer)
{
	static struct check_answer unused;
	struct ty_error err = {0};

	step = what;
	must(what, check_ask(order, answer ? answer : &unused, &err), &err);
}

/* ---- the arena -------------------------------------------------------------------------------- */

static void *touch(void *arg)
{
	uint64_t part = (uintptr_t)arg, each = arena_bytes / TOUCHERS;

	for (uint64_t at = part * each; at < (part + 1) * each; at += 4096)
		((volatile uint8_t *)arena)[at] = 0;
	return NULL;
}

static void make_arena(void)
{
	int fd = memfd_create("arena", MFD_CLOEXEC);
	pthread_t threads[TOUCHERS];
	double start = measure_now();

	step = "arena";
	if (fd < 0 || ftruncate(fd, (off_t)arena_bytes))
		failed("arena", TY_IO, strerror(errno));
	arena = mmap(NULL, arena_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (arena == MAP_FAILED)
		failed("arena", TY_IO, strerror(errno));
	close(fd);
	for (uintptr_t i = 0; i < TOUCHERS; i++)
		if (pthread_create(&threads[i], NULL, touch, (void *)i))
			failed("arena", TY_IO, "pthread_create");
	for (int i = 0; i < TOUCHERS; i++)
		pthread_join(threads[i], NULL);
	populate_seconds = measure_now() - start;
}

static void register_arena(void)
{
	double start = measure_now();
	struct ty_error err = {0};

	step = "registration of the arena";
	for (uint64_t at = 0; at < arena_bytes; at += PIECE)
		must(step, ty_device_register_host(dev, arena + at, PIECE, &err), &err);
	register_seconds = measure_now() - start;
}

static uint8_t *slot(uint32_t index)
{
	uint64_t bytes = (layout->chunk_bytes + SLOT_ALIGN - 1) / SLOT_ALIGN * SLOT_ALIGN, each = PIECE / bytes;

	return arena + index / each * PIECE + index % each * bytes;
}

static void open_device(uint64_t staging, uint64_t tile)
{
	const struct ty_device_options o = {.name = options.device, .driver = options.driver, .staging_bytes = staging,
		.tile_bytes = tile, .sharing = TY_SHARING_FAST, .waited_us = 3600000000u}; /* the GPU is ours */
	double start = measure_now();
	struct ty_error err = {0};

	step = "opening the device";
	must(step, ty_device_open(&o, &dev, &err), &err);
	open_seconds = measure_now() - start;
	register_arena();
}

static void close_device(void)
{
	step = "closing the device";
	for (uint64_t at = 0; at < arena_bytes; at += PIECE)
		ty_device_unregister_host(dev, arena + at);
	ty_device_close(dev);
	dev = NULL;
}

/* ---- transfers ---------------------------------------------------------------------------------- */

/* Chunks that go one way: slots from first_slot on, ids of the same chunks. */
struct job {
	enum ty_direction direction;
	uint32_t first_slot, chunks;
	const uint32_t *ids;
	struct ty_copy *copies;
	struct ty_batch *batches;
	uint32_t batch_count, submitted;
};

static void prepare(struct job *job)
{
	uint32_t limit = ty_device_batch_limit(dev, layout);

	job->batch_count = (job->chunks + limit - 1) / limit;
	job->submitted = 0;
	job->copies = calloc(job->chunks, sizeof *job->copies);
	job->batches = calloc(job->batch_count, sizeof *job->batches);
	if (!job->copies || !job->batches)
		failed(step, TY_NO_MEMORY, "batches");
	for (uint32_t c = 0; c < job->chunks; c++)
		job->copies[c] = (struct ty_copy){slot(job->first_slot + c), job->ids + (size_t)c * layout->blocks_per_chunk};
	for (uint32_t b = 0; b < job->batch_count; b++)
		job->batches[b] = (struct ty_batch){.mapping = mapping, .direction = job->direction,
			.copies = job->copies + b * limit,
			.count = job->chunks - b * limit < limit ? job->chunks - b * limit : limit};
}

/* All of the jobs at once; seconds. */
static double transfer(struct job *jobs, unsigned count)
{
	uint32_t todo = 0, done = 0;
	struct ty_error err = {0};
	double start;

	for (unsigned i = 0; i < count; i++) {
		prepare(&jobs[i]);
		todo += jobs[i].batch_count;
	}
	start = measure_now();
	while (done < todo) {
		struct ty_batch *finished[16];
		uint32_t n;

		for (unsigned i = 0; i < count; i++) {
			struct job *job = &jobs[i];
			enum ty_code code = TY_OK;

			while (code == TY_OK && job->submitted < job->batch_count) {
				code = ty_device_submit(dev, &job->batches[job->submitted]);
				if (code == TY_OK)
					job->submitted++;
				else if (code != TY_BUSY)
					failed(step, code, ty_device_health(dev, &err) == TY_OK ? "submit" : err.text);
			}
		}
		n = ty_device_poll(dev, finished, 16);
		for (uint32_t i = 0; i < n; i++)
			if (finished[i]->code != TY_OK)
				failed(step, finished[i]->code,
					ty_device_health(dev, &err) == TY_OK ? "a batch failed" : err.text);
			else if (!finished[i]->client_free)
				failed(step, TY_INTERNAL, "a batch is done, and client_free is not set");
		done += n;
	}
	start = measure_now() - start;
	for (unsigned i = 0; i < count; i++) {
		free(jobs[i].copies);
		free(jobs[i].batches);
	}
	return start;
}

/* Do the slots hold their chunks' pattern? */
static void check_slots(uint32_t first, uint32_t chunks)
{
	step = "stored contents";
	for (uint32_t c = first; c < first + chunks; c++) {
		const uint64_t *words = (const uint64_t *)(const void *)slot(c);

		for (uint32_t w = 0; w < layout->chunk_bytes / 8; w++) {
			uint64_t expected = ty_pattern_word(CHECK_SEED, c + 1, w);
			uint32_t tag, origin;
			char text[200];

			if (words[w] == expected)
				continue;
			ty_pattern_origin(CHECK_SEED, words[w], &tag, &origin);
			snprintf(text, sizeof text, "slot %u word %u of %llu holds %#llx, expected %#llx (it would be chunk %u "
				"word %u)", c, w, (unsigned long long)layout->chunk_bytes / 8, (unsigned long long)words[w],
				(unsigned long long)expected, tag - 1, origin);
			failed(step, TY_INTERNAL, text);
		}
	}
}

static void open_case(const struct check_case *which)
{
	const struct check_order order = {.verb = CHECK_ALLOC, .which = *which};
	static struct check_answer answer;
	struct ty_error err = {0};
	double start;

	check_build(which, &tp);
	snprintf(case_name, sizeof case_name, "%s", tp.name);
	ask(&order, "the client's allocation", &answer);
	memcpy(tp.regions, answer.regions, sizeof tp.regions);
	step = "layout";
	must(step, ty_layout_create(&tp.pool, tp.chunk_tokens, CHECK_MAX_CHUNK, &layout, &err), &err);
	step = "map";
	start = measure_now();
	must(step, ty_device_map(dev, layout, tp.regions, &mapping, &err), &err);
	map_seconds = measure_now() - start;
}

static void close_case(void)
{
	const struct check_order order = {.verb = CHECK_FREE};

	step = "unmap";
	ty_device_unmap(dev, mapping);
	ask(&order, "the client's free", NULL);
	free(layout);
	layout = NULL;
	case_name[0] = '\0';
}

/* ---- small pools ------------------------------------------------------------------------------- */

static void check_small(unsigned index)
{
	const struct check_case which = {.small = (int)index};
	struct check_order order = {.which = which, .ids_seed = 3};
	uint64_t random = order.ids_seed;
	struct job job = {.direction = TY_TO_HOST};
	uint32_t *ids;

	open_case(&which);
	order.chunks = job.chunks = test_chunks(layout) < 8 ? test_chunks(layout) : 8;
	order.verb = CHECK_WIPE;
	ask(&order, "the client's wipe", NULL);
	order.verb = CHECK_FILL;
	ask(&order, "the client's fill", NULL);
	memset(arena, 0x11, 2 * PIECE < arena_bytes ? 2 * PIECE : arena_bytes);
	step = "store";
	job.ids = ids = test_draw_ids(layout, job.chunks, false, &random);
	transfer(&job, 1);
	check_slots(0, job.chunks);
	free(ids);

	order.verb = CHECK_WIPE;
	ask(&order, "the client's wipe", NULL);
	step = "retrieve";
	random = order.ids_seed = 4;
	job.direction = TY_TO_DEVICE;
	job.ids = ids = test_draw_ids(layout, job.chunks, true, &random);
	transfer(&job, 1);
	free(ids);
	order.verb = CHECK_ALL;
	order.skip = true;
	ask(&order, "retrieved contents", NULL);
	close_case();
}

/* ---- measurements -------------------------------------------------------------------------------- */

static double median(const double *values, uint32_t count)
{
	return measure_spread(values, NULL, count).median;
}

static double raw(enum ty_direction direction, uint64_t bytes)
{
	const struct check_order order = {.verb = CHECK_RAW, .bytes = bytes, .to_host = direction == TY_TO_HOST,
		.repeats = options.repeats};
	static struct check_answer answer;

	ask(&order, "one contiguous copy", &answer);
	return (double)bytes / answer.seconds;
}

/* A submit from idle, of one chunk. */
static double submit_cost(enum ty_direction direction, const uint32_t *ids)
{
	double seconds[21];

	step = "submit cost";
	for (unsigned i = 0; i < 21; i++) {
		struct ty_copy copy = {slot(0), ids};
		struct ty_batch batch = {.mapping = mapping, .direction = direction, .copies = &copy, .count = 1}, *done;
		double start = measure_now();
		enum ty_code code = ty_device_submit(dev, &batch);

		seconds[i] = measure_now() - start;
		if (code != TY_OK)
			failed(step, code, "submit");
		while (!ty_device_poll(dev, &done, 1))
			;
		if (batch.code != TY_OK)
			failed(step, batch.code, "a batch failed");
	}
	return median(seconds, 21);
}

static void measure(const struct check_case *which)
{
	struct result *r = &results[result_count++];
	struct check_order order = {.which = *which, .chunks = which->chunks};
	uint64_t random, total, launches;
	double seconds[REPEATS_MAX];
	uint32_t *store, *retrieve;
	struct job jobs[2];

	open_case(which);
	r->which = *which;
	r->chunk_bytes = layout->chunk_bytes;
	total = layout->chunk_bytes * which->chunks;
	order.ids_seed = random = 11;
	store = test_draw_ids(layout, which->chunks, false, &random);
	order.verb = CHECK_WIPE;
	ask(&order, "the client's wipe", NULL);
	order.verb = CHECK_FILL;
	ask(&order, "the client's fill", NULL);
	for (unsigned i = 0; i < 2; i++)
		r->raw[i] = raw(i, total);

	step = "store";
	launches = ty_device_stats(dev)->launches;
	r->path = ty_device_path(dev, mapping, 0, TY_TO_HOST, which->chunks);
	jobs[0] = (struct job){TY_TO_HOST, 0, which->chunks, store, NULL, NULL, 0, 0};
	for (uint32_t i = 0; i < options.repeats; i++)
		seconds[i] = transfer(jobs, 1);
	r->way[TY_TO_HOST] = (double)total / median(seconds, options.repeats);
	if ((ty_device_stats(dev)->launches > launches) != (r->path == TY_PATH_STAGED))
		failed(step, TY_INTERNAL, "kernels ran, or did not, other than the planner said");
	check_slots(0, which->chunks < 3 || options.tiny ? which->chunks : 3);
	check_slots(which->chunks - 1, 1);

	/* elsewhere, and the client looks at every word */
	order.verb = CHECK_WIPE;
	ask(&order, "the client's wipe", NULL);
	order.ids_seed = random = 12;
	retrieve = test_draw_ids(layout, which->chunks, false, &random);
	step = "retrieve";
	jobs[0] = (struct job){TY_TO_DEVICE, 0, which->chunks, retrieve, NULL, NULL, 0, 0};
	for (uint32_t i = 0; i < options.repeats; i++)
		seconds[i] = transfer(jobs, 1);
	r->way[TY_TO_DEVICE] = (double)total / median(seconds, options.repeats);
	order.verb = CHECK_RUNS;
	ask(&order, "retrieved contents", NULL);

	r->submit[TY_TO_HOST] = submit_cost(TY_TO_HOST, retrieve);
	r->submit[TY_TO_DEVICE] = submit_cost(TY_TO_DEVICE, retrieve);

	/* both at once, between blocks that now hold the chunks: the first half goes out, the second comes in */
	step = "both ways at once";
	for (uint32_t i = 0; i < options.repeats; i++) {
		uint32_t half = which->chunks / 2;

		jobs[0] = (struct job){TY_TO_HOST, 0, half, retrieve, NULL, NULL, 0, 0};
		jobs[1] = (struct job){TY_TO_DEVICE, half, half, retrieve + (size_t)half * layout->blocks_per_chunk, NULL, NULL,
			0, 0};
		seconds[i] = (double)(2 * half * layout->chunk_bytes) / transfer(jobs, 2);
	}
	r->both = median(seconds, options.repeats);
	check_slots(0, 1);
	ask(&order, "contents after both ways at once", NULL);
	free(store);
	free(retrieve);
	fprintf(table, "%-22s %7u %9.2f  %-7s %6.2f %5.3f  %6.2f %5.3f  %6.2f  %5.1f %5.1f\n", which->name, which->run_bytes,
		(double)r->chunk_bytes / (double)MIB, ty_path_name(r->path), r->way[0] / 1e9, r->way[0] / r->raw[0],
		r->way[1] / 1e9, r->way[1] / r->raw[1], r->both / 1e9, r->submit[0] * 1e6, r->submit[1] * 1e6);
	fflush(table);
	close_case();
}

static void sweep(void)
{
	static const char *const names[] = {"runs of 4 KiB", "runs of 8 KiB", "runs of 16 KiB", "runs of 32 KiB", "runs of 64 KiB",
		"runs of 128 KiB", "runs of 256 KiB", "runs of 512 KiB"};

	for (uint32_t i = 0; i < 8; i++) {
		uint32_t run = 4096u << i, planes = options.tiny ? 4 : 64;
		struct check_case which = {.name = names[i], .small = -1, .run_bytes = run, .blocks_per_chunk = 16};

		if (options.tiny)
			which.blocks_per_chunk = 2;
		while ((uint64_t)run * planes * which.blocks_per_chunk > (options.tiny ? 2 : 32) * MIB)
			planes /= 2;
		which.planes = planes;
		which.chunks = (uint32_t)(arena_bytes / 2 / ((uint64_t)run * planes * which.blocks_per_chunk));
		if (options.tiny && which.chunks > 8)
			which.chunks = 8;
		measure(&which);
	}
}

/* The context alone, as any process has one; it stays, so that what the device takes comes on top. */
static void open_bare(void)
{
	static struct ty_cuda api;
	struct ty_error err = {0};
	cu_context context;
	cu_device device;

	step = "a bare context";
	must(step, ty_cuda_load(options.driver, &api, &err), &err);
	must(step, ty_cuda_context(&api, atoi(options.device + 5), &device, &context, &err), &err);
}

/* What the owner spent its time on, by the driver's functions. */
static void print_calls(void)
{
	const struct ty_device_call_times *t = ty_device_call_times(dev);

	fprintf(table, "%-22s %9s %9s %9s\n", "call", "times", "mean us", "most us");
	for (unsigned i = 0; i < TY_DEVICE_CALLS; i++)
		if (t[i].count)
			fprintf(table, "%-22s %9llu %9.2f %9.1f\n", t[i].name, (unsigned long long)t[i].count,
				(double)t[i].total_ns / (double)t[i].count / 1e3, (double)t[i].longest_ns / 1e3);
}

static void print_json(void)
{
	const struct ty_device_info *info = ty_device_info(dev);
	const struct ty_device_stats *s = ty_device_stats(dev);
	const char *longest = s->longest_call;

	printf("{\n  \"device\": \"%s\", \"model\": \"%s\", \"note\": \"%s\",\n", info->name, info->model, ty_device_note(dev));
	printf("  \"staging_bytes\": %llu, \"tile_bytes\": %llu, \"repeats\": %u,\n", (unsigned long long)options.staging,
		(unsigned long long)options.tile, options.repeats);
	printf("  \"arena_bytes\": %llu, \"populate_seconds\": %.4f, \"register_seconds\": %.4f, \"open_seconds\": %.4f,\n",
		(unsigned long long)arena_bytes, populate_seconds, register_seconds, open_seconds);
	printf("  \"beyond_context_bytes\": %lld, \"calls\": [", (long long)beyond_bytes);
	for (unsigned i = 0, n = 0; i < TY_DEVICE_CALLS; i++) {
		const struct ty_device_call_times *t = &ty_device_call_times(dev)[i];

		if (t->count)
			printf("%s{\"name\": \"%s\", \"count\": %llu, \"total_us\": %.1f, \"longest_us\": %.1f}", n++ ? ", " : "", t->name,
				(unsigned long long)t->count, (double)t->total_ns / 1e3, (double)t->longest_ns / 1e3);
	}
	printf("],\n");
	printf("  \"map_seconds\": %.6f, \"device_bytes\": %llu, \"longest_call\": \"%s\", \"longest_call_us\": %.1f,\n",
		map_seconds, (unsigned long long)s->device_bytes, longest ? longest : "", (double)s->longest_call_ns / 1e3);
	printf("  \"cases\": [");
	for (unsigned i = 0; i < result_count; i++) {
		const struct result *r = &results[i];

		printf("%s\n    {\"name\": \"%s\", \"run_bytes\": %u, \"planes\": %u, \"chunk_bytes\": %llu, \"chunks\": %u, "
		       "\"path\": \"%s\",\n     \"store_gbs\": %.3f, \"store_raw_gbs\": %.3f, \"store_ratio\": %.4f, "
		       "\"retrieve_gbs\": %.3f, \"retrieve_raw_gbs\": %.3f, \"retrieve_ratio\": %.4f,\n     \"both_gbs\": %.3f, "
		       "\"store_submit_us\": %.2f, \"retrieve_submit_us\": %.2f}", i ? "," : "", r->which.name,
			r->which.run_bytes, r->which.planes, (unsigned long long)r->chunk_bytes, r->which.chunks,
			ty_path_name(r->path), r->way[0] / 1e9, r->raw[0] / 1e9, r->way[0] / r->raw[0],
			r->way[1] / 1e9, r->raw[1] / 1e9, r->way[1] / r->raw[1], r->both / 1e9, r->submit[0] * 1e6,
			r->submit[1] * 1e6);
	}
	printf("\n  ],\n  \"failed\": 0\n}\n");
}

static void parse(int argc, char **argv)
{
	static const struct option known[] = {
		{"device", required_argument, NULL, 'd'}, {"driver", required_argument, NULL, 'D'},
		{"chunks", required_argument, NULL, 'c'}, {"repeats", required_argument, NULL, 'r'},
		{"staging", required_argument, NULL, 's'}, {"tile", required_argument, NULL, 't'},
		{"limit", required_argument, NULL, 'l'}, {"tiny", no_argument, NULL, 'y'}, {"json", no_argument, NULL, 'j'},
		{"no-sweep", no_argument, NULL, 'n'}, {"help", no_argument, NULL, 'h'}, {0},
	};
	int o;

	options.driver = getenv("TYER_CUDA_DRIVER");
	while ((o = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (o) {
		case 'd': options.device = optarg; break;
		case 'D': options.driver = optarg; break;
		case 'c': options.chunks = (uint32_t)measure_number("chunks", optarg, 2, 4096); break;
		case 'r': options.repeats = (uint32_t)measure_number("repeats", optarg, 1, REPEATS_MAX); break;
		case 's': options.staging = measure_number("staging", optarg, 1, UINT64_MAX); break;
		case 't': options.tile = measure_number("tile", optarg, 1, UINT64_MAX); break;
		case 'l': options.limit = (uint32_t)measure_number("limit", optarg, 1, 3600); break;
		case 'y': options.tiny = true; break;
		case 'j': options.json = true; break;
		case 'n': options.skip_sweep = true; break;
		default:
			fprintf(o == 'h' ? stdout : stderr,
				"usage: device_check [--device cuda:N] [--driver PATH] [--chunks N] [--repeats N]\n"
				"                    [--staging BYTES] [--tile BYTES] [--limit SECONDS] [--no-sweep] [--tiny] [--json]\n");
			exit(o == 'h' ? 0 : 2);
		}
	}
	if (strncmp(options.device, "cuda:", 5)) {
		fprintf(stderr, "--device %s: expected cuda:N\n", options.device);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	struct check_case llama = {.name = "llama-3.1-8b, split", .small = -1, .run_bytes = 32768, .planes = 64,
		.blocks_per_chunk = 16};
	static struct check_answer before, bare, after;
	const struct check_order memory = {.verb = CHECK_MEMORY};
	struct ty_error err = {0};
	const char *longest;

	parse(argc, argv);
	table = options.json ? stderr : stdout;
	if (options.tiny) {
		llama.run_bytes = 4096;
		llama.planes = 8;
		llama.blocks_per_chunk = 4;
		options.chunks = 6;
		options.repeats = 2;
	}
	llama.chunks = options.chunks;
	arena_bytes = (uint64_t)llama.run_bytes * llama.planes * llama.blocks_per_chunk * llama.chunks;
	arena_bytes = (arena_bytes + 2 * PIECE - 1) / PIECE * PIECE;
	signal(SIGALRM, on_alarm);
	step = "the client's start";
	must(step, check_client_start(options.driver, atoi(options.device + 5), &err), &err);
	make_arena();
	alarm(options.limit);
	ask(&memory, "GPU memory before", &before);
	open_bare();
	ask(&memory, "GPU memory beside a bare context", &bare);
	ty_device_publish_calls(&call);

	/* right before fast: staging so scarce that every pool takes many laps, then as much as there is */
	open_device(4 * MIB, 256 << 10);
	for (unsigned i = 0; i < test_pool_count; i++)
		check_small(i);
	close_device();
	open_device(options.staging, options.tile);
	for (unsigned i = 0; i < test_pool_count; i++)
		check_small(i);
	ask(&memory, "GPU memory after", &after);
	beyond_bytes = (int64_t)(bare.bytes - after.bytes);
	fprintf(table, "%s: %s; driver %s%s%s\n", ty_device_info(dev)->name, ty_device_info(dev)->model,
		options.driver ? options.driver : "libcuda.so.1", ty_device_note(dev)[0] ? "; " : "", ty_device_note(dev));
	fprintf(table, "%u small pools: right, twice\n", test_pool_count);
	fprintf(table, "arena %llu MiB: touched in %.2f s, registered in %.3f s; device opened in %.3f s, GPU memory taken: %lld MiB, "
		"%lld beyond a bare context (staging and tables %llu)\n", (unsigned long long)(arena_bytes / MIB), populate_seconds, register_seconds,
		open_seconds, (long long)((before.bytes - after.bytes) / MIB), (long long)(beyond_bytes / (int64_t)MIB),
		(unsigned long long)(ty_device_stats(dev)->device_bytes / MIB));
	fprintf(table, "%-22s %7s %9s  %-7s %6s %5s  %6s %5s  %6s  %5s %5s\n", "case", "run", "chunk MiB", "path", "store",
		"ratio", "retr.", "ratio", "both", "sub.s", "sub.r");

	measure(&llama);
	llama.cross_layer = true;
	llama.name = "llama-3.1-8b, cross";
	measure(&llama);
	if (!options.skip_sweep)
		sweep();
	longest = ty_device_stats(dev)->longest_call;
	fprintf(table, "GB/s, ratio to one contiguous page-locked copy; submits in us a chunk. Mapped in %.0f us. Longest call: %s, "
		"%.1f us\n", map_seconds * 1e6, longest ? longest : "none",
		(double)ty_device_stats(dev)->longest_call_ns / 1e3);
	print_calls();
	if (options.json)
		print_json();
	close_device();
	check_client_stop();
	fprintf(table, "device_check: all right\n");
	return 0;
}
