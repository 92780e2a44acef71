/* SPDX-License-Identifier: Apache-2.0
 *
 * Killed before its first operation, when its memory is mapped already (LMCache 5265: held for an hour; 4631, 4980, 4287), and killed with
 * leases: both are given back. Tells how long that took; what is checked is that it happens, and that nobody needs to ask.
 */
#include "harness.h"
#include "actors/service.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS 4
#define ROUNDS 10

static struct h_service service;

static double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

/* A process of its own: registers, takes a lease if there is something, says so, and waits to be killed. */
static int victim(char **argv)
{
	struct h_service s = {0};
	struct h_client c;

	snprintf(s.url, sizeof s.url, "%s", argv[1]);
	snprintf(s.config.attach, sizeof s.config.attach, "%s", argv[2]);
	h_open(&s, &c, NULL, "killed", 0, 1);
	if (h_lookup(&c, 1, 3000, 16) != TY_OK || write(atoi(argv[3]), "x", 1) != 1)
		return 1;
	for (;;)
		pause();
}

static void test_killed(void **state)
{
	const struct ty_gpu_stats *gpu;
	_Atomic uint64_t *leases;
	double worst_pins = 0, worst_memory = 0;
	struct h_client c;
	int ready[2];

	(void)state;
	h_prepare(&service);
	h_start(&service);
	gpu = &service.service->gpu_stats[0];
	leases = &service.service->lookup_stats.leases;
	h_open(&service, &c, NULL, "killed", 0, 1);
	assert_int_equal(h_lookup(&c, 1, 3000, 16), TY_OK);
	h_fill(&c, 3000, 16, 0);
	assert_int_equal(h_store(&c, 1, 0, 16, 0), TY_OK);
	assert_int_equal(h_end(&c, 1), TY_OK);
	assert_int_equal(pipe(ready), 0);
	for (int round = 0; round < ROUNDS; round++) {
		pid_t pid[CLIENTS];
		double began;
		char byte;

		for (int i = 0; i < CLIENTS; i++) {
			pid[i] = fork();
			if (pid[i] == 0) {
				char out[16];

				snprintf(out, sizeof out, "%d", ready[1]);
				execl("/proc/self/exe", "killed", "victim", service.url, service.config.attach, out, NULL);
				_exit(127);
			}
			assert_int_equal(read(ready[0], &byte, 1), 1);
		}
		assert_int_equal(atomic_load(&gpu->mappings), CLIENTS + 1);
		assert_int_equal(atomic_load(leases), CLIENTS * 16);
		began = now_ms();
		for (int i = 0; i < CLIENTS; i++)
			kill(pid[i], SIGKILL);
		while (atomic_load(leases) != 0)
			poll(NULL, 0, 1);
		worst_pins = now_ms() - began > worst_pins ? now_ms() - began : worst_pins;
		while (atomic_load(&gpu->mappings) != 1)
			poll(NULL, 0, 1);
		worst_memory = now_ms() - began > worst_memory ? now_ms() - began : worst_memory;
		for (int i = 0; i < CLIENTS; i++)
			waitpid(pid[i], NULL, 0);
	}
	print_message("%d rounds of %d killed clients: leases back after at most %.1f ms, memory after %.1f ms\n", ROUNDS, CLIENTS,
		worst_pins, worst_memory);
	/* whoever is left is as before */
	assert_int_equal(h_lookup(&c, 2, 3000, 16), TY_OK);
	assert_int_equal(h_retrieve(&c, 2, 0, 16, 64), TY_OK);
	assert_int_equal(h_wrong(&c, 3000, 16, 64), 0);
	close(ready[0]);
	close(ready[1]);
	h_close(&c);
	h_stop(&service);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_killed)};

	if (argc == 5 && strcmp(argv[1], "victim") == 0)
		return victim(argv + 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
