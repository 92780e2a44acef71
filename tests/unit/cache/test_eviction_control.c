/* SPDX-License-Identifier: Apache-2.0
 *
 * What the administration asks of the eviction actor.
 */
#include "world.h"

#include <stdlib.h>

#include "cache/order.h"

enum { FAMILIES = 8, CHUNKS = 64 };
#define CHUNK (16 * MIB) /* four a piece */

static struct world_request request;

static void check_and_close(void)
{
	world_check(FAMILIES, CHUNKS);
	world_close();
}

static void prepare(Tyer__V1__Request__VerbCase verb)
{
	world_prepare(&request, verb);
}

static void ask(void)
{
	world_ask(&request, request.q.verb_case);
	world_idle();
	assert_true(request.back);
}

static void expect(uint64_t chunks, uint64_t in_use, uint64_t refused)
{
	const Tyer__V1__ControlReply *reply = (const Tyer__V1__ControlReply *)request.x.reply.message;

	if (request.x.code != TY_OK)
		fail_msg("%s: %s", ty_code_name(request.x.code), request.x.error.text);
	assert_int_equal(reply->chunks, chunks);
	assert_int_equal(reply->in_use, in_use);
	assert_int_equal(reply->refused, refused);
	assert_int_equal(reply->bytes, chunks * CHUNK);
	world_forget(&request);
}

static void expect_refused(enum ty_code code, const char *words)
{
	assert_int_equal(request.x.code, code);
	if (!strstr(request.x.error.text, words))
		fail_msg("\"%s\" does not say \"%s\"", request.x.error.text, words);
	world_forget(&request);
}

static void store(uint32_t family, uint32_t count)
{
	assert_int_equal(world_store_now(family, 0, count, CHUNK), TY_OK);
}

static void test_pin_and_unpin(void **state)
{
	(void)state;
	world_open(&(struct world_options){.pieces = 2, .keep_percent = 50});
	store(0, 3);
	store(1, 3);
	prepare(TYER__V1__REQUEST__VERB_PIN);
	world_name_keys(&request, 0, 5); /* two of them are not here */
	ask();
	expect(3, 0, 0);
	prepare(TYER__V1__REQUEST__VERB_PIN); /* room for one more */
	world_name_tenant(&request, "second");
	ask();
	expect(1, 0, 2);
	assert_int_equal(world_stat(&world.service->eviction_stats.kept_bytes), 4 * CHUNK);
	store(2, 4);
	for (uint32_t i = 0; i < 3; i++)
		assert_true(world_here(0, i));
	prepare(TYER__V1__REQUEST__VERB_PIN); /* again: nothing to do */
	world_name_keys(&request, 0, 3);
	ask();
	expect(0, 0, 0);
	prepare(TYER__V1__REQUEST__VERB_UNPIN);
	ask();
	expect(4, 0, 0);
	assert_int_equal(world_stat(&world.service->eviction_stats.kept_bytes), 0);
	store(3, 8);
	assert_false(world_here(0, 0));
	check_and_close();
}

/* Stored, and PINNED said of it; so many chunks are kept then, and so often it came to nothing. */
static void keep(uint32_t family, uint32_t count, uint64_t kept, uint64_t not_kept)
{
	struct world_op *op = world_store(family, 0, count, CHUNK, 0, 1);

	op->op.hint.keep = true;
	world_idle();
	world_copied(op, TY_OK);
	world_idle();
	assert_true(op->back);
	assert_int_equal(op->op.stored, count);
	world_free(op);
	assert_int_equal(world_stat(&world.service->eviction_stats.kept_bytes), kept * CHUNK);
	assert_int_equal(world_stat(&world.service->eviction_stats.not_kept), not_kept);
}

static void unpin(const char *tenant, uint64_t chunks)
{
	prepare(TYER__V1__REQUEST__VERB_UNPIN);
	world_name_tenant(&request, tenant);
	ask();
	expect(chunks, 0, 0);
}

/* Of eight chunks that may be kept another user has as many as are free, all of its tenants together; what is given back is free again. The
 * administration, and the service's own user, may have all. */
