/* SPDX-License-Identifier: Apache-2.0
 *
 * Looking at a runtime from outside.
 */
#include <assert.h>

#include "runtime/runtime.h"

bool ty_runtime_step(struct ty_runtime *rt)
{
	assert(rt->sim);
	return ty_sim_step(rt);
}

int64_t ty_runtime_now(const struct ty_runtime *rt)
{
	return rt->sim ? ty_sim_now(rt) : ty_clock();
}

static uint64_t read_counter(const _Atomic(uint64_t) *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

static uint32_t read_few(const _Atomic(uint32_t) *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

struct ty_seat *ty_seat_at(const struct ty_runtime *rt, size_t index)
{
	if (index >= sizeof rt->seats / sizeof rt->seats[0])
		return NULL;
	/* acquire: pairs with ty_seat_take. They are made in order. */
	return atomic_load_explicit(&rt->seats[index], memory_order_acquire);
}

/* The dead are counted before the born, so the difference never is too small: whoever's end is seen was seen to begin. If it is
 * 0, all that were seen to begin have ended. acquire: pairs with ty_actor_retire; seq_cst: with ty_spawn, which
 * counts an actor and then looks whether the runtime stops. */
uint64_t ty_alive(const struct ty_runtime *rt)
{
	uint64_t gone = atomic_load_explicit(&rt->gone, memory_order_acquire), born;
	const struct ty_seat *seat;

	for (size_t i = 0; (seat = ty_seat_at(rt, i)); i++)
		gone += atomic_load_explicit(&seat->gone, memory_order_acquire);
	born = atomic_load_explicit(&rt->born, memory_order_seq_cst);
	for (size_t i = 0; (seat = ty_seat_at(rt, i)); i++)
		born += atomic_load_explicit(&seat->born, memory_order_seq_cst);
	return born - gone;
}

void ty_runtime_stats(const struct ty_runtime *rt, struct ty_runtime_stats *out)
{
	const struct ty_seat *seat;
	const struct ty_pools *pools;

	*out = (struct ty_runtime_stats){.actors = ty_alive(rt)};
	for (size_t i = 0; (seat = ty_seat_at(rt, i)); i++) {
		out->messages += read_counter(&seat->messages);
		out->runs += read_counter(&seat->runs);
		out->exhausted += read_counter(&seat->exhausted);
		out->steals += read_counter(&seat->steals);
		out->parks += read_counter(&seat->parks);
		out->wakes += read_counter(&seat->wakes);
		out->timers += read_counter(&seat->timers);
		for (int handled = 0; handled < 2; handled++) {
			uint64_t dropped = read_counter(&seat->refused[handled][true]);

			out->refused += read_counter(&seat->refused[handled][false]) + dropped;
			out->dropped += dropped;
		}
		pools = atomic_load_explicit(&seat->pools, memory_order_acquire); /* pairs with own_pools */
		if (pools)
			ty_pools_count(pools, &out->blocks, &out->blocks_busy);
		out->misfits += read_counter(&seat->misfits);
	}
}

void ty_accounts(const struct ty_runtime *rt, struct ty_stop_report *out)
{
	const struct ty_seat *seat;

	*out = (struct ty_stop_report){0};
	for (size_t i = 0; (seat = ty_seat_at(rt, i)); i++) {
		out->handled += read_counter(&seat->messages);
		out->returned += read_counter(&seat->refused[false][false]);
		out->dropped += read_counter(&seat->refused[false][true]);
	}
}

void ty_actor_stats(const struct ty_actor *actor, struct ty_actor_stats *out)
{
	const struct ty_counts *counts = &actor->counts;
	struct ty_instant now = ty_instant_read(actor->rt);

	*out = (struct ty_actor_stats){
		.messages = read_counter(&counts->messages),
		.runs = read_counter(&counts->runs),
		.running_ns = (uint64_t)ty_ticks_span(actor->rt, &now, read_counter(&counts->ticks)),
		.exhausted = read_few(&counts->exhausted),
		.refused = read_few(&counts->refused),
		.queue_high = read_few(&counts->queue_high),
	};
}

bool ty_seat_read(const struct ty_seat *seat, struct ty_running *out, uint64_t *since)
{
	/* acquire: pairs with ty_seat_begin, names before the time */
	const char *what = atomic_load_explicit(&seat->what, memory_order_acquire);
	const struct ty_class *cls = atomic_load_explicit(&seat->cls, memory_order_acquire);

	*since = atomic_load_explicit(&seat->since, memory_order_relaxed);
	if (!what || !cls)
		return false;
	out->actor = cls->name;
	out->message = what;
	return true;
}

struct ty_running ty_runtime_longest(const struct ty_runtime *rt)
{
	struct ty_instant now = ty_instant_read(rt);
	struct ty_running longest = {0}, one;
	const struct ty_seat *seat;
	uint64_t since;

	for (size_t i = 0; (seat = ty_seat_at(rt, i)); i++) {
		if (!ty_seat_read(seat, &one, &since))
			continue;
		one.since = ty_ticks_clock(rt, &now, since);
		if (!longest.actor || one.since < longest.since)
			longest = one;
	}
	return longest;
}

bool ty_thread_stats(const struct ty_runtime *rt, uint32_t index, struct ty_thread_stats *out)
{
	const struct ty_seat *seat = ty_seat_at(rt, index);
	struct ty_instant now = ty_instant_read(rt);
	uint64_t since;

	*out = (struct ty_thread_stats){0};
	if (!seat)
		return false;
	out->worker = index < rt->worker_count;
	out->messages = read_counter(&seat->messages);
	out->runs = read_counter(&seat->runs);
	out->running_ns = (uint64_t)ty_ticks_span(rt, &now, ty_seat_worked(seat, now.ticks));
	out->exhausted = read_counter(&seat->exhausted);
	out->steals = read_counter(&seat->steals);
	out->parks = read_counter(&seat->parks);
	out->wakes = read_counter(&seat->wakes);
	out->timers = read_counter(&seat->timers);
	if (out->worker) {
		const struct ty_runq *q = &rt->workers[index].queue;
		/* acquire, head first: then tail is not behind it */
		uint64_t head = atomic_load_explicit(&q->head, memory_order_acquire), waiting = read_counter(&q->tail) - head;

		out->waiting = waiting < TY_RING ? waiting : TY_RING;
		out->queue_high = read_counter(&q->high);
	}
	if (ty_seat_read(seat, &out->running, &since))
		out->running.since = ty_ticks_clock(rt, &now, since);
	return true;
}
