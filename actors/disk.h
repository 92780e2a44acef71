/* SPDX-License-Identifier: Apache-2.0
 *
 * The disk tier: --tier disk:FOLDER[:FOLDER...]. One file a chunk, by io_uring straight from and to the arena where the
 * system allows it. docs/disk.md. Shared by its files and nobody else:
 *
 *   disk_open.c        the folders: what they are, before anything runs
 *   disk.c             the actor: its messages, its waiting, its threads. Its state is disk_state.h's, for the next four, too
 *   disk_operations.c  what an operation asks for
 *   disk_carry.c       jobs that are out, from step to step, and what came of each
 *   disk_removal.c     what goes: to make room, because it is wrong, because it is there twice
 *   disk_found.c       what the scan finds
 *   disk_index.c       what is there: key -> entry
 *   disk_order.c       which of it goes next
 *   disk_job.c         one file: its steps, what follows on each; and the steps by ordinary system calls
 *   disk_ring.c        the steps by io_uring
 *   disk_scan.c        the actors beside it: workers where there is no io_uring, and the scan at the start
 */
#ifndef TY_ACTORS_DISK_H
#define TY_ACTORS_DISK_H

#include <liburing.h>
#include <stdalign.h>

#include "service.h"

#define DISK_FOLDERS 8
#define DISK_HASH_FOLDERS 256       /* in each: by the key's first byte */
#define DISK_WORKERS 8              /* at most, where there is no io_uring */
#define DISK_QUARANTINE ((uint64_t)1 << 30) /* quarantine=, bytes of wrong files that are kept */
#define DISK_NAME_MAX 128
#define DISK_FILES (TY_TIER_LANES * 1024 + 64) /* open at once: as many as a tier may have operations, and errands */
#define DISK_FORMAT "tyer-disk"     /* the file that says what a folder is, and ... */
#define DISK_FORMAT_TEXT "tyer-disk 1\n"
#define DISK_SUFFIX ".tyer"

struct disk_folder {
	int fd, lock_fd;
	char path[TY_CONFIG_TIER_MAX];
	_Atomic bool direct;        /* the file system takes O_DIRECT. Cleared by whoever learns that it does not (relaxed) */
};

struct disk_ring {
	struct io_uring ring;
	bool on, fixed;              /* it is there; the arena's pieces can be registered with it */
	uint8_t *registered;         /* a piece's: 1 */
	uint32_t free_file[DISK_FILES], free_files;
	const struct ty_arena *arena;
};

/* What open() found; constant while actors run, but for `direct` and the ring, which is the actor's. */
struct disk {
	struct ty_tier *tier;
	struct disk_folder folder[DISK_FOLDERS];
	uint32_t folder_count, worker_count;
	struct disk_ring ring;
	int event_fd;               /* told by the ring's completions and by whoever sends to the actor */
	bool sync;
	uint64_t quarantine;        /* bytes of wrong files that are kept, of all folders together */
	uint64_t boot;              /* in the names of temporary files: those of others are leftovers */
	struct ty_actor *worker[DISK_WORKERS], *scanner;
};

/* ---- disk_open.c ---- */

TY_MUST_USE enum ty_code disk_open(struct ty_tier *tier, struct ty_error *err);
void disk_close(struct ty_tier *tier);

/* ---- disk_index.c ---- */

struct disk_shape { /* of a chunk */
	struct ty_key key;
	uint32_t name;                      /* whose it is; 0: the chunk does not say */
	uint32_t parts;
	const uint64_t *length;
	const uint64_t *stored;             /* bytes that a part takes, packed, or 0: as it is. Null: none is packed */
};

struct disk_entry {
	struct disk_entry *next;            /* of its bucket */
	struct ty_entry entry;              /* its place in the order; `band`: the turn of the policy that it is under */
	struct ty_key key;
	uint64_t bytes;                     /* of the file */
	uint64_t serial;                    /* another entry of the same key has another one */
	uint32_t name;                      /* taken */
	uint8_t folder, parts;
	bool packed;
	uint64_t length[];                  /* of the parts; packed: behind it, in 32 bits each, what they take, or 0 */
};

/* Bytes that a part takes, packed; 0: it lies as it is. */
uint64_t disk_entry_stored(const struct disk_entry *entry, uint32_t part);

/* ---- disk_order.c ---- */

