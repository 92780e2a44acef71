/* SPDX-License-Identifier: Apache-2.0 */
#include "tier.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "service.h"

#define DEFAULT_OPS 64
#define DEFAULT_BYTES ((uint64_t)256 << 20)
#define DEFAULT_QUEUE 65536
#define MAX_QUEUE (1u << 24)
#define DEFAULT_PINS ((uint64_t)1 << 30)
#define DEFAULT_TIMEOUT_US 30000000
#define MAX_OPS 1024

static const char *const verb_names[] = {"put", "get", "exists", "delete", "list"};
static const char *const outcome_names[] = {"done", "missing", "corrupt", "full", "failed", "late", "stopped"};
static const char *const write_names[] = {"commit", "reuse", "evict", "never"};

const char *ty_tier_verb_name(enum ty_tier_verb verb)
{
	return verb_names[verb];
}

const char *ty_tier_outcome_name(enum ty_tier_outcome outcome)
{
	return outcome_names[outcome];
}

/* ---- the configuration ------------------------------------------------------------------------------ */

const char *ty_tier_write_name(enum ty_tier_write write)
{
	return write_names[write];
}

enum ty_code ty_tier_parse_size(const char *text, uint64_t *out, struct ty_error *err)
{
	enum ty_code code;

	*out = UINT64_MAX;
	if (strcmp(text, "none") == 0)
		return TY_OK;
	code = ty_parse_bytes(text, out, err);
	if (code == TY_OK && *out < TY_PIECE_BYTES)
		code = ty_fail(err, TY_INVALID, "found \"%.40s\", expected none, or %llu bytes or more", text,
			(unsigned long long)TY_PIECE_BYTES);
	return code;
}

enum ty_code ty_tier_parse_write(const char *value, enum ty_tier_write *out, struct ty_error *err)
{
	for (size_t i = 0; i < sizeof write_names / sizeof write_names[0]; i++)
		if (strcmp(value, write_names[i]) == 0) {
			*out = (enum ty_tier_write)i;
			return TY_OK;
		}
	return ty_fail(err, TY_INVALID, "found \"%.40s\", expected commit, reuse, evict or never", value);
}

/* A number in [min, max], by the parser of its kind. */
static enum ty_code parse_number(const char *name, const char *value, enum ty_code (*parse)(const char *, uint64_t *,
	struct ty_error *), uint64_t min, uint64_t max, uint64_t *out, struct ty_error *err)
{
	struct ty_error why = {.text = ""};
	enum ty_code code = parse(value, out, &why);

	if (code != TY_OK)
		return ty_fail(err, TY_INVALID, "--tier: %s: %.150s", name, why.text);
	if (*out < min || *out > max)
		return ty_fail(err, TY_INVALID, "--tier: %s: found \"%.40s\", expected %llu to %llu", name, value,
			(unsigned long long)min, (unsigned long long)max);
	return TY_OK;
}

static enum ty_code parse_count(const char *text, uint64_t *out, struct ty_error *err)
{
	return ty_parse_count(text, UINT64_MAX, out, err);
}

static enum ty_code add_tenant(struct ty_tier_config *c, const char *value, struct ty_error *err)
{
	struct ty_error why = {.text = ""};
	struct ty_identity any;

	if (c->tenant_count == TY_TIER_TENANTS)
		return ty_fail(err, TY_INVALID, "--tier: tenant: found more than %d", TY_TIER_TENANTS);
	/* one that no engine could say would match nothing, and nobody would know */
	if (ty_identity_set(&any, value, "any", NULL, "any", NULL, &why) != TY_OK)
		return ty_fail(err, TY_INVALID, "--tier: %.180s", why.text);
	strcpy(c->tenants[c->tenant_count++], any.tenant);
	return TY_OK;
}

static enum ty_code add_argument(struct ty_tier_config *c, const char *name, const char *value, struct ty_error *err)
{
	if (c->arg_count == TY_TIER_ARGS)
		return ty_fail(err, TY_INVALID, "--tier: found more than %d settings of the kind's own", TY_TIER_ARGS);
	if (strlen(name) >= sizeof c->args[0].name || strlen(value) >= sizeof c->args[0].value)
		return ty_fail(err, TY_INVALID, "--tier: %.40s: too long", name);
	strcpy(c->args[c->arg_count].name, name);
	strcpy(c->args[c->arg_count++].value, value);
	return TY_OK;
}

