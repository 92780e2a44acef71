/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <stddef.h>
#include <string.h>

#include "base/config.h"
#include "base/text.h"

#define SHOWN_MAX 64

static const struct {
	const char *name, *help;
} commands[CLI_COMMANDS] = {
	{ "status", "what the service holds, what its devices do, who uses it" },
	{ "ping", "does the service answer, and how fast" },
	{ "calibrate", "measure a GPU, alone and beside an engine of its own, and keep the result for tyerd; takes about ten seconds, "
		       "of a GPU that nobody uses" },
	{ "list", "the chunks in the arena, then those that only tiers have" },
	{ "pin", "keep chunks from eviction" },
	{ "unpin", "let them go again" },
	{ "delete", "take chunks away, from the tiers too" },
	{ "clear", "take away everything, or what is selected" },
	{ "warm", "bring chunks up from the tiers" },
	{ "move", "write chunks down to a tier" },
	{ "configure", "change settings: NAME=VALUE... (policy, quota, keep-percent, l1-size, l1-ahead, tier.N.size, tier.N.write, tier.N.policy); without any: tell them" },
	{ "events", "where events are told, their number now, and the keys that are here" },
};

enum kind { CONNECT, TIMEOUT, JSON, NUMBER, KEY, PREFIX, NAMES, PLACE, DEVICE, WORDS, HELP, VERSION };
#define ALL ((1u << CLI_COMMANDS) - 1)
#define SERVICE (ALL & ~(1u << CLI_CALIBRATE))
#define SELECTING (1u << CLI_LIST | 1u << CLI_PIN | 1u << CLI_UNPIN | 1u << CLI_DELETE | 1u << CLI_CLEAR | 1u << CLI_WARM | 1u << CLI_MOVE)
#define FIELD(member) offsetof(struct cli_options, member)

static const struct option {
	const char *name, *argument;
	enum kind kind;
	unsigned commands;
	const char *help;
	size_t offset;     /* NUMBER, NAMES, WORDS (256 bytes) */
	uint64_t min, max; /* NUMBER */
} options[] = {
	{ "connect", "URL", CONNECT, SERVICE, "address of the service, for the administration's commands its --admin; default: where "
	  "tyerd listens if the same user starts it", 0, 0, 0 },
	{ "timeout", "TIME", TIMEOUT, SERVICE, "for connecting and for each answer: microseconds, or with us, ms or s; default 5s",
	  0, 0, 0 },
	{ "tls-ca", "FILE", WORDS, SERVICE, "PEM file: who may have signed the certificate of a tls+tcp:// service", FIELD(tls_ca), 0, 0 },
	{ "tls-cert", "FILE", WORDS, SERVICE, "PEM file with a certificate and its key to show there; default: none", FIELD(tls_cert), 0, 0 },
	{ "tls-name", "NAME", WORDS, SERVICE, "whom the service's certificate must name; default: the address of --connect", FIELD(tls_name),
	  0, 0 },
	{ "json", NULL, JSON, 1u << CLI_STATUS, "as one JSON object", 0, 0, 0 },
	{ "count", "N", NUMBER, 1u << CLI_PING, "how many PINGs, one after the other; default 1", FIELD(count), 1, 1000000 },
	{ "key", "HEX", KEY, SELECTING, "a chunk's key, 64 digits; may be given 64 times", 0, 0, 0 },
	{ "key-prefix", "HEX", PREFIX, SELECTING, "chunks whose key begins so, 2 to 64 digits", 0, 0, 0 },
	{ "tenant", "NAME", NAMES, SELECTING, "chunks of this tenant; this and the next four may be repeated", FIELD(tenants), 0, 0 },
	{ "model", "NAME", NAMES, SELECTING, "of this model", FIELD(models), 0, 0 },
	{ "revision", "NAME", NAMES, SELECTING, "of this revision", FIELD(revisions), 0, 0 },
	{ "dtype", "NAME", NAMES, SELECTING, "of this dtype", FIELD(dtypes), 0, 0 },
	{ "quantization", "NAME", NAMES, SELECTING, "of this quantization", FIELD(quantizations), 0, 0 },
	{ "in", "arena|tiers", PLACE, 1u << CLI_LIST | 1u << CLI_DELETE | 1u << CLI_CLEAR, "only what is in the arena, and there; or only in the "
	  "tiers", 0, 0, 0 },
	{ "max", "N", NUMBER, 1u << CLI_LIST | 1u << CLI_EVENTS, "chunks to show; default: all", FIELD(max), 1, UINT64_MAX },
	{ "tier", "N", NUMBER, 1u << CLI_MOVE, "which, in the order of the service's --tier, from 0; default 0", FIELD(tier), 0, 7 },
	{ "device", "cuda:N", DEVICE, 1u << CLI_CALIBRATE, "the GPU; default cuda:0", 0, 0, 0 },
	{ "cuda-driver", "LIB", WORDS, 1u << CLI_CALIBRATE, "the driver's library; default libcuda.so.1", FIELD(driver), 0, 0 },
	{ "directory", "DIR", WORDS, 1u << CLI_CALIBRATE, "where the result is kept; default: where tyerd looks, see its --calibration",
	  FIELD(directory), 0, 0 },
	{ "help", NULL, HELP, ALL, "show this and exit", 0, 0, 0 },
	{ "version", NULL, VERSION, ALL, "show the version and exit", 0, 0, 0 },
};
#define OPTION_COUNT (sizeof options / sizeof options[0])

