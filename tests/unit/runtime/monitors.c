/* SPDX-License-Identifier: Apache-2.0
 *
 * Monitors, links and failing: each way in which an actor ends, each order of watch, unwatch and death.
 */
#include <stdlib.h>

#include "monitors_house.h"

static int64_t fail_in_poll(void *self, int64_t now)
{
	(void)self;
	(void)now;
	ty_actor_fail(TY_IO);
	return TY_NEVER;
}

static const struct ty_class polling = {.name = "polling", .poll = fail_in_poll};

static void do_link(struct script *s)
{
	ty_link(s->target, &s->watch->monitor);
}

/* The DOWN is in the mailbox already when it is not wanted any more. */
static void do_watch_dead_and_unwatch(struct script *s)
{
	ty_monitor(s->target, &s->watch->monitor, DOWN);
	ty_demonitor(&s->watch->monitor);
	ty_demonitor(&s->watch->monitor);
}

static void do_stop_self(struct script *s)
{
	(void)s;
	ty_actor_stop(ty_self());
}

static bool alive(struct ty_actor *actor)
{
	static struct watch none;
	static struct script nothing;

	nothing = (struct script){.run = do_unwatch, .watch = &none};
	return ty_send(actor, &nothing.msg, RUN) == TY_OK;
}

/* ---- DOWN ---------------------------------------------------------------------------------- */

static void test_reasons(void **unused)
{
	enum ty_code start_code = TY_DENIED;
	struct fixture f;
	struct watch w = make_watch();
	struct script watch = {.run = do_watch, .watch = &w}, fail = {.run = do_fail, .code = TY_DEVICE_FAILED};
	struct ty_actor *failing;

	(void)unused;
	set_up(&f, 1);
	watch.target = f.b; /* stopped */
	run_in(f.a, &watch);
	settle(&f);
	assert_false(ty_monitor_home(&w.monitor));
	assert_int_equal(w.downs, 0);
	ty_actor_stop(f.b);
	settle(&f);
	assert_int_equal(w.downs, 1);
	assert_int_equal(w.reason, TY_OK);

	watch.target = f.c; /* failed; the monitor is used again */
	run_in(f.a, &watch);
	settle(&f);
	run_in(f.c, &fail);
	settle(&f);
	assert_int_equal(w.downs, 2);
	assert_int_equal(w.reason, TY_DEVICE_FAILED);
	assert_int_equal(seen.stopped, 2); /* stop is called after a failure too */

	failing = spawn(f.rt, &cls, &start_code, TY_POOL);
	watch.target = failing; /* whether it has started or not */
	run_in(f.a, &watch);
	settle(&f);
	assert_int_equal(w.downs, 3);
	assert_int_equal(w.reason, TY_DENIED);
	ty_actor_unref(failing);

	failing = spawn(f.rt, &polling, NULL, TY_DEDICATED);
	watch.target = failing;
	run_in(f.a, &watch);
	settle(&f);
	assert_int_equal(w.downs, 4);
	assert_int_equal(w.reason, TY_IO);
	ty_actor_unref(failing);
	assert_int_equal(w.released, 0);
	tear_down(&f);
}

static void test_dead_already(void **unused)
{
	struct fixture f;
	struct watch w = make_watch();
	struct script watch = {.run = do_watch, .watch = &w}, fail = {.run = do_fail, .code = TY_IO};

	(void)unused;
	set_up(&f, 2);
	watch.target = f.b;
	run_in(f.b, &fail);
	settle(&f);
	run_in(f.a, &watch);
	settle(&f);
	assert_int_equal(w.downs, 1);
	assert_int_equal(w.reason, TY_IO);
	tear_down(&f);
}

static void test_after_all_else(void **unused)
{
	(void)unused;
	for (uint64_t seed = 1; seed <= 100; seed++) {
		struct fixture f;
		struct watch w = make_watch();
		struct script watch = {.run = do_watch, .watch = &w};

		set_up(&f, seed);
		watch.target = f.b;
		note_to = f.a;
		run_in(f.a, &watch);
		ty_actor_stop(f.b); /* watched before or after, as the seed has it */
		settle(&f);
		assert_int_equal(w.downs, 1);
		assert_int_equal(seen.notes_at_down, 1); /* what stop sent came first */
		tear_down(&f);
	}
}

