/* SPDX-License-Identifier: Apache-2.0 */
#include "order.h"

#include <assert.h>
#include <stdlib.h>

#include <tyer/actor.h>

struct domain {
	struct ty_policy *policy;
	struct ty_link bands[TY_BANDS]; /* least recently used each; NORMAL's is empty: that is the policy's */
	struct ty_quota quota;
	uint64_t bytes;
};

struct ty_order {
	const struct ty_policy_class *cls;
	struct ty_link out, parked, aside; /* of all domains */
	uint64_t bytes;                    /* likewise */
	uint32_t count;
	struct domain domains[];
};

static struct ty_entry *entry_of(struct ty_link *link)
{
	return link ? ty_container_of(link, struct ty_entry, link) : NULL;
}

uint32_t ty_order_time(int64_t ns)
{
	return (uint32_t)(ns / TY_ORDER_UNIT_NS);
}

static uint64_t head_start_s(unsigned band)
{
	return band < TY_BAND_RAISED ? 0 : (uint64_t)TY_HEAD_START_S << (band - TY_BAND_RAISED);
}

uint8_t ty_order_band_for(uint64_t seconds)
{
	unsigned band = TY_BAND_RAISED;

	while (band < TY_BAND_KEPT - 1 && head_start_s(band) < seconds)
		band++;
	return (uint8_t)band;
}

struct ty_order *ty_order_create(const struct ty_policy_class *cls, const struct ty_quota *quotas, uint32_t count,
	uint64_t size)
{
	struct ty_order *order = calloc(1, sizeof *order + (count + 1) * sizeof order->domains[0]);

	assert(count <= TY_QUOTAS_MAX);
	if (!order)
		return NULL;
	order->cls = cls;
	order->count = count + 1;
	ty_ring_init(&order->out);
	ty_ring_init(&order->parked);
	ty_ring_init(&order->aside);
	for (uint32_t i = 0; i < order->count; i++) {
		struct domain *d = &order->domains[i];

		for (unsigned band = 0; band < TY_BANDS; band++)
			ty_ring_init(&d->bands[band]);
		if (i) {
			d->quota = quotas[i - 1];
			assert(d->quota.soft <= size);
			size -= d->quota.soft;
		}
		d->policy = cls->create();
		if (!d->policy) {
			ty_order_destroy(order);
			return NULL;
		}
	}
	order->domains[0].quota.soft = size;
	return order;
}

void ty_order_destroy(struct ty_order *order)
{
	if (!order)
		return;
	for (uint32_t i = 0; i < order->count; i++)
		if (order->domains[i].policy)
			order->cls->destroy(order->domains[i].policy);
	free(order);
}

/* ---- into rings and out of them ---------------------------------------------------------------------- */

static void take(struct ty_order *order, struct ty_entry *entry)
{
	if (entry->place == TY_PLACE_IN && entry->band == TY_BAND_NORMAL)
		order->cls->leave(order->domains[entry->domain].policy, entry);
	else
		ty_ring_take_out(&entry->link);
}

static void enter(struct ty_order *order, struct domain *d, struct ty_entry *entry, enum ty_reentry how, uint64_t id)
{
	order->cls->enter(d->policy, entry, id);
	if (how == TY_REENTER_OLD) {
		order->cls->leave(d->policy, entry);
		order->cls->reenter(d->policy, entry, how);
	}
}

static void put(struct ty_order *order, struct ty_entry *entry, enum ty_reentry how, uint64_t id)
{
	struct domain *d = &order->domains[entry->domain];

	entry->place = TY_PLACE_IN;
	if (entry->band != TY_BAND_NORMAL && how == TY_REENTER_OLD)
		ty_ring_add_oldest(&d->bands[entry->band], &entry->link);
	else if (entry->band != TY_BAND_NORMAL)
		ty_ring_add_youngest(&d->bands[entry->band], &entry->link);
	else if (entry->list)
		order->cls->reenter(d->policy, entry, how);
	else
		enter(order, d, entry, how, id);
}

void ty_order_add(struct ty_order *order, struct ty_entry *entry, uint32_t domain)
{
	assert(entry->place == TY_PLACE_NONE && domain < order->count);
	entry->place = TY_PLACE_OUT;
	entry->band = TY_BAND_NORMAL;
	entry->domain = (uint8_t)domain;
	ty_ring_add_youngest(&order->out, &entry->link);
}

void ty_order_take_out(struct ty_order *order, struct ty_entry *entry)
{
	take(order, entry);
	entry->place = TY_PLACE_OUT;
	ty_ring_add_youngest(&order->out, &entry->link);
}

