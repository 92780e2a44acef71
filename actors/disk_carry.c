/* SPDX-License-Identifier: Apache-2.0
 *
 * Jobs that are out: begun, carried from step to step in the ring or by a worker, ended, given up.
 */
#include "disk_state.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

static void begin_in_ring(struct disk_actor *a, struct disk_job *job)
{
	if (disk_ring_begin(&a->disk->ring, job))
		return;
	job->next_held = a->held;
	a->held = job;
}

void disk_begin_held(struct disk_actor *a)
{
	struct disk_job *held = a->held;

	a->held = NULL;
	for (struct disk_job *next; held; held = next) {
		next = held->next_held;
		begin_in_ring(a, held);
	}
}

/* From its step on. */
static void go(struct disk_actor *a, struct disk_job *job)
{
	struct disk *d = a->disk;

	if (d->ring.on) {
		begin_in_ring(a, job);
	} else {
		enum ty_code sent = ty_send(d->worker[a->next_worker++ % d->worker_count], &job->msg, TY_DISK_WORK);

		assert(sent == TY_OK); /* workers outlive this actor */
	}
}

void disk_begin(struct disk_actor *a, struct disk_job *job)
{
	job->home = ty_self();
	job->next = a->jobs;
	job->link = &a->jobs;
	if (job->next)
		job->next->link = &job->next;
	a->jobs = job;
	a->job_count++;
	a->errands += !job->io;
	go(a, job);
	disk_keep_ticking(a);
}

/* The file system took it not: full before the tier has its size, read-only, broken. */
static void tell_unwritten(struct disk_actor *a, const struct disk_job *job)
{
	if (disk_is_told(++a->unwritten))
		ty_log(TY_LOG_WARN, "tier", "disk: %s: not written (%llu so far): %s", a->disk->folder[job->folder].path,
			(unsigned long long)a->unwritten, job->why);
}

/* A DELETE goes through all folders: a chunk may lie in two of them. True: it is in the next one now. */
static bool looks_on(struct disk_actor *a, struct disk_job *job)
{
	if (job->work != DISK_REMOVE || !job->io)
		return false;
	job->removed |= job->outcome == TY_TIER_DONE;
	if (job->outcome == TY_TIER_FAILED || ++job->looked == a->disk->folder_count) {
		if (job->removed && job->outcome == TY_TIER_MISSING) {
			job->outcome = TY_TIER_DONE;
			job->why[0] = '\0';
		}
		return false;
	}
	job->folder = (job->folder + 1) % a->disk->folder_count;
	job->step = DISK_UNLINK;
	job->error = 0;
	job->why[0] = '\0';
	go(a, job);
	return true;
}

/* This file, not the file system, cannot be read. */
static bool is_unreadable(const struct disk_job *job)
{
	return job->error == EIO || job->error == EISDIR || job->error == ELOOP || job->error == ESPIPE;
}

