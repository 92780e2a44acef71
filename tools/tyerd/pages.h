/* SPDX-License-Identifier: Apache-2.0
 *
 * What the supervisor answers over HTTP while there is no worker that could: on the worker's own listening socket, a line
 * that says why, or a few metrics, whatever is asked for. Nothing here waits or allocates; a connection has two seconds in all.
 */
#ifndef TY_TYERD_PAGES_H
#define TY_TYERD_PAGES_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#define TY_PAGES_CONNECTIONS 8 /* at a time; others wait in the listening socket's backlog */
#define TY_PAGES_MS 2000       /* of a connection's life, then it is closed */
#define TY_PAGES_POLLED (TY_PAGES_CONNECTIONS + 1)

struct ty_pages_connection {
	int fd; /* -1: none */
	int64_t until;
	char line[8];        /* how its request begins ... */
	char target[16];     /* ... and what it asks for, as far as that matters */
	uint32_t seen, word; /* bytes of the request, and of its present word */
	uint8_t words, ends; /* of its first line; of the empty line at its end, bytes that came */
	bool answered;
};

struct ty_pages {
	struct ty_pages_connection connections[TY_PAGES_CONNECTIONS];
	int64_t deaf_until; /* it could not accept: not tried before this time */
};

void ty_pages_open(struct ty_pages *pages);
/* What to wait for, in polled[TY_PAGES_POLLED], for the returned time at the most (INT64_MAX: any); unused ones have fd -1. `listener`: -1 while
 * somebody else accepts. Times are ms of one clock. */
int64_t ty_pages_poll(const struct ty_pages *pages, int listener, int64_t now, struct pollfd *polled);
/* Go on with what can go on. `why` is one line, without its end, at most 400 bytes. */
void ty_pages_serve(struct ty_pages *pages, int listener, int64_t now, const char *why, uint32_t restarts);

#endif
