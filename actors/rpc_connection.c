/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection's life: ty_rpc_connection_begin() greets it, proceed() looks at what it sent, ty_rpc_edge_send() queues what it gets, end()
 * closes it, settle() keeps it for the next one when nng has let go of it.
 */
#include "rpc_connection.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service.h"

#define GREETING_BYTES TY_RPC_GREETING_BYTES
#define LOG_EVERY_NS 1000000000
#define SEND_AT_ONCE 8 /* replies; what an aio of nng has room for */

const struct ty_rpc_protocol ty_rpc_replies = {0x31, 0x30, TY_RPC_ACCEPTED, TY_RPC_RECEIVED, TY_RPC_SENT, TY_RPC_RETRY,
	TY_RPC_LATE};

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
	free(reply);
}

static int64_t receive_deadline(const struct ty_rpc_connection *c)
{
	return c->receiving && !c->receive.cut ? c->deadline : TY_NEVER;
}

static int64_t send_deadline(const struct ty_rpc_connection *c)
{
	return c->sending && !c->send.cut ? c->first->deadline : TY_NEVER;
}

/* Have the timer come in time. One that is set for earlier stays: deadlines move on with every frame. */
static void watch(struct ty_rpc_connection *c)
{
	int64_t receive = receive_deadline(c), send = send_deadline(c), first = receive < send ? receive : send;

	if (first >= c->late_at)
		return;
	c->late_at = first;
	ty_timer_start(&c->late, c->edge->protocol->late, first);
}

/* Over, and nng has let go of it: only now may the stream and the memory it was using be freed. */
static void settle(struct ty_rpc_connection *c)
{
	struct ty_rpc_edge *edge = c->edge;

	assert(c->closing);
	if (c->receiving || c->sending)
		return;
	ty_timer_cancel(&c->late);
	c->late_at = TY_NEVER;
	while (c->first)
		drop_first(c);
	free(c->body);
	nng_stream_free(c->stream);
	c->body = NULL;
	c->stream = NULL;
	c->next_free = edge->free;
	edge->free = c;
	edge->open--;
	atomic_fetch_sub_explicit(&stats_of(edge)->connections, 1, memory_order_relaxed);
}

