/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <stdlib.h>
#include <sys/resource.h>

#include "cache/slots.h"

static struct ty_error err;
static struct ty_arena arena;
static struct ty_slots *slots;
static const struct ty_key key = {{1, 2, 3}};

enum { PIECES = 6 };

static int open_slots(void **state)
{
	(void)state;
	return ty_arena_open(PIECES * TY_PIECE_BYTES, &arena, &err) || ty_slots_open(&arena, &slots, &err);
}

static int close_slots(void **state)
{
	(void)state;
	ty_slots_close(slots);
	ty_arena_close(&arena);
	return 0;
}

static void test_nothing_without_pieces(void **state)
{
	(void)state;
	assert_int_equal(ty_slots_take(slots, 4096, &key, 0, 1, 0), TY_NO_SLOT);
	assert_int_equal(ty_slots_free_pieces(slots), 0);
	ty_slots_add_piece(slots, 3);
	assert_int_equal(ty_slots_free_pieces(slots), 1);
	assert_int_equal(ty_slots_piece(ty_slots_take(slots, 4096, &key, 0, 1, 0)), 3);
}

static void test_classes(void **state)
{
	(void)state;
	assert_int_equal(ty_slots_class_of(1), 4096);
	assert_int_equal(ty_slots_class_of(4096), 4096);
	assert_int_equal(ty_slots_class_of(4097), 8192);
	assert_int_equal(ty_slots_class_of(12288), 12288);
	assert_int_equal(ty_slots_class_of(TY_PIECE_BYTES), TY_PIECE_BYTES);
	assert_int_equal(ty_slots_class_of(TY_PIECE_BYTES / 2), TY_PIECE_BYTES / 2);
	assert_int_equal(ty_slots_class_of(TY_PIECE_BYTES / 2 + 1), TY_PIECE_BYTES);
	assert_int_equal(ty_slots_class_of(20 << 20), TY_PIECE_BYTES / 3 / 4096 * 4096);
	for (uint64_t bytes = 1; bytes <= TY_PIECE_BYTES; bytes += 4093) {
		uint64_t class = ty_slots_class_of(bytes);

		assert_true(class >= bytes && class % TY_SLOT_ALIGN == 0);
		/* No class has room for more slots than another of at least its size would. */
		assert_int_equal(ty_slots_class_of(class), class);
	}
}

static void test_life_of_a_slot(void **state)
{
	const struct ty_slot_record *record;
	uint32_t slot, later;
	uint64_t first;

	(void)state;
	ty_slots_add_piece(slots, 0);
	slot = ty_slots_take(slots, 5000, &key, 2, 4, 0);
	record = ty_slots_record(slots, slot);
	assert_int_equal(record->state, TY_SLOT_FILLING);
	assert_int_equal(record->part, 2);
	assert_int_equal(record->parts, 4);
	assert_int_equal(record->length, 5000);
	assert_memory_equal(&record->key, &key, sizeof key);
	assert_true(ty_slots_record_whole(record));
	assert_int_equal(ty_slots_class(slots, slot), 8192);
	assert_ptr_equal(ty_slots_address(slots, slot), arena.base);
	assert_int_equal(ty_slots_used(slots), 1);
	assert_int_equal(ty_slots_used_bytes(slots), 5000);

	ty_slots_commit(slots, slot, 77);
	assert_int_equal(record->state, TY_SLOT_READY);
	assert_true(ty_slots_record_whole(record));
	assert_int_equal(ty_slots_checksum(slots, slot), 77);
	ty_slots_set_checksum(slots, slot, 79);
	assert_int_equal(ty_slots_checksum(slots, slot), 79);
	assert_true(ty_slots_record_whole(record)); /* the record says nothing of its sum */
	first = record->sequence;
	later = ty_slots_take(slots, 5000, &key, 3, 4, 0);
	assert_ptr_equal(ty_slots_address(slots, later), arena.base + 8192);
	ty_slots_commit(slots, later, 78);
	assert_true(ty_slots_record(slots, later)->sequence > first);

	ty_slots_give(slots, later);
	assert_int_equal(ty_slots_free_pieces(slots), 0);
	ty_slots_give(slots, slot);
	assert_int_equal(ty_slots_free_pieces(slots), 1);
	assert_int_equal(record->state, TY_SLOT_FREE);
	assert_true(ty_slots_record_whole(record)); /* all zero */
	assert_int_equal(ty_slots_used(slots), 0);
	assert_int_equal(ty_slots_used_bytes(slots), 0);
}