static const struct option *find(const char *name, size_t length)
{
	for (size_t i = 0; i < OPTION_COUNT; i++)
		if (strlen(options[i].name) == length && !memcmp(options[i].name, name, length))
			return &options[i];
	return NULL;
}

static const char *shown(char out[SHOWN_MAX], const char *text)
{
	ty_escape(out, SHOWN_MAX, text, strlen(text), TY_ESCAPE_TEXT, NULL);
	return out;
}

static enum ty_code add_value(struct cli_values *values, const char *value, struct ty_error *err)
{
	if (values->count == CLI_VALUES_MAX)
		return ty_fail(err, TY_INVALID, "given more than %d times", CLI_VALUES_MAX);
	values->at[values->count++] = (char *)(uintptr_t)value;
	return TY_OK;
}

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* At least so many bytes, and at most a whole key. */
static enum ty_code parse_key(const char *value, size_t least, struct cli_key *out, struct ty_error *err)
{
	size_t length = strlen(value);
	char found[SHOWN_MAX];

	for (size_t i = 0; i < length; i++)
		if (digit(value[i]) < 0)
			return ty_fail(err, TY_INVALID, "found \"%s\", expected hexadecimal digits", shown(found, value));
	if (length % 2 || length / 2 < least || length / 2 > sizeof out->bytes)
		return ty_fail(err, TY_INVALID, "found %zu digits, expected %s%zu", length, least == 32 ? "" : "an even number of them, 2 to ",
			2 * sizeof out->bytes);
	for (size_t i = 0; i < length; i += 2)
		out->bytes[i / 2] = (uint8_t)(digit(value[i]) << 4 | digit(value[i + 1]));
	out->length = length / 2;
	return TY_OK;
}

bool cli_is_admin(enum cli_command command)
{
	return command >= CLI_LIST;
}

static enum ty_code set(struct cli_options *o, const struct option *option, const char *value, struct ty_error *err)
{
	struct ty_error why = { 0 };
	enum ty_code code = TY_OK;
	char found[SHOWN_MAX];
	uint64_t *number;

	switch (option->kind) {
	case CONNECT:
		if (strlen(value) >= sizeof o->connect)
			return ty_fail(err, TY_INVALID, "--connect: found %zu bytes, expected below %zu", strlen(value),
				sizeof o->connect);
		memcpy(o->connect, value, strlen(value) + 1);
		return TY_OK;
	case TIMEOUT:
		code = ty_parse_time_us(value, &o->timeout_us, &why);
		if (!code && (o->timeout_us < 1000 || o->timeout_us > 600000000))
			code = ty_fail(&why, TY_INVALID, "found \"%.32s\", expected 1ms to 600s", value);
		break;
	case NUMBER:
		number = (uint64_t *)(void *)((char *)o + option->offset);
		code = ty_parse_count(value, option->max, number, &why);
		if (!code && *number < option->min)
			code = ty_fail(&why, TY_INVALID, "found %s, expected %llu to %llu", shown(found, value), (unsigned long long)option->min,
				(unsigned long long)option->max);
		break;
	case KEY:
		if (o->key_count == CLI_VALUES_MAX)
			code = ty_fail(&why, TY_INVALID, "given more than %d times", CLI_VALUES_MAX);
		else
			code = parse_key(value, 32, &o->keys[o->key_count++], &why);
		break;
	case PREFIX:
		code = parse_key(value, 1, &o->key_prefix, &why);
		break;
	case NAMES:
		code = add_value((struct cli_values *)(void *)((char *)o + option->offset), value, &why);
		break;
	case PLACE:
		if (strcmp(value, "arena") != 0 && strcmp(value, "tiers") != 0)
			return ty_fail(err, TY_INVALID, "--in: found \"%s\", expected arena or tiers", shown(found, value));
		o->place = value[0] == 'a' ? CLI_IN_ARENA : CLI_IN_TIERS;
		break;
	case DEVICE:
		if (strncmp(value, "cuda:", 5) != 0 || ty_parse_count(value + 5, 255, &o->device, NULL) != TY_OK)
			return ty_fail(err, TY_INVALID, "--device: found \"%s\", expected cuda:N", shown(found, value));
		break;
	case WORDS:
		if (strlen(value) >= sizeof o->driver)
			return ty_fail(err, TY_INVALID, "--%s: found %zu bytes, expected below %zu", option->name, strlen(value),
				sizeof o->driver);
		strcpy((char *)o + option->offset, value);
		break;
	case JSON:
		o->json = true;
		break;
	case HELP:
		o->help = true;
		break;
	case VERSION:
		o->version = true;
		break;
	}
	return code ? ty_fail(err, code, "--%s: %s", option->name, why.text) : TY_OK;
}

