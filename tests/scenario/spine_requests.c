/* SPDX-License-Identifier: Apache-2.0
 *
 * What the spine's engines ask for, right and wrong, and what they make of the answers.
 */
#include "spine.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAMILIES 40        /* prompts with a common beginning, some more usual than others */

static bool take_blocks(struct engine_side *e, struct prompt *p, uint32_t count)
{
	uint32_t found = 0;

	for (uint32_t i = 0, at = rnd(BLOCKS); i < BLOCKS && found < count; i++, at = (at + 1) % BLOCKS)
		if (!e->block_taken[at])
			p->blocks[found++] = at;
	for (uint32_t i = 0; found == count && i < count; i++)
		e->block_taken[p->blocks[i]] = true;
	return found == count;
}

static void give_blocks(struct engine_side *e, struct prompt *p)
{
	for (uint32_t i = 0; i < p->count * PER_CHUNK; i++)
		e->block_taken[p->blocks[i]] = false;
}

struct call *new_call(struct engine_side *e, struct prompt *p, Tyer__V1__Request__VerbCase verb, int64_t timeout)
{
	struct call *c = calloc(1, sizeof *c);

	tyer__v1__request__init(&c->request);
	c->request.client = e->member->client;
	c->request.verb_case = verb;
	c->x.rpc = ty_actor_ref(w.service->rpc);
	c->x.request = &c->request;
	c->x.received = ty_runtime_now(w.rt);
	c->x.deadline = c->x.received + timeout;
	c->engine = e;
	c->generation = e->generation;
	c->prompt = p;
	return c;
}

void send_call(struct call *c)
{
	w.calls++;
	if (ty_send(c->engine->actor, &c->x.msg, TY_ENGINE_REQUEST) != TY_OK)
		abort();
}

static void set_chain(struct call *c, uint32_t family, uint32_t chunks)
{
	tyer__v1__chain__init(&c->chain);
	for (uint32_t i = 0; i < chunks; i++) {
		uint32_t id = family * 1000 + i;

		memcpy(c->hashes + i * TY_KEY_BYTES, &id, sizeof id);
	}
	c->chain.hashes = (ProtobufCBinaryData){chunks * TY_KEY_BYTES, c->hashes};
}

static void set_ids(struct call *c, struct prompt *p)
{
	tyer__v1__block_ids__init(&c->ids);
	c->ids.ids = p->blocks;
	c->ids.n_ids = p->count * PER_CHUNK;
	c->ids_list[0] = &c->ids;
}

static int64_t some_timeout(void)
{
	return rnd(4) ? 1000000000000 : (int64_t)rnd(rnd(2) ? 100000 : 20000000); /* now and then one that passes */
}

void look_up(struct engine_side *e, struct prompt *p)
{
	struct call *c = new_call(e, p, TYER__V1__REQUEST__VERB_LOOKUP, 1000000000000);

	if (p->phase == IDLE) /* else the session gets another prompt */
		p->id = ++w.next_session;
	p->family = rnd(rnd(FAMILIES) + 1);
	p->chunks = 1 + rnd(CHAIN);
	tyer__v1__lookup__init(&c->verb.lookup);
	c->verb.lookup.session = p->id;
	set_chain(c, p->family, p->chunks);
	c->verb.lookup.chain = &c->chain;
	c->request.lookup = &c->verb.lookup;
	p->phase = LOOKING;
	send_call(c);
}

void retrieve(struct engine_side *e, struct prompt *p)
{
	p->first = rnd(p->hits);
	p->count = 1 + rnd(p->hits - p->first);
	if (!take_blocks(e, p, p->count * PER_CHUNK))
		return;
	struct call *c = new_call(e, p, TYER__V1__REQUEST__VERB_RETRIEVE, some_timeout());

	tyer__v1__retrieve__init(&c->verb.retrieve);
	c->verb.retrieve.session = p->id;
	c->verb.retrieve.registration = e->registration;
	c->verb.retrieve.first = p->first;
	c->verb.retrieve.count = p->count;
	set_ids(c, p);
	c->verb.retrieve.blocks = c->ids_list;
	c->verb.retrieve.n_blocks = 1;
	c->request.retrieve = &c->verb.retrieve;
	p->layers.word = 0;
	if (rnd(2)) {
		p->layers = (struct ty_mark){1 + (uint32_t)(p - e->prompts), p->layers.value + STEPS_OF_LAYERS};
		tyer__v1__mark__init(&c->layers);
		c->layers.word = p->layers.word;
		c->layers.value = p->layers.value;
		c->verb.retrieve.layers = &c->layers;
	}
	for (uint32_t k = 0; k < p->count; k++)
		write_chunk(e, p, k, true);
	p->broken = rnd(10) == 0;
	if (p->broken) {
		switch (rnd(4)) {
		case 0:
			c->verb.retrieve.count = p->hits - p->first + 1; /* and too few ids */
			break;
		case 1:
			c->ids.n_ids--;
			break;
		case 2:
			c->verb.retrieve.registration += 7;
			break;
		default:
			c->verb.retrieve.first = p->hits;
			break;
		}
	}
	p->phase = RETRIEVING;
	p->serial++;
	send_call(c);
}

