/* SPDX-License-Identifier: Apache-2.0
 *
 * The connections of owners in engines' processes: who they are, what they say, and when it is certain that they copy no more. A
 * connection that ended says nothing of that: a GPU may go on with what it was given until its process has been taken apart, which
 * the kernel tells through a pidfd.
 */
#include "embedded_state.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"

#define FRAMES_MAX 8         /* of one connection in one turn */
#define LOOK_NS 5000000      /* how often operations that are out are looked at for who gave them up; and the arena for new pieces */
#define HELLO_NS 30000000000 /* a connection that has not said HELLO for so long ends */

/* ---- connections ------------------------------------------------------------------------------------------------------------ */

static void publish(struct embedded *e)
{
	uint64_t owners = 0, lost = 0, quarantined = 0;

	for (struct owner *o = e->owners; o; o = o->next) {
		owners += o->greeted && o->stream.fd >= 0;
		lost += o->stream.fd < 0 && o->process >= 0 && o->granted;
		for (struct granted *g = o->granted; g; g = g->next)
			quarantined += o->stream.fd < 0;
	}
	atomic_store_explicit(&e->stats->owners, owners, memory_order_relaxed);
	atomic_store_explicit(&e->stats->lost, lost, memory_order_relaxed);
	atomic_store_explicit(&e->stats->quarantined, quarantined, memory_order_relaxed);
}

/* A process has one place, however many owners. */
static bool shares_place(const struct embedded *e, const struct owner *o)
{
	for (const struct owner *other = e->owners; other; other = other->next)
		if (other != o && other->place == o->place)
			return true;
	return false;
}

/* Nothing of it is left? */
static void settle(struct embedded *e, struct owner *o)
{
	struct owner **link = &e->owners;

	if (o->stream.fd >= 0 || o->granted)
		return;
	if (o->place < TY_BORROWERS && !shares_place(e, o))
		ty_slots_lent_over(e->service->slots, o->place, o->process < 0);
	o->place = TY_BORROWERS;
	if (o->pools) /* their UNMAPs come */
		return;
	while (*link != o)
		link = &(*link)->next;
	*link = o->next;
	e->at[o->index] = NULL;
	e->count--;
	if (o->process >= 0)
		close(o->process);
	free(o->told);
	free(o);
}

void embedded_lose(struct embedded *e, struct owner *o, const char *why)
{
	if (o->stream.fd < 0)
		return;
	ty_log(TY_LOG_INFO, "embedded", "the owner of process %u (%s) is gone: %s%s", o->pid, o->name, why,
		o->granted ? "; what is out with it is kept until the process has ended" : "");
	/* Whoever handed it over may have kept it too: then it does not end with our descriptor, and epoll would tell of it for ever. */
	ty_waiter_remove(&e->waiter, o->stream.fd);
	(void)shutdown(o->stream.fd, SHUT_RDWR);
	ty_owner_stream_close(&o->stream);
	embedded_drop_maps(e, o);
	if (o->process < 0)
		embedded_drop_granted(e, o);
}

static void wait_for_room(struct embedded *e, struct owner *o, bool wait)
{
	if (o->waits != wait && ty_waiter_change(&e->waiter, o->stream.fd, wait ? EPOLLIN | EPOLLOUT : EPOLLIN, 2 * (uint64_t)o->index))
		o->waits = wait;
}

static void flush(struct embedded *e, struct owner *o)
{
	struct ty_error err;
	enum ty_code code = ty_owner_flush(&o->stream, &err);

	if (code == TY_BUSY && o->stream.out_length - o->stream.out_sent > TY_EMBEDDED_UNREAD)
		code = ty_fail(&err, TY_LIMIT, "it does not read");
	if (code == TY_OK || code == TY_BUSY)
		wait_for_room(e, o, code == TY_BUSY);
	else if (code != TY_CLOSED) /* its end is read from it, behind what it said before */
		embedded_lose(e, o, err.text);
}

void embedded_send(struct embedded *e, struct owner *o, const struct ty_owner_frame *frame)
{
	struct ty_error err;

	if (o->stream.fd < 0)
		return;
	if (frame && ty_owner_put(&o->stream, frame, &err) != TY_OK)
		embedded_lose(e, o, err.text);
	else
		flush(e, o);
}

