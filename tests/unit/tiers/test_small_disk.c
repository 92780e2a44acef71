/* SPDX-License-Identifier: Apache-2.0
 *
 * The disk tier on a file system of 8 MiB that fills, that becomes read-only, and whose files cannot be read: every operation comes
 * home, nothing wrong is served, and when the trouble is over it goes on. Needs to mount: as root, or in a namespace of its own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "house.h"
#include "base/log.h"

#define CHUNK ((uint64_t)1 << 20)
#define PUTS 40 /* chunks that go to where seven fit */

static char dir[32], spec[128];
static _Atomic unsigned told; /* lines that say why a chunk is not written */
static const char *_Atomic why = "";

static _Atomic unsigned too_large; /* lines that say that size= is */

static bool listen_to_log(const char *line, size_t length)
{
	(void)length;
	if (strstr(line, "found size=64MiB, expected at most the 8MiB of its file systems"))
		too_large++;
	if (strstr(line, " warn  tier: disk: /var/tmp/tyer-small.") && strstr(line, ": not written (") && strstr(line, why))
		told++;
	return true;
}
static uint64_t chunk_files, other_files;

static int mount_small(void **state)
{
	strcpy(dir, "/var/tmp/tyer-small.XXXXXX");
	if (!mkdtemp(dir) || mount("tmpfs", dir, "tmpfs", 0, "size=8m") < 0)
		return -1;
	snprintf(spec, sizeof spec, "disk:%s%s", dir, (const char *)*state);
	return 0;
}

static int unmount(void **state)
{
	(void)state;
	return umount2(dir, MNT_DETACH) < 0 || rmdir(dir) < 0 ? -1 : 0;
}

static void remount(unsigned long flags)
{
	assert_int_equal(mount(NULL, dir, NULL, MS_REMOUNT | flags, "size=8m"), 0);
}

static int count_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)ftw;
	if (type == FTW_F && strstr(path, ".tyer"))
		*(strstr(path, ".tmp-") ? &other_files : &chunk_files) += 1;
	return 0;
}

static void count_files(void)
{
	chunk_files = other_files = 0;
	assert_int_equal(nftw(dir, count_file, 8, FTW_PHYS), 0);
}

static void path_of(uint64_t number, char out[256])
{
	struct ty_key key = house_key(number);
	int n = snprintf(out, 256, "%s/%02x/", dir, key.bytes[0]);

	for (int i = 0; i < 32; i++)
		n += snprintf(out + n, 256 - (size_t)n, "%02x", key.bytes[i]);
	snprintf(out + n, 256 - (size_t)n, ".tyer");
}

/* Far more than fits, one by one and at once: what does not fit is told, older chunks go for newer ones, and no part of a
 * file stays behind. */
static void test_full(void **state)
{
	uint32_t done = 0, full = 0, found = 0;
	struct ty_tier_io *ios[12];
	struct house h;

	(void)state;
	told = 0;
	why = "No space left on device";
	assert_int_equal(house_open(&h, spec), TY_OK);
	house_scanned(&h);
	for (uint64_t n = 0; n < PUTS; n++) {
		enum ty_tier_outcome outcome = house_do(&h, TY_TIER_PUT, n, 1, CHUNK);

		assert_true(outcome == TY_TIER_DONE || outcome == TY_TIER_FULL);
		done += outcome == TY_TIER_DONE;
		full += outcome == TY_TIER_FULL;
	}
	assert_true(full > 0 && done > PUTS / 2); /* it does not stay full */
	assert_in_range(told, 1, full < 4 ? full : full - 1); /* each time less often */
	for (uint32_t i = 0; i < 12; i++)
		ios[i] = house_io(&h, TY_TIER_PUT, PUTS + i, i, 1, CHUNK);
	house_run(&h, ios, 12);
	for (uint32_t i = 0; i < 12; i++) {
		assert_true(ios[i]->outcome == TY_TIER_DONE || ios[i]->outcome == TY_TIER_FULL || ios[i]->outcome == TY_TIER_FAILED);
		house_free(ios[i]);
	}
	for (uint64_t n = 0; n < PUTS + 12; n++) {
		enum ty_tier_outcome outcome = house_do(&h, TY_TIER_GET, n, 1, CHUNK);

		assert_true(outcome == TY_TIER_DONE || outcome == TY_TIER_MISSING);
		found += outcome == TY_TIER_DONE;
	}
	assert_int_equal(found, h.tier->stats.chunks);
	house_close(&h);
	count_files();
	assert_int_equal(chunk_files, found);
	assert_int_equal(other_files, 0);
}

