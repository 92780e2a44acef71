/* SPDX-License-Identifier: Apache-2.0
 *
 * Ops at their owner: an op waits in `waiting` for its ready word, then in its client's flow until its last copy is submitted; then
 * it flies, known only to its batches, until the last of them is done.
 *
 * A RETRIEVE with layers goes step by step: all blocks of the first step's planes, then the next one's (ty_device_part).
 */
#include "gpu_state.h"

#include <assert.h>

#include "base/log.h"

#define AHEAD_BYTES ((uint64_t)64 << 20) /* given to the device in a direction: a millisecond's work. What is there waits for nobody
                                            else's turn, so no more ... */
#define AHEAD_BATCHES 2        /* ... but for these, so that it never runs dry */
#define RETRIEVE_RUN 8         /* retrieve batches in a row while a store waits */
#define BATCH_COST ((uint64_t)512 << 10) /* what a batch takes beside its bytes, as bytes: 10 us of the link, the device's and the owner's */
#define EXPIRE_NS 10000000     /* how often ops that wait are looked at for cancel and deadline: 10 ms */

/* ---- small queues ------------------------------------------------------------------------------ */

static void ops_push(struct ops *q, struct ty_op *op)
{
	if (!q->head)
		q->tail = &q->head;
	op->next = NULL;
	op->queued = true;
	*q->tail = op;
	q->tail = &op->next;
	q->count++;
}

static void ops_unlink(struct ops *q, struct ty_op **link)
{
	struct ty_op *op = *link;

	*link = op->next;
	if (!op->next)
		q->tail = link;
	op->next = NULL;
	op->queued = false;
	q->count--;
}

/* ---- sharing among clients ----------------------------------------------------------------------- */

static void share_push(struct share *s, struct ty_op *op)
{
	struct flow *flow = &s->flows[op->client % TY_MAX_CLIENTS], **end = &s->active;

	if (!flow->ops.head) {
		while (*end)
			end = &(*end)->next;
		*end = flow;
		flow->next = NULL;
		/* Idle time is not saved up; what it has had in advance is not forgiven. (Both wrap together.) */
		if ((int64_t)(s->now - flow->due) > 0)
			flow->due = s->now;
	}
	ops_push(&flow->ops, op);
	s->count++;
}

/* After ops were taken out of *link: it is active no more if it has none. Returns the link of the next one. */
static struct flow **share_settle(struct flow **link)
{
	struct flow *flow = *link;

	if (flow->ops.head)
		return &flow->next;
	*link = flow->next;
	return link;
}

/* Whose turn it is; there is one. */
static struct flow **share_next(struct share *s)
{
	struct flow **best = &s->active;

	for (struct flow **link = &(*best)->next; *link; link = &(*link)->next)
		if ((int64_t)((*best)->due - (*link)->due) > 0)
			best = link;
	return best;
}

/* A batch of its first op went. */
static void share_charge(struct share *s, struct flow *flow, uint64_t bytes, uint32_t weight)
{
	s->now = flow->due;
	flow->due += (bytes + BATCH_COST) / TY_RUN_ALIGN * TY_WEIGHT_MAX / weight;
}

/* ---- ops ----------------------------------------------------------------------------------------- */

static enum ty_direction direction_of(const struct ty_op *op)
{
	return op->kind == TY_OP_STORE ? TY_TO_HOST : TY_TO_DEVICE;
}

static void note(struct gpu *g, enum ty_record_event event, const struct ty_op *op, uint32_t chunks, enum ty_code code)
{
	ty_record_note(g->record, event, op->kind == TY_OP_STORE, code, op->id, chunks);
}

/* Every copy that was submitted is over: the op goes on, whatever became of it. */
static void finish(struct gpu *g, struct ty_op *op)
{
	bool store = op->kind == TY_OP_STORE;

	assert(op->finished == op->submitted);
	atomic_store_explicit(&g->stats->longest_call_ns, atomic_load_explicit(&ty_device_stats(g->dev)->longest_call_ns, memory_order_relaxed),
		memory_order_relaxed);
	if (op->holds && !store && !op->holds(op))
		ty_op_fail(op, TY_CLOSED, "its slots may hold something else by now");
	if (op->code == TY_OK) {
		uint64_t bytes = op->copy_count * op->layout->chunk_bytes;

		gpu_count(store ? &g->stats->stored_bytes : &g->stats->retrieved_bytes, bytes);
		gpu_count(store ? &g->stats->stored_chunks : &g->stats->retrieved_chunks, op->copy_count);
	} else {
		gpu_count(&g->stats->failed_ops, 1);
	}
	ty_op_clear(op);
	ty_op_row_state(op->row, TY_OP_COMMITTING);
	note(g, TY_RECORD_END, op, op->copy_count, op->code);
	/* A failed store's blocks may be reused as well; a failed retrieve's hold nothing to announce. */
	if (store || op->code == TY_OK)
		ty_op_raise_done(op);
	enum ty_code sent = ty_send(op->copied, &op->msg, op->copied_type);

	assert(sent == TY_OK); /* all of them outlive the ops they sent out */
}

