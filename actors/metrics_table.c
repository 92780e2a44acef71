/* SPDX-License-Identifier: Apache-2.0
 *
 * Every metric, once: /metrics and the counters of STATUS both come from this table.
 */
#include <inttypes.h>
#include <stdio.h>

#include "log.h"
#include "metrics_view.h"
#include "rpc_connection.h"
#include "wire/request.h"

static struct ty_value whole(uint64_t number)
{
	return (struct ty_value){.whole = true, .number = number};
}

static struct ty_value real(double number)
{
	return (struct ty_value){.real = number};
}

static uint64_t load64(const void *base, size_t offset)
{
	return atomic_load_explicit((const _Atomic uint64_t *)(const void *)((const char *)base + offset), memory_order_relaxed);
}

static uint32_t load32(const void *base, size_t offset)
{
	return atomic_load_explicit((const _Atomic uint32_t *)(const void *)((const char *)base + offset), memory_order_relaxed);
}

static void put(const struct ty_metric *m, struct ty_metric_sink *sink, const char *labels, struct ty_value value)
{
	sink->sample(sink, m, m->type == TY_COUNTER ? "_total" : "", labels, value);
}

/* ---- limits: struct ty_config --------------------------------------------------------------------------------------- */

static void limit_u32(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(*(const uint32_t *)(const void *)((const char *)v->config + m->offset)));
}

static void limit_u64(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(*(const uint64_t *)(const void *)((const char *)v->config + m->offset)));
}

static void limit_us(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", real(*(const uint32_t *)(const void *)((const char *)v->config + m->offset) / 1e6));
}

static void limit_constant(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	(void)v;
	put(m, sink, "", whole(m->offset));
}

/* ---- the service, the process --------------------------------------------------------------------------------------- */

static void service_info(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	char labels[96];

	snprintf(labels, sizeof labels, "version=\"%s\",boot=\"%016" PRIx64 "\"", TY_VERSION, v->service->boot);
	sink->sample(sink, m, "_info", labels, whole(1));
}

static void uptime(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", real((double)v->uptime_ns / 1e9));
}

static void stopping(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(v->stopping));
}

static void healthy(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(v->healthy));
}

static void ready(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(v->ready));
}

static void restarts(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(v->service->restart.restarts));
}

static void resident(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(v->resident_bytes));
}

static void operations(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(load32(&v->service->operations, offsetof(struct ty_op_table, used))));
}

static void operations_u64(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(load64(&v->service->operations, m->offset)));
}

static void quarantined(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	struct ty_op_seen seen;
	uint64_t count = 0;

	for (uint32_t i = 0; i < v->service->operations.count; i++)
		count += ty_op_table_see(&v->service->operations, i, &seen) && seen.answered;
	put(m, sink, "", whole(count));
}

static void log_dropped(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	(void)v;
	put(m, sink, "", whole(ty_log_dropped()));
}

static void log_lost(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	(void)v;
	put(m, sink, "", whole(ty_log_lost()));
}

/* ---- requests ------------------------------------------------------------------------------------------------------- */

/* The label of the oneof's field number; null: no such verb. 0 stands for what could not be read. */
static const char *verb_label(unsigned verb, char out[24])
{
	const char *name = ty_verb_name(verb);

	if (verb == 0)
		name = "none";
	else if (name[0] == '?')
		return NULL;
	snprintf(out, 24, "verb=\"%s\"", name);
	return out;
}

static void requests(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	const struct ty_rpc_stats *stats = &v->service->rpc_stats;
	char labels[24];

	for (unsigned verb = 0; verb < TY_VERBS; verb++)
		if (verb_label(verb, labels))
			put(m, sink, labels, whole(load64(&stats->requests[verb], 0)));
}

static void replies(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	char labels[40];

	for (unsigned code = 0; code < TY_CODE_COUNT; code++) {
		snprintf(labels, sizeof labels, "code=\"%s\"", ty_code_name((enum ty_code)code));
		put(m, sink, labels, whole(load64(&v->service->rpc_stats.replies[code], 0)));
	}
}

static void rpc_u64(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(load64(&v->service->rpc_stats, m->offset)));
}

static void lookup(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(load64(&v->service->lookup_stats, m->offset)));
}

static void share(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(load64(v->service, m->offset)));
}

static void events(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(load64(&v->service->events_stats, m->offset)));
}

static void embedded(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(load64(&v->service->embedded_stats, m->offset)));
}

static void attach(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(load64(&v->service->clients_stats, m->offset)));
}

static void rpc_u32(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(load32(&v->service->rpc_stats, m->offset)));
}

