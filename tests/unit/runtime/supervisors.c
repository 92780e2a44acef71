/* SPDX-License-Identifier: Apache-2.0
 *
 * Supervisors: who is started again, in which order, how often, and what happens then. All in deterministic mode.
 */
#include <stdlib.h>
#include <string.h>

#include "runtime_test.h"

#define SECOND INT64_C(1000000000)

enum { FAIL = 1, DOWN, NOTE };

/* What the children did, as a string: "+a" started, "-a" stopped. */
struct world {
	struct ty_runtime *rt;
	char log[4096];
	struct ty_actor *child[4];   /* the present addresses, by told */
	int started, ended, given_up, alive, alive_most;
	enum ty_code last_reason;
	bool fails_to_start;
	uint64_t restarts;
	struct ty_msg fail[4];
	enum ty_code over;           /* how the supervisor ended; -1: not yet */
};

struct child_arg {
	struct world *world;
	char letter;
};

struct child {
	struct child_arg arg;
};

static void note(struct world *world, char what, char who)
{
	size_t length = strlen(world->log);

	assert_true(length + 3 < sizeof world->log);
	world->log[length] = what;
	world->log[length + 1] = who;
}

static enum ty_code on_start(void *self, void *arg)
{
	struct child *child = self;

	child->arg = *(struct child_arg *)arg;
	note(child->arg.world, '+', child->arg.letter);
	child->arg.world->alive++;
	return child->arg.world->fails_to_start && child->arg.letter == 'b' ? TY_IO : TY_OK;
}

static void on_fail(void *self, struct ty_msg *msg)
{
	(void)self;
	(void)msg;
	ty_actor_fail(TY_DEVICE_FAILED);
}

static void on_stop(void *self)
{
	struct child *child = self;

	note(child->arg.world, '-', child->arg.letter);
	child->arg.world->alive--;
}

static const struct ty_handler handlers[] = {{"fail", on_fail}};
static const struct ty_class cls = {.name = "child", .state_size = sizeof(struct child), .first_type = FAIL,
	.type_count = 1, .handlers = handlers, .start = on_start, .stop = on_stop};

static void told(void *user, const struct ty_supervision *event)
{
	struct world *world = user;

	switch (event->kind) {
	case TY_CHILD_STARTED:
		world->started++;
		world->child[event->child] = event->actor;
		world->restarts = event->restarts;
		break;
	case TY_CHILD_ENDED:
		world->ended++;
		assert_ptr_equal(world->child[event->child], event->actor);
		world->child[event->child] = NULL;
		world->last_reason = event->reason;
		break;
	case TY_CHILD_GIVEN_UP:
		world->given_up++;
		break;
	}
}

/* Hears of the supervisor's end. */
struct watcher {
	struct ty_monitor monitor;
	struct world *world;
};
struct watcher_arg {
	struct world *world;
	struct ty_actor *watched;
};

static enum ty_code watcher_start(void *self, void *arg)
{
	struct watcher *watcher = self;
	struct watcher_arg *a = arg;

	watcher->world = a->world;
	ty_monitor(a->watched, &watcher->monitor, DOWN);
	return TY_OK;
}

static void watcher_down(void *self, struct ty_msg *msg)
{
	struct watcher *watcher = self;

	watcher->world->over = ty_container_of(msg, struct ty_monitor, msg)->reason;
}

static const struct ty_handler watcher_handlers[] = {{"down", watcher_down}};
static const struct ty_class watcher_class = {.name = "watcher", .state_size = sizeof(struct watcher),
	.first_type = DOWN, .type_count = 1, .handlers = watcher_handlers, .start = watcher_start};

/* ---- a house of four children, a to d, and a supervisor that is watched ---- */

static const char *const house_names[] = {"a", "b", "c", "d"};

struct house {
	struct world world;
	struct child_arg args[4];
	struct ty_child children[4];
	struct ty_supervisor_options options;
	struct watcher_arg watcher_arg;
	struct ty_actor *supervisor, *watcher;
};

