/* SPDX-License-Identifier: Apache-2.0
 *
 * What `tyer` was asked to do.
 */
#ifndef TYER_CLI_OPTIONS_H
#define TYER_CLI_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <tyer/result.h>

enum cli_command { CLI_STATUS, CLI_PING, CLI_CALIBRATE, CLI_COMMANDS };

struct cli_options {
	enum cli_command command;
	char connect[256];
	uint64_t timeout_us;
	uint64_t count; /* of PINGs */
	uint64_t device; /* CALIBRATE: cuda:N's N ... */
	char driver[256], directory[256]; /* ... the driver's library; where the result is kept */
	bool json, help, version;
};

/* With *help or *version set the rest is not filled. */
TY_MUST_USE enum ty_code cli_options_parse(struct cli_options *o, int argc, char **argv, struct ty_error *err);
void cli_help(FILE *out);

#endif
