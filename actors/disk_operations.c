/* SPDX-License-Identifier: Apache-2.0
 *
 * What an operation asks for: what the index knows is answered at once, the rest becomes a job.
 */
#include "disk_state.h"

#include <stdio.h>
#include <string.h>

static bool same_shape(const struct disk_entry *entry, const struct ty_tier_io *io)
{
	if (entry->parts != io->parts)
		return false;
	for (uint32_t i = 0; i < io->parts; i++)
		if (entry->length[i] != io->part[i].length)
			return false;
	return true;
}

static void exists(struct disk_actor *a, struct ty_tier_io *io)
{
	const struct disk_entry *entry;

	while (io->found < io->key_count && (entry = disk_index_find(&a->index, &io->keys[io->found]))) {
		if (io->found == 0) {
			ty_tier_tell_whose(io, ty_tier_names_at(&a->index.names, entry->name));
			io->takes = entry->bytes;
			io->parts = entry->parts;
			for (uint32_t i = 0; i < entry->parts; i++)
				io->part[i].length = entry->length[i];
		} else if (!same_shape(entry, io)) {
			break;
		}
		io->found++;
	}
	ty_tier_complete(a->tier, io, TY_TIER_DONE, NULL);
}

/* What is there, as the index knows it: its checksums come with the file. */
static bool set_shape(struct disk_actor *a, struct disk_job *job, const struct disk_entry *entry)
{
	job->shape.parts = entry->parts;
	for (uint32_t i = 0; i < entry->parts; i++) {
		job->shape.length[i] = entry->length[i];
		job->shape.packed[i].stored = disk_entry_stored(entry, i);
	}
	if (entry->packed)
		job->unpack = ty_tier_unpack_new(a->tier, job->io, &job->shape);
	return !entry->packed || job->unpack;
}

static void put(struct disk_actor *a, struct ty_tier_io *io)
{
	struct disk_entry *entry = disk_index_find(&a->index, io->keys);
	uint32_t folder = io->keys->bytes[1] % a->disk->folder_count;
	struct disk_job *job;
	uint64_t bytes;

	if (entry && same_shape(entry, io)) { /* the key names the contents: it is there */
		disk_index_touch(&a->index, entry);
		ty_tier_complete(a->tier, io, TY_TIER_DONE, NULL);
		return;
	}
	if (ty_tier_pack(a->tier, io))
		return;
	job = disk_is_leaving(a, io->keys) ? NULL : disk_job_create(a->disk, DISK_PUT, io->keys, folder);
	if (!job) {
		ty_tier_complete(a->tier, io, TY_TIER_FAILED, "its old file is still being removed, or there is no memory");
		return;
	}
	job->io = io;
	ty_tier_describe(io, &job->shape);
	bytes = ty_envelope_total(&job->shape);
	while (a->index.bytes + a->coming + bytes > disk_size(a))
		if (bytes > disk_size(a) || !disk_evict_one(a)) {
			disk_job_free(job);
			ty_tier_complete(a->tier, io, TY_TIER_FULL, "no room for it can be made");
			return;
		}
	ty_envelope_write(&job->shape, job->header);
	snprintf(job->temp, sizeof job->temp, "%.72s.tmp-%016llx-%llu", job->name, (unsigned long long)a->disk->boot,
		(unsigned long long)a->temps++);
	a->coming += bytes;
	disk_begin(a, job);
}

static void get(struct disk_actor *a, struct ty_tier_io *io)
{
	struct disk_entry *entry = disk_index_find(&a->index, io->keys);
	struct disk_job *job;

	if (!entry || !same_shape(entry, io)) {
		ty_tier_complete(a->tier, io, TY_TIER_MISSING, NULL);
		return;
	}
	job = disk_job_create(a->disk, DISK_GET, io->keys, entry->folder);
	if (job)
		job->io = io;
	if (!job || !set_shape(a, job, entry)) {
		if (job)
			disk_job_free(job);
		ty_tier_complete(a->tier, io, TY_TIER_FAILED, "no memory");
		return;
	}
	if (!io->aside)
		disk_index_touch(&a->index, entry);
	job->serial = entry->serial;
	disk_begin(a, job);
}

static void delete(struct disk_actor *a, struct ty_tier_io *io)
{
	struct disk_entry *entry = disk_index_find(&a->index, io->keys);
	bool there = entry || a->scanning; /* it may be, while that is not known */
	struct disk_job *job = there ? disk_job_create(a->disk, DISK_REMOVE, io->keys, entry ? entry->folder : 0) : NULL;

	ty_tier_pack_none(a->tier, io->keys);
	for (struct disk_job *put = a->jobs; put; put = put->next)
		put->unwanted |= put->work == DISK_PUT && memcmp(&put->shape.key, io->keys, sizeof *io->keys) == 0;
	if (!job) {
		ty_tier_complete(a->tier, io, there ? TY_TIER_FAILED : TY_TIER_MISSING, NULL);
		return;
	}
	if (entry)
		disk_index_remove(&a->index, entry, false);
	job->io = io;
	disk_begin(a, job);
}

static void list(struct disk_actor *a, struct ty_tier_io *io)
{
	const char *why;
	enum ty_tier_outcome outcome;

	if (a->scanning) {
		io->next = a->lists;
		a->lists = io;
		disk_keep_ticking(a);
		return;
	}
	outcome = disk_index_page(&a->index, io->page, &why);
	ty_tier_complete(a->tier, io, outcome, outcome == TY_TIER_DONE ? NULL : "%s", why);
}

void disk_look_at_lists(struct disk_actor *a, int64_t now)
{
	struct ty_tier_io *io = a->lists;

	a->lists = NULL;
	for (struct ty_tier_io *next; io; io = next) {
		next = io->next;
		if (a->stopping)
			ty_tier_complete(a->tier, io, TY_TIER_STOPPED, NULL);
		else if (now >= io->deadline)
			ty_tier_complete(a->tier, io, TY_TIER_LATE, "it still finds out what it holds");
		else
			list(a, io);
	}
}

void disk_carry_out(struct disk_actor *a, struct ty_tier_io *io)
{
	if (a->stopping) {
		ty_tier_complete(a->tier, io, TY_TIER_STOPPED, NULL);
		return;
	}
	if (a->given_up >= TY_TIER_GIVEN_UP && (io->verb == TY_TIER_PUT || io->verb == TY_TIER_GET)) {
		ty_tier_complete(a->tier, io, TY_TIER_FAILED, "the disk is not done with %u operations that were given up", a->given_up);
		return;
	}
	switch (io->verb) {
	case TY_TIER_PUT:
		put(a, io);
		break;
	case TY_TIER_GET:
		get(a, io);
		break;
	case TY_TIER_EXISTS:
		exists(a, io);
		break;
	case TY_TIER_DELETE:
		delete(a, io);
		break;
	case TY_TIER_LIST:
		list(a, io);
		break;
	}
}
