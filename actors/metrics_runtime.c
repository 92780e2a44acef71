/* SPDX-License-Identifier: Apache-2.0
 *
 * What the table reads of the runtime, of its workers, and of the actors that there are as long as the service: an engine's come and go, and
 * are counted with their workers.
 */
#include <stdio.h>

#include "metrics_view.h"

static void add(struct ty_view *v, const struct ty_actor *actor, const char *name)
{
	struct ty_actor_view *a = &v->actors[v->actor_count];

	if (!actor)
		return;
	snprintf(a->name, sizeof a->name, "%s", name);
	ty_actor_stats(actor, &a->stats);
	v->actor_count++;
}

static void add_numbered(struct ty_view *v, const struct ty_actor *actor, const char *name, uint32_t number)
{
	char numbered[sizeof v->actors[0].name];

	snprintf(numbered, sizeof numbered, "%s-%u", name, number);
	add(v, actor, numbered);
}

static void add_all(struct ty_view *v, struct ty_actor *const *actors, uint32_t count, const char *name)
{
	for (uint32_t i = 0; i < count; i++)
		add_numbered(v, actors[i], name, i);
}

void ty_view_runtime(struct ty_view *v)
{
	const struct ty_service *s = v->service;

	while (v->worker_count < TY_VIEW_WORKERS && ty_thread_stats(s->rt, v->worker_count, &v->workers[v->worker_count]) &&
		v->workers[v->worker_count].worker)
		v->worker_count++;
	add(v, s->rpc, "rpc");
	add(v, s->admin, "admin");
	add(v, s->events, "events");
	add(v, s->clients, "clients");
	add(v, s->eviction, "eviction");
	add(v, s->prefetch, "prefetch");
	add(v, s->writeback, "writeback");
	add(v, s->scrub, "scrub");
	add(v, s->metrics, "metrics");
	add(v, s->log, "log");
	add_all(v, s->populate, s->populate_count, "populate");
	add_all(v, s->bytework, s->bytework_count, "bytework");
	add_all(v, s->packers, s->packer_count, "packer");
	add_all(v, s->unpackers, s->unpacker_count, "unpacker");
	add_all(v, s->gpu, v->device_count, "gpu");
	add(v, s->gpu[TY_EMBEDDED_DEVICE], "embedded");
	for (uint32_t i = 0; i < s->tier_count; i++)
		add_numbered(v, s->tiers[i]->actor, "tier", i);
	/* behind their parts, so that none of them is ever more than the sum */
	ty_runtime_stats(s->rt, &v->runtime);
}

static void put(const struct ty_metric *m, struct ty_metric_sink *sink, const char *labels, uint64_t n)
{
	const bool seconds = m->unit[0] != '\0'; /* counted in nanoseconds */
	struct ty_value value = {.whole = !seconds, .number = n, .real = (double)n / 1e9};

	sink->sample(sink, m, m->type == TY_COUNTER ? "_total" : "", labels, value);
}

void ty_read_runtime(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", *(const uint64_t *)(const void *)((const char *)&v->runtime + m->offset));
}

void ty_read_running(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	char labels[128];

	if (v->running.actor == NULL)
		return;
	snprintf(labels, sizeof labels, "actor=\"%.40s\",message=\"%.40s\"", v->running.actor,
		v->running.message ? v->running.message : "");
	put(m, sink, labels, v->running_ns);
}

void ty_read_worker(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	for (uint32_t i = 0; i < v->worker_count; i++) {
		char labels[32];

		snprintf(labels, sizeof labels, "worker=\"%u\"", i);
		put(m, sink, labels, *(const uint64_t *)(const void *)((const char *)&v->workers[i] + m->offset));
	}
}

void ty_read_actor(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	for (uint32_t i = 0; i < v->actor_count; i++) {
		char labels[64];

		snprintf(labels, sizeof labels, "actor=\"%s\"", v->actors[i].name);
		put(m, sink, labels, *(const uint64_t *)(const void *)((const char *)&v->actors[i].stats + m->offset));
	}
}