/* Should this op, none of whose copies is out, end here? Then its code says why. */
static bool expired(const struct gpu *g, struct ty_op *op, int64_t now)
{
	if (ty_op_cancelled(op))
		ty_op_fail(op, TY_CANCELLED, "cancelled before its copy began");
	else if (now >= op->deadline)
		ty_op_fail(op, g->stalled ? TY_DEVICE_STALLED : TY_TIMEOUT, "deadline passed before the copy began%s",
			ty_op_is_ready(op) ? "" : ": its ready word has not come");
	else if (g->failure.code != TY_OK)
		ty_op_fail(op, g->failure.code, "%s", g->failure.text);
	return op->code != TY_OK;
}

void gpu_look_at_ready_words(struct gpu *g)
{
	struct ty_op **link = &g->waiting.head;

	while (*link) {
		struct ty_op *op = *link;

		if (ty_op_is_ready(op)) {
			ops_unlink(&g->waiting, link);
			ty_op_row_state(op->row, TY_OP_QUEUED);
			share_push(&g->queue[direction_of(op)], op);
		} else {
			link = &op->next;
		}
	}
}

/* Returns how many ended. */
static uint32_t expire_ops(struct gpu *g, struct ops *q, int64_t now)
{
	struct ty_op **link = &q->head;
	uint32_t before = q->count;

	while (*link) {
		struct ty_op *op = *link;

		if (op->submitted == op->finished && expired(g, op, now)) {
			ops_unlink(q, link);
			finish(g, op);
		} else {
			link = &op->next;
		}
	}
	return before - q->count;
}

static void expire_share(struct gpu *g, struct share *s, int64_t now)
{
	struct flow **link = &s->active;

	while (*link) {
		s->count -= expire_ops(g, &(*link)->ops, now);
		link = share_settle(link);
	}
}

void gpu_expire(struct gpu *g, int64_t now)
{
	int64_t oldest = INT64_MAX;
	bool stalled;

	for (int i = 0; i < GPU_BATCHES; i++)
		if (g->batches[i].op && g->batches[i].submitted < oldest)
			oldest = g->batches[i].submitted;
	stalled = oldest != INT64_MAX && now - oldest > (int64_t)g->service->config->gpu_stall_after_us * 1000;
	atomic_store_explicit(&g->stats->oldest, oldest == INT64_MAX ? 0 : oldest, memory_order_relaxed);
	if (stalled != g->stalled && g->failure.code == TY_OK) {
		g->stalled = stalled;
		gpu_set_state(g, stalled ? TY_GPU_STALLED : TY_GPU_SERVING);
		ty_log(stalled ? TY_LOG_ERROR : TY_LOG_INFO, "gpu", "%s %s", g->stats->info.name,
			stalled ? "does not finish what it was given: stalled" : "goes on");
	}
	expire_ops(g, &g->waiting, now);
	expire_share(g, &g->queue[TY_TO_HOST], now);
	expire_share(g, &g->queue[TY_TO_DEVICE], now);
	g->expire_at = now + EXPIRE_NS;
}

/* ---- layers ---------------------------------------------------------------------------------------- */

/* Of a group: where its places begin. */
static uint32_t places_at(const struct ty_op *op, uint32_t group)
{
	return group ? op->places_end[group - 1] : 0;
}

