/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests in flight, and their completions.
 */
#include "client/internal.h"
#include "client/timeline.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "wire/request.h"

#define ID_FLAG 0x80000000u /* REQ's numbers have it; below it are the turn and, lowest, the slot's index */
#define INDEX_BITS 7

_Static_assert(TY_CLIENT_REQUESTS_MAX < 1 << INDEX_BITS, "an index fits into a request's number");

int64_t ty_client_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* ---- sending --------------------------------------------------------------------------------------------------------- */

enum ty_code ty_slot_take(struct ty_client *c, ty_internal_fn internal, struct ty_request_slot **out, struct ty_error *err)
{
	uint32_t i;

	*out = NULL;
	if (internal == NULL && c->link != TY_LINK_UP)
		return ty_fail(err, TY_CLOSED, "the service is away: %.200s", c->why.text);
	for (i = 0; i < c->slot_count; i++) {
		struct ty_request_slot *slot = &c->slots[i];

		if (slot->phase == TY_SLOT_IDLE && !slot->queued) {
			slot->internal = internal;
			*out = slot;
			return TY_OK;
		}
	}
	return ty_fail(err, TY_BUSY, "max_requests: %u requests are in flight", c->slot_count);
}

static uint32_t number_of(const struct ty_request_slot *slot)
{
	return ID_FLAG | (slot->turn << INDEX_BITS & ~ID_FLAG) | slot->index;
}

void ty_slot_send(struct ty_request_slot *slot, struct ty_frame *frame)
{
	struct ty_client *c = slot->client;
	struct ty_error err;
	enum ty_code code;

	slot->phase = TY_SLOT_OPEN;
	code = ty_connection_send(&c->connection, frame, &err);
	if (code != TY_OK)
		ty_link_lost(c, code, err.text);
}

static uint32_t chunks_of(const struct ty_client *c, const Tyer__V1__Request *request)
{
	const Tyer__V1__Chain *chain;
	size_t chunks;

	if (request->verb_case == TYER__V1__REQUEST__VERB_RETRIEVE)
		return request->retrieve->count;
	if (request->verb_case != TYER__V1__REQUEST__VERB_LOOKUP)
		return 0;
	chain = request->lookup->chain;
	chunks = chain->hashes.len != 0 ? chain->hashes.len / TY_KEY_BYTES : chain->n_tokens / c->info.chunk_tokens;
	return chunks < UINT32_MAX ? (uint32_t)chunks : UINT32_MAX;
}

enum ty_code ty_slot_submit(struct ty_request_slot *slot, Tyer__V1__Request *request, ty_done_fn done, void *user,
	struct ty_error *err)
{
	struct ty_client *c = slot->client;
	bool anonymous = request->verb_case == TYER__V1__REQUEST__VERB_PING ||
			 request->verb_case == TYER__V1__REQUEST__VERB_STATUS ||
			 request->verb_case == TYER__V1__REQUEST__VERB_HELLO ||
			 ty_verb_is_admin((uint32_t)request->verb_case);
	struct ty_frame *frame;
	uint8_t *body;
	size_t bytes;

	assert(slot->phase == TY_SLOT_IDLE && !slot->queued);
	if (!anonymous && c->info.client == 0)
		return ty_fail(err, TY_INVALID, "options.attach_path was null: this client may only PING and STATUS");
	request->version = TY_WIRE_VERSION;
	request->client = anonymous ? 0 : c->info.client;
	request->id = c->next_id;
	request->timeout_us = c->timeout_us;
	bytes = tyer__v1__request__get_packed_size(request);
	if (bytes > c->max_request_bytes)
		return ty_fail(err, TY_LIMIT, "%s of %zu bytes, max_request_bytes is %u", ty_verb_name(request->verb_case),
			bytes, c->max_request_bytes);
	slot->turn++;
	frame = ty_frame_new(&c->address, number_of(slot), bytes, &body);
	if (frame == NULL)
		return ty_fail(err, TY_NO_MEMORY, "%s: no memory for %zu bytes", ty_verb_name(request->verb_case), bytes);
	frame->queued = &slot->queued;
	tyer__v1__request__pack(request, body);
	slot->verb = request->verb_case;
	slot->id = c->next_id++;
	slot->chunks = chunks_of(c, request);
	slot->done = done;
	slot->user = user;
	slot->deadline = ty_client_now() + ((int64_t)c->patience_us + TY_CLIENT_MARGIN_US) * 1000;
	ty_client_wake_at(c, slot->deadline);
	c->in_use++;
	if (slot->attaching == NULL) {
		ty_slot_send(slot, frame);
	} else {
		slot->phase = TY_SLOT_ATTACHING;
		slot->request = frame;
		ty_attaching_begin(slot);
	}
	if (c->ready != NULL || c->tell_away) /* it failed at once: that is delivered like any other result */
		ty_client_signal(c);
	return TY_OK;
}

