/* SPDX-License-Identifier: Apache-2.0
 *
 * Timers: on the pool, on threads of their own, and when an actor moves from worker to worker. What a
 * case does is in its first message; each ends with a message of its own, never by waiting a while.
 */
#include <pthread.h>

#include "runtime/runtime.h"
#include "runtime_test.h"

#define MS INT64_C(1000000)
#define HOUR (INT64_C(3600) * 1000 * MS)

enum { IN_ORDER = 1, CANCELLED, REPLACED, REARM, FAR, NEAR, BLOCK, TICK_A, TICK_B, TICK_C, AGAIN, CHECK, TYPE_END };

struct note {
	struct ty_msg msg;
};

struct shared {
	struct gate done, stopped, blocked, unblock;
	int ticks[3], again, checks;
	int order[3], fired;
	bool early;
	pthread_t armed_on, moved_to;
	struct ty_actor *other;
	struct note block;
};

struct state {
	struct shared *shared;
	struct ty_timer a, b, c;
	struct note check;
	int64_t deadline[3];
};

static enum ty_code on_start(void *self, void *arg)
{
	((struct state *)self)->shared = arg;
	return TY_OK;
}

static void on_stop(void *self)
{
	struct state *s = self;

	ty_timer_start(&s->c, TICK_C, 0); /* comes to nothing */
	gate_open(&s->shared->stopped);
}

static void arm(struct state *s, struct ty_timer *timer, uint32_t type, int64_t deadline)
{
	s->deadline[type - TICK_A] = deadline;
	ty_timer_start(timer, type, deadline);
}

static void on_in_order(void *self, struct ty_msg *msg)
{
	struct state *s = self;
	int64_t now = ty_now();

	(void)msg;
	arm(s, &s->b, TICK_B, now + 2 * MS);
	arm(s, &s->c, TICK_C, now + 3 * MS);
	arm(s, &s->a, TICK_A, now + MS);
}

static void tick(struct state *s, int i)
{
	if (ty_now() < s->deadline[i])
		s->shared->early = true;
	s->shared->ticks[i]++;
	if (s->shared->fired < 3)
		s->shared->order[s->shared->fired] = i;
	s->shared->fired++;
	if (s->shared->fired == 3)
		gate_open(&s->shared->done);
}

/* Both are due at once; the first to come cancels the other, which is on its way then. */
static void on_cancelled(void *self, struct ty_msg *msg)
{
	struct state *s = self;

	(void)msg;
	ty_timer_start(&s->a, AGAIN, 1);
	ty_timer_start(&s->b, AGAIN, 2);
	ty_timer_start(&s->c, TICK_C, ty_now() + HOUR);
}

static void on_again(void *self, struct ty_msg *msg)
{
	struct state *s = self;

	s->shared->again++;
	assert_ptr_equal(msg, &s->a.msg);
	ty_timer_cancel(&s->b);
	ty_timer_cancel(&s->b);
	ty_timer_cancel(&s->a); /* not armed: nothing */
	ty_timer_cancel(&s->c);
	memset(&s->b, 0xa5, sizeof s->b); /* nobody looks at it any more */
	assert_int_equal(ty_send(ty_self(), &s->check.msg, CHECK), TY_OK);
}

/* A second start replaces the first, also one that is due already, and the type with it. */
static void on_replaced(void *self, struct ty_msg *msg)
{
	struct state *s = self;

	(void)msg;
	ty_timer_start(&s->a, TICK_A, ty_now() + HOUR);
	ty_timer_start(&s->a, REARM, 0);
	ty_timer_start(&s->b, TICK_B, 0);
}

static void on_rearm(void *self, struct ty_msg *msg)
{
	struct state *s = self;

	(void)msg;
	ty_timer_start(&s->b, CHECK, ty_now() + MS);
	ty_timer_start(&s->c, TICK_C, TY_NEVER);
}

static void on_check(void *self, struct ty_msg *msg)
{
	struct state *s = self;

	(void)msg;
	s->shared->checks++;
	gate_open(&s->shared->done);
}

/* Arms on this worker, then gives it a message that keeps it busy. */
static void on_far(void *self, struct ty_msg *msg)
{
	struct state *s = self;

	(void)msg;
	s->shared->armed_on = pthread_self();
	arm(s, &s->a, TICK_A, ty_now() + HOUR);
	assert_int_equal(ty_send(s->shared->other, &s->shared->block.msg, BLOCK), TY_OK);
}

static void on_near(void *self, struct ty_msg *msg)
{
	struct state *s = self;

	(void)msg;
	s->shared->moved_to = pthread_self();
	ty_timer_start(&s->a, CHECK, ty_now() + MS);
	gate_open(&s->shared->unblock);
}

