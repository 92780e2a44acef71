/* SPDX-License-Identifier: Apache-2.0
 *
 * The disk tier on real files, by io_uring where this machine allows it and by worker threads: what went in comes out, what is
 * wrong does not, and what has no room goes.
 */
#include "disk_folder.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actors/disk.h"

#define CHUNK 10000 /* no multiple of anything */

/* What was put is there, byte for byte, in this process and the next. */
static void test_round_trip(void **state)
{
	struct house h;

	(void)state;
	for (int life = 0; life < 2; life++) {
		assert_int_equal(house_open(&h, spec), TY_OK);
		house_scanned(&h);
		for (uint64_t n = 1; life == 0 && n <= 20; n++) {
			assert_int_equal(house_do(&h, TY_TIER_GET, n, 1, CHUNK), TY_TIER_MISSING);
			assert_int_equal(house_do(&h, TY_TIER_PUT, n, 1 + (uint32_t)n % 3, CHUNK), TY_TIER_DONE);
		}
		for (uint64_t n = 1; n <= 20; n++)
			assert_int_equal(house_do(&h, TY_TIER_GET, n, 1 + (uint32_t)n % 3, CHUNK), TY_TIER_DONE);
		assert_int_equal(h.tier->stats.chunks, 20);
		assert_int_equal(house_do(&h, TY_TIER_GET, 3, 2, CHUNK), TY_TIER_MISSING); /* another shape is another chunk */
		if (life == 1) {
			assert_int_equal(house_do(&h, TY_TIER_DELETE, 5, 1, 0), TY_TIER_DONE);
			assert_int_equal(house_do(&h, TY_TIER_DELETE, 5, 1, 0), TY_TIER_MISSING);
			assert_int_equal(house_do(&h, TY_TIER_GET, 5, 3, CHUNK), TY_TIER_MISSING);
			assert_int_equal(h.tier->stats.chunks, 19);
		}
		house_close(&h);
	}
}

/* EXISTS answers for the leading keys, with the first one's shape, and stops where the shape changes. */
static void test_exists(void **state)
{
	struct ty_tier_io *io;
	struct house h;

	(void)state;
	assert_int_equal(house_open(&h, spec), TY_OK);
	for (uint64_t n = 1; n <= 5; n++)
		assert_int_equal(house_do(&h, TY_TIER_PUT, n, n == 4 ? 1 : 2, CHUNK), TY_TIER_DONE);
	io = house_io(&h, TY_TIER_EXISTS, 1, 0, 8, 0);
	house_run(&h, &io, 1);
	assert_int_equal(io->outcome, TY_TIER_DONE);
	assert_int_equal(io->found, 3);
	assert_int_equal(io->parts, 2);
	assert_int_equal(io->part[1].length, CHUNK);
	house_free(io);
	assert_int_equal(house_do(&h, TY_TIER_EXISTS, 6, 1, 0), TY_TIER_MISSING);
	house_close(&h);
}

/* A part that is not wanted is not read, and nothing is written where it would lie. */
static void test_wanted_parts(void **state)
{
	struct ty_tier_io *io;
	struct house h;
	uint8_t *spare;

	(void)state;
	assert_int_equal(house_open(&h, spec), TY_OK);
	assert_int_equal(house_do(&h, TY_TIER_PUT, 1, 3, CHUNK), TY_TIER_DONE);
	io = house_io(&h, TY_TIER_GET, 1, 0, 3, CHUNK);
	spare = io->part[1].data;
	io->part[1].data = NULL;
	house_run(&h, &io, 1);
	assert_int_equal(io->outcome, TY_TIER_DONE);
	assert_true(house_holds(io->part[0].data, CHUNK, 1, 0));
	assert_true(house_holds(io->part[2].data, CHUNK, 1, 2));
	for (int i = 0; i < CHUNK; i++)
		assert_int_equal(spare[i], 0xee);
	house_free(io);
	house_close(&h);
}

