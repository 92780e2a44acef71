/* SPDX-License-Identifier: Apache-2.0
 *
 * What cannot be had, and what is refused: at open, of clients' memory, of host memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/cuda_api.h"
#include "gpu.h"

/* Less staging than asked for is a note; none is a refusal. No image, or a wrong one, is a note. */
static void degrades(void **state)
{
	static const unsigned char junk[64] = {1};
	struct ty_device_options o = gpu_options();
	struct ty_device *dev;
	struct ty_error err;

	(void)state;
	g.driver.set("memory=40000000");
	dev = gpu_open(&o);
	assert_non_null(strstr(ty_device_note(dev), "staging has 20971520 bytes"));
	gpu_close(dev);
	g.driver.set("memory=4000000");
	assert_int_equal(ty_device_open(&o, &dev, &err), TY_NO_MEMORY);
	assert_non_null(strstr(err.text, "staging"));
	assert_int_equal(g.driver.live(), 0);
	g.driver.set("memory=4294967296");

	o.kernels = junk;
	dev = gpu_open(&o);
	assert_non_null(strstr(ty_device_note(dev), "CUDA_ERROR_INVALID_IMAGE"));
	gpu_close(dev);
	o.kernels_bytes = 0;
	dev = gpu_open(&o);
	assert_non_null(strstr(ty_device_note(dev), "no kernels"));
	gpu_close(dev);
}

static void refuse_open(const struct ty_device_options *o, enum ty_code want, const char *words)
{
	struct ty_device *dev;
	struct ty_error err = {0};
	enum ty_code code = ty_device_open(o, &dev, &err);

	if (code != want || !strstr(err.text, words))
		fail_msg("expected %s with \"%s\", got %s: %s", ty_code_name(want), words, ty_code_name(code), err.text);
	assert_null(dev);
	assert_int_equal(g.driver.live(), 0);
}

static void open_refusals(void **state)
{
	static const char *const needed[] = {
#define NAME(name, suffix, parameters) #name,
		TY_CUDA_FUNCTIONS(NAME)
#undef NAME
	};
	static const char *const steps[] = {"cuInit", "cuDriverGetVersion", "cuDeviceGetCount", "cuDeviceGet",
		"cuDevicePrimaryCtxRetain", "cuCtxSetCurrent", "cuDeviceGetName", "cuDeviceGetUuid", "cuDeviceGetAttribute",
		"cuStreamCreate", "cuEventCreate", "cuMemHostAlloc", "cuLaunchKernel"};
	struct ty_device_options o = gpu_options();
	char setting[80];

	(void)state;
	o.driver = "/nonexistent/libcuda.so.1";
	refuse_open(&o, TY_UNSUPPORTED, "no CUDA driver");
	o.driver = g.driver.path;
	o.fault = "delay-us=1";
	refuse_open(&o, TY_INVALID, "host device only");
	o.fault = NULL;
	o.name = "cuda:2";
	refuse_open(&o, TY_INVALID, "2 devices");
	o.name = "cuda:0";
	o.staging_bytes = 4 * GPU_MIB - 1;
	refuse_open(&o, TY_INVALID, "staging");
	o.staging_bytes = 0;
	o.tile_bytes = 4096;
	refuse_open(&o, TY_INVALID, "tile");
	o.tile_bytes = 0;
	o.copy_streams = 5;
	refuse_open(&o, TY_INVALID, "copy streams");
	o.copy_streams = 0;
	o.path = TY_PATHS;
	refuse_open(&o, TY_INVALID, "path");
	o.path = TY_PATH_PLANNED;
	for (unsigned i = 0; i < sizeof needed / sizeof needed[0]; i++) {
		snprintf(setting, sizeof setting, "missing=%s", needed[i]);
		g.driver.set(setting);
		refuse_open(&o, TY_UNSUPPORTED, needed[i]);
	}
	g.driver.set("missing=");
	g.driver.set("version=11030");
	refuse_open(&o, TY_UNSUPPORTED, "cuInit"); /* such a driver does not know the interface that is asked for */
	g.driver.set("version=13000");
	for (unsigned i = 0; i < sizeof steps / sizeof steps[0]; i++) {
		g.driver.inject(steps[i], 1, CU_INVALID_VALUE);
		refuse_open(&o, TY_DEVICE_FAILED, steps[i]);
	}
	for (uint64_t nth = 2; nth <= 33; nth++) { /* halfway through the events */
		g.driver.inject("cuEventCreate", nth, CU_OUT_OF_MEMORY);
		refuse_open(&o, TY_NO_MEMORY, "cuEventCreate");
	}
	g.driver.inject("cuInit", 1, CU_NO_DEVICE);
	refuse_open(&o, TY_UNSUPPORTED, "CUDA_ERROR_NO_DEVICE");
}

