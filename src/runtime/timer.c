/* SPDX-License-Identifier: Apache-2.0
 *
 * Timers. An actor's timers are in a heap of the actor's own, which only its runner touches: start
 * and cancel are plain code, wherever the actor runs, and a cancelled timer is nowhere any more. What
 * crosses threads is one alarm an actor: "send me a message at this time". It is a token:
 *
 *	here (alarm_home nowhere) --arm-->  in the heap of the worker that ran the actor
 *	in that heap              --time--> alarm_msg (in the same place) in the mailbox --handled--> here
 *
 * An alarm that turns out too early costs a run that finds nothing due. One that is too late, in
 * another thread's heap, is called back by the nudge, a second token: pushed to that thread, which
 * gives back both with nudge_msg. While the nudge is out the alarm is not armed anew, so that thread
 * may look at it. Each token that is out holds a reference to the actor.
 */
#include <assert.h>

#include "runtime/runtime.h"

enum timer_state { TIMER_OFF, TIMER_ARMED, TIMER_DUE };
enum timer_kind { TIMER_PLAIN, TIMER_REPLY /* of a ty_request */, TIMER_TICKER /* of a ty_ticker */ };

/* What ty_timer.opaque holds. */
struct timer_core {
	struct ty_heap_node node;
	struct ty_actor *owner;
	uint32_t state;
	uint32_t kind;
};
static_assert(sizeof(struct timer_core) <= sizeof(((struct ty_timer *)0)->opaque), "fits");
static_assert(alignof(struct timer_core) <= alignof(void *), "fits");

static struct timer_core *core_of(struct ty_timer *timer)
{
	return (struct timer_core *)(void *)timer->opaque;
}

static struct ty_timer *timer_of(struct ty_heap_node *node)
{
	return ty_container_of(node, struct ty_timer, opaque);
}
static_assert(offsetof(struct timer_core, node) == 0, "timer_of");

static void due_append(struct ty_actor *actor, struct ty_heap_node *node)
{
	struct ty_heap_node *last = actor->due_last;

	node->prev = last ? last : node;
	node->next = last ? last->next : node;
	node->prev->next = node;
	node->next->prev = node;
	actor->due_last = node;
}

static void due_remove(struct ty_actor *actor, struct ty_heap_node *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	if (actor->due_last == node)
		actor->due_last = node->prev == node ? NULL : node->prev;
	node->next = node->prev = NULL;
}

static void disarm(struct ty_actor *actor, struct timer_core *core)
{
	if (core->state == TIMER_ARMED)
		ty_heap_remove(&actor->timers, &core->node);
	else if (core->state == TIMER_DUE)
		due_remove(actor, &core->node);
	core->state = TIMER_OFF;
	actor->timers_changed = true;
}

static struct ty_actor *owner_of_call(const struct timer_core *core)
{
	assert(ty_current && ty_current->self); /* timers are for handlers */
	assert(core->state == TIMER_OFF || core->owner == ty_current->self);
	return ty_current->self;
}

void ty_timer_start(struct ty_timer *timer, uint32_t type, int64_t deadline)
{
	struct timer_core *core = core_of(timer);
	struct ty_actor *actor = owner_of_call(core);

	assert(type - actor->cls->first_type < actor->cls->type_count);
	disarm(actor, core);
	if (deadline == TY_NEVER)
		return;
	timer->msg = (struct ty_msg){.type = type};
	core->owner = actor;
	core->state = TIMER_ARMED;
	core->kind = TIMER_PLAIN;
	ty_heap_insert(&actor->timers, &core->node, deadline);
}

void ty_timer_start_reply(struct ty_timer *timer, uint32_t type, int64_t deadline)
{
	ty_timer_start(timer, type, deadline);
	core_of(timer)->kind = TIMER_REPLY;
}

void ty_timer_cancel(struct ty_timer *timer)
{
	struct timer_core *core = core_of(timer);

	disarm(owner_of_call(core), core);
}

