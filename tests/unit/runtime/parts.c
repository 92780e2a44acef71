/* SPDX-License-Identifier: Apache-2.0
 *
 * The runtime's parts alone: mailbox, heap, run queue, registry, park.
 */
#include <stdlib.h>

#include "runtime/runtime.h"
#include "runtime_test.h"

static void test_mailbox(void **unused)
{
	struct ty_mailbox box = {TY_BOX_IDLE};
	struct ty_msg m[6] = {{0}};
	struct ty_fifo urgent = {0}, normal = {0};

	(void)unused;
	m[2].flags = m[4].flags = TY_MSG_URGENT;
	assert_int_equal(ty_mailbox_push(&box, &m[0], &m[0], true), TY_PUSH_WOKE); /* handed over */
	assert_int_equal(box.word, TY_BOX_EMPTY);
	assert_true(ty_mailbox_try_idle(&box));
	assert_int_equal(ty_mailbox_push(&box, &m[0], &m[0], false), TY_PUSH_WOKE); /* the first, and only it */
	assert_int_equal(ty_mailbox_push(&box, &m[1], &m[1], true), TY_PUSH_QUEUED);
	assert_false(ty_mailbox_try_idle(&box));
	assert_false(ty_mailbox_leave_idle(&box));
	m[4].next = &m[3]; /* three at once */
	m[3].next = &m[2];
	assert_int_equal(ty_mailbox_push(&box, &m[4], &m[2], true), TY_PUSH_QUEUED);
	assert_int_equal(ty_mailbox_sort(ty_mailbox_take(&box), &urgent, &normal), 5);
	assert_null(ty_mailbox_take(&box));
	assert_ptr_equal(ty_fifo_take(&normal), &m[0]);
	assert_ptr_equal(ty_fifo_take(&urgent), &m[2]);
	assert_ptr_equal(ty_fifo_take(&urgent), &m[4]);
	assert_null(ty_fifo_take(&urgent));
	assert_int_equal(ty_mailbox_push(&box, &m[5], &m[5], true), TY_PUSH_QUEUED); /* running: no second schedule */
	ty_mailbox_sort(ty_mailbox_close(&box), &urgent, &normal);
	assert_ptr_equal(ty_fifo_take(&normal), &m[1]);
	assert_ptr_equal(ty_fifo_take(&normal), &m[3]);
	assert_ptr_equal(ty_fifo_take(&normal), &m[5]);
	assert_null(ty_fifo_take(&normal));
	assert_int_equal(ty_mailbox_push(&box, &m[0], &m[0], true), TY_PUSH_CLOSED);
	assert_true(ty_mailbox_closed(&box));
	box.word = (uintptr_t)&m[1] | TY_BOX_CLOSED; /* what join_late does */
	assert_int_equal(ty_mailbox_push(&box, &m[0], &m[0], true), TY_PUSH_CLOSED);
	assert_ptr_equal(ty_mailbox_end(&box), &m[1]);
	assert_int_equal(box.word, TY_BOX_OVER);
	assert_int_equal(ty_mailbox_push(&box, &m[0], &m[0], true), TY_PUSH_CLOSED);
	box.word = TY_BOX_EMPTY;
	assert_true(ty_mailbox_try_idle(&box));
	assert_false(ty_mailbox_try_idle(&box));
	assert_true(ty_mailbox_leave_idle(&box));
	assert_int_equal(box.word, TY_BOX_EMPTY);
}

/* Against the same keys in an array. */
static void test_heap(void **unused)
{
	enum { N = 200 };
	static struct ty_heap_node nodes[N];
	bool in[N] = {false};
	struct ty_heap heap = {0};
	uint32_t random = 1;

	(void)unused;
	for (int step = 0; step < 20000; step++) {
		int64_t least = INT64_MAX;
		uint32_t i;

		random = random * 1664525u + 1013904223u;
		i = (random >> 8) % N;
		if (in[i])
			ty_heap_remove(&heap, &nodes[i]);
		else
			ty_heap_insert(&heap, &nodes[i], (int64_t)(random >> 20));
		in[i] = !in[i];
		if (random >> 30 == 0 && heap.top) {
			in[heap.top - nodes] = false;
			ty_heap_remove(&heap, heap.top);
		}
		for (i = 0; i < N; i++)
			if (in[i] && nodes[i].key < least)
				least = nodes[i].key;
		assert_int_equal(heap.top ? heap.top->key : INT64_MAX, least);
	}
}

#define MANY 1000

static struct ty_actor *make_actors(void)
{
	struct ty_actor *actors = aligned_alloc(TY_LINE, MANY * sizeof *actors);

