/* SPDX-License-Identifier: Apache-2.0
 *
 *   PUT      open a temporary file, write, (sync,) close, rename      any failure: close, unlink
 *   GET      open, read, close; then header and contents are verified, and what is packed is unpacked
 *   REMOVE   unlink
 *   ISOLATE  rename into quarantine
 */
#include "disk.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static void name_of(const struct ty_key *key, char out[DISK_NAME_MAX])
{
	static const char digits[] = "0123456789abcdef";
	char *at = out;

	*at++ = digits[key->bytes[0] >> 4];
	*at++ = digits[key->bytes[0] & 15];
	*at++ = '/';
	for (size_t i = 0; i < sizeof key->bytes; i++) {
		*at++ = digits[key->bytes[i] >> 4];
		*at++ = digits[key->bytes[i] & 15];
	}
	memcpy(at, DISK_SUFFIX, sizeof DISK_SUFFIX);
}

struct disk_job *disk_job_create(struct disk *disk, enum disk_work work, const struct ty_key *key, uint32_t folder)
{
	struct disk_job *job = aligned_alloc(TY_ENVELOPE_ALIGN, sizeof *job);

	if (!job)
		return NULL;
	memset((char *)job + sizeof job->header, 0, sizeof *job - sizeof job->header);
	job->disk = disk;
	job->work = work;
	job->step = work == DISK_REMOVE ? DISK_UNLINK : work == DISK_ISOLATE ? DISK_RENAME : DISK_OPEN;
	job->shape.key = *key;
	job->folder = folder;
	job->fd = -1;
	/* relaxed: a hint; a wrong one is found out */
	job->direct = atomic_load_explicit(&disk->folder[folder].direct, memory_order_relaxed);
	name_of(key, job->name);
	return job;
}

void disk_job_empty(struct disk_job *job)
{
	ty_tier_unpack_free(job->unpack);
	ty_tier_buffer_free(job->disk->tier, job->staging, job->staging_bytes);
	job->unpack = NULL;
	job->staging = NULL;
}

void disk_job_free(struct disk_job *job)
{
	disk_job_empty(job);
	free(job);
}

int disk_job_open_flags(const struct disk_job *job)
{
	int flags = O_CLOEXEC | O_NOFOLLOW | (job->direct ? O_DIRECT : 0);

	return flags | (job->work == DISK_PUT ? O_WRONLY | O_CREAT | O_EXCL : O_RDONLY);
}

/* Where a part's bytes, as they lie in the file, are or are read to; null: it is not wanted. */
static uint8_t *place_of(const struct disk_job *job, uint32_t part)
{
	if (job->staged)
		return job->staged_at[part];
	if (job->work == DISK_PUT)
		return ty_tier_bytes(job->io, part);
	if (job->unpack && job->shape.packed[part].stored)
		return job->unpack->stored.data[part];
	return job->io->part[part].data;
}

uint32_t disk_job_moves(struct disk_job *job, struct disk_move moves[1 + TY_CHUNK_MAX_PARTS])
{
	uint64_t offset = TY_ENVELOPE_BYTES;
	uint32_t count = 0;

	moves[count++] = (struct disk_move){job->header, TY_ENVELOPE_BYTES, 0, false};
	job->expected = TY_ENVELOPE_BYTES;
	for (uint32_t i = 0; i < job->shape.parts; i++) {
		uint64_t bytes = ty_envelope_padded(ty_envelope_stored(&job->shape, i));
		uint8_t *data = place_of(job, i);

		if (data) {
			moves[count++] = (struct disk_move){data, bytes, offset, !job->staged && !job->io->aside && data == job->io->part[i].data};
			job->expected += bytes;
		}
		offset += bytes;
	}
	job->moved = 0;
	job->vectors = 0;
	return count;
}

uint32_t disk_job_gather(struct disk_job *job, const struct disk_move *moves, uint32_t count, uint64_t large,
	const struct iovec **vector)
{
	struct iovec *out = &job->vector[job->vectors];
	uint64_t end = moves->offset;
	uint32_t taken = 0;

	do {
		out[taken] = (struct iovec){moves[taken].data, moves[taken].bytes};
		end += moves[taken].bytes;
		taken++;
	} while (taken < count && moves[taken].offset == end && moves[taken].bytes < large);
	job->vectors += taken;
	*vector = out;
	return taken;
}

