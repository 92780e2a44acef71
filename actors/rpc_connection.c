/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection's life: ty_rpc_connection_begin() greets it, ty_rpc_connection_event() hears of it from epoll, proceed() looks at what it
 * sent, ty_rpc_edge_send() queues what it gets, end() closes it and keeps its memory for the next one.
 */
#include "rpc_connection.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service.h"

#define GREETING_BYTES TY_RPC_GREETING_BYTES
#define LOG_EVERY_NS 1000000000
#define SEND_AT_ONCE 16 /* replies */

const struct ty_rpc_protocol ty_rpc_replies = {0x31, 0x30, TY_RPC_RETRY, TY_RPC_LATE};

static void make_greeting(uint8_t out[GREETING_BYTES], uint16_t protocol)
{
	const uint8_t bytes[GREETING_BYTES] = {0, 'S', 'P', 0, (uint8_t)(protocol >> 8), (uint8_t)protocol, 0, 0};

	memcpy(out, bytes, sizeof bytes);
}

static struct ty_rpc_stats *stats_of(struct ty_rpc_edge *edge)
{
	return &edge->service->rpc_stats;
}

static void count(_Atomic uint64_t *counter, uint64_t more)
{
	atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

void ty_rpc_edge_note(struct ty_rpc_edge *edge, enum ty_log_level level, const char *fmt, ...)
{
	char text[256];
	va_list args;

	if (ty_now() < edge->log_after) {
		edge->log_left_out++;
		return;
	}
	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	if (edge->log_left_out)
		ty_log(level, "rpc", "%s (and %u lines like this one before it)", text, edge->log_left_out);
	else
		ty_log(level, "rpc", "%s", text);
	edge->log_left_out = 0;
	edge->log_after = ty_now() + LOG_EVERY_NS;
}

static int64_t frame_deadline(const struct ty_rpc_edge *edge)
{
	return ty_now() + (int64_t)edge->limits.frame_ms * 1000000;
}

/* ---- the end -------------------------------------------------------------------------------------------------------- */

static void drop_first(struct ty_rpc_connection *c)
{
	struct ty_rpc_reply *reply = c->first;

	c->first = reply->next;
	if (!c->first)
		c->last = &c->first;
	c->replies--;
	c->reply_bytes -= reply->size;
	c->edge->reply_bytes -= reply->size;
	if (reply->request)
		c->edge->calls->replied(c->edge->owner, reply);
	if (reply->reserved)
		c->reserve = reply;
	else
		free(reply);
}

static int64_t send_deadline(const struct ty_rpc_connection *c)
{
	return c->sending ? c->first->deadline : TY_NEVER;
}

/* Have the timer come in time. One that is set for earlier stays: deadlines move on with every frame. */
static void watch(struct ty_rpc_connection *c)
{
	int64_t send = send_deadline(c), first = c->deadline < send ? c->deadline : send;

	if (first >= c->late_at)
		return;
	c->late_at = first;
	ty_timer_start(&c->late, c->edge->protocol->late, first);
}

static void end(struct ty_rpc_connection *c)
{
	struct ty_rpc_edge *edge = c->edge;

	if (c->closing)
		return;
	c->closing = true;
	edge->frame_bytes -= c->body ? c->body_got : 0;
	c->body_got = 0;
	edge->calls->gone(edge->owner, c);
	ty_rpc_stream_close(&c->stream, edge->waiter.epoll_fd);
	ty_timer_cancel(&c->late);
	c->late_at = TY_NEVER;
	while (c->first)
		drop_first(c);
	free(c->reserve);
	c->reserve = NULL;
	free(c->body);
	c->body = NULL;
	c->next_free = edge->free;
	edge->free = c;
	edge->open--;
	atomic_fetch_sub_explicit(&stats_of(edge)->connections, 1, memory_order_relaxed);
}

/* What it sent is not the protocol. */
TY_PRINTF(2, 3) static void broken(struct ty_rpc_connection *c, const char *fmt, ...)
{
	char text[160];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	count(&stats_of(c->edge)->connections_broken, 1);
	ty_rpc_edge_note(c->edge, TY_LOG_INFO, "closing a connection: %s", text);
	end(c);
}

void ty_rpc_edge_close(struct ty_rpc_connection *c, const char *why)
{
	ty_rpc_edge_note(c->edge, TY_LOG_WARN, "closing a connection: %s", why);
	end(c);
}

/* The one that has sent most of a frame, until all that is on its way in has room: whoever sends little is not in anybody's way. */
static void crowd_out(struct ty_rpc_edge *edge)
{
	while (edge->frame_bytes > edge->limits.all_frame_bytes) {
		struct ty_rpc_connection *most = NULL;

		for (struct ty_rpc_connection *c = edge->all; c; c = c->next_of_all)
			if (c->body && !c->closing && (!most || c->body_got > most->body_got))
				most = c;
		assert(most);
		count(&stats_of(edge)->connections_crowded, 1);
		ty_rpc_edge_note(edge, TY_LOG_WARN, "closing a connection: frames on their way in take more than %llu bytes, its own most",
			(unsigned long long)edge->limits.all_frame_bytes);
		end(most);
	}
}

/* ---- sending -------------------------------------------------------------------------------------------------------- */

static bool has_enough(const struct ty_rpc_connection *c)
{
	const struct ty_rpc_limits *limits = &c->edge->limits;

	return c->replies >= limits->replies || c->reply_bytes >= limits->reply_bytes;
}

/* Epoll waits for what there is to do. */
static void wait_for(struct ty_rpc_connection *c, uint32_t events)
{
	if (events == c->events)
		return;
	c->events = events;
	if (!ty_waiter_change(&c->edge->waiter, c->stream.fd, events, (uintptr_t)c))
		abort(); /* it is in the set: nothing can be wrong with it */
}

static void rest(struct ty_rpc_connection *c)
{
	if (c->secure)
		wait_for(c, (c->waiting ? 0 : EPOLLIN) | (c->sending ? EPOLLOUT : 0));
	watch(c);
}

/* Not taken: all that waits is lost with it. */
static void unsent(struct ty_rpc_connection *c, const char *why)
{
	count(&stats_of(c->edge)->unsent, c->replies);
	ty_rpc_edge_note(c->edge, TY_LOG_INFO, "closing a connection: %s; %u replies are lost", why, c->replies);
	end(c);
}

/* So many bytes are out. */
static void advance(struct ty_rpc_connection *c, size_t bytes)
{
	while (bytes > 0) {
		size_t left = c->first->size - c->first->sent;

		if (bytes < left) {
			c->first->sent += bytes;
			return;
		}
		bytes -= left;
		drop_first(c);
	}
}

/* As much as it takes. */
static void flush(struct ty_rpc_connection *c)
{
	c->sending = false;
	while (c->first && c->secure) {
		struct iovec iov[SEND_AT_ONCE];
		size_t count = 0;
		ssize_t n;

		for (struct ty_rpc_reply *reply = c->first; reply && count < SEND_AT_ONCE; reply = reply->next)
			iov[count++] = (struct iovec){.iov_base = reply->bytes + reply->sent, .iov_len = reply->size - reply->sent};
		n = ty_rpc_stream_send(&c->stream, iov, count);
		if (n >= 0) {
			advance(c, (size_t)n);
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			if (c->first->deadline == TY_NEVER)
				c->first->deadline = frame_deadline(c->edge);
			c->sending = true;
			return;
		} else if (errno != EINTR) {
			end(c);
			return;
		}
	}
}

void ty_rpc_edge_send(struct ty_rpc_connection *c, struct ty_rpc_reply *reply)
{
	struct ty_rpc_edge *edge = c->edge;

	assert(!c->closing);
	reply->next = NULL;
	reply->sent = 0;
	reply->deadline = TY_NEVER;
	*c->last = reply;
	c->last = &reply->next;
	c->replies++;
	c->reply_bytes += reply->size;
	edge->reply_bytes += reply->size;
	if (edge->reply_bytes > edge->limits.all_reply_bytes ||
		(edge->limits.queue_bytes && c->reply_bytes > edge->limits.queue_bytes)) {
		unsent(c, "there is no room for more that it does not take");
	} else if (!c->sending && !c->taking) {
		flush(c);
		if (!c->closing)
			rest(c);
	}
}

/* ---- receiving ------------------------------------------------------------------------------------------------------ */

/* Has it begun what it did not end? */
static bool owes(const struct ty_rpc_connection *c)
{
	return !c->greeted || (c->body ? c->body_got < c->body_size : c->from < c->to);
}

enum ty_rpc_head ty_rpc_read_head(const uint8_t *bytes, size_t here, bool ipc, size_t max, size_t *head, uint64_t *length)
{
	*head = ipc ? 9 : 8;
	*length = 0;
	if (here < *head)
		return TY_RPC_HEAD_SHORT;
	for (size_t i = *head - 8; i < *head; i++)
		*length = *length << 8 | bytes[i];
	if (ipc && bytes[0] != 1)
		return TY_RPC_HEAD_TYPE;
	return *length > max ? TY_RPC_HEAD_LONG : TY_RPC_HEAD_WHOLE;
}

size_t ty_rpc_read_hops(const uint8_t *bytes, size_t length)
{
	for (size_t hops = 4; hops <= 4 * TY_RPC_HOPS_MAX && hops <= length; hops += 4)
		if (bytes[hops - 4] & 0x80)
			return hops;
	return 0;
}

static void take_frame(struct ty_rpc_connection *c, const uint8_t *bytes, size_t length)
{
	size_t trace = ty_rpc_read_hops(bytes, length);

	c->deadline = TY_NEVER;
	if (!c->edge->calls->request) {
		broken(c, "it sends a frame of %zu bytes, expected none", length);
		return;
	}
	if (trace == 0) {
		broken(c, "its frame of %zu bytes begins with no request number within %d hops", length, TY_RPC_HOPS_MAX);
		return;
	}
	c->edge->calls->request(c->edge->owner, c, bytes, trace, bytes + trace, length - trace);
}

static bool take_greeting(struct ty_rpc_connection *c)
{
	const uint8_t *p = c->buffer + c->from;
	uint8_t expected[GREETING_BYTES];

	if (c->to - c->from < GREETING_BYTES)
		return false;
	make_greeting(expected, c->edge->protocol->theirs);
	if (memcmp(p, expected, GREETING_BYTES) != 0) {
		broken(c, "it begins with %02x %02x %02x %02x %02x %02x %02x %02x, which is no %s peer's greeting", p[0], p[1],
			p[2], p[3], p[4], p[5], p[6], p[7], c->edge->protocol == &ty_rpc_replies ? "REQ" : "SUB");
		return false;
	}
	c->from += GREETING_BYTES;
	c->greeted = true;
	c->deadline = TY_NEVER;
	return true;
}

/* A long frame: what is here of it goes to its own memory. False: there is more to come. */
static bool take_body(struct ty_rpc_connection *c)
{
	size_t here = c->to - c->from, need = c->body_size - c->body_got;
	uint8_t *body = c->body;

	if (here > need)
		here = need;
	memcpy(body + c->body_got, c->buffer + c->from, here);
	c->body_got += here;
	c->edge->frame_bytes += here;
	c->from += (uint32_t)here;
	if (c->body_got < c->body_size) {
		crowd_out(c->edge); /* it may be this one */
		return false;
	}
	c->edge->frame_bytes -= c->body_size;
	c->body_got = 0;
	c->body = NULL;
	take_frame(c, body, c->body_size);
	free(body);
	return true;
}

/* The beginning of a frame, or a whole short one. False: there is more to come. */
static bool take_head(struct ty_rpc_connection *c)
{
	const uint8_t *p = c->buffer + c->from;
	size_t here = c->to - c->from, head;
	uint64_t length;

	switch (ty_rpc_read_head(p, here, c->edge->transport == TY_RPC_IPC, c->edge->limits.frame_bytes, &head, &length)) {
	case TY_RPC_HEAD_SHORT:
		return false;
	case TY_RPC_HEAD_TYPE:
		broken(c, "its frame is of type %u, expected 1", p[0]);
		return false;
	case TY_RPC_HEAD_LONG:
		broken(c, "its frame has %llu bytes, at most %zu are taken", (unsigned long long)length,
			c->edge->limits.frame_bytes);
		return false;
	case TY_RPC_HEAD_WHOLE:
		break;
	}
	if (here - head >= length) {
		c->from += (uint32_t)(head + length);
		take_frame(c, p + head, (size_t)length);
		return true;
	}
	if (head + length <= sizeof c->buffer)
		return false;
	c->body = malloc((size_t)length);
	if (!c->body) {
		ty_rpc_edge_note(c->edge, TY_LOG_WARN, "closing a connection: no memory for a frame of %zu bytes", (size_t)length);
		count(&stats_of(c->edge)->receive_errors, 1);
		end(c);
		return false;
	}
	c->body_size = (size_t)length;
	c->body_got = 0;
	c->from += (uint32_t)head;
	return true;
}

/* Look at what is there, as far as replies may be sent, and send what could be answered on the spot. */
static void proceed(struct ty_rpc_connection *c)
{
	do {
		c->taking = true;
		for (;;) {
			c->waiting = c->greeted && has_enough(c);
			if (c->waiting || !(!c->greeted ? take_greeting(c) : c->body ? take_body(c) : take_head(c)) || c->closing)
				break;
		}
		c->taking = false;
		if (!c->closing && !c->sending)
			flush(c);
		if (c->closing)
			return;
	} while (c->waiting && !has_enough(c));
	if (!c->waiting && owes(c) && c->deadline == TY_NEVER)
		c->deadline = frame_deadline(c->edge);
}

static void receive_failed(struct ty_rpc_connection *c, int error)
{
	if (error == EAGAIN || error == EWOULDBLOCK || error == EINTR)
		return;
	if (error == EPROTO)
		broken(c, "what it sends is no TLS");
	else if (error != ECONNRESET && error != EPIPE)
		count(&stats_of(c->edge)->receive_errors, 1);
	end(c);
}

/* Whose GPU the request is probably about needs as long to wake up as all the others on the way. */
static void rouse_owner(const struct ty_rpc_connection *c)
{
	if (c->device)
		ty_actor_rouse(c->edge->service->gpu[c->device - 1]);
}

/* One receive, and what came of it. */
static void receive(struct ty_rpc_connection *c)
{
	bool into_body = c->body;
	uint8_t *to;
	size_t room;
	ssize_t n;

	if (into_body) {
		assert(c->from == c->to);
		c->from = c->to = 0;
		to = c->body + c->body_got;
		room = c->body_size - c->body_got;
	} else {
		memmove(c->buffer, c->buffer + c->from, c->to - c->from);
		c->to -= c->from;
		c->from = 0;
		to = c->buffer + c->to;
		room = sizeof c->buffer - c->to;
	}
	assert(room > 0);
	n = ty_rpc_stream_receive(&c->stream, to, room);
	if (n < 0) {
		receive_failed(c, errno);
	} else if (n == 0) {
		end(c);
	} else {
		if (into_body) {
			c->body_got += (size_t)n;
			c->edge->frame_bytes += (size_t)n;
		} else {
			c->to += (uint32_t)n;
		}
		proceed(c);
		if (n >= TY_RPC_TRANSFER_BYTES)
			rouse_owner(c);
	}
}

/* False: the handshake goes on, or failed. */
static bool make_secure(struct ty_rpc_connection *c)
{
	struct ty_error err;
	bool writes;
	enum ty_code code = ty_tls_handshake(c->stream.tls, &writes, &err);

	if (code == TY_OK) {
		c->secure = true;
		flush(c);
	} else if (code == TY_BUSY) {
		wait_for(c, writes ? EPOLLOUT : EPOLLIN);
	} else {
		broken(c, "%s", err.text);
	}
	return c->secure && !c->closing;
}

void ty_rpc_connection_event(struct ty_rpc_connection *c, uint32_t events)
{
	bool failed = events & (EPOLLERR | EPOLLHUP);

	if (!c->secure && !make_secure(c))
		return;
	if (c->sending && (events & EPOLLOUT || failed))
		flush(c);
	if (!c->closing && c->waiting && !has_enough(c))
		proceed(c);
	if (!c->closing && !c->waiting && (events & EPOLLIN || failed))
		receive(c);
	/* what TLS has taken from the socket already epoll does not tell of; it is at most a record */
	while (!c->closing && !c->waiting && ty_rpc_stream_holds(&c->stream))
		receive(c);
	if (!c->closing)
		rest(c);
}

/* A deadline has passed, or had been moved on meanwhile. */
void ty_rpc_edge_late(void *actor, struct ty_msg *msg)
{
	struct ty_rpc_connection *c = ty_container_of(ty_container_of(msg, struct ty_timer, msg), struct ty_rpc_connection, late);
	int64_t now = ty_now();

	(void)actor;
	c->late_at = TY_NEVER;
	if (send_deadline(c) <= now)
		unsent(c, "it does not take its replies");
	else if (c->deadline <= now)
		broken(c, "its %s is not whole after %d ms", c->greeted ? "frame" : "greeting", (int)c->edge->limits.frame_ms);
	else
		watch(c);
}

/* ---- the beginning -------------------------------------------------------------------------------------------------- */

void ty_rpc_connection_begin(struct ty_rpc_connection *c, int fd, uint64_t uid, struct ty_rpc_reply *greeting)
{
	struct ty_rpc_edge *edge = c->edge;
	struct ty_error err;

	c->stream = (struct ty_rpc_stream){.fd = fd, .closer = edge->closer};
	c->uid = uid;
	c->client = 0;
	c->device = 0;
	c->closing = c->greeted = c->waiting = c->taking = c->sending = false;
	c->from = c->to = 0;
	c->first = NULL;
	c->last = &c->first;
	assert(!c->body && !c->reserve && !c->slots && c->requests == 0 && c->replies == 0 && c->reply_bytes == 0 && c->late_at == TY_NEVER);
	c->deadline = frame_deadline(edge);
	c->secure = !edge->tls;
	c->events = EPOLLIN;
	greeting->request = greeting->held = false;
	greeting->reserved = true;
	greeting->size = GREETING_BYTES;
	make_greeting(greeting->bytes, edge->protocol->ours);
	if (!ty_waiter_add(&edge->waiter, fd, c->events, (uintptr_t)c) ||
		(edge->tls && ty_tls_begin(edge->tls, fd, "a client", &c->stream.tls, &err) != TY_OK)) {
		free(greeting);
		ty_rpc_edge_close(c, "no memory for it");
		return;
	}
	ty_rpc_edge_send(c, greeting);
}
