/* SPDX-License-Identifier: Apache-2.0
 *
 * Adaptive replacement (Megiddo and Modha, FAST 2003): entries that were used once, and those used more than once, each
 * least recently used first, and the ghosts of both. A ghost that comes back says that its list was too short, and moves
 * the boundary. The cache's size is what is here when something goes, since nobody says how many entries fit.
 */
#include "policy.h"

#include <stdlib.h>

#include <tyer/actor.h>

#include "ghosts.h"

enum { ONCE, OFTEN }; /* an entry's list is one more */

struct arc {
	struct ty_policy policy;
	struct ty_link list[2];
	uint64_t count[2];
	uint64_t target; /* how many of ONCE are to be here */
	struct ty_ghosts ghosts;
};

static struct arc *arc_of(struct ty_policy *policy)
{
	return ty_container_of(policy, struct arc, policy);
}

static struct ty_policy *arc_create(void)
{
	struct arc *arc = calloc(1, sizeof *arc);

	if (!arc)
		return NULL;
	arc->policy.cls = &ty_policy_arc;
	ty_ring_init(&arc->list[ONCE]);
	ty_ring_init(&arc->list[OFTEN]);
	ty_ghosts_open(&arc->ghosts);
	return &arc->policy;
}

static void arc_destroy(struct ty_policy *policy)
{
	struct arc *arc = arc_of(policy);

	ty_ghosts_close(&arc->ghosts);
	free(arc);
}

static void put(struct arc *arc, struct ty_entry *entry, unsigned list, bool oldest)
{
	entry->list = (uint8_t)(list + 1);
	arc->count[list]++;
	if (oldest)
		ty_ring_add_oldest(&arc->list[list], &entry->link);
	else
		ty_ring_add_youngest(&arc->list[list], &entry->link);
}

/* One of these ghosts came back: by how much the boundary moves. */
static uint64_t step(uint64_t these, uint64_t others)
{
	return these && others > these ? others / these : 1;
}

static void arc_enter(struct ty_policy *policy, struct ty_entry *entry, uint64_t id)
{
	struct arc *arc = arc_of(policy);
	uint64_t size = arc->count[ONCE] + arc->count[OFTEN], by;
	uint64_t once = arc->ghosts.count[ONCE], often = arc->ghosts.count[OFTEN];

	switch (ty_ghosts_take(&arc->ghosts, id)) {
	case ONCE:
		by = step(once, often);
		arc->target = arc->target + by > size ? size : arc->target + by;
		put(arc, entry, OFTEN, false);
		break;
	case OFTEN:
		by = step(often, once);
		arc->target = arc->target < by ? 0 : arc->target - by;
		put(arc, entry, OFTEN, false);
		break;
	default:
		put(arc, entry, ONCE, false);
		break;
	}
}

static void arc_leave(struct ty_policy *policy, struct ty_entry *entry)
{
	arc_of(policy)->count[entry->list - 1]--;
	ty_ring_take_out(&entry->link);
}

static void arc_reenter(struct ty_policy *policy, struct ty_entry *entry, enum ty_reentry how)
{
	put(arc_of(policy), entry, how == TY_REENTER_USED ? OFTEN : entry->list - 1u, how == TY_REENTER_OLD);
}

static void arc_touch(struct ty_policy *policy, struct ty_entry *entry)
{
	arc_leave(policy, entry);
	arc_reenter(policy, entry, TY_REENTER_USED);
}

static void arc_evicted(struct ty_policy *policy, const struct ty_entry *entry, uint64_t id)
{
	struct arc *arc = arc_of(policy);
	struct ty_ghosts *ghosts = &arc->ghosts;
	uint64_t size = arc->count[ONCE] + arc->count[OFTEN] + 1; /* with it */

	ty_ghosts_add(ghosts, id, entry->list - 1u);
	while (ghosts->count[ONCE] && arc->count[ONCE] + ghosts->count[ONCE] > size)
		ty_ghosts_drop_oldest(ghosts, ONCE);
	while (ghosts->count[ONCE] + ghosts->count[OFTEN] > size)
		ty_ghosts_drop_oldest(ghosts, ghosts->count[OFTEN] ? OFTEN : ONCE);
}

static struct ty_entry *arc_victim(struct ty_policy *policy)
{
	struct arc *arc = arc_of(policy);
	unsigned list = arc->count[ONCE] > arc->target || !arc->count[OFTEN] ? ONCE : OFTEN;
	struct ty_link *link = ty_ring_oldest(&arc->list[list]);

	return link ? ty_container_of(link, struct ty_entry, link) : NULL;
}

static uint64_t arc_bytes(const struct ty_policy *policy)
{
	return sizeof(struct arc) + ty_ghosts_bytes(&((const struct arc *)(const void *)policy)->ghosts);
}

const struct ty_policy_class ty_policy_arc = {
	.name = "arc",
	.create = arc_create,
	.destroy = arc_destroy,
	.enter = arc_enter,
	.leave = arc_leave,
	.reenter = arc_reenter,
	.touch = arc_touch,
	.evicted = arc_evicted,
	.victim = arc_victim,
	.bytes = arc_bytes,
};
