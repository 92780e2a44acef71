/* SPDX-License-Identifier: Apache-2.0
 *
 * The rpc actor behind a real nng REQ socket: routing, refusals, duplicates, limits, the stop.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "rpc_house.h"

#define ONE CLIENT(1, 0)
#define TWO CLIENT(1, 1)

static struct house house;

static int set_up(void **state)
{
	(void)state;
	house_config(&house);
	house_open(&house, false);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	house_close(&house);
	return 0;
}

static uint64_t get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Ask by verb, with whatever the verb's message needs to be packed. */
static Tyer__V1__Reply *ask_verb(nng_socket socket, unsigned verb, uint64_t client, uint64_t id, uint32_t timeout_us)
{
	Tyer__V1__Request r = TYER__V1__REQUEST__INIT;
	Tyer__V1__Ping ping = TYER__V1__PING__INIT;
	Tyer__V1__Status status = TYER__V1__STATUS__INIT;
	Tyer__V1__Hello hello = TYER__V1__HELLO__INIT;
	Tyer__V1__Register reg = TYER__V1__REGISTER__INIT;
	Tyer__V1__Unregister unregister = TYER__V1__UNREGISTER__INIT;
	Tyer__V1__Lookup lookup = TYER__V1__LOOKUP__INIT;
	Tyer__V1__Retrieve retrieve = TYER__V1__RETRIEVE__INIT;
	Tyer__V1__Store store = TYER__V1__STORE__INIT;
	Tyer__V1__EndSession end = TYER__V1__END_SESSION__INIT;

	r.version = 1;
	r.client = client;
	r.id = id;
	r.timeout_us = timeout_us;
	r.verb_case = (Tyer__V1__Request__VerbCase)verb;
	switch (r.verb_case) {
	case TYER__V1__REQUEST__VERB_PING: r.ping = &ping; break;
	case TYER__V1__REQUEST__VERB_STATUS: r.status = &status; break;
	case TYER__V1__REQUEST__VERB_HELLO: r.hello = &hello; break;
	case TYER__V1__REQUEST__VERB_REGISTER: r.register_ = &reg; break;
	case TYER__V1__REQUEST__VERB_UNREGISTER: r.unregister = &unregister; break;
	case TYER__V1__REQUEST__VERB_LOOKUP: r.lookup = &lookup; break;
	case TYER__V1__REQUEST__VERB_RETRIEVE: r.retrieve = &retrieve; break;
	case TYER__V1__REQUEST__VERB_STORE: r.store = &store; break;
	case TYER__V1__REQUEST__VERB_END_SESSION: r.end_session = &end; break;
	default: break;
	}
	return house_ask(socket, &r);
}

static void ping(nng_socket socket, enum ty_code code, const char *error_has)
{
	house_expect(ask_verb(socket, TYER__V1__REQUEST__VERB_PING, 0, 1, 0), 1, code, error_has);
}

static Tyer__V1__Reply *good(Tyer__V1__Reply *reply, uint64_t id, unsigned verb)
{
	assert_int_equal(reply->code, TYER__V1__CODE__OK);
	assert_true(reply->id == id);
	assert_int_equal(reply->verb_case, verb);
	return reply;
}

static void done(Tyer__V1__Reply *reply)
{
	tyer__v1__reply__free_unpacked(reply, NULL);
}

