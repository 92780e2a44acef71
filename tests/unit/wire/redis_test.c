/* SPDX-License-Identifier: Apache-2.0
 *
 * Redis's texts: what is read of them, and what is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "wire/redis.h"

static void test_redirections(void **state)
{
	static const struct { const char *text, *host; uint32_t port, slot; bool asking; } good[] = {
		{"MOVED 3999 127.0.0.1:6381", "127.0.0.1", 6381, 3999, false}, {"ASK 0 10.0.0.7:1", "10.0.0.7", 1, 0, true},
		{"MOVED 16383 ::1:65535", "::1", 65535, 16383, false}, {"MOVED 7 :6379", "", 6379, 7, false},
		{"MOVED 7 10.0.0.7:6379 and more", "10.0.0.7", 6379, 7, false},
	};
	static const char *const bad[] = {"", "MOVED", "MOVED 1", "MOVED 16384 127.0.0.1:1", "MOVED -1 127.0.0.1:1", "MOVED 1 127.0.0.1",
		"MOVED 1 127.0.0.1:0", "MOVED 1 127.0.0.1:65536", "MOVED 1 127.0.0.1:1x", "MOVED 1 store.example:1", "MOVED  127.0.0.1:1",
		"MOVED 1 127.0.0.1:", "moved 1 127.0.0.1:1", "ERR MOVED 1 127.0.0.1:1", "MOVED 00000001 127.0.0.1:1",
		"MOVED 1 00000000000000000000000000000000000000000000000000000000000000000127.0.0.1:1"};
	struct ty_redis_node node;
	uint32_t slot;
	bool asking;

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		assert_true(ty_redis_redirection(good[i].text, strlen(good[i].text), &node, &slot, &asking));
		assert_string_equal(node.host, good[i].host);
		assert_int_equal(node.port, good[i].port);
		assert_int_equal(slot, good[i].slot);
		assert_int_equal(asking, good[i].asking);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_false(ty_redis_redirection(bad[i], strlen(bad[i]), &node, &slot, &asking));
	assert_false(ty_redis_redirection("MOVED 1 127.0.0.1\0:1", 20, &node, &slot, &asking));
}

#define ID "07c37dfeb235213a872192d90877d0cd55635b91 "

static unsigned masters(const char *text, char hosts[256], const char **bad)
{
	size_t left = strlen(text);
	struct ty_redis_node node;
	unsigned count = 0;

	hosts[0] = 0;
	while (ty_redis_next_master(&text, &left, &node, bad)) {
		count++;
		snprintf(hosts + strlen(hosts), 256 - strlen(hosts), "%s:%u ", node.host, node.port);
	}
	return count;
}

static void test_nodes(void **state)
{
	char hosts[256];
	const char *bad;

	(void)state;
	assert_int_equal(masters(ID "127.0.0.1:30004@31004,name slave 67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1 0 1426238317239 4 connected\n"
		ID "127.0.0.1:30002@31002 master - 0 1426238316232 2 connected 5461-10922\r\n"
		ID "::1:30003 myself,master - 0 0 3 connected 0-5460 [93-<-" ID "]\n\n"
		ID ":30001@31001,name.example myself,master - 0 0 1 connected 10923-16383 7\n"
		ID "127.0.0.1:30009@31009 master - 0 0 9 connected\n"
		ID ":0@0 master,noaddr - 0 0 9 disconnected\n"
		ID "127.0.0.1:30010@31010 master,fail? - 0 0 9 connected 1\n", hosts, &bad), 4);
	assert_null(bad);
	assert_string_equal(hosts, "127.0.0.1:30002 ::1:30003 :30001 127.0.0.1:30010 ");
	assert_int_equal(masters("", hosts, &bad), 0);
	assert_null(bad);
	assert_int_equal(masters(ID "127.0.0.1:1@2 master,fail - 0 0 2 connected 1-2\n", hosts, &bad), 0);
	assert_string_equal(bad, "a node that has slots is not there");
	assert_int_equal(masters(ID "store.example:1@2 master - 0 0 2 connected 1-2\n", hosts, &bad), 0);
	assert_string_equal(bad, "a node's address cannot be read");
	assert_int_equal(masters("what is this\n", hosts, &bad), 0);
	assert_string_equal(bad, "its list of nodes cannot be read");
}

static void test_names(void **state)
{
	static const char digits[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
	uint8_t key[TY_REDIS_KEY_BYTES];
	char text[128], pattern[160];

	(void)state;
	snprintf(text, sizeof text, "tyer:%s", digits);
	assert_true(ty_redis_key(text, 69, "tyer:", key));
	assert_int_equal(key[0] + key[31], 0xff);
	assert_int_equal(key[11], 0xbb);
	assert_false(ty_redis_key(text, 69, "tyes:", key));
	assert_false(ty_redis_key(text, 68, "tyer:", key));
	assert_false(ty_redis_key(text, 69, "tyer", key));
	text[20] = 'A';
	assert_false(ty_redis_key(text, 69, "tyer:", key));
	text[20] = 'g';
	assert_false(ty_redis_key(text, 69, "tyer:", key));
	ty_redis_pattern("a*[b-c]?\\^", (const uint8_t *)"\x01\xfe", 2, pattern, 2 * 10 + 2 * 2 + 2);
	assert_string_equal(pattern, "a\\*\\[b\\-c\\]\\?\\\\\\^01fe*");
	ty_redis_pattern("tyer:", key, 0, pattern, sizeof pattern);
	assert_string_equal(pattern, "tyer:*");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_redirections), cmocka_unit_test(test_nodes), cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
