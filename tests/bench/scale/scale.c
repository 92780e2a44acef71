/* SPDX-License-Identifier: Apache-2.0
 *
 * How the pool scales: scale [--rounds N] [--workers 1,2,4,...] [--quick] [--only PROGRAM]
 *
 *   streams  fork-join throughput: a source sends numbers to 60 sinks of its own, 64 at once, which add them up
 *   big      120 actors ping each other at random, one ping of each under way
 *
 * each with messages that do nothing but that, and with messages that compute for about half a microsecond: what an
 * empty message costs is, from the second worker on, mostly cache lines that move between CPUs. Streams come
 * with one source, whose own pace is the limit where messages are empty, and with sixteen; and with the sine that each
 * message of Savina's program takes.
 *
 * Memory is laid out as such programs' authors would: an actor's neighbours there are those it talks to, and what travels has
 * lines of its own. Else CPUs wait for lines that they have no use for, and fetch each other's before they are asked to.
 *
 * The worker counts take turns in each round, and with each the same work apart: so many processes of one worker each,
 * which have their share of the messages and send each other none. That is what the machine gives (CPUs may be two
 * halves of one, and all have one memory); a runtime that shared nothing could not do more.
 *
 * Every result is checked. Prints the median of the rounds: ns a message, how many times the throughput of one worker
 * that is, the same apart, and what the runtime counted. Depends on nothing but the library.
 *
 * --only "big, empty" takes that program alone and says no more than each round's ns, steals and wakes (a thousand messages) and
 * how long actors ran a message, ns of all workers' time together: for scripts that have two builds take turns.
 */
#include <inttypes.h>
#include <math.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <tyer/actor.h>

#define SINKS 60
#define BLOCK 64
#define BLOCKS 4 /* under way to a sink */
#define TALKERS 120
#define ANGLE 37.2 /* Savina's */
#define MAX_ROUNDS 99
#define MAX_COUNTS 16
#define MAX_WORKERS 64

enum { FILL = 1, ITEM, JOINED, PING, PONG };

static void must(enum ty_code code)
{
	if (code != TY_OK) {
		fprintf(stderr, "scale: %s\n", ty_code_name(code));
		exit(1);
	}
}

/* A run's memory: actors use it until the runtime is gone. */
#define MAX_TABLES 8
static void *tables[MAX_TABLES];
static int table_count;

static void *table_of(uint64_t count, size_t size)
{
	size_t bytes = (count * size + 63) / 64 * 64;
	void *table = table_count < MAX_TABLES ? aligned_alloc(64, bytes) : NULL;

	if (!table)
		must(TY_NO_MEMORY);
	tables[table_count++] = table;
	return memset(table, 0, bytes);
}

static int64_t clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* A chain of dependent steps: a known amount of work that nothing shortens. */
static uint64_t compute(uint64_t x, uint64_t steps)
{
	while (steps--)
		x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return x;
}

/* What a message of Savina's fork-join throughput does: the square of a sine. The angle is no constant to the compiler. */
static double sine_squared(double angle)
{
	double s = sin(angle);

	return s * s;
}

static _Atomic(uint32_t) finished; /* by the actor that sees the end: release; main: acquire */

struct own { /* every actor's state: the program's own memory */
	void *own;
};

static enum ty_code on_start(void *self, void *arg)
{
	((struct own *)self)->own = arg;
	return TY_OK;
}

static void *own(void *self)
{
	return ((struct own *)self)->own;
}

/* The end: so many have said JOINED. */
struct end {
	uint64_t seen, expected;
};

static void on_joined(void *self, struct ty_msg *msg)
{
	struct end *end = own(self);

	(void)msg;
	if (++end->seen == end->expected)
		atomic_store_explicit(&finished, 1, memory_order_release);
}

/* ---- streams ------------------------------------------------------------------------------- */

struct sink;

struct item {
	struct ty_msg msg;
	uint64_t value;
	double angle;
	struct block *last_of; /* null but for a block's last */
};

struct block {
	struct ty_msg msg;
	struct ty_actor *source;
	struct sink *sink;
	struct item items[BLOCK];
} __attribute__((aligned(64)));

