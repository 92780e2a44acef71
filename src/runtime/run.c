/* SPDX-License-Identifier: Apache-2.0
 *
 * Running an actor: what its executor calls, whichever that is.
 */
#include <assert.h>

#include "runtime/runtime.h"

int64_t ty_thread_clock(struct ty_thread *thread)
{
	thread->now = thread->rt->sim ? ty_sim_now(thread->rt) : ty_clock();
	return thread->now;
}

bool ty_actor_pending(struct ty_actor *actor)
{
	return actor->urgent.last || actor->normal.last || actor->due_last;
}

static void take_in(struct ty_actor *actor, struct ty_msg *newest)
{
	struct ty_counts *counts = &actor->counts;

	counts->waiting += ty_mailbox_sort(newest, &actor->urgent, &actor->normal);
	if (counts->waiting > atomic_load_explicit(&counts->queue_high, memory_order_relaxed))
		atomic_store_explicit(&counts->queue_high, counts->waiting, memory_order_relaxed);
}

/* Take in what was sent. */
static bool look(struct ty_actor *actor)
{
	struct ty_msg *newest = ty_mailbox_take(&actor->box);

	if (newest)
		take_in(actor, newest);
	return newest;
}

/* What woke the actor, which had nothing else to do: one message is returned, to be handled at once; of several, or
 * with no budget, null. */
static struct ty_msg *take_handed(struct ty_actor *actor, uint32_t budget)
{
	struct ty_msg *newest = actor->handed;

	if (!newest || actor->threaded)
		return NULL;
	actor->handed = NULL;
	ty_fetch(newest); /* its handler will write it, if we do not */
	if (newest->next || !budget) {
		take_in(actor, newest);
		return NULL;
	}
	if (!atomic_load_explicit(&actor->counts.queue_high, memory_order_relaxed))
		atomic_store_explicit(&actor->counts.queue_high, 1, memory_order_relaxed);
	return newest;
}

/* An expired timer's message, or null: it is another's turn. */
static __attribute__((noinline)) struct ty_msg *next_due(struct ty_thread *thread, struct ty_actor *actor)
{
	struct ty_msg *msg;

	if (actor->urgent.last)
		return NULL;
	actor->due_turn = !actor->due_turn || !actor->normal.last;
	if (!actor->due_turn)
		return NULL;
	msg = ty_timers_take(actor);
	ty_count(&thread->seat->timers);
	ty_record(thread, TY_EVENT_TIMER, thread->stamp, actor, ty_index_of(actor->cls, msg->type), (uintptr_t)msg);
	return msg;
}

/* Where the next message lies; there is one. Urgent ones first. */
static inline struct ty_fifo *next_fifo(struct ty_actor *actor)
{
	return actor->urgent.last ? &actor->urgent : &actor->normal;
}

static inline struct ty_msg *take_first(struct ty_actor *actor)
{
	actor->counts.waiting--;
	return ty_fifo_take(next_fifo(actor));
}

/* The message is none that the class handles. `size`: what its handler expects; 0: it has none. */
static void report_misfit(struct ty_thread *thread, const struct ty_actor *actor, const struct ty_msg *msg, size_t size)
{
	const struct ty_runtime *rt = thread->rt;
	uint32_t index = ty_index_of(actor->cls, msg->type);
	struct ty_misfit misfit = {.actor = actor->cls->name, .type = msg->type, .expected = size,
		.message = index == TY_INDEX_UNKNOWN || !actor->cls->handlers ? NULL : actor->cls->handlers[index].name,
		.found = TY_CODE_SIZE(msg->flags)};

	ty_count(&thread->seat->misfits);
	if (rt->misfit)
		rt->misfit(rt->misfit_user, &misfit);
}

/* `handled`: a handler was called for it, which found that it does not fit. */
static __attribute__((noinline)) void refuse(
	struct ty_thread *thread, struct ty_actor *actor, struct ty_msg *msg, bool handled)
{
	const struct ty_class *cls = actor->cls;
	uint32_t flags = msg->flags;
	bool dropped = !cls->refuse && !(flags & (TY_MSG_REQUEST | TY_MSG_REPLY));

