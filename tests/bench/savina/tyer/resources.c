/* SPDX-License-Identifier: Apache-2.0
 *
 * One owner of a resource, many who want it: bounded buffer, dining philosophers, concurrent dictionary.
 */
#include "bench.h"

enum { PRODUCE = 1, TAKE, STORED, FREED, HUNGRY, SATED, EAT, READ, WRITE, ANSWER };

/* ---- bounded buffer: P producers, C consumers, a buffer of B, N items a producer -------------- */

/* A place in the buffer. It travels: to a producer empty, back full, to a consumer, back free. */
struct slot {
	struct ty_msg msg;
	uint64_t value;
	uint32_t who; /* producer or consumer that has it */
	struct slot *next;
};

struct maker {
	struct ty_actor *buffer;
	uint64_t made;
} __attribute__((aligned(64)));

struct buffer {
	struct ty_actor **producers, **consumers;
	struct slot *slots, *spare; /* spare: not with a producer, a consumer or in the buffer */
	struct slot *full, **full_end;
	uint32_t *idle, *hungry, *left; /* idle and hungry: stacks of indices */
	uint32_t idle_count, hungry_count, used, size;
	uint64_t consumed, expected, sum;
};

static void on_produce(void *self, struct ty_msg *msg)
{
	struct maker *maker = own(self);

	ty_container_of(msg, struct slot, msg)->value = maker->made++;
	send(maker->buffer, msg, STORED);
}

static void on_take(void *self, struct ty_msg *msg)
{
	struct maker *maker = own(self);

	maker->made += ty_container_of(msg, struct slot, msg)->value;
	send(maker->buffer, msg, FREED);
}

/* `used` counts what is in the buffer, or on its way from a producer who was told to. */
static void let_produce(struct buffer *buffer)
{
	while (buffer->used < buffer->size && buffer->hungry_count) {
		struct slot *slot = buffer->spare;

		buffer->spare = slot->next;
		buffer->used++;
		slot->who = buffer->hungry[--buffer->hungry_count];
		buffer->left[slot->who]--;
		send(buffer->producers[slot->who], &slot->msg, PRODUCE);
	}
}

static void let_consume(struct buffer *buffer)
{
	while (buffer->full && buffer->idle_count) {
		struct slot *slot = buffer->full;

		buffer->full = slot->next;
		if (!buffer->full)
			buffer->full_end = &buffer->full;
		buffer->used--;
		slot->who = buffer->idle[--buffer->idle_count];
		send(buffer->consumers[slot->who], &slot->msg, TAKE);
	}
}

static void on_stored(void *self, struct ty_msg *msg)
{
	struct buffer *buffer = own(self);
	struct slot *slot = ty_container_of(msg, struct slot, msg);

	if (buffer->left[slot->who])
		buffer->hungry[buffer->hungry_count++] = slot->who;
	slot->next = NULL;
	*buffer->full_end = slot;
	buffer->full_end = &slot->next;
	let_consume(buffer);
	let_produce(buffer);
}

static void on_freed(void *self, struct ty_msg *msg)
{
	struct buffer *buffer = own(self);
	struct slot *slot = ty_container_of(msg, struct slot, msg);

	buffer->idle[buffer->idle_count++] = slot->who;
	slot->next = buffer->spare;
	buffer->spare = slot;
	buffer->sum += slot->value;
	if (++buffer->consumed == buffer->expected)
		finished();
	let_consume(buffer);
	let_produce(buffer);
}

static struct ty_actor **makers(
	struct ty_runtime *rt, const struct ty_class *cls, struct ty_actor *buffer, uint32_t count)
{
	struct ty_actor **actors = table_of(count, sizeof *actors);
	struct maker *all = table_of(count, sizeof *all);

	for (uint32_t i = 0; i < count; i++) {
		all[i].buffer = buffer;
		actors[i] = spawn(rt, cls, &all[i]);
	}
	return actors;
}

static void release(struct ty_actor **actors, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		ty_actor_unref(actors[i]);
}

