/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <stdio.h>

#include "cache/key.h"

static struct ty_error err;

static void hex(const struct ty_key *key, char text[65])
{
	for (int i = 0; i < TY_KEY_BYTES; i++)
		sprintf(text + i * 2, "%02x", key->bytes[i]);
}

static void assert_key(const struct ty_key *key, const char *want)
{
	char text[65];

	hex(key, text);
	assert_string_equal(text, want);
}

static struct ty_identity identity(void)
{
	struct ty_identity id;

	assert_ok(ty_identity_set(&id, "acme", "mod\xc3\xa8le-7b", "r1", "bf16", NULL, &err), &err);
	return id;
}

static struct ty_key root_of(const struct ty_identity *id, const char *adapter, const char *media)
{
	uint8_t fingerprint[TY_KEY_BYTES];
	struct ty_key root;

	for (int i = 0; i < TY_KEY_BYTES; i++)
		fingerprint[i] = (uint8_t)i;
	ty_key_root(id, fingerprint, adapter, strlen(adapter), media, strlen(media), &root);
	return root;
}

/* The expected values were computed with Python's hashlib.blake2b from key.h's description. */
static void test_known_answers(void **state)
{
	struct ty_identity id = identity();
	struct ty_key root = root_of(&id, "lora-1", ""), keys[2];
	uint32_t tokens[10];
	uint8_t hashes[64];

	(void)state;
	assert_key(&root, "6b5758e66705bec1da7ae15b436d99233a8baf8317b843f4174c1fd9ee232d25");
	for (uint32_t i = 0; i < 10; i++)
		tokens[i] = i * 7919;
	ty_key_from_tokens(&root, NULL, tokens, 10, 4, keys); /* two whole chunks; two tokens are left over */
	assert_key(&keys[0], "cc61b02fba6a0ef876b2a3c83ba014dba28fc37849ca6ae31a3e8e22c3ebc8bb");
	assert_key(&keys[1], "9cd944dda69609459a39e084cc50ed2b77c948586ddd2c82e3c4d77855567698");
	for (int i = 0; i < 64; i++)
		hashes[i] = (uint8_t)(i * 3);
	ty_key_from_hashes(&root, hashes, 2, keys);
	assert_key(&keys[0], "22b1950a1a6f473125fad53a73e2ca550d76a6c63c1b1d283b82a50ae85562c7");
	assert_key(&keys[1], "e6c2aa4f845f140750dc707997dfadeff5c96cf8fce7ce23af3c1c278bd875c9");
}

static void test_chain_continues(void **state)
{
	struct ty_identity id = identity();
	struct ty_key root = root_of(&id, "", ""), whole[4], halves[4];
	uint32_t tokens[64];

	(void)state;
	for (uint32_t i = 0; i < 64; i++)
		tokens[i] = i;
	ty_key_from_tokens(&root, NULL, tokens, 64, 16, whole);
	ty_key_from_tokens(&root, NULL, tokens, 32, 16, halves);
	ty_key_from_tokens(&root, &halves[1], tokens + 32, 32, 16, halves + 2);
	assert_memory_equal(whole, halves, sizeof whole);
	/* The same tokens behind another prefix are another chunk. */
	ty_key_from_tokens(&root, NULL, tokens + 32, 32, 16, halves);
	assert_memory_not_equal(&whole[2], &halves[0], sizeof whole[2]);
}

/* Every field is part of the key, and moving a byte across a field's border makes another key. */
static void test_every_field_counts(void **state)
{
	static const char *const variants[][7] = {
		{"t", "m", "r", "d", "q", "a", "x"}, {"T", "m", "r", "d", "q", "a", "x"},
		{"t", "M", "r", "d", "q", "a", "x"}, {"t", "m", "R", "d", "q", "a", "x"},
		{"t", "m", "r", "D", "q", "a", "x"}, {"t", "m", "r", "d", "Q", "a", "x"},
		{"t", "m", "r", "d", "q", "A", "x"}, {"t", "m", "r", "d", "q", "a", "X"},
		{"", "tm", "r", "d", "q", "a", "x"}, {"tm", "m", "", "d", "q", "a", "x"},
		{"t", "m", "rd", "d", "", "a", "x"}, {"t", "m", "r", "d", "q", "ax", ""},
		{"t", "m", "r", "d", "q", "", "ax"},
	};
	enum { COUNT = sizeof variants / sizeof variants[0] };
	struct ty_key roots[COUNT + 1];
	uint8_t fingerprint[TY_KEY_BYTES] = {1};

	(void)state;
	for (int i = 0; i < COUNT; i++) {
		const char *const *v = variants[i];
		struct ty_identity id;

		assert_ok(ty_identity_set(&id, v[0], v[1], v[2], v[3], v[4], &err), &err);
		roots[i] = root_of(&id, v[5], v[6]);
		if (i == 0)
			ty_key_root(&id, fingerprint, "a", 1, "x", 1, &roots[COUNT]);
		for (int j = 0; j < i; j++)
			assert_memory_not_equal(&roots[i], &roots[j], sizeof roots[0]);
	}
	for (int i = 0; i < COUNT; i++)
		assert_memory_not_equal(&roots[i], &roots[COUNT], sizeof roots[0]);
}

