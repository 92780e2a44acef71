/* SPDX-License-Identifier: Apache-2.0
 *
 * A lane for the arena and one for each tier that lists; each has one thing out at a time:
 *
 *   arena   ask eviction for the next chunk, pinned --> sum it up on a bytework's thread --> let it go, or ask with it: it is wrong
 *   tier    LIST a page --> for each chunk EXISTS (its shape) --> GET its parts one by one, aside
 *
 * What is wrong in a tier the tier finds by itself, as at any GET: it is CORRUPT, and out of the way.
 */
#include "scrub.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "service.h"

#define PAGE 256            /* chunks of a LIST */
#define PATIENCE_NS 1000000000 /* so long it gives way to others for one chunk */
#define YIELD_NS 20000000   /* and looks so often whether they are done */
#define EMPTY_NS 1000000    /* after a stretch of the slot table with nothing in it */
#define RETRY_NS 1000000000 /* after a tier failed */

struct lane {
	struct ty_service *service;
	struct ty_tier *tier;         /* null: the arena */
	struct ty_scrub_stats *stats;
	bool out;                     /* something is with somebody else */
	int64_t next;                 /* not before this */
	int64_t yields;               /* it has given way since; 0: it has not */
	int64_t began;                /* the pass; 0: none is under way */

	struct ty_scrub_ask ask;      /* the arena's */
	struct ty_bytework work;
	uint64_t summed;
	bool right;

	struct ty_tier_page page;     /* a tier's */
	uint32_t at, part;            /* in the page; of the chunk */
	bool listed, shaped;          /* the page, the chunk's parts are known */
	uint8_t *buffer;
	uint64_t room;
	struct ty_tier_io *io;        /* with room for all parts */
};

struct scrub {
	struct ty_service *service;
	struct lane lanes[1 + TY_MAX_TIERS];
	uint32_t lane_count;
	struct ty_timer tick;
	uint32_t bytework_turn;
	bool stopping;
	struct ty_stop *stop; /* to be told; null: was, or is not to be */
};

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

static void set(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, n, memory_order_relaxed);
}

/* So many bytes, as they lie there, were begun to be read at `since`. */
static void pay(struct lane *l, int64_t since, uint64_t bytes)
{
	uint64_t rate = l->service->config->scrub_rate;

	l->next = since + (int64_t)(bytes / rate * 1000000000 + bytes % rate * 1000000000 / rate);
	l->yields = 0;
}

/* ---- passes ---------------------------------------------------------------------------------------------- */

static void begin_pass(struct lane *l, int64_t now)
{
	l->began = now;
	l->ask.at = 0;
	l->page.cursor.length = 0;
	l->listed = false;
	set(&l->stats->position, 0);
}

static void end_pass(struct lane *l)
{
	int64_t now = ty_now(), interval = (int64_t)l->service->config->scrub_interval_us * 1000;

	count(&l->stats->passes, 1);
	set(&l->stats->last_pass, (uint64_t)time(NULL));
	set(&l->stats->last_pass_ns, (uint64_t)(now - l->began));
	l->next = now - l->began < interval ? l->began + interval : now;
	l->began = 0;
	l->listed = false;
	ty_tier_page_clear(&l->page);
	free(l->buffer);
	l->buffer = NULL;
	l->room = 0;
}

/* ---- the arena ------------------------------------------------------------------------------------------- */

static void ask(struct lane *l)
{
	l->out = ty_send(l->service->eviction, &l->ask.msg, TY_EVICTION_SCRUB) == TY_OK; /* it outlives this actor */
}

/* On a bytework's thread. A part without a sum has nothing to be held against. */
static void compare(struct ty_service *service, struct ty_bytework *work)
{
	struct lane *l = ty_container_of(work, struct lane, work);
	const struct ty_chunk *chunk = l->ask.chunk;

	l->summed = 0;
	l->right = true;
	for (uint32_t i = 0; i < chunk->parts && l->right; i++) {
		uint64_t expected = ty_slots_checksum(service->slots, chunk->slots[i]), found;
		uint64_t length = ty_slots_held(service->slots, chunk->slots[i])->length;

		if (!expected)
			continue;
		if (!ty_bytework_sum(service, ty_slots_address(service->slots, chunk->slots[i]), length, &found))
			return; /* the service stops */
		l->summed += length;
		l->right = found == expected;
	}
}

static void let_go(struct lane *l)
{
	ty_chunk_let_go(l->ask.chunk);
	ty_chunk_unpin(l->ask.chunk);
	l->ask.chunk = NULL;
}

static void on_chunk_of(struct scrub *s, struct lane *l)
{
	l->out = false;
	if (!l->ask.chunk) {
		l->next = ty_now() + EMPTY_NS;
		if (l->ask.at == TY_NO_SLOT)
			end_pass(l);
		return;
	}
	l->work.home = ty_self();
	l->work.home_type = TY_SCRUB_SUMMED;
	l->work.run = compare;
	l->out = !s->stopping && ty_bytework_send(l->service, &l->work, &s->bytework_turn);
	if (!l->out)
		let_go(l);
}

