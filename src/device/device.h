/* SPDX-License-Identifier: Apache-2.0
 *
 * The owner's view of one device. Every function but ty_device_call_now is called on the owner's thread only, and
 * asserts it (release builds too). None waits, except those marked slow: they are the owner's slow
 * lane, called one at a time when nothing is in flight.
 *
 * Two kinds stand behind it: CUDA (cuda.c, the driver API over any number of GPUs) and the host device
 * (host.c: the same contract over shared memory, copied in bounded slices by ty_device_poll).
 */
#ifndef TY_DEVICE_DEVICE_H
#define TY_DEVICE_DEVICE_H

#include <stdatomic.h>

#include "layout.h"

struct ty_device;  /* one GPU, or host memory */
struct ty_mapping; /* one client's pool as this device sees it, or a part of one */

#define TY_BATCH_CHUNKS 256 /* at most, of one batch on any device */

enum ty_direction { TY_TO_HOST, TY_TO_DEVICE }; /* store, retrieve */

/* One chunk to move between a pool's blocks and a slot. */
struct ty_copy {
	uint8_t *host;          /* the slot: layout->chunk_bytes, inside one registered piece of the arena */
	const uint32_t *blocks; /* layout->blocks_per_chunk ids, checked already */
};

/* Chunks that go together. The owner fills the first part and keeps it until the batch is done; the
 * device fills the rest. */
struct ty_batch {
	struct ty_mapping *mapping;
	enum ty_direction direction;
	const struct ty_copy *copies;
	uint32_t count;

	bool client_free; /* set by poll: the client's blocks have been read (TY_TO_HOST), or written */
	enum ty_code code; /* set when done */
	void *device_private[4];
};

/* How blocks go (plan.h). */
enum ty_path { TY_PATH_PLANNED, TY_PATH_STAGED, TY_PATH_DIRECT, TY_PATH_BATCH, TY_PATH_STRIDED, TY_PATHS };
const char *ty_path_name(enum ty_path path);

/* Who else uses the GPU: quiet = copy engines alone, never a kernel; fast = whatever is fastest; auto = fast until our own kernels
 * are seen waiting for an engine's, then quiet for a second. */
enum ty_sharing { TY_SHARING_AUTO, TY_SHARING_QUIET, TY_SHARING_FAST };

struct ty_device_options {
	const char *name;         /* "host" or "cuda:N" */
	const char *driver;       /* path or soname of the driver; null = "libcuda.so.1" */
	const void *kernels;      /* fatbin; null = the one built in (none if this build has none: see ty_device_note) */
	size_t kernels_bytes;
	uint64_t staging_bytes;   /* device memory for staging, both directions together; 0 = 160 MiB, in_process 16 MiB; at least 4 MiB.
	                           * None is taken with TY_SHARING_QUIET, unless path is STAGED */
	uint64_t tile_bytes;      /* of staging that one kernel fills at most; 0 = as it fits what there is to do. For measuring */
	uint32_t kernel_blocks;   /* thread blocks of a kernel at most; 0 = as many as are resident at once. For measuring */
	bool keep_tiles;          /* kernels ask the L2 cache to keep what they gather; as tile_bytes, which of itself means no. For measuring */
	bool in_process;          /* the engine is this process: its kernels run beside ours, without time slices */
	enum ty_sharing sharing;
	enum ty_path path;        /* every group goes this way if it can, and directly if not. For measuring and tests */
	uint64_t waited_us;       /* a kernel of ours held up for longer is the sign of an engine; 0 = 600, or 40 launches. For tests */
	const char *calibration;  /* directory of what was measured on this GPU with this driver; measured now if it is not there, but not
	                           * in_process, where an engine may be at work; null = the compiled rates */
	uint64_t calibrate_us;    /* that measuring takes at most, else the compiled rates; 0 = 2 s. For tests */
	uint64_t patience_us;     /* with the GPU in the slow lane, then it is given up; 0 = 10 s. For tests */
	uint32_t copy_streams;    /* of a direction; 0 = 4 for strided copies, 2 for staging in_process, else 1; at most 4. For measuring */
	const char *fault;        /* host device, tests: "delay-us=N", "fail-every=N", "hang-after=N", "hold-fd=N"; comma-separated */
};

/* Slow. Open the device on this thread, which is its owner from now on. */
TY_MUST_USE enum ty_code ty_device_open(const struct ty_device_options *options, struct ty_device **out,
	struct ty_error *err);
/* Slow. Nothing is in flight and every mapping is closed. */
void ty_device_close(struct ty_device *dev);

const struct ty_device_info *ty_device_info(const struct ty_device *dev);
/* What is missing or degraded, in words; "" when nothing is. Static or the device's own. */
const char *ty_device_note(const struct ty_device *dev);
/* Where it is plugged in, as "0000:1B:00.0"; "" when that is not known, or it is no device of its own. Lives as long as it. */
const char *ty_device_pci(const struct ty_device *dev);

