/* SPDX-License-Identifier: Apache-2.0 */
#include "admin.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <tyer/result.h>

#include "base/text.h"

#define PAGE 1000 /* chunks of one request */

/* ---- requests ------------------------------------------------------------------------------------------ */

struct parts {
	Tyer__V1__Select select;
	ProtobufCBinaryData keys[CLI_VALUES_MAX];
	Tyer__V1__Setting settings[CLI_VALUES_MAX], *setting_at[CLI_VALUES_MAX];
	char names[CLI_VALUES_MAX][32];
};

static void fill_select(const struct cli_options *o, struct parts *p)
{
	tyer__v1__select__init(&p->select);
	for (size_t i = 0; i < o->key_count; i++)
		p->keys[i] = (ProtobufCBinaryData){.len = o->keys[i].length, .data = (uint8_t *)(uintptr_t)o->keys[i].bytes};
	p->select.n_keys = o->key_count;
	p->select.keys = p->keys;
	p->select.key_prefix =
		(ProtobufCBinaryData){.len = o->key_prefix.length, .data = (uint8_t *)(uintptr_t)o->key_prefix.bytes};
	p->select.place = (Tyer__V1__Place)o->place;
	p->select.n_tenants = o->tenants.count;
	p->select.tenants = (char **)(uintptr_t)o->tenants.at;
	p->select.n_models = o->models.count;
	p->select.models = (char **)(uintptr_t)o->models.at;
	p->select.n_revisions = o->revisions.count;
	p->select.revisions = (char **)(uintptr_t)o->revisions.at;
	p->select.n_dtypes = o->dtypes.count;
	p->select.dtypes = (char **)(uintptr_t)o->dtypes.at;
	p->select.n_quantizations = o->quantizations.count;
	p->select.quantizations = (char **)(uintptr_t)o->quantizations.at;
}

/* NAME=VALUE; a name that is too long is none of the service's anyway. */
static void fill_settings(const struct cli_options *o, struct parts *p)
{
	for (size_t i = 0; i < o->settings.count; i++) {
		char *equals = strchr(o->settings.at[i], '=');

		tyer__v1__setting__init(&p->settings[i]);
		snprintf(p->names[i], sizeof p->names[i], "%.*s", (int)(equals - o->settings.at[i]), o->settings.at[i]);
		p->settings[i].name = p->names[i];
		p->settings[i].value = equals + 1;
		p->setting_at[i] = &p->settings[i];
	}
}

uint8_t *cli_admin_request(const struct cli_options *o, const struct cli_page *page, size_t *length)
{
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT;
	Tyer__V1__Warm warm = TYER__V1__WARM__INIT;
	Tyer__V1__Pin pin = TYER__V1__PIN__INIT;
	Tyer__V1__Unpin unpin = TYER__V1__UNPIN__INIT;
	Tyer__V1__Delete delete = TYER__V1__DELETE__INIT;
	Tyer__V1__Clear clear = TYER__V1__CLEAR__INIT;
	Tyer__V1__List list = TYER__V1__LIST__INIT;
	Tyer__V1__Move move = TYER__V1__MOVE__INIT;
	Tyer__V1__Configure configure = TYER__V1__CONFIGURE__INIT;
	Tyer__V1__Events events = TYER__V1__EVENTS__INIT;
	struct parts parts;
	uint8_t *out;

	fill_select(o, &parts);
	fill_settings(o, &parts);
	warm.select = pin.select = unpin.select = delete.select = clear.select = list.select = move.select = &parts.select;
	list.cursor = events.cursor = page->cursor;
	list.below = (ProtobufCBinaryData){.len = page->below_length, .data = (uint8_t *)(uintptr_t)page->below};
	list.max = events.max = PAGE;
	move.tier = (uint32_t)o->tier;
	configure.n_settings = o->settings.count;
	configure.settings = parts.setting_at;
#define VERB(command, upper, member, message) \
	case command: \
		request.verb_case = TYER__V1__REQUEST__VERB_##upper; \
		request.member = &message; \
		break
	switch (o->command) {
	VERB(CLI_LIST, LIST, list, list);
	VERB(CLI_PIN, PIN, pin, pin);
	VERB(CLI_UNPIN, UNPIN, unpin, unpin);
	VERB(CLI_DELETE, DELETE, delete_, delete);
	VERB(CLI_CLEAR, CLEAR, clear, clear);
	VERB(CLI_WARM, WARM, warm, warm);
	VERB(CLI_MOVE, MOVE, move, move);
	VERB(CLI_CONFIGURE, CONFIGURE, configure, configure);
	default:
	VERB(CLI_EVENTS, EVENTS, events, events);
	}
#undef VERB
	*length = tyer__v1__request__get_packed_size(&request);
	out = malloc(*length);
	if (out)
		tyer__v1__request__pack(&request, out);
	return out;
}

