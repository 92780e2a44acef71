/* SPDX-License-Identifier: Apache-2.0
 *
 * No allocation in steady state: every call that allocates is counted (the program is linked with --wrap), and once all is
 * set up and warm there must be none, whatever is sent, asked, armed, watched, found and received.
 */
#include <malloc.h>
#include <stdlib.h>

#include "runtime_test.h"

static _Atomic(uint64_t) allocations; /* by any thread; relaxed */

#define COUNT() atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed)
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
	COUNT();
	return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	COUNT();
	return __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	COUNT();
	return __real_realloc(old, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
	COUNT();
	return __real_aligned_alloc(alignment, size);
}

enum { NOTE = 1, ASK, ROUND, REPLY, TIME, DOWN };
enum { WARM = 300, ROUNDS = 3000 };

struct note {
	struct ty_msg msg;
	uint64_t numbers[20];
};
TY_MESSAGE(note, NOTE, struct note)
struct question {
	struct ty_request request;
};
TY_REQUEST(question, ASK, struct question)

struct world {
	struct ty_runtime *rt;
	struct ty_actor *sink, *pool, *dedicated;
	struct gate warm, done;
	uint64_t at_warm, at_done;
	_Atomic(uint32_t) received;
	bool allocates; /* to see that it is counted */
};

/* ---- the other end: takes notes, sends their memory home, answers ---- */

struct sink {
	struct world *world;
};

static enum ty_code sink_start(void *self, void *arg)
{
	((struct sink *)self)->world = arg;
	return TY_OK;
}

static void on_note(struct sink *self, struct note *note)
{
	atomic_fetch_add(&self->world->received, 1);
	ty_block_free(note);
}
TY_HANDLER(note, on_note, struct sink)

static void on_question(struct sink *self, struct question *question)
{
	(void)self;
	ty_reply(&question->request, TY_OK);
}
TY_HANDLER(question, on_question, struct sink)

static const struct ty_handler sink_handlers[] = {{"note", on_note_run}, {"question", on_question_run}};
static const struct ty_class sink_class = {.name = "sink", .state_size = sizeof(struct sink), .first_type = NOTE,
	.type_count = 2, .handlers = sink_handlers, .start = sink_start};

/* ---- one that does everything, once a round ---- */

struct busy {
	struct world *world;
	struct ty_msg next;
	struct question question;
	struct ty_timer timer;
	struct ty_ticker ticker;
	struct ty_monitor monitor;
	struct ty_credits credits;
	uint32_t rounds;
};

static enum ty_code busy_start(void *self, void *arg)
{
	struct busy *b = self;

	b->world = arg;
	assert_int_equal(ty_credits_init(&b->credits, 1, 100), TY_OK);
	return ty_send(ty_self(), &b->next, ROUND);
}

static void send_note(struct ty_actor *to)
{
	void *note;

	if (ty_block_new(sizeof(struct note), &note) == TY_OK && note_send(to, note) != TY_OK)
		ty_block_free(note);
}

static void on_round(void *self, struct ty_msg *msg)
{
	struct busy *b = self;
	struct world *world = b->world;
	struct ty_actor *found;

	(void)msg;
	if (b->rounds++ == WARM) {
		world->at_warm = atomic_load(&allocations);
		if (world->allocates)
			free(*(void *volatile *)&(void *){malloc(b->rounds)}); /* not optimized away */
	} else if (b->rounds == ROUNDS) {
		world->at_done = atomic_load(&allocations);
		ty_timer_cancel(&b->timer);
		ty_ticker_cancel(&b->ticker);
		gate_open(&world->done);
		return;
	}
	for (int i = 0; i < 3; i++) {
		send_note(world->pool);
		send_note(world->dedicated);
	}
	ty_timer_start(&b->timer, TIME, ty_now() + 1000);
	ty_ticker_start(&b->ticker, TIME, ty_now(), 1000000);
	if (ty_monitor_home(&b->monitor))
		ty_monitor(world->pool, &b->monitor, DOWN);
	else
		ty_demonitor(&b->monitor);
	assert_int_equal(ty_find(world->rt, "sink", &found), TY_OK);
	ty_actor_unref(found);
	assert_int_equal(ty_credits_take(&b->credits, 10), TY_OK);
	ty_credits_give(&b->credits, 10);
	assert_int_equal(question_ask(b->rounds % 2 ? world->pool : world->dedicated, &b->question, REPLY,
		ty_now() + 1000000000), TY_OK);
}

static void on_reply(void *self, struct ty_msg *msg)
{
	struct busy *b = self;

	(void)msg;
	assert_int_equal(ty_send_urgent(ty_self(), &b->next, ROUND), TY_OK);
}

static void on_time(void *self, struct ty_msg *msg)
{
	(void)self;
	(void)msg;
}

static const struct ty_handler busy_handlers[] = {
	{"round", on_round}, {"reply", on_reply}, {"time", on_time}, {"down", on_time}};
static const struct ty_class busy_class = {.name = "busy", .state_size = sizeof(struct busy), .first_type = ROUND,
	.type_count = 4, .handlers = busy_handlers, .start = busy_start};

static void run(struct world *world, enum ty_executor executor)
{
	struct ty_actor *busy;

	world->rt = make_runtime(1); /* each thread warms up by itself: with two, the second may come late */
	world->pool = spawn(world->rt, &sink_class, world, TY_POOL);
	world->dedicated = spawn(world->rt, &sink_class, world, TY_DEDICATED);
	assert_int_equal(ty_name(world->pool, "sink"), TY_OK);
	busy = spawn(world->rt, &busy_class, world, executor);
	gate_wait(&world->done);
	ty_runtime_destroy(world->rt);
	ty_actor_unref(busy);
	ty_actor_unref(world->pool);
	ty_actor_unref(world->dedicated);
	assert_true(atomic_load(&world->received) > 0);
}

static void test_none_on_the_send_path(void **unused)
{
	(void)unused;
	for (int executor = 0; executor < 2; executor++) {
		struct world world = {0};

		run(&world, executor ? TY_DEDICATED : TY_POOL);
		assert_true(world.at_warm > 0);
		assert_int_equal(world.at_done - world.at_warm, 0);
	}
}

static void test_one_would_be_seen(void **unused)
{
	struct world world = {.allocates = true};

	(void)unused;
	run(&world, TY_POOL);
	assert_int_equal(world.at_done - world.at_warm, 1);
}

/* A foreign thread with a port. */
static void test_none_in_a_port(void **unused)
{
	struct world world = {0};
	struct ty_port *port;
	struct question question = {0};
	uint64_t before = 0;

	(void)unused;
	world.rt = make_runtime(1);
	world.pool = spawn(world.rt, &sink_class, &world, TY_POOL);
	assert_int_equal(ty_port_open(world.rt, NULL, &port), TY_OK);
	for (int i = 0; i < 1000; i++) {
		if (i == 100)
			before = atomic_load(&allocations);
		ty_port_enter(port);
		send_note(world.pool);
		assert_int_equal(question_ask(world.pool, &question, REPLY, TY_NEVER), TY_OK);
		ty_port_leave(port);
		assert_ptr_equal(question_of_reply(ty_port_wait(port, TY_NEVER)), &question);
	}
	assert_int_equal(atomic_load(&allocations) - before, 0);
	ty_port_close(port);
	ty_actor_unref(world.pool);
	ty_runtime_destroy(world.rt);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_none_on_the_send_path),
		cmocka_unit_test(test_one_would_be_seen),
		cmocka_unit_test(test_none_in_a_port),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
