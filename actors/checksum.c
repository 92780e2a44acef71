/* SPDX-License-Identifier: Apache-2.0 */
#include "checksum.h"

#include <assert.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "service.h"
#include "cache/checksum.h"

#define SLICE_BYTES ((uint64_t)1 << 20) /* between two looks at whether the service stops: some 100 us */
#define NICENESS 5

struct checksum {
	struct ty_service *service;
};

/* False: the service stops, and nobody needs it any more. */
static bool sum_part(struct checksum *c, uint32_t slot, uint64_t *out)
{
	const uint8_t *data = ty_slots_address(c->service->slots, slot);
	uint64_t length = ty_slots_held(c->service->slots, slot)->length;
	struct ty_checksum sum;

	ty_checksum_begin(&sum);
	for (uint64_t at = 0; at < length; at += SLICE_BYTES) {
		/* acquire: pairs with main's release */
		if (atomic_load_explicit(&c->service->stopping, memory_order_acquire))
			return false;
		ty_checksum_add(&sum, data + at, length - at < SLICE_BYTES ? length - at : SLICE_BYTES);
	}
	*out = ty_checksum_end(&sum);
	return true;
}

static void on_sum(void *self, struct ty_msg *msg)
{
	struct checksum *c = self;
	struct ty_sum *sum = ty_container_of(msg, struct ty_sum, msg);
	int64_t began = ty_now();

	sum->made = true;
	for (uint32_t i = 0; i < sum->chunk->parts && sum->made; i++)
		sum->made = sum_part(c, sum->chunk->slots[i], &sum->parts[i]);
	if (sum->made) {
		atomic_fetch_add_explicit(&c->service->checksum_stats.bytes, sum->bytes, memory_order_relaxed);
		atomic_fetch_add_explicit(&c->service->checksum_stats.ns, (uint64_t)(ty_now() - began), memory_order_relaxed);
	}
	enum ty_code sent = ty_send(c->service->eviction, msg, TY_EVICTION_SUMMED);
	assert(sent == TY_OK); /* it outlives this actor */
}

static void refuse(void *self, struct ty_msg *msg)
{
	struct checksum *c = self;

	ty_container_of(msg, struct ty_sum, msg)->made = false;
	enum ty_code sent = ty_send(c->service->eviction, msg, TY_EVICTION_SUMMED);
	assert(sent == TY_OK);
}

static enum ty_code start(void *self, void *arg)
{
	struct checksum *c = self;

	c->service = arg;
	/* The thread's own, on Linux; without it the thread is merely less polite. */
	(void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICENESS);
	return TY_OK;
}

static const struct ty_handler handlers[] = {
	{"sum", on_sum},
};

const struct ty_class ty_checksum_class = {
	.name = "checksum",
	.state_size = sizeof(struct checksum),
	.first_type = TY_CHECKSUM_SUM,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.refuse = refuse,
};