static void on_summed_of(struct scrub *s, struct lane *l, int64_t since)
{
	l->out = false;
	count(&l->stats->position, 1);
	pay(l, since, l->summed);
	if (!l->work.ran || l->right || s->stopping) {
		count(&l->stats->bytes, l->summed);
		count(&l->stats->chunks, l->work.ran);
		let_go(l);
		return;
	}
	count(&l->stats->wrong, 1);
	ty_log(TY_LOG_ERROR, "scrub", "a chunk in memory is not what was stored (%llu so far): dropped",
		(unsigned long long)atomic_load_explicit(&l->stats->wrong, memory_order_relaxed));
	ask(l);
}

/* ---- a tier ----------------------------------------------------------------------------------------------- */

static bool submit(struct lane *l, enum ty_tier_verb verb)
{
	struct ty_tier_io *io = l->io;

	io->home = ty_self();
	io->home_type = TY_SCRUB_IO;
	io->verb = verb;
	io->aside = true;
	io->deadline = ty_now() + l->tier->config.timeout;
	io->page = verb == TY_TIER_LIST ? &l->page : NULL;
	io->keys = l->listed ? &l->page.item[l->at].key : NULL;
	io->key_count = l->listed;
	l->out = ty_tier_submit(l->tier, io);
	return l->out;
}

static bool list(struct lane *l)
{
	ty_tier_page_clear(&l->page);
	l->page.wanted = PAGE;
	l->at = 0;
	return submit(l, TY_TIER_LIST);
}

/* One part, into memory of its own. */
static bool read_part(struct lane *l)
{
	uint64_t room = ty_envelope_padded(l->io->part[l->part].length);

	if (room > l->room) {
		free(l->buffer);
		l->buffer = aligned_alloc(TY_ENVELOPE_ALIGN, room);
		l->room = l->buffer ? room : 0;
		if (!l->buffer)
			return false;
	}
	for (uint32_t i = 0; i < l->io->parts; i++)
		l->io->part[i].data = i == l->part ? l->buffer : NULL;
	return submit(l, TY_TIER_GET);
}

static void next_chunk(struct lane *l)
{
	l->at++;
	l->shaped = false;
	count(&l->stats->position, 1);
}

static void on_shape(struct lane *l)
{
	const struct ty_tier_io *io = l->io;

	if (io->read) /* by a tier that has to read it for that */
		pay(l, io->submitted, io->read);
	l->part = 0;
	l->shaped = io->outcome == TY_TIER_DONE && io->found == 1 && io->parts >= 1 && io->parts <= TY_CHUNK_MAX_PARTS;
	for (uint32_t i = 0; l->shaped && i < io->parts; i++)
		l->shaped = io->part[i].length >= 1 && io->part[i].length <= TY_PIECE_BYTES;
	if (l->shaped)
		return;
	count(io->outcome == TY_TIER_DONE ? &l->stats->gone : &l->stats->failed, 1);
	next_chunk(l);
}

static void on_part(struct lane *l)
{
	struct ty_scrub_stats *stats = l->stats;

	pay(l, l->io->submitted, l->io->read);
	switch (l->io->outcome) {
	case TY_TIER_DONE:
		count(&stats->bytes, l->io->read);
		if (++l->part < l->io->parts)
			return;
		count(&stats->chunks, 1);
		break;
	case TY_TIER_CORRUPT:
		count(&stats->wrong, 1);
		break;
	case TY_TIER_MISSING:
		count(&stats->gone, 1);
		break;
	default:
		count(&stats->failed, 1);
		l->next = ty_now() + RETRY_NS;
		break;
	}
	next_chunk(l);
}

static void on_page(struct lane *l)
{
	l->listed = l->io->outcome == TY_TIER_DONE;
	if (!l->listed)
		l->next = ty_now() + RETRY_NS;
}

/* What is next for it. False: it could not be begun. */
static bool go_in_tier(struct lane *l)
{
	if (l->listed && l->at == l->page.count) {
		l->listed = false;
		if (l->page.cursor.length == 0) {
			end_pass(l);
			return true;
		}
	}
	if (!l->listed)
		return list(l);
	return l->shaped ? read_part(l) : submit(l, TY_TIER_EXISTS);
}

/* ---- when ---------------------------------------------------------------------------------------------------- */

/* Whatever may be waited for goes first. */
static bool others_are_busy(const struct lane *l)
{
	const struct ty_service *service = l->service;

	if (!l->tier)
		return atomic_load_explicit(&service->checksum_stats.waiting, memory_order_relaxed);
	return atomic_load_explicit(&l->tier->stats.in_flight[TY_TIER_UP], memory_order_relaxed);
}

