/* SPDX-License-Identifier: Apache-2.0
 *
 * Between config.c (the table, and where values come from), config_value.c (one value) and config_defaults.c.
 */
#ifndef TY_BASE_CONFIG_PRIVATE_H
#define TY_BASE_CONFIG_PRIVATE_H

#include "base/config.h"

#define TY_OPTIONS_MAX 128
#define TY_SHOWN_MAX 64 /* bytes of outside text in an error */
#define TY_CONFIG_PIECE_BYTES (64ull << 20) /* the arena comes in pieces of this size */

enum ty_option_kind {
	BYTES, COUNT, MICROS, URL, LOCAL, PATH, ADDRESS, TEXT, DEVICE, TIER, QUOTA, UIDS, CHOICE, FORMAT, FILENAME, CHECK, HELP, VERSION
};

struct ty_option {
	const char *name;
	enum ty_option_kind kind;
	size_t offset, size; /* of the member */
	uint64_t min, max;   /* BYTES, COUNT, MICROS; CHOICE: min says which one */
	const char *initial; /* default, in the option's own form; null: computed by ty_config_fill_in */
	const char *shown;   /* what --help says instead of `initial` */
	const char *help;
};

/* The words of a CHOICE, by its value. */
enum choice { ON_OFF, SHARING, VERIFY, LEVEL, POLICY };

/* Where a value came from: a line of a file, or the command line (file null). */
struct ty_config_source {
	const char *file;
	unsigned line;
	bool seen[TY_OPTIONS_MAX];
};

/* `text` as an error may show it: escaped, cut. */
const char *ty_config_shown(char out[TY_SHOWN_MAX], const char *text, size_t length);
/* TY_INVALID, with the place that the value came from before the text. */
TY_PRINTF(4, 5) TY_MUST_USE enum ty_code ty_config_refuse(const struct ty_config_source *from, const char *name, struct ty_error *err,
	const char *fmt, ...);

/* Parse `value`, check it, set the option's member. */
TY_MUST_USE enum ty_code ty_config_set(struct ty_config *config, const struct ty_option *o, const char *value,
	const struct ty_config_source *from, struct ty_error *err);
uint64_t ty_config_number(const struct ty_config *config, const struct ty_option *o);    /* BYTES, COUNT, MICROS */
const char *ty_config_choice(const struct ty_config *config, const struct ty_option *o); /* CHOICE: its word */
void ty_config_format_number(char *out, size_t size, enum ty_option_kind kind, uint64_t value);

/* What depends on the machine or on other options, when all sources are taken; and whether options agree. */
TY_MUST_USE enum ty_code ty_config_fill_in(struct ty_config *config, struct ty_error *err);

#endif
