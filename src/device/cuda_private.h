/* SPDX-License-Identifier: Apache-2.0
 *
 * A GPU's owner: what cuda.c (life), cuda_map.c (pools), cuda_plan.c (which way), cuda_copy.c (chunks) and cuda_runs.c
 * (chunks without kernels) share.
 *
 * Each direction is a lane: a kernel stream, copy streams, and a queue of batches. A batch is issued as units, in order; a unit is
 * one tile of staging memory with its kernel and its copies, or a few copies without one.
 */
#ifndef TY_DEVICE_CUDA_PRIVATE_H
#define TY_DEVICE_CUDA_PRIVATE_H

#include <assert.h>

#include "calibration.h"
#include "cuda_driver.h"
#include "device_private.h"
#include "kernels/gather.h"
#include "plan.h"

#define TY_CUDA_STAGING_DEFAULT ((uint64_t)160 << 20)
#define TY_CUDA_STAGING_LEAST ((uint64_t)4 << 20)
#define TY_CUDA_TILE_LEAST ((uint64_t)256 << 10)
#define TY_CUDA_TILE_ALIGN 256u
#define TY_CUDA_SLOT_DEFAULT ((uint64_t)16 << 20)
#define TY_CUDA_SLOTS 16u        /* that staging memory is cut into, at most ... */
#define TY_CUDA_SLOTS_LEAST 8u   /* ... and at least, by making them smaller */
#define TY_CUDA_BOTH_SLOTS 2u    /* of a unit while both directions work; while one does it takes half of them: a batch */
/* In the engine's process: what its kernels stream through the L2 cache leaves so much of it to tiles that ask to stay, and no more. A unit is two
 * slots while one direction works, and one while both do. Measured on an H100, docs/embed.md. */
#define TY_CUDA_STAGING_WITHIN ((uint64_t)16 << 20)
#define TY_CUDA_SLOT_WITHIN ((uint64_t)4 << 20)
#define TY_CUDA_STREAMS_WITHIN 2u
#define TY_CUDA_STREAMS 4u       /* that copies of a lane go over in turn, at most */
#define TY_CUDA_STREAMS_STRIDED 4u /* where one copy starts while another ends: of plain copies 0.98 for rows of 32 KiB, with one stream 0.91. For
                                    * batches a second one gains nothing, and those of short runs go at a tenth then (docs/device.md) */
#define TY_CUDA_UNITS 16u        /* in flight, of a lane */
#define TY_CUDA_FIRST_COPIES 32u /* of the first call of a lane that has nothing out: what it takes to queue is latency ... */
#define TY_CUDA_FIRST_BYTES ((uint64_t)512 << 10) /* ... and a run of so many goes by itself, before the others are queued */
#define TY_CUDA_LANE_COPIES 256u /* in flight, of a lane: far below the ~1000 at which a stream blocks */
#define TY_CUDA_UNIT_COPIES 64u  /* of one unit */
#define TY_CUDA_BATCH_COPIES 128u /* runs of one unit that go in one call ... */
#define TY_CUDA_BATCH_WEIGHT 2u   /* ... where so many count as one copy. A call goes out as long as no more than LANE_COPIES - UNIT_COPIES are
                                   * in flight: with it 2 * 192 + 128 runs at most. With 832 in flight and more a call was seen to wait until
                                   * nearly all of them were through, for 0.6 to 2.6 ms */
#define TY_CUDA_QUEUE 64u        /* batches of a lane, in flight or waiting */
#define TY_CUDA_ISSUE 4u         /* units issued by one submit or poll, of a lane */
#define TY_CUDA_WAITED_US 600u    /* a kernel that is held up so long waits for somebody else's; */
#define TY_CUDA_WAITED_LAUNCHES 40u /* but not less than so many launches take alone; */
#define TY_CUDA_WAITED_BYTES ((uint64_t)64 << 20) /* and one that moves more than this itself takes as much longer */
#define TY_CUDA_SLOW_SEEN 2u      /* so often in a row, and there is an engine */
#define TY_CUDA_QUICK_SEEN 4u     /* so many probes in a row that were not held up, and it is gone */
#define TY_CUDA_PROBE_NS ((int64_t)25000000) /* from a probe to the next */
#define TY_CUDA_CALIBRATE_NS ((int64_t)2000000000) /* at most, at start */
#define TY_CUDA_PATIENCE_NS ((int64_t)10 * 1000000000) /* longest wait for the GPU in the slow lane */

