/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"

enum kind { TEXT, COUNT, SIZE, TIME, REAL, FLAG, GEOMETRY, SPEED, DEAL, HINTS, TOLERATE };

#define R (1u << BENCH_REPLAY)
#define T (1u << BENCH_TRACE)
#define C (1u << BENCH_COPY)
#define P (1u << BENCH_PING)
#define Y (1u << BENCH_POLICY)
#define FIELD(name) offsetof(struct bench_options, name), sizeof(((struct bench_options *)0)->name)

struct option {
	const char *name, *argument;
	unsigned commands;
	enum kind kind;
	size_t offset, size;
	uint64_t min, max; /* COUNT, SIZE, TIME (us), REAL */
	const char *initial; /* null: none, or computed */
	const char *help;
};

#define SECOND 1000000ull
#define GIB (1ull << 30)

static const struct option table[] = {
	{"connect", "URL", R | C | P, TEXT, FIELD(connect), 0, 0, NULL,
		"address of the service (default: where tyerd listens, /run/tyer/tyer.sock for root)"},
	{"attach", "PATH", R | C, TEXT, FIELD(attach), 0, 0, NULL, "its attach socket (default: attach.sock beside --connect)"},
	{"tls-ca", "FILE", R | C | P, TEXT, FIELD(tls_ca), 0, 0, NULL, "PEM file: who may have signed the certificate of a tls+tcp:// service"},
	{"tls-cert", "FILE", R | C | P, TEXT, FIELD(tls_cert), 0, 0, NULL, "PEM file with a certificate and its key to show there"},
	{"tls-name", "NAME", R | C | P, TEXT, FIELD(tls_name), 0, 0, NULL,
		"whom the service's certificate must name (default: the address of --connect)"},
	{"device", "NAME", R | C, TEXT, FIELD(device), 0, 0, "host", "where the KV pool lies: host or cuda:N"},
	{"cuda-driver", "LIB", R | C, TEXT, FIELD(driver), 0, 0, "libcuda.so.1", "the CUDA driver to open for cuda:N"},
	{"geometry", "NAME|SPEC", R | C, GEOMETRY, FIELD(geometry), 0, 0, "tiny",
		"the pool's shape: tiny (64 KiB for 512 tokens), llama-3.1-8b (32 MiB for 256), or changes to either: "
		"llama-3.1-8b,layout=cross-layer or layers=4,planes=2,heads=1,dim=8,block=128,dtype=bf16,layout=split. "
		"Layouts: split, interleaved, cross-layer"},
	{"pool-bytes", "BYTES", R | C, SIZE, FIELD(pool_bytes), 1, 1ull << 50, NULL,
		"largest KV pool of a client (default: replay 512MiB, copy as much as --chunks need)"},
	{"seed", "N", R | T, COUNT, FIELD(seed), 0, UINT64_MAX, "1",
		"names the chunks and their contents; replays of one seed share chunks, others do not"},
	{"seed", "N", C, COUNT, FIELD(seed), 0, UINT64_MAX, "0", "names the chunks and their contents; 0 = drawn at random"},
	{"tenant", "NAME", R | C, TEXT, FIELD(tenant), 0, 0, "", "tenant of the namespace"},
	{"model", "NAME", R | C, TEXT, FIELD(model), 0, 0, "tyer-bench", "model of the namespace"},
	{"timeout", "TIME", R | C | P, TIME, FIELD(timeout_us), 1000, 600 * SECOND, "30s",
		"deadline of each request"},
	{"grace", "TIME", R | C | P, TIME, FIELD(grace_us), 1000, 600 * SECOND, "10s",
		"a request without a reply so long after its deadline is lost, and ends the run"},
	{"json", "FILE", R | C | P, TEXT, FIELD(json), 0, 0, "", "write the report as JSON too; - is standard output"},
	{"no-progress", NULL, R, FLAG, FIELD(no_progress), 0, 0, NULL, "no progress line, even on a terminal"},

	{"speed", "FACTOR", R, SPEED, FIELD(speed), 0, 0, "max",
		"send by the trace's timestamps, this many times as fast (1, 10, 0.5), or 'max': each request as soon as "
		"there is room for it"},
	{"concurrency", "N", R, COUNT, FIELD(concurrency), 1, 64, "8", "requests of the trace in progress in each client"},
	{"clients", "N", R, COUNT, FIELD(clients), 1, 256, "1", "client processes, each an engine of its own"},
	{"deal", "HOW", R, DEAL, FIELD(deal), 0, 0, "round-robin",
		"which client takes which request: round-robin (request i goes to client i mod N) or next (the next one in "
		"order goes to whichever client has room)"},
	{"hints", "WHICH", R, HINTS, FIELD(hints), 0, 0, "none",
		"what END_SESSION says, who knows the trace: none; alive: that another turn of the conversation follows, where one "
		"does; both: and that none does"},
	{"limit", "N", R | Y, COUNT, FIELD(limit), 0, UINT32_MAX, "0", "only the first N requests; 0 = all"},
	{"block-tokens", "N", R | T | Y, COUNT, FIELD(block_tokens), 1, 65536, "512", "tokens that one id of the trace stands for"},
	{"ping-every", "TIME", R, TIME, FIELD(ping_every_us), 0, 60 * SECOND, "10ms",
		"PING this often from a process of its own beside the load; 0 = never"},
	{"store-early", NULL, R, FLAG, FIELD(store_early), 0, 0, NULL,
		"send STORE first and fill its blocks afterwards: the service must wait for the ready mark. STORE's latency then "
		"includes the filling"},
	{"numbers", NULL, R, FLAG, FIELD(numbers), 0, 0, NULL,
		"contents are bf16 numbers between -2 and 2 instead of noise, so that a tier that compresses has something to do. A wrong "
		"word does not say then where it belongs"},
	{"require-ceiling", NULL, R, FLAG, FIELD(require_ceiling), 0, 0, NULL,
		"fail unless the hits are exactly the trace's own (for --concurrency 1, one client, a fresh seed and an arena that "
		"holds all)"},
	{"tolerate", "CODES", R, TOLERATE, FIELD(tolerate), 0, 0, "",
		"comma-separated codes (TIMEOUT,DEVICE_FAILED) that are counted as misses and do not fail the run"},
	{"give-up", "TIME", R, TIME, FIELD(give_up_us), 1000, 600 * SECOND, "60s",
		"a request that has been answered BUSY for so long is given up, as an error"},

	{"chunks", "N", C, COUNT, FIELD(chunks), 1, 1u << 24, "64", "chunks stored and retrieved in each repeat"},
	{"op-chunks", "N", C, COUNT, FIELD(op_chunks), 1, 1u << 20, "4", "chunks of one STORE or RETRIEVE"},
	{"depth", "N", C, COUNT, FIELD(depth), 1, 64, "4", "operations in flight"},
	{"repeats", "N", C, COUNT, FIELD(repeats), 1, 100000, "5", "repeats that count, each with contents of its own"},
	{"warmup", "N", C, COUNT, FIELD(warmup), 0, 100000, "1", "repeats before them that are checked but not counted"},
	{"raw-bytes", "BYTES", C, SIZE, FIELD(raw_bytes), 1, 1ull << 40, "1GiB",
		"largest raw contiguous copy to compare with (else as many bytes as the repeat moves)"},
	{"no-raw", NULL, C, FLAG, FIELD(raw_off), 0, 0, NULL, "no raw copies"},
	{"hbm", NULL, C, FLAG, FIELD(hbm), 0, 0, NULL,
		"report the GPU memory taken between before REGISTER and after the last repeat, by anyone on the GPU"},

	{"rate", "N", P, REAL, FIELD(rate), 1, 1000000, "100", "PINGs a second"},
	{"duration", "TIME", P, TIME, FIELD(duration_us), 1000, 86400 * SECOND, "10s", "for so long"},

	{"sizes", "N,...", Y, TEXT, FIELD(sizes), 0, 0, "3000,5859,10000,20000,50000",
		"how many blocks the cache holds, one row each, at most 16"},
	{"partial-tails", NULL, Y, FLAG, FIELD(partial_tails), 0, 0, NULL,
		"store a prompt's last block too when it is not full"},

	{"output", "FILE", T, TEXT, FIELD(output), 0, 0, "-", "where to write; - is standard output"},
	{"requests", "N", T, COUNT, FIELD(requests), 1, BENCH_TRACE_REQUESTS_MAX, "1000", "requests to write"},
	{"rate", "N", T, REAL, FIELD(synth.rate), 0, 1000000, "4", "requests a second, on average"},
	{"prompts", "N", T, COUNT, FIELD(prompts), 1, 1u << 20, "20",
		"system prompts that chats share; the first ones are the most popular"},
	{"prompt-tokens", "N", T, COUNT, FIELD(prompt_tokens), 1, 1000000, "2000", "mean length of a system prompt, tokens"},
	{"turns", "N", T, REAL, FIELD(synth.turns), 1, 1000000, "4", "mean turns of a chat"},
	{"input-tokens", "N", T, COUNT, FIELD(input_tokens), 1, 1000000, "1000", "mean tokens that a user adds in a turn"},
	{"output-tokens", "N", T, COUNT, FIELD(output_tokens), 1, 1000000, "300", "mean tokens of an answer"},
	{"think", "SECONDS", T, REAL, FIELD(synth.think_s), 0, 1000000, "20", "mean seconds between a turn and the next"},
	{"max-tokens", "N", T, COUNT, FIELD(max_tokens), 1024, 1u << 24, "131072", "a chat that would grow longer ends"},
};
#define OPTIONS (sizeof table / sizeof table[0])

