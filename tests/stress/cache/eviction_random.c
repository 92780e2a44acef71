/* SPDX-License-Identifier: Apache-2.0
 *
 * The eviction actor under a seeded schedule: stores of several size classes and numbers of parts over a small arena, some
 * of which fail, are cancelled or late; prompts that are looked up, held and released; pins that end without a word; pieces
 * that come late or not at all. While it runs no pinned chunk may lose its contents; at the end everything is back and the
 * slots in use are those of the chunks in the index.
 *
 * usage: stress_cache_eviction [SEEDS [FIRST]]; a failing seed is printed and fails again alone.
 */
#include "../../unit/cache/world.h"

#include <stdio.h>
#include <stdlib.h>

enum { FAMILIES = 9, CHUNKS = 12, OPS = 64, LEASES = 12, ACTIONS = 1500, PIECES = 5 };

struct kind {
	uint64_t bytes;
	uint32_t parts;
};

/* What a family's chunks are like: slots of 2, 8, 8, 21 and 1 a piece. */
static const struct kind kinds[] = {{24 * MIB, 1}, {8 * MIB, 1}, {7 * MIB + 4096, 3}, {3 * MIB, 2}, {64 * MIB, 1}};

static struct totals {
	uint64_t stored, present, dropped, failed, cancelled, late, evictions, reclaimed, waited, failed_pieces, parked, administered;
} totals;

static struct world_op *ops[OPS];
static struct ty_lease *leases[LEASES];
static uint64_t random_state;
static bool admin; /* somebody administers */

static uint32_t rnd(uint32_t below)
{
	return (uint32_t)(next_random(&random_state) % below);
}

static const struct kind *kind_of(uint32_t family)
{
	/* the one that fills a whole piece is rare, or nothing else would ever be here */
	return &kinds[family == FAMILIES - 1 ? 4 : family % 4];
}

static void land(uint32_t i)
{
	struct world_op *op = ops[i];

	switch (op->op.code) {
	case TY_OK:
		break;
	case TY_NO_SPACE:
		assert_int_equal(op->op.dropped, op->op.count);
		break;
	case TY_CANCELLED:
		totals.cancelled++;
		break;
	case TY_TIMEOUT:
		totals.late++;
		break;
	default:
		totals.failed++;
		break;
	}
	totals.stored += op->op.stored;
	totals.present += op->op.present;
	totals.dropped += op->op.dropped;
	world_free(op);
	ops[i] = NULL;
}

static void store(void)
{
	uint32_t i = rnd(OPS), family = rnd(FAMILIES), first, count;
	const struct kind *kind = kind_of(family);

	if (ops[i]) {
		if (ops[i]->back)
			land(i);
		return;
	}
	first = rnd(3) ? 0 : rnd(CHUNKS);
	count = 1 + rnd(CHUNKS - first);
	ops[i] = world_store(family, first, count, kind->bytes, rnd(kind->parts), kind->parts);
	if (count > 1 && rnd(10) == 0)
		ops[i]->op.chunks[count - 1].key = ops[i]->op.chunks[rnd(count)].key;
	if (rnd(3) == 0)
		ops[i]->op.hint = (struct ty_hint){.owner = 1 + rnd(4), .band = (uint8_t)(TY_BAND_DONE + rnd(5)), .keep = rnd(8) == 0};
	if (rnd(8) == 0)
		ops[i]->op.deadline = ty_runtime_now(world.rt) + rnd(40000000);
}

static void copied(void)
{
	struct world_op *op = world.at_gpu;
	uint32_t skip;

	if (!op)
		return;
	for (skip = rnd(world.at_gpu_count); skip; skip--)
		op = op->next;
	world_copied(op, rnd(6) ? TY_OK : TY_DEVICE_FAILED);
}

static void cancel(void)
{
	struct world_op *op = ops[rnd(OPS)];

	if (op && !op->back)
		(void)ty_op_cancel(&op->op);
}

static void look_up(void)
{
	uint32_t i = rnd(LEASES);

	if (!leases[i])
		leases[i] = world_lookup(rnd(FAMILIES), 1 + rnd(CHUNKS));
}

