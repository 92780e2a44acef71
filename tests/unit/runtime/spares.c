/* SPDX-License-Identifier: Apache-2.0
 *
 * What actors that ended leave to those that come: memory, and places in the registry. Each alone, and by two threads.
 */
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>

#include "runtime/runtime.h"
#include "runtime_test.h"

#define BASE 224
#define BATCH TY_SPARE_BATCH
#define KEPT ((TY_SPARE_PLACES + 2) * BATCH) /* what a thread and the depot hold of a size */

static void put(struct ty_spares *spares, struct ty_depot *depot, void **pieces, size_t count, size_t state)
{
	for (size_t i = 0; i < count; i++)
		ty_spare_put(spares, depot, pieces[i], BASE, state);
}

static void take(struct ty_spares *spares, struct ty_depot *depot, void **pieces, size_t count, size_t state)
{
	for (size_t i = 0; i < count; i++) {
		pieces[i] = ty_spare_take(spares, depot, BASE, state);
		assert_non_null(pieces[i]);
		memset(pieces[i], 0xa5, BASE + state); /* all of it is ours */
	}
}

static int by_address(const void *a, const void *b)
{
	uintptr_t x = (uintptr_t)*(void *const *)a, y = (uintptr_t)*(void *const *)b;

	return (x > y) - (x < y);
}

static void assert_same_set(void **a, void **b, size_t count)
{
	qsort(a, count, sizeof *a, by_address);
	qsort(b, count, sizeof *b, by_address);
	for (size_t i = 0; i < count; i++) {
		assert_ptr_equal(a[i], b[i]);
		assert_true(i == 0 || a[i] != a[i - 1]);
	}
}

static size_t full_places(const struct ty_depot *depot, size_t class)
{
	size_t full = 0;

	for (size_t i = 0; i < TY_SPARE_PLACES; i++)
		full += atomic_load(&depot->places[class][i]) != NULL;
	return full;
}

static void test_batches_go_through_the_depot(void **unused)
{
	static struct ty_depot depot;
	struct ty_spares a = {0}, b = {0};
	void *pieces[4 * BATCH], *again[4 * BATCH];

	(void)unused;
	take(&a, &depot, pieces, 4 * BATCH, 48); /* rounded up to 56 */
	put(&a, &depot, pieces, 2 * BATCH, 48);
	assert_int_equal(full_places(&depot, 3), 0); /* two batches are the thread's */
	assert_int_equal(a.classes[3].count, BATCH);
	put(&a, &depot, pieces + 2 * BATCH, 2 * BATCH, 48);
	assert_int_equal(full_places(&depot, 3), 2);
	take(&b, &depot, again, 2 * BATCH, 41); /* of the same size */
	assert_int_equal(full_places(&depot, 3), 0);
	take(&a, &depot, again + 2 * BATCH, 2 * BATCH, 56);
	assert_same_set(pieces, again, 4 * BATCH);
	assert_int_equal(a.classes[3].count + b.classes[3].count, 0);
	put(&b, &depot, again, 4 * BATCH, 56);
	ty_spares_free(&a);
	ty_spares_free(&b);
	ty_depot_free(&depot);
}

/* What is too much goes back to the allocator, and so does what is of no size that is kept, or no thread's. */
static void test_what_is_kept_is_bounded(void **unused)
{
	static struct ty_depot depot;
	static void *pieces[KEPT + 3 * BATCH];
	struct ty_spares a = {0};
	void *large;

	(void)unused;
	take(&a, &depot, pieces, KEPT + 3 * BATCH, 0);
	put(&a, &depot, pieces, KEPT + 3 * BATCH, 0);
	assert_int_equal(full_places(&depot, 0), TY_SPARE_PLACES);
	assert_int_equal(a.classes[0].count, BATCH);
	assert_non_null(a.classes[0].batch);
	for (size_t class = 1; class < TY_SPARE_CLASSES; class++) {
		assert_int_equal(full_places(&depot, class), 0);
		assert_int_equal(a.classes[class].count, 0);
	}
	take(&a, &depot, &large, 1, TY_SPARE_CLASSES * TY_SPARE_UNIT);
	put(&a, &depot, &large, 1, TY_SPARE_CLASSES * TY_SPARE_UNIT);
	take(NULL, NULL, &large, 1, 0);
	put(NULL, NULL, &large, 1, 0);
	assert_int_equal(a.classes[0].count, BATCH);
	ty_spares_free(&a);
	ty_depot_free(&depot);
}

