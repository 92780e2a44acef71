/* SPDX-License-Identifier: Apache-2.0 */
#include "show.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "table.h"
#include "wire/request.h"

#define TEXT_MAX 512 /* bytes of one of the service's strings that are shown */

static const char *clean(char out[TEXT_MAX], const char *text)
{
	text = text ? text : "";
	ty_escape(out, TEXT_MAX, text, strlen(text), TY_ESCAPE_TEXT, NULL);
	return out;
}

/* "1.5 GiB": three digits, for the eye. */
static const char *bytes_text(char out[32], uint64_t bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = (double)bytes;
	size_t unit = 0;

	while (value >= 1024) {
		value /= 1024;
		unit++;
	}
	snprintf(out, 32, unit && value < 99.95 ? "%.1f %s" : "%.0f %s", value, units[unit]);
	return out;
}

static const char *time_text(char out[32], uint64_t us)
{
	uint64_t s = us / 1000000;

	if (us < 10000)
		snprintf(out, 32, "%" PRIu64 " us", us);
	else if (us < 10000000)
		snprintf(out, 32, "%" PRIu64 " ms", us / 1000);
	else if (s < 86400)
		snprintf(out, 32, "%" PRIu64 ":%02u:%02u", s / 3600, (unsigned)(s / 60 % 60), (unsigned)(s % 60));
	else
		snprintf(out, 32, "%" PRIu64 " d %02u:%02u", s / 86400, (unsigned)(s / 3600 % 24), (unsigned)(s / 60 % 60));
	return out;
}

static bool counter(const Tyer__V1__StatusReply *s, const char *name, double *value)
{
	for (size_t i = 0; i < s->n_counters; i++)
		if (s->counters[i]->name && !strcmp(s->counters[i]->name, name)) {
			*value = s->counters[i]->value;
			return true;
		}
	return false;
}

/* False: the service does not count lookups (then *chunks is below 0), or has seen none. */
static bool hit_rate(const Tyer__V1__StatusReply *s, double *hits, double *chunks, double *rate)
{
	*chunks = -1;
	if (!counter(s, CLI_COUNTER_LOOKED_UP, chunks) || !counter(s, CLI_COUNTER_HIT, hits) || !(*chunks > 0) ||
	    !isfinite(*hits) || !isfinite(*chunks))
		return false;
	*rate = *hits / *chunks;
	return true;
}

static void show_arena(FILE *out, const Tyer__V1__ArenaStatus *a)
{
	char size[32], ready[32], used[32], failed[32];

	if (!a)
		return;
	fprintf(out, "Arena    %s, ready %s, used %s", bytes_text(size, a->size_bytes), bytes_text(ready, a->ready_bytes),
		bytes_text(used, a->used_bytes));
	if (a->size_bytes)
		fprintf(out, " (%.1f %%)", 100 * (double)a->used_bytes / (double)a->size_bytes);
	if (a->failed_bytes)
		fprintf(out, ", failed %s", bytes_text(failed, a->failed_bytes));
	fprintf(out, "\nChunks   %" PRIu64 " here, %" PRIu64 " leases, %" PRIu64 " evicted\n", a->chunks, a->leases,
		a->evictions);
}

static bool show_devices(FILE *out, const Tyer__V1__StatusReply *s)
{
	static const char *const headings[] = { "DEVICE", "MODEL", "STATE", "NOW", ">QUEUED", ">IN FLIGHT", ">STORED",
		">RETRIEVED", ">MAPPINGS", NULL };
	struct table t;

	table_begin(&t, headings);
	for (size_t i = 0; i < s->n_devices; i++) {
		const Tyer__V1__DeviceStatus *d = s->devices[i];
		char text[TEXT_MAX], size[32];

		table_text(&t, d->device && d->device->name ? d->device->name : "");
		table_text(&t, d->device && d->device->model ? d->device->model : "");
		table_text(&t, d->state ? d->state : "");
		if (d->call && d->call[0])
			table_cell(&t, "%.40s %s", clean(text, d->call), time_text(size, d->call_age_us));
		else
			table_text(&t, "-");
		table_cell(&t, "%" PRIu32, d->queued);
		table_cell(&t, "%" PRIu32, d->in_flight);
		table_text(&t, bytes_text(size, d->stored_bytes));
		table_text(&t, bytes_text(size, d->retrieved_bytes));
		table_cell(&t, "%" PRIu64, d->mappings);
	}
	if (!table_end(&t, out))
		return false;
	for (size_t i = 0; i < s->n_devices; i++) {
		const Tyer__V1__DeviceStatus *d = s->devices[i];
		char name[TEXT_MAX], note[TEXT_MAX];

		if (d->note && d->note[0])
			fprintf(out, "%s: %s\n", clean(name, d->device ? d->device->name : ""), clean(note, d->note));
	}
	return true;
}

