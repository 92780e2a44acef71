/* SPDX-License-Identifier: Apache-2.0
 *
 * The client library when its service goes away and comes back: what is in flight ends at once, nothing is sent meanwhile,
 * and what comes back has the pools and the timeline that were there before.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/internal.h"
#include "pair.h"

#define STEP_US 100000 /* of one poll in a loop that ends when something has happened */

/* What the fake service heard and what it calls pools: the thread's, read by the test when a request was answered. */
struct ears {
	uint32_t hellos, registers, retrieves, next_number, last_number, register_us, retrieve_us;
	uint8_t engine[16];
	bool refuse_register, hold_retrieves;
};

static enum fake_answer listen_to(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	static Tyer__V1__RegisterReply registered;
	static Tyer__V1__RetrieveReply retrieved;
	static uint8_t fingerprint[32];
	struct ears *ears = f->options.user;

	switch (request->verb_case) {
	case TYER__V1__REQUEST__VERB_HELLO:
		if (ears->hellos++ > 0 && memcmp(ears->engine, request->hello->engine.data, 16) != 0)
			reply->code = TYER__V1__CODE__INTERNAL; /* it is the same engine as before */
		memcpy(ears->engine, request->hello->engine.data, 16);
		fake_hello(f, reply);
		return FAKE_REPLY;
	case TYER__V1__REQUEST__VERB_REGISTER:
		ears->registers++;
		ears->register_us = request->timeout_us;
		if (ears->refuse_register) {
			reply->code = TYER__V1__CODE__DEVICE_FAILED;
			reply->error = (char *)"device: it has failed";
			return FAKE_REPLY;
		}
		tyer__v1__register_reply__init(&registered);
		registered.registration = ++ears->next_number;
		registered.fingerprint = (ProtobufCBinaryData){.len = 32, .data = fingerprint};
		reply->verb_case = TYER__V1__REPLY__VERB_REGISTER;
		reply->register_ = &registered;
		return FAKE_REPLY;
	case TYER__V1__REQUEST__VERB_RETRIEVE:
		ears->retrieves++;
		ears->retrieve_us = request->timeout_us;
		ears->last_number = request->retrieve->registration;
		tyer__v1__retrieve_reply__init(&retrieved);
		retrieved.chunks = 1;
		reply->verb_case = TYER__V1__REPLY__VERB_RETRIEVE;
		reply->retrieve = &retrieved;
		return ears->hold_retrieves ? FAKE_HOLD : FAKE_REPLY;
	default:
		return FAKE_REPLY;
	}
}

struct world {
	struct ears ears;
	struct fake fake;
	struct ty_client *client;
	uint32_t handle;
	uint32_t away, up;
	enum ty_client_state last;
};

static void on_changed(void *user, enum ty_client_state state)
{
	struct world *w = user;

	w->away += state == TY_CLIENT_AWAY;
	w->up += state == TY_CLIENT_UP;
	w->last = state;
}

static void open_world(struct world *w)
{
	struct fake_options fo = {.answer = listen_to, .user = &w->ears};
	struct ty_client_options o;
	struct ty_error err;

	memset(w, 0, sizeof *w);
	fake_start(&w->fake, &fo);
	o = fake_client_options(&w->fake);
	o.changed = on_changed;
	o.changed_user = w;
	if (ty_client_open(&o, &w->client, &err) != TY_OK)
		fail_msg("%s", err.text);
}

static void close_world(struct world *w)
{
	ty_client_close(w->client);
	fake_stop(&w->fake);
}

static enum ty_code finish(struct world *w, enum ty_code sent, struct outcome *o)
{
	if (sent != TY_OK)
		return sent;
	while (o->calls == 0)
		ty_client_poll(w->client, 0, STEP_US);
	assert_int_equal(o->calls, 1);
	return o->result.code;
}

