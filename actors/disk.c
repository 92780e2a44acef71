/* SPDX-License-Identifier: Apache-2.0
 *
 * Takes operations, keeps the index of what is there, makes room, and carries jobs from step to step. Waits for its mailbox and
 * the ring's completions in one place, an eventfd.
 */
#include "disk.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/give_way.h"
#include "base/log.h"

#define REAP_MAX 16           /* jobs that end in one poll: each may be verified here */
#define ERRANDS_MAX 64        /* files that are being removed; past it nothing new finds room */
#define HELD_NS 1000000       /* when the kernel is asked again that took nothing */
#define FOUND_MAX 512         /* files of the scan's that are taken in at a time */
#define TICK_NS 250000000     /* how often deadlines are looked at */

struct disk_actor {
	struct disk *disk;
	struct ty_tier *tier;
	struct disk_index index;
	struct disk_job *jobs;     /* that are out */
	struct disk_job *held;     /* of these, those that the kernel did not take yet */
	uint32_t job_count, errands, next_worker;
	uint64_t coming;           /* bytes of the files that are being written */
	uint64_t temps;            /* numbers for temporary names */
	uint64_t wrong, unwritten; /* files so far */
	uint32_t isolated;         /* numbers for names in quarantine */
	uint64_t aside;            /* bytes of what is there */
	struct ty_timer tick;
	bool ticking, stopping;

	bool scanning;
	uint32_t scanned;          /* the hash folder that the scanner reads */
	struct ty_key *gone;       /* keys of that one whose files were removed since it began to */
	uint32_t gone_count, gone_room;
	struct ty_tier_io *lists;  /* they wait until it is over */
};

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static void publish(struct disk_actor *a)
{
	ty_tier_tell(a->tier);
	atomic_store_explicit(&a->tier->stats.chunks, a->index.count, memory_order_relaxed);
	atomic_store_explicit(&a->tier->stats.used_bytes, a->index.bytes, memory_order_relaxed);
	atomic_store_explicit(&a->tier->stats.namespaces, a->index.names.count, memory_order_relaxed);
	atomic_store_explicit(&a->tier->stats.quarantine_bytes, a->aside, memory_order_relaxed);
}

/* ---- jobs -------------------------------------------------------------------------------------------------- */

static void begin_in_ring(struct disk_actor *a, struct disk_job *job)
{
	if (disk_ring_begin(&a->disk->ring, job))
		return;
	job->next_held = a->held;
	a->held = job;
}

static void keep_ticking(struct disk_actor *a)
{
	if (!a->ticking)
		ty_timer_start(&a->tick, DISK_TICK, ty_now() + TICK_NS);
	a->ticking = true;
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

static void begin(struct disk_actor *a, struct disk_job *job)
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
	keep_ticking(a);
}

/* A file that is not wanted any more. */
static bool errand(struct disk_actor *a, enum disk_work work, const struct ty_key *key, uint32_t folder, uint64_t bytes)
{
	struct disk_job *job = disk_job_create(a->disk, work, key, folder);

	if (!job)
		return false;
	job->isolated = work == DISK_ISOLATE ? bytes : 0;
	a->aside += job->isolated;
	if (work == DISK_ISOLATE)
		snprintf(job->temp, sizeof job->temp, "quarantine/%.64s.%016llx-%u", job->name + 3, (unsigned long long)a->disk->boot,
			a->isolated++);
	begin(a, job);
	return true;
}

/* Is a file of that key being removed, or will be when it is written? A new one could be taken for it. */
static bool is_leaving(const struct disk_actor *a, const struct ty_key *key)
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

/* The entry that a GET was of, if it is still the one of its key: it may have been removed, and stored anew, since. */
static struct disk_entry *entry_of(const struct disk_actor *a, const struct disk_job *job)
{
	struct disk_entry *entry = disk_index_find(&a->index, &job->shape.key);

	return entry && entry->serial == job->serial && !is_coming(a, &entry->key) ? entry : NULL;
}

/* relaxed: it stands alone */
static uint64_t size_of(const struct disk_actor *a)
{
	return atomic_load_explicit(&a->tier->size, memory_order_relaxed);
}

