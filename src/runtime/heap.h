/* SPDX-License-Identifier: Apache-2.0
 *
 * A pairing heap of times, intrusive, for one thread at a time: nothing is allocated, and any node
 * can be taken out. Used twice: an actor's timers, and a thread's alarms.
 */
#ifndef TY_RUNTIME_HEAP_H
#define TY_RUNTIME_HEAP_H

#include <stdint.h>

struct ty_heap_node {
	struct ty_heap_node *child, *next;
	struct ty_heap_node *prev; /* the sibling before, or the parent of a first child */
	int64_t key;
};

struct ty_heap {
	struct ty_heap_node *top; /* the smallest key; null when empty */
};

void ty_heap_insert(struct ty_heap *heap, struct ty_heap_node *node, int64_t key);
/* `node` must be in `heap`. */
void ty_heap_remove(struct ty_heap *heap, struct ty_heap_node *node);

#endif
