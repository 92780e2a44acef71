/* SPDX-License-Identifier: Apache-2.0
 *
 * The whole service over tiers: what outlives memory's size and the service's life, and what a tier that misbehaves may cost
 * those who do not need it: nothing.
 */
#include "harness.h"
#include "actors/service.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/tiers/fault.h"

#define PROMPT 60 /* chunks of one */

static struct h_service service;
static char folder[64];
static const char *packing; /* a setting of the disk's */

static int set_up(const char *more)
{
	packing = more;
	h_mask = packing[0] ? UINT64_C(0x000f000f000f000f) : UINT64_MAX;
	strcpy(folder, "/var/tmp/tyer-tiers.XXXXXX");
	assert_non_null(mkdtemp(folder));
	h_prepare(&service);
	service.config.l1_size = TY_PIECE_BYTES;
	return 0;
}

static int setup(void **state)
{
	(void)state;
	return set_up("");
}

static int setup_packed(void **state)
{
	(void)state;
	return set_up(",compress=zstd");
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	h_stop(&service);
	snprintf(command, sizeof command, "rm -rf %s", folder);
	return system(command);
}

static void add_tier(const char *spec)
{
	snprintf(service.config.tier[service.config.tier_count++], sizeof service.config.tier[0], "%s", spec);
}

static void add_disk(void)
{
	char spec[128];

	snprintf(spec, sizeof spec, "disk:%s%s", folder, packing);
	add_tier(spec);
}

static struct ty_tier *tier(uint32_t i)
{
	return service.service->tiers[i];
}

static void store(struct h_client *c, uint32_t base)
{
	h_ok(c, h_lookup(c, base, base, PROMPT));
	h_fill(c, base, PROMPT, 0);
	h_ok(c, h_store(c, base, 0, PROMPT, 0));
	h_ok(c, h_end(c, base));
}

/* What a LOOKUP finds of a prompt; every byte of it is looked at. */
static uint32_t find(struct h_client *c, uint32_t base)
{
	uint32_t hits;

	h_ok(c, h_lookup(c, base, base, PROMPT));
	hits = c->last.lookup.hits;
	h_wipe(c, PROMPT, 0);
	if (hits) {
		h_ok(c, h_retrieve(c, base, 0, hits, 0));
		assert_int_equal(h_wrong(c, base, hits, 0), 0);
	}
	h_ok(c, h_end(c, base));
	return hits;
}

/* Wait until all that was stored is below. */
static void settle(uint32_t i)
{
	while (atomic_load(&service.service->checksum_stats.waiting)) /* what is stored goes down with its sum */
		usleep(1000);
	while (atomic_load(&tier(i)->stats.queued) || atomic_load(&tier(i)->stats.in_flight[1]))
		usleep(1000);
}

static void scanned(uint32_t i)
{
	/* acquire: `scanning` is set before */
	while (atomic_load_explicit(&tier(i)->stats.state, memory_order_acquire) != TY_TIER_SERVING ||
		atomic_load(&tier(i)->stats.scanning))
		usleep(1000);
}

/* It stops and starts again, and everything is there. */
static void test_outlives_the_service(void **state)
{
	struct h_client c;

	(void)state;
	add_disk();
	h_start(&service);
	h_open(&service, &c, NULL, "a", 0, 1);
	for (uint32_t p = 1; p <= 5; p++)
		store(&c, p * 1000);
	h_close(&c);
	ty_service_stop(service.service); /* what is on its way arrives */
	h_start(&service);
	scanned(0);
	assert_int_equal(tier(0)->stats.chunks, 5 * PROMPT);
	assert_true((tier(0)->stats.used_bytes < 5 * PROMPT * (4096 + H_CHUNK_BYTES)) == (packing[0] != 0));
	h_open(&service, &c, NULL, "a", 0, 1);
	for (uint32_t p = 1; p <= 5; p++)
		assert_int_equal(find(&c, p * 1000), PROMPT);
	assert_int_equal(service.service->prefetch_stats.loaded, 5 * PROMPT);
	h_close(&c);
	/* Another tenant finds nothing. */
	h_open(&service, &c, NULL, "b", 0, 1);
	assert_int_equal(find(&c, 1000), 0);
	h_close(&c);
}

