/* SPDX-License-Identifier: Apache-2.0
 *
 * prefetch: brings chunks up from the tiers. It owns every load from its reservation to its commit, so that one key is
 * loaded once whoever asks for it, and nobody but the loads of a slow tier waits for that tier.
 */
#ifndef TY_ACTORS_PREFETCH_H
#define TY_ACTORS_PREFETCH_H

#include "messages.h"
#include "op.h"
#include "cache/envelope.h"

struct ty_service;
struct ty_lease;

#define TY_FETCH_CHUNKS 4096 /* of one fetch; what a longer prompt has below comes with its next LOOKUP */
#define TY_FETCHES 1024      /* at once; past it a fetch is sent home as it is */

enum ty_fetch_priority { TY_FETCH_WARM, TY_FETCH_LOOKUP, TY_FETCH_PRIORITIES };

/* What prefetch knows of a key of a fetch. */
struct ty_fetch_key {
	struct ty_load *load;            /* that it waits for */
	struct ty_fetch_key *next;       /* of those that wait for the same load */
	uint32_t index;
	uint8_t state;                   /* prefetch.c */
	uint8_t tier;
};

/* The rest of a chain: chunks that are not in the arena, head first. Made by an engine, comes home to it as TY_ENGINE_FETCHED
 * when all that is below is up, as far as the chain is whole; or earlier, when it is cancelled, when the arena has no room, or
 * when what is missing lies in a tier that does not answer. */
struct ty_fetch {
	struct ty_msg msg;
	struct ty_actor *home;           /* who made it, and what it comes back as; outlives it */
	uint32_t home_type;              /* TY_ENGINE_FETCHED; TY_EVICTION_FETCHED */
	void *user;                      /* its maker's */
	enum ty_fetch_priority priority;
	uint16_t space;
	uint32_t parts;                  /* of a chunk, 0: not known (yet); the chunks of a chain are of one shape */
	uint64_t length[TY_CHUNK_MAX_PARTS];
	_Atomic bool cancelled;          /* engine: release; prefetch: acquire. Nobody wants it: home with it */

	uint32_t count;
	const struct ty_key *keys;       /* count, behind `key` in the same allocation */

	/* Set on the way home: `lease` holds the chunks that are up, from the first key on, pinned. The engine sends it to
	 * eviction (TY_EVICTION_RELEASE) when its own pins are set. */
	struct ty_lease *lease;

	/* prefetch's. */
	struct ty_fetch *next, **link;
	uint32_t end;                    /* leading keys that may be had, as far as is known */
	uint32_t here;                   /* leading keys that are in the lease */
	uint32_t known;                  /* leading keys of which it is known where they are */
	uint32_t asked;                  /* leading keys whose load was begun */
	uint8_t tier;                    /* the one to ask next for key `known` */
	struct ty_query *query;          /* that is out */
	struct ty_fetch_key key[];
};

/* A fetch of `count` keys, with room for its lease; null: no memory. */
struct ty_fetch *ty_fetch_create(const struct ty_key *keys, uint32_t count);
void ty_fetch_free(struct ty_fetch *fetch); /* its lease is not its own any more */

/* Written by the actor (relaxed), read by metrics. */
struct ty_prefetch_stats {
	_Atomic uint64_t fetches, loads;         /* begun */
	_Atomic uint64_t loaded, loaded_bytes;   /* chunks that came up */
	_Atomic uint64_t missing, corrupt, failed, no_space; /* loads that did not, and why */
	_Atomic uint64_t shared;                 /* keys that found their load under way */
	_Atomic uint64_t cancelled, given_up;    /* fetches: by the engine; because a tier does not answer */
	_Atomic uint64_t active, in_flight;      /* now: fetches, loads */
};

extern const struct ty_class ty_prefetch_class; /* arg: struct ty_service */

#endif
