/* SPDX-License-Identifier: Apache-2.0
 *
 * The eviction actor, rule by rule.
 */
#include "world.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { FAMILIES = 8, CHUNKS = 64 };

static struct ty_eviction_stats *stats(void)
{
	return &world.service->eviction_stats;
}

#define stat_of(name) world_stat(&stats()->name)

static void check_and_close(void)
{
	world_check(FAMILIES, CHUNKS);
	world_close();
}

static void test_store_is_visible_at_the_end(void **state)
{
	struct world_op *op;
	struct ty_lease *lease;

	(void)state;
	world_open(&(struct world_options){.pieces = 2, .policy = TY_CONFIG_POLICY_LRU});
	assert_int_equal(stat_of(ready_bytes), 2 * TY_PIECE_BYTES);
	op = world_store(0, 0, 4, 8 * MIB, 0, 1);
	world_idle();
	assert_int_equal(op->op.copy_count, 4);
	assert_null(world_lookup(0, 4)); /* being filled */
	assert_int_equal(stat_of(used_bytes), 32 * MIB);
	world_copied(op, TY_OK);
	world_idle();
	assert_int_equal(op->op.code, TY_OK);
	assert_int_equal(op->op.stored, 4);
	world_free(op);
	lease = world_lookup(0, 6);
	assert_int_equal(lease->count, 4);
	world_release(lease);
	world_idle();

	op = world_store(0, 2, 4, 8 * MIB, 0, 1); /* two of them are here */
	world_idle();
	assert_int_equal(op->op.copy_count, 2);
	assert_int_equal(op->op.chunks[0].fate, TY_FATE_PRESENT);
	assert_int_equal(op->op.chunks[2].fate, TY_FATE_MOVE);
	world_copied(op, TY_OK);
	world_idle();
	assert_int_equal(op->op.stored, 2);
	assert_int_equal(op->op.present, 2);
	world_free(op);
	assert_int_equal(stat_of(commits), 6);
	assert_int_equal(stat_of(present), 2);

	op = world_store(0, 0, 6, 8 * MIB, 0, 1); /* all of them are: it goes home at once */
	world_idle();
	assert_true(op->back);
	assert_int_equal(op->op.present, 6);
	world_free(op);
	check_and_close();
}

static void test_failed_store_leaves_nothing(void **state)
{
	struct world_op *op, *other;

	(void)state;
	world_open(&(struct world_options){.pieces = 1, .policy = TY_CONFIG_POLICY_LRU});
	op = world_store(0, 0, 4, 8 * MIB, 0, 1);
	other = world_store(0, 1, 2, 8 * MIB, 0, 1); /* of another engine: these are on their way */
	world_idle();
	assert_true(op->back != other->back); /* whoever came second has nothing to do, or less */
	while (world.at_gpu) {
		world_copied(world.at_gpu, TY_DEVICE_FAILED);
		world_idle();
	}
	assert_true(op->back && other->back);
	assert_int_equal(op->op.code == TY_OK || other->op.code == TY_OK, true);
	for (uint32_t i = 0; i < 4; i++)
		assert_false(world_here(0, i));
	assert_int_equal(ty_index_count(world.service->index), 0);
	assert_int_equal(ty_slots_used(world.service->slots), 0);
	assert_int_equal(ty_slots_free_pieces(world.service->slots), 1);
	assert_int_equal(stat_of(aborts), 4);
	world_free(op);
	world_free(other);
	check_and_close();
}

static void test_cancelled_before(void **state)
{
	struct world_op *op;

	(void)state;
	world_open(&(struct world_options){.pieces = 1, .policy = TY_CONFIG_POLICY_LRU});
	op = world_store(0, 0, 4, 8 * MIB, 0, 1);
	(void)ty_op_cancel(&op->op);
	world_idle();
	assert_true(op->back);
	assert_int_equal(op->op.code, TY_CANCELLED);
	world_free(op);
	op = world_store(0, 0, 4, 8 * MIB, 0, 1);
	op->op.deadline = 0;
	world_idle();
	assert_int_equal(op->op.code, TY_TIMEOUT);
	world_free(op);
	assert_int_equal(ty_index_count(world.service->index), 0);
	check_and_close();
}

