/* SPDX-License-Identifier: Apache-2.0 */
#include "fault.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cache/checksum.h"

struct fault fault[FAULTS];

enum { FAULT_LET = TY_TIER_OWN, FAULT_DUE };

static struct ty_msg let[FAULTS];
static _Atomic bool let_out[FAULTS]; /* it is on its way: one message a tier. Test: acquire; actor: release */

struct stored {
	struct stored *next;
	struct ty_key key;
	struct ty_envelope shape;
	uint8_t bytes[]; /* header and parts, as in a file */
};

struct pending {
	struct pending *next;
	struct ty_tier_io *io;
	int64_t due;
};

#define BUCKETS 4096

struct state { /* the tier's: outlives its actor */
	struct stored *stored[BUCKETS];
	uint64_t count, bytes;
};

struct actor {
	struct ty_tier *tier;
	struct fault *fault;
	struct state *state;
	struct pending *pending;
	struct ty_timer timer;
	uint64_t operations, random;
	bool stopping;
};

static struct stored **find(struct state *s, const struct ty_key *key)
{
	uint32_t hash;

	memcpy(&hash, key->bytes, sizeof hash);
	struct stored **link = &s->stored[hash % BUCKETS];

	while (*link && memcmp(&(*link)->key, key, sizeof *key) != 0)
		link = &(*link)->next;
	return link;
}

static void forget(struct state *s, struct stored **link)
{
	struct stored *gone = *link;

	*link = gone->next;
	s->count--;
	s->bytes -= ty_envelope_total(&gone->shape);
	free(gone);
}

/* Whoever else writes to the store under this key: a chunk that is whole, and of another shape. */
static void change_shape(struct ty_envelope *e, const struct ty_tier_io *io, uint32_t odd)
{
	if (odd == 1)
		for (uint32_t i = 0; i < e->parts; i++) {
			e->length[i] = 64;
			e->checksum[i] = ty_checksum(ty_tier_bytes(io, i), 64);
		}
	if (odd == 2)
		e->parts = 1;
}

static void put(struct actor *a, struct ty_tier_io *io)
{
	struct stored **link = find(a->state, io->keys), *s;
	struct ty_envelope e = {.parts = 0};

	ty_tier_describe(io, &e);
	change_shape(&e, io, atomic_load_explicit(&a->fault->odd_shape, memory_order_relaxed));
	if (*link)
		forget(a->state, link);
	s = malloc(sizeof *s + ty_envelope_total(&e));
	assert(s);
	s->next = NULL;
	s->key = *io->keys;
	s->shape = e;
	ty_envelope_write(&e, s->bytes);
	for (uint32_t i = 0; i < e.parts; i++)
		memcpy(s->bytes + ty_envelope_offset(&e, i), ty_tier_bytes(io, i), ty_envelope_padded(ty_envelope_stored(&e, i)));
	link = find(a->state, io->keys);
	*link = s;
	a->state->count++;
	a->state->bytes += ty_envelope_total(&e);
	ty_tier_complete(a->tier, io, TY_TIER_DONE, NULL);
}

static void get(struct actor *a, struct ty_tier_io *io, bool wrong)
{
	struct stored **link = find(a->state, io->keys), *s = *link;
	struct ty_tier_stored there = {.data = {NULL}};
	enum ty_tier_outcome outcome;
	struct ty_error err = {.text = ""};
	struct ty_packer packer = {0};

	if (!s || s->shape.parts != io->parts) {
		ty_tier_complete(a->tier, io, TY_TIER_MISSING, NULL);
		return;
	}
	io->read = TY_ENVELOPE_BYTES;
	for (uint32_t i = 0; i < io->parts; i++)
		io->read += io->part[i].data ? ty_envelope_padded(ty_envelope_stored(&s->shape, i)) : 0;
	if (wrong)
		s->bytes[TY_ENVELOPE_BYTES + a->operations % ty_envelope_stored(&s->shape, 0)] ^= 0x10;
	for (uint32_t i = 0; i < io->parts; i++) {
		uint8_t *from = s->bytes + ty_envelope_offset(&s->shape, i);

		there.bytes[i] = s->shape.packed[i].stored;
		if (there.bytes[i])
			there.data[i] = from;
		else if (io->part[i].data)
			memcpy(io->part[i].data, from, ty_envelope_padded(s->shape.length[i]));
	}
	outcome = ty_tier_check(a->tier, io, s->bytes, &there, &packer, &err);
	ty_packer_clear(&packer);
	if (outcome == TY_TIER_CORRUPT) {
		ty_tier_gone(a->tier, &s->key, TYER__V1__EVENT__KIND__WRONG);
		forget(a->state, link);
	}
	ty_tier_complete(a->tier, io, outcome, "%s", err.text);
}