static void test_another_users_pins(void **state)
{
	(void)state;
	world_open(&(struct world_options){.pieces = 4, .keep_percent = 50, .tenants = {"uid 7: a", "uid 7: b"}});
	keep(0, 6, 4, 2);
	keep(1, 2, 4, 4); /* it is the same user */
	unpin("uid 7: a", 4);
	assert_int_equal(world_stat(&world.service->eviction_stats.kept_bytes), 0);
	keep(3, 6, 4, 6);
	prepare(TYER__V1__REQUEST__VERB_PIN);
	world_name_tenant(&request, "uid 7: b");
	ask();
	expect(4, 0, 0);
	unpin("uid 7: b", 8);
	check_and_close();

	world_open(&(struct world_options){.pieces = 4, .keep_percent = 50, .tenants = {"uid 7: a", "uid 8: a"}});
	keep(0, 6, 4, 2);
	keep(1, 6, 6, 6); /* the second one half of what the first one left */
	check_and_close();

	world_open(&(struct world_options){.pieces = 4, .keep_percent = 50, .tenants = {"uid 7: a", "uid 7a"}});
	keep(0, 5, 4, 1);
	keep(1, 6, 8, 3);
	check_and_close();
}

static void test_delete(void **state)
{
	struct ty_lease *lease;
	struct world_op *op;

	(void)state;
	world_open(&(struct world_options){.pieces = 4, .keep_percent = 50});
	store(0, 4);
	store(1, 4);
	prepare(TYER__V1__REQUEST__VERB_PIN);
	world_name_keys(&request, 0, 1);
	ask();
	expect(1, 0, 0);
	lease = world_lookup(0, 2);
	op = world_store(2, 0, 1, CHUNK, 0, 1); /* being filled */
	world_idle();
	prepare(TYER__V1__REQUEST__VERB_DELETE);
	world_name_tenant(&request, "first");
	ask();
	expect(2, 3, 0); /* the leased ones stay, pinned by the administration or not */
	assert_true(world_here(0, 0) && world_here(0, 1));
	assert_false(world_here(0, 2) || world_here(0, 3));
	assert_true(world_here(1, 3));
	world_copied(op, TY_OK);
	world_release(lease);
	world_idle();
	world_free(op);
	assert_int_equal(world_store_now(3, 0, 12, CHUNK), TY_OK); /* they go first */
	assert_true(world_here(1, 0) && world_here(1, 3));
	assert_false(world_here(0, 1) && world_here(0, 0));
	prepare(TYER__V1__REQUEST__VERB_DELETE);
	ask();
	expect_refused(TY_INVALID, "select: is empty; CLEAR");
	prepare(TYER__V1__REQUEST__VERB_CLEAR);
	ask();
	assert_int_equal(request.x.code, TY_OK);
	world_forget(&request);
	assert_int_equal(ty_index_count(world.service->index), 0);
	assert_int_equal(world_stat(&world.service->eviction_stats.used_bytes), 0);
	check_and_close();
}

/* Every chunk that stays is listed once, whatever the size of the pages, and while others come and go. */
static void test_list(void **state)
{
	bool seen[2 * CHUNKS] = {false};
	uint64_t cursor = 0;
	uint32_t pages = 0, round = 0;

	(void)state;
	world_open(&(struct world_options){.pieces = 4});
	assert_int_equal(world_store_now(0, 0, CHUNKS, 64 * 1024), TY_OK);
	assert_int_equal(world_store_now(1, 0, CHUNKS, MIB), TY_OK);
	do {
		const Tyer__V1__ListReply *reply;

		prepare(TYER__V1__REQUEST__VERB_LIST);
		request.verb.list.cursor = cursor;
		request.verb.list.max = 10;
		world_ask(&request, TYER__V1__REQUEST__VERB_LIST);
		if (round++ % 2)
			world_steps(1);
		(void)world_store_now(2 + round % 4, 0, 8, 128 * 1024);
		world_idle();
		assert_int_equal(request.x.code, TY_OK);
		reply = (const Tyer__V1__ListReply *)request.x.reply.message;
		assert_true(reply->n_chunks <= 10);
		for (size_t i = 0; i < reply->n_chunks; i++) {
			const Tyer__V1__ChunkInfo *info = reply->chunks[i];

			assert_int_equal(info->key.len, TY_KEY_BYTES);
			assert_int_equal(info->parts, 1);
			assert_int_equal(info->missing, 0);
			assert_string_equal(info->namespace_->model, "model");
			for (uint32_t k = 0; k < 2 * CHUNKS; k++) {
				struct ty_key key = world_key(k / CHUNKS, k % CHUNKS);

				if (memcmp(&key, info->key.data, sizeof key) != 0)
					continue;
				assert_false(seen[k]);
				assert_string_equal(info->namespace_->tenant, k / CHUNKS ? "second" : "first");
				seen[k] = true;
			}
		}
		cursor = reply->next;
		world_forget(&request);
		pages++;
	} while (cursor);
	for (uint32_t k = 0; k < 2 * CHUNKS; k++)
		assert_true(seen[k]);
	assert_true(pages > 12);
	check_and_close();
}

