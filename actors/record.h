/* SPDX-License-Identifier: Apache-2.0
 *
 * The record: what each owner did last, in memory that outlives the process (a memfd that is kept beside the arena), so that
 * it can be told after any death: by the process itself, if a device's fault ends it, else by the next one.
 */
#ifndef TY_ACTORS_RECORD_H
#define TY_ACTORS_RECORD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <tyer/result.h>

#define TY_RECORD_OWNERS 16
#define TY_RECORD_ENTRIES 128 /* of an owner: the last so many */
#define TY_RECORD_TOLD 16     /* of these are told */

enum ty_record_event {
	TY_RECORD_NONE,
	TY_RECORD_OPEN,   /* the device; detail: nothing */
	TY_RECORD_CAME,   /* a store or retrieve; detail: its chunks */
	TY_RECORD_SUBMIT, /* a batch of it; chunks */
	TY_RECORD_DONE,   /* likewise */
	TY_RECORD_END,    /* of the op; chunks */
	TY_RECORD_MAP,    /* a client's pool; its registration */
	TY_RECORD_UNMAP,
	TY_RECORD_PIECE,  /* registered; its index */
	TY_RECORD_FAULT,  /* the device is beyond use */
	TY_RECORD_EVENTS
};

/* Fixed layout: shared with later processes. An entry's words are written by its owner alone (relaxed), `number` last (release;
 * pairs with the reader's acquire): an entry whose number is not the one expected is being written. */
struct ty_record_entry {
	_Atomic uint64_t number; /* from 1 */
	_Atomic uint64_t when;   /* CLOCK_MONOTONIC, ns */
	_Atomic uint64_t what;   /* event, is it a store << 8, code << 16 */
	_Atomic uint64_t op, detail;
	uint64_t unused[3];
};

struct ty_record_owner {
	char device[32];      /* "cuda:0"; written before any entry; "": there is no such owner */
	_Atomic uint64_t last; /* number of the last entry */
	uint64_t unused[3];
	struct ty_record_entry entries[TY_RECORD_ENTRIES];
};

struct ty_record {
	char magic[8];
	uint32_t version;
	int32_t pid;          /* whose record it is */
	_Atomic uint32_t told; /* nothing is left to say: it ended as it should, or has told all itself */
	struct ty_record_owner owners[TY_RECORD_OWNERS];
};

/* A new one, in a memfd. */
TY_MUST_USE enum ty_code ty_record_open(struct ty_record **out, int *fd, struct ty_error *err);
/* That of the process before: as it left it, until ty_record_begin. TY_INVALID: it is none. */
TY_MUST_USE enum ty_code ty_record_adopt(int fd, struct ty_record **out, struct ty_error *err);
/* From here on it is this process's, and empty. */
void ty_record_begin(struct ty_record *record);
void ty_record_close(struct ty_record *record);

/* The owner's. `owner` may be null: nobody keeps a record. */
void ty_record_note(struct ty_record_owner *owner, enum ty_record_event event, bool store, enum ty_code code, uint64_t op,
	uint64_t detail);

/* Line by line, without newline, the oldest first; any thread. False from `line` ends it. */
void ty_record_tell(const struct ty_record *record, bool (*line)(void *user, const char *text), void *user);

#endif
