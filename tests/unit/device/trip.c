/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "trip.h"

#define CHUNKS_MAX 6

void test_drive(struct ty_device *dev, uint32_t want, uint64_t polls)
{
	struct ty_batch *done[3];
	uint32_t got = 0;

	for (uint64_t i = 0; i < polls && got < want; i++) {
		uint32_t n = ty_device_poll(dev, done, 3);

		assert_true(n <= 3);
		for (uint32_t j = 0; j < n; j++)
			assert_true(done[j]->client_free);
		got += n;
	}
	assert_int_equal(got, want);
	assert_int_equal(ty_device_poll(dev, done, 3), 0);
}

static uint32_t *draw_ids(struct test_trip *t, uint32_t chunks, bool skip)
{
	uint32_t *ids = test_draw_ids(t->layout, chunks, skip, &t->random);
	struct ty_error err;

	assert_int_equal(ty_layout_check_blocks(t->layout, ids, chunks, skip, true, &err), TY_OK);
	return ids;
}

/* The formula: slot[...] and pool[...] of each run, by `move`. */
static void each_run(struct test_trip *t, uint8_t *const *view, uint8_t *slot, const uint32_t *ids, bool to_pool)
{
	const struct ty_layout *l = t->layout;

	for (uint32_t i = 0; i < l->group_count; i++) {
		const struct ty_layout_group *g = &l->groups[i];

		for (uint32_t b = 0; b < g->blocks_per_chunk; b++)
			for (uint32_t p = 0; p < g->plane_count; p++) {
				const struct ty_plane *plane = &l->planes[g->first_plane + p];
				uint32_t id = ids[g->first_block + b];
				uint8_t *in_slot = slot + g->tile_offset +
					((uint64_t)b * g->plane_count + p) * g->run_bytes;
				uint8_t *in_pool = view[plane->region] + plane->offset + id * g->block_stride;

				if (id == TY_BLOCK_SKIP)
					continue;
				if (to_pool)
					memcpy(in_pool, in_slot, g->run_bytes);
				else
					memcpy(in_slot, in_pool, g->run_bytes);
			}
	}
}

static void build(struct test_trip *t, struct ty_batch *batch, struct ty_copy *copies, enum ty_direction direction,
	uint8_t *slots, const uint32_t *ids, uint32_t chunks)
{
	memset(batch, 0xa5, sizeof *batch);
	batch->mapping = t->mapping;
	batch->direction = direction;
	batch->copies = copies;
	batch->count = chunks;
	for (uint32_t c = 0; c < chunks; c++) {
		copies[c].host = slots + c * t->layout->chunk_bytes;
		copies[c].blocks = ids + c * t->layout->blocks_per_chunk;
	}
}

static void check_pool(struct test_trip *t, uint8_t *const *expected, const char *when)
{
	for (uint32_t i = 0; i < t->layout->region_count; i++)
		if (memcmp(t->view[i], expected[i], t->layout->region_length[i]))
			fail_msg("%s: %s: region %u is not as it must be", t->pool->name, when, i);
}

static void check_slots(struct test_trip *t, const uint8_t *expected, size_t bytes, const char *when)
{
	for (size_t i = 0; i < bytes; i++)
		if (t->slots[i] != expected[i])
			fail_msg("%s: %s: byte %zu of the slots (chunk_bytes %llu) is not as it must be", t->pool->name,
				when, i, (unsigned long long)t->layout->chunk_bytes);
}

/* As each_run into the pool, but only one step's planes. */
static void each_run_of_step(struct test_trip *t, uint8_t *const *view, uint8_t *slot, const uint32_t *ids, uint32_t step)
{
	const struct ty_layout *l = t->layout;

	for (uint32_t i = 0; i < l->group_count; i++) {
		const struct ty_layout_group *g = &l->groups[i];
		uint32_t from = step ? l->steps[(step - 1) * l->group_count + i] : 0, to = l->steps[step * l->group_count + i];

		for (uint32_t b = 0; b < g->blocks_per_chunk; b++)
			for (uint32_t p = from; p < to; p++) {
				const struct ty_plane *plane = &l->planes[g->first_plane + p];
				uint32_t id = ids[g->first_block + b];

				if (id != TY_BLOCK_SKIP)
					memcpy(view[plane->region] + plane->offset + id * g->block_stride,
						slot + g->tile_offset + ((uint64_t)b * g->plane_count + p) * g->run_bytes,
						g->run_bytes);
			}
	}
}