struct disk_order {
	struct ty_policy *now, *before;     /* before: what was under the policy before goes first. Null: nothing is */
	uint8_t turn;
};

bool disk_order_init(struct disk_order *o, const struct ty_policy_class *cls); /* false: no memory */
void disk_order_close(struct disk_order *o); /* the entries are not its own */
void disk_order_add(struct disk_order *o, struct disk_entry *entry, bool oldest);
void disk_order_touch(struct disk_order *o, struct disk_entry *entry);
void disk_order_remove(struct disk_order *o, struct disk_entry *entry, bool evicted); /* evicted: to make room */
struct disk_entry *disk_order_victim(struct disk_order *o); /* the one to go next, which stays; null: there is none */
/* From now on by that policy. False: not yet (it has moved some), or no memory: again. */
bool disk_order_change(struct disk_order *o, const struct ty_policy_class *cls);

/* ---- disk_index.c ---- */

struct disk_index {
	struct disk_entry **segment[1u << 12]; /* buckets, SEGMENT each: grows bucket by bucket (linear hashing) */
	uint32_t buckets, round;            /* round: the power of two that it grew from */
	struct disk_order order;
	struct ty_tier_names names;         /* of its entries */
	uint64_t count, bytes, serials;
};

bool disk_index_init(struct disk_index *x, const struct ty_policy_class *policy); /* false: no memory */
void disk_index_clear(struct disk_index *x);
struct disk_entry *disk_index_find(const struct disk_index *x, const struct ty_key *key);
/* A new entry, the youngest (or the oldest), of `whose` (null: the chunk does not say; shape->name is not looked at); replaces one of the
 * same key. Null: no memory. */
struct disk_entry *disk_index_put(struct disk_index *x, const struct disk_shape *shape, const struct ty_identity *whose, uint32_t folder,
	bool oldest);
void disk_index_touch(struct disk_index *x, struct disk_entry *entry);
void disk_index_remove(struct disk_index *x, struct disk_entry *entry, bool evicted); /* and free it. evicted: to make room */
/* A LIST's: DONE, or FAILED and why. */
enum ty_tier_outcome disk_index_page(const struct disk_index *x, struct ty_tier_page *page, const char **why);

/* ---- disk_job.c ---- */

enum disk_work { DISK_PUT, DISK_GET, DISK_REMOVE, DISK_ISOLATE };
enum disk_step { DISK_OPEN, DISK_MOVE, DISK_SYNC, DISK_CLOSE, DISK_CHECK, DISK_RENAME, DISK_UNLINK, DISK_OVER };

/* Who may touch the memory of a worker's io. */
enum disk_hold {
	DISK_LOOSE,    /* nobody: the disk actor may answer it at any time */
	DISK_HELD,     /* the worker, for as long as a copy or a verification takes */
	DISK_GIVEN_UP, /* nobody any more: it was answered */
};

struct disk_job {
	alignas(TY_ENVELOPE_ALIGN) uint8_t header[TY_ENVELOPE_BYTES];
	struct ty_msg msg;                  /* to a worker and back */
	struct ty_bytework bytework;        /* the CHECK step, where others wait for this actor */
	struct ty_packer *packer;           /* of the thread that does it; null: it has none */
	struct ty_tier_unpack *unpack;      /* GET: where packed parts are read to; null: none is packed */
	struct disk *disk;
	struct ty_actor *home;              /* the disk actor */
	struct ty_tier_io *io;              /* null: an errand of the tier's own. A worker looks at it only while it holds it */
	_Atomic int hold;                   /* enum disk_hold. LOOSE to GIVEN_UP: the actor; LOOSE to HELD and back: the worker. A taking is
	                                       acquire, a letting go release: they pair with each other */
	bool answered;                      /* the actor's: it has given it up */
	uint8_t *staging;                   /* a worker's: what moves goes through memory of the job's own ... */
	uint64_t staging_bytes;
	bool staged;
	uint8_t *staged_at[TY_CHUNK_MAX_PARTS]; /* ... each part here; null: it is not wanted */
	enum disk_work work;
	enum disk_step step;
	struct ty_envelope shape;           /* of the chunk; GET: its checksums once the header was read */
	uint32_t folder;
	uint64_t serial;                    /* GET: of the entry that it is of */
	int fd;                             /* with io_uring: its place in the ring's table */
	bool direct;
	bool unwanted;                      /* PUT: it was deleted since */
	uint64_t isolated;                  /* ISOLATE: bytes of the file */
	uint32_t looked;                    /* REMOVE of an io: folders so far ... */
	bool removed;                       /* ... and one of them had it */
	char name[DISK_NAME_MAX], temp[DISK_NAME_MAX]; /* in the folder; ISOLATE: from, to */
	uint64_t moved, expected;           /* bytes of this step */
	struct iovec vector[1 + TY_CHUNK_MAX_PARTS]; /* of what moves together; until the kernel has taken it */
	uint32_t vectors;
	int error;                          /* errno of what went wrong first, 0 */
	enum ty_tier_outcome outcome;
	char why[112];
	struct disk_job *next, **link;      /* of the actor's */
	struct disk_job *next_held;
};

