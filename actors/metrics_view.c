/* SPDX-License-Identifier: Apache-2.0 */
#include "metrics_view.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const char *ty_device_state_name(enum ty_gpu_state state)
{
	static const char *const names[] = {"starting", "serving", "stalled", "failed"};

	return (unsigned)state < 4 ? names[state] : "?";
}

/* A label's value, and a word for people: nothing in it needs escaping. */
static void plain_name(char *out, size_t room, const char *in)
{
	size_t n = 0;

	for (; *in && n + 1 < room; in++)
		out[n++] = *in > ' ' && *in < 127 && *in != '"' && *in != '\\' ? *in : '_';
	out[n] = '\0';
}

static void name_device(struct ty_view *view, uint32_t i)
{
	struct ty_device_view *device = &view->devices[i];
	const char *configured = i < TY_CONFIG_DEVICES ? view->config->device[i] : "";

	if (device->known && view->service->gpu_stats[i].info.name[0] != '\0')
		plain_name(device->name, 33, view->service->gpu_stats[i].info.name);
	else if (strncmp(configured, "host:", 5) == 0) /* the rest says which faults it plays */
		plain_name(device->name, 33, "host");
	else
		plain_name(device->name, 33, configured);
	for (uint32_t other = 0; other < i; other++)
		if (strcmp(view->devices[other].name, device->name) == 0) {
			size_t n = strlen(device->name);

			snprintf(device->name + n, sizeof device->name - n, "#%u", i);
			break;
		}
}

static void view_device(struct ty_view *view, uint32_t i, uint64_t monotonic)
{
	const struct ty_gpu_stats *stats = &view->service->gpu_stats[i];
	struct ty_device_view *device = &view->devices[i];
	int64_t since;

	device->state = (enum ty_gpu_state)atomic_load_explicit(&stats->state, memory_order_acquire); /* the owner's release */
	device->known = device->state != TY_GPU_STARTING;
	name_device(view, i);
	device->call = atomic_load_explicit(&stats->call.name, memory_order_acquire); /* likewise */
	since = atomic_load_explicit(&stats->call.since, memory_order_relaxed);
	device->call_ns = device->call && since > 0 && monotonic > (uint64_t)since ? monotonic - (uint64_t)since : 0;
}

static uint64_t field_kib(const char *text, const char *field)
{
	const char *at = strstr(text, field);

	return at ? strtoull(at + strlen(field), NULL, 10) : 0;
}

/* The arena is shared memory and counts as RssShmem: the rest is ours. */
static uint64_t resident_bytes(void)
{
	char text[4096];
	ssize_t n = -1;
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		n = read(fd, text, sizeof text - 1);
		close(fd);
	}
	if (n <= 0)
		return 0;
	text[n] = '\0';
	return (field_kib(text, "\nRssAnon:") + field_kib(text, "\nRssFile:")) * 1024;
}

static void judge_health(struct ty_view *view)
{
	const struct ty_restart *restart = &view->service->restart;

	view->healthy = false;
	if (view->stopping) {
		snprintf(view->health, sizeof view->health, "stopping\n");
		return;
	}
	for (uint32_t i = 0; i < view->device_count; i++) {
		const struct ty_device_view *device = &view->devices[i];

		if (device->state == TY_GPU_FAILED) {
			const struct ty_gpu_stats *stats = &view->service->gpu_stats[i];

			snprintf(view->health, sizeof view->health, "device %s failed: %.180s\n", device->name,
				stats->fault[0] ? stats->fault : stats->note[0] ? stats->note : "the log says why");
			return;
		}
		if (device->call && device->call_ns > (uint64_t)view->config->gpu_stall_after_us * 1000) {
			snprintf(view->health, sizeof view->health, "device %s stalled: in %.80s for %.1f s\n", device->name,
				device->call, (double)device->call_ns / 1e9);
			return;
		}
		if (device->state == TY_GPU_STALLED) {
			snprintf(view->health, sizeof view->health, "device %s stalled: it does not finish what it was given\n",
				device->name);
			return;
		}
	}
	view->healthy = true;
	if (restart->restarts)
		snprintf(view->health, sizeof view->health, "ok; restarted %u times, the last one because: %s\n", restart->restarts,
			restart->reason);
	else
		snprintf(view->health, sizeof view->health, "ok\n");
}

static void judge_readiness(struct ty_view *view)
{
	uint32_t serving = 0;

	view->ready = false;
	for (uint32_t i = 0; i < view->device_count; i++)
		serving += view->devices[i].state == TY_GPU_SERVING;
	if (view->stopping) {
		snprintf(view->readiness, sizeof view->readiness, "stopping\n");
	} else if (serving == 0) {
		int n = snprintf(view->readiness, sizeof view->readiness, "no device serves:");

		for (uint32_t i = 0; i < view->device_count && n > 0 && (size_t)n < sizeof view->readiness; i++)
			n += snprintf(view->readiness + n, sizeof view->readiness - (size_t)n, " %s is %s%s", view->devices[i].name,
				ty_device_state_name(view->devices[i].state), i + 1 < view->device_count ? "," : "");
		n = n > 0 && (size_t)n < sizeof view->readiness - 1 ? n : (int)sizeof view->readiness - 2;
		memcpy(view->readiness + n, "\n", 2);
	} else if (atomic_load_explicit(&view->service->eviction_stats.ready_bytes, memory_order_relaxed) == 0) {
		snprintf(view->readiness, sizeof view->readiness, "no piece of the arena is usable yet\n");
	} else {
		view->ready = true;
		snprintf(view->readiness, sizeof view->readiness, "ok\n");
	}
}

void ty_view_take(struct ty_view *view, const struct ty_service *service)
{
	int64_t now = ty_runtime_now(service->rt);
	struct timespec ts;
	uint64_t monotonic;

	memset(view, 0, sizeof *view);
	view->service = service;
	view->config = service->config;
	view->now = now;
	view->uptime_ns = now > service->started ? (uint64_t)(now - service->started) : 0;
	view->stopping = atomic_load_explicit(&service->stopping, memory_order_acquire); /* pairs with main's release */
	clock_gettime(CLOCK_MONOTONIC, &ts);
	monotonic = (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
	view->device_count = service->gpu_count < TY_MAX_DEVICES ? service->gpu_count : TY_MAX_DEVICES;
	for (uint32_t i = 0; i < view->device_count; i++)
		view_device(view, i, monotonic);
	snprintf(view->devices[TY_EMBEDDED_DEVICE].name, sizeof view->devices[0].name, "embedded");
	for (uint32_t i = 0; i < TY_MAX_CLIENTS; i++) {
		uint32_t state = atomic_load_explicit(&service->client_slots[i].state, memory_order_relaxed);

		view->attached += state == 1;
		view->joined += state == 2;
	}
	ty_view_runtime(view);
	view->running = ty_runtime_longest(service->rt);
	if (view->running.actor && now > view->running.since)
		view->running_ns = (uint64_t)(now - view->running.since);
	view->resident_bytes = resident_bytes();
	judge_health(view);
	judge_readiness(view);
}
