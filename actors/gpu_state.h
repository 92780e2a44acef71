/* SPDX-License-Identifier: Apache-2.0
 *
 * The owner's state, shared by its files and nobody else:
 *   gpu.c         the actor: its loop, the slow lane, life
 *   gpu_copies.c  ops: waiting, sharing, copies, their ends
 */
#ifndef TY_ACTORS_GPU_STATE_H
#define TY_ACTORS_GPU_STATE_H

#include "eviction.h"
#include "gpu.h"
#include "service.h"

#define GPU_BATCHES 64 /* given to the device at once */

struct batch {
	struct ty_batch base;
	struct ty_op *op; /* null: free */
	bool free_seen;   /* base.client_free was acted on */
	uint32_t step;    /* of a layered op */
	uint64_t bytes;
	int64_t submitted;
	struct batch *next; /* of the free list */
	struct ty_copy blocks[TY_BATCH_CHUNKS]; /* what base.copies is for a layered op */
};

struct ops { /* a queue of ops through ty_op.next */
	struct ty_op *head, **tail;
	uint32_t count;
};

struct msgs { /* a queue of messages through ty_msg.next */
	struct ty_msg *head, **tail;
};

/* One client's ops in one direction. */
struct flow {
	struct ops ops;
	uint64_t due;      /* virtual time from which its next batch may go */
	struct flow *next; /* of the active ones */
};

/* All clients' ops in one direction. Virtual time is what each client has moved, and what its batches cost beside that, divided by its weight:
 * the one that is behind the others goes next (start-time fair queueing). */
struct share {
	struct flow *active; /* those with ops */
	uint64_t now;        /* due of the batch that went last */
	uint32_t count;      /* ops */
	uint32_t out;        /* batches that the device has, and their bytes */
	uint64_t out_bytes;
	struct flow flows[TY_MAX_CLIENTS]; /* by the client's number, whose low bits are its index; one that gets another's old place inherits its due */
};

struct gpu {
	struct ty_service *service;
	uint32_t index;
	struct ty_device_options options;
	struct ty_gpu_stats *stats;
	struct ty_record_owner *record; /* null: none is kept */
	struct ty_device *dev; /* null: could not be opened */
	struct ty_error failure; /* why ops cannot be served, when code is not TY_OK */
	struct ty_gpu_ready ready;
	struct ty_actor **ready_to;
	uint32_t ready_type;
	uint8_t *registered; /* bits: pieces of the arena that this owner registered, and takes back at its end */

	struct ops waiting;     /* for their ready words */
	struct share queue[2];  /* by enum ty_direction */
	uint32_t flying;        /* ops whose last copy is submitted and not done */
	uint32_t retrieve_run;
	int64_t waiting_since, expire_at;

	struct batch batches[GPU_BATCHES], *free_batches;
	uint32_t in_flight; /* batches */
	bool stalled;       /* one of them is older than --gpu-stall-after */

	struct msgs urgent_slow, slow; /* map and unmap; pieces */
	int64_t urgent_after, slow_after; /* none of them before this time */
	bool slow_was_last;            /* of the two that take turns, it and submit */
	int64_t submitted;             /* when a batch was, last */
};

/* gpu.c */
void gpu_set_state(struct gpu *g, enum ty_gpu_state state);

/* One writer, this actor. */
static inline void gpu_count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

/* gpu_copies.c */
void gpu_copies_init(struct gpu *g);
void gpu_take(struct gpu *g, struct ty_op *op);           /* a new op */
void gpu_look_at_ready_words(struct gpu *g);
void gpu_expire(struct gpu *g, int64_t now);              /* ops that wait, and whether the device stalls */
void gpu_submit(struct gpu *g, int64_t now);              /* until the device takes no more */
void gpu_poll_device(struct gpu *g);

static inline uint32_t gpu_queued(const struct gpu *g)
{
	return g->queue[0].count + g->queue[1].count;
}

#endif
