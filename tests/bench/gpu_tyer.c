/* SPDX-License-Identifier: Apache-2.0
 *
 * The way to Tyer.
 */
#include "gpu_load.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READING_SESSION ((uint64_t)1 << 40) /* none that is counted up to */
#define DONE_WORD 5
#define READY_WORD 6
#define TIMEOUT_US 30000000u
#define POLL_US 100000u
#define BUSY_US 200 /* before a BUSY request is sent again */

static void must(struct load_engine *e, const char *what, enum ty_code code, const struct ty_error *err)
{
	if (code != TY_OK)
		load_failed(e, "%s: %s: %.180s", what, ty_code_name(code), err->text);
}

static void tyer_open(struct load_engine *e, const uint8_t id[16])
{
	struct ty_client_options o = {.size = sizeof o, .url = options.connect, .attach_path = id ? options.attach : NULL,
		.name = "gpu_load", .model = "gpu_load", .dtype = "bf16", .max_requests = 32, .timeout_us = TIMEOUT_US, .connect_timeout_us = TIMEOUT_US};
	struct ty_error err = {0};

	if (id)
		memcpy(o.engine, id, sizeof o.engine);
	must(e, "the service", ty_client_open(&o, (struct ty_client **)&e->service, &err), &err);
}

/* ---- one request at a time -------------------------------------------------------------------- */

struct call {
	struct load_engine *e;
	const char *verb;
	bool done, busy;
	uint32_t value;
	uint64_t bytes;
	bool store;
};

static void on_reply(void *user, const struct ty_result *result)
{
	struct call *call = user;

	call->done = true;
	call->busy = result->code == TY_BUSY;
	if (result->code != TY_OK && !call->busy)
		load_failed(call->e, "%s: %s: %.180s", call->verb, ty_code_name(result->code), result->error);
	if (!strcmp(call->verb, "REGISTER"))
		call->value = result->registered.registration;
	else if (!strcmp(call->verb, "LOOKUP"))
		call->value = result->lookup.hits;
}

static void finish(struct call *call)
{
	while (!call->done)
		ty_client_poll(call->e->service, 0, POLL_US);
}

static void tyer_join(struct load_engine *e)
{
	struct ty_plane *planes = calloc(e->planes, sizeof *planes);
	const struct ty_client_info *info = ty_client_info(e->service);
	struct ty_group group = {.block_tokens = info->chunk_tokens / e->blocks_per_chunk, .block_count = e->block_count,
		.block_stride = e->block_stride, .run_bytes = e->run_bytes, .plane_count = e->planes, .planes = planes};
	struct ty_pool pool = {.region_count = 1, .group_count = 1, .regions = &e->region, .groups = &group, .part = e->part,
		.parts = e->parts};
	struct call call = {.e = e, .verb = "REGISTER"};
	struct ty_error err = {0};

	if (!planes)
		load_failed(e, "no memory");
	for (uint32_t p = 0; p < e->planes; p++)
		planes[p].offset = p * e->plane_stride;
	ty_cuda_client_uuid(e->gpu, pool.device);
	must(e, "REGISTER", ty_client_register(e->service, &pool, on_reply, &call, &err), &err);
	finish(&call);
	free(planes);
	e->registration = call.value;
}

static void tyer_close(struct load_engine *e)
{
	ty_client_close(e->service);
}

void load_tyer_lookup(struct load_engine *e, uint64_t session, uint64_t generation, uint32_t *hits)
{
	uint8_t *keys = malloc((size_t)e->chunks * TY_KEY_BYTES);
	struct ty_chain chain = {.hashes = keys, .chunk_count = e->chunks};
	struct call call = {.e = e, .verb = "LOOKUP"};
	struct ty_error err = {0};

	if (!keys)
		load_failed(e, "no memory");
	for (uint32_t c = 0; c < e->chunks; c++)
		load_key(generation, c, keys + (size_t)c * TY_KEY_BYTES);
	do {
		call.done = false;
		must(e, "LOOKUP", ty_client_lookup(e->service, session, &chain, on_reply, &call, &err), &err);
		finish(&call);
	} while (call.busy);
	free(keys);
	*hits = call.value;
}

void load_tyer_end(struct load_engine *e, uint64_t session)
{
	struct call call = {.e = e, .verb = "END_SESSION"};
	struct ty_error err = {0};

	do {
		call.done = false;
		must(e, "END_SESSION", ty_client_end_session(e->service, session, on_reply, &call, &err), &err);
		finish(&call);
	} while (call.busy);
}

/* ---- many at once ------------------------------------------------------------------------------- */

struct op {
	struct move *move;
	uint32_t first, count;
	bool out, again;
};

struct move {
	struct load_engine *e;
	bool store;
	uint32_t open;
	struct op ops[LOAD_DEPTH];
};

static void on_op(void *user, const struct ty_result *result)
{
	struct op *op = user;
	struct move *m = op->move;
	uint64_t chunks = op->count;

	m->open--;
	if (result->code == TY_BUSY) {
		op->again = true;
		return;
	}
	op->out = false;
	if (result->code == TY_NO_SPACE)
		return;
	if (result->code != TY_OK)
		load_failed(m->e, "%s: %s: %.180s", m->store ? "STORE" : "RETRIEVE", ty_code_name(result->code), result->error);
	if (m->store)
		chunks = result->store.stored;
	atomic_fetch_add_explicit(&m->e->line->bytes[!m->store], chunks * m->e->chunk_bytes, memory_order_relaxed);
}

