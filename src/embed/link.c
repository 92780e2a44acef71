/* SPDX-License-Identifier: Apache-2.0
 *
 * The connection, and the owner's life: it is spawned when there is an arena, and ends with the connection; another service may
 * have another arena.
 */
#include "link.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/folder.h"
#include "base/log.h"
#include "wire/attach.h"

#define FRAMES_MAX 8           /* in one turn */
#define ATTEMPT_NS 30000000000 /* from connecting to the device's being open */
#define KNOCK_NS 2000000       /* a full backlog gives no event to wait for */

enum { EVENT_ATTACH, EVENT_STREAM };

/* ---- the end of a connection ---------------------------------------------------------------------------------------------- */

static void set_state(struct link *l, enum ty_code code)
{
	atomic_store_explicit(&l->embed->state, (int)code, memory_order_relaxed);
}

static void wait_for_what(struct link *l, enum link_wait what)
{
	atomic_store_explicit(&l->embed->waits_for, (int)what, memory_order_relaxed);
}

static void close_attach(struct link *l)
{
	if (l->attach_fd >= 0) {
		ty_waiter_remove(&l->waiter, l->attach_fd); /* a child of the engine's process may have a copy, which would be told of for ever */
		close(l->attach_fd);
	}
	l->attach_fd = -1;
}

void link_lose(struct link *l, enum ty_code code, const char *why)
{
	bool up = l->phase == LINK_UP;

	if (l->lost || l->phase == LINK_AWAY)
		return;
	(void)ty_fail(&l->why, code, "%s", why);
	l->pause = ty_reconnect_pause(&l->reconnect, up, ty_now());
	if (up && l->reconnect.attempts <= 1) /* not of each time, if it takes us and loses us */
		ty_log(TY_LOG_WARN, "embed", "the service is away: %s", l->why.text);
	l->lost = true;
	l->phase = LINK_ENDING;
	set_state(l, code);
	close_attach(l);
	if (l->stream.fd >= 0) /* it is closed when nothing of it is out: an owner may look at it */
		ty_waiter_remove(&l->waiter, l->stream.fd);
	l->ends_all = true; /* not here: what goes through jobs and pools may be what had to say something */
}

static void tell_opener(struct link *l, enum ty_code code)
{
	struct link_told *told = &l->embed->told;

	if (!l->opener)
		return;
	told->code = code;
	told->error = l->why;
	if (ty_send(l->opener, &told->msg, LINK_TOLD) != TY_OK)
		ty_log(TY_LOG_DEBUG, "embed", "nobody waits for it any more");
	l->opener = NULL;
}

/* All is back, and there is no owner. */
static void away(struct link *l)
{
	ty_owner_stream_close(&l->stream);
	l->waits = false;
	if (l->service->arena.base)
		ty_arena_close(&l->service->arena);
	free(l->pieces);
	l->pieces = NULL;
	atomic_store_explicit(&l->embed->pieces, 0, memory_order_relaxed);
	l->phase = LINK_AWAY;
	l->lost = false;
	l->connect_at = ty_now() + l->pause;
	if (l->opener) { /* one attempt, and no more */
		l->connect_at = TY_NEVER;
		tell_opener(l, l->why.code);
	}
	if (l->stopping)
		ty_actor_end();
}

void link_settle(struct link *l)
{
	if (l->ends_all) {
		l->ends_all = false;
		link_end_all(l);
	}
	if (l->phase != LINK_ENDING)
		return;
	if (l->jobs || l->pools || l->pieces_out) {
		wait_for_what(l, LINK_WAITS_FOR_COPIES);
		return;
	}
	if (!l->lost && l->stream.out_sent < l->stream.out_length) { /* what it has to say goes out first */
		wait_for_what(l, LINK_WAITS_FOR_SERVICE);
		return;
	}
	if (!l->gpu) {
		away(l);
		return;
	}
	wait_for_what(l, LINK_WAITS_FOR_DEVICE);
	if (!l->gpu_stopped)
		ty_actor_stop(l->gpu);
	l->gpu_stopped = true;
}