/* One name=value; the text is changed. */
static enum ty_code take_setting(struct ty_tier_config *c, char *text, struct ty_error *err)
{
	char *value = strchr(text, '=');
	uint64_t number = 0;
	enum ty_code code;

	if (!value || value == text || !value[1])
		return ty_fail(err, TY_INVALID, "--tier: found \"%.60s\", expected name=value", text);
	*value++ = '\0';
	if (strcmp(text, "size") == 0 || strcmp(text, "write") == 0) {
		struct ty_error why = {.text = ""};

		code = text[0] == 's' ? ty_tier_parse_size(value, &c->size, &why) : ty_tier_parse_write(value, &c->write, &why);
		return code == TY_OK ? TY_OK : ty_fail(err, code, "--tier: %s: %.150s", text, why.text);
	}
	if (strcmp(text, "scrub") == 0) {
		if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
			return ty_fail(err, TY_INVALID, "--tier: scrub: found \"%.40s\", expected yes or no", value);
		c->scrub = value[0] == 'y' ? TY_TIER_SCRUB_YES : TY_TIER_SCRUB_NO;
		return TY_OK;
	}
	if (strcmp(text, "tenant") == 0)
		return add_tenant(c, value, err);
	if (strcmp(text, "ops") == 0) {
		code = parse_number(text, value, parse_count, 1, MAX_OPS, &number, err);
		c->ops = (uint32_t)number;
		return code;
	}
	if (strcmp(text, "queue") == 0) {
		code = parse_number(text, value, parse_count, 1, MAX_QUEUE, &number, err);
		c->queue = (uint32_t)number;
		return code;
	}
	if (strcmp(text, "compress") == 0)
		return ty_tier_parse_packing(value, &c->packing, err);
	if (strcmp(text, "bytes") == 0)
		return parse_number(text, value, ty_parse_bytes, 1, UINT64_MAX, &c->bytes, err);
	if (strcmp(text, "pins") == 0)
		return parse_number(text, value, ty_parse_bytes, 1, UINT64_MAX, &c->pins, err);
	if (strcmp(text, "wait") == 0) {
		code = parse_number(text, value, ty_parse_time_us, 0, 3600000000, &number, err);
		c->wait = (int64_t)number * 1000;
		return code;
	}
	if (strcmp(text, "timeout") == 0) {
		code = parse_number(text, value, ty_parse_time_us, 1000, 3600000000, &number, err);
		c->timeout = (int64_t)number * 1000;
		return code;
	}
	return add_argument(c, text, value, err);
}

enum ty_code ty_tier_parse(const char *text, struct ty_tier_config *out, struct ty_error *err)
{
	char copy[TY_CONFIG_TIER_MAX], *save = NULL, *where;
	enum ty_code code = TY_OK;

	*out = (struct ty_tier_config){.size = UINT64_MAX, .ops = DEFAULT_OPS, .bytes = DEFAULT_BYTES, .queue = DEFAULT_QUEUE,
		.timeout = INT64_C(1000) * DEFAULT_TIMEOUT_US};
	if (strlen(text) >= sizeof copy)
		return ty_fail(err, TY_INVALID, "--tier: %zu bytes; expected at most %zu", strlen(text), sizeof copy - 1);
	strcpy(copy, text);
	where = strchr(copy, ':');
	if (!where || where == copy || (size_t)(where - copy) >= sizeof out->kind || !where[1] || where[1] == ',')
		return ty_fail(err, TY_INVALID, "--tier: found \"%.60s\", expected KIND:WHERE[,name=value]...", text);
	*where++ = '\0';
	strcpy(out->kind, copy);
	strcpy(out->where, strtok_r(where, ",", &save));
	for (char *setting; code == TY_OK && (setting = strtok_r(NULL, ",", &save));)
		code = take_setting(out, setting, err);
	return code;
}

/* ---- ios -------------------------------------------------------------------------------------------- */

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static enum ty_tier_lane lane_of(const struct ty_tier_io *io)
{
	if (io->aside || io->verb == TY_TIER_LIST)
		return TY_TIER_ASIDE;
	return io->verb == TY_TIER_PUT || io->verb == TY_TIER_DELETE ? TY_TIER_DOWN : TY_TIER_UP;
}

static uint64_t weight_of(const struct ty_tier_io *io)
{
	uint64_t bytes = 0;

	if (io->verb == TY_TIER_PUT || io->verb == TY_TIER_GET)
		for (uint32_t i = 0; i < io->parts; i++)
			bytes += io->part[i].data ? io->part[i].length : 0;
	return bytes;
}

