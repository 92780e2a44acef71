/* SPDX-License-Identifier: Apache-2.0
 *
 * One service after the other on the same memory, in this process: what was committed serves again, byte for byte, and what
 * was damaged meanwhile is a miss.
 */
#include "harness.h"
#include "actors/service.h"
#include "cache/checksum.h"

#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHUNKS 40

static struct h_service service;

static int setup(void **state)
{
	(void)state;
	h_prepare(&service);
	service.config.l1_size = 4 * TY_PIECE_BYTES;
	h_start(&service);
	return 0;
}

static uint64_t seen(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_acquire);
}

static void store(uint32_t base, uint32_t count)
{
	struct h_client c;

	h_open(&service, &c, NULL, "a", 0, 1);
	h_ok(&c, h_lookup(&c, 1, base, count));
	h_fill(&c, base, count, 0);
	h_ok(&c, h_store(&c, 1, 0, count, 0));
	h_close(&c);
	/* Behind the answer the contents are summed up. */
	while (seen(&service.service->checksum_stats.waiting))
		sched_yield();
	assert_int_equal(seen(&service.service->checksum_stats.skipped), 0);
}

/* Wait until all that comes back is back, then: so many chunks of the prompt are here, and right. */
static void expect(uint32_t base, uint32_t count, uint32_t hits)
{
	struct h_client c;

	while (seen(&service.service->eviction_stats.returning))
		usleep(1000);
	h_open(&service, &c, NULL, "a", 0, 1);
	h_ok(&c, h_lookup(&c, 1, base, count));
	assert_int_equal(c.last.lookup.hits, hits);
	h_wipe(&c, count, 0);
	if (hits)
		h_ok(&c, h_retrieve(&c, 1, 0, hits, 0));
	assert_int_equal(h_wrong(&c, base, hits, 0), 0);
	h_ok(&c, h_end(&c, 1));
	h_close(&c);
}

static void test_serves_again(void **state)
{
	(void)state;
	store(100, CHUNKS);
	for (int life = 0; life < 5; life++) {
		h_restart(&service, NULL);
		assert_true(service.service->restart.adopted);
		assert_int_equal(service.service->restart.found.ready, CHUNKS + life);
		assert_int_equal(service.service->restart.restarts, 1);
		expect(100, CHUNKS, CHUNKS);
		for (int old = 0; old < life; old++)
			expect(1000 + (uint32_t)old, 1, 1);
		store(1000 + (uint32_t)life, 1);
	}
	assert_int_equal(seen(&service.service->eviction_stats.returned), CHUNKS + 4);
	assert_int_equal(seen(&service.service->eviction_stats.chunks), CHUNKS + 5);
}

/* The whole arena is full of old chunks: new ones find room as the old ones go, the oldest first. */
static void test_old_chunks_make_room(void **state)
{
	const uint32_t full = (uint32_t)(4 * TY_PIECE_BYTES / H_CHUNK_BYTES), more = full / 8;
	struct h_client c;

	(void)state;
	for (uint32_t base = 0; base < full; base += CHUNKS)
		store(base, base + CHUNKS <= full ? CHUNKS : full - base);
	h_restart(&service, NULL);
	while (seen(&service.service->eviction_stats.returning))
		usleep(1000);
	assert_int_equal(seen(&service.service->eviction_stats.chunks), full);
	for (uint32_t base = 0; base < more; base += CHUNKS)
		store(100000 + base, CHUNKS);
	assert_true(seen(&service.service->eviction_stats.evictions) >= more);
	h_open(&service, &c, NULL, "a", 0, 1);
	for (uint32_t base = full - full / 4; base + CHUNKS <= full; base += CHUNKS) {
		h_ok(&c, h_lookup(&c, base, base, 1)); /* the young ones are here */
		assert_int_equal(c.last.lookup.hits, 1);
	}
	h_ok(&c, h_lookup(&c, 1, 0, 1)); /* and the oldest is not */
	assert_int_equal(c.last.lookup.hits, 0);
	h_close(&c);
}

/* ---- damage ---------------------------------------------------------------------------------------------- */

