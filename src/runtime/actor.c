/* SPDX-License-Identifier: Apache-2.0
 *
 * Spawning, addressing and sending.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "runtime/runtime.h"

_Thread_local struct ty_thread *ty_current;

static const struct ty_spawn_options default_options = {.size = sizeof(struct ty_spawn_options), .cpu = -1};

static bool class_valid(const struct ty_class *cls, const struct ty_spawn_options *options)
{
	if (!cls || !cls->name || cls->state_size > TY_MAX_STATE || cls->type_count > TY_INDEX_UNKNOWN ||
		(cls->type_count && !cls->handlers))
		return false;
	if (!cls->wait.wait != !cls->wait.wake)
		return false;
	if (options->cpu < -1)
		return false;
	if (options->thread_name && strlen(options->thread_name) > 15)
		return false;
	if (options->executor == TY_POOL)
		return !cls->poll && !cls->wait.wait;
	return options->executor == TY_DEDICATED;
}

/* The thread's part of a runtime; null: it has none there. */
static struct ty_seat *seat_in(const struct ty_runtime *rt)
{
	return ty_current && ty_current->rt == rt ? ty_current->seat : NULL;
}

struct ty_actor *ty_actor_new(struct ty_runtime *rt, const struct ty_class *cls, void *arg)
{
	size_t room = ty_state_room(cls->state_size);
	struct ty_seat *seat = seat_in(rt);
	unsigned char *memory = ty_spare_take(seat ? &seat->spares : NULL, &rt->depot, sizeof(struct ty_actor), room);
	struct ty_actor *actor;

	if (!memory)
		return NULL;
	memset(memory, 0, room + sizeof(struct ty_actor));
	actor = (struct ty_actor *)(void *)(memory + room);
	atomic_init(&actor->box.word, TY_BOX_EMPTY); /* not IDLE: it is scheduled, to start */
	atomic_init(&actor->refs, 2);                /* the registry's, the caller's */
	actor->rt = rt;
	actor->cls = cls;
	actor->arg = arg;
	actor->alarm_home = TY_NOWHERE;
	actor->number = atomic_fetch_add_explicit(&rt->spawned, 1, memory_order_relaxed);
	if (rt->sim)
		actor->sim_poll = TY_NEVER;
	else
		atomic_init(&actor->last, (uint8_t)(actor->number % rt->worker_count));
	return actor;
}

void ty_actor_free(struct ty_actor *actor)
{
	size_t room = ty_state_room(actor->cls->state_size);
	void *memory = ty_state(actor);

	if (actor->threaded)
		ty_dedicated_free(actor);
	/* its own runtime may be gone: the thread's has a use for it */
	ty_spare_put(ty_current ? &ty_current->seat->spares : NULL, ty_current ? &ty_current->rt->depot : NULL, memory,
		sizeof(struct ty_actor), room);
}

/* Only the seat's thread changes its counters, so they need no read-modify-write. */
static void count_born(struct ty_runtime *rt, struct ty_seat *seat)
{
	/* seq_cst: see ty_spawn */
	if (seat)
		atomic_store_explicit(&seat->born, atomic_load_explicit(&seat->born, memory_order_relaxed) + 1,
			memory_order_seq_cst);
	else
		atomic_fetch_add_explicit(&rt->born, 1, memory_order_seq_cst);
}

/* release: whoever sees it sees all that the actor did; pairs with ty_alive */
static void count_gone(struct ty_runtime *rt, struct ty_seat *seat)
{
	if (seat)
		atomic_store_explicit(&seat->gone, atomic_load_explicit(&seat->gone, memory_order_relaxed) + 1,
			memory_order_release);
	else
		atomic_fetch_add_explicit(&rt->gone, 1, memory_order_release);
}

