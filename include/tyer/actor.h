/* SPDX-License-Identifier: Apache-2.0
 *
 * libtyer-actor: actors in C, for programs in which each resource has one owner and everybody else
 * sends it messages.
 *
 *   - An actor is a class (a table of handlers) and a state that only its handlers touch. At most
 *     one thread runs an actor at a time.
 *   - A message is a struct of yours that begins with a struct ty_msg. Sending hands the whole
 *     object over: no copy, no allocation, never blocks. It sits in one mailbox at a time.
 *   - Messages from one sender to one receiver arrive in the order sent (urgent ones overtake).
 *   - Ordinary actors share a pool of workers; a dedicated actor has a thread of its own and may
 *     bring its own way of waiting.
 *   - Time is the runtime's clock. In deterministic mode (options.seed) it is a logical one, a
 *     single thread runs everything and the seed decides the schedule.
 *
 * Threads: every function says who may call it. "Anyone" includes threads that are no workers.
 */
#ifndef TYER_ACTOR_H
#define TYER_ACTOR_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tyer/result.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ty_runtime; /* opaque: workers, dedicated threads, clock; two may live side by side */
struct ty_actor;   /* opaque: an actor's address; reference counted */

#define TY_NEVER INT64_MAX /* a time that does not come */

/* ---- messages ------------------------------------------------------------------------------ */

/* The header that every message begins with. Zero it once (TY_MSG_INIT or calloc), then leave it to the runtime. */
struct ty_msg {
	struct ty_msg *next; /* the runtime's while the message is in a mailbox */
	uint32_t type;       /* set by ty_send; the receiver may read it */
	uint32_t flags;      /* the runtime's */
};
#define TY_MSG_INIT {0}
#define TY_MSG_QUEUED UINT32_C(2) /* in flags: it is in a mailbox or a bundle */

/* The object that a message header is embedded in. */
#define ty_container_of(ptr, type, member) \
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))

/* ---- classes ------------------------------------------------------------------------------- */

/* One message type that a class accepts. */
struct ty_handler {
	const char *name; /* for traces, logs and the watchdog */
	void (*run)(void *self, struct ty_msg *msg);
};

/* How a dedicated actor's thread waits when its mailbox is empty; null members mean the runtime's own parking. `wait` is
 * called on the actor's thread and returns when `wake` was called, when `deadline` (runtime's clock, ns) passed, or
 * earlier; `wake` is called by any sender, at most once per wait, must not block, and may come before the wait it is meant
 * for (then that wait returns at once). It is never called after the class's stop. Both or neither. */
struct ty_wait {
	void (*wait)(void *self, int64_t deadline);
	void (*wake)(void *self);
};

/* Yours, and constant; classes, what they point to and all names in them outlive the runtimes that have such actors. */
struct ty_class {
	const char *name;
	size_t state_size;             /* bytes of state; allocated with the actor, zeroed; aligned as malloc aligns, no further */
	uint32_t first_type;           /* handlers[i] runs messages of type first_type + i */
	uint32_t type_count;
	const struct ty_handler *handlers;

	/* Called on the actor's own thread (pool worker or dedicated) before its first message. A
	 * failure stops the actor; ty_spawn has returned by then, so report it by message. May be null. */
	enum ty_code (*start)(void *self, void *arg);
	/* Called last, on the actor's thread, once its mailbox is closed and drained; after a failed
	 * start too (the state is then as start left it). May be null. */
	void (*stop)(void *self);
	/* ty_actor_stop was called, or the runtime stops. Null: the actor ends. Else it goes on, and is to end
	 * soon by a call of ty_actor_end, here or later: once what it began is over. Called once. */
	void (*stopping)(void *self);
	/* A message that this actor will not handle: it came after the close, or its type is none of
	 * the class's. Ownership passes to the callee. Null: the message is dropped and counted, which
	 * is right only for messages that live in somebody's state. */
	void (*refuse)(void *self, struct ty_msg *msg);

	/* Dedicated actors only, may be null. Called after every batch of messages and whenever the
	 * wait ends; does a bounded piece of work and says when it wants to be called again: a time in
	 * the past = at once (the thread does not park), TY_NEVER = only after a message. */
	int64_t (*poll)(void *self, int64_t now);
	struct ty_wait wait;
};

/* ---- the runtime --------------------------------------------------------------------------- */

/* What the watchdog found. Names are static storage. */
struct ty_stall {
	const char *actor;   /* class name */
	const char *message; /* handler name, or "start", "stop", "refuse", "poll" */
	int64_t age;         /* ns that it has been running, so far */
};

enum ty_placement {
	TY_ANYWHERE,  /* where the system likes */
	TY_ON_CPUS,   /* a CPU each, of those that the process may use; on the NUMA nodes in turn */
	TY_ON_NODES,  /* a NUMA node each, in turn: on any CPU of it */
};

