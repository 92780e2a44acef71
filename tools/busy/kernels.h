/* SPDX-License-Identifier: Apache-2.0
 *
 * What an engine's kernels look like to its neighbours: work, and a hang. In an image of their own, which no service has. C and CUDA.
 */
#ifndef TY_BUSY_KERNELS_H
#define TY_BUSY_KERNELS_H

#include <stdint.h>

#define TY_BUSY_THREADS 256u /* of a thread block */
#define TY_BUSY_UNIT 16u     /* bytes that a thread reads at once */

/* Read memory as a model's step reads its weights. */
struct ty_load_job {
	uint64_t address, units; /* of TY_BUSY_UNIT bytes */
	uint64_t sink;           /* address of 16 bytes, which keep the reads from being left out */
};
#define TY_BUSY_LOAD "ty_load_kernel"

/* Go on until the 64-bit word at `address` is not 0: an engine that hangs. */
struct ty_spin_job {
	uint64_t address;
};
#define TY_BUSY_SPIN "ty_spin_kernel"

#ifndef __CUDACC__
/* A fatbin; 0 bytes when this build has none. */
extern const unsigned char ty_busy_image[];
extern const unsigned long ty_busy_image_bytes;
#endif

#endif