struct cuda_unit {
	struct ty_batch *batch;
	cu_event middle; /* between the unit's two halves, when it is staged */
	cu_event ends[TY_CUDA_STREAMS]; /* staged: the first alone */
	uint32_t stream;                /* staged: of the lane's copy[] ... */
	uint64_t bytes;                 /* ... that its kernel moves */
	uint32_t awaited; /* bits: those of ends that are recorded and not seen yet */
	enum ty_path path;
	uint32_t copies;
	bool last; /* of its batch */
	bool unmarked; /* it failed, and its ends could not be marked: tried again at each look */
};

/* A part of the staging memory. */
struct cuda_slot {
	struct cuda_unit *unit; /* the newest issued onto it, until it is seen done; null: nobody's */
	enum ty_direction direction; /* of that unit */
	uint64_t used;          /* when that was issued, counted */
};

/* What of the issuing batch comes next. */
struct cuda_cursor {
	uint32_t group, copy, block;
	uint32_t plane; /* staged: of a block larger than a tile. Else the row or the span */
};

struct cuda_lane {
	cu_stream kernel, copy[TY_CUDA_STREAMS];
	uint32_t turn, staged_turn;     /* of copy[]: the next */
	int64_t watched;                /* since when the oldest unit's kernel could run for all we know; 0: it could not */
	struct cuda_unit units[TY_CUDA_UNITS];
	uint32_t first, count;          /* in flight, oldest first */
	uint32_t copies;                /* in flight */
	struct ty_batch_queue queue;    /* accepted and not done, in order */
	struct ty_batch *issuing;       /* the first of them that is not issued whole */
	struct cuda_cursor at;
};

/* Is an engine at work? Told by kernels of ours that are held up. */
struct cuda_engine {
	bool busy;
	uint32_t slow, quick; /* signs in a row for and against it */
	cu_stream stream;     /* of the probe: a kernel that does nothing, while an engine is believed to be there */
	cu_event end;
	bool out;
	int64_t launched, waited; /* when; and until when it was seen not to be done */
};

/* One opened handle; or a region whose pieces lie in its mapping's own stretch of addresses. */
struct cuda_import {
	struct cuda_import *next;    /* of opened handles */
	struct cu_ipc_handle handle;
	cu_address address;
	uint64_t bytes; /* from address to the allocation's real end */
	uint32_t uses;  /* regions of mappings */
	bool pieces;    /* not a handle */
	bool own;          /* this process's memory ... */
	cu_address first;  /* ... in the allocation that begins here */
};

/* Where a mapping's pieces of memory lie (cuMemMap), one behind the other. */
struct cuda_stretch {
	cu_address address; /* 0: none is reserved */
	uint64_t bytes;
	uint64_t *ends;     /* of the pieces that are mapped, from address */
	uint32_t count, room;
	bool rows_end;      /* the driver lets no row of a strided copy cross from one to the next */
};

struct cuda_device {
	struct ty_device base;
	struct ty_cuda api;
	cu_device device;
	cu_context context;
	cu_module module;
	cu_function gathers[2], scatters[2]; /* [1]: of few blocks. Null: no kernels, everything goes by copies */
	cu_address staging; /* 0: nothing is staged */
	uint64_t staging_bytes, staging_wanted;
	uint64_t tile_wanted; /* 0: as it fits */
	bool tile_given;      /* by the options */
	uint64_t batch_bytes; /* a batch is half of so many: what staging has, or would have */
	struct cuda_slot slots[TY_CUDA_SLOTS];
	uint32_t slot_count;
	uint64_t slot_uses, slot_bytes;
	uint32_t unit_slots[2]; /* of a unit, at most: while one direction works, while both do */
	bool keep_tiles, in_process;
	uint32_t grid_max;
	uint64_t max_pitch;
	uint32_t streams[TY_PATHS], stream_count; /* of a lane that a way's copies go over in turn; the most of them */
	bool one_for_retrieves; /* staged, and with no stores beside them */
	enum ty_sharing sharing;
	enum ty_path forced;  /* PLANNED: none */
	int64_t waited_ns, patience_ns;
	struct cuda_engine engine;
	struct ty_calibration calibration; /* its rates are those that count */
	struct cuda_lane lanes[2]; /* by direction */
	struct cuda_import *imports;
	enum { ROWS_UNKNOWN, ROWS_CROSS, ROWS_END } rows; /* from one mapped piece to the next */
	struct ty_batch_queue done;
	uint64_t *upload; /* page-locked, for plane tables */
	cu_event slow;
	/* Host memory is registered in pieces of one size, all of them at the same place modulo that: then it can be told whether a copy stays
	 * in one. 0: nothing is registered, or not so. */
	uint64_t host_piece, host_phase;
	bool host_mixed;
};