static void on_down(void *self, struct ty_msg *msg)
{
	struct link *l = self;

	(void)msg;
	l->watched = false;
	ty_actor_unref(l->gpu);
	l->gpu = NULL;
	l->gpu_stopped = false;
	if (l->phase != LINK_ENDING) /* it could not even start */
		link_lose(l, TY_NO_MEMORY, "the owner could not be started");
	link_settle(l);
}

/* ---- connecting ----------------------------------------------------------------------------------------------------------- */

static void connect_attach(struct link *l)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *path = l->embed->options.attach_path;
	bool knocked = l->phase == LINK_KNOCKING;
	struct ty_error err;
	char text[200];

	if (!knocked)
		l->deadline = ty_now() + ATTEMPT_NS;
	l->phase = LINK_ATTACHED;
	if (ty_folder_check(path, &err) != TY_OK) {
		link_lose(l, err.code, err.text);
		return;
	}
	memcpy(address.sun_path, path, strlen(path)); /* it fits: open looked */
	l->attach_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->attach_fd >= 0 && connect(l->attach_fd, (const struct sockaddr *)&address, sizeof address) == 0 &&
		ty_waiter_add(&l->waiter, l->attach_fd, EPOLLIN, EVENT_ATTACH)) {
		if (knocked)
			set_state(l, TY_CLOSED); /* as before the first attempt: whatever comes now is not for the backlog */
		return;
	}
	if (l->attach_fd >= 0 && errno == EAGAIN) {
		close_attach(l);
		set_state(l, TY_BUSY);
		l->phase = LINK_KNOCKING;
		l->connect_at = ty_now() + KNOCK_NS;
		return;
	}
	snprintf(text, sizeof text, "attach socket %.100s: %s", path, strerror(errno));
	link_lose(l, errno == ENOENT || errno == ECONNREFUSED ? TY_CLOSED : errno == EACCES ? TY_DENIED : TY_IO, text);
}

static void wait_for_room(struct link *l, bool wait)
{
	if (l->waits != wait && ty_waiter_change(&l->waiter, l->stream.fd, wait ? EPOLLIN | EPOLLOUT : EPOLLIN, EVENT_STREAM))
		l->waits = wait;
}

static void flush(struct link *l)
{
	struct ty_error err;
	enum ty_code code = ty_owner_flush(&l->stream, &err);
	size_t unread = l->stream.out_length - l->stream.out_sent;

	if (code == TY_BUSY && unread > LINK_OUT_MAX)
		code = ty_fail(&err, TY_LIMIT, "the service does not read: %zu bytes are on their way to it, expected at most %zu", unread, LINK_OUT_MAX);
	if (code == TY_OK || code == TY_BUSY)
		wait_for_room(l, code == TY_BUSY);
	else if (code != TY_CLOSED) /* its end is read from it */
		link_lose(l, code, err.text);
}

void link_send(struct link *l, const struct ty_owner_frame *frame)
{
	struct ty_error err;

	if (l->lost || l->stream.fd < 0)
		return;
	if (ty_owner_put(&l->stream, frame, &err) != TY_OK)
		link_lose(l, err.code, err.text);
	else
		flush(l);
}

/* The service greets every connection as a client's. Ours is another, and goes on over a socket pair, whose end the kernel knows as
 * this process's. */
static void hand_over(struct link *l)
{
	struct ty_attach_frame embed = {.type = TY_ATTACH_EMBED};
	struct ty_owner_frame hello = {.type = TY_OWNER_HELLO};
	const char *name = l->embed->options.name;
	struct ty_error err;
	enum ty_code code;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) {
		link_lose(l, TY_IO, "socketpair failed");
		return;
	}
	code = ty_attach_send(l->attach_fd, &embed, pair[1], &err);
	close(pair[1]);
	ty_owner_stream_open(&l->stream, pair[0], TY_OWNER_TO_OWNER_MAX);
	if (code == TY_OK && !ty_waiter_add(&l->waiter, pair[0], EPOLLIN, EVENT_STREAM))
		code = ty_fail(&err, TY_IO, "epoll_ctl failed");
	if (code != TY_OK) {
		link_lose(l, code, err.text);
		return;
	}
	l->phase = LINK_HELLO;
	memcpy(hello.hello.id, l->embed->id, TY_OWNER_BYTES);
	snprintf(hello.hello.name, sizeof hello.hello.name, "%.*s", TY_OWNER_NAME_MAX, name);
	link_send(l, &hello);
}

