/* SPDX-License-Identifier: Apache-2.0
 *
 * The owner's loop, called by the runtime after every batch of messages and as long as there is something to watch:
 *
 *     poll     what did the device finish, which ready words have come
 *     submit   retrieves before stores, until the device's queue is full
 *     slow     one mapping, unmapping or registration, when nothing is in flight
 *
 * An op waits in `waiting` for its ready word, then in `queue` until its last copy is submitted; then it flies, known only to
 * its batches, until the last of them is done.
 */
#include "gpu.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "eviction.h"
#include "service.h"

#define BATCHES 64                 /* given to the device at once */
#define RETRIEVE_RUN 8             /* retrieve batches in a row while a store waits */
#define SLOW_SHARE 20              /* while there is work, registrations of pieces take 1/20 of the owner's time ... */
#define BUSY_NS 50000000           /* ... and there is work if any was submitted in the last 50 ms */
#define EXPIRE_NS 10000000         /* how often ops that wait are looked at for cancel and deadline: 10 ms */
#define READY_POLL_MIN_NS 20000    /* how often a ready word is looked at when nothing else is to do ... */
#define READY_POLL_MAX_NS 500000   /* ... at first, and after a while */
#define STALL_NS 10000000000       /* a batch older than this: the device is stalled */

struct batch {
	struct ty_batch base;
	struct ty_op *op; /* null: free */
	bool free_seen;   /* base.client_free was acted on */
	int64_t submitted;
	struct batch *next; /* of the free list */
};

struct ops { /* a queue of ops through ty_op.next */
	struct ty_op *head, **tail;
	uint32_t count;
};

struct msgs { /* a queue of messages through ty_msg.next */
	struct ty_msg *head, **tail;
};

struct gpu {
	struct ty_service *service;
	uint32_t index;
	struct ty_device_options options;
	struct ty_gpu_stats *stats;
	struct ty_device *dev; /* null: could not be opened */
	struct ty_error failure; /* why ops cannot be served, when code is not TY_OK */
	struct ty_gpu_ready ready;

	struct ops waiting, queue[2]; /* queue by enum ty_direction */
	uint32_t flying;              /* ops whose last copy is submitted and not done */
	uint32_t retrieve_run;
	int64_t waiting_since, expire_at;

	struct batch batches[BATCHES], *free_batches;
	uint32_t in_flight; /* batches */
	bool stalled;       /* one of them is older than STALL_NS */

	struct msgs urgent_slow, slow; /* map and unmap; pieces */
	int64_t slow_after;            /* no piece before this time */
	int64_t submitted;             /* when a batch was, last */
};

/* ---- small queues ------------------------------------------------------------------------------ */

static void ops_init(struct ops *q)
{
	*q = (struct ops){NULL, &q->head, 0};
}

static void ops_push(struct ops *q, struct ty_op *op)
{
	op->next = NULL;
	op->queued = true;
	*q->tail = op;
	q->tail = &op->next;
	q->count++;
}

static void ops_unlink(struct ops *q, struct ty_op **link)
{
	struct ty_op *op = *link;

	*link = op->next;
	if (!op->next)
		q->tail = link;
	op->next = NULL;
	op->queued = false;
	q->count--;
}

static void msgs_init(struct msgs *q)
{
	*q = (struct msgs){NULL, &q->head};
}

static void msgs_push(struct msgs *q, struct ty_msg *msg)
{
	msg->next = NULL;
	*q->tail = msg;
	q->tail = &msg->next;
}

static struct ty_msg *msgs_pop(struct msgs *q)
{
	struct ty_msg *msg = q->head;

	if (msg) {
		q->head = msg->next;
		if (!q->head)
			q->tail = &q->head;
	}
	return msg;
}

/* ---- statistics: one writer, this actor ---------------------------------------------------------- */

static void add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

static void publish(struct gpu *g)
{
	atomic_store_explicit(&g->stats->queued, g->waiting.count + g->queue[0].count + g->queue[1].count,
		memory_order_relaxed);
	atomic_store_explicit(&g->stats->in_flight, g->flying, memory_order_relaxed);
}

static void set_state(struct gpu *g, enum ty_gpu_state state)
{
	/* release: info and note before the state; pairs with the acquire in whoever reads them */
	atomic_store_explicit(&g->stats->state, state, memory_order_release);
}

