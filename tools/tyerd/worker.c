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
#include <time.h>
#include <unistd.h>

#include "actors/service.h"
#include "base/give_way.h"
#include "base/log.h"
#include "notify.h"
#include "run.h"
#include "say.h"

#define LAST_WORDS_MS 50 /* at a device's fault; it is to be over within 100 ms */
#define SEEN_MS 1000
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

/* ---- a device that only another process cures ----------------------------------------------------------- */

/* Standard error may be a pipe that nobody reads. Each line waits for a moment, all together no longer than LAST_WORDS_MS. */
struct last_words {
	int64_t until;
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool say(void *user, const char *text)
{
	struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
	const struct last_words *words = user;
	int64_t left = words->until - now_ms();

	if (left < 0 || poll(&p, 1, (int)left) <= 0)
		return false;
	ty_log(TY_LOG_ERROR, "record", "%s", text);
	return true;
}

/* No call of the driver returns from here on that matters, so nothing is stopped or freed: the kernel does that. */
static void end_for_device(struct ty_service *service, const char *reason)
{
	struct last_words words = {.until = now_ms() + LAST_WORDS_MS};
	char line[TY_NOTIFY_MAX];

	snprintf(line, sizeof line, TY_NOTIFY_REASON "%s", reason);
	ty_notify(line, -1);
	ty_log_set_sink(NULL); /* lines are written by whoever logs: the log's thread would be cut off in the middle */
	if (say(&words, reason)) {
		ty_record_tell(service->record, say, &words);
		/* relaxed: the next process reads it */
		atomic_store_explicit(&service->record->told, now_ms() < words.until, memory_order_relaxed);
	}
	_exit(TY_EXIT_DEVICE);
}

static const char *device_name(const struct ty_service *service, uint32_t i)
{
	return service->config->device[i];
}

static void look_for_fault(struct ty_service *service)
{
	char reason[320];

	for (uint32_t i = 0; i < service->gpu_count; i++) {
		struct ty_gpu_stats *stats = &service->gpu_stats[i];

		/* acquire: pairs with the owner's release */
		if (atomic_load_explicit(&stats->state, memory_order_acquire) != TY_GPU_FAILED || !stats->fault[0])
			continue;
		snprintf(reason, sizeof reason, "device %s failed (its owner is thread owner-%u): %s", device_name(service, i), i,
			stats->fault);
		end_for_device(service, reason);
	}
}

/* What was seen of a device that does not move. A process that was itself stopped for a while (SIGSTOP, a machine that slept) has
 * seen nothing meanwhile: of a longer gap between two looks SEEN_MS count. */
struct watch {
	int64_t age_ms, seen_ms;
	bool stalled;
};

static int64_t see(struct watch *w, int64_t age_ms)
{
	int64_t more = age_ms >= w->age_ms ? age_ms - w->age_ms : age_ms;

	if (age_ms < w->age_ms) /* another call */
		w->seen_ms = 0;
	w->age_ms = age_ms;
	w->seen_ms += more < SEEN_MS ? more : SEEN_MS;
	return w->seen_ms;
}

static void look_for_stall(struct ty_service *service, struct watch watches[TY_MAX_DEVICES])
{
	int64_t after = service->config->gpu_stall_after_us / 1000, limit = service->config->gpu_stall_limit_us / 1000;
	char what[128], reason[320];

	for (uint32_t i = 0; i < service->gpu_count; i++) {
		struct ty_gpu_stuck stuck = ty_gpu_stuck(&service->gpu_stats[i]);
		bool in_call = stuck.call_ns >= stuck.copy_ns;
		int64_t age = see(&watches[i], (in_call ? stuck.call_ns : stuck.copy_ns) / 1000000);

		if (age <= after) {
			watches[i].stalled = false;
			continue;
		}
		if (in_call)
			snprintf(what, sizeof what, "its owner (thread owner-%u) is in %s", i, stuck.call);
		else
			snprintf(what, sizeof what, "copies of its owner (thread owner-%u) are not done", i);
		if (!watches[i].stalled)
			ty_log(TY_LOG_ERROR, "watchdog", "device %s is stalled: %s for %lld ms", device_name(service, i), what,
				(long long)age);
		watches[i].stalled = true;
		if (!limit || age <= limit)
			continue;
		snprintf(reason, sizeof reason, "device %s stalled: %s for %lld ms, --gpu-stall-limit is %lld ms",
			device_name(service, i), what, (long long)age, (long long)limit);
		end_for_device(service, reason);
	}
}

/* ---- life ------------------------------------------------------------------------------------------------ */

/* Until all of an old cache is back a crash may be its doing, and the supervisor counts. */
static bool tell_returned(const struct ty_service *service)
{
	/* acquire: pairs with eviction's release */
	if (atomic_load_explicit(&service->eviction_stats.returning, memory_order_acquire) != 0)
		return false;
	if (ty_notify_socket() >= 0)
		ty_notify(TY_NOTIFY_RETURNED, -1);
	return true;
}

static int wait_for_signal(struct ty_service *service, int signals)
{
	struct watch watches[TY_MAX_DEVICES] = {{0}};
	bool returned = false;

	for (;;) {
		struct pollfd p[] = {{.fd = signals, .events = POLLIN}, {.fd = service->fault_fd, .events = POLLIN},
			{.fd = ty_notify_socket()}};
		struct signalfd_siginfo info;

		returned = returned || tell_returned(service);
		if (poll(p, 3, LOOK_MS) > 0 && p[0].revents && read(signals, &info, sizeof info) == sizeof info) {
			ty_log(TY_LOG_INFO, "main", "%s: stopping", strsignal((int)info.ssi_signo));
			return EXIT_SUCCESS;
		}
		if (p[1].revents)
			look_for_fault(service);
		/* The kernel should have ended us with it. Whoever comes next finds neither sockets nor GPUs taken. */
		if (p[2].revents) {
			ty_log_set_sink(NULL);
			ty_log(TY_LOG_ERROR, "main", "the supervisor is gone: exiting as it is");
			_exit(EXIT_FAILURE);
		}
		look_for_stall(service, watches);
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
	const char *restarts = getenv(TY_RESTARTS_ENV), *reason = getenv(TY_REASON_ENV), *ended = getenv(TY_ENDED_ENV);
	uint64_t count = 0, ms = 0;

	*heritage = (struct ty_heritage){
		.arena = kept->fd[TY_KEPT_ARENA], .slots = kept->fd[TY_KEPT_SLOTS],
		.record = kept->fd[TY_KEPT_RECORD], .http = kept->fd[TY_KEPT_HTTP], .keep = ty_notify_keep,
	};
	if (restarts && ty_parse_count(restarts, UINT32_MAX, &count, NULL) == TY_OK)
		heritage->restarts = (uint32_t)count;
	if (ended && ty_parse_count(ended, INT64_MAX / 1000000, &ms, NULL) == TY_OK)
		heritage->ended = (int64_t)ms * 1000000;
	snprintf(heritage->reason, sizeof heritage->reason, "%s", reason ? reason : "");
}

/* Where it serves; the port of the pages as it is, where any that is free was asked for. */
static void say_ready(const struct ty_service *service)
{
	const struct ty_config *config = service->config;
	const char *colon = service->http_port ? strrchr(config->http, ':') : NULL;
	char http[sizeof config->http + 8];

	if (colon)
		snprintf(http, sizeof http, "%.*s:%u", (int)(colon - config->http), config->http, service->http_port);
	else
		snprintf(http, sizeof http, "%s", config->http);
	ty_say(STDOUT_FILENO, "tyerd ready: listen=%s attach=%s http=%s boot=%016llx\n", config->listen, config->attach, http,
		(unsigned long long)service->boot);
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
	ty_set_turn(TY_SHORT_TURN_NS); /* and every thread of ours that does not say otherwise */
	ty_config_dump(config, log_option, NULL);
	inherit(&heritage, kept);
	if (ty_service_start(config, &heritage, &service, &err) != TY_OK) {
		ty_say(STDERR_FILENO, "tyerd: %s: %s\n", ty_code_name(err.code), err.text);
		close(signals);
		return EXIT_FAILURE;
	}
	ty_notify("READY=1", -1); /* first: whoever should read the line may not */
	say_ready(service);
	status = wait_for_signal(service, signals);
	ty_notify("STOPPING=1", -1);
	ty_service_stop(service);
	close(signals);
	return status;
}
