/* SPDX-License-Identifier: Apache-2.0
 *
 * The Redis tier against a server that misbehaves as told. The runtime is deterministic and the server is moved between its steps: time is
 * logical, so what is silent for a minute costs none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "actors/redis.h"
#include "base/log.h"
#include "cache/checksum.h"
#include "driven.h"
#include "redis_first.h"

#define CONNECTIONS 32
#define NODES 4

/* ---- a server ------------------------------------------------------------------------------------------------- */

static struct server {
	int listener;
	uint16_t port;
	int fd[CONNECTIONS];
	bool reads, closes;    /* what comes; each connection, at once */
	const char *says;      /* to whoever connects; null: nothing */
	const char *answers;   /* to each thing that comes */
	unsigned moves;        /* the next ones are told of another node, which nobody has heard of before */
	unsigned accepted;
	/* By the last number of the address that was called, 127.0.0.N: */
	unsigned node[CONNECTIONS];    /* of each connection */
	bool held[NODES];              /* what comes is not read */
	const char *node_answers[NODES]; /* instead of `answers`; null: that */
	char log[256];                 /* what came to whom: "1H" is an HSET, "2D" a DEL */
} server;

static void note(unsigned node, const char *bytes)
{
	const char *word = strstr(bytes, "HSET") ? "H" : strstr(bytes, "DEL") ? "D" : "";
	size_t n = strlen(server.log);

	if (word[0])
		snprintf(server.log + n, sizeof server.log - n, "%u%s", node, word);
}

static void answer(int fd, unsigned node)
{
	char text[64] = "";

	if (node < NODES && server.node_answers[node]) {
		snprintf(text, sizeof text, "%s", server.node_answers[node]);
	} else if (server.moves) {
		snprintf(text, sizeof text, "-MOVED 1 127.0.1.%u:%u\r\n", server.accepted, server.port);
		server.moves--;
	} else if (server.answers) {
		snprintf(text, sizeof text, "%s", server.answers);
	}
	(void)!send(fd, text, strlen(text), MSG_NOSIGNAL);
}

static void serve(void)
{
	static char bytes[(1 << 20) + 1];
	struct sockaddr_in at;
	ssize_t got;
	int fd;

	while ((fd = accept4(server.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
		unsigned i = 0;

		server.accepted++;
		if (server.says)
			assert_int_equal(send(fd, server.says, strlen(server.says), MSG_NOSIGNAL), strlen(server.says));
		if (server.closes) {
			close(fd);
			continue;
		}
		while (server.fd[i] >= 0)
			assert_true(++i < CONNECTIONS);
		server.fd[i] = fd;
		assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &(socklen_t){sizeof at}), 0);
		server.node[i] = ntohl(at.sin_addr.s_addr) & 0xff;
	}
	for (unsigned i = 0; i < CONNECTIONS; i++) {
		struct pollfd p = {.fd = server.fd[i], .events = POLLRDHUP};

		if (server.fd[i] < 0)
			continue;
		while (server.reads && !(server.node[i] < NODES && server.held[server.node[i]]) &&
			(got = recv(server.fd[i], bytes, sizeof bytes - 1, 0)) > 0) {
			bytes[got] = '\0';
			note(server.node[i], bytes);
			answer(server.fd[i], server.node[i]);
		}
		if (poll(&p, 1, 0) == 1) {
			close(server.fd[i]);
			server.fd[i] = -1;
		}
	}
}

static int open_server(void **state)
{
	struct sockaddr_in at;

	(void)state;
	memset(&server, 0, sizeof server);
	memset(server.fd, -1, sizeof server.fd);
	server.reads = true;
	server.listener = redis_listen(INADDR_ANY, &at);
	server.port = ntohs(at.sin_port);
	return 0;
}

static int close_server(void **state)
{
	(void)state;
	for (unsigned i = 0; i < CONNECTIONS; i++)
		if (server.fd[i] >= 0)
			close(server.fd[i]);
	close(server.listener);
	return 0;
}

static void *answer_first(void *over)
{
	(void)over;
	redis_answer_first(server.listener);
	return NULL;
}

/* ---- a tier and its user ---------------------------------------------------------------------------------------- */

static struct driven lab;

static void open_tier(const char *settings)
{
	char spec[sizeof lab.config.tier[0]];

	snprintf(spec, sizeof spec, "redis:127.0.0.1:%u%s", server.port, settings);
	assert_int_equal(driven_open(&lab, 1, spec, answer_first), TY_OK);
	assert_int_equal(fcntl(server.listener, F_SETFL, O_NONBLOCK), 0);
}

