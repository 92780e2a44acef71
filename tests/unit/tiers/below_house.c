/* SPDX-License-Identifier: Apache-2.0 */
#include "below_house.h"

struct world_request request;

void open_world(const char *first, const char *second)
{
	world_open(&(struct world_options){.pieces = 1, .sums = true, .tier = {first, second}});
}

void store(uint32_t family, uint32_t count)
{
	struct world_op *op = world_store(family, 0, count, SMALL, 0, 1);

	world_pass(SECOND / 100);
	world_copied(op, TY_OK);
	world_pass(SECOND / 100);
	assert_int_equal(op->op.code, TY_OK);
	world_free(op);
}

void prepare(Tyer__V1__Request__VerbCase verb)
{
	world_prepare(&request, verb);
	request.x.received = ty_runtime_now(world.rt);
	request.x.deadline = request.x.received + 5 * SECOND;
}

void ask(void)
{
	world_ask(&request, request.q.verb_case);
	for (int i = 0; i < 10000 && !request.back; i++)
		world_pass(SECOND / 1000);
	assert_true(request.back);
}

const Tyer__V1__ControlReply *counts(void)
{
	if (request.x.code != TY_OK)
		fail_msg("%s: %s", ty_code_name(request.x.code), request.x.error.text);
	return (const Tyer__V1__ControlReply *)request.x.reply.message;
}

void fill(void)
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

void refused(const char *words)
{
	ask();
	assert_int_equal(request.x.code, TY_INVALID);
	if (!strstr(request.x.error.text, words))
		fail_msg("\"%s\" does not say \"%s\"", request.x.error.text, words);
	world_forget(&request);
}

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

void list_all(struct told *told, uint32_t max, void (*select)(void))
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

void expect_all(const uint8_t told[CHUNKS], uint8_t times)
{
	for (uint32_t i = 0; i < CHUNKS; i++)
		assert_int_equal(told[i], times);
}

void expect_told(const struct told *told, bool first, bool second, uint32_t tiers)
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

void of_the_second(void)
{
	world_name_tenant(&request, "second");
}

void of_two_keys(void)
{
	world_name_keys(&request, 0, 17);
}

void of_a_prefix(void)
{
	static struct ty_key key;

	key = world_key(1, 7);
	request.select.key_prefix = (ProtobufCBinaryData){.len = 3, .data = key.bytes};
}

void in_tiers(void)
{
	request.select.place = TYER__V1__PLACE__TIERS;
}

void in_the_arena(void)
{
	request.select.place = TYER__V1__PLACE__ARENA;
}
