/* SPDX-License-Identifier: Apache-2.0
 *
 * Operations as requests. An object is a chunk as in every tier: the envelope, then the parts (cache/envelope.h).
 *
 *   PUT     PUT /BUCKET/PREFIXkey, or in pieces   an object is there whole or not at all
 *   GET     GET                                   checked against the envelope before it counts
 *   EXISTS  GET of the envelope alone, a window of keys at a time; ends at the first that is not there
 *   DELETE  DELETE
 *   LIST    ListObjectsV2 (s3_list.c)
 *
 * An io that is answered before its requests are over has them taken away from libcurl first.
 */
#include "s3.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cache/checksum.h"

#define LOOK_NS INT64_C(250000000)         /* how often deadlines and stalls are looked at */
#define NAMES_NS INT64_C(30000000000)      /* addresses are looked up again after this, while they are used, ... */
#define NAMES_AGAIN_NS INT64_C(1000000000) /* ... and not more often than this where they do not answer */

/* ---- ops --------------------------------------------------------------------------------------------------------- */

static struct s3_op *new_op(struct s3_actor *a, struct ty_tier_io *io, const struct ty_key *key, int64_t deadline)
{
	struct s3_op *op = calloc(1, sizeof *op);

	if (!op)
		return NULL;
	op->a = a;
	op->io = io;
	op->key = *key;
	op->deadline = deadline;
	op->next = a->ops;
	op->link = &a->ops;
	if (op->next)
		op->next->link = &op->next;
	a->ops = op;
	a->errands += !io;
	return op;
}

struct s3_op *s3_errand(struct s3_actor *a, const struct ty_key *key)
{
	if (a->errands >= S3_ERRANDS_MAX || a->stopping)
		return NULL;
	return new_op(a, NULL, key, ty_now() + a->tier->config.timeout);
}

static bool begin(struct s3_op *op, struct ty_tier_io *io);

void s3_op_end(struct s3_op *op, enum ty_tier_outcome outcome, const char *why)
{
	struct s3_actor *a = op->a;
	struct ty_tier_io *io = op->io;
	struct ty_turn *turn = ty_turn_leave(&a->turns, &op->turn);
	struct s3_op *next = turn ? ty_container_of(turn, struct s3_op, turn) : NULL;

	while (op->requests)
		s3_request_free(op->requests);
	*op->link = op->next;
	if (op->next)
		op->next->link = op->link;
	a->errands -= !io;
	if (op->upload)
		free(op->upload->body);
	free(op->upload);
	free(op->query);
	s3_list_free(op->list);
	ty_tier_unpack_free(op->unpack);
	free(op);
	if (io)
		ty_tier_complete(a->tier, io, outcome, why ? "%.110s" : NULL, why);
	if (next && !begin(next, next->io))
		next->deadline = 0; /* no memory: it is over at the next look */
}

/* ---- wrong objects --------------------------------------------------------------------------------------------------- */

/* Told when it is away, or is given up: a PUT of it that came before is not told after it. */
static void gone(struct s3_actor *a, const struct ty_key *key)
{
	ty_tier_gone(a->tier, key, TYER__V1__EVENT__KIND__WRONG);
	ty_tier_tell(a->tier);
}

/* It goes away: for nobody, and in bounded time. Where somebody writes it anew, by that. */
static void drop(struct s3_actor *a, const struct ty_key *key, const char *why)
{
	struct s3_op *errand = ty_turn_is_taken(&a->turns, key) ? NULL : s3_errand(a, key);
	struct s3_request *r = errand ? s3_request_new(errand, S3_DELETE, 0) : NULL;

	atomic_fetch_add_explicit(&a->tier->stats.quarantined, 1, memory_order_relaxed);
	if (r) {
		(void)ty_turn_take(&a->turns, &errand->turn, key); /* it is the only one */
		ty_log(TY_LOG_WARN, "tier", "s3: deleting %s: %s", r->url, why);
		return;
	}
	gone(a, key);
	if (errand)
		s3_op_end(errand, TY_TIER_FAILED, NULL);
}

/* ---- EXISTS ------------------------------------------------------------------------------------------------------------ */