void disk_job_result(struct disk_job *job, int result)
{
	if (result < 0) {
		if (!job->error)
			job->error = -result;
		return;
	}
	if (job->step == DISK_OPEN)
		job->fd = result;
	else if (job->step == DISK_MOVE)
		job->moved += (uint64_t)result;
}

/* ---- what came of it ------------------------------------------------------------------------------------- */

TY_PRINTF(3, 4)
static void conclude(struct disk_job *job, enum ty_tier_outcome outcome, const char *fmt, ...)
{
	va_list args;

	job->outcome = outcome;
	va_start(args, fmt);
	vsnprintf(job->why, sizeof job->why, fmt, args);
	va_end(args);
}

static enum ty_tier_outcome outcome_of(const struct disk_job *job)
{
	switch (job->error) {
	case 0:
		return TY_TIER_DONE;
	case ENOENT:
		return job->work == DISK_PUT ? TY_TIER_FAILED : TY_TIER_MISSING;
	case ENOSPC:
	case EDQUOT:
		return TY_TIER_FULL;
	case ECANCELED:
		return TY_TIER_LATE;
	default:
		return TY_TIER_FAILED;
	}
}

/* Is what was read the chunk that was asked for, every byte of it? */
static void verify(struct disk_job *job)
{
	const struct ty_tier_stored *stored = job->unpack ? &job->unpack->stored : NULL;
	struct ty_error err = {.text = ""};
	struct ty_packer own = {0};

	if (job->moved != job->expected)
		conclude(job, TY_TIER_CORRUPT, "%s: shorter than its header says", job->name);
	else if ((job->outcome = ty_tier_check(job->disk->tier, job->io, job->header, stored, job->packer ? job->packer : &own, &err)) !=
		 TY_TIER_DONE)
		conclude(job, job->outcome, "%.100s", err.text);
	ty_packer_clear(&own);
}

static void over(struct disk_job *job)
{
	job->step = DISK_OVER;
	job->outcome = outcome_of(job);
	if (job->error)
		conclude(job, job->outcome, "%s: %.72s", strerror(job->error), job->name); /* the end may be cut off */
}

/* The file system takes no O_DIRECT after all: say so once, and begin anew without. */
static bool without_direct(struct disk_job *job)
{
	if (job->error != EINVAL || !job->direct)
		return false;
	/* relaxed: as in disk_job_create */
	atomic_store_explicit(&job->disk->folder[job->folder].direct, false, memory_order_relaxed);
	job->direct = false;
	job->error = 0;
	return true;
}

void disk_job_next(struct disk_job *job)
{
	switch (job->step) {
	case DISK_OPEN:
		if (without_direct(job))
			return; /* once more */
		if (job->error)
			over(job);
		else
			job->step = DISK_MOVE;
		break;
	case DISK_MOVE:
		if (!job->error && job->work == DISK_PUT && job->moved != job->expected)
			job->error = ENOSPC; /* what a short write means to a file */
		job->step = job->work == DISK_PUT && !job->error && job->disk->sync ? DISK_SYNC : DISK_CLOSE;
		break;
	case DISK_SYNC:
		job->step = DISK_CLOSE;
		break;
	case DISK_CLOSE:
		job->fd = -1;
		if (job->work == DISK_PUT)
			job->step = job->error ? DISK_UNLINK : DISK_RENAME;
		else if (job->error)
			over(job);
		else
			job->step = DISK_CHECK;
		break;
	case DISK_CHECK:
		job->step = DISK_OVER;
		break;
	case DISK_RENAME:
		if (job->work == DISK_PUT && job->error)
			job->step = DISK_UNLINK;
		else
			over(job);
		break;
	case DISK_UNLINK:
	case DISK_OVER:
		over(job);
		break;
	}
}

/* ---- a worker's own memory ------------------------------------------------------------------------------------------- */

/* A system call cannot be taken back: for as long as it lasts, which may be for ever, its memory is the kernel's. So it is the job's, and
 * not the io's, which may be answered, and its memory used again, in the middle of one. */

static bool hold(struct disk_job *job)
{
	int loose = DISK_LOOSE;

	if (atomic_compare_exchange_strong_explicit(&job->hold, &loose, DISK_HELD, memory_order_acquire, memory_order_relaxed))
		return true;
	job->error = ECANCELED;
	return false;
}

static void let_loose(struct disk_job *job)
{
	atomic_store_explicit(&job->hold, DISK_LOOSE, memory_order_release);
}

