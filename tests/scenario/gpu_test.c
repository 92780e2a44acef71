/* SPDX-License-Identifier: Apache-2.0
 *
 * A GPU's owner in the whole service, over the stand-in driver: layer by layer, the engine's own streams, memory in pieces, who calls the
 * driver, several GPUs.
 */
#include "gpu_house.h"

#include <dirent.h>
#include <ftw.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <tyer/stream.h>
#include <unistd.h>

#include "actors/service.h"
#include "base/numa.h"
#include "device/cuda_api.h"

static struct g_house house;

static enum ty_code retrieve(struct h_client *c, const struct ty_transfer *t)
{
	return h_wait(c, ty_client_retrieve(c->client, t, h_done, c, &c->refused));
}

/* ---- layer by layer -------------------------------------------------------------------------------------- */

static void test_layers(void **state)
{
	static const uint32_t steps[H_PLANES - 1] = {1, 2, 4}, wrong[2] = {2, 3};
	struct ty_pool *pool;
	struct ty_transfer t;
	struct h_client c;

	(void)state;
	g_open(&house, &c, 0);
	pool = g_pool(&c);
	pool->step_count = 2;
	pool->steps = wrong;
	h_expect(&c, h_wait(&c, ty_client_register(c.client, pool, h_done, &c, &c.refused)), TY_INVALID,
		"steps[1].planes[0]: 3, expected 4..4");
	pool->step_count = 0;
	h_ok(&c, h_wait(&c, ty_client_register(c.client, pool, h_done, &c, &c.refused)));
	c.registration = c.last.registered.registration;
	g_store(&c, 100, 8);
	t = h_transfer(&c, 1, 0, 8, 64);
	t.layers = (struct ty_mark){5, 100};
	h_expect(&c, retrieve(&c, &t), TY_INVALID, "declared no steps");
	h_ok(&c, h_wait(&c, ty_client_unregister(c.client, c.registration, h_done, &c, &c.refused)));

	pool->step_count = H_PLANES - 1;
	pool->steps = steps;
	h_ok(&c, h_wait(&c, ty_client_register(c.client, pool, h_done, &c, &c.refused)));
	c.registration = t.registration = c.last.registered.registration;
	h_wipe(&c, 8, 64);
	g_ids(&t)[3] = g_ids(&t)[17] = TY_BLOCK_SKIP;
	t.done = (struct ty_mark){6, 1};
	h_ok(&c, retrieve(&c, &t));
	assert_true(ty_client_reached(c.client, t.done));
	assert_true(ty_client_reached(c.client, (struct ty_mark){5, 102}));
	assert_false(ty_client_reached(c.client, (struct ty_mark){5, 103}));
	assert_int_equal(h_wrong(&c, 100, 8, 64), 2 * H_PLANES * H_RUN / 8); /* the two that were skipped */
	/* all skipped: every step is there at once */
	t = h_transfer(&c, 1, 0, 1, 0);
	for (uint32_t i = 0; i < H_PER_CHUNK; i++)
		g_ids(&t)[i] = TY_BLOCK_SKIP;
	t.layers = (struct ty_mark){7, 1};
	h_ok(&c, retrieve(&c, &t));
	assert_true(ty_client_reached(c.client, (struct ty_mark){7, H_PLANES - 1}));
	t.layers.value = UINT64_MAX - 10;
	h_expect(&c, retrieve(&c, &t), TY_INVALID, "layers.value");
	t.layers = (struct ty_mark){TY_TIMELINE_WORDS, 1};
	h_expect(&c, retrieve(&c, &t), TY_INVALID, "layers.word");
	g_close(&c);
}

/* Groups with blocks of their own sizes, of which a step may bring nothing: 16 tokens and 4 planes, 64 tokens and 3. */
enum { A_BLOCKS = 64, A_RUN = 1024, A_PLANES = 4, B_BLOCKS = 32, B_RUN = 4096, B_PLANES = 3, B_AT = A_PLANES * A_BLOCKS * A_RUN };
static const uint32_t group_steps[4][2] = {{0, 1}, {1, 1}, {4, 1}, {4, 3}};