static bool look_on(struct s3_op *op)
{
	struct s3_query *q = op->query;

	for (; q->begun < q->end && q->out < S3_KEYS_OUT; q->begun++, q->out++)
		if (!s3_request_new(op, S3_LOOK, q->begun))
			return false;
	return true;
}

static void end_query(struct s3_op *op)
{
	struct s3_query *q = op->query;
	struct ty_tier_io *io = op->io;

	while (io->found < q->end && q->key[io->found].here && q->key[io->found].shape == q->key[0].shape)
		io->found++;
	if (io->found) {
		ty_tier_tell_whose(io, &q->first.identity);
		io->takes = ty_envelope_total(&q->first);
		io->parts = q->first.parts;
		for (uint32_t i = 0; i < io->parts; i++)
			io->part[i].length = q->first.length[i];
	}
	if (q->failed && !io->found)
		s3_op_end(op, TY_TIER_FAILED, "the store did not say");
	else
		s3_op_end(op, TY_TIER_DONE, NULL);
}

static void looked(struct s3_op *op, struct s3_request *r, enum s3_end end)
{
	struct s3_query *q = op->query;
	struct ty_envelope e;
	struct ty_error err;
	uint32_t number = r->number;

	/* What is wrong with it GET says. An object that is shorter than an envelope is refused (416) or short. */
	if (end == S3_ANSWERED && r->at == r->end && ty_envelope_read(r->header, &e, &err) == TY_OK &&
		!memcmp(&e.key, &op->io->keys[number], sizeof e.key)) {
		q->key[number].here = true;
		q->key[number].shape = ty_checksum(e.length, e.parts * sizeof e.length[0]) + e.parts;
		if (number == 0)
			q->first = e;
		if (q->key[0].here && q->key[number].shape != q->key[0].shape && number < q->end)
			q->end = number;
	} else {
		q->failed |= end == S3_BROKEN || (end == S3_REFUSED && r->status != 416);
		q->end = number < q->end ? number : q->end;
	}
	q->out--;
	s3_request_free(r);
	if (!look_on(op)) {
		q->failed = true;
		q->end = q->begun;
	}
	if (!q->out)
		end_query(op);
}

/* ---- what came of a request ------------------------------------------------------------------------------------------------ */

static enum ty_tier_outcome outcome_of(struct s3_request *r, enum s3_end end, struct ty_error *err)
{
	struct ty_tier_io *io = r->op->io;

	(void)ty_fail(err, TY_IO, "%.110s", r->why);
	switch (end) {
	case S3_ABSENT:
		return io->verb == TY_TIER_PUT ? TY_TIER_FAILED : TY_TIER_MISSING;
	case S3_TOO_LONG:
		return TY_TIER_CORRUPT;
	case S3_REFUSED:
	case S3_BROKEN:
		return r->status == 507 ? TY_TIER_FULL : TY_TIER_FAILED;
	case S3_ANSWERED:
		break;
	}
	if (io->verb != TY_TIER_GET)
		return TY_TIER_DONE;
	if (r->at == r->end && ty_envelope_is_packed(&r->op->envelope)) { /* it would be with an unpacker */
		(void)ty_fail(err, TY_NO_MEMORY, "no memory");
		return TY_TIER_FAILED;
	}
	if (r->at == r->end)
		return ty_tier_check(r->op->a->tier, io, r->header, NULL, NULL, err);
	(void)ty_fail(err, TY_INVALID, "it has %llu bytes, expected %llu", (unsigned long long)r->at, (unsigned long long)r->end);
	return TY_TIER_CORRUPT;
}

/* ---- packed objects -------------------------------------------------------------------------------------------------------- */

void s3_forget_shape(struct s3_request *r)
{
	struct s3_op *op = r->op;

	ty_tier_unpack_free(op->unpack);
	op->unpack = NULL;
	memset(op->envelope.packed, 0, sizeof op->envelope.packed);
	r->end = op->total;
}

void s3_take_shape(struct s3_request *r)
{
	struct s3_op *op = r->op;
	struct ty_envelope e;

	if (!ty_tier_is_packed(op->io, r->header, &e))
		return;
	memcpy(op->envelope.packed, e.packed, sizeof e.packed[0] * e.parts);
	r->end = ty_envelope_total(&op->envelope);
	op->unpack = ty_tier_unpack_new(op->a->tier, op->io, &e);
}

