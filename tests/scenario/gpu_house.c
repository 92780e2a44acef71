/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu_house.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PIECE ((uint64_t)2 << 20)

void g_prepare(struct g_house *g)
{
	char settings[32];

	snprintf(settings, sizeof settings, "devices=%d,ops=4,forget=1", G_DEVICES);
	memset(g, 0, sizeof *g);
	standin_open(&g->driver);
	g->driver.set(settings);
	engine_start();
}

void g_finish(void)
{
	engine_stop();
}

void g_prepare_service(struct g_house *g, uint32_t devices)
{
	struct h_service *s = &g->service;

	h_prepare(s);
	for (uint32_t i = 0; i < devices; i++)
		snprintf(s->config.device[i], sizeof s->config.device[i], "cuda:%u", i);
	s->config.device_count = devices;
	snprintf(s->config.cuda_driver, sizeof s->config.cuda_driver, "%s", g->driver.path);
	snprintf(s->config.calibration, sizeof s->config.calibration, "off");
}

void g_start(struct g_house *g, uint32_t devices)
{
	g_prepare_service(g, devices);
	h_start(&g->service);
}

void g_stop(struct g_house *g)
{
	h_stop(&g->service);
	assert_int_equal(g->driver.live(), 0);
	/* the arena's registrations too: the owner takes back what it made */
	assert_int_equal(g->driver.count("cuMemHostUnregister"), g->driver.count("cuMemHostRegister"));
	engine_free_all();
}

int g_setup(void **state)
{
	g_start(*state, 1);
	return 0;
}

int g_teardown(void **state)
{
	g_stop(*state);
	return 0;
}

/* The region and the device of the client that registers next. */
static struct ty_region region;
static uint8_t uuid[TY_UUID_BYTES];

static void open_on(struct g_house *g, struct h_client *c, uint32_t device, bool pieces)
{
	const struct ty_client_info *info;

	h_open(&g->service, c, NULL, "a", 0, 0);
	info = ty_client_info(c->client);
	assert_true(device < info->device_count);
	memcpy(uuid, info->devices[device].uuid, sizeof uuid);
	munmap(c->pool, H_POOL_BYTES);
	region = (struct ty_region){.length = H_POOL_BYTES, .offset = pieces ? PIECE - H_POOL_BYTES / 2 : 0};
	if (pieces)
		engine_alloc_pieces(device, &region);
	else
		engine_alloc_on(device, &region);
	c->pool = engine_view(&region);
}

void g_open(struct g_house *g, struct h_client *c, uint32_t device)
{
	open_on(g, c, device, false);
}

void g_open_pieces(struct g_house *g, struct h_client *c, uint32_t device)
{
	open_on(g, c, device, true);
}

struct ty_pool *g_pool(struct h_client *c)
{
	struct ty_pool *pool = h_pool(c, 0, 1);

	pool->regions = &region;
	memcpy(pool->device, uuid, sizeof uuid);
	return pool;
}

enum ty_code g_register(struct h_client *c)
{
	enum ty_code code = h_wait(c, ty_client_register(c->client, g_pool(c), h_done, c, &c->refused));

	if (code == TY_OK)
		c->registration = c->last.registered.registration;
	return code;
}

void g_close(struct h_client *c)
{
	h_close(c);
}

void g_store(struct h_client *c, uint32_t base, uint32_t count)
{
	h_ok(c, h_lookup(c, 1, base, count));
	h_fill(c, base, count, 0);
	h_ok(c, h_store(c, 1, 0, count, 0));
	assert_int_equal(c->last.store.stored, count);
	h_ok(c, h_lookup(c, 1, base, count));
	assert_int_equal(c->last.lookup.hits, count);
}

uint32_t *g_ids(const struct ty_transfer *t)
{
	return (uint32_t *)(uintptr_t)t->blocks[0];
}