/* A tier's counter: `name` of those labels, 0 if there is none. */
static double of_tier(const Tyer__V1__StatusReply *s, const char *name, const char *labels)
{
	char whole[TEXT_MAX];
	double value = 0;

	snprintf(whole, sizeof whole, "%s{%s}", name, labels);
	return counter(s, whole, &value) && value > 0 && value < 1e18 ? value : 0;
}

static const char *tier_state(const Tyer__V1__StatusReply *s, const char *labels)
{
	if (of_tier(s, "tyer_tier_down", labels) > 0)
		return "down";
	if (of_tier(s, "tyer_tier_serving", labels) > 0)
		return of_tier(s, "tyer_tier_scanning", labels) > 0 ? "scanning" : "serving";
	return "not serving";
}

/* Of a tier that packs: what chunks take of their length so far. */
static const char *packed_text(const Tyer__V1__StatusReply *s, const char *labels, char out[16])
{
	double from = of_tier(s, "tyer_tier_pack_input_bytes_total", labels), to = of_tier(s, "tyer_tier_pack_output_bytes_total", labels);

	if (from <= 0)
		return "-";
	snprintf(out, 16, "%.0f%%", 100 * to / from);
	return out;
}

/* Tiers are told by their counters alone: there is one that each has. */
static bool show_tiers(FILE *out, const Tyer__V1__StatusReply *s)
{
	static const char *const headings[] = { "TIER", "KIND", "STATE", ">CHUNKS", ">USED", ">PACKED", ">WRITTEN", ">READ", ">WAITING",
		">DROPPED", ">WRONG", NULL };
	bool any = false;
	struct table t;

	for (size_t i = 0; i < s->n_counters; i++) {
		const char *name = s->counters[i]->name ? s->counters[i]->name : "";
		char labels[64], number[8], kind[24], size[32], packed[16];

		if (sscanf(name, "tyer_tier_serving{%63[^}]}", labels) != 1 ||
		    sscanf(labels, "tier=\"%7[^\"]\",kind=\"%23[^\"]\"", number, kind) != 2)
			continue;
		if (!any) {
			fputc('\n', out);
			table_begin(&t, headings);
		}
		any = true;
		table_text(&t, number);
		table_text(&t, kind);
		table_text(&t, tier_state(s, labels));
		table_cell(&t, "%.0f", of_tier(s, "tyer_tier_chunks", labels));
		table_text(&t, bytes_text(size, (uint64_t)of_tier(s, "tyer_tier_used_bytes", labels)));
		table_text(&t, packed_text(s, labels, packed));
		table_text(&t, bytes_text(size, (uint64_t)of_tier(s, "tyer_tier_written_bytes_total", labels)));
		table_text(&t, bytes_text(size, (uint64_t)of_tier(s, "tyer_tier_read_bytes_total", labels)));
		table_cell(&t, "%.0f", of_tier(s, "tyer_tier_queued", labels));
		table_cell(&t, "%.0f", of_tier(s, "tyer_tier_dropped_total", labels));
		table_cell(&t, "%.0f", of_tier(s, "tyer_tier_quarantined_total", labels));
	}
	return !any || table_end(&t, out);
}

