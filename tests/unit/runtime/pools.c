/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks for messages: sizes, limits, the way home from every thread.
 */
#include <pthread.h>
#include <stdlib.h>

#include "runtime/runtime.h"
#include "runtime_test.h"

enum { GO = 1, HOP };

static struct ty_port *enter(struct ty_runtime *rt)
{
	struct ty_port_options options = {.size = sizeof options, .polled = true};
	struct ty_port *port;

	assert_int_equal(ty_port_open(rt, &options, &port), TY_OK);
	ty_port_enter(port);
	return port;
}

static void leave(struct ty_port *port)
{
	ty_port_leave(port);
	ty_port_close(port);
}

static struct ty_runtime_stats stats_of(const struct ty_runtime *rt)
{
	struct ty_runtime_stats stats;

	ty_runtime_stats(rt, &stats);
	return stats;
}

static void test_sizes(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct ty_port *port = enter(rt);
	static const size_t sizes[] = {0, 1, 16, 48, 49, 112, 113, 1000, 4080, 4081, TY_BLOCK_MAX};
	unsigned char *blocks[11];
	void *none = &none;

	(void)unused;
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 11; i++) {
			assert_int_equal(ty_block_new(sizes[i], (void **)&blocks[i]), TY_OK);
			assert_int_equal((uintptr_t)blocks[i] % 16, 0);
			for (size_t k = 0; k < sizes[i]; k++)
				assert_int_equal(blocks[i][k], 0); /* also when it was used before */
			memset(blocks[i], 0xff, sizes[i]);
		}
		assert_int_equal(stats_of(rt).blocks, 11);
		for (int i = 0; i < 11; i++)
			ty_block_free(blocks[i]);
		assert_int_equal(stats_of(rt).blocks, 0);
	}
	assert_int_equal(ty_block_new(TY_BLOCK_MAX + 1, &none), TY_LIMIT);
	assert_null(none);
	assert_int_equal(ty_block_new(SIZE_MAX, &none), TY_LIMIT);
	ty_block_free(NULL);
	leave(port);
	ty_runtime_destroy(rt);
}

static void *free_all(void *arg)
{
	void **blocks = arg;

	for (int i = 0; blocks[i]; i++)
		ty_block_free(blocks[i]);
	return NULL;
}

static void test_limit(void **unused)
{
	struct ty_runtime_options options = {.size = sizeof options, .workers = 1, .pool_bytes = 100 * 128};
	struct ty_runtime *rt;
	struct ty_port *port;
	void *blocks[101] = {0}, *none, *other;
	pthread_t thread;

	(void)unused;
	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	port = enter(rt);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 100; i++)
			assert_int_equal(ty_block_new(100, &blocks[i]), TY_OK);
		assert_int_equal(ty_block_new(100, &none), TY_BUSY);
		assert_null(none);
		assert_int_equal(ty_block_new(10, &other), TY_OK); /* each size has a limit of its own */
		ty_block_free(other);
		assert_int_equal(stats_of(rt).blocks, 100);
		assert_int_equal(stats_of(rt).blocks_busy, round + 1);
		/* freed by a stranger, they are back all the same */
		assert_int_equal(pthread_create(&thread, NULL, free_all, blocks), 0);
		pthread_join(thread, NULL);
		assert_int_equal(stats_of(rt).blocks, 0);
	}
	assert_int_equal(ty_block_new(TY_BLOCK_MAX, &none), TY_OK); /* one of 8 KiB fits in 12.5 KiB */
	assert_int_equal(ty_block_new(TY_BLOCK_MAX, &none), TY_BUSY);
	leave(port); /* with one that is still out: it goes with the runtime */
	ty_runtime_destroy(rt);
}

/* A seat's pools go to the next thread that has it. */
static void test_next_thread(void **unused)
{
	struct ty_runtime *rt = make_runtime(1);
	struct ty_port *port = enter(rt);
	void *block, *again;

	(void)unused;
	assert_int_equal(ty_block_new(64, &block), TY_OK);
	leave(port);
	ty_block_free(block); /* its thread is no more */
	assert_int_equal(stats_of(rt).blocks, 0);
	port = enter(rt);
	assert_int_equal(ty_block_new(64, &again), TY_OK);
	ty_block_free(again);
	leave(port);
	ty_runtime_destroy(rt);
}

/* ---- all ways at once: blocks hop between actors and threads until they have had enough ---- */

enum { ACTORS = 6, CHAINS = 200, HOPS = 20 };

struct hop {
	struct ty_msg msg;
	uint32_t left, chain;
};
TY_MESSAGE(hop, HOP, struct hop)

struct net {
	struct ty_actor *actors[ACTORS];
	_Atomic(uint32_t) over, busy;
	struct ty_actor *port;
};

struct hopper {
	struct net *net;
};

static enum ty_code on_start(void *self, void *arg)
{
	((struct hopper *)self)->net = arg;
	return TY_OK;
}

static void send_on(struct net *net, struct hop *hop)
{
	if (hop->left-- == 0)
		(void)!hop_send(net->port, hop);
	else
		assert_int_equal(hop_send(net->actors[(hop->chain + hop->left * 5) % ACTORS], hop), TY_OK);
}

/* Every other hop is a new block: this one goes home from here. */
static void on_hop(struct hopper *self, struct hop *hop)
{
	void *block;
	struct hop *next;

	if (hop->left % 2 && ty_block_new(sizeof *next, &block) == TY_OK) {
		next = block;
		next->left = hop->left;
		next->chain = hop->chain;
		ty_block_free(hop);
		hop = next;
	}
	send_on(self->net, hop);
}
TY_HANDLER(hop, on_hop, struct hopper)

static const struct ty_handler handlers[] = {{"hop", on_hop_run}};
static const struct ty_class cls = {.name = "hopper", .state_size = sizeof(struct hopper), .first_type = HOP,
	.type_count = 1, .handlers = handlers, .start = on_start};

static void test_everybody_at_once(void **unused)
{
	struct ty_runtime_options options = {.size = sizeof options, .workers = 2, .pool_bytes = 64 * 64};
	struct ty_runtime *rt;
	struct ty_port *port;
	struct net net = {0};
	uint32_t began = 0, over = 0, busy = 0;

	(void)unused;
	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	port = enter(rt);
	ty_port_leave(port);
	net.port = ty_port_address(port);
	for (int i = 0; i < ACTORS; i++)
		net.actors[i] = spawn(rt, &cls, &net, i % 3 ? TY_POOL : TY_DEDICATED);
	while (over < CHAINS) {
		struct ty_msg *msg;
		void *block = NULL;

		if (began < CHAINS) {
			ty_port_enter(port);
			if (ty_block_new(sizeof(struct hop), &block) == TY_BUSY)
				busy++;
			ty_port_leave(port);
		}
		if (block) {
			struct hop *hop = block;

			hop->left = HOPS;
			hop->chain = began++;
			send_on(&net, hop);
		}
		while ((msg = ty_port_receive(port))) {
			ty_block_free(hop_of(msg));
			over++;
		}
	}
	assert_int_equal(stats_of(rt).blocks, 0);
	assert_true(stats_of(rt).blocks_busy >= busy);
	for (int i = 0; i < ACTORS; i++)
		ty_actor_unref(net.actors[i]);
	ty_port_close(port);
	ty_runtime_destroy(rt);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_next_thread),
		cmocka_unit_test(test_everybody_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