bool disk_job_give_up(struct disk_job *job)
{
	int loose = DISK_LOOSE;

	job->answered = atomic_compare_exchange_strong_explicit(&job->hold, &loose, DISK_GIVEN_UP, memory_order_acquire, memory_order_relaxed);
	return job->answered;
}

/* Packed parts of a GET are read to memory of their own anyway. */
static bool needs_staging(const struct disk_job *job, uint32_t part)
{
	return !(job->unpack && job->shape.packed[part].stored) && place_of(job, part);
}

static bool stage(struct disk_job *job)
{
	uint64_t at = 0;

	for (uint32_t i = 0; i < job->shape.parts; i++)
		if (needs_staging(job, i))
			job->staging_bytes += ty_envelope_padded(ty_envelope_stored(&job->shape, i));
	job->staging = job->staging_bytes ? ty_tier_buffer(job->disk->tier, job->staging_bytes) : NULL;
	if (job->staging_bytes && !job->staging) {
		job->staging_bytes = 0;
		job->error = ENOMEM;
		return false;
	}
	for (uint32_t i = 0; i < job->shape.parts; i++) {
		uint64_t bytes = ty_envelope_padded(ty_envelope_stored(&job->shape, i));
		uint8_t *place = place_of(job, i);

		job->staged_at[i] = place;
		if (!needs_staging(job, i))
			continue;
		job->staged_at[i] = job->staging + at;
		at += bytes;
		if (job->work == DISK_PUT)
			memcpy(job->staged_at[i], place, bytes);
	}
	return true;
}

bool disk_job_stage(struct disk_job *job)
{
	if (!hold(job))
		return false;
	if (!job->staged)
		job->staged = stage(job);
	let_loose(job);
	return job->staged;
}

bool disk_job_unstage(struct disk_job *job)
{
	if (!hold(job)) /* from here on it is at home soon */
		return false;
	job->staged = false;
	for (uint32_t i = 0; i < job->shape.parts; i++)
		if (needs_staging(job, i))
			memcpy(place_of(job, i), job->staged_at[i], ty_envelope_padded(ty_envelope_stored(&job->shape, i)));
	return true;
}

/* ---- by system calls, and in memory --------------------------------------------------------------------------------------- */

static int move_all(struct disk_job *job)
{
	struct disk_move moves[1 + TY_CHUNK_MAX_PARTS];
	uint32_t count = disk_job_moves(job, moves);

	for (uint32_t i = 0, taken; i < count; i += taken) {
		uint64_t bytes = 0;
		const struct iovec *vector;
		ssize_t n;

		taken = disk_job_gather(job, &moves[i], count - i, UINT64_MAX, &vector);
		do
			n = job->work == DISK_PUT ? pwritev(job->fd, vector, (int)taken, (off_t)moves[i].offset)
						  : preadv(job->fd, vector, (int)taken, (off_t)moves[i].offset);
		while (n < 0 && errno == EINTR);
		if (n < 0)
			return -errno;
		job->moved += (uint64_t)n;
		for (uint32_t k = 0; k < taken; k++)
			bytes += vector[k].iov_len;
		if ((uint64_t)n != bytes)
			break;
	}
	return 0;
}

static int or_errno(int result)
{
	return result < 0 ? -errno : result;
}

void disk_job_perform(struct disk_job *job)
{
	int folder = job->disk->folder[job->folder].fd;
	const char *put_to = job->work == DISK_PUT ? job->temp : job->name;

	switch (job->step) {
	case DISK_OPEN:
		/* a pipe in its place would be waited for; files are read as ever */
		disk_job_result(job, or_errno(openat(folder, put_to, disk_job_open_flags(job) | O_NONBLOCK, 0600)));
		break;
	case DISK_MOVE:
		disk_job_result(job, move_all(job));
		break;
	case DISK_SYNC:
		disk_job_result(job, or_errno(fdatasync(job->fd)));
		break;
	case DISK_CLOSE:
		disk_job_result(job, or_errno(close(job->fd)));
		break;
	case DISK_CHECK:
		verify(job);
		break;
	case DISK_RENAME:
		disk_job_result(job, or_errno(job->work == DISK_PUT ? renameat(folder, job->temp, folder, job->name)
								    : renameat(folder, job->name, folder, job->temp)));
		break;
	case DISK_UNLINK:
		disk_job_result(job, or_errno(unlinkat(folder, put_to, 0)));
		break;
	case DISK_OVER:
		break;
	}
}
