/* SPDX-License-Identifier: Apache-2.0
 *
 * Arena and slot table from one owner to the next: what was committed is there, what was not is gone, and a table that is not
 * what it should be is refused or loses what cannot be believed.
 */
#include "adopt_house.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache/checksum.h"

enum { RECORD = 64 };

/* The record of a slot as it lies in the memfd, to be written over. */
static struct ty_slot_record *raw(uint32_t slot)
{
	return (struct ty_slot_record *)(void *)(uintptr_t)ty_slots_record(slots, slot);
}

/* ---- what must come back ------------------------------------------------------------------------------- */

static void test_committed_comes_back(void **state)
{
	uint32_t big, small[3], filling, given, count;
	const struct ty_found_piece *pieces;
	struct ty_slots_found found;
	uint8_t *at;

	(void)state;
	for (uint32_t i = 0; i < 3; i++)
		ty_slots_add_piece(slots, i);
	for (uint32_t i = 0; i < 3; i++)
		small[i] = take(1 << 20, i);
	big = take(40 << 20, 9);
	filling = take(1 << 20, 10);
	given = take(1 << 20, 11);
	memset(ty_slots_address(slots, small[1]), 0x5a, 1 << 20);
	ty_slots_commit(slots, small[1], 101);
	ty_slots_commit(slots, small[0], 100);
	ty_slots_commit(slots, big, 109);
	ty_slots_commit(slots, given, 111);
	ty_slots_give(slots, given);
	ty_slots_commit(slots, small[2], 102);

	assert_int_equal(hand_over(&found), TY_OK);
	assert_int_equal(found.ready, 4);
	assert_int_equal(found.unfinished, 1);
	assert_int_equal(found.damaged, 0);
	assert_int_equal(ty_slots_used(slots), 4);
	assert_int_equal(ty_slots_used_bytes(slots), (3 << 20) + (40 << 20));
	pieces = ty_slots_found(slots, &count);
	assert_int_equal(count, 2);
	/* the youngest first: small[2] was committed last */
	assert_int_equal(pieces[0].piece, ty_slots_piece(small[0]));
	assert_int_equal(pieces[0].count, 3);
	assert_int_equal(pieces[0].slots[0], small[2]);
	assert_int_equal(pieces[0].slots[1], small[0]);
	assert_int_equal(pieces[0].slots[2], small[1]);
	assert_int_equal(pieces[1].slots[0], big);
	/* known before their pieces are usable, and not to be had before */
	at = ty_slots_address(slots, small[1]);
	assert_int_equal(at[0] + at[(1 << 20) - 1], 2 * 0x5a);
	assert_int_equal(ty_slots_record(slots, small[1])->checksum, 101);
	assert_int_equal(take(1 << 20, 12), TY_NO_SLOT);
	for (uint32_t i = 0; i < count; i++)
		ty_slots_add_piece(slots, pieces[i].piece);
	ty_slots_forget_found(slots);
	assert_int_equal(ty_slots_free_pieces(slots), 0);
	/* new ones go where there is room, and are younger than all that was */
	assert_int_equal(take(1 << 20, 12), filling);
	ty_slots_commit(slots, filling, 0);
	assert_true(ty_slots_record(slots, filling)->sequence > ty_slots_record(slots, small[2])->sequence);
	ty_slots_give(slots, big);
	assert_int_equal(ty_slots_free_pieces(slots), 1);
}

