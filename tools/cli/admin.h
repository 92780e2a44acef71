/* SPDX-License-Identifier: Apache-2.0
 *
 * The administration's commands as requests, and their replies as text.
 */
#ifndef TYER_CLI_ADMIN_H
#define TYER_CLI_ADMIN_H

#include <tyer/result.h>

#include "options.h"
#include "wire/tyer.pb-c.h"

/* Where a page of LIST or EVENTS begins; all zero: at the beginning. */
struct cli_page {
	uint64_t cursor;
	size_t below_length;   /* LIST: in the tiers, and there the service's own words */
	uint8_t below[256];
};

/* The command's request, encoded; for LIST and EVENTS that page. Null: no memory. The caller frees it. */
uint8_t *cli_admin_request(const struct cli_options *o, const struct cli_page *page, size_t *length);
/* What was answered to `out`, and to `notes` what is missing from it. *page: the next one, all zero: that was all; *left: chunks
 * still to show; *whole: becomes false if something is missing. False: it cannot be written, or is not the command's reply. */
bool cli_admin_show(FILE *out, FILE *notes, const struct cli_options *o, const Tyer__V1__Reply *reply, struct cli_page *page,
	uint64_t *left, bool *whole);

/* How far a LIST or EVENTS has come. A service that went on for ever is not followed. */
#define CLI_LIST_MAX (1ull << 32) /* chunks */
#define CLI_BRIEF_MAX 4096        /* pages in a row that are not full: those that the deadline cut short */
struct cli_way {
	uint64_t chunks; /* that were told */
	uint32_t brief;  /* pages since the last full one */
};
/* A page of `chunks` chunks has come, and says that `next` follows it. TY_PROTOCOL: that does not lie behind the page that was `asked` for:
 * places in the arena only grow, and those in the tiers come after them; what a tier's place means is the service's own, but it is
 * another one. TY_LIMIT: those above. */
TY_MUST_USE enum ty_code cli_page_follows(struct cli_way *way, const struct cli_page *asked, const struct cli_page *next, uint64_t chunks,
	struct ty_error *err);

#endif