/* A message that its receiver does not handle. Names are static storage. */
struct ty_misfit {
	const char *actor;   /* class name */
	const char *message; /* handler name; null: the type is none of the class's */
	uint32_t type;
	size_t found;        /* the size that it was sent with, in bytes; 0: untyped */
	size_t expected;     /* the size that the handler expects; 0: there is no handler */
};

/* The runtime's threads block all signals but those that a handler may bring upon itself (SIGSEGV, SIGBUS, SIGFPE, SIGILL,
 * SIGTRAP, SIGSYS): these stay as they are where the thread is made. A child of fork has none of the threads: there nothing of
 * a runtime may be used, nor destroyed. */
struct ty_runtime_options {
	size_t size;              /* sizeof(struct ty_runtime_options): see result.h */
	const char *name;         /* prefix of thread names, at most 8 characters; null = "tyer" */
	uint32_t workers;         /* pool threads, 1..64; 0 = one per online CPU, at most 8 */
	uint32_t budget_messages; /* messages an actor may handle per run; 0 = 512 */
	uint32_t budget_us;       /* time an actor may take per run, checked between messages; 0 = 200 */
	uint32_t spin_us;         /* how long an idle worker spins before it parks; 0: 20, on two CPUs 2, on one none */
	uint64_t seed;            /* not 0: deterministic mode, driven by ty_runtime_step */
	/* The watchdog: a message, start, stop or poll that runs for longer than stall_us (100 us to an hour) is named
	 * once, between one and one and a half limits after its begin, by a call of `stalled` on a thread of the
	 * watchdog's own. It may send; it must not spawn, destroy or take long. 0 and null: no watchdog, and no thread
	 * that wakes up twice per limit. */
	uint32_t stall_us;
	void (*stalled)(void *user, const struct ty_stall *stall);
	void *stalled_user;
	/* Called for every message that its receiver's class does not know, or whose size is another than its handler
	 * expects, on the receiver's thread, before the message is refused. It may send. Null: they are only counted. */
	void (*misfit)(void *user, const struct ty_misfit *misfit);
	void *misfit_user;
	/* Where the workers run: worker i on cpus[i % cpu_count], or by `placement`. Not both. */
	enum ty_placement placement;
	const int *cpus;
	uint32_t cpu_count;
	uint64_t pool_bytes;      /* what the blocks of one size may take on one thread (see ty_block_new); 0 = 4 MiB */
};

/* Create and start. On TY_OK *out is running, the caller's until ty_runtime_destroy. TY_INVALID: options that contradict
 * themselves or exceed a limit, `err` (which may be null) says which; TY_UNSUPPORTED: those of a later version; TY_LIMIT: a thread could not be made; TY_NO_MEMORY. Nothing
 * is left behind then, and *out not written. options may be null. Caller: anyone. */
TY_API TY_MUST_USE enum ty_code ty_runtime_create(const struct ty_runtime_options *options,
	struct ty_runtime **out, struct ty_error *err);

/* Stop every actor that still lives (in reverse order of their spawning; each drains what it was
 * sent before, or refuses it), join all threads, free. References to actors may be dropped after it
 * (no other use may be made of them). It waits for as long as a handler runs, or a stop is put off; see ty_runtime_stop.
 * Caller: one foreign thread, once; all other foreign users of the runtime must be gone, and its ports closed. But a send (an
 * answer, a DOWN) to an actor of it that has not returned yet, also one of another runtime's, is waited for, and one that comes
 * later is told TY_CLOSED. */
TY_API void ty_runtime_destroy(struct ty_runtime *rt);

/* Deterministic mode: run one step (one message or one due timer, drawn by the seed; then its poll, if
 * the class has one). Returns false when nothing is runnable and no timer is armed; advances the
 * logical clock to the next timer or poll when only those remain. Only the thread that created the
 * runtime may call this, spawn and send; class->wait and wake are not called. */
TY_API bool ty_runtime_step(struct ty_runtime *rt);

/* The runtime's clock in ns: CLOCK_MONOTONIC, or logical. Caller: anyone. */
TY_API int64_t ty_runtime_now(const struct ty_runtime *rt);

/* Counters, summed over the runtime: since it was created, but for the last and `blocks`. Each is exact once it rests; while
 * it runs they are of about one time. Caller: anyone. */
struct ty_runtime_stats {
	uint64_t messages;   /* handled; one whose handler found that it does not fit is among these and the misfits */
	uint64_t runs;       /* times an actor was scheduled and run */
	uint64_t exhausted;  /* runs that ended by budget with messages left */
	uint64_t steals;     /* actors taken from another worker's queue */
	uint64_t parks;      /* times a thread went to sleep */
	uint64_t wakes;      /* times a thread was woken by a send */
	uint64_t timers;     /* timers fired */
	uint64_t refused;    /* messages given to refuse, or dropped for want of it; requests answered instead */
	uint64_t dropped;    /* of these, those dropped */
	uint64_t misfits;    /* of these, those whose type or size is none of the class's */
	uint64_t blocks;     /* of ty_block_new, not freed yet */
	uint64_t blocks_busy; /* times that it said BUSY */
	uint64_t actors;     /* alive now */
};
TY_API void ty_runtime_stats(const struct ty_runtime *rt, struct ty_runtime_stats *out);

