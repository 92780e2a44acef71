/* SPDX-License-Identifier: Apache-2.0
 *
 * Ports: a foreign thread sends, asks and receives, by looking, by its descriptor, by waiting.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "runtime/runtime.h"
#include "runtime_test.h"

enum { ECHO = 1, ASK, KEEP, DIE, REPLY, DOWN, TICK, BACK };

struct note {
	struct ty_msg msg;
	uint32_t number;
	struct ty_actor *back_to;
};
struct question {
	struct ty_request request;
	int released;
};

static void release(struct ty_request *request)
{
	ty_container_of(request, struct question, request)->released++;
}

/* An actor that sends notes back, answers, or keeps a question. */
struct echo {
	struct ty_request *kept;
};

static void on_echo(void *self, struct ty_msg *msg)
{
	(void)self;
	if (ty_send(ty_container_of(msg, struct note, msg)->back_to, msg, BACK) != TY_OK)
		free(ty_container_of(msg, struct note, msg));
}

static void on_ask(void *self, struct ty_msg *msg)
{
	(void)self;
	ty_reply(ty_request_of(msg), TY_OK);
}

static void on_keep(void *self, struct ty_msg *msg)
{
	((struct echo *)self)->kept = ty_request_of(msg);
}

static void on_die(void *self, struct ty_msg *msg)
{
	(void)self;
	(void)msg;
	ty_actor_fail(TY_IO);
}

static void on_stop(void *self)
{
	if (((struct echo *)self)->kept)
		ty_reply(((struct echo *)self)->kept, TY_OK);
}

static const struct ty_handler handlers[] = {
	{"echo", on_echo}, {"ask", on_ask}, {"keep", on_keep}, {"die", on_die}};
static const struct ty_class cls = {.name = "echo", .state_size = sizeof(struct echo), .first_type = ECHO,
	.type_count = 4, .handlers = handlers, .stop = on_stop};

static struct ty_port *open_port(struct ty_runtime *rt, bool polled)
{
	struct ty_port_options options = {.size = sizeof options, .polled = polled};
	struct ty_port *port = NULL;

	assert_int_equal(ty_port_open(rt, &options, &port), TY_OK);
	assert_int_equal(ty_port_fd(port) >= 0, !polled);
	return port;
}

static bool readable(const struct ty_port *port)
{
	struct pollfd fd = {.fd = ty_port_fd(port), .events = POLLIN};

	return poll(&fd, 1, 0) == 1;
}

/* As a poll loop would. */
static struct ty_msg *receive(struct ty_port *port)
{
	struct pollfd fd = {.fd = ty_port_fd(port), .events = POLLIN};
	struct ty_msg *msg;

	while (!(msg = ty_port_receive(port)))
		if (fd.fd >= 0)
			assert_int_equal(poll(&fd, 1, -1), 1);
	return msg;
}

static void test_descriptor(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct ty_port *port = open_port(rt, false);
	struct note a = {.number = 1}, b = {.number = 2}, c = {.number = 3};

	(void)unused;
	assert_false(readable(port));
	assert_int_equal(ty_send(ty_port_address(port), &a.msg, 7), TY_OK);
	assert_true(readable(port));
	assert_int_equal(ty_send(ty_port_address(port), &b.msg, 8), TY_OK);
	assert_int_equal(ty_send_urgent(ty_port_address(port), &c.msg, 9), TY_OK);
	assert_ptr_equal(ty_port_receive(port), &c.msg);
	assert_int_equal(c.msg.type, 9);
	assert_ptr_equal(ty_port_receive(port), &a.msg);
	assert_ptr_equal(ty_port_receive(port), &b.msg);
	assert_null(ty_port_receive(port));
	assert_false(readable(port)); /* it had nothing: the descriptor is quiet */
	assert_null(ty_port_receive(port));
	assert_int_equal(ty_send(ty_port_address(port), &a.msg, 0), TY_OK);
	assert_true(readable(port)); /* and is not, once there is something again */
	assert_ptr_equal(ty_port_receive(port), &a.msg);
	/* sent while it is awake: no wake-up is paid for */
	assert_int_equal(ty_send(ty_port_address(port), &b.msg, UINT32_MAX), TY_OK);
	assert_ptr_equal(ty_port_receive(port), &b.msg);
	assert_int_equal(b.msg.type, UINT32_MAX);
	ty_port_close(port);
	ty_runtime_destroy(rt);
}

