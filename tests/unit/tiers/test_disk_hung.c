/* SPDX-License-Identifier: Apache-2.0
 *
 * Workers of the disk tier in system calls that do not come back: their operations end at their deadlines, and whoever has their memory
 * then keeps what he puts there.
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "disk_folder.h"

enum { CHUNK = 100000, SHORT = 50000000 };

static _Atomic bool hangs;
static _Atomic unsigned in_calls; /* that hang, or have hung */

/* A disk that does not answer: it takes and gives the bytes when it does. */
static void hang(void)
{
	atomic_fetch_add(&in_calls, 1);
	while (atomic_load(&hangs))
		sched_yield();
}

ssize_t __real_preadv64(int fd, const struct iovec *vector, int count, off_t at);
ssize_t __wrap_preadv64(int fd, const struct iovec *vector, int count, off_t at);
ssize_t __wrap_preadv64(int fd, const struct iovec *vector, int count, off_t at)
{
	hang();
	return __real_preadv64(fd, vector, count, at);
}

ssize_t __real_pwritev64(int fd, const struct iovec *vector, int count, off_t at);
ssize_t __wrap_pwritev64(int fd, const struct iovec *vector, int count, off_t at);
ssize_t __wrap_pwritev64(int fd, const struct iovec *vector, int count, off_t at)
{
	hang();
	return __real_pwritev64(fd, vector, count, at);
}

static void wait_for(const _Atomic uint64_t *counter, uint64_t value)
{
	while (atomic_load(counter) != value)
		sched_yield();
}

static enum ty_tier_outcome late(struct house *h, enum ty_tier_verb verb, uint64_t number)
{
	struct ty_tier_io *io = house_io(h, verb, number, 0, 1, CHUNK);
	enum ty_tier_outcome outcome;

	house_timeout = SHORT;
	house_run(h, &io, 1);
	house_timeout = 0;
	outcome = io->outcome;
	house_free(io);
	return outcome;
}

static void test_hung(void **state)
{
	struct house h;
	uint8_t *place;

	(void)state;
	assert_int_equal(house_open(&h, spec), TY_OK);
	house_scanned(&h);
	assert_int_equal(house_do(&h, TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	place = house_place(&h, 0, CHUNK);
	for (int put = 0; put < 2; put++) {
		atomic_store(&in_calls, 0);
		atomic_store(&hangs, true);
		do /* until it is in the middle of it: a worker may be slow to begin */
			assert_int_equal(late(&h, put ? TY_TIER_PUT : TY_TIER_GET, 1 + (uint64_t)put), TY_TIER_LATE);
		while (!atomic_load(&in_calls));
		while (!atomic_load(&h.tier->stats.given_up))
			sched_yield();
		assert_int_equal(h.tier->stats.in_flight[put ? TY_TIER_DOWN : TY_TIER_UP], 0);
		memset(place, 0xdd, CHUNK); /* somebody else's by now */
		atomic_store(&hangs, false);
		wait_for(&h.tier->stats.given_up, 0);
		for (int i = 0; i < CHUNK; i++)
			assert_int_equal(place[i], 0xdd);
	}
	wait_for(&h.tier->stats.chunks, 1);
	assert_int_equal(house_do(&h, TY_TIER_GET, 2, 1, CHUNK), TY_TIER_MISSING); /* nobody was told that it is there */
	assert_int_equal(house_do(&h, TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE);
	while (house_do(&h, TY_TIER_PUT, 2, 1, CHUNK) != TY_TIER_DONE) /* its old file may still be being removed */
		sched_yield();
	assert_int_equal(house_do(&h, TY_TIER_GET, 2, 1, CHUNK), TY_TIER_DONE);
	assert_int_equal(h.tier->stats.buffer_bytes, 0);
	house_close(&h);
}

/* What hangs is bounded: past that the disk is asked for nothing, and served by as soon as it is there again. */
static void test_hung_for_long(void **state)
{
	struct house h;
	bool refused = false;

	(void)state;
	assert_int_equal(house_open(&h, spec), TY_OK);
	house_scanned(&h);
	assert_int_equal(house_do(&h, TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	atomic_store(&in_calls, 0);
	atomic_store(&hangs, true);
	while (atomic_load(&in_calls) < 2) /* both workers: from here on none is over */
		assert_int_equal(late(&h, TY_TIER_GET, 1), TY_TIER_LATE);
	while (!refused) {
		struct ty_tier_io *ios[16];

		for (uint32_t i = 0; i < 16; i++)
			ios[i] = house_io(&h, TY_TIER_GET, 1, i, 1, CHUNK);
		house_timeout = SHORT;
		house_run(&h, ios, 16);
		house_timeout = 0;
		for (uint32_t i = 0; i < 16; i++) {
			assert_true(ios[i]->outcome == TY_TIER_LATE || ios[i]->outcome == TY_TIER_FAILED);
			refused |= ios[i]->outcome == TY_TIER_FAILED;
			house_free(ios[i]);
		}
	}
	while (atomic_load(&h.tier->stats.given_up) < TY_TIER_GIVEN_UP)
		sched_yield();
	assert_true(atomic_load(&h.tier->stats.given_up) <= TY_TIER_GIVEN_UP + 16);
	assert_int_equal(house_do(&h, TY_TIER_GET, 1, 1, CHUNK), TY_TIER_FAILED);
	assert_int_equal(house_do(&h, TY_TIER_PUT, 5, 1, CHUNK), TY_TIER_FAILED);
	assert_int_equal(house_do(&h, TY_TIER_EXISTS, 1, 1, 0), TY_TIER_DONE);
	assert_in_range(h.tier->stats.buffer_bytes, 0, 2 * (CHUNK + TY_ENVELOPE_ALIGN)); /* of what a worker has, not of what waits for one */
	atomic_store(&hangs, false);
	wait_for(&h.tier->stats.given_up, 0);
	assert_int_equal(house_do(&h, TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE);
	house_close(&h);
}

int main(void)
{
	struct CMUnitTest tests[] = {IN_FOLDER(hung), IN_FOLDER(hung_for_long)};

	for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
		tests[i].initial_state = (void *)(uintptr_t)",io=plain,threads=2";
	return cmocka_run_group_tests(tests, NULL, NULL);
}
