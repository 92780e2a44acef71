/* SPDX-License-Identifier: Apache-2.0 */
#include "arena.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "memory.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* Whoever is handed the descriptor may neither cut the arena (we would fault) nor seal it further. */
#define ARENA_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static enum ty_code check_size(uint64_t bytes, const struct ty_memory *memory, struct ty_error *err)
{
	if (bytes == 0 || bytes % TY_PIECE_BYTES != 0)
		return ty_fail(err, TY_INVALID,
			"arena size: %" PRIu64 " bytes, expected a multiple of %" PRIu64 " above 0", bytes,
			TY_PIECE_BYTES);
	if (bytes > memory->total)
		return ty_fail(err, TY_INVALID,
			"arena size (--l1-size): %" PRIu64 " bytes, but the machine has %" PRIu64 " (MemTotal)", bytes,
			memory->total);
	if (bytes > memory->limit)
		return ty_fail(err, TY_INVALID,
			"arena size (--l1-size): %" PRIu64 " bytes, but the control group's memory limit is %" PRIu64, bytes,
			memory->limit);
	/* Slot numbers are 32 bits. */
	if (bytes / TY_PIECE_BYTES > UINT32_MAX / TY_SLOTS_PER_PIECE)
		return ty_fail(err, TY_LIMIT, "arena size: %" PRIu64 " bytes, expected at most %" PRIu64, bytes,
			UINT32_MAX / TY_SLOTS_PER_PIECE * TY_PIECE_BYTES);
	return TY_OK;
}

