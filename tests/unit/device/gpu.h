/* SPDX-License-Identifier: Apache-2.0
 *
 * A device over the stand-in driver and a pool of an engine's on it, for the tests of what stands behind device.h for CUDA.
 */
#ifndef TY_TEST_GPU_H
#define TY_TEST_GPU_H

#include "engine.h"

#define GPU_SLOT_BYTES ((size_t)64 << 20)
#define GPU_MIB ((uint64_t)1 << 20)
#define GPU_IMAGE 64
extern const unsigned char gpu_image[GPU_IMAGE]; /* of kernels, as far as the stand-in looks */

extern struct gpu {
	struct standin driver;
	struct test_pool tp; /* of the last pool that was built */
	uint8_t *slots;      /* GPU_SLOT_BYTES, and a page */
	bool in_pieces;      /* pools' memory is */
	bool layered;        /* pools have steps; some tests count what a round trip takes */
} g;

/* Of the group of tests: the driver's controls, an engine, slots. */
int gpu_prepare(void **state);
int gpu_finish(void **state);

/* cuda:0, with kernels, on which no engine is ever noticed. */
struct ty_device_options gpu_options(void);
/* With the slots registered; close: and nothing is left in the driver. */
struct ty_device *gpu_open(const struct ty_device_options *options);
void gpu_close(struct ty_device *dev);
/* g.tp, with memory of the engine's, checked. */
struct ty_layout *gpu_pool(unsigned index);
/* All of it: for test_round_trip. */
void gpu_set_up(struct test_trip *t, unsigned index, const struct ty_device_options *options);
void gpu_tear_down(struct test_trip *t);

#endif
