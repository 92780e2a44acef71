/* SPDX-License-Identifier: Apache-2.0
 *
 * A RETRIEVE or STORE on its way. One object, allocated by the engine actor at admission (for a chunk that
 * comes up from a tier by prefetch: to the arena that is a store too), that
 * travels and sits in one mailbox at a time:
 *
 *   STORE     engine -> eviction (reserve) -> gpu (copy) -> eviction (commit or give back) -> engine
 *   RETRIEVE  engine -> gpu (copy) -> engine
 *   loading   prefetch -> eviction (reserve) -> prefetch (a tier's GET) -> eviction (commit or give back) -> prefetch
 *
 * Whoever has it may write it; `touch` alone is shared. The client's answer does not hang on it:
 * the engine keeps the exchange (rpc.h) beside it, and may answer TIMEOUT or CANCELLED while the op is
 * still out; its slots, pins and blocks stay its own until it is back.
 */
#ifndef TY_ACTORS_OP_H
#define TY_ACTORS_OP_H

#include <stdatomic.h>
#include <tyer/actor.h>

#include "cache/index.h"
#include "cache/order.h"
#include "device/device.h"
#include "operations.h"
#include "wire/timeline.h"

#define TY_WEIGHT_MAX 100 /* of a client */

enum ty_op_kind { TY_OP_STORE, TY_OP_RETRIEVE };

/* What became of one chunk of the op. */
enum ty_op_fate { TY_FATE_MOVE, TY_FATE_PRESENT, TY_FATE_DROPPED };

struct ty_op_chunk {
	struct ty_key key;
	struct ty_chunk *chunk; /* RETRIEVE: pinned by the engine. STORE with FATE_MOVE: being filled by this op */
	uint32_t slot;          /* this op's part of it */
	enum ty_op_fate fate;
	uint64_t checksum;      /* of the part's contents, if it came with one (cache/checksum.h); 0: it did not */
	uint16_t below;         /* STORE: bit i: it comes from tier i */
};

/* What an engine says of the future of what it used; all zero: nothing. */
struct ty_hint {
	uint32_t owner; /* the conversation (cache/order.h) */
	uint8_t band;   /* enum ty_band */
	bool keep;      /* never evict it, as far as that is allowed */
};

/* Who was first: the engine that gives an op up, or the owner that begins it? Bits that are only ever set, each by one side, by
 * a read-modify-write (acq_rel): both see one order, so a client is never told that blocks are safe which are still touched. */
enum ty_op_touch {
	TY_OP_BEGUN = 1,     /* the owner's: its first copy may be out */
	TY_OP_CLEAR = 2,     /* the owner's: the client's blocks are not touched any more */
	TY_OP_CANCELLED = 4, /* the engine's: what has not begun need not begin */
};

/* Of an op that goes step by step: all places of a step's group, then its next group, then the next step. What is skipped has no place, so
 * that it costs nothing at each step. */
struct ty_op_cursor {
	uint32_t step, group, place;
};
struct ty_op_place {
	uint32_t copy, block; /* of the copy's blocks, from the group's first */
};

struct ty_op {
	struct ty_msg msg;
	enum ty_op_kind kind;
	struct ty_op_row *row;     /* in the table of operations; null for what is no request's */
	uint64_t id;               /* the engine's, for its table and for logs */
	struct ty_actor *home;     /* where it comes back to, and as what message; outlives its ops */
	uint32_t home_type;        /* TY_ENGINE_OP_DONE; TY_PREFETCH_LANDED */
	struct ty_actor *mover;    /* who moves its bytes, and as what message it gets the op */
	uint32_t mover_type;       /* TY_GPU_TRANSFER; TY_PREFETCH_RESERVED */
	struct ty_actor *copied;   /* where it goes when a device has moved them, and as what message */
	uint32_t copied_type;      /* TY_EVICTION_COMMIT; RETRIEVE: home's */
	/* The owner's, before it says that blocks hold their contents: do the slots still hold what they did? Null: nobody else could
	 * have changed them. */
	bool (*holds)(const struct ty_op *op);
	uint16_t space;            /* STORE: whose chunks (cache/space.h) */
	uint64_t client;           /* whose it is ... */
	uint32_t weight;           /* ... and how much of the device it gets beside others: 1..TY_WEIGHT_MAX */
	int64_t deadline;          /* runtime's clock */
	_Atomic uint32_t touch;    /* bits of enum ty_op_touch; see ty_op_cancel */

