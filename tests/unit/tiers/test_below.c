/* SPDX-License-Identifier: Apache-2.0
 *
 * What the administration asks for of chunks that only tiers have: the real eviction actor over tiers that misbehave as told, on one
 * thread with a logical clock.
 */
#include "tests/unit/cache/world.h"

#include <stdlib.h>

#include "actors/eviction_control.h"
#include "fault.h"

enum { CHUNKS = 40, SMALL = 64 * 1024 };
#define SECOND INT64_C(1000000000)

static struct world_request request;

static bool no_room_for_keys; /* that WARM remembers of a page */
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

void *__wrap_malloc(size_t size)
{
	return no_room_for_keys && size == EVICTION_AGAIN_MAX * sizeof(struct ty_key) ? NULL : __real_malloc(size);
}

static void open_world(const char *first, const char *second)
{
	world_open(&(struct world_options){.pieces = 1, .sums = true, .tier = {first, second}});
}

static void refused(const char *words);

/* Beside a tier that hangs nothing is ever idle. */
static void store(uint32_t family, uint32_t count)
{
	struct world_op *op = world_store(family, 0, count, SMALL, 0, 1);

	world_pass(SECOND / 100);
	world_copied(op, TY_OK);
	world_pass(SECOND / 100);
	assert_int_equal(op->op.code, TY_OK);
	world_free(op);
}

static void prepare(Tyer__V1__Request__VerbCase verb)
{
	world_prepare(&request, verb);
	request.x.received = ty_runtime_now(world.rt);
	request.x.deadline = request.x.received + 5 * SECOND;
}

static void ask(void)
{
	world_ask(&request, request.q.verb_case);
	for (int i = 0; i < 10000 && !request.back; i++)
		world_pass(SECOND / 1000);
	assert_true(request.back);
}

static const Tyer__V1__ControlReply *counts(void)
{
	if (request.x.code != TY_OK)
		fail_msg("%s: %s", ty_code_name(request.x.code), request.x.error.text);
	return (const Tyer__V1__ControlReply *)request.x.reply.message;
}

/* Families 0 and 1 of two tenants, CHUNKS each, lie below alone; family 2, of the first one, in the arena too. */
static void fill(void)
{
	for (uint32_t family = 0; family < 2; family++)
		assert_int_equal(world_store_now(family, 0, CHUNKS, SMALL), TY_OK);
	world_pass(SECOND);
	prepare(TYER__V1__REQUEST__VERB_CLEAR);
	request.select.place = TYER__V1__PLACE__ARENA;
	ask();
	assert_int_equal(counts()->chunks, 2 * CHUNKS);
	assert_int_equal(counts()->below, 0);
	world_forget(&request);
	assert_int_equal(world_store_now(2, 0, CHUNKS, SMALL), TY_OK);
	world_pass(SECOND);
	assert_int_equal(world_stat(&world.service->eviction_stats.chunks), CHUNKS);
	for (uint32_t i = 0; i < world.service->tier_count; i++)
		assert_int_equal(world_stat(&world.service->tiers[i]->stats.chunks), 3 * CHUNKS);
}

/* What a LIST says: how often each chunk was told, of the arena and of each tier. */
struct told {
	uint8_t arena[3][CHUNKS], tier[2][3][CHUNKS];
	uint32_t pages, unsearched;
};

static void take_page(struct told *told, const Tyer__V1__ListReply *reply)
{
	for (size_t i = 0; i < reply->n_chunks; i++) {
		const Tyer__V1__ChunkInfo *info = reply->chunks[i];
		bool known = false;

		for (uint32_t k = 0; k < 3 * CHUNKS; k++) {
			struct ty_key key = world_key(k / CHUNKS, k % CHUNKS);

			if (memcmp(&key, info->key.data, sizeof key) != 0)
				continue;
			known = true;
			assert_int_equal(info->parts, 1);
			assert_string_equal(info->namespace_->tenant, k / CHUNKS == 1 ? "second" : "first");
			if (info->missing) {
				assert_true(info->tiers == 1 || info->tiers == 2);
				assert_int_equal(info->bytes, TY_ENVELOPE_BYTES + SMALL);
				told->tier[info->tiers - 1][k / CHUNKS][k % CHUNKS]++;
			} else {
				told->arena[k / CHUNKS][k % CHUNKS]++;
			}
		}
		assert_true(known);
	}
	told->unsearched += (uint32_t)reply->n_unsearched;
	told->pages++;
	assert_true(told->pages <= 4 * 3 * CHUNKS); /* it comes to an end */
}