/* ---- ops ----------------------------------------------------------------------------------------- */

static enum ty_direction direction_of(const struct ty_op *op)
{
	return op->kind == TY_OP_STORE ? TY_TO_HOST : TY_TO_DEVICE;
}

/* Every copy that was submitted is over: the op goes on, whatever became of it. */
static void finish(struct gpu *g, struct ty_op *op)
{
	bool store = op->kind == TY_OP_STORE;

	assert(op->finished == op->submitted);
	if (op->code == TY_OK) {
		uint64_t bytes = op->copy_count * op->layout->chunk_bytes;

		add(store ? &g->stats->stored_bytes : &g->stats->retrieved_bytes, bytes);
		add(store ? &g->stats->stored_chunks : &g->stats->retrieved_chunks, op->copy_count);
	} else {
		add(&g->stats->failed_ops, 1);
	}
	ty_op_clear(op);
	/* A failed store's blocks may be reused as well; a failed retrieve's hold nothing to announce. */
	if (store || op->code == TY_OK)
		ty_op_raise_done(op);
	enum ty_code sent;

	if (!store)
		sent = ty_send(op->home, &op->msg, op->home_type);
	else if (op->code != TY_OK)
		sent = ty_send(g->service->eviction, &op->msg, TY_EVICTION_COMMIT);
	else
		sent = ty_send(g->service->checksum[op->id % g->service->checksum_count], &op->msg, TY_CHECKSUM_OP);
	assert(sent == TY_OK); /* all of them outlive the ops they sent out */
}

/* Should this op, none of whose copies is out, end here? Then its code says why. */
static bool expired(const struct gpu *g, struct ty_op *op, int64_t now)
{
	if (ty_op_cancelled(op))
		ty_op_fail(op, TY_CANCELLED, "cancelled before its copy began");
	else if (now >= op->deadline)
		ty_op_fail(op, g->stalled ? TY_DEVICE_STALLED : TY_TIMEOUT, "deadline passed before the copy began%s",
			ty_op_is_ready(op) ? "" : ": its ready word has not come");
	else if (g->failure.code != TY_OK)
		ty_op_fail(op, g->failure.code, "%s", g->failure.text);
	return op->code != TY_OK;
}

static void look_at_ready_words(struct gpu *g)
{
	struct ty_op **link = &g->waiting.head;

	while (*link) {
		struct ty_op *op = *link;

		if (ty_op_is_ready(op)) {
			ops_unlink(&g->waiting, link);
			ops_push(&g->queue[direction_of(op)], op);
		} else {
			link = &op->next;
		}
	}
}

static void expire(struct gpu *g, struct ops *q, int64_t now)
{
	struct ty_op **link = &q->head;

	while (*link) {
		struct ty_op *op = *link;

		if (op->submitted == op->finished && expired(g, op, now)) {
			ops_unlink(q, link);
			finish(g, op);
		} else {
			link = &op->next;
		}
	}
}

static void expire_all(struct gpu *g, int64_t now)
{
	bool stalled = false;

	for (int i = 0; i < BATCHES; i++)
		stalled |= g->batches[i].op && now - g->batches[i].submitted > STALL_NS;
	if (stalled != g->stalled && g->failure.code == TY_OK) {
		g->stalled = stalled;
		set_state(g, stalled ? TY_GPU_STALLED : TY_GPU_SERVING);
		ty_log(stalled ? TY_LOG_ERROR : TY_LOG_INFO, "gpu", "%s %s", g->stats->info.name,
			stalled ? "does not finish what it was given: stalled" : "goes on");
	}
	expire(g, &g->waiting, now);
	expire(g, &g->queue[TY_TO_HOST], now);
	expire(g, &g->queue[TY_TO_DEVICE], now);
	g->expire_at = now + EXPIRE_NS;
}

/* ---- copies -------------------------------------------------------------------------------------- */

/* Before the first copy. False: the engine gave the op up between the last look and now. */
static bool begin(struct ty_op *op)
{
	if (!ty_op_begin(op))
		ty_op_fail(op, TY_CANCELLED, "cancelled before its copy began");
	return op->code == TY_OK;
}

