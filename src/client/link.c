/* SPDX-License-Identifier: Apache-2.0
 *
 * The way to the service: attach, dial, greet, HELLO, REGISTER what was registered before. The same way is gone when a client
 * is opened and each time when what it had is lost; an attempt has a deadline, and the pause before the next one is
 * base/reconnect.h's.
 */
#include "client/internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "wire/request.h"

/* ---- the end, and the next attempt ------------------------------------------------------------------------------------ */

static void release(struct ty_client *c, enum ty_code code, const char *text)
{
	ty_fail(&c->why, code, "%s", text);
	ty_connection_close(&c->connection);
	c->more = false;
	ty_attach_close(c);
	ty_slots_end(c, code, c->why.text); /* `text` may lie in what is freed */
	memset(c->numbers, 0, sizeof c->numbers);
	c->left = 0;
}

void ty_link_over(struct ty_client *c, enum ty_code code, const char *text)
{
	if (c->link == TY_LINK_OVER)
		return;
	c->link = TY_LINK_OVER;
	release(c, code, text);
}

void ty_link_lost(struct ty_client *c, enum ty_code code, const char *text)
{
	bool up = c->link == TY_LINK_UP;

	if (!c->opened) {
		ty_link_over(c, code, text);
		return;
	}
	if (c->link == TY_LINK_OVER || c->link == TY_LINK_AWAY)
		return;
	c->link = TY_LINK_AWAY;
	release(c, code, text);
	ty_pools_lost(c);
	if (up) {
		c->tell_away = true;
		c->tell_up = false;
	}
	c->link_at = ty_client_now() + ty_reconnect_pause(&c->reconnect, up, ty_client_now());
	ty_client_wake_at(c, c->link_at);
}

/* ---- attach and dial --------------------------------------------------------------------------------------------------- */

static void again_soon(struct ty_client *c, enum ty_link link)
{
	c->link = link;
	c->link_at = ty_client_now() + TY_CLIENT_BACKLOG_NS;
	ty_client_wake_at(c, c->link_at);
}

static void dial(struct ty_client *c)
{
	int64_t now = ty_client_now();
	struct ty_error err;
	enum ty_code code = ty_connection_dial(&c->connection, &c->address, c->tls, c->epoll_fd, &err);

	c->dial_deadline = c->opened && now + TY_CLIENT_DIAL_NS < c->link_deadline ? now + TY_CLIENT_DIAL_NS : c->link_deadline;
	ty_client_wake_at(c, c->dial_deadline);
	if (code == TY_OK)
		c->link = TY_LINK_DIALING;
	else if (code == TY_BUSY)
		again_soon(c, TY_LINK_DIAL);
	else
		ty_link_lost(c, code, err.text);
}

static void attach(struct ty_client *c)
{
	struct ty_error err;
	enum ty_code code = ty_attach_connect(c, &err);

	if (code == TY_OK)
		c->link = TY_LINK_WELCOME;
	else if (code == TY_BUSY)
		again_soon(c, TY_LINK_ATTACH);
	else
		ty_link_lost(c, code, err.text);
}

void ty_link_begin(struct ty_client *c)
{
	c->link_deadline = ty_client_now() + (int64_t)c->options.connect_timeout_us * 1000;
	ty_client_wake_at(c, c->link_deadline);
	c->link = TY_LINK_ATTACH;
	c->max_request_bytes = TY_REQUEST_DEFAULT_MAX_BYTES; /* the last service's limit is not this one's */
	if (c->options.attach_path != NULL)
		attach(c);
	else
		dial(c);
}

void ty_link_welcome(struct ty_client *c)
{
	assert(c->link == TY_LINK_WELCOME);
	dial(c);
}

/* ---- timeouts ---------------------------------------------------------------------------------------------------------- */

/* What the link itself asks for: the service has as long as we have, however short the user's requests are. */
static void as_long_as_the_link(struct ty_client *c, uint32_t most_us)
{
	int64_t left = (c->link_deadline - ty_client_now()) / 1000;

	left = left < 1000 ? 1000 : left;
	c->timeout_us = left < most_us ? (uint32_t)left : most_us;
	c->patience_us = c->timeout_us;
}

void ty_client_use_timeout(struct ty_client *c)
{
	c->timeout_us = c->options.timeout_us;
	c->patience_us = c->timeout_us != 0 ? c->timeout_us : c->usual_us;
}

/* ---- REGISTER: what this client had before ------------------------------------------------------------------------------ */

static void register_next(struct ty_client *c);

