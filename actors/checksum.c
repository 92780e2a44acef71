/* SPDX-License-Identifier: Apache-2.0 */
#include "checksum.h"

#include <assert.h>

#include "service.h"
#include "cache/checksum.h"

#define SLICE_BYTES ((uint64_t)1 << 20) /* of one message: some 100 us */

struct checksum {
	struct ty_service *service;
	struct ty_op *ops, **tail; /* through ty_op.next; the first one is at work */
	uint32_t chunk, copy;      /* of it: the next chunk, the next copy, and */
	uint64_t done;             /* bytes of that copy that are summed up */
	struct ty_checksum sum;
	struct ty_msg go;
};

static void begin(struct checksum *c)
{
	c->chunk = c->copy = 0;
	c->done = 0;
}

/* A slice of the op's next copy. */
static void slice(struct checksum *c, struct ty_op *op)
{
	uint64_t left = op->layout->chunk_bytes - c->done, bytes = left < SLICE_BYTES ? left : SLICE_BYTES;
	int64_t began = ty_now();

	if (c->done == 0)
		ty_checksum_begin(&c->sum);
	ty_checksum_add(&c->sum, op->copies[c->copy].host + c->done, bytes);
	c->done += bytes;
	if (c->done == op->layout->chunk_bytes) {
		while (op->chunks[c->chunk].fate != TY_FATE_MOVE) /* the copies are its moving chunks', in order */
			c->chunk++;
		op->chunks[c->chunk++].checksum = ty_checksum_end(&c->sum);
		c->copy++;
		c->done = 0;
	}
	/* Relaxed: statistics. */
	atomic_fetch_add_explicit(&c->service->checksum_stats.bytes, bytes, memory_order_relaxed);
	atomic_fetch_add_explicit(&c->service->checksum_stats.ns, (uint64_t)(ty_now() - began), memory_order_relaxed);
}

static void pass_on(struct checksum *c)
{
	struct ty_op *op = c->ops;

	c->ops = op->next;
	if (!c->ops)
		c->tail = &c->ops;
	op->next = NULL;
	begin(c);
	enum ty_code sent = ty_send(c->service->eviction, &op->msg, TY_EVICTION_COMMIT);
	assert(sent == TY_OK); /* it outlives the ops it sent out */
}

static void work(struct checksum *c)
{
	struct ty_op *op = c->ops;

	if (c->copy < op->copy_count)
		slice(c, op);
	if (c->copy == op->copy_count)
		pass_on(c);
	if (c->ops) {
		enum ty_code sent = ty_send(ty_self(), &c->go, TY_CHECKSUM_GO);

		assert(sent == TY_OK); /* nobody stops it while an op is out */
	}
}

static void on_op(void *self, struct ty_msg *msg)
{
	struct checksum *c = self;
	struct ty_op *op = ty_container_of(msg, struct ty_op, msg);
	bool idle = !c->ops;

	op->next = NULL;
	*c->tail = op;
	c->tail = &op->next;
	if (idle)
		work(c);
}

static void on_go(void *self, struct ty_msg *msg)
{
	(void)msg;
	work(self);
}

static enum ty_code start(void *self, void *arg)
{
	struct checksum *c = self;

	c->service = arg;
	c->tail = &c->ops;
	return TY_OK;
}

static void stop(void *self)
{
	assert(!((struct checksum *)self)->ops); /* no engine is left, so no op */
}

static const struct ty_handler handlers[] = {
	{"op", on_op},
	{"go", on_go},
};

const struct ty_class ty_checksum_class = {
	.name = "checksum",
	.state_size = sizeof(struct checksum),
	.first_type = TY_CHECKSUM_OP,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.stop = stop,
};
