/* SPDX-License-Identifier: Apache-2.0
 *
 * A name that is taken away by one who is held up half-way, while its actor ends and somebody finds it; and one that is to be freed while
 * others never stop looking for names. The program is linked with --wrap, so that the test stands between the steps.
 */
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <urcu/rculfhash.h>

#include "runtime_test.h"

enum { TAKE = 1, FIND };

static struct gate taking, take_on, found, freed;
static _Atomic(const char *) node_found;
static _Thread_local bool holds_delete, holds_lookup;
static _Atomic(uint32_t) relayed; /* lookups of those who relieve each other */
static _Atomic(bool) relay_over;
static _Thread_local bool relays, notes_lookup;

int __real_cds_lfht_del(struct cds_lfht *table, struct cds_lfht_node *node);
int __wrap_cds_lfht_del(struct cds_lfht *table, struct cds_lfht_node *node);
void __real_cds_lfht_lookup(struct cds_lfht *table, unsigned long hash, cds_lfht_match_fct match, const void *key,
	struct cds_lfht_iter *iter);
void __wrap_cds_lfht_lookup(struct cds_lfht *table, unsigned long hash, cds_lfht_match_fct match, const void *key,
	struct cds_lfht_iter *iter);
void __real_free(void *memory);
void __wrap_free(void *memory);

int __wrap_cds_lfht_del(struct cds_lfht *table, struct cds_lfht_node *node)
{
	if (holds_delete) {
		gate_open(&taking);
		gate_wait(&take_on);
	}
	return __real_cds_lfht_del(table, node);
}

/* What was found is used after a while. */
void __wrap_cds_lfht_lookup(struct cds_lfht *table, unsigned long hash, cds_lfht_match_fct match, const void *key,
	struct cds_lfht_iter *iter)
{
	__real_cds_lfht_lookup(table, hash, match, key, iter);
	if (relays) { /* until the next one is here, so that it is never empty */
		uint32_t mine = atomic_fetch_add(&relayed, 1) + 1;

		while (atomic_load(&relayed) == mine && !atomic_load(&relay_over))
			sched_yield();
	}
	if (notes_lookup)
		atomic_store(&node_found, (const char *)cds_lfht_iter_get_node(iter));
	if (!holds_lookup)
		return;
	atomic_store(&node_found, (const char *)cds_lfht_iter_get_node(iter));
	gate_open(&found);
	for (int i = 0; i < 2000 && !gate_is_open(&freed); i++) /* it has time to be wrong; if it is right, nobody frees it */
		nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
	atomic_store(&node_found, NULL); /* after the lookup it may be freed */
}

void __wrap_free(void *memory)
{
	const char *node = atomic_load(&node_found), *first = memory;

	if (first && node && node >= first && node < first + malloc_usable_size(memory))
		gate_open(&freed);
	__real_free(memory);
}

struct agent {
	struct ty_runtime *rt;
};

static struct gate done;

static enum ty_code on_start(void *self, void *arg)
{
	((struct agent *)self)->rt = arg;
	return TY_OK;
}

static void on_take(void *self, struct ty_msg *msg)
{
	(void)msg;
	holds_delete = true;
	ty_unname(((struct agent *)self)->rt, "name");
	holds_delete = false;
	gate_open(&done);
}

static void on_find(void *self, struct ty_msg *msg)
{
	struct ty_actor *actor = NULL;

	(void)msg;
	holds_lookup = true;
	(void)!ty_find(((struct agent *)self)->rt, "name", &actor);
	holds_lookup = false;
	assert_false(gate_is_open(&freed));
	if (actor)
		ty_actor_unref(actor);
	gate_open(&done);
}

static const struct ty_handler handlers[] = {{"take", on_take}, {"find", on_find}};
static const struct ty_class cls = {.name = "agent", .state_size = sizeof(struct agent), .first_type = TAKE, .type_count = 2,
	.handlers = handlers, .start = on_start};

static void test_found_while_it_is_taken_away(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct ty_actor *named = spawn(rt, &cls, rt, TY_POOL), *taker = spawn(rt, &cls, rt, TY_DEDICATED),
			*finder = spawn(rt, &cls, rt, TY_DEDICATED);
	struct ty_msg take = TY_MSG_INIT, find = TY_MSG_INIT;
	struct ty_runtime_stats stats;

	(void)unused;
	assert_int_equal(ty_name(named, "name"), TY_OK);
	assert_int_equal(ty_send(taker, &take, TAKE), TY_OK);
	gate_wait(&taking);
	ty_actor_stop(named); /* its token comes home, while the name is still in the table */
	ty_actor_unref(named);
	do
		ty_runtime_stats(rt, &stats);
	while (stats.actors > 2);
	nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL); /* a grace period that began has time to begin too early */
	assert_int_equal(ty_send(finder, &find, FIND), TY_OK);
	gate_wait(&found);
	gate_open(&take_on);
	gate_wait_for(&done, 2);
	ty_actor_unref(taker);
	ty_actor_unref(finder);
	ty_runtime_destroy(rt);
}

static void *find_held(void *rt)
{
	struct ty_actor *actor = NULL;

	holds_lookup = true;
	(void)!ty_find(rt, "name", &actor);
	holds_lookup = false;
	return actor;
}

/* By a thread that is none of the runtime's: it is no reader, but is waited for all the same. */
static void test_found_from_outside(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct ty_actor *named = spawn(rt, &cls, rt, TY_POOL);
	pthread_t finder;
	void *actor;

	(void)unused;
	found = freed = (struct gate){0};
	assert_int_equal(ty_name(named, "name"), TY_OK);
	assert_int_equal(pthread_create(&finder, NULL, find_held, rt), 0);
	gate_wait(&found);
	assert_int_equal(ty_unname(rt, "name"), TY_OK);
	pthread_join(finder, &actor);
	assert_false(gate_is_open(&freed));
	assert_ptr_equal(actor, named);
	ty_actor_unref(actor);
	ty_actor_unref(named);
	ty_runtime_destroy(rt);
}

static void *look_for_ever(void *rt)
{
	struct ty_actor *actor;

	relays = true;
	while (!atomic_load(&relay_over))
		if (ty_find(rt, "other", &actor) == TY_OK)
			ty_actor_unref(actor);
	return NULL;
}

/* Threads that are none of the runtime's are in here all the time, one or the other. */
static void test_freed_while_others_look_for_ever(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct ty_actor *named = spawn(rt, &cls, rt, TY_POOL), *actor;
	pthread_t threads[2];

	(void)unused;
	assert_int_equal(ty_name(named, "other"), TY_OK);
	assert_int_equal(ty_name(named, "gone"), TY_OK);
	freed = (struct gate){0};
	notes_lookup = true;
	assert_int_equal(ty_find(rt, "gone", &actor), TY_OK);
	notes_lookup = false;
	ty_actor_unref(actor);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, look_for_ever, rt), 0);
	while (atomic_load(&relayed) < 10)
		sched_yield();
	assert_int_equal(ty_unname(rt, "gone"), TY_OK);
	for (int i = 0; i < 20000 && !gate_is_open(&freed); i++)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	atomic_store(&relay_over, true);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_true(gate_is_open(&freed));
	ty_actor_unref(named);
	ty_runtime_destroy(rt);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_found_while_it_is_taken_away),
		cmocka_unit_test(test_found_from_outside),
		cmocka_unit_test(test_freed_while_others_look_for_ever),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
