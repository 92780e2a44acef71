/* SPDX-License-Identifier: Apache-2.0
 *
 * The prefetch actor's state, shared by its two files:
 *   prefetch.c        fetches: what is needed next, and when to go home
 *   prefetch_loads.c  queries and loads: what is out with eviction and the tiers
 */
#ifndef TY_ACTORS_PREFETCH_STATE_H
#define TY_ACTORS_PREFETCH_STATE_H

#include "eviction.h"
#include "prefetch.h"
#include "service.h"

#define LOAD_BUCKETS 4096

enum key_state { KEY_UNKNOWN, KEY_LOADING, KEY_HERE, KEY_GONE };

/* An io that is out, in the order of submission: the first one is the oldest. */
struct out {
	struct out *next, **link;
	int64_t since;
};

struct ty_query {
	struct ty_fetch *fetch; /* null: it does not wait any more */
	struct ty_tier *tier;
	struct out out;
	struct ty_key keys[TY_TIER_QUERY];
	struct ty_tier_io io;   /* last, with room for all parts */
};

/* One part of a load: to eviction a store of one chunk. */
struct load_part {
	struct ty_op op;
	struct ty_load *load;
	struct ty_op_chunk chunk;
	struct ty_copy copy;
	bool reserved;           /* it has a slot, and the op is here */
	struct ty_layout layout; /* last: its planes, of which there are none, would follow */
};

struct ty_load {
	struct ty_load *next, **link; /* of its bucket */
	struct ty_key key;
	struct ty_tier *tier;
	struct ty_fetch_key *waiting;
	struct ty_load *next_waiting; /* for the tier's credit */
	uint64_t bytes;
	uint32_t undecided;           /* parts with eviction, to be reserved */
	uint32_t unlanded;            /* ops that are not home */
	enum ty_code code;            /* why it fails */
	struct out out;
	struct load_part **part;      /* io.parts of them */
	struct ty_tier_io io;         /* last */
};

struct prefetch {
	struct ty_service *service;
	struct ty_fetch *fetches[TY_FETCH_PRIORITIES], **fetches_end[TY_FETCH_PRIORITIES];
	uint32_t fetch_count, load_count, query_count;
	struct ty_load *loads[LOAD_BUCKETS];
	struct {
		struct { struct out *first, **end; } out;
		struct ty_load *waiting, **waiting_end; /* reserved, and refused by the tier */
		uint32_t loads;                         /* begun and not over ... */
		uint64_t bytes;                         /* ... and theirs */
		bool suspect;                           /* it does not answer */
	} tiers[TY_MAX_TIERS];
	struct ty_timer tick;
	int64_t tick_at;
	bool stopping;
	struct ty_stop *stop;
};

/* ---- prefetch.c ---- */

void prefetch_loaded(struct ty_fetch_key *key, struct ty_chunk *chunk); /* pinned for it; null: it is not to be had */
void prefetch_answered(struct prefetch *p, struct ty_query *q);

/* ---- prefetch_loads.c ---- */

/* Ask tier f->tier for the keys from f->known on. False: not now. */
bool query_begin(struct prefetch *p, struct ty_fetch *f);
void query_home(struct prefetch *p, struct ty_tier_io *io);
/* Does what a tier says of a chunk's shape agree with what was said of the chain's others? */
bool shape_agrees(struct ty_fetch *f, const struct ty_tier_io *io);

/* Begin to load the fetch's i-th key, or join who loads it. False: not now, the tier's limits are reached. */
bool load_begin(struct prefetch *p, struct ty_fetch *f, uint32_t i);
void load_reserved(struct prefetch *p, struct ty_op *op);
void load_landed(struct prefetch *p, struct ty_op *op);
void load_read(struct prefetch *p, struct ty_tier_io *io);
void load_retry(struct prefetch *p, uint32_t tier); /* those that the tier refused */
void load_forget(struct ty_fetch_key *key);         /* it does not wait any more */

#endif
