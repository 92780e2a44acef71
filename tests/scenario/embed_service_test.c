/* SPDX-License-Identifier: Apache-2.0
 *
 * Services in the place of ours that an owner in this process has to live with: they take it and lose it again and
 * again, do not listen, or take nobody; or there is no memory to answer them.
 */
#include "embed_house.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/reconnect.h"
#include "cache/arena.h"
#include "embed/link.h"
#include "wire/attach.h"
#include "wire/owner.h"

/* ---- a service that is not ours ---------------------------------------------------------------------------- */

struct impostor {
	char dir[64], path[100];
	int listener;
	struct ty_arena arena;
	struct ty_owner_stream stream; /* to the owner that it took */
	struct ty_owner_frame last;
	int64_t came;                  /* when it did */
	struct ty_embed *embed;
	struct ty_error why;           /* there is none */
	_Atomic bool opened;           /* or refused */
};

static void impostor_start(struct impostor *i)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct ty_error err;

	memset(i, 0, sizeof *i);
	ty_owner_stream_open(&i->stream, -1, 0);
	strcpy(i->dir, "/tmp/tyer-impostor-XXXXXX");
	assert_non_null(mkdtemp(i->dir));
	snprintf(i->path, sizeof i->path, "%s/attach", i->dir);
	strcpy(address.sun_path, i->path);
	i->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(i->listener, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(i->listener, 8), 0);
	assert_int_equal(ty_arena_open(2 * TY_PIECE_BYTES, &i->arena, &err), TY_OK);
}

static void impostor_stop(struct impostor *i)
{
	ty_owner_stream_close(&i->stream);
	ty_arena_close(&i->arena);
	close(i->listener);
	unlink(i->path);
	rmdir(i->dir);
}

/* The next frame of this type; TY_CLOSED: the owner is gone. */
static enum ty_code impostor_wait(struct impostor *i, enum ty_owner_type type)
{
	struct pollfd p = {.events = POLLIN};
	struct ty_error err;
	enum ty_code code;

	do {
		p.fd = i->stream.fd;
		while ((code = ty_owner_take(&i->stream, &i->last, &err)) == TY_BUSY)
			poll(&p, 1, -1);
	} while (code == TY_OK && i->last.type != type);
	return code;
}

/* Waits until the socket takes it. TY_CLOSED: the owner is gone. */
static enum ty_code impostor_say(struct impostor *i, const struct ty_owner_frame *frame)
{
	struct pollfd p = {.fd = i->stream.fd, .events = POLLOUT};
	struct ty_error err;
	enum ty_code code;

	assert_int_equal(ty_owner_put(&i->stream, frame, &err), TY_OK);
	while ((code = ty_owner_flush(&i->stream, &err)) == TY_BUSY)
		poll(&p, 1, -1);
	return code;
}

/* Takes the next owner that comes, and welcomes it. */
static void impostor_take(struct impostor *i)
{
	struct ty_attach_frame welcome = {.type = TY_ATTACH_WELCOME}, embed;
	struct ty_owner_frame frame = {.type = TY_OWNER_WELCOME};
	int attach = accept4(i->listener, NULL, NULL, SOCK_CLOEXEC), page, pair;
	struct pollfd p = {.fd = attach, .events = POLLIN};
	struct ty_error err;

	struct timespec now;

	assert_true(attach >= 0);
	clock_gettime(CLOCK_MONOTONIC, &now);
	i->came = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	assert_int_equal(ty_attach_timeline_create(&page, &err), TY_OK);
	assert_int_equal(ty_attach_send(attach, &welcome, page, &err), TY_OK);
	close(page);
	assert_int_equal(poll(&p, 1, -1), 1);
	assert_int_equal(ty_attach_recv(attach, &embed, &pair, &err), TY_OK);
	assert_int_equal(embed.type, TY_ATTACH_EMBED);
	close(attach);
	ty_owner_stream_close(&i->stream);
	ty_owner_stream_open(&i->stream, pair, TY_OWNER_TO_SERVICE_MAX);
	assert_int_equal(impostor_wait(i, TY_OWNER_HELLO), TY_OK);
	frame.welcome.boot = 1;
	frame.welcome.arena_bytes = i->arena.bytes;
	frame.welcome.piece_bytes = TY_PIECE_BYTES;
	i->stream.send_fd = i->arena.fd;
	assert_int_equal(impostor_say(i, &frame), TY_OK);
}

static void *open_there(void *user)
{
	struct impostor *i = user;
	struct ty_embed_options o = {.size = sizeof o, .attach_path = i->path, .device = "host", .name = "test"};

	if (ty_embed_open(&o, &i->embed, &i->why) != TY_OK)
		fprintf(stderr, "%s: %s\n", ty_code_name(i->why.code), i->why.text);
	atomic_store(&i->opened, true);
	return NULL;
}

