/* SPDX-License-Identifier: Apache-2.0
 *
 * device.h's functions: check who calls, then go to the kind's own.
 */
#include "device_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define CUDA_PREFIX "cuda:"
#define CUDA_ORDINAL_MAX 255

static _Thread_local char thread_mark; /* its address is the thread's */
static _Thread_local struct ty_device_call *thread_calls;

const void *ty_device_thread(void)
{
	return &thread_mark;
}

static void assert_owner(const struct ty_device *dev)
{
	assert(dev->owner == &thread_mark && "a device is used by its owner's thread only");
}

static void enter(struct ty_device *dev)
{
	assert_owner(dev);
	dev->now = ty_device_clock();
}

void ty_device_publish_calls(struct ty_device_call *where)
{
	thread_calls = where;
}

static bool parse_ordinal(const char *text, int *out)
{
	char *end;
	long n;

	if (text[0] < '0' || text[0] > '9' || (text[0] == '0' && text[1]))
		return false;
	n = strtol(text, &end, 10);
	if (*end || n > CUDA_ORDINAL_MAX)
		return false;
	*out = (int)n;
	return true;
}

enum ty_code ty_device_open(const struct ty_device_options *options, struct ty_device **out, struct ty_error *err)
{
	const char *name = options->name ? options->name : "";
	enum ty_code code;
	int ordinal;

	*out = NULL;
	if (!strcmp(name, "host")) {
		code = ty_host_open(options, thread_calls, out, err);
	} else if (!strncmp(name, CUDA_PREFIX, strlen(CUDA_PREFIX)) &&
		parse_ordinal(name + strlen(CUDA_PREFIX), &ordinal)) {
		if (options->fault && options->fault[0])
			return ty_fail(err, TY_INVALID, "device %s: faults can be injected into the host device only", name);
		code = ty_cuda_open(options, ordinal, thread_calls, out, err);
	} else {
		return ty_fail(err, TY_INVALID, "device: \"%.64s\", expected \"host\" or \"cuda:N\" with N of 0..%d", name,
			CUDA_ORDINAL_MAX);
	}
	return code;
}

void ty_device_close(struct ty_device *dev)
{
	enter(dev);
	assert(dev->mappings == 0 && "every mapping is closed before its device");
	dev->slow = true;
	dev->kind->close(dev);
}

const struct ty_device_info *ty_device_info(const struct ty_device *dev)
{
	assert_owner(dev);
	return &dev->info;
}

const char *ty_device_pci(const struct ty_device *dev)
{
	assert_owner(dev);
	return dev->pci;
}

const char *ty_device_note(const struct ty_device *dev)
{
	assert_owner(dev);
	return dev->note;
}

enum ty_code ty_device_map_some(struct ty_device *dev, const struct ty_layout *layout, const struct ty_region *regions,
	struct ty_mapping **out, struct ty_error *err)
{
	enum ty_code code = TY_OK;

	enter(dev);
	if (!*out)
		code = ty_device_health(dev, err);
	if (code != TY_OK)
		return code;
	dev->slow = true;
	code = dev->kind->map(dev, layout, regions, out, err);
	dev->slow = false;
	if (code == TY_OK)
		dev->mappings++;
	return code;
}

enum ty_code ty_device_map(struct ty_device *dev, const struct ty_layout *layout, const struct ty_region *regions,
	struct ty_mapping **out, struct ty_error *err)
{
	enum ty_code code;

	*out = NULL;
	do
		code = ty_device_map_some(dev, layout, regions, out, err);
	while (code == TY_BUSY);
	return code;
}

bool ty_device_unmap_some(struct ty_device *dev, struct ty_mapping *mapping)
{
	bool all;

	enter(dev);
	assert(mapping->device == dev);
	dev->slow = true;
	all = dev->kind->unmap(dev, mapping);
	dev->slow = false;
	dev->mappings -= all;
	return all;
}

void ty_device_unmap(struct ty_device *dev, struct ty_mapping *mapping)
{
	while (!ty_device_unmap_some(dev, mapping))
		;
}

enum ty_code ty_mapping_split(struct ty_mapping *m,
	struct ty_mapping *(*make)(struct ty_mapping *whole, const struct ty_layout *layout, uint32_t first), struct ty_error *err)
{
	const struct ty_layout *layout = m->layout;
	uint32_t groups = layout->group_count, count = layout->step_count * groups;

	if (!count)
		return TY_OK;
	m->parts = calloc(count, sizeof *m->parts);
	if (!m->parts)
		return ty_fail(err, TY_NO_MEMORY, "no memory for %u steps", layout->step_count);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t group = i % groups, first = i < groups ? 0 : layout->steps[i - groups], planes = layout->steps[i] - first;
		struct ty_part *part = &m->parts[i];

		part->first_plane = first;
		if (!planes)
			continue;
		part->layout = ty_layout_part(layout, group, first, planes);
		if (part->layout)
			part->mapping = make(m, part->layout, layout->groups[group].first_plane + first);
		if (!part->mapping)
			return ty_fail(err, TY_NO_MEMORY, "no memory for %u steps", layout->step_count);
	}
	return TY_OK;
}