static void list_all(struct told *told, uint32_t max, void (*select)(void))
{
	uint8_t below[256];
	uint64_t cursor = 0;
	size_t length = 0;

	memset(told, 0, sizeof *told);
	do {
		const Tyer__V1__ListReply *reply;

		prepare(TYER__V1__REQUEST__VERB_LIST);
		if (select)
			select();
		request.verb.list.max = max;
		request.verb.list.cursor = cursor;
		request.verb.list.below = (ProtobufCBinaryData){.len = length, .data = below};
		ask();
		if (request.x.code != TY_OK)
			fail_msg("%s: %s", ty_code_name(request.x.code), request.x.error.text);
		reply = (const Tyer__V1__ListReply *)request.x.reply.message;
		take_page(told, reply);
		cursor = reply->next;
		length = reply->below.len;
		assert_true(length <= sizeof below);
		if (length)
			memcpy(below, reply->below.data, length);
		world_forget(&request);
	} while (cursor || length);
}

static void expect_all(const uint8_t told[CHUNKS], uint8_t times)
{
	for (uint32_t i = 0; i < CHUNKS; i++)
		assert_int_equal(told[i], times);
}

static void expect_told(const struct told *told, bool first, bool second, uint32_t tiers)
{
	expect_all(told->arena[0], 0);
	expect_all(told->arena[1], 0);
	expect_all(told->arena[2], first);
	for (uint32_t t = 0; t < 2; t++) {
		expect_all(told->tier[t][0], first && t < tiers);
		expect_all(told->tier[t][1], second && t < tiers);
		expect_all(told->tier[t][2], 0); /* the arena has it */
	}
	assert_int_equal(told->unsearched, 0);
}

static void of_the_second(void)
{
	world_name_tenant(&request, "second");
}

static void of_two_keys(void)
{
	world_name_keys(&request, 0, 17);
}

static void of_a_prefix(void)
{
	static struct ty_key key;

	key = world_key(1, 7);
	request.select.key_prefix = (ProtobufCBinaryData){.len = 3, .data = key.bytes};
}

static void in_tiers(void)
{
	request.select.place = TYER__V1__PLACE__TIERS;
}

static void in_the_arena(void)
{
	request.select.place = TYER__V1__PLACE__ARENA;
}

static void check_two_keys(void)
{
	struct told told;

	for (uint32_t max = 0; max < 30; max += 10) {
		list_all(&told, max, of_two_keys);
		for (uint32_t i = 0; i < CHUNKS; i++)
			assert_int_equal(told.tier[0][0][i] + told.tier[1][0][i], i < 17 ? 2 : 0);
	}
}

/* Tiers that take few questions at a time: a page that is full before all of them were asked says where the next one begins. */
static void test_list_with_few_credits(void **state)
{
	(void)state;
	open_world("fault:0,ops=1", "fault:1,ops=3");
	fill();
	check_two_keys();
	world_close();
}

