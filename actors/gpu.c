/* SPDX-License-Identifier: Apache-2.0
 *
 * The owner's loop, called by the runtime after every batch of messages and as long as there is something to watch:
 *
 *     poll     what did the device finish, which ready words have come
 *     submit   retrieves before stores, until the device's queue is full
 *     slow     one mapping, unmapping or registration, when nothing is in flight; then it is submit's turn again
 */
#include "gpu_state.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/give_way.h"
#include "base/log.h"
#include "base/numa.h"

#define SLOW_SHARE 20              /* while there is work, registrations of pieces take 1/20 of the owner's time ... */
#define BUSY_NS 50000000           /* ... and there is work if any waits, or was submitted in the last 50 ms */
#define READY_POLL_MIN_NS 20000    /* how often a ready word is looked at when nothing else is to do ... */
#define READY_POLL_MAX_NS 500000   /* ... at first, and after a while */

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

static void publish(struct gpu *g)
{
	atomic_store_explicit(&g->stats->queued, g->waiting.count + gpu_queued(g), memory_order_relaxed);
	atomic_store_explicit(&g->stats->in_flight, g->flying, memory_order_relaxed);
}

void gpu_set_state(struct gpu *g, enum ty_gpu_state state)
{
	/* release: info and note before the state; pairs with the acquire in whoever reads them */
	atomic_store_explicit(&g->stats->state, state, memory_order_release);
}

/* ---- the slow lane --------------------------------------------------------------------------------- */

static void send_home(struct ty_actor *to, struct ty_msg *msg, uint32_t type)
{
	enum ty_code sent = ty_send(to, msg, type);

	assert(sent == TY_OK); /* engines outlive their maps, the service's actors outlive the owner's work */
}

/* Both: false: more to do, in another turn. */
static bool do_map(struct gpu *g, struct ty_map *map)
{
	/* one that was begun is ended by the device, also when that has failed since */
	map->code = g->failure.code != TY_OK && !map->mapping
			    ? ty_fail(&map->error, g->failure.code, "%s", g->failure.text)
			    : ty_device_map_some(g->dev, map->layout, map->regions, &map->mapping, &map->error);
	if (map->code == TY_BUSY)
		return false;
	ty_record_note(g->record, TY_RECORD_MAP, false, map->code, 0, map->registration);
	if (map->code == TY_OK)
		gpu_count(&g->stats->mappings, 1);
	send_home(map->home, &map->msg, map->home_type);
	return true;
}

static bool do_unmap(struct gpu *g, struct ty_map *map)
{
	if (!ty_device_unmap_some(g->dev, map->mapping))
		return false;
	map->mapping = NULL;
	ty_record_note(g->record, TY_RECORD_UNMAP, false, TY_OK, 0, map->registration);
	gpu_count(&g->stats->mappings, (uint64_t)-1);
	send_home(map->home, &map->msg, map->home_type);
	return true;
}

static void do_piece(struct gpu *g, struct ty_piece *piece)
{
	uint8_t *base = g->service->arena.base + piece->index * TY_PIECE_BYTES;

	piece->code = g->failure.code != TY_OK
			      ? ty_fail(&piece->error, g->failure.code, "%s", g->failure.text)
			      : ty_device_register_host(g->dev, base, TY_PIECE_BYTES, &piece->error);
	ty_record_note(g->record, TY_RECORD_PIECE, false, piece->code, 0, piece->index);
	if (piece->code == TY_OK)
		g->registered[piece->index / 8] |= (uint8_t)(1u << piece->index % 8);
	send_home(piece->home, &piece->msg, piece->home_type);
}

static bool slow_wanted(const struct gpu *g, int64_t now)
{
	return (g->urgent_slow.head && now >= g->urgent_after) || (g->slow.head && now >= g->slow_after);
}

static bool has_work(const struct gpu *g, int64_t now)
{
	return gpu_queued(g) || now - g->submitted < BUSY_NS;
}