static const struct {
	const char *name, *arguments, *help;
} commands[BENCH_COMMANDS] = {
	{"replay", "TRACE", "replay a trace of prompts: look up, retrieve and check, compute, store; - reads standard input"},
	{"trace", "", "write a synthetic trace"},
	{"copy", "", "measure how fast chunks go in and out"},
	{"ping", "", "measure how fast the service answers PING"},
	{"policy", "TRACE", "hit rates of the eviction policies over a trace, by the service's own code; - reads standard input"},
};

const char *bench_command_name(enum bench_command command)
{
	return commands[command].name;
}

static void *field_of(struct bench_options *o, const struct option *option)
{
	return (char *)o + option->offset;
}

static enum ty_code parse_real(const struct option *option, const char *value, double *out, struct ty_error *err)
{
	char *end;

	errno = 0;
	*out = strtod(value, &end);
	/* min itself is allowed only when it is not 0: no rate and no length of 0 */
	if (end == value || *end || errno || !(*out >= (double)option->min && *out <= (double)option->max) || !(*out > 0))
		return ty_fail(err, TY_INVALID, "--%s: found \"%.40s\", expected a number above 0, from %llu to %llu", option->name,
			value, (unsigned long long)option->min, (unsigned long long)option->max);
	return TY_OK;
}

