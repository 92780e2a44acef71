/* SPDX-License-Identifier: Apache-2.0
 *
 * The arena: one memfd, mapped once, that is made usable in pieces of 64 MiB. A piece is touched by an
 * ordinary thread, then registered by a GPU's owner, then cut into slots of one size. No slot and no copy
 * crosses a piece's border; a piece whose registration fails is never used.
 */
#ifndef TY_CACHE_ARENA_H
#define TY_CACHE_ARENA_H

#include <tyer/result.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TY_PIECE_BYTES ((uint64_t)64 << 20)
#define TY_SLOT_ALIGN 4096u
#define TY_SLOTS_PER_PIECE ((uint32_t)(TY_PIECE_BYTES / TY_SLOT_ALIGN))

struct ty_arena {
	uint8_t *base;
	uint64_t bytes; /* a multiple of TY_PIECE_BYTES */
	uint32_t pieces;
	int fd;
	bool huge; /* hugetlb pages were granted */
};

/* Reserve; nothing is touched. TY_INVALID when bytes is 0, no multiple of TY_PIECE_BYTES, or more than
 * the machine's memory (both numbers are in the text). */
TY_MUST_USE enum ty_code ty_arena_open(uint64_t bytes, struct ty_arena *out, struct ty_error *err);
/* The same with the memory of a process that is no more, contents and all. `fd` is the arena's on TY_OK, else still the caller's;
 * TY_INVALID when it is not an arena of this size. */
TY_MUST_USE enum ty_code ty_arena_adopt(uint64_t bytes, int fd, struct ty_arena *out, struct ty_error *err);
void ty_arena_close(struct ty_arena *arena);

/* Touch [offset, offset + bytes) so that its pages exist. Takes its time: only on a populate thread. */
TY_MUST_USE enum ty_code ty_arena_populate(const struct ty_arena *arena, uint64_t offset, uint64_t bytes,
	struct ty_error *err);
/* The same, three times as fast, where the pages are known to exist: those that another process left. */
TY_MUST_USE enum ty_code ty_arena_map(const struct ty_arena *arena, uint64_t offset, uint64_t bytes, struct ty_error *err);
/* Like ty_arena_populate, the way it is done where the kernel does not know MADV_POPULATE_WRITE (before Linux 5.14). */
TY_MUST_USE enum ty_code ty_arena_touch(const struct ty_arena *arena, uint64_t offset, uint64_t bytes,
	struct ty_error *err);

#endif