/* Close: what nng has of it comes back with an error. */
static void end(struct ty_rpc_connection *c)
{
	if (c->closing)
		return;
	c->closing = true;
	c->edge->frame_bytes -= c->body ? c->body_got : 0;
	c->body_got = 0;
	c->edge->calls->gone(c->edge->owner, c);
	nng_stream_close(c->stream);
	settle(c);
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

static void post_send(struct ty_rpc_connection *c)
{
	nng_iov iov[SEND_AT_ONCE];
	unsigned n = 0;

	for (struct ty_rpc_reply *reply = c->first; reply && n < SEND_AT_ONCE; reply = reply->next) {
		iov[n].iov_buf = reply->bytes + reply->sent;
		iov[n++].iov_len = reply->size - reply->sent;
	}
	if (nng_aio_set_iov(c->send.aio, n, iov) != 0)
		abort(); /* fails for more than it has room for */
	if (c->first->sent == 0)
		c->first->deadline = frame_deadline(c->edge);
	c->sending = true;
	c->send.cut = false;
	nng_stream_send(c->stream, c->send.aio);
	watch(c);
}

/* Not taken: all that waits is lost with it. */
static void unsent(struct ty_rpc_connection *c, const char *why)
{
	count(&stats_of(c->edge)->unsent, c->replies);
	ty_rpc_edge_note(c->edge, TY_LOG_INFO, "closing a connection: %s; %u replies are lost", why, c->replies);
	end(c);
}

void ty_rpc_edge_send(struct ty_rpc_connection *c, struct ty_rpc_reply *reply)
{
	struct ty_rpc_edge *edge = c->edge;

	assert(!c->closing);
	reply->next = NULL;
	reply->sent = 0;
	*c->last = reply;
	c->last = &reply->next;
	c->replies++;
	c->reply_bytes += reply->size;
	edge->reply_bytes += reply->size;
	if (edge->reply_bytes > edge->limits.all_reply_bytes ||
		(edge->limits.queue_bytes && c->reply_bytes > edge->limits.queue_bytes))
		unsent(c, "there is no room for more that it does not take");
	else if (!c->sending && !c->taking)
		post_send(c);
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

static void proceed(struct ty_rpc_connection *c);

void ty_rpc_edge_sent(void *actor, struct ty_msg *msg)
{
	struct ty_rpc_io *io = ty_container_of(msg, struct ty_rpc_io, msg);
	struct ty_rpc_connection *c = io->connection;
	int error = nng_aio_result(io->aio);

	(void)actor;
	c->sending = false;
	if (c->closing) {
		settle(c);
		return;
	}
	if (error == NNG_ECANCELED && io->cut) {
		unsent(c, "it does not take its replies");
		return;
	}
	if (error != 0) {
		end(c);
		return;
	}
	advance(c, nng_aio_count(io->aio));
	if (c->waiting)
		proceed(c);
	else if (c->first)
		post_send(c);
}

/* ---- receiving ------------------------------------------------------------------------------------------------------ */

static bool has_enough(const struct ty_rpc_connection *c)
{
	const struct ty_rpc_limits *limits = &c->edge->limits;

	return c->replies >= limits->replies || c->reply_bytes >= limits->reply_bytes;
}

/* Has it begun what it did not end? */
static bool owes(const struct ty_rpc_connection *c)
{
	return !c->greeted || (c->body ? c->body_got < c->body_size : c->from < c->to);
}

static void post_receive(struct ty_rpc_connection *c)
{
	nng_iov iov;

	if (c->receiving)
		return;
	c->into_body = c->body && c->body_got < c->body_size;
	if (c->into_body) {
		assert(c->from == c->to);
		c->from = c->to = 0;
		iov.iov_buf = c->body + c->body_got;
		iov.iov_len = c->body_size - c->body_got;
	} else {
		memmove(c->buffer, c->buffer + c->from, c->to - c->from);
		c->to -= c->from;
		c->from = 0;
		if (c->to == sizeof c->buffer) {
			assert(c->waiting && c->sending);
			return;
		}
		iov.iov_buf = c->buffer + c->to;
		iov.iov_len = sizeof c->buffer - c->to;
	}
	if (nng_aio_set_iov(c->receive.aio, 1, &iov) != 0)
		abort();
	c->receiving = true;
	c->receive.cut = false;
	nng_stream_recv(c->stream, c->receive.aio);
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

/* Look at what is there, as far as replies may be sent, send what could be answered on the spot, and receive more. */
static void proceed(struct ty_rpc_connection *c)
{
	c->taking = true;
	for (;;) {
		c->waiting = c->greeted && has_enough(c);
		if (c->waiting || !(!c->greeted ? take_greeting(c) : c->body ? take_body(c) : take_head(c)) || c->closing)
			break;
	}
	c->taking = false;
	if (c->closing)
		return;
	if (c->first && !c->sending)
		post_send(c);
	if (!c->waiting && owes(c) && c->deadline == TY_NEVER)
		c->deadline = frame_deadline(c->edge);
	post_receive(c);
	watch(c);
}

static void receive_failed(struct ty_rpc_connection *c, int error)
{
	if (error == NNG_ECANCELED && c->receive.cut) {
		broken(c, "its %s is not whole after %d ms", c->greeted ? "frame" : "greeting", (int)c->edge->limits.frame_ms);
		return;
	}
	/* Its end, mostly. */
	if (error != NNG_ECONNSHUT && error != NNG_ECONNRESET)
		count(&stats_of(c->edge)->receive_errors, 1);
	end(c);
}

/* A deadline has passed, or had been moved on meanwhile. What is cut comes back as cancelled; or whole, if it was about to. */
void ty_rpc_edge_late(void *actor, struct ty_msg *msg)
{
	struct ty_rpc_connection *c = ty_container_of(ty_container_of(msg, struct ty_timer, msg), struct ty_rpc_connection, late);
	int64_t now = ty_now();

	(void)actor;
	c->late_at = TY_NEVER;
	if (c->closing)
		return;
	if (send_deadline(c) <= now) {
		c->send.cut = true;
		nng_aio_cancel(c->send.aio);
	}
	if (receive_deadline(c) <= now) {
		c->receive.cut = true;
		nng_aio_cancel(c->receive.aio);
	}
	watch(c);
}

void ty_rpc_edge_received(void *actor, struct ty_msg *msg)
{
	struct ty_rpc_io *io = ty_container_of(msg, struct ty_rpc_io, msg);
	struct ty_rpc_connection *c = io->connection;
	int error = nng_aio_result(io->aio);

	(void)actor;
	c->receiving = false;
	if (c->closing) {
		settle(c);
		return;
	}
	if (error != 0) {
		receive_failed(c, error);
		return;
	}
	if (c->into_body) {
		c->body_got += nng_aio_count(io->aio);
		c->edge->frame_bytes += nng_aio_count(io->aio);
	} else {
		c->to += (uint32_t)nng_aio_count(io->aio);
	}
	proceed(c);
}

/* ---- the beginning -------------------------------------------------------------------------------------------------- */

void ty_rpc_connection_begin(struct ty_rpc_connection *c, nng_stream *stream, uint64_t uid, struct ty_rpc_reply *greeting)
{
	c->stream = stream;
	c->uid = uid;
	c->client = 0;
	atomic_store_explicit(&c->device, 0, memory_order_relaxed);
	c->closing = c->greeted = c->waiting = c->into_body = c->taking = false;
	c->from = c->to = 0;
	c->first = NULL;
	c->last = &c->first;
	assert(!c->receiving && !c->sending && !c->body && !c->slots && c->requests == 0);
	assert(c->replies == 0 && c->reply_bytes == 0);
	c->deadline = frame_deadline(c->edge);
	greeting->request = greeting->held = false;
	greeting->size = GREETING_BYTES;
	make_greeting(greeting->bytes, c->edge->protocol->ours);
	ty_rpc_edge_send(c, greeting);
	if (c->closing)
		return;
	post_receive(c);
	watch(c);
}
