/* SPDX-License-Identifier: Apache-2.0
 *
 * Names: given, taken away, found, freed by their actor's end, on all threads at once.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime_test.h"

enum { NOTE = 1, DOWN };

struct empty {
	int *stopped;
};

static enum ty_code on_start(void *self, void *arg)
{
	((struct empty *)self)->stopped = arg;
	return TY_OK;
}

static void on_note(void *self, struct ty_msg *msg)
{
	(void)self;
	free(msg);
}

static void on_stop(void *self)
{
	struct empty *empty = self;

	if (empty->stopped)
		++*empty->stopped;
}

static const struct ty_handler handlers[] = {{"note", on_note}};
static const struct ty_class cls = {.name = "named", .state_size = sizeof(struct empty), .first_type = NOTE,
	.type_count = 1, .handlers = handlers, .start = on_start, .stop = on_stop, .refuse = on_note};

static struct ty_runtime *make_simulated(void)
{
	struct ty_runtime_options options = {.size = sizeof options, .seed = 3};
	struct ty_runtime *rt;

	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	return rt;
}

static void expect_found(struct ty_runtime *rt, const char *name, const struct ty_actor *actor)
{
	struct ty_actor *found = NULL;

	assert_int_equal(ty_find(rt, name, &found), actor ? TY_OK : TY_CLOSED);
	assert_ptr_equal(found, actor);
	if (found)
		ty_actor_unref(found);
}

static void wait_until_unknown(struct ty_runtime *rt, const char *name)
{
	struct ty_actor *found;

	while (ty_find(rt, name, &found) == TY_OK) {
		ty_actor_unref(found);
		sched_yield();
	}
}

static void test_given_found_taken(void **unused)
{
	struct ty_runtime *rt = make_runtime(1), *other = make_runtime(1);
	struct ty_actor *a = spawn(rt, &cls, NULL, TY_POOL), *b = spawn(rt, &cls, NULL, TY_DEDICATED);
	struct ty_actor *c = spawn(other, &cls, NULL, TY_POOL);

	(void)unused;
	expect_found(rt, "disk", NULL); /* no name was ever given */
	assert_int_equal(ty_unname(rt, "disk"), TY_CLOSED);
	assert_int_equal(ty_name(a, "disk"), TY_OK);
	assert_int_equal(ty_name(b, "disk"), TY_EXISTS);
	assert_int_equal(ty_name(a, "disk"), TY_EXISTS);
	assert_int_equal(ty_name(b, "gpu"), TY_OK);
	assert_int_equal(ty_name(a, "disk too"), TY_OK);
	assert_int_equal(ty_name(c, "disk"), TY_OK); /* each runtime has its own */
	expect_found(rt, "disk", a);
	expect_found(rt, "disk too", a);
	expect_found(rt, "gpu", b);
	expect_found(rt, "dis", NULL);
	expect_found(other, "disk", c);
	expect_found(other, "gpu", NULL);
	assert_int_equal(ty_unname(rt, "disk"), TY_OK);
	assert_int_equal(ty_unname(rt, "disk"), TY_CLOSED);
	expect_found(rt, "disk", NULL);
	expect_found(rt, "disk too", a);
	assert_int_equal(ty_name(b, "disk"), TY_OK);
	expect_found(rt, "disk", b);
	for (int i = 0; i < 1000; i++) { /* what was taken away does not stay with the actor */
		assert_int_equal(ty_name(a, "again"), TY_OK);
		assert_int_equal(ty_unname(rt, "again"), TY_OK);
	}
	ty_actor_unref(a);
	ty_actor_unref(b);
	ty_actor_unref(c);
	ty_runtime_destroy(rt);
	ty_runtime_destroy(other);
}

static void test_free_at_the_end(void **unused)
{
	(void)unused;
	for (int e = 0; e < 2; e++) {
		struct ty_runtime *rt = make_runtime(1);
		struct ty_actor *a = spawn(rt, &cls, NULL, e ? TY_DEDICATED : TY_POOL), *b, *found;

		assert_int_equal(ty_name(a, "one"), TY_OK);
		assert_int_equal(ty_name(a, "two"), TY_OK);
		assert_int_equal(ty_find(rt, "one", &found), TY_OK);
		ty_actor_stop(a);
		wait_until_unknown(rt, "one");
		wait_until_unknown(rt, "two");
		assert_int_equal(ty_send(found, &(struct ty_msg)TY_MSG_INIT, NOTE), TY_CLOSED); /* an address all the same */
		ty_actor_unref(found);
		while (ty_name(a, "three") != TY_CLOSED)
			wait_until_unknown(rt, "three"); /* between its names' end and its own */
		expect_found(rt, "three", NULL);
		b = spawn(rt, &cls, NULL, TY_POOL);
		assert_int_equal(ty_name(b, "one"), TY_OK);
		expect_found(rt, "one", b);
		ty_actor_unref(a);
		ty_actor_unref(b);
		ty_runtime_destroy(rt);
	}
}

