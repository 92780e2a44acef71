/* SPDX-License-Identifier: Apache-2.0 */
#include "disk_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

#define TESTS_MAX 64

char dir[32], spec[256];
const char *settings;

int make_dir(void **state)
{
	settings = *state;
	strcpy(dir, "/var/tmp/tyer-disk.XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(spec, sizeof spec, "disk:%s%s", dir, settings);
	return 0;
}

int remove_dir(void **state)
{
	char command[160];

	(void)state;
	snprintf(command, sizeof command, "chmod -R u+w %s; rm -rf %s", dir, dir);
	return system(command);
}

void path_of(uint64_t number, char out[256])
{
	struct ty_key key = house_key(number);
	int n = snprintf(out, 256, "%s/%02x/", dir, key.bytes[0]);

	for (int i = 0; i < 32; i++)
		n += snprintf(out + n, 256 - (size_t)n, "%02x", key.bytes[i]);
	snprintf(out + n, 256 - (size_t)n, ".tyer");
}

void flip(uint64_t number, off_t at)
{
	char path[256];
	uint8_t byte;
	int fd;

	path_of(number, path);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

int files_in(const char *folder)
{
	char path[96];
	DIR *d;
	int count = 0;

	snprintf(path, sizeof path, "%s/%s", dir, folder);
	d = opendir(path);
	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));)
		count += e->d_name[0] != '.';
	closedir(d);
	return count;
}

int run_both_ways(const struct CMUnitTest *tests, size_t count)
{
	static struct CMUnitTest all[2 * TESTS_MAX + 1]; /* those without a function are passed over */
	static char names[TESTS_MAX + 1][64];

	assert_true(count <= TESTS_MAX);
	ty_log_setup(TY_LOG_ERROR, false);
	for (size_t i = 0; i < count; i++) {
		all[i] = all[count + i] = tests[i];
		all[i].initial_state = (void *)(uintptr_t)"";
		all[count + i].initial_state = (void *)(uintptr_t)",io=plain";
		snprintf(names[i], sizeof names[i], "%s,io=plain", tests[i].name);
		all[count + i].name = names[i];
	}
	all[2 * count] = tests[0];
	all[2 * count].initial_state = (void *)(uintptr_t)",sync=yes";
	snprintf(names[count], sizeof names[count], "%s,sync=yes", tests[0].name);
	all[2 * count].name = names[count];
	return cmocka_run_group_tests(all, NULL, NULL);
}