static enum ty_code parse_speed(const char *value, double *out, struct ty_error *err)
{
	char *end;

	*out = 0;
	if (strcmp(value, "max") == 0)
		return TY_OK;
	errno = 0;
	*out = strtod(value, &end);
	if (end == value || *end || errno || !(*out >= 1e-6 && *out <= 1e6))
		return ty_fail(err, TY_INVALID, "--speed: found \"%.40s\", expected 'max' or a factor from 1e-6 to 1e6", value);
	return TY_OK;
}

static enum ty_code parse_hints(const char *value, enum bench_hints *out, struct ty_error *err)
{
	static const char *const names[BENCH_HINTS] = {"none", "alive", "both"};

	for (*out = BENCH_HINTS_NONE; *out < BENCH_HINTS; (*out)++)
		if (strcmp(value, names[*out]) == 0)
			return TY_OK;
	return ty_fail(err, TY_INVALID, "--hints: found \"%.40s\", expected none, alive or both", value);
}

static enum ty_code parse_tolerate(const char *value, uint32_t *out, struct ty_error *err)
{
	char copy[256], *rest = copy, *part;

	*out = 0;
	if (strlen(value) >= sizeof copy)
		return ty_fail(err, TY_INVALID, "--tolerate: %zu characters, expected fewer than %zu", strlen(value), sizeof copy);
	strcpy(copy, value);
	while ((part = strsep(&rest, ","))) {
		unsigned code = 1;

		if (!*part)
			continue;
		while (code < TY_CODE_COUNT && strcmp(part, ty_code_name((enum ty_code)code)) != 0)
			code++;
		if (code == TY_CODE_COUNT)
			return ty_fail(err, TY_INVALID, "--tolerate: found \"%.40s\", expected codes like TIMEOUT,DEVICE_FAILED", part);
		*out |= 1u << code;
	}
	return TY_OK;
}

/* A number, bytes or a time: parsed by what every tool uses, then held against the option's bounds. */
static enum ty_code parse_whole(const struct option *option, const char *value, uint64_t *out, struct ty_error *err)
{
	struct ty_error why = {0};
	enum ty_code code;

