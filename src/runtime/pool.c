/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/pool.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/runtime.h"

#define SLAB_BYTES 16384 /* what a pool grows by, or by SLAB_BLOCKS blocks if that is more */
#define SLAB_BLOCKS 4
#define IN_USE UINT64_C(0x79745f6b636f6c62)
#define AT_HOME UINT64_C(0x656d6f685f7461)

/* Before the caller's bytes, which hold `next` while the block is free. */
struct ty_block {
	struct ty_pool *home;
	uint64_t state; /* IN_USE or AT_HOME: to catch what is freed twice, or is no block */
	struct ty_block *next;
};
#define HEADER offsetof(struct ty_block, next)

struct ty_slab {
	struct ty_slab *next;
	alignas(TY_LINE) unsigned char blocks[];
};

static_assert(HEADER % 16 == 0, "the caller's bytes are aligned for anything");
static_assert((TY_POOL_SMALLEST << (TY_POOL_CLASSES - 1)) - HEADER == TY_BLOCK_MAX, "the largest class");

static struct ty_pools *pools_new(const struct ty_thread *thread)
{
	struct ty_pools *pools = aligned_alloc(TY_LINE, sizeof *pools);

	if (!pools)
		return NULL;
	memset(pools, 0, sizeof *pools);
	for (unsigned i = 0; i < TY_POOL_CLASSES; i++) {
		struct ty_pool *pool = &pools->classes[i];

		pool->size = (size_t)TY_POOL_SMALLEST << i;
		pool->limit = thread->rt->pool_bytes / pool->size;
		pool->seat = thread->seat;
	}
	return pools;
}

void ty_pools_free(struct ty_pools *pools)
{
	for (unsigned i = 0; pools && i < TY_POOL_CLASSES; i++) {
		struct ty_slab *slab = pools->classes[i].slabs;

		while (slab) {
			struct ty_slab *next = slab->next;

			free(slab);
			slab = next;
		}
	}
	free(pools);
}

void ty_pools_count(const struct ty_pools *pools, uint64_t *out, uint64_t *busy)
{
	for (unsigned i = 0; i < TY_POOL_CLASSES; i++) {
		const struct ty_pool *pool = &pools->classes[i];
		uint64_t back = atomic_load_explicit(&pool->sent_home, memory_order_relaxed) +
			atomic_load_explicit(&pool->put, memory_order_relaxed);
		uint64_t taken = atomic_load_explicit(&pool->taken, memory_order_relaxed);

		*out += taken > back ? taken - back : 0; /* read one after the other: for a moment more may be back */
		*busy += atomic_load_explicit(&pool->busy, memory_order_relaxed);
	}
}

static void push(struct ty_pool *pool, struct ty_block *block)
{
	block->next = pool->free;
	pool->free = block;
}

/* More blocks, within the limit. */
static enum ty_code grow(struct ty_pool *pool)
{
	uint64_t count = SLAB_BYTES / pool->size < SLAB_BLOCKS ? SLAB_BLOCKS : SLAB_BYTES / pool->size;
	struct ty_slab *slab;

	if (pool->made >= pool->limit) {
		ty_count(&pool->busy);
		return TY_BUSY;
	}
	if (count > pool->limit - pool->made)
		count = pool->limit - pool->made;
	slab = aligned_alloc(TY_LINE, sizeof *slab + count * pool->size);
	if (!slab)
		return TY_NO_MEMORY;
	slab->next = pool->slabs;
	pool->slabs = slab;
	pool->made += count;
	while (count-- > 0) {
		struct ty_block *block = (struct ty_block *)(void *)(slab->blocks + count * pool->size);

		block->home = pool;
		block->state = AT_HOME;
		push(pool, block);
	}
	return TY_OK;
}

/* Caller: a thread that runs actors; null: no memory. */
static struct ty_pools *own_pools(const struct ty_thread *thread)
{
	/* relaxed: its own */
	struct ty_pools *pools = atomic_load_explicit(&thread->seat->pools, memory_order_relaxed);

	if (pools)
		return pools;
	pools = pools_new(thread);
	/* release: pairs with ty_runtime_stats */
	atomic_store_explicit(&thread->seat->pools, pools, memory_order_release);
	return pools;
}

enum ty_code ty_block_new(size_t size, void **out)
{
	struct ty_pools *pools;
	struct ty_pool *pool;
	struct ty_block *block;

	assert(ty_current && ty_current->self); /* blocks are made by handlers, and by whoever is a port */
	*out = NULL;
	if (size > TY_BLOCK_MAX)
		return TY_LIMIT;
	pools = own_pools(ty_current);
	if (!pools)
		return TY_NO_MEMORY;
	pool = pools->classes;
	while (pool->size - HEADER < size)
		pool++;
	if (!pool->free) /* acquire: pairs with send_home */
		pool->free = atomic_exchange_explicit(&pool->returned, NULL, memory_order_acquire);
	if (!pool->free) {
		enum ty_code code = grow(pool);

		if (code != TY_OK)
			return code;
	}
	block = pool->free;
	pool->free = block->next;
	block->state = IN_USE;
	ty_count(&pool->taken);
	*out = memset(&block->next, 0, size);
	return TY_OK;
}

static void send_home(struct ty_pool *pool, struct ty_block *block)
{
	struct ty_block *old = atomic_load_explicit(&pool->returned, memory_order_relaxed);

	atomic_fetch_add_explicit(&pool->sent_home, 1, memory_order_relaxed); /* before the push: then it may be freed */
	do
		block->next = old;
	while (!atomic_compare_exchange_weak_explicit( /* release: pairs with ty_block_new */
		&pool->returned, &old, block, memory_order_release, memory_order_relaxed));
}

void ty_block_free(void *bytes)
{
	struct ty_block *block;

	if (!bytes)
		return;
	block = ty_container_of(bytes, struct ty_block, next);
	assert(block->state == IN_USE); /* of ty_block_new, and freed once */
	block->state = AT_HOME;
	if (ty_current && ty_current->seat == block->home->seat) {
		ty_count(&block->home->put);
		push(block->home, block);
	} else {
		send_home(block->home, block);
	}
}