static void test_every_verb(void **state)
{
	struct ty_rpc_stats *stats = &house.service->rpc_stats;
	nng_socket s = house_dial(&house);
	Tyer__V1__Reply *r;

	(void)state;
	house_route(&house, ONE, house.engine);
	r = good(ask_verb(s, TYER__V1__REQUEST__VERB_PING, 0, 1, 0), 1, TYER__V1__REPLY__VERB__NOT_SET);
	done(r);
	r = good(ask_verb(s, TYER__V1__REQUEST__VERB_STATUS, 0, 2, 0), 2, TYER__V1__REPLY__VERB_STATUS);
	assert_true(r->status->uptime_us == 4711);
	done(r);
	r = good(ask_verb(s, TYER__V1__REQUEST__VERB_HELLO, 0, 3, 0), 3, TYER__V1__REPLY__VERB_HELLO);
	assert_true(r->hello->client == 77 && r->hello->chunk_tokens == 256);
	done(r);
	assert_int_equal(atomic_load(&house_seen.requests), 0); /* none of these is an engine's */

	r = good(ask_verb(s, TYER__V1__REQUEST__VERB_REGISTER, ONE, 4, 0), 4, TYER__V1__REPLY__VERB_REGISTER);
	assert_true(r->register_->registration == 7 && r->register_->chunk_bytes == (uint64_t)5 << 33);
	assert_int_equal(r->register_->fingerprint.len, 32);
	assert_int_equal(r->register_->fingerprint.data[31], 0xab);
	done(r);
	assert_true(atomic_load(&house_seen.client) == ONE);
	assert_true(atomic_load(&house_seen.allowed) == (int64_t)house.config.default_timeout_us * 1000);

	r = good(ask_verb(s, TYER__V1__REQUEST__VERB_UNREGISTER, ONE, 5, 1234), 5, TYER__V1__REPLY__VERB__NOT_SET);
	done(r);
	assert_true(atomic_load(&house_seen.allowed) == 1234000);

	r = good(ask_verb(s, TYER__V1__REQUEST__VERB_LOOKUP, ONE, 6, 0), 6, TYER__V1__REPLY__VERB_LOOKUP);
	assert_true(r->lookup->chunks == 12 && r->lookup->hits == 11);
	done(r);
	r = good(ask_verb(s, TYER__V1__REQUEST__VERB_RETRIEVE, ONE, 7, 0), 7, TYER__V1__REPLY__VERB_RETRIEVE);
	assert_true(r->retrieve->chunks == 21);
	done(r);
	r = good(ask_verb(s, TYER__V1__REQUEST__VERB_STORE, ONE, 8, house.config.max_timeout_us), 8,
		TYER__V1__REPLY__VERB_STORE);
	assert_true(r->store->stored == 31 && r->store->present == 32 && r->store->dropped == 33);
	done(r);
	r = good(ask_verb(s, TYER__V1__REQUEST__VERB_END_SESSION, ONE, 9, 0), 9, TYER__V1__REPLY__VERB_END_SESSION);
	assert_true(r->end_session->released == 41);
	done(r);

	assert_int_equal(atomic_load(&house_seen.requests), 6);
	for (unsigned verb = TYER__V1__REQUEST__VERB_PING; verb <= TYER__V1__REQUEST__VERB_END_SESSION; verb++) {
		uint64_t in_buckets = 0;

		assert_int_equal(get(&stats->requests[verb]), 1);
		for (unsigned i = 0; i < TY_LATENCY_BUCKETS; i++)
			in_buckets += get(&stats->latency[verb][i]);
		assert_int_equal(in_buckets, 1);
	}
	assert_int_equal(get(&stats->replies[TY_OK]), 9);
	house_wait(&stats->open, 0);
	nng_close(s);
}

static void test_malformed(void **state)
{
	static const uint8_t junk[][8] = {
		{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, /* a tag that does not end */
		{0x08},                                           /* a tag without a value */
		{0x7a, 0x7f, 0x01},                               /* a LOOKUP longer than the message */
	};
	static const size_t lengths[] = {8, 1, 3};
	struct ty_rpc_stats *stats = &house.service->rpc_stats;
	nng_socket s = house_dial(&house);

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		house_send_bytes(s, junk[i], lengths[i]);
		house_expect(house_receive(s), 0, TY_PROTOCOL, "no Request");
	}
	assert_int_equal(get(&stats->malformed), 3);
	assert_int_equal(get(&stats->replies[TY_PROTOCOL]), 3);
	ping(s, TY_OK, "");
	nng_close(s);
}

static void test_refused_at_the_edge(void **state)
{
	Tyer__V1__Request r = TYER__V1__REQUEST__INIT;
	Tyer__V1__Ping p = TYER__V1__PING__INIT;
	static const uint8_t unknown_verb[] = {0x08, 0x01, 0x19, 5, 0, 0, 0, 0, 0, 0, 0, 0xca, 0x02, 0x00}; /* field 41 */
	nng_socket s = house_dial(&house);

	(void)state;
	r.id = 5;
	r.verb_case = TYER__V1__REQUEST__VERB_PING;
	r.ping = &p;
	for (uint32_t version = 0; version < 4; version++) {
		r.version = version;
		if (version != 1)
			house_expect(house_ask(s, &r), 5, TY_UNSUPPORTED, "version");
	}
	r.version = 1;
	r.timeout_us = house.config.max_timeout_us + 1;
	house_expect(house_ask(s, &r), 5, TY_INVALID, "timeout_us");
	r.timeout_us = 0;
	r.verb_case = TYER__V1__REQUEST__VERB__NOT_SET;
	house_expect(house_ask(s, &r), 5, TY_UNSUPPORTED, "verb");
	house_send_bytes(s, unknown_verb, sizeof unknown_verb);
	house_expect(house_receive(s), 5, TY_UNSUPPORTED, "verb");
	house_send_bytes(s, "", 0); /* an empty message is a Request of version 0 */
	house_expect(house_receive(s), 0, TY_UNSUPPORTED, "version");
	ping(s, TY_OK, "");
	nng_close(s);
}

