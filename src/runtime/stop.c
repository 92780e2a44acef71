/* SPDX-License-Identifier: Apache-2.0
 *
 * Stopping a runtime's actors, the youngest first, each to its end; and, when that takes too long, cutting short what is
 * left: with its present run an actor ends as if it had been stopped there, so that what it did not handle is refused.
 *
 * Cutting is a budget of 0 for every run (rt->budget_messages), and stop_msg once more for those that put off their stop:
 * such an actor says ASKED and then looks at the budget, who cuts sets the budget and then looks for ASKED. All four are
 * seq_cst, so one of the two sees the other (tests/model/shutdown.pml). Who lives, who is waited for and who wakes:
 * tests/model/alive.pml.
 */
#include <assert.h>

#include "runtime/runtime.h"

#define SPAWN_NS 1000000 /* between looks for the actor of a spawn that was under way */

/* seq_cst: after rt->stopping was set and the ticket drawn; pairs with ty_actor_retire */
static bool is_dead(const struct ty_actor *actor)
{
	return atomic_load_explicit(&actor->box.word, memory_order_seq_cst) == TY_BOX_DEAD;
}

static void cut_all(struct ty_runtime *rt, struct ty_stop_report *report)
{
	atomic_store_explicit(&rt->budget_messages, 0, memory_order_seq_cst);
	for (struct ty_actor *actor = rt->unstopped; actor; actor = actor->list_next) {
		report->cut += !is_dead(actor);
		ty_actor_cut(actor);
	}
}

/* Let time pass until `until`, or something ended since `ticket`. False: nothing ever will. */
static bool pass(struct ty_runtime *rt, uint32_t ticket, int64_t until)
{
	if (rt->sim)
		return ty_sim_step(rt) || until != TY_NEVER; /* a step takes its time also when nothing is to be done */
	ty_park_wait(&rt->park, ticket, until);
	return true;
}

/* True: it has ended. False: the time has come, or it never will. */
static bool wait_for_end(struct ty_runtime *rt, const struct ty_actor *actor, int64_t until)
{
	for (;;) {
		uint32_t ticket = ty_park_ticket(&rt->park);

		if (is_dead(actor))
			return true;
		if ((until != TY_NEVER && ty_runtime_now(rt) >= until) || !pass(rt, ticket, until))
			return false;
	}
}

static enum ty_code stop_all(struct ty_runtime *rt, int64_t drain, int64_t deadline, struct ty_stop_report *report)
{
	bool cutting = atomic_load_explicit(&rt->budget_messages, memory_order_relaxed) == 0; /* by an earlier call */

	for (;;) {
		uint32_t ticket = ty_park_ticket(&rt->park);
		struct ty_actor *actor;

		if (!rt->unstopped)
			rt->unstopped = ty_registry_take_all(&rt->registry);
		actor = rt->unstopped;
		if (!actor) {
			int64_t now = ty_runtime_now(rt);

			/* a spawn may be about to add one, or to give up */
			if (ty_alive(rt) == 0)
				return TY_OK;
			if (now >= deadline)
				return TY_TIMEOUT;
			pass(rt, ticket, deadline - now < SPAWN_NS ? deadline : now + SPAWN_NS);
			continue;
		}
		if (cutting)
			ty_actor_cut(actor);
		else
			ty_actor_stop(actor);
		if (wait_for_end(rt, actor, cutting ? deadline : drain)) {
			rt->unstopped = actor->list_next;
			ty_actor_unref(actor); /* the registry's */
		} else if (!cutting) {
			cutting = true;
			cut_all(rt, report);
		} else {
			return TY_TIMEOUT;
		}
	}
}

enum ty_code ty_runtime_stop(struct ty_runtime *rt, int64_t drain, int64_t deadline, struct ty_stop_report *report)
{
	struct ty_stop_report before, after, unwanted;
	enum ty_code code;

	assert(!ty_current || ty_current->rt != rt); /* it waits */
	if (!report)
		report = &unwanted;
	*report = (struct ty_stop_report){0};
	/* seq_cst: says that it stops, then looks who is alive; pairs with ty_spawn */
	atomic_store_explicit(&rt->stopping, true, memory_order_seq_cst);
	ty_accounts(rt, &before);
	code = stop_all(rt, drain < deadline ? drain : deadline, deadline, report);
	ty_accounts(rt, &after);
	report->handled = after.handled - before.handled;
	report->returned = after.returned - before.returned;
	report->dropped = after.dropped - before.dropped;
	report->alive = ty_alive(rt);
	if (code != TY_OK)
		report->stuck = ty_runtime_longest(rt);
	return code;
}
