/* SPDX-License-Identifier: Apache-2.0
 *
 * The whole service in this process, over real sockets: the main path, what clients share and what they do not, and every
 * request that must be refused: with which code, naming which field, leaving everybody else undisturbed.
 */
#include "harness.h"
#include "actors/service.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct h_service service;

/* ---- the main path --------------------------------------------------------------------------------------- */

static void test_store_and_retrieve(void **state)
{
	struct h_client c;

	(void)state;
	h_open(&service, &c, NULL, "a", 0, 1);
	h_ok(&c, h_lookup(&c, 1, 100, 8));
	assert_int_equal(c.last.lookup.chunks, 8);
	assert_int_equal(c.last.lookup.hits, 0);
	h_fill(&c, 100, 8, 0);
	h_ok(&c, h_store(&c, 1, 0, 8, 0));
	assert_int_equal(c.last.store.stored, 8);
	h_ok(&c, h_end(&c, 1));

	h_ok(&c, h_lookup(&c, 2, 100, 12));
	assert_int_equal(c.last.lookup.hits, 8);
	h_wipe(&c, 8, 64);
	h_ok(&c, h_retrieve(&c, 2, 0, 8, 64));
	assert_int_equal(c.last.retrieve.chunks, 8);
	assert_int_equal(h_wrong(&c, 100, 8, 64), 0);
	/* chunks that are there are not stored again */
	h_fill(&c, 100, 12, 0);
	h_ok(&c, h_store(&c, 2, 0, 12, 0));
	assert_int_equal(c.last.store.present, 8);
	assert_int_equal(c.last.store.stored, 4);
	h_ok(&c, h_end(&c, 2));
	assert_int_equal(c.last.end_session.released, 8);
	h_close(&c);
}

/* Step by step, with nearly everything skipped: a group of small blocks whose planes come one a step, and one of large blocks that comes with
 * the last. Each step is told, what is wanted is there, and nothing else was written. */
#define MANY_STEPS 60
#define SMALL_BLOCKS 1023
static void test_layers_that_skip(void **state)
{
	enum { CHUNKS = 12, SMALL = 64, RUN = 16, WANTED = 5 * SMALL + 7 };
	struct ty_plane planes[MANY_STEPS + 1];
	struct ty_group groups[2] = {{1, SMALL_BLOCKS, RUN, RUN, MANY_STEPS, planes}, {64, SMALL_BLOCKS, RUN, RUN, 1, planes + MANY_STEPS}};
	uint32_t steps[MANY_STEPS + 1][2], small[CHUNKS * SMALL], large[CHUNKS], counts[2] = {CHUNKS * SMALL, CHUNKS};
	const uint32_t *lists[2] = {small, large};
	struct ty_transfer t = {.session = 1, .count = CHUNKS, .blocks = lists, .block_counts = counts, .group_count = 2};
	struct ty_pool *pool;
	struct h_client c;

	(void)state;
	h_open(&service, &c, NULL, "a", 0, 0);
	pool = h_pool(&c, 0, 1);
	for (uint32_t p = 0; p <= MANY_STEPS; p++) {
		planes[p] = (struct ty_plane){0, (uint64_t)p * SMALL_BLOCKS * RUN};
		steps[p][0] = p < MANY_STEPS ? p + 1 : MANY_STEPS;
		steps[p][1] = p == MANY_STEPS;
	}
	pool->groups = groups;
	pool->group_count = 2;
	pool->steps = steps[0];
	pool->step_count = MANY_STEPS + 1;
	h_ok(&c, h_wait(&c, ty_client_register(c.client, pool, h_done, &c, &c.refused)));
	t.registration = c.last.registered.registration;
	for (uint32_t i = 0; i < CHUNKS * SMALL; i++)
		small[i] = i;
	for (uint32_t i = 0; i < CHUNKS; i++)
		large[i] = i;
	for (uint64_t i = 0; i < H_POOL_BYTES; i++)
		c.pool[i] = (uint8_t)(i / RUN * 7 + i / RUN / 256);
	h_ok(&c, h_lookup(&c, 1, 100, CHUNKS));
	h_ok(&c, h_wait(&c, ty_client_store(c.client, &t, h_done, &c, &c.refused)));
	h_ok(&c, h_lookup(&c, 1, 100, CHUNKS));
	assert_int_equal(c.last.lookup.hits, CHUNKS);
	memset(c.pool, 0, H_POOL_BYTES);
	for (uint32_t i = 0; i < CHUNKS * SMALL; i++)
		small[i] = i == WANTED ? 1000 : TY_BLOCK_SKIP;
	t.layers = (struct ty_mark){3, 1};
	t.done = (struct ty_mark){4, 1};
	h_ok(&c, h_wait(&c, ty_client_retrieve(c.client, &t, h_done, &c, &c.refused)));
	assert_true(ty_client_reached(c.client, t.done));
	assert_true(ty_client_reached(c.client, (struct ty_mark){3, MANY_STEPS + 1}));
	for (uint64_t i = 0; i < H_POOL_BYTES; i++) {
		uint64_t run = i / RUN, plane = run / SMALL_BLOCKS, block = run % SMALL_BLOCKS, from = 0;
		bool written = plane < MANY_STEPS ? block == 1000 : plane == MANY_STEPS && block < CHUNKS;

		if (written)
			from = plane * SMALL_BLOCKS + (plane < MANY_STEPS ? WANTED : block);
		assert_int_equal(c.pool[i], written ? (uint8_t)(from * 7 + from / 256) : 0);
	}
	h_close(&c);
}

