/* SPDX-License-Identifier: Apache-2.0
 *
 * Dedicated actors: the thread, poll, and a wait of the class's own.
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "runtime_test.h"

#define MS INT64_C(1000000)

enum { NOTE = 1, LAST, TYPE_END };

struct note {
	struct ty_msg msg;
};

struct shared {
	struct gate done, polled, stopped;
	char thread_name[16];
	int cpu;
	bool signals_blocked, self_in_poll, early, wait_without_self;
	int notes, polls, polls_before_note;
	int64_t asked;
	_Atomic(int) waits, wakes, event;
	bool in_wait, message_in_wait;
};

struct state {
	struct shared *shared;
};

static _Atomic(bool) rouser_ends;

static enum ty_code on_start(void *self, void *arg)
{
	struct state *s = self;
	sigset_t blocked;

	s->shared = arg;
	pthread_getname_np(pthread_self(), s->shared->thread_name, sizeof s->shared->thread_name);
	pthread_sigmask(SIG_BLOCK, NULL, &blocked);
	s->shared->signals_blocked = sigismember(&blocked, SIGTERM) && sigismember(&blocked, SIGINT);
	s->shared->cpu = sched_getcpu();
	return TY_OK;
}

static void on_note(void *self, struct ty_msg *msg)
{
	struct shared *shared = ((struct state *)self)->shared;

	(void)msg;
	shared->message_in_wait |= shared->in_wait;
	if (shared->notes++ == 0)
		shared->polls_before_note = shared->polls;
}

static void on_last(void *self, struct ty_msg *msg)
{
	on_note(self, msg);
	gate_open(&((struct state *)self)->shared->done);
}

static void on_stop(void *self)
{
	gate_open(&((struct state *)self)->shared->stopped);
}

static const struct ty_handler handlers[] = {{"note", on_note}, {"last", on_last}};
#define CLASS .name = "a name that is longer", .state_size = sizeof(struct state), .first_type = 1, \
	.type_count = 2, .handlers = handlers, .start = on_start, .stop = on_stop

static const struct ty_class plain = {CLASS};

static void test_thread(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct ty_spawn_options options = {.size = sizeof options, .executor = TY_DEDICATED, .cpu = -1};
	struct shared named = {0}, unnamed = {0}, pinned = {0};
	struct note last[3] = {0};
	struct ty_actor *a, *b, *c;
	cpu_set_t cpus;
	int cpu = 0;

	(void)unused;
	assert_int_equal(sched_getaffinity(0, sizeof cpus, &cpus), 0);
	while (!CPU_ISSET((size_t)cpu, &cpus))
		cpu++;
	assert_int_equal(ty_spawn(rt, &plain, &unnamed, &options, &a), TY_OK);
	options.thread_name = "fifteen letters";
	assert_int_equal(ty_spawn(rt, &plain, &named, &options, &b), TY_OK);
	options.cpu = cpu;
	assert_int_equal(ty_spawn(rt, &plain, &pinned, &options, &c), TY_OK);
	assert_int_equal(ty_send(a, &last[0].msg, LAST), TY_OK);
	assert_int_equal(ty_send(b, &last[1].msg, LAST), TY_OK);
	assert_int_equal(ty_send(c, &last[2].msg, LAST), TY_OK);
	gate_wait(&unnamed.done);
	gate_wait(&named.done);
	gate_wait(&pinned.done);
	assert_string_equal(unnamed.thread_name, "a name that is ");
	assert_string_equal(named.thread_name, "fifteen letters");
	assert_int_equal(pinned.cpu, cpu);
	assert_true(named.signals_blocked && unnamed.signals_blocked);
	ty_actor_unref(a);
	ty_actor_unref(b);
	ty_actor_unref(c);
	ty_runtime_destroy(rt);
}

/* Wants to be called at once, always: messages must get through, and the thread never parks. */
static int64_t poll_at_once(void *self, int64_t now)
{
	struct shared *shared = ((struct state *)self)->shared;

	(void)now;
	shared->self_in_poll = ty_self();
	if (++shared->polls == 100)
		gate_open(&shared->polled);
	return 0;
}

