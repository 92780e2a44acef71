/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch_state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

/* ---- what is out with a tier ----------------------------------------------------------------------------- */

static void out_push(struct prefetch *p, const struct ty_tier *tier, struct out *o)
{
	o->next = NULL;
	o->link = p->tiers[tier->index].out.end;
	*o->link = o;
	p->tiers[tier->index].out.end = &o->next;
	o->since = ty_now();
}

/* It came home: the tier answers. */
static void out_pop(struct prefetch *p, const struct ty_tier *tier, struct out *o)
{
	*o->link = o->next;
	if (o->next)
		o->next->link = o->link;
	else
		p->tiers[tier->index].out.end = o->link;
	p->tiers[tier->index].suspect = false;
}

/* ---- queries --------------------------------------------------------------------------------------------- */

bool query_begin(struct prefetch *p, struct ty_fetch *f)
{
	struct ty_tier *tier = p->service->tiers[f->tier];
	struct ty_query *q = calloc(1, sizeof *q + TY_CHUNK_MAX_PARTS * sizeof q->io.part[0]);
	uint32_t n = f->end - f->known;

	if (!q)
		return false;
	n = n < TY_TIER_QUERY ? n : TY_TIER_QUERY;
	memcpy(q->keys, f->keys + f->known, n * sizeof q->keys[0]);
	q->tier = tier;
	q->fetch = f;
	q->io.home = ty_self();
	q->io.home_type = TY_PREFETCH_IO;
	q->io.verb = TY_TIER_EXISTS;
	q->io.deadline = ty_now() + tier->config.timeout;
	q->io.keys = q->keys;
	q->io.key_count = n;
	if (!ty_tier_submit(tier, &q->io)) {
		free(q);
		return false;
	}
	out_push(p, tier, &q->out);
	f->query = q;
	p->query_count++;
	return true;
}

void query_home(struct prefetch *p, struct ty_tier_io *io)
{
	struct ty_query *q = ty_container_of(io, struct ty_query, io);

	out_pop(p, q->tier, &q->out);
	p->query_count--;
	prefetch_answered(p, q);
	free(q);
}

bool shape_agrees(struct ty_fetch *f, const struct ty_tier_io *io)
{
	if (io->parts < 1 || io->parts > TY_CHUNK_MAX_PARTS)
		return false;
	for (uint32_t i = 0; i < io->parts; i++) {
		if (io->part[i].length < 1 || io->part[i].length > TY_PIECE_BYTES)
			return false;
		if (f->parts && (f->parts != io->parts || f->length[i] != io->part[i].length))
			return false;
	}
	f->parts = io->parts;
	for (uint32_t i = 0; i < io->parts; i++)
		f->length[i] = io->part[i].length;
	return true;
}

/* ---- loads: made and freed --------------------------------------------------------------------------------- */

static struct ty_load **bucket(struct prefetch *p, const struct ty_key *key)
{
	uint32_t hash;

	memcpy(&hash, key->bytes, sizeof hash);
	return &p->loads[hash % LOAD_BUCKETS];
}

static struct ty_load *find(struct prefetch *p, const struct ty_key *key)
{
	struct ty_load *l = *bucket(p, key);

	while (l && memcmp(&l->key, key, sizeof *key) != 0)
		l = l->next;
	return l;
}

static void free_load(struct ty_load *l)
{
	for (uint32_t i = 0; l->part && i < l->io.parts; i++)
		free(l->part[i]);
	free(l->part);
	free(l);
}

static struct load_part *make_part(struct ty_load *l, const struct ty_fetch *f, uint32_t i)
{
	struct load_part *part = calloc(1, sizeof *part);
	struct ty_op *op;

