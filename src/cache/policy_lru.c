/* SPDX-License-Identifier: Apache-2.0
 *
 * Least recently used: one ring.
 */
#include "policy.h"

#include <stdlib.h>
#include <string.h>

#include <tyer/actor.h>

#define LIST_SEEN 1

struct lru {
	struct ty_policy policy;
	struct ty_link order;
};

static struct lru *lru_of(struct ty_policy *policy)
{
	return ty_container_of(policy, struct lru, policy);
}

static struct ty_policy *lru_create(void)
{
	struct lru *lru = malloc(sizeof *lru);

	if (!lru)
		return NULL;
	lru->policy.cls = &ty_policy_lru;
	ty_ring_init(&lru->order);
	return &lru->policy;
}

static void lru_destroy(struct ty_policy *policy)
{
	free(lru_of(policy));
}

static void lru_enter(struct ty_policy *policy, struct ty_entry *entry, uint64_t id)
{
	(void)id;
	entry->list = LIST_SEEN;
	ty_ring_add_youngest(&lru_of(policy)->order, &entry->link);
}

static void lru_leave(struct ty_policy *policy, struct ty_entry *entry)
{
	(void)policy;
	ty_ring_take_out(&entry->link);
}

static void lru_reenter(struct ty_policy *policy, struct ty_entry *entry, enum ty_reentry how)
{
	if (how == TY_REENTER_OLD)
		ty_ring_add_oldest(&lru_of(policy)->order, &entry->link);
	else
		ty_ring_add_youngest(&lru_of(policy)->order, &entry->link);
}

static void lru_touch(struct ty_policy *policy, struct ty_entry *entry)
{
	lru_leave(policy, entry);
	lru_reenter(policy, entry, TY_REENTER_USED);
}

static void lru_evicted(struct ty_policy *policy, const struct ty_entry *entry, uint64_t id)
{
	(void)policy;
	(void)entry;
	(void)id;
}

static struct ty_entry *lru_victim(struct ty_policy *policy)
{
	struct ty_link *link = ty_ring_oldest(&lru_of(policy)->order);

	return link ? ty_container_of(link, struct ty_entry, link) : NULL;
}

static uint64_t lru_bytes(const struct ty_policy *policy)
{
	(void)policy;
	return sizeof(struct lru);
}

const struct ty_policy_class ty_policy_lru = {
	.name = "lru",
	.create = lru_create,
	.destroy = lru_destroy,
	.enter = lru_enter,
	.leave = lru_leave,
	.reenter = lru_reenter,
	.touch = lru_touch,
	.evicted = lru_evicted,
	.victim = lru_victim,
	.bytes = lru_bytes,
};

const struct ty_policy_class *const ty_policies[] = {&ty_policy_arc, &ty_policy_lru, &ty_policy_s3fifo, NULL};

const struct ty_policy_class *ty_policy_find(const char *name)
{
	for (size_t i = 0; ty_policies[i]; i++)
		if (!strcmp(ty_policies[i]->name, name))
			return ty_policies[i];
	return NULL;
}
