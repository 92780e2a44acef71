/* SPDX-License-Identifier: Apache-2.0
 *
 * gpu_load: engines at work on one GPU or several, against Tyer or against the baseline (gpu_threads.c). Every scenario ends with
 * a round of fresh contents out and in again, every word of which is compared.
 *
 *   gpu_load SCENARIO --connect URL [--attach PATH] [--threads] ...
 *
 *   rates    plain copies, store, retrieve, both at once; on each device alone, then on all
 *   load     clients that store and retrieve in turn, PINGs beside them
 *   latency  RETRIEVE of one chunk, from the call to the done word
 *   cross    stored from one device, retrieved into another
 *   pair     two parts of one engine
 *   stall    a kernel of one device's client never ends; what the other devices' clients notice of it
 *   kill     one client is killed at full rate; when its GPU memory is back, and what the others notice of it
 */
#include "gpu_parent.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#define GAP_CHECK_NS 100000000 /* that the loop which does nothing else looks for failures */
#define BACK_NS ((int64_t)10 * 1000000000) /* longest wait for a killed client's memory */
#define BACK_SLACK ((uint64_t)64 << 20)

struct load_options options = {.driver = NULL, .device_count = 1, .clients = 4, .chunks = 16, .planes = 64, .run_bytes = 32768,
	.blocks_per_chunk = 16, .iterations = 3000, .ping_hz = 1000, .seconds = 1};
struct load_shared *shared;

static void run_ping(unsigned index)
{
	(void)index;
	load_ping_run();
}

static void run_watch(unsigned index)
{
	(void)index;
	load_watch_run();
}

/* ---- scenarios ------------------------------------------------------------------------------------------ */

static int rates(void)
{
	static const struct {
		const char *name;
		enum load_mode mode;
	} modes[] = {{"plain store", LOAD_RAW_STORE}, {"plain retrieve", LOAD_RAW_RETRIEVE}, {"plain both", LOAD_RAW_HALVES},
		{"store", LOAD_STORE}, {"retrieve", LOAD_RETRIEVE}, {"both", LOAD_HALVES}};

	start_clients(0, options.clients);
	for (unsigned m = 0; m < sizeof modes / sizeof modes[0]; m++)
		for (uint32_t i = 0; i <= options.device_count; i++) {
			struct window w;
			char name[16] = "all";

			if (i == options.device_count && i == 1)
				break; /* one alone is all */
			if (i < options.device_count)
				snprintf(name, sizeof name, "%u", options.devices[i]);
			w = measure(modes[m].mode, clients_on(i < options.device_count ? options.devices[i] : LOAD_DEVICES));
			printf("%-15s on %-4s %7.2f GB/s out, %7.2f in\n", modes[m].name, name, w.rate[0], w.rate[1]);
			fflush(stdout);
			row("\"mode\": \"%s\", \"devices\": \"%s\", \"out_gbs\": %.3f, \"in_gbs\": %.3f", modes[m].name, name, w.rate[0],
				w.rate[1]);
		}
	return check();
}

static int load(void)
{
	struct window w;
	struct pings p;

	start_clients(0, options.clients);
	start(LOAD_CLIENTS, run_ping);
	wait_open(LOAD_CLIENTS);
	look(0, options.seconds / 4, &w);
	p = pings_of(&w);
	say_pings("idle", &p);
	w = measure(LOAD_TURNS, clients_on(LOAD_DEVICES));
	p = pings_of(&w);
	printf("%u clients: %.2f GB/s out, %.2f in\n", options.clients, w.rate[0], w.rate[1]);
	row("\"mode\": \"turns\", \"clients\": %u, \"out_gbs\": %.3f, \"in_gbs\": %.3f", options.clients, w.rate[0], w.rate[1]);
	say_pings("at full rate", &p);
	return check();
}

/* Of a loop that does nothing but look at the clock: how long somebody else had its processor. */
struct gaps {
	double longest_us, seconds;
	uint64_t looks, over_100_us;
};

static struct gaps spin_until_idle(void)
{
	uint32_t phase = atomic_load_explicit(&shared->phase, memory_order_relaxed);
	int64_t began = load_now(), last = began, checked = began;
	struct gaps g = {0};