/* Any byte that changes makes a miss, a count and a quarantined file: in the header, in the contents, at the end. */
static void test_damage(void **state)
{
	static const off_t at[] = {0, 8, 20, 64, 72, 1100, TY_ENVELOPE_BYTES, TY_ENVELOPE_BYTES + CHUNK - 1};
	struct house h;
	int corrupt = 0;

	(void)state;
	assert_int_equal(house_open(&h, spec), TY_OK);
	house_scanned(&h);
	for (uint64_t n = 0; n < sizeof at / sizeof at[0]; n++) {
		enum ty_tier_outcome expected = at[n] == 8 ? TY_TIER_MISSING : TY_TIER_CORRUPT; /* 8: another version's */

		assert_int_equal(house_do(&h, TY_TIER_PUT, n, 1, CHUNK), TY_TIER_DONE);
		flip(n, at[n]);
		assert_int_equal(house_do(&h, TY_TIER_GET, n, 1, CHUNK), expected);
		corrupt += expected == TY_TIER_CORRUPT;
		assert_int_equal(house_do(&h, TY_TIER_GET, n, 1, CHUNK), TY_TIER_MISSING);
	}
	assert_int_equal(h.tier->stats.outcomes[TY_TIER_GET][TY_TIER_CORRUPT], corrupt);
	assert_int_equal(h.tier->stats.quarantined, corrupt);
	house_close(&h);
	assert_int_equal(files_in("quarantine"), corrupt);
}

/* Files that are cut short, longer, renamed to another key, gone, or of an earlier version. */
static void test_strange_files(void **state)
{
	char from[256], to[256];
	struct house h;

	(void)state;
	assert_int_equal(house_open(&h, spec), TY_OK);
	for (uint64_t n = 1; n <= 6; n++)
		assert_int_equal(house_do(&h, TY_TIER_PUT, n, 1, CHUNK), TY_TIER_DONE);
	path_of(1, from);
	assert_int_equal(truncate(from, TY_ENVELOPE_BYTES + 4096), 0);
	path_of(2, from);
	assert_int_equal(truncate(from, 100), 0);
	path_of(3, from);
	assert_int_equal(unlink(from), 0);
	path_of(4, from);
	path_of(5, to);
	assert_int_equal(rename(from, to), 0);
	assert_int_equal(house_do(&h, TY_TIER_GET, 1, 1, CHUNK), TY_TIER_CORRUPT);
	assert_int_equal(house_do(&h, TY_TIER_GET, 2, 1, CHUNK), TY_TIER_CORRUPT);
	assert_int_equal(house_do(&h, TY_TIER_GET, 3, 1, CHUNK), TY_TIER_MISSING);
	assert_int_equal(house_do(&h, TY_TIER_GET, 4, 1, CHUNK), TY_TIER_MISSING);
	assert_int_equal(house_do(&h, TY_TIER_GET, 5, 1, CHUNK), TY_TIER_CORRUPT);
	assert_int_equal(house_do(&h, TY_TIER_GET, 6, 1, CHUNK), TY_TIER_DONE);
	/* It can be stored anew. */
	assert_int_equal(house_do(&h, TY_TIER_PUT, 3, 1, CHUNK), TY_TIER_DONE);
	assert_int_equal(house_do(&h, TY_TIER_GET, 3, 1, CHUNK), TY_TIER_DONE);
	house_close(&h);
}

/* What stands in a file's place and opens only when somebody writes to it: it costs that read, and no thread. */
static void test_pipes(void **state)
{
	char brief[320], path[256];
	struct house h;

	(void)state;
	snprintf(brief, sizeof brief, "%s,timeout=300ms%s", spec, strstr(spec, "plain") ? ",threads=1" : "");
	assert_int_equal(house_open(&h, brief), TY_OK);
	house_scanned(&h);
	for (uint64_t n = 0; n < 3; n++)
		assert_int_equal(house_do(&h, TY_TIER_PUT, n, 1, CHUNK), TY_TIER_DONE);
	for (uint64_t n = 0; n < 2; n++) {
		path_of(n, path);
		assert_int_equal(unlink(path), 0);
		assert_int_equal(mkfifo(path, 0600), 0);
		assert_int_not_equal(house_do(&h, TY_TIER_GET, n, 1, CHUNK), TY_TIER_DONE);
	}
	assert_int_equal(house_do(&h, TY_TIER_GET, 2, 1, CHUNK), TY_TIER_DONE);
	house_close(&h);
}