void disk_finish(struct disk_actor *a, struct disk_job *job)
{
	struct ty_tier_io *io = job->answered ? NULL : job->io;

	disk_note_gone(a, job);
	if (looks_on(a, job))
		return;
	*job->link = job->next;
	if (job->next)
		job->next->link = job->link;
	a->job_count--;
	a->errands -= !job->io;
	a->given_up -= job->answered;
	if (job->work == DISK_PUT) {
		uint64_t stored[TY_CHUNK_MAX_PARTS];
		struct disk_shape shape = {job->shape.key, 0, job->shape.parts, job->shape.length,
			ty_envelope_is_packed(&job->shape) ? stored : NULL};
		const struct ty_identity *whose = job->shape.identity.model[0] ? &job->shape.identity : NULL;

		for (uint32_t i = 0; i < job->shape.parts; i++)
			stored[i] = job->shape.packed[i].stored;
		a->coming -= ty_envelope_total(&job->shape);
		if (job->outcome == TY_TIER_DONE && job->unwanted) {
			job->outcome = TY_TIER_LATE;
			snprintf(job->why, sizeof job->why, "it was deleted");
			(void)disk_errand(a, DISK_REMOVE, &job->shape.key, job->folder, 0);
		} else if (job->outcome == TY_TIER_DONE && !disk_index_put(&a->index, &shape, whose, job->folder, false)) {
			job->outcome = TY_TIER_FAILED; /* the next start finds it */
			snprintf(job->why, sizeof job->why, "no memory to remember it");
		}
		if (job->outcome == TY_TIER_FULL || job->outcome == TY_TIER_FAILED)
			tell_unwritten(a, job);
		if (job->outcome == TY_TIER_FULL)
			disk_make_way(a, 2 * ty_envelope_total(&job->shape));
	} else if (job->work == DISK_ISOLATE && job->outcome != TY_TIER_DONE) { /* the folder is gone, perhaps: then so is the file */
		a->aside -= job->isolated;
		(void)disk_errand(a, DISK_REMOVE, &job->shape.key, job->folder, 0);
	} else if (job->work == DISK_GET && io) {
		io->read = job->moved;
		if (job->outcome == TY_TIER_CORRUPT)
			disk_isolate(a, job);
		else if (job->outcome == TY_TIER_MISSING || is_unreadable(job))
			disk_forget(a, disk_entry_of(a, job)); /* so that it is written again */
	}
	disk_job_empty(job); /* whoever has the io back finds nothing of it here */
	if (io) {
		if (job->outcome == TY_TIER_LATE && a->stopping)
			job->outcome = TY_TIER_STOPPED;
		ty_tier_complete(a->tier, io, job->outcome, job->why[0] ? "%s" : NULL, job->why);
	} else if (!job->answered && job->outcome != TY_TIER_DONE && (job->outcome != TY_TIER_MISSING || job->work == DISK_ISOLATE)) {
		ty_log(TY_LOG_WARN, "tier", "disk: %s", job->why);
	}
	disk_job_free(job);
}

static void disk_check(struct ty_service *service, struct ty_bytework *work)
{
	struct disk_job *job = ty_container_of(work, struct disk_job, bytework);

	(void)service;
	job->packer = work->packer;
	disk_job_perform(job);
}

/* Verify what was read: here, where it is wanted soonest; if nobody waits for it, or it is to be unpacked, where it is in nobody's way. */
static void check(struct disk_actor *a, struct disk_job *job)
{
	job->bytework.home = ty_self();
	job->bytework.home_type = DISK_CHECKED;
	job->bytework.run = disk_check;
	if ((job->io->aside || job->unpack) && ty_tier_unpacker(a->tier, job->io, &job->bytework))
		return;
	disk_job_perform(job);
	disk_job_next(job);
	disk_finish(a, job);
}

void disk_go_on(struct disk_actor *a, struct disk_job *job)
{
	disk_job_next(job);
	if (job->step == DISK_OVER)
		disk_finish(a, job);
	else if (job->step == DISK_CHECK)
		check(a, job);
	else
		begin_in_ring(a, job);
}

void disk_give_up(struct disk_actor *a, struct disk_job *job, enum ty_tier_outcome outcome)
{
	if (job->work == DISK_REMOVE) {
		ty_tier_gone(a->tier, &job->shape.key, TYER__V1__EVENT__KIND__DELETED); /* it is in the index no more */
		ty_tier_complete(a->tier, job->io, outcome, NULL);
		job->io = NULL;
		a->errands++;
	} else if (a->disk->ring.on) {
		disk_ring_cancel(&a->disk->ring, job);
	} else if (disk_job_give_up(job)) { /* else it is home soon */
		job->unwanted = job->work == DISK_PUT; /* nobody was told that it is there */
		a->given_up++;
		ty_tier_complete(a->tier, job->io, outcome, outcome == TY_TIER_LATE ? "the disk is not done with it" : NULL);
	}
}
