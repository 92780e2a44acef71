/* SPDX-License-Identifier: Apache-2.0
 *
 * metrics: reads everybody's counters (atomics, no message) and turns them into OpenMetrics text, HTTP answers and STATUS.
 */
#ifndef TY_ACTORS_METRICS_H
#define TY_ACTORS_METRICS_H

#include "messages.h"
#include "rpc.h"

enum ty_page { TY_PAGE_METRICS, TY_PAGE_HEALTH, TY_PAGE_READY, TY_PAGE_STATUS };

/* An HTTP request: allocated by the HTTP server, filled by metrics, given back by calling `done` (any thread). */
struct ty_scrape {
	struct ty_msg msg;
	enum ty_page page;
	unsigned status;  /* HTTP */
	const char *type; /* media type, static */
	char *body;       /* malloc'd by metrics; the server's */
	size_t length;
	void (*done)(struct ty_scrape *scrape);
	void *user;
};

extern const struct ty_class ty_metrics_class; /* arg: struct ty_service */

/* The HTTP server (actors/http.c): libmicrohttpd, GET and HEAD only. Its thread asks service->metrics, so it is started after that
 * actor and stopped before the runtime is. ty_http_stop waits for the pages that metrics is making (main's thread, no handler). */
#define TY_HTTP_CONNECTIONS 64
#define TY_HTTP_CONNECTION_BYTES 16384 /* memory of one connection: its request's headers have to fit */
#define TY_HTTP_LINES 10               /* of the log in a second, about requests that are none */
#define TY_HTTP_TIMEOUT_S 10           /* a connection that says nothing for so long is closed */
#define TY_HTTP_TRACE_BYTES ((size_t)64 << 20) /* of /trace: 2048 events a thread are some 300 KB */
#define TY_HTTP_TRACE_FIRST_BYTES ((size_t)1 << 20)
struct ty_http;
/* A socket that listens on address: "IP:PORT", an IPv6 one in brackets; port 0 means one that is free. `kept` (-1: none) is one that a
 * process before this one listened with: it is taken if it listens there, else closed, in any case. */
TY_MUST_USE enum ty_code ty_http_listen(const char *address, int kept, int *out, struct ty_error *err);
/* Serve on such a socket, which is the server's on TY_OK, else still the caller's; the log tells where. */
TY_MUST_USE enum ty_code ty_http_start(struct ty_service *service, const char *address, int listener, struct ty_http **out,
	struct ty_error *err);
uint16_t ty_http_port(const struct ty_http *http); /* the real one */
void ty_http_stop(struct ty_http *http); /* null is allowed */

#endif