/* Given back as a session does, or pin by pin as a retrieve does, in no order. */
static void release(void)
{
	uint32_t i = rnd(LEASES);

	if (!leases[i])
		return;
	world_check_lease(leases[i]);
	if (rnd(3)) {
		leases[i]->space = world.spaces[rnd(2)];
		leases[i]->hint.band = (uint8_t)(rnd(2) ? TY_BAND_AS_IT_IS : TY_BAND_DONE + rnd(5));
		leases[i]->hint.owner = rnd(4);
		leases[i]->again = rnd(3) ? 0 : rnd(leases[i]->count + 1);
		world_release(leases[i]);
	} else {
		for (uint32_t k = 0; k < leases[i]->count; k++)
			ty_chunk_unpin(leases[i]->chunks[k]);
		free(leases[i]);
		totals.parked++;
	}
	leases[i] = NULL;
}

/* ---- the administration, in the middle of all that ---- */

static struct world_request request;
static bool asked;

static void settings(void)
{
	static Tyer__V1__Setting all[3], *at[3] = {&all[0], &all[1], &all[2]};
	static char size[24];

	for (int i = 0; i < 3; i++)
		tyer__v1__setting__init(&all[i]);
	snprintf(size, sizeof size, "%uMiB", 64 * (1 + rnd(PIECES)));
	all[0].name = (char *)(uintptr_t)"policy";
	all[0].value = (char *)(uintptr_t)ty_policies[rnd(3)]->name;
	all[1].name = (char *)(uintptr_t)"quota";
	all[1].value = (char *)(uintptr_t)(rnd(2) ? "first=64MiB" : "");
	all[2].name = (char *)(uintptr_t)"l1-size";
	all[2].value = size;
	request.verb.configure.n_settings = 1 + rnd(3);
	request.verb.configure.settings = at;
}

static void administer(void)
{
	static const Tyer__V1__Request__VerbCase verbs[] = {TYER__V1__REQUEST__VERB_PIN, TYER__V1__REQUEST__VERB_UNPIN,
		TYER__V1__REQUEST__VERB_DELETE, TYER__V1__REQUEST__VERB_LIST, TYER__V1__REQUEST__VERB_CONFIGURE};
	static char tenant[] = "first", *tenants = tenant;
	static uint8_t nibble;

	if (asked && !request.back)
		return;
	if (asked) {
		totals.administered += request.x.code == TY_OK;
		world_forget(&request);
	}
	world_prepare(&request, verbs[rnd(5)]);
	nibble = (uint8_t)rnd(256);
	if (request.q.verb_case == TYER__V1__REQUEST__VERB_CONFIGURE)
		settings();
	else if (rnd(2) || request.q.verb_case == TYER__V1__REQUEST__VERB_DELETE)
		request.select.key_prefix = (ProtobufCBinaryData){.len = 1, .data = &nibble};
	else {
		request.select.n_tenants = 1;
		request.select.tenants = &tenants;
	}
	if (rnd(4) == 0)
		request.x.deadline = ty_runtime_now(world.rt) + rnd(1000);
	asked = true;
	world_ask(&request, request.q.verb_case);
}

static void act(void)
{
	switch (rnd(11)) {
	case 10:
		if (admin)
			administer();
		break;
	case 0:
	case 1:
	case 2:
		store();
		break;
	case 3:
	case 4:
	case 5:
		copied();
		break;
	case 6:
		look_up();
		break;
	case 7:
		release();
		break;
	case 8:
		cancel();
		break;
	default:
		if (world.hold_pieces && rnd(20) == 0)
			world_let_pieces();
		break;
	}
}

