/* SPDX-License-Identifier: Apache-2.0
 *
 * embedded_check: how fast do blocks go when their owner lives in the engine's process (embed.h), and what does the engine feel of it?
 * This process is the engine: steps of about 1.6 ms on a thread and stream of its own, a pool in its own memory, and an owner over
 * the arena of a service that runs in a child. Every chunk comes back elsewhere and is checked word by word.
 *
 * Each row is measured in --rounds rounds: the step alone, then on each side plain page-locked copies beside the same engine, which are the
 * limit, and ours (measure.h). On the stand-in driver (--tiny) it checks itself, and the numbers mean nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "actors/service.h"
#include "base/log.h"
#include "busy/busy.h"
#include "device/cuda_client.h"
#include "embed/link.h"
#include "measure.h"

#define MIB ((uint64_t)1 << 20)
#define CHUNKS 16u              /* of the pool; it has room for twice as many, so that they come back elsewhere */
#define OP_CHUNKS 4u            /* of one operation ... */
#define DEPTH 4u                /* ... of which so many are out in a direction */
#define CHAIN 4096u             /* keys of a session */
#define WARM 0.2                /* of a measurement, before it counts */
#define PLAIN_REPEATS 7         /* copies one way; PLAIN_BOTH each way at once */
#define PLAIN_BOTH 10
#define PIECES_OF_TINY 10u
#define PIECES 64u              /* of the arena: all of it */

static struct {
	const char *device, *driver, *ways, *runs, *calibration;
	double seconds;
	uint32_t limit, rounds;
	bool json, tiny;
} options = {.device = "cuda:0", .seconds = 0.1, .limit = 200, .rounds = 5, .ways = "fast,quiet,auto", .runs = "8,16,32,64,512,2048"};

static char dir[64], url[128], attach[108];
static struct ty_cuda_client *gpu;
static struct ty_embed *embed;
static struct ty_client *client;
static void *pinned[2];
static uint64_t plain_device[2], plain_bytes = 256 * MIB;
static double began;
static uint64_t checked, wrong_words;
static const char *doing = "start";
static FILE *report; /* what people read */
static bool first_row = true;

static _Noreturn void failed(const char *what, const char *text)
{
	fprintf(stderr, "embedded_check: FAILED: %s: %s: %s\n", doing, what, text);
	exit(1);
}

static void must(const char *what, enum ty_code code, const struct ty_error *err)
{
	if (code != TY_OK)
		failed(what, err->text);
}

/* ---- the service, in a child ------------------------------------------------------------------------ */

static _Noreturn void serve(int ready)
{
	char *argv[] = {(char *)"embedded_check", NULL};
	static struct ty_config config;
	struct ty_service *service;
	struct ty_error err;
	bool help, version;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	must("configuration", ty_config_parse(&config, 1, argv, &help, &version, &err), &err);
	snprintf(config.listen, sizeof config.listen, "%s", url);
	snprintf(config.attach, sizeof config.attach, "%s", attach);
	snprintf(config.http, sizeof config.http, "off");
	snprintf(config.admin, sizeof config.admin, "off");
	snprintf(config.device[0], sizeof config.device[0], "host");
	config.device_count = 1;
	config.chunk_tokens = 256;
	config.embed_uid = (struct ty_uids){1, {geteuid()}};
	config.l1_size = options.tiny ? 640 * MIB : 4096 * MIB;
	config.l1_ahead = config.l1_size;
	config.populate_threads = options.tiny ? 1 : 8;
	config.policy = TY_CONFIG_POLICY_LRU;
	config.log_level = 0;
	ty_log_setup(TY_LOG_ERROR, false);
	must("the service", ty_service_start(&config, NULL, &service, &err), &err);
	while (atomic_load_explicit(&service->eviction_stats.ready_bytes, memory_order_relaxed) < config.l1_size)
		usleep(10000);
	if (write(ready, "r", 1) != 1)
		_exit(1);
	for (;;)
		pause();
}