/* A LOOKUP that is refused leaves the session as it was, with what it leases. */
static void test_refused_lookup(void **state)
{
	struct ty_share *chunks = &service.service->session_chunks;
	struct h_client c;

	(void)state;
	h_open(&service, &c, NULL, "a", 0, 1);
	h_ok(&c, h_lookup(&c, 1, 100, 8));
	h_fill(&c, 100, 8, 0);
	h_ok(&c, h_store(&c, 1, 0, 8, 0));
	h_ok(&c, h_lookup(&c, 1, 100, 8));
	chunks->all = 100;
	h_expect(&c, h_lookup(&c, 1, 500, 200), TY_BUSY, "chunks of at most");
	h_wipe(&c, 8, 64);
	h_ok(&c, h_retrieve(&c, 1, 0, 8, 64));
	assert_int_equal(h_wrong(&c, 100, 8, 64), 0);
	h_ok(&c, h_end(&c, 1));
	assert_int_equal(c.last.end_session.released, 8);
	h_close(&c);
}

/* What LOOKUP says of a prompt is said of that one, not of the one that the session had before. */
static void test_hint_is_of_its_prompt(void **state)
{
	static const struct ty_hint_said pinned = {.kind = TY_HINT_PINNED};
	const struct ty_lookup other = {.session = 1, .chain = h_chain(500, 4), .hint = &pinned};
	struct h_client c;

	(void)state;
	h_open(&service, &c, NULL, "a", 0, 1);
	h_ok(&c, h_lookup(&c, 1, 100, 4));
	h_ok(&c, h_store(&c, 1, 0, 4, 0));
	h_ok(&c, h_lookup(&c, 1, 100, 4));
	assert_int_equal(c.last.lookup.hits, 4);
	h_chain(500, 4);
	h_ok(&c, h_wait(&c, ty_client_lookup_with(c.client, &other, h_done, &c, &c.refused)));
	h_ok(&c, h_lookup(&c, 2, 900, 4)); /* behind what the first prompt left to eviction */
	h_ok(&c, h_store(&c, 2, 0, 4, 0));
	assert_int_equal(atomic_load(&service.service->eviction_stats.kept_bytes), 0);
	h_ok(&c, h_store(&c, 1, 0, 4, 0));
	h_ok(&c, h_store(&c, 2, 0, 4, 0));
	assert_true(atomic_load(&service.service->eviction_stats.kept_bytes) >= 4 * H_CHUNK_BYTES);
	h_close(&c);
}

static void test_survives_its_client(void **state)
{
	struct h_client a, b;

	(void)state;
	h_open(&service, &a, NULL, "a", 0, 1);
	h_ok(&a, h_lookup(&a, 1, 500, 4));
	h_fill(&a, 500, 4, 0);
	h_ok(&a, h_store(&a, 1, 0, 4, 0));
	h_close(&a); /* without END_SESSION or UNREGISTER */

	h_open(&service, &b, NULL, "a", 0, 1);
	h_ok(&b, h_lookup(&b, 1, 500, 4));
	assert_int_equal(b.last.lookup.hits, 4);
	h_ok(&b, h_retrieve(&b, 1, 0, 4, 0));
	assert_int_equal(h_wrong(&b, 500, 4, 0), 0);
	h_close(&b);
}