static void on_registered(struct ty_request_slot *slot, const struct ty_decoded *decoded)
{
	struct ty_client *c = slot->client;
	struct ty_kept_pool *kept = slot->pool;
	char text[sizeof c->why.text];

	slot->pool = NULL;
	if (decoded->result.code != TY_OK) {
		snprintf(text, sizeof text, "registering pool %u again: %.180s", kept->handle, decoded->result.error);
		ty_link_lost(c, decoded->result.code, text);
		return;
	}
	kept->number = decoded->result.registered.registration;
	register_next(c);
}

static void up(struct ty_client *c)
{
	ty_client_use_timeout(c);
	c->link = TY_LINK_UP;
	c->reconnect.up_at = ty_client_now();
	c->tell_up = c->opened;
}

static void register_next(struct ty_client *c)
{
	struct ty_kept_pool *kept = c->pools;
	struct ty_request_slot *slot;
	struct ty_error err;
	enum ty_code code;

	while (kept != NULL && kept->number != 0)
		kept = kept->next;
	if (kept == NULL) {
		up(c);
		return;
	}
	c->link = TY_LINK_REGISTER;
	as_long_as_the_link(c, c->longest_us);
	code = ty_slot_take(c, on_registered, &slot, &err);
	if (code == TY_OK)
		code = ty_pool_register(slot, kept, NULL, NULL, &err);
	if (code != TY_OK)
		ty_link_lost(c, code, err.text);
}

/* ---- HELLO (or PING, for a client without attach: is it a Tyer, and which?) ------------------------------------------- */

static enum ty_code take_hello(struct ty_client *c, const struct ty_decoded *decoded, struct ty_error *err)
{
	const Tyer__V1__Reply *reply = decoded->reply;
	const struct ty_client_options *o = &c->options;
	struct ty_device_info *devices;
	enum ty_code code;

	if (decoded->result.code != TY_OK)
		return ty_fail(err, decoded->result.code, "%s", decoded->result.error);
	c->longest_us = UINT32_MAX;
	c->usual_us = TY_CLIENT_TIMEOUT_US;
	if (c->timeline == NULL) {
		c->info.boot = decoded->result.boot;
		return TY_OK;
	}
	if (decoded->result.boot != c->info.boot)
		return ty_fail(err, TY_PROTOCOL, "options.url and options.attach_path are of different services");
	code = ty_hello_decode(reply, &c->info, &devices, err);
	if (code != TY_OK)
		return code;
	ty_client_free_devices(c);
	c->devices = devices;
	c->max_request_bytes = reply->hello->limits->max_request_bytes;
	c->longest_us = reply->hello->limits->max_timeout_us;
	c->usual_us = reply->hello->limits->default_timeout_us;
	if (c->usual_us == 0)
		c->usual_us = c->longest_us;
	if (o->timeout_us > c->longest_us)
		return ty_fail(err, TY_INVALID, "options.timeout_us is %u, the service allows at most %u", o->timeout_us,
			c->longest_us);
	return TY_OK;
}

static void on_hello(struct ty_request_slot *slot, const struct ty_decoded *decoded)
{
	struct ty_client *c = slot->client;
	struct ty_error err;
	enum ty_code code = take_hello(c, decoded, &err);

	if (code != TY_OK)
		ty_link_lost(c, code, err.text);
	else
		register_next(c);
}

/* protobuf-c's structs know no const; packing only reads. */
static char *text_of(const char *text)
{
	return (char *)(uintptr_t)(text != NULL ? text : "");
}

static enum ty_code send_hello(struct ty_client *c, struct ty_error *err)
{
	const struct ty_client_options *o = &c->options;
	Tyer__V1__Namespace space = TYER__V1__NAMESPACE__INIT;
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT;
	Tyer__V1__Hello hello = TYER__V1__HELLO__INIT;
	Tyer__V1__Ping ping = TYER__V1__PING__INIT;
	struct ty_request_slot *slot;
	enum ty_code code;

	space.tenant = text_of(o->tenant);
	space.model = text_of(o->model);
	space.revision = text_of(o->revision);
	space.dtype = text_of(o->dtype);
	space.quantization = text_of(o->quantization);
	hello.token = (ProtobufCBinaryData){.len = sizeof c->token, .data = c->token};
	hello.engine = (ProtobufCBinaryData){.len = sizeof o->engine, .data = (uint8_t *)(uintptr_t)o->engine};
	hello.namespace_ = &space;
	hello.name = text_of(o->name);
	hello.weight = o->weight;
	request.verb_case = TYER__V1__REQUEST__VERB_PING;
	request.ping = &ping;
	if (c->timeline != NULL) {
		request.verb_case = TYER__V1__REQUEST__VERB_HELLO;
		request.hello = &hello;
	}
	as_long_as_the_link(c, UINT32_MAX);
	code = ty_slot_take(c, on_hello, &slot, err);
	return code != TY_OK ? code : ty_slot_submit(slot, &request, NULL, NULL, err);
}

