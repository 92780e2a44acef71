/* SPDX-License-Identifier: Apache-2.0
 *
 * The runtime's own structures. Who touches a field is said beside it; "runner" is the thread that
 * runs the actor at the time: at most one, handed on through the mailbox's IDLE tag and a run queue.
 */
#ifndef TY_RUNTIME_RUNTIME_H
#define TY_RUNTIME_RUNTIME_H

#include <assert.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tyer/actor.h>

#include "runtime/heap.h"
#include "runtime/mailbox.h"
#include "runtime/park.h"
#include "runtime/pool.h"
#include "runtime/probes.h"
#include "runtime/record.h"
#include "runtime/registry.h"
#include "runtime/runq.h"
#include "runtime/spare.h"
#include "runtime/ticks.h"

#define TY_LINE 64
#define TY_MAX_WORKERS 64
#define TY_MAX_DEDICATED 1024  /* dedicated actors and ports at once, per runtime */
#define TY_STAMP_EVERY 16      /* a power of four: messages of one run between two readings of the ticks and looks into the */
                               /* mailbox for urgent ones, at most, */
#define TY_QUICK_TICKS 4000    /* if those before took less than this: 1 to 4 us, by the counter's rate */
#define TY_MAX_STATE ((size_t)1 << 40)

struct ty_monitor_core;
struct ty_names;
struct ty_sim;
struct ty_thread;
struct ty_watchdog;

/* A thread's counters and what it runs. Written by the thread that holds the seat (load and store,
 * no read-modify-write), read by anyone; all relaxed but for `what`, see ty_seat_begin. Seats outlive
 * their threads and are used again, so that sums never fall. */
struct ty_seat {
	alignas(TY_LINE) _Atomic(uint64_t) messages;
	_Atomic(uint64_t) runs, exhausted, steals, parks, wakes, timers;
	/* seldom written: here, where no reader's line is */
	_Atomic(uint64_t) misfits;
	_Atomic(uint64_t) refused[2][2];    /* by: a handler was called for it, so `messages` has it; it was dropped */
	_Atomic(uint64_t) busy;             /* see ty_seat_works */
	_Atomic(uint64_t) born, gone;       /* actors that were spawned and that ended here: see ty_alive */
	alignas(TY_LINE) _Atomic(uint64_t) since; /* ticks */
	_Atomic(const struct ty_class *) cls;
	_Atomic(const char *) what; /* null: nothing runs */
	_Atomic(bool) taken;        /* CAS by spawn: acquire; store by the leaver: release */
	_Atomic(struct ty_pools *) pools; /* null until the thread needs them: release; read by stats: acquire */
	alignas(TY_LINE) struct ty_spares spares;   /* the thread's */
	struct ty_registry_cache free_slots;        /* the thread's */
	alignas(TY_LINE) struct ty_ring ring; /* the last: its slots are not cleared */
};

/* Only the counter's one writer may. */
static inline void ty_count_more(_Atomic(uint64_t) *counter, uint64_t more)
{
	atomic_store_explicit(
		counter, atomic_load_explicit(counter, memory_order_relaxed) + more, memory_order_relaxed);
}

static inline void ty_count(_Atomic(uint64_t) *counter)
{
	ty_count_more(counter, 1);
}

/* `since` first, then the names, read in the opposite order (acquire): whoever reads the names of a
 * message never sees a time before its start's, so a torn reading raises no false alarm. */
static inline void ty_seat_begin(struct ty_seat *seat, const struct ty_class *cls, const char *what, uint64_t ticks)
{
	atomic_store_explicit(&seat->since, ticks, memory_order_relaxed);
	atomic_store_explicit(&seat->cls, cls, memory_order_release);
	atomic_store_explicit(&seat->what, what, memory_order_release);
}

/* The thread works, or rests: looks for work, sleeps, is over. Its working time so far, in ticks, is one word, so that a reader
 * finds no half of it: bit 0 says that it works, the rest is the time less that of its beginning then. Caller: the thread. */
static inline void ty_seat_works(struct ty_seat *seat, bool works, uint64_t now)
{
	uint64_t busy = atomic_load_explicit(&seat->busy, memory_order_relaxed);

	if ((busy & 1) != works)
		atomic_store_explicit(
			&seat->busy, ((busy >> 1) + (works ? -now : now)) << 1 | works, memory_order_relaxed);
}

