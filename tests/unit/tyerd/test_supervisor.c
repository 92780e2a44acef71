/* SPDX-License-Identifier: Apache-2.0
 *
 * The supervisor and its workers' deaths: between a worker's last word and its end, which may be seconds apart (a driver takes its time over
 * a dead process), and when workers die over a cache again and again. This program is both: started by the supervisor it is the worker.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
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

/* ---- the worker ------------------------------------------------------------------------------------------------------- */

/* What it is to do, and where it tells what it was given; for a worker, in its environment. */
#define PART_ENV "TEST_PART"
#define REPORT_ENV "TEST_REPORT"

struct report {
	uint32_t restarts; /* before it */
	bool cache;        /* it was given one */
};

static void hand_over_a_cache(void)
{
	int fd = memfd_create("cache", MFD_CLOEXEC);

	ty_notify("FDSTORE=1\nFDNAME=tyer-arena", fd);
	close(fd);
}

static _Noreturn void be_worker(void)
{
	const char *part = getenv(PART_ENV), *names = getenv("LISTEN_FDNAMES");
	struct report report = {.restarts = (uint32_t)atoi(getenv(TY_RESTARTS_ENV)), .cache = names && strstr(names, "tyer-arena")};
	int channel = atoi(getenv(TY_SUPERVISOR_ENV));

	ty_notify_over(channel);
	if (strcmp(part, "hangs up") == 0) {
		ty_notify("READY=1", -1);
		close(channel);
		for (;;)
			pause();
	}
	if (!report.restarts)
		hand_over_a_cache();
	ty_notify("READY=1", -1);
	if (strcmp(part, "crashes later") == 0)
		ty_notify(TY_NOTIFY_RETURNED, -1);
	(void)setrlimit(RLIMIT_CORE, &(struct rlimit){0});
	signal(SIGBUS, SIG_DFL); /* a sanitizer would make a status of it */
	if (write(atoi(getenv(REPORT_ENV)), &report, sizeof report) == (ssize_t)sizeof report)
		raise(strcmp(part, "is killed") == 0 ? SIGKILL : SIGBUS);
	_exit(2);
}

/* ---- tests ------------------------------------------------------------------------------------------------------------ */

static pid_t begin(const char *part, int report)
{
	static struct ty_config config = {.stop_timeout_us = 10000000}; /* and no pause between two workers */
	static char name[] = "tyerd", *argv[] = {name, NULL};
	struct ty_kept kept = {.fd = {-1, -1, -1, -1}};
	char number[16];
	pid_t pid;

	snprintf(number, sizeof number, "%d", report);
	setenv(PART_ENV, part, 1);
	setenv(REPORT_ENV, number, 1);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(ty_supervisor_run(&config, argv, &kept));
	return pid;
}

static void end(pid_t pid)
{
	int status;

	kill(pid, SIGTERM);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
}

#define LIVES 12

/* Which of the workers of one part was the first that had no cache, behind the one that made it; 0: none of them. */
static uint32_t first_without(const char *part)
{
	struct report report;
	uint32_t first = 0;
	int ends[2];
	pid_t pid;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	int high = fcntl(ends[1], F_DUPFD, 100); /* stays open in the workers, beyond those that are handed on */

	assert_true(high >= 100);
	close(ends[1]);
	pid = begin(part, high);
	close(high);
	for (uint32_t i = 0; i < LIVES; i++) {
		assert_int_equal(read(ends[0], &report, sizeof report), sizeof report);
		assert_int_equal(report.restarts, i);
		if (i && !report.cache && !first)
			first = i;
	}
	end(pid);
	close(ends[0]);
	return first;
}

/* The eighth in a row that crashes before all of the cache is back may be the cache's work. */
static void test_crashes_while_it_returns(void **state)
{
	(void)state;
	assert_int_equal(first_without("crashes"), 8);
}

/* What crashes later, or is killed, says nothing of it. */
static void test_other_deaths(void **state)
{
	(void)state;
	assert_int_equal(first_without("crashes later"), 0);
	assert_int_equal(first_without("is killed"), 0);
}

static void test_worker_that_hung_up(void **state)
{
	int status = 0;
	pid_t pid;

	(void)state;
	seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(seen, MAP_FAILED);
	pid = begin("hangs up", -1);
	while (!atomic_load(&seen->calm) && waitpid(pid, &status, WNOHANG) == 0)
		poll(NULL, 0, 1);
	assert_true(atomic_load(&seen->calm)); /* else it turned and turned */
	end(pid);
	munmap(seen, sizeof *seen);
	seen = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_worker_that_hung_up),
		cmocka_unit_test(test_crashes_while_it_returns),
		cmocka_unit_test(test_other_deaths),
	};

	unsetenv("NOTIFY_SOCKET");
	if (getenv(TY_SUPERVISOR_ENV))
		be_worker();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
