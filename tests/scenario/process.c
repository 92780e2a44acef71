/* SPDX-License-Identifier: Apache-2.0 */
#include "process.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "wire/tyer.pb-c.h"

#define ARGS_MAX 64

pid_t p_start(struct h_service *s, const char *const *more, const char *preload)
{
	char size[32], tokens[16], line[512] = "";
	const char *argv[ARGS_MAX] = {getenv("TYERD"), "--listen", s->config.listen, "--attach", s->config.attach, "--http", "off",
		"--device", s->config.device[0], "--l1-size", size, "--l1-ahead", "64MiB", "--chunk-tokens", tokens, "--log-level", "error", "--supervise", "off",
		"--admin", s->config.admin}; /* over tcp it would be one for all of a machine */
	int n = 21, ready[2];
	FILE *in;
	pid_t pid;

	assert_non_null(argv[0]);
	snprintf(size, sizeof size, "%llu", (unsigned long long)s->config.l1_size);
	snprintf(tokens, sizeof tokens, "%u", s->config.chunk_tokens);
	snprintf(s->url, sizeof s->url, "%.127s", s->config.listen);
	for (; more && *more && n < ARGS_MAX - 1; more++)
		argv[n++] = *more;
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (preload) {
			setenv("LD_PRELOAD", preload, 1);
			setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 1); /* before AddressSanitizer's own, if there is one */
		}
		dup2(ready[1], STDOUT_FILENO);
		execv(argv[0], (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	assert_true(pid > 0);
	close(ready[1]);
	in = fdopen(ready[0], "r");
	if (!fgets(line, sizeof line, in) || strncmp(line, "tyerd ready", 11) != 0)
		fail_msg("tyerd is not ready: %s", line);
	fclose(in);
	return pid;
}

void p_kill(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

int p_stop(pid_t pid)
{
	int status;

	kill(pid, SIGTERM);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void p_freeze(pid_t pid)
{
	int status;

	kill(pid, SIGSTOP);
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	assert_true(WIFSTOPPED(status));
}

void p_clock_open(struct p_clock *clock)
{
	int fd;

	strcpy(clock->path, "/tmp/tyer-clock-XXXXXX");
	fd = mkstemp(clock->path);
	assert_true(fd >= 0 && ftruncate(fd, 2 * sizeof *clock->ahead) == 0);
	clock->ahead = mmap(NULL, 2 * sizeof *clock->ahead, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(clock->ahead, MAP_FAILED);
	close(fd);
	setenv("TYER_SHIFT_CLOCK", clock->path, 1);
}

void p_clock_close(struct p_clock *clock)
{
	munmap((void *)(uintptr_t)clock->ahead, 2 * sizeof *clock->ahead);
	unlink(clock->path);
}

struct counter {
	const char *name;
	double value;
	bool there, found;
};

static void on_status(void *user, const struct ty_result *result)
{
	struct counter *c = user;
	Tyer__V1__StatusReply *status;

	c->there = true;
	if (result->code != TY_OK)
		return;
	status = tyer__v1__status_reply__unpack(NULL, result->status.length, result->status.bytes);
	for (size_t i = 0; status && i < status->n_counters; i++) {
		if (strcmp(status->counters[i]->name, c->name) == 0) {
			c->value = status->counters[i]->value;
			c->found = true;
		}
	}
	if (status)
		tyer__v1__status_reply__free_unpacked(status, NULL);
}

double p_counter(struct h_client *c, const char *name)
{
	struct counter counter = {.name = name};

	if (ty_client_status(c->client, on_status, &counter, &c->refused) != TY_OK)
		fail_msg("STATUS: %s", c->refused.text);
	while (!counter.there)
		ty_client_poll(c->client, 0, 100000);
	if (!counter.found)
		fail_msg("there is no counter %s", name);
	return counter.value;
}

void p_wait_up(struct h_client *c)
{
	while (ty_client_state(c->client, NULL) != TY_CLIENT_UP)
		ty_client_poll(c->client, 0, 100000);
}