/* One wake for many sends, and an edge for each: what epoll's edge-triggered users need. */
static void test_edges(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct ty_port *port = open_port(rt, false);
	struct epoll_event event = {.events = EPOLLIN | EPOLLET};
	struct note notes[10] = {0};
	int fd = epoll_create1(EPOLL_CLOEXEC);

	(void)unused;
	assert_int_equal(epoll_ctl(fd, EPOLL_CTL_ADD, ty_port_fd(port), &event), 0);
	assert_int_equal(epoll_wait(fd, &event, 1, 0), 0);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 10; i++)
			assert_int_equal(ty_send(ty_port_address(port), &notes[i].msg, 1), TY_OK);
		assert_int_equal(epoll_wait(fd, &event, 1, 0), 1);
		assert_int_equal(epoll_wait(fd, &event, 1, 0), 0);
		for (int i = 0; i < 10; i++)
			assert_ptr_equal(ty_port_receive(port), &notes[i].msg);
		assert_null(ty_port_receive(port));
	}
	close(fd);
	ty_port_close(port);
	ty_runtime_destroy(rt);
}

static void test_polled(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct ty_port *port = open_port(rt, true);
	struct ty_actor *echo = spawn(rt, &cls, NULL, TY_POOL);
	struct note *note = calloc(1, sizeof *note);

	(void)unused;
	note->back_to = ty_port_address(port);
	assert_null(ty_port_receive(port));
	for (uint32_t i = 0; i < 100; i++) {
		note->number = i;
		assert_int_equal(ty_send(echo, &note->msg, ECHO), TY_OK);
		assert_ptr_equal(receive(port), &note->msg);
		assert_int_equal(note->msg.type, BACK);
		assert_int_equal(note->number, i);
	}
	free(note);
	ty_actor_unref(echo);
	ty_port_close(port);
	ty_runtime_destroy(rt);
}

static void test_ask(void **unused)
{
	(void)unused;
	for (int polled = 0; polled < 2; polled++) {
		struct ty_runtime *rt = make_runtime(1);
		struct ty_port *port = open_port(rt, polled);
		struct ty_actor *echo = spawn(rt, &cls, NULL, polled ? TY_DEDICATED : TY_POOL);
		struct question question = {.request.release = release}, kept = {.request.release = release};
		struct ty_msg *msg;
		int64_t began = ty_runtime_now(rt);

		assert_null(ty_self());
		ty_port_enter(port);
		assert_ptr_equal(ty_self(), ty_port_address(port));
		assert_true(ty_now() >= began);
		assert_int_equal(ty_ask(echo, &question.request, ASK, REPLY, TY_NEVER), TY_OK);
		ty_port_leave(port);
		assert_null(ty_self());
		msg = receive(port);
		assert_int_equal(msg->type, REPLY);
		assert_ptr_equal(ty_request_of_reply(msg), &question.request);
		assert_int_equal(question.request.code, TY_OK);
		assert_null(ty_port_receive(port));
		assert_int_equal(ty_port_next(port), TY_NEVER);
		/* one that is never answered: the deadline answers */
		ty_port_enter(port);
		assert_int_equal(ty_ask(echo, &kept.request, KEEP, REPLY, ty_now() + 1000000), TY_OK);
		ty_port_leave(port);
		assert_true(ty_port_next(port) != TY_NEVER);
		msg = polled ? receive(port) : ty_port_wait(port, TY_NEVER);
		assert_ptr_equal(ty_request_of_reply(msg), &kept.request);
		assert_int_equal(kept.request.code, TY_TIMEOUT);
		ty_port_enter(port);
		ty_request_release(&kept.request);
		ty_port_leave(port);
		assert_int_equal(kept.released, 0); /* the other end still has it */
		ty_port_close(port);
		ty_actor_unref(echo);
		ty_runtime_destroy(rt);
		assert_int_equal(kept.released, 1);
		assert_int_equal(question.released, 0);
	}
}