/* ---- ending ---------------------------------------------------------------------------------------------------------- */

/* `decoded` is there: queued for delivery, or handed to the link. */
static void finish(struct ty_request_slot *slot)
{
	struct ty_client *c = slot->client;
	struct ty_decoded decoded;

	/* BUSY is the edge's: it never came to who takes them */
	ty_attaching_free(c, slot->attaching,
		slot->phase == TY_SLOT_OPEN && slot->decoded.reply != NULL && slot->decoded.result.code != TY_BUSY);
	slot->attaching = NULL;
	free(slot->request);
	slot->request = NULL;
	if (slot->internal == NULL) {
		ty_pool_answered(slot);
		slot->phase = TY_SLOT_FINISHED;
		slot->next = NULL;
		*c->ready_end = slot;
		c->ready_end = &slot->next;
		return;
	}
	decoded = slot->decoded;
	slot->phase = TY_SLOT_IDLE;
	c->in_use--;
	if (decoded.result.error == slot->decoded.error.text)
		decoded.result.error = decoded.error.text;
	slot->internal(slot, &decoded);
	ty_decoded_free(&decoded);
}

void ty_slot_fail(struct ty_request_slot *slot, enum ty_code code, const char *text)
{
	assert(slot->phase == TY_SLOT_ATTACHING || slot->phase == TY_SLOT_OPEN);
	ty_reply_failed(slot->verb, code, text, &slot->decoded);
	finish(slot);
}

void ty_slots_end(struct ty_client *c, enum ty_code code, const char *text)
{
	uint32_t i;

	for (i = 0; i <= c->slot_count; i++) {
		struct ty_request_slot *slot = &c->slots[i];

		if (slot->phase != TY_SLOT_ATTACHING && slot->phase != TY_SLOT_OPEN)
			continue;
		if (slot->internal == NULL) {
			ty_slot_fail(slot, code, text);
			continue;
		}
		/* the link's: it is the link that ends */
		ty_attaching_free(c, slot->attaching, true);
		slot->attaching = NULL;
		free(slot->request);
		slot->request = NULL;
		slot->pool = NULL;
		slot->phase = TY_SLOT_IDLE;
		c->in_use--;
	}
}

void ty_slot_reply(struct ty_client *c, uint32_t id, const uint8_t *bytes, size_t length)
{
	uint32_t index = id & ((1u << INDEX_BITS) - 1);
	struct ty_request_slot *slot = index <= c->slot_count ? &c->slots[index] : NULL;
	uint64_t boot;

	/* else the request is over already: it was too late for its answer */
	if (slot == NULL || slot->phase != TY_SLOT_OPEN || number_of(slot) != id)
		return;
	ty_reply_decode(slot->verb, slot->id, bytes, length, &slot->decoded);
	ty_reply_hold_against(slot->verb, slot->chunks, &slot->decoded);
	boot = slot->decoded.result.boot;
	finish(slot);
	if (c->link == TY_LINK_UP && boot != 0 && boot != c->info.boot)
		ty_link_lost(c, TY_CLOSED, "another service answers: it was started anew");
}

