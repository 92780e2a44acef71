/* SPDX-License-Identifier: Apache-2.0
 *
 * What the embedded actor's files share. All of it is the actor's own.
 *   embedded.c         connections, waiting, life
 *   embedded_work.c    pools and operations that are out with an owner
 */
#ifndef TY_ACTORS_EMBEDDED_STATE_H
#define TY_ACTORS_EMBEDDED_STATE_H

#include "base/waiter.h"
#include "embedded.h"
#include "service.h"
#include "wire/owner.h"

/* A pool that an owner has mapped, or is asked to. To engines it is the ty_mapping, which nobody but an owner looks into. */
struct lent_pool {
	struct lent_pool *next;
	struct owner *owner;
	uint64_t number;
	struct ty_map *map; /* asked to map or unmap it; null: neither */
};

/* An operation that is out. */
struct granted {
	struct granted *next;
	uint64_t number;
	struct ty_op *op;
	bool cancel_sent;
};

/* An owner, until its connection is over and nothing is out. */
struct owner {
	struct owner *next;
	struct ty_owner_stream stream; /* fd -1: over */
	bool waits;       /* for room to send */
	bool greeted;     /* it said HELLO, and has its arena */
	int process;      /* a pidfd; -1: the process has ended */
	uint32_t index;   /* among the actor's owners: epoll knows it by twice that, and its process by one more */
	uint32_t pid, uid, place; /* place: in the slot table's list of borrowers */
	uint8_t id[TY_OWNER_BYTES];
	char name[TY_OWNER_NAME_MAX + 1];
	struct lent_pool *pools;
	struct granted *granted;
	uint8_t *told;    /* bits: pieces that it was told of */
	int64_t hello_by;
};

struct embedded {
	struct ty_service *service;
	struct ty_embedded_stats *stats;
	struct ty_waiter waiter;
	struct owner *owners, *at[TY_EMBEDDED_MAX];
	uint32_t count;
	uint64_t last_number; /* of pools and operations */
	uint64_t ready_bytes; /* of the arena, when owners were told of it last */
	int64_t look_at;      /* when to look for what was cancelled, and for new pieces */
};

/* One writer, this actor. */
static inline void embedded_count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

/* embedded.c */
/* Its connection is over: what is out stays out until its process has ended. */
void embedded_lose(struct embedded *e, struct owner *o, const char *why);
/* Send a frame; on failure the owner is lost. */
void embedded_send(struct embedded *e, struct owner *o, const struct ty_owner_frame *frame);

/* embedded_work.c */
void embedded_transfer(struct embedded *e, struct ty_op *op);
void embedded_map(struct embedded *e, struct ty_map *map);
void embedded_unmap(struct embedded *e, struct ty_map *map);
/* False: nothing like that is out. */
TY_MUST_USE bool embedded_mapped(struct embedded *e, struct owner *o, const struct ty_owner_frame *frame);
TY_MUST_USE bool embedded_unmapped(struct embedded *e, struct owner *o, const struct ty_owner_frame *frame);
TY_MUST_USE bool embedded_done(struct embedded *e, struct owner *o, const struct ty_owner_frame *frame);
void embedded_tell_pieces(struct embedded *e, struct owner *o);
void embedded_cancel(struct embedded *e, struct owner *o); /* what nobody wants any more */
void embedded_drop_maps(struct embedded *e, struct owner *o);   /* those that wait for an answer hear that it is gone */
void embedded_drop_granted(struct embedded *e, struct owner *o); /* its process has ended */

#endif
