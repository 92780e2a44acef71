/* SPDX-License-Identifier: Apache-2.0 */
#include "op.h"

#include <stdio.h>
#include <stdlib.h>

enum ty_code ty_op_make_steps(struct ty_op *op, struct ty_error *err)
{
	const struct ty_layout *layout = op->layout;
	size_t blocks = (size_t)op->count * layout->blocks_per_chunk, places = 0;

	for (size_t i = 0; i < blocks; i++)
		places += op->blocks[i] != TY_BLOCK_SKIP;
	if (places > UINT32_MAX / layout->step_count)
		return ty_fail(err, TY_LIMIT, "%zu blocks in %u steps; at most %u copies", places, layout->step_count, UINT32_MAX);
	op->step_left = calloc(layout->step_count, sizeof *op->step_left);
	op->places = malloc((places ? places : 1) * sizeof *op->places);
	return op->step_left && op->places ? TY_OK : ty_fail(err, TY_NO_MEMORY, "no memory for %u steps of %zu blocks", layout->step_count, places);
}

void ty_op_free_steps(struct ty_op *op)
{
	free(op->step_left);
	free(op->places);
}

bool ty_op_is_ready(const struct ty_op *op)
{
	/* acquire: the blocks' contents after the word; pairs with the client's release (ty_client_raise) */
	return !op->ready.word ||
	       atomic_load_explicit(&op->timeline->words[op->ready.word], memory_order_acquire) >= op->ready.value;
}

/* Two owners may raise one word, and its client may scribble on it: retry for those that play by the rules, but not for
 * ever for those that do not. */
#define RAISE_TRIES 64

static void raise_word(struct ty_timeline *timeline, struct ty_mark mark)
{
	_Atomic uint64_t *word = &timeline->words[mark.word];
	uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);

	/* release: the blocks' contents before the word; pairs with the client's acquire (ty_client_reached) */
	for (int i = 0; i < RAISE_TRIES && seen < mark.value; i++)
		if (atomic_compare_exchange_weak_explicit(word, &seen, mark.value, memory_order_release, memory_order_relaxed))
			return;
}

void ty_op_raise_done(struct ty_op *op)
{
	if (!op->done.word || op->done_raised)
		return;
	op->done_raised = true;
	raise_word(op->timeline, op->done);
}

void ty_op_raise_layers(struct ty_op *op, uint32_t steps)
{
	if (op->layers.word && steps)
		raise_word(op->timeline, (struct ty_mark){op->layers.word, op->layers.value + steps - 1});
}

bool ty_op_cancel(struct ty_op *op)
{
	/* acq_rel: pairs with begin's and clear's. What the owner wrote into the blocks is seen by a client that hears "clear". */
	uint32_t seen = atomic_fetch_or_explicit(&op->touch, TY_OP_CANCELLED, memory_order_acq_rel);

	return !(seen & TY_OP_BEGUN) || (seen & TY_OP_CLEAR);
}

bool ty_op_touches(const struct ty_op *op)
{
	/* acquire: pairs with clear's */
	uint32_t seen = atomic_load_explicit(&op->touch, memory_order_acquire);

	return !(seen & TY_OP_CLEAR) && ((seen & TY_OP_BEGUN) || !(seen & TY_OP_CANCELLED));
}

bool ty_op_cancelled(const struct ty_op *op)
{
	/* acquire: pairs with cancel's */
	return atomic_load_explicit(&op->touch, memory_order_acquire) & TY_OP_CANCELLED;
}

bool ty_op_begin(struct ty_op *op)
{
	/* acq_rel: pairs with cancel's */
	return !(atomic_fetch_or_explicit(&op->touch, TY_OP_BEGUN, memory_order_acq_rel) & TY_OP_CANCELLED);
}

void ty_op_clear(struct ty_op *op)
{
	/* acq_rel: pairs with cancel's */
	atomic_fetch_or_explicit(&op->touch, TY_OP_CLEAR, memory_order_acq_rel);
}

void ty_op_fail(struct ty_op *op, enum ty_code code, const char *fmt, ...)
{
	va_list args;

	if (op->code != TY_OK)
		return;
	op->code = code;
	va_start(args, fmt);
	vsnprintf(op->error, sizeof op->error, fmt, args);
	va_end(args);
}