static void start_service(void)
{
	int pair[2];
	char byte;

	snprintf(dir, sizeof dir, "/tmp/tyer-embedded-XXXXXX");
	if (!mkdtemp(dir) || pipe2(pair, O_CLOEXEC) != 0)
		failed("a folder", strerror(errno));
	snprintf(url, sizeof url, "ipc://%s/rpc.sock", dir);
	snprintf(attach, sizeof attach, "%s/attach.sock", dir);
	switch (fork()) {
	case -1:
		failed("fork", strerror(errno));
	case 0:
		serve(pair[1]);
	}
	close(pair[1]);
	if (read(pair[0], &byte, 1) != 1)
		failed("the service", "it ended");
	close(pair[0]);
}

static void clean_up(void)
{
	char path[128];

	snprintf(path, sizeof path, "%s/rpc.sock", dir);
	unlink(path);
	unlink(attach);
	rmdir(dir);
}

/* ---- the pool ------------------------------------------------------------------------------------------ */

struct pool {
	struct measure_shape shape;
	uint64_t address, bytes, seed;
	uint32_t registration;
	struct ty_pool said;
	struct ty_region region;
	struct ty_group group;
	struct ty_plane plane[MEASURE_CROSS_PLANES];
	uint32_t ids[2][CHUNKS * 16]; /* where chunks are stored from, and where they come back to */
};

static void make_pool(struct pool *p, uint32_t joined)
{
	const struct measure_shape shape = measure_shape(joined, options.tiny ? MIB / 4 : 32 * MIB);
	const uint32_t blocks = 2 * CHUNKS * shape.blocks_per_chunk;
	const uint64_t plane = shape.cross_layer ? shape.run_bytes : (uint64_t)blocks * shape.run_bytes; /* from one to the next */

	memset(p, 0, sizeof *p);
	p->shape = shape;
	p->bytes = (uint64_t)blocks * shape.planes * shape.run_bytes;
	p->group = (struct ty_group){.block_tokens = 256 / shape.blocks_per_chunk, .block_count = blocks,
		.block_stride = shape.cross_layer ? (uint64_t)shape.run_bytes * shape.planes : shape.run_bytes, .run_bytes = shape.run_bytes,
		.plane_count = shape.planes, .planes = p->plane};
	for (uint32_t i = 0; i < shape.planes; i++)
		p->plane[i].offset = i * plane;
	p->region = (struct ty_region){.allocation_bytes = p->bytes, .length = p->bytes};
	p->said = (struct ty_pool){.region_count = 1, .group_count = 1, .regions = &p->region, .groups = &p->group, .parts = 1, .format = "NHD"};
}

/* Every block once, in any order. */
static void draw_ids(struct pool *p)
{
	uint32_t count = 2 * CHUNKS * p->shape.blocks_per_chunk, half = count / 2, all[2 * CHUNKS * 16];

	for (uint32_t i = 0; i < count; i++)
		all[i] = i;
	for (uint32_t i = count - 1; i > 0; i--) {
		uint32_t other = randombytes_uniform(i + 1), one = all[i];

		all[i] = all[other];
		all[other] = one;
	}
	memcpy(p->ids[0], all, half * sizeof all[0]);
	memcpy(p->ids[1], all + half, half * sizeof all[0]);
}

static struct ty_pattern_run *list_runs(const struct pool *p, const uint32_t *ids, uint32_t *count)
{
	struct ty_pattern_run *runs = calloc((size_t)CHUNKS * p->shape.blocks_per_chunk * p->shape.planes, sizeof *runs);

	*count = 0;
	for (uint32_t i = 0; runs && i < CHUNKS * p->shape.blocks_per_chunk; i++)
		for (uint32_t k = 0; k < p->shape.planes; k++)
			runs[(*count)++] = (struct ty_pattern_run){p->address + p->plane[k].offset + ids[i] * p->group.block_stride,
				i / p->shape.blocks_per_chunk + 1, (uint32_t)(((uint64_t)(i % p->shape.blocks_per_chunk) * p->shape.planes + k) * p->shape.run_bytes / 8)};
	return runs;
}

