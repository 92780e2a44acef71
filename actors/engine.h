/* SPDX-License-Identifier: Apache-2.0
 *
 * engine: one inference engine (its scheduler and ranks together). Owns its sessions with their leases, its registrations,
 * its operations with their deadlines, and its credits. What it does slows nobody else.
 */
#ifndef TY_ACTORS_ENGINE_H
#define TY_ACTORS_ENGINE_H

#include "clients.h"
#include "eviction.h"

/* Of all engines together: added to by each (relaxed), read by metrics. */
struct ty_lookup_stats {
	_Atomic uint64_t chunks, hits; /* of every LOOKUP's chain; found */
	_Atomic uint64_t leases;       /* now: chunks under lease, once for each session */
};

struct ty_engine_arg { /* allocated by clients, freed by the engine's start */
	struct ty_service *service;
	struct ty_identity identity;
	uint16_t space; /* the identity's number */
	uint8_t engine[16];
};

/* Sent to clients when the last member has left and everything is back. Lives in the engine's state. */
struct ty_engine_end {
	struct ty_msg msg;
	struct ty_actor *engine;
};

extern const struct ty_class ty_engine_class; /* arg: struct ty_engine_arg */

#endif
