/* SPDX-License-Identifier: Apache-2.0
 *
 * The administration's commands as requests, and their replies as text.
 */
#ifndef TYER_CLI_ADMIN_H
#define TYER_CLI_ADMIN_H

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
/* Does `next` lie behind the page that was asked for? Places in the arena only grow, and those in the tiers come after them; what a tier's
 * place means is the service's own, but it is another one. */
bool cli_page_follows(const struct cli_page *asked, const struct cli_page *next);

#endif
