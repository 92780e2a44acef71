/* SPDX-License-Identifier: Apache-2.0
 *
 * S3-FIFO (Yang et al., SOSP 2023): new entries go through a small queue, a tenth of all; what was used there goes on into the
 * main one, what was not goes, and is remembered: if it comes again, it comes into the main queue. A use moves nothing, it
 * only counts.
 */
#include "policy.h"

#include <stdlib.h>

#include <tyer/actor.h>

#include "ghosts.h"

enum { SMALL, MAIN };
#define SMALL_SHARE 10 /* the small queue has a tenth */
#define USES_MAX 3
#define MOVES_MAX 1024 /* in one search for a victim; past it the next one goes, used or not */

struct s3fifo {
	struct ty_policy policy;
	struct ty_link queue[2];
	uint64_t count[2];
	struct ty_ghosts ghosts; /* list 0 alone */
};

/* An entry's list: 1 + queue + 2 * uses. */
static unsigned queue_of(const struct ty_entry *entry)
{
	return (entry->list - 1u) & 1;
}

static unsigned uses_of(const struct ty_entry *entry)
{
	return (entry->list - 1u) >> 1;
}

static struct s3fifo *s3fifo_of(struct ty_policy *policy)
{
	return ty_container_of(policy, struct s3fifo, policy);
}

static struct ty_policy *s3fifo_create(void)
{
	struct s3fifo *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->policy.cls = &ty_policy_s3fifo;
	ty_ring_init(&s->queue[SMALL]);
	ty_ring_init(&s->queue[MAIN]);
	ty_ghosts_open(&s->ghosts);
	return &s->policy;
}

static void s3fifo_destroy(struct ty_policy *policy)
{
	struct s3fifo *s = s3fifo_of(policy);

	ty_ghosts_close(&s->ghosts);
	free(s);
}

static void put(struct s3fifo *s, struct ty_entry *entry, unsigned queue, unsigned uses, bool oldest)
{
	entry->list = (uint8_t)(1 + queue + 2 * uses);
	s->count[queue]++;
	if (oldest)
		ty_ring_add_oldest(&s->queue[queue], &entry->link);
	else
		ty_ring_add_youngest(&s->queue[queue], &entry->link);
}

static void s3fifo_enter(struct ty_policy *policy, struct ty_entry *entry, uint64_t id)
{
	struct s3fifo *s = s3fifo_of(policy);

	put(s, entry, ty_ghosts_take(&s->ghosts, id) == 0 ? MAIN : SMALL, 0, false);
}

static void s3fifo_leave(struct ty_policy *policy, struct ty_entry *entry)
{
	s3fifo_of(policy)->count[queue_of(entry)]--;
	ty_ring_take_out(&entry->link);
}

static unsigned used_once_more(const struct ty_entry *entry)
{
	return uses_of(entry) < USES_MAX ? uses_of(entry) + 1 : USES_MAX;
}

static void s3fifo_reenter(struct ty_policy *policy, struct ty_entry *entry, enum ty_reentry how)
{
	put(s3fifo_of(policy), entry, queue_of(entry), how == TY_REENTER_USED ? used_once_more(entry) : uses_of(entry),
		how == TY_REENTER_OLD);
}

static void s3fifo_touch(struct ty_policy *policy, struct ty_entry *entry)
{
	(void)policy;
	entry->list = (uint8_t)(1 + queue_of(entry) + 2 * used_once_more(entry));
}

static void s3fifo_evicted(struct ty_policy *policy, const struct ty_entry *entry, uint64_t id)
{
	struct s3fifo *s = s3fifo_of(policy);

	if (queue_of(entry) == SMALL)
		ty_ghosts_add(&s->ghosts, id, 0);
	while (s->ghosts.count[0] > s->count[SMALL] + s->count[MAIN] + 1)
		ty_ghosts_drop_oldest(&s->ghosts, 0);
}

/* Each turn either finds the victim or takes a use away from an entry, and moves it behind the others. */
static struct ty_entry *s3fifo_victim(struct ty_policy *policy)
{
	struct s3fifo *s = s3fifo_of(policy);

	for (unsigned moves = 0;; moves++) {
		bool small = s->count[SMALL] * SMALL_SHARE >= s->count[SMALL] + s->count[MAIN] || !s->count[MAIN];
		struct ty_link *link = ty_ring_oldest(&s->queue[small ? SMALL : MAIN]);
		struct ty_entry *entry;
		unsigned uses;

		if (!link)
			return NULL;
		entry = ty_container_of(link, struct ty_entry, link);
		uses = uses_of(entry);
		if (!uses || moves == MOVES_MAX)
			return entry;
		s3fifo_leave(policy, entry);
		put(s, entry, MAIN, small ? 0 : uses - 1, false);
	}
}

static uint64_t s3fifo_bytes(const struct ty_policy *policy)
{
	return sizeof(struct s3fifo) + ty_ghosts_bytes(&((const struct s3fifo *)(const void *)policy)->ghosts);
}

const struct ty_policy_class ty_policy_s3fifo = {
	.name = "s3-fifo",
	.create = s3fifo_create,
	.destroy = s3fifo_destroy,
	.enter = s3fifo_enter,
	.leave = s3fifo_leave,
	.reenter = s3fifo_reenter,
	.touch = s3fifo_touch,
	.evicted = s3fifo_evicted,
	.victim = s3fifo_victim,
	.bytes = s3fifo_bytes,
};