static void on_block(void *self, struct ty_msg *msg)
{
	struct state *s = self;

	(void)msg;
	gate_open(&s->shared->blocked);
	gate_wait(&s->shared->unblock);
}

static void on_tick_a(void *self, struct ty_msg *msg)
{
	(void)msg;
	tick(self, 0);
}

static void on_tick_b(void *self, struct ty_msg *msg)
{
	(void)msg;
	tick(self, 1);
}

static void on_tick_c(void *self, struct ty_msg *msg)
{
	(void)msg;
	tick(self, 2);
}

static const struct ty_handler handlers[] = {
	{"in order", on_in_order}, {"cancelled", on_cancelled}, {"replaced", on_replaced}, {"rearm", on_rearm},
	{"far", on_far}, {"near", on_near}, {"block", on_block}, {"tick a", on_tick_a}, {"tick b", on_tick_b},
	{"tick c", on_tick_c}, {"again", on_again}, {"check", on_check}};
static const struct ty_class cls = {
	.name = "timers",
	.state_size = sizeof(struct state),
	.first_type = 1,
	.type_count = TYPE_END - 1,
	.handlers = handlers,
	.start = on_start,
	.stop = on_stop,
};

static const enum ty_executor executors[] = {TY_POOL, TY_DEDICATED};

static void run_case(uint32_t type, enum ty_executor executor, struct shared *shared)
{
	struct ty_runtime *rt = make_runtime(2);
	struct ty_actor *actor = spawn(rt, &cls, shared, executor);
	struct note note = {0};

	assert_int_equal(ty_send(actor, &note.msg, type), TY_OK);
	gate_wait(&shared->done);
	ty_actor_unref(actor);
	ty_runtime_destroy(rt);
	assert_true(gate_is_open(&shared->stopped));
}

static void test_fire_in_order_and_not_early(void **unused)
{
	(void)unused;
	for (int e = 0; e < 2; e++) {
		struct shared shared = {0};

		run_case(IN_ORDER, executors[e], &shared);
		assert_int_equal(shared.fired, 3);
		for (int i = 0; i < 3; i++)
			assert_int_equal(shared.order[i], i);
		assert_false(shared.early);
	}
}

static void test_cancelled_never_arrives(void **unused)
{
	(void)unused;
	for (int e = 0; e < 2; e++) {
		struct shared shared = {0};

		run_case(CANCELLED, executors[e], &shared);
		assert_int_equal(shared.again, 1);
		assert_int_equal(shared.checks, 1);
		assert_int_equal(shared.fired, 0);
	}
}

static void test_replaced_never_arrives(void **unused)
{
	(void)unused;
	for (int e = 0; e < 2; e++) {
		struct shared shared = {0};

		run_case(REPLACED, executors[e], &shared);
		assert_int_equal(shared.ticks[0], 0);
		assert_true(shared.ticks[1] <= 1); /* before REARM, or replaced by it */
		assert_int_equal(shared.checks, 1);
	}
}

/* The alarm is in one worker's heap, the actor runs on another and wants it earlier. */
static void test_earlier_on_another_worker(void **unused)
{
	(void)unused;
	for (int round = 0; round < 20; round++) {
		struct ty_runtime *rt = make_runtime(2);
		struct shared shared = {0};
		struct note far = {0}, near = {0};
		struct ty_actor *actor = spawn(rt, &cls, &shared, TY_POOL);

		shared.other = spawn(rt, &cls, &shared, TY_POOL);
		/* idle, so that the worker that sends to it has it in its own ring */
		while (atomic_load(&shared.other->box.word) != TY_BOX_IDLE)
			sched_yield();
		assert_int_equal(ty_send(actor, &far.msg, FAR), TY_OK);
		gate_wait(&shared.blocked);
		assert_int_equal(ty_send(actor, &near.msg, NEAR), TY_OK);
		gate_wait(&shared.done);
		assert_int_equal(shared.checks, 1);
		assert_int_equal(shared.ticks[0], 0);
		assert_false(pthread_equal(shared.armed_on, shared.moved_to));
		ty_actor_unref(actor);
		ty_actor_unref(shared.other);
		ty_runtime_destroy(rt);
	}
}