	while (atomic_load_explicit(&shared->line[0].idle_phase, memory_order_acquire) != phase) {
		int64_t now = load_now();
		double gap = (double)(now - last) / 1e3;

		g.looks++;
		g.longest_us = gap > g.longest_us ? gap : g.longest_us;
		g.over_100_us += gap > 100;
		if (now - checked > GAP_CHECK_NS) {
			look_for_failures();
			if (now - began > PATIENCE_NS) {
				fprintf(stderr, "gpu_load: client 0 does not end its phase\n");
				stop_all(1);
			}
			checked = load_now();
			now = checked; /* that was ours */
		}
		last = now;
	}
	g.seconds = (double)(load_now() - began) / 1e9;
	return g;
}

static void say_latency(const char *what, const char *name, double *us, uint32_t count)
{
	qsort(us, count, sizeof us[0], by_value);
	printf("%-44s p50 %.1f us, p99 %.1f, p99.9 %.1f, max %.1f\n", what, part_of(us, count, 0.5), part_of(us, count, 0.99),
		part_of(us, count, 0.999), us[count - 1]);
	row("\"what\": \"%s\", \"samples\": %u, \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f", name, count,
		part_of(us, count, 0.5), part_of(us, count, 0.99), part_of(us, count, 0.999), us[count - 1]);
}

/* Plain copies and RETRIEVEs in turn; a processor that does nothing else tells the machine's own stalls from ours. */
static int latency(void)
{
	struct load_line *line = &shared->line[0];
	struct gaps g;

	start_clients(0, options.clients);
	set_phase(LOAD_LATENCY, clients_on(LOAD_DEVICES));
	g = spin_until_idle();
	wait_idle();
	if (!line->samples)
		return 1;
	printf("one chunk, %u samples:\n", line->samples);
	say_latency("plain copy, call to seen done", "plain", line->raw_us, line->samples);
	say_latency("RETRIEVE, call to done word", "retrieve", line->done_us, line->samples);
	printf("a loop of its own over these %.1f s was held up for at most %.0f us, %llu times for over 100 us\n", g.seconds, g.longest_us,
		(unsigned long long)g.over_100_us);
	row("\"what\": \"spin\", \"seconds\": %.6f, \"longest_us\": %.1f, \"over_100_us\": %llu, \"looks\": %llu", g.seconds, g.longest_us,
		(unsigned long long)g.over_100_us, (unsigned long long)g.looks);
	return check();
}

static int two(enum load_mode mode)
{
	uint64_t checked, wrong;

	options.clients = 2;
	start_clients(0, 2);
	once(mode);
	checked = shared->line[0].checked_chunks + shared->line[1].checked_chunks;
	wrong = shared->line[0].wrong_words + shared->line[1].wrong_words;
	printf("%s: %llu chunks compared, %llu wrong words\n", options.scenario, (unsigned long long)checked, (unsigned long long)wrong);
	row("\"checked_chunks\": %llu, \"wrong_words\": %llu", (unsigned long long)checked, (unsigned long long)wrong);
	return wrong || !checked;
}

/* The others of a client that is about to hang or to die: those of other devices, if there are any. */
static uint64_t others_of(unsigned victim)
{
	uint64_t others = clients_on(LOAD_DEVICES) & ~clients_on(device_of(victim));

	return others ? others : clients_on(LOAD_DEVICES) & ~(1ull << victim);
}

static int stall(void)
{
	unsigned victim = options.clients - 1;
	uint64_t others = others_of(victim);
	struct window before, during;
	struct pings p[2];

	start(LOAD_CLIENTS, run_ping);
	wait_open(LOAD_CLIENTS);
	start_clients(0, options.clients);
	set_phase(LOAD_TURNS, others);
	warm(others);
	look(others, options.seconds, &before);
	p[0] = pings_of(&before);
	set_phase(LOAD_STALL, 1ull << victim);
	wait_idle();
	set_phase(LOAD_TURNS, others);
	warm(others);
	look(others, options.seconds, &during);
	p[1] = pings_of(&during);
	set_phase(LOAD_IDLE, 0);
	wait_idle();
	kill(pids[victim], SIGKILL);
	waitpid(pids[victim], NULL, 0);
	pids[victim] = 0;
	options.clients = victim;
	printf("undisturbed %.2f GB/s out, %.2f in; beside a device that hangs %.2f out, %.2f in\n", before.rate[0], before.rate[1],
		during.rate[0], during.rate[1]);
	row("\"mode\": \"undisturbed\", \"out_gbs\": %.3f, \"in_gbs\": %.3f", before.rate[0], before.rate[1]);
	row("\"mode\": \"beside\", \"out_gbs\": %.3f, \"in_gbs\": %.3f", during.rate[0], during.rate[1]);
	say_pings("undisturbed", &p[0]);
	say_pings("beside a hang", &p[1]);
	return check();
}