static uint8_t *run_at(const struct h_client *c, uint32_t group, uint32_t plane, uint32_t id)
{
	return group ? c->pool + B_AT + ((size_t)plane * B_BLOCKS + id) * B_RUN : c->pool + ((size_t)plane * A_BLOCKS + id) * A_RUN;
}

/* Of the planes that are there after `steps`: runs of chunk blocks [0, 16) and [0, 4) that are not at `a` and `b` what they were. */
static uint32_t wrong_runs(const struct h_client *c, const uint8_t *was, uint32_t steps, uint32_t a, uint32_t b)
{
	struct h_client before = *c;
	uint32_t wrong = 0;

	before.pool = (uint8_t *)(uintptr_t)was;
	for (uint32_t g = 0; steps && g < 2; g++)
		for (uint32_t p = 0; p < group_steps[steps - 1][g]; p++)
			for (uint32_t i = 0; i < (g ? 4 : 16); i++)
				wrong += memcmp(run_at(&before, g, p, i), run_at(c, g, p, (g ? b : a) + i), g ? B_RUN : A_RUN) != 0;
	return wrong;
}

static void test_layers_of_groups(void **state)
{
	struct ty_plane planes[A_PLANES + B_PLANES];
	struct ty_group groups[2] = {{16, A_BLOCKS, A_RUN, A_RUN, A_PLANES, planes}, {64, B_BLOCKS, B_RUN, B_RUN, B_PLANES, planes + A_PLANES}};
	uint32_t a[16], b[4], counts[2] = {16, 4};
	const uint32_t *lists[2] = {a, b};
	struct ty_transfer t = {.session = 1, .count = 4, .blocks = lists, .block_counts = counts, .group_count = 2};
	uint8_t *was = malloc(H_POOL_BYTES);
	uint64_t random = 5;
	struct ty_pool *pool;
	struct h_client c;

	(void)state;
	g_open(&house, &c, 0);
	pool = g_pool(&c);
	for (uint32_t p = 0; p < A_PLANES + B_PLANES; p++)
		planes[p] = (struct ty_plane){0, p < A_PLANES ? p * A_BLOCKS * A_RUN : B_AT + (p - A_PLANES) * B_BLOCKS * B_RUN};
	pool->groups = groups;
	pool->group_count = 2;
	pool->step_count = 4;
	pool->steps = group_steps[0];
	h_ok(&c, h_wait(&c, ty_client_register(c.client, pool, h_done, &c, &c.refused)));
	t.registration = c.last.registered.registration;
	test_fill(c.pool, H_POOL_BYTES, &random);
	memcpy(was, c.pool, H_POOL_BYTES);
	for (uint32_t i = 0; i < 16; i++)
		a[i] = i;
	for (uint32_t i = 0; i < 4; i++)
		b[i] = i;
	h_ok(&c, h_lookup(&c, 1, 900, 4));
	h_ok(&c, h_wait(&c, ty_client_store(c.client, &t, h_done, &c, &c.refused)));
	assert_int_equal(c.last.store.stored, 4);
	h_ok(&c, h_lookup(&c, 1, 900, 4));
	for (uint32_t i = 0; i < 16; i++)
		a[i] = 32 + i;
	for (uint32_t i = 0; i < 4; i++)
		b[i] = 16 + i;
	t.layers = (struct ty_mark){5, 100};
	t.done = (struct ty_mark){6, 1};
	house.driver.set("ops=1");
	h_send(&c, ty_client_retrieve(c.client, &t, h_done, &c, &c.refused));
	while (!h_answered(&c)) { /* whenever one looks, what the word says is there */
		uint32_t steps = 0;

		while (steps < 4 && ty_client_reached(c.client, (struct ty_mark){5, 100 + steps}))
			steps++;
		assert_int_equal(wrong_runs(&c, was, steps, 32, 16), 0);
		ty_client_poll(c.client, 0, 0);
	}
	house.driver.set("ops=4");
	h_ok(&c, c.last.code);
	assert_true(ty_client_reached(c.client, t.done));
	assert_true(ty_client_reached(c.client, (struct ty_mark){5, 103}));
	assert_int_equal(wrong_runs(&c, was, 4, 32, 16), 0);
	free(was);
	g_close(&c);
}

/* ---- memory in pieces -------------------------------------------------------------------------------------- */

