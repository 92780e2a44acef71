/* SPDX-License-Identifier: Apache-2.0
 *
 * A real engine actor on one thread with a logical clock; everybody around it is played by the test: what the engine sends to an owner or to
 * eviction stays there until the test sends it back.
 */
#ifndef TY_TESTS_ENGINE_HOUSE_H
#define TY_TESTS_ENGINE_HOUSE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "actors/engine.h"
#include "actors/service.h"

#define H_CHUNK_TOKENS 64
#define H_BLOCK_TOKENS 16
#define H_PER_CHUNK (H_CHUNK_TOKENS / H_BLOCK_TOKENS)
#define H_OP_CHUNKS 64 /* of one operation, at most */
#define H_BLOCKS 8192
#define H_RUN 16
#define H_FOR_EVER 1000000000000 /* ns */

struct house {
	struct ty_config config;
	struct ty_runtime *rt;
	struct ty_service *service;
	struct ty_space_record *spaces;
	struct ty_actor *engine;
	uint64_t last_client, last_id;
	int more_fd; /* not 0: REGISTER has a second region, under this number */
	/* With the owner, and with eviction: oldest first. */
	struct ty_map *maps[16];
	bool unmap[16]; /* is it one to be undone? */
	uint32_t map_count;
	struct ty_op *ops[256];
	uint32_t op_count;
	struct ty_engine_end *idle; /* with clients: nobody is there, and all is back */
};

/* A request of a client's and its answer. */
struct call {
	struct ty_exchange x;
	Tyer__V1__Request request;
	union {
		Tyer__V1__Register reg;
		Tyer__V1__Unregister unregister;
		Tyer__V1__Lookup lookup;
		Tyer__V1__Store store;
		Tyer__V1__Flush flush;
		Tyer__V1__EndSession end;
	} verb;
	Tyer__V1__Chain chain;
	Tyer__V1__BlockIds ids, *ids_list[1];
	uint32_t blocks[H_OP_CHUNKS * H_PER_CHUNK];
	uint8_t hashes[H_OP_CHUNKS * TY_KEY_BYTES];
	uint32_t answers;
	enum ty_code code;
	uint32_t registration, hits;
};

int house_open(void **state); /* for cmocka: *state is a struct house */
int house_close(void **state); /* nobody is there any more, and the engine is idle */
void house_run(struct house *h); /* until nobody has anything to do; timers stay where they are */
void house_pass(struct house *h, int64_t ns); /* and so much time */

struct ty_member *house_join(struct house *h);
void house_leave(struct house *h, struct ty_member *m);

/* Sent, and not run. REGISTER: its pool begins at `offset` of an IPC handle (fd < 0), or of the descriptor that was sent with number `fd`. */
struct call *house_register(struct house *h, const struct ty_member *m, uint64_t offset, int fd, const char *format, int64_t timeout);
struct call *house_unregister(struct house *h, const struct ty_member *m, uint32_t registration, uint64_t request);
struct call *house_lookup(struct house *h, const struct ty_member *m, uint64_t session, uint32_t chunks);
struct call *house_store(struct house *h, const struct ty_member *m, uint64_t session, uint32_t registration, uint32_t first_block);
struct call *house_flush(struct house *h, const struct ty_member *m, uint32_t registration, uint32_t first_block, uint32_t blocks);
/* Run, expect exactly one answer by now, free; returns what it said. */
struct call house_end(struct house *h, struct call *call);

/* The oldest one goes home. `code`: of a MAP. */
void house_send_map(struct house *h, enum ty_code code);
void house_land(struct house *h, uint64_t op); /* and this op */

/* A REGISTER that succeeds: its number. */
uint32_t house_have_pool(struct house *h, const struct ty_member *m, uint64_t offset, const char *format);

#endif
