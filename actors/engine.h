/* SPDX-License-Identifier: Apache-2.0
 *
 * engine: one inference engine (its scheduler and ranks together). Owns its sessions with their leases, its registrations,
 * its operations with their deadlines, and its credits. What it does slows nobody else.
 */
#ifndef TY_ACTORS_ENGINE_H
#define TY_ACTORS_ENGINE_H

#include "clients.h"
#include "eviction.h"

#define TY_FINISHED_OPERATIONS 256        /* that an engine remembers (OPERATIONS) ... */
#define TY_FINISHED_NS (300 * 1000000000ll) /* ... for so long */
#define TY_OPERATION_IDS 1024             /* of one OPERATIONS */

#define TY_SESSION_CHUNKS_ALL ((uint64_t)32 << 20) /* chunks of all sessions of all engines: 40 bytes each */
#define TY_POOL_BYTES_ALL ((uint64_t)32 << 40)     /* of the regions of all pools: address space of this process, a quarter of it */

/* Of what an engine has for as long as it likes, all may have so much together, and each as much as is free then, as with operations
 * (operations.h): nobody takes all of it. */
struct ty_share {
	_Atomic uint64_t all, used; /* relaxed: set at the start (and by tests); engines, read by metrics */
};
/* For an engine that has `has`. False: it may not have so much more now. */
TY_MUST_USE bool ty_share_take(struct ty_share *share, uint64_t has, uint64_t more);
void ty_share_give(struct ty_share *share, uint64_t what);

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

/* Sent to clients when the last member has left and everything is back: the engine has nothing to do. Clients keep it for a while,
 * in case that a member returns and asks what became of its operations, and send it back when one has joined. Lives in the
 * engine's state. */
struct ty_engine_end {
	struct ty_msg msg;
	struct ty_actor *engine;
	uint64_t joins; /* members that had joined, ever: if there are more by now, the engine is not idle */
};

extern const struct ty_class ty_engine_class; /* arg: struct ty_engine_arg */

#endif