/* Tails go before heads, and what was used lately goes last. */
static void test_order(void **state)
{
	struct ty_lease *lease;

	(void)state;
	world_open(&(struct world_options){.pieces = 1, .policy = TY_CONFIG_POLICY_LRU});
	assert_int_equal(world_store_now(0, 0, 4, 8 * MIB), TY_OK);
	assert_int_equal(world_store_now(1, 0, 4, 8 * MIB), TY_OK);
	assert_int_equal(world_store_now(2, 0, 1, 8 * MIB), TY_OK); /* takes the oldest: the tail of 0 */
	assert_true(world_here(0, 0) && world_here(0, 1) && world_here(0, 2) && !world_here(0, 3));
	assert_int_equal(stat_of(evictions), 1);
	lease = world_lookup(0, 4);
	assert_int_equal(lease->count, 3);
	world_release(lease); /* used: younger than 1 and 2 now */
	world_idle();
	assert_int_equal(world_store_now(3, 0, 2, 8 * MIB), TY_OK);
	assert_true(world_here(0, 2) && world_here(1, 1) && !world_here(1, 2) && !world_here(1, 3));
	assert_int_equal(world_store_now(4, 0, 5, 8 * MIB), TY_OK); /* the rest of 1, 2, and the tail and middle of 0 */
	assert_true(world_here(0, 0) && world_here(0, 1) == false && !world_here(0, 2));
	assert_true(!world_here(1, 0) && !world_here(2, 0) && world_here(3, 0) && world_here(3, 1));
	check_and_close();
}

static void test_pinned_stay(void **state)
{
	struct ty_lease *lease;
	struct world_op *op;

	(void)state;
	world_open(&(struct world_options){.pieces = 1, .policy = TY_CONFIG_POLICY_LRU});
	assert_int_equal(world_store_now(0, 0, 6, 8 * MIB), TY_OK);
	assert_int_equal(world_store_now(1, 0, 2, 8 * MIB), TY_OK);
	lease = world_lookup(0, 6);
	op = world_store(2, 0, 4, 8 * MIB, 0, 1); /* room for two: the head of it */
	world_idle();
	assert_int_equal(op->op.copy_count, 2);
	assert_int_equal(op->op.dropped, 2);
	assert_int_equal(op->op.chunks[1].fate, TY_FATE_MOVE);
	assert_int_equal(op->op.chunks[2].fate, TY_FATE_DROPPED);
	world_check_lease(lease);
	assert_int_equal(world_store_now(3, 0, 4, 8 * MIB), TY_NO_SPACE);
	assert_int_equal(stat_of(no_space), 6);
	world_copied(op, TY_OK);
	world_idle();
	world_free(op);
	world_check_lease(lease);
	assert_int_equal(world_store_now(3, 0, 2, 8 * MIB), TY_OK);
	world_check_lease(lease);
	world_release(lease);
	world_idle();
	assert_int_equal(world_store_now(4, 0, 8, 8 * MIB), TY_OK); /* all of it may go now */
	assert_int_equal(stat_of(chunks), 8);
	check_and_close();
}

/* A pin that ends without a release: the chunk was parked, and is found again. */
static void test_parked_are_found_again(void **state)
{
	struct ty_lease *lease;

	(void)state;
	world_open(&(struct world_options){.pieces = 1, .policy = TY_CONFIG_POLICY_LRU});
	assert_int_equal(world_store_now(0, 0, 8, 8 * MIB), TY_OK);
	lease = world_lookup(0, 8);
	assert_int_equal(world_store_now(1, 0, 1, 8 * MIB), TY_NO_SPACE);
	ty_chunk_unpin(lease->chunks[5]);
	assert_int_equal(world_store_now(1, 0, 2, 8 * MIB), TY_OK); /* one stored, one dropped */
	assert_true(world_here(1, 0) && !world_here(1, 1) && !world_here(0, 5));
	for (uint32_t i = 0; i < 8; i++)
		if (i != 5)
			ty_chunk_unpin(lease->chunks[i]);
	free(lease);
	assert_int_equal(world_store_now(2, 0, 8, 8 * MIB), TY_OK);
	assert_int_equal(stat_of(chunks), 8);
	check_and_close();
}