/* Anyone, at about `now`. */
static inline uint64_t ty_seat_worked(const struct ty_seat *seat, uint64_t now)
{
	uint64_t busy = atomic_load_explicit(&seat->busy, memory_order_relaxed);
	uint64_t ticks = ((busy >> 1) + (busy & 1 ? now : 0)) << 1 >> 1;

	return ticks <= INT64_MAX >> 1 ? ticks : 0; /* it began just after `now` */
}

/* Whoever holds the seat: was this the last that began? */
static inline bool ty_seat_says(const struct ty_seat *seat, const char *what, uint64_t ticks)
{
	return atomic_load_explicit(&seat->what, memory_order_relaxed) == what &&
		atomic_load_explicit(&seat->since, memory_order_relaxed) == ticks;
}

static inline void ty_seat_end(struct ty_seat *seat)
{
	atomic_store_explicit(&seat->what, NULL, memory_order_relaxed);
}

/* The same for one that stays at its highest value. */
static inline void ty_count_few(_Atomic(uint32_t) *counter)
{
	uint32_t count = atomic_load_explicit(counter, memory_order_relaxed);

	if (count < UINT32_MAX)
		atomic_store_explicit(counter, count + 1, memory_order_relaxed);
}

/* An actor's counters. Written by its runner, who hands them on with the actor; read by anyone; all relaxed. */
struct ty_counts {
	_Atomic(uint64_t) messages, runs, ticks;
	_Atomic(uint32_t) exhausted, refused, queue_high;
	uint32_t waiting; /* the runner's alone: how many the two FIFOs hold */
};

/* The part of a thread that runs actors. Private to the thread but for `nudges`. */
struct ty_thread {
	struct ty_runtime *rt;
	struct ty_seat *seat;
	struct ty_actor *self;    /* null between runs */
	struct ty_worker *worker; /* null: dedicated or simulated */
	int64_t now;              /* the clock, as last read; fresh enough for the alarms, if there are any */
	bool reader;              /* a thread of the runtime's, registered with RCU */
	bool open;                /* the recorder has a BEGIN without its END */
	bool sent;                /* since it was last cleared */
	bool stamped;             /* the stamp is of this moment, and not used yet */
	uint8_t stamp_group;      /* how many messages shared the last one: TY_STAMP_EVERY at most */
	uint64_t stamp;           /* ticks: when what the thread does now began */
	struct ty_heap alarms;    /* of actors, by ty_actor.alarm */
	alignas(TY_LINE) _Atomic(struct ty_msg *) nudges; /* nudge_msg of actors: pushed by anyone, taken whole by the thread */
};

struct ty_worker {
	struct ty_thread thread;
	struct ty_runq queue;
	alignas(TY_LINE) struct ty_park park;
	_Atomic(uint32_t) callers; /* threads that are none of the runtime's, while they push to the queue and wake who runs it */
	/* constant */
	uint32_t index;
	uint32_t node; /* workers on one NUMA node have the same; 0 if they were not placed */
	pthread_t id;

	/* the worker's own, on lines that no thief reads */
	alignas(TY_LINE) uint32_t random; /* where the search for work begins */
	uint64_t found;                   /* ticks: when it had something to run again */
	uint64_t lasts;                   /* ticks: for how long what it found lasted, of late: a mean */
	struct ty_runq_look looks[TY_MAX_WORKERS]; /* at the other workers' queues */
};

/* What an actor needs beside its state, which lies before it. Small, and with no alignment beyond malloc's: so that
 * senders, the runner and the state do not disturb each other wherever lines begin, what is seldom touched
 * comes first, and what senders write is a line's length away from what the runner writes. What every message touches lies
 * together, in two lines' length. */
struct ty_actor {
	/* seldom touched */
	struct ty_msg stop_msg;
	union {
		struct ty_msg nudge_msg; /* real time: the alarm's home, or a mailbox, or the actor has it */
		struct {                 /* deterministic mode: its thread's */
			struct ty_actor *sim_next; /* of the actors that have a poll */
			int64_t sim_poll;          /* when it wants to be called */
		};
	};
	struct ty_monitor_core *watchers; /* runner's: monitors of this actor */
	struct ty_monitor_core *watching; /* runner's: its monitors of others that are out */

	/* senders' */
	struct ty_mailbox box;
	struct ty_actor *run_next;      /* whoever scheduled it, then the queue's owner */
	union {
		struct ty_msg *handed;  /* whoever took IDLE away, then the runner: newest first */
		struct ty_dedicated *dedicated; /* if threaded: constant since the spawn */
	};
	_Atomic(uint32_t) refs;

