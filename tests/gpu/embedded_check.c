/* SPDX-License-Identifier: Apache-2.0
 *
 * embedded_check: how fast do blocks go when their owner lives in the engine's process (embed.h), and what does the engine feel of it?
 * This process is the engine: steps of about 1.6 ms on a thread and stream of its own, a pool in its own memory, and an owner over
 * the arena of a service that runs in a child. Every chunk comes back elsewhere and is checked word by word.
 *
 * The limit is one contiguous page-locked copy beside the same engine, measured before and after each row. On the stand-in driver
 * (--tiny) it checks itself, and the numbers mean nothing.
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

#include <tyer/embed.h>

#include "actors/service.h"
#include "base/log.h"
#include "device/cuda_client.h"
#include "busy/busy.h"

#define MIB ((uint64_t)1 << 20)
#define CHUNKS 16u              /* of the pool; it has room for twice as many, so that they come back elsewhere */
#define OP_CHUNKS 4u            /* of one operation ... */
#define DEPTH 4u                /* ... of which so many are out in a direction */
#define CHAIN 4096u             /* keys of a session */
#define CROSS_LAYER (512u << 10)
#define CROSS_PLANES 64u
#define WARM 0.2                /* of a measurement, before it counts */
#define PLAIN_REPEATS 5

static struct {
	const char *device, *driver, *ways, *runs, *calibration;
	double seconds;
	uint32_t limit;
	bool json, tiny;
} options = {.device = "cuda:0", .seconds = 0.25, .limit = 38, .ways = "fast,quiet,auto", .runs = "8,16,32,64,512,2048"};

static const struct {
	const char *name;
	enum ty_embed_sharing sharing;
} ways[] = {{"fast", TY_EMBED_FAST}, {"quiet", TY_EMBED_QUIET}, {"auto", TY_EMBED_AUTO}};

static char dir[64], url[128], attach[108];
static struct ty_cuda_client *gpu;
static struct ty_embed *embed;
static struct ty_client *client;
static void *pinned[2];
static uint64_t plain_device[2], plain_bytes = 256 * MIB;
static double began, step_alone;
static uint64_t checked, wrong_words;
static const char *doing = "start";
static FILE *report; /* what people read */
static bool first_row = true;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

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
	uint32_t run, planes, per_chunk; /* per_chunk: blocks */
	bool cross_layer;
	uint64_t address, bytes, chunk_bytes, seed;
	uint32_t registration;
	struct ty_pool said;
	struct ty_region region;
	struct ty_group group;
	struct ty_plane plane[64];
	uint32_t ids[2][CHUNKS * 16]; /* where chunks are stored from, and where they come back to */
};

static void shape(struct pool *p, uint32_t joined)
{
	uint64_t most = options.tiny ? MIB / 4 : 32 * MIB;
	uint32_t blocks;

	memset(p, 0, sizeof *p);
	p->run = joined;
	p->planes = 64;
	p->per_chunk = 16;
	if (joined >= CROSS_LAYER) {
		p->cross_layer = true;
		p->run = joined / CROSS_PLANES;
	}
	while (!p->cross_layer && p->planes > 1 && (uint64_t)p->run * p->planes * p->per_chunk > most)
		p->planes /= 2;
	while (p->per_chunk > 1 && (uint64_t)p->run * p->planes * p->per_chunk > most)
		p->per_chunk /= 2;
	p->chunk_bytes = (uint64_t)p->run * p->planes * p->per_chunk;
	blocks = 2 * CHUNKS * p->per_chunk;
	p->bytes = (uint64_t)blocks * p->planes * p->run;
	p->group = (struct ty_group){256 / p->per_chunk, blocks, p->cross_layer ? (uint64_t)p->run * p->planes : p->run, p->run, p->planes,
		p->plane};
	for (uint32_t i = 0; i < p->planes; i++)
		p->plane[i].offset = p->cross_layer ? (uint64_t)i * p->run : (uint64_t)i * blocks * p->run;
	p->region = (struct ty_region){.allocation_bytes = p->bytes, .length = p->bytes};
	p->said = (struct ty_pool){.region_count = 1, .group_count = 1, .regions = &p->region, .groups = &p->group, .parts = 1, .format = "NHD"};
}