/* What runs longest right now: for watchdogs and for who asks. Names are static storage. Caller: anyone. */
struct ty_running {
	const char *actor;   /* class name, null when nothing runs */
	const char *message; /* handler name, or "poll" */
	int64_t since;       /* runtime's clock */
};
TY_API struct ty_running ty_runtime_longest(const struct ty_runtime *rt);

/* What one of its threads did. */
struct ty_thread_stats {
	bool worker;         /* of the pool; else a dedicated actor's, a port's, or deterministic mode's one */
	uint64_t messages;   /* handled; by a port: received */
	uint64_t runs;       /* of actors; a port has none */
	uint64_t running_ns; /* until now: the rest of its time it looked for work or slept. Not counted in ports */
	uint64_t exhausted, steals, parks, wakes, timers; /* as of the runtime */
	uint64_t queue_high; /* a worker: most actors that waited for it at once, beside the one it runs next; counts to 256 */
	uint64_t waiting;    /* now, likewise */
	struct ty_running running; /* what it runs now */
};
/* Thread `index`: the workers first, then the others as they came; who leaves hands place and counters on to the next that
 * comes. False: there are no more. Caller: anyone. */
TY_API bool ty_thread_stats(const struct ty_runtime *rt, uint32_t index, struct ty_thread_stats *out);

/* How a stop went. Every message that was sent before is in exactly one of the first three, or still to be handled by one
 * that is alive; who sends later is told TY_CLOSED. */
struct ty_stop_report {
	uint64_t handled;        /* messages, since the stop began; among them those that their handler found not to fit */
	uint64_t returned;       /* given to refuse; requests: answered with TY_CLOSED */
	uint64_t dropped;        /* for want of a refuse */
	uint64_t cut;            /* actors that had not ended when the time to drain was over */
	uint64_t alive;          /* actors that have not ended yet */
	struct ty_running stuck; /* the handler that has been running longest, if any is alive */
};

/* Stop every actor that lives, in reverse order of their spawning; nothing can be spawned any more. Until `drain` (runtime's
 * clock) each handles what it was sent before, and may put off its end (class->stopping). What is left then is cut short:
 * it ends with its present run (a budget of messages or of time, at most), the rest is refused. TY_OK: all is over.
 * TY_TIMEOUT: at `deadline` a handler had not returned; `report` (which may be null) names it, and this may be called again.
 * Ports stay open, to receive what was sent to them. Caller: one foreign thread. */
TY_API TY_MUST_USE enum ty_code ty_runtime_stop(
	struct ty_runtime *rt, int64_t drain, int64_t deadline, struct ty_stop_report *report);

/* What the runtime's threads did last, from the flight recorder that is always on: JSON of the Chrome trace format, for
 * ui.perfetto.dev or chrome://tracing. Actors are tracks, messages slices on them and arrows between them; threads are
 * tracks that show when they slept and woke, timers and drops. A thread keeps its last 2048 events; a send by a thread
 * that is none of the runtime's is not among them, nor is one to another runtime; a pool worker's sends are placed
 * evenly within the message that sent them. `write` is called on the calling thread with one piece after the other;
 * false ends the export with TY_CANCELLED. TY_NO_MEMORY. Classes and their names must outlive their actors: until the
 * runtime is destroyed. Caller: anyone. */
TY_API TY_MUST_USE enum ty_code ty_runtime_trace(const struct ty_runtime *rt,
	bool (*write)(void *user, const char *text, size_t length), void *user);

/* ---- actors -------------------------------------------------------------------------------- */

enum ty_executor { TY_POOL, TY_DEDICATED };

struct ty_spawn_options {
	size_t size;               /* sizeof(struct ty_spawn_options): see result.h */
	enum ty_executor executor;
	const char *thread_name;   /* dedicated: at most 15 characters; null = the class's name */
	int cpu;                   /* dedicated: run on this CPU; -1, and a struct without it: anywhere */
};

/* Spawn an actor; on TY_OK *out holds one reference of the caller's. `arg` is passed to class->start on the actor's thread and must
 * live until then. TY_STOPPING once the runtime stops; TY_INVALID: a class or options that contradict themselves; TY_UNSUPPORTED: options of a later version; TY_LIMIT:
 * too many actors, or dedicated ones and ports (1024 together); TY_NO_MEMORY. options may be null: on the pool. Caller:
 * anyone. */
TY_API TY_MUST_USE enum ty_code ty_spawn(struct ty_runtime *rt, const struct ty_class *cls, void *arg,
	const struct ty_spawn_options *options, struct ty_actor **out);

/* Another reference, and its end. An address stays valid (a send answers TY_CLOSED) while referenced. Caller: anyone. */
TY_API struct ty_actor *ty_actor_ref(struct ty_actor *actor);
TY_API void ty_actor_unref(struct ty_actor *actor);

