/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of operations: a row for each RETRIEVE and STORE that is out, of all engines together. It is what STATUS shows, and
 * it is the credit: as many operations as it has rows, and so many bytes, may be out at once, and an engine may have as many of
 * either as are free. So one that asks for more and more gets half of it at the most, two of them a third each, and there
 * is always something free for one that comes new.
 */
#ifndef TY_ACTORS_OPERATIONS_H
#define TY_ACTORS_OPERATIONS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <tyer/result.h>

/* Where an operation is. The numbers are OperationState's (tyer.proto). */
enum ty_op_state {
	TY_OP_RESERVING,  /* a STORE waits for slots */
	TY_OP_WAITING,    /* its ready word has not come */
	TY_OP_QUEUED,     /* for the device */
	TY_OP_COPYING,    /* the client's blocks are touched, or have been */
	TY_OP_COMMITTING, /* a STORE's copies are done */
	TY_OP_OVER,       /* it has landed (in an engine's history only) */
};

/* Written by the engine whose operation it is, but for `state`: that by whoever has the op. Read by metrics. The engine writes
 * `version` odd before it changes the row and even after; whoever reads looks at it before and after. Every store is a
 * release and every load an acquire, so that one who saw any of a change sees that the version is another. */
struct ty_op_row {
	_Atomic uint64_t version; /* odd: free, or changing */
	_Atomic uint64_t id, client, session;
	_Atomic int64_t began; /* runtime's clock */
	_Atomic uint32_t retrieve, device, chunks, state, answered; /* answered: its request has had its answer */
};

struct ty_op_seen { /* a row, as it was at one moment */
	uint64_t id, client, session;
	int64_t began;
	bool retrieve, answered;
	uint32_t device, chunks, state;
};

struct ty_op_table {
	uint32_t count;
	uint64_t bytes;
	struct ty_op_row *rows;      /* count */
	_Atomic uint64_t *taken;     /* a bit a row; set before the row is written: acquire, cleared after: release */
	_Atomic uint32_t used;       /* engines, relaxed; never less than there are bits set */
	_Atomic uint64_t used_bytes; /* engines, relaxed */
	_Atomic uint64_t refused;    /* BUSY for want of credit; engines, relaxed */
};

TY_MUST_USE enum ty_code ty_op_table_open(struct ty_op_table *table, uint32_t count, uint64_t bytes, struct ty_error *err);
void ty_op_table_close(struct ty_op_table *table);

/* Credit for one more of `bytes`, for an engine that has `engine_count` and `engine_bytes` out. TY_BUSY: none. On TY_OK *row is the
 * caller's to write, until it is given back. */
TY_MUST_USE enum ty_code ty_op_table_take(struct ty_op_table *table, uint64_t bytes, uint32_t engine_count,
	uint64_t engine_bytes, struct ty_op_row **row, struct ty_error *err);
void ty_op_table_give(struct ty_op_table *table, struct ty_op_row *row, uint64_t bytes);

/* The engine's, after take: the row is there for all to see. */
void ty_op_row_write(struct ty_op_row *row, const struct ty_op_seen *what);
/* Whoever has the op. Null is allowed: an operation without a row. */
void ty_op_row_state(struct ty_op_row *row, enum ty_op_state state);
/* The engine's. */
void ty_op_row_answered(struct ty_op_row *row);
/* Anybody: row i. False: it is free, or was just changing. */
bool ty_op_table_see(const struct ty_op_table *table, uint32_t i, struct ty_op_seen *out);

#endif