static enum ty_code set_command(struct cli_options *o, const char *name, bool have, struct ty_error *err)
{
	char found[SHOWN_MAX];

	if (have && o->command == CLI_CONFIGURE && strchr(name, '='))
		return add_value(&o->settings, name, err);
	if (have)
		return ty_fail(err, TY_INVALID, "found \"%s\" after the command %s, expected %s", shown(found, name),
			commands[o->command].name, o->command == CLI_CONFIGURE ? "NAME=VALUE or options" : "options only");
	for (unsigned c = 0; c < CLI_COMMANDS; c++)
		if (!strcmp(commands[c].name, name)) {
			o->command = (enum cli_command)c;
			return TY_OK;
		}
	return ty_fail(err, TY_INVALID, "found command \"%s\", expected one that --help lists", shown(found, name));
}

enum ty_code cli_options_parse(struct cli_options *o, int argc, char **argv, struct ty_error *err)
{
	bool have = false, given[OPTION_COUNT] = { false };
	char found[SHOWN_MAX];
	enum ty_code code;

	memset(o, 0, sizeof *o);
	o->timeout_us = 5000000;
	o->count = 1;
	for (int i = 1; i < argc; i++) {
		const char *arg = strcmp(argv[i], "-h") ? argv[i] : "--help", *equals, *value;
		const struct option *option;

		if (strncmp(arg, "--", 2)) {
			code = set_command(o, arg, have, err);
			if (code)
				return code;
			have = true;
			continue;
		}
		equals = strchr(arg, '=');
		option = find(arg + 2, equals ? (size_t)(equals - arg - 2) : strlen(arg) - 2);
		if (!option)
			return ty_fail(err, TY_INVALID, "found option \"%s\", expected one that --help lists", shown(found, arg));
		if (given[option - options] && option->kind != NAMES && option->kind != KEY)
			return ty_fail(err, TY_INVALID, "--%s: given twice", option->name);
		given[option - options] = true;
		value = equals ? equals + 1 : NULL;
		if (!option->argument && value)
			return ty_fail(err, TY_INVALID, "--%s: found a value, expected none", option->name);
		if (option->argument && !value && i + 1 < argc && strncmp(argv[i + 1], "--", 2))
			value = argv[++i];
		if (option->argument && (!value || (!*value && option->kind != NAMES)))
			return ty_fail(err, TY_INVALID, "--%s: found no value, expected %s", option->name, option->argument);
		code = set(o, option, value, err);
		if (code || o->help || o->version)
			return code;
	}
	if (!have)
		return ty_fail(err, TY_INVALID, "found no command, expected one that --help lists");
	for (size_t i = 0; i < OPTION_COUNT; i++)
		if (given[i] && !(options[i].commands >> o->command & 1))
			return ty_fail(err, TY_INVALID, "--%s: found with %s, which does not take it", options[i].name,
				commands[o->command].name);
	if (o->command == CLI_CALIBRATE)
		return o->directory[0] ? TY_OK : ty_default_calibration(o->directory, sizeof o->directory, err);
	if (o->connect[0])
		return TY_OK;
	o->connect_default = true;
	code = ty_default_listen(o->connect, sizeof o->connect, err);
	if (code || !cli_is_admin(o->command))
		return code;
	char listen[sizeof o->connect];

	memcpy(listen, o->connect, sizeof listen);
	return ty_default_admin(listen, o->connect, sizeof o->connect, err);
}

void cli_help(FILE *out)
{
	fprintf(out, "Usage: tyer COMMAND [--name value | --name=value]...\n\n"
		     "Asks a running Tyer service, tells it what to do, or measures a GPU for one.\n\n");
	for (unsigned c = 0; c < CLI_COMMANDS; c++)
		fprintf(out, "  %-9s %s\n", commands[c].name, commands[c].help);
	fputc('\n', out);
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		char left[32];

		snprintf(left, sizeof left, "--%s %s", options[i].name, options[i].argument ? options[i].argument : "");
		fprintf(out, "  %-16s %s", left, options[i].help);
		for (unsigned c = 0; c < CLI_COMMANDS; c++)
			if (options[i].commands == 1u << c)
				fprintf(out, " (%s)", commands[c].name);
		fputc('\n', out);
	}
	fprintf(out, "\nExit status: 0 fine, 1 the service answered an error or the command line is wrong, 2 the service cannot be\n"
		     "reached or is not Tyer; of calibrate, that the GPU cannot be measured.\n");
}