	const struct ty_layout *layout; /* of the registration, which outlives its ops */
	struct ty_mapping *mapping;
	struct ty_timeline *timeline;
	struct ty_mark ready, done;
	struct ty_mark layers;     /* RETRIEVE: word 0: not step by step */
	/* The owner's, from ty_op_make_steps; null: no layers. */
	uint32_t *step_left;        /* by step, layout->step_count: copies that are not done */
	struct ty_op_place *places; /* group by group ... */
	uint32_t places_end[TY_MAX_GROUPS]; /* ... where each ends */

	struct ty_hint hint;            /* STORE: of its chunks */

	uint32_t count;
	struct ty_op_chunk *chunks; /* count */
	uint32_t *blocks;           /* count * layout->blocks_per_chunk, chunk by chunk */

	/* What the owner moves: the chunks of FATE_MOVE. RETRIEVE: filled by the engine, STORE: by eviction. */
	uint32_t copy_count;
	struct ty_copy *copies;     /* room for count */

	/* The outcome. */
	enum ty_code code;          /* TY_OK, or why the copy failed */
	char error[160];
	uint32_t stored, present, dropped;

	/* The owner's while it has the op, then checksum's. */
	struct ty_op *next;
	uint32_t total;                      /* copies in the device's terms: chunks, or blocks of parts */
	uint32_t submitted, finished, freed; /* of them: given to the device, done, client's blocks free */
	struct ty_op_cursor at;              /* layers: what comes next */
	uint32_t steps_done;
	bool queued;                         /* in one of the owner's queues */
	bool done_raised;

	/* The eviction actor's, while it waits for the arena to grow, for pins of its own to end, or for victims to be written. */
	struct ty_op *waiting_next;
	int64_t patient; /* so long it waits for victims to be written ... */
	bool waited;     /* ... and it did */
	bool for_quota;  /* it waits for room in its tenant's quota, not in the arena */
	uint64_t sums; /* chunks that had gone to be summed up when it first found no room; 0: it did not yet */
};

/* The engine's. Nobody wants it any more. True: no copy of it touches the client's blocks, now or later. */
bool ty_op_cancel(struct ty_op *op);
/* Anybody for whom the op lives: may a copy touch the client's blocks, now or later? */
bool ty_op_touches(const struct ty_op *op);
/* Whoever has the op: was it given up? */
bool ty_op_cancelled(const struct ty_op *op);
/* The owner's, before the op's first copy. False: it was given up, and must not begin. */
TY_MUST_USE bool ty_op_begin(struct ty_op *op);
/* The owner's: the last copy that touches the client's blocks is over. */
void ty_op_clear(struct ty_op *op);

/* Before it sets out, of one with layers whose blocks are there. TY_NO_MEMORY; TY_LIMIT: more copies than can be counted. */
TY_MUST_USE enum ty_code ty_op_make_steps(struct ty_op *op, struct ty_error *err);
void ty_op_free_steps(struct ty_op *op);

/* Has its ready word come, or has it none? */
bool ty_op_is_ready(const struct ty_op *op);

/* Raise the op's done word, if it has one (once; the word only grows). Whoever has the op. */
void ty_op_raise_done(struct ty_op *op);
/* Steps before `steps` are there: raise the op's layers word, if it has one. */
void ty_op_raise_layers(struct ty_op *op, uint32_t steps);
/* code + text, unless a failure is recorded already. */
void ty_op_fail(struct ty_op *op, enum ty_code code, const char *fmt, ...) TY_PRINTF(3, 4);

#endif