static void test_tenants_share_nothing(void **state)
{
	struct h_client a, b;

	(void)state;
	h_open(&service, &a, NULL, "a", 0, 1);
	h_open(&service, &b, NULL, "b", 0, 1);
	h_ok(&a, h_lookup(&a, 1, 900, 4));
	h_fill(&a, 900, 4, 0);
	h_ok(&a, h_store(&a, 1, 0, 4, 0));
	h_ok(&b, h_lookup(&b, 1, 900, 4));
	assert_int_equal(b.last.lookup.hits, 0);
	h_close(&a);
	h_close(&b);
}

/* Tokens: the service hashes them; a longer prompt with the same beginning hits. */
static void test_tokens(void **state)
{
	static uint32_t tokens[5 * H_CHUNK_TOKENS];
	struct ty_chain chain = {.tokens = tokens, .token_count = 3 * H_CHUNK_TOKENS + 7};
	struct h_client c;

	(void)state;
	for (uint32_t i = 0; i < 5 * H_CHUNK_TOKENS; i++)
		tokens[i] = i * 7 + 1;
	h_open(&service, &c, NULL, "a", 0, 1);
	h_ok(&c, h_wait(&c, ty_client_lookup(c.client, 1, &chain, h_done, &c, &c.refused)));
	assert_int_equal(c.last.lookup.chunks, 3);
	h_fill(&c, 1, 3, 0);
	h_ok(&c, h_store(&c, 1, 0, 3, 0));
	chain.token_count = 5 * H_CHUNK_TOKENS;
	h_ok(&c, h_wait(&c, ty_client_lookup(c.client, 2, &chain, h_done, &c, &c.refused)));
	assert_int_equal(c.last.lookup.hits, 3);
	tokens[H_CHUNK_TOKENS] ^= 1; /* another second chunk: the third differs too */
	h_ok(&c, h_wait(&c, ty_client_lookup(c.client, 2, &chain, h_done, &c, &c.refused)));
	assert_int_equal(c.last.lookup.hits, 1);
	/* another adapter or other media: nothing in common */
	tokens[H_CHUNK_TOKENS] ^= 1;
	h_ok(&c, h_wait(&c, ty_client_lookup_as(c.client, 3, &chain, "lora", 4, NULL, 0, h_done, &c, &c.refused)));
	assert_int_equal(c.last.lookup.hits, 0);
	h_ok(&c, h_wait(&c, ty_client_lookup_as(c.client, 3, &chain, NULL, 0, "image", 5, h_done, &c, &c.refused)));
	assert_int_equal(c.last.lookup.hits, 0);
	h_close(&c);
}

/* Two ranks of one engine hold two parts of each chunk: visible when both are there. */
static void test_two_parts(void **state)
{
	static const uint8_t engine[16] = {1, 2, 3};
	struct h_client a, b;

	(void)state;
	h_open(&service, &a, engine, "tp", 0, 2);
	h_open(&service, &b, engine, "tp", 1, 2);
	h_ok(&a, h_lookup(&a, 1, 40, 2));
	h_fill(&a, 40, 2, 0);
	h_fill(&b, 1040, 2, 0);
	h_ok(&a, h_store(&a, 1, 0, 2, 0));
	h_ok(&a, h_lookup(&a, 2, 40, 2));
	assert_int_equal(a.last.lookup.hits, 0);
	h_ok(&b, h_store(&b, 1, 0, 2, 0)); /* the session is the engine's */
	h_ok(&a, h_lookup(&a, 2, 40, 2));
	assert_int_equal(a.last.lookup.hits, 2);
	h_ok(&a, h_retrieve(&a, 2, 0, 2, 32));
	h_ok(&b, h_retrieve(&b, 2, 0, 2, 32));
	assert_int_equal(h_wrong(&a, 40, 2, 32), 0);
	assert_int_equal(h_wrong(&b, 1040, 2, 32), 0);
	h_close(&a);
	h_close(&b);
}