/* Over and over, with everything that can happen in between: a model says what must be there. */
static void test_random_lives(void **state)
{
	static const uint64_t sizes[] = {4096, 70000, 1 << 20, 5 << 20, 33 << 20, TY_PIECE_BYTES};
	enum { MOST = 600 };
	static struct { uint32_t slot; uint64_t n, bytes; bool committed; } held[MOST];
	uint64_t random = 11, names = 0;
	uint32_t count = 0;

	(void)state;
	for (uint32_t i = 0; i < PIECES; i++)
		ty_slots_add_piece(slots, i);
	for (int life = 0; life < 60; life++) {
		uint32_t ready = 0, pieces_found;
		const struct ty_found_piece *pieces;
		bool seen[PIECES] = {false};
		struct ty_slots_found found;

		for (int step = 0; step < 300; step++) {
			uint64_t what = next_random(&random) % 10;
			uint32_t i = count ? (uint32_t)(next_random(&random) % count) : 0;

			if (what < 5 && count < MOST) {
				held[count].bytes = sizes[next_random(&random) % 6];
				held[count].n = ++names;
				held[count].slot = take(held[count].bytes, names);
				held[count].committed = false;
				count += held[count].slot != TY_NO_SLOT;
			} else if (what < 8 && count && !held[i].committed) {
				ty_slots_commit(slots, held[i].slot, held[i].n * 3);
				held[i].committed = true;
			} else if (count) {
				ty_slots_give(slots, held[i].slot);
				held[i] = held[--count];
			}
		}
		assert_int_equal(hand_over(&found), TY_OK);
		for (uint32_t i = 0; i < count;) {
			const struct ty_slot_record *record;
			struct ty_key key = key_of(held[i].n);

			if (!held[i].committed) {
				held[i] = held[--count];
				continue;
			}
			record = ty_slots_record(slots, held[i].slot);
			assert_memory_equal(&record->key, &key, sizeof key);
			assert_int_equal(record->length, held[i].bytes);
			assert_int_equal(record->checksum, held[i].n * 3);
			ready++;
			i++;
		}
		assert_int_equal(found.ready, ready);
		assert_int_equal(found.damaged, 0);
		assert_int_equal(ty_slots_used(slots), ready);
		pieces = ty_slots_found(slots, &pieces_found);
		for (uint32_t i = 0; i < pieces_found; i++) {
			seen[pieces[i].piece] = true;
			for (uint32_t k = 1; k < pieces[i].count; k++)
				assert_true(ty_slots_record(slots, pieces[i].slots[k - 1])->sequence >
					ty_slots_record(slots, pieces[i].slots[k])->sequence);
			if (life % 7 == 6 && i == 0) { /* one that cannot be registered */
				for (uint32_t h = 0; h < count;)
					if (ty_slots_piece(held[h].slot) == pieces[i].piece)
						held[h] = held[--count];
					else
						h++;
				ty_slots_lose_piece(slots, pieces[i].piece);
			}
			ty_slots_add_piece(slots, pieces[i].piece);
		}
		ty_slots_forget_found(slots);
		for (uint32_t i = 0; i < PIECES; i++)
			if (!seen[i])
				ty_slots_add_piece(slots, i);
		assert_int_equal(ty_slots_used(slots), count);
	}
	while (count)
		ty_slots_give(slots, held[--count].slot);
	assert_int_equal(ty_slots_free_pieces(slots), PIECES);
	assert_int_equal(ty_slots_used_bytes(slots), 0);
}

/* A process dies between any two of its stores to the table: each prefix of a write is played. */
static void test_torn_at_every_word(void **state)
{
	struct ty_slot_record before, after;
	struct ty_slots_found found;
	uint32_t slot, kept;

	(void)state;
	ty_slots_add_piece(slots, 0);
	kept = take(1 << 20, 1);
	ty_slots_commit(slots, kept, 1);
	slot = take(1 << 20, 2);
	before = *ty_slots_record(slots, slot);
	ty_slots_commit(slots, slot, 2);
	after = *ty_slots_record(slots, slot);
	for (size_t words = 0; words <= RECORD / 4; words++) {
		struct ty_slot_record torn = before;

		memcpy((char *)&torn + 4, (char *)&after + 4, words ? (words - 1) * 4 : 0);
		torn.state = words == RECORD / 4 ? (uint32_t)TY_SLOT_READY : (uint32_t)TY_SLOT_FREE;
		*raw(slot) = torn;
		assert_int_equal(hand_over(&found), TY_OK);
		assert_int_equal(found.damaged, 0);
		assert_int_equal(found.ready, words == RECORD / 4 ? 2 : 1);
		assert_int_equal(found.unfinished, words == RECORD / 4 ? 0 : 1);
		ty_slots_add_piece(slots, 0);
		ty_slots_forget_found(slots);
		if (words < RECORD / 4) {
			assert_int_equal(take(1 << 20, 2), slot);
			ty_slots_commit(slots, slot, 2);
			after = *ty_slots_record(slots, slot);
		}
	}
}