/* Ask the actor to stop: it handles what was sent before, then its stop is called (see class->stopping). Idempotent.
 * Caller: anyone. */
TY_API void ty_actor_stop(struct ty_actor *actor);

/* A message to the actor is about to come: if it is a dedicated one whose thread sleeps (and the class has no wait of its own), wake it
 * now, and have it look for that message for five times options.spin_us before it sleeps again. What a sleeping thread
 * needs to wake up, often more than all else on a message's way, then passes while the message is still elsewhere. Does nothing
 * where the runtime spins for less than 10 us: there are too few CPUs. Never blocks. Caller: anyone who holds a reference. */
TY_API void ty_actor_rouse(struct ty_actor *actor);

/* One actor's counters, for as long as its runtime lives. Those of a run that goes on now are partly in. Caller: anyone
 * who holds a reference. */
struct ty_actor_stats {
	uint64_t messages;   /* handled */
	uint64_t runs;       /* times it was scheduled and run (a dedicated one: turns of its thread) */
	uint64_t running_ns; /* in runs and polls that have ended */
	/* the next three count to 2^32 - 1 */
	uint64_t exhausted;  /* runs that ended by budget with messages left */
	uint64_t refused;    /* messages given to refuse, or dropped for want of it */
	uint64_t queue_high; /* most messages that it ever found waiting; the runtime's own among them */
};
TY_API void ty_actor_stats(const struct ty_actor *actor, struct ty_actor_stats *out);

/* Hand `msg` over. TY_OK: it is the receiver's. TY_CLOSED: it is still the caller's, unchanged but for its type. Never blocks,
 * never allocates. Caller: anyone who holds a reference. */
TY_API TY_MUST_USE enum ty_code ty_send(struct ty_actor *to, struct ty_msg *msg, uint32_t type);
/* The same, overtaking messages that are not urgent, but for at most fifteen (one, if they take microseconds) that a
 * running actor handles before it looks into its mailbox again. */
TY_API TY_MUST_USE enum ty_code ty_send_urgent(struct ty_actor *to, struct ty_msg *msg, uint32_t type);

/* Several messages that are sent to one actor at once: for the price of one, also in the trace, where it is the first's.
 * Zeroed; built by one thread. They arrive in the order added, after all that was sent before. */
struct ty_bundle {
	struct ty_msg *newest, *oldest; /* linked by ty_msg.next, from the newest on */
};
static inline void ty_bundle_add(struct ty_bundle *bundle, struct ty_msg *msg, uint32_t type)
{
	assert(!(msg->flags & TY_MSG_QUEUED)); /* it is in one place at a time */
	msg->type = type;
	msg->flags = TY_MSG_QUEUED;
	msg->next = bundle->newest;
	if (!bundle->newest)
		bundle->oldest = msg;
	bundle->newest = msg;
}
/* Take back the message that was added last; null: there is none. */
static inline struct ty_msg *ty_bundle_take(struct ty_bundle *bundle)
{
	struct ty_msg *msg = bundle->newest;

	if (msg) {
		bundle->newest = msg->next;
		msg->next = NULL;
		msg->flags = 0;
	}
	return msg;
}
/* TY_OK: all of them are the receiver's and the bundle is empty, as it may have been before. TY_CLOSED: all are still in the
 * bundle. The messages are untyped and no requests. Caller: anyone who holds a reference. */
TY_API TY_MUST_USE enum ty_code ty_send_bundle(struct ty_actor *to, struct ty_bundle *bundle);

/* The actor that this thread is running, null outside of handlers. Borrowed. Caller: anyone. */
TY_API struct ty_actor *ty_self(void);
/* The clock of the runtime this thread is running for. Caller: handlers. */
TY_API int64_t ty_now(void);

/* The running actor has failed: when its handler (or poll) returns it ends, with `code` as its reason, as
 * if it had been stopped, but handling nothing more. The first call counts. An actor that is stopped ends
 * with TY_OK, one whose start fails with start's code. `code` is not TY_OK. Caller: handlers. */
TY_API void ty_actor_fail(enum ty_code code);
/* The same with TY_OK: it ends as if it had been stopped. Caller: handlers. */
TY_API void ty_actor_end(void);

/* ---- names --------------------------------------------------------------------------------- */

#define TY_NAME_MAX 63      /* bytes of a name */
#define TY_NAMES_MAX 65536  /* names at once, per runtime */

/* Give the actor a name, one of a runtime's; it may have several. The name is free again when the actor is over, before
 * anyone gets a DOWN. TY_EXISTS: it is taken; TY_INVALID: it is empty or too long; TY_CLOSED: the actor is over;
 * TY_LIMIT, TY_NO_MEMORY. Caller: anyone who holds a reference. */
