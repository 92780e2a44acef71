/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/registry.h"

#include <assert.h>
#include <stdlib.h>

#include "runtime/runtime.h"

struct ty_registry_slot {
	_Atomic(struct ty_actor *) actor;
	_Atomic(uint32_t) next_free; /* index + 1; written by who frees the slot, before it is on the stack */
};

static uint32_t chunk_of(uint32_t slot, uint32_t *within)
{
	uint32_t chunk = 31u - (uint32_t)__builtin_clz(slot / TY_REGISTRY_FIRST + 1);

	*within = slot - TY_REGISTRY_FIRST * ((1u << chunk) - 1);
	return chunk;
}

static struct ty_registry_slot *find(struct ty_registry *registry, uint32_t slot)
{
	uint32_t within, chunk = chunk_of(slot, &within);

	/* acquire: pairs with the exchange in grow */
	return &atomic_load_explicit(&registry->chunks[chunk], memory_order_acquire)[within];
}

/* Have the chunk that `slot` lies in. Two may try; the one that loses frees its own. */
static bool grow(struct ty_registry *registry, uint32_t slot)
{
	uint32_t within, chunk = chunk_of(slot, &within);
	struct ty_registry_slot *fresh, *none = NULL;

	if (atomic_load_explicit(&registry->chunks[chunk], memory_order_acquire))
		return true;
	fresh = calloc((size_t)TY_REGISTRY_FIRST << chunk, sizeof *fresh);
	if (!fresh)
		return false;
	if (!atomic_compare_exchange_strong_explicit(&registry->chunks[chunk], &none, fresh,
		    memory_order_acq_rel, memory_order_acquire))
		free(fresh);
	return true;
}

static void push_free(struct ty_registry *registry, uint32_t slot)
{
	uint64_t old = atomic_load_explicit(&registry->free, memory_order_relaxed), next;

	do {
		atomic_store_explicit(&find(registry, slot)->next_free, (uint32_t)old, memory_order_relaxed);
		next = (old & ~(uint64_t)UINT32_MAX) | (slot + 1);
	} while (!atomic_compare_exchange_weak_explicit( /* release: pairs with pop_free's acquire */
		&registry->free, &old, next, memory_order_release, memory_order_relaxed));
}

/* The count of pops in the upper half makes a stack that changed and changed back look different. */
static bool pop_free(struct ty_registry *registry, uint32_t *slot)
{
	uint64_t old = atomic_load_explicit(&registry->free, memory_order_acquire), next;

	do {
		if ((uint32_t)old == 0)
			return false;
		*slot = (uint32_t)old - 1;
		next = ((old >> 32) + 1) << 32 |
			atomic_load_explicit(&find(registry, *slot)->next_free, memory_order_relaxed);
	} while (!atomic_compare_exchange_weak_explicit(
		&registry->free, &old, next, memory_order_acquire, memory_order_acquire));
	return true;
}

enum ty_code ty_registry_add(struct ty_registry *registry, struct ty_actor *actor, uint32_t *slot)
{
	if (!pop_free(registry, slot)) {
		uint32_t used = atomic_load_explicit(&registry->used, memory_order_relaxed);

		do { /* the chunk is there before a slot of it is handed out: take_all relies on it */
			if (used >= TY_REGISTRY_FIRST * ((1u << TY_REGISTRY_CHUNKS) - 1))
				return TY_LIMIT;
			if (!grow(registry, used))
				return TY_NO_MEMORY;
		} while (!atomic_compare_exchange_weak_explicit( /* release: pairs with take_all */
			&registry->used, &used, used + 1, memory_order_acq_rel, memory_order_relaxed));
		*slot = used;
	}
	/* release: whoever takes it out sees the actor whole. seq_cst is not needed: a spawn that destroy
	 * misses has counted itself alive before, and destroy looks again until nobody is. */
	actor->slot = *slot;
	atomic_store_explicit(&find(registry, *slot)->actor, actor, memory_order_release);
	return TY_OK;
}

bool ty_registry_remove(struct ty_registry *registry, uint32_t slot)
{
	/* acq_rel: the one that gets the pointer is alone with the reference */
	if (!atomic_exchange_explicit(&find(registry, slot)->actor, NULL, memory_order_acq_rel))
		return false;
	push_free(registry, slot);
	return true;
}

/* Merge two lists, higher numbers first. */
static struct ty_actor *merge(struct ty_actor *a, struct ty_actor *b)
{
	struct ty_actor *head = NULL, **tail = &head;

	while (a && b) {
		struct ty_actor **first = a->number > b->number ? &a : &b;

		*tail = *first;
		tail = &(*tail)->list_next;
		*first = *tail;
	}
	*tail = a ? a : b;
	return head;
}

struct ty_actor *ty_registry_take_all(struct ty_registry *registry)
{
	struct ty_actor *runs[32] = {0}, *all = NULL; /* runs[i]: null, or 2^i actors in order */
	uint32_t used = atomic_load_explicit(&registry->used, memory_order_acquire);

	for (uint32_t slot = 0; slot < used; slot++) {
		struct ty_actor *run =
			atomic_exchange_explicit(&find(registry, slot)->actor, NULL, memory_order_acq_rel);
		int i;

		if (!run)
			continue;
		run->list_next = NULL;
		for (i = 0; runs[i]; i++) {
			run = merge(runs[i], run);
			runs[i] = NULL;
		}
		runs[i] = run;
	}
	for (int i = 0; i < 32; i++)
		all = merge(runs[i], all);
	return all;
}

void ty_registry_free(struct ty_registry *registry)
{
	for (int i = 0; i < TY_REGISTRY_CHUNKS; i++)
		free(atomic_load_explicit(&registry->chunks[i], memory_order_relaxed));
}