static void latency(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	const struct ty_rpc_stats *stats = &v->service->rpc_stats;
	char verb_text[24], labels[64];

	for (unsigned verb = 0; verb < TY_VERBS; verb++) {
		uint64_t sum = 0;

		if (!verb_label(verb, verb_text))
			continue;
		for (unsigned i = 0; i < TY_LATENCY_BUCKETS; i++) {
			sum += load64(&stats->latency[verb][i], 0);
			if (i + 1 < TY_LATENCY_BUCKETS) /* "1.0", not "1": the canonical form */
				snprintf(labels, sizeof labels, ty_latency_bound_us[i] % 1000000 ? "%s,le=\"%g\"" : "%s,le=\"%.1f\"",
					verb_text, (double)ty_latency_bound_us[i] / 1e6);
			else
				snprintf(labels, sizeof labels, "%s,le=\"+Inf\"", verb_text);
			sink->sample(sink, m, "_bucket", labels, whole(sum));
		}
		sink->sample(sink, m, "_count", verb_text, whole(sum));
		sink->sample(sink, m, "_sum", verb_text, real((double)load64(&stats->latency_us_sum[verb], 0) / 1e6));
	}
}

static void clients(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "state=\"attached\"", whole(v->attached));
	put(m, sink, "state=\"joined\"", whole(v->joined));
}

/* ---- the cache ------------------------------------------------------------------------------------------------------ */

static void arena_size(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(v->service->arena.bytes));
}

static void arena_huge(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(v->service->arena.huge));
}

static void eviction(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(load64(&v->service->eviction_stats, m->offset)));
}

static void checksum_u64(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", whole(load64(&v->service->checksum_stats, m->offset)));
}

static void checksum_ns(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	put(m, sink, "", real((double)load64(&v->service->checksum_stats, m->offset) / 1e9));
}

/* ---- devices -------------------------------------------------------------------------------------------------------- */

static const char *device_label(const struct ty_view *v, uint32_t i, char out[64])
{
	snprintf(out, 64, "device=\"%s\"", v->devices[i].name);
	return out;
}

static void device_state(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	char device[64], labels[128];

	for (uint32_t i = 0; i < v->device_count; i++)
		for (int state = TY_GPU_STARTING; state <= TY_GPU_FAILED; state++) {
			snprintf(labels, sizeof labels, "%s,%s=\"%s\"", device_label(v, i, device), m->name,
				ty_device_state_name((enum ty_gpu_state)state));
			put(m, sink, labels, whole(v->devices[i].state == (enum ty_gpu_state)state));
		}
}

static void device_call(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	char labels[64];

	for (uint32_t i = 0; i < v->device_count; i++)
		put(m, sink, device_label(v, i, labels), real((double)v->devices[i].call_ns / 1e9));
}

static void gpu_u64(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	char labels[64];

	for (uint32_t i = 0; i < v->device_count; i++)
		put(m, sink, device_label(v, i, labels), whole(load64(&v->service->gpu_stats[i], m->offset)));
}

static void gpu_u32(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	char labels[64];

	for (uint32_t i = 0; i < v->device_count; i++)
		put(m, sink, device_label(v, i, labels), whole(load32(&v->service->gpu_stats[i], m->offset)));
}

static void gpu_ns(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	char labels[64];

	for (uint32_t i = 0; i < v->device_count; i++)
		put(m, sink, device_label(v, i, labels), real((double)load64(&v->service->gpu_stats[i], m->offset) / 1e9));
}

/* What the device itself counts; nothing until it is open. */
static const struct ty_device_stats *device_stats(const struct ty_view *v, uint32_t i)
{
	return atomic_load_explicit(&v->service->gpu_stats[i].device, memory_order_acquire); /* pairs with the owner's release */
}

static void device_u64(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	char labels[64];

	for (uint32_t i = 0; i < v->device_count; i++) {
		const struct ty_device_stats *stats = device_stats(v, i);

		put(m, sink, device_label(v, i, labels), whole(stats ? load64(stats, m->offset) : 0));
	}
}

static void device_ns(const struct ty_view *v, const struct ty_metric *m, struct ty_metric_sink *sink)
{
	char labels[64];

	for (uint32_t i = 0; i < v->device_count; i++) {
		const struct ty_device_stats *stats = device_stats(v, i);

		put(m, sink, device_label(v, i, labels), real(stats ? (double)load64(stats, m->offset) / 1e9 : 0));
	}
}

/* ---- the table ------------------------------------------------------------------------------------------------------ */

#define LIMIT(name, unit, read, field, help) {"tyer_limit_" name, TY_GAUGE, unit, read, offsetof(struct ty_config, field), help}
#define CONSTANT(name, unit, value, help) {"tyer_limit_" name, TY_GAUGE, unit, limit_constant, value, help}
#define RUNTIME(name, type, field, help) {"tyer_runtime_" name, type, "", ty_read_runtime, offsetof(struct ty_runtime_stats, field), help}
#define WORKER(name, type, unit, field, help) {"tyer_worker_" name, type, unit, ty_read_worker, offsetof(struct ty_thread_stats, field), help}
#define ACTOR(name, type, unit, field, help) {"tyer_actor_" name, type, unit, ty_read_actor, offsetof(struct ty_actor_stats, field), help}
#define EMBEDDED(name, type, field, help) {"tyer_embedded_" name, type, "", embedded, offsetof(struct ty_embedded_stats, field), help}
#define ATTACH(name, field, help) {"tyer_attach_" name, TY_COUNTER, "", attach, offsetof(struct ty_clients_stats, field), help}
#define RPC(name, type, read, field, help) {"tyer_" name, type, "", read, offsetof(struct ty_rpc_stats, field), help}
#define CACHE(name, type, unit, field, help) \
	{"tyer_" name, type, unit, eviction, offsetof(struct ty_eviction_stats, field), help}