TY_API TY_MUST_USE enum ty_code ty_name(struct ty_actor *actor, const char *name);
/* Take the name away. TY_CLOSED: nobody has it, as nobody has a null one. Caller: anyone. */
TY_API enum ty_code ty_unname(struct ty_runtime *rt, const char *name);
/* The actor that has the name: *out is a new reference. It never waits, whoever changes names meanwhile. TY_CLOSED: nobody
 * has it, as nobody has a null one. Caller: anyone. */
TY_API TY_MUST_USE enum ty_code ty_find(struct ty_runtime *rt, const char *name, struct ty_actor **out);

/* ---- timers -------------------------------------------------------------------------------- */

/* A timer lives in an actor's state and belongs to that actor: only its handlers may call these.
 * Its message arrives like any other. After ty_timer_cancel, and after an earlier arming was
 * replaced, no message of it arrives any more, even if it was on its way. Before its state is freed
 * (the actor's stop) the runtime disarms it. */
struct ty_timer {
	struct ty_msg msg;  /* what arrives; its container is the timer */
	void *opaque[6];    /* the runtime's */
};

/* Arm, or arm anew, for `deadline` (runtime's clock; the past fires at once, TY_NEVER cancels). Never
 * early. Neither allocates; after a cancel the runtime knows nothing of the timer. A type that is none of the class's, and a
 * timer that is armed by another actor, are assertions. Caller: the actor's handlers. */
TY_API void ty_timer_start(struct ty_timer *timer, uint32_t type, int64_t deadline);
TY_API void ty_timer_cancel(struct ty_timer *timer);

/* A timer that comes again and again, at first, first + period, ... Its message arrives like a timer's; the next tick
 * is armed before its handler runs, which may cancel it. Ticks that pass while the actor is busy are not made up for:
 * `missed` says how many, at each message. */
struct ty_ticker {
	struct ty_timer timer; /* what arrives is timer.msg */
	int64_t period;        /* ns; the runtime's */
	uint64_t missed;       /* ticks left out just before this one: for the handler */
};
/* `first` as for ty_timer_start. A period that is not positive is an assertion. Caller: the actor's handlers. */
TY_API void ty_ticker_start(struct ty_ticker *ticker, uint32_t type, int64_t first, int64_t period);
TY_API void ty_ticker_cancel(struct ty_ticker *ticker);

/* ---- requests ------------------------------------------------------------------------------ */

/* A question that is answered exactly once: by its receiver, or, when the deadline passes first, by
 * the runtime with TY_TIMEOUT. It is embedded in a struct of yours and brings its answer's envelope
 * along, so nothing is allocated. It is zeroed once (calloc, or {0}); `release` may then be set.
 *
 * Whose it is: the receiver's from ty_ask (or ty_forward) until ty_reply, which it must call once. The
 * answer makes it the requester's again, except when ty_request_home says that it is not: after the
 * runtime's TY_TIMEOUT the receiver still has it. The requester then leaves it alone but for
 * ty_request_release, after which it is freed by `release` once the receiver has replied too.
 *
 * If the requester dies first, `release` is called once the receiver has replied. The requester's
 * state lives that long, so a request may be in it (`release` is then null). */
struct ty_request {
	struct ty_msg msg;     /* what the receiver's handler gets */
	struct ty_timer reply; /* reply.msg is what the requester's handler gets */
	enum ty_code code;     /* the answer's, for the requester */
	/* Nobody needs the request any more: free what it is embedded in. On any thread that replies
	 * or releases; it must not call the runtime for an actor. May be null. */
	void (*release)(struct ty_request *request);
	void *opaque[3];       /* the runtime's */
};

/* The request in a handler's message: the receiver's, the requester's. */
#define ty_request_of(message) ty_container_of(message, struct ty_request, msg)
#define ty_request_of_reply(message) ty_container_of(message, struct ty_request, reply.msg)

/* Send `request` to `to` as `type`; the answer comes to the calling actor as `reply_type` (one of its
 * class's), once, at `deadline` (runtime's clock; TY_NEVER: no deadline) or a little later at the
 * latest. If the receiver stops, or does not know the type, the runtime answers with TY_CLOSED or
 * TY_UNSUPPORTED: its class's refuse sees no requests. TY_CLOSED: no answer will come, the request is
 * still the caller's. Never allocates. Caller: handlers; asking again what is still out is an assertion. */
TY_API TY_MUST_USE enum ty_code ty_ask(struct ty_actor *to, struct ty_request *request, uint32_t type,
	uint32_t reply_type, int64_t deadline);
/* Answer. The request is the caller's no more. An answer that comes after the deadline goes nowhere. To
 * reply twice is an assertion while the memory is there. Caller: anyone who has the request. */
TY_API void ty_reply(struct ty_request *request, enum ty_code code);
/* Hand the request to another actor, which is to reply instead. TY_CLOSED: it is still the caller's,
 * who replies. Caller: anyone who has the request. */
TY_API TY_MUST_USE enum ty_code ty_forward(struct ty_actor *to, struct ty_request *request, uint32_t type);
/* The requester, in the handler of its answer or after it: it needs the request no more. Calls `release`, now or
 * when a receiver that missed the deadline replies. Earlier it is an assertion. Caller: the requester's handlers. */