	/* constant since the spawn */
	uint32_t slot : 31;             /* in the registry */
	uint32_t threaded : 1;          /* it has a thread of its own */
	struct ty_runtime *rt;
	const struct ty_class *cls;
	uint64_t number;                /* order of spawning */

	/* runner's */
	struct ty_heap_node *due_last;  /* expired timers: a ring through next and prev, known by its last */
	_Atomic(uint8_t) last;          /* worker that ran it: a hint to senders */
	_Atomic(uint8_t) stopping;      /* enum ty_stopping */
	bool timers_changed;            /* ty_timers_sync has something to do */
	bool started : 1, closing : 1;
	bool failing : 1;               /* ty_actor_fail was called: ends before its next message */
	bool due_turn : 1;              /* take the next message from the expired timers */
	bool nudge_out : 1;             /* the nudge is with alarm_home */
	bool sim_queued : 1;            /* deterministic mode */
	bool alarm_set;                 /* in alarm_home's heap; written by that thread */
	uint8_t alarm_home;             /* the worker where the alarm is set; TY_NOWHERE: it is here */
	int16_t reason;                 /* enum ty_code: how it ended; constant once the mailbox is over */
	struct ty_fifo urgent, normal;
	struct ty_counts counts;

	/* not touched by every message */
	union {
		void *arg;              /* until it has started */
		struct ty_heap timers;  /* armed */
	};
	/* the alarm is in a heap, or a message, or here: written by the thread that holds it, else by the runner */
	union {
		struct ty_heap_node alarm; /* its key: for when, while alarm_home is not TY_NOWHERE */
		struct ty_msg alarm_msg;
	};
	struct ty_actor *list_next; /* destroy's list */
};

#define TY_NOWHERE UINT8_MAX
static_assert(TY_MAX_WORKERS <= TY_NOWHERE, "a worker, or none");
static_assert(TY_REGISTRY_CHUNKS + 6 < 31, "slot");
static_assert(offsetof(struct ty_actor, last) - offsetof(struct ty_actor, box) >= TY_LINE, "senders apart");
static_assert(offsetof(struct ty_actor, arg) - offsetof(struct ty_actor, box) <= 2 * TY_LINE, "what every message touches");
static_assert(sizeof(struct ty_actor) <= 224, "with its state, malloc's and the registry's part: 256 bytes");
static_assert(offsetof(struct ty_heap_node, key) >= sizeof(struct ty_msg), "the alarm's message spares its key");

/* The bytes before the actor that its state takes, which is aligned as malloc aligns. */
static inline size_t ty_state_room(size_t state_size)
{
	return (state_size + alignof(struct ty_actor) - 1) / alignof(struct ty_actor) * alignof(struct ty_actor);
}

static inline void *ty_state(struct ty_actor *actor)
{
	return (unsigned char *)actor - ty_state_room(actor->cls->state_size);
}

struct ty_runtime {
	/* constant since ty_runtime_create */
	struct ty_worker *workers;
	struct ty_sim *sim; /* null: real time */
	uint32_t worker_count;
	_Atomic(uint32_t) budget_messages; /* 0: what is left is cut short. Set by stop.c; relaxed but for that */
	uint64_t budget_ticks;
	uint64_t patience_ticks; /* what has waited for less at another worker is mostly left there */
	int64_t spin_ns;
	uint64_t pool_bytes; /* limit of a size class, a thread */
	char name[9];
	bool counter;              /* ticks are the CPU's counter, else the runtime's clock */
	struct ty_instant created;
	struct ty_watchdog *watchdog; /* null: none */
	void (*misfit)(void *user, const struct ty_misfit *misfit);
	void *misfit_user;

	/* workers that park or are about to: a worker sets its own bit, whoever clears it wakes it */
	alignas(TY_LINE) _Atomic(uint64_t) idle;
	_Atomic(uint32_t) searching; /* workers that look for work and will look again before they park */
	_Atomic(bool) joining;       /* set by destroy: workers end */

	alignas(TY_LINE) _Atomic(uint64_t) spawned; /* who spawns, and nobody else, comes to this line */
	_Atomic(uint64_t) born, gone;     /* by threads that have no seat */

