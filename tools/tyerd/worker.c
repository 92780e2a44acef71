/* SPDX-License-Identifier: Apache-2.0
 *
 * The worker: starts the actors on what was handed to it, says that it is ready, and waits for a signal, or for a device after
 * which nothing but another process helps.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "actors/service.h"
#include "base/log.h"
#include "notify.h"
#include "run.h"

#define LOOK_MS 100 /* how often the devices' fate is looked at while waiting for a signal */

/* SIGTERM and SIGINT are read from a descriptor; blocked before any thread exists, so that all inherit it. */
static int open_signals(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0)
		return -1;
	return signalfd(-1, &set, SFD_CLOEXEC);
}

/* Every device was tried and none could be opened: there is nothing to serve. */
static bool nothing_to_serve(const struct ty_service *service)
{
	for (uint32_t i = 0; i < service->gpu_count; i++)
		if (atomic_load_explicit(&service->gpu_stats[i].state, memory_order_acquire) != TY_GPU_FAILED ||
			atomic_load_explicit(&service->gpu_stats[i].device, memory_order_acquire))
			return false;
	return true;
}

static int wait_for_signal(const struct ty_service *service, int signals)
{
	for (;;) {
		struct pollfd p = {.fd = signals, .events = POLLIN};
		struct signalfd_siginfo info;

		if (poll(&p, 1, LOOK_MS) > 0 && read(signals, &info, sizeof info) == sizeof info) {
			ty_log(TY_LOG_INFO, "main", "%s: stopping", strsignal((int)info.ssi_signo));
			return EXIT_SUCCESS;
		}
		if (nothing_to_serve(service)) {
			ty_log(TY_LOG_ERROR, "main", "no device could be opened (see above): stopping");
			return EXIT_FAILURE;
		}
	}
}

static void log_option(void *user, const char *name, const char *value)
{
	(void)user;
	ty_log(TY_LOG_DEBUG, "config", "%s = %s", name, value);
}

static void inherit(struct ty_heritage *heritage, const struct ty_kept *kept)
{
	const char *restarts = getenv(TY_RESTARTS_ENV), *reason = getenv(TY_REASON_ENV);
	uint64_t count = 0;

	*heritage = (struct ty_heritage){
		.arena = kept->fd[TY_KEPT_ARENA], .slots = kept->fd[TY_KEPT_SLOTS], .keep = ty_notify_keep,
	};
	if (restarts && ty_parse_count(restarts, UINT32_MAX, &count, NULL) == TY_OK)
		heritage->restarts = (uint32_t)count;
	snprintf(heritage->reason, sizeof heritage->reason, "%s", reason ? reason : "");
}

int ty_worker_run(const struct ty_config *config, struct ty_kept *kept)
{
	struct ty_heritage heritage;
	struct ty_service *service;
	struct ty_error err;
	int signals = open_signals(), status;

	if (signals < 0) {
		perror("tyerd: signalfd");
		return EXIT_FAILURE;
	}
	ty_config_dump(config, log_option, NULL);
	inherit(&heritage, kept);
	if (ty_service_start(config, &heritage, &service, &err) != TY_OK) {
		fprintf(stderr, "tyerd: %s: %s\n", ty_code_name(err.code), err.text);
		close(signals);
		return EXIT_FAILURE;
	}
	printf("tyerd ready: listen=%s attach=%s http=%s boot=%016llx\n", config->listen, config->attach, config->http,
		(unsigned long long)service->boot);
	fflush(stdout);
	ty_notify("READY=1", -1);
	status = wait_for_signal(service, signals);
	ty_notify("STOPPING=1", -1);
	ty_service_stop(service);
	close(signals);
	return status;
}