/* The ready word is waited for, the done word is raised. */
static void test_marks(void **state)
{
	uint32_t ids[H_PER_CHUNK] = {0, 1, 2, 3}, n = H_PER_CHUNK;
	const uint32_t *lists[1] = {ids};
	struct ty_transfer t = {.session = 1, .count = 1, .blocks = lists, .block_counts = &n, .group_count = 1,
		.ready = {7, 3}, .done = {8, 1}};
	struct h_client c;

	(void)state;
	h_open(&service, &c, NULL, "marks", 0, 1);
	t.registration = c.registration;
	h_ok(&c, h_lookup(&c, 1, 1, 1));
	c.last.code = (enum ty_code)77;
	assert_int_equal(ty_client_store(c.client, &t, h_done, &c, &c.refused), TY_OK);
	ty_client_poll(c.client, 0, 20000);
	assert_int_equal(c.last.code, 77); /* not answered: it waits */
	assert_false(ty_client_reached(c.client, t.done));
	h_fill(&c, 1, 1, 0);
	ty_client_raise(c.client, t.ready);
	while (c.last.code == 77)
		ty_client_poll(c.client, 0, 100000);
	h_ok(&c, c.last.code);
	assert_true(ty_client_reached(c.client, t.done));
	h_wipe(&c, 1, 0);
	h_ok(&c, h_lookup(&c, 2, 1, 1));
	h_ok(&c, h_retrieve(&c, 2, 0, 1, 0));
	assert_int_equal(h_wrong(&c, 1, 1, 0), 0);
	h_close(&c);
}

/* A ready word that never comes: TIMEOUT by the deadline, nothing visible, the next request is served. */
static void test_ready_never_comes(void **state)
{
	uint32_t ids[H_PER_CHUNK] = {0, 1, 2, 3}, n = H_PER_CHUNK;
	const uint32_t *lists[1] = {ids};
	struct ty_transfer t = {.session = 1, .count = 1, .blocks = lists, .block_counts = &n, .group_count = 1, .ready = {7, 3}};
	struct ty_client_options o = {.size = sizeof o, .url = service.url, .attach_path = service.config.attach, .tenant = "late",
		.model = "m", .dtype = "bf16", .timeout_us = 1000000};
	struct h_client c;

	(void)state;
	h_open(&service, &c, NULL, "late", 0, 0);
	ty_client_close(c.client);
	assert_int_equal(ty_client_open(&o, &c.client, NULL), TY_OK);
	h_ok(&c, h_wait(&c, ty_client_register(c.client, h_pool(&c, 0, 1), h_done, &c, &c.refused)));
	c.registration = t.registration = c.last.registered.registration;
	h_ok(&c, h_lookup(&c, 1, 1, 1));
	h_expect(&c, h_wait(&c, ty_client_store(c.client, &t, h_done, &c, &c.refused)), TY_TIMEOUT, "deadline");
	h_ok(&c, h_lookup(&c, 1, 1, 1));
	assert_int_equal(c.last.lookup.hits, 0);
	h_fill(&c, 1, 1, 0);
	h_ok(&c, h_store(&c, 1, 0, 1, 0));
	h_close(&c);
}

/* ---- refusals --------------------------------------------------------------------------------------------- */

static void test_bad_operations(void **state)
{
	uint32_t ids[2 * H_PER_CHUNK], n = H_PER_CHUNK;
	const uint32_t *lists[2] = {ids, ids};
	uint32_t lengths[2] = {H_PER_CHUNK, H_PER_CHUNK};
	struct ty_transfer good, t;
	struct h_client c, other;

	(void)state;
	for (uint32_t i = 0; i < 2 * H_PER_CHUNK; i++)
		ids[i] = i;
	h_open(&service, &c, NULL, "bad", 0, 1);
	h_open(&service, &other, NULL, "bad", 0, 1);
	good = (struct ty_transfer){.session = 1, .registration = c.registration, .count = 1, .blocks = lists, .block_counts = &n,
		.group_count = 1};
	h_expect(&c, h_retrieve(&c, 1, 0, 1, 0), TY_UNKNOWN_SESSION, "session");
	h_expect(&c, h_end(&c, 1), TY_UNKNOWN_SESSION, "session");
	h_expect(&c, h_lookup(&c, 0, 1, 1), TY_INVALID, "session");
	h_ok(&c, h_lookup(&c, 1, 7, 2));

#define STORE(t) h_wait(&c, ty_client_store(c.client, &(t), h_done, &c, &c.refused))
#define RETRIEVE(t) h_wait(&c, ty_client_retrieve(c.client, &(t), h_done, &c, &c.refused))
	h_expect(&c, RETRIEVE(good), TY_NOT_LEASED, "LOOKUP found 0");
	t = good, t.registration += 5;
	h_expect(&c, STORE(t), TY_UNKNOWN_REGISTRATION, "registration");
	t = good, t.registration = other.registration + 1000;
	h_expect(&c, STORE(t), TY_UNKNOWN_REGISTRATION, "registration");
	t = good, t.first = 2;
	h_expect(&c, STORE(t), TY_INVALID, "first, count");
	t = good, t.first = UINT32_MAX;
	h_expect(&c, STORE(t), TY_INVALID, "first, count");
	t = good, t.count = 0, n = 0;
	h_expect(&c, STORE(t), TY_INVALID, "count");
	n = H_PER_CHUNK - 1;
	h_expect(&c, STORE(good), TY_INVALID, "blocks[0].ids");
	n = H_PER_CHUNK;
	ids[1] = H_BLOCKS;
	h_expect(&c, STORE(good), TY_INVALID, "block");
	ids[1] = TY_BLOCK_SKIP; /* only RETRIEVE skips */
	h_expect(&c, STORE(good), TY_INVALID, "block");
	ids[1] = 1;
	t = good, t.group_count = 2, t.block_counts = lengths;
	h_expect(&c, STORE(t), TY_INVALID, "blocks");
	t = good, t.ready = (struct ty_mark){TY_TIMELINE_WORDS, 1};
	h_expect(&c, STORE(t), TY_INVALID, "ready.word");
	t = good, t.done = (struct ty_mark){UINT32_MAX, 1};
	h_expect(&c, STORE(t), TY_INVALID, "done.word");

	/* nothing of that left a trace, and the client is as good as ever */
	h_fill(&c, 7, 1, 0);
	h_ok(&c, STORE(good));
	h_ok(&c, h_lookup(&c, 1, 7, 2));
	assert_int_equal(c.last.lookup.hits, 1);
	ids[1] = ids[0];
	h_expect(&c, RETRIEVE(good), TY_INVALID, "block");
	ids[1] = TY_BLOCK_SKIP;
	h_wipe(&c, 1, 0);
	h_ok(&c, RETRIEVE(good));
	assert_int_equal(h_wrong(&c, 7, 1, 0), H_PLANES * H_RUN / 8); /* exactly the skipped block is not written */
	h_close(&c);
	h_close(&other);
}