static void exists(struct actor *a, struct ty_tier_io *io)
{
	struct stored *s;

	while (io->found < io->key_count && (s = *find(a->state, &io->keys[io->found]))) {
		if (io->found++ == 0) {
			ty_tier_tell_whose(io, &s->shape.identity);
			io->takes = ty_envelope_total(&s->shape);
			io->parts = s->shape.parts;
			for (uint32_t i = 0; i < s->shape.parts; i++)
				io->part[i].length = s->shape.length[i];
		}
	}
	ty_tier_complete(a->tier, io, TY_TIER_DONE, NULL);
}

/* A page is of whole buckets. */
static void list(struct actor *a, struct ty_tier_io *io)
{
	struct ty_tier_page *page = io->page;
	bool all = true;

	uint32_t at = 0;

	memcpy(&at, page->cursor.bytes, page->cursor.length ? sizeof at : 0);
	for (; at < BUCKETS && page->count < page->wanted; at++)
		for (const struct stored *s = a->state->stored[at]; s; s = s->next)
			/* as one that has to read headers for it */
			all &= ty_tier_page_add(page, &(struct ty_tier_item){s->key, page->shapes ? &s->shape.identity : NULL,
				ty_envelope_total(&s->shape), page->shapes ? s->shape.parts : 0});
	assert(all);
	page->cursor.length = at < BUCKETS ? sizeof at : 0;
	memcpy(page->cursor.bytes, &at, sizeof at);
	ty_tier_complete(a->tier, io, TY_TIER_DONE, NULL);
}

static bool every(uint64_t n, uint32_t which)
{
	return which && n % which == 0;
}

static void carry_out(struct actor *a, struct ty_tier_io *io)
{
	struct fault *f = a->fault;
	uint64_t n = ++a->operations;
	struct stored **link;

	if (atomic_load_explicit(&f->fail, memory_order_relaxed) ||
		every(n, atomic_load_explicit(&f->fail_every, memory_order_relaxed)) ||
		(io->verb == TY_TIER_EXISTS && io->keys->bytes[0] < atomic_load_explicit(&f->silent_below, memory_order_relaxed))) {
		ty_tier_complete(a->tier, io, TY_TIER_FAILED, "as told");
		return;
	}
	switch (io->verb) {
	case TY_TIER_PUT:
		if (ty_tier_pack(a->tier, io))
			return;
		atomic_fetch_add_explicit(&f->puts, 1, memory_order_relaxed);
		if (atomic_load_explicit(&f->full, memory_order_relaxed))
			ty_tier_complete(a->tier, io, TY_TIER_FULL, "as told");
		else
			put(a, io);
		break;
	case TY_TIER_GET:
		atomic_fetch_add_explicit(&f->gets, 1, memory_order_relaxed);
		get(a, io, every(n, atomic_load_explicit(&f->wrong_every, memory_order_relaxed)));
		break;
	case TY_TIER_EXISTS:
		exists(a, io);
		break;
	case TY_TIER_DELETE:
		link = find(a->state, io->keys);
		if (*link)
			forget(a->state, link);
		ty_tier_complete(a->tier, io, TY_TIER_DONE, NULL);
		break;
	case TY_TIER_LIST:
		list(a, io);
		break;
	}
}

/* Those whose time has come; the others when it comes, unless all hangs. */
static void look(struct actor *a)
{
	struct pending **link = &a->pending;
	int64_t now = ty_now(), next = TY_NEVER;

	if (atomic_load_explicit(&a->fault->hang, memory_order_relaxed) && !a->stopping)
		return;
	while (*link) {
		struct pending *p = *link;

		if (a->stopping || p->due <= now) {
			*link = p->next;
			if (a->stopping)
				ty_tier_complete(a->tier, p->io, TY_TIER_STOPPED, NULL);
			else
				carry_out(a, p->io);
			free(p);
		} else {
			next = p->due < next ? p->due : next;
			link = &p->next;
		}
	}
	atomic_store_explicit(&a->tier->stats.chunks, a->state->count, memory_order_relaxed);
	atomic_store_explicit(&a->tier->stats.used_bytes, a->state->bytes, memory_order_relaxed);
	ty_timer_start(&a->timer, FAULT_DUE, next);
}