static bool evict_one(struct disk_actor *a)
{
	struct disk_entry *entry = disk_order_victim(&a->index.order);

	if (!entry || a->errands >= ERRANDS_MAX || !errand(a, DISK_REMOVE, &entry->key, entry->folder, 0))
		return false;
	ty_tier_gone(a->tier, &entry->key, TYER__V1__EVENT__KIND__DROPPED);
	disk_index_remove(&a->index, entry, true);
	count(&a->tier->stats.evicted, 1);
	return true;
}

/* A chunk may lie in two folders, if one was not there when it came again: one of them would outlive its removal. */
static void drop_twin(struct disk_actor *a, const struct ty_key *key, uint32_t folder)
{
	const struct disk_entry *entry = disk_index_find(&a->index, key);

	if (entry && entry->folder != folder && a->errands < ERRANDS_MAX && !is_leaving(a, key))
		(void)errand(a, DISK_REMOVE, key, folder, 0);
}

/* The file system is full before the tier has its size: then what fits is what it may have, and the oldest go for what comes. */
static void make_way(struct disk_actor *a, uint64_t bytes)
{
	for (uint64_t end = a->index.bytes > bytes ? a->index.bytes - bytes : 0; a->index.bytes > end && evict_one(a);)
		;
}

static bool is_power_of_two(uint64_t n)
{
	return (n & (n - 1)) == 0;
}

/* The file system took it not: full before the tier has its size, read-only, broken. */
static void tell_unwritten(struct disk_actor *a, const struct disk_job *job)
{
	if (is_power_of_two(++a->unwritten))
		ty_log(TY_LOG_WARN, "tier", "disk: %s: not written (%llu so far): %s", a->disk->folder[job->folder].path,
			(unsigned long long)a->unwritten, job->why);
}

/* The file turned out not to be there, or to be of another version. */
static void forget(struct disk_actor *a, struct disk_entry *entry)
{
	if (!entry)
		return;
	ty_tier_gone(a->tier, &entry->key, TYER__V1__EVENT__KIND__DROPPED);
	disk_index_remove(&a->index, entry, false);
}

/* The file turned out to be wrong. */
static void isolate(struct disk_actor *a, const struct disk_job *job)
{
	struct disk_entry *entry = entry_of(a, job);
	uint64_t bytes;
	bool keep;

	if (!entry)
		return;
	if (is_power_of_two(++a->wrong)) /* the first, and then ever more seldom */
		ty_log(TY_LOG_WARN, "tier", "disk: wrong (%llu so far): %s/%s: %s", (unsigned long long)a->wrong,
			a->disk->folder[job->folder].path, job->name, job->why);
	bytes = entry->bytes;
	keep = a->aside + bytes <= a->disk->quarantine;
	disk_index_remove(&a->index, entry, false);
	ty_tier_gone(a->tier, &job->shape.key, TYER__V1__EVENT__KIND__WRONG);
	count(&a->tier->stats.quarantined, 1);
	(void)errand(a, keep ? DISK_ISOLATE : DISK_REMOVE, &job->shape.key, job->folder, bytes);
}

/* ---- operations -------------------------------------------------------------------------------------------- */

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
	job = is_leaving(a, io->keys) ? NULL : disk_job_create(a->disk, DISK_PUT, io->keys, folder);
	if (!job) {
		ty_tier_complete(a->tier, io, TY_TIER_FAILED, "its old file is still being removed, or there is no memory");
		return;
	}
	job->io = io;
	ty_tier_describe(io, &job->shape);
	bytes = ty_envelope_total(&job->shape);
	while (a->index.bytes + a->coming + bytes > size_of(a))
		if (bytes > size_of(a) || !evict_one(a)) {
			disk_job_free(job);
			ty_tier_complete(a->tier, io, TY_TIER_FULL, "no room for it can be made");
			return;
		}
	ty_envelope_write(&job->shape, job->header);
	snprintf(job->temp, sizeof job->temp, "%.72s.tmp-%016llx-%llu", job->name, (unsigned long long)a->disk->boot,
		(unsigned long long)a->temps++);
	a->coming += bytes;
	begin(a, job);
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
	begin(a, job);
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
	begin(a, job);
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

