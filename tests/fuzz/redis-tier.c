/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "actors/service.h"
#include "base/log.h"
#include "cache/checksum.h"
#include "fuzz.h"
#include "tests/unit/tiers/driven.h"
#include "tests/unit/tiers/redis_first.h"

/* The Redis tier with whatever a server may answer to one operation of each kind: trees of every shape, redirections to anywhere, headers,
 * lists. Every operation comes home once, and a GET is DONE only with the right bytes. However many servers it is sent to, all of them are
 * this one: connect() is the linker's --wrap. */

enum { PART = 64, OPERATIONS = 5, CONNECTIONS = 16, AGAIN = 64 };

static struct driven lab;

static struct sockaddr_in at;
static int listening;
static unsigned inputs;

int __real_connect(int fd, const struct sockaddr *to, socklen_t length);
int __wrap_connect(int fd, const struct sockaddr *to, socklen_t length);
int __wrap_connect(int fd, const struct sockaddr *to, socklen_t length)
{
	(void)length;
	if (to->sa_family != AF_INET) {
		errno = ENETUNREACH;
		return -1;
	}
	return __real_connect(fd, (struct sockaddr *)&at, sizeof at);
}

/* ---- the server -------------------------------------------------------------------------------------------------- */

static void *answer_first(void *over)
{
	(void)over;
	redis_answer_first(listening);
	return NULL;
}

static void take_connection(const uint8_t *data, size_t size, int fds[CONNECTIONS])
{
	const struct linger at_once = {.l_onoff = 1};
	int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once); /* no port is left waiting */
	(void)!send(fd, data, size, MSG_NOSIGNAL);
	for (unsigned i = 0; i < CONNECTIONS; i++)
		if (fds[i] < 0) {
			fds[i] = fd;
			return;
		}
	close(fd);
}

/* ---- the tier ------------------------------------------------------------------------------------------------------- */

static void open_tier(void)
{
	char spec[64];

	snprintf(spec, sizeof spec, "redis:127.0.0.1:%u,timeout=1s", ntohs(at.sin_port));
	FUZZ_CHECK(driven_open(&lab, 1, spec, answer_first) == TY_OK);
}

static void close_tier(void)
{
	driven_stop(&lab);
	while (ty_runtime_step(lab.service->rt))
		;
	driven_close(&lab);
	for (int fd; (fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC)) >= 0;) /* that nobody waits for any more */
		close(fd);
}

/* ---- operations -------------------------------------------------------------------------------------------------------- */

static struct ty_key keys[3];

static void content(uint8_t out[PART])
{
	for (unsigned i = 0; i < PART; i++)
		out[i] = (uint8_t)(i * 7 + 3);
}

static struct ty_tier_io *new_io(enum ty_tier_verb verb, struct ty_tier_page *page)
{
	struct ty_tier_io *io = calloc(1, sizeof *io + TY_CHUNK_MAX_PARTS * sizeof io->part[0]);

	io->verb = verb;
	io->keys = keys;
	io->key_count = verb == TY_TIER_EXISTS ? 3 : verb == TY_TIER_LIST ? 0 : 1;
	io->page = verb == TY_TIER_LIST ? page : NULL;
	if (verb != TY_TIER_PUT && verb != TY_TIER_GET)
		return io;
	io->parts = 1;
	io->part[0].data = lab.service->arena.base + (verb == TY_TIER_GET ? TY_ENVELOPE_ALIGN : 0);
	io->part[0].length = PART;
	memset(io->part[0].data, 0, PART);
	if (verb == TY_TIER_PUT)
		content(io->part[0].data);
	io->part[0].checksum = ty_checksum(io->part[0].data, PART);
	return io;
}

