/* SPDX-License-Identifier: Apache-2.0
 *
 * The actors that live, so that destroy can find them. A slot holds one reference; whoever exchanges
 * the pointer out of the slot has it. Slots come in chunks that double and are never given back.
 *
 * A thread that spawns and ends actors keeps a few free slots of its own (a cache), which it takes from the stack of all and
 * gives back there in one piece: that stack's word is one that all threads change.
 *
 *            who with whom   add    remove   take_all
 *            add             yes    yes      yes (may be missed: look again)
 *            remove          yes    yes (different actors)    yes
 *            take_all        yes    yes      no
 */
#ifndef TY_RUNTIME_REGISTRY_H
#define TY_RUNTIME_REGISTRY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <tyer/result.h>

struct ty_actor;
struct ty_registry_slot;

#define TY_REGISTRY_FIRST 64  /* slots in the first chunk */
#define TY_REGISTRY_CHUNKS 20 /* 64 * (2^20 - 1) actors at once */

#define TY_REGISTRY_CACHE 64

/* Free slots that one thread has. */
struct ty_registry_cache {
	uint32_t count;
	uint32_t slots[TY_REGISTRY_CACHE];
};

struct ty_registry {
	_Atomic(struct ty_registry_slot *) chunks[TY_REGISTRY_CHUNKS];
	_Atomic(uint32_t) used;  /* slots ever handed out */
	_Atomic(uint64_t) free;  /* stack of free slots: count of pops << 32 | index + 1 */
};

/* Writes the actor's slot. `cache`: the calling thread's, or null. */
TY_MUST_USE enum ty_code ty_registry_add(
	struct ty_registry *registry, struct ty_registry_cache *cache, struct ty_actor *actor);
/* True: the caller has the slot's reference now. False: take_all was first. */
bool ty_registry_remove(struct ty_registry *registry, struct ty_registry_cache *cache, uint32_t slot);
/* All that are there, linked by list_next, the youngest first. */
struct ty_actor *ty_registry_take_all(struct ty_registry *registry);
void ty_registry_free(struct ty_registry *registry);

#endif
