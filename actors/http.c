/* SPDX-License-Identifier: Apache-2.0
 *
 * libmicrohttpd on a thread of its own. A page is made by the metrics actor: its connection is suspended until the scrape
 * comes back, so neither thread waits for the other. But for /trace, which this thread makes: it takes longer than a handler may.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <microhttpd.h>

#include "base/log.h"
#include "metrics.h"
#include "service.h"

/* A connection. The server's thread's alone. */
struct seat {
	int fd; /* -1: free */
	uint64_t since; /* which one it was: the oldest has the least */
	bool waits; /* for a page that metrics is making */
};

struct ty_http {
	struct ty_service *service;
	struct MHD_Daemon *daemon;
	uint16_t port;
	/* Scrapes that are out, and CLOSING once ty_http_stop was called: from then on there are no more. Whoever takes the
	 * last one home after that raises `drained`. Acquire-release throughout: a scrape's end happens before the stop. */
	_Atomic uint32_t out;
	int drained;
	struct seat seats[TY_HTTP_CONNECTIONS];
	/* Lines of the log that the server wrote in this second; relaxed: a line more or less is no harm. */
	_Atomic int64_t second;
	_Atomic uint32_t lines, lines_left_out;
	bool tracing; /* a trace is being sent; the server thread's */
	uint64_t came;
	unsigned taken;
};
#define CLOSING 0x80000000u

/* One HTTP request. Made by the server's thread, which also ends it; in between metrics has `scrape`. */
struct request {
	struct ty_scrape scrape;
	struct ty_http *http;
	struct MHD_Connection *connection;
	bool trace; /* the runtime's, which metrics does not make ... */
	bool traced; /* ... and this one has */
	bool asked; /* the server thread's: it is on its way, or back */
};

static const char index_page[] =
	"<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Tyer</title></head>\n"
	"<body><h1>Tyer " TY_VERSION "</h1>\n<ul>\n"
	"<li><a href=\"/metrics\">/metrics</a>: OpenMetrics</li>\n"
	"<li><a href=\"/healthz\">/healthz</a>: is it alive</li>\n"
	"<li><a href=\"/readyz\">/readyz</a>: does it serve</li>\n"
	"<li><a href=\"/status\">/status</a>: devices, clients, counters (JSON)</li>\n"
	"<li><a href=\"/trace\">/trace</a>: what the threads did last (for ui.perfetto.dev)</li>\n"
	"</ul></body></html>\n";

/* ---- the address ---------------------------------------------------------------------------------------------------- */

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static enum ty_code parse_address(const char *text, union address *out, struct ty_error *err)
{
	const char *colon = strrchr(text, ':');
	size_t host_length = colon ? (size_t)(colon - text) : 0;
	char host[INET6_ADDRSTRLEN + 2];
	unsigned port = 0;

	memset(out, 0, sizeof *out);
	if (colon == NULL || host_length == 0 || host_length >= sizeof host)
		return ty_fail(err, TY_INVALID, "http is \"%s\", expected IP:PORT", text);
	memcpy(host, text, host_length);
	host[host_length] = '\0';
	if (colon[1] == '\0' || strlen(colon + 1) > 5 || strspn(colon + 1, "0123456789") != strlen(colon + 1) ||
		sscanf(colon + 1, "%5u", &port) != 1 || port > 65535)
		return ty_fail(err, TY_INVALID, "http is \"%s\": its port is \"%s\", expected 0..65535", text, colon + 1);
	if (host[0] == '[' && host[host_length - 1] == ']') {
		host[host_length - 1] = '\0';
		out->v6.sin6_family = AF_INET6;
		out->v6.sin6_port = htons((uint16_t)port);
		if (inet_pton(AF_INET6, host + 1, &out->v6.sin6_addr) == 1)
			return TY_OK;
	} else {
		out->v4.sin_family = AF_INET;
		out->v4.sin_port = htons((uint16_t)port);
		if (inet_pton(AF_INET, host, &out->v4.sin_addr) == 1)
			return TY_OK;
	}
	return ty_fail(err, TY_INVALID, "http is \"%s\": \"%.*s\" is no numeric address (IPv6 goes in brackets)", text,
		(int)host_length, text);
}

static in_port_t port_of(const union address *address)
{
	return ntohs(address->any.sa_family == AF_INET6 ? address->v6.sin6_port : address->v4.sin_port);
}

static bool same_host(const union address *a, const union address *b)
{
	if (a->any.sa_family != b->any.sa_family)
		return false;
	return a->any.sa_family == AF_INET6 ? memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, sizeof a->v6.sin6_addr) == 0
					    : a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
}