static void flip_in_each_chunk(int arena, int slots)
{
	uint8_t byte;

	(void)slots;
	for (uint32_t i = 0; i < CHUNKS; i += 4) {
		off_t at = (off_t)(i * ty_slots_class_of(H_CHUNK_BYTES) + i * 13);

		assert_int_equal(pread(arena, &byte, 1, at), 1);
		byte ^= 4;
		assert_int_equal(pwrite(arena, &byte, 1, at), 1);
	}
}

static void test_damaged_contents_are_a_miss(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < CHUNKS; i++)
		store(2000 + 100 * i, 1); /* in this order they lie in the arena */
	service.config.restart_verify = TY_CONFIG_VERIFY_FULL;
	h_restart(&service, flip_in_each_chunk);
	for (uint32_t i = 0; i < CHUNKS; i++)
		expect(2000 + 100 * i, 1, i % 4 != 0);
	assert_int_equal(seen(&service.service->eviction_stats.return_damaged), CHUNKS / 4);
	store(2000, 1); /* and its room may be had again */
	expect(2000, 1, 1);
}

/* By sample: one that is found has all of them looked at. The youngest of a piece is always among the sample. */
static void test_a_sample_that_is_damaged(void **state)
{
	(void)state;
	for (uint32_t i = 0; i <= CHUNKS; i++)
		store(2000 + 100 * i, 1);
	h_restart(&service, flip_in_each_chunk); /* the last but one is among them, and the eighth from it, ... */
	for (uint32_t i = 0; i <= CHUNKS; i++)
		expect(2000 + 100 * i, 1, i % 4 != 0 || i == CHUNKS);
	assert_int_equal(seen(&service.service->eviction_stats.return_damaged), CHUNKS / 4);
}

static void scribble_over_header(int arena, int slots)
{
	(void)arena;
	assert_int_equal(pwrite(slots, "garbage", 7, 3), 7);
}

static void test_damaged_table_is_refused(void **state)
{
	(void)state;
	store(100, CHUNKS);
	h_restart(&service, scribble_over_header);
	assert_false(service.service->restart.adopted);
	assert_non_null(strstr(service.service->restart.refused, "TYERSLOT"));
	expect(100, CHUNKS, 0);
	store(100, CHUNKS);
	expect(100, CHUNKS, CHUNKS);
	h_restart(&service, NULL); /* and from there on as ever */
	expect(100, CHUNKS, CHUNKS);
}

/* ---- no memory ------------------------------------------------------------------------------------------- */

enum ty_code __real_ty_slots_adopt(const struct ty_arena *arena, int fd, struct ty_slots **out, struct ty_slots_found *found,
	struct ty_error *err);
enum ty_code __wrap_ty_slots_adopt(const struct ty_arena *arena, int fd, struct ty_slots **out, struct ty_slots_found *found,
	struct ty_error *err);
static bool out_of_memory;

/* The linker puts it before the other one. */
enum ty_code __wrap_ty_slots_adopt(const struct ty_arena *arena, int fd, struct ty_slots **out, struct ty_slots_found *found,
	struct ty_error *err)
{
	if (out_of_memory)
		return ty_fail(err, TY_NO_MEMORY, "slot table: no memory to take it over");
	return __real_ty_slots_adopt(arena, fd, out, found, err);
}

static void try_without_memory(int arena, int slots)
{
	struct ty_heritage heritage = {.arena = dup(arena), .slots = dup(slots), .record = -1, .http = -1};
	struct ty_service *none = NULL;
	struct ty_error err = {.text = ""};

	out_of_memory = true;
	assert_int_equal(ty_service_start(&service.config, &heritage, &none, &err), TY_NO_MEMORY);
	out_of_memory = false;
	assert_null(none);
	assert_non_null(strstr(err.text, "no memory to take it over"));
	/* they were the service's */
	assert_int_equal(fcntl(heritage.arena, F_GETFD), -1);
	assert_int_equal(fcntl(heritage.slots, F_GETFD), -1);
}

/* The cache is not given up for it: a service that is tried again when there is some has all of it. */
static void test_no_memory_to_take_it_over(void **state)
{
	(void)state;
	store(100, CHUNKS);
	h_restart(&service, try_without_memory);
	assert_true(service.service->restart.adopted);
	expect(100, CHUNKS, CHUNKS);
}

static void test_another_size_is_refused(void **state)
{
	(void)state;
	store(100, CHUNKS);
	service.config.l1_size = 3 * TY_PIECE_BYTES;
	h_restart(&service, NULL);
	assert_false(service.service->restart.adopted);
	assert_non_null(strstr(service.service->restart.refused, "268435456 bytes, expected 201326592"));
	expect(100, CHUNKS, 0);
}