/* What a thread without spares was given may come to a thread that has some, and then holds the largest state of its class. */
static void test_all_pieces_of_a_class_are_large_enough(void **unused)
{
	const size_t base = BASE + 8; /* malloc's own rounding is no help */
	static struct ty_depot depot;

	(void)unused;
	for (size_t state = 0; state < TY_SPARE_CLASSES * TY_SPARE_UNIT; state += 8) {
		size_t most = state | 8; /* 8, 24, ...: of the same class */
		struct ty_spares a = {0};
		void *piece = ty_spare_take(NULL, &depot, base, state);

		assert_non_null(piece);
		assert_true(malloc_usable_size(piece) >= base + most);
		ty_spare_put(&a, &depot, piece, base, state);
		assert_ptr_equal(ty_spare_take(&a, &depot, base, most), piece);
		ty_spare_put(&a, &depot, piece, base, most);
		ty_spares_free(&a);
	}
}

/* One takes what the other puts: a piece has one user at a time. */
#define ROUNDS 200000
#define LINE 256
struct side {
	struct ty_depot *depot;
	_Atomic(void *) *line; /* from the one that takes to the one that puts */
	bool takes;
};

static void *trade(void *arg)
{
	struct side *side = arg;
	struct ty_spares spares = {0};

	for (uintptr_t i = 0; i < ROUNDS; i++) {
		_Atomic(void *) *place = &side->line[i % LINE];
		uintptr_t *piece = NULL;

		if (side->takes) {
			piece = ty_spare_take(&spares, side->depot, BASE, 0);
			assert_non_null(piece);
			piece[1] = i;
			while (atomic_load_explicit(place, memory_order_acquire))
				sched_yield();
			atomic_store_explicit(place, piece, memory_order_release);
		} else {
			while (!(piece = atomic_load_explicit(place, memory_order_acquire)))
				sched_yield();
			assert_int_equal(piece[1], i);
			ty_spare_put(&spares, side->depot, piece, BASE, 0);
			atomic_store_explicit(place, NULL, memory_order_release);
		}
	}
	ty_spares_free(&spares);
	return NULL;
}

static void test_one_takes_what_another_puts(void **unused)
{
	static struct ty_depot depot;
	static _Atomic(void *) line[LINE];
	struct side sides[2] = {{&depot, line, true}, {&depot, line, false}};
	pthread_t threads[2];

	(void)unused;
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, trade, &sides[i]), 0);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	ty_depot_free(&depot);
}

/* ---- the registry's slots ------------------------------------------------------------------ */

#define LIVE 100 /* a thread's, at once */
#define TURNS 20000

struct registrar {
	struct ty_registry *registry;
	struct ty_registry_cache cache;
	struct ty_actor actors[LIVE];
	bool cached;
};

static void *turn(void *arg)
{
	struct registrar *r = arg;
	struct ty_registry_cache *cache = r->cached ? &r->cache : NULL;
	uint32_t random = 1;

	for (uint32_t k = 0; k < LIVE; k++)
		assert_int_equal(ty_registry_add(r->registry, cache, &r->actors[k]), TY_OK);
	for (int i = 0; i < TURNS; i++) {
		uint32_t count = ((random = random * 1664525u + 1013904223u) >> 16) % LIVE;

		/* so many end, and as many begin */
		for (uint32_t k = 0; k < count; k++)
			assert_true(ty_registry_remove(r->registry, cache, r->actors[k].slot));
		for (uint32_t k = 0; k < count; k++)
			assert_int_equal(ty_registry_add(r->registry, cache, &r->actors[k]), TY_OK);
	}
	return NULL;
}