uint64_t run_bndbuffer(struct ty_runtime *rt, const uint64_t *params)
{
	static const struct ty_handler maker_handlers[] = {{"produce", on_produce}, {"take", on_take}};
	static const struct ty_handler buffer_handlers[] = {{"stored", on_stored}, {"freed", on_freed}};
	static const struct ty_class maker_class = CLASS("maker", PRODUCE, maker_handlers);
	static const struct ty_class buffer_class = CLASS("buffer", STORED, buffer_handlers);
	uint32_t producers = (uint32_t)params[0], consumers = (uint32_t)params[1], size = (uint32_t)params[2];
	struct buffer *b = table_of(1, sizeof *b);
	struct ty_actor *actor = spawn(rt, &buffer_class, b);

	b->producers = makers(rt, &maker_class, actor, producers);
	b->consumers = makers(rt, &maker_class, actor, consumers);
	b->slots = table_of(size + consumers, sizeof *b->slots);
	b->full_end = &b->full;
	b->idle = table_of(consumers, sizeof *b->idle);
	b->hungry = table_of(producers, sizeof *b->hungry);
	b->left = table_of(producers, sizeof *b->left);
	b->size = size;
	b->expected = params[3] * producers;
	for (uint32_t i = 0; i < consumers; i++)
		b->idle[b->idle_count++] = i;
	/* the first places go out from here: the buffer's actor learns of them by what comes back */
	b->used = producers < size ? producers : size;
	for (uint32_t i = 0; i < producers; i++) {
		b->left[i] = (uint32_t)params[3] - (i < b->used);
		if (i < b->used)
			b->slots[i].who = i;
		else
			b->hungry[b->hungry_count++] = i;
	}
	for (uint32_t i = b->used; i < size + consumers; i++) {
		b->slots[i].next = b->spare;
		b->spare = &b->slots[i];
	}
	clock_start();
	for (uint32_t i = 0, first = b->used; i < first; i++)
		send(b->producers[i], &b->slots[i].msg, PRODUCE);
	wait_finished();
	release(b->producers, producers);
	release(b->consumers, consumers);
	ty_actor_unref(actor);
	return b->sum;
}

/* ---- dining philosophers: K philosophers, N meals each, one table that gives out the forks ---- */

struct request {
	struct ty_msg msg;
	uint32_t who;
};

struct philosopher {
	struct ty_actor *table;
	uint64_t left;
	struct request hungry, sated;
} __attribute__((aligned(64)));

struct table {
	struct ty_actor **actors;
	bool *taken;
	struct request **waiting;
	uint32_t count;
	uint64_t meals, expected;
};

static void serve(struct table *table, uint32_t who)
{
	uint32_t right = who + 1 == table->count ? 0 : who + 1;
	struct request *request = table->waiting[who];

	if (!request || table->taken[who] || table->taken[right])
		return;
	table->waiting[who] = NULL;
	table->taken[who] = table->taken[right] = true;
	send(table->actors[who], &request->msg, EAT);
}

static void on_hungry(void *self, struct ty_msg *msg)
{
	struct table *table = own(self);
	struct request *request = ty_container_of(msg, struct request, msg);

	table->waiting[request->who] = request;
	serve(table, request->who);
}

static void on_sated(void *self, struct ty_msg *msg)
{
	struct table *table = own(self);
	uint32_t who = ty_container_of(msg, struct request, msg)->who;
	uint32_t right = who + 1 == table->count ? 0 : who + 1;

	table->taken[who] = table->taken[right] = false;
	if (++table->meals == table->expected)
		finished();
	serve(table, who ? who - 1 : table->count - 1);
	serve(table, right);
}

static void on_eat(void *self, struct ty_msg *msg)
{
	struct philosopher *me = own(self);

	send(me->table, &me->sated.msg, SATED); /* handled before the next EAT can come */
	if (--me->left)
		send(me->table, msg, HUNGRY);
}

uint64_t run_philosophers(struct ty_runtime *rt, const uint64_t *params)
{
	static const struct ty_handler table_handlers[] = {{"hungry", on_hungry}, {"sated", on_sated}};
	static const struct ty_handler philosopher_handlers[] = {{"eat", on_eat}};
	static const struct ty_class table_class = CLASS("table", HUNGRY, table_handlers);
	static const struct ty_class philosopher_class = CLASS("philosopher", EAT, philosopher_handlers);
	uint32_t count = (uint32_t)params[0];
	struct table *table = table_of(1, sizeof *table);
	struct ty_actor *actor = spawn(rt, &table_class, table);
	struct philosopher *all = table_of(count, sizeof *all);

	table->count = count;
	table->expected = count * params[1];
	table->actors = table_of(count, sizeof *table->actors);
	table->taken = table_of(count, sizeof *table->taken);
	table->waiting = table_of(count, sizeof *table->waiting);
	for (uint32_t i = 0; i < count; i++) {
		all[i] = (struct philosopher){
			.table = actor, .left = params[1], .hungry.who = i, .sated.who = i};
		table->actors[i] = spawn(rt, &philosopher_class, &all[i]);
	}
	clock_start();
	for (uint32_t i = 0; i < count; i++)
		send(actor, &all[i].hungry.msg, HUNGRY);
	wait_finished();
	release(table->actors, count);
	ty_actor_unref(actor);
	return table->meals;
}