static void expect_unknown(nng_socket s, uint64_t client)
{
	house_send_plain(s, client, 3, 1);
	house_expect(house_receive(s), 3, TY_UNKNOWN_CLIENT, "HELLO first");
}

static void test_unknown_client(void **state)
{
	nng_socket s = house_dial(&house);
	struct ty_actor *other = house_engine(&house);

	(void)state;
	expect_unknown(s, 0);
	expect_unknown(s, ONE);
	expect_unknown(s, TY_MAX_CLIENTS);
	expect_unknown(s, TY_MAX_CLIENTS + 1);
	expect_unknown(s, 0xffff);
	expect_unknown(s, UINT64_MAX);
	house_route(&house, ONE, house.engine);
	house_route(&house, CLIENT(9, TY_MAX_CLIENTS - 1), other);
	house_send_plain(s, ONE, 4, 1);
	house_expect(house_receive(s), 4, TY_OK, "");
	house_send_plain(s, CLIENT(9, TY_MAX_CLIENTS - 1), 4, 1);
	house_expect(house_receive(s), 4, TY_OK, "");
	expect_unknown(s, CLIENT(0, 0)); /* the same place, another generation */
	expect_unknown(s, CLIENT(2, 0));
	house_route(&house, CLIENT(2, 0), NULL); /* nobody's: does not take ONE's away */
	house_send_plain(s, ONE, 4, 1);
	house_expect(house_receive(s), 4, TY_OK, "");
	house_route(&house, ONE, NULL);
	expect_unknown(s, ONE);
	assert_int_equal(atomic_load(&house_seen.requests), 3);
	ty_actor_unref(other);
	nng_close(s);
}

static void test_engine_gone(void **state)
{
	nng_socket s = house_dial(&house);
	struct ty_actor *other = house_engine(&house);
	Tyer__V1__Reply *reply = NULL;

	(void)state;
	house_route(&house, ONE, other);
	ty_actor_stop(other);
	ty_actor_unref(other);
	/* The stop is a message too: what comes before it is answered, what comes just after it the engine itself refuses. */
	for (uint64_t id = 1; id < 10000; id++) {
		house_send_plain(s, ONE, id, 1);
		reply = house_receive(s);
		if (reply->code == TYER__V1__CODE__OK) {
			done(reply);
		} else if (reply->code == TYER__V1__CODE__CANCELLED) {
			house_expect(reply, id, TY_CANCELLED, "ends");
		} else {
			house_expect(reply, id, TY_CLOSED, "UNREGISTER");
			nng_close(s);
			return;
		}
	}
	fail_msg("the engine never closed");
}

static void test_error_text_is_utf8(void **state)
{
	Tyer__V1__Request r = TYER__V1__REQUEST__INIT;
	Tyer__V1__EndSession end = TYER__V1__END_SESSION__INIT;
	nng_socket s = house_dial(&house);
	Tyer__V1__Reply *reply;

	(void)state;
	house_route(&house, ONE, house.engine);
	end.session = 404;
	r.version = 1;
	r.client = ONE;
	r.verb_case = TYER__V1__REQUEST__VERB_END_SESSION;
	r.end_session = &end;
	reply = house_ask(s, &r);
	assert_null(strstr(reply->error, "\xe2\x82 "));
	assert_memory_not_equal(reply->error + strlen(reply->error) - 2, "\xe2\x82", 2);
	house_expect(reply, 0, TY_UNKNOWN_SESSION, "no session 404");
	nng_close(s);
}

static void test_duplicate_id(void **state)
{
	nng_socket s = house_dial(&house), t = house_dial(&house);

	(void)state;
	house_route(&house, ONE, house.engine);
	house_route(&house, TWO, house.engine);
	house_send_plain(s, ONE, 50, HOLD);
	house_wait(&house_seen.held, 1);
	house_send_plain(t, ONE, 50, 1);
	house_expect(house_receive(t), 50, TY_EXISTS, "id 50");
	house_send_plain(t, TWO, 50, 1); /* another client's number */
	house_expect(house_receive(t), 50, TY_OK, "");
	house_send_plain(t, ONE, 51, 1);
	house_expect(house_receive(t), 51, TY_OK, "");
	house_release(house.engine);
	house_expect(house_receive(s), 50, TY_OK, "");
	house_send_plain(s, ONE, 50, 1); /* answered: free again */
	house_expect(house_receive(s), 50, TY_OK, "");
	nng_close(s);
	nng_close(t);
}