/* First the arena, then what each tier has besides, in pages of any size. */
static void test_list(void **state)
{
	static const uint32_t sizes[] = {0, 1, 7, 40};
	struct told told;

	(void)state;
	open_world("fault:0", "fault:1");
	fill();
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		list_all(&told, sizes[i], NULL);
		expect_told(&told, true, true, 2);
	}
	list_all(&told, 3, of_the_second);
	expect_told(&told, false, true, 2);
	list_all(&told, 0, of_a_prefix);
	assert_int_equal(told.tier[0][1][7] + told.tier[1][1][7], 2);
	assert_int_equal(told.tier[0][1][8] + told.tier[1][0][7], 0);
	check_two_keys();
	list_all(&told, 0, in_the_arena);
	expect_all(told.arena[2], 1);
	expect_all(told.tier[0][0], 0);
	list_all(&told, 0, in_tiers);
	expect_all(told.arena[2], 0);
	expect_all(told.tier[1][0], 1);
	world_close();
}

/* By tenant, by key and all: the others stay where they are. */
static void test_delete(void **state)
{
	struct told told;

	(void)state;
	open_world("fault:0", "fault:1");
	fill();
	prepare(TYER__V1__REQUEST__VERB_DELETE); /* somebody else's key */
	world_name_keys(&request, 0, 5);
	of_the_second();
	ask();
	assert_int_equal(counts()->below, 0);
	world_forget(&request);
	prepare(TYER__V1__REQUEST__VERB_DELETE);
	of_the_second();
	ask();
	assert_int_equal(counts()->below, 2 * CHUNKS);
	assert_int_equal(counts()->chunks, 0);
	world_forget(&request);
	list_all(&told, 0, NULL);
	expect_told(&told, true, false, 2);
	prepare(TYER__V1__REQUEST__VERB_DELETE);
	world_name_keys(&request, 0, CHUNKS);
	world_name_tenant(&request, "first");
	ask();
	assert_int_equal(counts()->below, 2 * CHUNKS);
	world_forget(&request);
	prepare(TYER__V1__REQUEST__VERB_DELETE);
	world_name_keys(&request, 2, 3);
	ask();
	assert_int_equal(counts()->chunks, 3);
	assert_int_equal(counts()->below, 6);
	world_forget(&request);
	prepare(TYER__V1__REQUEST__VERB_CLEAR);
	in_tiers();
	ask();
	assert_int_equal(counts()->chunks, 0);
	assert_int_equal(counts()->below, 2 * (CHUNKS - 3));
	world_forget(&request);
	assert_int_equal(world_stat(&world.service->eviction_stats.chunks), CHUNKS - 3);
	assert_int_equal(world_stat(&world.service->tiers[1]->stats.chunks), 0);
	world_close();
}

/* So many others that nothing of before is left in the arena; and what is below of a family then. */
static uint32_t left_below(uint32_t family, uint32_t count)
{
	struct world_fetch f = {0};

	for (uint32_t other = 100; other < 140; other++)
		assert_int_equal(world_store_now(other, 0, CHUNKS, SMALL), TY_OK);
	world_pass(SECOND);
	for (uint32_t i = 0; i < count; i++)
		assert_false(world_here(family, i));
	world_fetch(&f, family, 0, count);
	for (int i = 0; i < 1000 && !f.back; i++)
		world_pass(SECOND / 100);
	assert_true(f.back);
	return world_fetched(&f);
}

/* What is deleted while somebody has it goes when nobody has it any more, and not down to where it was deleted. */
static void test_delete_what_is_in_use(void **state)
{
	struct ty_lease *lease;

	(void)state;
	open_world("fault:0", "fault:1,write=evict");
	assert_int_equal(world_store_now(3, 0, 8, SMALL), TY_OK);
	world_pass(SECOND);
	lease = world_lookup(3, 8);
	assert_non_null(lease);
	prepare(TYER__V1__REQUEST__VERB_DELETE);
	world_name_keys(&request, 3, 8);
	ask();
	assert_int_equal(counts()->in_use, 8);
	world_forget(&request);
	world_release(lease);
	world_pass(SECOND);
	assert_int_equal(left_below(3, 8), 0);
	world_close();
}