static void read_attach(struct link *l)
{
	while (l->attach_fd >= 0) {
		struct ty_attach_frame frame;
		struct ty_error err;
		int fd;
		enum ty_code code = ty_attach_recv(l->attach_fd, &frame, &fd, &err);

		if (code == TY_BUSY)
			return;
		if (fd >= 0)
			close(fd); /* a timeline page: clients have those */
		if (code == TY_CLOSED && l->phase >= LINK_HELLO)
			close_attach(l); /* handed over */
		else if (code != TY_OK)
			link_lose(l, code, err.text);
		else if (frame.type == TY_ATTACH_REFUSED)
			link_lose(l, frame.refused.code, frame.refused.text);
		else if (frame.type != TY_ATTACH_WELCOME || l->phase != LINK_ATTACHED)
			link_lose(l, TY_PROTOCOL, "attach: a frame that was not asked for");
		else
			hand_over(l);
	}
}

/* ---- the owner ------------------------------------------------------------------------------------------------------------ */

static void on_welcome(struct link *l, const struct ty_owner_frame *frame)
{
	struct ty_spawn_options options = {.size = sizeof options, .executor = TY_DEDICATED, .thread_name = "tyer-owner", .cpu = -1};
	int fd = l->stream.received_fd;
	struct ty_error err;
	enum ty_code code = TY_OK;

	if (l->phase != LINK_HELLO || fd < 0 || frame->welcome.piece_bytes != TY_PIECE_BYTES)
		code = ty_fail(&err, TY_PROTOCOL, "the service's WELCOME came twice, without an arena, or with pieces of another size");
	if (code == TY_OK)
		code = ty_arena_adopt(frame->welcome.arena_bytes, fd, &l->service->arena, &err);
	if (code == TY_OK) {
		l->stream.received_fd = -1; /* the arena's */
		atomic_store_explicit(&l->embed->failed, false, memory_order_relaxed);
		l->pieces = calloc(l->service->arena.pieces, 1);
		code = l->pieces ? ty_spawn(l->embed->rt, &ty_gpu_class, &l->gpu_arg, &options, &l->gpu)
				 : TY_NO_MEMORY;
		if (code != TY_OK)
			(void)ty_fail(&err, code, "the owner could not be started");
	}
	if (code != TY_OK) {
		link_lose(l, code, err.text);
		return;
	}
	l->phase = LINK_OPENING;
	l->watched = true;
	ty_monitor(l->gpu, &l->down, TY_LINK_DOWN);
	l->gpu_start = (struct ty_msg)TY_MSG_INIT;
	if (ty_send(l->gpu, &l->gpu_start, TY_GPU_START) != TY_OK)
		abort(); /* nobody but us stops it */
}

static void on_ready(void *self, struct ty_msg *msg)
{
	const struct ty_gpu_ready *ready = ty_container_of(msg, struct ty_gpu_ready, msg);
	struct link *l = self;

	if (l->phase != LINK_OPENING)
		return;
	if (ready->code != TY_OK) {
		link_lose(l, ready->code, l->service->gpu_stats[0].note);
		link_settle(l);
		return;
	}
	l->phase = LINK_UP;
	l->reconnect.up_at = ty_now();
	set_state(l, TY_OK);
	tell_opener(l, TY_OK);
}

/* ---- what the service says ------------------------------------------------------------------------------------------------ */

/* While it ends: nothing new begins, but everything has an answer. */
static enum ty_code decline(struct link *l, const struct ty_owner_frame *frame)
{
	if (frame->type == TY_OWNER_GRANT)
		link_tell_end(l, TY_OWNER_DONE, frame->grant.op, TY_CANCELLED, "the owner is being closed");
	else if (frame->type == TY_OWNER_MAP)
		link_tell_end(l, TY_OWNER_MAPPED, frame->map.map, TY_CANCELLED, "the owner is being closed");
	else if (frame->type == TY_OWNER_CANCEL)
		link_on_cancel(l, frame);
	return TY_OK;
}