static void check(const struct ty_tier_io *io)
{
	uint8_t right[PART];

	FUZZ_CHECK(io->outcome < TY_TIER_OUTCOMES && memchr(io->error, 0, sizeof io->error));
	FUZZ_CHECK(io->verb != TY_TIER_EXISTS || io->found <= io->key_count);
	content(right);
	if (io->verb == TY_TIER_GET && io->outcome == TY_TIER_DONE)
		FUZZ_CHECK(!memcmp(io->part[0].data, right, PART));
	if (io->verb == TY_TIER_LIST && io->outcome == TY_TIER_DONE)
		FUZZ_CHECK(io->page->count <= 32 * 4096 && io->page->cursor.length <= sizeof io->page->cursor.bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum ty_tier_verb verbs[OPERATIONS] = {TY_TIER_PUT, TY_TIER_GET, TY_TIER_EXISTS, TY_TIER_LIST, TY_TIER_DELETE};
	struct ty_tier_page page = {.wanted = 8, .shapes = size % 4 != 0, .prefix_length = size % 5 == 0};
	struct ty_tier_io *ios[OPERATIONS];
	/* connections may be made again when it has passed */
	struct driven_batch batch = {.ios = ios, .count = OPERATIONS, .pass = 8 * SECOND};
	int fds[CONNECTIONS];

	if (!listening) {
		ty_log_setup(TY_LOG_ERROR, false);
		listening = redis_listen(INADDR_LOOPBACK, &at);
	}
	if (inputs++ % AGAIN == 0) {
		if (lab.service)
			close_tier();
		FUZZ_CHECK(fcntl(listening, F_SETFL, 0) == 0);
		open_tier();
		FUZZ_CHECK(fcntl(listening, F_SETFL, O_NONBLOCK) == 0);
	}
	memset(fds, -1, sizeof fds);
	if (size % 3 == 1) /* a cursor of somebody's */
		page.cursor.length = (uint32_t)(size < sizeof page.cursor.bytes ? size : sizeof page.cursor.bytes);
	if (page.cursor.length)
		memcpy(page.cursor.bytes, data, page.cursor.length);
	lab.home = 0;
	for (unsigned i = 0; i < OPERATIONS; i++)
		ios[i] = new_io(verbs[i], &page);
	driven_submit(&lab, &batch);
	while (lab.home < OPERATIONS || !lab.passed) {
		take_connection(data, size, fds);
		(void)ty_runtime_step(lab.service->rt);
		if (lab.home == OPERATIONS)
			for (unsigned i = 0; i < CONNECTIONS; i++)
				if (fds[i] >= 0) {
					close(fds[i]);
					fds[i] = -1;
				}
	}
	FUZZ_CHECK(lab.home == OPERATIONS);
	for (unsigned i = 0; i < OPERATIONS; i++) {
		check(ios[i]);
		free(ios[i]);
	}
	for (unsigned i = 0; i < CONNECTIONS; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	ty_tier_page_clear(&page);
	return 0;
}

static size_t add(uint8_t *bytes, size_t n, const void *data, size_t length)
{
	memcpy(bytes + n, data, length);
	return n + length;
}

static size_t add_header(uint8_t *bytes, size_t n)
{
	struct ty_envelope e = {.key = keys[0], .parts = 1, .length = {PART}};
	uint8_t header[TY_ENVELOPE_BYTES], right[PART];

	content(right);
	e.checksum[0] = ty_checksum(right, PART);
	strcpy(e.identity.tenant, "a");
	strcpy(e.identity.model, "m");
	ty_envelope_write(&e, header);
	n = add(bytes, n, "$4096\r\n", 7);
	n = add(bytes, n, header, sizeof header);
	return add(bytes, n, "\r\n", 2);
}

size_t fuzz_seed(unsigned index, uint8_t *bytes)
{
	static const char *const lists[] = {
		"-ERR This instance has cluster support disabled\r\n", "-ERR unknown command\r\n", "-NOPERM no\r\n", "$3\r\nabc\r\n", ":1\r\n",
		"$111\r\n07c37dfeb235213a872192d90877d0cd55635b91 127.0.0.1:30002@31002 master - 0 1426238316232 2 connected 0-16383 [93-<-a]\n\r\n",
	};
	static const char scan[] = "*2\r\n$1\r\n0\r\n*2\r\n$69\r\ntyer:0000000000000000000000000000000000000000000000000000000000000000\r\n$3\r\nabc\r\n";
	static const char *const others[] = {
		"-MOVED 3999 10.1.2.3:6381\r\n-ASK 3999 127.0.0.1:6381\r\n-MOVED 1 :7\r\n-MOVED 1 ::1:7\r\n-OOM no\r\n-ASK 7 10.0.0.1:1\r\n-MOVED 1 a:1\r\n",
		"*1\r\n*1\r\n*1\r\n:1\r\n*-1\r\n$-1\r\n+OK\r\n*2\r\n$-1\r\n$-1\r\n*0\r\n", "*4096\r\n", "*2\r\n$2\r\n12\r\n*4097\r\n", "-\r\n-\r\n-\r\n-\r\n-\r\n-\r\n-\r\n",
	};
	unsigned count = sizeof lists / sizeof lists[0], more = sizeof others / sizeof others[0];
	uint8_t right[PART];
	size_t n = 0;

	if (index >= count + more)
		return SIZE_MAX;
	if (index >= count)
		return add(bytes, 0, others[index - count], strlen(others[index - count]));
	content(right);
	n = add(bytes, n, ":2\r\n*2\r\n", 8); /* PUT, GET, three of EXISTS, NODES, DELETE, SCAN, a header */
	n = add_header(bytes, n);
	n = add(bytes, n, "$64\r\n", 5);
	n = add(bytes, n, right, sizeof right);
	n = add(bytes, n, "\r\n", 2);
	n = add_header(bytes, n);
	n = add(bytes, n, "$-1\r\n$-1\r\n", 10);
	n = add(bytes, n, lists[index], strlen(lists[index]));
	n = add(bytes, n, ":1\r\n", 4);
	n = add(bytes, n, scan, sizeof scan - 1);
	return add_header(bytes, n);
}
