/* SPDX-License-Identifier: Apache-2.0
 *
 * What the two kinds of device share. Only src/device/ includes this.
 */
#ifndef TY_DEVICE_PRIVATE_H
#define TY_DEVICE_PRIVATE_H

#include <time.h>

#include "device.h"

struct ty_device_kind {
	void (*close)(struct ty_device *dev);
	/* as ty_device_map_some */
	enum ty_code (*map)(struct ty_device *dev, const struct ty_layout *layout, const struct ty_region *regions,
		struct ty_mapping **out, struct ty_error *err);
	bool (*unmap)(struct ty_device *dev, struct ty_mapping *mapping); /* as ty_device_unmap_some */
	enum ty_code (*register_host)(struct ty_device *dev, void *base, size_t bytes, struct ty_error *err);
	void (*unregister_host)(struct ty_device *dev, void *base);
	enum ty_code (*submit)(struct ty_device *dev, struct ty_batch *batch);
	uint32_t (*batch_limit)(const struct ty_device *dev, const struct ty_layout *layout);
	enum ty_code (*calibrate)(struct ty_device *dev, bool beside, uint64_t most_us, struct ty_calibration *out,
		struct ty_error *err); /* null: there is nothing to measure */
	enum ty_path (*path)(const struct ty_mapping *mapping, uint32_t group, enum ty_direction direction, uint32_t chunks);
	uint32_t (*poll)(struct ty_device *dev, struct ty_batch **done, uint32_t max);
};

/* The beginning of each kind's own struct. The owner's alone, but for stats. */
struct ty_device {
	const struct ty_device_kind *kind;
	const void *owner;            /* ty_device_thread() of the owner */
	struct ty_device_call *call;  /* null: nobody looks */
	int64_t now;                  /* of the clock, when it was last looked at: on the way in, and after each call */
	bool slow;                    /* in the slow lane: longest_call does not count it */
	bool poisoned;
	uint32_t mappings;
	struct ty_error failure;      /* why it is poisoned */
	struct ty_device_info info;
	char note[256];
	char pci[16]; /* "": none */
	struct ty_device_stats stats;
	struct ty_device_call_times times[TY_DEVICE_CALLS];
};

/* Likewise. */
struct ty_mapping {
	struct ty_device *device;
	const struct ty_layout *layout;
	struct ty_part *parts; /* layout's step_count * group_count; null: it has no steps, or is a part itself */
};
/* Fill `parts`, with mappings that `make` makes: planes [first, first + layout->plane_count) of the whole; null = no memory. */
TY_MUST_USE enum ty_code ty_mapping_split(struct ty_mapping *mapping,
	struct ty_mapping *(*make)(struct ty_mapping *whole, const struct ty_layout *layout, uint32_t first), struct ty_error *err);
/* The parts are over; `end` frees one mapping of them. */
void ty_mapping_join(struct ty_mapping *mapping, void (*end)(struct ty_mapping *part));

enum ty_code ty_host_open(const struct ty_device_options *options, struct ty_device_call *call, struct ty_device **out,
	struct ty_error *err);
enum ty_code ty_cuda_open(const struct ty_device_options *options, int ordinal, struct ty_device_call *call,
	struct ty_device **out, struct ty_error *err);

/* What tells this thread from any other that lives. */
const void *ty_device_thread(void);

static inline int64_t ty_device_clock(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Around everything that could take long. A call begins when the one before it ended, or the owner came in: looking at the clock costs
 * as much as a cheap call does. */
static inline int64_t ty_call_begin(struct ty_device *dev, const char *name)
{
	int64_t now = dev->now;

	if (dev->call) {
		atomic_store_explicit(&dev->call->since, now, memory_order_relaxed);
		atomic_store_explicit(&dev->call->name, name, memory_order_release); /* pairs with the reader's acquire */
	}
	return now;
}

/* `index`: of the name in times[]. */
static inline void ty_call_end(struct ty_device *dev, unsigned index, const char *name, int64_t since)
{
	uint64_t took = (uint64_t)((dev->now = ty_device_clock()) - since);
	struct ty_device_call_times *times = &dev->times[index];

	if (dev->call)
		atomic_store_explicit(&dev->call->name, NULL, memory_order_release);
	if (dev->slow)
		return;
	times->name = name;
	times->count++;
	times->total_ns += took;
	if (took > times->longest_ns)
		times->longest_ns = took;
	/* the owner is the only writer */
	if (took > atomic_load_explicit(&dev->stats.longest_call_ns, memory_order_relaxed)) {
		atomic_store_explicit(&dev->stats.longest_call_ns, took, memory_order_relaxed);
		atomic_store_explicit(&dev->stats.longest_call, name, memory_order_relaxed);
	}
}

static inline void ty_device_count(_Atomic uint64_t *counter, uint64_t more)
{
	/* one writer: no read-modify-write needed */
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + more, memory_order_relaxed);
}

/* A batch's device_private[0] links it into one of the device's queues. */
struct ty_batch_queue {
	struct ty_batch *first, *last;
	uint32_t count;
};

static inline void ty_batch_push(struct ty_batch_queue *queue, struct ty_batch *batch)
{
	batch->device_private[0] = NULL;
	if (queue->last)
		queue->last->device_private[0] = batch;
	else
		queue->first = batch;
	queue->last = batch;
	queue->count++;
}

static inline struct ty_batch *ty_batch_next(const struct ty_batch *batch)
{
	return batch->device_private[0];
}

static inline struct ty_batch *ty_batch_pop(struct ty_batch_queue *queue)
{
	struct ty_batch *batch = queue->first;

	if (!batch)
		return NULL;
	queue->first = ty_batch_next(batch);
	if (!queue->first)
		queue->last = NULL;
	queue->count--;
	batch->device_private[0] = NULL;
	return batch;
}

#endif