	alignas(TY_LINE) _Atomic(bool) stopping; /* set by destroy: no spawn any more. Seldom does a line like this change */
	_Atomic(uint64_t) ports;          /* open: their threads; destroy reads it */
	_Atomic(uint64_t) threads;        /* dedicated threads not joined; the joiner reads it alone at the end */
	_Atomic(struct ty_names *) names; /* null until the first name; release by who makes it */
	_Atomic(struct ty_actor *) ended; /* dedicated actors whose threads want joining */
	struct ty_park park;              /* destroy waits here for actors to end */
	alignas(TY_LINE) struct ty_registry registry;
	alignas(TY_LINE) struct ty_depot depot;
	struct ty_actor *unstopped;       /* taken out of the registry: the thread that stops the runtime */
	_Atomic(struct ty_seat *) seats[TY_MAX_WORKERS + TY_MAX_DEDICATED]; /* release by who makes one */
};

/* How far an actor's stop has come. NONE to SENT: whoever asks first; SENT to ASKED: its runner, once its class has taken
 * note; ASKED to CUT: destroy's thread, which sends stop_msg again. */
enum ty_stopping { TY_STOP_NONE, TY_STOP_SENT, TY_STOP_ASKED, TY_STOP_CUT };

extern _Thread_local struct ty_thread *ty_current __attribute__((tls_model("initial-exec")));

/* ---- run.c ---- */

enum ty_ran {
	TY_RAN_EMPTY, /* nothing more to do, as far as seen: make it IDLE, or it goes on */
	TY_RAN_MORE,  /* the budget is used up, messages are left */
	TY_RAN_DEAD,  /* it has stopped: do not touch it */
};
/* Run the actor for at most `budget` messages. Caller: the runner. */
enum ty_ran ty_actor_run(struct ty_thread *thread, struct ty_actor *actor, uint32_t budget);
/* For a port: the next message, which its thread handles itself; null: none. Caller: the runner. */
struct ty_msg *ty_actor_take(struct ty_thread *thread, struct ty_actor *actor);
/* Close the mailbox, refuse what is left, call stop, tell who watches. Caller: the runner, at the actor's end. */
void ty_actor_finish(struct ty_thread *thread, struct ty_actor *actor);
/* Call class->poll. Caller: the runner; the class has one. */
int64_t ty_actor_poll(struct ty_thread *thread, struct ty_actor *actor, int64_t now);
/* What the recorder has as begun ended at thread->stamp. Caller: the thread, between runs. */
void ty_thread_close(struct ty_thread *thread);
bool ty_actor_pending(struct ty_actor *actor); /* messages taken in, or due timers */
int64_t ty_thread_clock(struct ty_thread *thread); /* read the clock, and keep it in thread->now */

/* ---- actor.c ---- */

/* Made, and known to nobody; two references. Null: no memory. */
struct ty_actor *ty_actor_new(struct ty_runtime *rt, const struct ty_class *cls, void *arg);
void ty_actor_free(struct ty_actor *actor);
/* Make a runnable actor known to its executor. Caller: who saw its mailbox leave IDLE, once. */
void ty_schedule(struct ty_actor *actor);
/* A message of the runtime's own; dropped when the mailbox is closed. */
void ty_send_internal(struct ty_actor *to, struct ty_msg *msg, uint32_t flags);
TY_MUST_USE enum ty_code ty_send_flags(struct ty_actor *to, struct ty_msg *msg, uint32_t type, uint32_t flags);
/* Once the budget is 0: have it end at its next message, also if it put off its stop. Caller: stop.c. */
void ty_actor_cut(struct ty_actor *actor);
/* The actor is over (or never began): leave the registry, tell destroy. Drops a reference. */
void ty_actor_retire(struct ty_actor *actor);

/* ---- timer.c ---- */

/* After timers changed, an alarm came back, or at the end of a wait: collect what is due at thread->now
 * (read afresh) and set the alarm for the rest. Caller: the runner. */
void ty_timers_sync(struct ty_thread *thread, struct ty_actor *actor);
int64_t ty_timers_next(const struct ty_actor *actor); /* earliest armed, or TY_NEVER */
struct ty_msg *ty_timers_take(struct ty_actor *actor);
void ty_timers_internal(struct ty_actor *actor, struct ty_msg *msg);
void ty_timers_drop(struct ty_thread *thread, struct ty_actor *actor);

