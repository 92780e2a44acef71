/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of actors that have ended, kept for those that are spawned next: a general allocator is slow where one thread
 * allocates what another frees, and its lock is one that threads wait for. Each thread that runs actors keeps what it frees,
 * up to two batches a size; batches that are too many for one, and wanted by another, go through the runtime's depot.
 *
 *            who with whom    spare's take, put        depot's take, put
 *            spare's          no: its thread's         yes
 *            depot's          yes                      yes: each place is one word
 *
 * Every piece comes from malloc and may go back to free at any time, on any thread. What a sanitizer of addresses
 * must not see used is poisoned while it is here.
 */
#ifndef TY_RUNTIME_SPARE_H
#define TY_RUNTIME_SPARE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct ty_spare; /* a piece of memory that nobody uses: a list of them lies in themselves */

#define TY_SPARE_UNIT 16
#define TY_SPARE_FIRST 8    /* so that a piece fills what malloc gives: with its 8 bytes a multiple of 16 */
#define TY_SPARE_CLASSES 17 /* pieces that hold a state of 8, 24, ... 264 bytes; larger ones are not kept */
#define TY_SPARE_BATCH 64   /* pieces */
#define TY_SPARE_PLACES 64  /* batches of a size in the depot: with them, what a runtime keeps of a size is bounded */

/* Of a size, a thread's. */
struct ty_spare_stock {
	struct ty_spare *loose; /* those that `count` says, at most a batch */
	struct ty_spare *batch; /* a full one, or null */
	uint32_t count;
};

struct ty_spares {
	struct ty_spare_stock classes[TY_SPARE_CLASSES];
};

struct ty_depot {
	_Atomic(struct ty_spare *) places[TY_SPARE_CLASSES][TY_SPARE_PLACES]; /* null, or a batch */
};

/* `base` bytes and a state's; null: no memory. Without `spares` (a thread that is none of the runtime's): from malloc. */
void *ty_spare_take(struct ty_spares *spares, struct ty_depot *depot, size_t base, size_t state);
/* What ty_spare_take gave for the same sizes, perhaps to another runtime's thread. */
void ty_spare_put(struct ty_spares *spares, struct ty_depot *depot, void *memory, size_t base, size_t state);
/* Nobody takes or puts any more. */
void ty_spares_free(struct ty_spares *spares);
void ty_depot_free(struct ty_depot *depot);

#endif