/* Those that have waited long enough; returns when the next one has. */
static int64_t expire_slots(struct ty_client *c, int64_t now)
{
	int64_t next = INT64_MAX;
	uint32_t i;

	for (i = 0; i <= c->slot_count; i++) {
		struct ty_request_slot *slot = &c->slots[i];

		if (slot->phase != TY_SLOT_ATTACHING && slot->phase != TY_SLOT_OPEN)
			continue;
		if (slot->deadline > now) {
			if (slot->deadline < next)
				next = slot->deadline;
			continue;
		}
		ty_slot_fail(slot, TY_TIMEOUT, slot->phase == TY_SLOT_ATTACHING ?
			"the service did not take the pool's descriptors in time" : "the service did not answer in time");
	}
	return next;
}

/* The slot is free when the callback runs: it may send the next request. */
static void deliver(struct ty_client *c)
{
	struct ty_request_slot *slot = c->ready;
	struct ty_decoded decoded = slot->decoded;
	ty_done_fn done = slot->done;
	void *user = slot->user;

	c->ready = slot->next;
	if (c->ready == NULL)
		c->ready_end = &c->ready;
	/* the text may lie in the struct that was copied */
	if (decoded.result.error == slot->decoded.error.text)
		decoded.result.error = decoded.error.text;
	slot->phase = TY_SLOT_IDLE;
	c->in_use--;
	c->delivering = true;
	done(user, &decoded.result);
	c->delivering = false;
	ty_decoded_free(&decoded);
}

/* ---- poll ------------------------------------------------------------------------------------------------------------ */

void ty_client_signal(struct ty_client *c)
{
	const uint64_t one = 1;
	ssize_t n = write(c->ready_fd, &one, sizeof one);

	(void)n; /* fails only when the counter is full: then it is readable already */
}

void ty_client_wake_at(struct ty_client *c, int64_t when)
{
	struct itimerspec at = {0};
	int rv;

	if (when >= c->timer_at)
		return;
	c->timer_at = when;
	if (when < 1) /* 0 would disarm it */
		when = 1;
	at.it_value.tv_sec = when / 1000000000;
	at.it_value.tv_nsec = when % 1000000000;
	rv = timerfd_settime(c->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
	assert(rv == 0); /* its arguments are fine by construction */
}

static void on_timer(struct ty_client *c)
{
	int64_t now = ty_client_now(), next;
	uint64_t count;
	ssize_t n = read(c->timer_fd, &count, sizeof count);

	(void)n; /* EAGAIN: armed anew since */
	c->timer_at = INT64_MAX;
	ty_link_expire(c, now);
	next = expire_slots(c, now);
	if (ty_link_next(c) < next)
		next = ty_link_next(c);
	if (next != INT64_MAX)
		ty_client_wake_at(c, next);
}

void ty_client_take_events(struct ty_client *c)
{
	struct epoll_event events[4];
	int n = epoll_wait(c->epoll_fd, events, 4, 0), i;
	uint64_t count;

	for (i = 0; i < n; i++)
		if (events[i].data.fd == c->ready_fd)
			(void)!read(c->ready_fd, &count, sizeof count); /* before what signals anew */
	/* attach first: what the service says before it goes explains the other connection's end. The clock last: it may begin an
	 * attempt, whose descriptors may have the numbers of those that have events here. */
	for (i = 0; i < n; i++)
		if (events[i].data.fd == c->attach_fd)
			ty_attach_events(c, events[i].events);
	ty_link_go_on(c);
	for (i = 0; i < n; i++)
		if (events[i].data.fd == c->connection.fd)
			ty_link_events(c, events[i].events);
	for (i = 0; i < n; i++)
		if (events[i].data.fd == c->timer_fd)
			on_timer(c);
	ty_pools_take_back(c);
	ty_attach_replace_left(c);
}

void ty_client_wait(struct ty_client *c, int64_t deadline)
{
	int64_t left = deadline - ty_client_now();
	struct pollfd p = {.fd = c->epoll_fd, .events = POLLIN};
	struct timespec ts = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};

	if (left > 0)
		ppoll(&p, 1, &ts, NULL);
}

