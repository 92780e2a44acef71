/* SPDX-License-Identifier: Apache-2.0
 *
 * The nng connection. nng's own dialing waits as long as the system does, so it dials in the background, and a connection that is
 * not there soon is asked about by a dial of our own that has a deadline: to say which error it is.
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

/* Does the transport connect at all? TY_OK, or why not. */
static enum ty_code probe(const char *url, int64_t deadline, struct ty_error *err)
{
	int64_t left = deadline - ty_client_now();
	nng_stream_dialer *dialer = NULL;
	nng_aio *aio = NULL;
	enum ty_code code = TY_OK;
	int rv;

	rv = nng_stream_dialer_alloc(&dialer, url);
	if (rv == NNG_ENOTSUP)
		return TY_OK; /* a transport without streams (inproc): nothing more is known */
	if (rv == 0)
		rv = nng_aio_alloc(&aio, NULL, NULL);
	if (rv == 0) {
		nng_aio_set_timeout(aio, left <= 0 ? 1 : (nng_duration)(left / 1000000 + 1));
		nng_stream_dialer_dial(dialer, aio);
		nng_aio_wait(aio);
		rv = nng_aio_result(aio);
		if (rv == 0)
			nng_stream_free(nng_aio_get_output(aio, 0));
	}
	switch (rv) {
	case 0:
		break;
	case NNG_ECONNREFUSED:
	case NNG_ENOENT:
		code = ty_fail(err, TY_CLOSED, "nobody listens at %s", url);
		break;
	case NNG_ETIMEDOUT:
		code = ty_fail(err, TY_TIMEOUT, "connecting to %s took longer than connect_timeout_us", url);
		break;
	case NNG_EPERM:
		code = ty_fail(err, TY_DENIED, "connecting to %s is not permitted", url);
		break;
	case NNG_ENOMEM:
		code = ty_fail(err, TY_NO_MEMORY, "connecting to %s: out of memory", url);
		break;
	default:
		code = ty_fail(err, TY_IO, "connecting to %s: %s", url, nng_strerror(rv));
		break;
	}
	if (aio != NULL)
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
	code = probe(url, deadline, err);
	if (code != TY_OK)
		return code;
	if (connected(c, deadline))
		return TY_OK;
	return ty_fail(err, TY_PROTOCOL, "%s accepts connections, but does not answer as nng's REP protocol does", url);
}