	msg->next = NULL;
	msg->flags = 0;
	ty_count(&thread->seat->refused[handled][dropped]);
	ty_count_few(&actor->counts.refused);
	TY_PROBE4(drop, actor->number, cls->name, msg->type, msg);
	ty_record(thread, TY_EVENT_DROP, thread->stamp, actor, ty_index_of(cls, msg->type), (uintptr_t)msg);
	if (flags & TY_MSG_REQUEST) {
		ty_reply(ty_request_of(msg), actor->closing ? TY_CLOSED : TY_UNSUPPORTED);
	} else if (flags & TY_MSG_REPLY && !cls->refuse) {
		ty_request_orphan(msg);
	} else if (cls->refuse) {
		if (flags & TY_MSG_REPLY)
			ty_request_told(msg);
		ty_record(thread, TY_EVENT_BEGIN, ty_stamp_begin(thread), actor, TY_INDEX_REFUSE, (uintptr_t)msg);
		thread->open = true;
		ty_seat_begin(thread->seat, cls, "refuse", thread->stamp);
		cls->refuse(ty_state(actor), msg);
	}
}

bool ty_message_misfit(struct ty_msg *msg, size_t expected)
{
	struct ty_actor *self = ty_self();

	assert(self); /* typed messages are taken apart by handlers */
	report_misfit(ty_current, self, msg, expected);
	refuse(ty_current, self, msg, true);
	return false;
}

void ty_thread_close(struct ty_thread *thread)
{
	if (thread->open)
		ty_record_thread(thread, TY_EVENT_END, thread->stamp, 0, 0);
	thread->open = false;
}

/* A worker goes on to another run, whose first message ends what was before: it writes no event between them. */
static void end_of_run(struct ty_thread *thread, struct ty_actor *actor, uint64_t began)
{
	ty_count_more(&actor->counts.ticks, ty_stamp_end(thread) - began);
	if (!thread->worker)
		ty_thread_close(thread);
}

/* What comes next is no message of the class: it is not part of the last one's. */
static void close_now(struct ty_thread *thread)
{
	if (!thread->open)
		return;
	if (!thread->stamped)
		ty_stamp_end(thread);
	ty_thread_close(thread);
}

void ty_actor_finish(struct ty_thread *thread, struct ty_actor *actor)
{
	const struct ty_class *cls = actor->cls;
	struct ty_msg *msg;

	actor->closing = true;
	close_now(thread);
	ty_timers_drop(thread, actor); /* before the close: who finds it closed may free a request, its timer with it */
	ty_monitors_close(actor);
	if (!actor->threaded && actor->handed)
		take_in(actor, actor->handed);
	ty_mailbox_sort(ty_mailbox_close(&actor->box), &actor->urgent, &actor->normal);
	while ((msg = ty_fifo_take(&actor->urgent)) || (msg = ty_fifo_take(&actor->normal)))
		if (!(msg->flags & TY_MSG_INTERNAL))
			refuse(thread, actor, msg, false);
		else if (msg->type)
			ty_monitors_internal(actor, msg);
	if (actor->threaded)
		ty_dedicated_settle(actor);
	if (cls->stop) {
		ty_record(thread, TY_EVENT_BEGIN, ty_stamp_begin(thread), actor, TY_INDEX_STOP, 0);
		thread->open = true;
		ty_seat_begin(thread->seat, cls, "stop", thread->stamp);
		cls->stop(ty_state(actor));
	}
	ty_timers_drop(thread, actor); /* those that refuse or stop started */
	ty_monitors_end(actor); /* it sends nothing any more: DOWN comes after all else */
}

/* The end of an actor: nothing comes in any more, what is left is refused, stop is called. */
static __attribute__((noinline)) void finish(struct ty_thread *thread, struct ty_actor *actor, uint64_t began)
{
	ty_actor_finish(thread, actor);
	thread->self = NULL;
	end_of_run(thread, actor, began);
	ty_seat_end(thread->seat);
	ty_actor_retire(actor);
}