#define LOOKUP(name, type, field, help) \
	{"tyer_lookup_" name, type, "", lookup, offsetof(struct ty_lookup_stats, field), help}
#define SHARE(name, unit, field, help) \
	{"tyer_" name, TY_GAUGE, unit, share, offsetof(struct ty_service, field) + offsetof(struct ty_share, used), help}
#define TIER(name, type, unit, read, field, help) \
	{"tyer_tier_" name, type, unit, read, offsetof(struct ty_tier_stats, field), help}
#define SCRUB(name, type, unit, read, field, help) \
	{"tyer_scrub_" name, type, unit, read, offsetof(struct ty_scrub_stats, field), help}
#define PREFETCH(name, type, unit, field, help) \
	{"tyer_prefetch_" name, type, unit, ty_read_prefetch, offsetof(struct ty_prefetch_stats, field), help}
#define WRITEBACK(name, type, unit, field, help) \
	{"tyer_writeback_" name, type, unit, ty_read_writeback, offsetof(struct ty_writeback_stats, field), help}
#define GPU(name, type, unit, read, field, help) \
	{"tyer_device_" name, type, unit, read, offsetof(struct ty_gpu_stats, field), help}
#define DEVICE(name, type, unit, read, field, help) \
	{"tyer_device_" name, type, unit, read, offsetof(struct ty_device_stats, field), help}