/* An owner of ours, with it. */
static void impostor_and_owner(struct impostor *i)
{
	pthread_t opener;

	impostor_start(i);
	assert_int_equal(pthread_create(&opener, NULL, open_there, i), 0);
	impostor_take(i);
	pthread_join(opener, NULL);
	assert_non_null(i->embed);
}

/* ---- taken and lost ---------------------------------------------------------------------------------------- */

/* What was UP for less than a second has not been back: attempts go further and further apart. How long the owner was UP this thread does
 * not know, it may have had to wait for a CPU; but who was UP for a second comes again a second after it came, or later. */
static void test_taken_and_lost(void **state)
{
	int64_t least = TY_RECONNECT_MIN_NS;
	struct impostor i;

	(void)state;
	impostor_and_owner(&i);
	for (int round = 0; round < 6; round++) {
		int64_t before = i.came;

		while (ty_embed_state(i.embed) != TY_OK)
			poll(NULL, 0, 1);
		ty_owner_stream_close(&i.stream);
		impostor_take(&i);
		if (i.came - before >= TY_RECONNECT_BRIEF_NS) {
			least = TY_RECONNECT_MIN_NS; /* it may have been back for a while */
			continue;
		}
		assert_true(i.came - before >= least - least / 4);
		least *= 2;
	}
	close_owner(i.embed);
	impostor_stop(&i);
}

/* ---- asks and does not listen ------------------------------------------------------------------------------ */

static void test_does_not_read(void **state)
{
	const struct ty_owner_frame ask = {.type = TY_OWNER_MAP}, piece = {.type = TY_OWNER_PIECE};
	struct ty_embed_stats stats = {.pieces = 0};
	socklen_t length = sizeof(int);
	enum ty_code code = TY_OK;
	struct impostor i;
	int room;

	(void)state;
	impostor_and_owner(&i);
	assert_int_equal(getsockopt(i.stream.fd, SOL_SOCKET, SO_SNDBUF, &room, &length), 0);
	/* an answer, that there is no such memory, has more than 50 bytes; and its socket may take as much as ours */
	for (size_t left = (LINK_OUT_MAX + (size_t)room) / 50; left && code == TY_OK; left--)
		code = impostor_say(&i, &ask);
	if (code == TY_OK)
		code = impostor_say(&i, &piece); /* is behind all that */
	while (code == TY_OK && ty_embed_state(i.embed) == TY_OK && !stats.pieces) {
		poll(NULL, 0, 1);
		ty_embed_stats(i.embed, &stats);
	}
	assert_int_equal(ty_embed_state(i.embed), TY_LIMIT);
	impostor_take(&i); /* it comes again */
	while (ty_embed_state(i.embed) != TY_OK)
		poll(NULL, 0, 1);
	close_owner(i.embed);
	impostor_stop(&i);
}

/* Asks for so many answers that the service's socket cannot hold them, but no more than the owner keeps. */
static uint32_t ask_for_much(struct impostor *i)
{
	const struct ty_owner_frame ask = {.type = TY_OWNER_MAP}, piece = {.type = TY_OWNER_PIECE};
	struct ty_embed_stats stats = {.pieces = 0};
	socklen_t length = sizeof(int);
	uint32_t count;
	int room;

	assert_int_equal(getsockopt(i->stream.fd, SOL_SOCKET, SO_SNDBUF, &room, &length), 0);
	count = (uint32_t)room / 50 + 1000; /* an answer has more than 50 bytes */
	assert_true(count < LINK_OUT_MAX / 200);
	for (uint32_t k = 0; k < count; k++)
		assert_int_equal(impostor_say(i, &ask), TY_OK);
	assert_int_equal(impostor_say(i, &piece), TY_OK); /* is behind all that */
	while (!stats.pieces) {
		poll(NULL, 0, 1);
		ty_embed_stats(i->embed, &stats);
	}
	return count;
}

/* The owner has nothing under way when it is closed, but has not been heard: that is not its device's fault. */
static void test_closed_and_not_heard(void **state)
{
	struct ty_error err = {.text = ""};
	enum ty_code code = TY_OK;
	struct impostor i;
	uint32_t count;

	(void)state;
	impostor_and_owner(&i);
	count = ask_for_much(&i);
	for (int tries = 0; tries < 10000 && code != TY_TIMEOUT; tries++) { /* its thread may not have come to it yet */
		code = ty_embed_close(i.embed, 1000, &err);
		assert_int_not_equal(code, TY_OK);
	}
	assert_int_equal(code, TY_TIMEOUT);
	assert_non_null(strstr(err.text, "the service does not read"));
	while (count--)
		assert_int_equal(impostor_wait(&i, TY_OWNER_MAPPED), TY_OK);
	close_owner(i.embed);
	impostor_stop(&i);
}