/* Every block once, in any order. */
static void draw_ids(struct pool *p)
{
	uint32_t count = 2 * CHUNKS * p->per_chunk, half = count / 2, all[2 * CHUNKS * 16];

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
	struct ty_pattern_run *runs = calloc((size_t)CHUNKS * p->per_chunk * p->planes, sizeof *runs);

	*count = 0;
	for (uint32_t i = 0; runs && i < CHUNKS * p->per_chunk; i++)
		for (uint32_t k = 0; k < p->planes; k++)
			runs[(*count)++] = (struct ty_pattern_run){p->address + p->plane[k].offset + ids[i] * p->group.block_stride,
				i / p->per_chunk + 1, (uint32_t)(((uint64_t)(i % p->per_chunk) * p->planes + k) * p->run / 8)};
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
		must("fill", ty_cuda_client_fill(gpu, p->seed, runs, count, p->run / 8, &err), &err);
	else
		must("check", ty_cuda_client_check(gpu, p->seed, runs, count, p->run / 8, &wrong, &err), &err);
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

	must("wipe", ty_cuda_client_fill(gpu, ~p->seed, runs, count, p->run / 8, &err), &err);
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
	double at = now();

	if (result->code != TY_OK)
		failed(s->store ? "STORE" : "RETRIEVE", result->error);
	if (s->store && result->store.stored != OP_CHUNKS)
		failed("STORE", "not all was stored");
	s->out--;
	if (s->first > 0 && at < s->end) {
		s->bytes += OP_CHUNKS * s->pool->chunk_bytes;
		s->last = at;
	} else if (s->first <= 0 && at > s->start + WARM * options.seconds) {
		s->first = at;
	}
}