enum ty_code ty_spawn(struct ty_runtime *rt, const struct ty_class *cls, void *arg,
	const struct ty_spawn_options *options, struct ty_actor **out)
{
	struct ty_seat *seat = seat_in(rt);
	struct ty_spawn_options adapted;
	struct ty_actor *actor = NULL;
	enum ty_code code = TY_NO_MEMORY;
	struct ty_error err;

	options = ty_options_take(options, sizeof *options, &default_options, &adapted, &err);
	if (!options)
		return err.code;
	if (!class_valid(cls, options))
		return TY_INVALID;
	/* seq_cst, both: counted alive, then looks whether the runtime stops. Pairs with
	 * ty_runtime_destroy, which says that it stops, then looks who is alive. */
	count_born(rt, seat);
	if (atomic_load_explicit(&rt->stopping, memory_order_seq_cst)) {
		code = TY_STOPPING;
		goto fail;
	}
	actor = ty_actor_new(rt, cls, arg);
	if (!actor)
		goto fail;
	if (options->executor == TY_DEDICATED && !rt->sim) {
		code = ty_dedicated_create(actor, options);
		if (code != TY_OK)
			goto fail;
	}
	code = ty_registry_add(&rt->registry, seat ? &seat->free_slots : NULL, actor);
	if (code != TY_OK)
		goto fail;
	*out = actor;
	if (!actor->threaded) {
		ty_schedule(actor);
		return TY_OK;
	}
	code = ty_dedicated_start(actor);
	if (code != TY_OK) {
		*out = NULL;
		ty_actor_retire(actor);
		ty_actor_unref(actor); /* the caller's */
	}
	return code;

fail:
	if (actor)
		ty_actor_free(actor);
	count_gone(rt, seat);
	ty_park_wake(&rt->park);
	return code;
}

void ty_actor_retire(struct ty_actor *actor)
{
	struct ty_runtime *rt = actor->rt;
	struct ty_seat *seat = seat_in(rt);
	bool ours = ty_registry_remove(&rt->registry, seat ? &seat->free_slots : NULL, actor->slot);

	/* Before it says that it is dead: who sees that sees this. The runtime outlives this: destroy joins this thread, or
	 * it is the caller's spawn. */
	count_gone(rt, seat);
	/* seq_cst, both: says that it is dead, then looks whether anybody waits for that; pairs with stop.c, which says that
	 * the runtime stops and then looks who is dead. It holds a reference if we do not. */
	atomic_store_explicit(&actor->box.word, TY_BOX_DEAD, memory_order_seq_cst);
	if (ours)
		ty_actor_unref(actor);
	if (atomic_load_explicit(&rt->stopping, memory_order_seq_cst))
		ty_park_wake(&rt->park);
}

struct ty_actor *ty_actor_ref(struct ty_actor *actor)
{
	/* relaxed: the caller has a reference, so it cannot be the first or come after the last */
	uint32_t refs = atomic_fetch_add_explicit(&actor->refs, 1, memory_order_relaxed);

	assert(refs > 0 && refs < UINT32_MAX);
	return actor;
}

void ty_actor_unref(struct ty_actor *actor)
{
	/* acq_rel: what every holder did is done before the last one frees */
	uint32_t refs = atomic_fetch_sub_explicit(&actor->refs, 1, memory_order_acq_rel);

	assert(refs > 0);
	if (refs == 1)
		ty_actor_free(actor);
}

void ty_schedule(struct ty_actor *actor)
{
	struct ty_runtime *rt = actor->rt;

	if (rt->sim)
		ty_sim_schedule(actor);
	else if (actor->threaded)
		ty_dedicated_wake(actor);
	else
		ty_pool_schedule(rt, actor);
}

/* The thread whose recorder is told of what is sent to an actor, or null. A worker's sends bear the stamp of the message
 * that it handles, which costs nothing; a thread of its own has the time to read the counter. */
static inline struct ty_thread *witness(const struct ty_actor *to)
{
	struct ty_thread *thread = ty_current;

	if (!TY_RECORDER || !thread || thread->rt != to->rt)
		return NULL;
	if (!thread->worker) {
		thread->stamp = ty_ticks(thread->rt);
		thread->sent = true;
	}
	return thread;
}

/* What is about to be sent: before the push, for then it may be handled. */
static inline void show_send(struct ty_actor *to, struct ty_msg *msg, struct ty_thread *thread)
{
	TY_PROBE4(send, to->number, to->cls->name, msg->type, msg);
	if (thread)
		ty_record(thread, TY_EVENT_SEND, thread->stamp, to, 0, (uintptr_t)msg);
}

/* It could not be sent, and is the caller's. */
static inline void show_drop(struct ty_actor *to, struct ty_msg *msg, struct ty_thread *thread)
{
	TY_PROBE4(drop, to->number, to->cls->name, msg->type, msg);
	if (thread)
		ty_record(thread, TY_EVENT_DROP, thread->stamp, to, ty_index_of(to->cls, msg->type), (uintptr_t)msg);
}

/* What ty_schedule comes to in most hops: a worker that has nothing to run next runs the receiver, and nobody is told. */
static inline bool runs_next(struct ty_thread *thread, struct ty_actor *to)
{
	if (!thread || !thread->worker || thread->worker->queue.first)
		return false;
	thread->worker->queue.first = to;
	return true;
}

