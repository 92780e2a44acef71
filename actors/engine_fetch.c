/* SPDX-License-Identifier: Apache-2.0
 *
 * A LOOKUP whose chain is not all in the arena, when there are tiers: a fetch for the rest goes to prefetch, and the answer
 * waits for it, but never past its time. What comes up later is there for the next LOOKUP.
 */
#include "engine_state.h"

#include <assert.h>
#include <stdlib.h>

#include "base/log.h"

#define MARGIN_MAX_NS INT64_C(50000000) /* an answer sets out so much before its deadline; an eighth, if that is less */

/* A fetch that is out. */
struct lookup {
	struct lookup *next, **link;
	struct session *session;      /* null: it has ended, or looked up something else */
	struct ty_exchange *exchange; /* null: answered */
	int64_t answer_by;
	struct ty_fetch *fetch;
};

static int64_t answer_by(const struct engine *e, const struct ty_exchange *x)
{
	int64_t margin = (x->deadline - x->received) / 8;
	int64_t latest = x->deadline - (margin < MARGIN_MAX_NS ? margin : MARGIN_MAX_NS);
	int64_t wait = ty_now() + (int64_t)e->service->config->prefetch_wait_us * 1000;

	return wait < latest ? wait : latest;
}

bool engine_fetch_begin(struct engine *e, struct session *s, struct ty_exchange *x)
{
	uint32_t first = s->lease ? s->lease->count : 0, count = s->chunks - first;
	struct lookup *l;

	if (!e->service->tier_count || !count)
		return false;
	/* One that looks up ever more over a tier that is slow is answered with what is here. */
	if (!ty_share_take(&e->service->fetches, e->fetches, 1))
		return false;
	l = calloc(1, sizeof *l);
	if (l)
		l->fetch = ty_fetch_create(s->keys + first, count < TY_FETCH_CHUNKS ? count : TY_FETCH_CHUNKS);
	if (!l || !l->fetch) {
		ty_share_give(&e->service->fetches, 1);
		free(l);
		return false;
	}
	e->fetches++;
	l->fetch->home = ty_self();
	l->fetch->home_type = TY_ENGINE_FETCHED;
	l->fetch->priority = TY_FETCH_LOOKUP;
	l->fetch->space = e->space;
	l->fetch->parts = e->parts;
	for (uint32_t i = 0; i < e->parts; i++)
		l->fetch->length[i] = e->part_bytes;
	l->fetch->user = l;
	l->session = s;
	l->exchange = x;
	l->answer_by = answer_by(e, x);
	l->next = e->lookups;
	l->link = &e->lookups;
	if (l->next)
		l->next->link = &l->next;
	e->lookups = l;
	engine_watch(e);
	enum ty_code sent = ty_send(e->service->prefetch, &l->fetch->msg, TY_PREFETCH_FETCH);
	assert(sent == TY_OK); /* prefetch outlives engines */
	return true;
}

static void answer(struct engine *e, struct lookup *l)
{
	struct ty_exchange *x = l->exchange;
	struct ty_error err;

	l->exchange = NULL;
	if (engine_extend_lease(e, l->session, &err) != TY_OK)
		ty_log(TY_LOG_WARN, "engine", "%s", err.text); /* the answer is what it had before */
	engine_answer_lookup(e, l->session, x);
}

void engine_fetched(struct engine *e, struct ty_fetch *fetch)
{
	struct lookup *l = fetch->user;

	if (l->exchange)
		answer(e, l); /* pins what came up, before the fetch lets go of it */
	if (fetch->lease->count) {
		enum ty_code sent;

		e->leases_out++;
		fetch->lease->again = fetch->lease->count; /* the session's own lease touches them */
		fetch->lease->space = e->space;
		sent = ty_send(e->service->eviction, &fetch->lease->msg, TY_EVICTION_RELEASE);
		assert(sent == TY_OK); /* eviction outlives engines */
		fetch->lease = NULL;
	}
	*l->link = l->next;
	if (l->next)
		l->next->link = l->link;
	ty_fetch_free(fetch);
	free(l);
	e->fetches--;
	ty_share_give(&e->service->fetches, 1);
}

void engine_fetch_drop(struct engine *e, const struct session *s)
{
	for (struct lookup *l = e->lookups; l; l = l->next) {
		if (l->session != s)
			continue;
		if (l->exchange)
			ty_exchange_refuse(l->exchange, TY_CANCELLED, "the session has ended, or looks up something else");
		l->exchange = NULL;
		l->session = NULL;
		/* release: pairs with prefetch's acquire */
		atomic_store_explicit(&l->fetch->cancelled, true, memory_order_release);
	}
}

bool engine_fetch_expire(struct engine *e, int64_t now)
{
	bool waiting = false;

	for (struct lookup *l = e->lookups; l; l = l->next) {
		if (l->exchange && now >= l->answer_by)
			answer(e, l);
		waiting |= l->exchange != NULL;
	}
	return waiting;
}
