/* SPDX-License-Identifier: Apache-2.0
 *
 * Closing the nng socket, bounded. nng 1.5.2's nng_close can wait for ever for a dialer that lost its peer while it dialed
 * (seen with a service that stopped under load; tests/scenario/tyerd_life.py). So a thread of its own closes it, and whoever
 * closes the client waits for that thread at most CLOSE_MS. If it does not come back, what nng may still touch is left behind.
 */
#include "client/internal.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define CLOSE_MS 2000

struct closer {
	nng_socket socket;
	int closed_fd; /* written when nng_close has returned */
};

static void *close_socket(void *arg)
{
	struct closer *closer = arg;
	uint64_t one = 1;

	nng_close(closer->socket);
	(void)!write(closer->closed_fd, &one, sizeof one);
	return NULL;
}

bool ty_client_close_socket(nng_socket socket)
{
	struct closer *closer = malloc(sizeof *closer);
	pthread_t thread;

	if (closer == NULL)
		return nng_close(socket) == 0;
	*closer = (struct closer){.socket = socket, .closed_fd = eventfd(0, EFD_CLOEXEC)};
	if (closer->closed_fd >= 0 && pthread_create(&thread, NULL, close_socket, closer) == 0) {
		struct pollfd p = {.fd = closer->closed_fd, .events = POLLIN};

		if (poll(&p, 1, CLOSE_MS) != 1) {
			pthread_detach(thread);
			return false;
		}
		pthread_join(thread, NULL); /* it has written, and ends */
	} else {
		nng_close(socket);
	}
	if (closer->closed_fd >= 0)
		close(closer->closed_fd);
	free(closer);
	return true;
}