/* Slow. Make a client's pool reachable: open handles (or map descriptors), check the real extents
 * against the declared ones. Descriptors stay the caller's. The layout outlives the mapping. */
TY_MUST_USE enum ty_code ty_device_map(struct ty_device *dev, const struct ty_layout *layout,
	const struct ty_region *regions, struct ty_mapping **out, struct ty_error *err);
/* Slow. No batch of this mapping is in flight. */
void ty_device_unmap(struct ty_device *dev, struct ty_mapping *mapping);
/* Both again, a few calls of the driver at a time, for memory of many pieces. map: *out is null at first; TY_BUSY: more to do, call
 * again with the same arguments; on failure *out is null. unmap: false: more to do. */
TY_MUST_USE enum ty_code ty_device_map_some(struct ty_device *dev, const struct ty_layout *layout,
	const struct ty_region *regions, struct ty_mapping **out, struct ty_error *err);
TY_MUST_USE bool ty_device_unmap_some(struct ty_device *dev, struct ty_mapping *mapping);

/* What of one group a step of the layout brings (ty_layout.steps), as a mapping of its own for ty_device_submit: planes
 * [first_plane, first_plane + layout's plane_count) of the group, a block a chunk. */
struct ty_part {
	struct ty_mapping *mapping;     /* the mapping's: ends with it; null: nothing */
	const struct ty_layout *layout; /* its own */
	uint32_t first_plane;
};
const struct ty_part *ty_device_part(const struct ty_mapping *mapping, uint32_t step, uint32_t group);

/* Slow (about 2 ms for 64 MiB). Make arena memory fit for DMA, from every device of the process. Touched before. */
TY_MUST_USE enum ty_code ty_device_register_host(struct ty_device *dev, void *base, size_t bytes,
	struct ty_error *err);
void ty_device_unregister_host(struct ty_device *dev, void *base);

/* Queue `batch`: TY_OK, TY_BUSY (queue or staging full: poll first; nothing was queued), or TY_DEVICE_FAILED.
 * At most ty_device_batch_limit chunks of this layout go into one batch. */
TY_MUST_USE enum ty_code ty_device_submit(struct ty_device *dev, struct ty_batch *batch);
uint32_t ty_device_batch_limit(const struct ty_device *dev, const struct ty_layout *layout);
/* Slow. Measure how fast each way is, in at most most_us; `beside`: an engine is at work, and what comes out is the rates beside one.
 * Fills what it measured of *out, and the GPU's identity. The device goes on with the rates it had. */
struct ty_calibration;
TY_MUST_USE enum ty_code ty_device_calibrate(struct ty_device *dev, bool beside, uint64_t most_us, struct ty_calibration *out,
	struct ty_error *err);
/* The way that `chunks` chunks of a group would go now; the host device has one only, DIRECT. */
enum ty_path ty_device_path(const struct ty_device *dev, const struct ty_mapping *mapping, uint32_t group,
	enum ty_direction direction, uint32_t chunks);

/* Advance. Sets client_free on batches as it comes true, and returns up to `max` batches that are done, in
 * `done`. Takes at most about 100 us (the host device copies this long). */
uint32_t ty_device_poll(struct ty_device *dev, struct ty_batch **done, uint32_t max);

/* Poisoned: an error came that no call on this device recovers from (design: a new process does). */
TY_MUST_USE enum ty_code ty_device_health(const struct ty_device *dev, struct ty_error *err);

/* The driver call that the owner is in, and since when (CLOCK_MONOTONIC ns); name null = none. Any thread. */
struct ty_device_call {
	_Atomic(const char *) name; /* written by the owner (release), read by anyone (acquire) */
	_Atomic int64_t since;      /* relaxed: read after name */
};
/* The owner's thread publishes into this, set before ty_device_open; any thread reads it. */
void ty_device_publish_calls(struct ty_device_call *where);

/* For the metrics: written by the owner, relaxed; read by anyone. */
struct ty_device_stats {
	_Atomic uint64_t longest_call_ns;         /* in steady state (map, unmap, register, open excluded) */
	_Atomic(const char *) longest_call;
	_Atomic uint64_t device_bytes;            /* device memory taken: staging, tables */
	_Atomic uint64_t launches, copies;        /* copies: calls */
	_Atomic uint64_t units[TY_PATHS];         /* pieces of work, by the way they went */
	_Atomic uint64_t busy;                    /* times that an engine was noticed */
	_Atomic uint64_t submit_ns;               /* of the owner's time, that queueing work took */
};
const struct ty_device_stats *ty_device_stats(const struct ty_device *dev);

/* The driver's functions that were called in steady state, each with its times. The owner's own: read on its thread. */
struct ty_device_call_times {
	const char *name; /* null: not called */
	uint64_t count, total_ns, longest_ns;
};
#define TY_DEVICE_CALLS 64
const struct ty_device_call_times *ty_device_call_times(const struct ty_device *dev); /* TY_DEVICE_CALLS of them */

#endif