	if (option->kind == SIZE)
		code = ty_parse_bytes(value, out, &why);
	else if (option->kind == TIME)
		code = ty_parse_time_us(value, out, &why);
	else
		code = ty_parse_count(value, option->max, out, &why);
	if (code != TY_OK)
		return ty_fail(err, TY_INVALID, "--%s: %s", option->name, why.text);
	if (*out < option->min || *out > option->max)
		return ty_fail(err, TY_INVALID, "--%s: found %.40s, expected %llu to %llu%s", option->name, value,
			(unsigned long long)option->min, (unsigned long long)option->max,
			option->kind == TIME ? " us" : option->kind == SIZE ? " bytes" : "");
	return TY_OK;
}

static enum ty_code set_option(struct bench_options *o, const struct option *option, const char *value,
	struct ty_error *err)
{
	void *field = field_of(o, option);
	struct ty_error why = {0};

	switch (option->kind) {
	case TEXT:
		if (strlen(value) >= option->size)
			return ty_fail(err, TY_INVALID, "--%s: %zu characters, expected fewer than %zu", option->name, strlen(value),
				option->size);
		strcpy(field, value);
		return TY_OK;
	case COUNT:
	case SIZE:
	case TIME:
		return parse_whole(option, value, field, err);
	case REAL:
		return parse_real(option, value, field, err);
	case FLAG:
		*(bool *)field = true;
		return TY_OK;
	case GEOMETRY:
		if (bench_geometry_parse(value, field, &why) != TY_OK)
			return ty_fail(err, TY_INVALID, "--%s", why.text);
		return TY_OK;
	case SPEED:
		return parse_speed(value, field, err);
	case DEAL:
		*(enum bench_deal *)field = strcmp(value, "next") == 0 ? BENCH_DEAL_NEXT : BENCH_DEAL_ROUND_ROBIN;
		if (strcmp(value, "next") != 0 && strcmp(value, "round-robin") != 0)
			return ty_fail(err, TY_INVALID, "--deal: found \"%.40s\", expected round-robin or next", value);
		return TY_OK;
	case HINTS:
		return parse_hints(value, field, err);
	case TOLERATE:
		return parse_tolerate(value, field, err);
	}
	return ty_fail(err, TY_INTERNAL, "--%s: no such kind of option", option->name);
}

static const struct option *find_option(unsigned command, const char *name, size_t length)
{
	for (size_t i = 0; i < OPTIONS; i++)
		if ((table[i].commands & 1u << command) && strlen(table[i].name) == length &&
			memcmp(table[i].name, name, length) == 0)
			return &table[i];
	return NULL;
}

/* --name VALUE, --name=VALUE, or a flag; *at is left on the last argument used. */
static enum ty_code parse_option(struct bench_options *o, int argc, char **argv, int *at, struct ty_error *err)
{
	const char *text = argv[*at] + 2, *equals = strchr(text, '=');
	size_t length = equals ? (size_t)(equals - text) : strlen(text);
	const struct option *option = find_option(o->command, text, length);

	if (!option)
		return ty_fail(err, TY_INVALID, "unknown option --%.*s: see tyer-bench %s --help", (int)(length < 60 ? length : 60),
			text, bench_command_name(o->command));
	if (option->kind == FLAG) {
		if (equals)
			return ty_fail(err, TY_INVALID, "--%s: takes no value", option->name);
		return set_option(o, option, NULL, err);
	}
	if (equals)
		return set_option(o, option, equals + 1, err);
	if (*at + 1 >= argc)
		return ty_fail(err, TY_INVALID, "--%s: expected %s after it", option->name, option->argument);
	return set_option(o, option, argv[++*at], err);
}

static enum ty_code set_defaults(struct bench_options *o, struct ty_error *err)
{
	enum ty_code code = TY_OK;

	for (size_t i = 0; i < OPTIONS && code == TY_OK; i++)
		if (table[i].initial && (table[i].commands & 1u << o->command))
			code = set_option(o, &table[i], table[i].initial, err);
	return code;
}

static bool takes_trace(const struct bench_options *o)
{
	return o->command == BENCH_REPLAY || o->command == BENCH_POLICY;
}

static enum ty_code finish(struct bench_options *o, struct ty_error *err)
{
	enum ty_code code = TY_OK;