static void refuse_map(struct ty_device *dev, const struct ty_layout *layout, enum ty_code want, const char *words)
{
	uint64_t live = g.driver.live();
	struct ty_mapping *mapping;
	struct ty_error err = {0};
	enum ty_code code = ty_device_map(dev, layout, g.tp.regions, &mapping, &err);

	if (code != want || !strstr(err.text, words))
		fail_msg("expected %s with \"%s\", got %s: %s", ty_code_name(want), words, ty_code_name(code), err.text);
	assert_null(mapping);
	assert_int_equal(g.driver.live(), live);
	assert_int_equal(ty_device_health(dev, &err), TY_OK);
}

/* Many pieces are mapped and unmapped in turns, a few calls each; what fails in between lets go of all of it. */
static void pieces_in_turns(void **state)
{
	static const char *const calls[] = {"cuMemAddressReserve", "cuMemImportFromShareableHandle", "cuMemMap", "cuMemSetAccess"};
	struct ty_device_options o = gpu_options();
	struct ty_layout *layout = NULL;
	struct ty_mapping *m = NULL;
	struct ty_segment wrong[20];
	unsigned turns = 1, closing = 1, count = 0;
	struct ty_device *dev;
	struct ty_error err = {0};
	enum ty_code code;
	uint64_t live;

	(void)state;
	test_pool_build(0, &g.tp);
	g.tp.regions[0].offset = 19 * 2 * GPU_MIB;
	for (uint32_t i = 0; i < g.tp.pool.region_count; i++) {
		engine_alloc_pieces(0, &g.tp.regions[i]);
		count += g.tp.regions[i].segment_count;
	}
	assert_int_equal(g.tp.regions[0].segment_count, 20);
	assert_int_equal(ty_layout_create(&g.tp.pool, g.tp.chunk_tokens, 64 * GPU_MIB, &layout, &err), TY_OK);
	dev = gpu_open(&o);
	live = g.driver.live();
	while ((code = ty_device_map_some(dev, layout, g.tp.regions, &m, &err)) == TY_BUSY)
		turns++;
	if (code != TY_OK)
		fail_msg("%s", err.text);
	assert_int_equal(turns, (count + 7) / 8);
	while (!ty_device_unmap_some(dev, m))
		closing++;
	assert_int_equal(closing, (count + g.tp.pool.region_count + 7) / 8);
	assert_int_equal(g.driver.live(), live);

	for (unsigned i = 0; i < sizeof calls / sizeof calls[0]; i++) {
		g.driver.inject(calls[i], i ? 18 : 1, CU_OUT_OF_MEMORY);
		refuse_map(dev, layout, TY_NO_MEMORY, i ? calls[i] : "addresses");
	}
	memcpy(wrong, g.tp.regions[0].segments, sizeof wrong);
	g.tp.regions[0].segments = wrong;
	wrong[3].bytes += 4096;
	refuse_map(dev, layout, TY_INVALID, "segments[3].bytes: 2101248, expected a multiple of 2097152");
	wrong[3].bytes = UINT64_MAX / GPU_MIB / 2 * 2 * GPU_MIB;
	refuse_map(dev, layout, TY_INVALID, "do");
	wrong[3].bytes = 4 * GPU_MIB; /* more than there is; the driver says so */
	refuse_map(dev, layout, TY_INVALID, "allocation_bytes: 41943040, but its segments have 44040192");
	wrong[2].fd = wrong[3].fd; /* a piece twice is what the client says it is */
	g.tp.regions[0].allocation_bytes += 2 * GPU_MIB;
	refuse_map(dev, layout, TY_INVALID, "segments[3]: cuMemMap does not take it as 4194304 bytes of cuda:0");
	g.tp.regions[0].allocation_bytes -= 2 * GPU_MIB;
	wrong[3] = (struct ty_segment){0, 2 * GPU_MIB}; /* no memory at all */
	refuse_map(dev, layout, TY_INVALID, "segments[3]: cuMemImportFromShareableHandle");
	wrong[3].fd = 100000;
	refuse_map(dev, layout, TY_INVALID, "segments[3]: cuMemImportFromShareableHandle");
	gpu_close(dev);
	free(layout);
	engine_free_all();
}