static void register_pool(struct world *w)
{
	static const struct ty_plane plane;
	static const struct ty_group group = {16, 1, 256, 256, 1, &plane};
	struct ty_region region = {.is_fd = true, .allocation_bytes = 4096, .length = 4096};
	struct ty_pool pool = {.region_count = 1, .group_count = 1, .regions = &region, .groups = &group, .parts = 1};
	struct outcome o = {0};

	region.fd = memfd_create("pool", MFD_CLOEXEC);
	assert_int_equal(finish(w, ty_client_register(w->client, &pool, on_done, &o, NULL), &o), TY_OK);
	close(region.fd);
	w->handle = o.result.registered.registration;
}

static enum ty_code send_retrieve(struct world *w, struct outcome *o)
{
	static const uint32_t id, *const lists[1] = {&id};
	static const uint32_t one = 1;
	struct ty_transfer t = {.session = 1, .registration = w->handle, .count = 1, .blocks = lists, .block_counts = &one,
		.group_count = 1};

	*o = (struct outcome){0};
	return ty_client_retrieve(w->client, &t, on_done, o, NULL);
}

static void poll_until_up(struct world *w, uint32_t times)
{
	while (w->up < times)
		ty_client_poll(w->client, 0, STEP_US);
}

/* Killed with requests open, and back. */
static void test_restart(void **state)
{
	_Atomic uint64_t *words, *theirs;
	struct outcome o[3], later;
	struct ty_error why;
	struct world w;

	(void)state;
	open_world(&w);
	register_pool(&w);
	words = ty_client_timeline(w.client);
	ty_client_raise(w.client, (struct ty_mark){3, 77});
	w.ears.hold_retrieves = true;
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(send_retrieve(&w, &o[i]), TY_OK);
	fake_wait_holding(&w.fake, 3);
	fake_pause(&w.fake);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(finish(&w, TY_OK, &o[i]), TY_CLOSED);
	assert_int_equal(w.away, 1); /* told before them */
	assert_int_equal(w.up, 0);
	assert_int_equal(ty_client_state(w.client, &why), TY_CLIENT_AWAY);
	assert_int_not_equal(why.code, TY_OK);
	/* nobody is there: refused at the call, as often as one likes */
	for (uint32_t i = 0; i < 100; i++) {
		assert_int_equal(send_retrieve(&w, &later), TY_CLOSED);
		assert_int_equal(ty_client_ping(w.client, on_done, &later, NULL), TY_CLOSED);
		ty_client_poll(w.client, 0, 1000);
	}
	assert_int_equal(later.calls, 0);

	w.ears.hold_retrieves = false;
	w.ears.next_number = 40;
	assert_int_equal(ty_client_set_timeout(w.client, 20000000, &why), TY_OK);
	fake_resume(&w.fake, FAKE_BOOT + 1);
	poll_until_up(&w, 1);
	assert_int_equal(ty_client_state(w.client, NULL), TY_CLIENT_UP);
	assert_int_equal(ty_client_info(w.client)->boot, FAKE_BOOT + 1);
	assert_int_equal(w.ears.hellos, 2);
	assert_int_equal(w.ears.registers, 2);
	assert_int_equal(w.ears.retrieves, 3); /* nothing is sent twice */
	/* the same handle, the new service's number */
	assert_int_equal(finish(&w, send_retrieve(&w, &later), &later), TY_OK);
	assert_int_equal(w.ears.last_number, 41);
	/* what it asked for by itself had the attempt's time, what the user asks for the user's */
	assert_in_range(w.ears.register_us, 1000, 5000000);
	assert_int_equal(w.ears.retrieve_us, 20000000);
	/* the same page, in both sights */
	assert_ptr_equal(ty_client_timeline(w.client), words);
	assert_int_equal(atomic_load(&words[3]), 77);
	theirs = w.fake.timeline;
	assert_int_equal(atomic_load(&theirs[3]), 77);
	ty_client_raise(w.client, (struct ty_mark){3, 78});
	assert_int_equal(atomic_load(&theirs[3]), 78);
	close_world(&w);
}

