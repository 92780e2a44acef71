/* SPDX-License-Identifier: Apache-2.0
 *
 * The administration's commands as requests, and their replies as text.
 */
#ifndef TYER_CLI_ADMIN_H
#define TYER_CLI_ADMIN_H

#include "options.h"
#include "wire/tyer.pb-c.h"

/* The command's request, encoded; for LIST and EVENTS the page at `cursor`. Null: no memory. The caller frees it. */
uint8_t *cli_admin_request(const struct cli_options *o, uint64_t cursor, size_t *length);
/* What was answered. *cursor: of the next page, 0: that was all; *left: chunks still to show. False: it cannot be written, or is
 * not the command's reply. */
bool cli_admin_show(FILE *out, const struct cli_options *o, const Tyer__V1__Reply *reply, uint64_t *cursor, uint64_t *left);

#endif