	assert_non_null(actors);
	memset(actors, 0, MANY * sizeof *actors);
	for (uint32_t i = 0; i < MANY; i++)
		actors[i].number = i;
	return actors;
}

static struct ty_runq *make_queue(void)
{
	struct ty_runq *q = aligned_alloc(TY_LINE, sizeof *q);

	assert_non_null(q);
	memset(q, 0, sizeof *q);
	return q;
}

static void test_run_queue_order(void **unused)
{
	struct ty_actor *actors = make_actors();
	struct ty_runq *q = make_queue();
	uint32_t refills = 0;
	bool took;

	(void)unused;
	assert_null(ty_runq_pop(q, &took));
	assert_false(took);
	assert_false(ty_runq_stealable(q));
	/* past the ring, into the spill, and a few from outside */
	for (uint32_t i = 0; i < MANY - 10; i++)
		assert_int_equal(ty_runq_put(q, &actors[i]), i > 0); /* the first is its owner's */
	for (uint32_t i = MANY - 10; i < MANY; i++)
		ty_runq_push(q, &actors[i]);
	assert_true(ty_runq_stealable(q));
	for (uint32_t i = 0; i < MANY; i++) {
		bool spilled = q->spill;

		assert_ptr_equal(ty_runq_pop(q, &took), &actors[i]);
		/* thieves may have missed it: at first the inbox went to the spill, and half a ring later the spill to the ring */
		assert_int_equal(took, i == 0 || (spilled && i % (TY_RING / 2) == 0));
		refills += took;
	}
	assert_int_equal(refills, 1 + (MANY - 1 - TY_RING + TY_RING / 2 - 1) / (TY_RING / 2));
	assert_null(ty_runq_pop(q, &took));
	/* who has run comes behind those that others pushed meanwhile */
	ty_runq_put(q, &actors[0]);
	ty_runq_push(q, &actors[1]);
	ty_runq_put_last(q, &actors[2]);
	for (uint32_t i = 0; i < 3; i++)
		assert_ptr_equal(ty_runq_pop(q, &took), &actors[i]);
	free(q);
	free(actors);
}

static void test_run_queue_steal(void **unused)
{
	struct ty_actor *actors = make_actors(), *a;
	struct ty_runq *q = make_queue(), *thief = make_queue();
	bool took;

	(void)unused;
	assert_null(ty_runq_steal(q, thief));
	ty_runq_put(q, &actors[0]); /* its owner is awake and takes it next */
	assert_false(ty_runq_stealable(q));
	assert_null(ty_runq_steal(q, thief));
	for (uint32_t i = 1; i < 7; i++)
		ty_runq_put(q, &actors[i]);
	assert_true(ty_runq_stealable(q));
	assert_ptr_equal(ty_runq_steal(q, thief), &actors[1]); /* three of seven: the oldest but the first */
	assert_ptr_equal(ty_runq_pop(thief, &took), &actors[2]);
	assert_ptr_equal(ty_runq_pop(thief, &took), &actors[3]);
	assert_null(ty_runq_pop(thief, &took));
	assert_ptr_equal(ty_runq_pop(q, &took), &actors[0]);
	assert_ptr_equal(ty_runq_pop(q, &took), &actors[4]);
	assert_true(ty_runq_stealable(q)); /* the last in the ring: another is before it */
	while (ty_runq_pop(q, &took))
		;
	/* the inbox, whole; also a single one */
	for (uint32_t i = 0; i < 3; i++)
		ty_runq_push(q, &actors[i]);
	assert_ptr_equal(ty_runq_steal(q, thief), &actors[0]);
	assert_ptr_equal(ty_runq_pop(thief, &took), &actors[1]);
	assert_ptr_equal(ty_runq_pop(thief, &took), &actors[2]);
	ty_runq_push(q, &actors[3]);
	assert_ptr_equal(ty_runq_steal(q, thief), &actors[3]);
	/* everything, spill included, comes out once */
	for (uint32_t i = 0; i < MANY; i++)
		ty_runq_put(q, &actors[i]);
	for (uint32_t i = 0; i < MANY; i++) {
		a = i % 3 ? ty_runq_steal(q, thief) : ty_runq_pop(q, &took);
		if (!a)
			a = ty_runq_pop(thief, &took);
		if (!a)
			a = ty_runq_pop(q, &took);
		assert_non_null(a);
		assert_int_not_equal(a->number, UINT64_MAX);
		a->number = UINT64_MAX;
	}
	assert_null(ty_runq_pop(q, &took));
	assert_null(ty_runq_pop(thief, &took));
	free(q);
	free(thief);
	free(actors);
}

