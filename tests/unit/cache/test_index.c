/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "cache/index.h"
#include "cache/slots.h"

static struct ty_error err;
static struct ty_index *index_;

static struct ty_key key_of(uint32_t number)
{
	uint64_t random = number;
	struct ty_key key;

	for (int i = 0; i < 4; i++) {
		uint64_t word = next_random(&random);

		memcpy(key.bytes + i * 8, &word, 8);
	}
	return key;
}

static struct ty_chunk *add_ready(uint32_t number)
{
	struct ty_key key = key_of(number);
	struct ty_chunk *chunk = ty_index_add(index_, &key, 1);

	assert_non_null(chunk);
	chunk->slots[0] = number;
	chunk->committed = 1;
	ty_chunk_publish(chunk);
	return chunk;
}

static int open_index(void **state)
{
	(void)state;
	urcu_memb_register_thread();
	return ty_index_create(&index_, &err) != TY_OK;
}

/* Destroyed by a thread that is no reader any more, with whatever the test left in it. */
static int close_index(void **state)
{
	(void)state;
	urcu_memb_unregister_thread();
	ty_index_destroy(index_);
	return 0;
}

static void test_life_of_a_chunk(void **state)
{
	struct ty_key key = key_of(1), other = key_of(2);
	struct ty_chunk *chunk;

	(void)state;
	assert_null(ty_index_find(index_, &key));
	assert_null(ty_index_pin(index_, &key));
	chunk = ty_index_add(index_, &key, 3);
	assert_non_null(chunk);
	assert_int_equal(ty_index_count(index_), 1);
	assert_ptr_equal(ty_index_find(index_, &key), chunk);
	assert_null(ty_index_find(index_, &other));
	assert_int_equal(ty_chunk_state(chunk), TY_CHUNK_FILLING);
	assert_int_equal(ty_chunk_all_parts(chunk), 7);
	for (int i = 0; i < 3; i++)
		assert_int_equal(chunk->slots[i], TY_NO_SLOT);
	assert_null(ty_index_pin(index_, &key)); /* not visible yet */

	chunk->committed = 7;
	ty_chunk_publish(chunk);
	assert_int_equal(ty_chunk_state(chunk), TY_CHUNK_READY);
	assert_ptr_equal(ty_index_pin(index_, &key), chunk);
	ty_chunk_pin(chunk);
	assert_int_equal(ty_chunk_pins(chunk), 2);
	assert_false(ty_chunk_kill(chunk));
	ty_chunk_unpin(chunk);
	assert_false(ty_chunk_kill(chunk));
	assert_ptr_equal(ty_index_find(index_, &key), chunk);
	ty_chunk_unpin(chunk);
	assert_int_equal(ty_chunk_pins(chunk), 0);
	assert_true(ty_chunk_kill(chunk));
	assert_null(ty_index_pin(index_, &key)); /* in the table, but dead */
	ty_index_remove(index_, chunk);
	assert_null(ty_index_find(index_, &key));
	assert_int_equal(ty_index_count(index_), 0);
}

static void test_filling_dies(void **state)
{
	struct ty_key key = key_of(1);
	struct ty_chunk *chunk = ty_index_add(index_, &key, 64);

	(void)state;
	assert_int_equal(ty_chunk_all_parts(chunk), UINT64_MAX);
	assert_true(ty_chunk_kill(chunk));
	ty_index_remove(index_, chunk);
	chunk = ty_index_add(index_, &key, 1); /* the key is free at once, whatever the grace period does */
	assert_ptr_equal(ty_index_find(index_, &key), chunk);
}

/* The hash is the key's first eight bytes; all the others are compared too. */
static void test_whole_key_is_compared(void **state)
{
	struct ty_chunk *chunks[TY_KEY_BYTES];
	struct ty_key base = key_of(1);

	(void)state;
	for (int i = 8; i < TY_KEY_BYTES; i++) {
		struct ty_key key = base;

		key.bytes[i] ^= 1;
		assert_null(ty_index_find(index_, &key));
		chunks[i] = ty_index_add(index_, &key, 1);
	}
	assert_null(ty_index_find(index_, &base));
	for (int i = 8; i < TY_KEY_BYTES; i++) {
		struct ty_key key = base;

		key.bytes[i] ^= 1;
		assert_ptr_equal(ty_index_find(index_, &key), chunks[i]);
	}
}

/* Grows over many doublings, and shrinks again, with every chunk found at every step of the way. */
static void test_many(void **state)
{
	enum { COUNT = 40000 };

	(void)state;
	for (uint32_t i = 0; i < COUNT; i++)
		add_ready(i);
	assert_int_equal(ty_index_count(index_), COUNT);
	for (uint32_t i = 0; i < COUNT; i++) {
		struct ty_key key = key_of(i);
		struct ty_chunk *chunk = ty_index_pin(index_, &key);

		assert_non_null(chunk);
		assert_int_equal(chunk->slots[0], i);
		ty_chunk_unpin(chunk);
		if (i % 8) {
			assert_true(ty_chunk_kill(chunk));
			ty_index_remove(index_, chunk);
		}
	}
	assert_int_equal(ty_index_count(index_), COUNT / 8);
	for (uint32_t i = 0; i < COUNT; i++) {
		struct ty_key key = key_of(i);

		assert_int_equal(ty_index_find(index_, &key) != NULL, i % 8 == 0);
	}
}

static void test_chunk_is_small(void **state)
{
	struct ty_key key = key_of(1);
	struct ty_chunk *chunk = ty_index_add(index_, &key, 1);

	(void)state;
	assert_int_equal(offsetof(struct ty_chunk, slots), 108);
	print_message("a chunk of one part: %zu bytes usable\n", malloc_usable_size(chunk));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_life_of_a_chunk, open_index, close_index),
		cmocka_unit_test_setup_teardown(test_filling_dies, open_index, close_index),
		cmocka_unit_test_setup_teardown(test_whole_key_is_compared, open_index, close_index),
		cmocka_unit_test_setup_teardown(test_many, open_index, close_index),
		cmocka_unit_test_setup_teardown(test_chunk_is_small, open_index, close_index),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
