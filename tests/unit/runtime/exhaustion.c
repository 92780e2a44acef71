/* SPDX-License-Identifier: Apache-2.0
 *
 * No memory: each call that allocates is made again and again, and each time the next allocation in it fails (the program is
 * linked with --wrap). It must say so by its code, leave nothing behind, and succeed once nothing fails.
 */
#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "runtime_test.h"

/* How many allocations of this thread still succeed; negative: all. Other threads' always do. */
static _Thread_local int left = -1;
static _Thread_local int failed;

static bool fails(void)
{
	if (left < 0 || left-- > 0)
		return false;
	left = -1; /* one failure is enough: what cleans up may allocate */
	failed++;
	return true;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	return fails() ? NULL : __real_realloc(old, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
	return fails() ? NULL : __real_aligned_alloc(alignment, size);
}

/* Do `call` with the first, second, ... allocation failing, until it succeeds. At least `least` of them did. */
#define EACH_FAILURE(least, call) \
	do { \
		enum ty_code code_; \
		int times_ = 0; \
		failed = 0; \
		do { \
			left = times_; \
			code_ = (call); \
			left = -1; \
			if (failed > times_) { \
				assert_int_equal(code_, TY_NO_MEMORY); \
				times_++; \
			} \
		} while (code_ != TY_OK); \
		assert_true(times_ >= (least)); \
	} while (0)

struct nothing {
	int unused;
};

static const struct ty_class cls = {.name = "nothing", .state_size = sizeof(struct nothing)};

static void stalled(void *user, const struct ty_stall *stall)
{
	(void)user;
	(void)stall;
}

static void test_create(void **unused)
{
	struct ty_runtime_options real = {.size = sizeof real, .workers = 2, .stall_us = 1000000, .stalled = stalled};
	struct ty_runtime_options simulated = {.size = sizeof simulated, .seed = 1};
	struct ty_runtime *rt = NULL;
	struct ty_error err;

	(void)unused;
	EACH_FAILURE(5, ty_runtime_create(&real, &rt, &err));
	ty_runtime_destroy(rt);
	EACH_FAILURE(3, ty_runtime_create(&simulated, &rt, &err));
	ty_runtime_destroy(rt);
}

static void test_spawn(void **unused)
{
	struct ty_spawn_options dedicated = {.size = sizeof dedicated, .executor = TY_DEDICATED, .cpu = -1};
	struct ty_runtime *rt = make_runtime(1);
	struct ty_runtime_stats stats;
	struct ty_actor *a, *b;

	(void)unused;
	EACH_FAILURE(2, ty_spawn(rt, &cls, NULL, NULL, &a)); /* the actor, the registry's first chunk */
	EACH_FAILURE(3, ty_spawn(rt, &cls, NULL, &dedicated, &b)); /* the actor, its thread, a seat */
	ty_runtime_stats(rt, &stats);
	assert_int_equal(stats.actors, 2);
	ty_actor_unref(a);
	ty_actor_unref(b);
	ty_runtime_destroy(rt);
}

/* Of address space, now. */
static rlim_t address_space(void)
{
	int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC); /* not stdio: it wants memory */
	char text[32] = "";

	if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
		abort();
	close(fd);
	return (rlim_t)strtoul(text, NULL, 10) * (rlim_t)sysconf(_SC_PAGESIZE);
}

/* ty_name with only `bytes` more of address space, and all used up that is free of what there is. */
static enum ty_code name_within(struct ty_actor *a, const char *name, rlim_t bytes)
{
	struct rlimit before, few;
	void *first = NULL, **taken;
	enum ty_code code;

