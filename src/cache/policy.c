/* SPDX-License-Identifier: Apache-2.0
 *
 * Least recently used: two rings, the order and the parked ones. A ring's sentinel stands between youngest and oldest.
 */
#include "policy.h"

#include <stdlib.h>

#include <tyer/actor.h>

struct lru {
	struct ty_policy policy;
	struct ty_link order, parked; /* sentinels: newer = the oldest, older = the youngest */
};

static struct lru *lru_of(struct ty_policy *policy)
{
	return ty_container_of(policy, struct lru, policy);
}

static struct ty_chunk *chunk_of(struct ty_link *link)
{
	return ty_container_of(link, struct ty_chunk, link);
}

static void ring_init(struct ty_link *ring)
{
	ring->older = ring->newer = ring;
}

static void ring_add_youngest(struct ty_link *ring, struct ty_link *link)
{
	link->newer = ring;
	link->older = ring->older;
	ring->older->newer = link;
	ring->older = link;
}

static void ring_add_oldest(struct ty_link *ring, struct ty_link *link)
{
	link->older = ring;
	link->newer = ring->newer;
	ring->newer->older = link;
	ring->newer = link;
}

static void ring_take_out(struct ty_link *link)
{
	link->newer->older = link->older;
	link->older->newer = link->newer;
}

static struct ty_policy *lru_create(void)
{
	struct lru *lru = malloc(sizeof *lru);

	if (!lru)
		return NULL;
	lru->policy.cls = &ty_policy_lru;
	ring_init(&lru->order);
	ring_init(&lru->parked);
	return &lru->policy;
}

static void lru_destroy(struct ty_policy *policy)
{
	free(lru_of(policy));
}

static void lru_insert(struct ty_policy *policy, struct ty_chunk *chunk)
{
	ring_add_youngest(&lru_of(policy)->order, &chunk->link);
}

static void lru_insert_oldest(struct ty_policy *policy, struct ty_chunk *chunk)
{
	ring_add_oldest(&lru_of(policy)->order, &chunk->link);
}

static void lru_touch(struct ty_policy *policy, struct ty_chunk *chunk)
{
	ring_take_out(&chunk->link);
	ring_add_youngest(&lru_of(policy)->order, &chunk->link);
}

static void lru_park(struct ty_policy *policy, struct ty_chunk *chunk)
{
	ring_take_out(&chunk->link);
	ring_add_youngest(&lru_of(policy)->parked, &chunk->link);
}

static void lru_remove(struct ty_policy *policy, struct ty_chunk *chunk)
{
	(void)policy;
	ring_take_out(&chunk->link);
}

static struct ty_chunk *lru_victim(struct ty_policy *policy, struct ty_chunk *after)
{
	struct lru *lru = lru_of(policy);
	struct ty_link *link = after ? after->link.newer : lru->order.newer;

	return link == &lru->order ? NULL : chunk_of(link);
}

static struct ty_chunk *lru_parked(struct ty_policy *policy)
{
	struct lru *lru = lru_of(policy);

	return lru->parked.newer == &lru->parked ? NULL : chunk_of(lru->parked.newer);
}

const struct ty_policy_class ty_policy_lru = {
	.name = "lru",
	.create = lru_create,
	.destroy = lru_destroy,
	.insert = lru_insert,
	.insert_oldest = lru_insert_oldest,
	.touch = lru_touch,
	.park = lru_park,
	.remove = lru_remove,
	.victim = lru_victim,
	.parked = lru_parked,
};
