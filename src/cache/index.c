/* SPDX-License-Identifier: Apache-2.0
 *
 * Orders on a chunk's word, which is the only thing that two threads write:
 *
 *   publish  FILLING -> READY      release   pairs with pin's acquire: whoever pins sees the slots
 *   pin      READY, n -> n + 1     acquire   (and nothing happens to a DEAD one, whose memory is kept by RCU meanwhile)
 *   unpin    n -> n - 1            release   pairs with kill's acquire: whoever reuses the slots comes after the last
 *                                            reader's use of them. Unpins and pins in between are read-modify-writes, so
 *                                            they carry the release of every earlier unpin on (a release sequence).
 *   condemn  READY, n -> WRONG, n  relaxed   only takes it out of pin's reach
 *   kill     READY, 0 -> DEAD      acquire   (and WRONG, 0 -> DEAD)
 */
#include "index.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include <tyer/actor.h>

#include "base/tsan.h"

#define STATE_MASK UINT64_C(0xff)
#define ONE_PIN (UINT64_C(1) << 8)

#define BUCKETS_MIN 1024u         /* at start, and never fewer */
#define BUCKETS_MAX (1u << 24)    /* virtual memory only, until they are needed */

struct ty_index {
	struct cds_lfht *table;
	_Atomic uint64_t count; /* written by eviction, read by anyone; relaxed: a statistic */
	struct rcu_head drain;
};

/* What ThreadSanitizer is told about grace periods: every read section ends before what is freed after it. */
static char grace_period;

static void read_lock(void)
{
	urcu_memb_read_lock();
}

static void read_unlock(void)
{
	ty_tsan_release(&grace_period);
	urcu_memb_read_unlock();
}

/* Keys are uniform already (BLAKE2b): eight bytes of one are as good a hash as any. */
static unsigned long hash_key(const struct ty_key *key)
{
	uint64_t word;

	memcpy(&word, key->bytes, sizeof word);
	return (unsigned long)word;
}

static struct ty_chunk *chunk_of(struct cds_lfht_node *node)
{
	return ty_container_of(node, struct ty_chunk, node);
}

static int match_key(struct cds_lfht_node *node, const void *key)
{
	struct ty_chunk *chunk = chunk_of(node);

	ty_tsan_acquire(chunk); /* of ty_index_add, through the table */
	return memcmp(chunk->key.bytes, ((const struct ty_key *)key)->bytes, TY_KEY_BYTES) == 0;
}

enum ty_code ty_index_create(struct ty_index **out, struct ty_error *err)
{
	struct ty_index *index;

	if (sodium_init() < 0)
		return ty_fail(err, TY_INTERNAL, "index: libsodium does not start");
	index = calloc(1, sizeof *index);
	if (!index)
		return ty_fail(err, TY_NO_MEMORY, "index: no memory");
	ty_tsan_library_begin();
	index->table = cds_lfht_new_flavor(BUCKETS_MIN, BUCKETS_MIN, BUCKETS_MAX,
		CDS_LFHT_AUTO_RESIZE | CDS_LFHT_ACCOUNTING, &urcu_memb_flavor, NULL);
	ty_tsan_library_end();
	if (!index->table) {
		free(index);
		return ty_fail(err, TY_NO_MEMORY, "index: no memory for the table of %u buckets", BUCKETS_MIN);
	}
	*out = index;
	return TY_OK;
}

static void free_chunk(struct rcu_head *head)
{
	struct ty_chunk *chunk = ty_container_of(head, struct ty_chunk, rcu);

	ty_tsan_acquire(&grace_period);
	ty_tsan_acquire(chunk); /* of ty_index_remove */
	free(chunk);
}

static void unlink_chunk(struct ty_index *index, struct ty_chunk *chunk)
{
	int failed;

	read_lock();
	ty_tsan_library_begin();
	failed = cds_lfht_del(index->table, &chunk->node);
	ty_tsan_library_end();
	read_unlock();
	assert(!failed);
	(void)failed;
	ty_tsan_release(chunk);
	urcu_memb_call_rcu(&chunk->rcu, free_chunk);
}

/* On liburcu's thread, which is registered as a reader, as walking the table needs. */
static void drain(struct rcu_head *head)
{
	struct ty_index *index = ty_container_of(head, struct ty_index, drain);
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;

	ty_tsan_acquire(index);
	read_lock();
	for (cds_lfht_first(index->table, &iter); (node = cds_lfht_iter_get_node(&iter));
		cds_lfht_next(index->table, &iter))
		unlink_chunk(index, chunk_of(node));
	read_unlock();
	ty_tsan_release(index);
}

/*
 * liburcu 0.13.2 deadlocks when a table that resizes itself is destroyed inside a read-side section: destroy waits for the
 * resize worker, which waits for a grace period. Hence the assertion. The walk is done by liburcu's own thread, because the
 * caller (a main thread after its runtime is gone) need not be registered; the first barrier waits for it, the second for
 * the frees that it asked for.
 */
void ty_index_destroy(struct ty_index *index)
{
	int failed;

	if (!index)
		return;
	assert(!urcu_memb_read_ongoing());
	ty_tsan_release(index);
	urcu_memb_call_rcu(&index->drain, drain);
	ty_tsan_library_begin();
	urcu_memb_barrier();
	urcu_memb_barrier();
	failed = cds_lfht_destroy(index->table, NULL);
	ty_tsan_library_end();
	ty_tsan_acquire(index);
	assert(!failed);
	(void)failed;
	free(index);
}

/* Inside a read-side section. */
static struct ty_chunk *lookup(struct ty_index *index, const struct ty_key *key)
{
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;