static void test_many_watchers(void **unused)
{
	struct fixture f;
	struct watch w[5];
	struct script watch[5];

	(void)unused;
	set_up(&f, 3);
	for (int i = 0; i < 5; i++) {
		w[i] = make_watch();
		watch[i] = (struct script){.run = do_watch, .watch = &w[i], .target = f.b};
		run_in(i % 2 ? f.a : f.c, &watch[i]);
	}
	settle(&f);
	watch[2].run = do_unwatch; /* from the middle */
	run_in(f.c, &watch[2]);
	settle(&f);
	ty_actor_stop(f.b);
	settle(&f);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(w[i].downs, i != 2);
		assert_int_equal(w[i].released, i == 2);
	}
	tear_down(&f);
}

/* ---- no DOWN ------------------------------------------------------------------------------- */

static void test_demonitor(void **unused)
{
	struct fixture f;
	struct watch w = make_watch();
	struct script watch = {.run = do_watch, .watch = &w}, unwatch = {.run = do_unwatch, .watch = &w},
		      both = {.run = do_watch_dead_and_unwatch, .watch = &w};

	(void)unused;
	set_up(&f, 4);
	run_in(f.a, &unwatch); /* nothing to do */
	settle(&f);
	assert_int_equal(w.released, 0);
	both.target = watch.target = f.b;
	run_in(f.a, &watch);
	settle(&f);
	run_in(f.a, &unwatch);
	settle(&f);
	assert_true(ty_monitor_home(&w.monitor));
	assert_int_equal(w.released, 1);
	run_in(f.a, &both); /* the watch is still in b's mailbox */
	settle(&f);
	assert_int_equal(w.released, 2);
	run_in(f.a, &watch); /* and again */
	settle(&f);
	ty_actor_stop(f.b);
	settle(&f);
	assert_int_equal(w.downs, 1);
	run_in(f.a, &both); /* the DOWN is on its way */
	settle(&f);
	assert_int_equal(w.downs, 1);
	assert_int_equal(w.released, 3);
	tear_down(&f);
}

static void test_watcher_dies(void **unused)
{
	(void)unused;
	for (uint64_t seed = 1; seed <= 100; seed++) {
		struct fixture f;
		struct watch w[3] = {make_watch(), make_watch(), make_watch()};
		struct script s[4] = {{.run = do_watch, .watch = &w[0]}, {.run = do_watch, .watch = &w[1]},
			{.run = do_watch, .watch = &w[2]}, {.run = do_stop_self}};

		set_up(&f, seed);
		s[0].target = f.b;
		s[1].target = f.c;
		s[2].target = f.a; /* itself */
		for (int i = 0; i < 4; i++)
			run_in(f.a, &s[i]);
		if (seed % 2)
			ty_actor_stop(f.c);
		settle(&f);
		for (int i = 0; i < 3; i++) /* while b lives */
			assert_int_equal(w[i].downs + w[i].released, 1);
		assert_int_equal(w[0].released, 1);
		assert_int_equal(w[2].released, 1);
		assert_true(alive(f.b));
		tear_down(&f);
	}
}

static void test_destroyed_while_watching(void **unused)
{
	struct fixture f;
	struct watch w = make_watch(), back = make_watch();
	struct script watch = {.run = do_watch, .watch = &w}, other = {.run = do_watch, .watch = &back};

	(void)unused;
	set_up(&f, 5);
	watch.target = f.a;
	other.target = f.c;
	run_in(f.c, &watch);
	run_in(f.a, &other);
	settle(&f);
	tear_down(&f); /* c first, the youngest */
	assert_int_equal(w.downs + w.released, 1);
	assert_int_equal(back.downs, 1);
}

/* ---- links and failing --------------------------------------------------------------------- */

