/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests in flight, and their completions.
 */
#include "client/internal.h"

#include <assert.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "wire/request.h"

int64_t ty_client_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* ---- sending --------------------------------------------------------------------------------------------------------- */

enum ty_code ty_slot_take(struct ty_client *c, struct ty_request_slot **out, struct ty_error *err)
{
	uint32_t i;

	*out = NULL;
	if (c->over)
		return ty_fail(err, c->over_error.code, "%s", c->over_error.text);
	for (i = 0; i < c->slot_count; i++) {
		struct ty_request_slot *slot = &c->slots[i];

		if (slot->phase == TY_SLOT_IDLE && !slot->on_wire) {
			*out = slot;
			return TY_OK;
		}
	}
	return ty_fail(err, TY_BUSY, "max_requests: %u requests are in flight", c->slot_count);
}

/* Milliseconds until `deadline`, for nng: at least 1. */
static nng_duration remaining_ms(int64_t deadline)
{
	int64_t left = deadline - ty_client_now();

	return left <= 0 ? 1 : (nng_duration)((left + 999999) / 1000000);
}

void ty_slot_send(struct ty_request_slot *slot, nng_msg *msg)
{
	slot->phase = TY_SLOT_OPEN;
	slot->on_wire = true;
	slot->sent = false;
	slot->reply = NULL;
	nng_aio_set_msg(slot->aio, msg);
	nng_aio_set_timeout(slot->aio, remaining_ms(slot->deadline));
	nng_ctx_send(slot->ctx, slot->aio); /* from here on the slot's lower half is the callback's */
}

enum ty_code ty_slot_submit(struct ty_request_slot *slot, Tyer__V1__Request *request, ty_done_fn done, void *user,
	struct ty_error *err)
{
	struct ty_client *c = slot->client;
	bool anonymous = request->verb_case == TYER__V1__REQUEST__VERB_PING ||
			 request->verb_case == TYER__V1__REQUEST__VERB_STATUS ||
			 request->verb_case == TYER__V1__REQUEST__VERB_HELLO;
	size_t bytes;
	nng_msg *msg;

	assert(slot->phase == TY_SLOT_IDLE && !slot->on_wire);
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
	if (nng_msg_alloc(&msg, bytes) != 0)
		return ty_fail(err, TY_NO_MEMORY, "%s: no memory for %zu bytes", ty_verb_name(request->verb_case), bytes);
	tyer__v1__request__pack(request, nng_msg_body(msg));
	slot->verb = request->verb_case;
	slot->id = c->next_id++;
	slot->done = done;
	slot->user = user;
	slot->deadline = ty_client_now() + ((int64_t)c->patience_us + TY_CLIENT_MARGIN_US) * 1000;
	c->in_use++;
	if (slot->attaching == NULL) {
		ty_slot_send(slot, msg);
		return TY_OK;
	}
	slot->phase = TY_SLOT_ATTACHING;
	slot->request = msg;
	ty_attaching_begin(slot);
	if (c->ready != NULL) /* it failed at once: that is delivered like any other result */
		ty_completions_signal(&c->completions);
	return TY_OK;
}

/* ---- ending ---------------------------------------------------------------------------------------------------------- */

static void finish(struct ty_request_slot *slot)
{
	struct ty_client *c = slot->client;

	slot->phase = TY_SLOT_FINISHED;
	slot->next = NULL;
	*c->ready_end = slot;
	c->ready_end = &slot->next;
	ty_attaching_free(c, slot->attaching);
	slot->attaching = NULL;
	if (slot->request != NULL)
		nng_msg_free(slot->request);
	slot->request = NULL;
}

void ty_slot_fail(struct ty_request_slot *slot, enum ty_code code, const char *text)
{
	assert(slot->phase == TY_SLOT_ATTACHING || slot->phase == TY_SLOT_OPEN);
	ty_reply_failed(slot->verb, code, text, &slot->decoded);
	finish(slot);
}

void ty_client_end(struct ty_client *c, enum ty_code code, const char *text)
{
	uint32_t i;

	if (c->over)
		return;
	c->over = true;
	ty_fail(&c->over_error, code, "%s", text);
	/* nng may still have the aios: what comes of them is dropped when it comes */
	for (i = 0; i < c->slot_count; i++)
		if (c->slots[i].phase == TY_SLOT_ATTACHING || c->slots[i].phase == TY_SLOT_OPEN)
			ty_slot_fail(&c->slots[i], code, text);
}