static void test_wait(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct ty_port *port = open_port(rt, false);
	struct ty_actor *echo = spawn(rt, &cls, NULL, TY_POOL);
	struct note *note = calloc(1, sizeof *note);
	struct ty_timer timer = {0};
	struct ty_msg *msg;

	(void)unused;
	assert_null(ty_port_wait(port, ty_runtime_now(rt) - 1));
	assert_null(ty_port_wait(port, ty_runtime_now(rt) + 1000000));
	note->back_to = ty_port_address(port);
	assert_int_equal(ty_send(echo, &note->msg, ECHO), TY_OK);
	assert_ptr_equal(ty_port_wait(port, TY_NEVER), &note->msg);
	/* a timer of the port's */
	ty_port_enter(port);
	ty_timer_start(&timer, TICK, ty_now() + 1000000);
	ty_port_leave(port);
	msg = ty_port_wait(port, TY_NEVER);
	assert_ptr_equal(msg, &timer.msg);
	assert_int_equal(msg->type, TICK);
	free(note);
	ty_port_close(port);
	ty_actor_unref(echo);
	ty_runtime_destroy(rt);
}

static void test_hears_of_an_end(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct ty_port *port = open_port(rt, false);
	struct ty_actor *echo = spawn(rt, &cls, NULL, TY_POOL), *found;
	struct ty_monitor monitor = {0}, other = {0};
	struct ty_msg die = TY_MSG_INIT, *msg;

	(void)unused;
	ty_port_enter(port);
	ty_monitor(echo, &monitor, DOWN);
	ty_port_leave(port);
	assert_int_equal(ty_send(echo, &die, DIE), TY_OK);
	msg = ty_port_wait(port, TY_NEVER);
	assert_int_equal(msg->type, DOWN);
	assert_ptr_equal(msg, &monitor.msg);
	assert_int_equal(monitor.reason, TY_IO);
	/* and is heard of itself */
	assert_int_equal(ty_name(ty_port_address(port), "desk"), TY_OK);
	assert_int_equal(ty_find(rt, "desk", &found), TY_OK);
	assert_ptr_equal(found, ty_port_address(port));
	ty_actor_unref(found);
	{
		struct ty_port *watcher = open_port(rt, false);

		ty_port_enter(watcher);
		ty_monitor(ty_port_address(port), &other, DOWN);
		ty_port_leave(watcher);
		assert_null(ty_port_receive(port)); /* takes note of who watches */
		ty_actor_stop(ty_port_address(port));
		assert_null(ty_port_receive(port)); /* a port is closed by its thread alone */
		ty_port_close(port);
		msg = ty_port_wait(watcher, TY_NEVER);
		assert_ptr_equal(msg, &other.msg);
		assert_int_equal(other.reason, TY_OK);
		assert_int_equal(ty_find(rt, "desk", &found), TY_CLOSED);
		ty_port_close(watcher);
	}
	ty_actor_unref(echo);
	ty_runtime_destroy(rt);
}

/* ---- closing ---- */

struct refused {
	uint32_t count;
	struct ty_msg *last;
};

static void on_refused(void *user, struct ty_msg *msg)
{
	struct refused *refused = user;

	refused->count++;
	refused->last = msg;
}

