/* SPDX-License-Identifier: Apache-2.0
 *
 * CONFIGURE: what may change while the service runs. Everything is checked before anything is changed.
 */
#include "eviction_control.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

struct settings {
	const struct ty_policy_class *policy;
	struct ty_tenant_quota quotas[TY_TENANT_QUOTAS_MAX];
	uint32_t quota_count, keep_percent;
	uint64_t limit, ahead;
	bool quotas_given, arena_given; /* any of the above */
	struct {
		uint64_t size;
		enum ty_tier_write write;
		const struct ty_policy_class *policy; /* null: it has none */
	} tiers[TY_MAX_TIERS];
};

static uint64_t arena_size(const struct eviction *e)
{
	return e->service->arena.pieces * TY_PIECE_BYTES;
}

/* Up to the arena's size: its address space, and what is known of its slots, are of that size from the start. */
static enum ty_code take_size(const struct eviction *e, const char *value, uint64_t *out, struct ty_error *err)
{
	enum ty_code code = ty_parse_bytes(value, out, err);
	char min[32], max[32];

	if (code == TY_OK && (*out < TY_PIECE_BYTES || *out > arena_size(e))) {
		ty_format_bytes(min, sizeof min, TY_PIECE_BYTES);
		ty_format_bytes(max, sizeof max, arena_size(e));
		code = ty_fail(err, TY_INVALID, "found \"%.40s\", expected %s to %s, the --l1-size that the service was started with",
			value, min, max);
	}
	return code;
}

static enum ty_code take_quota(struct settings *s, const char *value, struct ty_error *err)
{
	if (!s->quotas_given)
		s->quota_count = 0; /* they replace those before */
	s->quotas_given = true;
	if (!*value)
		return TY_OK;
	if (s->quota_count == TY_TENANT_QUOTAS_MAX)
		return ty_fail(err, TY_INVALID, "found more than %d", TY_TENANT_QUOTAS_MAX);
	return ty_quota_parse(value, &s->quotas[s->quota_count++], err);
}

static enum ty_code take_policy(const char *value, const struct ty_policy_class **out, struct ty_error *err)
{
	*out = ty_policy_find(value);
	return *out ? TY_OK : ty_fail(err, TY_INVALID, "found \"%.40s\", expected arc, lru or s3-fifo", value);
}

static enum ty_code take_tier_policy(const struct ty_tier *tier, const char *value, const struct ty_policy_class **out,
	struct ty_error *err)
{
	if (!*out)
		return ty_fail(err, TY_UNSUPPORTED, "a tier of kind %s has no policy of its own", tier->config.kind);
	return take_policy(value, out, err);
}

/* "tier.N.size", "tier.N.write", "tier.N.policy". */
static enum ty_code take_tier(const struct eviction *e, struct settings *s, const char *name, const char *value,
	struct ty_error *err)
{
	uint32_t count = e->service->tier_count, tier = (uint32_t)(name[0] - '0');

	if (tier >= count || name[1] != '.')
		return ty_fail(err, TY_INVALID, "there is no such tier; this service has %u", count);
	if (!strcmp(name + 2, "write"))
		return ty_tier_parse_write(value, &s->tiers[tier].write, err);
	if (!strcmp(name + 2, "policy"))
		return take_tier_policy(e->service->tiers[tier], value, &s->tiers[tier].policy, err);
	if (strcmp(name + 2, "size") != 0)
		return ty_fail(err, TY_INVALID, "is none that can be changed; expected size, write or policy of tier.%u", tier);
	if (!e->service->tiers[tier]->cls->resized)
		return ty_fail(err, TY_UNSUPPORTED, "a tier of kind %s has no size of its own", e->service->tiers[tier]->config.kind);
	return ty_tier_parse_size(value, &s->tiers[tier].size, err);
}

static enum ty_code take(const struct eviction *e, struct settings *s, const char *name, const char *value,
	struct ty_error *err)
{
	uint64_t number;
	enum ty_code code;