/* Push a list, newest first. False: the mailbox is closed. `thread`: the witness, or null. */
static inline bool push(struct ty_actor *to, struct ty_msg *newest, struct ty_msg *oldest, struct ty_thread *thread)
{
	bool pooled = !to->threaded;
	enum ty_pushed pushed = ty_mailbox_push(&to->box, newest, oldest, pooled);

	if (pushed == TY_PUSH_WOKE) {
		if (pooled)
			to->handed = newest;
		if (!pooled || !runs_next(thread, to))
			ty_schedule(to);
	}
	return pushed != TY_PUSH_CLOSED;
}

/* inlined: the flags of an ordinary message are constants */
static inline __attribute__((always_inline)) enum ty_code send(
	struct ty_actor *to, struct ty_msg *msg, uint32_t type, uint32_t flags)
{
	bool shown = !(flags & TY_MSG_INTERNAL);
	struct ty_thread *thread;

	/* what senders touch lies in one line or two */
	ty_fetch(&to->box);
	ty_fetch(&to->number);
	thread = shown ? witness(to) : NULL;
	assert(!(msg->flags & TY_MSG_QUEUED)); /* a message sits in one mailbox at a time */
	msg->type = type;
	msg->flags = flags | TY_MSG_QUEUED;
	if (shown)
		show_send(to, msg, thread);
	if (push(to, msg, msg, thread))
		return TY_OK;
	msg->flags = 0;
	if (shown)
		show_drop(to, msg, thread);
	return TY_CLOSED;
}

enum ty_code ty_send_flags(struct ty_actor *to, struct ty_msg *msg, uint32_t type, uint32_t flags)
{
	return send(to, msg, type, flags);
}

enum ty_code ty_send(struct ty_actor *to, struct ty_msg *msg, uint32_t type)
{
	return send(to, msg, type, 0);
}

enum ty_code ty_send_urgent(struct ty_actor *to, struct ty_msg *msg, uint32_t type)
{
	return send(to, msg, type, TY_MSG_URGENT);
}

enum ty_code ty_send_typed(struct ty_actor *to, struct ty_msg *msg, uint32_t type, size_t size)
{
	return send(to, msg, type, TY_SIZE_CODE(size));
}

enum ty_code ty_send_typed_urgent(struct ty_actor *to, struct ty_msg *msg, uint32_t type, size_t size)
{
	return send(to, msg, type, TY_SIZE_CODE(size) | TY_MSG_URGENT);
}

enum ty_code ty_send_bundle(struct ty_actor *to, struct ty_bundle *bundle)
{
	struct ty_msg *newest = bundle->newest, *oldest = bundle->oldest;
	struct ty_thread *thread = witness(to);

	if (!newest)
		return TY_OK;
	show_send(to, oldest, thread);
	if (!push(to, newest, oldest, thread)) {
		show_drop(to, oldest, thread);
		return TY_CLOSED;
	}
	bundle->newest = NULL;
	return TY_OK;
}

void ty_send_internal(struct ty_actor *to, struct ty_msg *msg, uint32_t flags)
{
	enum ty_code code = send(to, msg, 0, TY_MSG_INTERNAL | flags);

	(void)code; /* an actor that has stopped needs none of them */
}

void ty_actor_stop(struct ty_actor *actor)
{
	uint8_t none = TY_STOP_NONE;

	/* relaxed: only who comes first matters; the push orders the rest */
	if (atomic_compare_exchange_strong_explicit(
		    &actor->stopping, &none, TY_STOP_SENT, memory_order_relaxed, memory_order_relaxed))
		ty_send_internal(actor, &actor->stop_msg, 0);
}

void ty_actor_cut(struct ty_actor *actor)
{
	uint8_t asked = TY_STOP_ASKED;

	ty_actor_stop(actor);
	/* seq_cst: after the budget was set to 0; pairs with puts_off_stop */
	if (atomic_compare_exchange_strong_explicit(
		    &actor->stopping, &asked, TY_STOP_CUT, memory_order_seq_cst, memory_order_seq_cst))
		ty_send_internal(actor, &actor->stop_msg, 0);
}

struct ty_actor *ty_self(void)
{
	return ty_current ? ty_current->self : NULL;
}

int64_t ty_now(void)
{
	assert(ty_current);
	return ty_runtime_now(ty_current->rt);
}