static void test_refused(void **unused)
{
	struct ty_runtime *rt = make_simulated();
	struct ty_actor *a = spawn(rt, &cls, NULL, TY_POOL), *none = a;
	char longest[TY_NAME_MAX + 2];

	(void)unused;
	memset(longest, 'x', sizeof longest);
	longest[TY_NAME_MAX + 1] = 0;
	assert_int_equal(ty_name(a, NULL), TY_INVALID);
	assert_int_equal(ty_name(a, ""), TY_INVALID);
	assert_int_equal(ty_name(a, longest), TY_INVALID);
	assert_int_equal(ty_find(rt, longest, &none), TY_CLOSED);
	assert_null(none);
	longest[TY_NAME_MAX] = 0;
	assert_int_equal(ty_name(a, longest), TY_OK);
	expect_found(rt, longest, a);
	none = a;
	assert_int_equal(ty_find(rt, NULL, &none), TY_CLOSED); /* nobody has none */
	assert_null(none);
	assert_int_equal(ty_unname(rt, NULL), TY_CLOSED);
	ty_actor_unref(a);
	ty_runtime_destroy(rt);
}

static void test_too_many(void **unused)
{
	struct ty_runtime *rt = make_simulated();
	struct ty_actor *a = spawn(rt, &cls, NULL, TY_POOL);
	char name[16];

	(void)unused;
	for (int i = 0; i < TY_NAMES_MAX; i++) {
		snprintf(name, sizeof name, "%d", i);
		assert_int_equal(ty_name(a, name), TY_OK);
	}
	assert_int_equal(ty_name(a, "one more"), TY_LIMIT);
	expect_found(rt, "65535", a);
	expect_found(rt, "one more", NULL);
	/* ended, all of them are free; their memory comes back a grace period later */
	ty_actor_stop(a);
	while (ty_runtime_step(rt))
		;
	expect_found(rt, "65535", NULL);
	ty_actor_unref(a);
	a = spawn(rt, &cls, NULL, TY_POOL);
	while (ty_name(a, "one more") == TY_LIMIT)
		sched_yield();
	expect_found(rt, "one more", a);
	ty_actor_unref(a);
	ty_runtime_destroy(rt);
}

/* Whoever hears of an actor's end finds its name free: in either order of the monitor and the name. */
struct heir {
	struct ty_runtime *rt;
	struct ty_actor *watched;
	struct ty_monitor monitor;
	int *inherited;
};
struct heir_arg {
	struct ty_runtime *rt;
	struct ty_actor *watched;
	int inherited;
};

static enum ty_code heir_start(void *self, void *arg)
{
	struct heir *heir = self;
	struct heir_arg *a = arg;

	*heir = (struct heir){.rt = a->rt, .watched = a->watched, .inherited = &a->inherited};
	ty_monitor(a->watched, &heir->monitor, DOWN);
	return TY_OK;
}

static void heir_down(void *self, struct ty_msg *msg)
{
	struct heir *heir = self;

	(void)msg;
	assert_int_equal(ty_name(ty_self(), "crown"), TY_OK);
	++*heir->inherited;
}

static const struct ty_handler heir_handlers[] = {{"down", heir_down}};
static const struct ty_class heir_class = {.name = "heir", .state_size = sizeof(struct heir), .first_type = DOWN,
	.type_count = 1, .handlers = heir_handlers, .start = heir_start};

static void test_free_before_anyone_hears(void **unused)
{
	(void)unused;
	for (uint64_t seed = 1; seed <= 500; seed++) {
		struct ty_runtime_options options = {.size = sizeof options, .seed = seed};
		struct heir_arg arg = {0};
		struct ty_actor *heir;

		assert_int_equal(ty_runtime_create(&options, &arg.rt, NULL), TY_OK);
		arg.watched = spawn(arg.rt, &cls, NULL, TY_POOL);
		if (seed % 2)
			assert_int_equal(ty_name(arg.watched, "crown"), TY_OK);
		heir = spawn(arg.rt, &heir_class, &arg, TY_POOL);
		for (uint64_t i = 0; i < seed % 7; i++)
			ty_runtime_step(arg.rt);
		if (seed % 2 == 0)
			assert_int_equal(ty_name(arg.watched, "crown"), TY_OK);
		ty_actor_stop(arg.watched);
		while (ty_runtime_step(arg.rt))
			;
		assert_int_equal(arg.inherited, 1);
		expect_found(arg.rt, "crown", heir);
		ty_actor_unref(arg.watched);
		ty_actor_unref(heir);
		ty_runtime_destroy(arg.rt);
	}
}

