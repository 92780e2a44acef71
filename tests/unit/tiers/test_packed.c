/* SPDX-License-Identifier: Apache-2.0
 *
 * A disk tier that packs: what went in comes out, byte for byte, in less room; whether this service packs or not, whatever the next one
 * does; and what is wrong, or given up in the middle, leaves nothing behind.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "house.h"
#include "base/bytes.h"
#include "cache/checksum.h"

#define CHUNK 300001 /* no multiple of anything; more than a block of 16-bit numbers */

static char dir[40], spec[256];
static const char *settings;

static int make_dir(void **state)
{
	settings = *state;
	strcpy(dir, "/var/tmp/tyer-packed.XXXXXX");
	assert_non_null(mkdtemp(dir));
	return 0;
}

static int remove_dir(void **state)
{
	char command[160];

	(void)state;
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command);
}

static void open_tier(struct house *h, const char *more)
{
	snprintf(spec, sizeof spec, "disk:%s%s%s", dir, settings, more);
	assert_int_equal(house_open(h, spec), TY_OK);
	house_scanned(h);
}

static void close_tier(struct house *h)
{
	assert_int_equal(h->tier->stats.buffer_bytes, 0);
	house_close(h);
}

/* Part `part` of chunk `number`: noise where the part's number is odd, else 16-bit numbers of about one size. */
static uint8_t byte_of(uint64_t number, uint32_t part, uint64_t i)
{
	uint64_t z = (number * 64 + part) * 0x9e3779b97f4a7c15ull + i * 0xbf58476d1ce4e5b9ull;

	z = (z ^ z >> 30) * 0x94d049bb133111ebull;
	z ^= z >> 31;
	return part % 2 || i % 2 == 0 ? (uint8_t)z : (uint8_t)(0x3c + (z & 3));
}

static const struct ty_identity identity = {.tenant = "acme", .model = "model", .dtype = "bf16"};

static struct ty_tier_io *make(struct house *h, enum ty_tier_verb verb, uint64_t number, uint32_t place, uint32_t parts)
{
	struct ty_tier_io *io = house_io(h, verb, number, place, parts, CHUNK);

	io->identity = &identity;
	for (uint32_t p = 0; verb == TY_TIER_PUT && p < parts; p++) {
		for (uint64_t i = 0; i < CHUNK; i++)
			io->part[p].data[i] = byte_of(number, p, i);
		io->part[p].checksum = ty_checksum(io->part[p].data, CHUNK);
	}
	return io;
}

static bool holds(const struct ty_tier_io *io, uint64_t number)
{
	for (uint32_t p = 0; p < io->parts; p++)
		for (uint64_t i = 0; io->part[p].data && i < CHUNK; i++)
			if (io->part[p].data[i] != byte_of(number, p, i))
				return false;
	return true;
}

/* GET: DONE only if every byte is right. */
static enum ty_tier_outcome act(struct house *h, enum ty_tier_verb verb, uint64_t number, uint32_t parts)
{
	struct ty_tier_io *io = make(h, verb, number, 0, parts);
	enum ty_tier_outcome outcome;

	house_run(h, &io, 1);
	outcome = io->outcome;
	if (verb == TY_TIER_GET && outcome == TY_TIER_DONE)
		assert_true(holds(io, number));
	snprintf(h->error, sizeof h->error, "%s", io->error);
	house_free(io);
	return outcome;
}