static int kill_one(void)
{
	unsigned victim = options.clients - 1, watcher = LOAD_CLIENTS + 1;
	uint32_t device = device_of(victim);
	uint64_t others = others_of(victim);
	struct window before, after;
	int64_t began, back = -1;
	uint64_t free_before;
	struct pings p;

	start(watcher, run_watch);
	start(LOAD_CLIENTS, run_ping);
	wait_open(watcher);
	wait_open(LOAD_CLIENTS);
	start_clients(0, victim);
	once(LOAD_CHECK); /* all is mapped and loaded */
	nap_until(load_now() + 100000000);
	free_before = atomic_load_explicit(&shared->free_bytes[device], memory_order_relaxed);
	start_clients(victim, victim + 1);
	set_phase(LOAD_TURNS, clients_on(LOAD_DEVICES));
	warm(clients_on(LOAD_DEVICES));
	look(others, options.seconds, &before);
	kill(pids[victim], SIGKILL);
	began = load_now();
	waitpid(pids[victim], NULL, 0);
	pids[victim] = 0;
	while (load_now() - began < BACK_NS && back < 0) {
		if (atomic_load_explicit(&shared->free_bytes[device], memory_order_relaxed) + BACK_SLACK >= free_before)
			back = load_now() - began;
		usleep(NAP_US);
	}
	look(others, options.seconds, &after);
	p = pings_of(&after);
	set_phase(LOAD_IDLE, 0);
	wait_idle();
	printf("a client of device %u was killed: its GPU memory was back after %.3f s\n", device, (double)back / 1e9);
	row("\"back_seconds\": %.4f", (double)back / 1e9);
	printf("the others: %.2f GB/s out, %.2f in before, %.2f out, %.2f in after\n", before.rate[0], before.rate[1], after.rate[0],
		after.rate[1]);
	row("\"mode\": \"before\", \"out_gbs\": %.3f, \"in_gbs\": %.3f", before.rate[0], before.rate[1]);
	row("\"mode\": \"after\", \"out_gbs\": %.3f, \"in_gbs\": %.3f", after.rate[0], after.rate[1]);
	say_pings("after a death", &p);
	options.clients = victim;
	return check() || back < 0;
}

/* ---- options ----------------------------------------------------------------------------------------------- */

static _Noreturn void usage(int status)
{
	fprintf(status ? stderr : stdout,
		"usage: gpu_load rates|load|latency|cross|pair|stall|kill --connect URL [--attach PATH] [--threads]\n"
		"                [--driver LIB] [--devices 0,1] [--clients N] [--chunks N] [--planes N] [--run BYTES]\n"
		"                [--blocks N] [--cross-layer] [--seconds S] [--iterations N] [--tiny] [--json FILE]\n");
	exit(status);
}

static void parse_devices(char *text)
{
	char *one;

	options.device_count = 0;
	while ((one = strsep(&text, ","))) {
		unsigned long n = strtoul(one, NULL, 10);

		if (n >= LOAD_DEVICES || options.device_count == LOAD_DEVICES)
			usage(2);
		options.devices[options.device_count++] = (uint32_t)n;
	}
}

