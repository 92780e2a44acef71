/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

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
};

enum kind { CONNECT, TIMEOUT, JSON, COUNT, DEVICE, DRIVER, DIRECTORY, HELP, VERSION };
#define ALL ((1u << CLI_COMMANDS) - 1)
#define SERVICE (1u << CLI_STATUS | 1u << CLI_PING)

static const struct option {
	const char *name, *argument;
	enum kind kind;
	unsigned commands;
	const char *help;
} options[] = {
	{ "connect", "URL", CONNECT, SERVICE, "address of the service; default: where tyerd listens if the same user starts it" },
	{ "timeout", "TIME", TIMEOUT, SERVICE, "for connecting and for each answer: microseconds, or with us, ms or s; default 5s" },
	{ "json", NULL, JSON, 1u << CLI_STATUS, "as one JSON object" },
	{ "count", "N", COUNT, 1u << CLI_PING, "how many PINGs, one after the other; default 1" },
	{ "device", "cuda:N", DEVICE, 1u << CLI_CALIBRATE, "the GPU; default cuda:0" },
	{ "cuda-driver", "LIB", DRIVER, 1u << CLI_CALIBRATE, "the driver's library; default libcuda.so.1" },
	{ "directory", "DIR", DIRECTORY, 1u << CLI_CALIBRATE, "where the result is kept; default: where tyerd looks, see its --calibration" },
	{ "help", NULL, HELP, ALL, "show this and exit" },
	{ "version", NULL, VERSION, ALL, "show the version and exit" },
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

static enum ty_code set(struct cli_options *o, const struct option *option, const char *value, struct ty_error *err)
{
	struct ty_error why = { 0 };
	enum ty_code code = TY_OK;
	char found[SHOWN_MAX];

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
	case COUNT:
		code = ty_parse_count(value, 1000000, &o->count, &why);
		if (!code && !o->count)
			code = ty_fail(&why, TY_INVALID, "found 0, expected 1 to 1000000");
		break;
	case DEVICE:
		if (strncmp(value, "cuda:", 5) != 0 || ty_parse_count(value + 5, 255, &o->device, NULL) != TY_OK)
			return ty_fail(err, TY_INVALID, "--device: found \"%s\", expected cuda:N", shown(found, value));
		break;
	case DRIVER:
	case DIRECTORY:
		if (strlen(value) >= sizeof o->driver)
			return ty_fail(err, TY_INVALID, "--%s: found %zu bytes, expected below %zu", option->name, strlen(value),
				sizeof o->driver);
		strcpy(option->kind == DRIVER ? o->driver : o->directory, value);
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

	if (have)
		return ty_fail(err, TY_INVALID, "found \"%s\" after the command %s, expected options only", shown(found, name),
			commands[o->command].name);
	for (unsigned c = 0; c < CLI_COMMANDS; c++)
		if (!strcmp(commands[c].name, name)) {
			o->command = (enum cli_command)c;
			return TY_OK;
		}
	return ty_fail(err, TY_INVALID, "found command \"%s\", expected status, ping or calibrate", shown(found, name));
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
		if (given[option - options])
			return ty_fail(err, TY_INVALID, "--%s: given twice", option->name);
		given[option - options] = true;
		value = equals ? equals + 1 : NULL;
		if (!option->argument && value)
			return ty_fail(err, TY_INVALID, "--%s: found a value, expected none", option->name);
		if (option->argument && !value && i + 1 < argc && strncmp(argv[i + 1], "--", 2))
			value = argv[++i];
		if (option->argument && (!value || !*value))
			return ty_fail(err, TY_INVALID, "--%s: found no value, expected %s", option->name, option->argument);
		code = set(o, option, value, err);
		if (code || o->help || o->version)
			return code;
	}
	if (!have)
		return ty_fail(err, TY_INVALID, "found no command, expected status, ping or calibrate (see --help)");
	for (size_t i = 0; i < OPTION_COUNT; i++)
		if (given[i] && !(options[i].commands >> o->command & 1))
			return ty_fail(err, TY_INVALID, "--%s: found with %s, which does not take it", options[i].name,
				commands[o->command].name);
	if (o->command == CLI_CALIBRATE)
		return o->directory[0] ? TY_OK : ty_default_calibration(o->directory, sizeof o->directory, err);
	return o->connect[0] ? TY_OK : ty_default_listen(o->connect, sizeof o->connect, err);
}

void cli_help(FILE *out)
{
	fprintf(out, "Usage: tyer COMMAND [--name value | --name=value]...\n\nAsks a running Tyer service, or measures a GPU for one.\n\n");
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
		     "reached or is not Tyer.\n");
}