/* A store never takes its own prompt's head for its tail. */
static void test_own_prefix_stays(void **state)
{
	struct world_op *op;

	(void)state;
	world_open(&(struct world_options){.pieces = 1, .policy = TY_CONFIG_POLICY_LRU});
	assert_int_equal(world_store_now(0, 0, 5, 8 * MIB), TY_OK); /* the oldest here */
	assert_int_equal(world_store_now(1, 0, 3, 8 * MIB), TY_OK);
	op = world_store(0, 0, 12, 8 * MIB, 0, 1);
	world_idle();
	assert_int_equal(op->op.present, 5);
	assert_int_equal(op->op.copy_count, 3);
	assert_int_equal(op->op.dropped, 4);
	world_copied(op, TY_OK);
	world_idle();
	world_free(op);
	for (uint32_t i = 0; i < 8; i++)
		assert_true(world_here(0, i));
	check_and_close();
}

static void test_key_twice_in_a_store(void **state)
{
	struct world_op *op;

	(void)state;
	world_open(&(struct world_options){.pieces = 1, .policy = TY_CONFIG_POLICY_LRU});
	op = world_store(0, 0, 4, 8 * MIB, 0, 1);
	op->op.chunks[2].key = op->op.chunks[0].key;
	op->op.chunks[3].key = op->op.chunks[1].key;
	world_idle();
	assert_int_equal(op->op.copy_count, 2);
	assert_int_equal(op->op.present, 2);
	world_copied(op, TY_OK);
	world_idle();
	world_free(op);
	op = world_store(0, 0, 4, 8 * MIB, 0, 1);
	op->op.chunks[2].key = op->op.chunks[0].key;
	op->op.chunks[3].key = op->op.chunks[0].key;
	world_idle();
	assert_int_equal(op->op.present, 4);
	world_free(op);
	check_and_close();
}

/* An arena full of one class becomes usable for another, a piece at a time, oldest first. */
static void test_class_changes(void **state)
{
	struct ty_lease *lease;

	(void)state;
	world_open(&(struct world_options){.pieces = 4, .policy = TY_CONFIG_POLICY_LRU});
	for (uint32_t family = 0; family < 4; family++)
		assert_int_equal(world_store_now(family, 0, 8, 8 * MIB), TY_OK);
	assert_int_equal(stat_of(evictions), 0);
	assert_int_equal(world_store_now(4, 0, 1, 3 * MIB), TY_OK);
	assert_int_equal(stat_of(evictions), 8);
	assert_int_equal(stat_of(reclaimed_pieces), 1);
	assert_true(!world_here(0, 0) && world_here(1, 7) && world_here(2, 7) && world_here(3, 7));
	assert_int_equal(world_store_now(4, 1, 20, 3 * MIB), TY_OK); /* fits into that piece: 21 in all */
	assert_int_equal(stat_of(evictions), 8);

	/* The oldest piece has a pinned chunk: the next one goes, and the rest of the oldest's stays. */
	lease = world_lookup(1, 1);
	assert_int_equal(world_store_now(5, 0, 1, 3 * MIB), TY_OK);
	assert_true(world_here(1, 7) && !world_here(2, 0) && world_here(3, 0));
	world_check_lease(lease);
	assert_int_equal(stat_of(reclaimed_pieces), 2);
	/* And the class that has a slot among the oldest takes that one alone. */
	assert_int_equal(world_store_now(6, 0, 1, 8 * MIB), TY_OK);
	assert_int_equal(stat_of(evictions), 17);
	assert_true(!world_here(1, 7) && world_here(1, 6));
	world_release(lease);
	world_idle();
	check_and_close();
}

