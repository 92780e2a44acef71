/* SPDX-License-Identifier: Apache-2.0
 *
 * An owner in the engine's process, over a service in another's stead: here both run in this process. The blocks are ordinary memory (the
 * host device), or a GPU's (the stand-in driver's).
 */
#include "embed_house.h"

#include <stdlib.h>
#include <string.h>

#include "base/tsan.h"

#define LAYERED_CHUNKS 16u
#define LAYERED_ROUNDS 50u

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
	must(&c, own_store(&c, 1, 16, 0));
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
	must(&c, own_retrieve(&c, 2, 16, 64));
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

/* Memory of the engine's that is an allocation a plane, as most engines have it; and that no two regions of a pool may be. */
static void test_many_regions(void **state)
{
	const uint64_t bytes = (uint64_t)H_BLOCKS * H_RUN;
	struct ty_region regions[H_PLANES];
	struct ty_plane planes[H_PLANES];
	struct ty_group group;
	struct ty_embed *embed;
	struct ty_pool *pool;
	struct h_client c;

	(void)state;
	start();
	embed = open_owner(NULL);
	h_open(&service, &c, NULL, "a", 0, 0);
	pool = own_pool(&c);
	for (uint32_t i = 0; i < H_PLANES; i++) {
		regions[i] = (struct ty_region){.address = (uintptr_t)c.pool + i * bytes, .allocation_bytes = bytes, .length = bytes};
		planes[i] = (struct ty_plane){i, 0};
	}
	group = pool->groups[0];
	group.planes = planes;
	pool->groups = &group;
	pool->regions = regions;
	pool->region_count = H_PLANES;
	regions[2].address -= H_RUN;
	assert_int_equal(ty_embed_offer(embed, c.client, pool, &c.refused), TY_INVALID);
	assert_non_null(strstr(c.refused.text, "regions[1] and regions[2]"));
	regions[2].address += H_RUN;
	regions[3].address = UINTPTR_MAX - 63;
	assert_int_equal(ty_embed_offer(embed, c.client, pool, &c.refused), TY_INVALID);
	assert_non_null(strstr(c.refused.text, "regions[3].address"));
	regions[3].address = (uintptr_t)c.pool + 3 * bytes;
	if (ty_embed_offer(embed, c.client, pool, &c.refused) != TY_OK)
		fail_msg("%s", c.refused.text);
	must(&c, h_wait(&c, ty_client_register(c.client, pool, h_done, &c, &c.refused)));
	c.registration = c.last.registered.registration;
	h_fill(&c, 100, 16, 0);
	must(&c, h_lookup(&c, 1, 100, 16));
	must(&c, own_store(&c, 1, 16, 0));
	must(&c, h_lookup(&c, 2, 100, 16));
	must(&c, own_retrieve(&c, 2, 16, 64));
	assert_int_equal(h_wrong(&c, 100, 16, 64), 0);
	h_close(&c);
	close_owner(embed);
	h_stop(&service);
}