struct sink {
	struct ty_actor *self, *end;
	struct ty_msg joined;
	uint64_t next; /* the source's: the next value to send */
	uint64_t each, steps;
	bool sine;
	uint64_t counted __attribute__((aligned(64))); /* the sink's, from here */
	uint64_t sum, digest;
	double squares;
} __attribute__((aligned(64)));

static void on_fill(void *self, struct ty_msg *msg)
{
	struct block *block = ty_container_of(msg, struct block, msg);
	struct sink *sink = block->sink;
	struct ty_bundle bundle = {0};

	(void)self;
	for (int i = 0; i < BLOCK && sink->next < sink->each; i++) {
		block->items[i].value = sink->next++;
		block->items[i].angle = ANGLE;
		ty_bundle_add(&bundle, &block->items[i].msg, ITEM);
	}
	/* Behind the last value there is nobody to send to: who waited for it may have ended it all. */
	if (bundle.newest)
		must(ty_send_bundle(sink->self, &bundle));
}

static void on_item(void *self, struct ty_msg *msg)
{
	struct sink *sink = own(self);
	struct item *item = ty_container_of(msg, struct item, msg);

	sink->sum += item->value;
	sink->digest ^= compute(item->value, sink->steps);
	if (sink->sine)
		sink->squares += sine_squared(item->angle);
	if (++sink->counted == sink->each)
		must(ty_send(sink->end, &sink->joined, JOINED));
	else if (item->last_of)
		must(ty_send(item->last_of->source, &item->last_of->msg, FILL));
}

static const struct ty_handler source_handlers[] = {{"fill", on_fill}};
static const struct ty_handler sink_handlers[] = {{"item", on_item}};
static const struct ty_handler end_handlers[] = {{"joined", on_joined}};
#define CLASS(label, first, table) {.name = (label), .state_size = sizeof(struct own), .first_type = (first), \
	.type_count = 1, .handlers = (table), .start = on_start}
static const struct ty_class source_class = CLASS("source", FILL, source_handlers);
static const struct ty_class sink_class = CLASS("sink", ITEM, sink_handlers);
static const struct ty_class end_class = CLASS("end", JOINED, end_handlers);

static struct ty_actor *spawn(struct ty_runtime *rt, const struct ty_class *cls, void *arg)
{
	struct ty_actor *actor;

	must(ty_spawn(rt, cls, arg, NULL, &actor));
	return actor;
}

static uint64_t ran_ns; /* by the actors of a run */

static void let_go(struct ty_actor *actor)
{
	struct ty_actor_stats stats;

	ty_actor_stats(actor, &stats);
	ran_ns += stats.running_ns;
	ty_actor_unref(actor);
}

static void wait_finished(void)
{
	while (!atomic_load_explicit(&finished, memory_order_acquire))
		nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
	atomic_store_explicit(&finished, 0, memory_order_relaxed);
}

struct program {
	const char *name;
	uint64_t sources; /* streams; 0: big */
	uint64_t steps;   /* of compute, a message */
	uint64_t messages;
	bool sine;        /* a message of streams */
};

static int64_t run_streams(struct ty_runtime *rt, const struct program *program, uint64_t *messages)
{
	uint64_t sinks = program->sources * SINKS, each = program->messages / sinks, digest = 0;
	struct end end = {.expected = sinks};
	struct ty_actor *ending = spawn(rt, &end_class, &end), **sources = table_of(program->sources, sizeof *sources);
	struct sink *all = table_of(sinks, sizeof *all);
	struct block *blocks = table_of(sinks * BLOCKS, sizeof *blocks);
	volatile double angle = ANGLE; /* by the library, as in the sinks */
	double squares = 0;
	int64_t began;

	/* what is one source's lies together: an actor's neighbours in memory are those it talks to */
	for (uint64_t i = 0; i < sinks; i++) {
		if (i % SINKS == 0)
			sources[i / SINKS] = spawn(rt, &source_class, NULL);
		all[i].end = ending;
		all[i].each = each;
		all[i].steps = program->steps;
		all[i].sine = program->sine;
		all[i].self = spawn(rt, &sink_class, &all[i]);
	}
	began = clock_ns();
	for (uint64_t i = 0; i < sinks * BLOCKS; i++) {
		uint64_t turn = i / program->sources; /* all sources in turn, and all sinks of each */
		uint64_t sink = i % program->sources * SINKS + turn % SINKS;
		struct block *block = &blocks[sink * BLOCKS + turn / SINKS];

		block->source = sources[sink / SINKS];
		block->sink = &all[sink];
		block->items[BLOCK - 1].last_of = block;
		must(ty_send(block->source, &block->msg, FILL));
	}
	wait_finished();
	began = clock_ns() - began;
	for (uint64_t value = 0; value < each; value++)
		digest ^= compute(value, program->steps);
	for (uint64_t i = 0; program->sine && i < each; i++)
		squares += sine_squared(angle);
	for (uint64_t i = 0; i < sinks; i++) {
		if (all[i].sum != each * (each - 1) / 2 || all[i].digest != digest || all[i].squares != squares) {
			fprintf(stderr, "scale: a sink's sum is wrong\n");
			exit(1);
		}
		let_go(all[i].self);
	}
	for (uint64_t i = 0; i < program->sources; i++)
		let_go(sources[i]);
	let_go(ending);
	*messages = sinks * each;
	return began;
}