struct cuda_mapping {
	struct ty_mapping base;
	struct cuda_import *imports[TY_MAX_REGIONS];
	struct cuda_stretch stretch;
	uint32_t region, segment; /* while it is mapped: what comes next */
	bool broken;              /* it could not be mapped, and is unmapped ... */
	struct ty_error failure;  /* ... for this */
	cu_address table; /* on the device: address of block 0 of every plane; 0 when no group is staged */
	struct cuda_group {
		struct ty_plan_shape shape;
		struct ty_span *rows, *spans; /* shape.runs of them, shape.spans */
		unsigned allowed;             /* bits of enum ty_path */
		bool joins;                   /* a block's last row and the next block's first are of one allocation */
	} groups[TY_MAX_GROUPS];
	struct ty_span *spans; /* what the groups point into */
	uint64_t planes[]; /* the table's contents */
};

#define TY_CUDA_INDEX(function) (unsigned)(offsetof(struct ty_cuda, function) / sizeof(void (*)(void)))
_Static_assert(offsetof(struct ty_cuda, version) / sizeof(void (*)(void)) <= TY_DEVICE_CALLS, "a place in times[] for each");

/* Every call of the driver goes through here: by the owner, and seen from outside while it lasts. */
#define CU(dev, function, ...)                                                                                         \
	__extension__({                                                                                                \
		struct cuda_device *dev_ = (dev);                                                                      \
		assert(dev_->base.owner == ty_device_thread());                                                        \
		int64_t since_ = ty_call_begin(&dev_->base, #function);                                                \
		cu_result result_ = dev_->api.function(__VA_ARGS__);                                                   \
		ty_call_end(&dev_->base, TY_CUDA_INDEX(function), #function, since_);                                  \
		result_;                                                                                               \
	})

static inline struct cuda_unit *ty_cuda_unit_at(struct cuda_lane *lane, uint32_t index)
{
	return &lane->units[(lane->first + index) % TY_CUDA_UNITS];
}

/* From now on every batch fails. The first reason is kept. */
void ty_cuda_poison(struct cuda_device *dev, const char *call, cu_result result);
/* A call of the slow lane failed: does its error stay? Then the device is poisoned. A driver may answer "unknown error" to a handle of a
 * client's that is none, and all is well after it; so whether it stays is asked of the context, with nothing in flight. */
TY_MUST_USE bool ty_cuda_stays(struct cuda_device *dev, const char *what, cu_result result);
/* The code for such a failure; poisons if it stays. */
enum ty_code ty_cuda_slow_failed(struct cuda_device *dev, struct ty_error *err, const char *what, cu_result result);
/* Slow lane: until what `stream` was given is done. Looks, does not wait in the driver. */
TY_MUST_USE enum ty_code ty_cuda_finish(struct cuda_device *dev, cu_stream stream, const char *what, struct ty_error *err);

/* cuda_map.c */
enum ty_code ty_cuda_map(struct ty_device *base, const struct ty_layout *layout, const struct ty_region *regions,
	struct ty_mapping **out, struct ty_error *err);
bool ty_cuda_unmap(struct ty_device *base, struct ty_mapping *mapping);

/* cuda_import.c: memory of other processes. */
#define TY_CUDA_PIECE_BYTES ((uint64_t)2 << 20) /* pieces are multiples of it */
#define TY_CUDA_MAP_CALLS 8 /* handles or pieces that are opened or closed in one turn of the slow lane */

/* Reserve the stretch that the regions' pieces need, if they have any. */
TY_MUST_USE enum ty_code ty_cuda_reserve(struct cuda_device *dev, struct cuda_mapping *m, const struct ty_region *regions,
	struct ty_error *err);
/* The next few handles and pieces of the mapping's regions; TY_BUSY: there are more. */
TY_MUST_USE enum ty_code ty_cuda_import(struct cuda_device *dev, struct cuda_mapping *m, const struct ty_region *regions,
	struct ty_error *err);
/* Let go of the next few; false: there are more. */
TY_MUST_USE bool ty_cuda_let_go(struct cuda_device *dev, struct cuda_mapping *m);
/* Find out whether rows of strided copies may cross from piece to piece, when it matters. */
TY_MUST_USE enum ty_code ty_cuda_try_rows(struct cuda_device *dev, struct cuda_mapping *m, struct ty_error *err);

/* A stretch of memory to copy. */
struct cuda_piece {
	uint8_t *host;
	uint64_t device;
	uint64_t bytes;
};

static inline const struct cuda_mapping *ty_cuda_mapping(const struct ty_batch *batch)
{
	return (const struct cuda_mapping *)batch->mapping;
}

/* device_private of a batch: [0] links the queue; [1] the ways of its groups, 4 bits each; [2] not null: a call failed. */
static inline enum ty_path ty_cuda_path_of(const struct ty_batch *batch, uint32_t group)
{
	return (enum ty_path)((uintptr_t)batch->device_private[1] >> (4 * group) & 15);
}

/* cuda_plan.c: which way. */
/* rows_cross: rows of a strided copy may go through all of an allocation. */
void ty_cuda_plan_groups(const struct cuda_device *dev, struct cuda_mapping *m, const uint32_t *allocation, bool rows_cross);
bool ty_cuda_may_stage(const struct cuda_device *dev, const struct cuda_mapping *m);
void ty_cuda_plan_batch(const struct cuda_device *dev, struct ty_batch *batch);
enum ty_path ty_cuda_path(const struct ty_mapping *mapping, uint32_t group, enum ty_direction direction, uint32_t chunks);
/* Look at the oldest unit of a lane for signs of an engine. */
void ty_cuda_watch(struct cuda_device *dev, struct cuda_lane *lane);
/* While there is work and an engine is believed in: is it still there? */
void ty_cuda_probe(struct cuda_device *dev);
void ty_cuda_forget_engine(struct cuda_device *dev);
/* Slow lane, before calls that give memory back, which wait in the driver for all that is queued. Is no probe out? */
bool ty_cuda_probe_is_over(struct cuda_device *dev);
/* Wait for it. */
TY_MUST_USE enum ty_code ty_cuda_end_probe(struct cuda_device *dev, struct ty_error *err);

/* cuda_calibrate.c. Slow lane, nothing in flight. */
enum ty_code ty_cuda_calibrate(struct cuda_device *dev, bool beside, int64_t most_ns, struct ty_calibration *c, struct ty_error *err);

/* cuda_runs.c: units without a kernel. Each takes what comes next from the lane's batch, queues it, marks its ends, and on failure
 * says which call it was. */
cu_result ty_cuda_issue_direct(struct cuda_device *dev, struct cuda_lane *lane, struct cuda_unit *unit, const char **call);
cu_result ty_cuda_issue_batch(struct cuda_device *dev, struct cuda_lane *lane, struct cuda_unit *unit, const char **call);
cu_result ty_cuda_issue_strided(struct cuda_device *dev, struct cuda_lane *lane, struct cuda_unit *unit, const char **call);

/* cuda_staging.c: units with one. */
/* What is wanted of staging. TY_INVALID: it is too little. */
TY_MUST_USE enum ty_code ty_cuda_plan_staging(struct cuda_device *dev, const struct ty_device_options *options, struct ty_error *err);
/* Slow lane: as much of it as can be had; and back, with nothing in flight. */
TY_MUST_USE enum ty_code ty_cuda_take_staging(struct cuda_device *dev, struct ty_error *err);
void ty_cuda_give_staging(struct cuda_device *dev);
cu_result ty_cuda_issue_staged(struct cuda_device *dev, struct cuda_lane *lane, struct cuda_unit *unit, const char **call);
/* The unit is done. */
void ty_cuda_leave_slots(struct cuda_device *dev, const struct cuda_unit *unit);

/* cuda_copy.c */
bool ty_cuda_reached(struct cuda_device *dev, cu_event event);
/* The cursor, past `blocks` blocks of the group it is in. */
void ty_cuda_next_blocks(struct cuda_lane *lane, uint32_t blocks);
cu_result ty_cuda_copy(struct cuda_device *dev, cu_stream stream, enum ty_direction direction, const struct cuda_piece *piece,
	const char **call);
/* Many in one call; of a driver that has it (ty_cuda_batches). At most TY_CUDA_BATCH_COPIES. */
cu_result ty_cuda_copy_all(struct cuda_device *dev, cu_stream stream, enum ty_direction direction, const struct cuda_piece *pieces,
	uint32_t count, const char **call);
static inline bool ty_cuda_batches(const struct cuda_device *dev)
{
	return dev->api.cuMemcpyBatchAsync || dev->api.cuMemcpyBatchAsync_v2;
}
enum ty_code ty_cuda_submit(struct ty_device *base, struct ty_batch *batch);
uint32_t ty_cuda_batch_limit(const struct ty_device *base, const struct ty_layout *layout);
uint32_t ty_cuda_poll(struct ty_device *base, struct ty_batch **done, uint32_t max);

#endif