/* ---- what the table says of each chunk ------------------------------------------------------------------- */

enum { RECORDS_AT = 4096 + TY_MAX_SPACES * TY_SPACE_BYTES };

/* Of the first piece, from a table that nobody uses now: calls `look` for each slot that holds something. */
static void each_record(int arena, int slots, void (*look)(int arena, int slots, off_t at, const struct ty_slot_record *record))
{
	uint32_t count = 0;

	for (uint32_t slot = 0; slot < TY_PIECE_BYTES / H_CHUNK_BYTES; slot++) {
		off_t at = RECORDS_AT + (off_t)(slot * sizeof(struct ty_slot_record));
		struct ty_slot_record record;

		assert_int_equal(pread(slots, &record, sizeof record, at), (ssize_t)sizeof record);
		if (record.state != TY_SLOT_READY)
			continue;
		look(arena, slots, at, &record);
		count++;
	}
	assert_int_equal(count, CHUNKS);
}

static void take_sum(int arena, int slots, off_t at, const struct ty_slot_record *record)
{
	static const uint64_t none;

	(void)arena;
	assert_int_not_equal(record->checksum, 0);
	assert_int_equal(pwrite(slots, &none, sizeof none, at + (off_t)offsetof(struct ty_slot_record, checksum)), (ssize_t)sizeof none);
}

static void take_sums(int arena, int slots)
{
	each_record(arena, slots, take_sum);
}

static void has_sum(int arena, int slots, off_t at, const struct ty_slot_record *record)
{
	static uint8_t bytes[H_CHUNK_BYTES];
	off_t slot = (at - RECORDS_AT) / (off_t)sizeof *record;

	(void)slots;
	assert_int_equal(record->length, sizeof bytes);
	assert_int_equal(pread(arena, bytes, sizeof bytes, slot * (off_t)ty_slots_class_of(sizeof bytes)), (ssize_t)sizeof bytes);
	assert_int_equal(record->checksum, ty_checksum(bytes, sizeof bytes));
}

static void has_owner(int arena, int slots, off_t at, const struct ty_slot_record *record)
{
	struct ty_space_record space;

	(void)arena;
	(void)at;
	assert_in_range(record->space, 1, TY_MAX_SPACES);
	assert_int_equal(pread(slots, &space, sizeof space, 4096 + (record->space - 1) * TY_SPACE_BYTES), (ssize_t)sizeof space);
	assert_true(ty_space_is_whole(&space));
	assert_string_equal(space.identity.tenant, "a");
}

static void have_sums(int arena, int slots)
{
	each_record(arena, slots, has_sum);
	each_record(arena, slots, has_owner);
}

/* The process before had no time for them: they are made behind the return, and a chunk keeps its owner from life to life. */
static void test_missing_sums_are_made(void **state)
{
	(void)state;
	store(100, CHUNKS);
	h_restart(&service, take_sums);
	while (seen(&service.service->checksum_stats.bytes) < CHUNKS * H_CHUNK_BYTES || seen(&service.service->checksum_stats.waiting))
		usleep(1000);
	assert_int_equal(seen(&service.service->checksum_stats.bytes), CHUNKS * H_CHUNK_BYTES); /* each once */
	h_restart(&service, have_sums);
	expect(100, CHUNKS, CHUNKS);
	assert_int_equal(seen(&service.service->checksum_stats.bytes), 0); /* none is missing any more */
	h_restart(&service, have_sums);
	expect(100, CHUNKS, CHUNKS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		H_TEST_OF(test_serves_again, setup, h_teardown),
		H_TEST_OF(test_old_chunks_make_room, setup, h_teardown),
		H_TEST_OF(test_damaged_contents_are_a_miss, setup, h_teardown),
		H_TEST_OF(test_a_sample_that_is_damaged, setup, h_teardown),
		H_TEST_OF(test_damaged_table_is_refused, setup, h_teardown),
		H_TEST_OF(test_no_memory_to_take_it_over, setup, h_teardown),
		H_TEST_OF(test_another_size_is_refused, setup, h_teardown),
		H_TEST_OF(test_missing_sums_are_made, setup, h_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