/* The next piece of the queue's first op. False: the device takes no more in this direction now. */
static bool submit_one(struct gpu *g, enum ty_direction dir, int64_t now)
{
	struct ops *q = &g->queue[dir];
	struct ty_op *op = q->head;
	struct batch *b = g->free_batches;

	if (!b)
		return false;
	/* A new op may have died while it waited; one that has begun is stopped at its next piece. */
	if (expired(g, op, now) || (!op->submitted && !begin(op))) {
		ops_unlink(q, &q->head);
		if (op->submitted == op->finished)
			finish(g, op);
		else
			g->flying++;
		return true;
	}

	uint32_t limit = ty_device_batch_limit(g->dev, op->layout), left = op->copy_count - op->submitted;

	b->base = (struct ty_batch){
		.mapping = op->mapping,
		.direction = dir,
		.copies = op->copies + op->submitted,
		.count = left < limit ? left : limit,
	};
	enum ty_code code = ty_device_submit(g->dev, &b->base);

	if (code == TY_BUSY)
		return false;
	if (code != TY_OK) {
		ty_op_fail(op, code, "the device refused a copy");
		return true; /* and ends at the next look, as expired */
	}
	g->free_batches = b->next;
	g->submitted = now;
	b->op = op;
	b->free_seen = false;
	b->submitted = now;
	g->in_flight++;
	op->submitted += b->base.count;
	if (op->submitted == op->copy_count) {
		ops_unlink(q, &q->head);
		g->flying++;
	}
	return true;
}

/* Retrieves first, but not for ever while a store waits. */
static void submit(struct gpu *g, int64_t now)
{
	bool full[2] = {false, false};

	for (;;) {
		bool retrieve = g->queue[TY_TO_DEVICE].head && !full[TY_TO_DEVICE];
		bool store = g->queue[TY_TO_HOST].head && !full[TY_TO_HOST];

		if (!retrieve && !store)
			return;
		enum ty_direction dir = retrieve && (!store || g->retrieve_run < RETRIEVE_RUN) ? TY_TO_DEVICE : TY_TO_HOST;

		if (!submit_one(g, dir, now))
			full[dir] = true;
		else
			g->retrieve_run = dir == TY_TO_DEVICE ? g->retrieve_run + 1 : 0;
	}
}

static void batch_done(struct gpu *g, struct batch *b)
{
	struct ty_op *op = b->op;

	if (b->base.code != TY_OK)
		ty_op_fail(op, b->base.code, "the copy failed on the device");
	op->finished += b->base.count;
	g->in_flight--;
	b->op = NULL;
	b->next = g->free_batches;
	g->free_batches = b;
	/* One that failed between two pieces is still queued, and ends there. */
	if (!op->queued && op->finished == op->submitted) {
		g->flying--;
		finish(g, op);
	}
}

/* A store's blocks may be reused as soon as all of them have been read, which can be before the copy is over. */
static void raise_early(struct gpu *g)
{
	for (int i = 0; i < BATCHES; i++) {
		struct batch *b = &g->batches[i];

		if (b->op && b->base.client_free && !b->free_seen && b->base.direction == TY_TO_HOST) {
			b->free_seen = true;
			b->op->freed += b->base.count;
			if (b->op->freed == b->op->copy_count) {
				ty_op_clear(b->op);
				ty_op_raise_done(b->op);
			}
		}
	}
}

static void poll_device(struct gpu *g)
{
	struct ty_batch *done[BATCHES];
	uint32_t n = ty_device_poll(g->dev, done, BATCHES);

	raise_early(g);
	for (uint32_t i = 0; i < n; i++)
		batch_done(g, ty_container_of(done[i], struct batch, base));

	if (g->failure.code == TY_OK && ty_device_health(g->dev, &g->failure) != TY_OK) {
		ty_log(TY_LOG_ERROR, "gpu", "%s: %s", g->stats->info.name, g->failure.text);
		set_state(g, TY_GPU_FAILED);
	}
}

/* ---- the slow lane --------------------------------------------------------------------------------- */

static void send_home(struct ty_actor *to, struct ty_msg *msg, uint32_t type)
{
	enum ty_code sent = ty_send(to, msg, type);

	assert(sent == TY_OK); /* engines outlive their maps, the service's actors outlive the owner's work */
}