static void give_credit(struct ty_tier *tier, enum ty_tier_lane lane, uint64_t bytes)
{
	count(&tier->stats.in_flight[lane], (uint64_t)-1);
	count(&tier->stats.in_flight_bytes[lane], (uint64_t)0 - bytes);
}

/* Take first, then look: two that submit at once may both be refused, never both be let in. What is larger than the limit
 * may fly alone. */
static bool take_credit(struct ty_tier *tier, enum ty_tier_lane lane, uint64_t bytes)
{
	struct ty_tier_stats *s = &tier->stats;
	uint64_t ops = atomic_fetch_add_explicit(&s->in_flight[lane], 1, memory_order_relaxed);
	uint64_t before = atomic_fetch_add_explicit(&s->in_flight_bytes[lane], bytes, memory_order_relaxed);

	if (ops < tier->config.ops && (before == 0 || before + bytes <= tier->config.bytes))
		return true;
	give_credit(tier, lane, bytes);
	return false;
}

bool ty_tier_submit(struct ty_tier *tier, struct ty_tier_io *io)
{
	struct ty_tier_stats *s = &tier->stats;
	enum ty_tier_lane lane = lane_of(io);

	assert(io->home && (io->verb == TY_TIER_EXISTS ? io->key_count <= TY_TIER_QUERY
			    : io->verb == TY_TIER_LIST ? io->page && tier->capabilities & TY_TIER_LISTS
						       : io->key_count == 1));
	/* acquire: pairs with the tier's release */
	if (atomic_load_explicit(&s->state, memory_order_acquire) != TY_TIER_SERVING)
		return false;
	io->bytes = weight_of(io);
	if (!take_credit(tier, lane, io->bytes)) {
		count(&s->refused[io->verb], 1);
		return false;
	}
	io->outcome = TY_TIER_DONE;
	io->error[0] = '\0';
	io->found = 0;
	io->known = false;
	io->takes = 0;
	io->read = 0;
	io->next = NULL;
	io->packed = NULL;
	io->submitted = ty_now();
	if (ty_send(tier->actor, &io->msg, TY_TIER_IO) != TY_OK) {
		give_credit(tier, lane, io->bytes);
		return false;
	}
	count(&s->submitted[io->verb], 1);
	return true;
}

/* That the chunk is in the tier, or not any more. The tier's actor alone says so, as things happen there, so what is said last
 * holds. The arena's own note of it goes first: who has been told finds it so. */
static void happened(struct ty_tier *tier, const struct ty_key *key, Tyer__V1__Event__Kind kind)
{
	struct ty_chunk *chunk = ty_index_pin(tier->service->index, key);
	uint16_t bit = (uint16_t)(1u << tier->index);

	if (chunk) { /* relaxed: a hint; whoever follows events is ordered by their messages */
		if (kind == TYER__V1__EVENT__KIND__MOVED)
			atomic_fetch_or_explicit(&chunk->below, bit, memory_order_relaxed);
		else
			atomic_fetch_and_explicit(&chunk->below, (uint16_t)~bit, memory_order_relaxed);
		ty_chunk_unpin(chunk);
	}
	ty_events_add(tier->service, &tier->events, kind, key, tier->index);
}

void ty_tier_gone(struct ty_tier *tier, const struct ty_key *key, Tyer__V1__Event__Kind kind)
{
	happened(tier, key, kind);
}

void ty_tier_tell(struct ty_tier *tier)
{
	ty_events_flush(tier->service, &tier->events);
}

void ty_tier_complete(struct ty_tier *tier, struct ty_tier_io *io, enum ty_tier_outcome outcome, const char *fmt, ...)
{
	struct ty_tier_stats *s = &tier->stats;
	va_list args;

	io->outcome = outcome;
	if (fmt) {
		va_start(args, fmt);
		vsnprintf(io->error, sizeof io->error, fmt, args);
		va_end(args);
	}
	give_credit(tier, lane_of(io), io->bytes);
	count(&s->outcomes[io->verb][outcome], 1);
	count(&s->busy_ns[io->verb], (uint64_t)(ty_now() - io->submitted));
	if (outcome == TY_TIER_DONE && (io->verb == TY_TIER_PUT || io->verb == TY_TIER_DELETE)) {
		happened(tier, io->keys, io->verb == TY_TIER_PUT ? TYER__V1__EVENT__KIND__MOVED : TYER__V1__EVENT__KIND__DELETED);
		ty_tier_tell(tier);
	}
	if (outcome == TY_TIER_DONE && io->verb == TY_TIER_PUT)
		count(&s->put_bytes, io->bytes);
	if (outcome == TY_TIER_DONE && io->verb == TY_TIER_GET)
		count(&s->get_bytes, io->bytes);
	ty_tier_packed_free(io);
	enum ty_code sent = ty_send(io->home, &io->msg, io->home_type);
	assert(sent == TY_OK); /* prefetch and writeback outlive their ios */
	(void)sent;
}