static void parse(int argc, char **argv)
{
	static const struct option known[] = {
		{"connect", required_argument, NULL, 'c'}, {"attach", required_argument, NULL, 'a'}, {"threads", no_argument, NULL, 't'},
		{"driver", required_argument, NULL, 'D'}, {"devices", required_argument, NULL, 'd'},
		{"clients", required_argument, NULL, 'n'}, {"chunks", required_argument, NULL, 'k'},
		{"planes", required_argument, NULL, 'p'}, {"run", required_argument, NULL, 'r'},
		{"blocks", required_argument, NULL, 'b'}, {"cross-layer", no_argument, NULL, 'x'},
		{"seconds", required_argument, NULL, 's'}, {"iterations", required_argument, NULL, 'i'},
		{"tiny", no_argument, NULL, 'y'}, {"json", required_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0},
	};
	int o;

	options.driver = getenv("TYER_CUDA_DRIVER");
	while ((o = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (o) {
		case 'c': options.connect = optarg; break;
		case 'a': options.attach = optarg; break;
		case 't': options.plain = true; break;
		case 'D': options.driver = optarg; break;
		case 'd': parse_devices(optarg); break;
		case 'n': options.clients = (uint32_t)strtoul(optarg, NULL, 10); break;
		case 'k': options.chunks = (uint32_t)strtoul(optarg, NULL, 10); break;
		case 'p': options.planes = (uint32_t)strtoul(optarg, NULL, 10); break;
		case 'r': options.run_bytes = (uint32_t)strtoul(optarg, NULL, 10); break;
		case 'b': options.blocks_per_chunk = (uint32_t)strtoul(optarg, NULL, 10); break;
		case 'x': options.cross_layer = true; break;
		case 's': options.seconds = strtod(optarg, NULL); break;
		case 'i': options.iterations = (uint32_t)strtoul(optarg, NULL, 10); break;
		case 'y': options.tiny = true; break;
		case 'j': options.json = optarg; break;
		case 'h': usage(0);
		default: usage(2);
		}
	}
	if (optind + 1 != argc)
		usage(2);
	options.scenario = argv[optind];
	if (options.tiny) {
		options.planes = 4;
		options.run_bytes = 1024;
		options.blocks_per_chunk = 2;
		options.chunks = 6;
		options.iterations = 5;
		options.seconds = 0.05;
		options.ping_hz = 100;
	}
	if (!options.connect || (!options.plain && !options.attach) || options.clients < 2 || options.clients > LOAD_CLIENTS ||
		!options.chunks || !options.planes || !options.run_bytes || !options.blocks_per_chunk || !(options.seconds > 0))
		usage(2);
}

static int run(void)
{
	static const struct {
		const char *name;
		int (*run)(void);
		bool plain; /* the baseline can do it too */
	} scenarios[] = {{"rates", rates, true}, {"load", load, true}, {"latency", latency, false}, {"stall", stall, false},
		{"kill", kill_one, false}};

	if (!strcmp(options.scenario, "cross"))
		return two(LOAD_CROSS);
	if (!strcmp(options.scenario, "pair") && !options.plain)
		return two(LOAD_PAIR);
	for (unsigned i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++)
		if (!strcmp(options.scenario, scenarios[i].name) && (scenarios[i].plain || !options.plain))
			return scenarios[i].run();
	usage(2);
}

int main(int argc, char **argv)
{
	int status;

	parse(argc, argv);
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	json = options.json ? fopen(options.json, "we") : NULL;
	if (shared == MAP_FAILED || (options.json && !json)) {
		fprintf(stderr, "gpu_load: %s\n", strerror(errno));
		return 2;
	}
	if (getrandom(&options.seed, sizeof options.seed, 0) != (ssize_t)sizeof options.seed)
		options.seed = (uint64_t)load_now();
	printf("gpu_load %s: %s, %s, chunks of %llu KiB, %u clients\n", options.scenario, options.plain ? "16 threads" : "Tyer", layout(),
		(unsigned long long)options.planes * options.run_bytes * options.blocks_per_chunk / 1024, options.clients);
	fflush(stdout);
	if (json)
		fprintf(json, "{\n  \"scenario\": \"%s\", \"service\": \"%s\", \"layout\": \"%s\", \"run_bytes\": %u, \"clients\": %u,\n"
			      "  \"rows\": [", options.scenario, options.plain ? "threads" : "tyer", layout(),
			options.cross_layer ? options.run_bytes * options.planes : options.run_bytes, options.clients);
	status = run();
	end_all();
	if (json && (fprintf(json, "\n  ]\n}\n") < 0 || fclose(json)))
		status = 1;
	printf("gpu_load: %s\n", status ? "WRONG" : "all right");
	return status;
}