/* What ty_msg.flags says of a message's size, and back. Sizes are multiples of the header's alignment. */
#define TY_SIZE_CODE(size) ((uint32_t)((size) / TY_MESSAGE_UNIT) << 16)
#define TY_CODE_SIZE(flags) ((size_t)((flags) >> 16) * TY_MESSAGE_UNIT)

/* Like ty_timer_start, for a request's answer: when due, ty_request_expire decides whether it comes. */
void ty_timer_start_reply(struct ty_timer *timer, uint32_t type, int64_t deadline);

/* ---- request.c ---- */

/* The deadline has come. True: the answer is TY_TIMEOUT, deliver it; false: another is on its way.
 * Caller: the requester's runner. */
bool ty_request_expire(struct ty_timer *reply);
/* The answer is about to be handed to the class, however it came. Caller: the requester's runner. */
void ty_request_told(struct ty_msg *reply);
/* It has come by message: the same, and forget the deadline. Caller: the requester's runner. */
void ty_request_arrived(struct ty_msg *reply);
/* Nobody is there to be given the answer: the requester is over, or its class has no refuse. */
void ty_request_orphan(struct ty_msg *reply);

/* ---- monitor.c ---- */

/* WATCH, UNWATCH or DOWN has come. A DOWN that is to be handled is returned, as the class's message. */
struct ty_msg *ty_monitors_internal(struct ty_actor *actor, struct ty_msg *msg);
/* The actor's end, its runner: before the mailbox closes, what it watches; last of all, who watches it. */
void ty_monitors_close(struct ty_actor *actor);
void ty_monitors_end(struct ty_actor *actor);
/* Have `name` come to ty_names_home at the target's end. False: it is over; the name is the caller's. Caller: anyone. */
bool ty_monitors_attach(struct ty_actor *target, struct ty_monitor *name);
/* Have it come earlier. Caller: anyone, once, while it is attached. */
void ty_monitors_detach(struct ty_monitor *name);

/* ---- names.c ---- */

void ty_names_home(struct ty_monitor *name); /* the actor that had the name is over. Caller: who has the token */
void ty_names_free(struct ty_names *names);  /* no actor is left, and nobody looks. Null: nothing */

/* ---- timer.c ---- */

/* Alarms of a thread. Caller: the thread. */
void ty_alarms_serve(struct ty_thread *thread, int64_t now);
static inline void ty_alarms_run(struct ty_thread *thread, int64_t now)
{
	/* relaxed: taken with acquire */
	if (thread->alarms.top || atomic_load_explicit(&thread->nudges, memory_order_relaxed))
		ty_alarms_serve(thread, now);
}
int64_t ty_alarms_next(const struct ty_thread *thread);
void ty_alarms_free(struct ty_thread *thread); /* at the runtime's end, by destroy */

/* ---- worker.c ---- */

void *ty_worker_main(void *worker);
/* What is to be had at other workers, of the worker's own node first; null: nothing. Caller: its thread. */
struct ty_actor *ty_worker_steal(struct ty_worker *worker);
/* It has nothing more to run since thread.stamp: how long it had, since `found`, goes into `lasts`. A look that found nothing
 * is a find that lasts no time. Caller: its thread, before it looks for more. */
void ty_worker_ran_dry(struct ty_worker *worker);
void ty_pool_schedule(struct ty_runtime *rt, struct ty_actor *actor);
void ty_worker_wake(struct ty_worker *worker); /* only if it parks; once */

/* ---- dedicated.c ---- */

TY_MUST_USE enum ty_code ty_dedicated_create(struct ty_actor *actor, const struct ty_spawn_options *options);
TY_MUST_USE enum ty_code ty_dedicated_start(struct ty_actor *actor);
void ty_dedicated_free(struct ty_actor *actor);
void ty_dedicated_wake(struct ty_actor *actor);
struct ty_thread *ty_dedicated_thread(struct ty_actor *actor);
/* At the end of a wait, its thread: the mailbox is not IDLE any more. False: a sender was first, and wakes it. */
bool ty_dedicated_leave_idle(struct ty_actor *actor);
/* Once the mailbox is closed: wait until no sender is inside class->wait.wake any more. */
void ty_dedicated_settle(struct ty_actor *actor);
/* Join the threads of ended actors: those that have ended, or (wait) all of them. */
void ty_dedicated_reap(struct ty_runtime *rt, bool wait);

/* ---- stats.c: what is public of it, and ---- */

/* Actors that are alive, or about to be or not to be. 0, once rt->stopping is set: there is none, and will be none. */
uint64_t ty_alive(const struct ty_runtime *rt);