	if (o->command == BENCH_TRACE) {
		o->synth.seed = o->seed;
		o->synth.requests = (uint32_t)o->requests;
		o->synth.prompts = (uint32_t)o->prompts;
		o->synth.prompt_tokens = (uint32_t)o->prompt_tokens;
		o->synth.input_tokens = (uint32_t)o->input_tokens;
		o->synth.output_tokens = (uint32_t)o->output_tokens;
		o->synth.max_tokens = (uint32_t)o->max_tokens;
		o->synth.block_tokens = (uint32_t)o->block_tokens;
		return TY_OK;
	}
	if (takes_trace(o) && !o->trace[0])
		return ty_fail(err, TY_INVALID, "%s: expected a trace's file name, or - for standard input",
			bench_command_name(o->command));
	if (!o->connect[0])
		code = ty_default_listen(o->connect, sizeof o->connect, err);
	if (code == TY_OK && !o->attach[0])
		code = ty_default_attach(o->connect, o->attach, sizeof o->attach, err);
	return code;
}

enum ty_code bench_options_parse(struct bench_options *o, int argc, char **argv, struct ty_error *err)
{
	enum ty_code code;
	unsigned command = 0;

	memset(o, 0, sizeof *o);
	while (argc > 1 && command < BENCH_COMMANDS && strcmp(argv[1], commands[command].name) != 0)
		command++;
	if (argc < 2 || command == BENCH_COMMANDS)
		return ty_fail(err, TY_INVALID, "found %s%.40s%s, expected a command: replay, trace, copy, ping or policy",
			argc < 2 ? "nothing" : "\"", argc < 2 ? "" : argv[1], argc < 2 ? "" : "\"");
	o->command = (enum bench_command)command;
	code = set_defaults(o, err);
	for (int i = 2; i < argc && code == TY_OK; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			o->help = true;
			return TY_OK;
		}
		if (argv[i][0] == '-' && argv[i][1] == '-' && argv[i][2]) {
			code = parse_option(o, argc, argv, &i, err);
		} else if (takes_trace(o) && !o->trace[0] && strlen(argv[i]) < sizeof o->trace) {
			strcpy(o->trace, argv[i]);
		} else {
			code = ty_fail(err, TY_INVALID, "unexpected argument \"%.60s\": see tyer-bench %s --help", argv[i],
				bench_command_name(o->command));
		}
	}
	return code == TY_OK ? finish(o, err) : code;
}

/* Wrapped at words, indented under the option. */
static void print_wrapped(FILE *out, const char *text)
{
	unsigned column = 0;

	while (*text) {
		size_t word = strcspn(text, " ");

		if (column && column + 1 + word > 88) {
			fputc('\n', out);
			column = 0;
		}
		column += (unsigned)fprintf(out, "%s%.*s", column ? " " : "        ", (int)word, text) - (column ? 0 : 8);
		text += word + strspn(text + word, " ");
	}
	fputc('\n', out);
}

void bench_options_help(FILE *out, const struct bench_options *o)
{
	char text[640];

	fprintf(out, "usage: tyer-bench %s [options] %s\n\n", commands[o->command].name, commands[o->command].arguments);
	print_wrapped(out, commands[o->command].help);
	fputs("\nSizes take KiB, MiB, GiB, TiB; times take us, ms, s.\n\n", out);
	for (size_t i = 0; i < OPTIONS; i++) {
		if (!(table[i].commands & 1u << o->command))
			continue;
		fprintf(out, "  --%s%s%s\n", table[i].name, table[i].argument ? " " : "", table[i].argument ? table[i].argument : "");
		if (table[i].initial && table[i].initial[0])
			snprintf(text, sizeof text, "%s (default: %s)", table[i].help, table[i].initial);
		else
			snprintf(text, sizeof text, "%s", table[i].help);
		print_wrapped(out, text);
	}
}

void bench_usage(FILE *out)
{
	fputs("usage: tyer-bench COMMAND [options]\n\n", out);
	for (unsigned i = 0; i < BENCH_COMMANDS; i++)
		fprintf(out, "  %-7s %-6s %s\n", commands[i].name, commands[i].arguments, commands[i].help);
	fputs("\ntyer-bench COMMAND --help explains each command's options.\n"
	      "Exit: 0 all well, 1 something was wrong (bytes, replies, errors), 2 usage or no service to talk to.\n",
		out);
}