struct disk_move { /* a stretch of a file, and where it lies in memory */
	uint8_t *data;
	uint64_t bytes, offset;
	bool arena;
};

struct disk_job *disk_job_create(struct disk *disk, enum disk_work work, const struct ty_key *key, uint32_t folder);
void disk_job_empty(struct disk_job *job); /* its memory beside itself goes: nothing moves any more */
void disk_job_free(struct disk_job *job);
/* The stretches of the MOVE step: the header, then the parts that are wanted. At most 1 + TY_CHUNK_MAX_PARTS. */
uint32_t disk_job_moves(struct disk_job *job, struct disk_move moves[1 + TY_CHUNK_MAX_PARTS]);
/* Of these moves the first, and those behind it that follow it in the file and are smaller than `large` bytes, as a vector of the
 * job's, which lives as long as it. Returns how many. */
uint32_t disk_job_gather(struct disk_job *job, const struct disk_move *moves, uint32_t count, uint64_t large,
	const struct iovec **vector);
/* A result of the current step: bytes or a descriptor, or -errno. */
void disk_job_result(struct disk_job *job, int result);
/* All results of the step are here: which step follows. At OVER outcome and why are set. */
void disk_job_next(struct disk_job *job);
int disk_job_open_flags(const struct disk_job *job);
/* A worker's, before MOVE: its own memory is there, and (PUT) filled. Before CHECK: what was read is in its places. False: it was given
 * up, or there is no memory: job->error says so. */
TY_MUST_USE bool disk_job_stage(struct disk_job *job);
TY_MUST_USE bool disk_job_unstage(struct disk_job *job);
/* The actor's: answer its io. False: the worker is at its memory, and soon done. */
TY_MUST_USE bool disk_job_give_up(struct disk_job *job);
/* Do the current step, by system calls or (CHECK: what was read is verified) in memory, and record its results. Takes its time. */
void disk_job_perform(struct disk_job *job);

/* ---- disk_ring.c ---- */

/* Is io_uring to be had, with all that is needed? If not, `why` says why not. Before the actor runs. */
bool disk_ring_open(struct disk_ring *r, const struct ty_arena *arena, int event_fd, char why[96]);
void disk_ring_close(struct disk_ring *r);
/* From the job's current step on. False: the kernel takes nothing now. */
bool disk_ring_begin(struct disk_ring *r, struct disk_job *job);
void disk_ring_cancel(struct disk_ring *r, struct disk_job *job); /* its current step, if that is possible */
void disk_ring_submit(struct disk_ring *r);
/* The next job that has come to a result, which is the last step's or the failed one's; null: none now. */
struct disk_job *disk_ring_reap(struct disk_ring *r);

/* ---- disk_scan.c ---- */

struct disk_found { /* what lies in one hash folder; travels between scanner and actor */
	struct ty_msg msg;
	uint32_t folder, hash;      /* which one was read */
	bool last;
	uint32_t at, count, room;   /* those before `at` have been taken in */
	struct disk_shape *item;    /* their lengths are allocated (with `stored` behind them), their names numbers in the message's own: */
	struct ty_tier_names names;
};

void disk_found_free(struct disk_found *found);
extern const struct ty_class disk_worker_class, disk_scanner_class; /* arg: struct disk */

/* Messages between them, beside those of a tier. */
enum {
	DISK_WORKED = TY_TIER_OWN, /* struct disk_job    from a worker: all its steps are done */
	DISK_FOUND,                /* struct disk_found  from the scanner */
	DISK_TICK,                 /* its timer, while jobs are out */
	DISK_CHECKED,              /* a job's struct ty_bytework: home again */
};

#endif