static enum ty_code obey(struct link *l, const struct ty_owner_frame *frame, struct ty_error *err)
{
	if (frame->type == TY_OWNER_REFUSED)
		return ty_fail(err, frame->end.code, "%s", frame->end.text);
	if (frame->type == TY_OWNER_WELCOME) {
		on_welcome(l, frame);
		return TY_OK;
	}
	if (l->phase == LINK_ENDING)
		return decline(l, frame);
	if (l->phase != LINK_OPENING && l->phase != LINK_UP)
		return ty_fail(err, TY_PROTOCOL, "owner: frame %d before WELCOME", (int)frame->type);
	switch (frame->type) {
	case TY_OWNER_PIECE:
		return link_on_piece(l, frame, err);
	case TY_OWNER_MAP:
		return link_on_map(l, frame, err);
	case TY_OWNER_UNMAP:
		return link_on_unmap(l, frame, err);
	case TY_OWNER_GRANT:
		return link_on_grant(l, frame, err);
	case TY_OWNER_CANCEL:
		link_on_cancel(l, frame);
		return TY_OK;
	default:
		return ty_fail(err, TY_PROTOCOL, "owner: frame %d is not the service's to send", (int)frame->type);
	}
}

static void read_stream(struct link *l)
{
	struct ty_owner_frame frame;
	struct ty_error err;

	for (int i = 0; i < FRAMES_MAX && !l->lost && l->stream.fd >= 0; i++) {
		enum ty_code code = ty_owner_take(&l->stream, &frame, &err);

		if (code == TY_BUSY)
			return;
		if (code == TY_OK)
			code = obey(l, &frame, &err);
		if (code == TY_CLOSED && l->phase == LINK_HELLO)
			read_attach(l); /* says why, if it can */
		if (code != TY_OK)
			link_lose(l, code, err.text);
	}
}

/* ---- waiting -------------------------------------------------------------------------------------------------------------- */

static void wait_for_events(void *self, int64_t deadline)
{
	struct link *l = self;
	int64_t left = deadline == TY_NEVER ? -1 : deadline - ty_runtime_now(l->embed->rt);

	if (deadline == TY_NEVER || left > 0)
		ty_waiter_wait(&l->waiter, left);
}

static void wake(void *self)
{
	struct link *l = self;

	ty_waiter_wake(&l->waiter);
}

/* Are there frames that this side has received and not looked at? */
static bool more(const struct link *l)
{
	return !l->lost && ty_owner_more(&l->stream);
}

static int64_t poll_link(void *self, int64_t now)
{
	struct link *l = self;
	const struct epoll_event *events;
	int n = ty_waiter_take(&l->waiter, &events);

	if (more(l))
		read_stream(l);
	for (int i = 0; i < n; i++) {
		if (events[i].data.u64 == EVENT_ATTACH) {
			read_attach(l);
		} else if (events[i].data.u64 == EVENT_STREAM && !l->lost && l->stream.fd >= 0) {
			if (events[i].events & EPOLLOUT)
				flush(l);
			read_stream(l);
		}
	}
	if (l->phase == LINK_KNOCKING && now >= l->deadline)
		link_lose(l, TY_BUSY, "the attach socket accepts nobody: its backlog is full");
	else if (l->phase > LINK_AWAY && l->phase < LINK_UP && now >= l->deadline)
		link_lose(l, TY_TIMEOUT, "the service or the device took too long");
	if ((l->phase == LINK_AWAY || l->phase == LINK_KNOCKING) && !l->stopping && now >= l->connect_at)
		connect_attach(l);
	link_settle(l);
	if (l->phase == LINK_AWAY)
		return l->stopping ? TY_NEVER : l->connect_at;
	if (l->phase == LINK_KNOCKING)
		return l->connect_at;
	if (more(l))
		return now;
	return l->phase < LINK_UP ? l->deadline : TY_NEVER;
}

/* ---- messages, life ------------------------------------------------------------------------------------------------------- */

static void on_piece(void *self, struct ty_msg *msg)
{
	link_piece_back(self, ty_container_of(msg, struct ty_piece, msg));
	link_settle(self);
}

static void on_mapped(void *self, struct ty_msg *msg)
{
	link_mapped(self, ty_container_of(msg, struct ty_map, msg));
	link_settle(self);
}

static void on_unmapped(void *self, struct ty_msg *msg)
{
	link_unmapped(self, ty_container_of(msg, struct ty_map, msg));
	link_settle(self);
}

