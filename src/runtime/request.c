/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests. The deadline is a timer in the requester's own heap, and its message is the answer's
 * envelope, so a TIMEOUT needs no mailbox. Whether the receiver or the deadline answers is decided by
 * one word; whoever loses never touches the envelope:
 *
 *	HOME      --ty_ask-->     WAITING
 *	WAITING   --ty_reply-->   REPLIED    the answer is sent
 *	WAITING   --deadline-->   EXPIRED    the answer is TIMEOUT; the receiver still has the request
 *	EXPIRED   --ty_reply-->   RETURNED   the requester has it alone
 *	EXPIRED   --release-->    LEFT       the receiver has it alone
 *	LEFT      --ty_reply-->   HOME       freed
 *	REPLIED, RETURNED --release--> HOME  freed
 *
 *            who with whom     reply/forward    expire, release
 *            reply, forward    no (one owner)   yes
 *            expire, release   yes              no (the requester's runner)
 *
 * That one of them has decided is not all: until the requester's handler has the answer, its envelope is in the requester's
 * mailbox or among its expired timers (`awaited`, the requester's own), and the request cannot be asked again or freed.
 *
 * The request holds a reference to its requester from ty_ask to ty_reply. A requester that ends disarms its
 * deadlines before it closes its mailbox: a reply that finds the mailbox closed has the request alone.
 */
#include <assert.h>
#include <stdalign.h>

#include "runtime/runtime.h"

enum { HOME, WAITING, REPLIED, EXPIRED, RETURNED, LEFT };

/* What ty_request.opaque holds. */
struct request_core {
	struct ty_actor *requester; /* written by ty_ask, read by who replies */
	uint32_t reply_type;        /* likewise */
	_Atomic(uint32_t) state;    /* acq_rel: who moves it on sees all that the other end did before */
	bool awaited;               /* the requester's runner: asked, and the answer was not handed out yet */
};
static_assert(sizeof(struct request_core) <= sizeof(((struct ty_request *)0)->opaque), "fits");
static_assert(alignof(struct request_core) <= alignof(void *), "fits");

static struct request_core *core_of(struct ty_request *request)
{
	return (struct request_core *)(void *)request->opaque;
}

/* Move from `*from`; if it was another state, false and `*from` says which. */
static bool move(struct request_core *core, uint32_t *from, uint32_t to)
{
	return atomic_compare_exchange_strong_explicit(
		&core->state, from, to, memory_order_acq_rel, memory_order_acquire);
}

/* Both ends are through with it. */
static void let_go(struct ty_request *request)
{
	void (*release)(struct ty_request *request) = request->release;

	/* release: pairs with ty_request_home, for a requester that has no other way to hear of it. Then it may be gone. */
	atomic_store_explicit(&core_of(request)->state, HOME, memory_order_release);
	if (release)
		release(request);
}

bool ty_request_home(const struct ty_request *request)
{
	const struct request_core *core = (const struct request_core *)(const void *)request->opaque;
	/* acquire: what the receiver wrote before it replied */
	uint32_t state = atomic_load_explicit(&core->state, memory_order_acquire);

	return state == HOME || (!core->awaited && (state == REPLIED || state == RETURNED));
}

enum ty_code ty_ask(struct ty_actor *to, struct ty_request *request, uint32_t type, uint32_t reply_type, int64_t deadline)
{
	return ty_ask_typed(to, request, type, 0, reply_type, deadline);
}

enum ty_code ty_ask_typed(struct ty_actor *to, struct ty_request *request, uint32_t type, size_t size,
	uint32_t reply_type, int64_t deadline)
{
	struct request_core *core = core_of(request);
	struct ty_actor *self = ty_self();
	enum ty_code code;

	assert(self); /* the answer goes to an actor */
	assert(ty_request_home(request));
	assert(reply_type - self->cls->first_type < self->cls->type_count);
	core->requester = ty_actor_ref(self);
	core->reply_type = reply_type;
	core->awaited = true;
	request->code = TY_OK;
	atomic_store_explicit(&core->state, WAITING, memory_order_relaxed); /* the push publishes it */
	if (!self->closing) /* else nobody is there to be told, and the answer frees the timer at any time */
		ty_timer_start_reply(&request->reply, reply_type, deadline);
	code = ty_send_flags(to, &request->msg, type, TY_MSG_REQUEST | TY_SIZE_CODE(size));
	if (code != TY_OK) {
		if (!self->closing)
			ty_timer_cancel(&request->reply);
		atomic_store_explicit(&core->state, HOME, memory_order_relaxed);
		ty_actor_unref(self);
	}
	return code;
}

enum ty_code ty_forward(struct ty_actor *to, struct ty_request *request, uint32_t type)
{
	/* relaxed: only to catch what was answered already */
	uint32_t state = atomic_load_explicit(&core_of(request)->state, memory_order_relaxed);
	uint32_t size = request->msg.flags & TY_MSG_SIZE;
	enum ty_code code;

	assert(state == WAITING || state == EXPIRED || state == LEFT);
	code = ty_send_flags(to, &request->msg, type, TY_MSG_REQUEST | size);
	if (code != TY_OK)
		request->msg.flags = TY_MSG_REQUEST | size; /* as it was: it may be forwarded to another */
	return code;
}

void ty_reply(struct ty_request *request, enum ty_code code)
{
	struct request_core *core = core_of(request);
	struct ty_actor *requester = core->requester;
	uint32_t state = WAITING;

	assert(!(request->msg.flags & TY_MSG_QUEUED)); /* it was forwarded: another replies */
	if (move(core, &state, REPLIED)) {
		request->code = code;
		if (ty_send_flags(requester, &request->reply.msg, core->reply_type, TY_MSG_REPLY) != TY_OK) {
			bool over = ty_mailbox_closed(&requester->box); /* and its deadline is disarmed */

			assert(over);
			let_go(request);
		}
	} else if (state != EXPIRED || !move(core, &state, RETURNED)) {
		bool answered_already = state != LEFT;

		assert(!answered_already);
		let_go(request);
	}
	ty_actor_unref(requester); /* last: the request may be in its state */
}

void ty_request_release(struct ty_request *request)
{
	struct request_core *core = core_of(request);
	uint32_t state = EXPIRED;

	/* else it is still asked, or its answer on its way. relaxed: who let it go is not there any more */
	assert(!core->awaited || atomic_load_explicit(&core->state, memory_order_relaxed) == HOME);
	if (move(core, &state, LEFT))
		return;
	assert(state == REPLIED || state == RETURNED || state == HOME);
	let_go(request);
}

bool ty_request_expire(struct ty_timer *reply)
{
	struct ty_request *request = ty_container_of(reply, struct ty_request, reply);
	uint32_t state = WAITING;

	if (!move(core_of(request), &state, EXPIRED))
		return false;
	request->code = TY_TIMEOUT;
	return true;
}

void ty_request_told(struct ty_msg *reply)
{
	core_of(ty_request_of_reply(reply))->awaited = false;
}

void ty_request_arrived(struct ty_msg *reply)
{
	ty_request_told(reply);
	ty_timer_cancel(&ty_request_of_reply(reply)->reply);
}

void ty_request_orphan(struct ty_msg *reply)
{
	ty_request_told(reply);
	ty_request_release(ty_request_of_reply(reply));
}
