/* SPDX-License-Identifier: Apache-2.0
 *
 * Services in the place of ours that an owner in this process has to live with: they take it and lose it again and
 * again, do not listen.
 */
#include "embed_house.h"

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
	struct ty_error err = {.code = TY_OK};

	if (ty_embed_open(&o, &i->embed, &err) != TY_OK)
		fprintf(stderr, "%s: %s\n", ty_code_name(err.code), err.text);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_taken_and_lost),
		cmocka_unit_test(test_does_not_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