/* One pinned chunk in every piece: nothing can change its class, and nothing is evicted in the attempt. */
static void test_fragmented_and_pinned(void **state)
{
	struct ty_lease *leases[2];

	(void)state;
	world_open(&(struct world_options){.pieces = 2, .policy = TY_CONFIG_POLICY_LRU});
	assert_int_equal(world_store_now(0, 0, 8, 8 * MIB), TY_OK);
	assert_int_equal(world_store_now(1, 0, 8, 8 * MIB), TY_OK);
	leases[0] = world_lookup(0, 1);
	leases[1] = world_lookup(1, 1);
	assert_int_equal(world_store_now(2, 0, 2, 3 * MIB), TY_NO_SPACE);
	assert_int_equal(stat_of(evictions), 0);
	assert_int_equal(stat_of(chunks), 16);
	world_release(leases[0]);
	world_idle();
	assert_int_equal(world_store_now(2, 0, 2, 3 * MIB), TY_OK);
	assert_int_equal(stat_of(chunks), 10);
	world_check_lease(leases[1]);
	world_release(leases[1]);
	world_idle();
	check_and_close();
}

static void test_parts(void **state)
{
	struct world_op *op[3];

	(void)state;
	world_open(&(struct world_options){.pieces = 1, .policy = TY_CONFIG_POLICY_LRU});
	for (uint32_t part = 0; part < 3; part++)
		op[part] = world_store(0, 0, 2, 4 * MIB, part, 3);
	world_idle();
	world_copied(op[1], TY_OK);
	world_copied(op[0], TY_OK);
	world_idle();
	assert_false(world_here(0, 0)); /* two of three */
	assert_int_equal(stat_of(chunks), 0);
	world_copied(op[2], TY_DEVICE_FAILED);
	world_idle();
	assert_false(world_here(0, 0));
	for (int i = 0; i < 3; i++)
		world_free(op[i]);
	world_check(FAMILIES, CHUNKS);
	op[0] = world_store(0, 0, 2, 4 * MIB, 0, 3); /* still here */
	op[2] = world_store(0, 0, 2, 4 * MIB, 2, 3); /* the missing one again */
	world_idle();
	assert_int_equal(op[0]->op.present, 2);
	world_copied(op[2], TY_OK);
	world_idle();
	assert_true(world_here(0, 0) && world_here(0, 1));
	assert_int_equal(stat_of(chunks), 2);
	world_free(op[0]);
	world_free(op[2]);
	check_and_close();
}

/* Parts that nobody completes go like everything else. */
static void test_incomplete_are_evicted(void **state)
{
	struct world_op *op;

	(void)state;
	world_open(&(struct world_options){.pieces = 1, .policy = TY_CONFIG_POLICY_LRU});
	op = world_store(0, 0, 8, 8 * MIB, 0, 2);
	world_idle();
	assert_int_equal(world_store_now(1, 0, 1, 8 * MIB), TY_NO_SPACE); /* being filled */
	world_copied(op, TY_OK);
	world_idle();
	world_free(op);
	assert_int_equal(world_store_now(1, 0, 7, 8 * MIB), TY_OK);
	assert_int_equal(stat_of(evictions), 7);
	assert_int_equal(stat_of(chunks), 7);
	check_and_close();
}

/* ---- growth ------------------------------------------------------------------------------------------------ */

static void test_growth_ahead(void **state)
{
	(void)state;
	world_open(&(struct world_options){.pieces = 6, .policy = TY_CONFIG_POLICY_LRU, .ahead = 2 * TY_PIECE_BYTES});
	assert_int_equal(stat_of(ready_bytes), 2 * TY_PIECE_BYTES);
	assert_int_equal(world_store_now(0, 0, 1, 8 * MIB), TY_OK);
	assert_int_equal(stat_of(ready_bytes), 3 * TY_PIECE_BYTES); /* one in use, two ahead */
	assert_int_equal(world_store_now(0, 1, 40, 8 * MIB), TY_OK);
	assert_int_equal(stat_of(ready_bytes), 6 * TY_PIECE_BYTES);
	assert_int_equal(stat_of(evictions), 0);
	assert_int_equal(world.touched, 6);
	check_and_close();
}