/* Thieves empty the ring while there is a spill. */
static void test_run_queue_spill(void **unused)
{
	enum { SPILLED = 1 + TY_RING, LAST = SPILLED + 5 };
	struct ty_actor *actors = make_actors();
	struct ty_runq *q = make_queue(), *thief = make_queue();
	bool moved;

	(void)unused;
	for (uint32_t i = 0; i < LAST; i++)
		ty_runq_put(q, &actors[i]);
	while (q->head != q->tail)
		assert_non_null(ty_runq_steal(q, thief));
	assert_true(ty_runq_stealable(q));
	assert_true(ty_runq_put(q, &actors[LAST])); /* behind the spill, though the ring has all its places */
	assert_true(q->head == q->tail);
	for (uint32_t i = 0; i <= LAST; i++) {
		if (i > 0 && i < SPILLED)
			continue;
		assert_ptr_equal(ty_runq_pop(q, &moved), &actors[i]); /* the first, which is not alone */
		assert_int_equal(moved, i == 0);
	}
	assert_null(ty_runq_pop(q, &moved));
	/* more than the ring has places: what does not fit spills anew, and is appended to */
	for (uint32_t i = 0; i < 3 * TY_RING; i++)
		ty_runq_put(q, &actors[i]);
	for (uint32_t i = 0; i < TY_RING; i++)
		assert_ptr_equal(ty_runq_pop(q, &moved), &actors[i]);
	ty_runq_put(q, &actors[3 * TY_RING]);
	for (uint32_t i = TY_RING; i <= 3 * TY_RING; i++)
		assert_ptr_equal(ty_runq_pop(q, &moved), &actors[i]);
	assert_null(ty_runq_pop(q, &moved));
	free(q);
	free(thief);
	free(actors);
}

/* What a thief leaves, and for how long. */
static void test_run_queue_waits(void **unused)
{
	struct ty_runq *q = make_queue();
	struct ty_actor *actors = make_actors();
	struct ty_runq_look look = {0};
	enum { DEEP = 6 };
	bool took;

	(void)unused;
	for (uint32_t i = 0; i < 3; i++)
		ty_runq_put(q, &actors[i]); /* the first, and two in the ring */
	assert_false(ty_runq_waits(q, &look, 1000, 100, DEEP)); /* seen now */
	assert_false(ty_runq_waits(q, &look, 1099, 100, DEEP));
	assert_true(ty_runq_waits(q, &look, 1100, 100, DEEP));
	assert_non_null(ty_runq_pop(q, &took)); /* one of the two became the first, the other waits on */
	assert_true(ty_runq_waits(q, &look, 1101, 100, DEEP));
	assert_non_null(ty_runq_pop(q, &took));
	ty_runq_put(q, &actors[3]);
	assert_false(ty_runq_waits(q, &look, 1200, 100, DEEP)); /* those that were seen are gone */
	assert_false(ty_runq_waits(q, &look, 1299, 100, DEEP));
	assert_true(ty_runq_waits(q, &look, 1300, 100, DEEP));
	while (ty_runq_pop(q, &took))
		;
	ty_runq_push(q, &actors[4]); /* the same of an inbox */
	assert_false(ty_runq_waits(q, &look, 1400, 100, DEEP));
	assert_true(ty_runq_waits(q, &look, 1500, 100, DEEP));
	ty_runq_push(q, &actors[5]);
	assert_true(ty_runq_waits(q, &look, 1501, 100, DEEP)); /* others who come change nothing */
	while (ty_runq_pop(q, &took))
		;
	assert_false(ty_runq_waits(q, &look, 1550, 100, DEEP));
	for (uint32_t i = 0; i <= DEEP; i++) /* so many are not run at once */
		ty_runq_put(q, &actors[i]);
	assert_true(ty_runq_waits(q, &look, 1600, 100, DEEP));
	assert_non_null(ty_runq_pop(q, &took));
	assert_false(ty_runq_waits(q, &look, 1600, 100, DEEP));
	free(q);
	free(actors);
}

/* A find that lasts for so many ticks; 0: none. */
static void find_lasts(struct ty_worker *worker, uint64_t ticks)
{
	worker->found = worker->thread.stamp;
	worker->thread.stamp += ticks;
	ty_worker_ran_dry(worker);
}