/* ---- what must not be believed --------------------------------------------------------------------------- */

static void test_scribbled_records_go(void **state)
{
	struct ty_slots_found found;
	uint64_t random = 3;
	uint32_t slot[40];

	(void)state;
	ty_slots_add_piece(slots, 0);
	for (uint32_t i = 0; i < 40; i++) {
		slot[i] = take(1 << 20, i);
		ty_slots_commit(slots, slot[i], i);
	}
	/* not the state: a READY that turns FREE is taken for a torn one; nor the sum, the last word: contents are held against it */
	for (uint32_t i = 0; i < 40; i += 2)
		((uint8_t *)raw(slot[i]))[4 + next_random(&random) % 52] ^= (uint8_t)(1u << next_random(&random) % 8);
	raw(slot[1])->state = 77;
	assert_int_equal(hand_over(&found), TY_OK);
	assert_int_equal(found.damaged, 21);
	assert_int_equal(found.ready, 19);
	ty_slots_add_piece(slots, 0);
	assert_int_equal(take(1 << 20, 99), slot[0]); /* the room is free again */
}

/* Records that are whole, and yet cannot be: they were copied from elsewhere in the table. */
static void test_records_in_wrong_places_go(void **state)
{
	struct ty_slots_found found;
	uint32_t a, b, c;

	(void)state;
	ty_slots_add_piece(slots, 0);
	ty_slots_add_piece(slots, 1);
	a = take(TY_PIECE_BYTES, 1);
	b = take(4096, 2);
	ty_slots_commit(slots, a, 1);
	ty_slots_commit(slots, b, 2);
	*(raw(a) + 5) = *raw(a); /* the sixth slot of a piece that has one */
	assert_int_equal(hand_over(&found), TY_OK);
	assert_int_equal(found.damaged, 1);
	assert_int_equal(found.ready, 2);
	/* a piece that says two things of how it is cut is lost whole, the others are not */
	c = ty_slots_piece(b) * TY_SLOTS_PER_PIECE;
	*(raw(c) + 1) = *raw(a);
	(raw(c) + 1)->length = 4096; /* not even whole */
	*(raw(c) + 2) = *raw(a);
	assert_int_equal(hand_over(&found), TY_OK);
	assert_int_equal(found.damaged, 2);
	assert_int_equal(found.ready, 2);
	*raw(a) = *raw(c);
	*(raw(a) + 1) = *(raw(c));
	assert_int_equal(hand_over(&found), TY_OK); /* the same key in three places: for the index to find out */
	assert_int_equal(found.ready, 3);
}

static void test_two_cuts_of_a_piece(void **state)
{
	struct ty_slot_record other;
	struct ty_slots_found found;
	uint32_t a, b;

	(void)state;
	ty_slots_add_piece(slots, 0);
	ty_slots_add_piece(slots, 1);
	a = take(1 << 20, 1);
	ty_slots_commit(slots, a, 1);
	ty_slots_commit(slots, take(1 << 20, 2), 2);
	b = take(2 << 20, 3);
	ty_slots_commit(slots, b, 3);
	other = *raw(b);
	*(raw(a) + 7) = other;
	assert_int_equal(hand_over(&found), TY_OK);
	assert_int_equal(found.damaged, 3); /* the whole piece: which of them lies nobody can say */
	assert_int_equal(found.ready, 1);
	assert_int_equal(ty_slots_used(slots), 1);
}

static void refused(enum ty_code want, const char *words)
{
	struct ty_slots_found found;
	enum ty_code code = hand_over(&found);

	if (code != want || !strstr(err.text, words))
		fail_msg("%s \"%s\" does not say \"%s\"", ty_code_name(code), err.text, words);
	assert_ok(ty_slots_open(&arena, &slots, &err), &err);
}