/* More than the arena holds: all of it is found. */
static void test_outgrows_the_arena(void **state)
{
	enum { PROMPTS = 90 }; /* 84 MiB of chunks in 64 MiB */
	struct h_client c;

	(void)state;
	add_disk();
	h_start(&service);
	h_open(&service, &c, NULL, "a", 0, 1);
	for (uint32_t p = 1; p <= PROMPTS; p++) {
		store(&c, p * 1000);
		settle(0);
	}
	assert_true(service.service->eviction_stats.evictions > 0);
	for (uint32_t p = 1; p <= PROMPTS; p++)
		assert_int_equal(find(&c, p * 1000), PROMPT);
	assert_true(service.service->prefetch_stats.loaded > 0);
	h_close(&c);
}

/* Both parts of a chunk come up together. */
static void test_parts(void **state)
{
	static const uint8_t engine[16] = {7};
	struct h_client a, b;

	(void)state;
	add_disk();
	for (int life = 0; life < 2; life++) {
		h_start(&service);
		scanned(0);
		h_open(&service, &a, engine, "a", 0, 2);
		h_open(&service, &b, engine, "a", 1, 2);
		h_ok(&a, h_lookup(&a, 1, 1000, PROMPT));
		assert_int_equal(a.last.lookup.hits, life ? PROMPT : 0);
		if (life) {
			h_wipe(&a, PROMPT, 0);
			h_wipe(&b, PROMPT, 0);
			h_ok(&a, h_retrieve(&a, 1, 0, PROMPT, 0));
			h_ok(&b, h_retrieve(&b, 1, 0, PROMPT, 0));
			assert_int_equal(h_wrong(&a, 1000, PROMPT, 0), 0);
			assert_int_equal(h_wrong(&b, 5000, PROMPT, 0), 0);
		} else {
			h_fill(&a, 1000, PROMPT, 0);
			h_fill(&b, 5000, PROMPT, 0);
			h_ok(&a, h_store(&a, 1, 0, PROMPT, 0));
			h_ok(&b, h_store(&b, 1, 0, PROMPT, 0));
		}
		h_ok(&a, h_end(&a, 1));
		h_close(&a);
		h_close(&b);
		if (!life)
			ty_service_stop(service.service);
	}
}

/* Each way to misbehave: LOOKUPs answer with what there is, what the arena has is there as ever, no byte is wrong, and the
 * service stops. */
static void test_misbehaving_tiers(void **state)
{
	struct h_client c;

	(void)state;
	add_tier("fault:0,timeout=2s");
	service.config.prefetch_wait_us = 200000;
	service.config.drain_timeout_us = 100000;
	h_start(&service);
	h_open(&service, &c, NULL, "a", 0, 1);
	for (int way = 0; way < 5; way++) {
		uint32_t base = 10000 * (uint32_t)(way + 1);

		fault[0].hang = way == 0;
		fault[0].fail_every = way == 1 ? 2 : 0;
		fault[0].wrong_every = way == 2 ? 2 : 0;
		fault[0].full = way == 3;
		fault[0].fail = way == 4;
		for (uint32_t p = 0; p < 4; p++) {
			store(&c, base + p * 1000);
			assert_int_equal(find(&c, base + p * 1000), PROMPT);
			assert_int_equal(find(&c, base + p * 1000 + 500), 0); /* nobody has it */
		}
		fault[0].hang = false;
		fault_let(tier(0));
		settle(0);
	}
	fault[0].fail = false;
	/* And well again. */
	store(&c, 90000);
	settle(0);
	assert_true(tier(0)->stats.chunks >= PROMPT);
	/* It hangs while the service stops. */
	fault[0].hang = true;
	store(&c, 95000);
	h_close(&c);
}