/* It is here. True: it is with an unpacker. */
static bool send_to_unpacker(struct s3_op *op, struct s3_request *r)
{
	if (!op->unpack)
		return false;
	memcpy(op->unpack->header, r->header, sizeof r->header);
	op->unpack->user = op;
	op->unpacking = true;
	s3_request_free(r);
	ty_tier_unpack(op->unpack);
	return true;
}

static void on_unpacked(void *self, struct ty_msg *msg)
{
	struct ty_tier_unpack *u = ty_tier_unpacked(msg);
	struct s3_op *op = u->user;
	enum ty_tier_outcome outcome = u->outcome;
	struct ty_error err = u->err; /* it goes with the op */

	if (outcome == TY_TIER_CORRUPT)
		drop(self, &op->key, err.text);
	s3_op_end(op, outcome, outcome == TY_TIER_DONE || outcome == TY_TIER_MISSING ? NULL : err.text);
}

void s3_request_end(struct s3_request *r, enum s3_end end)
{
	struct s3_op *op = r->op;
	struct ty_error err = {.text = ""};
	enum ty_tier_outcome outcome;

	if (!op->io) {
		if (end == S3_BROKEN || end == S3_REFUSED)
			ty_log(TY_LOG_DEBUG, "tier", "s3: %s: %s", r->url, r->why);
		if (r->kind == S3_DELETE)
			gone(op->a, &op->key);
		else if (r->kind == S3_PROBE && op->a->breaker.probing) /* it was never sent: another one will be */
			(void)ty_breaker_bad(&op->a->breaker, true, ty_now());
		s3_op_end(op, TY_TIER_DONE, NULL);
		return;
	}
	if (op->upload) {
		s3_upload_step(op, r, end);
		return;
	}
	if (op->query) {
		looked(op, r, end);
		return;
	}
	if (op->list) {
		s3_list_step(op, r, end);
		return;
	}
	if (end == S3_ANSWERED && r->at == r->end && send_to_unpacker(op, r))
		return;
	outcome = outcome_of(r, end, &err);
	if (outcome == TY_TIER_CORRUPT)
		drop(op->a, &op->key, err.text);
	s3_op_end(op, outcome, outcome == TY_TIER_DONE || outcome == TY_TIER_MISSING ? NULL : err.text);
}

/* ---- messages ------------------------------------------------------------------------------------------------------------------ */

static void describe(struct s3_op *op, const struct ty_tier_io *io)
{
	ty_tier_describe(io, &op->envelope);
	op->total = ty_envelope_total(&op->envelope);
}

static bool begin(struct s3_op *op, struct ty_tier_io *io)
{
	switch (io->verb) {
	case TY_TIER_PUT:
		describe(op, io);
		return op->total > op->a->s3->part_size ? s3_upload_begin(op) : s3_request_new(op, S3_PUT, 0) != NULL;
	case TY_TIER_GET:
		describe(op, io);
		return s3_request_new(op, S3_GET, 0) != NULL;
	case TY_TIER_EXISTS:
		op->query = calloc(1, sizeof *op->query + io->key_count * sizeof op->query->key[0]);
		if (!op->query)
			return false;
		op->query->end = io->key_count;
		return look_on(op);
	case TY_TIER_DELETE:
		return s3_request_new(op, S3_DELETE, 0) != NULL;
	case TY_TIER_LIST:
		return s3_list_begin(op);
	}
	return false;
}

