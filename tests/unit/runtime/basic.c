/* SPDX-License-Identifier: Apache-2.0
 *
 * Spawning, sending, order, stopping: on the pool and on threads of their own.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime_test.h"

enum { PING = 100, LAST, BLOCK, UNHANDLED, TYPE_END };

struct note {
	struct ty_msg msg;
	uint32_t value;
	struct gate *gate; /* BLOCK: wait for it */
	bool refused;
};

/* What an actor did; shared with the test, which looks once the gate `done` is open. */
struct log {
	struct gate entered, done, stopped;
	uint32_t values[64];
	uint32_t count;
	_Atomic uint32_t refused;
	bool started, fail_start, started_before_first, closed_in_stop;
	struct ty_actor *self;
};

struct state {
	struct log *log;
};

static enum ty_code on_start(void *self, void *arg)
{
	struct state *s = self;

	s->log = arg;
	s->log->started = true;
	s->log->self = ty_self();
	return s->log->fail_start ? TY_NO_MEMORY : TY_OK;
}

static void on_ping(void *self, struct ty_msg *msg)
{
	struct state *s = self;
	struct note *note = ty_container_of(msg, struct note, msg);

	if (s->log->count == 0)
		s->log->started_before_first = s->log->started;
	assert_int_equal(msg->type, PING);
	s->log->values[s->log->count++ % 64] = note->value;
}

static void on_last(void *self, struct ty_msg *msg)
{
	struct state *s = self;

	on_ping(self, (msg->type = PING, msg));
	gate_open(&s->log->done);
}

static void on_block(void *self, struct ty_msg *msg)
{
	struct state *s = self;

	gate_open(&s->log->entered);
	gate_wait(ty_container_of(msg, struct note, msg)->gate);
}

static void on_refuse(void *self, struct ty_msg *msg)
{
	struct state *s = self;

	ty_container_of(msg, struct note, msg)->refused = true;
	atomic_fetch_add(&s->log->refused, 1);
}

static void on_stop(void *self)
{
	struct state *s = self;
	struct note late = {.msg = TY_MSG_INIT};

	s->log->closed_in_stop = ty_send(ty_self(), &late.msg, PING) == TY_CLOSED;
	gate_open(&s->log->stopped);
}

static const struct ty_handler handlers[] = {
	{"ping", on_ping}, {"last", on_last}, {"block", on_block}, {"unhandled", NULL}};
static const struct ty_class cls = {
	.name = "basic",
	.state_size = sizeof(struct state),
	.first_type = PING,
	.type_count = TYPE_END - PING,
	.handlers = handlers,
	.start = on_start,
	.stop = on_stop,
	.refuse = on_refuse,
};

static const enum ty_executor executors[] = {TY_POOL, TY_DEDICATED};

static void test_order_and_stop(void **unused)
{
	(void)unused;
	for (int e = 0; e < 2; e++) {
		struct ty_runtime *rt = make_runtime(2);
		struct log log = {0};
		struct note notes[40] = {0};
		struct ty_actor *actor = spawn(rt, &cls, &log, executors[e]);

		for (uint32_t i = 0; i < 40; i++) {
			notes[i].value = i;
			assert_int_equal(ty_send(actor, &notes[i].msg, i < 39 ? PING : LAST), TY_OK);
		}
		gate_wait(&log.done);
		assert_int_equal(log.count, 40);
		for (uint32_t i = 0; i < 40; i++)
			assert_int_equal(log.values[i], i);
		assert_true(log.started_before_first);
		assert_ptr_equal(log.self, actor);
		ty_actor_stop(actor);
		ty_actor_stop(actor);
		gate_wait(&log.stopped);
		assert_true(log.closed_in_stop);
		/* the address stays valid while it is referenced */
		assert_int_equal(ty_send(actor, &notes[0].msg, LAST), TY_CLOSED);
		assert_int_equal(notes[0].msg.flags, 0);
		assert_int_equal(ty_send_urgent(actor, &notes[0].msg, PING), TY_CLOSED);
		ty_actor_unref(ty_actor_ref(actor));
		ty_actor_unref(actor);
		ty_runtime_destroy(rt);
	}
}

/* Blocked, then: 2 ordinary, 2 urgent, stop, 2 more: the urgent ones overtake, what came after the stop is refused. */
static void test_urgent_and_refuse(void **unused)
{
	(void)unused;
	for (int e = 0; e < 2; e++) {
		struct ty_runtime *rt = make_runtime(1);
		struct log log = {0};
		struct gate gate = {0};
		struct note block = {.gate = &gate}, n[6] = {{.value = 0}, {.value = 1}, {.value = 2}, {.value = 3}};
		struct ty_actor *actor = spawn(rt, &cls, &log, executors[e]);
		struct ty_runtime_stats stats;

		assert_int_equal(ty_send(actor, &block.msg, BLOCK), TY_OK);
		gate_wait(&log.entered);
		assert_int_equal(ty_send(actor, &n[0].msg, PING), TY_OK);
		assert_int_equal(ty_send(actor, &n[1].msg, PING), TY_OK);
		assert_int_equal(ty_send_urgent(actor, &n[2].msg, PING), TY_OK);
		assert_int_equal(ty_send_urgent(actor, &n[3].msg, PING), TY_OK);
		ty_actor_stop(actor);
		assert_int_equal(ty_send(actor, &n[4].msg, PING), TY_OK);
		assert_int_equal(ty_send(actor, &n[5].msg, PING), TY_OK);
		gate_open(&gate);
		gate_wait(&log.stopped);
		assert_int_equal(log.count, 4);
		assert_int_equal(log.values[0], 2);
		assert_int_equal(log.values[1], 3);
		assert_int_equal(log.values[2], 0);
		assert_int_equal(log.values[3], 1);
		assert_int_equal(atomic_load(&log.refused), 2);
		assert_true(n[4].refused && n[5].refused && !n[0].refused);
		ty_runtime_stats(rt, &stats);
		assert_int_equal(stats.refused, 2);
		assert_int_equal(stats.messages, 5);
		ty_actor_unref(actor);
		ty_runtime_destroy(rt);
	}
}