static void close_tier(void)
{
	driven_stop(&lab);
	while (ty_runtime_step(lab.service->rt))
		;
	driven_close(&lab);
}

static struct ty_tier_io *new_io(enum ty_tier_verb verb, uint64_t number, uint32_t place, uint64_t bytes)
{
	struct ty_tier_io *io = calloc(1, sizeof *io + TY_CHUNK_MAX_PARTS * sizeof io->part[0]);
	struct ty_key *key = calloc(1, sizeof *key);

	memcpy(key->bytes, &number, sizeof number);
	io->verb = verb;
	io->keys = key;
	io->key_count = 1;
	if (verb != TY_TIER_PUT && verb != TY_TIER_GET)
		return io;
	io->parts = 1;
	io->part[0].data = lab.service->arena.base + place * ty_envelope_padded(bytes);
	io->part[0].length = bytes;
	memset(io->part[0].data, (int)number, bytes);
	io->part[0].checksum = ty_checksum(io->part[0].data, bytes);
	return io;
}

static void free_io(struct ty_tier_io *io)
{
	free((void *)(uintptr_t)io->keys);
	free(io);
}

static void hang_up(unsigned node)
{
	for (unsigned i = 0; i < CONNECTIONS; i++)
		if (server.fd[i] >= 0 && server.node[i] == node) {
			close(server.fd[i]);
			server.fd[i] = -1;
		}
}

/* Submit them; until so much time has passed. Those of an earlier one may still be out. */
static void begin(struct ty_tier_io **ios, unsigned count, int64_t pass)
{
	struct driven_batch batch = {.ios = ios, .count = count, .pass = pass};

	driven_submit(&lab, &batch);
	while (!lab.passed) {
		serve();
		assert_true(ty_runtime_step(lab.service->rt));
	}
	serve();
}

static void wait_home(unsigned count)
{
	while (lab.home < count) {
		serve();
		assert_true(ty_runtime_step(lab.service->rt));
	}
	serve();
	lab.home = 0;
}

/* Submit them; until all are home, and so much time has passed. */
static void run(struct ty_tier_io **ios, unsigned count, int64_t pass)
{
	begin(ios, count, pass);
	wait_home(count);
}

static enum ty_tier_outcome do_one(enum ty_tier_verb verb, uint64_t number, uint64_t bytes, int64_t pass)
{
	struct ty_tier_io *io = new_io(verb, number, 0, bytes);
	enum ty_tier_outcome outcome;

	run(&io, 1, pass);
	outcome = io->outcome;
	free_io(io);
	return outcome;
}

/* ---- tests ---------------------------------------------------------------------------------------------------------- */

/* A server that takes nothing and says nothing, and stays connected: what it was sent is not kept for ever, however long that lasts. */
static void test_hangs(void **state)
{
	enum { PUTS = 8, ROUNDS = 20 };
	uint64_t bytes = 1 << 20;
	struct ty_tier_io *ios[PUTS];
	size_t before, most = 0;

	(void)state;
	server.reads = false;
	open_tier(",timeout=10s");
	before = mallinfo2().uordblks + mallinfo2().hblkhd;
	for (unsigned round = 0; round < ROUNDS; round++) {
		size_t now;

		for (uint32_t i = 0; i < PUTS; i++)
			ios[i] = new_io(TY_TIER_PUT, round * PUTS + i, i, bytes);
		run(ios, PUTS, 10 * SECOND);
		for (uint32_t i = 0; i < PUTS; i++) {
			assert_true(ios[i]->outcome == TY_TIER_LATE || ios[i]->outcome == TY_TIER_FAILED);
			free_io(ios[i]);
		}
		now = mallinfo2().uordblks + mallinfo2().hblkhd;
		most = now > before + most ? now - before : most;
	}
	assert_in_range(most, 0, 4 * PUTS * bytes); /* not all that was ever sent */
	assert_true(server.accepted >= ROUNDS / 4);
	close_tier();
}

/* Where operations may take little time, a server that stumbles for longer keeps its connection. */
static void test_stumbles(void **state)
{
	(void)state;
	open_tier(",timeout=300ms");
	server.answers = ":1\r\n";
	assert_int_equal(do_one(TY_TIER_DELETE, 1, 0, SECOND), TY_TIER_DONE);
	server.reads = false;
	assert_int_equal(do_one(TY_TIER_DELETE, 1, 0, SECOND / 5 * 4), TY_TIER_LATE);
	server.reads = true;
	for (int i = 0; i < 10; i++)
		assert_int_equal(do_one(TY_TIER_DELETE, 1, 0, SECOND), TY_TIER_DONE);
	assert_int_equal(server.accepted, 1);
	close_tier();
}

