/* SPDX-License-Identifier: Apache-2.0
 *
 * Creating and destroying a runtime, and looking at it from outside.
 */
#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/options.h"
#include "runtime/placement.h"
#include "runtime/runtime.h"

#define DEFAULT_WORKERS 8
#define DEFAULT_BUDGET 512
#define DEFAULT_BUDGET_US 200
#define SPIN_NS 20000      /* what a wake-up costs, or a little less */
#define SPIN_FEW_NS 2000   /* on two CPUs, spinning keeps others from working; on one it keeps back what is waited for */
#define PATIENCE_NS 2000   /* an actor and what it touches take as long to move to another CPU */
#define MIN_STALL_US 100
#define MAX_STALL_US 3600000000u
#define MAX_US 10000000    /* limit of the options in us */
#define RATE_NS 20000      /* how long the counter is watched to learn its rate: to a percent */
#define CALLER_NS 50000    /* between looks whether the last that sends has returned */
#define DEFAULT_POOL (UINT64_C(4) << 20)
#define MAX_POOL (UINT64_C(1) << 40)
#define NODES_ROOT "/sys/devices/system/node"

/* ---- seats --------------------------------------------------------------------------------- */

enum ty_code ty_seat_take(struct ty_runtime *rt, struct ty_seat **out)
{
	size_t most = (rt->worker_count ? rt->worker_count : 1) + TY_MAX_DEDICATED; /* deterministic mode has one thread */

	*out = NULL;
	for (size_t i = 0; i < most; i++) {
		/* acquire: pairs with the exchange below */
		struct ty_seat *seat = atomic_load_explicit(&rt->seats[i], memory_order_acquire);
		bool taken = false;

		if (!seat) {
			struct ty_seat *fresh = aligned_alloc(TY_LINE, sizeof *fresh);

			if (!fresh)
				return TY_NO_MEMORY;
			memset(fresh, 0, offsetof(struct ty_seat, ring.slots));
			atomic_init(&fresh->taken, true);
			if (atomic_compare_exchange_strong_explicit(
				    &rt->seats[i], &seat, fresh, memory_order_acq_rel, memory_order_acquire)) {
				*out = fresh;
				return TY_OK;
			}
			free(fresh); /* another was first; `seat` is its */
		}
		/* acquire: pairs with ty_seat_leave, the counters go on from there */
		if (atomic_compare_exchange_strong_explicit(
			    &seat->taken, &taken, true, memory_order_acquire, memory_order_relaxed)) {
			*out = seat;
			return TY_OK;
		}
	}
	return TY_LIMIT;
}

void ty_seat_leave(struct ty_seat *seat)
{
	atomic_store_explicit(&seat->taken, false, memory_order_release);
}

/* ---- creation ------------------------------------------------------------------------------ */

/* No signal that comes from outside is handled on a thread of the runtime: the program's other threads get them. What a handler
 * brings upon itself is the program's, as on any thread: blocked, the kernel would end the process past the program's handler. */