/* ---- big ----------------------------------------------------------------------------------- */

struct ping { /* whoever has it; its lines are nobody else's */
	struct ty_msg msg;
	struct ty_actor *from;
	uint64_t value;
} __attribute__((aligned(64)));

struct tally { /* of a talker: written when it stops */
	uint64_t received, digest;
};

struct talker {
	struct ty_actor **all, *end;
	struct tally *tally;
	uint64_t left, steps;
	uint32_t random;
	struct tally now;
};

static enum ty_code talker_start(void *self, void *arg)
{
	*(struct talker *)self = *(const struct talker *)arg;
	return TY_OK;
}

static void talker_stop(void *self)
{
	struct talker *talker = self;

	*talker->tally = talker->now;
}

static void on_ping(void *self, struct ty_msg *msg)
{
	struct talker *talker = self;
	struct ping *ping = ty_container_of(msg, struct ping, msg);

	talker->now.received++;
	ping->value = compute(ping->value, talker->steps);
	must(ty_send(ping->from, msg, PONG));
}

static void on_pong(void *self, struct ty_msg *msg)
{
	struct talker *talker = self;
	struct ping *ping = ty_container_of(msg, struct ping, msg);

	talker->now.digest = compute(ping->value, talker->steps);
	if (!talker->left) {
		must(ty_send(talker->end, msg, JOINED));
		return;
	}
	talker->left--;
	ping->value = talker->now.digest;
	talker->random = talker->random * 1664525u + 1013904223u;
	must(ty_send(talker->all[(talker->random >> 8) % TALKERS], msg, PING));
}

static int64_t run_big(struct ty_runtime *rt, const struct program *program, uint64_t *messages)
{
	static const struct ty_handler handlers[] = {{"ping", on_ping}, {"pong", on_pong}};
	static const struct ty_class cls = {.name = "talker", .state_size = sizeof(struct talker), .first_type = PING,
		.type_count = 2, .handlers = handlers, .start = talker_start, .stop = talker_stop};
	uint64_t each = program->messages / TALKERS / 2, received = 0;
	struct end end = {.expected = TALKERS};
	struct ty_actor *ending = spawn(rt, &end_class, &end), **all = table_of(TALKERS, sizeof *all);
	struct talker *first = table_of(TALKERS, sizeof *first);
	struct tally *tallies = table_of(TALKERS, sizeof *tallies);
	struct ping *pings = table_of(TALKERS, sizeof *pings);
	int64_t began;

	for (uint32_t i = 0; i < TALKERS; i++) {
		first[i] = (struct talker){.all = all, .end = ending, .tally = &tallies[i], .left = each, .steps = program->steps,
			.random = i};
		all[i] = spawn(rt, &cls, &first[i]);
		pings[i] = (struct ping){.from = all[i], .value = i};
	}
	began = clock_ns();
	for (uint32_t i = 0; i < TALKERS; i++)
		must(ty_send(all[i], &pings[i].msg, PONG));
	wait_finished();
	began = clock_ns() - began;
	for (uint32_t i = 0; i < TALKERS; i++)
		let_go(all[i]);
	let_go(ending);
	must(ty_runtime_stop(rt, TY_NEVER, TY_NEVER, NULL));
	for (uint32_t i = 0; i < TALKERS; i++) {
		received += tallies[i].received;
		if (tallies[i].digest != compute(i, program->steps * (2 * each + 1))) {
			fprintf(stderr, "scale: a talker's digest is wrong\n");
			exit(1);
		}
	}
	if (received != each * TALKERS) {
		fprintf(stderr, "scale: %" PRIu64 " pings, expected %" PRIu64 "\n", received, each * TALKERS);
		exit(1);
	}
	*messages = TALKERS * (2 * each + 1);
	return began;
}

