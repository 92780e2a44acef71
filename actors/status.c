/* SPDX-License-Identifier: Apache-2.0
 *
 * STATUS: the service as a message, and that message as JSON.
 *
 * The message is built so that at any moment it can be freed: a pointer is counted as soon as it is there.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "metrics_view.h"
#include "wire/request.h"

#define STATUS_OPERATIONS 4096 /* shown; a reply has its bounds */

/* ---- the message ---------------------------------------------------------------------------------------------------- */

/* Well-formed UTF-8 on the heap, whatever came in; null: no memory. */
static char *copy_text(const char *in, size_t room)
{
	char out[1200];

	ty_escape(out, sizeof out, in, strnlen(in, room), TY_ESCAPE_TEXT, NULL);
	return strdup(out);
}


static uint64_t get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

static bool add_device(Tyer__V1__StatusReply *status, const struct ty_view *view, uint32_t i)
{
	const struct ty_gpu_stats *stats = &view->service->gpu_stats[i];
	const struct ty_device_view *device = &view->devices[i];
	Tyer__V1__DeviceStatus *d = malloc(sizeof *d);

	if (d == NULL)
		return false;
	tyer__v1__device_status__init(d);
	status->devices[status->n_devices++] = d;
	d->device = malloc(sizeof *d->device);
	if (d->device == NULL)
		return false;
	tyer__v1__device__init(d->device);
	d->device->uuid.data = calloc(1, TY_UUID_BYTES);
	d->device->uuid.len = d->device->uuid.data ? TY_UUID_BYTES : 0;
	d->device->name = copy_text(device->name, sizeof device->name);
	d->device->model = copy_text(device->known ? stats->info.model : "", sizeof stats->info.model);
	d->state = copy_text(ty_device_state_name(device->state), 32);
	d->call = copy_text(device->call ? device->call : "", 256);
	d->note = copy_text(device->known ? stats->note : "", sizeof stats->note);
	if (device->known && d->device->uuid.data)
		memcpy(d->device->uuid.data, stats->info.uuid, TY_UUID_BYTES);
	d->call_age_us = device->call_ns / 1000;
	d->queued = atomic_load_explicit(&stats->queued, memory_order_relaxed);
	d->in_flight = atomic_load_explicit(&stats->in_flight, memory_order_relaxed);
	d->stored_bytes = get(&stats->stored_bytes);
	d->retrieved_bytes = get(&stats->retrieved_bytes);
	d->mappings = get(&stats->mappings);
	return d->device->uuid.data && d->device->name && d->device->model && d->state && d->call && d->note;
}

static bool add_client(Tyer__V1__StatusReply *status, const struct ty_client_slot *slot)
{
	Tyer__V1__ClientStatus *c = malloc(sizeof *c);

	if (c == NULL)
		return false;
	tyer__v1__client_status__init(c);
	status->clients[status->n_clients++] = c; /* from here on it is freed with the rest */
	c->name = copy_text(slot->name, sizeof slot->name);
	c->tenant = copy_text(slot->tenant, sizeof slot->tenant);
	c->model = copy_text(slot->model, sizeof slot->model);
	c->client = slot->number;
	c->pid = slot->pid;
	c->uid = slot->uid;
	c->registrations = atomic_load_explicit(&slot->registrations, memory_order_relaxed);
	c->sessions = atomic_load_explicit(&slot->sessions, memory_order_relaxed);
	c->operations = atomic_load_explicit(&slot->operations, memory_order_relaxed);
	c->leases = get(&slot->leases);
	return c->name && c->tenant && c->model;
}

static bool add_clients(Tyer__V1__StatusReply *status, const struct ty_view *view)
{
	status->clients = calloc(TY_MAX_CLIENTS, sizeof(Tyer__V1__ClientStatus *));
	if (status->clients == NULL)
		return false;
	for (uint32_t i = 0; i < TY_MAX_CLIENTS; i++) {
		const struct ty_client_slot *slot = &view->service->client_slots[i];

		/* Pairs with the clients actor's release: what it wrote before is there to read. */
		if (atomic_load_explicit(&slot->state, memory_order_acquire) != 2)
			continue;
		if (!add_client(status, slot))
			return false;
		/* The client left meanwhile: its place may be another's by now, and what was read of both. */
		if (atomic_load_explicit(&slot->state, memory_order_acquire) != 2 ||
			slot->number != status->clients[status->n_clients - 1]->client) {
			status->n_clients--;
			tyer__v1__client_status__free_unpacked(status->clients[status->n_clients], NULL);
		}
	}
	return true;
}

static const char *const state_names[] = {
	[TYER__V1__OPERATION_STATE__RESERVING] = "reserving", [TYER__V1__OPERATION_STATE__WAITING] = "waiting",
	[TYER__V1__OPERATION_STATE__QUEUED] = "queued", [TYER__V1__OPERATION_STATE__COPYING] = "copying",
	[TYER__V1__OPERATION_STATE__COMMITTING] = "committing", [TYER__V1__OPERATION_STATE__OVER] = "over",
};

