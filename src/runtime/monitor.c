/* SPDX-License-Identifier: Apache-2.0
 *
 * Monitors, and links, which are monitors whose DOWN the runtime handles. A monitor is a token that is with
 * the watcher, with the target, or in a mailbox between them:
 *
 *	watcher --WATCH--> in the target's list --DOWN--> watcher
 *
 * It comes back once, whatever happens: at the target's end, or when UNWATCH, a second envelope, asks for
 * it. Only the watcher knows whether it still wants the DOWN, so a demonitor needs no agreement. UNWATCH is
 * sent after WATCH and the target handles both before it gives the token back: a token that is back has
 * no envelope out.
 *
 * When the target's mailbox is closed, its stop is still to come and may send messages that the DOWN must
 * not overtake. Who watches then joins a list on the mailbox's word, which the target takes whole, and ends, as
 * the last thing it does.
 *
 *	field             written by                       read by
 *	in_next, in_prev  the target's runner; who joins late (in_next)   the target's runner
 *	out_*, cancelled  the watcher's runner             the watcher's runner
 *	out               the watcher's runner; once its mailbox is closed, who has the token      the watcher's runner
 *	others            the watcher before the token goes out             anyone who has it
 *
 * A token that is out holds a reference to both.
 */
#include <assert.h>
#include <stdalign.h>

#include "runtime/runtime.h"

/*
 * A name (names.c) is a token as well, whose watcher is the runtime: at the target's end it comes back to
 * ty_names_home, before any DOWN is sent, so that who hears of the end finds the name free.
 */
enum { WATCH = 1, UNWATCH, DOWN }; /* ty_msg.type of internal messages; 0: others' */

/* What ty_monitor.opaque holds. */
struct ty_monitor_core {
	struct ty_msg unwatch;
	struct ty_actor *watcher, *target;           /* watcher: null for a name's */
	struct ty_monitor_core *in_next, *in_prev;   /* the target's list */
	struct ty_monitor_core *out_next, *out_prev; /* the watcher's list */
	uint32_t type;                    /* of the DOWN */
	bool link;
	_Atomic(bool) out;                /* the token is away, or in the watcher's mailbox */
	bool cancelled;                   /* the watcher's: no DOWN wanted */
};
static_assert(sizeof(struct ty_monitor_core) <= sizeof(((struct ty_monitor *)0)->opaque), "fits");
static_assert(alignof(struct ty_monitor_core) <= alignof(void *), "fits");

static struct ty_monitor_core *core_of(struct ty_monitor *monitor)
{
	return (struct ty_monitor_core *)(void *)monitor->opaque;
}

static struct ty_monitor *monitor_of(struct ty_monitor_core *core)
{
	return ty_container_of(core, struct ty_monitor, opaque);
}

/* ---- the two lists ------------------------------------------------------------------------- */

static void in_add(struct ty_actor *target, struct ty_monitor_core *core)
{
	core->in_prev = NULL;
	core->in_next = target->watchers;
	if (core->in_next)
		core->in_next->in_prev = core;
	target->watchers = core;
}

static void in_remove(struct ty_actor *target, struct ty_monitor_core *core)
{
	if (core->in_prev)
		core->in_prev->in_next = core->in_next;
	else
		target->watchers = core->in_next;
	if (core->in_next)
		core->in_next->in_prev = core->in_prev;
}

static void out_add(struct ty_actor *watcher, struct ty_monitor_core *core)
{
	core->out_prev = NULL;
	core->out_next = watcher->watching;
	if (core->out_next)
		core->out_next->out_prev = core;
	watcher->watching = core;
}

static void out_remove(struct ty_actor *watcher, struct ty_monitor_core *core)
{
	if (core->out_prev)
		core->out_prev->out_next = core->out_next;
	else
		watcher->watching = core->out_next;
	if (core->out_next)
		core->out_next->out_prev = core->out_prev;
}

/* ---- the token comes back ------------------------------------------------------------------ */