static void write_header(size_t offset, uint32_t value)
{
	assert_int_equal(pwrite(ty_slots_fd(slots), &value, sizeof value, (off_t)offset), (ssize_t)sizeof value);
}

static void test_headers_that_do_not_fit(void **state)
{
	struct ty_arena other;
	struct ty_slots *table = NULL;
	struct ty_slots_found found;
	int fd;

	(void)state;
	write_header(0, 0x12345678);
	refused(TY_INVALID, "does not begin with TYERSLOT");
	write_header(8, 1);
	refused(TY_UNSUPPORTED, "version 1, expected 3");
	for (size_t at = 12; at < 64; at += 4) {
		write_header(at, 0xdeadbeef);
		refused(TY_INVALID, "header is damaged");
	}
	/* whole, but another arena's: of the same size, and of another one */
	assert_ok(ty_arena_open(arena.bytes, &other, &err), &err);
	fd = dup(ty_slots_fd(slots));
	assert_refused(ty_slots_adopt(&other, fd, &table, &found, &err), TY_INVALID, &err, "of another arena");
	ty_arena_close(&other);
	assert_ok(ty_arena_open(TY_PIECE_BYTES, &other, &err), &err);
	assert_refused(ty_slots_adopt(&other, fd, &table, &found, &err), TY_INVALID, &err, "for 1 pieces");
	assert_int_not_equal(fcntl(fd, F_GETFD), -1); /* still ours */
	close(fd);
	ty_arena_close(&other);
}