static void test_poll_at_once(void **unused)
{
	static const struct ty_class cls = {CLASS, .poll = poll_at_once};
	struct ty_runtime *rt = make_runtime(1);
	struct shared shared = {0};
	struct note note = {0};
	struct ty_actor *actor = spawn(rt, &cls, &shared, TY_DEDICATED);

	(void)unused;
	gate_wait(&shared.polled); /* without any message */
	assert_int_equal(ty_send(actor, &note.msg, LAST), TY_OK);
	gate_wait(&shared.done);
	ty_actor_stop(actor);
	gate_wait(&shared.stopped);
	assert_true(shared.polls_before_note >= 100);
	assert_true(shared.self_in_poll);
	ty_actor_unref(actor);
	ty_runtime_destroy(rt);
}

/* Three times after a millisecond, then only after a message. */
static int64_t poll_later(void *self, int64_t now)
{
	struct shared *shared = ((struct state *)self)->shared;

	shared->early |= now < shared->asked;
	shared->asked = 0;
	gate_open(&shared->polled);
	if (++shared->polls > 3)
		return TY_NEVER;
	return shared->asked = now + MS;
}

static void test_poll_later_and_never(void **unused)
{
	static const struct ty_class cls = {CLASS, .poll = poll_later};
	struct ty_runtime *rt = make_runtime(1);
	struct shared shared = {0};
	struct note note = {0};
	struct ty_actor *actor = spawn(rt, &cls, &shared, TY_DEDICATED);

	(void)unused;
	gate_wait_for(&shared.polled, 4);
	assert_false(shared.early);
	shared.notes = 0;
	assert_int_equal(ty_send(actor, &note.msg, LAST), TY_OK);
	gate_wait_for(&shared.polled, 5); /* after the message */
	ty_actor_unref(actor);
	ty_runtime_destroy(rt);
	assert_int_equal(shared.polls_before_note, 4); /* never meant never */
}

/* ---- roused ---- */

static int64_t poll_never(void *self, int64_t now)
{
	(void)now;
	gate_open(&((struct state *)self)->shared->polled);
	return TY_NEVER;
}

static struct ty_runtime *make_spinning(uint32_t spin_us)
{
	struct ty_runtime_options options = {.size = sizeof options, .workers = 1, .name = "test", .spin_us = spin_us};
	struct ty_runtime *rt;

	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	return rt;
}

static const struct ty_class sleeper = {CLASS, .poll = poll_never};

/* It wakes up, finds nothing, and sleeps again; however often. */
static void test_roused(void **unused)
{
	struct ty_runtime *rt = make_spinning(10);
	struct shared shared = {0};
	struct note note = {0};
	struct ty_actor *actor = spawn(rt, &sleeper, &shared, TY_DEDICATED);

	(void)unused;
	gate_wait(&shared.polled);
	for (uint32_t seen = 0, times = 0; times < 20;) { /* before it sleeps it is not roused */
		uint32_t now = atomic_load(&shared.polled.open);

		times += now != seen;
		seen = now;
		ty_actor_rouse(actor);
		nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
	}
	assert_int_equal(ty_send(actor, &note.msg, LAST), TY_OK);
	gate_wait(&shared.done);
	ty_actor_stop(actor);
	gate_wait(&shared.stopped);
	ty_actor_rouse(actor); /* it is over: nothing happens */
	ty_runtime_destroy(rt);
	ty_actor_rouse(actor);
	ty_actor_unref(actor);
}

static void *rouse_always(void *arg)
{
	struct ty_actor *actor = arg;

	while (ty_actor_rouse(actor), !atomic_load(&rouser_ends))
		sched_yield();
	return NULL;
}

