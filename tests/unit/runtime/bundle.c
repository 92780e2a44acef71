/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages that are sent as one.
 */
#include "runtime_test.h"

enum { NOTE = 1, OTHER };
#define N 20
#define ALL (2 * N + 2)

struct note {
	struct ty_msg msg;
	uint32_t value;
};

static struct gate handled, stopped;
static uint32_t values[ALL], types[ALL]; /* in the order of handling; the receiver's until `handled` says so */

static void on_note(void *self, struct ty_msg *msg)
{
	uint32_t i = atomic_load(&handled.open);

	(void)self;
	values[i] = ty_container_of(msg, struct note, msg)->value;
	types[i] = msg->type;
	gate_open(&handled);
}

static void on_stop(void *self)
{
	(void)self;
	gate_open(&stopped);
}

static const struct ty_handler handlers[] = {{"note", on_note}, {"other", on_note}};
static const struct ty_class cls = {
	.name = "reader", .first_type = NOTE, .type_count = 2, .handlers = handlers, .stop = on_stop};

static void fill(struct ty_bundle *bundle, struct note *notes, uint32_t from, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		notes[i] = (struct note){.value = from + i};
		ty_bundle_add(bundle, &notes[i].msg, (from + i) % 3 ? NOTE : OTHER);
	}
}

/* Bundles and a single message, whether the actor sleeps or runs meanwhile: the order is that of sending. */
static void send_all(struct ty_actor *actor, struct note notes[ALL])
{
	struct ty_bundle bundle = {0};

	atomic_store(&handled.open, 0);
	assert_int_equal(ty_send_bundle(actor, &bundle), TY_OK); /* empty */
	fill(&bundle, notes, 0, N);
	assert_int_equal(ty_send_bundle(actor, &bundle), TY_OK);
	assert_null(bundle.newest);
	notes[N] = (struct note){.value = N};
	assert_int_equal(ty_send(actor, &notes[N].msg, NOTE), TY_OK);
	fill(&bundle, notes + N + 1, N + 1, N); /* the same bundle again */
	assert_int_equal(ty_send_bundle(actor, &bundle), TY_OK);
	fill(&bundle, notes + 2 * N + 1, 2 * N + 1, 1); /* of one */
	assert_int_equal(ty_send_bundle(actor, &bundle), TY_OK);
}

static void check_order(void)
{
	for (uint32_t i = 0; i < ALL; i++) {
		assert_int_equal(values[i], i);
		assert_int_equal(types[i], i % 3 || i == N ? NOTE : OTHER);
	}
}

static void in_real_time(enum ty_executor executor)
{
	struct ty_runtime *rt = make_runtime(2);
	struct ty_actor *actor = spawn(rt, &cls, NULL, executor);
	struct ty_actor_stats stats;
	struct note notes[ALL];

	for (int round = 0; round < 100; round++) {
		send_all(actor, notes);
		gate_wait_for(&handled, ALL);
		check_order();
	}
	ty_actor_stats(actor, &stats);
	assert_int_equal(stats.messages, 100 * ALL);
	ty_actor_unref(actor);
	ty_runtime_destroy(rt);
}

static void test_order(void **unused)
{
	(void)unused;
	in_real_time(TY_POOL);
	in_real_time(TY_DEDICATED);
}

static void test_order_in_a_simulation(void **unused)
{
	(void)unused;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct ty_runtime_options options = {.size = sizeof options, .seed = seed};
		struct ty_actor *actor;
		struct ty_runtime *rt;
		struct note notes[ALL];

		assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
		actor = spawn(rt, &cls, NULL, seed % 2 ? TY_POOL : TY_DEDICATED);
		send_all(actor, notes);
		while (ty_runtime_step(rt))
			;
		assert_int_equal(atomic_load(&handled.open), ALL);
		check_order();
		ty_actor_unref(actor);
		ty_runtime_destroy(rt);
	}
}

static void test_closed_gives_all_back(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct ty_actor *actor = spawn(rt, &cls, NULL, TY_POOL);
	struct note notes[N];
	struct ty_bundle bundle = {0};

	(void)unused;
	atomic_store(&handled.open, 0);
	atomic_store(&stopped.open, 0);
	ty_actor_stop(actor);
	gate_wait(&stopped);
	fill(&bundle, notes, 0, N);
	assert_int_equal(ty_send_bundle(actor, &bundle), TY_CLOSED);
	assert_int_equal(ty_send_bundle(actor, &bundle), TY_CLOSED); /* nothing has changed */
	for (uint32_t i = N; i-- > 0;)
		assert_ptr_equal(ty_bundle_take(&bundle), &notes[i].msg);
	assert_null(ty_bundle_take(&bundle));
	assert_int_equal(atomic_load(&handled.open), 0);
	assert_int_equal(ty_send(actor, &notes[0].msg, NOTE), TY_CLOSED); /* they may be sent again */
	ty_actor_unref(actor);
	ty_runtime_destroy(rt);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_order_in_a_simulation),
		cmocka_unit_test(test_closed_gives_all_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