/* No DOWN: the watcher did not want it, or is over. */
static void release(struct ty_monitor_core *core)
{
	struct ty_actor *watcher = core->watcher, *target = core->target;
	struct ty_monitor *monitor = monitor_of(core);
	void (*to_release)(struct ty_monitor *monitor) = monitor->release;

	/* release: pairs with ty_monitor_home, for a watcher whose stop has no other way to hear of it. Then it may be gone. */
	atomic_store_explicit(&core->out, false, memory_order_release);
	if (to_release)
		to_release(monitor);
	ty_actor_unref(target);
	ty_actor_unref(watcher); /* last: the monitor may be in its state */
}

/* Caller: whoever has the token. */
static void give_back(struct ty_monitor_core *core, enum ty_code reason)
{
	struct ty_actor *watcher = core->watcher;
	struct ty_monitor *monitor = monitor_of(core);

	if (!watcher) {
		struct ty_actor *target = core->target;

		ty_names_home(monitor);
		ty_actor_unref(target);
		return;
	}
	monitor->reason = reason;
	if (ty_send_flags(watcher, &monitor->msg, DOWN, TY_MSG_INTERNAL) != TY_OK) {
		bool over = ty_mailbox_closed(&watcher->box); /* it has taken it out of its list */

		assert(over);
		release(core);
	}
}

/* ---- the watcher --------------------------------------------------------------------------- */

/* False: the target is over (acquire: its reason is there), the token is the caller's. */
static bool join_late(struct ty_monitor_core *core)
{
	struct ty_actor *target = core->target;
	uintptr_t old = atomic_load_explicit(&target->box.word, memory_order_acquire);

	do {
		if ((old & TY_BOX_OVER) == TY_BOX_OVER)
			return false;
		core->in_next = (struct ty_monitor_core *)(old & ~TY_BOX_CLOSED);
	} while (!atomic_compare_exchange_weak_explicit( /* release: pairs with ty_mailbox_end */
		&target->box.word, &old, (uintptr_t)core | TY_BOX_CLOSED, memory_order_release, memory_order_acquire));
	return true;
}

/* Give the token to its target. False: that is over, the token is the caller's. */
static bool hand_out(struct ty_monitor_core *core)
{
	return ty_send_flags(core->target, &monitor_of(core)->msg, WATCH, TY_MSG_INTERNAL) == TY_OK || join_late(core);
}

static void watch(struct ty_actor *target, struct ty_monitor *monitor, uint32_t type, bool link)
{
	struct ty_monitor_core *core = core_of(monitor);
	struct ty_actor *self = ty_self();

	assert(self); /* monitors are for handlers */
	assert(ty_monitor_home(monitor)); /* it is out already */
	*core = (struct ty_monitor_core){.watcher = ty_actor_ref(self), .target = ty_actor_ref(target), .type = type,
		.link = link, .out = true};
	if (self->closing) {
		release(core);
		return;
	}
	out_add(self, core);
	if (!hand_out(core))
		give_back(core, (enum ty_code)target->reason);
}

void ty_monitor(struct ty_actor *target, struct ty_monitor *monitor, uint32_t type)
{
	assert(ty_current && ty_current->self); /* monitors are for handlers */
	assert(type - ty_self()->cls->first_type < ty_self()->cls->type_count);
	watch(target, monitor, type, false);
}

void ty_link(struct ty_actor *target, struct ty_monitor *link)
{
	assert(!ty_self() || !ty_self()->threaded || ty_current->reader); /* a port's thread is none of ours: it cannot fall */
	watch(target, link, 0, true);
}

bool ty_monitor_home(const struct ty_monitor *monitor)
{
	const struct ty_monitor_core *core = (const struct ty_monitor_core *)(const void *)monitor->opaque;

	return !atomic_load_explicit(&core->out, memory_order_acquire); /* pairs with release */
}