/* Fresh contents, or are they there? */
static void contents(struct pool *p, bool fill)
{
	struct ty_pattern_wrong wrong = {0};
	struct ty_error err = {0};
	struct ty_pattern_run *runs;
	uint32_t count;

	if (fill)
		randombytes_buf(&p->seed, sizeof p->seed);
	runs = list_runs(p, p->ids[!fill], &count);
	if (fill)
		must("fill", ty_cuda_client_fill(gpu, p->seed, runs, count, p->shape.run_bytes / 8, &err), &err);
	else
		must("check", ty_cuda_client_check(gpu, p->seed, runs, count, p->shape.run_bytes / 8, &wrong, &err), &err);
	free(runs);
	checked += fill ? 0 : CHUNKS;
	wrong_words += wrong.count;
	if (wrong.count)
		fprintf(stderr, "embedded_check: %llu wrong words, the first in run %llu\n", (unsigned long long)wrong.count,
			(unsigned long long)wrong.run);
}

/* The blocks that chunks come back to hold something else. */
static void wipe(struct pool *p)
{
	struct ty_error err = {0};
	uint32_t count;
	struct ty_pattern_run *runs = list_runs(p, p->ids[1], &count);

	must("wipe", ty_cuda_client_fill(gpu, ~p->seed, runs, count, p->shape.run_bytes / 8, &err), &err);
	free(runs);
}

/* ---- requests ------------------------------------------------------------------------------------------- */

struct answer {
	bool there;
	struct ty_result result;
};

static void on_answer(void *user, const struct ty_result *result)
{
	struct answer *a = user;

	if (result->code != TY_OK)
		failed("a request", result->error);
	a->result = *result;
	a->there = true;
}

static void wait_for(struct answer *a)
{
	while (!a->there)
		ty_client_poll(client, 0, 1000);
}

static uint8_t keys[2][CHAIN][TY_KEY_BYTES];

static void lookup(uint64_t session, const uint8_t *hashes, uint32_t count, uint32_t hits)
{
	struct ty_chain chain = {.hashes = hashes, .chunk_count = count};
	struct answer a = {0};
	struct ty_error err;

	must("LOOKUP", ty_client_lookup(client, session, &chain, on_answer, &a, &err), &err);
	wait_for(&a);
	if (a.result.lookup.hits != hits)
		failed("LOOKUP", "not what was stored");
}

static void end_session(uint64_t session)
{
	struct answer a = {0};
	struct ty_error err;

	must("END_SESSION", ty_client_end_session(client, session, on_answer, &a, &err), &err);
	wait_for(&a);
}

/* Operations in one direction, one after the other as they end. */
struct stream {
	struct pool *pool;
	bool store;
	uint64_t session;
	uint32_t next, out; /* operations */
	uint64_t bytes, from_steps;
	double end, first, last, start;
};

static void send_next(struct stream *s);

static void on_moved(void *user, const struct ty_result *result)
{
	struct stream *s = user;
	double at = measure_now();

	if (result->code != TY_OK)
		failed(s->store ? "STORE" : "RETRIEVE", result->error);
	if (s->store && result->store.stored != OP_CHUNKS)
		failed("STORE", "not all was stored");
	s->out--;
	if (s->first > 0 && at < s->end) {
		s->bytes += OP_CHUNKS * s->pool->shape.chunk_bytes;
		s->last = at;
	} else if (s->first <= 0 && at > s->start + WARM * options.seconds) {
		s->first = at;
	}
}

static void send_next(struct stream *s)
{
	struct pool *p = s->pool;
	uint32_t first = s->next * OP_CHUNKS, in_pool = first % CHUNKS, length = OP_CHUNKS * p->shape.blocks_per_chunk;
	const uint32_t *ids = p->ids[!s->store] + in_pool * p->shape.blocks_per_chunk;
	struct ty_transfer t = {.session = s->session, .registration = p->registration, .first = s->store ? first : in_pool, .count = OP_CHUNKS,
		.blocks = &ids, .block_counts = &length, .group_count = 1};
	struct ty_error err;

	must("a transfer", s->store ? ty_client_store(client, &t, on_moved, s, &err) : ty_client_retrieve(client, &t, on_moved, s, &err),
		&err);
	s->next++;
	s->out++;
}