/* Beside messages, which come by ones, so that it sleeps in between: none is lost, and none comes twice. */
static void test_roused_and_sent_to(void **unused)
{
	enum { NOTES = 2000 };
	static struct note notes[NOTES];
	struct ty_runtime *rt = make_spinning(10);
	struct shared shared = {0};
	struct ty_actor *actor = spawn(rt, &sleeper, &shared, TY_DEDICATED);
	pthread_t rouser;

	(void)unused;
	atomic_store(&rouser_ends, false);
	assert_int_equal(pthread_create(&rouser, NULL, rouse_always, actor), 0);
	for (uint32_t i = 0; i < NOTES; i++) {
		assert_int_equal(ty_send(actor, &notes[i].msg, LAST), TY_OK);
		if (i % 4 == 3)
			gate_wait_for(&shared.done, i + 1);
	}
	gate_wait_for(&shared.done, NOTES);
	atomic_store(&rouser_ends, true);
	pthread_join(rouser, NULL);
	ty_actor_unref(actor);
	ty_runtime_destroy(rt);
	assert_int_equal(shared.notes, NOTES);
}

/* Who need not be roused, or cannot be. */
static void test_not_roused(void **unused)
{
	struct ty_runtime *few = make_spinning(9), *rt = make_spinning(10);
	struct shared shared = {0}, pooled = {0};
	struct ty_actor *actor = spawn(few, &sleeper, &shared, TY_DEDICATED), *pool = spawn(rt, &plain, &pooled, TY_POOL);
	struct note note = {0}, other = {0};
	uint32_t polls;

	(void)unused;
	gate_wait(&shared.polled); /* its first turn is over: else the message may be in it, and there is no second */
	assert_int_equal(ty_send(actor, &note.msg, LAST), TY_OK);
	gate_wait(&shared.done);
	gate_wait_for(&shared.polled, 2); /* the last that it does before it sleeps, for good */
	polls = atomic_load(&shared.polled.open);
	for (int i = 0; i < 20; i++) {
		ty_actor_rouse(actor);
		ty_actor_rouse(pool);
		nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
	}
	assert_in_range(atomic_load(&shared.polled.open), polls, polls + 1); /* one may have been on its way */
	assert_int_equal(ty_send(pool, &other.msg, LAST), TY_OK);
	gate_wait(&pooled.done);
	ty_actor_unref(actor);
	ty_actor_unref(pool);
	ty_runtime_destroy(few);
	ty_runtime_destroy(rt);
}

/* ---- a wait of its own ---- */

static void own_wait(void *self, int64_t deadline)
{
	struct shared *shared = ((struct state *)self)->shared;
	struct pollfd fd = {.fd = atomic_load(&shared->event), .events = POLLIN};
	uint64_t count;
	int64_t left = deadline == TY_NEVER ? -1 : (deadline - ty_now()) / MS + 1;

	shared->in_wait = true;
	shared->wait_without_self |= !ty_self();
	atomic_fetch_add(&shared->waits, 1);
	poll(&fd, 1, (int)(left < -1 ? 0 : left));
	if (read(fd.fd, &count, sizeof count) < 0)
		count = 0;
	shared->in_wait = false;
}

static void own_wake(void *self)
{
	struct shared *shared = ((struct state *)self)->shared;
	uint64_t one = 1;

	atomic_fetch_add(&shared->wakes, 1);
	assert_int_equal(write(atomic_load(&shared->event), &one, sizeof one), sizeof one);
}

static void test_own_wait(void **unused)
{
	static const struct ty_class cls = {CLASS, .wait = {own_wait, own_wake}};
	struct ty_runtime *rt = make_runtime(1);
	struct shared shared = {.event = eventfd(0, EFD_NONBLOCK)};
	struct note notes[20] = {0};
	struct ty_actor *actor = spawn(rt, &cls, &shared, TY_DEDICATED);

	(void)unused;
	for (int i = 0; i < 19; i++) {
		int waits = atomic_load(&shared.waits);

		assert_int_equal(ty_send(actor, &notes[i].msg, NOTE), TY_OK);
		while (atomic_load(&shared.waits) == waits && i < 10) /* each wakes it anew */
			sched_yield();
	}
	assert_int_equal(ty_send(actor, &notes[19].msg, LAST), TY_OK);
	gate_wait(&shared.done);
	ty_actor_stop(actor);
	gate_wait(&shared.stopped);
	assert_int_equal(shared.notes, 20);
	assert_false(shared.message_in_wait);
	assert_false(shared.wait_without_self);
	assert_true(atomic_load(&shared.wakes) >= 1);
	assert_true(atomic_load(&shared.wakes) <= atomic_load(&shared.waits) + 1); /* the last may find it gone */
	ty_actor_unref(actor);
	ty_runtime_destroy(rt);
	close(atomic_load(&shared.event));
}

