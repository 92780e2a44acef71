/* SPDX-License-Identifier: Apache-2.0
 *
 * A fetch walks along its chain: which of the next keys are in the arena, which tier has those that are not (a query), load
 * them in order (a load each). It is looked at whenever something that it may wait for has happened.
 *
 *   query   EXISTS -> tier -> home: so many of the next keys are there, and of this shape
 *   load    RESERVE a slot for each part -> GET -> COMMIT each -> home: pin it for whoever waits
 *
 * What holds between any two messages: a key has at most one load; here <= asked <= known <= end of each fetch; every io and
 * every op that was sent out is counted in `out` of its tier, or of its load.
 */
#include "prefetch_state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define TICK_NS 5000000            /* 5 ms: how soon a cancelled fetch is noticed ... */
#define IDLE_TICK_NS 200000000     /* ... and how often the ios are looked at that nobody waits for */
#define PATIENCE_NS 1000000000     /* an io older than this: nobody waits for its tier until it moves */

struct ty_fetch *ty_fetch_create(const struct ty_key *keys, uint32_t count)
{
	struct ty_fetch *f;
	struct ty_key *copy;

	assert(count >= 1 && count <= TY_FETCH_CHUNKS);
	f = calloc(1, sizeof *f + count * (sizeof f->key[0] + sizeof *keys));
	if (!f)
		return NULL;
	f->lease = calloc(1, sizeof *f->lease + count * sizeof f->lease->chunks[0]);
	if (!f->lease) {
		free(f);
		return NULL;
	}
	copy = (struct ty_key *)(void *)(f->key + count);
	memcpy(copy, keys, count * sizeof *keys);
	f->keys = copy;
	f->count = f->end = count;
	for (uint32_t i = 0; i < count; i++)
		f->key[i].index = i;
	return f;
}

void ty_fetch_free(struct ty_fetch *fetch)
{
	free(fetch->lease);
	free(fetch);
}

static struct ty_fetch *fetch_of(struct ty_fetch_key *key)
{
	return ty_container_of(key - key->index, struct ty_fetch, key);
}

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

static void settle(struct prefetch *p)
{
	struct ty_stop *stop = p->stop;

	if (!stop || p->fetch_count || p->load_count || p->query_count)
		return;
	p->stop = NULL;
	stop->stopped(stop); /* it is gone after this */
}

static void watch(struct prefetch *p)
{
	int64_t at = ty_now() + (p->fetch_count ? TICK_NS : IDLE_TICK_NS);

	if (p->tick_at <= at)
		return;
	p->tick_at = at;
	ty_timer_start(&p->tick, TY_PREFETCH_TICK, at);
}

/* ---- going home ---------------------------------------------------------------------------------------- */

static void abandon_query(struct ty_fetch *f)
{
	if (f->query)
		f->query->fetch = NULL;
	f->query = NULL;
}

static void go_home(struct prefetch *p, struct ty_fetch *f)
{
	struct ty_lease *lease = f->lease;

	abandon_query(f);
	for (uint32_t i = f->here; i < f->asked; i++) {
		if (f->key[i].state == KEY_LOADING)
			load_forget(&f->key[i]);
		else if (f->key[i].state == KEY_HERE)
			ty_chunk_unpin(lease->chunks[i]);
	}
	lease->engine = f->home; /* an engine's goes on to eviction from there */
	lease->count = f->here;
	*f->link = f->next;
	if (f->next)
		f->next->link = f->link;
	else
		p->fetches_end[f->priority] = f->link;
	p->fetch_count--;
	enum ty_code sent = ty_send(f->home, &f->msg, f->home_type);
	assert(sent == TY_OK); /* whoever made it outlives it */
}

/* ---- a fetch's next steps -------------------------------------------------------------------------------- */

enum step { GO_ON, WAIT, HOME };

static bool in_arena(struct prefetch *p, struct ty_fetch *f, uint32_t i)
{
	struct ty_chunk *chunk = ty_index_pin(p->service->index, &f->keys[i]);

	if (!chunk)
		return false;
	f->lease->chunks[i] = chunk;
	f->key[i].state = KEY_HERE;
	return true;
}

/* Find out where key `known` is. */
static enum step ask(struct prefetch *p, struct ty_fetch *f)
{
	struct ty_service *service = p->service;

	if (f->query)
		return WAIT;
	while (f->tier < service->tier_count) {
		struct ty_tier *tier = service->tiers[f->tier];

		/* acquire: pairs with the tier's release */
		if (!p->tiers[f->tier].suspect &&
			atomic_load_explicit(&tier->stats.state, memory_order_acquire) == TY_TIER_SERVING)
			return query_begin(p, f) ? WAIT : p->tiers[f->tier].out.first ? WAIT : HOME;
		if (p->tiers[f->tier].suspect)
			count(&p->service->prefetch_stats.given_up, 1);
		f->tier++;
	}
	f->end = f->known; /* nobody has it */
	return GO_ON;
}

/* One step along the chain. */
static enum step step(struct prefetch *p, struct ty_fetch *f)
{
	while (f->here < f->asked && f->key[f->here].state == KEY_HERE)
		f->here++;
	if (f->here >= f->end)
		return HOME;
	/* acquire: pairs with the engine's release */
	if (atomic_load_explicit(&f->cancelled, memory_order_acquire)) {
		count(&p->service->prefetch_stats.cancelled, 1);
		return HOME;
	}
	/* What it waits for lies in a tier that does not answer. */
	if (f->here < f->asked && p->tiers[f->key[f->here].tier].suspect) {
		count(&p->service->prefetch_stats.given_up, 1);
		return HOME;
	}
	if (f->query && p->tiers[f->query->tier->index].suspect) {
		abandon_query(f);
		f->tier++;
		return GO_ON;
	}
	if (f->asked >= f->end)
		return WAIT;
	if (in_arena(p, f, f->asked)) {
		f->asked++;
		if (f->known < f->asked) {
			abandon_query(f); /* its answer would begin with another key */
			f->known = f->asked;
			f->tier = 0;
		}
		return GO_ON;
	}
	if (f->asked == f->known)
		return ask(p, f);
	/* Its tier does not answer: a load would only wait in it, for room in its window or for itself. */
	if (p->tiers[f->key[f->asked].tier].suspect) {
		f->known = f->asked;
		f->tier = (uint8_t)(f->key[f->asked].tier + 1);
		return GO_ON;
	}
	return load_begin(p, f, f->asked) ? GO_ON : WAIT;
}

