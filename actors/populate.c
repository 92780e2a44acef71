/* SPDX-License-Identifier: Apache-2.0 */
#include "populate.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "service.h"

/* The kernel holds the address space's lock while it maps a slice, also when the scheduler takes this thread off its CPU in
 * the middle: a slice is how long others that need the lock (an allocator that grows, a driver that maps memory) wait. */
#define SLICE_BYTES ((uint64_t)1 << 20)
#define NICENESS 5 /* filling pages for later gives way to whoever has work now */

struct populate {
	struct ty_service *service;
};

static enum ty_code start(void *self, void *arg)
{
	struct populate *p = self;

	p->service = arg;
	/* On Linux this is the thread's own. Raising it is always allowed; if not, the thread is merely less polite. */
	(void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICENESS);
	return TY_OK;
}

static void pass_on(struct populate *p, struct ty_piece *piece)
{
	if (piece->code == TY_OK) {
		if (ty_send(piece->gpu, &piece->msg, TY_GPU_PIECE) == TY_OK)
			return;
		piece->code = ty_fail(&piece->error, TY_STOPPING, "the device's owner has stopped");
	}
	if (ty_send(p->service->eviction, &piece->msg, TY_EVICTION_PIECE) != TY_OK)
		free(piece);
}

static void on_piece(void *self, struct ty_msg *msg)
{
	struct populate *p = self;
	struct ty_piece *piece = ty_container_of(msg, struct ty_piece, msg);
	uint64_t first = piece->index * TY_PIECE_BYTES;

	piece->code = TY_OK;
	for (uint64_t at = 0; at < TY_PIECE_BYTES && piece->code == TY_OK; at += SLICE_BYTES) {
		/* acquire: pairs with main's release. Nobody wants the pages any more. */
		if (atomic_load_explicit(&p->service->stopping, memory_order_acquire))
			piece->code = ty_fail(&piece->error, TY_STOPPING, "the service stops");
		else
			piece->code = ty_arena_populate(&p->service->arena, first + at, SLICE_BYTES, &piece->error);
	}
	pass_on(p, piece);
}

static void refuse(void *self, struct ty_msg *msg)
{
	struct ty_piece *piece = ty_container_of(msg, struct ty_piece, msg);

	piece->code = ty_fail(&piece->error, TY_STOPPING, "the service stops");
	pass_on(self, piece);
}

static const struct ty_handler handlers[] = {
	{"piece", on_piece},
};

const struct ty_class ty_populate_class = {
	.name = "populate",
	.state_size = sizeof(struct populate),
	.first_type = TY_POPULATE_PIECE,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.refuse = refuse,
};