/* A server that takes each connection and ends it at once, as one does that is full, or what stands before one that is gone. It is asked
 * ever more seldom, however often somebody wants something of it. */
static void test_ends_each_connection(void **state)
{
	(void)state;
	server.closes = true;
	server.says = *state;
	open_tier("");
	for (int i = 0; i < 300; i++)
		assert_int_equal(do_one(TY_TIER_EXISTS, 1, 0, SECOND / 10), TY_TIER_FAILED);
	assert_in_range(server.accepted, 5, 20); /* in 30 s: 50 ms, 100 ms, ... 5 s */
	close_tier();
}

/* A cluster whose nodes are replaced, by others with other addresses: in the end by more of them than are remembered. */
static void test_nodes_are_replaced(void **state)
{
	(void)state;
	open_tier("");
	server.answers = ":1\r\n";
	for (int i = 0; i < 40; i++) { /* the n-th connection of all is told that the key is at 127.0.1.n */
		for (unsigned k = 0; k < CONNECTIONS; k++)
			if (server.fd[k] >= 0) {
				close(server.fd[k]);
				server.fd[k] = -1;
			}
		run(NULL, 0, 10 * SECOND); /* that is noticed, and new connections may be made */
		server.moves = 4;
		assert_int_equal(do_one(TY_TIER_DELETE, 1, 0, SECOND), TY_TIER_DONE);
	}
	assert_true(server.accepted > 2 * REDIS_NODES);
	close_tier();
}

/* The chunk's slot is at the second node, as the first one says; then the connection with that one is lost, so that a PUT goes to the
 * first one again. */
static void put_to_the_wrong_node(struct ty_tier_io *put, char moved[64])
{
	char name[REDIS_NAME_MAX] = "tyer:";

	for (size_t i = 0; i < sizeof put->keys->bytes; i++)
		sprintf(name + strlen(name), "%02x", put->keys->bytes[i]);
	snprintf(moved, 64, "-MOVED %u 127.0.0.2:%u\r\n", redis_slot_of(name), server.port);
	server.node_answers[1] = moved;
	server.node_answers[2] = ":1\r\n";
	assert_int_equal(do_one(TY_TIER_DELETE, 1, 0, SECOND), TY_TIER_DONE);
	assert_string_equal(server.log, "1D2D");
	server.log[0] = '\0';
	hang_up(2);
	run(NULL, 0, SECOND / 100); /* that is noticed, and no new one made yet */
	server.held[1] = true;
	begin(&put, 1, SECOND / 10);
}

/* What changes one chunk does so in the order in which it came, also if the first one is told late that it is for another node, and the
 * second one is sent to that one at once. */
static void test_order(void **state)
{
	struct ty_tier_io *put, *delete;
	char moved[64];

	(void)state;
	open_tier("");
	put = new_io(TY_TIER_PUT, 1, 0, 1000);
	delete = new_io(TY_TIER_DELETE, 1, 0, 0);
	put_to_the_wrong_node(put, moved);
	begin(&delete, 1, SECOND / 10);
	server.held[1] = false;
	wait_home(2);
	assert_int_equal(put->outcome, TY_TIER_DONE);
	assert_int_equal(delete->outcome, TY_TIER_DONE);
	assert_string_equal(server.log, "1H2H2D");
	free_io(put);
	free_io(delete);
	close_tier();
}

/* One that waits for its turn is late at its deadline like any other, and never sent; and at the end nobody waits. */
static void test_late_in_turn(void **state)
{
	struct ty_tier_io *ios[4];
	char moved[64];

	(void)state;
	open_tier(",timeout=5s");
	for (uint32_t i = 0; i < 4; i++)
		ios[i] = new_io(i % 2 ? TY_TIER_DELETE : TY_TIER_PUT, 1, 0, 1000);
	put_to_the_wrong_node(ios[0], moved);
	begin(&ios[1], 2, 6 * SECOND);
	wait_home(3);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(ios[i]->outcome, TY_TIER_LATE);
	begin(&ios[3], 1, SECOND / 10);
	server.held[1] = false; /* the first one is over: nobody wants it any more, so it goes nowhere else */
	wait_home(1);
	assert_int_equal(ios[3]->outcome, TY_TIER_DONE);
	assert_string_equal(server.log, "1H2D");
	server.held[2] = true;
	for (uint32_t i = 0; i < 4; i++) {
		free_io(ios[i]);
		ios[i] = new_io(i % 2 ? TY_TIER_DELETE : TY_TIER_PUT, 1, 0, 1000);
	}
	begin(ios, 4, SECOND / 10);
	assert_int_equal(lab.home, 0);
	close_tier();
	assert_int_equal(lab.home, 4);
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(ios[i]->outcome, TY_TIER_STOPPED);
		free_io(ios[i]);
	}
}