/* ---- all of them --------------------------------------------------------------------------- */

struct result {
	double ns; /* a message */
	struct ty_runtime_stats stats;
	uint64_t messages, ran_ns;
};

static struct result run_once(const struct program *program, uint32_t workers)
{
	struct ty_runtime_options options = {.size = sizeof options, .workers = workers};
	struct result result = {0};
	struct ty_runtime *rt;
	int64_t took;

	ran_ns = 0;
	must(ty_runtime_create(&options, &rt, NULL));
	took = program->sources ? run_streams(rt, program, &result.messages) : run_big(rt, program, &result.messages);
	ty_runtime_stats(rt, &result.stats);
	ty_runtime_destroy(rt);
	while (table_count)
		free(tables[--table_count]);
	result.ns = (double)took / (double)result.messages;
	result.ran_ns = ran_ns;
	return result;
}

/* ---- apart --------------------------------------------------------------------------------- */

struct apart { /* shared by the processes; each writes its own rate before it ends, and the parent reads it after */
	_Atomic(uint32_t) ready;
	double rates[MAX_WORKERS]; /* messages a ns */
};

static void run_share(const struct program *program, uint32_t processes, struct apart *apart, uint32_t index)
{
	struct program share = *program;

	share.messages /= processes;
	if (share.sources)
		share.sources = share.sources > processes ? share.sources / processes : 1;
	atomic_fetch_add_explicit(&apart->ready, 1, memory_order_relaxed);
	while (atomic_load_explicit(&apart->ready, memory_order_relaxed) < processes)
		sched_yield();
	apart->rates[index] = 1 / run_once(&share, 1).ns;
	_exit(0);
}

