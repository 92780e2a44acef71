/* SPDX-License-Identifier: Apache-2.0
 *
 * The flight recorder's rings as a trace in the Chrome format. All rings are copied first, then each is gone through by
 * itself (a thread does one thing after the other, so what begins ends what was), then sends and begins of all threads
 * are paired by the message's address: it is in one mailbox at a time.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/runtime.h"

#define OUT_SIZE 8192
#define NAME_MAX_LENGTH 128 /* bytes of a name that are shown */
#define PID_ACTORS 1
#define PID_THREADS 2
#define NOBODY UINT64_MAX

struct step { /* an event, and what was made of it */
	struct ty_event event;
	uint32_t seat, order;
	int64_t ns;     /* by its stamp */
	int64_t shown;  /* the same, but for messages and sends that share a stamp: spread evenly */
	uint64_t actor; /* SEND: who sent, else NOBODY */
};

struct trace {
	const struct ty_runtime *rt;
	struct ty_instant now;
	struct step *steps;
	size_t count;
	uint64_t arrows;
	bool (*write)(void *user, const char *text, size_t length);
	void *user;
	bool cancelled, first;
	size_t used;
	char out[OUT_SIZE];
};

/* ---- text ---------------------------------------------------------------------------------- */

static void flush(struct trace *t)
{
	if (t->used && !t->cancelled && !t->write(t->user, t->out, t->used))
		t->cancelled = true;
	t->used = 0;
}

static void put(struct trace *t, const char *fmt, ...) TY_PRINTF(2, 3);
static void put(struct trace *t, const char *fmt, ...)
{
	char text[512];
	va_list args;
	int length;

	va_start(args, fmt);
	length = vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	assert(length >= 0 && (size_t)length < sizeof text); /* names go through put_name */
	if (t->used + (size_t)length > sizeof t->out)
		flush(t);
	memcpy(t->out + t->used, text, (size_t)length);
	t->used += (size_t)length;
}

/* What a JSON string may hold. Names are the program's: any bytes; what is not ASCII becomes '?'. */
static void put_name(struct trace *t, const char *name)
{
	char text[2 * NAME_MAX_LENGTH + 1];
	size_t n = 0;

	for (size_t i = 0; name[i] && i < NAME_MAX_LENGTH; i++) {
		unsigned char c = (unsigned char)name[i];

		if (c == '"' || c == '\\')
			text[n++] = '\\';
		text[n++] = c < ' ' || c > '~' ? '?' : (char)c;
	}
	text[n] = '\0';
	put(t, "%s", text);
}

static void put_time(struct trace *t, const char *key, int64_t ns)
{
	put(t, ",\"%s\":%" PRId64 ".%03d", key, ns / 1000, (int)(ns % 1000));
}

/* An object of the array, up to its name; the caller closes it. */
static void open_event(struct trace *t, const char *phase, int pid, uint64_t tid, const char *name)
{
	put(t, "%s{\"ph\":\"%s\",\"pid\":%d,\"tid\":%" PRIu64 ",\"name\":\"", t->first ? "" : ",\n", phase, pid, tid);
	t->first = false;
	put_name(t, name);
	put(t, "\"");
}

static const char *message_name(const struct ty_event *e)
{
	const struct ty_class *cls = e->cls;

	if (e->kind == TY_EVENT_POLL)
		return "poll";
	switch (e->index) {
	case TY_INDEX_START:
		return "start";
	case TY_INDEX_STOP:
		return "stop";
	case TY_INDEX_REFUSE:
		return "refuse";
	case TY_INDEX_UNKNOWN:
		return "unknown type";
	default:
		if (!cls->handlers) /* a port */
			return "message";
		return cls->handlers[e->index].name ? cls->handlers[e->index].name : "unnamed";
	}
}

/* ---- from rings to steps ------------------------------------------------------------------- */

static bool copy_rings(struct trace *t)
{
	struct ty_event *events = malloc(TY_RING_EVENTS * sizeof *events);
	size_t seats = 0;

	if (!events)
		return false;
	while (ty_seat_at(t->rt, seats))
		seats++;
	t->steps = malloc((seats ? seats : 1) * TY_RING_EVENTS * sizeof *t->steps);
	for (uint32_t i = 0; t->steps && i < seats; i++) {
		uint32_t count = ty_ring_read(&ty_seat_at(t->rt, i)->ring, events);

		for (uint32_t k = 0; k < count; k++)
			t->steps[t->count++] =
				(struct step){.event = events[k], .seat = i, .order = k, .actor = NOBODY};
	}
	free(events);
	/* after the copies: nothing in them is later */
	t->now = ty_instant_read(t->rt);
	return t->steps;
}

