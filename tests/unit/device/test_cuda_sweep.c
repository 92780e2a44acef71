/* SPDX-License-Identifier: Apache-2.0
 *
 * Every function of the driver that an owner calls fails, at its first few calls, in each of several ways: whatever comes of it, everything
 * ends, what is said to have been copied was, and nothing stays behind. Each case has a process of its own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device/cuda_api.h"
#include "engine.h"

#define MIB ((uint64_t)1 << 20)
#define SLOT_BYTES (16 * MIB)
#define NTH_MOST 3      /* calls of each function that fail in turn */
#define POLLS_MOST 100000u
#define CHUNKS 4u

static const char *const names[] = {
#define NAME(name, ...) #name,
	TY_CUDA_FUNCTIONS(NAME) TY_CUDA_OPTIONAL(NAME)
#undef NAME
};
#define NAMES (sizeof names / sizeof names[0])

/* What gives something back and fails leaves it behind; that is no fault of the owner's. */
static const char *const leaves[] = {"cuEventDestroy", "cuStreamDestroy", "cuModuleUnload", "cuMemFree", "cuMemFreeHost", "cuMemRelease",
	"cuDevicePrimaryCtxRelease", "cuGetErrorName"};

static const struct scenario {
	unsigned pool;
	enum ty_path path;
	bool pieces;
} scenarios[] = {{0, TY_PATH_STAGED, false}, {2, TY_PATH_BATCH, false}, {0, TY_PATH_STRIDED, true}, {6, TY_PATH_DIRECT, false}};

static const unsigned char image[64] = {0x50, 0xed, 0x55, 0xba};
static struct standin driver;
static struct test_pool tp;
static uint8_t *slots, *view[TY_MAX_REGIONS];
static struct shared {
	uint64_t counts[NAMES];
	int line; /* of the check that did not hold */
} *shared;

/* In a case's own process. */
#define CHECK(condition)                                                                                               \
	do {                                                                                                           \
		if (!(condition)) {                                                                                    \
			shared->line = __LINE__;                                                                       \
			_exit(1);                                                                                      \
		}                                                                                                      \
	} while (0)

static bool failed(const struct ty_device *dev)
{
	struct ty_error err;

	return ty_device_health(dev, &err) != TY_OK;
}

/* A store and a retrieve at once, until both have ended. */
static void copy(struct ty_device *dev, struct ty_mapping *m, const struct ty_layout *l, uint64_t *random)
{
	const uint32_t chunks = test_chunks(l) / 2 < CHUNKS ? test_chunks(l) / 2 : CHUNKS;
	uint32_t *ids = test_draw_ids(l, 2 * chunks, false, random);
	struct ty_copy copies[2 * CHUNKS];
	struct ty_batch batches[2], *done[2];
	unsigned out = 0;

	CHECK(2 * chunks * l->chunk_bytes <= SLOT_BYTES && chunks <= ty_device_batch_limit(dev, l));
	memset(slots, 9, SLOT_BYTES);
	for (uint32_t i = 0; i < l->region_count; i++)
		memset(view[i], 7, l->region_length[i]);
	for (uint32_t i = 0; i < 2 * chunks; i++)
		copies[i] = (struct ty_copy){slots + i * l->chunk_bytes, ids + (size_t)i * l->blocks_per_chunk};
	for (unsigned i = 0; i < 2; i++) {
		batches[i] = (struct ty_batch){.mapping = m, .direction = i ? TY_TO_DEVICE : TY_TO_HOST, .copies = copies + (size_t)i * chunks,
			.count = chunks};
		enum ty_code code = ty_device_submit(dev, &batches[i]);

		CHECK(code == TY_OK || (code == TY_DEVICE_FAILED && failed(dev)));
		out += code == TY_OK;
	}
	for (unsigned polls = 0; out; polls++) {
		uint32_t n = ty_device_poll(dev, done, 2);

		CHECK(polls < POLLS_MOST);
		for (uint32_t i = 0; i < n; i++, out--) {
			CHECK(done[i]->client_free && (done[i]->code == TY_OK || failed(dev)));
			for (uint64_t b = 0; done[i] == &batches[0] && done[i]->code == TY_OK && b < chunks * l->chunk_bytes; b++)
				CHECK(slots[b] == 7);
		}
	}
	free(ids);
}