/* The administration brings up what the tiers have of tenant "a"; how many came. */
static uint64_t warm(void)
{
	char url[sizeof service.config.admin], tenant[] = "a", *tenants[] = {tenant};
	struct ty_client_options options = {.size = sizeof options, .url = url};
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT;
	Tyer__V1__Select select = TYER__V1__SELECT__INIT;
	Tyer__V1__Warm q = TYER__V1__WARM__INIT;
	uint64_t before = atomic_load(&service.service->prefetch_stats.loaded);
	struct h_client c = {.fd = -1};
	uint8_t bytes[64];

	strcpy(url, service.config.admin);
	select.tenants = tenants;
	select.n_tenants = 1;
	q.select = &select;
	request.verb_case = TYER__V1__REQUEST__VERB_WARM;
	request.warm = &q;
	assert_true(tyer__v1__request__get_packed_size(&request) <= sizeof bytes);
	assert_int_equal(ty_client_open(&options, &c.client, &c.refused), TY_OK);
	h_ok(&c, h_wait(&c, ty_client_admin(c.client, bytes, tyer__v1__request__pack(&request, bytes), h_done, &c, &c.refused)));
	ty_client_close(c.client);
	return atomic_load(&service.service->prefetch_stats.loaded) - before;
}

/* Who else writes to a store puts something of another shape under an engine's key: whole by itself, and nothing that the engine could
 * have stored. It is no hit, wherever it was found, and what the engine stores again takes its place. */
static void test_odd_shapes(void **state)
{
	uint8_t engine[16] = {0};
	struct h_client c;
	uint32_t part = 1;

	(void)state;
	snprintf(service.config.admin, sizeof service.config.admin, "ipc://%s/admin.sock", service.dir);
	add_tier("fault:0");
	h_start(&service);
	for (uint32_t odd = 1; odd <= 2; odd++) {
		fault[0].odd_shape = odd;
		engine[0] = (uint8_t)(7 + odd); /* another one: the first may not be gone yet, and has another layout */
		h_open(&service, &c, engine, "a", 0, part);
		if (part == 2) { /* both, so that it is whole */
			struct h_client d;

			h_open(&service, &d, engine, "a", 1, part);
			h_ok(&c, h_lookup(&c, 1, 1000, PROMPT));
			h_ok(&d, h_store(&d, 1, 0, PROMPT, 0));
			h_ok(&c, h_store(&c, 1, 0, PROMPT, 0));
			h_ok(&c, h_end(&c, 1));
			h_close(&d);
		} else {
			store(&c, 1000);
		}
		settle(0);
		for (uint32_t base = 100000; base < 175000; base += 1000) /* until it is not in the arena any more */
			store(&c, base);
		settle(0);
		assert_int_equal(find(&c, 1000), 0); /* from below */
		assert_true(warm() >= PROMPT);
		assert_int_equal(find(&c, 1000), 0); /* from the arena */
		fault[0].odd_shape = 0;
		if (part == 1) {
			store(&c, 1000);
			assert_int_equal(find(&c, 1000), PROMPT);
		}
		h_close(&c);
		part = 2;
	}
}

static uint64_t fetching(struct h_client *c, uint32_t base, uint32_t lookups)
{
	uint64_t before = atomic_load(&service.service->fetches.used);

	for (uint32_t i = 0; i < lookups; i++)
		h_ok(c, h_lookup(c, base + i, base + i * 100, 2));
	return atomic_load(&service.service->fetches.used) - before;
}

/* Over a tier that hangs: one engine that looks up without end does not take all that may be fetched at once. */
static void test_fetches_are_shared(void **state)
{
	struct h_client a, b;

	(void)state;
	add_tier("fault:0,timeout=3600s");
	service.config.prefetch_wait_us = 1000;
	h_start(&service);
	service.service->fetches.all = 8;
	h_open(&service, &a, NULL, "a", 0, 1);
	h_open(&service, &b, NULL, "b", 0, 1);
	fault[0].hang = true;
	assert_int_equal(fetching(&a, 1000, 20), 4);
	assert_int_equal(fetching(&b, 100000, 20), 2);
	fault[0].hang = false;
	fault_let(tier(0));
	while (atomic_load(&service.service->fetches.used))
		usleep(1000);
	h_close(&a);
	h_close(&b);
}

static char files[8 * PROMPT][128];
static int file_count;

static int take_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)ftw;
	if (type == FTW_F && strstr(path, ".tyer") && st->st_size > 4096)
		strcpy(files[file_count++], path);
	return 0;
}

static void scrubbed(uint32_t lane)
{
	uint64_t passes = atomic_load(&service.service->scrub_stats[lane].passes);

	while (atomic_load(&service.service->scrub_stats[lane].passes) < passes + 2)
		usleep(1000);
}