static void test_pieces(void **state)
{
	uint64_t mapped;
	struct ty_segment wrong[4];
	struct ty_region region;
	struct ty_pool *pool;
	struct ty_transfer t;
	struct h_client c;

	(void)state;
	g_open_pieces(&house, &c, 0);
	pool = g_pool(&c);
	region = pool->regions[0];
	assert_int_equal(region.segment_count, 2);

	/* what a client gets wrong is refused by name, and nothing of it stays */
	memcpy(wrong, region.segments, 2 * sizeof wrong[0]);
	pool->regions = &region;
	region.segments = wrong;
	wrong[1].bytes *= 2;
	region.allocation_bytes += wrong[1].bytes / 2;
	h_expect(&c, h_wait(&c, ty_client_register(c.client, pool, h_done, &c, &c.refused)), TY_INVALID,
		"regions[0].segments[1]: cuMemMap does not take it as 4194304 bytes");
	{ /* addresses are reserved for what it says, before it is known how much there is */
		struct ty_segment was = wrong[1];
		uint64_t bytes = region.allocation_bytes, reserved = house.driver.count("cuMemAddressReserve");

		wrong[1].bytes = TY_POOL_BYTES_ALL;
		region.allocation_bytes += TY_POOL_BYTES_ALL - was.bytes;
		h_expect(&c, h_wait(&c, ty_client_register(c.client, pool, h_done, &c, &c.refused)), TY_LIMIT, "in the pools of all engines");
		assert_int_equal(house.driver.count("cuMemAddressReserve"), reserved);
		wrong[1] = was;
		region.allocation_bytes = bytes;
	}
	wrong[1].fd = 0;
	h_expect(&c, h_wait(&c, ty_client_register(c.client, pool, h_done, &c, &c.refused)), TY_INVALID,
		"regions[0].segments[1]: cuMemImportFromShareableHandle");
	wrong[1].fd = -1;
	h_expect(&c, h_wait(&c, ty_client_register(c.client, pool, h_done, &c, &c.refused)), TY_INVALID, "descriptor -1");

	mapped = house.driver.count("cuMemMap");
	h_ok(&c, g_register(&c));
	assert_int_equal(house.driver.count("cuMemMap"), mapped + 2);
	h_expect(&c, g_register(&c), TY_EXISTS, "registered already");
	g_store(&c, 700, 8);
	t = h_transfer(&c, 1, 0, 8, 100);
	h_wipe(&c, 8, 100);
	h_ok(&c, retrieve(&c, &t));
	assert_int_equal(h_wrong(&c, 700, 8, 100), 0);
	mapped = house.driver.count("cuMemUnmap");
	h_ok(&c, h_wait(&c, ty_client_unregister(c.client, c.registration, h_done, &c, &c.refused)));
	assert_int_equal(house.driver.count("cuMemUnmap"), mapped + 2); /* sleep mode: the memory is the engine's alone again */
	h_ok(&c, g_register(&c));
	t.registration = c.registration;
	h_wipe(&c, 8, 100);
	h_ok(&c, retrieve(&c, &t));
	assert_int_equal(h_wrong(&c, 700, 8, 100), 0);
	g_close(&c); /* without UNREGISTER: teardown sees that nothing stays mapped */
}

/* ---- the engine's streams ---------------------------------------------------------------------------------- */

/* Queries, each of which lets some of what is in the streams run. */
static bool stream_done(struct ty_cuda_client *gpu, bool to_host)
{
	struct ty_error err;
	bool done = false;

	for (int i = 0; i < 50 && !done; i++)
		if (ty_cuda_client_done(gpu, to_host, &done, &err) != TY_OK)
			fail_msg("%s", err.text);
	return done;
}