/* GB/s together, until the time is over, and so that stores end with a whole pool's worth; the engine's step meanwhile. */
static double transfer(struct stream *streams, unsigned count, double *step_us)
{
	double start = measure_now(), rate = 0, p99;
	uint64_t from = ty_busy_steps() + 1;
	bool more = true;

	for (unsigned i = 0; i < count; i++) {
		streams[i].start = start;
		streams[i].end = start + options.seconds;
	}
	while (more) {
		bool late = measure_now() >= start + options.seconds;

		more = false;
		for (unsigned i = 0; i < count; i++) {
			struct stream *s = &streams[i];

			while (s->out < DEPTH && (s->next + 1) * OP_CHUNKS <= CHAIN && (!late || s->next % (CHUNKS / OP_CHUNKS)))
				send_next(s);
			more |= s->out > 0;
		}
		ty_client_poll(client, 0, 1000);
	}
	ty_busy_times(from, step_us, &p99);
	for (unsigned i = 0; i < count; i++)
		rate += streams[i].last > streams[i].first && streams[i].first > 0
				? (double)streams[i].bytes / (streams[i].last - streams[i].first) / 1e9 : 0;
	return rate;
}

/* ---- rows ------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* GB/s of plain copies on this side, and the engine's step beside them. */
static double plain(enum measure_side side, double *step_us)
{
	uint64_t from = ty_busy_steps() + 1, copies = side == MEASURE_BOTH ? 2 * PLAIN_BOTH : 1;
	double seconds[PLAIN_REPEATS], p99;
	struct ty_error err = {0};
	uint32_t count = side == MEASURE_BOTH ? 1 : PLAIN_REPEATS;

	for (uint32_t k = 0; k < count; k++)
		must("plain copies", side == MEASURE_BOTH ? ty_cuda_client_time_both(gpu, pinned, plain_device, plain_bytes, PLAIN_BOTH, &seconds[k], &err)
			: ty_cuda_client_time_copy(gpu, side == MEASURE_STORE, pinned[side], plain_device[side], plain_bytes, &seconds[k], &err), &err);
	qsort(seconds, count, sizeof seconds[0], by_value);
	ty_busy_times(from, step_us, &p99);
	return (double)(plain_bytes * copies) / seconds[count / 2] / 1e9;
}

/* The engine's step with nothing beside it. */
static double step_alone(void)
{
	uint64_t from = ty_busy_steps() + 1;
	double median, p99;

	usleep(options.tiny ? 5000 : 40000);
	ty_busy_times(from, &median, &p99);
	return median;
}

static void tell(const char *way, struct pool *p, const struct measure_rounds *r)
{
	uint32_t joined = p->shape.cross_layer ? p->shape.run_bytes * p->shape.planes : p->shape.run_bytes;

	measure_print_row(report, joined, way, "", r, true);
	if (!options.json)
		return;
	printf("%s\n    {\"run_bytes\": %u, \"way\": \"%s\", \"cross_layer\": %s", first_row ? "" : ",", joined, way,
		p->shape.cross_layer ? "true" : "false");
	measure_print_json(stdout, r, true);
	printf("}");
	first_row = false;
}

static void open_pool(struct pool *p)
{
	struct ty_region unused;
	struct answer a = {0};
	struct ty_error err = {0};

	must("the pool", ty_cuda_client_alloc(gpu, p->bytes, &p->address, &unused, &err), &err);
	p->region.address = p->address;
	must("offer", ty_embed_offer(embed, client, &p->said, &err), &err);
	must("REGISTER", ty_client_register(client, &p->said, on_answer, &a, &err), &err);
	wait_for(&a);
	p->registration = a.result.registered.registration;
}

static void close_pool(struct pool *p)
{
	struct answer a = {0};
	struct ty_error err = {0};

	must("UNREGISTER", ty_client_unregister(client, p->registration, on_answer, &a, &err), &err);
	wait_for(&a);
	ty_embed_withdraw(embed, &p->said);
	ty_cuda_client_free(gpu, p->address);
}