static struct ty_transfer transfer_of(struct load_engine *e, uint64_t session, uint32_t first, uint32_t count, uint32_t shift,
	const uint32_t **blocks, uint32_t *ids)
{
	*blocks = load_blocks(e, first, shift);
	*ids = count * e->blocks_per_chunk;
	return (struct ty_transfer){.session = session, .registration = e->registration, .first = first, .count = count,
		.blocks = blocks, .block_counts = ids, .group_count = 1};
}

static void send_op(struct move *m, struct op *op, uint64_t session, uint32_t shift)
{
	const uint32_t *blocks;
	uint32_t ids;
	struct ty_transfer t = transfer_of(m->e, session, op->first, op->count, shift, &blocks, &ids);
	struct ty_error err = {0};

	op->again = false;
	m->open++;
	must(m->e, m->store ? "STORE" : "RETRIEVE",
		m->store ? ty_client_store(m->e->service, &t, on_op, op, &err) : ty_client_retrieve(m->e->service, &t, on_op, op, &err),
		&err);
}

void load_tyer_move(struct load_engine *e, uint64_t session, bool store, uint32_t shift)
{
	struct move m = {.e = e, .store = store};
	uint32_t next = 0;
	bool more;

	do {
		bool again = false;

		for (uint32_t i = 0; i < LOAD_DEPTH; i++) {
			struct op *op = &m.ops[i];

			if (!op->out && next < e->chunks) {
				uint32_t left = e->chunks - next;

				*op = (struct op){.move = &m, .first = next, .count = left < LOAD_OP_CHUNKS ? left : LOAD_OP_CHUNKS,
					.out = true};
				next += op->count;
				send_op(&m, op, session, shift);
			} else if (op->again) {
				send_op(&m, op, session, shift);
			}
		}
		if (m.open)
			ty_client_poll(e->service, 0, POLL_US);
		for (uint32_t i = 0; i < LOAD_DEPTH; i++)
			again |= m.ops[i].again;
		if (again)
			usleep(BUSY_US);
		more = m.open || again || next < e->chunks;
	} while (more);
}

static void tyer_store(struct load_engine *e, uint64_t generation, uint32_t shift)
{
	uint64_t session = ++e->session;
	uint32_t hits;

	load_tyer_lookup(e, session, generation, &hits);
	load_tyer_move(e, session, true, shift);
	load_tyer_end(e, session);
}

/* In one session that stays open: what it has found is leased until it looks again, as a prompt is that an engine works on.
 * Else stores at 100 GB/s would push it out of any arena between two rounds, and storing it anew is what would be measured. */
static uint32_t tyer_retrieve(struct load_engine *e, uint64_t generation, uint32_t shift)
{
	uint32_t hits;

	load_tyer_lookup(e, READING_SESSION, generation, &hits);
	if (hits == e->chunks)
		load_tyer_move(e, READING_SESSION, false, shift);
	return hits;
}

/* ---- single ones --------------------------------------------------------------------------------- */

static double tyer_latency(struct load_engine *e, uint64_t generation, uint32_t shift)
{
	static uint64_t value;
	struct ty_mark done = {DONE_WORD, ++value};
	uint64_t session = ++e->session;
	struct call call = {.e = e, .verb = "RETRIEVE"};
	const uint32_t *blocks;
	struct ty_transfer t;
	struct ty_error err = {0};
	uint32_t hits, ids;
	int64_t began;

	load_tyer_lookup(e, session, generation, &hits);
	if (!hits)
		load_failed(e, "the chunk is gone");
	t = transfer_of(e, session, 0, 1, shift, &blocks, &ids);
	t.done = done;
	began = load_now();
	must(e, "RETRIEVE", ty_client_retrieve(e->service, &t, on_reply, &call, &err), &err);
	while (!ty_client_reached(e->service, done))
		if (load_now() - began > (int64_t)TIMEOUT_US * 1000)
			load_failed(e, "a RETRIEVE's done word never came");
	began = load_now() - began;
	finish(&call);
	load_tyer_end(e, session);
	return (double)began / 1e9;
}

void load_tyer_store_unready(struct load_engine *e, uint64_t generation)
{
	static struct call call;
	uint64_t session = ++e->session;
	const uint32_t *blocks;
	struct ty_transfer t;
	struct ty_error err = {0};
	uint32_t hits, ids;

	load_tyer_lookup(e, session, generation, &hits);
	t = transfer_of(e, session, 0, e->chunks, 0, &blocks, &ids);
	t.ready = (struct ty_mark){READY_WORD, 1};
	call = (struct call){.e = e, .verb = "STORE"};
	must(e, "STORE", ty_client_store(e->service, &t, on_reply, &call, &err), &err);
}

static void tyer_ping(struct load_engine *e)
{
	struct call call = {.e = e, .verb = "PING"};
	struct ty_error err = {0};

	must(e, "PING", ty_client_ping(e->service, on_reply, &call, &err), &err);
	finish(&call);
}

const struct load_way load_tyer = {
	.open = tyer_open,
	.join = tyer_join,
	.close = tyer_close,
	.store = tyer_store,
	.retrieve = tyer_retrieve,
	.latency = tyer_latency,
	.ping = tyer_ping,
};
