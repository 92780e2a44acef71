/* SPDX-License-Identifier: Apache-2.0 */
#include "policy.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <tyer/actor.h>

#include "cache/order.h"

struct block {
	struct ty_entry entry;
	bool here, leased, fresh; /* fresh: it comes in with this request */
};

struct simulation {
	const struct bench_history *history;
	struct ty_order *order;
	struct block *blocks;
	uint32_t size, here;
};

static uint64_t id_of(const struct simulation *s, const struct block *block)
{
	return (uint64_t)(block - s->blocks);
}

/* Room for one more, as the eviction actor makes it. */
static bool make_room(struct simulation *s)
{
	while (s->here >= s->size) {
		struct ty_entry *entry = ty_order_victim(s->order, TY_ANY_DOMAIN);
		struct block *victim;

		if (!entry)
			return false;
		victim = ty_container_of(entry, struct block, entry);
		if (victim->leased) {
			ty_order_park(s->order, entry);
			continue;
		}
		ty_order_gone(s->order, entry, id_of(s, victim), true);
		*victim = (struct block){0};
		s->here--;
	}
	return true;
}

/* The blocks of a prompt that are not leased: slots for those that are not here, at the cost of others, but not of each
 * other. Where space ends, the prompt ends. */
static void store(struct simulation *s, const uint32_t *ids, uint32_t count, struct ty_use *use)
{
	for (uint32_t k = 0; k < count; k++)
		if (s->blocks[ids[k]].here)
			ty_order_take_out(s->order, &s->blocks[ids[k]].entry);
	for (uint32_t k = 0; k < count; k++) {
		struct block *b = &s->blocks[ids[k]];

		if (b->here)
			continue;
		if (!make_room(s))
			break;
		ty_order_add(s->order, &b->entry, 0);
		b->here = b->fresh = true;
		s->here++;
	}
	for (uint32_t k = count; k-- > 0;) {
		struct block *b = &s->blocks[ids[k]];

		if (!b->here)
			continue;
		use->id = ids[k];
		ty_order_put(s->order, &b->entry, b->fresh ? TY_REENTER_YOUNG : TY_REENTER_USED, use);
		b->fresh = false;
	}
}

static uint32_t request(struct simulation *s, uint32_t r, enum bench_hints hints)
{
	const struct bench_history *h = s->history;
	const struct bench_request *q = &h->trace->requests[r];
	const uint32_t *ids = h->ids + q->first;
	uint32_t count = h->counts[r], hits = 0;
	struct ty_use use = {.now = ty_order_time((int64_t)(q->at_ms * 1e6)), .band = TY_BAND_AS_IT_IS};

	if (hints != BENCH_HINTS_NONE && h->alive[r])
		use.band = TY_BAND_ALIVE;
	else if (hints == BENCH_HINTS_BOTH)
		use.band = TY_BAND_DONE;
	if (hints != BENCH_HINTS_NONE)
		use.owner = h->conversations[r];
	while (hits < count && s->blocks[ids[hits]].here)
		s->blocks[ids[hits++]].leased = true;
	store(s, ids + hits, count - hits, &use);
	for (uint32_t k = hits; k-- > 0;) {
		use.id = ids[k];
		s->blocks[ids[k]].leased = false;
		ty_order_used(s->order, &s->blocks[ids[k]].entry, &use);
	}
	return hits;
}

enum ty_code bench_simulate(const struct bench_history *history, const struct ty_policy_class *cls, uint32_t size,
	enum bench_hints hints, struct bench_simulation *out, struct ty_error *err)
{
	struct simulation s = {.history = history, .size = size};
	enum ty_code code = TY_OK;

	*out = (struct bench_simulation){0};
	s.order = ty_order_create(cls, NULL, 0, size);
	s.blocks = calloc(history->blocks, sizeof *s.blocks);
	if (!s.order || !s.blocks) {
		code = ty_fail(err, TY_NO_MEMORY, "no memory for a simulation of %u blocks", history->blocks);
	} else {
		for (uint32_t r = 0; r < history->trace->request_count; r++)
			out->hits += request(&s, r, hints);
		out->bytes = ty_order_bytes(s.order);
	}
	ty_order_destroy(s.order);
	free(s.blocks);
	return code;
}

/* ---- who knows the future ------------------------------------------------------------------------------ */

/* A block that is here, by when it is used next; of one request, its tail is later than its head. */
struct future {
	uint64_t when;
	uint32_t id;
};

/* A heap, the latest on top. What it says is old when `when` is not the block's own any more. */
struct heap {
	struct future *items;
	uint32_t count;
};

static void heap_push(struct heap *heap, struct future item)
{
	uint32_t at = heap->count++;

	while (at && heap->items[(at - 1) / 2].when < item.when) {
		heap->items[at] = heap->items[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	heap->items[at] = item;
}

static void heap_pop(struct heap *heap)
{
	struct future item = heap->items[--heap->count];
	uint32_t at = 0, child;

	while ((child = 2 * at + 1) < heap->count) {
		if (child + 1 < heap->count && heap->items[child + 1].when > heap->items[child].when)
			child++;
		if (heap->items[child].when <= item.when)
			break;
		heap->items[at] = heap->items[child];
		at = child;
	}
	heap->items[at] = item;
}

struct oracle {
	struct heap heap;
	uint64_t *when; /* of each block that is here; 0: it is not */
	uint32_t size, here;
};

/* A block is used next at `when`, and is here from now on, if that is worth it. */
static void admit(struct oracle *o, uint32_t id, uint64_t when)
{
	bool here = o->when[id] != 0;

	while (!here && o->here >= o->size) {
		struct future top = o->heap.items[0];

		if (o->when[top.id] == top.when) {
			if (top.when <= when)
				return;
			o->when[top.id] = 0;
			o->here--;
		}
		heap_pop(&o->heap);
	}
	o->here += !here;
	o->when[id] = when;
	heap_push(&o->heap, (struct future){when, id});
}

enum ty_code bench_belady(const struct bench_history *h, uint32_t size, uint64_t *hits, struct ty_error *err)
{
	const struct bench_trace *t = h->trace;
	struct oracle o = {.size = size};

	*hits = 0;
	o.when = calloc(h->blocks, sizeof *o.when);
	o.heap.items = malloc(t->id_count * sizeof *o.heap.items); /* each use of a block pushes once */
	if (!o.when || !o.heap.items) {
		free(o.when);
		free(o.heap.items);
		return ty_fail(err, TY_NO_MEMORY, "no memory for a simulation of %u blocks", h->blocks);
	}
	for (uint32_t r = 0; r < t->request_count; r++) {
		const uint32_t first = t->requests[r].first;
		uint32_t found = 0;

		while (found < h->counts[r] && o.when[h->ids[first + found]])
			found++;
		*hits += found;
		for (uint32_t k = 0; k < h->counts[r]; k++) {
			uint32_t id = h->ids[first + k], next = h->next[first + k];

			if (next != UINT32_MAX) {
				admit(&o, id, ((uint64_t)next << 32) + k);
			} else if (o.when[id]) { /* not used again */
				o.when[id] = 0;
				o.here--;
			}
		}
	}
	free(o.when);
	free(o.heap.items);
	return TY_OK;
}
