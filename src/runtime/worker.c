/* SPDX-License-Identifier: Apache-2.0
 *
 * The pool: workers that run scheduled actors, steal from each other, spin a little, and park.
 *
 * Who is woken, and when. A worker sets its bit in rt->idle, then looks at everything once more, then
 * parks; whoever schedules an actor from outside pushes it, then looks at rt->idle and clears one bit
 * to wake its worker. All four steps are sequentially consistent, so one of the two sees the other.
 * While a worker searches (rt->searching), nobody is woken: it will look again before it parks; if it
 * finds something first, and was the last to search, it wakes another when more is to be had.
 * A worker that schedules an actor for itself wakes nobody for the first in its queue: it runs it next.
 */
#include <assert.h>
#include <urcu/urcu-memb.h>

#include "runtime/runtime.h"

#define PAUSES 8       /* between two looks at everybody's queue: their owners write there */
#define DEEP 64        /* so many are not run within the patience, however quick they are */
#define DEEP_LASTING 4 /* so many are taken at once by a thief whose finds last */
#define LASTING 2      /* ... for so many patiences */
#define MEAN_OF 8      /* finds: one has an eighth of the weight, and counts for as many patiences at most */

static void wake(struct ty_worker *worker)
{
	TY_PROBE2(wake, worker->index, 0);
	if (ty_current && ty_current->rt == worker->thread.rt)
		ty_record_thread(ty_current, TY_EVENT_WAKE, ty_ticks(ty_current->rt), worker->index, 0);
	ty_park_wake(&worker->park);
}

void ty_worker_wake(struct ty_worker *worker)
{
	struct ty_runtime *rt = worker->thread.rt;
	uint64_t bit = (uint64_t)1 << worker->index;

	/* seq_cst: after the caller's push; pairs with park. Whoever clears the bit wakes, once. */
	if (!(atomic_load_explicit(&rt->idle, memory_order_seq_cst) & bit))
		return;
	if (atomic_fetch_and_explicit(&rt->idle, ~bit, memory_order_seq_cst) & bit)
		wake(worker);
}

/* Something stealable was made known: wake at most one worker, if nobody is looking. */
static void notify(struct ty_runtime *rt, uint32_t preferred)
{
	/* seq_cst: after the caller's push; pairs with park and leave_search */
	uint64_t idle = atomic_load_explicit(&rt->idle, memory_order_seq_cst);

	while (idle) {
		uint32_t index = idle >> preferred & 1 ? preferred : (uint32_t)__builtin_ctzll(idle);
		uint64_t bit = (uint64_t)1 << index;

		if (atomic_load_explicit(&rt->searching, memory_order_seq_cst))
			return;
		idle = atomic_fetch_and_explicit(&rt->idle, ~bit, memory_order_seq_cst);
		if (idle & bit) {
			wake(&rt->workers[index]);
			return;
		}
	}
}

void ty_pool_schedule(struct ty_runtime *rt, struct ty_actor *actor)
{
	bool foreign = !ty_current || ty_current->rt != rt; /* else destroy joins it */
	struct ty_worker *own = foreign ? NULL : ty_current->worker, *worker;
	uint32_t index;

	if (own) {
		if (ty_runq_put(&own->queue, actor))
			notify(rt, own->index);
		return;
	}
	index = atomic_load_explicit(&actor->last, memory_order_relaxed); /* before the push: then it may run */
	worker = &rt->workers[index];
	ty_fetch(&worker->park); /* if it sleeps, its line is not near */
	/* relaxed: the push publishes it to who runs the actor, and so to destroy, which waits for its end */
	if (foreign)
		atomic_fetch_add_explicit(&worker->callers, 1, memory_order_relaxed);
	ty_runq_push(&worker->queue, actor);
	notify(rt, index);
	/* release: pairs with wait_for_callers in runtime.c. The last that is touched: the runtime may be gone then */
	if (foreign)
		atomic_fetch_sub_explicit(&worker->callers, 1, memory_order_release);
}

/* ---- looking for work ---------------------------------------------------------------------- */

void ty_worker_ran_dry(struct ty_worker *worker)
{
	uint64_t lasted = worker->thread.stamp - worker->found;
	uint64_t most = MEAN_OF * worker->thread.rt->patience_ticks;

	worker->lasts -= worker->lasts / MEAN_OF;
	worker->lasts += (lasted < most ? lasted : most) / MEAN_OF;
}

/* Is there something to take from a worker that it would not run soon itself? What is run within two microseconds is better
 * left where its lines are; not so where this thief's finds last so long that the lines it takes along are a small part of
 * that. And a worker that sleeps runs nothing. */