/* ---- another version's header ------------------------------------------------------------------------------ */

static void test_other_versions(void **state)
{
	struct {
		struct ty_embed_options known;
		uint64_t later;
	} newer = {.known = {.size = sizeof newer, .attach_path = "/nonexistent/attach", .device = "host"}, .later = 1};
	struct ty_embed_options older = newer.known;
	struct ty_embed *embed;
	struct ty_error err;

	(void)state;
	assert_int_equal(ty_embed_open(&newer.known, &embed, &err), TY_UNSUPPORTED);
	assert_non_null(strstr(err.text, "options.size"));
	newer.later = 0;
	assert_int_equal(ty_embed_open(&newer.known, &embed, &err), TY_CLOSED);
	older.size = sizeof older;
	older.sharing = (enum ty_embed_sharing)99;
	assert_int_equal(ty_embed_open(&older, &embed, &err), TY_INVALID);
	older.size = offsetof(struct ty_embed_options, sharing);
	assert_int_equal(ty_embed_open(&older, &embed, &err), TY_CLOSED);
}

/* ---- takes nobody ------------------------------------------------------------------------------------------ */

static _Atomic uint32_t turned_away; /* how often the link found the backlog full */

static bool is_thread(const char *name)
{
	char found[16];

	return pthread_getname_np(pthread_self(), found, sizeof found) == 0 && strcmp(found, name) == 0;
}

int __real_connect(int fd, const struct sockaddr *address, socklen_t length);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t length);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t length)
{
	int rv = __real_connect(fd, address, length);

	if (rv != 0 && errno == EAGAIN && is_thread("tyer-link")) {
		atomic_fetch_add(&turned_away, 1);
		errno = EAGAIN;
	}
	return rv;
}

/* As many as go in; returns how many. */
static int fill_backlog(const struct impostor *i, int *fds, int max)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	strcpy(address.sun_path, i->path);
	for (int n = 0; n < max; n++) {
		fds[n] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		assert_true(fds[n] >= 0);
		if (connect(fds[n], (const struct sockaddr *)&address, sizeof address) == 0)
			continue;
		assert_int_equal(errno, EAGAIN);
		close(fds[n]);
		return n;
	}
	fail_msg("a backlog of 1 takes %d", max);
	return max;
}

static void test_backlog_is_full(void **state)
{
	struct ty_embed_options o = {.size = sizeof o, .device = "host", .name = "test", .connect_timeout_us = 20000};
	struct ty_embed *embed = (struct ty_embed *)(uintptr_t)1;
	struct ty_error err = {.text = ""};
	enum ty_code code = TY_OK;
	pthread_t opener;
	struct impostor i;
	int fds[16], count;

	(void)state;
	impostor_start(&i);
	o.attach_path = i.path;
	assert_int_equal(listen(i.listener, 1), 0);
	count = fill_backlog(&i, fds, 16);
	assert_true(count >= 1);
	for (int tries = 0; tries < 10 && code != TY_BUSY; tries++) { /* on a busy machine its thread may not even begin in so short a time */
		code = ty_embed_open(&o, &embed, &err);
		assert_true(code == TY_BUSY || code == TY_TIMEOUT);
		assert_null(embed);
		o.connect_timeout_us *= 2;
	}
	assert_int_equal(code, TY_BUSY);
	assert_non_null(strstr(err.text, "its backlog is full"));

	/* and who has the time is taken when there is room */
	atomic_store(&turned_away, 0);
	assert_int_equal(pthread_create(&opener, NULL, open_there, &i), 0);
	while (atomic_load(&turned_away) < 2 && !atomic_load(&i.opened))
		poll(NULL, 0, 1);
	assert_false(atomic_load(&i.opened));
	for (int n = 0; n < count; n++) {
		close(accept(i.listener, NULL, NULL));
		close(fds[n]);
	}
	impostor_take(&i);
	pthread_join(opener, NULL);
	assert_non_null(i.embed);
	close_owner(i.embed);
	impostor_stop(&i);
}

/* ---- no memory for an answer ------------------------------------------------------------------------------- */

static _Atomic bool held, no_memory; /* what follows, of an owner in this process and of its link */

/* A piece waits, as long as it is told to, and cannot be registered then. */
enum ty_code __real_ty_device_register_host(struct ty_device *dev, void *base, size_t bytes, struct ty_error *err);
enum ty_code __wrap_ty_device_register_host(struct ty_device *dev, void *base, size_t bytes, struct ty_error *err);
enum ty_code __wrap_ty_device_register_host(struct ty_device *dev, void *base, size_t bytes, struct ty_error *err)
{
	if (!is_thread("tyer-owner") || !atomic_load(&held))
		return __real_ty_device_register_host(dev, base, bytes, err);
	while (atomic_load(&held))
		poll(NULL, 0, 1);
	return ty_fail(err, TY_DEVICE_FAILED, "as told");
}

