/* SPDX-License-Identifier: Apache-2.0
 *
 * The nng connection. nng's own dialing waits as long as the system does, so it dials in the background, and a connection that is
 * not there soon is asked about by a dial of our own that has a deadline and exchanges greetings: to say which error it is.
 */
#include "client/internal.h"

#include <poll.h>
#include <string.h>

#include <nng/protocol/reqrep0/req.h>

#include "wire/request.h"

#define GRACE_NS 100000000 /* for the background dial, before we ask why */

/* nng's threads. */
static void on_pipe(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
	struct ty_client *c = arg;

	(void)pipe;
	(void)event;
	atomic_fetch_add_explicit(&c->pipes, 1, memory_order_release);
	ty_completions_signal(&c->completions);
}

static void set_deadline(nng_aio *aio, int64_t deadline)
{
	int64_t left = deadline - ty_client_now();

	nng_aio_set_timeout(aio, left <= 0 ? 1 : (nng_duration)(left / 1000000 + 1));
}

/* All of `bytes` over the stream, one way or the other; nng's error. */
static int transfer(nng_stream *stream, nng_aio *aio, void (*post)(nng_stream *, nng_aio *), uint8_t *bytes, size_t length,
	int64_t deadline)
{
	while (length > 0) {
		nng_iov iov = {.iov_buf = bytes, .iov_len = length};
		int rv = nng_aio_set_iov(aio, 1, &iov);

		if (rv != 0)
			return rv;
		set_deadline(aio, deadline);
		post(stream, aio);
		nng_aio_wait(aio);
		rv = nng_aio_result(aio);
		if (rv != 0)
			return rv;
		bytes += nng_aio_count(aio);
		length -= nng_aio_count(aio);
	}
	return 0;
}

/* Greet as a REQ socket does. A connection that ends before its greetings ends the listener of an nng of that age for good
 * (docs/wire.md), so a question that is asked is asked to the end. */
static enum ty_code greet(nng_stream *stream, nng_aio *aio, const char *url, int64_t deadline, struct ty_error *err)
{
	static const uint8_t rep[8] = {0, 'S', 'P', 0, 0, 0x31, 0, 0};
	uint8_t ours[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0}, theirs[8];
	int rv = transfer(stream, aio, nng_stream_send, ours, sizeof ours, deadline);

	if (rv == 0)
		rv = transfer(stream, aio, nng_stream_recv, theirs, sizeof theirs, deadline);
	if (rv == NNG_ENOMEM)
		return ty_fail(err, TY_NO_MEMORY, "connecting to %s: out of memory", url);
	if (rv != 0)
		return ty_fail(err, TY_PROTOCOL, "%s accepts connections, but does not answer as nng's REP protocol does: %s",
			url, nng_strerror(rv));
	if (memcmp(theirs, rep, sizeof rep) != 0)
		return ty_fail(err, TY_PROTOCOL, "%s does not answer as nng's REP protocol does, but with "
			"%02x %02x %02x %02x %02x %02x %02x %02x", url, theirs[0], theirs[1], theirs[2], theirs[3], theirs[4],
			theirs[5], theirs[6], theirs[7]);
	return TY_OK;
}

static enum ty_code dial_failure(int rv, const char *url, struct ty_error *err)
{
	switch (rv) {
	case NNG_EAGAIN: /* more clients than it has accepted yet: there is somebody */
		return TY_OK;
	case NNG_ECONNREFUSED:
	case NNG_ENOENT:
		return ty_fail(err, TY_CLOSED, "nobody listens at %s", url);
	case NNG_ETIMEDOUT:
		return ty_fail(err, TY_TIMEOUT, "connecting to %s took longer than connect_timeout_us", url);
	case NNG_EPERM:
		return ty_fail(err, TY_DENIED, "connecting to %s is not permitted", url);
	case NNG_ENOMEM:
		return ty_fail(err, TY_NO_MEMORY, "connecting to %s: out of memory", url);
	default:
		return ty_fail(err, TY_IO, "connecting to %s: %s", url, nng_strerror(rv));
	}
}

/* Who is there? TY_OK: a REP socket, so nng's own dialing will end; or why it will not. */
static enum ty_code ask(const char *url, int64_t deadline, struct ty_error *err)
{
	nng_stream_dialer *dialer = NULL;
	nng_stream *stream = NULL;
	nng_aio *aio = NULL;
	enum ty_code code;
	int rv = nng_stream_dialer_alloc(&dialer, url);

	if (rv == NNG_ENOTSUP)
		return TY_OK; /* a transport without streams (inproc): nothing more is known */
	if (rv == 0)
		rv = nng_aio_alloc(&aio, NULL, NULL);
	if (rv == 0) {
		set_deadline(aio, deadline);
		nng_stream_dialer_dial(dialer, aio);
		nng_aio_wait(aio);
		rv = nng_aio_result(aio);
		stream = rv == 0 ? nng_aio_get_output(aio, 0) : NULL;
	}
	code = stream != NULL ? greet(stream, aio, url, deadline, err) : dial_failure(rv, url, err);
	nng_stream_free(stream);
	nng_aio_free(aio);
	if (dialer != NULL)
		nng_stream_dialer_free(dialer);
	return code;
}

static bool connected(struct ty_client *c, int64_t until)
{
	/* pairs with on_pipe's release */
	while (atomic_load_explicit(&c->pipes, memory_order_acquire) == 0) {
		if (!ty_client_wait(c->completions.event_fd, POLLIN, until))
			return atomic_load_explicit(&c->pipes, memory_order_acquire) != 0;
		(void)ty_completions_take(&c->completions); /* no request is out yet: empties the eventfd */
	}
	return true;
}

enum ty_code ty_client_dial(struct ty_client *c, const char *url, int64_t deadline, struct ty_error *err)
{
	int64_t grace = ty_client_now() + GRACE_NS;
	enum ty_code code;
	nng_dialer dialer;
	int rv;

	rv = nng_req0_open(&c->socket);
	if (rv != 0)
		return ty_fail(err, TY_IO, "nng: %s", nng_strerror(rv));
	c->socket_open = true;
	/* a request is never sent twice: the service would execute it twice */
	rv = nng_socket_set_ms(c->socket, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE);
	if (rv == 0)
		rv = nng_socket_set_size(c->socket, NNG_OPT_RECVMAXSZ, TY_REPLY_MAX_BYTES);
	if (rv == 0)
		rv = nng_pipe_notify(c->socket, NNG_PIPE_EV_ADD_POST, on_pipe, c);
	if (rv != 0)
		return ty_fail(err, TY_IO, "nng: %s", nng_strerror(rv));
	rv = nng_dial(c->socket, url, &dialer, NNG_FLAG_NONBLOCK);
	if (rv != 0)
		return ty_fail(err, TY_INVALID, "options.url \"%s\": %s", url, nng_strerror(rv));
	if (connected(c, grace < deadline ? grace : deadline))
		return TY_OK;
	code = ask(url, deadline, err);
	if (code != TY_OK)
		return code;
	if (connected(c, deadline))
		return TY_OK;
	return ty_fail(err, TY_TIMEOUT, "connecting to %s took longer than connect_timeout_us", url);
}
