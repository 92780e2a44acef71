/* SPDX-License-Identifier: Apache-2.0
 *
 * The eviction actor's state, and what its rooms do for one another:
 *
 *   eviction.c         ops: reserve, commit or give back, release; those that wait
 *   eviction_chunks.c  a chunk's life, and what is said of it
 *   eviction_space.c   who has to go, so that a slot may be had
 *   eviction_growth.c  pieces of the arena on their way to the slot table
 *   eviction_tiers.c   what goes down to the tiers
 *   eviction_offers.c  and what was not offered to them in its time
 *   eviction_sums.c    checksums of contents
 *   eviction_control.c, _below.c, _warm.c, _select.c, _reply.c, _configure.c   what the administration asks for
 *
 * What holds between any two messages: a chunk in the index is in the order (cache/order.h), and OUT of it exactly when a part
 * of it is being filled (filling > 0); it is visible exactly when all its parts are committed; it is in the index exactly when it has a slot.
 */
#ifndef TY_ACTORS_EVICTION_STATE_H
#define TY_ACTORS_EVICTION_STATE_H

#include "cache/order.h"
#include "eviction.h"
#include "events.h"
#include "scrub.h"
#include "service.h"

/* A search for victims, for one op. */
struct eviction_search {
	uint32_t looks, rescues;
	uint32_t saved;          /* chunks that were no victims because a tier would lose them; ... */
	uint32_t ours;           /* and those that the service itself has pinned, for a tier that reads them or in passing */
	bool saves;              /* ... there may be such: the op may still wait for them */
	uint32_t stamp;          /* of this search, in `tried` */
};

#define EVICTION_ACCOUNTS (TY_MAX_SPACES + 2) /* the number of one of the user's namespaces; the last one: nobody knows whose */

struct eviction {
	struct ty_service *service;
	struct ty_order *order;
	struct ty_tenant_quota quotas[TY_TENANT_QUOTAS_MAX]; /* quotas[i]: the order's domain i + 1 */
	uint32_t quota_count;
	uint8_t domains[TY_MAX_SPACES + 1]; /* of each namespace, one more than the order's number; 0: not looked up */
	uint32_t keep_percent;
	uint64_t ahead, limit;         /* bytes: as configured, or changed since */
	struct ty_events_pending events;
	uint64_t kept_bytes, kept_max; /* of slots that never go */
	uint16_t accounts[TY_MAX_SPACES + 1]; /* of each namespace, one more than its user's account below; 0: not looked up */
	uint64_t kept_of[EVICTION_ACCOUNTS];  /* of kept_bytes, by whose they are; [0]: those of the service's own user, and not counted */
	uint64_t visible;           /* chunks */

	struct eviction_search search;
	uint32_t *tried;            /* a piece's stamp: of the last search that could not empty it */

	uint32_t next_piece;        /* the first one that was never asked for, and is none of those found */
	const struct ty_found_piece *found; /* pieces that a process before this one left something in ... */
	uint32_t found_count, next_found;   /* ... and the first of them that was not asked for */
	uint32_t returning;         /* of them, not here yet */
	int64_t began;              /* when the first of them was asked for */
	bool *is_found;             /* by piece */
	uint32_t fresh_coming;      /* pieces on their way that are none of these */
	uint32_t coming;            /* pieces on their way ... */
	uint32_t coming_at[TY_MAX_DEVICES]; /* ... by the device that registers them */
	uint32_t next_populate, next_gpu;
	int64_t grown;              /* when a piece came last, or was asked for with none on its way */

	struct ty_op *waiting, **waiting_tail; /* for the arena to grow, or for victims to be written */
	uint64_t waiting_count;
	struct ty_timer tick;
	bool ticking;
	int64_t patience;           /* the longest that a tier has stores wait */

	uint64_t sum_bytes;         /* of chunks that are being summed up */
	uint64_t sums_begun, sums_ended;
	uint64_t sums_due;          /* of those under way, whose chunks go down when they are there */
	struct ty_stop *stop;       /* who waits for these; null: nobody */
	uint32_t next_sum;          /* of the bytework actors */
	uint32_t unsummed_at;       /* slots before this one have sums, or none that is missing; TY_NO_SLOT: nobody looks */
	struct ty_timer look;       /* the next LOOKS of them */