/* Retrieve one chunk step by step, each part of a step by itself; after each the pool is as it must be. */
static void layer_by_layer(struct test_trip *t, uint8_t **model)
{
	const struct ty_layout *l = t->layout;
	uint32_t *ids = draw_ids(t, 1, true);

	for (uint32_t s = 0; s < l->step_count; s++) {
		for (uint32_t i = 0; i < l->group_count; i++) {
			const struct ty_layout_group *g = &l->groups[i];
			const struct ty_part *part = ty_device_part(t->mapping, s, i);
			struct ty_copy copies[TY_BATCH_CHUNKS];
			struct ty_batch batch;
			uint32_t limit;

			if (!part->mapping)
				continue;
			limit = ty_device_batch_limit(t->dev, part->layout);
			assert_true(limit >= 1 && limit <= TY_BATCH_CHUNKS);
			assert_int_equal(part->layout->chunk_bytes, part->layout->plane_count * g->run_bytes);
			for (uint32_t b = 0; b < g->blocks_per_chunk;) {
				memset(&batch, 0xa5, sizeof batch);
				batch.mapping = part->mapping;
				batch.direction = TY_TO_DEVICE;
				batch.copies = copies;
				for (batch.count = 0; batch.count < limit && b < g->blocks_per_chunk; b++) {
					copies[batch.count].host = t->slots + g->tile_offset +
						((uint64_t)b * g->plane_count + part->first_plane) * g->run_bytes;
					copies[batch.count++].blocks = &ids[g->first_block + b];
				}
				assert_int_equal(ty_device_submit(t->dev, &batch), TY_OK);
				test_drive(t->dev, 1, 1000000);
				assert_int_equal(batch.code, TY_OK);
			}
		}
		each_run_of_step(t, model, t->slots, ids, s);
		check_pool(t, model, "layer by layer");
	}
	free(ids);
}

void test_round_trip(struct test_trip *t)
{
	const struct ty_layout *l = t->layout;
	uint32_t chunks = CHUNKS_MAX, limit = ty_device_batch_limit(t->dev, l), *ids, *other;
	uint8_t *model[TY_MAX_REGIONS], *slots;
	struct ty_copy copies[2][CHUNKS_MAX];
	struct ty_batch batch[2];
	size_t bytes;

	/* two sets of chunks side by side, in pool and slots */
	if (test_chunks(l) / 2 < chunks)
		chunks = test_chunks(l) / 2;
	chunks = limit < chunks ? limit : chunks;
	assert_true(chunks >= 1);
	bytes = 2 * chunks * l->chunk_bytes;
	assert_true(bytes + 64 <= t->slot_bytes);
	slots = malloc(bytes + 64);
	for (uint32_t i = 0; i < l->region_count; i++) {
		model[i] = malloc(l->region_length[i]);
		test_fill(t->view[i], l->region_length[i], &t->random);
		memcpy(model[i], t->view[i], l->region_length[i]);
	}

	/* store */
	test_fill(t->slots, bytes + 64, &t->random);
	memcpy(slots, t->slots, bytes + 64);
	ids = draw_ids(t, chunks, false);
	for (uint32_t c = 0; c < chunks; c++)
		each_run(t, model, slots + c * l->chunk_bytes, ids + c * l->blocks_per_chunk, false);
	build(t, &batch[0], copies[0], TY_TO_HOST, t->slots, ids, chunks);
	assert_int_equal(ty_device_submit(t->dev, &batch[0]), TY_OK);
	assert_false(batch[0].client_free);
	test_drive(t->dev, 1, 1000000);
	assert_int_equal(batch[0].code, TY_OK);
	check_slots(t, slots, bytes + 64, "store");
	check_pool(t, model, "store");
	free(ids);

	/* retrieve elsewhere, with some skipped */
	ids = draw_ids(t, chunks, true);
	for (uint32_t c = 0; c < chunks; c++)
		each_run(t, model, slots + c * l->chunk_bytes, ids + c * l->blocks_per_chunk, true);
	build(t, &batch[0], copies[0], TY_TO_DEVICE, t->slots, ids, chunks);
	assert_int_equal(ty_device_submit(t->dev, &batch[0]), TY_OK);
	test_drive(t->dev, 1, 1000000);
	assert_int_equal(batch[0].code, TY_OK);
	check_slots(t, slots, bytes + 64, "retrieve");
	check_pool(t, model, "retrieve");
	free(ids);

	layer_by_layer(t, model);

	/* both at once: the first half of the slots goes to the first half of the ids, the second comes from the second */
	ids = draw_ids(t, 2 * chunks, false);
	other = ids + chunks * l->blocks_per_chunk;
	for (uint32_t c = 0; c < chunks; c++) {
		each_run(t, model, slots + (chunks + c) * l->chunk_bytes, other + c * l->blocks_per_chunk, false);
		each_run(t, model, slots + c * l->chunk_bytes, ids + c * l->blocks_per_chunk, true);
	}
	build(t, &batch[0], copies[0], TY_TO_DEVICE, t->slots, ids, chunks);
	build(t, &batch[1], copies[1], TY_TO_HOST, t->slots + chunks * l->chunk_bytes, other, chunks);
	assert_int_equal(ty_device_submit(t->dev, &batch[0]), TY_OK);
	assert_int_equal(ty_device_submit(t->dev, &batch[1]), TY_OK);
	test_drive(t->dev, 2, 1000000);
	assert_int_equal(batch[0].code, TY_OK);
	assert_int_equal(batch[1].code, TY_OK);
	check_slots(t, slots, bytes + 64, "both at once");
	check_pool(t, model, "both at once");
	free(ids);

	free(slots);
	for (uint32_t i = 0; i < l->region_count; i++)
		free(model[i]);
}