/* Nor is what is deleted while it is stored. */
static void test_delete_what_is_filled(void **state)
{
	struct world_op *op;

	(void)state;
	open_world("fault:0", "fault:1,write=evict");
	op = world_store(3, 0, 8, SMALL, 0, 1);
	world_pass(SECOND / 100);
	prepare(TYER__V1__REQUEST__VERB_DELETE);
	world_name_keys(&request, 3, 8);
	ask();
	assert_int_equal(counts()->in_use, 8);
	world_forget(&request);
	world_copied(op, TY_OK);
	world_pass(SECOND);
	assert_int_equal(op->op.code, TY_OK);
	world_free(op);
	assert_int_equal(left_below(3, 8), 0);
	world_close();
}

/* Nor what waits to be written. */
static void test_delete_what_waits(void **state)
{
	struct ty_lease *lease;

	(void)state;
	open_world("fault:0,ops=2", NULL);
	fault[0].hang = true;
	store(2, 2); /* the tier has these, and one is next */
	store(3, 8);
	lease = world_lookup(3, 8);
	assert_non_null(lease);
	prepare(TYER__V1__REQUEST__VERB_DELETE);
	world_name_keys(&request, 3, 8);
	world_ask(&request, request.q.verb_case);
	world_pass(SECOND / 10);
	fault[0].hang = false;
	fault_let(world.service->tiers[0]);
	for (int i = 0; i < 10000 && !request.back; i++)
		world_pass(SECOND / 1000);
	assert_int_equal(counts()->in_use, 8);
	world_forget(&request);
	world_release(lease);
	world_pass(SECOND);
	assert_int_equal(world_stat(&world.service->tiers[0]->stats.queued), 0);
	assert_int_equal(left_below(3, 8), 0);
	world_close();
}

/* A tier that never answers costs the request its time and nothing else; what was done is told. */
static void test_hang(void **state)
{
	struct told told;

	(void)state;
	open_world("fault:0", "fault:1");
	fill();
	fault[1].hang = true;
	prepare(TYER__V1__REQUEST__VERB_CLEAR);
	ask();
	assert_int_equal(request.x.code, TY_TIMEOUT);
	assert_non_null(strstr(request.x.error.text, "stays done: 40 chunks"));
	assert_non_null(strstr(request.x.error.text, "120 in the tiers"));
	assert_int_equal(ty_index_count(world.service->index), 0);
	store(3, 4); /* all goes on */
	prepare(TYER__V1__REQUEST__VERB_LIST); /* the arena's page does not wait for it */
	request.x.deadline = request.x.received + SECOND / 100;
	ask();
	assert_int_equal(request.x.code, TY_OK);
	assert_int_equal(((const Tyer__V1__ListReply *)request.x.reply.message)->n_chunks, 4);
	world_forget(&request);
	fault[1].hang = false;
	fault_let(world.service->tiers[1]);
	world_pass(SECOND);
	prepare(TYER__V1__REQUEST__VERB_CLEAR);
	ask();
	assert_int_equal(counts()->chunks, 4);
	world_forget(&request);
	list_all(&told, 0, NULL);
	assert_int_equal(told.pages, 1);
	assert_int_equal(world_stat(&world.service->tiers[1]->stats.chunks), 0);
	world_close();
}

/* A LIST that a slow tier cuts short says how far it came. */
static void test_slow_list(void **state)
{
	uint8_t below[256];
	size_t length = 0, seen = 0, pages = 0;

	(void)state;
	open_world("fault:0", NULL);
	fill();
	fault[0].delay_ns = 4 * SECOND;
	do {
		const Tyer__V1__ListReply *reply;

		prepare(TYER__V1__REQUEST__VERB_LIST);
		request.select.place = TYER__V1__PLACE__TIERS;
		request.verb.list.max = 13;
		request.verb.list.below = (ProtobufCBinaryData){.len = length, .data = below};
		ask();
		assert_int_equal(request.x.code, TY_OK);
		reply = (const Tyer__V1__ListReply *)request.x.reply.message;
		seen += reply->n_chunks;
		pages++;
		length = reply->below.len;
		if (length)
			memcpy(below, reply->below.data, length);
		world_forget(&request);
	} while (length);
	assert_int_equal(seen, 2 * CHUNKS);
	assert_true(pages >= 6);
	world_close();
}