/* ---- events ------------------------------------------------------------------------------------------------------------- */

/* TY_CLIENT_FRAMES_MAX of them: one that never stops to send must not keep the user's thread here. */
static enum ty_code read_some(struct ty_client *c, struct ty_error *err)
{
	const uint8_t *bytes;
	enum ty_code code = TY_OK;
	size_t length;
	uint32_t id;

	c->more = false;
	for (unsigned i = 0; i < TY_CLIENT_FRAMES_MAX; i++) {
		code = ty_connection_take(&c->connection, &id, &bytes, &length, err);
		if (code != TY_OK)
			return code == TY_BUSY ? TY_OK : code;
		if (bytes != NULL)
			ty_slot_reply(c, id, bytes, length);
		else if (c->link == TY_LINK_GREETING) {
			c->link = TY_LINK_HELLO;
			code = send_hello(c, err);
			if (code != TY_OK)
				return code;
		}
		if (c->connection.fd < 0) /* lost, for what the reply said */
			return TY_OK;
	}
	c->more = true; /* what is buffered here the socket does not tell of */
	ty_client_signal(c);
	return TY_OK;
}

void ty_link_go_on(struct ty_client *c)
{
	struct ty_error err;
	enum ty_code code = c->more && c->connection.fd >= 0 ? read_some(c, &err) : TY_OK;

	if (code != TY_OK)
		ty_link_lost(c, code, err.text);
}

void ty_link_events(struct ty_client *c, uint32_t events)
{
	enum ty_code code = TY_OK;
	struct ty_error err;

	if (c->link == TY_LINK_DIALING) {
		code = ty_connection_dialed(&c->connection, &err);
		if (code == TY_BUSY)
			return;
		if (code == TY_OK)
			c->link = TY_LINK_GREETING;
	} else if (events & EPOLLOUT) {
		code = ty_connection_flush(&c->connection, &err);
	}
	if (code == TY_OK && (events & ~(uint32_t)EPOLLOUT))
		code = read_some(c, &err);
	if (code != TY_OK)
		ty_link_lost(c, code, err.text);
}

/* ---- the clock ----------------------------------------------------------------------------------------------------------- */

int64_t ty_link_next(const struct ty_client *c)
{
	switch (c->link) {
	case TY_LINK_AWAY:
	case TY_LINK_ATTACH:
	case TY_LINK_DIAL:
		return c->link_at;
	case TY_LINK_DIALING:
	case TY_LINK_GREETING:
		return c->dial_deadline;
	case TY_LINK_WELCOME:
	case TY_LINK_HELLO:
	case TY_LINK_REGISTER:
		return c->link_deadline;
	default:
		return INT64_MAX;
	}
}

/* The attempt, or its dial, has taken too long: where is it? */
static void too_late(struct ty_client *c)
{
	const struct ty_client_options *o = &c->options;
	enum ty_code code = TY_TIMEOUT;
	struct ty_error err;

	switch (c->link) {
	case TY_LINK_ATTACH:
		ty_fail(&err, code, "the attach socket %s accepts nobody in connect_timeout_us", o->attach_path);
		break;
	case TY_LINK_WELCOME:
		ty_fail(&err, code, "no greeting from the attach socket %s in connect_timeout_us", o->attach_path);
		break;
	case TY_LINK_DIALING:
		if (c->connection.connected)
			code = ty_fail(&err, TY_TIMEOUT, "%s accepts connections, but the TLS handshake did not end in connect_timeout_us", o->url);
		else
			ty_fail(&err, code, "connecting to %s took longer than connect_timeout_us", o->url);
		break;
	case TY_LINK_GREETING:
		code = ty_fail(&err, TY_PROTOCOL,
			"%s accepts connections, but does not answer as nng's REP protocol does in connect_timeout_us", o->url);
		break;
	case TY_LINK_HELLO:
		ty_fail(&err, code, "the service did not answer HELLO in connect_timeout_us");
		break;
	case TY_LINK_REGISTER:
		ty_fail(&err, code, "the service did not register all pools again in connect_timeout_us");
		break;
	default:
		ty_fail(&err, code, "connecting to %s took longer than connect_timeout_us", o->url);
		break;
	}
	ty_link_lost(c, code, err.text);
}

void ty_link_expire(struct ty_client *c, int64_t now)
{
	if (now < ty_link_next(c))
		return;
	if (c->link == TY_LINK_AWAY)
		ty_link_begin(c);
	else if ((c->link == TY_LINK_ATTACH || c->link == TY_LINK_DIAL) && now < c->link_deadline)
		c->link == TY_LINK_ATTACH ? attach(c) : dial(c);
	else
		too_late(c);
}