/* False: start failed. */
static bool start(struct ty_thread *thread, struct ty_actor *actor)
{
	void *arg = actor->arg;
	enum ty_code code;

	actor->started = true;
	actor->timers.top = NULL; /* in its place */
	if (!actor->cls->start)
		return true;
	ty_record(thread, TY_EVENT_BEGIN, ty_stamp_begin(thread), actor, TY_INDEX_START, 0);
	thread->open = true;
	ty_seat_begin(thread->seat, actor->cls, "start", thread->stamp);
	code = actor->cls->start(ty_state(actor), arg);
	ty_stamp_end(thread); /* the first message begins now, at a worker */
	thread->stamped = thread->worker;
	if (code != TY_OK && !actor->failing)
		actor->reason = (int16_t)code;
	return code == TY_OK;
}

/* What handles the message; null: the class has no handler for it. */
static inline const struct ty_handler *handler_of(const struct ty_class *cls, const struct ty_msg *msg)
{
	uint32_t index = msg->type - cls->first_type;

	return index < cls->type_count && cls->handlers[index].run ? &cls->handlers[index] : NULL;
}

/* The same of a message that the runtime has no part in; null: special sees to it. */
static inline const struct ty_handler *plain_handler(const struct ty_class *cls, const struct ty_msg *msg)
{
	return msg->flags & (TY_MSG_INTERNAL | TY_MSG_REPLY) ? NULL : handler_of(cls, msg);
}

/* What is the same for messages of one kind. */
struct kind {
	const struct ty_handler *handler;
	uint32_t index; /* of the handler */
	uint32_t flags; /* while the handler runs */
};

static inline struct kind kind_of(
	const struct ty_class *cls, const struct ty_handler *handler, const struct ty_msg *msg)
{
	return (struct kind){handler, (uint32_t)(handler - cls->handlers), msg->flags & TY_MSG_KEPT};
}

/* Inlined where streams of messages and those that wake an actor are handled; elsewhere it is handle_alone. The thread is
 * `open` from here on. */
static inline __attribute__((always_inline)) void handle(
	struct ty_thread *thread, struct ty_actor *actor, struct ty_msg *msg, struct kind kind, void *state)
{
	const struct ty_class *cls = actor->cls;
	struct ty_seat *seat = thread->seat;

	msg->flags = kind.flags;
	TY_PROBE4(run, actor->number, cls->name, kind.handler->name, msg);
	ty_record(thread, TY_EVENT_BEGIN, thread->stamp, actor, kind.index, (uintptr_t)msg);
	if (!ty_seat_says(seat, kind.handler->name, thread->stamp))
		ty_seat_begin(seat, cls, kind.handler->name, thread->stamp);
	ty_count(&seat->messages);
	ty_count(&actor->counts.messages);
	kind.handler->run(state, msg);
}

/* A message for the class that is not, or no longer, the runtime's. */
static __attribute__((noinline)) void handle_alone(struct ty_thread *thread, struct ty_actor *actor, struct ty_msg *msg)
{
	const struct ty_handler *handler = handler_of(actor->cls, msg);

	if (handler) {
		thread->open = true;
		handle(thread, actor, msg, kind_of(actor->cls, handler, msg), ty_state(actor));
	} else {
		report_misfit(thread, actor, msg, 0);
		refuse(thread, actor, msg, false);
	}
}

/* Type and flags, for a comparison. */
static inline uint64_t label(const struct ty_msg *msg)
{
	return (uint64_t)msg->type << 32 | msg->flags;
}

/* Handle the first of a FIFO, which is not empty, and those that follow, at most `most`, as long as they are plain and the
 * handlers leave the timers alone. Nothing else is looked at in between. Returns how many. */
static __attribute__((noinline)) uint32_t handle_group(
	struct ty_thread *thread, struct ty_actor *actor, struct ty_fifo *fifo, uint32_t most)
{
	const struct ty_class *cls = actor->cls;
	const struct ty_handler *handler;
	struct ty_msg *last = fifo->last, *msg = last->next, *next;
	void *state = ty_state(actor);
	uint32_t left = most;