	getrlimit(RLIMIT_AS, &before);
	few = (struct rlimit){address_space() + 65536, before.rlim_max};
	setrlimit(RLIMIT_AS, &few);
	for (size_t size = 65536; size >= 64; size /= 2) {
		while ((taken = malloc(size))) {
			*taken = first;
			first = taken;
		}
	}
	few.rlim_cur = address_space() + bytes;
	setrlimit(RLIMIT_AS, &few);
	code = ty_name(a, name);
	setrlimit(RLIMIT_AS, &before);
	for (; first; first = taken) {
		taken = *(void **)first;
		free(first);
	}
	return code;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true /* it takes address space as it likes */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

/* liburcu ends the process where it finds no memory for a table, or for its thread. In a process whose first name this is. */
static void test_first_name(void **unused)
{
	struct ty_runtime *rt;
	struct ty_actor *a, *found;

	(void)unused;
	if (SANITIZED)
		skip();
	rt = make_runtime(1);
	a = spawn(rt, &cls, NULL, TY_POOL);
	assert_int_equal(name_within(a, "first", 4096), TY_NO_MEMORY);
	assert_int_equal(name_within(a, "first", 1 << 20), TY_NO_MEMORY);
	assert_int_equal(ty_find(rt, "first", &found), TY_CLOSED);
	assert_int_equal(ty_name(a, "first"), TY_OK);
	assert_int_equal(ty_find(rt, "first", &found), TY_OK);
	ty_actor_unref(found);
	ty_actor_unref(a);
	ty_runtime_destroy(rt);
}

static void test_names(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct ty_actor *a = spawn(rt, &cls, NULL, TY_POOL), *found;

	(void)unused;
	EACH_FAILURE(4, ty_name(a, "one"));
	EACH_FAILURE(1, ty_name(a, "two"));
	assert_int_equal(ty_find(rt, "two", &found), TY_OK);
	ty_actor_unref(found);
	ty_actor_unref(a);
	ty_runtime_destroy(rt);
}

static bool keep(void *user, const char *text, size_t length)
{
	(void)text;
	*(size_t *)user += length;
	return true;
}

static void test_ports_and_blocks(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct ty_runtime_stats stats;
	struct ty_port *port;
	size_t length = 0;
	void *block;

	(void)unused;
	EACH_FAILURE(3, ty_port_open(rt, NULL, &port));
	ty_port_enter(port);
	EACH_FAILURE(2, ty_block_new(100, &block)); /* the pools, a slab */
	ty_port_leave(port);
	ty_block_free(block);
	ty_runtime_stats(rt, &stats);
	assert_int_equal(stats.blocks, 0);
	EACH_FAILURE(2, ty_runtime_trace(rt, keep, &length));
	assert_true(length > 0);
	ty_port_close(port);
	ty_runtime_destroy(rt);
}

/* ---- a supervisor's own memory, and its children's ---- */

enum { DOWN = 1 };

struct watcher {
	struct ty_monitor monitor;
	enum ty_code *reason;
};
struct watcher_arg {
	struct ty_actor *watched;
	enum ty_code reason;
};

static enum ty_code watcher_start(void *self, void *arg)
{
	struct watcher *watcher = self;
	struct watcher_arg *a = arg;

	watcher->reason = &a->reason;
	ty_monitor(a->watched, &watcher->monitor, DOWN);
	return TY_OK;
}

static void watcher_down(void *self, struct ty_msg *msg)
{
	*((struct watcher *)self)->reason = ty_container_of(msg, struct ty_monitor, msg)->reason;
}

static const struct ty_handler watcher_handlers[] = {{"down", watcher_down}};
static const struct ty_class watcher_class = {.name = "watcher", .state_size = sizeof(struct watcher),
	.first_type = DOWN, .type_count = 1, .handlers = watcher_handlers, .start = watcher_start};

static void test_supervisor(void **unused)
{
	static const struct ty_child children[] = {{.name = "a", .cls = &cls}, {.name = "b", .cls = &cls}};
	struct watcher_arg arg = {.reason = TY_NO_MEMORY};
	int times = 0;

	(void)unused;
	while (arg.reason == TY_NO_MEMORY) {
		struct ty_runtime_options options = {.size = sizeof options, .seed = 9};
		struct ty_supervisor_options supervised = {.size = sizeof supervised, .children = children, .child_count = 2,
			.max_restarts = 3, .window = 1000000000};
		struct ty_actor *watcher;

		assert_int_equal(ty_runtime_create(&options, &supervised.rt, NULL), TY_OK);
		arg.watched = spawn(supervised.rt, ty_supervisor(), &supervised, TY_POOL);
		watcher = spawn(supervised.rt, &watcher_class, &arg, TY_POOL);
		arg.reason = TY_OK;
		left = times++;
		while (ty_runtime_step(supervised.rt))
			;
		left = -1;
		ty_actor_unref(arg.watched);
		ty_actor_unref(watcher);
		ty_runtime_destroy(supervised.rt);
	}
	assert_int_equal(arg.reason, TY_OK);
	assert_true(times > 6); /* its table, the ring; two actors, the names' table, two names */
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_name),
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_spawn),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_ports_and_blocks),
		cmocka_unit_test(test_supervisor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