static void test_streams(void **state)
{
	struct ty_stream_words *words;
	struct ty_cuda_client *gpu;
	struct ty_transfer t;
	struct ty_error err = {.code = TY_OK};
	struct h_client c;
	void *stream, *behind;

	(void)state;
	g_open(&house, &c, 0);
	h_ok(&c, g_register(&c));
	assert_int_equal(ty_stream_words_open(c.client, house.driver.path, &words, &err), TY_INVALID);
	assert_non_null(strstr(err.text, "no CUDA context"));
	assert_int_equal(ty_stream_words_open(c.client, "/nonexistent/libcuda.so", &words, &err), TY_UNSUPPORTED);
	if (ty_cuda_client_open(house.driver.path, G_DEVICES - 1, &gpu, &err) != TY_OK)
		fail_msg("%s", err.text);
	house.driver.set("version=11060");
	assert_int_equal(ty_stream_words_open(c.client, house.driver.path, &words, &err), TY_UNSUPPORTED);
	assert_non_null(strstr(err.text, "cuStreamWriteValue64"));
	house.driver.set("version=13000");
	if (ty_stream_words_open(c.client, house.driver.path, &words, &err) != TY_OK)
		fail_msg("%s", err.text);
	stream = ty_cuda_client_stream(gpu, true);
	behind = ty_cuda_client_stream(gpu, false);

	/* A store whose blocks a stream computes, and a stream that goes on when they may be used again. */
	h_ok(&c, h_lookup(&c, 1, 300, 4));
	h_fill(&c, 300, 4, 0);
	t = h_transfer(&c, 1, 0, 4, 0);
	t.ready = (struct ty_mark){10, 3};
	t.done = (struct ty_mark){11, 1};
	c.last.code = TY_INTERNAL;
	assert_int_equal(ty_client_store(c.client, &t, h_done, &c, &c.refused), TY_OK);
	assert_int_equal(ty_stream_wait(words, behind, t.done, &err), TY_OK);
	assert_false(stream_done(gpu, false)); /* nothing raised the ready word yet, so it stays there */
	ty_client_poll(c.client, 0, 0);
	assert_int_equal(c.last.code, TY_INTERNAL);
	assert_int_equal(ty_stream_raise(words, stream, t.ready, &err), TY_OK);
	assert_true(stream_done(gpu, true));
	while (c.last.code == TY_INTERNAL)
		ty_client_poll(c.client, 0, 100000);
	h_ok(&c, c.last.code);
	assert_int_equal(c.last.store.stored, 4);
	assert_true(stream_done(gpu, false));

	/* Word 0 is none, words past the page are refused, and a word that fails is the client's to raise. */
	assert_int_equal(ty_stream_wait(words, behind, (struct ty_mark){0, 7}, &err), TY_OK);
	assert_int_equal(ty_stream_wait(words, behind, (struct ty_mark){TY_TIMELINE_WORDS, 7}, &err), TY_INVALID);
	assert_int_equal(ty_stream_raise(words, behind, (struct ty_mark){TY_TIMELINE_WORDS, 7}, &err), TY_INVALID);
	assert_int_equal(ty_stream_wait(words, behind, (struct ty_mark){12, 1}, &err), TY_OK);
	assert_false(stream_done(gpu, false));
	ty_client_raise(c.client, (struct ty_mark){12, 1});
	assert_true(stream_done(gpu, false));
	ty_stream_words_close(words);
	ty_cuda_client_close(gpu);
	g_close(&c);
}

/* ---- who calls, and what ------------------------------------------------------------------------------------ */

static const char *const functions[] = {
#define NAME(name, ...) #name,
	TY_CUDA_FUNCTIONS(NAME)
	TY_CUDA_OPTIONAL(NAME)
#undef NAME
};
#define FUNCTIONS (sizeof functions / sizeof functions[0])

static bool is_one_of(const char *name, const char *const *names)
{
	while (*names && strcmp(*names, name) != 0)
		names++;
	return *names;
}

