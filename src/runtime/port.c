/* SPDX-License-Identifier: Apache-2.0
 *
 * Ports: an actor's mailbox for a thread of the program's own, which takes the messages out itself. Like a dedicated
 * actor without its thread: senders wake it by a descriptor that becomes readable.
 *
 * The mailbox is IDLE from a receive that found nothing to the next one; whoever sends first in between takes IDLE away
 * and writes to the descriptor, once. It may be preempted before it writes: what was not there to be read then makes the
 * descriptor readable later, for nothing, and is read by the next receive that finds nothing.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/options.h"
#include "runtime/runtime.h"

struct ty_port { /* an actor's state */
	int fd;                 /* -1: polled. Constant while open */
	bool idle;              /* the port's thread: the mailbox was left IDLE */
	uint64_t woken, eaten;  /* likewise: IDLEs that senders took away; wakes read from the descriptor */
	struct ty_thread *before; /* likewise: what the thread was before ty_port_enter */
	bool entered;
	void (*refuse)(void *user, struct ty_msg *msg);
	void *user;
};

static struct ty_actor *actor_of(struct ty_port *port)
{
	return (struct ty_actor *)(void *)((unsigned char *)port + ty_state_room(sizeof *port));
}

/* ---- the class ----------------------------------------------------------------------------- */

static void port_refuse(void *self, struct ty_msg *msg)
{
	struct ty_port *port = self;

	port->refuse(port->user, msg);
}

static void port_stop(void *self)
{
	struct ty_port *port = self;

	if (port->fd >= 0)
		close(port->fd);
}

static void port_wait(void *self, int64_t deadline)
{
	(void)self;
	(void)deadline; /* a port has no thread that waits */
}

static void port_wake(void *self)
{
	uint64_t one = 1;

	/* it cannot be full: at most one wake a receive */
	(void)!write(((struct ty_port *)self)->fd, &one, sizeof one);
}

/* Any type may come: a port's user looks at msg->type. Without and with a refuse of the user's. */
#define PORT .name = "port", .state_size = sizeof(struct ty_port), .type_count = UINT32_MAX, .stop = port_stop, \
	.wait = {port_wait, port_wake}
static const struct ty_class port_class = {PORT}, refusing_class = {PORT, .refuse = port_refuse};

/* ---- opening ------------------------------------------------------------------------------- */

enum ty_code ty_port_open(struct ty_runtime *rt, const struct ty_port_options *options, struct ty_port **out)
{
	static const struct ty_port_options defaults = {.size = sizeof defaults};
	static const struct ty_spawn_options dedicated = {.size = sizeof dedicated, .executor = TY_DEDICATED, .cpu = -1};
	struct ty_port_options adapted;
	struct ty_actor *actor;
	struct ty_port *port;
	struct ty_error err;
	enum ty_code code;

	options = ty_options_take(options, sizeof *options, &defaults, &adapted, &err);
	if (!options)
		return err.code;
	actor = ty_actor_new(rt, options->refuse ? &refusing_class : &port_class, NULL);
	if (!actor)
		return TY_NO_MEMORY;
	code = ty_dedicated_create(actor, &dedicated);
	if (code != TY_OK) {
		ty_actor_free(actor);
		return code;
	}
	port = ty_state(actor);
	port->refuse = options->refuse;
	port->user = options->user;
	port->fd = options->polled ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!options->polled && port->fd < 0) {
		code = errno == EMFILE || errno == ENFILE ? TY_LIMIT : errno == ENOMEM ? TY_NO_MEMORY : TY_IO;
		ty_actor_free(actor); /* after it: it may change errno */
		return code;
	}
	actor->started = true;
	port->idle = !options->polled && ty_mailbox_try_idle(&actor->box);
	atomic_fetch_add_explicit(&rt->ports, 1, memory_order_relaxed);
	ty_actor_unref(actor); /* one is enough: it is in no registry */
	*out = port;
	return TY_OK;
}

struct ty_actor *ty_port_address(struct ty_port *port)
{
	return actor_of(port);
}

int ty_port_fd(const struct ty_port *port)
{
	return port->fd;
}