/* What is to be copied, and how much of it for each step, and in all. */
static void count_steps(struct ty_op *op)
{
	const struct ty_layout *layout = op->layout;
	uint32_t at = 0;

	op->total = 0;
	for (uint32_t i = 0; i < layout->group_count; i++) {
		const struct ty_layout_group *g = &layout->groups[i];
		uint32_t before = 0;

		for (uint32_t c = 0; c < op->copy_count; c++)
			for (uint32_t b = 0; b < g->blocks_per_chunk; b++)
				if (op->copies[c].blocks[g->first_block + b] != TY_BLOCK_SKIP)
					op->places[at++] = (struct ty_op_place){c, b};
		op->places_end[i] = at;
		for (uint32_t s = 0; s < layout->step_count; s++) {
			uint32_t planes = layout->steps[s * layout->group_count + i];

			if (planes > before) {
				op->step_left[s] += at - places_at(op, i);
				op->total += at - places_at(op, i);
			}
			before = planes;
		}
	}
	op->at = (struct ty_op_cursor){0};
	op->steps_done = 0;
}

/* The cursor, to the next group. */
static void next_group(const struct ty_op *op, struct ty_op_cursor *at)
{
	if (++at->group == op->layout->group_count) {
		at->group = 0;
		at->step++;
	}
	at->place = places_at(op, at->group);
}

/* What comes next of a layered op, all of one part. `op->at` is where that begins, *after where it ends. */
static void fill_layered(struct gpu *g, struct ty_op *op, struct batch *b, struct ty_op_cursor *after)
{
	struct ty_op_cursor at = op->at;
	uint32_t count = 0;

	for (; at.step < op->layout->step_count && !count; next_group(op, &at)) {
		const struct ty_layout_group *group = &op->layout->groups[at.group];
		const struct ty_part *part = ty_device_part(op->mapping, at.step, at.group);
		uint32_t end = op->places_end[at.group], limit;

		if (!part->mapping || at.place == end)
			continue;
		limit = ty_device_batch_limit(g->dev, part->layout);
		b->base.mapping = part->mapping;
		b->step = at.step;
		for (; at.place < end && count < limit; at.place++) {
			const struct ty_op_place *place = &op->places[at.place];
			const struct ty_copy *copy = &op->copies[place->copy];

			b->blocks[count++] = (struct ty_copy){
				.host = copy->host + group->tile_offset +
					((uint64_t)place->block * group->plane_count + part->first_plane) * group->run_bytes,
				.blocks = &copy->blocks[group->first_block + place->block],
			};
		}
		if (at.place < end)
			break;
	}
	b->base.copies = b->blocks;
	b->base.count = count;
	*after = at;
}

static void step_done(struct ty_op *op, const struct batch *b)
{
	uint32_t before = op->steps_done;

	op->step_left[b->step] -= b->base.count;
	while (op->steps_done < op->layout->step_count && !op->step_left[op->steps_done])
		op->steps_done++;
	if (op->code == TY_OK && op->steps_done > before && (!op->holds || op->holds(op)))
		ty_op_raise_layers(op, op->steps_done);
}

/* ---- copies -------------------------------------------------------------------------------------- */

void gpu_take(struct gpu *g, struct ty_op *op)
{
	assert(op->copy_count > 0 && op->copy_count <= op->count && op->weight > 0);
	op->submitted = op->finished = op->freed = 0;
	op->total = op->copy_count;
	note(g, TY_RECORD_CAME, op, op->copy_count, TY_OK);
	if (op->layers.word)
		count_steps(op);
	if (ty_op_is_ready(op)) {
		ty_op_row_state(op->row, TY_OP_QUEUED);
		share_push(&g->queue[direction_of(op)], op);
	} else {
		ty_op_row_state(op->row, TY_OP_WAITING);
		g->waiting_since = ty_now();
		ops_push(&g->waiting, op);
	}
}

/* Before the first copy. False: the engine gave the op up between the last look and now. */
static bool begin(struct ty_op *op)
{
	if (!ty_op_begin(op))
		ty_op_fail(op, TY_CANCELLED, "cancelled before its copy began");
	else
		ty_op_row_state(op->row, TY_OP_COPYING);
	return op->code == TY_OK;
}

/* The first op of the flow has no more to submit. */
static void leave_queue(struct share *s, struct flow **link)
{
	ops_unlink(&(*link)->ops, &(*link)->ops.head);
	s->count--;
	share_settle(link);
}

