/* SPDX-License-Identifier: Apache-2.0
 *
 * gpu: the owner of one device, on one thread, which alone reaches it. Polls while work is in flight, parks otherwise;
 * never waits in a call that another process could hold up.
 */
#ifndef TY_ACTORS_GPU_H
#define TY_ACTORS_GPU_H

#include "messages.h"
#include "op.h"

#define TY_MAX_DEVICES 16 /* of a service */

struct ty_service;
struct ty_piece;

enum ty_gpu_state { TY_GPU_STARTING, TY_GPU_SERVING, TY_GPU_STALLED, TY_GPU_FAILED };

/* Written by the owner (relaxed unless said), read by metrics. */
struct ty_gpu_stats {
	_Atomic int state;                      /* enum ty_gpu_state; release, pairs with readers of info and note */
	struct ty_device_info info;             /* written before state leaves STARTING */
	char note[160];                         /* likewise */
	_Atomic(const struct ty_device_stats *) device; /* null until open; release / acquire */
	_Atomic int near;                       /* the NUMA node beside the device, and 1; 0: none is known; relaxed */
	_Atomic uint32_t queued, in_flight;
	_Atomic uint64_t stored_bytes, retrieved_bytes, stored_chunks, retrieved_chunks, failed_ops, mappings;
	_Atomic uint64_t longest_slow_ns;       /* longest call of the slow lane */
	_Atomic uint64_t longest_call_ns;       /* device's, as of the last operation that was over: for who reads when there may be no device */
	struct ty_device_call call;
	char fault[200];                        /* why it failed after it was open; written before state says so */
	_Atomic int64_t oldest;                 /* when the oldest copy that is not over was submitted, as of 10 ms ago; 0: none */
};

/* How long a device has not moved: its owner in the call it is in (null: in none), and its oldest copy. Any thread. */
struct ty_gpu_stuck {
	const char *call;
	int64_t call_ns, copy_ns;
};
struct ty_gpu_stuck ty_gpu_stuck(const struct ty_gpu_stats *stats);
/* Longer than --gpu-stall-after: requests that are late for it are so for its sake. Any thread. */
bool ty_gpu_stalled(const struct ty_service *service, uint32_t device);

/* Import or close a client's pool; owned by whoever sends it and gets it back. */
struct ty_map {
	struct ty_msg msg;
	struct ty_actor *home;  /* where it comes back to, and as what message: set each time that it is sent */
	uint32_t home_type;     /* TY_ENGINE_MAPPED, TY_ENGINE_UNMAPPED */
	uint32_t registration;
	const struct ty_pool *pool; /* the engine's: what REGISTER said ... */
	uint32_t pid;               /* ... and whose client it is; for owners in engines' processes */
	const struct ty_layout *layout;
	const struct ty_region *regions; /* the engine's; their descriptors are closed by it after MAPPED */
	uint32_t region_count;
	struct ty_mapping *mapping; /* set by MAP, consumed by UNMAP */
	enum ty_code code;
	struct ty_error error;
};

/* Sent once by each owner, when its device is open or failed to. Lives in the owner's state. */
struct ty_gpu_ready {
	struct ty_msg msg;
	uint32_t device; /* index in the service */
	enum ty_code code;
};

struct ty_gpu_arg {
	struct ty_service *service;
	uint32_t device; /* index in the service */
	struct ty_actor **ready_to; /* who is told when it is open, looked up then; and as what message */
	uint32_t ready_type;        /* TY_CLIENTS_DEVICE */
	struct ty_device_options options;
};
extern const struct ty_class ty_gpu_class; /* arg: struct ty_gpu_arg */

#endif