/* What the thread that has the seat runs: its names and since when (ticks). False: nothing. Caller: anyone. */
bool ty_seat_read(const struct ty_seat *seat, struct ty_running *out, uint64_t *since);
/* Of a stop's report: what was handled, returned and dropped since the runtime was created. A message is in one of them. */
void ty_accounts(const struct ty_runtime *rt, struct ty_stop_report *out);
/* The seats that ever were, in order; null: no more. Caller: anyone. */
struct ty_seat *ty_seat_at(const struct ty_runtime *rt, size_t index);

/* ---- watchdog.c ---- */

TY_MUST_USE enum ty_code ty_watchdog_start(
	struct ty_runtime *rt, const struct ty_runtime_options *options, struct ty_error *err);
void ty_watchdog_stop(struct ty_runtime *rt); /* once no actor is left */

/* ---- runtime.c ---- */

/* One for a worker, which are made first, or for one of TY_MAX_DEDICATED others. TY_LIMIT: none is left; TY_NO_MEMORY. *out is null
 * then. */
TY_MUST_USE enum ty_code ty_seat_take(struct ty_runtime *rt, struct ty_seat **out);
void ty_seat_leave(struct ty_seat *seat);
int ty_thread_create(pthread_t *id, const pthread_attr_t *attr, void *(*main)(void *), void *arg);

/* ---- sim.c ---- */

TY_MUST_USE enum ty_code ty_sim_create(struct ty_runtime *rt, uint64_t seed, struct ty_error *err);
void ty_sim_free(struct ty_runtime *rt);
void ty_sim_schedule(struct ty_actor *actor);
bool ty_sim_step(struct ty_runtime *rt);
int64_t ty_sim_now(const struct ty_runtime *rt);

/* ---- stamps; caller: the thread ---- */

static inline uint64_t ty_ticks(const struct ty_runtime *rt)
{
	return rt->counter ? ty_counter() : (uint64_t)(rt->sim ? ty_sim_now(rt) : ty_clock());
}

/* Something ended: what begins next, if it follows at once, began then. */
static inline uint64_t ty_stamp_end(struct ty_thread *thread)
{
	thread->stamped = true;
	return thread->stamp = ty_ticks(thread->rt);
}

static inline uint64_t ty_stamp_begin(struct ty_thread *thread)
{
	if (!thread->stamped)
		thread->stamp = ty_ticks(thread->rt);
	thread->stamped = false;
	return thread->stamp;
}

/* The same for messages that come next; says how many may share the stamp. Reading the counter costs a third of a hop: in a
 * run whose messages are quick four share a stamp, then TY_STAMP_EVERY. So what is slow shares it with no more than four times
 * as many as were quick before it. */
static inline uint32_t ty_stamp_group(struct ty_thread *thread)
{
	uint64_t before = thread->stamp;

	if (thread->stamped) {
		thread->stamped = false;
		thread->stamp_group = 1;
		return 1;
	}
	thread->stamp = ty_ticks(thread->rt);
	if (thread->stamp - before >= TY_QUICK_TICKS)
		thread->stamp_group = 1;
	else if (thread->stamp_group < TY_STAMP_EVERY)
		thread->stamp_group = (uint8_t)(4 * thread->stamp_group);
	return thread->stamp_group;
}

static inline void ty_record(struct ty_thread *thread, enum ty_event_kind kind, uint64_t when,
	const struct ty_actor *actor, uint32_t index, uint64_t msg)
{
#if TY_RECORDER
	ty_ring_write(&thread->seat->ring, kind, when, actor->number, index, actor->cls, msg);
#else
	(void)thread, (void)kind, (void)when, (void)actor, (void)index, (void)msg;
#endif
}

/* Of the thread itself. */
static inline void ty_record_thread(
	struct ty_thread *thread, enum ty_event_kind kind, uint64_t when, uint64_t number, uint32_t index)
{
#if TY_RECORDER
	ty_ring_write(&thread->seat->ring, kind, when, number, index, NULL, 0);
#else
	(void)thread, (void)kind, (void)when, (void)number, (void)index;
#endif
}

static inline uint32_t ty_index_of(const struct ty_class *cls, uint32_t type)
{
	uint32_t index = type - cls->first_type;

	return index < cls->type_count && index < TY_INDEX_UNKNOWN ? index : TY_INDEX_UNKNOWN;
}

#endif
