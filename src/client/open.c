/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of a client: attach, dial, HELLO; and the end.
 */
#include "client/internal.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "wire/request.h"

bool ty_client_wait(int fd, short events, int64_t deadline)
{
	struct pollfd pfd = {.fd = fd, .events = events};

	for (;;) {
		int64_t left = deadline - ty_client_now();
		struct timespec ts = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
		int n;

		if (left < 0)
			ts = (struct timespec){0};
		n = ppoll(&pfd, 1, &ts, NULL);
		if (n > 0)
			return true;
		if (n == 0 || errno != EINTR)
			return false;
	}
}

/* ---- options --------------------------------------------------------------------------------------------------------- */

static enum ty_code read_options(const struct ty_client_options *in, struct ty_client_options *o, struct ty_error *err)
{
	size_t i;

	if (in == NULL)
		return ty_fail(err, TY_INVALID, "options is null");
	if (in->size < sizeof *o)
		return ty_fail(err, TY_INVALID, "options.size is %zu, expected %zu", in->size, sizeof *o);
	for (i = sizeof *o; i < in->size; i++)
		if (((const unsigned char *)in)[i] != 0)
			return ty_fail(err, TY_UNSUPPORTED, "options.size is %zu and byte %zu is set: this library knows %zu bytes",
				in->size, i, sizeof *o);
	*o = *in;
	if (o->url == NULL || o->url[0] == '\0')
		return ty_fail(err, TY_INVALID, "options.url is absent");
	if (o->max_requests > TY_CLIENT_REQUESTS_MAX)
		return ty_fail(err, TY_INVALID, "options.max_requests is %u, expected 1..%d", o->max_requests,
			TY_CLIENT_REQUESTS_MAX);
	if (o->max_requests == 0)
		o->max_requests = TY_CLIENT_REQUESTS_DEFAULT;
	if (o->connect_timeout_us == 0)
		o->connect_timeout_us = TY_CLIENT_CONNECT_US;
	return ty_wire_check_text("options.name", o->name, 0, 64, err);
}

static bool all_zero(const uint8_t *bytes, size_t length)
{
	size_t i;

	for (i = 0; i < length; i++)
		if (bytes[i] != 0)
			return false;
	return true;
}

/* ---- HELLO (or PING, for a client without attach: is it a Tyer, and which?) ------------------------------------------- */

struct greeting {
	struct ty_client *client;
	bool over;
	enum ty_code code;
	struct ty_error error;
};

static void on_greeting(void *user, const struct ty_result *result)
{
	struct greeting *g = user;
	struct ty_client *c = g->client;
	const Tyer__V1__Reply *reply = c->delivering->reply;

	g->over = true;
	g->code = result->code;
	if (result->code != TY_OK) {
		ty_fail(&g->error, result->code, "%s", result->error);
		return;
	}
	if (c->timeline == NULL) {
		c->info.boot = result->boot;
		return;
	}
	if (result->boot != c->info.boot) {
		g->code = ty_fail(&g->error, TY_PROTOCOL, "options.url and options.attach_path are of different services");
		return;
	}
	g->code = ty_hello_decode(reply, &c->info, &c->devices, &g->error);
	if (g->code == TY_OK) {
		c->max_request_bytes = reply->hello->limits->max_request_bytes;
		c->patience_us = reply->hello->limits->max_timeout_us;
	}
}

static enum ty_code send_hello(struct ty_client *c, const struct ty_client_options *o, struct greeting *g,
	struct ty_error *err)
{
	Tyer__V1__Namespace space = TYER__V1__NAMESPACE__INIT;
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT;
	Tyer__V1__Hello hello = TYER__V1__HELLO__INIT;
	struct ty_request_slot *slot;
	uint8_t engine[sizeof o->engine];
	enum ty_code code;