static bool show_clients(FILE *out, const Tyer__V1__StatusReply *s)
{
	static const char *const headings[] = { "CLIENT", ">PID", ">UID", "TENANT", "MODEL", ">REGISTRATIONS", ">SESSIONS",
		">OPERATIONS", ">LEASES", NULL };
	struct table t;

	table_begin(&t, headings);
	for (size_t i = 0; i < s->n_clients; i++) {
		const Tyer__V1__ClientStatus *c = s->clients[i];

		if (c->name && c->name[0])
			table_text(&t, c->name);
		else
			table_cell(&t, "%016" PRIx64, c->client);
		table_cell(&t, "%" PRIu32, c->pid);
		table_cell(&t, "%" PRIu32, c->uid);
		table_text(&t, c->tenant && c->tenant[0] ? c->tenant : "-");
		table_text(&t, c->model && c->model[0] ? c->model : "-");
		table_cell(&t, "%" PRIu32, c->registrations);
		table_cell(&t, "%" PRIu32, c->sessions);
		table_cell(&t, "%" PRIu32, c->operations);
		table_cell(&t, "%" PRIu64, c->leases);
	}
	return table_end(&t, out);
}

/* What an operation does; a number that this program does not know is a newer service's. */
static const char *state_of(const Tyer__V1__Operation *o)
{
	static const char *const names[] = { "reserving", "waiting", "queued", "copying", "committing", "over" };

	return (unsigned)o->state < sizeof names / sizeof names[0] ? names[o->state] : "?";
}

static bool show_operations(FILE *out, const Tyer__V1__StatusReply *s)
{
	static const char *const headings[] = { "OPERATION", "VERB", "CLIENT", "SESSION", "STATE", ">AGE", ">CHUNKS", "DEVICE", NULL };
	struct table t;

	table_begin(&t, headings);
	for (size_t i = 0; i < s->n_operations; i++) {
		const Tyer__V1__Operation *o = s->operations[i];
		char age[32];

		table_cell(&t, "%016" PRIx64, o->id);
		table_text(&t, ty_verb_name(o->verb));
		table_cell(&t, "%016" PRIx64, o->client);
		table_cell(&t, "%016" PRIx64, o->session);
		/* its client has been told that it was too late, or has gone: what it holds it holds until its copies are over */
		table_cell(&t, "%s%s", state_of(o), o->answered ? ", answered" : "");
		table_text(&t, time_text(age, o->age_us));
		table_cell(&t, "%" PRIu32, o->chunks);
		table_text(&t, o->device ? o->device : "");
	}
	return table_end(&t, out);
}

bool cli_show_text(FILE *out, uint64_t boot, const Tyer__V1__StatusReply *s)
{
	char text[TEXT_MAX], up[32];
	double hits, chunks, rate;

	fprintf(out, "Tyer     %s, boot %016" PRIx64 ", up %s\n", clean(text, s->version), boot, time_text(up, s->uptime_us));
	if (s->restart)
		fprintf(out, "Restarts %" PRIu32 ", the last one because: %s; it took %s\n", s->restart->restarts,
			clean(text, s->restart->reason), time_text(up, s->restart->pause_us));
	show_arena(out, s->arena);
	if (hit_rate(s, &hits, &chunks, &rate))
		fprintf(out, "Hits     %.0f of %.0f chunks looked up (%.1f %%)\n", hits, chunks, 100 * rate);
	else
		fprintf(out, "Hits     %s\n", chunks < 0 ? "not counted by this service" : "no chunk looked up");
	fputc('\n', out);
	if (!show_devices(out, s) || !show_tiers(out, s))
		return false;
	fputc('\n', out);
	if (!s->n_clients)
		fprintf(out, "No clients.\n");
	else if (!show_clients(out, s))
		return false;
	if (s->n_operations) {
		fputc('\n', out);
		if (!show_operations(out, s))
			return false;
	}
	return !ferror(out);
}

/* ---- JSON ---------------------------------------------------------------------------------- */

/* Jansson refuses malformed UTF-8, protobuf-c lets it through. */
static json_t *string_of(const char *text)
{
	char safe[TEXT_MAX];

	return json_string(clean(safe, text));
}

/* 64-bit identities as text: a JSON number keeps 53 bits of them in most readers. */
static json_t *identity_of(uint64_t id)
{
	return json_sprintf("%016" PRIx64, id);
}

/* Jansson's integers are signed. */
static json_t *count_of(uint64_t value)
{
	return json_integer(value <= INT64_MAX ? (json_int_t)value : INT64_MAX);
}

static json_t *uuid_of(const ProtobufCBinaryData *uuid)
{
	char text[2 * 64 + 1] = "";

	for (size_t i = 0; i < uuid->len && i < 64; i++)
		snprintf(text + 2 * i, 3, "%02x", uuid->data[i]);
	return json_string(text);
}