/* It keeps to its size, and what was used last stays. */
static void test_size(void **state)
{
	uint64_t bytes = 4 << 20, room = TY_PIECE_BYTES / (bytes + TY_ENVELOPE_BYTES);
	char limited[320];
	struct house h;

	(void)state;
	snprintf(limited, sizeof limited, "%s,size=64MiB", spec);
	assert_int_equal(house_open(&h, limited), TY_OK);
	house_scanned(&h);
	for (uint64_t n = 0; n < 2 * room; n++) {
		assert_int_equal(house_do(&h, TY_TIER_PUT, n, 1, bytes), TY_TIER_DONE);
		assert_int_equal(house_do(&h, TY_TIER_GET, 0, 1, bytes), TY_TIER_DONE);
		assert_true(h.tier->stats.used_bytes <= TY_PIECE_BYTES);
	}
	assert_int_equal(h.tier->stats.evicted, room);
	assert_int_equal(house_do(&h, TY_TIER_GET, 1, 1, bytes), TY_TIER_MISSING);
	assert_int_equal(house_do(&h, TY_TIER_GET, 2 * room - 1, 1, bytes), TY_TIER_DONE);
	house_close(&h);
	/* With a smaller size, the next start takes away what is too much. */
	assert_int_equal(house_open(&h, limited), TY_OK);
	house_scanned(&h);
	assert_int_equal(h.tier->stats.chunks, room);
	house_close(&h);
}

/* A chunk that is larger than all of the tier takes nothing else away. */
static void test_larger_than_the_tier(void **state)
{
	enum { COUNT = 10 };
	char limited[320];
	struct house h;

	(void)state;
	snprintf(limited, sizeof limited, "%s,size=64MiB", spec);
	assert_int_equal(house_open(&h, limited), TY_OK);
	house_scanned(&h);
	for (uint64_t n = 0; n < COUNT; n++)
		assert_int_equal(house_do(&h, TY_TIER_PUT, n, 1, CHUNK), TY_TIER_DONE);
	assert_int_equal(house_do(&h, TY_TIER_PUT, COUNT, 2, TY_PIECE_BYTES / 2), TY_TIER_FULL);
	assert_int_equal(h.tier->stats.evicted, 0);
	for (uint64_t n = 0; n < COUNT; n++)
		assert_int_equal(house_do(&h, TY_TIER_GET, n, 1, CHUNK), TY_TIER_DONE);
	house_close(&h);
}

/* Some that are used again and again, and many that are used once: which of the first are left. */
static uint64_t left_of(struct house *h, uint64_t first, uint64_t count)
{
	uint64_t left = 0;

	for (uint64_t n = first; n < first + count; n++)
		left += house_do(h, TY_TIER_EXISTS, n, 1, 0) == TY_TIER_DONE;
	return left;
}

static void use(struct house *h, uint64_t first, uint64_t count, uint64_t bytes)
{
	for (uint64_t n = first; n < first + count; n++) {
		assert_int_equal(house_do(h, TY_TIER_PUT, n, 1, bytes), TY_TIER_DONE);
		for (int i = 0; i < 2; i++)
			assert_int_equal(house_do(h, TY_TIER_GET, n, 1, bytes), TY_TIER_DONE);
	}
}

static void flood(struct house *h, uint64_t first, uint64_t count, uint64_t bytes)
{
	for (uint64_t n = first; n < first + count; n++)
		assert_int_equal(house_do(h, TY_TIER_PUT, n, 1, bytes), TY_TIER_DONE);
}