/* What the scanner has read of that folder, and is on its way, may have been removed since. */
static void note_gone(struct disk_actor *a, const struct disk_job *job)
{
	if (!a->scanning || job->shape.key.bytes[0] != a->scanned || (job->work != DISK_REMOVE && job->work != DISK_ISOLATE))
		return;
	if (a->gone_count == a->gone_room) {
		uint32_t room = a->gone_room ? 2 * a->gone_room : 16;
		struct ty_key *more = realloc(a->gone, room * sizeof *more);

		if (!more)
			return; /* then it is found, and is a miss when it is read */
		a->gone = more;
		a->gone_room = room;
	}
	a->gone[a->gone_count++] = job->shape.key;
}

static bool is_gone(const struct disk_actor *a, const struct ty_key *key)
{
	for (uint32_t i = 0; i < a->gone_count; i++)
		if (memcmp(&a->gone[i], key, sizeof *key) == 0)
			return true;
	return false;
}

static void list(struct disk_actor *a, struct ty_tier_io *io)
{
	const char *why;
	enum ty_tier_outcome outcome;

	if (a->scanning) {
		io->next = a->lists;
		a->lists = io;
		keep_ticking(a);
		return;
	}
	outcome = disk_index_page(&a->index, io->page, &why);
	ty_tier_complete(a->tier, io, outcome, outcome == TY_TIER_DONE ? NULL : "%s", why);
}

/* Those that wait: all, where `scanning` and `stopping` say why not any more, or those whose time is over. */
static void look_at_lists(struct disk_actor *a, int64_t now)
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

/* This file, not the file system, cannot be read. */
static bool is_unreadable(const struct disk_job *job)
{
	return job->error == EIO || job->error == EISDIR || job->error == ELOOP || job->error == ESPIPE;
}