/* False: it is no socket that listens. */
static bool where_it_listens(int fd, union address *out)
{
	socklen_t length = sizeof *out, size = sizeof(int);
	int listens = 0;

	return getsockname(fd, &out->any, &length) == 0 && getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens;
}

static enum ty_code open_listener(const char *text, const union address *address, int *out, struct ty_error *err)
{
	socklen_t length = address->any.sa_family == AF_INET6 ? sizeof address->v6 : sizeof address->v4;
	int one = 1, fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
		(address->any.sa_family != AF_INET6 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) == 0) &&
		bind(fd, &address->any, length) == 0 && listen(fd, SOMAXCONN) == 0) {
		*out = fd;
		return TY_OK;
	}
	enum ty_code code = ty_fail(err, errno == EADDRINUSE ? TY_EXISTS : TY_IO, "http: cannot serve on %s: %s", text, strerror(errno));

	if (fd >= 0)
		close(fd);
	return code;
}

enum ty_code ty_http_listen(const char *text, int kept, int *out, struct ty_error *err)
{
	union address wanted, found;
	enum ty_code code = parse_address(text, &wanted, err);

	if (code == TY_OK && kept >= 0 && where_it_listens(kept, &found) && same_host(&wanted, &found) &&
		(port_of(&wanted) == 0 || port_of(&wanted) == port_of(&found))) {
		*out = kept;
		return TY_OK;
	}
	if (kept >= 0)
		close(kept); /* the configuration has changed */
	return code == TY_OK ? open_listener(text, &wanted, out, err) : code;
}

/* ---- answers -------------------------------------------------------------------------------------------------------- */

static enum MHD_Result respond(struct MHD_Connection *connection, unsigned status, const char *type, const char *body,
	size_t length, enum MHD_ResponseMemoryMode mode)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(length, (void *)(uintptr_t)body, mode);
	enum MHD_Result result;

	if (response == NULL) {
		if (mode == MHD_RESPMEM_MUST_FREE)
			free((void *)(uintptr_t)body);
		return MHD_NO; /* closes the connection */
	}
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		(void)MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	(void)MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result respond_text(struct MHD_Connection *connection, unsigned status, const char *text)
{
	return respond(connection, status, "text/plain; charset=utf-8", text, strlen(text), MHD_RESPMEM_PERSISTENT);
}

static enum MHD_Result respond_page(struct request *request)
{
	struct ty_scrape *scrape = &request->scrape;
	char *body = scrape->body;

	if (body == NULL)
		return respond_text(request->connection, scrape->status,
			scrape->status == 503 ? "stopping\n" : "no memory for this page\n");
	scrape->body = NULL; /* the response's from here on */
	return respond(request->connection, scrape->status, scrape->type, body, scrape->length, MHD_RESPMEM_MUST_FREE);
}

/* ---- connections ----------------------------------------------------------------------------------------------------- */

/* All places are taken, perhaps by some who say a byte now and then: the oldest makes room, unless its page is on the way. Who comes
 * to ask is answered, however many there are who do not. */
static void make_room(struct ty_http *http)
{
	struct seat *oldest = NULL;

	for (struct seat *s = http->seats; s < http->seats + TY_HTTP_CONNECTIONS; s++)
		if (s->fd >= 0 && !s->waits && (!oldest || s->since < oldest->since))
			oldest = s;
	if (oldest)
		(void)shutdown(oldest->fd, SHUT_RDWR); /* the server sees its end, and closes it */
}

static void connection_changed(void *user, struct MHD_Connection *connection, void **context, enum MHD_ConnectionNotificationCode what)
{
	struct ty_http *http = user;
	struct seat *seat = *context;

	if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
		seat->fd = -1;
		http->taken--;
		return;
	}
	for (seat = http->seats; seat->fd >= 0;) /* there is one: no more connections than that are open */
		seat++;
	*seat = (struct seat){.fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd, .since = ++http->came};
	*context = seat;
	if (++http->taken == TY_HTTP_CONNECTIONS)
		make_room(http);
}

