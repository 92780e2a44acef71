/* SPDX-License-Identifier: Apache-2.0
 *
 * Dedicated actors: one thread each, which takes messages, calls poll, and waits by the runtime's
 * parking or the class's own.
 */
#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <urcu/urcu-memb.h>

#include "runtime/runtime.h"

struct ty_dedicated {
	struct ty_thread thread;
	struct ty_park park;
	pthread_t id;
	struct ty_actor *ended_next; /* the list of those that have ended */
	int cpu;
	char name[16];
	uint64_t woken;                      /* the thread's: waits that a sender ended */
	alignas(TY_LINE) _Atomic(uint64_t) wakes; /* senders': wakes that have returned */
	_Atomic(int64_t) rouse_until; /* by who rouses it, read by the thread; relaxed: read too late, the thread sleeps too early */
	int64_t rouse_ns;             /* for how long who is roused looks; 0: nobody rouses it. Constant */
};

#define ROUSED_SPINS 5         /* times the runtime's: so long a thread that was roused looks for what was announced */
#define ROUSE_SPIN_LEAST 10000 /* the runtime's, below which nobody is roused */
#define SETTLE_NS 50000 /* between looks whether the last wake has returned */

enum ty_code ty_dedicated_create(struct ty_actor *actor, const struct ty_spawn_options *options)
{
	const char *name = options->thread_name ? options->thread_name : actor->cls->name;
	struct ty_dedicated *d = aligned_alloc(TY_LINE, sizeof *d);
	enum ty_code code;

	if (!d)
		return TY_NO_MEMORY;
	memset(d, 0, sizeof *d);
	memcpy(d->name, name, strnlen(name, sizeof d->name - 1));
	ty_park_init(&d->park);
	d->cpu = options->cpu;
	if (!actor->cls->wait.wake && actor->rt->spin_ns >= ROUSE_SPIN_LEAST)
		d->rouse_ns = ROUSED_SPINS * actor->rt->spin_ns;
	d->thread.rt = actor->rt;
	code = ty_seat_take(actor->rt, &d->thread.seat);
	if (code != TY_OK) {
		free(d);
		return code;
	}
	actor->dedicated = d;
	actor->threaded = true;
	return TY_OK;
}

void ty_dedicated_free(struct ty_actor *actor)
{
	struct ty_dedicated *d = actor->dedicated;

	if (d->thread.seat)
		ty_seat_leave(d->thread.seat);
	free(d);
}

void ty_dedicated_wake(struct ty_actor *actor)
{
	struct ty_dedicated *d = actor->dedicated;

	TY_PROBE2(wake, actor->number, 1);
	if (ty_current && ty_current->rt == actor->rt)
		ty_record_thread(ty_current, TY_EVENT_WAKE, ty_ticks(ty_current->rt), actor->number, 1);
	if (actor->cls->wait.wake)
		actor->cls->wait.wake(ty_state(actor));
	else
		ty_park_wake(&d->park);
	/* release: pairs with ty_dedicated_settle; what wake did to the state is over */
	atomic_fetch_add_explicit(&d->wakes, 1, memory_order_release);
}

/* Ends the wait as a deadline does that comes early: the thread takes IDLE away itself, unless a sender was first. Touches nothing of
 * the runtime's, which may be gone. */
void ty_actor_rouse(struct ty_actor *actor)
{
	struct ty_dedicated *d = actor->threaded ? actor->dedicated : NULL;

	if (!d || !d->rouse_ns)
		return;
	/* relaxed: only whether it sleeps. One that is about to says so too late to be seen, and is woken by the message */
	if (atomic_load_explicit(&actor->box.word, memory_order_relaxed) != TY_BOX_IDLE)
		return;
	atomic_store_explicit(&d->rouse_until, ty_clock() + d->rouse_ns, memory_order_relaxed);
	ty_park_wake(&d->park);
}

struct ty_thread *ty_dedicated_thread(struct ty_actor *actor)
{
	return &actor->dedicated->thread;
}

bool ty_dedicated_leave_idle(struct ty_actor *actor)
{
	bool left = ty_mailbox_leave_idle(&actor->box);

	if (!left)
		actor->dedicated->woken++;
	return left;
}

void ty_dedicated_settle(struct ty_actor *actor)
{
	struct ty_dedicated *d = actor->dedicated;

	if (!actor->cls->wait.wake)
		return;
	/* A sender that ended a wait may still be in the class's wake, about to touch what stop closes.
	 * The only place where this thread waits for another: once, at its end, for one call. */
	while (atomic_load_explicit(&d->wakes, memory_order_acquire) < d->woken)
		ty_park_wait(&d->park, ty_park_ticket(&d->park), ty_clock() + SETTLE_NS);
}

/* Look at the mailbox a little before parking. True: something is there. */
static bool spin(struct ty_actor *actor, int64_t until)
{
	do {
		/* relaxed: only whether; the take acquires */
		if (atomic_load_explicit(&actor->box.word, memory_order_relaxed) != TY_BOX_EMPTY)
			return true;
		ty_pause();
	} while (ty_clock() < until);
	return false;
}

