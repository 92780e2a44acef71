/* SPDX-License-Identifier: Apache-2.0
 *
 * The disk tier's folder: what it holds at the start is what is there, whatever happens while it is gone through; what it says of
 * all that it has; and folders that are none of its own, or half made.
 */
#include "disk_folder.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actors/disk.h"
#include "cache/checksum.h"

#define CHUNK 10000 /* no multiple of anything */

/* The scan takes what is whole and leaves everything else alone. */
static void test_scan(void **state)
{
	char path[320], link[256];
	struct house h;
	int fd;

	(void)state;
	assert_int_equal(house_open(&h, spec), TY_OK);
	for (uint64_t n = 1; n <= 6; n++)
		assert_int_equal(house_do(&h, TY_TIER_PUT, n, 1, CHUNK), TY_TIER_DONE);
	house_close(&h);
	path_of(1, path);
	assert_int_equal(truncate(path, TY_ENVELOPE_BYTES + 4096), 0);
	flip(2, 8);  /* version */
	flip(3, 70); /* header */
	path_of(4, path);
	path_of(7, link);
	assert_int_equal(symlink(path, link), 0);
	snprintf(path, sizeof path, "%s/00/somebody's file", dir);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	path_of(8, link);
	snprintf(path, sizeof path, "%s.tmp-0123456789abcdef-7", link);
	fd = open(path, O_CREAT | O_WRONLY, 0600); /* what a process that died was writing */
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(house_open(&h, spec), TY_OK);
	house_scanned(&h);
	assert_int_equal(h.tier->stats.chunks, 3);
	assert_int_equal(h.tier->stats.foreign, 5);
	assert_int_equal(access(path, F_OK), -1);
	for (uint64_t n = 1; n <= 8; n++)
		assert_int_equal(house_do(&h, TY_TIER_GET, n, 1, CHUNK), n >= 4 && n <= 6 ? TY_TIER_DONE : TY_TIER_MISSING);
	house_close(&h);
}

/* A file as it would have been written: of the n-th of many chunks that lie in one folder, of many owners. */
static struct ty_key write_file(uint32_t n, uint32_t owners)
{
	struct ty_envelope e = {.key = house_key(n), .parts = 1, .length = {1}};
	uint8_t bytes[2 * TY_ENVELOPE_BYTES] = {0};
	char path[256];
	int fd, at;

	e.key.bytes[0] = 0;
	sprintf(e.identity.tenant, "tenant-%u", n % owners);
	strcpy(e.identity.model, "m");
	e.checksum[0] = ty_checksum(bytes + TY_ENVELOPE_BYTES, 1);
	ty_envelope_write(&e, bytes);
	at = snprintf(path, sizeof path, "%s/00/", dir);
	for (int i = 0; i < 32; i++)
		at += snprintf(path + at, sizeof path - (size_t)at, "%02x", e.key.bytes[i]);
	snprintf(path + at, sizeof path - (size_t)at, ".tyer");
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, sizeof bytes), sizeof bytes);
	close(fd);
	return e.key;
}

/* More in a folder than is taken in at a time: all of it is there, and whose it is. */
static void test_full_folder(void **state)
{
	enum { COUNT = 2000, OWNERS = 300 };
	static struct ty_key keys[COUNT];
	char tenant[32];
	struct house h;

	(void)state;
	assert_int_equal(house_open(&h, spec), TY_OK);
	house_close(&h);
	for (uint32_t n = 0; n < COUNT; n++)
		keys[n] = write_file(n, OWNERS);
	assert_int_equal(house_open(&h, spec), TY_OK);
	house_scanned(&h);
	assert_int_equal(h.tier->stats.chunks, COUNT);
	for (uint32_t n = 0; n < COUNT; n += 7) {
		struct ty_tier_io *io = house_io(&h, TY_TIER_EXISTS, 0, 0, 1, 0);
		struct ty_identity whose;

		io->whose = &whose;
		*(struct ty_key *)(uintptr_t)io->keys = keys[n];
		house_run(&h, &io, 1);
		assert_int_equal(io->found, 1);
		snprintf(tenant, sizeof tenant, "tenant-%u", n % OWNERS);
		assert_true(io->known);
		assert_string_equal(whose.tenant, tenant);
		house_free(io);
	}
	house_close(&h);
}

/* As many owners as there are chunks, more than a service may know of at a time: LIST tells each one's, so a CLEAR by tenant misses none; and
 * with the last chunk of an owner its name goes. */
