/* SPDX-License-Identifier: Apache-2.0
 *
 * A thread that is none of the runtime's (the program's, or another runtime's) has sent what ends the last actor, and is held up before ty_send returns: the actor runs,
 * all is over, and the runtime is destroyed meanwhile. The program is linked so that the test stands behind the push.
 */
#include <pthread.h>
#include <sched.h>

#include "runtime/runtime.h"
#include "runtime_test.h"

enum { END = 1, FORWARD };

static _Thread_local bool held; /* this thread is the sender */
static struct gate pushed;
static _Atomic(bool) destroyed, too_early;
static struct ty_runtime *stopped; /* what the sender looks at while it is held: it is in the midst of using it */

void __real_ty_runq_push(struct ty_runq *q, struct ty_actor *actor);
void __wrap_ty_runq_push(struct ty_runq *q, struct ty_actor *actor);

void __wrap_ty_runq_push(struct ty_runq *q, struct ty_actor *actor)
{
	__real_ty_runq_push(q, actor);
	if (!held)
		return;
	gate_open(&pushed);
	while (!atomic_load(&destroyed) && !atomic_load(&stopped->joining))
		sched_yield(); /* until the workers are to end, which is the last before all is freed; or it was */
	for (int i = 0; i < 100; i++)
		sched_yield();
	too_early = atomic_load(&destroyed);
}

static void on_end(void *self, struct ty_msg *msg)
{
	(void)self;
	(void)msg;
	ty_actor_end();
}

static const struct ty_handler handlers[] = {{"end", on_end}};
static const struct ty_class cls = {.name = "last", .first_type = END, .type_count = 1, .handlers = handlers};

struct sender {
	struct ty_actor *to;
	struct ty_msg msg;
	struct ty_msg forward; /* has an actor of another runtime send it */
};

static void *send_the_last(void *arg)
{
	struct sender *sender = arg;

	held = true;
	assert_int_equal(ty_send(sender->to, &sender->msg, END), TY_OK);
	return NULL;
}

static void on_forward(void *self, struct ty_msg *msg)
{
	(void)self;
	send_the_last(ty_container_of(msg, struct sender, forward));
	held = false;
	ty_actor_end();
}

static const struct ty_handler forwarding[] = {{"forward", on_forward}};
static const struct ty_class forwarder = {
	.name = "forwarder", .first_type = FORWARD, .type_count = 1, .handlers = forwarding};

static bool sleeps(const struct ty_actor *actor)
{
	return atomic_load(&actor->box.word) == TY_BOX_IDLE;
}

static void destroy_beside_a_send(bool by_an_actor)
{
	for (int i = 0; i < 20; i++) {
		struct ty_runtime *rt = make_runtime(1), *elsewhere = by_an_actor ? make_runtime(1) : NULL;
		struct sender sender = {.to = spawn(rt, &cls, NULL, TY_POOL)};
		struct ty_actor *other = spawn(rt, &cls, NULL, TY_POOL); /* its stop wakes the worker */
		pthread_t thread;

		stopped = rt;
		atomic_store(&destroyed, false);
		atomic_store(&pushed.open, 0);
		while (!sleeps(sender.to) || !sleeps(other)) /* so that the send schedules it */
			sched_yield();
		if (by_an_actor) {
			struct ty_actor *actor = spawn(elsewhere, &forwarder, NULL, TY_POOL);

			assert_int_equal(ty_send(actor, &sender.forward, FORWARD), TY_OK);
			ty_actor_unref(actor);
		} else {
			assert_int_equal(pthread_create(&thread, NULL, send_the_last, &sender), 0);
		}
		gate_wait(&pushed);
		ty_runtime_destroy(rt);
		atomic_store(&destroyed, true);
		if (by_an_actor)
			ty_runtime_destroy(elsewhere);
		else
			pthread_join(thread, NULL);
		assert_false(too_early); /* what ty_send still had to do was done in freed memory */
		ty_actor_unref(sender.to);
		ty_actor_unref(other);
	}
}

static void test_destroy_waits_for_a_send(void **unused)
{
	(void)unused;
	destroy_beside_a_send(false);
}

static void test_destroy_waits_for_another_runtime(void **unused)
{
	(void)unused;
	destroy_beside_a_send(true);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_destroy_waits_for_a_send),
		cmocka_unit_test(test_destroy_waits_for_another_runtime),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