static void test_ops_wait_for_growth(void **state)
{
	struct world_op *op[4];

	(void)state;
	world_open(&(struct world_options){.pieces = 2, .policy = TY_CONFIG_POLICY_LRU, .hold_pieces = true});
	for (uint32_t i = 0; i < 4; i++)
		op[i] = world_store(i, 0, 3, 8 * MIB, 0, 1);
	world_steps(20);
	assert_int_equal(stat_of(waiting), 4);
	(void)ty_op_cancel(&op[1]->op);
	op[2]->op.deadline = ty_runtime_now(world.rt) + 30000000;
	while (!op[2]->back)
		assert_true(ty_runtime_step(world.rt));
	assert_int_equal(op[1]->op.code, TY_CANCELLED);
	assert_int_equal(op[2]->op.code, TY_TIMEOUT);
	assert_int_equal(stat_of(waiting), 2);
	world_let_pieces();
	world_idle();
	assert_int_equal(stat_of(waiting), 0);
	assert_int_equal(world.at_gpu_count, 2);
	world_copied(op[0], TY_OK);
	world_copied(op[3], TY_OK);
	world_idle();
	assert_int_equal(op[0]->op.stored + op[3]->op.stored, 6);
	for (int i = 0; i < 4; i++)
		world_free(op[i]);
	check_and_close();
}

/* It has a part of what it wants, and waits for the rest with it; nobody overtakes. */
static void test_op_waits_half_way(void **state)
{
	struct world_op *big, *small;

	(void)state;
	world_open(&(struct world_options){.pieces = 3, .policy = TY_CONFIG_POLICY_LRU, .ahead = TY_PIECE_BYTES});
	world.hold_pieces = true;
	big = world_store(0, 0, 12, 8 * MIB, 0, 1);
	world_steps(6);
	assert_int_equal(stat_of(waiting), 1);
	assert_int_equal(big->op.copy_count, 8);
	small = world_store(1, 0, 1, 8 * MIB, 0, 1);
	world_steps(6);
	assert_int_equal(stat_of(waiting), 2);
	assert_int_equal(world.at_gpu_count, 0);
	world_let_pieces();
	world_idle();
	assert_int_equal(big->op.copy_count, 12);
	world_copied(big, TY_OK);
	world_copied(small, TY_OK);
	world_idle();
	assert_int_equal(big->op.stored, 12);
	world_free(big);
	world_free(small);
	check_and_close();
}

/* A store that could be served at once does not pass one that waits. */
static void test_nobody_overtakes(void **state)
{
	struct world_op *big, *small;

	(void)state;
	world_open(&(struct world_options){.pieces = 2, .policy = TY_CONFIG_POLICY_LRU, .ahead = TY_PIECE_BYTES});
	world.hold_pieces = true;
	assert_int_equal(world_store_now(0, 0, 1, 3 * MIB), TY_OK); /* there is room for twenty more of these */
	big = world_store(1, 0, 1, 64 * MIB, 0, 1);
	while (stat_of(waiting) == 0)
		assert_true(ty_runtime_step(world.rt));
	small = world_store(0, 1, 1, 3 * MIB, 0, 1);
	world_steps(4);
	assert_int_equal(stat_of(waiting), 2);
	assert_int_equal(world.at_gpu_count, 0);
	world_let_pieces();
	world_idle();
	assert_int_equal(stat_of(evictions), 0);
	world_copied(big, TY_OK);
	world_copied(small, TY_OK);
	world_idle();
	world_free(big);
	world_free(small);
	check_and_close();
}

static void test_growth_that_is_stuck(void **state)
{
	struct world_op *op;

	(void)state;
	world_open(&(struct world_options){.pieces = 2, .policy = TY_CONFIG_POLICY_LRU, .ahead = TY_PIECE_BYTES});
	world.hold_pieces = true;
	assert_int_equal(world_store_now(0, 0, 8, 8 * MIB), TY_OK); /* uses up the first; the second never comes */
	op = world_store(1, 0, 2, 8 * MIB, 0, 1);
	world_idle(); /* the clock goes on by the actor's own timer */
	assert_int_equal(op->op.copy_count, 2); /* evicted for */
	world_copied(op, TY_OK);
	world_idle();
	world_free(op);
	assert_int_equal(stat_of(evictions), 2);
	world_let_pieces();
	world_idle();
	assert_int_equal(stat_of(ready_bytes), 2 * TY_PIECE_BYTES);
	check_and_close();
}

