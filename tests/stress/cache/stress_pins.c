/* SPDX-License-Identifier: Apache-2.0
 *
 * Readers pin, read through the pin and unpin, while one writer kills, removes, scribbles over the slots and adds again.
 * A slot's contents are plain memory: under ThreadSanitizer any order that the pin does not give is a reported race, and
 * everywhere a reader that sees another chunk's contents under its pin ends the test.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/index.h"
#include "cache/slots.h"

enum { KEYS = 512, SLOTS = 256, SLOT_WORDS = 8, READERS = 3, ROUNDS = 60000 };

static struct ty_index *index_;
static uint64_t contents[SLOTS][SLOT_WORDS]; /* the slots: whose they are says the table, who may touch them the pins */
static _Atomic bool writer_done;

static void die(const char *what)
{
	fprintf(stderr, "%s\n", what);
	abort();
}

static uint64_t random_next(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 33;
}

static struct ty_key key_of(uint64_t number)
{
	struct ty_key key = {{0}};
	uint64_t hash = number % 7 * UINT64_C(0x9e3779b97f4a7c15); /* long chains */

	memcpy(key.bytes, &hash, 8);
	memcpy(key.bytes + 24, &number, 8);
	return key;
}

static void read_through(const struct ty_chunk *chunk, uint64_t number)
{
	for (int i = 0; i < SLOT_WORDS; i++)
		if (contents[chunk->slots[0]][i] != number)
			die("a pinned chunk's slot holds something else");
}

static void *reader(void *user)
{
	uint64_t random = (uint64_t)(uintptr_t)user, hits = 0;

	urcu_memb_register_thread();
	while (!atomic_load_explicit(&writer_done, memory_order_acquire)) {
		uint64_t number = random_next(&random) % KEYS;
		struct ty_key key = key_of(number);
		struct ty_chunk *chunk = ty_index_pin(index_, &key);

		if (!chunk)
			continue;
		read_through(chunk, number);
		if (number % 3 == 0) {
			ty_chunk_pin(chunk);
			ty_chunk_unpin(chunk);
			read_through(chunk, number);
		}
		ty_chunk_unpin(chunk);
		hits++;
	}
	urcu_memb_unregister_thread();
	return (void *)(uintptr_t)hits;
}

/* Like eviction: a slot is free, or a chunk's; a chunk that is not pinned may lose it. */
static uint64_t write_all(void)
{
	struct ty_chunk *owner[SLOTS] = {0};
	uint64_t random = 99, kills = 0, pinned = 0;

	for (int round = 0; round < ROUNDS; round++) {
		uint32_t slot = (uint32_t)(random_next(&random) % SLOTS);
		uint64_t number = random_next(&random) % KEYS;
		struct ty_key key = key_of(number);
		struct ty_chunk *chunk = owner[slot];

		if (chunk) {
			if (!ty_chunk_kill(chunk)) {
				pinned++;
				continue;
			}
			ty_index_remove(index_, chunk);
			owner[slot] = NULL;
			kills++;
		}
		for (int i = 0; i < SLOT_WORDS; i++)
			contents[slot][i] = UINT64_MAX;
		if (ty_index_find(index_, &key))
			continue;
		chunk = ty_index_add(index_, &key, 1);
		if (!chunk)
			die("no memory");
		for (int i = 0; i < SLOT_WORDS; i++)
			contents[slot][i] = number;
		chunk->slots[0] = slot;
		chunk->committed = 1;
		if (round % 16 == 0) { /* a store that failed */
			if (!ty_chunk_kill(chunk))
				die("a filling chunk was pinned");
			ty_index_remove(index_, chunk);
			continue;
		}
		ty_chunk_publish(chunk);
		owner[slot] = chunk;
	}
	printf("%llu kills, %llu found pinned\n", (unsigned long long)kills, (unsigned long long)pinned);
	return kills;
}

int main(void)
{
	pthread_t threads[READERS];
	uint64_t hits = 0, kills;
	struct ty_error err;

	if (ty_index_create(&index_, &err) != TY_OK)
		die(err.text);
	urcu_memb_register_thread();
	for (uintptr_t i = 0; i < READERS; i++)
		if (pthread_create(&threads[i], NULL, reader, (void *)(i + 1)))
			die("pthread_create");
	kills = write_all();
	atomic_store_explicit(&writer_done, true, memory_order_release);
	for (int i = 0; i < READERS; i++) {
		void *result;

		pthread_join(threads[i], &result);
		hits += (uintptr_t)result;
	}
	urcu_memb_unregister_thread();
	ty_index_destroy(index_);
	printf("%llu pins that held\n", (unsigned long long)hits);
	if (hits == 0 || kills == 0)
		die("nothing met anything");
	return 0;
}
