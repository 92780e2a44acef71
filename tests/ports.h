/* SPDX-License-Identifier: Apache-2.0
 *
 * A TCP port for a server of a test's, that nobody else has by the time it listens: it lies below those that the system gives to whoever
 * asks for any, so no program gets it by chance, and it is taken from other tests by an abstract UNIX name that is this process's until
 * it ends. tests/scenario/outside.py does the same.
 */
#ifndef TESTS_PORTS_H
#define TESTS_PORTS_H

#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PORTS_FIRST 10000
#define PORTS_END 32768 /* where the system's begin, if nobody changed that */

/* 0: it is not to be had. */
static inline uint16_t ports_try(uint16_t port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY), .sin_port = htons(port)};
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	int length = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "tyer-test-port-%u", port);
	int held = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int taken = bind(held, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length)) == 0 &&
		    bind(listener, (struct sockaddr *)&address, sizeof address) == 0;

	close(listener);
	if (!taken)
		close(held);
	return taken ? port : 0;
}

static inline uint16_t ports_take(void)
{
	uint32_t first = (uint32_t)getpid() * 7919u;
	uint16_t port = 0;

	for (uint32_t i = 0; !port && i < PORTS_END - PORTS_FIRST; i++)
		port = ports_try((uint16_t)(PORTS_FIRST + (first + i) % (PORTS_END - PORTS_FIRST)));
	return port;
}

#endif
