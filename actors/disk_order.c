/* SPDX-License-Identifier: Apache-2.0
 *
 * Which file goes next: a policy (cache/policy.h), which may be changed while the tier serves. Then nothing is moved: what lay under
 * the policy before stays in its order and goes first, but for what is used, which comes under the new one. So a change takes no
 * time, however many files there are, and the new policy begins with those that are alive.
 */
#include "disk.h"

#include <string.h>

#define MOVES 256 /* of a step, where a policy is changed before the one before it has nothing left */

static struct disk_entry *entry_of(struct ty_entry *entry)
{
	return entry ? ty_container_of(entry, struct disk_entry, entry) : NULL;
}

static uint64_t id_of(const struct disk_entry *entry)
{
	uint64_t id;

	memcpy(&id, entry->key.bytes, sizeof id);
	return id;
}

/* That it is under. */
static struct ty_policy *policy_of(const struct disk_order *o, const struct disk_entry *entry)
{
	return entry->entry.band == o->turn ? o->now : o->before;
}

static void enter(struct disk_order *o, struct disk_entry *entry)
{
	entry->entry.band = o->turn;
	entry->entry.list = 0;
	o->now->cls->enter(o->now, &entry->entry, id_of(entry));
}

static void leave(struct disk_order *o, struct disk_entry *entry)
{
	struct ty_policy *policy = policy_of(o, entry);

	policy->cls->leave(policy, &entry->entry);
}

/* The one before has nothing left. */
static void end_before(struct disk_order *o)
{
	if (o->before && !o->before->cls->victim(o->before)) {
		o->before->cls->destroy(o->before);
		o->before = NULL;
	}
}

bool disk_order_init(struct disk_order *o, const struct ty_policy_class *cls)
{
	memset(o, 0, sizeof *o);
	o->now = cls->create();
	return o->now != NULL;
}

void disk_order_close(struct disk_order *o)
{
	if (o->now)
		o->now->cls->destroy(o->now);
	if (o->before)
		o->before->cls->destroy(o->before);
	memset(o, 0, sizeof *o);
}

void disk_order_add(struct disk_order *o, struct disk_entry *entry, bool oldest)
{
	enter(o, entry);
	if (!oldest)
		return;
	o->now->cls->leave(o->now, &entry->entry);
	o->now->cls->reenter(o->now, &entry->entry, TY_REENTER_OLD);
}

void disk_order_touch(struct disk_order *o, struct disk_entry *entry)
{
	if (policy_of(o, entry) == o->now) {
		o->now->cls->touch(o->now, &entry->entry);
		return;
	}
	leave(o, entry);
	enter(o, entry);
	end_before(o);
}

void disk_order_remove(struct disk_order *o, struct disk_entry *entry, bool evicted)
{
	struct ty_policy *policy = policy_of(o, entry);

	policy->cls->leave(policy, &entry->entry);
	if (evicted)
		policy->cls->evicted(policy, &entry->entry, id_of(entry));
	end_before(o);
}

struct disk_entry *disk_order_victim(struct disk_order *o)
{
	struct ty_policy *policy = o->before ? o->before : o->now;

	return entry_of(policy->cls->victim(policy));
}

bool disk_order_change(struct disk_order *o, const struct ty_policy_class *cls)
{
	struct ty_policy *next;

	for (uint32_t i = 0; o->before && i < MOVES; i++) { /* changed twice in a short time: those that would go first first */
		struct disk_entry *entry = disk_order_victim(o);

		leave(o, entry);
		enter(o, entry);
		end_before(o);
	}
	if (o->before)
		return false;
	next = cls->create();
	if (!next)
		return false;
	o->before = o->now;
	o->now = next;
	o->turn ^= 1;
	end_before(o);
	return true;
}