static void prepare(struct house *h, enum ty_strategy strategy, uint64_t seed)
{
	struct ty_runtime_options options = {.size = sizeof options, .seed = seed};

	*h = (struct house){.world.over = (enum ty_code)-1};
	assert_int_equal(ty_runtime_create(&options, &h->world.rt, NULL), TY_OK);
	for (int i = 0; i < 4; i++) {
		h->args[i] = (struct child_arg){&h->world, (char)('a' + i)};
		h->children[i] = (struct ty_child){.name = house_names[i], .cls = &cls, .arg = &h->args[i]};
	}
	h->options = (struct ty_supervisor_options){.size = sizeof h->options, .rt = h->world.rt, .strategy = strategy,
		.children = h->children, .child_count = 4, .max_restarts = 3, .window = SECOND, .told = told,
		.user = &h->world};
}

static void settle(struct house *h)
{
	while (ty_runtime_step(h->world.rt))
		;
}

static void open_house_with(struct house *h, struct ty_supervisor_options *options)
{
	h->supervisor = spawn(h->world.rt, ty_supervisor(), options, TY_POOL);
	h->watcher_arg = (struct watcher_arg){&h->world, h->supervisor};
	h->watcher = spawn(h->world.rt, &watcher_class, &h->watcher_arg, TY_POOL);
	settle(h);
}

static void open_house(struct house *h)
{
	open_house_with(h, &h->options);
}

static void close_house(struct house *h)
{
	ty_actor_unref(h->supervisor);
	ty_actor_unref(h->watcher);
	ty_runtime_destroy(h->world.rt);
	assert_int_equal(h->world.alive, 0);
}

static void fail_child(struct house *h, int index)
{
	assert_int_equal(ty_send(h->world.child[index], &h->world.fail[index], FAIL), TY_OK);
	h->world.log[0] = 0;
	memset(h->world.log, 0, sizeof h->world.log);
	settle(h);
}

static void stop_child(struct house *h, int index)
{
	memset(h->world.log, 0, sizeof h->world.log);
	ty_actor_stop(h->world.child[index]);
	settle(h);
}

static void expect_named(struct house *h, const char *name, int index)
{
	struct ty_actor *found;

	assert_int_equal(ty_find(h->world.rt, name, &found), TY_OK);
	assert_ptr_equal(found, h->world.child[index]);
	ty_actor_unref(found);
}

static void test_one_for_one(void **unused)
{
	struct house h;
	struct ty_actor *others[4];

	(void)unused;
	prepare(&h, TY_ONE_FOR_ONE, 11);
	open_house(&h);
	assert_int_equal(h.world.started, 4);
	memcpy(others, h.world.child, sizeof others);
	fail_child(&h, 1);
	assert_string_equal(h.world.log, "-b+b");
	assert_int_equal(h.world.last_reason, TY_DEVICE_FAILED);
	assert_int_equal(h.world.restarts, 1);
	assert_ptr_equal(h.world.child[0], others[0]);
	assert_ptr_equal(h.world.child[3], others[3]);
	expect_named(&h, "b", 1); /* another actor by the same name */
	stop_child(&h, 2); /* permanent: however it ends */
	assert_string_equal(h.world.log, "-c+c");
	close_house(&h);
	assert_int_equal(h.world.given_up, 0);
}

static void test_rest_for_one(void **unused)
{
	struct house h;
	struct ty_actor *first;

	(void)unused;
	prepare(&h, TY_REST_FOR_ONE, 12);
	open_house(&h);
	first = h.world.child[0];
	fail_child(&h, 1);
	/* the rest is stopped, the last one first, one after the other, before any is started */
	assert_memory_equal(h.world.log, "-b-d-c", 6);
	assert_int_equal(strlen(h.world.log), 12);
	assert_int_equal(h.world.alive, 4);
	assert_ptr_equal(h.world.child[0], first);
	for (int i = 0; i < 4; i++)
		expect_named(&h, house_names[i], i);
	fail_child(&h, 3);
	assert_string_equal(h.world.log, "-d+d");
	close_house(&h);
}