/* Begins and sends that bear one stamp, up to the next: the stamp is when the first of them began. */
static void set_times(struct trace *t, struct step *steps, size_t count)
{
	for (size_t i = 0, end; i < count; i = end) {
		struct step *s = &steps[i];
		int64_t gap;

		s->ns = s->shown = ty_ticks_clock(t->rt, &t->now, s->event.when);
		end = i + 1;
		if (s->event.kind != TY_EVENT_BEGIN)
			continue;
		while (end < count && steps[end].event.when == s->event.when && steps[end].event.kind != TY_EVENT_END)
			end++;
		gap = end < count ? ty_ticks_clock(t->rt, &t->now, steps[end].event.when) - s->ns : 0;
		for (size_t k = i + 1; k < end; k++) {
			steps[k].ns = s->ns;
			steps[k].shown = s->ns + (gap > 0 ? gap * (int64_t)(k - i) / (int64_t)(end - i) : 0);
		}
	}
}

/* Sends come before the POLL that they were part of. */
static const struct step *poll_ahead(const struct step *steps, size_t count, size_t i)
{
	uint64_t when = steps[i].event.when;

	for (; i < count; i++) {
		const struct ty_event *e = &steps[i].event;

		if (e->kind == TY_EVENT_POLL)
			return e->msg <= when ? &steps[i] : NULL;
		if (e->kind == TY_EVENT_BEGIN || e->kind == TY_EVENT_END || e->kind == TY_EVENT_PARK)
			return NULL;
	}
	return NULL;
}

static void set_senders(struct step *steps, size_t count)
{
	uint64_t actor = NOBODY;

	for (size_t i = 0; i < count; i++) {
		const struct step *poll;

		switch (steps[i].event.kind) {
		case TY_EVENT_BEGIN:
			actor = steps[i].event.number;
			break;
		case TY_EVENT_END:
		case TY_EVENT_POLL:
			actor = NOBODY;
			break;
		case TY_EVENT_SEND:
			poll = actor == NOBODY ? poll_ahead(steps, count, i) : NULL;
			steps[i].actor = poll ? poll->event.number : actor;
			break;
		default:
			break;
		}
	}
}

/* ---- slices and instants ------------------------------------------------------------------- */

static void put_slice(struct trace *t, const struct step *s, int64_t begin, int64_t end)
{
	open_event(t, "X", PID_ACTORS, s->event.number, message_name(&s->event));
	put_time(t, "ts", begin);
	put_time(t, "dur", end > begin ? end - begin : 0);
	put(t, ",\"args\":{\"thread\":%u}}", s->seat);
}

static void put_parked(struct trace *t, const struct step *park, int64_t end, const char *why)
{
	open_event(t, "X", PID_THREADS, park->seat + UINT64_C(1), "parked");
	put_time(t, "ts", park->shown);
	put_time(t, "dur", end > park->shown ? end - park->shown : 0);
	put(t, ",\"args\":{\"ended\":\"%s\"}}", why);
}

static void put_instant(struct trace *t, const struct step *s)
{
	const struct ty_event *e = &s->event;
	const char *kind = e->kind == TY_EVENT_WAKE ? "wake" : e->kind == TY_EVENT_TIMER ? "timer" : "drop";

	open_event(t, "i", PID_THREADS, s->seat + UINT64_C(1), kind);
	put_time(t, "ts", s->shown);
	put(t, ",\"s\":\"t\",\"args\":{");
	if (e->kind == TY_EVENT_WAKE) {
		put(t, "\"%s\":%u}}", e->index ? "actor" : "worker", e->number);
		return;
	}
	put(t, "\"actor\":%u,\"message\":\"", e->number);
	put_name(t, message_name(e));
	put(t, "\"}}");
}

static void put_thread(struct trace *t, const struct step *steps, size_t count)
{
	const struct step *running = NULL, *parked = NULL;

	for (size_t i = 0; i < count; i++) {
		const struct step *s = &steps[i];

		if (running && (s->event.kind == TY_EVENT_BEGIN || s->event.kind == TY_EVENT_END)) {
			put_slice(t, running, running->shown, s->shown);
			running = NULL;
		}
		switch (s->event.kind) {
		case TY_EVENT_BEGIN:
			running = s;
			break;
		case TY_EVENT_POLL:
			put_slice(t, s, ty_ticks_clock(t->rt, &t->now, s->event.msg), s->shown);
			break;
		case TY_EVENT_PARK:
			parked = s;
			break;
		case TY_EVENT_UNPARK:
			if (parked)
				put_parked(t, parked, s->shown, s->event.index ? "woken" : "time");
			parked = NULL;
			break;
		case TY_EVENT_WAKE:
		case TY_EVENT_TIMER:
		case TY_EVENT_DROP:
			put_instant(t, s);
			break;
		case TY_EVENT_SEND:
		case TY_EVENT_END:
			break;
		}
	}
	if (running) /* it goes on */
		put_slice(t, running, running->shown, t->now.ns);
	if (parked)
		put_parked(t, parked, t->now.ns, "not yet");
}