static void test_selects(void **state)
{
	static uint8_t byte[TY_KEY_BYTES + 1];
	static ProtobufCBinaryData half = {.len = 31, .data = byte};
	struct ty_key key = world_key(0, 1);
	Tyer__V1__Prompt prompt = TYER__V1__PROMPT__INIT;

	(void)state;
	world_open(&(struct world_options){.pieces = 1});
	store(0, 3);
	prepare(TYER__V1__REQUEST__VERB_CLEAR);
	request.select.key_prefix = (ProtobufCBinaryData){.len = 3, .data = key.bytes};
	ask();
	expect(1, 0, 0);
	assert_false(world_here(0, 1));
	prepare(TYER__V1__REQUEST__VERB_CLEAR);
	request.select.n_keys = 1;
	request.select.keys = &half;
	ask();
	expect_refused(TY_INVALID, "select.keys[0]: 31 bytes; expected 32");
	prepare(TYER__V1__REQUEST__VERB_CLEAR);
	request.select.key_prefix = (ProtobufCBinaryData){.len = 33, .data = byte};
	ask();
	expect_refused(TY_INVALID, "select.key_prefix: 33 bytes");
	prepare(TYER__V1__REQUEST__VERB_CLEAR);
	world_name_tenant(&request, "\x1b[2J");
	ask();
	expect_refused(TY_INVALID, "select.tenants[0]");
	prepare(TYER__V1__REQUEST__VERB_PIN);
	request.select.prompt = &prompt;
	ask();
	expect_refused(TY_INVALID, "select.prompt.namespace: absent");
	prepare(TYER__V1__REQUEST__VERB_LIST);
	request.verb.list.max = 1001;
	ask();
	expect_refused(TY_INVALID, "max: 1001; expected 1..1000");
	prepare(TYER__V1__REQUEST__VERB_LIST);
	request.verb.list.cursor = UINT64_MAX;
	ask();
	expect_refused(TY_INVALID, "cursor:");
	prepare(TYER__V1__REQUEST__VERB_MOVE);
	request.q.move = &(Tyer__V1__Move){.base = PROTOBUF_C_MESSAGE_INIT(&tyer__v1__move__descriptor), .tier = 3};
	ask();
	expect_refused(TY_INVALID, "tier: 3; this service has 0");
	check_and_close();
}

/* The keys of a prompt are those that an engine of its namespace would have. */
static void test_prompt(void **state)
{
	static uint8_t fingerprint[TY_KEY_BYTES], hashes[2 * TY_KEY_BYTES];
	Tyer__V1__Prompt prompt = TYER__V1__PROMPT__INIT;
	Tyer__V1__Namespace space = TYER__V1__NAMESPACE__INIT;
	Tyer__V1__Chain chain = TYER__V1__CHAIN__INIT;
	struct ty_identity identity;
	struct ty_key root, keys[2];
	struct ty_error err;
	struct world_op *op;

	(void)state;
	memset(fingerprint, 7, sizeof fingerprint);
	memset(hashes, 9, sizeof hashes);
	hashes[40] = 1;
	assert_ok(ty_identity_set(&identity, "first", "model", NULL, "bf16", NULL, &err), &err);
	ty_key_root(&identity, fingerprint, NULL, 0, NULL, 0, &root);
	ty_key_from_hashes(&root, hashes, 2, keys);
	world_open(&(struct world_options){.pieces = 1, .keep_percent = 100});
	op = world_store(0, 0, 2, CHUNK, 0, 1);
	op->op.chunks[0].key = keys[0];
	op->op.chunks[1].key = keys[1];
	world_idle();
	world_copied(op, TY_OK);
	world_idle();
	world_free(op);
	prepare(TYER__V1__REQUEST__VERB_PIN);
	space.tenant = (char *)(uintptr_t)"first";
	space.model = (char *)(uintptr_t)"model";
	space.dtype = (char *)(uintptr_t)"bf16";
	chain.hashes = (ProtobufCBinaryData){.len = sizeof hashes, .data = hashes};
	prompt.namespace_ = &space;
	prompt.fingerprint = (ProtobufCBinaryData){.len = sizeof fingerprint, .data = fingerprint};
	prompt.chain = &chain;
	request.select.prompt = &prompt;
	ask();
	expect(2, 0, 0);
	world_close();
}

static Tyer__V1__Setting settings[4], *setting_at[4];

static void set(unsigned i, const char *name, const char *value)
{
	tyer__v1__setting__init(&settings[i]);
	settings[i].name = (char *)(uintptr_t)name;
	settings[i].value = (char *)(uintptr_t)value;
	setting_at[i] = &settings[i];
	request.verb.configure.settings = setting_at;
	request.verb.configure.n_settings = i + 1;
}

