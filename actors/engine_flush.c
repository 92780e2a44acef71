/* SPDX-License-Identifier: Apache-2.0
 *
 * FLUSH: which of the flights touch these blocks, and the answer when the last of them has landed or let go of them.
 */
#include "engine_state.h"

#include <assert.h>
#include <stdlib.h>

#define LOOKS 4096 /* blocks of flights that are looked at in one message: both they and those of a FLUSH may be a million */

/* A FLUSH that looks through the flights, or waits for those that it found. */
struct flush {
	struct flush *next;
	struct ty_msg go;  /* more to look at ... */
	bool going;        /* ... is on its way: it stays until then */
	struct peer *peer;
	struct ty_exchange *exchange; /* null: answered. Its request's ids are sorted */
	const struct registration *registration; /* to be compared; it may be gone */
	const struct flight *flight; /* this one and those behind it, which set out before it, are still to be looked at; null: none */
	size_t at;         /* so many blocks of that one have been */
	uint32_t pending;
	uint64_t ops[];    /* the ids of the ops that it waits for: `pending` of them */
};

static enum ty_code read_blocks(const struct ty_layout *layout, Tyer__V1__Flush *q, struct ty_error *err)
{
	size_t most = 0;
	uint32_t *scratch;

	if (q->n_blocks && q->n_blocks != layout->group_count)
		return ty_fail(err, TY_INVALID, "blocks: %zu groups; expected none, or the registration's %u", q->n_blocks,
			layout->group_count);
	for (uint32_t g = 0; g < q->n_blocks; g++) {
		for (size_t i = 0; i < q->blocks[g]->n_ids; i++)
			if (q->blocks[g]->ids[i] >= layout->groups[g].block_count)
				return ty_fail(err, TY_INVALID, "blocks[%u].ids[%zu]: %u; the pool has %u blocks", g, i,
					q->blocks[g]->ids[i], layout->groups[g].block_count);
		most = q->blocks[g]->n_ids > most ? q->blocks[g]->n_ids : most;
	}
	scratch = malloc((most ? most : 1) * sizeof *scratch);
	if (!scratch)
		return ty_fail(err, TY_NO_MEMORY, "no memory for %zu blocks", most);
	for (uint32_t g = 0; g < q->n_blocks; g++)
		ty_layout_sort_ids(q->blocks[g]->ids, scratch, q->blocks[g]->n_ids);
	free(scratch);
	return TY_OK;
}

static bool has(const Tyer__V1__BlockIds *sorted, uint32_t id)
{
	size_t from = 0, to = sorted->n_ids;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (sorted->ids[middle] == id)
			return true;
		if (sorted->ids[middle] < id)
			from = middle + 1;
		else
			to = middle;
	}
	return false;
}

/* Does it name the block at this place of a chunk? Groups of one page_group are the same memory. */
static bool names(const Tyer__V1__Flush *q, const struct ty_layout *layout, uint32_t place, uint32_t id)
{
	uint32_t group = 0;

	while (place >= layout->groups[group].first_block + layout->groups[group].blocks_per_chunk)
		group++;
	for (uint32_t g = 0; g < layout->group_count; g++)
		if (layout->groups[g].page_group == layout->groups[group].page_group && has(q->blocks[g], id))
			return true;
	return false;
}

static size_t blocks_of(const struct flight *f)
{
	return (size_t)f->op.count * f->op.layout->blocks_per_chunk;
}

/* From flush->at on, as far as the budget goes. */
static bool touches(const struct flight *f, struct flush *flush, uint32_t *budget)
{
	const Tyer__V1__Flush *q = flush->exchange->request->flush;
	const struct ty_layout *layout = f->op.layout;

	if (f->registration != flush->registration || !ty_op_touches(&f->op)) {
		flush->at = blocks_of(f);
		return false;
	}
	if (!q->n_blocks)
		return true;
	for (; flush->at < blocks_of(f) && *budget; flush->at++, --*budget)
		if (names(q, layout, (uint32_t)(flush->at % layout->blocks_per_chunk), f->op.blocks[flush->at]))
			return true;
	return false;
}

static void go_to(struct flush *flush, const struct flight *f)
{
	flush->flight = f;
	flush->at = 0;
}