static bool worth_taking(struct ty_worker *worker, const struct ty_worker *victim, uint64_t now)
{
	const struct ty_runtime *rt = worker->thread.rt;
	uint64_t deep = worker->lasts >= LASTING * rt->patience_ticks ? DEEP_LASTING : DEEP;

	if (!ty_runq_stealable(&victim->queue))
		return false;
	return ty_runq_waits(&victim->queue, &worker->looks[victim->index], now, rt->patience_ticks, deep) ||
		atomic_load_explicit(&rt->idle, memory_order_relaxed) >> victim->index & 1;
}

/* From those of its own node, or of the others. */
static struct ty_actor *steal_from(struct ty_worker *worker, bool near, uint32_t first)
{
	struct ty_runtime *rt = worker->thread.rt;
	uint64_t now = ty_ticks(rt);

	for (uint32_t i = 0; i < rt->worker_count; i++) {
		struct ty_worker *victim = &rt->workers[(first + i) % rt->worker_count];
		struct ty_actor *actor;

		if (victim == worker || (victim->node == worker->node) != near || !worth_taking(worker, victim, now))
			continue;
		actor = ty_runq_steal(&victim->queue, &worker->queue);
		if (actor) {
			ty_count(&worker->thread.seat->steals);
			return actor;
		}
	}
	return NULL;
}

/* An actor and its messages cost more to fetch from another node than from a neighbour. */
struct ty_actor *ty_worker_steal(struct ty_worker *worker)
{
	struct ty_actor *actor;
	uint32_t first;

	worker->random = worker->random * 1664525u + 1013904223u;
	first = (worker->random >> 16) % worker->thread.rt->worker_count;
	actor = steal_from(worker, true, first);
	return actor ? actor : steal_from(worker, false, first);
}

static bool anything_stealable(const struct ty_runtime *rt)
{
	for (uint32_t i = 0; i < rt->worker_count; i++)
		if (ty_runq_stealable(&rt->workers[i].queue))
			return true;
	return false;
}

/* The last look before parking. Its own queue but for the inbox is empty: only it fills it. */
static bool must_stay(struct ty_worker *worker)
{
	struct ty_runtime *rt = worker->thread.rt;

	if (atomic_load_explicit(&rt->joining, memory_order_seq_cst) ||
		atomic_load_explicit(&worker->thread.nudges, memory_order_seq_cst))
		return true;
	/* In this order: who searches still will look after this did. */
	return anything_stealable(rt) && !atomic_load_explicit(&rt->searching, memory_order_seq_cst);
}

/* Whoever was woken looks into its own queue first, where there is something most of the time, and searches only then. */
static void park(struct ty_worker *worker)
{
	struct ty_runtime *rt = worker->thread.rt;
	uint64_t bit = (uint64_t)1 << worker->index;
	uint32_t ticket = ty_park_ticket(&worker->park);
	bool woken;

	/* Say that I may sleep, and only then that I search no more: between the two a sender sees at
	 * least one of them. seq_cst, with the loads in must_stay: pairs with notify, ty_worker_wake. */
	atomic_fetch_or_explicit(&rt->idle, bit, memory_order_seq_cst);
	atomic_fetch_sub_explicit(&rt->searching, 1, memory_order_seq_cst);
	if (must_stay(worker)) {
		ty_stamp_end(&worker->thread);
	} else {
		ty_count(&worker->thread.seat->parks);
		TY_PROBE2(park, worker->index, 0);
		ty_record_thread(&worker->thread, TY_EVENT_PARK, ty_ticks(rt), worker->index, 0);
		woken = ty_park_wait(&worker->park, ticket, ty_alarms_next(&worker->thread));
		ty_record_thread(&worker->thread, TY_EVENT_UNPARK, ty_stamp_end(&worker->thread), worker->index, woken);
		if (woken)
			ty_count(&worker->thread.seat->wakes);
	}
	if (atomic_load_explicit(&rt->idle, memory_order_seq_cst) & bit) /* else a sender took it away */
		atomic_fetch_and_explicit(&rt->idle, ~bit, memory_order_seq_cst);
	if (worker->thread.alarms.top) /* else nobody asks what time it is */
		ty_thread_clock(&worker->thread);
	ty_seat_works(worker->thread.seat, true, worker->thread.stamp);
}

/* Found something. Whoever saw us search relied on us for what they had pushed. */
static void leave_search(struct ty_worker *worker)
{
	struct ty_runtime *rt = worker->thread.rt;

	/* seq_cst: then look; pairs with notify */
	if (atomic_fetch_sub_explicit(&rt->searching, 1, memory_order_seq_cst) == 1 && anything_stealable(rt))
		notify(rt, worker->index);
}

