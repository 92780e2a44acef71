/* SPDX-License-Identifier: Apache-2.0
 *
 * Which entry goes next. A policy keeps the entries that could be evicted in an order of its own; it knows nothing of what
 * they are, of pins, bytes, tenants or hints (order.h puts those on top). Intrusive: the entry lies in what it stands for,
 * a chunk of the arena, a file of a tier, a block of a simulation. Owned by one actor, who alone calls it.
 *
 * A policy may remember entries that were evicted ("ghosts") by a 64-bit id: two with the same id are taken for one, which
 * costs a hint and no more. Ghosts are never more than the entries that are here.
 */
#ifndef TY_CACHE_POLICY_H
#define TY_CACHE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "ring.h"

/* 28 bytes in each entry: there are hundreds of thousands of them. */
struct ty_entry {
	struct ty_link link; /* of the ring it is in */
	uint32_t used;       /* order.h: when it was used last, in units of TY_ORDER_UNIT_NS */
	uint32_t owner;      /* order.h: the conversation that used it, 0: none is known */
	uint8_t place, band; /* order.h: where it is, and in which band */
	uint8_t domain;      /* order.h: whose quota it counts against */
	uint8_t list;        /* the policy's: which of its lists, how often used. 0: it has never had it */
};

struct ty_policy;

enum ty_reentry {
	TY_REENTER_USED,  /* it was used meanwhile */
	TY_REENTER_YOUNG, /* it was not, but is to be the last to go of its list */
	TY_REENTER_OLD,   /* nothing happened: it is the next to go of its list */
};

struct ty_policy_class {
	const char *name;
	struct ty_policy *(*create)(void); /* null: no memory */
	void (*destroy)(struct ty_policy *policy); /* the entries are not its own */
	/* A new entry (its list is 0) comes in. That counts as its first use. */
	void (*enter)(struct ty_policy *policy, struct ty_entry *entry, uint64_t id);
	/* It goes out: to be evicted, or because it is not to be a victim for a while. It keeps its list. */
	void (*leave)(struct ty_policy *policy, struct ty_entry *entry);
	/* One that left comes back. */
	void (*reenter)(struct ty_policy *policy, struct ty_entry *entry, enum ty_reentry how);
	/* One that is in is used. */
	void (*touch)(struct ty_policy *policy, struct ty_entry *entry);
	/* One that left was evicted. */
	void (*evicted)(struct ty_policy *policy, const struct ty_entry *entry, uint64_t id);
	/* The one to go next, which stays in; null: there is none. May move others. */
	struct ty_entry *(*victim)(struct ty_policy *policy);
	uint64_t (*bytes)(const struct ty_policy *policy); /* memory that it takes beside the entries */
};

struct ty_policy {
	const struct ty_policy_class *cls;
};

extern const struct ty_policy_class ty_policy_arc, ty_policy_lru, ty_policy_s3fifo;
/* All, by enum ty_config_policy (base/config.h), null at the end. */
extern const struct ty_policy_class *const ty_policies[];
const struct ty_policy_class *ty_policy_find(const char *name); /* null: there is none */

#endif
