/* SPDX-License-Identifier: Apache-2.0
 *
 * A service that is no more than one tier's: what those share who have a tier by itself (house.h, driven.h). What goes wrong ends the test.
 */
#ifndef TY_TESTS_TIERS_ALONE_H
#define TY_TESTS_TIERS_ALONE_H

#include "actors/service.h"

/* With the tier that `spec` describes, as --tier would be given, over so many pieces of memory; ty_tiers_open is the caller's. `config` stays
 * in use. */
struct ty_service *alone_new(struct ty_config *config, uint32_t pieces, uint32_t pack_threads, const char *spec);
/* The tier is open, and there is a runtime: its actors, of which it gets TY_TIER_START. `start` stays in use until it has. */
void alone_spawn(struct ty_service *service, struct ty_msg *start);
/* The runtime is gone: all of it. */
void alone_close(struct ty_service *service);
/* Where the tier could not be opened. */
void alone_free(struct ty_service *service);

#endif
