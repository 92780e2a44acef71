/* SPDX-License-Identifier: Apache-2.0 */
#include "processes.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define TICK_MS 200

struct process {
	pid_t pid;
	int ready_fd, start_fd; /* the parent's ends: it reads from one and writes to the other */
	bool forked, follower, is_ready, ended;
};

struct shared {
	struct bench_control control;
	struct bench_stats stats[];
};

struct bench_processes {
	struct shared *shared;
	size_t shared_bytes;
	unsigned count;
	struct process each[];
};

/* The run that a signal ends; set and cleared by the parent with the handlers. */
static struct bench_control *interrupted;

static void on_signal(int signal)
{
	(void)signal;
	atomic_store_explicit(&interrupted->stop, true, memory_order_relaxed);
}

enum ty_code bench_processes_new(unsigned count, struct bench_processes **out, struct ty_error *err)
{
	struct bench_processes *p = calloc(1, sizeof *p + count * sizeof p->each[0]);
	void *shared;

	if (!p)
		return ty_fail(err, TY_NO_MEMORY, "no memory for %u processes", count);
	p->count = count;
	p->shared_bytes = sizeof *p->shared + count * sizeof p->shared->stats[0];
	shared = mmap(NULL, p->shared_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED) {
		free(p);
		return ty_fail(err, TY_NO_MEMORY, "no memory for the figures of %u processes: %s", count, strerror(errno));
	}
	p->shared = shared;
	for (unsigned i = 0; i < count; i++)
		p->each[i].ready_fd = p->each[i].start_fd = -1;
	*out = p;
	return TY_OK;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void bench_processes_free(struct bench_processes *p)
{
	if (!p)
		return;
	for (unsigned i = 0; i < p->count; i++) {
		close_fd(&p->each[i].ready_fd);
		close_fd(&p->each[i].start_fd);
		if (p->each[i].forked && !p->each[i].ended)
			waitpid(p->each[i].pid, NULL, 0);
	}
	munmap(p->shared, p->shared_bytes);
	free(p);
}

struct bench_control *bench_processes_control(struct bench_processes *p)
{
	return &p->shared->control;
}

struct bench_stats *bench_processes_stats(struct bench_processes *p, unsigned number)
{
	return &p->shared->stats[number];
}

bool bench_child_start(struct bench_child *child)
{
	char byte = 'r';

	if (write(child->ready_fd, &byte, 1) != 1)
		return false;
	for (;;) {
		ssize_t got = read(child->start_fd, &byte, 1);

		if (got == 1)
			return true;
		if (got == 0 || errno != EINTR)
			return false;
	}
}

static _Noreturn void run_child(struct bench_processes *p, unsigned number, int ready_fd, int start_fd, pid_t parent,
	bench_child_fn run, const void *user)
{
	struct bench_child child = {
		.control = &p->shared->control,
		.stats = &p->shared->stats[number],
		.number = number,
		.ready_fd = ready_fd,
		.start_fd = start_fd,
		.user = user,
	};

	/* The terminal's interrupt is for the parent, which ends the run in order; without a parent there is no run. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_DFL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	for (unsigned i = 0; i < p->count; i++) {
		close_fd(&p->each[i].ready_fd);
		close_fd(&p->each[i].start_fd);
	}
	run(&child);
	_exit(child.stats->exit_code);
}

enum ty_code bench_processes_fork(struct bench_processes *p, unsigned number, bool follower, bench_child_fn run,
	const void *user, struct ty_error *err)
{
	int ready[2] = {-1, -1}, start[2] = {-1, -1};
	pid_t parent = getpid(), pid;

	assert(number < p->count && !p->each[number].forked);
	if (pipe2(ready, O_CLOEXEC) < 0 || pipe2(start, O_CLOEXEC) < 0)
		goto fail;
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		goto fail;
	if (pid == 0) {
		close(ready[0]);
		close(start[1]);
		run_child(p, number, ready[1], start[0], parent, run, user);
	}
	close(ready[1]);
	close(start[0]);
	p->each[number] = (struct process){
		.pid = pid, .ready_fd = ready[0], .start_fd = start[1], .forked = true, .follower = follower};
	return TY_OK;
fail:
	ty_fail(err, TY_IO, "process %u: %s", number, strerror(errno));
	for (unsigned i = 0; i < 2; i++) {
		close_fd(&ready[i]);
		close_fd(&start[i]);
	}
	return TY_IO;
}

/* The process has closed its end: it is gone, in one way or another. */
static void reap(struct bench_processes *p, unsigned number)
{
	struct process *each = &p->each[number];
	struct bench_stats *stats = &p->shared->stats[number];
	int status = 0;

	close_fd(&each->ready_fd);
	close_fd(&each->start_fd);
	while (waitpid(each->pid, &status, 0) < 0 && errno == EINTR)
		continue;
	each->ended = true;
	if (WIFSIGNALED(status))
		bench_fatal(stats, 1, "client process %u died: %s", number, strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status) && !stats->exit_code)
		bench_fatal(stats, 1, "client process %u ended with %d", number, WEXITSTATUS(status));
}

/* One round of waiting: who has become ready, who has ended. */
static void watch(struct bench_processes *p, struct pollfd *fds)
{
	for (unsigned i = 0; i < p->count; i++)
		fds[i] = (struct pollfd){.fd = p->each[i].ready_fd, .events = POLLIN};
	if (poll(fds, p->count, TICK_MS) <= 0)
		return;
	for (unsigned i = 0; i < p->count; i++) {
		char byte;

		if (p->each[i].ready_fd < 0 || !fds[i].revents)
			continue;
		if (read(p->each[i].ready_fd, &byte, 1) == 1)
			p->each[i].is_ready = true;
		else
			reap(p, i);
	}
}

static bool all_ready(const struct bench_processes *p, bool *failed)
{
	bool all = true;

	*failed = false;
	for (unsigned i = 0; i < p->count; i++) {
		all &= p->each[i].is_ready;
		*failed |= !p->each[i].forked || p->each[i].ended;
	}
	return all;
}

static bool leaders_ended(const struct bench_processes *p, bool followers_too)
{
	for (unsigned i = 0; i < p->count; i++)
		if (p->each[i].forked && !p->each[i].ended && (followers_too || !p->each[i].follower))
			return false;
	return true;
}

static void start_all(struct bench_processes *p)
{
	p->shared->control.start = bench_now();
	for (unsigned i = 0; i < p->count; i++) {
		char byte = 's';

		/* A process that has died meanwhile is noticed by its pipe. */
		if (p->each[i].start_fd >= 0 && write(p->each[i].start_fd, &byte, 1) != 1)
			continue;
	}
}

void bench_processes_run(struct bench_processes *p, void (*tick)(struct bench_processes *processes, void *user),
	void *user)
{
	struct sigaction action = {.sa_handler = on_signal}, ignore = {.sa_handler = SIG_IGN}, old_int, old_term, old_pipe;
	struct pollfd *fds = calloc(p->count, sizeof *fds);
	bool failed = !fds;

	interrupted = &p->shared->control;
	sigaction(SIGINT, &action, &old_int);
	sigaction(SIGTERM, &action, &old_term);
	sigaction(SIGPIPE, &ignore, &old_pipe);
	while (!failed && !all_ready(p, &failed) && !failed)
		watch(p, fds);
	if (!failed)
		start_all(p);
	for (unsigned i = 0; i < p->count; i++)
		close_fd(&p->each[i].start_fd); /* without a start byte: there will be no start */
	while (fds && !leaders_ended(p, true)) {
		watch(p, fds);
		if (leaders_ended(p, false))
			atomic_store_explicit(&p->shared->control.stop, true, memory_order_relaxed);
		if (!failed && tick)
			tick(p, user);
	}
	sigaction(SIGINT, &old_int, NULL);
	sigaction(SIGTERM, &old_term, NULL);
	sigaction(SIGPIPE, &old_pipe, NULL);
	free(fds);
}