/* A start on a disk that is full finds out of it what one on an empty disk does, and serves. */
static void test_full_at_the_start(void **state)
{
	static char block[65536];
	uint32_t capabilities;
	struct house h;
	char path[96];
	int fd;

	(void)state;
	assert_int_equal(house_open(&h, spec), TY_OK);
	house_scanned(&h);
	assert_int_equal(house_do(&h, TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	capabilities = h.tier->capabilities;
	house_close(&h);
	snprintf(path, sizeof path, "%s/others", dir);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	while (write(fd, block, sizeof block) > 0 || write(fd, block, 512) > 0)
		;
	assert_int_equal(errno, ENOSPC);
	close(fd);
	assert_int_equal(house_open(&h, spec), TY_OK);
	house_scanned(&h);
	assert_int_equal(h.tier->capabilities, capabilities);
	assert_int_equal(house_do(&h, TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE);
	house_close(&h);
}

/* More than the file system has is told at the start; a second folder on it does not make it larger. */
static void test_too_large(void **state)
{
	const char *settings = *state;
	struct house h;
	char all[300];

	too_large = 0;
	assert_int_equal(house_open(&h, spec), TY_OK);
	house_close(&h);
	assert_int_equal(too_large, 0);
	snprintf(all, sizeof all, "disk:%s/a:%s/b,size=64MiB%s", dir, dir, settings);
	assert_int_equal(house_open(&h, all), TY_OK);
	house_close(&h);
	assert_int_equal(too_large, 1);
}

/* What is there can be read, what is wrong is not served though it cannot be put aside, and afterwards all goes on. */
static void test_read_only(void **state)
{
	char path[256];
	struct house h;
	int fd;

	(void)state;
	assert_int_equal(house_open(&h, spec), TY_OK);
	house_scanned(&h);
	for (uint64_t n = 0; n < 4; n++)
		assert_int_equal(house_do(&h, TY_TIER_PUT, n, 1, CHUNK), TY_TIER_DONE);
	path_of(1, path);
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, "x", 1, 9999), 1);
	close(fd);
	remount(MS_RDONLY);
	told = 0;
	why = strerror(EROFS);
	assert_int_equal(house_do(&h, TY_TIER_PUT, 4, 1, CHUNK), TY_TIER_FAILED);
	assert_int_equal(told, 1);
	assert_non_null(strstr(h.error, strerror(EROFS)));
	assert_int_equal(house_do(&h, TY_TIER_GET, 0, 1, CHUNK), TY_TIER_DONE);
	assert_int_equal(house_do(&h, TY_TIER_GET, 1, 1, CHUNK), TY_TIER_CORRUPT);
	assert_int_equal(house_do(&h, TY_TIER_GET, 1, 1, CHUNK), TY_TIER_MISSING);
	assert_int_equal(house_do(&h, TY_TIER_DELETE, 2, 1, 0), TY_TIER_FAILED);
	assert_int_equal(house_do(&h, TY_TIER_GET, 2, 1, CHUNK), TY_TIER_MISSING);
	house_close(&h);
	assert_int_equal(house_open(&h, spec), TY_DENIED); /* a service that starts says so */
	remount(0);
	assert_int_equal(house_open(&h, spec), TY_OK);
	house_scanned(&h);
	assert_int_equal(house_do(&h, TY_TIER_PUT, 4, 1, CHUNK), TY_TIER_DONE);
	assert_int_equal(house_do(&h, TY_TIER_GET, 4, 1, CHUNK), TY_TIER_DONE);
	assert_int_equal(house_do(&h, TY_TIER_GET, 1, 1, CHUNK), TY_TIER_CORRUPT); /* found by the scan: its header is whole */
	house_close(&h);
}

/* A file that cannot be read (here: that is none) is a failure once, then a miss, and other files are as ever. */
static void test_unreadable(void **state)
{
	char path[256];
	struct house h;

	(void)state;
	assert_int_equal(house_open(&h, spec), TY_OK);
	house_scanned(&h);
	for (uint64_t n = 0; n < 3; n++)
		assert_int_equal(house_do(&h, TY_TIER_PUT, n, 1, CHUNK), TY_TIER_DONE);
	path_of(1, path);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(house_do(&h, TY_TIER_GET, 1, 1, CHUNK), TY_TIER_FAILED);
	assert_int_equal(house_do(&h, TY_TIER_GET, 1, 1, CHUNK), TY_TIER_MISSING);
	assert_int_equal(house_do(&h, TY_TIER_GET, 2, 1, CHUNK), TY_TIER_DONE);
	assert_int_equal(house_do(&h, TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_FAILED); /* its name is taken */
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(house_do(&h, TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	assert_int_equal(house_do(&h, TY_TIER_GET, 1, 1, CHUNK), TY_TIER_DONE);
	house_close(&h);
}

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	(void)!write(fd, text, strlen(text));
	close(fd);
}

/* Root may mount; others in a user namespace, where they are root. */
static bool may_mount(void)
{
	char map[64];
	uid_t uid = getuid();
	gid_t gid = getgid();

	if (unshare(CLONE_NEWNS) < 0) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
			return false;
		write_text("/proc/self/setgroups", "deny");
		snprintf(map, sizeof map, "0 %u 1", uid);
		write_text("/proc/self/uid_map", map);
		snprintf(map, sizeof map, "0 %u 1", gid);
		write_text("/proc/self/gid_map", map);
	}
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("tmpfs", "/mnt", "tmpfs", 0, NULL) < 0)
		return false;
	return umount("/mnt") == 0;
}

int main(void)
{
	const char *const settings[] = {"", ",io=plain"};
	int failed = 0;

	if (!may_mount()) {
		puts("cannot mount here: skipped");
		return 77;
	}
	ty_log_setup(TY_LOG_WARN, false);
	ty_log_set_sink(listen_to_log);
	for (int i = 0; i < 2; i++) {
		struct CMUnitTest tests[] = {
			cmocka_unit_test_setup_teardown(test_full, mount_small, unmount),
			cmocka_unit_test_setup_teardown(test_full_at_the_start, mount_small, unmount),
			cmocka_unit_test_setup_teardown(test_read_only, mount_small, unmount),
			cmocka_unit_test_setup_teardown(test_unreadable, mount_small, unmount),
			cmocka_unit_test_setup_teardown(test_too_large, mount_small, unmount),
		};

		for (size_t t = 0; t < sizeof tests / sizeof tests[0]; t++)
			tests[t].initial_state = (void *)(uintptr_t)settings[i];
		failed += cmocka_run_group_tests_name(settings[i], tests, NULL, NULL);
	}
	return failed != 0;
}