	if (!strncmp(name, "tier.", 5))
		return take_tier(e, s, name + 5, value, err);
	s->arena_given = true;
	if (!strcmp(name, "policy"))
		return take_policy(value, &s->policy, err);
	if (!strcmp(name, "quota"))
		return take_quota(s, value, err);
	if (!strcmp(name, "l1-size"))
		return take_size(e, value, &s->limit, err);
	if (!strcmp(name, "l1-ahead"))
		return take_size(e, value, &s->ahead, err);
	if (!strcmp(name, "keep-percent")) {
		code = ty_parse_count(value, 100, &number, err);
		if (code == TY_OK)
			s->keep_percent = (uint32_t)number;
		return code;
	}
	return ty_fail(err, TY_INVALID, "is none that can be changed; expected policy, quota, keep-percent, l1-size,"
		" l1-ahead, tier.N.size, tier.N.write or tier.N.policy");
}

static enum ty_code read_settings(const struct eviction *e, const Tyer__V1__Configure *q, struct settings *s,
	struct ty_error *err)
{
	enum ty_code code = TY_OK;

	for (size_t i = 0; i < q->n_settings && code == TY_OK; i++) {
		const Tyer__V1__Setting *setting = q->settings[i];
		struct ty_error why;

		if (!setting->name || !setting->value)
			return ty_fail(err, TY_INVALID, "settings[%zu]: no name or no value", i);
		code = take(e, s, setting->name, setting->value, &why);
		if (code != TY_OK)
			code = ty_fail(err, code, "settings[%zu], %.40s: %s", i, setting->name, why.text);
	}
	if (code == TY_OK)
		code = ty_quotas_check(s->quotas, s->quota_count, s->limit, err);
	return code;
}

/* ---- applying --------------------------------------------------------------------------------------------- */

static uint32_t visit(void *user, struct ty_entry *entry, uint64_t *id, uint64_t *bytes)
{
	struct eviction *e = user;
	struct ty_chunk *chunk = ty_container_of(entry, struct ty_chunk, entry);

	memcpy(id, chunk->key.bytes, sizeof *id);
	*bytes = eviction_chunk_bytes(e, chunk);
	return eviction_owner(e, chunk->space).domain;
}

struct ty_order *eviction_new_order(const struct ty_policy_class *cls, const struct ty_tenant_quota *quotas, uint32_t count,
	uint64_t size)
{
	struct ty_quota limits[TY_TENANT_QUOTAS_MAX];

	for (uint32_t i = 0; i < count; i++)
		limits[i] = (struct ty_quota){.soft = quotas[i].soft, .hard = quotas[i].hard};
	return ty_order_create(cls, limits, count, size);
}

/* Another policy forgets what the one before learnt; all chunks move to it, the next to go first. */
static enum ty_code apply(struct eviction *e, const struct settings *s, struct ty_error *err)
{
	struct ty_order *order = eviction_new_order(s->policy, s->quotas, s->quota_count, s->limit);

	if (!order)
		return ty_fail(err, TY_NO_MEMORY, "no memory for another order");
	memcpy(e->quotas, s->quotas, sizeof e->quotas);
	e->quota_count = s->quota_count;
	memset(e->domains, 0, sizeof e->domains); /* to be looked up again */
	ty_order_move_all(e->order, order, visit, e);
	ty_order_destroy(e->order);
	e->order = order;
	e->limit = s->limit;
	e->ahead = s->ahead;
	e->keep_percent = s->keep_percent;
	e->kept_max = s->limit / 100 * s->keep_percent + s->limit % 100 * s->keep_percent / 100;
	return TY_OK;
}

/* A tier that may hold less than it does evicts down to it, some files at a time. */
static void apply_tiers(struct eviction *e, const struct settings *s)
{
	for (uint32_t i = 0; i < e->service->tier_count; i++) {
		struct ty_tier *tier = e->service->tiers[i];

		if (tier->config.write != s->tiers[i].write) {
			tier->config.write = s->tiers[i].write;
			eviction_offers_begin(e, i);
		}
		if (atomic_exchange_explicit(&tier->size, s->tiers[i].size, memory_order_relaxed) != s->tiers[i].size ||
			atomic_load_explicit(&tier->policy, memory_order_relaxed) != s->tiers[i].policy) {
			atomic_store_explicit(&tier->policy, s->tiers[i].policy, memory_order_relaxed);
			tier->cls->resized(tier);
		}
	}
}

/* ---- the reply ---------------------------------------------------------------------------------------------- */

