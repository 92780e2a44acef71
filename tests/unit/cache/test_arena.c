/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/arena.h"
#include "cache/memory.h"

static struct ty_error err;

static void test_open_populate_close(void **state)
{
	struct ty_arena arena;
	unsigned char resident[16];

	(void)state;
	assert_ok(ty_arena_open(3 * TY_PIECE_BYTES, &arena, &err), &err);
	assert_int_equal(arena.bytes, 3 * TY_PIECE_BYTES);
	assert_int_equal(arena.pieces, 3);
	assert_int_equal((uintptr_t)arena.base % TY_PIECE_BYTES, 0);
	assert_int_equal(mincore(arena.base, TY_SLOT_ALIGN, resident), 0);
	assert_int_equal(resident[0] & 1, 0); /* nothing is touched */

	arena.base[TY_PIECE_BYTES + 5] = 42;
	assert_ok(ty_arena_populate(&arena, TY_PIECE_BYTES, 16 * TY_SLOT_ALIGN, &err), &err);
	assert_int_equal(mincore(arena.base + TY_PIECE_BYTES, 16 * TY_SLOT_ALIGN, resident), 0);
	for (int i = 0; i < 16; i++)
		assert_int_equal(resident[i] & 1, 1);
	assert_int_equal(arena.base[TY_PIECE_BYTES + 5], 42); /* contents stay */
	assert_ok(ty_arena_populate(&arena, arena.bytes, 0, &err), &err);
	ty_arena_close(&arena);
	assert_null(arena.base);
	assert_int_equal(arena.fd, -1);
	ty_arena_close(&arena); /* once more does nothing */
}

static void test_touch_instead(void **state)
{
	struct ty_arena arena;
	unsigned char resident[16];

	(void)state;
	assert_ok(ty_arena_open(TY_PIECE_BYTES, &arena, &err), &err);
	arena.base[4096 + 9] = 7;
	assert_ok(ty_arena_touch(&arena, 0, 16 * TY_SLOT_ALIGN, &err), &err);
	assert_int_equal(mincore(arena.base, 16 * TY_SLOT_ALIGN, resident), 0);
	for (int i = 0; i < 16; i++)
		assert_int_equal(resident[i] & 1, 1);
	assert_int_equal(arena.base[4096 + 9], 7);
	assert_ok(ty_arena_touch(&arena, TY_PIECE_BYTES, 0, &err), &err);
	ty_arena_close(&arena);
}

/* What another mapping wrote, and behind it what nobody wrote: there, as it was, and it may be written to. */
static void test_map_what_is_there(void **state)
{
	struct ty_arena first, second;

	(void)state;
	assert_ok(ty_arena_open(TY_PIECE_BYTES, &first, &err), &err);
	for (uint64_t at = 0; at < 64 * TY_SLOT_ALIGN; at += TY_SLOT_ALIGN)
		first.base[at + 3] = (uint8_t)(at / TY_SLOT_ALIGN + 1);
	assert_ok(ty_arena_adopt(TY_PIECE_BYTES, dup(first.fd), &second, &err), &err);
	assert_ok(ty_arena_map(&second, 0, 1 << 20, &err), &err);
	assert_ok(ty_arena_map(&second, TY_PIECE_BYTES, 0, &err), &err);
	for (uint64_t at = 0; at < 1 << 20; at += TY_SLOT_ALIGN) {
		assert_int_equal(second.base[at + 3], at < 64 * TY_SLOT_ALIGN ? at / TY_SLOT_ALIGN + 1 : 0);
		second.base[at + 3] = 99;
		assert_int_equal(first.base[at + 3], 99);
	}
	ty_arena_close(&first);
	ty_arena_close(&second);
}