TY_API void ty_request_release(struct ty_request *request);
/* Is the request the requester's, to ask again or to free? Not while it is out, nor while its answer is on its way to the
 * handler. Caller: the requester's handlers. */
TY_API bool ty_request_home(const struct ty_request *request);

/* ---- memory for messages ------------------------------------------------------------------- */

#define TY_BLOCK_MAX 8176 /* the largest */

/* Memory for a message, zeroed, aligned to 16 bytes, from the calling thread's own pool of blocks of that size (64 bytes,
 * 128, and so on to 8192, a header of 16 included). Once as many are about as there ever were, nothing is allocated.
 * TY_BUSY: all that options.pool_bytes allows is in use; TY_LIMIT: larger than TY_BLOCK_MAX; TY_NO_MEMORY. *out is null
 * then.
 * Caller: handlers, and whoever is within ty_port_enter. */
TY_API TY_MUST_USE enum ty_code ty_block_new(size_t size, void **out);
/* Back to the pool that it came from. Null: nothing. What is freed twice, or is no block, is an assertion. Caller: anyone,
 * before the runtime is destroyed: then all blocks are gone. */
TY_API void ty_block_free(void *block);

/* ---- typed messages ------------------------------------------------------------------------ */

/* Declared once, beside its struct, a message's number and size are checked at both ends: the sender cannot pass
 * another struct, and the receiver's handler sees nothing but messages that were sent under this name, by code that was
 * compiled with the same size. Whatever else comes is a misfit: counted, reported (options.misfit) and refused.
 *
 *	struct job {
 *		struct ty_msg msg;	first, and of this name; in a TY_REQUEST: struct ty_request request
 *		uint64_t number;
 *	};
 *	TY_MESSAGE(square, SQUARE, struct job)
 *
 *	static void on_square(struct worker *self, struct job *job) { ... }
 *	TY_HANDLER(square, on_square, struct worker)
 *	... handlers[] = {{"square", on_square_run}};
 *
 *	code = square_send(worker, job);
 *
 * No semicolon follows them. Two messages may share a struct. Timers and answers are not typed: their handlers are
 * plain ones. */
#define TY_MESSAGE(name, number, struct_type) \
	TY_TYPED_(name, number, struct_type, msg) \
	static inline TY_UNUSED_ TY_MUST_USE enum ty_code name##_send(struct ty_actor *to, struct_type *message) \
	{ \
		return ty_send_typed(to, &message->msg, number, sizeof(struct_type)); \
	} \
	static inline TY_UNUSED_ TY_MUST_USE enum ty_code name##_send_urgent(struct ty_actor *to, struct_type *message) \
	{ \
		return ty_send_typed_urgent(to, &message->msg, number, sizeof(struct_type)); \
	}
#define TY_REQUEST(name, number, struct_type) \
	TY_TYPED_(name, number, struct_type, request) \
	static inline TY_UNUSED_ TY_MUST_USE enum ty_code name##_ask( \
		struct ty_actor *to, struct_type *message, uint32_t reply_type, int64_t deadline) \
	{ \
		return ty_ask_typed(to, &message->request, number, sizeof(struct_type), reply_type, deadline); \
	} \
	static inline TY_UNUSED_ struct_type *name##_of_reply(struct ty_msg *reply) \
	{ \
		return ty_container_of(reply, struct_type, request.reply.msg); \
	}