/* One slow call, or a few short ones, with nothing in flight that they could wait for. */
static void slow(struct gpu *g)
{
	int64_t began = ty_now();
	bool urgent = g->urgent_slow.head && (began >= g->urgent_after || !g->slow.head), done = true;
	struct ty_msg *msg = urgent ? msgs_pop(&g->urgent_slow) : msgs_pop(&g->slow);

	switch (msg->type) {
	case TY_GPU_MAP:
		done = do_map(g, ty_container_of(msg, struct ty_map, msg));
		break;
	case TY_GPU_UNMAP:
		done = do_unmap(g, ty_container_of(msg, struct ty_map, msg));
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
	g->slow_after = has_work(g, now) ? now + (int64_t)took * SLOW_SHARE : now;
	if (urgent) /* pools that come and go take half of the time while there is work, and so does one of many pieces */
		g->urgent_after = has_work(g, now) ? now + (int64_t)took : now;
	g->slow_was_last = true;
	if (!done)
		msgs_push(&g->urgent_slow, msg);
}

/* ---- the actor ------------------------------------------------------------------------------------- */

/* When to look again. */
static int64_t next_look(struct gpu *g, int64_t now)
{
	if (g->in_flight || slow_wanted(g, now))
		return now;

	int64_t next = g->slow.head ? g->slow_after : TY_NEVER;

	if (g->urgent_slow.head && g->urgent_after < next)
		next = g->urgent_after;

	if (g->waiting.head) {
		int64_t pause = (now - g->waiting_since) / 8;

		pause = pause < READY_POLL_MIN_NS ? READY_POLL_MIN_NS : pause > READY_POLL_MAX_NS ? READY_POLL_MAX_NS : pause;
		next = next < now + pause ? next : now + pause;
	}
	/* Queued, nothing in flight, and yet not submitted: the device refused or the slow lane is due. */
	if (gpu_queued(g))
		next = next < now + READY_POLL_MIN_NS ? next : now + READY_POLL_MIN_NS;
	return next;
}

/* An error that no call on this device recovers from: nothing but another process does. */
static void look_at_health(struct gpu *g)
{
	if (g->failure.code != TY_OK || ty_device_health(g->dev, &g->failure) == TY_OK)
		return;
	ty_record_note(g->record, TY_RECORD_FAULT, false, g->failure.code, 0, 0);
	ty_log(TY_LOG_ERROR, "gpu", "%s: %s", g->stats->info.name, g->failure.text);
	snprintf(g->stats->fault, sizeof g->stats->fault, "%.199s", g->failure.text);
	gpu_set_state(g, TY_GPU_FAILED);
	if (g->service->faulted)
		g->service->faulted(g->service);
}

static int64_t gpu_poll(void *self, int64_t now)
{
	struct gpu *g = self;

	if (!g->dev) {
		gpu_expire(g, now);
		while (g->urgent_slow.head || g->slow.head)
			slow(g);
		publish(g);
		return TY_NEVER;
	}
	if (g->in_flight)
		gpu_poll_device(g);
	if (g->waiting.head)
		gpu_look_at_ready_words(g);
	if (now >= g->expire_at)
		gpu_expire(g, now);
	if (g->slow_was_last || !slow_wanted(g, now)) {
		g->slow_was_last = false;
		gpu_submit(g, now);
	} else if (!g->in_flight) {
		slow(g);
	}
	look_at_health(g);
	publish(g);
	return next_look(g, now);
}

static void on_transfer(void *self, struct ty_msg *msg)
{
	gpu_take(self, ty_container_of(msg, struct ty_op, msg));
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

/* Run beside the device; and populate makes the pages that this owner registers there too. */
static void move_near(struct gpu *g)
{
	const char *sysfs = g->service->config->sysfs;
	int node = ty_numa_node(sysfs, ty_device_pci(g->dev));
	struct ty_error err;

	if (ty_numa_run_on(sysfs, node, &err) != TY_OK)
		ty_log(TY_LOG_WARN, "gpu", "%s: %s", g->stats->info.name, err.text);
	else if (node >= 0)
		ty_log(TY_LOG_INFO, "gpu", "%s: beside NUMA node %d", g->stats->info.name, node);
	atomic_store_explicit(&g->stats->near, node + 1, memory_order_relaxed);
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
		move_near(g);
		snprintf(g->stats->note, sizeof g->stats->note, "%s", ty_device_note(g->dev));
		/* release: pairs with metrics' acquire */
		atomic_store_explicit(&g->stats->device, ty_device_stats(g->dev), memory_order_release);
		ty_log(TY_LOG_INFO, "gpu", "%s: %s%s%s", g->stats->info.name, g->stats->info.model,
			g->stats->note[0] ? "; " : "", g->stats->note);
	} else {
		snprintf(g->stats->note, sizeof g->stats->note, "%.159s", g->failure.text);
		ty_log(TY_LOG_ERROR, "gpu", "%s: %s", g->options.name, g->failure.text);
	}
	ty_record_note(g->record, TY_RECORD_OPEN, false, code, 0, 0);
	gpu_set_state(g, code == TY_OK ? TY_GPU_SERVING : TY_GPU_FAILED);
	g->ready.code = code;
	/* CLOSED: the service was stopped while the device opened, and nobody asks any more. */
	if (ty_send(*g->ready_to, &g->ready.msg, g->ready_type) != TY_OK)
		ty_log(TY_LOG_INFO, "gpu", "%s: opened too late", g->options.name);
}

static enum ty_code start(void *self, void *arg)
{
	struct gpu *g = self;
	const struct ty_gpu_arg *a = arg;

	ty_set_turn(TY_OWNER_TURN_NS);
	g->service = a->service;
	g->index = a->device;
	g->options = a->options;
	g->ready_to = a->ready_to;
	g->ready_type = a->ready_type;
	g->registered = calloc(g->service->arena.pieces / 8 + 1, 1);
	if (!g->registered)
		return TY_NO_MEMORY;
	g->stats = &g->service->gpu_stats[g->index];
	g->ready.device = g->index;
	snprintf(g->stats->info.name, sizeof g->stats->info.name, "%s", g->options.name);
	if (g->service->record) {
		g->record = &g->service->record->owners[g->index];
		snprintf(g->record->device, sizeof g->record->device, "%.31s", g->options.name);
	}
	msgs_init(&g->urgent_slow);
	msgs_init(&g->slow);
	gpu_copies_init(g);
	return TY_OK;
}

/* Pieces may still be on their way when the service stops; ops and maps are not, for no engine is left. */
static void refuse(void *self, struct ty_msg *msg)
{
	struct gpu *g = self;
	struct ty_piece *piece = ty_container_of(msg, struct ty_piece, msg);

	assert(msg->type == TY_GPU_PIECE);
	(void)g;
	piece->code = ty_fail(&piece->error, TY_STOPPING, "the service stops");
	send_home(piece->home, &piece->msg, piece->home_type);
}

static void stop(void *self)
{
	struct gpu *g = self;

	assert(!g->in_flight && !g->waiting.head && !gpu_queued(g) && !g->urgent_slow.head);
	for (struct ty_msg *msg = msgs_pop(&g->slow); msg; msg = msgs_pop(&g->slow))
		refuse(g, msg);
	if (g->dev) {
		for (uint32_t i = 0; i < g->service->arena.pieces; i++)
			if (g->registered[i / 8] >> i % 8 & 1)
				ty_device_unregister_host(g->dev, g->service->arena.base + i * TY_PIECE_BYTES);
		atomic_store_explicit(&g->stats->device, NULL, memory_order_release);
		ty_device_close(g->dev);
	}
	free(g->registered);
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
