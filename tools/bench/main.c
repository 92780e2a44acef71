/* SPDX-License-Identifier: Apache-2.0
 *
 * tyer-bench: load for Tyer, every byte of which is checked.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"
#include "policy.h"

static int write_trace(const struct bench_options *o)
{
	bool standard_output = strcmp(o->output, "-") == 0;
	FILE *out = standard_output ? stdout : fopen(o->output, "we");
	struct ty_error err = {0};
	enum ty_code code;

	if (!out) {
		fprintf(stderr, "tyer-bench: --output %s: %s\n", o->output, strerror(errno));
		return 2;
	}
	code = bench_synth_write(&o->synth, out, &err);
	if (!standard_output && fclose(out) != 0 && code == TY_OK)
		code = ty_fail(&err, TY_IO, "--output %s: %s", o->output, strerror(errno));
	if (code != TY_OK)
		fprintf(stderr, "tyer-bench: %s\n", err.text);
	return code != TY_OK;
}

/* Before the run, which may take hours, and not after it: can its report be written? What lies there stays until then. */
static bool json_can_be_written(const struct bench_options *o)
{
	int fd;

	if (!o->json[0] || strcmp(o->json, "-") == 0)
		return true;
	fd = open(o->json, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0) {
		fprintf(stderr, "tyer-bench: --json: cannot write \"%s\": %s\n", o->json, strerror(errno));
		return false;
	}
	close(fd);
	return true;
}

int main(int argc, char **argv)
{
	struct bench_options options;
	struct ty_error err = {0};

	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		bench_usage(stdout);
		return 0;
	}
	if (argc > 1 && strcmp(argv[1], "--version") == 0) {
		puts("tyer-bench " TY_VERSION);
		return 0;
	}
	if (bench_options_parse(&options, argc, argv, &err) != TY_OK) {
		fprintf(stderr, "tyer-bench: %s\n", err.text);
		return 2;
	}
	if (options.help) {
		bench_options_help(stdout, &options);
		return 0;
	}
	if (!json_can_be_written(&options))
		return 2;
	switch (options.command) {
	case BENCH_REPLAY:
		return bench_replay(&options);
	case BENCH_TRACE:
		return write_trace(&options);
	case BENCH_COPY:
		return bench_copy(&options);
	case BENCH_POLICY:
		return bench_policy(&options);
	default:
		return bench_ping(&options);
	}
}