static void live(const struct scenario *s, int which, uint64_t nth, int code)
{
	struct ty_device_options o = {.name = "cuda:0", .driver = driver.path, .kernels = image, .kernels_bytes = sizeof image, .path = s->path,
		.waited_us = 1, .patience_us = 100000};
	struct ty_mapping *m = NULL;
	struct ty_device *dev = NULL;
	struct ty_layout *l = NULL;
	struct ty_error err = {.text = ""};
	bool registered, poisoned;
	uint64_t calls, random = 5;

	driver.set("ops=3");
	test_pool_build(s->pool, &tp);
	test_pool_steps(&tp);
	for (uint32_t i = 0; i < tp.pool.region_count; i++) {
		if (s->pieces)
			engine_alloc_pieces(0, &tp.regions[i]);
		else
			engine_alloc(&tp.regions[i]);
		view[i] = engine_view(&tp.regions[i]);
	}
	CHECK(ty_layout_create(&tp.pool, tp.chunk_tokens, 64 * MIB, &l, &err) == TY_OK);
	if (which >= 0)
		driver.inject(names[which], nth, code);
	if (ty_device_open(&o, &dev, &err) != TY_OK) {
		CHECK(which >= 0 && err.text[0]);
		/* a context that an error stays in is left alone: nothing of it is given back */
		CHECK(driver.count("cuDevicePrimaryCtxRelease") ? !driver.live() : !driver.count("cuStreamDestroy"));
		return;
	}
	registered = ty_device_register_host(dev, slots, SLOT_BYTES, &err) == TY_OK;
	if (registered && ty_device_map(dev, l, tp.regions, &m, &err) != TY_OK)
		m = NULL;
	CHECK(m || err.text[0]);
	for (unsigned round = 0; m && round < 3; round++)
		copy(dev, m, l, &random);
	poisoned = failed(dev);
	calls = driver.calls();
	if (m)
		ty_device_unmap(dev, m);
	CHECK(!poisoned || driver.calls() == calls);
	if (registered)
		ty_device_unregister_host(dev, slots);
	poisoned = failed(dev);
	calls = driver.calls();
	ty_device_close(dev);
	CHECK(poisoned ? driver.calls() == calls : !driver.live());
	free(l);
}

/* How it ended; counts are of its calls. */
static int live_alone(const struct scenario *s, int which, uint64_t nth, int code)
{
	int status;
	pid_t pid;

	engine_start();
	pid = fork();
	if (pid == 0) {
		signal(SIGABRT, SIG_DFL);
		alarm(100);
		live(s, which, nth, code);
		for (unsigned i = 0; i < NAMES; i++)
			shared->counts[i] = driver.count(names[i]);
		_exit(0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	engine_stop();
	return status;
}

static bool may_fail(const char *name)
{
	for (unsigned i = 0; i < sizeof leaves / sizeof leaves[0]; i++)
		if (!strcmp(name, leaves[i]))
			return false;
	return true;
}

static void each_call_fails(void **state)
{
	static const int codes[] = {CU_OUT_OF_MEMORY, CU_ILLEGAL_ADDRESS, CU_UNKNOWN};
	unsigned cases = 0;

	(void)state;
	for (unsigned s = 0; s < sizeof scenarios / sizeof scenarios[0]; s++) {
		uint64_t counts[NAMES];

		assert_int_equal(live_alone(&scenarios[s], -1, 0, 0), 0);
		memcpy(counts, shared->counts, sizeof counts);
		for (unsigned f = 0; f < NAMES; f++)
			for (uint64_t nth = 1; may_fail(names[f]) && nth <= counts[f] && nth <= NTH_MOST; nth++)
				for (unsigned c = 0; c < sizeof codes / sizeof codes[0]; c++, cases++) {
					int status = live_alone(&scenarios[s], (int)f, nth, codes[c]);

					if (status)
						fail_msg("way %s, call %llu of %s answers %d: ended with %s %d, line %d",
							ty_path_name(scenarios[s].path), (unsigned long long)nth, names[f], codes[c],
							WIFSIGNALED(status) ? "signal" : "status",
							WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), shared->line);
				}
	}
	assert_true(cases > 450);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_call_fails),
	};

	standin_open(&driver);
	slots = mmap(NULL, SLOT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return slots == MAP_FAILED || shared == MAP_FAILED || cmocka_run_group_tests_name("CUDA, every call failing", tests, NULL, NULL);
}