	while (msg && left && !actor->timers_changed && (handler = plain_handler(cls, msg))) {
		struct kind kind = kind_of(cls, handler, msg);
		uint64_t same = label(msg);

		thread->open = true;
		do {
			next = msg == last ? NULL : msg->next; /* before the handler, whose message it is then */
			handle(thread, actor, msg, kind, state);
			msg = next;
		} while (--left && msg && !actor->timers_changed && label(msg) == same);
	}
	if (msg)
		last->next = msg;
	else
		fifo->last = NULL;
	actor->counts.waiting -= most - left;
	return most - left;
}

struct run {
	uint64_t began; /* ticks */
	uint32_t done;  /* messages */
};

/* stop_msg has come. True: the class will end the actor itself, later. */
static __attribute__((noinline)) bool puts_off_stop(struct ty_thread *thread, struct ty_actor *actor)
{
	const struct ty_class *cls = actor->cls;

	actor->stop_msg.flags = 0; /* it may be sent again */
	if (!cls->stopping || atomic_load_explicit(&actor->stopping, memory_order_relaxed) == TY_STOP_CUT)
		return false;
	ty_record(thread, TY_EVENT_BEGIN, ty_stamp_begin(thread), actor, TY_INDEX_STOP, 0);
	thread->open = true;
	ty_seat_begin(thread->seat, cls, "stopping", thread->stamp);
	cls->stopping(ty_state(actor));
	/* seq_cst, both: says that it goes on, then looks whether it may; pairs with cut_all, ty_actor_cut */
	atomic_store_explicit(&actor->stopping, TY_STOP_ASKED, memory_order_seq_cst);
	return atomic_load_explicit(&actor->rt->budget_messages, memory_order_seq_cst) != 0;
}

/* A message that the runtime has a part in. Returns one that the class is to handle, or null. */
static struct ty_msg *special(struct ty_thread *thread, struct ty_actor *actor, struct ty_msg *msg, uint32_t *done)
{
	close_now(thread);
	if (msg->flags & TY_MSG_REPLY) {
		ty_request_arrived(msg);
		return msg;
	}
	if (msg->type) {
		msg = ty_monitors_internal(actor, msg);
		*done += !msg; /* anyone can send many of them: they count */
		return msg;
	}
	ty_timers_internal(actor, msg);
	return NULL;
}

/* A message that is not plain. False: it is stop_msg, and the actor is to end. */
static __attribute__((noinline)) bool handle_special(
	struct ty_thread *thread, struct ty_actor *actor, struct ty_msg *msg, struct run *run)
{
	if (msg == &actor->stop_msg)
		return puts_off_stop(thread, actor);
	if (msg->flags & (TY_MSG_INTERNAL | TY_MSG_REPLY))
		msg = special(thread, actor, msg, &run->done);
	if (msg) {
		handle_alone(thread, actor, msg);
		run->done++;
	}
	return true;
}

/* What woke the actor, if it is one message. False: the actor is to end. */
static inline bool handle_handed(struct ty_thread *thread, struct ty_actor *actor, uint32_t budget, struct run *run)
{
	struct ty_msg *msg = take_handed(actor, budget);
	const struct ty_handler *handler;

	if (!msg)
		return true;
	ty_stamp_group(thread);
	handler = plain_handler(actor->cls, msg);
	if (!handler)
		return handle_special(thread, actor, msg, run);
	thread->open = true;
	handle(thread, actor, msg, kind_of(actor->cls, handler, msg), ty_state(actor));
	run->done++;
	return true;
}

/* Due timers and ordinary messages in turn, so that neither starves the other. False: the actor is to end. */
static inline bool handle_next(
	struct ty_thread *thread, struct ty_actor *actor, uint32_t most, struct run *run)
{
	uint32_t done;

	if (actor->due_last) {
		struct ty_msg *due = next_due(thread, actor);

		if (due)
			return handle_special(thread, actor, due, run);
		most = 1;
	}
	done = handle_group(thread, actor, next_fifo(actor), most);
	run->done += done;
	return done || handle_special(thread, actor, take_first(actor), run);
}