/* The band that the entry belongs to now. What another conversation uses too is not done when one of them is. */
static uint8_t judge(struct ty_entry *entry, const struct ty_use *use, bool used)
{
	if (entry->owner == TY_DOOMED)
		return TY_BAND_DONE;
	if (use->owner != TY_NO_OWNER && entry->owner != use->owner)
		entry->owner = entry->owner == TY_NO_OWNER ? use->owner : TY_MANY_OWNERS;
	if (entry->band == TY_BAND_KEPT)
		return TY_BAND_KEPT;
	if (use->band == TY_BAND_DONE)
		return entry->owner == TY_MANY_OWNERS ? entry->band : TY_BAND_DONE;
	if (use->band != TY_BAND_AS_IT_IS && use->band > entry->band)
		return use->band;
	return used && entry->band == TY_BAND_DONE ? TY_BAND_NORMAL : entry->band;
}

void ty_order_put(struct ty_order *order, struct ty_entry *entry, enum ty_reentry how, const struct ty_use *use)
{
	assert(entry->place == TY_PLACE_OUT);
	take(order, entry);
	entry->band = judge(entry, use, how == TY_REENTER_USED);
	if (how != TY_REENTER_OLD)
		entry->used = use->now;
	put(order, entry, how, use->id);
}

void ty_order_used(struct ty_order *order, struct ty_entry *entry, const struct ty_use *use)
{
	uint8_t band = judge(entry, use, true);

	entry->used = use->now;
	if (entry->place == TY_PLACE_OUT) {
		entry->band = band;
	} else if (entry->place == TY_PLACE_IN && band == TY_BAND_NORMAL && entry->band == TY_BAND_NORMAL) {
		order->cls->touch(order->domains[entry->domain].policy, entry);
	} else {
		take(order, entry);
		entry->band = band;
		put(order, entry, TY_REENTER_USED, use->id);
	}
}

static void change_band(struct ty_order *order, struct ty_entry *entry, uint8_t band, uint64_t id)
{
	if (entry->place == TY_PLACE_IN && band != entry->band) {
		take(order, entry);
		entry->band = band;
		put(order, entry, TY_REENTER_YOUNG, id);
	} else {
		entry->band = band;
	}
}

void ty_order_hint(struct ty_order *order, struct ty_entry *entry, const struct ty_use *use)
{
	change_band(order, entry, judge(entry, use, false), use->id);
}

void ty_order_set_domain(struct ty_order *order, struct ty_entry *entry, uint32_t domain, uint64_t id)
{
	bool in = entry->place == TY_PLACE_IN;

	assert(domain < order->count);
	if (in)
		take(order, entry);
	entry->domain = (uint8_t)domain;
	if (in)
		put(order, entry, TY_REENTER_YOUNG, id);
}

void ty_order_keep(struct ty_order *order, struct ty_entry *entry, uint64_t id, uint32_t now, bool keep)
{
	if (keep != (entry->band == TY_BAND_KEPT)) {
		entry->used = now;
		change_band(order, entry, keep ? TY_BAND_KEPT : TY_BAND_NORMAL, id);
	}
}

void ty_order_park(struct ty_order *order, struct ty_entry *entry)
{
	take(order, entry);
	entry->place = TY_PLACE_PARKED;
	ty_ring_add_youngest(&order->parked, &entry->link);
}

void ty_order_gone(struct ty_order *order, struct ty_entry *entry, uint64_t id, bool evicted)
{
	take(order, entry);
	entry->place = TY_PLACE_NONE;
	if (evicted && entry->band == TY_BAND_NORMAL && entry->list)
		order->cls->evicted(order->domains[entry->domain].policy, entry, id);
}

struct ty_entry *ty_order_parked(struct ty_order *order)
{
	return entry_of(ty_ring_oldest(&order->parked));
}

/* ---- victims ----------------------------------------------------------------------------------------- */

/* The one that was used longest ago, head starts counted in. */
static struct ty_entry *victim_of(struct ty_order *order, struct domain *d)
{
	struct ty_entry *best = entry_of(ty_ring_oldest(&d->bands[TY_BAND_DONE]));
	uint64_t best_time;

	if (best)
		return best;
	best = order->cls->victim(d->policy);
	best_time = best ? best->used : UINT64_MAX;
	for (unsigned band = TY_BAND_RAISED; band < TY_BAND_KEPT; band++) {
		struct ty_entry *entry = entry_of(ty_ring_oldest(&d->bands[band]));
		uint64_t time;

		if (!entry)
			continue;
		time = entry->used + head_start_s(band) * (UINT64_C(1000000000) / TY_ORDER_UNIT_NS);
		if (time < best_time) {
			best = entry;
			best_time = time;
		}
	}
	return best;
}

