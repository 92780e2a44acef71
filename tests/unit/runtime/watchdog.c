/* SPDX-License-Identifier: Apache-2.0
 *
 * The watchdog names a handler that blocks on a pipe which the test holds, while it blocks.
 */
#include <stdlib.h>
#include <unistd.h>

#include "runtime_test.h"

enum { READ = 1, QUICK };

struct seen {
	struct gate calls;
	struct ty_stall last;
};

static int pipe_fds[2];
static struct gate quick, passed, stopped;

static void on_read(void *self, struct ty_msg *msg)
{
	char byte;

	(void)self;
	(void)msg;
	assert_int_equal(read(pipe_fds[0], &byte, 1), 1);
	gate_open(&passed);
}

static void on_quick(void *self, struct ty_msg *msg)
{
	(void)self;
	(void)msg;
	gate_open(&quick);
}

static const struct ty_handler handlers[] = {{"read", on_read}, {"quick", on_quick}};
static const struct ty_class blocker = {.name = "blocker", .first_type = READ, .type_count = 2, .handlers = handlers};

static const struct ty_class second = {.name = "second", .first_type = READ, .type_count = 2, .handlers = handlers};

static enum ty_code start_blocks(void *self, void *arg)
{
	(void)arg;
	on_read(self, NULL);
	return TY_OK;
}

static void stop_blocks(void *self)
{
	on_read(self, NULL);
	gate_open(&stopped);
}

static int64_t poll_blocks(void *self, int64_t now)
{
	(void)now;
	on_read(self, NULL);
	return TY_NEVER;
}

static const struct ty_class starter = {.name = "starter", .start = start_blocks};
static const struct ty_class stopper = {.name = "stopper", .stop = stop_blocks};
static const struct ty_class poller = {.name = "poller", .poll = poll_blocks};

static void on_stall(void *user, const struct ty_stall *stall)
{
	struct seen *seen = user;

	if (strcmp(stall->message, "quick") == 0)
		return; /* on a machine that was busy elsewhere in the middle of it: true, and not what is tested */
	seen->last = *stall;
	gate_open(&seen->calls);
}

static struct ty_runtime *watched(struct seen *seen, uint32_t workers)
{
	struct ty_runtime_options options = {.size = sizeof options, .workers = workers, .stall_us = 2000,
		.stalled = on_stall, .stalled_user = seen};
	struct ty_runtime *rt;

	*seen = (struct seen){0};
	assert_int_equal(pipe(pipe_fds), 0);
	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	return rt;
}

/* One that blocks goes on; returns when it did, so that the next cannot take its byte. */
static void let_go(void)
{
	uint32_t before = atomic_load(&passed.open);

	assert_int_equal(write(pipe_fds[1], "x", 1), 1);
	gate_wait_for(&passed, before + 1);
}

static void unwatched(struct ty_runtime *rt)
{
	ty_runtime_destroy(rt);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

static void expect(const struct seen *seen, uint32_t calls, const char *actor, const char *message)
{
	gate_wait_for(&seen->calls, calls);
	assert_string_equal(seen->last.actor, actor);
	assert_string_equal(seen->last.message, message);
	assert_true(seen->last.age > 2000000);
}

static void names_a_message(enum ty_executor executor)
{
	struct seen seen;
	struct ty_runtime *rt = watched(&seen, 1);
	struct ty_actor *actor = spawn(rt, &blocker, NULL, executor);
	struct ty_msg msgs[2] = {TY_MSG_INIT}, after = TY_MSG_INIT;

	atomic_store(&quick.open, 0);
	assert_int_equal(ty_send(actor, &msgs[0], READ), TY_OK);
	assert_int_equal(ty_send(actor, &after, QUICK), TY_OK);
	expect(&seen, 1, "blocker", "read");
	assert_false(gate_is_open(&quick)); /* it blocks still, and was named meanwhile */
	let_go();
	gate_wait(&quick);
	/* the next time it blocks is another stall; that the first was named once is seen by the count */
	assert_int_equal(ty_send(actor, &msgs[1], READ), TY_OK);
	expect(&seen, 2, "blocker", "read");
	let_go();
	ty_actor_unref(actor);
	unwatched(rt);
	assert_int_equal(atomic_load(&seen.calls.open), 2);
}

static void test_names_a_pooled_message(void **unused)
{
	(void)unused;
	names_a_message(TY_POOL);
}

static void test_names_a_dedicated_message(void **unused)
{
	(void)unused;
	names_a_message(TY_DEDICATED);
}

static void test_names_start_poll_and_stop(void **unused)
{
	struct seen seen;
	struct ty_runtime *rt = watched(&seen, 1);
	struct ty_actor *actor;

	(void)unused;
	ty_actor_unref(spawn(rt, &starter, NULL, TY_POOL));
	expect(&seen, 1, "starter", "start");
	let_go();
	ty_actor_unref(spawn(rt, &poller, NULL, TY_DEDICATED));
	expect(&seen, 2, "poller", "poll");
	let_go();
	actor = spawn(rt, &stopper, NULL, TY_POOL);
	ty_actor_stop(actor);
	ty_actor_unref(actor);
	expect(&seen, 3, "stopper", "stop");
	let_go();
	gate_wait(&stopped);
	unwatched(rt);
}

/* Two threads blocked at once are two stalls. When the second is named, the watchdog has looked at the first more than once. */
static void test_names_each_thread(void **unused)
{
	struct seen seen;
	struct ty_runtime *rt = watched(&seen, 2);
	struct ty_actor *actors[2];
	struct ty_msg msgs[2] = {TY_MSG_INIT};

	(void)unused;
	for (int i = 0; i < 2; i++) {
		actors[i] = spawn(rt, i ? &second : &blocker, NULL, TY_DEDICATED);
		assert_int_equal(ty_send(actors[i], &msgs[i], READ), TY_OK);
		expect(&seen, (uint32_t)i + 1, i ? "second" : "blocker", "read");
	}
	let_go();
	let_go();
	for (int i = 0; i < 2; i++)
		ty_actor_unref(actors[i]);
	unwatched(rt);
}

static void refused(struct ty_runtime_options options, const char *expected)
{
	struct ty_runtime *rt = NULL;
	struct ty_error err;

	options.size = sizeof options;
	assert_int_equal(ty_runtime_create(&options, &rt, &err), TY_INVALID);
	assert_non_null(strstr(err.text, expected));
	assert_null(rt);
}

static void test_options_that_make_no_sense(void **unused)
{
	(void)unused;
	refused((struct ty_runtime_options){.stall_us = 1000}, "options.stalled null");
	refused((struct ty_runtime_options){.stalled = on_stall}, "options.stall_us is 0");
	refused((struct ty_runtime_options){.stalled = on_stall, .stall_us = 99}, "options.stall_us is 99");
	refused((struct ty_runtime_options){.stalled = on_stall, .stall_us = 3600000001u}, "3600000001");
	refused((struct ty_runtime_options){.stalled = on_stall, .stall_us = 1000, .seed = 1}, "deterministic");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_a_pooled_message),
		cmocka_unit_test(test_names_a_dedicated_message),
		cmocka_unit_test(test_names_start_poll_and_stop),
		cmocka_unit_test(test_names_each_thread),
		cmocka_unit_test(test_options_that_make_no_sense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