static uint64_t size_of(uint64_t number, int *fd)
{
	struct ty_key key = house_key(number);
	char path[160];
	struct stat st;
	int n = snprintf(path, sizeof path, "%s/%02x/", dir, key.bytes[0]);

	for (int i = 0; i < 32; i++)
		n += snprintf(path + n, sizeof path - (size_t)n, "%02x", key.bytes[i]);
	snprintf(path + n, sizeof path - (size_t)n, ".tyer");
	if (fd)
		*fd = open(path, O_RDWR);
	return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static void test_round_trip(void **state)
{
	static const char *const lives[] = {",compress=zstd", "", ",compress=lz4", ",compress=zstd:6"};
	uint64_t raw = TY_ENVELOPE_BYTES + 3 * ty_envelope_padded(CHUNK), there = 0;
	struct house h;

	(void)state;
	for (size_t life = 0; life < sizeof lives / sizeof lives[0]; life++) {
		open_tier(&h, lives[life]);
		if (life)
			assert_int_equal(h.tier->stats.used_bytes, there);
		for (uint64_t n = 10 * life; n < 10 * life + 10; n++)
			assert_int_equal(act(&h, TY_TIER_PUT, n, 3), TY_TIER_DONE);
		for (uint64_t n = 0; n < 10 * life + 10; n++)
			assert_int_equal(act(&h, TY_TIER_GET, n, 3), TY_TIER_DONE);
		assert_int_equal(h.tier->stats.chunks, 10 * life + 10);
		there = h.tier->stats.used_bytes;
		if (life != 1) { /* two of three parts got smaller */
			assert_int_equal(h.tier->stats.pack_as_they_are, 10);
			assert_int_equal(h.tier->stats.pack_from_bytes, 30 * CHUNK);
			assert_true(h.tier->stats.pack_to_bytes < 30 * CHUNK * 9 / 10);
			assert_true(size_of(10 * life, NULL) < raw * 9 / 10);
		} else {
			assert_int_equal(h.tier->stats.pack_from_bytes, 0);
			assert_int_equal(size_of(10 * life, NULL), raw);
		}
		assert_true(h.tier->stats.unpack_to_bytes >= 20 * CHUNK); /* also by one that packs nothing itself */
		close_tier(&h);
	}
}

/* Only the parts that are wanted: from the arena, and, as the scrubber reads, into memory of its own. */
static void test_one_part(void **state)
{
	uint8_t *memory = aligned_alloc(TY_ENVELOPE_ALIGN, ty_envelope_padded(CHUNK));
	struct ty_tier_io *io;
	struct house h;

	(void)state;
	open_tier(&h, ",compress=zstd");
	assert_int_equal(act(&h, TY_TIER_PUT, 1, 4), TY_TIER_DONE);
	for (uint32_t round = 0; round < 8; round++) {
		uint32_t p = round / 2;

		io = make(&h, TY_TIER_GET, 1, 0, 4);
		io->aside = round % 2;
		for (uint32_t i = 0; i < 4; i++)
			io->part[i].data = i != p ? NULL : io->aside ? memory : house_place(&h, 40, CHUNK);
		house_run(&h, &io, 1);
		assert_int_equal(io->outcome, TY_TIER_DONE);
		assert_true(holds(io, 1));
		house_free(io);
	}
	close_tier(&h);
	free(memory);
}

/* Noise lies as it would without. */
static void test_noise(void **state)
{
	struct house h;

	(void)state;
	open_tier(&h, ",compress=zstd");
	for (uint64_t n = 1; n <= 3; n++)
		assert_int_equal(house_do(&h, TY_TIER_PUT, n, 2, 1 << 20), TY_TIER_DONE);
	for (uint64_t n = 1; n <= 3; n++) {
		uint8_t version[4];
		int fd;

		assert_int_equal(house_do(&h, TY_TIER_GET, n, 2, 1 << 20), TY_TIER_DONE);
		assert_int_equal(size_of(n, &fd), TY_ENVELOPE_BYTES + (2 << 20));
		assert_int_equal(pread(fd, version, 4, 8), 4);
		assert_int_equal(ty_get32(version), 1);
		close(fd);
	}
	assert_int_equal(h.tier->stats.pack_as_they_are, 6);
	close_tier(&h);
}

static void flip(uint64_t number, uint64_t at)
{
	uint8_t byte;
	int fd;

	assert_true(size_of(number, &fd) > at);
	assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
	close(fd);
}

/* A flipped bit, wherever it is: a miss, counted, put aside, and gone. */
static void test_damage(void **state)
{
	static const uint64_t places[] = {0, 8, 70, 2435, 2440, 4096, 4100, 60000};
	struct house h;

	(void)state;
	open_tier(&h, ",compress=zstd");
	for (uint64_t n = 0; n < sizeof places / sizeof places[0]; n++) {
		enum ty_tier_outcome first;

		assert_int_equal(act(&h, TY_TIER_PUT, n, 3), TY_TIER_DONE);
		flip(n, places[n]);
		first = act(&h, TY_TIER_GET, n, 3);
		assert_true(first == TY_TIER_CORRUPT || (places[n] == 8 && first == TY_TIER_MISSING)); /* it says version 3 there */
		assert_int_equal(act(&h, TY_TIER_GET, n, 3), TY_TIER_MISSING);
	}
	assert_int_equal(h.tier->stats.quarantined, sizeof places / sizeof places[0] - 1);
	assert_int_equal(h.tier->stats.unpack_wrong, 3); /* those behind the header, by the checksum of the packed bytes */
	close_tier(&h);
}

/* Change the packed bytes at `at` to a word, and let every checksum of the file fit. */
static void forge(uint64_t number, uint64_t at, uint32_t word)
{
	uint8_t header[TY_ENVELOPE_BYTES], *packed;
	struct ty_envelope e;
	struct ty_error err;
	int fd;

	assert_true(size_of(number, &fd));
	assert_int_equal(pread(fd, header, sizeof header, 0), (ssize_t)sizeof header);
	assert_int_equal(ty_envelope_read(header, &e, &err), TY_OK);
	packed = malloc(e.packed[0].stored);
	assert_int_equal(pread(fd, packed, e.packed[0].stored, TY_ENVELOPE_BYTES), (ssize_t)e.packed[0].stored);
	ty_put32(packed + at, word);
	e.packed[0].checksum = ty_checksum(packed, e.packed[0].stored);
	ty_envelope_write(&e, header);
	assert_int_equal(pwrite(fd, header, sizeof header, 0), (ssize_t)sizeof header);
	assert_int_equal(pwrite(fd, packed, e.packed[0].stored, TY_ENVELOPE_BYTES), (ssize_t)e.packed[0].stored);
	free(packed);
	close(fd);
}

/* Bytes that fit their checksum and are none of ours: the decoder refuses them, or what it makes is not what was stored. */
static void test_forged(void **state)
{
	enum { SECOND = 4 + 131072 }; /* the first block's second plane; its first one is noise, and lies as it is */
	static const struct { uint64_t at; uint32_t word; } changes[] = {
		{0, 0}, {0, 0xffffffff}, {0, 5}, {0, 0x80000000u | 131072}, {SECOND, 0}, {SECOND, 0xffffffff}, {SECOND, 0x80000000u | 131072},
		{SECOND + 4, 0xfd2fb528}, {SECOND + 4, 0xfd2fb527}, {SECOND + 4, 0x184d2a50}, {SECOND + 8, 0}, {SECOND + 8, 0xffffffff},
		{SECOND + 500, 0},
	};
	struct house h;

	(void)state;
	for (int lz4 = 0; lz4 < 2; lz4++) {
		open_tier(&h, lz4 ? ",compress=lz4" : ",compress=zstd");
		for (uint64_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
			uint64_t n = 100 * (uint64_t)lz4 + i;
			int before;
			uint8_t same[4];

			assert_int_equal(act(&h, TY_TIER_PUT, n, 1), TY_TIER_DONE);
			(void)size_of(n, &before);
			assert_int_equal(pread(before, same, 4, (off_t)(TY_ENVELOPE_BYTES + changes[i].at)), 4);
			close(before);
			forge(n, changes[i].at, changes[i].word);
			assert_int_equal(act(&h, TY_TIER_GET, n, 1),
				ty_get32(same) == changes[i].word ? TY_TIER_DONE : TY_TIER_CORRUPT);
		}
		assert_true(h.tier->stats.unpack_wrong >= 6);
		close_tier(&h);
	}
}

/* The size is kept in bytes as they lie there. */
static void test_size(void **state)
{
	enum { PUTS = 62 }; /* of 1.2 MB in 64 MiB; packed 1.0 MB */
	struct house h;

	(void)state;
	open_tier(&h, ",compress=zstd,size=64MiB");
	for (uint64_t n = 1; n <= PUTS; n++)
		assert_int_equal(act(&h, TY_TIER_PUT, n, 4), TY_TIER_DONE);
	assert_int_equal(h.tier->stats.evicted, 0);
	assert_true(h.tier->stats.used_bytes < (64 << 20) && h.tier->stats.put_bytes > (64 << 20));
	assert_int_equal(h.tier->stats.put_bytes, PUTS * 4 * CHUNK);
	assert_int_equal(act(&h, TY_TIER_GET, 1, 4), TY_TIER_DONE);
	close_tier(&h);
}

static bool cancel_all(const struct ty_tier_io *io)
{
	/* release: as a home does */
	atomic_store_explicit(&((struct ty_tier_io *)(uintptr_t)io)->cancelled, true, memory_order_release);
	return true;
}

/* Nobody wants it any more; or the tier stops. What is with a packer or unpacker then comes home, and nothing of it is there. */
static void test_given_up(void **state)
{
	struct ty_tier_io *ios[20];
	struct house h;

	(void)state;
	open_tier(&h, ",compress=zstd:19");
	assert_int_equal(act(&h, TY_TIER_PUT, 99, 3), TY_TIER_DONE);
	house_may = cancel_all;
	assert_int_equal(act(&h, TY_TIER_PUT, 1, 3), TY_TIER_LATE);
	assert_int_equal(act(&h, TY_TIER_GET, 99, 3), TY_TIER_LATE);
	house_may = NULL;
	assert_int_equal(h.tier->stats.pack_given_up, 2);
	assert_int_equal(h.tier->stats.chunks, 1);
	assert_int_equal(act(&h, TY_TIER_GET, 99, 3), TY_TIER_DONE);
	/* release: as the service does */
	atomic_store_explicit(&h.tier->ending, true, memory_order_release);
	for (uint32_t i = 0; i < 20; i++)
		ios[i] = make(&h, i % 2 ? TY_TIER_PUT : TY_TIER_GET, i % 2 ? i : 99, 3 * i, 3);
	house_run(&h, ios, 20);
	for (uint32_t i = 0; i < 20; i++) {
		assert_int_equal(ios[i]->outcome, TY_TIER_STOPPED);
		house_free(ios[i]);
	}
	assert_int_equal(h.tier->stats.chunks, 1);
	close_tier(&h);
}

/* A DELETE that comes after a PUT holds, wherever that is: with a packer, on its way into the file, or there. */
static void test_deleted_meanwhile(void **state)
{
	enum { MANY = 30 };
	struct ty_tier_io *ios[2 * MANY];
	struct house h;

	(void)state;
	for (int packs = 0; packs < 2; packs++) {
		open_tier(&h, packs ? ",compress=zstd:19" : "");
		for (uint64_t n = 0; n < MANY; n++) {
			ios[2 * n] = make(&h, TY_TIER_PUT, n, (uint32_t)(3 * n), 3);
			ios[2 * n + 1] = make(&h, TY_TIER_DELETE, n, 0, 0);
		}
		house_run(&h, ios, 2 * MANY);
		for (uint64_t n = 0; n < MANY; n++) {
			/* given up, or it was there and went */
			assert_true(ios[2 * n]->outcome == TY_TIER_LATE ||
				(ios[2 * n]->outcome == TY_TIER_DONE && ios[2 * n + 1]->outcome == TY_TIER_DONE));
			assert_int_equal(act(&h, TY_TIER_GET, n, 3), TY_TIER_MISSING);
			house_free(ios[2 * n]);
			house_free(ios[2 * n + 1]);
		}
		assert_int_equal(h.tier->stats.chunks, 0);
		for (uint64_t n = 0; n < MANY; n++)
			while (size_of(n, NULL)) /* what had been written goes by itself */
				usleep(1000);
		assert_int_equal(act(&h, TY_TIER_PUT, 99, 3), TY_TIER_DONE); /* another one is */
		assert_int_equal(act(&h, TY_TIER_DELETE, 99, 0), TY_TIER_DONE);
		close_tier(&h);
	}
}

/* Many at once, both ways. */
static void test_many(void **state)
{
	enum { MANY = 60 };
	struct ty_tier_io *ios[2 * MANY];
	struct house h;

	(void)state;
	open_tier(&h, ",compress=lz4,ops=16");
	for (uint64_t n = 0; n < MANY; n++)
		ios[n] = make(&h, TY_TIER_PUT, n, (uint32_t)(3 * n), 3);
	house_run(&h, ios, MANY);
	for (uint64_t n = 0; n < MANY; n++)
		house_free(ios[n]);
	for (uint64_t n = 0; n < MANY; n++) {
		ios[2 * n] = make(&h, TY_TIER_GET, n, (uint32_t)(3 * n), 3);
		ios[2 * n + 1] = make(&h, TY_TIER_PUT, MANY + n, (uint32_t)(3 * (MANY + n)), 3);
	}
	house_run(&h, ios, 2 * MANY);
	for (uint64_t n = 0; n < MANY; n++) {
		assert_int_equal(ios[2 * n]->outcome, TY_TIER_DONE);
		assert_true(holds(ios[2 * n], n));
		assert_int_equal(ios[2 * n + 1]->outcome, TY_TIER_DONE);
		house_free(ios[2 * n]);
		house_free(ios[2 * n + 1]);
	}
	assert_int_equal(h.tier->stats.chunks, 2 * MANY);
	close_tier(&h);
}

/* A codec of a later version: a miss, and the file stays. */
static void test_other_codec(void **state)
{
	uint8_t header[TY_ENVELOPE_BYTES];
	struct house h;
	int fd;

	(void)state;
	open_tier(&h, ",compress=zstd");
	assert_int_equal(act(&h, TY_TIER_PUT, 1, 1), TY_TIER_DONE);
	assert_true(size_of(1, &fd));
	assert_int_equal(pread(fd, header, sizeof header, 0), (ssize_t)sizeof header);
	header[2432] = TY_CODECS;
	ty_put64(header + 56, 0);
	ty_put64(header + 56, ty_checksum(header, sizeof header));
	assert_int_equal(pwrite(fd, header, sizeof header, 0), (ssize_t)sizeof header);
	close(fd);
	assert_int_equal(act(&h, TY_TIER_GET, 1, 1), TY_TIER_MISSING);
	close_tier(&h);
	assert_true(size_of(1, NULL));
	open_tier(&h, "");
	assert_int_equal(h.tier->stats.foreign, 1);
	close_tier(&h);
}

#define BOTH(test) \
	cmocka_unit_test_prestate_setup_teardown(test, make_dir, remove_dir, (void *)(uintptr_t)""), \
	cmocka_unit_test_prestate_setup_teardown(test, make_dir, remove_dir, (void *)(uintptr_t)",io=plain")

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_round_trip), BOTH(test_one_part), BOTH(test_noise), BOTH(test_damage), BOTH(test_forged), BOTH(test_size),
		BOTH(test_given_up), BOTH(test_deleted_meanwhile), BOTH(test_many), BOTH(test_other_codec),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
