/* SPDX-License-Identifier: Apache-2.0
 *
 * The owner when the driver fails, hangs, or is misused. Each case has a process of its own, because a poisoned context stays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device/cuda_api.h"
#include "engine.h"

#define SLOT_BYTES ((size_t)16 << 20)
#define MIB ((uint64_t)1 << 20)

static const unsigned char image[64] = {0x50, 0xed, 0x55, 0xba};
static struct standin driver;
static struct test_pool tp;
static uint8_t *slots;

/* In a case's own process: say what is wrong, and end. */
#define CHECK(condition)                                                                                               \
	do {                                                                                                           \
		if (!(condition)) {                                                                                    \
			fprintf(stderr, "%s:%d: not so: %s\n", __func__, __LINE__, #condition);                        \
			_exit(1);                                                                                      \
		}                                                                                                      \
	} while (0)

struct bench {
	struct ty_device *dev;
	struct ty_layout *layout;
	struct ty_mapping *mapping;
	struct ty_batch batches[80];
	struct ty_copy copies[80];
	uint32_t ids[64];
};
static struct bench b;
static uint64_t patience_us;

static void set_up_for(unsigned pool, const char *settings, enum ty_path path, uint64_t waited_us)
{
	struct ty_device_options o = {.name = "cuda:0", .driver = driver.path, .kernels = image, .kernels_bytes = sizeof image,
		.path = path, .waited_us = waited_us, .patience_us = patience_us};
	struct ty_error err = {0};

	driver.set(settings);
	test_pool_build(pool, &tp);
	for (uint32_t i = 0; i < tp.pool.region_count; i++)
		engine_alloc(&tp.regions[i]);
	CHECK(ty_layout_create(&tp.pool, tp.chunk_tokens, 64 * MIB, &b.layout, &err) == TY_OK);
	CHECK(ty_device_open(&o, &b.dev, &err) == TY_OK);
	CHECK(ty_device_register_host(b.dev, slots, SLOT_BYTES, &err) == TY_OK);
	CHECK(ty_device_map(b.dev, b.layout, tp.regions, &b.mapping, &err) == TY_OK);
	for (uint32_t i = 0; i < 64; i++)
		b.ids[i] = i;
}

/* However slow the machine, no kernel is held up for an hour. */
static void set_up(unsigned pool, const char *settings)
{
	set_up_for(pool, settings, TY_PATH_STAGED, 3600000000u);
}

static enum ty_code submit(unsigned i, enum ty_direction direction)
{
	b.copies[i] = (struct ty_copy){slots + (i % 4) * b.layout->chunk_bytes, b.ids};
	b.batches[i] = (struct ty_batch){.mapping = b.mapping, .direction = direction, .copies = &b.copies[i], .count = 1};
	return ty_device_submit(b.dev, &b.batches[i]);
}

/* Polls until nothing comes any more; how many were done, all of them with `code`. */
static unsigned drain(enum ty_code code)
{
	struct ty_batch *done[8];
	unsigned count = 0;

	for (unsigned i = 0; i < 3000; i++) {
		uint32_t n = ty_device_poll(b.dev, done, 8);

		for (uint32_t j = 0; j < n; j++) {
			CHECK(done[j]->code == code);
			CHECK(done[j]->client_free);
		}
		count += n;
	}
	return count;
}

/* Run `body` in a process of its own; how it ended. */
static int in_process(void (*body)(const void *arg), const void *arg, bool quiet)
{
	int status;
	pid_t pid;

	engine_start();
	pid = fork();
	if (pid == 0) {
		signal(SIGABRT, SIG_DFL);
		alarm(60);
		if (quiet && !freopen("/dev/null", "w", stderr))
			_exit(3);
		body(arg);
		_exit(0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	engine_stop();
	return status;
}

static void expect_ok(void (*body)(const void *arg), const void *arg)
{
	int status = in_process(body, arg, false);

	if (!WIFEXITED(status) || WEXITSTATUS(status))
		fail_msg("the case ended with %s %d", WIFSIGNALED(status) ? "signal" : "status",
			WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

/* ---- failing calls ------------------------------------------------------------------------------ */

struct failure {
	const char *call;
	uint64_t nth;
	int code;
	unsigned pool;
	enum ty_direction direction;
	enum ty_path path;
};

/* Four batches, one call among theirs fails: the device is poisoned, says which call it was, and every batch still ends. */
static void body_failure(const void *arg)
{
	const struct failure *f = arg;
	enum ty_code codes[4];
	unsigned accepted = 0;
	struct ty_mapping *more;
	struct ty_error err = {0};
	uint64_t calls;

	set_up_for(f->pool, "ops=1", f->path, 3600000000u);
	driver.inject(f->call, f->nth, f->code);
	for (unsigned i = 0; i < 4; i++) {
		codes[i] = submit(i, f->direction);
		CHECK(codes[i] == TY_OK || codes[i] == TY_DEVICE_FAILED);
		accepted += codes[i] == TY_OK;
	}
	/* those that were done before are right; the first that is not, and all after it, failed */
	for (unsigned polls = 0, done = 0; done < accepted; polls++) {
		struct ty_batch *one[1];
		uint32_t n = ty_device_poll(b.dev, one, 1);

		CHECK(polls < 3000);
		if (n && one[0]->code == TY_OK)
			CHECK(ty_device_health(b.dev, &err) == TY_OK || one[0] == &b.batches[done]);
		done += n;
	}
	if (ty_device_health(b.dev, &err) != TY_DEVICE_FAILED || !strstr(err.text, f->call) || !strstr(err.text, "cuda:0")) {
		fprintf(stderr, "expected call %llu of %s in: %s\n", (unsigned long long)f->nth, f->call, err.text);
		_exit(1);
	}
	CHECK(submit(5, TY_TO_HOST) == TY_DEVICE_FAILED);
	CHECK(ty_device_map(b.dev, b.layout, tp.regions, &more, &err) == TY_DEVICE_FAILED);
	CHECK(ty_device_register_host(b.dev, slots + SLOT_BYTES, 4096, &err) == TY_DEVICE_FAILED);
	/* and it can be put away without one more call to a driver that may not return */
	calls = driver.calls();
	ty_device_unmap(b.dev, b.mapping);
	ty_device_unregister_host(b.dev, slots);
	ty_device_close(b.dev);
	CHECK(driver.calls() == calls);
}

static void failing_calls(void **state)
{
	static const struct failure cases[] = {
		{"cuLaunchKernel", 1, CU_LAUNCH_FAILED, 0, TY_TO_HOST, TY_PATH_STAGED},
		{"cuLaunchKernel", 2, CU_ILLEGAL_ADDRESS, 0, TY_TO_DEVICE, TY_PATH_STAGED},
		{"cuMemcpyDtoHAsync", 2, CU_INVALID_VALUE, 0, TY_TO_HOST, TY_PATH_STAGED},
		{"cuMemcpyDtoHAsync", 4, CU_ILLEGAL_ADDRESS, 6, TY_TO_HOST, TY_PATH_DIRECT},
		{"cuMemcpyHtoDAsync", 1, CU_UNKNOWN, 0, TY_TO_DEVICE, TY_PATH_STAGED},
		{"cuMemcpyHtoDAsync", 3, CU_INVALID_VALUE, 6, TY_TO_DEVICE, TY_PATH_DIRECT},
		{"cuEventRecord", 1, CU_INVALID_VALUE, 0, TY_TO_HOST, TY_PATH_STAGED},
		{"cuEventRecord", 4, CU_ILLEGAL_ADDRESS, 0, TY_TO_DEVICE, TY_PATH_STAGED},
		{"cuEventRecord", 2, CU_INVALID_VALUE, 6, TY_TO_HOST, TY_PATH_DIRECT},
		{"cuStreamWaitEvent", 2, CU_INVALID_VALUE, 0, TY_TO_HOST, TY_PATH_STAGED},
		{"cuEventQuery", 1, CU_ILLEGAL_ADDRESS, 0, TY_TO_HOST, TY_PATH_STAGED},
		{"cuEventQuery", 9, CU_ECC_UNCORRECTABLE, 0, TY_TO_DEVICE, TY_PATH_STAGED},
		{"cuEventQuery", 7, CU_LAUNCH_FAILED, 6, TY_TO_DEVICE, TY_PATH_DIRECT},
		{"cuEventQuery", 3, CU_CONTAINED, 0, TY_TO_HOST, TY_PATH_STAGED},
		{"cuEventQuery", 3, CU_INVALID_HANDLE, 0, TY_TO_HOST, TY_PATH_STAGED},
		{"cuMemcpyBatchAsync_v2", 1, CU_ILLEGAL_ADDRESS, 0, TY_TO_HOST, TY_PATH_BATCH},
		{"cuMemcpyBatchAsync_v2", 3, CU_INVALID_VALUE, 0, TY_TO_DEVICE, TY_PATH_BATCH},
		{"cuMemcpy2DAsync", 5, CU_INVALID_VALUE, 0, TY_TO_HOST, TY_PATH_STRIDED},
		{"cuMemcpy2DAsync", 2, CU_ILLEGAL_ADDRESS, 0, TY_TO_DEVICE, TY_PATH_STRIDED},
		{"cuMemcpyDtoHAsync", 6, CU_INVALID_VALUE, 0, TY_TO_HOST, TY_PATH_DIRECT},
		{"cuEventRecord", 2, CU_INVALID_VALUE, 0, TY_TO_DEVICE, TY_PATH_STRIDED},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++)
		expect_ok(body_failure, &cases[i]);
}

/* The last call of a retrieve's unit fails, whose scatter is queued: not until that is through does the batch end, for its blocks are
 * the client's again then. */
static void body_failing_end(const void *arg)
{
	const uint64_t *marks = arg; /* the records that fail when its end is to be marked once more; null: none */
	struct ty_batch *done;
	uint8_t *view;

	set_up(0, "ops=1");
	view = engine_view(&tp.regions[0]);
	memset(view, 1, tp.regions[0].length);
	memset(slots, 2, SLOT_BYTES);
	driver.inject("cuEventRecord", 2, CU_INVALID_VALUE);
	for (uint64_t i = 0; marks && i < 2; i++)
		driver.inject("cuEventRecord", *marks + i, CU_OUT_OF_MEMORY);
	if (marks)
		driver.inject("cuStreamWaitEvent", 2, CU_OUT_OF_MEMORY);
	CHECK(submit(0, TY_TO_DEVICE) == TY_OK);
	while (!ty_device_poll(b.dev, &done, 1))
		;
	CHECK(done->code == TY_DEVICE_FAILED);
	CHECK(view[tp.planes[0].offset] == 2);
}

/* The driver cannot say now whether the scatter is through: that is no answer. */
static void body_failing_query(const void *arg)
{
	struct ty_batch *done;
	uint8_t *view;

	(void)arg;
	set_up(0, "ops=1");
	view = engine_view(&tp.regions[0]);
	memset(view, 1, tp.regions[0].length);
	memset(slots, 2, SLOT_BYTES);
	driver.inject("cuEventQuery", 1, CU_OUT_OF_MEMORY);
	driver.inject("cuEventQuery", 2, CU_INVALID_VALUE);
	CHECK(submit(0, TY_TO_DEVICE) == TY_OK);
	while (!ty_device_poll(b.dev, &done, 1))
		;
	CHECK(done->code == TY_DEVICE_FAILED);
	CHECK(view[tp.planes[0].offset] == 2);
}

static void failing_end(void **state)
{
	const uint64_t middle = 3, end = 4;

	(void)state;
	expect_ok(body_failing_end, NULL);
	expect_ok(body_failing_end, &middle);
	expect_ok(body_failing_end, &end);
	expect_ok(body_failing_query, NULL);
}

/* Calls that map a pool, and whose errors stay. */
static void body_failing_map(const void *arg)
{
	const struct failure *f = arg;
	struct ty_mapping *more;
	struct ty_error err = {0};
	uint64_t calls;

	set_up(0, "ops=4");
	engine_alloc(&tp.regions[0]); /* others than those that are mapped */
	driver.inject(f->call, f->nth, f->code);
	CHECK(ty_device_map(b.dev, b.layout, tp.regions, &more, &err) == TY_DEVICE_FAILED);
	CHECK(!more);
	CHECK(strstr(err.text, f->call));
	CHECK(ty_device_health(b.dev, &err) == TY_DEVICE_FAILED);
	calls = driver.calls();
	ty_device_unmap(b.dev, b.mapping);
	ty_device_unregister_host(b.dev, slots);
	ty_device_close(b.dev);
	CHECK(driver.calls() == calls);
}

static void failing_maps(void **state)
{
	static const struct failure cases[] = {
		{.call = "cuIpcOpenMemHandle", .nth = 1, .code = CU_ILLEGAL_ADDRESS},
		{.call = "cuIpcOpenMemHandle", .nth = 1, .code = CU_UNKNOWN},
		{.call = "cuMemGetAddressRange", .nth = 1, .code = CU_LAUNCH_FAILED},
		{.call = "cuIpcOpenMemHandle", .nth = 1, .code = CU_CONTAINED},
		{.call = "cuIpcOpenMemHandle", .nth = 1, .code = CU_MPS_CLIENT_TERMINATED},
		{.call = "cuMemGetAddressRange", .nth = 1, .code = CU_EXTERNAL_DEVICE},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++)
		expect_ok(body_failing_map, &cases[i]);
}

/* ---- work that never runs ------------------------------------------------------------------------ */

static void body_hung_store(const void *arg)
{
	struct ty_error err;

	(void)arg;
	set_up(0, "ops=4");
	driver.inject("cuMemcpyDtoHAsync", 2, STANDIN_HANG);
	CHECK(submit(0, TY_TO_HOST) == TY_OK);
	CHECK(submit(1, TY_TO_HOST) == TY_OK);
	CHECK(submit(2, TY_TO_DEVICE) == TY_OK);
	CHECK(drain(TY_OK) == 2); /* the other direction is not held up */
	CHECK(b.batches[2].code == TY_OK);
	CHECK(b.batches[1].client_free); /* gathered: the client may go on while the copy hangs */
	CHECK(ty_device_health(b.dev, &err) == TY_OK);
	driver.release();
	CHECK(drain(TY_OK) == 1);
	ty_device_unmap(b.dev, b.mapping);
	ty_device_unregister_host(b.dev, slots);
	ty_device_close(b.dev);
	CHECK(driver.live() == 0);
}

static void body_hung_kernel(const void *arg)
{
	unsigned accepted = 0;

	(void)arg;
	set_up(0, "ops=4");
	driver.inject("cuLaunchKernel", 1, STANDIN_HANG);
	while (accepted < 80 && submit(accepted, TY_TO_HOST) == TY_OK)
		accepted++;
	CHECK(accepted == 64); /* then BUSY: the queue is bounded */
	CHECK(submit(accepted, TY_TO_HOST) == TY_BUSY);
	CHECK(drain(TY_OK) == 0);
	CHECK(!b.batches[0].client_free);
	CHECK(driver.count("cuLaunchKernel") <= 4 + 16); /* nor does the driver's own queue grow */
	driver.release();
	CHECK(drain(TY_OK) == 64);
}

/* One of two streams hangs: the unit is not done though the other stream is. */
static void body_hung_stream(const void *arg)
{
	(void)arg;
	set_up_for(0, "ops=4", TY_PATH_DIRECT, 3600000000u);
	driver.inject("cuMemcpyDtoHAsync", 2, STANDIN_HANG);
	CHECK(submit(0, TY_TO_HOST) == TY_OK);
	CHECK(drain(TY_OK) == 0);
	CHECK(!b.batches[0].client_free);
	driver.release();
	CHECK(drain(TY_OK) == 1);
}

/* A gather that is held up is the sign of an engine: what comes then goes without kernels. */
static void body_engine_is_noticed(const void *arg)
{
	const struct ty_device_stats *stats;
	enum ty_path path;

	(void)arg;
	set_up_for(0, "ops=4", TY_PATH_PLANNED, 1);
	stats = ty_device_stats(b.dev);
	CHECK(ty_device_path(b.dev, b.mapping, 0, TY_TO_HOST, 1) == TY_PATH_STAGED);
	driver.inject("cuLaunchKernel", 1, STANDIN_HANG);
	/* as many as are issued at once, and some that wait: those are planned when their turn comes */
	for (unsigned i = 2; i < 30; i++)
		CHECK(submit(i, TY_TO_HOST) == TY_OK);
	CHECK(atomic_load(&stats->units[TY_PATH_STAGED]) == 16);
	CHECK(drain(TY_OK) == 0);
	CHECK(atomic_load(&stats->busy) == 1);
	/* it was seen to wait just now */
	path = ty_device_path(b.dev, b.mapping, 0, TY_TO_HOST, 1);
	CHECK(path != TY_PATH_STAGED);
	CHECK(submit(1, TY_TO_DEVICE) == TY_OK);
	CHECK(drain(TY_OK) == 1);
	driver.release();
	CHECK(drain(TY_OK) == 28);
	CHECK(atomic_load(&stats->units[TY_PATH_STAGED]) == 16);
	/* probes that nobody holds up: it is gone. They come by the clock, and only beside work */
	driver.set("ops=64");
	while (ty_device_path(b.dev, b.mapping, 0, TY_TO_HOST, 1) != TY_PATH_STAGED) {
		CHECK(submit(1, TY_TO_DEVICE) == TY_OK);
		CHECK(drain(TY_OK) == 1);
	}
	CHECK(atomic_load(&stats->busy) == 1);
}

/* A probe is out when the last copies have ended: memory is given back when it has ended too, for the driver would wait for it. */
static void body_probe_is_out(const void *ends)
{
	struct ty_error err;

	patience_us = ends ? 0 : 2000000; /* it is waited for */
	set_up_for(0, "ops=4", TY_PATH_PLANNED, 1);
	driver.inject("cuLaunchKernel", 2, STANDIN_HANG);
	driver.set("ops=0");
	CHECK(submit(0, TY_TO_HOST) == TY_OK);
	for (uint64_t launches = driver.count("cuLaunchKernel"); driver.count("cuLaunchKernel") == launches;)
		CHECK(drain(TY_OK) == 0); /* it is seen to wait, so there must be an engine; is there? */
	driver.set("ops=4");
	CHECK(drain(TY_OK) == 1);
	CHECK(!ends || !ty_device_unmap_some(b.dev, b.mapping)); /* else its patience may be over by now */
	if (ends)
		driver.release();
	ty_device_unmap(b.dev, b.mapping);
	CHECK(ty_device_health(b.dev, &err) == (ends ? TY_OK : TY_DEVICE_FAILED));
	ty_device_unregister_host(b.dev, slots);
	ty_device_close(b.dev);
	CHECK(!ends || driver.live() == 0);
}

/* In the slow lane the GPU is looked at for so long, and then it is given up. */
static void body_hung_open(const void *arg)
{
	struct ty_device_options o = {.name = "cuda:0", .driver = driver.path, .kernels = image, .kernels_bytes = sizeof image,
		.patience_us = 1000};
	struct ty_error err = {0};

	(void)arg;
	driver.inject("cuLaunchKernel", 2, STANDIN_HANG);
	CHECK(ty_device_open(&o, &b.dev, &err) == TY_DEVICE_STALLED);
	CHECK(strstr(err.text, "the first launch of a kernel: not done after 1 ms"));
}

static void body_hung_map(const void *arg)
{
	struct ty_mapping *more;
	struct ty_error err = {0};

	(void)arg;
	patience_us = 100000; /* for its own map */
	set_up(0, "ops=4");
	driver.inject("cuMemcpyHtoDAsync", 1, STANDIN_HANG);
	CHECK(ty_device_map(b.dev, b.layout, tp.regions, &more, &err) == TY_DEVICE_STALLED);
	CHECK(strstr(err.text, "upload of the plane table: not done after"));
	CHECK(ty_device_health(b.dev, &err) == TY_DEVICE_FAILED);
	CHECK(submit(0, TY_TO_HOST) == TY_DEVICE_FAILED);
}

static void hung_work(void **state)
{
	(void)state;
	expect_ok(body_hung_store, NULL);
	expect_ok(body_hung_kernel, NULL);
	expect_ok(body_hung_stream, NULL);
	expect_ok(body_hung_open, NULL);
	expect_ok(body_hung_map, NULL);
	expect_ok(body_engine_is_noticed, NULL);
	expect_ok(body_probe_is_out, &driver);
	expect_ok(body_probe_is_out, NULL);
}

/* ---- the call in progress -------------------------------------------------------------------------- */

static struct ty_device_call seen;

static void *owner(void *arg)
{
	struct ty_device_options o = {.name = "cuda:0", .driver = driver.path, .kernels = image, .kernels_bytes = sizeof image};
	struct ty_device *dev;
	struct ty_error err;

	(void)arg;
	ty_device_publish_calls(&seen);
	CHECK(ty_device_open(&o, &dev, &err) == TY_OK);
	driver.inject("cuMemHostRegister", 1, STANDIN_HANG);
	CHECK(ty_device_register_host(dev, slots, 4096, &err) == TY_OK);
	ty_device_unregister_host(dev, slots);
	/* the slow lane does not count: what it cost is known to be much */
	CHECK(atomic_load(&ty_device_stats(dev)->longest_call_ns) == 0);
	ty_device_close(dev);
	return NULL;
}

static void body_call_is_seen(const void *arg)
{
	const char *name = NULL;
	pthread_t thread;

	(void)arg;
	CHECK(pthread_create(&thread, NULL, owner, NULL) == 0);
	while (!name || strcmp(name, "cuMemHostRegister"))
		name = atomic_load_explicit(&seen.name, memory_order_acquire);
	CHECK(atomic_load_explicit(&seen.since, memory_order_relaxed) > 0);
	driver.release();
	CHECK(pthread_join(thread, NULL) == 0);
	CHECK(atomic_load_explicit(&seen.name, memory_order_acquire) == NULL);
	CHECK(driver.threads_seen(NULL) == 1);
	CHECK(driver.live() == 0);
}

static void call_is_seen(void **state)
{
	(void)state;
	expect_ok(body_call_is_seen, NULL);
}

/* An engine that dies takes nothing with it: what is in flight ends, its memory goes when it is unmapped. */
static void body_dead_client(const void *arg)
{
	(void)arg;
	set_up(0, "ops=1");
	CHECK(submit(0, TY_TO_HOST) == TY_OK);
	engine_kill();
	CHECK(drain(TY_OK) == 1);
	ty_device_unmap(b.dev, b.mapping);
	CHECK(ty_device_map(b.dev, b.layout, tp.regions, &b.mapping, &(struct ty_error){0}) == TY_INVALID);
	ty_device_unregister_host(b.dev, slots);
	ty_device_close(b.dev);
	CHECK(driver.live() == 0);
}

/* ---- misuse: what the stand-in, or the device, does not let pass --------------------------------------- */

static void body_not_registered(const void *arg)
{
	(void)arg;
	set_up(0, "ops=1");
	ty_device_unregister_host(b.dev, slots);
	(void)!submit(0, TY_TO_HOST);
	drain(TY_OK);
}

static void body_across_a_border(const void *arg)
{
	(void)arg;
	set_up(0, "ops=1");
	b.copies[0] = (struct ty_copy){slots + SLOT_BYTES - 16, b.ids};
	b.batches[0] = (struct ty_batch){.mapping = b.mapping, .copies = &b.copies[0], .count = 1};
	(void)!ty_device_submit(b.dev, &b.batches[0]);
	drain(TY_OK);
}

static void body_unmap_in_flight(const void *arg)
{
	(void)arg;
	set_up(0, "ops=1");
	(void)!submit(0, TY_TO_HOST);
	ty_device_unmap(b.dev, b.mapping);
}

static void body_close_in_flight(const void *arg)
{
	(void)arg;
	set_up(0, "ops=1");
	(void)!submit(0, TY_TO_HOST);
	ty_device_unregister_host(b.dev, slots); /* it would wait */
}

static void *stranger(void *arg)
{
	struct ty_batch *done;

	(void)arg;
	(void)!ty_device_poll(b.dev, &done, 1);
	return NULL;
}

static void body_stranger(const void *arg)
{
	pthread_t thread;

	(void)arg;
	set_up(0, "ops=1");
	CHECK(pthread_create(&thread, NULL, stranger, NULL) == 0);
	pthread_join(thread, NULL);
}

static void misuse(void **state)
{
	static void (*const bodies[])(const void *) = {body_not_registered, body_across_a_border, body_unmap_in_flight,
		body_close_in_flight, body_stranger};

	(void)state;
	for (unsigned i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
		int status = in_process(bodies[i], NULL, true);

		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
			fail_msg("misuse %u went unseen: %#x", i, (unsigned)status);
	}
}

static void dead_client(void **state)
{
	(void)state;
	expect_ok(body_dead_client, NULL);
}

static int prepare(void **state)
{
	(void)state;
	standin_open(&driver);
	slots = mmap(NULL, SLOT_BYTES + 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return slots == MAP_FAILED;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(failing_calls),
		cmocka_unit_test(failing_end),
		cmocka_unit_test(failing_maps),
		cmocka_unit_test(hung_work),
		cmocka_unit_test(call_is_seen),
		cmocka_unit_test(dead_client),
		cmocka_unit_test(misuse),
	};

	return cmocka_run_group_tests_name("CUDA, faults", tests, prepare, NULL);
}