/* The queue has run dry: look at the others' once before anything is said, for a worker that is busy finds something most
 * of the time, and all of them would change rt->searching then. Nobody relied on this look; but a thief that looked
 * while it moved what it found saw that neither there nor here. */
static struct ty_actor *steal_at_once(struct ty_worker *worker)
{
	struct ty_actor *actor = ty_worker_steal(worker);

	if (!actor)
		return NULL;
	ty_thread_close(&worker->thread);
	if (ty_runq_stealable(&worker->queue))
		notify(worker->thread.rt, worker->index);
	ty_stamp_end(&worker->thread); /* time passed */
	return actor;
}

static struct ty_actor *search_once(struct ty_worker *worker)
{
	struct ty_actor *actor;
	bool moved; /* leave_search looks */

	ty_alarms_run(&worker->thread, worker->thread.now);
	actor = ty_runq_pop(&worker->queue, &moved);
	return actor ? actor : ty_worker_steal(worker);
}

/* Spin, then park. Null: look again, or the runtime ends. At most half of the workers spin: more of them find no more,
 * and each look is a miss for those who work. */
static struct ty_actor *search(struct ty_worker *worker)
{
	struct ty_thread *thread = &worker->thread;
	struct ty_runtime *rt = thread->rt;
	int64_t until = ty_thread_clock(thread);

	ty_thread_close(thread);
	thread->stamped = false; /* time passes */
	ty_seat_works(thread->seat, false, ty_ticks(rt));
	if (atomic_fetch_add_explicit(&rt->searching, 1, memory_order_seq_cst) < (rt->worker_count + 1) / 2)
		until += rt->spin_ns;
	do {
		struct ty_actor *actor = search_once(worker);

		if (actor || atomic_load_explicit(&rt->joining, memory_order_relaxed)) {
			leave_search(worker);
			ty_seat_works(thread->seat, true, ty_stamp_end(thread));
			return actor;
		}
		for (int i = 0; i < PAUSES; i++)
			ty_pause();
	} while (ty_thread_clock(thread) < until);
	park(worker);
	return NULL;
}

/* It has nothing to run. Null as search. */
static struct ty_actor *find(struct ty_worker *worker)
{
	struct ty_actor *actor;

	ty_worker_ran_dry(worker);
	actor = steal_at_once(worker);
	if (!actor)
		actor = search(worker);
	worker->found = worker->thread.stamp;
	return actor;
}

/* ---- running ------------------------------------------------------------------------------- */

static void run(struct ty_worker *worker, struct ty_actor *actor)
{
	struct ty_thread *thread = &worker->thread;
	enum ty_ran ran;

	atomic_store_explicit(&actor->last, (uint8_t)worker->index, memory_order_relaxed);
	ran = ty_actor_run(thread, actor, atomic_load_explicit(&thread->rt->budget_messages, memory_order_relaxed));
	if (ran == TY_RAN_DEAD)
		return;
	if (ran == TY_RAN_EMPTY && ty_mailbox_try_idle(&actor->box))
		return; /* it may run elsewhere by now */
	if (ty_runq_put_last(&worker->queue, actor))
		notify(thread->rt, worker->index);
}

void *ty_worker_main(void *arg)
{
	struct ty_worker *worker = arg;
	struct ty_thread *thread = &worker->thread;
	uint64_t looked = 0; /* ticks: when the clock was read for the alarms */

	urcu_memb_register_thread();
	thread->reader = true;
	ty_current = thread;
	ty_thread_clock(thread);
	ty_seat_works(thread->seat, true, ty_ticks(thread->rt));
	for (;;) {
		bool moved;
		struct ty_actor *actor = ty_runq_pop(&worker->queue, &moved);

		/* a thief that came while they were on their way from the inbox or the spill to the ring found nothing */
		if (moved && ty_runq_stealable(&worker->queue))
			notify(thread->rt, worker->index);
		if (!actor)
			actor = find(worker);
		if (!actor) {
			if (atomic_load_explicit(&thread->rt->joining, memory_order_relaxed))
				break;
			continue;
		}
		run(worker, actor);
		if (thread->alarms.top && thread->stamp - looked >= TY_QUICK_TICKS) {
			ty_thread_clock(thread);
			looked = thread->stamp;
		}
		ty_alarms_run(thread, thread->now);
	}
	ty_current = NULL;
	urcu_memb_unregister_thread();
	return NULL;
}