/* By how much it is above its soft quota, below 0 if it is not. */
static int64_t excess(const struct domain *d)
{
	return (int64_t)d->bytes - (int64_t)d->quota.soft;
}

struct ty_entry *ty_order_victim(struct ty_order *order, uint32_t domain)
{
	struct ty_entry *best = NULL;
	int64_t most = 0;

	if (domain != TY_ANY_DOMAIN)
		return victim_of(order, &order->domains[domain]);
	for (uint32_t i = 0; i < order->count; i++) {
		struct domain *d = &order->domains[i];
		struct ty_entry *entry;

		if (best && excess(d) <= most)
			continue;
		entry = victim_of(order, d);
		if (entry) {
			best = entry;
			most = excess(d);
		}
	}
	return best;
}

void ty_order_set_aside(struct ty_order *order, struct ty_entry *entry)
{
	assert(entry->place == TY_PLACE_IN);
	take(order, entry);
	entry->place = TY_PLACE_ASIDE;
	ty_ring_add_youngest(&order->aside, &entry->link);
}

void ty_order_end_search(struct ty_order *order)
{
	struct ty_entry *entry;

	while ((entry = entry_of(ty_ring_youngest(&order->aside)))) {
		take(order, entry);
		put(order, entry, TY_REENTER_OLD, 0);
	}
}

/* ---- quotas ------------------------------------------------------------------------------------------ */

void ty_order_charge(struct ty_order *order, uint32_t domain, uint64_t add, uint64_t subtract)
{
	struct domain *d = &order->domains[domain];

	assert(d->bytes + add >= subtract);
	d->bytes = d->bytes + add - subtract;
	order->bytes = order->bytes + add - subtract;
}

uint64_t ty_order_charged_all(const struct ty_order *order)
{
	return order->bytes;
}

uint64_t ty_order_charged(const struct ty_order *order, uint32_t domain)
{
	return order->domains[domain].bytes;
}

bool ty_order_exceeds(const struct ty_order *order, uint32_t domain, uint64_t bytes)
{
	const struct domain *d = &order->domains[domain];

	return d->quota.hard && (bytes > d->quota.hard || d->bytes > d->quota.hard - bytes);
}

/* ---- change ------------------------------------------------------------------------------------------ */

struct move {
	struct ty_order *to;
	uint32_t (*visit)(void *user, struct ty_entry *entry, uint64_t *id, uint64_t *bytes);
	void *user;
};

/* It was taken out of everything. */
static void settle(const struct move *m, struct ty_entry *entry, uint8_t place)
{
	uint64_t id, bytes;

	entry->domain = (uint8_t)m->visit(m->user, entry, &id, &bytes);
	assert(entry->domain < m->to->count);
	ty_order_charge(m->to, entry->domain, bytes, 0);
	entry->list = 0; /* of another policy's making */
	entry->place = place;
	if (place == TY_PLACE_IN)
		put(m->to, entry, TY_REENTER_YOUNG, id);
	else
		ty_ring_add_youngest(place == TY_PLACE_OUT ? &m->to->out : &m->to->parked, &entry->link);
}

static void move_ring(const struct move *m, struct ty_link *ring, uint8_t place)
{
	struct ty_entry *entry;

	while ((entry = entry_of(ty_ring_oldest(ring)))) {
		ty_ring_take_out(&entry->link);
		settle(m, entry, place);
	}
}

void ty_order_move_all(struct ty_order *from, struct ty_order *to,
	uint32_t (*visit)(void *user, struct ty_entry *entry, uint64_t *id, uint64_t *bytes), void *user)
{
	struct move m = {to, visit, user};

	ty_order_end_search(from);
	move_ring(&m, &from->out, TY_PLACE_OUT);
	move_ring(&m, &from->parked, TY_PLACE_PARKED);
	for (uint32_t i = 0; i < from->count; i++) {
		struct domain *d = &from->domains[i];
		struct ty_entry *entry;

		while ((entry = from->cls->victim(d->policy))) {
			from->cls->leave(d->policy, entry);
			settle(&m, entry, TY_PLACE_IN);
		}
		for (unsigned band = 0; band < TY_BANDS; band++)
			move_ring(&m, &d->bands[band], TY_PLACE_IN);
		d->bytes = 0;
	}
}

const char *ty_order_policy(const struct ty_order *order)
{
	return order->cls->name;
}

uint64_t ty_order_bytes(const struct ty_order *order)
{
	uint64_t bytes = sizeof *order + order->count * sizeof order->domains[0];

	for (uint32_t i = 0; i < order->count; i++)
		bytes += order->cls->bytes(order->domains[i].policy);
	return bytes;
}