static bool add_operations(Tyer__V1__StatusReply *status, const struct ty_view *view)
{
	const struct ty_op_table *table = &view->service->operations;
	struct ty_op_seen seen;

	status->operations = calloc(STATUS_OPERATIONS, sizeof(Tyer__V1__Operation *));
	if (status->operations == NULL)
		return false;
	for (uint32_t i = 0; i < table->count && status->n_operations < STATUS_OPERATIONS; i++) {
		Tyer__V1__Operation *o;

		if (!ty_op_table_see(table, i, &seen))
			continue;
		o = malloc(sizeof *o);
		if (o == NULL)
			return false;
		tyer__v1__operation__init(o);
		status->operations[status->n_operations++] = o;
		o->device = copy_text(view->devices[seen.device].name, sizeof view->devices[0].name);
		if (o->device == NULL)
			return false;
		o->id = seen.id;
		o->client = seen.client;
		o->session = seen.session;
		o->verb = seen.retrieve ? TYER__V1__REQUEST__VERB_RETRIEVE : TYER__V1__REQUEST__VERB_STORE;
		o->state = (Tyer__V1__OperationState)seen.state;
		o->age_us = view->now > seen.began ? (uint64_t)(view->now - seen.began) / 1000 : 0;
		o->chunks = seen.chunks;
		o->answered = seen.answered;
	}
	return true;
}

/* Absent if there was none. */
static bool add_restart(Tyer__V1__StatusReply *status, const struct ty_restart *restart)
{
	if (!restart->restarts)
		return true;
	status->restart = malloc(sizeof *status->restart);
	if (status->restart == NULL)
		return false;
	tyer__v1__restart_status__init(status->restart);
	status->restart->restarts = restart->restarts;
	status->restart->reason = copy_text(restart->reason, sizeof restart->reason);
	status->restart->pause_us = (uint64_t)restart->pause / 1000;
	return status->restart->reason != NULL;
}

struct counters {
	struct ty_metric_sink sink;
	Tyer__V1__StatusReply *status;
	size_t room;
	bool failed;
};

static void add_counter(struct ty_metric_sink *sink, const struct ty_metric *metric, const char *suffix, const char *labels,
	struct ty_value value)
{
	struct counters *c = ty_container_of(sink, struct counters, sink);
	Tyer__V1__StatusReply *status = c->status;
	Tyer__V1__Counter *counter;

	if (c->failed)
		return;
	c->failed = true;
	if (status->n_counters == c->room) {
		size_t room = c->room ? c->room * 2 : 256;
		void *more = realloc(status->counters, room * sizeof status->counters[0]);

		if (more == NULL)
			return;
		status->counters = more;
		c->room = room;
	}
	counter = malloc(sizeof *counter);
	if (counter == NULL)
		return;
	tyer__v1__counter__init(counter);
	status->counters[status->n_counters++] = counter;
	counter->value = value.whole ? (double)value.number : value.real;
	if (asprintf(&counter->name, "%s%s%s%s%s", metric->name, suffix, labels[0] ? "{" : "", labels, labels[0] ? "}" : "") < 0) {
		counter->name = NULL;
		return;
	}
	c->failed = false;
}

static bool fill(Tyer__V1__StatusReply *status, const struct ty_view *view)
{
	const struct ty_eviction_stats *stats = &view->service->eviction_stats;
	struct counters counters = {.sink.sample = add_counter, .status = status};

	status->version = strdup(TY_VERSION);
	status->uptime_us = view->uptime_ns / 1000;
	status->arena = malloc(sizeof *status->arena);
	status->devices = calloc(TY_MAX_DEVICES, sizeof(Tyer__V1__DeviceStatus *));
	if (status->arena)
		tyer__v1__arena_status__init(status->arena);
	if (status->version == NULL || status->arena == NULL || status->devices == NULL)
		return false;
	status->arena->size_bytes = view->service->arena.bytes;
	status->arena->ready_bytes = get(&stats->ready_bytes);
	status->arena->used_bytes = get(&stats->used_bytes);
	status->arena->failed_bytes = get(&stats->failed_bytes);
	status->arena->chunks = get(&stats->chunks);
	status->arena->evictions = get(&stats->evictions);
	status->arena->leases = get(&view->service->lookup_stats.leases);
	for (uint32_t i = 0; i < view->device_count; i++)
		if (!add_device(status, view, i))
			return false;
	if (!add_clients(status, view) || !add_operations(status, view) ||
		!add_restart(status, &view->service->restart))
		return false;
	for (size_t i = 0; i < ty_metric_count; i++)
		ty_metrics[i].read(view, &ty_metrics[i], &counters.sink);
	return !counters.failed;
}

Tyer__V1__StatusReply *ty_status_make(const struct ty_view *view)
{
	Tyer__V1__StatusReply *status = malloc(sizeof *status);

	if (status == NULL)
		return NULL;
	tyer__v1__status_reply__init(status);
	if (fill(status, view))
		return status;
	tyer__v1__status_reply__free_unpacked(status, NULL);
	return NULL;
}

