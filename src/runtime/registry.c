/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/registry.h"

#include <assert.h>
#include <stdlib.h>

#include "runtime/runtime.h"

/* An actor's address; or FREE, and how the stack of free slots goes on; or TAKEN, by destroy. */
struct ty_registry_slot {
	_Atomic(uintptr_t) word;
};

#define FREE ((uintptr_t)1)  /* a bit: above it index + 1 of the next */
#define TAKEN ((uintptr_t)0)

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

/* Slots that are free and nobody else's, as one piece. */
static void push_free(struct ty_registry *registry, const uint32_t *slots, uint32_t count)
{
	uint64_t old = atomic_load_explicit(&registry->free, memory_order_relaxed), next;
	uint32_t last = slots[count - 1];

	for (uint32_t i = 0; i + 1 < count; i++)
		atomic_store_explicit(&find(registry, slots[i])->word, (uintptr_t)(slots[i + 1] + 1) << 1 | FREE,
			memory_order_relaxed);
	do {
		atomic_store_explicit(
			&find(registry, last)->word, (uintptr_t)(uint32_t)old << 1 | FREE, memory_order_relaxed);
		next = (old & ~(uint64_t)UINT32_MAX) | (slots[0] + 1);
	} while (!atomic_compare_exchange_weak_explicit( /* release: pairs with pop_free's acquire */
		&registry->free, &old, next, memory_order_release, memory_order_relaxed));
}

/* Take up to `most` off the stack, whose top is `top`, without changing it. What is read of a slot that is an actor's by now
 * is noticed here, or by who compares the stack's count. Returns how many; *rest: the stack without them. */
static uint32_t walk_free(struct ty_registry *registry, uint32_t top, uint32_t *slots, uint32_t most, uint32_t *rest)
{
	/* acquire: pairs with the growth of it; a slot below it has its chunk */
	uint32_t used = atomic_load_explicit(&registry->used, memory_order_acquire), count = 0;

	for (; count < most && top; count++) {
		uintptr_t word;

		if (top > used)
			return 0;
		word = atomic_load_explicit(&find(registry, top - 1)->word, memory_order_relaxed);
		if (!(word & FREE))
			return 0;
		slots[count] = top - 1;
		top = (uint32_t)(word >> 1);
	}
	*rest = top;
	return count;
}

/* Up to `most` free slots; returns how many. The count of pops in the upper half makes a stack that changed and changed
 * back look different (tests/model/slots.pml). */
static uint32_t pop_free(struct ty_registry *registry, uint32_t *slots, uint32_t most)
{
	uint64_t old = atomic_load_explicit(&registry->free, memory_order_acquire);
	uint32_t count = 0, rest = 0;

	do {
		while ((uint32_t)old && !(count = walk_free(registry, (uint32_t)old, slots, most, &rest)))
			old = atomic_load_explicit(&registry->free, memory_order_acquire);
		if (!(uint32_t)old)
			return 0;
	} while (!atomic_compare_exchange_weak_explicit(&registry->free, &old, ((old >> 32) + 1) << 32 | rest,
		memory_order_acquire, memory_order_acquire));
	return count;
}

static bool take_free(struct ty_registry *registry, struct ty_registry_cache *cache, uint32_t *slot)
{
	if (!cache)
		return pop_free(registry, slot, 1);
	if (!cache->count)
		cache->count = pop_free(registry, cache->slots, TY_REGISTRY_CACHE / 2);
	if (!cache->count)
		return false;
	*slot = cache->slots[--cache->count];
	return true;
}

static void give_free(struct ty_registry *registry, struct ty_registry_cache *cache, uint32_t slot)
{
	if (!cache) {
		push_free(registry, &slot, 1);
		return;
	}
	if (cache->count == TY_REGISTRY_CACHE) {
		cache->count /= 2;
		push_free(registry, cache->slots + cache->count, cache->count);
	}
	cache->slots[cache->count++] = slot;
}

enum ty_code ty_registry_add(struct ty_registry *registry, struct ty_registry_cache *cache, struct ty_actor *actor)
{
	uint32_t slot;

	if (!take_free(registry, cache, &slot)) {
		uint32_t used = atomic_load_explicit(&registry->used, memory_order_relaxed);

		do { /* the chunk is there before a slot of it is handed out: take_all relies on it */
			if (used >= TY_REGISTRY_FIRST * ((1u << TY_REGISTRY_CHUNKS) - 1))
				return TY_LIMIT;
			if (!grow(registry, used))
				return TY_NO_MEMORY;
		} while (!atomic_compare_exchange_weak_explicit( /* release: pairs with take_all */
			&registry->used, &used, used + 1, memory_order_acq_rel, memory_order_relaxed));
		slot = used;
	}
	/* release: whoever takes it out sees the actor whole. seq_cst is not needed: a spawn that destroy
	 * misses has counted itself alive before, and destroy looks again until nobody is. */
	actor->slot = slot & INT32_MAX;
	atomic_store_explicit(&find(registry, slot)->word, (uintptr_t)actor, memory_order_release);
	return TY_OK;
}

/* The actor in a slot, if there is one. */
static struct ty_actor *take(struct ty_registry *registry, uint32_t slot)
{
	_Atomic(uintptr_t) *word = &find(registry, slot)->word;
	uintptr_t found = atomic_load_explicit(word, memory_order_relaxed);

	while (found != TAKEN && !(found & FREE))
		if (atomic_compare_exchange_weak_explicit( /* the one that gets the address is alone with the reference */
			    word, &found, TAKEN, memory_order_acq_rel, memory_order_relaxed))
			return (struct ty_actor *)found;
	return NULL;
}

bool ty_registry_remove(struct ty_registry *registry, struct ty_registry_cache *cache, uint32_t slot)
{
	if (!take(registry, slot))
		return false;
	give_free(registry, cache, slot);
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
		struct ty_actor *run = take(registry, slot);
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