static struct seat *seat_of(struct MHD_Connection *connection)
{
	return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

/* ---- scrapes -------------------------------------------------------------------------------------------------------- */

static bool scrape_begins(struct ty_http *http)
{
	uint32_t out = atomic_load_explicit(&http->out, memory_order_relaxed);

	do
		if (out & CLOSING)
			return false;
	while (!atomic_compare_exchange_weak_explicit(&http->out, &out, out + 1, memory_order_acq_rel, memory_order_relaxed));
	return true;
}

static void scrape_ends(struct ty_http *http)
{
	if (atomic_fetch_sub_explicit(&http->out, 1, memory_order_acq_rel) == (CLOSING | 1)) {
		uint64_t one = 1;
		ssize_t n = write(http->drained, &one, sizeof one);

		assert(n == sizeof one);
	}
}

/* From metrics, on a thread of the runtime. The request is the server thread's as soon as the connection goes on. */
static void scrape_done(struct ty_scrape *scrape)
{
	struct request *request = scrape->user;
	struct ty_http *http = request->http;

	MHD_resume_connection(request->connection);
	scrape_ends(http);
}

static enum MHD_Result ask(struct request *request)
{
	struct ty_http *http = request->http;

	request->asked = true;
	request->scrape.status = 503; /* if nobody is there to say better */
	if (!scrape_begins(http))
		return respond_page(request);
	seat_of(request->connection)->waits = true;
	MHD_suspend_connection(request->connection);
	if (ty_send(http->service->metrics, &request->scrape.msg, TY_METRICS_SCRAPE) != TY_OK)
		scrape_done(&request->scrape);
	return MHD_YES;
}

/* ---- the trace ------------------------------------------------------------------------------------------------------ */

struct text {
	char *bytes;
	size_t length, room;
};

/* Called with one piece of the trace after the other. */
static bool add_text(void *user, const char *piece, size_t length)
{
	struct text *text = user;

	if (length > TY_HTTP_TRACE_BYTES - text->length)
		return false;
	if (length > text->room - text->length) {
		size_t room = text->room ? 2 * text->room : TY_HTTP_TRACE_FIRST_BYTES;
		char *bytes;

		while (room < text->length + length)
			room *= 2;
		bytes = realloc(text->bytes, room);
		if (bytes == NULL)
			return false;
		text->bytes = bytes;
		text->room = room;
	}
	memcpy(text->bytes + text->length, piece, length);
	text->length += length;
	return true;
}

/* The server's thread is stopped before the runtime is. */
static enum MHD_Result respond_trace(struct request *request)
{
	struct text text = {0};

	if (request->http->tracing) /* it takes megabytes until its reader has it */
		return respond_text(request->connection, 503, "another trace is on its way\n");
	if (ty_runtime_trace(request->http->service->rt, add_text, &text) != TY_OK) {
		free(text.bytes);
		return respond_text(request->connection, 503, "no memory for this page\n");
	}
	request->http->tracing = request->traced = true;
	return respond(request->connection, MHD_HTTP_OK, "application/json", text.bytes, text.length, MHD_RESPMEM_MUST_FREE);
}

/* ---- requests ------------------------------------------------------------------------------------------------------- */

static bool page_of(const char *url, enum ty_page *page)
{
	static const struct {
		const char *url;
		enum ty_page page;
	} pages[] = {
		{"/metrics", TY_PAGE_METRICS},
		{"/healthz", TY_PAGE_HEALTH},
		{"/readyz", TY_PAGE_READY},
		{"/status", TY_PAGE_STATUS},
	};

	for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++)
		if (strcmp(url, pages[i].url) == 0) {
			*page = pages[i].page;
			return true;
		}
	return false;
}

/* Called with the headers, with each piece of a body, at its end, and again when a suspended connection goes on. */
static enum MHD_Result handle(void *user, struct MHD_Connection *connection, const char *url, const char *method,
	const char *version, const char *upload, size_t *upload_length, void **state)
{
	struct request *request = *state;
	enum ty_page page = TY_PAGE_STATUS;
	bool trace;

	(void)version;
	(void)upload;
	if (request == NULL) { /* the headers */
		if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
			return respond_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "GET and HEAD only\n");
		if (strcmp(url, "/") == 0)
			return respond(connection, MHD_HTTP_OK, "text/html; charset=utf-8", index_page, sizeof index_page - 1,
				MHD_RESPMEM_PERSISTENT);
		trace = strcmp(url, "/trace") == 0;
		if (!trace && !page_of(url, &page))
			return respond_text(connection, MHD_HTTP_NOT_FOUND, "no such page\n");
		request = calloc(1, sizeof *request);
		if (request == NULL)
			return MHD_NO;
		request->scrape.page = page;
		request->scrape.done = scrape_done;
		request->scrape.user = request;
		request->http = user;
		request->connection = connection;
		request->trace = trace;
		*state = request;
		return MHD_YES;
	}
	if (*upload_length != 0) { /* a GET with a body: nobody reads it */
		*upload_length = 0;
		return MHD_YES;
	}
	if (request->trace)
		return respond_trace(request);
	if (!request->asked)
		return ask(request);
	seat_of(connection)->waits = false;
	return respond_page(request);
}