void store(struct engine_side *e, struct prompt *p)
{
	p->first = p->hits < p->chunks ? p->hits : rnd(p->chunks);
	p->count = 1 + rnd(p->chunks - p->first);
	if (!take_blocks(e, p, p->count * PER_CHUNK))
		return;
	struct call *c = new_call(e, p, TYER__V1__REQUEST__VERB_STORE, some_timeout());

	tyer__v1__store__init(&c->verb.store);
	c->verb.store.session = p->id;
	c->verb.store.registration = e->registration;
	c->verb.store.first = p->first;
	c->verb.store.count = p->count;
	set_ids(c, p);
	c->verb.store.blocks = c->ids_list;
	c->verb.store.n_blocks = 1;
	c->request.store = &c->verb.store;
	for (uint32_t k = 0; k < p->count; k++)
		write_chunk(e, p, k, false);
	p->broken = rnd(10) == 0;
	if (p->broken) {
		if (rnd(2))
			c->verb.store.first = p->chunks;
		else
			c->ids.n_ids++, c->ids.n_ids -= 2;
	}
	p->phase = STORING;
	p->serial++;
	send_call(c);
}

void end_session(struct engine_side *e, struct prompt *p)
{
	struct call *c = new_call(e, p, TYER__V1__REQUEST__VERB_END_SESSION, 1000000000000);

	tyer__v1__end_session__init(&c->verb.end);
	c->verb.end.session = p->id;
	c->request.end_session = &c->verb.end;
	p->phase = ENDING;
	send_call(c);
}

void flush(struct engine_side *e, struct prompt *p)
{
	struct call *c = new_call(e, p, TYER__V1__REQUEST__VERB_FLUSH, 1000000000000);

	tyer__v1__flush__init(&c->verb.flush);
	c->verb.flush.registration = e->registration;
	if (rnd(4)) { /* else all blocks */
		set_ids(c, p);
		memcpy(c->flushed, p->blocks, c->ids.n_ids * sizeof c->flushed[0]);
		c->ids.ids = c->flushed;
		c->verb.flush.blocks = c->ids_list;
		c->verb.flush.n_blocks = 1;
	}
	c->request.flush = &c->verb.flush;
	c->serial = p->serial;
	send_call(c);
}

/* Answered before its time, perhaps while its copy was under way. */
static bool is_early(enum ty_code code)
{
	return code == TY_TIMEOUT || code == TY_CANCELLED || code == TY_DEVICE_STALLED;
}

static void expect_ok(const struct call *call)
{
	if (call->x.code != TY_OK) {
		fprintf(stderr, "verb %d: %s: %s\n", call->request.verb_case, ty_code_name(call->x.code), call->x.error.text);
		abort();
	}
}

void answered(struct call *call)
{
	struct engine_side *e = call->engine;
	struct prompt *p = call->prompt;
	enum ty_code code = call->x.code;

	if (call->generation != e->generation || !e->here)
		return; /* its client is gone */
	if (call->request.verb_case == TYER__V1__REQUEST__VERB_REGISTER) {
		expect_ok(call);
		e->registration = call->x.reply.registered.registration;
		assert(call->x.reply.registered.chunk_bytes == CHUNK_WORDS * 8);
		return;
	}
	if (call->request.verb_case == TYER__V1__REQUEST__VERB_FLUSH) {
		expect_ok(call);
		w.flushed++;
		if (call->serial != p->serial)
			return;
		if (p->phase == FLUSHING) {
			give_blocks(e, p);
			p->phase = READY;
		} else if (p->phase == RETRIEVING) { /* its copy is over, and its answer on the way */
			p->flushed = true;
			p->sum = sum_of_blocks(e, p);
		}
		return;
	}
	switch (p->phase) {
	case LOOKING:
		expect_ok(call);
		assert( call->x.reply.lookup.chunks == p->chunks && call->x.reply.lookup.hits <= p->chunks);
		p->hits = call->x.reply.lookup.hits;
		p->phase = READY;
		return;
	case RETRIEVING:
	case STORING:
		assert(!p->flushed || p->sum == sum_of_blocks(e, p));
		p->flushed = false;
		if (code == TY_OK) {
			assert(!p->broken);
			for (uint32_t k = 0; p->phase == RETRIEVING && k < p->count; k++)
				check_chunk(e, p, k);
			assert(p->phase != RETRIEVING || !p->layers.word || step_reached(e, p, STEPS_OF_LAYERS - 1));
			if (p->phase == STORING) {
				assert(call->x.reply.store.stored + call->x.reply.store.present + call->x.reply.store.dropped == p->count);
				w.stored += call->x.reply.store.stored;
			}
		} else if (is_early(code)) {
			w.timeouts++;
		} else {
			if (!p->broken && code != TY_DEVICE_FAILED && code != TY_NO_SPACE)
				expect_ok(call);
			w.failures++;
		}
		if (call->x.blocks_in_use) {
			assert(is_early(code));
			p->phase = FLUSHING;
			flush(e, p);
			return;
		}
		give_blocks(e, p);
		p->phase = READY;
		return;
	case ENDING:
		expect_ok(call);
		p->phase = IDLE;
		return;
	default:
		abort();
	}
}