/* All pools of a client have one layout: each row has a client of its own. */
static void open_client(void)
{
	struct ty_client_options o = {.size = sizeof o, .url = url, .attach_path = attach, .name = "embedded_check", .model = "m", .dtype = "bf16"};
	struct ty_error err = {0};

	must("the client", ty_client_open(&o, &client, &err), &err);
}

/* One side of a round: the limit, then ours. */
static void side(struct measure_rounds *r, enum measure_side which, struct stream *streams)
{
	struct measure_series *s = &r->side[which];

	s->limit_gbs[r->count] = plain(which, &s->plain_step_us[r->count]);
	s->gbs[r->count] = transfer(streams, which == MEASURE_BOTH ? 2 : 1, &s->step_us[r->count]);
}

/* Stores always come from the one half of the pool and retrieves go into the other, so that what is there can be told at any time. */
static void one_round(struct pool *p, struct measure_rounds *r)
{
	const uint64_t session = 3 * r->count + 1;
	struct stream s[2];

	r->alone_us[r->count] = step_alone();
	wipe(p);
	randombytes_buf(keys, sizeof keys);
	lookup(session, keys[0][0], CHAIN, 0);
	s[0] = (struct stream){.pool = p, .store = true, .session = session};
	side(r, MEASURE_STORE, s);
	/* the pool's worth that was stored last */
	lookup(session + 1, keys[0][s[0].next * OP_CHUNKS - CHUNKS], CHUNKS, CHUNKS);
	s[0] = (struct stream){.pool = p, .session = session + 1};
	side(r, MEASURE_RETRIEVE, s);
	contents(p, false);
	wipe(p);
	lookup(session + 2, keys[1][0], CHAIN, 0);
	s[0] = (struct stream){.pool = p, .session = session + 1};
	s[1] = (struct stream){.pool = p, .store = true, .session = session + 2};
	side(r, MEASURE_BOTH, s);
	contents(p, false);
	for (uint64_t i = 0; i < 3; i++)
		end_session(session + i);
	r->count++;
}

static void measure(const char *way, uint32_t joined)
{
	struct measure_rounds rounds = {0};
	static struct pool p;

	make_pool(&p, joined);
	open_client();
	open_pool(&p);
	draw_ids(&p);
	contents(&p, true);
	while (rounds.count < options.rounds)
		one_round(&p, &rounds);
	tell(way, &p, &rounds);
	close_pool(&p);
	ty_client_close(client);
}

static void each_way(const struct measure_way *way)
{
	static const enum ty_embed_sharing sharing[] = {
		[TY_SHARING_AUTO] = TY_EMBED_AUTO, [TY_SHARING_QUIET] = TY_EMBED_QUIET, [TY_SHARING_FAST] = TY_EMBED_FAST};
	const struct ty_embed_options o = {.size = sizeof o, .attach_path = attach, .device = options.device, .driver = options.driver,
		.sharing = sharing[way->how.sharing], .calibration = options.calibration};
	const char *runs = options.runs;
	struct ty_embed_stats stats;
	struct ty_error err = {0};

	doing = way->name;
	must("the owner", ty_embed_open_how(&o, &way->how, &embed, &err), &err);
	do { /* all of the arena is registered before anything is measured: more than a turn of the link takes */
		usleep(1000);
		ty_embed_stats(embed, &stats);
	} while (stats.pieces < (options.tiny ? PIECES_OF_TINY : PIECES));
	for (uint32_t run; (run = measure_next_run(&runs)) && measure_now() < began + options.limit - 3;)
		measure(way->name, run);
	must("the owner's end", ty_embed_close(embed, 10000000, &err), &err);
}

/* ---- beginning and end -------------------------------------------------------------------------------------- */

static void on_alarm(int signal_number)
{
	(void)signal_number;
	fprintf(stderr, "embedded_check: FAILED: %s: not done after %u s\n", doing, options.limit + 20);
	_exit(1);
}