static void finish(struct disk_actor *a, struct disk_job *job)
{
	struct ty_tier_io *io = job->io;

	note_gone(a, job);
	if (looks_on(a, job))
		return;
	*job->link = job->next;
	if (job->next)
		job->next->link = job->link;
	a->job_count--;
	a->errands -= !io;
	if (job->work == DISK_PUT) {
		uint64_t stored[TY_CHUNK_MAX_PARTS];
		struct disk_shape shape = {job->shape.key, 0, job->shape.parts, job->shape.length,
			ty_envelope_is_packed(&job->shape) ? stored : NULL};

		for (uint32_t i = 0; i < job->shape.parts; i++)
			stored[i] = job->shape.packed[i].stored;
		a->coming -= ty_envelope_total(&job->shape);
		if (job->outcome == TY_TIER_DONE && job->unwanted) {
			job->outcome = TY_TIER_LATE;
			snprintf(job->why, sizeof job->why, "it was deleted");
			(void)errand(a, DISK_REMOVE, &job->shape.key, job->folder, 0);
		} else if (job->outcome == TY_TIER_DONE && !disk_index_put(&a->index, &shape, io->identity, job->folder, false)) {
			job->outcome = TY_TIER_FAILED; /* the next start finds it */
			snprintf(job->why, sizeof job->why, "no memory to remember it");
		}
		if (job->outcome == TY_TIER_FULL || job->outcome == TY_TIER_FAILED)
			tell_unwritten(a, job);
		if (job->outcome == TY_TIER_FULL)
			make_way(a, 2 * ty_envelope_total(&job->shape));
	} else if (job->work == DISK_ISOLATE && job->outcome != TY_TIER_DONE) { /* the folder is gone, perhaps: then so is the file */
		a->aside -= job->isolated;
		(void)errand(a, DISK_REMOVE, &job->shape.key, job->folder, 0);
	} else if (job->work == DISK_GET) {
		io->read = job->moved;
		if (job->outcome == TY_TIER_CORRUPT)
			isolate(a, job);
		else if (job->outcome == TY_TIER_MISSING || is_unreadable(job))
			forget(a, entry_of(a, job)); /* so that it is written again */
	}
	ty_tier_unpack_free(job->unpack); /* whoever has the io back finds nothing of it here */
	job->unpack = NULL;
	if (io) {
		if (job->outcome == TY_TIER_LATE && a->stopping)
			job->outcome = TY_TIER_STOPPED;
		ty_tier_complete(a->tier, io, job->outcome, job->why[0] ? "%s" : NULL, job->why);
	} else if (job->outcome != TY_TIER_DONE && (job->outcome != TY_TIER_MISSING || job->work == DISK_ISOLATE)) {
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
	finish(a, job);
}

/* On its way in the ring. */
static void go_on(struct disk_actor *a, struct disk_job *job)
{
	disk_job_next(job);
	if (job->step == DISK_OVER)
		finish(a, job);
	else if (job->step == DISK_CHECK)
		check(a, job);
	else
		begin_in_ring(a, job);
}

/* ---- the actor --------------------------------------------------------------------------------------------- */

static int64_t poll_ring(void *self, int64_t now)
{
	struct disk_actor *a = self;
	struct disk_ring *ring = &a->disk->ring;
	struct disk_job *job = NULL, *held;
	const struct ty_policy_class *policy;

	/* relaxed: it stands alone */
	policy = atomic_load_explicit(&a->tier->policy, memory_order_relaxed);
	if (a->index.order.now->cls != policy)
		(void)disk_order_change(&a->index.order, policy);
	/* More than it may hold, by what the scan found or because it may hold less now: a few at a time. */
	while (a->index.bytes + a->coming > size_of(a) && evict_one(a))
		;
	held = a->held;
	a->held = NULL;
	for (struct disk_job *next; held; held = next) {
		next = held->next_held;
		begin_in_ring(a, held);
	}
	for (int i = 0; ring->on && i < REAP_MAX && (job = disk_ring_reap(ring)); i++)
		go_on(a, job);
	if (ring->on)
		disk_ring_submit(ring);
	publish(a);
	return job ? now : a->held || a->index.order.now->cls != policy ? now + HELD_NS : TY_NEVER;
}

static void wait_for_events(void *self, int64_t deadline)
{
	struct disk_actor *a = self;
	struct pollfd p = {.fd = a->disk->event_fd, .events = POLLIN};
	int64_t left = deadline == TY_NEVER ? 0 : deadline - ty_now();
	struct timespec timeout = {left > 0 ? left / 1000000000 : 0, left > 0 ? left % 1000000000 : 0};
	uint64_t n;

	if (ppoll(&p, 1, deadline == TY_NEVER ? NULL : &timeout, NULL) > 0)
		(void)!read(p.fd, &n, sizeof n); /* before the completions are looked at: one that comes now is told again */
}

static void wake(void *self)
{
	struct disk_actor *a = self;
	uint64_t one = 1;

	(void)!write(a->disk->event_fd, &one, sizeof one);
}

static void on_start(void *self, struct ty_msg *msg)
{
	struct disk_actor *a = self;
	struct disk_found *found = calloc(1, sizeof *found);

	(void)msg;
	/* release: pairs with ty_tier_submit's acquire */
	atomic_store_explicit(&a->tier->stats.state, TY_TIER_SERVING, memory_order_release);
	a->scanning = true;
	if (found && ty_send(a->disk->scanner, &found->msg, TY_DISK_SCAN) == TY_OK) {
		return;
	}
	a->scanning = false;
	free(found);
	atomic_store_explicit(&a->tier->stats.scanning, 0, memory_order_relaxed);
	ty_log(TY_LOG_ERROR, "tier", "disk: what is there could not be read");
}

static void carry_out(struct disk_actor *a, struct ty_tier_io *io)
{
	if (a->stopping) {
		ty_tier_complete(a->tier, io, TY_TIER_STOPPED, NULL);
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

static void on_io(void *self, struct ty_msg *msg)
{
	carry_out(self, ty_container_of(msg, struct ty_tier_io, msg));
}

static void on_packed(void *self, struct ty_msg *msg)
{
	struct disk_actor *a = self;
	struct ty_tier_io *io = ty_tier_packed(a->tier, msg);

	if (io)
		carry_out(a, io);
}

/* What it waits for in the kernel. Closing and what makes a file whole are never given up; nor is a removal, but nobody waits for it any
 * more: it touches nothing of the io's. */
static void give_up(struct disk_actor *a, struct disk_job *job, enum ty_tier_outcome outcome)
{
	if (job->work == DISK_REMOVE) {
		ty_tier_gone(a->tier, &job->shape.key, TYER__V1__EVENT__KIND__DELETED); /* it is in the index no more */
		ty_tier_complete(a->tier, job->io, outcome, NULL);
		job->io = NULL;
		a->errands++;
	} else if (a->disk->ring.on) {
		disk_ring_cancel(&a->disk->ring, job);
	}
}

static void on_stop(void *self, struct ty_msg *msg)
{
	struct disk_actor *a = self;

	(void)msg;
	a->stopping = true;
	look_at_lists(a, 0);
	for (struct disk_job *job = a->jobs; job; job = job->next)
		if (job->io)
			give_up(a, job, TY_TIER_STOPPED);
}

static void on_worked(void *self, struct ty_msg *msg)
{
	finish(self, ty_container_of(msg, struct disk_job, msg));
}

static void on_checked(void *self, struct ty_msg *msg)
{
	struct ty_bytework *work = ty_container_of(msg, struct ty_bytework, msg);
	struct disk_job *job = ty_container_of(work, struct disk_job, bytework);

	if (!work->ran)
		disk_job_perform(job);
	go_on(self, job);
}

/* A stretch of what was found. */
static void take_found(struct disk_actor *a, struct disk_found *found)
{
	uint32_t end = found->count - found->at < FOUND_MAX ? found->count : found->at + FOUND_MAX;

	for (; found->at < end; found->at++) {
		struct disk_shape *shape = &found->item[found->at];
		const struct ty_identity *whose = ty_tier_names_at(&found->names, shape->name);

		/* What was written meanwhile is newer, what is being removed is not there. */
		if (!disk_index_find(&a->index, &shape->key) && !is_leaving(a, &shape->key) && !is_gone(a, &shape->key))
			(void)disk_index_put(&a->index, shape, whose, found->folder, true);
		drop_twin(a, &shape->key, found->folder);
		free((void *)(uintptr_t)shape->length);
		shape->length = NULL;
	}
}

static void end_scan(struct disk_actor *a)
{
	a->scanning = false;
	look_at_lists(a, ty_now());
	ty_log(TY_LOG_INFO, "tier", "disk: %llu chunks, %llu bytes, are there", (unsigned long long)a->index.count,
		(unsigned long long)a->index.bytes);
	publish(a);
	/* release: whoever sees that it is over sees what was found, too */
	atomic_store_explicit(&a->tier->stats.scanning, 0, memory_order_release);
}

static void on_found(void *self, struct ty_msg *msg)
{
	struct disk_actor *a = self;
	struct disk_found *found = ty_container_of(msg, struct disk_found, msg);
	enum ty_code sent;

	take_found(a, found);
	if (found->at < found->count && !a->stopping) { /* operations come in between */
		sent = ty_send(ty_self(), &found->msg, DISK_FOUND);
	} else if (found->last || a->stopping) {
		end_scan(a);
		sent = TY_STOPPING;
	} else {
		a->gone_count = 0;
		if (++found->hash == DISK_HASH_FOLDERS) {
			found->hash = 0;
			found->folder++;
		}
		a->scanned = found->hash;
		sent = ty_send(a->disk->scanner, &found->msg, TY_DISK_SCAN);
	}
	if (sent != TY_OK)
		disk_found_free(found);
}

static void on_tick(void *self, struct ty_msg *msg)
{
	struct disk_actor *a = self;
	int64_t now = ty_now();

	(void)msg;
	a->ticking = false;
	look_at_lists(a, now);
	if (a->job_count || a->lists)
		keep_ticking(a);
	for (struct disk_job *job = a->jobs; job; job = job->next)
		if (job->io && now >= job->io->deadline)
			give_up(a, job, TY_TIER_LATE);
}

static enum ty_code start(void *self, void *arg)
{
	struct disk_actor *a = self;

	a->tier = arg;
	a->disk = a->tier->state;
	ty_give_way(); /* with the kernel's workers that its ring begins: those who answer requests go first */
	a->aside = atomic_load_explicit(&a->tier->stats.quarantine_bytes, memory_order_relaxed); /* what open() found */
	/* relaxed: as open() set it */
	if (disk_index_init(&a->index, atomic_load_explicit(&a->tier->policy, memory_order_relaxed)))
		return TY_OK;
	ty_log(TY_LOG_ERROR, "tier", "disk: no memory to start with");
	return TY_NO_MEMORY;
}

static void stop(void *self)
{
	struct disk_actor *a = self;

	/* Errands may be out. The kernel has copied the names that it needs; a worker frees what it finds nobody for. */
	for (struct disk_job *job = a->disk->ring.on ? a->jobs : NULL, *next; job; job = next) { /* a worker's may be gone by now */
		next = job->next;
		assert(!job->io);
		disk_job_free(job);
	}
	free(a->gone);
	disk_index_clear(&a->index);
}

static void refuse(void *self, struct ty_msg *msg)
{
	(void)self;
	if (msg->type == DISK_FOUND)
		disk_found_free(ty_container_of(msg, struct disk_found, msg));
	else if (msg->type == DISK_WORKED)
		disk_job_free(ty_container_of(msg, struct disk_job, msg));
}

static const struct ty_handler handlers[] = {
	[TY_TIER_START - TY_TIER_START] = {"start", on_start},
	[TY_TIER_IO - TY_TIER_START] = {"io", on_io},
	[TY_TIER_STOP - TY_TIER_START] = {"stop", on_stop},
	[TY_TIER_PACKED - TY_TIER_START] = {"packed", on_packed},
	[DISK_WORKED - TY_TIER_START] = {"worked", on_worked},
	[DISK_FOUND - TY_TIER_START] = {"found", on_found},
	[DISK_TICK - TY_TIER_START] = {"tick", on_tick},
	[DISK_CHECKED - TY_TIER_START] = {"checked", on_checked},
};

static const struct ty_class disk_class = {
	.name = "disk",
	.state_size = sizeof(struct disk_actor),
	.first_type = TY_TIER_START,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.stop = stop,
	.refuse = refuse,
	.poll = poll_ring,
	.wait = {wait_for_events, wake},
};

/* ---- the kind ---------------------------------------------------------------------------------------------- */

static enum ty_code spawn_one(struct ty_tier *tier, const struct ty_class *cls, const char *thread, struct ty_actor **out,
	struct ty_error *err)
{
	struct ty_spawn_options options = {.size = sizeof options, .executor = TY_DEDICATED, .thread_name = thread, .cpu = -1};
	enum ty_code code = ty_spawn(tier->service->rt, cls, tier->state, &options, out);

	return code == TY_OK ? TY_OK : ty_fail(err, code, "could not start the actor %s", cls->name);
}

static enum ty_code spawn_others(struct ty_tier *tier, struct ty_error *err)
{
	struct disk *d = tier->state;
	enum ty_code code = spawn_one(tier, &disk_scanner_class, "disk-scan", &d->scanner, err);

	for (uint32_t i = 0; code == TY_OK && !d->ring.on && i < d->worker_count; i++)
		code = spawn_one(tier, &disk_worker_class, "disk-work", &d->worker[i], err);
	return code;
}

static void resized(struct ty_tier *tier)
{
	struct disk *d = tier->state;
	uint64_t one = 1;

	(void)!write(d->event_fd, &one, sizeof one);
}

static void release_others(struct ty_tier *tier)
{
	struct disk *d = tier->state;

	if (d->scanner)
		ty_actor_unref(d->scanner);
	for (uint32_t i = 0; i < d->worker_count; i++)
		if (d->worker[i])
			ty_actor_unref(d->worker[i]);
}

const struct ty_tier_class ty_disk_tier = {
	.kind = "disk",
	.open = disk_open,
	.close = disk_close,
	.actor = &disk_class,
	.executor = TY_DEDICATED,
	.resized = resized,
	.spawn = spawn_others,
	.release = release_others,
};