/* ---- arrows -------------------------------------------------------------------------------- */

static void swap(struct step *a, struct step *b)
{
	struct step keep = *a;

	*a = *b;
	*b = keep;
}

static int by_message(const void *a, const void *b)
{
	const struct step *x = a, *y = b;

	if (x->event.msg != y->event.msg)
		return x->event.msg < y->event.msg ? -1 : 1;
	if (x->ns != y->ns)
		return x->ns < y->ns ? -1 : 1;
	if (x->seat != y->seat)
		return x->seat < y->seat ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

static void put_arrow(struct trace *t, const struct step *send, const struct step *begin)
{
	int64_t sent = send->shown < begin->shown ? send->shown : begin->shown;

	t->arrows++;
	open_event(t, "s", PID_ACTORS, send->actor, message_name(&begin->event));
	put_time(t, "ts", sent);
	put(t, ",\"cat\":\"message\",\"id\":%" PRIu64 "}", t->arrows);
	open_event(t, "f", PID_ACTORS, begin->event.number, message_name(&begin->event));
	put_time(t, "ts", begin->shown);
	put(t, ",\"cat\":\"message\",\"bp\":\"e\",\"id\":%" PRIu64 "}", t->arrows);
}

/* Reorders the steps. */
static void put_arrows(struct trace *t)
{
	size_t count = 0;

	for (size_t i = 0; i < t->count; i++)
		if (t->steps[i].event.msg &&
			(t->steps[i].event.kind == TY_EVENT_SEND || t->steps[i].event.kind == TY_EVENT_BEGIN))
			swap(&t->steps[count++], &t->steps[i]);
	qsort(t->steps, count, sizeof *t->steps, by_message);
	for (size_t i = 0; i + 1 < count; i++) {
		const struct step *send = &t->steps[i], *begin = send + 1;

		if (send->event.kind == TY_EVENT_SEND && begin->event.kind == TY_EVENT_BEGIN &&
			send->event.msg == begin->event.msg && send->event.number == begin->event.number &&
			send->actor != NOBODY)
			put_arrow(t, send, begin);
	}
}

/* ---- names --------------------------------------------------------------------------------- */

static int by_actor(const void *a, const void *b)
{
	const struct step *x = a, *y = b;

	return x->event.number < y->event.number ? -1 : x->event.number > y->event.number;
}

/* Reorders the steps. */
static void put_actors(struct trace *t)
{
	size_t count = 0;

	for (size_t i = 0; i < t->count; i++)
		if (t->steps[i].event.cls)
			swap(&t->steps[count++], &t->steps[i]);
	qsort(t->steps, count, sizeof *t->steps, by_actor);
	for (size_t i = 0; i < count; i++) {
		const struct ty_event *e = &t->steps[i].event;

		if (i && t->steps[i - 1].event.number == e->number)
			continue;
		open_event(t, "M", PID_ACTORS, e->number, "thread_name");
		put(t, ",\"args\":{\"name\":\"");
		put_name(t, ((const struct ty_class *)e->cls)->name);
		put(t, " %u\"}}", e->number);
	}
}

static void put_threads(struct trace *t)
{
	static const char *const processes[] = {"actors", "threads"};

	for (int i = 0; i < 2; i++) {
		open_event(t, "M", i + 1, 0, "process_name");
		put(t, ",\"args\":{\"name\":\"%s\"}}", processes[i]);
	}
	for (uint32_t i = 0; ty_seat_at(t->rt, i); i++) {
		open_event(t, "M", PID_THREADS, i + UINT64_C(1), "thread_name");
		put(t, ",\"args\":{\"name\":\"%s %u\"}}", i < t->rt->worker_count ? "worker" : "thread", i);
	}
}

enum ty_code ty_runtime_trace(const struct ty_runtime *rt, bool (*write)(void *user, const char *text, size_t length),
	void *user)
{
	struct trace *t = malloc(sizeof *t);
	enum ty_code code = TY_NO_MEMORY;

	if (!t)
		return TY_NO_MEMORY;
	memset(t, 0, offsetof(struct trace, out));
	t->rt = rt;
	t->write = write;
	t->user = user;
	t->first = true;
	if (!copy_rings(t))
		goto out;
	put(t, "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n");
	put_threads(t);
	for (size_t i = 0, end; i < t->count && !t->cancelled; i = end) {
		for (end = i; end < t->count && t->steps[end].seat == t->steps[i].seat;)
			end++;
		set_times(t, t->steps + i, end - i);
		set_senders(t->steps + i, end - i);
		put_thread(t, t->steps + i, end - i);
	}
	put_arrows(t);
	put_actors(t);
	put(t, "\n]}\n");
	flush(t);
	code = t->cancelled ? TY_CANCELLED : TY_OK;
out:
	free(t->steps);
	free(t);
	return code;
}