static void map_refusals(void **state)
{
	struct ty_device_options o = gpu_options();
	struct ty_layout *layout = gpu_pool(2);
	struct ty_device *dev = gpu_open(&o);
	struct standin_handle h;
	struct ty_region good;

	(void)state;
	good = g.tp.regions[3];
#define REFUSED(change, code, words)                                                                                   \
	change;                                                                                                        \
	refuse_map(dev, layout, code, words);                                                                          \
	g.tp.regions[3] = good
	REFUSED(g.tp.regions[3].is_fd = true, TY_INVALID, "regions[3].segments[0]: cuMemImportFromShareableHandle does not take it");
	REFUSED(memset(g.tp.regions[3].ipc_handle, 0, 64), TY_INVALID, "regions[3].ipc_handle");
	REFUSED(g.tp.regions[3].allocation_bytes++, TY_INVALID, "regions[3].allocation_bytes");
	REFUSED(g.tp.regions[3].offset = g.tp.regions[3].allocation_bytes, TY_INVALID, "regions[3]: offset");
	REFUSED(g.tp.regions[3].offset = UINT64_MAX - 15, TY_INVALID, "regions[3]: offset");
	REFUSED(g.tp.regions[3].length += 16, TY_INVALID, "regions[3].length");
	REFUSED(g.tp.regions[3].offset = 8, TY_INVALID, "regions[3]: its first byte");
	memcpy(&h, good.ipc_handle, sizeof h);
	h.device = 1;
	REFUSED(memcpy(g.tp.regions[3].ipc_handle, &h, 64), TY_INVALID, "regions[3].ipc_handle");
	REFUSED(g.driver.inject("cuIpcOpenMemHandle", 4, CU_OUT_OF_MEMORY), TY_NO_MEMORY, "regions[3].ipc_handle");
	REFUSED(g.driver.inject("cuMemGetAddressRange", 4, CU_INVALID_VALUE), TY_DEVICE_FAILED, "cuMemGetAddressRange");
	REFUSED(g.driver.inject("cuMemAlloc", 1, CU_OUT_OF_MEMORY), TY_NO_MEMORY, "plane table");
	REFUSED(g.driver.inject("cuMemcpyHtoDAsync", 1, CU_INVALID_VALUE), TY_DEVICE_FAILED, "plane table");
#undef REFUSED
	gpu_close(dev);
	engine_free_all();
	free(layout);
}

/* A driver that answers "unknown error", which is one that stays elsewhere, to what clients send: the client is refused, the device
 * goes on. */
static void unknown_handles(void **state)
{
	struct ty_device_options o = gpu_options();
	struct test_trip t;
	struct ty_segment wrong = {0, 2 * GPU_MIB};
	struct ty_region good;

	(void)state;
	gpu_set_up(&t, 0, &o);
	good = g.tp.regions[1];
	g.driver.set("unknown=1");
	memset(g.tp.regions[1].ipc_handle, 0, 64);
	refuse_map(t.dev, t.layout, TY_INVALID, "regions[1].ipc_handle: the driver does not open it on cuda:0: CUDA_ERROR_UNKNOWN (999)");
	g.tp.regions[1].segments = &wrong;
	g.tp.regions[1].segment_count = 1;
	g.tp.regions[1].allocation_bytes = 2 * GPU_MIB;
	refuse_map(t.dev, t.layout, TY_INVALID, "regions[1].segments[0]: cuMemImportFromShareableHandle does not take it");
	g.driver.set("unknown=0");
	g.tp.regions[1] = good;
	test_round_trip(&t);
	gpu_tear_down(&t);
}

/* One handle, opened once: two regions of one mapping, and two mappings. */
static void handles_are_shared(void **state)
{
	struct ty_device_options o = gpu_options();
	struct ty_layout *layout = gpu_pool(0);
	struct ty_device *dev = gpu_open(&o);
	uint64_t opened = g.driver.count("cuIpcOpenMemHandle"), closed = g.driver.count("cuIpcCloseMemHandle");
	struct ty_mapping *a, *b;
	struct ty_error err;

	(void)state;
	g.tp.regions[1] = g.tp.regions[0];
	g.tp.regions[2] = g.tp.regions[0];
	assert_int_equal(ty_device_map(dev, layout, g.tp.regions, &a, &err), TY_OK);
	assert_int_equal(ty_device_map(dev, layout, g.tp.regions, &b, &err), TY_OK);
	assert_int_equal(g.driver.count("cuIpcOpenMemHandle") - opened, 1);
	ty_device_unmap(dev, a);
	assert_int_equal(g.driver.count("cuIpcCloseMemHandle") - closed, 0);
	ty_device_unmap(dev, b);
	assert_int_equal(g.driver.count("cuIpcCloseMemHandle") - closed, 1);
	gpu_close(dev);
	engine_free_all();
	free(layout);
}

static void host_memory(void **state)
{
	struct ty_device_options o = gpu_options();
	struct ty_device *dev = gpu_open(&o);
	struct ty_error err;

	(void)state;
	assert_int_equal(ty_device_register_host(dev, g.slots + 4096, 4096, &err), TY_DEVICE_FAILED);
	assert_non_null(strstr(err.text, "ALREADY_REGISTERED"));
	g.driver.inject("cuMemHostRegister", 1, CU_OUT_OF_MEMORY);
	assert_int_equal(ty_device_register_host(dev, g.slots + GPU_SLOT_BYTES, 4096, &err), TY_NO_MEMORY);
	assert_int_equal(ty_device_health(dev, &err), TY_OK);
	gpu_close(dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(degrades),
		cmocka_unit_test(open_refusals),
		cmocka_unit_test(pieces_in_turns),
		cmocka_unit_test(map_refusals),
		cmocka_unit_test(unknown_handles),
		cmocka_unit_test(handles_are_shared),
		cmocka_unit_test(host_memory),
	};

	return cmocka_run_group_tests_name("CUDA, refusals", tests, gpu_prepare, gpu_finish);
}
