/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu_parent.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

pid_t pids[LOAD_CLIENTS + 2];

_Noreturn void stop_all(int status)
{
	for (unsigned i = 0; i < LOAD_CLIENTS + 2; i++)
		if (pids[i] > 0)
			kill(pids[i], SIGKILL);
	exit(status);
}

void look_for_failures(void)
{
	for (unsigned i = 0; i < LOAD_CLIENTS + 2; i++) {
		int status;

		if (atomic_load_explicit(&shared->line[i].failed, memory_order_acquire)) {
			fprintf(stderr, "gpu_load: client %u: %s\n", i, shared->line[i].error);
			stop_all(1);
		}
		if (pids[i] > 0 && waitpid(pids[i], &status, WNOHANG) == pids[i]) {
			pids[i] = 0;
			if (atomic_load_explicit(&shared->line[i].failed, memory_order_acquire))
				fprintf(stderr, "gpu_load: client %u: %s\n", i, shared->line[i].error);
			else
				fprintf(stderr, "gpu_load: client %u ended: status %#x\n", i, (unsigned)status);
			stop_all(1);
		}
	}
}

void start(unsigned index, void (*run)(unsigned index))
{
	pids[index] = fork();
	if (pids[index] < 0) {
		fprintf(stderr, "gpu_load: fork: %s\n", strerror(errno));
		stop_all(1);
	}
	if (pids[index] == 0)
		run(index);
}

static void run_client(unsigned index)
{
	bool pair = !strcmp(options.scenario, "pair");

	load_engine_run(index, options.devices[index % options.device_count], pair ? index : 0, pair ? 2 : 1);
}

void wait_open(unsigned index)
{
	int64_t end = load_now() + PATIENCE_NS;

	while (!atomic_load_explicit(&shared->line[index].open, memory_order_acquire)) {
		look_for_failures();
		if (load_now() > end) {
			fprintf(stderr, "gpu_load: client %u does not start\n", index);
			stop_all(1);
		}
		usleep(NAP_US);
	}
}

void start_clients(unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++)
		start(i, run_client);
	for (unsigned i = from; i < to; i++)
		wait_open(i);
}

uint32_t device_of(unsigned client)
{
	return options.devices[client % options.device_count];
}

uint64_t clients_on(uint32_t device)
{
	uint64_t bits = 0;

	for (unsigned i = 0; i < options.clients; i++)
		if (device == LOAD_DEVICES || device_of(i) == device)
			bits |= 1ull << i;
	return bits;
}

void set_phase(enum load_mode mode, uint64_t clients)
{
	atomic_store_explicit(&shared->mode, mode, memory_order_relaxed);
	atomic_store_explicit(&shared->clients, clients, memory_order_relaxed);
	atomic_fetch_add_explicit(&shared->phase, 1, memory_order_release); /* pairs with the clients' acquire */
}

void wait_idle(void)
{
	uint32_t phase = atomic_load_explicit(&shared->phase, memory_order_relaxed);
	int64_t end = load_now() + PATIENCE_NS;

	for (unsigned i = 0; i < LOAD_CLIENTS; i++)
		while (pids[i] > 0 && atomic_load_explicit(&shared->line[i].idle_phase, memory_order_acquire) != phase) {
			look_for_failures();
			if (load_now() > end) {
				fprintf(stderr, "gpu_load: client %u does not end its phase\n", i);
				stop_all(1);
			}
			usleep(NAP_US);
		}
}

void once(enum load_mode mode)
{
	set_phase(mode, clients_on(LOAD_DEVICES));
	wait_idle();
}

void end_all(void)
{
	set_phase(LOAD_END, 0);
	for (unsigned i = 0; i < LOAD_CLIENTS + 2; i++) {
		int status;

		if (pids[i] > 0 && waitpid(pids[i], &status, 0) == pids[i] && status) {
			fprintf(stderr, "gpu_load: client %u ended: status %#x %s\n", i, (unsigned)status, shared->line[i].error);
			pids[i] = 0;
			stop_all(1);
		}
		pids[i] = 0;
	}
}
