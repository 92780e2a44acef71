/* SPDX-License-Identifier: Apache-2.0 */
#include "busy.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device/cuda_driver.h"
#include "kernels.h"

#define STEP_MS 1.6f
#define WEIGHTS ((uint64_t)2 << 30)
#define EACH ((uint64_t)128 << 20) /* bytes that a kernel reads */
#define AHEAD 3u                   /* steps queued */
#define SAMPLES 65536u
#define TRIAL 50u                  /* steps after which their length is set */
#define KERNELS_MAX 512u

/* Shared. The engine writes; the parent reads. A sample is there when `steps` is past it (release, read by acquire); the error is
 * when the pipe has ended without a word. */
struct shared {
	_Atomic bool stop; /* of a thread: the parent's, relaxed */
	_Atomic uint64_t steps;
	char error[256];
	float samples[SAMPLES]; /* milliseconds, of step i at i % SAMPLES */
};

static struct shared *shared;
static pid_t engine; /* 0: none, or a thread */
static struct {
	pthread_t thread;
	bool runs, tiny;
	const char *driver;
	int ordinal, ready;
} here;

struct run {
	struct ty_cuda api;
	cu_stream stream;
	cu_module module;
	cu_function load;
	cu_event ends[AHEAD + 1];
	cu_address weights, sink;
	uint64_t bytes, each, at;
	unsigned grid, kernels;
};

static _Noreturn void give_up(const struct run *r, const char *what, cu_result result)
{
	snprintf(shared->error, sizeof shared->error, "the busy engine: %s: %s (%d)", what, ty_cuda_error_name(&r->api, result), result);
	if (here.runs) /* nobody else tells */
		fprintf(stderr, "%s\n", shared->error);
	_exit(1);
}

#define MUST(r, call, ...)                                                                                             \
	do {                                                                                                           \
		cu_result result_ = (r)->api.call(__VA_ARGS__);                                                        \
		if (result_ != CU_SUCCESS)                                                                             \
			give_up(r, #call, result_);                                                                    \
	} while (0)

static void open_engine(struct run *r, const char *driver, int ordinal, bool tiny)
{
	struct ty_error err = {0};
	cu_context context;
	cu_device device;
	int processors;

	if (ty_cuda_load(driver, &r->api, &err) != TY_OK || ty_cuda_context(&r->api, ordinal, &device, &context, &err) != TY_OK) {
		snprintf(shared->error, sizeof shared->error, "the busy engine: %.200s", err.text);
		_exit(1);
	}
	r->bytes = tiny ? 1 << 20 : WEIGHTS;
	r->each = tiny ? 1 << 18 : EACH;
	r->kernels = tiny ? 2 : 32;
	MUST(r, cuDeviceGetAttribute, &processors, CU_ATTRIBUTE_MULTIPROCESSORS, device);
	r->grid = (unsigned)processors * 8;
	MUST(r, cuModuleLoadData, &r->module, ty_busy_image);
	MUST(r, cuModuleGetFunction, &r->load, r->module, TY_BUSY_LOAD);
	MUST(r, cuMemAlloc, &r->weights, r->bytes);
	MUST(r, cuMemAlloc, &r->sink, 16);
	MUST(r, cuStreamCreate, &r->stream, CU_STREAM_NON_BLOCKING);
	for (unsigned i = 0; i <= AHEAD; i++) {
		MUST(r, cuEventCreate, &r->ends[i], CU_EVENT_TIMED);
		MUST(r, cuEventRecord, r->ends[i], r->stream);
	}
}

/* Nothing is queued any more. */
static void close_engine(struct run *r)
{
	for (unsigned i = 0; i <= AHEAD; i++)
		MUST(r, cuEventDestroy, r->ends[i]);
	MUST(r, cuStreamDestroy, r->stream);
	MUST(r, cuMemFree, r->sink);
	MUST(r, cuMemFree, r->weights);
	MUST(r, cuModuleUnload, r->module);
}

static void queue_step(struct run *r, uint64_t step)
{
	for (unsigned k = 0; k < r->kernels; k++) {
		struct ty_load_job job = {r->weights + r->at, r->each / TY_BUSY_UNIT, r->sink};
		void *parameters[] = {&job};

		MUST(r, cuLaunchKernel, r->load, r->grid, 1, 1, TY_BUSY_THREADS, 1, 1, 0, r->stream, parameters, NULL);
		r->at = (r->at + r->each) % r->bytes;
	}
	MUST(r, cuEventRecord, r->ends[step % (AHEAD + 1)], r->stream);
}

static void finish_step(struct run *r, uint64_t step)
{
	cu_result result;

	while ((result = r->api.cuEventQuery(r->ends[step % (AHEAD + 1)])) == CU_NOT_READY)
		sched_yield();
	if (result != CU_SUCCESS)
		give_up(r, "cuEventQuery", result);
}

static void work(const char *driver, int ordinal, bool tiny, int ready)
{
	static struct run r;
	uint64_t step = 1;
	float trial = 0;

	open_engine(&r, driver, ordinal, tiny);
	finish_step(&r, AHEAD); /* the events' first records */
	while (step < AHEAD)
		queue_step(&r, step++);
	for (; !atomic_load_explicit(&shared->stop, memory_order_relaxed); step++) {
		uint64_t done = step - AHEAD + 1; /* queued long before this one */
		float *sample = &shared->samples[done % SAMPLES];

		queue_step(&r, step);
		finish_step(&r, done);
		MUST(&r, cuEventElapsedTime, sample, r.ends[(done - 1) % (AHEAD + 1)], r.ends[done % (AHEAD + 1)]);
		if (done > TRIAL / 2 && done <= TRIAL)
			trial += *sample;
		if (done == TRIAL && !tiny) {
			float want = (float)r.kernels * STEP_MS * (float)(TRIAL - TRIAL / 2) / trial + 0.5f;

			r.kernels = want < 1 ? 1 : want > KERNELS_MAX ? KERNELS_MAX : (unsigned)want;
		}
		atomic_store_explicit(&shared->steps, done + 1, memory_order_release);
		if (done == 2 * TRIAL && write(ready, "", 1) != 1)
			_exit(1); /* nobody waits for it */
	}
	finish_step(&r, step - 1);
	close_engine(&r);
}

/* Both: where the engine's first byte comes. */
static enum ty_code prepare(int ready[2], struct ty_error *err)
{
	engine = 0;
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return ty_fail(err, TY_NO_MEMORY, "the busy engine: %s", strerror(errno));
	if (pipe2(ready, O_CLOEXEC) != 0)
		return ty_fail(err, TY_IO, "the busy engine: pipe: %s", strerror(errno));
	return TY_OK;
}

enum ty_code ty_busy_start(const char *driver, int ordinal, bool tiny, struct ty_error *err)
{
	int ready[2];
	enum ty_code code = prepare(ready, err);
	ssize_t got;
	char byte;

	if (code != TY_OK)
		return code;
	engine = fork();
	if (engine == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGALRM, SIG_DFL);
		close(ready[0]);
		work(driver, ordinal, tiny, ready[1]);
		_exit(0);
	}
	close(ready[1]);
	do
		got = engine > 0 ? read(ready[0], &byte, 1) : -1; /* its end is the pipe's */
	while (got < 0 && engine > 0 && errno == EINTR);
	close(ready[0]);
	if (engine < 0) {
		engine = 0;
		return ty_fail(err, TY_IO, "the busy engine: no process could be made for it");
	}
	return got == 1 ? TY_OK : ty_fail(err, TY_DEVICE_FAILED, "%s", shared->error[0] ? shared->error : "the busy engine ended");
}