bool ty_tier_is_scrubbed(const struct ty_tier *tier)
{
	if (!(tier->capabilities & TY_TIER_LISTS) || tier->config.scrub == TY_TIER_SCRUB_NO)
		return false;
	return tier->config.scrub == TY_TIER_SCRUB_YES || !(tier->capabilities & TY_TIER_SHARED);
}

bool ty_tier_takes(const struct ty_tier *tier, uint16_t space)
{
	const struct ty_identity *id;

	if (!tier->config.tenant_count)
		return true;
	id = ty_spaces_identity(&tier->service->spaces, space);
	for (uint32_t i = 0; id && i < tier->config.tenant_count; i++)
		if (strcmp(id->tenant, tier->config.tenants[i]) == 0)
			return true;
	return false;
}

/* ---- all of them ------------------------------------------------------------------------------------ */

static enum ty_code find_kind(const char *kind, const struct ty_tier_class **out, struct ty_error *err)
{
	char known[80] = "";
	size_t length = 0;

	for (size_t i = 0; ty_tier_kinds[i]; i++) {
		if (strcmp(ty_tier_kinds[i]->kind, kind) == 0) {
			*out = ty_tier_kinds[i];
			return TY_OK;
		}
		if (length < sizeof known)
			length += (size_t)snprintf(known + length, sizeof known - length, "%s%s", i ? ", " : "", ty_tier_kinds[i]->kind);
	}
	return ty_fail(err, TY_INVALID, "--tier: found kind \"%s\", expected one of %s", kind, known);
}

/* However they hang, all tiers together leave a quarter of the arena to the stores. */
static void limit_to_arena(struct ty_tier_config *tier, const struct ty_config *config)
{
	uint64_t quarter = config->l1_size / 4 / config->tier_count;

	if (tier->bytes > quarter)
		tier->bytes = quarter;
	if (!tier->pins)
		tier->pins = DEFAULT_PINS < quarter / 2 ? DEFAULT_PINS : quarter / 2;
	if (tier->pins > quarter)
		tier->pins = quarter;
}

static enum ty_code open_tier(struct ty_service *service, const char *text, struct ty_error *err)
{
	struct ty_tier *tier = calloc(1, sizeof *tier);
	enum ty_code code;

	if (!tier)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a tier");
	tier->service = service;
	tier->index = service->tier_count;
	code = ty_tier_parse(text, &tier->config, err);
	if (code == TY_OK)
		code = find_kind(tier->config.kind, &tier->cls, err);
	if (code == TY_OK)
		limit_to_arena(&tier->config, service->config);
	/* relaxed: nobody runs yet */
	atomic_store_explicit(&tier->size, tier->config.size, memory_order_relaxed);
	if (code == TY_OK)
		code = tier->cls->open(tier, err);
	if (code != TY_OK) {
		free(tier);
		return code;
	}
	service->tiers[service->tier_count++] = tier;
	if (tier->stats.note[0])
		ty_log(tier->stats.note_warns ? TY_LOG_WARN : TY_LOG_INFO, "tier", "%s:%s: %s", tier->config.kind, tier->config.where,
			tier->stats.note);
	return TY_OK;
}

enum ty_code ty_tiers_open(struct ty_service *service, struct ty_error *err)
{
	enum ty_code code = TY_OK;

	for (uint32_t i = 0; i < service->config->tier_count && code == TY_OK; i++)
		code = open_tier(service, service->config->tier[i], err);
	return code;
}

void ty_tiers_close(struct ty_service *service)
{
	for (uint32_t i = service->tier_count; i-- > 0;) {
		service->tiers[i]->cls->close(service->tiers[i]);
		free(service->tiers[i]->events.list); /* there was nobody left to tell */
		free(service->tiers[i]);
	}
	service->tier_count = 0;
}