/* A LIST of keys that a tier left half answered has come no way: it does not say "on from where you began". */
static void test_keys_beside_a_hang(void **state)
{
	(void)state;
	open_world("fault:0,ops=1,timeout=30s", NULL);
	fill();
	fault[0].delay_ns = SECOND / 10;
	prepare(TYER__V1__REQUEST__VERB_LIST);
	world_name_keys(&request, 0, 3);
	world_ask(&request, request.q.verb_case);
	while (!world_stat(&world.service->tiers[0]->stats.outcomes[TY_TIER_EXISTS][TY_TIER_DONE]))
		world_steps(1);
	fault[0].hang = true;
	for (int i = 0; i < 10000 && !request.back; i++)
		world_pass(SECOND / 1000);
	assert_true(request.back);
	assert_int_equal(request.x.code, TY_TIMEOUT);
	world_forget(&request);
	fault[0].hang = false;
	fault_let(world.service->tiers[0]);
	world_pass(SECOND);
	world_close();
}

/* A tier that fails is said; the next one's chunks go. */
static void test_fail(void **state)
{
	const Tyer__V1__ControlReply *reply;
	struct told told;

	(void)state;
	open_world("fault:0", "fault:1");
	fill();
	fault[0].fail = true;
	list_all(&told, 9, NULL);
	expect_all(told.arena[2], 1);
	expect_all(told.tier[0][0], 0);
	expect_all(told.tier[1][1], 1);
	assert_true(told.unsearched == 1);
	prepare(TYER__V1__REQUEST__VERB_CLEAR);
	ask();
	reply = counts();
	assert_int_equal(reply->chunks, CHUNKS);
	assert_int_equal(reply->failed, CHUNKS); /* the arena's could not be told to it */
	assert_int_equal(reply->below, 3 * CHUNKS);
	assert_int_equal(reply->n_unsearched, 1);
	assert_int_equal(reply->unsearched[0]->tier, 0);
	assert_int_equal(reply->unsearched[0]->code, TYER__V1__CODE__IO);
	assert_string_equal(reply->unsearched[0]->error, "as told");
	world_forget(&request);
	fault[0].fail = false;
	/* every third operation fails: what could not be taken away is counted, and goes with the next ones */
	fault[0].fail_every = 3;
	for (int i = 0; i < 100 && world_stat(&world.service->tiers[0]->stats.chunks); i++) {
		prepare(TYER__V1__REQUEST__VERB_CLEAR);
		ask();
		(void)counts();
		world_forget(&request);
	}
	assert_int_equal(world_stat(&world.service->tiers[0]->stats.chunks), 0);
	world_close();
}

/* Whoever asks as soon as the service is ready is not told that a tier serves nothing: it does in a moment. */
static void ask_while_it_starts(Tyer__V1__Request__VerbCase verb)
{
	_Atomic int *state = &world.service->tiers[0]->stats.state;

	atomic_store(state, TY_TIER_STARTING);
	prepare(verb);
	request.select.place = TYER__V1__PLACE__TIERS;
	world_ask(&request, verb);
	world_pass(SECOND / 10);
	assert_false(request.back);
	atomic_store(state, TY_TIER_SERVING);
	world_pass(SECOND / 10);
	assert_true(request.back);
	assert_int_equal(request.x.code, TY_OK);
}

static void test_tier_that_starts(void **state)
{
	(void)state;
	open_world("fault:0", NULL);
	fill();
	ask_while_it_starts(TYER__V1__REQUEST__VERB_LIST);
	assert_int_equal(((const Tyer__V1__ListReply *)request.x.reply.message)->n_chunks, 2 * CHUNKS);
	assert_int_equal(((const Tyer__V1__ListReply *)request.x.reply.message)->n_unsearched, 0);
	world_forget(&request);
	ask_while_it_starts(TYER__V1__REQUEST__VERB_CLEAR);
	assert_int_equal(counts()->below, 3 * CHUNKS);
	assert_int_equal(counts()->failed + counts()->n_unsearched, 0);
	world_forget(&request);
	world_close();
}