static void do_map(struct gpu *g, struct ty_map *map)
{
	map->code = g->failure.code != TY_OK
			    ? ty_fail(&map->error, g->failure.code, "%s", g->failure.text)
			    : ty_device_map(g->dev, map->layout, map->regions, &map->mapping, &map->error);
	if (map->code == TY_OK)
		add(&g->stats->mappings, 1);
	send_home(map->engine, &map->msg, TY_ENGINE_MAPPED);
}

static void do_unmap(struct gpu *g, struct ty_map *map)
{
	ty_device_unmap(g->dev, map->mapping);
	map->mapping = NULL;
	add(&g->stats->mappings, (uint64_t)-1);
	send_home(map->engine, &map->msg, TY_ENGINE_UNMAPPED);
}

static void do_piece(struct gpu *g, struct ty_piece *piece)
{
	uint8_t *base = g->service->arena.base + piece->index * TY_PIECE_BYTES;

	piece->code = g->failure.code != TY_OK
			      ? ty_fail(&piece->error, g->failure.code, "%s", g->failure.text)
			      : ty_device_register_host(g->dev, base, TY_PIECE_BYTES, &piece->error);
	send_home(g->service->eviction, &piece->msg, TY_EVICTION_PIECE);
}

static bool slow_wanted(const struct gpu *g, int64_t now)
{
	return g->urgent_slow.head || (g->slow.head && now >= g->slow_after);
}

/* One slow call, with nothing in flight that it could wait for. */
static void slow(struct gpu *g)
{
	struct ty_msg *msg = g->urgent_slow.head ? msgs_pop(&g->urgent_slow) : msgs_pop(&g->slow);
	int64_t began = ty_now();

	switch (msg->type) {
	case TY_GPU_MAP:
		do_map(g, ty_container_of(msg, struct ty_map, msg));
		break;
	case TY_GPU_UNMAP:
		do_unmap(g, ty_container_of(msg, struct ty_map, msg));
		break;
	default:
		do_piece(g, ty_container_of(msg, struct ty_piece, msg));
		break;
	}

	int64_t now = ty_now();
	uint64_t took = (uint64_t)(now - began);

	if (took > atomic_load_explicit(&g->stats->longest_slow_ns, memory_order_relaxed))
		atomic_store_explicit(&g->stats->longest_slow_ns, took, memory_order_relaxed);
	/* A piece empties the device's queue first and then blocks it: while ops come they must be rare. If they are short
	 * of space they wait at eviction, nothing is submitted, and the pieces come as fast as they can. */
	g->slow_after = now - g->submitted < BUSY_NS ? now + (int64_t)took * SLOW_SHARE : now;
}

/* ---- the actor ------------------------------------------------------------------------------------- */

/* When to look again. */
static int64_t next_look(struct gpu *g, int64_t now)
{
	if (g->in_flight || g->urgent_slow.head || (g->slow.head && now >= g->slow_after))
		return now;

	int64_t next = g->slow.head ? g->slow_after : TY_NEVER;

	if (g->waiting.head) {
		int64_t pause = (now - g->waiting_since) / 8;

		pause = pause < READY_POLL_MIN_NS ? READY_POLL_MIN_NS : pause > READY_POLL_MAX_NS ? READY_POLL_MAX_NS : pause;
		next = next < now + pause ? next : now + pause;
	}
	/* Queued, nothing in flight, and yet not submitted: the device refused or the slow lane is due. */
	if (g->queue[0].head || g->queue[1].head)
		next = next < now + READY_POLL_MIN_NS ? next : now + READY_POLL_MIN_NS;
	return next;
}

static int64_t gpu_poll(void *self, int64_t now)
{
	struct gpu *g = self;

	if (!g->dev) {
		expire_all(g, now);
		while (g->urgent_slow.head || g->slow.head)
			slow(g);
		publish(g);
		return TY_NEVER;
	}
	if (g->in_flight)
		poll_device(g);
	if (g->waiting.head)
		look_at_ready_words(g);
	if (now >= g->expire_at)
		expire_all(g, now);
	if (!slow_wanted(g, now))
		submit(g, now);
	else if (!g->in_flight)
		slow(g);
	publish(g);
	return next_look(g, now);
}

