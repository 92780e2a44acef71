/* SPDX-License-Identifier: Apache-2.0
 *
 * Jobs by io_uring. All steps of a file are one chain of linked operations, which the kernel goes through by itself; one
 * completion comes back, of the last one or of the one that failed. The file lives in the ring's own table. The arena's pieces are registered when the first slot in them moves: such a slot is in use, so its piece has
 * pages.
 */
#include "disk.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ioprio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define ENTRIES 1024      /* of the submission queue */
#define CHAIN_MAX (TY_CHUNK_MAX_PARTS + 8) /* of them, for one job */
#define LARGE (256u << 10) /* bytes from which on a part is moved by itself, registered */
#define MAX_BUFFERS 16384 /* the kernel's own limit; pieces beyond it move unregistered */

/* What disk_ring_begin prepares; older kernels lack some of it. */
static const int needed[] = {IORING_OP_OPENAT, IORING_OP_CLOSE, IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_READ_FIXED,
	IORING_OP_WRITE_FIXED, IORING_OP_FSYNC, IORING_OP_RENAMEAT, IORING_OP_UNLINKAT, IORING_OP_ASYNC_CANCEL};

static bool has_operations(struct disk_ring *r, char why[96])
{
	struct io_uring_probe *probe = io_uring_get_probe_ring(&r->ring);
	bool all = probe != NULL && r->ring.features & IORING_FEAT_CQE_SKIP;

	for (size_t i = 0; i < sizeof needed / sizeof needed[0] && all; i++)
		all = io_uring_opcode_supported(probe, needed[i]);
	io_uring_free_probe(probe);
	if (!all)
		snprintf(why, 96, "this kernel's io_uring lacks operations");
	return all;
}

bool disk_ring_open(struct disk_ring *r, const struct ty_arena *arena, int event_fd, char why[96])
{
	uint32_t pieces = arena->pieces < MAX_BUFFERS ? arena->pieces : MAX_BUFFERS;
	int error = io_uring_queue_init(ENTRIES, &r->ring, IORING_SETUP_CLAMP);

	r->on = error == 0;
	r->arena = arena;
	if (r->on && has_operations(r, why)) {
		error = io_uring_register_eventfd(&r->ring, event_fd);
		if (error == 0)
			error = io_uring_register_files_sparse(&r->ring, DISK_FILES);
		while (r->free_files < DISK_FILES) {
			r->free_file[r->free_files] = r->free_files;
			r->free_files++;
		}
		r->registered = calloc(arena->pieces, 1);
		r->fixed = r->registered && io_uring_register_buffers_sparse(&r->ring, pieces) == 0;
		if (error == 0)
			return true;
	}
	if (error)
		snprintf(why, 96, "no io_uring here (%s)", strerror(-error));
	disk_ring_close(r);
	return false;
}

void disk_ring_close(struct disk_ring *r)
{
	if (r->on)
		io_uring_queue_exit(&r->ring);
	free(r->registered);
	r->on = false;
	r->registered = NULL;
}

/* Its place in the ring's table of files is free. */
static void give_file(struct disk_ring *r, struct disk_job *job)
{
	if (job->fd < 0)
		return;
	r->free_file[r->free_files++] = (uint32_t)job->fd;
	job->fd = -1;
}

/* The piece that holds the memory, if it is registered (now); -1: move it unregistered. */
static int fixed_buffer(struct disk_ring *r, const uint8_t *data)
{
	uint64_t piece = (uint64_t)(data - r->arena->base) / TY_PIECE_BYTES;
	__u64 tag = 0;
	struct iovec memory = {r->arena->base + piece * TY_PIECE_BYTES, TY_PIECE_BYTES};
	int done;

	if (!r->fixed || piece >= MAX_BUFFERS)
		return -1;
	if (r->registered[piece])
		return (int)piece;
	done = io_uring_register_buffers_update_tag(&r->ring, (unsigned)piece, &memory, &tag, 1);
	if (done == 1) {
		r->registered[piece] = 1;
		return (int)piece;
	}
	r->fixed = false; /* the limit of locked memory, mostly: those that are registered stay */
	ty_log(TY_LOG_WARN, "tier", "disk: the arena cannot be registered with io_uring (%s): its pages are looked up at each"
		" operation; raise the limit of locked memory", strerror(done < 0 ? -done : EIO));
	return -1;
}

/* One more operation of a chain. Only the last one, or the one that fails, comes back: it brings the job and the step. */
static struct io_uring_sqe *chain(struct io_uring_sqe *sqe, struct disk_job *job, enum disk_step step, bool last)
{
	static_assert(DISK_OVER < TY_ENVELOPE_ALIGN, "a job's address has room for a step");
	io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)job | (uint64_t)step);
	if (!last)
		sqe->flags |= IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;
	return sqe;
}

/* The registered one, or as many small ones as lie behind each other: looking up their pages costs less than another
 * operation. Returns how many it took. */
static uint32_t prepare_move(struct disk_ring *r, struct disk_job *job, struct io_uring_sqe *sqe, const struct disk_move *m,
	uint32_t count)
{
	int buffer = m->arena && m->bytes >= LARGE ? fixed_buffer(r, m->data) : -1;
	bool put = job->work == DISK_PUT;
	const struct iovec *vector;
	uint32_t taken;

	if (buffer >= 0) {
		if (put)
			io_uring_prep_write_fixed(sqe, job->fd, m->data, (unsigned)m->bytes, m->offset, buffer);
		else
			io_uring_prep_read_fixed(sqe, job->fd, m->data, (unsigned)m->bytes, m->offset, buffer);
		return 1;
	}
	taken = disk_job_gather(job, m, count, LARGE, &vector);
	if (put)
		io_uring_prep_writev(sqe, job->fd, vector, taken, m->offset);
	else
		io_uring_prep_readv(sqe, job->fd, vector, taken, m->offset);
	return taken;
}