static void test_links(void **unused)
{
	struct fixture f;
	struct watch ab = make_watch(), bc = make_watch(), w = make_watch();
	struct script link_a = {.run = do_link, .watch = &ab}, link_b = {.run = do_link, .watch = &bc},
		      fail = {.run = do_fail, .code = TY_LIMIT};
	struct ty_actor *d;
	struct script watch = {.run = do_watch, .watch = &w};

	(void)unused;
	set_up(&f, 6);
	d = spawn(f.rt, &cls, NULL, TY_POOL);
	link_a.target = f.b;
	link_b.target = f.c;
	watch.target = f.a;
	run_in(f.a, &link_a);
	run_in(f.b, &link_b);
	run_in(d, &watch);
	settle(&f);
	run_in(f.c, &fail); /* takes b along, and that a */
	settle(&f);
	assert_int_equal(w.downs, 1);
	assert_int_equal(w.reason, TY_LIMIT);
	assert_false(alive(f.b));
	assert_int_equal(ab.released + ab.downs, 1);
	assert_int_equal(bc.released + bc.downs, 1);
	ty_actor_unref(d);
	tear_down(&f);
}

static void test_link_to_who_is_stopped(void **unused)
{
	struct fixture f;
	struct watch ab = make_watch(), ac = make_watch();
	struct script b = {.run = do_link, .watch = &ab}, c = {.run = do_link, .watch = &ac},
		      unlink = {.run = do_unwatch, .watch = &ac}, fail = {.run = do_fail, .code = TY_IO};

	(void)unused;
	set_up(&f, 7);
	b.target = f.b;
	c.target = f.c;
	run_in(f.a, &b);
	run_in(f.a, &c);
	settle(&f);
	ty_actor_stop(f.b);
	settle(&f);
	assert_int_equal(ab.released, 1);
	run_in(f.a, &unlink);
	settle(&f);
	run_in(f.c, &fail);
	settle(&f);
	assert_true(alive(f.a));
	tear_down(&f);
}

static void test_fail_refuses_the_rest(void **unused)
{
	struct fixture f;
	struct script fail = {.run = do_fail, .code = TY_IO}, more[3] = {
		{.run = do_stop_self}, {.run = do_stop_self}, {.run = do_stop_self}};

	(void)unused;
	set_up(&f, 8);
	run_in(f.a, &fail);
	for (int i = 0; i < 3; i++)
		run_in(f.a, &more[i]);
	settle(&f);
	assert_int_equal(seen.refused, 3);
	assert_int_equal(more[0].ran, 0);
	assert_int_equal(seen.stopped, 1);
	tear_down(&f);
}

/* ---- who watches one that has closed its mailbox and not ended yet ---- */

enum { WORD = DOWN + 2 };

struct last_words {
	struct gate closed, watched, down;
	struct ty_actor *target, *watcher;
	struct ty_msg word; /* of the target's stop: no DOWN overtakes it */
	bool heard;
	struct ty_monitor monitors[2];
};

static enum ty_code last_words_start(void *self, void *arg)
{
	*(struct last_words **)self = arg;
	return TY_OK;
}

static void last_words_stop(void *self)
{
	struct last_words *l = *(struct last_words **)self;

	gate_open(&l->closed);
	gate_wait(&l->watched); /* another thread's */
	assert_int_equal(ty_send(l->watcher, &l->word, WORD), TY_OK);
}

static void hear(void *self, struct ty_msg *msg)
{
	(void)msg;
	(*(struct last_words **)self)->heard = true;
}

static void watch_late(void *self, struct ty_msg *msg)
{
	struct last_words *l = *(struct last_words **)self;

	(void)msg;
	for (int i = 0; i < 2; i++)
		ty_monitor(l->target, &l->monitors[i], DOWN);
	gate_open(&l->watched);
}

static void down_late(void *self, struct ty_msg *msg)
{
	struct last_words *l = *(struct last_words **)self;

	assert_int_equal(ty_container_of(msg, struct ty_monitor, msg)->reason, TY_OK);
	assert_true(l->heard);
	gate_open(&l->down);
}

