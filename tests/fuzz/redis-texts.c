/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <string.h>

#include "fuzz.h"
#include "wire/redis.h"

/* Texts of a Redis server: whatever they say, what is taken of them can be used. */

static void check_node(const struct ty_redis_node *n)
{
	uint8_t address[16];

	FUZZ_CHECK(memchr(n->host, 0, sizeof n->host) && n->port > 0);
	FUZZ_CHECK(!n->host[0] || inet_pton(AF_INET, n->host, address) == 1 || inet_pton(AF_INET6, n->host, address) == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data, *bad;
	uint8_t key[TY_REDIS_KEY_BYTES];
	char prefix[24], pattern[2 * sizeof prefix + 2 * sizeof key + 2];
	struct ty_redis_node node;
	size_t left = size, n = size < sizeof prefix - 1 ? size : sizeof prefix - 1;
	uint32_t slot;
	bool asking;

	if (ty_redis_redirection(text, size, &node, &slot, &asking)) {
		check_node(&node);
		FUZZ_CHECK(slot < TY_REDIS_SLOTS);
	}
	for (size_t before = left; ty_redis_next_master(&text, &left, &node, &bad); before = left) {
		check_node(&node);
		FUZZ_CHECK(left < before && text + left == (const char *)data + size);
	}
	FUZZ_CHECK(left <= size && (!bad || bad[0]));
	if (ty_redis_key((const char *)data, size, "tyer:", key))
		FUZZ_CHECK(size == 5 + 2 * TY_REDIS_KEY_BYTES);
	if (n)
		memcpy(prefix, data, n);
	prefix[n] = 0;
	memset(key, 0xab, sizeof key);
	ty_redis_pattern(prefix, key, size % (sizeof key + 1), pattern, sizeof pattern);
	FUZZ_CHECK(memchr(pattern, 0, sizeof pattern) && pattern[strlen(pattern) - 1] == '*');
	return 0;
}

size_t fuzz_seed(unsigned index, uint8_t *bytes)
{
	static const char *const seeds[] = {
		"MOVED 3999 127.0.0.1:6381", "ASK 16383 ::1:1", "MOVED 7 :6379", "a*[b-c]?\\^",
		"07c37dfeb235213a872192d90877d0cd55635b91 127.0.0.1:30002@31002,name master - 0 1426238316232 2 connected 5461-10922 7\n"
		"67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1 ::1:30003@31003 myself,master - 0 0 3 connected 0-5460 [93-<-07c37]\r\n"
		"6ec23923021cf3ffec47632106199cb7f496ce01 127.0.0.1:30005@31005 slave 67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1 0 1426 5 connected\n",
		"292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f :0@0 master,noaddr - 0 0 9 disconnected 1\n",
		"tyer:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
	};

	if (index >= sizeof seeds / sizeof seeds[0])
		return SIZE_MAX;
	memcpy(bytes, seeds[index], strlen(seeds[index]));
	return strlen(seeds[index]);
}