static void chain_moves(struct disk_ring *r, struct disk_job *job)
{
	struct disk_move moves[1 + TY_CHUNK_MAX_PARTS];
	uint32_t count = disk_job_moves(job, moves);

	for (uint32_t i = 0; i < count;) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&r->ring);

		i += prepare_move(r, job, sqe, &moves[i], count - i);
		sqe->flags |= IOSQE_FIXED_FILE;
		if (job->io->aside)
			sqe->ioprio = IOPRIO_CLASS_IDLE << IOPRIO_CLASS_SHIFT; /* where the device's scheduler knows of it */
		chain(sqe, job, DISK_MOVE, false);
	}
}

static void prepare_rename(struct io_uring_sqe *sqe, const struct disk_job *job)
{
	int folder = job->disk->folder[job->folder].fd;
	bool put = job->work == DISK_PUT;

	io_uring_prep_renameat(sqe, folder, put ? job->temp : job->name, folder, put ? job->name : job->temp, 0);
}

/* A file from its opening to its closing, and its name. */
static void begin_file(struct disk_ring *r, struct disk_job *job)
{
	int folder = job->disk->folder[job->folder].fd;
	bool put = job->work == DISK_PUT;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&r->ring);

	job->fd = (int)r->free_file[--r->free_files]; /* as many as there may be jobs */
	/* a file in the ring's own table cannot be inherited, and may not be asked to */
	io_uring_prep_openat_direct(sqe, folder, put ? job->temp : job->name, disk_job_open_flags(job) & ~O_CLOEXEC, 0600,
		(unsigned)job->fd);
	chain(sqe, job, DISK_OPEN, false);
	chain_moves(r, job);
	if (put && job->disk->sync) {
		sqe = io_uring_get_sqe(&r->ring);
		io_uring_prep_fsync(sqe, job->fd, IORING_FSYNC_DATASYNC);
		sqe->flags |= IOSQE_FIXED_FILE;
		chain(sqe, job, DISK_SYNC, false);
	}
	sqe = io_uring_get_sqe(&r->ring);
	io_uring_prep_close_direct(sqe, (unsigned)job->fd);
	chain(sqe, job, DISK_CLOSE, !put);
	if (put) {
		sqe = io_uring_get_sqe(&r->ring);
		prepare_rename(sqe, job);
		chain(sqe, job, DISK_RENAME, true);
	}
}

bool disk_ring_begin(struct disk_ring *r, struct disk_job *job)
{
	int folder = job->disk->folder[job->folder].fd;
	struct io_uring_sqe *sqe;

	/* A chain is submitted in one piece. */
	if (io_uring_sq_space_left(&r->ring) < CHAIN_MAX)
		io_uring_submit(&r->ring);
	if (io_uring_sq_space_left(&r->ring) < CHAIN_MAX)
		return false;
	if (job->step == DISK_OPEN) {
		begin_file(r, job);
		return true;
	}
	sqe = io_uring_get_sqe(&r->ring);
	if (job->step == DISK_CLOSE)
		io_uring_prep_close_direct(sqe, (unsigned)job->fd);
	else if (job->step == DISK_RENAME)
		prepare_rename(sqe, job);
	else
		io_uring_prep_unlinkat(sqe, folder, job->work == DISK_PUT ? job->temp : job->name, 0);
	chain(sqe, job, job->step, true);
	return true;
}

void disk_ring_cancel(struct disk_ring *r, struct disk_job *job)
{
	for (unsigned step = DISK_OPEN; step <= DISK_SYNC; step++) {
		struct io_uring_sqe *sqe;

		if (io_uring_sq_space_left(&r->ring) == 0)
			io_uring_submit(&r->ring);
		sqe = io_uring_get_sqe(&r->ring);
		if (!sqe)
			return; /* the next look at the deadlines tries again */
		io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)job | step, IORING_ASYNC_CANCEL_ALL);
		io_uring_sqe_set_data64(sqe, 0); /* its own result tells nothing */
	}
}

void disk_ring_submit(struct disk_ring *r)
{
	if (io_uring_sq_ready(&r->ring))
		io_uring_submit(&r->ring);
}

struct disk_job *disk_ring_reap(struct disk_ring *r)
{
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&r->ring, &cqe) == 0) {
		uint64_t data = io_uring_cqe_get_data64(cqe), step = data % TY_ENVELOPE_ALIGN;
		struct disk_job *job = (struct disk_job *)(uintptr_t)(data - step);
		int result = cqe->res;

		io_uring_cqe_seen(&r->ring, cqe);
		if (!job)
			continue;
		/* All steps before this one went well; one that moved bytes comes back only because it moved too few. */
		job->step = (enum disk_step)step;
		job->moved = step > DISK_MOVE ? job->expected : 0;
		disk_job_result(job, result < 0 ? result : 0);
		if ((step == DISK_OPEN && result < 0) || step == DISK_CLOSE || step == DISK_RENAME)
			give_file(r, job);
		return job;
	}
	return NULL;
}