static void test_pieces_that_fail(void **state)
{
	(void)state;
	world_open(&(struct world_options){.pieces = 3, .policy = TY_CONFIG_POLICY_LRU, .dont_start = true});
	world.piece_code[0] = TY_DEVICE_FAILED;
	world_idle();
	assert_int_equal(stat_of(failed_bytes), 3 * TY_PIECE_BYTES);
	assert_int_equal(stat_of(ready_bytes), 0);
	assert_int_equal(world_store_now(0, 0, 1, 8 * MIB), TY_NO_SPACE); /* at once: nothing more will come */
	check_and_close();
}

static void test_another_owner_registers(void **state)
{
	(void)state;
	world_open(&(struct world_options){.pieces = 4, .policy = TY_CONFIG_POLICY_LRU, .gpus = 2, .dont_start = true});
	world.piece_code[1] = TY_DEVICE_FAILED;
	world_idle();
	assert_int_equal(stat_of(ready_bytes), 4 * TY_PIECE_BYTES);
	assert_int_equal(stat_of(failed_bytes), 0);
	assert_int_equal(world.piece_tries[0], 4);
	assert_int_equal(world.piece_tries[1], 2);
	check_and_close();

	/* Also when they are asked for one by one. */
	world_open(&(struct world_options){.pieces = 5, .policy = TY_CONFIG_POLICY_LRU, .ahead = TY_PIECE_BYTES, .gpus = 2, .dont_start = true});
	world.piece_code[0] = TY_DEVICE_FAILED;
	world_idle();
	assert_int_equal(world_store_now(0, 0, 40, 8 * MIB), TY_OK);
	assert_int_equal(stat_of(evictions), 0);
	assert_int_equal(stat_of(ready_bytes), 5 * TY_PIECE_BYTES);
	check_and_close();
}

/* Pieces that lie with a stalled device are not counted on: the others go to the one that is well. */
static void test_stalled_owner(void **state)
{
	(void)state;
	world_open(&(struct world_options){.pieces = 6, .policy = TY_CONFIG_POLICY_LRU, .ahead = 2 * TY_PIECE_BYTES, .gpus = 2, .dont_start = true});
	world.hold_pieces = true;
	world_idle();
	assert_int_equal(world.held_count, 2);
	atomic_store(&world.service->gpu_stats[1].state, TY_GPU_STALLED);
	world.hold_pieces = false;
	for (uint32_t i = 0; i < 2; i++) /* the well one's comes */
		if (world.held[i]->gpu == world.service->gpu[0])
			assert_int_equal(ty_send(world.service->eviction, &world.held[i]->msg, TY_EVICTION_PIECE), TY_OK);
		else
			world.held[0] = world.held[i];
	world.held_count = 1;
	assert_int_equal(world_store_now(0, 0, 30, 8 * MIB), TY_OK);
	assert_int_equal(stat_of(evictions), 0);
	assert_int_equal(stat_of(ready_bytes), 5 * TY_PIECE_BYTES); /* all but that one */
	world_let_pieces();
	world_idle();
	assert_int_equal(stat_of(ready_bytes), 6 * TY_PIECE_BYTES);
	check_and_close();
}

static void test_real_populate(void **state)
{
	unsigned char resident[64];

	(void)state;
	world_open(&(struct world_options){.pieces = 2, .policy = TY_CONFIG_POLICY_LRU, .ahead = TY_PIECE_BYTES, .real_populate = true});
	assert_int_equal(stat_of(ready_bytes), TY_PIECE_BYTES);
	for (uint64_t at = 0; at < TY_PIECE_BYTES; at += TY_PIECE_BYTES / 16) {
		assert_int_equal(mincore(world.service->arena.base + at, sizeof resident * 4096, resident), 0);
		for (size_t i = 0; i < sizeof resident; i++)
			assert_int_equal(resident[i] & 1, 1);
	}
	/* Memory that is not there any more: the piece comes back unusable, by eviction's own address. */
	assert_int_equal(munmap(world.service->arena.base + TY_PIECE_BYTES, TY_PIECE_BYTES), 0);
	assert_int_equal(world_store_now(0, 0, 1, 8 * MIB), TY_OK);
	assert_int_equal(stat_of(failed_bytes), TY_PIECE_BYTES);
	check_and_close();
}

