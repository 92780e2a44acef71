/* SPDX-License-Identifier: Apache-2.0
 *
 * What the disk actor's files share. All of it is the actor's own.
 */
#ifndef TY_ACTORS_DISK_STATE_H
#define TY_ACTORS_DISK_STATE_H

#include "disk.h"

struct disk_actor {
	struct disk *disk;
	struct ty_tier *tier;
	struct disk_index index;
	struct disk_job *jobs;     /* that are out */
	struct disk_job *held;     /* of these, those that the kernel did not take yet */
	uint32_t job_count, errands, next_worker;
	uint32_t given_up;         /* jobs whose ios were answered: a worker has them still */
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

/* relaxed: it stands alone */
static inline uint64_t disk_size(const struct disk_actor *a)
{
	return atomic_load_explicit(&a->tier->size, memory_order_relaxed);
}

/* The nth of something that is told in the log: the first, and then ever more seldom. */
static inline bool disk_is_told(uint64_t n)
{
	return (n & (n - 1)) == 0;
}

/* ---- disk.c ---- */

void disk_keep_ticking(struct disk_actor *a); /* its timer, while jobs are out or LISTs wait */

/* ---- disk_operations.c ---- */

/* From there on `io` is a job's or a list's, or has gone home. */
void disk_carry_out(struct disk_actor *a, struct ty_tier_io *io);
/* LISTs that wait: all, where `scanning` and `stopping` say why not any more, or those whose time is over. */
void disk_look_at_lists(struct disk_actor *a, int64_t now);

/* ---- disk_carry.c: jobs that are out ---- */

void disk_begin(struct disk_actor *a, struct disk_job *job);
void disk_begin_held(struct disk_actor *a);                   /* those that the kernel did not take */
void disk_go_on(struct disk_actor *a, struct disk_job *job);  /* its step has come to a result in the ring, or in memory */
void disk_finish(struct disk_actor *a, struct disk_job *job); /* all its steps are done */
/* What it waits for in the kernel. Closing and what makes a file whole are never given up; nor is a removal, but nobody waits for it any
 * more: it touches nothing of the io's. */
void disk_give_up(struct disk_actor *a, struct disk_job *job, enum ty_tier_outcome outcome);

/* ---- disk_removal.c: what goes ---- */

/* A file that is not wanted any more. False: no memory. */
bool disk_errand(struct disk_actor *a, enum disk_work work, const struct ty_key *key, uint32_t folder, uint64_t bytes);
/* Is a file of that key being removed, or will be when it is written? A new one could be taken for it. */
bool disk_is_leaving(const struct disk_actor *a, const struct ty_key *key);
/* The entry that a GET was of, if it is still the one of its key: it may have been removed, and stored anew, since. */
struct disk_entry *disk_entry_of(const struct disk_actor *a, const struct disk_job *job);
bool disk_evict_one(struct disk_actor *a); /* false: nothing can go now */
/* The file system is full before the tier has its size: then what fits is what it may have, and the oldest go for what comes. */
void disk_make_way(struct disk_actor *a, uint64_t bytes);
/* A chunk may lie in two folders, if one was not there when it came again: one of them would outlive its removal. */
void disk_drop_twin(struct disk_actor *a, const struct ty_key *key, uint32_t folder);
/* The file turned out not to be there, or to be of another version. `entry` may be null: nothing is to be forgotten. */
void disk_forget(struct disk_actor *a, struct disk_entry *entry);
/* The file turned out to be wrong: the one that the GET was of goes into quarantine, or away. */
void disk_isolate(struct disk_actor *a, const struct disk_job *job);

/* ---- disk_found.c: what the scan finds ---- */

/* What the scanner has read of that folder, and is on its way, may have been removed since. */
void disk_note_gone(struct disk_actor *a, const struct disk_job *job);
/* A stretch of what was found. */
void disk_take_found(struct disk_actor *a, struct disk_found *found);

#endif
