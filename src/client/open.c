/* SPDX-License-Identifier: Apache-2.0
 *
 * A client's beginning and its end.
 */
#include "client/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/options.h"
#include "wire/request.h"

/* ---- options --------------------------------------------------------------------------------------------------------- */

static enum ty_code read_options(const struct ty_client_options *in, struct ty_client_options *o, struct ty_error *err)
{
	static const struct ty_client_options none = {.size = sizeof none};
	const struct ty_client_options *taken;
	struct ty_error why;

	if (in == NULL)
		return ty_fail(err, TY_INVALID, "options is null");
	taken = ty_options_take(in, sizeof *o, &none, o, &why);
	if (taken == NULL)
		return ty_fail(err, why.code, "%s", why.text);
	if (taken != o)
		*o = *taken;
	if (o->url == NULL || o->url[0] == '\0')
		return ty_fail(err, TY_INVALID, "options.url is absent");
	if (o->attach_path != NULL && strlen(o->attach_path) >= sizeof((struct sockaddr_un *)0)->sun_path)
		return ty_fail(err, TY_INVALID, "options.attach_path is %zu bytes long, expected at most %zu",
			strlen(o->attach_path), sizeof((struct sockaddr_un *)0)->sun_path - 1);
	if (o->max_requests > TY_CLIENT_REQUESTS_MAX)
		return ty_fail(err, TY_INVALID, "options.max_requests is %u, expected 1..%d", o->max_requests,
			TY_CLIENT_REQUESTS_MAX);
	if (o->max_requests == 0)
		o->max_requests = TY_CLIENT_REQUESTS_DEFAULT;
	if (o->connect_timeout_us == 0)
		o->connect_timeout_us = TY_CLIENT_CONNECT_US;
	return ty_wire_check_text("options.name", o->name, 0, 64, err);
}

/* The strings of the options, each of which may be null. */
#define STRINGS(o) {&(o)->url, &(o)->attach_path, &(o)->name, &(o)->tenant, &(o)->model, &(o)->revision, &(o)->dtype, \
	&(o)->quantization, &(o)->tls_ca, &(o)->tls_cert, &(o)->tls_name}
#define STRING_COUNT 11

/* The user's may be gone when the client connects again. */
static enum ty_code keep_options(struct ty_client *c, const struct ty_client_options *o, struct ty_error *err)
{
	static const uint8_t none[sizeof o->engine];
	const char **strings[STRING_COUNT] = STRINGS(&c->options), *theirs[STRING_COUNT];
	size_t i;

	c->options = *o;
	for (i = 0; i < STRING_COUNT; i++) {
		theirs[i] = *strings[i];
		*strings[i] = NULL;
	}
	for (i = 0; i < STRING_COUNT; i++)
		if (theirs[i] != NULL && (*strings[i] = strdup(theirs[i])) == NULL)
			return ty_fail(err, TY_NO_MEMORY, "no memory for the options");
	/* Few bytes of the kernel's pool come whole. Ids of requests begin anywhere: those of an engine's processes are told apart
	 * by them (OPERATIONS). */
	if ((memcmp(o->engine, none, sizeof none) == 0 &&
		getrandom(c->options.engine, sizeof c->options.engine, 0) != (ssize_t)sizeof c->options.engine) ||
		getrandom(&c->next_id, sizeof c->next_id, 0) != (ssize_t)sizeof c->next_id)
		return ty_fail(err, TY_IO, "getrandom: %s", strerror(errno));
	c->reconnect.jitter = c->next_id;
	return ty_address_parse(c->options.url, &c->address, err);
}

static enum ty_code open_tls(struct ty_client *c, struct ty_error *err)
{
	const struct ty_client_options *o = &c->options;

	if (!c->address.secure) {
		if (o->tls_ca != NULL || o->tls_cert != NULL || o->tls_name != NULL)
			return ty_fail(err, TY_INVALID, "options.tls_ca, tls_cert and tls_name are for tls+tcp:// only, options.url is \"%s\"", o->url);
		return TY_OK;
	}
	if (o->tls_ca == NULL)
		return ty_fail(err, TY_INVALID, "options.tls_ca is absent: who signed the certificate of %s?", o->url);
	return ty_tls_open(o->tls_ca, o->tls_cert, o->tls_name != NULL ? o->tls_name : c->address.host, &c->tls, err);
}

static void free_options(struct ty_client *c)
{
	const char **strings[STRING_COUNT] = STRINGS(&c->options);

	for (size_t i = 0; i < STRING_COUNT; i++)
		free((void *)(uintptr_t)*strings[i]);
}

void ty_client_free_devices(struct ty_client *c)
{
	free(c->devices);
	c->devices = NULL;
}