/* A tick of a ticker's is about to be handled: arm it for the next one that has not passed. */
static void tick(struct ty_actor *actor, struct ty_timer *timer, int64_t now)
{
	struct ty_ticker *ticker = ty_container_of(timer, struct ty_ticker, timer);
	struct timer_core *core = core_of(timer);
	/* unsigned: it may be as long ago as the clock goes on. 0: in time; never early, so not less */
	uint64_t key = (uint64_t)core->node.key, period = (uint64_t)ticker->period, passed = ((uint64_t)now - key) / period;

	ticker->missed = passed;
	if (((uint64_t)TY_NEVER - 1 - key) / period <= passed)
		return; /* the clock ends before it comes */
	core->state = TIMER_ARMED;
	ty_heap_insert(&actor->timers, &core->node, (int64_t)(key + (passed + 1) * period));
	actor->timers_changed = true;
}

void ty_ticker_start(struct ty_ticker *ticker, uint32_t type, int64_t first, int64_t period)
{
	assert(period > 0);
	if (first < 0) /* as long ago as the clock goes back, and in step with it */
		first %= period;
	ty_timer_start(&ticker->timer, type, first);
	core_of(&ticker->timer)->kind = TIMER_TICKER;
	ticker->period = period;
	ticker->missed = 0;
}

void ty_ticker_cancel(struct ty_ticker *ticker)
{
	ty_timer_cancel(&ticker->timer);
}

struct ty_msg *ty_timers_take(struct ty_actor *actor)
{
	struct ty_heap_node *first = actor->due_last->next;
	struct ty_timer *timer = timer_of(first);

	due_remove(actor, first);
	core_of(timer)->state = TIMER_OFF; /* before the handler: it may start it again */
	if (core_of(timer)->kind == TIMER_TICKER)
		tick(actor, timer, ty_thread_clock(ty_current));
	else if (core_of(timer)->kind == TIMER_REPLY)
		ty_request_told(&timer->msg);
	return &timer->msg;
}

int64_t ty_timers_next(const struct ty_actor *actor)
{
	return actor->timers.top ? actor->timers.top->key : TY_NEVER;
}

/* ---- the alarm ----------------------------------------------------------------------------- */

static struct ty_actor *actor_of(struct ty_heap_node *alarm)
{
	return ty_container_of(alarm, struct ty_actor, alarm);
}

/* A worker, or the simulation's thread. */
static uint8_t index_of(const struct ty_thread *thread)
{
	return thread->worker ? (uint8_t)thread->worker->index : 0;
}

static void alarm_insert(struct ty_thread *home, struct ty_actor *actor, int64_t at)
{
	ty_actor_ref(actor);
	actor->alarm_home = index_of(home);
	actor->alarm_set = true;
	ty_heap_insert(&home->alarms, &actor->alarm, at);
}

/* The heap's thread. The caller drops the alarm's reference. */
static void alarm_remove(struct ty_thread *home, struct ty_actor *actor)
{
	ty_heap_remove(&home->alarms, &actor->alarm);
	actor->alarm_set = false;
}

/* In real time only: a simulation has one thread, where every alarm is at home. */
static void nudge(struct ty_actor *actor)
{
	struct ty_worker *home = &actor->rt->workers[actor->alarm_home];
	struct ty_msg *old = atomic_load_explicit(&home->thread.nudges, memory_order_relaxed);

	actor->nudge_out = true;
	ty_actor_ref(actor);
	/* seq_cst: publishes the actor's fields, and orders the push before ty_worker_wake's look at the
	 * idle bit; pairs with the worker, which sets its bit and then looks at its nudges */
	do
		actor->nudge_msg.next = old;
	while (!atomic_compare_exchange_weak_explicit(
		&home->thread.nudges, &old, &actor->nudge_msg, memory_order_seq_cst, memory_order_relaxed));
	ty_worker_wake(home);
}

static void arm(struct ty_thread *thread, struct ty_actor *actor, int64_t at)
{
	if (actor->nudge_out)
		return; /* both tokens are about to come back; then sync is called again */
	if (actor->alarm_home == TY_NOWHERE) {
		alarm_insert(thread, actor, at);
	} else if (actor->alarm_home == index_of(thread)) {
		if (actor->alarm_set && actor->alarm.key != at) { /* not set: alarm_msg is on its way */
			alarm_remove(thread, actor);
			alarm_insert(thread, actor, at);
			ty_actor_unref(actor);
		}
	} else if (actor->alarm.key > at) {
		nudge(actor);
	}
}

/* Nothing armed any more: spare the thread a wake-up for nothing, where that is cheap. */
static void take_back_alarm(struct ty_thread *thread, struct ty_actor *actor)
{
	if (actor->alarm_home == index_of(thread) && actor->alarm_set) {
		alarm_remove(thread, actor);
		actor->alarm_home = TY_NOWHERE;
		ty_actor_unref(actor);
	}
}