/* Those that were not to come back stay away, also when one before them is started again. */
static void test_kinds(void **unused)
{
	struct house h;

	(void)unused;
	prepare(&h, TY_REST_FOR_ONE, 13);
	h.children[1].restart = TY_TRANSIENT;
	h.children[2].restart = TY_TEMPORARY;
	h.children[3].restart = TY_TRANSIENT;
	open_house(&h);
	stop_child(&h, 3);
	assert_string_equal(h.world.log, "-d"); /* transient, and it did not fail */
	fail_child(&h, 1);
	assert_string_equal(h.world.log, "-b-c+b"); /* temporary: not again; transient and ended: neither */
	assert_null(h.world.child[2]);
	fail_child(&h, 0);
	assert_int_equal(strlen(h.world.log), 8);
	assert_int_equal(h.world.alive, 2);
	close_house(&h);
	prepare(&h, TY_REST_FOR_ONE, 14);
	h.children[2].restart = TY_TEMPORARY;
	h.children[3].restart = TY_TRANSIENT;
	open_house(&h);
	fail_child(&h, 2);
	assert_string_equal(h.world.log, "-c");
	fail_child(&h, 1); /* d is stopped for b's sake, and started again with it */
	assert_int_equal(strlen(h.world.log), 8);
	assert_non_null(h.world.child[3]);
	close_house(&h);
}

static void test_limit_then_escalation(void **unused)
{
	struct house h;

	(void)unused;
	prepare(&h, TY_ONE_FOR_ONE, 15);
	open_house(&h);
	for (int i = 0; i < 3; i++)
		fail_child(&h, i);
	assert_int_equal(h.world.alive, 4);
	fail_child(&h, 3); /* the fourth within a second */
	assert_int_equal(h.world.given_up, 1);
	assert_string_equal(h.world.log, "-d-c-b-a"); /* all are stopped, the last one first */
	assert_int_equal(h.world.over, TY_DEVICE_FAILED);
	assert_int_equal(h.world.alive, 0);
	close_house(&h);
}

struct sleeper {
	struct ty_timer timer;
};

static enum ty_code sleeper_start(void *self, void *arg)
{
	ty_timer_start(&((struct sleeper *)self)->timer, NOTE, ty_now() + *(int64_t *)arg);
	return TY_OK;
}

static void sleeper_note(void *self, struct ty_msg *msg)
{
	(void)self;
	(void)msg;
	ty_actor_end();
}

/* Let the logical clock go on. */
static void pass(struct house *h, int64_t ns)
{
	static const struct ty_handler hs[] = {{"note", sleeper_note}};
	static const struct ty_class sleeper = {.name = "sleeper", .state_size = sizeof(struct sleeper),
		.first_type = NOTE, .type_count = 1, .handlers = hs, .start = sleeper_start};

	ty_actor_unref(spawn(h->world.rt, &sleeper, &ns, TY_POOL));
	settle(h);
}

static void test_window(void **unused)
{
	struct house h;

	(void)unused;
	prepare(&h, TY_ONE_FOR_ONE, 16);
	open_house(&h);
	for (int round = 0; round < 4; round++) {
		for (int i = 0; i < 3; i++)
			fail_child(&h, i);
		pass(&h, SECOND + 1);
	}
	assert_int_equal(h.world.given_up, 0);
	for (int i = 0; i < 2; i++)
		fail_child(&h, i);
	pass(&h, SECOND / 2);
	fail_child(&h, 2);
	pass(&h, SECOND / 2 + 1); /* the first two are out of it, the third is not */
	fail_child(&h, 3);
	fail_child(&h, 0);
	assert_int_equal(h.world.given_up, 0);
	fail_child(&h, 1);
	assert_int_equal(h.world.given_up, 1);
	close_house(&h);
}

/* A child that can never start: a restart loop ends at the limit. */
static void test_restart_loop(void **unused)
{
	struct house h;

	(void)unused;
	prepare(&h, TY_ONE_FOR_ONE, 17);
	h.world.fails_to_start = true;
	open_house(&h);
	assert_int_equal(h.world.over, TY_IO);
	assert_int_equal(h.world.given_up, 1);
	assert_int_equal(h.world.started, 4 + 3);
	assert_int_equal(h.world.ended, 4 + 3);
	close_house(&h);
	prepare(&h, TY_ONE_FOR_ONE, 18);
	h.options.max_restarts = 0; /* a stop of a permanent child is as much as a failure */
	open_house(&h);
	stop_child(&h, 0);
	assert_int_equal(h.world.over, TY_LIMIT);
	close_house(&h);
}