/* ---- open, close ----------------------------------------------------------------------------------------------------- */

static enum ty_code make_slots(struct ty_client *c, struct ty_error *err)
{
	uint32_t i;

	c->slots = calloc(c->options.max_requests + 1, sizeof *c->slots);
	if (c->slots == NULL)
		return ty_fail(err, TY_NO_MEMORY, "no memory for %u requests", c->options.max_requests);
	c->slot_count = c->options.max_requests;
	for (i = 0; i <= c->slot_count; i++) {
		c->slots[i].client = c;
		c->slots[i].index = i;
	}
	return TY_OK;
}

static enum ty_code make_waiting(struct ty_client *c, struct ty_error *err)
{
	struct epoll_event timer = {.events = EPOLLIN}, ready = {.events = EPOLLIN};

	c->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	c->ready_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	timer.data.fd = c->timer_fd;
	ready.data.fd = c->ready_fd;
	if (c->epoll_fd < 0 || c->ready_fd < 0 || c->timer_fd < 0 ||
		epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, c->timer_fd, &timer) != 0 ||
		epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, c->ready_fd, &ready) != 0)
		return ty_fail(err, TY_IO, "epoll, timerfd and eventfd: %s", strerror(errno));
	return TY_OK;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

static void destroy(struct ty_client *c)
{
	assert(c->in_use == 0);
	ty_connection_close(&c->connection);
	ty_tls_close(c->tls);
	ty_attach_close(c);
	while (c->pools != NULL)
		ty_pool_forget(c, c->pools);
	close_fd(c->timer_fd);
	close_fd(c->ready_fd);
	close_fd(c->epoll_fd);
	close_fd(c->timeline_fd);
	ty_timeline_unref(c->timeline);
	ty_client_free_devices(c);
	free_options(c);
	free(c->slots);
	free(c);
}

static struct ty_client *new_client(void)
{
	struct ty_client *c = calloc(1, sizeof *c);

	if (c == NULL)
		return NULL;
	c->epoll_fd = c->timer_fd = c->ready_fd = c->attach_fd = c->timeline_fd = c->connection.fd = -1;
	c->connection.out_end = &c->connection.out;
	c->ready_end = &c->ready;
	c->timer_at = INT64_MAX;
	c->max_request_bytes = TY_REQUEST_DEFAULT_MAX_BYTES;
	return c;
}

enum ty_code ty_client_open(const struct ty_client_options *options, struct ty_client **out, struct ty_error *err)
{
	struct ty_client_options o = {0};
	struct ty_client *c;
	enum ty_code code;

	*out = NULL;
	code = read_options(options, &o, err);
	if (code != TY_OK)
		return code;
	c = new_client();
	if (c == NULL)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a client");
	code = keep_options(c, &o, err);
	if (code == TY_OK)
		code = open_tls(c, err);
	if (code == TY_OK)
		code = make_waiting(c, err);
	if (code == TY_OK)
		code = make_slots(c, err);
	if (code == TY_OK) {
		ty_link_begin(c);
		while (c->link != TY_LINK_UP && c->link != TY_LINK_OVER) {
			ty_client_wait(c, c->link_deadline); /* the timer ends it */
			ty_client_take_events(c);
		}
		if (c->link == TY_LINK_OVER)
			code = ty_fail(err, c->why.code, "%s", c->why.text);
	}
	if (code != TY_OK) {
		destroy(c);
		return code;
	}
	c->opened = true;
	*out = c;
	return TY_OK;
}

void ty_client_forked(struct ty_client *c)
{
	if (c == NULL)
		return;
	assert(!c->delivering);
	/* First and by themselves: TLS would say goodbye, in the parent's name; and the epoll set is the parent's, too. */
	close_fd(c->connection.fd);
	close_fd(c->attach_fd);
	c->connection.fd = c->attach_fd = -1;
	for (uint32_t i = 0; i <= c->slot_count; i++) {
		struct ty_request_slot *slot = &c->slots[i];

		ty_attaching_free(c, slot->attaching, true);
		free(slot->request);
		if (slot->phase == TY_SLOT_FINISHED)
			ty_decoded_free(&slot->decoded);
	}
	c->in_use = 0;
	destroy(c);
}

void ty_client_close(struct ty_client *c)
{
	if (c == NULL)
		return;
	assert(!c->delivering); /* not from a callback */
	c->options.changed = NULL;
	ty_link_over(c, TY_CANCELLED, "the client was closed");
	while (c->in_use != 0)
		ty_client_poll(c, 0, 0); /* all are finished, so every turn delivers */
	destroy(c);
}