int ty_thread_create(pthread_t *id, const pthread_attr_t *attr, void *(*main)(void *), void *arg)
{
	static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
	sigset_t others, before;
	int error;

	sigfillset(&others);
	for (size_t i = 0; i < sizeof own / sizeof *own; i++)
		sigdelset(&others, own[i]);
	pthread_sigmask(SIG_BLOCK, &others, &before);
	error = pthread_create(id, attr, main, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return error;
}

static uint32_t cpus_online(void)
{
	cpu_set_t cpus;

	if (sched_getaffinity(0, sizeof cpus, &cpus) == 0)
		return (uint32_t)CPU_COUNT(&cpus);
	return 1;
}

static enum ty_code check_placement(const struct ty_runtime_options *o, struct ty_error *err)
{
	if ((unsigned)o->placement > TY_ON_NODES)
		return ty_fail(err, TY_INVALID, "options.placement is %u, expected one of enum ty_placement",
			(unsigned)o->placement);
	if (!o->cpus != !o->cpu_count)
		return ty_fail(err, TY_INVALID, "options.cpu_count is %u and options.cpus %s, expected both or neither",
			o->cpu_count, o->cpus ? "given" : "null");
	if (o->seed && (o->cpus || o->placement))
		return ty_fail(err, TY_INVALID, "options.cpus or options.placement is given, but deterministic mode has no workers");
	if (o->cpus && o->placement)
		return ty_fail(err, TY_INVALID, "options.cpus and options.placement are given, expected one of them");
	for (uint32_t i = 0; i < o->cpu_count; i++)
		if (o->cpus[i] < 0 || o->cpus[i] >= CPU_SETSIZE)
			return ty_fail(err, TY_INVALID, "options.cpus[%u] is %d, expected 0 to %d", i, o->cpus[i],
				CPU_SETSIZE - 1);
	return TY_OK;
}

static enum ty_code check_options(const struct ty_runtime_options *o, struct ty_error *err)
{
	if (o->name && strlen(o->name) > 8)
		return ty_fail(err, TY_INVALID, "options.name is \"%.40s\", expected at most 8 characters", o->name);
	if (o->workers > TY_MAX_WORKERS)
		return ty_fail(err, TY_INVALID, "options.workers is %u, expected at most %d", o->workers,
			TY_MAX_WORKERS);
	if (o->budget_us > MAX_US)
		return ty_fail(err, TY_INVALID, "options.budget_us is %u, expected at most %d", o->budget_us, MAX_US);
	if (o->spin_us > MAX_US)
		return ty_fail(err, TY_INVALID, "options.spin_us is %u, expected at most %d", o->spin_us, MAX_US);
	if (!o->stall_us != !o->stalled)
		return ty_fail(err, TY_INVALID, "options.stall_us is %u and options.stalled %s, expected both or neither",
			o->stall_us, o->stalled ? "given" : "null");
	if (o->stall_us && (o->stall_us < MIN_STALL_US || o->stall_us > MAX_STALL_US))
		return ty_fail(err, TY_INVALID, "options.stall_us is %u, expected %d to %u", o->stall_us, MIN_STALL_US,
			MAX_STALL_US);
	if (o->pool_bytes > MAX_POOL)
		return ty_fail(err, TY_INVALID, "options.pool_bytes is %llu, expected at most %llu",
			(unsigned long long)o->pool_bytes, (unsigned long long)MAX_POOL);
	if (o->stall_us && o->seed)
		return ty_fail(err, TY_INVALID, "options.stall_us is given, but deterministic mode has no watchdog");
	return check_placement(o, err);
}

/* As the counter goes. A budget need not be exact. */
static uint64_t ticks_of(const struct ty_runtime *rt, uint64_t ns)
{
	struct ty_instant now;

	if (!rt->counter)
		return ns;
	do
		now = ty_instant_read(rt);
	while (now.ns - rt->created.ns < RATE_NS);
	return (uint64_t)((double)ns * (double)(now.ticks - rt->created.ticks) / (double)(now.ns - rt->created.ns));
}

static void apply_options(struct ty_runtime *rt, const struct ty_runtime_options *o)
{
	uint32_t cpus = cpus_online();

	snprintf(rt->name, sizeof rt->name, "%s", o->name ? o->name : "tyer");
	rt->worker_count = o->workers;
	if (!rt->worker_count)
		rt->worker_count = cpus < DEFAULT_WORKERS ? cpus : DEFAULT_WORKERS;
	atomic_init(&rt->budget_messages, o->budget_messages ? o->budget_messages : DEFAULT_BUDGET);
	rt->spin_ns = (int64_t)o->spin_us * 1000;
	if (!o->spin_us)
		rt->spin_ns = cpus < 2 ? 0 : cpus == 2 ? SPIN_FEW_NS : SPIN_NS;
	rt->pool_bytes = o->pool_bytes ? o->pool_bytes : DEFAULT_POOL;
	if (o->seed)
		rt->worker_count = 0;
	rt->misfit = o->misfit;
	rt->misfit_user = o->misfit_user;
	rt->counter = !o->seed && ty_counter_steady();
	if (!o->seed)
		rt->created = ty_instant_read(rt);
	rt->patience_ticks = ticks_of(rt, PATIENCE_NS);
	rt->budget_ticks = ticks_of(rt, (uint64_t)(o->budget_us ? o->budget_us : DEFAULT_BUDGET_US) * 1000);
}

static void join_workers(struct ty_runtime *rt, uint32_t started)
{
	/* seq_cst: pairs with must_stay in worker.c */
	atomic_store_explicit(&rt->joining, true, memory_order_seq_cst);
	for (uint32_t i = 0; i < started; i++)
		ty_park_wake(&rt->workers[i].park);
	for (uint32_t i = 0; i < started; i++)
		pthread_join(rt->workers[i].id, NULL);
}

static void free_runtime(struct ty_runtime *rt)
{
	struct ty_seat *seat;

	ty_registry_free(&rt->registry);
	ty_depot_free(&rt->depot);
	for (size_t i = 0; (seat = ty_seat_at(rt, i)); i++) {
		ty_pools_free(atomic_load_explicit(&seat->pools, memory_order_relaxed));
		ty_spares_free(&seat->spares);
		free(seat);
	}
	ty_names_free(atomic_load_explicit(&rt->names, memory_order_relaxed));
	free(rt->workers);
	free(rt);
}

static enum ty_code start_worker(struct ty_worker *worker, const struct ty_runtime_options *o,
	const struct ty_nodes *nodes, struct ty_error *err)
{
	pthread_attr_t attr;
	cpu_set_t cpus;
	char name[16];
	int error = pthread_attr_init(&attr);

	if (error)
		return ty_fail(err, TY_NO_MEMORY, "thread of worker %u: %s", worker->index, strerror(error));
	if (o->cpus) {
		CPU_ZERO(&cpus);
		CPU_SET((size_t)o->cpus[worker->index % o->cpu_count], &cpus);
	} else if (o->placement) {
		ty_place(nodes, o->placement, worker->index, &cpus);
	}
	if (o->cpus || o->placement)
		error = pthread_attr_setaffinity_np(&attr, sizeof cpus, &cpus);
	if (!error)
		error = ty_thread_create(&worker->id, &attr, ty_worker_main, worker);
	pthread_attr_destroy(&attr);
	if (error == EINVAL && o->cpus)
		return ty_fail(err, TY_INVALID, "options.cpus[%u] is %d, expected a CPU that this process may use",
			worker->index % o->cpu_count, o->cpus[worker->index % o->cpu_count]);
	if (error)
		return ty_fail(err, TY_LIMIT, "thread of worker %u: %s", worker->index, strerror(error));
	snprintf(name, sizeof name, "%s-w%hhu", worker->thread.rt->name, (unsigned char)worker->index);
	pthread_setname_np(worker->id, name);
	return TY_OK;
}

static enum ty_code start_workers(struct ty_runtime *rt, const struct ty_runtime_options *options, struct ty_error *err)
{
	struct ty_nodes nodes = {0};
	size_t size = rt->worker_count * sizeof(struct ty_worker);

	rt->workers = aligned_alloc(TY_LINE, size);
	if (!rt->workers)
		return ty_fail(err, TY_NO_MEMORY, "no memory for %u workers", rt->worker_count);
	memset(rt->workers, 0, size);
	for (uint32_t i = 0; i < rt->worker_count; i++) {
		struct ty_worker *worker = &rt->workers[i];

		worker->thread.rt = rt;
		worker->thread.worker = worker;
		worker->index = worker->random = i;
		ty_park_init(&worker->park);
		if (ty_seat_take(rt, &worker->thread.seat) != TY_OK)
			return ty_fail(err, TY_NO_MEMORY, "no memory for worker %u", i);
	}
	if (options->placement)
		ty_nodes_read(NODES_ROOT, &nodes);
	for (uint32_t i = 0; nodes.count && i < rt->worker_count; i++)
		rt->workers[i].node = i % nodes.count; /* as ty_place does; before any of them looks at another's */
	for (uint32_t i = 0; i < rt->worker_count; i++) {
		enum ty_code code = start_worker(&rt->workers[i], options, &nodes, err);

		if (code != TY_OK) {
			join_workers(rt, i);
			return code;
		}
	}
	return TY_OK;
}

enum ty_code ty_runtime_create(const struct ty_runtime_options *options, struct ty_runtime **out, struct ty_error *err)
{
	static const struct ty_runtime_options defaults = {.size = sizeof defaults};
	struct ty_runtime_options adapted;
	struct ty_error why;
	struct ty_runtime *rt;
	enum ty_code code;

	options = ty_options_take(options, sizeof *options, &defaults, &adapted, &why);
	if (!options)
		return ty_fail(err, why.code, "%s", why.text);
	code = check_options(options, err);
	if (code != TY_OK)
		return code;
	rt = aligned_alloc(TY_LINE, sizeof *rt);
	if (!rt)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a runtime");
	memset(rt, 0, sizeof *rt);
	ty_park_init(&rt->park);
	apply_options(rt, options);
	code = options->seed ? ty_sim_create(rt, options->seed, err) : start_workers(rt, options, err);
	if (code == TY_OK && options->stall_us) {
		code = ty_watchdog_start(rt, options, err);
		if (code != TY_OK)
			join_workers(rt, rt->worker_count);
	}
	if (code != TY_OK) {
		free_runtime(rt);
		return code;
	}
	*out = rt;
	return TY_OK;
}

/* ---- destruction --------------------------------------------------------------------------- */

static void join_dedicated(struct ty_runtime *rt)
{
	for (;;) {
		uint32_t ticket = ty_park_ticket(&rt->park);

		ty_dedicated_reap(rt, true);
		if (atomic_load_explicit(&rt->threads, memory_order_relaxed) == 0)
			return;
		ty_park_wait(&rt->park, ticket, TY_NEVER);
	}
}

/* Whoever sent what ended the last actor, from a thread of the program's or of another runtime, may have been preempted before it
 * has told a worker (tests/model/destroy.pml). */
static void wait_for_callers(struct ty_runtime *rt)
{
	for (uint32_t i = 0; i < rt->worker_count; i++)
		while (atomic_load_explicit(&rt->workers[i].callers, memory_order_acquire)) /* pairs with ty_pool_schedule */
			ty_park_wait(&rt->park, ty_park_ticket(&rt->park), ty_clock() + CALLER_NS);
}

void ty_runtime_destroy(struct ty_runtime *rt)
{
	enum ty_code all_over;

	if (!rt)
		return;
	assert(!ty_current || ty_current->rt != rt);
	/* acquire: pairs with ty_port_close */
	assert(atomic_load_explicit(&rt->ports, memory_order_acquire) == 0); /* ports are closed first */
	all_over = ty_runtime_stop(rt, TY_NEVER, TY_NEVER, NULL);
	assert(all_over == TY_OK);
	(void)all_over;
	join_dedicated(rt);
	if (rt->sim) {
		ty_sim_free(rt);
	} else {
		join_workers(rt, rt->worker_count);
		wait_for_callers(rt);
		for (uint32_t i = 0; i < rt->worker_count; i++)
			ty_alarms_free(&rt->workers[i].thread);
	}
	ty_watchdog_stop(rt); /* the last: until here something may hang */
	free_runtime(rt);
}