void ty_mapping_join(struct ty_mapping *m, void (*end)(struct ty_mapping *part))
{
	for (uint32_t i = 0; m->parts && i < m->layout->step_count * m->layout->group_count; i++) {
		if (m->parts[i].mapping)
			end(m->parts[i].mapping);
		free((void *)(uintptr_t)m->parts[i].layout);
	}
	free(m->parts);
}

const struct ty_part *ty_device_part(const struct ty_mapping *mapping, uint32_t step, uint32_t group)
{
	assert_owner(mapping->device);
	assert(step < mapping->layout->step_count && group < mapping->layout->group_count);
	return &mapping->parts[step * mapping->layout->group_count + group];
}

enum ty_code ty_device_register_host(struct ty_device *dev, void *base, size_t bytes, struct ty_error *err)
{
	enum ty_code code;

	enter(dev);
	if (!base || bytes == 0 || (uintptr_t)base > UINTPTR_MAX - bytes)
		return ty_fail(err, TY_INVALID, "host memory to register: %zu bytes at %p", bytes, base);
	code = ty_device_health(dev, err);
	if (code != TY_OK)
		return code;
	dev->slow = true;
	code = dev->kind->register_host(dev, base, bytes, err);
	dev->slow = false;
	return code;
}

void ty_device_unregister_host(struct ty_device *dev, void *base)
{
	enter(dev);
	dev->slow = true;
	dev->kind->unregister_host(dev, base);
	dev->slow = false;
}

/* The ids have been checked at the edge; here a wrong one would be a wild write into some client's memory, so they are
 * held against the layout once more. */
static void assert_batch(const struct ty_device *dev, const struct ty_batch *batch)
{
	const struct ty_layout *layout = batch->mapping->layout;

	assert(batch->mapping->device == dev);
	assert(batch->direction == TY_TO_HOST || batch->direction == TY_TO_DEVICE);
	assert(batch->count >= 1 && batch->count <= dev->kind->batch_limit(dev, layout));
	for (uint32_t c = 0; c < batch->count; c++) {
		const struct ty_copy *copy = &batch->copies[c];

		assert(copy->host && (uintptr_t)copy->host % TY_RUN_ALIGN == 0);
		for (uint32_t i = 0; i < layout->group_count; i++) {
			const struct ty_layout_group *g = &layout->groups[i];

			for (uint32_t b = g->first_block; b < g->first_block + g->blocks_per_chunk; b++)
				assert(copy->blocks[b] < g->block_count ||
					(copy->blocks[b] == TY_BLOCK_SKIP && batch->direction == TY_TO_DEVICE));
		}
	}
}

enum ty_code ty_device_submit(struct ty_device *dev, struct ty_batch *batch)
{
	enter(dev);
	assert_batch(dev, batch);
	if (dev->poisoned)
		return TY_DEVICE_FAILED;
	return dev->kind->submit(dev, batch);
}

uint32_t ty_device_batch_limit(const struct ty_device *dev, const struct ty_layout *layout)
{
	assert_owner(dev);
	return dev->kind->batch_limit(dev, layout);
}

enum ty_code ty_device_calibrate(struct ty_device *dev, bool beside, uint64_t most_us, struct ty_calibration *out,
	struct ty_error *err)
{
	enum ty_code code;

	enter(dev);
	if (!dev->kind->calibrate)
		return ty_fail(err, TY_UNSUPPORTED, "device %s: there is one way only, and nothing to calibrate", dev->info.name);
	code = ty_device_health(dev, err);
	if (code != TY_OK)
		return code;
	dev->slow = true;
	code = dev->kind->calibrate(dev, beside, most_us, out, err);
	dev->slow = false;
	return code;
}

enum ty_path ty_device_path(const struct ty_device *dev, const struct ty_mapping *mapping, uint32_t group,
	enum ty_direction direction, uint32_t chunks)
{
	assert_owner(dev);
	assert(mapping->device == dev && group < mapping->layout->group_count);
	return dev->kind->path ? dev->kind->path(mapping, group, direction, chunks) : TY_PATH_DIRECT;
}

uint32_t ty_device_poll(struct ty_device *dev, struct ty_batch **done, uint32_t max)
{
	enter(dev);
	return dev->kind->poll(dev, done, max);
}

enum ty_code ty_device_health(const struct ty_device *dev, struct ty_error *err)
{
	assert_owner(dev);
	return dev->poisoned ? ty_fail(err, TY_DEVICE_FAILED, "%s", dev->failure.text) : TY_OK;
}

const struct ty_device_stats *ty_device_stats(const struct ty_device *dev)
{
	assert_owner(dev);
	return &dev->stats;
}

const struct ty_device_call_times *ty_device_call_times(const struct ty_device *dev)
{
	assert_owner(dev);
	return dev->times;
}