	cds_lfht_lookup(index->table, hash_key(key), match_key, key, &iter);
	node = cds_lfht_iter_get_node(&iter);
	return node ? chunk_of(node) : NULL;
}

struct ty_chunk *ty_index_pin(struct ty_index *index, const struct ty_key *key)
{
	struct ty_chunk *chunk;

	read_lock();
	chunk = lookup(index, key);
	if (chunk) {
		uint64_t word = atomic_load_explicit(&chunk->word, memory_order_relaxed);

		do {
			if ((word & STATE_MASK) != TY_CHUNK_READY) {
				chunk = NULL;
				break;
			}
		} while (!atomic_compare_exchange_weak_explicit(&chunk->word, &word, word + ONE_PIN,
			memory_order_acquire, memory_order_relaxed));
	}
	read_unlock();
	return chunk;
}

/* By those who have a pin. */
static bool is_usable(uint64_t word)
{
	return (word & STATE_MASK) == TY_CHUNK_READY || (word & STATE_MASK) == TY_CHUNK_WRONG;
}

void ty_chunk_pin(struct ty_chunk *chunk)
{
	/* Relaxed: the caller's own pin ordered everything already; eviction's writes are its own. */
	uint64_t before = atomic_fetch_add_explicit(&chunk->word, ONE_PIN, memory_order_relaxed);

	assert(is_usable(before));
	(void)before;
}

void ty_chunk_unpin(struct ty_chunk *chunk)
{
	uint64_t before = atomic_fetch_sub_explicit(&chunk->word, ONE_PIN, memory_order_release);

	assert(is_usable(before) && before >= ONE_PIN);
	(void)before;
}

/* Relaxed: what to do about a pin is decided by ty_chunk_kill. */
uint64_t ty_chunk_pins(const struct ty_chunk *chunk)
{
	return atomic_load_explicit(&chunk->word, memory_order_relaxed) / ONE_PIN;
}

/* Relaxed: exact for the eviction actor, which alone changes it. */
enum ty_chunk_state ty_chunk_state(const struct ty_chunk *chunk)
{
	return (enum ty_chunk_state)(atomic_load_explicit(&chunk->word, memory_order_relaxed) & STATE_MASK);
}

uint64_t ty_chunk_all_parts(const struct ty_chunk *chunk)
{
	return UINT64_MAX >> (TY_CHUNK_MAX_PARTS - chunk->parts);
}

struct ty_chunk *ty_index_find(struct ty_index *index, const struct ty_key *key)
{
	struct ty_chunk *chunk;

	read_lock();
	chunk = lookup(index, key);
	read_unlock();
	return chunk; /* stays: nobody but the caller removes it */
}

struct ty_chunk *ty_index_add(struct ty_index *index, const struct ty_key *key, uint32_t parts)
{
	struct ty_chunk *chunk;

	assert(parts >= 1 && parts <= TY_CHUNK_MAX_PARTS);
	/* Not sizeof: the struct's end is padded, and the slots begin before it. */
	chunk = calloc(1, offsetof(struct ty_chunk, slots) + parts * sizeof chunk->slots[0]);
	if (!chunk)
		return NULL;
	chunk->key = *key;
	chunk->parts = (uint8_t)parts;
	atomic_init(&chunk->word, TY_CHUNK_FILLING);
	memset(chunk->slots, 0xff, parts * sizeof chunk->slots[0]);
	cds_lfht_node_init(&chunk->node);
	ty_tsan_release(chunk);
	read_lock();
	ty_tsan_library_begin();
	cds_lfht_add(index->table, hash_key(key), &chunk->node);
	ty_tsan_library_end();
	read_unlock();
	atomic_fetch_add_explicit(&index->count, 1, memory_order_relaxed);
	return chunk;
}

void ty_chunk_publish(struct ty_chunk *chunk)
{
	assert(ty_chunk_state(chunk) == TY_CHUNK_FILLING && chunk->committed == ty_chunk_all_parts(chunk));
	atomic_store_explicit(&chunk->word, TY_CHUNK_READY, memory_order_release);
}

void ty_chunk_condemn(struct ty_chunk *chunk)
{
	static_assert(TY_CHUNK_WRONG > TY_CHUNK_READY, "the state is changed by adding to the word, which leaves the pins");
	uint64_t before = atomic_fetch_add_explicit(&chunk->word, TY_CHUNK_WRONG - TY_CHUNK_READY, memory_order_relaxed);

	assert((before & STATE_MASK) == TY_CHUNK_READY);
	(void)before;
}

bool ty_chunk_kill(struct ty_chunk *chunk)
{
	uint64_t word = ty_chunk_state(chunk); /* changed by the caller alone; the word is this if there are no pins */

	if (word == TY_CHUNK_FILLING) { /* nobody can pin it: nobody to race with */
		atomic_store_explicit(&chunk->word, TY_CHUNK_DEAD, memory_order_relaxed);
		return true;
	}
	return atomic_compare_exchange_strong_explicit(&chunk->word, &word, TY_CHUNK_DEAD, memory_order_acquire,
		memory_order_relaxed);
}

void ty_index_remove(struct ty_index *index, struct ty_chunk *chunk)
{
	assert(ty_chunk_state(chunk) == TY_CHUNK_DEAD);
	unlink_chunk(index, chunk);
	atomic_fetch_sub_explicit(&index->count, 1, memory_order_relaxed);
}

uint64_t ty_index_count(const struct ty_index *index)
{
	return atomic_load_explicit(&index->count, memory_order_relaxed);
}