static json_t *arena_of(const Tyer__V1__ArenaStatus *a)
{
	static const Tyer__V1__ArenaStatus none = TYER__V1__ARENA_STATUS__INIT;

	a = a ? a : &none;
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "size_bytes", count_of(a->size_bytes), "ready_bytes",
		count_of(a->ready_bytes), "used_bytes", count_of(a->used_bytes), "chunks", count_of(a->chunks),
		"leases", count_of(a->leases), "evictions", count_of(a->evictions), "failed_bytes",
		count_of(a->failed_bytes));
}

static json_t *device_of(const Tyer__V1__DeviceStatus *d)
{
	static const Tyer__V1__Device none = TYER__V1__DEVICE__INIT;
	const Tyer__V1__Device *device = d->device ? d->device : &none;

	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "name", string_of(device->name),
		"uuid", uuid_of(&device->uuid), "model", string_of(device->model), "state", string_of(d->state), "call",
		string_of(d->call), "call_age_us", count_of(d->call_age_us), "queued", count_of(d->queued), "in_flight",
		count_of(d->in_flight), "stored_bytes", count_of(d->stored_bytes), "retrieved_bytes",
		count_of(d->retrieved_bytes), "mappings", count_of(d->mappings), "note", string_of(d->note));
}

static json_t *client_of(const Tyer__V1__ClientStatus *c)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "name", string_of(c->name), "client",
		identity_of(c->client), "pid", count_of(c->pid), "uid", count_of(c->uid), "tenant", string_of(c->tenant),
		"model", string_of(c->model), "registrations", count_of(c->registrations), "sessions", count_of(c->sessions),
		"operations", count_of(c->operations), "leases", count_of(c->leases));
}

static json_t *operation_of(const Tyer__V1__Operation *o)
{
	return json_pack("{s:o, s:s, s:o, s:o, s:s, s:o, s:o, s:b, s:o}", "id", identity_of(o->id), "verb", ty_verb_name(o->verb),
		"client", identity_of(o->client), "session", identity_of(o->session), "state", state_of(o), "age_us",
		count_of(o->age_us), "chunks", count_of(o->chunks), "answered", o->answered, "device", string_of(o->device));
}

static json_t *restart_of(const Tyer__V1__RestartStatus *r)
{
	return r ? json_pack("{s:o, s:o, s:o}", "restarts", count_of(r->restarts), "reason", string_of(r->reason), "pause_us",
			   count_of(r->pause_us))
		 : json_null();
}

bool cli_show_json(FILE *out, uint64_t boot, const Tyer__V1__StatusReply *s)
{
	json_t *devices = json_array(), *clients = json_array(), *operations = json_array(), *counters = json_object(), *root;
	double hits, chunks, rate;
	bool good = devices && clients && operations && counters;

	for (size_t i = 0; good && i < s->n_devices; i++)
		good = !json_array_append_new(devices, device_of(s->devices[i]));
	for (size_t i = 0; good && i < s->n_clients; i++)
		good = !json_array_append_new(clients, client_of(s->clients[i]));
	for (size_t i = 0; good && i < s->n_operations; i++)
		good = !json_array_append_new(operations, operation_of(s->operations[i]));
	for (size_t i = 0; good && i < s->n_counters; i++) {
		json_t *value = json_real(s->counters[i]->value); /* null for infinity and no number: left out */
		char name[TEXT_MAX];

		if (value)
			good = !json_object_set_new(counters, clean(name, s->counters[i]->name), value);
	}
	/* json_pack takes every reference, also when it fails */
	root = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "version", string_of(s->version), "boot",
		identity_of(boot), "uptime_us", count_of(s->uptime_us), "restart", restart_of(s->restart), "arena", arena_of(s->arena), "devices", devices,
		"clients", clients, "operations", operations, "hit_rate", hit_rate(s, &hits, &chunks, &rate) ? json_real(rate) : json_null(), "counters",
		counters);
	good = good && root && !json_dumpf(root, out, JSON_INDENT(2)) && fputc('\n', out) != EOF && !ferror(out);
	json_decref(root);
	return good;
}