enum ty_code __real_ty_owner_put(struct ty_owner_stream *stream, const struct ty_owner_frame *frame, struct ty_error *err);
enum ty_code __wrap_ty_owner_put(struct ty_owner_stream *stream, const struct ty_owner_frame *frame, struct ty_error *err);
enum ty_code __wrap_ty_owner_put(struct ty_owner_stream *stream, const struct ty_owner_frame *frame, struct ty_error *err)
{
	if (is_thread("tyer-link") && atomic_load(&no_memory))
		return ty_fail(err, TY_NO_MEMORY, "as told");
	return __real_ty_owner_put(stream, frame, err);
}

/* Grants of a pool of c's that wait for a piece, and that the link has looked at. */
static void grant_some(struct impostor *i, struct h_client *c)
{
	static const uint32_t ids[H_PER_CHUNK] = {0, 1, 2, 3};
	static const uint32_t *const blocks[1] = {ids};
	struct ty_owner_frame map = {.type = TY_OWNER_MAP}, piece = {.type = TY_OWNER_PIECE}, grant = {.type = TY_OWNER_GRANT},
		ask = {.type = TY_OWNER_MAP};
	struct ty_pool *pool = own_pool(c);
	struct ty_layout *layout;
	uint64_t offset = 0;
	struct ty_error err;

	assert_int_equal(ty_embed_offer(i->embed, c->client, pool, &err), TY_OK);
	assert_int_equal(ty_layout_create(pool, H_CHUNK_TOKENS, TY_PIECE_BYTES, &layout, &err), TY_OK);
	map.map.map = 1;
	map.map.memory = pool->memory;
	map.map.chunk_tokens = H_CHUNK_TOKENS;
	map.map.chunk_bytes = layout->chunk_bytes;
	memcpy(map.map.fingerprint, layout->fingerprint, TY_KEY_BYTES);
	free(layout);
	assert_int_equal(impostor_say(i, &map), TY_OK);
	assert_int_equal(impostor_wait(i, TY_OWNER_MAPPED), TY_OK);
	assert_int_equal(i->last.end.code, TY_OK);
	atomic_store(&held, true);
	assert_int_equal(impostor_say(i, &piece), TY_OK);
	grant.grant = (struct ty_owner_grant){.map = 1, .weight = 1, .left_us = UINT64_MAX, .store = true, .count = 1,
		.blocks_per_chunk = H_PER_CHUNK, .offsets = &offset, .blocks = blocks};
	for (grant.grant.op = 1; grant.grant.op <= 8; grant.grant.op++)
		assert_int_equal(impostor_say(i, &grant), TY_OK);
	ask.map.map = 2; /* there is none; it is behind all that */
	assert_int_equal(impostor_say(i, &ask), TY_OK);
	assert_int_equal(impostor_wait(i, TY_OWNER_MAPPED), TY_OK);
	assert_int_equal(i->last.end.number, 2);
}

/* The first of many answers at once finds no memory, and the connection is over: while a piece comes home, and while the owner is closed. */
static void no_memory_for_many(bool closing)
{
	struct ty_error err;
	struct impostor i;
	struct h_client c;

	start();
	impostor_and_owner(&i);
	h_open(&service, &c, NULL, "a", 0, 0);
	grant_some(&i, &c);
	atomic_store(&no_memory, true);
	if (closing) {
		assert_int_equal(ty_embed_close(i.embed, 0, &err), TY_DEVICE_STALLED);
		while (ty_embed_state(i.embed) != TY_NO_MEMORY)
			poll(NULL, 0, 1);
	}
	atomic_store(&held, false);
	assert_int_equal(impostor_wait(&i, TY_OWNER_DONE), TY_CLOSED);
	atomic_store(&no_memory, false);
	if (!closing) {
		impostor_take(&i);
		while (ty_embed_state(i.embed) != TY_OK)
			poll(NULL, 0, 1);
	}
	close_owner(i.embed);
	impostor_stop(&i);
	h_close(&c);
	h_stop(&service);
}

static void test_no_memory_when_a_piece_is_home(void **state)
{
	(void)state;
	no_memory_for_many(false);
}

static void test_no_memory_when_closed(void **state)
{
	(void)state;
	no_memory_for_many(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_taken_and_lost),
		cmocka_unit_test(test_does_not_read),
		cmocka_unit_test(test_closed_and_not_heard),
		cmocka_unit_test(test_other_versions),
		cmocka_unit_test(test_backlog_is_full),
		cmocka_unit_test(test_no_memory_when_a_piece_is_home),
		cmocka_unit_test(test_no_memory_when_closed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
