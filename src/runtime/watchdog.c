/* SPDX-License-Identifier: Apache-2.0
 *
 * The watchdog: a thread that looks at what every other thread runs, twice per limit, and names what has run for longer
 * than the limit, once. It reads the seats and touches nothing, so nothing that blocks a run blocks it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <urcu/urcu-memb.h>

#include "runtime/runtime.h"

struct ty_watchdog {
	struct ty_runtime *rt;
	struct ty_park park;
	pthread_t id;
	int64_t limit;
	void (*stalled)(void *user, const struct ty_stall *stall);
	void *user;
	_Atomic(bool) ends;                                /* set by destroy; release, acquire */
	uint64_t told[TY_MAX_WORKERS + TY_MAX_DEDICATED];  /* its thread's: the begin of the last that was named, a seat */
};

static void look_at(struct ty_watchdog *dog, const struct ty_seat *seat, uint64_t *told)
{
	struct ty_running running, again;
	struct ty_instant now;
	struct ty_stall stall;
	uint64_t since, since_again;

	if (!ty_seat_read(seat, &running, &since) || since == *told)
		return;
	now = ty_instant_read(dog->rt);
	stall.age = now.ns - ty_ticks_clock(dog->rt, &now, since);
	if (stall.age <= dog->limit)
		return;
	/* the same once more: then the names are those of what began then */
	if (!ty_seat_read(seat, &again, &since_again) || since_again != since || again.message != running.message ||
		again.actor != running.actor)
		return;
	*told = since;
	stall.actor = running.actor;
	stall.message = running.message;
	dog->stalled(dog->user, &stall);
}

static void *watchdog_main(void *arg)
{
	struct ty_watchdog *dog = arg;

	urcu_memb_register_thread();
	for (;;) {
		uint32_t ticket = ty_park_ticket(&dog->park);
		const struct ty_seat *seat;

		/* acquire: pairs with ty_watchdog_stop */
		if (atomic_load_explicit(&dog->ends, memory_order_acquire))
			break;
		for (size_t i = 0; (seat = ty_seat_at(dog->rt, i)); i++)
			look_at(dog, seat, &dog->told[i]);
		ty_park_wait(&dog->park, ticket, ty_clock() + dog->limit / 2);
	}
	urcu_memb_unregister_thread();
	return NULL;
}

enum ty_code ty_watchdog_start(struct ty_runtime *rt, const struct ty_runtime_options *options, struct ty_error *err)
{
	struct ty_watchdog *dog = calloc(1, sizeof *dog);
	char name[16];
	int error;

	if (!dog)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a watchdog");
	dog->rt = rt;
	dog->limit = (int64_t)options->stall_us * 1000;
	dog->stalled = options->stalled;
	dog->user = options->stalled_user;
	ty_park_init(&dog->park);
	error = ty_thread_create(&dog->id, NULL, watchdog_main, dog);
	if (error) {
		free(dog);
		return ty_fail(err, TY_LIMIT, "thread of the watchdog: %s", strerror(error));
	}
	snprintf(name, sizeof name, "%s-dog", rt->name);
	pthread_setname_np(dog->id, name);
	rt->watchdog = dog;
	return TY_OK;
}

void ty_watchdog_stop(struct ty_runtime *rt)
{
	struct ty_watchdog *dog = rt->watchdog;

	if (!dog)
		return;
	atomic_store_explicit(&dog->ends, true, memory_order_release);
	ty_park_wake(&dog->park);
	pthread_join(dog->id, NULL);
	free(dog);
}
