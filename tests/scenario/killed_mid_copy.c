/* SPDX-License-Identifier: Apache-2.0
 *
 * Killed in the middle of its stores and of its retrieves (LMCache 4014, 4287, 4631: a dead client's memory stayed mapped for minutes;
 * 4517: its operations had no end). Everybody else goes on, what it had committed serves, and nothing of it stays.
 */
#include "harness.h"
#include "actors/service.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 5

static struct h_service service;

/* ---- the victim, a process of its own -------------------------------------------------------------------- */

/* Its first store is committed; then it stops, and when it is continued it stores, or retrieves, without end. */
_Noreturn static void victim(char **argv)
{
	struct h_service s = {0};
	bool stores = strcmp(argv[0], "stores") == 0;
	struct h_client c;

	snprintf(s.url, sizeof s.url, "%s", argv[1]);
	snprintf(s.config.attach, sizeof s.config.attach, "%s", argv[2]);
	h_open(&s, &c, NULL, "killed", 0, 1);
	h_ok(&c, h_lookup(&c, 1, 3000, 1));
	h_fill(&c, 3000, 1, 0);
	h_ok(&c, h_store(&c, 1, 0, 1, 0));
	h_ok(&c, h_lookup(&c, 1, 3000, 1));
	raise(SIGSTOP);
	for (uint32_t i = 1;; i++) {
		uint32_t base = 4000 + i % 100 * 40;

		if (!stores) {
			h_ok(&c, h_retrieve(&c, 1, 0, 1, 0));
			continue;
		}
		h_ok(&c, h_lookup(&c, 2, base, 40));
		h_fill(&c, base, 40, 0);
		h_ok(&c, h_store(&c, 2, 0, 40, 0));
	}
}

static pid_t start_victim(const char *what)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) { /* only what a fresh process may do */
		execl("/proc/self/exe", "killed_mid_copy", what, service.url, service.config.attach, NULL);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	assert_true(WIFSTOPPED(status));
	return pid;
}

static void kill_it(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* ---- scenarios ------------------------------------------------------------------------------------------- */

static void wait_gone(struct h_client *c)
{
	while (atomic_load(&service.service->gpu_stats[0].mappings) != 1 || atomic_load(&service.service->operations.used) ||
		atomic_load(&service.service->lookup_stats.leases))
		ty_client_poll(c->client, 0, 1000);
}

static void expect_first_chunk(struct h_client *c)
{
	h_ok(c, h_lookup(c, 1, 3000, 1));
	assert_int_equal(c->last.lookup.hits, 1);
	h_wipe(c, 1, 0);
	h_ok(c, h_retrieve(c, 1, 0, 1, 0));
	assert_int_equal(h_wrong(c, 3000, 1, 0), 0);
	h_ok(c, h_end(c, 1));
}

static void kill_at_any_time(const char *what)
{
	struct h_client other;

	h_open(&service, &other, NULL, "killed", 0, 1);
	for (unsigned round = 0; round < ROUNDS; round++) {
		pid_t pid = start_victim(what);

		kill(pid, SIGCONT);
		usleep(1000 * round);
		kill_it(pid);
		expect_first_chunk(&other);
		wait_gone(&other);
	}
	h_close(&other);
}

static void test_mid_store(void **state)
{
	(void)state;
	kill_at_any_time("stores");
}

static void test_mid_retrieve(void **state)
{
	(void)state;
	kill_at_any_time("retrieves");
}

static bool is_copying(void)
{
	const struct ty_op_table *table = &service.service->operations;
	struct ty_op_seen seen;

	for (uint32_t i = 0; i < table->count; i++)
		if (ty_op_table_see(table, i, &seen) && seen.state == TY_OP_COPYING)
			return true;
	return false;
}

/* The copy itself is held up when the client dies: its memory stays mapped until the copy is over, and no longer. */
static void copy_outlives_its_client(const char *what)
{
	struct h_client other;
	pid_t pid;

	h_open(&service, &other, NULL, "killed", 0, 1);
	pid = start_victim(what);
	*service.hold = H_HOLD_ALL;
	kill(pid, SIGCONT);
	while (!is_copying())
		ty_client_poll(other.client, 0, 1000);
	kill_it(pid);
	while (atomic_load(&service.service->lookup_stats.leases)) /* goes at once */
		ty_client_poll(other.client, 0, 1000);
	h_ok(&other, h_lookup(&other, 1, 3000, 1)); /* and others are served */
	assert_int_equal(atomic_load(&service.service->gpu_stats[0].mappings), 2);
	assert_int_equal(atomic_load(&service.service->operations.used), 1);
	h_ok(&other, h_end(&other, 1));
	*service.hold = H_GO;
	wait_gone(&other);
	expect_first_chunk(&other);
	h_close(&other);
}

static void test_store_outlives_its_client(void **state)
{
	(void)state;
	copy_outlives_its_client("stores");
}

static void test_retrieve_outlives_its_client(void **state)
{
	(void)state;
	copy_outlives_its_client("retrieves");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		H_TEST_HELD(test_mid_store),
		H_TEST_HELD(test_mid_retrieve),
		H_TEST_HELD(test_store_outlives_its_client),
		H_TEST_HELD(test_retrieve_outlives_its_client),
	};

	if (argc == 4)
		victim(argv + 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