/* ns a message of all together. The caller has no other thread. */
static double run_apart(const struct program *program, uint32_t processes)
{
	struct apart *apart = mmap(NULL, sizeof *apart, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	double rate = 0;
	int status;

	if (apart == MAP_FAILED)
		must(TY_NO_MEMORY);
	for (uint32_t i = 0; i < processes; i++) {
		pid_t child = fork();

		if (child < 0)
			must(TY_NO_MEMORY); /* those that wait for it end with the terminal's job */
		if (child == 0)
			run_share(program, processes, apart, i);
	}
	for (uint32_t i = 0; i < processes; i++) {
		if (wait(&status) < 0 || status != 0) {
			fprintf(stderr, "scale: a process apart failed\n");
			exit(1);
		}
	}
	for (uint32_t i = 0; i < processes; i++)
		rate += apart->rates[i];
	munmap(apart, sizeof *apart);
	return 1 / rate;
}

static int by_ns(const void *a, const void *b)
{
	double x = ((const struct result *)a)->ns, y = ((const struct result *)b)->ns;

	return (x > y) - (x < y);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double per_thousand(uint64_t count, uint64_t messages)
{
	return 1000 * (double)count / (double)messages;
}

static void run_program(const struct program *program, const uint32_t *workers, int counts, int rounds)
{
	static struct result results[MAX_COUNTS][MAX_ROUNDS];
	static double apart[MAX_COUNTS][MAX_ROUNDS];
	double first = 0, first_apart = 0;

	for (int round = 0; round < rounds; round++)
		for (int i = 0; i < counts; i++) {
			results[i][round] = run_once(program, workers[i]);
			apart[i][round] = run_apart(program, workers[i]);
		}
	for (int i = 0; i < counts; i++) {
		const struct result *r = &results[i][rounds / 2];
		double alone;

		qsort(results[i], (size_t)rounds, sizeof results[i][0], by_ns);
		qsort(apart[i], (size_t)rounds, sizeof apart[i][0], by_value);
		alone = apart[i][rounds / 2];
		if (i == 0) {
			first = r->ns;
			first_apart = alone;
		}
		printf("%-30s %3u %8.1f %8.1f %6.2f %8.1f %6.2f %8.1f %8.2f %8.2f\n", i ? "" : program->name, workers[i], r->ns,
			results[i][0].ns, first / r->ns, alone, first_apart / alone, per_thousand(r->stats.runs, r->messages),
			per_thousand(r->stats.steals, r->messages), per_thousand(r->stats.wakes, r->messages));
		fflush(stdout);
	}
}

/* One line a number of workers and round. */
static void run_bare(const struct program *program, const uint32_t *workers, int counts, int rounds)
{
	for (int round = 0; round < rounds; round++)
		for (int i = 0; i < counts; i++) {
			struct result r = run_once(program, workers[i]);

			printf("%u %.2f %.2f %.2f %.1f\n", workers[i], r.ns, per_thousand(r.stats.steals, r.messages),
				per_thousand(r.stats.wakes, r.messages), (double)r.ran_ns / (double)r.messages);
		}
}

/* "1,2,4": returns how many; 0: malformed. */
static int read_counts(char *text, uint32_t *out)
{
	int count = 0;

	for (char *word = strtok(text, ","); word; word = strtok(NULL, ",")) {
		unsigned long n = strtoul(word, NULL, 10);

		if (n < 1 || n > MAX_WORKERS || count == MAX_COUNTS)
			return 0;
		out[count++] = (uint32_t)n;
	}
	return count;
}

int main(int argc, char **argv)
{
	static const struct program programs[] = {
		{.name = "streams, 1 source, empty", .sources = 1, .messages = 8000000},
		{.name = "streams, 1 source, computing", .sources = 1, .steps = 400, .messages = 2000000},
		{.name = "streams, 16 sources, empty", .sources = 16, .messages = 16000000},
		{.name = "streams, 16 sources, a sine", .sources = 16, .sine = true, .messages = 16000000},
		{.name = "streams, 16 sources, computing", .sources = 16, .steps = 400, .messages = 2000000},
		{.name = "big, empty", .messages = 4000000},
		{.name = "big, computing", .steps = 400, .messages = 2000000},
	};
	uint32_t workers[MAX_COUNTS] = {1, 2, 4, 8, 16};
	int counts = 5, rounds = 5;
	uint64_t divisor = 1;
	const char *only = NULL;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--quick") == 0)
			divisor = 100;
		else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc)
			rounds = atoi(argv[++i]);
		else if (strcmp(argv[i], "--workers") == 0 && i + 1 < argc)
			counts = read_counts(argv[++i], workers);
		else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc)
			only = argv[++i];
		else
			counts = 0;
	}
	if (!counts || rounds < 1 || rounds > MAX_ROUNDS) {
		fprintf(stderr, "usage: scale [--rounds N] [--workers 1,2,4,...] [--quick] [--only PROGRAM]\n");
		return 2;
	}
	for (size_t i = 0; only && i < sizeof programs / sizeof programs[0]; i++) {
		struct program program = programs[i];

		program.messages /= divisor;
		if (strcmp(only, program.name) == 0) {
			run_bare(&program, workers, counts, rounds);
			return 0;
		}
	}
	if (only) {
		fprintf(stderr, "scale: no program %s\n", only);
		return 2;
	}
	printf("%ld CPUs, %d rounds, median\n%-30s %3s %8s %8s %6s %8s %6s %8s %8s %8s\n", cpus, rounds, "program", "wrk",
		"ns", "best", "times", "apart", "times", "runs", "steals", "wakes");
	for (size_t i = 0; i < sizeof programs / sizeof programs[0]; i++) {
		struct program program = programs[i];

		program.messages /= divisor;
		run_program(&program, workers, counts, rounds);
	}
	printf("ns: wall time a message; times: the throughput of the first count; apart: in processes of one worker; runs, steals, wakes: a thousand messages\n");
	return 0;
}