static void test_bad_layouts(void **state)
{
	struct h_client c;
	struct ty_group g;
	struct ty_region region;
	struct ty_plane planes[H_PLANES];
	struct ty_pool *p;

	(void)state;
	h_open(&service, &c, NULL, "layout", 0, 0);
	h_expect(&c, h_lookup(&c, 1, 1, 1), TY_UNKNOWN_REGISTRATION, "REGISTER");
#define REFUSED(code, words, ...)                                                                             \
	do {                                                                                                     \
		p = h_pool(&c, 0, 1);                                                                            \
		g = p->groups[0], region = p->regions[0];                                                        \
		memcpy(planes, g.planes, sizeof planes);                                                         \
		g.planes = planes, p->groups = &g, p->regions = &region;                                         \
		__VA_ARGS__;                                                                                        \
		h_expect(&c, h_wait(&c, ty_client_register(c.client, p, h_done, &c, &c.refused)), code, words);          \
	} while (0)
	REFUSED(TY_INVALID, "block_tokens", g.block_tokens = 0);
	REFUSED(TY_INVALID, "block_tokens", g.block_tokens = 24);
	REFUSED(TY_INVALID, "block_count", g.block_count = 0);
	REFUSED(TY_INVALID, "run_bytes", g.run_bytes = 0);
	REFUSED(TY_INVALID, "run_bytes", g.run_bytes = 1000);
	REFUSED(TY_INVALID, "planes", g.block_count = H_BLOCKS + 1);
	REFUSED(TY_INVALID, "planes", planes[1].offset = 64);
	REFUSED(TY_INVALID, "planes", planes[1].region = 3);
	REFUSED(TY_INVALID, "block_stride", g.block_stride = UINT64_MAX - 15);
	REFUSED(TY_INVALID, "part", p->part = 1);
	REFUSED(TY_INVALID, "parts", p->parts = 65);
	REFUSED(TY_NO_DEVICE, "none of this service", p->device[3] = 9);
	REFUSED(TY_INVALID, "length", region.length += 4096);
	REFUSED(TY_INVALID, "region", region.length += 4096, region.allocation_bytes += 4096);
	h_ok(&c, h_wait(&c, ty_client_register(c.client, h_pool(&c, 0, 1), h_done, &c, &c.refused)));
	c.registration = c.last.registered.registration;
	h_expect(&c, h_wait(&c, ty_client_register(c.client, h_pool(&c, 0, 1), h_done, &c, &c.refused)), TY_EXISTS, "registered already");
	h_expect(&c, h_wait(&c, ty_client_unregister(c.client, c.registration + 1, h_done, &c, &c.refused)), TY_UNKNOWN_REGISTRATION,
		"registration");
	h_ok(&c, h_wait(&c, ty_client_unregister(c.client, c.registration, h_done, &c, &c.refused)));
	h_expect(&c, h_wait(&c, ty_client_unregister(c.client, c.registration, h_done, &c, &c.refused)), TY_UNKNOWN_REGISTRATION,
		"registration");
	h_ok(&c, h_wait(&c, ty_client_register(c.client, h_pool(&c, 0, 1), h_done, &c, &c.refused)));
	h_close(&c);
}