static void refuse(struct embedded *e, struct owner *o, enum ty_code code, const char *text)
{
	struct ty_owner_frame frame = {.type = TY_OWNER_REFUSED, .end.code = code};

	snprintf(frame.end.text, sizeof frame.end.text, "%.*s", TY_OWNER_TEXT_MAX, text);
	embedded_count(code == TY_PROTOCOL ? &e->stats->violations : &e->stats->refused, 1);
	embedded_send(e, o, &frame);
	embedded_lose(e, o, text);
}

/* ---- what owners say -------------------------------------------------------------------------------------------------------- */

static void greet(struct embedded *e, struct owner *o, const struct ty_owner_frame *hello)
{
	struct ty_owner_frame frame = {.type = TY_OWNER_WELCOME, .welcome = {e->service->boot, e->service->arena.bytes, TY_PIECE_BYTES}};

	for (struct owner *other = e->owners; other; other = other->next)
		if (other->greeted && other->stream.fd >= 0 && memcmp(other->id, hello->hello.id, TY_OWNER_BYTES) == 0) {
			refuse(e, o, TY_EXISTS, "an owner of this number is connected");
			return;
		}
	o->place = ty_slots_lend(e->service->slots, o->pid);
	if (o->place == TY_BORROWERS) {
		refuse(e, o, TY_LIMIT, "the slot table has no room for another process, or cannot see it in /proc");
		return;
	}
	memcpy(o->id, hello->hello.id, sizeof o->id);
	memcpy(o->name, hello->hello.name, sizeof o->name);
	o->greeted = true;
	o->stream.send_fd = e->service->arena.fd;
	ty_log(TY_LOG_INFO, "embedded", "process %u (uid %u) has an owner of its own: %s", o->pid, o->uid, o->name);
	embedded_send(e, o, &frame);
	embedded_tell_pieces(e, o);
}

static bool obey(struct embedded *e, struct owner *o, const struct ty_owner_frame *frame)
{
	if (!o->greeted && frame->type != TY_OWNER_HELLO)
		return false;
	switch (frame->type) {
	case TY_OWNER_HELLO:
		if (o->greeted)
			return false;
		greet(e, o, frame);
		return true;
	case TY_OWNER_MAPPED:
		return embedded_mapped(e, o, frame);
	case TY_OWNER_UNMAPPED:
		return embedded_unmapped(e, o, frame);
	case TY_OWNER_DONE:
		return embedded_done(e, o, frame);
	default:
		return false;
	}
}

/* `max` frames of it. True: there may be more. */
static bool read_frames(struct embedded *e, struct owner *o, unsigned max)
{
	struct ty_owner_frame frame;
	struct ty_error err;
	char text[128];

	while (max-- && o->stream.fd >= 0) {
		enum ty_code code = ty_owner_take(&o->stream, &frame, &err);

		if (code == TY_BUSY)
			return false;
		if (code == TY_PROTOCOL || code == TY_UNSUPPORTED) {
			refuse(e, o, code, err.text);
		} else if (code != TY_OK) {
			embedded_lose(e, o, err.text);
		} else if (!obey(e, o, &frame)) {
			snprintf(text, sizeof text, "frame %d about number %" PRIu64 ", of which nothing is out", (int)frame.type, frame.end.number);
			refuse(e, o, TY_PROTOCOL, text);
		}
	}
	return o->stream.fd >= 0;
}

/* The kernel has taken its process apart: nothing copies for it any more. What it said before counts. */
static void process_ended(struct embedded *e, struct owner *o)
{
	while (read_frames(e, o, FRAMES_MAX))
		;
	close(o->process);
	o->process = -1;
	embedded_lose(e, o, "its process has ended");
	embedded_drop_granted(e, o);
}

/* ---- a new one -------------------------------------------------------------------------------------------------------------- */

/* The process that made the socket pair. */
static enum ty_code identify(struct owner *o, struct ty_error *err)
{
	socklen_t length = sizeof(struct ucred);
	struct ucred who = {0};