static void on_start(void *self, struct ty_msg *msg)
{
	struct actor *a = self;

	(void)msg;
	atomic_store_explicit(&a->tier->stats.state, TY_TIER_SERVING, memory_order_release);
}

static void on_io(void *self, struct ty_msg *msg)
{
	struct actor *a = self;
	struct pending *p = calloc(1, sizeof *p);
	int64_t delay = atomic_load_explicit(&a->fault->delay_ns, memory_order_relaxed);

	a->random = a->random * 6364136223846793005u + 1442695040888963407u;
	p->io = ty_container_of(msg, struct ty_tier_io, msg);
	p->due = ty_now() + (delay ? (int64_t)(a->random >> 16) % delay : 0);
	p->next = a->pending;
	a->pending = p;
	look(a);
}

static void on_packed(void *self, struct ty_msg *msg)
{
	struct actor *a = self;
	struct ty_tier_io *io = ty_tier_packed(a->tier, msg);

	if (io && a->stopping)
		ty_tier_complete(a->tier, io, TY_TIER_STOPPED, NULL);
	else if (io)
		carry_out(a, io);
	look(a);
}

static void on_stop(void *self, struct ty_msg *msg)
{
	struct actor *a = self;

	(void)msg;
	a->stopping = true;
	look(a);
}

static void on_look(void *self, struct ty_msg *msg)
{
	(void)msg;
	look(self);
}

static void on_let(void *self, struct ty_msg *msg)
{
	atomic_store_explicit(&let_out[msg - let], false, memory_order_release);
	look(self);
}

static enum ty_code start(void *self, void *arg)
{
	struct actor *a = self;

	a->tier = arg;
	a->state = a->tier->state;
	a->fault = &fault[a->tier->config.where[0] - '0'];
	return TY_OK;
}

static void stop(void *self)
{
	assert(!((struct actor *)self)->pending);
}

static const struct ty_handler handlers[] = {
	[TY_TIER_START - TY_TIER_START] = {"start", on_start},
	[TY_TIER_IO - TY_TIER_START] = {"io", on_io},
	[TY_TIER_STOP - TY_TIER_START] = {"stop", on_stop},
	[TY_TIER_PACKED - TY_TIER_START] = {"packed", on_packed},
	[FAULT_LET - TY_TIER_START] = {"let", on_let},
	[FAULT_DUE - TY_TIER_START] = {"due", on_look},
};

static const struct ty_class fault_class = {
	.name = "fault", .state_size = sizeof(struct actor), .first_type = TY_TIER_START,
	.type_count = sizeof handlers / sizeof handlers[0], .handlers = handlers, .start = start, .stop = stop,
};

void fault_let(struct ty_tier *tier)
{
	int i = tier->config.where[0] - '0';
	enum ty_code sent;

	if (atomic_exchange_explicit(&let_out[i], true, memory_order_acquire))
		return; /* that one will see what was told before */
	let[i] = (struct ty_msg)TY_MSG_INIT;
	sent = ty_send(tier->actor, &let[i], FAULT_LET);
	assert(sent == TY_OK);
}

static enum ty_code fault_open(struct ty_tier *tier, struct ty_error *err)
{
	(void)err;
	assert(tier->config.where[0] >= '0' && tier->config.where[0] < '0' + FAULTS);
	memset(&fault[tier->config.where[0] - '0'], 0, sizeof fault[0]);
	let_out[tier->config.where[0] - '0'] = false;
	tier->capabilities = TY_TIER_LISTS;
	tier->state = calloc(1, sizeof(struct state));
	return tier->state ? TY_OK : TY_NO_MEMORY;
}

static void fault_close(struct ty_tier *tier)
{
	struct state *s = tier->state;

	for (uint32_t i = 0; i < BUCKETS; i++)
		while (s->stored[i])
			forget(s, &s->stored[i]);
	free(s);
}

static const struct ty_tier_class fault_tier = {
	.kind = "fault", .open = fault_open, .close = fault_close, .actor = &fault_class, .executor = TY_POOL,
};

const struct ty_tier_class *const ty_tier_kinds[] = {&fault_tier, &ty_disk_tier, NULL};