/* What is being summed up, or on its way down, is cleared too: it is waited for. */
static void test_clear_at_once(void **state)
{
	struct world_op *op;
	struct ty_lease *lease;

	(void)state;
	for (int round = 0; round < 20; round++) {
		open_world("fault:0", NULL);
		fault[0].delay_ns = SECOND / 10;
		op = world_store(0, 0, CHUNKS, SMALL, 0, 1);
		while (!world.at_gpu)
			world_steps(1);
		world_copied(op, TY_OK);
		while (!op->back)
			world_steps(1);
		world_free(op);
		world_steps((uint32_t)round);
		lease = round % 2 ? world_lookup(0, 1) : NULL;
		prepare(TYER__V1__REQUEST__VERB_CLEAR);
		ask();
		assert_int_equal(counts()->in_use, lease ? 1 : 0);
		assert_int_equal(counts()->chunks, CHUNKS - (lease ? 1 : 0));
		world_forget(&request);
		world_pass(SECOND);
		assert_int_equal(ty_index_count(world.service->index), lease ? 1 : 0);
		if (!lease) /* what was leased may be written once more */
			assert_int_equal(world_stat(&world.service->tiers[0]->stats.chunks), 0);
		if (lease)
			world_release(lease);
		world_idle();
		world_close();
	}
}

/* A PUT that never ends: its chunk is in use, the others go, and the answer comes before the deadline. */
static void test_clear_beside_a_hanging_put(void **state)
{
	(void)state;
	open_world("fault:0,ops=4", NULL);
	fault[0].hang = true;
	store(0, CHUNKS);
	prepare(TYER__V1__REQUEST__VERB_CLEAR);
	request.select.place = TYER__V1__PLACE__ARENA;
	ask();
	assert_int_equal(counts()->in_use, 4);
	assert_int_equal(counts()->chunks, CHUNKS - 4);
	world_forget(&request);
	fault[0].hang = false;
	fault_let(world.service->tiers[0]);
	world_pass(SECOND);
	world_close();
}

static uint32_t here(uint32_t family)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < CHUNKS; i++)
		count += world_here(family, i);
	return count;
}

/* What that says, of so many. */
static void warm(void (*select)(void), uint32_t chunks)
{
	prepare(TYER__V1__REQUEST__VERB_WARM);
	select();
	ask();
	assert_int_equal(counts()->chunks, chunks);
	assert_int_equal(counts()->n_unsearched, 0);
	world_forget(&request);
}

static void of_a_namespace(void)
{
	static char tenant[] = "first", model[] = "model", dtype[] = "bf16";
	static char *tenants = tenant, *models = model, *dtypes = dtype;

	request.select.n_tenants = request.select.n_models = request.select.n_dtypes = 1;
	request.select.tenants = &tenants;
	request.select.models = &models;
	request.select.dtypes = &dtypes;
}

static void of_another_model(void)
{
	static char model[] = "another", *models = model;

	of_a_namespace();
	request.select.models = &models;
}

static void of_a_prefix_and_the_first(void)
{
	of_a_prefix(); /* the second's */
	of_a_namespace();
}

/* By the beginning of keys and by namespace: what both say, and nothing else. */
static void test_warm_what_is_selected(void **state)
{
	(void)state;
	open_world("fault:0", "fault:1");
	fill();
	warm(of_another_model, 0);
	warm(of_a_prefix_and_the_first, 0);
	assert_int_equal(here(0) + here(1), 0);
	warm(of_a_prefix, 1);
	assert_true(world_here(1, 7));
	assert_int_equal(here(0) + here(1), 1);
	warm(of_a_namespace, CHUNKS);
	assert_int_equal(here(0), CHUNKS);
	assert_int_equal(here(1), 1);
	world_check(3, CHUNKS);
	world_close();
}