	memcpy(engine, o->engine, sizeof engine);
	/* 16 bytes of the kernel's pool come whole */
	if (all_zero(engine, sizeof engine) && getrandom(engine, sizeof engine, 0) != (ssize_t)sizeof engine)
		return ty_fail(err, TY_IO, "getrandom: %s", strerror(errno));
	/* protobuf-c's structs know no const; packing only reads */
	space.tenant = (char *)(uintptr_t)(o->tenant != NULL ? o->tenant : "");
	space.model = (char *)(uintptr_t)(o->model != NULL ? o->model : "");
	space.revision = (char *)(uintptr_t)(o->revision != NULL ? o->revision : "");
	space.dtype = (char *)(uintptr_t)(o->dtype != NULL ? o->dtype : "");
	space.quantization = (char *)(uintptr_t)(o->quantization != NULL ? o->quantization : "");
	hello.token = (ProtobufCBinaryData){.len = sizeof c->token, .data = c->token};
	hello.engine = (ProtobufCBinaryData){.len = sizeof engine, .data = engine};
	hello.namespace_ = &space;
	hello.name = (char *)(uintptr_t)(o->name != NULL ? o->name : "");
	if (c->timeline != NULL) {
		request.verb_case = TYER__V1__REQUEST__VERB_HELLO;
		request.hello = &hello;
	} else {
		static Tyer__V1__Ping ping = TYER__V1__PING__INIT;

		request.verb_case = TYER__V1__REQUEST__VERB_PING;
		request.ping = &ping;
	}
	code = ty_slot_take(c, &slot, err);
	return code != TY_OK ? code : ty_slot_submit(slot, &request, on_greeting, g, err);
}

static enum ty_code greet(struct ty_client *c, const struct ty_client_options *o, int64_t deadline, struct ty_error *err)
{
	struct greeting g = {.client = c};
	int64_t left = (deadline - ty_client_now()) / 1000;
	enum ty_code code;

	/* the service has as long as we have */
	c->patience_us = left < 1000 ? 1000 : (uint32_t)left;
	c->timeout_us = c->patience_us;
	code = send_hello(c, o, &g, err);
	if (code != TY_OK)
		return code;
	while (!g.over) {
		left = (deadline - ty_client_now()) / 1000;
		/* a request that is over in ty_client_close calls on_greeting too: `g` must live until then, so it ends here */
		if (left <= 0)
			ty_client_end(c, TY_TIMEOUT, "the service did not answer HELLO in connect_timeout_us");
		ty_client_poll(c, 1, left <= 0 ? 0 : (uint32_t)left);
	}
	if (g.code != TY_OK)
		return ty_fail(err, g.code, "%s", g.error.text);
	c->timeout_us = o->timeout_us;
	if (c->timeline != NULL && o->timeout_us > c->patience_us)
		return ty_fail(err, TY_INVALID, "options.timeout_us is %u, the service allows at most %u", o->timeout_us,
			c->patience_us);
	if (o->timeout_us != 0)
		c->patience_us = o->timeout_us;
	else if (c->timeline == NULL)
		c->patience_us = TY_CLIENT_TIMEOUT_US;
	return TY_OK;
}

/* ---- nng's callback -------------------------------------------------------------------------------------------------- */

/* One of nng's threads; one at a time for a slot. */
static void on_aio(void *arg)
{
	struct ty_request_slot *slot = arg;

	slot->nng_result = nng_aio_result(slot->aio);
	if (slot->sent) {
		slot->reply = slot->nng_result == 0 ? nng_aio_get_msg(slot->aio) : NULL;
	} else if (slot->nng_result == 0) {
		int64_t left = slot->deadline - ty_client_now();

		slot->sent = true;
		nng_aio_set_timeout(slot->aio, left <= 0 ? 1 : (nng_duration)((left + 999999) / 1000000));
		nng_ctx_recv(slot->ctx, slot->aio);
		return;
	} else {
		nng_msg *msg = nng_aio_get_msg(slot->aio);

		if (msg != NULL) /* not sent: still ours */
			nng_msg_free(msg);
		nng_aio_set_msg(slot->aio, NULL);
	}
	ty_completions_push(&slot->client->completions, &slot->completion);
}

static enum ty_code make_slots(struct ty_client *c, uint32_t count, struct ty_error *err)
{
	uint32_t i;
	int rv = 0;