static void on_transfer(void *self, struct ty_msg *msg)
{
	struct gpu *g = self;
	struct ty_op *op = ty_container_of(msg, struct ty_op, msg);

	assert(op->copy_count > 0 && op->copy_count <= op->count);
	op->submitted = op->finished = op->freed = 0;
	if (ty_op_is_ready(op)) {
		ops_push(&g->queue[direction_of(op)], op);
	} else {
		g->waiting_since = ty_now();
		ops_push(&g->waiting, op);
	}
}

static void on_map(void *self, struct ty_msg *msg)
{
	struct gpu *g = self;

	msgs_push(&g->urgent_slow, msg);
}

static void on_piece(void *self, struct ty_msg *msg)
{
	struct gpu *g = self;

	msgs_push(&g->slow, msg);
}

/* Open the device; may take a second. What was sent meanwhile waits in the mailbox. */
static void on_start(void *self, struct ty_msg *msg)
{
	struct gpu *g = self;
	enum ty_code code;

	(void)msg;
	ty_device_publish_calls(&g->stats->call);
	code = ty_device_open(&g->options, &g->dev, &g->failure);
	if (code == TY_OK) {
		g->stats->info = *ty_device_info(g->dev);
		snprintf(g->stats->note, sizeof g->stats->note, "%s", ty_device_note(g->dev));
		/* release: pairs with metrics' acquire */
		atomic_store_explicit(&g->stats->device, ty_device_stats(g->dev), memory_order_release);
		ty_log(TY_LOG_INFO, "gpu", "%s: %s%s%s", g->stats->info.name, g->stats->info.model,
			g->stats->note[0] ? "; " : "", g->stats->note);
	} else {
		snprintf(g->stats->note, sizeof g->stats->note, "%.159s", g->failure.text);
		ty_log(TY_LOG_ERROR, "gpu", "%s: %s", g->options.name, g->failure.text);
	}
	set_state(g, code == TY_OK ? TY_GPU_SERVING : TY_GPU_FAILED);
	g->ready.code = code;
	/* CLOSED: the service was stopped while the device opened, and nobody asks any more. */
	if (ty_send(g->service->clients, &g->ready.msg, TY_CLIENTS_DEVICE) != TY_OK)
		ty_log(TY_LOG_INFO, "gpu", "%s: opened too late", g->options.name);
}

static enum ty_code start(void *self, void *arg)
{
	struct gpu *g = self;
	const struct ty_gpu_arg *a = arg;

	g->service = a->service;
	g->index = a->device;
	g->options = a->options;
	g->stats = &g->service->gpu_stats[g->index];
	g->ready.device = g->index;
	snprintf(g->stats->info.name, sizeof g->stats->info.name, "%s", g->options.name);
	ops_init(&g->waiting);
	ops_init(&g->queue[0]);
	ops_init(&g->queue[1]);
	msgs_init(&g->urgent_slow);
	msgs_init(&g->slow);
	for (int i = 0; i < BATCHES; i++) {
		g->batches[i].next = g->free_batches;
		g->free_batches = &g->batches[i];
	}
	return TY_OK;
}

/* Pieces may still be on their way when the service stops; ops and maps are not, for no engine is left. */
static void refuse(void *self, struct ty_msg *msg)
{
	struct gpu *g = self;
	struct ty_piece *piece = ty_container_of(msg, struct ty_piece, msg);

	assert(msg->type == TY_GPU_PIECE);
	piece->code = ty_fail(&piece->error, TY_STOPPING, "the service stops");
	send_home(g->service->eviction, &piece->msg, TY_EVICTION_PIECE);
}

static void stop(void *self)
{
	struct gpu *g = self;

	assert(!g->in_flight && !g->waiting.head && !g->queue[0].head && !g->queue[1].head && !g->urgent_slow.head);
	for (struct ty_msg *msg = msgs_pop(&g->slow); msg; msg = msgs_pop(&g->slow))
		refuse(g, msg);
	if (g->dev) {
		atomic_store_explicit(&g->stats->device, NULL, memory_order_release);
		ty_device_close(g->dev);
	}
}

static const struct ty_handler handlers[] = {
	{"start", on_start},
	{"transfer", on_transfer},
	{"map", on_map},
	{"unmap", on_map},
	{"piece", on_piece},
};

const struct ty_class ty_gpu_class = {
	.name = "gpu",
	.state_size = sizeof(struct gpu),
	.first_type = TY_GPU_START,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.stop = stop,
	.refuse = refuse,
	.poll = gpu_poll,
};
