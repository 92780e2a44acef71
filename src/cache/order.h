/* SPDX-License-Identifier: Apache-2.0
 *
 * Who goes next, of everything that is here: a policy (policy.h) for what nobody said anything about, and on top of it
 *
 *   bands    what an engine said of the future. A raised band gives its entries a head start: they count as used so much
 *            later than they were, and so their priority decays by itself. DONE goes before all others, KEPT never.
 *   domains  whose quota an entry counts against. A tenant with a quota has a policy and bands of its own, all others
 *            share the first domain. Space is taken from the domain that is furthest above its soft quota.
 *   places   an entry that is being filled is out; one that was found pinned is parked, so that a search does not meet it
 *            again and again; one that is no use for this search is set aside until its end.
 *
 * Owned by one actor. Every entry from ty_order_add to ty_order_gone is in exactly one of its rings.
 */
#ifndef TY_CACHE_ORDER_H
#define TY_CACHE_ORDER_H

#include <tyer/result.h>

#include "policy.h"

#define TY_ORDER_UNIT_NS INT64_C(62500000) /* of time in an entry: 1/16 s, so that 32 bits last for eight years */

enum ty_band {
	TY_BAND_AS_IT_IS, /* in a use: nothing was said */
	TY_BAND_DONE,
	TY_BAND_NORMAL,
	TY_BAND_RAISED, /* the first of TY_PRIORITIES: a head start of TY_HEAD_START_S, and twice that of the one before */
	TY_PRIORITIES = 10,
	TY_BAND_ALIVE = TY_BAND_RAISED + 5, /* what a conversation that goes on gets: 480 s */
	TY_BAND_KEPT = TY_BAND_RAISED + TY_PRIORITIES,
	TY_BANDS,
};
#define TY_HEAD_START_S 15u /* of priority 1 */
#define TY_KEEP_MAX_S (TY_HEAD_START_S << (TY_PRIORITIES - 1)) /* of the highest: 7680 s */

enum ty_place { TY_PLACE_NONE, TY_PLACE_OUT, TY_PLACE_IN, TY_PLACE_PARKED, TY_PLACE_ASIDE };

#define TY_QUOTAS_MAX 64
#define TY_NO_OWNER 0u
#define TY_MANY_OWNERS UINT32_MAX
#define TY_DOOMED (UINT32_MAX - 1) /* it was to be deleted: it is done, whoever uses it */

struct ty_quota {
	uint64_t soft, hard; /* bytes; hard 0: none */
};

/* Somebody used an entry, or says something about it. */
struct ty_use {
	uint64_t id;     /* the entry's, for the policy */
	uint32_t now;    /* ty_order_time */
	uint32_t owner;  /* the conversation, or TY_NO_OWNER */
	uint8_t band;    /* enum ty_band; not KEPT */
};

struct ty_order; /* opaque */

uint32_t ty_order_time(int64_t ns); /* since the runtime's start */
/* The lowest band with a head start of at least this; the highest, if none has. */
uint8_t ty_order_band_for(uint64_t seconds);

/* quotas[i] is domain i + 1's. `size`: what there is to share; domain 0's soft quota is what the others leave of it. Null:
 * no memory. */
struct ty_order *ty_order_create(const struct ty_policy_class *cls, const struct ty_quota *quotas, uint32_t count,
	uint64_t size);
void ty_order_destroy(struct ty_order *order); /* the entries are not its own */

void ty_order_add(struct ty_order *order, struct ty_entry *entry, uint32_t domain); /* all zero before; it is OUT then */
void ty_order_take_out(struct ty_order *order, struct ty_entry *entry);             /* wherever it is; OUT then */
/* One that is OUT comes in. */
void ty_order_put(struct ty_order *order, struct ty_entry *entry, enum ty_reentry how, const struct ty_use *use);
void ty_order_used(struct ty_order *order, struct ty_entry *entry, const struct ty_use *use);  /* wherever it is */
void ty_order_hint(struct ty_order *order, struct ty_entry *entry, const struct ty_use *use);  /* not used, only told */
void ty_order_park(struct ty_order *order, struct ty_entry *entry);
void ty_order_gone(struct ty_order *order, struct ty_entry *entry, uint64_t id, bool evicted); /* NONE then */

/* It counts against another domain's quota from now on (what it is charged is the caller's to move). */
void ty_order_set_domain(struct ty_order *order, struct ty_entry *entry, uint32_t domain, uint64_t id);

/* Never a victim; again one, as an ordinary entry. What is OUT or PARKED stays there, and is kept from then on. */
void ty_order_keep(struct ty_order *order, struct ty_entry *entry, uint64_t id, uint32_t now, bool keep);

#define TY_ANY_DOMAIN UINT32_MAX
/* The next to go, of a domain or of all; it stays in. Null: there is none. */
struct ty_entry *ty_order_victim(struct ty_order *order, uint32_t domain);
/* It is no use for this search; ty_order_end_search puts all such back to where they were. */
void ty_order_set_aside(struct ty_order *order, struct ty_entry *entry);
void ty_order_end_search(struct ty_order *order);
struct ty_entry *ty_order_parked(struct ty_order *order); /* the one parked longest, null: none */

/* Bytes that a domain's entries take, as their owner counts them. */
void ty_order_charge(struct ty_order *order, uint32_t domain, uint64_t add, uint64_t subtract);
uint64_t ty_order_charged(const struct ty_order *order, uint32_t domain);
uint64_t ty_order_charged_all(const struct ty_order *order);
/* Would so much more be too much for the domain's hard quota? */
bool ty_order_exceeds(const struct ty_order *order, uint32_t domain, uint64_t bytes);

/* Everything from one order into another that has nothing yet, oldest first, so that what was to go first goes first. `visit`
 * says of each entry its new domain and its bytes. Every entry is looked at once, in this call. */
void ty_order_move_all(struct ty_order *from, struct ty_order *to,
	uint32_t (*visit)(void *user, struct ty_entry *entry, uint64_t *id, uint64_t *bytes), void *user);

const char *ty_order_policy(const struct ty_order *order);
uint64_t ty_order_bytes(const struct ty_order *order); /* memory beside the entries */

#endif