static bool add_setting(Tyer__V1__ConfigureReply *reply, const char *name, const char *value)
{
	Tyer__V1__Setting *setting = (Tyer__V1__Setting *)eviction_new_message(&tyer__v1__setting__descriptor);

	if (!setting)
		return false;
	setting->name = strdup(name);
	setting->value = strdup(value);
	reply->settings[reply->n_settings++] = setting;
	return setting->name && setting->value;
}

static bool add_tier(Tyer__V1__ConfigureReply *reply, const struct ty_tier *tier)
{
	uint64_t size = atomic_load_explicit(&tier->size, memory_order_relaxed);
	const struct ty_policy_class *policy = atomic_load_explicit(&tier->policy, memory_order_relaxed);
	char name[24], text[TY_QUOTA_TEXT];

	snprintf(text, sizeof text, "none");
	if (size != UINT64_MAX)
		ty_format_bytes(text, sizeof text, size);
	snprintf(name, sizeof name, "tier.%u.size", tier->index);
	if (tier->cls->resized && !add_setting(reply, name, text))
		return false;
	snprintf(name, sizeof name, "tier.%u.policy", tier->index);
	if (policy && !add_setting(reply, name, policy->name))
		return false;
	snprintf(name, sizeof name, "tier.%u.write", tier->index);
	return add_setting(reply, name, ty_tier_write_name(tier->config.write));
}

static ProtobufCMessage *tell(const struct eviction *e)
{
	Tyer__V1__ConfigureReply *reply = (Tyer__V1__ConfigureReply *)eviction_new_message(&tyer__v1__configure_reply__descriptor);
	char text[TY_QUOTA_TEXT];
	bool all;

	if (!reply)
		return NULL;
	reply->settings = malloc((4 + TY_TENANT_QUOTAS_MAX + 3 * TY_MAX_TIERS) * sizeof *reply->settings);
	all = reply->settings && add_setting(reply, "policy", ty_order_policy(e->order));
	for (uint32_t i = 0; i < e->quota_count && all; i++) {
		ty_quota_format(text, &e->quotas[i]);
		all = add_setting(reply, "quota", text);
	}
	snprintf(text, sizeof text, "%u", e->keep_percent);
	all = all && add_setting(reply, "keep-percent", text);
	ty_format_bytes(text, sizeof text, e->limit);
	all = all && add_setting(reply, "l1-size", text);
	ty_format_bytes(text, sizeof text, e->ahead);
	all = all && add_setting(reply, "l1-ahead", text);
	for (uint32_t i = 0; i < e->service->tier_count && all; i++)
		all = add_tier(reply, e->service->tiers[i]);
	if (all)
		return (ProtobufCMessage *)reply;
	protobuf_c_message_free_unpacked((ProtobufCMessage *)reply, NULL);
	return NULL;
}

void eviction_configure(struct eviction *e, struct ty_exchange *x)
{
	const Tyer__V1__Configure *q = x->request->configure;
	struct settings s = {
		.policy = ty_policy_find(ty_order_policy(e->order)),
		.quota_count = e->quota_count,
		.keep_percent = e->keep_percent,
		.limit = e->limit,
		.ahead = e->ahead,
	};
	struct ty_error err;
	enum ty_code code;

	memcpy(s.quotas, e->quotas, sizeof s.quotas);
	for (uint32_t i = 0; i < e->service->tier_count; i++) {
		s.tiers[i].size = atomic_load_explicit(&e->service->tiers[i]->size, memory_order_relaxed);
		s.tiers[i].write = e->service->tiers[i]->config.write;
		s.tiers[i].policy = atomic_load_explicit(&e->service->tiers[i]->policy, memory_order_relaxed);
	}
	code = read_settings(e, q, &s, &err);
	if (code == TY_OK && s.arena_given)
		code = apply(e, &s, &err);
	if (code != TY_OK) {
		ty_exchange_refuse(x, code, "%s", err.text);
		return;
	}
	apply_tiers(e, &s);
	if (q->n_settings)
		ty_log(TY_LOG_INFO, "eviction", "configured anew: policy %s, %u quotas, %u %% for pins, %llu bytes, %llu ahead",
			s.policy->name, s.quota_count, s.keep_percent, (unsigned long long)s.limit,
			(unsigned long long)s.ahead);
	x->reply.message = tell(e);
	if (x->reply.message)
		ty_exchange_answer(x);
	else
		ty_exchange_refuse(x, TY_NO_MEMORY, "no memory for the reply");
}
