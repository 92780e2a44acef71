/* SPDX-License-Identifier: Apache-2.0 */
#include "log.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "service.h"

#define WORDS (TY_LOG_LINES / 64)
#define LOOK_MS 200       /* how often a blocked write looks whether the service stops */
#define LAST_CHANCE 5     /* so many times after that it still waits */

/* The sink has no argument, so its state is the process's. */
static struct ty_log_line lines[TY_LOG_LINES];
/* Bit set: the line is on its way. Taken with acquire, given back with release: what the log's thread read of a line comes
 * before what the next user writes. */
static _Atomic uint64_t busy[WORDS];
/* Threads inside the sink, and whether anyone may enter. An entering thread adds 1 (acquire, pairs with the release of OPEN) and
 * sees the actor; the closing one takes OPEN away and waits for the rest (acquire, pairs with their release). */
#define OPEN 0x80000000u
static _Atomic uint32_t gate;
static struct ty_actor *actor; /* written by the log actor before it opens, and after it closed, the gate */
static _Atomic uint64_t lost;  /* written by the log actor, read by anyone; relaxed */

uint64_t ty_log_lost(void)
{
	return atomic_load_explicit(&lost, memory_order_relaxed);
}

static struct ty_log_line *take_line(void)
{
	for (unsigned w = 0; w < WORDS; w++) {
		uint64_t seen = atomic_load_explicit(&busy[w], memory_order_relaxed);

		while (seen != UINT64_MAX) {
			uint64_t bit = ~seen & (seen + 1); /* the lowest that is clear */

			seen = atomic_fetch_or_explicit(&busy[w], bit, memory_order_acquire);
			if (!(seen & bit))
				return &lines[w * 64 + (unsigned)__builtin_ctzll(bit)];
		}
	}
	return NULL;
}

static void give_line(struct ty_log_line *line)
{
	size_t i = (size_t)(line - lines);

	atomic_fetch_and_explicit(&busy[i / 64], ~((uint64_t)1 << i % 64), memory_order_release);
}

bool ty_log_actor_sink(const char *text, size_t length)
{
	struct ty_log_line *line = NULL;

	if (atomic_fetch_add_explicit(&gate, 1, memory_order_acquire) & OPEN)
		line = take_line();
	if (line) {
		line->length = length < sizeof line->text ? length : sizeof line->text;
		memcpy(line->text, text, line->length);
		memset(&line->msg, 0, sizeof line->msg);
		if (ty_send(actor, &line->msg, TY_LOG_LINE) != TY_OK) {
			give_line(line);
			line = NULL;
		}
	}
	atomic_fetch_sub_explicit(&gate, 1, memory_order_release);
	return line != NULL;
}

/* ---- the actor ------------------------------------------------------------------------------------------------------ */

struct log {
	struct ty_service *service;
	bool gave_up; /* stderr did not move while the service stopped: what is left goes nowhere */
};

/* Is there room for a line? This thread alone waits here, as long as it takes, unless the service is stopping. A pipe that
 * polls writable takes a line whole. */
static bool wait_writable(struct log *log)
{
	struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
	unsigned chances = LAST_CHANCE;

	while (!log->gave_up) {
		int n = poll(&p, 1, LOOK_MS);

		if (n > 0)
			return true; /* or an error, which the write tells */
		if (n < 0 && errno != EINTR)
			return false;
		if (atomic_load_explicit(&log->service->stopping, memory_order_acquire) && chances-- == 0)
			log->gave_up = true;
	}
	return false;
}

static bool write_line(struct log *log, const struct ty_log_line *line)
{
	size_t done = 0;

	while (done < line->length) {
		ssize_t n;

		if (!wait_writable(log))
			return false;
		n = write(STDERR_FILENO, line->text + done, line->length - done);
		if (n >= 0)
			done += (size_t)n;
		else if (errno != EINTR && errno != EAGAIN)
			return false;
	}
	return true;
}

static void line_came(void *self, struct ty_msg *msg)
{
	struct ty_log_line *line = ty_container_of(msg, struct ty_log_line, msg);

	if (!write_line(self, line))
		atomic_fetch_add_explicit(&lost, 1, memory_order_relaxed);
	give_line(line);
}

static void refuse(void *self, struct ty_msg *msg)
{
	(void)self;
	atomic_fetch_add_explicit(&lost, 1, memory_order_relaxed);
	give_line(ty_container_of(msg, struct ty_log_line, msg));
}

static enum ty_code start(void *self, void *arg)
{
	struct log *log = self;

	log->service = arg;
	assert(!(atomic_load_explicit(&gate, memory_order_relaxed) & OPEN)); /* one at a time */
	actor = ty_actor_ref(ty_self());
	atomic_fetch_or_explicit(&gate, OPEN, memory_order_release);
	ty_log_set_sink(ty_log_actor_sink);
	return TY_OK;
}

static void stop(void *self)
{
	(void)self;
	ty_log_set_sink(NULL);
	atomic_fetch_and_explicit(&gate, ~OPEN, memory_order_relaxed);
	/* Who is in the sink now copies one line and leaves. Nobody waits for this thread but the runtime's end. */
	while (atomic_load_explicit(&gate, memory_order_acquire) != 0)
		sched_yield();
	ty_actor_unref(actor);
	actor = NULL;
}

static const struct ty_handler handlers[] = {{"line", line_came}};

const struct ty_class ty_log_class = {
	.name = "log",
	.state_size = sizeof(struct log),
	.first_type = TY_LOG_LINE,
	.type_count = 1,
	.handlers = handlers,
	.start = start,
	.stop = stop,
	.refuse = refuse,
};