static void test_many_owners(void **state)
{
	enum { COUNT = TY_MAX_SPACES + 900 };
	static bool seen[COUNT];
	struct ty_tier_page page = {.wanted = 256};
	struct house h;

	(void)state;
	memset(seen, 0, sizeof seen);
	assert_int_equal(house_open(&h, spec), TY_OK);
	house_close(&h);
	for (uint32_t n = 0; n < COUNT; n++)
		(void)write_file(n, COUNT);
	assert_int_equal(house_open(&h, spec), TY_OK);
	house_scanned(&h);
	do {
		struct ty_tier_io *io = house_io(&h, TY_TIER_LIST, 0, 0, 1, 0);

		io->page = &page;
		house_run(&h, &io, 1);
		assert_int_equal(io->outcome, TY_TIER_DONE);
		house_free(io);
		for (uint32_t i = 0; i < page.count; i++) {
			unsigned n;

			assert_non_null(page.item[i].identity);
			assert_int_equal(sscanf(page.item[i].identity->tenant, "tenant-%u", &n), 1);
			assert_false(seen[n]);
			seen[n] = true;
		}
		ty_tier_page_clear(&page);
	} while (page.cursor.length);
	for (uint32_t n = 0; n < COUNT; n++)
		assert_true(seen[n]);
	assert_int_equal(h.tier->stats.namespaces, COUNT);
	for (uint32_t n = 0; n < 100; n++) {
		struct ty_tier_io *io = house_io(&h, TY_TIER_DELETE, 0, 0, 1, 0);
		struct ty_key key = house_key(n);

		key.bytes[0] = 0;
		*(struct ty_key *)(uintptr_t)io->keys = key;
		house_run(&h, &io, 1);
		assert_int_equal(io->outcome, TY_TIER_DONE);
		house_free(io);
	}
	while (atomic_load(&h.tier->stats.namespaces) != COUNT - 100)
		sched_yield();
	house_close(&h);
}

/* Names come and go, at any time: each that is taken is found, and by its number. */
static void test_names(void **state)
{
	enum { NAMES = 300 };
	static uint32_t number[NAMES], uses[NAMES];
	struct ty_tier_names names = {0};
	uint64_t random = 3;
	uint32_t count = 0;

	(void)state;
	memset(uses, 0, sizeof uses);
	for (uint32_t step = 0; step < 50000; step++) {
		struct ty_identity id = {.model = "m"};
		uint32_t n;

		random = random * 6364136223846793005u + 1442695040888963407u;
		n = (uint32_t)(random >> 33) % NAMES;
		sprintf(id.tenant, "%u", n);
		if (random >> 20 & 1) {
			uint32_t given = ty_tier_names_take(&names, &id);

			assert_true(given != 0 && (!uses[n] || given == number[n]));
			count += !uses[n]++;
			number[n] = given;
		} else if (uses[n]) {
			assert_string_equal(ty_tier_names_at(&names, number[n])->tenant, id.tenant);
			ty_tier_names_drop(&names, number[n]);
			count -= !--uses[n];
		}
		assert_int_equal(names.count, count);
		assert_true(names.given <= NAMES);
	}
	ty_tier_names_clear(&names);
}

/* A service that ends does not wait until a folder with many files has been read. */
static void test_ends_while_it_scans(void **state)
{
	enum { COUNT = 2000, TRIES = 50 };
	struct house h;
	bool cut = false;

	(void)state;
	assert_int_equal(house_open(&h, spec), TY_OK);
	house_close(&h);
	for (uint32_t n = 0; n < COUNT; n++)
		(void)write_file(n, 1);
	for (int i = 0; i < TRIES && !cut; i++) { /* it may be faster than we are */
		assert_int_equal(house_open(&h, spec), TY_OK);
		atomic_store(&h.tier->ending, true);
		house_scanned(&h);
		cut = h.tier->stats.chunks < COUNT;
		house_close(&h);
	}
	assert_true(cut);
}

/* A page by page, all of it: how often each of the chunks [0, count) is there. */
static void list_all(struct house *h, uint8_t *seen, uint64_t count, struct ty_identity *identities)
{
	struct ty_tier_page page = {.wanted = 7};

	memset(seen, 0, count);
	do {
		struct ty_tier_io *io = house_io(h, TY_TIER_LIST, 0, 0, 1, 0);

		io->page = &page;
		house_run(h, &io, 1);
		assert_int_equal(io->outcome, TY_TIER_DONE);
		house_free(io);
		for (uint32_t i = 0; i < page.count; i++)
			for (uint64_t n = 0; n < count; n++) {
				struct ty_key key = house_key(n);

				if (memcmp(&key, &page.item[i].key, sizeof key) != 0)
					continue;
				seen[n]++;
				assert_int_equal(page.item[i].bytes, TY_ENVELOPE_BYTES + ty_envelope_padded(CHUNK));
				if (n % 3 == 2)
					assert_null(page.item[i].identity);
				else
					assert_string_equal(page.item[i].identity->tenant, identities[n % 3].tenant);
			}
		ty_tier_page_clear(&page);
	} while (page.cursor.length);
}