/* A mapping of `bytes` of the descriptor that begins at a multiple of a piece, so that huge pages fit; null: errno. */
static uint8_t *map_aligned(int fd, uint64_t bytes)
{
	uint64_t reserved = bytes + TY_PIECE_BYTES, before, behind;
	uint8_t *space, *base;

	space = mmap(NULL, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (space == MAP_FAILED)
		return NULL;
	before = (TY_PIECE_BYTES - (uint64_t)(uintptr_t)space % TY_PIECE_BYTES) % TY_PIECE_BYTES;
	behind = TY_PIECE_BYTES - before;
	base = space + before;
	if (mmap(base, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
		int saved = errno;

		munmap(space, reserved);
		errno = saved;
		return NULL;
	}
	if (before)
		munmap(space, before);
	if (behind)
		munmap(base + bytes, behind);
	return base;
}

/* Make, size, seal and map; TY_IO or TY_NO_MEMORY. */
static enum ty_code open_memfd(uint64_t bytes, unsigned extra, struct ty_arena *out, struct ty_error *err)
{
	const char *step = "memfd_create";
	enum ty_code code;
	int fd = memfd_create("tyer-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING | extra);

	if (fd < 0)
		goto fail;
	step = "ftruncate";
	if (ftruncate(fd, (off_t)bytes) < 0)
		goto fail;
	step = "seal";
	if (fcntl(fd, F_ADD_SEALS, ARENA_SEALS) < 0)
		goto fail;
	step = "mmap";
	out->base = map_aligned(fd, bytes);
	if (!out->base)
		goto fail;
	out->bytes = bytes;
	out->pieces = (uint32_t)(bytes / TY_PIECE_BYTES);
	out->fd = fd;
	out->huge = extra != 0;
	return TY_OK;

fail:
	code = ty_fail(err, errno == ENOMEM ? TY_NO_MEMORY : TY_IO, "arena of %" PRIu64 " bytes: %s: %s", bytes, step,
		strerror(errno));
	if (fd >= 0)
		close(fd);
	return code;
}

enum ty_code ty_arena_open(uint64_t bytes, struct ty_arena *out, struct ty_error *err)
{
	struct ty_memory memory;
	enum ty_code code;

	*out = (struct ty_arena){.fd = -1};
	code = ty_memory_read("", &memory, err);
	if (code == TY_OK)
		code = check_size(bytes, &memory, err);
	if (code != TY_OK)
		return code;
	/* Mapping hugetlb memory promises us its pages, so a later touch does not fail. If somebody was faster, ordinary
	 * pages do. */
	if (memory.huge_bytes && TY_PIECE_BYTES % memory.huge_bytes == 0 && memory.huge_free >= bytes &&
		open_memfd(bytes, MFD_HUGETLB, out, NULL) == TY_OK)
		return TY_OK;
	code = open_memfd(bytes, 0, out, err);
	if (code == TY_OK)
		(void)madvise(out->base, bytes, MADV_HUGEPAGE); /* a hint: the system may not do it */
	return code;
}

enum ty_code ty_arena_adopt(uint64_t bytes, int fd, struct ty_arena *out, struct ty_error *err)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct statfs fs;
	struct stat st;

	*out = (struct ty_arena){.fd = -1};
	if (seals < 0 || !(seals & F_SEAL_SHRINK))
		return ty_fail(err, TY_INVALID, "arena: the descriptor is no memfd that is sealed against shrinking");
	if (fstat(fd, &st) != 0 || fstatfs(fd, &fs) != 0)
		return ty_fail(err, TY_IO, "arena: fstat: %s", strerror(errno));
	if (st.st_size < 0 || (uint64_t)st.st_size != bytes || bytes == 0 || bytes % TY_PIECE_BYTES != 0)
		return ty_fail(err, TY_INVALID, "arena: the descriptor has %lld bytes, expected %" PRIu64,
			(long long)st.st_size, bytes);
	out->base = map_aligned(fd, bytes);
	if (!out->base)
		return ty_fail(err, errno == ENOMEM ? TY_NO_MEMORY : TY_IO, "arena of %" PRIu64 " bytes: mmap: %s", bytes,
			strerror(errno));
	out->bytes = bytes;
	out->pieces = (uint32_t)(bytes / TY_PIECE_BYTES);
	out->fd = fd;
	out->huge = fs.f_type == HUGETLBFS_MAGIC;
	if (!out->huge)
		(void)madvise(out->base, bytes, MADV_HUGEPAGE); /* a hint, as in ty_arena_open */
	return TY_OK;
}

void ty_arena_close(struct ty_arena *arena)
{
	if (arena->base)
		munmap(arena->base, arena->bytes);
	if (arena->fd >= 0)
		close(arena->fd);
	*arena = (struct ty_arena){.fd = -1};
}

static enum ty_code populate_failed(const char *step, uint64_t offset, uint64_t bytes, int error, struct ty_error *err)
{
	return ty_fail(err, error == ENOMEM || error == ENOSPC ? TY_NO_MEMORY : TY_IO,
		"arena: %s of %" PRIu64 " bytes at %" PRIu64 ": %s", step, bytes, offset, strerror(error));
}

/* Give the file its pages, or an error where a touch would be a signal. What is there already stays. The first call makes
 * the pages and leaves it to whoever comes next to clear them; the second one clears, so that mapping them, the one step
 * that holds the address space's lock, has nothing left to do but to map. */
static enum ty_code allocate(const struct ty_arena *arena, uint64_t offset, uint64_t bytes, struct ty_error *err)
{
	for (int pass = 0; bytes && pass < 2; pass++)
		while (fallocate(arena->fd, 0, (off_t)offset, (off_t)bytes) < 0)
			if (errno != EINTR)
				return populate_failed("allocate", offset, bytes, errno, err);
	return TY_OK;
}

static enum ty_code check_range(const struct ty_arena *arena, const char *step, uint64_t offset, uint64_t bytes, struct ty_error *err)
{
	uint64_t end;

	if (__builtin_add_overflow(offset, bytes, &end) || end > arena->bytes || offset % TY_SLOT_ALIGN != 0)
		return ty_fail(err, TY_INVALID,
			"arena: %s [%" PRIu64 ", +%" PRIu64 "), but it has %" PRIu64 " bytes in pages of %u", step, offset,
			bytes, arena->bytes, TY_SLOT_ALIGN);
	return TY_OK;
}

enum ty_code ty_arena_touch(const struct ty_arena *arena, uint64_t offset, uint64_t bytes, struct ty_error *err)
{
	enum ty_code code = check_range(arena, "touch", offset, bytes, err);

	if (code == TY_OK)
		code = allocate(arena, offset, bytes, err);
	if (code != TY_OK)
		return code;
	/* Adding nothing makes the mapping's entries and changes no contents. Relaxed: orders nothing. */
	for (uint64_t at = offset; at < offset + bytes; at += TY_SLOT_ALIGN)
		atomic_fetch_add_explicit((_Atomic uint8_t *)(arena->base + at), 0, memory_order_relaxed);
	return TY_OK;
}

/* Make the mapping's entries; `how` is for madvise. */
static enum ty_code enter(const struct ty_arena *arena, int how, uint64_t offset, uint64_t bytes, struct ty_error *err)
{
	while (bytes && madvise(arena->base + offset, bytes, how) < 0) {
		if (errno == EINVAL) /* a kernel that does not know it */
			return ty_arena_touch(arena, offset, bytes, err);
		if (errno != EINTR && errno != EAGAIN)
			return populate_failed("populate", offset, bytes, errno, err);
	}
	return TY_OK;
}

enum ty_code ty_arena_populate(const struct ty_arena *arena, uint64_t offset, uint64_t bytes, struct ty_error *err)
{
	enum ty_code code = check_range(arena, "populate", offset, bytes, err);

	if (code == TY_OK)
		code = allocate(arena, offset, bytes, err);
	return code == TY_OK ? enter(arena, MADV_POPULATE_WRITE, offset, bytes, err) : code;
}

enum ty_code ty_arena_map(const struct ty_arena *arena, uint64_t offset, uint64_t bytes, struct ty_error *err)
{
	enum ty_code code = check_range(arena, "map", offset, bytes, err);

	/* A read enters the pages around it too, and in a shared mapping that may be written to the entries are those that a
	 * write needs: no fault follows. */
	return code == TY_OK ? enter(arena, MADV_POPULATE_READ, offset, bytes, err) : code;
}
