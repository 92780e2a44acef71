/* SPDX-License-Identifier: Apache-2.0 */
#include "embed_house.h"

#include <poll.h>
#include <unistd.h>

#include "base/tsan.h"

#define POOL_BYTES ((uint64_t)H_BLOCKS * H_PLANES * H_RUN)
#define CLOSE_US 60000000u

struct h_service service;

void start(void)
{
	h_prepare(&service);
	service.config.embed_uid = (struct ty_uids){1, {geteuid()}};
	h_start(&service);
}

struct ty_embed *open_owner(const char *fault)
{
	struct ty_embed_options o = {.size = sizeof o, .attach_path = service.config.attach, .device = "host", .name = "test", .fault = fault};
	struct ty_embed *embed;
	struct ty_error err = {.code = TY_OK};

	if (ty_embed_open(&o, &embed, &err) != TY_OK)
		fail_msg("%s: %s", ty_code_name(err.code), err.text);
	return embed;
}

void close_owner(struct ty_embed *embed)
{
	struct ty_error err = {.code = TY_OK};

	if (ty_embed_close(embed, CLOSE_US, &err) != TY_OK)
		fail_msg("%s", err.text);
}

struct ty_pool *own_pool(struct h_client *c)
{
	static struct ty_region region;
	struct ty_pool *pool = h_pool(c, 0, 1);

	region = (struct ty_region){.address = (uintptr_t)c->pool, .allocation_bytes = POOL_BYTES, .length = POOL_BYTES};
	pool->regions = &region;
	return pool;
}

enum ty_code offer_and_register(struct ty_embed *embed, struct h_client *c, uint32_t step_count, const uint32_t *steps)
{
	struct ty_pool *pool = own_pool(c);
	enum ty_code code;

	pool->step_count = step_count;
	pool->steps = steps;
	if (ty_embed_offer(embed, c->client, pool, &c->refused) != TY_OK)
		fail_msg("%s", c->refused.text);
	code = h_wait(c, ty_client_register(c->client, pool, h_done, c, &c->refused));
	if (code == TY_OK)
		c->registration = c->last.registered.registration;
	return code;
}

void open_client(struct ty_embed *embed, struct h_client *c)
{
	h_open(&service, c, NULL, "a", 0, 0);
	if (offer_and_register(embed, c, 0, NULL) != TY_OK)
		fail_msg("%s", c->error);
	assert_int_equal(c->last.registered.chunk_bytes, H_CHUNK_BYTES);
}

void must(struct h_client *c, enum ty_code code)
{
	if (code != TY_OK)
		fail_msg("%s: %s", ty_code_name(code), c->error);
}

enum ty_code own_store(struct h_client *c, uint64_t session, uint32_t count, uint32_t block)
{
	ty_tsan_release(c->pool);
	return h_store(c, session, 0, count, block);
}

enum ty_code own_retrieve(struct h_client *c, uint64_t session, uint32_t count, uint32_t block)
{
	enum ty_code code;

	ty_tsan_release(c->pool);
	code = h_retrieve(c, session, 0, count, block);
	ty_tsan_acquire(c->pool);
	return code;
}

const struct ty_transfer *a_store(struct h_client *c)
{
	static uint32_t ids[4 * H_PER_CHUNK], length = 4 * H_PER_CHUNK;
	static const uint32_t *lists[1] = {ids};
	static struct ty_transfer t;

	for (uint32_t i = 0; i < length; i++)
		ids[i] = i;
	t = (struct ty_transfer){.session = 1, .registration = c->registration, .count = 4, .blocks = lists, .block_counts = &length,
		.group_count = 1};
	return &t;
}

uint64_t stat_of(const _Atomic uint64_t *counter)
{
	return atomic_load(counter);
}

void wait_until(const _Atomic uint64_t *counter, uint64_t value)
{
	while (stat_of(counter) != value)
		poll(NULL, 0, 1);
}
