/* SPDX-License-Identifier: Apache-2.0
 *
 * Misuse ends in an assertion that says what was broken: it is tried in a child process.
 */
#ifndef TY_RUNTIME_MISUSE_H
#define TY_RUNTIME_MISUSE_H

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime_test.h"

static void misuse_in_child(void (*what)(void), int to)
{
	setrlimit(RLIMIT_CORE, &(struct rlimit){0});
	signal(SIGABRT, SIG_DFL); /* not cmocka's */
	if (dup2(to, STDERR_FILENO) < 0)
		_exit(2);
	what();
	_exit(1);
}

/* `what` fails an assertion whose text has `expected` in it. */
static inline void misuse(void (*what)(void), const char *expected)
{
	char said[4096];
	size_t length = 0;
	ssize_t more;
	int fds[2], status;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		misuse_in_child(what, fds[1]);
	close(fds[1]);
	while ((more = read(fds[0], said + length, sizeof said - 1 - length)) > 0)
		length += (size_t)more;
	said[length] = '\0';
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT || !strstr(said, "Assertion") || !strstr(said, expected))
		fail_msg("expected an assertion with \"%s\", found status %d and \"%s\"", expected, status, said);
}

#endif
