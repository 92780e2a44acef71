/* SPDX-License-Identifier: Apache-2.0
 *
 * The edge's reading of frames: the first byte says whether it is ipc, the rest came over the connection.
 */
#include <stdlib.h>
#include <string.h>

#include "actors/rpc_connection.h"
#include "fuzz.h"

#define MAX 4096

/* Bytes that were allocated for these alone, so that a read past them is seen. */
static void check_hops(const uint8_t *data, size_t size)
{
	uint8_t *bytes = malloc(size ? size : 1);
	size_t hops;

	FUZZ_CHECK(bytes);
	memcpy(bytes, data, size);
	hops = ty_rpc_read_hops(bytes, size);
	FUZZ_CHECK(hops % 4 == 0 && hops <= size && hops <= 4 * TY_RPC_HOPS_MAX);
	for (size_t at = 0; at + 4 < hops; at += 4)
		FUZZ_CHECK(!(bytes[at] & 0x80)); /* the first that has it ends them */
	if (hops)
		FUZZ_CHECK(bytes[hops - 4] & 0x80);
	free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bool ipc = size && data[0] & 1;
	enum ty_rpc_head said = TY_RPC_HEAD_SHORT, now;
	size_t head = 0;
	uint64_t length = 0;

	if (!size)
		return 0;
	data++, size--;
	/* as the bytes come: once it is said it stays */
	for (size_t here = 0; here <= size && here < 16; here++) {
		uint8_t *bytes = malloc(here ? here : 1);

		FUZZ_CHECK(bytes);
		memcpy(bytes, data, here);
		now = ty_rpc_read_head(bytes, here, ipc, MAX, &head, &length);
		free(bytes);
		FUZZ_CHECK(head == (ipc ? 9u : 8u) && (now == TY_RPC_HEAD_SHORT) == (here < head));
		FUZZ_CHECK(said == TY_RPC_HEAD_SHORT || said == now);
		said = now;
	}
	FUZZ_CHECK(said != TY_RPC_HEAD_WHOLE || length <= MAX);
	FUZZ_CHECK(said != TY_RPC_HEAD_LONG || length > MAX);
	FUZZ_CHECK(said != TY_RPC_HEAD_TYPE || (ipc && data[0] != 1));
	if (said == TY_RPC_HEAD_WHOLE && length <= size - head)
		check_hops(data + head, length);
	return 0;
}

size_t fuzz_seed(unsigned index, uint8_t *bytes)
{
	static const uint8_t ipc[] = {1, 1, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 7, 0x80, 0, 0, 1, 8, 1, 0x52, 0};
	static const uint8_t tcp[] = {0, 0, 0, 0, 0, 0, 0, 0, 8, 0x80, 0, 0, 1, 8, 1, 0x52, 0};
	static const uint8_t huge[] = {1, 1, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	static const uint8_t none[] = {1, 1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 7};
	static const struct {
		const uint8_t *bytes;
		size_t size;
	} seeds[] = {{ipc, sizeof ipc}, {tcp, sizeof tcp}, {huge, sizeof huge}, {none, sizeof none}};

	if (index >= sizeof seeds / sizeof seeds[0])
		return SIZE_MAX;
	memcpy(bytes, seeds[index].bytes, seeds[index].size);
	return seeds[index].size;
}