/* ---- the page ------------------------------------------------------------------------------------------------------- */

static void json_string(struct ty_text *out, const char *key, const char *value, const char *after)
{
	char text[4800];

	ty_escape(text, sizeof text, value, strlen(value), TY_ESCAPE_JSON, NULL);
	ty_text_add(out, "\"%s\":\"%s\"%s", key, text, after);
}

static void json_device(struct ty_text *out, const Tyer__V1__DeviceStatus *d)
{
	ty_text_add(out, "{");
	json_string(out, "name", d->device->name, ",\"uuid\":\"");
	for (size_t i = 0; i < d->device->uuid.len; i++)
		ty_text_add(out, "%02x", d->device->uuid.data[i]);
	ty_text_add(out, "\",");
	json_string(out, "model", d->device->model, ",");
	json_string(out, "state", d->state, ",");
	json_string(out, "call", d->call, ",");
	ty_text_add(out,
		"\"call_age_us\":%" PRIu64 ",\"queued\":%u,\"in_flight\":%u,\"stored_bytes\":%" PRIu64
		",\"retrieved_bytes\":%" PRIu64 ",\"mappings\":%" PRIu64 ",",
		d->call_age_us, d->queued, d->in_flight, d->stored_bytes, d->retrieved_bytes, d->mappings);
	json_string(out, "note", d->note, "}");
}

static void json_client(struct ty_text *out, const Tyer__V1__ClientStatus *c)
{
	ty_text_add(out, "{");
	json_string(out, "name", c->name, ",");
	/* a string: JavaScript's numbers would lose digits */
	ty_text_add(out, "\"client\":\"%" PRIu64 "\",\"pid\":%u,\"uid\":%u,", c->client, c->pid, c->uid);
	json_string(out, "tenant", c->tenant, ",");
	json_string(out, "model", c->model, ",");
	ty_text_add(out, "\"registrations\":%u,\"sessions\":%u,\"operations\":%u,\"leases\":%" PRIu64 "}", c->registrations,
		c->sessions, c->operations, c->leases);
}

static void json_operation(struct ty_text *out, const Tyer__V1__Operation *o)
{
	ty_text_add(out, "{\"id\":\"%016" PRIx64 "\",\"verb\":\"%s\",\"client\":\"%" PRIu64 "\",\"session\":\"%" PRIu64
		"\",\"state\":\"%s\",\"age_us\":%" PRIu64 ",\"chunks\":%u,\"answered\":%s,", o->id, ty_verb_name(o->verb),
		o->client, o->session, state_names[o->state], o->age_us, o->chunks, o->answered ? "true" : "false");
	json_string(out, "device", o->device, "}");
}

void ty_status_write_json(struct ty_text *out, const Tyer__V1__StatusReply *s, uint64_t boot)
{
	ty_text_add(out, "{");
	json_string(out, "version", s->version, ",");
	ty_text_add(out, "\"boot\":\"%016" PRIx64 "\",\"uptime_us\":%" PRIu64 ",\"arena\":{", boot, s->uptime_us);
	ty_text_add(out,
		"\"size_bytes\":%" PRIu64 ",\"ready_bytes\":%" PRIu64 ",\"used_bytes\":%" PRIu64 ",\"chunks\":%" PRIu64
		",\"leases\":%" PRIu64 ",\"evictions\":%" PRIu64 ",\"failed_bytes\":%" PRIu64 "},\"devices\":[",
		s->arena->size_bytes, s->arena->ready_bytes, s->arena->used_bytes, s->arena->chunks, s->arena->leases,
		s->arena->evictions, s->arena->failed_bytes);
	for (size_t i = 0; i < s->n_devices; i++) {
		ty_text_add(out, i ? "," : "");
		json_device(out, s->devices[i]);
	}
	ty_text_add(out, "],\"clients\":[");
	for (size_t i = 0; i < s->n_clients; i++) {
		ty_text_add(out, i ? "," : "");
		json_client(out, s->clients[i]);
	}
	ty_text_add(out, "],\"operations\":[");
	for (size_t i = 0; i < s->n_operations; i++) {
		ty_text_add(out, i ? "," : "");
		json_operation(out, s->operations[i]);
	}
	ty_text_add(out, "],");
	if (s->restart) {
		ty_text_add(out, "\"restart\":{\"restarts\":%u,\"pause_us\":%" PRIu64 ",", s->restart->restarts, s->restart->pause_us);
		json_string(out, "reason", s->restart->reason, "},");
	}
	ty_text_add(out, "\"counters\":{");
	for (size_t i = 0; i < s->n_counters; i++) {
		char name[512];

		ty_escape(name, sizeof name, s->counters[i]->name, strlen(s->counters[i]->name), TY_ESCAPE_JSON, NULL);
		ty_text_add(out, "%s\n\"%s\":%.15g", i ? "," : "", name, s->counters[i]->value);
	}
	ty_text_add(out, "}}\n");
}