static void test_late_watcher(void **unused)
{
	static const struct ty_class dying_class = {.name = "dying", .state_size = sizeof(struct last_words *),
		.start = last_words_start, .stop = last_words_stop};
	static const struct ty_handler hs[] = {[DOWN - DOWN] = {"down", down_late}, [NOTE - DOWN] = {"watch", watch_late},
		[WORD - DOWN] = {"word", hear}};
	static const struct ty_class late_class = {.name = "late", .state_size = sizeof(struct last_words *), .first_type = DOWN,
		.type_count = 3, .handlers = hs, .start = last_words_start};
	struct ty_runtime *rt = make_runtime(1);
	struct last_words l = {.target = NULL};
	struct ty_actor *watcher = spawn(rt, &late_class, &l, TY_POOL);
	struct ty_msg msg = TY_MSG_INIT;

	(void)unused;
	l.watcher = watcher;
	l.target = spawn(rt, &dying_class, &l, TY_DEDICATED);
	ty_actor_stop(l.target);
	gate_wait(&l.closed);
	assert_int_equal(ty_send(watcher, &msg, NOTE), TY_OK);
	gate_wait_for(&l.down, 2);
	ty_actor_unref(l.target);
	ty_actor_unref(watcher);
	ty_runtime_destroy(rt);
}

/* ---- a monitor that nobody releases: the watcher's stop waits until it is home, and may then do with it what it likes ---- */

struct keeper {
	struct ty_actor *target;
	struct ty_monitor *monitor; /* from the heap, without a release */
	struct gate busy, watching, stopping;
};

static enum ty_code keeper_start(void *self, void *arg)
{
	*(struct keeper **)self = arg;
	return TY_OK;
}

static void keeper_watch(void *self, struct ty_msg *msg)
{
	struct keeper *k = *(struct keeper **)self;

	(void)msg;
	ty_monitor(k->target, k->monitor, NOTE);
	gate_open(&k->watching);
}

static void keeper_stop(void *self)
{
	struct keeper *k = *(struct keeper **)self;

	gate_open(&k->stopping);
	while (!ty_monitor_home(k->monitor))
		sched_yield();
	memset(k->monitor, 0xff, sizeof *k->monitor);
	free(k->monitor);
}

static void stay_busy(void *self, struct ty_msg *msg)
{
	struct keeper *k = *(struct keeper **)self;

	(void)msg;
	gate_open(&k->busy);
	gate_wait(&k->stopping);
}

static void test_home_in_stop(void **unused)
{
	static const struct ty_handler watch_handlers[] = {{"watch", keeper_watch}, {"down", keeper_watch}, {"note", keeper_watch}};
	static const struct ty_handler busy_handlers[] = {{"busy", stay_busy}};
	static const struct ty_class keeper_class = {.name = "keeper", .state_size = sizeof(struct keeper *), .first_type = RUN,
		.type_count = 3, .handlers = watch_handlers, .start = keeper_start, .stop = keeper_stop};
	static const struct ty_class busy_class = {.name = "busy", .state_size = sizeof(struct keeper *), .first_type = RUN,
		.type_count = 1, .handlers = busy_handlers, .start = keeper_start};
	struct ty_runtime *rt = make_runtime(2);
	struct ty_runtime_stats stats;

	(void)unused;
	for (int i = 0; i < 200; i++) {
		struct keeper k = {.monitor = calloc(1, sizeof *k.monitor)};
		struct ty_msg busy = TY_MSG_INIT, watch = TY_MSG_INIT;
		struct ty_actor *keeper = spawn(rt, &keeper_class, &k, TY_DEDICATED);

		k.target = spawn(rt, &busy_class, &k, TY_POOL);
		assert_int_equal(ty_send(k.target, &busy, RUN), TY_OK);
		gate_wait(&k.busy);
		assert_int_equal(ty_send(keeper, &watch, RUN), TY_OK);
		gate_wait(&k.watching);
		ty_actor_stop(keeper); /* the target, which is busy until then, gives the monitor back to one that is over */
		ty_actor_unref(keeper);
		gate_wait(&k.stopping);
		ty_actor_stop(k.target);
		ty_actor_unref(k.target);
		do { /* k is theirs until both are over */
			ty_runtime_stats(rt, &stats);
			sched_yield();
		} while (stats.actors);
	}
	ty_runtime_destroy(rt);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reasons),
		cmocka_unit_test(test_dead_already),
		cmocka_unit_test(test_after_all_else),
		cmocka_unit_test(test_many_watchers),
		cmocka_unit_test(test_demonitor),
		cmocka_unit_test(test_watcher_dies),
		cmocka_unit_test(test_destroyed_while_watching),
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_link_to_who_is_stopped),
		cmocka_unit_test(test_fail_refuses_the_rest),
		cmocka_unit_test(test_late_watcher),
		cmocka_unit_test(test_home_in_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
