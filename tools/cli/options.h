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

enum cli_command {
	CLI_STATUS, CLI_PING, CLI_CALIBRATE,
	CLI_LIST, CLI_PIN, CLI_UNPIN, CLI_DELETE, CLI_CLEAR, CLI_WARM, CLI_MOVE, CLI_CONFIGURE, CLI_EVENTS, /* the administration's */
	CLI_COMMANDS
};

#define CLI_VALUES_MAX 64

/* What was given to an option that may be repeated; the arguments' own memory. */
struct cli_values {
	size_t count;
	char *at[CLI_VALUES_MAX];
};

struct cli_key {
	size_t length;
	uint8_t bytes[32];
};

struct cli_options {
	enum cli_command command;
	char connect[256];
	bool connect_default; /* nobody said it: where a service of the same user listens */
	char tls_ca[256], tls_cert[256], tls_name[256]; /* "": none */
	uint64_t timeout_us;
	uint64_t count; /* of PINGs */
	uint64_t device; /* CALIBRATE: cuda:N's N ... */
	char driver[256], directory[256]; /* ... the driver's library; where the result is kept */
	bool json, help, version;

	/* the administration's */
	struct cli_values tenants, models, revisions, dtypes, quantizations, settings;
	struct cli_key keys[CLI_VALUES_MAX], key_prefix;
	size_t key_count;
	uint64_t max, tier;
	enum cli_place { CLI_ANYWHERE, CLI_IN_ARENA, CLI_IN_TIERS } place;
};

/* With *help or *version set the rest is not filled. */
TY_MUST_USE enum ty_code cli_options_parse(struct cli_options *o, int argc, char **argv, struct ty_error *err);
bool cli_is_admin(enum cli_command command);
void cli_help(FILE *out);

#endif