static void test_close(void **unused)
{
	(void)unused;
	for (int refuses = 0; refuses < 2; refuses++) {
		struct ty_runtime *rt = make_runtime(1);
		struct refused refused = {0};
		struct ty_port_options options = {.size = sizeof options, .user = &refused,
			.refuse = refuses ? on_refused : NULL};
		struct ty_port *port, *asker = open_port(rt, false);
		struct ty_actor *address;
		struct note a = {0}, b = {0};
		struct question question = {.request.release = release}, answered = {.request.release = release};
		struct ty_runtime_stats stats;

		assert_int_equal(ty_port_open(rt, &options, &port), TY_OK);
		address = ty_actor_ref(ty_port_address(port));
		assert_int_equal(ty_send(address, &a.msg, 1), TY_OK);
		assert_int_equal(ty_send(address, &b.msg, 2), TY_OK);
		ty_port_enter(asker);
		assert_int_equal(ty_ask(address, &question.request, ASK, REPLY, TY_NEVER), TY_OK);
		ty_port_leave(asker);
		assert_ptr_equal(ty_port_receive(port), &a.msg);
		/* an answer that is in the port when it closes */
		ty_port_enter(port);
		assert_int_equal(ty_ask(ty_port_address(asker), &answered.request, ASK, REPLY, TY_NEVER), TY_OK);
		ty_port_leave(port);
		ty_reply(ty_request_of(ty_port_wait(asker, TY_NEVER)), TY_OK);
		ty_port_close(port);
		assert_int_equal(refused.count, refuses ? 2 : 0);
		assert_int_equal(answered.released, refuses ? 0 : 1); /* with a refuse it is that one's */
		assert_null(ty_runtime_longest(rt).actor); /* its refuse and its stop are over: no watchdog names them */
		ty_runtime_stats(rt, &stats);
		assert_int_equal(stats.refused, 3);
		assert_int_equal(stats.dropped, refuses ? 0 : 1);
		assert_int_equal(ty_request_of_reply(ty_port_wait(asker, TY_NEVER))->code, TY_CLOSED);
		assert_int_equal(ty_send(address, &a.msg, 1), TY_CLOSED);
		ty_port_close(asker);
		ty_runtime_destroy(rt);
		ty_actor_unref(address); /* longer than the runtime */
	}
}

/* What the port's thread finds not to fit is refused at once: nothing of that goes on when it has left the port. */
static void test_misfit(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct refused refused = {0};
	struct ty_port_options options = {.size = sizeof options, .user = &refused, .refuse = on_refused};
	struct ty_port *port;
	struct note note = {0};
	struct ty_msg *msg;

	(void)unused;
	assert_int_equal(ty_port_open(rt, &options, &port), TY_OK);
	assert_int_equal(ty_send_typed(ty_port_address(port), &note.msg, ECHO, sizeof note), TY_OK);
	msg = ty_port_receive(port);
	assert_ptr_equal(msg, &note.msg);
	ty_port_enter(port);
	assert_false(ty_message_misfit(msg, sizeof note + 8));
	ty_port_leave(port);
	assert_ptr_equal(refused.last, &note.msg);
	assert_null(ty_runtime_longest(rt).actor);
	ty_port_close(port);
	ty_runtime_destroy(rt);
}

/* A loop that takes one message, and then waits for its descriptor or the port's next time, misses nothing: neither the second
 * of two timers, nor what was sent, without a wake, while the port was awake. */
static void one_at_a_time(struct ty_runtime *rt, bool polled)
{
	struct ty_port *port = open_port(rt, polled);
	struct ty_timer timers[2] = {0};
	struct note note = {0};

	ty_port_enter(port);
	ty_timer_start(&timers[0], TICK, INT64_MIN);
	ty_timer_start(&timers[1], TICK, INT64_MIN);
	ty_port_leave(port);
	assert_true(ty_port_next(port) >= 0); /* a time of the clock's: who subtracts another from it is within the range */
	assert_true(ty_port_next(port) <= ty_runtime_now(rt));
	assert_ptr_equal(ty_port_receive(port), &timers[0].msg);
	assert_true(ty_port_next(port) <= ty_runtime_now(rt));
	assert_ptr_equal(ty_port_receive(port), &timers[1].msg);
	assert_int_equal(ty_send(ty_port_address(port), &note.msg, ECHO), TY_OK);
	assert_true(polled || ty_port_next(port) <= ty_runtime_now(rt));
	assert_ptr_equal(ty_port_receive(port), &note.msg);
	assert_null(ty_port_receive(port));
	assert_int_equal(ty_port_next(port), TY_NEVER);
	ty_port_close(port);
}

static void test_one_at_a_time(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);

	(void)unused;
	one_at_a_time(rt, false);
	one_at_a_time(rt, true);
	ty_runtime_destroy(rt);
}