	if (getsockopt(o->stream.fd, SOL_SOCKET, SO_PEERCRED, &who, &length) != 0 || length != sizeof who || who.pid <= 0)
		return ty_fail(err, TY_DENIED, "the socket does not say which process made it (a stream socket pair is expected, in a process that "
			"this one can see)");
	o->pid = (uint32_t)who.pid;
	if (who.uid != o->uid)
		return ty_fail(err, TY_DENIED, "the socket is user %u's, the attach connection user %u's", who.uid, o->uid);
	o->process = (int)syscall(SYS_pidfd_open, who.pid, 0);
	if (o->process < 0)
		return ty_fail(err, errno == ENOSYS ? TY_UNSUPPORTED : TY_IO, "pidfd_open of process %d: %s", (int)who.pid, strerror(errno));
	return TY_OK;
}

static enum ty_code take_owner(struct embedded *e, struct owner *o, struct ty_error *err)
{
	int type = 0, domain = 0;
	socklen_t length = sizeof type;

	if (getsockopt(o->stream.fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_STREAM ||
		getsockopt(o->stream.fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) != 0 || domain != AF_UNIX)
		return ty_fail(err, TY_PROTOCOL, "EMBED came without a UNIX stream socket");
	enum ty_code code = identify(o, err);

	if (code != TY_OK)
		return code;
	o->told = calloc(e->service->arena.pieces / 8 + 1, 1);
	if (!o->told)
		return ty_fail(err, TY_NO_MEMORY, "no memory for an owner");
	if (!ty_waiter_add(&e->waiter, o->stream.fd, EPOLLIN, 2 * (uint64_t)o->index) ||
		!ty_waiter_add(&e->waiter, o->process, EPOLLIN, 2 * (uint64_t)o->index + 1))
		return ty_fail(err, TY_IO, "epoll_ctl: %s", strerror(errno));
	o->hello_by = ty_now() + HELLO_NS;
	return TY_OK;
}

static void on_owner(void *self, struct ty_msg *msg)
{
	struct ty_embed_request *embed = ty_container_of(msg, struct ty_embed_request, msg);
	struct owner *o = calloc(1, sizeof *o);
	struct embedded *e = self;
	struct ty_error err;

	if (!o || e->count == TY_EMBEDDED_MAX) {
		ty_log(TY_LOG_WARN, "embedded", "an owner is refused: %s", o ? "there are too many" : "no memory");
		embedded_count(&e->stats->refused, 1);
		close(embed->fd);
		free(embed);
		free(o);
		return;
	}
	ty_owner_stream_open(&o->stream, embed->fd, TY_OWNER_TO_SERVICE_MAX);
	o->uid = embed->uid;
	o->process = -1;
	o->place = TY_BORROWERS;
	strcpy(o->name, "no HELLO");
	while (e->at[o->index])
		o->index++;
	e->at[o->index] = o;
	e->count++;
	o->next = e->owners;
	e->owners = o;
	free(embed);
	if (take_owner(e, o, &err) != TY_OK) {
		refuse(e, o, err.code, err.text);
		settle(e, o);
	}
}

/* ---- what the service asks -------------------------------------------------------------------------------------------------- */

static void on_transfer(void *self, struct ty_msg *msg)
{
	embedded_transfer(self, ty_container_of(msg, struct ty_op, msg));
}

static void on_map(void *self, struct ty_msg *msg)
{
	embedded_map(self, ty_container_of(msg, struct ty_map, msg));
}

static void on_unmap(void *self, struct ty_msg *msg)
{
	embedded_unmap(self, ty_container_of(msg, struct ty_map, msg));
}

/* ---- waiting ---------------------------------------------------------------------------------------------------------------- */

static void wait_for_events(void *self, int64_t deadline)
{
	struct embedded *e = self;
	int64_t left = deadline == TY_NEVER ? -1 : deadline - ty_runtime_now(e->service->rt);

	if (deadline == TY_NEVER || left > 0)
		ty_waiter_wait(&e->waiter, left);
}

static void wake(void *self)
{
	struct embedded *e = self;

	ty_waiter_wake(&e->waiter);
}

static void on_event(struct embedded *e, const struct epoll_event *event)
{
	struct owner *o = e->at[event->data.u64 / 2];

	if (!o)
		return;
	if (event->data.u64 & 1) {
		process_ended(e, o);
	} else if (o->stream.fd >= 0) {
		if (event->events & EPOLLOUT)
			flush(e, o);
		read_frames(e, o, FRAMES_MAX);
	}
}

static void look(struct embedded *e, int64_t now)
{
	uint64_t ready = atomic_load_explicit(&e->service->eviction_stats.ready_bytes, memory_order_relaxed);

	for (struct owner *o = e->owners; o; o = o->next) {
		if (o->stream.fd < 0)
			continue;
		embedded_cancel(e, o);
		if (ready != e->ready_bytes && o->greeted)
			embedded_tell_pieces(e, o);
		if (!o->greeted && now >= o->hello_by)
			refuse(e, o, TY_TIMEOUT, "no HELLO in time");
	}
	e->ready_bytes = ready;
	e->look_at = now + LOOK_NS;
}

static int64_t poll_owners(void *self, int64_t now)
{
	struct embedded *e = self;
	const struct epoll_event *events;
	struct owner *next;
	bool more = false;
	int n = ty_waiter_take(&e->waiter, &events);

	for (struct owner *o = e->owners; o; o = o->next)
		if (ty_owner_more(&o->stream))
			read_frames(e, o, FRAMES_MAX);
	for (int i = 0; i < n; i++)
		on_event(e, &events[i]);
	if (e->owners && now >= e->look_at)
		look(e, now);
	for (struct owner *o = e->owners; o; o = next) {
		next = o->next;
		more |= ty_owner_more(&o->stream);
		settle(e, o);
	}
	publish(e);
	return more || n == TY_WAITER_EVENTS ? now : e->owners ? e->look_at : TY_NEVER;
}

/* ---- life ------------------------------------------------------------------------------------------------------------------- */

static enum ty_code start(void *self, void *arg)
{
	struct embedded *e = self;
	struct ty_gpu_stats *gpu;
	struct ty_error err;