static void carry_out(struct s3_actor *a, struct ty_tier_io *io)
{
	struct s3_op *op;

	if (a->stopping) {
		ty_tier_complete(a->tier, io, TY_TIER_STOPPED, NULL);
		return;
	}
	if (s3_is_down(a) && io->verb != TY_TIER_PUT) {
		ty_tier_complete(a->tier, io, TY_TIER_FAILED, "the store is down: %.90s", a->down_because);
		return;
	}
	if (!io->key_count && io->verb != TY_TIER_LIST) {
		ty_tier_complete(a->tier, io, TY_TIER_DONE, NULL);
		return;
	}
	if (io->verb == TY_TIER_PUT && ty_tier_pack(a->tier, io))
		return;
	if (io->verb == TY_TIER_DELETE)
		ty_tier_pack_none(a->tier, io->keys);
	op = new_op(a, io, io->key_count ? io->keys : &(struct ty_key){{0}}, io->deadline);
	if (!op)
		ty_tier_complete(a->tier, io, TY_TIER_FAILED, "no memory");
	else if ((io->verb == TY_TIER_PUT || io->verb == TY_TIER_DELETE) && !ty_turn_take(&a->turns, &op->turn, &op->key))
		; /* requests have connections of their own, and the later one may be there first: it waits */
	else if (!begin(op, io))
		s3_op_end(op, TY_TIER_FAILED, "no memory");
	else if (op->list && op->list->wrong_cursor)
		s3_op_end(op, TY_TIER_FAILED, "the cursor is none of its own");
	if (a->look_at == TY_NEVER)
		a->look_at = ty_now() + LOOK_NS;
	/* the poll that follows sends what was queued */
}

static void on_io(void *self, struct ty_msg *msg)
{
	carry_out(self, ty_container_of(msg, struct ty_tier_io, msg));
}

static void on_packed(void *self, struct ty_msg *msg)
{
	struct s3_actor *a = self;
	struct ty_tier_io *io = ty_tier_packed(a->tier, msg);

	if (io)
		carry_out(a, io);
}

/* Before its requests are over. An unpacker writes to its places: it looks by itself, and is soon done. */
static void give_up(struct s3_op *op, enum ty_tier_outcome outcome)
{
	if (op->unpacking)
		return;
	if (op->io && op->upload)
		s3_upload_abandon(op, outcome);
	else
		s3_op_end(op, outcome, NULL);
}

static void on_stop(void *self, struct ty_msg *msg)
{
	struct s3_actor *a = self;

	(void)msg;
	a->stopping = true;
	for (struct s3_op *op = a->ops, *next; op; op = next) { /* no errand begins any more */
		next = op->next;
		give_up(op, TY_TIER_STOPPED);
	}
}

static void on_start(void *self, struct ty_msg *msg)
{
	struct s3_actor *a = self;

	(void)msg;
	/* Whether the store is there is seen request by request: one that comes back serves at once.
	 * release: pairs with ty_tier_submit's acquire */
	atomic_store_explicit(&a->tier->stats.state, TY_TIER_SERVING, memory_order_release);
}

/* ---- addresses -------------------------------------------------------------------------------------------------------------------- */

static void look_up(struct s3_actor *a, int64_t now, int64_t age)
{
	struct s3_lookup *l = &a->s3->lookup;

	if (!a->s3->names || a->looking_up || a->stopping || now - a->names_at < age)
		return;
	a->names_at = now;
	l->home = ty_self();
	l->where = &a->s3->where;
	a->looking_up = ty_send(a->s3->names, &l->msg, S3_LOOK_UP) == TY_OK;
}

void s3_addresses_wanted(struct s3_actor *a)
{
	look_up(a, ty_now(), NAMES_AGAIN_NS);
}

static void on_names(void *self, struct ty_msg *msg)
{
	struct s3_actor *a = self;
	struct s3_lookup *l = ty_container_of(msg, struct s3_lookup, msg);

	a->looking_up = false;
	if (l->found)
		memcpy(a->s3->addresses, l->text, sizeof l->text);
}

/* ---- the loop --------------------------------------------------------------------------------------------------------------------- */

/* Its time is over. Whether a probe was answered counts, however it ends. */
static void end_late(struct s3_op *op)
{
	if (!op->io && op->requests && op->requests->kind == S3_PROBE)
		s3_request_over(op->requests, CURLE_OPERATION_TIMEDOUT);
	else if (!op->io && op->requests && op->requests->kind == S3_DELETE)
		s3_request_end(op->requests, S3_BROKEN);
	else
		give_up(op, TY_TIER_LATE);
}

