/* SPDX-License-Identifier: Apache-2.0
 *
 * Many messages one way: counting and fork-join throughput. The messages lie in blocks, and a block's are sent as one
 * bundle; the receiver of its last message sends the block home, and only then is it filled again: nothing is
 * allocated, and what is under way is bounded.
 */
#include "bench.h"

#define BLOCK 64 /* messages a handler sends at once */

enum { FILL = 1, JOINED, ITEM };

struct block;

struct item {
	struct ty_msg msg;
	uint64_t value;
	struct block *last_of; /* null but for a block's last */
};

struct block {
	struct ty_msg msg;
	struct ty_actor *from, *to;
	struct lane *lane;
	struct item items[BLOCK];
};

/* A producer's way to one consumer. */
struct lane {
	uint64_t next, end; /* values to send */
};

struct producer {
	uint64_t joined, expected;
};

struct consumer {
	struct ty_actor *producer;
	struct ty_msg join;
	uint64_t counted, expected, sum;
} __attribute__((aligned(64)));

static void on_fill(void *self, struct ty_msg *msg)
{
	struct block *block = ty_container_of(msg, struct block, msg);
	struct lane *lane = block->lane;
	struct ty_bundle bundle = {0};
	uint64_t next = lane->next, end = lane->end - next > BLOCK ? next + BLOCK : lane->end;

	(void)self;
	lane->next = end;
	for (struct item *item = block->items; next < end; item++) {
		item->value = next++;
		ty_bundle_add(&bundle, &item->msg, ITEM);
	}
	must(ty_send_bundle(block->to, &bundle));
}

static void on_joined(void *self, struct ty_msg *msg)
{
	struct producer *producer = own(self);

	(void)msg;
	if (++producer->joined == producer->expected)
		finished();
}

static void on_item(void *self, struct ty_msg *msg)
{
	struct consumer *consumer = own(self);
	struct item *item = ty_container_of(msg, struct item, msg);

	consumer->sum += item->value;
	if (++consumer->counted == consumer->expected)
		send(consumer->producer, &consumer->join, JOINED);
	else if (item->last_of)
		send(item->last_of->from, &item->last_of->msg, FILL);
}

/* `count` consumers are sent the numbers below `each`; returns the sum of their sums. */
static uint64_t stream(struct ty_runtime *rt, uint64_t count, uint64_t each, uint64_t blocks)
{
	static const struct ty_handler sends[] = {{"fill", on_fill}, {"joined", on_joined}};
	static const struct ty_handler receives[] = {{"item", on_item}};
	static const struct ty_class producer_class = CLASS("producer", FILL, sends);
	static const struct ty_class consumer_class = CLASS("consumer", ITEM, receives);
	struct producer producer = {.expected = count};
	struct ty_actor *source = spawn(rt, &producer_class, &producer);
	struct ty_actor **sinks = table_of(count, sizeof *sinks);
	struct consumer *consumers = table_of(count, sizeof *consumers);
	struct lane *lanes = table_of(count, sizeof *lanes);
	struct block *all = table_of(count * blocks, sizeof *all);
	uint64_t check = 0;

	for (uint64_t i = 0; i < count; i++) {
		consumers[i].producer = source;
		consumers[i].expected = each;
		lanes[i].end = each;
		sinks[i] = spawn(rt, &consumer_class, &consumers[i]);
	}
	clock_start();
	for (uint64_t i = 0; i < count * blocks; i++) {
		all[i].from = source;
		all[i].to = sinks[i % count];
		all[i].lane = &lanes[i % count];
		all[i].items[BLOCK - 1].last_of = &all[i];
		send(source, &all[i].msg, FILL);
	}
	wait_finished();
	for (uint64_t i = 0; i < count; i++) {
		check += consumers[i].sum;
		ty_actor_unref(sinks[i]);
	}
	ty_actor_unref(source);
	return check;
}

uint64_t run_counting(struct ty_runtime *rt, const uint64_t *params)
{
	return stream(rt, 1, params[0], 8);
}

uint64_t run_fjthroughput(struct ty_runtime *rt, const uint64_t *params)
{
	return stream(rt, params[0], params[1], 2);
}