static void parse(int argc, char **argv)
{
	static const struct option known[] = {
		{"device", required_argument, NULL, 'd'}, {"driver", required_argument, NULL, 'D'}, {"seconds", required_argument, NULL, 's'},
		{"rounds", required_argument, NULL, 'r'},
		{"limit", required_argument, NULL, 'l'}, {"calibration", required_argument, NULL, 'C'}, {"runs", required_argument, NULL, 'R'},
		{"ways", required_argument, NULL, 'w'}, {"json", no_argument, NULL, 'j'}, {"tiny", no_argument, NULL, 'y'}, {0},
	};
	int o;

	options.driver = getenv("TYER_CUDA_DRIVER");
	while ((o = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (o) {
		case 'd': options.device = optarg; break;
		case 'D': options.driver = optarg; break;
		case 's': options.seconds = atof(optarg) / 1e3; break;
		case 'r': options.rounds = (uint32_t)atoi(optarg); break;
		case 'l': options.limit = (uint32_t)atoi(optarg); break;
		case 'C': options.calibration = optarg; break;
		case 'R': options.runs = optarg; break;
		case 'w': options.ways = optarg; break;
		case 'j': options.json = true; break;
		case 'y': options.tiny = true; break;
		default:
			fprintf(stderr, "usage: embedded_check [--json] [--ways fast,quiet,auto,staged-t4,...] [--runs KIB,...] [--rounds N]\n"
				"                      [--seconds MILLISECONDS, of a round] [--calibration DIR] [--device cuda:N] [--driver PATH] [--limit SECONDS] [--tiny]\n");
			exit(2);
		}
	}
	if (strncmp(options.device, "cuda:", 5) || options.seconds <= 0 || options.rounds < 1 || options.rounds > MEASURE_ROUNDS) {
		fprintf(stderr, "embedded_check: expected --device cuda:N, --seconds a number, --rounds 1..%u\n", MEASURE_ROUNDS);
		exit(2);
	}
	if (options.tiny) {
		options.seconds = 0.01;
		options.rounds = 2;
		options.runs = "8,512";
		plain_bytes = MIB;
	}
}

int main(int argc, char **argv)
{
	struct ty_region unused;
	struct measure_way way;
	struct ty_error err = {0};
	const char *list;

	parse(argc, argv);
	for (list = options.ways; measure_next_way(&list, &way);) /* all of them are ways */
		;
	list = options.ways;
	began = measure_now();
	report = options.json ? stderr : stdout;
	if (sodium_init() < 0)
		failed("libsodium", "it does not start");
	signal(SIGALRM, on_alarm);
	alarm(options.tiny ? 600 : options.limit + 20);
	start_service(); /* before this process has threads, or calls the driver */
	must("the driver", ty_cuda_client_open(options.driver, atoi(options.device + 5), &gpu, &err), &err);
	for (unsigned i = 0; i < 2; i++) {
		must("page-locked memory", ty_cuda_client_host_alloc(gpu, plain_bytes, &pinned[i], &err), &err);
		memset(pinned[i], 1, plain_bytes);
		must("device memory", ty_cuda_client_alloc(gpu, plain_bytes, &plain_device[i], &unused, &err), &err);
	}
	must("the engine", ty_busy_start_here(options.driver, atoi(options.device + 5), options.tiny, &err), &err);
	fprintf(report, "the engine's step alone: %.0f us\n", step_alone());
	measure_print_head(report, true);
	if (options.json)
		printf("{\n  \"rows\": [");
	while (measure_next_way(&list, &way))
		each_way(&way);
	if (options.json)
		printf("\n  ],\n  \"chunks_checked\": %llu, \"chunks_wrong\": %llu, \"wrong_words\": %llu, \"seconds\": %.1f\n}\n", (unsigned long long)checked,
			(unsigned long long)(wrong_words != 0), (unsigned long long)wrong_words, measure_now() - began);
	ty_busy_stop();
	clean_up();
	fprintf(report, "embedded_check: %llu chunks checked, %llu wrong words, %.1f s\n", (unsigned long long)checked,
		(unsigned long long)wrong_words, measure_now() - began);
	return wrong_words || !checked;
}