/* What handlers did that is looked at between messages. False: the actor is to end. */
static inline bool settle(struct ty_thread *thread, struct ty_actor *actor)
{
	if (!actor->timers_changed)
		return true;
	if (!actor->failing)
		ty_timers_sync(thread, actor);
	return !actor->failing;
}

static enum ty_ran run_messages(struct ty_thread *thread, struct ty_actor *actor, uint32_t budget, uint64_t since)
{
	struct run run = {.began = since};
	bool goes_on = settle(thread, actor) && handle_handed(thread, actor, budget, &run);

	while (goes_on && settle(thread, actor)) {
		uint32_t most;

		look(actor); /* also for what is urgent */
		if (!ty_actor_pending(actor))
			return TY_RAN_EMPTY;
		most = ty_stamp_group(thread);
		if (run.done >= budget || (run.done && thread->stamp - run.began > thread->rt->budget_ticks))
			return TY_RAN_MORE;
		goes_on = handle_next(thread, actor, most < budget - run.done ? most : budget - run.done, &run);
	}
	finish(thread, actor, since);
	return TY_RAN_DEAD;
}

struct ty_msg *ty_actor_take(struct ty_thread *thread, struct ty_actor *actor)
{
	uint32_t done = 0;

	for (;;) {
		struct ty_msg *msg;

		if (actor->timers_changed)
			ty_timers_sync(thread, actor);
		look(actor);
		if (!ty_actor_pending(actor))
			return NULL;
		msg = actor->due_last ? next_due(thread, actor) : NULL;
		if (!msg)
			msg = take_first(actor);
		if (msg == &actor->stop_msg)
			continue; /* a port is closed by its thread */
		if (msg->flags & (TY_MSG_INTERNAL | TY_MSG_REPLY))
			msg = special(thread, actor, msg, &done);
		if (!msg)
			continue;
		msg->next = NULL;
		msg->flags &= TY_MSG_KEPT;
		TY_PROBE4(run, actor->number, actor->cls->name, "receive", msg);
		ty_count(&thread->seat->messages);
		ty_count(&actor->counts.messages);
		return msg;
	}
}

enum ty_ran ty_actor_run(struct ty_thread *thread, struct ty_actor *actor, uint32_t budget)
{
	uint64_t began = ty_stamp_begin(thread);
	struct ty_seat *seat = thread->seat;
	enum ty_ran ran;

	/* At a worker the first message begins now, too: it is there. A thread of its own may run its actor without, and then one
	 * that is sent meanwhile would begin before it was sent. */
	thread->stamped = thread->worker;
	thread->self = actor;
	ty_count(&seat->runs);
	ty_count(&actor->counts.runs);
	if (!actor->started && !start(thread, actor)) {
		finish(thread, actor, began);
		return TY_RAN_DEAD;
	}
	ran = run_messages(thread, actor, budget, began);
	if (ran == TY_RAN_DEAD)
		return ran;
	if (ran == TY_RAN_MORE) {
		if (budget == 0) {
			finish(thread, actor, began);
			return TY_RAN_DEAD;
		}
		ty_count(&seat->exhausted);
		ty_count_few(&actor->counts.exhausted);
	}
	thread->self = NULL;
	end_of_run(thread, actor, began);
	ty_seat_end(seat);
	return ran;
}

int64_t ty_actor_poll(struct ty_thread *thread, struct ty_actor *actor, int64_t now)
{
	uint64_t began = ty_stamp_begin(thread);
	int64_t again;

	thread->sent = false;
	thread->self = actor;
	ty_seat_begin(thread->seat, actor->cls, "poll", began);
	again = actor->cls->poll(ty_state(actor), now);
	thread->self = NULL;
	ty_count_more(&actor->counts.ticks, ty_stamp_end(thread) - began);
	/* nor is a poll that neither took long nor sent anything */
	if (thread->stamp - began >= TY_QUICK_TICKS || thread->sent) {
		ty_record(thread, TY_EVENT_POLL, thread->stamp, actor, 0, began);
		thread->sent = false;
	}
	ty_seat_end(thread->seat);
	if (actor->failing)
		return now; /* to end at once */
	return again;
}