	if (!part)
		return NULL;
	part->load = l;
	part->layout.part = i;
	part->layout.parts = f->parts;
	part->layout.chunk_bytes = f->length[i];
	part->chunk.key = l->key;
	part->chunk.below = (uint16_t)(1u << l->tier->index);
	op = &part->op;
	op->kind = TY_OP_STORE;
	op->home = op->mover = ty_self();
	op->home_type = TY_PREFETCH_LANDED;
	op->mover_type = TY_PREFETCH_RESERVED;
	op->space = f->space;
	op->deadline = l->io.deadline;
	op->layout = &part->layout;
	op->count = 1;
	op->chunks = &part->chunk;
	op->copies = &part->copy;
	return part;
}

static struct ty_load *make_load(struct prefetch *p, struct ty_tier *tier, const struct ty_fetch *f, uint32_t i)
{
	struct ty_load *l = calloc(1, sizeof *l + f->parts * sizeof l->io.part[0]);

	if (!l)
		return NULL;
	l->key = f->keys[i];
	l->tier = tier;
	l->io.home = ty_self();
	l->io.home_type = TY_PREFETCH_IO;
	l->io.verb = TY_TIER_GET;
	l->io.deadline = ty_now() + tier->config.timeout;
	l->io.keys = &l->key;
	l->io.identity = ty_spaces_identity(&p->service->spaces, f->space);
	l->io.key_count = 1;
	l->io.parts = f->parts;
	l->part = calloc(f->parts, sizeof *l->part);
	for (uint32_t k = 0; l->part && k < f->parts; k++) {
		l->io.part[k].length = f->length[k];
		l->bytes += f->length[k];
		l->part[k] = make_part(l, f, k);
		if (!l->part[k]) {
			free_load(l);
			return NULL;
		}
	}
	if (l->part)
		return l;
	free_load(l);
	return NULL;
}

/* ---- loads: who waits ------------------------------------------------------------------------------------- */

static void wait_for(struct ty_fetch *f, uint32_t i, struct ty_load *l)
{
	struct ty_fetch_key *key = &f->key[i];

	key->state = KEY_LOADING;
	key->tier = (uint8_t)l->tier->index;
	key->load = l;
	key->next = l->waiting;
	l->waiting = key;
	f->asked++;
}

void load_forget(struct ty_fetch_key *key)
{
	struct ty_fetch_key **link = &key->load->waiting;

	while (*link != key)
		link = &(*link)->next;
	*link = key->next;
	key->state = KEY_UNKNOWN;
}

/* ---- loads: their way --------------------------------------------------------------------------------------- */

bool load_begin(struct prefetch *p, struct ty_fetch *f, uint32_t i)
{
	struct ty_tier *tier = p->service->tiers[f->key[i].tier];
	struct ty_load *l = find(p, &f->keys[i]), **head;
	uint32_t index = tier->index;

	if (l) {
		count(&p->service->prefetch_stats.shared, 1);
		wait_for(f, i, l);
		return true;
	}
	if (p->tiers[index].loads >= tier->config.ops)
		return false;
	l = make_load(p, tier, f, i);
	if (!l)
		return false;
	if (p->tiers[index].bytes && p->tiers[index].bytes + l->bytes > tier->config.bytes) {
		free_load(l);
		return false;
	}
	head = bucket(p, &l->key);
	l->next = *head;
	l->link = head;
	if (l->next)
		l->next->link = &l->next;
	*head = l;
	p->load_count++;
	p->tiers[index].loads++;
	p->tiers[index].bytes += l->bytes;
	count(&p->service->prefetch_stats.loads, 1);
	wait_for(f, i, l);
	l->undecided = l->unlanded = l->io.parts;
	for (uint32_t k = 0; k < l->io.parts; k++) {
		enum ty_code sent = ty_send(p->service->eviction, &l->part[k]->op.msg, TY_EVICTION_RESERVE);

		assert(sent == TY_OK); /* it outlives this actor */
	}
	return true;
}