/* Files that were changed, cut short, exchanged and removed: found by themselves, put aside, and never served. */
static void test_scrubs(void **state)
{
	char command[512];
	struct h_client c;
	uint32_t found = 0;
	int fd;

	(void)state;
	add_disk();
	service.config.scrub_rate = (uint64_t)1 << 40;
	service.config.scrub_interval_us = 1000;
	h_start(&service);
	h_open(&service, &c, NULL, "a", 0, 1);
	for (uint32_t p = 1; p <= 3; p++)
		store(&c, p * 1000);
	settle(0);
	file_count = 0;
	assert_int_equal(nftw(folder, take_file, 8, FTW_PHYS), 0);
	assert_int_equal(file_count, 3 * PROMPT);
	fd = open(files[0], O_WRONLY);
	assert_int_equal(pwrite(fd, "x", 1, 4200), 1);
	close(fd);
	assert_int_equal(truncate(files[1], 6000), 0);
	snprintf(command, sizeof command, "cp %s %s && rm %s", files[2], files[3], files[4]);
	assert_int_equal(system(command), 0);
	scrubbed(1);
	assert_int_equal(service.service->scrub_stats[1].wrong, 3);
	assert_true(service.service->scrub_stats[1].gone >= 1);
	assert_int_equal(tier(0)->stats.chunks, 3 * PROMPT - 4);
	assert_int_equal(tier(0)->stats.quarantined, 3);
	scrubbed(0);
	assert_int_equal(service.service->scrub_stats[0].wrong, 0);
	for (uint32_t p = 1; p <= 3; p++)
		assert_int_equal(find(&c, p * 1000), PROMPT); /* the arena has them all */
	h_close(&c);
	ty_service_stop(service.service);
	h_start(&service);
	scanned(0);
	h_open(&service, &c, NULL, "a", 0, 1);
	for (uint32_t p = 1; p <= 3; p++)
		found += find(&c, p * 1000);
	assert_true(found < 3 * PROMPT);
	assert_int_equal(atomic_load(&tier(0)->stats.quarantined), 0); /* they are out of the way */
	h_close(&c);
}

/* What was stored, and had not gone down when the process died, goes down from the next one; what had is not written again. */
static void test_restart_before_it_went_down(void **state)
{
	struct h_client c;
	const struct ty_tier_stats *s;

	(void)state;
	add_disk();
	strcat(service.config.tier[0], ",write=never"); /* as one that never came to it */
	h_start(&service);
	h_open(&service, &c, NULL, "a", 0, 1);
	store(&c, 1000);
	h_close(&c);
	*strrchr(service.config.tier[0], ',') = 0;
	for (int life = 0; life < 2; life++) {
		h_restart(&service, NULL);
		s = &tier(0)->stats;
		/* that of a chunk which is there already is DONE, too */
		while (atomic_load(&s->outcomes[TY_TIER_EXISTS][TY_TIER_DONE]) < PROMPT || atomic_load(&s->chunks) < PROMPT)
			usleep(1000);
		assert_int_equal(atomic_load(&s->chunks), PROMPT);
		assert_int_equal(atomic_load(&s->offered_late), life ? 0 : PROMPT);
		assert_int_equal(atomic_load(&s->submitted[TY_TIER_PUT]), life ? 0 : PROMPT);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		H_TEST_OF(test_outlives_the_service, setup, teardown),
		H_TEST_OF(test_restart_before_it_went_down, setup, teardown),
		H_TEST_OF(test_outgrows_the_arena, setup, teardown),
		H_TEST_OF(test_parts, setup, teardown),
		H_TEST_OF(test_misbehaving_tiers, setup, teardown),
		H_TEST_OF(test_odd_shapes, setup, teardown),
		H_TEST_OF(test_fetches_are_shared, setup, teardown),
		H_TEST_OF(test_scrubs, setup, teardown),
		H_TEST_OF(test_outlives_the_service, setup_packed, teardown),
		H_TEST_OF(test_outgrows_the_arena, setup_packed, teardown),
		H_TEST_OF(test_parts, setup_packed, teardown),
		H_TEST_OF(test_scrubs, setup_packed, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
