/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/connection.h"
#include "fuzz.h"

/* What a service may send over the connection for requests: greeting, frames, and its end at any point. The first byte says whether it
 * is ipc or tcp, and in how many pieces it comes. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct ty_address address = {.url = "ipc://fuzz"};
	struct ty_connection c = {.fd = -1};
	struct ty_error err = {.text = ""};
	enum ty_code code = TY_BUSY;
	const uint8_t *bytes;
	size_t length, piece, at = 1;
	int pair[2];
	uint32_t id;

	if (size == 0)
		return 0;
	FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
	address.ipc = data[0] & 1;
	piece = 1 + (size_t)(data[0] >> 1) * 32;
	c.fd = pair[0];
	c.address = &address;
	c.out_end = &c.out;
	while (code == TY_BUSY || code == TY_OK) {
		size_t n = size - at < piece ? size - at : piece;

		code = ty_connection_take(&c, &id, &bytes, &length, &err);
		if (code == TY_OK && bytes != NULL)
			FUZZ_CHECK(length <= size && (length == 0 || bytes[length - 1] == bytes[length - 1]));
		if (code != TY_BUSY)
			continue;
		if (at < size)
			at += (size_t)write(pair[1], data + at, n);
		else
			shutdown(pair[1], SHUT_WR);
	}
	FUZZ_CHECK(err.code == code && err.text[0] != '\0');
	ty_connection_close(&c);
	close(pair[1]);
	return 0;
}

size_t fuzz_seed(unsigned index, uint8_t *bytes)
{
	static const uint8_t greeting[8] = {0, 'S', 'P', 0, 0, 0x31, 0, 0};
	uint8_t *at = bytes;
	bool ipc = index & 1;

	if (index >= 8)
		return SIZE_MAX;
	*at++ = (uint8_t)(ipc | (index & 2 ? 0xfe : 2));
	memcpy(at, greeting, sizeof greeting);
	at += sizeof greeting;
	for (int i = 0; i < 3; i++) {
		size_t body = index & 4 ? 20000 : 3;

		if (ipc)
			*at++ = 1;
		for (int shift = 56; shift >= 0; shift -= 8)
			*at++ = (uint8_t)((uint64_t)(body + 4) >> shift);
		memcpy(at, "\x80\0\0\1", 4);
		memset(at + 4, 0x5a, body);
		at += 4 + body;
	}
	return (size_t)(at - bytes);
}