static void completed(void *user, struct MHD_Connection *connection, void **state, enum MHD_RequestTerminationCode why)
{
	struct request *request = *state;

	(void)user;
	(void)connection;
	(void)why;
	if (request) {
		if (request->traced)
			request->http->tracing = false;
		free(request->scrape.body);
		free(request);
		*state = NULL;
	}
}

/* It has a line for each request that is none, and whoever says such things in a loop is to fill no disk. */
static bool may_say(struct ty_http *http)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (atomic_exchange_explicit(&http->second, now.tv_sec, memory_order_relaxed) != now.tv_sec) {
		uint32_t left_out = atomic_exchange_explicit(&http->lines_left_out, 0, memory_order_relaxed);

		atomic_store_explicit(&http->lines, 0, memory_order_relaxed);
		if (left_out)
			ty_log(TY_LOG_INFO, "http", "%u lines about requests are left out", left_out);
	}
	if (atomic_fetch_add_explicit(&http->lines, 1, memory_order_relaxed) < TY_HTTP_LINES)
		return true;
	atomic_fetch_add_explicit(&http->lines_left_out, 1, memory_order_relaxed);
	return false;
}

static void server_says(void *user, const char *fmt, va_list args)
{
	char text[512];
	size_t n;

	if (!may_say(user))
		return;
	vsnprintf(text, sizeof text, fmt, args);
	n = strlen(text);
	if (n > 0 && text[n - 1] == '\n')
		text[n - 1] = '\0';
	ty_log(TY_LOG_WARN, "http", "%s", text);
}

/* ---- life ----------------------------------------------------------------------------------------------------------- */

static enum ty_code start_daemon(struct ty_http *http, const char *text, int listener, struct ty_error *err)
{
	unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;

	errno = 0;
	http->daemon = MHD_start_daemon(flags, 0, NULL, NULL, handle, http,
		MHD_OPTION_EXTERNAL_LOGGER, server_says, http, /* first: it takes what the others say */
		MHD_OPTION_LISTEN_SOCKET, listener,
		MHD_OPTION_NOTIFY_COMPLETED, completed, NULL,
		MHD_OPTION_NOTIFY_CONNECTION, connection_changed, http,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned)TY_HTTP_CONNECTIONS,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)TY_HTTP_CONNECTION_BYTES,
		MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)TY_HTTP_TIMEOUT_S,
		MHD_OPTION_END);
	if (http->daemon == NULL)
		return ty_fail(err, TY_IO, "http: cannot serve on %s: %s", text,
			errno ? strerror(errno) : "the server did not start (the log says more)");
	return TY_OK;
}

enum ty_code ty_http_start(struct ty_service *service, const char *address, int listener, struct ty_http **out,
	struct ty_error *err)
{
	struct ty_http *http = calloc(1, sizeof *http);
	union address bound;
	enum ty_code code;

	*out = NULL;
	if (http == NULL)
		return ty_fail(err, TY_NO_MEMORY, "no memory for the HTTP server");
	http->service = service;
	for (unsigned i = 0; i < TY_HTTP_CONNECTIONS; i++)
		http->seats[i].fd = -1;
	http->port = where_it_listens(listener, &bound) ? port_of(&bound) : 0;
	http->drained = eventfd(0, EFD_CLOEXEC);
	code = http->drained < 0 ? ty_fail(err, TY_IO, "http: eventfd: %s", strerror(errno))
				 : start_daemon(http, address, listener, err);
	if (code != TY_OK) {
		if (http->drained >= 0)
			close(http->drained);
		free(http);
		return code;
	}
	ty_log(TY_LOG_INFO, "http", "serving on %.*s:%u", (int)(strrchr(address, ':') - address), address, http->port);
	*out = http;
	return TY_OK;
}

uint16_t ty_http_port(const struct ty_http *http)
{
	return http->port;
}

void ty_http_stop(struct ty_http *http)
{
	uint64_t ignored;
	int listener;

	if (http == NULL)
		return;
	/* libmicrohttpd must not be stopped with connections suspended. */
	if (atomic_fetch_or_explicit(&http->out, CLOSING, memory_order_acq_rel) != 0)
		while (read(http->drained, &ignored, sizeof ignored) < 0 && errno == EINTR)
			;
	listener = MHD_quiesce_daemon(http->daemon); /* else it would be shut down, for whoever keeps a copy too */
	MHD_stop_daemon(http->daemon);
	if (listener >= 0)
		close(listener);
	close(http->drained);
	free(http);
}
