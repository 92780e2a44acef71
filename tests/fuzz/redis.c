/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "actors/redis_connection.h"
#include "fuzz.h"

#define COMMANDS 4
#define REPLY_MAX 1024

/* What a Redis server, or something in its place, may send: the input, as the answers to a few commands. The connection ends or goes
 * on, every command is answered once, and no reply is larger than what was allowed. */

static unsigned answered, elements;

static void look_at(const redisReply *r, int depth, size_t *bytes)
{
	FUZZ_CHECK(r && r->type >= REDIS_REPLY_STRING && r->type <= REDIS_REPLY_ERROR && depth < 10);
	if (r->type == REDIS_REPLY_STRING || r->type == REDIS_REPLY_STATUS || r->type == REDIS_REPLY_ERROR) {
		FUZZ_CHECK(r->str && r->str[r->len] == '\0');
		*bytes += (size_t)r->len;
	}
	if (r->type != REDIS_REPLY_ARRAY)
		return;
	elements += (unsigned)r->elements;
	FUZZ_CHECK(elements <= REDIS_REPLY_ELEMENTS); /* of all its lists */
	for (size_t i = 0; i < r->elements; i++)
		look_at(r->element[i], depth + 1, bytes);
}

static void replied(void *user, const redisReply *r)
{
	size_t bytes = 0;

	(void)user;
	answered++;
	elements = 0;
	if (r)
		look_at(r, 0, &bytes);
	FUZZ_CHECK(bytes <= REPLY_MAX + 65536 + 65536); /* and what came with the reply before */
}

static int listener(struct sockaddr_in *at)
{
	socklen_t length = sizeof *at;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	FUZZ_CHECK(fd >= 0 && bind(fd, (struct sockaddr *)at, length) == 0 && listen(fd, 8) == 0);
	FUZZ_CHECK(getsockname(fd, (struct sockaddr *)at, &length) == 0);
	return fd;
}

static void give(int fd, const uint8_t *data, size_t size)
{
	while (size) {
		ssize_t n = send(fd, data, size, MSG_NOSIGNAL);

		if (n <= 0)
			break; /* it had enough */
		data += n;
		size -= (size_t)n;
	}
	shutdown(fd, SHUT_WR);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct sockaddr_in at;
	static int listening;
	const struct linger at_once = {.l_onoff = 1};
	struct ty_error err = {.text = ""};
	struct redis_connection *c;
	int fd;

	if (!listening)
		listening = listener(&at);
	c = redis_connect("127.0.0.1", ntohs(at.sin_port), NULL, NULL, &err);
	FUZZ_CHECK(c);
	answered = 0;
	for (int i = 0; i < COMMANDS; i++)
		FUZZ_CHECK(redis_send(c, replied, NULL, &(struct redis_bounds){.bytes = REPLY_MAX}, 1, &(const char *){"PING"}, &(size_t){4}));
	fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
	FUZZ_CHECK(fd >= 0);
	give(fd, data, size < 65536 ? size : 65536);
	while (redis_step(c)) {
		struct pollfd p = {.fd = redis_fd(c), .events = POLLIN};

		FUZZ_CHECK(poll(&p, 1, 10000) == 1); /* the end comes, if nothing else does */
	}
	FUZZ_CHECK(redis_error(c)->code != TY_OK && redis_error(c)->text[0]);
	redis_hang_up(c);
	FUZZ_CHECK(answered == COMMANDS);
	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once); /* no port is left waiting */
	close(fd);
	return 0;
}

size_t fuzz_seed(unsigned index, uint8_t *bytes)
{
	static const char *const seeds[] = {
		"+PONG\r\n+PONG\r\n:1\r\n$-1\r\n",
		"*33\r\n*31\r\n:1\r\n", "*2\r\n*63\r\n:1\r\n", "*2\r\n*64\r\n:1\r\n",
		"*3\r\n$4\r\nabcd\r\n$-1\r\n$0\r\n\r\n-MOVED 3999 127.0.0.1:6381\r\n-ASK 3999 127.0.0.1:6381\r\n",
		"-NOAUTH Authentication required.\r\n-OOM command not allowed\r\n*0\r\n*-1\r\n",
		"*2147483647\r\n", "*66\r\n", "*65\r\n$1\r\na\r\n", "$9223372036854775807\r\nx", "$536870912\r\nxx",
		"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n", "\x15\x03\x01\x00\x02\x02\x50",
		":1\r\n:1\r\n:1\r\n:1\r\n:1\r\n",
	};

	if (index == sizeof seeds / sizeof seeds[0]) { /* whole, and one element too long */
		size_t n = (size_t)sprintf((char *)bytes, "*%d\r\n", REDIS_REPLY_ELEMENTS + 1);

		for (int i = 0; i <= REDIS_REPLY_ELEMENTS; i++)
			n += (size_t)sprintf((char *)bytes + n, ":%d\r\n", i);
		return n;
	}
	if (index > sizeof seeds / sizeof seeds[0])
		return SIZE_MAX;
	memcpy(bytes, seeds[index], strlen(seeds[index]));
	return strlen(seeds[index]);
}