/* ---- all at once ---- */

enum { THREADS = 3, NAMES = 5, ROUNDS = 300 };

struct crowd {
	struct ty_runtime *rt;
	int stopped;
	_Atomic(uint32_t) spawned, found, lost;
	struct gate done;
};

/* One that looks, sends, names, takes names away and stops what it finds, like the others. */
static void *meddle(void *arg)
{
	struct crowd *crowd = arg;
	unsigned random = atomic_fetch_add(&crowd->spawned, 1) * 7919 + 1;

	for (int i = 0; i < ROUNDS; i++) {
		struct ty_actor *actor;
		struct ty_msg *note;
		char name[8];

		random = random * 1664525u + 1013904223u;
		snprintf(name, sizeof name, "n%u", (random >> 16) % NAMES);
		if (ty_find(crowd->rt, name, &actor) == TY_CLOSED) {
			atomic_fetch_add(&crowd->lost, 1);
			actor = spawn(crowd->rt, &cls, NULL, random >> 28 ? TY_POOL : TY_DEDICATED);
			if (ty_name(actor, name) != TY_OK)
				ty_actor_stop(actor);
		} else {
			atomic_fetch_add(&crowd->found, 1);
			note = calloc(1, sizeof *note);
			if (ty_send(actor, note, NOTE) != TY_OK)
				free(note);
			if (random >> 30 == 0)
				ty_actor_stop(actor);
			else if (random >> 30 == 1)
				ty_unname(crowd->rt, name);
		}
		ty_actor_unref(actor);
	}
	return NULL;
}

static void meddler_note(void *self, struct ty_msg *msg)
{
	(void)self;
	(void)msg;
	meddle(*(struct crowd **)self);
	gate_open(&(*(struct crowd **)self)->done);
}

static enum ty_code meddler_start(void *self, void *arg)
{
	*(struct crowd **)self = arg;
	return TY_OK;
}

static const struct ty_handler meddler_handlers[] = {{"note", meddler_note}};
static const struct ty_class meddler_class = {.name = "meddler", .state_size = sizeof(void *), .first_type = NOTE,
	.type_count = 1, .handlers = meddler_handlers, .start = meddler_start};

static void test_everybody_at_once(void **unused)
{
	struct crowd crowd = {.rt = make_runtime(2)};
	struct ty_msg go[THREADS] = {0};
	struct ty_actor *meddlers[THREADS];
	pthread_t threads[THREADS];

	(void)unused;
	for (int i = 0; i < THREADS; i++) {
		meddlers[i] = spawn(crowd.rt, &meddler_class, &crowd, TY_POOL);
		assert_int_equal(ty_send(meddlers[i], &go[i], NOTE), TY_OK);
		assert_int_equal(pthread_create(&threads[i], NULL, meddle, &crowd), 0);
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		ty_actor_unref(meddlers[i]);
	}
	gate_wait_for(&crowd.done, THREADS); /* a runtime that stops has nothing spawned */
	ty_runtime_destroy(crowd.rt);
	assert_int_equal(atomic_load(&crowd.found) + atomic_load(&crowd.lost), 2 * THREADS * ROUNDS);
	assert_true(atomic_load(&crowd.lost) > 0);
}

/* What is taken away leaves the actor, too: one that lives for long may have had more names than there can be. */
static void test_named_again_and_again(void **unused)
{
	struct ty_runtime *rt = make_simulated();
	struct ty_actor *actor = spawn(rt, &cls, NULL, TY_POOL);

	(void)unused;
	for (int i = 0; i <= TY_NAMES_MAX; i++) {
		assert_int_equal(ty_name(actor, "again"), TY_OK);
		assert_int_equal(ty_unname(rt, "again"), TY_OK);
		while (ty_runtime_step(rt))
			;
	}
	ty_actor_unref(actor);
	ty_runtime_destroy(rt);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_given_found_taken),
		cmocka_unit_test(test_free_at_the_end),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_free_before_anyone_hears),
		cmocka_unit_test(test_everybody_at_once),
		cmocka_unit_test(test_named_again_and_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