/* One walk through the flights, the newest first: those that set out after the FLUSH came lie before where it began. */
static void look(struct flush *flush)
{
	uint32_t budget = LOOKS;
	const struct flight *f;

	while (budget && (f = flush->flight)) {
		budget--;
		if (touches(f, flush, &budget))
			flush->ops[flush->pending++] = f->op.id;
		else if (flush->at < blocks_of(f))
			return;
		go_to(flush, f->next);
	}
}

/* Out of the list, unless its message is on its way; the exchange was answered before. Returns the link of the next one. */
static struct flush **drop(struct flush **link)
{
	struct flush *flush = *link;

	flush->exchange = NULL;
	if (flush->going)
		return &flush->next;
	*link = flush->next;
	free(flush);
	return link;
}

/* It has looked: at some, or all. */
static void go_on(struct flush **link)
{
	struct flush *flush = *link;

	if (flush->flight) {
		flush->going = true;
		enum ty_code sent = ty_send(ty_self(), &flush->go, TY_ENGINE_FLUSH_GO);
		assert(sent == TY_OK); /* this actor runs */
	} else if (!flush->pending) {
		ty_exchange_answer(flush->exchange);
		(void)drop(link);
	}
}

void engine_flush(struct engine *e, struct peer *peer, struct ty_exchange *x)
{
	Tyer__V1__Flush *q = x->request->flush;
	struct registration *r = engine_find_registration(e, peer, q->registration);
	struct flush *flush;
	struct ty_error err;

	if (!r || r->state != REG_READY) {
		ty_exchange_refuse(x, TY_UNKNOWN_REGISTRATION, "registration: this client has none with number %u", q->registration);
		return;
	}
	if (read_blocks(r->layout, q, &err) != TY_OK) {
		ty_exchange_refuse(x, err.code, "%s", err.text);
		return;
	}
	flush = calloc(1, sizeof *flush + e->flight_count * sizeof flush->ops[0]);
	if (!flush) {
		ty_exchange_refuse(x, TY_NO_MEMORY, "no memory for a flush of %u operations", e->flight_count);
		return;
	}
	flush->go = (struct ty_msg)TY_MSG_INIT;
	flush->peer = peer;
	flush->exchange = x;
	flush->registration = r;
	flush->flight = e->flights;
	flush->next = e->flushes;
	e->flushes = flush;
	look(flush);
	go_on(&e->flushes);
	engine_watch(e);
}

void engine_flush_go(struct engine *e, struct ty_msg *msg)
{
	struct flush *flush = ty_container_of(msg, struct flush, go), **link = &e->flushes;

	while (*link != flush)
		link = &(*link)->next;
	flush->going = false;
	if (flush->exchange) {
		look(flush);
		go_on(link);
	} else {
		(void)drop(link);
	}
}

void engine_flush_landed(struct engine *e, const struct flight *f)
{
	struct flush **link = &e->flushes, *flush;

	while ((flush = *link)) {
		if (flush->flight == f) /* it looks no further into that one */
			go_to(flush, f->next);
		for (uint32_t i = 0; i < flush->pending; i++) {
			if (flush->ops[i] == f->op.id) {
				flush->ops[i] = flush->ops[--flush->pending];
				break;
			}
		}
		if (flush->exchange && !flush->pending && !flush->flight) {
			ty_exchange_answer(flush->exchange);
			link = drop(link);
		} else {
			link = &flush->next;
		}
	}
}

void engine_flush_leave(struct engine *e, const struct peer *peer)
{
	struct flush **link = &e->flushes, *flush;

	while ((flush = *link)) {
		if (flush->peer != peer || !flush->exchange) {
			link = &flush->next;
			continue;
		}
		ty_exchange_refuse(flush->exchange, TY_CANCELLED, "its client is gone");
		link = drop(link);
	}
}

bool engine_flush_expire(struct engine *e, int64_t now)
{
	struct flush **link = &e->flushes, *flush;
	bool waiting = false;

	while ((flush = *link)) {
		if (!flush->exchange || now < flush->exchange->deadline) {
			waiting |= flush->exchange != NULL;
			link = &flush->next;
			continue;
		}
		ty_exchange_refuse(flush->exchange, TY_TIMEOUT, "the deadline passed: %u operations may still touch the blocks%s",
			flush->pending, flush->flight ? ", and more that were not looked at" : "");
		link = drop(link);
	}
	return waiting;
}