/* ---- concurrent dictionary: K workers, N operations each, W percent of them writes ------------ */

#define KEYS 65536
#define PLACES (2 * KEYS) /* a power of two */

struct query {
	struct ty_msg msg;
	struct ty_actor *from;
	uint32_t key;
	uint64_t value;
};

struct user {
	struct ty_actor *dictionary, *sink;
	uint64_t left, percent, reads;
	uint32_t random;
	struct query query;
} __attribute__((aligned(64)));

struct dictionary {
	struct {
		uint32_t key; /* plus one; 0: free */
		uint64_t value;
	} places[PLACES];
	uint64_t done, expected;
};

/* The value of a key, made if it is not there. Linear probing; never more than half full. */
static uint64_t *lookup(struct dictionary *d, uint32_t key)
{
	uint32_t place = (key + 1) * 2654435769u >> 15;

	while (d->places[place].key != key + 1) {
		if (!d->places[place].key)
			d->places[place].key = key + 1;
		else
			place = (place + 1) & (PLACES - 1);
	}
	return &d->places[place].value;
}

static void on_read(void *self, struct ty_msg *msg)
{
	struct query *query = ty_container_of(msg, struct query, msg);

	query->value = *lookup(own(self), query->key);
	send(query->from, msg, ANSWER);
}

static void on_write(void *self, struct ty_msg *msg)
{
	struct query *query = ty_container_of(msg, struct query, msg);

	query->value = ++*lookup(own(self), query->key);
	send(query->from, msg, ANSWER);
}

static void on_answer(void *self, struct ty_msg *msg)
{
	struct user *user = own(self);
	uint32_t drawn;

	if (!user->left--) {
		send(user->sink, msg, ANSWER);
		return;
	}
	drawn = next_random(&user->random) % 100;
	user->query.key = next_random(&user->random) % KEYS;
	if (drawn >= user->percent)
		user->reads++;
	send(user->dictionary, msg, drawn < user->percent ? WRITE : READ);
}

static void on_user_done(void *self, struct ty_msg *msg)
{
	struct dictionary *d = own(self);

	(void)msg;
	if (++d->done == d->expected)
		finished();
}

uint64_t run_concdict(struct ty_runtime *rt, const uint64_t *params)
{
	static const struct ty_handler handlers[] = {{"read", on_read}, {"write", on_write}};
	static const struct ty_handler user_handlers[] = {{"answer", on_answer}};
	static const struct ty_handler sink_handlers[] = {{"answer", on_user_done}};
	static const struct ty_class dictionary_class = CLASS("dictionary", READ, handlers);
	static const struct ty_class user_class = CLASS("user", ANSWER, user_handlers);
	static const struct ty_class sink_class = CLASS("sink", ANSWER, sink_handlers);
	struct dictionary *d = table_of(1, sizeof *d);
	struct ty_actor *actor = spawn(rt, &dictionary_class, d), *sink = spawn(rt, &sink_class, d);
	struct user *users = table_of(params[0], sizeof *users);
	struct ty_actor **actors = table_of(params[0], sizeof *actors);
	uint64_t check = 0;

	d->expected = params[0];
	for (uint64_t i = 0; i < params[0]; i++) {
		actors[i] = spawn(rt, &user_class, &users[i]);
		users[i] = (struct user){.dictionary = actor,
			.sink = sink,
			.left = params[1],
			.percent = params[2],
			.random = (uint32_t)i,
			.query.from = actors[i]};
	}
	clock_start();
	for (uint64_t i = 0; i < params[0]; i++)
		send(actors[i], &users[i].query.msg, ANSWER);
	wait_finished();
	release(actors, params[0]);
	ty_actor_unref(actor);
	ty_actor_unref(sink);
	for (uint64_t i = 0; i < params[0]; i++)
		check += users[i].reads;
	for (size_t i = 0; i < PLACES; i++)
		check += d->places[i].value;
	return check;
}