/* By programs that were compiled with another version's header. */
static void test_opened_by_other_versions(void **unused)
{
	struct {
		struct ty_port_options known;
		uint64_t later;
	} newer = {.known = {.size = sizeof newer, .polled = true}};
	struct ty_port_options older = {.size = offsetof(struct ty_port_options, polled), .polled = true};
	struct ty_runtime *rt = make_runtime(1);
	struct ty_port *port = NULL;

	(void)unused;
	assert_int_equal(ty_port_open(rt, &newer.known, &port), TY_OK);
	assert_int_equal(ty_port_fd(port), -1);
	ty_port_close(port);
	assert_int_equal(ty_port_open(rt, &older, &port), TY_OK);
	assert_true(ty_port_fd(port) >= 0); /* `polled` is not its */
	ty_port_close(port);
	ty_runtime_destroy(rt);
}

static void test_refused_to_open(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct ty_port_options options = {.size = 3};
	struct {
		struct ty_port_options known;
		uint64_t later;
	} newer = {.known = {.size = sizeof newer}};
	struct ty_seat *seats[TY_MAX_WORKERS + TY_MAX_DEDICATED];
	struct rlimit before, none;
	struct ty_port *port = NULL;
	size_t taken = 0;

	(void)unused;
	assert_int_equal(ty_port_open(rt, &options, &port), TY_INVALID);
	newer.later = 1;
	assert_int_equal(ty_port_open(rt, &newer.known, &port), TY_UNSUPPORTED);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = (struct rlimit){0, before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_int_equal(ty_port_open(rt, NULL, &port), TY_LIMIT);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	while (ty_seat_take(rt, &seats[taken]) == TY_OK)
		taken++;
	assert_int_equal(taken, TY_MAX_DEDICATED); /* however few workers there are */
	assert_int_equal(ty_port_open(rt, NULL, &port), TY_LIMIT);
	assert_null(port);
	ty_seat_leave(seats[0]);
	assert_int_equal(ty_port_open(rt, NULL, &port), TY_OK);
	ty_port_close(port);
	ty_runtime_destroy(rt);
}

static void test_deterministic(void **unused)
{
	(void)unused;
	for (uint64_t seed = 1; seed <= 200; seed++) {
		struct ty_runtime_options options = {.size = sizeof options, .seed = seed};
		struct ty_runtime *rt;
		struct ty_port *port;
		struct ty_actor *echo;
		struct note notes[5] = {0};
		struct question kept = {0};
		uint32_t back = 0;
		struct ty_msg *msg;

		assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
		port = open_port(rt, seed % 2);
		echo = spawn(rt, &cls, NULL, TY_POOL);
		for (uint32_t i = 0; i < 5; i++) {
			notes[i] = (struct note){.number = i, .back_to = ty_port_address(port)};
			assert_int_equal(ty_send(echo, &notes[i].msg, ECHO), TY_OK);
		}
		ty_port_enter(port);
		assert_int_equal(ty_ask(echo, &kept.request, KEEP, REPLY, ty_now() + 5000), TY_OK);
		ty_port_leave(port);
		while (ty_runtime_step(rt)) {
			while ((msg = ty_port_receive(port))) {
				if (msg->type == REPLY)
					assert_int_equal(kept.request.code, TY_TIMEOUT);
				else
					assert_int_equal(ty_container_of(msg, struct note, msg)->number, back++);
			}
		}
		assert_int_equal(back, 5);
		ty_port_close(port);
		ty_actor_unref(echo);
		ty_runtime_destroy(rt);
	}
}

/* ---- many senders ---- */

enum { SENDERS = 3, EACH = 3000 };

struct sender {
	struct ty_actor *to;
	struct note notes[EACH];
};

static void *send_all(void *arg)
{
	struct sender *sender = arg;

	for (uint32_t i = 0; i < EACH; i++) {
		sender->notes[i].number = i;
		assert_int_equal(ty_send(sender->to, &sender->notes[i].msg, ECHO), TY_OK);
	}
	return NULL;
}

static void test_nothing_is_lost(void **unused)
{
	(void)unused;
	for (int polled = 0; polled < 2; polled++) {
		struct ty_runtime *rt = make_runtime(1);
		struct ty_port *port = open_port(rt, polled);
		struct sender *senders = calloc(SENDERS, sizeof *senders);
		uint32_t next[SENDERS] = {0};
		pthread_t threads[SENDERS];

		for (int i = 0; i < SENDERS; i++) {
			senders[i].to = ty_port_address(port);
			assert_int_equal(pthread_create(&threads[i], NULL, send_all, &senders[i]), 0);
		}
		for (int i = 0; i < SENDERS * EACH; i++) {
			struct ty_msg *msg = polled ? receive(port) : ty_port_wait(port, TY_NEVER);
			struct note *note = ty_container_of(msg, struct note, msg);
			size_t from = (size_t)((char *)note - (char *)senders) / sizeof *senders;

			assert_true(from < SENDERS);
			assert_int_equal(note->number, next[from]++); /* in order, of each */
		}
		assert_null(ty_port_receive(port));
		ty_port_close(port); /* the last may just be in its wake */
		for (int i = 0; i < SENDERS; i++)
			pthread_join(threads[i], NULL);
		ty_runtime_destroy(rt);
		free(senders);
	}
}

/* Closed while others send: each message is received, refused, or still its sender's. */
struct closing {
	struct ty_actor *to;
	struct ty_msg msgs[EACH];
	uint32_t closed;
};

static void *send_until_closed(void *arg)
{
	struct closing *c = arg;

	for (uint32_t i = 0; i < EACH; i++)
		c->closed += ty_send(c->to, &c->msgs[i], ECHO) != TY_OK;
	ty_actor_unref(c->to);
	return NULL;
}

static void test_closed_while_others_send(void **unused)
{
	(void)unused;
	for (int round = 0; round < 20; round++) {
		struct ty_runtime *rt = make_runtime(1);
		struct refused refused = {0};
		struct ty_port_options options = {.size = sizeof options, .refuse = on_refused, .user = &refused};
		struct closing *all = calloc(SENDERS, sizeof *all);
		uint32_t received = 0, closed = 0;
		pthread_t threads[SENDERS];
		struct ty_port *port;

		assert_int_equal(ty_port_open(rt, &options, &port), TY_OK);
		for (int i = 0; i < SENDERS; i++) {
			all[i].to = ty_actor_ref(ty_port_address(port));
			assert_int_equal(pthread_create(&threads[i], NULL, send_until_closed, &all[i]), 0);
		}
		while (received < (uint32_t)round * 100) {
			if (ty_port_wait(port, TY_NEVER))
				received++;
		}
		ty_port_close(port);
		for (int i = 0; i < SENDERS; i++) {
			pthread_join(threads[i], NULL);
			closed += all[i].closed;
		}
		assert_int_equal(received + refused.count + closed, SENDERS * EACH);
		ty_runtime_destroy(rt);
		free(all);
	}
}

static bool keep_text(void *user, const char *text, size_t length)
{
	(void)text;
	*(size_t *)user += length;
	return true;
}

static void test_seen_from_outside(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct ty_port *port = open_port(rt, false);
	struct ty_actor *echo = spawn(rt, &cls, NULL, TY_POOL);
	struct note note = {.back_to = ty_port_address(port)};
	struct ty_actor_stats stats;
	size_t length = 0;

	(void)unused;
	assert_int_equal(ty_send(echo, &note.msg, ECHO), TY_OK);
	assert_ptr_equal(ty_port_wait(port, TY_NEVER), &note.msg);
	ty_actor_stats(ty_port_address(port), &stats);
	assert_int_equal(stats.messages, 1);
	assert_int_equal(stats.queue_high, 1);
	assert_int_equal(ty_runtime_trace(rt, keep_text, &length), TY_OK);
	assert_true(length > 0);
	ty_port_close(port);
	ty_actor_unref(echo);
	ty_runtime_destroy(rt);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_descriptor),
		cmocka_unit_test(test_edges),
		cmocka_unit_test(test_polled),
		cmocka_unit_test(test_ask),
		cmocka_unit_test(test_wait),
		cmocka_unit_test(test_hears_of_an_end),
		cmocka_unit_test(test_close),
		cmocka_unit_test(test_misfit),
		cmocka_unit_test(test_one_at_a_time),
		cmocka_unit_test(test_opened_by_other_versions),
		cmocka_unit_test(test_refused_to_open),
		cmocka_unit_test(test_deterministic),
		cmocka_unit_test(test_nothing_is_lost),
		cmocka_unit_test(test_closed_while_others_send),
		cmocka_unit_test(test_seen_from_outside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