static void *work_here(void *unused)
{
	(void)unused;
	work(here.driver, here.ordinal, here.tiny, here.ready);
	return NULL;
}

enum ty_code ty_busy_start_here(const char *driver, int ordinal, bool tiny, struct ty_error *err)
{
	int ready[2];
	enum ty_code code = prepare(ready, err);
	ssize_t got;
	char byte;

	if (code != TY_OK)
		return code;
	here.driver = driver;
	here.ordinal = ordinal;
	here.tiny = tiny;
	here.ready = ready[1];
	here.runs = true;
	if (pthread_create(&here.thread, NULL, work_here, NULL) != 0) {
		here.runs = false;
		got = -1;
	} else {
		do
			got = read(ready[0], &byte, 1);
		while (got < 0 && errno == EINTR);
	}
	close(ready[0]);
	close(ready[1]);
	return got == 1 ? TY_OK : ty_fail(err, TY_IO, "the busy engine: no thread could be made for it");
}

void ty_busy_stop(void)
{
	if (here.runs) {
		atomic_store_explicit(&shared->stop, true, memory_order_relaxed);
		pthread_join(here.thread, NULL);
		here.runs = false;
	}
	if (engine > 0) {
		kill(engine, SIGKILL);
		waitpid(engine, NULL, 0);
	}
	engine = 0;
	if (shared != MAP_FAILED)
		munmap(shared, sizeof *shared);
}

uint64_t ty_busy_steps(void)
{
	return atomic_load_explicit(&shared->steps, memory_order_acquire);
}

static int by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

void ty_busy_times(uint64_t from, double *median, double *p99)
{
	uint64_t to = ty_busy_steps(), count;
	float *sorted;

	from += from == 0; /* there is no step 0 */
	count = to > from ? to - from : 0;
	count = count > SAMPLES ? SAMPLES : count;
	*median = *p99 = 0;
	sorted = count ? malloc(count * sizeof *sorted) : NULL;
	if (!sorted)
		return;
	for (uint64_t i = 0; i < count; i++)
		sorted[i] = shared->samples[(to - count + i) % SAMPLES];
	qsort(sorted, count, sizeof *sorted, by_value);
	*median = (double)sorted[count / 2] * 1e3;
	*p99 = (double)sorted[count * 99 / 100] * 1e3;
	free(sorted);
}
