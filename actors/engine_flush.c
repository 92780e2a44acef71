/* SPDX-License-Identifier: Apache-2.0
 *
 * FLUSH: which of the flights touch these blocks, and the answer when the last of them has landed or let go of them.
 */
#include "engine_state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A FLUSH that waits. */
struct flush {
	struct flush *next;
	struct peer *peer;
	struct ty_exchange *exchange;
	uint32_t pending;
	uint64_t ops[]; /* the ids of the ops that it waits for: `pending` of them */
};

/* Blocks, told apart across groups: those of one page_group are the same memory. Sorted. */
struct blocks {
	size_t count;
	bool all;
	uint64_t keys[];
};

static uint64_t block_key(const struct ty_layout_group *g, uint32_t id)
{
	return (uint64_t)g->page_group << 32 | id;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Null: see err. */
static struct blocks *read_blocks(const struct ty_layout *layout, const Tyer__V1__Flush *q, struct ty_error *err)
{
	size_t count = 0;
	struct blocks *b;

	if (q->n_blocks && q->n_blocks != layout->group_count) {
		(void)ty_fail(err, TY_INVALID, "blocks: %zu groups; expected none, or the registration's %u", q->n_blocks,
			layout->group_count);
		return NULL;
	}
	for (size_t g = 0; g < q->n_blocks; g++)
		count += q->blocks[g]->n_ids;
	b = malloc(sizeof *b + count * sizeof b->keys[0]);
	if (!b) {
		(void)ty_fail(err, TY_NO_MEMORY, "no memory for %zu blocks", count);
		return NULL;
	}
	b->count = 0;
	b->all = q->n_blocks == 0;
	for (uint32_t g = 0; g < q->n_blocks; g++) {
		for (size_t i = 0; i < q->blocks[g]->n_ids; i++) {
			uint32_t id = q->blocks[g]->ids[i];

			if (id >= layout->groups[g].block_count) {
				free(b);
				(void)ty_fail(err, TY_INVALID, "blocks[%u].ids[%zu]: %u; the pool has %u blocks", g, i, id,
					layout->groups[g].block_count);
				return NULL;
			}
			b->keys[b->count++] = block_key(&layout->groups[g], id);
		}
	}
	qsort(b->keys, b->count, sizeof b->keys[0], compare);
	return b;
}

static bool touches(const struct flight *f, const struct blocks *blocks)
{
	const struct ty_layout *layout = f->op.layout;
	const uint32_t *ids = f->op.blocks;

	if (!ty_op_touches(&f->op))
		return false;
	if (blocks->all)
		return true;
	for (uint32_t c = 0; c < f->op.count; c++, ids += layout->blocks_per_chunk) {
		for (uint32_t i = 0; i < layout->group_count; i++) {
			const struct ty_layout_group *g = &layout->groups[i];

			for (uint32_t b = g->first_block; b < g->first_block + g->blocks_per_chunk; b++) {
				uint64_t key = block_key(g, ids[b]);

				if (bsearch(&key, blocks->keys, blocks->count, sizeof key, compare))
					return true;
			}
		}
	}
	return false;
}

void engine_flush(struct engine *e, struct peer *peer, struct ty_exchange *x)
{
	const Tyer__V1__Flush *q = x->request->flush;
	struct registration *r = engine_find_registration(e, peer, q->registration);
	struct blocks *blocks;
	struct flush *flush;
	struct ty_error err;

	if (!r || r->state != REG_READY) {
		ty_exchange_refuse(x, TY_UNKNOWN_REGISTRATION, "registration: this client has none with number %u", q->registration);
		return;
	}
	blocks = read_blocks(r->layout, q, &err);
	if (!blocks) {
		ty_exchange_refuse(x, err.code, "%s", err.text);
		return;
	}
	flush = calloc(1, sizeof *flush + e->flight_count * sizeof flush->ops[0]);
	if (!flush) {
		free(blocks);
		ty_exchange_refuse(x, TY_NO_MEMORY, "no memory for a flush of %u operations", e->flight_count);
		return;
	}
	for (const struct flight *f = e->flights; f; f = f->next)
		if (f->registration == r && touches(f, blocks))
			flush->ops[flush->pending++] = f->op.id;
	free(blocks);
	if (!flush->pending) {
		free(flush);
		ty_exchange_answer(x);
		return;
	}
	flush->peer = peer;
	flush->exchange = x;
	flush->next = e->flushes;
	e->flushes = flush;
	engine_watch(e);
}

/* Out of the list; the exchange is answered by the caller, before. */
static void drop(struct flush **link)
{
	struct flush *flush = *link;

	*link = flush->next;
	free(flush);
}

void engine_flush_landed(struct engine *e, uint64_t op)
{
	struct flush **link = &e->flushes;

	while (*link) {
		struct flush *flush = *link;

		for (uint32_t i = 0; i < flush->pending; i++) {
			if (flush->ops[i] == op) {
				flush->ops[i] = flush->ops[--flush->pending];
				break;
			}
		}
		if (flush->pending) {
			link = &flush->next;
			continue;
		}
		ty_exchange_answer(flush->exchange);
		drop(link);
	}
}

void engine_flush_leave(struct engine *e, const struct peer *peer)
{
	struct flush **link = &e->flushes;

	while (*link) {
		if ((*link)->peer != peer) {
			link = &(*link)->next;
			continue;
		}
		ty_exchange_refuse((*link)->exchange, TY_CANCELLED, "its client is gone");
		drop(link);
	}
}

bool engine_flush_expire(struct engine *e, int64_t now)
{
	struct flush **link = &e->flushes;

	while (*link) {
		struct flush *flush = *link;

		if (now < flush->exchange->deadline) {
			link = &flush->next;
			continue;
		}
		ty_exchange_refuse(flush->exchange, TY_TIMEOUT, "the deadline passed: %u operations may still touch the blocks",
			flush->pending);
		drop(link);
	}
	return e->flushes != NULL;
}