/* Another policy while it serves: from then on what is new is kept by it, and what was there goes first. */
static void test_policy(void **state)
{
	uint64_t bytes = 4 << 20, room = TY_PIECE_BYTES / (bytes + TY_ENVELOPE_BYTES), hot = room / 4;
	char limited[320];
	struct house h;

	(void)state;
	snprintf(limited, sizeof limited, "%s,size=64MiB,policy=worst", spec);
	assert_int_equal(house_open(&h, limited), TY_INVALID);
	assert_non_null(strstr(h.error, "policy=lru|arc|s3-fifo"));
	snprintf(limited, sizeof limited, "%s,size=64MiB", spec);
	assert_int_equal(house_open(&h, limited), TY_OK);
	house_scanned(&h);
	use(&h, 0, hot, bytes);
	flood(&h, 1000, room, bytes);
	assert_int_equal(left_of(&h, 0, hot), 0); /* LRU */
	atomic_store(&h.tier->policy, &ty_policy_s3fifo);
	h.tier->cls->resized(h.tier);
	use(&h, 100, hot, bytes);
	assert_int_equal(left_of(&h, 1000, room), room - hot); /* those before it go first, and in their order */
	assert_int_equal(left_of(&h, 1000, hot), 0);
	flood(&h, 2000, 2 * room, bytes);
	assert_int_equal(left_of(&h, 100, hot), hot);
	assert_int_equal(left_of(&h, 1000, room), 0);
	assert_true(h.tier->stats.used_bytes <= TY_PIECE_BYTES);
	house_close(&h);
}

/* Every change at any time: entries come, are used, go and are evicted, and none is lost or found twice. */
static void test_order_random(void **state)
{
	enum { KEYS = 500 };
	static const struct ty_policy_class *const all[] = {&ty_policy_arc, &ty_policy_lru, &ty_policy_s3fifo};
	struct disk_entry *here[KEYS] = {NULL}, *e;
	uint64_t length = 1, random = 7;
	struct disk_index x;
	uint32_t changes = 0;

	(void)state;
	assert_true(disk_index_init(&x, &ty_policy_lru));
	for (uint32_t step = 0; step < 200000; step++) {
		uint32_t n, what;

		random = random * 6364136223846793005u + 1442695040888963407u;
		n = (uint32_t)(random >> 33) % KEYS;
		what = (uint32_t)(random >> 20) % 1000;
		if (what < 3) {
			changes += disk_order_change(&x.order, all[n % 3]);
		} else if (what < 400) {
			here[n] = disk_index_put(&x, &(struct disk_shape){house_key(n), 0, 1, &length, NULL}, NULL, 0, what % 2);
			assert_non_null(here[n]);
		} else if (what < 700 && here[n]) {
			disk_index_touch(&x, here[n]);
		} else if (what < 850 && here[n]) {
			disk_index_remove(&x, here[n], false);
			here[n] = NULL;
		} else if (what >= 850 && (e = disk_order_victim(&x.order))) {
			for (n = 0; here[n] != e; n++)
				assert_true(n < KEYS);
			disk_index_remove(&x, e, true);
			here[n] = NULL;
		}
	}
	assert_true(changes > 100);
	while ((e = disk_order_victim(&x.order))) {
		uint32_t n = 0;

		for (; here[n] != e; n++)
			assert_true(n < KEYS);
		here[n] = NULL;
		disk_index_remove(&x, e, true);
	}
	for (uint32_t n = 0; n < KEYS; n++)
		assert_null(here[n]);
	assert_int_equal(x.count, 0);
	disk_index_clear(&x);
}

/* A chunk of another namespace under this key's name is none of ours; one whose namespace was not known may be. */
static void test_identity(void **state)
{
	struct ty_identity mine = {.tenant = "me", .model = "m", .dtype = "bf16"}, other = mine;
	struct ty_tier_io *io;
	struct house h;

	(void)state;
	strcpy(other.revision, "2");
	assert_int_equal(house_open(&h, spec), TY_OK);
	for (uint64_t n = 1; n <= 3; n++) {
		io = house_io(&h, TY_TIER_PUT, n, 0, 1, CHUNK);
		io->identity = n == 1 ? &mine : n == 2 ? &other : NULL;
		house_run(&h, &io, 1);
		assert_int_equal(io->outcome, TY_TIER_DONE);
		house_free(io);
		io = house_io(&h, TY_TIER_GET, n, 0, 1, CHUNK);
		io->identity = &mine;
		house_run(&h, &io, 1);
		assert_int_equal(io->outcome, n == 2 ? TY_TIER_CORRUPT : TY_TIER_DONE);
		house_free(io);
	}
	house_close(&h);
}