/* Who finds what lasts takes at once what lies four deep at a worker that is awake. No thread runs. */
static void test_thief_whose_finds_last(void **unused)
{
	const uint64_t patience = UINT64_C(1) << 40; /* no look sees something wait for as long */
	struct ty_runtime *rt = aligned_alloc(TY_LINE, sizeof *rt);
	struct ty_worker *workers = aligned_alloc(TY_LINE, 2 * sizeof *workers), *thief = workers;
	struct ty_seat *seat = aligned_alloc(TY_LINE, sizeof *seat);
	struct ty_actor *actors = make_actors();

	(void)unused;
	assert_true(rt && workers && seat);
	memset(rt, 0, sizeof *rt);
	memset(workers, 0, 2 * sizeof *workers);
	memset(seat, 0, sizeof *seat);
	rt->workers = workers;
	rt->worker_count = 2;
	rt->patience_ticks = patience;
	for (uint32_t i = 0; i < 2; i++)
		workers[i] = (struct ty_worker){.thread = {.rt = rt, .seat = seat, .stamp = UINT64_MAX - 1}, .index = i};
	for (uint32_t i = 0; i < 5; i++)
		ty_runq_put(&workers[1].queue, &actors[i]); /* the first, and four in the ring */
	assert_null(ty_worker_steal(thief)); /* it found nothing yet */
	find_lasts(thief, 1000 * patience);
	find_lasts(thief, 1000 * patience);
	assert_null(ty_worker_steal(thief)); /* two finds, however long they last, may have been luck */
	find_lasts(thief, 1000 * patience);
	for (int i = 0; i < 3; i++)
		find_lasts(thief, 0);
	assert_null(ty_worker_steal(thief)); /* lately it found nothing */
	for (int i = 0; i < 100; i++)
		find_lasts(thief, patience);
	assert_null(ty_worker_steal(thief));
	for (int i = 0; i < 100; i++)
		find_lasts(thief, 3 * patience);
	assert_ptr_equal(ty_worker_steal(thief), &actors[1]); /* and the next, into its own queue */
	assert_null(ty_worker_steal(thief)); /* two are left: not worth it */
	assert_int_equal(atomic_load(&seat->steals), 1);
	free(actors);
	free(seat);
	free(workers);
	free(rt);
}

static void test_registry(void **unused)
{
	static struct ty_registry registry;
	struct ty_actor *actors = make_actors(), *a;
	uint32_t slots[MANY], used = MANY;

	(void)unused;
	for (uint32_t i = 0; i < MANY; i++) {
		assert_int_equal(ty_registry_add(&registry, NULL, &actors[i]), TY_OK);
		slots[i] = actors[i].slot;
		assert_int_equal(slots[i], i);
	}
	for (uint32_t i = 0; i < MANY; i += 3) {
		assert_true(ty_registry_remove(&registry, NULL, slots[i]));
		assert_false(ty_registry_remove(&registry, NULL, slots[i]));
	}
	for (uint32_t i = 0; i < MANY; i += 3) { /* their slots are used again, the last one freed first */
		actors[i].number = used++;
		assert_int_equal(ty_registry_add(&registry, NULL, &actors[i]), TY_OK);
		slots[i] = actors[i].slot;
		assert_true(slots[i] < MANY);
	}
	a = ty_registry_take_all(&registry);
	for (uint32_t n = 0; n < MANY; n++) {
		assert_non_null(a);
		assert_true(!a->list_next || a->number > a->list_next->number); /* the youngest first */
		a = a->list_next;
	}
	assert_null(a);
	assert_null(ty_registry_take_all(&registry));
	assert_false(ty_registry_remove(&registry, NULL, slots[1])); /* destroy has it */
	ty_registry_free(&registry);
	free(actors);
}

static void test_park(void **unused)
{
	struct ty_park park;
	uint32_t ticket;
	int64_t deadline;

	(void)unused;
	ty_park_init(&park);
	ticket = ty_park_ticket(&park);
	assert_false(ty_park_wait(&park, ticket, 0));
	assert_false(ty_park_wait(&park, ticket, ty_clock() - 1));
	deadline = ty_clock() + 3000000;
	assert_false(ty_park_wait(&park, ticket, deadline));
	assert_true(ty_clock() >= deadline); /* not early */
	ty_park_wake(&park); /* before the wait it is meant for */
	assert_true(ty_park_wait(&park, ticket, TY_NEVER));
	assert_true(ty_park_wait(&park, ticket, 0));
	assert_false(ty_park_wait(&park, ty_park_ticket(&park), 0));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mailbox),
		cmocka_unit_test(test_heap),
		cmocka_unit_test(test_run_queue_order),
		cmocka_unit_test(test_run_queue_steal),
		cmocka_unit_test(test_run_queue_spill),
		cmocka_unit_test(test_run_queue_waits),
		cmocka_unit_test(test_thief_whose_finds_last),
		cmocka_unit_test(test_registry),
		cmocka_unit_test(test_park),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