static void on_copied(void *self, struct ty_msg *msg)
{
	link_copied(self, ty_container_of(msg, struct ty_op, msg));
	link_settle(self);
}

static void on_withdraw(void *self, struct ty_msg *msg)
{
	struct link_withdrawal *w = ty_container_of(msg, struct link_withdrawal, msg);
	struct link *l = self;

	link_take_offers(l);
	for (struct link_memory **at = &l->memories; *at; at = &(*at)->next) {
		struct link_memory *m = *at;

		if (m->number != w->number)
			continue;
		m->withdrawn = true;
		if (!m->uses) {
			*at = m->next;
			link_free_memory(m);
		}
		break;
	}
	free(w);
}

static enum ty_code start(void *self, void *arg)
{
	struct link *l = self;
	const struct link_arg *a = arg;
	const struct ty_embed_options *o = &a->embed->options;
	static const enum ty_sharing sharing[] = {
		[TY_EMBED_AUTO] = TY_SHARING_AUTO, [TY_EMBED_QUIET] = TY_SHARING_QUIET, [TY_EMBED_FAST] = TY_SHARING_FAST,
	};
	struct ty_device_options *device;

	l->embed = a->embed;
	l->service = &a->embed->service;
	l->opener = a->opener;
	l->self = ty_self();
	l->attach_fd = -1;
	memcpy(&l->reconnect.jitter, l->embed->id, sizeof l->reconnect.jitter);
	ty_owner_stream_open(&l->stream, -1, 0);
	l->gpu_arg = (struct ty_gpu_arg){
		.service = l->service, .ready_to = &l->self, .ready_type = TY_LINK_READY, .options = l->embed->how,
	};
	device = &l->gpu_arg.options;
	device->name = o->device;
	device->driver = o->driver;
	device->staging_bytes = o->staging_bytes ? o->staging_bytes : device->staging_bytes;
	device->sharing = sharing[o->sharing];
	device->calibration = o->calibration;
	device->fault = o->fault;
	device->in_process = true;
	return ty_waiter_open(&l->waiter, NULL);
}

/* What has begun ends, the service hears of it, and then this ends. */
static void stopping(void *self)
{
	struct link *l = self;

	l->stopping = true;
	if (l->phase == LINK_AWAY) {
		ty_actor_end();
		return;
	}
	if (l->phase != LINK_ENDING) {
		set_state(l, TY_STOPPING);
		l->phase = LINK_ENDING;
		close_attach(l);
		link_end_all(l);
	}
	link_settle(l);
}

static void stop(void *self)
{
	struct link *l = self;

	if (l->waiter.epoll_fd < 0) /* it did not even start */
		return;
	assert(!l->gpu && !l->jobs && !l->pools);
	link_take_offers(l);
	while (l->memories) {
		struct link_memory *m = l->memories;

		l->memories = m->next;
		link_free_memory(m);
	}
	ty_waiter_close(&l->waiter);
}

/* What the engine's threads sent too late. */
static void refuse(void *self, struct ty_msg *msg)
{
	(void)self;
	if (msg->type == TY_LINK_WITHDRAW)
		free(ty_container_of(msg, struct link_withdrawal, msg));
}

static const struct ty_handler handlers[] = {
	[TY_LINK_READY - TY_LINK_READY] = {"ready", on_ready},
	[TY_LINK_PIECE - TY_LINK_READY] = {"piece", on_piece},
	[TY_LINK_MAPPED - TY_LINK_READY] = {"mapped", on_mapped},
	[TY_LINK_UNMAPPED - TY_LINK_READY] = {"unmapped", on_unmapped},
	[TY_LINK_COPIED - TY_LINK_READY] = {"copied", on_copied},
	[TY_LINK_WITHDRAW - TY_LINK_READY] = {"withdraw", on_withdraw},
	[TY_LINK_DOWN - TY_LINK_READY] = {"down", on_down},
};

const struct ty_class link_class = {
	.name = "link",
	.state_size = sizeof(struct link),
	.first_type = TY_LINK_READY,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.stopping = stopping,
	.stop = stop,
	.refuse = refuse,
	.poll = poll_link,
	.wait = {wait_for_events, wake},
};
