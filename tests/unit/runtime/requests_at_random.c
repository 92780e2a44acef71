/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests, over thousands of seeds: actors that ask, answer, keep, forward, are late and die at random.
 */
#include <stdlib.h>

#include "runtime_test.h"

enum { QUESTION = 1, ANSWER, TICK, UNKNOWN = 99 };

#define NODES 5
#define ROUNDS 20
#define SEEDS 2000

/* Everything is allocated, so that ASan sees who frees what, when. */
struct city {
	struct ty_actor *nodes[NODES];
	uint64_t random;
	int asked, closed, answered, timed_out, refused, released, freed, kept;
};

struct question {
	struct ty_request request;
	struct city *city;
	struct question *next; /* in the receiver's list of kept ones */
	bool answered;
};

struct node {
	struct city *city;
	struct question *kept;
	struct ty_timer tick;
	int rounds;
};

static uint32_t draw(struct city *city, uint32_t below)
{
	city->random = city->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (uint32_t)(city->random >> 33) % below;
}

static void free_question(struct ty_request *request)
{
	struct question *q = ty_container_of(request, struct question, request);

	q->city->released++;
	free(q);
}

static void ask_somebody(struct city *city)
{
	struct question *q = calloc(1, sizeof *q);
	int64_t deadline = draw(city, 4) ? ty_now() + draw(city, 20000) : TY_NEVER;

	q->city = city;
	q->request.release = free_question;
	if (ty_ask(city->nodes[draw(city, NODES)], &q->request, draw(city, 20) ? QUESTION : UNKNOWN, ANSWER,
		    deadline) == TY_OK) {
		city->asked++;
	} else {
		city->closed++;
		free(q);
	}
}

static enum ty_code node_start(void *self, void *arg)
{
	struct node *node = self;

	node->city = arg;
	ty_timer_start(&node->tick, TICK, ty_now() + draw(node->city, 5000));
	return TY_OK;
}

static void node_tick(void *self, struct ty_msg *msg)
{
	struct node *node = self;
	struct city *city = node->city;

	(void)msg;
	for (uint32_t n = draw(city, 3); n; n--)
		ask_somebody(city);
	while (node->kept && draw(city, 3)) {
		struct question *q = node->kept;

		node->kept = q->next;
		ty_reply(&q->request, TY_OK);
	}
	if (draw(city, 60) == 0)
		ty_actor_stop(ty_self());
	else if (++node->rounds < ROUNDS)
		ty_timer_start(&node->tick, TICK, ty_now() + draw(city, 20000));
}

static void node_question(void *self, struct ty_msg *msg)
{
	struct node *node = self;
	struct city *city = node->city;
	struct question *q = ty_container_of(ty_request_of(msg), struct question, request);

	switch (draw(city, 4)) {
	case 0:
		q->next = node->kept;
		node->kept = q;
		return;
	case 1:
		if (ty_forward(city->nodes[draw(city, NODES)], &q->request, QUESTION) == TY_OK)
			return;
		break;
	default:
		break;
	}
	ty_reply(&q->request, TY_OK);
}

static void got_answer(struct city *city, struct question *q)
{
	assert_false(q->answered);
	q->answered = true;
	city->timed_out += q->request.code == TY_TIMEOUT;
	if (ty_request_home(&q->request) && draw(city, 2)) {
		city->freed++;
		free(q);
	} else {
		ty_request_release(&q->request);
	}
}

static void node_answer(void *self, struct ty_msg *msg)
{
	struct node *node = self;

	node->city->answered++;
	got_answer(node->city, ty_container_of(ty_request_of_reply(msg), struct question, request));
}

static void node_refuse(void *self, struct ty_msg *msg)
{
	struct node *node = self;

	assert_int_equal(msg->type, ANSWER);
	node->city->refused++;
	got_answer(node->city, ty_container_of(ty_request_of_reply(msg), struct question, request));
}

/* What it kept is answered at the end, late or not: nothing leaks. */
static void node_stop(void *self)
{
	struct node *node = self;

	while (node->kept) {
		struct question *q = node->kept;

		node->kept = q->next;
		ty_reply(&q->request, TY_CANCELLED);
	}
	ask_somebody(node->city); /* nobody will be there to be answered */
}

static void random_city(uint64_t seed, struct city *total)
{
	static const struct ty_handler hs[] = {[QUESTION - QUESTION] = {"question", node_question},
		[ANSWER - QUESTION] = {"answer", node_answer}, [TICK - QUESTION] = {"tick", node_tick}};
	static const struct ty_class cls = {.name = "node", .state_size = sizeof(struct node), .first_type = QUESTION,
		.type_count = 3, .handlers = hs, .start = node_start, .stop = node_stop, .refuse = node_refuse};
	struct ty_runtime_options options = {.size = sizeof options, .seed = seed};
	struct city city = {.random = seed * 7919};
	struct ty_runtime *rt;

	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	for (int i = 0; i < NODES; i++)
		city.nodes[i] = spawn(rt, &cls, &city, i % 2 ? TY_DEDICATED : TY_POOL);
	while (ty_runtime_step(rt))
		;
	ty_runtime_destroy(rt);
	for (int i = 0; i < NODES; i++)
		ty_actor_unref(city.nodes[i]);
	/* each question's memory came back once, and each was answered at most once, never without */
	assert_int_equal(city.asked, city.released + city.freed);
	assert_true(city.answered + city.refused <= city.asked);
	total->asked += city.asked;
	total->closed += city.closed;
	total->answered += city.answered;
	total->timed_out += city.timed_out;
	total->refused += city.refused;
	total->released += city.released;
	total->kept += city.asked - city.answered - city.refused; /* their requesters were over */
}

static void test_at_random(void **unused)
{
	struct city total = {0};

	(void)unused;
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		random_city(seed, &total);
	/* all of it happened */
	assert_true(total.closed > SEEDS / 10);
	assert_true(total.timed_out > SEEDS);
	assert_true(total.refused > 0);
	assert_true(total.kept > 0);
	assert_true(total.answered - total.timed_out > SEEDS);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {cmocka_unit_test(test_at_random)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