/* A descriptor that could shrink under the owner is not mapped. */
static void test_unsealed_pool(void **state)
{
	struct h_client c;
	struct ty_region region;
	struct ty_pool *p;
	int fd = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	(void)state;
	h_open(&service, &c, NULL, "seal", 0, 0);
	p = h_pool(&c, 0, 1);
	region = p->regions[0];
	assert_int_equal(ftruncate(fd, (off_t)region.length), 0);
	region.fd = fd;
	p->regions = &region;
	h_expect(&c, h_wait(&c, ty_client_register(c.client, p, h_done, &c, &c.refused)), TY_INVALID, "seal");
	close(fd);
	h_close(&c);
}

/* ---- the service itself --------------------------------------------------------------------------------------- */

static void test_address_in_use(void **state)
{
	struct h_service second;
	struct ty_service *out;
	struct ty_error err;

	(void)state;
	h_prepare(&second);
	snprintf(second.config.listen, sizeof second.config.listen, "%s", service.config.listen);
	assert_int_not_equal(ty_service_start(&second.config, NULL, &out, &err), TY_OK);
	assert_non_null(strstr(err.text, "rpc.sock"));
	snprintf(second.config.listen, sizeof second.config.listen, "ipc://%s/rpc.sock", second.dir);
	snprintf(second.config.attach, sizeof second.config.attach, "%s", service.config.attach);
	assert_int_not_equal(ty_service_start(&second.config, NULL, &out, &err), TY_OK);
	assert_non_null(strstr(err.text, "attach.sock"));
	second.config.l1_size = (uint64_t)1 << 60;
	snprintf(second.config.attach, sizeof second.config.attach, "%s/attach.sock", second.dir);
	assert_int_not_equal(ty_service_start(&second.config, NULL, &out, &err), TY_OK);
	if (!strstr(err.text, "MemTotal"))
		fail_msg("%s", err.text);
	h_stop(&second);
}

/* An arena that holds a fraction of what is stored: evicts, never fails, never lies. */
static void test_small_arena(void **state)
{
	struct h_client c;
	uint32_t hits = 0;

	(void)state;
	h_open(&service, &c, NULL, "small", 0, 1);
	for (uint32_t i = 0; i < 400; i++) { /* 400 * 60 chunks of 16 KiB = 375 MiB into 128 MiB */
		uint32_t base = 100000 + i * 60;

		h_ok(&c, h_lookup(&c, 1, base, 60));
		h_fill(&c, base, 60, 0);
		h_ok(&c, h_store(&c, 1, 0, 60, 0));
		assert_int_equal(c.last.store.dropped, 0);
		h_ok(&c, h_lookup(&c, 1, base, 60));
		assert_int_equal(c.last.lookup.hits, 60);
		h_ok(&c, h_end(&c, 1));
	}
	for (uint32_t i = 0; i < 400; i++) {
		uint32_t base = 100000 + i * 60;

		h_ok(&c, h_lookup(&c, 1, base, 60));
		if (c.last.lookup.hits) {
			uint32_t n = c.last.lookup.hits;

			hits += n;
			h_wipe(&c, n, 0);
			h_ok(&c, h_retrieve(&c, 1, 0, n, 0));
			assert_int_equal(h_wrong(&c, base, n, 0), 0);
		}
		h_ok(&c, h_end(&c, 1));
	}
	assert_in_range(hits, 4000, 8192); /* most of what 128 MiB hold */
	h_close(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		H_TEST(test_store_and_retrieve),
		H_TEST(test_layers_that_skip),
		H_TEST(test_refused_lookup),
		H_TEST(test_hint_is_of_its_prompt),
		H_TEST(test_survives_its_client),
		H_TEST(test_tenants_share_nothing),
		H_TEST(test_tokens),
		H_TEST(test_two_parts),
		H_TEST(test_marks),
		H_TEST(test_ready_never_comes),
		H_TEST(test_bad_operations),
		H_TEST(test_bad_layouts),
		H_TEST(test_unsealed_pool),
		H_TEST(test_address_in_use),
		H_TEST(test_small_arena),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