/* A client whose engine hangs asks and asks: it gets half of what there is, and BUSY at once from then on; others get their answers,
 * PING and STATUS too. */
static void test_busy(void **state)
{
	uint32_t n = house.config.max_requests, mine = n / 2 + 1;
	nng_socket held[64], s = house_dial(&house), t = house_dial(&house);

	(void)state;
	assert_true(n < 64);
	house_route(&house, ONE, house.engine);
	house_route(&house, TWO, house.engine);
	for (uint32_t i = 0; i < mine; i++) {
		held[i] = house_dial(&house);
		house_send_plain(held[i], ONE, i, HOLD);
	}
	house_wait(&house_seen.held, mine);
	for (uint64_t id = 100; id < 100 + 3 * TY_RPC_SPARE; id++) {
		house_send_plain(t, ONE, id, 1);
		house_expect(house_receive(t), id, TY_BUSY, "max_requests");
		house_send_plain(s, TWO, id, 1);
		house_expect(house_receive(s), id, TY_OK, "");
		ping(s, TY_OK, "");
		done(good(ask_verb(s, TYER__V1__REQUEST__VERB_STATUS, 0, 2, 0), 2, TYER__V1__REPLY__VERB_STATUS));
	}
	house_release(house.engine);
	for (uint32_t i = 0; i < mine; i++) {
		house_expect(house_receive(held[i]), i, TY_OK, "");
		nng_close(held[i]);
	}
	house_send_plain(t, ONE, 1, 1);
	house_expect(house_receive(t), 1, TY_OK, "");
	nng_close(s);
	nng_close(t);
}

/* A client that goes away while its request is open. */
static void test_client_that_leaves(void **state)
{
	nng_socket s = house_dial(&house), t = house_dial(&house);

	(void)state;
	house_route(&house, ONE, house.engine);
	house_send_plain(s, ONE, 1, HOLD);
	house_wait(&house_seen.held, 1);
	nng_close(s);
	house_release(house.engine);
	house_wait(&house.service->rpc_stats.open, 0);
	ping(t, TY_OK, "");
	nng_close(t);
}

/* A client whose route is set again, or is gone and comes back, while its request is open: what it has open is still its own, and is
 * counted once. Another one in the same place begins with nothing. */
static void test_routed_again(void **state)
{
	nng_socket s = house_dial(&house), t = house_dial(&house);

	(void)state;
	house_route(&house, ONE, house.engine);
	house_send_plain(s, ONE, 1, HOLD);
	house_wait(&house_seen.held, 1);
	house_route(&house, ONE, house.engine);
	house_send_plain(t, ONE, 2, HOLD);
	house_wait(&house_seen.held, 2);
	house_route(&house, ONE, NULL);
	house_route(&house, ONE, house.engine);
	house_release(house.engine);
	house_expect(house_receive(s), 1, TY_OK, "");
	house_expect(house_receive(t), 2, TY_OK, "");
	for (uint64_t id = 3; id < 6; id++) { /* of a count below nothing all of them are BUSY */
		house_send_plain(s, ONE, id, 1);
		house_expect(house_receive(s), id, TY_OK, "");
	}
	for (uint64_t generation = 1; generation <= house.config.max_requests; generation++) {
		house_send_plain(s, CLIENT(generation, 0), 6, HOLD);
		house_wait(&house_seen.held, 1);
		house_route(&house, CLIENT(generation, 0), NULL);
		house_route(&house, CLIENT(generation + 1, 0), house.engine);
		house_release(house.engine);
		house_expect(house_receive(s), 6, TY_OK, "");
		house_send_plain(t, CLIENT(generation + 1, 0), 7, 1);
		house_expect(house_receive(t), 7, TY_OK, "");
	}
	nng_close(s);
	nng_close(t);
}

/* Many at once, while routes come and go: each request gets its own answer, whatever it is. */
#define CROWD 6
#define CROWD_REQUESTS 150

struct member {
	pthread_t thread;
	uint32_t index, answers[TY_CODE_COUNT];
};