void ty_timers_sync(struct ty_thread *thread, struct ty_actor *actor)
{
	struct ty_heap_node *top = actor->timers.top;
	int64_t now;

	actor->timers_changed = false;
	if (!top) {
		take_back_alarm(thread, actor);
		return;
	}
	/* An alarm that is not too late is left alone, so that a deadline that is moved back again and
	 * again costs nothing. Not in a simulation: there it would move the clock. */
	if (actor->alarm_home != TY_NOWHERE && actor->alarm.key <= top->key && !thread->rt->sim)
		return;
	now = ty_thread_clock(thread);
	while ((top = actor->timers.top) && top->key <= now) {
		struct timer_core *core = (struct timer_core *)(void *)top;

		ty_heap_remove(&actor->timers, top);
		core->state = TIMER_OFF;
		if (core->kind == TIMER_REPLY && !ty_request_expire(timer_of(top)))
			continue;
		core->state = TIMER_DUE;
		due_append(actor, top);
	}
	if (actor->threaded)
		return; /* its thread looks at ty_timers_next before it waits */
	if (top)
		arm(thread, actor, top->key);
	else
		take_back_alarm(thread, actor);
}

/* alarm_msg or nudge_msg arrived. An alarm that fired before the nudge was seen was sent before it,
 * by the same thread, so with nudge_msg both tokens are here. */
void ty_timers_internal(struct ty_actor *actor, struct ty_msg *msg)
{
	msg->flags = 0; /* it may be sent again */
	if (msg == &actor->nudge_msg)
		actor->nudge_out = false;
	actor->alarm_home = TY_NOWHERE;
	actor->timers_changed = true;
}

void ty_timers_drop(struct ty_thread *thread, struct ty_actor *actor)
{
	while (actor->timers.top)
		disarm(actor, (struct timer_core *)(void *)actor->timers.top);
	while (actor->due_last) {
		struct timer_core *core = (struct timer_core *)(void *)actor->due_last->next;

		disarm(actor, core);
		if (core->kind == TIMER_REPLY)
			ty_request_orphan(&timer_of(&core->node)->msg);
	}
	actor->timers_changed = false;
	if (actor->alarm_home == TY_NOWHERE)
		return;
	if (actor->alarm_home == index_of(thread))
		take_back_alarm(thread, actor);
	else if (!actor->nudge_out)
		nudge(actor); /* so that its reference is dropped now, not at the deadline */
}

/* ---- a thread's alarms --------------------------------------------------------------------- */

static void answer_nudges(struct ty_thread *thread)
{
	/* acquire: pairs with nudge */
	struct ty_msg *msg = atomic_exchange_explicit(&thread->nudges, NULL, memory_order_acquire);

	while (msg) {
		struct ty_msg *next = msg->next;
		struct ty_actor *actor = ty_container_of(msg, struct ty_actor, nudge_msg);
		bool set = actor->alarm_set;

		if (set)
			alarm_remove(thread, actor);
		ty_send_internal(actor, msg, TY_MSG_URGENT);
		if (set)
			ty_actor_unref(actor);
		ty_actor_unref(actor);
		msg = next;
	}
}

void ty_alarms_serve(struct ty_thread *thread, int64_t now)
{
	if (atomic_load_explicit(&thread->nudges, memory_order_relaxed))
		answer_nudges(thread);
	while (thread->alarms.top && thread->alarms.top->key <= now) {
		struct ty_actor *actor = actor_of(thread->alarms.top);

		alarm_remove(thread, actor);
		actor->alarm_msg = (struct ty_msg){0}; /* the node's place is the message's now */
		ty_send_internal(actor, &actor->alarm_msg, TY_MSG_URGENT);
		ty_actor_unref(actor);
	}
}

int64_t ty_alarms_next(const struct ty_thread *thread)
{
	return thread->alarms.top ? thread->alarms.top->key : TY_NEVER;
}

void ty_alarms_free(struct ty_thread *thread)
{
	answer_nudges(thread);
	while (thread->alarms.top) {
		struct ty_actor *actor = actor_of(thread->alarms.top);

		alarm_remove(thread, actor);
		ty_actor_unref(actor);
	}
}