	struct eviction_offers {
		uint32_t at;        /* slots before this one have been offered; TY_NO_SLOT: nobody looks */
		uint32_t asked;     /* chunks that the tier is asked of */
		int64_t pause;      /* not before this */
		bool again;         /* the tier did not say of some of these: from the beginning once more when the walk is over */
	} offers[TY_MAX_TIERS];
	struct ty_timer offer_timer;

	struct eviction_job *jobs;  /* the administration's */

	struct ty_down *down;       /* chunks for writeback, collected in this message; null: none */
};

/* One writer, this actor. */
static inline void eviction_count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

/* ---- eviction_chunks.c ---- */

/* Whose a chunk is, in numbers. */
struct eviction_owner {
	uint16_t space;
	uint8_t domain;
};

extern const struct ty_hint eviction_no_hint;

struct eviction_owner eviction_owner(struct eviction *e, uint16_t space);
/* A new chunk, OUT of the order; null: no memory. */
struct ty_chunk *eviction_add_chunk(struct eviction *e, const struct ty_key *key, uint32_t parts,
	const struct eviction_owner *owner);
/* It is known now whose it is, if it was not (a key has one namespace: it cannot be somebody else's). */
void eviction_claim(struct eviction *e, struct ty_chunk *chunk, const struct eviction_owner *owner);
uint64_t eviction_chunk_bytes(const struct eviction *e, const struct ty_chunk *chunk); /* of its slots */
uint64_t eviction_leases(const struct ty_chunk *chunk); /* pins that are not the service's own */
/* The chunk that has its first slot here, so that a walk over the slots finds it once. Null: none has. */
struct ty_chunk *eviction_chunk_at(const struct eviction *e, uint32_t slot);
/* Could these be its parts? All of a chunk's are of one length, and so many: its key says of which. */
bool eviction_fits(const struct ty_chunk *chunk, uint32_t parts, uint64_t part_bytes);
void eviction_set_slot(struct eviction *e, struct ty_chunk *chunk, uint32_t part, uint32_t slot);
void eviction_begin_filling(struct eviction *e, struct ty_chunk *chunk); /* somebody is busy with it: out of the order */
/* The last one: back into the order. */
void eviction_end_filling(struct eviction *e, struct ty_chunk *chunk, enum ty_reentry how, const struct ty_hint *hint);
void eviction_commit_part(struct eviction *e, const struct ty_op *op, const struct ty_op_chunk *part);
/* The part was not filled. The last one to go takes the chunk with it. */
void eviction_abort_part(struct eviction *e, struct ty_chunk *chunk, uint32_t part);
/* Take away a chunk that is not OUT of the order, and not kept. False: somebody has it pinned, and nothing is changed. */
bool eviction_remove(struct eviction *e, struct ty_chunk *chunk);
/* A visible one's bytes are wrong: nobody finds it from now on, and it goes as soon as nobody has it. */
void eviction_condemn(struct eviction *e, struct ty_chunk *chunk);
bool eviction_discard(struct eviction *e, struct ty_chunk *chunk); /* has it gone now? False for those that were not condemned */
/* An engine has the key's own contents, and this is something else: a tier's word for it was not the engine's. False: it goes later. */
bool eviction_replace(struct eviction *e, struct ty_chunk *chunk);
/* The same for want of space: also false if a tier wants what the arena drops, and writeback has pinned it. */
bool eviction_evict(struct eviction *e, struct ty_chunk *chunk);
void eviction_used(struct eviction *e, struct ty_chunk *chunk, const struct ty_hint *hint);
void eviction_hint(struct eviction *e, struct ty_chunk *chunk, const struct ty_hint *hint); /* not used, only told */
/* Never a victim, or one again. False: it is not complete, or too much is kept already. */
bool eviction_keep(struct eviction *e, struct ty_chunk *chunk, bool keep);
/* The chunk is of that namespace now: so is what is kept of it. */
void eviction_keep_under(struct eviction *e, struct ty_chunk *chunk, uint16_t space);

/* ---- eviction_space.c ---- */

/* A part that was committed by a process before this one: part of its chunk again, as the oldest of all. False: it is not
 * needed, and given back. */