/* The next piece of the op whose turn it is. False: the device takes no more in this direction now. */
static bool submit_one(struct gpu *g, enum ty_direction dir, int64_t now)
{
	struct share *s = &g->queue[dir];
	struct flow **link = share_next(s);
	struct ty_op *op = (*link)->ops.head;
	struct batch *b = g->free_batches;
	struct ty_op_cursor after = op->at;

	if (!b || (s->out_bytes >= AHEAD_BYTES && s->out >= AHEAD_BATCHES))
		return false;
	/* A new op may have died while it waited; one that has begun is stopped at its next piece. */
	if (expired(g, op, now) || (!op->submitted && !begin(op))) {
		leave_queue(s, link);
		if (op->submitted == op->finished)
			finish(g, op);
		else
			g->flying++;
		return true;
	}

	b->base = (struct ty_batch){.mapping = op->mapping, .direction = dir, .copies = op->copies + op->submitted};
	if (op->layers.word) {
		fill_layered(g, op, b, &after);
	} else {
		uint32_t limit = ty_device_batch_limit(g->dev, op->layout), left = op->total - op->submitted;

		b->base.count = left < limit ? left : limit;
	}
	enum ty_code code = ty_device_submit(g->dev, &b->base);

	if (code == TY_BUSY)
		return false;
	if (code != TY_OK) {
		ty_op_fail(op, code, "the device refused a copy");
		return true; /* and ends at the next look, as expired */
	}
	g->free_batches = b->next;
	g->submitted = now;
	b->op = op;
	b->free_seen = false;
	b->submitted = now;
	g->in_flight++;
	op->at = after;
	note(g, TY_RECORD_SUBMIT, op, b->base.count, TY_OK);
	op->submitted += b->base.count;
	b->bytes = op->copy_count * op->layout->chunk_bytes / op->total * b->base.count;
	s->out++;
	s->out_bytes += b->bytes;
	share_charge(s, *link, b->bytes, op->weight);
	if (op->submitted == op->total) {
		leave_queue(s, link);
		g->flying++;
	}
	return true;
}

/* Retrieves first, but not for ever while a store waits. */
void gpu_submit(struct gpu *g, int64_t now)
{
	bool full[2] = {false, false};

	for (;;) {
		bool retrieve = g->queue[TY_TO_DEVICE].count && !full[TY_TO_DEVICE];
		bool store = g->queue[TY_TO_HOST].count && !full[TY_TO_HOST];

		if (!retrieve && !store)
			return;
		enum ty_direction dir = retrieve && (!store || g->retrieve_run < RETRIEVE_RUN) ? TY_TO_DEVICE : TY_TO_HOST;

		if (!submit_one(g, dir, now))
			full[dir] = true;
		else
			g->retrieve_run = dir == TY_TO_DEVICE ? g->retrieve_run + 1 : 0;
	}
}

static void batch_done(struct gpu *g, struct batch *b)
{
	struct ty_op *op = b->op;

	if (b->base.code != TY_OK)
		ty_op_fail(op, b->base.code, "the copy failed on the device");
	note(g, TY_RECORD_DONE, op, b->base.count, b->base.code);
	op->finished += b->base.count;
	if (op->layers.word)
		step_done(op, b);
	g->in_flight--;
	g->queue[b->base.direction].out--;
	g->queue[b->base.direction].out_bytes -= b->bytes;
	b->op = NULL;
	b->next = g->free_batches;
	g->free_batches = b;
	/* One that failed between two pieces is still queued, and ends there. */
	if (!op->queued && op->finished == op->submitted) {
		g->flying--;
		finish(g, op);
	}
}

/* A store's blocks may be reused as soon as all of them have been read, which can be before the copy is over. */
static void raise_early(struct gpu *g)
{
	for (int i = 0; i < GPU_BATCHES; i++) {
		struct batch *b = &g->batches[i];

		if (b->op && b->base.client_free && !b->free_seen && b->base.direction == TY_TO_HOST) {
			b->free_seen = true;
			b->op->freed += b->base.count;
			if (b->op->freed == b->op->total) {
				ty_op_clear(b->op);
				ty_op_raise_done(b->op);
			}
		}
	}
}

void gpu_poll_device(struct gpu *g)
{
	struct ty_batch *done[GPU_BATCHES];
	uint32_t n = ty_device_poll(g->dev, done, GPU_BATCHES);

	raise_early(g);
	for (uint32_t i = 0; i < n; i++)
		batch_done(g, ty_container_of(done[i], struct batch, base));
}

void gpu_copies_init(struct gpu *g)
{
	for (int i = 0; i < GPU_BATCHES; i++) {
		g->batches[i].next = g->free_batches;
		g->free_batches = &g->batches[i];
	}
}