static void sleep_until(struct ty_dedicated *d, struct ty_actor *actor, int64_t deadline)
{
	const struct ty_wait *wait = &actor->cls->wait;
	int64_t spin_until = d->thread.now + d->thread.rt->spin_ns;
	int64_t roused = atomic_load_explicit(&d->rouse_until, memory_order_relaxed);
	uint32_t ticket;
	bool woken;

	d->thread.stamped = false; /* time passes */
	spin_until = roused > spin_until ? roused : spin_until;
	if (!wait->wait && spin(actor, spin_until < deadline ? spin_until : deadline))
		return;
	/* The ticket is drawn before the mailbox says IDLE, so that the wake of whoever takes IDLE away
	 * ends the wait even if it comes first. One word decides, nothing needs seq_cst. */
	ticket = ty_park_ticket(&d->park);
	if (!ty_mailbox_try_idle(&actor->box))
		return;
	ty_count(&d->thread.seat->parks);
	TY_PROBE2(park, actor->number, 1);
	ty_record_thread(&d->thread, TY_EVENT_PARK, ty_ticks(d->thread.rt), actor->number, 1);
	if (wait->wait) {
		d->thread.self = actor;
		wait->wait(ty_state(actor), deadline);
		d->thread.self = NULL;
	} else {
		ty_park_wait(&d->park, ticket, deadline);
	}
	woken = !ty_dedicated_leave_idle(actor);
	ty_record_thread(&d->thread, TY_EVENT_UNPARK, ty_ticks(d->thread.rt), actor->number, woken);
	if (woken)
		ty_count(&d->thread.seat->wakes);
}

static void wait_for_work(struct ty_dedicated *d, struct ty_actor *actor, int64_t deadline)
{
	struct ty_thread *thread = &d->thread;

	ty_seat_works(thread->seat, false, ty_ticks(thread->rt));
	sleep_until(d, actor, deadline);
	ty_seat_works(thread->seat, true, ty_ticks(thread->rt));
}

static void run_until_dead(struct ty_dedicated *d, struct ty_actor *actor)
{
	struct ty_thread *thread = &d->thread;

	for (;;) {
		int64_t now = ty_thread_clock(thread), next = TY_NEVER, timer;
		enum ty_ran ran;

		if (actor->started && ty_timers_next(actor) <= now)
			actor->timers_changed = true; /* they are due: have them collected */
		ran = ty_actor_run(thread, actor, atomic_load_explicit(&thread->rt->budget_messages, memory_order_relaxed));
		if (ran == TY_RAN_DEAD)
			return;
		if (actor->cls->poll)
			next = ty_actor_poll(thread, actor, ty_thread_clock(thread));
		timer = ty_timers_next(actor);
		if (timer < next)
			next = timer;
		if (ran == TY_RAN_EMPTY && next > ty_thread_clock(thread))
			wait_for_work(d, actor, next);
	}
}

/* Hand the thread over to be joined. release: pairs with ty_dedicated_reap. */
static void push_ended(struct ty_runtime *rt, struct ty_actor *actor)
{
	struct ty_actor *old = atomic_load_explicit(&rt->ended, memory_order_relaxed);

	do
		actor->dedicated->ended_next = old;
	while (!atomic_compare_exchange_weak_explicit(
		&rt->ended, &old, actor, memory_order_release, memory_order_relaxed));
}

static void *dedicated_main(void *arg)
{
	struct ty_actor *actor = arg;
	struct ty_dedicated *d = actor->dedicated;
	struct ty_runtime *rt = actor->rt;

	pthread_setname_np(pthread_self(), d->name);
	urcu_memb_register_thread();
	d->thread.reader = true;
	ty_current = &d->thread;
	ty_seat_works(d->thread.seat, true, ty_ticks(rt));
	run_until_dead(d, actor);
	ty_seat_works(d->thread.seat, false, ty_ticks(rt));
	ty_current = NULL;
	urcu_memb_unregister_thread();
	ty_seat_leave(d->thread.seat);
	d->thread.seat = NULL;
	push_ended(rt, actor); /* with this thread's reference */
	ty_park_wake(&rt->park);
	return NULL;
}

enum ty_code ty_dedicated_start(struct ty_actor *actor)
{
	struct ty_runtime *rt = actor->rt;
	struct ty_dedicated *d = actor->dedicated;
	pthread_attr_t attr;
	int error;

	ty_dedicated_reap(rt, false);
	if (pthread_attr_init(&attr))
		return TY_NO_MEMORY;
	if (d->cpu >= 0) {
		cpu_set_t cpus;

		CPU_ZERO(&cpus);
		if (d->cpu < CPU_SETSIZE)
			CPU_SET((size_t)d->cpu, &cpus); /* none set: refused below */
		pthread_attr_setaffinity_np(&attr, sizeof cpus, &cpus);
	}
	ty_actor_ref(actor); /* the thread's */
	atomic_fetch_add_explicit(&rt->threads, 1, memory_order_relaxed);
	error = ty_thread_create(&d->id, &attr, dedicated_main, actor);
	pthread_attr_destroy(&attr);
	if (!error)
		return TY_OK;
	atomic_fetch_sub_explicit(&rt->threads, 1, memory_order_relaxed);
	ty_actor_unref(actor);
	return error == EINVAL ? TY_INVALID : TY_LIMIT;
}

void ty_dedicated_reap(struct ty_runtime *rt, bool wait)
{
	/* acquire: pairs with push_ended */
	struct ty_actor *actor = atomic_exchange_explicit(&rt->ended, NULL, memory_order_acquire);

	while (actor) {
		struct ty_actor *next = actor->dedicated->ended_next;

		/* a thread that pushed itself is about to return: nothing of ours runs on it any more */
		if (!wait && pthread_tryjoin_np(actor->dedicated->id, NULL)) {
			push_ended(rt, actor);
		} else {
			if (wait)
				pthread_join(actor->dedicated->id, NULL);
			atomic_fetch_sub_explicit(&rt->threads, 1, memory_order_relaxed);
			ty_actor_unref(actor);
		}
		actor = next;
	}
}