	e->service = arg;
	e->stats = &e->service->embedded_stats;
	gpu = &e->service->gpu_stats[TY_EMBEDDED_DEVICE];
	snprintf(gpu->info.name, sizeof gpu->info.name, "embedded");
	/* release: pairs with the acquire of whoever reads the name */
	atomic_store_explicit(&gpu->state, TY_GPU_SERVING, memory_order_release);
	if (ty_waiter_open(&e->waiter, &err) != TY_OK) {
		ty_log(TY_LOG_ERROR, "embedded", "%s", err.text);
		return TY_IO;
	}
	return TY_OK;
}

static void stop(void *self)
{
	struct embedded *e = self;

	/* engines are gone, and with them all that was out */
	while (e->owners) {
		struct owner *o = e->owners;

		assert(!o->granted && !o->pools);
		embedded_lose(e, o, "the service is stopping");
		settle(e, o);
	}
	ty_waiter_close(&e->waiter);
}

/* What comes after the end: an owner that is too late. */
static void refuse_message(void *self, struct ty_msg *msg)
{
	struct ty_embed_request *embed = ty_container_of(msg, struct ty_embed_request, msg);

	(void)self;
	assert(msg->type == TY_GPU_EMBED);
	close(embed->fd);
	free(embed);
}

static const struct ty_handler handlers[] = {
	[TY_GPU_TRANSFER - TY_GPU_START] = {"transfer", on_transfer},
	[TY_GPU_MAP - TY_GPU_START] = {"map", on_map},
	[TY_GPU_UNMAP - TY_GPU_START] = {"unmap", on_unmap},
	[TY_GPU_EMBED - TY_GPU_START] = {"embed", on_owner},
};

const struct ty_class ty_embedded_class = {
	.name = "embedded",
	.state_size = sizeof(struct embedded),
	.first_type = TY_GPU_START,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.stop = stop,
	.refuse = refuse_message,
	.poll = poll_owners,
	.wait = {wait_for_events, wake},
};
