/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "wire/owner.h"

/* Write it again, through a stream whose other end is looked at. */
static void write_again(struct ty_owner_frame *f, const uint8_t *data, size_t size)
{
	struct ty_owner_stream s;
	struct ty_error err;
	uint64_t *offsets = NULL;
	uint32_t *blocks = NULL;
	const uint32_t **lists = NULL;

	if (f->type == TY_OWNER_GRANT) {
		struct ty_owner_grant *g = &f->grant;

		offsets = malloc(g->count * sizeof *offsets);
		blocks = malloc((size_t)g->count * g->blocks_per_chunk * sizeof *blocks);
		lists = malloc(g->count * sizeof *lists);
		FUZZ_CHECK(offsets && blocks && lists);
		ty_owner_grant_read(g, offsets, blocks);
		for (uint32_t i = 0; i < g->count; i++)
			lists[i] = blocks + (size_t)i * g->blocks_per_chunk;
		g->offsets = offsets;
		g->blocks = lists;
	}
	ty_owner_stream_open(&s, -1, TY_OWNER_TO_OWNER_MAX);
	FUZZ_CHECK(ty_owner_put(&s, f, &err) == TY_OK);
	FUZZ_CHECK(s.out_length == size && memcmp(s.out, data, size) == 0);
	ty_owner_stream_close(&s);
	free(offsets);
	free(blocks);
	free(lists);
}

/* There is one way to write a frame: what is accepted is written back as the same bytes. And over a socket, in two pieces, it is the
 * same frame, or the same refusal. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ty_owner_frame frame, got;
	struct ty_error err = {.code = TY_OK};
	struct ty_owner_stream s;
	enum ty_code code = ty_owner_decode(data, size, &frame, &err);
	int pair[2];

	if (code == TY_OK) {
		write_again(&frame, data, size);
	} else {
		FUZZ_CHECK(code == TY_PROTOCOL || code == TY_UNSUPPORTED);
		FUZZ_CHECK(err.code == code && err.text[0] != '\0');
	}
	FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
	ty_owner_stream_open(&s, pair[0], TY_OWNER_TO_SERVICE_MAX);
	if (size >= 3)
		FUZZ_CHECK(write(pair[1], data, 3) == 3);
	FUZZ_CHECK(ty_owner_take(&s, &got, &err) == TY_BUSY);
	if (size > 3)
		(void)!write(pair[1], data + 3, size - 3);
	shutdown(pair[1], SHUT_WR);
	for (unsigned i = 0; (code = ty_owner_take(&s, &got, &err)) == TY_OK; i++)
		FUZZ_CHECK(i <= size / TY_OWNER_HEADER_BYTES);
	FUZZ_CHECK(code != TY_BUSY);
	ty_owner_stream_close(&s);
	close(pair[1]);
	return 0;
}

size_t fuzz_seed(unsigned index, uint8_t *bytes)
{
	static const uint64_t offsets[2] = {0, 64 << 20};
	static const uint32_t ids[4] = {0, 1, UINT32_MAX, 7}, *const blocks[2] = {ids, ids + 2};
	const struct ty_owner_frame frames[] = {
		{.type = TY_OWNER_HELLO, .hello = {.id = {1}, .name = "cuda:0"}},
		{.type = TY_OWNER_WELCOME, .welcome = {UINT64_MAX, 1 << 30, 64 << 20}},
		{.type = TY_OWNER_REFUSED, .end = {.code = TY_LIMIT, .text = "no room"}},
		{.type = TY_OWNER_PIECE, .piece.index = 3},
		{.type = TY_OWNER_MAP, .map = {.map = 1, .memory = 2, .chunk_bytes = 1 << 20, .chunk_tokens = 256}},
		{.type = TY_OWNER_MAPPED, .end = {.number = 1, .code = TY_INVALID, .text = "regions[0]"}},
		{.type = TY_OWNER_UNMAP, .end.number = 1},
		{.type = TY_OWNER_UNMAPPED, .end.number = 1},
		{.type = TY_OWNER_GRANT, .grant = {.op = 9, .map = 1, .left_us = 1000, .weight = 10, .store = true, .ready = {1, 2},
			.count = 2, .blocks_per_chunk = 2, .offsets = offsets, .blocks = blocks}},
		{.type = TY_OWNER_CANCEL, .end.number = 9},
		{.type = TY_OWNER_DONE, .end.number = 9},
	};
	struct ty_owner_stream s;
	struct ty_error err;
	size_t length;

	if (index >= sizeof frames / sizeof frames[0])
		return SIZE_MAX;
	ty_owner_stream_open(&s, -1, TY_OWNER_TO_OWNER_MAX);
	FUZZ_CHECK(ty_owner_put(&s, &frames[index], &err) == TY_OK);
	length = s.out_length;
	memcpy(bytes, s.out, length);
	ty_owner_stream_close(&s);
	return length;
}
