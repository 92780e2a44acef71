/* SPDX-License-Identifier: Apache-2.0
 *
 * A process that owns device memory, as an engine does, and the stand-in driver's controls.
 */
#ifndef TY_TEST_ENGINE_H
#define TY_TEST_ENGINE_H

#include "device/cuda_client.h"
#include "trip.h"
#include "standin/standin.h"

struct standin {
	const char *path;
	standin_calls_fn *calls;
	standin_count_fn *count;
	standin_threads_fn *threads_seen;
	standin_fail_fn *inject;
	standin_set_fn *set;
	standin_release_fn *release;
	standin_queued_fn *queued;
	standin_live_fn *live;
};
/* Opens the library; makes no call of the driver. */
void standin_open(struct standin *s);

/* Fork the engine; before this process calls the driver. */
void engine_start(void);
void engine_stop(void); /* by the process that started it */
void engine_kill(void); /* by any: returns when its descriptors are gone. Its memory stays with those who mapped it */
/* Memory of the engine's on device 0: fills in handle and allocation_bytes, keeps offset and length. */
void engine_alloc(struct ty_region *region);
void engine_alloc_on(uint32_t device, struct ty_region *region); /* likewise on another */
/* Likewise in pieces of 2 MiB, as many as offset + length need (ENGINE_PIECES at most). */
#define ENGINE_PIECES 32
void engine_alloc_pieces(uint32_t device, struct ty_region *region);
void engine_free_all(void);
/* This process's own view of it. */
uint8_t *engine_view(const struct ty_region *region);
void engine_unview(const struct ty_region *region, uint8_t *view);

#endif
