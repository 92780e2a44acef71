/* SPDX-License-Identifier: Apache-2.0
 *
 * What the runtime's tests share. Handlers signal the test through gates; nothing here measures time,
 * a test that waits in vain is ended by the test runner.
 */
#ifndef TY_RUNTIME_TEST_H
#define TY_RUNTIME_TEST_H

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include <tyer/actor.h>

/* Opened once by one thread, waited for by others; release / acquire. */
struct gate {
	_Atomic(uint32_t) open;
};

static inline void gate_open(struct gate *gate)
{
	atomic_fetch_add_explicit(&gate->open, 1, memory_order_release);
}

static inline bool gate_is_open(const struct gate *gate)
{
	return atomic_load_explicit(&gate->open, memory_order_acquire) != 0;
}

static inline void gate_wait_for(const struct gate *gate, uint32_t count)
{
	while (atomic_load_explicit(&gate->open, memory_order_acquire) < count)
		nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
}

static inline void gate_wait(const struct gate *gate)
{
	gate_wait_for(gate, 1);
}

static inline struct ty_runtime *make_runtime(uint32_t workers)
{
	struct ty_runtime_options options = {.size = sizeof options, .workers = workers, .name = "test"};
	struct ty_runtime *rt = NULL;
	struct ty_error err;

	if (ty_runtime_create(&options, &rt, &err) != TY_OK)
		fail_msg("%s", err.text);
	return rt;
}

static inline struct ty_actor *spawn(struct ty_runtime *rt, const struct ty_class *cls, void *arg, enum ty_executor executor)
{
	struct ty_spawn_options options = {.size = sizeof options, .executor = executor, .cpu = -1};
	struct ty_actor *actor = NULL;

	assert_int_equal(ty_spawn(rt, cls, arg, &options, &actor), TY_OK);
	assert_non_null(actor);
	return actor;
}

#endif