/* ---- as the port --------------------------------------------------------------------------- */

void ty_port_enter(struct ty_port *port)
{
	struct ty_actor *actor = actor_of(port);
	struct ty_thread *thread = ty_dedicated_thread(actor);

	assert(!port->entered); /* one thread at a time, once */
	port->entered = true;
	port->before = ty_current;
	thread->self = actor;
	thread->stamped = false;
	ty_current = thread;
}

void ty_port_leave(struct ty_port *port)
{
	struct ty_thread *thread = ty_dedicated_thread(actor_of(port));

	assert(port->entered && ty_current == thread);
	if (thread->open) { /* refuse or stop was called: who looks from outside is told that it is over */
		ty_stamp_end(thread);
		ty_thread_close(thread);
		ty_seat_end(thread->seat);
	}
	thread->self = NULL;
	ty_current = port->before;
	port->entered = false;
}

/* Take in the wakes that the descriptor has. */
static void eat(struct ty_port *port)
{
	uint64_t wakes;

	while (port->eaten < port->woken && read(port->fd, &wakes, sizeof wakes) == sizeof wakes)
		port->eaten += wakes;
}

static struct ty_msg *receive(struct ty_port *port)
{
	struct ty_actor *actor = actor_of(port);
	struct ty_msg *msg;

	if (port->idle)
		port->woken += !ty_dedicated_leave_idle(actor);
	port->idle = false;
	for (;;) {
		if (ty_timers_next(actor) <= ty_thread_clock(ty_current))
			actor->timers_changed = true; /* they are due: have them collected */
		msg = ty_actor_take(ty_current, actor);
		if (msg || port->fd < 0)
			return msg;
		eat(port);
		port->idle = ty_mailbox_try_idle(&actor->box);
		if (port->idle)
			return NULL;
	}
}

struct ty_msg *ty_port_receive(struct ty_port *port)
{
	struct ty_msg *msg;

	ty_port_enter(port);
	msg = receive(port);
	ty_port_leave(port);
	return msg;
}

int64_t ty_port_next(struct ty_port *port)
{
	struct ty_actor *actor = actor_of(port);
	int64_t next = ty_timers_next(actor);

	/* While it is awake nobody writes to the descriptor: there may be more, which only a look finds. */
	if (port->fd >= 0 ? !port->idle : ty_actor_pending(actor))
		return 0;
	return next > 0 ? next : 0; /* the past is the past: who subtracts from it stays within the range */
}

struct ty_msg *ty_port_wait(struct ty_port *port, int64_t deadline)
{
	struct ty_runtime *rt = actor_of(port)->rt;
	struct pollfd fd = {.fd = port->fd, .events = POLLIN};
	struct ty_msg *msg;

	assert(port->fd >= 0 && !rt->sim); /* it has something to wait for, and time passes */
	while (!(msg = ty_port_receive(port))) {
		int64_t now = ty_runtime_now(rt), next = ty_port_next(port), left;

		if (now >= deadline)
			return NULL;
		left = (next < deadline ? next : deadline) - now;
		if (left < 0)
			left = 0;
		if (next == TY_NEVER && deadline == TY_NEVER)
			ppoll(&fd, 1, NULL, NULL);
		else
			ppoll(&fd, 1, &(struct timespec){.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000}, NULL);
	}
	return msg;
}

void ty_port_close(struct ty_port *port)
{
	struct ty_actor *actor = actor_of(port);
	struct ty_thread *thread = ty_dedicated_thread(actor);
	struct ty_runtime *rt = actor->rt;

	ty_port_enter(port);
	if (port->idle) /* for ty_dedicated_settle: who took IDLE away is about to write to what stop closes */
		port->woken += !ty_dedicated_leave_idle(actor);
	ty_actor_finish(thread, actor);
	ty_port_leave(port);
	ty_seat_leave(thread->seat);
	thread->seat = NULL;
	atomic_fetch_sub_explicit(&rt->ports, 1, memory_order_release); /* pairs with ty_runtime_destroy */
	ty_actor_unref(actor);
}
