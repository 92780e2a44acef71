/* SPDX-License-Identifier: Apache-2.0
 *
 * The way to the baseline: one request at a time.
 */
#include <string.h>

#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>

#include "gpu_load.h"
#include "gpu_threads.h"

static nng_socket sock;

static void must(struct load_engine *e, const char *what, int result)
{
	if (result)
		load_failed(e, "the baseline: %s: %s", what, nng_strerror(result));
}

static uint32_t ask(struct load_engine *e, nng_msg *msg)
{
	struct plain_reply reply;

	must(e, "send", nng_sendmsg(sock, msg, 0));
	must(e, "receive", nng_recvmsg(sock, &msg, 0));
	if (nng_msg_len(msg) != sizeof reply)
		load_failed(e, "the baseline: a reply of %zu bytes", nng_msg_len(msg));
	memcpy(&reply, nng_msg_body(msg), sizeof reply);
	nng_msg_free(msg);
	return reply.value;
}

static nng_msg *request(struct load_engine *e, const struct plain_request *r)
{
	nng_msg *msg;

	must(e, "a message", nng_msg_alloc(&msg, 0));
	must(e, "a message", nng_msg_append(msg, r, sizeof *r));
	return msg;
}

static void plain_open(struct load_engine *e, const uint8_t id[16])
{
	(void)id;
	must(e, "a socket", nng_req0_open(&sock));
	must(e, "a socket", nng_setopt_ms(sock, NNG_OPT_RECVTIMEO, 60000));
	must(e, "a socket", nng_setopt_ms(sock, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE));
	must(e, options.connect, nng_dial(sock, options.connect, NULL, 0));
}

static void plain_join(struct load_engine *e)
{
	struct plain_request r = {.verb = PLAIN_REGISTER, .pool = {.device = e->ordinal, .planes = e->planes, .run_bytes = e->run_bytes,
		.block_count = e->block_count, .blocks_per_chunk = e->blocks_per_chunk, .block_stride = e->block_stride,
		.plane_stride = e->plane_stride}};

	memcpy(r.pool.handle, e->region.ipc_handle, sizeof r.pool.handle);
	e->registration = ask(e, request(e, &r));
}

static void plain_close(struct load_engine *e)
{
	const struct plain_request r = {.verb = PLAIN_UNREGISTER, .client = e->registration};

	if (e->gpu)
		(void)ask(e, request(e, &r));
	nng_close(sock);
}

static uint32_t transfer(struct load_engine *e, bool store, uint64_t generation, uint32_t first, uint32_t count, uint32_t shift)
{
	const struct plain_request r = {.verb = store ? PLAIN_STORE : PLAIN_RETRIEVE, .client = e->registration, .count = count};
	nng_msg *msg = request(e, &r);

	for (uint32_t c = first; c < first + count; c++) {
		uint8_t key[TY_KEY_BYTES];

		load_key(generation, c, key);
		must(e, "a message", nng_msg_append(msg, key, sizeof key));
	}
	for (uint32_t c = first; c < first + count; c++)
		must(e, "a message", nng_msg_append(msg, load_blocks(e, c, shift), e->blocks_per_chunk * sizeof(uint32_t)));
	return ask(e, msg);
}

static uint32_t move(struct load_engine *e, bool store, uint64_t generation, uint32_t shift)
{
	for (uint32_t c = 0; c < e->chunks; c += LOAD_OP_CHUNKS) {
		uint32_t count = e->chunks - c < LOAD_OP_CHUNKS ? e->chunks - c : LOAD_OP_CHUNKS;
		uint32_t moved = transfer(e, store, generation, c, count, shift);

		if (moved < count)
			return c + moved;
		atomic_fetch_add_explicit(&e->line->bytes[!store], count * e->chunk_bytes, memory_order_relaxed);
	}
	return e->chunks;
}

static void plain_store(struct load_engine *e, uint64_t generation, uint32_t shift)
{
	(void)move(e, true, generation, shift);
}

static uint32_t plain_retrieve(struct load_engine *e, uint64_t generation, uint32_t shift)
{
	return move(e, false, generation, shift);
}

static void plain_ping(struct load_engine *e)
{
	const struct plain_request r = {.verb = PLAIN_PING};

	(void)ask(e, request(e, &r));
}

const struct load_way load_plain = {
	.open = plain_open,
	.join = plain_join,
	.close = plain_close,
	.store = plain_store,
	.retrieve = plain_retrieve,
	.ping = plain_ping,
};