static void test_populate_gives_up_at_the_end(void **state)
{
	(void)state;
	world_open(&(struct world_options){.pieces = 2, .policy = TY_CONFIG_POLICY_LRU, .real_populate = true, .dont_start = true});
	atomic_store(&world.service->stopping, true);
	world_idle();
	assert_int_equal(stat_of(ready_bytes), 0);
	check_and_close();
}

/* ---- the end ------------------------------------------------------------------------------------------------- */

/* The actor stops while ops wait: they come home. */
static void test_stop_with_waiting_ops(void **state)
{
	struct world_op *op[2];

	(void)state;
	world_open(&(struct world_options){.pieces = 2, .policy = TY_CONFIG_POLICY_LRU, .ahead = TY_PIECE_BYTES});
	world.hold_pieces = true;
	op[0] = world_store(0, 0, 12, 8 * MIB, 0, 1);
	op[1] = world_store(1, 0, 12, 8 * MIB, 0, 1);
	world_steps(8);
	assert_int_equal(stat_of(waiting), 2);
	ty_actor_stop(world.service->eviction);
	world_idle();
	for (int i = 0; i < 2; i++) {
		assert_true(op[i]->back);
		assert_int_equal(op[i]->op.code, TY_STOPPING);
		world_free(op[i]);
	}
	assert_int_equal(ty_slots_used(world.service->slots), 0);
	assert_int_equal(ty_index_count(world.service->index), 0);
	world_let_pieces(); /* nobody takes them any more: freed by whoever has them */
	world_close();
}

/* Messages that lie behind the stop are refused, and nothing is lost by it. */
static void test_refused(void **state)
{
	struct world_op *copied, *fresh;
	struct ty_lease *lease;

	(void)state;
	world_open(&(struct world_options){.pieces = 1, .policy = TY_CONFIG_POLICY_LRU});
	assert_int_equal(world_store_now(0, 0, 2, 8 * MIB), TY_OK);
	lease = world_lookup(0, 2);
	copied = world_store(1, 0, 2, 8 * MIB, 0, 1);
	world_idle();
	ty_actor_stop(world.service->eviction);
	fresh = world_store(2, 0, 2, 8 * MIB, 0, 1);
	world_copied(copied, TY_OK);
	world_release(lease);
	world_idle();
	assert_true(copied->back && fresh->back);
	assert_true(fresh->op.code == TY_STOPPING || fresh->op.code == TY_OK);
	world_free(copied);
	world_free(fresh);
	world_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_store_is_visible_at_the_end),
		cmocka_unit_test(test_failed_store_leaves_nothing),
		cmocka_unit_test(test_cancelled_before),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_pinned_stay),
		cmocka_unit_test(test_parked_are_found_again),
		cmocka_unit_test(test_own_prefix_stays),
		cmocka_unit_test(test_key_twice_in_a_store),
		cmocka_unit_test(test_class_changes),
		cmocka_unit_test(test_fragmented_and_pinned),
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_incomplete_are_evicted),
		cmocka_unit_test(test_growth_ahead),
		cmocka_unit_test(test_ops_wait_for_growth),
		cmocka_unit_test(test_op_waits_half_way),
		cmocka_unit_test(test_nobody_overtakes),
		cmocka_unit_test(test_growth_that_is_stuck),
		cmocka_unit_test(test_pieces_that_fail),
		cmocka_unit_test(test_another_owner_registers),
		cmocka_unit_test(test_stalled_owner),
		cmocka_unit_test(test_real_populate),
		cmocka_unit_test(test_populate_gives_up_at_the_end),
		cmocka_unit_test(test_stop_with_waiting_ops),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