/* A chunk of tokens and an engine's hash never meet, whatever the bytes. */
static void test_kinds_are_apart(void **state)
{
	struct ty_identity id = identity();
	struct ty_key root = root_of(&id, "", ""), from_tokens, from_hash;
	uint32_t tokens[8] = {0};
	uint8_t hash[32] = {0};

	(void)state;
	ty_key_from_tokens(&root, NULL, tokens, 8, 8, &from_tokens);
	ty_key_from_hashes(&root, hash, 1, &from_hash);
	assert_memory_not_equal(&from_tokens, &from_hash, sizeof from_hash);
}

static void test_identity_refuses(void **state)
{
	struct ty_identity id;
	char longest[TY_IDENTITY_FIELD_MAX + 1], too_long[TY_IDENTITY_FIELD_MAX + 2];
	static const char *const bad[] = {
		"\xff",             /* no lead byte */
		"\x80",             /* a continuation alone */
		"a\xc3",            /* cut short */
		"\xc0\xaf",         /* overlong */
		"\xe0\x80\xaf",     /* overlong */
		"\xed\xa0\x80",     /* a surrogate */
		"\xf4\x90\x80\x80", /* past U+10FFFF */
		"\xf8\x88\x80\x80\x80",
	};
	static const char *const control[] = {"a\nb", "\x7f", "\xc2\x85", "\x1b[0m"};

	(void)state;
	memset(longest, 'x', sizeof longest);
	longest[TY_IDENTITY_FIELD_MAX] = '\0';
	memset(too_long, 'x', sizeof too_long);
	too_long[TY_IDENTITY_FIELD_MAX + 1] = '\0';
	assert_ok(ty_identity_set(&id, longest, longest, longest, longest, longest, &err), &err);
	assert_string_equal(id.quantization, longest);
	assert_ok(ty_identity_set(&id, NULL, "m", NULL, "d", NULL, &err), &err);
	assert_string_equal(id.tenant, "");

	assert_refused(ty_identity_set(&id, too_long, "m", "", "d", "", &err), TY_INVALID, &err, "tenant");
	assert_refused(ty_identity_set(&id, "", too_long, "", "d", "", &err), TY_INVALID, &err, "model");
	assert_refused(ty_identity_set(&id, "", "m", too_long, "d", "", &err), TY_INVALID, &err, "revision");
	assert_refused(ty_identity_set(&id, "", "m", "", too_long, "", &err), TY_INVALID, &err, "dtype");
	assert_refused(ty_identity_set(&id, "", "m", "", "d", too_long, &err), TY_INVALID, &err, "quantization");
	assert_refused(ty_identity_set(&id, "", NULL, "", "d", "", &err), TY_INVALID, &err, "model: empty");
	assert_refused(ty_identity_set(&id, "", "m", "", "", "", &err), TY_INVALID, &err, "dtype: empty");
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_refused(ty_identity_set(&id, bad[i], "m", "", "d", "", &err), TY_INVALID, &err, "expected UTF-8");
	for (size_t i = 0; i < sizeof control / sizeof control[0]; i++)
		assert_refused(ty_identity_set(&id, control[i], "m", "", "d", "", &err), TY_INVALID, &err,
			"control character");
	assert_ok(ty_identity_set(&id, "\xf0\x9f\x9a\x82 \xe2\x82\xac", "m", "", "d", "", &err), &err);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_answers),
		cmocka_unit_test(test_chain_continues),
		cmocka_unit_test(test_every_field_counts),
		cmocka_unit_test(test_kinds_are_apart),
		cmocka_unit_test(test_identity_refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