static void configure_refused(const char *name, const char *value, const char *words)
{
	prepare(TYER__V1__REQUEST__VERB_CONFIGURE);
	set(0, "policy", "lru");
	set(1, name, value);
	ask();
	expect_refused(TY_INVALID, words);
}

static void test_configure(void **state)
{
	const Tyer__V1__ConfigureReply *reply;

	(void)state;
	world_open(&(struct world_options){.pieces = 4, .keep_percent = 50});
	store(0, 4);
	store(1, 6);
	configure_refused("policy", "best", "settings[1], policy: found \"best\", expected arc, lru or s3-fifo");
	configure_refused("quota", "first", "settings[1], quota: found \"first\"");
	configure_refused("quota", "first=1GiB", "quota of 1073741824 bytes, expected at most the arena's 268435456");
	configure_refused("l1-size", "1GiB", "settings[1], l1-size: found \"1GiB\", expected 64MiB to ");
	configure_refused("l1-size", "1MiB", "settings[1], l1-size: found \"1MiB\"");
	configure_refused("keep-percent", "101", "settings[1], keep-percent");
	configure_refused("chunk-tokens", "16", "chunk-tokens: is none that can be changed");
	prepare(TYER__V1__REQUEST__VERB_CONFIGURE);
	ask();
	assert_int_equal(request.x.code, TY_OK);
	reply = (const Tyer__V1__ConfigureReply *)request.x.reply.message;
	assert_int_equal(reply->n_settings, 4); /* as it was: nothing of what was refused */
	assert_string_equal(reply->settings[0]->value, "arc");
	world_forget(&request);

	prepare(TYER__V1__REQUEST__VERB_CONFIGURE);
	set(0, "policy", "lru");
	set(1, "quota", "second=64MiB");
	set(2, "l1-size", "128MiB");
	ask();
	assert_int_equal(request.x.code, TY_OK);
	reply = (const Tyer__V1__ConfigureReply *)request.x.reply.message;
	assert_int_equal(reply->n_settings, 5);
	assert_string_equal(reply->settings[0]->value, "lru");
	assert_string_equal(reply->settings[1]->value, "second=64MiB,64MiB");
	assert_string_equal(reply->settings[3]->value, "128MiB");
	world_forget(&request);
	store(3, 1); /* the tenant had six, and may have four */
	assert_int_equal(world_here(1, 0) + world_here(1, 1) + world_here(1, 2) + world_here(1, 3) + world_here(1, 4) +
			world_here(1, 5),
		3);
	store(2, 1); /* all together eight */
	assert_true(world_stat(&world.service->eviction_stats.used_bytes) <= 128 * MIB);
	store(2, 8);
	assert_true(world_stat(&world.service->eviction_stats.used_bytes) <= 128 * MIB);
	check_and_close();
}

/* A walk over a large table takes several messages: stores pass between, and a deadline ends it. */
static void test_slices(void **state)
{
	struct world_op *op;

	(void)state;
	world_open(&(struct world_options){.pieces = 2});
	assert_int_equal(world_store_now(0, 0, CHUNKS, 4096), TY_OK); /* a piece of 16384 slots */
	prepare(TYER__V1__REQUEST__VERB_LIST);
	world_ask(&request, TYER__V1__REQUEST__VERB_LIST);
	op = world_store(1, 0, 1, CHUNK, 0, 1);
	while (!request.back && world.at_gpu == NULL)
		world_steps(1);
	assert_non_null(world.at_gpu); /* it did not wait for the list */
	world_copied(op, TY_OK);
	world_idle();
	world_free(op);
	assert_true(request.back);
	assert_in_range(((const Tyer__V1__ListReply *)request.x.reply.message)->n_chunks, CHUNKS, CHUNKS + 1);
	world_forget(&request);
	prepare(TYER__V1__REQUEST__VERB_CLEAR);
	request.x.deadline = ty_runtime_now(world.rt); /* now */
	world_ask(&request, TYER__V1__REQUEST__VERB_CLEAR);
	world_idle();
	assert_true(request.back);
	if (request.x.code != TY_OK)
		assert_int_equal(request.x.code, TY_TIMEOUT);
	world_forget(&request);
	check_and_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pin_and_unpin),
		cmocka_unit_test(test_another_users_pins),
		cmocka_unit_test(test_delete),
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_selects),
		cmocka_unit_test(test_prompt),
		cmocka_unit_test(test_configure),
		cmocka_unit_test(test_slices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