/* LIST tells what is there and whose it is, in this process and the next. */
static void test_list(void **state)
{
	enum { COUNT = 40 };
	struct ty_identity identities[2] = {{.tenant = "a", .model = "m"}, {.tenant = "b", .model = "m"}};
	uint8_t seen[COUNT];
	struct house h;

	(void)state;
	for (int life = 0; life < 2; life++) {
		assert_int_equal(house_open(&h, spec), TY_OK);
		house_scanned(&h);
		for (uint64_t n = 0; n < COUNT && !life; n++) {
			struct ty_tier_io *io = house_io(&h, TY_TIER_PUT, n, 0, 1, CHUNK);

			io->identity = n % 3 == 2 ? NULL : &identities[n % 3];
			house_run(&h, &io, 1);
			assert_int_equal(io->outcome, TY_TIER_DONE);
			house_free(io);
		}
		if (life)
			assert_int_equal(house_do(&h, TY_TIER_DELETE, 3, 1, 0), TY_TIER_DONE);
		list_all(&h, seen, COUNT, identities);
		for (uint64_t n = 0; n < COUNT; n++)
			assert_int_equal(seen[n], !life || n != 3);
		house_close(&h);
	}
}

static uint64_t listed(struct house *h)
{
	struct ty_tier_page page = {.wanted = 50};
	uint64_t count = 0;

	do {
		struct ty_tier_io *io = house_io(h, TY_TIER_LIST, 0, 0, 1, 0);

		io->page = &page;
		house_run(h, &io, 1);
		assert_int_equal(io->outcome, TY_TIER_DONE);
		house_free(io);
		count += page.count;
		ty_tier_page_clear(&page);
	} while (page.cursor.length);
	return count;
}

/* Who asks while it still finds out what it holds is told of all of it, and what is deleted then is so, found or not. */
static void test_asked_while_it_scans(void **state)
{
	enum { COUNT = 400, LIVES = 20 };
	char two[600];
	struct house h;
	int raced = 0;

	snprintf(two, sizeof two, "disk:%s/a:%s/b%s", dir, dir, (const char *)*state);
	assert_int_equal(house_open(&h, two), TY_OK);
	for (uint64_t n = 0; n < COUNT; n++)
		assert_int_equal(house_do(&h, TY_TIER_PUT, n, 1, 1), TY_TIER_DONE);
	house_close(&h);
	for (uint64_t n = 0; n < LIVES; n++) {
		assert_int_equal(house_open(&h, two), TY_OK);
		assert_int_equal(house_do(&h, TY_TIER_DELETE, n, 1, 0), TY_TIER_DONE);
		raced += atomic_load(&h.tier->stats.scanning) != 0;
		if (n % 2)
			assert_int_equal(listed(&h), COUNT - n - 1);
		house_scanned(&h);
		assert_int_equal(house_do(&h, TY_TIER_EXISTS, n, 1, 0), TY_TIER_MISSING);
		assert_int_equal(house_do(&h, TY_TIER_EXISTS, n + 1, 1, 0), TY_TIER_DONE);
		assert_int_equal(listed(&h), COUNT - n - 1);
		house_close(&h);
	}
	if (!raced)
		print_message("the scan was always faster\n");
}

/* A cursor may come from anybody. */
static void test_list_from_nowhere(void **state)
{
	static const uint64_t places[][2] = {{0, 0}, {1, 0}, {1000, 0}, {1536, 0}, {1 << 20, 0}, {1024, 1024}, {UINT64_MAX, 0}, {1024, UINT64_MAX}};
	struct ty_tier_names *names = calloc(1, sizeof *names);
	struct ty_tier_page page = {.wanted = 100};
	struct disk_index x;
	const char *why;

	(void)state;
	assert_true(disk_index_init(&x, &ty_policy_lru));
	for (size_t i = 0; i <= sizeof places / sizeof places[0]; i++) {
		page.cursor.length = i ? sizeof places[0] : 3;
		memcpy(page.cursor.bytes, places[i ? i - 1 : 0], sizeof places[0]);
		assert_int_equal(disk_index_page(&x, &page, &why), TY_TIER_FAILED);
		assert_string_equal(why, "the cursor is of no index that is here");
	}
	disk_index_clear(&x);
	free(names);
}