/* An actor that stops with an alarm in another worker's heap leaves nothing behind (seen by ASan). */
static void test_stop_with_armed_timers(void **unused)
{
	struct ty_runtime *rt = make_runtime(2);

	(void)unused;
	for (int round = 0; round < 50; round++) {
		struct shared shared = {0};
		struct note note = {0};
		struct ty_actor *actor = spawn(rt, &cls, &shared, executors[round % 2]);

		assert_int_equal(ty_send(actor, &note.msg, CANCELLED), TY_OK);
		ty_actor_stop(actor);
		gate_wait(&shared.stopped);
		ty_actor_unref(actor);
	}
	ty_runtime_destroy(rt);
}

/* ---- a timer that is nobody's state: started where nothing comes of it, then by another ---- */

enum { USE = 1, USED };

struct user {
	struct ty_timer *timer;
	struct gate *used;
	bool ends; /* starts it at its end */
};

static enum ty_code user_start(void *self, void *arg)
{
	*(struct user **)self = arg;
	return TY_OK;
}

static void on_use(void *self, struct ty_msg *msg)
{
	struct user *user = *(struct user **)self;

	(void)msg;
	ty_timer_start(user->timer, USED, 0);
}

static void on_used(void *self, struct ty_msg *msg)
{
	(void)msg;
	gate_open((*(struct user **)self)->used);
}

static void user_stop(void *self)
{
	struct user *user = *(struct user **)self;

	if (!user->ends)
		return;
	ty_timer_start(user->timer, USED, HOUR);
	gate_open(user->used);
}

static void test_what_stop_starts_is_dropped(void **unused)
{
	static const struct ty_handler user_handlers[] = {{"use", on_use}, {"used", on_used}};
	static const struct ty_class user_class = {.name = "user", .state_size = sizeof(struct user *), .first_type = USE,
		.type_count = 2, .handlers = user_handlers, .start = user_start, .stop = user_stop};
	struct ty_runtime *rt = make_runtime(1);
	struct ty_timer timer = {0};
	struct gate used = {0};
	struct user first = {&timer, &used, true}, second = {&timer, &used, false};
	struct ty_actor *actor = spawn(rt, &user_class, &first, TY_POOL);
	struct ty_msg msg = TY_MSG_INIT;

	(void)unused;
	ty_actor_stop(actor);
	gate_wait(&used); /* one worker: it is through with the first before it runs the second */
	ty_actor_unref(actor);
	actor = spawn(rt, &user_class, &second, TY_POOL);
	assert_int_equal(ty_send(actor, &msg, USE), TY_OK); /* an assertion, were it another's still */
	gate_wait_for(&used, 2);
	ty_actor_unref(actor);
	ty_runtime_destroy(rt);
}

/* ---- deadlines that have passed ---- */

enum { PASSED = 4 };

struct past {
	struct ty_timer timers[PASSED];
	struct past_seen *seen;
};
struct past_seen {
	struct gate done;
	int order[PASSED], count;
};

static void on_past(void *self, struct ty_msg *msg)
{
	struct past *p = self;

	p->seen->order[p->seen->count++] = (int)(ty_container_of(msg, struct ty_timer, msg) - p->timers);
	gate_open(&p->seen->done);
}

static enum ty_code past_start(void *self, void *arg)
{
	struct past *p = self;

	p->seen = arg;
	ty_timer_start(&p->timers[2], USE, ty_now());
	ty_timer_start(&p->timers[1], USE, -1);
	ty_timer_start(&p->timers[3], USE, ty_now() + 1);
	ty_timer_start(&p->timers[0], USE, INT64_MIN);
	return TY_OK;
}

/* At once, the one that should have been first before the others. */
static void test_the_past_is_at_once(void **unused)
{
	static const struct ty_handler hs[] = {{"past", on_past}};
	static const struct ty_class cls_past = {.name = "past", .state_size = sizeof(struct past), .first_type = USE,
		.type_count = 1, .handlers = hs, .start = past_start};

	(void)unused;
	for (int e = 0; e < 2; e++) {
		struct ty_runtime *rt = make_runtime(1);
		struct past_seen seen = {0};
		struct ty_actor *actor = spawn(rt, &cls_past, &seen, executors[e]);

		gate_wait_for(&seen.done, PASSED);
		for (int i = 0; i < PASSED; i++)
			assert_int_equal(seen.order[i], i);
		ty_actor_unref(actor);
		ty_runtime_destroy(rt);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fire_in_order_and_not_early),
		cmocka_unit_test(test_the_past_is_at_once),
		cmocka_unit_test(test_cancelled_never_arrives),
		cmocka_unit_test(test_replaced_never_arrives),
		cmocka_unit_test(test_earlier_on_another_worker),
		cmocka_unit_test(test_stop_with_armed_timers),
		cmocka_unit_test(test_what_stop_starts_is_dropped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
