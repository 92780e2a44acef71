/* SPDX-License-Identifier: Apache-2.0
 *
 * What the table reads of the tiers, of prefetch and of writeback. A tier's label is its place and its kind.
 */
#include <stdio.h>

#include "metrics_view.h"

static struct ty_value whole(uint64_t number)
{
	return (struct ty_value){.whole = true, .number = number};
}

static uint64_t load(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

static const _Atomic uint64_t *counter_at(const void *base, size_t offset)
{
	return (const _Atomic uint64_t *)(const void *)((const char *)base + offset);
}

static void put(const struct ty_metric *m, struct ty_metric_sink *sink, const char *labels, struct ty_value value)
{
	sink->sample(sink, m, m->type == TY_COUNTER ? "_total" : "", labels, value);
}

static const char *label(const struct ty_tier *tier, char out[64])
{
	snprintf(out, 64, "tier=\"%u\",kind=\"%s\"", tier->index, tier->config.kind);
	return out;
}

void ty_read_tier(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	char labels[64];

	for (uint32_t i = 0; i < v->service->tier_count; i++)
		put(m, sink, label(v->service->tiers[i], labels), whole(load(counter_at(&v->service->tiers[i]->stats, m->offset))));
}

/* Of nanoseconds. */
void ty_read_tier_seconds(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	char labels[64];

	for (uint32_t i = 0; i < v->service->tier_count; i++)
		put(m, sink, label(v->service->tiers[i], labels),
			(struct ty_value){.real = (double)load(counter_at(&v->service->tiers[i]->stats, m->offset)) / 1e9});
}

void ty_read_tier_limit(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	char labels[64];

	for (uint32_t i = 0; i < v->service->tier_count; i++)
		put(m, sink, label(v->service->tiers[i], labels), whole(v->service->tiers[i]->config.bytes));
}

void ty_read_tier_serving(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	char labels[64];

	for (uint32_t i = 0; i < v->service->tier_count; i++) {
		const struct ty_tier *tier = v->service->tiers[i];
		/* acquire: as for all who read it */
		bool serving = atomic_load_explicit(&tier->stats.state, memory_order_acquire) == TY_TIER_SERVING;

		put(m, sink, label(tier, labels),
			whole(serving && !load(&tier->stats.down) &&
				!atomic_load_explicit(&tier->stats.hangs, memory_order_relaxed)));
	}
}

void ty_read_tier_size(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	char labels[64];

	for (uint32_t i = 0; i < v->service->tier_count; i++)
		if (load(&v->service->tiers[i]->size) != UINT64_MAX)
			put(m, sink, label(v->service->tiers[i], labels), whole(load(&v->service->tiers[i]->size)));
}

void ty_read_tier_outcomes(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	char base[64], labels[128];

	for (uint32_t i = 0; i < v->service->tier_count; i++)
		for (int verb = TY_TIER_PUT; verb < TY_TIER_VERBS; verb++)
			for (int outcome = 0; outcome < TY_TIER_OUTCOMES; outcome++) {
				snprintf(labels, sizeof labels, "%s,verb=\"%s\",outcome=\"%s\"", label(v->service->tiers[i], base),
					ty_tier_verb_name((enum ty_tier_verb)verb), ty_tier_outcome_name((enum ty_tier_outcome)outcome));
				put(m, sink, labels, whole(load(&v->service->tiers[i]->stats.outcomes[verb][outcome])));
			}
}

/* Of the four counters by verb at `offset`: whole numbers, or nanoseconds if the metric is in seconds. */
void ty_read_tier_verbs(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	char base[64], labels[128];

	for (uint32_t i = 0; i < v->service->tier_count; i++)
		for (int verb = TY_TIER_PUT; verb < TY_TIER_VERBS; verb++) {
			uint64_t n = load(counter_at(&v->service->tiers[i]->stats, m->offset) + verb);

			snprintf(labels, sizeof labels, "%s,verb=\"%s\"", label(v->service->tiers[i], base),
				ty_tier_verb_name((enum ty_tier_verb)verb));
			put(m, sink, labels, m->unit[0] ? (struct ty_value){.real = (double)n / 1e9} : whole(n));
		}
}

/* Of the counters at `offset`, by lane. */
void ty_read_tier_lanes(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	static const char *const names[TY_TIER_LANES] = {"up", "down", "aside"};
	char base[64], labels[128];

	for (uint32_t i = 0; i < v->service->tier_count; i++)
		for (int lane = 0; lane < TY_TIER_LANES; lane++) {
			snprintf(labels, sizeof labels, "%s,direction=\"%s\"", label(v->service->tiers[i], base), names[lane]);
			put(m, sink, labels, whole(load(counter_at(&v->service->tiers[i]->stats, m->offset) + lane)));
		}
}

void ty_read_prefetch(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(load(counter_at(&v->service->prefetch_stats, m->offset))));
}

void ty_read_writeback(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(load(counter_at(&v->service->writeback_stats, m->offset))));
}

/* ---- scrub ---- */

/* By where: the arena, or a tier. */
static void each_scrubbed(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink, double scale)
{
	char base[64], labels[128];

	for (uint32_t i = 0; i <= v->service->tier_count; i++) {
		uint64_t n = load(counter_at(&v->service->scrub_stats[i], m->offset));

		if (i && !ty_tier_is_scrubbed(v->service->tiers[i - 1]))
			continue;
		snprintf(labels, sizeof labels, "%s", i ? label(v->service->tiers[i - 1], base) : "tier=\"\",kind=\"arena\"");
		put(m, sink, labels, scale != 1 ? (struct ty_value){.real = (double)n * scale} : whole(n));
	}
}

void ty_read_scrub(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	each_scrubbed(v, m, sink, 1);
}

/* Of nanoseconds. */
void ty_read_scrub_seconds(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	each_scrubbed(v, m, sink, 1e-9);
}