/* The table as a program before this one left it: shorter, for it knew of no namespaces. */
static void test_an_old_table_is_refused(void **state)
{
	uint32_t version = 2, bytes = 4096 + PIECES * TY_SLOTS_PER_PIECE * RECORD;
	int fd = memfd_create("old", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct ty_slots_found found;
	struct ty_slots *table = NULL;

	(void)state;
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	assert_int_equal(pwrite(fd, "TYERSLOT", 8, 0), 8);
	assert_int_equal(pwrite(fd, &version, sizeof version, 8), (ssize_t)sizeof version);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	assert_refused(ty_slots_adopt(&arena, fd, &table, &found, &err), TY_UNSUPPORTED, &err, "version 2, expected 3");
	close(fd);
}

static void test_descriptors_of_other_things(void **state)
{
	int plain = memfd_create("plain", MFD_CLOEXEC), null = open("/dev/null", O_RDWR | O_CLOEXEC),
	    sealed = memfd_create("short", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct ty_slots_found found;
	struct ty_slots *table = NULL;
	struct ty_arena other;

	(void)state;
	assert_int_equal(fcntl(sealed, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	assert_refused(ty_slots_adopt(&arena, plain, &table, &found, &err), TY_INVALID, &err, "sealed against shrinking");
	assert_refused(ty_slots_adopt(&arena, null, &table, &found, &err), TY_INVALID, &err, "sealed against shrinking");
	assert_refused(ty_slots_adopt(&arena, sealed, &table, &found, &err), TY_INVALID, &err, "0 bytes, expected");
	assert_int_equal(ftruncate(sealed, 8192), 0); /* it may grow */
	assert_int_equal(pwrite(sealed, "TYERSLOT\3\0\0\0", 12, 0), 12);
	assert_refused(ty_slots_adopt(&arena, sealed, &table, &found, &err), TY_INVALID, &err, "8192 bytes, expected");
	assert_refused(ty_arena_adopt(TY_PIECE_BYTES, plain, &other, &err), TY_INVALID, &err, "sealed against shrinking");
	assert_refused(ty_arena_adopt(TY_PIECE_BYTES, null, &other, &err), TY_INVALID, &err, "sealed against shrinking");
	assert_refused(ty_arena_adopt(TY_PIECE_BYTES, sealed, &other, &err), TY_INVALID, &err, "8192 bytes, expected 67108864");
	assert_refused(ty_arena_adopt(TY_PIECE_BYTES, -1, &other, &err), TY_INVALID, &err, "sealed against shrinking");
	close(plain);
	close(null);
	close(sealed);
}

/* What was never written to costs nothing to look at: no page of it comes into being. */
static void test_looking_makes_no_pages(void **state)
{
	struct ty_slots_found found;
	struct stat before, after;

	(void)state;
	ty_slots_add_piece(slots, 3);
	ty_slots_commit(slots, take(TY_PIECE_BYTES, 1), 1);
	fstat(ty_slots_fd(slots), &before);
	assert_int_equal(hand_over(&found), TY_OK);
	fstat(ty_slots_fd(slots), &after);
	assert_int_equal(found.ready, 1);
	assert_int_equal(after.st_blocks, before.st_blocks);
}

/* Somebody else may still copy into what was being filled: while he lives its pieces are left alone, by every process that comes. */
static void test_lent_slots_are_left_alone(void **state)
{
	struct ty_slots_found found;
	uint32_t filling, place, at;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	ty_slots_add_piece(slots, 0);
	filling = take(1 << 20, 1);
	ty_slots_commit(slots, take(1 << 20, 2), 2);
	ty_slots_add_piece(slots, 1);
	ty_slots_commit(slots, take(40 << 20, 3), 3);
	place = ty_slots_lend(slots, (uint32_t)pid);
	assert_true(place < TY_BORROWERS);
	assert_int_equal(ty_slots_lend(slots, (uint32_t)pid), place); /* he has one */
	for (int i = 0; i < 2; i++) {
		assert_int_equal(hand_over(&found), TY_OK);
		assert_int_equal(found.aside, 1);
		assert_int_equal(found.ready, 1);
		assert_int_equal(found.unfinished, 1);
		assert_true(ty_slots_aside(slots, ty_slots_piece(filling)));
		assert_false(ty_slots_aside(slots, 1));
		assert_int_equal(ty_slots_used(slots), 1);
	}
	/* one of his owners has come back and gone: another may still be at what the first process lent it */
	assert_int_equal(ty_slots_lend(slots, (uint32_t)pid), place);
	ty_slots_lent_over(slots, place, false);
	assert_int_equal(hand_over(&found), TY_OK);
	assert_int_equal(found.aside, 1);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(ty_slots_lend(slots, (uint32_t)getpid()), place); /* his place is nobody's */
	ty_slots_lent_over(slots, place, false);
	assert_int_equal(hand_over(&found), TY_OK);
	assert_int_equal(found.aside, 0);
	assert_false(ty_slots_aside(slots, ty_slots_piece(filling)));
	/* that was over before the service went */
	at = ty_slots_lend(slots, (uint32_t)getpid());
	ty_slots_add_piece(slots, 0);
	(void)take(1 << 20, 4);
	ty_slots_lent_over(slots, at, false);
	assert_int_equal(hand_over(&found), TY_OK);
	assert_int_equal(found.aside, 0);
	assert_int_equal(ty_slots_lend(slots, 0), TY_BORROWERS); /* there is no such process */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_committed_comes_back, open_both, close_both),
		cmocka_unit_test_setup_teardown(test_random_lives, open_both, close_both),
		cmocka_unit_test_setup_teardown(test_torn_at_every_word, open_both, close_both),
		cmocka_unit_test_setup_teardown(test_scribbled_records_go, open_both, close_both),
		cmocka_unit_test_setup_teardown(test_records_in_wrong_places_go, open_both, close_both),
		cmocka_unit_test_setup_teardown(test_two_cuts_of_a_piece, open_both, close_both),
		cmocka_unit_test_setup_teardown(test_headers_that_do_not_fit, open_both, close_both),
		cmocka_unit_test_setup_teardown(test_an_old_table_is_refused, open_both, close_both),
		cmocka_unit_test_setup_teardown(test_descriptors_of_other_things, open_both, close_both),
		cmocka_unit_test_setup_teardown(test_looking_makes_no_pages, open_both, close_both),
		cmocka_unit_test_setup_teardown(test_lent_slots_are_left_alone, open_both, close_both),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