static void run(uint64_t seed)
{
	struct ty_eviction_stats *stats;
	struct world_options options = {.seed = seed, .pieces = PIECES, .dont_start = true};

	random_state = seed;
	options.policy = (int)(seed % 3);
	admin = seed % 2 == 0;
	options.keep_percent = rnd(2) ? 0 : rnd(40);
	options.quota_count = rnd(3);
	for (uint32_t i = 0; i < options.quota_count; i++) {
		struct ty_tenant_quota *q = &options.quotas[i];

		strcpy(q->tenant, i ? "first" : "second");
		q->soft = rnd(PIECES * 32) * MIB;
		q->hard = rnd(2) ? q->soft + TY_PIECE_BYTES : 0;
	}
	options.ahead = rnd(2) ? TY_PIECE_BYTES : 3 * TY_PIECE_BYTES;
	options.gpus = 1 + rnd(2);
	options.hold_pieces = rnd(3) == 0;
	world_open(&options);
	stats = &world.service->eviction_stats;
	if (rnd(4) == 0)
		world.piece_code[rnd(options.gpus)] = TY_DEVICE_FAILED;
	for (uint32_t step = 0; step < ACTIONS; step++) {
		act();
		world_steps(rnd(6));
		totals.waited += world_stat(&stats->waiting) > 0;
		if (step % 16 == 0) { /* messages are on their way, but never half done */
			for (uint32_t i = 0; i < LEASES; i++)
				if (leases[i])
					world_check_lease(leases[i]);
		}
		if (step % 64 == 0)
			world_check(FAMILIES, CHUNKS);
	}
	world_let_pieces();
	for (uint32_t i = 0; i < LEASES; i++) {
		if (leases[i])
			world_release(leases[i]);
		leases[i] = NULL;
	}
	world_idle();
	while (world.at_gpu) {
		copied();
		world_idle();
	}
	for (uint32_t i = 0; i < OPS; i++)
		if (ops[i])
			land(i); /* asserts that it is back */
	world_check(FAMILIES, CHUNKS);
	for (uint32_t i = 0; i < FAMILIES * CHUNKS; i++) {
		struct ty_key key = world_key(i / CHUNKS, i % CHUNKS);
		struct ty_chunk *chunk = ty_index_find(world.service->index, &key);

		if (chunk)
			assert_int_equal(ty_chunk_pins(chunk), 0);
	}
	assert_int_equal(world_stat(&stats->waiting), 0);
	/* Nothing is pinned, filled or kept: any class can have the whole arena, as far as there is one. */
	if (!options.keep_percent && !admin && world_stat(&stats->ready_bytes) >= TY_PIECE_BYTES) {
		assert_int_equal(world_store_now(FAMILIES, 0, 1, TY_PIECE_BYTES), TY_OK);
		assert_true(world_here(FAMILIES, 0));
	}
	assert_true(world_stat(&stats->ready_bytes) + world_stat(&stats->failed_bytes) <= PIECES * TY_PIECE_BYTES);
	if (asked) {
		assert_true(request.back);
		world_forget(&request);
		asked = false;
	}
	totals.evictions += world_stat(&stats->evictions);
	totals.reclaimed += world_stat(&stats->reclaimed_pieces);
	totals.failed_pieces += world_stat(&stats->failed_bytes) / TY_PIECE_BYTES;
	world_close();
}

static uint64_t seeds = 50, first = 1;

static void test_seeds(void **state)
{
	(void)state;
	for (uint64_t seed = first; seed < first + seeds; seed++) {
		fprintf(stderr, "seed %llu\r", (unsigned long long)seed);
		run(seed);
	}
	print_message("%llu stored, %llu present, %llu dropped; ops: %llu failed, %llu cancelled, %llu late; %llu evictions, "
		      "%llu pieces reclaimed, %llu failed, %llu steps with waiters, %llu silent releases\n",
		(unsigned long long)totals.stored, (unsigned long long)totals.present, (unsigned long long)totals.dropped,
		(unsigned long long)totals.failed, (unsigned long long)totals.cancelled, (unsigned long long)totals.late,
		(unsigned long long)totals.evictions, (unsigned long long)totals.reclaimed,
		(unsigned long long)totals.failed_pieces, (unsigned long long)totals.waited,
		(unsigned long long)totals.parked);
	if (seeds >= 20) /* every way was gone */
		assert_true(totals.stored && totals.present && totals.dropped && totals.failed && totals.cancelled &&
			totals.late && totals.evictions && totals.reclaimed && totals.failed_pieces && totals.waited &&
			totals.parked && totals.administered);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_seeds)};

	if (argc > 1)
		seeds = strtoull(argv[1], NULL, 10);
	if (argc > 2)
		first = strtoull(argv[2], NULL, 10);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
