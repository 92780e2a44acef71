/* SPDX-License-Identifier: Apache-2.0
 *
 * Idle for a week: a client that says nothing for so long is as it was (LMCache 4715, 4795: live workers were reaped, and their next
 * retrieve hung for ever). And the clocks of the service jump, forwards and back, without anybody losing anything.
 */
#include "process.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HOUR_NS 3600000000000ll

static void check_all(struct h_client *c, uint64_t session)
{
	h_wipe(c, 4, 64);
	if (h_retrieve(c, session, 0, 4, 64) != TY_OK)
		fail_msg("%s", c->error);
	assert_int_equal(h_wrong(c, 700, 4, 64), 0);
}

static void test_week(void **state)
{
	char path[] = "/tmp/tyer-clock-XXXXXX";
	_Atomic int64_t *shift;
	struct h_service s;
	struct h_client c;
	int fd = mkstemp(path);
	pid_t pid;

	(void)state;
	assert_true(fd >= 0 && ftruncate(fd, 2 * sizeof *shift) == 0);
	shift = mmap(NULL, 2 * sizeof *shift, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(shift, MAP_FAILED);
	setenv("TYER_SHIFT_CLOCK", path, 1);
	h_prepare(&s);
	pid = p_start(&s, NULL, getenv("SHIFT_CLOCK"));
	h_open(&s, &c, NULL, "idle", 0, 1);
	assert_int_equal(h_lookup(&c, 1, 700, 4), TY_OK);
	h_fill(&c, 700, 4, 0);
	assert_int_equal(h_store(&c, 1, 0, 4, 0), TY_OK);
	assert_int_equal(h_lookup(&c, 1, 700, 4), TY_OK);
	assert_int_equal(c.last.lookup.hits, 4);
	for (int hour = 1; hour <= 7 * 24; hour++) {
		atomic_store(&shift[0], hour * HOUR_NS);
		atomic_store(&shift[1], hour * HOUR_NS);
		if (hour % 24 == 0) /* nothing of the client in between but that it is there */
			ty_client_poll(c.client, 0, 2000);
	}
	assert_true(p_counter(&c, "tyer_uptime_seconds") >= 7 * 24 * 3600);
	assert_int_equal(ty_client_state(c.client, NULL), TY_CLIENT_UP);
	check_all(&c, 1); /* the lease of a week ago */
	assert_int_equal((int)p_counter(&c, "tyer_lookup_leases"), 4);

	/* jumps: the clock on the wall forwards by a day and back by two, the other one forwards by an hour, while requests run */
	for (int i = 0; i < 20; i++) {
		atomic_fetch_add(&shift[1], i % 2 ? -48 * HOUR_NS : 24 * HOUR_NS);
		if (i % 5 == 0)
			atomic_fetch_add(&shift[0], HOUR_NS);
		/* an hour that passes in a moment is more than a deadline */
		while (h_lookup(&c, 2, 700, 4) == TY_TIMEOUT)
			;
		assert_int_equal(c.last.code, TY_OK);
		assert_int_equal(c.last.lookup.hits, 4);
		assert_int_equal(h_end(&c, 2), TY_OK);
	}
	check_all(&c, 1);
	h_close(&c);
	/* not stopped in order: the kernel's clocks are not ahead, and a thread that waits there for a time of ours waits for long */
	p_kill(pid);
	unlink(path);
	close(fd);
	h_stop(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_week)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