/* ---- replies ---------------------------------------------------------------------------------------------- */

static void print_text(FILE *out, const char *text)
{
	char clean[1100];

	ty_escape(clean, sizeof clean, text ? text : "", text ? strlen(text) : 0, TY_ESCAPE_TEXT, NULL);
	fputs(clean, out);
}

static void print_key(FILE *out, const uint8_t *key, size_t length)
{
	for (size_t i = 0; i < length; i++)
		fprintf(out, "%02x", key[i]);
}

static void print_tiers(FILE *out, uint32_t tiers)
{
	for (unsigned i = 0; i < 8; i++)
		if (tiers >> i & 1)
			fprintf(out, " tier=%u", i);
}

/* KEY BYTES, then what is not as ever, one chunk a line. */
static void show_chunk(FILE *out, const Tyer__V1__ChunkInfo *c)
{
	print_key(out, c->key.data, c->key.len);
	fprintf(out, " bytes=%" PRIu64 " parts=%u/%u", c->bytes, c->parts - c->missing, c->parts);
	if (c->missing < c->parts)
		fprintf(out, " idle=%us leases=%" PRIu64, c->idle_s, c->leases);
	if (c->pinned)
		fputs(" pinned", out);
	if (c->done)
		fputs(" done", out);
	if (c->priority)
		fprintf(out, " priority=%u", c->priority);
	print_tiers(out, c->tiers);
	if (c->namespace_) {
		fputs(" tenant=\"", out);
		print_text(out, c->namespace_->tenant);
		fputs("\" model=\"", out);
		print_text(out, c->namespace_->model);
		fputc('"', out);
	}
	fputc('\n', out);
}

static void show_list(FILE *out, const Tyer__V1__ListReply *r, uint64_t *left)
{
	for (size_t i = 0; i < r->n_chunks && *left; i++, (*left)--)
		show_chunk(out, r->chunks[i]);
}

static void show_unsearched(FILE *notes, Tyer__V1__Unsearched *const *all, size_t count, bool *whole)
{
	for (size_t i = 0; i < count; i++) {
		fprintf(notes, "tyer: tier %u was not looked through to its end: %s: ", all[i]->tier, ty_code_name((enum ty_code)all[i]->code));
		print_text(notes, all[i]->error);
		fputc('\n', notes);
		*whole = false;
	}
}

static void show_counts(FILE *out, const Tyer__V1__ControlReply *r)
{
	fprintf(out, "%" PRIu64 " chunks, %" PRIu64 " bytes", r->chunks, r->bytes);
	if (r->below)
		fprintf(out, "; %" PRIu64 " in the tiers", r->below);
	if (r->in_use)
		fprintf(out, "; %" PRIu64 " are in use and go first when they are not", r->in_use);
	if (r->refused)
		fprintf(out, "; %" PRIu64 " refused", r->refused);
	if (r->failed)
		fprintf(out, "; %" PRIu64 " times a tier could not be told", r->failed);
	fputc('\n', out);
}

static bool show_events(FILE *out, const Tyer__V1__EventsReply *r, bool first, uint64_t *left)
{
	size_t count = r->keys.len / 32;

	if (r->keys.len % 32 || r->tiers.len != count)
		return false;
	if (first) {
		fputs("events at ", out);
		print_text(out, r->url);
		fprintf(out, ", the last one is number %" PRIu64 "\n", r->sequence);
	}
	for (size_t i = 0; i < count && *left; i++, (*left)--) {
		print_key(out, r->keys.data + 32 * i, 32);
		print_tiers(out, r->tiers.data[i]);
		fputc('\n', out);
	}
	return true;
}