static void finish_from_wire(struct ty_request_slot *slot)
{
	switch (slot->nng_result) {
	case 0:
		ty_reply_decode(slot->verb, slot->id, nng_msg_body(slot->reply), nng_msg_len(slot->reply), &slot->decoded);
		break;
	case NNG_ETIMEDOUT:
		ty_reply_failed(slot->verb, TY_TIMEOUT,
			slot->sent ? "the service did not answer in time" : "no connection to the service in time",
			&slot->decoded);
		break;
	case NNG_ECONNRESET:
	case NNG_ECLOSED:
	case NNG_ECANCELED:
		ty_reply_failed(slot->verb, TY_CLOSED, "the connection to the service ended before the answer", &slot->decoded);
		break;
	case NNG_ENOMEM:
		ty_reply_failed(slot->verb, TY_NO_MEMORY, "nng: out of memory", &slot->decoded);
		break;
	default:
		ty_reply_failed(slot->verb, TY_IO, nng_strerror(slot->nng_result), &slot->decoded);
		break;
	}
	finish(slot);
}

/* What nng's threads have finished since the last time, into the ready list. */
static void collect(struct ty_client *c)
{
	struct ty_completion *at = ty_completions_take(&c->completions);

	while (at != NULL) {
		struct ty_request_slot *slot =
			(struct ty_request_slot *)(void *)((char *)at - offsetof(struct ty_request_slot, completion));

		at = at->next;
		assert(slot->on_wire);
		slot->on_wire = false;
		if (slot->phase == TY_SLOT_OPEN)
			finish_from_wire(slot);
		/* else it has its result already: ty_client_end */
		if (slot->reply != NULL)
			nng_msg_free(slot->reply);
		slot->reply = NULL;
	}
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
	c->delivering = &decoded;
	done(user, &decoded.result);
	c->delivering = NULL;
	ty_decoded_free(&decoded);
}

/* ---- poll ------------------------------------------------------------------------------------------------------------ */

static void take_events(struct ty_client *c)
{
	struct epoll_event events[3];
	int n = epoll_wait(c->epoll_fd, events, 3, 0), i;

	for (i = 0; i < n; i++) {
		if (events[i].data.fd == c->attach_fd)
			ty_attach_events(c, events[i].events);
		else if (events[i].data.fd == c->timer_fd)
			ty_attach_expire(c);
	}
	collect(c);
}

uint32_t ty_client_poll(struct ty_client *c, uint32_t max, uint32_t timeout_us)
{
	int64_t deadline = timeout_us == 0 ? 0 : ty_client_now() + (int64_t)timeout_us * 1000;
	uint32_t delivered = 0;

	if (c->delivering != NULL)
		return 0; /* called from a callback */
	for (;;) {
		struct ty_request_slot *last;

		take_events(c);
		/* what callbacks cause is for the next call: a request that fails at once and is sent again would keep us here */
		last = c->ready == NULL ? NULL : (struct ty_request_slot *)(void *)((char *)c->ready_end -
							 offsetof(struct ty_request_slot, next));
		while (last != NULL && (max == 0 || delivered < max)) {
			bool was_last = c->ready == last;

			deliver(c);
			delivered++;
			if (was_last)
				break;
		}
		if (delivered != 0 || timeout_us == 0 || ty_client_now() >= deadline)
			break;
		ty_client_wait(c->epoll_fd, POLLIN, deadline);
	}
	if (c->ready != NULL) /* ty_client_fd stays readable until all is delivered */
		ty_completions_signal(&c->completions);
	return delivered;
}

int ty_client_fd(const struct ty_client *client)
{
	return client->epoll_fd;
}

const struct ty_client_info *ty_client_info(const struct ty_client *client)
{
	return &client->info;
}

/* ---- the timeline ---------------------------------------------------------------------------------------------------- */

void *ty_client_timeline(struct ty_client *client)
{
	return client->timeline;
}

static _Atomic uint64_t *word_of(const struct ty_client *client, uint32_t word)
{
	assert(word < TY_TIMELINE_WORDS);
	assert(client->timeline != NULL);
	return (_Atomic uint64_t *)client->timeline + word;
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
