/* SPDX-License-Identifier: Apache-2.0
 *
 * What is misuse of the library at large: each ends in the assertion that names it. Requests and monitors have their own
 * beside their tests.
 */
#include <pthread.h>
#include <stdlib.h>

#include "misuse.h"
#include "runtime_test.h"

enum { RUN = 1, TICK, UNKNOWN = 99 };

/* A piece of a test that runs in an actor. */
struct script {
	struct ty_msg msg;
	void (*run)(void);
};

static struct ty_runtime *rt; /* the child's alone */
static struct ty_actor *one, *other;
static struct ty_msg msg;
static struct ty_timer timer;
static struct ty_ticker ticker;

static void on_run(void *self, struct ty_msg *message)
{
	(void)self;
	ty_container_of(message, struct script, msg)->run();
}

static void on_tick(void *self, struct ty_msg *message)
{
	(void)self;
	(void)message;
}

static const struct ty_handler handlers[] = {{"run", on_run}, {"tick", on_tick}};
static const struct ty_class cls = {.name = "script", .first_type = RUN, .type_count = 2, .handlers = handlers};

static void set_up(void)
{
	struct ty_runtime_options options = {.size = sizeof options, .seed = 5};

	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	one = spawn(rt, &cls, NULL, TY_POOL);
	other = spawn(rt, &cls, NULL, TY_POOL);
}

static void settle(void)
{
	while (ty_runtime_step(rt))
		;
}

static void in_actor(struct ty_actor *actor, void (*run)(void))
{
	struct script script = {.run = run};

	assert_int_equal(ty_send(actor, &script.msg, RUN), TY_OK);
	settle();
}

static void in_one(void (*run)(void))
{
	set_up();
	in_actor(one, run);
}

static void in_a_thread(void *(*run)(void *))
{
	pthread_t thread;

	set_up();
	assert_int_equal(pthread_create(&thread, NULL, run, NULL), 0);
	pthread_join(thread, NULL);
}

/* ---- messages ---- */

static void send_twice(void)
{
	set_up();
	assert_int_equal(ty_send(one, &msg, TICK), TY_OK);
	(void)!ty_send(other, &msg, TICK);
}

static void send_what_is_in_a_bundle(void)
{
	struct ty_bundle bundle = {0};

	set_up();
	ty_bundle_add(&bundle, &msg, TICK);
	(void)!ty_send(one, &msg, TICK);
}

static void bundle_what_is_sent(void)
{
	struct ty_bundle bundle = {0};

	set_up();
	assert_int_equal(ty_send(one, &msg, TICK), TY_OK);
	ty_bundle_add(&bundle, &msg, TICK);
}

static void misfit_outside(void)
{
	ty_message_misfit(&msg, 24);
}

static void test_messages(void **unused)
{
	(void)unused;
	misuse(send_twice, "TY_MSG_QUEUED");
	misuse(send_what_is_in_a_bundle, "TY_MSG_QUEUED");
	misuse(bundle_what_is_sent, "QUEUED");
	misuse(misfit_outside, "self");
}

/* ---- time ---- */

static void do_start(void)
{
	ty_timer_start(&timer, TICK, TY_NEVER - 1);
}

static void start_outside(void)
{
	set_up();
	do_start();
}

static void cancel_outside(void)
{
	set_up();
	ty_timer_cancel(&timer);
}

static void do_cancel(void)
{
	ty_timer_cancel(&timer);
}

static void cancel_anothers(void)
{
	struct script scripts[2] = {{.run = do_start}, {.run = do_cancel}};

	set_up();
	assert_int_equal(ty_send(one, &scripts[0].msg, RUN), TY_OK);
	assert_true(ty_runtime_step(rt) && ty_runtime_step(rt));
	assert_int_equal(ty_send(other, &scripts[1].msg, RUN), TY_OK);
	settle();
}

static void do_start_unknown(void)
{
	ty_timer_start(&timer, UNKNOWN, 0);
}

static void start_unknown(void)
{
	in_one(do_start_unknown);
}

static void do_tick_always(void)
{
	ty_ticker_start(&ticker, TICK, 0, 0);
}

static void tick_always(void)
{
	in_one(do_tick_always);
}

static void now_outside(void)
{
	ty_now();
}

static void test_time(void **unused)
{
	(void)unused;
	misuse(start_outside, "ty_current->self");
	misuse(cancel_outside, "ty_current->self");
	misuse(cancel_anothers, "core->owner");
	misuse(start_unknown, "type_count");
	misuse(tick_always, "period > 0");
	misuse(now_outside, "ty_current");
}

/* ---- memory, admission ---- */

static void new_outside(void)
{
	void *block;

	(void)!ty_block_new(8, &block);
}

static void do_free_twice(void)
{
	void *block;

	assert_int_equal(ty_block_new(100, &block), TY_OK);
	ty_block_free(block);
	ty_block_free(block);
}

static void free_twice(void)
{
	in_one(do_free_twice);
}

static void free_no_block(void)
{
	uint64_t words[8] = {0};

	ty_block_free(&words[4]);
}