/* Any bit of a record that changes by itself shows; but for the sum of the contents, which is held against them. */
static void test_torn_records_show(void **state)
{
	struct ty_slot_record record;
	uint32_t slot;

	(void)state;
	ty_slots_add_piece(slots, 0);
	slot = ty_slots_take(slots, 5000, &key, 2, 4, 0);
	ty_slots_commit(slots, slot, 77);
	for (size_t bit = 0; bit < sizeof record * 8; bit++) {
		record = *ty_slots_record(slots, slot);
		((uint8_t *)&record)[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(ty_slots_record_whole(&record), bit / 8 >= offsetof(struct ty_slot_record, checksum));
	}
}

static void test_piece_fills_and_changes_class(void **state)
{
	uint32_t taken[TY_SLOTS_PER_PIECE], big;
	static uint8_t seen[TY_SLOTS_PER_PIECE];

	(void)state;
	ty_slots_add_piece(slots, 1);
	for (uint32_t i = 0; i < TY_SLOTS_PER_PIECE; i++) {
		taken[i] = ty_slots_take(slots, 4096, &key, 0, 1, 0);
		assert_int_equal(ty_slots_piece(taken[i]), 1);
		assert_int_equal(seen[taken[i] % TY_SLOTS_PER_PIECE]++, 0);
	}
	assert_int_equal(ty_slots_take(slots, 4096, &key, 0, 1, 0), TY_NO_SLOT);
	assert_int_equal(ty_slots_take(slots, TY_PIECE_BYTES, &key, 0, 1, 0), TY_NO_SLOT);
	ty_slots_give(slots, taken[777]);
	assert_int_equal(ty_slots_take(slots, 8192, &key, 0, 1, 0), TY_NO_SLOT); /* room, but of another class */
	assert_int_equal(ty_slots_take(slots, 4096, &key, 0, 1, 0), taken[777]);
	for (uint32_t i = 0; i < TY_SLOTS_PER_PIECE; i++)
		ty_slots_give(slots, taken[i]);
	big = ty_slots_take(slots, TY_PIECE_BYTES, &key, 0, 1, 0);
	assert_int_equal(big, TY_SLOTS_PER_PIECE);
	assert_int_equal(ty_slots_class(slots, big), TY_PIECE_BYTES);
}

struct visit {
	uint32_t count, last;
	bool give;
	uint32_t most; /* 0: all */
};

static bool visit_slot(void *user, uint32_t slot)
{
	struct visit *visit = user;

	if (visit->count++)
		assert_true(slot > visit->last);
	visit->last = slot;
	if (visit->give)
		ty_slots_give(slots, slot);
	return visit->count != visit->most;
}

static void test_visit_and_empty_a_piece(void **state)
{
	struct visit visit = {0};
	uint32_t taken[10];

	(void)state;
	ty_slots_add_piece(slots, 2);
	ty_slots_each_in_piece(slots, 2, visit_slot, &visit);
	ty_slots_each_in_piece(slots, 4, visit_slot, &visit); /* not even there */
	assert_int_equal(visit.count, 0);
	for (int i = 0; i < 10; i++)
		taken[i] = ty_slots_take(slots, 6 << 20, &key, 0, 1, 0);
	assert_int_equal(ty_slots_take(slots, 6 << 20, &key, 0, 1, 0), TY_NO_SLOT);
	ty_slots_give(slots, taken[4]);
	ty_slots_each_in_piece(slots, 2, visit_slot, &visit);
	assert_int_equal(visit.count, 9);
	visit = (struct visit){.most = 3};
	ty_slots_each_in_piece(slots, 2, visit_slot, &visit);
	assert_int_equal(visit.count, 3);
	visit = (struct visit){.give = true};
	ty_slots_each_in_piece(slots, 2, visit_slot, &visit);
	assert_int_equal(visit.count, 9);
	assert_int_equal(ty_slots_free_pieces(slots), 1);
	assert_int_equal(ty_slots_used(slots), 0);
}

/* Against the plainest model there is: every byte of the arena has at most one owner. */
static void test_random_against_model(void **state)
{
	static const uint64_t sizes[] = {70000, 70000 + 4096, 1 << 20, 5 << 20, 33 << 20, TY_PIECE_BYTES};
	enum { MOST = 4096 };
	static struct { uint32_t slot; uint64_t bytes; } held[MOST];
	uint64_t random = 7, bytes_held = 0;
	uint32_t count = 0, refused = 0;

	(void)state;
	for (uint32_t i = 0; i < PIECES; i++)
		ty_slots_add_piece(slots, i);
	for (int step = 0; step < 60000; step++) {
		bool filling = step / 5000 % 2 == 0;

		if (count < MOST && next_random(&random) % 10 < (filling ? 7 : 3)) {
			uint64_t bytes = sizes[next_random(&random) % (step < 30000 ? 4 : 6)];
			uint32_t slot = ty_slots_take(slots, bytes, &key, 0, 1, 0);
			uint8_t *from;

			if (slot == TY_NO_SLOT) {
				refused++;
				continue;
			}
			from = ty_slots_address(slots, slot);
			assert_true(from >= arena.base && from + bytes <= arena.base + arena.bytes);
			assert_int_equal((uint64_t)(from - arena.base) / TY_PIECE_BYTES, ty_slots_piece(slot));
			assert_int_equal((uint64_t)(from - arena.base + (ptrdiff_t)bytes - 1) / TY_PIECE_BYTES,
				ty_slots_piece(slot));
			for (uint32_t i = 0; i < count; i++) {
				uint8_t *other = ty_slots_address(slots, held[i].slot);

				assert_true(other + held[i].bytes <= from || from + bytes <= other);
			}
			held[count].slot = slot;
			held[count++].bytes = bytes;
			bytes_held += bytes;
		} else if (count) {
			uint32_t i = (uint32_t)(next_random(&random) % count);

			ty_slots_give(slots, held[i].slot);
			bytes_held -= held[i].bytes;
			held[i] = held[--count];
		}
		assert_int_equal(ty_slots_used(slots), count);
		assert_int_equal(ty_slots_used_bytes(slots), bytes_held);
	}
	assert_true(refused > 100); /* the arena was full at times */
	while (count)
		ty_slots_give(slots, held[--count].slot);
	assert_int_equal(ty_slots_free_pieces(slots), PIECES);
}

static void test_system_refuses(void **state)
{
	struct ty_slots *other = NULL;
	struct rlimit saved, limit;
	enum ty_code code;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &saved), 0);
	limit = saved;
	limit.rlim_cur = 3;
	setrlimit(RLIMIT_NOFILE, &limit);
	code = ty_slots_open(&arena, &other, &err);
	setrlimit(RLIMIT_NOFILE, &saved);
	assert_int_equal(code, TY_IO);
	assert_non_null(strstr(err.text, "slot table of 6 pieces: memfd_create"));
	assert_null(other);
	ty_slots_close(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_nothing_without_pieces, open_slots, close_slots),
		cmocka_unit_test(test_classes),
		cmocka_unit_test_setup_teardown(test_life_of_a_slot, open_slots, close_slots),
		cmocka_unit_test_setup_teardown(test_torn_records_show, open_slots, close_slots),
		cmocka_unit_test_setup_teardown(test_piece_fills_and_changes_class, open_slots, close_slots),
		cmocka_unit_test_setup_teardown(test_visit_and_empty_a_piece, open_slots, close_slots),
		cmocka_unit_test_setup_teardown(test_random_against_model, open_slots, close_slots),
		cmocka_unit_test_setup_teardown(test_system_refuses, open_slots, close_slots),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
