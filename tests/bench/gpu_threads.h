/* SPDX-License-Identifier: Apache-2.0
 *
 * What travels between the baseline and its clients: one struct, then `count` keys, then `count` * blocks_per_chunk ids.
 */
#ifndef TY_BENCH_GPU_THREADS_H
#define TY_BENCH_GPU_THREADS_H

#include <stdint.h>

#include <tyer/client.h>

#define PLAIN_CHUNKS_MAX 256

enum plain_verb { PLAIN_PING, PLAIN_REGISTER, PLAIN_STORE, PLAIN_RETRIEVE, PLAIN_UNREGISTER };

struct plain_pool {
	uint32_t device, planes, run_bytes, block_count, blocks_per_chunk;
	uint64_t block_stride, plane_stride;
	uint8_t handle[TY_IPC_HANDLE_BYTES];
};
struct plain_request {
	uint32_t verb, client, count;
	struct plain_pool pool; /* REGISTER */
};
struct plain_reply {
	uint32_t failed;
	uint32_t value; /* REGISTER: the client's number; STORE and RETRIEVE: chunks moved */
	char error[120];
};

#endif