/* Threads that have ended are joined by the next spawn or at the end; their places are used again. */
static void test_many_short_lives(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct ty_runtime_stats stats;

	(void)unused;
	for (int i = 0; i < 200; i++) {
		struct shared shared = {0};
		struct note note = {0};
		struct ty_actor *actor = spawn(rt, &plain, &shared, TY_DEDICATED);

		assert_int_equal(ty_send(actor, &note.msg, LAST), TY_OK);
		ty_actor_stop(actor);
		gate_wait(&shared.stopped);
		assert_int_equal(shared.notes, 1);
		ty_actor_unref(actor);
	}
	ty_runtime_stats(rt, &stats);
	assert_int_equal(stats.messages, 200); /* also of those that have ended */
	ty_runtime_destroy(rt);
}

/* ---- a sender is in its wake, while the actor ends ---- */

struct slow {
	struct gate waits, woken, let_go, handled, stopped;
	_Atomic(bool) too_early;
};

static enum ty_code slow_start(void *self, void *arg)
{
	*(struct slow **)self = arg;
	return TY_OK;
}

static void slow_wait(void *self, int64_t deadline)
{
	struct slow *slow = *(struct slow **)self;

	(void)deadline;
	gate_open(&slow->waits);
	gate_wait(&slow->woken);
}

static void slow_wake(void *self)
{
	struct slow *slow = *(struct slow **)self;

	gate_open(&slow->woken); /* the wait ends */
	gate_wait(&slow->let_go);
}

static void slow_end(void *self, struct ty_msg *msg)
{
	(void)msg;
	gate_open(&(*(struct slow **)self)->handled);
	ty_actor_end();
}

static void slow_stop(void *self)
{
	struct slow *slow = *(struct slow **)self;

	atomic_store(&slow->too_early, !gate_is_open(&slow->let_go)); /* what it closes now, wake may be about to touch */
	gate_open(&slow->stopped);
}

struct slow_sender {
	struct ty_actor *actor;
	struct ty_msg msg;
};

static void *send_slowly(void *arg)
{
	struct slow_sender *sender = arg;

	assert_int_equal(ty_send(sender->actor, &sender->msg, 1), TY_OK);
	return NULL;
}

static void test_it_ends_once_nobody_is_in_its_wake(void **unused)
{
	static const struct ty_handler hs[] = {{"end", slow_end}};
	static const struct ty_class slow_class = {.name = "slow", .state_size = sizeof(struct slow *), .first_type = 1,
		.type_count = 1, .handlers = hs, .start = slow_start, .stop = slow_stop, .wait = {slow_wait, slow_wake}};
	struct ty_runtime *rt = make_runtime(1);
	struct slow slow = {0};
	struct slow_sender sender = {.actor = spawn(rt, &slow_class, &slow, TY_DEDICATED)};
	pthread_t thread;

	(void)unused;
	gate_wait(&slow.waits);
	assert_int_equal(pthread_create(&thread, NULL, send_slowly, &sender), 0);
	gate_wait(&slow.handled);
	for (int i = 0; i < 200 && !gate_is_open(&slow.stopped); i++) /* it has time to be wrong; if it is right, it waits */
		nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
	gate_open(&slow.let_go);
	gate_wait(&slow.stopped);
	assert_false(atomic_load(&slow.too_early));
	pthread_join(thread, NULL);
	ty_actor_unref(sender.actor);
	ty_runtime_destroy(rt);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_thread),
		cmocka_unit_test(test_poll_at_once),
		cmocka_unit_test(test_poll_later_and_never),
		cmocka_unit_test(test_roused),
		cmocka_unit_test(test_roused_and_sent_to),
		cmocka_unit_test(test_not_roused),
		cmocka_unit_test(test_own_wait),
		cmocka_unit_test(test_many_short_lives),
		cmocka_unit_test(test_it_ends_once_nobody_is_in_its_wake),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