bool eviction_return_part(struct eviction *e, uint32_t slot);

void eviction_begin_search(struct eviction *e, bool saves); /* for the next op */
void eviction_end_search(struct eviction *e);
/* Evict so that a slot of this size class may be had: take it, or call again if there is none yet. False: no room. */
bool eviction_make_room(struct eviction *e, uint64_t class);
/* Evict until so much more exceeds neither the domain's hard quota nor the arena's limit (CONFIGURE may lower it). False: it
 * would. */
bool eviction_make_allowance(struct eviction *e, uint32_t domain, uint64_t bytes);

/* ---- eviction_tiers.c ---- */

/* A visible chunk that nobody fills: let it go down to the tiers that want it now. True: it is a victim, and pinned until it is
 * there. */
bool eviction_offer(struct eviction *e, struct ty_chunk *chunk, enum ty_tier_write why);
/* A visible chunk: is it on its way to a tier that stores wait for (`wait=`), or waits for a place on it? */
bool eviction_would_lose(struct eviction *e, const struct ty_chunk *chunk);
void eviction_clean_ahead(struct eviction *e); /* in a full arena: let the next victims go down */
void eviction_flush_down(struct eviction *e); /* at the end of a message that may have offered */

bool eviction_is_below(const struct ty_chunk *chunk, uint32_t tier); /* is it there already, or on its way? As far as is known */
/* A visible chunk that this tier should have had at its commit. */
void eviction_offer_to(struct eviction *e, struct ty_chunk *chunk, uint32_t tier);
void eviction_stay(struct ty_chunk *chunk); /* what waits to be written of it is not wanted any more */
/* The same for one tier, whatever it wants: pinned until it is there. True: it is there, or on its way. */
bool eviction_send_down(struct eviction *e, struct ty_chunk *chunk, uint32_t tier);

/* ---- eviction_offers.c ---- */

void eviction_offers_begin(struct eviction *e, uint32_t tier); /* what is here, it may not have been offered: from the beginning */
void eviction_offers_look(struct eviction *e);
void eviction_offers_home(struct ty_msg *msg);

/* ---- eviction_sums.c ---- */

/* Of a chunk's contents, beside everything else. `offer`: it has become visible just now; when the sum is there it is offered to the
 * tiers. False: nothing was begun. */
bool eviction_sum(struct eviction *e, struct ty_chunk *chunk, bool offer);
/* May the op find room when those chunks are back that were being summed up when it first found none? */
bool eviction_sums_pin(const struct eviction *e, struct ty_op *op);
void eviction_summed(struct eviction *e, struct ty_msg *msg);
/* Go on from unsummed_at with the sums that the process before this one left unmade. */
void eviction_sum_missing(struct eviction *e);
void eviction_scrub(struct eviction *e, struct ty_scrub_ask *ask); /* answers */

/* ---- eviction_configure.c ---- */

struct ty_order *eviction_new_order(const struct ty_policy_class *cls, const struct ty_tenant_quota *quotas, uint32_t count,
	uint64_t size); /* null: no memory */

/* ---- eviction_control.c ---- */

void eviction_control(struct eviction *e, struct ty_exchange *x); /* answers, in time */
void eviction_control_go(struct eviction *e, struct ty_msg *msg);
void eviction_control_late(struct eviction *e, struct ty_msg *msg);
void eviction_control_again(struct ty_msg *msg);
void eviction_control_drop(struct ty_msg *msg); /* a GO that came after the stop */
void eviction_control_close(struct eviction *e);

/* ---- eviction_warm.c ---- */

void eviction_fetched(struct eviction *e, struct ty_msg *msg);

/* ---- eviction_below.c ---- */

void eviction_below_home(struct ty_msg *msg); /* an io of a job's */

/* ---- eviction_growth.c ---- */

TY_MUST_USE enum ty_code eviction_growth_open(struct eviction *e);
void eviction_growth_close(struct eviction *e);
void eviction_grow(struct eviction *e); /* bring back what was found, then keep l1_ahead bytes of pieces free or on their way */
bool eviction_growing(const struct eviction *e); /* is it worth waiting for a piece? */
void eviction_take_piece(struct eviction *e, struct ty_piece *piece);

#endif
