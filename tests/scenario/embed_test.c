/* SPDX-License-Identifier: Apache-2.0
 *
 * An owner in the engine's process, over a service in another's stead: here both run in this process, or the engine in a child that is
 * killed. The blocks are ordinary memory (the host device), or a GPU's (the stand-in driver's).
 */
#include "harness.h"

#include <tyer/embed.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actors/service.h"
#include "wire/attach.h"
#include "wire/owner.h"

#define POOL_BYTES ((uint64_t)H_BLOCKS * H_PLANES * H_RUN)
#define CLOSE_US 60000000u

static struct h_service service;

static void start(void)
{
	h_prepare(&service);
	service.config.embed_uid = (struct ty_uids){1, {geteuid()}};
	h_start(&service);
}

static struct ty_embed *open_owner(const char *fault)
{
	struct ty_embed_options o = {.size = sizeof o, .attach_path = service.config.attach, .device = "host", .name = "test", .fault = fault};
	struct ty_embed *embed;
	struct ty_error err = {.code = TY_OK};

	if (ty_embed_open(&o, &embed, &err) != TY_OK)
		fail_msg("%s: %s", ty_code_name(err.code), err.text);
	return embed;
}

static void close_owner(struct ty_embed *embed)
{
	struct ty_error err = {.code = TY_OK};

	if (ty_embed_close(embed, CLOSE_US, &err) != TY_OK)
		fail_msg("%s", err.text);
}

/* The harness's pool, by its address. */
static struct ty_pool *own_pool(struct h_client *c)
{
	static struct ty_region region;
	struct ty_pool *pool = h_pool(c, 0, 1);

	region = (struct ty_region){.address = (uintptr_t)c->pool, .allocation_bytes = POOL_BYTES, .length = POOL_BYTES};
	pool->regions = &region;
	return pool;
}

static enum ty_code offer_and_register(struct ty_embed *embed, struct h_client *c)
{
	struct ty_pool *pool = own_pool(c);
	enum ty_code code;

	if (ty_embed_offer(embed, c->client, pool, &c->refused) != TY_OK)
		fail_msg("%s", c->refused.text);
	code = h_wait(c, ty_client_register(c->client, pool, h_done, c, &c->refused));
	if (code == TY_OK)
		c->registration = c->last.registered.registration;
	return code;
}

static void open_client(struct ty_embed *embed, struct h_client *c)
{
	h_open(&service, c, NULL, "a", 0, 0);
	if (offer_and_register(embed, c) != TY_OK)
		fail_msg("%s", c->error);
	assert_int_equal(c->last.registered.chunk_bytes, H_CHUNK_BYTES);
}

static void must(struct h_client *c, enum ty_code code)
{
	if (code != TY_OK)
		fail_msg("%s: %s", ty_code_name(code), c->error);
}

/* What one stored another finds, through the service's owner as well as through one of its own. */
static void test_round_trip(void **state)
{
	struct ty_embed_stats stats;
	struct h_client c, other;
	struct ty_embed *embed;

	(void)state;
	start();
	embed = open_owner(NULL);
	assert_int_equal(ty_embed_state(embed), TY_OK);
	open_client(embed, &c);
	h_open(&service, &other, NULL, "a", 0, 1);

	h_fill(&c, 100, 16, 0);
	must(&c, h_lookup(&c, 1, 100, 16));
	must(&c, h_store(&c, 1, 0, 16, 0));
	assert_int_equal(c.last.store.stored, 16);
	must(&other, h_lookup(&other, 1, 100, 16));
	assert_int_equal(other.last.lookup.hits, 16);
	must(&other, h_retrieve(&other, 1, 0, 16, 64));
	assert_int_equal(h_wrong(&other, 100, 16, 64), 0);

	h_fill(&other, 200, 16, 0);
	must(&other, h_lookup(&other, 2, 200, 16));
	must(&other, h_store(&other, 2, 0, 16, 0));
	must(&c, h_lookup(&c, 2, 200, 16));
	h_wipe(&c, 64 / H_PER_CHUNK, 64);
	must(&c, h_retrieve(&c, 2, 0, 16, 64));
	assert_int_equal(h_wrong(&c, 200, 16, 64), 0);

	ty_embed_stats(embed, &stats);
	assert_int_equal(stats.stored_bytes, 16 * H_CHUNK_BYTES);
	assert_int_equal(stats.retrieved_bytes, 16 * H_CHUNK_BYTES);
	assert_int_equal(stats.failed, 0);
	assert_int_equal(atomic_load(&service.service->embedded_stats.stored_bytes), 16 * H_CHUNK_BYTES);
	must(&c, h_wait(&c, ty_client_unregister(c.client, c.registration, h_done, &c, &c.refused)));
	h_close(&c);
	h_close(&other);
	close_owner(embed);
	h_stop(&service);
}

static void test_who_may(void **state)
{
	struct ty_embed_options o = {.size = sizeof o, .device = "host"};
	struct ty_embed *embed;
	struct ty_error err = {.code = TY_OK};

	(void)state;
	h_prepare(&service);
	h_start(&service);
	o.attach_path = service.config.attach;
	assert_int_equal(ty_embed_open(&o, &embed, &err), TY_DENIED);
	assert_non_null(strstr(err.text, "--embed-uid"));
	h_stop(&service);
	assert_int_equal(ty_embed_open(&o, &embed, &err), TY_CLOSED);
	o.device = NULL;
	assert_int_equal(ty_embed_open(&o, &embed, &err), TY_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_who_may),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