/* The service may have a pool mapped as soon as it was offered, whatever else the link has in its mailbox. */
static void test_offers_count_at_once(void **state)
{
	struct ty_embed *embed;
	struct h_client c;

	(void)state;
	start();
	embed = open_owner(NULL);
	h_open(&service, &c, NULL, "a", 0, 0);
	for (int i = 0; i < 500; i++) {
		must(&c, offer_and_register(embed, &c, 0, NULL));
		must(&c, h_wait(&c, ty_client_unregister(c.client, c.registration, h_done, &c, &c.refused)));
	}
	h_close(&c);
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

/* Layer by layer: each layer's blocks are looked at as soon as its word is there, while the owner goes on with the next. Both threads see
 * blocks and words at the same addresses, so that ThreadSanitizer sees what orders them: the words, and nothing else. */
static void test_layers(void **state)
{
	static const uint32_t steps[H_PLANES] = {1, 2, 3, 4};
	struct ty_embed *embed;
	struct h_client c;

	(void)state;
	start();
	embed = open_owner(NULL);
	h_open(&service, &c, NULL, "a", 0, 0);
	must(&c, offer_and_register(embed, &c, H_PLANES, steps));
	h_fill(&c, 100, LAYERED_CHUNKS, 0);
	must(&c, h_lookup(&c, 1, 100, LAYERED_CHUNKS));
	must(&c, own_store(&c, 1, LAYERED_CHUNKS, 0));
	must(&c, h_lookup(&c, 2, 100, LAYERED_CHUNKS));
	for (uint64_t round = 0; round < LAYERED_ROUNDS; round++) {
		struct ty_transfer t = h_transfer(&c, 2, 0, LAYERED_CHUNKS, H_BLOCKS / 2);

		t.layers = (struct ty_mark){9, 1 + round * H_PLANES};
		h_wipe(&c, LAYERED_CHUNKS, H_BLOCKS / 2);
		ty_tsan_release(c.pool); /* as own_retrieve */
		h_send(&c, ty_client_retrieve(c.client, &t, h_done, &c, &c.refused));
		for (uint32_t plane = 0; plane < H_PLANES; plane++) {
			while (!ty_client_reached(c.client, (struct ty_mark){9, t.layers.value + plane}))
				ty_client_poll(c.client, 0, 100);
			assert_int_equal(h_wrong_in_plane(&c, 100, LAYERED_CHUNKS, H_BLOCKS / 2, plane), 0);
		}
		must(&c, h_answer(&c));
	}
	h_close(&c);
	close_owner(embed);
	h_stop(&service);
}

static void on_late(void *user, const struct ty_result *result)
{
	*(int *)user = (int)result->code;
}

/* It is given up, or its session ends, while its copy waits: the answer comes in time, and what was granted comes home. */
static void test_late(void **state)
{
	struct ty_transfer t;
	struct ty_embed *embed;
	struct h_client c;
	int late = -1;

	(void)state;
	start();
	embed = open_owner(NULL);
	open_client(embed, &c);
	h_fill(&c, 500, 4, 0);
	must(&c, h_lookup(&c, 1, 500, 4));
	t = *a_store(&c);
	t.ready = (struct ty_mark){1, 1}; /* which nobody raises */
	assert_int_equal(ty_client_store(c.client, &t, on_late, &late, &c.refused), TY_OK);
	uint64_t id = ty_client_last_id(c.client);

	wait_until(&service.service->embedded_stats.out, 1);
	must(&c, h_end(&c, 1)); /* the lease is gone, the operation goes on */
	must(&c, h_wait(&c, ty_client_cancel(c.client, id, h_done, &c, &c.refused)));
	wait_until(&service.service->embedded_stats.out, 0);
	wait_until(&service.service->eviction_stats.used_bytes, 0);
	while (late < 0)
		ty_client_poll(c.client, 0, 1000);
	assert_int_equal(late, TY_CANCELLED);
	/* and again, raised: a retrieve whose lease ends while it waits brings what it found */
	must(&c, h_lookup(&c, 2, 500, 4));
	must(&c, own_store(&c, 2, 4, 0));
	must(&c, h_lookup(&c, 3, 500, 4));
	h_wipe(&c, 4, 0);
	t.session = 3;
	t.ready = (struct ty_mark){2, 1};
	t.done = (struct ty_mark){3, 1};
	late = -1;
	ty_tsan_release(c.pool);
	assert_int_equal(ty_client_retrieve(c.client, &t, on_late, &late, &c.refused), TY_OK);
	wait_until(&service.service->embedded_stats.out, 1);
	must(&c, h_end(&c, 3));
	ty_client_raise(c.client, t.ready);
	while (late < 0)
		ty_client_poll(c.client, 0, 1000);
	assert_int_equal(late, TY_OK);
	assert_true(ty_client_reached(c.client, t.done));
	ty_tsan_acquire(c.pool);
	assert_int_equal(h_wrong(&c, 500, 4, 0), 0);
	h_close(&c);
	close_owner(embed);
	h_stop(&service);
}

/* The device fails under the owner: whoever asks how it is hears so. */
static void test_device_fails(void **state)
{
	struct ty_embed_options o = {.size = sizeof o, .device = "cuda:0", .driver = getenv("TYER_STANDIN_LIBRARY"), .sharing = TY_EMBED_QUIET};
	struct ty_embed *embed;
	struct ty_error err = {.code = TY_OK};
	struct h_client c;

	(void)state;
	start();
	o.attach_path = service.config.attach;
	if (ty_embed_open(&o, &embed, &err) != TY_OK)
		fail_msg("%s", err.text);
	assert_int_equal(ty_embed_state(embed), TY_OK);
	h_open(&service, &c, NULL, "a", 0, 0);
	assert_int_equal(offer_and_register(embed, &c, 0, NULL), TY_DEVICE_FAILED); /* at the pool's first address (meson.build) */
	while (ty_embed_state(embed) == TY_OK)
		ty_client_poll(c.client, 0, 1000);
	assert_int_equal(ty_embed_state(embed), TY_DEVICE_FAILED);
	assert_int_equal(offer_and_register(embed, &c, 0, NULL), TY_DEVICE_FAILED);
	h_close(&c);
	close_owner(embed);
	h_stop(&service);
}

/* Another service with the same arena: the owner and the client come back by themselves, and what was stored is there. */
static void test_service_comes_back(void **state)
{
	struct ty_embed *embed;
	struct h_client c;

	(void)state;
	start();
	embed = open_owner(NULL);
	open_client(embed, &c);
	h_fill(&c, 700, 4, 0);
	must(&c, h_lookup(&c, 1, 700, 4));
	must(&c, own_store(&c, 1, 4, 0));
	h_restart(&service, NULL);
	do
		ty_client_poll(c.client, 0, 10000);
	while (ty_client_state(c.client, NULL) != TY_CLIENT_UP);
	do {
		must(&c, h_lookup(&c, 2, 700, 4));
	} while (c.last.lookup.hits != 4);
	h_wipe(&c, 4, 0);
	must(&c, own_retrieve(&c, 2, 4, 0));
	assert_int_equal(h_wrong(&c, 700, 4, 0), 0);
	assert_int_equal(ty_embed_state(embed), TY_OK);
	h_close(&c);
	close_owner(embed);
	h_stop(&service);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_layers),
		cmocka_unit_test(test_many_regions),
		cmocka_unit_test(test_offers_count_at_once),
		cmocka_unit_test(test_who_may),
		cmocka_unit_test(test_late),
		cmocka_unit_test(test_device_fails),
		cmocka_unit_test(test_service_comes_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
