/* SPDX-License-Identifier: Apache-2.0
 *
 * Waiting in epoll: nothing that came before a wait, during it or between two looks is missed. A wait that would miss something lasts
 * for ever, and the test's own time ends it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/waiter.h"

static struct ty_waiter waiter;
static int ends[2]; /* of a pipe, whose first is in the set */

static int set_up(void **state)
{
	struct ty_error err;

	(void)state;
	assert_int_equal(ty_waiter_open(&waiter, &err), TY_OK);
	assert_int_equal(pipe(ends), 0);
	assert_true(ty_waiter_add(&waiter, ends[0], EPOLLIN, 7));
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	close(ends[0]);
	close(ends[1]);
	ty_waiter_close(&waiter);
	return 0;
}

/* As an actor's thread goes round: look, and wait if there was nothing. */
static const struct epoll_event *next_event(void)
{
	const struct epoll_event *events;

	while (ty_waiter_take(&waiter, &events) == 0)
		ty_waiter_wait(&waiter, -1);
	return events;
}

static void drain(void)
{
	char bytes[64];

	assert_true(read(ends[0], bytes, sizeof bytes) > 0);
}

static void test_events(void **state)
{
	const struct epoll_event *events;

	(void)state;
	assert_int_equal(write(ends[1], "x", 1), 1);
	assert_int_equal(next_event()->data.u64, 7);
	assert_int_equal(next_event()->data.u64, 7); /* it is still there */
	drain();
	for (int i = 0; i < 4; i++)
		assert_int_equal(ty_waiter_take(&waiter, &events), 0);
	/* without a wait between: whoever is busy with messages alone hears of it, too */
	assert_int_equal(write(ends[1], "x", 1), 1);
	assert_true(ty_waiter_take(&waiter, &events) == 1 || ty_waiter_take(&waiter, &events) == 1);
	drain();
}

static void test_change_and_remove(void **state)
{
	const struct epoll_event *events;
	int other[2];

	(void)state;
	assert_int_equal(pipe(other), 0);
	assert_true(ty_waiter_add(&waiter, other[1], EPOLLOUT, 8));
	assert_int_equal(next_event()->data.u64, 8);
	assert_true(ty_waiter_change(&waiter, other[1], 0, 8));
	assert_int_equal(write(ends[1], "x", 1), 1);
	assert_int_equal(next_event()->data.u64, 7); /* and not that one */
	ty_waiter_remove(&waiter, ends[0]);
	ty_waiter_wait(&waiter, 0);
	assert_int_equal(ty_waiter_take(&waiter, &events), 0);
	assert_false(ty_waiter_change(&waiter, ends[0], EPOLLIN, 7)); /* it is no longer in the set */
	close(other[0]);
	close(other[1]);
}

static void test_time(void **state)
{
	const struct epoll_event *events;

	(void)state;
	ty_waiter_wait(&waiter, 0);
	ty_waiter_wait(&waiter, 1);
	ty_waiter_wait(&waiter, 1000001);
	assert_int_equal(ty_waiter_take(&waiter, &events), 0);
	waiter.spin_ns = 20000;
	ty_waiter_wait(&waiter, 10000); /* sooner than it would have looked */
	ty_waiter_wait(&waiter, 50000);
	assert_int_equal(ty_waiter_take(&waiter, &events), 0);
}

/* One that came first ends the next wait, and is no event. */
static void test_woken_before(void **state)
{
	const struct epoll_event *events;

	(void)state;
	for (int i = 0; i < 3; i++) {
		waiter.spin_ns = i == 2 ? 20000 : 0;
		ty_waiter_wake(&waiter);
		ty_waiter_wake(&waiter);
		ty_waiter_wait(&waiter, -1);
		assert_int_equal(ty_waiter_take(&waiter, &events), 0);
	}
}

#define TURNS 20000

static _Atomic(uint32_t) asked, answered;

static void *ask(void *unused)
{
	(void)unused;
	for (uint32_t i = 1; i <= TURNS; i++) {
		atomic_store_explicit(&asked, i, memory_order_release);
		ty_waiter_wake(&waiter);
		while (atomic_load_explicit(&answered, memory_order_acquire) < i)
			;
	}
	return NULL;
}

/* Each wake is needed, and there is one for each. */
static void test_woken_by_another(void **state)
{
	const struct epoll_event *events;
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, ask, NULL), 0);
	for (uint32_t i = 1; i <= TURNS; i++) {
		waiter.spin_ns = i & 1 ? 20000 : 0;
		while (atomic_load_explicit(&asked, memory_order_acquire) < i) {
			assert_int_equal(ty_waiter_take(&waiter, &events), 0);
			ty_waiter_wait(&waiter, -1);
		}
		atomic_store_explicit(&answered, i, memory_order_release);
	}
	assert_int_equal(pthread_join(thread, NULL), 0);
}

/* More than are taken at once. */
static void test_many(void **state)
{
	enum { MANY = 3 * TY_WAITER_EVENTS };
	static int many[MANY][2];
	bool seen[MANY] = {false};
	unsigned left = MANY;

	(void)state;
	for (unsigned i = 0; i < MANY; i++) {
		assert_int_equal(pipe(many[i]), 0);
		assert_true(ty_waiter_add(&waiter, many[i][0], EPOLLIN, 100 + i));
		assert_int_equal(write(many[i][1], "x", 1), 1);
	}
	while (left) {
		const struct epoll_event *events;
		int n = ty_waiter_take(&waiter, &events);

		assert_in_range(n, 0, TY_WAITER_EVENTS);
		for (int i = 0; i < n; i++) {
			unsigned which = (unsigned)events[i].data.u64 - 100;

			assert_true(which < MANY);
			left -= !seen[which];
			seen[which] = true;
		}
		if (n == 0)
			ty_waiter_wait(&waiter, -1);
	}
	for (unsigned i = 0; i < MANY; i++) {
		close(many[i][0]);
		close(many[i][1]);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(events), TEST(change_and_remove), TEST(time), TEST(woken_before), TEST(woken_by_another), TEST(many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
