/* SPDX-License-Identifier: Apache-2.0
 *
 * One owner of a resource, many who want it: bounded buffer, dining philosophers, concurrent dictionary.
 */
#include "bench.h"

enum { PRODUCE = 1, TAKE, STORED, FREED, HUNGRY, SATED, EAT, READ, WRITE, ANSWER };

/* ---- bounded buffer: P producers, C consumers, a buffer of B, N items a producer --------------
 *
 * The buffer owns its places and lends them, one at a time or in crates: free ones to a producer, who fills them, full ones
 * to a consumer, who empties them. What is lent is taken, so there are never more than B items. Whoever has
 * waited longest is next. */

#define CRATE 10 /* places in a crate, at most */

struct crate {
	struct ty_msg msg;
	uint32_t who;   /* producer or consumer that has it */
	uint32_t count; /* items in it, or to be put in */
	struct crate *next;
	uint64_t values[CRATE];
} __attribute__((aligned(64)));

struct maker {
	struct ty_actor *buffer;
	uint64_t made; /* a producer: items; a consumer: their sum */
} __attribute__((aligned(64)));

/* Who waits, in the order of asking: a ring, with room for all. */
struct queue {
	uint32_t *who, size, first, count;
};

struct buffer {
	struct ty_actor **producers, **consumers;
	struct crate *empty, *full, **full_end;
	struct queue hungry, idle;
	uint32_t *left; /* items that a producer is still to make */
	uint32_t places; /* in a crate */
	uint64_t consumed, expected;
};

static void enqueue(struct queue *queue, uint32_t who)
{
	queue->who[(queue->first + queue->count++) % queue->size] = who;
}

static uint32_t dequeue(struct queue *queue)
{
	uint32_t who = queue->who[queue->first];

	queue->first = (queue->first + 1) % queue->size;
	queue->count--;
	return who;
}

static void on_produce(void *self, struct ty_msg *msg)
{
	struct maker *maker = own(self);
	struct crate *crate = ty_container_of(msg, struct crate, msg);

	for (uint32_t i = 0; i < crate->count; i++)
		crate->values[i] = maker->made++;
	send(maker->buffer, msg, STORED);
}

static void on_take(void *self, struct ty_msg *msg)
{
	struct maker *maker = own(self);
	struct crate *crate = ty_container_of(msg, struct crate, msg);

	for (uint32_t i = 0; i < crate->count; i++)
		maker->made += crate->values[i];
	send(maker->buffer, msg, FREED);
}

static void let_produce(struct buffer *buffer)
{
	while (buffer->empty && buffer->hungry.count) {
		struct crate *crate = buffer->empty;
		uint32_t who = dequeue(&buffer->hungry), left = buffer->left[who];

		buffer->empty = crate->next;
		crate->who = who;
		crate->count = left < buffer->places ? left : buffer->places;
		buffer->left[who] = left - crate->count;
		send(buffer->producers[who], &crate->msg, PRODUCE);
	}
}

static void let_consume(struct buffer *buffer)
{
	while (buffer->full && buffer->idle.count) {
		struct crate *crate = buffer->full;

		buffer->full = crate->next;
		if (!buffer->full)
			buffer->full_end = &buffer->full;
		crate->who = dequeue(&buffer->idle);
		send(buffer->consumers[crate->who], &crate->msg, TAKE);
	}
}

static void on_stored(void *self, struct ty_msg *msg)
{
	struct buffer *buffer = own(self);
	struct crate *crate = ty_container_of(msg, struct crate, msg);

	if (buffer->left[crate->who])
		enqueue(&buffer->hungry, crate->who);
	crate->next = NULL;
	*buffer->full_end = crate;
	buffer->full_end = &crate->next;
	let_consume(buffer);
}

static void on_freed(void *self, struct ty_msg *msg)
{
	struct buffer *buffer = own(self);
	struct crate *crate = ty_container_of(msg, struct crate, msg);

	if (crate->count) /* else it is new */
		enqueue(&buffer->idle, crate->who);
	crate->next = buffer->empty;
	buffer->empty = crate;
	buffer->consumed += crate->count;
	if (buffer->consumed == buffer->expected)
		finished();
	let_consume(buffer);
	let_produce(buffer);
}

static struct ty_actor **makers(
	struct ty_runtime *rt, const struct ty_class *cls, struct ty_actor *buffer, struct maker *all, uint32_t count)
{
	struct ty_actor **actors = table_of(count, sizeof *actors);

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

static void fill_queue(struct queue *queue, uint32_t count)
{
	queue->who = table_of(count, sizeof *queue->who);
	queue->size = count;
	for (uint32_t i = 0; i < count; i++)
		enqueue(queue, i);
}

static uint64_t bounded_buffer(struct ty_runtime *rt, const uint64_t *params, uint32_t places)
{
	static const struct ty_handler maker_handlers[] = {{"produce", on_produce}, {"take", on_take}};
	static const struct ty_handler buffer_handlers[] = {{"stored", on_stored}, {"freed", on_freed}};
	static const struct ty_class maker_class = CLASS("maker", PRODUCE, maker_handlers);
	static const struct ty_class buffer_class = CLASS("buffer", STORED, buffer_handlers);
	uint32_t producers = (uint32_t)params[0], consumers = (uint32_t)params[1];
	uint32_t crates = (uint32_t)params[2] / places;
	struct buffer *b = table_of(1, sizeof *b);
	struct ty_actor *actor = spawn(rt, &buffer_class, b);
	struct maker *eaters = table_of(consumers, sizeof *eaters);
	struct crate *all = table_of(crates, sizeof *all);
	uint64_t check = 0;

	b->producers = makers(rt, &maker_class, actor, table_of(producers, sizeof(struct maker)), producers);
	b->consumers = makers(rt, &maker_class, actor, eaters, consumers);
	b->left = table_of(producers, sizeof *b->left);
	b->full_end = &b->full;
	b->places = places;
	b->expected = params[3] * producers;
	fill_queue(&b->hungry, producers);
	fill_queue(&b->idle, consumers);
	for (uint32_t i = 0; i < producers; i++)
		b->left[i] = (uint32_t)params[3];
	clock_start();
	for (uint32_t i = 0; i < crates; i++)
		send(actor, &all[i].msg, FREED);
	wait_finished();
	for (uint32_t i = 0; i < consumers; i++)
		check += eaters[i].made;
	release(b->producers, producers);
	release(b->consumers, consumers);
	ty_actor_unref(actor);
	return check;
}

uint64_t run_bndbuffer(struct ty_runtime *rt, const uint64_t *params)
{
	return bounded_buffer(rt, params, 1);
}

uint64_t run_bndcrates(struct ty_runtime *rt, const uint64_t *params)
{
	return bounded_buffer(rt, params, CRATE);
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
