/* SPDX-License-Identifier: Apache-2.0
 *
 * bytework: passes over many bytes (sums, comparisons, packing), on threads of its own that give way to
 * whoever has work: those for sums (--checksum-threads), and beside tiers packers and unpackers (--pack-threads). Who sends a piece of work says what is to be done, keeps its memory, and has it back in any case.
 */
#ifndef TY_ACTORS_BYTEWORK_H
#define TY_ACTORS_BYTEWORK_H

#include <tyer/actor.h>

#include "messages.h"

struct ty_service;
struct ty_bytework;
struct ty_packer;

#define TY_MAX_BYTEWORKERS 8
#define TY_MAX_PACKERS 8 /* and as many unpackers */

typedef void ty_bytework_run(struct ty_service *service, struct ty_bytework *work);

struct ty_bytework {
	struct ty_msg msg;
	struct ty_actor *home;  /* where it goes back to, as ... */
	uint32_t home_type;     /* ... this message; outlives its work */
	ty_bytework_run *run;   /* on the bytework's thread */
	bool ran;               /* set on the way home: false when the actor has stopped */
	struct ty_packer *packer; /* the thread's own, while it runs */
};

/* To the next thread in turn; `turn` is the sender's own count. False: there is none, or it has stopped: still the caller's. */
TY_MUST_USE bool ty_bytework_send_to(struct ty_actor *const *threads, uint32_t count, struct ty_bytework *work, uint32_t *turn);
TY_MUST_USE bool ty_bytework_send(struct ty_service *service, struct ty_bytework *work, uint32_t *turn);

/* A sum over `length` bytes, but false as soon as the service stops: for what nobody needs then. A bytework's thread. */
TY_MUST_USE bool ty_bytework_sum(struct ty_service *service, const uint8_t *data, uint64_t length, uint64_t *out);

/* What sums of stored chunks cost. */
struct ty_checksum_stats {
	_Atomic uint64_t bytes, ns; /* added to by every bytework actor (relaxed), read by metrics */
	_Atomic uint64_t waiting;   /* bytes of chunks on their way; written by eviction (relaxed) */
	_Atomic uint64_t skipped;   /* chunks that came too fast; likewise */
};

extern const struct ty_class ty_bytework_class; /* arg: struct ty_service */

#endif
