/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "gpu.h"

#define NO_ENGINE_US 3600000000u /* however slow the machine, no kernel waits so long */

const unsigned char gpu_image[GPU_IMAGE] = {0x50, 0xed, 0x55, 0xba};
struct gpu g;

struct ty_device_options gpu_options(void)
{
	return (struct ty_device_options){.name = "cuda:0", .driver = g.driver.path, .kernels = gpu_image,
		.kernels_bytes = sizeof gpu_image, .waited_us = NO_ENGINE_US};
}

struct ty_device *gpu_open(const struct ty_device_options *options)
{
	struct ty_device *dev;
	struct ty_error err = {0};

	if (ty_device_open(options, &dev, &err) != TY_OK)
		fail_msg("%s", err.text);
	assert_int_equal(ty_device_register_host(dev, g.slots, GPU_SLOT_BYTES, &err), TY_OK);
	return dev;
}

void gpu_close(struct ty_device *dev)
{
	ty_device_unregister_host(dev, g.slots);
	ty_device_close(dev);
	assert_int_equal(g.driver.live(), 0);
}

struct ty_layout *gpu_pool(unsigned index)
{
	struct ty_layout *layout;
	struct ty_error err = {0};

	test_pool_build(index, &g.tp);
	if (g.layered)
		test_pool_steps(&g.tp);
	for (uint32_t i = 0; i < g.tp.pool.region_count; i++) {
		struct ty_region *r = &g.tp.regions[i];

		if (g.in_pieces) { /* with a seam in the middle, if it is large enough */
			r->offset = 2 * GPU_MIB - (r->length > 8192 ? r->length / 2 % (2 * GPU_MIB) / 4096 * 4096 : 0);
			engine_alloc_pieces(0, r);
		} else {
			engine_alloc(r);
		}
	}
	if (ty_layout_create(&g.tp.pool, g.tp.chunk_tokens, 64 * GPU_MIB, &layout, &err) != TY_OK)
		fail_msg("%s", err.text);
	return layout;
}

void gpu_set_up(struct test_trip *t, unsigned index, const struct ty_device_options *options)
{
	struct ty_error err = {0};

	memset(t, 0, sizeof *t);
	t->layout = gpu_pool(index);
	for (uint32_t i = 0; i < g.tp.pool.region_count; i++)
		t->view[i] = engine_view(&g.tp.regions[i]);
	t->dev = gpu_open(options);
	if (ty_device_map(t->dev, t->layout, g.tp.regions, &t->mapping, &err) != TY_OK)
		fail_msg("%s: %s", g.tp.name, err.text);
	t->pool = &g.tp;
	t->slots = g.slots;
	t->slot_bytes = GPU_SLOT_BYTES;
	t->random = index + 100;
}

void gpu_tear_down(struct test_trip *t)
{
	ty_device_unmap(t->dev, t->mapping);
	gpu_close(t->dev);
	for (uint32_t i = 0; i < g.tp.pool.region_count; i++)
		engine_unview(&g.tp.regions[i], t->view[i]);
	engine_free_all();
	free((void *)(uintptr_t)t->layout);
}

int gpu_prepare(void **state)
{
	(void)state;
	standin_open(&g.driver);
	engine_start();
	g.slots = mmap(NULL, GPU_SLOT_BYTES + 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return g.slots == MAP_FAILED;
}

int gpu_finish(void **state)
{
	(void)state;
	engine_stop();
	return 0;
}