/* Before a tier has found out what it holds there is nothing to go through. */
static bool is_ready(const struct lane *l)
{
	/* acquire: pairs with the tier's release */
	return !l->tier || (atomic_load_explicit(&l->tier->stats.state, memory_order_acquire) == TY_TIER_SERVING &&
				   !atomic_load_explicit(&l->tier->stats.scanning, memory_order_relaxed));
}

static void go(struct lane *l, int64_t now)
{
	if (!is_ready(l)) {
		l->next = now + RETRY_NS;
		return;
	}
	if (!l->yields)
		l->yields = now;
	if (others_are_busy(l) && now - l->yields < PATIENCE_NS) {
		l->next = now + YIELD_NS;
		return;
	}
	if (!l->began)
		begin_pass(l, now);
	if (!l->tier)
		ask(l);
	else if (!go_in_tier(l))
		l->next = now + YIELD_NS;
}

/* Whatever may go now goes; for the others the timer. */
static void go_on(struct scrub *s)
{
	int64_t now = ty_now(), next = TY_NEVER;
	bool out = false;

	for (uint32_t i = 0; i < s->lane_count; i++) {
		struct lane *l = &s->lanes[i];

		if (!s->stopping && !l->out && l->next <= now)
			go(l, now);
		if (!l->out && l->next < next)
			next = l->next;
		out |= l->out;
	}
	if (!s->stopping) {
		ty_timer_start(&s->tick, TY_SCRUB_TICK, next);
	} else if (!out && s->stop) {
		struct ty_stop *stop = s->stop;

		s->stop = NULL;
		stop->stopped(stop); /* it is gone after this */
	}
}

/* ---- messages ------------------------------------------------------------------------------------------------- */

static void on_start(void *self, struct ty_msg *msg)
{
	(void)msg;
	go_on(self);
}

static void on_tick(void *self, struct ty_msg *msg)
{
	(void)msg;
	go_on(self);
}

static void on_io(void *self, struct ty_msg *msg)
{
	struct scrub *s = self;
	const struct ty_tier_io *io = ty_container_of(msg, struct ty_tier_io, msg);
	struct lane *l = s->lanes;

	while (l->io != io)
		l++;
	l->out = false;
	if (io->verb == TY_TIER_LIST)
		on_page(l);
	else if (io->verb == TY_TIER_EXISTS)
		on_shape(l);
	else
		on_part(l);
	go_on(s);
}

static void on_chunk(void *self, struct ty_msg *msg)
{
	on_chunk_of(self, ty_container_of(ty_container_of(msg, struct ty_scrub_ask, msg), struct lane, ask));
	go_on(self);
}

static void on_summed(void *self, struct ty_msg *msg)
{
	on_summed_of(self, ty_container_of(ty_container_of(msg, struct ty_bytework, msg), struct lane, work), ty_now());
	go_on(self);
}

static void on_stop(void *self, struct ty_msg *msg)
{
	struct scrub *s = self;

	s->stopping = true;
	s->stop = ty_container_of(msg, struct ty_stop, msg);
	ty_timer_cancel(&s->tick);
	go_on(s);
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

static enum ty_code add_lane(struct scrub *s, struct ty_tier *tier)
{
	struct lane *l = &s->lanes[s->lane_count];

	l->service = s->service;
	l->tier = tier;
	l->stats = &s->service->scrub_stats[tier ? tier->index + 1 : 0];
	l->ask.home = ty_self();
	/* Not at once: a service that starts has other things to do. */
	l->next = ty_now() + (int64_t)s->service->config->scrub_interval_us * 1000;
	if (tier) {
		l->io = calloc(1, sizeof *l->io + TY_CHUNK_MAX_PARTS * sizeof l->io->part[0]);
		if (!l->io)
			return TY_NO_MEMORY;
	}
	s->lane_count++;
	return TY_OK;
}

static enum ty_code start(void *self, void *arg)
{
	struct scrub *s = self;
	enum ty_code code = TY_OK;

	s->service = arg;
	if (s->service->bytework_count)
		code = add_lane(s, NULL);
	for (uint32_t i = 0; i < s->service->tier_count && code == TY_OK; i++)
		if (ty_tier_is_scrubbed(s->service->tiers[i]))
			code = add_lane(s, s->service->tiers[i]);
	if (code != TY_OK)
		ty_log(TY_LOG_ERROR, "scrub", "no memory to start with");
	return code;
}

static void stop(void *self)
{
	struct scrub *s = self;

	for (uint32_t i = 0; i < s->lane_count; i++) {
		ty_tier_page_clear(&s->lanes[i].page);
		free(s->lanes[i].buffer);
		free(s->lanes[i].io);
	}
}

static const struct ty_handler handlers[] = {
	{"start", on_start},
	{"io", on_io},
	{"chunk", on_chunk},
	{"summed", on_summed},
	{"tick", on_tick},
	{"stop", on_stop},
};

const struct ty_class ty_scrub_class = {
	.name = "scrub",
	.state_size = sizeof(struct scrub),
	.first_type = TY_SCRUB_START,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.stop = stop,
};
