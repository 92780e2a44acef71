/* SPDX-License-Identifier: Apache-2.0 */
#include "bytework.h"

#include <assert.h>

#include "base/give_way.h"
#include "service.h"
#include "cache/checksum.h"
#include "cache/pack.h"

#define SLICE_BYTES ((uint64_t)1 << 20) /* between two looks at whether the service stops: some 100 us */

struct bytework {
	struct ty_service *service;
	struct ty_packer packer;
};

bool ty_bytework_send_to(struct ty_actor *const *threads, uint32_t count, struct ty_bytework *work, uint32_t *turn)
{
	return count && ty_send(threads[(*turn)++ % count], &work->msg, TY_BYTEWORK_RUN) == TY_OK;
}

bool ty_bytework_send(struct ty_service *service, struct ty_bytework *work, uint32_t *turn)
{
	return ty_bytework_send_to(service->bytework, service->bytework_count, work, turn);
}

bool ty_bytework_sum(struct ty_service *service, const uint8_t *data, uint64_t length, uint64_t *out)
{
	struct ty_checksum sum;

	ty_checksum_begin(&sum);
	for (uint64_t at = 0; at < length; at += SLICE_BYTES) {
		/* acquire: pairs with main's release */
		if (atomic_load_explicit(&service->stopping, memory_order_acquire))
			return false;
		ty_checksum_add(&sum, data + at, length - at < SLICE_BYTES ? length - at : SLICE_BYTES);
	}
	*out = ty_checksum_end(&sum);
	return true;
}

static void send_home(struct ty_bytework *work, bool ran)
{
	work->ran = ran;
	enum ty_code sent = ty_send(work->home, &work->msg, work->home_type);
	assert(sent == TY_OK); /* whoever sends work stays until it is back */
	(void)sent;
}

static void on_run(void *self, struct ty_msg *msg)
{
	struct bytework *b = self;
	struct ty_bytework *work = ty_container_of(msg, struct ty_bytework, msg);

	work->packer = &b->packer;
	work->run(b->service, work);
	send_home(work, true);
}

static void refuse(void *self, struct ty_msg *msg)
{
	(void)self;
	send_home(ty_container_of(msg, struct ty_bytework, msg), false);
}

static enum ty_code start(void *self, void *arg)
{
	struct bytework *b = self;

	b->service = arg;
	ty_give_way();
	return TY_OK;
}

static void stop(void *self)
{
	ty_packer_clear(&((struct bytework *)self)->packer);
}

static const struct ty_handler handlers[] = {
	{"run", on_run},
};

const struct ty_class ty_bytework_class = {
	.name = "bytework",
	.state_size = sizeof(struct bytework),
	.first_type = TY_BYTEWORK_RUN,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.stop = stop,
	.refuse = refuse,
};
