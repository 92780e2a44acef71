/* SPDX-License-Identifier: Apache-2.0
 *
 * bench-s3-server: the tests' server of the S3 API by itself: objects in memory, one thread. Prints its port; ends when its standard input
 * does.
 */
#include <stdio.h>
#include <unistd.h>

#include "tests/unit/tiers/s3_server.h"

int main(void)
{
	static struct s3_server server;

	s3_server_open(&server);
	printf("%u\n", server.port);
	fflush(stdout);
	while (s3_server_wait(&server, STDIN_FILENO))
		while (s3_server_pump(&server))
			;
	return 0;
}
