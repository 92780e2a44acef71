/* SPDX-License-Identifier: Apache-2.0
 *
 * What stands in an op when it comes to its commit: the sum of each part that it copied, whatever lies between them, and
 * however the slices of several ops mix.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "actors/service.h"
#include "cache/checksum.h"

#define OPS 6
#define CHUNKS 5
#define CHUNK_BYTES (((size_t)5 << 19) + 4096) /* two slices and a half, and a page */

static struct ty_service service;
static struct ty_op *came[OPS];
static uint32_t came_count;

static void on_commit(void *self, struct ty_msg *msg)
{
	(void)self;
	assert_true(came_count < OPS);
	came[came_count++] = ty_container_of(msg, struct ty_op, msg);
}

static const struct ty_handler handlers[] = {{"commit", on_commit}};

static const struct ty_class committer_class = {
	.name = "eviction", .state_size = 1, .first_type = TY_EVICTION_COMMIT, .type_count = 1, .handlers = handlers,
};

static void make_op(struct ty_op *op, const struct ty_layout *layout, uint8_t *bytes, uint32_t pattern)
{
	memset(op, 0, sizeof *op);
	op->layout = layout;
	op->count = CHUNKS;
	op->chunks = calloc(CHUNKS, sizeof *op->chunks);
	op->copies = calloc(CHUNKS, sizeof *op->copies);
	for (uint32_t i = 0; i < CHUNKS; i++) {
		op->chunks[i].fate = pattern >> i & 1 ? TY_FATE_MOVE : i % 2 ? TY_FATE_PRESENT : TY_FATE_DROPPED;
		if (op->chunks[i].fate == TY_FATE_MOVE)
			op->copies[op->copy_count++].host = bytes + i * CHUNK_BYTES;
	}
}

static void run(uint64_t seed, uint8_t *bytes)
{
	struct ty_runtime_options options = {.size = sizeof options, .seed = seed};
	struct ty_layout layout = {.chunk_bytes = CHUNK_BYTES};
	struct ty_op ops[OPS];
	struct ty_error err;
	uint64_t copied = 0;

	came_count = 0;
	memset(&service.checksum_stats, 0, sizeof service.checksum_stats);
	assert_int_equal(ty_runtime_create(&options, &service.rt, &err), TY_OK);
	assert_int_equal(ty_spawn(service.rt, &committer_class, NULL, NULL, &service.eviction), TY_OK);
	assert_int_equal(ty_spawn(service.rt, &ty_checksum_class, &service, NULL, &service.checksum[0]), TY_OK);
	for (uint32_t i = 0; i < OPS; i++) {
		make_op(&ops[i], &layout, bytes, 1 + (uint32_t)(seed * 7 + i * 5) % 31);
		copied += ops[i].copy_count;
		assert_int_equal(ty_send(service.checksum[0], &ops[i].msg, TY_CHECKSUM_OP), TY_OK);
		for (uint64_t s = 0; s < seed % 5 * i; s++)
			ty_runtime_step(service.rt);
	}
	while (ty_runtime_step(service.rt))
		;
	assert_int_equal(came_count, OPS);
	for (uint32_t i = 0; i < OPS; i++) {
		assert_ptr_equal(came[i], &ops[i]); /* in their order */
		for (uint32_t k = 0; k < CHUNKS; k++)
			assert_int_equal(ops[i].chunks[k].checksum, ops[i].chunks[k].fate != TY_FATE_MOVE
					? 0 : ty_checksum(bytes + k * CHUNK_BYTES, CHUNK_BYTES));
		free(ops[i].chunks);
		free(ops[i].copies);
	}
	assert_int_equal(service.checksum_stats.bytes, copied * CHUNK_BYTES);
	ty_runtime_destroy(service.rt);
	ty_actor_unref(service.checksum[0]);
	ty_actor_unref(service.eviction);
}

static void test_sums_of_what_moved(void **state)
{
	uint8_t *bytes = malloc(CHUNKS * CHUNK_BYTES);

	(void)state;
	assert_non_null(bytes);
	for (size_t i = 0; i < CHUNKS * CHUNK_BYTES; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 4093);
	for (uint64_t seed = 1; seed <= 10; seed++)
		run(seed, bytes);
	free(bytes);
}

static void test_known_sums(void **state)
{
	struct ty_checksum sum;
	uint8_t bytes[3000];

	(void)state;
	assert_int_equal(ty_checksum("", 0), 0x2d06800538d394c2); /* XXH3's own test vector: a table outlives its writer */
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)(i ^ i >> 5);
	for (size_t cut = 0; cut <= sizeof bytes; cut += 250) {
		ty_checksum_begin(&sum);
		ty_checksum_add(&sum, bytes, cut);
		ty_checksum_add(&sum, bytes + cut, sizeof bytes - cut);
		assert_int_equal(ty_checksum_end(&sum), ty_checksum(bytes, sizeof bytes));
	}
	for (size_t i = 0; i < sizeof bytes; i++) {
		uint64_t before = ty_checksum(bytes, sizeof bytes);

		bytes[i] ^= (uint8_t)(1u << i % 8);
		assert_int_not_equal(ty_checksum(bytes, sizeof bytes), before);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_sums),
		cmocka_unit_test(test_sums_of_what_moved),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