#define TY_HANDLER(name, handler, state_type) \
	static void handler##_run(void *self, struct ty_msg *message) \
	{ \
		if (name##_fits(message)) \
			handler((state_type *)self, name##_of(message)); \
	}

#define TY_UNUSED_ __attribute__((unused))
#define TY_TYPED_(name, number, struct_type, header) \
	static_assert(offsetof(struct_type, header) == 0, #name ": the header comes first"); \
	static_assert(sizeof(struct_type) / TY_MESSAGE_UNIT <= TY_MESSAGE_UNITS, #name ": larger than 512 KiB"); \
	static inline TY_UNUSED_ struct_type *name##_of(struct ty_msg *message) \
	{ \
		return (struct_type *)(void *)message; \
	} \
	static inline TY_UNUSED_ bool name##_fits(struct ty_msg *message) \
	{ \
		return (message->type == (number) && message->flags >> 16 == sizeof(struct_type) / TY_MESSAGE_UNIT) || \
			ty_message_misfit(message, sizeof(struct_type)); \
	}

#define TY_MESSAGE_UNIT 8        /* what a size is counted in: each is a multiple of the header's alignment */
#define TY_MESSAGE_UNITS 0xffffu /* the largest: 512 KiB less 8 bytes */

/* What the macros are made of: the same with the size, 0 for an untyped one. */
TY_API TY_MUST_USE enum ty_code ty_send_typed(struct ty_actor *to, struct ty_msg *msg, uint32_t type, size_t size);
TY_API TY_MUST_USE enum ty_code ty_send_typed_urgent(
	struct ty_actor *to, struct ty_msg *msg, uint32_t type, size_t size);
TY_API TY_MUST_USE enum ty_code ty_ask_typed(struct ty_actor *to, struct ty_request *request, uint32_t type,
	size_t size, uint32_t reply_type, int64_t deadline);
/* The message that the caller's handler was given is none of its own: counts, reports and refuses it. Always false. */
TY_API bool ty_message_misfit(struct ty_msg *msg, size_t expected);

/* ---- monitors and links -------------------------------------------------------------------- */

/* Watching another actor's end. Embedded in a struct of the watcher's; zeroed once, `release` may then be
 * set. It is the runtime's from ty_monitor or ty_link until the DOWN is handled, or `release` is called. */
struct ty_monitor {
	struct ty_msg msg;  /* the DOWN: what arrives; its container is the monitor */
	enum ty_code reason; /* for the watcher's handler: how the other ended; TY_OK: it was stopped */
	/* Called instead of a DOWN: after ty_demonitor, or when the watcher is over. On any thread of the
	 * runtime; it must not call the runtime for an actor. May be null, as for a monitor in the watcher's
	 * state, which lives as long as its monitors are out. */
	void (*release)(struct ty_monitor *monitor);
	void *opaque[10];   /* the runtime's */
};

/* Send the calling actor one message `type` (of its class's) when `target` has ended; at once if it has
 * already. It arrives after all ordinary messages that `target` sent before. Never fails, never
 * allocates. A monitor that is out already is an assertion. An actor that is ending (its refuse, its stop)
 * gets no DOWN: `release` is called at once. Caller: handlers. */
TY_API void ty_monitor(struct ty_actor *target, struct ty_monitor *monitor, uint32_t type);
/* No DOWN of this monitor arrives any more, even if it was on its way. Its memory comes back later: by
 * `release`, or see ty_monitor_home. Nothing happens if it is not out. Caller: the watcher's handlers. */
TY_API void ty_demonitor(struct ty_monitor *monitor);
/* The monitor is the watcher's, to use again or to free. Caller: the watcher's handlers, its stop among them. */
TY_API bool ty_monitor_home(const struct ty_monitor *monitor);
/* If `target` fails (its reason is not TY_OK), the calling actor fails with the same code, after what
 * `target` sent it before. It goes one way: for a link as Erlang has it, each of the two links the other.
 * No message arrives; when `target` has ended otherwise, `release` is called. ty_demonitor ends it.
 * Caller: handlers. */
TY_API void ty_link(struct ty_actor *target, struct ty_monitor *link);

/* ---- supervisors --------------------------------------------------------------------------- */

#define TY_CHILDREN_MAX 1024 /* children of one supervisor */
#define TY_RESTARTS_MAX 1024

enum ty_strategy {
	TY_ONE_FOR_ONE,  /* the child that ended is started again */
	TY_REST_FOR_ONE, /* and so are those after it, which are stopped first, the last one first */
};
enum ty_child_kind {
	TY_PERMANENT, /* started again however it ended */
	TY_TRANSIENT, /* when it failed */
	TY_TEMPORARY, /* never */
};

/* What a supervisor starts, each time anew: another actor, with another address, of the same name. */
struct ty_child {
	const char *name;                        /* see ty_name; null: none */
	const struct ty_class *cls;
	void *arg;                               /* as for ty_spawn, and each time the same */
	const struct ty_spawn_options *options;
	enum ty_child_kind restart;
};

enum ty_supervision_kind { TY_CHILD_STARTED, TY_CHILD_ENDED, TY_CHILD_GIVEN_UP };
struct ty_supervision {
	enum ty_supervision_kind kind;
	uint32_t child;         /* its place in options.children */
	enum ty_code reason;    /* how it ended */
	struct ty_actor *actor; /* STARTED: its address, borrowed; ENDED: that it had */
	uint64_t restarts;      /* of this child so far */
};

/* A supervisor is an actor: ty_spawn(rt, ty_supervisor(), &options, NULL, &actor). The options are its own until it is
 * over. It starts its children in order. When more than max_restarts were needed within `window`, or a child cannot be
 * spawned or named, it gives up: stops its children, the last one first and each to its end, and fails with the reason;
 * so a supervisor that is another's child is started anew, with all of its children. Stopped, it does the same and ends.
 * A runtime that stops has nothing restarted, and nothing given up. options that contradict themselves: it fails with TY_INVALID, those of a
 * later version: with TY_UNSUPPORTED. */
struct ty_supervisor_options {
	size_t size;                     /* sizeof(struct ty_supervisor_options): see result.h */
	struct ty_runtime *rt;
	enum ty_strategy strategy;
	const struct ty_child *children;
	uint32_t child_count;
	uint32_t max_restarts;           /* at most TY_RESTARTS_MAX; 0: the first that should be restarted ends it */
	int64_t window;                  /* ns; 0: no number of restarts is too many */
	/* What happens, as it does: for logs, and for those who keep addresses. On the supervisor's thread. May be null. */
	void (*told)(void *user, const struct ty_supervision *event);
	void *user;
};
TY_API const struct ty_class *ty_supervisor(void);

/* ---- ports: for threads of the program's own ----------------------------------------------- */

/* Where a thread that is none of the runtime's receives. It has an address like an actor's, which can be sent to, asked,
 * named, monitored; the thread takes the messages out when it likes, and waits for them together with whatever else it
 * waits for. A port is used by one thread at a time, and closed before its runtime is destroyed (an assertion). */
struct ty_port; /* opaque */

struct ty_port_options {
	size_t size;  /* sizeof(struct ty_port_options): see result.h */
	bool polled;  /* the thread looks by itself, all the time: there is no descriptor, and senders pay nothing for one */
	/* A message that was in the port when it was closed. Ownership passes to the callee. Requests do not come here: they
	 * are answered with TY_CLOSED. Null: dropped and counted. */
	void (*refuse)(void *user, struct ty_msg *msg);
	void *user;
};

/* TY_LIMIT: too many ports and dedicated actors, or descriptors; TY_INVALID, TY_UNSUPPORTED, TY_IO, TY_NO_MEMORY. options may be null.
 * Caller: anyone. */
TY_API TY_MUST_USE enum ty_code ty_port_open(
	struct ty_runtime *rt, const struct ty_port_options *options, struct ty_port **out);
/* Nothing comes in any more; what is left is refused, who watches the port's address gets a DOWN. Caller: its thread. */
TY_API void ty_port_close(struct ty_port *port);
/* The address, borrowed. It stays valid as long as it is referenced; once the port is closed, a send answers TY_CLOSED.
 * Caller: anyone while it is open. */
TY_API struct ty_actor *ty_port_address(struct ty_port *port);
/* The next message, by its type the caller's to tell apart; null: there is none. Never blocks. Caller: its thread. */
TY_API TY_MUST_USE struct ty_msg *ty_port_receive(struct ty_port *port);
/* For poll, epoll and their like: readable once something has come since ty_port_receive last found nothing, sometimes for
 * nothing. Nobody else reads from it. -1: a polled port. Caller: anyone. */
TY_API int ty_port_fd(const struct ty_port *port);
/* When ty_port_receive is to be called though the descriptor is quiet: the port's first timer or deadline (runtime's clock);
 * 0, which is past, if the last ty_port_receive found something, for there may be more; TY_NEVER. Caller: its thread. */
TY_API int64_t ty_port_next(struct ty_port *port);
/* Receive, and wait for it until `deadline` (runtime's clock). Null: it passed. Not for polled ports, nor in deterministic
 * mode (assertions). Caller: its thread. */
TY_API TY_MUST_USE struct ty_msg *ty_port_wait(struct ty_port *port, int64_t deadline);
/* From one to the other the calling thread acts as the port: what is said to be for handlers may be called (ty_ask,
 * ty_request_release, ty_monitor, ty_timer_start, ty_now, ...), but not ty_link, nor what ends an actor (assertions). The
 * answers and messages come to the port. Caller: its thread. */
TY_API void ty_port_enter(struct ty_port *port);
TY_API void ty_port_leave(struct ty_port *port);

/* ---- credits ------------------------------------------------------------------------------- */

#define TY_CREDITS_REQUESTS_MAX UINT64_C(0xffffff)     /* 16 million at once */
#define TY_CREDITS_BYTES_MAX UINT64_C(0xffffffffff)    /* a tebibyte, less one */

/* What an edge admits. Mailboxes are not bounded: a send never waits and never fails for want of room. So work is counted
 * where it comes in: it takes a credit, travels, and gives it back with its answer; when none is left the answer is
 * TY_BUSY, at once. Lives where you like; lock-free. */
struct ty_credits {
	uint64_t opaque[8]; /* the runtime's */
};
/* So many requests, of so many bytes in all, at once. TY_INVALID: more than the limits above. Caller: before any other
 * use. */
TY_API TY_MUST_USE enum ty_code ty_credits_init(struct ty_credits *credits, uint64_t requests, uint64_t bytes);
/* For one request of `bytes`. TY_BUSY: not now; TY_LIMIT: never, it is larger than all there is. Caller: anyone. */
TY_API TY_MUST_USE enum ty_code ty_credits_take(struct ty_credits *credits, uint64_t bytes);
/* The request is over. Of more than was taken: an assertion. Caller: anyone. */
TY_API void ty_credits_give(struct ty_credits *credits, uint64_t bytes);

struct ty_credits_stats {
	uint64_t requests, bytes;           /* taken now */
	uint64_t requests_high, bytes_high; /* most at once */
	uint64_t taken, busy;               /* how often */
};
/* Caller: anyone. */
TY_API void ty_credits_stats(const struct ty_credits *credits, struct ty_credits_stats *out);

#ifdef __cplusplus
}
#endif
#endif