/* Whoever has the descriptor can neither cut nor grow nor seal it. */
static void test_sealed(void **state)
{
	struct ty_arena arena;

	(void)state;
	assert_ok(ty_arena_open(TY_PIECE_BYTES, &arena, &err), &err);
	assert_int_equal(ftruncate(arena.fd, 4096), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(arena.fd, (off_t)(2 * TY_PIECE_BYTES)), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(fcntl(arena.fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
	assert_int_equal(errno, EPERM);
	assert_true(fcntl(arena.fd, F_GETFD) & FD_CLOEXEC);
	ty_arena_close(&arena);
}

static void test_sizes_refused(void **state)
{
	struct ty_arena arena;
	struct ty_memory memory;
	uint64_t bytes;
	char words[64];

	(void)state;
	assert_refused(ty_arena_open(0, &arena, &err), TY_INVALID, &err, "0 bytes, expected a multiple of 67108864");
	assert_null(arena.base);
	assert_refused(ty_arena_open(TY_PIECE_BYTES + 4096, &arena, &err), TY_INVALID, &err, "67112960 bytes");
	assert_ok(ty_memory_read("", &memory, &err), &err);
	bytes = memory.total / TY_PIECE_BYTES * TY_PIECE_BYTES + TY_PIECE_BYTES;
	snprintf(words, sizeof words, "the machine has %llu", (unsigned long long)memory.total);
	assert_refused(ty_arena_open(bytes, &arena, &err), TY_INVALID, &err, words);
}

static void test_ranges_refused(void **state)
{
	struct ty_arena arena;

	(void)state;
	assert_ok(ty_arena_open(TY_PIECE_BYTES, &arena, &err), &err);
	assert_refused(ty_arena_populate(&arena, TY_PIECE_BYTES, 4096, &err), TY_INVALID, &err, "populate");
	assert_refused(ty_arena_populate(&arena, 4096, UINT64_MAX, &err), TY_INVALID, &err, "populate");
	assert_refused(ty_arena_populate(&arena, 100, 4096, &err), TY_INVALID, &err, "pages of 4096");
	assert_refused(ty_arena_map(&arena, TY_PIECE_BYTES, 4096, &err), TY_INVALID, &err, "map");
	assert_refused(ty_arena_touch(&arena, TY_PIECE_BYTES, 4096, &err), TY_INVALID, &err, "touch");
	assert_refused(ty_arena_touch(&arena, 4096, UINT64_MAX, &err), TY_INVALID, &err, "touch");
	ty_arena_close(&arena);
}

static void with_limit(__rlimit_resource_t resource, rlim_t value, struct rlimit *saved)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(resource, saved), 0);
	limit = *saved;
	limit.rlim_cur = value;
	assert_int_equal(setrlimit(resource, &limit), 0);
}

static void test_system_refuses(void **state)
{
	struct ty_arena arena, broken;
	struct rlimit saved;
	enum ty_code code;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	with_limit(RLIMIT_FSIZE, 4096, &saved);
	code = ty_arena_open(TY_PIECE_BYTES, &arena, &err);
	setrlimit(RLIMIT_FSIZE, &saved);
	assert_int_equal(code, TY_IO);
	assert_non_null(strstr(err.text, "ftruncate"));
	assert_int_equal(arena.fd, -1);

	with_limit(RLIMIT_AS, 4096, &saved); /* nothing between here and the next line may need memory */
	code = ty_arena_open(TY_PIECE_BYTES, &arena, &err);
	setrlimit(RLIMIT_AS, &saved);
	assert_int_equal(code, TY_NO_MEMORY);
	assert_non_null(strstr(err.text, "mmap"));

	with_limit(RLIMIT_NOFILE, 3, &saved);
	code = ty_arena_open(TY_PIECE_BYTES, &arena, &err);
	setrlimit(RLIMIT_NOFILE, &saved);
	assert_int_equal(code, TY_IO);
	assert_non_null(strstr(err.text, "/proc/meminfo"));

	/* Not there at all: the kernel says so instead of a signal. */
	assert_ok(ty_arena_open(TY_PIECE_BYTES, &arena, &err), &err);
	broken = arena;
	assert_int_equal(munmap(arena.base, arena.bytes), 0);
	assert_refused(ty_arena_populate(&broken, 0, TY_PIECE_BYTES, &err), TY_NO_MEMORY, &err, "populate of 67108864");
	assert_refused(ty_arena_map(&broken, 0, TY_PIECE_BYTES, &err), TY_NO_MEMORY, &err, "populate of 67108864");
	close(arena.fd);
	assert_refused(ty_arena_touch(&broken, 0, TY_PIECE_BYTES, &err), TY_IO, &err, "allocate of 67108864");
}

/* ---- what the machine has, read from a directory that looks like one ---- */

static char root[64];

static void put(const char *path, const char *text)
{
	char full[256];
	FILE *file;

	snprintf(full, sizeof full, "%s", root);
	for (const char *at = path; (at = strchr(at + 1, '/'));) {
		snprintf(full, sizeof full, "%s%.*s", root, (int)(at - path), path);
		mkdir(full, 0700);
	}
	snprintf(full, sizeof full, "%s%s", root, path);
	file = fopen(full, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static int make_root(void **state)
{
	(void)state;
	strcpy(root, "/tmp/tyer-memory-XXXXXX");
	return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof command, "rm -r %s", root);
	return system(command);
}

static void test_memory_of_machine(void **state)
{
	struct ty_memory memory;

	(void)state;
	assert_refused(ty_memory_read(root, &memory, &err), TY_IO, &err, "/proc/meminfo");
	put("/proc/meminfo", "MemFree: 7 kB\nXMemTotal: 9 kB\n");
	assert_refused(ty_memory_read(root, &memory, &err), TY_IO, &err, "no MemTotal");
	put("/proc/meminfo", "MemTotal: -1 kB\n");
	assert_refused(ty_memory_read(root, &memory, &err), TY_IO, &err, "no MemTotal");
	put("/proc/meminfo", "MemTotal: 99999999999999999999 kB\n");
	assert_refused(ty_memory_read(root, &memory, &err), TY_IO, &err, "no MemTotal");
	put("/proc/meminfo", "MemTotal: 18014398509481984 kB\n");
	assert_refused(ty_memory_read(root, &memory, &err), TY_IO, &err, "no MemTotal");
	put("/proc/meminfo", "MemTotal:       1000 kB\nMemFree: 3 kB\n");
	assert_ok(ty_memory_read(root, &memory, &err), &err);
	assert_int_equal(memory.total, 1024000);
	assert_int_equal(memory.limit, UINT64_MAX);
	assert_int_equal(memory.huge_bytes, 0);
	assert_int_equal(memory.huge_free, 0);
	put("/proc/meminfo", "MemTotal: 1000 kB\nHugePages_Total: 9\nHugePages_Free: 8\nHugePages_Rsvd: 3\n"
			     "Hugepagesize: 2048 kB\n");
	assert_ok(ty_memory_read(root, &memory, &err), &err);
	assert_int_equal(memory.huge_bytes, 2 << 20);
	assert_int_equal(memory.huge_free, 5 * (2 << 20));
}

static void test_memory_of_groups(void **state)
{
	struct ty_memory memory;

	(void)state;
	put("/proc/meminfo", "MemTotal: 1000000 kB\n");
	put("/proc/self/cgroup", "0::/a/b/c\n");
	assert_ok(ty_memory_read(root, &memory, &err), &err);
	assert_int_equal(memory.limit, UINT64_MAX); /* not readable */
	put("/sys/fs/cgroup/a/b/c/memory.max", "max\n");
	put("/sys/fs/cgroup/a/b/memory.max", "700000\n");
	put("/sys/fs/cgroup/a/memory.max", "900000\n");
	assert_ok(ty_memory_read(root, &memory, &err), &err);
	assert_int_equal(memory.limit, 700000); /* the group's own says nothing, one above it does */
	put("/sys/fs/cgroup/memory.max", "600000");
	assert_ok(ty_memory_read(root, &memory, &err), &err);
	assert_int_equal(memory.limit, 600000); /* a container: the mount is its group */

	put("/proc/self/cgroup", "nonsense\n7:cpu,memory:/x\n6:pids:/y\n3\n");
	assert_ok(ty_memory_read(root, &memory, &err), &err);
	assert_int_equal(memory.limit, UINT64_MAX);
	put("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "500000\n");
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	assert_ok(ty_memory_read(root, &memory, &err), &err);
	assert_int_equal(memory.limit, 500000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open_populate_close),
		cmocka_unit_test(test_touch_instead),
		cmocka_unit_test(test_map_what_is_there),
		cmocka_unit_test(test_sealed),
		cmocka_unit_test(test_sizes_refused),
		cmocka_unit_test(test_ranges_refused),
		cmocka_unit_test(test_system_refuses),
		cmocka_unit_test_setup_teardown(test_memory_of_machine, make_root, remove_root),
		cmocka_unit_test_setup_teardown(test_memory_of_groups, make_root, remove_root),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