static void send_next(struct stream *s)
{
	struct pool *p = s->pool;
	uint32_t first = s->next * OP_CHUNKS, in_pool = first % CHUNKS, length = OP_CHUNKS * p->per_chunk;
	const uint32_t *ids = p->ids[!s->store] + in_pool * p->per_chunk;
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
	double start = now(), rate = 0, p99;
	uint64_t from = ty_busy_steps() + 1;
	bool more = true;

	for (unsigned i = 0; i < count; i++) {
		streams[i].start = start;
		streams[i].end = start + options.seconds;
	}
	while (more) {
		bool late = now() >= start + options.seconds;

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

/* GB/s of plain copies to the host, to the device, both at once; and the engine's step beside them. Half of the whole: it is
 * called before and after. */
static void plain(double limit[3], double step[3])
{
	struct ty_error err = {0};
	double p99;

	for (unsigned i = 0; i < 3; i++) {
		uint64_t from = ty_busy_steps() + 1;
		double seconds[PLAIN_REPEATS], median;

		for (unsigned k = 0; k < PLAIN_REPEATS; k++) {
			if (i < 2)
				must("plain copies", ty_cuda_client_time_copy(gpu, i == 0, pinned[i], plain_device[i], plain_bytes,
					&seconds[k], &err), &err);
			else
				must("plain copies", ty_cuda_client_time_both(gpu, pinned, plain_device, plain_bytes, 4, &seconds[k], &err),
					&err);
		}
		qsort(seconds, PLAIN_REPEATS, sizeof seconds[0], by_value);
		limit[i] += (double)plain_bytes * (i < 2 ? 1 : 8) / seconds[PLAIN_REPEATS / 2] / 1e9 / 2;
		ty_busy_times(from, &median, &p99);
		step[i] += median / 2;
	}
}

static void row(const char *way, struct pool *p, const double rate[3], const double limit[3], const double step[3],
	const double plain_step[3])
{
	static const char *const names[] = {"store", "retrieve", "both"};
	uint32_t joined = p->cross_layer ? p->run * p->planes : p->run;

	fprintf(report, "%5u KiB  %-6s", joined / 1024, way);
	for (unsigned i = 0; i < 3; i++)
		fprintf(report, "  %6.2f %5.3f %6.0f", rate[i], rate[i] / limit[i], step[i]);
	fprintf(report, "\n");
	fflush(report);
	if (!options.json)
		return;
	printf("%s\n    {\"run_bytes\": %u, \"way\": \"%s\", \"cross_layer\": %s, \"step_alone_us\": %.1f", first_row ? "" : ",", joined, way,
		p->cross_layer ? "true" : "false", step_alone);
	for (unsigned i = 0; i < 3; i++)
		printf(", \"%s_gbs\": %.3f, \"%s_limit_gbs\": %.3f, \"%s_step_us\": %.1f, \"%s_plain_step_us\": %.1f", names[i], rate[i], names[i],
			limit[i], names[i], step[i], names[i], plain_step[i]);
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

static void measure(const char *way, uint32_t joined)
{
	double rate[3] = {0}, limit[3] = {0}, step[3] = {0}, plain_step[3] = {0};
	struct stream s[2];
	static struct pool p;
	uint8_t *last;

	shape(&p, joined);
	open_client();
	open_pool(&p);
	draw_ids(&p);
	contents(&p, true);
	wipe(&p);
	plain(limit, plain_step);
	randombytes_buf(keys, sizeof keys);
	lookup(1, keys[0][0], CHAIN, 0);
	s[0] = (struct stream){.pool = &p, .store = true, .session = 1};
	rate[0] = transfer(s, 1, &step[0]);
	last = keys[0][s[0].next * OP_CHUNKS - CHUNKS]; /* the pool's worth that was stored last */
	lookup(2, last, CHUNKS, CHUNKS);
	s[0] = (struct stream){.pool = &p, .session = 2};
	rate[1] = transfer(s, 1, &step[1]);
	contents(&p, false);
	wipe(&p);
	lookup(3, keys[1][0], CHAIN, 0);
	s[0] = (struct stream){.pool = &p, .session = 2};
	s[1] = (struct stream){.pool = &p, .store = true, .session = 3};
	rate[2] = transfer(s, 2, &step[2]);
	contents(&p, false);
	for (uint64_t i = 1; i <= 3; i++)
		end_session(i);
	plain(limit, plain_step);
	row(way, &p, rate, limit, step, plain_step);
	close_pool(&p);
	ty_client_close(client);
}

static bool listed(const char *list, const char *name)
{
	size_t length = strlen(name);

	for (const char *at = strstr(list, name); at; at = strstr(at + 1, name))
		if ((at == list || at[-1] == ',') && (at[length] == ',' || !at[length]))
			return true;
	return false;
}

static void each_way(unsigned way)
{
	struct ty_embed_options o = {.size = sizeof o, .attach_path = attach, .device = options.device, .driver = options.driver,
		.sharing = ways[way].sharing, .calibration = options.calibration};
	struct ty_embed_stats stats;
	struct ty_error err = {0};

	doing = ways[way].name;
	must("the owner", ty_embed_open(&o, &embed, &err), &err);
	do { /* all of the arena is registered before anything is measured */
		usleep(1000);
		ty_embed_stats(embed, &stats);
	} while (stats.pieces < (options.tiny ? 10 : 64)); /* more than a turn of the link takes */
	for (uint32_t run = 4096; run <= 2 * MIB; run *= 2) {
		char name[16];

		snprintf(name, sizeof name, "%u", run / 1024);
		if (listed(options.runs, name) && now() < began + options.limit - 3)
			measure(ways[way].name, run);
	}
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
		case 'l': options.limit = (uint32_t)atoi(optarg); break;
		case 'C': options.calibration = optarg; break;
		case 'R': options.runs = optarg; break;
		case 'w': options.ways = optarg; break;
		case 'j': options.json = true; break;
		case 'y': options.tiny = true; break;
		default:
			fprintf(stderr, "usage: embedded_check [--json] [--ways fast,quiet,auto] [--runs KIB,...] [--seconds MILLISECONDS]\n"
				"                      [--calibration DIR] [--device cuda:N] [--driver PATH] [--limit SECONDS] [--tiny]\n");
			exit(2);
		}
	}
	if (strncmp(options.device, "cuda:", 5) || options.seconds <= 0) {
		fprintf(stderr, "embedded_check: expected --device cuda:N, --seconds a number\n");
		exit(2);
	}
	if (options.tiny) {
		options.seconds = 0.02;
		options.runs = "8,512";
		plain_bytes = MIB;
	}
}

int main(int argc, char **argv)
{
	struct ty_region unused;
	struct ty_error err = {0};
	double p99;
	uint64_t from;

	parse(argc, argv);
	began = now();
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
	from = ty_busy_steps() + 1;
	usleep(options.tiny ? 20000 : 500000);
	ty_busy_times(from, &step_alone, &p99);
	fprintf(report, "the engine's step alone: %.0f us (p99 %.0f)\n%9s  %-6s  %20s  %20s  %20s\n", step_alone, p99, "run", "way",
		"store  ratio step us", "retr.  ratio step us", "both  ratio step us");
	if (options.json)
		printf("{\n  \"step_alone_us\": %.1f, \"rows\": [", step_alone);
	for (unsigned i = 0; i < sizeof ways / sizeof ways[0]; i++)
		if (listed(options.ways, ways[i].name))
			each_way(i);
	if (options.json)
		printf("\n  ],\n  \"chunks_checked\": %llu, \"chunks_wrong\": %llu, \"wrong_words\": %llu, \"seconds\": %.1f\n}\n", (unsigned long long)checked,
			(unsigned long long)(wrong_words != 0), (unsigned long long)wrong_words, now() - began);
	ty_busy_stop();
	clean_up();
	fprintf(report, "embedded_check: %llu chunks checked, %llu wrong words, %.1f s\n", (unsigned long long)checked,
		(unsigned long long)wrong_words, now() - began);
	return wrong_words || !checked;
}
