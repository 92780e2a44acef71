/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a Redis server of a test's listens, and what it says to the tier's first question, which is waited for before anything runs.
 */
#ifndef TY_TESTS_TIERS_REDIS_FIRST_H
#define TY_TESTS_TIERS_REDIS_FIRST_H

#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* On any port of `address` (host order), which is filled into *at. Ends the process if that fails. */
static inline int redis_listen(in_addr_t address, struct sockaddr_in *at)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
	if (fd < 0 || bind(fd, (struct sockaddr *)at, sizeof *at) || listen(fd, 64) ||
		getsockname(fd, (struct sockaddr *)at, &(socklen_t){sizeof *at}))
		abort();
	return fd;
}

/* Waits for the connection. */
static inline void redis_answer_first(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0 || write(fd, "+none\r\n", 7) != 7)
		abort();
	(void)!read(fd, &(char[64]){0}, 64);
	close(fd);
}

#endif