static void test_unknown_types_are_refused(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct log log = {0};
	struct note a = {0}, b = {0}, c = {0}, last = {0};
	struct ty_actor *actor = spawn(rt, &cls, &log, TY_POOL);

	(void)unused;
	assert_int_equal(ty_send(actor, &a.msg, PING - 1), TY_OK);
	assert_int_equal(ty_send(actor, &b.msg, TYPE_END), TY_OK);
	assert_int_equal(ty_send(actor, &c.msg, UNHANDLED), TY_OK);
	assert_int_equal(ty_send(actor, &last.msg, LAST), TY_OK);
	gate_wait(&log.done);
	assert_true(a.refused && b.refused && c.refused && !last.refused);
	assert_int_equal(log.count, 1);
	ty_actor_unref(actor);
	ty_runtime_destroy(rt);
	assert_true(gate_is_open(&log.stopped));
}

static void test_failed_start_stops(void **unused)
{
	(void)unused;
	for (int e = 0; e < 2; e++) {
		struct ty_runtime *rt = make_runtime(1);
		struct log log = {.fail_start = true};
		struct ty_actor *actor = spawn(rt, &cls, &log, executors[e]);
		struct note note = {0};
		enum ty_code code = ty_send(actor, &note.msg, PING);

		gate_wait(&log.stopped);
		assert_int_equal(log.count, 0);
		assert_true(code == TY_CLOSED || note.refused);
		assert_int_equal(ty_send(actor, &note.msg, PING), TY_CLOSED);
		ty_actor_unref(actor);
		ty_runtime_destroy(rt);
	}
}

/* Destroy handles what was sent before. */
static void test_destroy_drains(void **unused)
{
	(void)unused;
	for (int e = 0; e < 2; e++) {
		struct ty_runtime *rt = make_runtime(2);
		struct log log = {0};
		struct note notes[30] = {0};
		struct ty_actor *actor = spawn(rt, &cls, &log, executors[e]);

		for (uint32_t i = 0; i < 30; i++)
			assert_int_equal(ty_send(actor, &notes[i].msg, PING), TY_OK);
		ty_actor_unref(actor);
		ty_runtime_destroy(rt);
		assert_int_equal(log.count, 30);
		assert_true(gate_is_open(&log.stopped));
	}
}

/* ---- faults ---- */

struct touch {
	struct ty_msg msg;
	volatile char *page; /* that may not be touched, until the program's handler says so */
	struct gate touched;
	sigset_t blocked;
};

static _Atomic(uint32_t) faults;

static void on_fault(int number, siginfo_t *info, void *context)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);

	(void)number;
	(void)context;
	atomic_fetch_add(&faults, 1);
	mprotect((void *)((uintptr_t)info->si_addr & ~(uintptr_t)(size - 1)), size, PROT_READ | PROT_WRITE);
}

static void on_touch(void *self, struct ty_msg *msg)
{
	struct touch *touch = ty_container_of(msg, struct touch, msg);

	(void)self;
	*touch->page = 1;
	pthread_sigmask(SIG_BLOCK, NULL, &touch->blocked);
	gate_open(&touch->touched);
}

static const struct ty_handler touch_handlers[] = {{"touch", on_touch}};
static const struct ty_class toucher = {.name = "toucher", .first_type = PING, .type_count = 1, .handlers = touch_handlers};

/* A handler's fault is the program's to see to, wherever the handler runs; signals that come from outside are not. */
static void test_faults_are_the_programs(void **unused)
{
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO}, before;
	static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
	static const int outside[] = {SIGTERM, SIGINT, SIGHUP, SIGCHLD, SIGUSR1, SIGALRM, SIGPIPE};
	size_t size = (size_t)sysconf(_SC_PAGESIZE);

	(void)unused;
	assert_int_equal(sigaction(SIGSEGV, &action, &before), 0);
	for (uint32_t e = 0; e < 2; e++) {
		struct ty_runtime *rt = make_runtime(1);
		struct ty_actor *actor = spawn(rt, &toucher, NULL, executors[e]);
		void *page = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		struct touch touch = {.page = page};

		assert_true(page != MAP_FAILED);
		assert_int_equal(ty_send(actor, &touch.msg, PING), TY_OK);
		gate_wait(&touch.touched);
		assert_int_equal(atomic_load(&faults), e + 1);
		for (size_t i = 0; i < sizeof own / sizeof *own; i++)
			assert_int_equal(sigismember(&touch.blocked, own[i]), 0);
		for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
			assert_int_equal(sigismember(&touch.blocked, outside[i]), 1);
		munmap(page, size);
		ty_actor_unref(actor);
		ty_runtime_destroy(rt);
	}
	assert_int_equal(sigaction(SIGSEGV, &before, NULL), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_and_stop),
		cmocka_unit_test(test_urgent_and_refuse),
		cmocka_unit_test(test_unknown_types_are_refused),
		cmocka_unit_test(test_failed_start_stops),
		cmocka_unit_test(test_destroy_drains),
		cmocka_unit_test(test_faults_are_the_programs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
