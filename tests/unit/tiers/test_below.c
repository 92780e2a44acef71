/* SPDX-License-Identifier: Apache-2.0
 *
 * What LIST finds below, what tiers that hang, fail and are slow do to a request, and what is refused.
 */
#include "below_house.h"

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
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_list_with_few_credits),
		cmocka_unit_test(test_hang),
		cmocka_unit_test(test_slow_list),
		cmocka_unit_test(test_keys_beside_a_hang),
		cmocka_unit_test(test_fail),
		cmocka_unit_test(test_tier_that_starts),
		cmocka_unit_test(test_bad_input),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