/* Two restarts between two polls: noticed, although the last one looks alive. */
static void test_double_restart(void **state)
{
	struct outcome o;
	struct world w;

	(void)state;
	open_world(&w);
	register_pool(&w);
	for (uint64_t i = 1; i <= 2; i++) {
		fake_pause(&w.fake);
		fake_resume(&w.fake, FAKE_BOOT + i);
	}
	assert_int_equal(send_retrieve(&w, &o), TY_OK); /* it does not know yet */
	assert_int_equal(finish(&w, TY_OK, &o), TY_CLOSED);
	poll_until_up(&w, 1);
	assert_int_equal(w.away, 1);
	assert_int_equal(ty_client_info(w.client)->boot, FAKE_BOOT + 2);
	assert_int_equal(finish(&w, send_retrieve(&w, &o), &o), TY_OK);
	close_world(&w);
}

static _Atomic uint64_t said_boot;

static enum fake_answer say_boot(struct fake *f, const Tyer__V1__Request *request, Tyer__V1__Reply *reply)
{
	(void)f;
	(void)request;
	reply->boot = atomic_load(&said_boot);
	return FAKE_REPLY;
}

static enum ty_code ping(struct pair *p)
{
	struct outcome o = {0};

	assert_int_equal(ty_client_ping(p->client, on_done, &o, &p->err), TY_OK);
	wait_for(p->client, &o);
	return o.result.code;
}

/* Without attach the boot number is PING's. Behind something that keeps the connection a restart shows in the replies alone; and a reply that
 * tells of none is nobody's. */
static void test_restart_without_attach(void **state)
{
	struct pair p;

	(void)state;
	pair_start(&p, (struct fake_options){.answer = say_boot});
	p.options.attach_path = NULL;
	atomic_store(&said_boot, 5);
	pair_open(&p);
	assert_int_equal(ty_client_info(p.client)->boot, 5);
	atomic_store(&said_boot, 0);
	assert_int_equal(ping(&p), TY_PROTOCOL);
	assert_int_equal(ty_client_state(p.client, NULL), TY_CLIENT_UP);
	atomic_store(&said_boot, 6);
	assert_int_equal(ping(&p), TY_OK);
	assert_int_equal(ty_client_state(p.client, NULL), TY_CLIENT_AWAY);
	while (ty_client_state(p.client, NULL) != TY_CLIENT_UP)
		ty_client_poll(p.client, 0, 100000);
	assert_int_equal(ty_client_info(p.client)->boot, 6);
	pair_close(&p);
}

/* A service that ends each connection as soon as it is there: attempts go further and further apart, as if each had failed. */
static void test_brief_ups(void **state)
{
	struct world w;

	(void)state;
	open_world(&w);
	for (uint32_t times = 1; times <= 4; times++) {
		w.client->reconnect.up_at = ty_client_now(); /* however slow the machine is: it has just come */
		ty_link_lost(w.client, TY_CLOSED, "it ended");
		assert_int_equal(w.client->reconnect.attempts, times);
		poll_until_up(&w, times);
	}
	w.client->reconnect.up_at = ty_client_now() - TY_RECONNECT_BRIEF_NS; /* it had been there */
	ty_link_lost(w.client, TY_CLOSED, "it ended");
	assert_int_equal(w.client->reconnect.attempts, 0);
	poll_until_up(&w, 5);
	close_world(&w);
}

/* Only the attach connection ends, or only the other one: both begin anew. */
static void test_half_lost(void **state)
{
	struct outcome o;
	struct world w;

	(void)state;
	open_world(&w);
	register_pool(&w);
	fake_order(&w.fake, &w.fake.drop_attach);
	poll_until_up(&w, 1);
	assert_int_equal(w.ears.hellos, 2);
	assert_int_equal(finish(&w, send_retrieve(&w, &o), &o), TY_OK);
	close_world(&w);
}

/* What is readable when nothing has happened. */
static bool readable(struct ty_client *c)
{
	struct pollfd p = {.fd = ty_client_fd(c), .events = POLLIN};

	for (int i = 0; i < 3; i++) /* the timer's, and what was signalled */
		ty_client_poll(c, 0, 0);
	return poll(&p, 1, 0) == 1;
}

