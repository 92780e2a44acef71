/* SPDX-License-Identifier: Apache-2.0
 *
 * Deterministic mode: the thread that created the runtime runs everything, one message at a time.
 * Which actor is next, and how far the clock moves, is drawn from the seed; nothing else is read that
 * could differ between two runs. Dedicated actors run here too: their poll is called, their wait and
 * wake are not.
 */
#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/runtime.h"

#define SIM_START INT64_C(1000000000) /* the clock begins at one second */
#define SIM_TICK 2000                 /* a step takes 1 to this many ns */

struct ty_sim {
	struct ty_thread thread;
	pthread_t owner;
	uint64_t random;
	int64_t now;
	struct ty_actor *ready, *ready_last; /* through run_next */
	uint64_t ready_count;
	struct ty_actor *polled;             /* dedicated actors with a poll, through sim_next */
};

enum ty_code ty_sim_create(struct ty_runtime *rt, uint64_t seed, struct ty_error *err)
{
	struct ty_sim *sim = aligned_alloc(TY_LINE, (sizeof *sim + TY_LINE - 1) / TY_LINE * TY_LINE);

	if (!sim)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a simulation");
	memset(sim, 0, sizeof *sim);
	sim->thread.rt = rt;
	if (ty_seat_take(rt, &sim->thread.seat) != TY_OK) {
		free(sim);
		return ty_fail(err, TY_NO_MEMORY, "no memory for a simulation");
	}
	sim->owner = pthread_self();
	sim->random = seed;
	sim->now = SIM_START;
	rt->sim = sim;
	return TY_OK;
}

void ty_sim_free(struct ty_runtime *rt)
{
	ty_alarms_free(&rt->sim->thread);
	free(rt->sim);
}

int64_t ty_sim_now(const struct ty_runtime *rt)
{
	return rt->sim->now;
}

/* SplitMix64's step: a counter and a mixing of its bits. */
static uint64_t draw(struct ty_sim *sim, uint64_t below)
{
	uint64_t x = sim->random += UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	x ^= x >> 31;
	return x % below;
}

static void make_ready(struct ty_sim *sim, struct ty_actor *actor)
{
	if (actor->sim_queued)
		return;
	actor->sim_queued = true;
	actor->run_next = NULL;
	if (sim->ready_last)
		sim->ready_last->run_next = actor;
	else
		sim->ready = actor;
	sim->ready_last = actor;
	sim->ready_count++;
}

void ty_sim_schedule(struct ty_actor *actor)
{
	struct ty_sim *sim = actor->rt->sim;

	assert(pthread_equal(sim->owner, pthread_self())); /* another thread's send has no place in the seed's order */
	if (actor->threaded)
		ty_dedicated_wake(actor); /* a port: it is not the simulation that runs it */
	else
		make_ready(sim, actor);
}

static struct ty_actor *take_ready(struct ty_sim *sim, uint64_t index)
{
	struct ty_actor *before = NULL, *actor = sim->ready;

	while (index--) {
		before = actor;
		actor = actor->run_next;
	}
	if (before)
		before->run_next = actor->run_next;
	else
		sim->ready = actor->run_next;
	if (sim->ready_last == actor)
		sim->ready_last = before;
	actor->sim_queued = false;
	sim->ready_count--;
	return actor;
}

/* Make ready what the clock has reached. */
static void fire(struct ty_sim *sim)
{
	ty_alarms_run(&sim->thread, sim->now);
	for (struct ty_actor *a = sim->polled; a; a = a->sim_next)
		if (a->sim_poll <= sim->now)
			make_ready(sim, a);
}

static int64_t next_time(const struct ty_sim *sim)
{
	int64_t next = ty_alarms_next(&sim->thread);

	for (const struct ty_actor *a = sim->polled; a; a = a->sim_next)
		if (a->sim_poll < next)
			next = a->sim_poll;
	return next;
}

static void forget(struct ty_sim *sim, const struct ty_actor *actor)
{
	for (struct ty_actor **link = &sim->polled; *link; link = &(*link)->sim_next) {
		if (*link == actor) {
			*link = actor->sim_next;
			return;
		}
	}
}

static void run(struct ty_sim *sim, struct ty_actor *actor)
{
	bool polls = actor->cls->poll;
	uint32_t budget;
	enum ty_ran ran;

	if (polls && !actor->started) {
		actor->sim_next = sim->polled;
		sim->polled = actor;
	}
	ty_mailbox_leave_idle(&actor->box); /* when only its poll is due */
	ty_actor_ref(actor);                /* to forget it */
	budget = atomic_load_explicit(&actor->rt->budget_messages, memory_order_relaxed);
	ran = ty_actor_run(&sim->thread, actor, budget ? 1 : 0); /* 0: it is cut short */
	if (ran == TY_RAN_DEAD) {
		forget(sim, actor);
	} else {
		actor->sim_poll = polls ? ty_actor_poll(&sim->thread, actor, sim->now) : TY_NEVER;
		if (ty_actor_pending(actor) || actor->timers_changed || !ty_mailbox_try_idle(&actor->box))
			make_ready(sim, actor);
	}
	ty_actor_unref(actor);
}

/* A step takes its time; at the end of all times, to which a timer may have led, none. */
static void pass(struct ty_sim *sim)
{
	int64_t step = 1 + (int64_t)draw(sim, SIM_TICK);

	if (sim->now < TY_NEVER - step)
		sim->now += step;
}

bool ty_sim_step(struct ty_runtime *rt)
{
	struct ty_sim *sim = rt->sim;
	struct ty_thread *before = ty_current;

	assert(pthread_equal(sim->owner, pthread_self()));
	assert(!sim->thread.self); /* not from a handler */
	ty_current = &sim->thread;
	sim->thread.stamped = false;
	pass(sim);
	fire(sim);
	if (!sim->ready_count) {
		int64_t next = next_time(sim);

		if (next == TY_NEVER) {
			ty_current = before;
			return false;
		}
		sim->now = next; /* later than now: fire has taken all else */
		fire(sim);
	}
	run(sim, take_ready(sim, draw(sim, sim->ready_count)));
	ty_current = before;
	return true;
}
