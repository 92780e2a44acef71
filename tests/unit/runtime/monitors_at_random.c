/* SPDX-License-Identifier: Apache-2.0
 *
 * Monitors and links, over thousands of seeds: actors that watch, unwatch, are linked, stop and fail at random.
 */
#include <stdlib.h>

#include "runtime_test.h"

enum { DOWN = 1, NOTE, TICK };

#define NODES 6
#define SEEDS 2000
#define STEPS 30

/* Every monitor is allocated, so that ASan sees when it is touched. Each node counts what it sends to each other; a
 * watcher that got its DOWN must have seen all of it. */
struct city {
	struct ty_actor *nodes[NODES];
	uint64_t random;
	uint64_t sent[NODES][NODES], seen[NODES][NODES];
	int watched, downs, released, cancelled, failed, links;
};

struct eye {
	struct ty_monitor monitor;
	struct city *city;
	struct eye *next; /* the node's */
	uint32_t target;
	bool cancelled, link;
};

struct letter {
	struct ty_msg msg;
	uint32_t from;
};

struct node {
	struct city *city;
	uint32_t index, steps;
	struct ty_timer tick;
};

struct node_arg {
	struct city *city;
	uint32_t index;
};

static uint32_t draw(struct city *city, uint32_t below)
{
	city->random = city->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (uint32_t)(city->random >> 33) % below;
}

static void eye_release(struct ty_monitor *monitor)
{
	struct eye *eye = ty_container_of(monitor, struct eye, monitor);

	eye->city->released++;
	free(eye);
}

static void node_send(struct node *node, uint32_t to)
{
	struct letter *letter = calloc(1, sizeof *letter);

	letter->from = node->index;
	if (ty_send(node->city->nodes[to], &letter->msg, NOTE) == TY_OK)
		node->city->sent[node->index][to]++;
	else
		free(letter);
}

static enum ty_code node_start(void *self, void *arg)
{
	struct node *node = self;

	node->city = ((struct node_arg *)arg)->city;
	node->index = ((struct node_arg *)arg)->index;
	ty_timer_start(&node->tick, TICK, ty_now());
	return TY_OK;
}

static void node_watch(struct node *node, bool ending)
{
	struct city *city = node->city;
	struct eye *eye = calloc(1, sizeof *eye);

	eye->city = city;
	eye->target = draw(city, NODES);
	eye->monitor.release = eye_release;
	eye->link = draw(city, 8) == 0;
	city->watched++;
	city->links += eye->link;
	if (eye->link)
		ty_link(city->nodes[eye->target], &eye->monitor);
	else
		ty_monitor(city->nodes[eye->target], &eye->monitor, DOWN);
	if (!ending && draw(city, 3) == 0) { /* at once: WATCH and UNWATCH both under way */
		eye->cancelled = true;
		city->cancelled++;
		ty_demonitor(&eye->monitor);
	}
}

static void node_tick(void *self, struct ty_msg *msg)
{
	struct node *node = self;
	struct city *city = node->city;

	(void)msg;
	for (uint32_t n = draw(city, 4); n; n--)
		node_send(node, draw(city, NODES));
	if (draw(city, 2))
		node_watch(node, false);
	if (draw(city, 40) == 0) {
		city->failed++;
		ty_actor_fail(TY_IO);
	} else if (draw(city, 40) == 0) {
		ty_actor_stop(ty_self());
	} else if (++node->steps < STEPS) {
		ty_timer_start(&node->tick, TICK, ty_now() + draw(city, 20000));
	}
}

static void node_note(void *self, struct ty_msg *msg)
{
	struct node *node = self;
	struct letter *letter = ty_container_of(msg, struct letter, msg);

	node->city->seen[letter->from][node->index]++;
	free(letter);
}

static void node_down(void *self, struct ty_msg *msg)
{
	struct node *node = self;
	struct eye *eye = ty_container_of(msg, struct eye, monitor.msg);

	assert_false(eye->cancelled || eye->link);
	assert_int_equal(node->city->seen[eye->target][node->index], node->city->sent[eye->target][node->index]);
	node->city->downs++;
	free(eye);
}

static void node_refuse(void *self, struct ty_msg *msg)
{
	(void)self;
	free(ty_container_of(msg, struct letter, msg));
}

static void node_stop(void *self)
{
	struct node *node = self;

	for (uint32_t i = 0; i < NODES; i++)
		node_send(node, i);
	node_watch(node, true); /* comes back at once */
}

static void random_city(uint64_t seed, struct city *total)
{
	static const struct ty_handler hs[] = {[DOWN - DOWN] = {"down", node_down}, [NOTE - DOWN] = {"note", node_note},
		[TICK - DOWN] = {"tick", node_tick}};
	static const struct ty_class node_class = {.name = "node", .state_size = sizeof(struct node), .first_type = DOWN,
		.type_count = 3, .handlers = hs, .start = node_start, .stop = node_stop, .refuse = node_refuse};
	struct ty_runtime_options options = {.size = sizeof options, .seed = seed};
	struct city city = {.random = seed * 7919};
	struct node_arg args[NODES];
	struct ty_runtime *rt;

	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	for (uint32_t i = 0; i < NODES; i++) {
		args[i] = (struct node_arg){&city, i};
		city.nodes[i] = spawn(rt, &node_class, &args[i], i % 2 ? TY_DEDICATED : TY_POOL);
	}
	while (ty_runtime_step(rt))
		;
	ty_runtime_destroy(rt);
	for (int i = 0; i < NODES; i++)
		ty_actor_unref(city.nodes[i]);
	assert_int_equal(city.watched, city.downs + city.released);
	total->watched += city.watched;
	total->downs += city.downs;
	total->cancelled += city.cancelled;
	total->failed += city.failed;
	total->links += city.links;
}

static void test_at_random(void **unused)
{
	struct city total = {.random = 0};

	(void)unused;
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		random_city(seed, &total);
	assert_true(total.downs > SEEDS && total.cancelled > SEEDS && total.failed > SEEDS && total.links > SEEDS);
	assert_true(total.watched > total.downs + total.cancelled);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {cmocka_unit_test(test_at_random)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