static void advance(struct prefetch *p, struct ty_fetch *f)
{
	enum step next;

	do
		next = step(p, f);
	while (next == GO_ON);
	if (next == HOME)
		go_home(p, f);
}

/* Something has changed that any of them may wait for. Lookups before warming, the older one first. */
static void pump(struct prefetch *p)
{
	for (int priority = TY_FETCH_PRIORITIES; priority-- > 0;)
		for (struct ty_fetch *f = p->fetches[priority], *next; f; f = next) {
			next = f->next;
			advance(p, f);
		}
	for (uint32_t i = 0; i < p->service->tier_count; i++)
		load_retry(p, i);
	atomic_store_explicit(&p->service->prefetch_stats.active, p->fetch_count, memory_order_relaxed);
	atomic_store_explicit(&p->service->prefetch_stats.in_flight, p->load_count, memory_order_relaxed);
	if (p->fetch_count || p->load_count || p->query_count)
		watch(p);
	settle(p);
}

void prefetch_loaded(struct ty_fetch_key *key, struct ty_chunk *chunk)
{
	struct ty_fetch *f = fetch_of(key);

	if (chunk) {
		f->lease->chunks[key->index] = chunk;
		key->state = KEY_HERE;
	} else {
		key->state = KEY_GONE;
		if (key->index < f->end)
			f->end = key->index;
	}
}

void prefetch_answered(struct prefetch *p, struct ty_query *q)
{
	struct ty_fetch *f = q->fetch;
	const struct ty_tier_io *io = &q->io;
	uint32_t found = io->outcome == TY_TIER_DONE ? io->found : 0;

	(void)p;
	if (!f)
		return;
	f->query = NULL;
	if (found > io->key_count || (found && !shape_agrees(f, io)))
		found = 0; /* not what a chain's chunks are: somebody else's, or damaged */
	for (uint32_t i = 0; i < found; i++)
		f->key[f->known + i].tier = (uint8_t)q->tier->index;
	f->known += found;
	f->tier = found ? 0 : f->tier + 1;
}

/* ---- messages ------------------------------------------------------------------------------------------- */

static void on_fetch(void *self, struct ty_msg *msg)
{
	struct prefetch *p = self;
	struct ty_fetch *f = ty_container_of(msg, struct ty_fetch, msg);

	count(&p->service->prefetch_stats.fetches, 1);
	f->next = NULL;
	f->link = p->fetches_end[f->priority];
	*f->link = f;
	p->fetches_end[f->priority] = &f->next;
	p->fetch_count++;
	if (p->fetch_count > TY_FETCHES || p->stopping)
		go_home(p, f);
	pump(p);
}

static void on_reserved(void *self, struct ty_msg *msg)
{
	load_reserved(self, ty_container_of(msg, struct ty_op, msg));
	pump(self);
}

static void on_landed(void *self, struct ty_msg *msg)
{
	load_landed(self, ty_container_of(msg, struct ty_op, msg));
	pump(self);
}

static void on_io(void *self, struct ty_msg *msg)
{
	struct ty_tier_io *io = ty_container_of(msg, struct ty_tier_io, msg);

	if (io->verb == TY_TIER_EXISTS)
		query_home(self, io);
	else
		load_read(self, io);
	pump(self);
}

static void on_tick(void *self, struct ty_msg *msg)
{
	struct prefetch *p = self;
	int64_t now = ty_now();

	(void)msg;
	p->tick_at = TY_NEVER;
	for (uint32_t i = 0; i < p->service->tier_count; i++)
		p->tiers[i].suspect = p->tiers[i].out.first && now - p->tiers[i].out.first->since > PATIENCE_NS;
	pump(p);
}

static void on_stop(void *self, struct ty_msg *msg)
{
	struct prefetch *p = self;

	p->stopping = true;
	p->stop = ty_container_of(msg, struct ty_stop, msg);
	settle(p);
}

static enum ty_code start(void *self, void *arg)
{
	struct prefetch *p = self;

	p->service = arg;
	p->tick_at = TY_NEVER;
	for (int i = 0; i < TY_FETCH_PRIORITIES; i++)
		p->fetches_end[i] = &p->fetches[i];
	for (int i = 0; i < TY_MAX_TIERS; i++) {
		p->tiers[i].out.end = &p->tiers[i].out.first;
		p->tiers[i].waiting_end = &p->tiers[i].waiting;
	}
	return TY_OK;
}

static void stop(void *self)
{
	struct prefetch *p = self;

	assert(!p->fetch_count && !p->load_count && !p->query_count);
}

static const struct ty_handler handlers[] = {
	{"fetch", on_fetch},
	{"reserved", on_reserved},
	{"landed", on_landed},
	{"io", on_io},
	{"tick", on_tick},
	{"stop", on_stop},
};

const struct ty_class ty_prefetch_class = {
	.name = "prefetch",
	.state_size = sizeof(struct prefetch),
	.first_type = TY_PREFETCH_FETCH,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.stop = stop,
};