static void give_more(void)
{
	struct ty_credits credits;

	assert_int_equal(ty_credits_init(&credits, 2, 100), TY_OK);
	assert_int_equal(ty_credits_take(&credits, 10), TY_OK);
	ty_credits_give(&credits, 11);
}

static void give_twice(void)
{
	struct ty_credits credits;

	assert_int_equal(ty_credits_init(&credits, 2, 100), TY_OK);
	assert_int_equal(ty_credits_take(&credits, 0), TY_OK);
	ty_credits_give(&credits, 0);
	ty_credits_give(&credits, 0);
}

static void test_memory(void **unused)
{
	(void)unused;
	misuse(new_outside, "ty_current->self");
	misuse(free_twice, "IN_USE");
	misuse(free_no_block, "IN_USE");
	misuse(give_more, "were_taken");
	misuse(give_twice, "were_taken");
}

/* ---- ports ---- */

static struct ty_port *open_port(bool polled)
{
	struct ty_port_options options = {.size = sizeof options, .polled = polled};
	struct ty_port *port;

	rt = make_runtime(1);
	assert_int_equal(ty_port_open(rt, &options, &port), TY_OK);
	return port;
}

static void enter_twice(void)
{
	struct ty_port *port = open_port(false);

	ty_port_enter(port);
	ty_port_enter(port);
}

static void receive_within(void)
{
	struct ty_port *port = open_port(false);

	ty_port_enter(port);
	(void)!ty_port_receive(port);
}

static void leave_unentered(void)
{
	ty_port_leave(open_port(false));
}

static void wait_for_a_polled_one(void)
{
	(void)!ty_port_wait(open_port(true), TY_NEVER);
}

static void wait_without_time(void)
{
	struct ty_port *port;

	set_up();
	assert_int_equal(ty_port_open(rt, NULL, &port), TY_OK);
	(void)!ty_port_wait(port, TY_NEVER);
}

static void destroy_with_a_port(void)
{
	open_port(false);
	ty_runtime_destroy(rt);
}

static void end_a_port(void)
{
	ty_port_enter(open_port(false));
	ty_actor_end();
}

static void fail_a_port(void)
{
	ty_port_enter(open_port(false));
	ty_actor_fail(TY_IO);
}

static void link_a_port(void)
{
	struct ty_port *port = open_port(false);
	static struct ty_monitor link;

	one = spawn(rt, &cls, NULL, TY_POOL);
	ty_port_enter(port);
	ty_link(one, &link);
}

static void test_ports(void **unused)
{
	(void)unused;
	misuse(end_a_port, "ty_current->reader");
	misuse(fail_a_port, "ty_current->reader");
	misuse(link_a_port, "ty_current->reader");
	misuse(enter_twice, "port->entered");
	misuse(receive_within, "port->entered");
	misuse(leave_unentered, "port->entered");
	misuse(wait_for_a_polled_one, "port->fd >= 0");
	misuse(wait_without_time, "sim");
	misuse(destroy_with_a_port, "ports");
}

/* ---- the runtime ---- */

static void do_destroy(void)
{
	ty_runtime_destroy(rt);
}

static void destroy_from_a_handler(void)
{
	in_one(do_destroy);
}

static void do_stop(void)
{
	(void)!ty_runtime_stop(rt, 0, 0, NULL);
}

static void stop_from_a_handler(void)
{
	in_one(do_stop);
}

static void do_step(void)
{
	ty_runtime_step(rt);
}

static void step_from_a_handler(void)
{
	in_one(do_step);
}

static void step_in_real_time(void)
{
	ty_runtime_step(make_runtime(1));
}

static void *run_step(void *unused)
{
	(void)unused;
	ty_runtime_step(rt);
	return NULL;
}

static void step_on_another_thread(void)
{
	in_a_thread(run_step);
}

static void *run_spawn(void *unused)
{
	(void)unused;
	spawn(rt, &cls, NULL, TY_POOL);
	return NULL;
}

static void spawn_on_another_thread(void)
{
	in_a_thread(run_spawn);
}

static void *run_send(void *unused)
{
	(void)unused;
	(void)!ty_send(one, &msg, TICK);
	return NULL;
}

static void send_on_another_thread(void)
{
	pthread_t thread;

	set_up();
	settle(); /* it sleeps: it would have to be scheduled */
	assert_int_equal(pthread_create(&thread, NULL, run_send, NULL), 0);
	pthread_join(thread, NULL);
}

static void test_the_runtime(void **unused)
{
	(void)unused;
	misuse(destroy_from_a_handler, "ty_current->rt != rt");
	misuse(stop_from_a_handler, "ty_current->rt != rt");
	misuse(step_from_a_handler, "sim->thread.self");
	misuse(step_in_real_time, "rt->sim");
	misuse(step_on_another_thread, "sim->owner");
	misuse(spawn_on_another_thread, "sim->owner");
	misuse(send_on_another_thread, "sim->owner");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_messages),
		cmocka_unit_test(test_time),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_ports),
		cmocka_unit_test(test_the_runtime),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
