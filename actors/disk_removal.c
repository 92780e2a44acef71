/* SPDX-License-Identifier: Apache-2.0
 *
 * What goes from the disk: to make room, because it is wrong or not there, or because it is there twice.
 */
#include "disk_state.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"

#define ERRANDS_MAX 64 /* files that are being removed; past it nothing new finds room */

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

bool disk_errand(struct disk_actor *a, enum disk_work work, const struct ty_key *key, uint32_t folder, uint64_t bytes)
{
	struct disk_job *job = disk_job_create(a->disk, work, key, folder);

	if (!job)
		return false;
	job->isolated = work == DISK_ISOLATE ? bytes : 0;
	a->aside += job->isolated;
	if (work == DISK_ISOLATE)
		snprintf(job->temp, sizeof job->temp, "quarantine/%.64s.%016llx-%u", job->name + 3, (unsigned long long)a->disk->boot,
			a->isolated++);
	disk_begin(a, job);
	return true;
}

bool disk_is_leaving(const struct disk_actor *a, const struct ty_key *key)
{
	for (const struct disk_job *job = a->jobs; job; job = job->next)
		if ((job->work == DISK_REMOVE || job->work == DISK_ISOLATE || job->unwanted) && memcmp(&job->shape.key, key, sizeof *key) == 0)
			return true;
	return false;
}

/* Is one being written? Then the name may be the new one's already. */
static bool is_coming(const struct disk_actor *a, const struct ty_key *key)
{
	for (const struct disk_job *job = a->jobs; job; job = job->next)
		if (job->work == DISK_PUT && memcmp(&job->shape.key, key, sizeof *key) == 0)
			return true;
	return false;
}

struct disk_entry *disk_entry_of(const struct disk_actor *a, const struct disk_job *job)
{
	struct disk_entry *entry = disk_index_find(&a->index, &job->shape.key);

	return entry && entry->serial == job->serial && !is_coming(a, &entry->key) ? entry : NULL;
}

bool disk_evict_one(struct disk_actor *a)
{
	struct disk_entry *entry = disk_order_victim(&a->index.order);

	if (!entry || a->errands >= ERRANDS_MAX || !disk_errand(a, DISK_REMOVE, &entry->key, entry->folder, 0))
		return false;
	ty_tier_gone(a->tier, &entry->key, TYER__V1__EVENT__KIND__DROPPED);
	disk_index_remove(&a->index, entry, true);
	count(&a->tier->stats.evicted, 1);
	return true;
}

void disk_drop_twin(struct disk_actor *a, const struct ty_key *key, uint32_t folder)
{
	const struct disk_entry *entry = disk_index_find(&a->index, key);

	if (entry && entry->folder != folder && a->errands < ERRANDS_MAX && !disk_is_leaving(a, key))
		(void)disk_errand(a, DISK_REMOVE, key, folder, 0);
}

void disk_make_way(struct disk_actor *a, uint64_t bytes)
{
	for (uint64_t end = a->index.bytes > bytes ? a->index.bytes - bytes : 0; a->index.bytes > end && disk_evict_one(a);)
		;
}

void disk_forget(struct disk_actor *a, struct disk_entry *entry)
{
	if (!entry)
		return;
	ty_tier_gone(a->tier, &entry->key, TYER__V1__EVENT__KIND__DROPPED);
	disk_index_remove(&a->index, entry, false);
}

void disk_isolate(struct disk_actor *a, const struct disk_job *job)
{
	struct disk_entry *entry = disk_entry_of(a, job);
	uint64_t bytes;
	bool keep;

	if (!entry)
		return;
	if (disk_is_told(++a->wrong))
		ty_log(TY_LOG_WARN, "tier", "disk: wrong (%llu so far): %s/%s: %s", (unsigned long long)a->wrong,
			a->disk->folder[job->folder].path, job->name, job->why);
	bytes = entry->bytes;
	keep = a->aside + bytes <= a->disk->quarantine;
	disk_index_remove(&a->index, entry, false);
	ty_tier_gone(a->tier, &job->shape.key, TYER__V1__EVENT__KIND__WRONG);
	count(&a->tier->stats.quarantined, 1);
	(void)disk_errand(a, keep ? DISK_ISOLATE : DISK_REMOVE, &job->shape.key, job->folder, bytes);
}