/* Many at once, more than it takes: each comes home once, and right. */
static void test_many(void **state)
{
	enum { COUNT = 300 };
	struct ty_tier_io *ios[COUNT];
	struct house h;

	(void)state;
	assert_int_equal(house_open(&h, spec), TY_OK);
	for (int pass = 0; pass < 2; pass++) {
		for (uint32_t i = 0; i < COUNT; i++)
			ios[i] = house_io(&h, pass ? TY_TIER_GET : TY_TIER_PUT, i, 2 * i, 1 + i % 2, 65536);
		house_run(&h, ios, COUNT);
		for (uint32_t i = 0; i < COUNT; i++) {
			assert_int_equal(ios[i]->outcome, TY_TIER_DONE);
			for (uint32_t part = 0; part < ios[i]->parts; part++)
				assert_true(house_holds(ios[i]->part[part].data, 65536, i, part));
			house_free(ios[i]);
		}
	}
	assert_int_equal(h.tier->stats.in_flight[0], 0);
	assert_int_equal(h.tier->stats.in_flight[1], 0);
	assert_int_equal(h.tier->stats.in_flight_bytes[1], 0);
	house_close(&h);
}

/* Its folder vanishes under it, and comes back: operations fail, nothing else does. */
static void test_vanished(void **state)
{
	char away[80];
	struct house h;

	(void)state;
	assert_int_equal(house_open(&h, spec), TY_OK);
	assert_int_equal(house_do(&h, TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	snprintf(away, sizeof away, "%s/aside", dir);
	assert_int_equal(mkdir(away, 0700), 0);
	for (int i = 0; i < 256; i++) {
		char from[96], to[128];

		snprintf(from, sizeof from, "%s/%02x", dir, i);
		snprintf(to, sizeof to, "%s/%02x", away, i);
		assert_int_equal(rename(from, to), 0);
	}
	assert_int_equal(house_do(&h, TY_TIER_PUT, 2, 1, CHUNK), TY_TIER_FAILED);
	assert_int_equal(house_do(&h, TY_TIER_GET, 1, 1, CHUNK), TY_TIER_MISSING);
	for (int i = 0; i < 256; i++) {
		char from[96], to[128];

		snprintf(from, sizeof from, "%s/%02x", dir, i);
		snprintf(to, sizeof to, "%s/%02x", away, i);
		assert_int_equal(rename(to, from), 0);
	}
	assert_int_equal(house_do(&h, TY_TIER_PUT, 2, 1, CHUNK), TY_TIER_DONE);
	assert_int_equal(house_do(&h, TY_TIER_GET, 2, 1, CHUNK), TY_TIER_DONE);
	house_close(&h);
}

/* Read aside: into memory that is not the arena's, without being a use. */
static void test_aside(void **state)
{
	uint64_t bytes = 1 << 20, room = 3;
	uint8_t *memory = aligned_alloc(TY_ENVELOPE_ALIGN, ty_envelope_padded(bytes));
	struct ty_tier_io *io;
	struct house h;

	(void)state;
	assert_int_equal(house_open(&h, spec), TY_OK);
	atomic_store(&h.tier->size, room * bytes + bytes / 2); /* less than may be said: so that little is written */
	for (uint64_t n = 0; n < room; n++)
		assert_int_equal(house_do(&h, TY_TIER_PUT, n, 1, bytes), TY_TIER_DONE);
	io = house_io(&h, TY_TIER_GET, 0, 0, 1, bytes);
	io->part[0].data = memory;
	io->aside = true;
	house_run(&h, &io, 1);
	assert_int_equal(io->outcome, TY_TIER_DONE);
	assert_true(house_holds(memory, bytes, 0, 0));
	house_free(io);
	assert_int_equal(house_do(&h, TY_TIER_PUT, room, 1, bytes), TY_TIER_DONE);
	assert_int_equal(house_do(&h, TY_TIER_EXISTS, 0, 1, 0), TY_TIER_MISSING); /* it was the oldest all the same */
	flip(1, TY_ENVELOPE_BYTES + 5);
	io = house_io(&h, TY_TIER_GET, 1, 0, 1, bytes);
	io->part[0].data = memory;
	io->aside = true;
	house_run(&h, &io, 1);
	assert_int_equal(io->outcome, TY_TIER_CORRUPT);
	house_free(io);
	house_close(&h);
	free(memory);
}

static _Atomic int deleted, read_first;

static void note_home(struct ty_tier_io *io)
{
	if (io->verb == TY_TIER_DELETE)
		deleted = 1;
	else if (io->verb == TY_TIER_GET && !deleted)
		read_first = 1;
}

static bool not_before_it_is_deleted(const struct ty_tier_io *io)
{
	return io->verb != TY_TIER_PUT || deleted;
}

/* While a file is read that is wrong, it is deleted, and the chunk stored anew: the new file is not taken for the old one. */
static void test_replaced_while_it_is_read(void **state)
{
	uint64_t large = 24 << 20;
	struct house h;
	int raced = 0;

	(void)state;
	assert_int_equal(house_open(&h, spec), TY_OK);
	house_scanned(&h);
	for (uint64_t n = 0; n < 20 && !raced; n++) {
		struct ty_tier_io *ios[3];

		assert_int_equal(house_do(&h, TY_TIER_PUT, n, 1, large), TY_TIER_DONE);
		flip(n, TY_ENVELOPE_BYTES + 100);
		deleted = read_first = 0;
		ios[0] = house_io(&h, TY_TIER_GET, n, 0, 1, large);
		ios[1] = house_io(&h, TY_TIER_DELETE, n, 0, 1, 0);
		ios[2] = house_io(&h, TY_TIER_PUT, n, 4 * TY_PIECE_BYTES / 4096 - 4, 1, 4096);
		house_home = note_home;
		house_may = not_before_it_is_deleted;
		house_run(&h, ios, 3);
		house_home = NULL;
		house_may = NULL;
		assert_int_equal(ios[2]->outcome, TY_TIER_DONE);
		raced = !read_first && ios[0]->outcome == TY_TIER_CORRUPT; /* its file was open by then */
		assert_int_equal(house_do(&h, TY_TIER_GET, n, 1, 4096), TY_TIER_DONE);
		assert_int_equal(h.tier->stats.quarantined, 0);
		for (int i = 0; i < 3; i++)
			house_free(ios[i]);
	}
	house_close(&h);
}

/* A chunk is deleted while it is written, and comes again before that is over: what is told of it then is so. */
static void test_comes_again_while_it_goes(void **state)
{
	uint64_t large = 8 << 20;
	struct house h;

	(void)state;
	assert_int_equal(house_open(&h, spec), TY_OK);
	house_scanned(&h);
	for (uint64_t n = 0; n < 30; n++) {
		struct ty_tier_io *ios[3];
		enum ty_tier_outcome there;

		ios[0] = house_io(&h, TY_TIER_PUT, n, 0, 1, large);
		ios[1] = house_io(&h, TY_TIER_DELETE, n, 0, 1, 0);
		ios[2] = house_io(&h, TY_TIER_PUT, n, 0, 1, large);
		house_run(&h, ios, 3);
		there = house_do(&h, TY_TIER_EXISTS, n, 1, 0);
		assert_int_equal(house_do(&h, TY_TIER_GET, n, 1, large), there);
		for (int i = 0; i < 3; i++)
			house_free(ios[i]);
	}
	house_close(&h);
}

static _Atomic uint32_t came_home;

static void count_home(struct ty_tier_io *io)
{
	(void)io;
	came_home++;
}

/* The end does not wait for files that are being removed; whoever asked for that hears of it all the same. */
static void test_ends_while_it_removes(void **state)
{
	enum { COUNT = 50 };
	struct ty_tier_io *ios[COUNT];
	struct house h;

	(void)state;
	for (int life = 0; life < 4; life++) {
		struct house_job job = {.ios = ios, .count = COUNT};

		assert_int_equal(house_open(&h, spec), TY_OK);
		house_scanned(&h);
		for (uint64_t n = 0; n < COUNT; n++)
			assert_int_equal(house_do(&h, TY_TIER_PUT, n, 1, 1 << 20), TY_TIER_DONE);
		for (uint64_t n = 0; n < COUNT; n++)
			ios[n] = house_io(&h, TY_TIER_DELETE, n, 0, 1, 0);
		came_home = 0;
		house_home = count_home;
		house_begin(&h, &job);
		while (atomic_load(&h.tier->stats.submitted[TY_TIER_DELETE]) < COUNT)
			usleep(10);
		house_close(&h);
		house_home = NULL;
		assert_int_equal(came_home, COUNT);
		for (int n = 0; n < COUNT; n++)
			house_free(ios[n]);
	}
}

/* What is wrong is kept for people to look at, up to a limit, which holds for those that were there before too. */
static void test_quarantine(void **state)
{
	char limited[320];
	struct house h;

	(void)state;
	snprintf(limited, sizeof limited, "%s,quarantine=%u", spec, 3 * (TY_ENVELOPE_BYTES + 12288));
	for (int life = 0; life < 2; life++) {
		assert_int_equal(house_open(&h, limited), TY_OK);
		house_scanned(&h);
		for (uint64_t n = 0; n < 2; n++) {
			assert_int_equal(house_do(&h, TY_TIER_PUT, n, 1, CHUNK), TY_TIER_DONE);
			flip(n, TY_ENVELOPE_BYTES + 1);
			assert_int_equal(house_do(&h, TY_TIER_GET, n, 1, CHUNK), TY_TIER_CORRUPT);
		}
		assert_int_equal(h.tier->stats.quarantined, 2);
		assert_int_equal(house_do(&h, TY_TIER_PUT, 9, 1, CHUNK), TY_TIER_DONE); /* then what is published is so */
		assert_int_equal(h.tier->stats.quarantine_bytes, (life ? 3 : 2) * (TY_ENVELOPE_BYTES + 12288));
		house_close(&h);
		assert_int_equal(files_in("quarantine"), life ? 3 : 2);
	}
}

/* What cannot be put aside, because somebody took that folder away, is removed: it would lie there uncounted, and be found again. */
static void test_no_quarantine(void **state)
{
	char path[256];
	struct house h;

	(void)state;
	assert_int_equal(house_open(&h, spec), TY_OK);
	house_scanned(&h);
	assert_int_equal(house_do(&h, TY_TIER_PUT, 1, 1, CHUNK), TY_TIER_DONE);
	flip(1, TY_ENVELOPE_BYTES + 1);
	snprintf(path, sizeof path, "%s/quarantine", dir);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(house_do(&h, TY_TIER_GET, 1, 1, CHUNK), TY_TIER_CORRUPT);
	path_of(1, path);
	while (access(path, F_OK) == 0 || atomic_load(&h.tier->stats.quarantine_bytes))
		usleep(100);
	house_close(&h);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		IN_FOLDER(round_trip),
		IN_FOLDER(exists),
		IN_FOLDER(wanted_parts),
		IN_FOLDER(damage),
		IN_FOLDER(strange_files),
		IN_FOLDER(pipes),
		IN_FOLDER(size),
		IN_FOLDER(larger_than_the_tier),
		IN_FOLDER(policy),
		IN_FOLDER(order_random),
		IN_FOLDER(identity),
		IN_FOLDER(many),
		IN_FOLDER(vanished),
		IN_FOLDER(aside),
		IN_FOLDER(replaced_while_it_is_read),
		IN_FOLDER(comes_again_while_it_goes),
		IN_FOLDER(ends_while_it_removes),
		IN_FOLDER(quarantine),
		IN_FOLDER(no_quarantine),
	};

	return run_both_ways(tests, sizeof tests / sizeof tests[0]);
}