/* By tenant, from the tier that has them; as much as the arena holds, and no more. */
static void test_warm(void **state)
{
	(void)state;
	open_world("fault:0", "fault:1");
	fill();
	prepare(TYER__V1__REQUEST__VERB_WARM);
	of_the_second();
	ask();
	assert_int_equal(counts()->chunks, CHUNKS);
	world_forget(&request);
	assert_int_equal(here(1), CHUNKS);
	assert_int_equal(here(0), 0);
	prepare(TYER__V1__REQUEST__VERB_WARM); /* by key it is as ever */
	world_name_keys(&request, 0, 3);
	ask();
	assert_int_equal(counts()->chunks, 3);
	world_forget(&request);
	assert_int_equal(here(0), 3);
	fault[0].fail = true; /* then the other one's */
	prepare(TYER__V1__REQUEST__VERB_WARM);
	world_name_tenant(&request, "first");
	ask();
	assert_int_equal(counts()->chunks, CHUNKS - 3);
	assert_int_equal(counts()->n_unsearched, 1);
	world_forget(&request);
	assert_int_equal(here(0), CHUNKS);
	world_check(3, CHUNKS);
	world_close();
}

/* Keys say all by themselves: who names a tenant beside them, or how they begin, is not brought what is another's. */
static void test_warm_keys_and_more(void **state)
{
	(void)state;
	open_world("fault:0", "fault:1");
	fill();
	for (int i = 0; i < 2; i++) {
		prepare(TYER__V1__REQUEST__VERB_WARM);
		world_name_keys(&request, 0, 3);
		if (i == 0)
			of_the_second();
		else
			of_a_prefix();
		ask();
		assert_int_equal(request.x.code, TY_INVALID);
		assert_non_null(strstr(request.x.error.text, "expected them alone"));
		world_forget(&request);
		assert_int_equal(here(0), 0);
	}
	world_close();
}

/* Nothing comes up where there is no memory to remember what would, and that is told, of each tier. */
static void test_warm_without_memory(void **state)
{
	(void)state;
	open_world("fault:0", "fault:1");
	fill();
	no_room_for_keys = true;
	prepare(TYER__V1__REQUEST__VERB_WARM);
	of_the_second();
	ask();
	no_room_for_keys = false;
	assert_int_equal(counts()->chunks, 0);
	assert_int_equal(counts()->n_unsearched, 2);
	assert_int_equal(counts()->unsearched[0]->code, TY_NO_MEMORY);
	assert_string_equal(counts()->unsearched[0]->error, "no memory for the keys of a page");
	world_forget(&request);
	warm(of_a_prefix, 1);
	world_close();
}

/* More lies below than the arena holds: it ends. And beside a tier that hangs in the middle of it, in time. */
static void test_warm_too_much(void **state)
{
	uint64_t families = 2 * TY_PIECE_BYTES / (CHUNKS * MIB) + 1, all = families * CHUNKS;

	(void)state;
	open_world("fault:0", NULL);
	for (uint32_t family = 0; family < families; family++) {
		assert_int_equal(world_store_now(2 * family, 0, CHUNKS, MIB), TY_OK);
		world_pass(SECOND);
	}
	assert_int_equal(world_stat(&world.service->tiers[0]->stats.chunks), all);
	prepare(TYER__V1__REQUEST__VERB_WARM);
	world_name_tenant(&request, "first");
	ask();
	assert_in_range(counts()->chunks, TY_PIECE_BYTES / MIB / 2, all - 1);
	assert_in_range(counts()->bytes, TY_PIECE_BYTES, TY_PIECE_BYTES + 256 * MIB);
	world_forget(&request);
	prepare(TYER__V1__REQUEST__VERB_CLEAR);
	request.select.place = TYER__V1__PLACE__ARENA;
	ask();
	world_forget(&request);
	fault[0].delay_ns = SECOND / 100;
	prepare(TYER__V1__REQUEST__VERB_WARM);
	world_name_tenant(&request, "first");
	world_ask(&request, request.q.verb_case);
	while (!request.back && !world_stat(&world.service->prefetch_stats.in_flight))
		world_steps(1);
	assert_false(request.back);
	fault[0].hang = true;
	for (int i = 0; i < 10000 && !request.back; i++)
		world_pass(SECOND / 1000);
	assert_true(request.back);
	assert_true(request.x.code == TY_TIMEOUT || counts()->n_unsearched == 1);
	world_forget(&request);
	fault[0].hang = false;
	fault_let(world.service->tiers[0]);
	world_pass(SECOND);
	prepare(TYER__V1__REQUEST__VERB_WARM);
	refused("select: is empty");
	world_close();
}

