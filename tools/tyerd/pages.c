/* SPDX-License-Identifier: Apache-2.0 */
#include "pages.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEAF_MS 1000
#define READS 16 /* of one connection before the others have their turn */
#define REQUEST_MAX 16384 /* bytes; what is longer is answered all the same, and not read to its end */

void ty_pages_open(struct ty_pages *pages)
{
	memset(pages, 0, sizeof *pages);
	for (unsigned i = 0; i < TY_PAGES_CONNECTIONS; i++)
		pages->connections[i].fd = -1;
}

int64_t ty_pages_poll(const struct ty_pages *pages, int listener, int64_t now, struct pollfd *polled)
{
	int64_t until = INT64_MAX;
	bool room = false;

	for (unsigned i = 0; i < TY_PAGES_CONNECTIONS; i++) {
		const struct ty_pages_connection *c = &pages->connections[i];

		polled[i] = (struct pollfd){.fd = c->fd, .events = POLLIN};
		room |= c->fd < 0;
		if (c->fd >= 0 && c->until < until)
			until = c->until;
	}
	polled[TY_PAGES_CONNECTIONS] = (struct pollfd){.fd = -1, .events = POLLIN};
	if (listener >= 0 && room && now >= pages->deaf_until)
		polled[TY_PAGES_CONNECTIONS].fd = listener;
	else if (listener >= 0 && room && pages->deaf_until < until)
		until = pages->deaf_until;
	return until;
}

/* ---- a request ---------------------------------------------------------------------------------------- */

/* One byte of the request. True: it is whole. Of its first line the first two words count, of the rest only its end. */
static bool take_byte(struct ty_pages_connection *c, char byte)
{
	if (byte == '\n') {
		c->words = 3;
		return ++c->ends == 2;
	}
	if (byte == '\r')
		return false;
	c->ends = 0;
	if (byte == ' ') {
		c->words++;
		c->word = 0;
	} else if (c->words == 0 && c->word < sizeof c->line - 1) {
		c->line[c->word++] = byte;
	} else if (c->words == 1 && c->word < sizeof c->target - 1) {
		c->target[c->word++] = byte;
	}
	return false;
}

static void answer(struct ty_pages_connection *c, const char *why, uint32_t restarts)
{
	bool head = strcmp(c->line, "HEAD") == 0, known = head || strcmp(c->line, "GET") == 0;
	bool metrics = known && strcmp(c->target, "/metrics") == 0;
	char body[1024], text[1536];
	int length, all;

	if (metrics)
		length = snprintf(body, sizeof body,
			"# TYPE tyer_healthy gauge\n# HELP tyer_healthy 1 when /healthz answers 200.\ntyer_healthy 0\n"
			"# TYPE tyer_ready gauge\n# HELP tyer_ready 1 when /readyz answers 200.\ntyer_ready 0\n"
			"# TYPE tyer_restarts counter\n"
			"# HELP tyer_restarts Workers that ended before this one and were followed by another.\n"
			"tyer_restarts_total %u\n# EOF\n", restarts);
	else
		length = snprintf(body, sizeof body, "%.400s\n", known ? why : "GET and HEAD only");
	all = snprintf(text, sizeof text,
		"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nCache-Control: no-store\r\n"
		"X-Content-Type-Options: nosniff\r\nConnection: close\r\n%s\r\n%s",
		metrics ? "200 OK" : known ? "503 Service Unavailable" : "405 Method Not Allowed",
		metrics ? "application/openmetrics-text; version=1.0.0; charset=utf-8" : "text/plain; charset=utf-8", length,
		known ? "" : "Allow: GET, HEAD\r\n", head ? "" : body);
	/* A fresh connection has room for it; if not, it is that peer's loss. */
	(void)!send(c->fd, text, (size_t)all, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)shutdown(c->fd, SHUT_WR); /* and the peer's end is awaited: a close before it could take the answer back */
	c->answered = true;
}

/* False: the connection is over. */
static bool go_on(struct ty_pages_connection *c, const char *why, uint32_t restarts)
{
	char bytes[1024];

	for (unsigned reads = 0; reads < READS; reads++) {
		ssize_t n = recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
		for (ssize_t i = 0; i < n && !c->answered; i++)
			if (take_byte(c, bytes[i]) || ++c->seen == REQUEST_MAX)
				answer(c, why, restarts);
	}
	return true;
}

/* ---- connections -------------------------------------------------------------------------------------- */

static void accept_into(struct ty_pages *pages, struct ty_pages_connection *c, int listener, int64_t now)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0) {
		*c = (struct ty_pages_connection){.fd = fd, .until = now + TY_PAGES_MS};
		return;
	}
	if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR && errno != ECONNABORTED)
		pages->deaf_until = now + DEAF_MS; /* no descriptor or no memory */
}

void ty_pages_serve(struct ty_pages *pages, int listener, int64_t now, const char *why, uint32_t restarts)
{
	for (unsigned i = 0; i < TY_PAGES_CONNECTIONS; i++) {
		struct ty_pages_connection *c = &pages->connections[i];

		if (c->fd < 0 && listener >= 0 && now >= pages->deaf_until)
			accept_into(pages, c, listener, now);
		if (c->fd >= 0 && (now >= c->until || !go_on(c, why, restarts))) {
			close(c->fd);
			c->fd = -1;
		}
	}
}