/* ---- a connection by itself ------------------------------------------------------------------------------------------- */

static unsigned replies, ends;

static void on_reply(void *user, const redisReply *r)
{
	(void)user;
	*(r ? &replies : &ends) += 1;
}

/* Replies of so many bytes are allowed as a chunk may need, which are not many things then: lists in lists of nothing would take
 * ten and twenty times as much memory as they have bytes. */
static void test_trees(void **state)
{
	static char text[1 << 20];
	struct redis_bounds bounds = {.bytes = sizeof text};
	struct ty_error err = {.text = ""};
	struct redis_connection *c;
	size_t n = 0;

	(void)state;
	for (int i = 0; i <= 65; i++) {
		n += (size_t)sprintf(text + n, "*65\r\n");
		for (int k = 0; i && k < 65; k++)
			n += (size_t)sprintf(text + n, ":1\r\n");
	}
	assert_int_equal(fcntl(server.listener, F_SETFL, O_NONBLOCK), 0);
	server.says = text;
	c = redis_connect("127.0.0.1", server.port, NULL, NULL, &err);
	assert_non_null(c);
	replies = ends = 0;
	assert_true(redis_send(c, on_reply, NULL, &bounds, 1, &(const char *){"PING"}, &(size_t){4}));
	while (!replies && redis_step(c))
		serve();
	assert_int_equal(replies, 0);
	assert_int_equal(redis_error(c)->code, TY_PROTOCOL);
	redis_hang_up(c);
	assert_int_equal(ends, 1);
}

/* hiredis counts a command's bytes in an int: one that does not fit is refused, and not written into too little memory. */
static void test_command_too_long(void **state)
{
	enum { WORDS = 2 * TY_CHUNK_MAX_PARTS + 4 };
	static const size_t whole[] = {TY_PIECE_BYTES, TY_PIECE_BYTES / 2};
	char *part = calloc(1, TY_PIECE_BYTES);
	const char *words[WORDS];
	struct ty_error err = {.text = ""};
	struct redis_connection *c;
	size_t lengths[WORDS];

	(void)state;
	c = redis_connect("127.0.0.1", server.port, NULL, NULL, &err);
	assert_non_null(c);
	for (size_t i = 0; i < 2; i++) { /* 4 GiB and some, which is a small number in 32 bits; half of it, which is one below zero */
		for (int k = 0; k < WORDS; k++) {
			words[k] = part;
			lengths[k] = k % 2 ? whole[i] : 1;
		}
		assert_false(redis_send(c, on_reply, NULL, NULL, WORDS, words, lengths));
	}
	redis_hang_up(c);
	free(part);
}

/* So a chunk of that many bytes does not go there. */
static void test_chunk_too_large(void **state)
{
	struct ty_tier_io *io;

	(void)state;
	open_tier("");
	io = new_io(TY_TIER_PUT, 1, 0, TY_PIECE_BYTES);
	for (io->parts = 1; io->parts < TY_CHUNK_MAX_PARTS; io->parts++)
		io->part[io->parts] = io->part[0];
	run(&io, 1, SECOND);
	assert_int_equal(io->outcome, TY_TIER_FULL);
	assert_non_null(strstr(io->error, "expected at most"));
	free_io(io);
	close_tier();
}

int main(void)
{
	static char full[] = "-ERR max number of clients reached\r\n";
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_hangs, open_server, close_server),
		cmocka_unit_test_setup_teardown(test_stumbles, open_server, close_server),
		cmocka_unit_test_setup_teardown(test_ends_each_connection, open_server, close_server),
		{"test_ends_each_connection,refuses", test_ends_each_connection, open_server, close_server, full},
		cmocka_unit_test_setup_teardown(test_nodes_are_replaced, open_server, close_server),
		cmocka_unit_test_setup_teardown(test_order, open_server, close_server),
		cmocka_unit_test_setup_teardown(test_late_in_turn, open_server, close_server),
		cmocka_unit_test_setup_teardown(test_trees, open_server, close_server),
		cmocka_unit_test_setup_teardown(test_command_too_long, open_server, close_server),
		cmocka_unit_test_setup_teardown(test_chunk_too_large, open_server, close_server),
	};

	ty_log_setup(TY_LOG_ERROR, false);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