/* True: the user heard that the service went away, or came back. */
static bool tell(struct ty_client *c)
{
	bool away = c->tell_away, up = c->tell_up;

	c->tell_away = c->tell_up = false;
	if ((!away && !up) || c->options.changed == NULL)
		return false;
	c->delivering = true;
	if (away)
		c->options.changed(c->options.changed_user, TY_CLIENT_AWAY);
	if (up)
		c->options.changed(c->options.changed_user, TY_CLIENT_UP);
	c->delivering = false;
	return true;
}

uint32_t ty_client_poll(struct ty_client *c, uint32_t max, uint32_t timeout_us)
{
	int64_t deadline = timeout_us == 0 ? 0 : ty_client_now() + (int64_t)timeout_us * 1000;
	uint32_t delivered = 0;

	if (c->delivering)
		return 0; /* called from a callback */
	for (;;) {
		struct ty_request_slot *last;
		bool told;

		ty_client_take_events(c);
		/* what callbacks cause is for the next call: a request that fails at once and is sent again would keep us here */
		last = c->ready == NULL ? NULL : (struct ty_request_slot *)(void *)((char *)c->ready_end -
							 offsetof(struct ty_request_slot, next));
		told = tell(c);
		while (last != NULL && (max == 0 || delivered < max)) {
			bool was_last = c->ready == last;

			deliver(c);
			delivered++;
			if (was_last)
				break;
		}
		if (delivered != 0 || told || timeout_us == 0 || ty_client_now() >= deadline)
			break;
		ty_client_wait(c, deadline);
	}
	if (c->ready != NULL || c->tell_away || c->tell_up) /* ty_client_fd stays readable until all is delivered */
		ty_client_signal(c);
	return delivered;
}

enum ty_code ty_client_set_timeout(struct ty_client *c, uint32_t timeout_us, struct ty_error *err)
{
	if (timeout_us > c->longest_us)
		return ty_fail(err, TY_INVALID, "timeout_us is %u, the service allows at most %u", timeout_us, c->longest_us);
	c->options.timeout_us = timeout_us;
	if (c->link == TY_LINK_UP)
		ty_client_use_timeout(c);
	return TY_OK;
}

int ty_client_fd(const struct ty_client *client)
{
	return client->epoll_fd;
}

const struct ty_client_info *ty_client_info(const struct ty_client *client)
{
	return &client->info;
}

enum ty_client_state ty_client_state(const struct ty_client *client, struct ty_error *why)
{
	if (client->link == TY_LINK_UP)
		return TY_CLIENT_UP;
	if (why != NULL)
		*why = client->why;
	return TY_CLIENT_AWAY;
}

/* ---- the timeline ---------------------------------------------------------------------------------------------------- */

void *ty_client_timeline(struct ty_client *client)
{
	return client->timeline != NULL ? (void *)client->timeline->words : NULL;
}

struct ty_timeline *ty_client_timeline_page(const struct ty_client *client)
{
	return client->timeline;
}

static _Atomic uint64_t *word_of(const struct ty_client *client, uint32_t word)
{
	assert(word < TY_TIMELINE_WORDS);
	assert(client->timeline != NULL);
	return client->timeline->words + word;
}

void ty_client_raise(struct ty_client *client, struct ty_mark mark)
{
	_Atomic uint64_t *word;

	if (mark.word == 0)
		return;
	word = word_of(client, mark.word);
	/* pairs with the owner's acquire load. A word has one writer: this thread, or its stream, by the client's own choice. */
	if (atomic_load_explicit(word, memory_order_relaxed) < mark.value)
		atomic_store_explicit(word, mark.value, memory_order_release);
}

bool ty_client_reached(const struct ty_client *client, struct ty_mark mark)
{
	if (mark.word == 0)
		return true;
	return atomic_load_explicit(word_of(client, mark.word), memory_order_acquire) >= mark.value;
}