static void cancel(struct ty_monitor_core *core)
{
	core->cancelled = true;
	/* if its mailbox is closed, the token comes anyway */
	(void)!ty_send_flags(core->target, &core->unwatch, UNWATCH, TY_MSG_INTERNAL);
}

bool ty_monitors_attach(struct ty_actor *target, struct ty_monitor *name)
{
	struct ty_monitor_core *core = core_of(name);

	*core = (struct ty_monitor_core){.target = ty_actor_ref(target), .out = true};
	if (hand_out(core))
		return true;
	ty_actor_unref(target);
	return false;
}

void ty_monitors_detach(struct ty_monitor *name)
{
	cancel(core_of(name));
}

void ty_demonitor(struct ty_monitor *monitor)
{
	struct ty_monitor_core *core = core_of(monitor);

	if (ty_monitor_home(monitor) || core->cancelled)
		return;
	assert(ty_self() == core->watcher);
	cancel(core);
}

struct ty_msg *ty_monitors_internal(struct ty_actor *actor, struct ty_msg *msg)
{
	uint32_t kind = msg->type;
	struct ty_monitor *monitor;
	struct ty_monitor_core *core;

	msg->flags = 0;
	if (kind == UNWATCH) {
		core = ty_container_of(msg, struct ty_monitor_core, unwatch);
		in_remove(actor, core);
		give_back(core, TY_OK);
		return NULL;
	}
	monitor = ty_container_of(msg, struct ty_monitor, msg);
	core = core_of(monitor);
	if (kind == WATCH) {
		in_add(actor, core);
		return NULL;
	}
	assert(kind == DOWN);
	if (!actor->closing)
		out_remove(actor, core);
	if (core->link && !core->cancelled && !actor->closing && monitor->reason != TY_OK)
		ty_actor_fail(monitor->reason);
	if (core->link || core->cancelled || actor->closing) {
		release(core);
		return NULL;
	}
	atomic_store_explicit(&core->out, false, memory_order_relaxed); /* on the watcher's own thread */
	msg->type = core->type;
	ty_actor_unref(core->target);
	ty_actor_unref(actor); /* not the last: it runs */
	return msg;
}

/* ---- an actor's end ------------------------------------------------------------------------ */

void ty_monitors_close(struct ty_actor *actor)
{
	while (actor->watching) {
		struct ty_monitor_core *core = actor->watching;

		out_remove(actor, core);
		if (!core->cancelled)
			cancel(core);
	}
}

/* Give back a list: its names (or, of those that are none, all) and return the rest. */
static struct ty_monitor_core *give_back_list(struct ty_monitor_core *list, bool names, enum ty_code reason)
{
	struct ty_monitor_core *rest = NULL;

	while (list) {
		struct ty_monitor_core *next = list->in_next;

		if (!list->watcher == names) {
			give_back(list, reason);
		} else {
			list->in_next = rest;
			rest = list;
		}
		list = next;
	}
	return rest;
}

void ty_monitors_end(struct ty_actor *actor)
{
	struct ty_monitor_core *listed = give_back_list(actor->watchers, true, (enum ty_code)actor->reason), *late;

	actor->watchers = NULL;
	late = ty_mailbox_end(&actor->box);
	late = give_back_list(late, true, (enum ty_code)actor->reason);
	give_back_list(listed, false, (enum ty_code)actor->reason);
	give_back_list(late, false, (enum ty_code)actor->reason);
}

/* ---- failing ------------------------------------------------------------------------------- */

static void end_self(enum ty_code code)
{
	struct ty_actor *self = ty_self();

	assert(self); /* an actor ends itself */
	assert(!self->threaded || ty_current->reader); /* a port is closed by its thread */
	if (self->failing || self->closing)
		return;
	self->failing = true;
	self->reason = (int16_t)code;
	self->timers_changed = true; /* what a run looks at between messages */
}

void ty_actor_fail(enum ty_code code)
{
	assert(code != TY_OK && (int)code <= INT16_MAX);
	end_self(code);
}

void ty_actor_end(void)
{
	end_self(TY_OK);
}