static void *crowd_member(void *arg)
{
	struct member *m = arg;
	nng_socket s = house_dial(&house);

	for (uint32_t i = 0; i < CROWD_REQUESTS; i++) {
		/* all of the crowd share two clients, and some of the ids */
		uint64_t id = m->index % 2 ? i : (uint64_t)m->index << 32 | i;
		unsigned verb = TYER__V1__REQUEST__VERB_PING + (i + m->index) % 9;
		Tyer__V1__Reply *r = ask_verb(s, verb, m->index % 3 ? ONE : TWO, id, 0);

		if (r->id == id)
			m->answers[r->code]++;
		if (r->code == TYER__V1__CODE__OK && verb != TYER__V1__REQUEST__VERB_PING &&
			verb != TYER__V1__REQUEST__VERB_UNREGISTER && (unsigned)r->verb_case != verb)
			m->answers[TY_INTERNAL]++;
		done(r);
	}
	nng_close(s);
	return NULL;
}

static void test_crowd(void **state)
{
	struct member crowd[CROWD] = {0};
	uint32_t sums[TY_CODE_COUNT] = {0}, all = 0;

	(void)state;
	house_route(&house, ONE, house.engine);
	for (uint32_t i = 0; i < CROWD; i++) {
		crowd[i].index = i;
		assert_int_equal(pthread_create(&crowd[i].thread, NULL, crowd_member, &crowd[i]), 0);
	}
	for (int i = 0; i < 50; i++) {
		house_route(&house, TWO, house.engine);
		house_route(&house, TWO, NULL);
	}
	for (uint32_t i = 0; i < CROWD; i++) {
		pthread_join(crowd[i].thread, NULL);
		for (unsigned code = 0; code < TY_CODE_COUNT; code++) {
			sums[code] += crowd[i].answers[code];
			all += crowd[i].answers[code];
		}
	}
	assert_int_equal(all, CROWD * CROWD_REQUESTS);
	assert_int_equal(sums[TY_OK] + sums[TY_EXISTS] + sums[TY_UNKNOWN_CLIENT], all);
	assert_int_equal(get(&house.service->rpc_stats.replies[TY_OK]), sums[TY_OK]);
	house_wait(&house.service->rpc_stats.open, 0);
}

/* ---- the stop --------------------------------------------------------------------------------------------------------- */

static _Atomic uint32_t stops;

static void stopped(struct ty_stop *stop)
{
	assert_ptr_equal(stop->user, &stops);
	atomic_fetch_add(&stops, 1);
}

static void send_stop(struct ty_stop *stop)
{
	memset(stop, 0, sizeof *stop);
	stop->stopped = stopped;
	stop->user = &stops;
	atomic_store(&stops, 0);
	assert_int_equal(ty_send(house.service->rpc, &stop->msg, TY_RPC_STOP), TY_OK);
}

static void test_stop_idle(void **state)
{
	nng_socket s = house_dial(&house);
	struct ty_stop stop;

	(void)state;
	send_stop(&stop);
	house_wait(&stops, 1);
	ping(s, TY_STOPPING, "stopping");
	assert_int_equal(atomic_load(&stops), 1);
	nng_close(s);
}

static void test_stop_with_requests_open(void **state)
{
	nng_socket s = house_dial(&house), t = house_dial(&house), u = house_dial(&house);
	struct ty_stop stop;

	(void)state;
	house_route(&house, ONE, house.engine);
	house_send_plain(s, ONE, 1, HOLD);
	house_send_plain(t, ONE, 2, HOLD);
	house_wait(&house_seen.held, 2);
	send_stop(&stop);
	for (int i = 0; i < 20; i++)
		ping(u, TY_STOPPING, "stopping");
	house_send_plain(u, ONE, 3, 1);
	house_expect(house_receive(u), 3, TY_STOPPING, "stopping");
	assert_int_equal(atomic_load(&stops), 0); /* those answers were sent while two were open */
	house_release(house.engine);
	house_expect(house_receive(s), 1, TY_OK, "");
	house_expect(house_receive(t), 2, TY_OK, "");
	house_wait(&stops, 1);
	nng_close(s);
	nng_close(t);
	nng_close(u);
}

/* Not all was answered when the actor had to end: whoever waits is told, and a late answer finds its exchange. */
static void test_answer_after_the_end(void **state)
{
	nng_socket s = house_dial(&house);
	struct ty_stop stop;

	(void)state;
	house_route(&house, ONE, house.engine);
	house_send_plain(s, ONE, 1, HOLD);
	house_wait(&house_seen.held, 1);
	send_stop(&stop);
	ty_actor_stop(house.service->rpc);
	house_wait(&stops, 1);
	house_release(house.engine);
	house_wait(&house_seen.held, 0);
	nng_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_every_verb, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_malformed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_refused_at_the_edge, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_unknown_client, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_engine_gone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_error_text_is_utf8, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_duplicate_id, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_busy, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_client_that_leaves, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_routed_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_crowd, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_stop_idle, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_stop_with_requests_open, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_answer_after_the_end, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