/* Options of programs that were compiled with another version's header. */
static void test_other_versions(void **unused)
{
	struct {
		struct ty_supervisor_options known;
		uint64_t later;
	} newer = {.later = 0};
	struct house h;

	(void)unused;
	prepare(&h, TY_ONE_FOR_ONE, 19);
	h.options.size = offsetof(struct ty_supervisor_options, told); /* an older one: nobody that it could tell */
	open_house(&h);
	assert_int_equal(h.world.over, (enum ty_code)-1);
	assert_int_equal(h.world.alive, 4);
	assert_int_equal(h.world.started, 0);
	close_house(&h);
	for (; newer.later < 2; newer.later++) {
		prepare(&h, TY_ONE_FOR_ONE, 19);
		newer.known = h.options;
		newer.known.size = sizeof newer;
		open_house_with(&h, &newer.known);
		assert_int_equal(h.world.over, newer.later ? TY_UNSUPPORTED : (enum ty_code)-1);
		assert_int_equal(h.world.started, newer.later ? 0 : 4);
		close_house(&h);
	}
}

static void test_refused(void **unused)
{
	struct house h;

	(void)unused;
	for (int i = 0; i < 7; i++) {
		prepare(&h, TY_ONE_FOR_ONE, 19);
		if (i == 0)
			h.options.size = 1;
		else if (i == 1)
			h.options.rt = NULL;
		else if (i == 2)
			h.options.children = NULL;
		else if (i == 3)
			h.options.child_count = TY_CHILDREN_MAX + 1;
		else if (i == 4)
			h.options.max_restarts = TY_RESTARTS_MAX + 1;
		else if (i == 5)
			h.options.window = -1;
		else
			h.options.strategy = (enum ty_strategy)9;
		open_house(&h);
		assert_int_equal(h.world.over, TY_INVALID);
		assert_int_equal(h.world.started, 0);
		close_house(&h);
	}
	/* a child that cannot be spawned, and one whose name another actor has */
	for (int i = 0; i < 2; i++) {
		static const struct ty_class nameless = {.state_size = 8};
		struct ty_actor *other;

		prepare(&h, TY_ONE_FOR_ONE, 20);
		other = spawn(h.world.rt, &cls, &h.args[3], TY_POOL);
		if (i)
			assert_int_equal(ty_name(other, "c"), TY_OK);
		else
			h.children[2].cls = &nameless;
		open_house(&h);
		assert_int_equal(h.world.over, i ? TY_EXISTS : TY_INVALID);
		assert_int_equal(h.world.alive, 1);
		ty_actor_unref(other);
		close_house(&h);
	}
}

static void test_stop(void **unused)
{
	struct house h;

	(void)unused;
	prepare(&h, TY_ONE_FOR_ONE, 21);
	open_house(&h);
	memset(h.world.log, 0, sizeof h.world.log);
	ty_actor_stop(h.supervisor);
	ty_actor_stop(h.supervisor); /* twice is once */
	settle(&h);
	assert_string_equal(h.world.log, "-d-c-b-a");
	assert_int_equal(h.world.over, TY_OK);
	assert_int_equal(h.world.given_up, 0);
	close_house(&h);
	/* none at all */
	prepare(&h, TY_REST_FOR_ONE, 22);
	h.options.child_count = 0;
	open_house(&h);
	ty_actor_stop(h.supervisor);
	settle(&h);
	assert_int_equal(h.world.over, TY_OK);
	close_house(&h);
}

/* A runtime that stops has nothing restarted. */
static void test_destroy(void **unused)
{
	(void)unused;
	for (uint64_t seed = 1; seed <= 300; seed++) {
		struct house h;

		prepare(&h, seed % 2 ? TY_ONE_FOR_ONE : TY_REST_FOR_ONE, seed);
		open_house(&h);
		if (seed % 3 == 0)
			assert_int_equal(ty_send(h.world.child[1], &h.world.fail[1], FAIL), TY_OK);
		for (uint64_t i = 0; i < seed % 11; i++)
			ty_runtime_step(h.world.rt);
		close_house(&h);
	}
}

