/* SPDX-License-Identifier: Apache-2.0
 *
 * The log actor behind a pipe that the test reads, does not read, or closes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "actors/log.h"
#include "actors/service.h"

#define THREADS 4
#define LINES 200 /* of each thread: all of them fit into the pipe's 64 KiB and into the pool */

static struct ty_service *service;
static struct ty_actor *actor;
static int out, saved;

/* From here on stderr is a pipe; nothing asserts until it is put back. */
static int set_up(void **state)
{
	struct ty_runtime_options options = {.size = sizeof options, .workers = 1};
	struct ty_spawn_options spawn = {.size = sizeof spawn, .executor = TY_DEDICATED, .cpu = -1};
	struct ty_error err;
	int ends[2];
	char up;

	(void)state;
	assert_false(ty_log_actor_sink("nobody\n", 7)); /* no actor, no line */
	service = calloc(1, sizeof *service);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	saved = dup(STDERR_FILENO);
	dup2(ends[1], STDERR_FILENO);
	close(ends[1]);
	out = ends[0];
	ty_log_setup(TY_LOG_INFO, false);
	assert_int_equal(ty_runtime_create(&options, &service->rt, &err), TY_OK);
	assert_int_equal(ty_spawn(service->rt, &ty_log_class, service, &spawn, &actor), TY_OK);
	while (!ty_log_actor_sink("up\n", 3)) /* until it has started: earlier lines are written by whoever logs */
		usleep(100);
	while (read(out, &up, 1) != 1 || up != '\n')
		;
	return 0;
}

static void end(void)
{
	if (!actor)
		return;
	ty_actor_unref(actor);
	actor = NULL;
	ty_runtime_destroy(service->rt);
	ty_log(TY_LOG_INFO, "test", "after the end"); /* straight to stderr */
	dup2(saved, STDERR_FILENO);
	close(saved);
}

static int tear_down(void **state)
{
	(void)state;
	end();
	close(out);
	free(service);
	return 0;
}

/* All that is in the pipe, whose other end is closed; the caller's. */
static char *drain(void)
{
	size_t room = 1 << 20, n = 0;
	char *text = malloc(room + 1);
	ssize_t got;

	while ((got = read(out, text + n, room - n)) > 0)
		n += (size_t)got;
	text[n] = '\0';
	return text;
}

static unsigned count_lines(const char *text, const char *with)
{
	unsigned n = 0;

	for (const char *end_of_line; *text; text = end_of_line + 1) {
		end_of_line = strchr(text, '\n');
		if (!end_of_line)
			return 0; /* a line that was cut */
		n += memmem(text, (size_t)(end_of_line - text), with, strlen(with)) != NULL;
	}
	return n;
}

static void *talk(void *arg)
{
	for (int i = 0; i < LINES; i++)
		ty_log(TY_LOG_INFO, "test", "thread %d says %d of it", *(int *)arg, i);
	return NULL;
}

static void test_lines(void **state)
{
	uint64_t dropped = ty_log_dropped(), lost = ty_log_lost();
	int numbers[THREADS];
	pthread_t threads[THREADS];
	unsigned at[THREADS] = {0};
	char *text, *save = NULL;

	(void)state;
	for (int i = 0; i < THREADS; i++) {
		numbers[i] = i;
		pthread_create(&threads[i], NULL, talk, &numbers[i]);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	end();
	text = drain();
	assert_int_equal(count_lines(text, " of it"), THREADS * LINES);
	assert_int_equal(count_lines(text, "after the end"), 1);
	assert_int_equal(ty_log_dropped(), dropped);
	assert_int_equal(ty_log_lost(), lost);
	/* each thread's lines are whole and in its order */
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		const char *says = strstr(line, "test: thread ");
		unsigned thread, i;

		if (!says)
			continue;
		assert_int_equal(sscanf(says, "test: thread %u says %u of it", &thread, &i), 2);
		assert_true(thread < THREADS);
		assert_int_equal(i, at[thread]);
		at[thread]++;
	}
	free(text);
}

/* Nobody reads. Whoever logs goes on; what there is no room for is counted; the end does not hang. */
static void test_blocked(void **state)
{
	uint64_t dropped = ty_log_dropped(), lost = ty_log_lost();
	char *text;
	unsigned written;

	(void)state;
	for (int i = 0; i < 10000; i++)
		ty_log(TY_LOG_INFO, "test", "line %d of many that nobody reads", i);
	atomic_store(&service->stopping, true);
	fcntl(out, F_SETPIPE_SZ, 1 << 20); /* for "after the end", which is written by this very thread */
	end();
	dropped = ty_log_dropped() - dropped;
	lost = ty_log_lost() - lost;
	text = drain();
	written = count_lines(text, "of many");
	free(text);
	assert_true(dropped > 0);
	assert_true(written > 0);
	assert_int_equal(written + dropped + lost, 10000);
}

/* The pipe is full until the service stops, and stays full. */
static void test_gives_up_at_the_end(void **state)
{
	char filler[4096];
	uint64_t lost = ty_log_lost();
	struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};

	(void)state;
	memset(filler, '\n', sizeof filler);
	while (poll(&p, 1, 0) == 1)
		if (write(STDERR_FILENO, filler, sizeof filler) < 0)
			break;
	ty_log(TY_LOG_INFO, "test", "one");
	ty_log(TY_LOG_INFO, "test", "two");
	atomic_store(&service->stopping, true);
	ty_actor_unref(actor);
	actor = NULL;
	ty_runtime_destroy(service->rt);
	dup2(saved, STDERR_FILENO);
	close(saved);
	assert_int_equal(ty_log_lost() - lost, 2);
}

static void test_closed(void **state)
{
	uint64_t dropped = ty_log_dropped(), lost = ty_log_lost();

	(void)state;
	close(out);
	for (int i = 0; i < 100; i++)
		ty_log(TY_LOG_INFO, "test", "to nobody");
	end(); /* and the line after it, which is dropped */
	out = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_int_equal(ty_log_lost() - lost, 100);
	assert_int_equal(ty_log_dropped() - dropped, 1);
}

/* More lines than the pool has, with the reader at work: every place of it is used again and again. */
static void *read_all(void *arg)
{
	char text[4096];
	ssize_t n;
	size_t *lines = arg;

	while ((n = read(out, text, sizeof text)) > 0)
		for (ssize_t i = 0; i < n; i++)
			*lines += text[i] == '\n';
	return NULL;
}

static void test_pool_goes_round(void **state)
{
	uint64_t dropped = ty_log_dropped(), lost = ty_log_lost();
	size_t lines = 0;
	pthread_t reader;

	(void)state;
	pthread_create(&reader, NULL, read_all, &lines);
	for (int i = 0; i < 20 * TY_LOG_LINES; i++)
		ty_log(TY_LOG_INFO, "test", "round %d", i);
	end();
	pthread_join(reader, NULL);
	assert_int_equal(ty_log_lost(), lost);
	assert_int_equal(lines + (ty_log_dropped() - dropped), 20 * TY_LOG_LINES + 1);
	assert_true(lines > TY_LOG_LINES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_lines, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_blocked, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_gives_up_at_the_end, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_closed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_pool_goes_round, set_up, tear_down),
	};

	signal(SIGPIPE, SIG_IGN); /* as tyerd does */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