/* A child of fork that has copies of the connections, and lets go of nothing: what the parent has closed is over for it all the same. */
static void test_half_lost_beside_a_child(void **state)
{
	struct outcome o;
	enum ty_code code;
	struct world w;
	bool told;
	pid_t child;

	(void)state;
	open_world(&w);
	child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (int fd = 3; fd < 1024; fd++) /* the service is not its business: what that closes is to end */
			if (fd != w.client->attach_fd && fd != w.client->connection.fd)
				close(fd);
		for (;;)
			pause();
	}
	fake_order(&w.fake, &w.fake.drop_attach);
	poll_until_up(&w, 1);
	told = readable(w.client);
	code = finish(&w, ty_client_ping(w.client, on_done, memset(&o, 0, sizeof o), NULL), &o);
	told |= readable(w.client);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_int_equal(code, TY_OK);
	assert_false(told);
	close_world(&w);
}

/* A pool that cannot be registered again: the client stays away and says why, and tries until it can. */
static void test_register_refused(void **state)
{
	struct ty_error why = {.text = ""};
	struct outcome o;
	struct world w;

	(void)state;
	open_world(&w);
	register_pool(&w);
	fake_pause(&w.fake);
	w.ears.refuse_register = true;
	fake_resume(&w.fake, FAKE_BOOT + 1);
	while (strstr(why.text, "it has failed") == NULL) {
		ty_client_poll(w.client, 0, STEP_US);
		assert_int_equal(ty_client_state(w.client, &why), TY_CLIENT_AWAY);
	}
	assert_int_equal(why.code, TY_DEVICE_FAILED);
	assert_int_equal(w.up, 0);
	/* the user gives it up: then there is nothing in the way */
	assert_int_equal(ty_client_unregister(w.client, w.handle, on_done, &o, NULL), TY_CLOSED);
	poll_until_up(&w, 1);
	assert_int_equal(send_retrieve(&w, &o), TY_UNKNOWN_REGISTRATION);
	close_world(&w);
}

/* A callback hears that it is over and sends again at once, for ever: refused each time, and the poll returns. */
struct stubborn {
	struct world *world;
	uint32_t refused;
};

static void send_again(void *user, const struct ty_result *result)
{
	struct stubborn *s = user;

	assert_int_equal(result->code, TY_CLOSED);
	for (uint32_t i = 0; i < 10; i++)
		s->refused += ty_client_ping(s->world->client, send_again, s, NULL) == TY_CLOSED;
}

static void test_from_callback(void **state)
{
	struct stubborn s = {0};
	struct outcome held;
	struct world w;

	(void)state;
	open_world(&w);
	register_pool(&w);
	s.world = &w;
	w.ears.hold_retrieves = true;
	assert_int_equal(send_retrieve(&w, &held), TY_OK);
	fake_wait_holding(&w.fake, 1);
	fake_pause(&w.fake);
	while (ty_client_state(w.client, NULL) == TY_CLIENT_UP && ty_client_ping(w.client, send_again, &s, NULL) == TY_OK)
		ty_client_poll(w.client, 0, 1000);
	while (held.calls == 0)
		ty_client_poll(w.client, 0, STEP_US);
	assert_int_equal(s.refused % 10, 0);
	close_world(&w);
}

/* Closing while it is away, and while an attempt is under way: at once, with nothing left. */
static void test_close_while_away(void **state)
{
	struct world w;

	(void)state;
	open_world(&w);
	register_pool(&w);
	fake_pause(&w.fake);
	while (w.away == 0)
		ty_client_poll(w.client, 0, STEP_US);
	ty_client_close(w.client);
	fake_stop_paused(&w.fake);

	open_world(&w);
	fake_pause(&w.fake);
	w.fake.options.silent = true; /* accepts, and greets nobody */
	fake_resume(&w.fake, FAKE_BOOT + 1);
	while (w.away == 0)
		ty_client_poll(w.client, 0, STEP_US);
	for (uint32_t i = 0; i < 10; i++)
		ty_client_poll(w.client, 0, 1000);
	close_world(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_restart),
		cmocka_unit_test(test_double_restart),
		cmocka_unit_test(test_restart_without_attach),
		cmocka_unit_test(test_brief_ups),
		cmocka_unit_test(test_half_lost),
		cmocka_unit_test(test_half_lost_beside_a_child),
		cmocka_unit_test(test_register_refused),
		cmocka_unit_test(test_from_callback),
		cmocka_unit_test(test_close_while_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
