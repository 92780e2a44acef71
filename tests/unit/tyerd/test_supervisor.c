/* SPDX-License-Identifier: Apache-2.0
 *
 * The supervisor between its worker's last word and its end, which may be seconds apart: a driver takes its time over a dead process.
 * This program is both: started by the supervisor it is the worker.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/tyerd/notify.h"
#include "tools/tyerd/pages.h"
#include "tools/tyerd/run.h"

#define TURNS_MAX 1000 /* of its loop, in which it has nothing to do */

/* Shared with the process that is the supervisor. */
static struct seen {
	_Atomic uint32_t turns; /* since the worker has hung up */
	_Atomic bool calm;      /* it waits for nothing but signals then */
} *seen;

int __real_poll(struct pollfd *p, nfds_t count, int timeout);
int __wrap_poll(struct pollfd *p, nfds_t count, int timeout);

/* The linker puts it before the C library's. */
int __wrap_poll(struct pollfd *p, nfds_t count, int timeout)
{
	bool loop = seen && count == 2 + TY_PAGES_POLLED; /* p[1] is the channel to the worker */

	if (loop && p[1].fd < 0)
		atomic_store(&seen->calm, true);
	int n = __real_poll(p, count, timeout);

	if (loop && p[1].fd >= 0 && p[1].revents & POLLHUP && atomic_fetch_add(&seen->turns, 1) >= TURNS_MAX)
		_exit(1);
	return n;
}

/* Says that it is ready, hangs up, and goes on living until it is asked to stop. */
static _Noreturn void be_worker(void)
{
	int channel = atoi(getenv(TY_SUPERVISOR_ENV));

	ty_notify_over(channel);
	ty_notify("READY=1", -1);
	close(channel);
	for (;;)
		pause();
}

static void test_worker_that_hung_up(void **state)
{
	static struct ty_config config = {.stop_timeout_us = 10000000};
	char *argv[] = {(char[]){"tyerd"}, NULL};
	struct ty_kept kept = {.fd = {-1, -1, -1, -1}};
	int status = 0;
	pid_t pid;

	(void)state;
	seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(seen, MAP_FAILED);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(ty_supervisor_run(&config, argv, &kept));
	while (!atomic_load(&seen->calm) && waitpid(pid, &status, WNOHANG) == 0)
		poll(NULL, 0, 1);
	assert_true(atomic_load(&seen->calm)); /* else it turned and turned */
	kill(pid, SIGTERM);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	munmap(seen, sizeof *seen);
	seen = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_worker_that_hung_up),
	};

	unsetenv("NOTIFY_SOCKET");
	if (getenv(TY_SUPERVISOR_ENV))
		be_worker();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