/* ... and nothing given up: the children are stopped one by one, and that is no failure, however few restarts are allowed. */
static void test_stop_of_the_runtime(void **unused)
{
	(void)unused;
	for (uint64_t seed = 1; seed <= 100; seed++) {
		struct house h;

		prepare(&h, seed % 2 ? TY_ONE_FOR_ONE : TY_REST_FOR_ONE, seed);
		h.options.max_restarts = seed % 3 ? 0 : 1;
		open_house(&h);
		if (seed % 3 == 0)
			fail_child(&h, 2); /* the one that is allowed */
		assert_int_equal(h.world.alive, 4);
		assert_int_equal(ty_runtime_stop(h.world.rt, TY_NEVER, TY_NEVER, NULL), TY_OK);
		assert_int_equal(h.world.alive, 0);
		assert_int_equal(h.world.given_up, 0);
		close_house(&h);
	}
}

/* ---- a supervisor of supervisors ---- */

static void test_tree(void **unused)
{
	struct house h;
	struct ty_supervisor_options upper;
	struct ty_child branch;

	(void)unused;
	prepare(&h, TY_ONE_FOR_ONE, 23);
	h.options.max_restarts = 1;
	branch = (struct ty_child){.name = "branch", .cls = ty_supervisor(), .arg = &h.options};
	upper = (struct ty_supervisor_options){.size = sizeof upper, .rt = h.world.rt, .children = &branch,
		.child_count = 1, .max_restarts = 2, .window = SECOND};
	h.supervisor = spawn(h.world.rt, ty_supervisor(), &upper, TY_POOL);
	h.watcher_arg = (struct watcher_arg){&h.world, h.supervisor};
	h.watcher = spawn(h.world.rt, &watcher_class, &h.watcher_arg, TY_POOL);
	settle(&h);
	fail_child(&h, 0);
	fail_child(&h, 0); /* too many for the branch: all of it is started anew */
	assert_int_equal(h.world.given_up, 1);
	assert_int_equal(h.world.started, 4 + 1 + 4);
	assert_int_equal(h.world.alive, 4);
	assert_int_equal(h.world.over, (enum ty_code)-1);
	for (int i = 0; i < 4; i++)
		fail_child(&h, 1); /* and too many for the root */
	assert_int_equal(h.world.over, TY_DEVICE_FAILED);
	assert_int_equal(h.world.alive, 0);
	close_house(&h);
}

/* ---- any order ---- */

static void test_seeds(void **unused)
{
	(void)unused;
	for (uint64_t seed = 1; seed <= 1500; seed++) {
		uint64_t random = seed;
		struct house h;

		prepare(&h, seed % 2 ? TY_ONE_FOR_ONE : TY_REST_FOR_ONE, seed);
		h.options.max_restarts = 5;
		open_house(&h);
		for (int i = 0; i < 40; i++) {
			uint32_t index;

			random = random * UINT64_C(6364136223846793005) + 1;
			index = random >> 40 & 3;
			if (h.world.child[index] && random >> 50 & 1 && !h.world.fail[index].flags)
				(void)!ty_send(h.world.child[index], &h.world.fail[index], FAIL);
			else if (h.world.child[index] && (random >> 51 & 3) == 0)
				ty_actor_stop(h.world.child[index]);
			ty_runtime_step(h.world.rt);
		}
		settle(&h);
		assert_int_equal(h.world.given_up <= 1, 1);
		if (h.world.given_up) {
			assert_int_equal(h.world.alive, 0);
			assert_int_not_equal(h.world.over, TY_OK);
			assert_int_not_equal(h.world.over, (enum ty_code)-1);
		} else {
			assert_int_equal(h.world.alive, 4);
			for (int i = 0; i < 4; i++)
				expect_named(&h, house_names[i], i);
		}
		assert_int_equal(h.world.started - h.world.ended, h.world.alive);
		close_house(&h);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_for_one),
		cmocka_unit_test(test_rest_for_one),
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_limit_then_escalation),
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_restart_loop),
		cmocka_unit_test(test_other_versions),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_destroy),
		cmocka_unit_test(test_stop_of_the_runtime),
		cmocka_unit_test(test_tree),
		cmocka_unit_test(test_seeds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