/* The first test of the process: every call so far is the one service's. */
static void test_calls(void **state)
{
	/* what waits in the driver: an owner has no way to reach it */
	static const char *const forbidden[] = {"cuCtxSynchronize", "cuStreamSynchronize", "cuEventSynchronize", "cuLaunchHostFunc",
		"cuStreamAddCallback", "cuMemcpyHtoD", "cuMemcpyDtoH", "cuMemcpyDtoD", "cuMemcpy", "cuMemcpy2D", "cuMemAllocHost",
		"cuMemFreeAsync", "cuDevicePrimaryCtxReset", "cuCtxDestroy", "cuIpcOpenEventHandle", NULL};
	/* what it calls between mappings; and a piece of the arena that grows, in the slow lane */
	static const char *const steady[] = {"cuCtxSetCurrent", "cuEventQuery", "cuEventRecord", "cuStreamWaitEvent", "cuLaunchKernel",
		"cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuMemcpy2DAsync", "cuMemcpyBatchAsync", "cuMemcpyBatchAsync_v2",
		"cuMemHostRegister", NULL};
	uint64_t before[FUNCTIONS];
	struct ty_transfer t;
	struct h_client c;

	(void)state;
	g_open(&house, &c, 0);
	h_ok(&c, g_register(&c));
	g_store(&c, 50, 8);
	for (unsigned i = 0; i < FUNCTIONS; i++)
		before[i] = house.driver.count(functions[i]);
	for (uint32_t i = 0; i < 20; i++) {
		g_store(&c, 1000 + 8 * i, 8);
		t = h_transfer(&c, 1, 0, 8, 64);
		h_ok(&c, retrieve(&c, &t));
		assert_int_equal(h_wrong(&c, 1000 + 8 * i, 8, 64), 0);
	}
	for (unsigned i = 0; i < FUNCTIONS; i++) {
		if (is_one_of(functions[i], forbidden))
			fail_msg("%s is in the table of the driver's functions", functions[i]);
		if (house.driver.count(functions[i]) != before[i] && !is_one_of(functions[i], steady))
			fail_msg("%s was called while chunks moved", functions[i]);
	}
	h_ok(&c, h_wait(&c, ty_client_unregister(c.client, c.registration, h_done, &c, &c.refused)));
	g_close(&c);
	assert_int_equal(house.driver.threads_seen(NULL), 1);
}

/* ---- several GPUs ------------------------------------------------------------------------------------------------ */

/* Four owners over one arena: what one GPU stored another retrieves, and what hangs on one holds up no other. */
static void test_four_devices(void **state)
{
	struct h_client c[G_DEVICES - 1];
	unsigned threads = house.driver.threads_seen(NULL);
	struct ty_transfer t;

	(void)state;
	g_start(&house, G_DEVICES - 1);
	for (uint32_t i = 0; i < G_DEVICES - 1; i++) {
		g_open(&house, &c[i], i);
		h_ok(&c[i], g_register(&c[i]));
		g_store(&c[i], 5000 + 8 * i, 8);
	}
	assert_int_equal(house.driver.threads_seen(NULL), threads + G_DEVICES - 1);
	for (uint32_t i = 0; i < G_DEVICES - 1; i++) {
		uint32_t from = 5000 + 8 * ((i + 1) % (G_DEVICES - 1));

		h_ok(&c[i], h_lookup(&c[i], 2, from, 8));
		assert_int_equal(c[i].last.lookup.hits, 8);
		h_wipe(&c[i], 8, 64);
		t = h_transfer(&c[i], 1, 0, 8, 64);
		t.session = 2;
		h_ok(&c[i], retrieve(&c[i], &t));
		assert_int_equal(h_wrong(&c[i], from, 8, 64), 0);
	}
	for (uint32_t i = 0; i < G_DEVICES - 1; i++)
		g_close(&c[i]);
	g_stop(&house);
}

/* ---- near the device ---------------------------------------------------------------------------------------------- */

static char sysfs[] = "/tmp/tyer-sysfs-XXXXXX";

static void put(const char *name, const char *text)
{
	char path[128], *slash = path;
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", sysfs, name);
	while ((slash = strchr(slash + 1, '/'))) {
		*slash = '\0';
		mkdir(path, 0700);
		*slash = '/';
	}
	f = fopen(path, "w");
	assert_non_null(f);
	fprintf(f, "%s\n", text);
	fclose(f);
}

/* Device i lies beside node (i & mask) of two, each with a processor of those that we may use. */
static void describe_machine(uint32_t mask, const uint32_t cpus[2])
{
	char name[64], text[16];

	for (uint32_t i = 0; i < G_DEVICES - 1; i++) {
		snprintf(name, sizeof name, "bus/pci/devices/ffff:%02x:00.0/numa_node", i);
		snprintf(text, sizeof text, "%u", i & mask);
		put(name, text);
	}
	for (uint32_t i = 0; i < 2; i++) {
		snprintf(name, sizeof name, "devices/system/node/node%u/cpulist", i);
		snprintf(text, sizeof text, "%u", cpus[i]);
		put(name, text);
	}
}