static Tyer__V1__Reply__VerbCase verb_of(enum cli_command command)
{
	static const Tyer__V1__Reply__VerbCase verbs[CLI_COMMANDS] = {
		[CLI_LIST] = TYER__V1__REPLY__VERB_LIST,     [CLI_PIN] = TYER__V1__REPLY__VERB_PIN,     [CLI_UNPIN] = TYER__V1__REPLY__VERB_UNPIN,
		[CLI_DELETE] = TYER__V1__REPLY__VERB_DELETE, [CLI_CLEAR] = TYER__V1__REPLY__VERB_CLEAR, [CLI_WARM] = TYER__V1__REPLY__VERB_WARM,
		[CLI_MOVE] = TYER__V1__REPLY__VERB_MOVE,     [CLI_CONFIGURE] = TYER__V1__REPLY__VERB_CONFIGURE,
		[CLI_EVENTS] = TYER__V1__REPLY__VERB_EVENTS,
	};

	return verbs[command];
}

/* False: the service says more than it may. */
static bool take_place(struct cli_page *page, const Tyer__V1__ListReply *r)
{
	page->cursor = r->next;
	page->below_length = r->next ? 0 : r->below.len;
	if (page->below_length > sizeof page->below)
		return false;
	if (page->below_length)
		memcpy(page->below, r->below.data, page->below_length);
	return true;
}

bool cli_admin_show(FILE *out, FILE *notes, const struct cli_options *o, const Tyer__V1__Reply *reply, struct cli_page *page,
	uint64_t *left, bool *whole)
{
	bool first = page->cursor == 0;

	page->cursor = page->below_length = 0;
	if (reply->verb_case != verb_of(o->command))
		return false;
	switch (reply->verb_case) {
	case TYER__V1__REPLY__VERB_LIST:
		show_list(out, reply->list, left);
		show_unsearched(notes, reply->list->unsearched, reply->list->n_unsearched, whole);
		if (!take_place(page, reply->list))
			return false;
		break;
	case TYER__V1__REPLY__VERB_EVENTS:
		if (!show_events(out, reply->events, first, left))
			return false;
		page->cursor = reply->events->next;
		break;
	case TYER__V1__REPLY__VERB_CONFIGURE:
		for (size_t i = 0; i < reply->configure->n_settings; i++) {
			print_text(out, reply->configure->settings[i]->name);
			fputc('=', out);
			print_text(out, reply->configure->settings[i]->value);
			fputc('\n', out);
		}
		break;
	case TYER__V1__REPLY__VERB_WARM: /* these are one message, whatever its name */
	case TYER__V1__REPLY__VERB_PIN:
	case TYER__V1__REPLY__VERB_UNPIN:
	case TYER__V1__REPLY__VERB_DELETE:
	case TYER__V1__REPLY__VERB_CLEAR:
	case TYER__V1__REPLY__VERB_MOVE:
		show_counts(out, reply->pin);
		show_unsearched(notes, reply->pin->unsearched, reply->pin->n_unsearched, whole);
		break;
	default:
		return false;
	}
	return fflush(out) == 0;
}

static bool lies_behind(const struct cli_page *asked, const struct cli_page *next)
{
	if (next->cursor)
		return next->cursor > asked->cursor && !asked->below_length;
	return !next->below_length || next->below_length != asked->below_length || memcmp(next->below, asked->below, next->below_length) != 0;
}

enum ty_code cli_page_follows(struct cli_way *way, const struct cli_page *asked, const struct cli_page *next, uint64_t chunks,
	struct ty_error *err)
{
	way->chunks += chunks;
	way->brief = chunks < PAGE ? way->brief + 1 : 0;
	if (!next->cursor && !next->below_length)
		return TY_OK; /* that was all */
	if (!lies_behind(asked, next))
		return ty_fail(err, TY_PROTOCOL, "it does not come on: it says that the next page begins no later than this one");
	if (way->brief > CLI_BRIEF_MAX)
		return ty_fail(err, TY_LIMIT, "it does not come to an end: %u pages in a row of fewer than %d chunks, expected at most %d; is a tier so "
			"slow, a longer --timeout makes them fewer", way->brief, PAGE, CLI_BRIEF_MAX);
	if (way->chunks > CLI_LIST_MAX)
		return ty_fail(err, TY_LIMIT, "it does not come to an end: %" PRIu64 " chunks, expected at most %llu; --tenant or --key-prefix make "
			"them fewer", way->chunks, CLI_LIST_MAX);
	return TY_OK;
}