static void probe(struct s3_actor *a, int64_t now)
{
	struct s3_op *errand = new_op(a, NULL, &(struct ty_key){{0}}, now + 2 * a->s3->stall);

	if (errand && s3_request_new(errand, S3_PROBE, 0))
		return;
	(void)ty_breaker_bad(&a->breaker, true, now);
	if (errand)
		s3_op_end(errand, TY_TIER_FAILED, NULL);
}

/* Deadlines, stalls, the store that was down, addresses that are old. */
static void look(struct s3_actor *a, int64_t now)
{
	for (struct s3_op *op = a->ops, *next; op; op = next) {
		next = op->next; /* errands that begin here come before it */
		/* acquire: pairs with its home's release */
		if (now >= op->deadline || (op->io && atomic_load_explicit(&op->io->cancelled, memory_order_acquire)))
			end_late(op);
	}
	s3_requests_check(a, now);
	if (!a->stopping && ty_breaker_probe(&a->breaker, now))
		probe(a, now);
	if (a->ops)
		look_up(a, now, NAMES_NS);
	a->look_at = a->ops || (a->breaker.open && !a->stopping) ? now + LOOK_NS : TY_NEVER;
}

static int64_t poll_store(void *self, int64_t now)
{
	struct s3_actor *a = self;
	bool more = s3_transfers_run(a, now);
	int64_t next, at;

	if (now >= a->look_at)
		look(a, now);
	next = s3_requests_run(a, now);
	at = a->curl_at < a->look_at ? a->curl_at : a->look_at;
	return more ? now : next < at ? next : at;
}

static void wake(void *self)
{
	struct s3_actor *a = self;

	ty_waiter_wake(&a->s3->waiter);
}

static void wait_for_events(void *self, int64_t deadline)
{
	struct s3_actor *a = self;
	int64_t left = deadline == TY_NEVER ? -1 : deadline - ty_now();

	if (deadline == TY_NEVER || left > 0)
		ty_waiter_wait(&a->s3->waiter, left);
}

static enum ty_code start(void *self, void *arg)
{
	struct s3_actor *a = self;

	a->tier = arg;
	a->s3 = a->tier->state;
	a->look_at = TY_NEVER;
	a->names_at = ty_now();
	a->random = a->s3->random;
	a->breaker = (struct ty_breaker){.limit = S3_BREAKER_LIMIT, .pause_min = S3_BREAKER_MIN_NS, .pause_max = S3_BREAKER_MAX_NS};
	a->limit[S3_UP] = (a->s3->connections + 1) / 2;
	a->limit[S3_DOWN] = (a->s3->connections + 1) / 2;
	for (int lane = 0; lane < S3_LANES; lane++)
		a->queue_end[lane] = &a->queue[lane];
	if (s3_transfers_open(a))
		return TY_OK;
	ty_log(TY_LOG_ERROR, "tier", "s3: libcurl cannot be used");
	return TY_IO;
}

static void stop(void *self)
{
	struct s3_actor *a = self;

	while (a->ops) /* errands; no io is out */
		s3_op_end(a->ops, TY_TIER_STOPPED, NULL);
	if (a->s3)
		s3_transfers_close(a);
}

static const struct ty_handler handlers[] = {
	[TY_TIER_START - TY_TIER_START] = {"start", on_start},
	[TY_TIER_IO - TY_TIER_START] = {"io", on_io},
	[TY_TIER_STOP - TY_TIER_START] = {"stop", on_stop},
	[TY_TIER_PACKED - TY_TIER_START] = {"packed", on_packed},
	[TY_TIER_UNPACKED - TY_TIER_START] = {"unpacked", on_unpacked},
	[S3_NAMES - TY_TIER_START] = {"names", on_names},
};

static const struct ty_class s3_class = {
	.name = "s3",
	.state_size = sizeof(struct s3_actor),
	.first_type = TY_TIER_START,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.stop = stop,
	.poll = poll_store,
	.wait = {wait_for_events, wake},
};

const struct ty_tier_class ty_s3_tier = {
	.kind = "s3",
	.open = s3_open,
	.close = s3_close,
	.actor = &s3_class,
	.executor = TY_DEDICATED,
	.spawn = s3_spawn_names,
	.release = s3_release_names,
};
