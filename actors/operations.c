/* SPDX-License-Identifier: Apache-2.0 */
#include "operations.h"

#include <assert.h>
#include <stdlib.h>

#define WORD_BITS 64

enum ty_code ty_op_table_open(struct ty_op_table *t, uint32_t count, uint64_t bytes, struct ty_error *err)
{
	uint32_t words = (count + WORD_BITS - 1) / WORD_BITS;

	*t = (struct ty_op_table){.count = count, .bytes = bytes};
	t->rows = calloc(count, sizeof *t->rows);
	t->taken = calloc(words, sizeof *t->taken);
	if (!t->rows || !t->taken) {
		ty_op_table_close(t);
		return ty_fail(err, TY_NO_MEMORY, "no memory for a table of %u operations", count);
	}
	for (uint32_t i = 0; i < count; i++)
		atomic_init(&t->rows[i].version, 1);
	for (uint32_t i = count; i < words * WORD_BITS; i++) /* there are no such rows */
		t->taken[i / WORD_BITS] |= UINT64_C(1) << i % WORD_BITS;
	return TY_OK;
}

void ty_op_table_close(struct ty_op_table *t)
{
	free(t->rows);
	free((void *)t->taken);
	t->rows = NULL;
	t->taken = NULL;
}

/* There is a free bit: there are never more set than `used`, which counts ours already. Another engine that takes the one
 * we see makes us look again, and has got on itself. */
static uint32_t take_bit(struct ty_op_table *t)
{
	for (uint32_t i = 0;; i = (i + 1) % ((t->count + WORD_BITS - 1) / WORD_BITS)) {
		uint64_t seen = atomic_load_explicit(&t->taken[i], memory_order_relaxed);

		while (~seen) {
			uint32_t bit = (uint32_t)__builtin_ctzll(~seen);

			/* acquire: pairs with the release of whoever had the row before */
			if (atomic_compare_exchange_weak_explicit(&t->taken[i], &seen, seen | UINT64_C(1) << bit,
				    memory_order_acquire, memory_order_relaxed))
				return i * WORD_BITS + bit;
		}
	}
}

static void give_credit(struct ty_op_table *t, uint64_t bytes)
{
	atomic_fetch_sub_explicit(&t->used_bytes, bytes, memory_order_relaxed);
	atomic_fetch_sub_explicit(&t->used, 1, memory_order_relaxed);
}

enum ty_code ty_op_table_take(struct ty_op_table *t, uint64_t bytes, uint32_t engine_count, uint64_t engine_bytes,
	struct ty_op_row **row, struct ty_error *err)
{
	/* Taken first and given back if it was too much: two that come together cannot both have the last one. */
	uint32_t used = atomic_fetch_add_explicit(&t->used, 1, memory_order_relaxed);
	uint64_t used_bytes = atomic_fetch_add_explicit(&t->used_bytes, bytes, memory_order_relaxed);
	uint32_t left = used < t->count ? t->count - used : 0;
	uint64_t left_bytes = used_bytes < t->bytes ? t->bytes - used_bytes : 0;
	enum ty_code code = TY_OK;

	if (left == 0 || engine_count > left)
		code = ty_fail(err, TY_BUSY, "max-all-operations: %u of %u in flight, this engine has %u of them", used, t->count,
			engine_count);
	else if (engine_count && (bytes > left_bytes || engine_bytes > left_bytes - bytes)) /* one may fly alone, however large */
		code = ty_fail(err, TY_BUSY, "max-all-operation-bytes: %llu of %llu in flight, this engine has %llu of them",
			(unsigned long long)used_bytes, (unsigned long long)t->bytes, (unsigned long long)engine_bytes);
	if (code != TY_OK) {
		give_credit(t, bytes);
		atomic_fetch_add_explicit(&t->refused, 1, memory_order_relaxed);
		return code;
	}
	*row = &t->rows[take_bit(t)];
	return TY_OK;
}

void ty_op_table_give(struct ty_op_table *t, struct ty_op_row *row, uint64_t bytes)
{
	uint32_t i = (uint32_t)(row - t->rows);
	uint64_t version = atomic_load_explicit(&row->version, memory_order_relaxed); /* ours alone */

	if (!(version & 1))
		atomic_store_explicit(&row->version, version + 1, memory_order_release);
	/* release: pairs with take_bit's acquire; before the credit, see there */
	atomic_fetch_and_explicit(&t->taken[i / WORD_BITS], ~(UINT64_C(1) << i % WORD_BITS), memory_order_release);
	give_credit(t, bytes);
}

void ty_op_row_write(struct ty_op_row *row, const struct ty_op_seen *what)
{
	uint64_t version = atomic_load_explicit(&row->version, memory_order_relaxed);

	assert(version & 1); /* since it was given back, or from the beginning */
	atomic_store_explicit(&row->id, what->id, memory_order_release);
	atomic_store_explicit(&row->client, what->client, memory_order_release);
	atomic_store_explicit(&row->session, what->session, memory_order_release);
	atomic_store_explicit(&row->began, what->began, memory_order_release);
	atomic_store_explicit(&row->retrieve, what->retrieve, memory_order_release);
	atomic_store_explicit(&row->device, what->device, memory_order_release);
	atomic_store_explicit(&row->chunks, what->chunks, memory_order_release);
	atomic_store_explicit(&row->state, what->state, memory_order_release);
	atomic_store_explicit(&row->answered, what->answered, memory_order_release);
	atomic_store_explicit(&row->version, version + 1, memory_order_release);
}

void ty_op_row_state(struct ty_op_row *row, enum ty_op_state state)
{
	if (row)
		atomic_store_explicit(&row->state, state, memory_order_release);
}

void ty_op_row_answered(struct ty_op_row *row)
{
	atomic_store_explicit(&row->answered, 1, memory_order_release);
}

bool ty_op_table_see(const struct ty_op_table *t, uint32_t i, struct ty_op_seen *out)
{
	const struct ty_op_row *row = &t->rows[i];
	/* acquire, all of them: pair with the stores' release */
	uint64_t version = atomic_load_explicit(&row->version, memory_order_acquire);

	if (version & 1)
		return false;
	*out = (struct ty_op_seen){
		.id = atomic_load_explicit(&row->id, memory_order_acquire),
		.client = atomic_load_explicit(&row->client, memory_order_acquire),
		.session = atomic_load_explicit(&row->session, memory_order_acquire),
		.began = atomic_load_explicit(&row->began, memory_order_acquire),
		.retrieve = atomic_load_explicit(&row->retrieve, memory_order_acquire) != 0,
		.device = atomic_load_explicit(&row->device, memory_order_acquire),
		.chunks = atomic_load_explicit(&row->chunks, memory_order_acquire),
		.state = atomic_load_explicit(&row->state, memory_order_acquire),
		.answered = atomic_load_explicit(&row->answered, memory_order_acquire) != 0,
	};
	return atomic_load_explicit(&row->version, memory_order_acquire) == version;
}