const struct ty_metric ty_metrics[] = {
	{"tyer_service", TY_INFO, "", service_info, 0, "The version, and the boot id that every reply carries."},
	{"tyer_uptime_seconds", TY_GAUGE, "seconds", uptime, 0, "Time since the service started."},
	{"tyer_stopping", TY_GAUGE, "", stopping, 0, "1 while the service stops."},
	{"tyer_healthy", TY_GAUGE, "", healthy, 0, "1 when /healthz answers 200."},
	{"tyer_ready", TY_GAUGE, "", ready, 0, "1 when /readyz answers 200."},
	{"tyer_process_resident_bytes", TY_GAUGE, "bytes", resident, 0,
		"Memory of the process beside the arena: anonymous and file-backed pages."},
	{"tyer_log_dropped", TY_COUNTER, "", log_dropped, 0, "Log lines dropped because too many were on their way."},
	{"tyer_log_lost", TY_COUNTER, "", log_lost, 0, "Log lines that standard error did not take."},

	{"tyer_operations", TY_GAUGE, "", operations, 0, "Retrieves and stores that are out."},
	{"tyer_operations_quarantined", TY_GAUGE, "", quarantined, 0,
		"Of those, answered before they were over: their slots, pins and blocks are theirs until their copies are."},
	{"tyer_operations_bytes", TY_GAUGE, "bytes", operations_u64, offsetof(struct ty_op_table, used_bytes),
		"Bytes of retrieves and stores that are out."},
	{"tyer_operations_refused", TY_COUNTER, "", operations_u64, offsetof(struct ty_op_table, refused),
		"Retrieves and stores answered BUSY because the engines had too much out together."},
	RPC("requests", TY_COUNTER, requests, requests, "Requests received."),
	RPC("replies", TY_COUNTER, replies, replies, "Requests answered."),
	RPC("requests_malformed", TY_COUNTER, rpc_u64, malformed, "Requests that could not be read."),
	RPC("requests_open", TY_GAUGE, rpc_u32, open, "Requests received whose reply is not out yet."),
	{"tyer_request_seconds", TY_HISTOGRAM, "seconds", latency, 0, "Time from a request's receipt to its answer."},
	RPC("receive_errors", TY_COUNTER, rpc_u64, receive_errors, "Accepts and receives that failed."),
	RPC("replies_unsent", TY_COUNTER, rpc_u64, unsent, "Replies that the client did not take, or for which there was no memory; its connection was closed."),
	RPC("connections", TY_GAUGE, rpc_u32, connections, "Connections for requests."),
	RPC("connections_accepted", TY_COUNTER, rpc_u64, connections_accepted, "Connections for requests that came."),
	RPC("connections_refused", TY_COUNTER, rpc_u64, connections_refused, "Of those, closed at once: too many, or no memory."),
	RPC("connections_crowded", TY_COUNTER, rpc_u64, connections_crowded, "Of those, closed because frames on their way in took too much memory."),
	RPC("connections_broken", TY_COUNTER, rpc_u64, connections_broken,
		"Of those, closed because what came over them was not the protocol."),
	ATTACH("refused", refused, "Attach connections that were refused: their user may not, or there are too many."),
	ATTACH("dropped", dropped, "Attach connections that were dropped because the service had no descriptor left."),
	ATTACH("violations", violations, "Attach connections that were ended for what came over them."),
	ATTACH("descriptors_refused", descriptors_refused, "Descriptors that clients sent and that are no memory."),
	{"tyer_clients", TY_GAUGE, "", clients, 0, "Clients that hold an attach connection, before and after HELLO."},

	{"tyer_arena_size_bytes", TY_GAUGE, "bytes", arena_size, 0, "Size of the arena."},
	{"tyer_arena_huge_pages", TY_GAUGE, "", arena_huge, 0, "1 when the arena lies in huge pages."},
	EMBEDDED("owners", TY_GAUGE, owners, "Owners in engines' processes that are connected (--embed-uid)."),
	EMBEDDED("owners_lost", TY_GAUGE, lost, "Of those that were, with operations out and a process that has not ended."),
	EMBEDDED("operations", TY_GAUGE, out, "Operations that are out with an owner in an engine's process ..."),
	EMBEDDED("operations_quarantined", TY_GAUGE, quarantined,
		"... that is lost: their slots are kept until its process has ended."),
	EMBEDDED("stored_bytes", TY_COUNTER, stored_bytes, "Bytes that owners in engines' processes stored."),
	EMBEDDED("retrieved_bytes", TY_COUNTER, retrieved_bytes, "Bytes that they retrieved."),
	EMBEDDED("refused", TY_COUNTER, refused, "Owners that were refused."),
	EMBEDDED("violations", TY_COUNTER, violations, "Owners whose connection was ended for what they said."),
	{"tyer_events", TY_COUNTER, "", events, offsetof(struct ty_events_stats, events), "Events told to subscribers (--events)."},
	{"tyer_events_subscribers", TY_GAUGE, "", events, offsetof(struct ty_events_stats, subscribers), "Who follows them."},
	CACHE("arena_ready_bytes", TY_GAUGE, "bytes", ready_bytes, "Touched and registered: usable."),
	CACHE("arena_failed_bytes", TY_GAUGE, "bytes", failed_bytes, "Pieces whose registration failed: never used."),
	CACHE("arena_used_bytes", TY_GAUGE, "bytes", used_bytes, "In slots that hold or receive a chunk."),
	CACHE("cache_not_kept", TY_COUNTER, "", not_kept, "Times that PINNED was said of a chunk for which too much was kept already."),
	CACHE("arena_kept_bytes", TY_GAUGE, "bytes", kept_bytes, "Slots of chunks that pins keep from eviction."),
	CACHE("arena_order_bytes", TY_GAUGE, "bytes", order_bytes, "Memory of the eviction order beside the chunks: ghosts."),
	CACHE("arena_reclaimed_pieces", TY_COUNTER, "", reclaimed_pieces, "Pieces emptied for slots of another size."),
	CACHE("cache_chunks", TY_GAUGE, "", chunks, "Chunks that a LOOKUP can find."),
	LOOKUP("chunks", TY_COUNTER, chunks, "Chunks of the prompts that were looked up."),
	LOOKUP("hits", TY_COUNTER, hits, "Of these, chunks that were found, as part of the prompt's beginning."),
	LOOKUP("leases", TY_GAUGE, leases, "Chunks under lease, once for each session that leases them."),
	SHARE("session_chunks", "", session_chunks, "Chunks in the sessions of all engines."),
	SHARE("pool_bytes", "bytes", pool_bytes, "Address space of all registered pools."),
	CACHE("cache_evictions", TY_COUNTER, "", evictions, "Chunks evicted."),
	CACHE("cache_waits", TY_COUNTER, "", waits, "Stores and loads that waited for room until a tier had written what lay there."),
	CACHE("cache_no_space", TY_COUNTER, "", no_space, "Parts dropped because everything was pinned."),
	CACHE("cache_commits", TY_COUNTER, "", commits, "Parts stored."),
	CACHE("cache_aborts", TY_COUNTER, "", aborts, "Parts whose store failed or was cancelled."),
	CACHE("cache_present", TY_COUNTER, "", present, "Parts that were there already when they came to be stored."),
	CACHE("cache_waiting", TY_GAUGE, "", waiting, "Stores and loads that wait for room."),
	CACHE("return_pieces", TY_GAUGE, "", returning, "Pieces that a restart found something in and that are not usable yet."),
	CACHE("returned_parts", TY_COUNTER, "", returned, "Parts of a process before this one that serve again."),
	CACHE("return_damaged_parts", TY_COUNTER, "", return_damaged, "Of those found, parts whose contents were damaged: dropped."),
	CACHE("return_lost_parts", TY_COUNTER, "", return_lost,
		"Of those found, parts whose memory could not be registered, or that are here twice: dropped."),
	{"tyer_restarts", TY_COUNTER, "", restarts, 0, "Workers that ended before this one and were followed by another."},
	{"tyer_checksum_bytes", TY_COUNTER, "bytes", checksum_u64, offsetof(struct ty_checksum_stats, bytes),
		"Stored bytes that were summed up, after a restart also what came back without a sum."},
	{"tyer_checksum_seconds", TY_COUNTER, "seconds", checksum_ns, offsetof(struct ty_checksum_stats, ns),
		"Time of the checksum threads that it took."},
	{"tyer_checksum_waiting_bytes", TY_GAUGE, "bytes", checksum_u64, offsetof(struct ty_checksum_stats, waiting),
		"Of chunks that are to be summed up, at most a sixteenth of the arena."},
	{"tyer_checksum_skipped", TY_COUNTER, "", checksum_u64, offsetof(struct ty_checksum_stats, skipped),
		"Chunks that came too fast to be summed up."},

	{"tyer_tier_serving", TY_GAUGE, "", ty_read_tier_serving, 0, "1 when the tier serves and neither hangs nor is down."},
	TIER("down", TY_GAUGE, "", ty_read_tier, down, "1 while the tier's server does not answer."),
	TIER("scanning", TY_GAUGE, "", ty_read_tier, scanning, "1 while the tier finds out what it holds."),
	TIER("chunks", TY_GAUGE, "", ty_read_tier, chunks, "Chunks in the tier, as far as it knows."),
	TIER("used_bytes", TY_GAUGE, "bytes", ty_read_tier, used_bytes, "What they take."),
	{"tyer_tier_size_bytes", TY_GAUGE, "bytes", ty_read_tier_size, 0, "What the tier may take; absent without a limit."},
	{"tyer_tier_operations", TY_COUNTER, "", ty_read_tier_outcomes, 0, "Operations that ended."},
	TIER("operation_seconds", TY_COUNTER, "seconds", ty_read_tier_verbs, busy_ns, "Time that they took, together."),
	TIER("refused", TY_COUNTER, "", ty_read_tier_verbs, refused, "Operations beyond the tier's limits: not begun."),
	TIER("requests", TY_COUNTER, "", ty_read_tier, requests, "Requests sent to a server of the S3 API."),
	TIER("retries", TY_COUNTER, "", ty_read_tier, retries, "Of these, sent again after the server failed or was silent."),
	TIER("written_bytes", TY_COUNTER, "bytes", ty_read_tier, put_bytes, "Bytes of chunks that went down."),
	TIER("read_bytes", TY_COUNTER, "bytes", ty_read_tier, get_bytes, "Bytes of chunks that came up."),
	TIER("evicted", TY_COUNTER, "", ty_read_tier, evicted, "Chunks that the tier took away to keep to its size."),
	TIER("quarantined", TY_COUNTER, "", ty_read_tier, quarantined, "Chunks that were wrong and were put aside."),
	TIER("quarantine_bytes", TY_GAUGE, "bytes", ty_read_tier, quarantine_bytes, "Of those, what is kept aside."),
	TIER("namespaces", TY_GAUGE, "", ty_read_tier, namespaces, "Namespaces of the chunks that a disk holds; they take 1.3 KiB of memory each."),
	TIER("given_up", TY_GAUGE, "", ty_read_tier, given_up, "Operations that were answered at their deadline, and that the disk is not done with."),
	TIER("foreign", TY_COUNTER, "", ty_read_tier, foreign, "Things found in the tier that are none of its chunks."),
	TIER("dropped", TY_COUNTER, "", ty_read_tier, dropped, "Chunks that did not go down because the tier was too slow."),
	TIER("offered_late", TY_COUNTER, "", ty_read_tier, offered_late,
		"Chunks that it lacked, and that go down after a restart or because write=commit was set."),
	TIER("pack_input_bytes", TY_COUNTER, "bytes", ty_read_tier, pack_from_bytes, "Bytes of chunks that packers have gone over."),
	TIER("pack_output_bytes", TY_COUNTER, "bytes", ty_read_tier, pack_to_bytes, "What these take, packed or, where that saves nothing, as they are."),
	TIER("pack_seconds", TY_COUNTER, "seconds", ty_read_tier_seconds, pack_ns, "Time that this took, of all packers."),
	TIER("pack_as_they_are", TY_COUNTER, "", ty_read_tier, pack_as_they_are, "Parts that packers left as they are."),
	TIER("pack_given_up", TY_COUNTER, "", ty_read_tier, pack_given_up, "Chunks that nobody wanted any more before they were packed or unpacked."),
	TIER("unpack_input_bytes", TY_COUNTER, "bytes", ty_read_tier, unpack_from_bytes, "Packed bytes that were unpacked."),
	TIER("unpack_output_bytes", TY_COUNTER, "bytes", ty_read_tier, unpack_to_bytes, "What came of them."),
	TIER("unpack_seconds", TY_COUNTER, "seconds", ty_read_tier_seconds, unpack_ns, "Time that this took, of all unpackers."),
	TIER("unpack_wrong", TY_COUNTER, "", ty_read_tier, unpack_wrong, "Parts whose packed bytes were damaged."),
	TIER("buffer_bytes", TY_GAUGE, "bytes", ty_read_tier, buffer_bytes, "Packed bytes, and those of a disk's workers, in memory, on their way down or up."),
	{"tyer_tier_limit_bytes", TY_GAUGE, "bytes", ty_read_tier_limit, 0, "What may be in flight in each direction, and of it packed in memory: bytes=."},
	TIER("queued", TY_GAUGE, "", ty_read_tier, queued, "Chunks that wait to go down."),
	TIER("pinned_bytes", TY_GAUGE, "bytes", ty_read_tier, pinned_bytes, "Bytes of victims that wait to go down."),
	TIER("in_flight", TY_GAUGE, "", ty_read_tier_lanes, in_flight, "Operations under way."),
	TIER("in_flight_bytes", TY_GAUGE, "bytes", ty_read_tier_lanes, in_flight_bytes, "Bytes of them."),
	SCRUB("bytes", TY_COUNTER, "bytes", ty_read_scrub, bytes, "Bytes read and found right, as they lie there."),
	SCRUB("chunks", TY_COUNTER, "", ty_read_scrub, chunks, "Chunks read and found right."),
	SCRUB("wrong", TY_COUNTER, "", ty_read_scrub, wrong, "Chunks found wrong: put aside, or dropped."),
	SCRUB("gone", TY_COUNTER, "", ty_read_scrub, gone, "Chunks that were gone when their turn came."),
	SCRUB("failed", TY_COUNTER, "", ty_read_scrub, failed, "Chunks that could not be read."),
	SCRUB("position", TY_GAUGE, "", ty_read_scrub, position, "Chunks that this pass, or the last one, has looked at."),
	SCRUB("passes", TY_COUNTER, "", ty_read_scrub, passes, "Full passes."),
	SCRUB("last_pass", TY_GAUGE, "", ty_read_scrub, last_pass, "When the last of them ended, in seconds since 1970; 0: none has."),
	SCRUB("last_pass_seconds", TY_GAUGE, "seconds", ty_read_scrub_seconds, last_pass_ns, "How long it took."),
	PREFETCH("fetches", TY_COUNTER, "", fetches, "LOOKUPs that looked below the arena."),
	PREFETCH("fetches_active", TY_GAUGE, "", active, "Of these, under way."),
	PREFETCH("fetches_cancelled", TY_COUNTER, "", cancelled, "Of these, cancelled by their session."),
	PREFETCH("fetches_given_up", TY_COUNTER, "", given_up, "Times that a tier was not waited for because it does not answer."),
	PREFETCH("loads", TY_COUNTER, "", loads, "Loads of a chunk begun."),
	PREFETCH("loads_active", TY_GAUGE, "", in_flight, "Of these, under way."),
	PREFETCH("loads_shared", TY_COUNTER, "", shared, "Chunks wanted whose load was under way already."),
	PREFETCH("loaded", TY_COUNTER, "", loaded, "Chunks that came up."),
	PREFETCH("loaded_bytes", TY_COUNTER, "bytes", loaded_bytes, "Their bytes."),
	PREFETCH("missing", TY_COUNTER, "", missing, "Loads that found the chunk gone."),
	PREFETCH("corrupt", TY_COUNTER, "", corrupt, "Loads that found it wrong."),
	PREFETCH("failed", TY_COUNTER, "", failed, "Loads that failed in the tier."),
	PREFETCH("no_space", TY_COUNTER, "", no_space, "Loads for which the arena had no room."),
	WRITEBACK("abandoned", TY_COUNTER, "", abandoned, "Chunks that had not gone down when the service stopped."),

	{"tyer_device_state", TY_STATESET, "", device_state, 0, "What the device does."},
	{"tyer_device_call_seconds", TY_GAUGE, "seconds", device_call, 0,
		"How long the owner has been inside the driver call it is in; 0 when in none."},
	GPU("queued", TY_GAUGE, "", gpu_u32, queued, "Operations that wait."),
	GPU("in_flight", TY_GAUGE, "", gpu_u32, in_flight, "Operations under way."),
	GPU("stored_bytes", TY_COUNTER, "bytes", gpu_u64, stored_bytes, "Copied into the arena."),
	GPU("retrieved_bytes", TY_COUNTER, "bytes", gpu_u64, retrieved_bytes, "Copied out of the arena."),
	GPU("stored_chunks", TY_COUNTER, "", gpu_u64, stored_chunks, "Parts of chunks copied into the arena."),
	GPU("retrieved_chunks", TY_COUNTER, "", gpu_u64, retrieved_chunks, "Parts of chunks copied out of the arena."),
	GPU("failed_operations", TY_COUNTER, "", gpu_u64, failed_ops, "Operations that failed."),
	GPU("mappings", TY_GAUGE, "", gpu_u64, mappings, "Client pools that are open."),
	GPU("longest_slow_call_seconds", TY_GAUGE, "seconds", gpu_ns, longest_slow_ns,
		"The longest open, close or registration of memory so far."),
	DEVICE("longest_call_seconds", TY_GAUGE, "seconds", device_ns, longest_call_ns,
		"The longest driver call so far in steady state."),
	DEVICE("memory_bytes", TY_GAUGE, "bytes", device_u64, device_bytes, "Device memory taken by the service."),
	DEVICE("launches", TY_COUNTER, "", device_u64, launches, "Kernels launched."),
	DEVICE("copies", TY_COUNTER, "", device_u64, copies, "Copies queued."),

	RUNTIME("actors", TY_GAUGE, actors, "Actors alive."),
	RUNTIME("messages", TY_COUNTER, messages, "Messages handled."),
	RUNTIME("runs", TY_COUNTER, runs, "Times an actor was scheduled and run."),
	RUNTIME("exhausted", TY_COUNTER, exhausted, "Runs that ended by their budget with messages left."),
	RUNTIME("steals", TY_COUNTER, steals, "Actors taken from another worker's queue."),
	RUNTIME("parks", TY_COUNTER, parks, "Times a thread went to sleep."),
	RUNTIME("wakes", TY_COUNTER, wakes, "Times a thread was woken."),
	RUNTIME("timers", TY_COUNTER, timers, "Timers fired."),
	RUNTIME("refused", TY_COUNTER, refused, "Messages that their receiver did not handle: after its end, or misfits."),
	RUNTIME("dropped", TY_COUNTER, dropped, "Of these, those that nobody was given back."),
	RUNTIME("misfits", TY_COUNTER, misfits, "Of these, those whose type or size their receiver does not know: a bug."),
	{"tyer_runtime_running_seconds", TY_GAUGE, "seconds", ty_read_running, 0, "The message that has been running longest right now."},
	WORKER("messages", TY_COUNTER, "", messages, "Messages handled on this thread of the pool."),
	WORKER("runs", TY_COUNTER, "", runs, "Runs of actors on it."),
	WORKER("running_seconds", TY_COUNTER, "seconds", running_ns, "Time that they took; the rest of its time it looked for work or slept."),
	WORKER("exhausted", TY_COUNTER, "", exhausted, "Runs that ended by their budget with messages left."),
	WORKER("steals", TY_COUNTER, "", steals, "Actors that it took from another worker's queue."),
	WORKER("parks", TY_COUNTER, "", parks, "Times it went to sleep."),
	WORKER("wakes", TY_COUNTER, "", wakes, "Times it was woken."),
	WORKER("queue_high", TY_GAUGE, "", queue_high, "Most actors that waited for it at once; counts to 256."),
	ACTOR("messages", TY_COUNTER, "", messages, "Messages that this actor handled."),
	ACTOR("runs", TY_COUNTER, "", runs, "Times it was scheduled and run; of one with a thread of its own: turns."),
	ACTOR("running_seconds", TY_COUNTER, "seconds", running_ns, "Time in runs and polls that have ended."),
	ACTOR("exhausted", TY_COUNTER, "", exhausted, "Runs that ended by their budget with messages left."),
	ACTOR("queue_high", TY_GAUGE, "", queue_high, "Most messages that it ever found waiting."),

	CACHE("limit_arena_bytes", TY_GAUGE, "bytes", limit_bytes, "--l1-size, as it is now: `tyer configure`"),
	CACHE("limit_arena_ahead_bytes", TY_GAUGE, "bytes", ahead_bytes, "--l1-ahead, likewise"),
	CACHE("limit_arena_kept_bytes", TY_GAUGE, "bytes", kept_limit_bytes, "--keep-percent of it, likewise: what pins may take away from eviction"),
	LIMIT("checksum_threads", "", limit_u32, checksum_threads, "--checksum-threads"),
	LIMIT("pack_threads", "", limit_u32, pack_threads, "--pack-threads, each way"),
	LIMIT("populate_threads", "", limit_u32, populate_threads, "--populate-threads"),
	LIMIT("staging_bytes", "bytes", limit_u64, staging, "--staging, per GPU; none is taken with --gpu-sharing quiet"),
	LIMIT("chunk_tokens", "", limit_u32, chunk_tokens, "--chunk-tokens"),
	LIMIT("workers", "", limit_u32, workers, "--workers, 0 for one per CPU"),
	LIMIT("spin_us", "", limit_u32, spin_us, "--spin-us, 0 for the runtime's own"),
	LIMIT("request_bytes", "bytes", limit_u32, max_request_bytes, "--max-request-bytes"),
	LIMIT("requests", "", limit_u32, max_requests, "--max-requests, open at once"),
	LIMIT("timeout_seconds", "seconds", limit_us, max_timeout_us, "--max-timeout-us"),
	LIMIT("default_timeout_seconds", "seconds", limit_us, default_timeout_us, "--default-timeout-us"),
	LIMIT("clients", "", limit_u32, max_clients, "--max-clients"),
	LIMIT("registrations", "", limit_u32, max_registrations, "--max-registrations, per engine"),
	LIMIT("sessions", "", limit_u32, max_sessions, "--max-sessions, per engine"),
	LIMIT("session_chunks", "", limit_u32, max_session_chunks, "--max-session-chunks"),
	CONSTANT("all_session_chunks", "", TY_SESSION_CHUNKS_ALL, "Chunks in the sessions of all engines; one engine may have as many as are free."),
	CONSTANT("all_pool_bytes", "bytes", TY_POOL_BYTES_ALL, "Address space of the pools of all engines, likewise."),
	CONSTANT("tier_given_up", "", TY_TIER_GIVEN_UP, "Operations answered at their deadline that a disk is not done with: beyond them it is asked for nothing."),
	CONSTANT("namespaces", "", TY_MAX_SPACES, "Namespaces that chunks are known to be of."),
	LIMIT("client_weight", "", limit_u32, max_client_weight, "--max-client-weight, the largest share a client may ask for"),
	LIMIT("operations", "", limit_u32, max_operations, "--max-operations, per engine, in flight"),
	LIMIT("all_operations", "", limit_u32, max_all_operations, "--max-all-operations, in flight"),
	LIMIT("all_operation_bytes", "bytes", limit_u64, max_all_operation_bytes, "--max-all-operation-bytes, in flight"),
	LIMIT("client_requests", "", limit_u32, max_client_requests, "--max-client-requests, of one client, open"),
	LIMIT("operation_chunks", "", limit_u32, max_operation_chunks, "--max-operation-chunks"),
	LIMIT("operation_bytes", "bytes", limit_u64, max_operation_bytes, "--max-operation-bytes, per engine, in flight"),
	CONSTANT("finished_operations", "", TY_FINISHED_OPERATIONS, "Operations that are over, remembered for each engine."),
	LIMIT("scrub_rate_bytes", "bytes", limit_u64, scrub_rate, "--scrub-rate, a second"),
	LIMIT("scrub_interval_seconds", "seconds", limit_us, scrub_interval_us, "--scrub-interval"),
	LIMIT("prefetch_wait_seconds", "seconds", limit_us, prefetch_wait_us, "--prefetch-wait-us"),
	LIMIT("drain_timeout_seconds", "seconds", limit_us, drain_timeout_us, "--drain-timeout-us"),
	LIMIT("stop_timeout_seconds", "seconds", limit_us, stop_timeout_us, "--stop-timeout-us"),
	LIMIT("gpu_stall_after_seconds", "seconds", limit_us, gpu_stall_after_us, "--gpu-stall-after"),
	LIMIT("gpu_stall_limit_seconds", "seconds", limit_us, gpu_stall_limit_us, "--gpu-stall-limit, 0 for never"),
	LIMIT("restart_backoff_seconds", "seconds", limit_us, restart_backoff_us, "--restart-backoff-us"),
	CONSTANT("embedded_owners", "", TY_EMBEDDED_MAX, "Owners in engines' processes at once."),
	CONSTANT("embedded_unread_bytes", "bytes", TY_EMBEDDED_UNREAD, "On their way to one of them; past that it is lost."),
	CONSTANT("connections", "", TY_RPC_CONNECTIONS_MAX, "Connections for requests at once."),
	CONSTANT("connection_requests", "", TY_RPC_CONNECTION_REQUESTS, "Requests of one of them in the service."),
	CONSTANT("connection_replies", "", TY_RPC_CONNECTION_REPLIES, "Replies of one of them that wait: until some are taken nothing of it is read."),
	CONSTANT("connection_reply_bytes", "bytes", TY_RPC_CONNECTION_REPLY_BYTES, "Likewise."),
	CONSTANT("open_request_bytes", "bytes", TY_RPC_REQUEST_BYTES, "Requests that engines have, or twice --max-request-bytes if that is more."),
	CONSTANT("frame_bytes", "bytes", TY_RPC_FRAME_BYTES, "Frames of all connections that are on their way in."),
	CONSTANT("reply_bytes", "bytes", TY_RPC_REPLY_BYTES, "Replies of all connections that wait."),
	CONSTANT("frame_seconds", "seconds", TY_RPC_SEND_TIMEOUT_MS / 1000, "For a greeting, the rest of a frame, or a reply to be taken."),
	CONSTANT("client_descriptors", "", TY_CLIENT_FDS, "Descriptors of one client that wait for a REGISTER."),
	CONSTANT("hello_seconds", "seconds", TY_CLIENTS_HELLO_NS / 1000000000, "For a HELLO on an attach connection."),
	CONSTANT("idle_engines", "", TY_CLIENTS_LINGER_MAX, "Engines without clients that are remembered."),
	CONSTANT("log_lines", "", TY_LOG_LINES, "Log lines on their way to standard error."),
	CONSTANT("http_connections", "", TY_HTTP_CONNECTIONS, "HTTP connections open at once."),
};
const size_t ty_metric_count = sizeof ty_metrics / sizeof ty_metrics[0];