/* All of its ops are home: tell those that wait. */
static void finish(struct prefetch *p, struct ty_load *l)
{
	struct ty_prefetch_stats *stats = &p->service->prefetch_stats;
	struct ty_chunk *chunk;

	*l->link = l->next;
	if (l->next)
		l->next->link = l->link;
	p->load_count--;
	p->tiers[l->tier->index].loads--;
	p->tiers[l->tier->index].bytes -= l->bytes;
	if (l->code == TY_OK) {
		count(&stats->loaded, 1);
		count(&stats->loaded_bytes, l->bytes);
	} else if (l->code == TY_NO_SPACE) {
		count(&stats->no_space, 1);
	}
	for (struct ty_fetch_key *key = l->waiting, *next; key; key = next) {
		next = key->next;
		/* A pin each. It may also be here because somebody stored it meanwhile. */
		chunk = ty_index_pin(p->service->index, &l->key);
		prefetch_loaded(key, chunk);
	}
	free_load(l);
}

/* Commit what has a slot, or give it back. */
static void send_commits(struct prefetch *p, struct ty_load *l, const char *why)
{
	for (uint32_t i = 0; i < l->io.parts; i++) {
		struct load_part *part = l->part[i];

		if (!part->reserved)
			continue;
		part->reserved = false;
		if (l->code != TY_OK)
			ty_op_fail(&part->op, l->code, "%s", why);
		part->chunk.checksum = l->io.part[i].checksum;
		enum ty_code sent = ty_send(p->service->eviction, &part->op.msg, TY_EVICTION_COMMIT);
		assert(sent == TY_OK);
	}
}

static void submit(struct prefetch *p, struct ty_load *l)
{
	unsigned index = l->tier->index;

	if (ty_tier_submit(l->tier, &l->io)) {
		out_push(p, l->tier, &l->out);
		return;
	}
	/* Full, by others' ios; or not serving any more, which the deadline ends. */
	l->next_waiting = NULL;
	*p->tiers[index].waiting_end = l;
	p->tiers[index].waiting_end = &l->next_waiting;
}

void load_retry(struct prefetch *p, uint32_t tier)
{
	struct ty_load *l = p->tiers[tier].waiting;

	p->tiers[tier].waiting = NULL;
	p->tiers[tier].waiting_end = &p->tiers[tier].waiting;
	for (struct ty_load *next; l; l = next) {
		next = l->next_waiting;
		if (ty_now() < l->io.deadline && !p->stopping) {
			submit(p, l);
		} else {
			l->code = TY_TIMEOUT;
			send_commits(p, l, "the tier took nothing in time");
		}
	}
}

/* Every part has a slot, or needs none, or there is none. */
static void decided(struct prefetch *p, struct ty_load *l)
{
	if (--l->undecided)
		return;
	if (l->code != TY_OK)
		send_commits(p, l, "another part of the chunk found no room");
	else if (l->unlanded)
		submit(p, l);
}

void load_reserved(struct prefetch *p, struct ty_op *op)
{
	struct load_part *part = ty_container_of(op, struct load_part, op);

	part->reserved = true;
	part->load->io.part[part->layout.part].data = part->copy.host;
	decided(p, part->load);
}

void load_landed(struct prefetch *p, struct ty_op *op)
{
	struct ty_load *l = ty_container_of(op, struct load_part, op)->load;
	/* Before the GET: it never was reserved, because the part is here already, or because there is no room. */
	bool early = l->undecided > 0;

	l->unlanded--;
	if (op->code != TY_OK && l->code == TY_OK)
		l->code = op->code;
	if (early)
		decided(p, l);
	if (!l->unlanded)
		finish(p, l);
}

void load_read(struct prefetch *p, struct ty_tier_io *io)
{
	struct ty_load *l = ty_container_of(io, struct ty_load, io);
	struct ty_prefetch_stats *stats = &p->service->prefetch_stats;

	out_pop(p, l->tier, &l->out);
	if (io->outcome != TY_TIER_DONE) {
		l->code = TY_IO;
		count(io->outcome == TY_TIER_MISSING ? &stats->missing : io->outcome == TY_TIER_CORRUPT ? &stats->corrupt : &stats->failed,
			1);
	}
	send_commits(p, l, ty_tier_outcome_name(io->outcome));
}