static void refused(const char *words)
{
	ask();
	assert_int_equal(request.x.code, TY_INVALID);
	if (!strstr(request.x.error.text, words))
		fail_msg("\"%s\" does not say \"%s\"", request.x.error.text, words);
	world_forget(&request);
}

static void test_bad_input(void **state)
{
	static uint8_t junk[300];

	(void)state;
	open_world("fault:0", NULL);
	fill();
	prepare(TYER__V1__REQUEST__VERB_PIN);
	in_tiers();
	refused("select.place: this is of chunks in the arena");
	prepare(TYER__V1__REQUEST__VERB_CLEAR);
	request.select.place = (Tyer__V1__Place)7;
	refused("select.place: 7; expected 0 to 2");
	prepare(TYER__V1__REQUEST__VERB_DELETE);
	in_tiers();
	refused("select: is empty");
	prepare(TYER__V1__REQUEST__VERB_LIST);
	junk[0] = 1; /* there is one, number 0 */
	request.verb.list.below = (ProtobufCBinaryData){.len = 1, .data = junk};
	refused("below: 1 bytes, of tier 1");
	prepare(TYER__V1__REQUEST__VERB_LIST);
	junk[0] = 0;
	request.verb.list.below = (ProtobufCBinaryData){.len = sizeof junk, .data = junk};
	refused("below: 300 bytes");
	prepare(TYER__V1__REQUEST__VERB_LIST);
	world_name_keys(&request, 0, 2);
	junk[1] = 3;
	request.verb.list.below = (ProtobufCBinaryData){.len = 5, .data = junk};
	refused("below: key 3; there are 2");
	prepare(TYER__V1__REQUEST__VERB_LIST);
	world_name_keys(&request, 0, 2);
	request.verb.list.below = (ProtobufCBinaryData){.len = 3, .data = junk};
	refused("below: 3 bytes");
	prepare(TYER__V1__REQUEST__VERB_LIST);
	world_name_keys(&request, 0, 2);
	request.verb.list.cursor = 3;
	refused("cursor: 3; there are 2 keys");
	world_close();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_list), cmocka_unit_test(test_list_with_few_credits), cmocka_unit_test(test_delete),
		cmocka_unit_test(test_delete_what_is_in_use), cmocka_unit_test(test_delete_what_is_filled), cmocka_unit_test(test_delete_what_waits),
		cmocka_unit_test(test_hang), cmocka_unit_test(test_slow_list), cmocka_unit_test(test_keys_beside_a_hang),
		cmocka_unit_test(test_fail), cmocka_unit_test(test_tier_that_starts), cmocka_unit_test(test_clear_at_once), cmocka_unit_test(test_clear_beside_a_hanging_put),
		cmocka_unit_test(test_warm), cmocka_unit_test(test_warm_what_is_selected), cmocka_unit_test(test_warm_too_much),
		cmocka_unit_test(test_warm_without_memory), cmocka_unit_test(test_warm_keys_and_more),
		cmocka_unit_test(test_bad_input),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
