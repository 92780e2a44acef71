/* SPDX-License-Identifier: Apache-2.0
 *
 * A StatusReply for people and as JSON. Whatever the service's strings hold, what is written is printable UTF-8.
 */
#ifndef TYER_CLI_SHOW_H
#define TYER_CLI_SHOW_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "wire/tyer.pb-c.h"

/* The counters that the hit rate comes from: chunks of all prompts looked up, and those of them that were here. */
#define CLI_COUNTER_LOOKED_UP "tyer_lookup_chunks_total"
#define CLI_COUNTER_HIT "tyer_lookup_hits_total"

/* False: no memory, or `out` failed. */
bool cli_show_text(FILE *out, uint64_t boot, const Tyer__V1__StatusReply *status);
bool cli_show_json(FILE *out, uint64_t boot, const Tyer__V1__StatusReply *status);

#endif