	c->slots = calloc(count, sizeof *c->slots);
	if (c->slots == NULL)
		return ty_fail(err, TY_NO_MEMORY, "no memory for %u requests", count);
	for (i = 0; i < count; i++) {
		struct ty_request_slot *slot = &c->slots[i];

		slot->client = c;
		rv = nng_aio_alloc(&slot->aio, on_aio, slot);
		if (rv == 0)
			rv = nng_ctx_open(&slot->ctx, c->socket);
		if (rv != 0) {
			if (slot->aio != NULL)
				nng_aio_free(slot->aio);
			return ty_fail(err, TY_NO_MEMORY, "nng: %s", nng_strerror(rv));
		}
		c->slot_count++;
	}
	return TY_OK;
}

/* ---- open, close ----------------------------------------------------------------------------------------------------- */

static enum ty_code make_waiting(struct ty_client *c, struct ty_error *err)
{
	struct epoll_event event = {.events = EPOLLIN};

	c->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	c->completions.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	event.data.fd = c->completions.event_fd;
	if (c->epoll_fd < 0 || c->completions.event_fd < 0 ||
		epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, c->completions.event_fd, &event) != 0)
		return ty_fail(err, TY_IO, "epoll and eventfd: %s", strerror(errno));
	return TY_OK;
}

static void destroy(struct ty_client *c)
{
	struct ty_completion *at;
	uint32_t i;

	if (c->socket_open && !ty_client_close_socket(c->socket)) {
		/* nng may call back into c for ever: c stays, what the service holds for it goes */
		if (c->attach_fd >= 0)
			close(c->attach_fd);
		return;
	}
	for (i = 0; i < c->slot_count; i++)
		nng_aio_stop(c->slots[i].aio); /* after these no callback runs */
	if (c->completions.event_fd >= 0) {
		for (at = ty_completions_take(&c->completions); at != NULL; at = at->next) {
			struct ty_request_slot *slot =
				(struct ty_request_slot *)(void *)((char *)at - offsetof(struct ty_request_slot, completion));

			if (slot->reply != NULL)
				nng_msg_free(slot->reply);
		}
	}
	for (i = 0; i < c->slot_count; i++)
		nng_aio_free(c->slots[i].aio);
	if (c->attach_fd >= 0)
		close(c->attach_fd);
	if (c->timer_fd >= 0)
		close(c->timer_fd);
	if (c->epoll_fd >= 0)
		close(c->epoll_fd);
	if (c->completions.event_fd >= 0)
		close(c->completions.event_fd);
	ty_attach_timeline_unmap(c->timeline);
	free(c->slots);
	free(c->devices);
	free(c);
}

enum ty_code ty_client_open(const struct ty_client_options *options, struct ty_client **out, struct ty_error *err)
{
	struct ty_client_options o = {0};
	struct ty_client *c;
	enum ty_code code;
	int64_t deadline;

	*out = NULL;
	code = read_options(options, &o, err);
	if (code != TY_OK)
		return code;
	deadline = ty_client_now() + (int64_t)o.connect_timeout_us * 1000;
	c = calloc(1, sizeof *c);
	if (c == NULL)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a client");
	c->epoll_fd = c->timer_fd = c->attach_fd = c->completions.event_fd = -1;
	c->ready_end = &c->ready;
	c->next_id = 1;
	c->max_request_bytes = TY_REQUEST_DEFAULT_MAX_BYTES;
	code = make_waiting(c, err);
	if (code == TY_OK && o.attach_path != NULL)
		code = ty_client_attach(c, o.attach_path, deadline, err);
	if (code == TY_OK)
		code = ty_client_dial(c, o.url, deadline, err);
	if (code == TY_OK)
		code = make_slots(c, o.max_requests, err);
	if (code == TY_OK)
		code = greet(c, &o, deadline, err);
	if (code != TY_OK) {
		destroy(c);
		return code;
	}
	*out = c;
	return TY_OK;
}

void ty_client_close(struct ty_client *c)
{
	if (c == NULL)
		return;
	assert(c->delivering == NULL); /* not from a callback */
	ty_client_end(c, TY_CANCELLED, "the client was closed");
	while (c->in_use != 0)
		ty_client_poll(c, 0, 0); /* all are finished, so every turn delivers */
	destroy(c);
}