/* Which processor owner `index`'s thread may run on; UINT32_MAX: several. */
static uint32_t cpu_of(uint32_t index)
{
	char name[32], path[64], found[32] = "";
	uint32_t cpu = UINT32_MAX;
	struct dirent *d;
	cpu_set_t set;
	DIR *dir = opendir("/proc/self/task");
	FILE *f;

	snprintf(name, sizeof name, "owner-%u\n", index);
	while ((d = readdir(dir))) {
		snprintf(path, sizeof path, "/proc/self/task/%.16s/comm", d->d_name);
		f = fopen(path, "r");
		if (f && fgets(found, sizeof found, f) && !strcmp(found, name) && !sched_getaffinity(atoi(d->d_name), sizeof set, &set) &&
			CPU_COUNT(&set) == 1)
			for (cpu = 0; !CPU_ISSET(cpu, &set);)
				cpu++;
		if (f)
			fclose(f);
	}
	closedir(dir);
	return cpu;
}

static void start_near(uint32_t mask, const uint32_t cpus[2], struct h_client c[G_DEVICES - 1])
{
	describe_machine(mask, cpus);
	g_prepare_service(&house, G_DEVICES - 1);
	house.service.config.sysfs = sysfs;
	h_start(&house.service);
	for (uint32_t i = 0; i < G_DEVICES - 1; i++) {
		g_open(&house, &c[i], i);
		h_ok(&c[i], g_register(&c[i]));
	}
}

static void stop_near(struct h_client c[G_DEVICES - 1])
{
	for (uint32_t i = 0; i < G_DEVICES - 1; i++)
		g_close(&c[i]);
	g_stop(&house);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
	(void)st, (void)kind, (void)where;
	return remove(path);
}

/* Each owner runs beside its GPU, and what it registers of the arena lies there. */
static void test_near(void **state)
{
	const struct ty_arena *arena;
	unsigned long nodes[2] = {0};
	struct h_client c[G_DEVICES - 1];
	uint32_t cpus[2] = {UINT32_MAX, UINT32_MAX};
	struct ty_error err;
	cpu_set_t mine;
	uint8_t *page;
	int mode;

	(void)state;
	assert_non_null(mkdtemp(sysfs));
	assert_int_equal(sched_getaffinity(0, sizeof mine, &mine), 0);
	for (uint32_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &mine))
			cpus[cpus[0] != UINT32_MAX] = cpu; /* the first, and the last */
	cpus[1] = cpus[1] == UINT32_MAX ? cpus[0] : cpus[1];
	start_near(1, cpus, c);
	for (uint32_t i = 0; i < G_DEVICES - 1; i++) {
		assert_int_equal(cpu_of(i), cpus[i & 1]);
		assert_int_equal(atomic_load(&house.service.service->gpu_stats[i].near), (i & 1) + 1);
	}
	stop_near(c);

	start_near(0, cpus, c);
	arena = &house.service.service->arena;
	g_store(&c[3], 6000, 8); /* at the latest here the piece behind the first is asked for, by owners that know where they are */
	while (atomic_load(&house.service.service->eviction_stats.ready_bytes) < 2 * TY_PIECE_BYTES)
		ty_client_poll(c[0].client, 0, 1000);
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ty_numa_prefer(0, page, 4096, &err) == TY_OK) { /* else the kernel has no nodes, or does not let us */
		assert_int_equal(syscall(SYS_get_mempolicy, &mode, nodes, 65ul, arena->base + TY_PIECE_BYTES, MPOL_F_ADDR), 0);
		assert_int_equal(mode, MPOL_PREFERRED);
		assert_int_equal(nodes[0], 1);
	}
	munmap(page, 4096);
	stop_near(c);
	assert_int_equal(nftw(sysfs, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		G_TEST(test_calls),
		G_TEST(test_layers),
		G_TEST(test_layers_of_groups),
		G_TEST(test_streams),
		G_TEST(test_pieces),
		cmocka_unit_test(test_four_devices),
		cmocka_unit_test(test_near),
	};
	int failed;

	g_prepare(&house);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	g_finish();
	return failed;
}
