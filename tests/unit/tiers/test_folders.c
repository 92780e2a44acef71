/* SPDX-License-Identifier: Apache-2.0
 *
 * A disk tier over several folders, as over several drives: each has its share, and they come, go and change places.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "house.h"
#include "base/log.h"

#define CHUNK 10000
#define COUNT 40

static char dir[32];

static int make_dir(void **state)
{
	(void)state;
	strcpy(dir, "/var/tmp/tyer-folders.XXXXXX");
	assert_non_null(mkdtemp(dir));
	return 0;
}

static int remove_dir(void **state)
{
	char command[64];

	(void)state;
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command);
}

/* Over the folders that the letters name, once the scan is over. */
static void open_folders(struct house *h, const char *letters)
{
	char spec[256] = "disk";

	for (; *letters; letters++)
		snprintf(spec + strlen(spec), sizeof spec - strlen(spec), ":%s/%c", dir, *letters);
	assert_int_equal(house_open(h, spec), TY_OK);
	house_scanned(h);
}

static uint32_t put_all(struct house *h, uint64_t first)
{
	uint32_t done = 0;

	for (uint64_t n = first; n < first + COUNT; n++)
		done += house_do(h, TY_TIER_PUT, n, 1, CHUNK) == TY_TIER_DONE;
	return done;
}

static uint32_t get_all(struct house *h, uint64_t first)
{
	uint32_t done = 0;

	for (uint64_t n = first; n < first + COUNT; n++) {
		enum ty_tier_outcome outcome = house_do(h, TY_TIER_GET, n, 1, CHUNK);

		assert_true(outcome == TY_TIER_DONE || outcome == TY_TIER_MISSING);
		done += outcome == TY_TIER_DONE;
	}
	return done;
}

/* Chunks that lie in a folder. */
static uint32_t files_in(char letter)
{
	uint32_t count = 0;

	for (int i = 0; i < 256; i++) {
		char path[64];
		DIR *d;

		snprintf(path, sizeof path, "%s/%c/%02x", dir, letter, i);
		d = opendir(path);
		assert_non_null(d);
		for (struct dirent *e; (e = readdir(d));)
			count += e->d_name[0] != '.';
		closedir(d);
	}
	return count;
}

/* All of a folder's hash folders, away from where they are looked for, or back. */
static void move_away(char letter, bool back)
{
	for (int i = 0; i < 256; i++) {
		char here[64], there[64];

		snprintf(here, sizeof here, "%s/%c/%02x", dir, letter, i);
		snprintf(there, sizeof there, "%s/%c/away-%02x", dir, letter, i);
		assert_int_equal(back ? rename(there, here) : rename(here, there), 0);
	}
}

/* Each has its share; in which order they are named does not matter, one that is left out is missed, one more may be added. */
static void test_shares(void **state)
{
	struct house h;
	uint32_t in_a, in_b;

	(void)state;
	open_folders(&h, "ab");
	assert_int_equal(put_all(&h, 0), COUNT);
	house_close(&h);
	in_a = files_in('a');
	in_b = files_in('b');
	assert_true(in_a > COUNT / 5 && in_b > COUNT / 5);
	assert_int_equal(in_a + in_b, COUNT);
	open_folders(&h, "ba");
	assert_int_equal(get_all(&h, 0), COUNT);
	house_close(&h);
	open_folders(&h, "b");
	assert_int_equal(h.tier->stats.chunks, in_b);
	assert_int_equal(get_all(&h, 0), in_b);
	house_close(&h);
	open_folders(&h, "abc");
	assert_int_equal(get_all(&h, 0), COUNT);
	assert_int_equal(put_all(&h, COUNT), COUNT);
	house_close(&h);
	assert_true(files_in('c') > COUNT / 8);
}

/* One goes away under the service: what lies in the others is served, and it has its share again when it is back. */
static void test_one_vanishes(void **state)
{
	struct house h;
	uint32_t in_a, done;

	(void)state;
	open_folders(&h, "ab");
	assert_int_equal(put_all(&h, 0), COUNT);
	in_a = files_in('a');
	move_away('b', false);
	assert_int_equal(get_all(&h, 0), in_a);
	done = put_all(&h, COUNT);
	assert_true(done > COUNT / 5 && done < COUNT);
	assert_int_equal(h.tier->stats.outcomes[TY_TIER_PUT][TY_TIER_FAILED], COUNT - done);
	assert_int_equal(get_all(&h, COUNT), done);
	move_away('b', true);
	assert_int_equal(put_all(&h, COUNT), COUNT);
	assert_int_equal(get_all(&h, COUNT), COUNT);
	house_close(&h);
	open_folders(&h, "ab"); /* and nothing was lost */
	assert_int_equal(get_all(&h, 0), COUNT);
	assert_int_equal(get_all(&h, COUNT), COUNT);
	house_close(&h);
}

/* What came again while its folder was left out lies there twice: once after the next start, and then never again. */
static void test_twins(void **state)
{
	struct house h;

	(void)state;
	open_folders(&h, "ab");
	assert_int_equal(put_all(&h, 0), COUNT);
	house_close(&h);
	open_folders(&h, "a");
	assert_int_equal(put_all(&h, 0), COUNT);
	house_close(&h);
	assert_true(files_in('a') + files_in('b') > COUNT);
	open_folders(&h, "ab");
	assert_int_equal(h.tier->stats.chunks, COUNT);
	assert_int_equal(get_all(&h, 0), COUNT);
	while (files_in('a') + files_in('b') > COUNT) /* errands, that nobody waits for */
		usleep(1000);
	for (uint64_t n = 0; n < COUNT; n++)
		assert_int_equal(house_do(&h, TY_TIER_DELETE, n, 1, 0), TY_TIER_DONE);
	house_close(&h);
	open_folders(&h, "ab");
	assert_int_equal(h.tier->stats.chunks, 0);
	house_close(&h);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_shares, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_one_vanishes, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_twins, make_dir, remove_dir),
	};

	ty_log_setup(TY_LOG_ERROR, false);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