/* Whatever the table grows to between two pages, what was there before is told once. */
static void test_list_while_it_grows(void **state)
{
	enum { COUNT = 3000, MORE = 400 };
	static uint8_t seen[COUNT];
	struct ty_tier_names *names = calloc(1, sizeof *names);
	struct ty_tier_page page = {.wanted = 100};
	uint64_t length = 1, next = COUNT;
	const char *why;
	struct disk_index x;

	(void)state;
	assert_true(disk_index_init(&x, &ty_policy_lru));
	memset(seen, 0, sizeof seen);
	for (uint64_t n = 0; n < COUNT; n++)
		assert_non_null(disk_index_put(&x, &(struct disk_shape){house_key(n), 0, 1, &length, NULL}, NULL, 0, false));
	do {
		assert_int_equal(disk_index_page(&x, &page, &why), TY_TIER_DONE);
		for (uint32_t i = 0; i < page.count; i++)
			for (uint64_t n = 0; n < COUNT; n++) {
				struct ty_key key = house_key(n);

				if (memcmp(&key, &page.item[i].key, sizeof key) == 0)
					seen[n]++;
			}
		ty_tier_page_clear(&page);
		for (uint64_t n = 0; n < MORE; n++)
			assert_non_null(disk_index_put(&x, &(struct disk_shape){house_key(next++), 0, 1, &length, NULL}, NULL, 0, false));
	} while (page.cursor.length);
	assert_true(x.buckets > 2 * COUNT);
	for (uint64_t n = 0; n < COUNT; n++)
		assert_int_equal(seen[n], 1);
	disk_index_clear(&x);
	free(names);
}

/* A start that ended where the folder was to be told what it is (the power went, the disk was full) leaves that file empty, or half
 * written: the next one goes on there. */
static void test_half_made_folder(void **state)
{
	char path[128];
	struct house h;

	(void)state;
	for (off_t length = 0; length <= (off_t)strlen(DISK_FORMAT_TEXT); length++) {
		assert_int_equal(house_open(&h, spec), TY_OK);
		house_close(&h);
		snprintf(path, sizeof path, "%s/tyer-disk", dir);
		assert_int_equal(truncate(path, length), 0);
		if (length == 1) /* of the right length, and nothing in it */
			assert_true(truncate(path, 0) == 0 && truncate(path, (off_t)strlen(DISK_FORMAT_TEXT)) == 0);
	}
	assert_int_equal(house_open(&h, spec), TY_OK);
	house_close(&h);
}

static void refused(const char *text, enum ty_code code, const char *says)
{
	struct house h;

	assert_int_equal(house_open(&h, text), code);
	if (!strstr(h.error, says))
		fail_msg("\"%s\" does not say \"%s\"", h.error, says);
}

/* A folder that cannot be used is told before the service starts. */
static void test_bad_folder(void **state)
{
	char text[320], path[128];
	struct house h;
	int fd;

	(void)state;
	refused("disk:relative", TY_INVALID, "absolute");
	refused("disk:/proc/nowhere", TY_IO, "/proc/nowhere");
	snprintf(path, sizeof path, "%s/file", dir);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	snprintf(text, sizeof text, "disk:%s", path);
	refused(text, TY_IO, "open");
	refused("disk:/sys/kernel", TY_DENIED, "/sys/kernel"); /* nobody may write there, root neither */
	snprintf(text, sizeof text, "%s,flavour=vanilla", spec);
	refused(text, TY_INVALID, "flavour");
	snprintf(text, sizeof text, "%s,threads=99", spec);
	refused(text, TY_INVALID, "threads");
	/* Two services would take each other's files away. */
	assert_int_equal(house_open(&h, spec), TY_OK);
	refused(spec, TY_EXISTS, "another service");
	house_close(&h);
	snprintf(path, sizeof path, "%s/tyer-disk", dir);
	fd = open(path, O_WRONLY | O_TRUNC);
	assert_int_equal(write(fd, "tyer-disk 0\n", 12), 12);
	close(fd);
	refused(spec, TY_UNSUPPORTED, "tyer-disk 0");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		IN_FOLDER(scan),
		IN_FOLDER(full_folder), IN_FOLDER(many_owners), IN_FOLDER(names),
		IN_FOLDER(ends_while_it_scans),
		IN_FOLDER(list),
		IN_FOLDER(asked_while_it_scans),
		IN_FOLDER(list_while_it_grows),
		IN_FOLDER(list_from_nowhere),
		IN_FOLDER(half_made_folder),
		IN_FOLDER(bad_folder),
	};

	return run_both_ways(tests, sizeof tests / sizeof tests[0]);
}