static void test_slots_are_used_again(void **unused)
{
	static struct ty_registry registry;
	static struct registrar all[3];
	pthread_t threads[3];
	struct ty_actor *actor;
	uint32_t found = 0;

	(void)unused;
	for (int i = 0; i < 3; i++) {
		all[i].registry = &registry;
		all[i].cached = i < 2; /* the third is a thread that has none */
		for (int k = 0; k < LIVE; k++)
			all[i].actors[k].number = (uint64_t)(i * LIVE + k);
		assert_int_equal(pthread_create(&threads[i], NULL, turn, &all[i]), 0);
	}
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	/* what lives, and what two caches hold at most, and no more */
	assert_in_range(atomic_load(&registry.used), 3 * LIVE, 3 * LIVE + 2 * TY_REGISTRY_CACHE);
	for (actor = ty_registry_take_all(&registry); actor; actor = actor->list_next, found++)
		assert_int_equal(actor->number, 3 * LIVE - 1 - found); /* each once, the youngest first */
	assert_int_equal(found, 3 * LIVE);
	ty_registry_free(&registry);
}

/* ---- in a runtime -------------------------------------------------------------------------- */

enum { SPAWN = 1, CHILD };

struct parent {
	struct ty_runtime *rt;
	struct ty_msg again;
	uint64_t left;
	struct gate *over;
};

static void on_child(void *self, struct ty_msg *msg)
{
	(void)self;
	(void)msg;
}

static const struct ty_handler child_handlers[] = {{"child", on_child}};
static const struct ty_class child_class = {.name = "child", .first_type = CHILD, .type_count = 1, .handlers = child_handlers};

static void on_spawn(void *self, struct ty_msg *msg)
{
	struct parent *parent = *(struct parent **)self;

	for (int i = 0; i < 50; i++) {
		struct ty_actor *child;

		assert_int_equal(ty_spawn(parent->rt, &child_class, NULL, NULL, &child), TY_OK);
		ty_actor_stop(child);
		ty_actor_unref(child);
	}
	if (--parent->left)
		assert_int_equal(ty_send(ty_self(), msg, SPAWN), TY_OK);
	else
		gate_open(parent->over);
}

static enum ty_code on_start(void *self, void *arg)
{
	*(void **)self = arg;
	return TY_OK;
}

static const struct ty_handler parent_handlers[] = {{"spawn", on_spawn}};
static const struct ty_class parent_class = {.name = "parent", .state_size = sizeof(void *), .first_type = SPAWN,
	.type_count = 1, .handlers = parent_handlers, .start = on_start};

static void test_the_living_are_counted(void **unused)
{
	struct ty_runtime *rt = make_runtime(3);
	struct gate over = {0};
	struct parent parents[4];
	struct ty_actor *actors[4];
	struct ty_runtime_stats stats;

	(void)unused;
	for (int i = 0; i < 4; i++) {
		parents[i] = (struct parent){.rt = rt, .left = 200, .over = &over};
		actors[i] = spawn(rt, &parent_class, &parents[i], TY_POOL);
		assert_int_equal(ty_send(actors[i], &parents[i].again, SPAWN), TY_OK);
	}
	gate_wait_for(&over, 4);
	do /* the last children end yet */
		ty_runtime_stats(rt, &stats);
	while (stats.actors > 4);
	assert_int_equal(stats.actors, 4);
	for (int i = 0; i < 4; i++)
		ty_actor_unref(actors[i]);
	ty_runtime_destroy(rt);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_batches_go_through_the_depot),
		cmocka_unit_test(test_what_is_kept_is_bounded),
		cmocka_unit_test(test_all_pieces_of_a_class_are_large_enough),
		cmocka_unit_test(test_one_takes_what_another_puts),
		cmocka_unit_test(test_slots_are_used_again),
		cmocka_unit_test(test_the_living_are_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
